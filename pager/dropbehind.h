/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is gone over in sequence, again and again, goes right behind.
 *
 * A program that goes over more than there is room for finds nothing in a memory that gives
 * up the oldest first: each page is gone just before its turn comes.  If the last one used
 * goes instead, the others are there in the next round.  That is wrong for what is used
 * again soon, which nobody can see.  So parts of 256 KiB are remembered that readahead has
 * brought: that it had to is proof that oldest first was in vain.  On the first proof the
 * part goes right behind for one round, when a thirty-second of the memory has come after
 * it; then it stays, and if that is in vain again, it is for two rounds, and after the third
 * for seven each.  When one page of it is touched by itself all that is forgotten.
 *
 * In the same way what readahead brought from a tier goes back there, past a full pool, for
 * to be compressed on the way would be for nothing, and the pool keeps what it has for the
 * next round.
 *
 * Parts are hints: two may share a place, and the later has it.  They need no lock; of what
 * is to go, in order (struct behind), the client's state lock.
 */
#ifndef PAGER_DROPBEHIND_H
#define PAGER_DROPBEHIND_H

#include <stdbool.h>
#include <stdint.h>

#include "drop.h"

#define BEHIND_RANGES 1024

/* In the order they came, oldest first; no longer than BEHIND_RANGES. */
struct behind {
	struct range *range; /* or NULL: none yet */
	unsigned int first, nr;
	uint64_t pages;
	uint64_t keep; /* pages that are not gone behind yet */
};

/*
 * @nr pages from @addr on came in at one go to the client of that id, from a tier or not.
 * Are they to go right behind?
 */
bool dropbehind_note(uint64_t client, uint64_t addr, unsigned int nr, bool from_tier);
/* Is the page of a part that came from a tier? */
bool dropbehind_to_tier(uint64_t client, uint64_t addr);

/*
 * These are to go.  Where there is no memory or no place for them they go as any others, as
 * do the oldest, when there is twice what is kept: something else went in their place, and
 * oldest first would be all there is again.
 */
void behind_add(struct behind *b, struct range r);
/* The next, if what is kept and @pages more came since. */
bool behind_next(const struct behind *b, uint64_t pages, struct range *r);
/* That, up to @end, is dealt with for the client of that id. */
void behind_went(struct behind *b, uint64_t client, uint64_t end);

#endif
