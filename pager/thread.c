// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the kernel tells of threads, and the pages they end by.
 *
 * Nothing is looked up in /proc/PID/task where that can be avoided.  Who reaps a process
 * throws out what was looked up below /proc/PID, and spins in the kernel for as long as an
 * ending thread throws out what is its own (shrink_dcache_parent()).  On one CPU with others
 * the thread may not be chosen for a minute.  /proc/TID is a thread's, too, and not below.
 *
 * The kernel clears a word as a thread ends, and does not wait there for a page that is
 * evicted or write-protected: see agent/pin.c, which keeps the former.  libc has the word
 * just before the list of robust mutexes, and where that is the kernel tells.
 */
#include "thread.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "window.h"

#define BEFORE_ROBUST 64

bool thread_of(pid_t pid, uint32_t tid)
{
	return pid && tid && (!syscall(SYS_tgkill, pid, tid, 0) || errno != ESRCH);
}

void thread_path(char path[THREAD_PATH], pid_t pid, uint32_t tid, const char *name)
{
	snprintf(path, THREAD_PATH, "/proc/%d/%s", thread_of(pid, tid) ? (pid_t)tid : pid, name);
}

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

static void add_ends(struct pages *p, pid_t tid)
{
	uint64_t head = 0;
	size_t len;

	/* The agent's thread has none. */
	if (tid > 0 && !syscall(SYS_get_robust_list, tid, &head, &len) && head) {
		pages_add(p, head);
		pages_add(p, head - BEFORE_ROBUST);
	}
}

struct pages thread_ends(pid_t pid)
{
	struct pages p = { 0 };
	struct dirent *d;
	struct stat st;
	char path[32];
	DIR *dir = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	/* Links: two, and one for each thread. */
	if (!stat(path, &st) && st.st_nlink <= 2 + 2)
		add_ends(&p, pid);
	else
		dir = opendir(path);
	while (dir && (d = readdir(dir)))
		add_ends(&p, atoi(d->d_name));
	if (dir)
		closedir(dir);
	if (p.nr)
		qsort(p.addr, p.nr, sizeof(*p.addr), by_address);
	return p;
}
