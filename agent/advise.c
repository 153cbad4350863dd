// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Advice that no userfaultfd event tells the pager of, by libc's name for it, or that
 * makes the program grow without one.
 *
 * Guard pages: what was swapped out there would come back when they are removed, so it is
 * dropped first, as installing them does anyway.
 *
 * MADV_WIPEONFORK, MADV_DONTFORK: a child would find there, or in what it maps in the
 * same place, what its parent had swapped out.  Which mappings those are the pager reads
 * when they fork, which takes long: it is told that there are some.
 */
#include "advise.h"

#include <stdbool.h>
#include <sys/mman.h>

#include "sys.h"
#include "throttle.h"
#include "wire.h"

#define ADVICE_GUARD_INSTALL 102 /* Linux 6.13 */

static bool keeps; /* a child's, too, and from before there is an agent */

void advise_set_up(struct agent_shared *control)
{
	if (keeps)
		__atomic_store_n(&control->keeps, 1, __ATOMIC_RELAXED);
}

EXPORT int madvise(void *addr, size_t bytes, int advice)
{
	struct agent_shared *control = control_block();

	if (advice == MADV_WIPEONFORK || advice == MADV_DONTFORK) {
		keeps = true;
		if (control)
			advise_set_up(control);
	}
	/* Where it makes huge pages, reading takes memory as well. */
	if (advice == MADV_POPULATE_WRITE || advice == MADV_POPULATE_READ)
		return (int)as_libc(populate_slowly(addr, bytes, advice));
	/* Where that is refused, so is what follows. */
	if (advice == ADVICE_GUARD_INSTALL)
		sys3(SYS_madvise, addr, bytes, MADV_DONTNEED);
	return (int)as_libc(sys3(SYS_madvise, addr, bytes, advice));
}
