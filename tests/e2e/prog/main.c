/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * vmtest TEST [--size SIZE] [--passes N] [--threads N] [--seed N] [--hard]
 *
 * Programs whose every byte can be checked, to be run with less memory than
 * they use.  Status 0 and a line on stdout when all was right, 1 and a line on
 * stderr at the first byte that was not.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmtest.h"

struct vmtest_args args = {
	.size = 64UL << 20,
	.passes = 2,
	.threads = 4,
};

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "seq", test_seq },
	{ "random", test_random },
	{ "zipf", test_zipf },
	{ "rw", test_rw },
	{ "thp", test_thp },
	{ "threads", test_threads },
	{ "threadend", test_threadend },
	{ "mainend", test_mainend },
	{ "realloc", test_realloc },
	{ "stacks", test_stacks },
	{ "recursion", test_recursion },
	{ "malloc", test_malloc },
	{ "brk", test_brk },
	{ "dontneed", test_dontneed },
	{ "dontneed-race", test_dontneed_race },
	{ "free", test_free },
	{ "mremap", test_mremap },
	{ "mprotect", test_mprotect },
	{ "munmap", test_munmap },
	{ "holes", test_holes },
	{ "churn", test_churn },
	{ "manymaps", test_manymaps },
	{ "mlock", test_mlock },
	{ "shared", test_shared },
	{ "mapped", test_mapped },
	{ "forkexec", test_forkexec },
	{ "vforkleft", test_vforkleft },
	{ "forkread", test_forkread },
	{ "forkwrite", test_forkwrite },
	{ "forkgrow", test_forkgrow },
	{ "forkthreads", test_forkthreads },
	{ "forkmoves", test_forkmoves },
	{ "parentexec", test_parentexec },
	{ "spawn", test_spawn },
	{ "shell", test_shell },
	{ "clone", test_clone },
	{ "clonefork", test_clonefork },
	{ "grownalone", test_grownalone },
	{ "pidns", test_pidns },
	{ "begets", test_begets },
	{ "forkmany", test_forkmany },
	{ "low", test_low },
	{ "leftbehind", test_leftbehind },
	{ "orphan", test_orphan },
	{ "syscalls", test_syscalls },
	{ "closefds", test_closefds },
	{ "signals", test_signals },
	{ "barrier", test_barrier },
	{ "splits", test_splits },
	{ "mapkinds", test_mapkinds },
	{ "sysv", test_sysv },
	{ "mlockall", test_mlockall },
	{ "advices", test_advices },
	{ "direct", test_direct },
	{ "ownuffd", test_ownuffd },
	{ "sandbox", test_sandbox },
	{ "sandbox-all", test_sandbox_all },
	{ "rlimits", test_rlimits },
	{ "hold", test_hold },
	{ "live", test_live },
};

static const char *name = "?";

void fail(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (len < 0)
		line[0] = 0;
	dprintf(STDERR_FILENO, "vmtest: %s: %s\n", name, line);
	_exit(1);
}

void fail_errno(const char *what)
{
	fail("%s: %s", what, strerror(errno));
}

void passed(const char *name)
{
	if (printf("ok %s\n", name) < 0 || fflush(stdout))
		fail_errno("stdout");
	exit(0);
}

static size_t parse_size(const char *s)
{
	char *end;
	unsigned long long n = strtoull(s, &end, 10);

	switch (*end) {
	case 'G':
		n <<= 10;
		/* fall through */
	case 'M':
		n <<= 10;
		/* fall through */
	case 'K':
		n <<= 10;
		end++;
	}
	if (*end || n < 1 << 20)
		fail("size '%s': want 1M or more", s);
	return n / PAGE * PAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "passes", required_argument, NULL, 'p' },
		{ "threads", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 'r' },
		{ "hard", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			args.size = parse_size(optarg);
			break;
		case 'p':
			args.passes = strtoul(optarg, NULL, 10);
			break;
		case 't':
			args.threads = strtoul(optarg, NULL, 10);
			break;
		case 'r':
			args.seed = strtoull(optarg, NULL, 10);
			break;
		case 'h':
			args.hard = true;
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || !args.passes || !args.threads)
		fail("usage: vmtest TEST [--size SIZE] [--passes N] [--threads N] [--seed N] [--hard]");
	name = argv[optind];
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (strcmp(tests[i].name, name))
			continue;
		tests[i].run();
		passed(name);
	}
	fail("no such test");
}
