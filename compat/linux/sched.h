/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Giving the CPU away.
 */
#ifndef COMPAT_LINUX_SCHED_H
#define COMPAT_LINUX_SCHED_H

#include_next <linux/sched.h>
#include <sched.h>

#define cond_resched() \
	do {           \
	} while (0)

#endif
