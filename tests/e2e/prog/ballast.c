// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Preloaded into a program that needs little: memory that another thread of it goes over
 * at random all the time, so that the program's own has to go.  BALLAST is how many MiB.
 * Whoever finds a wrong word ends the program with status 99.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS 512UL
#define TRIES 200 /* of a millisecond: so long without vswap */

static uint64_t *mem;
static size_t pages;
static pid_t owner;
static pthread_t thread;
static bool filled, stop;

/* Steele and others, "Fast splittable pseudorandom number generators": SplitMix64. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static void check(size_t page)
{
	for (uint64_t i = page * WORDS; i < (page + 1) * WORDS; i++)
		if (mem[i] != mix(i)) {
			fprintf(stderr, "ballast: word %lu is %#lx\n", i, mem[i]);
			_exit(99);
		}
}

static unsigned int nr_threads(void)
{
	struct stat st;

	/* Links: two, and one for each. */
	return stat("/proc/self/task", &st) ? 0 : st.st_nlink - 2;
}

static void *go_over(void *unused)
{
	uint64_t seed = 1;

	(void)unused;
	/* Nothing is limited before main()'s thread, this one and vswap's are there. */
	for (int i = 0; i < TRIES && nr_threads() < 3; i++)
		usleep(1000);
	for (uint64_t i = 0; i < pages * WORDS; i++)
		mem[i] = mix(i);
	__atomic_store_n(&filled, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		seed = mix(seed);
		check(seed % pages);
	}
	return NULL;
}

__attribute__((constructor)) static void begin(void)
{
	const char *mib = getenv("BALLAST");

	pages = mib ? strtoul(mib, NULL, 10) << 8 : 0;
	if (!pages)
		return;
	mem = mmap(NULL, pages * WORDS * sizeof(*mem), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		_exit(99);
	owner = getpid();
	if (pthread_create(&thread, NULL, go_over, NULL))
		_exit(99);
}

__attribute__((destructor)) static void end(void)
{
	if (!owner)
		return;
	/* A forked child has not got the thread. */
	if (getpid() == owner) {
		__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
	}
	for (size_t i = 0; filled && i < pages; i++)
		check(i);
}
