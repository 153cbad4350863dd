// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * libvswap as a program uses it: the public header, the shared library, several
 * threads, and every byte compared.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "libpages.h"

#define THREADS 3

static void *pages(size_t nr)
{
	void *p = aligned_alloc(PAGE, nr * PAGE);

	assert_non_null(p);
	memset(p, 0x55, nr * PAGE);
	return p;
}

static struct vswap *create(uint64_t pool_limit)
{
	struct vswap_conf conf = { .pool_limit = pool_limit };
	struct vswap *s = vswap_create(&conf, sizeof(conf));

	assert_non_null(s);
	return s;
}

static struct vswap_tier *add_temp(struct vswap *s, uint64_t size)
{
	char err[256] = "";
	struct vswap_tier *t = vswap_tier_add(s, NULL, size, 0, err, sizeof(err));

	if (!t)
		fail_msg("%s", err);
	return t;
}

static struct vswap_stat stat_of(struct vswap *s)
{
	struct vswap_stat st;

	vswap_stat(s, &st, sizeof(st));
	return st;
}

/* Store pages @id, @id + 1, ... */
static int store(struct vswap *s, uint64_t id, size_t nr, vswap_entry *e)
{
	char *buf = pages(nr);
	int ret;

	for (size_t i = 0; i < nr; i++)
		fill(buf + i * PAGE, id + i);
	ret = vswap_store(s, buf, nr, e);
	free(buf);
	return ret;
}

static void expect(struct vswap *s, uint64_t id, size_t nr, const vswap_entry *e)
{
	char *buf = pages(nr);

	assert_int_equal(vswap_load(s, e, nr, buf), 0);
	for (size_t i = 0; i < nr; i++)
		assert_true(holds(buf + i * PAGE, id + i));
	free(buf);
}

/* ---- one thread ------------------------------------------------------ */

static void test_store_load(void **state)
{
	static const char *const compressors[] = { NULL, "lz4", "zstd", "none" };
	struct vswap_conf conf = { 0 };
	struct vswap_stat st;
	struct vswap *s;
	vswap_entry e[1000];

	(void)state;
	for (unsigned int c = 0; c < 4; c++) {
		conf.compressor = compressors[c];
		s = vswap_create(&conf, sizeof(conf));
		assert_non_null(s);
		add_temp(s, 64 * MIB);
		assert_int_equal(store(s, 0, 1000, e), 0);
		for (unsigned int i = 0; i < 1000; i++)
			assert_int_not_equal(e[i], 0);
		st = stat_of(s);
		assert_int_equal(st.pages, 1000);
		assert_int_equal(st.pages_fill, 400);
		assert_int_equal(st.pages_fill + st.pages_pool + st.pages_tier, 1000);
		if (c < 3)
			assert_int_equal(st.pages_pool, 400);
		expect(s, 0, 1000, e);
		for (unsigned int i = 0; i < 1000; i += 7)
			expect(s, i, 1, e + i);
		vswap_free(s, e, 500);
		expect(s, 500, 500, e + 500);
		assert_int_equal(stat_of(s).pages, 500);
		vswap_free(s, e + 500, 500);
		st = stat_of(s);
		assert_int_equal(st.pages, 0);
		assert_int_equal(st.pages_peak, 1000);
		vswap_destroy(s);
	}
	conf.compressor = "rot13";
	assert_null(vswap_create(&conf, sizeof(conf)));
	assert_int_equal(errno, EINVAL);
	vswap_destroy(NULL);
}

static void test_unaligned(void **state)
{
	struct vswap *s = create(0);
	vswap_entry e[150];
	char *buf = pages(152);

	(void)state;
	add_temp(s, 64 * MIB);
	for (unsigned int i = 0; i < 150; i++)
		fill(buf + 13 + i * PAGE, i);
	assert_int_equal(vswap_store(s, buf + 13, 150, e), 0);
	expect(s, 0, 150, e);
	memset(buf, 0x55, 152 * PAGE);
	assert_int_equal(vswap_load(s, e, 150, buf + 4001), 0);
	for (unsigned int i = 0; i < 150; i++)
		assert_true(holds(buf + 4001 + i * PAGE, i));
	assert_int_equal(buf[4000], 0x55);
	assert_int_equal(buf[4001 + 150 * PAGE], 0x55);
	vswap_destroy(s);
	free(buf);
}

static void test_owners(void **state)
{
	struct vswap *s = create(0);
	vswap_entry e[70], with_free[3];
	char *buf = pages(3);

	(void)state;
	add_temp(s, 16 * MIB);
	assert_int_equal(store(s, 3, 70, e), 0);
	for (unsigned int i = 0; i < 40; i++)
		assert_int_equal(vswap_dup(s, e, 70), 0);
	for (unsigned int i = 0; i < 40; i++)
		vswap_free(s, e, 70);
	expect(s, 3, 70, e);
	/* Not all can have one more: none gets it. */
	vswap_free(s, e + 69, 1);
	assert_int_equal(vswap_dup(s, e, 70), -ENOENT);
	vswap_free(s, e, 1);
	assert_int_equal(stat_of(s).pages, 68);

	/* One that is free spoils none of its neighbours. */
	with_free[0] = e[1];
	with_free[1] = e[0];
	with_free[2] = e[2];
	assert_int_equal(vswap_load(s, with_free, 3, buf), -ENOENT);
	assert_true(holds(buf, 4));
	assert_int_equal(buf[PAGE], 0x55);
	assert_true(holds(buf + 2 * PAGE, 5));
	vswap_free(s, e + 1, 68);
	assert_int_equal(stat_of(s).pages, 0);
	vswap_destroy(s);
	free(buf);
}

static void test_no_room(void **state)
{
	struct vswap *s = create(2 * MIB);
	vswap_entry e[8000];
	unsigned int n = 0;
	uint64_t before;

	(void)state;
	/* Nothing that needs a tier when there is none, then until the pool is full. */
	assert_int_equal(store(s, 2, 1, e), -ENOSPC);
	assert_int_equal(stat_of(s).pages, 0);
	while (n < 8000 && !store(s, 5 * n + 3, 2, e + n))
		n += 2;
	assert_true(n > 100 && n < 8000);
	before = stat_of(s).pages;
	assert_int_equal(before, n);
	assert_int_equal(store(s, 0, 200, e + n), -ENOSPC);
	assert_int_equal(stat_of(s).pages, before);
	for (unsigned int i = 0; i < n; i += 2)
		expect(s, 5 * i + 3, 2, e + i);

	/* A tier makes room, and moving the oldest there makes room in the pool. */
	add_temp(s, 64 * MIB);
	assert_int_equal(store(s, 0, 200, e + n), 0);
	assert_true(vswap_writeback(s, MIB) > 0);
	assert_true(stat_of(s).pages_tier > 100);
	for (unsigned int i = 0; i < n; i += 2)
		expect(s, 5 * i + 3, 2, e + i);
	expect(s, 0, 200, e + n);
	vswap_free(s, e, n + 200);
	vswap_compact(s);
	assert_int_equal(stat_of(s).pages, 0);
	vswap_destroy(s);
}

/*
 * Who stores more than the pool holds finds the new in the pool and the old on the
 * tier, whether that is done ahead or when the pool is full.
 */
static void test_age_order(void **state)
{
	struct vswap *s;
	static vswap_entry e[12000];
	uint64_t read_before;

	(void)state;
	for (int ahead = 0; ahead < 2; ahead++) {
		s = create(4 * MIB);
		add_temp(s, 64 * MIB);
		assert_int_equal(vswap_set_writeback(s, ahead ? 80 : 100), 0);
		for (unsigned int i = 0; i < 12000; i++) /* all compressible */
			assert_int_equal(store(s, 5 * i + 3, 1, e + i), 0);
		assert_true(stat_of(s).pages_tier > 500);
		read_before = stat_of(s).tier_pages_read;
		for (unsigned int i = 11500; i < 12000; i++)
			expect(s, 5 * i + 3, 1, e + i);
		assert_int_equal(stat_of(s).tier_pages_read, read_before);
		for (unsigned int i = 0; i < 12000; i++)
			expect(s, 5 * i + 3, 1, e + i);
		vswap_destroy(s);
	}
}

static char logged[512];

static void sink(const char *line)
{
	snprintf(logged, sizeof(logged), "%s", line);
}

/* Pages that are gone are said to be gone. */
static void test_read_error(void **state)
{
	char path[64] = "/var/tmp/vswap-test-XXXXXX", err[256] = "", *buf = pages(1);
	struct vswap *s = create(0);
	vswap_entry e[100];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_null(vswap_tier_add(s, path, 0, 0, err, sizeof(err)));
	assert_non_null(strstr(err, "is empty"));
	assert_int_equal(errno, EINVAL);
	assert_null(vswap_tier_add(s, "/no/such/file", 8 * MIB, 0, NULL, 0));
	assert_int_equal(errno, ENOENT);
	assert_null(vswap_tier_add(s, "/var/tmp", 8 * MIB, 0, NULL, 0));
	assert_int_equal(errno, EISDIR);
	assert_null(vswap_tier_add(s, "nbd+unix:///?socket=/no/such/socket", 0, 0, NULL, 0));
	assert_int_equal(errno, ENOTCONN);
	assert_non_null(vswap_tier_add(s, path, 8 * MIB, 0, err, sizeof(err)));
	for (unsigned int i = 0; i < 100; i++) /* each goes to the tier */
		assert_int_equal(store(s, 5 * i + 2, 1, e + i), 0);
	assert_int_equal(stat_of(s).pages_tier, 100);
	vswap_log(sink);
	assert_int_equal(ftruncate(fd, MIB), 0);
	assert_int_equal(vswap_load(s, e + 3, 1, buf), -EIO);
	assert_int_equal(vswap_load(s, e + 3, 1, buf), -EIO);
	assert_non_null(strstr(logged, path));
	/* It might have been there the next time; what is not what it was is lost. */
	assert_int_equal(stat_of(s).pages_lost, 0);
	assert_int_equal(ftruncate(fd, 8 * MIB), 0);
	assert_int_equal(vswap_load(s, e + 3, 1, buf), -EIO);
	assert_non_null(strstr(logged, "checksum mismatch"));
	assert_int_equal(stat_of(s).pages_lost, 1);
	assert_true(stat_of(s).read_errors > 0);
	vswap_log(NULL);
	vswap_free(s, e, 100);
	assert_int_equal(stat_of(s).pages, 0);
	vswap_destroy(s);
	close(fd);
	assert_int_equal(unlink(path), 0);
	free(buf);
}

/* What a tier's file says of a read to one of these. */
static struct {
	const char *page;
	int err;
} bad[2];

ssize_t preadv(int fd, const struct iovec *iov, int nr, off_t offset)
{
	for (unsigned int i = 0; i < 2; i++) {
		for (int n = 0; n < nr && bad[i].page; n++) {
			size_t off = (uintptr_t)bad[i].page - (uintptr_t)iov[n].iov_base;

			if (off >= iov[n].iov_len)
				continue;
			errno = bad[i].err;
			return -1;
		}
	}
	return syscall(SYS_preadv, fd, iov, nr, (long)offset, 0L);
}

/* Of several errors it is the one that says most about the others' pages. */
static void test_load_errors(void **state)
{
	static const struct {
		unsigned int page;
		int err;
	} cases[][2] = {
		/* The worse one is first; in one batch, and in two. */
		{ { 3, ENOMEM }, { 4, EIO } },	  { { 3, ENOMEM }, { 100, EIO } },
		{ { 3, ENOMEM }, { 4, EAGAIN } }, { { 3, ENOMEM }, { 100, EAGAIN } },
		{ { 3, EAGAIN }, { 4, EIO } },	  { { 3, EAGAIN }, { 100, EIO } },
		{ { 3, EIO }, { 4, EFAULT } },	  { { 3, EIO }, { 100, EFAULT } },
	};
	struct vswap *s = create(0);
	vswap_entry e[128];
	char *buf = pages(128);

	(void)state;
	add_temp(s, 16 * MIB);
	for (unsigned int i = 0; i < 128; i++)
		assert_int_equal(store(s, 5 * i + 2, 1, e + i), 0);
	assert_int_equal(stat_of(s).pages_tier, 128);
	vswap_log(sink);
	for (unsigned int i = 0; i < 2 * sizeof(cases) / sizeof(*cases); i++) {
		unsigned int page[2];

		memset(buf, 0x55, 128 * PAGE);
		for (unsigned int k = 0; k < 2; k++) {
			/* As they are, and in the other order. */
			page[k] = cases[i / 2][k ^ i % 2].page;
			bad[k].page = buf + page[k] * PAGE;
			bad[k].err = cases[i / 2][k].err;
		}
		assert_int_equal(vswap_load(s, e, 128, buf), -cases[i / 2][0].err);
		memset(bad, 0, sizeof(bad));
		for (unsigned int k = 0; k < 128; k++)
			assert_int_equal(holds(buf + k * PAGE, 5 * k + 2),
					 k != page[0] && k != page[1]);
	}
	/* An entry that is not in use says nothing of those that are. */
	vswap_free(s, e + 3, 1);
	bad[0].page = buf + 100 * PAGE;
	bad[0].err = EIO;
	assert_int_equal(vswap_load(s, e, 128, buf), -EIO);
	memset(bad, 0, sizeof(bad));
	assert_int_equal(vswap_load(s, e, 128, buf), -ENOENT);
	vswap_log(NULL);
	vswap_destroy(s);
	free(buf);
}

/* What is read to where no page can be put stays where it is. */
static void test_unwritable(void **state)
{
	struct vswap *s = create(0);
	vswap_entry e;
	char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_ptr_not_equal(p, MAP_FAILED);
	add_temp(s, 16 * MIB);
	assert_int_equal(store(s, 2, 1, &e), 0);
	assert_int_equal(stat_of(s).pages_tier, 1);
	vswap_log(sink);
	assert_int_equal(vswap_load(s, &e, 1, p), -EFAULT);
	vswap_log(NULL);
	expect(s, 2, 1, &e);
	vswap_destroy(s);
	munmap(p, PAGE);
}

/* A program and a library of different age. */
static void test_sizes(void **state)
{
	struct {
		struct vswap_conf conf;
		uint64_t later;
	} newer = { { "lz4", MIB }, 1 };
	struct {
		struct vswap_stat st;
		uint64_t later;
	} st;
	struct vswap *s;
	vswap_entry e;
	char line[256];

	(void)state;
	newer.conf.compressor = "no such";
	s = vswap_create(&newer.conf, 0);
	assert_non_null(s);
	vswap_destroy(s);
	newer.conf.compressor = "lz4";
	s = vswap_create(&newer.conf, sizeof(newer));
	assert_non_null(s);
	assert_int_equal(store(s, 0, 1, &e), 0);
	memset(&st, 0xff, sizeof(st));
	vswap_stat(s, &st.st, sizeof(st));
	assert_int_equal(st.st.pages, 1);
	assert_int_equal(st.later, 0);
	memset(&st, 0xff, sizeof(st));
	vswap_stat(s, &st.st, sizeof(uint64_t));
	assert_int_equal(st.st.pages, 1);
	assert_true(st.st.pages_peak == UINT64_MAX);
	assert_int_equal(vswap_set_writeback(s, 101), -EINVAL);
	assert_true(vswap_message(s, line, sizeof(line)) > 4);
	assert_non_null(strstr(line, "101"));
	assert_int_equal(vswap_message(s, line, 4), vswap_message(s, NULL, 0));
	assert_int_equal(strlen(line), 3);
	assert_int_equal(vswap_set_writeback(s, 100), 0);
	vswap_destroy(s);
	assert_non_null(strchr(vswap_version(), '.'));
}

/* What is no tier of the store, or no more, is said to be none. */
static void test_no_tier(void **state)
{
	struct vswap *s = create(0), *other = create(0);
	struct vswap_tier *mine = add_temp(s, 8 * MIB), *theirs = add_temp(other, 8 * MIB);
	char line[256];

	(void)state;
	assert_int_equal(vswap_tier_remove(s, NULL), -EINVAL);
	assert_int_equal(vswap_tier_remove(s, theirs), -EINVAL);
	vswap_message(s, line, sizeof(line));
	assert_non_null(strstr(line, "not one of this store"));
	assert_int_equal(vswap_tier_remove(s, mine), 0);
	assert_int_equal(vswap_tier_remove(s, mine), -EINVAL);
	assert_int_equal(vswap_tier_remove(other, theirs), 0);
	vswap_destroy(s);
	vswap_destroy(other);
}

/* The library shows its interface and nothing of what it is made of. */
static void test_symbols(void **state)
{
	(void)state;
	assert_non_null(dlsym(RTLD_DEFAULT, "vswap_store"));
	assert_null(dlsym(RTLD_DEFAULT, "swap_space_create"));
	assert_null(dlsym(RTLD_DEFAULT, "tier_file_open"));
	assert_null(dlsym(RTLD_DEFAULT, "zpool_create"));
	assert_null(dlsym(RTLD_DEFAULT, "compat_printk"));
}

/* ---- threads --------------------------------------------------------- */

#define OWN    1500
#define ROUNDS 400

struct worker {
	struct vswap *s;
	uint64_t seed;
	vswap_entry e[OWN];
	uint64_t id[OWN]; /* what e holds, where it is not 0 */
	bool bad;
};

static uint64_t next(struct worker *w)
{
	return w->seed = mix(w->seed + 0x632be59bd9b4e19bULL);
}

static void check(struct worker *w, bool ok)
{
	if (!ok)
		w->bad = true;
}

/* Any of: store where there is nothing, load, free, dup and free, of a random range. */
static void *work(void *arg)
{
	struct worker *w = arg;
	char *buf = aligned_alloc(PAGE, 100 * PAGE);

	for (unsigned int round = 0; round < ROUNDS && buf; round++) {
		unsigned int first = next(w) % OWN, nr = 1 + next(w) % 100, n = 0;
		bool there = w->e[first] != 0;
		uint64_t what = next(w) % 8;

		while (n < nr && first + n < OWN && !!w->e[first + n] == there)
			n++;
		if (!there) {
			for (unsigned int i = 0; i < n; i++) {
				w->id[first + i] = next(w) >> 16;
				fill(buf + i * PAGE, w->id[first + i]);
			}
			check(w, !vswap_store(w->s, buf, n, w->e + first));
		} else if (what < 5) {
			check(w, !vswap_load(w->s, w->e + first, n, buf));
			for (unsigned int i = 0; i < n; i++)
				check(w, holds(buf + i * PAGE, w->id[first + i]));
		} else if (what == 5) {
			check(w, !vswap_dup(w->s, w->e + first, n));
			vswap_free(w->s, w->e + first, n);
		} else {
			vswap_free(w->s, w->e + first, n);
			memset(w->e + first, 0, n * sizeof(*w->e));
		}
	}
	for (unsigned int i = 0; i < OWN && buf; i++) {
		if (!w->e[i])
			continue;
		check(w, !vswap_load(w->s, w->e + i, 1, buf));
		check(w, holds(buf, w->id[i]));
	}
	check(w, buf);
	free(buf);
	return NULL;
}

/*
 * Threads with pages of their own in one store that is too small for them,
 * while its tiers come and go.
 */
static void test_threads(void **state)
{
	static struct worker w[THREADS];
	struct vswap *s = create(2 * MIB);
	struct vswap_tier *slow = add_temp(s, 64 * MIB), *extra;
	pthread_t thread[THREADS];
	struct vswap_stat st;

	(void)state;
	memset(w, 0, sizeof(w));
	for (unsigned int i = 0; i < THREADS; i++) {
		w[i].s = s;
		w[i].seed = i + 1;
		assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
	}
	for (unsigned int i = 0; i < 5; i++) {
		extra = vswap_tier_add(s, NULL, 64 * MIB, 1, NULL, 0);
		assert_non_null(extra);
		usleep(20000);
		assert_int_equal(vswap_tier_remove(s, extra), 0);
		vswap_compact(s);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		assert_false(w[i].bad);
	st = stat_of(s);
	assert_true(st.tier_pages_written > 0 && st.tier_pages_read > 0);
	assert_int_equal(st.pages_lost, 0);
	assert_true(st.pages_tier > 0);

	/* The last one does not go while it is needed, and goes when it is not. */
	vswap_set_pool_limit(s, MIB);
	assert_int_equal(vswap_tier_remove(s, slow), -ENOSPC);
	for (unsigned int t = 0; t < THREADS; t++) {
		for (unsigned int i = 0; i < OWN; i++) {
			if (!w[t].e[i])
				continue;
			expect(s, w[t].id[i], 1, w[t].e + i);
			vswap_free(s, w[t].e + i, 1);
		}
	}
	assert_int_equal(vswap_tier_remove(s, slow), 0);
	assert_int_equal(stat_of(s).pages, 0);
	vswap_destroy(s);
}

#define SHARED 96

static vswap_entry shared[SHARED];

/* The same pages as everybody else, each in an order of one's own. */
static void *reader(void *arg)
{
	struct worker *w = arg;
	char *buf = aligned_alloc(PAGE, SHARED * PAGE);
	vswap_entry e[SHARED];
	unsigned int at[SHARED];

	for (unsigned int round = 0; round < 200 && buf; round++) {
		for (unsigned int i = 0; i < SHARED; i++) {
			at[i] = next(w) % SHARED; /* some more than once */
			e[i] = shared[at[i]];
		}
		check(w, !vswap_load(w->s, e, SHARED, buf));
		for (unsigned int i = 0; i < SHARED; i++)
			check(w, holds(buf + i * PAGE, at[i]));
	}
	check(w, buf);
	free(buf);
	return NULL;
}

static void test_shared(void **state)
{
	static struct worker w[THREADS];
	struct vswap *s = create(0);
	pthread_t thread[THREADS];

	(void)state;
	add_temp(s, 16 * MIB);
	assert_int_equal(store(s, 0, SHARED, shared), 0);
	memset(w, 0, sizeof(w));
	for (unsigned int i = 0; i < THREADS; i++) {
		w[i].s = s;
		w[i].seed = i + 77;
		assert_int_equal(pthread_create(&thread[i], NULL, reader, &w[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		assert_false(w[i].bad);
	vswap_free(s, shared, SHARED);
	assert_int_equal(stat_of(s).pages, 0);
	vswap_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_load), cmocka_unit_test(test_unaligned),
		cmocka_unit_test(test_owners),	   cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_age_order),  cmocka_unit_test(test_read_error),
		cmocka_unit_test(test_sizes),	   cmocka_unit_test(test_symbols),
		cmocka_unit_test(test_no_tier),	   cmocka_unit_test(test_threads),
		cmocka_unit_test(test_shared),	   cmocka_unit_test(test_load_errors),
		cmocka_unit_test(test_unwritable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
