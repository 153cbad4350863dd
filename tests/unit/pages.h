/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Folios with contents that can be made again from a number, for tests.
 */
#ifndef TESTS_UNIT_PAGES_H
#define TESTS_UNIT_PAGES_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <linux/atomic.h>

#include "core/swap.h"

enum page_kind {
	PAGE_ZERO,
	PAGE_SIGN,	/* one small negative word over and over */
	PAGE_TWICE,	/* one word of two equal halves */
	PAGE_TEXT,	/* compresses well */
	PAGE_NOISE,	/* does not compress */
	PAGE_LIKE_FILL, /* one word over and over but for the last byte */
	PAGE_KINDS,
};

static inline u64 noise(u64 *state)
{
	u64 x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* The page that @kind and @seed stand for. */
static inline void page_make(void *page, enum page_kind kind, u64 seed)
{
	u64 *p = page, state = seed * 0x9e3779b97f4a7c15ULL + 1;
	unsigned int i;

	for (i = 0; i < SWAP_PAGE_SIZE / 8; i++) {
		switch (kind) {
		case PAGE_ZERO:
			p[i] = 0;
			break;
		case PAGE_SIGN:
			p[i] = (u64) - (s64)(seed % 0x7fffffff + 1);
			break;
		case PAGE_TWICE:
			p[i] = (seed | 0x80000000u) * 0x100000001ULL;
			break;
		case PAGE_TEXT:
			p[i] = i % 16 == 0 ? noise(&state) : 0x2020202020202020ULL + i % 5 + seed;
			break;
		case PAGE_LIKE_FILL:
			p[i] = seed & 0xffff;
			break;
		default:
			p[i] = noise(&state);
			break;
		}
	}
	if (kind == PAGE_LIKE_FILL)
		((unsigned char *)page)[SWAP_PAGE_SIZE - 1] = 7;
}

static inline bool page_is(const void *page, enum page_kind kind, u64 seed)
{
	static __thread unsigned char want[SWAP_PAGE_SIZE];

	page_make(want, kind, seed);
	return !memcmp(page, want, SWAP_PAGE_SIZE);
}

struct test_folio {
	struct swap_folio f;
	atomic_t held; /* 1 until the last reference is gone */
};

static inline void test_folio_release(struct swap_folio *folio)
{
	struct test_folio *t = (struct test_folio *)folio;

	if (!atomic_read(&t->held))
		abort();
	atomic_set(&t->held, 0);
}

/* A new locked folio with its own data. */
static inline struct swap_folio *folio_new(unsigned int order)
{
	struct test_folio *t = aligned_alloc(64, sizeof(*t));
	void *data = aligned_alloc(SWAP_PAGE_SIZE, SWAP_PAGE_SIZE << order);
	unsigned long *backing = order ? calloc(1UL << order, sizeof(*backing)) : NULL;

	if (!t || !data || (order && !backing))
		abort();
	memset(data, 0xa5, SWAP_PAGE_SIZE << order);
	atomic_set(&t->held, 1);
	swap_folio_init(&t->f, data, order, backing, test_folio_release);
	swap_folio_lock(&t->f);
	return &t->f;
}

/* Dirty and uptodate, with page i of it made from (kind, seed + i). */
static inline void folio_make(struct swap_folio *folio, enum page_kind kind, u64 seed)
{
	unsigned int i;

	for (i = 0; i < 1U << folio->order; i++)
		page_make((char *)folio->data + i * SWAP_PAGE_SIZE, kind, seed + i);
	__atomic_fetch_or(&folio->flags, 1UL << SWAP_FOLIO_UPTODATE | 1UL << SWAP_FOLIO_DIRTY,
			  __ATOMIC_RELAXED);
}

static inline bool folio_is(struct swap_folio *folio, enum page_kind kind, u64 seed)
{
	unsigned int i;

	for (i = 0; i < 1U << folio->order; i++)
		if (!page_is((char *)folio->data + i * SWAP_PAGE_SIZE, kind, seed + i))
			return false;
	return true;
}

/* Unlock and give back; nobody else may have it. */
static inline void folio_done(struct swap_folio *folio)
{
	struct test_folio *t = (struct test_folio *)folio;

	swap_folio_unlock(folio);
	swap_folio_put(folio);
	if (atomic_read(&t->held))
		abort();
	if (folio->backing != &folio->backing0)
		free(folio->backing);
	free(folio->data);
	free(t);
}

#endif
