// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Entries by number: given out, counted, given back.
 */
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/kernel.h>

#include "cluster.h"
#include "swap.h"
#include "tier.h"

vswp_entry_t swap_alloc(struct swap_space *space, struct swap_group *group, unsigned int order)
{
	vswp_entry_t entry = vswp_entry(0);

	if (!group)
		group = space->root;
	if (likely(!order))
		return cluster_alloc_slot(space, group);
	if (!WARN_ON(order > SWAP_MAX_ORDER))
		cluster_alloc(space, group, order, NULL, 1, &entry);
	return entry;
}

int folio_alloc_swap(struct swap_space *space, struct swap_group *group, struct swap_folio *folio)
{
	vswp_entry_t entry;

	WARN_ON(swap_folio_test(folio, SWAP_FOLIO_CACHED));
	return cluster_alloc(space, group ? group : space->root, folio->order, &folio, 1, &entry) ?
		       0 :
		       -ENOMEM;
}

unsigned int folios_alloc_swap(struct swap_space *space, struct swap_group *group,
			       struct swap_folio **folios, unsigned int nr)
{
	vswp_entry_t entry;

	return cluster_alloc(space, group ? group : space->root, 0, folios, nr, &entry);
}

int folio_claim_swap(struct swap_space *space, struct swap_group *group, struct swap_folio *folio,
		     vswp_entry_t entry)
{
	unsigned int i, size = 1U << folio->order, off = entry_offset(entry);
	struct swap_cluster *c;
	int ret = 0;

	if (!entry_cluster(entry) || off & (size - 1))
		return -EINVAL;
	if (!group)
		group = space->root;
	c = cluster_claim(space, group, entry_cluster(entry));
	if (IS_ERR(c))
		return PTR_ERR(c);
	/* A cluster serves one group: to another all of it is in use. */
	if (c->group != group->nr)
		ret = -EBUSY;
	for (i = 0; i < size && !ret; i++)
		if (cluster_word(c, off + i))
			ret = -EBUSY;
	if (!ret)
		cluster_install(space, c, off, folio);
	/* An unused cluster that was made for nothing goes again. */
	cluster_put_slots(space, c, off, 0);
	return ret;
}

int swap_dup_range(struct swap_space *space, vswp_entry_t entry, unsigned int nr)
{
	unsigned int done = 0, off, end;
	struct swap_cluster *c;
	int ret = 0;

	while (done < nr && !ret) {
		c = cluster_lock(space, vswp_entry(entry.val + done));
		if (!c) {
			ret = -ENOENT;
			break;
		}
		off = entry_offset(vswp_entry(entry.val + done));
		end = min_t(unsigned int, off + nr - done, SWAP_CLUSTER_SLOTS);
		for (; off < end && !ret; off++) {
			ret = cluster_word(c, off) ? cluster_get(space, c, off) : -ENOENT;
			done += !ret;
		}
		cluster_unlock(c);
	}
	if (ret && done)
		swap_free_range(space, entry, done);
	return ret;
}

/* One owner less for a slot of a locked cluster.  Is it free now? */
static __always_inline bool cluster_free_slot(struct swap_space *space, struct swap_cluster *c,
					      unsigned int off, struct tier_run *run)
{
	swap_word_t w = cluster_word(c, off);

	lockdep_assert_held(&c->lock);
	if (unlikely(word_count(w) != 1 || word_is_folio(w))) {
		if (!WARN_ON(!word_count(w)))
			cluster_drop(c, off);
		return false;
	}
	backing_free(space, c->group, w, run);
	--*cluster_kind(c, word_where(w));
	smp_store_release(&c->table[off], WORD_NULL);
	return true;
}

/* One owner less for @nr slots of one cluster. */
static __always_inline void entry_free(struct swap_space *space, vswp_entry_t entry,
				       unsigned int nr)
{
	unsigned int off = entry_offset(entry), end = off + nr, first = off, freed = 0;
	struct swap_cluster *c = cluster_lock_owned(space, entry);
	struct tier_run run = { 0 };

	if (WARN_ON(!c))
		return;
	for (; off < end; off++)
		if (cluster_free_slot(space, c, off, &run) && !freed++)
			first = off;
	cluster_put_slots(space, c, first, freed);
	tier_run_flush(space, &run);
}

void swap_free_range(struct swap_space *space, vswp_entry_t entry, unsigned int nr)
{
	bool many = nr >= SWAP_CLUSTER_SLOTS;
	unsigned int n;

	/* The most frequent; no loop is left of it. */
	if (likely(nr == 1)) {
		entry_free(space, entry, 1);
		return;
	}
	for (; nr; nr -= n, entry.val += n) {
		n = min_t(unsigned int, nr, SWAP_CLUSTER_SLOTS - entry_offset(entry));
		entry_free(space, entry, n);
	}
	/* Perhaps nobody stores anything for a long time. */
	if (many)
		zpool_reap(space->pool);
}

unsigned int swap_count(struct swap_space *space, vswp_entry_t entry)
{
	struct swap_cluster *c = cluster_lock(space, entry);
	unsigned int count = 0;

	if (c) {
		count = cluster_count(c, entry_offset(entry));
		cluster_unlock(c);
	}
	return count;
}

int folio_dup_swap(struct swap_space *space, struct swap_folio *folio)
{
	return swap_dup_range(space, folio->entry, 1U << folio->order);
}

void folio_put_swap(struct swap_space *space, struct swap_folio *folio)
{
	swap_free_range(space, folio->entry, 1U << folio->order);
}

enum swap_where swap_entry_where(struct swap_space *space, vswp_entry_t entry)
{
	return word_where(space_word(space, entry));
}

void *swap_entry_tier(struct swap_space *space, vswp_entry_t entry)
{
	swap_word_t w = space_word(space, entry);
	void *priv = NULL;
	unsigned int i;

	/* By number, not by its cluster: the slot may be free by now, and that gone. */
	spin_lock(&space->tier_lock);
	for (i = 0; i < space->nr_tiers; i++)
		if (tier_has(space->tiers[i], w))
			priv = space->tiers[i]->priv;
	spin_unlock(&space->tier_lock);
	return priv;
}

u64 swap_refault_distance(struct swap_space *space, vswp_entry_t entry)
{
	swap_word_t w = space_word(space, entry);
	unsigned int clock;

	if (word_is_folio(w)) {
		struct swap_folio *folio = swap_cache_get_folio(space, entry);

		w = WORD_NULL;
		if (folio) {
			w = READ_ONCE(folio->backing[(entry.val - folio->entry.val) &
						     ((1UL << folio->order) - 1)]);
			swap_folio_put(folio);
		}
	}
	if (word_has_shadow(w))
		clock = word_shadow(w);
	else if (word_where(w) != SWAP_SLOT || !tier_clock(space, word_slot_nr(w), &clock))
		return U64_MAX;
	clock = (space_clock(space) - clock) & GENMASK(WORD_SHADOW_BITS - 1, 0);
	return (u64)clock << space->shadow_shift;
}
