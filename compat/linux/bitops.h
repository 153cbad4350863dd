/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bits of unsigned longs: atomic set_bit and friends, and searching.
 */
#ifndef COMPAT_LINUX_BITOPS_H
#define COMPAT_LINUX_BITOPS_H

#include <linux/compiler.h>
#include <linux/types.h>

#define BITS_PER_LONG	  ((int)(8 * sizeof(long)))
#define BITS_PER_BYTE	  8
#define BIT(nr)		  (1UL << (nr))
#define BIT_ULL(nr)	  (1ULL << (nr))
#define GENMASK(h, l)	  ((~0UL << (l)) & (~0UL >> (BITS_PER_LONG - 1 - (h))))
#define GENMASK_ULL(h, l) ((~0ULL << (l)) & (~0ULL >> (63 - (h))))
#define BITS_TO_LONGS(nr) (((nr) + BITS_PER_LONG - 1) / BITS_PER_LONG)

/* The order smp_mb__before_atomic() asks for is always there. */
static inline void set_bit(long nr, volatile unsigned long *p)
{
	__atomic_fetch_or(p + nr / BITS_PER_LONG, 1UL << (nr % BITS_PER_LONG), __ATOMIC_RELEASE);
}

static inline void clear_bit(long nr, volatile unsigned long *p)
{
	__atomic_fetch_and(p + nr / BITS_PER_LONG, ~(1UL << (nr % BITS_PER_LONG)),
			   __ATOMIC_RELEASE);
}

static inline bool test_and_set_bit(long nr, volatile unsigned long *p)
{
	unsigned long bit = 1UL << (nr % BITS_PER_LONG);

	return __atomic_fetch_or(p + nr / BITS_PER_LONG, bit, __ATOMIC_SEQ_CST) & bit;
}

static inline bool test_and_clear_bit(long nr, volatile unsigned long *p)
{
	unsigned long bit = 1UL << (nr % BITS_PER_LONG);

	return __atomic_fetch_and(p + nr / BITS_PER_LONG, ~bit, __ATOMIC_SEQ_CST) & bit;
}

static inline bool test_bit(long nr, const volatile unsigned long *p)
{
	return READ_ONCE(p[nr / BITS_PER_LONG]) >> (nr % BITS_PER_LONG) & 1;
}

static inline void __set_bit(long nr, unsigned long *p)
{
	p[nr / BITS_PER_LONG] |= 1UL << (nr % BITS_PER_LONG);
}

static inline void __clear_bit(long nr, unsigned long *p)
{
	p[nr / BITS_PER_LONG] &= ~(1UL << (nr % BITS_PER_LONG));
}

static inline unsigned long __ffs(unsigned long word)
{
	return (unsigned long)__builtin_ctzl(word);
}

static inline unsigned long __fls(unsigned long word)
{
	return (unsigned long)(BITS_PER_LONG - 1 - __builtin_clzl(word));
}

static inline int fls64(u64 x)
{
	return x ? 64 - __builtin_clzll(x) : 0;
}

static inline unsigned int hweight_long(unsigned long w)
{
	return (unsigned int)__builtin_popcountl(w);
}

/* The first bit of @p at or after @from that is set, @size when none is. */
static inline unsigned long find_next_bit(const unsigned long *p, unsigned long size,
					  unsigned long from)
{
	unsigned long bit;

	while (from < size) {
		unsigned long word = p[from / BITS_PER_LONG] >> (from % BITS_PER_LONG);

		if (word) {
			bit = from + __ffs(word);
			return bit < size ? bit : size;
		}
		from = (from / BITS_PER_LONG + 1) * BITS_PER_LONG;
	}
	return size;
}

static inline unsigned long find_next_zero_bit(const unsigned long *p, unsigned long size,
					       unsigned long from)
{
	unsigned long bit;

	while (from < size) {
		unsigned long word = ~p[from / BITS_PER_LONG] >> (from % BITS_PER_LONG);

		if (word) {
			bit = from + __ffs(word);
			return bit < size ? bit : size;
		}
		from = (from / BITS_PER_LONG + 1) * BITS_PER_LONG;
	}
	return size;
}

static inline unsigned long find_first_bit(const unsigned long *p, unsigned long size)
{
	return find_next_bit(p, size, 0);
}

static inline unsigned long find_first_zero_bit(const unsigned long *p, unsigned long size)
{
	return find_next_zero_bit(p, size, 0);
}

#endif
