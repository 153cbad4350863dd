/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Messages: one line, one write to stderr, unless somebody took them over.
 */
#ifndef COMPAT_LINUX_PRINTK_H
#define COMPAT_LINUX_PRINTK_H

#include <linux/compiler.h>
#include <linux/types.h>

#ifndef pr_fmt
#define pr_fmt(fmt) "vswap: " fmt
#endif

void compat_printk(const char *fmt, ...) __printf(1, 2);
/* Hand each finished line to @sink (NULL: back to stderr).  Set it before threads start. */
void compat_printk_to(void (*sink)(const char *line));

#define pr_err(fmt, ...)  compat_printk(pr_fmt(fmt), ##__VA_ARGS__)
#define pr_warn(fmt, ...) compat_printk(pr_fmt(fmt), ##__VA_ARGS__)
#define pr_info(fmt, ...) compat_printk(pr_fmt(fmt), ##__VA_ARGS__)

/* Of one place, no more than ten in five seconds; how many others there were comes after. */
struct compat_ratelimit {
	unsigned long long begin; /* ns; 0: never yet */
	unsigned int said, missed;
};
/* May it be said now?  Tells first of those that were not. */
bool compat_ratelimit(struct compat_ratelimit *rs);

#define pr_err_ratelimited(fmt, ...)                 \
	do {                                         \
		static struct compat_ratelimit __rs; \
		if (compat_ratelimit(&__rs))         \
			pr_err(fmt, ##__VA_ARGS__);  \
	} while (0)

#endif
