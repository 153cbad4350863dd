// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What was left and is not told of yet: ranges that are here, and their pages, against a
 * map of one byte for each page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../pager/vacated.h"

#define SPAN 64
#define LEFT 1 /* of a page in the map: it is here */
#define KEPT 2 /* ... and is swapped out */

static unsigned char map[SPAN];

static void check(const struct vacated *v)
{
	uint64_t next;
	bool here;

	for (uint64_t at = 0; at < SPAN; at = next) {
		next = vacated_part(v, at, SPAN, &here);
		assert_in_range(next, at + 1, SPAN);
		for (uint64_t i = at; i < next; i++)
			assert_int_equal(here, map[i] != 0);
	}
}

static void add(struct vacated *v, uint64_t start, uint64_t end)
{
	uint64_t next;
	bool here;

	for (; start < end; start = next) {
		next = vacated_part(v, start, end, &here);
		if (here)
			continue;
		assert_int_equal(vacated_add(v, start, next), 0);
		for (uint64_t i = start; i < next; i++) {
			map[i] = LEFT;
			if (rand() % 4)
				continue;
			assert_int_equal(vacated_keep(v, i, (vswp_entry_t){ i + 1000 }), 0);
			map[i] |= KEPT;
		}
	}
}

static void forget(struct vacated *v, uint64_t start, uint64_t end)
{
	struct vacated_page page;

	while (vacated_take(v, start, end, &page)) {
		assert_in_range(page.addr, start, end - 1);
		assert_int_equal(page.entry.val, page.addr + 1000);
		assert_true(map[page.addr] & KEPT);
		map[page.addr] = LEFT;
	}
	for (uint64_t i = start; i < end; i++)
		assert_false(map[i] & KEPT);
	assert_int_equal(vacated_forget(v, start, end), 0);
	memset(map + start, 0, end - start);
}

static void test_random(void **state)
{
	struct vacated v = { 0 };

	(void)state;
	srand(1);
	for (unsigned int i = 0; i < 20000; i++) {
		uint64_t start = rand() % SPAN, end = start + 1 + rand() % (SPAN - start);

		if (i & 1)
			add(&v, start, end);
		else
			forget(&v, start, end);
		check(&v);
	}
	forget(&v, 0, SPAN);
	assert_int_equal(v.nr, 0);
	assert_int_equal(v.pages, 0);
	vacated_destroy(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
