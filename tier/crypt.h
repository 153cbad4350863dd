/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Encryption of what leaves memory, around any tier.
 *
 * AES-256-XTS with a key made at random for this process, so that nobody can read
 * what a tier holds, during the run or after it.  Pages that were swapped differ
 * by slot and tier even where their contents are the same.  It hides, it does not
 * prove: that a page is the one that was written is what core's sums are for.
 */
#ifndef TIER_CRYPT_H
#define TIER_CRYPT_H

#include <stddef.h>

#include "tier.h"

/*
 * Put encryption in front of @inner, in @t, which owns @inner from then on.
 * Returns 0; or -1 with one line in @err, "tier NAME: why (what to do)", and
 * @inner as it was.
 */
int tier_crypt(struct tier *t, struct tier *inner, char *err, size_t errlen);

#endif
