// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which parts of memory are a stream that comes from a tier. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../pager/dropbehind.h"

#define PAGE 4096UL
#define PART (64 * PAGE)

static unsigned int parts(uint64_t client, uint64_t from, unsigned int nr)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < nr; i++)
		n += dropbehind(client, from + i * PART) &&
		     dropbehind(client, from + (i + 1) * PART - PAGE);
	return n;
}

static void test_stream(void **state)
{
	const uint64_t at = 0x7f1234500000 / PART * PART;

	(void)state;
	assert_false(dropbehind(1, at));
	/* Too few for a stream; then one, over the border of two parts. */
	dropbehind_note(1, at, 4, true);
	assert_false(dropbehind(1, at));
	dropbehind_note(1, at + PART / 2, 64, true);
	assert_int_equal(parts(1, at - PART, 4), 2);
	assert_false(dropbehind(2, at));
	/* From the pool: the one part. */
	dropbehind_note(1, at + PART, 64, false);
	assert_true(dropbehind(1, at));
	assert_int_equal(parts(1, at - PART, 4), 1);
	/* Touched by itself. */
	dropbehind_note(1, at + 7 * PAGE, 1, true);
	assert_int_equal(parts(1, at - PART, 4), 0);
}

/* A few parts lose their place to others; none is taken for what it is not. */
static void test_many(void **state)
{
	const uint64_t at = 1UL << 40;
	unsigned int kept;

	(void)state;
	for (unsigned int i = 0; i < 4096; i++)
		dropbehind_note(1 + i % 3, at + i * PART, 64, true);
	kept = 0;
	for (unsigned int i = 0; i < 4096; i++) {
		kept += dropbehind(1 + i % 3, at + i * PART);
		assert_false(dropbehind(1 + (i + 1) % 3, at + i * PART));
		assert_false(dropbehind(1 + i % 3, at + (4096 + i) * PART));
	}
	assert_in_range(kept, 4096 / 2, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
