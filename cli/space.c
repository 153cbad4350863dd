// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "space.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "../pager/control.h"
#include "../pager/json.h"
#include "cli.h"

#define LIST_SECONDS 2		 /* a space that takes longer to tell itself does not answer */
#define ANSWER_MAX   (64u << 20) /* bytes; far above any honest answer */

/* ---- one connection ---------------------------------------------------- */

/* Connect to socket @name of @dir; one that is left over is removed.  0 or -errno. */
static int link_connect(struct link *link, const char *dir, const char *name)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const struct timeval patience = { .tv_sec = LIST_SECONDS };
	int n, err;

	*link = (struct link){ .fd = -1 };
	n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", dir, name);
	if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (link->fd < 0)
		return -errno;
	/* SNDTIMEO also bounds connect() when the other's queue is full. */
	if (setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
	    connect(link->fd, (struct sockaddr *)&addr, sizeof(addr))) {
		err = -errno;
		if (err == -ECONNREFUSED)
			unlink(addr.sun_path);
		link_close(link);
		return err;
	}
	return 0;
}

void link_close(struct link *link)
{
	if (link->fd >= 0)
		close(link->fd);
	free(link->in);
	*link = (struct link){ .fd = -1 };
}

/* 0 or -errno. */
static int send_all(int fd, const char *text, size_t len)
{
	ssize_t n;

	while (len) {
		n = send(fd, text, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= n;
	}
	return 0;
}

/* The next line without its newline, valid until the next call; NULL with errno. */
static char *read_line(struct link *link)
{
	char *end = NULL, *line, *more;
	ssize_t n;

	if (link->taken) {
		link->used -= link->taken;
		memmove(link->in, link->in + link->taken, link->used);
		link->taken = 0;
	}
	n = link->used;
	line = link->in;
	for (;;) {
		if (line)
			end = memchr(link->in + link->used - n, '\n', n);
		if (end)
			break;
		if (link->used == link->room) {
			size_t room = link->room ? link->room * 2 : 4096;

			if (room > ANSWER_MAX) {
				errno = EFBIG;
				return NULL;
			}
			more = realloc(link->in, room);
			if (!more)
				return NULL;
			link->in = more;
			link->room = room;
		}
		n = recv(link->fd, link->in + link->used, link->room - link->used, 0);
		if (n <= 0) {
			if (!n)
				errno = ECONNRESET;
			return NULL;
		}
		link->used += n;
		line = link->in;
	}
	*end = '\0';
	link->taken = end + 1 - link->in;
	return link->in;
}

/* The next object the other says, or NULL with errno. */
static struct json_object *read_object(struct link *link)
{
	struct json_object *obj = NULL;
	char *line = read_line(link);

	if (!line)
		return NULL;
	obj = json_tokener_parse(line);
	if (!json_object_is_type(obj, json_type_object)) {
		json_object_put(obj);
		errno = EPROTO;
		return NULL;
	}
	return obj;
}

struct json_object *link_request(const char *op)
{
	struct json_object *request = json_object_new_object();

	if (request && json_add_text(request, "op", op)) {
		json_object_put(request);
		return NULL;
	}
	return request;
}

/* Takes @request over.  Returns 0 or -errno. */
static int say(struct link *link, struct json_object *request)
{
	const char *text = NULL;
	int err;

	if (request)
		text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);
	err = text ? send_all(link->fd, text, strlen(text)) : -ENOMEM;
	if (!err)
		err = send_all(link->fd, "\n", 1);
	json_object_put(request);
	return err;
}

/*
 * The answer to the oldest request that has none.  Returns 0 or -errno; with -EREMOTEIO
 * the answer has the reason.
 */
static int hear(struct link *link, void (*progress)(uint64_t done, uint64_t total),
		struct json_object **answer)
{
	struct json_object *obj, *value;

	*answer = NULL;
	for (;;) {
		obj = read_object(link);
		if (!obj)
			return errno ? -errno : -ENOMEM;
		if (json_object_object_get_ex(obj, "ok", &value))
			break;
		if (progress && json_object_object_get_ex(obj, "progress", &value))
			progress(snapshot_number(value, NULL, "done"),
				 snapshot_number(value, NULL, "total"));
		json_object_put(obj);
	}
	*answer = obj;
	return json_object_get_boolean(value) ? 0 : -EREMOTEIO;
}

static int ask(struct link *link, struct json_object *request,
	       void (*progress)(uint64_t done, uint64_t total), struct json_object **answer)
{
	int err = say(link, request);

	*answer = NULL;
	return err ? err : hear(link, progress, answer);
}

int space_no_answer(pid_t supervisor)
{
	return cli_error(CLI_FAILED, "vswap %d: does not answer (is it stopped?)", (int)supervisor);
}

int answer_not_understood(const char *what)
{
	return cli_error(CLI_FAILED,
			 "%s: answer not understood (is that another version of vswap?)", what);
}

static int has_ended(pid_t supervisor)
{
	return cli_error(CLI_FAILED, "vswap %d: has ended (vswap ls lists those that run)",
			 (int)supervisor);
}

/* What @err of the above means to the user; takes @obj over, gives it on in *@answer. */
static int tell(struct link *link, int err, struct json_object *obj, struct json_object **answer)
{
	const char *why;
	int status = 0;

	if (err == -EREMOTEIO) {
		why = snapshot_text(obj, "error");
		status = cli_error(
			CLI_FAILED, "%s",
			why ? why : "refused without a reason (is that another version of vswap?)");
	} else if (err == -ECONNRESET || err == -EPIPE) {
		status = has_ended(link->supervisor);
	} else if (err == -EAGAIN) {
		status = space_no_answer(link->supervisor);
	} else if (err == -ENOMEM) {
		status = cli_error(CLI_FAILED, "vswap %d: out of memory (free some)",
				   (int)link->supervisor);
	} else if (err) {
		status = cli_error(CLI_FAILED, "vswap %d: %s (is that another version of vswap?)",
				   (int)link->supervisor, strerror(-err));
	}
	if (status || !answer)
		json_object_put(obj);
	else
		*answer = obj;
	return status;
}

int link_ask(struct link *link, struct json_object *request,
	     void (*progress)(uint64_t done, uint64_t total), struct json_object **answer)
{
	struct json_object *obj;
	int err = ask(link, request, progress, &obj);

	return err == -EINTR ? 130 : tell(link, err, obj, answer);
}

int link_send(struct link *link, struct json_object *request)
{
	return tell(link, say(link, request), NULL, NULL);
}

int link_answer(struct link *link, struct json_object **answer)
{
	struct json_object *obj;
	int err = hear(link, NULL, &obj);

	return err == -EINTR || err == -EAGAIN ? err : tell(link, err, obj, answer);
}

/* ---- all of them ------------------------------------------------------- */

/* Those that answer first. */
static int by_supervisor(const void *a, const void *b)
{
	const struct space *x = a, *y = b;

	if (!x->snapshot != !y->snapshot)
		return x->snapshot ? -1 : 1;
	return (x->supervisor > y->supervisor) - (x->supervisor < y->supervisor);
}

/* A process number, or 0. */
static pid_t parse_pid(const char *text)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || pid <= 0 || pid > INT_MAX)
		return 0;
	return pid;
}

/* The snapshot of the space behind a socket, or NULL; *@silent: who is there does not answer. */
static struct json_object *snapshot_of(const char *dir, const char *name, bool *silent)
{
	const struct timeval patience = { .tv_sec = LIST_SECONDS };
	struct json_object *answer = NULL, *snapshot = NULL;
	struct link link;
	int err = link_connect(&link, dir, name);

	if (!err && setsockopt(link.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err = -errno;
	if (!err)
		err = ask(&link, link_request("stat"), NULL, &answer);
	if (!err && json_object_object_get_ex(answer, "stat", &snapshot) &&
	    json_object_is_type(snapshot, json_type_object))
		json_object_get(snapshot);
	else
		snapshot = NULL;
	*silent = err == -EAGAIN;
	json_object_put(answer);
	link_close(&link);
	return snapshot;
}

void spaces_free(struct space_list *list)
{
	for (unsigned int i = 0; i < list->nr + list->nr_silent; i++)
		json_object_put(list->space[i].snapshot);
	free(list->space);
	*list = (struct space_list){ 0 };
}

/* The directory of sockets.  0, -ENOENT: there is none; or an exit status after an error line. */
static int open_dir(char dir[PATH_MAX])
{
	int err = control_dir(dir, PATH_MAX);

	if (!err)
		err = control_check_dir(dir);
	if (!err || err == -ENOENT)
		return err;
	if (err == -EPERM)
		return cli_error(CLI_FAILED, "%s: not a directory of this user alone (%s)", dir,
				 control_advice(dir, err));
	return cli_error(CLI_FAILED, "%s: %s (check the directory)", dir, strerror(-err));
}

int spaces_find(struct space_list *list)
{
	char dir[PATH_MAX];
	struct json_object *snapshot;
	struct link link;
	struct dirent *entry;
	struct space *more;
	unsigned int nr = 0;
	bool silent;
	pid_t pid;
	DIR *d;
	int err;

	*list = (struct space_list){ 0 };
	err = open_dir(dir);
	if (err)
		return err == -ENOENT ? 0 : err;
	d = opendir(dir);
	if (!d)
		return cli_error(CLI_FAILED, "%s: %s (check the directory)", dir, strerror(errno));
	while ((entry = readdir(d))) {
		pid = parse_pid(entry->d_name);
		/* A name for agents: trying it does nothing to it, but that it goes if it is left over. */
		if (!pid && isdigit((unsigned char)*entry->d_name) &&
		    !link_connect(&link, dir, entry->d_name))
			link_close(&link);
		if (!pid)
			continue;
		snapshot = snapshot_of(dir, entry->d_name, &silent);
		if (!snapshot && !silent)
			continue;
		more = reallocarray(list->space, nr + 1, sizeof(*more));
		if (!more) {
			json_object_put(snapshot);
			closedir(d);
			spaces_free(list);
			return cli_error(CLI_FAILED, "spaces: out of memory (free some)");
		}
		list->space = more;
		list->space[nr++] = (struct space){ pid, snapshot };
		if (snapshot)
			list->nr++;
		else
			list->nr_silent++;
	}
	closedir(d);
	if (nr)
		qsort(list->space, nr, sizeof(*list->space), by_supervisor);
	return 0;
}

const struct space *spaces_pick(const struct space_list *list, const char *word)
{
	pid_t pid = parse_pid(word);
	const char *name;
	unsigned int i;

	for (i = 0; i < list->nr; i++) {
		name = snapshot_text(list->space[i].snapshot, "name");
		if (name && !strcmp(name, word))
			return &list->space[i];
	}
	for (i = 0; pid && i < list->nr; i++) {
		if (list->space[i].supervisor == pid ||
		    snapshot_number(list->space[i].snapshot, NULL, "pid") == (uint64_t)pid)
			return &list->space[i];
	}
	return NULL;
}

bool spaces_silent(const struct space_list *list, pid_t supervisor)
{
	for (unsigned int i = 0; i < list->nr_silent; i++) {
		if (list->space[list->nr + i].supervisor == supervisor)
			return true;
	}
	return false;
}

int spaces_none(const struct space_list *list, const char *word, int status)
{
	pid_t pid = parse_pid(word);

	if (spaces_silent(list, pid))
		return space_no_answer(pid);
	/* Its name and its program's number would be in the answer. */
	if (list->nr_silent)
		return cli_error(CLI_FAILED,
				 "%s: no such space, unless it is vswap %d, which does not answer "
				 "(is it stopped?)",
				 word, (int)list->space[list->nr].supervisor);
	return cli_error(status, "%s: no such space (vswap ls lists them)", word);
}

int space_exists(const char *word, bool *found)
{
	struct space_list list;
	int status = spaces_find(&list);

	if (status)
		return status;
	*found = spaces_pick(&list, word) || spaces_silent(&list, parse_pid(word));
	spaces_free(&list);
	return 0;
}

int link_open(struct link *link, const char *word)
{
	char dir[PATH_MAX], name[16];
	const struct space *space = NULL;
	struct space_list list;
	unsigned int nr;
	pid_t pid = 0;
	int err;

	link->fd = -1;
	link->in = NULL;
	err = spaces_find(&list);
	if (err)
		return err;
	nr = list.nr + list.nr_silent;
	if (word)
		space = spaces_pick(&list, word);
	else if (nr == 1)
		space = &list.space[0];
	if (space)
		pid = space->supervisor;
	if (space && !space->snapshot)
		err = space_no_answer(pid);
	else if (!space && word)
		err = spaces_none(&list, word, CLI_FAILED);
	else if (!space && !nr)
		err = cli_error(CLI_FAILED, "no space is running (vswap run starts one)");
	else if (!space)
		err = cli_error(CLI_FAILED,
				"which space? %u are running (give its name or number, vswap ls "
				"lists them)",
				nr);
	spaces_free(&list);
	if (err)
		return err;
	err = open_dir(dir);
	if (err > 0)
		return err;
	snprintf(name, sizeof(name), "%d", (int)pid);
	if (!err)
		err = link_connect(link, dir, name);
	link->supervisor = pid;
	if (err == -EAGAIN)
		return space_no_answer(pid);
	if (err)
		return has_ended(pid);
	return 0;
}

/* ---- snapshots --------------------------------------------------------- */

uint64_t snapshot_number(struct json_object *snapshot, const char *group, const char *name)
{
	struct json_object *obj = snapshot, *value;

	if (!snapshot || (group && !json_object_object_get_ex(snapshot, group, &obj)) ||
	    !json_object_object_get_ex(obj, name, &value))
		return 0;
	return json_object_get_uint64(value);
}

const char *snapshot_text(struct json_object *snapshot, const char *name)
{
	struct json_object *value = NULL;

	if (!json_object_object_get_ex(snapshot, name, &value) ||
	    !json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

void snapshot_program(struct json_object *snapshot, char *buf, size_t len)
{
	const char *text = snapshot_text(snapshot, "program"), *base;
	size_t i;

	if (!text)
		text = "?";
	base = strrchr(text, '/');
	if (base && base[1])
		text = base + 1;
	for (i = 0; text[i] && i + 1 < len; i++)
		buf[i] = iscntrl((unsigned char)text[i]) ? '?' : text[i];
	buf[i] = '\0';
}

static bool is_true(struct json_object *obj, const char *name)
{
	struct json_object *value;

	return json_object_object_get_ex(obj, name, &value) && json_object_get_boolean(value);
}

const char *tier_state(struct json_object *tier)
{
	return is_true(tier, "failed") ? "failed" : is_true(tier, "full") ? "full" : "";
}

void print_json(struct json_object *value, bool one_line)
{
	int flags = JSON_C_TO_STRING_NOSLASHESCAPE;

	if (!one_line)
		flags |= JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED;
	puts(json_object_to_json_string_ext(value, flags));
}
