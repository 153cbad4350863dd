/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tiers of the space, those it began with and those that come and go while
 * programs run.
 *
 * One thread at a time opens, adds, removes and closes; any thread may ask
 * tiers_stat().
 */
#ifndef PAGER_TIERS_H
#define PAGER_TIERS_H

#include <stdbool.h>
#include <stdint.h>

#include "../core/swap.h"
#include "../tier/tier.h"
#include "pager.h"

/* Those of the options.  0, or -1 with the reason said; then tiers_close(), too. */
int tiers_open(const struct pager_opts *opts);
/* The space is gone: give all back. */
void tiers_close(void);

/*
 * Sleep, for seconds where a server does not answer.  Encrypted if the first ones
 * are, whatever @opts says.  0, or -1 with one line in
 * @err, "tier NAME: why (what to do)", and nothing changed.
 */
int tiers_add(const struct tier_opts *opts, int prio, char *err, size_t errlen);

/*
 * Move what is on @tier elsewhere and let it go.  @go_on(@priv, bytes left) is asked
 * now and then; false: give up.  0; -ENOSPC: no room, or not all found one; -EINTR:
 * given up; the tier stays then.  -EIO: gone, and pages that could not be read
 * are lost.
 */
int tiers_remove(struct swap_tier *tier, bool (*go_on)(void *priv, u64 left), void *priv);

/* The tier a user calls @word, its name or, if that tells, the end of its path; else NULL. */
struct swap_tier *tiers_find(const char *word);

/* Its swap_tier_conf.priv, which tells it in statistics. */
void *tiers_priv(const struct swap_tier *tier);
/* The name of the one whose swap_tier_conf.priv that is; "" for none.  Stays for ever. */
const char *tiers_name(const void *priv);
/*
 * All tiers, by falling priority, in @st, room for SWAP_MAX_TIERS.  Names stay
 * for ever, also those of tiers that are gone.  Returns how many.
 */
unsigned int tiers_stat(struct swap_tier_stat *st);

#endif
