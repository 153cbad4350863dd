// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap serve: a space that programs join.
 */
#include "cli.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "../pager/pager.h"
#include "space.h"

#define MAX_NAME 63

const char cli_serve_help[] =
	"Usage: vswap serve [OPTION]...\n"
	"\n"
	"Keep a space for several programs, which vswap run --space starts in it.  One\n"
	"budget covers all of them, and groups (vswap group) say who may have how much.\n"
	"\n"
	"  -N, --name NAME        what to call it; its process number always names it, too\n"
	"  -r, --ram SIZE         memory for all programs and all that vswap keeps for them\n"
	"                         (default: half of what is available)\n"
	"  -t, --tier PATH[,size=SIZE][,prio=N][,timeout=SECONDS]\n"
	"  -n, --no-tier\n"
	"  -e, --encrypt\n"
	"  -c, --compressor NAME  as for vswap run\n"
	"  -h, --help             print this\n"
	"\n"
	"It runs in the foreground and prints a line when it is ready.  On SIGTERM,\n"
	"SIGINT (Ctrl-C), SIGHUP or SIGQUIT nobody may join any more, and it ends with the\n"
	"last program in it; a second one kills those that run.\n";

/* clang-format off */
static const struct option options[] = {
	{ "name", required_argument, NULL, 'N' },
	{ "ram", required_argument, NULL, 'r' },
	{ "tier", required_argument, NULL, 't' },
	{ "no-tier", no_argument, NULL, 'n' },
	{ "encrypt", no_argument, NULL, 'e' },
	{ "compressor", required_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

/* Returns 0 or an exit status. */
static int check_name(const char *name)
{
	const char *p;
	bool letter = false, found;
	int status;

	for (p = name; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
			return cli_error(CLI_FAILED,
					 "--name %s: not a name (use letters, digits, . - _)",
					 name);
		letter |= !isdigit((unsigned char)*p);
	}
	if (p == name || p - name > MAX_NAME || *name == '.' || *name == '-')
		return cli_error(CLI_FAILED,
				 "--name %s: not a name (begin with a letter or digit, %d "
				 "characters at most)",
				 name, MAX_NAME);
	if (!letter)
		return cli_error(CLI_FAILED,
				 "--name %s: would be a process number (put a letter in)", name);
	status = space_exists(name, &found);
	if (status)
		return status;
	if (found)
		return cli_error(CLI_FAILED, "--name %s: there is such a space (use another name)",
				 name);
	return 0;
}

int cli_serve(int argc, char **argv)
{
	struct pager_opts opts = { .compressor = "lz4" };
	const char *ram = NULL;
	int c, status;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":N:r:t:nec:h", options, NULL)) >= 0) {
		status = 0;
		switch (c) {
		case 'N':
			opts.space = optarg;
			status = check_name(optarg);
			break;
		case 'r':
			ram = optarg;
			break;
		case 't':
			status = cli_add_tier(optarg, &opts);
			break;
		case 'n':
			opts.no_tier = true;
			break;
		case 'e':
			opts.encrypt = true;
			break;
		case 'c':
			opts.compressor = optarg;
			status = cli_compressor(optarg);
			break;
		case 'h':
			fputs(cli_serve_help, stdout);
			return 0;
		default:
			status = cli_bad_option(argv, c, options, "serve");
		}
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_error(CLI_FAILED,
				 "%s: serve starts no program (vswap run --space does, in it)",
				 argv[optind]);
	if (opts.no_tier && opts.nr_tiers)
		return cli_error(CLI_FAILED,
				 "--no-tier: there is a --tier, too (drop one of them)");
	status = cli_ram(ram, &opts.ram);
	if (status)
		return status;
	return pager_serve(&opts);
}
