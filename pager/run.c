// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * One run of one program, from its start to its end.
 *
 * The supervisor stays out of the way: the program has its own copies of the
 * standard files, sits in the same process group and gets what the terminal
 * sends by itself; signals sent to the supervisor alone are passed on.  When
 * the program stops, so does the supervisor, for the shell to see; when it
 * ends, its status becomes ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../agent/wire.h"
#include "client.h"
#include "control.h"
#include "group.h"
#include "job.h"
#include "program.h"
#include "space.h"
#include "state.h"

#define EXIT_VSWAP    125
#define AGENT_NS      10000000000ULL
#define SERVER_END_NS 2000000000ULL /* an agent needs less to see that its server died */

static struct {
	pid_t pid;	    /* the program; 0: it has ended */
	struct job *job;    /* in a space of our own, else NULL */
	int server;	    /* socket of the space we joined, else -1 */
	const char *socket; /* what the program's agents connect to */
	char **environ;	    /* for the program, where it is not ours */
	sigset_t old_mask;
	struct sigaction old_chld;
	struct rlimit files; /* as we were started with */
} run = { .server = -1 };

/* ---- the environment -------------------------------------------------- */

/*
 * Where our file has capabilities the loader took TMPDIR, LD_LIBRARY_PATH and the like
 * out of our environment, for what they could make us do with those.  The program has
 * none of them, and is to have all it would have without us.  Of what was taken we
 * ourselves use TMPDIR, where we may write as our user may, and nothing else.
 */
static void restore_environment(void)
{
	char *text, *end, *p;
	size_t len, nr = 0;
	int fd;

	/* With another's rights it would be for the program, too. */
	if (!getauxval(AT_SECURE) || getuid() != geteuid() || getgid() != getegid())
		return;
	/* Else it is root's to read. */
	prctl(PR_SET_DUMPABLE, 1);
	fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
	prctl(PR_SET_DUMPABLE, 0);
	if (fd < 0)
		return;
	text = read_all(fd, &len);
	close(fd);
	if (!text)
		return;
	end = text + len;
	for (p = text; p < end; p += strlen(p) + 1)
		nr++;
	run.environ = calloc(nr + 1, sizeof(*run.environ));
	nr = 0;
	for (p = text; run.environ && p < end; p += strlen(p) + 1) {
		run.environ[nr++] = p;
		if (!strncmp(p, "TMPDIR=", 7))
			setenv("TMPDIR", p + 7, 1);
	}
}

/* ---- the program ------------------------------------------------------ */

static void child_exec(const struct pager_opts *opts, const char *agent, int report)
{
	char *preload = NULL;
	const char *old;
	int err;

	/* Nothing is called any more that this could lead astray before exec drops capabilities. */
	if (run.environ)
		environ = run.environ;
	old = getenv("LD_PRELOAD");
	sigaction(SIGCHLD, &run.old_chld, NULL);
	sigprocmask(SIG_SETMASK, &run.old_mask, NULL);
	setrlimit(RLIMIT_NOFILE, &run.files);
	if (asprintf(&preload, "%s%s%s", agent, old && *old ? ":" : "", old && *old ? old : "") <
		    0 ||
	    setenv("LD_PRELOAD", preload, 1) || setenv(WIRE_ENV, run.socket, 1))
		err = ENOMEM;
	else {
		execvp(opts->argv[0], opts->argv);
		err = errno;
	}
	if (write(report, &err, sizeof(err)) < 0)
		_exit(EXIT_VSWAP);
	_exit(err == ENOENT ? PROGRAM_NOT_FOUND : PROGRAM_CANNOT_RUN);
}

/* Files we were started with are the program's: keep none open but stderr. */
static void drop_inherited_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *d;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	if (!dir)
		return;
	while ((d = readdir(dir))) {
		int fd = atoi(d->d_name);

		if (fd > STDERR_FILENO && fd != dirfd(dir) && fcntl(fd, F_GETFD) == 0)
			close(fd);
	}
	closedir(dir);
}

/*
 * fork() and exec; 0, or the exit status vswap shall have, with the reason
 * said.  The pipe tells an exec that failed from a program that ended.
 */
static int spawn(const struct pager_opts *opts)
{
	char agent[4096];
	int report[2], err, ret;
	ssize_t n;

	ret = agent_path(agent, sizeof(agent));
	if (ret) {
		pager_say("agent library: %s%s", strerror(-ret),
			  ret == -EINVAL ? " (its path must not have blanks or colons in it)" :
					   " (is vswap installed completely?)");
		return EXIT_VSWAP;
	}
	if (pipe2(report, O_CLOEXEC)) {
		pager_say("pipe: %s (raise ulimit -n)", strerror(errno));
		return EXIT_VSWAP;
	}
	run.pid = fork();
	if (run.pid < 0) {
		pager_say("fork: %s (free some memory, or raise ulimit -u)", strerror(errno));
		return EXIT_VSWAP;
	}
	if (!run.pid)
		child_exec(opts, agent, report[1]);
	close(report[1]);
	do {
		n = read(report[0], &err, sizeof(err));
	} while (n < 0 && errno == EINTR);
	close(report[0]);
	if (n != sizeof(err))
		return 0;
	waitpid(run.pid, NULL, 0);
	pager_say("%s: %s (does it run without vswap?)", opts->argv[0], strerror(err));
	return err == ENOENT ? PROGRAM_NOT_FOUND : PROGRAM_CANNOT_RUN;
}

/* ---- signals ---------------------------------------------------------- */

/* All but those that tell of a fault of our own. */
static int block_signals(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	/* Who starts us may ignore it: then the kernel would reap, and we wait for ever. */
	const struct sigaction chld = { .sa_handler = SIG_DFL };
	sigset_t mask;

	sigaction(SIGCHLD, &chld, &run.old_chld);
	sigfillset(&mask);
	for (unsigned int i = 0; i < sizeof(faults) / sizeof(*faults); i++)
		sigdelset(&mask, faults[i]);
	sigprocmask(SIG_BLOCK, &mask, &run.old_mask);
	return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* To what the program left in the background. */
static void pass_on_to_job(int sig)
{
	struct client *list[MAX_CLIENTS];
	unsigned int n = clients_get(list, MAX_CLIENTS);

	for (unsigned int i = 0; i < n; i++) {
		pid_t pid = client_pid(list[i]);

		if (list[i]->job == run.job && pid > 0)
			kill(pid, sig);
		client_put(list[i]);
	}
}

static void pass_on(const struct signalfd_siginfo *si)
{
	int sig = si->ssi_signo;

	/* Our own child, and what is raised where we write (SIGPIPE, SIGXFSZ). */
	if (sig == SIGCHLD || si->ssi_pid == (uint32_t)getpid())
		return;
	/*
	 * What the terminal sends, the program gets from the terminal itself; our processor
	 * time is not its own.  But an alarm() that who became us by exec had set is.
	 */
	if (si->ssi_code == SI_KERNEL && sig != SIGALRM)
		return;
	if (!run.pid) {
		/* Elsewhere there is nobody we know of. */
		if (run.job)
			pass_on_to_job(sig);
		return;
	}
	if (si->ssi_pid == (uint32_t)run.pid)
		return;
	if (si->ssi_code == SI_QUEUE)
		sigqueue(run.pid, sig, (union sigval){ .sival_ptr = (void *)si->ssi_ptr });
	else
		kill(run.pid, sig);
}

/*
 * The program was stopped from the terminal: let the shell see us stop, too.  It
 * wakes both of us.  A SIGSTOP came from somebody who means the program alone, and
 * will wake it alone; it needs us then.
 */
static void stop_like(int sig)
{
	sigset_t set;

	if (sig == SIGSTOP)
		return;
	raise(sig);
	/* Blocked until here; stops all our threads as it is let through. */
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Returns true when the program is gone, with its wait status. */
static bool reap(int *status)
{
	pid_t pid;

	while ((pid = waitpid(-1, status, WNOHANG | WUNTRACED)) > 0) {
		if (pid != run.pid)
			continue;
		if (WIFSTOPPED(*status)) {
			stop_like(WSTOPSIG(*status));
			continue;
		}
		/* Its number may be another's soon. */
		run.pid = 0;
		return true;
	}
	return false;
}

/* ---- the run ---------------------------------------------------------- */

static bool left_dump(int status)
{
	return WIFSIGNALED(status) && WCOREDUMP(status);
}

/* Where the space is another process: what it tells us, as job_turn() has it. */
static int server_turn(int fd, int ms)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
			       { .fd = run.server, .events = POLLIN } };
	struct job_msg msg;
	ssize_t n;
	int seen = 0;

	if (poll(p, 2, ms) <= 0)
		return 0;
	if (p[0].revents)
		seen |= JOB_INPUT;
	if (!p[1].revents)
		return seen;
	n = recv(run.server, &msg, sizeof(msg), MSG_DONTWAIT);
	if (n == sizeof(msg)) {
		msg.text[sizeof(msg.text) - 1] = 0;
		if (msg.type == JOB_MSG_SAY)
			pager_say("%s", msg.text);
		else if (msg.type == JOB_MSG_CLIENT)
			seen |= JOB_CLIENT;
		else if (msg.type == JOB_MSG_REFUSE)
			seen |= JOB_REFUSE;
	} else if (!n || (errno != EAGAIN && errno != EINTR)) {
		close(run.server);
		run.server = -1;
	}
	return seen;
}

static int turn(int sigfd, int ms)
{
	return run.job ? job_turn(run.job, sigfd, ms) : server_turn(sigfd, ms);
}

static void pass_signals_on(int sigfd)
{
	struct signalfd_siginfo si;

	while (read(sigfd, &si, sizeof(si)) == sizeof(si))
		pass_on(&si);
}

/*
 * Wait for the agent's call; the program does not reach main() before it was
 * answered.  0: it is a client.  1: the program ended first.  Else it cannot be
 * one, and was killed: the exit status vswap shall have, negative.
 */
static int await_agent(const struct pager_opts *opts, int sigfd, int *status)
{
	uint64_t deadline = now_ns() + AGENT_NS;
	int ret = -EXIT_VSWAP;

	for (;;) {
		int seen = turn(sigfd, 100);

		if (seen & JOB_CLIENT)
			return 0;
		if (seen & JOB_REFUSE)
			break;
		if (!run.job && run.server < 0) {
			pager_say("space %s: went away (is its vswap serve still running?)",
				  opts->space);
			break;
		}
		pass_signals_on(sigfd);
		if (reap(status))
			return 1;
		if (now_ns() > deadline) {
			pager_say("%s: does not load the agent (is it a static program, or does it "
				  "change who it runs as?)",
				  opts->argv[0]);
			ret = -PROGRAM_CANNOT_RUN;
			break;
		}
	}
	kill(run.pid, SIGKILL);
	waitpid(run.pid, status, 0);
	return ret;
}

/*
 * Serve the program until it ends, and what it left in the background until that
 * ends too: it could not go on without us.  Returns the program's wait status.
 */
static int follow(int sigfd)
{
	bool ended = false;
	int status = 0, other;

	for (;;) {
		turn(sigfd, ended ? 50 : -1);
		pass_signals_on(sigfd);
		if (reap(ended ? &other : &status)) {
			ended = true;
			__atomic_store_n(&run.job->pid, 0, __ATOMIC_RELAXED);
		}
		if (ended && !job_goes_on(run.job))
			return status;
	}
}

/* The same, with the space in another process: that says when the last one is gone. */
static int follow_server(const struct pager_opts *opts, int sigfd)
{
	struct job_msg msg = { .type = JOB_MSG_ENDED };
	uint64_t gone_ns = 0;
	bool ended = false;
	int status = 0, other;

	for (;;) {
		turn(sigfd, gone_ns ? 50 : -1);
		pass_signals_on(sigfd);
		if (reap(ended ? &other : &status) && !ended) {
			ended = true;
			if (left_dump(status))
				msg.type = JOB_MSG_DUMPED;
			if (run.server >= 0)
				send(run.server, &msg, sizeof(msg), MSG_NOSIGNAL);
		}
		if (run.server >= 0)
			continue;
		if (ended)
			return status;
		if (!gone_ns) {
			gone_ns = now_ns();
			pager_say(
				"space %s: its vswap serve ended, and with it the program's pages: "
				"killed (start both again)",
				opts->space);
		}
		/* Its agent does that, and its children's first; to be sure. */
		if (now_ns() > gone_ns + SERVER_END_NS)
			kill(run.pid, SIGKILL);
	}
}

static void print_reports(const struct pager_opts *opts, int status)
{
	struct pager_stat *st = malloc(sizeof(*st));

	if (!st) {
		pager_say("report: %s (free some memory)", strerror(ENOMEM));
		return;
	}
	pager_snapshot(st);
	st->finished = true;
	st->status = status;
	if (opts->verbose)
		report_text(stderr, st);
	/* The caller looks after the file. */
	if (opts->stats && report_json(opts->stats, st) == -ENOMEM)
		pager_say("--stats: %s (free some memory)", strerror(ENOMEM));
	free(st);
}

static int exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* @join is as WIRE_ENV. */
static int connect_to(const char *join)
{
	struct job_msg msg = { .type = JOB_MSG_JOIN };
	struct wire_where where;
	int fd, err;

	if (!wire_where(join, &where))
		return -EPROTO;
	memcpy(msg.text, where.key, WIRE_KEY);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (((where.path_len && !connect(fd, (struct sockaddr *)&where.path, where.path_len)) ||
	     !connect(fd, (struct sockaddr *)&where.name, where.name_len)) &&
	    send(fd, &msg, sizeof(msg), MSG_NOSIGNAL) == sizeof(msg))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* A program in a space another process keeps. */
static int run_joined(const struct pager_opts *opts, int sigfd)
{
	int status = 0, ret;

	run.server = connect_to(opts->join);
	if (run.server < 0) {
		pager_say("space %s: %s (is its vswap serve still running?)", opts->space,
			  strerror(-run.server));
		return EXIT_VSWAP;
	}
	run.socket = opts->join;
	ret = spawn(opts);
	if (ret)
		return ret;
	drop_inherited_files();
	ret = await_agent(opts, sigfd, &status);
	if (ret < 0)
		return -ret;
	if (!ret)
		status = follow_server(opts, sigfd);
	return exit_status(status);
}

/* Not being able to is not worth stopping for. */
static void listen_for_commands(void)
{
	char dir[PATH_MAX];
	int err = space_listen();

	if (!err)
		return;
	if (control_dir(dir, sizeof(dir)))
		strcpy(dir, "XDG_RUNTIME_DIR");
	pager_say("control socket in %s: %s: vswap stat and the like will not find this run (%s)",
		  dir, strerror(-err), control_advice(dir, err));
}

/* A program in a space of its own, kept by this process. */
static int run_own(const struct pager_opts *opts, int sigfd)
{
	int status = 0, ret;

	if (space_open(opts))
		return EXIT_VSWAP;
	run.job = job_create(group_root());
	if (!run.job) {
		pager_say("socket: %s (raise ulimit -n)", strerror(errno));
		return EXIT_VSWAP;
	}
	run.socket = run.job->name;
	pager.start_ns = now_ns();
	ret = spawn(opts);
	if (ret)
		return ret;
	pager.pid = run.pid;
	pager.program = opts->argv[0];
	__atomic_store_n(&run.job->pid, run.pid, __ATOMIC_RELAXED);
	drop_inherited_files();
	/* Before the program begins: what it takes with a head start has no limit. */
	if (space_start()) {
		kill(run.pid, SIGKILL);
		waitpid(run.pid, &status, 0);
		ret = -EXIT_VSWAP;
	} else {
		ret = await_agent(opts, sigfd, &status);
	}
	if (!ret) {
		listen_for_commands();
		status = follow(sigfd);
	}
	space_stop();
	if (ret < 0)
		return -ret;
	if (left_dump(status))
		coredump_say(run.job);
	ret = exit_status(status);
	print_reports(opts, ret);
	return ret;
}

int pager_run(const struct pager_opts *opts)
{
	int sigfd = block_signals(), ret;

	if (sigfd < 0) {
		pager_say("signalfd: %s (raise ulimit -n)", strerror(errno));
		return EXIT_VSWAP;
	}
	restore_environment();
	if (getrlimit(RLIMIT_NOFILE, &run.files)) {
		pager_say("RLIMIT_NOFILE: %s (let getrlimit(2) be called)", strerror(errno));
		return EXIT_VSWAP;
	}
	if (opts->join)
		return run_joined(opts, sigfd);
	ret = run_own(opts, sigfd);
	if (run.job)
		job_close(run.job);
	space_close();
	return ret;
}
