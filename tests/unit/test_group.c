// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Groups: their names, what is counted where, who has which share and who gives.
 */
#include <errno.h>
#include <linux/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../pager/budget.h"
#include "../../pager/group.h"
#include "../../pager/state.h"

#define MIB (1ULL << 20)
#define RAM (128 * MIB)

static uint64_t resident[GROUP_MAX], twice[GROUP_MAX];

static int set_up(void **state)
{
	struct swap_space_conf conf = { .pool_limit = 16 * MIB };

	(void)state;
	pager.space = swap_space_create(&conf);
	if (IS_ERR(pager.space))
		return -1;
	groups_init();
	budget_init(RAM);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	swap_space_destroy(pager.space);
	return 0;
}

/* A new group, without a reference. */
static struct group *make(const char *name)
{
	struct group *g;

	assert_int_equal(group_make(name, &g), 0);
	group_put(g);
	return g;
}

static void limit_ram(struct group *g, uint64_t bytes)
{
	struct group_limits limit = g->limit;

	limit.ram = bytes;
	group_set(g, &limit);
}

/* As if the programs of @g alone had so much. */
static void has(struct group *g, uint64_t bytes)
{
	int64_t more = bytes - resident[group_index(g)];

	for (; g; g = g->parent)
		resident[group_index(g)] += more;
	groups_sampled(resident, twice);
	groups_share(0);
}

/* No group and nothing used. */
static void clear(const char *const *names)
{
	struct group *g;

	memset(resident, 0, sizeof(resident));
	groups_sampled(resident, twice);
	for (; *names; names++)
		assert_int_equal(group_remove(*names), 0);
	for (unsigned int i = 0; (g = group_nth(i)); i++)
		g->dry = g->stalled = false;
}

static void names(void **state)
{
	static const char *const good[] = { "a", "batch/nightly", "A-1_x.y", "1/2/3/4/5/6/7/8" };
	static const char *const bad[] = {
		"",	"/",   "/a",   "a/",  "a//b",	  "..",	 ".a",
		"a/.b", "a b", "a\tb", "a\n", "\xc3\xa4", "a=b", "1/2/3/4/5/6/7/8/9"
	};
	char longest[GROUP_NAME + 1];

	(void)state;
	for (unsigned int i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_null(group_name_check(good[i]));
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_non_null(group_name_check(bad[i]));
	memset(longest, 'x', sizeof(longest));
	longest[GROUP_NAME - 1] = 0;
	assert_null(group_name_check(longest));
	longest[GROUP_NAME - 1] = 'x';
	longest[GROUP_NAME] = 0;
	assert_non_null(group_name_check(longest));
}

static void made_and_removed(void **state)
{
	static const char *const all[] = { "a/b", "a", NULL };
	struct group *b, *same;

	(void)state;
	assert_null(group_find("a"));
	assert_int_equal(group_make("a/b", &b), 0);
	assert_string_equal(b->name, "a/b");
	assert_string_equal(b->parent->name, "a");
	assert_ptr_equal(b->parent->parent, group_root());
	assert_true(group_is_in(b, group_root()));
	assert_false(group_is_in(b->parent, b));
	same = group_find("a/b");
	assert_ptr_equal(same, b);
	assert_int_equal(group_remove("a"), -ENOTEMPTY);
	assert_int_equal(group_remove("a/b"), -EBUSY);
	group_put(same);
	group_put(b);
	assert_int_equal(group_remove("b"), -ENOENT);
	assert_int_equal(group_remove(""), -ENOENT);
	clear(all);
	assert_null(group_find("a/b"));
}

static void too_many(void **state)
{
	struct group *g;
	char name[16];
	unsigned int n;

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (n = 0;; n++) {
			snprintf(name, sizeof(name), "n%u", n);
			if (group_make(name, &g))
				break;
			group_put(g);
		}
		assert_int_equal(n, GROUP_MAX - 1);
		/* All of it or nothing. */
		assert_int_equal(group_remove("n7"), 0);
		assert_int_equal(group_make("x/y", &g), -ENOSPC);
		assert_null(group_find("x"));
		make("n7");
		while (n--) {
			snprintf(name, sizeof(name), "n%u", n);
			assert_int_equal(group_remove(name), 0);
		}
	}
}

/* A group that still has frames keeps its place until they are given back. */
static void frames_outlive(void **state)
{
	static const char *const all[] = { "b", NULL };
	struct group *a = make("a"), *b;

	(void)state;
	group_add_frames(a, 3);
	assert_int_equal(group_used(a), 3 * 4096);
	assert_int_equal(group_remove("a"), 0);
	b = make("b");
	assert_ptr_not_equal(a, b);
	group_add_frames(a, -3);
	clear(all);
}

static void counted(void **state)
{
	static const char *const all[] = { "a/b", "a", NULL };
	struct group *b = make("a/b"), *a = b->parent;

	(void)state;
	has(b, 10 * MIB);
	has(a, 15 * MIB);
	assert_int_equal(group_used(b), 10 * MIB);
	assert_int_equal(group_used(a), 15 * MIB);
	group_add_resident(b, 4096);
	assert_int_equal(group_used(b), 10 * MIB + 4096);
	assert_int_equal(group_used(a), 15 * MIB + 4096);
	group_count(b, GROUP_FAULT, 2);
	assert_int_equal(a->count[GROUP_FAULT], 2);
	assert_int_equal(a->peak, 15 * MIB);
	/* What may count twice is used, and no peak. */
	twice[group_index(b)] = 2 * MIB;
	has(b, 11 * MIB);
	twice[group_index(b)] = 0;
	assert_int_equal(group_used(b), 11 * MIB);
	assert_int_equal(b->peak, 10 * MIB);

	/* Over the limit once, however long. */
	limit_ram(a, 12 * MIB);
	has(b, 13 * MIB);
	has(b, 14 * MIB);
	assert_int_equal(a->count[GROUP_OVER], 1);
	assert_int_equal(b->count[GROUP_OVER], 0);
	has(b, MIB);
	has(a, 11 * MIB);
	has(b, 15 * MIB);
	assert_int_equal(a->count[GROUP_OVER], 2);
	clear(all);
}

static void waits(void **state)
{
	static const char *const all[] = { "a/b", "a", NULL };
	struct group *b = make("a/b"), *a = b->parent;

	(void)state;
	has(b, 16 * MIB);
	assert_false(group_spent(b));
	limit_ram(a, 15 * MIB);
	assert_true(group_spent(b));
	assert_false(group_spent(group_root()));
	limit_ram(a, 16 * MIB);
	assert_false(group_spent(b));
	limit_ram(b, 15 * MIB);
	assert_true(group_spent(b));
	assert_false(group_spent(a));
	clear(all);
}

static void shares(void **state)
{
	static const char *const all[] = { "a", "b", "c/x", "c/y", "c", NULL };
	struct group *a = make("a"), *b = make("b"), *c = make("c");
	struct group *x = make("c/x"), *y = make("c/y");

	(void)state;
	/* Who has no program has no share. */
	has(a, MIB);
	assert_int_equal(a->share, RAM);
	has(b, MIB);
	assert_int_equal(a->share, RAM / 2);
	assert_int_equal(b->share, RAM / 2);
	limit_ram(b, 32 * MIB);
	has(x, MIB);
	has(y, MIB);
	assert_int_equal(b->share, 32 * MIB);
	assert_int_equal(c->share, RAM / 3);
	assert_int_equal(x->share, RAM / 6);
	/* More promised than there is: all shrink in proportion. */
	limit_ram(b, RAM);
	limit_ram(a, RAM);
	assert_int_equal(c->share, RAM / 3);
	has(a, MIB);
	assert_in_range(a->share, 54 * MIB, 55 * MIB);
	assert_in_range(c->share, 18 * MIB, 19 * MIB);
	assert_in_range(a->share + b->share + c->share, RAM - 16, RAM);
	clear(all);
}

static void victims(void **state)
{
	static const char *const all[] = { "a", "b", "c/x", "c/y", "c", NULL };
	struct group *a = make("a"), *b = make("b"), *c = make("c");
	struct group *x = make("c/x"), *y = make("c/y");

	(void)state;
	has(a, 100 * MIB);
	has(b, 20 * MIB);
	assert_ptr_equal(group_victim(group_root()), a);
	/* It has nothing to give; another that keeps to its share is not asked. */
	a->dry = true;
	assert_null(group_victim(group_root()));
	/* Not able to is another thing. */
	a->stalled = true;
	assert_ptr_equal(group_victim(group_root()), b);
	a->dry = a->stalled = false;
	/* None is above: the one that is nearest. */
	has(a, 30 * MIB);
	has(b, 40 * MIB);
	assert_ptr_equal(group_victim(group_root()), b);
	/* Within one that is above, the one that is there. */
	has(x, 10 * MIB);
	has(y, 50 * MIB);
	assert_ptr_equal(group_victim(group_root()), y);
	assert_ptr_equal(group_victim(c), y);
	y->dry = true;
	assert_null(group_victim(c));
	/* Programs of a group beside groups in it have a part like theirs. */
	y->dry = false;
	has(c, 140 * MIB);
	assert_ptr_equal(group_victim(c), c);
	clear(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),	  cmocka_unit_test(made_and_removed),
		cmocka_unit_test(frames_outlive), cmocka_unit_test(counted),
		cmocka_unit_test(waits),	  cmocka_unit_test(shares),
		cmocka_unit_test(victims),	  cmocka_unit_test(too_many),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
