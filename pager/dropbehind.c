// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A table of the parts by hash, each a tag, or 0: 64 KiB for 4 GiB of memory.
 */
#include "dropbehind.h"

#include "window.h"

#define PART_SHIFT   18
#define PARTS_SHIFT  14
#define STREAM_PAGES 16 /* fewer are no stream yet, see ahead() */

#define HASH_GOLDEN  0x61c8864680b583ebULL /* as hash_64() of Linux has it */

static uint32_t part[1U << PARTS_SHIFT];

/* Where the part of @addr is remembered, and by what; never 0. */
static uint32_t *part_of(uint64_t client, uint64_t addr, uint32_t *tag)
{
	uint64_t hash = (addr >> PART_SHIFT ^ client << 32) * HASH_GOLDEN;

	*tag = (uint32_t)(hash >> (32 - PARTS_SHIFT)) | 1;
	return &part[hash >> (64 - PARTS_SHIFT)];
}

void dropbehind_note(uint64_t client, uint64_t addr, unsigned int nr, bool from_tier)
{
	uint64_t end = addr + nr * PAGE_SIZE_;

	from_tier = from_tier && nr >= STREAM_PAGES;
	for (; addr < end; addr = ((addr >> PART_SHIFT) + 1) << PART_SHIFT) {
		uint32_t tag, *p = part_of(client, addr, &tag);
		bool is = __atomic_load_n(p, __ATOMIC_RELAXED) == tag;

		if (is != from_tier)
			__atomic_store_n(p, from_tier ? tag : 0, __ATOMIC_RELAXED);
	}
}

bool dropbehind(uint64_t client, uint64_t addr)
{
	uint32_t tag, *p = part_of(client, addr, &tag);

	return __atomic_load_n(p, __ATOMIC_RELAXED) == tag;
}
