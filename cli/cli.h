/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the parts of the vswap command share: exit statuses, the one-line
 * error, the commands.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <getopt.h>
#include <stdint.h>

struct pager_tier_opt;

#define CLI_FAILED 125 /* vswap's own failure, as env(1) has it */

/*
 * Print "vswap: " and the message, one line whatever it contains, on stderr.
 * The message reads "what: why (what to do)".  Returns @status.
 */
int cli_error(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * The error for a '?' or ':' that getopt_long() just returned for @options
 * (called with opterr 0 and a leading ':' in its short options).  @command is
 * whose --help to point at.  Returns CLI_FAILED.
 */
int cli_bad_option(char **argv, int c, const struct option *options, const char *command);

/*
 * The commands: argv[0] is the command's own name.  Each returns the exit
 * status of vswap.  What they print to stdout is checked by main().
 */
int cli_run(int argc, char **argv);
int cli_ls(int argc, char **argv);
int cli_stat(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_map(int argc, char **argv);
int cli_tier(int argc, char **argv);
int cli_set(int argc, char **argv);
int cli_migrate(int argc, char **argv);
int cli_reclaim(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_group(int argc, char **argv);
int cli_bench(int argc, char **argv);

/* What --help prints. */
extern const char cli_run_help[], cli_ls_help[], cli_stat_help[], cli_tier_help[];
extern const char cli_top_help[], cli_map_help[], cli_set_help[], cli_reclaim_help[],
	cli_migrate_help[], cli_doctor_help[];
extern const char cli_serve_help[], cli_group_help[], cli_bench_help[];

struct pager_opts;

/*
 * What run and serve take alike; each returns 0 or an exit status after an error
 * line.  --ram, or the default when @text is NULL; --tier, see cli_parse_tier();
 * --compressor.
 */
int cli_ram(const char *text, uint64_t *ram);
int cli_add_tier(char *text, struct pager_opts *opts);
int cli_compressor(const char *name);

/*
 * PATH[,size=SIZE][,prio=N][,timeout=SECONDS], cut up in place, to @tier; its prio
 * stays as it is when none is given.  Errors begin with @what.  Returns 0 or an exit
 * status after an error line.
 */
int cli_parse_tier(const char *what, char *text, struct pager_tier_opt *tier);

#endif
