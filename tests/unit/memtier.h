/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A tier in memory that can be told to fail, for tests.
 */
#ifndef TESTS_UNIT_MEMTIER_H
#define TESTS_UNIT_MEMTIER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <linux/errno.h>

#include "core/swap.h"

struct memtier {
	unsigned char *pages; /* nr_slots of them */
	unsigned char *state; /* of each slot: 0 never written or discarded, 1 written */
	u64 nr_slots;
	pthread_mutex_t lock;
	/* what to do */
	int write_error; /* if not 0, writes fail with it */
	long write_good; /* ... once this many pages were written; -1: at once */
	int read_error;
	unsigned int read_again; /* so many reads fail, then no more */
	bool away;		 /* says so; writes are done all the same */
	unsigned int late;	 /* so many more writes are -EAGAIN */
	bool discards_late;	 /* discards are -EAGAIN, and not done yet */
	/* what was done */
	unsigned long writes, reads; /* calls */
	unsigned long pages_written, pages_read, pages_discarded;
	unsigned long discards_asked; /* that were -EAGAIN */
	unsigned long breaks;	      /* pages not next to the one before in their write */
};

static inline void memtier_write(void *priv, struct swap_io *io, unsigned int nr)
{
	struct memtier *t = priv;
	unsigned int i;
	bool late;

	pthread_mutex_lock(&t->lock);
	late = t->late > 0;
	t->late -= late;
	t->writes++;
	for (i = 0; i < nr; i++) {
		if (io[i].slot >= t->nr_slots)
			abort();
		if (late) {
			io[i].error = -EAGAIN;
			continue;
		}
		if (t->write_error && (long)t->pages_written >= t->write_good) {
			io[i].error = t->write_error;
			continue;
		}
		memcpy(t->pages + io[i].slot * SWAP_PAGE_SIZE, io[i].data, SWAP_PAGE_SIZE);
		t->state[io[i].slot] = 1;
		t->pages_written++;
		if (i && io[i].slot != io[i - 1].slot + 1)
			t->breaks++;
	}
	pthread_mutex_unlock(&t->lock);
}

static inline void memtier_read(void *priv, struct swap_io *io, unsigned int nr)
{
	struct memtier *t = priv;
	unsigned int i;

	pthread_mutex_lock(&t->lock);
	t->reads++;
	if (t->read_again) {
		t->read_again--;
		for (i = 0; i < nr; i++)
			io[i].error = -EIO;
		pthread_mutex_unlock(&t->lock);
		return;
	}
	for (i = 0; i < nr; i++) {
		/* Nobody asks for what was never written. */
		if (io[i].slot >= t->nr_slots || !t->state[io[i].slot])
			abort();
		io[i].error = t->read_error;
		if (!t->read_error)
			memcpy(io[i].data, t->pages + io[i].slot * SWAP_PAGE_SIZE, SWAP_PAGE_SIZE);
		t->pages_read++;
	}
	pthread_mutex_unlock(&t->lock);
}

static inline int memtier_discard(void *priv, u64 slot, u64 nr)
{
	struct memtier *t = priv;

	pthread_mutex_lock(&t->lock);
	if (slot + nr > t->nr_slots)
		abort();
	if (t->discards_late) {
		t->discards_asked++;
		pthread_mutex_unlock(&t->lock);
		return -EAGAIN;
	}
	memset(t->state + slot, 0, nr);
	memset(t->pages + slot * SWAP_PAGE_SIZE, 0xdd, nr * SWAP_PAGE_SIZE);
	t->pages_discarded += nr;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

static inline bool memtier_away(void *priv)
{
	struct memtier *t = priv;

	return t->away;
}

static const struct swap_tier_ops memtier_ops = {
	.write = memtier_write,
	.read = memtier_read,
	.discard = memtier_discard,
	.away = memtier_away,
};

static inline struct memtier *memtier_new(u64 nr_slots)
{
	struct memtier *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->pages = malloc(nr_slots * SWAP_PAGE_SIZE);
	t->state = calloc(nr_slots, 1);
	if (!t->pages || !t->state)
		abort();
	t->nr_slots = nr_slots;
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

static inline void memtier_free(struct memtier *t)
{
	pthread_mutex_destroy(&t->lock);
	free(t->pages);
	free(t->state);
	free(t);
}

/* Make @t a tier of @space. */
static inline struct swap_tier *memtier_add(struct swap_space *space, struct memtier *t,
					    const char *name, int prio)
{
	struct swap_tier_conf conf = {
		.name = name,
		.ops = &memtier_ops,
		.priv = t,
		.nr_slots = t->nr_slots,
		.prio = prio,
	};

	return swap_tier_add(space, &conf);
}

#endif
