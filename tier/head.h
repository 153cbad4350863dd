/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The head of a store that was there before us: may the rest be overwritten?
 *
 * Its first MiB is no slot.  The first page of it says that the rest may go:
 * either mkswap's, which is left alone, or our own.  It is what tells the
 * leavings of a killed vswap from somebody's data.
 */
#ifndef TIER_HEAD_H
#define TIER_HEAD_H

#include <sys/types.h>

#include "../core/swap.h"

#define HEAD_BYTES (1ULL << 20)

enum head_content {
	HEAD_EMPTY,
	HEAD_SWAP, /* mkswap was here */
	HEAD_OWN,  /* vswap was here */
	HEAD_DATA,
	HEAD_UNREADABLE, /* errno says why */
};

/* Bytes at @pos of the store, as pread(2) returns them. */
typedef ssize_t (*head_read_t)(void *store, void *buf, size_t len, u64 pos);

/*
 * What is in the first @size bytes?  The head decides when it is known.  If
 * not, the first and last MiB and pages evenly spread between them must be
 * zero: that is where filesystems, partition tables and arrays leave marks.
 */
enum head_content head_look(head_read_t read, void *store, u64 size);
/* Our own head, to be written at the beginning. */
void head_page(char page[SWAP_PAGE_SIZE]);

#endif
