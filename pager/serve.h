/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A space for whoever joins.
 */
#ifndef PAGER_SERVE_H
#define PAGER_SERVE_H

#include <stddef.h>

struct group;

/*
 * A run wants to join in @group: make a job for it and serve that on a thread of
 * its own, until its program and all that came of it have ended, or until nobody
 * connected to @socket (JOB_NAME bytes) for some seconds.  Returns 0; -ENOTSUP:
 * the space is one program's own; -ESHUTDOWN: it is about to end; -errno.
 */
int serve_join(struct group *group, char *socket);

#endif
