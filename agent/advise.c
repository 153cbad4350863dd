// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Advice that no userfaultfd event tells the pager of, by libc's name for it.
 *
 * Guard pages: what was swapped out there would come back when they are removed, so it is
 * dropped first, as installing them does anyway.
 *
 * MADV_WIPEONFORK: a child would find there what its parent had swapped out.  Which
 * mappings those are the pager reads when they fork, which takes long: it is told that
 * there are some.
 */
#include <stdbool.h>
#include <sys/mman.h>

#include "sys.h"
#include "throttle.h"
#include "wire.h"

#define ADVICE_GUARD_INSTALL 102 /* Linux 6.13 */

static bool wipes; /* a child's, too, and from before there is an agent */

void advise_set_up(struct agent_shared *control)
{
	if (wipes)
		__atomic_store_n(&control->wipes, 1, __ATOMIC_RELAXED);
}

EXPORT int madvise(void *addr, size_t bytes, int advice)
{
	struct agent_shared *control = control_block();

	if (advice == MADV_WIPEONFORK) {
		wipes = true;
		if (control)
			advise_set_up(control);
	}
	/* Where that is refused, so is what follows. */
	if (advice == ADVICE_GUARD_INSTALL)
		sys3(SYS_madvise, addr, bytes, MADV_DONTNEED);
	return (int)as_libc(sys3(SYS_madvise, addr, bytes, advice));
}
