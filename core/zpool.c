// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The compressed pool: a log of segments, cleaned like log-structured memory.
 *
 * A segment is a mapping of ZSEG_SIZE bytes with objects packed from its start.
 * One segment is open and takes what is stored; the others are closed and only
 * shrink.  The list of segments, oldest first, and the order within each is the
 * order of eviction.
 *
 *	object: | length 12, flags 2, tag 2 | entry 48 | data ... | pad to 2 |
 *
 * A dead object keeps its header until it is cleaned away, so a segment can
 * always be read from start to end.  A hole left by moved objects is one dead
 * object whose entry field holds its size instead (no hole is too small for a
 * header: it was an object).
 *
 * Cleaning takes the segment with the most waste of the next few in age order and
 * slides its live objects together.  Where the home can give part of a mapping
 * back they slide to the segment's own start and the end is trimmed; only a
 * segment that fits behind the end of the next older one moves there and is gone.
 * Where it cannot, all slide into the older one while there is room, for whole
 * segments are the only gain.
 * It runs in small steps out of zpool_store(), as much as the waste demands, so
 * that the pool stays dense and no single call pays for it.
 *
 * Locks:
 *
 *	pool->clean	mutex: the list, the layout of closed segments, cleaning
 *	pool->lock	spinlock: the open segment's end, emptied segments
 *
 * clean is taken by those who may hold a folio lock, and cluster locks are taken
 * inside it, by ops->pin; folio locks too, but only tried.  lock is inside both
 * and inside a cluster lock, too, for zpool_free() takes it.
 *
 * A segment's count of live bytes is its reference count, too.  Being open or
 * being cleaned holds one more byte, so it reaches 0 once, and whoever takes it
 * there puts the segment on the list of emptied ones and never looks at it
 * again.  Every object's bytes are in the count from before its address is known
 * until zpool_free() is done with it, so zpool_map() and zpool_free() need no
 * lock to look at the segment: the struct is never freed, the mapping not while
 * the object lives.
 */
#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>

#include "space.h"
#include "zmem.h"
#include "zpool.h"

#define ZSEG_SHIFT	22
#define ZSEG_SIZE	(1U << ZSEG_SHIFT)
#define ZSEG_UNIT_SHIFT (ZSEG_SHIFT - 1) /* addresses count in 2 bytes */
#define ZSEG_UNIT_MASK	((1UL << ZSEG_UNIT_SHIFT) - 1)

/* Segment structs are made a leaf at a time and stay until the pool goes. */
#define ZLEAF_SHIFT  6
#define ZLEAF_SEGS   (1U << ZLEAF_SHIFT)
#define ZLEAF_BYTES  (ZLEAF_SEGS * (u32)sizeof(struct zseg))
#define ZPOOL_LEAVES (1U << (ZPOOL_ADDR_BITS - ZSEG_UNIT_SHIFT - ZLEAF_SHIFT))

#define ZOBJ_HEAD    ZPOOL_OBJECT_HEAD
#define ZOBJ_LEN     0x0fffU
#define ZOBJ_DEAD    0x1000U
#define ZOBJ_HOLE    0x2000U /* dead, and the entry field is its size */
#define ZOBJ_TAG     14	     /* the two bits from here on */

/*
 * Cleaning begins when more than 1/ZCLEAN_BEGIN of the pool is waste (and a
 * little slack, which is what keeps a tiny pool quiet) and a segment is worth it
 * when more than 1/ZCLEAN_WORTH of it is.
 */
#define ZCLEAN_BEGIN 11
#define ZCLEAN_SLACK (64U << 10)
#define ZCLEAN_WORTH 32
/* How many segments to choose from, and for how many choices one that is stuck rests. */
#define ZCLEAN_CHOICE 64
#define ZCLEAN_REST   16
/* Of a step's budget of bytes to move, what it costs to look at one object. */
#define ZCLEAN_LOOK 64
/* A hole in the segment being cleaned is given back when it is this big. */
#define ZCLEAN_HOLE (128U << 10)
/* A step for those who clean until it is enough. */
#define ZCLEAN_STRIDE (256 << 10)

#define ZWALK_BATCH   32

struct zseg {
	struct list_head node; /* by age in pool->segs, or in pool->unused */
	char *base;
	u64 seq;	      /* age: grows with each opened; 0: unused */
	atomic_t live;	      /* live bytes, and 1 while open or cleaned */
	u32 used;	      /* objects end here */
	u32 held;	      /* bytes from the start that cost memory */
	u32 layout;	      /* changes whenever an object of it moves */
	u32 stuck;	      /* pool->clock when cleaning it left waste behind, or 0 */
	u32 nr;		      /* place in the directory */
	struct zseg *emptied; /* next in pool->emptied */
};

struct zpool {
	const struct zpool_ops *ops;
	void *priv;
	u64 limit;

	/* the whole pool's, changed without a lock */
	atomic64_t bytes;
	atomic64_t live;
	atomic64_t data;
	atomic64_t objects;
	u64 compacted; /* written under clean, read by anyone */

	spinlock_t lock;
	struct zseg *open;
	struct zseg *emptied; /* live count is 0, still in the age list */
	unsigned int reap;    /* something may be emptied; read without the lock */

	struct mutex clean;
	struct list_head segs; /* oldest first; the open one last */
	struct list_head unused;
	unsigned int nr_segs; /* in segs */
	unsigned int nr_leaves;
	char *spare; /* a mapping in reserve, all trimmed */
	u64 seq;
	u32 clock;	   /* ticks each time a victim is looked for */
	struct zseg *hand; /* where to look for the next victim; NULL: at the oldest */
	/*
	 * The segment half cleaned: [0, dst) is done, [dst, src) is a hole, of
	 * which [hole, hole_end), whole pages, costs no memory any more.
	 */
	struct zseg *victim;
	u32 dst, src;
	u32 hole, hole_end;
	bool kept;    /* an object of it was in use */
	bool inplace; /* none of it moves into the next older segment */

	struct zseg *dir[ZPOOL_LEAVES];
};

static u32 zpage_up(u32 off)
{
	return (off + SWAP_PAGE_SIZE - 1) & ~(u32)(SWAP_PAGE_SIZE - 1);
}

static u32 zpage_down(u32 off)
{
	return off & ~(u32)(SWAP_PAGE_SIZE - 1);
}

/* What a segment costs that was touched up to @used. */
static u32 zseg_cost(u32 used)
{
	return zmem_is_lazy() ? zpage_up(used) : ZSEG_SIZE;
}

/* What the pool's struct costs, its directory filled up to @leaves. */
static u32 zpool_cost(unsigned int leaves)
{
	return zpage_up(zmem_is_lazy() ? offsetof(struct zpool, dir) + leaves * sizeof(void *) :
					 sizeof(struct zpool));
}

/* ---- objects --------------------------------------------------------- */

static u16 *zobj_head(const struct zseg *seg, u32 off)
{
	return (u16 *)(seg->base + off);
}

static void zobj_write(u16 *head, u32 first, u64 rest)
{
	head[1] = (u16)rest;
	head[2] = (u16)(rest >> 16);
	head[3] = (u16)(rest >> 32);
	WRITE_ONCE(head[0], (u16)first);
}

static u64 zobj_rest(const u16 *head)
{
	return head[1] | (u64)head[2] << 16 | (u64)head[3] << 32;
}

/*
 * Read a header: whether the object is dead, and the bytes it takes up.  Once it
 * is seen dead, zpool_free() will not look at it any more and it may be
 * overwritten.
 */
static bool zobj_dead(const u16 *head, u32 *size)
{
	u16 first = smp_load_acquire(head);

	*size = first & ZOBJ_HOLE ? (u32)zobj_rest(head) : zpool_object_bytes(first & ZOBJ_LEN);
	return first & (ZOBJ_DEAD | ZOBJ_HOLE);
}

static unsigned long zobj_addr(const struct zseg *seg, u32 off)
{
	return (unsigned long)seg->nr << ZSEG_UNIT_SHIFT | off / ZPOOL_ALIGN;
}

static struct zseg *zpool_seg(struct zpool *pool, unsigned long addr, u32 *off)
{
	unsigned long nr = addr >> ZSEG_UNIT_SHIFT;

	*off = (addr & ZSEG_UNIT_MASK) * ZPOOL_ALIGN;
	return &pool->dir[nr >> ZLEAF_SHIFT][nr & (ZLEAF_SEGS - 1)];
}

/* ---- segments -------------------------------------------------------- */

/* Take @n off the live count.  The segment may be gone afterwards. */
static void zseg_put(struct zpool *pool, struct zseg *seg, u32 n)
{
	int left = atomic_sub_return((int)n, &seg->live);

	if (left > 1)
		return;
	if (!left) {
		spin_lock(&pool->lock);
		seg->emptied = pool->emptied;
		pool->emptied = seg;
		spin_unlock(&pool->lock);
	}
	/* 1 may be the open segment with nothing in it. */
	WRITE_ONCE(pool->reap, 1);
}

/* Make a leaf of segment structs.  Under clean. */
static int zpool_add_leaf(struct zpool *pool)
{
	unsigned int i, nr, grown;
	struct zseg *leaf;

	if (pool->nr_leaves == ZPOOL_LEAVES)
		return -ENOMEM;
	leaf = zmem_alloc(ZLEAF_BYTES);
	if (!leaf)
		return -ENOMEM;
	for (i = 0; i < ZLEAF_SEGS; i++) {
		nr = pool->nr_leaves * ZLEAF_SEGS + i;
		leaf[i].nr = nr;
		/* Address 0 is no address, so segment 0 is never used. */
		if (nr)
			list_add_tail(&leaf[i].node, &pool->unused);
	}
	pool->dir[pool->nr_leaves++] = leaf;
	grown = zpool_cost(pool->nr_leaves) - zpool_cost(pool->nr_leaves - 1);
	atomic64_add(ZLEAF_BYTES + grown, &pool->bytes);
	return 0;
}

/*
 * Have a segment struct and a mapping at hand for the next segment.  Under
 * clean.  Returns 0 or -ENOMEM.
 */
static int zpool_reserve(struct zpool *pool)
{
	if (list_empty(&pool->unused) && zpool_add_leaf(pool))
		return -ENOMEM;
	if (!pool->spare) {
		pool->spare = zmem_alloc(ZSEG_SIZE);
		if (!pool->spare)
			return -ENOMEM;
		atomic64_add(zseg_cost(0), &pool->bytes);
	}
	return 0;
}

/* Give back what @seg holds beyond @used.  Under clean; @seg is closed. */
static void zseg_trim(struct zpool *pool, struct zseg *seg, u32 used)
{
	u32 keep = zseg_cost(used);

	if (keep < seg->held) {
		zmem_trim(seg->base, keep, seg->held);
		atomic64_sub(seg->held - keep, &pool->bytes);
		seg->held = keep;
	}
}

/* Take an emptied segment out of the pool.  Under clean. */
static void zseg_release(struct zpool *pool, struct zseg *seg)
{
	if (pool->hand == seg)
		pool->hand = NULL;
	zseg_trim(pool, seg, 0);
	if (!pool->spare) {
		pool->spare = seg->base;
	} else {
		zmem_free(seg->base, ZSEG_SIZE);
		atomic64_sub(seg->held, &pool->bytes);
	}
	seg->base = NULL;
	seg->seq = 0;
	list_move(&seg->node, &pool->unused);
	pool->nr_segs--;
}

/* Close the open segment if nothing lives in it, or if @force.  Under clean. */
static void zpool_close_open(struct zpool *pool, bool force)
{
	struct zseg *seg;

	spin_lock(&pool->lock);
	seg = pool->open;
	if (seg && !force && atomic_read(&seg->live) > 1)
		seg = NULL;
	if (seg)
		pool->open = NULL;
	spin_unlock(&pool->lock);
	if (seg)
		zseg_put(pool, seg, 1);
}

/* ---- cleaning -------------------------------------------------------- */

/* The segment next older than @seg, or NULL.  Under clean. */
static struct zseg *zseg_older(struct zpool *pool, struct zseg *seg)
{
	return seg->node.prev == &pool->segs ? NULL : list_prev_entry(seg, node);
}

/*
 * The live segment next older than @seg with its count raised, so that
 * it stays, or NULL.  Under clean.
 */
static struct zseg *zseg_get_older(struct zpool *pool, struct zseg *seg)
{
	struct zseg *older = zseg_older(pool, seg);

	return older && atomic_inc_not_zero(&older->live) ? older : NULL;
}

/* The bytes cleaning @seg could win: dead ones, and room to move into.  Under clean. */
static u32 zseg_waste(struct zpool *pool, struct zseg *seg)
{
	u32 waste = seg->used - min(seg->used, (u32)atomic_read(&seg->live));
	struct zseg *older = zseg_older(pool, seg);

	if (older && older->held - older->used >= SWAP_PAGE_SIZE)
		waste += older->held - older->used;
	return waste;
}

/*
 * The segment with the largest share of waste among the next ZCLEAN_CHOICE in
 * age order, or further on until there is one worth cleaning; one that cleaning
 * did not help less than @rest choices ago is passed over.  NULL: none is worth it.
 * Under clean.
 */
static struct zseg *zpool_choose(struct zpool *pool, u32 rest)
{
	struct zseg *seg, *best = NULL, *first = NULL;
	u64 waste, best_waste = 0;
	unsigned int seen = 0;

	if (!++pool->clock)
		pool->clock = 1; /* 0 means never */
	/* The open one is closed for it when an eighth of it is dead already. */
	if (pool->open) {
		u32 used = READ_ONCE(pool->open->used);
		u32 live = (u32)atomic_read(&pool->open->live);

		if (used >= ZCLEAN_SLACK && live < used - used / 8)
			zpool_close_open(pool, true);
	}
	for (seg = pool->hand;; seg = list_next_entry(seg, node)) {
		if (!seg || &seg->node == &pool->segs) {
			if (list_empty(&pool->segs))
				break;
			seg = list_first_entry(&pool->segs, struct zseg, node);
		}
		if (seg == first)
			break;
		if (!first)
			first = seg;
		if (seen++ >= ZCLEAN_CHOICE && best)
			break;
		if (seg == pool->open || !atomic_read(&seg->live) ||
		    (seg->stuck && pool->clock - seg->stuck <= rest))
			continue;
		waste = zseg_waste(pool, seg);
		if (waste * ZCLEAN_WORTH < seg->used || !waste)
			continue;
		if (!best || waste * best->used > best_waste * seg->used) {
			best = seg;
			best_waste = waste;
		}
	}
	pool->hand = seg && seg != pool->open ? seg : NULL;
	return best;
}

/* The victim is about to be written up to @end: pages given back before count again. */
static void zclean_touch(struct zpool *pool, u32 end)
{
	u32 hole = min(zpage_up(end), pool->hole_end);

	if (hole > pool->hole) {
		atomic64_add(hole - pool->hole, &pool->bytes);
		pool->hole = hole;
	}
}

/*
 * Make the hole in the victim one that can be read over, and give pages of it back:
 * of those beyond where its live objects will end, for the others are soon written
 * again, and a page fault each costs more than moving what goes there.
 */
static void zclean_close_hole(struct zpool *pool, bool trim)
{
	struct zseg *seg = pool->victim;
	u32 end = zpage_down(pool->src), from = pool->dst + ZOBJ_HEAD;

	if (pool->dst == pool->src)
		return;
	zclean_touch(pool, pool->dst + ZOBJ_HEAD);
	zobj_write(zobj_head(seg, pool->dst), ZOBJ_HOLE, pool->src - pool->dst);
	if (!trim || !zmem_is_lazy())
		return;
	/* Nothing comes here while all goes to the older one, which takes memory for it. */
	if (pool->dst || pool->inplace)
		from = max(from, (u32)atomic_read(&seg->live));
	from = zpage_up(from);
	if (pool->hole == pool->hole_end)
		pool->hole = pool->hole_end = from;
	if (end > pool->hole_end && end - pool->hole_end >= ZCLEAN_HOLE) {
		zmem_trim(seg->base, pool->hole_end, end);
		atomic64_sub(end - pool->hole_end, &pool->bytes);
		pool->hole_end = end;
	}
}

/* Take the best segment as the victim.  False: none is worth it.  Under clean. */
static bool zclean_begin(struct zpool *pool, u32 rest)
{
	struct zseg *seg, *older;

	for (;;) {
		seg = zpool_choose(pool, rest);
		if (!seg)
			return false;
		if (atomic_inc_not_zero(&seg->live))
			break;
	}
	pool->victim = seg;
	pool->dst = 0;
	pool->src = 0;
	pool->hole = 0;
	pool->hole_end = 0;
	pool->kept = false;
	/* Where the end of a segment can be given back, only a move of all of it pays. */
	older = zseg_older(pool, seg);
	pool->inplace = !older ||
			(zmem_is_lazy() && older->used + (u32)atomic_read(&seg->live) > ZSEG_SIZE);
	return true;
}

/* All objects of the victim are where they shall be. */
static void zclean_end(struct zpool *pool)
{
	struct zseg *seg = pool->victim;

	zclean_touch(pool, pool->hole_end);
	seg->used = pool->dst;
	zseg_trim(pool, seg, seg->used);
	/* Objects in use kept it from being dense, and would again. */
	seg->stuck = pool->kept ? pool->clock : 0;
	pool->victim = NULL;
	zseg_put(pool, seg, 1);
}

/* Give back all emptied segments.  Under clean. */
static void zpool_reap_locked(struct zpool *pool)
{
	struct zseg *seg, *next;

	/* Ordered before what follows: whoever is missed there has set it again. */
	if (!READ_ONCE(pool->reap) || !xchg(&pool->reap, 0))
		return;
	if (pool->victim && atomic_read(&pool->victim->live) == 1) {
		pool->src = pool->victim->used;
		pool->dst = 0;
		zclean_end(pool);
	}
	/* Nothing in it, and enough touched to make it worth a new one. */
	if (pool->open && READ_ONCE(pool->open->used) >= ZCLEAN_SLACK)
		zpool_close_open(pool, false);
	spin_lock(&pool->lock);
	seg = pool->emptied;
	pool->emptied = NULL;
	spin_unlock(&pool->lock);
	for (; seg; seg = next) {
		next = seg->emptied;
		zseg_release(pool, seg);
	}
}

void zpool_reap(struct zpool *pool)
{
	if (!READ_ONCE(pool->reap))
		return;
	mutex_lock(&pool->clean);
	zpool_reap_locked(pool);
	mutex_unlock(&pool->clean);
}

/*
 * Bring the live object at the victim's src, of @size bytes, to where it belongs:
 * the end of @older if that is given, else the victim's dst.  Returns the bytes
 * moved.  Under clean.
 */
static u32 zclean_object(struct zpool *pool, struct zseg *older, u32 size)
{
	struct zseg *seg = pool->victim;
	u16 *head = zobj_head(seg, pool->src);
	vswp_entry_t entry = vswp_entry(zobj_rest(head));
	unsigned long from = zobj_addr(seg, pool->src), to;

	if (!older && pool->src == pool->dst) {
		pool->src += size;
		pool->dst = pool->src;
		return 0;
	}
	if (pool->ops->pin(pool->priv, entry, from)) {
		/* Stays; what came before it is one hole now, and its pages count as held. */
		zclean_close_hole(pool, false);
		zclean_touch(pool, pool->hole_end);
		pool->src += size;
		pool->dst = pool->src;
		pool->hole = 0;
		pool->hole_end = 0;
		pool->kept = true;
		return 0;
	}
	if (older) {
		u32 cost = zseg_cost(older->used + size);

		if (cost > older->held) {
			atomic64_add(cost - older->held, &pool->bytes);
			older->held = cost;
		}
		memcpy(older->base + older->used, head, size);
		to = zobj_addr(older, older->used);
		older->used += size;
		atomic_add((int)size, &older->live);
		atomic_sub((int)size, &seg->live); /* never the last: it is being cleaned */
	} else {
		zclean_touch(pool, pool->dst + size);
		memmove(seg->base + pool->dst, head, size);
		to = zobj_addr(seg, pool->dst);
		pool->dst += size;
	}
	pool->src += size;
	pool->ops->unpin(pool->priv, entry, from, to);
	WRITE_ONCE(pool->compacted, pool->compacted + size);
	return size;
}

/*
 * Clean for about @budget bytes moved; @rest as in zpool_choose().  False: nothing
 * is worth cleaning.  Under clean.
 */
static bool zpool_clean(struct zpool *pool, s64 budget, u32 rest)
{
	struct zseg *seg, *older;
	u32 size;

	if (!pool->victim && !zclean_begin(pool, rest))
		return false;
	seg = pool->victim;
	seg->layout++;
	older = pool->inplace ? NULL : zseg_get_older(pool, seg);
	while (budget > 0 && pool->src < seg->used) {
		budget -= ZCLEAN_LOOK;
		if (zobj_dead(zobj_head(seg, pool->src), &size)) {
			pool->src += size;
			continue;
		}
		/* Once one stayed here, one behind it must not get before it. */
		if (older && (pool->dst || older->used + size > ZSEG_SIZE)) {
			zseg_put(pool, older, 1);
			older = NULL;
		}
		budget -= zclean_object(pool, older, size);
	}
	if (older)
		zseg_put(pool, older, 1);
	if (pool->src < seg->used)
		zclean_close_hole(pool, true);
	else
		zclean_end(pool);
	return true;
}

/* A little cleaning for @size bytes stored, in proportion to what is wasted. */
static void zpool_tidy(struct zpool *pool, u32 size)
{
	s64 bytes = atomic64_read(&pool->bytes);
	s64 waste = bytes - atomic64_read(&pool->live);

	if (waste <= bytes / ZCLEAN_BEGIN + ZCLEAN_SLACK)
		return;
	/* Whoever has it is cleaning. */
	if (!mutex_trylock(&pool->clean))
		return;
	zpool_reap_locked(pool);
	zpool_clean(pool, (s64)size * 64 * waste / bytes, ZCLEAN_REST);
	mutex_unlock(&pool->clean);
}

/* Clean until @need more bytes are within the limit.  Returns 0 or -ENOSPC.  Under clean. */
static int zpool_make_room(struct zpool *pool, u32 need)
{
	u32 clock = pool->clock;

	do {
		zpool_reap_locked(pool);
		if ((u64)atomic64_read(&pool->bytes) + need <= READ_ONCE(pool->limit))
			return 0;
	} while (zpool_clean(pool, ZCLEAN_STRIDE, ZCLEAN_REST) &&
		 pool->clock - clock <= ZCLEAN_CHOICE);
	return -ENOSPC;
}

u64 zpool_compact(struct zpool *pool, u64 bytes)
{
	s64 begin = atomic64_read(&pool->bytes), given = 0;
	bool more = true;
	u32 clock;

	mutex_lock(&pool->clean);
	clock = pool->clock;
	while (more) {
		zpool_reap_locked(pool);
		given = begin - atomic64_read(&pool->bytes);
		if (given >= 0 && (u64)given >= bytes)
			break;
		/* No segment twice: objects in use may leave waste in it for ever. */
		more = zpool_clean(pool, ZCLEAN_STRIDE, pool->clock - clock);
		mutex_unlock(&pool->clean);
		cond_resched();
		mutex_lock(&pool->clean);
	}
	mutex_unlock(&pool->clean);
	return given > 0 ? (u64)given : 0;
}

/* ---- storing, reading, freeing --------------------------------------- */

/*
 * Open a segment in place of @old, unless somebody did already.  Returns 0,
 * -ENOMEM, -ENOSPC.  Sleeps.
 */
static int zpool_open_segment(struct zpool *pool, struct zseg *old)
{
	struct zseg *seg;
	int err = 0;

	mutex_lock(&pool->clean);
	if (READ_ONCE(pool->open) != old)
		goto out;
	/* What is in reserve has been counted already. */
	err = zpool_make_room(pool, pool->spare ? 0 : zseg_cost(0));
	if (!err)
		err = zpool_reserve(pool);
	if (err)
		goto out;
	zpool_close_open(pool, true);
	seg = list_first_entry(&pool->unused, struct zseg, node);
	seg->base = pool->spare;
	seg->seq = ++pool->seq;
	seg->used = 0;
	seg->held = zseg_cost(0);
	seg->layout = 0;
	seg->stuck = 0;
	atomic_set(&seg->live, 1);
	list_move_tail(&seg->node, &pool->segs);
	pool->nr_segs++;
	pool->spare = NULL;
	spin_lock(&pool->lock);
	pool->open = seg;
	spin_unlock(&pool->lock);
	/* The next one, while it is not urgent; without it the next time will try again. */
	if ((u64)atomic64_read(&pool->bytes) + zseg_cost(0) <= READ_ONCE(pool->limit))
		(void)zpool_reserve(pool);
out:
	mutex_unlock(&pool->clean);
	return err;
}

int zpool_store(struct zpool *pool, vswp_entry_t entry, const void *data, size_t len,
		unsigned int tag, unsigned long *addr)
{
	u32 size = zpool_object_bytes(len), off, grow;
	struct zseg *seg;
	u16 *head;
	bool fits;
	int err;

	BUILD_BUG_ON(ZPOOL_ALIGN != sizeof(u16));
	BUILD_BUG_ON(SWAP_PAGE_SIZE - 1 > ZOBJ_LEN);
	BUILD_BUG_ON(ZPOOL_TAGS << ZOBJ_TAG > 1 << 16);
	if (WARN_ON_ONCE(!len || len > ZOBJ_LEN || tag >= ZPOOL_TAGS || entry.val >> 48))
		return -EINVAL;
	for (;;) {
		spin_lock(&pool->lock);
		seg = pool->open;
		fits = seg && seg->used + size <= ZSEG_SIZE;
		grow = fits ? zseg_cost(seg->used + size) - seg->held : 0;
		if (fits && (u64)atomic64_read(&pool->bytes) + grow <= READ_ONCE(pool->limit))
			break;
		spin_unlock(&pool->lock);
		if (fits) {
			mutex_lock(&pool->clean);
			err = zpool_make_room(pool, grow);
			mutex_unlock(&pool->clean);
		} else {
			err = zpool_open_segment(pool, seg);
		}
		if (err)
			return err;
	}
	off = seg->used;
	WRITE_ONCE(seg->used, off + size);
	if (grow) {
		seg->held += grow;
		atomic64_add(grow, &pool->bytes);
	}
	head = zobj_head(seg, off);
	zobj_write(head, (u32)len | tag << ZOBJ_TAG, entry.val);
	atomic_add((int)size, &seg->live);
	spin_unlock(&pool->lock);

	/* Nobody else can pin it yet, so it cannot move. */
	memcpy((char *)head + ZOBJ_HEAD, data, len);
	*addr = zobj_addr(seg, off);
	atomic64_add(size, &pool->live);
	atomic64_add((s64)len, &pool->data);
	atomic64_inc(&pool->objects);
	zpool_tidy(pool, size);
	return 0;
}

const void *zpool_map(struct zpool *pool, unsigned long addr, size_t *len)
{
	u32 off;
	struct zseg *seg = zpool_seg(pool, addr, &off);
	u16 *head = zobj_head(seg, off);

	*len = READ_ONCE(head[0]) & ZOBJ_LEN;
	return (char *)head + ZOBJ_HEAD;
}

unsigned int zpool_tag(struct zpool *pool, unsigned long addr)
{
	u32 off;
	struct zseg *seg = zpool_seg(pool, addr, &off);

	return READ_ONCE(*zobj_head(seg, off)) >> ZOBJ_TAG;
}

vswp_entry_t zpool_entry(struct zpool *pool, unsigned long addr)
{
	u32 off;
	struct zseg *seg = zpool_seg(pool, addr, &off);

	return vswp_entry(zobj_rest(zobj_head(seg, off)));
}

u32 zpool_free(struct zpool *pool, unsigned long addr)
{
	u32 off;
	struct zseg *seg = zpool_seg(pool, addr, &off);
	u16 *head = zobj_head(seg, off);
	u16 first = READ_ONCE(head[0]);
	u32 len = first & ZOBJ_LEN, size = zpool_object_bytes(len);

	if (WARN_ON_ONCE(first & (ZOBJ_DEAD | ZOBJ_HOLE)))
		return 0;
	smp_store_release(head, (u16)(first | ZOBJ_DEAD));
	atomic64_sub(size, &pool->live);
	atomic64_sub(len, &pool->data);
	atomic64_dec(&pool->objects);
	zseg_put(pool, seg, size);
	return size;
}

/* ---- walking --------------------------------------------------------- */

struct zwalk_object {
	vswp_entry_t entry;
	unsigned long addr;
	size_t len;
};

/* Where a walk is: it may find the segment changed, or gone, when it comes back. */
struct zwalk {
	struct zseg *seg;
	u64 seq;
	u32 off;
	u32 layout;
};

/* The segment to go on in, at which offset; NULL at the end.  Under clean. */
static struct zseg *zwalk_resume(struct zpool *pool, struct zwalk *at)
{
	struct zseg *seg = at->seg;

	if (seg && seg->seq == at->seq) {
		if (seg->layout != at->layout) {
			at->layout = seg->layout;
			at->off = 0;
		}
		return seg;
	}
	list_for_each_entry(seg, &pool->segs, node) {
		if (seg->seq > at->seq) {
			*at = (struct zwalk){ seg, seg->seq, 0, seg->layout };
			return seg;
		}
	}
	return NULL;
}

/* The next live objects, ZWALK_BATCH at most.  Returns how many; 0 at the end. */
static unsigned int zwalk_next(struct zpool *pool, struct zwalk *at, struct zwalk_object *obj)
{
	unsigned int nr = 0;
	struct zseg *seg;
	u32 used, size;
	u16 *head, *dead = NULL;

	mutex_lock(&pool->clean);
	while (nr < ZWALK_BATCH) {
		seg = zwalk_resume(pool, at);
		if (!seg)
			break;
		spin_lock(&pool->lock);
		used = seg->used;
		spin_unlock(&pool->lock);
		if (at->off >= used) {
			at->seg = NULL;
			dead = NULL;
			continue;
		}
		head = zobj_head(seg, at->off);
		if (zobj_dead(head, &size)) {
			/*
			 * Neighbours in death become one, for the next to come along
			 * here; not in the victim, where objects will move into one.
			 */
			if (dead)
				zobj_write(dead, ZOBJ_HOLE,
					   (u64)((char *)head - (char *)dead) + size);
			else if (seg != pool->victim)
				dead = head;
		} else {
			dead = NULL;
			obj[nr].entry = vswp_entry(zobj_rest(head));
			obj[nr].addr = zobj_addr(seg, at->off);
			obj[nr].len = READ_ONCE(head[0]) & ZOBJ_LEN;
			nr++;
		}
		at->off += size;
	}
	mutex_unlock(&pool->clean);
	return nr;
}

void zpool_walk_oldest(struct zpool *pool,
		       int (*fn)(void *arg, vswp_entry_t entry, unsigned long addr, size_t len),
		       void *arg)
{
	struct zwalk_object obj[ZWALK_BATCH];
	struct zwalk at = { 0 };
	unsigned int i, nr;

	while ((nr = zwalk_next(pool, &at, obj)))
		for (i = 0; i < nr; i++)
			if (fn(arg, obj[i].entry, obj[i].addr, obj[i].len))
				return;
}

/* ---- the pool -------------------------------------------------------- */

struct zpool *zpool_create(u64 limit, const struct zpool_ops *ops, void *priv)
{
	struct zpool *pool = zmem_alloc(zpage_up(sizeof(*pool)));

	if (!pool)
		return NULL;
	pool->ops = ops;
	pool->priv = priv;
	pool->limit = limit;
	spin_lock_init(&pool->lock);
	lockdep_set_subclass(&pool->lock, SWAP_RANK_POOL);
	mutex_init(&pool->clean);
	INIT_LIST_HEAD(&pool->segs);
	INIT_LIST_HEAD(&pool->unused);
	atomic64_set(&pool->bytes, zpool_cost(0));
	if (zpool_reserve(pool)) {
		zpool_destroy(pool);
		return NULL;
	}
	return pool;
}

void zpool_destroy(struct zpool *pool)
{
	struct zseg *seg;
	unsigned int i;

	list_for_each_entry(seg, &pool->segs, node)
		zmem_free(seg->base, ZSEG_SIZE);
	zmem_free(pool->spare, ZSEG_SIZE);
	for (i = 0; i < pool->nr_leaves; i++)
		zmem_free(pool->dir[i], ZLEAF_BYTES);
	mutex_destroy(&pool->clean);
	zmem_free(pool, zpage_up(sizeof(*pool)));
}

void zpool_set_limit(struct zpool *pool, u64 limit)
{
	WRITE_ONCE(pool->limit, limit);
}

u64 zpool_limit(const struct zpool *pool)
{
	return READ_ONCE(pool->limit);
}

void zpool_stat(struct zpool *pool, struct zpool_stat *stat)
{
	stat->bytes = (u64)atomic64_read(&pool->bytes);
	stat->live_bytes = (u64)atomic64_read(&pool->live);
	stat->data_bytes = (u64)atomic64_read(&pool->data);
	stat->objects = (u64)atomic64_read(&pool->objects);
	stat->compacted_bytes = READ_ONCE(pool->compacted);
}
