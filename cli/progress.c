// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "progress.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "../pager/size.h"
#include "cli.h"

#define BAR_COLUMNS 30
#define TEXT_MAX    256

static struct {
	const char *what;
	uint64_t start_ns, first; /* when the first report came, and what it said */
	bool begun, shown;
} bar;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static unsigned int columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
}

/* Write over the line; nothing wraps, or the next one would not. */
static void show(uint64_t done, uint64_t total)
{
	char line[TEXT_MAX], graph[BAR_COLUMNS + 1], a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT];
	uint64_t now = now_ns(), ns = now - bar.start_ns, speed = 0;
	unsigned int filled, width = columns();
	int n;

	if (!bar.begun) {
		bar.begun = true;
		bar.start_ns = now;
		bar.first = done;
		ns = 0;
	}
	if (total < done)
		total = done;
	filled = total ? (unsigned __int128)done * BAR_COLUMNS / total : 0;
	memset(graph, ' ', BAR_COLUMNS);
	memset(graph, '#', filled);
	graph[BAR_COLUMNS] = '\0';
	if (ns)
		speed = (unsigned __int128)(done - bar.first) * 1000000000 / ns;
	n = snprintf(line, sizeof(line), "%s [%s] %3u%% %s of %s", bar.what, graph,
		     total ? (unsigned int)((unsigned __int128)done * 100 / total) : 0,
		     size_format(a, done), size_format(b, total));
	if (speed && n > 0 && (size_t)n < sizeof(line))
		snprintf(line + n, sizeof(line) - n, ", %s/s, %s left", size_format(c, speed),
			 time_format(a, (total - done) / speed * 1000000000));
	if (width < sizeof(line))
		line[width - 1] = '\0';
	fprintf(stderr, "\r%s\033[K", line);
	fflush(stderr);
	bar.shown = true;
}

static void on_interrupt(int sig)
{
	(void)sig;
}

int progress_ask(struct link *link, struct json_object *request, const char *what,
		 const char *stays, struct json_object **answer)
{
	/* No SA_RESTART: the wait for the answer ends. */
	const struct sigaction interrupt = { .sa_handler = on_interrupt };
	struct sigaction old;
	int status;

	bar.what = what;
	bar.begun = bar.shown = false;
	sigaction(SIGINT, &interrupt, &old);
	status = link_ask(link, request, isatty(STDERR_FILENO) ? show : NULL, answer);
	sigaction(SIGINT, &old, NULL);
	if (bar.shown)
		fprintf(stderr, "\r\033[K");
	if (status == 130)
		cli_error(0, "%s: interrupted: %s", what, stays);
	return status;
}
