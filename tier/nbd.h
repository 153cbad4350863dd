/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A tier in an export of an NBD server: memory or storage of another machine.
 *
 * A server that goes away is waited for: reads wait, one message says so, and
 * what had no answer is asked again on the next connection.  A write waits for a
 * moment only and is then -EAGAIN, so that the page can go to another tier.
 * After the time limit both are -ETIMEDOUT at once, until the server is
 * back.  One that is there and answers nothing is taken for one that is gone.
 *
 * An export that holds data is refused as a file would be (head.h), and so is
 * one that another vswap uses: its owner says twice a second, in a page of the
 * head, that it is there.  An owner that was killed has to be waited for, two
 * seconds.  One that was cut off so long that another took the export finds that
 * out, and does not touch it any more.
 */
#ifndef TIER_NBD_H
#define TIER_NBD_H

#include <stdbool.h>
#include <stddef.h>

#include "../core/swap.h"

/* How long pages are waited for, in seconds, unless told otherwise. */
#define TIER_NBD_TIMEOUT 60

struct tier_nbd;

/* For struct swap_tier_conf; priv is the struct tier_nbd. */
extern const struct swap_tier_ops tier_nbd_ops;

/* Is it meant for us: nbd://..., nbd+unix://...? */
bool tier_nbd_uri(const char *path);

/*
 * Connect to the export at @uri and use @size bytes of it (0: all there is).
 * @timeout: the time limit in seconds, 0 for the default.  Returns the tier; or
 * NULL with one line in @err, "tier URI: why (what to do)", nothing changed.
 */
struct tier_nbd *tier_nbd_open(const char *uri, u64 size, unsigned int timeout, char *err,
			       size_t errlen);

/*
 * Disconnects; tells a server that can do it that the contents are not needed.
 * While the name of a host is looked up it waits for that.
 * No call may be under way; NULL is allowed.
 */
void tier_nbd_close(struct tier_nbd *t);

/* How many pages it holds: swap_tier_conf.nr_slots. */
u64 tier_nbd_slots(const struct tier_nbd *t);
/* The URI; lives as long as the tier. */
const char *tier_nbd_name(const struct tier_nbd *t);

#endif
