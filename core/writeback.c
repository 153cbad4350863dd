// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Writeback: the pool's oldest objects to a tier, compressed as they are.
 *
 * The objects are copied into a buffer, each under its cluster's lock, and
 * written with no lock held, so no fault ever waits for this.  Afterwards each
 * entry is looked at again under its cluster's lock: if it is still backed by a
 * pool object with the very same bytes, its word becomes the slot.  It does not
 * matter whether that is the same object, or where it is by now: the slot holds
 * what the entry stands for.  Otherwise, and that is rare with the oldest of
 * all, the slot is given back.
 */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "cluster.h"
#include "pageio.h"
#include "writeback.h"

/* Objects a write takes, and memory for them: half a megabyte a space with a tier. */
#define WB_PAGES 128

struct wb_object {
	vswp_entry_t entry;
	struct swap_group *group; /* pinned */
	u64 sum;
	u32 slot;
};

struct swap_writeback {
	unsigned int nr;
	unsigned int clock;	/* when the first, the oldest, was evicted */
	u32 room;		/* tiers that have any */
	struct swap_group *top; /* only objects of this one, or NULL */
	bool low;		/* those of groups that are low, too */
	struct wb_object object[WB_PAGES];
	struct swap_io io[WB_PAGES];
	u32 slot[WB_PAGES];
	u8 *pages; /* WB_PAGES slots as they will be */
	struct swap_space *space;
	u64 want, got; /* bytes of objects in the batch */
};

int writeback_prepare(struct swap_space *space)
{
	struct swap_writeback *wb;
	u8 *pages;

	if (space->wb)
		return 0;
	wb = kvzalloc(sizeof(*wb), GFP_KERNEL);
	/* One page more, as only this much alignment is promised to nobody. */
	pages = kvmalloc((WB_PAGES + 1) * SWAP_PAGE_SIZE, GFP_KERNEL);
	if (!wb || !pages) {
		kvfree(wb);
		kvfree(pages);
		return -ENOMEM;
	}
	wb->space = space;
	wb->pages = pages;
	smp_store_release(&space->wb, wb);
	return 0;
}

void writeback_exit(struct swap_space *space)
{
	if (space->wb)
		kvfree(space->wb->pages);
	kvfree(space->wb);
}

u64 writeback_bytes(struct swap_space *space)
{
	return smp_load_acquire(&space->wb) ? sizeof(*space->wb) + (WB_PAGES + 1) * SWAP_PAGE_SIZE :
					      0;
}

static struct slot_object *wb_slot(struct swap_writeback *wb, unsigned int i)
{
	u8 *aligned = (u8 *)ALIGN((unsigned long)wb->pages, SWAP_PAGE_SIZE);

	return (struct slot_object *)(aligned + i * SWAP_PAGE_SIZE);
}

/* Is @entry one of those looked for, as far as its group goes? */
static bool wb_wants(struct swap_writeback *wb, vswp_entry_t entry)
{
	const struct swap_cluster *c;
	struct swap_group *group;
	bool wants = false;

	rcu_read_lock();
	c = map_get(&wb->space->map, entry_cluster(entry));
	group = c ? map_get(&wb->space->groups, c->group) : NULL;
	if (group) {
		wants = wb->top ? group_within(group, wb->top) : wb->low || !group_is_low(group);
		/* One that can have no slot must not be in the way of others for ever. */
		wants = wants && wb->room & group_tiers(group) && !group_over(group, GROUP_SWAP, 1);
	}
	rcu_read_unlock();
	return wants;
}

/* Copy one object, if the entry still has it. */
static int wb_gather(void *arg, vswp_entry_t entry, unsigned long addr, size_t len)
{
	struct swap_writeback *wb = arg;
	struct slot_object *slot = wb_slot(wb, wb->nr);
	struct swap_cluster *c;
	swap_word_t w;
	const void *data;
	size_t now;

	if (len > SLOT_OBJECT_MAX || !wb_wants(wb, entry))
		return 0;
	c = cluster_lock(wb->space, entry);
	if (!c)
		return 0;
	w = cluster_word(c, entry_offset(entry));
	if (word_where(w) == SWAP_ZPOOL && word_zpool_addr(w) == addr) {
		data = zpool_map(wb->space->pool, addr, &now);
		*slot = (struct slot_object){
			.len = now,
			.comp = zpool_tag(wb->space->pool, addr),
		};
		memcpy(slot->data, data, now);
		if (!wb->nr)
			wb->clock = space_clock_of(wb->space, word_shadow(w));
		wb->object[wb->nr].group = cluster_group(wb->space, c);
		group_pin(wb->object[wb->nr].group);
		wb->object[wb->nr++].entry = entry;
		wb->got += now;
	}
	cluster_unlock(c);
	return wb->nr == WB_PAGES || wb->got >= wb->want;
}

/* The object is in @o->slot now: let the entry say so.  Returns pool bytes set free. */
static u64 wb_settle(struct swap_space *space, const struct wb_object *o,
		     const struct slot_object *slot)
{
	unsigned int off = entry_offset(o->entry);
	struct swap_cluster *c = cluster_lock(space, o->entry);
	const void *data;
	size_t len = 0;
	swap_word_t w;

	if (c) {
		w = cluster_word(c, off);
		/* It may be another group's entry by now, with the same bytes even. */
		if (word_where(w) == SWAP_ZPOOL && c->group == o->group->nr) {
			data = zpool_map(space->pool, word_zpool_addr(w), &len);
			if (len == slot->len &&
			    slot->comp == zpool_tag(space->pool, word_zpool_addr(w)) &&
			    !memcmp(data, slot->data, len)) {
				cluster_set_word(c, off,
						 word_with_count(word_slot(o->slot, true, o->sum),
								 word_count(w)));
				group_uncharge(o->group, GROUP_POOL,
					       zpool_free(space->pool, word_zpool_addr(w)));
			} else {
				len = 0;
			}
		}
		cluster_unlock(c);
	}
	if (!len)
		tier_give_back(space, o->group, o->slot);
	return len;
}

/* Slots of one tier for objects from @from on.  Returns how many, all of them in wb->slot. */
static unsigned int wb_slots(struct swap_writeback *wb, unsigned int from, struct swap_tier **tier)
{
	struct tier_want want = { .clock = wb->clock };
	unsigned int got = 0, run, n;

	while (from + got < wb->nr) {
		const struct wb_object *o = &wb->object[from + got];

		for (run = 1; from + got + run < wb->nr && o[run].group == o->group; run++)
			;
		want.group = o->group;
		n = tier_alloc(wb->space, &want, run, wb->slot + got, tier);
		got += n;
		if (n < run)
			break;
		want.only = *tier;
	}
	return got;
}

/* Write what was gathered.  Returns pool bytes set free. */
static u64 wb_write(struct swap_writeback *wb)
{
	struct swap_space *space = wb->space;
	unsigned int i, n, done = 0, moved = 0;
	struct swap_tier *tier;
	u64 freed = 0, bytes;

	for (i = 0; i < wb->nr; i++) {
		struct slot_object *slot = wb_slot(wb, i);

		slot->sum = slot_object_sum(wb->object[i].entry, slot);
		wb->object[i].sum = slot->sum;
		/* The rest of the slot goes to a disk somebody may read. */
		memset(slot->data + slot->len, 0, SLOT_OBJECT_MAX - slot->len);
	}
	while (done < wb->nr) {
		n = wb_slots(wb, done, &tier);
		if (!n) {
			/* It stays; the next may be of a group that has room. */
			done++;
			continue;
		}
		for (i = 0; i < n; i++) {
			wb->object[done + i].slot = wb->slot[i];
			wb->io[i].slot = tier_local(tier, wb->slot[i]);
			wb->io[i].data = wb_slot(wb, done + i);
		}
		tier_write(tier, wb->io, n);
		for (i = 0; i < n; i++) {
			if (wb->io[i].error) {
				tier_give_back(space, wb->object[done + i].group, wb->slot[i]);
				continue;
			}
			bytes = wb_settle(space, &wb->object[done + i], wb_slot(wb, done + i));
			moved += !!bytes;
			freed += bytes;
		}
		done += n;
	}
	for (i = 0; i < wb->nr; i++)
		group_unpin(wb->object[i].group);
	space_event(space, zswpwb, moved);
	return freed;
}

/* One batch, of at least @want bytes if it has room for them.  Under wb_mutex. */
static u64 wb_batch(struct swap_writeback *wb, struct swap_group *top, u64 want)
{
	u64 freed;

	wb->top = top;
	wb->want = want;
	wb->low = false;
	/* With none at all some that said ENOSPC may be worth another try. */
	wb->room = tier_room(wb->space);
	if (!wb->room)
		wb->room = U32_MAX;
	for (;;) {
		wb->nr = 0;
		wb->got = 0;
		zpool_walk_oldest(wb->space->pool, wb_gather, wb);
		freed = wb_write(wb);
		/* What is to be left to somebody, only if there is nothing else. */
		if (wb->nr || top || wb->low)
			return freed;
		wb->low = true;
	}
}

static u64 writeback(struct swap_space *space, struct swap_group *top, u64 bytes)
{
	struct swap_writeback *wb;
	u64 freed = 0, now;

	mutex_lock(&space->wb_mutex);
	wb = smp_load_acquire(&space->wb);
	while (wb && freed < bytes) {
		now = wb_batch(wb, top, bytes - freed);
		if (!now)
			break;
		freed += now;
	}
	mutex_unlock(&space->wb_mutex);
	return freed;
}

u64 writeback_room(struct swap_space *space, struct swap_group *top)
{
	/* As much as one batch holds, and one batch only: whoever asks has folios locked. */
	struct swap_writeback *wb;
	u64 freed = 0;

	mutex_lock(&space->wb_mutex);
	wb = smp_load_acquire(&space->wb);
	if (wb)
		freed = wb_batch(wb, top, U64_MAX);
	mutex_unlock(&space->wb_mutex);
	return freed;
}

u64 swap_writeback(struct swap_space *space, u64 bytes)
{
	u64 freed;

	tier_discard(space);
	demote_ahead(space);
	freed = writeback(space, NULL, bytes);
	zpool_reap(space->pool);
	return freed;
}

u64 swap_group_writeback(struct swap_group *group, u64 bytes)
{
	u64 freed = writeback(group->space, group, bytes);

	zpool_reap(group->space->pool);
	return freed;
}

u64 swap_compact(struct swap_space *space)
{
	tier_discard(space);
	return zpool_compact(space->pool, U64_MAX);
}
