/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Small arithmetic and the names most kernel files expect to have.
 */
#ifndef COMPAT_LINUX_KERNEL_H
#define COMPAT_LINUX_KERNEL_H

#include_next <linux/kernel.h>

#include <limits.h>

#include <linux/align.h>
#include <linux/bug.h>
#include <linux/compiler.h>
#include <linux/container_of.h>
#include <linux/minmax.h>
#include <linux/printk.h>
#include <linux/types.h>

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#endif
#ifndef DIV_ROUND_UP
#define DIV_ROUND_UP(n, d) (((n) + (d)-1) / (d))
#endif
#ifndef roundup
#define roundup(x, y) ((((x) + (y)-1) / (y)) * (y))
#endif

#define U16_MAX ((u16)~0U)
#define U32_MAX ((u32)~0U)
#define U64_MAX ((u64)~0ULL)

#define might_sleep() \
	do {          \
	} while (0)

#endif
