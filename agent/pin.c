// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Pages of a thread that the kernel writes to as the thread ends.
 *
 * It clears a word, on which pthread_join() waits (set_tid_address(2)), and goes over a
 * list of mutexes whose next owner must know (get_robust_list(2)).  A thread on its way
 * out is not let to wait for a page: with the page evicted the kernel gets an error,
 * ignores it, and the word is never cleared.  So those pages stay for as long as the
 * thread is there.  libc has both in its part of the thread's stack, at an offset from
 * the thread pointer that is the same for all threads.
 *
 * A thread says so itself, before it does anything else: pthread_create() begins it here.
 * Threads come and go without a word to us; that one has gone is seen when its page is
 * about to be evicted, by the word, which has its number no more.
 */
#include "pin.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "sys.h"
#include "throttle.h"
#include "wire.h"

#define PINS	    32768 /* as many threads as most systems allow */
#define STARTS	    64
#define START_TRIES 1000
#define ROBUST_LEN  24 /* of struct robust_list_head */
#define SPIN	    200
#define WAIT_NS	    50000L

/*
 * Taken from 0 or from the word's address to CLAIMED by who then writes to it: the thread
 * itself, or the agent that finds it gone.  No locks: a thread may lose the page its stack
 * is in at any moment, and the agent waits for none.
 */
struct pin {
	uint64_t word; /* its address, 0: free */
	uint32_t tid;
};

#define CLAIMED 1

/* As all of this object, not of the memory that is managed. */
static struct {
	/* From the thread pointer; set before there is a second thread. */
	long word, first, last;
	bool known;
	uint32_t moving; /* odd: the agent has looked at the pins, and evicts */
	uint32_t nr;
	struct pin pin[PINS];
} pins;

typedef void *thread_fn(void *);
typedef int create_fn(pthread_t *, const pthread_attr_t *, thread_fn *, void *);
typedef int thrd_fn(void *);
typedef int thrd_create_fn(void *, thrd_fn *, void *);

/* What a new thread is to do, from its creator to itself. */
static struct start {
	uint32_t taken;
	thread_fn *fn;
	void *arg;
} starts[STARTS];

static bool claim(struct pin *p, uint64_t from)
{
	return __atomic_load_n(&p->word, __ATOMIC_RELAXED) == from &&
	       __atomic_compare_exchange_n(&p->word, &from, CLAIMED, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

/* One that has @word already, its stack being used again, or a free one, or NULL. */
static struct pin *claim_any(uint64_t word)
{
	uint32_t nr = __atomic_load_n(&pins.nr, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < nr; i++)
		if (claim(&pins.pin[i], word))
			return &pins.pin[i];
	for (uint32_t i = 0; i < PINS; i++) {
		while (i >= nr && !__atomic_compare_exchange_n(&pins.nr, &nr, i + 1, false,
							       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			;
		if (claim(&pins.pin[i], 0))
			return &pins.pin[i];
	}
	return NULL;
}

/* No system call but to wait: the thread may have forbidden itself any. */
static void pin(void)
{
	uint64_t word = (uint64_t)__builtin_thread_pointer() + pins.word;
	struct pin *p = claim_any(word);
	uint32_t moving;

	if (!p)
		return;
	p->tid = *(uint32_t *)word;
	__atomic_store_n(&p->word, word, __ATOMIC_RELEASE);

	/* A child by clone(2) has no agent, but may have one's odd number. */
	if (!control_block())
		return;
	/* Either the agent sees the pin, or we see that it may not have. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	moving = __atomic_load_n(&pins.moving, __ATOMIC_ACQUIRE);
	for (uint32_t i = 0;
	     moving & 1 && moving == __atomic_load_n(&pins.moving, __ATOMIC_ACQUIRE); i++) {
		if (i < SPIN)
			gate_relax();
		else
			wire_futex(&pins.moving, GATE_FUTEX_WAIT, moving, WAIT_NS);
	}
}

void pin_set_up(void)
{
	long self = (long)__builtin_thread_pointer(), head;
	unsigned long word = 0;
	size_t len;

	/* The latter is not in kernels without CONFIG_CHECKPOINT_RESTORE: nothing is pinned. */
	if (sys3(SYS_get_robust_list, 0, &head, &len) || !head ||
	    sys5(SYS_prctl, PR_GET_TID_ADDRESS, &word, 0, 0, 0) || !word)
		return;
	pins.word = (long)word - self;
	pins.first = ((long)word < head ? (long)word : head) - self;
	pins.last = ((long)word < head ? head + ROBUST_LEN - 1 : (long)word + 3) - self;
	pins.known = true;
	pin();
}

void pin_forked(void)
{
	pins.moving = 0;
	for (uint32_t i = 0; i < STARTS; i++)
		starts[i].taken = 0;
	for (uint32_t i = 0; i < pins.nr; i++)
		pins.pin[i].word = 0;
	pins.nr = 0;
	if (pins.known)
		pin();
}

static uint64_t first_page(uint64_t word)
{
	return (word - pins.word + pins.first) & ~(WIRE_PAGE - 1);
}

/* The page behind the last. */
static uint64_t end_page(uint64_t word)
{
	return ((word - pins.word + pins.last) & ~(WIRE_PAGE - 1)) + WIRE_PAGE;
}

/*
 * Is the thread of a pin gone, so that its pages are like any other?  A word that cannot
 * be read is in a page that is evicted, as the page may have been before it was pinned.
 */
static bool is_stale(struct pin *p, uint64_t word, int mem)
{
	uint32_t now;
	bool stale;

	/* A thread that pins it just now waits for us. */
	if (!claim(p, word))
		return true;
	stale = sys4(SYS_pread64, mem, &now, sizeof(now), word) == sizeof(now) && now != p->tid;
	__atomic_store_n(&p->word, stale ? 0 : word, __ATOMIC_RELEASE);
	return stale;
}

uint32_t pin_begin(uint64_t addr, uint32_t n, int mem)
{
	uint64_t end = addr + n * WIRE_PAGE;
	uint32_t nr;

	__atomic_add_fetch(&pins.moving, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	nr = __atomic_load_n(&pins.nr, __ATOMIC_ACQUIRE);
	for (uint32_t i = 0; i < nr && end > addr; i++) {
		uint64_t word = __atomic_load_n(&pins.pin[i].word, __ATOMIC_ACQUIRE);

		if (word > CLAIMED && first_page(word) < end && end_page(word) > addr &&
		    !is_stale(&pins.pin[i], word, mem))
			end = first_page(word) > addr ? first_page(word) : addr;
	}
	return (end - addr) / WIRE_PAGE;
}

void pin_end(void)
{
	__atomic_add_fetch(&pins.moving, 1, __ATOMIC_RELEASE);
}

static void start_give(struct start *s)
{
	__atomic_store_n(&s->taken, 0, __ATOMIC_RELEASE);
}

static void *begin(void *arg)
{
	struct start *s = arg;
	thread_fn *fn = s->fn;
	void *fn_arg = s->arg;

	start_give(s);
	pin();
	/* Jumped to, so that nothing of ours is seen on the stack. */
	return fn(fn_arg);
}

/* NULL: it has to begin without us. */
static struct start *start_take(thread_fn *fn, void *arg)
{
	for (int tries = 0; pins.known && tries < START_TRIES; tries++) {
		for (uint32_t i = 0; i < STARTS; i++)
			if (!__atomic_exchange_n(&starts[i].taken, 1, __ATOMIC_ACQUIRE)) {
				starts[i].fn = fn;
				starts[i].arg = arg;
				return &starts[i];
			}
		sys0(SYS_sched_yield);
	}
	return NULL;
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_fn *fn, void *arg)
{
	static create_fn *create;
	struct start *s;
	int ret;

	if (!create)
		create = (create_fn *)libc_symbol("pthread_create");
	throttle_thread();
	s = start_take(fn, arg);
	ret = s ? create(thread, attr, begin, s) : create(thread, attr, fn, arg);
	if (ret && s)
		start_give(s);
	return ret;
}

/* C11's: what its function returns is an int, in the same place. */
EXPORT int thrd_create(void *thread, thrd_fn *fn, void *arg)
{
	static thrd_create_fn *create;
	struct start *s;
	int ret;

	if (!create)
		create = (thrd_create_fn *)libc_symbol("thrd_create");
	throttle_thread();
	s = start_take((thread_fn *)(void (*)(void))fn, arg);
	ret = s ? create(thread, (thrd_fn *)(void (*)(void))begin, s) : create(thread, fn, arg);
	if (ret && s)
		start_give(s);
	return ret;
}
