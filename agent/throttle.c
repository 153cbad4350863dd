// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Holding up growth that comes by no fault of ours.
 *
 * New mappings are registered after a look at the process's map, some milliseconds
 * later; whoever maps small pieces and fills each at once would never wait for room.
 * So mmap() of private memory waits while the program is above its limit, as a
 * write to a file waits while too much is dirty: not for ever, for there may be
 * nothing to be had.  Near a limit a new thread waits for one such look: a stack
 * is mapped by libc itself, and sixteen of them grow as fast as memory can.
 * What is to be filled at once is filled in steps, between which it can be registered.
 */
/* Both names of it are defined here, not one in place of the other. */
#undef _FILE_OFFSET_BITS
#include "throttle.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <time.h>

#include "sys.h"
#include "wire.h"

#define SLICE_NS       20000000L
#define SLICES	       10
#define LOOK_NS	       500000L
#define LOOKS	       100
#define LONG_NS	       200000000L

#define POPULATE_BYTES (512UL << 10)

/* In a page that a forked child finds empty: it has no control block. */
static struct agent_shared **shared;

void throttle_set_up(void *wiped_on_fork, struct agent_shared *control)
{
	shared = wiped_on_fork;
	*shared = control;
}

struct agent_shared *control_block(void)
{
	return shared ? *shared : NULL;
}

static void wait_for_room(void)
{
	struct agent_shared *sh = control_block();

	for (int i = 0; sh && i < SLICES && __atomic_load_n(&sh->over, __ATOMIC_RELAXED); i++)
		wire_futex(&sh->over, FUTEX_WAIT, 1, SLICE_NS);
}

static void wait_for_look(void)
{
	struct agent_shared *sh = control_block();
	uint32_t before = sh ? __atomic_load_n(&sh->looks, __ATOMIC_RELAXED) : 0;
	struct timespec pause = { 0, LOOK_NS };

	/* Counted at its end; the one that is under way may have passed the place. */
	for (int i = 0; before && i < LOOKS; i++) {
		uint32_t now = __atomic_load_n(&sh->looks, __ATOMIC_RELAXED);

		if (!now || now - before > 1)
			break;
		sys2(SYS_nanosleep, &pause, NULL);
	}
}

long populate_slowly(void *addr, size_t bytes, int advice)
{
	size_t done = 0;
	long ret;

	do {
		size_t left = bytes - done, n = left < POPULATE_BYTES ? left : POPULATE_BYTES;

		ret = sys3(SYS_madvise, (char *)addr + done, n, advice);
		done += n;
		wait_for_room();
	} while (!ret && done < bytes);
	return ret;
}

EXPORT void *mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	bool ours = (flags & MAP_ANONYMOUS) && (flags & MAP_PRIVATE) && (prot & PROT_WRITE);
	bool slowly = ours && (flags & MAP_POPULATE) && !(flags & (MAP_LOCKED | MAP_HUGETLB)) &&
		      control_block();
	long ret;

	if (ours)
		wait_for_room();
	if (slowly)
		flags &= ~MAP_POPULATE;
	ret = sys6(SYS_mmap, (long)addr, bytes, prot, flags, fd, offset);
	/* It is mapped, whether there is memory for it or not. */
	if (slowly && (ret >= 0 || ret < -4095))
		populate_slowly((void *)ret, bytes, MADV_POPULATE_WRITE);
	return (void *)as_libc(ret);
}

EXPORT void *mmap64(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
	__attribute__((alias("mmap")));

/*
 * A mapping made while the pager looked at the map may be registered in part, and is two
 * to the kernel until the next look, which refuses to move or grow it.
 */
EXPORT void *mremap(void *old, size_t from, size_t to, int flags, ...)
{
	struct timespec pause = { 0, LOOK_NS };
	void *fixed = NULL;
	va_list ap;
	long ret;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_start(ap, flags);
		fixed = va_arg(ap, void *);
		va_end(ap);
	}
	ret = sys5(SYS_mremap, (long)old, from, to, flags, (long)fixed);
	/* Not again where it may have unmapped what was there: another thread's is, perhaps. */
	while (ret == -EFAULT && !(flags & MREMAP_FIXED) && pause.tv_nsec < LONG_NS &&
	       control_block()) {
		sys2(SYS_nanosleep, &pause, NULL);
		pause.tv_nsec *= 2;
		ret = sys5(SYS_mremap, (long)old, from, to, flags, (long)fixed);
	}
	return (void *)as_libc(ret);
}

void throttle_thread(void)
{
	wait_for_room();
	wait_for_look();
}
