// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap tier: what a running space writes to, and more or less of it.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../pager/json.h"
#include "../pager/pager.h"
#include "../pager/size.h"
#include "cli.h"
#include "progress.h"
#include "space.h"

const char cli_tier_help[] =
	"Usage: vswap tier ls [--json] [SPACE]\n"
	"       vswap tier add [SPACE] PATH[,size=SIZE][,prio=N][,timeout=SECONDS]\n"
	"       vswap tier rm [SPACE] TIER\n"
	"\n"
	"Show, add or remove the files, block devices and servers that a running space\n"
	"writes to.  SPACE is its name or process number, and may be left out when only\n"
	"one is running.\n"
	"\n"
	"  ls     list the tiers, those used first on top\n"
	"  add    add one, as --tier of vswap run has it; without prio= it comes last\n"
	"  rm     move all there is on TIER elsewhere, while programs run, and let it go;\n"
	"         refused when the rest has no room.  Ctrl-C ends it: TIER stays, nothing\n"
	"         is lost.  TIER is a path as ls shows it, or the last part of one\n"
	"\n"
	"  -j, --json  ls: print JSON\n"
	"  -h, --help  print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

static int tier_ls(struct link *link, bool json)
{
	char size[SIZE_TEXT], used[SIZE_TEXT], in[SIZE_TEXT], out[SIZE_TEXT];
	struct json_object *answer, *stat, *tiers, *tier, *prio = NULL;
	const char *name, *state;
	size_t i;
	int status = link_ask(link, link_request("stat"), NULL, &answer);

	if (status)
		return status;
	if (!json_object_object_get_ex(answer, "stat", &stat) ||
	    !json_object_object_get_ex(stat, "tiers", &tiers)) {
		json_object_put(answer);
		return answer_not_understood("tier ls");
	}
	if (json) {
		print_json(tiers, false);
	} else if (!json_object_array_length(tiers)) {
		puts("no tier: memory only");
	} else {
		printf("%-32s %6s %8s %8s %8s %8s\n", "TIER", "PRIO", "SIZE", "USED", "WRITTEN",
		       "READ");
		for (i = 0; i < json_object_array_length(tiers); i++) {
			tier = json_object_array_get_idx(tiers, i);
			name = snapshot_text(tier, "name");
			state = tier_state(tier);
			json_object_object_get_ex(tier, "prio", &prio);
			printf("%-32s %6d %8s %8s %8s %8s%s%s\n", name ? name : "?",
			       json_object_get_int(prio),
			       size_format(size, snapshot_number(tier, NULL, "size_bytes")),
			       size_format(used, snapshot_number(tier, NULL, "used_bytes")),
			       size_format(out, snapshot_number(tier, NULL, "bytes_written")),
			       size_format(in, snapshot_number(tier, NULL, "bytes_read")),
			       *state ? "  " : "", state);
		}
	}
	json_object_put(answer);
	return 0;
}

/* The other side has another working directory. */
static int absolute(const char *path, char *buf, size_t len)
{
	char cwd[PATH_MAX];
	int n;

	if (*path == '/' || strstr(path, "://"))
		n = snprintf(buf, len, "%s", path);
	else if (!getcwd(cwd, sizeof(cwd)))
		return cli_error(CLI_FAILED, "tier %s: %s (give the whole path)", path,
				 strerror(errno));
	else
		n = snprintf(buf, len, "%s/%s", cwd, path);
	if (n < 0 || (size_t)n >= len)
		return cli_error(CLI_FAILED, "tier %s: %s (give the path of a link)", path,
				 strerror(ENAMETOOLONG));
	if (!json_is_text(buf))
		return cli_error(CLI_FAILED,
				 "tier %s: the directory has bytes in its name that are no text in "
				 "UTF-8 (rename it, or give the path of a link)",
				 path);
	return 0;
}

static int tier_add(struct link *link, char *text)
{
	struct pager_tier_opt tier = { .prio = -1 };
	struct json_object *request;
	char path[PATH_MAX];
	int status = cli_parse_tier("tier add", text, &tier);

	if (!status)
		status = absolute(tier.path, path, sizeof(path));
	if (status)
		return status;
	request = link_request("tier-add");
	if (request && (json_add_text(request, "path", path) ||
			(tier.prio >= 0 && json_add_u64(request, "prio", tier.prio)) ||
			(tier.size && json_add_u64(request, "size", tier.size)) ||
			(tier.timeout && json_add_u64(request, "timeout", tier.timeout)))) {
		json_object_put(request);
		request = NULL;
	}
	return link_ask(link, request, NULL, NULL);
}

static int tier_rm(struct link *link, const char *name)
{
	struct json_object *request = link_request("tier-rm"), *answer, *lost;
	char what[PATH_MAX];
	int status;

	if (request && json_add_text(request, "tier", name)) {
		json_object_put(request);
		request = NULL;
	}
	snprintf(what, sizeof(what), "tier rm %s", name);
	status = progress_ask(link, request, what, "it stays, with what is left on it", &answer);
	if (status)
		return status;
	if (json_object_object_get_ex(answer, "lost", &lost))
		cli_error(
			0,
			"tier %s: removed; some of its pages could not be read and are lost (what "
			"touches them gets SIGBUS)",
			name);
	json_object_put(answer);
	return 0;
}

int cli_tier(int argc, char **argv)
{
	const char *command, *space;
	struct link link;
	bool json = false;
	int c, left, status;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":jh", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(cli_tier_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "tier");
		}
	}
	if (optind == argc)
		return cli_error(CLI_FAILED, "tier: ls, add or rm? (vswap tier --help)");
	command = argv[optind++];
	left = argc - optind;
	if (strcmp(command, "ls") && strcmp(command, "add") && strcmp(command, "rm"))
		return cli_error(CLI_FAILED, "tier %s: no such command (there are ls, add and rm)",
				 command);
	if (strcmp(command, "ls")) {
		if (json)
			return cli_error(CLI_FAILED, "--json: not with tier %s (only with ls)",
					 command);
		if (!left)
			return cli_error(CLI_FAILED, "tier %s: which tier? (vswap tier --help)",
					 command);
		left--;
	}
	if (left > 1)
		return cli_error(CLI_FAILED, "%s: one argument too many (vswap tier --help)",
				 argv[argc - 1]);
	space = left ? argv[optind] : NULL;
	status = link_open(&link, space);
	if (status)
		return status;
	if (!strcmp(command, "ls"))
		status = tier_ls(&link, json);
	else if (!strcmp(command, "add"))
		status = tier_add(&link, argv[argc - 1]);
	else
		status = tier_rm(&link, argv[argc - 1]);
	link_close(&link);
	return status;
}
