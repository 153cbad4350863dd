/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all files of the pager share: the space, the options, the counters.
 */
#ifndef PAGER_STATE_H
#define PAGER_STATE_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "../core/swap.h"
#include "pager.h"
#include "stat.h"

struct counters {
	uint64_t fault_zero, fault_cache, fault_fill, fault_pool, fault_tier, fault_wait;
	uint64_t swap_ra, swap_ra_hit, swap_ra_miss;
	uint64_t refault;
	uint64_t pgsteal, pgsteal_file, evict_move, evict_copy, evict_busy, evict_spared;
	uint64_t event_remove, event_unmap, event_remap, event_fork;
	uint64_t sigbus, stall_ns;
	uint64_t lat_nr, lat_max_ns, lat_sum_ns;
	uint64_t lat[LAT_BUCKETS];
};

struct pager {
	struct swap_space *space;
	struct counters count;
	uint64_t features;	  /* of the kernel's userfaultfd */
	unsigned int batch_pages; /* most pages in one batch, and of staging */
	unsigned int ra_max;	  /* most pages of one readahead */
	bool has_tier;		  /* atomic */
	bool stopping;		  /* atomic, see pager_stopping() */
	const char *name;	  /* of the space, or NULL */
	pid_t pid;		  /* the program, or of a space for several this process */
	const char *program;	  /* its name */
	uint64_t start_ns;
};

extern struct pager pager;

static inline void count_add(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t count_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* The run is over: threads of ours shall end. */
static inline bool pager_stopping(void)
{
	return __atomic_load_n(&pager.stopping, __ATOMIC_ACQUIRE);
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* One line on stderr, "vswap: " first, in one write. */
void pager_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
