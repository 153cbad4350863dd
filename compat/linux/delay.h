/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Waiting a little.
 */
#ifndef COMPAT_LINUX_DELAY_H
#define COMPAT_LINUX_DELAY_H

#include <time.h>

static inline void msleep(unsigned int ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

#endif
