/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef AGENT_EXEC_H
#define AGENT_EXEC_H

#include <stdbool.h>

/* Look up libc's functions: a child of vfork() must not. */
void exec_set_up(void);

/*
 * Takes our variable out of @envp, and this object's path out of LD_PRELOAD; both are
 * kept for what the program may exec.  False: they are not there.
 */
bool exec_take_env(char **envp);

/* Where the supervisor listens: see wire_where(). */
const char *exec_space(void);

#endif
