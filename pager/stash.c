// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What was read and is still to be followed or served, and what of it comes next.
 *
 * A thread gives back the kernel's lock on its mappings before it queues its event, so
 * events of two threads may be read in another order than that of what they tell of.
 * Of a fork the order matters: the child has what its parent had just then.  So beside
 * a fork all is read that may have come before it, and the child itself tells what did:
 * what is registered in it still was unmapped, or moved, later.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "client.h"
#include "job.h"
#include "state.h"

/* Then a thread that was to queue one had its turn: where CPUs are rationed so had we. */
#define ORDER_NS     20000000ULL
#define ORDER_TURNS  200
#define ORDER_YIELDS 16
#define ORDER_US     50
#define FORKING	     reserved3 /* of a message put by: when it was read, a fork was under way */

static bool is_forking(const struct client *c)
{
	return __atomic_load_n(&c->shared->forking, __ATOMIC_ACQUIRE);
}

void event_stash(struct client *c, const struct uffd_msg *msg)
{
	if (c->nr_stash == c->max_stash) {
		unsigned int max = c->max_stash ? c->max_stash * 2 : 16;
		struct uffd_msg *more = realloc(c->stash, max * sizeof(*more));

		if (!more) {
			event_no_memory(c);
			return;
		}
		c->stash = more;
		c->max_stash = max;
	}
	c->stash[c->nr_stash] = *msg;
	c->stash[c->nr_stash].FORKING = is_forking(c);
	__atomic_store_n(&c->nr_stash, c->nr_stash + 1, __ATOMIC_RELAXED);
}

static void stash_remove(struct client *c, unsigned int i, struct uffd_msg *msg)
{
	*msg = c->stash[i];
	__atomic_store_n(&c->nr_stash, c->nr_stash - 1, __ATOMIC_RELAXED);
	memmove(c->stash + i, c->stash + i + 1, (c->nr_stash - i) * sizeof(*msg));
}

bool event_read(struct client *c, struct uffd_msg *msg)
{
	ssize_t n = read(c->uffd, msg, sizeof(*msg));

	/* There it is a fork, whose event stays where it is for want of a descriptor. */
	if (n < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		job_kill(c->job,
			 "a fork cannot be followed: %s: killed (raise the limit on open files, "
			 "'ulimit -Hn', or free memory)",
			 strerror(errno));
	return n == sizeof(*msg);
}

bool event_unfollowed(const struct client *c)
{
	for (unsigned int i = 0; i < c->nr_stash; i++)
		if (c->stash[i].event != UFFD_EVENT_PAGEFAULT)
			return true;
	return false;
}

bool event_has_fork(const struct client *c)
{
	for (unsigned int i = 0; i < c->nr_stash; i++)
		if (c->stash[i].event == UFFD_EVENT_FORK)
			return true;
	return false;
}

bool event_unstash_fault(struct client *c, struct uffd_msg *msg)
{
	for (unsigned int i = 0; i < c->nr_stash; i++)
		if (c->stash[i].event == UFFD_EVENT_PAGEFAULT) {
			stash_remove(c, i, msg);
			return true;
		}
	return false;
}

static bool is_unmap_of(const struct uffd_msg *msg, uint64_t addr)
{
	return msg->event == UFFD_EVENT_UNMAP && msg->arg.remove.start <= addr &&
	       msg->arg.remove.end > addr;
}

static bool is_remap_into(const struct uffd_msg *msg, uint64_t start, uint64_t end)
{
	return msg->event == UFFD_EVENT_REMAP && msg->arg.remap.to < end &&
	       msg->arg.remap.to + msg->arg.remap.len > start;
}

/* Is the page at @addr registered with @child?  -1: it changes its own map, and cannot tell. */
static int is_in(int child, uint64_t addr)
{
	int err = try_copy(child, addr, addr + PAGE_SIZE_);

	return err == EAGAIN ? -1 : err == EFAULT || err == EEXIST;
}

/* Is the mremap() that event @i tells of, as far as it matters, older than fork @fork? */
static bool moved_before(struct client *c, unsigned int i, unsigned int fork)
{
	const struct uffd_msg *msg = &c->stash[i];
	uint64_t from = msg->arg.remap.from, end = from + msg->arg.remap.len, to, at;
	int child = (int)c->stash[fork].arg.fork.ufd, old, new;

	at = vacated_next(&c->vacated, from, window_next(&c->win, from, end));
	if (at == end)
		return false;
	to = msg->arg.remap.to + (at - from);
	old = is_in(child, at);
	new = is_in(child, to);
	if (old < 0 || new < 0)
		return i < fork;
	if (!old)
		return true;
	/* It may have been left mapped: the new place tells, if nothing was there before. */
	if (!new)
		return false;
	/* What was there is unmapped first: then nothing tells but which of them was read first. */
	for (unsigned int j = i; j-- > 0;)
		if (is_unmap_of(&c->stash[j], to))
			return j < fork;
	return true;
}

/* The same of a munmap(), or of what an mremap() or mmap() did away with. */
static bool unmapped_before(struct client *c, unsigned int i, unsigned int fork)
{
	uint64_t start = c->stash[i].arg.remove.start, end = c->stash[i].arg.remove.end;
	uint64_t at = window_next(&c->win, start, end);
	int old = at < end ? is_in((int)c->stash[fork].arg.fork.ufd, at) : 1;

	if (old <= 0)
		return old ? i < fork : true;
	/* Or is what is there by now what was moved to it then? */
	for (unsigned int j = i + 1; j < c->nr_stash; j++)
		if (is_remap_into(&c->stash[j], start, end))
			return moved_before(c, j, fork);
	return false;
}

static bool came_before(struct client *c, unsigned int i, unsigned int fork)
{
	const struct uffd_msg *msg = &c->stash[i];

	if (msg->event == UFFD_EVENT_PAGEFAULT || msg->event == UFFD_EVENT_FORK)
		return false;
	/* No fork was under way yet; and MADV_DONTNEED is posted before it does anything. */
	if (!msg->FORKING || msg->event == UFFD_EVENT_REMOVE)
		return i < fork;
	return msg->event == UFFD_EVENT_REMAP ? moved_before(c, i, fork) :
						unmapped_before(c, i, fork);
}

/* Is a fork among them, or may one come that is older than they are?  State lock held. */
static bool order_matters(const struct client *c)
{
	bool forking = is_forking(c), change = false;
	uint64_t end = 1ULL << 47;

	for (unsigned int i = 0; i < c->nr_stash; i++) {
		unsigned int event = c->stash[i].event;

		change |= event == UFFD_EVENT_FORK ||
			  (forking && (event == UFFD_EVENT_UNMAP || event == UFFD_EVENT_REMAP));
	}
	return change && (c->batch || c->vacated.pages || window_next(&c->win, 0, end) < end);
}

bool event_gather(struct client *c)
{
	uint64_t until = now_ns() + ORDER_NS;
	unsigned int tries = 0;
	struct uffd_msg msg;

	if (!order_matters(c))
		return false;
	while ((now_ns() < until || tries < ORDER_TURNS) &&
	       !__atomic_load_n(&c->job->killed, __ATOMIC_RELAXED)) {
		if (event_read(c, &msg)) {
			event_stash(c, &msg);
			continue;
		}
		if (!client_map_changes(c))
			break;
		pthread_mutex_unlock(&c->state);
		/* It may take long: others are to be listened to. */
		if (tries == ORDER_YIELDS)
			servers_blocked(c, true);
		if (tries++ < ORDER_YIELDS)
			sched_yield();
		else
			usleep(ORDER_US);
		pthread_mutex_lock(&c->state);
	}
	if (tries > ORDER_YIELDS)
		servers_blocked(c, false);
	return true;
}

/* What comes before the fork at @i: how many, and in *first which is the next of them. */
static unsigned int older(struct client *c, unsigned int i, unsigned int *first)
{
	unsigned int nr = 0;

	for (unsigned int j = 0; j < c->nr_stash; j++)
		if (came_before(c, j, i) && !nr++)
			*first = j;
	return nr;
}

bool event_next(struct client *c, struct uffd_msg *msg)
{
	unsigned int fewest = ~0U, next = ~0U;

	for (unsigned int i = 0; i < c->nr_stash; i++) {
		unsigned int first = i, nr;

		if (c->stash[i].event == UFFD_EVENT_FORK) {
			/* Of two forks the older has fewer before it. */
			nr = older(c, i, &first);
			if (nr < fewest) {
				fewest = nr;
				next = first;
			}
		} else if (c->stash[i].event != UFFD_EVENT_PAGEFAULT && next == ~0U) {
			next = i;
		}
	}
	if (next == ~0U)
		return false;
	stash_remove(c, next, msg);
	return true;
}
