// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "budget.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "group.h"
#include "job.h"
#include "state.h"

#define SAMPLE_TRIES 3

static struct {
	uint64_t limit; /* atomic */
	int64_t used;	/* atomic */
	uint64_t peak, program, self;
	int statm;
	uint64_t own_file; /* our text and libraries, our share of them */
} budget = { .statm = -1 };

/* Our proportional share of mapped files; measured once, it does not grow. */
static uint64_t own_file_bytes(void)
{
	unsigned long kb, sum = 0;
	char line[256];
	FILE *f = fopen("/proc/self/smaps_rollup", "re");

	if (!f)
		return 4 << 20;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss_File: %lu kB", &kb) == 1)
			sum = kb;
	fclose(f);
	return sum << 10;
}

void budget_init(uint64_t limit)
{
	budget.limit = limit;
	budget.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	budget.own_file = own_file_bytes();
}

uint64_t budget_limit(void)
{
	return count_read(&budget.limit);
}

void budget_set_limit(uint64_t limit)
{
	__atomic_store_n(&budget.limit, limit, __ATOMIC_RELAXED);
	reclaim_limits_changed();
}

void budget_charge(struct group *group, int64_t bytes)
{
	int64_t used = __atomic_add_fetch(&budget.used, bytes, __ATOMIC_RELAXED);
	uint64_t limit = budget_limit();

	if (bytes > 0 && used > (int64_t)(limit - limit / 64))
		reclaim_wake();
	group_add_resident(group, bytes);
}

uint64_t budget_used(void)
{
	int64_t used = __atomic_load_n(&budget.used, __ATOMIC_RELAXED);

	return used > 0 ? used : 0;
}

static uint64_t own_anon(void)
{
	unsigned long size, resident, shared;
	char buf[128];
	ssize_t n = pread(budget.statm, buf, sizeof(buf) - 1, 0);

	if (n <= 0)
		return 0;
	buf[n] = 0;
	if (sscanf(buf, "%lu %lu %lu", &size, &resident, &shared) != 3)
		return 0;
	return (resident - shared) * PAGE_SIZE_;
}

/* What all programs have, and those of each group; @twice: what of it may count twice. */
static uint64_t programs(uint64_t *resident, uint64_t *twice)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);
	uint64_t frames = frames_touched() * PAGE_SIZE_, sum = 0;

	memset(resident, 0, GROUP_MAX * sizeof(*resident));
	memset(twice, 0, GROUP_MAX * sizeof(*twice));
	for (unsigned int i = 0; i < n; i++) {
		uint64_t anon, file, framed, guessed = client_guessed(list[i]);
		int ret = client_resident(list[i], &anon, &file);

		if (ret >= 0) {
			if (ret || guessed > anon)
				guessed = anon;
			/* The frames its agent has touched are counted with us. */
			framed = count_read(&list[i]->framed) * PAGE_SIZE_;
			if (framed > frames)
				framed = frames;
			anon += file > framed ? file - framed : 0;
			sum += anon;
			for (struct group *g = list[i]->job->group; g; g = g->parent) {
				resident[group_index(g)] += anon;
				twice[group_index(g)] += guessed;
			}
		}
		client_put(list[i]);
	}
	return sum;
}

uint64_t budget_sample(void)
{
	uint64_t self = own_anon() + budget.own_file + frames_touched() * PAGE_SIZE_;
	uint64_t resident[GROUP_MAX], twice[GROUP_MAX], program, least, peak, generation;
	unsigned int tries = 0;

	/* Who dies meanwhile may be counted as well as what others have from it. */
	do {
		generation = clients_generation();
		program = programs(resident, twice);
	} while (generation != clients_generation() && ++tries < SAMPLE_TRIES);
	__atomic_store_n(&budget.used, program + self, __ATOMIC_RELAXED);
	__atomic_store_n(&budget.program, program, __ATOMIC_RELAXED);
	__atomic_store_n(&budget.self, self, __ATOMIC_RELAXED);
	/*
	 * Two threads sample; the higher one stays.  What may count twice is on the safe side,
	 * and no peak.
	 */
	least = program + self - twice[group_index(group_root())];
	peak = __atomic_load_n(&budget.peak, __ATOMIC_RELAXED);
	while (least > peak && !__atomic_compare_exchange_n(&budget.peak, &peak, least, true,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	groups_sampled(resident, twice);
	return program + self;
}

bool budget_spent(struct group *group)
{
	if (!group_spent(group))
		return false;
	reclaim_wake();
	return true;
}

void budget_parts(struct budget_parts *parts)
{
	parts->used = budget_used();
	parts->peak = count_read(&budget.peak);
	parts->program = count_read(&budget.program);
	parts->self = count_read(&budget.self);
}
