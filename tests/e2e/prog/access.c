/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Access patterns over one region: sequential, uniform, skewed, read and write.
 */
#include <math.h>
#include <sys/mman.h>

#include "vmtest.h"

/* Sweeps: each page is checked, then written anew. */
static void sweep(char *mem, size_t nr)
{
	unsigned int pass;
	size_t i;

	range_fill(mem, nr, 0, 0);
	for (pass = 0; pass < args.passes; pass++) {
		for (i = 0; i < nr; i++) {
			page_check(mem + i * PAGE, i, pass);
			page_fill(mem + i * PAGE, i, pass + 1);
		}
	}
	range_check(mem, nr, 0, args.passes);
	for (i = nr; i--;)
		page_check(mem + i * PAGE, i, args.passes);
}

void test_seq(void)
{
	size_t nr = args.size / PAGE;
	char *mem = map_anon(args.size);

	/* Reads of memory never written come first: zero, and no stored page. */
	range_check_zero(mem, nr / 8, 0);
	sweep(mem, nr);
	unmap(mem, args.size);
}

/* Huge pages were asked for: they must be split or moved whole, never torn. */
void test_thp(void)
{
	size_t huge = 2UL << 20, len = args.size;
	char *mem = map_anon(len + huge);
	char *aligned = (char *)(((uintptr_t)mem + huge - 1) & -huge);

	if (madvise(aligned, len, MADV_HUGEPAGE))
		fail_errno("madvise MADV_HUGEPAGE");
	sweep(aligned, len / PAGE);
	unmap(mem, len + huge);
}

void test_random(void)
{
	size_t nr = args.size / PAGE, ops;
	char *mem = map_anon(args.size);
	struct rng rng;

	rng_init(&rng, args.seed);
	range_fill(mem, nr, 0, 0);
	for (ops = nr * args.passes; ops; ops--) {
		size_t i = rng_below(&rng, nr);

		page_check(mem + i * PAGE, i, 0);
	}
	unmap(mem, args.size);
}

/* Read or, in @writes of 100 cases, check and rewrite the page that @pick names. */
static void mixed(size_t (*pick)(struct rng *rng, size_t nr), unsigned int writes)
{
	size_t nr = args.size / PAGE, ops;
	char *mem = map_anon(args.size);
	uint32_t *version = map_anon(nr * sizeof(*version));
	struct rng rng;

	rng_init(&rng, args.seed + writes);
	range_fill(mem, nr, 0, 0);
	for (ops = nr * args.passes; ops; ops--) {
		size_t i = pick(&rng, nr);

		page_check(mem + i * PAGE, i, version[i]);
		if (rng_below(&rng, 100) < writes)
			page_fill(mem + i * PAGE, i, ++version[i]);
	}
	for (ops = 0; ops < nr; ops++)
		page_check(mem + ops * PAGE, ops, version[ops]);
	unmap(version, nr * sizeof(*version));
	unmap(mem, args.size);
}

static size_t pick_uniform(struct rng *rng, size_t nr)
{
	return rng_below(rng, nr);
}

/*
 * Rank k is drawn with weight about k^-0.99, by inverting the integral of that;
 * ranks are scattered over the region by an odd factor (nr need not be a power
 * of two: what matters is that neighbours in rank are none in memory).
 */
static size_t pick_zipf(struct rng *rng, size_t nr)
{
	double u = (rng_next(rng) >> 11) * 0x1p-53;
	double s = 0.01;
	double k = pow(u * (pow(nr, s) - 1) + 1, 1 / s);
	size_t rank = k < 1 ? 0 : (size_t)k - 1;

	return (rank * 0x9e3779b1UL) % nr;
}

void test_zipf(void)
{
	mixed(pick_zipf, 10);
}

void test_rw(void)
{
	mixed(pick_uniform, 50);
}
