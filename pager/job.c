// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "job.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "control.h"
#include "group.h"
#include "state.h"

#define ARRIVAL_NS  10000000000ULL /* from exec to the agent's call */
#define EXEC_NS	    1000000000ULL  /* of that, without an environment */
#define GREETING_NS 10000000000ULL
#define CALLERS_MS  1000
#define LINGER_MS   2
#define BATCH_NS    10000000000ULL /* /proc may be read meanwhile, which keeps a memory, too */

/* Locks: jobs.lock -> the list of clients. */
static struct {
	pthread_mutex_t lock;
	struct job *list;
	unsigned int nr;
} jobs = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint64_t boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static int listen_at(const struct sockaddr_un *addr, unsigned int len)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd < 0)
		return -errno;
	/* The mode bind() makes a path with. */
	if (!fchmod(fd, 0600) && !bind(fd, (const struct sockaddr *)addr, len) && !listen(fd, 16))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int listen_for_agents(struct job *job)
{
	unsigned long long secret[5];
	char dir[sizeof(job->where.path.sun_path)];
	int len;

	if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
		return -EIO;
	/* Every user may read the names of all sockets, so the key is not part of it. */
	len = snprintf(job->name, sizeof(job->name), "vswap-%d-%016llx%016llx:%016llx%016llx",
		       getpid(), secret[0], secret[1], secret[2], secret[3]);
	/*
	 * Without a path it is as well, but for other network namespaces.  In another of processes
	 * another vswap has our number.  The agents' shells quote it.
	 */
	if (!control_make_dir(dir, sizeof(dir)) && !strchr(dir, '\''))
		snprintf(job->name + len, sizeof(job->name) - len, ":%s/%d.%016llx", dir, getpid(),
			 secret[4]);
	if (!wire_where(job->name, &job->where)) {
		job->name[len] = 0;
		wire_where(job->name, &job->where);
	}
	job->listener = listen_at(&job->where.name, job->where.name_len);
	if (job->listener < 0)
		return job->listener;
	if (job->where.path_len)
		job->beside = listen_at(&job->where.path, job->where.path_len);
	return 0;
}

/* Descriptors to kill by, which may be for the lack of any. */
static int spare[2] = { -1, -1 };

static void spares_keep(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		fd = __atomic_exchange_n(&spare[i], fd, __ATOMIC_RELAXED);
		if (fd >= 0)
			close(fd);
	}
}

static void spares_give(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		int fd = __atomic_exchange_n(&spare[i], -1, __ATOMIC_RELAXED);

		if (fd >= 0)
			close(fd);
	}
}

struct job *job_create(struct group *group)
{
	struct job *job = calloc(1, sizeof(*job));
	int ret;

	if (!job)
		return NULL;
	job->ref = 1;
	job->start_ns = boot_ns();
	job->runner = job->listener = job->beside = -1;
	ret = listen_for_agents(job);
	if (ret) {
		free(job);
		errno = -ret;
		return NULL;
	}
	spares_keep();
	group_get(group);
	job->group = group;
	pthread_mutex_lock(&jobs.lock);
	job->next = jobs.list;
	jobs.list = job;
	jobs.nr++;
	pthread_mutex_unlock(&jobs.lock);
	return job;
}

void job_get(struct job *job)
{
	__atomic_add_fetch(&job->ref, 1, __ATOMIC_RELAXED);
}

void job_put(struct job *job)
{
	bool last;

	/* Under the lock, so that who goes through the list finds none with a count of 0. */
	pthread_mutex_lock(&jobs.lock);
	last = !__atomic_sub_fetch(&job->ref, 1, __ATOMIC_ACQ_REL);
	if (last)
		for (struct job **p = &jobs.list; *p; p = &(*p)->next)
			if (*p == job) {
				*p = job->next;
				jobs.nr--;
				break;
			}
	pthread_mutex_unlock(&jobs.lock);
	if (!last)
		return;
	job_close(job);
	if (job->runner >= 0)
		close(job->runner);
	group_put(job->group);
	free(job);
}

void job_close(struct job *job)
{
	if (job->listener >= 0)
		close(job->listener);
	if (job->beside >= 0) {
		unlink(job->where.path.sun_path);
		close(job->beside);
	}
	job->listener = job->beside = -1;
	while (job->nr_callers)
		close(job->caller[--job->nr_callers].sock);
}

bool job_knows(const struct job *job, const char key[WIRE_KEY])
{
	char differs = 0;

	/* In the same time wherever they differ. */
	for (unsigned int i = 0; i < WIRE_KEY; i++)
		differs |= job->where.key[i] ^ key[i];
	return !differs;
}

unsigned int jobs_count(void)
{
	unsigned int n;

	pthread_mutex_lock(&jobs.lock);
	n = jobs.nr;
	pthread_mutex_unlock(&jobs.lock);
	return n;
}

unsigned int jobs_in(const struct group *group)
{
	unsigned int n = 0;

	pthread_mutex_lock(&jobs.lock);
	for (struct job *job = jobs.list; job; job = job->next)
		n += group_is_in(job->group, group);
	pthread_mutex_unlock(&jobs.lock);
	return n;
}

/* ---- its processes ------------------------------------------------------ */

char *read_all(int fd, size_t *bytes)
{
	size_t n = 0, max = 16 << 10;
	char *text = malloc(max + 1), *more;
	ssize_t got = 0;
	int err = 0;

	while (text && (got = read(fd, text + n, max - n)) > 0) {
		n += got;
		if (n < max)
			continue;
		more = realloc(text, 2 * max + 1);
		if (!more) {
			got = -1;
			break;
		}
		text = more;
		max *= 2;
	}
	if (!text || got < 0)
		err = errno;
	if (err) {
		free(text);
		errno = err;
		return NULL;
	}
	text[n] = 0;
	*bytes = n;
	return text;
}

/* The same of a file of a process. */
static char *slurp(const char *pid, const char *name, size_t *bytes)
{
	char path[64], *text;
	int fd, err;

	snprintf(path, sizeof(path), "/proc/%.20s/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	text = read_all(fd, bytes);
	err = errno;
	close(fd);
	errno = err;
	return text;
}

/* In the environment of whose processes the variable stands. */
enum whose {
	NOBODYS,
	ANOTHERS,
	OURS,
};

static enum whose whose_env(const struct job *job, const char *env, size_t bytes)
{
	char var[sizeof(WIRE_ENV "=") + JOB_NAME];
	/* With the NUL that ends it. */
	int len = snprintf(var, sizeof(var), WIRE_ENV "=%s", job->name) + 1;

	if (memmem(env, bytes, var, len))
		return OURS;
	return memmem(env, bytes, WIRE_ENV "=", strlen(WIRE_ENV "=")) ? ANOTHERS : NOBODYS;
}

/* ---- killing ----------------------------------------------------------- */

/*
 * Is it one of @job, by where the agent lies in it?  By its environment, too, while that
 * is to be read and was not written over.
 */
static bool is_at_home(const struct job *job, const char *pid, const struct home *home,
		       unsigned int n)
{
	char *text, code[40], area[40];
	size_t bytes;
	bool ours = true;

	text = slurp(pid, "environ", &bytes);
	if (text)
		ours = whose_env(job, text, bytes) != ANOTHERS;
	free(text);
	text = ours ? slurp(pid, "maps", &bytes) : NULL;
	ours = false;
	if (text && strstr(text, "vswap-agent.so"))
		for (unsigned int i = 0; i < n && !ours; i++) {
			snprintf(code, sizeof(code), "\n%llx-", (unsigned long long)home[i].code);
			snprintf(area, sizeof(area), "\n%llx-", (unsigned long long)home[i].area);
			ours = strstr(text, code) && strstr(text, area);
		}
	free(text);
	return ours;
}

/*
 * Of a forked child without an agent no number is known: what faults tell is of its own
 * namespace, and one that has not faulted told none.
 */
static void kill_unknown(const struct job *job)
{
	struct home home[MAX_CLIENTS];
	unsigned int n = clients_homes(job, home);
	struct dirent *d;
	DIR *dir;
	pid_t pid;

	if (!n)
		return;
	spares_give();
	dir = opendir("/proc");
	while (dir && (d = readdir(dir))) {
		pid = atoi(d->d_name);
		if (pid > 1 && pid != getpid() && is_at_home(job, d->d_name, home, n))
			kill(pid, SIGKILL);
	}
	if (dir)
		closedir(dir);
	spares_keep();
}

/* Children first, as the agent does. */
static void kill_all(const struct job *job)
{
	pid_t pid = __atomic_load_n(&job->pid, __ATOMIC_RELAXED);

	kill_unknown(job);
	if (pid > 0)
		kill(pid, SIGKILL);
	clients_kill(job);
}

bool job_busy(struct job *job)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);
	bool busy = clients_lost(job);

	for (unsigned int i = 0; i < n; i++) {
		busy |= list[i]->job == job;
		client_put(list[i]);
	}
	/* Some may have been forked meanwhile, or had no descriptor left to be found by. */
	if (busy && __atomic_load_n(&job->killed, __ATOMIC_RELAXED))
		kill_all(job);
	return busy;
}

/* ---- those on their way ----------------------------------------------- */

/*
 * A client that execs is one no more until the agent in its new program calls, and a child
 * that execs at once never was: nobody tells of them but their environment, where the agent
 * finds whom to call.
 */

/*
 * In the midst of exec a process has memory and no environment yet.  Those started before
 * the job are none of it.
 */
static bool in_exec(const struct job *job, const char *pid)
{
	unsigned long long ticks = 0;
	unsigned long size = 0;
	size_t bytes;
	char *stat = slurp(pid, "stat", &bytes), *p = stat ? strrchr(stat, ')') : NULL;
	bool ret = p &&
		   sscanf(p + 1,
			  " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
			  "%*d %*d %llu %lu",
			  &ticks, &size) == 2 &&
		   size && (ticks + 1) * (1000000000ULL / sysconf(_SC_CLK_TCK)) >= job->start_ns;

	free(stat);
	return ret;
}

/* A static program has no agent to come. */
static bool has_loader(const char *pid)
{
	size_t bytes;
	char *maps = slurp(pid, "maps", &bytes);
	bool ret = maps && strstr(maps, "/ld-linux");

	free(maps);
	return ret;
}

static bool on_its_way(const struct job *job, const char *pid)
{
	size_t bytes;
	char *env = slurp(pid, "environ", &bytes);
	bool ret;

	/* It is out: that of another job's, or of a client until just now. */
	if (!env)
		return errno == EIO && atoi(pid) == job->hung_up;
	if (!bytes)
		ret = now_ns() < job->quiet_ns + EXEC_NS && in_exec(job, pid);
	else
		ret = whose_env(job, env, bytes) == OURS && has_loader(pid);
	free(env);
	return ret;
}

static bool any_on_its_way(const struct job *job)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;
	bool any = false;

	while (dir && !any && (d = readdir(dir)))
		any = isdigit((unsigned char)*d->d_name) && on_its_way(job, d->d_name);
	if (dir)
		closedir(dir);
	return any;
}

bool job_goes_on(struct job *job)
{
	if (job_busy(job)) {
		job->quiet_ns = 0;
		return true;
	}
	if (!job->quiet_ns)
		job->quiet_ns = now_ns();
	/* In vain: it is setuid, or another libc's. */
	return now_ns() < job->quiet_ns + ARRIVAL_NS && any_on_its_way(job);
}

/* ---- words and death -------------------------------------------------- */

static void say(struct job *job, const char *line)
{
	struct job_msg msg = { .type = JOB_MSG_SAY };
	int runner = __atomic_load_n(&job->runner, __ATOMIC_ACQUIRE);

	if (runner < 0) {
		pager_say("%s", line);
		return;
	}
	snprintf(msg.text, sizeof(msg.text), "%s", line);
	/* One that stalls goes without: nobody here waits for it. */
	send(runner, &msg, sizeof(msg), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void job_say(struct job *job, const char *fmt, ...)
{
	char line[900];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	say(job, line);
}

static void die(struct job *job, const char *line)
{
	if (!__atomic_exchange_n(&job->killed, true, __ATOMIC_RELAXED))
		say(job, line);
	kill_all(job);
}

void job_kill(struct job *job, const char *fmt, ...)
{
	char line[900];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	die(job, line);
}

void jobs_kill(const char *fmt, ...)
{
	char line[900];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&jobs.lock);
	for (struct job *job = jobs.list; job; job = job->next)
		die(job, line);
	pthread_mutex_unlock(&jobs.lock);
}

/* ---- agents ----------------------------------------------------------- */

/* Caller @i has been heard, or is not to be. */
static void forget_caller(struct job *job, unsigned int i)
{
	job->nr_callers--;
	memmove(job->caller + i, job->caller + i + 1, (job->nr_callers - i) * sizeof(*job->caller));
}

/*
 * A connection is waiting.  Anybody may connect: who says nothing is to hold up none.
 */
static void take_caller(struct job *job, int listener)
{
	int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	/* It would be told of for ever. */
	if (sock < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		job_kill(job,
			 "an agent cannot be heard: %s: killed (raise the limit on open files, "
			 "'ulimit -Hn', or free memory)",
			 strerror(errno));
	if (sock < 0)
		return;
	if (job->nr_callers == JOB_CALLERS) {
		close(job->caller[0].sock);
		forget_caller(job, 0);
	}
	job->caller[job->nr_callers++] = (struct caller){ sock, now_ns() };
}

/*
 * The agent of the program, of what it execs, or of a child has something to say, or
 * somebody has who only knows the name.  What cannot be managed must not run: its memory
 * would have no limit.
 */
static int answer(struct job *job, int sock)
{
	struct wire_msg hello;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int uffd, ret = client_receive(sock, &hello, &uffd);

	/*
	 * It has ended, or called exec() before its agent had said a word: what it is by now
	 * calls us itself, and is not to be killed for that.
	 */
	if (ret || !job_knows(job, hello.key) ||
	    getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		if (uffd >= 0)
			close(uffd);
		close(sock);
		return 0;
	}
	/* The program itself is the first; once it has ended the number may be another's. */
	if (!job->has_begun && !job->pid)
		__atomic_store_n(&job->pid, cred.pid, __ATOMIC_RELAXED);
	job->has_begun = true;
	ret = client_accept(job, sock, cred.pid, &hello, uffd);
	if (ret && ret != -ENOENT && cred.pid > 0)
		kill(cred.pid, SIGKILL);
	if (ret)
		close(sock);
	return !ret ? JOB_CLIENT : ret == -ENOENT ? 0 : JOB_REFUSE;
}

/* @p is what poll() said of each. */
static int hear_callers(struct job *job, const struct pollfd *p)
{
	unsigned int n = job->nr_callers;
	int seen = 0;

	for (unsigned int i = 0, at = 0; i < n; i++) {
		struct caller c = job->caller[at];

		if (p[i].revents) {
			forget_caller(job, at);
			seen |= answer(job, c.sock);
		} else if (now_ns() > c.since_ns + GREETING_NS) {
			forget_caller(job, at);
			close(c.sock);
		} else {
			at++;
		}
	}
	return seen;
}

/*
 * The agent of @c is gone: its process has ended, or became another program by exec.  But
 * the memory is that of a child of vfork(2) or posix_spawn(3) as well until that execs, and
 * is served for as long.
 */
static void hang_up(struct job *job, struct client *c)
{
	if (!client_lingers(c))
		job->hung_up = client_pid(c);
	if (client_gone(c))
		client_dead(c);
	else if (!client_linger(c, BATCH_NS))
		job_kill(job, "a process was killed while its memory was evicted, which a child of "
			      "vfork() uses still: killed");
}

int job_turn(struct job *job, int fd, int ms)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS), nr = 0;
	struct pollfd p[3 + JOB_CALLERS + MAX_CLIENTS] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = job->listener, .events = POLLIN },
		{ .fd = job->beside, .events = POLLIN },
	};
	struct pollfd *callers = p + 3, *agents = callers + job->nr_callers;
	int ready, seen = 0;

	for (unsigned int i = 0; i < n; i++)
		if (list[i]->job != job)
			client_put(list[i]);
		else
			list[nr++] = list[i];
	for (unsigned int i = 0; i < job->nr_callers; i++)
		callers[i] = (struct pollfd){ .fd = job->caller[i].sock, .events = POLLIN };
	/* They have a time limit. */
	if (job->nr_callers && (ms < 0 || ms > CALLERS_MS))
		ms = CALLERS_MS;
	for (unsigned int i = 0; i < nr; i++) {
		bool lingers = client_lingers(list[i]);

		agents[i] = (struct pollfd){ .fd = lingers ? -1 : list[i]->sock };
		if (lingers && (ms < 0 || ms > LINGER_MS))
			ms = LINGER_MS;
	}
	ready = poll(p, agents + nr - p, ms);
	if (ready < 0 && errno != EINTR)
		job_kill(job, "poll: %s: killed", strerror(errno));
	for (unsigned int i = 0; i < nr; i++) {
		if (client_lingers(list[i]) || (ready > 0 && agents[i].revents))
			hang_up(job, list[i]);
		client_put(list[i]);
	}
	if (ready < 0)
		return 0;
	seen |= hear_callers(job, callers);
	if (p[1].revents & POLLIN)
		take_caller(job, job->listener);
	if (p[2].revents & POLLIN)
		take_caller(job, job->beside);
	if (p[0].revents)
		seen |= JOB_INPUT;
	return seen;
}
