/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef AGENT_PIN_H
#define AGENT_PIN_H

#include <stdint.h>

/*
 * Learn where libc keeps what the kernel writes to as a thread ends, and keep it for the
 * calling thread, the only one.
 */
void pin_set_up(void);
/* In a forked child, before its agent is there: the calling thread is the only one. */
void pin_forked(void);

/*
 * Around the eviction of [addr, addr + n pages): a thread that begins meanwhile waits for
 * the end.  pin_begin() returns how many of the pages may go, 0 if the first may not.
 * @mem is /proc/self/mem.  The agent's thread only.
 */
uint32_t pin_begin(uint64_t addr, uint32_t n, int mem);
void pin_end(void);

#endif
