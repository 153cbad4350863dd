/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Children of a program that is being paged: they see its memory as it was at
 * the fork, and what they write is theirs alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmtest.h"

extern char **environ;

static char *const true_argv[] = { "true", NULL };

void wait_for(pid_t pid, const char *what)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			fail_errno("waitpid");
	if (WIFSIGNALED(status))
		fail("%s: killed by signal %d", what, WTERMSIG(status));
	if (WEXITSTATUS(status))
		fail("%s: exit status %d", what, WEXITSTATUS(status));
}

pid_t forked(void)
{
	pid_t pid = fork();

	if (pid < 0)
		fail_errno("fork");
	return pid;
}

/* The same by clone(2) itself: libc, and so the agent, hears nothing of it. */
static pid_t cloned(void)
{
	pid_t pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid < 0)
		fail_errno("clone");
	return pid;
}

void test_forkexec(void)
{
	size_t nr = args.size / 2 / PAGE, n = 0, i;
	char *mem = map_anon(nr * PAGE);
	pid_t pid;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	for (i = 0; i < 10 * args.passes; i++) {
		if (i % 4 == 0)
			pressure();
		pid = forked();
		if (!pid) {
			execv("/bin/true", true_argv);
			_exit(127);
		}
		/* Written while the child may still be there. */
		page_fill(mem + n * PAGE, n, 1);
		n++;
		wait_for(pid, "true");
		page_check(mem + (nr - n) * PAGE, nr - n, 0);
	}
	pressure();
	range_check(mem, n, 0, 1);
	range_check(mem + n * PAGE, nr - n, n, 0);
}

/* A child of vfork() has its parent's memory, also when that is killed before it execs. */
void test_vforkleft(void)
{
	size_t nr = args.size / 4 / PAGE;
	char *mem = map_anon(nr * PAGE);
	pid_t parent = getpid();

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	pressure();
	/* Pages go and come when it is killed. */
	pressure_start();
	usleep(args.seed % 50 * 1000);
	if (vfork())
		fail_errno("vfork");
	kill(parent, SIGKILL);
	while (getppid() == parent)
		usleep(1000);
	/* All that is to hear of it has. */
	usleep(100000);
	/* Some: nothing goes any more to make room for them. */
	range_check(mem + nr / 2 * PAGE, 64, nr / 2, 0);
	passed("vforkleft");
}

/* Children read all of it while the parent goes on writing: they see the old. */
void test_forkread(void)
{
	size_t nr = args.size / 2 / PAGE;
	char *mem = map_anon(nr * PAGE);
	unsigned int pass;
	pid_t pid;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	for (pass = 0; pass < args.passes; pass++) {
		pressure();
		pid = forked();
		if (!pid) {
			range_check(mem, nr, 0, pass);
			_exit(0);
		}
		range_fill(mem, nr, 0, pass + 1);
		range_check(mem, nr, 0, pass + 1);
		wait_for(pid, "child");
		range_check(mem, nr, 0, pass + 1);
	}
}

/* A child writes, one more sits beside it and reads: nobody sees another's bytes. */
void test_forkwrite(void)
{
	size_t nr = args.size / 2 / PAGE, part = nr / 4;
	char *mem = map_anon(nr * PAGE);
	unsigned int pass;
	pid_t writer, reader;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	for (pass = 0; pass < args.passes; pass++) {
		pressure();
		writer = forked();
		if (!writer) {
			range_fill(mem, part, 0, 1000 + pass);
			range_check(mem + part * PAGE, part, part, 0);
			range_check(mem, part, 0, 1000 + pass);
			_exit(0);
		}
		reader = forked();
		if (!reader) {
			range_check(mem, 2 * part, 0, 0);
			_exit(0);
		}
		range_check(mem, nr, 0, 0);
		wait_for(writer, "writer");
		wait_for(reader, "reader");
		pressure();
		range_check(mem, nr, 0, 0);
	}
}

/* Children that live on, with memory of their own beside what they came with. */
void test_forkgrow(void)
{
	size_t nr = args.size / 4 / PAGE;
	char *mem = map_anon(nr * PAGE);
	pid_t child[2];
	unsigned int i;

	range_fill(mem, nr, 0, 0);
	for (i = 0; i < 2; i++) {
		child[i] = forked();
		if (!child[i]) {
			char *own = map_anon(nr * PAGE);
			unsigned int pass;

			for (pass = 0; pass < 2 * args.passes; pass++) {
				range_fill(own, nr, (i + 1) << 20, pass);
				range_check(mem, nr, 0, 0);
				range_check(own, nr, (i + 1) << 20, pass);
			}
			_exit(0);
		}
	}
	range_check(mem, nr, 0, 0);
	range_fill(mem, nr, 0, 1);
	for (i = 0; i < 2; i++)
		wait_for(child[i], "child");
	range_check(mem, nr, 0, 1);
}

struct forker {
	char *mem;
	size_t nr;
};

static void *fork_and_check(void *arg)
{
	const struct forker *f = arg;
	size_t part = f->nr / 4, i;
	pid_t pid;

	for (i = 0; i < 4 * args.passes; i++) {
		pid = forked();
		if (!pid) {
			range_check(f->mem + i % 4 * part * PAGE, part, i % 4 * part, 0);
			_exit(0);
		}
		range_check(f->mem, part, 0, 0);
		wait_for(pid, "child");
	}
	return NULL;
}

/* fork from two threads while others fault. */
void test_forkthreads(void)
{
	struct forker f = { .nr = args.size / 2 / PAGE };
	pthread_t thread;

	f.mem = map_anon(f.nr * PAGE);
	pressure_init(args.size - f.nr * PAGE);
	range_fill(f.mem, f.nr, 0, 0);
	pressure_start();
	errno = pthread_create(&thread, NULL, fork_and_check, &f);
	if (errno)
		fail_errno("pthread_create");
	fork_and_check(&f);
	errno = pthread_join(thread, NULL);
	if (errno)
		fail_errno("pthread_join");
	pressure_stop();
	range_check(f.mem, f.nr, 0, 0);
}

/* A parent that execs: what its child came with is the child's alone then. */
void test_parentexec(void)
{
	char size[32];
	char *argv[] = { "vmtest", "rw", "--passes", "1", "--size", size, NULL };
	size_t nr = args.size / 2 / PAGE;
	char *mem = map_anon(nr * PAGE), byte;
	int executed[2];

	snprintf(size, sizeof(size), "%zu", args.size);
	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	pressure();
	if (pipe2(executed, O_CLOEXEC))
		fail_errno("pipe");
	if (forked()) {
		execv("/proc/self/exe", argv);
		fail_errno("execv");
	}
	close(executed[1]);
	if (read(executed[0], &byte, 1))
		fail_errno("read");
	range_check(mem, nr, 0, 0);
	pressure();
	range_fill(mem, nr / 2, 0, 1);
	range_check(mem, nr / 2, 0, 1);
	range_check(mem + nr / 2 * PAGE, nr - nr / 2, nr / 2, 0);
}

/* vfork and posix_spawn: the child runs on the parent's memory until it execs. */
void test_spawn(void)
{
	size_t nr = args.size / 2 / PAGE, i;
	char *mem = map_anon(nr * PAGE);
	pid_t pid;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	for (i = 0; i < 10 * args.passes; i++) {
		if (i % 4 == 0)
			pressure();
		if (i % 2) {
			errno = posix_spawn(&pid, "/bin/true", NULL, NULL, true_argv, environ);
			if (errno)
				fail_errno("posix_spawn");
		} else {
			pid = vfork();
			if (pid < 0)
				fail_errno("vfork");
			if (!pid) {
				execv("/bin/true", true_argv);
				_exit(127);
			}
		}
		wait_for(pid, "true");
	}
	range_check(mem, nr, 0, 0);
}

/* Commands of a shell that libc starts are paged as well: the memory bound is on them, too. */
void test_shell(void)
{
	char exe[4096], command[8192], line[64] = "";
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	FILE *f;

	if (n < 0)
		fail_errno("readlink");
	exe[n] = 0;
	snprintf(command, sizeof(command), "'%s' rw --passes 1 --size %zu%s", exe, args.size,
		 args.hard ? " --hard" : "");
	f = popen(command, "r");
	if (!f)
		fail_errno("popen");
	if (!fgets(line, sizeof(line), f) || strcmp(line, "ok rw\n"))
		fail("popen: read '%s'", line);
	if (pclose(f))
		fail("popen: the command failed");
	strncat(command, " >/dev/null", sizeof(command) - strlen(command) - 1);
	if (system(command))
		fail("system: the command failed");
	if (system("exit 3") != 3 << 8 || !system(NULL))
		fail("system: another status");
}

struct half {
	char *mem;
	size_t nr;
	uint32_t version;
};

static int fill_half(void *arg)
{
	const struct half *half = arg;

	range_fill(half->mem + half->nr * PAGE, half->nr, half->nr, half->version);
	return 0;
}

/* clone(2) of a process on the same memory. */
void test_clone(void)
{
	static char stack[64 << 10] __attribute__((aligned(64)));
	size_t nr = args.size / 2 / PAGE / 2 * 2;
	char *mem = map_anon(nr * PAGE);
	uint32_t version;
	pid_t pid;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	for (version = 1; version <= args.passes; version++) {
		struct half half = { mem, nr / 2, version };

		pressure();
		pid = clone(fill_half, stack + sizeof(stack), CLONE_VM | SIGCHLD, &half);
		if (pid < 0)
			fail_errno("clone");
		range_fill(mem, nr / 2, 0, version);
		wait_for(pid, "process on the same memory");
		range_check(mem, nr, 0, version);
	}
}

/* A fork by clone(2), of which libc does not know: the child has no agent. */
void test_clonefork(void)
{
	size_t nr = args.size / 2 / PAGE, some = nr / 16, last = nr - some;
	char *mem = map_anon(nr * PAGE);
	uint32_t version, i;
	pid_t pid;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	for (version = 0; version < args.passes; version++) {
		pressure();
		pid = cloned();
		if (!pid) {
			range_check(mem, some, 0, version);
			/* What it has had and let go is not to be counted for ever. */
			for (i = 0; i < 64; i++) {
				if (i && madvise(mem + last * PAGE, some * PAGE, MADV_DONTNEED))
					fail_errno("madvise");
				range_fill(mem + last * PAGE, some, last, version + 1000 + i);
			}
			range_check(mem + last * PAGE, some, last, version + 1000 + i - 1);
			/* One of its own by libc, whose handlers are the agent's. */
			pid = forked();
			if (!pid) {
				range_check(mem, some, 0, version);
				range_check(mem + last * PAGE, some, last, version + 1000 + i - 1);
				_exit(0);
			}
			wait_for(pid, "child's child");
			_exit(0);
		}
		wait_for(pid, "child");
		range_fill(mem, nr, 0, version + 1);
		range_check(mem, nr, 0, version + 1);
	}
}

/* A child by clone(2) that grows when its parent has gone: nothing of it can be taken away. */
void test_grownalone(void)
{
	size_t nr = args.size / PAGE;
	char *mem = map_anon(nr * PAGE);
	pid_t parent = getpid(), pid;

	range_fill(mem, nr, 0, 0);
	pid = cloned();
	if (pid)
		return;
	while (getppid() == parent)
		usleep(1000);
	range_check(mem, nr, 0, 0);
	fail("all of it was there at once");
}

/* Two in pid namespaces of their own, where their children have the same numbers. */
void test_pidns(void)
{
	size_t nr = args.size / 4 / PAGE;
	char *mem = map_anon(nr * PAGE);
	uint32_t pass, i;
	pid_t pid[2];

	range_fill(mem, nr, 0, 0);
	pressure_init(args.size / 2);
	for (pass = 0; pass < 4 * args.passes; pass++) {
		pressure();
		for (i = 0; i < 2; i++) {
			pid[i] = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
			if (pid[i] < 0)
				fail_errno("clone");
			if (pid[i])
				continue;
			range_fill(mem, nr / 8, 0, i + 1);
			pid[0] = forked();
			if (!pid[0]) {
				usleep(20000);
				range_check(mem, nr / 8, 0, i + 1);
				range_fill(mem, nr, 0, i + 3);
				range_check(mem, nr, 0, i + 3);
				_exit(0);
			}
			wait_for(pid[0], "child's child");
			range_check(mem, nr / 8, 0, i + 1);
			_exit(0);
		}
		wait_for(pid[0], "child");
		wait_for(pid[1], "child");
		range_check(mem, nr, 0, 0);
	}
}

static void *begets(void *unused)
{
	pid_t pid = cloned();
	if (!pid)
		pid = cloned();
	for (;;)
		pause();
	return unused;
}

/* A thread's child without an agent, and a child of that; all live on. */
void test_begets(void)
{
	size_t nr = args.size / PAGE;
	char *mem = map_anon(nr * PAGE);
	pthread_t thread;

	range_fill(mem, nr, 0, 0);
	errno = pthread_create(&thread, NULL, begets, NULL);
	if (errno)
		fail_errno("pthread_create");
	sleep(1);
	dprintf(STDOUT_FILENO, "ready\n");
	pause();
}

/*
 * More of those than can be served, or than there are descriptors for; each looks after
 * some seconds at what it was born with.
 */
void test_forkmany(void)
{
	size_t nr = args.size / PAGE, some = 16;
	char *mem = map_anon(some * PAGE), *rest = map_anon(nr * PAGE);
	unsigned int i;
	pid_t pid;

	range_fill(mem, some, 0, 0);
	range_fill(rest, nr, some, 0);
	unmap(rest, nr * PAGE);
	for (i = 0; i < 1100; i++) {
		pid = cloned();
		if (!pid) {
			sleep(5 * args.passes);
			range_check(mem, some, 0, 0);
			_exit(0);
		}
	}
	while (i--)
		wait(NULL);
}

/* The same, with memory as low as a program may have it, where nothing is by itself. */
void test_low(void)
{
	size_t some = 16, nr = args.size / 2 / PAGE, i;
	char *low = mmap((void *)(1UL << 20), some * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	char *mem = map_anon(nr * PAGE);
	pid_t pid;

	if (low != (char *)(1UL << 20))
		fail_errno("mmap");
	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	range_fill(low, some, 0, 7);
	pressure();
	for (i = 0; i < args.passes; i++) {
		pid = cloned();
		if (!pid) {
			/* For as long as it takes to be looked after. */
			usleep(100000);
			range_check(low, some, 0, 7);
			_exit(0);
		}
		pressure();
		wait_for(pid, "child");
		range_check(low, some, 0, 7);
	}
	range_check(mem, nr, 0, 0);
}

/*
 * The same, and its parent ends: then nobody else has what it was born with.  It keeps
 * that for as many seconds as there are passes.
 */
void test_leftbehind(void)
{
	size_t nr = args.size / PAGE;
	char *mem = map_anon(nr * PAGE);
	pid_t first = getpid(), pid;

	range_fill(mem, nr, 0, 0);
	pid = cloned();
	if (pid)
		_exit(0);
	while (!kill(first, 0))
		usleep(1000);
	sleep(args.passes);
	range_check(mem, nr, 0, 0);
}

/* A daemon: its parent's parent ends at once, and it goes on with what that had. */
void test_orphan(void)
{
	size_t nr = args.size / 2 / PAGE;
	char *mem = map_anon(nr * PAGE);
	pid_t first = getpid(), pid;

	pressure_init(args.size - nr * PAGE);
	range_fill(mem, nr, 0, 0);
	pressure();
	pid = forked();
	if (pid) {
		wait_for(pid, "child");
		_exit(0);
	}
	if (setsid() < 0)
		fail_errno("setsid");
	if (forked())
		_exit(0);
	while (!kill(first, 0))
		usleep(1000);
	range_check(mem, nr, 0, 0);
	pressure();
	range_fill(mem, nr / 2, 0, 1);
	range_check(mem, nr / 2, 0, 1);
	range_check(mem + nr / 2 * PAGE, nr - nr / 2, nr / 2, 0);
}
