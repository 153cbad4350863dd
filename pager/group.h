/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Groups: whose memory it is, how much of it they may have, and who gives when
 * memory is short.
 *
 * Groups nest by name ("batch/nightly" is in "batch"); all are in the root,
 * which stands for the space and whose limit is --ram.  What a group uses is what
 * its programs have resident, its frames and its part of the pool, those of the
 * groups in it included.  A group's share is what it keeps while others in the
 * same parent are above theirs: its ram limit if it has one, else an equal part
 * of what the parent has; if shares sum up to more than the parent has, all
 * shrink in proportion.  Of its share no more than half may be in the pool, or
 * it would have nothing left to run in (without a tier, where else?: 7/8).
 *
 * Limits on the pool, on slots, the tiers to use and the mode are kept by the
 * core's own group behind each.
 */
#ifndef PAGER_GROUP_H
#define PAGER_GROUP_H

#include <linux/list.h>
#include <stdbool.h>
#include <stdint.h>

struct swap_group;
struct swap_group_stat;

#define GROUP_MAX      128 /* the root and those removed but not empty included */
#define GROUP_NAME     128 /* with its NUL */
#define GROUP_DEPTH    8
#define GROUP_NO_LIMIT UINT64_MAX
/* The least ram limit a group can work with, bytes. */
#define GROUP_MIN_RAM (8ULL << 20)

struct group_limits {
	uint64_t ram, pool, swap; /* bytes or GROUP_NO_LIMIT */
	uint32_t tiers;		  /* a bit for each tier, by swap_tier_stat.nr */
	bool direct;		  /* bypass the pool */
};

/* Counted for a group and those it is in. */
enum group_event {
	GROUP_FAULT,
	GROUP_REFAULT,
	GROUP_PGSTEAL,
	GROUP_OVER, /* went over its ram limit */
	NR_GROUP_EVENTS,
};

/*
 * One group.  Members are read anywhere by atomic loads.  A struct is used again
 * only when nobody refers to it, but its memory never goes away.
 */
struct group {
	char name[GROUP_NAME]; /* "" is the root */
	struct group *parent;
	struct swap_group *swap; /* NULL: the root's */
	unsigned int ref;	 /* its jobs, and who has just looked it up; atomic */
	bool live;		 /* found by name; atomic */
	bool buried;		 /* its place is free; the lock */
	struct group_limits limit;
	int64_t resident;	/* bytes: the last sample and what was charged since */
	uint64_t frames;	/* in use */
	uint64_t pool;		/* bytes, at the last sample */
	uint64_t peak;		/* bytes, of all it uses */
	uint64_t share;		/* bytes */
	uint64_t own_share;	/* ... of its own clients, beside the groups in it */
	struct list_head queue; /* its frames in order of eviction; frame.c's lock */
	unsigned int queued;
	unsigned int spared; /* pages, less those that compressed since, see may_spare() */
	uint64_t count[NR_GROUP_EVENTS];
	bool over; /* its ram limit, at the last sample */
	/* reclaim's */
	uint64_t hungry_ns; /* when a fault was last turned away for its limit; atomic */
	uint64_t looked_ns; /* when it was last looked at and was short */
	uint64_t stuck_ns;  /* since when it is short and gets nowhere, or 0 */
	uint64_t stuck_used, stuck_faults; /* how far it was then */
	int64_t stuck_put; /* pages put elsewhere since, less those no store would have */
	uint64_t full_ns;  /* since when it is short, for the next two, or 0 */
	uint64_t full_gone, full_back; /* pages taken out since, and of those put back */
	uint64_t fruitless;	       /* pages taken out since there was progress */
	bool said_full;
	bool dry;     /* its own clients gave nothing in this round */
	bool stalled; /* ... because one of them does not answer */
};

/* The root comes first; before any other call. */
void groups_init(void);
struct group *group_root(void);
void group_get(struct group *g);
void group_put(struct group *g);

/* NULL, or why @name cannot be a group's: "why (what to do)". */
const char *group_name_check(const char *name);
/* The group of that name with a reference, or NULL. */
struct group *group_find(const char *name);
/*
 * The same; makes it, and the groups it is in, where there is none.  -ENOSPC:
 * too many groups, -ENOMEM; nothing was made then.
 */
int group_make(const char *name, struct group **group);
/* -ENOENT, -EBUSY: programs run in it, -ENOTEMPTY: groups are in it. */
int group_remove(const char *name);
/* Set all of its limits; checked by the caller. */
void group_set(struct group *g, const struct group_limits *limit);

/*
 * All there are: the root, then the next of each; no order, no reference.  And by
 * number, also those removed that are not empty yet, NULL past the last.
 */
struct group *group_next(struct group *g);
struct group *group_nth(unsigned int i);
unsigned int group_index(const struct group *g);
/* More than the root? */
bool groups_any(void);
/* Is @g in @top, or the same? */
bool group_is_in(const struct group *g, const struct group *top);

/* Bytes used and allowed; of the root, all of the space. */
uint64_t group_used(const struct group *g);
uint64_t group_ram(const struct group *g);
/* Pages came into, or left, the programs of @g; not of the root: that is budget_charge()'s. */
void group_add_resident(struct group *g, int64_t bytes);
void group_add_frames(struct group *g, int frames);
void group_count(struct group *g, enum group_event event, uint64_t n);
/* Resident bytes of all groups as just measured, by number; @twice: what of it may count twice. */
void groups_sampled(const uint64_t resident[GROUP_MAX], const uint64_t twice[GROUP_MAX]);
/*
 * May a page come in?  A group over its limit waits; one below its share may go on
 * a little above the limit of the groups it is in, while others are made to give.
 */
bool group_spent(struct group *g);
/* What the core counts for it.  False: the root, or it was removed. */
bool group_swap_stat(const struct group *g, struct swap_group_stat *stat);
/* Has one nearly reached its limit in the pool? */
bool groups_pool_full(void);
/* Has @g, or one it is in, seven eighths of its limit there? */
bool group_pool_full(const struct group *g);
/* Then write the oldest of its pages there to a tier.  Sleeps. */
void groups_writeback(void);
/* At least @bytes of the oldest pages of @g in the pool; as swap_writeback(). */
uint64_t group_writeback(struct group *g, uint64_t bytes);
/* Work out the shares anew, @overhead bytes being nobody's. */
void groups_share(uint64_t overhead);
/*
 * Whose own clients shall give for @top: the one most above its share, and never
 * one below while another is above.  NULL: all that may be asked are dry.
 */
struct group *group_victim(struct group *top);

/* Is somebody in @g, asked in this round, who does not answer? */
bool group_stalled(const struct group *g);

#endif
