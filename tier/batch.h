/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Batches of pages to and from one file descriptor, many at once.
 */
#ifndef TIER_BATCH_H
#define TIER_BATCH_H

#include <stdbool.h>

#include "../core/swap.h"

struct tier_batch;

/* Returns NULL when out of memory.  Starts nothing in the kernel yet. */
struct tier_batch *tier_batch_new(void);
/* No batch may be under way; NULL is allowed. */
void tier_batch_free(struct tier_batch *b);

/*
 * Write or read @nr pages, slot s at byte @base + s * SWAP_PAGE_SIZE of @fd,
 * and wait for all.  Sets every io->error to 0 or -errno.  A write that the
 * file has no room for, or a quota has not, is -ENOSPC; a read past its end is -EIO, never zeros.
 * Any number of threads may call this at once.
 */
void tier_batch_run(struct tier_batch *b, int fd, u64 base, struct swap_io *io, unsigned int nr,
		    bool write);

/* Does the kernel let us use io_uring?  True until it was tried and refused. */
bool tier_batch_uring(struct tier_batch *b);

#endif
