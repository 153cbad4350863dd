// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap map: a picture of where a space's memory is.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../pager/json.h"
#include "cli.h"
#include "progress.h"
#include "space.h"
#include "svg.h"

const char cli_map_help[] =
	"Usage: vswap map [SPACE] -o FILE.svg\n"
	"       vswap map [SPACE] --json\n"
	"\n"
	"Draw where the memory of a running space is: its programs' addresses, by what\n"
	"holds them (resident, swap cache, fill, pool, tier), from cold to hot.  SPACE is\n"
	"its name or process number, and may be left out when only one is running.\n"
	"\n"
	"  -o, --output FILE  where to, as SVG; - is stdout\n"
	"  -j, --json         print the map itself, as docs/control.md has it\n"
	"  -h, --help         print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "output", required_argument, NULL, 'o' },
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

/* "vswap NAME" for the picture. */
static void make_title(struct link *link, char *buf, size_t len)
{
	struct json_object *answer, *stat;
	char program[256] = "?";
	const char *name = NULL;

	/* A picture without a name is one, too. */
	if (link_ask(link, link_request("stat"), NULL, &answer)) {
		snprintf(buf, len, "vswap %d", (int)link->supervisor);
		return;
	}
	if (json_object_object_get_ex(answer, "stat", &stat)) {
		snapshot_program(stat, program, sizeof(program));
		name = snapshot_text(stat, "name");
	}
	if (name)
		snprintf(buf, len, "vswap %s", name);
	else
		snprintf(buf, len, "vswap %d: %s", (int)link->supervisor, program);
	json_object_put(answer);
}

/* It is drawn before the file is opened: what cannot be drawn costs no older picture. */
static int save(struct json_object *map, const char *title, const char *path)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	int err = f ? svg_map(f, map, title) : -ENOMEM;

	if (f && fclose(f) && !err)
		err = -ENOMEM;
	if (!err && !strcmp(path, "-")) {
		fputs(text, stdout);
	} else if (!err) {
		f = fopen(path, "we");
		if (!f || fputs(text, f) < 0)
			err = -errno;
		if (f && fclose(f) && !err)
			err = -errno;
	}
	free(text);
	if (err == -EINVAL)
		return answer_not_understood("map");
	if (err)
		return cli_error(CLI_FAILED, "map: %s: %s (name a file that can be written)", path,
				 strerror(-err));
	return 0;
}

int cli_map(int argc, char **argv)
{
	struct json_object *map = NULL;
	const char *path = NULL;
	struct link link;
	bool json = false;
	char title[512];
	size_t len;
	int c, status;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":o:jh", options, NULL)) >= 0) {
		switch (c) {
		case 'o':
			path = optarg;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(cli_map_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "map");
		}
	}
	if (argc - optind > 1)
		return cli_error(CLI_FAILED, "%s: one space is enough (vswap map --help)",
				 argv[optind + 1]);
	if (!path == !json)
		return cli_error(CLI_FAILED, "map: %s (give -o FILE.svg or --json)",
				 path ? "two outputs" : "where to?");
	len = path ? strlen(path) : 0;
	if (path && strcmp(path, "-") && (len < 4 || strcmp(path + len - 4, ".svg")))
		return cli_error(CLI_FAILED, "map: %s: not a name for SVG (as in map.svg)", path);
	status = link_open(&link, argv[optind]);
	if (status)
		return status;
	if (path)
		make_title(&link, title, sizeof(title));
	status = progress_ask(&link, link_request("map"), "map", "nothing was written", &map);
	link_close(&link);
	if (status)
		return status;
	if (json)
		print_json(map, true);
	else
		status = save(map, title, path);
	json_object_put(map);
	return status;
}
