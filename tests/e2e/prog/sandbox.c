/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that do for themselves what vswap does for them, or forbid themselves what it
 * needs: a userfaultfd of their own, a filter for system calls, limits on resources.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmtest.h"

static int uffd;
static char *served;
static size_t served_pages;

static void *serve(void *unused)
{
	static char page[PAGE];
	size_t left = served_pages;

	while (left--) {
		struct pollfd p = { .fd = uffd, .events = POLLIN };
		struct uffdio_copy copy = { .src = (uint64_t)page, .len = PAGE };
		struct uffd_msg msg;

		if (poll(&p, 1, -1) != 1 || read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			fail_errno("userfaultfd");
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			fail("event %u of a userfaultfd that asked for faults", msg.event);
		copy.dst = msg.arg.pagefault.address & ~(PAGE - 1);
		page_fill(page, ((char *)copy.dst - served) / PAGE, 5);
		if (ioctl(uffd, UFFDIO_COPY, &copy))
			fail_errno("UFFDIO_COPY");
	}
	return unused;
}

void test_ownuffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	size_t nr = args.size / 2 / PAGE;
	char *mem = map_anon(nr * PAGE);
	pthread_t thread;

	served_pages = args.size / 16 / PAGE;
	served = map_anon(served_pages * PAGE);
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		fail_errno("userfaultfd");
	reg.range.start = (uint64_t)served;
	reg.range.len = served_pages * PAGE;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		fail_errno("UFFDIO_REGISTER");
	range_fill(mem, nr, 0, 0);
	pressure_init(args.size / 2);
	errno = pthread_create(&thread, NULL, serve, NULL);
	if (errno)
		fail_errno("pthread_create");
	range_check(served, served_pages, 0, 5);
	range_fill(served, served_pages, 0, 6);
	pressure();
	range_check(mem, nr, 0, 0);
	range_check(served, served_pages, 0, 6);
	errno = pthread_join(thread, NULL);
	if (errno)
		fail_errno("pthread_join");
}

/* No more system calls for memory, from here on, for this thread and those it makes, or all. */
static void lock_in(bool all)
{
	static const int refused[] = {
		SYS_userfaultfd, SYS_ioctl,  SYS_madvise,	    SYS_process_vm_readv,
		SYS_openat,	 SYS_socket, SYS_process_vm_writev, SYS_ptrace,
	};
	const unsigned int nr = sizeof(refused) / sizeof(*refused);
	struct sock_filter code[2 * sizeof(refused) / sizeof(*refused) + 2];
	struct sock_fprog prog = { .len = 2 * nr + 2, .filter = code };
	unsigned int i;

	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					       offsetof(struct seccomp_data, nr));
	for (i = 0; i < nr; i++) {
		code[1 + 2 * i] =
			(struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], 0, 1);
		code[2 + 2 * i] =
			(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	code[1 + 2 * nr] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, all ? SECCOMP_FILTER_FLAG_TSYNC : 0,
		    &prog))
		fail_errno("seccomp");
}

static void sandboxed(bool all)
{
	size_t nr = args.size / 4 / PAGE;
	char *before = map_anon(nr * PAGE), *after;
	unsigned int pass;

	range_fill(before, nr, 0, 0);
	pressure_init(args.size / 2);
	lock_in(all);
	if (syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY) != -1 || errno != EPERM)
		fail("the filter does not hold");
	after = map_anon(nr * PAGE);
	range_fill(after, nr, nr, 0);
	for (pass = 0; pass < args.passes; pass++) {
		pressure();
		range_check(before, nr, 0, 0);
		range_check(after, nr, nr, 0);
	}
}

void test_sandbox(void)
{
	sandboxed(false);
}

void test_sandbox_all(void)
{
	sandboxed(true);
}

static void limit(int what, rlim_t value)
{
	struct rlimit r;

	if (getrlimit(what, &r))
		fail_errno("getrlimit");
	r.rlim_cur = value;
	if (setrlimit(what, &r))
		fail_errno("setrlimit");
}

/* Limits as tight as they go, lowered while memory is swapped out. */
void test_rlimits(void)
{
	size_t nr = args.size / 4 / PAGE;
	char *mem = map_anon(nr * PAGE);
	unsigned int pass;

	range_fill(mem, nr, 0, 0);
	pressure_init(args.size / 2);
	limit(RLIMIT_AS, PAGE);
	limit(RLIMIT_DATA, PAGE);
	limit(RLIMIT_NOFILE, 3);
	limit(RLIMIT_NPROC, 1);
	limit(RLIMIT_FSIZE, 0);
	if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	    MAP_FAILED)
		fail("RLIMIT_AS does not hold");
	for (pass = 0; pass < args.passes; pass++) {
		pressure();
		range_check(mem, nr, 0, pass);
		range_fill(mem, nr, 0, pass + 1);
	}
	/* What the output needs. */
	limit(RLIMIT_FSIZE, RLIM_INFINITY);
}
