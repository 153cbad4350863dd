/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a space is made of.  Inside core only.
 *
 * Locks by rank, outermost first.  A lock is taken while holding only locks of
 * lower rank; a trylock may break that order.
 *
 *	FOLIO		folio->lock, sleeps
 *	CLUSTER		swap_cluster->lock: the table, counts, extend, kinds
 *	POOL		the pool's own
 *	TIERS		space->tier_lock: tiers, their lists of clusters
 *	TIER_CLUSTER	tier_cluster->lock: its bitmap
 *	LISTS		group->lock, map->lock: leaves, nothing is taken inside
 *
 * space->tier_mutex (swap_tier_add, swapoff, swap_migrate, swap_demote; tried by
 * demote_ahead and tier_discard) is outside of all of these; space->wb_mutex
 * (writeback) is inside FOLIO and outside of the others.
 */
#ifndef CORE_SPACE_H
#define CORE_SPACE_H

#include <linux/atomic.h>
#include <linux/cache.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#include "compress.h"
#include "map.h"
#include "swap.h"
#include "zpool.h"

enum swap_lock_rank {
	SWAP_RANK_FOLIO = 1,
	SWAP_RANK_CLUSTER,
	SWAP_RANK_POOL,
	SWAP_RANK_TIERS,
	SWAP_RANK_TIER_CLUSTER,
	SWAP_RANK_LISTS,
};

/* Virtual clusters are numbered 1 .. 2^24 - 1: 32 TiB, and entry 0 is none. */
#define SPACE_CLUSTERS (1U << 24)
/* Clusters of all tiers together; see table.h for the bits of a slot. */
#define SPACE_TIER_CLUSTERS (1U << (30 - SWAP_CLUSTER_SHIFT))

/* Groups are numbered 1 .. 2^16 - 1. */
#define SPACE_GROUPS (1U << 16)

/* Elements put by: what a batch of swap-out may need before it sets memory free. */
#define SPACE_RESERVE_CLUSTERS 8
#define SPACE_RESERVE_PAGES    12 /* tables, and leaves of both maps */
#define SPACE_RESERVE_BATCHES  2

struct swap_tier;
struct swap_writeback;

struct swap_events {
	unsigned long pswpin, pswpout;
	unsigned long zswpin, zswpout;
	unsigned long swpin_zero, swpout_zero;
	unsigned long zswpwb;
	unsigned long reject_compress_poor;
	unsigned long read_errors, write_errors;
};

struct swap_space {
	struct swap_map map;		   /* virtual clusters */
	struct swap_map_range range;	   /* guarded by map.lock */
	struct swap_map groups;		   /* groups by number, as clusters name them */
	struct swap_map_range group_range; /* guarded by groups.lock */
	struct swap_group *root;
	struct zpool *pool;
	/* Made when first asked for, by number; tags of objects, so they stay. */
	struct swap_comp *comps[SWAP_COMPS];
	int comp; /* which is in use, or -1; comp_mutex guards changes */
	struct mutex comp_mutex;
	unsigned int shadow_shift;
	struct swap_events __percpu *events;

	struct kmem_cache *page_cache, *cluster_cache, *tier_cluster_cache;
	mempool_t *pages, *clusters, *tier_clusters, *batches;

	/* tiers */
	struct mutex tier_mutex;
	spinlock_t tier_lock;
	struct swap_map tier_map;
	struct swap_tier *tiers[SWAP_MAX_TIERS]; /* by falling priority */
	unsigned int nr_tiers;
	unsigned long tier_turn; /* the last given to a tier */
	atomic_long_t nr_tier_clusters;

	struct mutex wb_mutex;
	struct swap_writeback *wb; /* from the first tier on */

	/* written often, by every CPU: on a cache line away from the rest */
	unsigned long pad[SMP_CACHE_BYTES / sizeof(long)];
	atomic_long_t evictions;
	atomic_long_t slots_about; /* see cluster.c */
	atomic_long_t slots_peak;
	atomic_long_t nr_clusters;
	atomic_long_t nr_extends;
};

#define space_event(space, what, n) this_cpu_add((space)->events->what, (n))

static inline unsigned int space_clock(struct swap_space *space)
{
	return (unsigned int)((unsigned long)atomic_long_read(&space->evictions) >>
			      space->shadow_shift);
}

/* The clock a shadow was taken from: the last that it can have been. */
static inline unsigned int space_clock_of(struct swap_space *space, unsigned int shadow)
{
	unsigned int now = space_clock(space);

	return now - (u16)(now - shadow);
}

#endif
