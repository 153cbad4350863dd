/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The store as the rest of the library sees it.
 */
#ifndef LIB_STORE_H
#define LIB_STORE_H

#include <pthread.h>
#include <stddef.h>

#include <linux/types.h>

#include "../include/vswap.h"

struct crate;
struct shell;
struct vswap_region;

struct vswap {
	struct swap_space *space;
	pthread_mutex_t lock; /* all up to regions; never held over a sleep */
	struct shell *idle;
	struct crate *crates;
	struct vswap_tier *tiers;
	struct vswap_region *regions;
	char message[256];	/* vswap_message() */
	u64 pool_limit;		/* atomic */
	unsigned int writeback; /* percent; atomic */
	unsigned int unchecked; /* pages stored since the pool was looked at; atomic */
};

/*
 * A thread of the program that has been cancelled ends in the next call that may wait.
 * None of ours may be that one: what is locked would stay so.  Each function a program
 * can enter declares this for as long as it runs.
 */
static inline int cancel_off(void)
{
	int was;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &was);
	return was;
}

static inline void cancel_as_before(const int *was)
{
	pthread_setcancelstate(*was, NULL);
}

#define NO_CANCEL int no_cancel __attribute__((__cleanup__(cancel_as_before))) = cancel_off()

/* Pages that store_pages() takes at once. */
#define STORE_BATCH 64

/*
 * Store @nr pages, each by its aligned address.  Those there was no room or no memory
 * for get entry 0, and @err says which it was: -ENOSPC, -ENOMEM.  Returns how many were
 * stored.
 */
unsigned int store_pages(struct vswap *s, void *const *pages, unsigned int nr, vswap_entry *entries,
			 int *err);
/* Have what a load needs ready for one more thread, so that loads allocate nothing. */
int store_reserve(struct vswap *s);

/* What vswap_message() will say.  Returns @err. */
int store_says(struct vswap *s, int err, const char *fmt, ...)
	__attribute__((__format__(__printf__, 3, 4)));

/* The same of pages that stay where they are: there is no room, or they cannot be moved. */
int store_full(struct vswap *s, const char *who, int err);

#endif
