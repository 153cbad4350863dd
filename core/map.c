// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which cluster has which number: a sparse array of pointers.
 */
#include <linux/errno.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "map.h"
#include "space.h"

int map_init(struct swap_map *map, u32 size, mempool_t *pages)
{
	*map = (struct swap_map){ .size = size, .pages = pages };
	spin_lock_init(&map->lock);
	lockdep_set_subclass(&map->lock, SWAP_RANK_LISTS);
	map->top = kvcalloc(size >> MAP_LEAF_SHIFT, sizeof(*map->top), GFP_KERNEL);
	return map->top ? 0 : -ENOMEM;
}

void map_exit(struct swap_map *map)
{
	u32 i;

	for (i = 0; map->nr_leaves; i++) {
		if (map->top[i]) {
			mempool_free(map->top[i], map->pages);
			map->nr_leaves--;
		}
	}
	kvfree(map->top);
}

static unsigned long *map_place(struct swap_map *map, u32 nr)
{
	unsigned long **top = &map->top[nr >> MAP_LEAF_SHIFT];
	unsigned long *leaf = *top;

	lockdep_assert_held(&map->lock);
	if (!leaf) {
		leaf = mempool_alloc(map->pages, GFP_NOWAIT | __GFP_NOWARN);
		if (!leaf)
			return NULL;
		memset(leaf, 0, MAP_LEAF_SIZE * sizeof(*leaf));
		rcu_assign_pointer(*top, leaf);
		WRITE_ONCE(map->nr_leaves, map->nr_leaves + 1);
	}
	return &leaf[nr & (MAP_LEAF_SIZE - 1)];
}

static void map_publish(unsigned long *place, void *p, u32 nr, u32 *out)
{
	*out = nr;
	smp_store_release(place, (unsigned long)p);
}

int map_add(struct swap_map *map, struct swap_map_range *range, void *p, u32 *nr)
{
	unsigned long *place;
	int ret = -ENOSPC;
	u32 at;

	spin_lock(&map->lock);
	at = range->free;
	if (at) {
		place = map_place(map, at);
		range->free = (u32)(READ_ONCE(*place) >> 1);
		map_publish(place, p, at, nr);
		ret = 0;
		goto out;
	}
	for (; range->next < range->end; range->next++) {
		place = map_place(map, range->next);
		if (!place) {
			ret = -ENOMEM;
			goto out;
		}
		/* A number ahead of next may have been asked for by name. */
		if (READ_ONCE(*place))
			continue;
		map_publish(place, p, range->next++, nr);
		ret = 0;
		goto out;
	}
out:
	spin_unlock(&map->lock);
	return ret;
}

/* Take @nr out of the chain of free numbers. */
static void map_unlink(struct swap_map *map, struct swap_map_range *range, u32 nr)
{
	unsigned long next = READ_ONCE(*map_place(map, nr)) >> 1;
	unsigned long *place;
	u32 at = range->free;

	if (at == nr) {
		range->free = (u32)next;
		return;
	}
	for (;;) {
		place = map_place(map, at);
		at = (u32)(READ_ONCE(*place) >> 1);
		if (at == nr)
			break;
	}
	WRITE_ONCE(*place, next << 1 | 1);
}

int map_add_at(struct swap_map *map, struct swap_map_range *range, void *p, u32 *nr)
{
	unsigned long *place;
	int ret = 0;

	spin_lock(&map->lock);
	place = map_place(map, *nr);
	if (!place) {
		ret = -ENOMEM;
	} else if (READ_ONCE(*place) & 1) {
		map_unlink(map, range, *nr);
		map_publish(place, p, *nr, nr);
	} else if (READ_ONCE(*place)) {
		ret = -EEXIST;
	} else {
		map_publish(place, p, *nr, nr);
	}
	spin_unlock(&map->lock);
	return ret;
}

void map_del(struct swap_map *map, struct swap_map_range *range, u32 nr)
{
	unsigned long *place;

	spin_lock(&map->lock);
	place = map_place(map, nr);
	if (nr < range->next) {
		WRITE_ONCE(*place, (unsigned long)range->free << 1 | 1);
		range->free = nr;
	} else {
		WRITE_ONCE(*place, 0);
	}
	spin_unlock(&map->lock);
}

void map_forget(struct swap_map *map, struct swap_map_range *range, u32 first)
{
	unsigned long *leaf;

	spin_lock(&map->lock);
	for (; range->next > first; range->next--) {
		u32 nr = range->next - 1;

		leaf = map->top[nr >> MAP_LEAF_SHIFT];
		if (leaf)
			WRITE_ONCE(leaf[nr & (MAP_LEAF_SIZE - 1)], 0);
	}
	range->free = 0;
	spin_unlock(&map->lock);
}
