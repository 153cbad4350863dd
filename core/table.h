/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The word of a swap table: where the bytes of one entry are.
 *
 *	         63  60 59        44 43                                3 2  0
 *	FOLIO    count  0            | pointer, bits 56..6       0 0 0  0 1 0
 *	FILL     count  shadow       | 0     value, bits 39..8     kind 1 0 0
 *	ZPOOL    count  shadow       | address in the pool              1 1 0
 *	SLOT     count  sum, bits 59..32 | object 31 | slot, bits 30..1     1
 *
 * NULL is the word 0.  POISON is a kind of FILL.  A word in a folio's backing
 * is the same with count 0; it is NULL when no store has the bytes yet.
 *
 * count: the entry's owners.  15 says: look in the cluster's extend table.  A
 * FOLIO word may have count 0, its slot is given back when the folio leaves;
 * any other word but NULL has an owner.
 *
 * shadow: the space's eviction clock when the entry was evicted, 16 bits of it.
 * A SLOT word has none: writes leave in eviction order, so the clock is kept
 * once by the tier's cluster of 512 slots.
 *
 * sum: 28 bits of the checksum of what the slot holds.  A page of 4096 raw
 * bytes leaves no room in its slot for one, and four bytes a slot elsewhere
 * would be half as much again as the table itself.  The price is 30 bits of
 * slot number, 4 TiB on all tiers together, and one damaged page in 2^28
 * getting by.  An object (object = 1, a compressed page as the pool had it)
 * has a 64-bit sum in its slot besides.
 */
#ifndef CORE_TABLE_H
#define CORE_TABLE_H

#include <linux/bitops.h>
#include <linux/build_bug.h>
#include <linux/types.h>

#include "swap.h"
#include "zpool.h"

typedef unsigned long swap_word_t;

#define WORD_NULL	  0UL

#define WORD_TAG_MASK	  7UL
#define WORD_TAG_SLOT	  1UL /* bit 0 alone decides */
#define WORD_TAG_FOLIO	  2UL
#define WORD_TAG_FILL	  4UL
#define WORD_TAG_ZPOOL	  6UL

#define WORD_COUNT_SHIFT  60
#define WORD_COUNT_ONE	  (1UL << WORD_COUNT_SHIFT)
#define WORD_COUNT_MAX	  15UL /* this many or more: in the extend table */

#define WORD_SHADOW_SHIFT 44
#define WORD_SHADOW_BITS  16
#define WORD_SHADOW_MASK  GENMASK(WORD_COUNT_SHIFT - 1, WORD_SHADOW_SHIFT)

#define WORD_FOLIO_MASK	  GENMASK(56, 6)

#define WORD_KIND_SHIFT	  3
#define WORD_VALUE_SHIFT  8
#define WORD_KIND_SIGN	  0UL /* value, sign-extended to 64 bits */
#define WORD_KIND_TWICE	  1UL /* value in both halves */
#define WORD_KIND_POISON  2UL /* the bytes are lost */

#define WORD_ADDR_SHIFT	  3

#define WORD_SLOT_SHIFT	  1
#define WORD_SLOT_BITS	  30
#define WORD_SLOT_OBJECT  (1UL << 31)
#define WORD_SUM_SHIFT	  32
#define WORD_SUM_BITS	  28
#define WORD_SUM_MASK	  GENMASK(WORD_COUNT_SHIFT - 1, WORD_SUM_SHIFT)

static inline void word_layout_holds(void)
{
	BUILD_BUG_ON(sizeof(swap_word_t) != 8);
	BUILD_BUG_ON(sizeof(swap_word_t) * SWAP_CLUSTER_SLOTS != SWAP_PAGE_SIZE);
	BUILD_BUG_ON(__alignof__(struct swap_folio) < 64);
	BUILD_BUG_ON(WORD_ADDR_SHIFT + ZPOOL_ADDR_BITS > WORD_SHADOW_SHIFT);
	BUILD_BUG_ON(WORD_VALUE_SHIFT + 32 > WORD_SHADOW_SHIFT);
	BUILD_BUG_ON(WORD_SHADOW_SHIFT + WORD_SHADOW_BITS != WORD_COUNT_SHIFT);
	BUILD_BUG_ON(WORD_SLOT_SHIFT + WORD_SLOT_BITS > 31);
	BUILD_BUG_ON(WORD_SUM_SHIFT + WORD_SUM_BITS != WORD_COUNT_SHIFT);
}

static inline enum swap_where word_where(swap_word_t w)
{
	if (w & WORD_TAG_SLOT)
		return SWAP_SLOT;
	switch (w & WORD_TAG_MASK) {
	case WORD_TAG_FOLIO:
		return SWAP_FOLIO;
	case WORD_TAG_ZPOOL:
		return SWAP_ZPOOL;
	case WORD_TAG_FILL:
		return (w >> WORD_KIND_SHIFT & 3) == WORD_KIND_POISON ? SWAP_POISON : SWAP_FILL;
	default:
		return SWAP_NULL;
	}
}

static inline bool word_is_folio(swap_word_t w)
{
	return (w & WORD_TAG_MASK) == WORD_TAG_FOLIO;
}

static inline unsigned int word_count(swap_word_t w)
{
	return w >> WORD_COUNT_SHIFT;
}

/* The word as a folio's backing holds it. */
static inline swap_word_t word_bare(swap_word_t w)
{
	return w & (WORD_COUNT_ONE - 1);
}

static inline swap_word_t word_with_count(swap_word_t w, unsigned int count)
{
	return word_bare(w) | (swap_word_t)count << WORD_COUNT_SHIFT;
}

static inline swap_word_t word_folio(const struct swap_folio *folio)
{
	return ((unsigned long)folio & WORD_FOLIO_MASK) | WORD_TAG_FOLIO;
}

/* A pointer is sign-extended from the highest bit it may use. */
static inline struct swap_folio *word_to_folio(swap_word_t w)
{
	return (struct swap_folio *)((long)((w & WORD_FOLIO_MASK) << 7) >> 7);
}

static inline swap_word_t word_fill(unsigned long kind, u32 value)
{
	return (swap_word_t)value << WORD_VALUE_SHIFT | kind << WORD_KIND_SHIFT | WORD_TAG_FILL;
}

static inline swap_word_t word_poison(void)
{
	return word_fill(WORD_KIND_POISON, 0);
}

/* Can a page that is @value over and over be told in a word? */
static inline bool word_fill_fits(u64 value, swap_word_t *w)
{
	if ((u64)(s64)(s32)value == value)
		*w = word_fill(WORD_KIND_SIGN, (u32)value);
	else if (value >> 32 == (u32)value)
		*w = word_fill(WORD_KIND_TWICE, (u32)value);
	else
		return false;
	return true;
}

static inline u64 word_fill_value(swap_word_t w)
{
	u32 value = (u32)(w >> WORD_VALUE_SHIFT);

	if ((w >> WORD_KIND_SHIFT & 3) == WORD_KIND_TWICE)
		return (u64)value << 32 | value;
	return (u64)(s64)(s32)value;
}

static inline swap_word_t word_zpool(unsigned long addr)
{
	return addr << WORD_ADDR_SHIFT | WORD_TAG_ZPOOL;
}

static inline unsigned long word_zpool_addr(swap_word_t w)
{
	return w >> WORD_ADDR_SHIFT & GENMASK(ZPOOL_ADDR_BITS - 1, 0);
}

static inline swap_word_t word_slot(u32 slot, bool object, u64 sum)
{
	return (sum << WORD_SUM_SHIFT & WORD_SUM_MASK) | (object ? WORD_SLOT_OBJECT : 0) |
	       (swap_word_t)slot << WORD_SLOT_SHIFT | WORD_TAG_SLOT;
}

/* The same bytes in another slot. */
static inline swap_word_t word_move_slot(swap_word_t w, u32 slot)
{
	return (w & (WORD_SUM_MASK | WORD_SLOT_OBJECT)) | (swap_word_t)slot << WORD_SLOT_SHIFT |
	       WORD_TAG_SLOT;
}

static inline u32 word_slot_nr(swap_word_t w)
{
	return w >> WORD_SLOT_SHIFT & GENMASK(WORD_SLOT_BITS - 1, 0);
}

/* Does @sum agree with as much of it as the word has room for? */
static inline bool word_sum_is(swap_word_t w, u64 sum)
{
	return ((sum << WORD_SUM_SHIFT ^ w) & WORD_SUM_MASK) == 0;
}

static inline bool word_has_shadow(swap_word_t w)
{
	enum swap_where where = word_where(w);

	return where == SWAP_FILL || where == SWAP_ZPOOL;
}

static inline swap_word_t word_with_shadow(swap_word_t w, unsigned int shadow)
{
	if (!word_has_shadow(w))
		return w;
	return (w & ~WORD_SHADOW_MASK) |
	       ((swap_word_t)shadow << WORD_SHADOW_SHIFT & WORD_SHADOW_MASK);
}

static inline unsigned int word_shadow(swap_word_t w)
{
	return (w & WORD_SHADOW_MASK) >> WORD_SHADOW_SHIFT;
}

#endif
