/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef AGENT_THROTTLE_H
#define AGENT_THROTTLE_H

#include <stddef.h>

struct agent_shared;

/* Where the pager and the agent tell each other things; NULL while there is no agent. */
struct agent_shared *control_block(void);

/*
 * From now on what makes the program grow waits for the pager when @control says so.
 * @wiped_on_fork is a page that is ours, with MADV_WIPEONFORK.
 */
void throttle_set_up(void *wiped_on_fork, struct agent_shared *control);

/* Before a thread is created: its stack is mapped by libc. */
void throttle_thread(void);

/* MADV_POPULATE_WRITE or _READ in steps, each of which may wait.  0 or -errno. */
long populate_slowly(void *addr, size_t bytes, int advice);

#endif
