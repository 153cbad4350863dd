// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory by the mapping, in a process: anonymous mappings, filled as touched.
 *
 * Huge pages are refused: one byte touched would cost two megabytes, and the
 * pool would not know.
 */
#include <sys/mman.h>

#include <linux/gfp.h>

#include "../core/zmem.h"

void *zmem_alloc(size_t len)
{
	void *mem;

	if (compat_alloc_fails())
		return NULL;
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	/* A kernel without huge pages says EINVAL, and all is well. */
	(void)madvise(mem, len, MADV_NOHUGEPAGE);
	return mem;
}

void zmem_free(void *mem, size_t len)
{
	if (mem)
		munmap(mem, len);
}

void zmem_trim(void *mem, size_t from, size_t to)
{
	/* Can only fail for memory that is locked, which this never is. */
	if (from < to)
		(void)madvise((char *)mem + from, to - from, MADV_DONTNEED);
}

bool zmem_is_lazy(void)
{
	return true;
}
