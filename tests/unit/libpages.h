/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pages with contents that can be made again from a number, for tests of the library.
 */
#ifndef TESTS_UNIT_LIBPAGES_H
#define TESTS_UNIT_LIBPAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <vswap.h>

#define PAGE VSWAP_PAGE_SIZE
#define MIB  (1UL << 20)

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ULL;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ULL;
	return x ^ x >> 32;
}

static inline uint64_t word(uint64_t id, unsigned int i)
{
	switch (id % 5) {
	case 0:
		return 0;
	case 1:
		return id; /* one word over and over */
	case 2:
		return mix(id << 12 ^ i); /* nothing to compress */
	default:
		return mix(id << 12 ^ i / 8) & 0xffff0000ffffULL;
	}
}

static inline void fill(void *page, uint64_t id)
{
	for (unsigned int i = 0; i < PAGE / 8; i++) {
		uint64_t w = word(id, i);

		memcpy((char *)page + 8 * i, &w, 8);
	}
}

static inline bool holds(const void *page, uint64_t id)
{
	uint64_t w;

	for (unsigned int i = 0; i < PAGE / 8; i++) {
		memcpy(&w, (const char *)page + 8 * i, 8);
		if (w != word(id, i))
			return false;
	}
	return true;
}

#endif
