// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A space kept for whoever joins.
 *
 * Each job has a thread that accepts its agents and sees its end, so one whose
 * processes stall in the middle of a greeting holds up nobody else.  The run on
 * the other end says when its program has ended; if it is gone without a word,
 * the program goes, too, as it would in a space of its own.
 */
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "job.h"
#include "space.h"
#include "state.h"

#define EXIT_VSWAP 125
#define JOIN_MS	   10000 /* from the answer to the connection of the run */
#define KEY_MS	   1000	 /* from there to its first word */

static struct {
	bool serving; /* atomic, as the next */
	bool closing;
} serve;

/* Is it the run that was told of the job? */
static bool is_runner(const struct job *job, int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct ucred cred;
	struct job_msg msg;
	socklen_t len = sizeof(cred);

	return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) &&
	       (cred.uid == geteuid() || !cred.uid) && poll(&p, 1, KEY_MS) > 0 &&
	       recv(sock, &msg, sizeof(msg), MSG_DONTWAIT) == sizeof(msg) &&
	       msg.type == JOB_MSG_JOIN && job_knows(job, msg.text);
}

/* The first connection is the run's.  False: none came. */
static bool await_runner(struct job *job)
{
	uint64_t deadline = now_ns() + JOIN_MS * 1000000ULL;

	while (now_ns() < deadline && !pager_stopping()) {
		struct pollfd p[2] = { { .fd = job->listener, .events = POLLIN },
				       { .fd = job->beside, .events = POLLIN } };
		int sock;

		if (poll(p, 2, 100) <= 0)
			continue;
		sock = accept4(p[p[1].revents & POLLIN ? 1 : 0].fd, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0)
			continue;
		if (is_runner(job, sock)) {
			__atomic_store_n(&job->runner, sock, __ATOMIC_RELEASE);
			return true;
		}
		close(sock);
	}
	return false;
}

static void tell(struct job *job, enum job_type type)
{
	struct job_msg msg = { .type = type };

	/* One that is gone is noticed by the end of its connection. */
	send(job->runner, &msg, sizeof(msg), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* What the run said.  False: it is gone. */
static bool hear(struct job *job, bool *ended, bool *dumped)
{
	struct job_msg msg;
	ssize_t n = recv(job->runner, &msg, sizeof(msg), MSG_DONTWAIT);

	if (n == sizeof(msg) && (msg.type == JOB_MSG_ENDED || msg.type == JOB_MSG_DUMPED)) {
		*ended = true;
		*dumped = msg.type == JOB_MSG_DUMPED;
		/* Its number may be another's soon. */
		__atomic_store_n(&job->pid, 0, __ATOMIC_RELAXED);
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void *job_main(void *arg)
{
	struct job *job = arg;
	bool here, ended = false, dumped = false, told = false;

	prctl(PR_SET_NAME, "vswap-job");
	here = await_runner(job);
	while (here ? !ended || job_goes_on(job) : job_busy(job)) {
		int seen = job_turn(job, here ? job->runner : -1, here && !ended ? -1 : 50);

		if ((seen & (JOB_CLIENT | JOB_REFUSE)) && !told) {
			tell(job, seen & JOB_CLIENT ? JOB_MSG_CLIENT : JOB_MSG_REFUSE);
			told = true;
		}
		if ((seen & JOB_INPUT) && here && !hear(job, &ended, &dumped)) {
			here = false;
			job_close(job);
			if (job_busy(job))
				job_kill(job, "its vswap run died: killed");
		}
	}
	job_close(job);
	if (dumped)
		coredump_say(job);
	/* Now the run ends as well. */
	if (here)
		shutdown(job->runner, SHUT_RDWR);
	job_put(job);
	return NULL;
}

int serve_join(struct group *group, char *socket)
{
	struct job *job;
	pthread_t thread;
	int ret;

	if (!__atomic_load_n(&serve.serving, __ATOMIC_RELAXED))
		return -ENOTSUP;
	if (__atomic_load_n(&serve.closing, __ATOMIC_RELAXED))
		return -ESHUTDOWN;
	job = job_create(group);
	if (!job)
		return -errno;
	memcpy(socket, job->name, JOB_NAME);
	ret = pthread_create(&thread, NULL, job_main, job);
	if (ret) {
		job_put(job);
		return -ret;
	}
	pthread_detach(thread);
	return 0;
}

/* ---- the life of it ---------------------------------------------------- */

static int block_signals(void)
{
	static const int ours[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };
	sigset_t mask;

	sigemptyset(&mask);
	for (unsigned int i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		sigaddset(&mask, ours[i]);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void begin_end(void)
{
	unsigned int n = jobs_count();

	if (__atomic_exchange_n(&serve.closing, true, __ATOMIC_RELAXED)) {
		jobs_kill("the space was ended: killed");
		return;
	}
	if (n)
		pager_say(
			"%u program%s still run%s here: the space ends with the last of them (send the "
			"signal again to kill them)",
			n, n == 1 ? "" : "s", n == 1 ? "s" : "");
}

static void keep(int sigfd)
{
	struct pollfd p = { .fd = sigfd, .events = POLLIN };
	struct signalfd_siginfo si;

	while (!serve.closing || jobs_count()) {
		poll(&p, 1, serve.closing ? 50 : -1);
		while (read(sigfd, &si, sizeof(si)) == sizeof(si))
			if (si.ssi_signo != SIGPIPE)
				begin_end();
	}
}

int pager_serve(const struct pager_opts *opts)
{
	int sigfd = block_signals(), err, ret = EXIT_VSWAP;

	if (sigfd < 0) {
		pager_say("signalfd: %s (raise ulimit -n)", strerror(errno));
		return EXIT_VSWAP;
	}
	if (!space_open(opts)) {
		__atomic_store_n(&serve.serving, true, __ATOMIC_RELAXED);
		err = space_start();
		if (!err) {
			err = space_listen();
			if (err)
				pager_say(
					"control socket: %s (see docs/control.md for where it is)",
					strerror(-err));
		}
		if (!err) {
			/* Whoever started us may wait for this line. */
			if (pager.name)
				printf("serving %s, pid %d\n", pager.name, getpid());
			else
				printf("serving, pid %d\n", getpid());
			fflush(stdout);
			keep(sigfd);
			ret = 0;
		}
		space_stop();
	}
	space_close();
	return ret;
}
