// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Tiers inside core: which slots of which store are taken.
 */
#define pr_fmt(fmt) "vswap: " fmt

#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "tier.h"
#include "writeback.h"

/*
 * After ENOSPC a tier is tried again when so many slots of it were given back, or
 * so many pages passed by: the room may be somebody else's to give.  More pages
 * than all other tiers can refuse of one batch, so a batch never comes twice.
 */
#define FULL_RETRY	  256
#define FULL_RETRY_PASSED 16384

/* ---- clusters -------------------------------------------------------- */

static u32 tier_cluster_slots(const struct swap_tier *tier, u32 nr)
{
	u64 left = tier->nr_slots - tier_local(tier, nr << SWAP_CLUSTER_SHIFT);

	return min_t(u64, left, SWAP_CLUSTER_SLOTS);
}

static void tier_cluster_free_rcu(struct rcu_head *rcu)
{
	struct tier_cluster *tc = container_of(rcu, struct tier_cluster, rcu);

	mempool_free(tc, tc->tier->space->tier_clusters);
}

static struct tier_cluster *tier_cluster_make(struct swap_tier *tier)
{
	struct swap_space *space = tier->space;
	struct tier_cluster *tc = mempool_alloc(space->tier_clusters, GFP_NOWAIT | __GFP_NOWARN);
	u32 slots;

	lockdep_assert_held(&space->tier_lock);
	if (!tc)
		return NULL;
	memset(tc, 0, sizeof(*tc));
	tc->tier = tier;
	spin_lock_init(&tc->lock);
	lockdep_set_subclass(&tc->lock, SWAP_RANK_TIER_CLUSTER);
	if (map_add(&space->tier_map, &tier->range, tc, &tc->nr)) {
		mempool_free(tc, space->tier_clusters);
		return NULL;
	}
	slots = tier_cluster_slots(tier, tc->nr);
	bitmap_set(tc->taken, slots, SWAP_CLUSTER_SLOTS - slots);
	tier->nr_clusters++;
	atomic_long_inc(&space->nr_tier_clusters);
	return tc;
}

/*
 * An EMPTY cluster off its list (or whose tier goes with it), or a CURRENT one, that has
 * no slot taken: gone.
 */
static void tier_cluster_die(struct swap_tier *tier, struct tier_cluster *tc)
{
	struct swap_space *space = tier->space;

	lockdep_assert_held(&space->tier_lock);
	WRITE_ONCE(tc->state, TIER_DEAD);
	tier->nr_clusters--;
	atomic_long_dec(&space->nr_tier_clusters);
	map_del(&space->tier_map, &tier->range, tc->nr);
	call_rcu(&tc->rcu, tier_cluster_free_rcu);
}

static struct tier_cluster *tier_from_list(struct list_head *list)
{
	struct tier_cluster *tc = list_first_entry_or_null(list, struct tier_cluster, list);

	if (tc)
		list_del(&tc->list);
	return tc;
}

/* Make another cluster current.  @fresh: rather one with no slot taken. */
static struct tier_cluster *tier_next_cluster(struct swap_tier *tier, bool fresh)
{
	u64 slots = (u64)tier->nr_clusters * SWAP_CLUSTER_SLOTS;
	bool sparse = slots > 2 * (u64)atomic_long_read(&tier->used) + 2 * SWAP_CLUSTER_SLOTS;
	struct tier_cluster *tc = NULL;

	lockdep_assert_held(&tier->space->tier_lock);
	if (sparse && !fresh)
		tc = tier_from_list(&tier->partial);
	if (!tc)
		tc = tier_from_list(&tier->empty);
	if (!tc)
		tc = tier_cluster_make(tier);
	if (!tc)
		tc = tier_from_list(&tier->partial);
	if (tc) {
		WRITE_ONCE(tc->state, TIER_CURRENT);
		spin_lock(&tc->lock);
		tc->next = 0;
		spin_unlock(&tc->lock);
	}
	tier->current_cluster = tc;
	return tc;
}

/* Put a locked cluster that is on no list where it belongs. */
void tier_cluster_place(struct swap_tier *tier, struct tier_cluster *tc)
{
	lockdep_assert_held(&tier->space->tier_lock);
	lockdep_assert_held(&tc->lock);
	if (!tc->used) {
		WRITE_ONCE(tc->state, TIER_EMPTY);
		list_add(&tc->list, &tier->empty);
	} else if (tc->used < tier_cluster_slots(tier, tc->nr)) {
		WRITE_ONCE(tc->state, TIER_PARTIAL);
		list_add_tail(&tc->list, &tier->partial);
	} else {
		WRITE_ONCE(tc->state, TIER_FULL);
	}
}

/* Slots of the current cluster, which is no longer current when it is gone through. */
static unsigned int tier_cluster_take(struct swap_tier *tier, struct tier_cluster *tc,
				      unsigned int nr, unsigned int clock, u32 *slots)
{
	unsigned int got;
	unsigned long bit;

	spin_lock(&tc->lock);
	bit = find_next_zero_bit(tc->taken, SWAP_CLUSTER_SLOTS, tc->next);
	for (got = 0; got < nr && bit < SWAP_CLUSTER_SLOTS; got++) {
		__set_bit(bit, tc->taken);
		slots[got] = tc->nr << SWAP_CLUSTER_SHIFT | (u32)bit;
		bit = find_next_zero_bit(tc->taken, SWAP_CLUSTER_SLOTS, bit + 1);
	}
	if (!tc->used || (int)(clock - tc->clock) > 0)
		tc->clock = clock;
	tc->used += got;
	tc->next = bit;
	atomic_long_add(got, &tier->used);
	if (bit == SWAP_CLUSTER_SLOTS) {
		tier->current_cluster = NULL;
		tier->turn = ++tier->space->tier_turn;
		tier_cluster_place(tier, tc);
	}
	spin_unlock(&tc->lock);
	return got;
}

/* A run of slots, all or nothing, out of the current cluster or else a fresh one. */
static unsigned int tier_take_run(struct swap_tier *tier, unsigned int nr, unsigned int clock,
				  u32 *slots)
{
	struct tier_cluster *tc = tier->current_cluster;
	unsigned long bit = SWAP_CLUSTER_SLOTS;

	if (tc) {
		spin_lock(&tc->lock);
		bit = bitmap_find_next_zero_area(tc->taken, SWAP_CLUSTER_SLOTS, tc->next, nr, 0);
		if (bit + nr > SWAP_CLUSTER_SLOTS)
			tier_cluster_place(tier, tc);
		else
			tc->next = bit;
		spin_unlock(&tc->lock);
	}
	if (bit + nr > SWAP_CLUSTER_SLOTS) {
		tc = tier_next_cluster(tier, true);
		if (!tc)
			return 0;
		spin_lock(&tc->lock);
		bit = bitmap_find_next_zero_area(tc->taken, SWAP_CLUSTER_SLOTS, 0, nr, 0);
		if (bit + nr <= SWAP_CLUSTER_SLOTS)
			tc->next = bit;
		spin_unlock(&tc->lock);
		if (bit + nr > SWAP_CLUSTER_SLOTS)
			return 0;
	}
	/* Only allocations take slots, and the lock on those is held. */
	return tier_cluster_take(tier, tc, nr, clock, slots);
}

static unsigned int tier_take(struct swap_tier *tier, unsigned int nr, bool run, unsigned int clock,
			      u32 *slots)
{
	unsigned int got = run ? tier_take_run(tier, nr, clock, slots) : 0;
	struct tier_cluster *tc;

	while (got < nr) {
		tc = tier->current_cluster;
		if (!tc)
			tc = tier_next_cluster(tier, false);
		if (!tc)
			break;
		got += tier_cluster_take(tier, tc, nr - got, clock, slots + got);
	}
	return got;
}

static bool tier_away(const struct swap_tier *tier)
{
	return tier->ops->away && tier->ops->away(tier->priv);
}

/* The one of @from that is next: of the highest priority, and the longest without a turn. */
static struct swap_tier *tier_choose(struct swap_space *space, u32 from)
{
	struct swap_tier *t, *best = NULL;
	unsigned int i;

	for (i = 0; i < space->nr_tiers; i++) {
		t = space->tiers[i];
		if (!(from & 1U << t->nr))
			continue;
		if (best && t->prio < best->prio)
			break;
		if (!best || t->turn < best->turn)
			best = t;
	}
	return best;
}

/* Tiers that may be asked, a bit for each; in *@away those that would be waited for. */
static u32 tier_candidates(struct swap_space *space, const struct tier_want *want, unsigned int nr,
			   u32 *away)
{
	u32 mask = group_tiers(want->group), from = 0;
	unsigned int i;

	*away = 0;
	for (i = 0; i < space->nr_tiers; i++) {
		struct swap_tier *t = space->tiers[i];

		if ((want->only && t != want->only) || t->draining || t->failed ||
		    !(mask & 1U << t->nr) || (want->below && t->prio >= want->below->prio))
			continue;
		if (!t->full) {
			if (tier_away(t))
				*away |= 1U << t->nr;
			else
				from |= 1U << t->nr;
			continue;
		}
		t->passed += nr;
		if (t->passed >= FULL_RETRY_PASSED)
			WRITE_ONCE(t->full, false);
	}
	return from;
}

unsigned int tier_alloc(struct swap_space *space, const struct tier_want *want, unsigned int nr,
			u32 *slots, struct swap_tier **tier)
{
	unsigned int got = 0;
	struct swap_tier *t;
	u32 from, away;

	if (want->over)
		group_charge_over(want->group, GROUP_SWAP, nr);
	else
		nr = (unsigned int)group_charge(want->group, GROUP_SWAP, nr, 1);
	if (!nr)
		return 0;
	spin_lock(&space->tier_lock);
	from = tier_candidates(space, want, nr, &away);
	while (!got && (from || away)) {
		/* What is away is waited for only when nobody else has room. */
		t = tier_choose(space, from ? from : away);
		got = tier_take(t, nr, want->run, want->clock, slots);
		*tier = t;
		from &= ~(1U << t->nr);
		if (!from && !got)
			away &= ~(1U << t->nr);
	}
	spin_unlock(&space->tier_lock);
	group_uncharge(want->group, GROUP_SWAP, nr - got);
	return got;
}

u32 tier_room(struct swap_space *space)
{
	unsigned int i;
	u32 room = 0;

	spin_lock(&space->tier_lock);
	for (i = 0; i < space->nr_tiers; i++) {
		const struct swap_tier *t = space->tiers[i];

		if (!t->draining && !t->failed && !t->full && !tier_away(t) &&
		    (u64)atomic_long_read(&t->used) < t->nr_slots)
			room |= 1U << t->nr;
	}
	spin_unlock(&space->tier_lock);
	return room;
}

/* A cluster's slots were given back and its state may not fit any more. */
static void tier_settle(struct swap_tier *tier, struct tier_cluster *tc, unsigned int nr)
{
	struct swap_space *space = tier->space;

	spin_lock(&space->tier_lock);
	spin_lock(&tc->lock);
	if (tc->state == TIER_FULL || (tc->state == TIER_PARTIAL && !tc->used)) {
		if (tc->state == TIER_PARTIAL)
			list_del(&tc->list);
		tier_cluster_place(tier, tc);
	}
	spin_unlock(&tc->lock);
	if (tier->full) {
		tier->freed += nr;
		if (tier->freed >= FULL_RETRY)
			WRITE_ONCE(tier->full, false);
	}
	spin_unlock(&space->tier_lock);
}

void tier_free(struct swap_space *space, u32 slot, unsigned int nr)
{
	struct tier_cluster *tc;
	struct swap_tier *tier;
	bool settle;

	/* Keeps tier and cluster while swapoff may take both away. */
	rcu_read_lock();
	tc = map_get(&space->tier_map, slot >> SWAP_CLUSTER_SHIFT);
	tier = tc->tier;
	spin_lock(&tc->lock);
	bitmap_clear(tc->taken, slot % SWAP_CLUSTER_SLOTS, nr);
	settle = tc->used == nr || tc->used == tier_cluster_slots(tier, tc->nr);
	tc->used -= nr;
	spin_unlock(&tc->lock);
	atomic_long_sub(nr, &tier->used);
	if (settle || READ_ONCE(tier->full))
		tier_settle(tier, tc, nr);
	rcu_read_unlock();
}

void tier_give_back(struct swap_space *space, struct swap_group *group, u32 slot)
{
	group_uncharge(group, GROUP_SWAP, 1);
	tier_free(space, slot, 1);
}

void tier_discard(struct swap_space *space)
{
	struct swap_tier *tier;
	struct tier_cluster *tc;
	LIST_HEAD(parked);
	unsigned int i;
	int ret;

	/* Not worth waiting for a swapoff: what it drains is not used again. */
	if (!mutex_trylock(&space->tier_mutex))
		return;
	for (i = 0; i < space->nr_tiers; i++) {
		tier = space->tiers[i];
		list_splice_init(&tier->parked, &parked);
		for (;;) {
			tc = tier_from_list(&parked);
			if (!tc) {
				spin_lock(&space->tier_lock);
				tc = tier_from_list(&tier->empty);
				spin_unlock(&space->tier_lock);
			}
			if (!tc)
				break;
			ret = 0;
			if (tier->ops->discard)
				ret = tier->ops->discard(
					tier->priv, tier_local(tier, tc->nr << SWAP_CLUSTER_SHIFT),
					tier_cluster_slots(tier, tc->nr));
			/* Its number would be the next one given out. */
			if (ret == -EAGAIN) {
				list_add_tail(&tc->list, &tier->parked);
				continue;
			}
			spin_lock(&space->tier_lock);
			tier_cluster_die(tier, tc);
			spin_unlock(&space->tier_lock);
		}
	}
	mutex_unlock(&space->tier_mutex);
}

/* ---- lookups --------------------------------------------------------- */

struct swap_tier *tier_of(struct swap_space *space, u32 slot)
{
	struct tier_cluster *tc;
	struct swap_tier *tier;

	rcu_read_lock();
	tc = map_get(&space->tier_map, slot >> SWAP_CLUSTER_SHIFT);
	tier = tc->tier;
	rcu_read_unlock();
	return tier;
}

bool tier_slot_stays(struct swap_space *space, u32 slot)
{
	struct tier_cluster *tc;
	bool stays;

	rcu_read_lock();
	tc = map_get(&space->tier_map, slot >> SWAP_CLUSTER_SHIFT);
	stays = READ_ONCE(tc->state) != TIER_LEAVING && !READ_ONCE(tc->tier->draining) &&
		!READ_ONCE(tc->tier->failed);
	rcu_read_unlock();
	return stays;
}

bool tier_clock(struct swap_space *space, u32 slot, unsigned int *clock)
{
	struct tier_cluster *tc;

	rcu_read_lock();
	tc = map_get(&space->tier_map, slot >> SWAP_CLUSTER_SHIFT);
	if (tc) {
		spin_lock(&tc->lock);
		*clock = tc->clock;
		spin_unlock(&tc->lock);
	}
	rcu_read_unlock();
	return tc;
}

/* ---- I/O ------------------------------------------------------------- */

void tier_write(struct swap_tier *tier, struct swap_io *io, unsigned int nr)
{
	struct swap_space *space = tier->space;
	unsigned int i, good = 0, full = 0, other = 0;
	bool first, first_full = false;
	int error = 0;

	for (i = 0; i < nr; i++)
		io[i].error = 0;
	tier->ops->write(tier->priv, io, nr);
	for (i = 0; i < nr; i++) {
		if (!io[i].error)
			good++;
		else if (io[i].error == -ENOSPC)
			full++;
		else if (io[i].error == -EAGAIN || io[i].error == -EFAULT)
			other++; /* the store is as good as it was */
		else
			error = io[i].error;
	}
	atomic64_add((s64)good * SWAP_PAGE_SIZE, &tier->bytes_written);
	space_event(space, pswpout, good);
	if (good == nr)
		return;
	space_event(space, write_errors, nr - good - full - other);
	spin_lock(&space->tier_lock);
	if (full) {
		/* The caller gives back the slots that failed: that is no room. */
		tier->freed = (tier->full ? tier->freed : 0) - (int)full;
		tier->passed = 0;
		WRITE_ONCE(tier->full, true);
		first_full = !tier->was_full;
		tier->was_full = true;
	}
	first = error && !tier->failed;
	if (error)
		WRITE_ONCE(tier->failed, true);
	spin_unlock(&space->tier_lock);
	if (first_full)
		pr_warn("tier %s: no space left under it: full at %ld of %llu pages (free some there, or add another tier)\n",
			tier->name, atomic_long_read(&tier->used) - (long)full, tier->nr_slots);
	if (first)
		pr_err("tier %s: write error %d: nothing more is written there (replace it, or add another tier)\n",
		       tier->name, -error);
}

void tier_read(struct swap_tier *tier, struct swap_io *io, unsigned int nr)
{
	unsigned int i, n, good = 0;

	for (i = 0; i < nr; i++)
		io[i].error = 0;
	tier->ops->read(tier->priv, io, nr);
	/* Runs of what failed once more: what is lost is lost for good. */
	for (i = 0; i < nr; i += n) {
		for (n = 0; i + n < nr && io[i + n].error; n++)
			io[i + n].error = 0;
		if (n)
			tier->ops->read(tier->priv, &io[i], n);
		else
			n = 1;
	}
	for (i = 0; i < nr; i++)
		good += !io[i].error;
	atomic64_add((s64)good * SWAP_PAGE_SIZE, &tier->bytes_read);
	space_event(tier->space, pswpin, good);
}

/* ---- coming and going ------------------------------------------------ */

/* A gap in the numbers of clusters that holds @want of them, or the largest one. */
static u32 tier_find_range(struct swap_space *space, u64 want, u32 *nr)
{
	u32 at = 1, best = 0, end, i;

	*nr = 0;
	while (at < SPACE_TIER_CLUSTERS) {
		u32 past = 0;

		end = SPACE_TIER_CLUSTERS;
		for (i = 0; i < space->nr_tiers; i++) {
			struct swap_tier *t = space->tiers[i];

			if (t->first <= at && at < t->range.end)
				past = t->range.end;
			else if (t->first > at)
				end = min(end, t->first);
		}
		if (past) {
			at = past;
			continue;
		}
		if (end - at > *nr) {
			*nr = end - at;
			best = at;
		}
		if (*nr >= want)
			break;
		at = end;
	}
	*nr = min_t(u64, *nr, want);
	return best;
}

struct swap_tier *swap_tier_add(struct swap_space *space, const struct swap_tier_conf *conf)
{
	struct swap_tier *tier;
	unsigned int i;
	u32 taken = 0;
	u64 want = DIV_ROUND_UP(conf->nr_slots, (u64)SWAP_CLUSTER_SLOTS);
	int ret = -ENOMEM;
	u32 nr;

	tier = kzalloc(sizeof(*tier), GFP_KERNEL);
	if (!tier)
		return ERR_PTR(-ENOMEM);
	tier->name = kstrdup(conf->name, GFP_KERNEL);
	if (!tier->name)
		goto fail;
	tier->space = space;
	tier->ops = conf->ops;
	tier->priv = conf->priv;
	tier->prio = conf->prio;
	INIT_LIST_HEAD(&tier->partial);
	INIT_LIST_HEAD(&tier->empty);
	INIT_LIST_HEAD(&tier->parked);

	mutex_lock(&space->tier_mutex);
	ret = writeback_prepare(space);
	if (!ret && space->nr_tiers == SWAP_MAX_TIERS)
		ret = -ENOSPC;
	if (ret)
		goto unlock;
	tier->first = tier_find_range(space, want, &nr);
	if (!nr) {
		ret = -ENOSPC;
		goto unlock;
	}
	tier->nr_slots = min_t(u64, conf->nr_slots, (u64)nr * SWAP_CLUSTER_SLOTS);
	if (tier->nr_slots < conf->nr_slots)
		pr_warn("tier %s: %llu of its %llu pages used: all tiers together hold 4 TiB\n",
			tier->name, tier->nr_slots, conf->nr_slots);
	tier->range = (struct swap_map_range){ .next = tier->first, .end = tier->first + nr };
	spin_lock(&space->tier_lock);
	for (i = 0; i < space->nr_tiers; i++)
		taken |= 1U << space->tiers[i]->nr;
	while (taken & 1U << tier->nr)
		tier->nr++;
	for (i = space->nr_tiers++; i && space->tiers[i - 1]->prio < tier->prio; i--)
		space->tiers[i] = space->tiers[i - 1];
	space->tiers[i] = tier;
	spin_unlock(&space->tier_lock);
	mutex_unlock(&space->tier_mutex);
	return tier;

unlock:
	mutex_unlock(&space->tier_mutex);
fail:
	kfree(tier->name);
	kfree(tier);
	return ERR_PTR(ret);
}

void tier_remove(struct swap_space *space, struct swap_tier *tier)
{
	struct tier_cluster *tc;
	unsigned int i;
	u32 nr;

	spin_lock(&space->tier_lock);
	for (i = 0; space->tiers[i] != tier; i++)
		;
	for (space->nr_tiers--; i < space->nr_tiers; i++)
		space->tiers[i] = space->tiers[i + 1];
	for (nr = tier->first; nr < tier->range.next; nr++) {
		rcu_read_lock();
		tc = map_get(&space->tier_map, nr);
		rcu_read_unlock();
		if (tc)
			tier_cluster_die(tier, tc);
	}
	map_forget(&space->tier_map, &tier->range, tier->first);
	spin_unlock(&space->tier_lock);
	/* Lookups still under way, then the callbacks, which look at the tier. */
	synchronize_rcu();
	rcu_barrier();
	kfree(tier->name);
	kfree(tier);
}

bool swap_tier_stat(struct swap_space *space, unsigned int i, struct swap_tier_stat *stat)
{
	struct swap_tier *tier;
	bool found;

	spin_lock(&space->tier_lock);
	found = i < space->nr_tiers;
	if (found) {
		tier = space->tiers[i];
		*stat = (struct swap_tier_stat){
			.name = tier->name,
			.priv = tier->priv,
			.prio = tier->prio,
			.nr = tier->nr,
			.full = tier->full || (u64)atomic_long_read(&tier->used) >= tier->nr_slots,
			.failed = tier->failed,
			.nr_slots = tier->nr_slots,
			.slots_used = atomic_long_read(&tier->used),
			.bytes_written = atomic64_read(&tier->bytes_written),
			.bytes_read = atomic64_read(&tier->bytes_read),
		};
	}
	spin_unlock(&space->tier_lock);
	return found;
}
