// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number at *p, whose digits are of @base; moves *p to what ends it. */
static uint64_t number(const char **p, unsigned int base)
{
	uint64_t n = 0;

	for (;; (*p)++) {
		unsigned int digit = **p >= 'a' ? **p - 'a' + 10U : **p - (unsigned int)'0';

		if (digit >= base)
			return n;
		n = n * base + digit;
	}
}

static const char *skip_field(const char *p)
{
	while (*p && *p != ' ')
		p++;
	while (*p == ' ')
		p++;
	return p;
}

/*
 * One line, its newline cut off: "start-end perms offset device inode name".  False:
 * not one we understand.  A process may have thousands, and is growing meanwhile.
 */
static bool parse(const char *line, struct mapping *m)
{
	const char *p = line;

	m->start = number(&p, 16);
	if (*p++ != '-')
		return false;
	m->end = number(&p, 16);
	if (*p++ != ' ' || strnlen(p, 5) < 5 || p[4] != ' ')
		return false;
	memcpy(m->perms, p, 4);
	m->perms[4] = 0;
	p = skip_field(skip_field(p + 5));
	m->inode = number(&p, 10);
	m->name = skip_field(p);
	return true;
}

/*
 * A reader that shares its place in the file with another has the kernel begin at
 * the first line again, each time.
 */
static int reopen(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int mappings_walk(int maps, bool (*each)(void *arg, const struct mapping *m), void *arg)
{
	/* The kernel fills no more than a page at a time; a line is a path and some more. */
	char buf[3 * 4096];
	int fd = reopen(maps), ret = 0;
	size_t have = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, buf + have, sizeof(buf) - 1 - have);
		char *line = buf, *end;
		struct mapping m;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			ret = n ? -errno : 0;
			break;
		}
		have += n;
		buf[have] = 0;
		while ((end = strchr(line, '\n'))) {
			*end = 0;
			if (parse(line, &m) && !each(arg, &m))
				goto out;
			line = end + 1;
		}
		have -= line - buf;
		if (have == sizeof(buf) - 1)
			have = 0; /* no line of maps is so long */
		memmove(buf, line, have);
	}
out:
	close(fd);
	return ret;
}

int mappings_kept(const char *smaps, bool (*each)(void *arg, const struct mapping *m), void *arg)
{
	struct mapping m = { 0 }, next;
	char line[3 * 4096];
	int ret = 0;
	FILE *f;

	f = fopen(smaps, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (parse(line, &next)) {
			m = next;
			m.name = "";
		} else if (!strncmp(line, "VmFlags:", 8) &&
			   (strstr(line, " wf") || strstr(line, " dc")) && !each(arg, &m)) {
			break;
		}
	}
	if (ferror(f))
		ret = -errno;
	fclose(f);
	return ret;
}
