// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * swapoff: empty a tier and let it go.
 *
 * There is no reverse map.  The tables are scanned for words that name the tier;
 * each such entry gets a folio of ours in front of it, as a fault would do it,
 * which is filled, given another backing, and taken out again.  A folio that is
 * there already is locked and its backing moved.
 *
 * Most of it needs no folio: demote_drain() moves it first, in order of slots.
 *
 * What cannot be seen by a scan (a page being written to a slot it does not name
 * yet, a slot being freed) shows in the tier's count of slots, so it is scanned
 * until the count is 0.  From the start no new slot is given out.
 */
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>

#include "cluster.h"
#include "pageio.h"

/* Pages of memory it asks for; it makes do with one. */
#define DRAIN_PAGES 64
/* Scans in a row that moved nothing, a millisecond apart, before it gives up. */
#define DRAIN_IDLE 1000

struct drain_folio {
	struct swap_folio folio;
	struct swap_group *group; /* pinned while the folio is cached */
	atomic_t busy;		  /* somebody has a reference */
};

struct drain {
	struct swap_space *space;
	struct swap_tier *tier; /* NULL: the pool, when migrating */
	bool migrating;		/* to one place, and no more than... */
	struct swap_tier *to;
	u64 want; /* ... pages */
	int error;
	void *memory; /* what the folios are in */
	struct drain_folio *folios;
	unsigned int nr_folios;
	struct swap_folio *batch[DRAIN_PAGES];
	unsigned int nr;
	bool moved;   /* this scan made progress */
	bool no_room; /* some page found no other place */
	u64 unread;   /* pages that could not be read in this scan */
	bool lose;    /* what cannot be read is given up */
	bool lost;    /* ... or damaged: some page is POISON */
	const struct swapoff_watch *watch;
	bool stop; /* ... said so */
	bool done; /* no need to look further */
};

static void drain_release(struct swap_folio *folio)
{
	atomic_set_release(&container_of(folio, struct drain_folio, folio)->busy, 0);
}

static int drain_compare(const void *a, const void *b)
{
	const struct swap_folio *const *fa = a, *const *fb = b;
	u32 sa = word_slot_nr((*fa)->backing[0]), sb = word_slot_nr((*fb)->backing[0]);

	return sa < sb ? -1 : sa > sb;
}

static bool drain_names(const struct drain *d, swap_word_t w)
{
	return d->tier ? tier_has(d->tier, w) : word_where(w) == SWAP_ZPOOL;
}

/* The folios of the batch are locked, cached and empty: fill them, find them another place. */
static void drain_batch(struct drain *d)
{
	unsigned int i, good = 0;
	struct swap_folio *folio;

	sort(d->batch, d->nr, sizeof(d->batch[0]), drain_compare, NULL);
	swap_readin_wanted(d->space, d->batch, d->nr, d->lose ? d->nr : 0);
	for (i = 0; i < d->nr; i++) {
		folio = d->batch[i];
		if (swap_folio_test(folio, SWAP_FOLIO_UPTODATE)) {
			d->batch[i] = d->batch[good];
			d->batch[good++] = folio;
		} else if (drain_names(d, folio->backing[0])) {
			d->unread++;
		} else {
			d->lost = true;
		}
	}
	if (d->migrating) {
		for (i = 0; i < good && !d->error; i++) {
			d->error = folio_migrate_swap(d->space, d->batch[i], d->to);
			d->want -= !d->error;
		}
		/* The rest may be no better: a tier that is away for a while is not gone through. */
		if (good < d->nr && !d->error)
			d->error = -EIO;
	} else if (pageio_drain(d->space, d->batch, good, d->tier)) {
		d->no_room = true;
	}
	for (i = 0; i < d->nr; i++) {
		folio = d->batch[i];
		d->moved |= !d->migrating && !tier_has(d->tier, folio->backing[0]);
		swap_cache_del_folio(d->space, folio);
		group_unpin(container_of(folio, struct drain_folio, folio)->group);
		swap_folio_unlock(folio);
		swap_folio_put(folio);
	}
	d->nr = 0;
	cond_resched();
	if (d->watch &&
	    !d->watch->go_on(d->watch->priv,
			     d->migrating ? d->want : (u64)atomic_long_read(&d->tier->used)))
		d->stop = true;
	d->done |= d->stop || d->error || (d->migrating && !d->want);
}

/* An entry without a folio names the tier. */
static void drain_entry(struct drain *d, vswp_entry_t entry)
{
	struct drain_folio *df = NULL;
	unsigned int i;

	while (!df) {
		for (i = 0; i < d->nr_folios && !df; i++)
			if (!atomic_read_acquire(&d->folios[i].busy))
				df = &d->folios[i];
		if (!df && d->nr)
			drain_batch(d);
		else if (!df)
			msleep(1); /* somebody looked one up and will find it gone */
	}
	swap_folio_init(&df->folio, df->folio.data, 0, NULL, drain_release);
	atomic_set(&df->busy, 1);
	swap_folio_lock(&df->folio);
	if (cache_add_folio_pinned(d->space, entry, &df->folio, &df->group)) {
		swap_folio_unlock(&df->folio);
		swap_folio_put(&df->folio);
		return;
	}
	d->batch[d->nr++] = &df->folio;
	if (d->nr == d->nr_folios || (d->migrating && d->nr == d->want))
		drain_batch(d);
}

/* An entry has a folio: if that one's backing names the tier, move it. */
static void drain_cached(struct drain *d, vswp_entry_t entry)
{
	struct swap_folio *folio = swap_cache_get_folio(d->space, entry);
	unsigned int i, size, had = 0, has = 0;

	if (!folio)
		return;
	/* Ours have their turn with their batch. */
	for (i = 0; i < d->nr; i++) {
		if (d->batch[i] == folio) {
			swap_folio_put(folio);
			return;
		}
	}
	/* Nobody who holds a folio lock waits for one of ours: those are given back first. */
	if (d->nr)
		drain_batch(d);
	swap_folio_lock(folio);
	size = 1U << folio->order;
	if (!swap_folio_test(folio, SWAP_FOLIO_CACHED) || entry.val - folio->entry.val >= size)
		goto out;
	for (i = 0; i < size; i++)
		had += tier_has(d->tier, folio->backing[i]);
	if (!had)
		goto out;
	if (!swap_folio_test(folio, SWAP_FOLIO_UPTODATE))
		swap_readin_wanted(d->space, &folio, 1, d->lose);
	if (pageio_drain(d->space, &folio, swap_folio_test(folio, SWAP_FOLIO_UPTODATE), d->tier))
		d->no_room = true;
	for (i = 0; i < size; i++)
		has += tier_has(d->tier, folio->backing[i]);
	d->moved |= has < had;
	if (!swap_folio_test(folio, SWAP_FOLIO_UPTODATE)) {
		d->unread += has;
		d->lost |= has < had;
	}
out:
	swap_folio_unlock(folio);
	swap_folio_put(folio);
}

static void drain_scan(struct drain *d)
{
	struct swap_space *space = d->space;
	struct swap_cluster *c;
	unsigned int off;
	swap_word_t w;
	u32 nr, end;

	spin_lock(&space->map.lock);
	end = space->map.size;
	spin_unlock(&space->map.lock);
	for (nr = 1; nr < end && !d->done; nr++) {
		if (!READ_ONCE(space->map.top[nr >> MAP_LEAF_SHIFT])) {
			nr |= MAP_LEAF_SIZE - 1;
			continue;
		}
		rcu_read_lock();
		c = map_get(&space->map, nr);
		rcu_read_unlock();
		for (off = 0; c && off < SWAP_CLUSTER_SLOTS && !d->done; off++) {
			vswp_entry_t entry =
				vswp_entry((unsigned long)nr << SWAP_CLUSTER_SHIFT | off);

			w = space_word(space, entry);
			if (word_is_folio(w) && !d->migrating)
				drain_cached(d, entry);
			else if (drain_names(d, w))
				drain_entry(d, entry);
		}
		cond_resched();
	}
	if (d->nr)
		drain_batch(d);
}

static void drain_free(struct drain *d)
{
	unsigned int i;

	/* A late lookup may still look at our folios, or hold one. */
	synchronize_rcu();
	for (i = 0; i < d->nr_folios; i++) {
		while (atomic_read_acquire(&d->folios[i].busy))
			msleep(1);
		free_page((unsigned long)d->folios[i].folio.data);
	}
	kvfree(d->memory);
}

static int drain_alloc(struct drain *d)
{
	unsigned long page;

	/* One more than needed, for the alignment. */
	d->memory = kvcalloc(DRAIN_PAGES + 1, sizeof(*d->folios), GFP_KERNEL);
	if (!d->memory)
		return -ENOMEM;
	d->folios = (void *)ALIGN((unsigned long)d->memory, __alignof__(*d->folios));
	for (; d->nr_folios < DRAIN_PAGES; d->nr_folios++) {
		page = __get_free_page(GFP_KERNEL | __GFP_NOWARN);
		if (!page)
			break;
		d->folios[d->nr_folios].folio.data = (void *)page;
	}
	if (d->nr_folios)
		return 0;
	kvfree(d->memory);
	return -ENOMEM;
}

/* Pages on @tier that nobody has in the cache, by how they are kept there. */
static void count_kinds(struct swap_space *space, const struct swap_tier *tier, u64 *raw,
			u64 *objects)
{
	struct swap_cluster *c;
	unsigned int off;
	u32 nr, end;

	*raw = *objects = 0;
	spin_lock(&space->map.lock);
	end = space->map.size;
	spin_unlock(&space->map.lock);
	for (nr = 1; nr < end; nr++) {
		if (!READ_ONCE(space->map.top[nr >> MAP_LEAF_SHIFT])) {
			nr |= MAP_LEAF_SIZE - 1;
			continue;
		}
		c = cluster_lock_nr(space, nr);
		for (off = 0; c && off < SWAP_CLUSTER_SLOTS; off++) {
			swap_word_t w = cluster_word(c, off);

			if (!tier_has(tier, w))
				continue;
			if (w & WORD_SLOT_OBJECT)
				++*objects;
			else
				++*raw;
		}
		if (c)
			cluster_unlock(c);
		cond_resched();
	}
}

bool swapoff_fits(struct swap_space *space, struct swap_tier *tier)
{
	u64 used = atomic_long_read(&tier->used), slots = 0, raw, objects, need;
	struct zpool_stat pool = { 0 };
	unsigned int i;

	spin_lock(&space->tier_lock);
	for (i = 0; i < space->nr_tiers; i++) {
		struct swap_tier *t = space->tiers[i];
		u64 taken = atomic_long_read(&t->used);

		if (t != tier && !t->failed && !t->full && !t->draining && taken < t->nr_slots)
			slots += t->nr_slots - taken;
	}
	spin_unlock(&space->tier_lock);
	if (used <= slots)
		return true;
	count_kinds(space, tier, &raw, &objects);
	/* What is in the cache now: of a kind not known. */
	raw += used > raw + objects ? used - raw - objects : 0;
	if (raw > slots || !space->pool)
		return false;
	zpool_stat(space->pool, &pool);
	/* As large as those in the pool are, each with its header; a part is always waste. */
	need = raw + objects - slots;
	need *= pool.objects ? div64_u64(pool.live_bytes, pool.objects) : SWAP_PAGE_SIZE;
	need += pool.live_bytes;
	return need + need / 16 <= zpool_limit(space->pool);
}

static void tier_set_draining(struct swap_tier *tier, bool draining)
{
	spin_lock(&tier->space->tier_lock);
	WRITE_ONCE(tier->draining, draining);
	spin_unlock(&tier->space->tier_lock);
}

int swapoff(struct swap_space *space, struct swap_tier *tier, const struct swapoff_watch *watch)
{
	struct drain d = { .space = space, .tier = tier, .watch = watch };
	unsigned int idle = 0;
	int ret;

	ret = drain_alloc(&d);
	if (ret)
		return ret;
	mutex_lock(&space->tier_mutex);
	tier_set_draining(tier, true);
	d.stop =
		!demote_drain(space, tier, watch ? watch->go_on : NULL, watch ? watch->priv : NULL);
	while (atomic_long_read(&tier->used)) {
		d.moved = false;
		d.no_room = false;
		d.unread = 0;
		if (!d.stop)
			drain_scan(&d);
		if (d.stop) {
			ret = -EINTR;
			break;
		}
		if (d.moved) {
			idle = 0;
		} else if (d.no_room || ++idle > DRAIN_IDLE) {
			ret = -ENOSPC;
			break;
		} else if (!d.lose && d.unread >= (u64)atomic_long_read(&tier->used)) {
			/* There is nothing else left to be saved. */
			d.lose = true;
		} else {
			msleep(1);
		}
	}
	if (ret) {
		tier_set_draining(tier, false);
	} else {
		tier_remove(space, tier);
		if (d.lost)
			ret = -EIO;
	}
	mutex_unlock(&space->tier_mutex);
	drain_free(&d);
	return ret;
}

int swap_migrate(struct swap_space *space, struct swap_tier *from, struct swap_tier *to, u64 bytes,
		 const struct swapoff_watch *watch, u64 *moved)
{
	struct drain d = {
		.space = space,
		.tier = from,
		.migrating = true,
		.to = to,
		.want = bytes / SWAP_PAGE_SIZE + (bytes % SWAP_PAGE_SIZE != 0),
		.watch = watch,
	};
	u64 want = d.want;
	int ret;

	*moved = 0;
	if (!want)
		return 0;
	ret = drain_alloc(&d);
	if (ret)
		return ret;
	/* So that neither of them goes meanwhile. */
	mutex_lock(&space->tier_mutex);
	drain_scan(&d);
	mutex_unlock(&space->tier_mutex);
	drain_free(&d);
	*moved = (want - d.want) * SWAP_PAGE_SIZE;
	return d.error ? d.error : d.stop ? -EINTR : 0;
}
