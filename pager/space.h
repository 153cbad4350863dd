/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a space: `vswap run` keeps one for its program, `vswap serve` one
 * for whoever joins.  There is one in a process (struct pager).
 */
#ifndef PAGER_SPACE_H
#define PAGER_SPACE_H

#include "pager.h"

/*
 * Make the space: budget, table, frames, tiers.  Starts no thread, so the caller
 * may still fork().  Returns 0, or not 0 with the reason said.  space_close()
 * is needed either way.
 */
int space_open(const struct pager_opts *opts);
/* Start to serve faults and to reclaim.  0, or not 0 with the reason said; then space_stop(). */
int space_start(void);
/* Open the control socket.  0 or -errno; space_stop() closes it. */
int space_listen(void);
/* End all threads.  Clients may still be there, but will not be served. */
void space_stop(void);
/* Give everything back.  No client is left. */
void space_close(void);

#endif
