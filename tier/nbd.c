// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A tier in an export of an NBD server: memory or storage of another machine.
 *
 * A call cuts its batch into commands, pages whose slots follow each other, and
 * hands them to the connection itself if there is one; then it waits for all of
 * them.  One thread looks after the connection: it takes in the answers, notices
 * when there are none, and makes the next connection.  A command belongs to a
 * batch, not to a connection: when one is lost its commands are queued, and sent
 * on the next.  A command's buffer is libnbd's from when it was sent until it was
 * answered or the connection closed, so no call returns before one of these.
 *
 * NBD takes one stretch of memory for a command.  Where neighbours lie scattered
 * there, they are joined in one of a few buffers of our own.  Nothing here
 * allocates memory once it is open.
 *
 * The lock guards the connection and all commands; libnbd calls answered() with
 * it held.  It is never held over a wait, but a connection in the making is the
 * thread's alone.
 */
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "head.h"
#include "lazy.h"
#include "nbd.h"
#include "say.h"

#include <linux/printk.h>

#define MS	     1000000ULL
#define MAX_CMDS     64
#define CMD_PAGES    256 /* 1 MiB */
#define JOINED_PAGES 32	 /* 128 KiB */
#define NR_BUFFERS   8
#define TRIM_BYTES   (1ULL << 30)
#define MAX_LATE     16
#define LATE_LIMITS  4 /* a server does in so many limits what it was asked on a lost connection */
#define OWNER_AT     SWAP_PAGE_SIZE /* in the head, after the page that allows us to be there */
#define BEAT	     (SEC / 2)
#define SILENCE	     (2 * SEC) /* an owner that did not beat for so long is none */
#define SETTLE	     (200 * MS) /* between finding an export free and having written to it, at most */

/* ---- libnbd ---------------------------------------------------------- */

#define NBD_CALLS(X)                \
	X(create)                   \
	X(close)                    \
	X(get_error)                \
	X(set_uri_allow_transports) \
	X(set_uri_allow_tls)        \
	X(set_pread_initialize)     \
	X(aio_connect_uri)          \
	X(aio_get_fd)               \
	X(aio_get_direction)        \
	X(aio_notify_read)          \
	X(aio_notify_write)         \
	X(aio_is_ready)             \
	X(aio_is_dead)              \
	X(aio_is_closed)            \
	X(aio_pread)                \
	X(aio_pwrite)               \
	X(aio_trim)                 \
	X(aio_disconnect)           \
	X(get_size)                 \
	X(is_read_only)             \
	X(can_trim)                 \
	X(get_block_size)

#define X(name) __typeof__(nbd_##name) *name;
static struct {
	NBD_CALLS(X)
} nbd;
#undef X

static const char *load_libnbd(void)
{
#define X(name) { "nbd_" #name, (void **)&nbd.name },
	static const struct lazy_call calls[] = { NBD_CALLS(X) };
#undef X
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const char *why;

	pthread_mutex_lock(&lock);
	why = lazy_load("libnbd.so.0", calls, sizeof(calls) / sizeof(*calls));
	pthread_mutex_unlock(&lock);
	return why;
}

/* What libnbd said last on this thread, without the name of the call. */
static const char *nbd_why(void)
{
	const char *text = nbd.get_error(), *colon;

	if (!text)
		return "connection closed";
	while (!strncmp(text, "nbd_", 4) && (colon = strstr(text, ": ")))
		text = colon + 2;
	return text;
}

/* ---- the tier -------------------------------------------------------- */

enum op {
	READ,
	WRITE,
	TRIM,
};

enum cmd_state {
	IDLE,
	QUEUED, /* for the next connection, or the next beat */
	SENT,
};

/* What one call waits for. */
struct batch {
	unsigned int pending;
	pthread_cond_t done;
};

struct cmd {
	enum cmd_state state;
	enum op op;
	struct tier_nbd *tier;
	struct batch *batch; /* NULL: of a TRIM nobody waits for any more */
	struct swap_io *io;  /* not of TRIM */
	u64 slot;
	u64 nr;		 /* pages */
	void *data;	 /* all pages in a row */
	int buffer;	 /* data is that one of ours, or -1 */
	u64 asked, sent; /* when, ns */
};

/* A TRIM whose connection was lost: until then the server may still do it. */
struct late {
	u64 slot, nr;
	u64 until;
};

struct single {
	bool done;
	int error;
};

/*
 * The owner's page of an export.  No server locks one, so whoever uses it says
 * so again and again; all zero is nobody.
 */
struct owner {
	unsigned char id[16];
	u64 beat;
};

union owner_page {
	struct owner owner;
	char page[SWAP_PAGE_SIZE];
};

enum beating {
	RESTING,
	LOOKING, /* is it ours still? */
	SAYING,
};

struct tier_nbd {
	char *uri;
	u64 size;		/* bytes used of the export, head included */
	u64 limit;		/* ns that pages are waited for */
	unsigned int max_pages; /* in one command */
	bool can_trim;
	pthread_t thread;
	bool opened;  /* the export is ours */
	bool running; /* the thread is there */
	int wake;     /* eventfd */

	pthread_mutex_t lock;
	struct nbd_handle *h; /* the connection; NULL while the server is gone */
	bool away;	      /* h is NULL; read without the lock, too */
	bool broken;	      /* a command was turned away: h is of no use any more */
	bool gave_up;	      /* gone for longer than the limit */
	bool taken;	      /* by another vswap: never to be used again */
	bool stop;
	u64 lost_at;	     /* when it went */
	u64 heard;	     /* when something was last answered */
	pthread_cond_t idle; /* a command, perhaps a buffer */
	struct cmd cmd[MAX_CMDS];
	struct late late[MAX_LATE];
	char *buffers; /* NR_BUFFERS of JOINED_PAGES */
	bool buffer_used[NR_BUFFERS];
	char head[SWAP_PAGE_SIZE], head_now[SWAP_PAGE_SIZE];
	unsigned char id[16];	/* ours */
	unsigned char past[16]; /* of the owner who was silent, if there was one */
	union owner_page owner;
	enum beating beating;
	struct single beat; /* the command under way unless RESTING */
	u64 next_beat, beat_sent;
	u64 sure; /* when a beat was sent that found the export ours */
};

static void wake_thread(struct tier_nbd *t)
{
	/* Only fails when it is awake already. */
	if (eventfd_write(t->wake, 1))
		return;
}

/*
 * May pages be changed?  Who was stopped for as long as an owner may be silent asks
 * first whether the export is his still.
 */
static bool is_sure(const struct tier_nbd *t)
{
	return now_ns() - t->sure < SILENCE;
}

/* ---- commands; the lock is held -------------------------------------- */

static void buffer_copy(struct cmd *cmd, bool in)
{
	char *data = cmd->data;

	for (u64 i = 0; i < cmd->nr; i++, data += SWAP_PAGE_SIZE) {
		if (in)
			memcpy(data, cmd->io[i].data, SWAP_PAGE_SIZE);
		else
			memcpy(cmd->io[i].data, data, SWAP_PAGE_SIZE);
	}
}

/* It is settled: tell whoever waits.  @err: 0 or -errno */
static void cmd_finish(struct cmd *cmd, int err)
{
	struct tier_nbd *t = cmd->tier;

	if (cmd->op != TRIM) {
		if (!err && cmd->op == READ && cmd->buffer >= 0)
			buffer_copy(cmd, false);
		for (u64 i = 0; i < cmd->nr; i++)
			cmd->io[i].error = err;
	}
	if (cmd->buffer >= 0)
		t->buffer_used[cmd->buffer] = false;
	cmd->state = IDLE;
	pthread_cond_broadcast(&t->idle);
	if (cmd->batch && !--cmd->batch->pending)
		pthread_cond_signal(&cmd->batch->done);
}

/* libnbd: a command has ended.  What the end of the connection ended stays SENT. */
static int answered(void *arg, int *error)
{
	struct cmd *cmd = arg;
	struct tier_nbd *t = cmd->tier;

	if (*error == ENOTCONN || *error == ESHUTDOWN) {
		t->broken = true;
	} else {
		t->heard = now_ns();
		cmd_finish(cmd, -*error);
	}
	return 1;
}

static void cmd_send(struct cmd *cmd)
{
	struct tier_nbd *t = cmd->tier;
	nbd_completion_callback done = { .callback = answered, .user_data = cmd };
	u64 at = HEAD_BYTES + cmd->slot * SWAP_PAGE_SIZE, len = cmd->nr * SWAP_PAGE_SIZE;
	int64_t cookie;

	cmd->state = SENT;
	cmd->sent = now_ns();
	if (cmd->op == READ)
		cookie = nbd.aio_pread(t->h, cmd->data, len, at, done, 0);
	else if (cmd->op == WRITE)
		cookie = nbd.aio_pwrite(t->h, cmd->data, len, at, done, 0);
	else
		cookie = nbd.aio_trim(t->h, len, at, done, 0);
	if (cookie < 0)
		t->broken = true;
	/* Somebody else than the one who sleeps in poll() may have found that out. */
	if (t->broken || nbd.aio_get_direction(t->h) & LIBNBD_AIO_DIRECTION_WRITE)
		wake_thread(t);
}

/* What waits for a connection, or for us to be sure of it. */
static void send_queued(struct tier_nbd *t)
{
	for (unsigned int i = 0; i < MAX_CMDS; i++) {
		struct cmd *cmd = &t->cmd[i];

		if (cmd->state == QUEUED && (cmd->op == READ || is_sure(t)))
			cmd_send(cmd);
	}
}

/*
 * There is no server: is that not to be waited for any longer, by one who @asked then?
 * A write can go elsewhere; a read cannot, but has a limit.
 */
static bool overdue(const struct tier_nbd *t, enum op op, u64 asked)
{
	u64 grace = t->limit / 8 < 2 * SEC ? t->limit / 8 : 2 * SEC;

	return !t->h && (op == TRIM || (op == WRITE && now_ns() - asked >= grace));
}

/* The server has been gone for a while: what need not wait any longer?  The lock is held. */
static void expire(struct tier_nbd *t)
{
	u64 now = now_ns();

	if (t->taken && !t->gave_up) {
		t->gave_up = true;
		pr_err("tier %s: another vswap uses it now: pages on it are lost (give each its own)\n",
		       t->uri);
	}
	if (!t->gave_up && now - t->lost_at >= t->limit) {
		t->gave_up = true;
		pr_err("tier %s: no server for %llu s: pages on it cannot be read (start it again)\n",
		       t->uri, t->limit / SEC);
	}
	for (unsigned int i = 0; i < MAX_CMDS; i++) {
		struct cmd *cmd = &t->cmd[i];

		if (cmd->state != QUEUED)
			continue;
		if (t->gave_up)
			cmd_finish(cmd, -ETIMEDOUT);
		else if (overdue(t, cmd->op, cmd->asked))
			cmd_finish(cmd, -EAGAIN);
	}
	/* Nothing may have become idle: see cmd_get(). */
	pthread_cond_broadcast(&t->idle);
}

/*
 * Wait for @cond.  The thread may be held up for minutes, by the look-up of a name: so
 * who waits while there is no server looks for himself what is overdue.
 */
static void wait_on(struct tier_nbd *t, pthread_cond_t *cond)
{
	u64 until = now_ns() + SEC / 2;
	struct timespec ts = { .tv_sec = (time_t)(until / SEC), .tv_nsec = (long)(until % SEC) };

	if (pthread_cond_clockwait(cond, &t->lock, CLOCK_MONOTONIC, &ts) == ETIMEDOUT && !t->h)
		expire(t);
}

/*
 * A command, or NULL: overdue.  It may be reads that have them all, which wait longer;
 * expire() wakes up who waits here.
 */
static struct cmd *cmd_get(struct tier_nbd *t, enum op op, u64 asked)
{
	while (!overdue(t, op, asked)) {
		for (unsigned int i = 0; i < MAX_CMDS; i++)
			if (t->cmd[i].state == IDLE)
				return &t->cmd[i];
		wait_on(t, &t->idle);
	}
	return NULL;
}

/* The same: one of our buffers, or -1. */
static int buffer_get(struct tier_nbd *t, enum op op, u64 asked)
{
	while (!overdue(t, op, asked)) {
		for (int i = 0; i < NR_BUFFERS; i++) {
			if (!t->buffer_used[i]) {
				t->buffer_used[i] = true;
				return i;
			}
		}
		wait_on(t, &t->idle);
	}
	return -1;
}

/* The first @nr pages of @io come to nothing. */
static unsigned int turn_away(struct swap_io *io, unsigned int nr, int err)
{
	for (unsigned int i = 0; i < nr; i++)
		io[i].error = err;
	return nr;
}

/*
 * Make a command of pages from the front of @io, and send it if there is a
 * connection.  Returns how many it took.
 */
static unsigned int cmd_start(struct tier_nbd *t, struct batch *batch, enum op op, u64 asked,
			      struct swap_io *io, unsigned int nr)
{
	unsigned int n = 1, row = 1; /* neighbours on the tier; in memory, too */
	int buffer = -1;
	struct cmd *cmd;

	while (n < nr && n < t->max_pages && io[n].slot == io[0].slot + n) {
		if (row == n && (char *)io[0].data + n * SWAP_PAGE_SIZE == io[n].data)
			row++;
		n++;
	}
	if (row < n && row < JOINED_PAGES) {
		buffer = buffer_get(t, op, asked);
		if (buffer < 0)
			return turn_away(io, nr, -EAGAIN);
		n = n < JOINED_PAGES ? n : JOINED_PAGES;
	} else {
		n = row;
	}
	cmd = cmd_get(t, op, asked);
	if (!cmd) {
		if (buffer >= 0) {
			t->buffer_used[buffer] = false;
			pthread_cond_broadcast(&t->idle);
		}
		return turn_away(io, nr, -EAGAIN);
	}
	*cmd = (struct cmd){
		.state = QUEUED,
		.op = op,
		.tier = t,
		.batch = batch,
		.io = io,
		.slot = io[0].slot,
		.nr = n,
		.data = io[0].data,
		.buffer = buffer,
		.asked = asked,
	};
	if (buffer >= 0) {
		cmd->data = t->buffers + (size_t)buffer * JOINED_PAGES * SWAP_PAGE_SIZE;
		if (op == WRITE)
			buffer_copy(cmd, true);
	}
	batch->pending++;
	if (t->gave_up)
		cmd_finish(cmd, -ETIMEDOUT);
	else if (t->h && (op == READ || is_sure(t)))
		cmd_send(cmd);
	return n;
}

/* Move pages, and wait for all. */
static void run(struct tier_nbd *t, enum op op, struct swap_io *io, unsigned int nr)
{
	struct batch batch = { .done = PTHREAD_COND_INITIALIZER };
	u64 asked = now_ns();
	unsigned int n;

	pthread_mutex_lock(&t->lock);
	for (; nr; io += n, nr -= n)
		n = cmd_start(t, &batch, op, asked, io, nr);
	while (batch.pending)
		wait_on(t, &batch.done);
	pthread_mutex_unlock(&t->lock);
}

/* ---- discards that may still come; the lock is held ------------------ */

static bool is_trim(const struct cmd *cmd)
{
	return cmd->state != IDLE && cmd->op == TRIM;
}

static unsigned int nr_trims(const struct tier_nbd *t)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < MAX_CMDS; i++)
		n += is_trim(&t->cmd[i]);
	return n;
}

/* Each that is under way may be lost, and has its place. */
static bool late_room(const struct tier_nbd *t)
{
	unsigned int n = nr_trims(t);
	u64 now = now_ns();

	for (unsigned int i = 0; i < MAX_LATE; i++)
		n += t->late[i].until > now;
	return n < MAX_LATE;
}

/* A TRIM was sent, and how it ended will not be known. */
static void late_add(struct tier_nbd *t, const struct cmd *cmd)
{
	u64 now = now_ns();
	unsigned int i;

	for (i = 0; t->late[i].until > now; i++)
		;
	t->late[i] = (struct late){ cmd->slot, cmd->nr, now + LATE_LIMITS * t->limit };
}

/* May the server still discard some of these? */
static bool is_late(const struct tier_nbd *t, u64 slot, u64 nr)
{
	u64 now = now_ns();

	for (unsigned int i = 0; i < MAX_CMDS; i++) {
		const struct cmd *cmd = &t->cmd[i];

		if (is_trim(cmd) && slot < cmd->slot + cmd->nr && cmd->slot < slot + nr)
			return true;
	}
	for (unsigned int i = 0; i < MAX_LATE; i++) {
		const struct late *l = &t->late[i];

		if (l->until > now && slot < l->slot + l->nr && l->slot < slot + nr)
			return true;
	}
	return false;
}

/* ---- the connection -------------------------------------------------- */

/* Let @h have its turn, for 50 ms at most.  Its answers come meanwhile, by the caller's lock. */
static void turn(struct tier_nbd *t, struct nbd_handle *h)
{
	unsigned int dir = nbd.aio_get_direction(h);
	struct pollfd p[2] = {
		{ .fd = nbd.aio_get_fd(h),
		  .events = (dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
			    (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0) },
		{ .fd = t->wake, .events = POLLIN },
	};

	if (poll(p, 2, 50) <= 0)
		return;
	if (p[0].revents & (POLLIN | POLLHUP | POLLERR) && dir & LIBNBD_AIO_DIRECTION_READ)
		nbd.aio_notify_read(h);
	else if (p[0].revents & (POLLOUT | POLLHUP | POLLERR))
		nbd.aio_notify_write(h);
}

/* Keep what waits for the server meanwhile, which may be a while. */
static bool go_on(struct tier_nbd *t, struct nbd_handle *h, u64 deadline)
{
	bool stop;

	pthread_mutex_lock(&t->lock);
	if (t->running && !t->h)
		expire(t);
	stop = t->stop;
	pthread_mutex_unlock(&t->lock);
	if (stop || nbd.aio_is_dead(h) || nbd.aio_is_closed(h)) {
		errno = ECONNRESET;
		return false;
	}
	if (now_ns() > deadline) {
		errno = ETIMEDOUT;
		return false;
	}
	return true;
}

static int single_done(void *arg, int *error)
{
	struct single *s = arg;

	s->error = *error;
	s->done = true;
	return 1;
}

/*
 * One command on a connection nobody else has; of bytes, not slots.  0, or
 * -errno; after -ETIMEDOUT or -ECONNRESET @h is to be closed before @data goes.
 */
static int single(struct tier_nbd *t, struct nbd_handle *h, enum op op, void *data, u64 len, u64 at)
{
	struct single s = { 0 };
	nbd_completion_callback done = { .callback = single_done, .user_data = &s };
	u64 deadline = now_ns() + t->limit / 4;
	int64_t cookie;

	if (op == READ)
		cookie = nbd.aio_pread(h, data, len, at, done, 0);
	else if (op == WRITE)
		cookie = nbd.aio_pwrite(h, data, len, at, done, 0);
	else
		cookie = nbd.aio_trim(h, len, at, done, 0);
	if (cookie < 0)
		return -ECONNRESET;
	while (!s.done) {
		if (!go_on(t, h, deadline))
			return -errno;
		turn(t, h);
	}
	return s.error == ENOTCONN || s.error == ESHUTDOWN ? -ECONNRESET : -s.error;
}

/* After this error nothing can be had from the connection, and nothing may be asked. */
static bool is_cut_off(int err)
{
	return err == -ETIMEDOUT || err == -ECONNRESET;
}

/* A new connection, or NULL with the reason in @why. */
static struct nbd_handle *dial(struct tier_nbd *t, char *why, size_t len)
{
	u64 deadline = now_ns() + (t->limit / 4 < 10 * SEC ? t->limit / 4 : 10 * SEC);
	struct nbd_handle *h = nbd.create();
	bool ok;

	if (!h) {
		snprintf(why, len, "%s", nbd_why());
		return NULL;
	}
	ok = !nbd.set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP |
						      LIBNBD_ALLOW_TRANSPORT_UNIX) &&
	     !nbd.set_uri_allow_tls(h, LIBNBD_TLS_DISABLE) && !nbd.set_pread_initialize(h, false) &&
	     !nbd.aio_connect_uri(h, t->uri);
	while (ok && !nbd.aio_is_ready(h)) {
		turn(t, h);
		ok = go_on(t, h, deadline);
	}
	if (ok)
		return h;
	snprintf(why, len, "%s",
		 errno == ETIMEDOUT && now_ns() > deadline ? "no answer" : nbd_why());
	nbd.close(h);
	return NULL;
}

/* As head_read_t. */
struct store {
	struct tier_nbd *tier;
	struct nbd_handle *h;
};

static ssize_t read_at(void *arg, void *buf, size_t len, u64 pos)
{
	struct store *s = arg;
	size_t most = s->tier->max_pages * SWAP_PAGE_SIZE;
	int ret = 0;

	if (pos + len > s->tier->size)
		len = s->tier->size - pos;
	for (size_t done = 0, n; done < len && !ret; done += n) {
		n = len - done < most ? len - done : most;
		ret = single(s->tier, s->h, READ, (char *)buf + done, n, pos + done);
	}
	errno = -ret;
	return ret ? -1 : (ssize_t)len;
}

/* ---- who uses the export --------------------------------------------- */

static bool is_nobody(const struct owner *o)
{
	static const unsigned char zero[sizeof(o->id)];

	return !memcmp(o->id, zero, sizeof(zero));
}

/*
 * One who was stopped about to say that it is his says so when he goes on.  Whom we have
 * taken it from we take it from again, and next time he looks he knows.
 */
static bool is_another(const struct tier_nbd *t, const struct owner *o)
{
	return !is_nobody(o) && memcmp(o->id, t->id, sizeof(t->id)) != 0 &&
	       memcmp(o->id, t->past, sizeof(t->past)) != 0;
}

/* Make the export ours if it is nobody's.  Returns 0, -EBUSY, or as single(). */
static int claim(struct tier_nbd *t, struct nbd_handle *h)
{
	struct owner *o = &t->owner.owner, before = { .beat = 0 };
	u64 end = now_ns() + SILENCE;
	int ret;

	for (;;) {
		ret = single(t, h, READ, &t->owner, sizeof(t->owner), OWNER_AT);
		if (ret)
			return ret;
		if (is_nobody(o))
			break;
		if (!is_nobody(&before) && memcmp(o, &before, sizeof(before)) != 0)
			return -EBUSY;
		if (now_ns() > end)
			break;
		before = *o;
		usleep(100000);
	}
	if (getrandom(t->id, sizeof(t->id), 0) != sizeof(t->id))
		return -EIO;
	memset(&t->owner, 0, sizeof(t->owner));
	memcpy(o->id, t->id, sizeof(t->id));
	ret = single(t, h, WRITE, &t->owner, sizeof(t->owner), OWNER_AT);
	if (ret)
		return ret;
	/* Another may have found it free, too: it is whose word stays. */
	usleep(SETTLE / 1000);
	t->sure = now_ns();
	ret = single(t, h, READ, &t->owner, sizeof(t->owner), OWNER_AT);
	if (!ret && is_another(t, o))
		return -EBUSY;
	memcpy(t->past, before.id, sizeof(t->past));
	return ret;
}

/* The export is nobody's.  As single(). */
static int disown(struct tier_nbd *t, struct nbd_handle *h)
{
	memset(&t->owner, 0, sizeof(t->owner));
	return single(t, h, WRITE, &t->owner, sizeof(t->owner), OWNER_AT);
}

/*
 * Say that the export is ours, if it is time.  Returns false when it is not any
 * more.  The lock is held.
 */
static bool beat(struct tier_nbd *t)
{
	nbd_completion_callback done = { .callback = single_done, .user_data = &t->beat };
	struct owner *o = &t->owner.owner;
	enum beating was = t->beating;
	int64_t cookie;

	if (was == RESTING ? now_ns() < t->next_beat : !t->beat.done)
		return true;
	t->beating = RESTING;
	t->next_beat = now_ns() + BEAT;
	if (was == LOOKING && !t->beat.error && is_another(t, o))
		return false;
	/* A server that cannot say whose it is did not let another have it, either. */
	if (was != RESTING)
		t->sure = t->beat_sent;
	/* Stopped before we said so: it may have been another's, who has to say it, too. */
	if (was == SAYING && !is_sure(t))
		t->next_beat += BEAT;
	if (was == SAYING || (was == LOOKING && t->beat.error))
		return true;
	t->beat = (struct single){ 0 };
	t->beat_sent = now_ns();
	/* Stopped since we looked: another may have come. */
	if (was == RESTING || !is_sure(t)) {
		t->beating = LOOKING;
		cookie = nbd.aio_pread(t->h, &t->owner, sizeof(t->owner), OWNER_AT, done, 0);
	} else {
		t->beating = SAYING;
		memcpy(o->id, t->id, sizeof(t->id));
		o->beat++;
		cookie = nbd.aio_pwrite(t->h, &t->owner, sizeof(t->owner), OWNER_AT, done, 0);
	}
	if (cookie < 0)
		t->broken = true;
	return true;
}

/* The server is back when it answers, and the export is what it was. */
static struct nbd_handle *dial_again(struct tier_nbd *t)
{
	char why[256];
	struct nbd_handle *h = dial(t, why, sizeof(why));
	int64_t size;
	bool same;
	int ret;

	if (!h)
		return NULL;
	size = nbd.get_size(h);
	ret = size < 0 || (u64)size < t->size || nbd.is_read_only(h) != 0 ?
		      -ECONNRESET :
		      single(t, h, READ, t->head_now, SWAP_PAGE_SIZE, 0);
	same = ret || !memcmp(t->head_now, t->head, SWAP_PAGE_SIZE);
	if (!is_cut_off(ret)) {
		t->sure = now_ns();
		ret = single(t, h, READ, &t->owner, sizeof(t->owner), OWNER_AT);
		pthread_mutex_lock(&t->lock);
		t->taken = !ret && is_another(t, &t->owner.owner);
		pthread_mutex_unlock(&t->lock);
	}
	/* Any answer is a sign of life. */
	if (is_cut_off(ret) || t->taken) {
		nbd.close(h);
		return NULL;
	}
	pr_warn("tier %s: the server is back%s\n", t->uri,
		same ? "" : ", but not what was on it: those pages are lost");
	return h;
}

/* The connection is of no use any more.  The lock is held. */
static void hang_up(struct tier_nbd *t, const char *why)
{
	u64 now = now_ns();

	if (!t->stop && !t->taken)
		pr_warn("tier %s: %s: its pages wait for the server, up to %llu s\n", t->uri, why,
			t->limit / SEC);
	nbd.close(t->h);
	t->h = NULL;
	__atomic_store_n(&t->away, true, __ATOMIC_RELAXED);
	t->broken = false;
	t->beating = RESTING;
	t->lost_at = now;
	for (unsigned int i = 0; i < MAX_CMDS; i++) {
		struct cmd *cmd = &t->cmd[i];

		if (cmd->state != SENT)
			continue;
		cmd->state = QUEUED;
		if (cmd->op == TRIM) {
			late_add(t, cmd);
			cmd_finish(cmd, 0);
		} else if (now - cmd->asked >= t->limit) {
			cmd_finish(cmd, -ETIMEDOUT);
		}
	}
	expire(t);
}

/* What the server can do, or its successor. */
static void learn(struct tier_nbd *t, struct nbd_handle *h)
{
	int64_t most = nbd.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	t->max_pages = CMD_PAGES;
	if (most > 0 && (u64)most / SWAP_PAGE_SIZE < CMD_PAGES)
		t->max_pages = most < (int64_t)SWAP_PAGE_SIZE ? 1 : most / SWAP_PAGE_SIZE;
	t->can_trim = nbd.can_trim(h) > 0;
}

/* The lock is held. */
static void pick_up(struct tier_nbd *t, struct nbd_handle *h)
{
	t->h = h;
	learn(t, h);
	t->gave_up = false;
	t->heard = now_ns();
	__atomic_store_n(&t->away, false, __ATOMIC_RELAXED);
	send_queued(t);
}

/*
 * Is there a command that should have been answered?  A TRIM may take long: while beats
 * are answered that means nothing.  The lock is held.
 */
static bool hangs(struct tier_nbd *t)
{
	u64 now = now_ns();

	for (unsigned int i = 0; i < MAX_CMDS; i++) {
		struct cmd *cmd = &t->cmd[i];
		u64 from = cmd->state == SENT ? cmd->sent : cmd->asked;

		from = from > t->heard ? from : t->heard;
		if (is_trim(cmd) && t->sure + SILENCE > from)
			from = t->sure + SILENCE;
		if (cmd->state != IDLE &&
		    ((now > from && now - from > t->limit / 4) ||
		     (!is_trim(cmd) && now > cmd->asked && now - cmd->asked > t->limit)))
			return true;
	}
	return false;
}

/* Take in what comes until the connection has ended, or all has. */
static void serve(struct tier_nbd *t)
{
	eventfd_t n;
	u64 until;

	while (!t->stop) {
		unsigned int dir = nbd.aio_get_direction(t->h);
		struct pollfd p[2] = {
			{ .fd = nbd.aio_get_fd(t->h),
			  .events = (dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				    (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0) },
			{ .fd = t->wake, .events = POLLIN },
		};
		int ret;

		until = now_ns() + t->limit / 16;
		if (t->beating == RESTING && t->next_beat < until)
			until = t->next_beat;
		pthread_mutex_unlock(&t->lock);
		ret = poll(p, 2, until > now_ns() ? (int)((until - now_ns()) / MS) + 1 : 0);
		if (ret > 0 && p[1].revents)
			eventfd_read(t->wake, &n);
		pthread_mutex_lock(&t->lock);
		/* What libnbd waits for may have changed meanwhile; it asks the socket itself. */
		if (ret > 0 && p[0].revents & (POLLIN | POLLHUP | POLLERR))
			nbd.aio_notify_read(t->h);
		if (ret > 0 && p[0].revents & POLLOUT)
			nbd.aio_notify_write(t->h);
		if (t->broken || nbd.aio_is_dead(t->h) || nbd.aio_is_closed(t->h)) {
			hang_up(t, "connection lost");
			return;
		}
		if (!beat(t)) {
			t->taken = true;
			hang_up(t, NULL);
			return;
		}
		send_queued(t);
		if (hangs(t)) {
			hang_up(t, "the server does not answer");
			return;
		}
	}
}

static void *nbd_main(void *arg)
{
	struct tier_nbd *t = arg;
	u64 most = t->limit / 16 < 2 * SEC ? t->limit / 16 : 2 * SEC, pause = 0, began;
	struct pollfd p = { .fd = t->wake, .events = POLLIN };
	struct nbd_handle *h;
	eventfd_t n;

	prctl(PR_SET_NAME, "vswap-nbd");
	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		if (t->h) {
			began = now_ns();
			serve(t);
			/* One that comes only to go again is not called ever so often. */
			if (!pause || now_ns() - began > SEC)
				pause = 50 * MS;
			continue;
		}
		pthread_mutex_unlock(&t->lock);
		if (poll(&p, 1, t->taken ? -1 : (int)(pause / MS)) > 0)
			eventfd_read(t->wake, &n);
		pause = pause * 2 < most ? pause * 2 : most;
		h = t->taken ? NULL : dial_again(t);
		pthread_mutex_lock(&t->lock);
		if (h)
			pick_up(t, h);
		else
			expire(t);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* ---- coming and going ------------------------------------------------ */

bool tier_nbd_uri(const char *path)
{
	return !strncmp(path, "nbd://", 6) || !strncmp(path, "nbd+unix://", 11);
}

/* May the export be used?  Returns 0, or -1 with @err filled. */
static int look_over(struct tier_nbd *t, struct nbd_handle *h, u64 size, char *err, size_t len)
{
	int64_t have = nbd.get_size(h), block = nbd.get_block_size(h, LIBNBD_SIZE_MINIMUM);
	struct store s = { t, h };
	enum head_content what;
	char a[32], b[32];
	bool claimed;
	int ret;

	if (have < 0)
		return tier_say(err, len, EINVAL, "tier %s: %s (name another export)", t->uri,
				nbd_why());
	if (nbd.is_read_only(h) != 0)
		return tier_say(err, len, EROFS,
				"tier %s: the export is read-only (name one that can be written)",
				t->uri);
	if (block > (int64_t)SWAP_PAGE_SIZE)
		return tier_say(err, len, EINVAL,
				"tier %s: its blocks are of %s, larger than a page (name another)",
				t->uri, tier_human((u64)block, a));
	t->size = (size ? size : (u64)have) & ~(u64)(SWAP_PAGE_SIZE - 1);
	if (t->size < TIER_FILE_MIN)
		return tier_say(err, len, EINVAL, "tier %s: %s is too small (at least %s)", t->uri,
				tier_human(size ? size : (u64)have, a),
				tier_human(TIER_FILE_MIN, b));
	if (t->size > (u64)have)
		return tier_say(err, len, EINVAL, "tier %s: has only %s (give a smaller size=)",
				t->uri, tier_human((u64)have, a));
	learn(t, h);
	what = head_look(read_at, &s, t->size);
	switch (what) {
	case HEAD_UNREADABLE:
		return tier_say(err, len, errno,
				"tier %s: cannot be read: %s (name another export)", t->uri,
				strerror(errno));
	case HEAD_DATA:
		return tier_say(err, len, EINVAL,
				"tier %s: holds data (name an export that is empty, or mkswap it)",
				t->uri);
	default:
		break;
	}
	ret = claim(t, h);
	if (ret == -EBUSY)
		return tier_say(err, len, EBUSY,
				"tier %s: in use by another vswap (give each its own)", t->uri);
	claimed = !ret;
	if (!ret && what == HEAD_SWAP) {
		ret = single(t, h, READ, t->head, SWAP_PAGE_SIZE, 0);
	} else if (!ret) {
		head_page(t->head);
		ret = single(t, h, WRITE, t->head, SWAP_PAGE_SIZE, 0);
	}
	/* Ours it was for a moment. */
	if (ret && claimed && !is_cut_off(ret))
		disown(t, h);
	if (ret)
		return tier_say(err, len, -ret,
				"tier %s: cannot be written: %s (name another export)", t->uri,
				strerror(-ret));
	return 0;
}

static int start_thread(struct tier_nbd *t)
{
	sigset_t all, old;
	int ret;

	t->running = true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&t->thread, NULL, nbd_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		t->running = false;
	return ret;
}

static struct tier_nbd *nbd_new(const char *uri, unsigned int timeout)
{
	struct tier_nbd *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->limit = (timeout ? timeout : TIER_NBD_TIMEOUT) * SEC;
	t->uri = strdup(uri);
	t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Takes memory only as far as it is used. */
	t->buffers = mmap(NULL, NR_BUFFERS * JOINED_PAGES * SWAP_PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->idle, NULL);
	if (t->uri && t->wake >= 0 && t->buffers != MAP_FAILED)
		return t;
	tier_nbd_close(t);
	return NULL;
}

struct tier_nbd *tier_nbd_open(const char *uri, u64 size, unsigned int timeout, char *err,
			       size_t errlen)
{
	const char *missing = load_libnbd();
	struct tier_nbd *t = NULL;
	char why[256];
	int ret;

	if (missing) {
		tier_say(err, errlen, ENOSYS, "tier %s: libnbd: %s (install libnbd0)", uri,
			 missing);
		return NULL;
	}
	t = nbd_new(uri, timeout);
	if (!t) {
		tier_say(err, errlen, ENOMEM, "tier %s: %s", uri, strerror(ENOMEM));
		return NULL;
	}
	t->h = dial(t, why, sizeof(why));
	if (!t->h) {
		tier_say(err, errlen, ENOTCONN,
			 "tier %s: %s (is the server running, the address right?)", uri, why);
		goto fail;
	}
	if (look_over(t, t->h, size, err, errlen))
		goto fail;
	t->opened = true;
	ret = start_thread(t);
	if (!ret)
		return t;
	tier_say(err, errlen, ret, "tier %s: %s (see 'ulimit -u')", uri, strerror(ret));
fail:
	tier_nbd_close(t);
	return NULL;
}

/*
 * Give back what the server keeps for us, and the export if it is ours still; for that
 * there is a second or so.  Has all been answered?
 */
static bool leave(struct tier_nbd *t)
{
	u64 deadline = now_ns() + SEC, n;
	int ret;

	/* What was left half done must not come after this. */
	while ((t->beating != RESTING && !t->beat.done) || nr_trims(t)) {
		if (!go_on(t, t->h, deadline))
			return false;
		turn(t, t->h);
	}
	t->sure = now_ns();
	ret = single(t, t->h, READ, &t->owner, sizeof(t->owner), OWNER_AT);
	if (ret || is_another(t, &t->owner.owner))
		return !is_cut_off(ret);
	for (u64 at = HEAD_BYTES; t->can_trim && at < t->size && now_ns() < deadline; at += n) {
		n = t->size - at < TRIM_BYTES ? t->size - at : TRIM_BYTES;
		ret = single(t, t->h, TRIM, NULL, n, at);
		if (ret)
			return !is_cut_off(ret);
	}
	return !is_sure(t) || !is_cut_off(disown(t, t->h));
}

void tier_nbd_close(struct tier_nbd *t)
{
	int why = errno; /* of one that could not be opened */

	if (!t)
		return;
	if (t->running) {
		pthread_mutex_lock(&t->lock);
		t->stop = true;
		pthread_mutex_unlock(&t->lock);
		wake_thread(t);
		pthread_join(t->thread, NULL);
		t->running = false;
		t->stop = false;
	}
	if (t->h) {
		t->limit = 4 * SEC;
		/* Politely, unless an answer that comes now would be to memory that is gone. */
		if (t->opened && leave(t))
			nbd.aio_disconnect(t->h, 0);
		nbd.close(t->h);
	}
	if (t->buffers != MAP_FAILED)
		munmap(t->buffers, NR_BUFFERS * JOINED_PAGES * SWAP_PAGE_SIZE);
	if (t->wake >= 0)
		close(t->wake);
	pthread_cond_destroy(&t->idle);
	pthread_mutex_destroy(&t->lock);
	free(t->uri);
	free(t);
	errno = why;
}

u64 tier_nbd_slots(const struct tier_nbd *t)
{
	return (t->size - HEAD_BYTES) / SWAP_PAGE_SIZE;
}

const char *tier_nbd_name(const struct tier_nbd *t)
{
	return t->uri;
}

/* ---- ops ------------------------------------------------------------- */

static void nbd_write(void *priv, struct swap_io *io, unsigned int nr)
{
	run(priv, WRITE, io, nr);
}

/* What failed is read once more, page by page: a bad one takes no neighbour along. */
static void nbd_read(void *priv, struct swap_io *io, unsigned int nr)
{
	run(priv, READ, io, nr);
	for (unsigned int i = 0; i < nr; i++)
		if (io[i].error && io[i].error != -ETIMEDOUT)
			run(priv, READ, io + i, 1);
}

/* Advice: not worth waiting for a server, nor for long for one that is there. */
static int nbd_discard(void *priv, u64 slot, u64 nr)
{
	struct tier_nbd *t = priv;
	struct batch batch = { .pending = 1, .done = PTHREAD_COND_INITIALIZER };
	struct cmd *cmd = NULL;
	u64 asked;
	bool late;

	pthread_mutex_lock(&t->lock);
	if (t->can_trim && !is_late(t, slot, nr))
		cmd = cmd_get(t, TRIM, 0);
	if (cmd && is_sure(t) && late_room(t)) {
		asked = now_ns();
		*cmd = (struct cmd){
			.op = TRIM,
			.tier = t,
			.batch = &batch,
			.slot = slot,
			.nr = nr,
			.buffer = -1,
			.asked = asked,
		};
		cmd_send(cmd);
		while (batch.pending && now_ns() - asked <= t->limit / 4)
			wait_on(t, &batch.done);
		/* A server that takes so long for one is not asked for more. */
		if (batch.pending) {
			cmd->batch = NULL;
			t->can_trim = false;
		}
	}
	late = is_late(t, slot, nr);
	pthread_mutex_unlock(&t->lock);
	return late ? -EAGAIN : 0;
}

static bool nbd_away(void *priv)
{
	struct tier_nbd *t = priv;

	return __atomic_load_n(&t->away, __ATOMIC_RELAXED);
}

const struct swap_tier_ops tier_nbd_ops = {
	.write = nbd_write,
	.read = nbd_read,
	.discard = nbd_discard,
	.away = nbd_away,
};
