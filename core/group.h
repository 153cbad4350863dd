/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Groups inside core: who is charged for a backing.
 *
 * A cluster serves one group, so the group of an entry is found by the entry's
 * number and no slot pays for it.  What a backing takes, bytes in the pool or a
 * slot of a tier, is charged before it is taken, to the group and all it is in,
 * and taken off where the backing is freed.  Charges are atomics, no lock is
 * taken; a group is there as long as an entry of it is in use, or it is pinned.
 */
#ifndef CORE_GROUP_H
#define CORE_GROUP_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#include "space.h"

enum group_what {
	GROUP_POOL, /* bytes, as zpool_object_bytes() counts them */
	GROUP_SWAP, /* slots of tiers */
	NR_GROUP_COUNTERS,
};

struct group_counter {
	atomic_long_t used;
	atomic_long_t peak;
	atomic_long_t events; /* charges refused for this group's own limit */
	u64 limit;
};

/* Each CPU's current cluster, by number: a hint, checked under the cluster's lock. */
struct swap_group_cpu {
	u32 current_nr[SWAP_MAX_ORDER + 1];
};

struct swap_group {
	struct swap_space *space;
	struct swap_group *parent; /* NULL: the root */
	u32 nr;			   /* in space->groups */
	atomic_t pins;		   /* by who works on its entries and does not own them */
	struct swap_group_cpu __percpu *cpu;
	spinlock_t lock; /* guards the lists and states of its clusters */
	struct list_head nonfull[SWAP_MAX_ORDER + 1];
	struct list_head frag[SWAP_MAX_ORDER + 1];
	/* limits are set at any time and read without a lock */
	u32 tiers;
	bool direct;
	u64 pool_low;
	struct group_counter counter[NR_GROUP_COUNTERS];
};

/* The group of that number, which has an entry in use, or the caller is in an RCU section. */
static inline struct swap_group *space_group(struct swap_space *space, u32 nr)
{
	struct swap_group *group;

	rcu_read_lock();
	group = map_get(&space->groups, nr);
	rcu_read_unlock();
	return group;
}

/*
 * It stays while pinned, with all that is needed to give entries back, but its owners
 * may give up any of them.  The caller has a cluster locked in which one is in use: so
 * nobody pins a group that is being destroyed.
 */
static inline void group_pin(struct swap_group *group)
{
	atomic_inc(&group->pins);
}

static inline void group_unpin(struct swap_group *group)
{
	/* What was read of it was read before: see swap_group_destroy(). */
	atomic_dec_return_release(&group->pins);
}

/*
 * swap_cache_add_folio() for somebody who has no part in the entry, which may lose its
 * last owner while the folio is there: its group is pinned until the caller has taken
 * the folio out and unpins it.
 */
int cache_add_folio_pinned(struct swap_space *space, vswp_entry_t entry, struct swap_folio *folio,
			   struct swap_group **group);

/*
 * Charge @nr, or as many as the limits leave, if that is @least or more.  Returns
 * how many were charged.
 */
unsigned long group_charge(struct swap_group *group, enum group_what what, unsigned long nr,
			   unsigned long least);
/* Whatever the limits are: for a backing that takes the place of another. */
void group_charge_over(struct swap_group *group, enum group_what what, unsigned long nr);
void group_uncharge(struct swap_group *group, enum group_what what, unsigned long nr);
/* The lowest of @group and those it is in that has no room for @nr more, or NULL. */
struct swap_group *group_over(struct swap_group *group, enum group_what what, unsigned long nr);
/* Which tiers it may use: its own mask and those of all it is in. */
u32 group_tiers(const struct swap_group *group);
/* Do its pages bypass the pool? */
bool group_is_direct(const struct swap_group *group);
/* Is it in @top, or the same? */
bool group_within(const struct swap_group *group, const struct swap_group *top);
/* Has it, or one it is in, no more in the pool than what is to be left to it? */
bool group_is_low(const struct swap_group *group);

#endif
