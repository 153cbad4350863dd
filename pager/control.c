// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The control socket: requests in, one a line; answers out, one a line.
 *
 * The socket is <directory>/<pid of vswap>, in a directory only its owner may
 * enter.  It is bound under a name that begins with a dot and renamed once it
 * listens, so a socket that refuses a connection under its final name has no
 * vswap behind it any more, and anybody may remove it.
 *
 * One thread serves all connections and never waits for any of them: while a
 * request is under way or its answer not taken, no more is read there.  So a
 * client that stalls costs its buffers, and when connections run short the one
 * that did nothing for longest is closed.  Slow operations run on a second
 * thread, in the order they came.
 *
 * The lock guards the queue of slow calls, the one that runs, its progress, and
 * those done; connections and everything else belong to the serving thread.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "json.h"
#include "state.h"

/* Room for a connection of every run that joined, and for those who ask. */
#define MAX_CONNS 320
/* Levels of a request: the object and a list in it. */
#define MAX_DEPTH   3
#define PROGRESS_NS 100000000ULL
/* Pause after a failed accept() (no descriptors left), instead of a busy loop. */
#define PAUSE_MS 200

struct pending;

struct conn {
	int fd;
	pid_t peer;
	uint64_t active; /* counts up: when it last did something */
	char *in;	 /* CONTROL_LINE bytes, NULL while nothing came */
	size_t in_len;
	bool skipping; /* the rest of a line that was too long */
	bool eof;      /* it will send no more */
	char *out;
	size_t out_len, out_sent;
	struct pending *pending; /* not answered yet */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* A call and who waits for it. */
struct pending {
	struct control_call call;
	const struct control_op *op;
	struct conn *conn; /* NULL: gone */
	struct pending *next;
	bool cancelled; /* atomic */
	bool refused;
	char error[1024];
	/* guarded by the lock */
	uint64_t done, total, told_ns;
	bool told;
};

/* Written by control_start() and control_stop(), both of one thread. */
static struct {
	pthread_t thread;
	int listen_fd, stop_fd, wake_fd;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	bool running;
	const struct control_op *const *tables;
} control;

static struct {
	struct conn *conn[MAX_CONNS];
	unsigned int nr;
	uint64_t clock;
} conns;

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool started, stop;
	struct pending *first, *last; /* waiting */
	struct pending *current;
	struct pending *done;
} worker = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

int control_dir(char *buf, size_t len)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	/* root's XDG_RUNTIME_DIR may be that of the user who became root. */
	if (geteuid() == 0)
		n = snprintf(buf, len, "/run/vswap");
	else if (runtime && *runtime == '/')
		n = snprintf(buf, len, "%s/vswap", runtime);
	else
		n = snprintf(buf, len, "/tmp/vswap-%lu", (unsigned long)geteuid());
	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

int control_check_dir(const char *dir)
{
	struct stat st;

	if (lstat(dir, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return -EPERM;
	return 0;
}

int control_make_dir(char *buf, size_t len)
{
	int err = control_dir(buf, len);

	if (err)
		return err;
	if (mkdir(buf, 0700) && errno != EEXIST)
		return -errno;
	return control_check_dir(buf);
}

const char *control_advice(const char *dir, int err)
{
	const char *elsewhere = geteuid() ? "set XDG_RUNTIME_DIR to a directory of yours" :
					    "see that it can be written to";
	struct stat st;

	/* Nobody can remove another's from /tmp. */
	if (err == -EPERM && !lstat(dir, &st) && st.st_uid == geteuid())
		return S_ISDIR(st.st_mode) ? "chmod 700 it" : "remove it";
	return elsewhere;
}

/* ---- for the functions of tables -------------------------------------- */

static struct pending *pending_of(const struct control_call *call)
{
	return (struct pending *)((char *)call - offsetof(struct pending, call));
}

int control_refuse(struct control_call *call, const char *fmt, ...)
{
	struct pending *p = pending_of(call);
	char text[sizeof(p->error)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_to_text(p->error, sizeof(p->error), text);
	p->refused = true;
	return -1;
}

static struct json_object *member(const struct control_call *call, const char *name)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(call->request, name, &value);
	return value;
}

bool control_has(const struct control_call *call, const char *name)
{
	return member(call, name) != NULL;
}

const char *control_text(const struct control_call *call, const char *name)
{
	struct json_object *value = member(call, name);

	return value ? json_object_get_string(value) : NULL;
}

int64_t control_number(const struct control_call *call, const char *name, int64_t otherwise)
{
	struct json_object *value = member(call, name);

	return value ? json_object_get_int64(value) : otherwise;
}

static void wake(void)
{
	uint64_t one = 1;

	while (write(control.wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool control_cancelled(const struct control_call *call)
{
	return __atomic_load_n(&pending_of(call)->cancelled, __ATOMIC_RELAXED);
}

bool control_progress(struct control_call *call, uint64_t done, uint64_t total)
{
	struct pending *p = pending_of(call);
	uint64_t now = now_ns();
	bool tell;

	pthread_mutex_lock(&worker.lock);
	p->done = done;
	p->total = total;
	tell = !p->told && now - p->told_ns >= PROGRESS_NS;
	if (tell) {
		p->told = true;
		p->told_ns = now;
	}
	pthread_mutex_unlock(&worker.lock);
	if (tell)
		wake();
	return !control_cancelled(call);
}

int control_on_close(struct control_call *call, void (*closed)(void *arg), void *arg)
{
	struct conn *conn = pending_of(call)->conn;

	if (conn->closed)
		return -EBUSY;
	conn->closed = closed;
	conn->closed_arg = arg;
	return 0;
}

pid_t control_peer(const struct control_call *call)
{
	return pending_of(call)->conn->peer;
}

/* ---- connections ------------------------------------------------------- */

static void pending_free(struct pending *p)
{
	json_object_put(p->call.request);
	json_object_put(p->call.answer);
	free(p);
}

/* Its client is gone: a call that waits is forgotten, one under way is told. */
static void pending_cancel(struct pending *p)
{
	struct pending **at;
	bool waiting = false;

	p->conn = NULL;
	__atomic_store_n(&p->cancelled, true, __ATOMIC_RELAXED);
	pthread_mutex_lock(&worker.lock);
	for (at = &worker.first; *at && *at != p; at = &(*at)->next)
		;
	if (*at) {
		waiting = true;
		*at = p->next;
		if (worker.last == p) {
			worker.last = worker.first;
			while (worker.last && worker.last->next)
				worker.last = worker.last->next;
		}
	}
	pthread_mutex_unlock(&worker.lock);
	if (waiting)
		pending_free(p);
}

static void conn_close(struct conn *c)
{
	unsigned int i;

	if (c->pending)
		pending_cancel(c->pending);
	if (c->closed)
		c->closed(c->closed_arg);
	for (i = 0; conns.conn[i] != c; i++)
		;
	conns.conn[i] = conns.conn[--conns.nr];
	close(c->fd);
	free(c->in);
	free(c->out);
	free(c);
}

/* As much as goes without waiting.  False: the connection is broken. */
static bool flush_out(struct conn *c)
{
	ssize_t n;

	while (c->out_sent < c->out_len) {
		n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		c->out_sent += n;
		c->active = ++conns.clock;
	}
	free(c->out);
	c->out = NULL;
	c->out_len = c->out_sent = 0;
	return true;
}

/* Queue @obj as a line; takes it over. */
static void send_line(struct conn *c, struct json_object *obj)
{
	static const char no_memory[] = "{\"ok\":false,\"error\":\"out of memory (free some)\"}";
	const char *text =
		obj ? json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN |
								  JSON_C_TO_STRING_NOSLASHESCAPE) :
		      NULL;
	size_t len;
	char *out;

	if (!text)
		text = no_memory;
	len = strlen(text);
	out = realloc(c->out, c->out_len + len + 1);
	if (out) {
		memcpy(out + c->out_len, text, len);
		out[c->out_len + len] = '\n';
		c->out = out;
		c->out_len += len + 1;
	} else {
		/* Nobody shall wait for it: the next look sees the end. */
		shutdown(c->fd, SHUT_RDWR);
	}
	json_object_put(obj);
}

static void send_error(struct conn *c, const char *error)
{
	struct json_object *obj = json_object_new_object();

	if (obj && (json_add_bool(obj, "ok", false) || json_add_text(obj, "error", error))) {
		json_object_put(obj);
		obj = NULL;
	}
	send_line(c, obj);
}

/* A call has come to its end. */
static void answer(struct pending *p)
{
	struct conn *c = p->conn;

	if (c) {
		c->pending = NULL;
		c->active = ++conns.clock;
		if (p->refused) {
			send_error(c, p->error);
		} else {
			send_line(c, p->call.answer);
			p->call.answer = NULL;
		}
	}
	pending_free(p);
}

static void tell_progress(struct conn *c, uint64_t done, uint64_t total)
{
	struct json_object *obj, *progress;

	/* Whoever is slow to read needs no more of them. */
	if (c->out_len)
		return;
	obj = json_object_new_object();
	progress = json_object_new_object();
	if (obj && !json_add(obj, "progress", progress) && !json_add_u64(progress, "done", done) &&
	    !json_add_u64(progress, "total", total))
		send_line(c, obj);
	else
		json_object_put(obj);
}

/* ---- slow operations --------------------------------------------------- */

static void *work(void *unused)
{
	struct pending *p;

	(void)unused;
	prctl(PR_SET_NAME, "vswap-operate");
	pthread_mutex_lock(&worker.lock);
	for (;;) {
		while (!worker.first && !worker.stop)
			pthread_cond_wait(&worker.wake, &worker.lock);
		if (worker.stop)
			break;
		p = worker.first;
		worker.first = p->next;
		if (!worker.first)
			worker.last = NULL;
		worker.current = p;
		pthread_mutex_unlock(&worker.lock);
		p->op->run(&p->call);
		pthread_mutex_lock(&worker.lock);
		worker.current = NULL;
		p->next = worker.done;
		worker.done = p;
		wake();
	}
	pthread_mutex_unlock(&worker.lock);
	return NULL;
}

/* Returns 0 or -errno. */
static int queue_slow(struct pending *p)
{
	int err;

	if (!worker.started) {
		err = pthread_create(&worker.thread, NULL, work, NULL);
		if (err)
			return -err;
		worker.started = true;
	}
	pthread_mutex_lock(&worker.lock);
	if (worker.last)
		worker.last->next = p;
	else
		worker.first = p;
	worker.last = p;
	pthread_cond_signal(&worker.wake);
	pthread_mutex_unlock(&worker.lock);
	return 0;
}

/* The worker had something to say. */
static void hear_worker(void)
{
	struct pending *done, *next, *p;
	uint64_t sum = 0, total = 0;
	bool tell = false;

	if (read(control.wake_fd, &sum, sizeof(sum)) < 0)
		return;
	pthread_mutex_lock(&worker.lock);
	done = worker.done;
	worker.done = NULL;
	p = worker.current;
	if (p && p->told) {
		p->told = false;
		tell = true;
		sum = p->done;
		total = p->total;
	}
	pthread_mutex_unlock(&worker.lock);
	/* Only this thread frees a call, so @p is there still. */
	if (tell && p->conn)
		tell_progress(p->conn, sum, total);
	for (; done; done = next) {
		next = done->next;
		answer(done);
	}
}

/* ---- requests ---------------------------------------------------------- */

static const struct control_op *find_op(const char *name)
{
	const struct control_op *const *table;
	const struct control_op *op;

	for (table = control.tables; *table; table++)
		for (op = *table; op->name; op++)
			if (!strcmp(op->name, name))
				return op;
	return NULL;
}

static bool is_text(struct json_object *value)
{
	return json_object_is_type(value, json_type_string) && json_object_get_string_len(value) &&
	       strlen(json_object_get_string(value)) == (size_t)json_object_get_string_len(value);
}

/* What @value should have been, or NULL: it is. */
static const char *wrong_type(enum control_type type, struct json_object *value)
{
	size_t i;

	switch (type) {
	case CONTROL_TEXT:
		return is_text(value) ? NULL : "a string";
	case CONTROL_COUNT:
		/* What is too large for 64 bits was made the largest. */
		return json_object_is_type(value, json_type_int) &&
				       json_object_get_int64(value) >= 0 &&
				       json_object_get_uint64(value) <= INT64_MAX ?
			       NULL :
			       "a whole number, 0 or more";
	case CONTROL_INT:
		return json_object_is_type(value, json_type_int) &&
				       json_object_get_int64(value) >= INT32_MIN &&
				       json_object_get_int64(value) <= INT32_MAX ?
			       NULL :
			       "a whole number of 32 bits";
	case CONTROL_BOOL:
		return json_object_is_type(value, json_type_boolean) ? NULL : "true or false";
	case CONTROL_LIST:
		if (!json_object_is_type(value, json_type_array))
			return "a list of strings";
		for (i = 0; i < json_object_array_length(value); i++)
			if (!is_text(json_object_array_get_idx(value, i)))
				return "a list of strings";
		return NULL;
	}
	return "something else";
}

static const struct control_member *find_member(const struct control_op *op, const char *name)
{
	unsigned int i;

	for (i = 0; i < CONTROL_MEMBERS && op->member[i].name; i++)
		if (!strcmp(op->member[i].name, name))
			return &op->member[i];
	return NULL;
}

/* Find the operation of @p and see that the request is what it takes.  0 or -1. */
static int check_request(struct pending *p)
{
	struct control_call *call = &p->call;
	const struct control_member *m;
	struct json_object *value;
	const char *should;
	unsigned int i;

	value = member(call, "op");
	if (!value || !is_text(value))
		return control_refuse(call,
				      "request: no \"op\" that is a string (name what to do)");
	p->op = find_op(json_object_get_string(value));
	if (!p->op)
		return control_refuse(call, "%.64s: no such operation (see docs/control.md)",
				      json_object_get_string(value));
	json_object_object_foreach(call->request, name, given)
	{
		if (!strcmp(name, "op"))
			continue;
		m = find_member(p->op, name);
		if (!m)
			return control_refuse(call,
					      "%s: %.64s: no such member (see docs/control.md)",
					      p->op->name, name);
		should = wrong_type(m->type, given);
		if (should)
			return control_refuse(call, "%s: %s: wrong type (give %s)", p->op->name,
					      name, should);
	}
	for (i = 0; i < CONTROL_MEMBERS && p->op->member[i].name; i++)
		if (!p->op->member[i].optional && !control_has(call, p->op->member[i].name))
			return control_refuse(call, "%s: no \"%s\" (it must be given)", p->op->name,
					      p->op->member[i].name);
	return 0;
}

/* The object in @len bytes of @text, or NULL with the reason in *@why. */
static struct json_object *parse(const char *text, size_t len, const char **why)
{
	struct json_tokener *tok = json_tokener_new_ex(MAX_DEPTH);
	struct json_object *obj;

	*why = "out of memory (free some)";
	if (!tok)
		return NULL;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	/* The newline at the end tells that a number is over. */
	obj = json_tokener_parse_ex(tok, text, len);
	*why = "request: not JSON (send one object a line)";
	if (json_tokener_get_error(tok) != json_tokener_success ||
	    json_tokener_get_parse_end(tok) != len) {
		json_object_put(obj);
		obj = NULL;
	} else if (!json_object_is_type(obj, json_type_object)) {
		*why = "request: not an object (send one object a line)";
		json_object_put(obj);
		obj = NULL;
	}
	json_tokener_free(tok);
	return obj;
}

/* One line, its newline included. */
static void request(struct conn *c, const char *line, size_t len)
{
	struct pending *p = calloc(1, sizeof(*p));
	const char *why = "out of memory (free some)";
	int err;

	c->active = ++conns.clock;
	if (p) {
		p->conn = c;
		/* Here, so that "ok" comes first. */
		p->call.answer = json_object_new_object();
		p->call.request = parse(line, len, &why);
	}
	if (!p || !p->call.request || !p->call.answer ||
	    json_add_bool(p->call.answer, "ok", true)) {
		if (p)
			pending_free(p);
		send_error(c, why);
		return;
	}
	c->pending = p;
	if (!check_request(p)) {
		if (p->op->slow) {
			err = queue_slow(p);
			if (!err)
				return;
			control_refuse(&p->call, "%s: thread: %s (see 'ulimit -u')", p->op->name,
				       strerror(-err));
		} else {
			p->op->run(&p->call);
		}
	}
	answer(p);
}

/* Take what has come, a line at a time, until one is not answered yet. */
static void take_lines(struct conn *c)
{
	char *end;
	size_t len;

	while (!c->pending && !c->out_len && c->in_len) {
		end = memchr(c->in, '\n', c->in_len);
		len = end ? end + 1 - c->in : 0;
		if (end && !c->skipping) {
			request(c, c->in, len);
		} else if (!end) {
			if (c->in_len < CONTROL_LINE)
				return;
			if (!c->skipping)
				send_error(c, "request: longer than 64 KiB (send less)");
			c->skipping = true;
			len = c->in_len;
		} else {
			c->skipping = false;
		}
		c->in_len -= len;
		memmove(c->in, c->in + len, c->in_len);
	}
}

/* False: the connection is over. */
static bool receive(struct conn *c)
{
	ssize_t n;

	if (!c->in)
		c->in = malloc(CONTROL_LINE);
	if (!c->in)
		return false;
	n = recv(c->fd, c->in + c->in_len, CONTROL_LINE - c->in_len, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	c->eof = n == 0;
	c->in_len += n;
	return true;
}

static bool busy(const struct conn *c)
{
	return c->pending || c->out_len;
}

/* @revents came, or a call has ended.  False: the connection is over. */
static bool attend(struct conn *c, short revents)
{
	size_t had;

	/* Half closed is no more requests; this is nobody there. */
	if (revents & (POLLHUP | POLLERR | POLLNVAL))
		return false;
	if ((revents & POLLIN) && !busy(c) && !receive(c))
		return false;
	for (;;) {
		if (!flush_out(c))
			return false;
		had = c->in_len;
		if (busy(c) || !had)
			break;
		take_lines(c);
		if (c->in_len == had && !c->out_len)
			break; /* the line is not whole yet */
	}
	if (!c->in_len) {
		free(c->in);
		c->in = NULL;
	}
	if (c->eof && !busy(c)) {
		if (!c->in_len || c->skipping)
			return false;
		/* JSON that was cut off may still be JSON. */
		c->in_len = 0;
		send_error(c, "request: cut off (end it with a newline)");
		return flush_out(c) && c->out_len;
	}
	return true;
}

/* Room for one more: who did nothing for longest, and waits for nothing, goes. */
static bool make_room(void)
{
	struct conn *idle = NULL;
	unsigned int i;

	if (conns.nr < MAX_CONNS)
		return true;
	for (i = 0; i < conns.nr; i++)
		if (!conns.conn[i]->closed && !conns.conn[i]->pending &&
		    (!idle || conns.conn[i]->active < idle->active))
			idle = conns.conn[i];
	if (idle)
		conn_close(idle);
	return idle != NULL;
}

static void take_conn(int fd)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	struct conn *c;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ||
	    (peer.uid != geteuid() && peer.uid != 0)) {
		static const char no[] =
			"{\"ok\":false,\"error\":\"vswap: another user's (ask as who runs it)\"}\n";

		send(fd, no, sizeof(no) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
		return;
	}
	c = make_room() ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	c->fd = fd;
	c->peer = peer.pid;
	c->active = ++conns.clock;
	conns.conn[conns.nr++] = c;
}

static void accept_conn(void)
{
	struct pollfd stop = { .fd = control.stop_fd, .events = POLLIN };
	int fd = accept4(control.listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		take_conn(fd);
	else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		poll(&stop, 1, PAUSE_MS);
}

static void *serve(void *unused)
{
	struct pollfd fds[MAX_CONNS + 3];
	struct conn *list[MAX_CONNS];
	unsigned int i, nr;

	(void)unused;
	prctl(PR_SET_NAME, "vswap-control");
	for (;;) {
		fds[0] = (struct pollfd){ .fd = control.stop_fd, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = control.wake_fd, .events = POLLIN };
		fds[2] = (struct pollfd){ .fd = control.listen_fd, .events = POLLIN };
		nr = conns.nr;
		for (i = 0; i < nr; i++) {
			struct conn *c = list[i] = conns.conn[i];

			fds[3 + i] = (struct pollfd){
				.fd = c->fd,
				.events = c->out_len		 ? POLLOUT :
					  !c->pending && !c->eof ? POLLIN :
								   0,
			};
		}
		if (poll(fds, nr + 3, -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		if (fds[1].revents)
			hear_worker();
		for (i = 0; i < nr; i++)
			if ((fds[3 + i].revents || list[i]->out_len) &&
			    !attend(list[i], fds[3 + i].revents))
				conn_close(list[i]);
		if (fds[2].revents)
			accept_conn();
	}
	/* No name is there any more; whoever is connected sees the end. */
	while (conns.nr)
		conn_close(conns.conn[0]);
	return NULL;
}

/* ---- start and stop ---------------------------------------------------- */

/* A listening socket under its final name, control.path.  Returns it or -errno. */
static int control_listen(const char *dir)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const size_t len = sizeof(addr.sun_path);
	long pid = getpid();
	int fd, err;

	if ((size_t)snprintf(addr.sun_path, len, "%s/.%ld", dir, pid) >= len ||
	    (size_t)snprintf(control.path, len, "%s/%ld", dir, pid) >= len)
		return -ENAMETOOLONG;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* Names of a dead process that had our number. */
	unlink(addr.sun_path);
	/* The mode bind() makes the name with. */
	if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		err = -errno;
		close(fd);
		return err;
	}
	if (listen(fd, 64) || rename(addr.sun_path, control.path)) {
		err = -errno;
		unlink(addr.sun_path);
		close(fd);
		return err;
	}
	return fd;
}

static void stop_worker(void)
{
	struct pending *p;

	if (!worker.started)
		return;
	pthread_mutex_lock(&worker.lock);
	worker.stop = true;
	pthread_cond_signal(&worker.wake);
	pthread_mutex_unlock(&worker.lock);
	pthread_join(worker.thread, NULL);
	while ((p = worker.done)) {
		worker.done = p->next;
		pending_free(p);
	}
	worker.started = worker.stop = false;
}

int control_start(const struct control_op *const *tables)
{
	sigset_t all, old;
	char dir[PATH_MAX];
	int err;

	err = control_make_dir(dir, sizeof(dir));
	if (err)
		return err;

	control.tables = tables;
	control.stop_fd = eventfd(0, EFD_CLOEXEC);
	if (control.stop_fd < 0)
		return -errno;
	control.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (control.wake_fd < 0) {
		err = -errno;
		goto close_stop;
	}
	control.listen_fd = control_listen(dir);
	if (control.listen_fd < 0) {
		err = control.listen_fd;
		goto close_wake;
	}

	/* Threads inherit the mask: signals are for the supervisor's main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&control.thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		goto close_listen;
	control.running = true;
	return 0;

close_listen:
	unlink(control.path);
	close(control.listen_fd);
close_wake:
	close(control.wake_fd);
close_stop:
	close(control.stop_fd);
	return err;
}

void control_stop(void)
{
	uint64_t one = 1;

	if (!control.running)
		return;
	/* Gone from the list before it stops answering. */
	unlink(control.path);
	while (write(control.stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(control.thread, NULL);
	stop_worker();
	close(control.listen_fd);
	close(control.wake_fd);
	close(control.stop_fd);
	control.running = false;
}
