// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The file tier on real files: every byte that comes back is compared, with
 * io_uring and (in a child that may not use it) without; errors hit exactly
 * the pages they belong to; nothing that is somebody's is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../tier/file.h"
#include "../../tier/head.h"

#define PAGE	SWAP_PAGE_SIZE
#define HEAD	(1UL << 20)
#define MIB	(1UL << 20)
#define SKIPPED 77

static char dir[256];

static const char *in_dir(char buf[512], const char *name)
{
	snprintf(buf, 512, "%s/%s", dir, name);
	return buf;
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%s/vswap-test-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
	if (!mkdtemp(dir) || chmod(dir, 0755))
		return -1;
	return 0;
}

/* Removing the directory fails unless each test took away what it made. */
static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

static u64 mix(u64 x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ULL;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ULL;
	return x ^ x >> 32;
}

/* What a page of slot @slot holds in its @gen-th life. */
static void fill(void *page, u64 slot, u64 gen)
{
	u64 *w = page;

	for (unsigned int i = 0; i < PAGE / sizeof(*w); i++)
		w[i] = mix(slot << 20 ^ gen << 9 ^ i);
}

static bool holds(const void *page, u64 slot, u64 gen)
{
	const u64 *w = page;

	for (unsigned int i = 0; i < PAGE / sizeof(*w); i++)
		if (w[i] != mix(slot << 20 ^ gen << 9 ^ i))
			return false;
	return true;
}

static void *pages(unsigned int nr)
{
	void *p = aligned_alloc(PAGE, nr * PAGE);

	assert_non_null(p);
	memset(p, 0, nr * PAGE);
	return p;
}

/* A file of @size with @data of @len at its front. */
static void make_file(const char *path, u64 size, const void *data, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	if (len)
		assert_int_equal(pwrite(fd, data, len, 0), len);
	assert_int_equal(close(fd), 0);
}

static u64 blocks_of(const char *path)
{
	struct stat st;

	sync();
	assert_int_equal(stat(path, &st), 0);
	return (u64)st.st_blocks * 512;
}

static struct tier_file *must_open(const char *path, u64 size)
{
	char err[256] = "";
	struct tier_file *t = tier_file_open(path, size, err, sizeof(err));

	if (!t)
		fail_msg("%s", err);
	return t;
}

/* Slots [@slot, @slot + @nr), written in one batch with generation @gen. */
static void write_run(struct tier_file *t, u64 slot, unsigned int nr, u64 gen)
{
	struct swap_io io[nr];
	char *buf = pages(nr);

	for (unsigned int i = 0; i < nr; i++) {
		io[i] = (struct swap_io){ slot + i, buf + i * PAGE, 1 };
		fill(io[i].data, slot + i, gen);
	}
	tier_file_ops.write(t, io, nr);
	for (unsigned int i = 0; i < nr; i++)
		assert_int_equal(io[i].error, 0);
	free(buf);
}

static void expect_run(struct tier_file *t, u64 slot, unsigned int nr, u64 gen)
{
	struct swap_io io[nr];
	char *buf = pages(nr);

	for (unsigned int i = 0; i < nr; i++)
		io[i] = (struct swap_io){ slot + i, buf + i * PAGE, 1 };
	tier_file_ops.read(t, io, nr);
	for (unsigned int i = 0; i < nr; i++) {
		assert_int_equal(io[i].error, 0);
		assert_true(holds(io[i].data, slot + i, gen));
	}
	free(buf);
}

/* Run @fn in a child; it exits 0, SKIPPED, or otherwise has failed. */
static void in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == SKIPPED)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* What a child checks: where it was not so, for whoever reads the log. */
#define CHECK(x)                                                                        \
	do {                                                                            \
		if (!(x)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); \
			return 1;                                                       \
		}                                                                       \
	} while (0)

/* ---- batches --------------------------------------------------------- */

#define THREADS	     3
#define THREAD_SLOTS 4096
#define ROUNDS	     60
#define BATCH	     700

struct hammer {
	struct tier_file *t;
	u64 first; /* this thread's slots: [first, first + THREAD_SLOTS) */
	u64 seed;
	u64 gen[THREAD_SLOTS];
	bool bad;
};

static u64 next(struct hammer *h)
{
	return h->seed = mix(h->seed + 0x632be59bd9b4e19bULL);
}

/* A batch of ascending slots: runs of all lengths with gaps of all lengths. */
static unsigned int pick(struct hammer *h, struct swap_io *io)
{
	u64 slot = next(h) % THREAD_SLOTS;
	unsigned int n = 0, want = 1 + next(h) % BATCH;

	if (next(h) % 4 == 0)
		want = 1 + next(h) % 4;
	while (n < want && slot < THREAD_SLOTS) {
		u64 run = next(h) % 3 ? 1 + next(h) % 6 : 1 + next(h) % 600;

		for (; run && n < want && slot < THREAD_SLOTS; run--)
			io[n++].slot = h->first + slot++;
		slot += 1 + next(h) % 8;
	}
	return n;
}

static void *hammer(void *arg)
{
	struct hammer *h = arg;
	struct swap_io *io = calloc(BATCH, sizeof(*io));
	char *buf = aligned_alloc(PAGE, BATCH * 2 * PAGE);

	h->bad = !io || !buf;
	for (unsigned int round = 0; round < ROUNDS && !h->bad; round++) {
		unsigned int n = pick(h, io);
		bool write = round < 4 || next(h) % 2;
		/* Buffers that touch, that do not, and that run backwards. */
		unsigned int layout = next(h) % 3;

		for (unsigned int i = 0; i < n; i++) {
			unsigned int at = layout == 0 ? i : layout == 1 ? 2 * i : n - 1 - i;
			u64 *gen = &h->gen[io[i].slot - h->first];

			io[i].data = buf + at * PAGE;
			io[i].error = 1;
			if (write)
				fill(io[i].data, io[i].slot, ++*gen);
			else
				memset(io[i].data, 0xee, PAGE);
		}
		(write ? tier_file_ops.write : tier_file_ops.read)(h->t, io, n);
		for (unsigned int i = 0; i < n; i++) {
			u64 gen = h->gen[io[i].slot - h->first];

			if (io[i].error || (gen && !holds(io[i].data, io[i].slot, gen)))
				h->bad = true;
			if (!gen && memchr(io[i].data, 0xee, 1))
				h->bad = true;
		}
	}
	free(buf);
	free(io);
	return NULL;
}

/* Threads hammer one file; then its bytes are looked at from outside. */
static int batches(bool uring)
{
	static struct hammer h[THREADS];
	pthread_t thread[THREADS];
	char path[512], err[256], page[PAGE];
	u64 size = HEAD + THREADS * THREAD_SLOTS * PAGE;
	struct tier_file *t;
	int fd;

	make_file(in_dir(path, "batches"), size, NULL, 0);
	t = tier_file_open(path, 0, err, sizeof(err));
	CHECK(t);
	CHECK(tier_file_slots(t) == THREADS * THREAD_SLOTS);
	memset(h, 0, sizeof(h));
	for (unsigned int i = 0; i < THREADS; i++) {
		h[i].t = t;
		h[i].first = i * THREAD_SLOTS;
		h[i].seed = 7 * i + uring;
		CHECK(!pthread_create(&thread[i], NULL, hammer, &h[i]));
	}
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(thread[i], NULL));
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK(!h[i].bad);
	tier_file_describe(t, err, sizeof(err));
	CHECK(!strstr(err, "no io_uring") == uring);

	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	for (u64 slot = 0; slot < THREADS * THREAD_SLOTS; slot++) {
		u64 gen = h[slot / THREAD_SLOTS].gen[slot % THREAD_SLOTS];

		CHECK(pread(fd, page, PAGE, (off_t)(HEAD + slot * PAGE)) == (ssize_t)PAGE);
		CHECK(!gen || holds(page, slot, gen));
	}
	close(fd);
	tier_file_close(t);
	CHECK(!unlink(path));
	return 0;
}

static bool have_uring(void)
{
	/* With no room for parameters a permitted call is told EFAULT. */
	return syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EFAULT;
}

static int refuse_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(*code), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static int batches_with_uring(void)
{
	return have_uring() ? batches(true) : SKIPPED;
}

static int batches_without_uring(void)
{
	CHECK(!refuse_uring());
	CHECK(!have_uring());
	return batches(false);
}

static void test_batches_uring(void **state)
{
	(void)state;
	in_child(batches_with_uring);
}

static void test_batches_plain(void **state)
{
	(void)state;
	in_child(batches_without_uring);
}

/* ---- errors ---------------------------------------------------------- */

/* Every second slot of the first 2 * @nr (so as many runs), or the first @nr as one run. */
static unsigned int spread(struct swap_io *io, char *buf, unsigned int nr, bool scattered)
{
	for (unsigned int i = 0; i < nr; i++)
		io[i] = (struct swap_io){ scattered ? 2 * i : i, buf + i * PAGE, 1 };
	return nr;
}

/* Past @good slots nothing can be written; before, everything. */
static int write_until(struct tier_file *t, u64 good, int want, bool scattered)
{
	struct swap_io io[64];
	char *buf = aligned_alloc(PAGE, 64 * PAGE);
	unsigned int nr, failed = 0;

	CHECK(buf);
	nr = spread(io, buf, 64, scattered);
	for (unsigned int i = 0; i < nr; i++)
		fill(io[i].data, io[i].slot, 5);
	tier_file_ops.write(t, io, nr);
	for (unsigned int i = 0; i < nr; i++) {
		CHECK(io[i].error == (io[i].slot < good ? 0 : want));
		failed += io[i].error != 0;
	}
	CHECK(failed > 0 && failed < nr);
	memset(buf, 0, 64 * PAGE);
	tier_file_ops.read(t, io, nr);
	for (unsigned int i = 0; i < nr; i++)
		CHECK(io[i].slot >= good || (!io[i].error && holds(io[i].data, io[i].slot, 5)));
	free(buf);
	return 0;
}

static int limited(void)
{
	struct rlimit rl = { HEAD + 20 * PAGE, HEAD + 20 * PAGE };
	struct tier_file *t;
	char path[512], err[256];

	make_file(in_dir(path, "limited"), 4 * MIB, NULL, 0);
	t = tier_file_open(path, 0, err, sizeof(err));
	CHECK(t);
	CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	CHECK(!setrlimit(RLIMIT_FSIZE, &rl));
	CHECK(!write_until(t, 20, -EFBIG, false));
	CHECK(!write_until(t, 20, -EFBIG, true));
	tier_file_close(t);
	CHECK(!unlink(path));
	return 0;
}

static int limited_without_uring(void)
{
	CHECK(!refuse_uring());
	return limited();
}

static void test_write_error(void **state)
{
	(void)state;
	in_child(limited);
	in_child(limited_without_uring);
}

static bool over_quota;

/* A file system may have a quota for who writes. */
ssize_t pwritev(int fd, const struct iovec *iov, int nr, off_t offset)
{
	if (!over_quota)
		return syscall(SYS_pwritev, fd, iov, nr, (long)offset, 0L);
	errno = EDQUOT;
	return -1;
}

static void test_quota(void **state)
{
	struct tier_file *t;
	struct swap_io io;
	char path[512], *buf = pages(1);

	(void)state;
	make_file(in_dir(path, "quota"), 4 * MIB, NULL, 0);
	t = must_open(path, 0);
	spread(&io, buf, 1, false);
	over_quota = true;
	tier_file_ops.write(t, &io, 1);
	over_quota = false;
	assert_int_equal(io.error, -ENOSPC);
	tier_file_close(t);
	assert_int_equal(unlink(path), 0);
	free(buf);
}

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* Mounts of our own, as whoever we are. */
static bool own_mounts(void)
{
	unsigned int uid = geteuid(), gid = getegid();
	char users[64], groups[64];

	if (unshare(uid ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS))
		return false;
	snprintf(users, sizeof(users), "0 %u 1", uid);
	snprintf(groups, sizeof(groups), "0 %u 1", gid);
	if (uid && (!put("/proc/self/setgroups", "deny") || !put("/proc/self/uid_map", users) ||
		    !put("/proc/self/gid_map", groups)))
		return false;
	return !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* A filesystem of our own, and it is full. */
static int full(void)
{
	struct tier_file *t;
	struct swap_io io[64];
	char path[512], other[512], err[256], *buf = aligned_alloc(PAGE, 64 * PAGE);
	unsigned int failed = 0;
	int fd;

	if (!own_mounts() || mount("none", dir, "tmpfs", 0, "size=8m"))
		return SKIPPED;
	CHECK(!tier_file_open(in_dir(path, "big"), 9 * MIB, err, sizeof(err)));
	CHECK(strstr(err, "free on its file system"));
	t = tier_file_open(in_dir(path, "tier"), 4 * MIB, err, sizeof(err));
	CHECK(t && tier_file_in_memory(t));
	fd = open(in_dir(other, "other"), O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0 && !posix_fallocate(fd, 0, 8 * MIB - 20 * PAGE));

	CHECK(buf);
	spread(io, buf, 64, true);
	for (unsigned int i = 0; i < 64; i++)
		fill(io[i].data, io[i].slot, 3);
	tier_file_ops.write(t, io, 64);
	for (unsigned int i = 0; i < 64; i++) {
		CHECK(!io[i].error || io[i].error == -ENOSPC);
		failed += io[i].error != 0;
	}
	CHECK(failed >= 44 && failed < 64);
	for (unsigned int i = 0; i < 64; i++) {
		struct swap_io one = { io[i].slot, buf, 1 };

		if (io[i].error)
			continue;
		tier_file_ops.read(t, &one, 1);
		CHECK(!one.error && holds(buf, one.slot, 3));
	}
	tier_file_close(t);
	close(fd);
	free(buf);
	return 0;
}

static void test_full(void **state)
{
	(void)state;
	in_child(full);
}

/* A file cut short under us: the pages that are gone are errors, and only they. */
static void test_read_error(void **state)
{
	struct tier_file *t;
	char path[512], *buf = pages(64);
	struct swap_io io[64];

	(void)state;
	make_file(in_dir(path, "short"), 4 * MIB, NULL, 0);
	t = must_open(path, 0);
	write_run(t, 0, 128, 1);
	assert_int_equal(truncate(path, HEAD + 30 * PAGE + 100), 0);
	for (int scattered = 0; scattered < 2; scattered++) {
		spread(io, buf, 64, scattered);
		tier_file_ops.read(t, io, 64);
		for (unsigned int i = 0; i < 64; i++) {
			assert_int_equal(io[i].error, io[i].slot < 30 ? 0 : -EIO);
			assert_true(io[i].error || holds(io[i].data, io[i].slot, 1));
		}
	}
	tier_file_close(t);
	assert_int_equal(unlink(path), 0);
	free(buf);
}

static void refused(const char *path, u64 size, const char *why)
{
	char err[512] = "";
	struct tier_file *t = tier_file_open(path, size, err, sizeof(err));

	assert_null(t);
	if (!strstr(err, why))
		fail_msg("\"%s\" does not say \"%s\"", err, why);
	assert_non_null(strstr(err, path));
	assert_null(strchr(err, '\n'));
}

/* ---- discard --------------------------------------------------------- */

static void test_discard(void **state)
{
	struct tier_file *t;
	char path[512];
	u64 before, after;
	int fd;

	(void)state;
	make_file(in_dir(path, "sparse"), 8 * MIB, NULL, 0);
	t = must_open(path, 0);
	write_run(t, 0, 512, 1);
	write_run(t, 512, 512, 1);
	before = blocks_of(path);
	tier_file_ops.discard(t, 256, 512);
	after = blocks_of(path);
	assert_true(before >= 4 * MIB && after <= before - 2 * MIB);
	expect_run(t, 0, 256, 1);
	expect_run(t, 768, 256, 1);
	write_run(t, 256, 512, 2);
	expect_run(t, 256, 512, 2);
	tier_file_close(t);
	assert_true(blocks_of(path) < 64 * 1024);
	assert_int_equal(unlink(path), 0);

	/* One that was given all its blocks beforehand keeps them. */
	make_file(in_dir(path, "reserved"), 0, NULL, 0);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(posix_fallocate(fd, 0, 8 * MIB), 0);
	t = must_open(path, 0);
	write_run(t, 0, 512, 1);
	tier_file_ops.discard(t, 0, 512);
	assert_true(blocks_of(path) >= 8 * MIB);
	tier_file_close(t);
	assert_true(blocks_of(path) >= 8 * MIB);
	close(fd);
	assert_int_equal(unlink(path), 0);
}

/* Bytes a file with no name takes that we have open. */
static u64 nameless_blocks(void)
{
	struct stat st;

	for (int fd = 3; fd < 64; fd++)
		if (!fstat(fd, &st) && S_ISREG(st.st_mode) && !st.st_nlink)
			return (u64)st.st_blocks * 512;
	fail();
	return 0;
}

static u64 size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (u64)st.st_size;
}

/* The room goes before the tier is closed, and what was there before is as close leaves it. */
static void test_shrink(void **state)
{
	struct tier_file *t;
	char path[512], err[256];

	(void)state;
	for (int reserved = 0; reserved < 2; reserved++) {
		make_file(in_dir(path, "grown"), 10 * MIB, NULL, 0);
		if (reserved) {
			int fd = open(path, O_RDWR);

			assert_true(fd >= 0 && !posix_fallocate(fd, 0, 10 * MIB));
			close(fd);
		}
		t = must_open(path, 35 * MIB);
		write_run(t, 0, 4096, 1);
		write_run(t, 8192, 512, 1);
		assert_true(blocks_of(path) >= 18 * MIB);
		tier_file_shrink(t);
		assert_int_equal(size_of(path), 10 * MIB);
		if (reserved)
			assert_true(blocks_of(path) >= 10 * MIB);
		else
			assert_true(blocks_of(path) <= HEAD + 64 * 1024);
		/* The head is the last to go, or nobody would know what the rest was. */
		refused(path, 0, "in use");
		tier_file_close(t);
		assert_int_equal(size_of(path), 10 * MIB);
		t = must_open(path, 0);
		tier_file_close(t);
		assert_int_equal(unlink(path), 0);
	}
	t = must_open(in_dir(path, "new"), 32 * MIB);
	assert_true(tier_file_nameless(t));
	tier_file_shrink(t);
	assert_int_equal(nameless_blocks(), 0);
	tier_file_close(t);
	t = must_open(path, 32 * MIB);
	write_run(t, 100, 4096, 1);
	assert_true(nameless_blocks() >= 16 * MIB);
	tier_file_shrink(t);
	assert_int_equal(nameless_blocks(), 0);
	tier_file_close(t);
	/* Not made yet: nothing to give back. */
	t = tier_file_temp(8 * MIB, err, sizeof(err));
	assert_non_null(t);
	tier_file_shrink(t);
	tier_file_close(t);
}

/* ---- what may be used ------------------------------------------------ */

static void test_refused(void **state)
{
	char path[512], sub[600], page[PAGE];
	struct tier_file *t;
	struct stat st;
	int fd;

	(void)state;
	in_dir(path, "f");
	refused(path, 0, "does not exist");
	refused(path, 64, "too small (at least 2 MiB)");
	refused(path, 1ULL << 60, "free on its file system");
	refused(dir, 0, "is a directory");
	refused("/dev/null", 0, "not a file or block device");
	snprintf(sub, sizeof(sub), "%s/no/such", dir);
	refused(sub, 4 * MIB, "its directory: No such file");

	make_file(path, 0, NULL, 0);
	refused(path, 0, "is empty");
	refused(path, 1ULL << 60, "free on its file system");
	assert_int_equal(truncate(path, MIB), 0);
	refused(path, 0, "1 MiB is too small");
	snprintf(sub, sizeof(sub), "%s/f/x", dir);
	refused(sub, 4 * MIB, "Not a directory");

	t = must_open(path, 4 * MIB);
	refused(path, 4 * MIB, "in use by another vswap");
	tier_file_close(t);
	assert_int_equal(unlink(path), 0);

	/* Data in front, in the middle, at the very end: seen, and left alone. */
	fill(page, 1, 1);
	for (int where = 0; where < 3; where++) {
		off_t at = where * (64 * MIB - PAGE) / 2 & ~(PAGE - 1);

		make_file(path, 64 * MIB, NULL, 0);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0);
		assert_int_equal(pwrite(fd, page, PAGE, at), PAGE);
		if (where == 1) /* a middle one lies where a sample is taken */
			assert_int_equal(pwrite(fd, page, PAGE, 32 * MIB), PAGE);
		refused(path, 0, "holds data");
		refused(path, 128 * MIB, "holds data");
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, 64 * MIB);
		memset(page, 0, PAGE);
		assert_int_equal(pread(fd, page, PAGE, at), PAGE);
		assert_true(holds(page, 1, 1));
		close(fd);
		assert_int_equal(unlink(path), 0);
	}
}

/* Others must not write to it, nor be able to take it back. */
static void test_others(void **state)
{
	char path[512];

	(void)state;
	make_file(in_dir(path, "others"), 4 * MIB, NULL, 0);
	for (unsigned int mode = 0; mode < 2; mode++) {
		assert_int_equal(chmod(path, mode ? 0602 : 0620), 0);
		refused(path, 0, "others may write to it (chmod 600 ");
	}
	assert_int_equal(chmod(path, 0644), 0);
	tier_file_close(must_open(path, 0));
	assert_int_equal(chmod(path, 0600), 0);
	tier_file_close(must_open(path, 0));
	if (!geteuid()) {
		assert_int_equal(chown(path, 65534, 65534), 0);
		refused(path, 0, "is another user's");
	}
	assert_int_equal(unlink(path), 0);
}

static int no_permission(void)
{
	char path[512], err[256];
	struct rlimit rl = { 3 * MIB, 3 * MIB };

	make_file(in_dir(path, "readonly"), 4 * MIB, NULL, 0);
	CHECK(!chmod(path, 0444));
	if (!geteuid())
		CHECK(!setresuid(65534, 65534, 65534));
	CHECK(!tier_file_open(path, 0, err, sizeof(err)));
	CHECK(strstr(err, "cannot be written: Permission denied"));
	CHECK(!chmod(dir, 0555) || errno == EPERM);
	CHECK(!tier_file_open(in_dir(path, "new"), 4 * MIB, err, sizeof(err)));
	CHECK(strstr(err, "cannot be made: Permission denied"));
	CHECK(!chmod(dir, 0755) || errno == EPERM);
	CHECK(!setrlimit(RLIMIT_FSIZE, &rl));
	CHECK(!tier_file_open("/var/tmp/vswap-new", 4 * MIB, err, sizeof(err)));
	CHECK(strstr(err, "files may not be larger than 3 MiB"));
	return 0;
}

static void test_no_permission(void **state)
{
	char path[512];

	(void)state;
	in_child(no_permission);
	assert_int_equal(unlink(in_dir(path, "readonly")), 0);
}

/* ---- what is left behind --------------------------------------------- */

static bool all_zero(const char *path)
{
	char page[PAGE], zero[PAGE] = { 0 };
	int fd = open(path, O_RDONLY);
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = read(fd, page, PAGE)) > 0)
		if (memcmp(page, zero, (size_t)n))
			break;
	close(fd);
	return n == 0;
}

static void test_given_back(void **state)
{
	struct tier_file *t;
	char path[512], head[PAGE] = { 0 }, page[PAGE];
	int fd;

	(void)state;
	/* A zero file, used to its end and past it. */
	for (int grow = 0; grow < 2; grow++) {
		make_file(in_dir(path, "zero"), 4 * MIB, NULL, 0);
		t = must_open(path, grow ? 16 * MIB : 0);
		assert_int_equal(tier_file_slots(t), ((grow ? 16 : 4) * MIB - HEAD) / PAGE);
		write_run(t, 0, 512, 1);
		write_run(t, tier_file_slots(t) - 1, 1, 1);
		expect_run(t, 0, 512, 1);
		assert_false(all_zero(path));
		tier_file_close(t);
		assert_int_equal(size_of(path), 4 * MIB);
		assert_true(all_zero(path));
		assert_int_equal(unlink(path), 0);
	}
	/* An empty one. */
	make_file(in_dir(path, "empty"), 0, NULL, 0);
	t = must_open(path, 4 * MIB);
	write_run(t, 0, 256, 1);
	tier_file_close(t);
	assert_int_equal(size_of(path), 0);
	assert_int_equal(unlink(path), 0);

	/* mkswap's head stays; what is after it may go. */
	memcpy(head + PAGE - 10, "SWAPSPACE2", 10);
	head[1024] = 1;
	make_file(in_dir(path, "swap"), 4 * MIB, head, PAGE);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	fill(page, 9, 9);
	assert_int_equal(pwrite(fd, page, PAGE, 3 * MIB), PAGE);
	t = must_open(path, 0);
	write_run(t, 0, 256, 1);
	expect_run(t, 0, 256, 1);
	tier_file_close(t);
	assert_int_equal(pread(fd, page, PAGE, 0), PAGE);
	assert_memory_equal(page, head, PAGE);
	close(fd);
	assert_int_equal(unlink(path), 0);

	/* A path that was not there is not there: not now, not afterwards. */
	t = must_open(in_dir(path, "new"), 4 * MIB);
	assert_int_equal(tier_file_slots(t), 4 * MIB / PAGE);
	assert_int_equal(access(path, F_OK), -1);
	write_run(t, 0, 1024, 1);
	expect_run(t, 0, 1024, 1);
	tier_file_close(t);
	assert_int_equal(access(path, F_OK), -1);
}

/* Of a file that is given in part the rest is the file's, whatever becomes of the tier. */
static void test_part(void **state)
{
	char path[512], head[PAGE] = { 0 }, page[PAGE];
	struct tier_file *t;
	int fd;

	(void)state;
	memcpy(head + PAGE - 10, "SWAPSPACE2", 10);
	head[1024] = 1;
	make_file(in_dir(path, "part"), 8 * MIB, head, PAGE);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	fill(page, 9, 9);
	assert_int_equal(pwrite(fd, page, PAGE, 3 * MIB), PAGE);
	assert_int_equal(pwrite(fd, page, PAGE, 4 * MIB), PAGE);
	t = must_open(path, 4 * MIB);
	write_run(t, 0, 256, 1);
	tier_file_close(t);
	assert_int_equal(pread(fd, page, PAGE, 4 * MIB), PAGE);
	assert_true(holds(page, 9, 9));
	assert_int_equal(pread(fd, page, PAGE, 3 * MIB), PAGE);
	assert_false(holds(page, 9, 9));
	close(fd);
	assert_int_equal(unlink(path), 0);

	/* Of one that was left behind the rest is nobody's: to be had so again and again. */
	head_page(head);
	make_file(in_dir(path, "left"), 8 * MIB, head, PAGE);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, head, PAGE, 8 * MIB - PAGE), PAGE);
	for (unsigned int i = 0; i < 2; i++) {
		t = must_open(path, 4 * MIB);
		write_run(t, 0, 256, 1);
		tier_file_close(t);
	}
	tier_file_close(must_open(path, 0));
	assert_true(all_zero(path));
	close(fd);
	assert_int_equal(unlink(path), 0);
}

/* A killed owner leaves its bytes; the next one knows them for what they are. */
static void test_killed_owner(void **state)
{
	struct tier_file *t;
	char path[512];
	int status, fds[2];
	pid_t pid;
	char c;

	(void)state;
	make_file(in_dir(path, "killed"), 4 * MIB, NULL, 0);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		t = must_open(path, 0);
		write_run(t, 0, 512, 1);
		if (write(fds[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(1);
	}
	assert_int_equal(close(fds[1]), 0);
	assert_int_equal(read(fds[0], &c, 1), 1);
	refused(path, 0, "in use by another vswap");
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(fds[0]);
	assert_false(all_zero(path));
	t = must_open(path, 0);
	assert_true(blocks_of(path) <= HEAD);
	write_run(t, 3, 5, 2);
	expect_run(t, 3, 5, 2);
	tier_file_close(t);
	assert_true(all_zero(path));
	assert_int_equal(unlink(path), 0);
}

/* ---- the temporary file ---------------------------------------------- */

static bool memory_fs(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && fs.f_type == TMPFS_MAGIC;
}

static int temporary(void)
{
	struct tier_file *t;
	struct swap_io io;
	struct rlimit rl = { 64 * MIB, 64 * MIB }, files, none = { 0 };
	char err[256] = "", *page = aligned_alloc(PAGE, PAGE);

	CHECK(page && !setenv("TMPDIR", dir, 1));
	t = tier_file_temp(8 * MIB, err, sizeof(err));
	CHECK(t);
	CHECK(memory_fs(dir) || !strcmp(tier_file_name(t), dir));
	CHECK(tier_file_slots(t) == 8 * MIB / PAGE);
	tier_file_describe(t, err, sizeof(err));
	CHECK(strstr(err, "not made yet"));
	io = (struct swap_io){ 7, page, 1 };
	tier_file_ops.read(t, &io, 1);
	CHECK(io.error == -EIO);
	tier_file_ops.discard(t, 0, 8);
	tier_file_describe(t, err, sizeof(err));
	CHECK(strstr(err, "not made yet"));
	fill(page, 7, 1);
	/* What may pass is no room, so that it is tried again. */
	CHECK(!getrlimit(RLIMIT_NOFILE, &files));
	none.rlim_max = files.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &none));
	tier_file_ops.write(t, &io, 1);
	CHECK(!setrlimit(RLIMIT_NOFILE, &files));
	CHECK(io.error == -ENOSPC);
	tier_file_ops.write(t, &io, 1);
	CHECK(!io.error);
	memset(page, 0, PAGE);
	tier_file_ops.read(t, &io, 1);
	CHECK(!io.error && holds(page, 7, 1));
	tier_file_describe(t, err, sizeof(err));
	CHECK(!strstr(err, "not made yet"));
	tier_file_close(t);

	/* All there is, but not more than a file may be. */
	t = tier_file_temp(0, err, sizeof(err));
	CHECK(t && tier_file_slots(t) > 8 * MIB / PAGE);
	tier_file_close(t);
	CHECK(!setrlimit(RLIMIT_FSIZE, &rl));
	t = tier_file_temp(0, err, sizeof(err));
	CHECK(t && tier_file_slots(t) == 64 * MIB / PAGE);
	io.slot = 64 * MIB / PAGE - 1;
	tier_file_ops.write(t, &io, 1);
	CHECK(!io.error);
	tier_file_close(t);

	/* Memory is avoided where it can be, a wrong TMPDIR does no harm. */
	if (memory_fs("/dev/shm")) {
		CHECK(!setenv("TMPDIR", "/dev/shm", 1));
		t = tier_file_temp(4 * MIB, err, sizeof(err));
		CHECK(t && tier_file_in_memory(t) == memory_fs("/var/tmp"));
		tier_file_close(t);
	}
	CHECK(!setenv("TMPDIR", "/no/such/place", 1));
	t = tier_file_temp(4 * MIB, err, sizeof(err));
	CHECK(t && !strcmp(tier_file_name(t), "/var/tmp"));
	tier_file_close(t);
	free(page);
	return 0;
}

static void test_temporary(void **state)
{
	(void)state;
	in_child(temporary);
}

/* ---- block devices --------------------------------------------------- */

/* Returns the descriptor of a loop device over @path, or -1: not allowed here. */
static int make_loop(const char *path, char dev[64])
{
	struct loop_config conf = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(path, O_RDWR | O_CLOEXEC), nr, fd = -1;

	for (int tries = 0; tries < 20 && ctl >= 0 && file >= 0 && fd < 0; tries++) {
		nr = ioctl(ctl, LOOP_CTL_GET_FREE);
		snprintf(dev, 64, "/dev/loop%d", nr);
		fd = nr < 0 ? -1 : open(dev, O_RDWR | O_CLOEXEC);
		conf.fd = (unsigned int)file;
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &conf)) {
			close(fd);
			fd = -1;
			if (errno != EBUSY)
				break;
		}
	}
	if (ctl >= 0)
		close(ctl);
	if (file >= 0)
		close(file);
	return fd;
}

static void test_block_device(void **state)
{
	struct tier_file *t;
	struct swap_io io[64];
	char path[512], dev[64], page[PAGE], *buf;
	u64 before;
	int loop;

	(void)state;
	make_file(in_dir(path, "disk"), 16 * MIB, NULL, 0);
	loop = make_loop(path, dev);
	if (loop < 0) {
		assert_int_equal(unlink(path), 0);
		skip();
	}
	buf = pages(64);
	refused(dev, 32 * MIB, "has only 16 MiB");
	t = must_open(dev, 0);
	assert_int_equal(tier_file_slots(t), (16 * MIB - HEAD) / PAGE);
	refused(dev, 0, "in use");
	write_run(t, 0, 1024, 1);
	expect_run(t, 0, 1024, 1);
	before = blocks_of(path);
	tier_file_ops.discard(t, 0, 512);
	assert_true(blocks_of(path) <= before - 2 * MIB);
	expect_run(t, 512, 512, 1);

	/* The disk loses its end: an error for the pages there and for no other. */
	assert_int_equal(truncate(path, HEAD + 600 * PAGE), 0);
	for (int scattered = 0; scattered < 2; scattered++) {
		spread(io, buf, 64, scattered);
		for (unsigned int i = 0; i < 64; i++)
			io[i].slot += 570;
		tier_file_ops.read(t, io, 64);
		for (unsigned int i = 0; i < 64; i++) {
			assert_int_equal(io[i].error, io[i].slot < 600 ? 0 : -EIO);
			assert_true(io[i].error || holds(io[i].data, io[i].slot, 1));
		}
	}
	assert_int_equal(truncate(path, 16 * MIB), 0);
	tier_file_close(t);

	/* Its head says whose it was; without that it is data. */
	t = must_open(dev, 8 * MIB);
	tier_file_close(t);
	fill(page, 1, 1);
	assert_int_equal(pwrite(loop, page, PAGE, 0), PAGE);
	refused(dev, 0, "holds data");
	close(loop);
	assert_int_equal(unlink(path), 0);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches_uring), cmocka_unit_test(test_batches_plain),
		cmocka_unit_test(test_write_error),   cmocka_unit_test(test_full),
		cmocka_unit_test(test_read_error),    cmocka_unit_test(test_discard),
		cmocka_unit_test(test_shrink),	      cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_permission), cmocka_unit_test(test_given_back),
		cmocka_unit_test(test_killed_owner),  cmocka_unit_test(test_part),
		cmocka_unit_test(test_quota),	      cmocka_unit_test(test_others),
		cmocka_unit_test(test_temporary),     cmocka_unit_test(test_block_device),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
