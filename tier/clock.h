/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The time for how long something took or may take: not that of day, which may be set.
 */
#ifndef TIER_CLOCK_H
#define TIER_CLOCK_H

#include <time.h>

#include "../core/swap.h"

#define SEC 1000000000ULL /* nanoseconds */

static inline u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * SEC + (u64)ts.tv_nsec;
}

#endif
