// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * All counters at one moment, for reports.
 */
#include <string.h>

#include "budget.h"
#include "client.h"
#include "state.h"
#include "tiers.h"

void pager_snapshot(struct pager_stat *st)
{
	const struct counters *n = &pager.count;
	struct budget_parts parts;

	memset(st, 0, sizeof(*st));
	st->pid = pager.pid;
	st->program = pager.program;
	st->name = pager.name;
	st->elapsed_ns = now_ns() - pager.start_ns;

	budget_parts(&parts);
	st->ram_limit = budget_limit();
	st->ram_bytes = parts.used;
	st->ram_bytes_peak = parts.peak;
	st->program_bytes = parts.program;
	st->self_bytes = parts.self;
	st->stall_ns = count_read(&n->stall_ns);
	st->cache_bytes = frames_touched() * PAGE_SIZE_;
	st->window_bytes = windows_bytes();

	st->fault_zero = count_read(&n->fault_zero);
	st->fault_cache = count_read(&n->fault_cache);
	st->fault_fill = count_read(&n->fault_fill);
	st->fault_pool = count_read(&n->fault_pool);
	st->fault_tier = count_read(&n->fault_tier);
	st->fault_wait = count_read(&n->fault_wait);
	st->swap_ra = count_read(&n->swap_ra);
	st->swap_ra_hit = count_read(&n->swap_ra_hit);
	st->swap_ra_miss = count_read(&n->swap_ra_miss);
	st->refault = count_read(&n->refault);
	st->pgsteal = count_read(&n->pgsteal);
	st->evict_move = count_read(&n->evict_move);
	st->evict_copy = count_read(&n->evict_copy);
	st->pgsteal_file = count_read(&n->pgsteal_file);
	st->evict_busy = count_read(&n->evict_busy);
	st->evict_spared = count_read(&n->evict_spared);
	st->event_remove = count_read(&n->event_remove);
	st->event_unmap = count_read(&n->event_unmap);
	st->event_remap = count_read(&n->event_remap);
	st->event_fork = count_read(&n->event_fork);
	st->sigbus = count_read(&n->sigbus);
	st->lat_nr = count_read(&n->lat_nr);
	st->lat_max_ns = count_read(&n->lat_max_ns);
	st->lat_sum_ns = count_read(&n->lat_sum_ns);
	for (unsigned int i = 0; i < LAT_BUCKETS; i++)
		st->lat[i] = count_read(&n->lat[i]);

	swap_space_stat(pager.space, &st->swap);
	st->nr_tiers = tiers_stat(st->tier);
}
