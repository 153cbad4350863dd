// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which parts of memory come in sequence, where from, and what is to go right behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../pager/dropbehind.h"

#define PAGE 4096UL
#define PART (64 * PAGE)

static unsigned int parts(uint64_t client, uint64_t from, unsigned int nr)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < nr; i++)
		n += dropbehind_to_tier(client, from + i * PART) &&
		     dropbehind_to_tier(client, from + (i + 1) * PART - PAGE);
	return n;
}

static void test_stream(void **state)
{
	const uint64_t at = 0x7f1234500000 / PART * PART;

	(void)state;
	assert_false(dropbehind_to_tier(1, at));
	/* Too few for a stream; then one, over the border of two parts. */
	dropbehind_note(1, at, 4, true);
	assert_false(dropbehind_to_tier(1, at));
	dropbehind_note(1, at + PART / 2, 64, true);
	assert_int_equal(parts(1, at - PART, 4), 2);
	assert_false(dropbehind_to_tier(2, at));
	/* From the pool: the one part. */
	dropbehind_note(1, at + PART, 64, false);
	assert_true(dropbehind_to_tier(1, at));
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
		kept += dropbehind_to_tier(1 + i % 3, at + i * PART);
		assert_false(dropbehind_to_tier(1 + (i + 1) % 3, at + i * PART));
		assert_false(dropbehind_to_tier(1 + i % 3, at + (4096 + i) * PART));
	}
	assert_in_range(kept, 4096 / 2, 4096);
}

/* It came, by halves, as windows may be: that counts once.  Is it to go? */
static bool comes(uint64_t at)
{
	bool one = dropbehind_note(1, at, 32, false);

	assert_int_equal(dropbehind_note(1, at + PART / 2, 32, false), one);
	return one;
}

/* Each time it stayed in vain it goes right behind for longer. */
static void test_proofs(void **state)
{
	static const unsigned int rounds[] = { 1, 2, 7, 7 };
	const uint64_t at = 1UL << 41;
	struct behind b = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		for (unsigned int round = 0; round < rounds[i]; round++) {
			assert_true(comes(at));
			behind_add(&b, (struct range){ at, at + PART });
			behind_went(&b, 1, at + PART);
		}
		assert_false(comes(at));
	}
	/* Touched by itself: from the beginning. */
	assert_true(comes(at));
	dropbehind_note(1, at + 5 * PAGE, 1, false);
	assert_true(comes(at));
	behind_add(&b, (struct range){ at, at + PART });
	behind_went(&b, 1, at + PART);
	assert_false(comes(at));
	free(b.range);
}

static void test_order(void **state)
{
	struct behind b = { 0 };
	struct range r;

	(void)state;
	assert_false(behind_next(&b, 0, &r));
	/* Neighbours are one, up to 2 MiB, or an eighth of what is kept. */
	b.keep = 1UL << 20;
	for (unsigned int i = 0; i < 16; i++)
		behind_add(&b, (struct range){ (100 + i) * PART, (101 + i) * PART });
	behind_add(&b, (struct range){ 0, PART });
	assert_int_equal(b.nr, 3);
	assert_int_equal(b.pages, 17 * 64);
	b.keep = 17 * 64 - 99;
	assert_false(behind_next(&b, 100, &r));
	assert_true(behind_next(&b, 99, &r));
	b.keep = 0;
	assert_true(r.start == 100 * PART && r.end == 108 * PART);
	behind_went(&b, 1, r.start + PAGE);
	assert_true(behind_next(&b, 0, &r));
	assert_true(r.start == 100 * PART + PAGE && b.pages == 17 * 64 - 1);
	/* Beyond its end is its end. */
	behind_went(&b, 1, 200 * PART);
	assert_true(behind_next(&b, 0, &r));
	assert_int_equal(r.start, 108 * PART);
	behind_went(&b, 1, r.end);
	assert_true(behind_next(&b, 0, &r));
	assert_int_equal(r.start, 0);
	behind_went(&b, 1, r.end);
	assert_false(behind_next(&b, 0, &r));
	assert_int_equal(b.pages, 0);
	/* It goes round, and what has no place is left out. */
	for (unsigned int i = 0; i < 2 * BEHIND_RANGES; i++)
		behind_add(&b, (struct range){ 2 * i * PART, (2 * i + 1) * PART });
	assert_int_equal(b.nr, BEHIND_RANGES);
	assert_int_equal(b.pages, BEHIND_RANGES * 64);
	for (unsigned int i = 0; i < BEHIND_RANGES; i++) {
		assert_true(behind_next(&b, 0, &r));
		assert_int_equal(r.start, 2 * i * PART);
		behind_went(&b, 1, r.end);
	}
	assert_int_equal(b.nr, 0);
	/* Gone meanwhile: nothing, or another is first. */
	behind_went(&b, 1, PART);
	behind_add(&b, (struct range){ 8 * PART, 9 * PART });
	behind_went(&b, 1, PART);
	assert_true(b.nr == 1 && b.pages == 64);
	behind_went(&b, 1, 9 * PART);
	assert_true(b.nr == 0 && b.pages == 0);
	b.keep = 32 * 8;
	behind_add(&b, (struct range){ 0, PART });
	behind_add(&b, (struct range){ PART, 2 * PART });
	assert_int_equal(b.nr, 2);
	behind_went(&b, 1, PART);
	behind_went(&b, 1, 2 * PART);
	/* Of more than twice what is kept the oldest stay. */
	b.keep = 100;
	for (unsigned int i = 0; i < 4; i++)
		behind_add(&b, (struct range){ 2 * i * PART, (2 * i + 1) * PART });
	assert_int_equal(b.pages, 3 * 64);
	assert_true(behind_next(&b, 0, &r));
	assert_int_equal(r.start, 2 * PART);
	free(b.range);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_proofs),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
