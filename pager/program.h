/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which file a command name means, and whether the agent can live in it.
 */
#ifndef PAGER_PROGRAM_H
#define PAGER_PROGRAM_H

#include <stddef.h>

/* Exit statuses as env(1) has them. */
#define PROGRAM_CANNOT_RUN 126
#define PROGRAM_NOT_FOUND  127

/*
 * Find the program @name as execvp(3) does, follow #! lines, and check that
 * what is executed in the end would load the agent: an ELF program of this
 * machine and word size, dynamically linked with glibc, that does not change
 * who the process is.
 *
 * Returns 0 and in @path (@len bytes, PATH_MAX is enough) what to pass to
 * execvp(): it always has a slash in it.  Else PROGRAM_NOT_FOUND or
 * PROGRAM_CANNOT_RUN, with "why (what to do)" in @why.  The answer is about
 * the file as it is now.
 */
int program_resolve(const char *name, char *path, size_t len, char *why, size_t whylen);

/*
 * Where a file of ours is: at @built in a build tree, else @installed, both as
 * seen from this executable's directory; never from the environment.  @path has
 * room for PATH_MAX.  Returns 0, -ENOENT, -ENAMETOOLONG.
 */
int own_path(const char *built, const char *installed, char *path);

/*
 * Where the agent library is.  Returns as own_path() does, or -EINVAL when the
 * path has a blank or a colon (LD_PRELOAD cannot hold those).
 */
int agent_path(char *buf, size_t len);

#endif
