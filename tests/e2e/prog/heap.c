/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The C heap: malloc, realloc and free of blocks that are checked, and brk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmtest.h"

struct block {
	unsigned char *mem;
	size_t len;
	uint64_t key;
};

/*
 * Byte @i of the block with @key, none like its neighbour's: long runs, or noise
 * in every other block if pages shall not compress.
 */
static unsigned char block_byte(uint64_t key, size_t i)
{
	if (args.hard && (key & 1))
		return (key ^ (i + key) * 0x9e3779b97f4a7c15) >> 56;
	return key >> (i / 509 % 8 * 8) ^ i / 256;
}

static void block_fill(struct block *b, size_t from)
{
	size_t i;

	for (i = from; i < b->len; i++)
		b->mem[i] = block_byte(b->key, i);
}

static void block_check(const struct block *b, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (b->mem[i] != block_byte(b->key, i))
			fail("WRONG BYTES: heap block %p, byte %zu of %zu is %#x, not %#x",
			     (void *)b->mem, i, b->len, b->mem[i], block_byte(b->key, i));
}

static size_t pick_len(struct rng *rng)
{
	/* Small ones, some of pages, a few above the threshold where malloc maps. */
	switch (rng_below(rng, 8)) {
	case 0:
		return 1 + rng_below(rng, 400 << 10);
	case 1:
	case 2:
		return 1 + rng_below(rng, 32 << 10);
	default:
		return 1 + rng_below(rng, 1 << 10);
	}
}

void test_malloc(void)
{
	size_t nr = args.size / (32 << 10), total = 0, ops, len;
	struct block *blocks = calloc(nr, sizeof(*blocks));
	struct rng rng;

	if (!blocks)
		fail_errno("calloc");
	rng_init(&rng, args.seed);
	for (ops = nr * 3 * args.passes; ops; ops--) {
		struct block *b = &blocks[rng_below(&rng, nr)];

		len = pick_len(&rng);
		if (total - b->len + len > args.size * 7 / 8)
			len = 1 + len / 64;
		if (b->mem && rng_below(&rng, 4) == 0) {
			block_check(b, b->len);
			free(b->mem);
			total -= b->len;
			memset(b, 0, sizeof(*b));
		} else {
			unsigned char *mem = realloc(b->mem, len);
			size_t keep = b->len < len ? b->len : len;

			if (!mem)
				fail_errno("realloc");
			if (!b->mem)
				b->key = rng_next(&rng);
			total += len - b->len;
			b->mem = mem;
			b->len = len;
			block_check(b, keep);
			block_fill(b, keep);
		}
	}
	for (ops = 0; ops < nr; ops++) {
		block_check(&blocks[ops], blocks[ops].len);
		free(blocks[ops].mem);
	}
	free(blocks);
}

/* The program break is moved by hand; malloc is not used in between. */
void test_brk(void)
{
	size_t nr = args.size / PAGE, keep = nr / 3;
	unsigned int pass;
	char *start, *mem;

	for (pass = 0; pass < args.passes; pass++) {
		start = sbrk((nr + 1) * PAGE);
		if (start == (void *)-1)
			fail_errno("sbrk");
		mem = (char *)(((uintptr_t)start + PAGE - 1) & -PAGE);
		range_check_zero(mem, nr, 0);
		range_fill(mem, nr, 0, pass);
		range_check(mem, nr, 0, pass);
		if (brk(mem + keep * PAGE))
			fail_errno("brk down");
		range_check(mem, keep, 0, pass);
		if (brk(mem + nr * PAGE))
			fail_errno("brk up");
		range_check(mem, keep, 0, pass);
		range_check_zero(mem + keep * PAGE, nr - keep, keep);
		range_fill(mem + keep * PAGE, nr - keep, keep, pass + 1);
		range_check(mem + keep * PAGE, nr - keep, keep, pass + 1);
		range_check(mem, keep, 0, pass);
		if (brk(start))
			fail_errno("brk back");
	}
}
