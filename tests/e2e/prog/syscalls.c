/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel reads and writes memory that is swapped out: pipes, sockets,
 * files, getrandom; and the program closes every descriptor it does not know.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "vmtest.h"

struct stream {
	int fd;
	const char *mem;
	size_t len;
};

static void write_all(int fd, const char *mem, size_t len)
{
	while (len) {
		ssize_t n = write(fd, mem, len);

		if (n < 0)
			fail_errno("write");
		mem += n;
		len -= n;
	}
}

static void read_all(int fd, char *mem, size_t len)
{
	while (len) {
		/* Two pieces, so that one call fills several cold pages. */
		struct iovec iov[2] = {
			{ mem, len / 2 },
			{ mem + len / 2, len - len / 2 },
		};
		ssize_t n = readv(fd, iov, 2);

		if (n <= 0)
			fail_errno("readv");
		mem += n;
		len -= n;
	}
}

static void *writer(void *arg)
{
	struct stream *s = arg;

	write_all(s->fd, s->mem, s->len);
	return NULL;
}

/* Carry @nr pages from @from to @to through a pair of descriptors. */
static void carry(int in, int out, const char *from, char *to, size_t nr)
{
	struct stream s = { in, from, nr * PAGE };
	pthread_t thread;

	errno = pthread_create(&thread, NULL, writer, &s);
	if (errno)
		fail_errno("pthread_create");
	read_all(out, to, nr * PAGE);
	errno = pthread_join(thread, NULL);
	if (errno)
		fail_errno("pthread_join");
}

void test_syscalls(void)
{
	size_t nr = args.size / 4 / PAGE, i;
	char *from = map_anon(nr * PAGE), *to = map_anon(nr * PAGE);
	char path[] = "vmtest-file-XXXXXX";
	unsigned int pass;
	int pipes[2], socks[2], fd;
	struct rng rng;

	if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, socks))
		fail_errno("pipe");
	fd = mkstemp(path);
	if (fd < 0 || unlink(path))
		fail_errno(path);
	pressure_init(args.size / 2);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(from, nr, 0, pass);
		range_fill(to, nr, 1UL << 32, pass);
		pressure();
		carry(pipes[1], pipes[0], from, to, nr);
		range_check(to, nr, 0, pass);

		range_fill(from, nr, 0, pass + 1);
		pressure();
		carry(socks[1], socks[0], from, to, nr);
		range_check(to, nr, 0, pass + 1);

		range_fill(from, nr, 0, pass + 2);
		pressure();
		if (lseek(fd, 0, SEEK_SET))
			fail_errno("lseek");
		write_all(fd, from, nr * PAGE);
		pressure();
		if (lseek(fd, 0, SEEK_SET))
			fail_errno("lseek");
		read_all(fd, to, nr * PAGE);
		range_check(to, nr, 0, pass + 2);
		range_check(from, nr, 0, pass + 2);
	}

	/*
	 * What the kernel put there must come back: compare with a copy of it.
	 * Random bytes do not compress: less of them where RAM is all there is.
	 */
	if (!args.hard)
		nr = nr / 16 + 1;
	rng_init(&rng, args.seed);
	pressure();
	for (i = 0; i < nr * PAGE;) {
		ssize_t n = getrandom(from + i, nr * PAGE - i, 0);

		if (n < 0)
			fail_errno("getrandom");
		i += n;
	}
	memcpy(to, from, nr * PAGE);
	pressure();
	for (i = 0; i < nr * args.passes; i++) {
		size_t at = rng_below(&rng, nr) * PAGE;

		if (memcmp(from + at, to + at, PAGE))
			fail("WRONG BYTES: random page %zu differs from its copy", at / PAGE);
	}
	if (memcmp(from, to, nr * PAGE))
		fail("WRONG BYTES: random bytes differ from their copy");
	if (close(fd))
		fail_errno("close");
}

#define PART   256 /* pages that are read or written by one call */
#define ROUNDS 4

/* Before that nobody can tell that a device has a page in use: a limit, as the README has it. */
static bool knows_pins(void)
{
	unsigned int major, minor;
	struct utsname u;

	if (uname(&u) || sscanf(u.release, "%u.%u", &major, &minor) != 2)
		fail_errno("uname");
	return major > 6 || (major == 6 && minor >= 8);
}

static ssize_t by_ring(struct io_uring *ring, bool out, int fd, char *mem, off_t at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int n;

	if (out)
		io_uring_prep_write_fixed(sqe, fd, mem, PART * PAGE, at, 0);
	else
		io_uring_prep_read_fixed(sqe, fd, mem, PART * PAGE, at, 0);
	n = io_uring_submit_and_wait(ring, 1);
	if (n != 1 || io_uring_wait_cqe(ring, &cqe))
		fail("io_uring: submitted %d, or nothing was done", n);
	n = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	errno = n < 0 ? -n : 0;
	return n;
}

/* PART pages at @mem to page @at of the file, or from there; with @ring, its fixed buffer is @mem. */
static void transfer(struct io_uring *ring, bool out, int fd, char *mem, size_t at)
{
	const ssize_t len = PART * PAGE;
	ssize_t n;

	errno = 0;
	if (ring)
		n = by_ring(ring, out, fd, mem, at * PAGE);
	else if (out)
		n = pwrite(fd, mem, len, at * PAGE);
	else
		n = pread(fd, mem, len, at * PAGE);
	if (n != len)
		fail("%s %s: %zd of %zd bytes: %s", out ? "write from" : "read into",
		     ring ? "a fixed buffer" : "memory, O_DIRECT", n, len, strerror(errno));
}

/*
 * Beside evictions each part of the file's @nr pages at @version is read, checked, and written
 * back as the next version, which the next round is to find.  A part of the @held pages of
 * memory has another part of the file each time.  Returns the last version.
 */
static uint32_t exchange(struct io_uring *ring, int fd, char *mem, size_t held, size_t nr,
			 uint32_t version)
{
	size_t round, i;

	pressure_start();
	for (round = 0; round < ROUNDS; round++, version++)
		for (i = 0; i < nr; i += PART) {
			size_t at = (i + round * PART) % nr;
			char *part = mem + i % held * PAGE;

			transfer(ring, false, fd, part, at);
			range_check(part, PART, at, version);
			range_fill(part, PART, at, version + 1);
			transfer(ring, true, fd, part, at);
		}
	pressure_stop();
	return version;
}

/* The same by buffers the kernel holds on to. */
static uint32_t exchange_fixed(int fd, char *mem, size_t nr, uint32_t version)
{
	struct iovec fixed = { mem, PART * PAGE };
	struct io_uring ring;
	unsigned int i;

	errno = -io_uring_queue_init(4, &ring, 0);
	/* Forbidden here and there. */
	if (errno == ENOSYS || errno == EPERM) {
		fprintf(stderr, "vmtest: direct: NOT TESTED: no io_uring here: %s\n",
			strerror(errno));
		return version;
	}
	if (errno)
		fail_errno("io_uring_queue_init");
	/* What was registered once can go, and come back to be registered again. */
	for (i = 0; i < 2; i++) {
		range_fill(mem, PART, nr, i);
		pressure();
		errno = -io_uring_register_buffers(&ring, &fixed, 1);
		if (errno)
			fail_errno("io_uring_register_buffers");
		pressure();
		range_check(mem, PART, nr, i);
		version = exchange(&ring, fd, mem, PART, nr, version);
		errno = -io_uring_unregister_buffers(&ring);
		if (errno)
			fail_errno("io_uring_unregister_buffers");
	}
	io_uring_queue_exit(&ring);
	return version;
}

/*
 * Past the page cache, and by buffers the kernel holds on to: both look pages up and keep
 * them while a device works.
 */
void test_direct(void)
{
	size_t nr = args.size / 4 / PAGE / PART * PART, at;
	char *from = map_anon(nr * PAGE), *to = map_anon(nr * PAGE);
	char path[] = "vmtest-file-XXXXXX";
	int fd = mkstemp(path), direct = open(path, O_RDWR | O_DIRECT);
	uint32_t version;

	/* Not every file system has it: then by way of the cache. */
	if (fd >= 0 && direct < 0 && errno == EINVAL) {
		fprintf(stderr, "vmtest: direct: NOT TESTED: no O_DIRECT on this file system\n");
		direct = dup(fd);
	}
	if (fd < 0 || direct < 0 || unlink(path))
		fail_errno(path);
	pressure_init(args.size / 2);
	for (version = 0; version < args.passes; version++) {
		range_fill(from, nr, 0, version);
		pressure();
		for (at = 0; at < nr; at += PART)
			transfer(NULL, true, direct, from + at * PAGE, at);
		range_fill(to, nr, nr, version);
		pressure();
		for (at = 0; at < nr; at += PART)
			transfer(NULL, false, direct, to + at * PAGE, at);
		pressure();
		range_check(to, nr, 0, version);
		range_check(from, nr, 0, version);
	}
	if (!knows_pins()) {
		fprintf(stderr, "vmtest: direct: NOT TESTED beside evictions: before Linux 6.8\n");
		return;
	}
	version = exchange(NULL, direct, to, nr, nr, args.passes - 1);
	version = exchange_fixed(direct, to, nr, version);
	for (at = 0; at < nr; at += PART)
		transfer(NULL, false, direct, to + at * PAGE, at);
	range_check(to, nr, 0, version);
	range_check(from, nr, 0, args.passes - 1);
	close(direct);
	close(fd);
}

void test_closefds(void)
{
	size_t nr = args.size / PAGE, i;
	char *mem = map_anon(args.size);
	unsigned int pass;

	/* Once before anything was paged, then again in the middle of it. */
	for (pass = 0; pass < args.passes; pass++) {
		if (syscall(SYS_close_range, 3, ~0U, 0))
			fail_errno("close_range");
		for (i = 3; i < 1024; i++)
			if (!close(i))
				fail("descriptor %zu was open after close_range", i);
		range_fill(mem, nr, 0, pass);
		range_check(mem, nr, 0, pass);
	}
}
