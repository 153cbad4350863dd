// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Per-CPU memory: one arena, a unit of it for each CPU, so that the copies of
 * one thing are a constant distance apart and a copy's address is one
 * multiplication away.
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/bitmap.h>
#include <linux/bug.h>
#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/percpu.h>

#define UNIT	  (1UL << COMPAT_PERCPU_SHIFT)
#define CHUNK	  64UL /* a cache line */
#define NR_CHUNKS (UNIT / CHUNK)

unsigned int nr_cpu_ids;

static char *arena;
static DECLARE_BITMAP(used, NR_CHUNKS);
/* In an allocation's last chunk, so that free knows its length. */
static DECLARE_BITMAP(last, NR_CHUNKS);
static pthread_mutex_t arena_lock = PTHREAD_MUTEX_INITIALIZER;

/* Before main: nr_cpu_ids is read without asking anybody. */
__attribute__((__constructor__)) static void percpu_init(void)
{
	long nr = sysconf(_SC_NPROCESSORS_CONF);

	nr_cpu_ids = nr > 0 ? (unsigned int)nr : 1;
}

unsigned int compat_ask_cpu(void)
{
	int cpu = sched_getcpu();

	/* A machine may grow CPUs while we run; they share with the others. */
	if (unlikely(cpu < 0 || (unsigned int)cpu >= nr_cpu_ids))
		return (unsigned int)cpu % nr_cpu_ids;
	return (unsigned int)cpu;
}

void *compat_percpu_alloc(size_t size)
{
	unsigned long nr = (size + CHUNK - 1) / CHUNK;
	unsigned long at, end;
	unsigned int cpu;
	void *p = NULL;

	if (!nr || compat_alloc_fails())
		return NULL;
	pthread_mutex_lock(&arena_lock);
	if (!arena) {
		arena = mmap(NULL, nr_cpu_ids * UNIT, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (arena == MAP_FAILED) {
			arena = NULL;
			goto out;
		}
	}
	for (at = 0; at + nr <= NR_CHUNKS; at = end + 1) {
		at = find_next_zero_bit(used, NR_CHUNKS, at);
		end = find_next_bit(used, NR_CHUNKS, at);
		if (end - at >= nr) {
			bitmap_set(used, at, nr);
			__set_bit(at + nr - 1, last);
			p = arena + at * CHUNK;
			break;
		}
	}
	for (cpu = 0; p && cpu < nr_cpu_ids; cpu++)
		memset(compat_percpu_ptr(p, cpu), 0, nr * CHUNK);
out:
	pthread_mutex_unlock(&arena_lock);
	return p;
}

void free_percpu(void *p)
{
	unsigned long at, end;

	if (!p)
		return;
	at = (unsigned long)((char *)p - arena) / CHUNK;
	pthread_mutex_lock(&arena_lock);
	end = find_next_bit(last, NR_CHUNKS, at);
	BUG_ON(end == NR_CHUNKS);
	__clear_bit(end, last);
	bitmap_clear(used, at, end + 1 - at);
	pthread_mutex_unlock(&arena_lock);
}
