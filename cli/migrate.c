// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap migrate: move what is swapped out from one store to another.
 */
#include <inttypes.h>
#include <stdio.h>

#include "../pager/json.h"
#include "../pager/size.h"
#include "cli.h"
#include "progress.h"
#include "space.h"

const char cli_migrate_help[] =
	"Usage: vswap migrate [SPACE] --from STORE --to STORE [SIZE]\n"
	"\n"
	"Move SIZE, or all, of what a running space keeps in one store to another, while\n"
	"programs run, and print how much went.  A store is a tier as vswap tier ls shows\n"
	"it, or pool for the compressed memory.  SPACE is its name or process number, and\n"
	"may be left out when only one is running.  Ctrl-C ends it.\n"
	"\n"
	"  -f, --from STORE  where it is\n"
	"  -t, --to STORE    where it shall be\n"
	"  -h, --help        print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "from", required_argument, NULL, 'f' },
	{ "to", required_argument, NULL, 't' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

static int migrate(const char *space, const char *from, const char *to, uint64_t bytes)
{
	struct json_object *request, *answer = NULL;
	const char *stopped;
	char text[SIZE_TEXT];
	struct link link;
	int status = link_open(&link, space);

	if (status)
		return status;
	request = link_request("migrate");
	if (request && (json_add_text(request, "from", from) || json_add_text(request, "to", to) ||
			(bytes && json_add_u64(request, "bytes", bytes)))) {
		json_object_put(request);
		request = NULL;
	}
	status = progress_ask(&link, request, "migrate", "what went stays there", &answer);
	link_close(&link);
	if (status)
		return status;
	stopped = snapshot_text(answer, "stopped");
	printf("%s moved%s%s\n", size_format(text, snapshot_number(answer, NULL, "moved")),
	       stopped ? ": " : "", stopped ? stopped : "");
	json_object_put(answer);
	return 0;
}

int cli_migrate(int argc, char **argv)
{
	const char *from = NULL, *to = NULL, *space = NULL, *size = NULL, *why;
	uint64_t bytes = 0;
	int c, status;
	bool named;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":f:t:h", options, NULL)) >= 0) {
		switch (c) {
		case 'f':
			from = optarg;
			break;
		case 't':
			to = optarg;
			break;
		case 'h':
			fputs(cli_migrate_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "migrate");
		}
	}
	if (!from || !to)
		return cli_error(CLI_FAILED, "migrate: --%s: not given (vswap migrate --help)",
				 from ? "to" : "from");
	if (argc - optind > 2)
		return cli_error(CLI_FAILED, "%s: one argument too many (vswap migrate --help)",
				 argv[argc - 1]);
	named = argc - optind == 2;
	/* One word alone may be either. */
	if (argc - optind == 1) {
		status = space_exists(argv[optind], &named);
		if (status)
			return status;
	}
	if (named)
		space = argv[optind++];
	if (optind < argc)
		size = argv[optind];
	if (size) {
		why = size_parse(size, 0, &bytes);
		if (!why && !bytes)
			why = "nothing (leave it out to move all)";
		if (why)
			return cli_error(CLI_FAILED, "migrate: %s: %s", size, why);
	}
	return migrate(space, from, to, bytes);
}
