/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Running spaces as the commands see them: found by their sockets, named by
 * name or process number, asked by docs/control.md.
 */
#ifndef CLI_SPACE_H
#define CLI_SPACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <json-c/json.h>

struct space {
	pid_t supervisor;
	struct json_object *snapshot; /* NULL: it does not answer */
};

struct space_list {
	struct space *space;	/* by number; those that do not answer behind the others */
	unsigned int nr;	/* of those that do */
	unsigned int nr_silent; /* of those that do not */
};

/*
 * All spaces of this user.  Returns 0, and the caller calls spaces_free(), or an
 * exit status after an error line.
 */
int spaces_find(struct space_list *list);
void spaces_free(struct space_list *list);
/* The one of that name, or process number of it or its program; NULL if none answers to it. */
const struct space *spaces_pick(const struct space_list *list, const char *word);
/* Is there one of that number that does not answer? */
bool spaces_silent(const struct space_list *list, pid_t supervisor);
/*
 * The error line for a @word none answered to.  Returns @status if there is no such
 * space, CLI_FAILED if it may be one that does not answer.
 */
int spaces_none(const struct space_list *list, const char *word, int status);
/* The error lines for one that does not answer, or not as we know it.  Return CLI_FAILED. */
int space_no_answer(pid_t supervisor);
int answer_not_understood(const char *what);
/*
 * Is @word the name or number of one that runs?  Returns 0 with that in *@found, or an
 * exit status after an error line.
 */
int space_exists(const char *word, bool *found);

/* A connection to one. */
struct link {
	int fd;
	pid_t supervisor;
	char *in;
	size_t used, taken, room;
};

/*
 * Connect to the space @word names, or, with @word NULL, to the only one there
 * is.  Returns 0 or an exit status after an error line.
 */
int link_open(struct link *link, const char *word);
void link_close(struct link *link);

/* A request for @op, to be given members; NULL: no memory, which link_ask() tells. */
struct json_object *link_request(const char *op);
/*
 * Send @request, which it takes over, and wait for the answer.  Each report of
 * progress goes to @progress, which may be NULL.  Returns 0 with the answer in
 * *@answer (may be NULL if nobody wants it), the caller's to put; or an exit
 * status after an error line.  Interrupted by a signal that is handled it
 * returns 130 without a line: the operation is given up once the link is closed.
 */
int link_ask(struct link *link, struct json_object *request,
	     void (*progress)(uint64_t done, uint64_t total), struct json_object **answer);

/*
 * The halves of it, for who has other things to do.  link_answer() may also return
 * -EINTR, or -EAGAIN when SO_RCVTIMEO is over: call it again then.
 */
int link_send(struct link *link, struct json_object *request);
int link_answer(struct link *link, struct json_object **answer);

/* Member @name of object @group in it (NULL: of the snapshot itself); 0 when missing. */
uint64_t snapshot_number(struct json_object *snapshot, const char *group, const char *name);
/* The last part of the program's path as it may go to a terminal, cut to fit. */
void snapshot_program(struct json_object *snapshot, char *buf, size_t len);
/* Member @name, or NULL when it is missing or no string. */
const char *snapshot_text(struct json_object *snapshot, const char *name);
/* What is to be said of a tier: "failed", "full" or "". */
const char *tier_state(struct json_object *tier);

/* On stdout. */
void print_json(struct json_object *value, bool one_line);

/* ls.c: all of them, as JSON on stdout; that returns an exit status. */
void ls_print(FILE *out, const struct space_list *list);
int ls_print_json(const struct space_list *list, bool one_line);

#endif
