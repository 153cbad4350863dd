/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Runs of bits.
 */
#ifndef COMPAT_LINUX_BITMAP_H
#define COMPAT_LINUX_BITMAP_H

#include <string.h>

#include <linux/bitops.h>

#define DECLARE_BITMAP(name, bits) unsigned long name[BITS_TO_LONGS(bits)]

static inline void bitmap_zero(unsigned long *p, unsigned int nbits)
{
	memset(p, 0, (size_t)BITS_TO_LONGS(nbits) * sizeof(long));
}

static inline void bitmap_set(unsigned long *p, unsigned int start, unsigned int nr)
{
	while (nr--)
		__set_bit(start++, p);
}

static inline void bitmap_clear(unsigned long *p, unsigned int start, unsigned int nr)
{
	while (nr--)
		__clear_bit(start++, p);
}

/* The first of @nr zero bits in a row at or after @start; past @size when there are none. */
static inline unsigned long bitmap_find_next_zero_area(const unsigned long *p, unsigned long size,
						       unsigned long start, unsigned int nr,
						       unsigned long align_mask)
{
	unsigned long end;

	for (;;) {
		start = (find_next_zero_bit(p, size, start) + align_mask) & ~align_mask;
		if (start + nr > size)
			return size + 1;
		end = find_next_bit(p, start + nr, start);
		if (end >= start + nr)
			return start;
		start = end + 1;
	}
}

static inline unsigned int bitmap_weight(const unsigned long *p, unsigned int nbits)
{
	unsigned int i, n = 0;

	for (i = 0; i < nbits / BITS_PER_LONG; i++)
		n += hweight_long(p[i]);
	if (nbits % BITS_PER_LONG)
		n += hweight_long(p[i] & ~(~0UL << (nbits % BITS_PER_LONG)));
	return n;
}

#endif
