// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What bench/count runs under callgrind: each operation of the core on a fixed
 * trace, the same instructions each time.
 *
 *	bench-count [SHIFT]
 *
 * The space has 2^SHIFT slots in use (16), so that one can see whether an
 * operation costs more in a larger one.
 *
 * Only what is in a function named measured_* is to be counted
 * (--toggle-collect), the making of pages and folios is around it.  At the end of
 * each trace trace_done() is called (--dump-after) and a line printed: number of
 * operations, name; without a name it is not of interest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/err.h>

#include "common.h"

#define NR_SLOTS (1UL << 14) /* operations on bare slots */
#define NR_PAGES 2048UL	     /* pages out and in */

#define noinline __attribute__((__noinline__))

static struct swap_space *space;
static vswp_entry_t *filled; /* what the space is full of */
static unsigned long nr_filled;
static vswp_entry_t entry[NR_SLOTS];
static struct outbox box;

static noinline void trace_done(unsigned long nr, const char *name)
{
	printf("%lu %s\n", nr, name);
}

/* ---- slots ----------------------------------------------------------- */

static noinline void measured_alloc(vswp_entry_t *e, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		e[i] = take(space, 0);
}

static noinline void measured_free(void)
{
	unsigned long i;

	for (i = 0; i < NR_SLOTS; i++)
		swap_free_range(space, entry[i], 1);
}

static noinline void measured_free_ranges(void)
{
	unsigned long i, first;

	for (first = 0; first < NR_SLOTS; first = i) {
		for (i = first + 1; i < NR_SLOTS; i++)
			if (entry[i].val != entry[first].val + i - first)
				break;
		swap_free_range(space, entry[first], (unsigned int)(i - first));
	}
}

static noinline void measured_churn(u64 rnd)
{
	unsigned long i;

	for (i = 0; i < NR_SLOTS; i++) {
		vswp_entry_t *e = &filled[next_random(&rnd) % nr_filled];

		swap_free_range(space, *e, 1);
		*e = take(space, 0);
	}
}

static noinline unsigned long measured_lookup(u64 rnd)
{
	unsigned long i, found = 0;

	for (i = 0; i < NR_SLOTS; i++)
		found += swap_entry_where(space, filled[next_random(&rnd) % nr_filled]) ==
			 SWAP_FILL;
	return found;
}

static void trace_slots(void)
{
	measured_alloc(filled, nr_filled);
	trace_done(nr_filled, "allocate a slot, in a new space");
	measured_alloc(entry, NR_SLOTS);
	trace_done(NR_SLOTS, "allocate a slot");
	measured_free();
	trace_done(NR_SLOTS, "free a slot");
	measured_alloc(entry, NR_SLOTS);
	trace_done(NR_SLOTS, "");
	measured_free_ranges();
	trace_done(NR_SLOTS, "free a slot, as part of a range");
	if (measured_lookup(3) != NR_SLOTS)
		die("an entry is lost", EINVAL);
	trace_done(NR_SLOTS, "look an entry up, at random");
}

/* ---- the cache ------------------------------------------------------- */

static noinline void measured_cache_in(void)
{
	if (folios_alloc_swap(space, NULL, box.folio, BATCH) != BATCH)
		die("folios_alloc_swap", ENOMEM);
}

static noinline void measured_cache_get(unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		struct swap_folio *folio = swap_cache_get_folio(space, box.folio[i % BATCH]->entry);

		if (!folio)
			die("a folio is lost", EINVAL);
		swap_folio_put(folio);
	}
}

static noinline void measured_cache_out(void)
{
	unsigned int i;

	for (i = 0; i < BATCH; i++) {
		folio_put_swap(space, box.folio[i]);
		swap_cache_del_folio(space, box.folio[i]);
	}
}

static void boxes(unsigned long flags)
{
	unsigned int i;

	for (i = 0; i < BATCH; i++)
		outbox_folio(&box, i, flags);
}

static void trace_cache(void)
{
	unsigned long n;

	boxes(0);
	for (n = 0; n < NR_PAGES; n += BATCH) {
		measured_cache_in();
		measured_cache_out();
	}
	trace_done(NR_PAGES, "a folio into the cache with a new slot, and out");
	measured_cache_in();
	trace_done(BATCH, "");
	measured_cache_get(NR_PAGES);
	trace_done(NR_PAGES, "look a folio up in the cache");
	measured_cache_out();
	trace_done(BATCH, "");
}

/* ---- pages ----------------------------------------------------------- */

static noinline void measured_swap_out(vswp_entry_t *e)
{
	unsigned int i;

	if (folios_alloc_swap(space, NULL, box.folio, BATCH) != BATCH)
		die("folios_alloc_swap", ENOMEM);
	if (swap_writeout(space, box.folio, BATCH) != BATCH)
		die("swap_writeout", ENOSPC);
	for (i = 0; i < BATCH; i++) {
		e[i] = box.folio[i]->entry;
		swap_cache_del_folio(space, box.folio[i]);
	}
}

static noinline void measured_swap_in(const vswp_entry_t *e)
{
	unsigned int i;

	for (i = 0; i < BATCH; i++)
		if (swap_cache_add_folio(space, e[i], box.folio[i]))
			die("swap_cache_add_folio", EINVAL);
	if (swap_readin(space, box.folio, BATCH) != BATCH)
		die("swap_readin", EIO);
	for (i = 0; i < BATCH; i++) {
		folio_put_swap(space, box.folio[i]);
		swap_cache_del_folio(space, box.folio[i]);
	}
}

static void trace_pages(enum kind kind, enum swap_where where, const char *out, const char *in)
{
	unsigned long n, i;
	u64 rnd = 7;

	for (n = 0; n < NR_PAGES; n += BATCH) {
		boxes(1UL << SWAP_FOLIO_UPTODATE | 1UL << SWAP_FOLIO_DIRTY);
		for (i = 0; i < BATCH; i++)
			make_page((u64 *)(box.data + i * SWAP_PAGE_SIZE), kind, &rnd);
		measured_swap_out(entry + n);
	}
	trace_done(NR_PAGES, out);
	for (n = 0; n < NR_PAGES; n++)
		if (swap_entry_where(space, entry[n]) != where)
			die("a page is not where it should be", EINVAL);
	for (n = 0; n < NR_PAGES; n += BATCH) {
		boxes(0);
		measured_swap_in(entry + n);
	}
	trace_done(NR_PAGES, in);
}

/* A tier that is memory. */
static char *store;

static void store_write(void *priv, struct swap_io *io, unsigned int nr)
{
	unsigned int i;

	(void)priv;
	for (i = 0; i < nr; i++)
		memcpy(store + io[i].slot * SWAP_PAGE_SIZE, io[i].data, SWAP_PAGE_SIZE);
}

static void store_read(void *priv, struct swap_io *io, unsigned int nr)
{
	unsigned int i;

	(void)priv;
	for (i = 0; i < nr; i++)
		memcpy(io[i].data, store + io[i].slot * SWAP_PAGE_SIZE, SWAP_PAGE_SIZE);
}

static const struct swap_tier_ops store_ops = {
	.write = store_write,
	.read = store_read,
};

static void add_store(void)
{
	struct swap_tier_conf conf = { .name = "store", .ops = &store_ops, .nr_slots = NR_PAGES };
	struct swap_tier *tier;

	store = must(malloc(NR_PAGES * SWAP_PAGE_SIZE));
	tier = swap_tier_add(space, &conf);
	if (IS_ERR(tier))
		die("tier", (int)-PTR_ERR(tier));
}

int main(int argc, char **argv)
{
	unsigned long shift = argc > 1 ? strtoul(argv[1], NULL, 10) : 16, i;

	if (argc > 2 || shift < 10 || shift > 30) {
		fprintf(stderr, "usage: bench-count [SHIFT], 10 to 30\n");
		return 2;
	}
	/* On one CPU, so that there is one current cluster. */
	pin_to(0);
	space = open_space(64 << 20);
	nr_filled = 1UL << shift;
	filled = must(malloc(nr_filled * sizeof(*filled)));
	outbox_open(&box);

	trace_slots();
	trace_cache();
	trace_pages(KIND_FILL, SWAP_FILL, "swap out a page of one repeated word",
		    "swap in a page of one repeated word");
	trace_pages(KIND_MIX, SWAP_ZPOOL, "swap out a page to the pool",
		    "swap in a page from the pool");
	add_store();
	trace_pages(KIND_NOISE, SWAP_SLOT, "swap out a page that does not compress to a tier",
		    "swap in a page from a tier");

	/* Last, for it leaves the space full of holes. */
	measured_churn(5);
	trace_done(NR_SLOTS, "free a slot and allocate one, at random");

	outbox_close(&box);
	for (i = 0; i < nr_filled; i++)
		swap_free_range(space, filled[i], 1);
	swap_space_destroy(space);
	free(filled);
	free(store);
	return 0;
}
