/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The virtual swap space: what its users call.
 *
 * A page holder keeps a virtual entry that never changes.  Behind the entry
 * one word of a swap table says where the bytes are: in a cached folio, in no
 * place because the page is one repeated word, compressed in the pool, or in a
 * slot of a tier.  Everything here is about moving that "where" while the
 * entry stays.
 *
 * Locks, outermost first:
 *
 *	folio lock -> virtual cluster lock -> tier cluster lock
 *
 * The folio lock makes the backing of the folio's entries stable.  A cluster
 * lock guards writes to its table.  A lookup is RCU plus one atomic load, and
 * what it returns is a hint until the folio it found is locked and its entry
 * checked again.
 */
#ifndef CORE_SWAP_H
#define CORE_SWAP_H

#include <linux/types.h>
#include <linux/list.h>
#include <linux/atomic.h>
#include <linux/mutex.h>

#define SWAP_PAGE_SHIFT	   12
#define SWAP_PAGE_SIZE	   (1UL << SWAP_PAGE_SHIFT)
#define SWAP_CLUSTER_SHIFT 9
#define SWAP_CLUSTER_SLOTS (1UL << SWAP_CLUSTER_SHIFT)
#define SWAP_MAX_ORDER	   SWAP_CLUSTER_SHIFT
#define SWAP_MAX_TIERS	   31

/* The number of a virtual slot: cluster index and offset.  0 is no entry. */
typedef struct {
	unsigned long val;
} vswp_entry_t;

static inline vswp_entry_t vswp_entry(unsigned long val)
{
	return (vswp_entry_t){ val };
}

struct swap_space;
struct swap_group;
struct swap_tier;
struct swap_folio;

/* ---- folios: pages of the swap cache -------------------------------- */

enum swap_folio_flag {
	SWAP_FOLIO_UPTODATE,   /* data holds the entry's bytes */
	SWAP_FOLIO_DIRTY,      /* ... and no backing holds them yet */
	SWAP_FOLIO_WRITEBACK,  /* being written out: data must not change */
	SWAP_FOLIO_CACHED,     /* its words in the table point here */
	SWAP_FOLIO_ERROR,      /* the last read failed: error says how */
	SWAP_FOLIO_ACTIVATE,   /* to stay dirty if it does not compress; its owner's to set */
	SWAP_FOLIO_DROPBEHIND, /* not for the pool while a tier has room; its owner's, too */
};

/*
 * A naturally aligned run of 2^order pages handled as one.
 *
 * The memory of the struct belongs to whoever made the folio and must be type
 * stable (a lookup may look at a folio that was just given back: it sees a
 * reference count of 0 and turns away), and 64-byte aligned, for the table
 * keeps tag bits in the low end of the pointer.
 */
struct swap_folio {
	unsigned long flags; /* enum swap_folio_flag, atomic bit operations */
	atomic_t ref;
	unsigned int order;
	int error; /* see swap_readin(); valid while ERROR */
	struct mutex lock;
	vswp_entry_t entry;	/* first entry; valid while CACHED */
	void *data;		/* 2^order pages, page aligned */
	unsigned long *backing; /* 2^order words: where the bytes are besides here */
	unsigned long backing0; /* ... of an order 0 folio */
	struct list_head lru;	/* the owner's, core never touches it */
	/*
	 * The last reference is gone.  Core itself may be who had it, with locks
	 * held: does not sleep and calls nothing of core.
	 */
	void (*release)(struct swap_folio *folio);
} __aligned(64);

/*
 * Make an order 0..9 folio over @data with one reference, unlocked, no flags.
 * @backing: 2^order words, or NULL with order 0.
 */
void swap_folio_init(struct swap_folio *folio, void *data, unsigned int order,
		     unsigned long *backing, void (*release)(struct swap_folio *folio));
void swap_folio_get(struct swap_folio *folio);
void swap_folio_put(struct swap_folio *folio);
void swap_folio_lock(struct swap_folio *folio);
bool swap_folio_trylock(struct swap_folio *folio);
void swap_folio_unlock(struct swap_folio *folio);

static inline bool swap_folio_test(const struct swap_folio *folio, enum swap_folio_flag f)
{
	/* Who finds it UPTODATE sees the bytes. */
	return smp_load_acquire(&folio->flags) & (1UL << f);
}

/* ---- the space ------------------------------------------------------- */

struct swap_space_conf {
	const char *compressor;	   /* "lz4", "zstd" or "none"; NULL is lz4 */
	u64 pool_limit;		   /* bytes the pool may hold, segments and all */
	unsigned int shadow_shift; /* evictions an eviction clock tick, as a shift */
};

/* Returns the space or ERR_PTR(-ENOMEM, -EINVAL: no such compressor). */
struct swap_space *swap_space_create(const struct swap_space_conf *conf);
/* Frees all of it.  No call may be under way and no folio in the cache. */
void swap_space_destroy(struct swap_space *space);
void swap_space_set_pool_limit(struct swap_space *space, u64 bytes);

/*
 * From now on pages are compressed by that one ("none": not at all), those there
 * are stay as they are.  Returns 0, -EINVAL: no such compressor, -ENOMEM.  Sleeps.
 */
int swap_space_set_compressor(struct swap_space *space, const char *name);

/* ---- groups ---------------------------------------------------------- */

/*
 * What a memcg is to the kernel.  A cluster serves one group, so an entry's
 * group costs no bytes a slot.  NULL stands for the space's own root group
 * wherever a group is asked for.
 *
 * A group is in its @parent (NULL: the root).  What it uses counts there, too,
 * up to the root; a limit of any of them refuses, only the tiers in the masks of
 * all of them are used, and a group in a direct one is direct.
 */
struct swap_group *swap_group_create(struct swap_space *space, struct swap_group *parent);
/* No entry of it may be in use, and no group in it be left.  Sleeps. */
void swap_group_destroy(struct swap_group *group);

#define SWAP_NO_LIMIT (~0ULL)

struct swap_group_conf {
	/* Bytes of objects in the pool.  At it the group's own oldest go to a tier. */
	u64 pool_limit;
	/* Bytes in the pool left to it while others can make room that have more than theirs. */
	u64 pool_low;
	/* Slots of tiers.  At it the group gets no other. */
	u64 swap_limit;
	u32 tiers;   /* a bit for each tier it may use, by swap_tier_stat.nr */
	bool direct; /* pages bypass the pool: straight to a slot */
};

/*
 * Set them all, at any time; a new group has no limit and all tiers.  What is
 * there stays where it is, also above a limit, until it is moved or freed
 * (swap_group_writeback()).
 */
void swap_group_set(struct swap_group *group, const struct swap_group_conf *conf);

struct swap_group_counter {
	u64 used, peak;
	u64 events; /* how often this group's own limit refused something */
};

/* With all groups in it. */
struct swap_group_stat {
	struct swap_group_counter pool; /* bytes */
	struct swap_group_counter swap; /* slots */
};

void swap_group_stat(struct swap_group *group, struct swap_group_stat *stat);

/* ---- entries --------------------------------------------------------- */

/*
 * Give @folio 2^order contiguous, naturally aligned virtual slots, count 1
 * each, and put it into the swap cache (CACHED, DIRTY kept as the caller set
 * it, one reference taken).  The folio must be locked and not CACHED.
 * Returns 0, -ENOMEM.
 */
int folio_alloc_swap(struct swap_space *space, struct swap_group *group, struct swap_folio *folio);
/*
 * The same for @nr order-0 folios at one go, ascending entries wherever the
 * current cluster has them.  Returns how many were served, from the front.
 */
unsigned int folios_alloc_swap(struct swap_space *space, struct swap_group *group,
			       struct swap_folio **folios, unsigned int nr);
/*
 * Claim the given entries (a block device in front of the space is told the
 * index by whoever sits above).  Returns 0, -EBUSY when one is in use, -EINVAL
 * when @entry is not aligned to the folio's order or out of range, -ENOMEM.
 */
int folio_claim_swap(struct swap_space *space, struct swap_group *group, struct swap_folio *folio,
		     vswp_entry_t entry);

/*
 * Slots without a folio, and back again: the bare allocator.  The words are
 * FILL 0.  Returns the first of 2^order entries, or entry 0 when out of memory.
 */
vswp_entry_t swap_alloc(struct swap_space *space, struct swap_group *group, unsigned int order);

/* One more, one less owner for each entry of a cached, locked folio. */
int folio_dup_swap(struct swap_space *space, struct swap_folio *folio);
void folio_put_swap(struct swap_space *space, struct swap_folio *folio);
/*
 * The same by range, no folio needed.  Entries that reach count 0 give their
 * backing back; one in the cache keeps its word until the folio leaves the
 * cache.  swap_dup_range returns 0, or -ENOMEM or -ENOENT with nothing changed.
 * Freeing a cluster's worth or more gives empty memory of the pool back, and may
 * sleep for that; after smaller ones swap_writeback() does.
 */
int swap_dup_range(struct swap_space *space, vswp_entry_t entry, unsigned int nr);
void swap_free_range(struct swap_space *space, vswp_entry_t entry, unsigned int nr);
unsigned int swap_count(struct swap_space *space, vswp_entry_t entry);

/* ---- the swap cache -------------------------------------------------- */

/*
 * The cached folio of @entry with a reference taken, or NULL.  Unlocked lookup.
 * It may be a folio of another user, or of core (swapoff), and on its way out:
 * lock it, and look again if it is not CACHED or not this entry's any more.
 */
struct swap_folio *swap_cache_get_folio(struct swap_space *space, vswp_entry_t entry);
/*
 * Put a fresh, locked, not uptodate folio in front of @entry (aligned to its
 * order); it takes over the backing words, and the cache a reference.
 * Returns 0; -EEXIST: a folio is there already; -ENOENT: entry is free;
 * -EIO: an entry is POISON.
 */
int swap_cache_add_folio(struct swap_space *space, vswp_entry_t entry, struct swap_folio *folio);
/*
 * Take a locked, clean folio out: its words go back to the table (or, where no
 * owner is left, the backing and the slot are freed).  A dirty folio must not
 * be deleted unless no entry of it has an owner any more.
 */
void swap_cache_del_folio(struct swap_space *space, struct swap_folio *folio);
/*
 * Delete a locked folio from the cache, dirty or not, if no entry of it has an
 * owner.  Returns true when it is out.
 */
bool folio_free_swap(struct swap_space *space, struct swap_folio *folio);

/* ---- moving bytes ---------------------------------------------------- */

/*
 * Give locked, cached, uptodate folios a backing: a fill word, else the pool,
 * else (all those together, in one write) a tier.  A full pool, or a group at its
 * limit there, writes its oldest objects to a tier first.  Served ones are clean
 * afterwards; the others stay DIRTY and cached, as does one with ACTIVATE that does not
 * compress (AOP_WRITEPAGE_ACTIVATE is the same idea).  One with DROPBEHIND passes the
 * pool by, where a tier has room for it.  Returns how many are clean.
 * Sleeps.  Needs no memory that has no reserve behind it.
 */
unsigned int swap_writeout(struct swap_space *space, struct swap_folio **folios, unsigned int nr);
/*
 * Fill locked, cached, not yet uptodate folios from their backings; pages on a
 * tier are read by one batch.  Each folio ends UPTODATE or ERROR (a message named
 * tier and slot).  What was damaged is POISON then; what could not be read keeps its
 * backing.  folio->error: -EIO, or -EAGAIN, -ENOMEM, -EFAULT, for which the tier
 * cannot be blamed.  Returns how many are uptodate.
 */
unsigned int swap_readin(struct swap_space *space, struct swap_folio **folios, unsigned int nr);
/*
 * The same, but the first @wanted folios are not read ahead: somebody is told now that
 * the page is lost, so it has to stay lost.  Pages of theirs that end with -EIO are POISON.
 */
unsigned int swap_readin_wanted(struct swap_space *space, struct swap_folio **folios,
				unsigned int nr, unsigned int wanted);
/*
 * Give every entry of a locked cached folio a physical slot, contiguous where a
 * tier has them so; entries that have one keep it.  A backing held before
 * (fill, pool) is released.  The folio is DIRTY afterwards unless nothing was
 * changed: bytes are not written.  Returns 0, -ENOSPC (nothing changed).
 */
int folio_realloc_swap(struct swap_space *space, struct swap_folio *folio);
/*
 * Move the backing of a locked, cached, uptodate folio to @to (NULL: out of
 * any tier, back to fill or pool).  The entry stays.  The old backing is
 * released only when the new one holds the bytes.  Returns 0, -ENOSPC, -EIO,
 * with the old backing in place.
 */
int folio_migrate_swap(struct swap_space *space, struct swap_folio *folio, struct swap_tier *to);
/*
 * Write at least @bytes of the pool's oldest objects to a tier, compressed as
 * they are, in large batches in age order.  Returns pool bytes set free;
 * 0 with no tier, nothing left to move or all tiers full.  Sleeps; holds up no
 * fault.  No folio may be locked by the caller.  With @bytes 0 it only does
 * what else somebody should call for now and then: it tells the tiers which clusters
 * of slots are not needed any more, and moves the oldest of a tier that is nine
 * tenths full on to the next slower one until it is eight tenths full.
 */
u64 swap_writeback(struct swap_space *space, u64 bytes);
/* The same of the objects of one group and those in it; nobody else's are touched. */
u64 swap_group_writeback(struct swap_group *group, u64 bytes);
/*
 * Move at least @bytes of the oldest pages of a tier to tiers of lower priority, as
 * they are, in large reads and writes.  Returns bytes moved; less with no room there
 * or nothing left to move.  Sleeps; holds up no fault; waits for a swapoff.
 */
u64 swap_demote(struct swap_space *space, struct swap_tier *tier, u64 bytes);
/* Slide live objects together so that the pool gives memory back.  Returns bytes given back. */
u64 swap_compact(struct swap_space *space);

/*
 * How many evictions the space has seen since @entry was evicted, from the
 * shadow in its word or its folio's backing.  Coarse and wrapping: a hint.
 */
u64 swap_refault_distance(struct swap_space *space, vswp_entry_t entry);

/* What an entry is right now, by unlocked lookup: a hint for statistics and readahead. */
enum swap_where {
	SWAP_NULL,
	SWAP_FOLIO,
	SWAP_FILL,
	SWAP_ZPOOL,
	SWAP_SLOT,
	SWAP_POISON,
};
enum swap_where swap_entry_where(struct swap_space *space, vswp_entry_t entry);
/* The swap_tier_conf.priv of the tier it is on, or NULL if it is on none: as much a hint. */
void *swap_entry_tier(struct swap_space *space, vswp_entry_t entry);

/* ---- tiers ----------------------------------------------------------- */

/* One page of a batch: its slot and its page-aligned buffer of SWAP_PAGE_SIZE. */
struct swap_io {
	u64 slot;
	void *data;
	int error; /* set by the tier: 0 or -errno */
};

/*
 * What a physical store can do.  Calls sleep, may come from several threads at
 * once, and the batch is in ascending order wherever slots could be had so:
 * the tier joins neighbours into large transfers.  A buffer is the caller's
 * until the call returns.
 */
struct swap_tier_ops {
	void (*write)(void *priv, struct swap_io *io, unsigned int nr);
	void (*read)(void *priv, struct swap_io *io, unsigned int nr);
	/*
	 * May be NULL.  The bytes of slots [slot, slot + nr) are not needed any more.
	 * Returns 0, or -EAGAIN: what was asked may still be done, to whatever is
	 * there then.  Until the same call has returned 0 nothing is to be written there.
	 */
	int (*discard)(void *priv, u64 slot, u64 nr);
	/*
	 * May be NULL.  Would a call wait for the store to come back?  Other tiers
	 * are preferred then.  A write that was -EAGAIN does not mark the tier as
	 * failed, nor does -EFAULT, which is about the page's memory.  Asked with
	 * locks held: does not sleep.
	 */
	bool (*away)(void *priv);
};

struct swap_tier_conf {
	const char *name; /* for messages and statistics; copied */
	const struct swap_tier_ops *ops;
	void *priv;
	u64 nr_slots;
	int prio; /* higher is used first */
};

/*
 * Add a tier.  The caller keeps ops and priv alive until swapoff() or
 * swap_space_destroy() returned.  ERR_PTR(-ENOMEM, -ENOSPC: SWAP_MAX_TIERS are there, or
 * they hold 4 TiB together).
 */
struct swap_tier *swap_tier_add(struct swap_space *space, const struct swap_tier_conf *conf);
/* Who waits for a drain. */
struct swapoff_watch {
	/* Between batches, no lock held: @left pages are to be moved.  False: give up. */
	bool (*go_on)(void *priv, u64 left);
	void *priv;
};

/*
 * Drain a tier by scanning the tables: every page on it goes to the pool or
 * another tier, entries unchanged, and the tier is gone.  Needs memory for a
 * few pages only.  @watch may be NULL.  Returns 0; -ENOSPC: what did not fit
 * stays and the tier is open again; -EINTR: the same, @watch said so; -EIO:
 * pages that could not be read are POISON, the tier is gone.  They are not given
 * up before there is nothing else on it.
 */
int swapoff(struct swap_space *space, struct swap_tier *tier, const struct swapoff_watch *watch);
/*
 * Move @bytes of what is on @from, in the order of the tables, to @to; NULL is the
 * pool, for either.  What is in the cache stays.  @watch is told what is left of
 * @bytes.  *@moved: bytes that went.  Returns 0, also when there was not as much;
 * -ENOSPC, -EIO: no more has room there, or can be read or written, and what cannot
 * be read stays; -EINTR, -ENOMEM.  Sleeps; holds up a fault only on the pages under
 * way; waits for a swapoff.
 */
int swap_migrate(struct swap_space *space, struct swap_tier *from, struct swap_tier *to, u64 bytes,
		 const struct swapoff_watch *watch, u64 *moved);
/*
 * Would all that is on @tier find room, in slots of others and, what compresses,
 * in the pool?  An estimate, and one of this moment.  Walks the tables.
 */
bool swapoff_fits(struct swap_space *space, struct swap_tier *tier);

/* ---- counters -------------------------------------------------------- */

struct swap_stat {
	u64 slots_used; /* virtual slots with an owner or a folio */
	u64 slots_peak;
	u64 nr_cached; /* slots whose word is a folio */
	u64 nr_fill;   /* swapped out, on no store */
	u64 nr_pool;
	u64 nr_tier;
	u64 nr_poison;
	u64 clusters;
	u64 cluster_bytes;   /* cluster structs, map, extend tables, reserves */
	u64 table_bytes;     /* swap tables */
	u64 pool_bytes;	     /* memory of all segments */
	u64 pool_live_bytes; /* objects still owned, headers included */
	u64 pool_objects;
	u64 pool_data_bytes; /* ... their compressed bytes alone */
	u64 tier_meta_bytes; /* clusters and sums of all tiers */
	/* events, ever growing; names of /proc/vmstat where it has one */
	u64 pswpin, pswpout;	     /* pages read from, written to tiers */
	u64 zswpin, zswpout;	     /* pages out of, into the pool */
	u64 swpin_zero, swpout_zero; /* fills */
	u64 zswpwb;		     /* pool to tier */
	u64 reject_compress_poor;    /* pages the pool would not have */
	u64 compacted_bytes;
	u64 read_errors, write_errors;
};

struct swap_tier_stat {
	const char *name; /* of a tier that goes meanwhile it is gone, too */
	void *priv;	  /* swap_tier_conf's: which one it is */
	int prio;
	unsigned int nr;   /* below SWAP_MAX_TIERS, its own while it is there */
	bool full, failed; /* allocation stopped: no room, write errors */
	u64 nr_slots, slots_used;
	u64 bytes_written, bytes_read;
};

/* Walks the clusters, a microsecond for every 25 to 50 of them.  Sleeps. */
void swap_space_stat(struct swap_space *space, struct swap_stat *stat);
/* All memory the space has now, pool and metadata.  Cheap. */
u64 swap_space_bytes(struct swap_space *space);
/* Of that the pool.  As cheap. */
u64 swap_pool_bytes(struct swap_space *space);
/*
 * How old is what is in the pool (@tier -1) or in tier number @tier
 * (swap_tier_stat.nr): the median over its pages of how many evictions the space
 * has seen since theirs.  Coarse; ages of more than 65535 clock ticks wrap in the pool.
 * Walks the tables, sleeps.  0, -ENOENT: nothing is there, -ENOMEM.
 */
int swap_median_age(struct swap_space *space, int tier, u64 *evictions);
/* The @i-th tier.  Returns false past the last. */
bool swap_tier_stat(struct swap_space *space, unsigned int i, struct swap_tier_stat *stat);

#endif
