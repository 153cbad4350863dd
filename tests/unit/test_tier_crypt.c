// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Encrypted tiers: what comes back, what lies there, and where the key is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/printk.h>

#include "pages.h"
#include "tier/crypt.h"
#include "tier/tier.h"

#define PAGE  SWAP_PAGE_SIZE
#define SLOTS 1024
#define HEAD  (1 << 20)

/* The sanitizers make mlock() do nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOCKED ""
#else
#define LOCKED " lo"
#endif

static char path[2][300];

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	for (int i = 0; i < 2; i++) {
		int fd;

		snprintf(path[i], sizeof(path[i]), "%s/vswap-test-XXXXXX",
			 tmp && *tmp ? tmp : "/var/tmp");
		fd = mkstemp(path[i]);
		if (fd < 0 || ftruncate(fd, HEAD + SLOTS * PAGE) || close(fd))
			return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path[0]) || unlink(path[1]);
}

static struct tier *must_open(int which)
{
	struct tier_opts opts = { .path = path[which], .encrypt = true };
	char err[512] = "";
	struct tier *t = tier_open(&opts, err, sizeof(err));

	if (!t)
		fail_msg("%s", err);
	assert_string_equal(t->name, path[which]);
	return t;
}

/* Read or write @nr pages from slot @slot on, all of the same contents if @same. */
static void move(struct tier *t, bool write, u64 slot, unsigned int nr, bool same)
{
	struct swap_io *io = calloc(nr, sizeof(*io));
	char *mem = aligned_alloc(PAGE, nr * PAGE), page[PAGE];

	for (unsigned int i = 0; i < nr; i++) {
		io[i] = (struct swap_io){ .slot = slot + i, .data = mem + i * PAGE };
		page_make(io[i].data, PAGE_TEXT, same ? 1 : slot + i);
	}
	if (!write)
		memset(mem, 0xaa, nr * PAGE);
	(write ? t->ops->write : t->ops->read)(t->priv, io, nr);
	for (unsigned int i = 0; i < nr; i++) {
		/* The page of a write is the owner's, who may be reading it. */
		page_make(page, PAGE_TEXT, same ? 1 : slot + i);
		assert_int_equal(io[i].error, 0);
		assert_memory_equal(io[i].data, page, PAGE);
	}
	free(mem);
	free(io);
}

/* What really is in a slot. */
static void raw(int which, u64 slot, void *page)
{
	int fd = open(path[which], O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, page, PAGE, HEAD + (off_t)slot * PAGE), PAGE);
	close(fd);
}

static void test_hidden(void **state)
{
	struct tier *t = must_open(0), *other = must_open(1);
	char page[PAGE], there[PAGE], before[PAGE];

	(void)state;
	assert_int_equal(t->nr_slots, SLOTS);
	move(t, true, 0, SLOTS, false);
	move(t, false, 0, SLOTS, false);
	for (u64 slot = 0; slot < SLOTS; slot++) {
		page_make(page, PAGE_TEXT, slot);
		raw(0, slot, there);
		for (unsigned int i = 0; i < PAGE; i += 16)
			assert_memory_not_equal(page + i, there + i, 16);
	}
	/* The same page looks different in each slot, and in each tier. */
	move(t, true, 0, 2, true);
	move(other, true, 0, 2, true);
	raw(0, 0, page);
	raw(0, 1, there);
	assert_memory_not_equal(page, there, 16);
	raw(1, 0, there);
	assert_memory_not_equal(page, there, 16);
	move(t, false, 0, 2, true);
	move(other, false, 0, 2, true);
	tier_close(other);
	/* And with each key: the last tier took the old one along. */
	raw(0, 0, before);
	tier_close(t);
	t = must_open(0);
	move(t, true, 0, 1, true);
	raw(0, 0, there);
	assert_memory_not_equal(before, there, 16);
	tier_close(t);
}

struct worker {
	struct tier *tier;
	u64 first;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned int i = 0; i < 40; i++) {
		move(w->tier, true, w->first, 1 + i * 2, i % 2);
		move(w->tier, false, w->first, 1 + i * 2, i % 2);
	}
	return NULL;
}

/* More threads than there are contexts or buffers. */
static void test_threads(void **state)
{
	struct worker w[10];
	struct tier *t = must_open(0);

	(void)state;
	for (unsigned int i = 0; i < 10; i++) {
		w[i] = (struct worker){ .tier = t, .first = i * 100 };
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned int i = 0; i < 10; i++)
		pthread_join(w[i].thread, NULL);
	tier_close(t);
}

static unsigned int asked;

/* Takes a while to say that its server is away. */
static void away_write(void *priv, struct swap_io *io, unsigned int nr)
{
	(void)priv;
	asked++;
	for (unsigned int i = 0; i < nr; i++)
		io[i].error = -EAGAIN;
}

static void no_close(void *priv)
{
	(void)priv;
}

/* A batch waits for a server that is away no longer than it would without encryption. */
static void test_away(void **state)
{
	static const struct swap_tier_ops ops = { .write = away_write };
	struct tier *inner = calloc(1, sizeof(*inner)), *t = calloc(1, sizeof(*t));
	struct swap_io io[256];
	char err[512], *mem = calloc(256, PAGE);

	(void)state;
	*inner = (struct tier){ .name = "x", .nr_slots = 256, .ops = &ops, .close = no_close };
	assert_int_equal(tier_crypt(t, inner, err, sizeof(err)), 0);
	for (unsigned int i = 0; i < 256; i++)
		io[i] = (struct swap_io){ .slot = i, .data = mem + i * PAGE };
	t->ops->write(t->priv, io, 256);
	assert_int_equal(asked, 1);
	for (unsigned int i = 0; i < 256; i++)
		assert_int_equal(io[i].error, -EAGAIN);
	tier_close(t);
	free(mem);
}

/* Memory that is locked, left out of core dumps, and empty in children: start and end. */
static unsigned int key_areas(char **start, char **end)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long from = 0, to = 0, a, b;
	unsigned int n = 0;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &a, &b) == 2) {
			from = a;
			to = b;
		}
		if (!strncmp(line, "VmFlags:", 8) && strstr(line, LOCKED) && strstr(line, " dd") &&
		    strstr(line, " wf")) {
			n++;
			*start = (char *)from;
			*end = (char *)to;
		}
	}
	fclose(f);
	return n;
}

/* Bytes that are set, but for the sizes of pieces, each at the front of a cache line. */
static unsigned int bytes_set(const char *start, const char *end)
{
	unsigned int n = 0;

	for (const char *p = start; p < end; p++)
		n += *p && (p - start) % 64 >= 8;
	return n;
}

static int no_lock(void)
{
	struct tier_opts opts = { .path = path[0], .encrypt = true };
	struct rlimit none = { 0, 0 };
	char err[512] = "";
	struct tier *t;

	if (setrlimit(RLIMIT_MEMLOCK, &none) || (geteuid() == 0 && setuid(65534)))
		return 1;
	opts.path = NULL;
	opts.size = 4 << 20;
	t = tier_open(&opts, err, sizeof(err));
	if (!*LOCKED)
		return !t;
	if (t || !strstr(err, "ulimit -l"))
		return 2;
	return 0;
}

static void test_key(void **state)
{
	char *start = NULL, *end = NULL;
	struct tier *t;
	int status;
	pid_t pid;

	(void)state;
	/* First, for what is locked once stays so. */
	pid = fork();
	if (!pid)
		_exit(no_lock());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	t = must_open(0);
	assert_int_equal(key_areas(&start, &end), 1);
	assert_true(bytes_set(start, end) > 1000);
	tier_close(t);
	assert_int_equal(bytes_set(start, end), 0);
}

static char said[512];

static void listen_to(const char *line)
{
	snprintf(said, sizeof(said), "%s", line);
}

/* A file that others may read is warned of where there is something to be read. */
static void test_readable(void **state)
{
	char err[512] = "";

	(void)state;
	compat_printk_to(listen_to);
	for (unsigned int i = 0; i < 4; i++) {
		struct tier_opts opts = { .path = path[0], .encrypt = i % 2 };
		struct tier *t;

		assert_int_equal(chmod(path[0], i / 2 ? 0600 : 0644), 0);
		said[0] = 0;
		t = tier_open(&opts, err, sizeof(err));
		assert_non_null(t);
		tier_close(t);
		assert_int_equal(!!said[0], i == 0);
		assert_true(i || strstr(said, "others may read it (chmod 600 "));
	}
	compat_printk_to(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key),	cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_threads), cmocka_unit_test(test_readable),
		cmocka_unit_test(test_away),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
