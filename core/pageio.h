/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bytes between folios and their backings, in batches.  Inside core only.
 */
#ifndef CORE_PAGEIO_H
#define CORE_PAGEIO_H

#include <linux/types.h>

#include "space.h"
#include "table.h"
#include "tier.h"

/* Pages that go to or come from a tier together. */
#define BATCH_PAGES 256

/* One page of a batch. */
struct batch_page {
	struct swap_folio *folio;
	u64 sum;
	u32 index; /* of the page in the folio */
	u32 slot;  /* 0: none yet */
};

/* What one call needs besides its arguments; there is a reserve of them. */
struct swap_batch {
	unsigned int nr;
	struct batch_page page[BATCH_PAGES];
	struct swap_io io[BATCH_PAGES];
	u32 slot[BATCH_PAGES];
	u8 buf[SWAP_PAGE_SIZE];
};

/* A compressed page as a slot holds it. */
struct slot_object {
	u64 sum; /* over the rest up to the end of the data */
	u32 len;
	u32 comp; /* number of its compressor */
	u8 data[];
};

#define SLOT_OBJECT_MAX (SWAP_PAGE_SIZE - sizeof(struct slot_object))

/* Sums are seeded with the entry, so a page that went astray is found, too. */
u64 slot_page_sum(vswp_entry_t entry, const void *page);
u64 slot_object_sum(vswp_entry_t entry, const struct slot_object *object);

static inline void *folio_page_data(const struct swap_folio *folio, unsigned int index)
{
	return (u8 *)folio->data + ((size_t)index << SWAP_PAGE_SHIFT);
}

static inline vswp_entry_t folio_page_entry(const struct swap_folio *folio, unsigned int index)
{
	return vswp_entry(folio->entry.val + index);
}

/* Set the backing of a page of a locked folio; what it had before is given up. */
void folio_set_backing(struct swap_space *space, struct swap_folio *folio, unsigned int index,
		       swap_word_t w);
/* A word for a page that is one repeated word. */
bool page_to_fill(const void *page, swap_word_t *w);
/*
 * The page of an entry of @group into the pool.  @buf: a page to work in.  0;
 * -E2BIG: it does not compress; -EOPNOTSUPP: nothing of @group is to be compressed;
 * -EDQUOT: @group, or one it is in, is at its limit; -ENOSPC: the pool is; -ENOMEM.
 */
int page_to_pool(struct swap_space *space, struct swap_group *group, vswp_entry_t entry,
		 const void *page, void *buf, swap_word_t *w);
/*
 * New backings, fill, pool or another tier, for the pages of locked, cached,
 * uptodate folios that have theirs on a draining tier.  Returns how many pages
 * could not be served; they keep what they have.
 */
unsigned int pageio_drain(struct swap_space *space, struct swap_folio **folios, unsigned int nr,
			  const struct swap_tier *from);

#endif
