// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A tier in a file or on a block device: which one, and whether it may be used.
 *
 * Something that existed before keeps its first MiB for a head (head.h).  A
 * nameless file needs none; its slots begin at 0.
 *
 * File descriptors are close-on-exec, and sizes are kept below RLIMIT_FSIZE, so
 * that no write can raise SIGXFSZ.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "batch.h"
#include "clock.h"
#include "file.h"
#include "head.h"
#include "say.h"

/* Bytes given back at one go, and how long that may take without a rest. */
#define SHRINK_STEP (4ULL << 20)
#define SHRINK_NS   1000000

enum kind {
	NAMELESS, /* ours alone: O_TMPFILE, or unlinked at once */
	REGULAR,
	BLOCK,
};

struct tier_file {
	char *name;
	enum kind kind;
	u64 size;      /* bytes used of it, head included */
	u64 base;      /* byte of slot 0 */
	u64 old_size;  /* REGULAR: what it had, to be given back */
	bool reserved; /* REGULAR: had all its blocks already, and keeps them */
	bool own_head; /* we wrote the head */
	bool in_memory;
	bool readable; /* REGULAR: by other users */
	int dirfd;     /* NAMELESS: where it is to be made, else -1 */
	struct tier_batch *batch;
	pthread_mutex_t lock; /* making the nameless file */
	int fd;		      /* -1: not made yet; set once, under the lock */
	int direct;	      /* set with fd */
	int no_discard;	      /* refused once, so not tried again */
};

static bool fd_in_memory(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) &&
	       (fs.f_type == TMPFS_MAGIC || (unsigned int)fs.f_type == RAMFS_MAGIC);
}

/* The largest file this process may write. */
static u64 size_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_FSIZE, &rl) || rl.rlim_cur == RLIM_INFINITY)
		return INT64_MAX;
	return rl.rlim_cur;
}

/* Bytes free to us on the filesystem of @fd; all of @total too. */
static u64 free_bytes(int fd, u64 *total)
{
	struct statvfs fs;

	if (fstatvfs(fd, &fs)) {
		*total = 0;
		return 0;
	}
	*total = (u64)fs.f_blocks * fs.f_frsize;
	return (u64)fs.f_bavail * fs.f_frsize;
}

/*
 * O_DIRECT where the filesystem takes it.  Some take the flag and refuse the
 * transfer, so one page is read to see.
 */
static int set_direct(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	void *page;
	ssize_t ret;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT))
		return 0;
	page = aligned_alloc(SWAP_PAGE_SIZE, SWAP_PAGE_SIZE);
	if (page) {
		ret = pread(fd, page, SWAP_PAGE_SIZE, 0);
		free(page);
		if (ret >= 0 || (errno != EINVAL && errno != EOPNOTSUPP))
			return 1;
	}
	fcntl(fd, F_SETFL, flags);
	return 0;
}

/* ---- nameless files -------------------------------------------------- */

/* For filesystems without O_TMPFILE: a name nobody else has, and gone again. */
static int make_unlinked(int dirfd)
{
	char name[32];
	u64 rnd;
	int fd;

	do {
		if (getrandom(&rnd, sizeof(rnd), 0) != sizeof(rnd))
			return -1;
		snprintf(name, sizeof(name), ".vswap-%016llx", (unsigned long long)rnd);
		fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd >= 0 && unlinkat(dirfd, name, 0)) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

/* Returns 0 with t->fd open, or -errno. */
static int make_nameless(struct tier_file *t)
{
	int err, fd;

	fd = openat(t->dirfd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT))
		fd = make_unlinked(t->dirfd);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)t->size)) {
		err = -errno;
		close(fd);
		return err;
	}
	__atomic_store_n(&t->direct, set_direct(fd), __ATOMIC_RELAXED);
	__atomic_store_n(&t->fd, fd, __ATOMIC_RELEASE);
	return 0;
}

static int tier_fd(struct tier_file *t)
{
	return __atomic_load_n(&t->fd, __ATOMIC_ACQUIRE);
}

/* The descriptor for writing: a temporary file begins here.  -errno: not now. */
static int tier_fd_make(struct tier_file *t)
{
	int fd = tier_fd(t), ret = 0;

	if (fd >= 0)
		return fd;
	pthread_mutex_lock(&t->lock);
	if (t->fd < 0)
		ret = make_nameless(t);
	pthread_mutex_unlock(&t->lock);
	return ret ? ret : tier_fd(t);
}

/* ---- may it be used? ------------------------------------------------- */

static ssize_t read_at(void *store, void *buf, size_t len, u64 pos)
{
	ssize_t ret;

	do {
		ret = pread(*(int *)store, buf, len, (off_t)pos);
	} while (ret < 0 && errno == EINTR);
	return ret;
}

/* The bytes become zeros without being written.  0, or -1 with errno. */
static int make_zero(int fd, int mode, u64 from, u64 len)
{
	int ret;

	do {
		ret = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)len);
	} while (ret && errno == EINTR);
	return ret;
}

/*
 * Bytes from @from on of a regular file, in its old size and as far as they are
 * ours, become zeros without being written; blocks go back to the filesystem
 * unless they were the file's own from the start.
 */
static int wipe(struct tier_file *t, int fd, u64 from)
{
	int mode = t->reserved ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
	u64 end = t->size < t->old_size ? t->size : t->old_size;

	return from < end ? make_zero(fd, mode, from, end - from) : 0;
}

static int write_head(int fd)
{
	char page[SWAP_PAGE_SIZE];
	ssize_t ret;

	head_page(page);
	do {
		ret = pwrite(fd, page, sizeof(page), 0);
	} while (ret < 0 && errno == EINTR);
	if (ret >= 0 && ret < (ssize_t)sizeof(page))
		errno = ENOSPC;
	return ret == (ssize_t)sizeof(page) ? 0 : -1;
}

/*
 * A file holds what was in memory, and the next to read it takes that for memory again.
 * Returns 0, or -1 with @err filled when others could have their hands in it.
 */
static int refuse_others(struct tier_file *t, const struct stat *st, char *err, size_t len)
{
	if (st->st_uid && st->st_uid != geteuid())
		return tier_say(err, len, EPERM,
				"tier %s: is another user's (chown it, or name another)", t->name);
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return tier_say(err, len, EPERM, "tier %s: others may write to it (chmod 600 %s)",
				t->name, t->name);
	t->readable = st->st_mode & (S_IRGRP | S_IROTH);
	return 0;
}

/* Open what is there.  Returns the descriptor, or -1 with @err filled. */
static int open_there(struct tier_file *t, const struct stat *st, char *err, size_t len)
{
	const char *path = t->name;
	struct stat now;
	int fd;

	if (S_ISDIR(st->st_mode))
		return tier_say(err, len, EISDIR,
				"tier %s: is a directory (name a file in it, with size=)", path);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return tier_say(err, len, EINVAL, "tier %s: not a file or block device (name one)",
				path);
	t->kind = S_ISBLK(st->st_mode) ? BLOCK : REGULAR;

	/* On a device O_EXCL keeps out, and is kept out by, mounts, swap, RAID and others. */
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | (t->kind == BLOCK ? O_EXCL : 0));
	if (fd < 0 && errno == EBUSY)
		return tier_say(err, len, EBUSY,
				"tier %s: in use (unmount it, swapoff it, or name another)", path);
	if (fd < 0 && errno == EROFS)
		return tier_say(err, len, EROFS,
				"tier %s: read-only file system (name a path on another)", path);
	if (fd < 0)
		return tier_say(err, len, errno,
				"tier %s: cannot be written: %s (name one you may write)", path,
				strerror(errno));
	if (fstat(fd, &now) || now.st_dev != st->st_dev || now.st_ino != st->st_ino) {
		close(fd);
		return tier_say(err, len, EAGAIN, "tier %s: was replaced just now (try again)",
				path);
	}
	if (t->kind == REGULAR && flock(fd, LOCK_EX | LOCK_NB)) {
		close(fd);
		return tier_say(err, len, EBUSY,
				"tier %s: in use by another vswap (give each its own)", path);
	}
	if (t->kind == REGULAR && refuse_others(t, &now, err, len)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Settle t->size.  Returns 0, or -1 with @err filled. */
static int settle_size(struct tier_file *t, int fd, const struct stat *st, u64 size, char *err,
		       size_t len)
{
	u64 have = (u64)st->st_size, total, avail, held;
	char a[32], b[32];

	if (t->kind == BLOCK && ioctl(fd, BLKGETSIZE64, &have))
		return tier_say(err, len, errno, "tier %s: size unknown: %s (name another)",
				t->name, strerror(errno));
	t->old_size = have;
	t->size = (size ? size : have) & ~(u64)(SWAP_PAGE_SIZE - 1);
	if (!t->size)
		return tier_say(err, len, EINVAL,
				"tier %s: is empty (give it a size: %s,size=SIZE)", t->name,
				t->name);
	if (t->size < TIER_FILE_MIN)
		return tier_say(err, len, EINVAL, "tier %s: %s is too small (at least %s)", t->name,
				tier_human(size ? size : have, a), tier_human(TIER_FILE_MIN, b));
	if (t->kind == BLOCK) {
		if (t->size > have)
			return tier_say(err, len, EINVAL,
					"tier %s: has only %s (give a smaller size=)", t->name,
					tier_human(have, a));
		return 0;
	}
	if (t->size > size_limit())
		return tier_say(
			err, len, EFBIG,
			"tier %s: files may not be larger than %s here (ulimit -f, or size=)",
			t->name, tier_human(size_limit(), a));
	held = (u64)st->st_blocks * 512;
	avail = free_bytes(fd, &total);
	t->reserved = have && held >= have;
	if (t->size > held && t->size - held > avail)
		return tier_say(err, len, ENOSPC,
				"tier %s: only %s free on its file system (give a smaller size=)",
				t->name, tier_human(avail + held, a));
	return 0;
}

/* Returns 0, or -1 with @err filled when what is in there must not be overwritten. */
static int refuse_data(const struct tier_file *t, enum head_content c, char *err, size_t len)
{
	if (c == HEAD_UNREADABLE)
		return tier_say(err, len, errno, "tier %s: cannot be read: %s (name another)",
				t->name, strerror(errno));
	if (c == HEAD_DATA)
		return tier_say(err, len, EINVAL,
				"tier %s: holds data (if it may be overwritten: mkswap %s)",
				t->name, t->name);
	return 0;
}

/* Make the head, and the file as large as it shall be.  Closing undoes it. */
static int take_over(struct tier_file *t, int fd, enum head_content c, char *err, size_t len)
{
	int ret = 0;

	t->base = HEAD_BYTES;
	/* The kernel turns this down on a file it swaps to; otherwise it is optional. */
	if (c != HEAD_EMPTY && t->kind == REGULAR && wipe(t, fd, HEAD_BYTES) && errno == ETXTBSY)
		return tier_say(err, len, EBUSY,
				"tier %s: the kernel swaps to it (swapoff it first)", t->name);
	if (t->kind == REGULAR && t->size > t->old_size)
		ret = ftruncate(fd, (off_t)t->size);
	if (!ret && c != HEAD_SWAP) {
		/* It goes with the last of what it speaks of. */
		t->own_head = c == HEAD_EMPTY || t->size >= t->old_size;
		ret = write_head(fd);
	}
	if (ret)
		return tier_say(err, len, errno, "tier %s: cannot be written: %s (name another)",
				t->name, strerror(errno));
	return 0;
}

/* Nothing there yet: a nameless file of @size in the directory it would be in. */
static int open_new(struct tier_file *t, u64 size, char *err, size_t len)
{
	const char *slash = strrchr(t->name, '/');
	char *dir = slash ? strndup(t->name, (size_t)(slash - t->name) + 1) : strdup(".");
	u64 avail, total;
	char a[32], b[32];
	int ret;

	if (!dir)
		return tier_say(err, len, ENOMEM, "tier %s: %s", t->name, strerror(ENOMEM));
	t->dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (t->dirfd < 0)
		return tier_say(err, len, errno, "tier %s: its directory: %s (make it first)",
				t->name, strerror(errno));
	if (!size)
		return tier_say(err, len, ENOENT,
				"tier %s: does not exist (to have it made: %s,size=SIZE)", t->name,
				t->name);
	if (size < TIER_FILE_MIN)
		return tier_say(err, len, EINVAL, "tier %s: %s is too small (at least %s)", t->name,
				tier_human(size, a), tier_human(TIER_FILE_MIN, b));
	t->size = size & ~(u64)(SWAP_PAGE_SIZE - 1);
	if (t->size > size_limit())
		return tier_say(
			err, len, EFBIG,
			"tier %s: files may not be larger than %s here (ulimit -f, or size=)",
			t->name, tier_human(size_limit(), a));
	avail = free_bytes(t->dirfd, &total);
	if (t->size > avail)
		return tier_say(err, len, ENOSPC,
				"tier %s: only %s free on its file system (give a smaller size=)",
				t->name, tier_human(avail, a));
	t->in_memory = fd_in_memory(t->dirfd);
	ret = make_nameless(t);
	if (ret)
		return tier_say(err, len, -ret,
				"tier %s: cannot be made: %s (name a path you may write)", t->name,
				strerror(-ret));
	return 0;
}

static struct tier_file *tier_new(const char *name)
{
	struct tier_file *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = -1;
	t->dirfd = -1;
	t->kind = NAMELESS;
	t->name = strdup(name);
	t->batch = tier_batch_new();
	if (!t->name || !t->batch || pthread_mutex_init(&t->lock, NULL)) {
		tier_batch_free(t->batch);
		free(t->name);
		free(t);
		return NULL;
	}
	return t;
}

struct tier_file *tier_file_open(const char *path, u64 size, char *err, size_t errlen)
{
	struct tier_file *t = tier_new(path);
	enum head_content what = HEAD_DATA;
	struct stat st;
	int fd, ret;

	if (!t) {
		tier_say(err, errlen, ENOMEM, "tier %s: %s", path, strerror(ENOMEM));
		return NULL;
	}
	if (stat(path, &st)) {
		if (errno == ENOENT)
			ret = open_new(t, size, err, errlen);
		else
			ret = tier_say(err, errlen, errno,
				       "tier %s: %s (name a path you may write)", path,
				       strerror(errno));
		goto out;
	}
	fd = open_there(t, &st, err, errlen);
	if (fd < 0) {
		ret = -1;
		goto out;
	}
	ret = settle_size(t, fd, &st, size, err, errlen);
	if (!ret) {
		what = head_look(read_at, &fd, t->old_size);
		ret = refuse_data(t, what, err, errlen);
	}
	if (ret) {
		/* Not ours: it must not see what tier_file_close() does to a tier. */
		close(fd);
		goto out;
	}
	t->fd = fd;
	ret = take_over(t, fd, what, err, errlen);
	t->in_memory = t->kind == REGULAR && fd_in_memory(fd);
	t->direct = set_direct(fd);
out:
	if (ret) {
		tier_file_close(t);
		return NULL;
	}
	return t;
}

/* A directory for a temporary file: returns an O_PATH descriptor or -1 with errno. */
static int open_dir(const char *dir)
{
	int fd, err;

	if (!dir || !*dir) {
		errno = ENOENT;
		return -1;
	}
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS)) {
		err = errno;
		close(fd);
		errno = err;
		fd = -1;
	}
	return fd;
}

struct tier_file *tier_file_temp(u64 size, char *err, size_t errlen)
{
	static const char var_tmp[] = "/var/tmp";
	const char *dir = getenv("TMPDIR");
	u64 avail, total, reserve;
	struct tier_file *t;
	char a[32];
	int fd, other;

	fd = open_dir(dir);
	if (fd < 0 || fd_in_memory(fd)) {
		other = open_dir(var_tmp);
		if (other < 0 && fd < 0) {
			tier_say(
				err, errlen, errno,
				"temporary file in %s: %s (set TMPDIR, or give --tier or --no-tier)",
				var_tmp, strerror(errno));
			return NULL;
		}
		if (other >= 0 && (fd < 0 || !fd_in_memory(other))) {
			if (fd >= 0)
				close(fd);
			fd = other;
			dir = var_tmp;
		} else if (other >= 0) {
			close(other);
		}
	}
	t = tier_new(dir);
	if (!t) {
		tier_say(err, errlen, ENOMEM, "temporary file in %s: %s", dir, strerror(ENOMEM));
		close(fd);
		return NULL;
	}
	t->dirfd = fd;
	t->in_memory = fd_in_memory(fd);

	avail = free_bytes(fd, &total);
	reserve = total / 20 < (1ULL << 30) ? total / 20 : 1ULL << 30;
	avail = avail > reserve ? avail - reserve : 0;
	if (!size || size > avail)
		size = avail;
	if (size > size_limit())
		size = size_limit();
	t->size = size & ~(u64)(SWAP_PAGE_SIZE - 1);
	if (t->size < TIER_FILE_MIN) {
		tier_say(
			err, errlen, ENOSPC,
			"temporary file in %s: only %s free (set TMPDIR, or give --tier or --no-tier)",
			dir, tier_human(t->size, a));
		tier_file_close(t);
		return NULL;
	}
	return t;
}

/* The last of @end bytes, from @from on, back to the filesystem.  0, or -1. */
static int give_back(struct tier_file *t, u64 from, u64 end)
{
	int ret;

	if (t->kind == REGULAR && end <= t->old_size)
		return make_zero(t->fd, FALLOC_FL_PUNCH_HOLE, from, end - from);
	do {
		ret = ftruncate(t->fd, (off_t)from);
	} while (ret && errno == EINTR);
	return ret;
}

void tier_file_shrink(struct tier_file *t)
{
	u64 end = t->size, bottom, start, took;

	if (t->fd < 0 || t->kind == BLOCK)
		return;
	bottom = t->reserved && t->old_size > t->base ? t->old_size : t->base;
	while (end > bottom) {
		u64 from = end - bottom > SHRINK_STEP ? end - SHRINK_STEP : bottom;

		/* A piece is cut off or made a hole, not both. */
		if (t->kind == REGULAR && from < t->old_size && end > t->old_size)
			from = t->old_size;
		start = now_ns();
		if (give_back(t, from, end))
			return;
		took = now_ns() - start;
		end = from;
		if (took > SHRINK_NS) {
			struct timespec rest = { .tv_sec = (time_t)(took / SEC),
						 .tv_nsec = (long)(took % SEC) };

			nanosleep(&rest, NULL);
		}
	}
}

void tier_file_close(struct tier_file *t)
{
	int why = errno; /* of one that could not be opened */

	if (!t)
		return;
	/* Where the bytes cannot be dropped the head stays too, and says what they are. */
	if (t->fd >= 0 && t->kind == REGULAR &&
	    (t->size <= t->old_size || !ftruncate(t->fd, (off_t)t->old_size)))
		wipe(t, t->fd, t->own_head ? 0 : t->base);
	if (t->fd >= 0)
		close(t->fd);
	if (t->dirfd >= 0)
		close(t->dirfd);
	tier_batch_free(t->batch);
	pthread_mutex_destroy(&t->lock);
	free(t->name);
	free(t);
	errno = why;
}

/* ---- the tier -------------------------------------------------------- */

u64 tier_file_slots(const struct tier_file *t)
{
	return (t->size - t->base) / SWAP_PAGE_SIZE;
}

const char *tier_file_name(const struct tier_file *t)
{
	return t->name;
}

bool tier_file_in_memory(const struct tier_file *t)
{
	return t->in_memory;
}

bool tier_file_readable(const struct tier_file *t)
{
	return t->readable;
}

bool tier_file_nameless(const struct tier_file *t)
{
	return t->kind == NAMELESS;
}

void tier_file_describe(struct tier_file *t, char *buf, size_t len)
{
	static const char *const kinds[] = {
		[NAMELESS] = "temporary file",
		[REGULAR] = "file",
		[BLOCK] = "block device",
	};

	if (tier_fd(t) < 0) {
		snprintf(buf, len, "temporary file, not made yet");
		return;
	}
	snprintf(buf, len, "%s%s, %s, %s", kinds[t->kind], t->in_memory ? " in memory" : "",
		 __atomic_load_n(&t->direct, __ATOMIC_RELAXED) ? "direct" : "buffered",
		 tier_batch_uring(t->batch) ? "io_uring" : "no io_uring");
}

static void fail_all(struct swap_io *io, unsigned int nr, int err)
{
	for (unsigned int i = 0; i < nr; i++)
		io[i].error = err;
}

/*
 * Why there is no temporary file yet: what may pass is no room, after which the tier is
 * tried again; any other error is for good.
 */
static int why_not_made(int err)
{
	switch (err) {
	case -EDQUOT:
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
	case -EINTR:
		return -ENOSPC;
	default:
		return err;
	}
}

static void file_write(void *priv, struct swap_io *io, unsigned int nr)
{
	struct tier_file *t = priv;
	int fd = tier_fd_make(t);

	if (fd < 0)
		fail_all(io, nr, why_not_made(fd));
	else
		tier_batch_run(t->batch, fd, t->base, io, nr, true);
}

static void file_read(void *priv, struct swap_io *io, unsigned int nr)
{
	struct tier_file *t = priv;
	int fd = tier_fd(t);

	if (fd < 0)
		fail_all(io, nr, -EIO);
	else
		tier_batch_run(t->batch, fd, t->base, io, nr, false);
}

/* Advice: a store that cannot do it loses nothing but room. */
static int file_discard(void *priv, u64 slot, u64 nr)
{
	struct tier_file *t = priv;
	u64 range[2] = { t->base + slot * SWAP_PAGE_SIZE, nr * SWAP_PAGE_SIZE };
	int fd = tier_fd(t), ret;

	if (fd < 0 || t->reserved || __atomic_load_n(&t->no_discard, __ATOMIC_RELAXED))
		return 0;
	do {
		if (t->kind == BLOCK)
			ret = ioctl(fd, BLKDISCARD, range);
		else
			ret = make_zero(fd, FALLOC_FL_PUNCH_HOLE, range[0], range[1]);
	} while (ret && errno == EINTR);
	if (ret && (errno == EOPNOTSUPP || errno == ENOTTY))
		__atomic_store_n(&t->no_discard, 1, __ATOMIC_RELAXED);
	return 0;
}

const struct swap_tier_ops tier_file_ops = {
	.write = file_write,
	.read = file_read,
	.discard = file_discard,
};
