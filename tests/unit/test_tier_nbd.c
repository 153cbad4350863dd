// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * NBD tiers against a real nbdkit: that every page comes back as it was, and what
 * happens when the server says no, says nothing, goes away and comes back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/printk.h>

#include "pages.h"
#include "tier/tier.h"

#define PAGE SWAP_PAGE_SIZE
#define HEAD (1 << 20)

/* ---- the server ------------------------------------------------------ */

static char dir[256];

struct server {
	pid_t pid;
	char sock[300], disk[300], uri[400];
};

static void in_dir(char buf[300], const char *name)
{
	snprintf(buf, 300, "%s/%s", dir, name);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%s/vswap-test-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

static void sleep_ms(unsigned int ms)
{
	usleep(ms * 1000);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Run nbdkit with @args, and wait until it listens. */
static void serve(struct server *s, const char *const *args)
{
	const char *argv[32] = { "nbdkit", "-f", "--exit-with-parent", "-U", s->sock, "-P" };
	char ready[300];
	unsigned int n = 6;

	in_dir(s->sock, "sock");
	in_dir(s->disk, "disk");
	in_dir(ready, "ready");
	snprintf(s->uri, sizeof(s->uri), "nbd+unix:///?socket=%s", s->sock);
	unlink(s->sock);
	argv[n++] = ready;
	for (unsigned int i = 0; args[i]; i++)
		argv[n++] = args[i];
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (!s->pid) {
		/* It tells of each error it was told to make. */
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
		execvp(argv[0], (char **)argv);
		_exit(127);
	}
	for (unsigned int i = 0; access(ready, F_OK); i++) {
		assert_true(i < 1000);
		assert_int_equal(waitpid(s->pid, NULL, WNOHANG), 0);
		sleep_ms(10);
	}
	unlink(ready);
}

static void end(struct server *s, int sig)
{
	kill(s->pid, sig);
	kill(s->pid, SIGCONT);
	assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
	unlink(s->sock);
}

/* Not a word from it any more, once this has returned. */
static void stop(struct server *s)
{
	int status;

	kill(s->pid, SIGSTOP);
	assert_int_equal(waitpid(s->pid, &status, WUNTRACED), s->pid);
	assert_true(WIFSTOPPED(status));
}

/* An export of a file, so that a server killed leaves its contents. */
static void serve_disk(struct server *s, u64 size)
{
	const char *args[] = { "file", s->disk, NULL };
	int fd;

	in_dir(s->disk, "disk");
	fd = open(s->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	if (size)
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	serve(s, args);
}

/* ---- pages ----------------------------------------------------------- */

static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static char said[8][256]; /* messages, from the tier's thread */
static unsigned int nr_said;

static void listen_to(const char *line)
{
	pthread_mutex_lock(&said_lock);
	if (nr_said < 8)
		snprintf(said[nr_said], sizeof(said[0]), "%s", line);
	nr_said++;
	pthread_mutex_unlock(&said_lock);
}

/* How many messages had this in them. */
static unsigned int times_said(const char *what)
{
	unsigned int n = 0;

	pthread_mutex_lock(&said_lock);
	for (unsigned int i = 0; i < 8 && i < nr_said; i++)
		n += !!strstr(said[i], what);
	pthread_mutex_unlock(&said_lock);
	return n;
}

static struct tier *must_open(const char *uri, unsigned int timeout)
{
	struct tier_opts opts = { .path = uri, .timeout = timeout };
	char err[512] = "";
	struct tier *t = tier_open(&opts, err, sizeof(err));

	if (!t)
		fail_msg("%s", err);
	nr_said = 0;
	memset(said, 0, sizeof(said));
	compat_printk_to(listen_to);
	return t;
}

static void must_close(struct tier *t)
{
	tier_close(t);
	compat_printk_to(NULL);
}

static void refused(const char *uri, u64 size, const char *why)
{
	struct tier_opts opts = { .path = uri, .size = size };
	char err[512] = "";

	assert_null(tier_open(&opts, err, sizeof(err)));
	if (!strstr(err, why) || strncmp(err, "tier ", 5) || strchr(err, '\n') || !strchr(err, '('))
		fail_msg("%s", err);
}

/* @nr pages of memory, in a row or, when @scattered, none next to another. */
static void make_io(struct swap_io *io, char *mem, u64 slot, unsigned int nr, bool scattered)
{
	for (unsigned int i = 0; i < nr; i++)
		io[i] = (struct swap_io){
			.slot = slot + i,
			.data = mem + (scattered ? (nr - 1 - i) : i) * PAGE,
		};
}

static void write_run(struct tier *t, u64 slot, unsigned int nr, u64 gen, bool scattered, int want)
{
	struct swap_io *io = calloc(nr, sizeof(*io));
	char *mem = aligned_alloc(PAGE, nr * PAGE);

	make_io(io, mem, slot, nr, scattered);
	for (unsigned int i = 0; i < nr; i++)
		page_make(io[i].data, PAGE_NOISE, (slot + i) * 1000 + gen);
	t->ops->write(t->priv, io, nr);
	for (unsigned int i = 0; i < nr; i++)
		assert_int_equal(io[i].error, want);
	free(mem);
	free(io);
}

static void read_run(struct tier *t, u64 slot, unsigned int nr, u64 gen, bool scattered, int want)
{
	struct swap_io *io = calloc(nr, sizeof(*io));
	char *mem = aligned_alloc(PAGE, nr * PAGE), page[PAGE];

	make_io(io, mem, slot, nr, scattered);
	memset(mem, 0xaa, nr * PAGE);
	t->ops->read(t->priv, io, nr);
	for (unsigned int i = 0; i < nr; i++) {
		assert_int_equal(io[i].error, want);
		page_make(page, PAGE_NOISE, (slot + i) * 1000 + gen);
		if (!want)
			assert_memory_equal(io[i].data, page, PAGE);
	}
	free(mem);
	free(io);
}

/* ---- threads at work ------------------------------------------------- */

#define THREADS	   4
#define SLOTS_EACH 512

struct worker {
	struct tier *tier;
	u64 seed, first;
	unsigned int rounds; /* 0: until told to stop */
	bool *stop;
	unsigned int wrong, late, failed, done;
	u8 gen[SLOTS_EACH]; /* 0: unknown */
	pthread_t thread;
};

/* Writes and reads back its own slots, in runs and odd pages; counts what is not right. */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct swap_io io[64];
	char *mem = aligned_alloc(PAGE, 64 * PAGE), page[PAGE];

	for (unsigned int r = 0;
	     w->rounds ? r < w->rounds : !__atomic_load_n(w->stop, __ATOMIC_RELAXED); r++) {
		unsigned int nr = 1 + noise(&w->seed) % 64, at = noise(&w->seed) % SLOTS_EACH;
		bool scattered = noise(&w->seed) % 2, write = noise(&w->seed) % 2, gap = false;
		unsigned int n = 0;

		for (unsigned int i = 0; n < nr && at + i < SLOTS_EACH; i++) {
			gap = noise(&w->seed) % 16 == 0;
			if (gap || (!write && !w->gen[at + i]))
				continue;
			io[n] = (struct swap_io){ .slot = w->first + at + i,
						  .data = mem + (scattered ? 63 - n : n) * PAGE };
			n++;
		}
		for (unsigned int i = 0; write && i < n; i++) {
			u8 *gen = &w->gen[io[i].slot - w->first];

			*gen = *gen == 255 ? 1 : *gen + 1;
			page_make(io[i].data, PAGE_NOISE, io[i].slot * 1000 + *gen);
		}
		if (write)
			w->tier->ops->write(w->tier->priv, io, n);
		else
			w->tier->ops->read(w->tier->priv, io, n);
		for (unsigned int i = 0; i < n; i++) {
			u8 *gen = &w->gen[io[i].slot - w->first];

			page_make(page, PAGE_NOISE, io[i].slot * 1000 + *gen);
			if (io[i].error == -EAGAIN && write) {
				*gen = 0;
				w->late++;
			} else if (io[i].error) {
				w->failed++;
			} else if (!write) {
				w->wrong += !!memcmp(io[i].data, page, PAGE);
			}
		}
		w->done++;
	}
	free(mem);
	return NULL;
}

static struct worker *start(struct tier *t, unsigned int rounds, bool *stop)
{
	struct worker *w = calloc(THREADS, sizeof(*w));

	for (unsigned int i = 0; i < THREADS; i++) {
		w[i].tier = t;
		w[i].seed = 77 + i;
		w[i].first = (u64)i * SLOTS_EACH;
		w[i].rounds = rounds;
		w[i].stop = stop;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	return w;
}

static void join(struct worker *w)
{
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].wrong, 0);
		assert_int_equal(w[i].failed, 0);
		assert_true(w[i].done > 0);
	}
	free(w);
}

/* ---- tests ----------------------------------------------------------- */

static void test_contents(void **state)
{
	const char *args[] = { "memory", "64M", NULL };
	struct server s;
	struct tier *t;

	(void)state;
	serve(&s, args);
	t = must_open(s.uri, 0);
	assert_int_equal(t->nr_slots, ((64 << 20) - HEAD) / PAGE);
	assert_string_equal(t->name, s.uri);
	/* First and last of it, and more than there are commands and buffers. */
	write_run(t, 0, 1, 1, false, 0);
	write_run(t, t->nr_slots - 1, 1, 2, false, 0);
	write_run(t, 100, 4000, 3, true, 0);
	read_run(t, 100, 4000, 3, true, 0);
	read_run(t, 100, 4000, 3, false, 0);
	read_run(t, 0, 1, 1, false, 0);
	read_run(t, t->nr_slots - 1, 1, 2, false, 0);
	join(start(t, 300, NULL));
	assert_int_equal(times_said(""), 0);
	must_close(t);
	/* What a vswap left behind may be overwritten. */
	must_close(must_open(s.uri, 0));
	end(&s, SIGTERM);
}

/* Neighbours make large transfers, wherever they lie in memory. */
static void test_joined(void **state)
{
	char file[300], param[320], line[256];
	const char *args[] = { "--filter=stats", "memory", "64M", param, NULL };
	unsigned int writes = 0, reads = 0;
	struct server s;
	struct tier *t;
	FILE *f;

	(void)state;
	in_dir(file, "stats");
	snprintf(param, sizeof(param), "statsfile=%s", file);
	serve(&s, args);
	t = must_open(s.uri, 0);
	write_run(t, 0, 1024, 1, false, 0);
	write_run(t, 1024, 1024, 1, true, 0);
	read_run(t, 0, 1024, 1, false, 0);
	read_run(t, 1024, 1024, 1, true, 0);
	must_close(t);
	end(&s, SIGTERM);
	f = fopen(file, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "write: %u ops", &writes);
		sscanf(line, "read: %u ops", &reads);
	}
	fclose(f);
	unlink(file);
	/* 4 of 1 MiB each, 32 of 128 KiB, and what looking at the export and owning it takes. */
	assert_in_range(writes, 4 + 32, 4 + 32 + 10);
	assert_in_range(reads, 4 + 32, 4 + 32 + 80);
}

static void test_refused(void **state)
{
	const char *read_only[] = { "-r", "memory", "64M", NULL };
	const char *small[] = { "memory", "1M", NULL };
	const char *fine[] = { "memory", "8M", NULL };
	const char *data[] = { "pattern", "64M", NULL };
	const char *cow[] = { "--filter=cow", "pattern", "64M", NULL };
	const char *coarse[] = { "--filter=blocksize-policy",
				 "memory",
				 "64M",
				 "blocksize-minimum=64K",
				 "blocksize-preferred=64K",
				 "blocksize-maximum=1M",
				 NULL };
	struct server s;

	(void)state;
	refused("nbd+unix:///?socket=/nonexistent/socket", 0, "No such file");
	refused("nbd://127.0.0.1:1/", 0, "refused");
	refused("nbd+unix:///x", 0, "");
	refused("nbds://127.0.0.1/", 0, "unknown kind of address");
	serve(&s, read_only);
	refused(s.uri, 0, "read-only");
	end(&s, SIGTERM);
	serve(&s, small);
	refused(s.uri, 0, "too small (at least 2 MiB)");
	end(&s, SIGTERM);
	serve(&s, fine);
	refused(s.uri, 1 << 20, "too small");
	refused(s.uri, 16 << 20, "has only 8 MiB");
	must_close(must_open(s.uri, 0));
	end(&s, SIGTERM);
	serve(&s, data);
	refused(s.uri, 0, "read-only");
	end(&s, SIGTERM);
	serve(&s, cow);
	refused(s.uri, 0, "holds data");
	end(&s, SIGTERM);
	serve(&s, coarse);
	refused(s.uri, 0, "larger than a page");
	end(&s, SIGTERM);
}

/* A server that accepts and says nothing. */
static void test_mute(void **state)
{
	struct server s;
	double from;

	(void)state;
	serve_disk(&s, 64 << 20);
	stop(&s);
	from = now();
	{
		struct tier_opts opts = { .path = s.uri, .timeout = 2 };
		char err[512] = "";

		assert_null(tier_open(&opts, err, sizeof(err)));
		assert_non_null(strstr(err, "no answer"));
	}
	assert_true(now() - from < 5);
	end(&s, SIGKILL);
	unlink(s.disk);
}

static void touch(const char *path)
{
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

/* What the server answers is what the caller is told. */
static void test_errors(void **state)
{
	char bad[300], full[300], bad_file[320], full_file[320];
	const char *reads[] = { "--filter=error",     "memory", "64M", "error-pread=EIO",
				"error-pread-rate=1", bad_file, NULL };
	const char *writes[] = { "--filter=error",	"memory",  "64M", "error-pwrite=ENOSPC",
				 "error-pwrite-rate=1", full_file, NULL };
	struct server s;
	struct tier *t;

	(void)state;
	in_dir(bad, "bad");
	in_dir(full, "full");
	snprintf(bad_file, sizeof(bad_file), "error-pread-file=%s", bad);
	snprintf(full_file, sizeof(full_file), "error-pwrite-file=%s", full);
	serve(&s, reads);
	t = must_open(s.uri, 0);
	write_run(t, 0, 300, 1, true, 0);
	touch(bad);
	read_run(t, 0, 300, 1, true, -EIO);
	unlink(bad);
	read_run(t, 0, 300, 1, true, 0);
	assert_false(t->ops->away(t->priv));
	must_close(t);
	end(&s, SIGTERM);

	serve(&s, writes);
	t = must_open(s.uri, 0);
	write_run(t, 0, 300, 1, true, 0);
	touch(full);
	write_run(t, 300, 300, 1, false, -ENOSPC);
	read_run(t, 0, 300, 1, false, 0);
	unlink(full);
	write_run(t, 300, 300, 2, false, 0);
	read_run(t, 300, 300, 2, false, 0);
	assert_int_equal(times_said(""), 0);
	must_close(t);
	end(&s, SIGTERM);
}

/* A page that cannot be read takes none of its neighbours along. */
static void test_bad_page(void **state)
{
	/* The byte at 1 MiB + 10 pages. */
	const char *args[] = { "eval",
			       "get_size=echo 4M",
			       "can_write=exit 0",
			       "pwrite=cat >/dev/null",
			       "pread=if [ $4 -le 1089536 ] && [ $(($4 + $3)) -gt 1089536 ]; then\n"
			       "echo EIO >&2; exit 1; fi; head -c $3 /dev/zero",
			       NULL };
	char *mem = aligned_alloc(PAGE, 32 * PAGE);
	struct swap_io io[32];
	struct server s;
	struct tier *t;

	(void)state;
	serve(&s, args);
	t = must_open(s.uri, 0);
	make_io(io, mem, 0, 32, false);
	t->ops->read(t->priv, io, 32);
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(io[i].error, i == 10 ? -EIO : 0);
	free(mem);
	must_close(t);
	end(&s, SIGTERM);
}

static bool until(bool (*what)(struct tier *t), struct tier *t, double seconds)
{
	double from = now();

	while (!what(t) && now() - from < seconds)
		sleep_ms(10);
	return what(t);
}

static bool is_away(struct tier *t)
{
	return t->ops->away(t->priv);
}

static bool is_there(struct tier *t)
{
	return !t->ops->away(t->priv);
}

/* Killed and started again under load: nobody sees anything but time. */
static void test_restarted(void **state)
{
	bool stop = false;
	struct worker *w;
	struct server s;
	struct tier *t;

	(void)state;
	serve_disk(&s, 64 << 20);
	t = must_open(s.uri, 0);
	w = start(t, 0, &stop);
	for (unsigned int i = 0; i < 3; i++) {
		sleep_ms(300);
		end(&s, SIGKILL);
		assert_true(until(is_away, t, 5));
		sleep_ms(200 * i);
		serve_disk(&s, 0);
		assert_true(until(is_there, t, 5));
	}
	sleep_ms(200);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	join(w);
	/* One message each time it goes, one each time it is back. */
	assert_int_equal(times_said(""), 6);
	assert_int_equal(times_said("wait for the server"), 3);
	assert_int_equal(times_said("is back\n"), 3);
	must_close(t);
	end(&s, SIGTERM);
	unlink(s.disk);
}

/* Gone for longer than the limit, or there and mute: errors, in time; then back. */
static void gone(bool mute)
{
	struct server s;
	struct tier *t;
	double from;

	serve_disk(&s, 64 << 20);
	t = must_open(s.uri, 2);
	write_run(t, 0, 200, 1, true, 0);
	if (mute)
		stop(&s);
	else
		end(&s, SIGKILL);
	/* The page can go elsewhere. */
	from = now();
	write_run(t, 200, 10, 1, false, -EAGAIN);
	assert_true(now() - from < 1.9);
	assert_true(is_away(t));
	read_run(t, 0, 200, 1, false, -ETIMEDOUT);
	assert_in_range((long)((now() - from) * 1000), 1900, 4000);
	assert_true(times_said("pages on it cannot be read"));
	/* From now on nobody waits. */
	from = now();
	read_run(t, 0, 10, 1, false, -ETIMEDOUT);
	write_run(t, 0, 10, 2, false, -ETIMEDOUT);
	t->ops->discard(t->priv, 0, 100);
	assert_true(now() - from < 0.2);
	if (mute)
		end(&s, SIGKILL);
	serve_disk(&s, 0);
	assert_true(until(is_there, t, 5));
	read_run(t, 0, 200, 1, false, 0);
	write_run(t, 0, 200, 3, false, 0);
	read_run(t, 0, 200, 3, false, 0);
	assert_int_equal(times_said(""), 3);
	must_close(t);
	end(&s, SIGTERM);
	unlink(s.disk);
}

static void test_gone(void **state)
{
	(void)state;
	gone(false);
}

static void test_hangs(void **state)
{
	(void)state;
	gone(true);
}

/* One that comes back and can do less is not asked for more. */
static void test_lesser(void **state)
{
	struct server s;
	const char *args[] = { "--filter=blocksize-policy",
			       "file",
			       s.disk,
			       "blocksize-minimum=1",
			       "blocksize-preferred=4K",
			       "blocksize-maximum=64K",
			       "blocksize-error-policy=error",
			       NULL };
	struct tier *t;

	(void)state;
	serve_disk(&s, 64 << 20);
	t = must_open(s.uri, 0);
	write_run(t, 0, 512, 1, false, 0);
	end(&s, SIGKILL);
	assert_true(until(is_away, t, 5));
	serve(&s, args);
	assert_true(until(is_there, t, 5));
	write_run(t, 512, 512, 1, false, 0);
	read_run(t, 0, 1024, 1, false, 0);
	must_close(t);
	end(&s, SIGTERM);
	unlink(s.disk);
	/* Nor is one that is looked at for the first time. */
	touch(s.disk);
	assert_int_equal(truncate(s.disk, 64 << 20), 0);
	serve(&s, args);
	t = must_open(s.uri, 0);
	write_run(t, 0, 512, 1, false, 0);
	read_run(t, 0, 512, 1, false, 0);
	must_close(t);
	end(&s, SIGTERM);
	unlink(s.disk);
}

static void *read_apart(void *arg)
{
	struct swap_io io[100];
	char *mem = aligned_alloc(PAGE, 100 * PAGE), page[PAGE];
	struct worker *w = arg;

	for (unsigned int i = 0; i < 100; i++)
		io[i] = (struct swap_io){ .slot = 2 * i, .data = mem + i * PAGE };
	w->tier->ops->read(w->tier->priv, io, 100);
	for (unsigned int i = 0; i < 100; i++) {
		page_make(page, PAGE_NOISE, 2 * i * 1000 + 1);
		w->failed += !!io[i].error;
		w->wrong += !!memcmp(io[i].data, page, PAGE);
	}
	free(mem);
	return NULL;
}

static void *discard(void *arg)
{
	struct worker *w = arg;

	w->tier->ops->discard(w->tier->priv, 1000, 10);
	return NULL;
}

/* Where reads that wait take all there is a write does not wait with them, nor a discard. */
static void test_beside_reads(void **state)
{
	struct worker reader = { 0 }, other = { 0 };
	struct server s;
	struct tier *t;
	double from;

	(void)state;
	serve_disk(&s, 64 << 20);
	t = reader.tier = other.tier = must_open(s.uri, 8);
	write_run(t, 0, 200, 1, false, 0);
	stop(&s);
	assert_int_equal(pthread_create(&reader.thread, NULL, read_apart, &reader), 0);
	sleep_ms(200);
	from = now();
	assert_int_equal(pthread_create(&other.thread, NULL, discard, &other), 0);
	write_run(t, 200, 100, 1, true, -EAGAIN);
	write_run(t, 200, 10, 1, false, -EAGAIN);
	assert_int_equal(pthread_join(other.thread, NULL), 0);
	assert_true(now() - from < 6);
	end(&s, SIGKILL);
	serve_disk(&s, 0);
	assert_int_equal(pthread_join(reader.thread, NULL), 0);
	assert_int_equal(reader.failed + reader.wrong, 0);
	must_close(t);
	end(&s, SIGTERM);
	unlink(s.disk);
}

/* A server that comes back without what was on it says so, and cannot be taken for the old one. */
static void test_forgetful(void **state)
{
	const char *args[] = { "memory", "64M", NULL };
	const char *smaller[] = { "memory", "32M", NULL };
	struct server s;
	struct tier *t;

	(void)state;
	serve(&s, args);
	t = must_open(s.uri, 2);
	end(&s, SIGKILL);
	assert_true(until(is_away, t, 5));
	serve(&s, smaller);
	sleep_ms(600);
	assert_true(is_away(t));
	end(&s, SIGKILL);
	serve(&s, args);
	assert_true(until(is_there, t, 5));
	assert_true(times_said("not what was on it"));
	must_close(t);
	end(&s, SIGTERM);
}

/* One export, one vswap; but one that was killed does not keep it. */
static void test_in_use(void **state)
{
	char id[16] = "somebody else!!";
	struct server s;
	struct tier *t;
	double from;
	int fd, status;
	pid_t pid;

	(void)state;
	serve_disk(&s, 64 << 20);
	t = must_open(s.uri, 0);
	write_run(t, 0, 100, 1, false, 0);
	refused(s.uri, 0, "in use by another vswap");
	read_run(t, 0, 100, 1, false, 0);
	must_close(t);
	pid = fork();
	if (!pid) {
		t = tier_open(&(struct tier_opts){ .path = s.uri }, id, sizeof(id));
		_exit(!t);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	from = now();
	t = must_open(s.uri, 0);
	assert_in_range((long)((now() - from) * 1000), 1900, 4000);
	write_run(t, 0, 100, 1, false, 0);
	/* Taken meanwhile: it is let alone. */
	fd = open(s.disk, O_WRONLY | O_CLOEXEC);
	while (!is_away(t)) {
		assert_int_equal(pwrite(fd, id, sizeof(id), PAGE), sizeof(id));
		sleep_ms(10);
		assert_true(now() - from < 10);
	}
	close(fd);
	read_run(t, 0, 100, 1, false, -ETIMEDOUT);
	write_run(t, 0, 100, 1, false, -ETIMEDOUT);
	assert_int_equal(times_said(""), 1);
	assert_int_equal(times_said("another vswap uses it now"), 1);
	must_close(t);
	end(&s, SIGTERM);
	unlink(s.disk);
}

/* libnbd's look-up of a name: it is the server's socket, after as long. */
static struct sockaddr_un server_sock;
static unsigned int lookup_ms; /* atomic */

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **res)
{
	__typeof__(&getaddrinfo) real = (__typeof__(&getaddrinfo))dlsym(RTLD_NEXT, __func__);
	static struct addrinfo ai;

	if (!server_sock.sun_family)
		return real(node, service, hints, res);
	sleep_ms(__atomic_load_n(&lookup_ms, __ATOMIC_RELAXED));
	ai = (struct addrinfo){
		.ai_family = AF_UNIX,
		.ai_socktype = SOCK_STREAM,
		.ai_addr = (struct sockaddr *)&server_sock,
		.ai_addrlen = sizeof(server_sock),
	};
	*res = &ai;
	return 0;
}

void freeaddrinfo(struct addrinfo *res)
{
	__typeof__(&freeaddrinfo) real = (__typeof__(&freeaddrinfo))dlsym(RTLD_NEXT, __func__);

	if (res->ai_addr != (struct sockaddr *)&server_sock)
		real(res);
}

/* While the name server is silent nothing is waited for longer than without it. */
static void test_lookup(void **state)
{
	struct server s;
	struct tier *t;
	double from;

	(void)state;
	serve_disk(&s, 64 << 20);
	server_sock.sun_family = AF_UNIX;
	assert_true(strlen(s.sock) < sizeof(server_sock.sun_path));
	strcpy(server_sock.sun_path, s.sock);
	t = must_open("nbd://server/", 4);
	write_run(t, 0, 10, 1, false, 0);
	__atomic_store_n(&lookup_ms, 8000, __ATOMIC_RELAXED);
	end(&s, SIGKILL);
	assert_true(until(is_away, t, 5));
	sleep_ms(200);
	from = now();
	write_run(t, 10, 10, 1, false, -EAGAIN);
	assert_true(now() - from < 2);
	read_run(t, 0, 10, 1, false, -ETIMEDOUT);
	assert_true(now() - from < 6);
	__atomic_store_n(&lookup_ms, 0, __ATOMIC_RELAXED);
	must_close(t);
	server_sock.sun_family = 0;
	unlink(s.disk);
}

/* What is in the file behind the export, at byte @at. */
static bool disk_has(const struct server *s, u64 at, const void *what, size_t len)
{
	char *there = malloc(len);
	int fd = open(s->disk, O_RDONLY | O_CLOEXEC);
	bool has;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, there, len, (off_t)at), len);
	has = !memcmp(there, what, len);
	close(fd);
	free(there);
	return has;
}

/* An export that is refused in the end is nobody's, as it was. */
static void test_head_refused(void **state)
{
	char size[400], get[400], put[500], zero[PAGE] = { 0 };
	const char *args[] = { "eval", size, "can_write=exit 0", get, put, NULL };
	struct server s;

	(void)state;
	in_dir(s.disk, "disk");
	snprintf(size, sizeof(size), "get_size=stat -c %%s %s", s.disk);
	snprintf(get, sizeof(get), "pread=dd if=%s skip=$4 count=$3 iflag=skip_bytes,count_bytes",
		 s.disk);
	snprintf(put, sizeof(put),
		 "pwrite=if [ $4 = 0 ]; then echo EIO >&2; exit 1; fi\n"
		 "dd of=%s seek=$4 oflag=seek_bytes conv=notrunc",
		 s.disk);
	touch(s.disk);
	assert_int_equal(truncate(s.disk, 8 << 20), 0);
	serve(&s, args);
	refused(s.uri, 0, "cannot be written");
	assert_true(disk_has(&s, PAGE, zero, PAGE));
	end(&s, SIGTERM);
	unlink(s.disk);
}

/* Opens the export, and does as it is told: 'w' writes, 'd' discards, 'c' closes. */
static _Noreturn void owner(const char *uri, int in, int out)
{
	char err[512], c = 'o', *mem = aligned_alloc(PAGE, 100 * PAGE);
	struct tier *t = tier_open(&(struct tier_opts){ .path = uri }, err, sizeof(err));
	struct swap_io io[100];

	if (!t)
		_exit(1);
	memset(mem, 0x5a, 100 * PAGE);
	do {
		make_io(io, mem, 0, 100, false);
		if (c == 'w')
			t->ops->write(t->priv, io, 100);
		else if (c == 'd')
			t->ops->discard(t->priv, 0, 100);
		else if (c == 'c')
			tier_close(t);
		if (write(out, &c, 1) != 1)
			_exit(2);
	} while (c != 'c' && read(in, &c, 1) == 1);
	_exit(c != 'c');
}

/* An owner that was stopped, and goes on when another has the export, leaves it alone. */
static void test_stopped_owner(void **state)
{
	static const char does[] = "wdc";
	char zero[16] = { 0 }, said_it;
	int in[2], out[2], status;
	struct server s;
	struct tier *t;
	pid_t pid;

	(void)state;
	serve_disk(&s, 64 << 20);
	for (unsigned int i = 0; does[i]; i++) {
		assert_int_equal(pipe(in) || pipe(out), 0);
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			owner(s.uri, in[0], out[1]);
		}
		assert_int_equal(read(out[0], &said_it, 1), 1);
		assert_int_equal(kill(pid, SIGSTOP), 0);
		assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
		/* What it is to do at once. */
		assert_int_equal(write(in[1], does + i, 1), 1);
		t = must_open(s.uri, 0);
		write_run(t, 0, 100, 1, false, 0);
		assert_int_equal(kill(pid, SIGCONT), 0);
		assert_int_equal(read(out[0], &said_it, 1), 1);
		assert_int_equal(said_it, does[i]);
		read_run(t, 0, 100, 1, false, 0);
		assert_false(disk_has(&s, PAGE, zero, sizeof(zero)));
		sleep_ms(1500);
		assert_true(is_there(t));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		close(in[0]);
		close(in[1]);
		close(out[0]);
		close(out[1]);
		must_close(t);
	}
	end(&s, SIGTERM);
	unlink(s.disk);
}

struct opener {
	pthread_t thread;
	const char *uri;
	struct tier *tier;
	char err[512];
};

static void *open_it(void *arg)
{
	struct opener *o = arg;

	o->tier = tier_open(&(struct tier_opts){ .path = o->uri }, o->err, sizeof(o->err));
	return NULL;
}

/* Of two who come at the same time, and find it free, one gets it. */
static void test_two_at_once(void **state)
{
	const char *args[] = { "--filter=delay", "memory", "64M", "wdelay=100ms", NULL };
	struct opener o[2] = { 0 };
	struct server s;

	(void)state;
	serve(&s, args);
	for (unsigned int i = 0; i < 2; i++) {
		o[i].uri = s.uri;
		assert_int_equal(pthread_create(&o[i].thread, NULL, open_it, &o[i]), 0);
	}
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(o[i].thread, NULL), 0);
	assert_true(!o[0].tier != !o[1].tier);
	assert_non_null(strstr(o[!!o[0].tier].err, "in use by another vswap"));
	tier_close(o[0].tier);
	tier_close(o[1].tier);
	end(&s, SIGTERM);
}

static u64 blocks_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (u64)st.st_blocks * 512;
}

/* What is not needed any more is given back, during the run and after it. */
static void test_trim(void **state)
{
	struct server s;
	struct tier *t;

	(void)state;
	serve_disk(&s, 64 << 20);
	t = must_open(s.uri, 0);
	write_run(t, 0, 4096, 1, false, 0);
	assert_true(blocks_of(s.disk) >= 16 << 20);
	t->ops->discard(t->priv, 512, 2048);
	assert_in_range(blocks_of(s.disk), 8 << 20, 9 << 20);
	read_run(t, 0, 512, 1, false, 0);
	read_run(t, 512 + 2048, 512, 1, false, 0);
	must_close(t);
	assert_true(blocks_of(s.disk) < 1 << 20);
	end(&s, SIGTERM);
	unlink(s.disk);
}

struct discarder {
	struct tier *tier;
	int ret;
	pthread_t thread;
};

static void *discard_first(void *arg)
{
	struct discarder *d = arg;

	d->ret = d->tier->ops->discard(d->tier->priv, 0, 8);
	return NULL;
}

/*
 * A server at a TRIM for long, which it goes on with when the connection is given up:
 * what is written afterwards stays.  That it takes long is no reason to give one up.
 */
static void test_late_trim(void **state)
{
	char get[800], put[800], trim[1000], mute[300], trimmed[300];
	const char *args[] = { "eval",
			       "thread_model=echo parallel",
			       "get_size=echo 64M",
			       "can_write=exit 0",
			       "can_trim=exit 0",
			       get,
			       put,
			       trim,
			       NULL };
	struct discarder d = { 0 };
	struct server s;
	struct tier *t;
	double from;

	(void)state;
	in_dir(s.disk, "disk");
	in_dir(mute, "mute");
	in_dir(trimmed, "trimmed");
	snprintf(get, sizeof(get),
		 "pread=while [ -e %s ]; do sleep 0.05; done\n"
		 "dd if=%s bs=1M skip=$4 count=$3 iflag=skip_bytes,count_bytes",
		 mute, s.disk);
	snprintf(put, sizeof(put),
		 "pwrite=while [ -e %s ]; do sleep 0.05; done\n"
		 "dd of=%s bs=1M seek=$4 oflag=seek_bytes conv=notrunc",
		 mute, s.disk);
	snprintf(trim, sizeof(trim),
		 "trim=sleep 3\n"
		 "dd if=/dev/zero of=%s bs=1M count=$3 iflag=count_bytes seek=$4 "
		 "oflag=seek_bytes conv=notrunc && touch %s",
		 s.disk, trimmed);
	touch(s.disk);
	assert_int_equal(truncate(s.disk, 64 << 20), 0);
	serve(&s, args);
	t = d.tier = must_open(s.uri, 2);
	write_run(t, 0, 8, 1, false, 0);
	assert_int_equal(pthread_create(&d.thread, NULL, discard_first, &d), 0);
	sleep_ms(200);
	touch(mute);
	write_run(t, 600, 8, 1, false, -EAGAIN);
	assert_true(until(is_away, t, 5));
	unlink(mute);
	assert_int_equal(pthread_join(d.thread, NULL), 0);
	assert_true(until(is_there, t, 2));
	assert_int_equal(access(trimmed, F_OK), -1);
	/* As core does it. */
	for (from = now(); d.ret == -EAGAIN && now() - from < 30; sleep_ms(100))
		d.ret = t->ops->discard(t->priv, 0, 8);
	assert_int_equal(d.ret, 0);
	write_run(t, 0, 8, 2, false, 0);
	for (from = now(); access(trimmed, F_OK) && now() - from < 10;)
		sleep_ms(10);
	sleep_ms(200);
	read_run(t, 0, 8, 2, false, 0);
	/* Slow it was the second time, too. */
	assert_int_equal(times_said("does not answer"), 1);
	must_close(t);
	end(&s, SIGTERM);
	unlink(trimmed);
	unlink(s.disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contents),     cmocka_unit_test(test_joined),
		cmocka_unit_test(test_refused),	     cmocka_unit_test(test_mute),
		cmocka_unit_test(test_errors),	     cmocka_unit_test(test_bad_page),
		cmocka_unit_test(test_restarted),    cmocka_unit_test(test_gone),
		cmocka_unit_test(test_hangs),	     cmocka_unit_test(test_forgetful),
		cmocka_unit_test(test_in_use),	     cmocka_unit_test(test_trim),
		cmocka_unit_test(test_lesser),	     cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_beside_reads), cmocka_unit_test(test_stopped_owner),
		cmocka_unit_test(test_head_refused), cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_late_trim),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
