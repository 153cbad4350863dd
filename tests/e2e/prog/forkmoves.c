/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * fork while other threads move what they hold, or unmap it: a child has each piece whole,
 * in the one place it was in just then, and nothing in the other.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmtest.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* Far from where the kernel puts what is mapped anywhere. */
#define PLACES	  ((char *)(1UL << 44))
#define FORKS	  10
#define GROWTH	  (2UL << 20)
#define LOOKED_AT 50000 /* us: what has grown is seen by vswap within */
/* us: all move for so long of each period.  While one of them does, no page can come back. */
#define PERIOD 20000
#define MOVING 15000

struct piece {
	pthread_t thread;
	char *place[2];
	size_t nr;
	uint64_t id;
	bool stays; /* mapped in both places, and empty in one */
	atomic_int
		whole_at; /* the place it is filled in, if it is there; -1: it may be filled in part */
};

static atomic_bool stop;

static void map_at(char *where, size_t nr)
{
	if (mmap(where, nr * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != where)
		fail_errno("mmap MAP_FIXED_NOREPLACE");
}

static bool is_mapped(char *where, size_t nr)
{
	unsigned char *there = malloc(nr);
	bool mapped;

	if (!there)
		fail_errno("malloc");
	mapped = !mincore(where, nr * PAGE, there);
	if (!mapped && errno != ENOMEM)
		fail_errno("mincore");
	free(there);
	return mapped;
}

/* So that they come between each other. */
static void share_one_cpu(void)
{
	int cpu = sched_getcpu();
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		fail_errno("sched_setaffinity");
}

static unsigned int in_period(void)
{
	struct timespec now;

	if (clock_gettime(CLOCK_MONOTONIC, &now))
		fail_errno("clock_gettime");
	return (unsigned int)(now.tv_nsec / 1000 % PERIOD);
}

static void *move(void *arg)
{
	struct piece *p = arg;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (p->stays ? MREMAP_DONTUNMAP : 0), at = 0;
	unsigned int moves = 0;

	map_at(p->place[0], p->nr);
	range_fill(p->place[0], p->nr, p->id, 0);
	while (!atomic_load(&stop)) {
		unsigned int now = in_period();

		if (now >= MOVING)
			usleep(PERIOD - now);
		if (mremap(p->place[at], p->nr * PAGE, p->nr * PAGE, flags, p->place[!at]) !=
		    p->place[!at])
			fail_errno("mremap");
		at = !at;
		atomic_store(&p->whole_at, at);
		if (++moves % 256 == 0)
			range_check(p->place[at], p->nr, p->id, 0);
	}
	range_check(p->place[at], p->nr, p->id, 0);
	unmap(p->place[at], p->nr * PAGE);
	if (p->stays)
		unmap(p->place[!at], p->nr * PAGE);
	return NULL;
}

static void *map_and_unmap(void *arg)
{
	struct piece *p = arg;
	int at = 0;

	while (!atomic_load(&stop)) {
		map_at(p->place[at], p->nr);
		range_fill(p->place[at], p->nr, p->id, 0);
		atomic_store(&p->whole_at, at);
		usleep(2000);
		unmap(p->place[at], p->nr * PAGE);
		atomic_store(&p->whole_at, -1);
		at = !at;
	}
	return NULL;
}

/* Every byte of all that is mapped; which places are not. */
static void check_held(struct piece *p, bool moves, bool fresh[2])
{
	if (p->stays) {
		char page[PAGE];
		size_t i = 0;
		int at;

		/* Of those some are zero. */
		do
			page_fill(page, p->id + i++, 0);
		while (page_is_zero(page));
		at = page_is_zero(p->place[0] + (i - 1) * PAGE);

		fresh[0] = fresh[1] = false;
		range_check(p->place[at], p->nr, p->id, 0);
		range_check_zero(p->place[!at], p->nr, 0);
		return;
	}
	for (int i = 0; i < 2; i++) {
		fresh[i] = !is_mapped(p->place[i], p->nr);
		if (!fresh[i] && (moves || atomic_load(&p->whole_at) == i))
			range_check(p->place[i], p->nr, p->id, 0);
	}
	if (moves && fresh[0] == fresh[1])
		fail("moved memory is mapped %s", fresh[0] ? "nowhere" : "twice");
}

/* What is mapped where something was is new memory, also when vswap has seen it. */
static void check_fresh(struct piece *p, const bool fresh[2])
{
	size_t grown = GROWTH / PAGE;
	char *more;
	int i;

	for (i = 0; i < 2; i++)
		if (fresh[i]) {
			map_at(p->place[i], p->nr);
			page_fill(p->place[i], 1, 1);
		}
	more = map_anon(GROWTH);
	range_fill(more, grown, 1UL << 33, 0);
	usleep(LOOKED_AT);
	for (i = 0; i < 2; i++)
		if (fresh[i]) {
			page_check(p->place[i], 1, 1);
			range_check_zero(p->place[i] + PAGE, p->nr - 1, 1);
		}
	range_check(more, grown, 1UL << 33, 0);
}

static void check_child(struct piece *piece, unsigned int number)
{
	bool fresh[2];
	unsigned int t;

	for (t = 0; t < args.threads; t++) {
		bool moves = t % 4 != 3;

		/* It may not have been filled yet. */
		if (moves && atomic_load(&piece[t].whole_at) < 0)
			continue;
		check_held(&piece[t], moves, fresh);
		if (number % 8 == t)
			check_fresh(&piece[t], fresh);
	}
}

void test_forkmoves(void)
{
	size_t nr = args.size / 4 / args.threads / PAGE;
	struct piece *piece = calloc(args.threads, sizeof(*piece));
	unsigned int i, t;
	struct rng rng;
	pid_t pid;

	if (!piece)
		fail_errno("calloc");
	rng_init(&rng, args.seed);
	pressure_init(args.size - nr * args.threads * PAGE);
	pressure_start();
	share_one_cpu();
	for (t = 0; t < args.threads; t++) {
		struct piece *p = &piece[t];

		p->nr = nr;
		p->id = (uint64_t)(t + 2) << 32;
		p->place[0] = PLACES + 2 * t * nr * PAGE;
		p->place[1] = p->place[0] + nr * PAGE;
		p->stays = t % 4 == 1;
		atomic_init(&p->whole_at, -1);
		errno = pthread_create(&p->thread, NULL, t % 4 == 3 ? map_and_unmap : move, p);
		if (errno)
			fail_errno("pthread_create");
	}
	for (i = 0; i < FORKS * args.passes; i++) {
		/* Pages came back while nobody moved: the fork is to be when they do. */
		usleep(PERIOD - in_period() + rng_below(&rng, MOVING));
		pid = forked();
		if (!pid) {
			check_child(piece, i);
			_exit(0);
		}
		wait_for(pid, "child");
	}
	atomic_store(&stop, true);
	for (t = 0; t < args.threads; t++) {
		errno = pthread_join(piece[t].thread, NULL);
		if (errno)
			fail_errno("pthread_join");
	}
	pressure_stop();
	free(piece);
}
