/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Signal handlers: they run on a stack that may be swapped out, in the middle
 * of a fault, and touch cold memory themselves.
 */
#include <signal.h>
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
	for (pass = 0; pass < 2 * args.passes; pass++)
		pressure();
	timer = (struct itimerval){ { 0, 0 }, { 0, 0 } };
	if (setitimer(ITIMER_REAL, &timer, NULL))
		fail_errno("setitimer");
	if (!alarms)
		fail("no signal came");
	range_check(watched, watched_pages, 0, 0);
}
