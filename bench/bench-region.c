// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Touches a region of libvswap, or a mapped file, as bench-touch does a program's own
 * memory.
 *
 *	bench-region sigbus|thread RAM PATTERN MIB OPS [RANDOM [THREADS]]
 *	bench-region total-sigbus|total-thread RAM ...
 *	bench-region file PATH PATTERN ...
 *
 * RAM, in bytes, is the region's; with total- it is all the process has: what it needs
 * itself and the pool, as it is now and then seen to be, is taken off.  What is mapped
 * is a new file at PATH, which is removed.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <vswap.h>

#include "touch.h"

#define TRIM_NS	  2000000L
#define OWN_BYTES (4ULL << 20) /* the program, its libraries, stacks, buffers */
#define LEAST_RAM (2ULL << 20)

static const char *how, *where;
static struct vswap *store;
static struct vswap_region *region;
static uint64_t total;
static bool trimming;
static pthread_t trimmer;

/* What the pool takes the region must not. */
static void *trim(void *arg)
{
	(void)arg;
	while (__atomic_load_n(&trimming, __ATOMIC_RELAXED)) {
		struct vswap_region_stat rst;
		struct vswap_stat st;
		uint64_t others;

		vswap_stat(store, &st, sizeof(st));
		vswap_region_stat(region, &rst, sizeof(rst));
		others = OWN_BYTES + st.pool_bytes + st.meta_bytes + rst.size / VSWAP_PAGE_SIZE * 8;
		vswap_set_ram(region, others + LEAST_RAM < total ? total - others : LEAST_RAM);
		nanosleep(&(struct timespec){ .tv_nsec = TRIM_NS }, NULL);
	}
	return NULL;
}

static void *get_region(size_t bytes)
{
	struct vswap_region_conf conf = { .size = bytes, .ram = strtoull(where, NULL, 10) };
	char line[256];

	if (strstr(how, "sigbus"))
		conf.flags = VSWAP_REGION_SIGBUS;
	store = vswap_create(NULL, 0);
	if (!store) {
		perror("bench-region");
		return NULL;
	}
	if (vswap_map(store, &conf, sizeof(conf), &region)) {
		vswap_message(store, line, sizeof(line));
		fprintf(stderr, "bench-region: %s\n", line);
		return NULL;
	}
	if (!strncmp(how, "total-", 6)) {
		total = conf.ram;
		trimming = true;
		if (pthread_create(&trimmer, NULL, trim, NULL)) {
			fprintf(stderr, "bench-region: no thread\n");
			return NULL;
		}
	}
	return vswap_addr(region);
}

static void put_region(void *mem, size_t bytes)
{
	(void)mem;
	(void)bytes;
	if (trimming) {
		__atomic_store_n(&trimming, false, __ATOMIC_RELAXED);
		pthread_join(trimmer, NULL);
	}
	vswap_unmap(region);
	vswap_destroy(store);
}

static void tell_region(void)
{
	struct vswap_region_stat st;
	struct vswap_stat pool;

	vswap_region_stat(region, &st, sizeof(st));
	vswap_stat(store, &pool, sizeof(pool));
	printf("\"region\": {\"ram\": %lu, \"present\": %lu, \"stored\": %lu, \"faults\": %lu, "
	       "\"first\": %lu, \"refaults\": %lu, \"recalled\": %lu, \"soon\": %lu, "
	       "\"readahead\": %lu, \"evicted\": %lu, \"direct\": %lu, \"over\": %lu, "
	       "\"pool_bytes\": %lu, \"pool_data_bytes\": %lu, \"pool_pages\": %lu}, ",
	       st.ram, st.pages_present, st.pages_stored, st.faults, st.faults_first,
	       st.faults_stored, st.faults_staged, st.refaults_soon, st.readahead, st.evicted,
	       st.direct, st.over, pool.pool_bytes, pool.pool_data_bytes, pool.pages_pool);
}

static void *get_file(size_t bytes)
{
	int fd = open(where, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	void *p;

	if (fd < 0 || unlink(where) || ftruncate(fd, (off_t)bytes)) {
		perror(where);
		return NULL;
	}
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED) {
		perror(where);
		return NULL;
	}
	return p;
}

static void put_file(void *mem, size_t bytes)
{
	munmap(mem, bytes);
}

int main(int argc, char **argv)
{
	static const char *const hows[] = { "sigbus", "thread", "total-sigbus", "total-thread",
					    "file" };
	struct touch_memory memory = {
		.name = "bench-region",
		.usage = "bench-region [total-]sigbus|[total-]thread RAM | file PATH",
		.get = get_region,
		.put = put_region,
		.tell = tell_region,
	};
	bool known = false;

	for (unsigned int i = 0; argc > 3 && i < sizeof(hows) / sizeof(hows[0]); i++)
		known |= !strcmp(argv[1], hows[i]);
	if (!known)
		return touch_main(1, argv, &memory);
	how = argv[1];
	where = argv[2];
	if (!strcmp(how, "file")) {
		memory.get = get_file;
		memory.put = put_file;
		memory.tell = NULL;
	}
	return touch_main(argc - 2, argv + 2, &memory);
}
