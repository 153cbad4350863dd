// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap group: who may have how much of a shared space.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../pager/json.h"
#include "../pager/machine.h"
#include "../pager/size.h"
#include "space.h"

#define NAME_COLUMNS 24

const char cli_group_help[] =
	"Usage: vswap group ls [SPACE]\n"
	"       vswap group set [SPACE] GROUP [KEY=VALUE]...\n"
	"       vswap group rm [SPACE] GROUP\n"
	"\n"
	"List the groups of a space (vswap serve), make one or change its limits, or\n"
	"remove one that is empty.  Programs join one by vswap run --space --group.\n"
	"Names nest: batch/nightly is in batch, and what is used there counts in both.\n"
	"SPACE, a name or process number, may be left out when only one is running.\n"
	"\n"
	"  ram=SIZE    memory its programs may have, with what vswap keeps for them\n"
	"              (at least 8M; a percentage is of the machine's memory, or of that\n"
	"              of the cgroup this command runs in)\n"
	"  pool=SIZE   of that, what may be compressed pages\n"
	"  swap=SIZE   what they may have in the slots of tiers\n"
	"  tiers=NAME[,NAME]...|all\n"
	"              the tiers they may use (vswap tier ls)\n"
	"  mode=virtual|direct\n"
	"              direct: past the pool, straight to a tier\n"
	"\n"
	"A limit of max is none, as in a new group.\n"
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

static int no_memory(void)
{
	return cli_error(CLI_FAILED, "group: out of memory (free some)");
}

/* A limit of a size; 0 or an exit status. */
static int add_size(struct json_object *request, const char *key, const char *text)
{
	struct machine_memory mem;
	uint64_t bytes = INT64_MAX;
	const char *why;

	if (strcmp(text, "max")) {
		if (machine_memory("", &mem))
			mem.limit = 0;
		why = size_parse(text, mem.limit, &bytes);
		if (why)
			return cli_error(CLI_FAILED, "%s=%s: %s", key, text, why);
	}
	return json_add_u64(request, key, bytes) ? no_memory() : 0;
}

static int add_key(struct json_object *request, char *word)
{
	char *value = strchr(word, '=');

	*value++ = '\0';
	if (!strcmp(word, "ram") || !strcmp(word, "pool") || !strcmp(word, "swap"))
		return add_size(request, word, value);
	if (!strcmp(word, "mode"))
		return json_add_text(request, word, value) ? no_memory() : 0;
	if (!strcmp(word, "tiers")) {
		struct json_object *list = json_object_new_array();
		int err = json_add(request, word, list);
		char *name;

		while (!err && (name = strsep(&value, ",")))
			err = json_append(list, json_text(name));
		return err ? no_memory() : 0;
	}
	return cli_error(CLI_FAILED, "%s=%s: unknown (vswap group --help lists what there is)",
			 word, value);
}

static void print_limit(struct json_object *group, const char *key)
{
	struct json_object *value;
	char text[SIZE_TEXT];

	if (json_object_object_get_ex(group, key, &value))
		printf(" %8s", size_format(text, json_object_get_uint64(value)));
	else
		printf(" %8s", "max");
}

static void print_size(struct json_object *group, const char *key)
{
	char text[SIZE_TEXT];

	printf(" %8s", size_format(text, snapshot_number(group, NULL, key)));
}

static void print_groups(struct json_object *groups)
{
	size_t i;

	printf("%-*s %8s %8s %8s %8s %8s %8s %8s %10s\n", NAME_COLUMNS, "GROUP", "PROGRAMS", "RAM",
	       "LIMIT", "SHARE", "PEAK", "POOL", "SWAP", "REFAULTS");
	for (i = 0; i < json_object_array_length(groups); i++) {
		struct json_object *g = json_object_array_get_idx(groups, i);

		printf("%-*s %8" PRIu64, NAME_COLUMNS, snapshot_text(g, "group") ?: "?",
		       snapshot_number(g, NULL, "programs"));
		print_size(g, "ram_bytes");
		print_limit(g, "ram");
		print_size(g, "share_bytes");
		print_size(g, "ram_bytes_peak");
		print_size(g, "pool_bytes");
		print_size(g, "swap_bytes");
		printf(" %10" PRIu64 "\n", snapshot_number(g, NULL, "refaults"));
	}
}

/* Ask @space (NULL: the only one); takes @request over. */
static int ask(const char *space, struct json_object *request, struct json_object **answer)
{
	struct link link;
	int status = link_open(&link, space);

	if (status) {
		json_object_put(request);
		return status;
	}
	status = link_ask(&link, request, NULL, answer);
	link_close(&link);
	return status;
}

static int list(const char *space, bool json)
{
	struct json_object *answer, *groups;
	int status = ask(space, link_request("group-ls"), &answer);

	if (status)
		return status;
	if (!json_object_object_get_ex(answer, "groups", &groups) ||
	    !json_object_is_type(groups, json_type_array))
		status = answer_not_understood("group ls");
	else if (json)
		print_json(groups, false);
	else
		print_groups(groups);
	json_object_put(answer);
	return status;
}

/* set and rm: [SPACE] GROUP, and for set the keys behind. */
static int change(const char *op, char **word, int nr, bool keys)
{
	struct json_object *request;
	const char *space = NULL;
	int names = 0, status = 0;

	while (names < nr && !strchr(word[names], '='))
		names++;
	if (!names)
		return cli_error(CLI_FAILED, "group: no GROUP given (vswap group --help)");
	if (names > 2)
		return cli_error(CLI_FAILED, "%s: one name too many (vswap group --help)", word[2]);
	if (names < nr && !keys)
		return cli_error(CLI_FAILED, "%s: nothing to set here (vswap group --help)",
				 word[names]);
	if (names == 2)
		space = word[0];
	request = link_request(op);
	if (!request || json_add_text(request, "group", word[names - 1]))
		status = no_memory();
	for (; !status && names < nr; names++) {
		if (strchr(word[names], '='))
			status = add_key(request, word[names]);
		else
			status = cli_error(CLI_FAILED,
					   "%s: a name behind KEY=VALUE (vswap group --help)",
					   word[names]);
	}
	if (status) {
		json_object_put(request);
		return status;
	}
	return ask(space, request, NULL);
}

int cli_group(int argc, char **argv)
{
	const char *verb;
	bool json = false, set;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":jh", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(cli_group_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "group");
		}
	}
	argv += optind;
	argc -= optind;
	verb = argc ? argv[0] : "";
	if (!strcmp(verb, "ls")) {
		if (argc > 2)
			return cli_error(CLI_FAILED, "%s: one SPACE is enough (vswap group --help)",
					 argv[2]);
		return list(argc > 1 ? argv[1] : NULL, json);
	}
	if (!argc)
		return cli_error(CLI_FAILED, "group: ls, set or rm? (vswap group --help)");
	set = !strcmp(verb, "set");
	if (!set && strcmp(verb, "rm"))
		return cli_error(CLI_FAILED, "group %s: no such command (there are ls, set and rm)",
				 verb);
	if (json)
		return cli_error(CLI_FAILED, "--json: not with group %s (only with ls)", verb);
	return change(set ? "group-set" : "group-rm", argv + 1, argc - 1, set);
}
