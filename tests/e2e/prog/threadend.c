/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Threads that sleep until the pages they were begun with are cold, and end without
 * touching one again.  The kernel clears a word in libc's part of a thread's stack as it
 * ends, which is what pthread_join() waits for, and walks a list of the mutexes it holds.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "../../../agent/sys.h"
#include "vmtest.h"

#define DEPTH	 (16 * PAGE) /* down from what libc has at the stack's end */
#define SWEEPS	 20
#define JOIN_SEC 20

struct sleeper {
	pthread_t thread;
	char *cold; /* a page of its stack that it does not touch as it sleeps and ends */
	pthread_mutex_t held;
};

static atomic_int asleep;
static int awake; /* a futex */

/* No libc from here on: errno and more of its are in the pages that are to be cold. */
static __attribute__((noinline, optimize("no-stack-protector"))) void sleep_and_end(char *page)
{
	char deep[DEPTH];

	__asm__ volatile("" : : "r"(deep) : "memory");
	*page = 1;
	atomic_fetch_add(&asleep, 1);
	while (!__atomic_load_n(&awake, __ATOMIC_ACQUIRE))
		sys4(SYS_futex, &awake, FUTEX_WAIT, 0, NULL);
	sys1(SYS_exit, 0);
}

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	char room[4 * PAGE];

	s->cold = room + PAGE;
	errno = pthread_mutex_lock(&s->held);
	if (errno)
		fail_errno("pthread_mutex_lock");
	/* The kernel writes to that part each time the thread wakes up, too. */
	if (__rseq_size)
		sys4(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32,
		     RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	sleep_and_end(s->cold);
	return NULL;
}

static int c11_main(void *arg)
{
	sleeper_main(arg);
	return 0;
}

static bool all_cold(const struct sleeper *s)
{
	unsigned char in;

	for (unsigned int t = 0; t < args.threads; t++) {
		if (mincore((void *)((uintptr_t)s[t].cold & ~(PAGE - 1)), PAGE, &in))
			fail_errno("mincore");
		if (in & 1)
			return false;
	}
	return true;
}

static void end_cold(bool fork_before)
{
	struct sleeper *s = map_anon(args.threads * sizeof(*s));
	struct timespec end;
	pthread_mutexattr_t robust;

	/* In private memory they are marked only where it is there to be written: see README.md. */
	if (mlock(s, args.threads * sizeof(*s)))
		fail_errno("mlock");
	errno = pthread_mutexattr_init(&robust);
	if (!errno)
		errno = pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	if (errno)
		fail_errno("pthread_mutexattr");
	asleep = awake = 0;
	for (unsigned int t = 0; t < args.threads; t++) {
		errno = pthread_mutex_init(&s[t].held, &robust);
		/* libc's own threads and C11's are the same, and are not begun by the same call. */
		if (!errno && t % 2)
			errno = thrd_create(&s[t].thread, c11_main, &s[t]) != thrd_success;
		else if (!errno)
			errno = pthread_create(&s[t].thread, NULL, sleeper_main, &s[t]);
		if (errno)
			fail_errno("creating a thread");
	}
	while (atomic_load(&asleep) < (int)args.threads)
		pressure();
	for (int i = 0; i < SWEEPS && !all_cold(s); i++)
		pressure();
	/* What a fork shares is protected, and touched by nobody either. */
	if (fork_before) {
		pid_t pid = forked();

		if (!pid)
			_exit(0);
		wait_for(pid, "child");
		/* For the mutexes; they may be protected some milliseconds after the fork, or more. */
		for (int i = 0; i < 4; i++) {
			usleep(100000);
			*(char *volatile *)&s->cold = s->cold;
		}
	}
	__atomic_store_n(&awake, 1, __ATOMIC_RELEASE);
	sys3(SYS_futex, &awake, FUTEX_WAKE, args.threads);
	for (unsigned int t = 0; t < args.threads; t++) {
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += JOIN_SEC;
		errno = pthread_timedjoin_np(s[t].thread, NULL, &end);
		if (errno)
			fail_errno("a thread that has ended cannot be joined");
	}
	for (unsigned int t = 0; t < args.threads; t++) {
		errno = pthread_mutex_trylock(&s[t].held);
		if (errno != EOWNERDEAD)
			fail_errno("a mutex whose owner has ended");
	}
	unmap(s, args.threads * sizeof(*s));
}

void test_threadend(void)
{
	pressure_init(args.size);
	for (unsigned int pass = 0; pass < args.passes; pass++) {
		end_cold(false);
		end_cold(true);
	}
}
