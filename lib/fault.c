// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Faults of a region: pages come in.
 *
 * This runs in a thread of ours that reads the userfaultfd, or in a SIGBUS handler
 * in the thread that touched the page.  The page comes first, then its neighbours,
 * if the last faults came in order; nothing is evicted for those.
 *
 * A page goes from the store to a bounce buffer and from there to the program in one
 * step, UFFDIO_COPY; unlike UFFDIO_MOVE that interrupts no other CPU.
 */
#define pr_fmt(fmt) "vswap: " fmt

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <linux/bug.h>
#include <linux/printk.h>

#include "../agent/uffd.h"
#include "region.h"

#define SPINS	       100
#define FILL_RUN_PAGES 16U /* of pages never touched, at most */
#define SOON_CLOCK     2U  /* a page that was away for no longer is wanted; see region_clock() */
#define NAP_NS	       1000000L

/* What pages never touched hold. */
static char zeros[FILL_RUN_PAGES * VSWAP_PAGE_SIZE] __attribute__((__aligned__(VSWAP_PAGE_SIZE)));

/* ---- the word -------------------------------------------------------- */

page_t page_lock_slow(page_t *word)
{
	page_t p = __atomic_load_n(word, __ATOMIC_RELAXED);

	for (unsigned int spins = 0;; spins++) {
		if (!(p & PAGE_LOCKED)) {
			if (__atomic_compare_exchange_n(word, &p, p | PAGE_LOCKED, false,
							__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
				return p;
			continue;
		}
		if (spins < SPINS) {
			cpu_relax();
			p = __atomic_load_n(word, __ATOMIC_RELAXED);
			continue;
		}
		if ((p & PAGE_WAITED) ||
		    __atomic_compare_exchange_n(word, &p, p | PAGE_WAITED, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED)) {
			region_futex(page_futex(word), FUTEX_WAIT, (unsigned int)(p | PAGE_WAITED));
			p = __atomic_load_n(word, __ATOMIC_RELAXED);
		}
	}
}

void page_wake(page_t *word)
{
	region_futex(page_futex(word), FUTEX_WAKE, INT_MAX);
}

static u64 *counter_of(struct vswap_region *r, page_t p)
{
	switch (page_state(p)) {
	case PAGE_PRESENT:
		return &r->count.present;
	case PAGE_STAGED:
		return &r->count.staged;
	case PAGE_STORED:
		return &r->count.stored;
	case PAGE_LOST:
		return &r->count.lost;
	default:
		return NULL;
	}
}

void page_turn(struct vswap_region *r, size_t page, page_t was, page_t p)
{
	struct window *w = window_of(r, page);
	u64 *from = counter_of(r, was), *to = counter_of(r, p);
	bool was_present = page_state(was) == PAGE_PRESENT;
	bool present = page_state(p) == PAGE_PRESENT;

	if (from != to) {
		if (from)
			uncount(from, 1);
		if (to)
			count(to, 1);
		else
			__atomic_sub_fetch(&w->used, 1, __ATOMIC_RELAXED);
	}
	if (present && !was_present)
		__atomic_add_fetch(&w->present, 1, __ATOMIC_RELAXED);
	else if (was_present && !present)
		__atomic_sub_fetch(&w->present, 1, __ATOMIC_RELAXED);
	page_unlock(&r->page[page], p);
}

/* ---- one page -------------------------------------------------------- */

/* Buffers of RUN_PAGES for who brings in pages; those used last are used first. */
static char *bounce_get(struct vswap_region *r)
{
	u64 used = __atomic_load_n(&r->bounces, __ATOMIC_RELAXED);

	for (;;) {
		int free = __builtin_ffsll((long long)~used) - 1;

		if (free < 0) {
			sched_yield();
			used = __atomic_load_n(&r->bounces, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(&r->bounces, &used, used | 1ULL << free,
						       false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			return r->bounce + (size_t)free * RUN_PAGES * PAGE;
		}
	}
}

static void bounce_put(struct vswap_region *r, const char *bounce)
{
	size_t nr = (size_t)(bounce - r->bounce) / (RUN_PAGES * PAGE);

	__atomic_and_fetch(&r->bounces, ~(1ULL << nr), __ATOMIC_RELEASE);
}

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
}

/* Until it is done (true), or cannot be. */
static bool uffd_insist(struct vswap_region *r, unsigned long request, void *arg)
{
	while (ioctl(r->uffd, request, arg)) {
		if (errno == ENOMEM)
			wait_a_little();
		else if (errno != EAGAIN)
			return false;
	}
	return true;
}

bool region_copy(struct vswap_region *r, size_t page, const void *from, unsigned int nr)
{
	struct uffdio_copy copy = { 0 };
	unsigned int done = 0;

	while (done < nr) {
		copy.dst = (u64)(uintptr_t)page_addr(r, page + done);
		copy.src = (u64)(uintptr_t)from + done * PAGE;
		copy.len = (nr - done) * PAGE;
		copy.copy = 0;
		if (!ioctl(r->uffd, UFFDIO_COPY, &copy))
			return true;
		if (copy.copy > 0)
			done += (unsigned int)((size_t)copy.copy / PAGE);
		switch (copy.copy > 0 ? EAGAIN : errno) {
		case EAGAIN:
		case EINTR:
			break;
		case ENOMEM:
			/* The system's, or a limit of its: nobody is told to kill for us. */
			pr_err_ratelimited("region: the system has no memory for a page\n");
			wait_a_little();
			break;
		case ESRCH:
			return false;
		default:
			/* What we think is missing is there, or nothing is: all is lost. */
			BUG_ON(errno);
		}
	}
	return true;
}

static void region_poison(struct vswap_region *r, size_t page)
{
	struct uffdio_poison poison = {
		.range = { (u64)(uintptr_t)page_addr(r, page), PAGE },
	};

	pr_err_ratelimited("region: page at %p is lost (a touch of it is SIGBUS)\n",
			   (void *)page_addr(r, page));
	(void)uffd_insist(r, UFFDIO_POISON, &poison);
}

/*
 * A locked page, NEW, is about to get zeros.  It counts from now on: who finds it there
 * may say at once that all of the window is not needed, and is not to be told that
 * nothing is in it.
 */
static void window_use(struct vswap_region *r, size_t page)
{
	__atomic_add_fetch(&window_of(r, page)->used, 1, __ATOMIC_SEQ_CST);
}

/* Who waits for a page that is there. */
static void region_wake(struct vswap_region *r, size_t page)
{
	struct uffdio_range range = { (u64)(uintptr_t)page_addr(r, page), PAGE };

	if (!(r->flags & VSWAP_REGION_SIGBUS))
		ioctl(r->uffd, UFFDIO_WAKE, &range);
}

/* How often is a page spared that left at @clock and is wanted now? */
static unsigned int heat_of(struct vswap_region *r, page_t p)
{
	unsigned int away = (region_clock(r) - (unsigned int)(p >> PAGE_CLOCK)) & 0xff;

	if (away > SOON_CLOCK)
		return 0;
	count(&r->count.soon, 1);
	return 2;
}

/* A locked page from the store; its entry stays. */
static enum fault_result load(struct vswap_region *r, size_t page, page_t p)
{
	char *bounce = bounce_get(r);
	vswap_entry entry = page_value(p);
	enum fault_result result = FAULT_SERVED;
	int err;

	while ((err = vswap_load(r->store, &entry, 1, bounce)) == -ENOMEM || err == -EAGAIN)
		wait_a_little();
	if (err)
		result = FAULT_LOST;
	else if (!region_copy(r, page, bounce, 1))
		result = FAULT_GONE;
	bounce_put(r, bounce);
	return result;
}

/* What @p was: PAGE_NEW and so on. */
static enum fault_result bring(struct vswap_region *r, size_t page, bool pin, page_t *was)
{
	page_t p, then = page_present(0);
	vswap_entry entry = 0;
	enum fault_result result = FAULT_SERVED;

	charge(r, 1);
	p = *was = page_lock(&r->page[page]);
	switch (page_state(p)) {
	case PAGE_PRESENT:
		then = p;
		break;
	case PAGE_NEW:
		window_use(r, page);
		if (!region_copy(r, page, zeros, 1))
			result = FAULT_GONE;
		break;
	case PAGE_STAGED:
		/* Its slot is not given up while the page is locked and says so. */
		then = page_present(PAGE_HEAT_MAX);
		if (!region_copy(r, page, r->staging + page_value(p) * PAGE, 1))
			result = FAULT_GONE;
		break;
	case PAGE_STORED:
		entry = page_value(p);
		then = page_present(heat_of(r, p));
		result = load(r, page, p);
		if (result == FAULT_LOST) {
			then = page_make(PAGE_LOST);
			region_poison(r, page);
		}
		break;
	case PAGE_LOST:
		then = p;
		result = FAULT_LOST;
		break;
	}
	if (result == FAULT_GONE)
		then = p;
	else if (result == FAULT_SERVED && pin)
		then |= PAGE_PINNED;
	page_turn(r, page, p, then);
	if (result != FAULT_SERVED || page_state(p) == PAGE_PRESENT)
		uncharge(r, 1);
	if (entry && result != FAULT_GONE)
		vswap_free(r->store, &entry, 1);
	return result;
}

enum fault_result region_bring(struct vswap_region *r, size_t page, bool pin)
{
	page_t was;

	return bring(r, page, pin, &was);
}

/* ---- its neighbours -------------------------------------------------- */

unsigned int region_bring_run(struct vswap_region *r, size_t page, unsigned int nr,
			      enum page_state kind)
{
	vswap_entry entry[RUN_PAGES];
	unsigned int left[RUN_PAGES], n = 0;
	char *bounce = NULL;
	bool good = true;
	page_t p;

	if (nr > RUN_PAGES)
		nr = RUN_PAGES;
	if (nr > r->pages - page)
		nr = (unsigned int)(r->pages - page);
	if (kind == PAGE_NEW && nr > FILL_RUN_PAGES)
		nr = FILL_RUN_PAGES;
	while (nr && !try_charge(r, nr))
		nr /= 2;
	for (; n < nr && page_trylock(&r->page[page + n], &p); n++) {
		if (page_state(p) != kind) {
			page_unlock(&r->page[page + n], p);
			break;
		}
		if (kind == PAGE_NEW)
			window_use(r, page + n);
		entry[n] = page_value(p);
		left[n] = (unsigned int)(p >> PAGE_CLOCK) & 0xff;
	}
	uncharge(r, nr - n);
	if (!n)
		return 0;
	if (kind == PAGE_STORED) {
		bounce = bounce_get(r);
		/* What cannot be had is for who really wants it. */
		good = !vswap_load(r->store, entry, n, bounce);
	}
	good = good && region_copy(r, page, bounce ? bounce : zeros, n);
	if (bounce)
		bounce_put(r, bounce);
	for (unsigned int i = 0; i < n; i++) {
		page_t was = bounce ? page_stored(entry[i], left[i]) : 0;

		page_turn(r, page + i, was, good ? page_present(0) : was);
	}
	if (!good) {
		uncharge(r, n);
		return 0;
	}
	if (bounce)
		vswap_free(r->store, entry, n);
	return n;
}

/* A fault at @page: how many after it are likely to be wanted, if any. */
static unsigned int stream_window(struct vswap_region *r, size_t page)
{
	unsigned int window = 0;

	if (__atomic_exchange_n(&r->streams_busy, 1, __ATOMIC_ACQUIRE))
		return 0;
	for (unsigned int i = 0; i < STREAMS && !window; i++) {
		struct stream *s = &r->stream[i];

		if (s->next != page)
			continue;
		window = s->window * 4 < RUN_PAGES ? s->window * 4 : RUN_PAGES;
		s->window = window;
		s->next = page + 1 + window;
	}
	if (!window) {
		r->stream[r->stream_next] = (struct stream){ .next = page + 1, .window = 1 };
		r->stream_next = (r->stream_next + 1) % STREAMS;
	}
	__atomic_store_n(&r->streams_busy, 0, __ATOMIC_RELEASE);
	return window;
}

/* Fewer came than the next fault of the stream was told. */
static void stream_ends(struct vswap_region *r, size_t expected, size_t next)
{
	if (__atomic_exchange_n(&r->streams_busy, 1, __ATOMIC_ACQUIRE))
		return;
	for (unsigned int i = 0; i < STREAMS; i++)
		if (r->stream[i].next == expected)
			r->stream[i].next = next;
	__atomic_store_n(&r->streams_busy, 0, __ATOMIC_RELEASE);
}

/*
 * A page that is there and faults, in a handler of SIGBUS: another was faster, or it is
 * the memory that is bad, or the kernel's own swap that failed.  Then trying again would
 * be for ever.
 */
static bool is_readable(struct vswap_region *r, size_t page)
{
	page_t p = page_lock(&r->page[page]);
	bool bad = page_state(p) == PAGE_PRESENT &&
		   madvise(page_addr(r, page), PAGE, MADV_POPULATE_READ) &&
		   (errno == EFAULT || errno == EHWPOISON);

	page_unlock(&r->page[page], p);
	return !bad;
}

enum fault_result region_fault(struct vswap_region *r, size_t page)
{
	page_t was;
	enum fault_result result = bring(r, page, false, &was);
	enum page_state kind = page_state(was);
	unsigned int window, n;

	/* Another was faster, and who touched it may have been about to sleep. */
	if (kind == PAGE_PRESENT || kind == PAGE_LOST)
		region_wake(r, page);
	if (result != FAULT_SERVED)
		return result;
	if (kind == PAGE_PRESENT && r->flags & VSWAP_REGION_SIGBUS && !is_readable(r, page))
		return FAULT_GONE;
	if (kind == PAGE_STAGED) {
		count(&r->count.recalled, 1);
	} else if (kind == PAGE_NEW || kind == PAGE_STORED) {
		count(kind == PAGE_NEW ? &r->count.first : &r->count.refaults, 1);
		window = stream_window(r, page);
		if (window) {
			n = region_bring_run(r, page + 1, window, kind);
			if (n < window)
				stream_ends(r, page + 1 + window, page + 1 + n);
			count(&r->count.readahead, n);
		}
	}
	return result;
}

/* ---- servers --------------------------------------------------------- */

/* One page each, see servers_stop(). */
static char *bell(const struct vswap_region *r)
{
	return r->staging + STAGING_BYTES;
}

enum ring {
	NO_BELL,
	RUNG,
	RUNG_BEFORE,
};

/*
 * Does somebody ring it?  He goes on then.  A signal that comes to him while he waits
 * has him ring twice, and no more than one server may go by that.
 */
static enum ring rung(struct vswap_region *r, const struct uffd_msg *msg)
{
	size_t off = msg->arg.pagefault.address - (size_t)(uintptr_t)bell(r);
	struct uffdio_zeropage zero = {
		.range = { (u64)(uintptr_t)bell(r) + off / PAGE * PAGE, PAGE },
	};

	if (off >= BELL_BYTES)
		return NO_BELL;
	return uffd_insist(r, UFFDIO_ZEROPAGE, &zero) ? RUNG : RUNG_BEFORE;
}

static void *serve(void *arg)
{
	struct vswap_region *r = arg;
	struct uffd_msg msg;

	for (;;) {
		ssize_t n = read(r->uffd, &msg, sizeof(msg));

		if (n != (ssize_t)sizeof(msg)) {
			BUG_ON(n >= 0 || (errno != EAGAIN && errno != EINTR));
			continue;
		}
		switch (rung(r, &msg)) {
		case RUNG:
			return NULL;
		case RUNG_BEFORE:
			continue;
		case NO_BELL:
			break;
		}
		region_fault(r, (msg.arg.pagefault.address - (size_t)(uintptr_t)r->base) / PAGE);
	}
}

/*
 * To be woken on another CPU takes longer than all the rest of a fault, so there is
 * a thread for each CPU, on that CPU, where there are few enough.
 */
int servers_start(struct vswap_region *r)
{
	cpu_set_t all, one;
	int cpus, err = 0;

	if (sched_getaffinity(0, sizeof(all), &all))
		CPU_ZERO(&all);
	cpus = CPU_COUNT(&all);
	for (int cpu = 0; r->servers < SERVERS_MAX && !err; cpu++) {
		if (cpus && cpus <= (int)SERVERS_MAX) {
			if (cpu == CPU_SETSIZE)
				break;
			if (!CPU_ISSET(cpu, &all))
				continue;
		}
		err = pthread_create(&r->server[r->servers], NULL, serve, r);
		if (err)
			break;
		pthread_setname_np(r->server[r->servers], "vswap-serve");
		if (cpus && cpus <= (int)SERVERS_MAX) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			/* Where it may not it runs where it can. */
			(void)pthread_setaffinity_np(r->server[r->servers], sizeof(one), &one);
		}
		r->servers++;
	}
	/* Fewer do, too. */
	return r->servers ? 0 : -err;
}

/* A fault is what wakes them: each goes that reads one on the bell. */
void servers_stop(struct vswap_region *r)
{
	for (unsigned int i = 0; i < r->servers; i++)
		(void)*(volatile char *)(bell(r) + i * PAGE);
	for (; r->servers; r->servers--)
		pthread_join(r->server[r->servers - 1], NULL);
}
