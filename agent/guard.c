// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Guard pages are installed with no event for the pager, so what was swapped out there
 * would come back when they are removed: it is dropped first, as installing does anyway.
 */
#include <sys/mman.h>

#include "sys.h"

#define ADVICE_GUARD_INSTALL 102 /* Linux 6.13 */

EXPORT int madvise(void *addr, size_t bytes, int advice)
{
	/* Where that is refused, so is what follows. */
	if (advice == ADVICE_GUARD_INSTALL)
		sys3(SYS_madvise, addr, bytes, MADV_DONTNEED);
	return (int)as_libc(sys3(SYS_madvise, addr, bytes, advice));
}
