// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Regions as a program uses them: in both modes of serving faults, with less memory
 * than they take, and every byte compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../agent/uffd.h"
#include "libpages.h"

#define RAM   (2 * MIB)
#define RAM_P (RAM / PAGE)
#define SIZE  (8 * MIB)
#define NR    (SIZE / PAGE)

static const uint64_t modes[] = { 0, VSWAP_REGION_SIGBUS };

#define for_each_mode(m) for (unsigned int m = 0; m < 2; m++)

#ifdef __SANITIZE_THREAD__
/* It takes the handler of SIGBUS for one that may interrupt anything. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "report_signal_unsafe=0";
}
#endif

/* ---- a kernel that miscounts ------------------------------------------ */

/*
 * UFFDIO_MOVE as it is from Linux 6.18 on, when a page is being migrated: some pages
 * are moved, none is counted, and the call fails.  And as it is for a page a device
 * uses.
 */
static int miscount;  /* atomic; every how many-th move */
static int immovable; /* atomic; a device uses them all */
static unsigned int miscounted;
/* A page that was brought in is there, and who brought it is held up: 1, and 2 while he is. */
static int holdup; /* atomic */

static int copy_held_up(int fd, void *arg)
{
	int err = (int)syscall(SYS_ioctl, fd, UFFDIO_COPY, arg), once = 1;

	if (!err && __atomic_compare_exchange_n(&holdup, &once, 2, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST)) {
		usleep(50000);
		__atomic_store_n(&holdup, 0, __ATOMIC_SEQ_CST);
	}
	return err;
}

/* Who rings a bell waits as long as this for it to be answered, us. */
static unsigned int slow_bell; /* atomic */

int ioctl(int fd, unsigned long request, ...)
{
	static unsigned int moves;
	struct uffdio_move *move, part;
	va_list ap;
	void *arg;
	int every = __atomic_load_n(&miscount, __ATOMIC_RELAXED);

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == UFFDIO_ZEROPAGE)
		usleep(__atomic_load_n(&slow_bell, __ATOMIC_RELAXED));
	if (request == UFFDIO_MOVE && __atomic_load_n(&immovable, __ATOMIC_RELAXED)) {
		errno = EBUSY;
		return -1;
	}
	if (request == UFFDIO_COPY && __atomic_load_n(&holdup, __ATOMIC_RELAXED))
		return copy_held_up(fd, arg);
	if (request != UFFDIO_MOVE || !every ||
	    __atomic_add_fetch(&moves, 1, __ATOMIC_RELAXED) % (unsigned int)every)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	move = arg;
	part = *move;
	part.len = move->len / 2 / PAGE * PAGE;
	move->move = -EEXIST;
	errno = part.len ? EEXIST : EBUSY;
	if (part.len && syscall(SYS_ioctl, fd, request, &part))
		move->move = part.move;
	__atomic_add_fetch(&miscounted, 1, __ATOMIC_RELAXED);
	return -1;
}

/* What the kernel says of the program's page, if it cannot be had: its own swap failed, say. */
static int unreadable; /* atomic; errno */

int madvise(void *addr, size_t len, int advice)
{
	int err = __atomic_load_n(&unreadable, __ATOMIC_RELAXED);

	if (advice == MADV_POPULATE_READ && err) {
		errno = err;
		return -1;
	}
	return (int)syscall(SYS_madvise, addr, len, advice);
}

/* ---- helpers --------------------------------------------------------- */

static struct vswap *create(uint64_t pool_limit, bool tier)
{
	struct vswap_conf conf = { .pool_limit = pool_limit };
	struct vswap *s = vswap_create(&conf, sizeof(conf));
	char err[256] = "";

	assert_non_null(s);
	if (tier && !vswap_tier_add(s, NULL, 64 * MIB, 0, err, sizeof(err)))
		fail_msg("%s", err);
	return s;
}

static struct vswap_region *map(struct vswap *s, uint64_t size, uint64_t ram, uint64_t flags)
{
	struct vswap_region_conf conf = { .size = size, .ram = ram, .flags = flags };
	struct vswap_region *r = NULL;
	char line[256];

	if (vswap_map(s, &conf, sizeof(conf), &r)) {
		vswap_message(s, line, sizeof(line));
		fail_msg("%s", line);
	}
	return r;
}

static struct vswap_region_stat stat_of(struct vswap_region *r)
{
	struct vswap_region_stat st;

	vswap_region_stat(r, &st, sizeof(st));
	return st;
}

static uint64_t in_memory(struct vswap_region *r)
{
	struct vswap_region_stat st = stat_of(r);

	return st.pages_present + st.pages_staged;
}

static uint64_t stored(struct vswap *s)
{
	struct vswap_stat st;

	vswap_stat(s, &st, sizeof(st));
	return st.pages;
}

static char *at(struct vswap_region *r, size_t page)
{
	return (char *)vswap_addr(r) + page * PAGE;
}

/* Pages of it in memory, as the kernel counts. */
static size_t resident(struct vswap_region *r, size_t pages)
{
	unsigned char *vec = malloc(pages);
	size_t n = 0;

	assert_non_null(vec);
	assert_int_equal(mincore(vswap_addr(r), pages * PAGE, vec), 0);
	for (size_t i = 0; i < pages; i++)
		n += vec[i] & 1;
	free(vec);
	return n;
}

/* What threads of the library finish after the program has gone on. */
#define settles(cond)                                        \
	do {                                                 \
		for (int i_ = 0; i_ < 5000 && !(cond); i_++) \
			usleep(1000);                        \
		assert_true(cond);                           \
	} while (0)

/* From the end, so that nothing is read ahead, perhaps a little later. */
static void fill_all(struct vswap_region *r, size_t pages, uint64_t id)
{
	for (size_t i = pages; i-- > 0;)
		fill(at(r, i), id + i);
}

static void expect_all(struct vswap_region *r, size_t pages, uint64_t id)
{
	for (size_t i = pages; i-- > 0;)
		assert_true(holds(at(r, i), id + i));
}

static uint64_t next(uint64_t *seed)
{
	return *seed = mix(*seed + 0x632be59bd9b4e19bULL);
}

static void expect_message(struct vswap *s, const char *part)
{
	char line[256];

	vswap_message(s, line, sizeof(line));
	if (!strstr(line, part))
		fail_msg("\"%s\" is not in: %s", part, line);
}

/* ---- one thread ------------------------------------------------------ */

static void test_contents(void **state)
{
	static uint64_t id[NR];
	struct vswap_region_stat st;
	struct vswap_region *r;
	struct vswap *s;
	uint64_t seed = 1;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		/* In order, twice, then anywhere. */
		for (size_t i = 0; i < NR; i++) {
			assert_true(holds(at(r, i), 0));
			fill(at(r, i), i);
		}
		expect_all(r, NR, 0);
		for (size_t i = 0; i < NR; i++)
			id[i] = i;
		for (unsigned int i = 0; i < 3 * NR; i++) {
			size_t p = next(&seed) % NR;

			assert_true(holds(at(r, p), id[p]));
			if (next(&seed) % 2) {
				id[p] = next(&seed) >> 16;
				fill(at(r, p), id[p]);
			}
			if (i % 256 == 0) {
				st = stat_of(r);
				assert_true(resident(r, NR) <= RAM_P);
			}
		}
		for (size_t i = 0; i < NR; i++)
			assert_true(holds(at(r, i), id[i]));
		st = stat_of(r);
		assert_int_equal(st.size, SIZE);
		assert_int_equal(st.ram, RAM);
		assert_int_equal(st.pages_present + st.pages_staged + st.pages_stored, NR);
		assert_in_range(st.faults_first, 1, NR);
		assert_in_range(st.faults_stored, 1, st.faults - st.faults_first);
		assert_true(st.readahead > NR);
		assert_true(st.evicted > 2 * NR);
		assert_int_equal(st.over + st.pages_lost + st.pages_pinned, 0);
		vswap_unmap(r);
		assert_int_equal(stored(s), 0);
		vswap_destroy(s);
	}
}

/* A store that has pages on its tier, and regions of both kinds when it is destroyed. */
static void test_ends(void **state)
{
	struct vswap *s = create(2 * MIB, true);
	struct vswap_region *r[4];
	struct vswap_stat st;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		r[i] = map(s, SIZE, RAM, modes[i % 2]);
		fill_all(r[i], NR, i * NR);
	}
	vswap_stat(s, &st, sizeof(st));
	assert_true(st.pages_tier > 1000);
	for (unsigned int i = 0; i < 4; i++)
		expect_all(r[i], NR, i * NR);
	vswap_unmap(r[1]);
	vswap_unmap(r[2]);
	vswap_unmap(NULL);
	expect_all(r[0], NR, 0);
	expect_all(r[3], NR, 3 * NR);
	vswap_destroy(s);
}

/* Of a region much larger than any memory only what is touched costs anything. */
static void test_sparse(void **state)
{
	const size_t step = 3 * 512 * 97 + 1;
	struct vswap *s = create(0, true);
	struct vswap_region *r;
	size_t nr = (1ULL << 40) / PAGE;

	(void)state;
	for_each_mode(m)
	{
		size_t last = nr - 1;

		r = map(s, 1ULL << 40, RAM, modes[m]);
		for (size_t p = 0; p < nr; p += step)
			fill(at(r, p), p);
		fill(at(r, last), 3);
		assert_true(stat_of(r).pages_stored > 0);
		for (size_t p = 0; p < nr; p += step)
			assert_true(holds(at(r, p), p));
		assert_true(holds(at(r, last), 3));
		assert_true(holds(at(r, 77), 0));
		assert_int_equal(vswap_advise(r, vswap_addr(r), 1ULL << 40, VSWAP_DONTNEED), 0);
		assert_true(holds(at(r, step), 0));
		vswap_unmap(r);
		assert_int_equal(stored(s), 0);
	}
	vswap_destroy(s);
}

/*
 * All of that out, @left pages of the region stay.  A thread that waits for a page may
 * be woken by what it waited for before; it asks once more then and goes on, and a server
 * that was slow brings in for its first question what has been evicted since.
 */
#define cold(r, addr, len, left) \
	settles(vswap_advise((r), (addr), (len), VSWAP_COLD) == 0 && resident((r), NR) == (left))

static void test_advise(void **state)
{
	struct vswap_region_stat st, then;
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		fill_all(r, 300, 1);
		cold(r, at(r, 50), 200 * PAGE, 100);
		assert_int_equal(stat_of(r).pages_stored, 200);

		/* What is brought in makes no fault. */
		assert_int_equal(vswap_advise(r, at(r, 100) + 5, 100 * PAGE - 10, VSWAP_WILLNEED),
				 0);
		then = stat_of(r);
		assert_int_equal(then.pages_stored, 100);
		for (size_t i = 100; i < 200; i++)
			assert_true(holds(at(r, i), 1 + i));
		assert_int_equal(stat_of(r).faults, then.faults);
		expect_all(r, 300, 1);

		/* Dropped, wherever it is; the region is as it was then. */
		assert_int_equal(vswap_advise(r, at(r, 0), 150 * PAGE, VSWAP_COLD), 0);
		assert_int_equal(vswap_advise(r, at(r, 100), 100 * PAGE, VSWAP_DONTNEED), 0);
		st = stat_of(r);
		assert_int_equal(st.pages_present + st.pages_staged + st.pages_stored, 200);
		settles(stored(s) == 100);
		for (size_t i = 300; i-- > 0;)
			assert_true(holds(at(r, i), i < 100 || i >= 200 ? 1 + i : 0));

		/* No more than half of the memory is filled. */
		fill_all(r, NR, 5);
		cold(r, at(r, 0), SIZE, 0);
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_WILLNEED), 0);
		assert_in_range(resident(r, NR), RAM_P / 4, RAM_P / 2 + 64);
		expect_all(r, NR, 5);
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_DONTNEED), 0);
		assert_int_equal(stat_of(r).pages_present, 0);
		settles(stored(s) == 0);
		assert_true(holds(at(r, NR - 1), 0));

		assert_int_equal(vswap_advise(r, at(r, 0), 0, VSWAP_COLD), 0);
		assert_int_equal(vswap_advise(r, at(r, 1), SIZE, VSWAP_COLD), -EINVAL);
		assert_int_equal(vswap_advise(r, at(r, 0) - 1, 1, VSWAP_COLD), -EINVAL);
		expect_message(s, "not all within");
		assert_int_equal(vswap_advise(r, at(r, 0), 1, VSWAP_DONTNEED), -EINVAL);
		assert_int_equal(vswap_advise(r, at(r, 0), PAGE, 77), -EINVAL);
		expect_message(s, "77");
		vswap_destroy(s);
	}
}

static void test_pin(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		uint64_t faults;

		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		fill_all(r, NR, 9);
		assert_int_equal(vswap_pin(r, at(r, 10), 200 * PAGE), 0);
		assert_int_equal(vswap_pin(r, at(r, 10), 200 * PAGE), 0);
		assert_int_equal(stat_of(r).pages_pinned, 200);
		expect_all(r, NR, 9);
		cold(r, at(r, 0), SIZE, 200);
		assert_int_equal(vswap_advise(r, at(r, 0), 11 * PAGE, VSWAP_DONTNEED), -EBUSY);
		faults = stat_of(r).faults;
		for (size_t i = 10; i < 210; i++)
			assert_true(holds(at(r, i), 9 + i));
		assert_int_equal(stat_of(r).faults, faults);
		assert_true(holds(at(r, 9), 0));

		assert_int_equal(vswap_pin(r, at(r, 0), RAM), -ENOMEM);
		expect_message(s, "raise");
		assert_int_equal(stat_of(r).pages_pinned, 200);
		assert_int_equal(vswap_set_ram(r, MIB), -EBUSY);
		assert_int_equal(vswap_unpin(r, at(r, 100), SIZE - 100 * PAGE), 0);
		assert_int_equal(stat_of(r).pages_pinned, 90);
		assert_int_equal(vswap_unpin(r, at(r, 0), SIZE), 0);
		cold(r, at(r, 0), SIZE, 0);
		assert_int_equal(vswap_pin(r, at(r, 0), SIZE + 1), -EINVAL);
		assert_int_equal(vswap_unpin(r, at(r, 0) - PAGE, PAGE), -EINVAL);

		/* One never touched can be pinned as well. */
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_DONTNEED), 0);
		assert_int_equal(vswap_pin(r, at(r, 3), PAGE), 0);
		assert_int_equal(resident(r, NR), 1);
		assert_true(holds(at(r, 3), 0));
		vswap_destroy(s);
	}
}

static void test_ram(void **state)
{
	struct vswap *s = create(0, true);
	struct vswap_region *r = map(s, SIZE, 6 * MIB, 0);

	(void)state;
	fill_all(r, NR, 4);
	assert_true(resident(r, NR) > 5 * MIB / PAGE);
	assert_int_equal(vswap_set_ram(r, 3 * MIB), 0);
	assert_true(resident(r, NR) <= 3 * MIB / PAGE);
	expect_all(r, NR, 4);
	assert_true(resident(r, NR) <= 3 * MIB / PAGE);
	assert_int_equal(vswap_set_ram(r, 2 * SIZE), 0);
	settles(stat_of(r).pages_staged == 0);
	expect_all(r, NR, 4);
	assert_int_equal(resident(r, NR), NR);
	assert_int_equal(stat_of(r).ram, 2 * SIZE);
	assert_int_equal(vswap_set_ram(r, PAGE), -EINVAL);
	vswap_destroy(s);
}

static char logged[512];
static pthread_mutex_t logged_lock = PTHREAD_MUTEX_INITIALIZER;

static void sink(const char *line)
{
	pthread_mutex_lock(&logged_lock);
	snprintf(logged, sizeof(logged), "%s", line);
	pthread_mutex_unlock(&logged_lock);
}

static bool was_logged(const char *part)
{
	bool was;

	pthread_mutex_lock(&logged_lock);
	was = strstr(logged, part);
	pthread_mutex_unlock(&logged_lock);
	return was;
}

/* Where nothing can go nothing is lost, and it is said. */
static void test_no_room(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(MIB, false);
		sink("");
		vswap_log(sink);
		r = map(s, SIZE, RAM, modes[m]);
		for (size_t i = 0; i < NR; i++)
			fill(at(r, i), 5 * i + 2);
		assert_true(stat_of(r).over > 0);
		/* Some are tried now and then, and are back when they were refused. */
		settles(in_memory(r) == NR);
		settles(was_logged("add a tier"));
		for (size_t i = 0; i < NR; i++)
			assert_true(holds(at(r, i), 5 * i + 2));
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_COLD), -ENOSPC);
		expect_message(s, "add a tier");
		assert_int_equal(vswap_set_ram(r, RAM), -ENOSPC);
		/* With a tier it is as it should be. */
		assert_non_null(vswap_tier_add(s, NULL, 64 * MIB, 0, NULL, 0));
		assert_int_equal(vswap_set_ram(r, RAM), 0);
		assert_true(resident(r, NR) <= RAM_P);
		for (size_t i = 0; i < NR; i++)
			assert_true(holds(at(r, i), 5 * i + 2));
		vswap_log(NULL);
		vswap_destroy(s);
	}
}

/* Where no page can be moved faults do not wait for that each time, and it is said. */
static void test_immovable(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		sink("");
		vswap_log(sink);
		r = map(s, SIZE, RAM, modes[m]);
		__atomic_store_n(&immovable, 1, __ATOMIC_RELAXED);
		fill_all(r, NR, 3);
		/* Or a page more that was asked for twice. */
		assert_in_range(stat_of(r).over, NR - RAM_P, NR - RAM_P + 16);
		assert_true(stat_of(r).direct < NR);
		assert_true(was_logged("a device may use them"));
		assert_int_equal(vswap_set_ram(r, RAM), -EBUSY);
		expect_message(s, "a device may use them");
		__atomic_store_n(&immovable, 0, __ATOMIC_RELAXED);
		assert_int_equal(vswap_set_ram(r, RAM), 0);
		expect_all(r, NR, 3);
		settles(resident(r, NR) <= RAM_P);
		vswap_log(NULL);
		vswap_destroy(s);
	}
}

/* What the library writes for the program may be in a region, at a page that is not there. */
static void test_message(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, false);
		r = map(s, SIZE, RAM, modes[m]);
		fill(at(r, 0), 4);
		assert_int_equal(vswap_advise(r, at(r, 0), PAGE, VSWAP_COLD), 0);
		assert_int_equal(vswap_set_ram(r, PAGE), -EINVAL);
		vswap_message(s, at(r, 0), PAGE);
		assert_string_equal(at(r, 0), "ram: 1024 KiB at least");
		vswap_destroy(s);
	}
}

static void test_arguments(void **state)
{
	struct vswap_region_conf conf = { .size = SIZE, .ram = RAM };
	struct {
		struct vswap_region_stat st;
		uint64_t later;
	} st;
	struct vswap *s = create(0, true);
	struct vswap_region *r = NULL;

	(void)state;
	conf.size = 0;
	assert_int_equal(vswap_map(s, &conf, sizeof(conf), &r), -EINVAL);
	conf.size = 1ULL << 62;
	assert_int_equal(vswap_map(s, &conf, sizeof(conf), &r), -EINVAL);
	conf.size = SIZE;
	conf.ram = MIB - 1;
	assert_int_equal(vswap_map(s, &conf, sizeof(conf), &r), -EINVAL);
	expect_message(s, "1024 KiB");
	conf.ram = MIB;
	conf.flags = 1U << 31;
	assert_int_equal(vswap_map(s, &conf, sizeof(conf), &r), -EINVAL);
	assert_null(r);
	/* An older program knows no flags. */
	assert_int_equal(vswap_map(s, &conf, offsetof(struct vswap_region_conf, flags), &r), 0);
	assert_int_equal((uintptr_t)vswap_addr(r) % PAGE, 0);
	memset(&st, 0xff, sizeof(st));
	vswap_region_stat(r, &st.st, sizeof(st));
	assert_int_equal(st.st.ram, MIB);
	assert_int_equal(st.later, 0);
	memset(&st, 0xff, sizeof(st));
	vswap_region_stat(r, &st.st, sizeof(uint64_t));
	assert_int_equal(st.st.size, SIZE);
	assert_true(st.st.ram == UINT64_MAX);
	vswap_destroy(s);
}

/* ---- the system ------------------------------------------------------ */

static void test_syscalls(void **state)
{
	struct vswap_region *r;
	struct vswap *s;
	char buf[PAGE];
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	for_each_mode(m)
	{
		bool served;

		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		fill_all(r, 10, 7);
		assert_int_equal(vswap_advise(r, at(r, 0), 10 * PAGE, VSWAP_COLD), 0);
		served = stat_of(r).syscalls;
		if (modes[m])
			assert_false(served);
		if (served) {
			assert_int_equal(write(fd[1], at(r, 1), PAGE), PAGE);
			assert_int_equal(read(fd[0], at(r, 20), PAGE), PAGE);
			assert_true(holds(at(r, 20), 8));
		} else {
			assert_int_equal(write(fd[1], at(r, 1), PAGE), -1);
			assert_int_equal(errno, EFAULT);
		}
		/* What is there the kernel can always use. */
		assert_int_equal(vswap_pin(r, at(r, 2), PAGE), 0);
		assert_int_equal(write(fd[1], at(r, 2), PAGE), PAGE);
		assert_int_equal(read(fd[0], buf, PAGE), PAGE);
		assert_true(holds(buf, 9));
		vswap_destroy(s);
	}
	close(fd[0]);
	close(fd[1]);
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
/* A program that locks its memory as it touches it: pages go and are dropped as before. */
static void test_locked(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		fill_all(r, NR / 2, 6);
		if (mlockall(MCL_CURRENT | MCL_ONFAULT)) {
			vswap_destroy(s);
			skip();
		}
		fill_all(r, NR, 7);
		expect_all(r, NR, 7);
		assert_true(resident(r, NR) <= RAM_P);
		assert_int_equal(stat_of(r).over, 0);
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_DONTNEED), 0);
		assert_int_equal(resident(r, NR), 0);
		assert_int_equal(munlockall(), 0);
		fill_all(r, NR, 8);
		expect_all(r, NR, 8);
		assert_true(resident(r, NR) <= RAM_P);
		vswap_destroy(s);
	}
}
#endif

/* A child does not have it, and does its parent no harm. */
static void test_fork(void **state)
{
	struct vswap_region *r;
	struct vswap *s;
	unsigned char vec;
	int status;
	pid_t pid;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		fill_all(r, NR, 2);
		pid = fork();
		if (!pid)
			_exit(mincore(vswap_addr(r), PAGE, &vec) && errno == ENOMEM ? 0 : 1);
		assert_true(pid > 0);
		expect_all(r, NR, 2);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_true(resident(r, NR) <= RAM_P);
		vswap_destroy(s);
	}
}

static sigjmp_buf jump;
static volatile sig_atomic_t signals, sig_code;
static void *volatile sig_addr;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	signals++;
	sig_code = info->si_code;
	sig_addr = info->si_addr;
	siglongjmp(jump, 1);
}

/* Did reading it end in a SIGBUS? */
static bool breaks(const char *p)
{
	if (sigsetjmp(jump, 1))
		return true;
	(void)*(const volatile char *)p;
	return false;
}

static void catch_sigbus(struct sigaction *before)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

	signals = 0;
	assert_int_equal(sigaction(SIGBUS, &sa, before), 0);
}

/* The program's own handler gets what is its own, before, with and after regions. */
static void test_chain(void **state)
{
	char path[] = "/var/tmp/vswap-test-XXXXXX";
	struct sigaction before, now;
	struct vswap *s = create(0, true);
	struct vswap_region *r[2];
	int fd = mkstemp(path), status;
	pid_t pid;
	char *p;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0); /* of an empty file */
	assert_ptr_not_equal(p, MAP_FAILED);
	catch_sigbus(&before);
	r[0] = map(s, SIZE, RAM, VSWAP_REGION_SIGBUS);
	r[1] = map(s, SIZE, RAM, VSWAP_REGION_SIGBUS);
	fill_all(r[0], NR, 3);
	assert_true(breaks(p));
	assert_ptr_equal(sig_addr, p);
	assert_int_equal(sig_code, BUS_ADRERR);
	expect_all(r[0], NR, 3);
	errno = 12345;
	assert_true(holds(at(r[1], 5), 0));
	assert_int_equal(errno, 12345);
	vswap_unmap(r[0]);
	fill_all(r[1], NR, 8);
	assert_true(breaks(p));
	expect_all(r[1], NR, 8);
	assert_int_equal(signals, 2);
	vswap_unmap(r[1]);
	assert_int_equal(sigaction(SIGBUS, NULL, &now), 0);
	assert_ptr_equal(now.sa_sigaction, on_sigbus);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);

	/* With no handler of its own the program ends by it. */
	assert_int_equal(sigaction(SIGBUS, &(struct sigaction){ .sa_handler = SIG_DFL }, &before),
			 0);
	r[0] = map(s, SIZE, RAM, VSWAP_REGION_SIGBUS);
	pid = fork();
	if (!pid) {
		(void)*(volatile char *)p;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	vswap_destroy(s);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
	munmap(p, PAGE);
	close(fd);
}

/* As the kernel does it, for one that touches @addr. */
static void raise_sigbus(int code, void *addr)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = code };

	info.si_addr = addr;
	assert_int_equal(
		syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &info), 0);
}

static struct sigaction below;

/* One that passes on what it gets. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	signals++;
	below.sa_sigaction(sig, info, context);
}

/* A first region has a handler, whatever became of the one of those before it. */
static void test_handler_again(void **state)
{
	static const struct sigaction others[] = {
		{ .sa_handler = SIG_DFL },
		{ .sa_handler = SIG_IGN },
		{ .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO }, /* as it was */
		{ .sa_sigaction = pass_on, .sa_flags = SA_SIGINFO },   /* as it is */
	};
	struct sigaction over = { .sa_sigaction = pass_on, .sa_flags = SA_SIGINFO }, before, now;
	struct vswap *s = create(0, true);
	struct vswap_region *r;

	(void)state;
	for (unsigned int i = 0; i < sizeof(others) / sizeof(*others); i++) {
		catch_sigbus(&before);
		r = map(s, SIZE, RAM, VSWAP_REGION_SIGBUS);
		assert_int_equal(sigaction(SIGBUS, &over, &below), 0);
		fill_all(r, NR, i);
		assert_true(signals > 0);
		vswap_unmap(r);

		assert_int_equal(sigaction(SIGBUS, &others[i], NULL), 0);
		signals = 0;
		r = map(s, SIZE, RAM, VSWAP_REGION_SIGBUS);
		if (!sigsetjmp(jump, 1)) {
			fill_all(r, NR, i);
			expect_all(r, NR, i);
		} else {
			fail_msg("a page was not brought in under handler %u", i);
		}
		/* One that passes on is not gone around. */
		assert_int_equal(signals > 0, others[i].sa_sigaction == pass_on);
		/* What is not ours goes to it, and it is there again after the last. */
		if (others[i].sa_sigaction == on_sigbus) {
			signals = 0;
			if (!sigsetjmp(jump, 1))
				raise_sigbus(BUS_MCEERR_AO, at(r, 3));
			assert_int_equal(signals, 1);
		}
		vswap_unmap(r);
		assert_int_equal(sigaction(SIGBUS, NULL, &now), 0);
		assert_ptr_equal(now.sa_sigaction, others[i].sa_sigaction);
		/* Ours is taken away as one that passed on to it would do. */
		if (others[i].sa_sigaction == pass_on) {
			assert_int_equal(sigaction(SIGBUS, &below, NULL), 0);
			vswap_unmap(map(s, SIZE, RAM, VSWAP_REGION_SIGBUS));
		}
		assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
	}
	vswap_destroy(s);
}

/* What is wrong with memory itself is not ours to mend, and not to be passed over. */
static void test_bad_memory(void **state)
{
	static const struct {
		int code, err;
		bool passed_on;
	} kinds[] = {
		{ BUS_ADRERR, 0, false }, /* another was faster to bring it */
		{ BUS_ADRERR, EFAULT, true },  { BUS_ADRERR, EHWPOISON, true },
		{ BUS_ADRERR, EAGAIN, false }, { BUS_MCEERR_AR, 0, true },
		{ BUS_MCEERR_AO, 0, true },
	};
	struct vswap *s = create(0, true);
	struct vswap_region *r;
	struct sigaction before;

	(void)state;
	catch_sigbus(&before);
	r = map(s, SIZE, RAM, VSWAP_REGION_SIGBUS);
	fill(at(r, 3), 3);
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		signals = 0;
		__atomic_store_n(&unreadable, kinds[i].err, __ATOMIC_RELAXED);
		if (!sigsetjmp(jump, 1))
			raise_sigbus(kinds[i].code, at(r, 3));
		__atomic_store_n(&unreadable, 0, __ATOMIC_RELAXED);
		assert_int_equal(signals, kinds[i].passed_on);
		if (kinds[i].passed_on)
			assert_int_equal(sig_code, kinds[i].code);
	}
	/* Nothing is locked by that. */
	assert_true(holds(at(r, 3), 3));
	assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_COLD), 0);
	assert_true(holds(at(r, 3), 3));
	vswap_destroy(s);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
}

/* A page whose tier has lost it is SIGBUS, its neighbours are what they were. */
static void test_lost(void **state)
{
	char path[64], err[256] = "";
	struct sigaction before;
	struct vswap_region *r;
	struct vswap *s;
	int fd;

	(void)state;
	catch_sigbus(&before);
	vswap_log(sink);
	for_each_mode(m)
	{
		size_t lost = 0, one = 0;

		snprintf(path, sizeof(path), "/var/tmp/vswap-test-XXXXXX");
		fd = mkstemp(path);
		assert_true(fd >= 0);
		s = create(0, false);
		if (!vswap_tier_add(s, path, 8 * MIB, 0, err, sizeof(err)))
			fail_msg("%s", err);
		r = map(s, SIZE, RAM, modes[m]);
		for (size_t i = 0; i < 400; i++)
			fill(at(r, i), 5 * i + 2); /* each goes to the tier */
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_COLD), 0);
		assert_int_equal(ftruncate(fd, 2 * MIB), 0);
		for (size_t i = 0; i < 400; i++) {
			if (!breaks(at(r, i))) {
				assert_true(holds(at(r, i), 5 * i + 2));
				continue;
			}
			if (modes[m])
				assert_int_equal(sig_code, BUS_MCEERR_AR);
			assert_ptr_equal(sig_addr, at(r, i));
			lost++;
			one = i;
		}
		assert_in_range(lost, 50, 350);
		settles(stat_of(r).pages_lost == lost);
		assert_true(breaks(at(r, one)));
		assert_true(was_logged("lost"));
		assert_int_equal(vswap_pin(r, at(r, one), PAGE), -EIO);
		assert_int_equal(stat_of(r).pages_pinned, 0);
		/* Others still come and go around it. */
		assert_int_equal(vswap_advise(r, at(r, 0), SIZE, VSWAP_COLD), 0);
		assert_true(breaks(at(r, one)));
		assert_int_equal(vswap_advise(r, at(r, one), PAGE, VSWAP_DONTNEED), 0);
		assert_false(breaks(at(r, one)));
		assert_true(holds(at(r, one), 0));
		settles(stat_of(r).pages_lost == lost - 1);
		vswap_destroy(s);
		close(fd);
		assert_int_equal(unlink(path), 0);
	}
	vswap_log(NULL);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
}

/* ---- threads --------------------------------------------------------- */

#define THREADS 3
#ifdef __SANITIZE_THREAD__
#define ROUNDS 1000
#else
#define ROUNDS 4000
#endif

/* What is in each page, and who is at it. */
static struct {
	uint64_t id;
	bool busy;
} book[NR];

static void book_lock(size_t p)
{
	while (__atomic_exchange_n(&book[p].busy, true, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void book_unlock(size_t p)
{
	__atomic_store_n(&book[p].busy, false, __ATOMIC_RELEASE);
}

struct worker {
	pthread_t thread;
	struct vswap_region *r;
	uint64_t seed;
	unsigned int bad;
	int err; /* of a call that should not fail */
};

static void check(struct worker *w, int err, int may_be)
{
	if (err && err != may_be)
		w->err = err;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct vswap_region *r = w->r;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t what = next(&w->seed) % 64;
		size_t p = next(&w->seed) % NR, n = 1 + next(&w->seed) % 100, from = p;

		if (n > NR - p)
			n = NR - p;
		if (what == 0) {
			check(w, vswap_advise(r, at(r, p), n * PAGE, VSWAP_COLD), 0);
		} else if (what == 1) {
			check(w, vswap_advise(r, at(r, p), n * PAGE, VSWAP_WILLNEED), 0);
		} else if (what == 2) {
			/* The region's ram may be just too little for what others pin, too. */
			check(w, vswap_pin(r, at(r, p), n * PAGE), -ENOMEM);
			check(w, vswap_unpin(r, at(r, p), n * PAGE), 0);
		} else if (what == 3) {
			int err;

			for (; p < from + n; p++)
				book_lock(p);
			err = vswap_advise(r, at(r, from), n * PAGE, VSWAP_DONTNEED);
			/* Another may have pinned some of them. */
			check(w, err, -EBUSY);
			for (p = from; p < from + n; p++) {
				if (err && holds(at(r, p), book[p].id))
					;
				else
					book[p].id = 0;
				w->bad += !holds(at(r, p), book[p].id);
				book_unlock(p);
			}
		} else {
			/* Some in a row, now and then. */
			n = what < 6 ? n : 1;
			for (; p < from + n; p++) {
				book_lock(p);
				w->bad += !holds(at(r, p), book[p].id);
				if (what % 2) {
					book[p].id = next(&w->seed) >> 16;
					fill(at(r, p), book[p].id);
				}
				book_unlock(p);
			}
		}
	}
	return NULL;
}

static void pressure(struct vswap *s, struct vswap_region *r, bool ram_changes)
{
	struct worker w[THREADS] = { 0 };
	struct vswap_region_stat st;
	unsigned int above = 0;

	memset(book, 0, sizeof(book));
	for (unsigned int i = 0; i < THREADS; i++) {
		w[i].r = r;
		w[i].seed = i + 1;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned int i = 0; i < 20; i++) {
		usleep(2000);
		if (ram_changes) {
			uint64_t ram = i % 2 ? RAM : RAM * 3 / 4;

			/* Or it is what others have pinned just now. */
			vswap_set_ram(r, ram);
		}
		if (resident(r, NR) > RAM_P)
			above++;
		vswap_compact(s);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
		assert_int_equal(w[i].bad, 0);
		assert_int_equal(w[i].err, 0);
	}
	assert_int_equal(above, 0);
	for (size_t i = 0; i < NR; i++)
		assert_true(holds(at(r, i), book[i].id));
	st = stat_of(r);
	assert_int_equal(st.pages_lost + st.over + st.pages_pinned, 0);
	assert_true(st.evicted > NR);
	assert_true(resident(r, NR) <= RAM_P);
}

static void test_threads(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(2 * MIB, true);
		r = map(s, SIZE, RAM, modes[m]);
		pressure(s, r, true);
		vswap_unmap(r);
		assert_int_equal(stored(s), 0);
		vswap_destroy(s);
	}
}

static void *rewrite(void *arg)
{
	struct worker *w = arg;

	for (size_t i = 0; i < NR; i++) {
		w->bad += !holds(at(w->r, i), 6 + i);
		fill(at(w->r, i), 7 + i);
	}
	return NULL;
}

static void on_usr1(int sig)
{
	(void)sig;
}

static void *disturb(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&w->err, __ATOMIC_RELAXED)) {
		pthread_kill((pthread_t)w->seed, SIGUSR1);
		usleep(500);
	}
	return NULL;
}

/* Signals that come to who ends a region do not have him wait for ever. */
static void test_signals(void **state)
{
	struct sigaction sa = { .sa_handler = on_usr1 }, before;
	struct worker w = { .seed = (uint64_t)pthread_self() };
	struct vswap *s = create(0, false);
	struct vswap_region *r;

	(void)state;
	assert_int_equal(sigaction(SIGUSR1, &sa, &before), 0);
	assert_int_equal(pthread_create(&w.thread, NULL, disturb, &w), 0);
	__atomic_store_n(&slow_bell, 5000, __ATOMIC_RELAXED);
	alarm(30);
	for (unsigned int i = 0; i < 10; i++) {
		r = map(s, SIZE, RAM, 0);
		vswap_unmap(r);
	}
	alarm(0);
	__atomic_store_n(&slow_bell, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&w.err, 1, __ATOMIC_RELAXED);
	assert_int_equal(pthread_join(w.thread, NULL), 0);
	assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
	vswap_destroy(s);
}

/* Nobody's business what it reads: zeros, or what is written meanwhile. */
__attribute__((__no_sanitize__("thread"))) static void *touch(void *arg)
{
	struct worker *w = arg;

	(void)*(volatile char *)at(w->r, w->seed);
	return NULL;
}

/* Dropped by who uses it before who brought it in has said so: it is zeros all the same. */
static void test_drop_at_once(void **state)
{
	struct worker w = { 0 };
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, false);
		w.r = map(s, SIZE, RAM, modes[m]);
		/* A window in which there is nothing yet. */
		w.seed = NR / 2;
		__atomic_store_n(&holdup, 1, __ATOMIC_SEQ_CST);
		assert_int_equal(pthread_create(&w.thread, NULL, touch, &w), 0);
		while (__atomic_load_n(&holdup, __ATOMIC_SEQ_CST) == 1)
			sched_yield();
		fill(at(w.r, NR / 2), 3);
		assert_int_equal(vswap_advise(w.r, vswap_addr(w.r), SIZE, VSWAP_DONTNEED), 0);
		assert_true(holds(at(w.r, NR / 2), 0));
		assert_int_equal(pthread_join(w.thread, NULL), 0);
		vswap_destroy(s);
	}
}

/* Comes to each call, and each page, with its end already ordered. */
static void *doomed(void *arg)
{
	struct worker *w = arg;
	struct vswap_region *r = w->r;

	pthread_cancel(pthread_self());
	for (size_t i = 0; i < NR; i++)
		w->bad += !holds(at(r, i), 5 * i + 2);
	check(w, vswap_advise(r, at(r, 0), SIZE, VSWAP_COLD), 0);
	check(w, vswap_advise(r, at(r, 0), SIZE, VSWAP_WILLNEED), 0);
	check(w, vswap_pin(r, at(r, 0), MIB), 0);
	check(w, vswap_unpin(r, at(r, 0), MIB), 0);
	check(w, vswap_set_ram(r, MIB), 0);
	check(w, vswap_advise(r, at(r, 0), MIB, VSWAP_DONTNEED), 0);
	w->seed = 1;
	pthread_testcancel();
	w->seed = 2;
	return NULL;
}

/* A thread that is cancelled ends where the program lets it, with no page locked. */
static void test_cancel(void **state)
{
	struct worker w;
	struct vswap *s;
	void *how;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		w = (struct worker){ .r = map(s, SIZE, RAM, modes[m]) };
		for (size_t i = NR; i-- > 0;)
			fill(at(w.r, i), 5 * i + 2); /* each goes to the tier */
		assert_int_equal(pthread_create(&w.thread, NULL, doomed, &w), 0);
		assert_int_equal(pthread_join(w.thread, &how), 0);
		assert_ptr_equal(how, PTHREAD_CANCELED);
		assert_int_equal(w.seed, 1);
		assert_int_equal(w.bad, 0);
		assert_int_equal(w.err, 0);
		for (size_t i = NR; i-- > 0;)
			assert_true(holds(at(w.r, i), i < MIB / PAGE ? 0 : 5 * i + 2));
		vswap_destroy(s);
	}
}

/* The handler needs no more stack than it says, with what libc takes of it. */
static void test_small_stack(void **state)
{
	struct vswap *s = create(2 * MIB, true);
	struct vswap_region *r = map(s, SIZE, MIB, VSWAP_REGION_SIGBUS);
	struct worker w = { .r = r };
	size_t stack = 24 << 10;
	pthread_attr_t attr;

	(void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	/* Its frames are larger. */
	stack = 512 << 10;
#endif
	fill_all(r, NR, 6);
	assert_int_equal(pthread_attr_init(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, stack), 0);
	assert_int_equal(pthread_create(&w.thread, &attr, rewrite, &w), 0);
	assert_int_equal(pthread_join(w.thread, NULL), 0);
	assert_int_equal(pthread_attr_destroy(&attr), 0);
	assert_int_equal(w.bad, 0);
	expect_all(r, NR, 7);
	vswap_destroy(s);
}

/* Under pressure, on a kernel that moves pages and does not say so. */
static void test_miscounted(void **state)
{
	struct vswap_region *r;
	struct vswap *s;

	(void)state;
	for_each_mode(m)
	{
		s = create(0, true);
		r = map(s, SIZE, RAM, modes[m]);
		__atomic_store_n(&miscounted, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&miscount, 3, __ATOMIC_RELAXED);
		pressure(s, r, false);
		__atomic_store_n(&miscount, 0, __ATOMIC_RELAXED);
		assert_true(__atomic_load_n(&miscounted, __ATOMIC_RELAXED) > 10);
		vswap_unmap(r);
		assert_int_equal(stored(s), 0);
		vswap_destroy(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_advise),
		cmocka_unit_test(test_pin),
		cmocka_unit_test(test_ram),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_syscalls),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_handler_again),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_miscounted),
		cmocka_unit_test(test_small_stack),
		cmocka_unit_test(test_drop_at_once),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_message),
		cmocka_unit_test(test_bad_memory),
		cmocka_unit_test(test_immovable),
		cmocka_unit_test(test_signals),
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
		cmocka_unit_test(test_locked),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
