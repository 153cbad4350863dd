// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Fault servers.
 *
 * Each is a thread that waits on the userfaultfds of all clients.  Where it
 * runs is decisive: a wake-up across CPUs costs several times the rest of a
 * fault.  While one thread of the program does (nearly) all the faulting, one
 * server alone listens, on that thread's CPU, and follows it; when several do,
 * one server listens on each CPU, if there are more than two or there is a tier.
 *
 * A fault is served in these steps:
 *
 *  1. Under the state lock: is the page on its way out (then wait for the batch
 *     to end), is another server about it already (then it will wake this fault
 *     too)?  Else mark the range as ours: it will not be evicted meanwhile.
 *  2. Bring the bytes into our buffer: from a frame, the pool, a tier.  No lock
 *     is held but the folios'.
 *  3. With the gate: are the entries still those?  An event may have been
 *     followed since.  Then UFFDIO_COPY, and forget the entries.
 *
 * UFFDIO_COPY says EAGAIN while an event is posted and not read: the fault is
 * put aside, the event is read and followed, then the fault is looked at anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bitops.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "client.h"
#include "group.h"
#include "job.h"
#include "state.h"

#define RA_LIMIT       64
#define WP_AHEAD       (8 * PAGE_SIZE_)
#define PLACE_FAULTS   64 /* faults looked at to decide who listens */
#define PARKED_POLL_NS 5000000
#define HEAT_SOON      1      /* came back soon */
#define HEAT_MISSED    2      /* ... before it had really left */
#define FOLLOW_NS      300000 /* how often to look where the hot thread runs */

struct fault {
	struct client *client;
	uint64_t addr, flags;
	uint32_t tid;
	uint64_t start_ns;
	uint64_t stalled_ns; /* since when it waits for memory, or 0 */
};

struct faults {
	struct fault *list;
	unsigned int nr, max;
};

struct server_folio {
	struct swap_folio folio;
	bool idle; /* atomic; released, by whoever looked at it last */
};

struct server {
	pthread_t thread;
	unsigned int id;
	int cpu;
	int wake; /* eventfd */
	int stat; /* of the thread last looked for, or -1 */
	uint32_t stat_tid;
	bool started;
	char *buf;		    /* RA_LIMIT pages */
	uint64_t *number;	    /* a page behind that, for a child: its own */
	struct server_folio *folio; /* ... and their folios */
	struct client *client[MAX_CLIENTS];
	unsigned int nr_clients;
	uint64_t generation;
	struct faults aside; /* to be looked at again */
	bool only_blocked;   /* those are of clients whose gate is */
};

static struct {
	struct server server[MAX_SERVERS];
	unsigned int nr, cpus;
	bool all;	      /* every server listens, not the first alone */
	unsigned int blocked; /* servers that wait; then, too */
	uint32_t hot_tid;     /* who faulted last */
	unsigned int same, other;
	uint64_t followed_ns;
	pthread_mutex_t lock;
	struct faults left; /* put aside by servers that wait; the lock */
} servers = { .lock = PTHREAD_MUTEX_INITIALIZER };

static __thread struct server *self;

/* What is to be copied in one go. */
struct plan {
	uint64_t start;
	unsigned int nr;
	vswp_entry_t entry[RA_LIMIT];	     /* entry 0 first: all are first touches */
	struct swap_folio *cached[RA_LIMIT]; /* a frame's, with a reference, or NULL: folio[i] */
	enum swap_where where;		     /* of the first page */
};

static char zeros[RA_LIMIT * 4096] __attribute__((aligned(4096)));

/* ---- placement ------------------------------------------------------- */

/* Where the thread runs, or -1.  Its file stays open: that is half of what a look costs. */
static int thread_cpu(struct server *sv, pid_t pid, uint32_t tid)
{
	char path[64], buf[512], *p;
	int cpu = -1, field = 2;
	ssize_t n;

	if (tid != sv->stat_tid || sv->stat < 0) {
		snprintf(path, sizeof(path), "/proc/%d/task/%u/stat", pid, tid);
		if (sv->stat >= 0)
			close(sv->stat);
		sv->stat = open(path, O_RDONLY | O_CLOEXEC);
		sv->stat_tid = tid;
	}
	if (sv->stat < 0)
		return -1;
	n = pread(sv->stat, buf, sizeof(buf) - 1, 0);
	if (n <= 0) {
		/* Over, and the number may be another's. */
		close(sv->stat);
		sv->stat = -1;
		return -1;
	}
	buf[n] = 0;
	p = strrchr(buf, ')');
	for (; p && field < 39; field++)
		p = strchr(p + 1, ' ');
	if (p)
		cpu = atoi(p + 1);
	return cpu;
}

static void pin(struct server *sv, int cpu)
{
	cpu_set_t set;

	if (cpu < 0 || cpu == sv->cpu)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* Not allowed there: then where the scheduler likes. */
	if (!sched_setaffinity(0, sizeof(set), &set))
		sv->cpu = cpu;
}

static void wake_server(struct server *sv)
{
	uint64_t one = 1;

	/* Full is as good as woken. */
	if (write(sv->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		pager_say("eventfd: %s (report it: it is a fault of vswap)", strerror(errno));
}

void servers_wake(void)
{
	for (unsigned int i = 0; i < servers.nr; i++)
		wake_server(&servers.server[i]);
}

/* Who faults?  Racy by intent: a wrong guess costs microseconds. */
static void note_thread(struct server *sv, const struct fault *f)
{
	uint32_t hot = __atomic_load_n(&servers.hot_tid, __ATOMIC_RELAXED);
	unsigned int same, other;
	uint64_t now;

	if (servers.cpus == 1 && sv->cpu >= 0)
		return;
	if (f->tid == hot) {
		same = __atomic_add_fetch(&servers.same, 1, __ATOMIC_RELAXED);
		other = __atomic_load_n(&servers.other, __ATOMIC_RELAXED);
	} else {
		same = __atomic_load_n(&servers.same, __ATOMIC_RELAXED);
		other = __atomic_add_fetch(&servers.other, 1, __ATOMIC_RELAXED);
		__atomic_store_n(&servers.hot_tid, f->tid, __ATOMIC_RELAXED);
	}
	if (same + other >= PLACE_FAULTS) {
		/*
		 * Every server that listens is woken by each fault: of two, one does better
		 * where none waits for a tier.
		 */
		bool alone =
			servers.cpus == 1 ||
			(servers.cpus == 2 && !__atomic_load_n(&pager.has_tier, __ATOMIC_RELAXED));
		bool all = other > PLACE_FAULTS / 8 && !alone;

		__atomic_store_n(&servers.same, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&servers.other, 0, __ATOMIC_RELAXED);
		if (all != __atomic_exchange_n(&servers.all, all, __ATOMIC_RELAXED))
			servers_wake();
	}
	if (__atomic_load_n(&servers.all, __ATOMIC_RELAXED)) {
		pin(sv, (int)sv->id);
		return;
	}
	now = f->start_ns;
	if (sv->id == 0 && now > servers.followed_ns + FOLLOW_NS) {
		servers.followed_ns = now;
		pin(sv,
		    thread_cpu(sv, client_pid(f->client) ? client_pid(f->client) : (pid_t)f->tid,
			       f->tid));
	}
}

static bool listens(const struct server *sv)
{
	return sv->id == 0 || __atomic_load_n(&servers.all, __ATOMIC_RELAXED) ||
	       __atomic_load_n(&servers.blocked, __ATOMIC_RELAXED);
}

static bool keep_fault(struct faults *f, const struct fault *fault)
{
	if (f->nr == f->max) {
		unsigned int max = f->max ? f->max * 2 : 64;
		struct fault *list = realloc(f->list, max * sizeof(*list));

		if (!list)
			return false;
		f->list = list;
		f->max = max;
	}
	f->list[f->nr] = *fault;
	/* Others look whether there are any without the lock. */
	__atomic_store_n(&f->nr, f->nr + 1, __ATOMIC_RELAXED);
	return true;
}

/* What a server has put aside is for others while it waits. */
static void leave_aside(struct server *sv)
{
	pthread_mutex_lock(&servers.lock);
	while (sv->aside.nr && keep_fault(&servers.left, &sv->aside.list[sv->aside.nr - 1]))
		sv->aside.nr--;
	pthread_mutex_unlock(&servers.lock);
}

static void take_aside(struct server *sv)
{
	if (!__atomic_load_n(&servers.left.nr, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&servers.lock);
	while (servers.left.nr && keep_fault(&sv->aside, &servers.left.list[servers.left.nr - 1])) {
		__atomic_store_n(&servers.left.nr, servers.left.nr - 1, __ATOMIC_RELAXED);
		sv->only_blocked = false;
	}
	pthread_mutex_unlock(&servers.lock);
}

void servers_blocked(struct client *c, bool blocked)
{
	if (blocked && self)
		leave_aside(self);
	__atomic_store_n(&c->parked_ns, blocked ? ~0ULL : 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&servers.blocked, blocked ? 1 : -1, __ATOMIC_RELAXED);
	servers_wake();
}

/* Not to be listened to now? */
static bool parked(struct client *c)
{
	uint64_t until = __atomic_load_n(&c->parked_ns, __ATOMIC_RELAXED);

	return until && now_ns() < until;
}

/* ---- readahead ------------------------------------------------------- */

/*
 * How many pages to bring for a fault at @addr: one for a jump, ever more while
 * faults go on where the last readahead ended.  State lock held.
 */
static unsigned int ahead(struct client *c, uint64_t addr)
{
	struct stream *oldest = &c->stream[0];

	count_add(&c->faults, 1);
	for (unsigned int i = 0; i < MAX_STREAMS; i++) {
		struct stream *s = &c->stream[i];

		if (s->next == addr && s->pages) {
			count_add(&pager.count.swap_ra_hit, s->ahead);
			s->used = c->faults;
			s->pages = s->pages * 4 < pager.ra_max ? s->pages * 4 : pager.ra_max;
			return s->pages;
		}
		if (s->used < oldest->used)
			oldest = s;
	}
	count_add(&pager.count.swap_ra_miss, oldest->ahead);
	*oldest = (struct stream){ .next = addr, .pages = 1, .used = c->faults };
	return 1;
}

/* The readahead at @addr went up to @end. */
static void went_ahead(struct client *c, uint64_t addr, uint64_t end)
{
	for (unsigned int i = 0; i < MAX_STREAMS; i++) {
		struct stream *s = &c->stream[i];

		if (s->next == addr && s->pages) {
			s->next = end;
			s->ahead = (end - addr) / PAGE_SIZE_ - 1;
			return;
		}
	}
}

static bool others_busy(const struct client *c, const struct server *sv, uint64_t addr)
{
	for (unsigned int i = 0; i < MAX_SERVERS; i++)
		if (i != sv->id && addr >= c->busy[i].start && addr < c->busy[i].end)
			return true;
	return false;
}

static void make_plan(struct server *sv, struct client *c, uint64_t addr, struct plan *plan)
{
	unsigned int max = ahead(c, addr);
	vswp_entry_t first = window_get(&c->win, addr);
	struct range *r = range_from(c, addr);
	uint64_t end = r && r->start <= addr ? r->end : addr + PAGE_SIZE_;

	plan->start = addr;
	plan->entry[0] = first;
	plan->nr = 1;
	while (plan->nr < max) {
		uint64_t next = addr + plan->nr * PAGE_SIZE_;
		vswp_entry_t entry = window_get(&c->win, next);

		if (next >= end || !entry.val != !first.val || others_busy(c, sv, next) ||
		    batch_covers(c, next, next + PAGE_SIZE_))
			break;
		plan->entry[plan->nr++] = entry;
	}
	went_ahead(c, addr, addr + plan->nr * PAGE_SIZE_);
}

/*
 * UFFDIO_COPY overwrites the mark of a guard page (MADV_GUARD_INSTALL): first touches
 * end before whatever is in the page tables there.
 */
static void plan_untouched(struct client *c, struct plan *plan)
{
	struct page_region found;
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = plan->start + PAGE_SIZE_,
		.end = plan->start + plan->nr * PAGE_SIZE_,
		.vec = (uint64_t)&found,
		.vec_len = 1,
		.max_pages = 1,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT,
	};

	/* A kernel that cannot tell is one that has no such pages. */
	if (ioctl(c->pagemap, PAGEMAP_SCAN, &scan) == 1)
		plan->nr = (found.start - plan->start) / PAGE_SIZE_;
}

/* ---- bytes ----------------------------------------------------------- */

static void folio_release(struct swap_folio *folio)
{
	struct server_folio *sf = container_of(folio, struct server_folio, folio);

	__atomic_store_n(&sf->idle, true, __ATOMIC_RELEASE);
}

/* Another server may still be reading the folio, and the page of our buffer it stands for. */
static bool folio_idle(const struct server *sv, unsigned int i)
{
	return __atomic_load_n(&sv->folio[i].idle, __ATOMIC_ACQUIRE);
}

/* The first is waited for, which is not long.  False: another is not idle. */
static bool folio_reuse(struct server *sv, unsigned int i)
{
	while (!folio_idle(sv, i)) {
		if (i)
			return false;
		sched_yield();
	}
	sv->folio[i].idle = false;
	swap_folio_init(&sv->folio[i].folio, sv->buf + i * PAGE_SIZE_, 0, NULL, folio_release);
	swap_folio_lock(&sv->folio[i].folio);
	return true;
}

/* Our folio @i is not needed in the cache: its entry keeps its backing, or goes if unowned. */
static void folio_done(struct server *sv, unsigned int i)
{
	struct swap_folio *folio = &sv->folio[i].folio;

	if (swap_folio_test(folio, SWAP_FOLIO_CACHED) && !folio_free_swap(pager.space, folio))
		swap_cache_del_folio(pager.space, folio);
	swap_folio_unlock(folio);
	swap_folio_put(folio);
}

/* Let go of everything from page @from on. */
static void plan_trim(struct server *sv, struct plan *plan, unsigned int from)
{
	for (unsigned int i = from; i < plan->nr; i++)
		if (plan->cached[i])
			swap_folio_put(plan->cached[i]);
		else
			folio_done(sv, i);
	plan->nr = from;
}

/*
 * One page's folio, cached by others or by us.  0, -ENOENT, -EIO.  Two servers may bring
 * in what a fork has shared: from the second page on, holding folios of ours and others',
 * nothing is waited for, or they would wait for each other.  -EAGAIN: end the plan here.
 */
static int plan_page(struct server *sv, struct plan *plan, unsigned int i)
{
	for (;;) {
		struct swap_folio *folio = swap_cache_get_folio(pager.space, plan->entry[i]);
		int ret;

		if (folio) {
			if (!swap_folio_test(folio, SWAP_FOLIO_UPTODATE)) {
				/* Being read for another owner of the entry. */
				if (i) {
					swap_folio_put(folio);
					return -EAGAIN;
				}
				swap_folio_lock(folio);
				swap_folio_unlock(folio);
				if (!swap_folio_test(folio, SWAP_FOLIO_UPTODATE)) {
					swap_folio_put(folio);
					continue;
				}
			}
			plan->cached[i] = folio;
			if (!i)
				plan->where = SWAP_FOLIO;
			return 0;
		}
		if (!i)
			plan->where = swap_entry_where(pager.space, plan->entry[0]);
		if (!folio_reuse(sv, i))
			return -EAGAIN;
		ret = swap_cache_add_folio(pager.space, plan->entry[i], &sv->folio[i].folio);
		if (!ret) {
			plan->cached[i] = NULL;
			return 0;
		}
		swap_folio_unlock(&sv->folio[i].folio);
		swap_folio_put(&sv->folio[i].folio);
		if (ret != -EEXIST)
			return ret;
	}
}

/*
 * The bytes of the plan's pages into our buffer; shortens the plan where they
 * cannot be had.  Returns 0; -EIO: the first page is lost; else look again: the first
 * entry was freed, or there was no memory to read it.
 */
static int plan_read(struct server *sv, struct plan *plan)
{
	struct swap_folio *in[RA_LIMIT];
	unsigned int nr_in = 0;
	int ret = 0;

	for (unsigned int i = 0; i < plan->nr; i++) {
		ret = plan_page(sv, plan, i);
		if (ret) {
			plan->nr = i;
			break;
		}
		if (!plan->cached[i])
			in[nr_in++] = &sv->folio[i].folio;
	}
	if (nr_in)
		swap_readin_wanted(pager.space, in, nr_in, !plan->cached[0]);
	if (!plan->nr)
		return ret;
	for (unsigned int i = 0; i < plan->nr; i++) {
		const struct swap_folio *cached = plan->cached[i];

		if (!cached && !swap_folio_test(&sv->folio[i].folio, SWAP_FOLIO_UPTODATE)) {
			ret = sv->folio[i].folio.error;
			plan_trim(sv, plan, i);
			return i ? 0 : ret;
		}
		/* One page alone goes from where it is. */
		if (!cached || plan->nr == 1)
			continue;
		if (folio_idle(sv, i))
			memcpy(sv->buf + i * PAGE_SIZE_, cached->data, PAGE_SIZE_);
		else
			plan_trim(sv, plan, i ? i : 1);
	}
	return 0;
}

/* ---- one fault ------------------------------------------------------- */

enum outcome {
	SERVED,
	AGAIN, /* an event must be read, or a batch end, first */
};

static void unbusy(struct server *sv, struct client *c)
{
	struct busy *busy = &c->busy[sv->id];
	struct uffdio_range range = { busy->start, busy->end - busy->start };
	bool wake = busy->wake;

	*busy = (struct busy){ 0 };
	if (wake)
		ioctl(c->uffd, UFFDIO_WAKE, &range);
}

static void wake_page(struct client *c, uint64_t addr)
{
	struct uffdio_range range = { addr, PAGE_SIZE_ };

	ioctl(c->uffd, UFFDIO_WAKE, &range);
}

static void count_fault(struct group *group, const struct plan *plan, bool entry, uint64_t distance)
{
	uint64_t *counter = &pager.count.fault_zero;

	if (entry)
		switch (plan->where) {
		case SWAP_FOLIO:
			counter = &pager.count.fault_cache;
			break;
		case SWAP_FILL:
			counter = &pager.count.fault_fill;
			break;
		case SWAP_ZPOOL:
			counter = &pager.count.fault_pool;
			break;
		default:
			counter = &pager.count.fault_tier;
			break;
		}
	count_add(counter, 1);
	group_count(group, GROUP_FAULT, 1);
	count_add(&pager.count.swap_ra, plan->nr - 1);
	if (entry && distance < budget_limit() / PAGE_SIZE_ / 2) {
		count_add(&pager.count.refault, 1);
		group_count(group, GROUP_REFAULT, 1);
	}
}

/* Of a client that is dead, or is not to be waited for now. */
static enum outcome no_gate(struct server *sv, struct client *c)
{
	if (client_gone(c))
		return SERVED;
	pthread_mutex_lock(&c->state);
	unbusy(sv, c);
	pthread_mutex_unlock(&c->state);
	return AGAIN;
}

/* The page is lost: whoever touches it gets SIGBUS, and nobody gets zeros. */
static enum outcome serve_poison(struct server *sv, struct client *c, struct plan *plan)
{
	struct uffdio_poison poison = { .range = { plan->start, PAGE_SIZE_ } };
	int err = 0;

	if (!client_gate_to_copy(c))
		return no_gate(sv, c);
	pthread_mutex_lock(&c->state);
	/*
	 * The entry stays: UFFDIO_COPY overwrites the mark, and readahead from a page before
	 * it would bring zeros.
	 */
	if (window_get(&c->win, plan->start).val == plan->entry[0].val && !event_unfollowed(c))
		err = ioctl(c->uffd, UFFDIO_POISON, &poison) ? errno : 0;
	else
		err = EEXIST;
	unbusy(sv, c);
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
	if (err == EAGAIN)
		return AGAIN;
	if (err == EEXIST) {
		/* It is something else by now, or marked: the program finds out itself. */
		wake_page(c, plan->start);
		return SERVED;
	}
	count_add(&pager.count.sigbus, 1);
	/* Before 6.6 a single page cannot be marked: the process gets the signal. */
	if (err && !client_is_dead(c) && client_pid(c) > 0)
		kill(client_pid(c), SIGBUS);
	else if (err && !client_is_dead(c))
		job_kill(c->job, "a page of a forked child is lost, and its process not known: "
				 "killed");
	return SERVED;
}

/*
 * How many pages of the plan are still what was planned?  None while an event was read
 * and not followed, but for the agent's own, which have no entries and which it may wait
 * for with the gate in hand.  The gate and the state lock are held.
 */
static unsigned int still_planned(const struct server *sv, const struct client *c,
				  const struct plan *plan)
{
	unsigned int i = 0;

	if (c->busy[sv->id].moved || (event_unfollowed(c) && !client_owns(c, plan->start)))
		return 0;
	while (i < plan->nr &&
	       window_get(&c->win, plan->start + i * PAGE_SIZE_).val == plan->entry[i].val)
		i++;
	return i;
}

/* The pages [0, n) are in the program, the first @copied by us: forget their entries. */
static void settle(struct server *sv, struct client *c, struct plan *plan, unsigned int n,
		   unsigned int copied, unsigned int heat)
{
	for (unsigned int i = 0; i < n; i++) {
		uint64_t addr = plan->start + i * PAGE_SIZE_;

		if (c->nr_doubts && i < copied)
			doubts_settle(c, addr);
		if (window_get(&c->win, addr).val)
			window_clear(&c->win, addr, i ? 0 : heat);
		else if (heat)
			window_set_heat(&c->win, addr, heat);
	}
	unbusy(sv, c);
}

static void release(struct server *sv, struct plan *plan, unsigned int n)
{
	for (unsigned int i = 0; i < n;) {
		unsigned int run = 1;

		while (i + run < n && plan->entry[i + run].val == plan->entry[i].val + run)
			run++;
		swap_free_range(pager.space, plan->entry[i], run);
		i += run;
	}
	for (unsigned int i = 0; i < plan->nr; i++) {
		struct swap_folio *folio = plan->cached[i];

		if (!folio) {
			folio_done(sv, i);
			continue;
		}
		/* Being compressed right now?  Then who does it finds it without an owner. */
		if (i < n && swap_folio_trylock(folio)) {
			bool out = swap_folio_test(folio, SWAP_FOLIO_CACHED) &&
				   folio_free_swap(pager.space, folio);

			swap_folio_unlock(folio);
			if (out && folio_is_frame(folio))
				frame_forget(container_of(folio, struct frame, folio));
		}
		swap_folio_put(folio);
	}
}

/* Copy @nr pages to the client.  Returns pages copied, or -errno if none. */
static int copy_pages(struct client *c, uint64_t dst, const void *src, unsigned int nr)
{
	struct uffdio_copy copy = {
		.dst = dst,
		.src = (uint64_t)src,
		.len = nr * PAGE_SIZE_,
	};

	if (!ioctl(c->uffd, UFFDIO_COPY, &copy))
		return nr;
	return copy.copy > 0 ? (int)(copy.copy / (int64_t)PAGE_SIZE_) : -errno;
}

/* It cannot wait for room, it is to make some.  The state of a child's is as in adopt(). */
static bool is_agents(const struct fault *f)
{
	return client_owns(f->client, f->addr) ||
	       (client_has_agent(f->client) && f->tid == f->client->agent_tid);
}

/*
 * Is the budget spent?  Then the fault is put aside: events must still be read,
 * or nothing could be evicted, so there is no waiting here.
 */
static bool no_room(struct fault *f)
{
	if (!is_agents(f) && budget_spent(f->client->job->group)) {
		if (!f->stalled_ns)
			f->stalled_ns = now_ns();
		return true;
	}
	if (f->stalled_ns) {
		count_add(&pager.count.stall_ns, now_ns() - f->stalled_ns);
		f->stalled_ns = 0;
	}
	return false;
}

static enum outcome serve_missing(struct server *sv, struct fault *f)
{
	struct client *c = f->client;
	uint64_t distance = ~0ULL, addr = f->addr;
	unsigned int heat = 0, good;
	struct plan plan = { .where = SWAP_NULL, .start = addr, .nr = 1 };
	const void *src = zeros, *leaving = NULL;
	int n, copied;
	bool entry;

	if (no_room(f))
		return AGAIN;
	/* So a child's agent hears whose it is: numbers of threads are of their namespace. */
	if (client_owns(c, addr)) {
		*sv->number = c->id;
		src = sv->number;
	}
	pthread_mutex_lock(&c->state);
	/* The agent's, too: it may have gone on since, and be about to take this very page. */
	if (batch_covers(c, addr, addr + PAGE_SIZE_)) {
		leaving = batch_bytes(c, addr);
		if (!leaving) {
			c->waiting_batch++;
			pthread_mutex_unlock(&c->state);
			count_add(&pager.count.fault_wait, 1);
			return AGAIN;
		}
	}
	for (unsigned int i = 0; i < MAX_SERVERS; i++)
		if (i != sv->id && addr >= c->busy[i].start && addr < c->busy[i].end) {
			c->busy[i].wake = true;
			pthread_mutex_unlock(&c->state);
			count_add(&pager.count.fault_wait, 1);
			return SERVED;
		}
	if (!leaving)
		make_plan(sv, c, addr, &plan);
	entry = plan.entry[0].val;
	c->busy[sv->id] = (struct busy){ .start = addr, .end = addr + plan.nr * PAGE_SIZE_ };
	pthread_mutex_unlock(&c->state);

	if (!entry && plan.nr > 1)
		plan_untouched(c, &plan);
	if (leaving) {
		src = leaving;
		plan.where = SWAP_FOLIO;
		heat = HEAT_MISSED;
	} else if (entry) {
		distance = swap_refault_distance(pager.space, plan.entry[0]);
		n = plan_read(sv, &plan);
		if (n == -EIO)
			return serve_poison(sv, c, &plan);
		if (n) {
			/* Freed under our eyes by an event, say: look again. */
			pthread_mutex_lock(&c->state);
			unbusy(sv, c);
			pthread_mutex_unlock(&c->state);
			return AGAIN;
		}
		src = plan.nr == 1 && plan.cached[0] ? plan.cached[0]->data : sv->buf;
		if (plan.where == SWAP_FOLIO)
			heat = HEAT_MISSED;
		else if (distance < budget_limit() / PAGE_SIZE_ / 4)
			heat = HEAT_SOON;
	}

	if (!client_gate_to_copy(c)) {
		if (entry)
			plan_trim(sv, &plan, 0);
		return no_gate(sv, c);
	}
	pthread_mutex_lock(&c->state);
	good = still_planned(sv, c, &plan);
	if (leaving && batch_bytes(c, addr) != leaving)
		good = 0;
	if (good < plan.nr && entry)
		plan_trim(sv, &plan, good);
	plan.nr = good;
	if (leaving && good)
		batch_take(c);
	c->busy[sv->id].copying = true;
	pthread_mutex_unlock(&c->state);
	n = plan.nr ? copy_pages(c, addr, src, plan.nr) : -ESTALE;
	/* The kernel copies to one mapping at a time; the readahead went into the next. */
	if (n == -ENOENT && plan.nr > 1)
		n = copy_pages(c, addr, src, 1);
	copied = n > 0 ? n : 0;
	if (n == -EEXIST)
		/* The page is there: what we have for it is of the past. */
		n = 1, wake_page(c, addr);
	/* Until its batch ends a page counts as the program's. */
	if (!leaving)
		client_charge(c, copied * (int64_t)PAGE_SIZE_);
	pthread_mutex_lock(&c->state);
	if (leaving && good)
		batch_taken(c, addr, n > 0);
	settle(sv, c, &plan, n > 0 ? n : 0, copied, heat);
	if (entry && copied && dropbehind_note(c->id, addr, copied, plan.where == SWAP_SLOT))
		behind_add(&c->behind, (struct range){ addr, addr + copied * PAGE_SIZE_ });
	if ((c->vacated.nr || c->unmapping.nr) && n > 0 && !event_unfollowed(c))
		event_all_told(c);
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);

	if (n > 0)
		count_fault(c->job->group, &plan, entry || leaving, distance);
	if (entry)
		release(sv, &plan, n > 0 ? n : 0);
	switch (n) {
	case -EAGAIN:
	case -ENOMEM:
	case -ESTALE:
		return AGAIN;
	case -ENOENT:
		/* No mapping of ours there any more; the program finds out itself. */
		wake_page(c, addr);
		return SERVED;
	case -ESRCH:
	case -ENOSPC:
		return SERVED;
	default:
		if (n < 0)
			job_kill(c->job, "page fault at %#llx cannot be served: %s: killed",
				 (unsigned long long)addr, strerror(-n));
		return SERVED;
	}
}

/*
 * A first write to a zero page, to one a fork has shared, or to one the agent is copying
 * or has given up on.  Some after it are let go with it, for writes mostly go on.
 */
static enum outcome serve_protected(struct server *sv, struct fault *f)
{
	struct client *c = f->client;
	struct uffdio_writeprotect wp = { .range = { f->addr, WP_AHEAD } };
	enum outcome ret = SERVED;

	if (no_room(f))
		return AGAIN;
	if (!client_gate_to_copy(c))
		return no_gate(sv, c);
	pthread_mutex_lock(&c->state);
	/* What is let go ahead and not written counts until it is looked at, which not all can be. */
	if (batch_covers(c, f->addr, f->addr + WP_AHEAD) || !client_is_counted(c))
		wp.range.len = PAGE_SIZE_;
	if (batch_covers(c, f->addr, f->addr + PAGE_SIZE_)) {
		c->waiting_batch++;
		ret = AGAIN;
	} else {
		int err = ioctl(c->uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;

		/* The mapping ends before (ENOENT), or what may be mapped at all does (EINVAL). */
		if (err && err != EAGAIN && wp.range.len > PAGE_SIZE_) {
			wp.range.len = PAGE_SIZE_;
			err = ioctl(c->uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;
		}
		/* They may have been the zero page, or shared, and take memory from now on. */
		if (!err)
			client_charge(c, wp.range.len);
		else if (err == EAGAIN)
			ret = AGAIN;
		else
			wake_page(c, f->addr);
	}
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
	return ret;
}

static void serve(struct server *sv, struct fault *f)
{
	enum outcome ret;

	if (f->flags & UFFD_PAGEFAULT_FLAG_WP)
		ret = serve_protected(sv, f);
	else
		ret = serve_missing(sv, f);
	if (ret == SERVED) {
		uint64_t ns = now_ns() - f->start_ns;

		lat_add(pager.count.lat, ns);
		count_add(&pager.count.lat_nr, 1);
		count_add(&pager.count.lat_sum_ns, ns);
		if (ns > count_read(&pager.count.lat_max_ns))
			__atomic_store_n(&pager.count.lat_max_ns, ns, __ATOMIC_RELAXED);
		client_put(f->client);
		return;
	}
	if (!keep_fault(&sv->aside, f)) {
		/* Let the thread fault again, when there may be memory. */
		wake_page(f->client, f->addr);
		client_put(f->client);
	}
}

/* ---- the loop -------------------------------------------------------- */

static void refresh_clients(struct server *sv)
{
	struct client *old[MAX_CLIENTS];
	unsigned int nr = sv->nr_clients;

	memcpy(old, sv->client, sizeof(old));
	sv->generation = clients_generation();
	sv->nr_clients = clients_get(sv->client, MAX_CLIENTS);
	for (unsigned int i = 0; i < nr; i++)
		client_put(old[i]);
}

/*
 * Read one message, unless some were put by.  Events are followed before the gate is let
 * go; a fault is served after.  Returns true when more is to be had without waiting.
 */
static bool read_one(struct server *sv, struct client *c)
{
	struct uffd_msg msg;
	struct fault f;
	bool fault, followed = false;

	if (!client_gate_to_read(c))
		return false;
	fault = !event_stashed(c) && event_read(c, &msg);
	if (!fault || msg.event != UFFD_EVENT_PAGEFAULT) {
		pthread_mutex_lock(&c->state);
		if (fault)
			event_stash(c, &msg);
		followed = event_follow(c);
		fault = event_unstash_fault(c, &msg);
		pthread_mutex_unlock(&c->state);
	}
	client_ungate(c, GATE_TO_READ);
	if (followed && __atomic_exchange_n(&c->protect, false, __ATOMIC_RELAXED))
		client_protect(c);
	if (!fault)
		return false;
	f = (struct fault){
		.client = c,
		.addr = msg.arg.pagefault.address & ~(PAGE_SIZE_ - 1),
		.flags = msg.arg.pagefault.flags,
		.tid = msg.arg.pagefault.feat.ptid,
		.start_ns = now_ns(),
	};
	note_thread(sv, &f);
	client_get(c);
	serve(sv, &f);
	return event_stashed(c);
}

static void retry_aside(struct server *sv)
{
	struct faults aside = sv->aside;
	unsigned int nr_blocked = 0;

	sv->aside = (struct faults){ 0 };
	for (unsigned int i = 0; i < aside.nr; i++)
		if (client_gate_blocked(aside.list[i].client) &&
		    keep_fault(&sv->aside, &aside.list[i]))
			nr_blocked++;
		else
			serve(sv, &aside.list[i]);
	sv->only_blocked = nr_blocked == sv->aside.nr;
	free(aside.list);
}

static void *server_main(void *arg)
{
	struct server *sv = arg;
	struct pollfd p[MAX_CLIENTS + 1];
	char name[16];

	snprintf(name, sizeof(name), "vswap-fault/%u", sv->id);
	prctl(PR_SET_NAME, name);
	self = sv;
	/* Before the program's own threads, where we may. */
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), -10);
	p[0] = (struct pollfd){ .fd = sv->wake, .events = POLLIN };
	while (!pager_stopping()) {
		struct timespec pause = { 0, 200000 };
		struct client *from[MAX_CLIENTS];
		bool any_parked = false, any_stash = false;
		unsigned int n = 1;
		int ready;

		if (sv->generation != clients_generation())
			refresh_clients(sv);
		if (listens(sv))
			take_aside(sv);
		if (listens(sv) || sv->aside.nr)
			for (unsigned int i = 0; i < sv->nr_clients; i++) {
				if (parked(sv->client[i])) {
					any_parked = true;
					continue;
				}
				/* What was read once no descriptor tells of again. */
				any_stash |= event_stashed(sv->client[i]);
				from[n - 1] = sv->client[i];
				p[n++] = (struct pollfd){ .fd = sv->client[i]->uffd,
							  .events = POLLIN };
			}
		if (any_stash)
			pause.tv_nsec = 0;
		else if (any_parked && (!sv->aside.nr || sv->only_blocked))
			pause.tv_nsec = PARKED_POLL_NS;
		ready = ppoll(p, n, sv->aside.nr || any_parked || any_stash ? &pause : NULL, NULL);
		if (ready < 0 && errno != EINTR) {
			jobs_kill("poll: %s: killed", strerror(errno));
			return NULL;
		}
		if (ready > 0 && p[0].revents) {
			uint64_t drain;

			if (read(sv->wake, &drain, sizeof(drain)) < 0 && errno != EAGAIN)
				pager_say("eventfd: %s (report it: it is a fault of vswap)",
					  strerror(errno));
		}
		for (unsigned int i = 1; (ready > 0 || any_stash) && i < n; i++)
			if ((ready > 0 && p[i].revents) || event_stashed(from[i - 1]))
				while (read_one(sv, from[i - 1]))
					;
		if (sv->aside.nr)
			retry_aside(sv);
	}
	for (unsigned int i = 0; i < sv->aside.nr; i++)
		client_put(sv->aside.list[i].client);
	for (unsigned int i = 0; i < sv->nr_clients; i++)
		client_put(sv->client[i]);
	return NULL;
}

int servers_start(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	servers.cpus = cpus < 1 ? 1 : cpus;
	/* One may have to wait for a client. */
	servers.nr = servers.cpus < 2 ? 2 : servers.cpus < MAX_SERVERS ? servers.cpus : MAX_SERVERS;
	for (unsigned int i = 0; i < servers.nr; i++) {
		struct server *sv = &servers.server[i];
		int ret;

		sv->id = i;
		sv->cpu = -1;
		sv->stat = -1;
		sv->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		sv->buf = mmap(NULL, (RA_LIMIT + 1) * PAGE_SIZE_, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		sv->number = (uint64_t *)(sv->buf + RA_LIMIT * PAGE_SIZE_);
		sv->folio = aligned_alloc(64, RA_LIMIT * sizeof(*sv->folio));
		if (sv->wake < 0 || sv->buf == MAP_FAILED || !sv->folio)
			return -errno;
		for (unsigned int j = 0; j < RA_LIMIT; j++) {
			swap_folio_init(&sv->folio[j].folio, NULL, 0, NULL, folio_release);
			swap_folio_put(&sv->folio[j].folio);
		}
		ret = pthread_create(&sv->thread, NULL, server_main, sv);
		if (ret)
			return -ret;
		sv->started = true;
	}
	return 0;
}

/* pager.stopping is set by now. */
void servers_stop(void)
{
	servers_wake();
	for (unsigned int i = 0; i < servers.nr; i++) {
		struct server *sv = &servers.server[i];

		if (!sv->started)
			continue;
		pthread_join(sv->thread, NULL);
		close(sv->wake);
		if (sv->stat >= 0)
			close(sv->stat);
		munmap(sv->buf, (RA_LIMIT + 1) * PAGE_SIZE_);
		free(sv->folio);
		free(sv->aside.list);
	}
	for (unsigned int i = 0; i < servers.left.nr; i++)
		client_put(servers.left.list[i].client);
	free(servers.left.list);
}
