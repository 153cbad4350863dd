// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap: find the command that is meant, and say so when there is none.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../pager/program.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{ "run", cli_run, cli_run_help },
	{ "serve", cli_serve, cli_serve_help },
	{ "group", cli_group, cli_group_help },
	{ "ls", cli_ls, cli_ls_help },
	{ "stat", cli_stat, cli_stat_help },
	{ "tier", cli_tier, cli_tier_help },
	{ "map", cli_map, cli_map_help },
	{ "top", cli_top, cli_top_help },
	{ "set", cli_set, cli_set_help },
	{ "migrate", cli_migrate, cli_migrate_help },
	{ "reclaim", cli_reclaim, cli_reclaim_help },
	{ "doctor", cli_doctor, cli_doctor_help },
	{ "bench", cli_bench, cli_bench_help },
};

/* Longer words are no misspelt commands. */
#define MAX_WORD    16
#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char help[] =
	"Usage: vswap COMMAND [OPTION]...\n"
	"\n"
	"Run programs in less memory than they need: what does not fit is kept\n"
	"compressed, or on disk, behind a virtual swap space.\n"
	"\n"
	"Commands:\n"
	"  run      run a program under a memory budget\n"
	"  serve    keep a space for several programs\n"
	"  group    limit what programs in a shared space may have\n"
	"  ls       list running spaces\n"
	"  stat     show what is counted in them, or watch one\n"
	"  top      watch one on the whole screen\n"
	"  map      draw where the memory of one is\n"
	"  tier     list, add or remove the tiers of a running space\n"
	"  set      change the limit or the compressor of a running space\n"
	"  migrate  move what is swapped out from one store to another\n"
	"  reclaim  put memory of a running space elsewhere now\n"
	"  doctor   say whether this machine can run vswap, and what to do if not\n"
	"  bench    measure programs under vswap, beside what the kernel has\n"
	"\n"
	"  vswap COMMAND --help   describes a command\n"
	"  vswap --version        prints the version\n"
	"\n"
	"Example:\n"
	"  vswap run --ram 256M --verbose -- sort -S 1G big.txt\n";

int cli_bad_option(char **argv, int c, const struct option *options, const char *command)
{
	const char *word = argv[optind - 1];
	const struct option *o;

	for (o = options; optopt && o->name && o->val != optopt; o++)
		;
	if (optopt && o->name && c == ':')
		return cli_error(CLI_FAILED, "--%s: needs a value (vswap %s --help)", o->name,
				 command);
	if (optopt && o->name)
		return cli_error(CLI_FAILED, "--%s: takes no value (vswap %s --help)", o->name,
				 command);
	if (optopt)
		return cli_error(CLI_FAILED, "-%c: unknown option (vswap %s --help lists them)",
				 optopt, command);
	return cli_error(CLI_FAILED, "%s: unknown option (vswap %s --help lists them)", word,
			 command);
}

/* Edits (a letter more, less, other, or two swapped) between short words; 9 for long ones. */
static unsigned int distance(const char *a, const char *b)
{
	unsigned int d[MAX_WORD + 1][MAX_WORD + 1];
	size_t la = strlen(a), lb = strlen(b), i, j;
	unsigned int best;

	if (la > MAX_WORD || lb > MAX_WORD)
		return 9;
	for (i = 0; i <= la; i++) {
		for (j = 0; j <= lb; j++) {
			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	}
	return d[la][lb];
}

static const struct command *find_command(const char *name)
{
	unsigned int i;

	for (i = 0; i < NR_COMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static int unknown_command(const char *name)
{
	char path[4096], why[512];
	unsigned int i;

	if (*name == '-')
		return cli_error(CLI_FAILED, "%s: unknown option (vswap --help)", name);
	if (program_resolve(name, path, sizeof(path), why, sizeof(why)) != PROGRAM_NOT_FOUND)
		return cli_error(CLI_FAILED,
				 "%s: no such command (to run a program: vswap run -- %s)", name,
				 name);
	for (i = 0; i < NR_COMMANDS; i++) {
		if (distance(name, commands[i].name) <= 2)
			return cli_error(CLI_FAILED, "%s: no such command (did you mean vswap %s?)",
					 name, commands[i].name);
	}
	return cli_error(CLI_FAILED, "%s: no such command (vswap --help lists them)", name);
}

/*
 * A program started with stdin, stdout or stderr closed shall find them so.
 * Until then the numbers are taken, so that no file of ours gets one of them
 * and with it somebody's messages.
 */
static bool guard_standard_files(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static int dispatch(int argc, char **argv)
{
	const struct command *command;
	const char *word = argc > 1 ? argv[1] : NULL;

	if (!word)
		return cli_error(CLI_FAILED, "no command given (vswap --help lists them)");
	if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
		printf("vswap %s\n", VSWAP_VERSION);
		return 0;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
		command = argc > 2 ? find_command(argv[2]) : NULL;
		if (argc > 2 && !command)
			return unknown_command(argv[2]);
		fputs(command ? command->help : help, stdout);
		return 0;
	}
	command = find_command(word);
	if (!command)
		return unknown_command(word);
	return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int status;

	if (!guard_standard_files())
		return cli_error(CLI_FAILED, "/dev/null: %s (is /dev mounted?)", strerror(errno));
	status = dispatch(argc, argv);
	if (fflush(stdout) || ferror(stdout))
		return cli_error(status ? status : CLI_FAILED,
				 "stdout: %s (is the disk full, or the reader gone?)",
				 strerror(errno));
	return status;
}
