/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tiers inside core: which slots of which store are taken.
 *
 * Slots of all tiers are numbered together: a tier has a range of clusters,
 * cluster << 9 | offset is the slot as a word holds it, and cluster 0 is none.
 * Like a virtual cluster, a tier's cluster exists while a slot of it is taken.
 *
 * A batch of pages gets slots in ascending order, out of the tier's current
 * cluster, so that it leaves in one large write.  A cluster is gone through once,
 * holes made meanwhile are left for another time.  The next cluster is one never
 * or no longer used while at least half of the tier's slots in clusters are
 * taken, else the one that has been partly free for longest.
 */
#ifndef CORE_TIER_H
#define CORE_TIER_H

#include <linux/atomic.h>
#include <linux/rcupdate.h>

#include "group.h"
#include "space.h"
#include "table.h"

enum tier_cluster_state {
	TIER_CURRENT, /* tier->current; on no list */
	TIER_PARTIAL, /* on tier->partial */
	TIER_FULL,    /* on no list */
	TIER_LEAVING, /* swap_demote() is emptying it; on no list */
	TIER_EMPTY,   /* on tier->empty: to be used again or discarded; or on tier->parked */
	TIER_DEAD,
};

/* state and list are guarded by space->tier_lock (state is read without, too), the rest by lock. */
struct tier_cluster {
	spinlock_t lock;
	u32 nr;	   /* its number among all; constant */
	u32 clock; /* eviction clock of the newest that went there: their shadow */
	u16 used;
	u16 next; /* while current: slots are taken from here on, upwards only */
	u8 state;
	struct swap_tier *tier; /* constant */
	union {
		struct list_head list;
		struct rcu_head rcu;
	};
	unsigned long taken[BITS_TO_LONGS(SWAP_CLUSTER_SLOTS)];
};

/* Guarded by space->tier_lock but for constants and atomics. */
struct swap_tier {
	struct swap_space *space;
	const char *name;
	const struct swap_tier_ops *ops;
	void *priv;
	u64 nr_slots;
	int prio;
	unsigned int nr;	     /* lowest that no other had when it came */
	unsigned int rest;	     /* see demote.c; under tier_mutex */
	unsigned long turn;	     /* when it last went through a cluster; the lowest is next */
	u32 first;		     /* its first cluster */
	struct swap_map_range range; /* guarded by space->tier_map.lock */

	bool draining;	     /* swapoff is at work; read without the lock, too */
	bool failed;	     /* a write failed: only reads from now on */
	bool full;	     /* it said ENOSPC, and not much has happened since */
	bool was_full;	     /* ... and the user was told */
	int freed;	     /* slots given back since, and not for want of room */
	unsigned int passed; /* pages that went elsewhere since */
	struct tier_cluster *current_cluster;
	struct list_head partial; /* longest partial first */
	struct list_head empty;
	struct list_head parked; /* a discard may still come: not to be used; under tier_mutex */
	u32 nr_clusters;

	atomic_long_t used;
	atomic64_t bytes_written, bytes_read;
};

static inline u64 tier_local(const struct swap_tier *tier, u32 slot)
{
	return slot - ((u64)tier->first << SWAP_CLUSTER_SHIFT);
}

static inline bool tier_has(const struct swap_tier *tier, swap_word_t w)
{
	u32 nr = word_slot_nr(w) >> SWAP_CLUSTER_SHIFT;

	return word_where(w) == SWAP_SLOT && nr >= tier->first && nr < tier->range.end;
}

/* The tier of a slot the caller holds taken. */
struct swap_tier *tier_of(struct swap_space *space, u32 slot);
/* The eviction clock kept for a slot; false when it is not taken any more. */
bool tier_clock(struct swap_space *space, u32 slot, unsigned int *clock);

/* What slots are wanted for. */
struct tier_want {
	struct swap_group *group; /* is charged, and its mask says which tiers */
	struct swap_tier *only;	  /* of this one, or NULL */
	struct swap_tier *below;  /* of those of lower priority than this one, or NULL */
	unsigned int clock;	  /* when what goes there was evicted */
	bool run;		  /* all in a row if the tier has them so */
	bool over;		  /* they take the place of others: no limit counts */
};

/*
 * Take up to @nr (<= SWAP_CLUSTER_SLOTS) slots of one tier, the first that may be
 * and has any; of equal priorities the one whose turn it is.  Returns how many,
 * ascending, in @slots, and the tier in *@tier.  Never sleeps.
 */
unsigned int tier_alloc(struct swap_space *space, const struct tier_want *want, unsigned int nr,
			u32 *slots, struct swap_tier **tier);
/*
 * Give slots of one cluster back; the group is no more charged for them already.
 * Never sleeps; a cluster lock may be held.
 */
void tier_free(struct swap_space *space, u32 slot, unsigned int nr);
/* A slot nobody has named yet, and what @group was charged for it. */
void tier_give_back(struct swap_space *space, struct swap_group *group, u32 slot);
/* May what is in a slot the caller holds taken be written over? */
bool tier_slot_stays(struct swap_space *space, u32 slot);
/* A locked cluster that is on no list goes where it belongs.  Under tier_lock. */
void tier_cluster_place(struct swap_tier *tier, struct tier_cluster *tc);
/*
 * Have room in each tier but the slowest: when one is nearly full its oldest go to
 * the next.  Sleeps; no lock is held.
 */
void demote_ahead(struct swap_space *space);
/*
 * What can be moved without anybody's help out of a draining tier, in order of slots:
 * objects to the pool, and what does not go there to other tiers.  @go_on, if not
 * NULL, is asked between batches with the number of slots left; false: it was told to
 * stop.  What is left is somebody's in the cache, damaged, or has nowhere to go.
 * Under tier_mutex.
 */
bool demote_drain(struct swap_space *space, struct swap_tier *tier,
		  bool (*go_on)(void *priv, u64 left), void *priv);
/* Tiers that seem to have room, a bit for each by number. */
u32 tier_room(struct swap_space *space);
/* Tell the stores of clusters that nobody needs any more.  Sleeps; no lock is held. */
void tier_discard(struct swap_space *space);

/*
 * One batch of the tier's own slots to or from the store; io[].error is set for
 * each.  Counts, and marks the tier after write errors.  Sleeps.
 */
void tier_write(struct swap_tier *tier, struct swap_io *io, unsigned int nr);
void tier_read(struct swap_tier *tier, struct swap_io *io, unsigned int nr);

/* A tier that is empty and draining, or whose space is going: forget it. */
void tier_remove(struct swap_space *space, struct swap_tier *tier);

/* Freed slots on their way back, so that a run of them goes at one go. */
struct tier_run {
	u32 slot;
	unsigned int nr;
};

static inline void tier_run_flush(struct swap_space *space, struct tier_run *run)
{
	if (run->nr)
		tier_free(space, run->slot, run->nr);
	run->nr = 0;
}

static inline void tier_run_add(struct swap_space *space, struct tier_run *run, u32 slot)
{
	if (run->nr && (slot != run->slot + run->nr || slot % SWAP_CLUSTER_SLOTS == 0))
		tier_run_flush(space, run);
	if (!run->nr)
		run->slot = slot;
	run->nr++;
}

/*
 * Give up what a word without owner stands for, of an entry of group number
 * @group.  Some entry of the group is still in use, or its cluster is locked.
 * Inline, for many a word has nothing to be given up.
 */
static __always_inline void backing_free(struct swap_space *space, u32 group, swap_word_t w,
					 struct tier_run *run)
{
	switch (word_where(w)) {
	case SWAP_ZPOOL:
		group_uncharge(space_group(space, group), GROUP_POOL,
			       zpool_free(space->pool, word_zpool_addr(w)));
		break;
	case SWAP_SLOT:
		group_uncharge(space_group(space, group), GROUP_SWAP, 1);
		tier_run_add(space, run, word_slot_nr(w));
		break;
	default:
		break;
	}
}

#endif
