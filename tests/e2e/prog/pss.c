/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * pss [-i MS] -o FILE PROGRAM [ARG...]
 *
 * Runs a program and samples how much memory it and all its descendants have,
 * as the sum of their proportional set sizes.  Processes that share one
 * address space count once.  At the end FILE gets "peak_bytes samples
 * elapsed_ms" and the status is the program's.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_PROCS    4096
#define SAMPLE_TRIES 3

struct proc {
	pid_t pid, parent;
	bool ours, counted;
};

static struct proc procs[MAX_PROCS];
static unsigned int nr_procs;

static void die(const char *what)
{
	fprintf(stderr, "pss: %s: %s\n", what, strerror(errno));
	exit(125);
}

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* The text of /proc/@pid/@name, or false: the process may be gone by now. */
static bool proc_read(pid_t pid, const char *name, char *buf, size_t len)
{
	char path[64];
	size_t have = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while ((n = read(fd, buf + have, len - 1 - have)) > 0)
		have += n;
	close(fd);
	buf[have] = 0;
	return have > 0;
}

static void list_procs(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *de;
	char buf[1024], *p;

	if (!dir)
		die("/proc");
	nr_procs = 0;
	while ((de = readdir(dir)) && nr_procs < MAX_PROCS) {
		struct proc *proc = &procs[nr_procs];

		if (!isdigit((unsigned char)de->d_name[0]))
			continue;
		proc->pid = atoi(de->d_name);
		/* The command's name may hold anything; what follows its last ')' may not. */
		if (!proc_read(proc->pid, "stat", buf, sizeof(buf)) || !(p = strrchr(buf, ')')) ||
		    sscanf(p + 1, " %*c %d", &proc->parent) != 1)
			continue;
		proc->ours = proc->counted = false;
		nr_procs++;
	}
	closedir(dir);
}

/* Mark the descendants of this process, which is not one of them. */
static void mark_ours(void)
{
	bool more = true;
	unsigned int i, j;

	while (more) {
		more = false;
		for (i = 0; i < nr_procs; i++) {
			if (procs[i].ours)
				continue;
			for (j = 0; j < nr_procs; j++)
				if (procs[j].ours && procs[j].pid == procs[i].parent)
					break;
			if (procs[i].parent == getpid() || j < nr_procs)
				procs[i].ours = more = true;
		}
	}
}

static bool same_memory(pid_t a, pid_t b)
{
	return syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0;
}

static bool has_memory(pid_t pid)
{
	char buf[256];

	return proc_read(pid, "statm", buf, sizeof(buf)) && strtoul(buf, NULL, 10);
}

/* *@ended: one that was counted has ended since, and who shared with it may have all of it. */
static uint64_t sample_once(bool *ended)
{
	unsigned int i, j;
	uint64_t sum = 0;
	char buf[4096], *p;

	list_procs();
	mark_ours();
	for (i = 0; i < nr_procs; i++) {
		unsigned long kb;

		if (!procs[i].ours)
			continue;
		for (j = 0; j < i; j++)
			if (procs[j].ours && same_memory(procs[i].pid, procs[j].pid))
				break;
		if (j == i && proc_read(procs[i].pid, "smaps_rollup", buf, sizeof(buf)) &&
		    (p = strstr(buf, "\nPss:")) && sscanf(p, "\nPss: %lu", &kb) == 1) {
			sum += kb * 1024ULL;
			procs[i].counted = true;
		}
	}
	*ended = false;
	for (i = 0; i < nr_procs; i++)
		*ended |= procs[i].counted && !has_memory(procs[i].pid);
	return sum;
}

/* Where processes end all the time, the least of some that may be too much. */
static uint64_t sample(void)
{
	uint64_t sum, least = UINT64_MAX;
	bool ended = true;
	int i;

	for (i = 0; i < SAMPLE_TRIES && ended; i++) {
		sum = sample_once(&ended);
		if (!ended || sum < least)
			least = sum;
	}
	return least;
}

int main(int argc, char **argv)
{
	const struct sched_param realtime = { .sched_priority = 5 };
	unsigned long interval = 50, samples = 0;
	uint64_t peak = 0, start = clock_ms(CLOCK_MONOTONIC);
	const char *out = NULL;
	sigset_t children, before;
	int c, status;
	pid_t child;
	FILE *f;

	while ((c = getopt(argc, argv, "+i:o:")) != -1) {
		if (c == 'i')
			interval = strtoul(optarg, NULL, 10);
		else if (c == 'o')
			out = optarg;
		else
			return 125;
	}
	if (!out || !argv[optind] || !interval) {
		fprintf(stderr, "usage: pss [-i MS] -o FILE PROGRAM [ARG...]\n");
		return 125;
	}
	f = fopen(out, "we");
	if (!f)
		die(out);
	/* A descendant whose parent has died comes to us and is still counted. */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1))
		die("prctl");
	/* Held back, so that the wait between samples ends with the program. */
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &children, &before))
		die("sigprocmask");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		execvp(argv[optind], argv + optind);
		die(argv[optind]);
	}
	/* A sample is of one moment only if nobody runs between two of the processes. */
	sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &realtime);
	/* What a terminal or a runner sends is for the program; we stay to report. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	for (;;) {
		uint64_t t = clock_ms(CLOCK_MONOTONIC), sum, took, rest_ms;
		uint64_t cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
		struct timespec rest;
		pid_t pid;

		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				goto ended;
		if (pid < 0)
			die("waitpid");
		sum = sample();
		samples++;
		if (sum > peak)
			peak = sum;
		took = clock_ms(CLOCK_MONOTONIC) - t;
		cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
		/* Others are to have at least as much of the CPU; they had it where we waited. */
		rest_ms = took + cpu < interval ? interval - took : cpu;
		rest.tv_sec = rest_ms / 1000;
		rest.tv_nsec = rest_ms % 1000 * 1000000;
		if (sigtimedwait(&children, NULL, &rest) < 0 && errno != EAGAIN && errno != EINTR)
			die("sigtimedwait");
	}
ended:
	if (fprintf(f, "%llu %lu %llu\n", (unsigned long long)peak, samples,
		    (unsigned long long)(clock_ms(CLOCK_MONOTONIC) - start)) < 0 ||
	    fclose(f))
		die(out);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
