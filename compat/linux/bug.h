/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What cannot be.  BUG stops the process: wrong bytes are worse than none.
 */
#ifndef COMPAT_LINUX_BUG_H
#define COMPAT_LINUX_BUG_H

#include <linux/build_bug.h>
#include <linux/compiler.h>

void compat_warn(const char *what, const char *file, int line);
void compat_bug(const char *what, const char *file, int line) __attribute__((__noreturn__));

#define BUG() compat_bug("bug", __FILE__, __LINE__)
#define BUG_ON(cond)                                           \
	do {                                                   \
		if (unlikely(cond))                            \
			compat_bug(#cond, __FILE__, __LINE__); \
	} while (0)

#define WARN_ON(cond)                                           \
	__extension__({                                         \
		bool __warn = !!(cond);                         \
		if (unlikely(__warn))                           \
			compat_warn(#cond, __FILE__, __LINE__); \
		unlikely(__warn);                               \
	})
#define WARN_ON_ONCE(cond)                                                                     \
	__extension__({                                                                        \
		static bool __told;                                                            \
		bool __once = !!(cond);                                                        \
		if (unlikely(__once) && !__atomic_exchange_n(&__told, true, __ATOMIC_RELAXED)) \
			compat_warn(#cond, __FILE__, __LINE__);                                \
		unlikely(__once);                                                              \
	})

#endif
