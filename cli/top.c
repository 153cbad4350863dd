// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap top: one space on a full screen, once a second.
 *
 * A frame is made from two snapshots: what is there from the later one, rates
 * and latencies from the difference.  Rows are written from top to bottom until
 * the screen is full, the more telling ones first.
 */
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "../core/swap.h"
#include "../pager/size.h"
#include "cli.h"
#include "space.h"

#define REFRESH_MS  1000
#define ANSWER_MS   500
#define BAR_COLUMNS 24
#define NAME_MAX_   256
#define MAX_BUCKETS 512

const char cli_top_help[] =
	"Usage: vswap top [SPACE]\n"
	"\n"
	"Watch a running space on the whole screen: memory, pool, tiers, faults, groups.\n"
	"SPACE is its name or process number, and may be left out when only one is\n"
	"running.  q quits.\n"
	"\n"
	"  -h, --help  print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

static struct {
	struct json_object *now, *before, *groups, *groups_before;
	uint64_t ns;		    /* between the two; 0: there is only one */
	struct json_object *coming; /* the next one, while its groups are waited for */
	bool asked;		    /* not all answers are here */
	int row;
} top;

static volatile sig_atomic_t interrupted;

/* ---- numbers ----------------------------------------------------------- */

static uint64_t now_of(const char *group, const char *name)
{
	return snapshot_number(top.now, group, name);
}

/* By the second, of a counter that was @before. */
static uint64_t rate(uint64_t now, uint64_t before)
{
	return top.ns && now > before ? (unsigned __int128)(now - before) * 1000000000 / top.ns : 0;
}

static uint64_t rate_of(const char *group, const char *name)
{
	return rate(now_of(group, name), snapshot_number(top.before, group, name));
}

/* The [least ns, faults] pairs of a snapshot. */
static struct json_object *histogram(struct json_object *snapshot)
{
	struct json_object *latency, *pairs;

	if (!snapshot || !json_object_object_get_ex(snapshot, "fault_latency_ns", &latency) ||
	    !json_object_object_get_ex(latency, "histogram", &pairs) ||
	    !json_object_is_type(pairs, json_type_array))
		return NULL;
	return pairs;
}

static uint64_t pair_number(struct json_object *pairs, size_t i, size_t which)
{
	return json_object_get_uint64(
		json_object_array_get_idx(json_object_array_get_idx(pairs, i), which));
}

/* Latencies of the faults between the two snapshots. */
struct latency {
	uint64_t ns[MAX_BUCKETS], nr[MAX_BUCKETS], sum;
	size_t buckets;
};

static void latency_between(struct latency *lat)
{
	struct json_object *now = histogram(top.now), *before = histogram(top.before);
	size_t i, j = 0, old = before ? json_object_array_length(before) : 0;

	lat->buckets = lat->sum = 0;
	for (i = 0; now && i < json_object_array_length(now) && i < MAX_BUCKETS; i++) {
		uint64_t ns = pair_number(now, i, 0), nr = pair_number(now, i, 1);

		while (j < old && pair_number(before, j, 0) < ns)
			j++;
		if (j < old && pair_number(before, j, 0) == ns)
			nr -= pair_number(before, j, 1) < nr ? pair_number(before, j, 1) : nr;
		lat->ns[i] = ns;
		lat->nr[i] = nr;
		lat->sum += nr;
		lat->buckets = i + 1;
	}
}

static uint64_t quantile(const struct latency *lat, unsigned int per_mille)
{
	uint64_t left = (lat->sum * per_mille + 999) / 1000;
	size_t i;

	for (i = 0; i < lat->buckets; i++) {
		if (lat->nr[i] >= left && left)
			return lat->ns[i];
		left -= lat->nr[i] < left ? lat->nr[i] : left;
	}
	return 0;
}

/* ---- rows -------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void print_row(int attributes, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (top.row < LINES) {
		attron(attributes);
		mvaddnstr(top.row, 0, line, COLS);
		attroff(attributes);
	}
	top.row++;
}

static const char *bar(char buf[BAR_COLUMNS + 1], uint64_t part, uint64_t whole)
{
	size_t filled = whole ? (unsigned __int128)part * BAR_COLUMNS / whole : 0;

	if (filled > BAR_COLUMNS)
		filled = BAR_COLUMNS;
	memset(buf, '.', BAR_COLUMNS);
	memset(buf, '#', filled);
	buf[BAR_COLUMNS] = '\0';
	return buf;
}

static void show_memory(void)
{
	char graph[BAR_COLUMNS + 1], a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT], d[SIZE_TEXT];
	uint64_t ram = now_of(NULL, "ram_bytes"), limit = now_of(NULL, "ram_limit_bytes");
	uint64_t pool = now_of(NULL, "pool_bytes"), pages = now_of(NULL, "pool_objects");
	uint64_t tenths = pool ? pages * SWAP_PAGE_SIZE * 10 / pool : 0;

	print_row(A_NORMAL, "ram   [%s] %7s of %s; programs %s, vswap %s", bar(graph, ram, limit),
		  size_format(a, ram), size_format(b, limit),
		  size_format(c, now_of(NULL, "program_resident_bytes")),
		  size_format(d, now_of(NULL, "vswap_bytes")));
	print_row(A_NORMAL, "pool  [%s] %7s: %s of pages, %" PRIu64 ".%" PRIu64 ":1",
		  bar(graph, pool, limit), size_format(a, pool),
		  size_format(b, pages * SWAP_PAGE_SIZE), tenths / 10, tenths % 10);
	print_row(A_NORMAL, "out   cache %s, fill %s, pool %s, tiers %s",
		  size_format(a, now_of("slots", "cache") * SWAP_PAGE_SIZE),
		  size_format(b, now_of("slots", "fill") * SWAP_PAGE_SIZE),
		  size_format(c, now_of("slots", "pool") * SWAP_PAGE_SIZE),
		  size_format(d, now_of("slots", "tier") * SWAP_PAGE_SIZE));
}

static void show_faults(void)
{
	static struct latency lat;
	char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT];

	top.row++;
	print_row(A_BOLD, "%-10s %9s %9s %9s %9s %9s %9s", "a second", "first", "cache", "fill",
		  "pool", "tier", "wait");
	print_row(A_NORMAL,
		  "%-10s %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64
		  " %9" PRIu64,
		  "faults", rate_of("faults", "first_touch"), rate_of("faults", "cache"),
		  rate_of("faults", "fill"), rate_of("faults", "pool"), rate_of("faults", "tier"),
		  rate_of("faults", "wait"));
	print_row(A_NORMAL, "%-10s %9s %9s %9" PRIu64 " %9" PRIu64 " %9" PRIu64, "pages out", "",
		  "", rate_of("pages_out", "fill"), rate_of("pages_out", "pool"),
		  rate_of("pages_out", "tier"));
	latency_between(&lat);
	print_row(A_NORMAL, "%-10s p50 %s, p99 %s, p99.9 %s", "latency",
		  time_format(a, quantile(&lat, 500)), time_format(b, quantile(&lat, 990)),
		  time_format(c, quantile(&lat, 999)));
}

static struct json_object *list_of(struct json_object *obj, const char *name)
{
	struct json_object *list;

	if (!obj || !json_object_object_get_ex(obj, name, &list) ||
	    !json_object_is_type(list, json_type_array))
		return NULL;
	return list;
}

/* The one in @list whose member @key is @name, or NULL. */
static struct json_object *find(struct json_object *list, const char *key, const char *name)
{
	const char *text;
	size_t i;

	for (i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *obj = json_object_array_get_idx(list, i);

		text = snapshot_text(obj, key);
		if (text && !strcmp(text, name))
			return obj;
	}
	return NULL;
}

/* The end of @name that fits behind the numbers: there paths differ. */
static const char *tail(const char *name, size_t taken)
{
	size_t len = strlen(name), room = (size_t)COLS > taken ? COLS - taken : 0;

	if (len > room)
		name += len - room;
	/* Not from the middle of a character. */
	while ((*name & 0xc0) == 0x80)
		name++;
	return name;
}

static void show_tier(struct json_object *tier, struct json_object *before)
{
	char graph[BAR_COLUMNS + 1], used[SIZE_TEXT], size[SIZE_TEXT], in[SIZE_TEXT],
		out[SIZE_TEXT];
	const char *name = snapshot_text(tier, "name"), *state = tier_state(tier);
	uint64_t bytes = snapshot_number(tier, NULL, "used_bytes");
	uint64_t all = snapshot_number(tier, NULL, "size_bytes"), written = 0, read = 0;
	char line[128];
	int n;

	if (before) {
		written = rate(snapshot_number(tier, NULL, "bytes_written"),
			       snapshot_number(before, NULL, "bytes_written"));
		read = rate(snapshot_number(tier, NULL, "bytes_read"),
			    snapshot_number(before, NULL, "bytes_read"));
	}
	n = snprintf(line, sizeof(line), "[%s] %7s %7s %9s %9s  %s%s", bar(graph, bytes, all),
		     size_format(used, bytes), size_format(size, all), size_format(out, written),
		     size_format(in, read), state, *state ? " " : "");
	print_row(!strcmp(state, "failed") ? A_STANDOUT : A_NORMAL, "%s%s", line,
		  tail(name ? name : "?", n));
}

static void show_tiers(void)
{
	struct json_object *tiers = list_of(top.now, "tiers"), *old = list_of(top.before, "tiers");
	size_t i;

	if (!tiers || !json_object_array_length(tiers))
		return;
	top.row++;
	print_row(A_BOLD, "%-*s   %7s %7s %9s %9s", BAR_COLUMNS, "tiers", "used", "of", "written/s",
		  "read/s");
	for (i = 0; i < json_object_array_length(tiers); i++) {
		struct json_object *tier = json_object_array_get_idx(tiers, i);
		const char *name = snapshot_text(tier, "name");

		show_tier(tier, name ? find(old, "name", name) : NULL);
	}
}

static void show_groups(void)
{
	struct json_object *groups = list_of(top.groups, "groups");
	struct json_object *old = list_of(top.groups_before, "groups"), *limit;
	char ram[SIZE_TEXT], most[SIZE_TEXT], peak[SIZE_TEXT];
	size_t i;

	/* The root alone is the space, which is shown above. */
	if (!groups || json_object_array_length(groups) < 2)
		return;
	top.row++;
	print_row(A_BOLD, "%-24s %8s %8s %8s %8s %9s %10s", "group", "programs", "ram", "limit",
		  "peak", "faults/s", "refaults/s");
	for (i = 0; i < json_object_array_length(groups); i++) {
		struct json_object *g = json_object_array_get_idx(groups, i), *before;
		const char *name = snapshot_text(g, "group");

		name = name ? name : "?";
		before = find(old, "group", name);
		if (json_object_object_get_ex(g, "ram", &limit))
			size_format(most, json_object_get_uint64(limit));
		else
			snprintf(most, sizeof(most), "max");
		print_row(A_NORMAL, "%-24.24s %8" PRIu64 " %8s %8s %8s %9" PRIu64 " %10" PRIu64,
			  name, snapshot_number(g, NULL, "programs"),
			  size_format(ram, snapshot_number(g, NULL, "ram_bytes")), most,
			  size_format(peak, snapshot_number(g, NULL, "ram_bytes_peak")),
			  before ? rate(snapshot_number(g, NULL, "faults"),
					snapshot_number(before, NULL, "faults")) :
				   0,
			  before ? rate(snapshot_number(g, NULL, "refaults"),
					snapshot_number(before, NULL, "refaults")) :
				   0);
	}
}

static void show(pid_t supervisor)
{
	const char *name = snapshot_text(top.now, "name");
	char program[NAME_MAX_], age[SIZE_TEXT], number[16];

	erase();
	top.row = 0;
	snapshot_program(top.now, program, sizeof(program));
	snprintf(number, sizeof(number), "%d", (int)supervisor);
	print_row(A_REVERSE, "vswap %s: %s (pid %" PRIu64 "), %s%*s", name ? name : number, program,
		  now_of(NULL, "pid"), time_format(age, now_of(NULL, "elapsed_ns")), COLS, "");
	show_memory();
	show_faults();
	show_tiers();
	show_groups();
	if (LINES > 1 && top.asked) {
		attron(A_STANDOUT);
		mvaddnstr(LINES - 1, 0, "no answer", COLS);
		attroff(A_STANDOUT);
	}
	if (LINES > 1)
		mvaddnstr(LINES - 1, COLS > 7 ? COLS - 7 : 0, "q quits", COLS > 7 ? 7 : COLS);
	refresh();
}

/* ---- the loop ---------------------------------------------------------- */

/* The screen takes signals, too: of its size, and when it comes back from Ctrl-Z. */
static int answer_of(struct link *link, struct json_object **answer)
{
	int ret;

	do {
		ret = link_answer(link, answer);
	} while (ret == -EINTR && !interrupted);
	return ret == -EINTR ? 130 : ret;
}

/*
 * Returns 0, -EAGAIN: no answer, call it again for that, or an exit status after an
 * error line.
 */
static int sample(struct link *link)
{
	struct json_object *answer, *stat, *groups = NULL;
	int status = 0;

	if (!top.asked)
		status = link_send(link, link_request("stat"));
	if (!top.asked && !status)
		status = link_send(link, link_request("group-ls"));
	if (status)
		return status;
	top.asked = true;
	if (!top.coming) {
		status = answer_of(link, &answer);
		if (status)
			return status;
		if (!json_object_object_get_ex(answer, "stat", &stat)) {
			json_object_put(answer);
			return answer_not_understood("top");
		}
		top.coming = json_object_get(stat);
		json_object_put(answer);
	}
	status = answer_of(link, &groups);
	if (status)
		return status;
	stat = top.coming;
	top.coming = NULL;
	top.asked = false;
	json_object_put(top.before);
	json_object_put(top.groups_before);
	top.before = top.now;
	top.groups_before = top.groups;
	top.now = stat;
	top.groups = groups;
	top.ns = top.before ? now_of(NULL, "elapsed_ns") -
				      snapshot_number(top.before, NULL, "elapsed_ns") :
			      0;
	return 0;
}

/* Is the other side there still?  Its end is no error of ours. */
static bool there(struct link *link)
{
	char byte;

	return recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = true;
}

static int watch(struct link *link)
{
	/* The screen's own would end with status 1. */
	const struct sigaction interrupt = { .sa_handler = on_interrupt };
	const struct timeval patience = { .tv_usec = ANSWER_MS * 1000 };
	SCREEN *screen;
	int key = ERR, status;
	bool ended = false;

	sigaction(SIGINT, &interrupt, NULL);
	/* A space that is stopped shall not keep keys from being seen. */
	setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	status = sample(link);
	if (status && status != -EAGAIN)
		return status;
	setlocale(LC_ALL, "");
	screen = newterm(NULL, stdout, stdin);
	if (!screen)
		return cli_error(CLI_FAILED,
				 "top: terminal %s: not known (set TERM, or use vswap stat)",
				 getenv("TERM") ? getenv("TERM") : "without a name");
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	timeout(REFRESH_MS);
	for (;;) {
		show(link->supervisor);
		key = getch();
		status = interrupted ? 130 : 0;
		if (status || key == 'q' || key == 'Q')
			break;
		/* What a terminal makes of its contents then, who knows. */
		if (key == KEY_RESIZE)
			clearok(curscr, TRUE);
		if (key != ERR)
			continue;
		ended = !there(link);
		if (ended)
			break;
		status = sample(link);
		if (status && status != -EAGAIN)
			break;
	}
	endwin();
	delscreen(screen);
	/* Ended while it was asked: what was said of it then was on the screen that is gone. */
	if (ended || (status && status != 130 && !there(link))) {
		printf("vswap %d has ended\n", (int)link->supervisor);
		return 0;
	}
	return status;
}

int cli_top(int argc, char **argv)
{
	struct link link;
	int c, status;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		if (c != 'h')
			return cli_bad_option(argv, c, options, "top");
		fputs(cli_top_help, stdout);
		return 0;
	}
	if (argc - optind > 1)
		return cli_error(CLI_FAILED, "%s: one space is enough (vswap top --help)",
				 argv[optind + 1]);
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return cli_error(CLI_FAILED, "top: not on a terminal (vswap stat --watch prints)");
	status = link_open(&link, argv[optind]);
	if (status)
		return status;
	status = watch(&link);
	link_close(&link);
	json_object_put(top.now);
	json_object_put(top.before);
	json_object_put(top.coming);
	json_object_put(top.groups);
	json_object_put(top.groups_before);
	return status;
}
