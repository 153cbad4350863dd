// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Groups: made, limited, charged.
 */
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "cluster.h"
#include "group.h"

static const struct swap_group_conf group_unlimited = {
	.pool_limit = SWAP_NO_LIMIT,
	.swap_limit = SWAP_NO_LIMIT,
	.tiers = U32_MAX,
};

struct swap_group *swap_group_create(struct swap_space *space, struct swap_group *parent)
{
	struct swap_group *group = kzalloc(sizeof(*group), GFP_KERNEL);
	unsigned int order;

	if (!group)
		return NULL;
	group->cpu = alloc_percpu(struct swap_group_cpu);
	if (!group->cpu) {
		kfree(group);
		return NULL;
	}
	group->space = space;
	group->parent = parent ? parent : space->root;
	spin_lock_init(&group->lock);
	lockdep_set_subclass(&group->lock, SWAP_RANK_LISTS);
	for (order = 0; order <= SWAP_MAX_ORDER; order++) {
		INIT_LIST_HEAD(&group->nonfull[order]);
		INIT_LIST_HEAD(&group->frag[order]);
	}
	swap_group_set(group, &group_unlimited);
	if (map_add(&space->groups, &space->group_range, group, &group->nr)) {
		free_percpu(group->cpu);
		kfree(group);
		return NULL;
	}
	return group;
}

void swap_group_destroy(struct swap_group *group)
{
	/*
	 * First, while it can be found: who pins it may have an entry in the cache that
	 * lost its owner.  None is added: that takes an entry in use.
	 */
	while (atomic_read_acquire(&group->pins))
		msleep(1);
	cluster_drop_current(group->space, group);
	map_del(&group->space->groups, &group->space->group_range, group->nr);
	/* Who walks the pool looks at groups of entries that may be free by now. */
	synchronize_rcu();
	free_percpu(group->cpu);
	kfree(group);
}

void swap_group_set(struct swap_group *group, const struct swap_group_conf *conf)
{
	WRITE_ONCE(group->counter[GROUP_POOL].limit, conf->pool_limit);
	WRITE_ONCE(group->counter[GROUP_SWAP].limit, conf->swap_limit);
	WRITE_ONCE(group->pool_low, conf->pool_low);
	WRITE_ONCE(group->tiers, conf->tiers);
	WRITE_ONCE(group->direct, conf->direct);
}

static void counter_stat(const struct group_counter *counter, struct swap_group_counter *stat)
{
	stat->used = (u64)atomic_long_read(&counter->used);
	stat->peak = (u64)atomic_long_read(&counter->peak);
	stat->events = (u64)atomic_long_read(&counter->events);
}

void swap_group_stat(struct swap_group *group, struct swap_group_stat *stat)
{
	counter_stat(&group->counter[GROUP_POOL], &stat->pool);
	counter_stat(&group->counter[GROUP_SWAP], &stat->swap);
}

/* ---- charges --------------------------------------------------------- */

static void counter_peak(struct group_counter *counter, long used)
{
	long peak = atomic_long_read(&counter->peak);

	while (used > peak && !atomic_long_try_cmpxchg(&counter->peak, &peak, used))
		;
}

/* As many of @nr as there is room for. */
static unsigned long counter_charge(struct group_counter *counter, unsigned long nr,
				    unsigned long least)
{
	u64 limit = READ_ONCE(counter->limit);
	long used = atomic_long_read(&counter->used);
	unsigned long got;

	do {
		got = (u64)used < limit ? (unsigned long)min_t(u64, nr, limit - (u64)used) : 0;
		if (got < least)
			return 0;
	} while (!atomic_long_try_cmpxchg(&counter->used, &used, used + (long)got));
	counter_peak(counter, used + (long)got);
	return got;
}

unsigned long group_charge(struct swap_group *group, enum group_what what, unsigned long nr,
			   unsigned long least)
{
	struct swap_group *g, *below;
	unsigned long got;

	for (g = group; g && nr; g = g->parent) {
		got = counter_charge(&g->counter[what], nr, least);
		if (got == nr)
			continue;
		atomic_long_inc(&g->counter[what].events);
		for (below = group; below != g; below = below->parent)
			atomic_long_sub((long)(nr - got), &below->counter[what].used);
		nr = got;
	}
	return nr;
}

void group_charge_over(struct swap_group *group, enum group_what what, unsigned long nr)
{
	for (; group; group = group->parent)
		counter_peak(&group->counter[what],
			     atomic_long_add_return((long)nr, &group->counter[what].used));
}

void group_uncharge(struct swap_group *group, enum group_what what, unsigned long nr)
{
	for (; group; group = group->parent)
		atomic_long_sub((long)nr, &group->counter[what].used);
}

struct swap_group *group_over(struct swap_group *group, enum group_what what, unsigned long nr)
{
	for (; group; group = group->parent) {
		u64 limit = READ_ONCE(group->counter[what].limit);
		u64 used = (u64)atomic_long_read(&group->counter[what].used);

		if (used > limit || limit - used < nr)
			break;
	}
	return group;
}

/* ---- what counts for all that is in a group --------------------------- */

u32 group_tiers(const struct swap_group *group)
{
	u32 tiers = U32_MAX;

	for (; group; group = group->parent)
		tiers &= READ_ONCE(group->tiers);
	return tiers;
}

bool group_is_direct(const struct swap_group *group)
{
	for (; group; group = group->parent)
		if (READ_ONCE(group->direct))
			return true;
	return false;
}

bool group_within(const struct swap_group *group, const struct swap_group *top)
{
	while (group && group != top)
		group = group->parent;
	return group;
}

bool group_is_low(const struct swap_group *group)
{
	for (; group; group = group->parent)
		if ((u64)atomic_long_read(&group->counter[GROUP_POOL].used) <=
		    READ_ONCE(group->pool_low))
			return true;
	return false;
}
