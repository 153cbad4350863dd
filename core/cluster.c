// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Virtual clusters: made on demand, allocated from, freed by RCU.
 *
 * A CPU allocates from its own current cluster, one for each order and group,
 * and takes no lock but that cluster's; two CPUs meet at group->lock when one
 * needs another cluster.  It takes a partly used one first (nonfull, and for
 * order 0 also what higher orders left in pieces, frag), else makes one.
 *
 * Which list a cluster is on is its state, and the state changes under
 * group->lock.  All changes but one are made with the cluster locked, too: to
 * take a cluster from a list its lock cannot be had first, so it goes from
 * NONFULL or FRAG to CURRENT under group->lock alone.  Whoever holds only the
 * cluster's lock may thus read the state as a hint, DEAD for certain.
 *
 * How many slots are in use is summed up over the clusters when asked.  For
 * the peak each cluster adds to slots_about when its own number has moved by
 * 64 since it last did.
 */
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "cluster.h"

static void cluster_free(struct swap_space *space, struct swap_cluster *c)
{
	mempool_free(c->table, space->pages);
	mempool_free(c, space->clusters);
}

static void cluster_free_rcu(struct rcu_head *rcu)
{
	struct swap_cluster *c = container_of(rcu, struct swap_cluster, rcu);

	cluster_free(c->space, c);
}

/*
 * A new cluster, CURRENT and locked, or ERR_PTR.  @nr 0: any number; else that
 * one, ERR_PTR(-EEXIST) when somebody was faster.
 */
static struct swap_cluster *cluster_make(struct swap_space *space, struct swap_group *group,
					 unsigned int order, u32 nr)
{
	struct swap_cluster *c = mempool_alloc(space->clusters, GFP_NOWAIT | __GFP_NOWARN);
	int ret;

	BUILD_BUG_ON(sizeof(spinlock_t) == 4 && sizeof(*c) != 64);
	if (!c)
		return ERR_PTR(-ENOMEM);
	*c = (struct swap_cluster){
		.nr = nr,
		.order = order,
		.state = CLUSTER_CURRENT,
		.group = group->nr,
	};
	c->table = mempool_alloc(space->pages, GFP_NOWAIT | __GFP_NOWARN);
	if (!c->table) {
		mempool_free(c, space->clusters);
		return ERR_PTR(-ENOMEM);
	}
	memset(c->table, 0, SWAP_PAGE_SIZE);
	spin_lock_init(&c->lock);
	lockdep_set_subclass(&c->lock, SWAP_RANK_CLUSTER);
	spin_lock(&c->lock);
	ret = nr ? map_add_at(&space->map, &space->range, c, &c->nr) :
		   map_add(&space->map, &space->range, c, &c->nr);
	if (ret) {
		spin_unlock(&c->lock);
		cluster_free(space, c);
		return ERR_PTR(ret);
	}
	atomic_long_inc(&space->nr_clusters);
	return c;
}

void cluster_about(struct swap_space *space, struct swap_cluster *c, int units)
{
	long about, peak;

	c->about += units;
	about = atomic_long_add_return((long)units * CLUSTER_ABOUT, &space->slots_about);
	peak = atomic_long_read(&space->slots_peak);
	while (about > peak && !atomic_long_try_cmpxchg(&space->slots_peak, &peak, about))
		;
}

/* The first slot of a free run, or SWAP_CLUSTER_SLOTS.  To order 0 that is the hint, too. */
static __always_inline unsigned int cluster_find(struct swap_cluster *c, unsigned int order)
{
	const swap_word_t *table = c->table;
	unsigned int off, i, size = 1U << order;

	if (!order) {
		for (off = c->hint; off < SWAP_CLUSTER_SLOTS && table[off]; off++)
			;
		c->hint = off;
		return off;
	}
	for (off = ALIGN_DOWN(c->hint, size); off < SWAP_CLUSTER_SLOTS; off += size) {
		for (i = 0; i < size && !table[off + i]; i++)
			;
		if (i == size)
			break;
	}
	return off;
}

/* Words for a run of free slots. */
static __always_inline void cluster_use(struct swap_space *space, struct swap_cluster *c,
					unsigned int off, unsigned int size, swap_word_t w)
{
	unsigned int i;

	lockdep_assert_held(&c->lock);
	*cluster_kind(c, word_where(w)) += size;
	c->used += size;
	if (off <= c->hint)
		c->hint = off + size;
	/* Or it would be looked through to its end for the next, and again when one is freed. */
	if (unlikely(c->used == SWAP_CLUSTER_SLOTS))
		c->hint = SWAP_CLUSTER_SLOTS;
	for (i = 0; i < size; i++)
		smp_store_release(&c->table[off + i], w);
	cluster_used_moved(space, c);
}

void cluster_install(struct swap_space *space, struct swap_cluster *c, unsigned int off,
		     struct swap_folio *folio)
{
	unsigned int i, size = 1U << folio->order;

	folio->entry = cluster_entry(c, off);
	for (i = 0; i < size; i++)
		WRITE_ONCE(folio->backing[i], WORD_NULL);
	set_bit(SWAP_FOLIO_CACHED, &folio->flags);
	swap_folio_get(folio);
	cluster_use(space, c, off, size, word_folio(folio) | WORD_COUNT_ONE);
}

/* Runs out of one locked cluster. */
static __always_inline unsigned int cluster_take(struct swap_space *space, struct swap_cluster *c,
						 unsigned int order, struct swap_folio **folios,
						 unsigned int nr, vswp_entry_t *first)
{
	unsigned int i, off;

	for (i = 0; i < nr; i++) {
		off = cluster_find(c, order);
		if (off >= SWAP_CLUSTER_SLOTS)
			break;
		if (!i)
			*first = cluster_entry(c, off);
		if (folios)
			cluster_install(space, c, off, folios[i]);
		else
			cluster_use(space, c, off, 1U << order,
				    word_fill(WORD_KIND_SIGN, 0) | WORD_COUNT_ONE);
	}
	return i;
}

/* A locked cluster has no run of its order left: from CURRENT to FULL or FRAG. */
static void cluster_retire(struct swap_group *group, struct swap_cluster *c)
{
	spin_lock(&group->lock);
	if (c->state == CLUSTER_CURRENT) {
		if (c->used == SWAP_CLUSTER_SLOTS) {
			c->state = CLUSTER_FULL;
		} else {
			c->state = CLUSTER_FRAG;
			list_add_tail(&c->list, &group->frag[c->order]);
		}
	}
	spin_unlock(&group->lock);
}

/* Cluster @nr is no longer current where it was: others may allocate from it. */
static void cluster_release(struct swap_space *space, struct swap_group *group, u32 nr)
{
	struct swap_cluster *c = cluster_lock_nr(space, nr);

	if (!c)
		return;
	spin_lock(&group->lock);
	if (c->group == group->nr && c->state == CLUSTER_CURRENT) {
		c->state = CLUSTER_NONFULL;
		list_add_tail(&c->list, &group->nonfull[c->order]);
	}
	spin_unlock(&group->lock);
	cluster_put_slots(space, c, 0, 0);
}

/* A cluster from the group's lists, CURRENT and locked, or NULL. */
static struct swap_cluster *cluster_from_lists(struct swap_group *group, unsigned int order)
{
	struct list_head *list;
	struct swap_cluster *c;
	unsigned int o;

	/* The grace period begun by a death cannot end before we have let go. */
	rcu_read_lock();
	for (;;) {
		c = NULL;
		spin_lock(&group->lock);
		list = &group->nonfull[order];
		for (o = SWAP_MAX_ORDER; !order && o && list_empty(list); o--)
			list = &group->frag[o];
		c = list_first_entry_or_null(list, struct swap_cluster, list);
		if (c) {
			list_del(&c->list);
			WRITE_ONCE(c->state, CLUSTER_CURRENT);
		}
		spin_unlock(&group->lock);
		if (!c)
			break;
		spin_lock(&c->lock);
		if (READ_ONCE(c->state) == CLUSTER_CURRENT) {
			c->order = order;
			if (cluster_find(c, order) < SWAP_CLUSTER_SLOTS)
				break;
			cluster_retire(group, c);
		}
		spin_unlock(&c->lock);
	}
	rcu_read_unlock();
	return c;
}

/* From clusters that become current, one after the other. */
static unsigned int cluster_alloc_more(struct swap_space *space, struct swap_group *group,
				       u32 *current_nr, unsigned int order,
				       struct swap_folio **folios, unsigned int nr,
				       vswp_entry_t *first)
{
	unsigned int done = 0, got;
	struct swap_cluster *c;
	vswp_entry_t entry;
	u32 hint, old;

	while (done < nr) {
		c = cluster_from_lists(group, order);
		if (!c) {
			c = cluster_make(space, group, order, 0);
			if (IS_ERR(c))
				break;
		}
		got = cluster_take(space, c, order, folios ? folios + done : NULL, nr - done,
				   &entry);
		if (!done)
			*first = entry;
		done += got;
		if (done < nr) {
			cluster_retire(group, c);
			cluster_unlock(c);
			continue;
		}
		old = xchg(current_nr, c->nr);
		hint = c->nr;
		cluster_unlock(c);
		/* Two threads of one CPU were here at once: the first one's goes back. */
		if (old && old != hint)
			cluster_release(space, group, old);
	}
	return done;
}

/* Inline, so that in cluster_alloc_slot() no loop and no test for folios is left of it. */
static __always_inline unsigned int
cluster_alloc_inline(struct swap_space *space, struct swap_group *group, unsigned int order,
		     struct swap_folio **folios, unsigned int nr, vswp_entry_t *first)
{
	u32 *current_nr = &raw_cpu_ptr(group->cpu)->current_nr[order];
	u32 hint = READ_ONCE(*current_nr);
	struct swap_cluster *c = hint ? cluster_lock_nr(space, hint) : NULL;
	unsigned int done = 0;
	vswp_entry_t other;

	if (likely(c)) {
		/* A hint may be stale: the number may name another cluster by now. */
		if (likely(c->group == group->nr && c->order == order &&
			   READ_ONCE(c->state) == CLUSTER_CURRENT)) {
			done = cluster_take(space, c, order, folios, nr, first);
			if (unlikely(done < nr)) {
				cluster_retire(group, c);
				cmpxchg(current_nr, hint, 0);
			}
		}
		cluster_unlock(c);
	}
	if (likely(done == nr))
		return done;
	return done + cluster_alloc_more(space, group, current_nr, order,
					 folios ? folios + done : NULL, nr - done,
					 done ? &other : first);
}

unsigned int cluster_alloc(struct swap_space *space, struct swap_group *group, unsigned int order,
			   struct swap_folio **folios, unsigned int nr, vswp_entry_t *first)
{
	return cluster_alloc_inline(space, group, order, folios, nr, first);
}

vswp_entry_t cluster_alloc_slot(struct swap_space *space, struct swap_group *group)
{
	vswp_entry_t entry;

	return cluster_alloc_inline(space, group, 0, NULL, 1, &entry) ? entry : vswp_entry(0);
}

struct swap_cluster *cluster_claim(struct swap_space *space, struct swap_group *group, u32 nr)
{
	struct swap_cluster *c;

	do {
		c = cluster_lock_nr(space, nr);
		if (!c) {
			c = cluster_make(space, group, 0, nr);
			if (IS_ERR(c) && PTR_ERR(c) != -EEXIST)
				return c;
			if (!IS_ERR(c)) {
				spin_lock(&group->lock);
				c->state = CLUSTER_NONFULL;
				list_add_tail(&c->list, &group->nonfull[0]);
				spin_unlock(&group->lock);
			}
		}
	} while (IS_ERR(c));
	return c;
}

void cluster_settle(struct swap_space *space, struct swap_cluster *c)
{
	struct swap_group *group = cluster_group(space, c);
	u8 state;

	spin_lock(&group->lock);
	state = c->state;
	if (state == CLUSTER_NONFULL || state == CLUSTER_FRAG)
		list_del(&c->list);
	if (!c->used && (state != CLUSTER_CURRENT || c->order)) {
		c->state = CLUSTER_DEAD;
	} else if (state != CLUSTER_CURRENT) {
		if (c->used == SWAP_CLUSTER_SLOTS) {
			c->state = CLUSTER_FULL;
		} else {
			c->state = CLUSTER_NONFULL;
			list_add_tail(&c->list, &group->nonfull[c->order]);
		}
	}
	state = c->state;
	spin_unlock(&group->lock);
	if (state == CLUSTER_DEAD) {
		map_del(&space->map, &space->range, c->nr);
		atomic_long_dec(&space->nr_clusters);
		if (c->extend)
			atomic_long_dec(&space->nr_extends);
		kfree(c->extend);
		c->space = space;
	}
	spin_unlock(&c->lock);
	if (state == CLUSTER_DEAD)
		call_rcu(&c->rcu, cluster_free_rcu);
}

void cluster_drop_current(struct swap_space *space, struct swap_group *group)
{
	unsigned int cpu, order;
	u32 nr;

	for_each_possible_cpu(cpu) {
		for (order = 0; order <= SWAP_MAX_ORDER; order++) {
			nr = xchg(&per_cpu_ptr(group->cpu, cpu)->current_nr[order], 0);
			if (nr)
				cluster_release(space, group, nr);
		}
	}
}

void cluster_free_all(struct swap_space *space)
{
	struct swap_cluster *c;
	u32 nr;

	for (nr = 1; nr < SPACE_CLUSTERS; nr++) {
		/* Whole leaves that are not there are passed over. */
		if (!space->map.top[nr >> MAP_LEAF_SHIFT]) {
			nr |= MAP_LEAF_SIZE - 1;
			continue;
		}
		rcu_read_lock();
		c = map_get(&space->map, nr);
		rcu_read_unlock();
		if (c) {
			kfree(c->extend);
			cluster_free(space, c);
		}
	}
}

/* ---- owners ---------------------------------------------------------- */

unsigned int cluster_count(const struct swap_cluster *c, unsigned int off)
{
	unsigned int count = word_count(c->table[off]);

	return count == WORD_COUNT_MAX ? c->extend[off] : count;
}

int cluster_get(struct swap_space *space, struct swap_cluster *c, unsigned int off)
{
	swap_word_t w = c->table[off];
	unsigned int count = word_count(w);

	lockdep_assert_held(&c->lock);
	if (likely(count + 1 < WORD_COUNT_MAX)) {
		smp_store_release(&c->table[off], w + WORD_COUNT_ONE);
		return 0;
	}
	if (count < WORD_COUNT_MAX) {
		if (!c->extend) {
			c->extend = kcalloc(SWAP_CLUSTER_SLOTS, sizeof(*c->extend),
					    GFP_NOWAIT | __GFP_NOWARN);
			if (!c->extend)
				return -ENOMEM;
			atomic_long_inc(&space->nr_extends);
		}
		c->extend[off] = WORD_COUNT_MAX;
		smp_store_release(&c->table[off], w + WORD_COUNT_ONE);
		return 0;
	}
	if (c->extend[off] == U32_MAX)
		return -ENOMEM;
	c->extend[off]++;
	return 0;
}
