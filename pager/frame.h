/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames: the memory of the swap cache.
 *
 * A frame is one page of the memory shared with the agents and the folio that
 * stands for it in the core.  Evicted pages rest here, uncompressed and in
 * order of eviction for each group, until they are touched again (which proves them hot, and
 * is cheap) or their turn to be compressed comes.
 */
#ifndef PAGER_FRAME_H
#define PAGER_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "../core/swap.h"

struct group;

struct frame {
	struct swap_folio folio;
	struct group *group; /* whose page it was; counted there while in use */
	uint64_t client;     /* id of the one whose page it was */
	uint64_t addr;
	bool touched; /* it has memory; frame.c's */
};

/* Make @nr frames.  Returns 0 or -errno. */
int frames_init(unsigned int nr);
/* Their memory, for agents to map all of it: more of them may be used later than now. */
int frames_fd(void);
uint64_t frames_bytes(void);

/* A frame for @group with one reference, or NULL when all are in use. */
struct frame *frame_alloc(struct group *group);
unsigned int frame_number(const struct frame *frame);
/* To the young end of the order of eviction; takes over the caller's reference. */
void frame_queue(struct frame *frame);
/*
 * The oldest one of @group (NULL: of whichever has most) off its queue, with its
 * reference, or NULL.
 */
struct frame *frame_dequeue(struct group *group);
/* Off the queue if on it, its reference dropped: it was touched or freed. */
void frame_forget(struct frame *frame);
/* Is this folio a frame's (and not a buffer of a fault server)? */
bool folio_is_frame(const struct swap_folio *folio);

/* How many a budget, or a group's limit, of @bytes should have. */
unsigned int frames_for(uint64_t bytes);
unsigned int frames_free(void);
/* Those that may be used. */
unsigned int frames_total(void);
/*
 * Use no more than @nr from now on, or again up to as many as were made.  What is in
 * use stays so; frames_trim() gives the memory back of those that came back since.
 */
void frames_resize(unsigned int nr);
void frames_trim(void);
/* Frames that hold memory. */
unsigned int frames_touched(void);

#endif
