// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Pages that threads end by.
 *
 * The kernel clears a word as a thread ends, and does not wait there for a page that is
 * evicted or write-protected: see agent/pin.c, which keeps the former.  libc has the word
 * just before the list of robust mutexes, and where that is the kernel tells.
 */
#include "thread.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "window.h"

#define BEFORE_ROBUST 64

static void pages_add(struct pages *p, uint64_t addr)
{
	if (p->nr == p->max) {
		unsigned int max = p->max ? p->max * 2 : 64;
		uint64_t *more = realloc(p->addr, max * sizeof(*more));

		if (!more)
			return;
		p->addr = more;
		p->max = max;
	}
	p->addr[p->nr++] = addr & ~(PAGE_SIZE_ - 1);
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

struct pages thread_ends(pid_t pid)
{
	struct pages p = { 0 };
	struct dirent *d;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		pid_t tid = atoi(d->d_name);
		uint64_t head = 0;
		size_t len;

		/* The agent's thread has none. */
		if (tid > 0 && !syscall(SYS_get_robust_list, tid, &head, &len) && head) {
			pages_add(&p, head);
			pages_add(&p, head - BEFORE_ROBUST);
		}
	}
	if (dir)
		closedir(dir);
	if (p.nr)
		qsort(p.addr, p.nr, sizeof(*p.addr), by_address);
	return p;
}
