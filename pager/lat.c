// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Latency buckets: each power of two of nanoseconds is cut into equal parts.
 *
 * Bucket i below 2^LAT_SUB_BITS holds i ns alone; above that the top bits of
 * the value are the bucket, so a bucket is at most 1/2^LAT_SUB_BITS of its
 * floor wide.  Counting is one relaxed add; a reader sees some recent state.
 */
#include "stat.h"

#define LAT_SUB (1u << LAT_SUB_BITS)

static unsigned int lat_bucket(uint64_t ns)
{
	unsigned int shift;

	if (ns < LAT_SUB)
		return ns;
	shift = 63 - __builtin_clzll(ns) - LAT_SUB_BITS;
	return ((shift + 1) << LAT_SUB_BITS) | ((ns >> shift) & (LAT_SUB - 1));
}

uint64_t lat_floor(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < LAT_SUB)
		return bucket;
	shift = (bucket >> LAT_SUB_BITS) - 1;
	return (uint64_t)(LAT_SUB | (bucket & (LAT_SUB - 1))) << shift;
}

void lat_add(uint64_t lat[LAT_BUCKETS], uint64_t ns)
{
	__atomic_fetch_add(&lat[lat_bucket(ns)], 1, __ATOMIC_RELAXED);
}

uint64_t lat_quantile(const uint64_t lat[LAT_BUCKETS], unsigned int per_mille)
{
	uint64_t count[LAT_BUCKETS];
	uint64_t total = 0, rank, seen = 0;
	unsigned int i, last;

	/* One copy, so that the rank is looked up among what was summed. */
	last = lat_bucket(UINT64_MAX);
	for (i = 0; i <= last; i++) {
		count[i] = __atomic_load_n(&lat[i], __ATOMIC_RELAXED);
		total += count[i];
	}
	if (!total)
		return 0;

	/* Rounded up, and total * per_mille may not fit. */
	rank = total / 1000 * per_mille + (total % 1000 * per_mille + 999) / 1000;
	if (!rank)
		rank = 1;
	for (i = 0; i < last; i++) {
		seen += count[i];
		if (seen >= rank)
			return lat_floor(i + 1) - 1;
	}
	return UINT64_MAX;
}
