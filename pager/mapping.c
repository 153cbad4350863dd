// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mapping.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One line, its newline cut off.  False: not one we understand. */
static bool parse(char *line, struct mapping *m)
{
	unsigned long from, to, inode;
	int name = 0;

	if (sscanf(line, "%lx-%lx %4s %*x %*s %lu %n", &from, &to, m->perms, &inode, &name) != 4 ||
	    !name)
		return false;
	m->start = from;
	m->end = to;
	m->inode = inode;
	m->name = line + name;
	return true;
}

int mappings_walk(int fd, bool (*each)(void *arg, const struct mapping *m), void *arg)
{
	/* The kernel fills no more than a page at a time; a line is a path and some more. */
	char buf[3 * 4096];
	size_t have = 0;
	off_t at = 0;

	for (;;) {
		ssize_t n = pread(fd, buf + have, sizeof(buf) - 1 - have, at);
		char *line = buf, *end;
		struct mapping m;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		at += n;
		have += n;
		buf[have] = 0;
		while ((end = strchr(line, '\n'))) {
			*end = 0;
			if (parse(line, &m) && !each(arg, &m))
				return 0;
			line = end + 1;
		}
		have -= line - buf;
		if (have == sizeof(buf) - 1)
			have = 0; /* no line of maps is so long */
		memmove(buf, line, have);
	}
}
