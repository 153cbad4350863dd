/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One snapshot of everything the pager counts, as reports show it.
 */
#ifndef PAGER_STAT_H
#define PAGER_STAT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "../core/swap.h"
#include "pager.h"

/*
 * Fault latencies in log-linear buckets: 8 to each power of two of
 * nanoseconds, so a percentile is right to 1 part in 8.
 */
#define LAT_SUB_BITS 3
#define LAT_BUCKETS  (64 << LAT_SUB_BITS)

struct pager_stat {
	pid_t pid; /* the program; of a space for several, vswap's own */
	const char *program;
	const char *name; /* of the space, or NULL */
	uint64_t elapsed_ns;
	bool finished;
	int status; /* exit status, once finished */

	uint64_t ram_limit; /* --ram */
	uint64_t ram_bytes; /* all that --ram covers, last sampled */
	uint64_t ram_bytes_peak;
	uint64_t program_bytes; /* the program's resident memory */
	uint64_t cache_bytes;	/* frames of the swap cache */
	uint64_t window_bytes;	/* the pager's address to entry windows */
	uint64_t self_bytes;	/* vswap's own memory, pool and cache included */

	/* faults served, by what was behind them */
	uint64_t fault_zero;  /* first touch */
	uint64_t fault_cache; /* still in the swap cache */
	uint64_t fault_fill;
	uint64_t fault_pool;
	uint64_t fault_tier;
	uint64_t fault_wait; /* served once already, or while on its way out */
	uint64_t swap_ra, swap_ra_hit, swap_ra_miss;
	uint64_t refault;		 /* faults soon after eviction */
	uint64_t pgsteal;		 /* pages taken out of the program */
	uint64_t pgsteal_file;		 /* pages of mapped files it was made to drop */
	uint64_t evict_move, evict_copy; /* ... by UFFDIO_MOVE, by write-protect and copy */
	uint64_t evict_busy;		 /* pages that would not go */
	uint64_t evict_spared;		 /* pages put back, for they do not compress */
	uint64_t event_remove, event_unmap, event_remap, event_fork;
	uint64_t sigbus;   /* pages lost */
	uint64_t stall_ns; /* time faults waited for memory */

	uint64_t lat_nr, lat_max_ns, lat_sum_ns;
	uint64_t lat[LAT_BUCKETS];

	struct swap_stat swap;
	struct swap_tier_stat tier[SWAP_MAX_TIERS];
	unsigned int nr_tiers;
};

/* Count one latency; buckets may be read while others count. */
void lat_add(uint64_t lat[LAT_BUCKETS], uint64_t ns);
/* The latency that @per_mille of all are at or below; 0 when there is none. */
uint64_t lat_quantile(const uint64_t lat[LAT_BUCKETS], unsigned int per_mille);
/* The least latency that is counted in @bucket, ns. */
uint64_t lat_floor(unsigned int bucket);

/* Fill @st; any thread, any time between start and end of pager_run(). */
void pager_snapshot(struct pager_stat *st);

struct json_object;

/* report.c: for programs and for people.  Return 0 or -errno. */
int report_json(FILE *f, const struct pager_stat *st);
/* What report_json() writes; the caller's to put, or NULL: no memory. */
struct json_object *report_object(const struct pager_stat *st);
int report_text(FILE *f, const struct pager_stat *st);

#endif
