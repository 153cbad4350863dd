/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A program that works all the time, for tests that change the space under it:
 * random pages are checked and written anew, and the longest time one of them
 * took is what the program saw of it.
 *
 * Prints "ready PID", then works until a line comes on stdin: "report" prints
 * "longest N us of N" and begins anew, end of file ends it after every page was
 * checked once more.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmtest.h"

#define OPS 64 /* between two looks at stdin */

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

static void say(int printed)
{
	if (printed < 0 || fflush(stdout))
		fail_errno("stdout");
}

/* False: stdin has ended. */
static bool obey(uint64_t *longest, uint64_t *ops)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	char line[64];

	if (poll(&p, 1, 0) <= 0)
		return true;
	if (!fgets(line, sizeof(line), stdin))
		return false;
	if (strcmp(line, "report\n"))
		fail("told '%s'", line);
	say(printf("longest %llu us of %llu\n", (unsigned long long)*longest,
		   (unsigned long long)*ops));
	*longest = *ops = 0;
	return true;
}

void test_live(void)
{
	size_t nr = args.size / PAGE, i;
	char *mem = map_anon(args.size);
	uint32_t *version = map_anon(nr * sizeof(*version));
	uint64_t longest = 0, ops = 0, start, now;
	struct rng rng;

	rng_init(&rng, args.seed);
	/* One line at a time, or poll() would not see what stdio has read. */
	setvbuf(stdin, NULL, _IONBF, 0);
	range_fill(mem, nr, 0, 0);
	say(printf("ready %d\n", getpid()));
	while (obey(&longest, &ops)) {
		start = now_us();
		for (unsigned int n = 0; n < OPS; n++) {
			i = rng_below(&rng, nr);
			page_check(mem + i * PAGE, i, version[i]);
			if (rng_below(&rng, 2))
				page_fill(mem + i * PAGE, i, ++version[i]);
			now = now_us();
			if (now - start > longest)
				longest = now - start;
			start = now;
			ops++;
		}
	}
	for (i = 0; i < nr; i++)
		page_check(mem + i * PAGE, i, version[i]);
	unmap(version, nr * sizeof(*version));
	unmap(mem, args.size);
}
