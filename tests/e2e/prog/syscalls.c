/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel reads and writes memory that is swapped out: pipes, sockets,
 * files, getrandom; and the program closes every descriptor it does not know.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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

/*
 * Past the page cache, and by buffers the kernel holds on to: both look pages up and keep
 * them while a device works.
 */
void test_direct(void)
{
	size_t nr = args.size / 4 / PAGE, part = 256, at;
	char *from = map_anon(nr * PAGE), *to = map_anon(nr * PAGE);
	char path[] = "vmtest-file-XXXXXX";
	struct iovec fixed = { to, part * PAGE };
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	unsigned int pass;
	int fd = mkstemp(path), direct = open(path, O_RDWR | O_DIRECT), err;

	/* Not every file system has it: then by way of the cache. */
	if (fd < 0 || (direct < 0 && (errno != EINVAL || (direct = dup(fd)) < 0)) || unlink(path))
		fail_errno(path);
	pressure_init(args.size / 2);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(from, nr, 0, pass);
		pressure();
		for (at = 0; at < nr * PAGE; at += part * PAGE)
			if (pwrite(direct, from + at, part * PAGE, at) != (ssize_t)(part * PAGE))
				fail_errno("write O_DIRECT");
		range_fill(to, nr, nr, pass);
		pressure();
		for (at = 0; at < nr * PAGE; at += part * PAGE)
			if (pread(direct, to + at, part * PAGE, at) != (ssize_t)(part * PAGE))
				fail_errno("read O_DIRECT");
		pressure();
		range_check(to, nr, 0, pass);
		range_check(from, nr, 0, pass);
	}

	pressure();
	err = io_uring_queue_init(4, &ring, 0);
	if (!err)
		err = io_uring_register_buffers(&ring, &fixed, 1);
	/* Forbidden here and there. */
	if (err != -ENOSYS && err != -EPERM) {
		errno = -err;
		if (err)
			fail_errno("io_uring");
		range_check(to, part, 0, pass - 1);
		for (at = 0; at + part <= nr; at += 4 * part) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			pressure();
			io_uring_prep_read_fixed(sqe, direct, to, part * PAGE, at * PAGE, 0);
			if (io_uring_submit_and_wait(&ring, 1) != 1 ||
			    io_uring_wait_cqe(&ring, &cqe) || cqe->res != (int)(part * PAGE))
				fail("io_uring read into a fixed buffer failed");
			io_uring_cqe_seen(&ring, cqe);
			range_check(to, part, at, pass - 1);
		}
		io_uring_queue_exit(&ring);
	}
	pressure();
	range_check(to + part * PAGE, nr - part, part, pass - 1);
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
