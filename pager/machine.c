// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * How much memory this process may hope for: the machine's, and under a cgroup
 * what the limits of it and its ancestors leave.
 *
 * Of a cgroup's usage only the inactive file pages are taken to be free for
 * the asking: the active ones are somebody's working set.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the two versions call the same thing; a name may be missing in one. */
struct cgroup_names {
	const char *limit, *throttle, *usage, *reclaimable;
};

static const struct cgroup_names cgroup_v1 = {
	.limit = "memory.limit_in_bytes",
	.usage = "memory.usage_in_bytes",
	.reclaimable = "total_inactive_file",
};

static const struct cgroup_names cgroup_v2 = {
	.limit = "memory.max",
	.throttle = "memory.high",
	.usage = "memory.current",
	.reclaimable = "inactive_file",
};

static FILE *open_under(const char *dir, const char *name)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return NULL;
	return fopen(path, "re");
}

/* The file's number; UINT64_MAX for "max" and for whatever cannot be read. */
static uint64_t read_limit(const char *dir, const char *name)
{
	uint64_t value;
	FILE *f;

	if (!name)
		return UINT64_MAX;
	f = open_under(dir, name);
	if (!f)
		return UINT64_MAX;
	if (fscanf(f, "%" SCNu64, &value) != 1)
		value = UINT64_MAX;
	fclose(f);
	return value;
}

/* The number after @key in a file of "key number" lines; 0 when there is none. */
static uint64_t read_key(FILE *f, const char *key)
{
	uint64_t value = 0, v;
	char line[256], name[128];

	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%127s %" SCNu64, name, &v) == 2 && !strcmp(name, key)) {
			value = v;
			break;
		}
	}
	return value;
}

static void apply_cgroup(const char *dir, const struct cgroup_names *names,
			 struct machine_memory *mem)
{
	uint64_t limit = read_limit(dir, names->limit);
	uint64_t high = read_limit(dir, names->throttle);
	uint64_t usage, room;
	FILE *f;

	if (high < limit)
		limit = high;
	if (limit >= mem->total)
		return;
	if (limit < mem->limit)
		mem->limit = limit;

	usage = read_limit(dir, names->usage);
	if (usage == UINT64_MAX)
		usage = 0;
	room = usage < limit ? limit - usage : 0;
	f = open_under(dir, "memory.stat");
	if (f) {
		room += read_key(f, names->reclaimable);
		fclose(f);
	}
	if (room > limit)
		room = limit;
	if (room < mem->available)
		mem->available = room;
}

/* Is @word one of the comma separated @list? */
static bool in_list(const char *list, const char *word)
{
	size_t len = strlen(word);
	const char *p = list;

	while ((p = strstr(p, word))) {
		if ((p == list || p[-1] == ',') && (p[len] == ',' || p[len] == '\0'))
			return true;
		p += len;
	}
	return false;
}

/* mountinfo writes blanks and backslashes as a backslash and three octal digits. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0');
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/*
 * Where the hierarchy is mounted and which of its directories is seen there.
 * Both buffers hold PATH_MAX.
 */
static bool find_mount(const char *root, bool v2, char *mount_root, char *mount_point)
{
	char type[64], super[1024];
	char *line = NULL, *tail;
	bool found = false;
	size_t size = 0;
	FILE *f;

	f = open_under(root, "proc/self/mountinfo");
	if (!f)
		return false;
	while (!found && getline(&line, &size, f) > 0) {
		tail = strstr(line, " - ");
		if (!tail || strlen(line) >= PATH_MAX)
			continue;
		if (sscanf(line, "%*s %*s %*s %s %s", mount_root, mount_point) != 2 ||
		    sscanf(tail, " - %63s %*s %1023s", type, super) != 2)
			continue;
		found = v2 ? !strcmp(type, "cgroup2") :
			     !strcmp(type, "cgroup") && in_list(super, "memory");
	}
	free(line);
	fclose(f);
	if (found) {
		unescape(mount_root);
		unescape(mount_point);
	}
	return found;
}

/* Apply the limits of cgroup @group and of every directory above it that is mounted. */
static void apply_hierarchy(const char *root, bool v2, const char *group,
			    struct machine_memory *mem)
{
	char mount_root[PATH_MAX], mount_point[PATH_MAX], dir[PATH_MAX];
	size_t top, skip;
	char *slash;
	int len;

	if (!find_mount(root, v2, mount_root, mount_point))
		return;
	/* Inside a container the mount shows only part of the tree: @group may start with it. */
	skip = strcmp(mount_root, "/") ? strlen(mount_root) : 0;
	if (skip) {
		if (strncmp(group, mount_root, skip) || (group[skip] && group[skip] != '/'))
			group = "";
		else
			group += skip;
	}
	len = snprintf(dir, sizeof(dir), "%s%s", root, mount_point);
	if (len < 0 || (size_t)len >= sizeof(dir))
		return;
	top = len;
	if (snprintf(dir + top, sizeof(dir) - top, "%s", group) >= (int)(sizeof(dir) - top))
		return;

	for (;;) {
		apply_cgroup(dir, v2 ? &cgroup_v2 : &cgroup_v1, mem);
		if (strlen(dir) <= top)
			break;
		slash = strrchr(dir, '/');
		*(slash < dir + top ? dir + top : slash) = '\0';
	}
}

int machine_memory(const char *root, struct machine_memory *mem)
{
	char *line = NULL, *controllers, *group, *end;
	size_t size = 0;
	FILE *f;

	f = open_under(root, "proc/meminfo");
	if (!f)
		return -errno;
	mem->total = read_key(f, "MemTotal:") << 10;
	mem->available = read_key(f, "MemAvailable:") << 10;
	fclose(f);
	if (!mem->total)
		return -ENODATA;
	mem->limit = mem->total;

	f = open_under(root, "proc/self/cgroup");
	if (!f)
		return 0; /* no cgroups in this kernel */
	while (getline(&line, &size, f) > 0) {
		controllers = strchr(line, ':');
		group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		controllers++;
		*group++ = '\0';
		end = strchr(group, '\n');
		if (end)
			*end = '\0';
		if (!*controllers)
			apply_hierarchy(root, true, group, mem);
		else if (in_list(controllers, "memory"))
			apply_hierarchy(root, false, group, mem);
	}
	free(line);
	fclose(f);
	return 0;
}
