/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * miscount PID SECONDS
 *
 * Does to the agent of a process what Linux 6.18 does to it once in millions of moves:
 * pages that UFFDIO_MOVE has moved are not counted, and it says EEXIST, or that it moved
 * fewer than it did.  Prints how many moves it was told wrong of.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../agent/uffd.h"

#define PAGE 4096

static void die(const char *what)
{
	fprintf(stderr, "miscount: %s: %s\n", what, strerror(errno));
	exit(1);
}

static pid_t agent_of(const char *pid)
{
	char path[512], name[64];
	struct dirent *d;
	pid_t tid = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	dir = opendir(path);
	if (!dir)
		die(path);
	while (!tid && (d = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/task/%s/comm", pid, d->d_name);
		f = fopen(path, "r");
		if (f && fgets(name, sizeof(name), f) && !strcmp(name, "vswap-agent\n"))
			tid = atoi(d->d_name);
		if (f)
			fclose(f);
	}
	closedir(dir);
	return tid;
}

static void set_result(pid_t tid, long result)
{
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };

	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov))
		die("PTRACE_GETREGSET");
#if defined(__x86_64__)
	regs.rax = result;
#else
	regs.regs[0] = result;
#endif
	if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov))
		die("PTRACE_SETREGSET");
}

/* A move of all it was asked for: of more than a page half is owned up to, every other time. */
static void tell_wrong(pid_t tid, uint64_t arg, bool half)
{
	struct uffdio_move mv;
	struct iovec here = { &mv, sizeof(mv) }, there = { (void *)arg, sizeof(mv) };

	if (process_vm_readv(tid, &here, 1, &there, 1, 0) != sizeof(mv))
		die("process_vm_readv");
	half = half && mv.len > PAGE;
	mv.move = half ? (int64_t)(mv.len / PAGE / 2 * PAGE) : -EEXIST;
	if (process_vm_writev(tid, &here, 1, &there, 1, 0) != sizeof(mv))
		die("process_vm_writev");
	set_result(tid, half ? -EAGAIN : -EEXIST);
}

static volatile sig_atomic_t over;

static void on_alarm(int sig)
{
	(void)sig;
	over = 1;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	unsigned int moves = 0, wrong = 0;
	uint64_t arg = 0;
	pid_t tid;
	int status;

	tid = argc == 3 ? agent_of(argv[1]) : 0;
	if (!tid) {
		fprintf(stderr, "usage: miscount PID SECONDS (of a process with an agent)\n");
		return 1;
	}
	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) ||
	    ptrace(PTRACE_INTERRUPT, tid, 0, 0))
		die("PTRACE_SEIZE");
	sigaction(SIGALRM, &sa, NULL);
	alarm(atoi(argv[2]));
	for (;;) {
		struct __ptrace_syscall_info info = { 0 };

		if (waitpid(tid, &status, __WALL) < 0) {
			if (errno != EINTR)
				die("waitpid");
			/* It may sleep for long: to stop it, or it cannot be let go. */
			ptrace(PTRACE_INTERRUPT, tid, 0, 0);
			continue;
		}
		if (!WIFSTOPPED(status))
			break;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) &&
		    ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) < 0)
			die("PTRACE_GET_SYSCALL_INFO");
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
			arg = info.entry.nr == SYS_ioctl && info.entry.args[1] == UFFDIO_MOVE ?
				      info.entry.args[2] :
				      0;
		else if (info.op == PTRACE_SYSCALL_INFO_EXIT && arg && !info.exit.rval &&
			 ++moves % 3 == 0)
			tell_wrong(tid, arg, wrong++ % 2);
		/* Not between the two: what it was told to do it has done then. */
		if (over && info.op != PTRACE_SYSCALL_INFO_ENTRY)
			break;
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0))
			die("PTRACE_SYSCALL");
	}
	ptrace(PTRACE_DETACH, tid, 0, 0);
	printf("%u\n", wrong);
	return 0;
}
