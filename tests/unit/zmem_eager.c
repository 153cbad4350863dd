// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory by the mapping as the kernel has it: all there or not there.  Linked
 * in place of compat's, it runs the pool the way the module will.
 */
#include <stdlib.h>
#include <string.h>

#include <linux/gfp.h>

#include "core/swap.h"
#include "core/zmem.h"

void *zmem_alloc(size_t len)
{
	void *mem;

	if (compat_alloc_fails())
		return NULL;
	mem = aligned_alloc(SWAP_PAGE_SIZE, len);
	return mem ? memset(mem, 0, len) : NULL;
}

void zmem_free(void *mem, size_t len)
{
	(void)len;
	free(mem);
}

/* What is given up may read as anything. */
void zmem_trim(void *mem, size_t from, size_t to)
{
	memset((char *)mem + from, 0xee, to - from);
}

bool zmem_is_lazy(void)
{
	return false;
}
