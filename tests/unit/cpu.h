/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Each CPU has clusters of its own to give entries out of: what a test expects of the next
 * entry holds as long as it stays on one.
 */
#ifndef TESTS_UNIT_CPU_H
#define TESTS_UNIT_CPU_H

#include <sched.h>

/* Stay on this CPU.  Returns where the thread could run, for cpu_leave(). */
static inline cpu_set_t cpu_stay(void)
{
	int cpu = sched_getcpu();
	cpu_set_t all, here;

	assert_true(cpu >= 0);
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	assert_int_equal(sched_setaffinity(0, sizeof(here), &here), 0);
	return all;
}

static inline void cpu_leave(cpu_set_t all)
{
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

#endif
