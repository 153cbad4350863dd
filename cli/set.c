// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap set and vswap reclaim: another limit, less memory at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../pager/json.h"
#include "../pager/machine.h"
#include "../pager/size.h"
#include "cli.h"
#include "progress.h"
#include "space.h"

const char cli_set_help[] =
	"Usage: vswap set [SPACE] [ram=SIZE] [compressor=NAME]\n"
	"\n"
	"Change a running space.  SPACE is its name or process number, and may be left\n"
	"out when only one is running.\n"
	"\n"
	"  ram=SIZE         memory for the programs and all that vswap keeps for them, as\n"
	"                   --ram of vswap run; a smaller limit is reached by reclaiming\n"
	"                   first, and if that cannot be the old one stays.  A percentage\n"
	"                   is of the machine's memory, or of that of the cgroup this\n"
	"                   command runs in, which may not be the space's\n"
	"  compressor=NAME  lz4, zstd or none, for what is swapped out from now on\n"
	"\n"
	"  -h, --help  print this\n";

const char cli_reclaim_help[] =
	"Usage: vswap reclaim [SPACE] SIZE\n"
	"\n"
	"Put SIZE of a running space's memory elsewhere now, the coldest first, and print\n"
	"how much went.  What is needed comes back, up to the limit.  SPACE is its name or\n"
	"process number, and may be left out when only one is running.\n"
	"\n"
	"  -h, --help  print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

/* Only --help there is.  -1: go on; else an exit status. */
static int parse_help(int argc, char **argv, const char *help, const char *command)
{
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		if (c != 'h')
			return cli_bad_option(argv, c, options, command);
		fputs(help, stdout);
		return 0;
	}
	return -1;
}

/* One of KEY=VALUE into the request.  Returns 0 or an exit status. */
static int add_setting(struct json_object *request, const char *text)
{
	struct machine_memory mem;
	const char *why;
	uint64_t ram;
	int err;

	if (!strncmp(text, "ram=", 4)) {
		err = machine_memory("", &mem);
		if (err)
			return cli_error(CLI_FAILED, "/proc/meminfo: %s (is /proc mounted?)",
					 strerror(-err));
		why = size_parse(text + 4, mem.limit, &ram);
		if (why)
			return cli_error(CLI_FAILED, "set: %s: %s", text, why);
		err = json_add_u64(request, "ram", ram);
	} else if (!strncmp(text, "compressor=", 11)) {
		err = json_add_text(request, "compressor", text + 11);
	} else {
		return cli_error(CLI_FAILED,
				 "set: %s: unknown (there are ram=SIZE and compressor=NAME)", text);
	}
	return err ? cli_error(CLI_FAILED, "set: out of memory (free some)") : 0;
}

int cli_set(int argc, char **argv)
{
	struct json_object *request;
	const char *space = NULL;
	struct link link;
	int status = parse_help(argc, argv, cli_set_help, "set");

	if (status >= 0)
		return status;
	if (optind < argc && !strchr(argv[optind], '='))
		space = argv[optind++];
	if (optind == argc)
		return cli_error(CLI_FAILED, "set: nothing to set (as in vswap set ram=1G)");
	request = link_request("set");
	if (!request)
		return cli_error(CLI_FAILED, "set: out of memory (free some)");
	for (status = 0; !status && optind < argc; optind++)
		status = add_setting(request, argv[optind]);
	if (!status)
		status = link_open(&link, space);
	if (status) {
		json_object_put(request);
		return status;
	}
	status = progress_ask(&link, request, "set", "all is as it was", NULL);
	link_close(&link);
	return status;
}

int cli_reclaim(int argc, char **argv)
{
	struct json_object *request, *answer = NULL;
	uint64_t bytes, got;
	char text[SIZE_TEXT];
	const char *why;
	struct link link;
	int status = parse_help(argc, argv, cli_reclaim_help, "reclaim");

	if (status >= 0)
		return status;
	if (optind == argc)
		return cli_error(CLI_FAILED, "reclaim: how much? (as in vswap reclaim 1G)");
	if (argc - optind > 2)
		return cli_error(CLI_FAILED, "%s: one argument too many (vswap reclaim --help)",
				 argv[argc - 1]);
	why = size_parse(argv[argc - 1], 0, &bytes);
	if (why)
		return cli_error(CLI_FAILED, "reclaim: %s: %s", argv[argc - 1], why);
	status = link_open(&link, argc - optind > 1 ? argv[optind] : NULL);
	if (status)
		return status;
	request = link_request("reclaim");
	if (request && json_add_u64(request, "bytes", bytes)) {
		json_object_put(request);
		request = NULL;
	}
	status = progress_ask(&link, request, "reclaim", "what went may come back", &answer);
	link_close(&link);
	if (status)
		return status;
	got = snapshot_number(answer, NULL, "reclaimed");
	printf("%s reclaimed%s\n", size_format(text, got), got < bytes ? ": no more could be" : "");
	json_object_put(answer);
	return 0;
}
