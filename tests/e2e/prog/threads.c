/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Several threads, and the memory that is theirs: regions and stacks.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vmtest.h"

struct worker {
	pthread_t thread;
	char *mem;
	size_t nr;
	uint64_t id;
};

static void for_each_thread(void *(*fn)(void *), size_t bytes, const pthread_attr_t *attr)
{
	struct worker *w = calloc(args.threads, sizeof(*w));
	unsigned int t;

	if (!w)
		fail_errno("calloc");
	for (t = 0; t < args.threads; t++) {
		w[t].nr = bytes / PAGE;
		w[t].id = (uint64_t)(t + 1) << 32;
		w[t].mem = bytes ? map_anon(bytes) : NULL;
		errno = pthread_create(&w[t].thread, attr, fn, &w[t]);
		if (errno)
			fail_errno("pthread_create");
	}
	for (t = 0; t < args.threads; t++) {
		errno = pthread_join(w[t].thread, NULL);
		if (errno)
			fail_errno("pthread_join");
		if (bytes)
			unmap(w[t].mem, bytes);
	}
	free(w);
}

static void *read_write(void *arg)
{
	struct worker *w = arg;
	uint32_t *version = calloc(w->nr, sizeof(*version));
	struct rng rng;
	size_t ops;

	if (!version)
		fail_errno("calloc");
	rng_init(&rng, w->id + args.seed);
	range_fill(w->mem, w->nr, w->id, 0);
	for (ops = w->nr * args.passes; ops; ops--) {
		size_t i = rng_below(&rng, w->nr);

		page_check(w->mem + i * PAGE, w->id + i, version[i]);
		if (rng_next(&rng) & 1)
			page_fill(w->mem + i * PAGE, w->id + i, ++version[i]);
	}
	for (ops = 0; ops < w->nr; ops++)
		page_check(w->mem + ops * PAGE, w->id + ops, version[ops]);
	free(version);
	return NULL;
}

/*
 * A block that grows as libc's realloc() has it, and is given back when it is as large as
 * it may get: what one thread leaves another is given at once.
 */
static void *grow(void *arg)
{
	struct worker *w = arg;
	size_t most = w->nr, ops = 100 * args.passes;
	struct rng rng;
	unsigned int i;

	rng_init(&rng, w->id + args.seed);
	w->nr = 0;
	while (ops--) {
		size_t nr = w->nr + 1 + rng_below(&rng, most / 8);

		if (!w->nr || nr > most) {
			if (w->nr) {
				range_check(w->mem, w->nr, w->id, 0);
				unmap(w->mem, w->nr * PAGE);
			}
			w->nr = nr = 1 + rng_below(&rng, most / 8);
			w->mem = map_anon(nr * PAGE);
			range_fill(w->mem, nr, w->id, 0);
			continue;
		}
		w->mem = mremap(w->mem, w->nr * PAGE, nr * PAGE, MREMAP_MAYMOVE);
		if (w->mem == MAP_FAILED)
			fail_errno("mremap");
		range_check_zero(w->mem + w->nr * PAGE, nr - w->nr, w->nr);
		range_fill(w->mem + w->nr * PAGE, nr - w->nr, w->id + w->nr, 0);
		w->nr = nr;
		for (i = 0; i < 8; i++) {
			size_t page = rng_below(&rng, nr);

			page_check(w->mem + page * PAGE, w->id + page, 0);
		}
	}
	range_check(w->mem, w->nr, w->id, 0);
	unmap(w->mem, w->nr * PAGE);
	return NULL;
}

void test_threads(void)
{
	for_each_thread(read_write, args.size / args.threads / PAGE * PAGE, NULL);
}

/* What /proc tells of the thread of main(), which it takes for the process. */
static bool main_has_ended(void)
{
	char line[512], *p;
	FILE *f = fopen("/proc/self/stat", "re");

	if (!f || !fgets(line, sizeof(line), f))
		fail_errno("/proc/self/stat");
	fclose(f);
	p = strrchr(line, ')');
	return p && p[1] == ' ' && p[2] == 'Z';
}

static void *go_on(void *arg)
{
	(void)arg;
	while (!main_has_ended())
		usleep(1000);
	test_threads();
	test_forkread();
	passed("mainend");
}

/* Threads go on where main() has ended without the others. */
void test_mainend(void)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, go_on, NULL);
	if (errno)
		fail_errno("pthread_create");
	pthread_exit(NULL);
}

/*
 * Go @depth frames down, each holding a page, wait there until the frames above
 * are cold, and check them on the way up.
 */
static __attribute__((noinline)) void descend(uint64_t id, size_t depth, void (*bottom)(void))
{
	uint64_t frame[PAGE_WORDS];

	page_fill(frame, id + depth, 0);
	__asm__ volatile("" : : "r"(frame) : "memory");
	if (depth)
		descend(id, depth - 1, bottom);
	else
		bottom();
	__asm__ volatile("" : : "r"(frame) : "memory");
	page_check(frame, id + depth, 0);
}

static pthread_barrier_t at_bottom;

static void wait_at_bottom(void)
{
	pthread_barrier_wait(&at_bottom);
	pthread_barrier_wait(&at_bottom);
}

#define STACK_BYTES  (4UL << 20)
#define STACK_FRAMES (STACK_BYTES / 2 / PAGE)

static void *deep(void *arg)
{
	struct worker *w = arg;
	unsigned int pass;

	for (pass = 0; pass < args.passes; pass++)
		descend(w->id, STACK_FRAMES, wait_at_bottom);
	return NULL;
}

static void *presser(void *arg)
{
	unsigned int pass;

	(void)arg;
	for (pass = 0; pass < args.passes; pass++) {
		pthread_barrier_wait(&at_bottom);
		pressure();
		pthread_barrier_wait(&at_bottom);
	}
	return NULL;
}

void test_stacks(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	args.threads = args.size / 2 / (STACK_BYTES / 2);
	if (args.threads > 16)
		args.threads = 16;
	if (!args.threads)
		fail("size too small");
	pressure_init(args.size - args.threads * (STACK_BYTES / 2));
	errno = pthread_barrier_init(&at_bottom, NULL, args.threads + 1);
	if (errno)
		fail_errno("pthread_barrier_init");
	errno = pthread_create(&thread, NULL, presser, NULL);
	if (errno)
		fail_errno("pthread_create");
	errno = pthread_attr_init(&attr);
	if (!errno)
		errno = pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (errno)
		fail_errno("pthread_attr_setstacksize");
	for_each_thread(deep, 0, &attr);
	errno = pthread_join(thread, NULL);
	if (errno)
		fail_errno("pthread_join");
}

void test_recursion(void)
{
	struct rlimit lim;
	size_t bytes = 6UL << 20;
	unsigned int pass;

	if (getrlimit(RLIMIT_STACK, &lim))
		fail_errno("getrlimit");
	if (lim.rlim_cur != RLIM_INFINITY && lim.rlim_cur / 2 < bytes)
		bytes = lim.rlim_cur / 2;
	pressure_init(args.size);
	for (pass = 0; pass < args.passes; pass++)
		descend(1UL << 32, bytes / (PAGE + 64), pressure);
}

void test_realloc(void)
{
	unsigned int t, nr = args.threads < 2 ? 2 : args.threads;
	struct worker *w = calloc(nr, sizeof(*w));

	if (!w)
		fail_errno("calloc");
	for (t = 0; t < nr; t++) {
		w[t].nr = args.size / PAGE / nr;
		w[t].id = (uint64_t)(t + 1) << 32;
		errno = pthread_create(&w[t].thread, NULL, grow, &w[t]);
		if (errno)
			fail_errno("pthread_create");
	}
	for (t = 0; t < nr; t++) {
		errno = pthread_join(w[t].thread, NULL);
		if (errno)
			fail_errno("pthread_join");
	}
	free(w);
}
