/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The compressed pool: a log of segments, cleaned like log-structured memory.
 *
 * Objects are appended in eviction order, so the list of segments is the age
 * order and no object carries list nodes.  Freeing only marks the object and
 * lowers its segment's live count; cleaning slides live objects towards the old
 * end among neighbours in age, which keeps the order, and gives memory back.
 *
 * An object's header names its entry.  The pool moves an object only after it
 * has asked the table to hold that entry's backing still.
 */
#ifndef CORE_ZPOOL_H
#define CORE_ZPOOL_H

#include "swap.h"

struct zpool;

/* What the pool asks of the table above it. */
struct zpool_ops {
	/*
	 * Is the object at @addr still the backing of @entry?  If so hold its
	 * backing still, so that nobody reads, frees or moves it, and return
	 * 0.  Anything else (-ENOENT: not its backing, or not yet; -EBUSY: in
	 * use right now) and the object is left where it is.  Never sleeps.  On
	 * 0 the pool may copy the object elsewhere and must call unpin.
	 */
	int (*pin)(void *priv, vswp_entry_t entry, unsigned long addr);
	/* Let go; the object is now at @to (== the pinned address: not moved). */
	void (*unpin)(void *priv, vswp_entry_t entry, unsigned long from, unsigned long to);
};

struct zpool_stat {
	u64 bytes;	/* all segments, the pool's own structs too */
	u64 live_bytes; /* live objects, headers and padding too */
	u64 data_bytes; /* their compressed bytes alone */
	u64 objects;
	u64 compacted_bytes; /* ever moved by cleaning */
};

/*
 * An address is the object's place in units of ZPOOL_ALIGN bytes; below
 * 2^ZPOOL_ADDR_BITS, never 0.
 */
#define ZPOOL_ALIGN	2
#define ZPOOL_ADDR_BITS 41

/* What an object has besides its bytes: a number below this, of the caller's own. */
#define ZPOOL_TAGS	  4

#define ZPOOL_OBJECT_HEAD 8U

/* What an object of @len bytes takes up in the pool. */
static inline u32 zpool_object_bytes(size_t len)
{
	return (ZPOOL_OBJECT_HEAD + (u32)len + ZPOOL_ALIGN - 1) & ~(u32)(ZPOOL_ALIGN - 1);
}

/*
 * A pool of at most @limit bytes, everything of its own included; where a mapping
 * costs what was touched, cleaning at the limit takes a few hundred KiB more while it
 * moves objects into another segment.  NULL: out of memory.  @ops and @priv must live
 * as long as the pool.  Sleeps.
 */
struct zpool *zpool_create(u64 limit, const struct zpool_ops *ops, void *priv);
/* With all that is in it.  Nobody may be in a call. */
void zpool_destroy(struct zpool *pool);
/* For stores to come: a pool above its new limit takes nothing until it is below. */
void zpool_set_limit(struct zpool *pool, u64 limit);
u64 zpool_limit(const struct zpool *pool);

/*
 * Append an object of 1..SWAP_PAGE_SIZE - 1 bytes at the young end.  Returns 0
 * and its address, -ENOSPC at the limit (cleaning was tried), -ENOMEM.
 *
 * Sleeps; cleans a little when the pool has grown sparse, so it pins objects of
 * other entries.  Until the caller has put the address where pin finds it, pin
 * must not return 0 for it; it will be left alone that long.
 */
int zpool_store(struct zpool *pool, vswp_entry_t entry, const void *data, size_t len,
		unsigned int tag, unsigned long *addr);
/*
 * Where the bytes are, and how many.  They stay there for as long as the caller
 * holds the backing still (folio lock, or a pin).  Takes no lock.
 */
const void *zpool_map(struct zpool *pool, unsigned long addr, size_t *len);
/* Its tag; as for zpool_map(). */
unsigned int zpool_tag(struct zpool *pool, unsigned long addr);
/* Whose bytes they are, as it was stored; as for zpool_map(). */
vswp_entry_t zpool_entry(struct zpool *pool, unsigned long addr);
/*
 * No longer wanted; the caller has taken the address out of the table.  May be
 * called under a cluster lock: never sleeps, takes no outer lock.  Returns what
 * zpool_object_bytes() said of it.
 */
u32 zpool_free(struct zpool *pool, unsigned long addr);
/*
 * Give back the segments zpool_free() emptied: it cannot, for that sleeps.  Call
 * it once the locks are dropped; costs one load when there is nothing to do.
 */
void zpool_reap(struct zpool *pool);

/*
 * Visit live objects oldest first until @fn returns non-zero; @fn is called
 * with no lock held and must check itself (folio_trylock, table word) that the
 * object is still there.  Objects that move meanwhile may be seen twice or not
 * at all.  Used by writeback.
 */
void zpool_walk_oldest(struct zpool *pool,
		       int (*fn)(void *arg, vswp_entry_t entry, unsigned long addr, size_t len),
		       void *arg);
/*
 * Slide objects together until @bytes are given back or nothing is left worth
 * moving.  Returns bytes given back.  Sleeps.
 */
u64 zpool_compact(struct zpool *pool, u64 bytes);
/* Takes no lock: the figures are each right, but not of one instant. */
void zpool_stat(struct zpool *pool, struct zpool_stat *stat);

#endif
