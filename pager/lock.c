// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Locks for which urgent threads wait as well.
 *
 * The watcher runs before everything else, for each millisecond it is late is memory above
 * the limit.  That is of no use while it waits for a lock whose holder has lost its CPU: on
 * two CPUs with some programs a server of faults got its own back after 43 to 104 ms, and
 * a program filled 30 MiB meanwhile.  So the holder inherits the priority, as with rt_mutex
 * of Linux.
 */
#include "lock.h"

void lock_init(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	/* A kernel without PI futexes. */
	if (pthread_mutex_init(lock, &attr))
		pthread_mutex_init(lock, NULL);
	pthread_mutexattr_destroy(&attr);
}
