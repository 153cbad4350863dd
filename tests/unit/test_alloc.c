// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Entries: who has which, how many own them, and what they cost, against a
 * plain model; and clusters, which come with the first slot and go with the
 * last.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/kernel.h>

#include "memtier.h"
#include "cpu.h"
#include "pages.h"

#ifdef VSWAP_DEBUG_LOCKS
#define STEPS 100000
#else
#define STEPS 1000000
#endif

static struct swap_space *space_new(void)
{
	struct swap_space_conf conf = { .compressor = "none" };
	struct swap_space *space = swap_space_create(&conf);

	assert_false(IS_ERR(space));
	return space;
}

static u64 clusters(struct swap_space *space)
{
	struct swap_stat st;

	swap_space_stat(space, &st);
	return st.clusters;
}

#define MODEL_RUNS 4096
#define MODEL_SPAN (1UL << 22) /* entries the model can tell apart */

struct run {
	vswp_entry_t entry;
	unsigned int order;
	unsigned char count[1 << 4]; /* of each of its slots */
};

/* Random runs of random orders, owners come and go one slot at a time. */
static void test_model(void **state)
{
	struct swap_space *space = space_new();
	struct run *runs = calloc(MODEL_RUNS, sizeof(*runs));
	unsigned char *owned = calloc(MODEL_SPAN, 1);
	u64 rnd = 12345, used = 0;
	struct swap_stat st;
	unsigned long step;
	unsigned int i;

	(void)state;
	assert_true(runs && owned);
	for (step = 0; step < STEPS; step++) {
		struct run *r = &runs[noise(&rnd) % MODEL_RUNS];

		if (!r->entry.val) {
			r->order = noise(&rnd) % 8 < 5 ? 0 : noise(&rnd) % 5;
			r->entry = swap_alloc(space, NULL, r->order);
			assert_true(r->entry.val && r->entry.val < MODEL_SPAN);
			assert_int_equal(r->entry.val % (1UL << r->order), 0);
			for (i = 0; i < 1U << r->order; i++) {
				assert_int_equal(owned[r->entry.val + i], 0);
				owned[r->entry.val + i] = 1;
				r->count[i] = 1;
				used++;
			}
			continue;
		}
		i = noise(&rnd) % (1U << r->order);
		if (r->count[i] && noise(&rnd) % 3 == 0 && r->count[i] < 60) {
			assert_int_equal(swap_dup_range(space, vswp_entry(r->entry.val + i), 1), 0);
			r->count[i]++;
		} else if (r->count[i]) {
			swap_free_range(space, vswp_entry(r->entry.val + i), 1);
			if (!--r->count[i]) {
				owned[r->entry.val + i] = 0;
				used--;
			}
		}
		/* A slot given back may be somebody else's by now. */
		if (r->count[i] || !owned[r->entry.val + i])
			assert_int_equal(swap_count(space, vswp_entry(r->entry.val + i)),
					 r->count[i]);
		for (i = 0; i < 1U << r->order && !r->count[i]; i++)
			;
		if (i == 1U << r->order)
			r->entry.val = 0;
	}
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, used);
	assert_int_equal(st.nr_fill, used);
	assert_true(st.slots_peak >= used);
	for (i = 0; i < MODEL_RUNS; i++) {
		struct run *r = &runs[i];
		unsigned int k;

		for (k = 0; r->entry.val && k < 1U << r->order; k++)
			for (; r->count[k]; r->count[k]--)
				swap_free_range(space, vswp_entry(r->entry.val + k), 1);
	}
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	/* What is left are the current ones of order 0. */
	assert_true(st.clusters <= nr_cpu_ids);
	swap_space_destroy(space);
	free(runs);
	free(owned);
}

static void test_life(void **state)
{
	struct swap_space *space = space_new();
	cpu_set_t all = cpu_stay();
	vswp_entry_t e[10], f;
	unsigned int order, i;

	(void)state;
	assert_int_equal(clusters(space), 0);
	for (order = 1; order <= SWAP_MAX_ORDER; order++) {
		e[order] = swap_alloc(space, NULL, order);
		assert_int_equal(clusters(space), order);
	}
	/* Runs of one order share a cluster until it is full. */
	for (i = 1; i < 512 / 16; i++) {
		f = swap_alloc(space, NULL, 4);
		assert_int_equal(f.val / 512, e[4].val / 512);
	}
	assert_int_equal(clusters(space), 9);
	f = swap_alloc(space, NULL, 4);
	assert_int_equal(clusters(space), 10);
	swap_free_range(space, f, 16);
	assert_int_equal(clusters(space), 9);
	/* A hole in the full one is where the next goes. */
	swap_free_range(space, vswp_entry(e[4].val + 32), 16);
	f = swap_alloc(space, NULL, 4);
	assert_int_equal(f.val, e[4].val + 32);
	/* Half a run free is none; single slots take the pieces. */
	swap_free_range(space, vswp_entry(e[4].val + 48), 8);
	f = swap_alloc(space, NULL, 4);
	assert_true(f.val / 512 != e[4].val / 512);
	swap_free_range(space, f, 16);
	f = swap_alloc(space, NULL, 0);
	assert_int_equal(f.val, e[4].val + 48);
	swap_free_range(space, f, 1);
	swap_free_range(space, e[4], 48);
	swap_free_range(space, vswp_entry(e[4].val + 56), 512 - 56);
	for (order = 1; order <= SWAP_MAX_ORDER; order++)
		if (order != 4)
			swap_free_range(space, e[order], 1U << order);
	assert_true(clusters(space) <= 1);
	swap_space_destroy(space);
	cpu_leave(all);
}

/* One call over several clusters. */
static void test_ranges(void **state)
{
	struct swap_space *space = space_new();
	unsigned int i, nr = 5 * 512;
	vswp_entry_t first, e;

	(void)state;
	first = swap_alloc(space, NULL, 0);
	for (i = 1; i < nr; i++) {
		e = swap_alloc(space, NULL, 0);
		/* A move to another CPU begins another cluster: then not in a row. */
		if (e.val != first.val + i)
			break;
	}
	if (i < nr) {
		swap_free_range(space, e, 1);
		nr = i;
	}
	for (i = 0; i < 20; i++)
		assert_int_equal(swap_dup_range(space, first, nr), 0);
	for (i = 0; i < nr; i++)
		assert_int_equal(swap_count(space, vswp_entry(first.val + i)), 21);
	for (i = 0; i < 21; i++)
		swap_free_range(space, first, nr);
	assert_true(clusters(space) <= nr_cpu_ids);
	swap_space_destroy(space);
}

/* Section 5's numbers: what a page out of memory costs. */
static void test_bytes(void **state)
{
	struct swap_space *space = space_new();
	struct memtier *mt = memtier_new(4096);
	struct swap_folio *f[4096];
	struct swap_stat empty, st;
	vswp_entry_t *e;
	unsigned int i, nr = 512 * 1024;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	swap_space_stat(space, &empty);
	assert_true(empty.table_bytes + empty.cluster_bytes + empty.tier_meta_bytes < 1 << 20);
	assert_true(swap_space_bytes(space) < 1 << 20);
	e = malloc(nr * sizeof(*e));
	assert_non_null(e);
	for (i = 0; i < nr; i++)
		assert_true((e[i] = swap_alloc(space, NULL, 0)).val != 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, nr);
	assert_int_equal(st.slots_peak, nr);
	assert_true((double)(st.table_bytes + st.cluster_bytes - empty.cluster_bytes) / nr <= 8.3);
	for (i = 0; i < nr; i++)
		swap_free_range(space, e[i], 1);
	for (i = 0; i < 4096; i++) {
		f[i] = folio_new(0);
		folio_make(f[i], PAGE_NOISE, i);
	}
	swap_space_stat(space, &empty);
	assert_int_equal(folios_alloc_swap(space, NULL, f, 4096), 4096);
	assert_int_equal(swap_writeout(space, f, 4096), 4096);
	swap_space_stat(space, &st);
	assert_true((double)(st.table_bytes + st.cluster_bytes + st.tier_meta_bytes -
			     empty.table_bytes - empty.cluster_bytes - empty.tier_meta_bytes) /
			    4096 <=
		    8.5 + 2.0 * SWAP_PAGE_SIZE / 4096); /* a first leaf of each map */
	for (i = 0; i < 4096; i++) {
		folio_put_swap(space, f[i]);
		assert_true(folio_free_swap(space, f[i]));
		folio_done(f[i]);
	}
	swap_space_destroy(space);
	memtier_free(mt);
	free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
