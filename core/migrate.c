// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Another backing for a cached folio, the entry unchanged.
 *
 * Both calls are all or nothing: the new backing of every page is found and
 * kept aside, and only then takes the place of the old one.
 */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>

#include "cluster.h"
#include "pageio.h"

/* Free the first @nr of a list of words nobody uses. */
static void words_free(struct swap_space *space, struct swap_group *group, const swap_word_t *words,
		       unsigned int nr)
{
	struct tier_run run = { 0 };
	unsigned int i;

	for (i = 0; i < nr; i++)
		backing_free(space, group->nr, words[i], &run);
	tier_run_flush(space, &run);
}

int folio_realloc_swap(struct swap_space *space, struct swap_folio *folio)
{
	unsigned int i, n, got = 0, want = 0, size = 1U << folio->order;
	struct tier_want wanted = { .clock = space_clock(space), .run = true };
	struct swap_tier *tier;
	u32 *slots;
	int ret = 0;

	BUILD_BUG_ON(SWAP_CLUSTER_SLOTS * sizeof(*slots) > SWAP_PAGE_SIZE);
	lockdep_assert_held(&folio->lock);
	if (WARN_ON(!swap_folio_test(folio, SWAP_FOLIO_CACHED) ||
		    !swap_folio_test(folio, SWAP_FOLIO_UPTODATE)))
		return -ENOSPC;
	for (i = 0; i < size; i++)
		want += word_where(folio->backing[i]) != SWAP_SLOT;
	if (!want)
		return 0;
	wanted.group = entry_group(space, folio->entry);
	slots = mempool_alloc(space->pages, GFP_NOIO);
	while (got < want) {
		n = tier_alloc(space, &wanted, want - got, slots + got, &tier);
		if (!n)
			break;
		got += n;
	}
	if (got == want) {
		for (i = 0, n = 0; i < size; i++)
			if (word_where(folio->backing[i]) != SWAP_SLOT)
				folio_set_backing(space, folio, i, word_slot(slots[n++], false, 0));
		set_bit(SWAP_FOLIO_DIRTY, &folio->flags);
	} else {
		struct tier_run run = { 0 };

		for (i = 0; i < got; i++)
			tier_run_add(space, &run, slots[i]);
		tier_run_flush(space, &run);
		group_uncharge(wanted.group, GROUP_SWAP, got);
		ret = -ENOSPC;
	}
	mempool_free(slots, space->pages);
	return ret;
}

/* Words that hold the folio's bytes on @to.  Returns 0 or -errno with nothing taken. */
static int migrate_to_tier(struct swap_space *space, struct swap_folio *folio, struct swap_tier *to,
			   swap_word_t *words)
{
	unsigned int i, n, done = 0, size = 1U << folio->order;
	struct swap_batch *batch = mempool_alloc(space->batches, GFP_NOIO);
	struct tier_want want = {
		.group = entry_group(space, folio->entry),
		.only = to,
		.clock = space_clock(space),
		.run = true,
		.over = true,
	};
	struct swap_tier *tier;
	int ret = 0;

	/* What has slots now gets others for them. */
	for (i = 0; i < size; i++)
		want.over &= word_where(folio->backing[i]) == SWAP_SLOT;
	while (done < size && !ret) {
		n = tier_alloc(space, &want, min_t(unsigned int, size - done, BATCH_PAGES),
			       batch->slot, &tier);
		if (!n)
			ret = -ENOSPC;
		for (i = 0; i < n; i++) {
			void *page = folio_page_data(folio, done + i);
			vswp_entry_t entry = folio_page_entry(folio, done + i);

			words[done + i] =
				word_slot(batch->slot[i], false, slot_page_sum(entry, page));
			batch->io[i].slot = tier_local(to, batch->slot[i]);
			batch->io[i].data = page;
		}
		if (n)
			tier_write(to, batch->io, n);
		for (i = 0; i < n; i++)
			if (batch->io[i].error)
				ret = batch->io[i].error == -ENOSPC ? -ENOSPC : -EIO;
		done += n;
	}
	if (ret)
		words_free(space, want.group, words, done);
	mempool_free(batch, space->batches);
	return ret;
}

/* Words that hold the folio's bytes on no tier.  Returns 0 or -ENOSPC with nothing taken. */
static int migrate_to_pool(struct swap_space *space, struct swap_folio *folio, swap_word_t *words)
{
	struct swap_batch *batch = mempool_alloc(space->batches, GFP_NOIO);
	struct swap_group *group = entry_group(space, folio->entry);
	unsigned int i, size = 1U << folio->order;
	int ret = 0;

	for (i = 0; i < size && !ret; i++) {
		void *page = folio_page_data(folio, i);

		if (page_to_fill(page, &words[i])) {
			words[i] = word_with_shadow(words[i], space_clock(space));
			space_event(space, swpout_zero, 1);
		} else if (page_to_pool(space, group, folio_page_entry(folio, i), page, batch->buf,
					&words[i])) {
			words_free(space, group, words, i);
			ret = -ENOSPC;
		}
	}
	mempool_free(batch, space->batches);
	return ret;
}

int folio_migrate_swap(struct swap_space *space, struct swap_folio *folio, struct swap_tier *to)
{
	unsigned int i, size = 1U << folio->order;
	swap_word_t *words;
	int ret;

	BUILD_BUG_ON(SWAP_CLUSTER_SLOTS * sizeof(*words) > SWAP_PAGE_SIZE);
	lockdep_assert_held(&folio->lock);
	if (WARN_ON(!swap_folio_test(folio, SWAP_FOLIO_CACHED) ||
		    !swap_folio_test(folio, SWAP_FOLIO_UPTODATE)))
		return -EIO;
	words = mempool_alloc(space->pages, GFP_NOIO);
	set_bit(SWAP_FOLIO_WRITEBACK, &folio->flags);
	ret = to ? migrate_to_tier(space, folio, to, words) : migrate_to_pool(space, folio, words);
	if (!ret) {
		for (i = 0; i < size; i++)
			folio_set_backing(space, folio, i, words[i]);
		clear_bit(SWAP_FOLIO_DIRTY, &folio->flags);
	}
	clear_bit(SWAP_FOLIO_WRITEBACK, &folio->flags);
	mempool_free(words, space->pages);
	return ret;
}
