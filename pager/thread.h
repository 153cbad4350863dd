/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PAGER_THREAD_H
#define PAGER_THREAD_H

#include <stdint.h>
#include <sys/types.h>

/* Addresses of pages, ascending, some of them twice. */
struct pages {
	uint64_t *addr; /* the caller's, to be freed */
	unsigned int nr, max;
};

/* Those that the threads of @pid end by, as far as they can be found. */
struct pages thread_ends(pid_t pid);

#endif
