/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ways to map memory, over memory that is swapped out and beside it.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "vmtest.h"

#define RW    (PROT_READ | PROT_WRITE)
#define ANON  (MAP_PRIVATE | MAP_ANONYMOUS)
#define RUN   16 /* pages mapped anew at a place */
#define GROWS 64 /* pages a mapping grows downwards by */
#define APART 8	 /* runs from one that is mapped over by another kind to the next */

static char *map_at(void *addr, size_t pages, int flags)
{
	char *mem = mmap(addr, pages * PAGE, RW, ANON | flags, -1, 0);

	if (mem == MAP_FAILED)
		fail_errno("mmap");
	return mem;
}

/* Every fourth run of @mem is mapped over; its neighbours stay. */
static void map_over(char *mem, size_t nr)
{
	size_t i;

	for (i = RUN; i + RUN <= nr; i += 4 * RUN)
		if (map_at(mem + i * PAGE, RUN, MAP_FIXED) != mem + i * PAGE)
			fail("MAP_FIXED went elsewhere");
	pressure();
	for (i = 0; i < nr; i++) {
		if (i % (4 * RUN) / RUN == 1 && i - i % RUN + RUN <= nr)
			page_check_zero(mem + i * PAGE, i);
		else
			page_check(mem + i * PAGE, i, 0);
	}
	/* Where something is, though swapped out, MAP_FIXED_NOREPLACE has no place. */
	if (mmap(mem, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED || errno != EEXIST)
		fail("MAP_FIXED_NOREPLACE: not refused with EEXIST");
	/* A hint that cannot be followed is no reason to touch what is there. */
	unmap(map_at(mem, RUN, 0), RUN * PAGE);
	page_check(mem, 0, 0);
}

#define FILE_ID	  (1UL << 32)
#define SHARED_ID (1UL << 33)

enum kind {
	PRIVATE_FILE,
	SHARED,
	NO_ACCESS,
	KINDS,
};

static void map_kind(char *at, enum kind kind, int fd)
{
	void *mem;

	switch (kind) {
	case PRIVATE_FILE:
		mem = mmap(at, RUN * PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0);
		break;
	case SHARED:
		mem = mmap(at, RUN * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	default:
		mem = mmap(at, RUN * PAGE, PROT_NONE, ANON | MAP_FIXED, -1, 0);
	}
	if (mem != at)
		fail_errno("mmap MAP_FIXED");
}

static void check_kind(char *at, enum kind kind)
{
	size_t i;

	switch (kind) {
	case PRIVATE_FILE:
		range_check(at, RUN, FILE_ID, 0);
		range_fill(at, RUN, FILE_ID, 1);
		break;
	case SHARED:
		range_check_zero(at, RUN, SHARED_ID);
		range_fill(at, RUN, SHARED_ID, 1);
		break;
	default:
		for (i = 0; i < RUN; i++)
			if (may_read(at + i * PAGE))
				fail("page %zu of PROT_NONE was read", i);
	}
}

/* A run of @mem at page @i is mapped over by another kind; which one? */
static bool has_kind(size_t i, enum kind *kind)
{
	size_t run = i / RUN;

	*kind = run / APART % KINDS;
	return run % APART == 1;
}

/* Other kinds of memory come over what is swapped out, and then new memory over them. */
static void map_kinds(char *mem, size_t nr)
{
	FILE *f = tmpfile();
	enum kind kind;
	size_t i;

	range_fill(mem, RUN, FILE_ID, 0);
	if (!f || fwrite(mem, PAGE, RUN, f) != RUN || fflush(f))
		fail_errno("temporary file");
	range_fill(mem, nr, 0, 0);
	pressure();
	for (i = 0; i < nr; i += RUN)
		if (has_kind(i, &kind))
			map_kind(mem + i * PAGE, kind, fileno(f));
	pressure();
	for (i = 0; i < nr; i += RUN) {
		if (has_kind(i, &kind))
			check_kind(mem + i * PAGE, kind);
		else
			range_check(mem + i * PAGE, RUN, i, 0);
	}
	for (i = 0; i < nr; i += RUN)
		if (has_kind(i, &kind))
			map_at(mem + i * PAGE, RUN, MAP_FIXED);
	/* By then it is known to vswap, as what was there before it has been. */
	pressure();
	for (i = 0; i < nr; i += RUN) {
		if (has_kind(i, &kind))
			range_check_zero(mem + i * PAGE, RUN, i);
		else
			range_check(mem + i * PAGE, RUN, i, 0);
	}
	fclose(f);
}

/* A terabyte that is promised to nobody, touched here and there. */
static void map_terabyte(size_t touched)
{
	size_t step = (1UL << 40) / PAGE / touched, i;
	char *mem = mmap(NULL, 1UL << 40, RW, ANON | MAP_NORESERVE, -1, 0);

	/* Not everywhere is there so much of address space. */
	if (mem == MAP_FAILED)
		fail_errno("mmap of a terabyte");
	for (i = 0; i < touched; i++)
		page_fill(mem + i * step * PAGE, i, 7);
	pressure();
	for (i = 0; i < touched; i++) {
		page_check(mem + i * step * PAGE, i, 7);
		page_check_zero(mem + (i * step + 1) * PAGE, i);
	}
	unmap(mem, 1UL << 40);
}

static void map_growing(void)
{
	/* Room below, so that nothing is in its way. */
	char *room = mmap(NULL, 8 * GROWS * PAGE, PROT_NONE, ANON, -1, 0), *top;
	size_t i;

	if (room == MAP_FAILED)
		fail_errno("mmap");
	top = room + 8 * GROWS * PAGE;
	unmap(room, 8 * GROWS * PAGE);
	map_at(top - PAGE, 1, MAP_FIXED | MAP_GROWSDOWN);
	for (i = 1; i <= GROWS; i++) {
		page_fill(top - i * PAGE, i, 9);
		if (i == GROWS / 2)
			pressure();
	}
	pressure();
	for (i = 1; i <= GROWS; i++)
		page_check(top - i * PAGE, i, 9);
	unmap(top - GROWS * PAGE, GROWS * PAGE);
}

void test_mapkinds(void)
{
	size_t nr = args.size / 2 / PAGE;
	char *mem = map_anon(nr * PAGE), *populated;
	unsigned int pass;

	pressure_init(args.size / 2);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(mem, nr, 0, 0);
		pressure();
		map_over(mem, nr);
		map_kinds(mem, nr / 4 / RUN * RUN);
		/* Each takes tables, of the kernel's and of vswap's. */
		map_terabyte(nr / 16);
		map_growing();
		/* Filled by the kernel in one go, if it is left alone. */
		populated = map_at(NULL, nr / 4, MAP_POPULATE);
		range_check_zero(populated, nr / 4, 0);
		range_fill(populated, nr / 4, 0, 3);
		pressure();
		range_check(populated, nr / 4, 0, 3);
		unmap(populated, nr / 4 * PAGE);
	}
}
