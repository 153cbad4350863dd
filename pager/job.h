/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A job: one run of one program in the space, with all processes that come of
 * it.  Its clients are killed together, and their messages go to whoever
 * started it.
 *
 * In a space of its own the job's starter is this process.  In a served space
 * it is a `vswap run --space` on the other end of a socket: the first that
 * connects to the job's listener.  All who connect after it are agents.
 */
#ifndef PAGER_JOB_H
#define PAGER_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../agent/wire.h"
#include "coredump.h"

struct group;

#define JOB_NAME    224 /* with a path of 108 */
#define JOB_CALLERS 32

/* One who has connected and said nothing yet. */
struct caller {
	int sock;
	uint64_t since_ns;
};

struct job {
	struct job *next;		   /* jobs.lock */
	unsigned int ref;		   /* atomic: its starter's, and one for each client */
	struct group *group;		   /* with a reference */
	pid_t pid;			   /* the program; 0: not started yet, or ended; atomic */
	bool has_begun;			   /* an agent of it has called */
	int runner;			   /* socket of its vswap run, -1: that is us; atomic */
	int listener;			   /* of a name in the abstract namespace */
	int beside;			   /* the same of a path, or -1 */
	uint64_t start_ns;		   /* of CLOCK_BOOTTIME */
	uint64_t quiet_ns;		   /* since when it has no client, but goes on; 0: it has */
	pid_t hung_up;			   /* whose agent did so last */
	char name[JOB_NAME];		   /* for WIRE_ENV */
	struct wire_where where;	   /* the same */
	struct caller caller[JOB_CALLERS]; /* the first is the oldest */
	unsigned int nr_callers;
	bool killed;		/* by us, with the reason said; atomic */
	struct lacking lacking; /* coredump.c */
};

/* What job_turn() saw. */
#define JOB_INPUT  1 /* the descriptor has something */
#define JOB_CLIENT 2 /* an agent was accepted */
#define JOB_REFUSE 4 /* one was not, and its process was killed; the reason is said */

/* A job in @group that listens for agents, with a reference; NULL with errno. */
struct job *job_create(struct group *group);
void job_get(struct job *job);
void job_put(struct job *job);
/*
 * Wait up to @ms (-1: for ever) for @fd or for agents; buries those that have
 * ended.  Returns JOB_* bits.
 */
int job_turn(struct job *job, int fd, int ms);
/* Close the listeners: nobody joins any more. */
void job_close(struct job *job);
/* Does who says this know the job from more than its listener's public name? */
bool job_knows(const struct job *job, const char key[WIRE_KEY]);
/* All of a file of /proc, NUL ended and to be freed; NULL with errno. */
char *read_all(int fd, size_t *bytes);
/* Has it any client left?  Those of a job that was killed are killed again. */
bool job_busy(struct job *job);
/* The same, or a program that one of its processes has become is on its way to be one. */
bool job_goes_on(struct job *job);
/* One line to whoever started it, "vswap: " first. */
void job_say(struct job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * It cannot go on: say why, once, and kill its program and all its clients with
 * SIGKILL.  Returns; the end comes as any end does.
 */
void job_kill(struct job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same to all jobs. */
void jobs_kill(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Jobs that have a starter or clients. */
unsigned int jobs_count(void);
/* ... in @group or a group in it. */
unsigned int jobs_in(const struct group *group);

/* ---- between a served space and vswap run --space --------------------- */

enum job_type {
	JOB_MSG_CLIENT = 1, /* space: the program is managed */
	JOB_MSG_REFUSE,	    /* space: it cannot be; it was killed, the reason was said */
	JOB_MSG_SAY,	    /* space: a line for the user */
	JOB_MSG_ENDED,	    /* run: the program ended; hang up when the last client has */
	JOB_MSG_DUMPED,	    /* run: the same, and it left a core dump */
	JOB_MSG_JOIN,	    /* run: the first of all, with the key */
};

struct job_msg {
	uint32_t type;	/* enum job_type */
	char text[900]; /* SAY: NUL ended; JOIN: WIRE_KEY characters */
};

#endif
