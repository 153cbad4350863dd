/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Address space surgery on memory that is swapped out: moved, cut, protected,
 * unmapped, mapped again.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmtest.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static char *remap(char *old, size_t from, size_t to, int flags, char *where)
{
	char *mem = mremap(old, from * PAGE, to * PAGE, flags, where);

	if (mem == MAP_FAILED)
		fail_errno("mremap");
	return mem;
}

void test_mremap(void)
{
	size_t nr = args.size / 4 / PAGE, half = nr / 2;
	unsigned int pass;
	char *mem, *to;

	pressure_init(args.size / 4);
	for (pass = 0; pass < args.passes; pass++) {
		mem = map_anon(nr * PAGE);
		range_fill(mem, nr, 0, pass);
		pressure();

		/* Grow, wherever it may land: the new part is zero. */
		mem = remap(mem, nr, 2 * nr, MREMAP_MAYMOVE, NULL);
		range_check_zero(mem + nr * PAGE, nr, nr);
		range_fill(mem + nr * PAGE, nr, nr, pass);
		pressure();
		range_check(mem, 2 * nr, 0, pass);

		/* Move the middle out and in again, over pages of another mapping. */
		to = map_anon(nr * PAGE);
		range_fill(to, nr, 1UL << 32, pass);
		pressure();
		to = remap(mem + half * PAGE, nr, nr, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		range_check(to, nr, half, pass);
		range_check(mem, half, 0, pass);
		range_check(mem + (half + nr) * PAGE, nr - half, half + nr, pass);
		pressure();
		if (remap(to, nr, nr, MREMAP_MAYMOVE | MREMAP_FIXED, mem + half * PAGE) !=
		    mem + half * PAGE)
			fail("mremap went elsewhere");
		range_check(mem, 2 * nr, 0, pass);

		/* Shrink, grow in place or not: what was cut off is gone. */
		pressure();
		mem = remap(mem, 2 * nr, half, 0, NULL);
		range_check(mem, half, 0, pass);
		mem = remap(mem, half, nr, MREMAP_MAYMOVE, NULL);
		range_check(mem, half, 0, pass);
		range_check_zero(mem + half * PAGE, nr - half, half);
		range_fill(mem + half * PAGE, nr - half, half, pass);
		pressure();

		/* Leave the old place mapped and empty. */
		to = remap(mem, nr, nr, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
		range_check_zero(mem, nr, 0);
		range_fill(mem, nr, 1UL << 33, pass);
		pressure();
		range_check(to, nr, 0, pass);
		range_check(mem, nr, 1UL << 33, pass);
		unmap(mem, nr * PAGE);
		unmap(to, nr * PAGE);
	}
}

static sigjmp_buf refused;

static void on_segv(int sig)
{
	(void)sig;
	siglongjmp(refused, 1);
}

/* By one thread at a time. */
static bool may_access(char *byte, bool writing)
{
	struct sigaction sa = { .sa_handler = on_segv }, old;
	volatile bool may = false;

	if (sigaction(SIGSEGV, &sa, &old))
		fail_errno("sigaction");
	if (!sigsetjmp(refused, 1)) {
		if (writing)
			*(volatile char *)byte = 1;
		else
			(void)*(volatile char *)byte;
		may = true;
	}
	if (sigaction(SIGSEGV, &old, NULL))
		fail_errno("sigaction");
	return may;
}

static bool may_write(char *byte)
{
	return may_access(byte, true);
}

bool may_read(char *byte)
{
	return may_access(byte, false);
}

static void protect(char *mem, size_t nr, int prot)
{
	if (mprotect(mem, nr * PAGE, prot))
		fail_errno("mprotect");
}

void test_mprotect(void)
{
	size_t nr = args.size / 2 / PAGE, third = nr / 3, i;
	char *mem = map_anon(nr * PAGE);
	unsigned int pass;

	pressure_init(args.size - nr * PAGE);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(mem, nr, 0, pass);
		if (pass % 2)
			pressure();
		protect(mem, third, PROT_READ);
		protect(mem + third * PAGE, third, PROT_NONE);
		pressure();
		range_check(mem, third, 0, pass);
		for (i = 0; i < third; i += 61) {
			if (may_write(mem + i * PAGE))
				fail("page %zu is read-only and was written", i);
			if (may_read(mem + (third + i) * PAGE))
				fail("page %zu has no access and was read", third + i);
		}
		range_check(mem + 2 * third * PAGE, nr - 2 * third, 2 * third, pass);
		pressure();
		protect(mem, nr, PROT_READ | PROT_WRITE);
		range_check(mem, nr, 0, pass);
	}
	unmap(mem, nr * PAGE);
}

static void map_over(char *mem, size_t nr)
{
	if (mmap(mem, nr * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != mem)
		fail_errno("mmap MAP_FIXED");
}

/* Where the kernel puts nothing by itself: a child's agent maps some memory, too. */
#define FAR ((char *)(1UL << 44))
#define GAP 16

/* Every other run of GAP pages, from the first on, is unmapped. */
static void check_gaps(char *mem, size_t nr, uint32_t version)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		if (i / GAP % 2)
			page_check(mem + i * PAGE, i, version);
		else if (may_read(mem + i * PAGE))
			fail("page %zu is unmapped and was read", i);
	}
}

/* What was swapped out and is unmapped is nowhere to be found, in a child neither. */
static void leave_gaps(size_t nr, uint32_t version)
{
	char *mem = mmap(FAR, nr * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	pid_t child;
	size_t i;

	if (mem != FAR)
		fail_errno("mmap MAP_FIXED_NOREPLACE");
	range_fill(mem, nr, 0, version);
	pressure();
	for (i = 0; i < nr; i += 2 * GAP)
		unmap(mem + i * PAGE, GAP * PAGE);
	check_gaps(mem, nr, version);
	pressure();
	child = forked();
	if (!child) {
		check_gaps(mem, nr, version);
		_exit(0);
	}
	wait_for(child, "child");
	check_gaps(mem, nr, version);
	unmap(mem, nr * PAGE);
}

void test_munmap(void)
{
	size_t nr = args.size / 2 / PAGE, run = nr / 16, i;
	char *mem = map_anon(nr * PAGE);
	unsigned int pass;

	pressure_init(args.size - nr * PAGE);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(mem, nr, 0, pass);
		pressure();
		/* Every other run is unmapped and mapped again, or mapped over at once. */
		for (i = 0; i + run <= nr; i += 2 * run) {
			if (i / run % 4)
				unmap(mem + i * PAGE, run * PAGE);
			map_over(mem + i * PAGE, run);
		}
		for (i = 0; i + run <= nr; i += run) {
			if (i / run % 2) {
				range_check(mem + i * PAGE, run, i, pass);
			} else {
				range_check_zero(mem + i * PAGE, run, i);
				range_fill(mem + i * PAGE, run, i, pass);
			}
		}
		pressure();
		range_check(mem, nr, 0, pass);

		/* The whole of it, while evictions go on. */
		pressure_start();
		unmap(mem, nr * PAGE);
		map_over(mem, nr);
		range_check_zero(mem, nr, 0);
		pressure_stop();

		leave_gaps(nr / 8 / GAP * GAP, pass);
	}
	unmap(mem, nr * PAGE);
}

#define HOLE_PAGES  24 /* several to what is evicted in one go */
#define HOLE_PASSES 5

/*
 * Pieces are unmapped for good while all is being evicted: what lies between them stays.
 * Nothing is mapped twice in one place.
 */
void test_holes(void)
{
	size_t piece = HOLE_PAGES * PAGE, pieces = args.size / 2 / piece, i;
	unsigned int pass, passes = HOLE_PASSES * args.passes;
	char *area = mmap(NULL, passes * pieces * piece, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area == MAP_FAILED)
		fail_errno("mmap");
	pressure_init(args.size / 2);
	pressure_start();
	for (pass = 0; pass < passes; pass++) {
		char *mem = area + pass * pieces * piece;

		if (mprotect(mem, pieces * piece, PROT_READ | PROT_WRITE))
			fail_errno("mprotect");
		range_fill(mem, pieces * HOLE_PAGES, 0, pass);
		/* What was read just now is there, and may be on its way out again. */
		for (i = 0; i < pieces; i++) {
			range_check(mem + i * piece, HOLE_PAGES, i * HOLE_PAGES, pass);
			if (i % 2)
				unmap(mem + (i - 1) * piece, piece);
		}
		for (i = 1; i < pieces; i += 2)
			range_check(mem + i * piece, HOLE_PAGES, i * HOLE_PAGES, pass);
		unmap(mem, pieces * piece);
	}
	pressure_stop();
}

/*
 * Memory comes and goes beside memory that no pool would have: evictions that are
 * undone and events that cut into a batch meet.  That was a deadlock once: undoing
 * waited for the gate, whose holder waited for the batch to end.
 */
void test_churn(void)
{
	size_t noise = args.size / 6 / PAGE, piece = args.size / 16 / PAGE, nr = 12, i;
	char *mem, *held = map_anon(noise * PAGE);
	uint32_t version[12] = { 0 };
	struct rng rng;

	rng_init(&rng, args.seed);
	args.hard = true;
	range_fill(held, noise, 1UL << 32, 0);
	args.hard = false;
	mem = map_anon(nr * piece * PAGE);
	for (unsigned int op = 0; op < args.passes * 200; op++) {
		i = rng_below(&rng, nr);
		if (version[i])
			range_check(mem + i * piece * PAGE, piece, i * piece, version[i]);
		unmap(mem + i * piece * PAGE, piece * PAGE);
		map_over(mem + i * piece * PAGE, piece);
		range_fill(mem + i * piece * PAGE, piece, i * piece, ++version[i]);
		if (op % 32 == 0) {
			args.hard = true;
			range_check(held, noise, 1UL << 32, 0);
			args.hard = false;
		}
	}
	unmap(held, noise * PAGE);
	unmap(mem, nr * piece * PAGE);
}

/* Thousands of small mappings that cannot merge, coming and going. */
void test_manymaps(void)
{
	size_t each = 4, nr = args.size / 2 / ((each + 1) * PAGE), i, ops;
	uint32_t *version;
	struct rng rng;
	char **map;

	if (nr > 8000)
		nr = 8000;
	map = calloc(nr, sizeof(*map));
	version = calloc(nr, sizeof(*version));
	if (!map || !version)
		fail_errno("calloc");
	rng_init(&rng, args.seed);
	pressure_init(args.size / 2);
	for (ops = 0; ops < nr * 2 * args.passes; ops++) {
		i = ops < nr ? ops : rng_below(&rng, nr);
		if (map[i]) {
			range_check(map[i], each, i * each, version[i]);
			unmap(map[i], (each + 1) * PAGE);
		}
		map[i] = map_anon((each + 1) * PAGE);
		protect(map[i] + each * PAGE, 1, PROT_NONE);
		range_check_zero(map[i], each, i * each);
		range_fill(map[i], each, i * each, ++version[i]);
		if (ops % nr == nr - 1)
			pressure();
	}
	for (i = 0; i < nr; i++)
		range_check(map[i], each, i * each, version[i]);
	for (i = 0; i < nr; i++)
		unmap(map[i], (each + 1) * PAGE);
	free(map);
	free(version);
}
