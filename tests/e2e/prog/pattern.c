/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Contents that follow from a page's number and version.
 *
 * One page in eight is a repeated word (half of those zero), the rest repeat a
 * block of 256 bytes and compress well, or, with args.hard, half of all are
 * noise.  Repeats carry their position, so pieces put in a wrong place show.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmtest.h"

#define BLOCK_WORDS 32

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15;
	x ^= x >> 29;
	x *= 0xd1342543de82ef95;
	x ^= x >> 32;
	return x;
}

void rng_init(struct rng *rng, uint64_t seed)
{
	rng->state = mix(seed + 0x632be59bd9b4e019);
}

uint64_t rng_next(struct rng *rng)
{
	rng->state += 0x9e3779b97f4a7c15;
	return mix(rng->state);
}

uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)rng_next(rng) * n) >> 64);
}

void page_fill(void *page, uint64_t id, uint32_t version)
{
	uint64_t base = mix(mix(id + args.seed) ^ ((uint64_t)version << 20));
	uint64_t *word = page;
	unsigned int kind = base >> 61;
	unsigned int i;

	if (kind == 0) {
		uint64_t fill = base & 1 ? 0 : mix(base);

		for (i = 0; i < PAGE_WORDS; i++)
			word[i] = fill;
	} else if (args.hard && kind <= 4) {
		for (i = 0; i < PAGE_WORDS; i++)
			word[i] = mix(base + i);
	} else {
		for (i = 0; i < BLOCK_WORDS; i++)
			word[i] = mix(base + i);
		for (; i < PAGE_WORDS; i++)
			word[i] = word[i % BLOCK_WORDS];
		for (i = 0; i < PAGE_WORDS; i += BLOCK_WORDS)
			word[i] += i;
	}
}

static bool page_matches(const void *page, uint64_t id, uint32_t version)
{
	uint64_t want[PAGE_WORDS];

	page_fill(want, id, version);
	return !memcmp(page, want, PAGE);
}

/* What wrong bytes look like, to tell one kind of failure from another. */
static const char *likeness(const void *have, unsigned int bad, uint64_t id, uint32_t version)
{
	if (!bad)
		return " (only at first sight)";
	if (page_is_zero(have))
		return " (all zero)";
	if (version && page_matches(have, id, version - 1))
		return " (one version old)";
	return "";
}

/* Says on stderr what is wrong with a page, if anything.  Whether it is right. */
bool page_right(const void *page, uint64_t id, uint32_t version)
{
	uint64_t want[PAGE_WORDS], have[PAGE_WORDS];
	unsigned int i, bad = 0, first = 0;

	page_fill(want, id, version);
	if (!memcmp(page, want, PAGE))
		return true;
	memcpy(have, page, PAGE);
	for (i = PAGE_WORDS; i--;) {
		if (have[i] != want[i]) {
			bad++;
			first = i;
		}
	}
	fprintf(stderr,
		"WRONG BYTES: page %#" PRIx64
		" at %p version %u: %u words differ, word %u is %#" PRIx64 ", not %#" PRIx64 "%s\n",
		id, page, version, bad, first, have[first], want[first],
		likeness(have, bad, id, version));
	return false;
}

void page_check(const void *page, uint64_t id, uint32_t version)
{
	if (!page_right(page, id, version))
		fail("wrong bytes");
}

bool page_is_zero(const void *page)
{
	const uint64_t *word = page;
	uint64_t any = 0;
	unsigned int i;

	for (i = 0; i < PAGE_WORDS; i++)
		any |= word[i];
	return !any;
}

void page_check_zero(const void *page, uint64_t id)
{
	if (!page_is_zero(page))
		fail("WRONG BYTES: page %#" PRIx64 " at %p is not zero", id, page);
}

void range_fill(void *mem, size_t nr, uint64_t id, uint32_t version)
{
	size_t i;

	for (i = 0; i < nr; i++)
		page_fill((char *)mem + i * PAGE, id + i, version);
}

void range_check(const void *mem, size_t nr, uint64_t id, uint32_t version)
{
	size_t i;

	for (i = 0; i < nr; i++)
		page_check((const char *)mem + i * PAGE, id + i, version);
}

void range_check_zero(const void *mem, size_t nr, uint64_t id)
{
	size_t i;

	for (i = 0; i < nr; i++)
		page_check_zero((const char *)mem + i * PAGE, id + i);
}
