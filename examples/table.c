// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A hash table ten times the memory it may have.
 *
 *	table [MIB_OF_RAM [sigbus|thread|file [SECONDS]]]
 *
 * Open addressing in one array of slots, as it would be in a program that has the
 * memory: the only thing that knows of vswap is where the array comes from.  With
 * "file" it is a mapped file instead, which the kernel writes out when it wants to;
 * give it a memory limit for a comparison (bench/bench-table does).
 *
 * Records are inserted, changed and looked up, and compared; for so many seconds at most
 * inserted, and for as many looked up.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <vswap.h>

#define MIB   (1UL << 20)
#define TIMES 10 /* the table to its memory */

struct record {
	uint64_t key; /* 0: none */
	uint64_t count;
	char text[112];
};

struct table {
	struct record *slot;
	size_t nr;
};

static uint64_t hash(uint64_t key)
{
	key ^= key >> 33;
	key *= 0xff51afd7ed558ccdULL;
	key ^= key >> 33;
	key *= 0xc4ceb9fe1a85ec53ULL;
	return key ^ key >> 33;
}

/* The record of @key, or the free slot where it would be. */
static struct record *find(const struct table *t, uint64_t key)
{
	size_t i = hash(key) % t->nr;

	while (t->slot[i].key && t->slot[i].key != key)
		i = i + 1 < t->nr ? i + 1 : 0;
	return &t->slot[i];
}

static void text_of(char *text, size_t len, uint64_t key)
{
	snprintf(text, len, "record %lu of a table that is larger than its memory, check %016lx",
		 key, hash(key ^ 1));
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The clock is looked at now and then. */
static bool is_over(size_t done, double end)
{
	return done % 64 == 0 && seconds() > end;
}

/* Insert, look up in another order and change every third.  Returns how many were wrong. */
static size_t use(const struct table *t, double limit)
{
	size_t most = t->nr / 3 * 2, records = 0, lookups = 0, wrong = 0;
	double start = seconds(), inserted, looked;
	char text[sizeof(t->slot->text)];

	while (records < most && !is_over(records, start + limit)) {
		uint64_t key = ++records;
		struct record *r = find(t, key);

		wrong += r->key != 0;
		r->key = key;
		r->count = 1;
		text_of(r->text, sizeof(r->text), key);
	}
	inserted = seconds();
	while (lookups < most / 8 && !is_over(lookups, inserted + limit)) {
		uint64_t key = 1 + hash(lookups++) % records;
		struct record *r = find(t, key);

		text_of(text, sizeof(text), key);
		wrong += r->key != key || strcmp(r->text, text) || !r->count;
		if (key % 3 == 0)
			r->count++;
	}
	looked = seconds();
	/* One that is not there is not found. */
	wrong += find(t, records + 1)->key != 0;
	printf("{\"records\": %zu, \"table_bytes\": %zu, \"inserts_per_s\": %.0f, "
	       "\"lookups_per_s\": %.0f, \"wrong\": %zu",
	       records, t->nr * sizeof(*t->slot), (double)records / (inserted - start),
	       (double)lookups / (looked - inserted), wrong);
	return wrong;
}

static int in_region(size_t ram, uint64_t flags, double limit)
{
	/* One half for pages that can be touched, one for pages compressed. */
	struct vswap_conf half = { .pool_limit = ram / 2 };
	struct vswap_region_conf conf = { .size = ram * TIMES, .ram = ram / 2, .flags = flags };
	struct vswap *s = vswap_create(&half, sizeof(half));
	struct vswap_region_stat st;
	struct vswap_stat store;
	struct vswap_region *r;
	struct table t;
	char why[256];
	size_t wrong;

	if (!s) {
		perror("table");
		return 1;
	}
	/* What does not fit compressed goes to a file under $TMPDIR or /var/tmp. */
	if (!vswap_tier_add(s, NULL, conf.size, 0, why, sizeof(why))) {
		fprintf(stderr, "table: %s\n", why);
		return 1;
	}
	if (vswap_map(s, &conf, sizeof(conf), &r)) {
		vswap_message(s, why, sizeof(why));
		fprintf(stderr, "table: %s\n", why);
		return 1;
	}
	t.slot = vswap_addr(r);
	t.nr = conf.size / sizeof(*t.slot);
	wrong = use(&t, limit);
	vswap_region_stat(r, &st, sizeof(st));
	vswap_stat(s, &store, sizeof(store));
	printf(", \"ram\": %lu, \"present\": %lu, \"faults\": %lu, \"pool_bytes\": %lu}\n", st.ram,
	       st.pages_present, st.faults, store.pool_bytes);
	vswap_unmap(r);
	vswap_destroy(s);
	return wrong != 0;
}

static int in_file(size_t ram, double limit)
{
	const char *dir = getenv("TMPDIR");
	struct table t;
	char path[256];
	size_t wrong;
	int fd;

	snprintf(path, sizeof(path), "%s/table-XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	if (fd < 0 || unlink(path) || ftruncate(fd, (off_t)(ram * TIMES))) {
		perror(path);
		return 1;
	}
	t.nr = ram * TIMES / sizeof(*t.slot);
	t.slot = mmap(NULL, ram * TIMES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (t.slot == MAP_FAILED) {
		perror("table: mmap");
		return 1;
	}
	wrong = use(&t, limit);
	printf("}\n");
	munmap(t.slot, ram * TIMES);
	close(fd);
	return wrong != 0;
}

int main(int argc, char **argv)
{
	size_t ram = (argc > 1 ? strtoul(argv[1], NULL, 10) : 16) * MIB;
	const char *how = argc > 2 ? argv[2] : "sigbus";
	double limit = argc > 3 ? strtod(argv[3], NULL) : 1e9;

	if (!strcmp(how, "file"))
		return in_file(ram, limit);
	if (strcmp(how, "sigbus") && strcmp(how, "thread")) {
		fprintf(stderr, "usage: table [MIB_OF_RAM [sigbus|thread|file [SECONDS]]]\n");
		return 2;
	}
	return in_region(ram, strcmp(how, "sigbus") ? 0 : VSWAP_REGION_SIGBUS, limit);
}
