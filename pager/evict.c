// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Taking cold pages out of a client.
 *
 * User space cannot see accessed bits.  What works everywhere is to take a page
 * away and see whether it is missed.  A clock hand goes over the registered
 * ranges in address order; pages that came back by a fault since it last passed
 * are warm and spared once for each degree of heat, all others go, hundreds at a
 * time, for a contiguous run costs one TLB flush.
 *
 * A batch, step by step, and what holds when a party dies there:
 *
 *  1. Each page gets a frame and an entry, before anything moves: from here on
 *     nothing can fail for want of memory.
 *  2. The batch is published under the state lock: a fault on one of its pages
 *     waits for its end, since until then nobody knows where the page is.
 *  3. The agent moves pages out, copies them to frames, drops them, reports.
 *     Client dead: its pages are nobody's; frames and entries are given back.
 *     Supervisor dead: the agent kills the client; nobody ever sees the pages.
 *  4. Pages that went are recorded in the windows, the batch is withdrawn and
 *     waiting faults look again: they find an entry, or a page that stayed.
 */
#include <errno.h>
#include <linux/bitops.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "client.h"
#include "group.h"
#include "job.h"
#include "state.h"

#define REFUSED_NS   1000000000ULL /* leave alone what could not be moved */
#define BUSY_TRIES   3
#define SCAN_REGIONS 256
#define LATE_MS	     50 /* an agent that works needs some milliseconds */

/*
 * Only reclaim's thread evicts, and waits for one client at a time; not long, for
 * a process may be stopped.  A batch whose agent does not answer stays with its
 * client, and is looked after from time to time (late).
 */
static struct batch *batch; /* of the client in hand */
static struct page_region regions[SCAN_REGIONS];
static struct client *late[MAX_CLIENTS]; /* each with a reference */
static unsigned int nr_late;

bool batch_covers(const struct client *c, uint64_t start, uint64_t end)
{
	const struct batch *b = c->batch;
	unsigned int lo = 0, hi;

	if (!b || !b->runs || end <= b->run[0].start || start >= b->run[b->runs - 1].end)
		return false;
	for (hi = b->runs; lo < hi;) {
		unsigned int mid = (lo + hi) / 2;

		if (b->run[mid].end <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < b->runs && b->run[lo].start < end;
}

static bool is_busy(const struct client *c, uint64_t addr)
{
	for (unsigned int i = 0; i < MAX_SERVERS; i++)
		if (addr >= c->busy[i].start && addr < c->busy[i].end)
			return true;
	return false;
}

/*
 * Present pages of [start, end) into regions[].  Returns the number of regions
 * and where the walk ended, or -errno.
 */
static int scan_present(struct client *c, uint64_t start, uint64_t end, unsigned int max_pages,
			uint64_t *walked)
{
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = start,
		.end = end,
		.vec = (uint64_t)regions,
		.vec_len = SCAN_REGIONS,
		.max_pages = max_pages,
		.category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_PRESENT,
	};
	int n = ioctl(c->pagemap, PAGEMAP_SCAN, &scan);

	if (n < 0 && errno == ENOTTY) {
		/* Before 6.7: eight bytes a page, top bit present, bit 61 a file's. */
		uint64_t map[SCAN_REGIONS];
		uint64_t pages = (end - start) / PAGE_SIZE_;
		ssize_t got;

		if (pages > SCAN_REGIONS)
			pages = SCAN_REGIONS;
		got = pread(c->pagemap, map, pages * 8, start / PAGE_SIZE_ * 8);
		if (got < 8)
			return got < 0 ? -errno : -ESRCH;
		pages = got / 8;
		n = 0;
		for (uint64_t i = 0; i < pages; i++)
			if ((map[i] >> 63) && !((map[i] >> 61) & 1))
				regions[n++] = (struct page_region){
					.start = start + i * PAGE_SIZE_,
					.end = start + (i + 1) * PAGE_SIZE_,
				};
		*walked = start + pages * PAGE_SIZE_;
		return n;
	}
	if (n < 0)
		return -errno;
	*walked = scan.walk_end;
	return n;
}

static void take_page(struct client *c, uint64_t addr, struct frame *frame)
{
	struct range *last = batch->runs ? &batch->run[batch->runs - 1] : NULL;

	frame->client = c->id;
	frame->addr = addr;
	batch->addr[batch->pages] = addr;
	batch->frame[batch->pages++] = frame;
	if (last && last->end == addr)
		last->end += PAGE_SIZE_;
	else
		batch->run[batch->runs++] = (struct range){ addr, addr + PAGE_SIZE_ };
}

/* From the present pages found, those that may and should go.  State lock held. */
static void take_cold(struct client *c, int nr_regions, unsigned int want, bool force)
{
	for (int i = 0; i < nr_regions; i++)
		for (uint64_t addr = regions[i].start; addr < regions[i].end; addr += PAGE_SIZE_) {
			struct range *r = range_from(c, addr);
			struct frame *frame;
			unsigned int heat;

			if (batch->pages == want || batch->runs == BATCH_RUNS)
				return;
			/* Checked anew: the scan was without the lock. */
			if (!r || addr < r->start || is_busy(c, addr) || doubtful(c, addr) ||
			    window_get(&c->win, addr).val)
				continue;
			heat = window_heat(&c->win, addr);
			if (heat && !force) {
				window_set_heat(&c->win, addr, heat - 1);
				continue;
			}
			frame = frame_alloc(c->job->group);
			if (!frame)
				return;
			take_page(c, addr, frame);
		}
}

/* Move the hand on to the end of the ranges, or until @want pages are found. */
static void sweep(struct client *c, unsigned int want, bool force)
{
	while (batch->pages < want && batch->runs < BATCH_RUNS && frames_free()) {
		struct range *r;
		uint64_t start = 0, end = 0, walked = 0;
		int n;

		pthread_mutex_lock(&c->state);
		r = range_from(c, c->hand);
		if (r) {
			start = c->hand > r->start ? c->hand : r->start;
			end = r->end;
		}
		pthread_mutex_unlock(&c->state);
		if (!r)
			return;
		n = scan_present(c, start, end, want - batch->pages, &walked);
		if (n < 0)
			return;
		pthread_mutex_lock(&c->state);
		take_cold(c, n, want, force);
		pthread_mutex_unlock(&c->state);
		c->hand = walked > start ? walked : end;
	}
}

/*
 * Turn the hand until @want pages are found.  Runs ascend within a batch, so it
 * ends where the hand comes round; a round that found nothing cold is followed
 * by one that takes warm pages too.
 */
static void pick(struct client *c, unsigned int want)
{
	sweep(c, want, false);
	for (int round = 0; round < 2 && !batch->pages; round++) {
		c->hand = 0;
		sweep(c, want, round == 1);
	}
}

static void give_back(struct frame *frame)
{
	swap_folio_unlock(&frame->folio);
	swap_folio_put(&frame->folio);
}

/* Entries for all frames of the batch; drops pages it has none for. */
static void give_entries(struct client *c)
{
	struct swap_folio *folio[BATCH_PAGES];
	unsigned int done;

	for (unsigned int i = 0; i < batch->pages; i++) {
		folio[i] = &batch->frame[i]->folio;
		swap_folio_lock(folio[i]);
	}
	done = folios_alloc_swap(pager.space, c->job->group->swap, folio, batch->pages);
	if (done == batch->pages)
		return;
	for (unsigned int i = done; i < batch->pages; i++)
		give_back(batch->frame[i]);
	batch->pages = done;
	batch->runs = 0;
	for (unsigned int i = 0, n = done; i < n; i++) {
		batch->pages = i;
		take_page(c, batch->addr[i], batch->frame[i]);
	}
}

static void drop_page(unsigned int i)
{
	struct swap_folio *folio = &batch->frame[i]->folio;

	swap_free_range(pager.space, folio->entry, 1);
	folio_free_swap(pager.space, folio);
	give_back(batch->frame[i]);
}

/* To be tried once more, by copying.  State lock held. */
static void copy_refused(struct client *c, uint64_t addr)
{
	struct range *last;

	if (!c->copy)
		c->copy = calloc(MAX_COPIES, sizeof(*c->copy));
	last = c->nr_copy ? &c->copy[c->nr_copy - 1] : NULL;
	if (last && last->end == addr)
		last->end += PAGE_SIZE_;
	else if (c->copy && c->nr_copy < MAX_COPIES)
		c->copy[c->nr_copy++] = (struct range){ addr, addr + PAGE_SIZE_ };
	/* Else the hand finds it again. */
}

/* Up to @want pages of those into the batch.  True: it is a batch to be copied. */
static bool pick_copies(struct client *c, unsigned int want)
{
	pthread_mutex_lock(&c->state);
	while (c->nr_copy && batch->pages < want) {
		struct range *r = &c->copy[c->nr_copy - 1];
		struct frame *frame;

		/* Runs ascend: one range a batch. */
		if (batch->pages && r->start != batch->run[0].end)
			break;
		frame = frame_alloc(c->job->group);
		if (!frame)
			break;
		take_page(c, r->start, frame);
		r->start += PAGE_SIZE_;
		if (r->start == r->end) {
			c->nr_copy--;
			break;
		}
	}
	pthread_mutex_unlock(&c->state);
	return batch->pages;
}

unsigned int evict_start(struct client *c, unsigned int want)
{
	struct agent_shared *sh = c->shared;
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_CMD };
	unsigned int first = 0;
	bool copies;

	if (c->late)
		return 0;
	if (!c->own_batch)
		c->own_batch = calloc(1, sizeof(*c->own_batch));
	batch = c->own_batch;
	if (!batch)
		return 0;
	batch->pages = batch->runs = 0;
	copies = pick_copies(c, want);
	if (!copies)
		pick(c, want);
	copies |= c->copy_mode;
	if (!batch->pages)
		return 0;
	give_entries(c);
	if (!batch->pages)
		return 0;

	/*
	 * Between the choice and here an event may have been followed, and a
	 * fault may have begun on one of the pages: look again as it is
	 * published.  What is not to go is left out as a hole in result[].
	 */
	pthread_mutex_lock(&c->state);
	for (unsigned int i = 0; i < batch->pages; i++) {
		struct range *r = range_from(c, batch->addr[i]);
		uint64_t addr = batch->addr[i];

		if (!r || addr < r->start || is_busy(c, addr) || doubtful(c, addr) ||
		    window_get(&c->win, addr).val)
			drop_page(i);
		else {
			batch->addr[first] = addr;
			batch->frame[first++] = batch->frame[i];
		}
	}
	batch->pages = 0;
	batch->runs = 0;
	for (unsigned int i = 0; i < first; i++)
		take_page(c, batch->addr[i], batch->frame[i]);
	if (!batch->pages) {
		pthread_mutex_unlock(&c->state);
		return 0;
	}
	first = 0;
	for (unsigned int i = 0; i < batch->runs; i++) {
		unsigned int pages = (batch->run[i].end - batch->run[i].start) / PAGE_SIZE_;

		sh->run[i] = (struct agent_run){ batch->run[i].start, pages, first };
		first += pages;
	}
	for (unsigned int i = 0; i < batch->pages; i++)
		sh->frame[i] = frame_number(batch->frame[i]);
	memset(sh->result, PAGE_STAYED, batch->pages);
	sh->nr_runs = batch->runs;
	__atomic_and_fetch(c->gate, ~GATE_CANCEL, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->op, copies ? AGENT_EVICT_COPY : AGENT_EVICT, __ATOMIC_RELEASE);
	c->batch_copies = copies;
	c->batch = batch;
	pthread_mutex_unlock(&c->state);

	/* A failure is the client's end, which evict_finish() finds out. */
	send(c->sock, &msg, sizeof(msg), MSG_NOSIGNAL);
	return batch->pages;
}

enum word {
	DONE,
	DEAD,
	LATE,
};

/* Wait for the agent's word, @ms at most. */
static enum word wait_done(struct client *c, int ms)
{
	uint64_t end = now_ns() + ms * 1000000ULL;

	for (;;) {
		struct pollfd p = { .fd = c->sock, .events = POLLIN };
		struct wire_msg msg;
		ssize_t n;

		n = poll(&p, 1, ms);
		if (n < 0 && errno != EINTR)
			return DEAD;
		if (n <= 0) {
			if (client_is_dead(c))
				return DEAD;
			if (now_ns() >= end)
				return LATE;
			continue;
		}
		n = recv(c->sock, &msg, sizeof(msg), MSG_DONTWAIT);
		if (n == sizeof(msg) && msg.magic == WIRE_MAGIC && msg.type == WIRE_DONE)
			return DONE;
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return DEAD;
	}
}

static void is_late(struct client *c)
{
	client_get(c);
	c->late = true;
	c->late_ns = now_ns();
	late[nr_late++] = c;
}

/*
 * Pages a fork has shared stay shared until they are written; the next batch can
 * have them once they were.  What is busy even then is in use by a device: left
 * alone for a while.
 */
static void unshare_busy(struct client *c, const struct range *busy, unsigned int nr)
{
	struct agent_shared *sh = c->shared;
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_CMD };
	unsigned int n = 0;

	/* Another fork may come between; a device keeps its pages longer than that. */
	c->busy_again = busy[0].start < c->populated ? c->busy_again + 1 : 0;
	c->populated = busy[nr - 1].end;
	pthread_mutex_lock(&c->state);
	for (unsigned int i = 0; i < nr; i++)
		if (c->busy_again > BUSY_TRIES)
			doubt_add(c, busy[i].start, busy[i].end, REFUSED_NS);
		else
			sh->run[n++] =
				(struct agent_run){ busy[i].start,
						    (busy[i].end - busy[i].start) / PAGE_SIZE_, 0 };
	if (n)
		c->hand = busy[0].start;
	else
		c->busy_again = 0;
	pthread_mutex_unlock(&c->state);
	if (!n)
		return;
	sh->nr_runs = n;
	__atomic_and_fetch(c->gate, ~GATE_CANCEL, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->op, AGENT_POPULATE, __ATOMIC_RELEASE);
	if (send(c->sock, &msg, sizeof(msg), MSG_NOSIGNAL) == sizeof(msg) &&
	    wait_done(c, LATE_MS) == LATE)
		is_late(c);
}

/* Record what became of the batch.  Returns pages gone. */
static unsigned int settle_batch(struct client *c, bool alive)
{
	static struct range busy[BATCH_RUNS];
	struct agent_shared *sh = c->shared;
	unsigned int gone = 0, nr_busy = 0;

	batch = c->own_batch;
	pthread_mutex_lock(&c->state);
	for (unsigned int i = 0; i < batch->pages; i++) {
		struct frame *frame = batch->frame[i];
		uint64_t addr = batch->addr[i];

		if (alive && sh->result[i] == PAGE_GONE) {
			if (window_set(&c->win, addr, frame->folio.entry))
				job_kill(c->job,
					 "out of memory for the table of swapped out pages: killed "
					 "(free memory on this machine)");
			set_bit(SWAP_FOLIO_UPTODATE, &frame->folio.flags);
			set_bit(SWAP_FOLIO_DIRTY, &frame->folio.flags);
			frame_queue(frame);
			swap_folio_unlock(&frame->folio);
			gone++;
			continue;
		}
		if (alive && sh->result[i] == PAGE_BUSY) {
			count_add(&pager.count.evict_busy, 1);
			if (nr_busy && busy[nr_busy - 1].end == addr)
				busy[nr_busy - 1].end += PAGE_SIZE_;
			else
				busy[nr_busy++] = (struct range){ addr, addr + PAGE_SIZE_ };
		} else if (alive && sh->result[i] == PAGE_REFUSED) {
			if (c->batch_copies || !(pager.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
				doubt_add(c, addr, addr + PAGE_SIZE_, REFUSED_NS);
			else
				copy_refused(c, addr);
		}
		drop_page(i);
	}
	c->batch = NULL;
	pthread_cond_broadcast(&c->batch_done);
	if (c->waiting_batch) {
		c->waiting_batch = 0;
		servers_wake();
	}
	pthread_mutex_unlock(&c->state);

	if (alive && nr_busy)
		unshare_busy(c, busy, nr_busy);
	count_add(&pager.count.pgsteal, gone);
	count_add(c->batch_copies ? &pager.count.evict_copy : &pager.count.evict_move, gone);
	group_count(c->job->group, GROUP_PGSTEAL, gone);
	budget_charge(c->job->group, -(int64_t)gone * (int64_t)PAGE_SIZE_);
	return gone;
}

unsigned int evict_finish(struct client *c)
{
	enum word word = wait_done(c, LATE_MS);

	if (word == LATE) {
		is_late(c);
		return 0;
	}
	return settle_batch(c, word == DONE);
}

unsigned int evict_late(bool give_up)
{
	unsigned int gone = 0, nr = nr_late;
	struct client *list[MAX_CLIENTS];

	memcpy(list, late, nr * sizeof(*list));
	nr_late = 0;
	for (unsigned int i = 0; i < nr; i++) {
		struct client *c = list[i];
		enum word word = wait_done(c, 0);

		if (word == LATE && !give_up) {
			late[nr_late++] = c;
			continue;
		}
		c->late = false;
		/* Without a batch, it was told to make pages its own. */
		if (c->batch)
			gone += settle_batch(c, word == DONE);
		client_put(c);
	}
	return gone;
}

bool evict_undo(struct frame *frame)
{
	struct client *c = client_find(frame->client);
	struct swap_folio *folio = &frame->folio;
	struct uffdio_copy copy = {
		.dst = frame->addr,
		.src = (uint64_t)folio->data,
		.len = PAGE_SIZE_,
	};
	bool back = false;

	if (!c)
		return false;
	if (!client_gate(c, GATE_TO_COPY)) {
		client_put(c);
		return false;
	}
	pthread_mutex_lock(&c->state);
	if (window_get(&c->win, frame->addr).val == folio->entry.val && !is_busy(c, frame->addr) &&
	    !ioctl(c->uffd, UFFDIO_COPY, &copy)) {
		window_clear(&c->win, frame->addr, HEAT_MAX);
		back = true;
	}
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
	if (back) {
		swap_free_range(pager.space, folio->entry, 1);
		budget_charge(c->job->group, PAGE_SIZE_);
	}
	client_put(c);
	return back;
}
