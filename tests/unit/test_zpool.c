// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The compressed pool against a table that is nothing but an array: bytes come
 * back as stored, age order survives cleaning, memory comes back, limits hold,
 * and threads that store, read, free, clean and walk do not meet.  Built twice:
 * with a process's memory, and with a home that cannot give back part of a
 * segment, where the figures come in segments and only part of the tests applies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/mutex.h>
#include <linux/string.h>

#include "core/zmem.h"
#include "core/zpool.h"

#if defined(COMPAT_TSAN) || defined(COMPAT_ASAN)
#define SCALE 8
#else
#define SCALE 1
#endif

#define MIB	(1UL << 20)
#define SEGMENT (4 * MIB)

/* One entry of the table: its lock is what a folio lock is to the real one. */
struct slot {
	struct mutex lock;
	unsigned long addr; /* 0: nothing stored */
	u64 age;	    /* when it was stored */
	u32 seed;	    /* what was stored */
	u32 len;
};

struct table {
	struct zpool *pool;
	unsigned long nr;
	struct slot *slot; /* by entry; 0 is not used */
	u64 clock;
	atomic64_t moved;
	u64 peak; /* bytes of the pool at most, as seen when an object was moved; one thread */
};

static int table_pin(void *priv, vswp_entry_t entry, unsigned long addr)
{
	struct table *t = priv;
	struct slot *s = &t->slot[entry.val];

	if (entry.val == 0 || entry.val > t->nr)
		abort();
	if (!mutex_trylock(&s->lock))
		return -EBUSY;
	if (s->addr != addr) {
		mutex_unlock(&s->lock);
		return -ENOENT;
	}
	return 0;
}

static void table_unpin(void *priv, vswp_entry_t entry, unsigned long from, unsigned long to)
{
	struct table *t = priv;
	struct slot *s = &t->slot[entry.val];

	if (s->addr != from)
		abort();
	s->addr = to;
	if (from != to)
		atomic64_inc(&t->moved);
	mutex_unlock(&s->lock);
}

static const struct zpool_ops table_ops = { .pin = table_pin, .unpin = table_unpin };

static void table_open(struct table *t, unsigned long nr, u64 limit)
{
	unsigned long i;

	memset(t, 0, sizeof(*t));
	t->nr = nr;
	t->slot = calloc(nr + 1, sizeof(*t->slot));
	assert_non_null(t->slot);
	for (i = 0; i <= nr; i++)
		mutex_init(&t->slot[i].lock);
	t->pool = zpool_create(limit, &table_ops, t);
	assert_non_null(t->pool);
}

static void table_close(struct table *t)
{
	zpool_destroy(t->pool);
	free(t->slot);
}

static u64 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Lengths as LZ4 makes them of programs' pages: a peak near a kilobyte, a long tail. */
static u32 random_len(u64 *state)
{
	u32 len = 200 + next_random(state) % 1200;

	if (next_random(state) % 4 == 0)
		len += next_random(state) % 2100;
	return len;
}

static void fill_bytes(u8 *buf, u32 seed, u32 len)
{
	u32 i, x = seed * 2654435761u + len;

	for (i = 0; i < len; i++) {
		buf[i] = (u8)(x >> 24);
		x = x * 1664525u + 1013904223u;
	}
}

/* Store under @entry, which holds nothing; the slot's lock is held, or nobody else is there. */
static int put(struct table *t, unsigned long entry, u32 seed, u32 len)
{
	struct slot *s = &t->slot[entry];
	unsigned long addr = 0;
	u8 buf[SWAP_PAGE_SIZE];
	int err;

	fill_bytes(buf, seed, len);
	err = zpool_store(t->pool, vswp_entry(entry), buf, len, 0, &addr);
	if (err)
		return err;
	if (!addr || addr >> ZPOOL_ADDR_BITS)
		abort();
	s->addr = addr;
	s->seed = seed;
	s->len = len;
	return 0;
}

static bool same(struct table *t, unsigned long entry)
{
	struct slot *s = &t->slot[entry];
	u8 want[SWAP_PAGE_SIZE];
	const void *got;
	size_t len;

	got = zpool_map(t->pool, s->addr, &len);
	assert_int_equal(zpool_entry(t->pool, s->addr).val, entry);
	if (len != s->len)
		return false;
	fill_bytes(want, s->seed, s->len);
	return !memcmp(got, want, len);
}

static void drop(struct table *t, unsigned long entry)
{
	unsigned long addr = t->slot[entry].addr;

	t->slot[entry].addr = 0;
	zpool_free(t->pool, addr);
}

static void put_aged(struct table *t, unsigned long entry, u32 len)
{
	assert_int_equal(put(t, entry, (u32)t->clock, len), 0);
	t->slot[entry].age = ++t->clock;
}

static void check_all(struct table *t)
{
	struct zpool_stat st;
	u64 objects = 0, data = 0;
	unsigned long i;

	for (i = 1; i <= t->nr; i++) {
		if (!t->slot[i].addr)
			continue;
		assert_true(same(t, i));
		objects++;
		data += t->slot[i].len;
	}
	zpool_stat(t->pool, &st);
	assert_int_equal(st.objects, objects);
	assert_int_equal(st.data_bytes, data);
	assert_true(st.live_bytes >= data + 8 * objects);
	assert_true(st.live_bytes <= data + 9 * objects);
	assert_true(st.bytes >= st.live_bytes);
}

static double density(struct table *t)
{
	struct zpool_stat st;

	zpool_stat(t->pool, &st);
	return (double)st.live_bytes / (double)st.bytes;
}

/* A tenth may be waste; the small pools of a sanitizer's run also see the fixed sums. */
static void check_dense(struct table *t)
{
	struct zpool_stat st;

	zpool_stat(t->pool, &st);
	assert_true(st.live_bytes * 10 >= (st.bytes - (SCALE > 1 ? 256 << 10 : 0)) * 9);
}

static void test_every_length(void **state)
{
	struct table t;
	unsigned long i;

	(void)state;
	table_open(&t, SWAP_PAGE_SIZE - 1, 64 * MIB);
	for (i = 1; i <= t.nr; i++)
		put_aged(&t, i, (u32)i);
	check_all(&t);
	for (i = 1; i <= t.nr; i += 2)
		drop(&t, i);
	check_all(&t);
	zpool_compact(t.pool, ~0UL);
	check_all(&t);
	assert_true(atomic64_read(&t.moved) > 0);
	table_close(&t);
}

static void test_refuses_what_it_cannot_hold(void **state)
{
	struct table t;
	unsigned long addr;
	u8 buf[SWAP_PAGE_SIZE] = { 0 };

	(void)state;
	table_open(&t, 1, 64 * MIB);
	assert_int_equal(zpool_store(t.pool, vswp_entry(1), buf, 0, 0, &addr), -EINVAL);
	assert_int_equal(zpool_store(t.pool, vswp_entry(1), buf, sizeof(buf), 0, &addr), -EINVAL);
	assert_int_equal(zpool_store(t.pool, vswp_entry(1UL << 48), buf, 9, 0, &addr), -EINVAL);
	table_close(&t);
}

/* The metadata target: 10 bytes an object at most, whatever the sizes. */
static void test_overhead(void **state)
{
	static const struct {
		u32 from, spread;
	} sizes[] = {
		{ 40, 100 },
		{ 200, 1200 },
		{ 1000, 2500 },
		{ 3300, 284 },
	};
	unsigned long i, nr;
	unsigned int k;
	struct table t;

	(void)state;
	for (k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		struct zpool_stat empty, st;
		u64 rnd = 88172645463325252ULL;
		double each;

		nr = 64 * MIB / SCALE / (sizes[k].from + sizes[k].spread / 2);
		table_open(&t, nr, 256 * MIB);
		zpool_stat(t.pool, &empty);
		for (i = 1; i <= nr; i++)
			put_aged(&t, i, sizes[k].from + (u32)(next_random(&rnd) % sizes[k].spread));
		zpool_stat(t.pool, &st);
		each = (double)(st.bytes - st.data_bytes) / (double)st.objects;
		print_message("objects of %u..%u bytes: %.2f bytes each besides their data\n",
			      sizes[k].from, sizes[k].from + sizes[k].spread, each);
		/* The struct and a page begun are a fixed sum; a full-size pool does not see it. */
		each -= (double)(empty.bytes + SWAP_PAGE_SIZE) / (double)st.objects;
		/* A segment's end is lost, half an object: many segments make an average. */
		assert_true(each <= (SCALE > 1 ? 13.0 : sizes[k].from > 3000 ? 10.2 : 10.0));
		table_close(&t);
	}
}

static int check_age(void *arg, vswp_entry_t entry, unsigned long addr, size_t len)
{
	struct table *t = ((void **)arg)[0];
	u64 *last = ((void **)arg)[1], *seen = ((void **)arg)[2];
	struct slot *s = &t->slot[entry.val];

	assert_int_equal(s->addr, addr);
	assert_int_equal(s->len, len);
	assert_true(s->age > *last);
	*last = s->age;
	++*seen;
	return 0;
}

/* Every live object is seen once, the oldest first. */
static void check_order(struct table *t)
{
	u64 last = 0, seen = 0;
	void *arg[] = { t, &last, &seen };
	struct zpool_stat st;

	zpool_stat(t->pool, &st);
	zpool_walk_oldest(t->pool, check_age, arg);
	assert_int_equal(seen, st.objects);
}

static void test_density_and_order(void **state)
{
	unsigned long nr = 60000 / SCALE, i, round;
	u64 rnd = 1234567, stored = 0;
	struct zpool_stat before, after;
	struct table t;

	(void)state;
	table_open(&t, nr, 1024 * MIB);
	for (i = 1; i <= nr; i++)
		put_aged(&t, i, random_len(&rnd));
	print_message("filled: density %.3f\n", density(&t));
	assert_true(density(&t) >= 0.98);
	check_order(&t);

	for (i = 1; i <= nr; i++)
		if (next_random(&rnd) & 1)
			drop(&t, i);
	check_order(&t);
	for (i = 1; i <= nr; i++)
		if (!t.slot[i].addr)
			put_aged(&t, i, random_len(&rnd));
	print_message("half freed at random and refilled: density %.3f\n", density(&t));
	check_dense(&t);
	check_order(&t);
	check_all(&t);

	/* For ever after: any one goes, a new one comes. */
	zpool_stat(t.pool, &before);
	for (round = 0; round < 2 * nr; round++) {
		u32 len = random_len(&rnd);

		i = 1 + next_random(&rnd) % nr;
		drop(&t, i);
		put_aged(&t, i, len);
		stored += len + 8;
	}
	zpool_stat(t.pool, &after);
	print_message("replaced at random: density %.3f, %.2f bytes moved for each stored\n",
		      density(&t),
		      (double)(after.compacted_bytes - before.compacted_bytes) / (double)stored);
	check_dense(&t);
	check_order(&t);
	check_all(&t);
	table_close(&t);
}

/* Most of what comes goes soon, what stays stays long: it must cost less to clean. */
static void test_young_die_first(void **state)
{
	unsigned long nr = 60000 / SCALE, i, round;
	u64 rnd = 424242, stored = 0;
	struct zpool_stat before, after;
	struct table t;

	(void)state;
	table_open(&t, nr, 1024 * MIB);
	for (i = 1; i <= nr; i++)
		put_aged(&t, i, random_len(&rnd));
	zpool_stat(t.pool, &before);
	for (round = 0; round < 2 * nr; round++) {
		u32 len = random_len(&rnd);

		i = 1 + next_random(&rnd) % (next_random(&rnd) % 10 ? nr / 10 : nr);
		drop(&t, i);
		put_aged(&t, i, len);
		stored += len + 8;
	}
	zpool_stat(t.pool, &after);
	print_message("a tenth hot: density %.3f, %.2f bytes moved for each stored\n", density(&t),
		      (double)(after.compacted_bytes - before.compacted_bytes) / (double)stored);
	check_dense(&t);
	check_order(&t);
	table_close(&t);
}

static u64 resident(void)
{
	unsigned long size = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &rss), 2);
	fclose(f);
	return (u64)rss * SWAP_PAGE_SIZE;
}

/* What the pool says it holds is what the system says it has; and it comes back. */
static void test_memory_comes_back(void **state)
{
	unsigned long nr = 60000 / SCALE, i;
	struct zpool_stat empty, full, st;
	u64 rnd = 777, rss0, rss1, rss2, given;
	struct table t;

	(void)state;
	table_open(&t, nr, 1024 * MIB);
	zpool_stat(t.pool, &empty);
	assert_true(empty.bytes < 128 << 10);
	rss0 = resident();
	for (i = 1; i <= nr; i++)
		put_aged(&t, i, random_len(&rnd));
	zpool_stat(t.pool, &full);
	rss1 = resident();
	if (SCALE == 1) {
		assert_true(rss1 - rss0 < full.bytes + full.bytes / 10 + MIB);
		assert_true(rss1 - rss0 > full.bytes - full.bytes / 10);
	}
	for (i = 1; i <= nr; i++)
		if (next_random(&rnd) % 10)
			drop(&t, i);
	given = zpool_compact(t.pool, ~0UL);
	zpool_stat(t.pool, &st);
	rss2 = resident();
	assert_int_equal(given, full.bytes - st.bytes);
	assert_true(st.bytes < st.live_bytes + st.live_bytes / 10 + empty.bytes + (64 << 10));
	if (SCALE == 1)
		assert_true(rss2 < rss0 + st.bytes + st.bytes / 4 + MIB);
	check_all(&t);
	check_order(&t);
	/* What is asked for is enough; it does not clean on. */
	for (i = 1; i <= nr; i++)
		if (!t.slot[i].addr)
			put_aged(&t, i, random_len(&rnd));
	for (i = 1; i <= nr; i += 2)
		drop(&t, i);
	zpool_stat(t.pool, &full);
	given = zpool_compact(t.pool, MIB);
	assert_true(given >= MIB);
	if (SCALE == 1)
		assert_true(given < 10 * MIB);

	for (i = 1; i <= nr; i++)
		if (t.slot[i].addr)
			drop(&t, i);
	zpool_reap(t.pool);
	zpool_stat(t.pool, &st);
	assert_int_equal(st.objects, 0);
	assert_int_equal(st.live_bytes, 0);
	assert_int_equal(st.data_bytes, 0);
	assert_true(st.bytes <= empty.bytes + (64 << 10));
	table_close(&t);
}

/* Where only whole segments count: what is left slides into few, in order. */
static void test_segments_come_back(void **state)
{
	unsigned long nr = 50000, i;
	struct zpool_stat full, st;
	u64 rnd = 2718;
	struct table t;

	(void)state;
	table_open(&t, nr, 256 * MIB);
	for (i = 1; i <= nr; i++)
		put_aged(&t, i, random_len(&rnd));
	zpool_stat(t.pool, &full);
	assert_true(full.bytes >= full.live_bytes);
	for (i = 1; i <= nr; i++)
		if (next_random(&rnd) % 4)
			drop(&t, i);
	zpool_compact(t.pool, ~0UL);
	zpool_stat(t.pool, &st);
	/* The open one and the one in reserve, and an end begun. */
	assert_true(st.bytes < st.live_bytes + st.live_bytes / 10 + 3 * SEGMENT);
	assert_true(st.bytes < full.bytes / 2);
	check_all(&t);
	check_order(&t);
	for (i = 1; i <= nr; i++)
		if (!t.slot[i].addr)
			put_aged(&t, i, random_len(&rnd));
	print_message("replaced: density %.3f\n", density(&t));
	check_all(&t);
	check_order(&t);
	table_close(&t);
}

static void test_limit(void **state)
{
	unsigned long nr = 40000, i, last;
	struct zpool_stat st;
	u64 rnd = 99;
	struct table t;
	int err = 0;

	(void)state;
	table_open(&t, nr, 8 * MIB);
	for (i = 1; i <= nr && !err; i++)
		err = put(&t, i, (u32)i, random_len(&rnd));
	assert_int_equal(err, -ENOSPC);
	last = i - 2;
	zpool_stat(t.pool, &st);
	assert_true(st.bytes <= 8 * MIB);
	assert_true(st.live_bytes > 8 * MIB - 256 * 1024);
	assert_int_equal(st.objects, last);

	/* A tenth of it freed, all over: room for as much, found by cleaning. */
	for (i = 1; i <= last; i += 10)
		drop(&t, i);
	for (i = 1; i <= last - 10; i += 10)
		assert_int_equal(put(&t, i, (u32)i, 100), 0);
	zpool_stat(t.pool, &st);
	assert_true(st.bytes <= 8 * MIB);
	check_all(&t);

	zpool_set_limit(t.pool, 4 * MIB);
	drop(&t, 2);
	assert_int_equal(put(&t, 2, 2, 100), -ENOSPC);
	for (i = 1; i <= last; i++)
		if (t.slot[i].addr && i % 3)
			drop(&t, i);
	assert_int_equal(put(&t, 2, 2, 100), 0);
	zpool_stat(t.pool, &st);
	assert_true(st.bytes <= 4 * MIB);
	check_all(&t);
	zpool_set_limit(t.pool, 0);
	assert_int_equal(put(&t, 1, 1, 100), -ENOSPC);
	table_close(&t);
}

static void table_unpin_peak(void *priv, vswp_entry_t entry, unsigned long from, unsigned long to)
{
	struct table *t = priv;
	struct zpool_stat st;

	zpool_stat(t->pool, &st);
	if (st.bytes > t->peak)
		t->peak = st.bytes;
	table_unpin(priv, entry, from, to);
}

/*
 * At its limit, of segments that fit into each other: one that moves into the next
 * older is given back as it goes, and not all at the end.
 */
static void test_limit_moving(void **state)
{
	static const struct zpool_ops ops = { .pin = table_pin, .unpin = table_unpin_peak };
	const u64 limit = 24 * MIB;
	unsigned long nr = 100000, first = 1, i;
	struct zpool_stat st;
	u64 rnd = 123;
	struct table t;

	(void)state;
	table_open(&t, nr, limit);
	zpool_destroy(t.pool);
	t.pool = zpool_create(limit, &ops, &t);
	assert_non_null(t.pool);
	for (i = 1; i <= nr; i++) {
		/* Most of the older half goes, all over, when there is no room. */
		if (put(&t, i, (u32)i, random_len(&rnd))) {
			unsigned long end = first + (i - first) / 2;

			for (; first < end; first++)
				if (t.slot[first].addr && next_random(&rnd) % 8)
					drop(&t, first);
			assert_int_equal(put(&t, i, (u32)i, 100), 0);
		}
	}
	zpool_stat(t.pool, &st);
	print_message("%.2f MiB moved, %.0f KiB above the limit\n",
		      (double)st.compacted_bytes / MIB,
		      t.peak > limit ? (double)(t.peak - limit) / 1024 : 0);
	assert_true(st.compacted_bytes > MIB);
	assert_true(t.peak < limit + MIB / 2);
	assert_true(st.bytes <= limit);
	check_all(&t);
	table_close(&t);
}

/* What is in use stays where it is, whatever is cleaned around it. */
static void test_busy_stays(void **state)
{
	unsigned long nr = 20000 / SCALE, i, *kept;
	struct zpool_stat before, after;
	u64 rnd = 31;
	struct table t;

	(void)state;
	table_open(&t, nr, 256 * MIB);
	kept = calloc(nr + 1, sizeof(*kept));
	assert_non_null(kept);
	for (i = 1; i <= nr; i++)
		put_aged(&t, i, random_len(&rnd));
	for (i = 1; i <= nr; i++) {
		if (i % 3)
			drop(&t, i);
		if (i % 30 == 0) {
			mutex_lock(&t.slot[i].lock);
			kept[i] = t.slot[i].addr;
		}
	}
	zpool_stat(t.pool, &before);
	assert_true(zpool_compact(t.pool, ~0UL) > 0);
	check_all(&t);
	check_order(&t);
	for (i = 1; i <= nr; i++) {
		if (!kept[i])
			continue;
		assert_int_equal(t.slot[i].addr, kept[i]);
		mutex_unlock(&t.slot[i].lock);
	}
	zpool_compact(t.pool, ~0UL);
	zpool_stat(t.pool, &after);
	assert_true(after.bytes < before.bytes / 2);
	check_all(&t);
	check_order(&t);
	free(kept);
	table_close(&t);
}

static int count_to(void *arg, vswp_entry_t entry, unsigned long addr, size_t len)
{
	unsigned long *left = arg;

	(void)entry;
	(void)addr;
	(void)len;
	return --*left == 0;
}

struct drain {
	struct table *t;
	u64 last;
	unsigned long nr;
};

static int drain_one(void *arg, vswp_entry_t entry, unsigned long addr, size_t len)
{
	struct drain *d = arg;
	struct slot *s = &d->t->slot[entry.val];

	(void)len;
	if (s->addr != addr)
		return 0;
	assert_true(s->age > d->last);
	d->last = s->age;
	drop(d->t, entry.val);
	/* What moves meanwhile is seen again or later, never lost. */
	if (++d->nr % 1000 == 0)
		zpool_compact(d->t->pool, 1);
	return 0;
}

static void test_walk(void **state)
{
	unsigned long nr = 30000 / SCALE, i, left = 100;
	struct drain d = { 0 };
	u64 rnd = 5;
	struct table t;

	(void)state;
	table_open(&t, nr, 256 * MIB);
	zpool_walk_oldest(t.pool, count_to, &left);
	assert_int_equal(left, 100);
	for (i = 1; i <= nr; i++)
		put_aged(&t, i, random_len(&rnd));
	zpool_walk_oldest(t.pool, count_to, &left);
	assert_int_equal(left, 0);
	/* The oldest drained as writeback does it. */
	d.t = &t;
	zpool_walk_oldest(t.pool, drain_one, &d);
	for (i = 1; i <= nr; i++)
		d.nr += t.slot[i].addr != 0;
	assert_int_equal(d.nr, nr);
	d.last = 0;
	zpool_walk_oldest(t.pool, drain_one, &d);
	check_all(&t);
	for (i = 1; i <= nr; i++)
		assert_int_equal(t.slot[i].addr, 0);
	table_close(&t);
}

static void test_out_of_memory(void **state)
{
	unsigned long i, nr = 8 * MIB / 3000;
	struct table t;
	long n;
	int err = 0;

	(void)state;
	/* Create: every allocation may fail. */
	for (n = 0; n < 3; n++) {
		compat_alloc_fail_after(n, -1);
		assert_null(zpool_create(64 * MIB, &table_ops, NULL));
		compat_alloc_fail_after(-1, 0);
	}
	/* One segment is in reserve, a second cannot be had; nothing is lost by it. */
	table_open(&t, nr, 64 * MIB);
	compat_alloc_fail_after(0, -1);
	for (i = 1; i <= nr && !err; i++)
		err = put(&t, i, (u32)i, 3000);
	compat_alloc_fail_after(-1, 0);
	assert_int_equal(err, -ENOMEM);
	assert_in_range(i, 1000, 1500);
	check_all(&t);
	for (i--; i <= nr; i++)
		assert_int_equal(put(&t, i, (u32)i, 3000), 0);
	check_all(&t);
	table_close(&t);
}

/* ---- threads --------------------------------------------------------- */

#define NR_WORKERS 3

struct worker {
	struct table *t;
	pthread_t thread;
	u64 rnd;
	unsigned long rounds;
	unsigned long wrong, full;
};

static bool stop;

static void *work(void *arg)
{
	struct worker *w = arg;
	struct table *t = w->t;
	unsigned long n;

	for (n = 0; n < w->rounds; n++) {
		unsigned long i = 1 + next_random(&w->rnd) % t->nr;
		struct slot *s = &t->slot[i];

		mutex_lock(&s->lock);
		if (s->addr) {
			if (!same(t, i))
				w->wrong++;
			if (next_random(&w->rnd) % 3)
				drop(t, i);
		} else if (put(t, i, (u32)next_random(&w->rnd), random_len(&w->rnd))) {
			w->full++;
		}
		mutex_unlock(&s->lock);
		if (n % 64 == 0)
			zpool_reap(t->pool);
	}
	return NULL;
}

static int walk_one(void *arg, vswp_entry_t entry, unsigned long addr, size_t len)
{
	struct worker *w = arg;
	struct slot *s = &w->t->slot[entry.val];

	if (!mutex_trylock(&s->lock))
		return __atomic_load_n(&stop, __ATOMIC_RELAXED);
	if (s->addr == addr) {
		if (s->len != len || !same(w->t, entry.val))
			w->wrong++;
		drop(w->t, entry.val);
	}
	mutex_unlock(&s->lock);
	return ++w->rounds % 50 == 0 || __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void *walk(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		zpool_walk_oldest(w->t->pool, walk_one, w);
		usleep(200);
	}
	return NULL;
}

static void *compact(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		zpool_compact(w->t->pool, MIB);
		usleep(500);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct worker w[NR_WORKERS + 2];
	unsigned long i, wrong = 0, done = 0;
	struct zpool_stat st;
	struct table t;

	(void)state;
	/* Too small for all of it, so the limit is met, too. */
	table_open(&t, 20000 / SCALE, zmem_is_lazy() ? 12 * MIB / SCALE : 3 * SEGMENT);
	__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
	for (i = 0; i < NR_WORKERS + 2; i++) {
		w[i] = (struct worker){ .t = &t,
					.rnd = 1000 + i,
					.rounds = i < NR_WORKERS ? 200000 / SCALE : 0 };
		assert_int_equal(pthread_create(&w[i].thread, NULL,
						i < NR_WORKERS	? work :
						i == NR_WORKERS ? walk :
								  compact,
						&w[i]),
				 0);
	}
	for (i = 0; i < NR_WORKERS + 2; i++) {
		if (i == NR_WORKERS)
			__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		pthread_join(w[i].thread, NULL);
		wrong += w[i].wrong;
		done += w[i].rounds;
	}
	assert_int_equal(wrong, 0);
	assert_true(done >= NR_WORKERS * 200000 / SCALE);
	assert_true(atomic64_read(&t.moved) > 0);
	check_all(&t);
	zpool_stat(t.pool, &st);
	print_message("threads: %lu objects moved, %lu drained, density %.3f\n",
		      (unsigned long)atomic64_read(&t.moved), w[NR_WORKERS].rounds, density(&t));
	for (i = 1; i <= t.nr; i++)
		if (t.slot[i].addr)
			drop(&t, i);
	zpool_reap(t.pool);
	zpool_stat(t.pool, &st);
	assert_int_equal(st.objects, 0);
	/* All but the open segment and the one in reserve, where these cost anything. */
	assert_true(st.bytes < (256 << 10) + (zmem_is_lazy() ? 0 : 2 * SEGMENT));
	table_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_refuses_what_it_cannot_hold),
		cmocka_unit_test(test_overhead),
		cmocka_unit_test(test_density_and_order),
		cmocka_unit_test(test_young_die_first),
		cmocka_unit_test(test_memory_comes_back),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_limit_moving),
		cmocka_unit_test(test_busy_stays),
		cmocka_unit_test(test_walk),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_threads),
	};

	const struct CMUnitTest whole_segments[] = {
		cmocka_unit_test(test_every_length), cmocka_unit_test(test_segments_come_back),
		cmocka_unit_test(test_walk),	     cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_threads),
	};

	return zmem_is_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) :
				cmocka_run_group_tests(whole_segments, NULL, NULL);
}
