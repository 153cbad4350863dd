// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Eviction from a region: a budget, a clock, and batches on their way out.
 *
 * The hand of the clock goes round in order of addresses.  Nobody tells us what the
 * program reads, so a page is taken and seen to be missed: one that came back soon is
 * warm, and spared the next times the hand comes by.
 *
 * A run of pages is locked and moved to staging by one UFFDIO_MOVE, with the holes in
 * it, for a hole costs less than a call (the other CPUs are interrupted once for what is
 * side by side, from Linux 6.18 on; before, for each page); whatever is in a hole is
 * locked, too, so that nothing comes in there meanwhile.  Then the pages are unlocked,
 * STAGED: who wants one now gets it back from there.  When the store has them all, those
 * still STAGED become STORED, and the slots are dropped.
 *
 * A thread keeps a little of the budget free, so that faults need not wait for that.
 * Where it does not come after, who needs memory evicts a smaller batch himself.
 */
#define pr_fmt(fmt) "vswap: " fmt

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <linux/bug.h>
#include <linux/printk.h>

#include "../agent/uffd.h"
#include "region.h"

#define BATCH_PAGES  128U /* the reclaimer's */
#define DIRECT_PAGES 32U  /* of one who waits for it */
#define SPIN_TRIES   16U  /* without getting anywhere, till it is time to sleep */
#define MAX_TRIES    200U /* ... and to give up, unless something is under way */
#define WAIT_NS	     100000L
#define FREE_MAX     ((size_t)1024)
#define REST_NS	     10000000L

#define PM_PRESENT   (1ULL << 63)
#define PM_SWAPPED   (1ULL << 62)

/* ---- the budget ------------------------------------------------------ */

/* Below that the reclaimer starts; it ends at twice as much. */
static size_t free_low(struct vswap_region *r)
{
	size_t n = __atomic_load_n(&r->ram, __ATOMIC_RELAXED) / 64;

	return n < FREE_MAX ? n : FREE_MAX;
}

static size_t free_now(struct vswap_region *r)
{
	size_t ram = __atomic_load_n(&r->ram, __ATOMIC_RELAXED);
	size_t used = __atomic_load_n(&r->used, __ATOMIC_RELAXED);

	return used < ram ? ram - used : 0;
}

static void kick(struct vswap_region *r)
{
	if (!__atomic_load_n(&r->reclaim, __ATOMIC_RELAXED) &&
	    !__atomic_exchange_n(&r->reclaim, 1, __ATOMIC_RELEASE))
		region_futex(&r->reclaim, FUTEX_WAKE, 1);
}

bool try_charge(struct vswap_region *r, size_t nr)
{
	size_t ram = __atomic_load_n(&r->ram, __ATOMIC_RELAXED);
	size_t used = __atomic_load_n(&r->used, __ATOMIC_RELAXED);

	do {
		if (used + nr > ram) {
			kick(r);
			return false;
		}
	} while (!__atomic_compare_exchange_n(&r->used, &used, used + nr, false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	if (ram - used - nr < free_low(r))
		kick(r);
	return true;
}

void uncharge(struct vswap_region *r, size_t nr)
{
	__atomic_sub_fetch(&r->used, nr, __ATOMIC_RELAXED);
}

/* ---- taking pages out ------------------------------------------------- */

static struct segment *segment_get(struct vswap_region *r)
{
	u32 used = __atomic_load_n(&r->segments, __ATOMIC_RELAXED);

	for (;;) {
		int free = __builtin_ffs((int)~used) - 1;

		if (free < 0 || free >= (int)SEGMENTS)
			return NULL;
		if (__atomic_compare_exchange_n(&r->segments, &used, used | 1U << free, false,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			r->segment[free].slots = r->segment[free].nr = 0;
			return &r->segment[free];
		}
	}
}

static void segment_put(struct vswap_region *r, const struct segment *seg)
{
	__atomic_and_fetch(&r->segments, ~(1U << (seg - r->segment)), __ATOMIC_RELEASE);
}

static char *slot_addr(const struct vswap_region *r, size_t slot)
{
	return r->staging + slot * PAGE;
}

/* Which of @nr pages at @addr are there, here or where the kernel has swapped them to? */
static void read_pagemap(struct vswap_region *r, const char *addr, unsigned int nr, u64 *map)
{
	ssize_t len = (ssize_t)(nr * sizeof(*map));

	/* Without knowing it bytes would be lost. */
	BUG_ON(pread(r->pagemap, map, (size_t)len,
		     (off_t)((size_t)(uintptr_t)addr / PAGE * sizeof(*map))) != len);
}

/*
 * Move pages [first, first + n), holes and all, to slots from @slot on.  Sets @there[i]
 * for those that are in staging now.
 *
 * What UFFDIO_MOVE says it moved need not be all: from Linux 6.18 on what it moves after
 * it had to try again is not counted.  So where it did not do all, look.
 */
static void move_out(struct vswap_region *r, struct segment *seg, size_t first, unsigned int n,
		     size_t slot, bool *there)
{
	struct uffdio_move move = { 0 };
	unsigned int done = 0;

	while (done < n) {
		move.dst = (u64)(uintptr_t)slot_addr(r, slot + done);
		move.src = (u64)(uintptr_t)page_addr(r, first + done);
		move.len = (n - done) * PAGE;
		move.mode = UFFDIO_MOVE_MODE_DONTWAKE | UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES;
		move.move = 0;
		if (!ioctl(r->uffd, UFFDIO_MOVE, &move)) {
			memset(there + done, true, n - done);
			return;
		}
		read_pagemap(r, page_addr(r, first + done), n - done, seg->map);
		read_pagemap(r, slot_addr(r, slot + done), n - done, seg->map + RUN_PAGES);
		/* Up to the first that is where it was; that one cannot go, if nothing did. */
		for (unsigned int from = done;; done++) {
			if (done == n)
				return;
			if (seg->map[done - from] & (PM_PRESENT | PM_SWAPPED)) {
				done += done == from;
				break;
			}
			there[done] = seg->map[RUN_PAGES + done - from] & (PM_PRESENT | PM_SWAPPED);
		}
	}
}

/*
 * Take what can go of up to RUN_PAGES, to the first page that cannot.  @spare: one that
 * is warm, or that somebody is at, cannot, and is a little colder then.  Returns how
 * many pages were looked at.
 */
static unsigned int take_run(struct vswap_region *r, struct segment *seg, size_t first,
			     unsigned int nr, bool spare)
{
	bool there[RUN_PAGES] = { false }, goes[RUN_PAGES];
	size_t slot = seg->base + seg->slots;
	unsigned int n, begin = 0, end = 0;

	for (n = 0; n < nr; n++) {
		page_t *word = &r->page[first + n], *p = &seg->was[n];
		bool stays;

		if (!spare)
			*p = page_lock(word);
		else if (!page_trylock(word, p))
			break;
		goes[n] = page_state(*p) == PAGE_PRESENT;
		/* The mark of one that is lost is nothing UFFDIO_MOVE knows. */
		stays = page_state(*p) == PAGE_LOST || (goes[n] && (*p & PAGE_PINNED));
		if (stays || (goes[n] && spare && page_heat(*p))) {
			page_unlock(word, stays ? *p : *p - ((page_t)1 << PAGE_HEAT));
			break;
		}
		if (!goes[n])
			continue;
		if (!end)
			begin = n;
		end = n + 1;
	}
	if (end)
		move_out(r, seg, first + begin, end - begin, slot + begin, there + begin);
	for (unsigned int i = 0; i < n; i++) {
		if (!goes[i] || !there[i]) {
			page_unlock(&r->page[first + i], seg->was[i]);
			continue;
		}
		seg->page[seg->nr] = first + i;
		seg->page_slot[seg->nr++] = (u32)(slot + i);
		page_turn(r, first + i, seg->was[i], page_staged(slot + i));
	}
	seg->slots += end;
	return n < nr ? n + 1 : nr;
}

static void take(struct vswap_region *r, struct segment *seg, size_t first, size_t nr, bool spare)
{
	while (nr && seg->slots + RUN_PAGES <= SEGMENT_SLOTS) {
		unsigned int n = take_run(r, seg, first,
					  nr < RUN_PAGES ? (unsigned int)nr : RUN_PAGES, spare);

		first += n;
		nr -= n;
	}
}

/* ---- to the store ---------------------------------------------------- */

static void store_all(struct vswap_region *r, struct segment *seg, int *err)
{
	void *addr[STORE_BATCH];
	unsigned int n;
	int ret;

	for (unsigned int done = 0; done < seg->nr; done += n) {
		n = seg->nr - done < STORE_BATCH ? seg->nr - done : STORE_BATCH;
		for (unsigned int i = 0; i < n; i++)
			addr[i] = slot_addr(r, seg->page_slot[done + i]);
		store_pages(r->store, addr, n, seg->entry + done, &ret);
		if (ret)
			*err = ret;
	}
}

static void drop_staging(struct vswap_region *r, const struct segment *seg)
{
	/*
	 * What would be left in it is in the way of the next.  After an mlockall() it stays
	 * locked: UFFDIO_MOVE goes between two that are, or are not, alone.
	 */
	BUG_ON(madvise(slot_addr(r, seg->base), seg->slots * PAGE, MADV_DONTNEED_LOCKED));
}

/*
 * Bring what was taken to the store.  What it would not have goes back to the program.
 * Returns how many pages of memory are free by that; *@err says what the store said.
 */
static unsigned int finish(struct vswap_region *r, struct segment *seg, int *err)
{
	unsigned int freed = seg->nr, gone = 0, clock = region_clock(r);

	if (!seg->nr)
		return 0;
	store_all(r, seg, err);
	for (unsigned int i = 0; i < seg->nr; i++) {
		size_t page = seg->page[i], slot = seg->page_slot[i];
		page_t p = page_lock(&r->page[page]);

		if (p != page_staged(slot)) {
			/* Taken back, or dropped by the program. */
			page_unlock(&r->page[page], p);
			if (seg->entry[i])
				vswap_free(r->store, &seg->entry[i], 1);
		} else if (seg->entry[i]) {
			page_turn(r, page, p, page_stored(seg->entry[i], clock));
			gone++;
		} else if (region_copy(r, page, slot_addr(r, slot), 1)) {
			page_turn(r, page, p, page_present(0));
			freed--;
		} else {
			page_unlock(&r->page[page], p);
			freed--;
		}
	}
	drop_staging(r, seg);
	uncharge(r, freed);
	count(&r->count.evicted, gone);
	__atomic_add_fetch(&r->evictions, gone, __ATOMIC_RELAXED);
	return freed;
}

/* ---- what goes ------------------------------------------------------- */

/* The next run the hand comes to, in a window that holds something.  False: none does. */
static bool hand_next(struct vswap_region *r, size_t *first, size_t *nr)
{
	size_t windows = (r->pages + WINDOW_PAGES - 1) / WINDOW_PAGES;
	bool found = false;

	pthread_mutex_lock(&r->hand_lock);
	for (size_t i = 0; i <= windows && !found; i++) {
		size_t window = r->hand / WINDOW_PAGES;

		if (__atomic_load_n(&r->window[window].present, __ATOMIC_RELAXED)) {
			*first = r->hand;
			*nr = r->pages - r->hand < RUN_PAGES ? r->pages - r->hand : RUN_PAGES;
			r->hand += RUN_PAGES;
			found = true;
		} else {
			r->hand = (window + 1) * WINDOW_PAGES;
		}
		if (r->hand >= r->pages)
			r->hand = 0;
	}
	pthread_mutex_unlock(&r->hand_lock);
	return found;
}

/* About @want pages.  Returns how many pages of memory are free by that. */
static unsigned int evict(struct vswap_region *r, unsigned int want, int *err)
{
	struct segment *seg = segment_get(r);
	size_t first, nr, runs = r->pages / RUN_PAGES + 1;
	unsigned int freed;

	*err = 0;
	if (!seg)
		return 0;
	/* Once round, at most. */
	while (seg->nr < want && seg->slots + RUN_PAGES <= SEGMENT_SLOTS && runs-- &&
	       hand_next(r, &first, &nr))
		take(r, seg, first, nr, true);
	freed = finish(r, seg, err);
	segment_put(r, seg);
	return freed;
}

/* Said once, until there is room again; faults make none meanwhile. */
static void tell_full(struct vswap_region *r, int err)
{
	if (!err || __atomic_exchange_n(&r->full, true, __ATOMIC_RELAXED))
		return;
	store_full(r->store, "region", err);
	if (err == -EBUSY)
		pr_warn("region: its pages cannot be had: it takes more memory than it should (a device may use them)\n");
	else
		pr_warn("region: %s for what is evicted: it takes more memory than it should (%s)\n",
			err == -ENOMEM ? "no memory" : "no room in the pool nor on a tier",
			err == -ENOMEM ? "lower its ram" : "raise the pool's limit, or add a tier");
}

/*
 * Room for at least a page, or none can be made: false.  What others have under way
 * will be.
 */
static bool make_room(struct vswap_region *r, unsigned int want, unsigned int *tries, int *err)
{
	if (evict(r, want, err)) {
		*tries = 0;
		return true;
	}
	if (*err)
		return false;
	if (++*tries < SPIN_TRIES)
		sched_yield();
	else
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
	return *tries < MAX_TRIES || __atomic_load_n(&r->count.staged, __ATOMIC_RELAXED);
}

void charge(struct vswap_region *r, size_t nr)
{
	unsigned int tries = 0;
	int err = 0;

	while (!try_charge(r, nr)) {
		count(&r->count.direct, 1);
		if (!__atomic_load_n(&r->full, __ATOMIC_RELAXED) &&
		    make_room(r, DIRECT_PAGES, &tries, &err))
			continue;
		/* More memory than there should be is better than bytes lost. */
		tell_full(r, err ? err : -EBUSY);
		count(&r->count.over, nr);
		__atomic_add_fetch(&r->used, nr, __ATOMIC_RELAXED);
		return;
	}
}

int region_shrink(struct vswap_region *r)
{
	unsigned int tries = 0;
	int err = 0;

	while (__atomic_load_n(&r->used, __ATOMIC_RELAXED) >
	       __atomic_load_n(&r->ram, __ATOMIC_RELAXED)) {
		if (!make_room(r, BATCH_PAGES, &tries, &err))
			return err ? err : -EBUSY;
	}
	return 0;
}

int region_evict(struct vswap_region *r, size_t first, size_t nr)
{
	int err = 0;

	while (nr && !err) {
		struct segment *seg = segment_get(r);
		size_t n = nr < WINDOW_PAGES / 2 ? nr : WINDOW_PAGES / 2;

		if (!seg) {
			sched_yield();
			continue;
		}
		if (__atomic_load_n(&window_of(r, first)->present, __ATOMIC_RELAXED) ||
		    __atomic_load_n(&window_of(r, first + n - 1)->present, __ATOMIC_RELAXED))
			take(r, seg, first, n, false);
		finish(r, seg, &err);
		segment_put(r, seg);
		first += n;
		nr -= n;
	}
	return err;
}

/* ---- the reclaimer --------------------------------------------------- */

static void *reclaimer(void *arg)
{
	struct vswap_region *r = arg;
	int err;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		if (!__atomic_load_n(&r->reclaim, __ATOMIC_ACQUIRE)) {
			region_futex(&r->reclaim, FUTEX_WAIT, 0);
			continue;
		}
		if (free_now(r) >= 2 * free_low(r)) {
			__atomic_store_n(&r->reclaim, 0, __ATOMIC_SEQ_CST);
			/* Who found it set since did not call. */
			if (free_now(r) < free_low(r))
				kick(r);
			continue;
		}
		if (evict(r, BATCH_PAGES, &err)) {
			__atomic_store_n(&r->full, false, __ATOMIC_RELAXED);
			continue;
		}
		tell_full(r, err);
		nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
	}
	return NULL;
}

int reclaimer_start(struct vswap_region *r)
{
	int err = pthread_create(&r->reclaimer, NULL, reclaimer, r);

	if (!err)
		pthread_setname_np(r->reclaimer, "vswap-reclaim");
	return -err;
}

void reclaimer_stop(struct vswap_region *r)
{
	__atomic_store_n(&r->stop, true, __ATOMIC_RELEASE);
	__atomic_store_n(&r->reclaim, 1, __ATOMIC_RELEASE);
	region_futex(&r->reclaim, FUTEX_WAKE, 1);
	pthread_join(r->reclaimer, NULL);
}
