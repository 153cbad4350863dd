/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The pager as the command sees it: start a program under a memory budget,
 * wait for its end, report where its pages went.
 */
#ifndef PAGER_PAGER_H
#define PAGER_PAGER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define PAGER_MAX_TIERS	  31
#define PAGER_MAX_PRIO	  32767 /* as swapon(8) has it */
#define PAGER_MAX_TIMEOUT 86400 /* a day, in seconds */

struct pager_tier_opt {
	const char *path;     /* as for tier_open() */
	uint64_t size;	      /* bytes, 0: all there is */
	int prio;	      /* higher is used first */
	unsigned int timeout; /* seconds, 0: the default */
};

struct pager_opts {
	uint64_t ram; /* bytes, everything included */
	struct pager_tier_opt tier[PAGER_MAX_TIERS];
	unsigned int nr_tiers; /* 0: an unlinked temporary file, unless no_tier */
	bool no_tier;
	bool encrypt;		/* what goes to tiers */
	const char *compressor; /* "lz4", "zstd", "none" */
	FILE *stats;		/* JSON at the end, or NULL; opened by the caller */
	bool verbose;		/* a summary on stderr at the end */
	char **argv;		/* program and arguments, NULL ended; not for pager_serve() */
	const char *space;	/* pager_serve(): its name, or NULL; else the one to join */
	const char *join;	/* NULL: a space of its own; else the socket the space gave us */
};

/* The least --ram the pager can work with, bytes. */
#define PAGER_MIN_RAM (16ULL << 20)

/*
 * Run the program to its end.  Returns the exit status vswap shall have:
 * the program's own, 128 + n when signal n killed it, or 125, 126, 127 with
 * one line on stderr when it could not be started.
 */
int pager_run(const struct pager_opts *opts);

/*
 * Keep a space others join, until SIGTERM, SIGINT, SIGHUP or SIGQUIT and the end
 * of the last program in it; a second signal kills those there are.  Returns the
 * exit status: 0, or 125 with one line on stderr.
 */
int pager_serve(const struct pager_opts *opts);

#endif
