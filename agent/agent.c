/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The part of vswap that lives inside a client.
 *
 * Two things can be done to a page only from within its own process: moving it
 * out of reach in one step (UFFDIO_MOVE) and dropping it (MADV_DONTNEED).  The
 * agent does these two, on the pager's word, and nothing else: no decision is
 * taken here.
 *
 * It runs before main() as an ELF constructor, hands a userfaultfd to the
 * supervisor, takes its traces out of the environment, and leaves one raw
 * thread behind.  That thread has all signals blocked and a file table of its
 * own, so the program can neither interrupt it nor close its descriptors.  It
 * holds a reference to the userfaultfd: should the supervisor die, a touch of
 * an evicted page hangs instead of reading zeros, until the thread sees the
 * socket's end and kills the process.
 *
 * A forked child gets a thread like it, on the memory the parent's was given.
 *
 * No libc, no malloc, no errno, no TLS: all of those are the program's.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

#include "advise.h"
#include "exec.h"
#include "pin.h"
#include "sys.h"
#include "text.h"
#include "throttle.h"
#include "uffd.h"
#include "wire.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define E_AGAIN		11
#define E_BUSY		16
#define E_EXIST		17
#define E_INTR		4
#define E_INVAL		22
#define E_NOENT		2
#define E_NOMEM		12
#define E_PERM		1

#define GATE_TIMEOUT_NS 20000000L
#define FOLLOW_NS	100000L
#define FOLLOW_TRIES	100
#define STACK_BYTES	(32 << 10)
#define EAGAIN_TRIES	64
#define CHILD_REST_NS	10000000L

enum start_step {
	STARTING,
	ALONE, /* the thread has its own file table */
	GO,    /* the pager knows this client: main() may run */
};

static struct {
	int uffd, sock, mem;  /* mem: /proc/self/mem, reads what we may not touch */
	int hold[WIRE_HOLDS]; /* + 1; userfaultfds of forked children */
	struct agent_shared *shared;
	char *frames;
	char *area; /* see make_area() */
	char *staging;
	uint32_t staging_pages;
	char *stack;  /* its end, and a page that is empty in a forked child: throttle.c's */
	char *beacon; /* so is this one, and registered: the pager fills it with a child's number */
	uint32_t step; /* enum start_step, a futex */
	bool fork_waits;
} agent;

/* The linker's: where this object lies. */
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

/* The compiler may call these whatever it is told; hidden, so libc's stay libc's. */
__attribute__((used)) void *memcpy(void *dst, const void *src, size_t n)
{
	void *d = dst;

#if defined(__x86_64__)
	__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
#else
	unsigned long *to = d;
	const unsigned long *from = src;

	for (; n >= sizeof(*to); n -= sizeof(*to))
		*to++ = *from++;
	for (size_t i = 0; i < n; i++)
		((volatile char *)to)[i] = ((const char *)from)[i];
#endif
	return dst;
}

__attribute__((used)) void *memset(void *dst, int c, size_t n)
{
	volatile char *d = dst;

	while (n--)
		*d++ = (char)c;
	return dst;
}

long wire_futex(uint32_t *word, int op, uint32_t val, long timeout_ns)
{
	struct timespec ts = { timeout_ns / 1000000000L, timeout_ns % 1000000000L };

	return sys4(SYS_futex, word, op, val, timeout_ns ? &ts : NULL);
}

static void say(const char *text)
{
	/* The program's stderr as it is now; this thread has none of its own. */
	long fd = sys3(SYS_openat, AT_FDCWD, "/proc/self/fd/2", O_WRONLY | O_APPEND | O_NOCTTY);

	if (fd >= 0) {
		sys3(SYS_write, fd, text, length(text));
		sys1(SYS_close, fd);
	}
}

/* The next number in a list of them, or 0; moves @p behind it. */
static long next_number(const char **p)
{
	long n = 0;

	while (**p && (**p < '0' || **p > '9'))
		(*p)++;
	while (**p >= '0' && **p <= '9')
		n = n * 10 + *(*p)++ - '0';
	return n;
}

/* Reads a small file of /proc into @buf and ends it with a NUL. */
static long slurp(const char *path, char *buf, size_t len)
{
	long fd = sys3(SYS_openat, AT_FDCWD, path, O_RDONLY), n;

	if (fd < 0)
		return fd;
	n = sys3(SYS_read, fd, buf, len - 1);
	sys1(SYS_close, fd);
	buf[n > 0 ? n : 0] = 0;
	return n;
}

static size_t put_number(char *to, long n)
{
	char digits[24];
	size_t i = sizeof(digits), len;

	do {
		digits[--i] = '0' + n % 10;
		n /= 10;
	} while (n);
	len = sizeof(digits) - i;
	memcpy(to, digits + i, len);
	return len;
}

/* A directory's entry as getdents64(2) has it. */
struct dent {
	uint64_t ino, off;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* All that came of this process and live, parents before their children. */
static struct {
	int pid[4096];
	int nr;
	char list[32 << 10]; /* a file of /proc */
	char dents[4096] __attribute__((aligned(8)));
} tree;

/* A zombie has no memory any more; it is left for who waits for it. */
static bool ended(long pid, long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };
	struct {
		int fd;
		short events, revents;
	} p = { .events = 1 /* POLLIN */ };
	long ret;

	p.fd = sys2(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return true;
	ret = sys5(SYS_ppoll, &p, 1, &ts, NULL, 0);
	sys1(SYS_close, p.fd);
	return ret > 0;
}

static void tree_add(long pid)
{
	for (int i = 0; i < tree.nr; i++)
		if (tree.pid[i] == pid)
			return;
	if (tree.nr == sizeof(tree.pid) / sizeof(*tree.pid) || ended(pid, 0))
		return;
	/* That it has no more of them while we look. */
	sys2(SYS_kill, pid, SIGSTOP);
	tree.pid[tree.nr++] = (int)pid;
}

/* Those of each of its threads: a file tells of one. */
static void tree_add_children(long pid)
{
	char path[96];
	size_t n = put_text(path, "/proc/");
	long fd, got;

	n += put_number(path + n, pid);
	n += put_text(path + n, "/task/");
	path[n] = 0;
	fd = sys3(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
	while (fd >= 0 && (got = sys3(SYS_getdents64, fd, tree.dents, sizeof(tree.dents))) > 0)
		for (long at = 0; at < got;) {
			const struct dent *d = (const struct dent *)(tree.dents + at);
			size_t end = n + put_text(path + n, d->name);
			const char *p = tree.list;
			long child;

			at += d->len;
			if (*d->name == '.')
				continue;
			end += put_text(path + end, "/children");
			path[end] = 0;
			if (slurp(path, tree.list, sizeof(tree.list)) > 0)
				while ((child = next_number(&p)))
					tree_add(child);
		}
	if (fd >= 0)
		sys1(SYS_close, fd);
}

/* Are numbers in /proc those that kill(2) takes? */
static bool proc_is_ours(void)
{
	char link[24];
	const char *p = link;
	long n = sys4(SYS_readlinkat, AT_FDCWD, "/proc/self", link, sizeof(link) - 1);

	link[n > 0 ? n : 0] = 0;
	return next_number(&p) == sys0(SYS_getpid);
}

/*
 * Forked children share evicted pages with us, and read zeros once the last
 * userfaultfd of theirs is closed: they go first, and we see them gone.  So do
 * theirs, for nobody would find them then.
 */
static void kill_children(void)
{
	if (!proc_is_ours())
		return;
	for (int round = 0; round < 1000; round++) {
		tree.nr = 0;
		/* Twice: one may have been forked before the stop was heeded. */
		for (int pass = 0; pass < 2; pass++) {
			tree_add_children(sys0(SYS_getpid));
			for (int i = 0; i < tree.nr; i++)
				tree_add_children(tree.pid[i]);
		}
		if (!tree.nr)
			return;
		for (int i = tree.nr; i--;)
			sys2(SYS_kill, tree.pid[i], SIGKILL);
		for (int i = tree.nr; i--;)
			ended(tree.pid[i], 1000);
	}
}

static void die(const char *text) __attribute__((noreturn));
static void die(const char *text)
{
	say(text);
	for (int i = 0; i < WIRE_HOLDS; i++)
		if (agent.hold[i]) {
			kill_children();
			break;
		}
	for (;;)
		sys2(SYS_kill, sys0(SYS_getpid), SIGKILL);
}

#define SUPERVISOR_GONE \
	"vswap: supervisor died: pages of this program are lost with it (killed, start it again)\n"

/* ---- messages -------------------------------------------------------- */

static long send_msg(int sock, struct wire_msg *msg, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		hdr.msg_control = control.buf;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	for (;;) {
		long ret = sys3(SYS_sendmsg, sock, &hdr, MSG_NOSIGNAL);

		if (ret != -E_INTR)
			return ret == (long)sizeof(*msg) ? 0 : ret < 0 ? ret : -5;
	}
}

/*
 * Returns 0, or a negative number at the end of the connection.  Up to @nr
 * descriptors that come along go to @fds, -1 for those that do not.
 */
static long recv_msg(int sock, struct wire_msg *msg, int *fds, int nr)
{
	union {
		char buf[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
	long ret;

	hdr.msg_control = control.buf;
	hdr.msg_controllen = sizeof(control.buf);
	do {
		ret = sys3(SYS_recvmsg, sock, &hdr, MSG_CMSG_CLOEXEC);
	} while (ret == -E_INTR);
	if (ret != (long)sizeof(*msg) || msg->magic != WIRE_MAGIC)
		return -1;
	for (int i = 0; i < nr; i++)
		fds[i] = -1;
	if (hdr.msg_controllen >= CMSG_LEN(sizeof(int)) && control.align.cmsg_type == SCM_RIGHTS &&
	    control.align.cmsg_len <= CMSG_LEN(nr * sizeof(int)))
		memcpy(fds, CMSG_DATA(&control.align), control.align.cmsg_len - CMSG_LEN(0));
	return 0;
}

/* ---- eviction -------------------------------------------------------- */

static void check_supervisor(void)
{
	char c;

	if (sys6(SYS_recvfrom, agent.sock, (long)&c, 1, MSG_PEEK | MSG_DONTWAIT, 0, 0) == 0)
		die(SUPERVISOR_GONE);
}

/* Returns false when the batch was cancelled. */
static bool gate_enter(void)
{
	for (;;) {
		switch (gate_lock(&agent.shared->gate, GATE_TO_MOVE, GATE_TIMEOUT_NS)) {
		case GATE_ENTERED:
			return true;
		case GATE_CANCELLED:
			return false;
		case GATE_TIMEDOUT:
			check_supervisor();
		}
	}
}

static void gate_leave(void)
{
	gate_unlock(&agent.shared->gate, GATE_TO_MOVE);
}

static bool cancelled(void)
{
	return __atomic_load_n(&agent.shared->gate, __ATOMIC_ACQUIRE) & GATE_CANCEL;
}

/* Each is looked at as soon as it is there: what it tells of is done. */
static void set_results(uint32_t first, uint32_t n, enum agent_result what)
{
	while (n--)
		__atomic_store_n(&agent.shared->result[first++], what, __ATOMIC_RELEASE);
}

/* A seccomp filter of all threads is ours, too, and may refuse what nothing else would. */
static long allowed(long ret)
{
	if (ret == -E_PERM)
		__atomic_store_n(&agent.shared->forbidden, 1, __ATOMIC_RELAXED);
	return ret;
}

static bool present(uint64_t addr)
{
	unsigned char vec = 0;

	return allowed(sys3(SYS_mincore, addr, WIRE_PAGE, &vec)) == 0 && (vec & 1);
}

/*
 * Is there a page of a registered range, here or where the kernel has swapped it to?
 * mincore() does not tell what the kernel has swapped from what is nowhere.
 */
static bool has_page(uint64_t addr)
{
	char byte;

	return allowed(sys4(SYS_pread64, agent.mem, &byte, 1, addr)) == 1;
}

/*
 * Staging is registered with the same userfaultfd (a move's destination must
 * be), so dropping its pages would post a REMOVE event for ourselves to wait
 * on.  Taking it off the register for that long avoids it.
 */
static long uffd_register(const char *from, uint32_t pages)
{
	struct uffdio_register reg = {
		.range = { (uint64_t)from, pages * WIRE_PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return sys3(SYS_ioctl, agent.uffd, UFFDIO_REGISTER, &reg);
}

static long staging_register(void)
{
	return uffd_register(agent.staging, agent.staging_pages);
}

static long staging_unlock(void)
{
	return sys2(SYS_munlock, agent.staging, agent.staging_pages * WIRE_PAGE);
}

/*
 * Pages move between mappings of which both are locked or none is.  With all its memory the
 * program has locked staging, and what it wants to stay would go there.  Locked memory is
 * what the kernel takes no such advice for.
 */
static void staging_check(void)
{
	if (sys3(SYS_madvise, agent.staging, WIRE_PAGE, MADV_COLD) == -E_INVAL)
		staging_unlock();
}

static bool staging_drop(uint32_t pages)
{
	if (!allowed(sys3(SYS_madvise, agent.staging, pages * WIRE_PAGE, MADV_DONTNEED)))
		return true;
	/* The program has locked all its memory meanwhile. */
	return !staging_unlock() &&
	       !sys3(SYS_madvise, agent.staging, pages * WIRE_PAGE, MADV_DONTNEED);
}

static void staging_clear(uint32_t pages)
{
	struct uffdio_range all = { (uint64_t)agent.staging, agent.staging_pages * WIRE_PAGE };

	if (!pages)
		return;
	if ((allowed(sys3(SYS_ioctl, agent.uffd, UFFDIO_UNREGISTER, &all)) ||
	     !staging_drop(pages) || allowed(staging_register())) &&
	    !agent.shared->forbidden)
		die("vswap: agent: staging area cannot be cleared: memory can no longer be "
		    "limited (killed)\n");
}

/*
 * Move @n pages to @dst in staging.  Returns how many were; if not all, *err says why.
 *
 * From Linux 6.18 on a move that has to try again within the call does not count what it
 * moves then, comes upon it in staging, and says EEXIST.  What is there and no longer in
 * the program was moved, whatever is said.  (mlockall() fills staging as well, but leaves
 * the program's page where it is.)
 */
static uint32_t move(const char *dst, uint64_t src, uint32_t n, long *err)
{
	struct uffdio_move mv = {
		.dst = (uint64_t)dst,
		.src = src,
		.len = n * WIRE_PAGE,
		.mode = UFFDIO_MOVE_MODE_DONTWAKE,
	};
	uint32_t moved;

	*err = allowed(sys3(SYS_ioctl, agent.uffd, UFFDIO_MOVE, &mv));
	moved = mv.move > 0 ? mv.move / WIRE_PAGE : 0;
	while (moved < n && has_page(mv.dst + moved * WIRE_PAGE) &&
	       !has_page(src + moved * WIRE_PAGE))
		moved++;
	return moved;
}

/*
 * Move pages [first, first + n) of a run to staging.  Returns how many pages
 * were dealt with: moved, or found not to be movable; 0: stop here.
 */
static uint32_t move_chunk(uint64_t addr, uint32_t first, uint32_t n, uint32_t *stage)
{
	const char *dst = agent.staging + *stage * WIRE_PAGE;
	uint32_t moved;
	long err;

	if (!gate_enter())
		return 0;
	/* Pages of two mappings do not go at once: fewer, until they are of one. */
	while (!(moved = move(dst, addr, n, &err)) && err == -E_INVAL && n > 1)
		n /= 2;
	gate_leave();

	for (uint32_t i = 0; i < moved; i++) {
		uint32_t frame = agent.shared->frame[first + i];

		memcpy(agent.frames + frame * WIRE_PAGE, agent.staging + (*stage + i) * WIRE_PAGE,
		       WIRE_PAGE);
	}
	set_results(first, moved, PAGE_GONE);
	*stage += moved;
	if (moved || err == -E_AGAIN)
		return moved;
	if (err == -E_NOENT) {
		set_results(first, 1, PAGE_STAYED);
		return 1;
	}
	if (err == -E_BUSY) {
		set_results(first, 1, PAGE_BUSY);
		return 1;
	}
	/* mlockall() has filled staging as well. */
	if (present((uint64_t)dst)) {
		staging_clear(agent.staging_pages);
		*stage = 0;
		return 0;
	}
	/* The mapping itself does not allow it (EINVAL), or the process is going. */
	set_results(first, n, PAGE_REFUSED);
	return n;
}

static void evict(void)
{
	struct agent_shared *sh = agent.shared;
	uint32_t stage = 0;

	staging_check();
	for (uint32_t r = 0; r < sh->nr_runs; r++) {
		uint64_t addr = sh->run[r].addr;
		uint32_t first = sh->run[r].first;
		uint32_t left = sh->run[r].pages;
		int tries = 0;

		while (left) {
			uint32_t n, done = 1;

			if (cancelled())
				goto out;
			/* A pinned page has stayed, which is what is said of it so far. */
			n = pin_begin(addr, left < CHUNK_PAGES ? left : CHUNK_PAGES, agent.mem);
			if (n)
				done = move_chunk(addr, first, n, &stage);
			pin_end();
			if (!done && ++tries > EAGAIN_TRIES)
				goto out;
			if (!done)
				sys0(SYS_sched_yield);
			addr += done * WIRE_PAGE;
			first += done;
			left -= done;
		}
	}
out:
	staging_clear(stage);
}

static long write_protect(uint64_t addr, uint32_t pages, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { addr, pages * WIRE_PAGE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return allowed(sys3(SYS_ioctl, agent.uffd, UFFDIO_WRITEPROTECT, &wp));
}

/*
 * Drop @n pages, the gate in hand: nobody whose unmapping was heard of too late can
 * map something else there meanwhile, for that event is not read.  Ours is, see
 * agent_shared.  Tells of each what became of it, and returns how many are gone: where
 * the range reaches over several mappings, one of them may not allow it, or is unmapped
 * by now, and those behind it are dropped all the same.
 *
 * What moves other pages there (mremap) tells of it only when it has done so, and
 * MADV_DONTNEED does not look.  But the kernel refuses to protect pages from the
 * beginning of such a change until its event was read, and did not before the drop.
 */
static uint32_t drop(uint64_t addr, uint32_t first, uint32_t n)
{
	struct agent_shared *sh = agent.shared;
	static uint32_t number;
	uint32_t gone = 0;
	long err;

	number += number == UINT32_MAX ? 2 : 1;
	__atomic_store_n(&sh->drop_start, addr, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->drop_end, addr + n * WIRE_PAGE, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->dropping, number, __ATOMIC_RELEASE);
	err = sys3(SYS_madvise, addr, n * WIRE_PAGE, MADV_DONTNEED);
	if (err == -E_NOMEM)
		__atomic_store_n(&sh->hole, number, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < n; i++) {
		/* Also where no error is said: what was split off meanwhile may be left out. */
		bool left = has_page(addr + i * WIRE_PAGE);

		set_results(first + i, 1, !left ? PAGE_GONE : err ? PAGE_REFUSED : PAGE_STAYED);
		gone += !left;
	}
	if (write_protect(addr, n, false) == -E_AGAIN) {
		if (!sh->unsure_end)
			sh->unsure_start = addr;
		sh->unsure_end = addr + n * WIRE_PAGE;
	}
	__atomic_store_n(&sh->dropping, 0, __ATOMIC_RELEASE);
	return gone;
}

/*
 * Where UFFDIO_MOVE is not to be had (by the kernel's age, or for a mapping that
 * is not writable): stop writers, copy, drop.  A write that comes meanwhile
 * waits in the pager for the end of the batch.
 */
static void evict_copy_run(uint64_t addr, uint32_t first, uint32_t n)
{
	struct agent_shared *sh = agent.shared;
	uint32_t copied = 0, gone = 0;
	long ret;

	if (!gate_enter())
		return;
	ret = write_protect(addr, n, true);
	gate_leave();
	if (ret) {
		set_results(first, n, ret == -E_AGAIN ? PAGE_STAYED : PAGE_REFUSED);
		return;
	}
	/* By way of the kernel: a page unmapped by now must not be our crash. */
	while (copied < n && present(addr + copied * WIRE_PAGE) &&
	       sys4(SYS_pread64, agent.mem, agent.frames + sh->frame[first + copied] * WIRE_PAGE,
		    WIRE_PAGE, addr + copied * WIRE_PAGE) == (long)WIRE_PAGE)
		copied++;
	if (copied && gate_enter()) {
		/* Once more: refused while the program is about to unmap something. */
		ret = write_protect(addr, copied, true);
		if (!ret)
			gone = drop(addr, first, copied);
		else
			set_results(first, copied, ret == -E_AGAIN ? PAGE_STAYED : PAGE_REFUSED);
		gate_leave();
	}
	if (gone < n)
		write_protect(addr, n, false);
}

static void evict_copy(void)
{
	struct agent_shared *sh = agent.shared;

	for (uint32_t r = 0; r < sh->nr_runs; r++) {
		const struct agent_run *run = &sh->run[r];

		for (uint32_t i = 0, n; i < run->pages; i += n ? n : 1) {
			uint64_t addr = run->addr + i * WIRE_PAGE;

			if (cancelled())
				return;
			n = run->pages - i;
			n = pin_begin(addr, n < CHUNK_PAGES ? n : CHUNK_PAGES, agent.mem);
			if (n)
				evict_copy_run(addr, run->first + i, n);
			pin_end();
		}
	}
}

static void advise(int advice)
{
	struct agent_shared *sh = agent.shared;

	for (uint32_t r = 0; r < sh->nr_runs && !cancelled(); r++)
		sys3(SYS_madvise, sh->run[r].addr, sh->run[r].pages * WIRE_PAGE, advice);
}

static void step(enum start_step to)
{
	__atomic_store_n(&agent.step, to, __ATOMIC_RELEASE);
	wire_futex(&agent.step, FUTEX_WAKE, 1, 0);
}

static void wait_step(enum start_step until)
{
	uint32_t now;

	while ((now = __atomic_load_n(&agent.step, __ATOMIC_ACQUIRE)) < until)
		wire_futex(&agent.step, FUTEX_WAIT, now, 0);
}

/* The program's files must not stay open because of us. */
static void close_all_but(int fd1, int fd2, int fd3)
{
	unsigned int keep[] = { fd1, fd2, fd3 }, from = 0;

	for (int i = 0; i < 2; i++)
		for (int j = 0; j < 2; j++)
			if (keep[j] > keep[j + 1]) {
				unsigned int swap = keep[j];

				keep[j] = keep[j + 1];
				keep[j + 1] = swap;
			}
	for (int i = 0; i < 3; i++) {
		if (keep[i] > from)
			sys3(SYS_close_range, from, keep[i] - 1, 0);
		from = keep[i] + 1;
	}
	sys3(SYS_close_range, from, ~0u, 0);
}

static void command(void)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_DONE };

	switch (__atomic_load_n(&agent.shared->op, __ATOMIC_ACQUIRE)) {
	case AGENT_EVICT:
		evict();
		break;
	case AGENT_EVICT_COPY:
		evict_copy();
		break;
	case AGENT_POPULATE:
		/* A page shared by a fork stays so until it is written, the child gone or not. */
		advise(MADV_POPULATE_WRITE);
		break;
	case AGENT_PAGEOUT:
		advise(MADV_PAGEOUT);
		break;
	}
	if (send_msg(agent.sock, &msg, -1))
		die(SUPERVISOR_GONE);
}

static void set_name(void)
{
	static const char name[] = "vswap-agent";

	sys5(SYS_prctl, 15 /* PR_SET_NAME */, name, 0, 0, 0);
}

static void handle(const struct wire_msg *msg, int fd)
{
	switch (msg->type) {
	case WIRE_GO:
		step(GO);
		break;
	case WIRE_CMD:
		command();
		break;
	case WIRE_HOLD:
		if (fd >= 0 && msg->hold < WIRE_HOLDS)
			agent.hold[msg->hold] = fd + 1;
		break;
	case WIRE_DROP:
		if (msg->hold < WIRE_HOLDS && agent.hold[msg->hold]) {
			sys1(SYS_close, agent.hold[msg->hold] - 1);
			agent.hold[msg->hold] = 0;
		}
		break;
	}
}

static void serve(void) __attribute__((noreturn));
static void serve(void)
{
	struct wire_msg msg;
	int fd;

	for (;;) {
		if (recv_msg(agent.sock, &msg, &fd, 1))
			die(SUPERVISOR_GONE);
		handle(&msg, fd);
	}
}

static void thread_main(void *unused)
{
	(void)unused;
	set_name();
	if (sys1(SYS_unshare, CLONE_FILES))
		die("vswap: agent: unshare: file table cannot be set apart (killed)\n");
	close_all_but(agent.uffd, agent.sock, agent.mem);
	step(ALONE);
	serve();
}

/* pthread_atfork(), as libc's part of it that is shared. */
extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void),
			     void *dso) __attribute__((weak));

/* ---- start ----------------------------------------------------------- */

static long open_uffd(void)
{
	long fd = sys1(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	long dev, ret;

	if (fd >= 0)
		return fd;
	dev = sys3(SYS_openat, AT_FDCWD, "/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return fd;
	ret = sys3(SYS_ioctl, dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	sys1(SYS_close, dev);
	return ret;
}

static long connect_at(const struct sockaddr_un *addr, unsigned int len)
{
	long fd, ret;

	if (!len)
		return -E_INVAL;
	fd = sys3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	ret = sys3(SYS_connect, fd, addr, len);
	if (ret < 0) {
		sys1(SYS_close, fd);
		return ret;
	}
	return fd;
}

static long connect_to_space(void)
{
	struct wire_where where;
	long fd;

	if (!wire_where(exec_space(), &where))
		return -E_INVAL;
	fd = connect_at(&where.path, where.path_len);
	return fd < 0 ? connect_at(&where.name, where.name_len) : fd;
}

static void put_key(struct wire_msg *hello)
{
	struct wire_where where;

	if (wire_where(exec_space(), &where))
		memcpy(hello->key, where.key, WIRE_KEY);
}

/*
 * guard | staging | guard | stack | a page | beacon | guard: no neighbour may merge with
 * any of it.  A forked child finds all but the stack empty.  No huge pages: moves are by
 * page.
 */
static size_t area_bytes(void)
{
	return agent.staging_pages * WIRE_PAGE + STACK_BYTES + 5 * WIRE_PAGE;
}

static long make_area(void)
{
	size_t staging = agent.staging_pages * WIRE_PAGE;
	char *stack;

	agent.area = map_memory(area_bytes(), PROT_NONE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	if (!agent.area)
		return -1;
	agent.staging = agent.area + WIRE_PAGE;
	stack = agent.staging + staging + WIRE_PAGE;
	agent.stack = stack + STACK_BYTES;
	agent.beacon = agent.stack + WIRE_PAGE;
	if (sys3(SYS_mprotect, agent.staging, staging, PROT_READ | PROT_WRITE) ||
	    sys3(SYS_mprotect, stack, STACK_BYTES + 2 * WIRE_PAGE, PROT_READ | PROT_WRITE))
		return -1;
	sys3(SYS_madvise, agent.staging, staging, MADV_NOHUGEPAGE);
	if (sys3(SYS_madvise, agent.staging, staging, MADV_WIPEONFORK) ||
	    sys3(SYS_madvise, agent.stack, 2 * WIRE_PAGE, MADV_WIPEONFORK))
		return -1;
	return uffd_register(agent.beacon, 1) ? -1 : staging_register();
}

/* What the pager shares with us, but not with a child. */
static long map_shared(int shared, int frames, size_t frames_bytes)
{
	agent.shared = map_memory(SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, shared);
	agent.frames = map_memory(frames_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, frames);
	sys1(SYS_close, shared);
	sys1(SYS_close, frames);
	if (!agent.shared || !agent.frames)
		return -1;
	return sys3(SYS_madvise, agent.shared, SHARED_BYTES, MADV_DONTFORK) ||
	       sys3(SYS_madvise, agent.frames, frames_bytes, MADV_DONTFORK);
}

/* The thread inherits the mask: nothing will ever be delivered to it. */
static long start_thread(void (*fn)(void *))
{
	unsigned long all = ~0UL, old;
	long tid;

	sys4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	tid = sys_thread(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				 CLONE_SYSVSEM,
			 agent.stack, fn, NULL);
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(all));
	return tid;
}

/* All that can fail, in order; the pager tells the user which step did. */
static long set_up(struct wire_msg *ready)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_HELLO };
	long ret = open_uffd();
	int fds[2];

	put_key(&msg);
	if (ret < 0)
		msg.error = -ret;
	agent.uffd = ret;
	agent.mem = sys3(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (agent.mem < 0 && !msg.error)
		msg.error = -agent.mem;
	ret = send_msg(agent.sock, &msg, agent.uffd);
	if (ret || msg.error)
		return -1;
	if (recv_msg(agent.sock, &msg, fds, 2) || msg.type != WIRE_WELCOME || fds[1] < 0)
		return -1;
	agent.staging_pages = msg.staging_pages;
	if (map_shared(fds[0], fds[1], msg.frames_bytes) || make_area())
		return -1;
	throttle_set_up(agent.stack, agent.shared);
	advise_set_up(agent.shared);
	pin_set_up();

	ready->own[0] =
		(struct wire_range){ (uint64_t)__ehdr_start, ((uint64_t)_end + 0xfff) & ~0xfffUL };
	ready->own[1] =
		(struct wire_range){ (uint64_t)agent.area, (uint64_t)agent.area + area_bytes() };
	ret = start_thread(thread_main);
	if (ret < 0)
		return -1;
	ready->tid = ret;
	wait_step(ALONE);
	return 0;
}

/* ---- forked children --------------------------------------------------- */

static void leave(void) __attribute__((noreturn));
static void leave(void)
{
	step(GO);
	for (;;)
		sys1(SYS_exit, 0);
}

/*
 * Without an agent a child is served as well, but gives nothing back: so nothing
 * here is worth its end.  The pager has its userfaultfd from the fork and does not
 * know whose that is; what it answers a fault on it with tells.
 */
static void child_main(void *unused)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_HELLO_CHILD };
	struct timespec rest = { 0, CHILD_REST_NS };
	int fds[3];
	long fd;

	(void)unused;
	set_name();
	if (sys1(SYS_unshare, CLONE_FILES))
		leave();
	sys3(SYS_close_range, 0, ~0u, 0);
	/* Most exec, or are gone, by then; near a limit, they may have passed it. */
	if (!agent.fork_waits)
		sys2(SYS_nanosleep, &rest, NULL);
	fd = connect_to_space();
	if (fd < 0)
		leave();
	put_key(&msg);
	agent.sock = fd;
	agent.mem = sys3(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDONLY | O_CLOEXEC);
	msg.client = *(volatile uint64_t *)agent.beacon;
	msg.tid = sys0(SYS_gettid);
	if (agent.mem < 0 || send_msg(fd, &msg, -1) || recv_msg(fd, &msg, fds, 3) ||
	    msg.type != WIRE_WELCOME || fds[2] < 0)
		leave();
	agent.uffd = fds[2];
	if (map_shared(fds[0], fds[1], msg.frames_bytes))
		leave();
	/* It may have been off the register just as the fork came. */
	if (staging_register())
		leave();
	msg = (struct wire_msg){ .magic = WIRE_MAGIC, .type = WIRE_READY };
	msg.tid = sys0(SYS_gettid);
	/* To be let go, or a first command: it is an agent now. */
	if (send_msg(fd, &msg, -1) || recv_msg(fd, &msg, fds, 1))
		leave();
	throttle_set_up(agent.stack, agent.shared);
	advise_set_up(agent.shared);
	handle(&msg, fds[0]);
	serve();
}

/* Not agent.shared: a child by clone(2) itself has that pointer of its parent's, and no more. */
static void before_fork(void)
{
	const struct timespec pause = { 0, FOLLOW_NS };
	struct agent_shared *sh = control_block();

	/* Without, it is a child that has no agent yet, and what its parent saw holds. */
	if (!sh)
		return;
	/* A fork before this one may not have been followed: is there room for another child? */
	for (int i = 0; i < FOLLOW_TRIES; i++) {
		if (!(__atomic_load_n(&sh->gate, __ATOMIC_ACQUIRE) & GATE_READER))
			break;
		sys2(SYS_nanosleep, &pause, NULL);
	}
	agent.fork_waits = __atomic_load_n(&sh->fork_waits, __ATOMIC_RELAXED);
	__atomic_add_fetch(&sh->forking, 1, __ATOMIC_RELEASE);
}

/* See agent_shared: what this thread does next to its map must not be taken for how it was. */
static void in_parent(void)
{
	const struct timespec pause = { 0, FOLLOW_NS };
	struct agent_shared *sh = control_block();

	while (sh && __atomic_load_n(&sh->keeps, __ATOMIC_RELAXED) &&
	       (__atomic_load_n(&sh->gate, __ATOMIC_ACQUIRE) & GATE_READER ||
		__atomic_load_n(&sh->behind, __ATOMIC_ACQUIRE)))
		sys2(SYS_nanosleep, &pause, NULL);
}

static void in_child(void)
{
	memset(agent.hold, 0, sizeof(agent.hold));
	agent.shared = NULL;
	agent.step = STARTING;
	pin_forked();
	/* No thread to be had: then it has no agent. */
	if (start_thread(child_main) >= 0 && agent.fork_waits)
		wait_step(GO);
}

__attribute__((constructor)) static void agent_start(int argc, char **argv, char **envp)
{
	struct wire_msg ready = { .magic = WIRE_MAGIC, .type = WIRE_READY };
	long sock;

	(void)argc;
	(void)argv;
	exec_set_up();
	if (!exec_take_env(envp))
		return;
	sock = connect_to_space();
	if (sock < 0)
		die("vswap: agent: supervisor cannot be reached (killed before main)\n");
	agent.sock = sock;
	if (set_up(&ready)) {
		ready.error = 12;
		send_msg(sock, &ready, -1);
		/* The supervisor says why and ends this process, unless it has ended first. */
		while (!recv_msg(sock, &ready, NULL, 0))
			;
		die(SUPERVISOR_GONE);
	}
	if (send_msg(sock, &ready, -1))
		die(SUPERVISOR_GONE);
	/* The thread has its own copies; the program gets the numbers. */
	sys1(SYS_close, agent.uffd);
	sys1(SYS_close, agent.sock);
	sys1(SYS_close, agent.mem);
	wait_step(GO);
	if (__register_atfork)
		__register_atfork(before_fork, in_parent, in_child, NULL);
}
