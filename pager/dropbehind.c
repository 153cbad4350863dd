// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A table of the parts by hash, a word each: 64 KiB for 4 GiB of memory.
 */
#include "dropbehind.h"

#include <stdlib.h>

#include "window.h"

#define PART_SHIFT   18
#define PART_BYTES   (1UL << PART_SHIFT)
#define PARTS_SHIFT  14
#define STREAM_PAGES 16 /* fewer are no stream yet, see ahead() */

/* The word: 24 bits of the hash, what is known. */
#define TAG_MASK     0xffffff00U
#define KNOWN	     1U
#define FROM_TIER    2U
#define WENT_BEHIND  4U
#define PROOFS_SHIFT 3 /* 2 bits: how often oldest first was in vain, 3 at most */
#define ROUNDS_SHIFT 5 /* 3 bits: came back since, having gone behind */
#define ROUNDS_MAX   7U

#define RANGE_PAGES  512

static uint32_t part[1U << PARTS_SHIFT];

static uint32_t *place_of(uint64_t client, uint64_t addr, uint32_t *tag)
{
	uint64_t hash = (addr >> PART_SHIFT ^ client << 32) * HASH_GOLDEN;

	*tag = (uint32_t)(hash >> (32 - PARTS_SHIFT)) & TAG_MASK;
	return &part[hash >> (64 - PARTS_SHIFT)];
}

/* What is known of the part, 0 if nothing. */
static uint32_t known(uint64_t client, uint64_t addr)
{
	uint32_t tag, word = __atomic_load_n(place_of(client, addr, &tag), __ATOMIC_RELAXED);

	return (word & TAG_MASK) == tag ? word & ~TAG_MASK : 0;
}

static void set_known(uint64_t client, uint64_t addr, uint32_t what)
{
	uint32_t tag, *p = place_of(client, addr, &tag);

	__atomic_store_n(p, what ? tag | what : 0, __ATOMIC_RELAXED);
}

static unsigned int proofs(uint32_t what)
{
	return what >> PROOFS_SHIFT & 3;
}

static unsigned int rounds(uint32_t what)
{
	return what >> ROUNDS_SHIFT & ROUNDS_MAX;
}

static bool is_to_go(uint32_t what)
{
	static const unsigned int good_for[] = { 0, 1, 2, ROUNDS_MAX };

	return rounds(what) < good_for[proofs(what)];
}

/* It came in sequence once more. */
static uint32_t came(uint32_t what)
{
	unsigned int p = proofs(what), r = rounds(what);

	if (what & WENT_BEHIND) {
		r += r < ROUNDS_MAX;
	} else {
		p += p < 3;
		r = 0;
	}
	return (what & FROM_TIER) | KNOWN | p << PROOFS_SHIFT | r << ROUNDS_SHIFT;
}

bool dropbehind_note(uint64_t client, uint64_t addr, unsigned int nr, bool from_tier)
{
	uint64_t end = addr + nr * PAGE_SIZE_, at = addr & ~(PART_BYTES - 1);
	bool behind = false;

	for (; at < end; at += PART_BYTES) {
		uint32_t was = known(client, at), what = 0;

		if (nr >= STREAM_PAGES) {
			/* Once in a round: by who brought its beginning. */
			what = at >= addr ? came(was) : was | KNOWN;
			what = (what & ~FROM_TIER) | (from_tier ? FROM_TIER : 0);
		}
		if (what != was)
			set_known(client, at, what);
		behind |= is_to_go(what);
	}
	return behind;
}

bool dropbehind_to_tier(uint64_t client, uint64_t addr)
{
	return known(client, addr) & FROM_TIER;
}

static struct range *nth(const struct behind *b, unsigned int n)
{
	return &b->range[(b->first + n) % BEHIND_RANGES];
}

static void pop(struct behind *b)
{
	b->pages -= (nth(b, 0)->end - nth(b, 0)->start) / PAGE_SIZE_;
	b->first = (b->first + 1) % BEHIND_RANGES;
	b->nr--;
}

/* Bytes of neighbours that are one: several are to be among what is kept. */
static uint64_t longest(const struct behind *b)
{
	uint64_t pages = b->keep / 8;

	return (pages < RANGE_PAGES ? pages : RANGE_PAGES) * PAGE_SIZE_;
}

void behind_add(struct behind *b, struct range r)
{
	struct range *last;

	if (!b->range)
		b->range = calloc(BEHIND_RANGES, sizeof(*b->range));
	if (!b->range)
		return;
	last = b->nr ? nth(b, b->nr - 1) : NULL;
	if (last && last->end == r.start && last->end - last->start < longest(b))
		last->end = r.end;
	else if (b->nr < BEHIND_RANGES)
		*nth(b, b->nr++) = r;
	else
		return;
	b->pages += (r.end - r.start) / PAGE_SIZE_;
	while (b->keep && b->pages > 2 * b->keep)
		pop(b);
}

bool behind_next(const struct behind *b, uint64_t pages, struct range *r)
{
	if (!b->nr || b->pages < b->keep + pages)
		return false;
	*r = *nth(b, 0);
	return true;
}

void behind_went(struct behind *b, uint64_t client, uint64_t end)
{
	struct range *r = nth(b, 0);
	uint64_t at;

	/* Meanwhile it may have been let go, and another be first. */
	if (!b->nr || end <= r->start)
		return;
	if (end > r->end)
		end = r->end;
	at = r->start & ~(PART_BYTES - 1);
	for (; at < end; at += PART_BYTES) {
		uint32_t what = known(client, at);

		if (what)
			set_known(client, at, what | WENT_BEHIND);
	}
	b->pages -= (end - r->start) / PAGE_SIZE_;
	r->start = end;
	if (r->start == r->end)
		pop(b);
}
