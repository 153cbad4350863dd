/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PAGER_THREAD_H
#define PAGER_THREAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define THREAD_PATH 64

/* Is @tid a thread of process @pid?  Both may be 0, and @tid a number of another namespace. */
bool thread_of(pid_t pid, uint32_t tid);

/*
 * The path of file @name in /proc: of thread @tid of process @pid where it is one, or else of
 * the process.  Of its memory both tell the same, until the thread of main() has ended: then
 * that of the process tells of none.
 */
void thread_path(char path[THREAD_PATH], pid_t pid, uint32_t tid, const char *name);

/* Addresses of pages, ascending, some of them twice. */
struct pages {
	uint64_t *addr; /* the caller's, to be freed */
	unsigned int nr, max;
};

/* Those that the threads of @pid end by, as far as they can be found. */
struct pages thread_ends(pid_t pid);

#endif
