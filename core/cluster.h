/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A virtual cluster: 512 slots that exist while one of them is in use.
 *
 * Life: made by an allocation or a claim, published in the map, unpublished
 * and marked DEAD when the last slot is given back, freed after an RCU grace
 * period.  So a lookup finds a cluster under rcu_read_lock(), locks it and
 * asks whether it is DEAD; a locked cluster that is not stays.  Whoever owns an
 * entry needs neither: its cluster stays until the entry is given back.
 *
 * One exception: a CPU's current cluster of order 0 stays while empty, or a
 * page swapped in and out would make and free one each time.
 */
#ifndef CORE_CLUSTER_H
#define CORE_CLUSTER_H

#include <linux/lockdep.h>
#include <linux/rcupdate.h>
#include <linux/types.h>

#include "group.h"
#include "space.h"
#include "table.h"

enum swap_cluster_state {
	CLUSTER_CURRENT, /* some CPU allocates from it; on no list */
	CLUSTER_NONFULL, /* on its group's list: may have room */
	CLUSTER_FRAG,	 /* on its group's list: room, but no run of its order */
	CLUSTER_FULL,	 /* on no list */
	CLUSTER_DEAD,
};

/*
 * Everything but what is said to differ is guarded by lock.  One cache line, so
 * that two CPUs with two clusters do not meet in the middle.
 */
struct swap_cluster {
	spinlock_t lock;
	u32 nr;			/* its number; constant */
	u16 group;		/* number of its group; constant */
	u16 used;		/* words that are not NULL */
	u16 hint;		/* no free slot below this one */
	u8 order;		/* of the runs it serves */
	u8 state;		/* changes under group->lock besides */
	u8 about;		/* its part of space->slots_about, in units of 64 */
	u16 kinds[SWAP_POISON]; /* words by kind, see cluster_kind() */
	swap_word_t *table;	/* SWAP_CLUSTER_SLOTS words; read without the lock, too */
	union {
		unsigned int *extend;	  /* counts of WORD_COUNT_MAX and more, or NULL */
		struct swap_space *space; /* ... once it is DEAD */
	};
	union {
		struct list_head list; /* guarded by group->lock */
		struct rcu_head rcu;
	};
};

/* How many words are of a kind that is not NULL. */
static inline u16 *cluster_kind(struct swap_cluster *c, enum swap_where where)
{
	return &c->kinds[where - 1];
}

static inline struct swap_group *cluster_group(struct swap_space *space,
					       const struct swap_cluster *c)
{
	/* A group stays while it has clusters. */
	return space_group(space, c->group);
}

/* The group of an entry that is in use. */
static inline struct swap_group *entry_group(struct swap_space *space, vswp_entry_t entry)
{
	const struct swap_cluster *c;
	struct swap_group *group;

	rcu_read_lock();
	c = map_get(&space->map, entry.val >> SWAP_CLUSTER_SHIFT);
	group = space_group(space, c->group);
	rcu_read_unlock();
	return group;
}

static inline u32 entry_cluster(vswp_entry_t entry)
{
	return entry.val >> SWAP_CLUSTER_SHIFT < SPACE_CLUSTERS ?
		       (u32)(entry.val >> SWAP_CLUSTER_SHIFT) :
		       0;
}

static inline unsigned int entry_offset(vswp_entry_t entry)
{
	return entry.val & (SWAP_CLUSTER_SLOTS - 1);
}

static inline vswp_entry_t cluster_entry(const struct swap_cluster *c, unsigned int off)
{
	return vswp_entry((unsigned long)c->nr << SWAP_CLUSTER_SHIFT | off);
}

/* The cluster of that number, locked and alive, or NULL. */
static __always_inline struct swap_cluster *cluster_lock_nr(struct swap_space *space, u32 nr)
{
	struct swap_cluster *c;

	rcu_read_lock();
	c = map_get(&space->map, nr);
	if (likely(c)) {
		spin_lock(&c->lock);
		if (unlikely(READ_ONCE(c->state) == CLUSTER_DEAD)) {
			spin_unlock(&c->lock);
			c = NULL;
		}
	}
	rcu_read_unlock();
	return c;
}

static inline struct swap_cluster *cluster_lock(struct swap_space *space, vswp_entry_t entry)
{
	return cluster_lock_nr(space, entry_cluster(entry));
}

/* The cluster of an entry that the caller owns, locked; NULL only if it does not. */
static __always_inline struct swap_cluster *cluster_lock_owned(struct swap_space *space,
							       vswp_entry_t entry)
{
	struct swap_cluster *c = map_get(&space->map, entry_cluster(entry));

	if (likely(c))
		spin_lock(&c->lock);
	return c;
}

static inline void cluster_unlock(struct swap_cluster *c)
{
	spin_unlock(&c->lock);
}

static inline swap_word_t cluster_word(const struct swap_cluster *c, unsigned int off)
{
	return READ_ONCE(c->table[off]);
}

/* Replace a word that is not NULL by another that is not, counts as given. */
static inline void cluster_set_word(struct swap_cluster *c, unsigned int off, swap_word_t w)
{
	lockdep_assert_held(&c->lock);
	--*cluster_kind(c, word_where(c->table[off]));
	++*cluster_kind(c, word_where(w));
	smp_store_release(&c->table[off], w);
}

/* The word of an entry by unlocked lookup; WORD_NULL when there is none. */
static inline swap_word_t space_word(struct swap_space *space, vswp_entry_t entry)
{
	struct swap_cluster *c;
	swap_word_t w = WORD_NULL;

	rcu_read_lock();
	c = map_get(&space->map, entry_cluster(entry));
	if (c)
		w = smp_load_acquire(&c->table[entry_offset(entry)]);
	rcu_read_unlock();
	return w;
}

/*
 * Allocate: find runs of 2^@order free slots in a cluster of @group and set
 * them in use with count 1, as folio @folios[i] (a locked folio each, not yet
 * cached) or, without @folios, as FILL 0.  Serves up to @nr of one cluster or
 * several; returns how many, and the first entry in *@first.  Never sleeps.
 */
unsigned int cluster_alloc(struct swap_space *space, struct swap_group *group, unsigned int order,
			   struct swap_folio **folios, unsigned int nr, vswp_entry_t *first);
/* The same for one slot without a folio, and faster.  Entry 0: no memory. */
vswp_entry_t cluster_alloc_slot(struct swap_space *space, struct swap_group *group);
/*
 * The cluster of that number for a claim, made if it is not there.  Locked.
 * ERR_PTR(-ENOMEM).
 */
struct swap_cluster *cluster_claim(struct swap_space *space, struct swap_group *group, u32 nr);
/* Free slots from @off on become @folio's words with count 1; the cache takes a reference. */
void cluster_install(struct swap_space *space, struct swap_cluster *c, unsigned int off,
		     struct swap_folio *folio);
/* A locked cluster may be in the wrong state: put it right, and unlock it. */
void cluster_settle(struct swap_space *space, struct swap_cluster *c);
/* Its number of used slots has moved by @units of CLUSTER_ABOUT. */
void cluster_about(struct swap_space *space, struct swap_cluster *c, int units);

#define CLUSTER_ABOUT 64

static inline void cluster_used_moved(struct swap_space *space, struct swap_cluster *c)
{
	int moved = (int)c->used - c->about * CLUSTER_ABOUT;

	if (unlikely(moved <= -CLUSTER_ABOUT || moved >= CLUSTER_ABOUT))
		cluster_about(space, c, moved / CLUSTER_ABOUT);
}

/*
 * @nr slots of a locked cluster became NULL, the lowest at @off; unlock it.  The
 * words and kinds are already so.  The cluster may die of it.
 */
static inline void cluster_put_slots(struct swap_space *space, struct swap_cluster *c,
				     unsigned int off, unsigned int nr)
{
	u8 state = READ_ONCE(c->state);

	c->used -= nr;
	if (nr && off < c->hint)
		c->hint = off;
	cluster_used_moved(space, c);
	if (likely(state == CLUSTER_CURRENT ? c->used || !c->order :
					      c->used && state == CLUSTER_NONFULL))
		spin_unlock(&c->lock);
	else
		cluster_settle(space, c);
}

/* Free a group's empty current clusters; nothing of it is in use. */
void cluster_drop_current(struct swap_space *space, struct swap_group *group);
/* Free every cluster there is, whatever is in it; nobody else looks any more. */
void cluster_free_all(struct swap_space *space);

/*
 * Owners of a slot in use.  cluster_get returns 0, -ENOMEM; cluster_drop, for
 * a slot that has an owner, how many are left.
 */
unsigned int cluster_count(const struct swap_cluster *c, unsigned int off);
int cluster_get(struct swap_space *space, struct swap_cluster *c, unsigned int off);

static inline unsigned int cluster_drop(struct swap_cluster *c, unsigned int off)
{
	swap_word_t w = c->table[off];
	unsigned int count = word_count(w);

	lockdep_assert_held(&c->lock);
	if (unlikely(count == WORD_COUNT_MAX) && --c->extend[off] >= WORD_COUNT_MAX)
		return c->extend[off];
	smp_store_release(&c->table[off], w - WORD_COUNT_ONE);
	return count - 1;
}

#endif
