// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Groups: what a limit refuses, whose pages go for it, and that nothing is
 * charged any more when all is given back.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include <linux/err.h>
#include <linux/kernel.h>

#include "memtier.h"
#include "pages.h"

static const struct swap_group_conf unlimited = {
	.pool_limit = SWAP_NO_LIMIT,
	.swap_limit = SWAP_NO_LIMIT,
	.tiers = ~0U,
};

static struct swap_space *space_new(const char *compressor, u64 pool_limit)
{
	struct swap_space_conf conf = { .compressor = compressor, .pool_limit = pool_limit };
	struct swap_space *space = swap_space_create(&conf);

	assert_false(IS_ERR(space));
	return space;
}

/* Out of memory; entry 0: no store would have it. */
static vswp_entry_t page_out(struct swap_space *space, struct swap_group *group,
			     enum page_kind kind, u64 seed)
{
	struct swap_folio *f = folio_new(0);
	vswp_entry_t entry;

	folio_make(f, kind, seed);
	assert_int_equal(folio_alloc_swap(space, group, f), 0);
	entry = f->entry;
	if (swap_writeout(space, &f, 1)) {
		swap_cache_del_folio(space, f);
	} else {
		swap_free_range(space, entry, 1);
		assert_true(folio_free_swap(space, f));
		entry.val = 0;
	}
	folio_done(f);
	return entry;
}

static void page_back(struct swap_space *space, vswp_entry_t entry, enum page_kind kind, u64 seed)
{
	struct swap_folio *f = folio_new(0);

	assert_int_equal(swap_cache_add_folio(space, entry, f), 0);
	assert_int_equal(swap_readin(space, &f, 1), 1);
	assert_true(folio_is(f, kind, seed));
	swap_free_range(space, entry, 1);
	assert_true(folio_free_swap(space, f));
	folio_done(f);
}

static struct swap_group_stat stat_of(struct swap_group *group)
{
	struct swap_group_stat st;

	swap_group_stat(group, &st);
	return st;
}

static void assert_unused(struct swap_group *group)
{
	assert_int_equal(stat_of(group).pool.used, 0);
	assert_int_equal(stat_of(group).swap.used, 0);
}

/* A group at its pool limit sends its own oldest away, and nobody else's. */
static void test_pool_limit(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 24);
	struct swap_group *a = swap_group_create(space, NULL), *b = swap_group_create(space, NULL);
	struct swap_group *in_a = swap_group_create(space, a);
	struct swap_group_conf conf = unlimited;
	struct memtier *mt = memtier_new(4096);
	vswp_entry_t ea[1500], eb[100];
	struct swap_stat st;
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	conf.pool_limit = 128 << 10;
	swap_group_set(a, &conf);
	for (i = 0; i < 100; i++)
		eb[i] = page_out(space, b, PAGE_TEXT, 5000 + i);
	for (i = 0; i < 1500; i++) {
		ea[i] = page_out(space, in_a, PAGE_TEXT, i);
		assert_int_not_equal(ea[i].val, 0);
		/* The newest is always in the pool. */
		assert_int_equal(swap_entry_where(space, ea[i]), SWAP_ZPOOL);
	}
	assert_true(stat_of(a).pool.used <= conf.pool_limit);
	assert_true(stat_of(a).pool.peak <= conf.pool_limit);
	assert_true(stat_of(a).pool.events > 0);
	assert_int_equal(stat_of(in_a).pool.events, 0);
	assert_int_equal(stat_of(in_a).pool.used, stat_of(a).pool.used);
	assert_int_equal(stat_of(in_a).swap.used, stat_of(a).swap.used);
	/* Oldest first: what is on the tier is older than what is not. */
	for (i = 0; i < 1500 && swap_entry_where(space, ea[i]) == SWAP_SLOT; i++)
		;
	assert_int_equal(i, stat_of(a).swap.used);
	assert_in_range(i, 100, 1499);
	for (; i < 1500; i++)
		assert_int_equal(swap_entry_where(space, ea[i]), SWAP_ZPOOL);
	for (i = 0; i < 100; i++)
		assert_int_equal(swap_entry_where(space, eb[i]), SWAP_ZPOOL);
	/* By hand, too. */
	swap_space_stat(space, &st);
	assert_int_equal(st.pool_live_bytes, stat_of(a).pool.used + stat_of(b).pool.used);
	assert_true(swap_group_writeback(a, SWAP_NO_LIMIT) > 0);
	assert_int_equal(stat_of(a).pool.used, 0);
	for (i = 0; i < 100; i++)
		assert_int_equal(swap_entry_where(space, eb[i]), SWAP_ZPOOL);
	for (i = 0; i < 1500; i++)
		page_back(space, ea[i], PAGE_TEXT, i);
	for (i = 0; i < 100; i++)
		page_back(space, eb[i], PAGE_TEXT, 5000 + i);
	assert_unused(a);
	assert_unused(b);
	assert_unused(in_a);
	swap_group_destroy(in_a);
	swap_group_destroy(a);
	swap_group_destroy(b);
	swap_space_destroy(space);
	memtier_free(mt);
}

/* What is to be left to a group is, while others can make room; then it goes as well. */
static void test_pool_low(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 20);
	struct swap_group *a = swap_group_create(space, NULL), *b = swap_group_create(space, NULL);
	struct swap_group_conf conf = unlimited;
	struct memtier *mt = memtier_new(16384);
	static vswp_entry_t ea[8000];
	vswp_entry_t eb[100];
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	conf.pool_low = 256 << 10;
	swap_group_set(b, &conf);
	for (i = 0; i < 100; i++)
		eb[i] = page_out(space, b, PAGE_TEXT, 50000 + i);
	for (i = 0; i < 8000; i++)
		ea[i] = page_out(space, a, PAGE_TEXT, i);
	assert_true(stat_of(a).swap.used > 1000);
	assert_int_equal(stat_of(b).swap.used, 0);
	while (swap_writeback(space, 1 << 16))
		;
	assert_int_equal(stat_of(a).pool.used, 0);
	assert_int_equal(stat_of(b).swap.used, 100);
	for (i = 0; i < 8000; i++)
		page_back(space, ea[i], PAGE_TEXT, i);
	for (i = 0; i < 100; i++)
		page_back(space, eb[i], PAGE_TEXT, 50000 + i);
	assert_unused(a);
	assert_unused(b);
	swap_group_destroy(a);
	swap_group_destroy(b);
	swap_space_destroy(space);
	memtier_free(mt);
}

/* Slots: a limit of any of them refuses, and is not in the way of others. */
static void test_swap_limit(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 22);
	struct swap_group *a = swap_group_create(space, NULL), *in_a = swap_group_create(space, a);
	struct swap_group *b = swap_group_create(space, NULL);
	struct swap_group_conf conf = unlimited;
	struct memtier *mt = memtier_new(4096);
	vswp_entry_t ea[64], eb[64], more;
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	conf.swap_limit = 20;
	swap_group_set(a, &conf);
	for (i = 0; i < 64; i++) {
		ea[i] = page_out(space, in_a, PAGE_TEXT, i);
		eb[i] = page_out(space, b, PAGE_TEXT, 100 + i);
	}
	/* Alternating in age: those of a are passed over once it has what it may have. */
	assert_true(swap_writeback(space, SWAP_NO_LIMIT) > 0);
	assert_int_equal(stat_of(in_a).swap.used, 20);
	assert_int_equal(stat_of(a).swap.peak, 20);
	assert_int_equal(stat_of(b).swap.used, 64);
	assert_int_equal(page_out(space, in_a, PAGE_NOISE, 1).val, 0);
	assert_true(stat_of(a).swap.events > 0);
	more = page_out(space, b, PAGE_NOISE, 1);
	assert_int_not_equal(more.val, 0);
	page_back(space, more, PAGE_NOISE, 1);
	/* Higher at run time. */
	conf.swap_limit = 21;
	swap_group_set(a, &conf);
	more = page_out(space, in_a, PAGE_NOISE, 2);
	assert_int_not_equal(more.val, 0);
	page_back(space, more, PAGE_NOISE, 2);
	for (i = 0; i < 64; i++) {
		page_back(space, ea[i], PAGE_TEXT, i);
		page_back(space, eb[i], PAGE_TEXT, 100 + i);
	}
	assert_unused(a);
	assert_unused(in_a);
	assert_unused(b);
	swap_group_destroy(in_a);
	swap_group_destroy(a);
	swap_group_destroy(b);
	swap_space_destroy(space);
	memtier_free(mt);
}

/* Own mask and parents', at writeout, at writeback and when a tier is drained. */
static void test_tiers(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 22);
	struct swap_group *a = swap_group_create(space, NULL), *in_a = swap_group_create(space, a);
	struct memtier *mt[3];
	struct swap_tier *tier[3];
	struct swap_group_conf conf = unlimited;
	struct swap_tier_stat ts;
	vswp_entry_t e[40];
	unsigned int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		mt[i] = memtier_new(512);
		tier[i] = memtier_add(space, mt[i], "mem", -(int)i);
		assert_false(IS_ERR(tier[i]));
		assert_true(swap_tier_stat(space, i, &ts));
		assert_int_equal(ts.nr, i);
	}
	conf.tiers = 6;
	swap_group_set(a, &conf);
	conf.tiers = 5;
	swap_group_set(in_a, &conf);
	for (i = 0; i < 20; i++)
		e[i] = page_out(space, in_a, PAGE_NOISE, i);
	for (; i < 40; i++)
		e[i] = page_out(space, in_a, PAGE_TEXT, i);
	assert_int_equal(mt[2]->pages_written, 20);
	assert_true(swap_writeback(space, SWAP_NO_LIMIT) > 0);
	assert_int_equal(mt[2]->pages_written, 40);
	/* Not where others could go. */
	assert_int_equal(swapoff(space, tier[2], NULL), -ENOSPC);
	conf.tiers = 3;
	swap_group_set(in_a, &conf);
	assert_int_equal(swapoff(space, tier[2], NULL), 0);
	assert_int_equal(mt[0]->pages_written, 0);
	assert_true(mt[1]->pages_written >= 20);
	/* A number is used again. */
	tier[2] = memtier_add(space, mt[2], "mem", -7);
	assert_true(swap_tier_stat(space, 2, &ts));
	assert_int_equal(ts.nr, 2);
	/* None at all: nothing can be written. */
	conf.tiers = 0;
	swap_group_set(in_a, &conf);
	assert_int_equal(page_out(space, in_a, PAGE_NOISE, 1).val, 0);
	for (i = 0; i < 40; i++)
		page_back(space, e[i], i < 20 ? PAGE_NOISE : PAGE_TEXT, i);
	assert_unused(in_a);
	assert_unused(a);
	swap_group_destroy(in_a);
	swap_group_destroy(a);
	swap_space_destroy(space);
	for (i = 0; i < 3; i++)
		memtier_free(mt[i]);
}

/* Straight to a slot, and back in whatever mode. */
static void test_direct(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 22);
	struct swap_group *a = swap_group_create(space, NULL), *in_a = swap_group_create(space, a);
	struct swap_group_conf conf = unlimited;
	struct memtier *mt = memtier_new(512);
	vswp_entry_t e[4];
	unsigned int i;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, mt, "mem", 0)));
	for (i = 0; i < 4; i++) {
		conf.direct = i & 1;
		swap_group_set(a, &conf);
		e[i] = page_out(space, in_a, PAGE_TEXT, i);
		assert_int_equal(swap_entry_where(space, e[i]), i & 1 ? SWAP_SLOT : SWAP_ZPOOL);
	}
	page_back(space, e[0], PAGE_TEXT, 0);
	page_back(space, e[1], PAGE_TEXT, 1);
	conf.direct = false;
	swap_group_set(a, &conf);
	page_back(space, e[2], PAGE_TEXT, 2);
	page_back(space, e[3], PAGE_TEXT, 3);
	assert_unused(in_a);
	assert_unused(a);
	swap_group_destroy(in_a);
	swap_group_destroy(a);
	swap_space_destroy(space);
	memtier_free(mt);
}

/* ---- several at once -------------------------------------------------- */

#define RACE_PAGES  400
#define RACE_ROUNDS 30

struct racer {
	struct swap_space *space;
	struct swap_group *parent;
	unsigned int nr;
};

/* Groups come and go with their pages while others are written back and demoted. */
static void *race_main(void *arg)
{
	struct racer *r = arg;
	struct swap_group_conf conf = unlimited;
	vswp_entry_t e[RACE_PAGES];

	for (unsigned int round = 0; round < RACE_ROUNDS; round++) {
		struct swap_group *g = swap_group_create(r->space, r->parent);
		u64 seed = (u64)r->nr << 32 | (u64)round << 16;

		if (!g)
			abort();
		conf.pool_limit = 32 << 10;
		conf.direct = round % 4 == 3;
		swap_group_set(g, &conf);
		for (unsigned int i = 0; i < RACE_PAGES; i++) {
			enum page_kind kind = i % 8 == 7 ? PAGE_NOISE : PAGE_TEXT;

			e[i] = page_out(r->space, g, kind, seed + i);
			if (!e[i].val)
				abort();
		}
		for (unsigned int i = 0; i < RACE_PAGES; i++)
			page_back(r->space, e[i], i % 8 == 7 ? PAGE_NOISE : PAGE_TEXT, seed + i);
		/* A slot may be charged yet to a page that was on its way there. */
		while (stat_of(g).pool.used || stat_of(g).swap.used)
			sched_yield();
		swap_group_destroy(g);
	}
	return NULL;
}

struct mover {
	struct swap_space *space;
	struct swap_tier *fast;
	int stop; /* atomic */
};

static void *mover_main(void *arg)
{
	struct mover *m = arg;

	for (unsigned int i = 0; !__atomic_load_n(&m->stop, __ATOMIC_RELAXED); i++) {
		swap_writeback(m->space, 64 << 10);
		swap_demote(m->space, m->fast, 256 << 10);
		if (swap_space_set_compressor(m->space, i & 1 ? "zstd" : "lz4"))
			abort();
	}
	return NULL;
}

static void test_race(void **state)
{
	struct swap_space *space = space_new("lz4", 1 << 22);
	struct swap_group *parent = swap_group_create(space, NULL);
	struct memtier *fast = memtier_new(8192), *slow = memtier_new(8192);
	struct racer r[2];
	struct mover m = { .space = space };
	pthread_t thread[3];
	struct swap_stat st;

	(void)state;
	assert_false(IS_ERR(memtier_add(space, slow, "slow", 0)));
	m.fast = memtier_add(space, fast, "fast", 1);
	assert_false(IS_ERR(m.fast));
	assert_int_equal(pthread_create(&thread[2], NULL, mover_main, &m), 0);
	for (unsigned int i = 0; i < 2; i++) {
		r[i] = (struct racer){ .space = space, .parent = parent, .nr = i };
		assert_int_equal(pthread_create(&thread[i], NULL, race_main, &r[i]), 0);
	}
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	__atomic_store_n(&m.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread[2], NULL);
	assert_true(slow->pages_written > 0);
	assert_unused(parent);
	swap_group_destroy(parent);
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	assert_int_equal(st.pool_objects, 0);
	swap_space_destroy(space);
	memtier_free(fast);
	memtier_free(slow);
}

/* A tier a read of which waits for whoever wants something to happen meanwhile. */
struct gate {
	struct memtier *mt;
	unsigned int fail; /* so many reads before it are -EIO */
	bool shut;
	sem_t reached, open;
};

static void gate_read(void *priv, struct swap_io *io, unsigned int nr)
{
	struct gate *g = priv;

	if (g->fail) {
		g->fail--;
		for (unsigned int i = 0; i < nr; i++)
			io[i].error = -EIO;
		return;
	}
	if (g->shut) {
		g->shut = false;
		sem_post(&g->reached);
		sem_wait(&g->open);
	}
	memtier_read(g->mt, io, nr);
}

static void gate_write(void *priv, struct swap_io *io, unsigned int nr)
{
	memtier_write(((struct gate *)priv)->mt, io, nr);
}

static const struct swap_tier_ops gate_ops = { .read = gate_read, .write = gate_write };

struct drainer {
	struct swap_space *space;
	struct swap_tier *from, *to; /* NULL: all goes */
	int ret;
};

static void *drainer_main(void *arg)
{
	struct drainer *d = arg;
	u64 moved;

	d->ret = d->to ? swap_migrate(d->space, d->from, d->to, U64_MAX, NULL, &moved) :
			 swapoff(d->space, d->from, NULL);
	return NULL;
}

struct ender {
	struct swap_group *group;
	int done; /* atomic */
};

static void *ender_main(void *arg)
{
	struct ender *e = arg;

	swap_group_destroy(e->group);
	__atomic_store_n(&e->done, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* The last page of a group is given up while a drain has it in hand, and the group with it. */
static void end_while_drained(bool migrate)
{
	struct swap_space *space = space_new("none", 0);
	struct memtier *slow = memtier_new(512);
	struct gate gate = { .mt = memtier_new(512), .shut = true };
	struct swap_tier_conf conf = {
		.name = "gate", .ops = &gate_ops, .priv = &gate, .nr_slots = 512, .prio = 1
	};
	struct drainer d = { .space = space };
	struct ender e = { 0 };
	struct swap_tier_stat ts;
	pthread_t thread[2];
	struct swap_stat st;
	vswp_entry_t entry;

	assert_int_equal(sem_init(&gate.reached, 0, 0) | sem_init(&gate.open, 0, 0), 0);
	d.from = swap_tier_add(space, &conf);
	assert_false(IS_ERR(d.from));
	d.to = memtier_add(space, slow, "slow", 0);
	assert_false(IS_ERR(d.to));
	e.group = swap_group_create(space, NULL);
	assert_non_null(e.group);
	entry = page_out(space, e.group, PAGE_NOISE, 1);
	assert_int_not_equal(entry.val, 0);
	if (!migrate) {
		d.to = NULL;
		/* What a swapoff reads first it reads without folios, twice if it fails. */
		gate.fail = 2;
	}
	assert_int_equal(pthread_create(&thread[0], NULL, drainer_main, &d), 0);
	sem_wait(&gate.reached);
	swap_free_range(space, entry, 1);
	assert_int_equal(pthread_create(&thread[1], NULL, ender_main, &e), 0);
	usleep(100000);
	assert_int_equal(__atomic_load_n(&e.done, __ATOMIC_RELAXED), 0);
	sem_post(&gate.open);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	assert_int_equal(d.ret, 0);
	swap_space_stat(space, &st);
	assert_int_equal(st.slots_used, 0);
	for (unsigned int i = 0; swap_tier_stat(space, i, &ts); i++)
		assert_int_equal(ts.slots_used, 0);
	swap_space_destroy(space);
	memtier_free(gate.mt);
	memtier_free(slow);
	sem_destroy(&gate.reached);
	sem_destroy(&gate.open);
}

static void test_end_while_drained(void **state)
{
	(void)state;
	end_while_drained(false);
	end_while_drained(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool_limit),
		cmocka_unit_test(test_pool_low),
		cmocka_unit_test(test_swap_limit),
		cmocka_unit_test(test_tiers),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_end_while_drained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
