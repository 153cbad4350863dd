/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sorting.
 */
#ifndef COMPAT_LINUX_SORT_H
#define COMPAT_LINUX_SORT_H

#include <stdlib.h>

#include <linux/types.h>

static inline void sort(void *base, size_t nr, size_t size,
			int (*cmp)(const void *a, const void *b),
			void (*swap_fn)(void *a, void *b, int size))
{
	(void)swap_fn;
	qsort(base, nr, size, cmp);
}

#endif
