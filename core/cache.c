// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The swap cache: folios in the words of the table.
 *
 * While a folio is cached its words point to it and folio->backing holds what
 * they said before.  The backing changes under the folio lock only, the words
 * under the cluster lock, so taking a folio in or out needs both.
 *
 * A lookup takes no lock: it loads the word, takes a reference unless there is
 * none left, and looks at the word again.  If it still names the folio, the
 * reference is to what the entry had.
 */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>

#include "cluster.h"
#include "swap.h"
#include "tier.h"

/* ---- folios ---------------------------------------------------------- */

void swap_folio_init(struct swap_folio *folio, void *data, unsigned int order,
		     unsigned long *backing, void (*release)(struct swap_folio *folio))
{
	WARN_ON(order > SWAP_MAX_ORDER || (order && !backing));
	WARN_ON((unsigned long)folio & ~WORD_FOLIO_MASK & GENMASK(56, 0));
	WRITE_ONCE(folio->flags, 0);
	folio->order = order;
	mutex_init(&folio->lock);
	lockdep_set_subclass(&folio->lock, SWAP_RANK_FOLIO);
	folio->entry = vswp_entry(0);
	folio->data = data;
	folio->backing = backing ? backing : &folio->backing0;
	folio->release = release;
	/* Last: a lookup that comes late may take a reference from here on. */
	atomic_set_release(&folio->ref, 1);
}

void swap_folio_get(struct swap_folio *folio)
{
	atomic_inc(&folio->ref);
}

void swap_folio_put(struct swap_folio *folio)
{
	if (atomic_dec_and_test(&folio->ref))
		folio->release(folio);
}

void swap_folio_lock(struct swap_folio *folio)
{
	mutex_lock(&folio->lock);
}

bool swap_folio_trylock(struct swap_folio *folio)
{
	return mutex_trylock(&folio->lock);
}

void swap_folio_unlock(struct swap_folio *folio)
{
	mutex_unlock(&folio->lock);
}

/* ---- lookup, in, out ------------------------------------------------- */

struct swap_folio *swap_cache_get_folio(struct swap_space *space, vswp_entry_t entry)
{
	struct swap_folio *folio = NULL;
	struct swap_cluster *c;
	swap_word_t *place, w;

	/* The table must stay for the second look. */
	rcu_read_lock();
	c = map_get(&space->map, entry_cluster(entry));
	if (!c)
		goto out;
	place = &c->table[entry_offset(entry)];
	for (;;) {
		w = smp_load_acquire(place);
		folio = word_is_folio(w) ? word_to_folio(w) : NULL;
		if (!folio)
			break;
		/* No reference left: it is out of the table since we looked. */
		if (atomic_inc_not_zero(&folio->ref)) {
			if (word_bare(smp_load_acquire(place)) == word_bare(w))
				break;
			swap_folio_put(folio);
		}
		cpu_relax();
	}
out:
	rcu_read_unlock();
	return folio;
}

static __always_inline int cache_add(struct swap_space *space, vswp_entry_t entry,
				     struct swap_folio *folio, struct swap_group **pinned)
{
	unsigned int i, size = 1U << folio->order, off = entry_offset(entry);
	struct swap_cluster *c = cluster_lock(space, entry);
	int ret = 0;

	if (!c)
		return -ENOENT;
	if (WARN_ON(off & (size - 1)))
		ret = -ENOENT;
	for (i = 0; i < size && !ret; i++) {
		switch (word_where(cluster_word(c, off + i))) {
		case SWAP_NULL:
			ret = -ENOENT;
			break;
		case SWAP_FOLIO:
			ret = -EEXIST;
			break;
		case SWAP_POISON:
			ret = -EIO;
			break;
		default:
			break;
		}
	}
	if (!ret) {
		folio->entry = entry;
		set_bit(SWAP_FOLIO_CACHED, &folio->flags);
		swap_folio_get(folio);
		for (i = 0; i < size; i++) {
			swap_word_t w = cluster_word(c, off + i);

			WRITE_ONCE(folio->backing[i], word_bare(w));
			cluster_set_word(c, off + i,
					 word_with_count(word_folio(folio), word_count(w)));
		}
		if (pinned) {
			*pinned = cluster_group(space, c);
			group_pin(*pinned);
		}
	}
	cluster_unlock(c);
	return ret;
}

int swap_cache_add_folio(struct swap_space *space, vswp_entry_t entry, struct swap_folio *folio)
{
	return cache_add(space, entry, folio, NULL);
}

int cache_add_folio_pinned(struct swap_space *space, vswp_entry_t entry, struct swap_folio *folio,
			   struct swap_group **group)
{
	return cache_add(space, entry, folio, group);
}

/* A locked folio out of a locked cluster, which is unlocked. */
static void cache_remove(struct swap_space *space, struct swap_cluster *c, struct swap_folio *folio)
{
	unsigned int i, size = 1U << folio->order, off = entry_offset(folio->entry);
	unsigned int clock = space_clock(space), first = off, freed = 0;
	bool dirty = swap_folio_test(folio, SWAP_FOLIO_DIRTY);
	struct tier_run run = { 0 };

	for (i = 0; i < size; i++) {
		unsigned int count = word_count(cluster_word(c, off + i));
		swap_word_t back = folio->backing[i];

		if (!count) {
			backing_free(space, c->group, back, &run);
			--*cluster_kind(c, SWAP_FOLIO);
			smp_store_release(&c->table[off + i], WORD_NULL);
			if (!freed++)
				first = off + i;
			continue;
		}
		/* No bytes, or old ones: better lost than wrong. */
		if (WARN_ON(dirty || !back)) {
			backing_free(space, c->group, back, &run);
			back = word_poison();
		}
		cluster_set_word(c, off + i, word_with_count(word_with_shadow(back, clock), count));
	}
	clear_bit(SWAP_FOLIO_CACHED, &folio->flags);
	cluster_put_slots(space, c, first, freed);
	tier_run_flush(space, &run);
	if (freed < size)
		atomic_long_add(size - freed, &space->evictions);
	swap_folio_put(folio);
}

void swap_cache_del_folio(struct swap_space *space, struct swap_folio *folio)
{
	struct swap_cluster *c;

	lockdep_assert_held(&folio->lock);
	if (WARN_ON(!swap_folio_test(folio, SWAP_FOLIO_CACHED)))
		return;
	c = cluster_lock(space, folio->entry);
	cache_remove(space, c, folio);
}

bool folio_free_swap(struct swap_space *space, struct swap_folio *folio)
{
	unsigned int i, off = entry_offset(folio->entry);
	struct swap_cluster *c;

	lockdep_assert_held(&folio->lock);
	if (!swap_folio_test(folio, SWAP_FOLIO_CACHED))
		return false;
	c = cluster_lock(space, folio->entry);
	for (i = 0; i < 1U << folio->order; i++) {
		if (word_count(cluster_word(c, off + i))) {
			cluster_unlock(c);
			return false;
		}
	}
	cache_remove(space, c, folio);
	return true;
}
