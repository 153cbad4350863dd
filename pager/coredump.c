// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "coredump.h"

#include <pthread.h>
#include <stdio.h>

#include "client.h"
#include "job.h"
#include "state.h"

/* What jobs remember. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void add(struct lacking *l, uint64_t addr)
{
	if (!l->nr || l->end != addr) {
		if (l->nr < LACKING_RANGES)
			l->range[l->nr].start = addr;
		l->nr++;
	}
	l->end = addr + PAGE_SIZE_;
	if (l->nr <= LACKING_RANGES)
		l->range[l->nr - 1].end = l->end;
	l->pages++;
}

/* The next page from @i on of the batch under way that has left the program; both ascend. */
static unsigned int next_gone(const struct client *c, unsigned int i)
{
	while (c->batch && i < c->batch->pages &&
	       (c->batch->back[i] ||
		__atomic_load_n(&c->shared->result[i], __ATOMIC_ACQUIRE) != PAGE_GONE))
		i++;
	return i;
}

void coredump_note(struct client *c)
{
	struct lacking l = { .id = c->id };
	uint64_t addr, end = 1ULL << 47;
	unsigned int i;

	if (!c->is_program)
		return;
	pthread_mutex_lock(&c->state);
	addr = window_next(&c->win, 0, end);
	i = next_gone(c, 0);
	for (;;) {
		bool more = c->batch && i < c->batch->pages;

		if (more && c->batch->addr[i] < addr) {
			add(&l, c->batch->addr[i]);
			i = next_gone(c, i + 1);
		} else if (addr < end) {
			add(&l, addr);
			addr = window_next(&c->win, addr + PAGE_SIZE_, end);
		} else {
			break;
		}
	}
	pthread_mutex_unlock(&c->state);
	pthread_mutex_lock(&lock);
	/* What has exec'ed counts no more. */
	if (l.id > c->job->lacking.id)
		c->job->lacking = l;
	pthread_mutex_unlock(&lock);
}

void coredump_say(struct job *job)
{
	struct lacking l;
	char text[600];
	int n = 0;

	pthread_mutex_lock(&lock);
	l = job->lacking;
	pthread_mutex_unlock(&lock);
	if (!l.pages)
		return;
	for (unsigned int i = 0; i < l.nr && i < LACKING_RANGES; i++)
		n += snprintf(text + n, sizeof(text) - n, "%s%llx-%llx", i ? ", " : "",
			      (unsigned long long)l.range[i].start,
			      (unsigned long long)l.range[i].end);
	if (l.nr > LACKING_RANGES)
		snprintf(text + n, sizeof(text) - n, " and %u more", l.nr - LACKING_RANGES);
	job_say(job,
		"core dump: lacks at least %llu KiB, which were swapped out and are zeros there: "
		"%s (give more with --ram)",
		(unsigned long long)(l.pages * PAGE_SIZE_ >> 10), text);
}
