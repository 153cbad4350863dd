/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the memory tests share: a page's contents follow from its number and
 * its version, so that every byte of every page can be checked at any time.
 */
#ifndef VMTEST_H
#define VMTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE	   4096UL
#define PAGE_WORDS (PAGE / sizeof(uint64_t))

struct vmtest_args {
	size_t size; /* bytes a test may use, a multiple of PAGE */
	unsigned int passes;
	unsigned int threads;
	uint64_t seed;
	bool hard; /* half of the pages do not compress */
};

extern struct vmtest_args args;

/* Print one line and leave with status 1, from any thread or child. */
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* The same with the reason in errno. */
void fail_errno(const char *what) __attribute__((noreturn));
/* Say that it has, and end. */
void passed(const char *name) __attribute__((noreturn));

/* ---- pattern.c ------------------------------------------------------- */

/* Page number @id at @version, 4096 bytes, to @page. */
void page_fill(void *page, uint64_t id, uint32_t version);
bool page_right(const void *page, uint64_t id, uint32_t version);
/* Fail, telling the first wrong word, unless the page is what page_fill() made. */
void page_check(const void *page, uint64_t id, uint32_t version);
bool page_is_zero(const void *page);
void page_check_zero(const void *page, uint64_t id);

/* The same for @nr pages whose numbers count up from @id. */
void range_fill(void *mem, size_t nr, uint64_t id, uint32_t version);
void range_check(const void *mem, size_t nr, uint64_t id, uint32_t version);
void range_check_zero(const void *mem, size_t nr, uint64_t id);

/* A private pseudo random stream. */
struct rng {
	uint64_t state;
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
/* 0 <= result < @n. */
uint64_t rng_below(struct rng *rng, uint64_t n);

/* ---- pressure.c ------------------------------------------------------ */

/* Private anonymous memory, read-write; fails instead of returning NULL. */
void *map_anon(size_t bytes);
void unmap(void *mem, size_t bytes);
/*
 * A second region, swept by pressure() so that everything else grows cold and
 * is taken away; its own contents are checked on every sweep.
 */
void pressure_init(size_t bytes);
void pressure(void);
/* Do so from a thread of its own until pressure_stop(). */
void pressure_start(void);
void pressure_stop(void);

/* ---- remap.c --------------------------------------------------------- */

/* False: it is refused, by SIGSEGV.  By one thread at a time. */
bool may_read(char *byte);

/* ---- process.c ------------------------------------------------------- */

/* fork(2) that fails instead of returning -1. */
pid_t forked(void);
/* Wait for child @pid, named @what in messages; fail unless it ended with status 0. */
void wait_for(pid_t pid, const char *what);

/* ---- the tests ------------------------------------------------------- */

void test_seq(void);
void test_random(void);
void test_zipf(void);
void test_rw(void);
void test_thp(void);
void test_threads(void);
void test_threadend(void);
void test_mainend(void);
void test_realloc(void);
void test_stacks(void);
void test_recursion(void);
void test_malloc(void);
void test_brk(void);
void test_dontneed(void);
void test_dontneed_race(void);
void test_free(void);
void test_mremap(void);
void test_mprotect(void);
void test_munmap(void);
void test_holes(void);
void test_churn(void);
void test_manymaps(void);
void test_mlock(void);
void test_shared(void);
void test_mapped(void);
void test_forkexec(void);
void test_vforkleft(void);
void test_forkread(void);
void test_forkwrite(void);
void test_forkgrow(void);
void test_forkthreads(void);
void test_forkmoves(void);
void test_parentexec(void);
void test_spawn(void);
void test_shell(void);
void test_clone(void);
void test_clonefork(void);
void test_grownalone(void);
void test_pidns(void);
void test_begets(void);
void test_forkmany(void);
void test_low(void);
void test_leftbehind(void);
void test_orphan(void);
void test_syscalls(void);
void test_closefds(void);
void test_signals(void);
void test_barrier(void);
void test_mapkinds(void);
void test_sysv(void);
void test_mlockall(void);
void test_advices(void);
void test_direct(void);
void test_ownuffd(void);
void test_splits(void);
void test_sandbox(void);
void test_sandbox_all(void);
void test_rlimits(void);
void test_hold(void);
void test_live(void);

#endif
