/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which cluster has which number: a sparse array of pointers.
 *
 * A top array points to leaves, each one page of 512 pointers; a leaf exists
 * once a number in it was used.  So one load more than a flat array, always of
 * a line that is in the cache (a top entry stands for a gigabyte of swap), and
 * nothing asked of the home but pages.
 *
 * A free number costs nothing: its place in the leaf links it to the next free
 * one.  Pointers are even, links are odd, 0 is a number never used.
 *
 * Lookups are RCU; changes are made under map->lock, an inner lock.
 */
#ifndef CORE_MAP_H
#define CORE_MAP_H

#include <linux/compiler.h>
#include <linux/mempool.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#define MAP_LEAF_SHIFT 9
#define MAP_LEAF_SIZE  (1U << MAP_LEAF_SHIFT)

struct swap_map {
	unsigned long **top;
	u32 size; /* numbers 0 .. size - 1 */
	u32 nr_leaves;
	spinlock_t lock;
	mempool_t *pages; /* where leaves come from */
};

/* Numbers that are given out together: [next, end) were never used, free heads a chain. */
struct swap_map_range {
	u32 next, end;
	u32 free;
};

/* @size: a multiple of MAP_LEAF_SIZE.  @pages: a mempool of zero or more whole pages. */
int map_init(struct swap_map *map, u32 size, mempool_t *pages);
void map_exit(struct swap_map *map);

/*
 * Give @p (even, not NULL) a free number out of @range; never sleeps.  The
 * number is told to @p's lookups only after *@nr is set.  0 or -ENOMEM, -ENOSPC.
 */
int map_add(struct swap_map *map, struct swap_map_range *range, void *p, u32 *nr);
/* Give @p the number *@nr.  0, -ENOMEM, -EEXIST. */
int map_add_at(struct swap_map *map, struct swap_map_range *range, void *p, u32 *nr);
/* The number is free again. */
void map_del(struct swap_map *map, struct swap_map_range *range, u32 nr);
/* All numbers of @range from @first on are free: as if never used. */
void map_forget(struct swap_map *map, struct swap_map_range *range, u32 first);

/* Under rcu_read_lock(), or the caller keeps what is there from going; leaves stay. */
static inline void *map_get(struct swap_map *map, u32 nr)
{
	unsigned long *leaf, v;

	if (unlikely(nr >= map->size))
		return NULL;
	leaf = smp_load_acquire(&map->top[nr >> MAP_LEAF_SHIFT]);
	if (unlikely(!leaf))
		return NULL;
	v = smp_load_acquire(&leaf[nr & (MAP_LEAF_SIZE - 1)]);
	return likely(!(v & 1)) ? (void *)v : NULL;
}

static inline u64 map_bytes(struct swap_map *map)
{
	return (u64)(map->size >> MAP_LEAF_SHIFT) * sizeof(*map->top) +
	       (u64)READ_ONCE(map->nr_leaves) * MAP_LEAF_SIZE * sizeof(long);
}

#endif
