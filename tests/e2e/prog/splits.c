/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Mappings that are split and joined while their pages are copied out: what may not be
 * written cannot be moved.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "vmtest.h"

static char *mem;
static size_t nr;
static unsigned char *version;

static void protect(size_t i, int prot)
{
	if (mprotect(mem + i * PAGE, PAGE, prot))
		fail_errno("mprotect");
}

/* Write pages, each for itself, of those that are @arg's. */
static void *rewrite(void *arg)
{
	unsigned int self = (unsigned int)(uintptr_t)arg;
	struct rng r;

	rng_init(&r, args.seed + self);
	for (size_t ops = 0; ops < nr / args.threads * args.passes; ops++) {
		size_t i = rng_below(&r, nr / args.threads) * args.threads + self;

		page_check(mem + i * PAGE, i, version[i]);
		protect(i, PROT_READ | PROT_WRITE);
		page_fill(mem + i * PAGE, i, ++version[i]);
		protect(i, PROT_READ);
	}
	return NULL;
}

void test_splits(void)
{
	pthread_t *thread = calloc(args.threads, sizeof(*thread));

	nr = args.size / 2 / PAGE;
	version = calloc(nr, 1);
	if (!thread || !version)
		fail_errno("calloc");
	mem = map_anon(nr * PAGE);
	range_fill(mem, nr, 0, 0);
	pressure_init(args.size - nr * PAGE);
	if (mprotect(mem, nr * PAGE, PROT_READ))
		fail_errno("mprotect");
	pressure_start();
	for (uintptr_t i = 0; i < args.threads; i++)
		if (pthread_create(&thread[i], NULL, rewrite, (void *)i))
			fail("no thread");
	for (unsigned int i = 0; i < args.threads; i++)
		pthread_join(thread[i], NULL);
	pressure_stop();
	for (size_t i = 0; i < nr; i++)
		page_check(mem + i * PAGE, i, version[i]);
}
