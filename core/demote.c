// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Demotion: the oldest of a tier to the next slower one, as it is.  And what is the
 * same with other ends: all of a tier to wherever there is room, for swapoff.
 *
 * A tier's clusters carry the clock of when what is in them was evicted, so the
 * oldest clusters are chosen and emptied.  Who owns their slots is not kept
 * anywhere; one scan of the tables finds the entries of all that were chosen.
 * Slots are copied with no lock held, in large reads and writes, raw or compressed
 * as they are, and then each word is looked at again under its cluster's lock, as
 * writeback does it: no fault waits for this.
 *
 * A word that is still the same means bytes that are still the same, for no slot
 * of a cluster that is LEAVING is given out again, and none is written in place:
 * pageout sees the state, as a folio can only have come in front of an entry after
 * that was found without one.  The sum goes with the word, so what was damaged on
 * the way is found when it is read.  A tier that is draining is as if all of its
 * clusters were LEAVING.
 */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "cluster.h"
#include "pageio.h"
#include "tier.h"

/* Clusters a scan of the tables is for, 32 MiB, and pages copied at one go. */
#define DEMOTE_CLUSTERS 16
#define DEMOTE_PAGES	128
/*
 * When all go a scan is for more of them, at most so many, to need no more than so many
 * scans; and the tier is to have several reads under way at a time.
 */
#define DRAIN_CLUSTERS 1024
#define DRAIN_SCANS    64
#define DRAIN_PAGES    512

/* In tenths of a tier: when swap_writeback() begins to make room ahead, and until when. */
#define DEMOTE_BEGIN 9
#define DEMOTE_END   8
/* So many calls a tier is left alone after nothing of it could go. */
#define DEMOTE_REST 64

struct demote_page {
	vswp_entry_t entry;
	struct swap_group *group; /* pinned */
	swap_word_t w;		  /* bare: the slot it had */
	u32 slot;
};

struct demote {
	struct swap_space *space;
	struct swap_tier *tier;
	bool drain; /* all clusters from first on, nr_clusters of them, not those of cluster[] */
	u32 first;
	unsigned int nr_clusters;
	u32 cluster[DEMOTE_CLUSTERS]; /* oldest first */
	unsigned int clock[DEMOTE_CLUSTERS];
	unsigned int nr, max; /* pages of the batch */
	struct demote_page page[DRAIN_PAGES];
	struct swap_io io[DRAIN_PAGES];
	u32 slot[DRAIN_PAGES];
	u8 *pages;	     /* max of them, aligned */
	vswp_entry_t *entry; /* of each slot of the clusters, or 0 */
};

static struct tier_cluster *demote_cluster(struct demote *d, u32 nr)
{
	struct tier_cluster *tc;

	/* tier_mutex keeps clusters that are not current and not empty. */
	rcu_read_lock();
	tc = map_get(&d->space->tier_map, nr);
	rcu_read_unlock();
	return tc;
}

/* Clusters of the tier by age, the @want oldest. */
static void demote_choose(struct demote *d, unsigned int want)
{
	unsigned int i, clock;
	struct tier_cluster *tc;
	u32 nr, end;
	bool used;

	spin_lock(&d->space->tier_map.lock);
	end = d->tier->range.next;
	spin_unlock(&d->space->tier_map.lock);
	d->nr_clusters = 0;
	for (nr = d->tier->first; nr < end; nr++) {
		rcu_read_lock();
		tc = map_get(&d->space->tier_map, nr);
		used = false;
		if (tc) {
			spin_lock(&tc->lock);
			used = tc->used;
			clock = tc->clock;
			spin_unlock(&tc->lock);
		}
		rcu_read_unlock();
		cond_resched();
		if (!used)
			continue;
		/* With each other, not with the time it is: that goes on meanwhile. */
		for (i = d->nr_clusters; i && (int)(clock - d->clock[i - 1]) < 0; i--)
			;
		if (i >= want)
			continue;
		if (d->nr_clusters < want)
			d->nr_clusters++;
		memmove(&d->cluster[i + 1], &d->cluster[i],
			(d->nr_clusters - 1 - i) * sizeof(d->cluster[0]));
		memmove(&d->clock[i + 1], &d->clock[i],
			(d->nr_clusters - 1 - i) * sizeof(d->clock[0]));
		d->cluster[i] = nr;
		d->clock[i] = clock;
	}
}

/* Nothing is given out of the chosen clusters from now on. */
static void demote_begin(struct demote *d)
{
	unsigned int i, n = 0;
	struct tier_cluster *tc;

	spin_lock(&d->space->tier_lock);
	for (i = 0; i < d->nr_clusters; i++) {
		tc = demote_cluster(d, d->cluster[i]);
		if (!tc || (tc->state != TIER_PARTIAL && tc->state != TIER_FULL))
			continue;
		if (tc->state == TIER_PARTIAL)
			list_del(&tc->list);
		WRITE_ONCE(tc->state, TIER_LEAVING);
		d->cluster[n] = d->cluster[i];
		d->clock[n++] = d->clock[i];
	}
	d->nr_clusters = n;
	spin_unlock(&d->space->tier_lock);
}

static void demote_end(struct demote *d)
{
	unsigned int i;
	struct tier_cluster *tc;

	spin_lock(&d->space->tier_lock);
	for (i = 0; i < d->nr_clusters; i++) {
		tc = demote_cluster(d, d->cluster[i]);
		spin_lock(&tc->lock);
		tier_cluster_place(d->tier, tc);
		spin_unlock(&tc->lock);
	}
	spin_unlock(&d->space->tier_lock);
}

/* Which of the clusters is that?  nr_clusters: none of them. */
static unsigned int demote_index(const struct demote *d, u32 nr)
{
	unsigned int i;

	if (d->drain)
		return min_t(u32, nr - d->first, d->nr_clusters);
	for (i = 0; i < d->nr_clusters && d->cluster[i] != nr; i++)
		;
	return i;
}

/* Whose are the slots of the chosen clusters? */
static void demote_scan(struct demote *d)
{
	struct swap_space *space = d->space;
	struct swap_cluster *c;
	unsigned int off, i;
	u32 nr, end, slot;
	swap_word_t w;

	memset(d->entry, 0, d->nr_clusters * SWAP_CLUSTER_SLOTS * sizeof(*d->entry));
	spin_lock(&space->map.lock);
	end = space->map.size;
	spin_unlock(&space->map.lock);
	for (nr = 1; nr < end; nr++) {
		if (!READ_ONCE(space->map.top[nr >> MAP_LEAF_SHIFT])) {
			nr |= MAP_LEAF_SIZE - 1;
			continue;
		}
		rcu_read_lock();
		c = map_get(&space->map, nr);
		for (off = 0; c && off < SWAP_CLUSTER_SLOTS; off++) {
			w = cluster_word(c, off);
			if (!tier_has(d->tier, w))
				continue;
			slot = word_slot_nr(w);
			i = demote_index(d, slot >> SWAP_CLUSTER_SHIFT);
			if (i < d->nr_clusters)
				d->entry[i * SWAP_CLUSTER_SLOTS + slot % SWAP_CLUSTER_SLOTS] =
					cluster_entry(c, off);
		}
		rcu_read_unlock();
		cond_resched();
	}
}

/* Into the batch, if the entry still has that slot. */
static void demote_gather(struct demote *d, vswp_entry_t entry, u32 slot)
{
	struct swap_cluster *c = cluster_lock(d->space, entry);
	swap_word_t w;

	if (!c)
		return;
	w = cluster_word(c, entry_offset(entry));
	if (word_where(w) == SWAP_SLOT && word_slot_nr(w) == slot) {
		struct demote_page *p = &d->page[d->nr++];

		p->entry = entry;
		p->w = word_bare(w);
		p->group = cluster_group(d->space, c);
		group_pin(p->group);
	}
	cluster_unlock(c);
}

/* The page is where @to says now: let the entry say so.  True if it does. */
static bool demote_settle(struct demote *d, const struct demote_page *p, swap_word_t to)
{
	struct swap_cluster *c = cluster_lock(d->space, p->entry);
	unsigned int off = entry_offset(p->entry);
	bool same = false;
	swap_word_t w;

	if (c) {
		w = cluster_word(c, off);
		same = word_bare(w) == p->w && c->group == p->group->nr;
		if (same)
			cluster_set_word(c, off, word_with_count(to, word_count(w)));
		cluster_unlock(c);
	}
	if (same)
		tier_give_back(d->space, p->group, word_slot_nr(p->w));
	return same;
}

/* Is it what was written?  The pool keeps no sums, and a tier that goes is the last to ask. */
static bool demote_intact(const struct demote_page *p, const void *page)
{
	const struct slot_object *object = page;
	u64 sum;

	if (!(p->w & WORD_SLOT_OBJECT))
		return word_sum_is(p->w, slot_page_sum(p->entry, page));
	if (!object->len || object->len > SLOT_OBJECT_MAX || object->comp >= SWAP_COMPS)
		return false;
	sum = slot_object_sum(p->entry, object);
	return sum == object->sum && word_sum_is(p->w, sum);
}

/* An object that was read, back into the pool if that has room.  True: the entry says so. */
static bool demote_to_pool(struct demote *d, const struct demote_page *p,
			   const struct slot_object *object, unsigned int clock)
{
	struct swap_space *space = d->space;
	unsigned long addr;
	u32 bytes;

	if (!(p->w & WORD_SLOT_OBJECT) || smp_load_acquire(&space->comp) < 0 ||
	    group_is_direct(p->group))
		return false;
	bytes = zpool_object_bytes(object->len);
	if (!group_charge(p->group, GROUP_POOL, bytes, bytes))
		return false;
	if (zpool_store(space->pool, p->entry, object->data, object->len, object->comp, &addr)) {
		group_uncharge(p->group, GROUP_POOL, bytes);
		return false;
	}
	if (demote_settle(d, p, word_with_shadow(word_zpool(addr), clock)))
		return true;
	zpool_free(space->pool, addr);
	group_uncharge(p->group, GROUP_POOL, bytes);
	return false;
}

/* Slots of one tier for pages from @from on. */
static unsigned int demote_slots(struct demote *d, unsigned int clock, unsigned int from,
				 struct swap_tier **to)
{
	/* Each takes the place of one that goes, so no limit counts. */
	struct tier_want want = {
		.below = d->drain ? NULL : d->tier,
		.clock = clock,
		.over = true,
	};
	unsigned int got = 0, run, n;

	while (from + got < d->nr) {
		const struct demote_page *p = &d->page[from + got];

		for (run = 1; from + got + run < d->nr && p[run].group == p->group; run++)
			;
		want.group = p->group;
		n = tier_alloc(d->space, &want, run, d->slot + got, to);
		got += n;
		if (n < run)
			break;
		want.only = *to;
	}
	return got;
}

/* Copy the batch.  Returns how many pages moved. */
static unsigned int demote_batch(struct demote *d, unsigned int clock)
{
	unsigned int i, n, good = 0, done = 0, moved = 0;
	struct swap_tier *to;

	for (i = 0; i < d->nr; i++) {
		d->io[i].slot = tier_local(d->tier, word_slot_nr(d->page[i].w));
		d->io[i].data = d->pages + i * SWAP_PAGE_SIZE;
	}
	tier_read(d->tier, d->io, d->nr);
	/* What cannot be read stays: somebody who needs it will hear of it. */
	for (i = 0; i < d->nr; i++) {
		if (d->io[i].error || (d->drain && !demote_intact(&d->page[i], d->io[i].data))) {
			group_unpin(d->page[i].group);
			continue;
		}
		if (d->drain && demote_to_pool(d, &d->page[i], d->io[i].data, clock)) {
			group_unpin(d->page[i].group);
			moved++;
			continue;
		}
		d->page[good] = d->page[i];
		d->io[good++].data = d->io[i].data;
	}
	d->nr = good;
	while (done < d->nr) {
		n = demote_slots(d, clock, done, &to);
		if (!n) {
			done++;
			continue;
		}
		for (i = 0; i < n; i++) {
			d->page[done + i].slot = d->slot[i];
			d->io[done + i].slot = tier_local(to, d->slot[i]);
		}
		tier_write(to, d->io + done, n);
		for (i = done; i < done + n; i++) {
			struct demote_page *p = &d->page[i];

			if (!d->io[i].error && demote_settle(d, p, word_move_slot(p->w, p->slot)))
				moved++;
			else
				tier_give_back(d->space, p->group, p->slot);
		}
		done += n;
	}
	for (i = 0; i < d->nr; i++)
		group_unpin(d->page[i].group);
	d->nr = 0;
	cond_resched();
	return moved;
}

/* One scan's worth.  Returns how many pages moved.  Under tier_mutex. */
static u64 demote_round(struct demote *d, u64 pages)
{
	unsigned int i, off;
	u64 moved = 0;

	demote_choose(d, (unsigned int)min_t(u64, DIV_ROUND_UP(pages, (u64)SWAP_CLUSTER_SLOTS),
					     DEMOTE_CLUSTERS));
	demote_begin(d);
	if (!d->nr_clusters)
		return 0;
	demote_scan(d);
	for (i = 0; i < d->nr_clusters && moved < pages; i++) {
		for (off = 0; off < SWAP_CLUSTER_SLOTS; off++) {
			vswp_entry_t entry = d->entry[i * SWAP_CLUSTER_SLOTS + off];

			if (entry.val)
				demote_gather(d, entry, d->cluster[i] << SWAP_CLUSTER_SHIFT | off);
			if (d->nr == d->max)
				moved += demote_batch(d, d->clock[i]);
		}
		if (d->nr)
			moved += demote_batch(d, d->clock[i]);
	}
	demote_end(d);
	return moved;
}

/* What both need, for scans of @nr clusters, batches of @max pages; NULL: out of memory. */
static struct demote *demote_alloc(struct swap_space *space, struct swap_tier *tier,
				   unsigned int nr, unsigned int max)
{
	/* One page more, as only this much alignment is promised to nobody. */
	const size_t pages = (max + 1) * SWAP_PAGE_SIZE;
	const size_t entries = nr * SWAP_CLUSTER_SLOTS * sizeof(vswp_entry_t);
	struct demote *d = kvmalloc(sizeof(*d) + entries + pages, GFP_KERNEL);

	if (!d)
		return NULL;
	*d = (struct demote){
		.space = space,
		.tier = tier,
		.max = max,
		.entry = (vswp_entry_t *)(d + 1),
	};
	d->pages = (u8 *)ALIGN((unsigned long)(d + 1) + entries, SWAP_PAGE_SIZE);
	return d;
}

/* Under tier_mutex.  Returns how many pages moved. */
static u64 demote(struct swap_space *space, struct swap_tier *tier, u64 pages)
{
	struct demote *d = demote_alloc(space, tier, DEMOTE_CLUSTERS, DEMOTE_PAGES);
	u64 moved = 0, now;

	if (!d)
		return 0;
	do {
		now = demote_round(d, pages - moved);
		moved += now;
	} while (now && moved < pages);
	kvfree(d);
	return moved;
}

/* One scan's worth of a drain; false: @go_on said so. */
static bool drain_round(struct demote *d, bool (*go_on)(void *priv, u64 left), void *priv)
{
	unsigned int i, clock = 0;
	vswp_entry_t entry;
	u32 slot;

	demote_scan(d);
	for (i = 0; i < d->nr_clusters * SWAP_CLUSTER_SLOTS; i++) {
		entry = d->entry[i];
		slot = (d->first << SWAP_CLUSTER_SHIFT) + i;
		if (entry.val && (d->nr || tier_clock(d->space, slot, &clock)))
			demote_gather(d, entry, slot);
		if (d->nr != d->max)
			continue;
		demote_batch(d, clock);
		if (go_on && !go_on(priv, (u64)atomic_long_read(&d->tier->used)))
			return false;
	}
	if (d->nr)
		demote_batch(d, clock);
	return true;
}

bool demote_drain(struct swap_space *space, struct swap_tier *tier,
		  bool (*go_on)(void *priv, u64 left), void *priv)
{
	unsigned int nr = clamp_t(unsigned int, (tier->range.next - tier->first) / DRAIN_SCANS,
				  DEMOTE_CLUSTERS, DRAIN_CLUSTERS);
	struct demote *d = demote_alloc(space, tier, nr, DRAIN_PAGES);
	bool on = true;

	if (!d)
		return true;
	d->drain = true;
	/* No cluster is added any more. */
	for (d->first = tier->first; on && d->first < tier->range.next; d->first += nr) {
		d->nr_clusters = min(nr, tier->range.next - d->first);
		on = drain_round(d, go_on, priv);
	}
	kvfree(d);
	return on;
}

u64 swap_demote(struct swap_space *space, struct swap_tier *tier, u64 bytes)
{
	/* DIV_ROUND_UP() of U64_MAX, all of it, would wrap. */
	u64 pages = bytes / SWAP_PAGE_SIZE + (bytes % SWAP_PAGE_SIZE != 0), moved;

	mutex_lock(&space->tier_mutex);
	moved = demote(space, tier, pages);
	mutex_unlock(&space->tier_mutex);
	return moved * SWAP_PAGE_SIZE;
}

/* Pages to move out of the @i-th tier to be ready for more. */
static u64 demote_excess(struct swap_space *space, unsigned int i)
{
	struct swap_tier *tier = space->tiers[i];
	u64 used = (u64)atomic_long_read(&tier->used), end;
	u32 room = tier_room(space), below = 0;
	unsigned int k;

	/* Whoever waits for a store to come back must not keep others from leaving. */
	if (tier->ops->away && tier->ops->away(tier->priv))
		return 0;

	for (k = i + 1; k < space->nr_tiers; k++)
		if (space->tiers[k]->prio < tier->prio)
			below |= 1U << space->tiers[k]->nr;
	if (!(room & below))
		return 0;
	/* What said ENOSPC has no more than is in it now. */
	end = READ_ONCE(tier->full) ? used : tier->nr_slots;
	if (used < end - end / 10 * (10 - DEMOTE_BEGIN))
		return 0;
	return min_t(u64, used - end / 10 * DEMOTE_END, DEMOTE_CLUSTERS * SWAP_CLUSTER_SLOTS);
}

void demote_ahead(struct swap_space *space)
{
	struct swap_tier *tier;
	unsigned int i;
	u64 pages;

	/* Not worth waiting for a swapoff. */
	if (!mutex_trylock(&space->tier_mutex))
		return;
	/* The slower ones first, so that there is room for what comes from above. */
	for (i = space->nr_tiers; i--;) {
		tier = space->tiers[i];
		if (tier->rest) {
			tier->rest--;
			continue;
		}
		pages = demote_excess(space, i);
		if (pages && !demote(space, tier, pages))
			tier->rest = DEMOTE_REST;
	}
	mutex_unlock(&space->tier_mutex);
}
