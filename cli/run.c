// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap run: turn words into pager_opts, and refuse what cannot work before
 * anything is started.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../pager/json.h"
#include "../pager/job.h"
#include "../pager/machine.h"
#include "../pager/pager.h"
#include "../pager/program.h"
#include "../pager/size.h"
#include "space.h"

const char cli_run_help[] =
	"Usage: vswap run [OPTION]... [--] PROGRAM [ARG]...\n"
	"\n"
	"Run PROGRAM with its anonymous memory under a budget.  What does not fit is\n"
	"kept compressed in memory, and then in the tiers.\n"
	"\n"
	"  -r, --ram SIZE         memory for the program and all that vswap keeps for it\n"
	"                         (default: half of what is available)\n"
	"  -t, --tier PATH[,size=SIZE][,prio=N][,timeout=SECONDS]\n"
	"                         file, block device, or export of an NBD server\n"
	"                         (nbd://HOST[:PORT]/EXPORT,\n"
	"                         nbd+unix:///EXPORT?socket=PATH), for what does not fit\n"
	"                         in memory; repeat for more, higher prio (0..32767)\n"
	"                         first, those without one after them as given; timeout:\n"
	"                         how long to wait for a server that is gone (60)\n"
	"                         (default: a temporary file in $TMPDIR or /var/tmp)\n"
	"  -n, --no-tier          memory only, nothing is written to disk\n"
	"  -e, --encrypt          encrypt what goes to the tiers, with a key that is never\n"
	"                         written anywhere\n"
	"  -c, --compressor NAME  lz4 (default), zstd, or none\n"
	"  -S, --space SPACE      join this one (vswap serve), by name or process number,\n"
	"                         instead of having one; it has the memory and the tiers\n"
	"  -g, --group GROUP      with --space: whose limits hold (vswap group)\n"
	"  -s, --stats FILE       write statistics as JSON when the program has ended\n"
	"  -v, --verbose          print a summary on stderr when the program has ended\n"
	"  -h, --help             print this\n"
	"\n"
	"SIZE is a number with K, M, G or T (powers of 1024).  For --ram it may be a\n"
	"percentage of the machine's memory, or of the cgroup's if it has a limit.\n"
	"\n"
	"The exit status is the program's, 128+N if signal N killed it; 125 if vswap\n"
	"itself failed, 126 if the program cannot be run under vswap, 127 if there is\n"
	"no such program.\n";

/* clang-format off */
static const struct option options[] = {
	{ "ram", required_argument, NULL, 'r' },
	{ "tier", required_argument, NULL, 't' },
	{ "no-tier", no_argument, NULL, 'n' },
	{ "encrypt", no_argument, NULL, 'e' },
	{ "compressor", required_argument, NULL, 'c' },
	{ "space", required_argument, NULL, 'S' },
	{ "group", required_argument, NULL, 'g' },
	{ "stats", required_argument, NULL, 's' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

/* The file of --stats: what it held stays until there is something to replace it. */
struct stats_file {
	const char *path;
	FILE *f;
	bool created;
};

int cli_ram(const char *text, uint64_t *ram)
{
	char least[SIZE_TEXT], half[SIZE_TEXT];
	struct machine_memory mem;
	const char *why;
	int err;

	size_format(least, PAGER_MIN_RAM);
	err = machine_memory("", &mem);
	if (err)
		return cli_error(CLI_FAILED, "/proc/meminfo: %s (is /proc mounted?)",
				 strerror(-err));
	if (!text) {
		*ram = mem.available / 2;
		if (*ram < PAGER_MIN_RAM)
			return cli_error(CLI_FAILED,
					 "--ram: half of the available memory is %s, too small "
					 "(give at least %s, or free some memory)",
					 size_format(half, *ram), least);
		return 0;
	}
	why = size_parse(text, mem.limit, ram);
	if (why)
		return cli_error(CLI_FAILED, "--ram %s: %s", text, why);
	if (*ram < PAGER_MIN_RAM)
		return cli_error(CLI_FAILED, "--ram %s: too small (give at least %s)", text, least);
	return 0;
}

int cli_parse_tier(const char *what, char *text, struct pager_tier_opt *tier)
{
	char *word, *end, *rest = text, shown[PATH_MAX];
	const char *why;
	long prio, seconds;

	tier->path = strsep(&rest, ",");
	tier->size = 0;
	tier->timeout = 0;
	if (!*tier->path)
		return cli_error(
			CLI_FAILED,
			"%s: empty path (name a file, a block device or an nbd:// address)", what);
	/* By that name it is shown, and removed. */
	if (!json_is_text(tier->path)) {
		json_to_text(shown, sizeof(shown), tier->path);
		return cli_error(CLI_FAILED,
				 "%s %s: has bytes in it that are no text in UTF-8 (rename it, or "
				 "give a link to it)",
				 what, shown);
	}

	while ((word = strsep(&rest, ","))) {
		if (!strncmp(word, "size=", 5)) {
			why = size_parse(word + 5, 0, &tier->size);
			if (!why && !tier->size)
				why = "no room at all (leave size= out to use all there is)";
			if (why)
				return cli_error(CLI_FAILED, "%s %s: %s: %s", what, tier->path,
						 word, why);
		} else if (!strncmp(word, "prio=", 5)) {
			errno = 0;
			prio = strtol(word + 5, &end, 10);
			if (errno || end == word + 5 || *end || prio < 0 || prio > PAGER_MAX_PRIO)
				return cli_error(CLI_FAILED,
						 "%s %s: %s: not a priority (give 0 to %d)", what,
						 tier->path, word, PAGER_MAX_PRIO);
			tier->prio = prio;
		} else if (!strncmp(word, "timeout=", 8)) {
			errno = 0;
			seconds = strtol(word + 8, &end, 10);
			if (errno || end == word + 8 || *end || seconds < 1 ||
			    seconds > PAGER_MAX_TIMEOUT)
				return cli_error(CLI_FAILED,
						 "%s %s: %s: not a number of seconds (give 1 to "
						 "%d)",
						 what, tier->path, word, PAGER_MAX_TIMEOUT);
			tier->timeout = seconds;
		} else {
			return cli_error(CLI_FAILED,
					 "%s %s: %s: unknown (size=SIZE, prio=N and timeout=N "
					 "can follow the path, which has no comma)",
					 what, tier->path, word);
		}
	}
	return 0;
}

int cli_add_tier(char *text, struct pager_opts *opts)
{
	struct pager_tier_opt *tier = &opts->tier[opts->nr_tiers];
	int status;

	if (opts->nr_tiers == PAGER_MAX_TIERS)
		return cli_error(CLI_FAILED, "--tier %s: one too many (give at most %d)", text,
				 PAGER_MAX_TIERS);
	/* Below any that is given, earlier ones first. */
	tier->prio = -1 - (int)opts->nr_tiers;
	status = cli_parse_tier("--tier", text, tier);
	if (!status)
		opts->nr_tiers++;
	return status;
}

int cli_compressor(const char *name)
{
	if (!strcmp(name, "lz4") || !strcmp(name, "zstd") || !strcmp(name, "none"))
		return 0;
	return cli_error(CLI_FAILED, "--compressor %s: not known (there are lz4, zstd and none)",
			 name);
}

static int open_stats(struct stats_file *stats)
{
	int fd, err;

	if (!stats->path)
		return 0;
	stats->created = access(stats->path, F_OK) != 0;
	fd = open(stats->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
	stats->f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (stats->f)
		return 0;
	err = errno;
	if (fd >= 0)
		close(fd);
	return cli_error(CLI_FAILED, "--stats %s: %s (name a file that can be written)",
			 stats->path, strerror(err));
}

/*
 * The statistics end where the writing ended; where nothing was written the
 * file is as it was before.  Trouble is told, the program's status stands.
 */
static void close_stats(struct stats_file *stats)
{
	struct stat st;
	off_t end;
	int fd;

	if (!stats->f)
		return;
	fd = fileno(stats->f);
	if (fflush(stats->f) || ferror(stats->f))
		cli_error(0, "--stats %s: %s (is the disk full?)", stats->path, strerror(errno));
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		end = lseek(fd, 0, SEEK_CUR);
		if (end > 0 && ftruncate(fd, end))
			cli_error(0,
				  "--stats %s: old contents stay at its end: %s (remove it first)",
				  stats->path, strerror(errno));
		if (!end && !st.st_size && stats->created && unlink(stats->path))
			cli_error(0, "--stats %s: left behind empty: %s (remove it)", stats->path,
				  strerror(errno));
	}
	if (fclose(stats->f))
		cli_error(0, "--stats %s: %s (is the disk full?)", stats->path, strerror(errno));
}

/* Returns 0 with the name of the socket the space made for this run, or an exit status. */
static int ask_to_join(const char *space, const char *group, char join[JOB_NAME])
{
	struct json_object *answer = NULL, *request;
	const char *socket;
	struct link link;
	int status;

	status = link_open(&link, space);
	if (status)
		return status;
	request = link_request("join");
	if (group && request && json_add_text(request, "group", group)) {
		json_object_put(request);
		request = NULL;
	}
	status = link_ask(&link, request, NULL, &answer);
	link_close(&link);
	if (status)
		return status;
	socket = snapshot_text(answer, "socket");
	if (!socket || snprintf(join, JOB_NAME, "%s", socket) >= JOB_NAME)
		status = answer_not_understood(space);
	json_object_put(answer);
	return status;
}

int cli_run(int argc, char **argv)
{
	struct pager_opts opts = { .compressor = "lz4" };
	struct stats_file stats = { 0 };
	char path[PATH_MAX], why[1024];
	const char *ram = NULL, *group = NULL, *own = NULL;
	char join[JOB_NAME];
	const struct option *o;
	int c, status;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:r:t:nec:S:g:s:vh", options, NULL)) >= 0) {
		status = 0;
		for (o = options; o->name && o->val != c; o++)
			;
		if (o->name && !strchr("Sgh", c))
			own = o->name;
		switch (c) {
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
		case 'S':
			opts.space = optarg;
			break;
		case 'g':
			group = optarg;
			break;
		case 's':
			stats.path = optarg;
			break;
		case 'v':
			opts.verbose = true;
			break;
		case 'h':
			fputs(cli_run_help, stdout);
			return 0;
		default:
			status = cli_bad_option(argv, c, options, "run");
		}
		if (status)
			return status;
	}

	if (opts.no_tier && opts.nr_tiers)
		return cli_error(CLI_FAILED,
				 "--no-tier: there is a --tier, too (drop one of them)");
	if (group && !opts.space)
		return cli_error(CLI_FAILED, "--group %s: in which space? (give --space)", group);
	if (own && opts.space)
		return cli_error(CLI_FAILED,
				 "--%s: is the space's, not that of a program in it (drop it or "
				 "--space)",
				 own);
	status = opts.space ? 0 : cli_ram(ram, &opts.ram);
	if (status)
		return status;
	if (optind == argc)
		return cli_error(CLI_FAILED,
				 "run: no program given (as in vswap run -- sort big.txt)");
	opts.argv = argv + optind;
	status = program_resolve(opts.argv[0], path, sizeof(path), why, sizeof(why));
	if (status)
		return cli_error(status, "%s: %s", opts.argv[0], why);

	if (opts.space) {
		status = ask_to_join(opts.space, group, join);
		if (status)
			return status;
		opts.join = join;
	}
	status = open_stats(&stats);
	if (status)
		return status;
	opts.stats = stats.f;
	status = pager_run(&opts);
	close_stats(&stats);
	return status;
}
