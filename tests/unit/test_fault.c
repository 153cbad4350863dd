// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory that is not there: every allocation of every call fails once, and
 * swap-out goes on by what was put by.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/kernel.h>

#include "memtier.h"
#include "pages.h"

static void quiet(const char *line)
{
	(void)line;
}

/* From the making of a space to its end, with the nth allocation failing. */
static void life(long nth, long nr_fails, unsigned int *done)
{
	struct swap_space_conf conf = { .compressor = "lz4", .pool_limit = 1 << 22 };
	static const enum page_kind kinds[] = { PAGE_ZERO, PAGE_TEXT, PAGE_NOISE };
	struct memtier *mt = memtier_new(2048), *nt = memtier_new(2048);
	struct swap_folio *f[24], *g;
	struct swap_space *space;
	struct swap_group *group;
	struct swap_tier *tier, *next;
	unsigned int i, k;
	vswp_entry_t e;

	for (i = 0; i < 24; i++) {
		f[i] = folio_new(i % 8 == 7 ? 5 : 0);
		folio_make(f[i], kinds[i % 3], i);
	}
	compat_alloc_fail_after(nth, nr_fails);
	space = swap_space_create(&conf);
	if (IS_ERR(space)) {
		assert_int_equal(PTR_ERR(space), -ENOMEM);
		goto out;
	}
	group = swap_group_create(space, NULL);
	tier = memtier_add(space, mt, "mem", 0);
	next = memtier_add(space, nt, "next", 1);
	assert_true(!IS_ERR(tier) || PTR_ERR(tier) == -ENOMEM);
	assert_true(!IS_ERR(next) || PTR_ERR(next) == -ENOMEM);
	for (i = 0; i < 24; i++) {
		if (folio_alloc_swap(space, i & 1 ? group : NULL, f[i])) {
			assert_false(swap_folio_test(f[i], SWAP_FOLIO_CACHED));
			continue;
		}
		e = f[i]->entry;
		for (k = 1; k < 20; k++)
			if (swap_dup_range(space, e, 1U << f[i]->order))
				break;
		assert_int_equal(swap_count(space, e), k);
		swap_writeout(space, &f[i], 1);
		if (!swap_folio_test(f[i], SWAP_FOLIO_DIRTY)) {
			swap_cache_del_folio(space, f[i]);
			g = folio_new(f[i]->order);
			assert_int_equal(swap_cache_add_folio(space, e, g), 0);
			assert_int_equal(swap_readin(space, &g, 1), 1);
			assert_true(folio_is(g, kinds[i % 3], i));
			if (i & 4 && !folio_realloc_swap(space, g))
				swap_writeout(space, &g, 1);
			if (i & 2)
				folio_migrate_swap(space, g, NULL);
			assert_true(folio_is(g, kinds[i % 3], i));
			while (k--)
				folio_put_swap(space, g);
			assert_true(folio_free_swap(space, g));
			folio_done(g);
		} else {
			while (k--)
				folio_put_swap(space, f[i]);
			assert_true(folio_free_swap(space, f[i]));
		}
		assert_int_equal(swap_entry_where(space, e), SWAP_NULL);
		(*done)++;
	}
	swap_writeback(space, 1 << 20);
	swap_compact(space);
	if (!IS_ERR(next)) {
		int ret = swapoff(space, next, NULL);

		assert_true(ret == 0 || ret == -ENOMEM);
	}
	if (group)
		swap_group_destroy(group);
	swap_space_destroy(space);
out:
	compat_alloc_fail_after(-1, 0);
	for (i = 0; i < 24; i++)
		folio_done(f[i]);
	memtier_free(mt);
	memtier_free(nt);
}

static void test_each(void **state)
{
	unsigned int done = 0;
	long nr, nth;

	(void)state;
	compat_printk_to(quiet);
	nr = compat_alloc_count();
	life(-1, 0, &done);
	nr = compat_alloc_count() - nr;
	assert_int_equal(done, 24);
	assert_true(nr > 40);
	for (nth = 0; nth < nr; nth++)
		life(nth, 1, &done);
	assert_true(done > 24 * (unsigned int)nr / 2);
	compat_printk_to(NULL);
}

/* All allocations fail from the nth on: nothing crashes, nothing is wrong. */
static void test_ever(void **state)
{
	unsigned int done = 0;
	long nr, nth;

	(void)state;
	compat_printk_to(quiet);
	nr = compat_alloc_count();
	life(-1, 0, &done);
	nr = compat_alloc_count() - nr;
	for (nth = 0; nth < nr; nth++)
		life(nth, -1, &done);
	compat_printk_to(NULL);
}

/* With no memory to be had at all, batches of swap-out go through on the reserves. */
static void test_reserve(void **state)
{
	struct swap_space_conf conf = { .compressor = "none" };
	struct swap_space *space = swap_space_create(&conf);
	struct memtier *mt = memtier_new(4096);
	struct swap_folio *f[2048];
	unsigned int i, n;

	(void)state;
	assert_false(IS_ERR(space));
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < 2048; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	compat_alloc_fail_after(0, -1);
	n = folios_alloc_swap(space, NULL, f, 2048);
	assert_int_equal(n, 2048);
	assert_int_equal(swap_writeout(space, f, 2048), 2048);
	for (i = 0; i < 2048; i++)
		swap_cache_del_folio(space, f[i]);
	/* And to the end: what was given is given, the rest is told. */
	for (n = 0; swap_alloc(space, NULL, 9).val; n++)
		;
	assert_in_range(n, 1, 16);
	compat_alloc_fail_after(-1, 0);
	assert_true(swap_alloc(space, NULL, 9).val);
	for (i = 0; i < 2048; i++)
		folio_done(f[i]);
	swap_space_destroy(space);
	memtier_free(mt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each),
		cmocka_unit_test(test_ever),
		cmocka_unit_test(test_reserve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
