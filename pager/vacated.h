/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses given to something else before we heard that they were left.
 *
 * The kernel posts UNMAP and REMAP when the change is made and its lock given back, and
 * one mremap() posts up to three: what was at its target is unmapped, it has moved, its
 * old place is unmapped, each when the one before was read.  Meanwhile another thread's
 * mremap() may have got that place, and its REMAP be read first.  Taken in order of
 * arrival, the late one would be applied to pages it is not about: they would be lost.
 *
 * So a range is kept here from the time it is known to have been left, be it that what
 * was there has moved, or that something else came, until an event says so.  What of
 * it is swapped out and was not moved yet is kept with it.  That event takes it from here,
 * and has nothing to do with what is there by now.
 *
 * A client has two of these: of what something else has come to, which an UNMAP or a REMAP
 * will tell of, and of what has moved, for which only the UNMAP is to come.  A REMAP from
 * such a range is about what came there since.
 *
 * MREMAP_DONTUNMAP leaves a range for which no event comes.  But the kernel refuses to
 * copy pages from the beginning of a change until its last event was read: when it does
 * copy, nothing is due any more.
 *
 * The caller holds the client's state lock.
 */
#ifndef PAGER_VACATED_H
#define PAGER_VACATED_H

#include <stdbool.h>
#include <stdint.h>

#include "../core/swap.h"
#include "drop.h"

struct vacated_page {
	uint64_t addr;
	vswp_entry_t entry;
};

struct vacated {
	struct range *range; /* disjoint */
	unsigned int nr, max;
	struct vacated_page *page; /* each in one of them */
	unsigned int pages, max_pages;
};

/* [start, end) was left, none of it is here yet.  0 or -ENOMEM. */
int vacated_add(struct vacated *v, uint64_t start, uint64_t end);
/* The page at @addr, in a range that is here, is swapped out as @entry.  0 or -ENOMEM. */
int vacated_keep(struct vacated *v, uint64_t addr, vswp_entry_t entry);
/*
 * How far does it go from @start in the same way, up to @end?  *here: as a range that
 * is here, else as one that is not.
 */
uint64_t vacated_part(const struct vacated *v, uint64_t start, uint64_t end, bool *here);
/* The first page in [start, end), or @end. */
uint64_t vacated_next(const struct vacated *v, uint64_t start, uint64_t end);
/* A page in [start, end), which is not here any more: its entry is the caller's.  False: none. */
bool vacated_take(struct vacated *v, uint64_t start, uint64_t end, struct vacated_page *page);
/* An event has told of [start, end), and no page of it is left.  0 or -ENOMEM. */
int vacated_forget(struct vacated *v, uint64_t start, uint64_t end);
/* No page may be left. */
void vacated_destroy(struct vacated *v);

#endif
