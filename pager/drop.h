/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose REMOVE event is it?
 *
 * A copying agent drops pages by MADV_DONTNEED, and waits until the events of that
 * were read.  They come one for each mapping the range reaches over, in ascending
 * order, each from where the last one ended, and as long as range and mapping allow.
 * A MADV_DONTNEED of the program's in the same place looks alike, and may be read
 * first.  Taking the agent's event for the program's loses pages, so they are told
 * apart by what holds for both: of two with the same start the longer one is the
 * agent's, for the kernel cuts both at the same mappings.  Of two equal ones it does
 * not matter which is taken for which.
 *
 * Where the program unmaps some of the range meanwhile the agent has one event more: it
 * goes on behind that, where it was before or further on than its last one ended.  Such
 * an event may be read before the one that tells of the hole; that it met one the agent
 * hears from the kernel at the end.  So what does not fit is taken for the program's at
 * first, but not followed before it is known.
 *
 * Where the program splits a mapping meanwhile, by mprotect(2) for one, the kernel drops
 * only what is left of it, and since Linux 6.17 tells of the rest again.  The agent stands
 * before the first page of what it has told of that is still there then.  (Before, the
 * kernel forgets about the rest, and the agent finds that it has stayed.)
 */
#ifndef PAGER_DROP_H
#define PAGER_DROP_H

#include <stdbool.h>
#include <stdint.h>

#include "../agent/wire.h"

#define DROP_EVENTS CHUNK_PAGES /* a mapping has a page at least */

struct range {
	uint64_t start, end;
};

struct drop {
	uint32_t number; /* of the agent's drop; 0 never is */
	struct range range;
	struct range own[DROP_EVENTS]; /* events taken for the agent's so far */
	unsigned int nr;
	/* Other events within the range, and what was unmapped or moved away. */
	struct range other[DROP_EVENTS], hole[DROP_EVENTS];
	unsigned int nr_others, nr_holes;
	bool forgot; /* there were more */
	bool unsure; /* one may have been the agent's or not */
};

/* It is about drop @number, of @range, from now on, if it was about another. */
void drop_begin(struct drop *d, uint32_t number, struct range range);
/* Were all of the agent's events seen, unless it met a hole? */
bool drop_seen(const struct drop *d);
/* What the last event taken for the agent's is about; empty: there was none. */
struct range drop_last(const struct drop *d);
/*
 * REMOVE of [start, end) was read.  @there: the first page of drop_last() that was there
 * before, or its end.  True: it is taken for the agent's.  Those that were before, and
 * turn out to be the program's, go to @others, up to DROP_EVENTS of them, *@nr_others in
 * number.
 */
bool drop_is_own(struct drop *d, struct range event, uint64_t there, struct range *others,
		 unsigned int *nr_others);
/* The program has unmapped @hole, or moved it away. */
void drop_has_hole(struct drop *d, struct range hole);
/*
 * The drop is over, and the kernel met a hole.  Those events that were the agent's all the
 * same go to @own, up to DROP_EVENTS of them, *@nr_own in number.  False: that cannot be told.
 */
bool drop_over_hole(const struct drop *d, struct range *own, unsigned int *nr_own);

#endif
