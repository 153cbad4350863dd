/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a process has mapped, a line of /proc/PID/maps each.
 */
#ifndef PAGER_MAPPING_H
#define PAGER_MAPPING_H

#include <stdbool.h>
#include <stdint.h>

struct mapping {
	uint64_t start, end;
	char perms[5]; /* "rwxp", a dash for what is missing */
	uint64_t inode;
	const char *name; /* "" for nothing; until the callback returns */
};

/*
 * Call @each for every mapping of the process whose /proc/PID/maps is @fd, in
 * ascending order, until it returns false.  Several threads may use one @fd, and
 * do not wait for each other: it is opened anew.
 * Returns 0 or -errno; what was called for before that is good.
 */
int mappings_walk(int fd, bool (*each)(void *arg, const struct mapping *m), void *arg);
/*
 * The same for those in a process's file @smaps that a forked child finds empty, or not at
 * all (MADV_WIPEONFORK, MADV_DONTFORK); their names are not told.  The kernel walks all its
 * page tables for it.
 */
int mappings_kept(const char *smaps, bool (*each)(void *arg, const struct mapping *m), void *arg);

#endif
