/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Memory pressure: a region of its own, rewritten over and over, so that what
 * a test holds beside it grows cold and is paged out.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "vmtest.h"

#define PRESSURE_ID (0x77ULL << 40)

static char *region;
static size_t region_pages;
static uint32_t round_nr;
static pthread_t sweeper;
static atomic_bool stop;

void *map_anon(size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		fail_errno("mmap");
	return mem;
}

void unmap(void *mem, size_t bytes)
{
	if (munmap(mem, bytes))
		fail_errno("munmap");
}

void pressure_init(size_t bytes)
{
	region_pages = bytes / PAGE;
	region = map_anon(region_pages * PAGE);
	range_fill(region, region_pages, PRESSURE_ID, 0);
}

void pressure(void)
{
	size_t i;

	for (i = 0; i < region_pages; i++) {
		page_check(region + i * PAGE, PRESSURE_ID + i, round_nr);
		page_fill(region + i * PAGE, PRESSURE_ID + i, round_nr + 1);
	}
	round_nr++;
}

static void *sweep_loop(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop))
		pressure();
	return NULL;
}

void pressure_start(void)
{
	atomic_store(&stop, false);
	errno = pthread_create(&sweeper, NULL, sweep_loop, NULL);
	if (errno)
		fail_errno("pthread_create");
}

void pressure_stop(void)
{
	atomic_store(&stop, true);
	errno = pthread_join(sweeper, NULL);
	if (errno)
		fail_errno("pthread_join");
}
