// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap bench: find the program that measures, which is written in Python, and
 * become it.  That reads the options.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../pager/program.h"
#include "cli.h"

#define SCRIPT "bench-compare"

const char cli_bench_help[] =
	"Usage: vswap bench [OPTION]...\n"
	"\n"
	"Measure on this machine what programs lose in too little memory: under vswap, and\n"
	"beside it under the kernel's zram, zswap and swap file, all with the same memory.\n"
	"Takes about five minutes.  The kernel's need root; without it, as without zram or\n"
	"memory cgroups, what is missing is said and the rest is measured.  The machine is\n"
	"left as it was found, also when interrupted.  Run nothing else meanwhile.\n"
	"\n"
	"  -f, --full         all workloads, five times each: more than half an hour\n"
	"  -k, --only REGEX   only workloads whose name matches\n"
	"  -l, --list         print the names of the workloads\n"
	"  -r, --rounds N     how often each runs (3; with --full 5)\n"
	"  -m, --minutes N    leave out what does not fit in that time (10; with --full 39)\n"
	"  -o, --output DIR   where to write report.md, its pictures and compare.json\n"
	"                     (./vswap-bench); those of a former run are replaced\n"
	"  -d, --dir DIR      where swap file and disk tiers are made (/var/tmp)\n"
	"  -h, --help         print this\n"
	"\n"
	"Examples:\n"
	"  sudo vswap bench\n"
	"  vswap bench --only '^(sort|zipf)$' --rounds 5 --output results\n";

int cli_bench(int argc, char **argv)
{
	char script[PATH_MAX], self[PATH_MAX];
	char **args;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(cli_bench_help, stdout);
			return 0;
		}
	}
	if (own_path("../bench/" SCRIPT, VSWAP_LIBEXEC_PATH "/" SCRIPT, script))
		return cli_error(CLI_FAILED, "bench: %s/%s: not there (install all of vswap)",
				 VSWAP_LIBEXEC_PATH, SCRIPT);
	if (!realpath("/proc/self/exe", self))
		return cli_error(CLI_FAILED, "bench: /proc/self/exe: %s (is /proc mounted?)",
				 strerror(errno));
	args = calloc(argc + 3, sizeof(*args));
	if (!args)
		return cli_error(CLI_FAILED, "bench: out of memory (free some)");
	args[0] = "python3";
	args[1] = script;
	args[2] = self;
	memcpy(args + 3, argv + 1, (argc - 1) * sizeof(*args));
	execvp(args[0], args);
	free(args);
	return cli_error(CLI_FAILED, "bench: python3: %s (install Python 3.9 or later)",
			 strerror(errno));
}
