// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A library that starts a thread and a shell before the program does, as some do:
 * its constructor runs before those of what was loaded by LD_PRELOAD.
 */
#include <pthread.h>
#include <stdlib.h>

int early_done;

static void *work(void *unused)
{
	(void)unused;
	early_done = 1;
	return NULL;
}

__attribute__((constructor)) static void early(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL) ||
	    system("exit 0"))
		abort();
}
