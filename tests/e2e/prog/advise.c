/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Memory the program gives back by madvise: it must read as zero, whether it
 * was in memory, swapped out or on its way there.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "vmtest.h"

#define MAX_RUN 200 /* pages given back at one go */

void test_dontneed(void)
{
	size_t nr = args.size / 2 / PAGE, i, n, ops;
	char *mem = map_anon(nr * PAGE);
	uint32_t *version = calloc(nr, sizeof(*version)); /* 0: given back */
	struct rng rng;

	if (!version)
		fail_errno("calloc");
	rng_init(&rng, args.seed);
	pressure_init(args.size - nr * PAGE);
	for (i = 0; i < nr; i++)
		page_fill(mem + i * PAGE, i, version[i] = 1);
	for (ops = 0; ops < 16 * args.passes; ops++) {
		if (ops % 8 == 0)
			pressure();
		i = rng_below(&rng, nr - MAX_RUN);
		n = 1 + rng_below(&rng, MAX_RUN);
		if (madvise(mem + i * PAGE, n * PAGE, MADV_DONTNEED))
			fail_errno("madvise MADV_DONTNEED");
		for (; n; n--, i++) {
			version[i] = 0;
			/* Some are looked at now, some written now, others left for later. */
			if (rng_below(&rng, 4) == 0)
				page_check_zero(mem + i * PAGE, i);
			else if (rng_below(&rng, 2))
				page_fill(mem + i * PAGE, i, version[i] = ops + 2);
		}
	}
	pressure();
	for (i = 0; i < nr; i++) {
		if (version[i])
			page_check(mem + i * PAGE, i, version[i]);
		else
			page_check_zero(mem + i * PAGE, i);
	}
	free(version);
	unmap(mem, nr * PAGE);
}

/* While another thread keeps evictions going, write, give back and look, in short turns. */
void test_dontneed_race(void)
{
	size_t nr = args.size / 2 / PAGE, run = 64, i, n, ops;
	char *mem = map_anon(nr * PAGE);
	struct rng rng;

	rng_init(&rng, args.seed);
	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	pressure_start();
	for (ops = 0; ops < nr / 64 * args.passes; ops++) {
		i = rng_below(&rng, nr / run) * run;
		n = 1 + rng_below(&rng, run);
		range_check(mem + i * PAGE, n, i, 0);
		if (madvise(mem + i * PAGE, n * PAGE, MADV_DONTNEED))
			fail_errno("madvise MADV_DONTNEED");
		range_check_zero(mem + i * PAGE, n, i);
		range_fill(mem + i * PAGE, n, i, 0);
	}
	pressure_stop();
	range_check(mem, nr, 0, 0);
	unmap(mem, nr * PAGE);
}

/* A page freed lazily is whole or zero, and once written keeps what was written. */
void test_free(void)
{
	size_t nr = args.size / 2 / PAGE, i;
	char *mem = map_anon(nr * PAGE);
	unsigned int pass;

	pressure_init(args.size - nr * PAGE);
	for (pass = 1; pass <= args.passes; pass++) {
		range_fill(mem, nr, 0, 2 * pass);
		pressure();
		if (madvise(mem, nr * PAGE, MADV_FREE))
			fail_errno("madvise MADV_FREE");
		for (i = 0; i < nr; i += 2)
			page_fill(mem + i * PAGE, i, 2 * pass + 1);
		pressure();
		for (i = 0; i < nr; i++) {
			if (i % 2 == 0)
				page_check(mem + i * PAGE, i, 2 * pass + 1);
			else if (!page_is_zero(mem + i * PAGE))
				page_check(mem + i * PAGE, i, 2 * pass);
		}
	}
	unmap(mem, nr * PAGE);
}
