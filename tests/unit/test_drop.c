// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Telling the agent's REMOVE events from the program's.  Taking one of the agent's
 * for the program's would lose pages: the old rule, any event within the range,
 * did so where the program's was shorter and came first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../pager/drop.h"

static struct range others[DROP_EVENTS];
static unsigned int nr_others;

/* @there: as of pages [@there, 20). */
static bool is_own_where(struct drop *d, uint64_t start, uint64_t end, uint64_t there)
{
	return drop_is_own(d, (struct range){ start, end }, there, others, &nr_others);
}

static bool is_own(struct drop *d, uint64_t start, uint64_t end)
{
	return is_own_where(d, start, end, drop_last(d).end);
}

static void test_plain(void **state)
{
	struct drop d = { 0 };

	(void)state;
	drop_begin(&d, 1, (struct range){ 10, 20 });
	assert_false(drop_seen(&d));
	/* Not within, or not from where the next must be. */
	assert_false(is_own(&d, 10, 21));
	assert_false(is_own(&d, 9, 20));
	assert_false(is_own(&d, 12, 20));
	assert_true(is_own(&d, 10, 20));
	assert_true(drop_seen(&d));
	assert_int_equal(nr_others, 0);
	/* The same one goes on, the next begins anew. */
	drop_begin(&d, 1, (struct range){ 10, 20 });
	assert_true(drop_seen(&d));
	drop_begin(&d, 2, (struct range){ 10, 20 });
	assert_false(drop_seen(&d));
	assert_true(is_own(&d, 10, 20));
}

static void test_shorter_first(void **state)
{
	struct drop d = { 0 };

	(void)state;
	drop_begin(&d, 1, (struct range){ 10, 20 });
	assert_true(is_own(&d, 10, 11));
	assert_true(is_own(&d, 11, 12));
	assert_false(drop_seen(&d));
	assert_true(is_own(&d, 10, 20));
	assert_true(drop_seen(&d));
	assert_int_equal(nr_others, 2);
	assert_int_equal(others[0].start, 10);
	assert_int_equal(others[0].end, 11);
	assert_int_equal(others[1].start, 11);
	assert_int_equal(others[1].end, 12);
	/* One more, shorter or equal, is not. */
	assert_false(is_own(&d, 10, 11));
	assert_false(is_own(&d, 10, 20));
	assert_int_equal(nr_others, 0);
}

static void test_split(void **state)
{
	struct drop d = { 0 };

	(void)state;
	drop_begin(&d, 1, (struct range){ 10, 20 });
	assert_int_equal(drop_last(&d).end, 0);
	assert_true(is_own(&d, 10, 20));
	/* Nothing is dropped yet, or in the program's: those are its. */
	assert_false(is_own_where(&d, 13, 20, 10));
	drop_begin(&d, 2, (struct range){ 10, 20 });
	assert_true(is_own(&d, 10, 20));
	assert_false(is_own_where(&d, 12, 20, 13));
	/* Split at 13, then at 16, and joined with what is behind. */
	drop_begin(&d, 3, (struct range){ 10, 24 });
	assert_true(is_own(&d, 10, 20));
	assert_true(is_own_where(&d, 13, 20, 13));
	assert_int_equal(drop_last(&d).start, 13);
	assert_true(is_own_where(&d, 16, 22, 16));
	assert_false(drop_seen(&d));
	assert_true(is_own(&d, 22, 24));
	assert_true(drop_seen(&d));
	assert_false(d.unsure);
	/* What the program has dropped before that hides where the agent stands. */
	drop_begin(&d, 4, (struct range){ 10, 20 });
	assert_true(is_own(&d, 10, 20));
	assert_false(is_own_where(&d, 12, 15, 10));
	assert_false(d.unsure);
	assert_false(is_own_where(&d, 12, 20, 15));
	assert_true(d.unsure);
	drop_begin(&d, 5, (struct range){ 10, 20 });
	assert_false(d.unsure);
}

static bool over_hole(struct drop *d)
{
	return drop_over_hole(d, others, &nr_others);
}

static void test_hole(void **state)
{
	struct drop d = { 0 };

	(void)state;
	/* Told of before, and after. */
	drop_begin(&d, 1, (struct range){ 10, 20 });
	drop_has_hole(&d, (struct range){ 5, 12 });
	assert_false(is_own(&d, 12, 20));
	assert_true(over_hole(&d));
	assert_int_equal(nr_others, 1);
	assert_int_equal(others[0].start, 12);
	assert_int_equal(others[0].end, 20);
	drop_begin(&d, 2, (struct range){ 10, 20 });
	assert_false(is_own(&d, 12, 20));
	drop_has_hole(&d, (struct range){ 10, 12 });
	assert_true(over_hole(&d));
	assert_int_equal(nr_others, 1);
	/* Not told of: it may be the program's. */
	drop_begin(&d, 3, (struct range){ 10, 20 });
	assert_false(is_own(&d, 12, 20));
	assert_false(over_hole(&d));
	/* Nothing behind it. */
	drop_begin(&d, 4, (struct range){ 10, 20 });
	assert_true(is_own(&d, 10, 20));
	drop_has_hole(&d, (struct range){ 15, 30 });
	assert_true(over_hole(&d));
	assert_int_equal(nr_others, 0);
}

/* In what its last event told of, so that it goes on where it was before. */
static void test_hole_after(void **state)
{
	struct drop d = { 0 };

	(void)state;
	drop_begin(&d, 1, (struct range){ 10, 20 });
	assert_true(is_own(&d, 10, 20));
	assert_true(drop_seen(&d));
	drop_has_hole(&d, (struct range){ 12, 14 });
	assert_false(is_own(&d, 15, 16)); /* the program's */
	assert_false(is_own(&d, 14, 17));
	assert_false(is_own(&d, 17, 20));
	assert_true(over_hole(&d));
	assert_int_equal(nr_others, 2);
	assert_int_equal(others[0].start, 14);
	assert_int_equal(others[0].end, 17);
	assert_int_equal(others[1].start, 17);
	assert_int_equal(others[1].end, 20);
}

/* The program's that begin where the agent's do, or are all there is. */
static void test_hole_others(void **state)
{
	struct drop d = { 0 };

	(void)state;
	drop_begin(&d, 1, (struct range){ 10, 20 });
	drop_has_hole(&d, (struct range){ 10, 12 });
	assert_false(is_own(&d, 12, 13));
	assert_false(is_own(&d, 12, 20));
	assert_false(is_own(&d, 14, 16));
	assert_true(over_hole(&d));
	assert_int_equal(nr_others, 1);
	assert_int_equal(others[0].end, 20);
	/* More than can be kept. */
	drop_begin(&d, 2, (struct range){ 10, 20 });
	for (unsigned int i = 0; i <= DROP_EVENTS; i++)
		assert_false(is_own(&d, 12, 13));
	assert_false(over_hole(&d));
}

/* Any mappings, any events of the program's between: the agent's are found, and no other. */
static void test_random(void **state)
{
	(void)state;
	srandom(20);
	for (unsigned int round = 0; round < 20000; round++) {
		struct range range = { 100, 100 + 1 + random() % 63 }, own[DROP_EVENTS];
		unsigned int nr_own = 0, at = 0, program = 0, foreign = 0;
		uint64_t border[128] = { 0 };
		struct drop d = { 0 };

		drop_begin(&d, 1, range);
		/* Where a mapping ends: the end of each page's. */
		for (uint64_t p = 128, end = 0; p--;) {
			if (!end || random() % 6 == 0)
				end = p + 1;
			border[p] = 90 + end;
		}
		for (uint64_t a = range.start; a < range.end; a = own[nr_own++].end) {
			uint64_t end = border[a - 90];

			own[nr_own] = (struct range){ a, end < range.end ? end : range.end };
		}
		while (at < nr_own) {
			struct range event = own[at];

			if (random() % 3) {
				uint64_t most;

				event.start = 95 + random() % 70;
				/* Often where it can be mistaken. */
				if (random() % 2)
					event.start = own[at].start;
				most = border[event.start - 90];
				event.end = event.start + 1 + random() % 64;
				if (event.end > most)
					event.end = most;
				program++;
			} else {
				at++;
			}
			foreign += !is_own(&d, event.start, event.end);
			foreign += nr_others;
		}
		assert_int_equal(d.nr, nr_own);
		assert_memory_equal(d.own, own, nr_own * sizeof(*own));
		assert_true(drop_seen(&d));
		assert_int_equal(foreign, program);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),	   cmocka_unit_test(test_shorter_first),
		cmocka_unit_test(test_split),	   cmocka_unit_test(test_hole),
		cmocka_unit_test(test_hole_after), cmocka_unit_test(test_hole_others),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
