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
		map_terabyte(1024);
		map_growing();
		/* Filled by the kernel in one go, if it is left alone. */
		populated = map_at(NULL, nr / 2, MAP_POPULATE);
		range_check_zero(populated, nr / 2, 0);
		range_fill(populated, nr / 2, 0, 3);
		pressure();
		range_check(populated, nr / 2, 0, 3);
		unmap(populated, nr / 2 * PAGE);
	}
}
