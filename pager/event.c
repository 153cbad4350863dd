// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Following what the program does to its address space.
 *
 * A missed event is silent corruption, so each one is followed to its end
 * before anything else is read from, copied to or moved out of the client: the
 * reader holds the gate exclusively.  A batch that is under way may have taken
 * pages from the range before the event; it is cancelled where it stands and
 * its pages are recorded first, so that the event finds them as entries.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "client.h"
#include "job.h"
#include "mapping.h"
#include "state.h"

#define DOUBT_NS   2000000000ULL
#define DROP_BATCH 512
#define BLOCKED_NS 20000000

void client_drop_entries(struct client *c, uint64_t start, uint64_t end)
{
	uint64_t addr = start;
	vswp_entry_t first = { 0 };
	unsigned int nr = 0;

	while ((addr = window_next(&c->win, addr, end)) < end) {
		vswp_entry_t entry = window_get(&c->win, addr);

		window_clear(&c->win, addr, 0);
		addr += PAGE_SIZE_;
		if (nr && entry.val == first.val + nr && nr < DROP_BATCH) {
			nr++;
			continue;
		}
		if (nr)
			swap_free_range(pager.space, first, nr);
		first = entry;
		nr = 1;
	}
	if (nr)
		swap_free_range(pager.space, first, nr);
}

static bool is_fresh(const struct doubt *d, uint64_t addr)
{
	uint64_t page = (addr - d->start) / PAGE_SIZE_;

	return d->fresh && (d->fresh[page / 8] & 1 << page % 8);
}

bool doubtful(const struct client *c, uint64_t addr)
{
	for (unsigned int i = 0; i < c->nr_doubts; i++) {
		const struct doubt *d = &c->doubt[i];

		if (addr >= d->start && addr < d->end && !is_fresh(d, addr))
			return true;
	}
	return false;
}

void doubts_settle(struct client *c, uint64_t addr)
{
	for (unsigned int i = 0; i < c->nr_doubts; i++) {
		struct doubt *d = &c->doubt[i];
		uint64_t page = (addr - d->start) / PAGE_SIZE_;

		if (addr >= d->start && addr < d->end && d->fresh)
			d->fresh[page / 8] |= 1 << page % 8;
	}
}

void doubt_add(struct client *c, uint64_t start, uint64_t end, uint64_t ns)
{
	size_t bytes = (end - start) / PAGE_SIZE_ / 8 + 1;
	struct doubt *d = NULL;

	for (unsigned int i = 0; i < c->nr_doubts; i++)
		if (c->doubt[i].start == start && c->doubt[i].end == end)
			d = &c->doubt[i];
	if (d && d->fresh) {
		memset(d->fresh, 0, bytes);
	} else if (!d && c->nr_doubts < MAX_DOUBTS) {
		d = &c->doubt[c->nr_doubts++];
		/* Without, all of it is in doubt for the whole time. */
		*d = (struct doubt){ start, end, 0, calloc(1, bytes) };
	} else if (!d) {
		/* Too many to tell apart: one stands for all between, and errs to the safe side. */
		d = &c->doubt[0];
		free(d->fresh);
		d->fresh = NULL;
		if (start < d->start)
			d->start = start;
		if (end > d->end)
			d->end = end;
	}
	if (d->until_ns < now_ns() + ns)
		d->until_ns = now_ns() + ns;
}

/* Is there a page left that was there before?  Not able to tell is "maybe". */
static bool any_old(struct client *c, const struct doubt *d)
{
	struct page_region region[32];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = d->start,
		.end = d->end,
		.vec = (uint64_t)region,
		.vec_len = 32,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT,
	};

	while (scan.start < d->end) {
		int n = ioctl(c->pagemap, PAGEMAP_SCAN, &scan);

		if (n < 0 || scan.walk_end <= scan.start)
			return true;
		for (int i = 0; i < n; i++)
			for (uint64_t addr = region[i].start; addr < region[i].end;
			     addr += PAGE_SIZE_)
				if (!is_fresh(d, addr))
					return true;
		scan.start = scan.walk_end;
	}
	return false;
}

void doubts_review(struct client *c)
{
	uint64_t now = now_ns();

	pthread_mutex_lock(&c->state);
	for (unsigned int i = 0; i < c->nr_doubts;) {
		struct doubt *d = &c->doubt[i];

		if (now < d->until_ns && any_old(c, d)) {
			i++;
			continue;
		}
		free(d->fresh);
		*d = c->doubt[--c->nr_doubts];
	}
	pthread_mutex_unlock(&c->state);
}

/* Where nothing was, until @end; start is 0 once there was something. */
static bool look_in_gap(void *arg, const struct mapping *m)
{
	struct range *gap = arg;

	if (m->start < gap->end && m->end > gap->start)
		gap->start = 0;
	return gap->start && m->start < gap->end;
}

/* Is anything mapped in [start, end)?  Not able to tell is "yes". */
static bool mapped(struct client *c, uint64_t start, uint64_t end)
{
	struct range gap = { start, end };

	return mappings_walk(c->maps, look_in_gap, &gap) || !gap.start;
}

/* It cannot be told whether it did so in time, so the program must not go on. */
void event_drop_race(struct client *c, uint64_t start, uint64_t end)
{
	if (mapped(c, start, end))
		job_kill(c->job,
			 "memory was mapped anew while it was being evicted, and the kernel "
			 "cannot do both safely here: killed (start the program again)");
}

bool event_drop_sure(struct client *c)
{
	bool sure;

	if (!c->unsure.end)
		return true;
	/* Whoever reads an event has it until that is followed. */
	if (!gate_trylock(c->gate, GATE_TO_COPY))
		return false;
	pthread_mutex_lock(&c->state);
	sure = !event_unfollowed(c) && !client_map_changes(c);
	if (sure)
		c->unsure = (struct range){ 0 };
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
	return sure;
}

/* Is each page there, or known where it is?  Not able to tell is "no". */
static bool all_there(struct client *c, uint64_t start, uint64_t end)
{
	uint64_t map[512];

	while (start < end) {
		size_t nr = (end - start) / PAGE_SIZE_;

		if (nr > sizeof(map) / sizeof(*map))
			nr = sizeof(map) / sizeof(*map);
		if (pread(c->pagemap, map, nr * 8, start / PAGE_SIZE_ * 8) != (ssize_t)nr * 8)
			return false;
		for (size_t i = 0; i < nr; i++, start += PAGE_SIZE_)
			if (!(map[i] >> 62) && !window_get(&c->win, start).val)
				return false;
	}
	return true;
}

/* Pages were moved to where others were dropped just then: were it those? */
static void moved_into_drop(struct client *c, uint64_t to, uint64_t end)
{
	if (to < c->unsure.start)
		to = c->unsure.start;
	if (end > c->unsure.end)
		end = c->unsure.end;
	if (to < end && !client_is_dead(c) && !all_there(c, to, end))
		event_drop_race(c, to, end);
}

void event_no_memory(struct client *c)
{
	job_kill(c->job, "out of memory while following the program: killed (free memory on this "
			 "machine)");
}

/* The gate is ours, so the agent gets no further; what it has taken gets recorded. */
static void wait_for_batch(struct client *c, uint64_t start, uint64_t end)
{
	bool blocked = false;

	while (batch_covers(c, start, end)) {
		struct timespec ts;

		/* Each time: the next batch may be out before we wake up. */
		gate_cancel(c->gate);
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_nsec += BLOCKED_NS;
		if (ts.tv_nsec >= 1000000000L) {
			ts.tv_nsec -= 1000000000L;
			ts.tv_sec++;
		}
		/* A process that was stopped may take long. */
		if (pthread_cond_clockwait(&c->batch_done, &c->state, CLOCK_MONOTONIC, &ts) &&
		    !blocked) {
			blocked = true;
			servers_blocked(c, true);
		}
	}
	if (blocked)
		servers_blocked(c, false);
}

static void wake_range(struct client *c, uint64_t start, uint64_t end)
{
	struct uffdio_range range = { start, end - start };

	/* Only ever fails for a range that is no range. */
	ioctl(c->uffd, UFFDIO_WAKE, &range);
}

/* What was left in [start, end) has been told of: its pages are at @to now, or gone. */
static void told(struct client *c, uint64_t start, uint64_t end, const uint64_t *to)
{
	struct vacated_page page;

	while (vacated_take(&c->vacated, start, end, &page)) {
		if (to && !window_set(&c->win, *to + (page.addr - start), page.entry))
			continue;
		if (to)
			event_no_memory(c);
		swap_free_range(pager.space, page.entry, 1);
	}
	if (vacated_forget(&c->vacated, start, end))
		event_no_memory(c);
}

void event_all_told(struct client *c)
{
	told(c, 0, ~0ULL, NULL);
	/* All of them: no range is split. */
	(void)vacated_forget(&c->unmapping, 0, ~0ULL);
}

static bool is_left(const struct client *c, uint64_t start, uint64_t end)
{
	bool vacated, unmapping;

	return vacated_part(&c->vacated, start, end, &vacated) < end ||
	       vacated_part(&c->unmapping, start, end, &unmapping) < end || vacated || unmapping;
}

/* What is in [start, end) has left, and that is still to be told of. */
static void vacate(struct client *c, uint64_t start, uint64_t end)
{
	if (is_left(c, start, end))
		job_kill(c->job, "memory was moved by several threads at once, and it cannot "
				 "be told to where: killed (start the program again)");
	if (vacated_add(&c->vacated, start, end))
		event_no_memory(c);
	for (uint64_t at = start; (at = window_next(&c->win, at, end)) < end; at += PAGE_SIZE_) {
		vswp_entry_t entry = window_get(&c->win, at);

		window_clear(&c->win, at, 0);
		if (vacated_keep(&c->vacated, at, entry)) {
			event_no_memory(c);
			swap_free_range(pager.space, entry, 1);
		}
	}
}

/* Pages have come to [start, end): what is known to be there is no more. */
static void set_aside(struct client *c, uint64_t start, uint64_t end)
{
	struct range *r;
	uint64_t at, to;

	for (at = start; (r = range_from(c, at)) && r->start < end; at = to) {
		uint64_t from = r->start > start ? r->start : start;

		to = r->end < end ? r->end : end;
		vacate(c, from, to);
		ranges_remove(c, from, to);
	}
	/* Not everything that is registered is listed, a child's own for one. */
	for (at = start; (at = window_next(&c->win, at, end)) < end; at = to) {
		for (to = at + PAGE_SIZE_; to < end && window_get(&c->win, to).val;)
			to += PAGE_SIZE_;
		vacate(c, at, to);
	}
}

/* What is in [start, end) is at @to now. */
static void moved(struct client *c, uint64_t start, uint64_t end, uint64_t to)
{
	struct range *r;

	for (uint64_t addr = start; (addr = window_next(&c->win, addr, end)) < end;
	     addr += PAGE_SIZE_) {
		vswp_entry_t entry = window_get(&c->win, addr);

		window_clear(&c->win, addr, 0);
		if (window_set(&c->win, to + (addr - start), entry)) {
			job_kill(c->job, "out of memory while memory was moved by mremap: killed "
					 "(give more with --ram, or free memory on this machine)");
			swap_free_range(pager.space, entry, 1);
		}
	}
	/* What was registered there is registered here now. */
	for (uint64_t addr = start; (r = range_from(c, addr)) && r->start < end;) {
		uint64_t first = r->start > start ? r->start : start;
		uint64_t last = r->end < end ? r->end : end;

		ranges_remove(c, first, last);
		if (ranges_add(c, to + (first - start), to + (last - start)))
			break;
		addr = last;
	}
}

static void follow_remap(struct client *c, uint64_t from, uint64_t to, uint64_t len)
{
	uint64_t next;
	bool here;

	/* While the second is waited for, a batch may begin in the first. */
	do {
		wait_for_batch(c, from, from + len);
		wait_for_batch(c, to, to + len);
	} while (batch_covers(c, from, from + len));
	set_aside(c, to, to + len);
	for (unsigned int i = 0; i < MAX_SERVERS; i++)
		if (c->busy[i].start < to + len && c->busy[i].end > to)
			c->busy[i].moved = true;
	for (uint64_t addr = from; addr < from + len; addr = next) {
		uint64_t there = to + (addr - from);

		next = vacated_part(&c->vacated, addr, from + len, &here);
		if (!here) {
			moved(c, addr, next, there);
			continue;
		}
		told(c, addr, next, &there);
		/* It was listed, where it was; if it cannot be here, the next look does it. */
		(void)ranges_add(c, there, there + (next - addr));
	}
	/* UNMAP is to come, but for MREMAP_DONTUNMAP. */
	for (uint64_t addr = from; addr < from + len; addr = next) {
		next = vacated_part(&c->unmapping, addr, from + len, &here);
		if (!here && vacated_add(&c->unmapping, addr, next))
			event_no_memory(c);
	}
	moved_into_drop(c, to, to + len);
	wake_range(c, from, from + len);
}

static void follow_unmap(struct client *c, uint64_t start, uint64_t end)
{
	uint64_t next;
	bool here;

	for (uint64_t addr = start; addr < end; addr = next) {
		next = vacated_part(&c->vacated, addr, end, &here);
		if (here) {
			told(c, addr, next, NULL);
			continue;
		}
		next = vacated_part(&c->unmapping, addr, next, &here);
		if (here) {
			if (vacated_forget(&c->unmapping, addr, next))
				event_no_memory(c);
			continue;
		}
		client_drop_entries(c, addr, next);
		client_dropped(c, next - addr);
		ranges_remove(c, addr, next);
	}
	wake_range(c, start, end);
}

/*
 * What a fork shares grows by mere writes, which slow nobody down.  Is there less room
 * than for all of it twice?
 */
static bool sharing_is_growth(struct client *c)
{
	uint64_t anon, file;

	return (pager.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) &&
	       !client_resident(c, &anon, &file) && !reclaim_has_room(c->job->group, anon);
}

/* Was it the agent's, as is known only now?  The batch it was of is over. */
static bool was_agents(struct client *c, struct range event)
{
	for (unsigned int i = 0; i < c->nr_not_followed; i++)
		if (c->not_followed[i].start == event.start &&
		    c->not_followed[i].end == event.end) {
			c->not_followed[i] = c->not_followed[--c->nr_not_followed];
			return true;
		}
	return false;
}

static void follow(struct client *c, const struct uffd_msg *msg)
{
	uint64_t start, end;

	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
		start = msg->arg.remove.start;
		end = msg->arg.remove.end;
		count_add(&pager.count.event_remove, 1);
		wait_for_batch(c, start, end);
		if (was_agents(c, (struct range){ start, end }))
			break;
		client_drop_entries(c, start, end);
		client_dropped(c, end - start);
		if (c->shared)
			doubt_add(c, start, end, DOUBT_NS);
		break;
	case UFFD_EVENT_UNMAP:
		start = msg->arg.remove.start;
		end = msg->arg.remove.end;
		count_add(&pager.count.event_unmap, 1);
		wait_for_batch(c, start, end);
		follow_unmap(c, start, end);
		break;
	case UFFD_EVENT_REMAP:
		count_add(&pager.count.event_remap, 1);
		follow_remap(c, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
		break;
	case UFFD_EVENT_FORK:
		count_add(&pager.count.event_fork, 1);
		wait_for_batch(c, 0, ~0ULL);
		if (!client_fork(c, (int)msg->arg.fork.ufd, sharing_is_growth(c)))
			job_kill(c->job,
				 "out of memory while following a fork: killed (free memory on "
				 "this machine, or raise the limit on open files)");
		break;
	}
}

bool event_follow(struct client *c)
{
	struct uffd_msg msg;
	bool any = false;

	/* What a batch has taken is to be an entry when the order is looked for. */
	if (event_gather(c))
		wait_for_batch(c, 0, ~0ULL);
	while (event_next(c, &msg)) {
		follow(c, &msg);
		any = true;
	}
	if (any)
		__atomic_store_n(&c->shared->behind, 0, __ATOMIC_RELEASE);
	return any;
}

void event_follow_forks(struct client *c)
{
	struct uffd_msg msg;

	while (event_has_fork(c) && event_next(c, &msg))
		follow(c, &msg);
}
