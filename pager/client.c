// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "coredump.h"
#include "job.h"
#include "lock.h"
#include "mapping.h"
#include "state.h"
#include "thread.h"

#define HANDSHAKE_MS	10000
#define GATE_TIMEOUT_NS 20000000L
#define GATE_PARKED_NS	100000L
#define PARKED_NS	20000000ULL
#define SHARE_BATCH	512
#define WEIGH_TRIES	4
#define ARGUMENT_BYTES	(64 << 10)   /* of those no more stays */
#define WEIGH_BYTES	(1 << 20)    /* made its own: to be weighed anew */
#define GROWTH_BYTES	(512 << 10)  /* the kernel counts what is resident to within some of that */
#define READ_NS		100000000ULL /* more than it takes to read all of /proc/PID/smaps */
#define LOOK_NS		20000000ULL
#define MAX_LOST	64
#define ANYWHERE	(1UL << 20)   /* to ask what holds for all of a client */
#define FORK_NS		2000000000ULL /* one that is not followed by then has failed */

#define TOO_MANY	"more processes than the %d that can be paged in one space"

static struct {
	pthread_mutex_t lock;
	struct client **list;
	unsigned int nr, max;
	uint64_t generation;
	uint64_t last_id;
	struct {
		struct job *job;
		int uffd;
		struct home home;
	} lost[MAX_LOST];
	unsigned int nr_lost;
} clients;

void clients_init(void)
{
	lock_init(&clients.lock);
}

long wire_futex(uint32_t *word, int op, uint32_t val, long timeout_ns)
{
	struct timespec ts = { timeout_ns / 1000000000L, timeout_ns % 1000000000L };

	if (syscall(SYS_futex, word, op, val, timeout_ns ? &ts : NULL, NULL, 0) < 0)
		return -errno;
	return 0;
}

bool client_gate_blocked(const struct client *c)
{
	return __atomic_load_n(&c->parked_ns, __ATOMIC_RELAXED) == ~0ULL;
}

bool client_gate_to_copy(struct client *c)
{
	/* A client killed while its agent was inside leaves the gate shut for ever. */
	while (gate_lock(c->gate, GATE_TO_COPY,
			 client_gate_blocked(c) ? GATE_PARKED_NS : GATE_TIMEOUT_NS) != GATE_ENTERED)
		if (client_gate_blocked(c) || client_is_dead(c) || client_gone(c))
			return false;
	return true;
}

bool client_gate_to_read(struct client *c)
{
	bool parked = __atomic_load_n(&c->parked_ns, __ATOMIC_RELAXED);

	if (gate_lock(c->gate, GATE_TO_READ, parked ? GATE_PARKED_NS : GATE_TIMEOUT_NS) ==
	    GATE_ENTERED) {
		__atomic_store_n(&c->parked_ns, 0, __ATOMIC_RELAXED);
		return true;
	}
	__atomic_store_n(&c->parked_ns, now_ns() + PARKED_NS, __ATOMIC_RELAXED);
	return false;
}

void client_ungate(struct client *c, enum gate_for what)
{
	gate_unlock(c->gate, what);
}

/* @nr is 1 to 3. */
static int send_with_fds(int sock, const struct wire_msg *msg, const int *fds, unsigned int nr,
			 int flags)
{
	union {
		char buf[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { (void *)msg, sizeof(*msg) };
	struct msghdr hdr = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
	return sendmsg(sock, &hdr, MSG_NOSIGNAL | flags) == sizeof(*msg) ? 0 : -errno;
}

/* ---- the list -------------------------------------------------------- */

/* The list's lock is held. */
static void fork_followed(struct client *parent)
{
	uint32_t n = parent->shared ? __atomic_load_n(&parent->shared->forking, __ATOMIC_ACQUIRE) :
				      0;

	/* One by clone(2) itself was not counted. */
	while (n && !__atomic_compare_exchange_n(&parent->shared->forking, &n, n - 1, true,
						 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

/* Children of @c that nobody has heard of yet.  The list's lock is held. */
static unsigned int forks_under_way(struct client *c)
{
	uint32_t n = c->shared ? __atomic_load_n(&c->shared->forking, __ATOMIC_ACQUIRE) : 0;
	uint64_t now = now_ns();

	if (n != c->forking) {
		c->forking = n;
		c->forking_ns = now;
	} else if (n && now > c->forking_ns + FORK_NS &&
		   __atomic_compare_exchange_n(&c->shared->forking, &n, 0, false, __ATOMIC_ACQ_REL,
					       __ATOMIC_ACQUIRE)) {
		n = c->forking = 0;
	}
	return n < MAX_CLIENTS ? n : MAX_CLIENTS;
}

/*
 * One of that family has died, or was born late.  Those left of it share what they were born
 * with, so one accounts for it where nobody is counted.  The list's lock is held.
 */
static void leave_alone(uint64_t family)
{
	struct client *first = NULL;

	for (unsigned int i = 0; i < clients.nr; i++) {
		struct client *c = clients.list[i];

		if (c->family != family)
			continue;
		if (client_is_counted(c) || c->alone)
			return;
		if (!first)
			first = c;
	}
	if (first)
		__atomic_store_n(&first->alone, true, __ATOMIC_RELAXED);
}

/*
 * The parent of @c is no more: the nearest forebear alive is it now.  Else each of a line of
 * daemons would be kept, with its entries, by the next.  Whoever it was is to be put; the
 * list's lock is held.
 */
static void give_parent(struct client *c)
{
	while (c->parent && client_is_dead(c->parent))
		c->parent = c->parent->parent;
	if (c->parent)
		c->parent->ref++;
}

static int clients_add(struct client *c)
{
	struct client *dead = NULL;
	int ret = 0;

	pthread_mutex_lock(&clients.lock);
	if (clients.nr == MAX_CLIENTS) {
		ret = -EUSERS;
	} else if (clients.nr == clients.max) {
		unsigned int max = clients.max ? clients.max * 2 : 16;
		struct client **list = realloc(clients.list, max * sizeof(*list));

		if (list) {
			clients.list = list;
			clients.max = max;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret) {
		c->id = ++clients.last_id;
		if (c->parent) {
			fork_followed(c->parent);
			if (client_is_dead(c->parent)) {
				dead = c->parent;
				give_parent(c);
			}
		}
		if (!c->family)
			c->family = c->id;
		clients.list[clients.nr++] = c;
		/* Its parent may have ended while its birth was followed. */
		leave_alone(c->family);
		__atomic_add_fetch(&clients.generation, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&clients.lock);
	if (dead)
		client_put(dead);
	if (!ret)
		servers_wake();
	return ret;
}

unsigned int clients_get(struct client **list, unsigned int max)
{
	unsigned int n;

	pthread_mutex_lock(&clients.lock);
	for (n = 0; n < clients.nr && n < max; n++) {
		list[n] = clients.list[n];
		list[n]->ref++;
	}
	pthread_mutex_unlock(&clients.lock);
	return n;
}

struct client *client_find(uint64_t id)
{
	struct client *c = NULL;

	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr && !c; i++)
		if (clients.list[i]->id == id) {
			c = clients.list[i];
			c->ref++;
		}
	pthread_mutex_unlock(&clients.lock);
	return c;
}

uint64_t clients_generation(void)
{
	return __atomic_load_n(&clients.generation, __ATOMIC_ACQUIRE);
}

unsigned int clients_without_agent(const struct job *job)
{
	unsigned int n = 0;

	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr; i++)
		n += clients.list[i]->job == job && !client_has_agent(clients.list[i]);
	pthread_mutex_unlock(&clients.lock);
	return n;
}

unsigned int clients_count(void)
{
	unsigned int n;

	pthread_mutex_lock(&clients.lock);
	n = clients.nr;
	pthread_mutex_unlock(&clients.lock);
	return n;
}

void client_get(struct client *c)
{
	pthread_mutex_lock(&clients.lock);
	c->ref++;
	pthread_mutex_unlock(&clients.lock);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Number @i of @h's agent is free, if it is one; the reference goes. */
static void hold_end(struct client *h, unsigned int i)
{
	pthread_mutex_lock(&clients.lock);
	if (i < WIRE_HOLDS)
		h->held[i / 64] &= ~(1ULL << i % 64);
	pthread_mutex_unlock(&clients.lock);
	client_put(h);
}

/*
 * Should we die, the child's userfaultfd would close and its evicted pages read
 * as zeros.  So the nearest forebear with an agent keeps it open too, and kills
 * the child first if it comes to that.
 */
static void hold(struct client *c)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_HOLD };
	struct client *h;
	unsigned int i = WIRE_HOLDS;

	pthread_mutex_lock(&clients.lock);
	h = c->parent;
	while (h && !client_has_agent(h))
		h = h->parent;
	if (h) {
		for (i = 0; i < WIRE_HOLDS && (h->held[i / 64] & 1ULL << i % 64); i++)
			;
		h->ref++;
	}
	if (i < WIRE_HOLDS)
		h->held[i / 64] |= 1ULL << i % 64;
	pthread_mutex_unlock(&clients.lock);
	if (!h)
		return;
	msg.hold = i;
	/* One that is stopped is not waited for: it could not do anything for the child. */
	if (i < WIRE_HOLDS && !send_with_fds(h->sock, &msg, &c->uffd, 1, MSG_DONTWAIT)) {
		c->holder = h;
		c->hold = i;
		return;
	}
	hold_end(h, i);
}

static void unhold(struct client *c)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_DROP, .hold = c->hold };
	struct client *h = c->holder;

	if (!h)
		return;
	c->holder = NULL;
	/* Gone already is as good; if it is stopped, and did not take many, it keeps that one. */
	if (send(h->sock, &msg, sizeof(msg), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EAGAIN)
		client_put(h);
	else
		hold_end(h, c->hold);
}

static void client_free(struct client *c)
{
	/* The list is short of this one and nobody else knows it: no lock is needed. */
	unhold(c);
	if (c->parent)
		client_put(c->parent);
	client_drop_entries(c, 0, 1ULL << 47);
	windows_destroy(&c->win);
	event_all_told(c);
	vacated_destroy(&c->vacated);
	vacated_destroy(&c->unmapping);
	close_fd(c->uffd);
	close_fd(c->sock);
	close_fd(c->statm);
	close_fd(c->stat);
	close_fd(c->pagemap);
	close_fd(c->maps);
	close_fd(c->shared_fd);
	if (c->shared)
		munmap(c->shared, SHARED_BYTES);
	pthread_mutex_destroy(&c->state);
	pthread_cond_destroy(&c->batch_done);
	for (unsigned int i = 0; i < c->nr_doubts; i++)
		free(c->doubt[i].fresh);
	free(c->range);
	free(c->copy);
	free(c->behind.range);
	free(c->own_batch);
	free(c->stash);
	job_put(c->job);
	free(c);
}

void client_put(struct client *c)
{
	bool last;

	pthread_mutex_lock(&clients.lock);
	last = --c->ref == 0;
	pthread_mutex_unlock(&clients.lock);
	if (last)
		client_free(c);
}

static bool accounts(const struct client *c)
{
	return client_is_counted(c) && !client_is_dead(c);
}

/* Who accounts for @c, which is not counted?  NULL: nobody.  The list's lock is held. */
static struct client *accountant(const struct client *c)
{
	struct client *r = c->parent;

	while (r && !accounts(r))
		r = r->parent;
	for (unsigned int i = 0; !r && i < clients.nr; i++)
		if (clients.list[i]->family == c->family && accounts(clients.list[i]))
			r = clients.list[i];
	return r;
}

/*
 * How many others of its family there are; in *@its those that have no agent, so are not
 * counted, and for which @c accounts.  The list's lock is held.
 */
static unsigned int relatives(const struct client *c, unsigned int *its)
{
	unsigned int all = 0;

	*its = 0;
	for (unsigned int i = 0; i < clients.nr; i++) {
		const struct client *r = clients.list[i];

		if (r == c || r->family != c->family)
			continue;
		all++;
		*its += !client_is_counted(r) && accountant(r) == c;
	}
	return all;
}

/*
 * @left bytes that @c accounted for, some of them shared: others do from now on.  Until
 * they are weighed anew all of it is taken for theirs.
 *
 * With @heirs, @c is no more, and not on the list, and had so many.  It may have been looked
 * at when exec() had given it another memory, so it leaves no less than what it would if
 * all shared all: of n each takes (n - 1) / n for others', and with one gone (n - 2) / (n - 1).
 * The list's lock is held.
 */
static void bequeath(const struct client *c, uint64_t left, uint64_t heirs)
{
	for (unsigned int i = 0; i < clients.nr; i++) {
		struct client *heir = clients.list[i];
		uint64_t foreign = count_read(&heir->foreign.anon);
		uint64_t part = foreign < left ? foreign : left;

		if (heir == c || heir->family != c->family)
			continue;
		left -= part;
		if (heirs) {
			heir->deaths++;
			if (part < foreign / (heirs * heirs))
				part = foreign / (heirs * heirs);
			count_add(&heir->foreign.guessed, part);
		}
		/* Weighed just now is weighed again. */
		__atomic_store_n(&heir->foreign.anon, foreign - part, __ATOMIC_RELAXED);
	}
}

void client_gave(struct client *c, uint64_t bytes)
{
	pthread_mutex_lock(&clients.lock);
	bequeath(c, bytes, 0);
	pthread_mutex_unlock(&clients.lock);
}

void client_dead(struct client *c)
{
	unsigned int its, children = 0;
	bool mine = false;

	if (!client_is_dead(c))
		coredump_note(c);
	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr; i++)
		if (clients.list[i] == c) {
			clients.list[i] = clients.list[--clients.nr];
			mine = true;
			bequeath(c, count_read(&c->own_anon), relatives(c, &its));
			break;
		}
	__atomic_store_n(&c->dead, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < clients.nr; i++)
		if (clients.list[i]->parent == c) {
			give_parent(clients.list[i]);
			children++;
		}
	leave_alone(c->family);
	__atomic_add_fetch(&clients.generation, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&clients.lock);
	servers_wake();
	/* What it shared is another's alone. */
	reclaim_weigh();
	/* Never the last: the caller has one. */
	while (children--)
		client_put(c);
	if (!mine)
		return;
	pthread_mutex_lock(&c->state);
	event_follow_forks(c);
	pthread_mutex_unlock(&c->state);
	client_put(c);
}

int try_copy(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_copy probe = { .dst = start, .len = end - start };

	return ioctl(uffd, UFFDIO_COPY, &probe) ? errno : 0;
}

static bool memory_gone(int uffd)
{
	return try_copy(uffd, ANYWHERE, ANYWHERE + PAGE_SIZE_) == ESRCH;
}

bool client_map_changes(const struct client *c)
{
	return try_copy(c->uffd, ANYWHERE, ANYWHERE + PAGE_SIZE_) == EAGAIN;
}

bool client_gone(struct client *c)
{
	return client_is_dead(c) || memory_gone(c->uffd);
}

bool client_linger(struct client *c, uint64_t ns)
{
	bool has_batch;

	if (!client_lingers(c)) {
		__atomic_store_n(&c->pid, 0, __ATOMIC_RELAXED);
		c->hung_up_charged = __atomic_load_n(&c->charged, __ATOMIC_RELAXED);
		__atomic_store_n(&c->hung_up_ns, now_ns(), __ATOMIC_RELEASE);
	}
	pthread_mutex_lock(&c->state);
	has_batch = c->batch;
	pthread_mutex_unlock(&c->state);
	return !has_batch || now_ns() < c->hung_up_ns + ns;
}

static struct home home_of(const struct client *c)
{
	/* Behind the guard, which others like it may be joined to. */
	return (struct home){ c->own[0].start, c->own[1].start + PAGE_SIZE_ };
}

/*
 * A child of @parent that cannot be a client: were its userfaultfd closed before it is gone,
 * its evicted pages would read as zeros.  One too many is never closed.
 */
static void lose(struct client *parent, int uffd)
{
	pthread_mutex_lock(&clients.lock);
	if (clients.nr_lost < MAX_LOST) {
		job_get(parent->job);
		clients.lost[clients.nr_lost].job = parent->job;
		clients.lost[clients.nr_lost].uffd = uffd;
		clients.lost[clients.nr_lost++].home = home_of(parent);
	}
	pthread_mutex_unlock(&clients.lock);
}

bool clients_lost(struct job *job)
{
	unsigned int gone = 0;
	bool any = false;

	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr_lost;) {
		if (clients.lost[i].job != job) {
			i++;
		} else if (memory_gone(clients.lost[i].uffd)) {
			close(clients.lost[i].uffd);
			clients.lost[i] = clients.lost[--clients.nr_lost];
			gone++;
		} else {
			any = true;
			i++;
		}
	}
	pthread_mutex_unlock(&clients.lock);
	/* Never the last: the caller has one. */
	while (gone--)
		job_put(job);
	return any;
}

static unsigned int add_home(struct home *list, unsigned int n, struct home home)
{
	for (unsigned int i = 0; i < n; i++)
		if (list[i].code == home.code && list[i].area == home.area)
			return n;
	list[n] = home;
	return n + 1;
}

unsigned int clients_homes(const struct job *job, struct home *list)
{
	unsigned int n = 0;

	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr; i++)
		if (clients.list[i]->job == job && client_pid(clients.list[i]) <= 0)
			n = add_home(list, n, home_of(clients.list[i]));
	for (unsigned int i = 0; i < clients.nr_lost && n < MAX_CLIENTS; i++)
		if (clients.lost[i].job == job)
			n = add_home(list, n, clients.lost[i].home);
	pthread_mutex_unlock(&clients.lock);
	return n;
}

/*
 * Faults of its threads that were not served by us.  That a page a fork has shared was
 * written, and is its own now, is seen in nothing else without a walk of its page tables.
 */
static uint64_t minor_faults(struct client *c)
{
	uint64_t served = count_read(&c->faults);
	unsigned long faults;
	char buf[256], *p;
	ssize_t n = pread(c->stat, buf, sizeof(buf) - 1, 0);

	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strrchr(buf, ')');
	if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %lu", &faults) != 1)
		return 0;
	return faults > served ? faults - served : 0;
}

/*
 * Resident bytes, of anonymous memory and of files, all that the kernel counts: none of a
 * process that is going.  0 or -errno.
 */
static int read_statm(struct client *c, uint64_t *anon, uint64_t *file)
{
	unsigned long size, resident, shared;
	char buf[128];
	ssize_t n = pread(c->statm, buf, sizeof(buf) - 1, 0);

	/* The agent ends with its process. */
	if (n < 0 && errno != ESRCH)
		return -errno;
	if (n <= 0) {
		*anon = *file = 0;
		return 0;
	}
	buf[n] = 0;
	if (sscanf(buf, "%lu %lu %lu", &size, &resident, &shared) != 3)
		return -EIO;
	*anon = (resident - shared) * PAGE_SIZE_;
	*file = shared * PAGE_SIZE_;
	return 0;
}

/* Of @anon resident bytes, those that came otherwise than by us: a fault each, too. */
static int64_t touched(struct client *c, uint64_t anon)
{
	return (int64_t)anon - __atomic_load_n(&c->charged, __ATOMIC_RELAXED);
}

/* What others account for of its @anon resident bytes, less what it has made its own since. */
static uint64_t foreign_anon(struct client *c, uint64_t anon)
{
	uint64_t foreign = count_read(&c->foreign.anon);
	int64_t own, new;

	if (!foreign)
		return 0;
	own = (int64_t)(minor_faults(c) - count_read(&c->foreign.faults)) * (int64_t)PAGE_SIZE_;
	new = touched(c, anon) - __atomic_load_n(&c->foreign.touched, __ATOMIC_RELAXED);
	if (new > 0)
		own -= new;
	if (own > WEIGH_BYTES)
		reclaim_weigh();
	if (own > 0)
		foreign -= (uint64_t)own < foreign ? (uint64_t)own : foreign;
	return foreign < anon ? foreign : anon;
}

static uint64_t charged_anon(const struct client *c)
{
	int64_t charged = __atomic_load_n(&c->charged, __ATOMIC_RELAXED);

	return charged > 0 ? (uint64_t)charged : 0;
}

int client_resident(struct client *c, uint64_t *anon, uint64_t *file)
{
	uint64_t foreign = count_read(&c->foreign.file);
	int ret;

	if (!client_is_counted(c)) {
		*anon = charged_anon(c);
		if (__atomic_load_n(&c->alone, __ATOMIC_RELAXED))
			*anon += count_read(&c->inherited);
		*file = 0;
		return 0;
	}
	/*
	 * Nobody tells of it any more but we: what it had, and what we have brought since.  It may
	 * be gone, and somebody is reading of it in /proc, as our own threads do.
	 */
	if (client_lingers(c)) {
		int64_t since = __atomic_load_n(&c->charged, __ATOMIC_RELAXED) - c->hung_up_charged;

		*anon = count_read(&c->own_anon) + (since > 0 ? (uint64_t)since : 0);
		*file = 0;
		return now_ns() < c->hung_up_ns + READ_NS;
	}
	ret = read_statm(c, anon, file);
	if (ret)
		return ret;
	*anon -= foreign_anon(c, *anon);
	/* Gone, and not known to be: what it accounted for others do, see bequeath(). */
	if (!*anon && !*file) {
		*anon = count_read(&c->own_anon);
		return 1;
	}
	__atomic_store_n(&c->own_anon, *anon, __ATOMIC_RELAXED);
	*file -= foreign < *file ? foreign : *file;
	return 0;
}

uint64_t client_guessed(const struct client *c)
{
	return count_read(&c->foreign.guessed);
}

void client_charge(struct client *c, int64_t bytes)
{
	__atomic_add_fetch(&c->charged, bytes, __ATOMIC_RELAXED);
	budget_charge(c->job->group, bytes);
}

void client_dropped(struct client *c, uint64_t bytes)
{
	uint64_t charged = charged_anon(c), inherited = count_read(&c->inherited);
	uint64_t brought = bytes < charged ? bytes : charged;

	if (client_is_counted(c))
		return;
	if (brought)
		client_charge(c, -(int64_t)brought);
	bytes -= brought;
	__atomic_store_n(&c->inherited, inherited - (bytes < inherited ? bytes : inherited),
			 __ATOMIC_RELAXED);
}

bool client_shares(struct client *c)
{
	return count_read(&c->foreign.anon) > WEIGH_BYTES;
}

bool client_has_grown(struct client *c, uint64_t now)
{
	uint64_t anon, file;
	int64_t unseen, most;

	if (read_statm(c, &anon, &file))
		return false;
	unseen = touched(c, anon);
	/*
	 * By as much as it has unmapped it could grow and not be above what it was.  Only a
	 * batch on its way out is not resident and charged all the same.
	 */
	most = unseen + (int64_t)(pager.batch_pages * PAGE_SIZE_);
	if (c->unseen > most)
		c->unseen = most;
	if (client_registered(c) && unseen < c->unseen + GROWTH_BYTES && now < c->next_look_ns)
		return false;
	c->unseen = unseen;
	c->next_look_ns = now + LOOK_NS;
	return true;
}

/* Lines "name:   N kB" of a file of /proc: values in bytes, 0 for a line that is not there. */
static void proc_kb(const struct client *c, const char *file, const char *const *name,
		    uint64_t *value, unsigned int nr)
{
	char path[THREAD_PATH], line[256];
	unsigned long kb;
	FILE *f;

	memset(value, 0, nr * sizeof(*value));
	thread_path(path, client_pid(c), c->agent_tid, file);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		for (unsigned int i = 0; i < nr; i++)
			if (!strncmp(line, name[i], strlen(name[i])) &&
			    sscanf(line + strlen(name[i]), ": %lu kB", &kb) == 1)
				value[i] = (uint64_t)kb << 10;
	fclose(f);
}

static void weigh(struct client *c, struct weight *w)
{
	static const char *const names[] = { "Anonymous", "Pss_Anon", "Pss_File" };
	static const char *const rss[] = { "RssFile" };
	uint64_t of[3], file;

	/* Of one walk: a program may touch some MiB between two. */
	proc_kb(c, "smaps_rollup", names, of, 3);
	proc_kb(c, "status", rss, &file, 1);
	/* Nothing to be read: all is its own. */
	w->anon = of[1] && of[0] > of[1] ? of[0] - of[1] : 0;
	w->file = of[2] && file > of[2] ? file - of[2] : 0;
}

bool clients_weigh(struct client **list, unsigned int n)
{
	/* Taken with no other lock held; the list's is taken in it. */
	static pthread_mutex_t weighing = PTHREAD_MUTEX_INITIALIZER;
	struct weight weight[MAX_CLIENTS];
	uint64_t deaths[MAX_CLIENTS];
	uint64_t anon, file;
	bool all_told = true;

	pthread_mutex_lock(&weighing);
	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < n; i++)
		deaths[i] = list[i]->deaths;
	pthread_mutex_unlock(&clients.lock);
	/* What one writes while the others are walked is to be seen as its own. */
	for (unsigned int i = 0; i < n; i++) {
		weight[i].guessed = 0;
		weight[i].faults = minor_faults(list[i]);
		weight[i].touched = read_statm(list[i], &anon, &file) ? 0 : touched(list[i], anon);
	}
	for (unsigned int i = 0; i < n; i++)
		weigh(list[i], &weight[i]);
	/* All at once: what one of them no longer accounts for, another does. */
	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < n; i++)
		if (deaths[i] == list[i]->deaths)
			__atomic_store_n(&list[i]->counted, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < n; i++) {
		struct weight *w = &list[i]->foreign;
		unsigned int its, all = relatives(list[i], &its);
		unsigned int unborn = forks_under_way(list[i]);

		/* Who died may have been weighed with it; what that left it has, see bequeath(). */
		if (deaths[i] != list[i]->deaths) {
			all_told = false;
			continue;
		}
		/*
		 * The part of a child without an agent is counted here, or it would be nowhere;
		 * also of one the kernel has made, perhaps, whose event is to be read yet.
		 */
		if (its)
			weight[i].anon = weight[i].anon * (all - its) / all;
		if (unborn) {
			weight[i].guessed = weight[i].anon * unborn / (all + unborn);
			weight[i].anon -= weight[i].guessed;
		}
		__atomic_store_n(&w->guessed, weight[i].guessed, __ATOMIC_RELAXED);
		__atomic_store_n(&w->faults, weight[i].faults, __ATOMIC_RELAXED);
		__atomic_store_n(&w->touched, weight[i].touched, __ATOMIC_RELAXED);
		__atomic_store_n(&w->anon, weight[i].anon, __ATOMIC_RELAXED);
		__atomic_store_n(&w->file, weight[i].file, __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&clients.generation, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&clients.lock);
	pthread_mutex_unlock(&weighing);
	return all_told;
}

/* ---- birth ----------------------------------------------------------- */

static struct client *client_new(struct job *job)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->ref = 1;
	c->uffd = c->sock = c->statm = c->stat = c->pagemap = c->maps = c->shared_fd = -1;
	if (windows_init(&c->win)) {
		free(c);
		return NULL;
	}
	lock_init(&c->state);
	pthread_cond_init(&c->batch_done, NULL);
	job_get(job);
	c->job = job;
	return c;
}

int client_receive(int sock, struct wire_msg *msg, int *fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr hdr = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
	};
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct cmsghdr *cmsg;
	ssize_t n;

	/* Padding would do for a second one. */
	hdr.msg_controllen = CMSG_LEN(sizeof(int));
	*fd = -1;
	do {
		n = poll(&p, 1, HANDSHAKE_MS);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	n = recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n ? -errno : -ECONNRESET;
	cmsg = CMSG_FIRSTHDR(&hdr);
	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(cmsg), sizeof(*fd));
	if (n != sizeof(*msg) || msg->magic != WIRE_MAGIC)
		return -EPROTO;
	return 0;
}

static int open_proc(pid_t pid, uint32_t tid, const char *name)
{
	char path[THREAD_PATH];

	thread_path(path, pid, tid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The client's control block; the descriptor for the agent, or -errno. */
static int make_shared(struct client *c)
{
	int fd = memfd_create("vswap-agent", MFD_CLOEXEC);
	void *p;

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, SHARED_BYTES)) {
		p = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) {
			c->shared = p;
			c->gate = &c->shared->gate;
			return fd;
		}
	}
	close(fd);
	return -errno;
}

/*
 * What can be read of a process whose agent is thread @tid.  0, or -errno: it is gone, or the
 * reason was said.
 */
static int open_process(struct client *c, pid_t pid, uint32_t tid)
{
	int err;

	c->statm = open_proc(pid, tid, "statm");
	/* Of all its threads. */
	c->stat = open_proc(pid, 0, "stat");
	c->pagemap = open_proc(pid, tid, "pagemap");
	c->maps = open_proc(pid, tid, "maps");
	if (c->statm >= 0 && c->stat >= 0 && c->pagemap >= 0 && c->maps >= 0)
		return 0;
	err = errno;
	if (err != ENOENT && err != ESRCH)
		job_say(c->job, "/proc/%d: %s (may vswap trace this process?)", pid, strerror(err));
	return -err;
}

/*
 * Where its arguments and environment lie.  Others read them by /proc/PID/cmdline, for which
 * the kernel waits for no page: ps(1) would find nothing there.
 */
static void find_arguments(struct client *c)
{
	unsigned long start, end;
	char buf[1024], *p;
	ssize_t n = pread(c->stat, buf, sizeof(buf) - 1, 0);

	if (n <= 0)
		return;
	buf[n] = 0;
	/* Fields 48 to 51: the one, then the other. */
	p = strrchr(buf, ')');
	for (unsigned int field = 2; p && field < 48; field++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, " %lu %*u %*u %lu", &start, &end) != 2 || end < start)
		return;
	if (end - start > ARGUMENT_BYTES)
		end = start + ARGUMENT_BYTES;
	c->arguments = (struct range){ start & ~(PAGE_SIZE_ - 1), end };
}

/*
 * Where memory is short the program waits for its agent, which is to wait for a CPU behind
 * none of the program's threads.  Where that is not allowed, or the number is of another
 * namespace, it is one thread among them.
 */
static void hurry_agent(const struct client *c)
{
	if (thread_of(client_pid(c), c->agent_tid))
		setpriority(PRIO_PROCESS, c->agent_tid, -10);
}

/*
 * What it shares with who accounted for it so far is not to count twice, nor not at all
 * meanwhile.
 */
static void weigh_adopted(struct client *c)
{
	bool told = false;

	for (unsigned int i = 0; i < WEIGH_TRIES && !told; i++) {
		struct client *other;

		pthread_mutex_lock(&clients.lock);
		other = accountant(c);
		if (other)
			other->ref++;
		pthread_mutex_unlock(&clients.lock);
		told = clients_weigh((struct client *[]){ c, other }, other ? 2 : 1);
		if (other)
			client_put(other);
	}
}

/*
 * The agent of a forked child on @sock, a thread of process @pid.  Until the end of
 * this the child is a client without an agent, and stays one when anything fails.
 */
static int adopt(struct job *job, int sock, pid_t pid, const struct wire_msg *hello)
{
	struct client *c = client_find(hello->client), *parent;
	struct wire_msg msg = {
		.magic = WIRE_MAGIC,
		.type = WIRE_WELCOME,
		.frames_bytes = frames_bytes(),
		.staging_pages = pager.batch_pages,
	};
	int ret = -ENOENT, fd = -1;

	if (!c)
		return -ENOENT;
	if (c->job != job || client_has_agent(c) || client_gone(c) || c->statm >= 0 ||
	    open_process(c, pid, hello->tid) ||
	    send_with_fds(sock, &msg, (int[]){ c->shared_fd, frames_fd(), c->uffd }, 3, 0) ||
	    client_receive(sock, &msg, &fd) || msg.type != WIRE_READY)
		goto out;
	close_fd(c->shared_fd);
	c->shared_fd = -1;
	c->agent_tid = hello->tid;
	/* Who knows the one knows the other. */
	__atomic_store_n(&c->pid, pid, __ATOMIC_RELEASE);
	hurry_agent(c);
	weigh_adopted(c);
	reclaim_begins(c);
	/* It is counted before it is let go.  A failure is found out as anyone's death. */
	__atomic_store_n(&c->sock, sock, __ATOMIC_RELEASE);
	msg.type = WIRE_GO;
	send(sock, &msg, sizeof(msg), MSG_NOSIGNAL);
	reclaim_weigh();
	/* Its own agent keeps its userfaultfd now, and those of its children. */
	unhold(c);
	pthread_mutex_lock(&clients.lock);
	parent = c->parent;
	c->parent = NULL;
	pthread_mutex_unlock(&clients.lock);
	if (parent)
		client_put(parent);
	ret = 0;
out:
	close_fd(fd);
	client_put(c);
	return ret;
}

int client_accept(struct job *job, int sock, pid_t pid, const struct wire_msg *hello, int uffd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = pager.features };
	struct wire_msg msg = *hello;
	struct client *c;
	int fds[2], fd = -1, ret;

	if (msg.type == WIRE_HELLO_CHILD) {
		close_fd(uffd);
		return adopt(job, sock, pid, hello);
	}
	c = client_new(job);
	if (!c) {
		close_fd(uffd);
		job_say(job, "cannot manage the program: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	c->pid = pid;
	c->is_program = pid == __atomic_load_n(&job->pid, __ATOMIC_RELAXED);
	c->uffd = uffd;
	if (msg.type != WIRE_HELLO) {
		job_say(job, "agent: no greeting from process %d: %s", pid, strerror(EPROTO));
		goto fail;
	}
	if (msg.error || c->uffd < 0) {
		job_say(job,
			"userfaultfd: %s (run as root, or set sysctl vm.unprivileged_userfaultfd=1, "
			"or give access to /dev/userfaultfd; see 'vswap doctor')",
			strerror(msg.error ? msg.error : EBADF));
		goto fail;
	}
	if (ioctl(c->uffd, UFFDIO_API, &api)) {
		job_say(job,
			"userfaultfd: fork events: %s (run as root, or give vswap the capability "
			"CAP_SYS_PTRACE; see 'vswap doctor')",
			strerror(errno));
		goto fail;
	}
	msg = (struct wire_msg){
		.magic = WIRE_MAGIC,
		.type = WIRE_WELCOME,
		.frames_bytes = frames_bytes(),
		.staging_pages = pager.batch_pages,
	};
	fds[0] = ret = make_shared(c);
	fds[1] = frames_fd();
	if (ret >= 0) {
		ret = send_with_fds(sock, &msg, fds, 2, 0);
		close(fds[0]);
	}
	if (!ret)
		ret = client_receive(sock, &msg, &fd);
	close_fd(fd);
	if (ret == -ECONNRESET || ret == -EPIPE) {
		client_free(c);
		return -ENOENT;
	}
	if (ret || msg.type != WIRE_READY || msg.error) {
		job_say(job,
			"agent: cannot be set up in process %d: %s (is its address space or number "
			"of threads limited? see 'ulimit -a')",
			pid,
			strerror(ret	   ? -ret :
				 msg.error ? (int)msg.error :
					     EPROTO));
		goto fail;
	}
	memcpy(c->own, msg.own, sizeof(c->own));
	c->agent_tid = msg.tid;
	c->copy_mode = !(pager.features & UFFD_FEATURE_MOVE);
	if (open_process(c, pid, msg.tid))
		goto fail;
	find_arguments(c);
	hurry_agent(c);
	/* Not blocking: which message comes first is seen only with the gate in hand. */
	ret = fcntl(c->uffd, F_GETFL);
	if (ret < 0 || fcntl(c->uffd, F_SETFL, ret | O_NONBLOCK)) {
		job_say(job, "userfaultfd: %s", strerror(errno));
		goto fail;
	}
	c->sock = sock;
	reclaim_begins(c);
	ret = clients_add(c);
	if (!ret) {
		/* From here on its death is found out as anyone's. */
		msg.type = WIRE_GO;
		send(sock, &msg, sizeof(msg), MSG_NOSIGNAL);
		return 0;
	}
	if (ret == -EUSERS)
		job_say(job, TOO_MANY " (run fewer at once)", MAX_CLIENTS);
	else
		job_say(job, "cannot manage the program: %s", strerror(-ret));
	c->sock = -1;
fail:
	client_free(c);
	return -EIO;
}

/* All entries of @from to @to as well, counted.  0 or -ENOMEM; what was done stays. */
static int share_entries(struct client *to, const struct client *from)
{
	uint64_t addr = 0, end = 1ULL << 47;

	while ((addr = window_next(&from->win, addr, end)) < end) {
		vswp_entry_t first = window_get(&from->win, addr);
		unsigned int nr = 1;

		while (nr < SHARE_BATCH &&
		       window_get(&from->win, addr + nr * PAGE_SIZE_).val == first.val + nr)
			nr++;
		if (swap_dup_range(pager.space, first, nr))
			return -ENOMEM;
		for (unsigned int i = 0; i < nr; i++)
			if (window_set(&to->win, addr + i * PAGE_SIZE_,
				       vswp_entry(first.val + i))) {
				swap_free_range(pager.space, vswp_entry(first.val + i), nr - i);
				return -ENOMEM;
			}
		addr += nr * PAGE_SIZE_;
	}
	return 0;
}

static bool drop_kept(void *child, const struct mapping *m)
{
	client_drop_entries(child, m->start, m->end);
	return true;
}

/* What the parent keeps from its children; the child's own children, too. */
static void drop_all_kept(struct client *child, const struct client *parent)
{
	pid_t pid = client_pid(parent);
	char path[THREAD_PATH];
	int ret = 0;

	if (pid) {
		thread_path(path, pid, parent->agent_tid, "smaps");
		ret = mappings_kept(path, drop_kept, child);
	} else if (client_lingers(parent)) {
		strcpy(path, "/proc");
		ret = -ECHILD;
	}
	__atomic_store_n(&child->shared->keeps, 1, __ATOMIC_RELAXED);
	if (ret && ret != -ENOENT && ret != -ESRCH)
		job_kill(child->job,
			 "%s: %s: what is kept from a child (MADV_WIPEONFORK, "
			 "MADV_DONTFORK) cannot be told: killed",
			 path, strerror(-ret));
}

/* What a child of @c is born with: all that has, its own or not. */
static uint64_t inheritance(struct client *c)
{
	uint64_t anon, file;

	if (!client_is_counted(c))
		return charged_anon(c) + count_read(&c->inherited);
	if (!read_statm(c, &anon, &file) && anon)
		return anon;
	/* It has ended since: what was last seen. */
	return count_read(&c->own_anon) + count_read(&c->foreign.anon);
}

struct client *client_fork(struct client *parent, int uffd, bool protect)
{
	struct client *c = client_new(parent->job);
	int ret = 0;

	if (!c) {
		lose(parent, uffd);
		return NULL;
	}
	c->uffd = uffd;
	c->copy_mode = parent->copy_mode;
	memcpy(c->own, parent->own, sizeof(c->own));
	c->arguments = parent->arguments;
	client_get(parent);
	c->parent = parent;
	c->family = parent->family;
	c->inherited = inheritance(parent);
	c->is_protected = protect;
	c->shared_fd = make_shared(c);
	if (c->shared_fd < 0)
		goto fail;
	hold(c);
	if (share_entries(c, parent))
		goto fail;
	if (__atomic_load_n(&parent->shared->keeps, __ATOMIC_RELAXED))
		drop_all_kept(c, parent);
	if (protect)
		client_protect_child(parent, uffd);
	ret = clients_add(c);
	if (ret)
		goto fail;
	/* Before it can fork again. */
	if (client_has_agent(parent))
		reclaim_forks(parent);
	/* Not yet: the thread that forks has not seen that the event was read. */
	__atomic_store_n(&parent->protect, protect, __ATOMIC_RELAXED);
	__atomic_store_n(&parent->is_protected, protect, __ATOMIC_RELAXED);
	return c;
fail:
	lose(parent, uffd);
	c->uffd = -1;
	client_free(c);
	if (ret == -EUSERS)
		job_kill(parent->job, TOO_MANY ": killed (run fewer at once)", MAX_CLIENTS);
	return NULL;
}

void clients_kill(const struct job *job)
{
	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr; i++) {
		pid_t pid = client_pid(clients.list[i]);

		if (clients.list[i]->job == job && pid > 0)
			kill(pid, SIGKILL);
	}
	pthread_mutex_unlock(&clients.lock);
}
