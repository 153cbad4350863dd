// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Holding up growth that comes by no fault of ours.
 *
 * New mappings are registered after a look at the process's map, some milliseconds
 * later; whoever maps small pieces and fills each at once would never wait for room.
 * So mmap() of private memory waits while the program is above its limit, as a
 * write to a file waits while too much is dirty: not for ever, for there may be
 * nothing to be had.
 */
/* Both names of it are defined here, not one in place of the other. */
#undef _FILE_OFFSET_BITS
#include "throttle.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>

#include "sys.h"
#include "wire.h"

#define SLICE_NS 20000000L
#define SLICES	 10

/* In a page that a forked child finds empty: it has no control block. */
static uint32_t **over_word;

extern int *__errno_location(void) __attribute__((weak));

void throttle_set_up(void *wiped_on_fork, uint32_t *over)
{
	over_word = wiped_on_fork;
	*over_word = over;
}

static void wait_for_room(void)
{
	uint32_t *over = over_word ? *over_word : NULL;

	if (!over)
		return;
	for (int i = 0; i < SLICES && __atomic_load_n(over, __ATOMIC_RELAXED); i++)
		wire_futex(over, FUTEX_WAIT, 1, SLICE_NS);
}

EXPORT void *mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	long ret;

	if ((flags & MAP_ANONYMOUS) && (flags & MAP_PRIVATE) && (prot & PROT_WRITE))
		wait_for_room();
	ret = sys6(SYS_mmap, (long)addr, bytes, prot, flags, fd, offset);
	if (ret > -4096 && ret < 0) {
		if (__errno_location)
			*__errno_location() = -ret;
		return MAP_FAILED;
	}
	return (void *)ret;
}

EXPORT void *mmap64(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
	__attribute__((alias("mmap")));
