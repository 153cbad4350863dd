/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Allocation flags (no more than names here) and single pages.
 */
#ifndef COMPAT_LINUX_GFP_H
#define COMPAT_LINUX_GFP_H

#include <linux/compiler.h>
#include <linux/types.h>

#define __GFP_ZERO	     1U
#define __GFP_NOWARN	     2U
#define __GFP_NORETRY	     4U
#define __GFP_DIRECT_RECLAIM 8U /* may sleep */
#define __GFP_HIGHMEM	     0U
#define __GFP_MOVABLE	     0U
#define __GFP_NOMEMALLOC     0U
#define GFP_NOWAIT	     0U
#define GFP_ATOMIC	     0U
#define GFP_NOIO	     __GFP_DIRECT_RECLAIM
#define GFP_KERNEL	     __GFP_DIRECT_RECLAIM

#define PAGE_SHIFT	     12
#define PAGE_SIZE	     (1UL << PAGE_SHIFT)

/* One page; what is freed goes back to the system but for a few. */
unsigned long __get_free_page(gfp_t gfp);
void free_page(unsigned long addr);

/*
 * For tests: let the allocation after the next @nr fail, and all after it
 * while @nr_fails lasts (-1: for ever).  compat_alloc_fail_after(-1, 0) ends it.
 */
void compat_alloc_fail_after(long nr, long nr_fails);
/* Every allocator of compat asks this first. */
bool compat_alloc_fails(void);
/* Allocations asked for so far. */
long compat_alloc_count(void);

#endif
