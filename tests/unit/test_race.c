// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Threads that fault, write out, share, free, move and lose the same entries,
 * while the pool is written back and compacted and a tier comes and goes.
 *
 * The model says what bytes an entry stands for.  It changes under a lock of
 * its own, for writing; those who only look, or move the bytes about, take it
 * for reading and may meet at the same entry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <sched.h>

#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/kernel.h>

#include "memtier.h"
#include "pages.h"

#if defined(COMPAT_TSAN)
#define STEPS 4000
#elif defined(COMPAT_ASAN)
#define STEPS 10000
#else
#define STEPS 40000
#endif
#define MAX_ENTRIES 2000
#define NR_THREADS  3
#define NR_FOLIOS   (2 * nr_entries + 64)

static unsigned int nr_entries;

/* ---- folios, type stable --------------------------------------------- */

struct frame {
	struct swap_folio f;
	struct frame *next;
	unsigned long backing[4];
};

static struct frame *free_frames;
static pthread_mutex_t frame_lock = PTHREAD_MUTEX_INITIALIZER;
static struct frame *all_frames;

static void frame_release(struct swap_folio *folio)
{
	struct frame *fr = (struct frame *)folio;

	pthread_mutex_lock(&frame_lock);
	fr->next = free_frames;
	free_frames = fr;
	pthread_mutex_unlock(&frame_lock);
}

static struct swap_folio *frame_new(unsigned int order)
{
	struct frame *fr;

	pthread_mutex_lock(&frame_lock);
	fr = free_frames;
	if (!fr)
		abort();
	free_frames = fr->next;
	pthread_mutex_unlock(&frame_lock);
	swap_folio_init(&fr->f, fr->f.data, order, fr->backing, frame_release);
	swap_folio_lock(&fr->f);
	return &fr->f;
}

static void frames_make(void)
{
	unsigned int i;

	all_frames = aligned_alloc(64, NR_FOLIOS * sizeof(*all_frames));
	assert_non_null(all_frames);
	memset(all_frames, 0, NR_FOLIOS * sizeof(*all_frames));
	free_frames = NULL;
	for (i = 0; i < NR_FOLIOS; i++) {
		all_frames[i].f.data = aligned_alloc(SWAP_PAGE_SIZE, 4 * SWAP_PAGE_SIZE);
		assert_non_null(all_frames[i].f.data);
		all_frames[i].next = free_frames;
		free_frames = &all_frames[i];
	}
}

static void frames_free(void)
{
	unsigned int i, n = 0;
	struct frame *fr;

	/* All of them came back. */
	for (fr = free_frames; fr; fr = fr->next)
		n++;
	assert_int_equal(n, NR_FOLIOS);
	for (i = 0; i < NR_FOLIOS; i++)
		free(all_frames[i].f.data);
	free(all_frames);
}

/* ---- the model ------------------------------------------------------- */

struct model {
	pthread_rwlock_t lock;
	vswp_entry_t entry;
	unsigned int order;
	enum page_kind kind;
	u64 seed;
};

static struct model models[MAX_ENTRIES];
static struct swap_space *space;
static struct memtier *solid;
static bool runs_full; /* solid does, now and then */
static atomic_t stop;
static atomic_t failed;

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			atomic_inc(&failed);                                       \
		}                                                                  \
	} while (0)

/* The folio with @entry in it, locked, cached, uptodate; one of our references. */
static struct swap_folio *fault(vswp_entry_t entry, unsigned int order)
{
	struct swap_folio *f;
	int ret;

	for (;;) {
		f = swap_cache_get_folio(space, entry);
		if (f) {
			swap_folio_lock(f);
			if (swap_folio_test(f, SWAP_FOLIO_CACHED) && entry.val >= f->entry.val &&
			    entry.val - f->entry.val < 1UL << f->order)
				break;
			swap_folio_unlock(f);
			swap_folio_put(f);
			continue;
		}
		f = frame_new(order);
		ret = swap_cache_add_folio(space, vswp_entry(entry.val & ~((1UL << order) - 1)), f);
		if (!ret)
			break;
		CHECK(ret == -EEXIST);
		swap_folio_unlock(f);
		swap_folio_put(f);
		/* Part of it is cached: then that part. */
		order = 0;
	}
	if (!swap_folio_test(f, SWAP_FOLIO_UPTODATE))
		CHECK(swap_readin(space, &f, 1) == 1);
	return f;
}

static void done(struct swap_folio *f)
{
	swap_folio_unlock(f);
	swap_folio_put(f);
}

static void check(const struct model *m, struct swap_folio *f)
{
	CHECK(folio_is(f, m->kind, m->seed + (f->entry.val - m->entry.val)));
}

/* Look, and then perhaps do something to where the bytes are. */
static void visit(const struct model *m, u64 rnd)
{
	vswp_entry_t e = vswp_entry(m->entry.val + (rnd >> 8) % (1U << m->order));
	struct swap_folio *f = fault(e, rnd & 128 ? m->order : 0);

	check(m, f);
	switch (rnd % 8) {
	case 0:
		if (!folio_realloc_swap(space, f))
			CHECK(swap_folio_test(f, SWAP_FOLIO_UPTODATE));
		break;
	case 1:
		folio_migrate_swap(space, f, NULL);
		break;
	case 2:
		CHECK(folio_dup_swap(space, f) == 0);
		CHECK(swap_count(space, e) >= 2);
		folio_put_swap(space, f);
		break;
	default:
		break;
	}
	check(m, f);
	if (rnd & 64) {
		swap_writeout(space, &f, 1);
		if (!swap_folio_test(f, SWAP_FOLIO_DIRTY))
			swap_cache_del_folio(space, f);
	}
	done(f);
}

/* Give the entries up, having looked at each page. */
static void drop(struct model *m)
{
	unsigned int i, nr = 1U << m->order;
	struct swap_folio *f;
	vswp_entry_t e;

	for (i = 0; i < nr; i++) {
		e = vswp_entry(m->entry.val + i);
		f = fault(e, 0);
		check(m, f);
		CHECK(swap_count(space, e) >= 1);
		swap_free_range(space, e, 1);
		folio_free_swap(space, f);
		done(f);
	}
	m->entry.val = 0;
}

static void make(struct model *m, u64 rnd)
{
	struct swap_folio *f = frame_new(rnd % 4 == 0 ? 2 : 0);

	m->kind = (rnd >> 4) % PAGE_KINDS;
	m->seed = rnd >> 8;
	m->order = f->order;
	folio_make(f, m->kind, m->seed);
	if (folio_alloc_swap(space, NULL, f)) {
		CHECK(false);
	} else {
		m->entry = f->entry;
		if (rnd & 1 << 30) {
			swap_writeout(space, &f, 1);
			if (!swap_folio_test(f, SWAP_FOLIO_DIRTY))
				swap_cache_del_folio(space, f);
		}
	}
	done(f);
}

static void *worker(void *arg)
{
	u64 rnd = (unsigned long)arg * 977 + 1;
	unsigned int i;

	for (i = 0; i < STEPS && !atomic_read(&failed); i++) {
		struct model *m = &models[noise(&rnd) % nr_entries];
		u64 dice = noise(&rnd);

		if (dice % 4) {
			pthread_rwlock_rdlock(&m->lock);
			if (m->entry.val)
				visit(m, noise(&rnd));
		} else {
			pthread_rwlock_wrlock(&m->lock);
			if (m->entry.val)
				drop(m);
			if (dice % 16)
				make(m, noise(&rnd));
		}
		pthread_rwlock_unlock(&m->lock);
	}
	return NULL;
}

static void *mover(void *arg)
{
	struct swap_stat st;
	u64 rnd = 5, dice;

	(void)arg;
	while (!atomic_read(&stop)) {
		dice = noise(&rnd) % 8;
		if (runs_full && dice < 3) {
			pthread_mutex_lock(&solid->lock);
			solid->write_error = dice ? 0 : -ENOSPC;
			pthread_mutex_unlock(&solid->lock);
		}
		swap_writeback(space, 64 << 10);
		swap_compact(space);
		swap_space_stat(space, &st);
		CHECK(st.slots_used <= nr_entries * 4);
		sched_yield();
	}
	return NULL;
}

static void *shaker(void *arg)
{
	struct memtier *mt = arg;
	struct swap_tier *tier;
	int ret;

	while (!atomic_read(&stop)) {
		tier = memtier_add(space, mt, "shaky", 1);
		CHECK(!IS_ERR(tier));
		if (IS_ERR(tier))
			break;
		do {
			sched_yield();
			ret = swapoff(space, tier, NULL);
			CHECK(ret == 0 || ret == -ENOSPC);
		} while (ret == -ENOSPC);
	}
	return NULL;
}

static void race(unsigned int nr, u64 pool_limit, bool full)
{
	struct swap_space_conf conf = { .compressor = "lz4", .pool_limit = pool_limit };
	struct memtier *shaky = memtier_new(1024);
	pthread_t thread[NR_THREADS], move, shake;
	struct swap_stat st;
	unsigned int i;

	solid = memtier_new(16384);
	nr_entries = nr;
	runs_full = full;
	atomic_set(&stop, 0);
	frames_make();
	space = swap_space_create(&conf);
	assert_false(IS_ERR(space));
	assert_false(IS_ERR(memtier_add(space, solid, "solid", 0)));
	for (i = 0; i < nr_entries; i++)
		pthread_rwlock_init(&models[i].lock, NULL);
	assert_int_equal(pthread_create(&move, NULL, mover, NULL), 0);
	assert_int_equal(pthread_create(&shake, NULL, shaker, shaky), 0);
	for (i = 0; i < NR_THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, worker, (void *)(i + 1UL)), 0);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	atomic_set(&stop, 1);
	pthread_join(move, NULL);
	/* What is in the shaky one has to go somewhere. */
	pthread_mutex_lock(&solid->lock);
	solid->write_error = 0;
	pthread_mutex_unlock(&solid->lock);
	for (i = 0; i < nr_entries; i++) {
		if (models[i].entry.val)
			drop(&models[i]);
		pthread_rwlock_destroy(&models[i].lock);
	}
	pthread_join(shake, NULL);
	assert_int_equal(atomic_read(&failed), 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	assert_int_equal(st.pool_objects, 0);
	assert_int_equal(st.nr_poison, 0);
	assert_true(st.zswpwb > 0 && st.pswpin > 0 && st.zswpin > 0 && st.swpin_zero > 0);
	swap_space_destroy(space);
	frames_free();
	memtier_free(solid);
	memtier_free(shaky);
}

static void test_race(void **state)
{
	(void)state;
	race(192, 1 << 24, false);
}

/* A pool that is too small, so that it is always being cleaned and written back. */
static void test_tight(void **state)
{
	(void)state;
	race(MAX_ENTRIES, 5 << 20, true);
}

/* ---- the bare allocator ---------------------------------------------- */

#define NR_BARE 3000

static void *bare(void *arg)
{
	vswp_entry_t *e = calloc(NR_BARE, sizeof(*e));
	u64 rnd = (unsigned long)arg * 31 + 7;
	unsigned int i, k, order;

	if (!e)
		abort();
	for (i = 0; i < STEPS * 4; i++) {
		k = noise(&rnd) % NR_BARE;
		if (e[k].val) {
			/* Nobody else's: one owner. */
			CHECK(swap_count(space, e[k]) == 1);
			swap_free_range(space, e[k], 1);
			e[k].val = 0;
			continue;
		}
		order = noise(&rnd) % 16 ? 0 : 3;
		e[k] = swap_alloc(space, NULL, order);
		CHECK(e[k].val);
		if (order)
			swap_free_range(space, vswp_entry(e[k].val + 1), 7);
	}
	for (k = 0; k < NR_BARE; k++)
		if (e[k].val)
			swap_free_range(space, e[k], 1);
	free(e);
	return NULL;
}

static void test_bare(void **state)
{
	struct swap_space_conf conf = { .compressor = "none" };
	pthread_t thread[NR_THREADS];
	struct swap_stat st;
	unsigned int i;

	(void)state;
	space = swap_space_create(&conf);
	assert_false(IS_ERR(space));
	for (i = 0; i < NR_THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, bare, (void *)(i + 1UL)), 0);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	assert_true(st.clusters <= nr_cpu_ids);
	assert_int_equal(atomic_read(&failed), 0);
	swap_space_destroy(space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bare),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_tight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
