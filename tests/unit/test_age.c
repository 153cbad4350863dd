// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Ages: that the oldest go down, tier by tier, whatever they are made of, while
 * nothing newer passes them; and what else may change under a page.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <linux/err.h>
#include <linux/kernel.h>

#include "core/space.h"

#include "memtier.h"
#include "cpu.h"
#include "pages.h"

static struct swap_space *space_new(const char *compressor, u64 pool_limit)
{
	struct swap_space_conf conf = { .compressor = compressor, .pool_limit = pool_limit };
	struct swap_space *space = swap_space_create(&conf);

	assert_false(IS_ERR(space));
	return space;
}

static void space_end(struct swap_space *space)
{
	struct swap_stat st;

	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	assert_int_equal(st.pool_objects, 0);
	swap_space_destroy(space);
}

static vswp_entry_t page_out(struct swap_space *space, enum page_kind kind, u64 seed)
{
	struct swap_folio *f = folio_new(0);
	vswp_entry_t entry;

	folio_make(f, kind, seed);
	assert_int_equal(folio_alloc_swap(space, NULL, f), 0);
	entry = f->entry;
	assert_int_equal(swap_writeout(space, &f, 1), 1);
	swap_cache_del_folio(space, f);
	folio_done(f);
	return entry;
}

static struct swap_folio *page_in(struct swap_space *space, vswp_entry_t entry)
{
	struct swap_folio *f = folio_new(0);

	assert_int_equal(swap_cache_add_folio(space, entry, f), 0);
	assert_int_equal(swap_readin(space, &f, 1), 1);
	return f;
}

static void page_back(struct swap_space *space, vswp_entry_t entry, enum page_kind kind, u64 seed)
{
	struct swap_folio *f = page_in(space, entry);

	assert_true(folio_is(f, kind, seed));
	swap_free_range(space, entry, 1);
	assert_true(folio_free_swap(space, f));
	folio_done(f);
}

static struct swap_tier *add(struct swap_space *space, struct memtier **mt, u64 slots, int prio)
{
	struct swap_tier *tier;

	*mt = memtier_new(slots);
	tier = memtier_add(space, *mt, "mem", prio);
	assert_false(IS_ERR(tier));
	return tier;
}

static u64 tier_used(struct swap_space *space, unsigned int i)
{
	struct swap_tier_stat ts;

	assert_true(swap_tier_stat(space, i, &ts));
	return ts.slots_used;
}

static enum page_kind kind_of(unsigned int i)
{
	return i % 16 == 5 ? PAGE_NOISE : PAGE_TEXT;
}

/* Pool, and three tiers ever slower: ages grow from one to the next. */
static void test_order(void **state)
{
	enum {
		PAGES = 40000
	};
	struct swap_space *space = space_new("lz4", 1 << 20);
	vswp_entry_t *e = calloc(PAGES, sizeof(*e));
	struct memtier *mt[3];
	u64 age, last = 0;
	unsigned int i;

	(void)state;
	assert_non_null(e);
	add(space, &mt[2], 65536, 1);
	add(space, &mt[0], 4096, 3);
	add(space, &mt[1], 8192, 2);
	assert_int_equal(swap_median_age(space, -1, &age), -ENOENT);
	for (i = 0; i < PAGES; i++) {
		e[i] = page_out(space, kind_of(i), i);
		/* A new page is in the pool, or on the fastest tier if the pool would not have it. */
		if (kind_of(i) == PAGE_TEXT)
			assert_int_equal(swap_entry_where(space, e[i]), SWAP_ZPOOL);
		if (i % 512 == 0)
			swap_writeback(space, 0);
	}
	assert_true(mt[0]->pages_written > 4096);
	assert_true(tier_used(space, 2) > 20000);
	for (int store = -1; store < 3; store++) {
		/* By number, as they came: the slowest is number 0. */
		static const int nr[] = { -1, 1, 2, 0 };

		assert_int_equal(swap_median_age(space, nr[store + 1], &age), 0);
		assert_true(age > last);
		last = age;
	}
	/* All in large transfers. */
	assert_true(mt[2]->pages_written / mt[2]->writes > 16);
	for (i = 0; i < PAGES; i++)
		page_back(space, e[i], kind_of(i), i);
	free(e);
	space_end(space);
	for (i = 0; i < 3; i++)
		memtier_free(mt[i]);
}

/* By hand: the oldest go, what is in use stays, what is not read or written stays. */
static void test_demote(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *fast, *slow;
	struct swap_tier *tf = add(space, &fast, 4096, 1);
	struct swap_folio *f;
	vswp_entry_t e[2048];
	unsigned int i;

	(void)state;
	for (i = 0; i < 2048; i++) {
		e[i] = page_out(space, kind_of(i), i);
		if (i % 256 == 255)
			swap_writeback(space, ~0ULL);
	}
	assert_int_equal(tier_used(space, 0), 2048);
	assert_int_equal(swap_demote(space, tf, 1 << 20), 0); /* nowhere to go */
	add(space, &slow, 1200, 0);
	/* The oldest of them are in use: one unchanged, one written in place. */
	f = page_in(space, e[3]);
	fast->read_error = -EIO;
	assert_int_equal(swap_demote(space, tf, 1 << 20), 0);
	fast->read_error = 0;
	assert_int_equal(swap_demote(space, tf, 1 << 20), 511 * SWAP_PAGE_SIZE);
	assert_int_equal(tier_used(space, 1), 511);
	assert_int_equal(tier_used(space, 0), 2048 - 511);
	folio_make(f, PAGE_NOISE, 7777);
	assert_int_equal(swap_writeout(space, &f, 1), 1);
	swap_cache_del_folio(space, f);
	folio_done(f);
	/* No more than there is room for; write errors leave things as they are. */
	slow->write_error = -EIO;
	slow->write_good = (long)slow->pages_written + 100;
	assert_int_equal(swap_demote(space, tf, 1ULL << 30), 100 * SWAP_PAGE_SIZE);
	assert_int_equal(swap_demote(space, tf, 1ULL << 30), 0);
	assert_int_equal(tier_used(space, 1), 611);
	for (i = 0; i < 2048; i++)
		page_back(space, e[i], i == 3 ? PAGE_NOISE : kind_of(i), i == 3 ? 7777 : i);
	space_end(space);
	memtier_free(fast);
	memtier_free(slow);
}

/* What is written while the oldest are looked for is not taken for the oldest of all. */
static void test_demote_newest(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *fast, *slow;
	struct swap_tier *tf = add(space, &fast, 2048, 1);
	static vswp_entry_t e[1024];
	unsigned int i;

	(void)state;
	for (i = 0; i < 1024; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	add(space, &slow, 2048, 0);
	/* As if the clock had been read before the last page went out. */
	atomic_long_sub(2, &space->evictions);
	assert_int_equal(swap_demote(space, tf, 512 * SWAP_PAGE_SIZE), 512 * SWAP_PAGE_SIZE);
	for (i = 0; i < 1024; i++)
		assert_int_equal(swap_entry_tier(space, e[i]) == slow, i < 512);
	/* All there is. */
	assert_int_equal(swap_demote(space, tf, U64_MAX), 512 * SWAP_PAGE_SIZE);
	for (i = 0; i < 1024; i++)
		page_back(space, e[i], PAGE_NOISE, i);
	space_end(space);
	memtier_free(fast);
	memtier_free(slow);
}

/* A tier that goes: read in order and in large pieces, though swapped out in none. */
static void test_drain(void **state)
{
	enum {
		PAGES = 6000
	};
	struct swap_space *space = space_new("lz4", 1 << 24);
	static vswp_entry_t e[PAGES];
	struct memtier *gone, *other;
	struct swap_tier *tier = add(space, &gone, 8192, 1);
	struct swap_folio *f;
	struct swap_stat st;
	unsigned int i;

	(void)state;
	for (i = 0; i < PAGES; i++)
		e[i * 7 % PAGES] = page_out(space, kind_of(i * 7 % PAGES), i * 7 % PAGES);
	assert_true(swap_writeback(space, ~0ULL) > 0);
	add(space, &other, 400, 0);
	f = page_in(space, e[5]);
	/* One damaged on the way: found, and said to be lost. */
	gone->pages[(u64)700 * SWAP_PAGE_SIZE + 20] ^= 1;
	gone->reads = gone->pages_read = 0;
	swap_folio_unlock(f);
	assert_int_equal(swapoff(space, tier, NULL), -EIO);
	swap_folio_lock(f);
	assert_true(gone->pages_read / gone->reads > 80);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_poison, 1);
	/* What does not compress, one of it in the cache yet, and no other. */
	assert_int_equal(tier_used(space, 0), PAGES / 16);
	assert_int_equal(st.nr_pool, PAGES - PAGES / 16 - 1);
	assert_true(folio_is(f, PAGE_NOISE, 5));
	swap_cache_del_folio(space, f);
	folio_done(f);
	for (i = 0; i < PAGES; i++) {
		if (swap_entry_where(space, e[i]) == SWAP_POISON)
			swap_free_range(space, e[i], 1);
		else
			page_back(space, e[i], kind_of(i), i);
	}
	space_end(space);
	memtier_free(gone);
	memtier_free(other);
}

/* What cannot be read is read once more before it is lost. */
static void test_again(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt;
	struct swap_stat st;
	vswp_entry_t e;

	(void)state;
	add(space, &mt, 512, 0);
	e = page_out(space, PAGE_NOISE, 1);
	mt->read_again = 1;
	page_back(space, e, PAGE_NOISE, 1);
	assert_int_equal(mt->reads, 2);
	swap_space_stat(space, &st);
	assert_int_equal(st.read_errors, 0);
	space_end(space);
	memtier_free(mt);
}

/* All of the pool is given back by frees alone. */
static void test_reap(void **state)
{
	enum {
		PAGES = 8192
	};
	struct swap_space *space = space_new("lz4", 1 << 26);
	struct swap_stat st;
	vswp_entry_t first, e;
	cpu_set_t all = cpu_stay();

	(void)state;
	first = page_out(space, PAGE_TEXT, 0);
	for (unsigned int i = 1; i < PAGES; i++) {
		e = page_out(space, PAGE_TEXT, i);
		assert_int_equal(e.val, first.val + i);
	}
	swap_space_stat(space, &st);
	assert_true(st.pool_bytes > 1 << 20);
	swap_free_range(space, first, PAGES);
	swap_space_stat(space, &st);
	assert_true(st.pool_bytes < 64 << 10);
	cpu_leave(all);
	space_end(space);
}

/* Equal priorities take turns, a cluster each. */
static void test_equal(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt[3];
	static vswp_entry_t e[6 * 512];
	unsigned int i;

	(void)state;
	for (i = 0; i < 3; i++)
		add(space, &mt[i], 2048, 5);
	for (i = 0; i < 6 * 512; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	for (i = 0; i < 3; i++)
		assert_int_equal(tier_used(space, i), 1024);
	for (i = 0; i < 6 * 512; i++)
		page_back(space, e[i], PAGE_NOISE, i);
	space_end(space);
	for (i = 0; i < 3; i++)
		memtier_free(mt[i]);
}

/* Another compressor: what the one before made is read, from pool and tier. */
static void test_compressor(void **state)
{
	static const char *const names[] = { "none", "lz4", "zstd", "lz4", "none" };
	struct swap_space *space = space_new("none", 1 << 24);
	struct memtier *mt;
	vswp_entry_t e[500];
	struct swap_stat st;
	unsigned int i;

	(void)state;
	add(space, &mt, 4096, 0);
	assert_int_equal(swap_space_set_compressor(space, "no such"), -EINVAL);
	for (i = 0; i < 500; i++) {
		if (i % 100 == 0)
			assert_int_equal(swap_space_set_compressor(space, names[i / 100]), 0);
		e[i] = page_out(space, PAGE_TEXT, i);
	}
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_pool, 300);
	assert_int_equal(st.nr_tier, 200);
	for (i = 0; i < 500; i += 2)
		page_back(space, e[i], PAGE_TEXT, i);
	assert_true(swap_writeback(space, ~0ULL) > 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_pool, 0);
	for (i = 1; i < 500; i += 2)
		page_back(space, e[i], PAGE_TEXT, i);
	space_end(space);
	memtier_free(mt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),	      cmocka_unit_test(test_demote),
		cmocka_unit_test(test_demote_newest), cmocka_unit_test(test_drain),
		cmocka_unit_test(test_again),	      cmocka_unit_test(test_reap),
		cmocka_unit_test(test_equal),	      cmocka_unit_test(test_compressor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
