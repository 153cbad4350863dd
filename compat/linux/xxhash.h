/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's xxh32() and xxh64() over the xxHash library, inlined.
 */
#ifndef COMPAT_LINUX_XXHASH_H
#define COMPAT_LINUX_XXHASH_H

#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint32_t xxh32(const void *input, size_t length, uint32_t seed)
{
	return XXH32(input, length, seed);
}

static inline uint64_t xxh64(const void *input, size_t length, uint64_t seed)
{
	return XXH64(input, length, seed);
}

#endif
