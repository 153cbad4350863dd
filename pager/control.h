/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket: newline-delimited JSON for whoever of the same user asks,
 * as docs/control.md tells it.
 *
 * What can be asked for is in tables of operations.  A function of a table gets
 * a call whose members were checked by the table, adds to its answer, and
 * returns; it never sees the connection.
 */
#ifndef PAGER_CONTROL_H
#define PAGER_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;

/* The longest request, bytes with its newline. */
#define CONTROL_LINE	(64 << 10)
#define CONTROL_MEMBERS 12

enum control_type {
	CONTROL_TEXT,  /* a string without NUL, not empty */
	CONTROL_COUNT, /* 0 .. INT64_MAX */
	CONTROL_INT,   /* INT32_MIN .. INT32_MAX */
	CONTROL_BOOL,
	CONTROL_LIST, /* of texts */
};

struct control_member {
	const char *name; /* NULL ends the list */
	enum control_type type;
	bool optional;
};

/* One request and its answer. */
struct control_call {
	struct json_object *request; /* has what the table says, and nothing else */
	struct json_object *answer;  /* an object for members besides "ok" */
};

struct control_op {
	const char *name; /* NULL ends a table */
	/*
	 * Returns 0, or -1 after control_refuse(); then nothing may have changed.
	 * One that is not @slow runs on the thread that serves all: it does not
	 * wait.  Slow ones run one at a time on a thread of their own, tell their
	 * progress, and give up soon when it says so.
	 */
	int (*run)(struct control_call *call);
	bool slow;
	struct control_member member[CONTROL_MEMBERS];
};

/*
 * Serve @tables, a NULL-ended list that stays.  Called once, before or after
 * the program starts, by the thread that calls control_stop() before what the
 * operations use goes away; it takes threads with all signals blocked.  Returns
 * 0 or -errno; not being able to is not worth stopping for.  control_stop()
 * without a started socket does nothing; it cancels what is under way and waits
 * for its end.
 */
int control_start(const struct control_op *const *tables);
void control_stop(void);

/*
 * The directory sockets live in, as this user sees it: /run/vswap for root,
 * else $XDG_RUNTIME_DIR/vswap, else /tmp/vswap-UID.  Names in it are process
 * numbers of supervisors; a name with a leading dot is not ready yet, and one with
 * a dot and more behind is for agents.  A socket that refuses a connection is left
 * over and may be removed.
 * Returns 0 or -ENAMETOOLONG.
 */
int control_dir(char *buf, size_t len);
/* The same, and it is there and ours: 0 or -errno. */
int control_make_dir(char *buf, size_t len);
/* 0 when @dir is a directory of ours that nobody else may enter; -EPERM, -errno. */
int control_check_dir(const char *dir);
/* What a user can do about @err of these, or of making a socket in @dir. */
const char *control_advice(const char *dir, int err);

/* ---- for the functions of tables -------------------------------------- */

/* The answer will be this error: "what: why (what to do)".  Returns -1. */
int control_refuse(struct control_call *call, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Optional members that are not there: NULL, or @otherwise. */
const char *control_text(const struct control_call *call, const char *name);
int64_t control_number(const struct control_call *call, const char *name, int64_t otherwise);
bool control_has(const struct control_call *call, const char *name);

/* Of a slow operation.  Tell how far it is; false: nobody waits any more, give up. */
bool control_progress(struct control_call *call, uint64_t done, uint64_t total);
bool control_cancelled(const struct control_call *call);

/*
 * Not of a slow operation.  Call @closed(@arg) once, when the client goes away or
 * the socket is closed down, on the thread that serves all.  One for each
 * connection: returns -EBUSY when there is one already.  The number of the
 * client's process is @pid's.
 */
int control_on_close(struct control_call *call, void (*closed)(void *arg), void *arg);
pid_t control_peer(const struct control_call *call);

#endif
