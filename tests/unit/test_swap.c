// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What becomes of a page: every state of an entry and every way between two of
 * them, with tiers that fail, fill up, lie and go away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <linux/bitops.h>
#include <linux/err.h>
#include <linux/cpumask.h>
#include <linux/kernel.h>

#include "memtier.h"
#include "pages.h"

static char said[512]; /* the last message */

static void listen(const char *line)
{
	snprintf(said, sizeof(said), "%s", line);
}

static struct swap_space *space_new(const char *compressor, u64 pool_limit)
{
	struct swap_space_conf conf = {
		.compressor = compressor,
		.pool_limit = pool_limit,
		.shadow_shift = 0,
	};
	struct swap_space *space = swap_space_create(&conf);

	assert_false(IS_ERR(space));
	compat_printk_to(listen);
	said[0] = 0;
	return space;
}

/* Nothing may be left in a space that is given up. */
static void space_end(struct swap_space *space)
{
	struct swap_stat st;

	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	assert_int_equal(st.pool_objects, 0);
	swap_space_destroy(space);
	compat_printk_to(NULL);
}

/* A page of @kind out of memory: its entry, written out and out of the cache. */
static vswp_entry_t page_out(struct swap_space *space, enum page_kind kind, u64 seed)
{
	struct swap_folio *f = folio_new(0);
	vswp_entry_t entry;

	folio_make(f, kind, seed);
	assert_int_equal(folio_alloc_swap(space, NULL, f), 0);
	entry = f->entry;
	assert_int_equal(swap_entry_where(space, entry), SWAP_FOLIO);
	assert_int_equal(swap_writeout(space, &f, 1), 1);
	assert_false(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	assert_false(swap_folio_test(f, SWAP_FOLIO_WRITEBACK));
	swap_cache_del_folio(space, f);
	assert_false(swap_folio_test(f, SWAP_FOLIO_CACHED));
	folio_done(f);
	return entry;
}

/* In front of @entry, filled; still locked. */
static struct swap_folio *page_in(struct swap_space *space, vswp_entry_t entry)
{
	struct swap_folio *f = folio_new(0);

	assert_int_equal(swap_cache_add_folio(space, entry, f), 0);
	assert_int_equal(swap_readin(space, &f, 1), 1);
	return f;
}

/* As a fault does it, to the end. */
static void page_back(struct swap_space *space, vswp_entry_t entry, enum page_kind kind, u64 seed)
{
	struct swap_folio *f = page_in(space, entry);

	assert_true(folio_is(f, kind, seed));
	swap_free_range(space, entry, 1);
	assert_true(folio_free_swap(space, f));
	assert_int_equal(swap_entry_where(space, entry), SWAP_NULL);
	folio_done(f);
}

static void test_fill(void **state)
{
	static const enum page_kind kinds[] = { PAGE_ZERO, PAGE_SIGN, PAGE_TWICE };
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct swap_stat st;
	unsigned int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		vswp_entry_t e = page_out(space, kinds[i], 0x1234567);

		assert_int_equal(swap_entry_where(space, e), SWAP_FILL);
		swap_space_stat(space, &st);
		assert_int_equal(st.nr_fill, 1);
		assert_int_equal(st.pool_objects, 0);
		page_back(space, e, kinds[i], 0x1234567);
	}
	assert_int_equal(st.swpout_zero, 3);
	page_back(space, page_out(space, PAGE_LIKE_FILL, 0), PAGE_LIKE_FILL, 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.swpout_zero, 3);
	assert_int_equal(st.swpin_zero, 3);
	assert_int_equal(st.zswpout, 1);
	space_end(space);
}

static void test_pool(void **state)
{
	static const char *const names[] = { "lz4", "zstd" };
	unsigned int i, k;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct swap_space *space = space_new(names[k], 1 << 24);
		vswp_entry_t e[300];
		struct swap_stat st;

		for (i = 0; i < 300; i++) {
			e[i] = page_out(space, PAGE_TEXT, i);
			assert_int_equal(swap_entry_where(space, e[i]), SWAP_ZPOOL);
		}
		swap_space_stat(space, &st);
		assert_int_equal(st.nr_pool, 300);
		assert_int_equal(st.pool_objects, 300);
		assert_int_equal(st.zswpout, 300);
		for (i = 0; i < 300; i += 2)
			page_back(space, e[i], PAGE_TEXT, i);
		for (i = 1; i < 300; i += 2)
			swap_free_range(space, e[i], 1);
		space_end(space);
	}
}

/* What is rather to stay than to go to a tier stays, if the pool will not have it. */
static void stays_active(void)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(64);
	struct swap_folio *f[2] = { folio_new(0), folio_new(0) };
	vswp_entry_t e[2];
	unsigned int i;

	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	folio_make(f[0], PAGE_NOISE, 1);
	folio_make(f[1], PAGE_TEXT, 2);
	assert_int_equal(folios_alloc_swap(space, NULL, f, 2), 2);
	for (i = 0; i < 2; i++)
		set_bit(SWAP_FOLIO_ACTIVATE, &f[i]->flags);
	assert_int_equal(swap_writeout(space, f, 2), 1);
	assert_true(swap_folio_test(f[0], SWAP_FOLIO_DIRTY));
	assert_false(swap_folio_test(f[0], SWAP_FOLIO_WRITEBACK));
	assert_false(swap_folio_test(f[1], SWAP_FOLIO_DIRTY));
	assert_int_equal(mt->pages_written, 0);
	/* Not any more: then it goes. */
	clear_bit(SWAP_FOLIO_ACTIVATE, &f[0]->flags);
	assert_int_equal(swap_writeout(space, f, 1), 1);
	assert_int_equal(mt->pages_written, 1);
	for (i = 0; i < 2; i++) {
		e[i] = f[i]->entry;
		swap_cache_del_folio(space, f[i]);
		folio_done(f[i]);
	}
	assert_int_equal(swap_entry_where(space, e[0]), SWAP_SLOT);
	assert_int_equal(swap_entry_where(space, e[1]), SWAP_ZPOOL);
	page_back(space, e[0], PAGE_NOISE, 1);
	page_back(space, e[1], PAGE_TEXT, 2);
	memtier_free(mt);
	space_end(space);
}

/* What passes the pool by goes to a tier as long as that has room. */
static void passes_by(void)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(3);
	struct swap_folio *f[5];
	vswp_entry_t e[5];
	unsigned int i;

	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < 5; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_TEXT, i);
		if (i)
			set_bit(SWAP_FOLIO_DROPBEHIND, &f[i]->flags);
	}
	assert_int_equal(folios_alloc_swap(space, NULL, f, 5), 5);
	assert_int_equal(swap_writeout(space, f, 5), 5);
	for (i = 0; i < 5; i++) {
		e[i] = f[i]->entry;
		swap_cache_del_folio(space, f[i]);
		folio_done(f[i]);
	}
	assert_int_equal(mt->pages_written, 3);
	for (i = 0; i < 5; i++) {
		assert_int_equal(swap_entry_where(space, e[i]),
				 i && i < 4 ? SWAP_SLOT : SWAP_ZPOOL);
		page_back(space, e[i], PAGE_TEXT, i);
	}
	memtier_free(mt);
	space_end(space);
}

/* A page nobody wants stays where it is. */
static void test_no_room(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct swap_folio *f = folio_new(0);

	(void)state;
	folio_make(f, PAGE_TEXT, 1);
	assert_int_equal(folio_alloc_swap(space, NULL, f), 0);
	assert_int_equal(swap_writeout(space, &f, 1), 0);
	assert_true(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	assert_false(swap_folio_test(f, SWAP_FOLIO_WRITEBACK));
	assert_true(folio_is(f, PAGE_TEXT, 1));
	/* Without an owner it may go, dirty as it is. */
	assert_false(folio_free_swap(space, f));
	folio_put_swap(space, f);
	assert_true(folio_free_swap(space, f));
	folio_done(f);
	space_end(space);
	stays_active();
	passes_by();
}

#define BATCH 600

static void test_tier_batch(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(2048);
	struct swap_folio *f[BATCH];
	struct swap_tier_stat ts;
	struct swap_stat st;
	vswp_entry_t e[BATCH];
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < BATCH; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	assert_int_equal(folios_alloc_swap(space, NULL, f, BATCH), BATCH);
	for (i = 1; i < BATCH; i++)
		assert_true(f[i]->entry.val == f[i - 1]->entry.val + 1);
	assert_int_equal(swap_writeout(space, f, BATCH), BATCH);
	/* Large writes, in a row but where one cluster ends. */
	assert_true(mt->writes <= 4);
	assert_true(mt->breaks <= 1);
	assert_int_equal(mt->pages_written, BATCH);
	for (i = 0; i < BATCH; i++) {
		e[i] = f[i]->entry;
		swap_cache_del_folio(space, f[i]);
		assert_int_equal(swap_entry_where(space, e[i]), SWAP_SLOT);
		folio_done(f[i]);
	}
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_false(swap_tier_stat(space, 1, &ts));
	assert_int_equal(ts.slots_used, BATCH);
	assert_int_equal(ts.bytes_written, BATCH * SWAP_PAGE_SIZE);
	for (i = 0; i < BATCH; i++) {
		f[i] = folio_new(0);
		assert_int_equal(swap_cache_add_folio(space, e[i], f[i]), 0);
	}
	assert_int_equal(swap_readin(space, f, BATCH), BATCH);
	assert_true(mt->reads <= 3);
	for (i = 0; i < BATCH; i++) {
		assert_true(folio_is(f[i], PAGE_NOISE, i));
		folio_put_swap(space, f[i]);
		assert_true(folio_free_swap(space, f[i]));
		folio_done(f[i]);
	}
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.pswpin, BATCH);
	assert_int_equal(st.pswpout, BATCH);
	/* Empty clusters are given back to the store at leisure. */
	swap_writeback(space, 0);
	assert_true(mt->pages_discarded >= 512);
	space_end(space);
	memtier_free(mt);
}

/* Where a discard may still come nothing is written, and it is asked again. */
static void test_late_discard(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(1536);
	struct swap_tier_stat ts;
	vswp_entry_t e[1024];
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < 1024; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	/* The first of three clusters. */
	for (i = 0; i < 512; i++)
		swap_free_range(space, e[i], 1);
	mt->discards_late = true;
	swap_writeback(space, 0);
	assert_int_equal(mt->discards_asked, 1);
	memset(mt->state, 0, 512);
	for (i = 0; i < 512; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	for (i = 0; i < 512; i++)
		assert_int_equal(mt->state[i], 0);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 1024);
	/* That was all it had. */
	swap_writeback(space, 0);
	assert_int_equal(mt->discards_asked, 2);
	mt->discards_late = false;
	swap_writeback(space, 0);
	assert_int_equal(mt->pages_discarded, 512);
	for (i = 512; i < 1024; i++)
		swap_free_range(space, e[i], 1);
	for (i = 512; i < 1024; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	for (i = 0; i < 1024; i++)
		page_back(space, e[i], PAGE_NOISE, i);
	/* What is parked goes with the tier. */
	mt->discards_late = true;
	swap_writeback(space, 0);
	assert_true(mt->discards_asked > 2);
	space_end(space);
	memtier_free(mt);
}

/* The pool takes what compresses, the tier the rest. */
static void test_pool_and_tier(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(512);
	struct swap_stat st;
	vswp_entry_t a, b;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	a = page_out(space, PAGE_TEXT, 1);
	b = page_out(space, PAGE_NOISE, 2);
	assert_int_equal(swap_entry_where(space, a), SWAP_ZPOOL);
	assert_int_equal(swap_entry_where(space, b), SWAP_SLOT);
	swap_space_stat(space, &st);
	assert_int_equal(st.reject_compress_poor, 1);
	page_back(space, a, PAGE_TEXT, 1);
	page_back(space, b, PAGE_NOISE, 2);
	space_end(space);
	memtier_free(mt);
}

static void test_write_error(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *fast = memtier_new(512), *slow = memtier_new(512);
	struct swap_tier_stat ts;
	vswp_entry_t a, b;
	struct swap_stat st;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, slow, "slow", 1)));
	assert_false(IS_ERR(memtier_add(space, fast, "fast", 2)));
	a = page_out(space, PAGE_NOISE, 1);
	assert_int_equal(fast->pages_written, 1);
	fast->write_error = -EIO;
	fast->write_good = -1;
	b = page_out(space, PAGE_NOISE, 2);
	assert_int_equal(slow->pages_written, 1);
	assert_non_null(strstr(said, "vswap: tier fast: write error"));
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_string_equal(ts.name, "fast");
	assert_true(ts.failed);
	assert_false(ts.full);
	assert_int_equal(ts.slots_used, 1);
	swap_space_stat(space, &st);
	assert_int_equal(st.write_errors, 1);
	/* What it has can still be read. */
	page_back(space, a, PAGE_NOISE, 1);
	page_back(space, b, PAGE_NOISE, 2);
	/* And it gets nothing more. */
	fast->write_error = 0;
	page_back(space, page_out(space, PAGE_NOISE, 3), PAGE_NOISE, 3);
	assert_int_equal(fast->pages_written, 1);
	space_end(space);
	memtier_free(fast);
	memtier_free(slow);
}

/* A store that is away for a while: others come first, it is not given up. */
static void test_away(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *fast = memtier_new(512), *slow = memtier_new(1);
	struct swap_tier_stat ts;
	vswp_entry_t a, b, c;
	struct swap_stat st;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, slow, "slow", 1)));
	assert_false(IS_ERR(memtier_add(space, fast, "fast", 2)));
	fast->away = true;
	a = page_out(space, PAGE_NOISE, 1);
	assert_int_equal(slow->pages_written, 1);
	assert_int_equal(fast->writes, 0);
	/* No other has room: it is waited for, as often as it takes. */
	fast->late = 2;
	b = page_out(space, PAGE_NOISE, 2);
	assert_int_equal(fast->writes, 3);
	assert_int_equal(fast->pages_written, 1);
	assert_int_equal(fast->late, 0);
	assert_string_equal(said, "");
	fast->away = false;
	page_back(space, a, PAGE_NOISE, 1);
	c = page_out(space, PAGE_NOISE, 3);
	assert_int_equal(fast->pages_written, 2);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_false(ts.failed);
	assert_false(ts.full);
	assert_int_equal(ts.slots_used, 2);
	swap_space_stat(space, &st);
	assert_int_equal(st.write_errors, 0);
	page_back(space, b, PAGE_NOISE, 2);
	page_back(space, c, PAGE_NOISE, 3);
	space_end(space);
	memtier_free(fast);
	memtier_free(slow);
}

/* No space on the disk under the tier: full, not broken, and tried again after frees. */
static void test_enospc(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(1024);
	struct swap_folio *f[BATCH];
	struct swap_tier_stat ts;
	unsigned int i, clean;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	mt->write_error = -ENOSPC;
	mt->write_good = 300;
	for (i = 0; i < BATCH; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	assert_int_equal(folios_alloc_swap(space, NULL, f, BATCH), BATCH);
	clean = swap_writeout(space, f, BATCH);
	assert_int_equal(clean, 300);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_true(ts.full);
	assert_false(ts.failed);
	assert_int_equal(ts.slots_used, 300);
	mt->write_error = 0;
	for (i = 0; i < BATCH; i++) {
		assert_int_equal(swap_folio_test(f[i], SWAP_FOLIO_DIRTY), i >= 300);
		if (i < 300) {
			folio_put_swap(space, f[i]);
			assert_true(folio_free_swap(space, f[i]));
			folio_done(f[i]);
		}
	}
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_false(ts.full);
	assert_int_equal(swap_writeout(space, f + 300, BATCH - 300), BATCH - 300);
	for (i = 300; i < BATCH; i++) {
		folio_put_swap(space, f[i]);
		assert_true(folio_free_swap(space, f[i]));
		folio_done(f[i]);
	}
	space_end(space);
	memtier_free(mt);
}

/* A tier smaller than what is asked of it. */
static void test_tier_full(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(100), *next = memtier_new(100);
	struct swap_folio *f[BATCH];
	struct swap_tier_stat ts;
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "small", 1)));
	assert_false(IS_ERR(memtier_add(space, next, "next", 0)));
	for (i = 0; i < BATCH; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	assert_int_equal(folios_alloc_swap(space, NULL, f, BATCH), BATCH);
	assert_int_equal(swap_writeout(space, f, BATCH), 200);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_true(ts.full);
	assert_int_equal(ts.slots_used, 100);
	assert_int_equal(next->pages_written, 100);
	for (i = 0; i < BATCH; i++) {
		folio_put_swap(space, f[i]);
		assert_true(folio_free_swap(space, f[i]));
		folio_done(f[i]);
	}
	/* All of it can be had again. */
	for (i = 0; i < 100; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	assert_int_equal(folios_alloc_swap(space, NULL, f, 100), 100);
	assert_int_equal(swap_writeout(space, f, 100), 100);
	assert_int_equal(mt->pages_written, 200);
	for (i = 0; i < 100; i++) {
		folio_put_swap(space, f[i]);
		assert_true(folio_free_swap(space, f[i]));
		folio_done(f[i]);
	}
	space_end(space);
	memtier_free(mt);
	memtier_free(next);
}

/* Swap in a page that is lost: its entry is POISON, and stays so until it is freed. */
static void page_lost(struct swap_space *space, vswp_entry_t entry)
{
	struct swap_folio *f = folio_new(0);
	struct swap_stat st;

	assert_int_equal(swap_cache_add_folio(space, entry, f), 0);
	assert_int_equal(swap_readin_wanted(space, &f, 1, 1), 0);
	assert_true(swap_folio_test(f, SWAP_FOLIO_ERROR));
	assert_int_equal(f->error, -EIO);
	assert_false(swap_folio_test(f, SWAP_FOLIO_UPTODATE));
	swap_cache_del_folio(space, f);
	assert_int_equal(swap_entry_where(space, entry), SWAP_POISON);
	assert_int_equal(swap_cache_add_folio(space, entry, f), -EIO);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_poison, 1);
	assert_int_equal(swap_count(space, entry), 1);
	swap_free_range(space, entry, 1);
	assert_int_equal(swap_entry_where(space, entry), SWAP_NULL);
	folio_done(f);
}

static void test_poison(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(512);
	struct swap_tier_stat ts;
	struct swap_stat st;
	vswp_entry_t a, b;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	a = page_out(space, PAGE_NOISE, 1);
	b = page_out(space, PAGE_NOISE, 2);
	mt->pages[100] ^= 1;
	page_lost(space, a);
	assert_non_null(strstr(said, "tier mem slot 0: checksum mismatch"));
	mt->read_error = -EIO;
	page_lost(space, b);
	assert_non_null(strstr(said, "tier mem slot 1: read error"));
	swap_space_stat(space, &st);
	assert_int_equal(st.read_errors, 2);
	/* One page for another, both whole: found, too. */
	mt->read_error = 0;
	a = page_out(space, PAGE_NOISE, 1);
	b = page_out(space, PAGE_NOISE, 2);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 2);
	memcpy(mt->pages + 2 * SWAP_PAGE_SIZE, mt->pages + 3 * SWAP_PAGE_SIZE, SWAP_PAGE_SIZE);
	page_lost(space, a);
	page_back(space, b, PAGE_NOISE, 2);
	space_end(space);
	memtier_free(mt);
}

/* Try to swap in @nr pages, the first @wanted of which somebody waits for. */
static void not_read(struct swap_space *space, const vswp_entry_t *e, unsigned int nr,
		     unsigned int wanted, int error)
{
	struct swap_folio *f[BATCH];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		f[i] = folio_new(0);
		assert_int_equal(swap_cache_add_folio(space, e[i], f[i]), 0);
	}
	assert_int_equal(swap_readin_wanted(space, f, nr, wanted), 0);
	for (i = 0; i < nr; i++) {
		assert_true(swap_folio_test(f[i], SWAP_FOLIO_ERROR));
		assert_int_equal(f[i]->error, error);
		swap_cache_del_folio(space, f[i]);
		folio_done(f[i]);
	}
}

/* A tier that cannot be read for a while takes only what somebody waits for. */
static void test_read_error(void **state)
{
	static const int passing[] = { -EAGAIN, -ENOMEM, -EFAULT };
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(512);
	struct swap_folio *f;
	struct swap_stat st;
	vswp_entry_t e[40];
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < 40; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	/* Not even that, if it is not the tier's fault. */
	for (i = 0; i < 3; i++) {
		mt->read_error = passing[i];
		not_read(space, e, 40, 40, passing[i]);
	}
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_tier, 40);
	assert_int_equal(st.read_errors, 120);
	mt->read_error = -ETIMEDOUT;
	not_read(space, e + 1, 39, 0, -EIO);
	assert_non_null(strstr(said, "tier mem slot"));
	not_read(space, e, 40, 1, -EIO);
	assert_int_equal(swap_entry_where(space, e[0]), SWAP_POISON);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_tier, 39);
	swap_free_range(space, e[0], 1);
	/* The same folio, once more. */
	f = folio_new(0);
	assert_int_equal(swap_cache_add_folio(space, e[1], f), 0);
	assert_int_equal(swap_readin(space, &f, 1), 0);
	mt->read_error = 0;
	assert_int_equal(swap_readin(space, &f, 1), 1);
	assert_false(swap_folio_test(f, SWAP_FOLIO_ERROR));
	swap_cache_del_folio(space, f);
	folio_done(f);
	for (i = 1; i < 40; i++)
		page_back(space, e[i], PAGE_NOISE, i);
	space_end(space);
	memtier_free(mt);
}

/* Memory a tier cannot read says nothing about the tier. */
static void test_write_fault(void **state)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *mt = memtier_new(512);
	struct swap_tier_stat ts;
	struct swap_folio *f[3];
	struct swap_stat st;
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < 3; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	assert_int_equal(folios_alloc_swap(space, NULL, f, 3), 3);
	mt->write_error = -EFAULT;
	mt->write_good = 2;
	assert_int_equal(swap_writeout(space, f, 3), 2);
	assert_true(swap_folio_test(f[2], SWAP_FOLIO_DIRTY));
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_false(ts.failed);
	assert_int_equal(ts.slots_used, 2);
	swap_space_stat(space, &st);
	assert_int_equal(st.write_errors, 0);
	mt->write_error = 0;
	assert_int_equal(swap_writeout(space, f, 3), 3);
	for (i = 0; i < 3; i++) {
		folio_put_swap(space, f[i]);
		assert_true(folio_free_swap(space, f[i]));
		folio_done(f[i]);
	}
	space_end(space);
	memtier_free(mt);
}

/* Owners of one entry by the dozen, in every state it can be in. */
static void test_count(void **state)
{
	static const enum page_kind kinds[] = { PAGE_ZERO, PAGE_TEXT, PAGE_NOISE };
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(512);
	unsigned int k, i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (k = 0; k < 3; k++) {
		vswp_entry_t e = page_out(space, kinds[k], k);
		enum swap_where where = swap_entry_where(space, e);
		struct swap_folio *f;

		for (i = 2; i <= 40; i++) {
			assert_int_equal(swap_dup_range(space, e, 1), 0);
			assert_int_equal(swap_count(space, e), i);
			assert_int_equal(swap_entry_where(space, e), where);
		}
		f = page_in(space, e);
		assert_int_equal(swap_count(space, e), 40);
		assert_int_equal(folio_dup_swap(space, f), 0);
		assert_int_equal(swap_count(space, e), 41);
		for (i = 40; i > 12; i--) {
			folio_put_swap(space, f);
			assert_int_equal(swap_count(space, e), i);
		}
		assert_false(folio_free_swap(space, f));
		swap_cache_del_folio(space, f);
		folio_done(f);
		assert_int_equal(swap_count(space, e), 13);
		assert_int_equal(swap_entry_where(space, e), where);
		for (i = 13; i > 1; i--) {
			swap_free_range(space, e, 1);
			assert_int_equal(swap_count(space, e), i - 1);
		}
		page_back(space, e, kinds[k], k);
		assert_int_equal(swap_count(space, e), 0);
	}
	space_end(space);
	memtier_free(mt);
}

/* What the cache says to those who come at the wrong time. */
static void test_cache(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct swap_folio *f = folio_new(0), *g = folio_new(0), *h;
	vswp_entry_t e = page_out(space, PAGE_TEXT, 5);

	(void)state;
	assert_null(swap_cache_get_folio(space, e));
	assert_null(swap_cache_get_folio(space, vswp_entry(0)));
	assert_null(swap_cache_get_folio(space, vswp_entry(~0UL)));
	assert_int_equal(swap_cache_add_folio(space, vswp_entry(e.val + 1), f), -ENOENT);
	assert_int_equal(swap_cache_add_folio(space, vswp_entry(1UL << 50), f), -ENOENT);
	assert_int_equal(swap_cache_add_folio(space, e, f), 0);
	assert_int_equal(swap_cache_add_folio(space, e, g), -EEXIST);
	h = swap_cache_get_folio(space, e);
	assert_ptr_equal(h, f);
	assert_int_equal(atomic_read(&f->ref), 3);
	swap_folio_put(h);
	assert_int_equal(swap_readin(space, &f, 1), 1);
	/* An owner gone while it is cached: the word stays for the folio. */
	swap_free_range(space, e, 1);
	assert_int_equal(swap_count(space, e), 0);
	assert_int_equal(swap_entry_where(space, e), SWAP_FOLIO);
	assert_int_equal(swap_dup_range(space, e, 1), 0);
	assert_int_equal(swap_dup_range(space, vswp_entry(e.val + 1), 1), -ENOENT);
	/* A range that fails half-way changes nothing. */
	assert_int_equal(swap_dup_range(space, e, 2), -ENOENT);
	assert_int_equal(swap_count(space, e), 1);
	swap_free_range(space, e, 1);
	/* Deleting is as good as folio_free_swap when nobody owns it. */
	swap_cache_del_folio(space, f);
	assert_int_equal(swap_entry_where(space, e), SWAP_NULL);
	folio_done(f);
	folio_done(g);
	space_end(space);
}

/* Large folios, whole and in pieces. */
static void test_orders(void **state)
{
	unsigned int order, i, k;

	(void)state;
	for (order = 0; order <= SWAP_MAX_ORDER; order++) {
		struct swap_space *space = space_new("lz4", 1 << 24);
		struct memtier *mt = memtier_new(1536);
		unsigned int nr = 1U << order;

		assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
		for (k = 0; k < PAGE_KINDS; k++) {
			struct swap_folio *f = folio_new(order), *g;
			vswp_entry_t e;

			folio_make(f, k, 77);
			assert_int_equal(folio_alloc_swap(space, NULL, f), 0);
			e = f->entry;
			assert_int_equal(e.val % nr, 0);
			for (i = 0; i < nr; i++) {
				g = swap_cache_get_folio(space, vswp_entry(e.val + i));
				assert_ptr_equal(f, g);
				swap_folio_put(g);
			}
			assert_int_equal(swap_writeout(space, &f, 1), 1);
			swap_cache_del_folio(space, f);
			folio_done(f);
			/* The last page alone. */
			g = page_in(space, vswp_entry(e.val + nr - 1));
			assert_true(folio_is(g, k, 77 + nr - 1));
			/* Not the whole while a piece is there. */
			f = folio_new(order);
			assert_int_equal(swap_cache_add_folio(space, e, f), -EEXIST);
			swap_cache_del_folio(space, g);
			folio_done(g);
			/* The whole. */
			assert_int_equal(swap_cache_add_folio(space, e, f), 0);
			assert_int_equal(swap_readin(space, &f, 1), 1);
			assert_true(folio_is(f, k, 77));
			assert_int_equal(folio_dup_swap(space, f), 0);
			swap_free_range(space, e, nr);
			assert_false(folio_free_swap(space, f));
			/* Owners gone but for one page: all but it are given back. */
			swap_free_range(space, vswp_entry(e.val + 1), nr - 1);
			swap_cache_del_folio(space, f);
			folio_done(f);
			for (i = 1; i < nr; i++)
				assert_int_equal(swap_count(space, vswp_entry(e.val + i)), 0);
			page_back(space, e, k, 77);
		}
		space_end(space);
		memtier_free(mt);
	}
}

static void test_realloc_slots(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(1024);
	struct swap_folio *f = folio_new(4), *g;
	struct swap_tier_stat ts;
	struct swap_stat st;
	vswp_entry_t e;

	(void)state;
	folio_make(f, PAGE_TEXT, 9);
	assert_int_equal(folio_alloc_swap(space, NULL, f), 0);
	e = f->entry;
	assert_int_equal(swap_writeout(space, &f, 1), 1);
	assert_int_equal(folio_realloc_swap(space, f), -ENOSPC);
	assert_false(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	assert_int_equal(folio_realloc_swap(space, f), 0);
	assert_true(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	swap_space_stat(space, &st);
	assert_int_equal(st.pool_objects, 0);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 16);
	assert_int_equal(mt->pages_written, 0);
	/* Written there, in a row, though the pool would have had it. */
	assert_int_equal(swap_writeout(space, &f, 1), 1);
	assert_int_equal(mt->writes, 1);
	assert_int_equal(mt->pages_written, 16);
	assert_int_equal(mt->breaks, 0);
	/* Nothing to do: nothing changes. */
	assert_int_equal(folio_realloc_swap(space, f), 0);
	assert_false(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	swap_cache_del_folio(space, f);
	folio_done(f);
	/* One page dirtied and written again goes to the slot it has. */
	g = page_in(space, vswp_entry(e.val + 3));
	folio_make(g, PAGE_NOISE, 55);
	assert_int_equal(swap_writeout(space, &g, 1), 1);
	assert_int_equal(mt->pages_written, 17);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 16);
	swap_cache_del_folio(space, g);
	folio_done(g);
	page_back(space, vswp_entry(e.val + 3), PAGE_NOISE, 55);
	page_back(space, e, PAGE_TEXT, 9);
	swap_free_range(space, vswp_entry(e.val + 1), 2);
	swap_free_range(space, vswp_entry(e.val + 4), 12);
	space_end(space);
	memtier_free(mt);
}

static void test_migrate(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *ma = memtier_new(512), *mb = memtier_new(4);
	struct swap_folio *f = folio_new(3);
	struct swap_tier *a, *b;
	struct swap_tier_stat ts;
	struct swap_stat st;
	vswp_entry_t e;

	(void)state;
	a = memtier_add(space, ma, "a", 1);
	b = memtier_add(space, mb, "b", 0);
	assert_false(IS_ERR(a) || IS_ERR(b));
	folio_make(f, PAGE_TEXT, 3);
	assert_int_equal(folio_alloc_swap(space, NULL, f), 0);
	e = f->entry;
	/* Dirty to a tier at once; b is too small and nothing changes. */
	assert_int_equal(folio_migrate_swap(space, f, b), -ENOSPC);
	assert_true(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	assert_int_equal(folio_migrate_swap(space, f, a), 0);
	assert_false(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	assert_int_equal(ma->pages_written, 8);
	assert_int_equal(folio_migrate_swap(space, f, b), -ENOSPC);
	assert_true(swap_tier_stat(space, 1, &ts));
	assert_int_equal(ts.slots_used, 0);
	/* To the pool, and back against a write error. */
	assert_int_equal(folio_migrate_swap(space, f, NULL), 0);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.pool_objects, 8);
	ma->write_error = -EIO;
	ma->write_good = ma->pages_written + 5;
	assert_int_equal(folio_migrate_swap(space, f, a), -EIO);
	swap_space_stat(space, &st);
	assert_int_equal(st.pool_objects, 8);
	swap_cache_del_folio(space, f);
	assert_int_equal(swap_entry_where(space, e), SWAP_ZPOOL);
	folio_done(f);
	f = folio_new(3);
	assert_int_equal(swap_cache_add_folio(space, e, f), 0);
	assert_int_equal(swap_readin(space, &f, 1), 1);
	assert_true(folio_is(f, PAGE_TEXT, 3));
	/* What the pool will not have cannot leave the tiers. */
	folio_make(f, PAGE_NOISE, 3);
	assert_int_equal(folio_migrate_swap(space, f, NULL), -ENOSPC);
	assert_true(swap_folio_test(f, SWAP_FOLIO_DIRTY));
	/* A word, given in every page, leaves the pool. */
	folio_make(f, PAGE_ZERO, 0);
	assert_int_equal(folio_migrate_swap(space, f, NULL), 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.pool_objects, 0);
	folio_put_swap(space, f);
	assert_true(folio_free_swap(space, f));
	folio_done(f);
	space_end(space);
	memtier_free(ma);
	memtier_free(mb);
}

static void test_writeback(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(1024);
	vswp_entry_t e[500];
	struct swap_stat st;
	unsigned int i, n = 0;
	struct swap_folio *f;
	u64 half;

	(void)state;
	for (i = 0; i < 500; i++)
		e[i] = page_out(space, PAGE_TEXT, i);
	assert_int_equal(swap_writeback(space, 1), 0); /* no tier */
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	f = page_in(space, e[1]); /* in use, so passed over */
	swap_space_stat(space, &st);
	half = st.pool_data_bytes / 2;
	assert_true(swap_writeback(space, half) >= half);
	assert_true(mt->writes <= 4);
	/* The oldest ones went, in order. */
	assert_int_equal(swap_entry_where(space, e[0]), SWAP_SLOT);
	for (i = 2; i < 500 && swap_entry_where(space, e[i]) == SWAP_SLOT; i++)
		n++;
	assert_in_range(n, 240, 260);
	for (; i < 500; i++)
		assert_int_equal(swap_entry_where(space, e[i]), SWAP_ZPOOL);
	swap_space_stat(space, &st);
	assert_int_equal(st.zswpwb, n + 1);
	assert_int_equal(st.nr_tier, n + 1);
	swap_cache_del_folio(space, f);
	folio_done(f);
	assert_true(swap_writeback(space, U64_MAX) > 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.pool_objects, 0);
	assert_int_equal(st.nr_tier, 500);
	/* A damaged object is found as well. */
	mt->pages[40] ^= 1;
	page_lost(space, e[0]);
	for (i = 1; i < 500; i++)
		page_back(space, e[i], PAGE_TEXT, i);
	space_end(space);
	memtier_free(mt);
}

static void test_writeback_error(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(10);
	vswp_entry_t e[50];
	struct swap_stat st;
	unsigned int i;

	(void)state;
	for (i = 0; i < 50; i++)
		e[i] = page_out(space, PAGE_TEXT, i);
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	assert_true(swap_writeback(space, U64_MAX) > 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_tier, 10);
	assert_int_equal(swap_writeback(space, U64_MAX), 0);
	page_back(space, e[0], PAGE_TEXT, 0);
	mt->write_error = -EIO;
	mt->write_good = -1;
	assert_int_equal(swap_writeback(space, U64_MAX), 0);
	for (i = 1; i < 50; i++)
		page_back(space, e[i], PAGE_TEXT, i);
	space_end(space);
	memtier_free(mt);
}

/* Gives up the second time it is asked. */
static bool ask_twice(void *priv, u64 left)
{
	unsigned int *asked = priv;

	assert_true(left > 0);
	return ++*asked < 2;
}

static void test_swapoff(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *ma = memtier_new(1024), *mb = memtier_new(700);
	struct swap_tier *a, *b;
	struct swap_tier_stat ts;
	vswp_entry_t text[200], hard[700]; /* more than one batch */
	struct swap_folio *f, *g;
	struct swap_stat st;
	unsigned int i, asked = 0;
	const struct swapoff_watch watch = { ask_twice, &asked };

	(void)state;
	a = memtier_add(space, ma, "a", 1);
	assert_false(IS_ERR(a));
	for (i = 0; i < 200; i++)
		text[i] = page_out(space, PAGE_TEXT, i);
	for (i = 0; i < 700; i++)
		hard[i] = page_out(space, PAGE_NOISE, i);
	assert_true(swap_writeback(space, U64_MAX) > 0);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 900);
	/* What does not compress has nowhere to go. */
	assert_false(swapoff_fits(space, a));
	assert_int_equal(swapoff(space, a, NULL), -ENOSPC);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_in_range(ts.slots_used, 700, 899);
	/* With another tier it has; two entries are cached meanwhile, one of them not read. */
	b = memtier_add(space, mb, "b", 0);
	assert_false(IS_ERR(b));
	f = page_in(space, hard[7]);
	swap_folio_unlock(f);
	g = folio_new(0);
	assert_int_equal(swap_cache_add_folio(space, hard[8], g), 0);
	swap_folio_unlock(g);
	/* As much as was moved until then is gone from it, and it is open again. */
	assert_true(swapoff_fits(space, a));
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_string_equal(ts.name, "a");
	i = ts.slots_used;
	asked = 1;
	assert_int_equal(swapoff(space, a, &watch), -EINTR);
	assert_int_equal(asked, 2);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_in_range(ts.slots_used, 1, i - 1);
	assert_int_equal(swapoff(space, a, NULL), 0);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_string_equal(ts.name, "b");
	assert_false(swap_tier_stat(space, 1, &ts));
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_pool, 200);
	assert_int_equal(st.nr_tier + st.nr_cached, 700);
	swap_folio_lock(f);
	swap_cache_del_folio(space, f);
	folio_done(f);
	swap_folio_lock(g);
	assert_true(swap_folio_test(g, SWAP_FOLIO_UPTODATE));
	swap_cache_del_folio(space, g);
	folio_done(g);
	/* Its numbers are free for another one. */
	a = memtier_add(space, ma, "a2", 1);
	assert_false(IS_ERR(a));
	for (i = 0; i < 200; i++)
		page_back(space, text[i], PAGE_TEXT, i);
	for (i = 0; i < 700; i++)
		page_back(space, hard[i], PAGE_NOISE, i);
	hard[0] = page_out(space, PAGE_NOISE, 0);
	/* Pages that cannot be read stay if it is given up; else they are lost, and the tier goes. */
	ma->read_error = -EIO;
	asked = 1;
	assert_int_equal(swapoff(space, a, &watch), -EINTR);
	assert_int_equal(swap_entry_where(space, hard[0]), SWAP_SLOT);
	ma->read_error = 0;
	f = page_in(space, hard[0]);
	assert_true(folio_is(f, PAGE_NOISE, 0));
	swap_cache_del_folio(space, f);
	folio_done(f);
	ma->read_error = -EIO;
	assert_int_equal(swapoff(space, a, NULL), -EIO);
	assert_int_equal(swap_entry_where(space, hard[0]), SWAP_POISON);
	swap_free_range(space, hard[0], 1);
	assert_int_equal(swapoff(space, b, NULL), 0);
	assert_false(swap_tier_stat(space, 0, &ts));
	space_end(space);
	memtier_free(ma);
	memtier_free(mb);
}

static void test_migrate_many(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *ma = memtier_new(1024), *mb = memtier_new(150);
	struct swap_tier *a = memtier_add(space, ma, "a", 1), *b = memtier_add(space, mb, "b", 0);
	unsigned int i, asked = 0;
	const struct swapoff_watch watch = { ask_twice, &asked };
	struct swap_tier_stat ts;
	vswp_entry_t e[300];
	struct swap_stat st;
	u64 moved;

	(void)state;
	assert_false(IS_ERR(a) || IS_ERR(b));
	for (i = 0; i < 300; i++)
		e[i] = page_out(space, i % 3 ? PAGE_TEXT : PAGE_NOISE, i);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_pool, 200);
	assert_int_equal(st.nr_tier, 100);

	/* As much as was asked for, from the pool and back, and all there is if that is less. */
	assert_int_equal(swap_migrate(space, NULL, a, 70 * SWAP_PAGE_SIZE, NULL, &moved), 0);
	assert_int_equal(moved, 70 * SWAP_PAGE_SIZE);
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.slots_used, 170);
	/* What does not compress cannot go to the pool: the rest stays. */
	assert_int_equal(swap_migrate(space, a, NULL, U64_MAX, NULL, &moved), -ENOSPC);
	assert_int_equal(swap_migrate(space, NULL, a, U64_MAX, NULL, &moved), 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_pool, 0);
	assert_int_equal(st.nr_tier, 300);
	/* From tier to tier, until that is full, or somebody had enough. */
	assert_int_equal(swap_migrate(space, a, b, U64_MAX, &watch, &moved), -EINTR);
	assert_in_range(moved, 2 * SWAP_PAGE_SIZE, 149 * SWAP_PAGE_SIZE);
	assert_int_equal(swap_migrate(space, a, b, U64_MAX, NULL, &moved), -ENOSPC);
	assert_true(swap_tier_stat(space, 1, &ts));
	assert_int_equal(ts.slots_used, 150);
	assert_int_equal(swap_migrate(space, b, a, 10 * SWAP_PAGE_SIZE, NULL, &moved), 0);
	assert_int_equal(moved, 10 * SWAP_PAGE_SIZE);
	assert_int_equal(swap_migrate(space, a, b, 0, NULL, &moved), 0);
	assert_int_equal(moved, 0);
	for (i = 0; i < 300; i++)
		page_back(space, e[i], i % 3 ? PAGE_TEXT : PAGE_NOISE, i);
	space_end(space);
	memtier_free(ma);
	memtier_free(mb);
}

/* A tier that cannot be read for a while is not gone through to the end. */
static void test_migrate_error(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *ma = memtier_new(1024), *mb = memtier_new(1024);
	struct swap_tier *a = memtier_add(space, ma, "a", 1), *b = memtier_add(space, mb, "b", 0);
	vswp_entry_t e[300];
	struct swap_stat st;
	unsigned int i;
	u64 moved;

	(void)state;
	assert_false(IS_ERR(a) || IS_ERR(b));
	for (i = 0; i < 300; i++)
		e[i] = page_out(space, PAGE_NOISE, i);
	ma->read_error = -EIO;
	assert_int_equal(swap_migrate(space, a, b, U64_MAX, NULL, &moved), -EIO);
	assert_int_equal(moved, 0);
	assert_in_range(ma->pages_read, 1, 2 * 64);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_poison, 0);
	ma->read_error = 0;
	assert_int_equal(swap_migrate(space, a, b, U64_MAX, NULL, &moved), 0);
	assert_int_equal(moved, 300 * SWAP_PAGE_SIZE);
	/* What is damaged is lost, and does not stop the next one. */
	mb->pages[0] ^= 1;
	assert_int_equal(swap_migrate(space, b, a, U64_MAX, NULL, &moved), -EIO);
	assert_in_range(moved, 1, 299 * SWAP_PAGE_SIZE);
	assert_int_equal(swap_migrate(space, b, a, U64_MAX, NULL, &moved), 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.nr_poison, 1);
	assert_int_equal(st.nr_tier, 299);
	for (i = 0; i < 300; i++) {
		if (swap_entry_where(space, e[i]) == SWAP_POISON)
			swap_free_range(space, e[i], 1);
		else
			page_back(space, e[i], PAGE_NOISE, i);
	}
	space_end(space);
	memtier_free(ma);
	memtier_free(mb);
}

static void test_claim(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct swap_group *group = swap_group_create(space, NULL);
	struct swap_folio *f = folio_new(0), *g = folio_new(2), *h = folio_new(0);
	struct swap_stat st;
	vswp_entry_t e;

	(void)state;
	assert_non_null(group);
	assert_int_equal(folio_claim_swap(space, NULL, f, vswp_entry(5)), -EINVAL);
	assert_int_equal(folio_claim_swap(space, NULL, f, vswp_entry(1UL << 40)), -EINVAL);
	assert_int_equal(folio_claim_swap(space, NULL, g, vswp_entry(513)), -EINVAL);
	/* Far out, then the first cluster, which allocations come to next. */
	assert_int_equal(folio_claim_swap(space, NULL, f, vswp_entry(1000 * 512 + 17)), 0);
	assert_int_equal(f->entry.val, 1000 * 512 + 17);
	assert_int_equal(folio_claim_swap(space, NULL, h, f->entry), -EBUSY);
	assert_int_equal(folio_claim_swap(space, group, h, vswp_entry(f->entry.val + 1)), -EBUSY);
	assert_int_equal(folio_claim_swap(space, NULL, g, vswp_entry(1000 * 512 + 16)), -EBUSY);
	assert_int_equal(folio_claim_swap(space, NULL, g, vswp_entry(1 * 512 + 4)), 0);
	assert_int_equal(swap_entry_where(space, vswp_entry(519)), SWAP_FOLIO);
	assert_int_equal(folio_claim_swap(space, group, h, vswp_entry(2 * 512)), 0);
	/* An allocation goes around what was claimed. */
	e = swap_alloc(space, NULL, 9);
	assert_true(e.val && e.val != 512 && e.val != 2 * 512);
	swap_free_range(space, e, 512);
	folio_put_swap(space, f);
	folio_put_swap(space, g);
	folio_put_swap(space, h);
	assert_true(folio_free_swap(space, f));
	assert_true(folio_free_swap(space, g));
	assert_true(folio_free_swap(space, h));
	swap_space_stat(space, &st);
	assert_int_equal(st.clusters, 0);
	/* Their numbers can be had both ways again. */
	e = swap_alloc(space, NULL, 9);
	swap_free_range(space, e, 512);
	assert_int_equal(folio_claim_swap(space, group, h, e), 0);
	folio_put_swap(space, h);
	assert_true(folio_free_swap(space, h));
	folio_done(f);
	folio_done(g);
	folio_done(h);
	swap_group_destroy(group);
	space_end(space);
}

static void test_groups(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct swap_group *group = swap_group_create(space, NULL);
	struct swap_stat st;
	vswp_entry_t a, b;
	unsigned int i;

	(void)state;
	assert_non_null(group);
	for (i = 0; i < 1000; i++) {
		a = swap_alloc(space, NULL, 0);
		b = swap_alloc(space, group, 0);
		assert_true(a.val && b.val);
		assert_true(a.val / 512 != b.val / 512);
		swap_free_range(space, a, 1);
		swap_free_range(space, b, 1);
	}
	swap_group_destroy(group);
	swap_space_stat(space, &st);
	assert_true(st.clusters <= nr_cpu_ids);
	space_end(space);
}

static void test_refault(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct memtier *mt = memtier_new(512);
	vswp_entry_t a, b, e[100];
	struct swap_folio *f;
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	a = page_out(space, PAGE_TEXT, 1);
	b = page_out(space, PAGE_NOISE, 1);
	for (i = 0; i < 100; i++)
		e[i] = page_out(space, PAGE_ZERO, 0);
	assert_in_range(swap_refault_distance(space, a), 100, 103);
	assert_in_range(swap_refault_distance(space, b), 100, 103);
	assert_in_range(swap_refault_distance(space, e[50]), 48, 52);
	assert_int_equal(swap_refault_distance(space, vswp_entry(12345)), U64_MAX);
	f = page_in(space, a);
	assert_in_range(swap_refault_distance(space, a), 100, 103);
	/* Back into it: evicted just now. */
	swap_cache_del_folio(space, f);
	folio_done(f);
	assert_in_range(swap_refault_distance(space, a), 0, 2);
	page_back(space, a, PAGE_TEXT, 1);
	page_back(space, b, PAGE_NOISE, 1);
	for (i = 0; i < 100; i++)
		swap_free_range(space, e[i], 1);
	space_end(space);
	memtier_free(mt);
}

static void test_conf(void **state)
{
	struct swap_space_conf conf = { .compressor = "lzma", .pool_limit = 1 << 20 };
	struct swap_space *space;
	struct memtier *mt = memtier_new(16);
	struct swap_tier *tier[SWAP_MAX_TIERS];
	struct swap_tier_stat ts;
	unsigned int i;

	(void)state;
	assert_int_equal(PTR_ERR(swap_space_create(&conf)), -EINVAL);
	space = space_new("none", 0);
	for (i = 0; i < SWAP_MAX_TIERS; i++) {
		tier[i] = memtier_add(space, mt, "mem", (int)(i * 7 % 31));
		assert_false(IS_ERR(tier[i]));
	}
	assert_int_equal(PTR_ERR(memtier_add(space, mt, "mem", 0)), -ENOSPC);
	for (i = 0; i < SWAP_MAX_TIERS; i++) {
		assert_true(swap_tier_stat(space, i, &ts));
		assert_int_equal(ts.prio, 30 - (int)i);
	}
	assert_int_equal(swapoff(space, tier[13], NULL), 0);
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 100)));
	assert_true(swap_tier_stat(space, 0, &ts));
	assert_int_equal(ts.prio, 100);
	space_end(space);
	memtier_free(mt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),
		cmocka_unit_test(test_pool),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_tier_batch),
		cmocka_unit_test(test_pool_and_tier),
		cmocka_unit_test(test_write_error),
		cmocka_unit_test(test_away),
		cmocka_unit_test(test_enospc),
		cmocka_unit_test(test_tier_full),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_read_error),
		cmocka_unit_test(test_write_fault),
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_realloc_slots),
		cmocka_unit_test(test_migrate),
		cmocka_unit_test(test_writeback),
		cmocka_unit_test(test_writeback_error),
		cmocka_unit_test(test_swapoff),
		cmocka_unit_test(test_migrate_many),
		cmocka_unit_test(test_migrate_error),
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_refault),
		cmocka_unit_test(test_conf),
		cmocka_unit_test(test_late_discard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
