/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A program that holds memory and does as told on stdin, for tests that do
 * something to it or to vswap meanwhile.
 *
 * Prints "ready PID", then obeys lines: "check" reads every page and prints
 * "good N sigbus N wrong N"; "write" writes every page anew and prints
 * "written"; "grow BYTES" takes that much memory instead of what there was and
 * prints "grown"; "gaps BYTES" does so, too, and leaves the first pages of each block
 * untouched, "peek" checks the others only; "where" prints "at ADDRESS BYTES"; "dump
 * FILE" writes it all to a file and prints "dumped"; "fork N" has so many children,
 * prints "forked" when they are there, and "end" when they are to write a part each and
 * end, "ended" is printed then; "forks N" has as many that end at once, one after the
 * other, and prints "forked"; end of file ends it.
 *
 * What it obeys with is locked: a test that ruins a tier is to lose pages of what is
 * held, not stdin's buffer.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmtest.h"

#define BLOCK	 512
#define GAP	 64
#define CHILDREN 8

static sigjmp_buf lost;
static bool gaps;

static void on_sigbus(int sig)
{
	(void)sig;
	siglongjmp(lost, 1);
}

static bool in_gap(size_t page)
{
	return gaps && page % BLOCK < GAP;
}

static void flushed(int printed)
{
	if (printed < 0 || fflush(stdout))
		fail_errno("stdout");
}

static void keep(const void *what, size_t bytes)
{
	if (mlock(what, bytes))
		fail_errno("mlock");
}

/* Until @end is closed, then it writes its part of @nr pages, and no other's. */
static void child(int end, unsigned int number, char *mem, size_t nr, uint32_t version)
{
	size_t part = nr / CHILDREN, first = number * part, next = (number + 1) % CHILDREN * part;
	char byte;

	if (read(end, &byte, 1))
		fail_errno("read");
	range_check(mem + first * PAGE, part, first, version);
	range_fill(mem + first * PAGE, part, first, version + 1 + number);
	range_check(mem + next * PAGE, part, next, version);
	range_check(mem + first * PAGE, part, first, version + 1 + number);
	_exit(0);
}

void test_hold(void)
{
	static int end[2];
	static pid_t pid[CHILDREN];
	static size_t nr, i, good, bus, wrong, bytes;
	static uint32_t version;
	static char *mem, in[BUFSIZ], out[BUFSIZ];
	struct sigaction sa = { .sa_handler = on_sigbus };
	char line[512], path[512];
	FILE *file;

	if (sigaction(SIGBUS, &sa, NULL))
		fail_errno("sigaction");
	if (setvbuf(stdin, in, _IOFBF, sizeof(in)) || setvbuf(stdout, out, _IOFBF, sizeof(out)))
		fail("no buffers");
	keep(stdin, sizeof(*stdin));
	keep(stdout, sizeof(*stdout));
	keep(in, sizeof(in));
	keep(out, sizeof(out));
	keep(&lost, sizeof(lost));
	keep(&errno, sizeof(errno));
	keep(line, sizeof(line));
	nr = args.size / PAGE;
	mem = map_anon(args.size);
	range_fill(mem, nr, 0, version);
	flushed(printf("ready %d\n", getpid()));
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "check\n") || !strcmp(line, "peek\n")) {
			good = bus = wrong = 0;
			for (i = 0; i < nr; i++) {
				if (in_gap(i) && *line == 'p')
					continue;
				if (sigsetjmp(lost, 1))
					bus++;
				else if (in_gap(i) ? page_is_zero(mem + i * PAGE) :
						     page_right(mem + i * PAGE, i, version))
					good++;
				else
					wrong++;
			}
			flushed(printf("good %zu sigbus %zu wrong %zu\n", good, bus, wrong));
		} else if (!strcmp(line, "write\n")) {
			gaps = false;
			range_fill(mem, nr, 0, ++version);
			flushed(printf("written\n"));
		} else if (sscanf(line, "grow %zu", &bytes) == 1 ||
			   sscanf(line, "gaps %zu", &bytes) == 1) {
			gaps = !strncmp(line, "gaps", 4);
			unmap(mem, nr * PAGE);
			nr = bytes / PAGE;
			mem = map_anon(nr * PAGE);
			for (i = 0; i < nr; i++)
				if (!in_gap(i))
					page_fill(mem + i * PAGE, i, version);
			flushed(printf("grown\n"));
		} else if (!strcmp(line, "where\n")) {
			flushed(printf("at %lu %zu\n", (unsigned long)mem, nr * PAGE));
		} else if (sscanf(line, "dump %511s", path) == 1) {
			file = fopen(path, "w");
			if (!file || fwrite(mem, PAGE, nr, file) != nr || fclose(file))
				fail_errno(path);
			flushed(printf("dumped\n"));
		} else if (sscanf(line, "fork %zu", &bytes) == 1 && bytes <= CHILDREN) {
			if (pipe(end))
				fail_errno("pipe");
			for (i = 0; i < bytes; i++) {
				pid[i] = forked();
				if (!pid[i]) {
					close(end[1]);
					child(end[0], i, mem, nr, version);
				}
			}
			close(end[0]);
			flushed(printf("forked\n"));
		} else if (!strcmp(line, "end\n")) {
			close(end[1]);
			for (i = 0; i < bytes; i++)
				wait_for(pid[i], "child");
			flushed(printf("ended\n"));
		} else if (sscanf(line, "forks %zu", &bytes) == 1) {
			for (i = 0; i < bytes; i++) {
				pid[0] = forked();
				if (!pid[0])
					_exit(0);
				wait_for(pid[0], "child");
			}
			flushed(printf("forked\n"));
		} else {
			fail("told '%s'", line);
		}
	}
	if (ferror(stdin))
		fail_errno("stdin");
}
