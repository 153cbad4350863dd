// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap ls: the running spaces, a line each.
 */
#include <inttypes.h>
#include <stdio.h>

#include "../pager/size.h"
#include "cli.h"
#include "space.h"

#define NAME_COLUMNS	12
#define PROGRAM_COLUMNS 16

const char cli_ls_help[] =
	"Usage: vswap ls [OPTION]...\n"
	"\n"
	"List the running spaces of this user: name or process number of each, of its\n"
	"program, and what it uses.\n"
	"\n"
	"  -j, --json  print JSON, as vswap stat --json does\n"
	"  -h, --help  print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

void ls_print(FILE *out, const struct space_list *list)
{
	char ram[SIZE_TEXT], limit[SIZE_TEXT], pool[SIZE_TEXT], tier[SIZE_TEXT], age[SIZE_TEXT];
	char program[PROGRAM_COLUMNS + 1], number[16];
	const char *name;
	unsigned int i;

	if (!list->nr && !list->nr_silent) {
		fputs("no space is running\n", out);
		return;
	}
	fprintf(out, "%-*s %8s  %-*s %8s %7s %7s %7s %7s\n", NAME_COLUMNS, "SPACE", "PID",
		PROGRAM_COLUMNS, "PROGRAM", "TIME", "RAM", "LIMIT", "POOL", "TIERS");
	for (i = 0; i < list->nr; i++) {
		struct json_object *s = list->space[i].snapshot;

		snprintf(number, sizeof(number), "%d", (int)list->space[i].supervisor);
		name = snapshot_text(s, "name");
		snapshot_program(s, program, sizeof(program));
		fprintf(out, "%-*s %8" PRIu64 "  %-*s %8s %7s %7s %7s %7s\n", NAME_COLUMNS,
			name ? name : number, snapshot_number(s, NULL, "pid"), PROGRAM_COLUMNS,
			program, time_format(age, snapshot_number(s, NULL, "elapsed_ns")),
			size_format(ram, snapshot_number(s, NULL, "ram_bytes")),
			size_format(limit, snapshot_number(s, NULL, "ram_limit_bytes")),
			size_format(pool, snapshot_number(s, NULL, "pool_bytes")),
			size_format(tier, snapshot_number(s, NULL, "tier_bytes")));
	}
	for (i = 0; i < list->nr_silent; i++)
		fprintf(out, "%-*d %8s  does not answer (is it stopped?)\n", NAME_COLUMNS,
			(int)list->space[list->nr + i].supervisor, "?");
}

int ls_print_json(const struct space_list *list, bool one_line)
{
	struct json_object *array = json_object_new_array();
	unsigned int i;

	for (i = 0; array && i < list->nr; i++) {
		/* The array takes a reference of its own. */
		if (json_object_array_add(array, json_object_get(list->space[i].snapshot))) {
			json_object_put(list->space[i].snapshot);
			json_object_put(array);
			array = NULL;
		}
	}
	if (!array)
		return cli_error(CLI_FAILED, "out of memory (free some)");
	print_json(array, one_line);
	json_object_put(array);
	return 0;
}

int cli_ls(int argc, char **argv)
{
	struct space_list list;
	bool json = false;
	int c, status;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":jh", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(cli_ls_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "ls");
		}
	}
	if (optind < argc)
		return cli_error(CLI_FAILED, "%s: ls takes no argument (vswap stat %s shows one)",
				 argv[optind], argv[optind]);
	status = spaces_find(&list);
	if (status)
		return status;
	if (json)
		status = ls_print_json(&list, false);
	else
		ls_print(stdout, &list);
	spaces_free(&list);
	return status;
}
