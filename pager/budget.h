/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The budget: what --ram covers, and how near its end is.
 *
 * Memory is measured, not computed: resident pages of every client and of
 * vswap itself as the kernel counts them.  Between two samples the pages
 * brought in and taken out are added and subtracted.  What each group has of it
 * is kept the same way (group.h).
 */
#ifndef PAGER_BUDGET_H
#define PAGER_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct client;
struct group;

void budget_init(uint64_t limit);
/* Pages came into, or left, a client of @group since the last sample. */
void budget_charge(struct group *group, int64_t bytes);
/* Measure again.  Returns what is used now, bytes. */
uint64_t budget_sample(void);
/* The last sample and what was charged since. */
uint64_t budget_used(void);
uint64_t budget_limit(void);
/* Another limit from now on, bytes.  What is above a lower one is reclaimed in time. */
void budget_set_limit(uint64_t limit);
/* Asked before a page is brought in for @group; true: not now, and reclaim knows. */
bool budget_spent(struct group *group);

/* The parts of the last sample, for reports. */
struct budget_parts {
	uint64_t used, peak, program, self;
};
void budget_parts(struct budget_parts *parts);

/* ---- reclaim.c ------------------------------------------------------ */

/* Before anything is charged. */
void reclaim_init(void);
int reclaim_start(void);
void reclaim_stop(void);
/* What is used while a limit holds and nothing is asked for, bytes. */
uint64_t reclaim_low_mark(uint64_t limit);

/* The most of @ram bytes that may be compressed pages.  No lock needed. */
uint64_t reclaim_pool_most(uint64_t ram);
/* Of @pool bytes compressed, what should go to a tier before they are at @limit. */
uint64_t reclaim_pool_excess(uint64_t pool, uint64_t limit);
/* Does what goes there push out something else, or soon will? */
bool reclaim_pool_full(uint64_t pool, uint64_t limit);
/*
 * Until told otherwise reclaim until no more than @goal bytes are used, if that is
 * below what the limit asks for.  0: no goal.
 */
void reclaim_set_goal(uint64_t goal);
/* The limit is another, or a tier came or went: the pool's part follows.  Any thread. */
void reclaim_limits_changed(void);
/* Can all that @group is in have @bytes more before anything is reclaimed? */
bool reclaim_has_room(const struct group *group, uint64_t bytes);
/* @client has an agent from now on: near a limit its new threads wait for the first look at it. */
void reclaim_begins(struct client *client);
/* Tell the agent of @client whether fork() is to return in a child only once it has one, too. */
void reclaim_forks(struct client *client);
/* Memory runs short: do not wait for the next look. */
void reclaim_wake(void);
/* Memory came to be shared between clients, or no longer is: see clients_weigh(). */
void reclaim_weigh(void);

#endif
