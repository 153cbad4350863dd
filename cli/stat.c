// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap stat: ask the running spaces what they count, and show it.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../core/swap.h"
#include "../pager/size.h"
#include "openmetrics.h"
#include "space.h"

#define PROGRAM_COLUMNS 20
#define FRAME_MAX	(64 << 10)

const char cli_stat_help[] =
	"Usage: vswap stat [OPTION]... [SPACE]\n"
	"\n"
	"List the running spaces of this user, or show one: SPACE is its name, or the\n"
	"process number of its program or its vswap.  On a terminal the latter is refreshed every\n"
	"second until Ctrl-C or the program's end.\n"
	"\n"
	"  -j, --json    print JSON: a list, or one object with SPACE\n"
	"  -m, --openmetrics\n"
	"                print what Prometheus reads\n"
	"  -w, --watch   repeat every second\n"
	"  -o, --once    do not repeat\n"
	"  -h, --help    print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "openmetrics", no_argument, NULL, 'm' },
	{ "watch", no_argument, NULL, 'w' },
	{ "once", no_argument, NULL, 'o' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

/* The columns of the event table, names as in the snapshot; what a row lacks stays blank. */
/* clang-format off */
static const struct {
	const char *title, *name;
} columns[] = {
	{ "first", "first_touch" },
	{ "cache", "cache" },
	{ "fill", "fill" },
	{ "pool", "pool" },
	{ "tier", "tier" },
	{ "wait", "wait" },
};
/* clang-format on */

/* clang-format off */
static const struct {
	const char *title, *group;
} rows[] = {
	{ "swapped", "slots" },
	{ "faults", "faults" },
	{ "out", "pages_out" },
};
/* clang-format on */

#define NR_COLUMNS (sizeof(columns) / sizeof(columns[0]))
#define NR_ROWS	   (sizeof(rows) / sizeof(rows[0]))

static void print_row(FILE *out, struct json_object *now, struct json_object *before,
		      const char *title, const char *group)
{
	uint64_t ns = snapshot_number(now, NULL, "elapsed_ns") -
		      snapshot_number(before, NULL, "elapsed_ns");
	const unsigned __int128 wide_second = 1000000000;
	struct json_object *obj, *value;
	uint64_t count, old;
	unsigned int i;

	fprintf(out, "  %-10s", title);
	for (i = 0; i < NR_COLUMNS; i++) {
		if (!json_object_object_get_ex(now, group, &obj) ||
		    !json_object_object_get_ex(obj, columns[i].name, &value)) {
			fprintf(out, " %10s", "");
			continue;
		}
		count = json_object_get_uint64(value);
		if (before) {
			old = snapshot_number(before, group, columns[i].name);
			count = ns && count > old ? (count - old) * wide_second / ns : 0;
		}
		fprintf(out, " %10" PRIu64, count);
	}
	fputc('\n', out);
}

/* Everything about one space; with @before, rates too. */
static void print_space(FILE *out, const struct space *space, struct json_object *before)
{
	struct json_object *s = space->snapshot;
	char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT], d[SIZE_TEXT];
	char name[2 * PROGRAM_COLUMNS], title[SIZE_TEXT];
	unsigned int i;

	snapshot_program(s, name, sizeof(name));
	fprintf(out, "%s  pid %" PRIu64 ", vswap %d, %s\n", name, snapshot_number(s, NULL, "pid"),
		(int)space->supervisor, time_format(a, snapshot_number(s, NULL, "elapsed_ns")));
	fprintf(out, "  memory     %s of %s, peak %s: program %s",
		size_format(a, snapshot_number(s, NULL, "ram_bytes")),
		size_format(b, snapshot_number(s, NULL, "ram_limit_bytes")),
		size_format(c, snapshot_number(s, NULL, "ram_bytes_peak")),
		size_format(d, snapshot_number(s, NULL, "program_resident_bytes")));
	fprintf(out, ", vswap %s\n", size_format(a, snapshot_number(s, NULL, "vswap_bytes")));
	fprintf(out, "  stores     pool %s, cache %s, tiers %s (written %s",
		size_format(a, snapshot_number(s, NULL, "pool_bytes")),
		size_format(b, snapshot_number(s, NULL, "cache_bytes")),
		size_format(c, snapshot_number(s, NULL, "tier_bytes")),
		size_format(d, snapshot_number(s, NULL, "pswpout") * SWAP_PAGE_SIZE));
	fprintf(out, ", read %s)\n",
		size_format(a, snapshot_number(s, NULL, "pswpin") * SWAP_PAGE_SIZE));
	fprintf(out, "  latency    p50 %s, p99 %s",
		time_format(a, snapshot_number(s, "fault_latency_ns", "p50")),
		time_format(b, snapshot_number(s, "fault_latency_ns", "p99")));
	fprintf(out, ", p99.9 %s, max %s\n",
		time_format(a, snapshot_number(s, "fault_latency_ns", "p99_9")),
		time_format(b, snapshot_number(s, "fault_latency_ns", "max")));

	fprintf(out, "  %-10s", "pages");
	for (i = 0; i < NR_COLUMNS; i++)
		fprintf(out, " %10s", columns[i].title);
	fputc('\n', out);
	for (i = 0; i < NR_ROWS; i++) {
		print_row(out, s, NULL, rows[i].title, rows[i].group);
	}
	/* What is swapped out now has no rate of its own. */
	for (i = 1; before && i < NR_ROWS; i++) {
		snprintf(title, sizeof(title), "%s/s", rows[i].title);
		print_row(out, s, before, title, rows[i].group);
	}
}

/* What is shown on a terminal, and written over the next time. */
struct frame {
	char *text;
	size_t len;
	unsigned int lines; /* shown last */
};

/* Where to print what is to be shown: on a @terminal that waits for frame_show(). */
static FILE *frame_begin(struct frame *frame, bool terminal)
{
	FILE *out = terminal ? open_memstream(&frame->text, &frame->len) : NULL;

	return out ? out : stdout;
}

/* Lines of the terminal that can be gone up over again. */
static unsigned int terminal_room(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_row)
		return 23;
	return size.ws_row > 1 ? size.ws_row - 1 : 1;
}

/*
 * Over the last one, no line longer than the terminal is wide: one that wrapped would
 * be two to go up over.  All of it is one write, so that whoever ends us finds the
 * terminal wrapping again.
 */
static void frame_show(struct frame *frame, FILE *out)
{
	unsigned int room = terminal_room();
	char *end;

	if (out == stdout || fclose(out))
		return;
	if (frame->lines)
		printf("\033[%uA\r\033[J", frame->lines);
	printf("\033[?7l");
	frame->lines = 0;
	for (char *line = frame->text; (end = strchr(line, '\n')) && room--; line = end + 1) {
		fwrite(line, 1, end + 1 - line, stdout);
		frame->lines++;
	}
	printf("\033[?7h");
	free(frame->text);
}

static int print_openmetrics(const char *word)
{
	struct space_list list, one = { 0 };
	int status = spaces_find(&list);

	if (status)
		return status;
	if (word) {
		one.space = (struct space *)spaces_pick(&list, word);
		one.nr = 1;
	}
	if (word && !one.space)
		status = spaces_none(&list, word, 1);
	else
		openmetrics_print(stdout, word ? &one : &list);
	spaces_free(&list);
	return status;
}

static int watch_list(bool json, bool repeat, bool terminal)
{
	struct frame frame = { 0 };
	struct space_list list;
	int status;
	FILE *out;

	for (;;) {
		status = spaces_find(&list);
		if (status)
			return status;
		if (json) {
			status = ls_print_json(&list, repeat);
		} else {
			out = frame_begin(&frame, terminal && repeat);
			ls_print(out, &list);
			frame_show(&frame, out);
		}
		spaces_free(&list);
		/* A reader that is gone shows as an error of stdout. */
		if (status || !repeat || fflush(stdout))
			return status;
		sleep(1);
	}
}

static int watch_space(const char *word, bool json, bool repeat, bool terminal)
{
	struct json_object *before = NULL;
	const struct space *space;
	struct frame frame = { 0 };
	struct space_list list;
	pid_t seen = 0;
	int status;
	FILE *out;

	for (;;) {
		status = spaces_find(&list);
		if (status)
			break;
		space = spaces_pick(&list, word);
		if (!space) {
			/* The end of what was watched is no failure. */
			if (!seen)
				status = spaces_none(&list, word, 1);
			else if (spaces_silent(&list, seen))
				status = space_no_answer(seen);
			spaces_free(&list);
			break;
		}
		seen = space->supervisor;
		if (json) {
			print_json(space->snapshot, repeat);
		} else {
			out = frame_begin(&frame, terminal && repeat);
			print_space(out, space, before);
			frame_show(&frame, out);
		}
		json_object_put(before);
		before = json_object_get(space->snapshot);
		spaces_free(&list);
		if (!repeat || fflush(stdout))
			break;
		sleep(1);
	}
	json_object_put(before);
	return status;
}

int cli_stat(int argc, char **argv)
{
	bool json = false, metrics = false, watch = false, once = false,
	     terminal = isatty(STDOUT_FILENO);
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":jmwoh", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'm':
			metrics = true;
			break;
		case 'w':
			watch = true;
			break;
		case 'o':
			once = true;
			break;
		case 'h':
			fputs(cli_stat_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "stat");
		}
	}
	if (watch && once)
		return cli_error(CLI_FAILED, "--once: there is a --watch, too (drop one of them)");
	if (metrics && (json || watch))
		return cli_error(CLI_FAILED,
				 "--openmetrics: there is a --%s, too (drop one of them)",
				 json ? "json" : "watch");
	/* So that a frame is one write. */
	if (terminal)
		setvbuf(stdout, NULL, _IOFBF, FRAME_MAX);
	if (metrics && optind + 1 >= argc)
		return print_openmetrics(argv[optind]);
	if (optind == argc)
		return watch_list(json, watch, terminal);
	if (optind + 1 < argc)
		return cli_error(CLI_FAILED, "%s: one space is enough (vswap stat --help)",
				 argv[optind + 1]);
	return watch_space(argv[optind], json, watch || (terminal && !json && !once), terminal);
}
