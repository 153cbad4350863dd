/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A tier of any kind, from what the user wrote.
 *
 * What is written decides the kind: nbd://HOST[:PORT]/EXPORT and
 * nbd+unix:///EXPORT?socket=PATH are exports of an NBD server, anything else is
 * the path of a file or block device.  From then on all are the same.
 */
#ifndef TIER_TIER_H
#define TIER_TIER_H

#include <stdbool.h>
#include <stddef.h>

#include "../core/swap.h"

struct tier_opts {
	const char *path; /* path or address; NULL: a temporary file, made when needed */
	u64 size;	  /* bytes of it, 0: all there is */
	/* Seconds that pages of a server that is gone are waited for; 0: the default. */
	unsigned int timeout;
	bool encrypt; /* with a key of this process */
};

/* Constant while it is open. */
struct tier {
	const char *name; /* as written; of a temporary file its directory */
	u64 nr_slots;
	const struct swap_tier_ops *ops;
	void *priv;	/* of ops */
	bool in_memory; /* it is really memory of this machine (tmpfs): the user must be told */
	bool readable;	/* by other users */
	bool nameless;	/* a file nobody else can open */
	void (*shrink)(void *priv); /* or NULL */
	void (*close)(void *priv);
};

/*
 * Open a tier, for struct swap_tier_conf.  Sleeps, for seconds where a server
 * does not answer.  Returns it; or NULL with errno set, one line in @err, "tier
 * NAME: why (what to do)", and nothing changed.  A message warns of one that other
 * users may read and that is not encrypted.
 */
struct tier *tier_open(const struct tier_opts *opts, char *err, size_t errlen);
/*
 * Before tier_close(), where others use the disk: give the room back gently, which may take
 * twice as long (tier_file_shrink()).  Sleeps.  No call of its ops may be under way or follow.
 */
void tier_shrink(struct tier *t);
/* Gives back what it used.  No call of its ops may be under way; NULL is allowed. */
void tier_close(struct tier *t);

#endif
