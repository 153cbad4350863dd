// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Taking cold pages out of a client.
 *
 * User space cannot see accessed bits.  What works everywhere is to take a page
 * away and see whether it is missed.  A clock hand goes over the registered
 * ranges in address order; pages that came back by a fault since it last passed
 * are warm and spared once for each degree of heat, all others go, hundreds at a
 * time, for a contiguous run costs one TLB flush.  Before it looks, most times, goes what
 * came in sequence (dropbehind.h).
 *
 * A batch, step by step, and what holds when a party dies there:
 *
 *  1. Each page gets a frame and an entry, before anything moves: from here on
 *     nothing can fail for want of memory.
 *  2. The batch is published under the state lock: a fault on one of its pages
 *     waits for its end, since until then nobody knows where the page is.
 *  3. The agent moves pages out, copies them to frames, drops them, reports.
 *     Client dead: what has left it is recorded all the same, for its core dump lacks
 *     it, and given back with the windows; what has not is nobody's.  Only its agent dead,
 *     and its memory a vfork child's: the batch stays, and if for long, the job is killed.
 *     Supervisor dead: the agent kills the client; nobody ever sees the pages.
 *     A fault on a page that has got to its frame takes it back from there, and
 *     the batch does not end while that is under way.
 *  4. Pages that went are recorded in the windows, the batch is withdrawn and
 *     waiting faults look again: they find an entry, or a page that stayed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bitops.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "client.h"
#include "group.h"
#include "job.h"
#include "mapping.h"
#include "state.h"
#include "thread.h"

#define REFUSED_NS	1000000000ULL /* leave alone what could not be moved */
#define BUSY_TRIES	3
#define BEHIND_KEEP	32 /* a part so small of the memory is not gone behind yet */
#define HAND_TURNS	16
#define SCAN_REGIONS	256
#define EVENT_NS	1000000
#define SEEN_NS		100000000
#define LATE_MS		50 /* an agent that works needs some milliseconds */
#define FILES_SLICE	(16UL << 20)
#define FILES_NS	1000000000ULL /* from one round to the next */
#define FILES_URGENT_NS 100000000ULL

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

/* The place in the batch of the page at @addr, or of one beside it. */
static unsigned int batch_place(const struct batch *b, uint64_t addr)
{
	unsigned int lo = 0, hi = b->pages;

	while (hi - lo > 1) {
		unsigned int mid = (lo + hi) / 2;

		if (b->addr[mid] <= addr)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

const void *batch_bytes(const struct client *c, uint64_t addr)
{
	const struct batch *b = c->batch;
	unsigned int i = b ? batch_place(b, addr) : 0;

	/* What goes by copying is gone when all of its run is. */
	if (!b || b->addr[i] != addr || c->batch_copies || b->back[i] ||
	    __atomic_load_n(&c->shared->result[i], __ATOMIC_ACQUIRE) != PAGE_GONE)
		return NULL;
	return b->frame[i]->folio.data;
}

void batch_take(struct client *c)
{
	c->batch->takers++;
}

void batch_taken(struct client *c, uint64_t addr, bool back)
{
	struct batch *b = c->batch;

	if (back)
		b->back[batch_place(b, addr)] = true;
	if (!--b->takers)
		pthread_cond_broadcast(&c->batch_done);
}

static bool is_busy(const struct client *c, uint64_t addr)
{
	for (unsigned int i = 0; i < MAX_SERVERS; i++)
		if (addr >= c->busy[i].start && addr < c->busy[i].end)
			return true;
	return false;
}

/* Is a server about to place pages, having seen that no event is in the way? */
static bool is_copying(const struct client *c)
{
	for (unsigned int i = 0; i < MAX_SERVERS; i++)
		if (c->busy[i].copying)
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

static bool is_argument(const struct client *c, uint64_t addr)
{
	return addr >= c->arguments.start && addr < c->arguments.end;
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
			    window_get(&c->win, addr).val || is_argument(c, addr))
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
 * Those that are to go right behind, if there are any.  Also warm: what is left between
 * costs as much as what goes.
 */
static void pick_behind(struct client *c, unsigned int want)
{
	uint64_t ram = group_ram(c->job->group), reached = 0;

	if (ram > budget_limit())
		ram = budget_limit();
	while (batch->pages < want && batch->runs < BATCH_RUNS && frames_free()) {
		uint64_t walked = 0;
		struct range r;
		bool found;
		int n;

		pthread_mutex_lock(&c->state);
		c->behind.keep = ram / PAGE_SIZE_ / BEHIND_KEEP;
		/* Runs ascend.  Less than is wanted is not worth a batch. */
		found = behind_next(&c->behind, want - batch->pages, &r) && r.start >= reached;
		pthread_mutex_unlock(&c->state);
		if (!found)
			return;
		n = scan_present(c, r.start, r.end, want - batch->pages, &walked);
		if (n < 0 || walked <= r.start)
			walked = r.end;
		pthread_mutex_lock(&c->state);
		if (n > 0)
			take_cold(c, n, want, true);
		behind_went(&c->behind, c->id, walked);
		pthread_mutex_unlock(&c->state);
		reached = walked;
	}
}

/*
 * Turn the hand until @want pages are found.  Runs ascend within a batch, so it
 * ends where the hand comes round; a round that found nothing cold is followed
 * by one that takes warm pages too.
 */
static void pick(struct client *c, unsigned int want)
{
	/* A turn of the hand now and then, or what is never used again would stay for ever. */
	if (c->turns++ % HAND_TURNS)
		pick_behind(c, want);
	/* Much of it is not there any more: the hand's turn next, for small batches are slow. */
	if (batch->pages && batch->pages < want / 2)
		c->turns = 0;
	if (batch->pages)
		return;
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

	/*
	 * While an event is put by and not followed, ranges are of the past: something else
	 * may be mapped there, and not registered.
	 */
	if (c->late || event_stashed(c) || !event_drop_sure(c))
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
	sh->unsure_end = 0;
	memset(sh->result, PAGE_STAYED, batch->pages);
	memset(batch->back, 0, batch->pages * sizeof(*batch->back));
	sh->nr_runs = batch->runs;
	__atomic_and_fetch(c->gate, ~GATE_CANCEL, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->op, copies ? AGENT_EVICT_COPY : AGENT_EVICT, __ATOMIC_RELEASE);
	c->batch_copies = copies;
	c->batch = batch;
	count_add(&c->framed, batch->pages);
	pthread_mutex_unlock(&c->state);

	/* A failure is the client's end, which evict_finish() finds out. */
	send(c->sock, &msg, sizeof(msg), MSG_NOSIGNAL);
	return batch->pages;
}

/*
 * Is the agent in its MADV_DONTNEED, waiting for us to read the event?  Told by where
 * in the kernel it sleeps; where that is not to be had, by how long it takes.  When all of
 * its events seem to be read it may be about to run on, on a busy machine for long; then
 * the next is not its, and who reads it lets the program go on.
 */
static bool awaits_event(struct client *c, uint64_t since_ns)
{
	bool seen = drop_seen(&c->drop) &&
		    c->drop.number == __atomic_load_n(&c->shared->dropping, __ATOMIC_ACQUIRE);
	char path[32], where[64] = "";
	ssize_t n = 0;
	int fd = -1;

	if (!__atomic_load_n(&c->shared->dropping, __ATOMIC_ACQUIRE))
		return false;
	snprintf(path, sizeof(path), "/proc/%u/wchan", c->agent_tid);
	if (thread_of(client_pid(c), c->agent_tid))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, where, sizeof(where) - 1);
		close(fd);
	}
	if (n <= 0 || !strcmp(where, "0"))
		return now_ns() > (seen ? c->drop_ns + SEEN_NS : since_ns + EVENT_NS);
	return strstr(where, "userfaultfd");
}

/* Of several all between counts, too: the safe side is to find something mapped there. */
static void race_add(struct client *c, struct range r)
{
	if (c->race.end && c->race.start < r.start)
		r.start = c->race.start;
	if (c->race.end > r.end)
		r.end = c->race.end;
	c->race = r;
}

/* Something else that came before it: whoever waited for that goes on, and may be quick. */
static void put_by(struct client *c, const struct uffd_msg *msg)
{
	const struct range *drop = &c->drop.range;
	struct range r = { 0, 0 };

	if (msg->event == UFFD_EVENT_UNMAP)
		r = (struct range){ msg->arg.remove.start, msg->arg.remove.end };
	else if (msg->event == UFFD_EVENT_REMAP)
		r = (struct range){ msg->arg.remap.from, msg->arg.remap.from + msg->arg.remap.len };
	if (r.start < drop->end && r.end > drop->start) {
		drop_has_hole(&c->drop, r);
		race_add(c, (struct range){ r.start > drop->start ? r.start : drop->start,
					    r.end < drop->end ? r.end : drop->end });
	}
	if (msg->event != UFFD_EVENT_PAGEFAULT)
		gate_cancel(c->gate);
	event_stash(c, msg);
	servers_wake();
}

/* The first page of [start, end) that is there, at most CHUNK_PAGES of them, or @end. */
static uint64_t first_there(struct client *c, struct range r)
{
	uint64_t map[CHUNK_PAGES];
	size_t nr = (r.end - r.start) / PAGE_SIZE_;

	if (pread(c->pagemap, map, nr * 8, r.start / PAGE_SIZE_ * 8) != (ssize_t)nr * 8)
		return r.end;
	for (size_t i = 0; i < nr; i++)
		if (map[i] >> 62)
			return r.start + i * PAGE_SIZE_;
	return r.end;
}

/*
 * A REMOVE event is the agent's own, or put by with those that turned out not to be.
 * @there: see drop_is_own().
 */
static void sort_out(struct client *c, const struct uffd_msg *msg, uint64_t there)
{
	struct range event = { msg->arg.remove.start, msg->arg.remove.end };
	struct range others[DROP_EVENTS];
	unsigned int nr;
	bool own = drop_is_own(&c->drop, event, there, others, &nr);

	for (unsigned int i = 0; i < nr; i++) {
		struct uffd_msg other = *msg;

		other.arg.remove.start = others[i].start;
		other.arg.remove.end = others[i].end;
		put_by(c, &other);
	}
	if (!own)
		put_by(c, msg);
}

/* Let the agent go on that holds the gate and waits for its own event to be read. */
static void read_own_drop(struct client *c)
{
	struct agent_shared *sh = c->shared;
	struct uffd_msg msg;
	uint32_t number;
	uint64_t there;

	/* Ours too: it may have got on by itself, and let it go to a server. */
	if (!gate_trylock(c->gate, GATE_TO_COPY))
		return;
	/* Before the event is read: after, the agent goes on. */
	number = __atomic_load_n(&sh->dropping, __ATOMIC_ACQUIRE);
	if (number)
		drop_begin(&c->drop, number,
			   (struct range){ __atomic_load_n(&sh->drop_start, __ATOMIC_RELAXED),
					   __atomic_load_n(&sh->drop_end, __ATOMIC_RELAXED) });
	pthread_mutex_lock(&c->state);
	__atomic_store_n(&sh->behind, 1, __ATOMIC_RELEASE);
	/* Before, too. */
	there = first_there(c, drop_last(&c->drop));
	if (number && !is_copying(c) && read(c->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		c->drop_ns = now_ns();
		if (msg.event == UFFD_EVENT_REMOVE)
			sort_out(c, &msg, there);
		else
			put_by(c, &msg);
	}
	__atomic_store_n(&sh->behind, event_unfollowed(c), __ATOMIC_RELEASE);
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
}

enum word {
	DONE,
	DEAD,
	LATE,
};

/* Wait for the agent's word, @ms at most. */
static enum word wait_done(struct client *c, int ms)
{
	uint64_t since = now_ns(), end = since + ms * 1000000ULL;

	for (;;) {
		struct pollfd p[2] = { { .fd = c->sock, .events = POLLIN },
				       { .fd = c->batch_copies ? c->uffd : -1, .events = POLLIN } };
		struct wire_msg msg;
		ssize_t n;

		n = poll(p, 2, ms);
		if (n > 0 && !p[0].revents) {
			if (awaits_event(c, c->late ? c->late_ns : since))
				read_own_drop(c);
			else if (now_ns() >= end)
				return client_gone(c) ? DEAD : LATE;
			else
				sched_yield();
			continue;
		}
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
		/* What it had done is not known, and may be another's still, see client_linger(). */
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return client_gone(c) ? DEAD : LATE;
	}
}

static void is_late(struct client *c)
{
	client_get(c);
	c->late = true;
	c->late_ns = now_ns();
	late[nr_late++] = c;
}

/* Have the agent do @op to the @nr runs of the control block.  True: it did. */
static bool advise(struct client *c, enum agent_op op, unsigned int nr)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_CMD };
	enum word word;

	c->shared->nr_runs = nr;
	__atomic_and_fetch(c->gate, ~GATE_CANCEL, __ATOMIC_RELAXED);
	__atomic_store_n(&c->shared->op, op, __ATOMIC_RELEASE);
	if (send(c->sock, &msg, sizeof(msg), MSG_NOSIGNAL) != sizeof(msg))
		return false;
	word = wait_done(c, LATE_MS);
	if (word == LATE)
		is_late(c);
	return word == DONE;
}

/*
 * Pages a fork has shared stay shared until they are written; the next batch can
 * have them once they were.  What is busy even then is in use by a device: left
 * alone for a while.
 */
static void unshare_busy(struct client *c, const struct range *busy, unsigned int nr)
{
	struct agent_shared *sh = c->shared;
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
	if (n)
		advise(c, AGENT_POPULATE, n);
}

/*
 * The agent's last drop went over what the program has unmapped by then: which events of
 * it were put by for the program's?  False: that cannot be told.  State lock held.
 */
static bool sort_out_hole(struct client *c)
{
	uint32_t hole = __atomic_load_n(&c->shared->hole, __ATOMIC_RELAXED);

	if (c->drop.unsure)
		return false;
	/* One whose events nobody had to read met nothing. */
	if (!hole || hole != c->drop.number)
		return true;
	c->drop.number = 0;
	return drop_over_hole(&c->drop, c->not_followed, &c->nr_not_followed);
}

/* Record what became of the batch.  Returns pages gone. */
static unsigned int settle_batch(struct client *c, bool alive)
{
	static struct range busy[BATCH_RUNS];
	struct agent_shared *sh = c->shared;
	unsigned int gone = 0, nr_busy = 0;
	bool told;

	batch = c->own_batch;
	pthread_mutex_lock(&c->state);
	told = !c->batch_copies || sort_out_hole(c);
	if (c->batch_copies && sh->unsure_end)
		c->unsure = (struct range){ sh->unsure_start, sh->unsure_end };
	/* They hold the gate shared, so this is not long, and no event waits for us meanwhile. */
	while (batch->takers)
		pthread_cond_wait(&c->batch_done, &c->state);
	for (unsigned int i = 0; i < batch->pages; i++) {
		struct frame *frame = batch->frame[i];
		uint64_t addr = batch->addr[i];

		if (batch->back[i]) {
			drop_page(i);
			continue;
		}
		if (sh->result[i] == PAGE_GONE) {
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

	if (__atomic_load_n(&sh->forbidden, __ATOMIC_RELAXED))
		job_kill(c->job,
			 "a seccomp filter forbids all threads of the program what it takes to "
			 "page it: killed (run it without vswap, or without its sandbox)");
	if (!told)
		job_kill(c->job, "memory was unmapped while it was being evicted, and it cannot be "
				 "told what of the rest was dropped: killed (start the program "
				 "again)");
	else if (c->race.end && !client_gone(c))
		event_drop_race(c, c->race.start, c->race.end);
	c->race = (struct range){ 0 };
	if (alive && nr_busy)
		unshare_busy(c, busy, nr_busy);
	count_add(&pager.count.pgsteal, gone);
	count_add(c->batch_copies ? &pager.count.evict_copy : &pager.count.evict_move, gone);
	group_count(c->job->group, GROUP_PGSTEAL, gone);
	client_charge(c, -(int64_t)gone * (int64_t)PAGE_SIZE_);
	/* What is moved is its own alone; what is copied need not be. */
	if (c->batch_copies)
		client_gave(c, gone * PAGE_SIZE_);
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

/* A slice of what is mapped of files, from the hand on. */
struct slice {
	struct client *client;
	uint64_t start, bytes;
	unsigned int nr;
};

static bool add_to_slice(void *arg, const struct mapping *m)
{
	struct slice *s = arg;
	uint64_t start = m->start > s->start ? m->start : s->start;
	uint64_t pages;

	/* Not written by the program: no write of ours to a disk then, and no swap of the kernel's. */
	if (m->end <= start || m->perms[0] != 'r' || m->perms[1] == 'w' || *m->name != '/' ||
	    !m->inode || !strncmp(m->name, "/dev/", 5) || !strncmp(m->name, "/memfd:", 7))
		return true;
	if (s->bytes >= FILES_SLICE || s->nr == BATCH_RUNS)
		return false;
	pages = (m->end - start) / PAGE_SIZE_;
	if (pages > FILES_SLICE / PAGE_SIZE_)
		pages = FILES_SLICE / PAGE_SIZE_;
	s->client->shared->run[s->nr++] = (struct agent_run){ start, pages, 0 };
	s->bytes += pages * PAGE_SIZE_;
	s->client->files_hand = start + pages * PAGE_SIZE_;
	return true;
}

uint64_t evict_files(struct client *c, bool urgent)
{
	struct slice s = { .client = c, .start = c->files_hand };
	uint64_t anon, before, after;

	if (c->late || now_ns() < c->files_ns + (urgent ? FILES_URGENT_NS : FILES_NS) ||
	    client_resident(c, &anon, &before))
		return 0;
	mappings_walk(c->maps, add_to_slice, &s);
	/* Nothing after the hand: that was all of it, for a while. */
	if (!s.nr) {
		c->files_hand = 0;
		c->files_ns = now_ns();
		return 0;
	}
	if (!advise(c, AGENT_PAGEOUT, s.nr) || client_resident(c, &anon, &after) || after >= before)
		return 0;
	count_add(&pager.count.pgsteal_file, (before - after) / PAGE_SIZE_);
	budget_charge(c->job->group, -(int64_t)(before - after));
	return before - after;
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

bool evict_undo(struct frame *frame, unsigned int heat)
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
	/*
	 * Whoever has it may wait for a batch to end, and it is us who end those: there
	 * is no waiting here.
	 */
	if (!gate_trylock(c->gate, GATE_TO_COPY)) {
		client_put(c);
		return false;
	}
	pthread_mutex_lock(&c->state);
	if (window_get(&c->win, frame->addr).val == folio->entry.val && !is_busy(c, frame->addr) &&
	    !event_unfollowed(c) && !ioctl(c->uffd, UFFDIO_COPY, &copy)) {
		window_clear(&c->win, frame->addr, heat);
		back = true;
	}
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
	if (back) {
		swap_free_range(pager.space, folio->entry, 1);
		client_charge(c, PAGE_SIZE_);
	}
	client_put(c);
	return back;
}
