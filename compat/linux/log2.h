/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Powers of two.
 */
#ifndef COMPAT_LINUX_LOG2_H
#define COMPAT_LINUX_LOG2_H

#include <linux/bitops.h>

#define ilog2(n) (63 - __builtin_clzll((unsigned long long)(n)))

static inline bool is_power_of_2(unsigned long n)
{
	return n && !(n & (n - 1));
}

static inline unsigned long roundup_pow_of_two(unsigned long n)
{
	return n <= 1 ? 1 : 1UL << (__fls(n - 1) + 1);
}

#endif
