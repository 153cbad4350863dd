/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the program says of its memory by madvise.  Given back, it must read as zero,
 * whether it was in memory, swapped out or on its way there; advised otherwise, it stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

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

#define GUARD_INSTALL 102 /* Linux 6.13 */
#define GUARD_REMOVE  103
#define COLLAPSE      25 /* Linux 6.1 */

#define GUARDS	      8 /* pages in a row that are guard pages, and then as many that are not */

static void advise(char *mem, size_t nr, int advice, const char *name)
{
	if (madvise(mem, nr * PAGE, advice))
		fail_errno(name);
}

/* What a child finds of memory its parent had swapped out and advised about, or does now. */
static void in_child(char *wiped, char *kept, char *absent, size_t nr)
{
	int pipes[2];
	pid_t child;

	if (pipe(pipes))
		fail_errno("pipe");
	child = forked();
	if (!child) {
		range_check_zero(wiped, nr, 0);
		range_check(kept, nr, nr, 1);
		if (write(pipes[1], absent, 1) != -1 || errno != EFAULT)
			fail("MADV_DONTFORK: the child has it");
		if (mmap(absent, nr * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != absent)
			fail_errno("mmap");
		pressure();
		range_check_zero(absent, nr, 2 * nr);
		_exit(0);
	}
	/* Too late for this child. */
	advise(kept, nr / 2, MADV_WIPEONFORK, "MADV_WIPEONFORK");
	advise(kept + nr / 2 * PAGE, nr - nr / 2, MADV_DONTFORK, "MADV_DONTFORK");
	wait_for(child, "child");
	advise(kept, nr / 2, MADV_KEEPONFORK, "MADV_KEEPONFORK");
	advise(kept + nr / 2 * PAGE, nr - nr / 2, MADV_DOFORK, "MADV_DOFORK");
	close(pipes[0]);
	close(pipes[1]);
}

static bool is_guard(size_t i)
{
	return i / GUARDS % 2 == 0;
}

/* False: the kernel has none. */
static bool install_guards(char *mem, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i += 2 * GUARDS)
		if (madvise(mem + i * PAGE, GUARDS * PAGE, GUARD_INSTALL)) {
			if (i || errno != EINVAL)
				fail_errno("MADV_GUARD_INSTALL");
			return false;
		}
	return true;
}

static void check_guards(char *mem, size_t nr, uint64_t id)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		if (!is_guard(i))
			page_check(mem + i * PAGE, id + i, 1);
		else if (may_read(mem + i * PAGE))
			fail("guard page %zu was read", i);
	}
}

/* In one go over those, too, that are none. */
static void remove_guards(char *mem, size_t nr, uint64_t id)
{
	size_t i;

	advise(mem, nr, GUARD_REMOVE, "MADV_GUARD_REMOVE");
	for (i = 0; i < nr; i++) {
		if (is_guard(i))
			page_check_zero(mem + i * PAGE, id + i);
		else
			page_check(mem + i * PAGE, id + i, 1);
	}
}

/* Among the pages of @mem, which is swapped out and at version 1. */
static void guard(char *mem, size_t nr, uint64_t id)
{
	char *fresh;
	pid_t child;
	size_t i;

	if (!install_guards(mem, nr))
		return;
	/* What is read ahead of the pages between must not run over them. */
	check_guards(mem, nr, id);
	fresh = map_anon(nr * PAGE);
	install_guards(fresh, nr);
	pressure();
	for (i = 0; i < nr; i++)
		if (!is_guard(i))
			page_fill(fresh + i * PAGE, id + i, 1);
	check_guards(fresh, nr, id);
	unmap(fresh, nr * PAGE);
	child = forked();
	if (!child) {
		check_guards(mem, nr, id);
		remove_guards(mem, nr, id);
		_exit(0);
	}
	wait_for(child, "child");
	/* The child has removed its own only. */
	check_guards(mem, nr, id);
	remove_guards(mem, nr, id);
}

/* Every other kind of advice, to memory that is swapped out. */
void test_advices(void)
{
	size_t huge = args.size / 8 / PAGE / 512, nr = (huge ? huge : 1) * 512;
	char *a = map_anon(nr * PAGE), *b = map_anon(nr * PAGE), *c = map_anon(nr * PAGE);
	unsigned int pass;

	pressure_init(args.size - 3 * nr * PAGE);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(a, nr, 0, 1);
		range_fill(b, nr, nr, 1);
		range_fill(c, nr, 2 * nr, 1);
		pressure();
		advise(a, nr, MADV_WIPEONFORK, "MADV_WIPEONFORK");
		advise(c, nr, MADV_DONTFORK, "MADV_DONTFORK");
		in_child(a, b, c, nr);
		range_check(a, nr, 0, 1);
		range_check(c, nr, 2 * nr, 1);
		advise(a, nr, MADV_KEEPONFORK, "MADV_KEEPONFORK");
		advise(c, nr, MADV_DOFORK, "MADV_DOFORK");

		pressure();
		advise(a, nr, MADV_COLD, "MADV_COLD");
		advise(b, nr, MADV_PAGEOUT, "MADV_PAGEOUT");
		/* It may be refused; what it is about stays. */
		if (madvise(c, nr * PAGE, COLLAPSE) && errno == EFAULT)
			fail_errno("MADV_COLLAPSE");
		range_check(a, nr, 0, 1);
		range_check(b, nr, nr, 1);
		range_check(c, nr, 2 * nr, 1);

		pressure();
		advise(a, nr / 4, MADV_POPULATE_READ, "MADV_POPULATE_READ");
		advise(b, nr / 4, MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE");
		advise(c, nr, MADV_WILLNEED, "MADV_WILLNEED");
		range_check(a, nr, 0, 1);
		range_check(b, nr, nr, 1);
		range_check(c, nr, 2 * nr, 1);

		pressure();
		guard(b, nr, nr);
	}
}
