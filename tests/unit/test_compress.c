// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The compressors: a page comes back as it went, what will not shrink is
 * refused, garbage is an error and not a crash, and threads do not disturb each
 * other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>

#include <linux/err.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/string.h>
#include <linux/types.h>

#include "core/compress.h"
#include "core/swap.h"

static const char *const names[] = { "lz4", "zstd" };
#define NR_NAMES (sizeof(names) / sizeof(names[0]))

static u32 next_random(u32 *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 8;
}

/* Pages of one kind each: noise of @kind 16ths of the bytes, few symbols elsewhere. */
static void make_page(u8 *page, u32 kind, u32 seed)
{
	unsigned int i;

	for (i = 0; i < SWAP_PAGE_SIZE; i++) {
		u32 r = next_random(&seed);

		page[i] = i % 16 < kind ? (u8)r : (u8)("the page "[i % 9] + (r % 64 == 0));
	}
}

static void test_round_trip(void **state)
{
	u8 page[SWAP_PAGE_SIZE], out[SWAP_PAGE_SIZE], back[SWAP_PAGE_SIZE];
	unsigned int n, kind, kept, refused;

	(void)state;
	for (n = 0; n < NR_NAMES; n++) {
		struct swap_comp *comp = swap_comp_create(names[n]);
		int len;

		assert_false(IS_ERR(comp));
		kept = 0;
		refused = 0;
		for (kind = 0; kind <= 16; kind++) {
			make_page(page, kind, kind + 1);
			len = swap_compress(comp, page, out, sizeof(out));
			if (len == -E2BIG) {
				refused++;
				continue;
			}
			assert_in_range(len, 1, SWAP_COMP_MAX);
			memset(back, 0xa5, sizeof(back));
			assert_int_equal(swap_decompress(comp, out, (size_t)len, back), 0);
			assert_memory_equal(page, back, sizeof(page));
			kept++;
		}
		assert_true(kept >= 4);
		assert_true(refused >= 1);
		/* One repeated byte: the smallest there is. */
		memset(page, 7, sizeof(page));
		len = swap_compress(comp, page, out, sizeof(out));
		assert_in_range(len, 1, 64);
		assert_int_equal(swap_decompress(comp, out, (size_t)len, back), 0);
		assert_memory_equal(page, back, sizeof(page));
		swap_comp_destroy(comp);
	}
}

static void test_room_is_kept(void **state)
{
	u8 page[SWAP_PAGE_SIZE], out[SWAP_PAGE_SIZE];
	unsigned int n, room;

	(void)state;
	for (n = 0; n < NR_NAMES; n++) {
		struct swap_comp *comp = swap_comp_create(names[n]);
		int full;

		assert_false(IS_ERR(comp));
		make_page(page, 2, 3);
		full = swap_compress(comp, page, out, sizeof(out));
		assert_true(full > 64);
		for (room = 16; room < sizeof(out); room += 97) {
			int len;

			memset(out, 0x5a, sizeof(out));
			len = swap_compress(comp, page, out, room);
			if (len != -E2BIG)
				assert_in_range(len, 1, room);
			/* zstd may ask for a little more room than it fills. */
			if (room > (unsigned int)full + 64)
				assert_int_equal(len, full);
			for (len = (int)room; len < (int)sizeof(out); len++)
				assert_int_equal(out[len], 0x5a);
		}
		swap_comp_destroy(comp);
	}
}

static void test_garbage(void **state)
{
	u8 page[SWAP_PAGE_SIZE], out[SWAP_PAGE_SIZE], back[SWAP_PAGE_SIZE];
	unsigned int n, i;

	(void)state;
	for (n = 0; n < NR_NAMES; n++) {
		struct swap_comp *comp = swap_comp_create(names[n]);
		u32 seed = 1;
		int len;

		assert_false(IS_ERR(comp));
		make_page(page, 2, 9);
		len = swap_compress(comp, page, out, sizeof(out));
		assert_true(len > 0);
		/* Cut short, nothing at all, and half a page only. */
		assert_int_equal(swap_decompress(comp, out, (size_t)len / 2, back), -EIO);
		assert_int_equal(swap_decompress(comp, out, 0, back), -EIO);
		for (i = 0; i < 2000; i++) {
			unsigned int k, noise = 1 + next_random(&seed) % 200;

			for (k = 0; k < noise; k++)
				out[k] = (u8)next_random(&seed);
			/* Any answer but a crash will do; bytes that make a page are a page. */
			len = swap_decompress(comp, out, noise, back);
			assert_true(len == 0 || len == -EIO);
		}
		/* And it still works. */
		len = swap_compress(comp, page, out, sizeof(out));
		assert_int_equal(swap_decompress(comp, out, (size_t)len, back), 0);
		assert_memory_equal(page, back, sizeof(page));
		swap_comp_destroy(comp);
	}
}

static void test_create(void **state)
{
	unsigned int n;
	long k;

	(void)state;
	assert_int_equal(PTR_ERR(swap_comp_create("lzo")), -EINVAL);
	assert_int_equal(PTR_ERR(swap_comp_create("")), -EINVAL);
	for (n = 0; n < NR_NAMES; n++) {
		for (k = 0; k < 2; k++) {
			compat_alloc_fail_after(k, -1);
			assert_int_equal(PTR_ERR(swap_comp_create(names[n])), -ENOMEM);
			compat_alloc_fail_after(-1, 0);
		}
	}
}

/* Swapping out must not allocate. */
static void test_allocates_nothing(void **state)
{
	u8 page[SWAP_PAGE_SIZE], out[SWAP_PAGE_SIZE];
	unsigned int n;

	(void)state;
	make_page(page, 2, 4);
	for (n = 0; n < NR_NAMES; n++) {
		struct swap_comp *comp = swap_comp_create(names[n]);
		long before;
		int len;

		assert_false(IS_ERR(comp));
		before = compat_alloc_count();
		compat_alloc_fail_after(0, -1);
		len = swap_compress(comp, page, out, sizeof(out));
		assert_true(len > 0);
		assert_int_equal(swap_decompress(comp, out, (size_t)len, page), 0);
		compat_alloc_fail_after(-1, 0);
		assert_int_equal(compat_alloc_count(), before);
		swap_comp_destroy(comp);
	}
}

struct worker {
	struct swap_comp *comp;
	pthread_t thread;
	u32 seed;
	unsigned int wrong;
};

static void *work(void *arg)
{
	u8 page[SWAP_PAGE_SIZE], out[SWAP_PAGE_SIZE], back[SWAP_PAGE_SIZE];
	struct worker *w = arg;
	unsigned int i;
	int len;

	for (i = 0; i < 400; i++) {
		make_page(page, i % 6, w->seed + i);
		len = swap_compress(w->comp, page, out, sizeof(out));
		if (len <= 0 || swap_decompress(w->comp, out, (size_t)len, back) ||
		    memcmp(page, back, sizeof(page)))
			w->wrong++;
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct worker w[4];
	unsigned int n, i;

	(void)state;
	for (n = 0; n < NR_NAMES; n++) {
		struct swap_comp *comp = swap_comp_create(names[n]);

		assert_false(IS_ERR(comp));
		for (i = 0; i < 4; i++) {
			w[i] = (struct worker){ .comp = comp, .seed = i * 1000 };
			assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
		}
		for (i = 0; i < 4; i++) {
			pthread_join(w[i].thread, NULL);
			assert_int_equal(w[i].wrong, 0);
		}
		swap_comp_destroy(comp);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	  cmocka_unit_test(test_room_is_kept),
		cmocka_unit_test(test_garbage),		  cmocka_unit_test(test_create),
		cmocka_unit_test(test_allocates_nothing), cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
