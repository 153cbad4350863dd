/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Address to entry: what the page tables are to the kernel's swap.
 *
 * The MMU's tables cannot hold our entries, so each client has a table of its
 * own: one 8-byte slot a page, in windows of 2 MiB that exist only while at
 * least one of their pages is swapped out.  A slot holds the entry and a few
 * bits of heat; a slot without an entry may still be warm.
 *
 * The caller holds the client's state lock.
 */
#ifndef PAGER_WINDOW_H
#define PAGER_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "../core/swap.h"

#define PAGE_SIZE_   4096UL
#define WINDOW_SHIFT 21
#define WINDOW_PAGES 512

#define WINDOW_TOPS  512 /* of 2^47 bytes */

#define HEAT_BITS    4
#define HEAT_MAX     ((1U << HEAT_BITS) - 1)

/* By it a page's address is multiplied for a place in a table: as hash_64() of Linux does. */
#define HASH_GOLDEN 0x61c8864680b583ebULL

struct windows {
	uint64_t *map;		   /* sparse, one word a window: its slots | entries in it */
	uint16_t *block;	   /* sparse: windows in being in each gigabyte */
	uint32_t top[WINDOW_TOPS]; /* ... in each 256 GiB */
};

/* Both return 0 or -ENOMEM. */
int windows_init(struct windows *w);
/* Record @entry for the page at @addr, which has none.  Keeps no heat. */
int window_set(struct windows *w, uint64_t addr, vswp_entry_t entry);
/* No entry may be left in them. */
void windows_destroy(struct windows *w);

/* Entry 0: the page is not swapped out. */
vswp_entry_t window_get(const struct windows *w, uint64_t addr);
/* Forget the page's entry; keep @heat for as long as the window lives. */
void window_clear(struct windows *w, uint64_t addr, unsigned int heat);

unsigned int window_heat(const struct windows *w, uint64_t addr);
void window_set_heat(struct windows *w, uint64_t addr, unsigned int heat);

/*
 * The first address in [addr, end) whose page has an entry; when none has, @end
 * or 2^47 if that is less: there is no user memory beyond.
 */
uint64_t window_next(const struct windows *w, uint64_t addr, uint64_t end);

/* Memory of all windows of all clients, bytes. */
uint64_t windows_bytes(void);

#endif
