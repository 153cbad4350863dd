/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Regions: address space whose pages go to the store and come back by faults.
 *
 * The kernel's page tables cannot hold our entries, so each page of a region has
 * a word of 8 bytes here, which is its lock, too.  What a page is changes only
 * under that lock:
 *
 *	NEW	never touched, or dropped: reads as zeros; the word is 0
 *	PRESENT	in the program's memory; pinned or not, and how often the hand
 *		of the clock spares it (heat)
 *	STAGED	taken from the program, in a slot of staging, on its way to the store
 *	STORED	in the store: its entry, and when it left
 *	LOST	the store could not give it back: a touch is SIGBUS
 *
 * Locks, outermost first:
 *
 *	pin_lock -> page -> the store's
 *
 * Who waits for a page may hold others of lower addresses, no higher ones; the clock
 * and readahead only try.  Memory is charged before the page is locked that needs it:
 * making room waits for pages that others have locked.
 *
 * Nothing in the library touches memory of a region, save by the kernel (UFFDIO_COPY,
 * UFFDIO_MOVE): a fault under one of these locks would wait for itself.
 */
#ifndef LIB_REGION_H
#define LIB_REGION_H

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/types.h>

#include "store.h"

#define PAGE		((size_t)VSWAP_PAGE_SIZE)
#define WINDOW_PAGES	((size_t)512)
#define RUN_PAGES	64U  /* looked at together by eviction; a read ahead at most */
#define SEGMENT_SLOTS	512U /* of staging, for one batch on its way out */
#define SEGMENTS	8U
#define BOUNCES		64U /* threads that can bring in pages at once */
#define STREAMS		8U
#define SERVERS_MAX	8U
#define STAGING_BYTES	(SEGMENTS * SEGMENT_SLOTS * PAGE)
#define BELL_BYTES	(SERVERS_MAX * PAGE) /* behind it */
#define MIN_RAM_PAGES	((size_t)256)
#define PIN_SLACK_PAGES ((size_t)128) /* cannot be pinned, at least */

/* Linux 5.18; of memory an mlockall() has locked, too. */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* ---- the word -------------------------------------------------------- */

typedef u64 page_t;

enum page_state {
	PAGE_NEW,
	PAGE_PRESENT,
	PAGE_STAGED,
	PAGE_STORED,
	PAGE_LOST,
};

#define PAGE_LOCKED   ((page_t)1)
#define PAGE_WAITED   ((page_t)2) /* somebody sleeps until it is unlocked */
#define PAGE_PINNED   ((page_t)1 << 5)
#define PAGE_HEAT     6 /* bits of it from here */
#define PAGE_HEAT_MAX 3U
#define PAGE_CLOCK    8 /* of PAGE_STORED: bits of the eviction clock */
#define PAGE_VALUE    16

static inline enum page_state page_state(page_t p)
{
	return (enum page_state)(p >> 2 & 7);
}

static inline page_t page_make(enum page_state state)
{
	return (page_t)state << 2;
}

static inline page_t page_present(unsigned int heat)
{
	return page_make(PAGE_PRESENT) | (page_t)heat << PAGE_HEAT;
}

static inline unsigned int page_heat(page_t p)
{
	return (unsigned int)(p >> PAGE_HEAT) & PAGE_HEAT_MAX;
}

static inline page_t page_staged(size_t slot)
{
	return page_make(PAGE_STAGED) | (page_t)slot << PAGE_VALUE;
}

static inline page_t page_stored(vswap_entry entry, unsigned int clock)
{
	return page_make(PAGE_STORED) | (page_t)(clock & 0xff) << PAGE_CLOCK | entry << PAGE_VALUE;
}

/* The slot of a staged page, the entry of a stored one. */
static inline u64 page_value(page_t p)
{
	return p >> PAGE_VALUE;
}

/* ---- its lock -------------------------------------------------------- */

/* The half of the word with the lock's bits in it. */
static inline unsigned int *page_futex(page_t *word)
{
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
	return (unsigned int *)word;
}

page_t page_lock_slow(page_t *word);
void page_wake(page_t *word);

/* Returns what it is. */
static inline page_t page_lock(page_t *word)
{
	page_t p = __atomic_load_n(word, __ATOMIC_RELAXED);

	if (!(p & PAGE_LOCKED) && __atomic_compare_exchange_n(word, &p, p | PAGE_LOCKED, false,
							      __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return p;
	return page_lock_slow(word);
}

static inline bool page_trylock(page_t *word, page_t *p)
{
	*p = __atomic_load_n(word, __ATOMIC_RELAXED);
	return !(*p & PAGE_LOCKED) &&
	       __atomic_compare_exchange_n(word, p, *p | PAGE_LOCKED, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

/* It is @p from now on. */
static inline void page_unlock(page_t *word, page_t p)
{
	if (__atomic_exchange_n(word, p, __ATOMIC_RELEASE) & PAGE_WAITED)
		page_wake(word);
}

/* ---- a region -------------------------------------------------------- */

/* Of 2 MiB: where the hand finds nothing it goes on, and so does who ends a region. */
struct window {
	u32 present; /* atomic */
	u32 used;    /* not NEW, or about to be; atomic */
};

/* A batch on its way out.  Slots of staging are given in order, gaps and all. */
struct segment {
	size_t base; /* its first slot */
	unsigned int slots, nr;
	u32 page_slot[SEGMENT_SLOTS];
	size_t page[SEGMENT_SLOTS];
	vswap_entry entry[SEGMENT_SLOTS];
	page_t was[RUN_PAGES];
	u64 map[2 * RUN_PAGES]; /* of pagemap */
};

/* Faults in ascending order: where the next is expected, and how much is read then. */
struct stream {
	size_t next;
	unsigned int window;
};

struct vswap_region {
	struct vswap *store;
	struct vswap_region *next;	  /* of the store */
	struct vswap_region *next_sigbus; /* of those the handler knows, by RCU */
	char *base;
	size_t pages;
	unsigned int flags;
	int uffd, pagemap;
	bool whole; /* the kernel's own accesses are served, too */

	page_t *page;
	struct window *window;
	char *staging;
	char *bounce;
	u64 bounces; /* bits of those in use; atomic */
	struct segment *segment;
	u32 segments; /* the same */

	/* Budget: atomic, in pages. */
	size_t ram;
	size_t used; /* present, staged, about to be */
	u64 pinned;
	u64 evictions;
	pthread_mutex_t pin_lock;

	pthread_mutex_t hand_lock; /* nothing is locked or waited for under it */
	size_t hand;

	u32 streams_busy; /* a lock that is only tried */
	unsigned int stream_next;
	struct stream stream[STREAMS];

	/* The thread that keeps some memory free, and those that serve. */
	pthread_t reclaimer;
	u32 reclaim; /* a futex: to do or not */
	bool stop, full;
	unsigned int servers;
	pthread_t server[SERVERS_MAX];

	/* Counters; atomic. */
	struct {
		u64 present, staged, stored, lost;
		u64 first, refaults, recalled, soon, readahead, evicted, direct, over;
	} count;
};

static inline void count(u64 *counter, u64 n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

static inline void uncount(u64 *counter, u64 n)
{
	__atomic_sub_fetch(counter, n, __ATOMIC_RELAXED);
}

static inline long region_futex(unsigned int *word, int op, unsigned int val)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, NULL, NULL, 0);
}

static inline char *page_addr(const struct vswap_region *r, size_t page)
{
	return r->base + page * PAGE;
}

static inline struct window *window_of(const struct vswap_region *r, size_t page)
{
	return &r->window[page / WINDOW_PAGES];
}

/* The eviction clock: sixteen ticks are as many evictions as pages fit. */
static inline unsigned int region_clock(const struct vswap_region *r)
{
	return (unsigned int)(__atomic_load_n(&r->evictions, __ATOMIC_RELAXED) /
			      (__atomic_load_n(&r->ram, __ATOMIC_RELAXED) / 16));
}

/*
 * A locked page turns from @was into @p: count it, and unlock it.  Its window has counted
 * one that was NEW as used.
 */
void page_turn(struct vswap_region *r, size_t page, page_t was, page_t p);

/* ---- fault.c --------------------------------------------------------- */

enum fault_result {
	FAULT_SERVED, /* or it was there */
	FAULT_LOST,
	FAULT_GONE, /* the process is ending, or memory is bad: not ours to mend */
};

/* Bring a page in, and its neighbours if it looks as if they are next. */
enum fault_result region_fault(struct vswap_region *r, size_t page);
/* The same, and with @pin it stays; no neighbours. */
enum fault_result region_bring(struct vswap_region *r, size_t page, bool pin);
/* Bring in up to @nr pages of one kind from @page on, if nobody is at them.  Returns how many. */
unsigned int region_bring_run(struct vswap_region *r, size_t page, unsigned int nr,
			      enum page_state kind);
/* Give locked pages, missing, what they hold.  False: the process is ending. */
bool region_copy(struct vswap_region *r, size_t page, const void *from, unsigned int nr);
/* Threads that serve what is read from the userfaultfd. */
int servers_start(struct vswap_region *r);
void servers_stop(struct vswap_region *r);

/* ---- evict.c --------------------------------------------------------- */

/* Memory for @nr pages.  Makes room if there is none; no page may be locked. */
void charge(struct vswap_region *r, size_t nr);
/* The same only if there is. */
bool try_charge(struct vswap_region *r, size_t nr);
void uncharge(struct vswap_region *r, size_t nr);
/* Take what can go of pages [first, first + nr).  0 or what the store said. */
int region_evict(struct vswap_region *r, size_t first, size_t nr);
/* Until no more is used than is allowed. */
int region_shrink(struct vswap_region *r);
int reclaimer_start(struct vswap_region *r);
void reclaimer_stop(struct vswap_region *r);

/* ---- sigbus.c -------------------------------------------------------- */

int sigbus_add(struct vswap_region *r);
void sigbus_remove(struct vswap_region *r);

#endif
