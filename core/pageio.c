// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Bytes between folios and their backings, in batches.
 *
 * Out: a page that is one repeated word becomes a word; else it is compressed
 * into the pool; what the pool would not have is collected and leaves in one
 * write, to slots taken for just that write.  A page that has a slot already
 * (folio_realloc_swap) is written to that one.
 *
 * All of it happens under the locks of the folios, so nothing else looks at
 * their backings meanwhile.
 */
#define pr_fmt(fmt) "vswap: " fmt

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <linux/xxhash.h>

#include "cluster.h"
#include "compress.h"
#include "pageio.h"
#include "writeback.h"

/* ---- sums ------------------------------------------------------------ */

u64 slot_page_sum(vswp_entry_t entry, const void *page)
{
	return xxh64(page, SWAP_PAGE_SIZE, entry.val);
}

u64 slot_object_sum(vswp_entry_t entry, const struct slot_object *object)
{
	return xxh64(&object->len,
		     sizeof(*object) - offsetof(struct slot_object, len) + object->len, entry.val);
}

/* ---- one page -------------------------------------------------------- */

void folio_set_backing(struct swap_space *space, struct swap_folio *folio, unsigned int index,
		       swap_word_t w)
{
	swap_word_t old = folio->backing[index];
	enum swap_where where = word_where(old);
	struct tier_run run = { 0 };

	lockdep_assert_held(&folio->lock);
	WRITE_ONCE(folio->backing[index], w);
	/* The same slot with another sum is no slot to free. */
	if (where == SWAP_SLOT && word_where(w) == SWAP_SLOT &&
	    word_slot_nr(old) == word_slot_nr(w))
		return;
	if (where != SWAP_SLOT && where != SWAP_ZPOOL)
		return;
	backing_free(space, entry_group(space, folio->entry)->nr, old, &run);
	tier_run_flush(space, &run);
}

bool page_to_fill(const void *page, swap_word_t *w)
{
	const u64 *p = page;
	const unsigned int nr = SWAP_PAGE_SIZE / sizeof(*p);

	return p[0] == p[nr / 2] && p[0] == p[nr - 1] && word_fill_fits(p[0], w) &&
	       !memcmp(p, p + 1, SWAP_PAGE_SIZE - sizeof(*p));
}

int page_to_pool(struct swap_space *space, struct swap_group *group, vswp_entry_t entry,
		 const void *page, void *buf, swap_word_t *w)
{
	int comp = smp_load_acquire(&space->comp), len, ret;
	unsigned long addr;
	u32 bytes;

	if (comp < 0 || group_is_direct(group))
		return -EOPNOTSUPP;
	len = swap_compress(smp_load_acquire(&space->comps[comp]), page, buf, SWAP_PAGE_SIZE);
	if (len < 0) {
		space_event(space, reject_compress_poor, 1);
		return len;
	}
	bytes = zpool_object_bytes(len);
	if (!group_charge(group, GROUP_POOL, bytes, bytes))
		return -EDQUOT;
	ret = zpool_store(space->pool, entry, buf, len, comp, &addr);
	if (ret) {
		group_uncharge(group, GROUP_POOL, bytes);
		return ret;
	}
	space_event(space, zswpout, 1);
	*w = word_with_shadow(word_zpool(addr), space_clock(space));
	return 0;
}

static void page_fill(void *page, u64 value)
{
	u64 *p = page;
	unsigned int i;

	if (!value) {
		memset(page, 0, SWAP_PAGE_SIZE);
		return;
	}
	for (i = 0; i < SWAP_PAGE_SIZE / sizeof(*p); i++)
		p[i] = value;
}

static struct swap_batch *batch_get(struct swap_space *space)
{
	struct swap_batch *batch = mempool_alloc(space->batches, GFP_NOIO);

	batch->nr = 0;
	return batch;
}

static void batch_put(struct swap_space *space, struct swap_batch *batch)
{
	if (batch)
		mempool_free(batch, space->batches);
}

static void batch_add(struct swap_batch *batch, struct swap_folio *folio, unsigned int index,
		      u32 slot, u64 sum)
{
	batch->page[batch->nr++] = (struct batch_page){
		.folio = folio,
		.index = index,
		.slot = slot,
		.sum = sum,
	};
}

static struct swap_group *batch_group(struct swap_space *space, const struct batch_page *p)
{
	return entry_group(space, p->folio->entry);
}

/* How many pages of the batch, from @from on and @nr at most, are of one group. */
static unsigned int batch_run(struct swap_space *space, const struct swap_batch *batch,
			      unsigned int from, unsigned int nr, struct swap_group **group)
{
	unsigned int n = 1;

	*group = batch_group(space, &batch->page[from]);
	while (n < nr && batch_group(space, &batch->page[from + n]) == *group)
		n++;
	return n;
}

/* ---- out ------------------------------------------------------------- */

/* Room made at one go for a page the pool would not take, and how often, before it goes to a tier. */
#define POOL_TRIES 4

struct pageout {
	struct swap_space *space;
	struct swap_batch *batch;
	bool draining; /* a page not served is no dirtier than before */
	unsigned int failed;
};

static void pageout_failed(struct pageout *po, struct swap_folio *folio)
{
	if (!po->draining)
		set_bit(SWAP_FOLIO_DIRTY, &folio->flags);
	po->failed++;
}

/*
 * Write pages [from, from + nr) of the batch, all with slots of @tier.  Those
 * that another may take are left in the batch without a slot; returns how many.
 */
static unsigned int pageout_write(struct pageout *po, struct swap_tier *tier, unsigned int from,
				  unsigned int nr)
{
	struct swap_batch *batch = po->batch;
	unsigned int i, bad = 0;

	for (i = 0; i < nr; i++) {
		struct batch_page *p = &batch->page[from + i];

		batch->io[i].slot = tier_local(tier, p->slot);
		batch->io[i].data = folio_page_data(p->folio, p->index);
	}
	tier_write(tier, batch->io, nr);
	for (i = 0; i < nr; i++) {
		struct batch_page *p = &batch->page[from + i];
		swap_word_t w = word_slot(p->slot, false, p->sum);

		if (!batch->io[i].error) {
			folio_set_backing(po->space, p->folio, p->index, w);
			continue;
		}
		/* Its own slot stays the folio's until another has the bytes. */
		if (!tier_has(tier, p->folio->backing[p->index]) ||
		    word_slot_nr(p->folio->backing[p->index]) != p->slot)
			tier_give_back(po->space, batch_group(po->space, p), p->slot);
		p->slot = 0;
		/* No other tier can write what cannot be read either. */
		if (batch->io[i].error == -EFAULT)
			pageout_failed(po, p->folio);
		else
			batch->page[from + bad++] = *p;
	}
	return bad;
}

/* Slots of one tier for the first of @nr pages of the batch, which may be of several groups. */
static unsigned int pageout_slots(struct pageout *po, unsigned int nr, struct swap_tier **tier)
{
	struct tier_want want = { .clock = space_clock(po->space), .over = po->draining };
	struct swap_batch *batch = po->batch;
	unsigned int run, n, got = 0;

	while (got < nr) {
		run = batch_run(po->space, batch, got, nr - got, &want.group);
		n = tier_alloc(po->space, &want, run, batch->slot + got, tier);
		got += n;
		if (n < run)
			break;
		want.only = *tier;
	}
	return got;
}

/*
 * Into the pool, if that takes making room there: the newest page must not go to a
 * tier for want of room while older ones sit in the pool.  A page being drained is
 * not new.
 */
static int pageout_pool(struct pageout *po, vswp_entry_t entry, const void *page, swap_word_t *w)
{
	struct swap_group *group = entry_group(po->space, entry), *over;
	unsigned int tries = 0;
	int ret;

	for (;;) {
		ret = page_to_pool(po->space, group, entry, page, po->batch->buf, w);
		if ((ret != -EDQUOT && ret != -ENOSPC) || po->draining || tries++ == POOL_TRIES)
			return ret;
		over = ret == -EDQUOT ? group_over(group, GROUP_POOL, SWAP_PAGE_SIZE) : NULL;
		/* Somebody freed something meanwhile: nobody else has to make room for the group. */
		if (ret == -EDQUOT && !over)
			continue;
		if (!writeback_room(po->space, over))
			return ret;
	}
}

/* No tier has room for it.  It may be here for having passed the pool by. */
static void pageout_homeless(struct pageout *po, const struct batch_page *p)
{
	vswp_entry_t entry = folio_page_entry(p->folio, p->index);
	swap_word_t w;

	if (po->draining || !swap_folio_test(p->folio, SWAP_FOLIO_DROPBEHIND) ||
	    pageout_pool(po, entry, folio_page_data(p->folio, p->index), &w))
		pageout_failed(po, p->folio);
	else
		folio_set_backing(po->space, p->folio, p->index, w);
}

/* Pages that have slots go there first; then the others, as tiers take them. */
static void pageout_flush(struct pageout *po)
{
	struct swap_batch *batch = po->batch;
	unsigned int i, n, bad, left = 0, nr = batch->nr;
	struct swap_group *group;
	struct swap_tier *tier;

	for (i = 0; i < nr; i += n) {
		n = 1;
		if (!batch->page[i].slot) {
			batch->page[left++] = batch->page[i];
			continue;
		}
		tier = tier_of(po->space, batch->page[i].slot);
		while (i + n < nr && batch->page[i + n].slot &&
		       tier_of(po->space, batch->page[i + n].slot) == tier)
			n++;
		bad = pageout_write(po, tier, i, n);
		memmove(&batch->page[left], &batch->page[i], bad * sizeof(batch->page[0]));
		left += bad;
	}
	while (left) {
		n = pageout_slots(po, left, &tier);
		if (!n) {
			/* Nothing for this group; there may be for others. */
			n = batch_run(po->space, batch, 0, left, &group);
			for (i = 0; i < n; i++)
				pageout_homeless(po, &batch->page[i]);
			left -= n;
			memmove(&batch->page[0], &batch->page[n], left * sizeof(batch->page[0]));
			continue;
		}
		for (i = 0; i < n; i++)
			batch->page[i].slot = batch->slot[i];
		bad = pageout_write(po, tier, 0, n);
		/* A full or failed tier is passed over the next time round. */
		memmove(&batch->page[bad], &batch->page[n], (left - n) * sizeof(batch->page[0]));
		left -= n - bad;
	}
	batch->nr = 0;
}

static void pageout_page(struct pageout *po, struct swap_folio *folio, unsigned int index)
{
	struct swap_space *space = po->space;
	void *page = folio_page_data(folio, index);
	vswp_entry_t entry = folio_page_entry(folio, index);
	swap_word_t old = folio->backing[index], w;
	int ret = 0;
	u32 slot = 0;

	if (page_to_fill(page, &w)) {
		space_event(space, swpout_zero, 1);
		folio_set_backing(space, folio, index, word_with_shadow(w, space_clock(space)));
		return;
	}
	if (!po->batch)
		po->batch = batch_get(space);
	if (word_where(old) == SWAP_SLOT && tier_slot_stays(space, word_slot_nr(old)))
		slot = word_slot_nr(old);
	if (!slot && (po->draining || !swap_folio_test(folio, SWAP_FOLIO_DROPBEHIND))) {
		ret = pageout_pool(po, entry, page, &w);
		if (!ret) {
			folio_set_backing(space, folio, index, w);
			return;
		}
	}
	if (ret == -E2BIG && !po->draining && swap_folio_test(folio, SWAP_FOLIO_ACTIVATE)) {
		pageout_failed(po, folio);
		return;
	}
	batch_add(po->batch, folio, index, slot, slot_page_sum(entry, page));
	if (po->batch->nr == BATCH_PAGES)
		pageout_flush(po);
}

unsigned int swap_writeout(struct swap_space *space, struct swap_folio **folios, unsigned int nr)
{
	struct pageout po = { .space = space };
	unsigned int i, index, clean = 0;

	for (i = 0; i < nr; i++) {
		struct swap_folio *folio = folios[i];

		lockdep_assert_held(&folio->lock);
		if (!swap_folio_test(folio, SWAP_FOLIO_DIRTY) ||
		    WARN_ON(!swap_folio_test(folio, SWAP_FOLIO_CACHED) ||
			    !swap_folio_test(folio, SWAP_FOLIO_UPTODATE)))
			continue;
		set_bit(SWAP_FOLIO_WRITEBACK, &folio->flags);
		/* Whatever page of it cannot be served sets it again. */
		clear_bit(SWAP_FOLIO_DIRTY, &folio->flags);
		for (index = 0; index < 1U << folio->order; index++)
			pageout_page(&po, folio, index);
	}
	if (po.batch)
		pageout_flush(&po);
	batch_put(space, po.batch);
	for (i = 0; i < nr; i++) {
		clear_bit(SWAP_FOLIO_WRITEBACK, &folios[i]->flags);
		clean += !swap_folio_test(folios[i], SWAP_FOLIO_DIRTY);
	}
	return clean;
}

unsigned int pageio_drain(struct swap_space *space, struct swap_folio **folios, unsigned int nr,
			  const struct swap_tier *from)
{
	struct pageout po = { .space = space, .draining = true };
	unsigned int i, index;

	for (i = 0; i < nr; i++) {
		for (index = 0; index < 1U << folios[i]->order; index++)
			if (tier_has(from, folios[i]->backing[index]))
				pageout_page(&po, folios[i], index);
	}
	if (po.batch)
		pageout_flush(&po);
	batch_put(space, po.batch);
	return po.failed;
}

/* ---- in -------------------------------------------------------------- */

struct pagein {
	struct swap_space *space;
	struct swap_batch *batch;
	unsigned int wanted; /* how many pages of the batch, from the front, are wanted now */
};

/* An error of memory or of this moment, which says nothing about what is on the tier. */
static bool error_passes(int error)
{
	return error == -EAGAIN || error == -ENOMEM || error == -EFAULT;
}

static void pagein_failed(struct swap_folio *folio, int error)
{
	if (!error_passes(error))
		error = -EIO;
	/* Of several the one that no other try may mend. */
	if (!swap_folio_test(folio, SWAP_FOLIO_ERROR) || error == -EIO)
		folio->error = error;
	set_bit(SWAP_FOLIO_ERROR, &folio->flags);
}

static void pagein_lost(struct swap_space *space, struct swap_folio *folio, unsigned int index)
{
	pagein_failed(folio, -EIO);
	folio_set_backing(space, folio, index, word_poison());
}

/* The bytes a slot gave are in the page: are they what was written, and what page is that? */
static bool pagein_verify(struct swap_space *space, struct swap_batch *batch,
			  const struct batch_page *p)
{
	vswp_entry_t entry = folio_page_entry(p->folio, p->index);
	void *page = folio_page_data(p->folio, p->index);
	swap_word_t w = p->folio->backing[p->index];
	struct slot_object *object = (struct slot_object *)batch->buf;
	struct swap_comp *comp;
	u64 sum;

	if (!(w & WORD_SLOT_OBJECT))
		return word_sum_is(w, slot_page_sum(entry, page));
	memcpy(object, page, sizeof(*object));
	if (object->len > SLOT_OBJECT_MAX)
		return false;
	memcpy(object->data, (u8 *)page + sizeof(*object), object->len);
	sum = slot_object_sum(entry, object);
	if (sum != object->sum || !word_sum_is(w, sum) || object->comp >= SWAP_COMPS)
		return false;
	comp = smp_load_acquire(&space->comps[object->comp]);
	return comp && !swap_decompress(comp, object->data, object->len, page);
}

/*
 * Some of the batch could not be read.  What was damaged is lost; what is only out of
 * reach may be there the next time, but whoever wants it now is not kept waiting for that.
 */
static void pagein_error(struct pagein *in, struct swap_tier *tier, unsigned int page,
			 const struct swap_io *io)
{
	const struct batch_page *p = &in->batch->page[page];

	space_event(in->space, read_errors, 1);
	if (io->error && (page >= in->wanted || error_passes(io->error))) {
		pr_err_ratelimited("tier %s slot %llu: read error %d: page left there\n",
				   tier->name, io->slot, -io->error);
		pagein_failed(p->folio, io->error);
		return;
	}
	if (io->error)
		pr_err_ratelimited(
			"tier %s slot %llu: read error %d: page lost (its owner gets SIGBUS)\n",
			tier->name, io->slot, -io->error);
	else
		pr_err_ratelimited(
			"tier %s slot %llu: checksum mismatch: page lost (its owner gets SIGBUS)\n",
			tier->name, io->slot);
	pagein_lost(in->space, p->folio, p->index);
}

static void pagein_flush(struct pagein *in)
{
	struct swap_batch *batch = in->batch;
	struct swap_space *space = in->space;
	unsigned int i, n, from, nr = batch->nr;
	struct swap_tier *tier;

	for (from = 0; from < nr; from += n) {
		tier = tier_of(space, batch->page[from].slot);
		for (n = 0; from + n < nr; n++) {
			struct batch_page *p = &batch->page[from + n];

			if (n && tier_of(space, p->slot) != tier)
				break;
			batch->io[n].slot = tier_local(tier, p->slot);
			batch->io[n].data = folio_page_data(p->folio, p->index);
		}
		tier_read(tier, batch->io, n);
		for (i = 0; i < n; i++) {
			if (batch->io[i].error ||
			    !pagein_verify(space, batch, &batch->page[from + i]))
				pagein_error(in, tier, from + i, &batch->io[i]);
		}
	}
	batch->nr = 0;
	in->wanted = 0;
}

static void pagein_page(struct pagein *in, struct swap_folio *folio, unsigned int index,
			bool wanted)
{
	struct swap_space *space = in->space;
	vswp_entry_t entry = folio_page_entry(folio, index);
	void *page = folio_page_data(folio, index);
	swap_word_t w = folio->backing[index];
	struct swap_comp *comp;
	const void *src;
	size_t len;

	switch (word_where(w)) {
	case SWAP_FILL:
		space_event(space, swpin_zero, 1);
		page_fill(page, word_fill_value(w));
		break;
	case SWAP_ZPOOL:
		space_event(space, zswpin, 1);
		src = zpool_map(space->pool, word_zpool_addr(w), &len);
		comp = smp_load_acquire(&space->comps[zpool_tag(space->pool, word_zpool_addr(w))]);
		if (zpool_entry(space->pool, word_zpool_addr(w)).val != entry.val ||
		    swap_decompress(comp, src, len, page)) {
			pr_err_ratelimited(
				"entry %lu: pool object damaged: page lost (its owner gets SIGBUS)\n",
				entry.val);
			space_event(space, read_errors, 1);
			pagein_lost(space, folio, index);
		}
		break;
	case SWAP_SLOT:
		if (!in->batch)
			in->batch = batch_get(space);
		batch_add(in->batch, folio, index, word_slot_nr(w), 0);
		in->wanted += wanted;
		if (in->batch->nr == BATCH_PAGES)
			pagein_flush(in);
		break;
	default:
		pagein_lost(space, folio, index);
		break;
	}
}

unsigned int swap_readin_wanted(struct swap_space *space, struct swap_folio **folios,
				unsigned int nr, unsigned int wanted)
{
	struct pagein in = { .space = space };
	unsigned int i, index, good = 0;

	for (i = 0; i < nr; i++) {
		lockdep_assert_held(&folios[i]->lock);
		if (swap_folio_test(folios[i], SWAP_FOLIO_UPTODATE))
			continue;
		if (swap_folio_test(folios[i], SWAP_FOLIO_ERROR))
			clear_bit(SWAP_FOLIO_ERROR, &folios[i]->flags);
		for (index = 0; index < 1U << folios[i]->order; index++)
			pagein_page(&in, folios[i], index, i < wanted);
	}
	if (in.batch)
		pagein_flush(&in);
	batch_put(space, in.batch);
	for (i = 0; i < nr; i++) {
		if (swap_folio_test(folios[i], SWAP_FOLIO_ERROR))
			continue;
		/* After the bytes, see swap_folio_test(). */
		smp_mb__before_atomic();
		set_bit(SWAP_FOLIO_UPTODATE, &folios[i]->flags);
		good++;
	}
	return good;
}

unsigned int swap_readin(struct swap_space *space, struct swap_folio **folios, unsigned int nr)
{
	return swap_readin_wanted(space, folios, nr, 0);
}
