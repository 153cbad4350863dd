/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PAGER_LOCK_H
#define PAGER_LOCK_H

#include <pthread.h>

/*
 * Make @lock one whose holder is as urgent as the most urgent thread that waits for it, where
 * the kernel can do that; else it is a plain one.  For every lock that the watcher takes.
 */
void lock_init(pthread_mutex_t *lock);

#endif
