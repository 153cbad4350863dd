/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How much memory this process may hope for.
 */
#ifndef PAGER_MACHINE_H
#define PAGER_MACHINE_H

#include <stdint.h>

struct machine_memory {
	uint64_t total;	    /* bytes the machine has */
	uint64_t limit;	    /* ... lowered to the tightest cgroup limit above us */
	uint64_t available; /* bytes that can be had now without swapping */
};

/*
 * Look at /proc/meminfo and at the limits of the process's own memory cgroup
 * and all above it, version 1 and 2.  @root is put before every path ("" but
 * in tests).  A cgroup file that cannot be read sets no limit.  Returns 0, or
 * -errno when /proc/meminfo tells nothing.
 */
int machine_memory(const char *root, struct machine_memory *mem);

#endif
