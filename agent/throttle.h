/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef AGENT_THROTTLE_H
#define AGENT_THROTTLE_H

#include <stdint.h>

/* What the program is to find instead of libc's. */
#define EXPORT __attribute__((visibility("default")))

/*
 * From now on mmap() waits while *@over is 1.  @wiped_on_fork is a page that is
 * ours, with MADV_WIPEONFORK.
 */
void throttle_set_up(void *wiped_on_fork, uint32_t *over);

#endif
