/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Signal handlers: they run on a stack that may be swapped out, in the middle
 * of a fault, and touch cold memory themselves.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "vmtest.h"

#define STACK_PAGES 32

static char *watched;
static size_t watched_pages;
static struct rng rng;
static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	size_t i = rng_below(&rng, watched_pages);

	(void)sig;
	page_check(watched + i * PAGE, i, 0);
	alarms = alarms + 1;
}

void test_signals(void)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART };
	struct itimerval timer = { { 0, 3000 }, { 0, 3000 } };
	char *stack = map_anon(STACK_PAGES * PAGE);
	stack_t alt = { .ss_sp = stack, .ss_size = STACK_PAGES * PAGE };
	unsigned int pass;

	rng_init(&rng, args.seed);
	watched_pages = args.size / 2 / PAGE;
	watched = map_anon(watched_pages * PAGE);
	range_fill(watched, watched_pages, 0, 0);
	pressure_init(args.size - watched_pages * PAGE);
	if (sigaltstack(&alt, NULL) || sigaction(SIGALRM, &sa, NULL))
		fail_errno("sigaction");
	if (setitimer(ITIMER_REAL, &timer, NULL))
		fail_errno("setitimer");
	/* However short that is, one comes. */
	for (pass = 0; pass < 2 * args.passes || (!alarms && pass < 1000); pass++)
		pressure();
	timer = (struct itimerval){ { 0, 0 }, { 0, 0 } };
	if (setitimer(ITIMER_REAL, &timer, NULL))
		fail_errno("setitimer");
	if (!alarms)
		fail("no signal came");
	range_check(watched, watched_pages, 0, 0);
}

static unsigned char *dirty;
static volatile sig_atomic_t barriers;

/* A write barrier, as collectors of garbage have it: the page is noted, and let be written. */
static void on_barrier(int sig, siginfo_t *info, void *context)
{
	size_t i = ((char *)info->si_addr - watched) / PAGE;

	(void)sig;
	(void)context;
	if ((char *)info->si_addr < watched || i >= watched_pages)
		fail("a fault at %p, not in what is guarded", info->si_addr);
	/* Its own memory, cold as well. */
	dirty[i * 8] = 1;
	barriers = barriers + 1;
	if (mprotect(watched + i * PAGE, PAGE, PROT_READ | PROT_WRITE))
		fail_errno("mprotect");
}

void test_barrier(void)
{
	struct sigaction sa = { .sa_sigaction = on_barrier, .sa_flags = SA_ONSTACK | SA_SIGINFO };
	char *stack = map_anon(STACK_PAGES * PAGE);
	stack_t alt = { .ss_sp = stack, .ss_size = STACK_PAGES * PAGE };
	unsigned int pass, written;
	size_t i;

	rng_init(&rng, args.seed);
	watched_pages = args.size / 2 / PAGE;
	watched = map_anon(watched_pages * PAGE);
	dirty = calloc(watched_pages, 8);
	if (!dirty)
		fail_errno("calloc");
	range_fill(watched, watched_pages, 0, 0);
	pressure_init(args.size - watched_pages * PAGE);
	if (sigaltstack(&alt, NULL) || sigaction(SIGSEGV, &sa, NULL))
		fail_errno("sigaction");
	for (pass = 0; pass < args.passes; pass++) {
		/* None at all, then to be read only: both over what is swapped out. */
		if (mprotect(watched, watched_pages * PAGE, pass % 2 ? PROT_READ : PROT_NONE))
			fail_errno("mprotect");
		pressure();
		barriers = 0;
		for (written = i = 0; i < watched_pages; i += 1 + rng_below(&rng, 64)) {
			page_fill(watched + i * PAGE, i, pass + 1);
			written++;
		}
		if (barriers != (int)written)
			fail("%d barriers for %u pages written", (int)barriers, written);
		if (mprotect(watched, watched_pages * PAGE, PROT_READ))
			fail_errno("mprotect");
		pressure();
		for (i = 0; i < watched_pages; i++)
			page_check(watched + i * PAGE, i, dirty[i * 8] ? pass + 1 : 0);
		if (mprotect(watched, watched_pages * PAGE, PROT_READ | PROT_WRITE))
			fail_errno("mprotect");
		for (i = 0; i < watched_pages; i++)
			if (dirty[i * 8])
				page_fill(watched + i * PAGE, i, dirty[i * 8] = 0);
	}
}
