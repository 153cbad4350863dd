// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The space as a whole: made, counted, taken apart.
 */
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "cluster.h"
#include "group.h"
#include "pageio.h"
#include "writeback.h"

/* ---- what the pool asks ---------------------------------------------- */

/*
 * An entry's backing is held still by its folio's lock while it has a folio, by
 * its cluster's lock while it has none.  Both are tried only: the pool may hold
 * locks that are inside of them.
 */
static int space_pin(void *priv, vswp_entry_t entry, unsigned long addr)
{
	struct swap_space *space = priv;
	unsigned int off = entry_offset(entry);
	struct swap_folio *folio;
	struct swap_cluster *c;
	swap_word_t w;
	int ret;

	rcu_read_lock();
	c = map_get(&space->map, entry_cluster(entry));
	if (!c || !spin_trylock(&c->lock)) {
		rcu_read_unlock();
		return c ? -EBUSY : -ENOENT;
	}
	/* One that died since it was found may be another's memory once this reader is gone. */
	if (READ_ONCE(c->state) == CLUSTER_DEAD) {
		spin_unlock(&c->lock);
		rcu_read_unlock();
		return -ENOENT;
	}
	rcu_read_unlock();
	w = cluster_word(c, off);
	if (word_where(w) == SWAP_ZPOOL && word_zpool_addr(w) == addr)
		return 0; /* the cluster stays locked */
	if (!word_is_folio(w)) {
		cluster_unlock(c);
		return -ENOENT;
	}
	/* While its cluster is locked the cache's reference is there. */
	folio = word_to_folio(w);
	swap_folio_get(folio);
	cluster_unlock(c);
	if (!swap_folio_trylock(folio)) {
		swap_folio_put(folio);
		return -EBUSY;
	}
	/* It may have left the cache before it was ours: who knows what is there now? */
	ret = -EBUSY;
	if (swap_folio_test(folio, SWAP_FOLIO_CACHED) &&
	    entry.val - folio->entry.val < 1UL << folio->order) {
		w = folio->backing[entry.val - folio->entry.val];
		if (word_where(w) == SWAP_ZPOOL && word_zpool_addr(w) == addr)
			return 0; /* the folio stays locked, so cached */
		ret = -ENOENT;
	}
	swap_folio_unlock(folio);
	swap_folio_put(folio);
	return ret;
}

static void space_unpin(void *priv, vswp_entry_t entry, unsigned long from, unsigned long to)
{
	struct swap_space *space = priv;
	unsigned int off = entry_offset(entry), index;
	struct swap_folio *folio;
	struct swap_cluster *c;
	swap_word_t w;

	/* What is pinned is in use, so its cluster stays. */
	rcu_read_lock();
	c = map_get(&space->map, entry_cluster(entry));
	rcu_read_unlock();
	w = smp_load_acquire(&c->table[off]);
	if (word_is_folio(w)) {
		folio = word_to_folio(w);
		index = entry.val - folio->entry.val;
		w = folio->backing[index];
		if (from != to)
			WRITE_ONCE(folio->backing[index],
				   word_with_shadow(word_zpool(to), word_shadow(w)));
		swap_folio_unlock(folio);
		swap_folio_put(folio);
		return;
	}
	if (from != to)
		cluster_set_word(c, off,
				 word_with_count(word_with_shadow(word_zpool(to), word_shadow(w)),
						 word_count(w)));
	cluster_unlock(c);
}

static const struct zpool_ops space_zpool_ops = {
	.pin = space_pin,
	.unpin = space_unpin,
};

/* ---- the space ------------------------------------------------------- */

static int space_create_pool(struct swap_space *space, const struct swap_space_conf *conf)
{
	int ret = swap_space_set_compressor(space, conf->compressor ? conf->compressor : "lz4");

	if (ret)
		return ret;
	/* Without a compressor, too: there may be one later. */
	space->pool = zpool_create(conf->pool_limit, &space_zpool_ops, space);
	return space->pool ? 0 : -ENOMEM;
}

int swap_space_set_compressor(struct swap_space *space, const char *name)
{
	struct swap_comp *comp;
	int nr = -1, ret = 0;

	if (strcmp(name, "none")) {
		nr = swap_comp_number(name);
		if (nr < 0)
			return nr;
	}
	mutex_lock(&space->comp_mutex);
	if (nr >= 0 && !space->comps[nr]) {
		comp = swap_comp_create(name);
		if (IS_ERR(comp))
			ret = PTR_ERR(comp);
		else
			smp_store_release(&space->comps[nr], comp);
	}
	if (!ret)
		smp_store_release(&space->comp, nr);
	mutex_unlock(&space->comp_mutex);
	return ret;
}

static int space_create_reserves(struct swap_space *space)
{
	space->page_cache =
		kmem_cache_create("vswap_page", SWAP_PAGE_SIZE, SWAP_PAGE_SIZE, 0, NULL);
	space->cluster_cache = kmem_cache_create("vswap_cluster", sizeof(struct swap_cluster), 0,
						 SLAB_HWCACHE_ALIGN, NULL);
	space->tier_cluster_cache =
		kmem_cache_create("vswap_tier_cluster", sizeof(struct tier_cluster), 0, 0, NULL);
	if (!space->page_cache || !space->cluster_cache || !space->tier_cluster_cache)
		return -ENOMEM;
	space->pages = mempool_create_slab_pool(SPACE_RESERVE_PAGES, space->page_cache);
	space->clusters = mempool_create_slab_pool(SPACE_RESERVE_CLUSTERS, space->cluster_cache);
	space->tier_clusters =
		mempool_create_slab_pool(SPACE_RESERVE_CLUSTERS, space->tier_cluster_cache);
	space->batches =
		mempool_create_kmalloc_pool(SPACE_RESERVE_BATCHES, sizeof(struct swap_batch));
	return space->pages && space->clusters && space->tier_clusters && space->batches ? 0 :
											   -ENOMEM;
}

struct swap_space *swap_space_create(const struct swap_space_conf *conf)
{
	struct swap_space *space = kzalloc(sizeof(*space), GFP_KERNEL);
	int ret = -ENOMEM;

	word_layout_holds();
	if (!space)
		return ERR_PTR(-ENOMEM);
	space->shadow_shift = conf->shadow_shift;
	space->range = (struct swap_map_range){ .next = 1, .end = SPACE_CLUSTERS };
	space->group_range = (struct swap_map_range){ .next = 1, .end = SPACE_GROUPS };
	mutex_init(&space->tier_mutex);
	mutex_init(&space->wb_mutex);
	mutex_init(&space->comp_mutex);
	spin_lock_init(&space->tier_lock);
	lockdep_set_subclass(&space->tier_lock, SWAP_RANK_TIERS);
	space->events = alloc_percpu(struct swap_events);
	if (!space->events)
		goto fail;
	ret = space_create_reserves(space);
	if (ret)
		goto fail;
	ret = map_init(&space->map, SPACE_CLUSTERS, space->pages);
	if (ret)
		goto fail;
	ret = map_init(&space->groups, SPACE_GROUPS, space->pages);
	if (ret)
		goto fail;
	ret = map_init(&space->tier_map, SPACE_TIER_CLUSTERS, space->pages);
	if (ret)
		goto fail;
	space->root = swap_group_create(space, NULL);
	ret = space->root ? space_create_pool(space, conf) : -ENOMEM;
	if (ret)
		goto fail;
	return space;
fail:
	swap_space_destroy(space);
	return ERR_PTR(ret);
}

void swap_space_destroy(struct swap_space *space)
{
	unsigned int i;

	if (space->pool)
		zpool_destroy(space->pool);
	for (i = 0; i < SWAP_COMPS; i++)
		if (space->comps[i])
			swap_comp_destroy(space->comps[i]);
	while (space->nr_tiers)
		tier_remove(space, space->tiers[0]);
	writeback_exit(space);
	/* Clusters that died go back to where they came from first. */
	rcu_barrier();
	if (space->map.top)
		cluster_free_all(space);
	if (space->root) {
		free_percpu(space->root->cpu);
		kfree(space->root);
	}
	map_exit(&space->map);
	map_exit(&space->groups);
	map_exit(&space->tier_map);
	mempool_destroy(space->batches);
	mempool_destroy(space->tier_clusters);
	mempool_destroy(space->clusters);
	mempool_destroy(space->pages);
	kmem_cache_destroy(space->tier_cluster_cache);
	kmem_cache_destroy(space->cluster_cache);
	kmem_cache_destroy(space->page_cache);
	free_percpu(space->events);
	mutex_destroy(&space->comp_mutex);
	mutex_destroy(&space->wb_mutex);
	mutex_destroy(&space->tier_mutex);
	kfree(space);
}

void swap_space_set_pool_limit(struct swap_space *space, u64 bytes)
{
	zpool_set_limit(space->pool, bytes);
}

/* ---- counters -------------------------------------------------------- */

static void stat_clusters(struct swap_space *space, struct swap_stat *stat)
{
	struct swap_cluster *c;
	u32 nr;

	for (nr = 1; nr < SPACE_CLUSTERS; nr++) {
		if (!READ_ONCE(space->map.top[nr >> MAP_LEAF_SHIFT])) {
			nr |= MAP_LEAF_SIZE - 1;
			continue;
		}
		c = cluster_lock_nr(space, nr);
		if (!c)
			continue;
		stat->slots_used += c->used;
		stat->nr_cached += *cluster_kind(c, SWAP_FOLIO);
		stat->nr_fill += *cluster_kind(c, SWAP_FILL);
		stat->nr_pool += *cluster_kind(c, SWAP_ZPOOL);
		stat->nr_tier += *cluster_kind(c, SWAP_SLOT);
		stat->nr_poison += *cluster_kind(c, SWAP_POISON);
		cluster_unlock(c);
		cond_resched();
	}
}

static void stat_events(struct swap_space *space, struct swap_stat *stat)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct swap_events *e = per_cpu_ptr(space->events, cpu);

		stat->pswpin += READ_ONCE(e->pswpin);
		stat->pswpout += READ_ONCE(e->pswpout);
		stat->zswpin += READ_ONCE(e->zswpin);
		stat->zswpout += READ_ONCE(e->zswpout);
		stat->swpin_zero += READ_ONCE(e->swpin_zero);
		stat->swpout_zero += READ_ONCE(e->swpout_zero);
		stat->zswpwb += READ_ONCE(e->zswpwb);
		stat->reject_compress_poor += READ_ONCE(e->reject_compress_poor);
		stat->read_errors += READ_ONCE(e->read_errors);
		stat->write_errors += READ_ONCE(e->write_errors);
	}
}

/* What does not take a walk over the clusters. */
static void stat_bytes(struct swap_space *space, struct swap_stat *stat)
{
	long extends = atomic_long_read(&space->nr_extends);
	struct zpool_stat pool = { 0 };

	stat->clusters = atomic_long_read(&space->nr_clusters);
	stat->table_bytes = stat->clusters * SWAP_PAGE_SIZE;
	stat->cluster_bytes = stat->clusters * sizeof(struct swap_cluster) +
			      extends * SWAP_CLUSTER_SLOTS * sizeof(unsigned int) +
			      map_bytes(&space->map) + map_bytes(&space->groups) + sizeof(*space) +
			      SPACE_RESERVE_PAGES * SWAP_PAGE_SIZE +
			      SPACE_RESERVE_CLUSTERS * sizeof(struct swap_cluster) +
			      SPACE_RESERVE_BATCHES * sizeof(struct swap_batch);
	stat->tier_meta_bytes =
		atomic_long_read(&space->nr_tier_clusters) * sizeof(struct tier_cluster) +
		map_bytes(&space->tier_map) + SPACE_RESERVE_CLUSTERS * sizeof(struct tier_cluster) +
		writeback_bytes(space);
	zpool_stat(space->pool, &pool);
	stat->pool_bytes = pool.bytes;
	stat->pool_live_bytes = pool.live_bytes;
	stat->pool_objects = pool.objects;
	stat->pool_data_bytes = pool.data_bytes;
	stat->compacted_bytes = pool.compacted_bytes;
}

u64 swap_space_bytes(struct swap_space *space)
{
	struct swap_stat stat = { 0 };

	stat_bytes(space, &stat);
	return stat.table_bytes + stat.cluster_bytes + stat.tier_meta_bytes + stat.pool_bytes;
}

u64 swap_pool_bytes(struct swap_space *space)
{
	struct zpool_stat pool = { 0 };

	zpool_stat(space->pool, &pool);
	return pool.bytes;
}

void swap_space_stat(struct swap_space *space, struct swap_stat *stat)
{
	long peak = atomic_long_read(&space->slots_peak);

	memset(stat, 0, sizeof(*stat));
	stat_bytes(space, stat);
	stat_clusters(space, stat);
	stat_events(space, stat);
	while ((long)stat->slots_used > peak &&
	       !atomic_long_try_cmpxchg(&space->slots_peak, &peak, (long)stat->slots_used))
		;
	stat->slots_peak = max_t(u64, peak, stat->slots_used);
}

/* Of a page by its word: clock ticks since it was evicted; false: not in @tier. */
static bool word_age(struct swap_space *space, swap_word_t w, int tier, unsigned int *age)
{
	struct tier_cluster *tc;

	if (tier < 0) {
		*age = (u16)(space_clock(space) - word_shadow(w));
		return word_where(w) == SWAP_ZPOOL;
	}
	if (word_where(w) != SWAP_SLOT)
		return false;
	tc = map_get(&space->tier_map, word_slot_nr(w) >> SWAP_CLUSTER_SHIFT);
	if (!tc || (int)tc->tier->nr != tier)
		return false;
	spin_lock(&tc->lock);
	*age = space_clock(space) - tc->clock;
	spin_unlock(&tc->lock);
	return true;
}

int swap_median_age(struct swap_space *space, int tier, u64 *evictions)
{
	const unsigned int ages = 1U << WORD_SHADOW_BITS;
	u32 *count = kvcalloc(ages, sizeof(*count), GFP_KERNEL), nr;
	struct swap_cluster *c;
	unsigned int off, age;
	u64 all = 0, sum = 0;

	if (!count)
		return -ENOMEM;
	for (nr = 1; nr < SPACE_CLUSTERS; nr++) {
		if (!READ_ONCE(space->map.top[nr >> MAP_LEAF_SHIFT])) {
			nr |= MAP_LEAF_SIZE - 1;
			continue;
		}
		rcu_read_lock();
		c = map_get(&space->map, nr);
		for (off = 0; c && off < SWAP_CLUSTER_SLOTS; off++) {
			if (!word_age(space, cluster_word(c, off), tier, &age))
				continue;
			count[min(age, ages - 1)]++;
			all++;
		}
		rcu_read_unlock();
		cond_resched();
	}
	for (age = 0; all && sum + count[age] <= all / 2; age++)
		sum += count[age];
	kvfree(count);
	*evictions = (u64)age << space->shadow_shift;
	return all ? 0 : -ENOENT;
}
