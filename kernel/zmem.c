// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory by the mapping, in the kernel: vmalloc space, there or not there.
 */
#include <linux/gfp.h>
#include <linux/types.h>
#include <linux/vmalloc.h>

#include "../core/zmem.h"

void *zmem_alloc(size_t len)
{
	/* Called while pages are being swapped out: reclaim must not come back here. */
	return __vmalloc(len, GFP_NOIO | __GFP_HIGHMEM | __GFP_ZERO | __GFP_NOWARN);
}

void zmem_free(void *mem, size_t len)
{
	vfree(mem);
}

void zmem_trim(void *mem, size_t from, size_t to)
{
}

bool zmem_is_lazy(void)
{
	return false;
}
