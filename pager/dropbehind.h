/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is gone over in sequence and comes from a tier goes back there.
 *
 * A program that goes over more than there is room for, again and again, finds nothing in a
 * cache that gives up the oldest first: each page is gone just before its turn comes, and to
 * compress it on its way through the pool was for nothing.  If what came from a tier passes
 * a full pool by, that keeps what it has, and the next round finds it there.
 *
 * So parts of 256 KiB that readahead brought from a tier are remembered, until one page of
 * theirs is touched by itself, or they come from elsewhere.  It is a hint: two parts may share
 * a place, and the later has it.  No lock.
 */
#ifndef PAGER_DROPBEHIND_H
#define PAGER_DROPBEHIND_H

#include <stdbool.h>
#include <stdint.h>

/* @nr pages from @addr on came in at one go to the client of that id, from a tier or not. */
void dropbehind_note(uint64_t client, uint64_t addr, unsigned int nr, bool from_tier);

/* Is the page of such a part? */
bool dropbehind(uint64_t client, uint64_t addr);

#endif
