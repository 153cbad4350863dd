// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reclaim: keeping the budget, ahead of need.
 *
 * One thread watches what is used.  Far from the limit it only looks, the less
 * often the more room there is.  Near the limit it registers the program's
 * memory, and whatever the program maps from then on, so that growth comes by
 * faults, which wait when there is no room.  A second thread keeps a little room
 * free: pages are moved to frames, the oldest frames are compressed while the
 * agent moves the next batch.  A third writes the pool's oldest contents to a
 * tier long before the pool is full.  A fourth weighs what processes share.
 *
 * Each group with a limit of its own is kept to it in the same way as the space
 * is, and whoever is to give is found by share (group_victim()).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bitops.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "budget.h"
#include "client.h"
#include "group.h"
#include "job.h"
#include "lock.h"
#include "state.h"

#define MS	       1000000ULL
#define TOUCH_BYTES_MS (3ULL << 20) /* a thread touches new memory no faster */
#define REGISTER_MS    12	    /* may take so long, see register_mark() */
#define TURN_MS	       4	    /* ... and so much longer for each that wants a CPU */
#define CHILD_MS       16	    /* a forked child may be without an agent so long */
#define RATE_FADES     8
#define WRITEOUT_BATCH 64
#define SPARED_TIMES   2
#define SPARED_MASK    3U
#define SPARED_MOST    16384	     /* tried in vain, some 20 us each */
#define EARLY_MAX      (16ULL << 20) /* see register_mark() */
#define STUCK_MS       10000
#define STOPPED_MS     2000
#define STUCK_FAULTS   256		   /* so few let in meanwhile are none */
#define STUCK_PUT      (STUCK_FAULTS * 16) /* pages: with what is read around each */
#define FULL_MS	       3000		   /* looked at for that long before the user is told */
#define HUNGRY_MS      50		   /* a fault that waits is looked at far more often */
#define STUCK_BYTES    (64 << 10)	   /* less is noise */
#define STUCK_GROWTH   64		   /* a part so small of the limit, too */
#define STALLED_MS     500

static struct {
	pthread_t watcher, thread, writer, weigher;
	pthread_mutex_t lock;
	pthread_cond_t wake, write, watch, weigh;
	bool woken, write_woken, weigh_woken;
	bool watching;	   /* the watcher is up */
	bool tight;	   /* atomic; a group is near its limit */
	uint64_t rate;	   /* bytes used grow by in a millisecond, fading; the watcher's */
	uint64_t rate_ns;  /* when last looked at */
	uint64_t takes_ms; /* registering, see register_mark(); the watcher's */
	uint64_t rate_used;
	unsigned int undone; /* pages put back since the round began: no progress */
	uint64_t goal;	     /* atomic; 0: none */
	uint64_t pool_limit; /* atomic */
} reclaim = {
	.wake = PTHREAD_COND_INITIALIZER,
	.write = PTHREAD_COND_INITIALIZER,
	.watch = PTHREAD_COND_INITIALIZER,
	.weigh = PTHREAD_COND_INITIALIZER,
};

void reclaim_init(void)
{
	lock_init(&reclaim.lock);
}

static void ring(pthread_cond_t *cond, bool *woken)
{
	/* An unlocked look keeps the fault path off this lock most of the time. */
	if (__atomic_load_n(woken, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&reclaim.lock);
	__atomic_store_n(woken, true, __ATOMIC_RELAXED);
	pthread_cond_signal(cond);
	pthread_mutex_unlock(&reclaim.lock);
}

void reclaim_wake(void)
{
	ring(&reclaim.wake, &reclaim.woken);
}

void reclaim_weigh(void)
{
	ring(&reclaim.weigh, &reclaim.weigh_woken);
}

/* Until @cond is signalled with *woken set (then true is returned), the end, or @ms are over. */
static bool sleep_ms(pthread_cond_t *cond, bool *woken, uint64_t ms)
{
	struct timespec ts;
	bool rung = false;

	/* Not the time of day, which may be set back. */
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += (ms % 1000) * 1000000L;
	ts.tv_sec += ms / 1000 + ts.tv_nsec / 1000000000L;
	ts.tv_nsec %= 1000000000L;
	pthread_mutex_lock(&reclaim.lock);
	while (!(woken && *woken) && !pager_stopping())
		if (pthread_cond_clockwait(cond, &reclaim.lock, CLOCK_MONOTONIC, &ts) == ETIMEDOUT)
			break;
	if (woken) {
		rung = *woken;
		__atomic_store_n(woken, false, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&reclaim.lock);
	return rung;
}

/* Reclaim of a group, or of the space, begins above the high mark and ends below the low one. */
static uint64_t slack(uint64_t limit)
{
	return limit / 48 > 1 << 20 ? limit / 48 : 1 << 20;
}

/* A goal is for all of the space. */
static uint64_t with_goal(uint64_t mark)
{
	uint64_t goal = count_read(&reclaim.goal);

	return goal && goal < mark ? goal : mark;
}

static uint64_t high_mark(const struct group *g)
{
	uint64_t limit = group_ram(g);
	uint64_t high = limit == GROUP_NO_LIMIT ? limit : limit - slack(limit);

	return g == group_root() ? with_goal(high) : high;
}

uint64_t reclaim_low_mark(uint64_t limit)
{
	return limit - 2 * slack(limit);
}

static uint64_t low_mark(const struct group *g)
{
	uint64_t limit = group_ram(g);
	uint64_t low = limit == GROUP_NO_LIMIT ? limit : reclaim_low_mark(limit);

	return g == group_root() ? with_goal(low) : low;
}

/*
 * From here on growth is to come by faults: early enough that a program which touches
 * new memory as fast as it can is not far above its limit when the look at it comes late.
 *
 * To register a mapping is to wait until no fault is under way in it.  A thread that lost
 * its CPU in the midst of one has us wait for its next turn, a few milliseconds for each
 * that is before it, while others go on touching their memory: so who grows fast is
 * registered earlier, the earlier the more there are who want a CPU.
 */
static uint64_t register_mark(const struct group *g)
{
	uint64_t low = low_mark(g), early = group_ram(g) / 8;

	if (low == GROUP_NO_LIMIT)
		return low;
	if (early > EARLY_MAX)
		early = EARLY_MAX;
	if (early < reclaim.rate * reclaim.takes_ms)
		early = reclaim.rate * reclaim.takes_ms;
	return low > early ? low - early : 0;
}

static void measure_growth(uint64_t used, uint64_t now)
{
	uint64_t grown = used > reclaim.rate_used ? used - reclaim.rate_used : 0;
	uint64_t rate = grown * MS / (now - reclaim.rate_ns + 1);

	/* It does not grow while faults wait for room: not for that to be forgotten at once. */
	reclaim.rate -= reclaim.rate / RATE_FADES;
	if (reclaim.rate < rate)
		reclaim.rate = rate;
	reclaim.rate_ns = now;
	reclaim.rate_used = used;
}

/* How long registering may take, by how many threads want one of the CPUs. */
static void measure_turns(int loadavg, unsigned int cpus)
{
	unsigned int running = 0;
	char buf[64];
	ssize_t n = pread(loadavg, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = 0;
	/* Not to be had: as if there were none. */
	sscanf(buf, "%*s %*s %*s %u/", &running);
	reclaim.takes_ms = REGISTER_MS + TURN_MS * running / cpus;
}

static bool has_tier(void)
{
	return __atomic_load_n(&pager.has_tier, __ATOMIC_RELAXED);
}

static uint64_t pool_limit(void)
{
	return count_read(&reclaim.pool_limit);
}

void reclaim_set_goal(uint64_t goal)
{
	__atomic_store_n(&reclaim.goal, goal, __ATOMIC_RELAXED);
	if (goal)
		reclaim_wake();
}

/*
 * Where there is a tier the pool leaves half to what is in use all the time: a program that
 * goes over more than the rest again and again loses more by that than a disk costs.
 */
uint64_t reclaim_pool_most(uint64_t ram)
{
	return ram - ram / (has_tier() ? 2 : 8);
}

uint64_t reclaim_pool_excess(uint64_t pool, uint64_t limit)
{
	return pool > limit - limit / 32 ? pool - (limit - limit / 12) : 0;
}

bool reclaim_pool_full(uint64_t pool, uint64_t limit)
{
	return pool > limit - limit / 8;
}

static void writer_wake(void)
{
	if (has_tier())
		ring(&reclaim.write, &reclaim.write_woken);
}

/* Did faults wait for it to be less, just now? */
static bool is_hungry(const struct group *g)
{
	return now_ns() < count_read(&g->hungry_ns) + HUNGRY_MS * MS;
}

/* Is reclaim well ahead of what comes in? */
static bool has_time(const struct group *g)
{
	uint64_t limit = group_ram(g);

	return limit == GROUP_NO_LIMIT ||
	       (group_used(g) < limit - slack(limit) / 2 && !is_hungry(g));
}

/*
 * How often the page was spared lately.  Forgotten when another takes its place, of which
 * there are twice as many as may be spared without anything else compressing.
 */
static uint32_t *spared_place(const struct frame *frame, uint32_t *tag)
{
	static uint32_t place[2 * SPARED_MOST];
	uint64_t hash = (frame->addr / PAGE_SIZE_ ^ frame->client << 40) * HASH_GOLDEN;

	*tag = (uint32_t)(hash >> 16) & ~SPARED_MASK;
	return &place[(hash >> 48) % (2 * SPARED_MOST)];
}

static unsigned int times_spared(const struct frame *frame)
{
	uint32_t tag, *place = spared_place(frame, &tag);

	return (*place & ~SPARED_MASK) == tag ? *place & SPARED_MASK : 0;
}

static void set_times_spared(const struct frame *frame, unsigned int times)
{
	uint32_t tag, *place = spared_place(frame, &tag);

	*place = tag | times;
}

/*
 * A page that does not compress goes to a tier, from where it comes back several times as
 * slowly as from the pool; and pages that do compress could go in its place.  So it is put
 * back the first times.  Not many more of them than what did compress, for a program that
 * has nothing else is to have room, too; and none while more comes in than goes.
 */
static bool may_spare(const struct frame *frame, unsigned int already)
{
	const struct group *g = frame->group;
	uint64_t most = budget_limit() / PAGE_SIZE_ / 2;

	return g->spared + already < (most < SPARED_MOST ? most : SPARED_MOST) &&
	       times_spared(frame) < SPARED_TIMES && (!g->parent || has_time(g));
}

/* Back into its program: no store would have it, or it is spared a tier. */
static bool undo(struct frame *frame)
{
	bool spare = swap_folio_test(&frame->folio, SWAP_FOLIO_ACTIVATE);
	bool back = evict_undo(frame, spare ? 0 : HEAT_MAX);

	if (spare) {
		/* If the program was busy, it goes to a tier the next time. */
		set_times_spared(frame, back ? times_spared(frame) + 1 : SPARED_TIMES);
		clear_bit(SWAP_FOLIO_ACTIVATE, &frame->folio.flags);
		frame->group->spared += back;
		count_add(&pager.count.evict_spared, back);
	} else {
		reclaim.undone += back;
	}
	return back;
}

/* Out of the cache, clean. */
static void is_out(struct frame *frame)
{
	vswp_entry_t entry = frame->folio.entry;
	struct group *group = frame->group;
	enum swap_where where;

	swap_cache_del_folio(pager.space, &frame->folio);
	if (!group->spared)
		return;
	where = swap_entry_where(pager.space, entry);
	if (where == SWAP_ZPOOL || where == SWAP_FILL)
		group->spared--;
}

/*
 * Compress, or else write out, the oldest frames of @group (NULL: of whichever
 * has most) until @want of them are free.  Returns frames set free.
 */
static unsigned int writeout(struct group *group, unsigned int want)
{
	unsigned int freed = 0, stuck = 0;

	while (freed < want && stuck < WRITEOUT_BATCH) {
		struct frame *frame[WRITEOUT_BATCH];
		struct swap_folio *folio[WRITEOUT_BATCH];
		bool spare = has_tier() && has_time(group_root());
		unsigned int n = 0, lent = 0;

		while (n < WRITEOUT_BATCH && freed + n < want) {
			struct frame *f = frame_dequeue(group);

			if (!f)
				break;
			if (!swap_folio_trylock(&f->folio)) {
				/* A fault has it, and forgets it when done. */
				frame_queue(f);
				stuck++;
				break;
			}
			if (!swap_folio_test(&f->folio, SWAP_FOLIO_CACHED) ||
			    folio_free_swap(pager.space, &f->folio)) {
				swap_folio_unlock(&f->folio);
				swap_folio_put(&f->folio);
				freed++;
				continue;
			}
			if (has_tier() && dropbehind_to_tier(f->client, f->addr) &&
			    group_pool_full(f->group)) {
				set_bit(SWAP_FOLIO_DROPBEHIND, &f->folio.flags);
			} else if (spare && may_spare(f, lent)) {
				set_bit(SWAP_FOLIO_ACTIVATE, &f->folio.flags);
				lent++;
			}
			frame[n] = f;
			folio[n++] = &f->folio;
		}
		if (!n)
			break;
		swap_writeout(pager.space, folio, n);
		for (unsigned int i = 0; i < n; i++) {
			bool out = !swap_folio_test(folio[i], SWAP_FOLIO_DIRTY);

			if (out)
				is_out(frame[i]);
			else
				out = folio_free_swap(pager.space, folio[i]) ||
				      (undo(frame[i]) && folio_free_swap(pager.space, folio[i]));
			if (out) {
				freed++;
				swap_folio_unlock(folio[i]);
				swap_folio_put(folio[i]);
			} else {
				/* No store would have it now: try again later. */
				stuck++;
				frame_queue(frame[i]);
				swap_folio_unlock(folio[i]);
			}
		}
	}
	return freed;
}

/* So many free frames, @group's first. */
static void make_frames(struct group *group, unsigned int want)
{
	/* Fault servers free some meanwhile. */
	unsigned int there = frames_free();

	if (there < want)
		writeout(group, want - there);
	there = frames_free();
	if (there < want)
		writeout(NULL, want - there);
}

/* Evict @pages of the clients that are @group's own.  Returns pages gone. */
static unsigned int evict_clients(struct group *group, uint64_t pages)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);
	unsigned int gone = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct client *c = list[i];
		/* No batch takes more than a part of the frames, of which there may be fewer now. */
		unsigned int most = frames_total() / 4 < pager.batch_pages ? frames_total() / 4 :
									     pager.batch_pages;
		unsigned int want = pages < most ? pages : most;

		if (c->job->group == group && client_has_agent(c) && !client_is_dead(c) &&
		    !client_lingers(c) && client_registered(c)) {
			if (want < 32)
				want = 32;
			doubts_review(c);
			make_frames(group, want);
			if (evict_start(c, want)) {
				/* While the agent works, if it does not wait for us: room for the next. */
				if (!c->batch_copies)
					make_frames(group, want);
				gone += evict_finish(c);
			}
			evict_files(c, false);
			/* A busy machine makes agents late, too, but not for so long. */
			group->stalled |= c->late && now_ns() > c->late_ns + STALLED_MS * MS;
		}
		client_put(c);
	}
	return gone;
}

/*
 * The part of the frames a group may fill: a page's rest is as long, in evictions
 * of its group, as it would be in a space of that size.
 */
static uint64_t frames_allowed(const struct group *g)
{
	unsigned int allowed = frames_total();

	for (; g->parent; g = g->parent) {
		unsigned int its = frames_for(group_ram(g));

		if (its < allowed)
			allowed = its;
	}
	return allowed;
}

/* Programs in @top have nothing else to give: the files they have mapped.  Returns bytes. */
static uint64_t evict_all_files(struct group *top)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);
	uint64_t freed = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct client *c = list[i];

		if (group_is_in(c->job->group, top) && client_has_agent(c) && !client_is_dead(c) &&
		    !client_lingers(c))
			freed += evict_files(c, true);
		client_put(c);
	}
	return freed;
}

/* One round of eviction for @top, @over bytes above its low mark.  Returns pages gone. */
static unsigned int evict_round(struct group *top, uint64_t over)
{
	unsigned int gone = 0;
	struct group *g;

	for (g = group_root(); g; g = group_next(g))
		g->dry = g->stalled = false;
	while (!gone && (g = group_victim(top))) {
		uint64_t frames, allowed;

		gone = evict_clients(g, over / PAGE_SIZE_ + 1);
		frames = count_read(&g->frames);
		allowed = frames_allowed(g) / 4 * 3;
		/* What it has there is its memory still. */
		if (g->parent && frames > allowed)
			gone += writeout(g, frames - allowed);
		g->dry = !gone;
	}
	return gone;
}

/* Is a group's limit near, not regarding the space's? */
static bool near_limit(const struct group *g)
{
	for (; g->parent; g = g->parent)
		if (group_used(g) >= register_mark(g))
			return true;
	return false;
}

bool reclaim_has_room(const struct group *g, uint64_t bytes)
{
	for (; g; g = g->parent) {
		uint64_t mark = low_mark(g);

		if (mark != GROUP_NO_LIMIT && group_used(g) + bytes >= mark)
			return false;
	}
	return true;
}

void reclaim_forks(struct client *c)
{
	/* Those that are there, too: what they touch is seen when they have an agent. */
	uint64_t children = clients_without_agent(c->job) + 1;

	__atomic_store_n(&c->shared->fork_waits,
			 !reclaim_has_room(c->job->group, children * CHILD_MS * TOUCH_BYTES_MS),
			 __ATOMIC_RELAXED);
}

void reclaim_begins(struct client *c)
{
	__atomic_store_n(&c->shared->looks,
			 !reclaim_has_room(c->job->group, 2 * CHILD_MS * TOUCH_BYTES_MS),
			 __ATOMIC_RELAXED);
	/* It may fork before it is looked at. */
	reclaim_forks(c);
}

/*
 * Near a limit, has a program grown otherwise than by our faults?  Then there is more to
 * register.  Who waits for that is told that it was seen to.
 */
static void look_for_growth(uint64_t used)
{
	bool all = used >= register_mark(group_root());
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);
	uint64_t now = now_ns();

	for (unsigned int i = 0; i < n; i++) {
		struct client *c = list[i];

		if (client_has_agent(c) && !client_is_dead(c)) {
			bool near = all || near_limit(c->job->group);
			uint32_t looks = c->shared->looks + 1;

			if (near && client_has_grown(c, now))
				client_register(c);
			if (near)
				client_protect_shared(c);
			__atomic_store_n(&c->shared->looks, near ? looks + !looks : 0,
					 __ATOMIC_RELAXED);
			reclaim_forks(c);
		}
		client_put(c);
	}
}

/*
 * Tell the agents whose programs are above a limit: faults wait for room anyway,
 * and what grows without them waits as it maps more.
 */
static void throttle(void)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);

	for (unsigned int i = 0; i < n; i++) {
		struct client *c = list[i];

		if (c->shared) {
			uint32_t over = group_spent(c->job->group);

			if (over != __atomic_exchange_n(&c->shared->over, over, __ATOMIC_RELAXED) &&
			    !over)
				wire_futex(&c->shared->over, FUTEX_WAKE, INT_MAX, 0);
		}
		client_put(c);
	}
}

/* Forked children have no process id we know: ask whether they are still there. */
static void bury_children(void)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);

	for (unsigned int i = 0; i < n; i++) {
		if (!client_has_agent(list[i]) && client_gone(list[i]))
			client_dead(list[i]);
		client_put(list[i]);
	}
}

static void check_pool(void)
{
	if (reclaim_pool_excess(swap_pool_bytes(pager.space), pool_limit()) || groups_pool_full())
		writer_wake();
}

/* Late is memory above the limit, in the threads that see to it. */
static void be_urgent(int priority)
{
	const struct sched_param realtime = { .sched_priority = priority };

	if (sched_setscheduler(0, SCHED_FIFO, &realtime))
		setpriority(PRIO_PROCESS, syscall(SYS_gettid), -10);
}

/*
 * Libraries that others use as well are not the program's alone, and what a fork has
 * shared is not twice there.  Is anything shared by a fork?
 */
static bool weigh(void)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS), nr = 0;
	bool shared = false;

	for (unsigned int i = 0; i < n; i++) {
		if (client_has_agent(list[i]) && !client_is_dead(list[i]))
			list[nr++] = list[i];
		else
			client_put(list[i]);
	}
	clients_weigh(list, nr);
	for (unsigned int i = 0; i < nr; i++) {
		shared |= count_read(&list[i]->foreign.anon) > 0;
		client_put(list[i]);
	}
	return shared;
}

/*
 * Weighing walks page tables, so the watcher does not: near a limit every millisecond of
 * its is needed.  Often where a fork has shared memory, for what a child that ended leaves
 * to the others is counted by nothing else.
 */
static void *weigh_main(void *unused)
{
	bool shared = false;

	(void)unused;
	prctl(PR_SET_NAME, "vswap-weigh");
	be_urgent(1);
	while (!pager_stopping()) {
		bool asked = sleep_ms(&reclaim.weigh, &reclaim.weigh_woken, shared ? 50 : 200);
		uint64_t start = now_ns();

		if (!asked && !shared && !__atomic_load_n(&reclaim.tight, __ATOMIC_RELAXED))
			continue;
		shared = weigh();
		sleep_ms(&reclaim.watch, NULL, (now_ns() - start) * (shared ? 10 : 50) / MS);
	}
	return NULL;
}

/* What of vswap's memory is no group's. */
static uint64_t overhead(void)
{
	const struct group *root = group_root();
	uint64_t theirs = count_read(&root->frames) * PAGE_SIZE_ + count_read(&root->pool);
	struct budget_parts parts;

	budget_parts(&parts);
	return parts.self > theirs ? parts.self - theirs : 0;
}

static void *watch_main(void *unused)
{
	int loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t next_bury = 0;

	(void)unused;
	prctl(PR_SET_NAME, "vswap-watch");
	be_urgent(2);
	pthread_mutex_lock(&reclaim.lock);
	reclaim.watching = true;
	pthread_cond_broadcast(&reclaim.watch);
	pthread_mutex_unlock(&reclaim.lock);
	/* Nothing is known of a program that has just begun. */
	reclaim.rate = TOUCH_BYTES_MS;
	while (!pager_stopping()) {
		uint64_t used = budget_sample();
		uint64_t now = now_ns(), room = ~0ULL;
		struct group *g;

		measure_growth(used, now);
		measure_turns(loadavg, cpus < 1 ? 1 : cpus);

		/* What a child had of what is shared is its parent's at once. */
		if (now >= next_bury || __atomic_load_n(&reclaim.tight, __ATOMIC_RELAXED))
			bury_children();
		if (now >= next_bury) {
			groups_share(overhead());
			next_bury = now + 100 * MS;
		}
		for (g = group_root(); g; g = group_next(g)) {
			uint64_t mark = register_mark(g), has = group_used(g);

			if (mark == GROUP_NO_LIMIT)
				continue;
			if (room > (mark > has ? mark - has : 0))
				room = mark > has ? mark - has : 0;
			if (has > high_mark(g))
				reclaim_wake();
		}
		__atomic_store_n(&reclaim.tight, !room, __ATOMIC_RELAXED);
		look_for_growth(used);
		throttle();
		room /= TOUCH_BYTES_MS * 2;
		sleep_ms(&reclaim.watch, NULL, room < 1 ? 1 : room > 50 ? 50 : room);
	}
	if (loadavg >= 0)
		close(loadavg);
	return NULL;
}

/*
 * The client with most memory in @top, with a reference, or NULL.  One without an agent only
 * where there is no other: what it has is a guess.
 */
static struct client *largest(const struct group *top)
{
	struct client *list[MAX_CLIENTS], *most = NULL;
	unsigned int n = clients_get(list, MAX_CLIENTS);
	uint64_t anon, file, max = 0;
	bool most_has = false;

	for (unsigned int i = 0; i < n; i++) {
		struct client *c = list[i];
		bool has = client_has_agent(c);

		if (group_is_in(c->job->group, top) && has >= most_has &&
		    !client_resident(c, &anon, &file) && (!most || has > most_has || anon > max)) {
			struct client *old = most;

			most = c;
			most_has = has;
			max = anon;
			c = old;
		}
		if (c)
			client_put(c);
	}
	return most;
}

/* Is it above its limit, or are faults waiting for it to be less? */
static bool is_short(const struct group *g, uint64_t used)
{
	return used > group_ram(g) || is_hungry(g);
}

/* What there is, and what to add. */
static void say_full(struct group *g, uint64_t used, bool end)
{
	struct client *c = largest(g);
	char text[400];

	if (!c)
		return;
	snprintf(text, sizeof(text),
		 "%s%s%smemory, all is full: %llu MiB of %s%llu MiB in use and %s (give more %s%s)",
		 g->parent ? "group " : "", g->parent ? g->name : "",
		 g->parent ? ": out of " : "out of ", (unsigned long long)(used >> 20),
		 g->parent ? "ram=" : "--ram ", (unsigned long long)(group_ram(g) >> 20),
		 end ? "nothing can be put elsewhere: killed" :
		       "little can be put elsewhere: slowed down",
		 g->parent ? "ram=" : "--ram",
		 has_tier() ? ", or a larger --tier" : ", or a --tier");
	if (end)
		job_kill(c->job, "%s", text);
	else
		job_say(c->job, "%s", text);
	client_put(c);
}

/* Most of what went out came back, for no store would have it: the user should know. */
static void check_full(struct group *g, uint64_t used, unsigned int gone)
{
	uint64_t now = now_ns();

	if (!g->full_ns || group_stalled(g)) {
		g->full_ns = now;
		g->full_gone = g->full_back = 0;
	}
	g->full_gone += gone;
	g->full_back += reclaim.undone;
	if (now - g->full_ns < FULL_MS * MS)
		return;
	if (!g->said_full && g->full_back * 2 >= g->full_gone) {
		g->said_full = true;
		say_full(g, used, false);
	}
	g->full_ns = 0;
}

/*
 * @g is short of memory.  It gets somewhere while what it uses goes down, faults of its
 * programs are let in, more than now and then, or more pages are put elsewhere than those
 * can have fetched back: on a slow machine programs can write as fast to what a fork
 * shares as pages go, and no fault stands before that.  Where nothing of this is so for
 * long, all is full: pages that go out only come back, or others in their place.
 */
static void check_stuck(struct group *g, uint64_t used, unsigned int gone)
{
	uint64_t faults = count_read(&g->count[GROUP_FAULT]), now = now_ns();

	g->stuck_put += (int64_t)gone - reclaim.undone;
	/*
	 * One who is stopped is not to die for what it cannot give.  One that grew by much has
	 * written what a fork shares, which no fault of ours stands before: there is more to do.
	 */
	if (!g->stuck_ns || group_stalled(g) || used + STUCK_BYTES < g->stuck_used ||
	    used > g->stuck_used + group_ram(g) / STUCK_GROWTH ||
	    faults > g->stuck_faults + STUCK_FAULTS || g->stuck_put > STUCK_PUT) {
		g->stuck_ns = now;
		g->stuck_put = 0;
		g->stuck_used = used;
		g->stuck_faults = faults;
	}
	if (now - g->stuck_ns < STUCK_MS * MS)
		return;
	g->stuck_ns = 0;
	say_full(g, used, true);
}

enum progress {
	NOTHING_TO_DO,
	NO_PROGRESS,
	PROGRESS,
};

static enum progress better(enum progress a, enum progress b)
{
	return a > b ? a : b;
}

/* One round for @g, if it is over its mark. */
static enum progress reclaim_round(struct group *g)
{
	uint64_t used = group_used(g);
	unsigned int gone;
	bool progress;

	if (used <= low_mark(g) || (used <= high_mark(g) && !g->stuck_ns)) {
		g->stuck_ns = g->full_ns = 0;
		return NOTHING_TO_DO;
	}
	reclaim.undone = 0;
	gone = evict_round(g, used - low_mark(g));
	if (!g->parent && frames_free() < frames_total() / 4)
		writeout(NULL, frames_total() / 4);
	check_pool();
	budget_sample();
	used = group_used(g);
	/* What no store would have came back to the program: that led nowhere. */
	progress = gone > reclaim.undone * 2;
	g->fruitless = progress ? 0 : g->fruitless + gone;
	/* Where programs have nothing left to give, the pool has: one may be stopped. */
	if (used > group_ram(g))
		progress = progress || evict_all_files(g) || swap_compact(pager.space) ||
			   (has_tier() && group_writeback(g, used - low_mark(g)));
	if (is_short(g, used)) {
		uint64_t now = now_ns();

		/* Stopped with the program, by Ctrl-Z perhaps: that was no time to get anywhere. */
		if (now - g->looked_ns > STOPPED_MS * MS)
			g->stuck_ns = g->full_ns = 0;
		g->looked_ns = now;
		check_full(g, used, gone);
		check_stuck(g, used, gone);
	} else {
		g->stuck_ns = g->full_ns = 0;
	}
	/* There may be others that are not like those, until all have been tried. */
	return progress || (gone && g->fruitless < used / PAGE_SIZE_) ? PROGRESS : NO_PROGRESS;
}

static void *reclaim_main(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, "vswap-reclaim");
	/* What a fork has shared is made anew by mere writes: nothing else slows a program in that. */
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), -5);
	while (!pager_stopping()) {
		enum progress most = NOTHING_TO_DO;
		struct group *g;

		frames_trim();
		evict_late(false);
		budget_sample();
		if (groups_any())
			groups_share(overhead());
		/* Those in it come after the root: a group's own limit is kept first. */
		for (g = group_next(group_root()); g; g = group_next(g))
			if (group_ram(g) != GROUP_NO_LIMIT)
				most = better(most, reclaim_round(g));
		most = better(most, reclaim_round(group_root()));
		throttle();
		if (most == NOTHING_TO_DO)
			sleep_ms(&reclaim.wake, &reclaim.woken, 50);
		else if (most == NO_PROGRESS)
			sleep_ms(&reclaim.watch, NULL, 2);
	}
	evict_late(true);
	return NULL;
}

static void *writer_main(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, "vswap-write");
	for (;;) {
		uint64_t excess;

		pthread_mutex_lock(&reclaim.lock);
		while (!reclaim.write_woken && !pager_stopping())
			pthread_cond_wait(&reclaim.write, &reclaim.lock);
		__atomic_store_n(&reclaim.write_woken, false, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&reclaim.lock);
		if (pager_stopping())
			return NULL;
		excess = reclaim_pool_excess(swap_pool_bytes(pager.space), pool_limit());
		if (excess)
			swap_writeback(pager.space, excess);
		groups_writeback();
	}
}

void reclaim_limits_changed(void)
{
	uint64_t limit = budget_limit(), pool = reclaim_pool_most(limit);

	/* Also called while the first tiers are added, before there is a thread to wake. */
	__atomic_store_n(&reclaim.pool_limit, pool, __ATOMIC_RELAXED);
	swap_space_set_pool_limit(pager.space, pool);
	frames_resize(frames_for(limit));
	writer_wake();
	reclaim_wake();
}

int reclaim_start(void)
{
	int ret;

	reclaim_limits_changed();
	ret = pthread_create(&reclaim.watcher, NULL, watch_main, NULL);
	if (!ret) {
		pthread_mutex_lock(&reclaim.lock);
		while (!reclaim.watching)
			pthread_cond_wait(&reclaim.watch, &reclaim.lock);
		pthread_mutex_unlock(&reclaim.lock);
		ret = pthread_create(&reclaim.thread, NULL, reclaim_main, NULL);
	}
	if (!ret)
		ret = pthread_create(&reclaim.writer, NULL, writer_main, NULL);
	if (!ret)
		ret = pthread_create(&reclaim.weigher, NULL, weigh_main, NULL);
	return -ret;
}

/* pager.stopping is set by now; also after a reclaim_start() that failed. */
void reclaim_stop(void)
{
	pthread_t *thread[] = { &reclaim.watcher, &reclaim.thread, &reclaim.writer,
				&reclaim.weigher };

	pthread_mutex_lock(&reclaim.lock);
	pthread_cond_broadcast(&reclaim.wake);
	pthread_cond_broadcast(&reclaim.write);
	pthread_cond_broadcast(&reclaim.watch);
	pthread_cond_broadcast(&reclaim.weigh);
	pthread_mutex_unlock(&reclaim.lock);
	for (unsigned int i = 0; i < 4; i++)
		if (*thread[i])
			pthread_join(*thread[i], NULL);
}
