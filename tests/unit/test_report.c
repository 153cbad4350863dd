// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is counted and what is told: latency buckets, the JSON and the text of
 * a snapshot.
 */
#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pager/stat.h"

/* ---- latencies --------------------------------------------------------- */

static void test_lat_floor(void **state)
{
	uint64_t lat[LAT_BUCKETS] = { 0 };
	uint64_t floor;
	unsigned int i;

	(void)state;
	/* Floors ascend, and each is counted in the bucket it is the floor of. */
	for (i = 0; i < LAT_BUCKETS; i++) {
		floor = lat_floor(i);
		if (i && floor <= lat_floor(i - 1))
			break; /* past the last that 64 bits can reach */
		lat_add(lat, floor);
		assert_int_equal(lat[i], 1);
		if (i) {
			lat_add(lat, floor - 1);
			assert_int_equal(lat[i - 1], 2);
		}
	}
	assert_in_range(i, 480, LAT_BUCKETS);
	lat_add(lat, UINT64_MAX);
	assert_int_equal(lat[i - 1], 2);
}

static void test_lat_quantile(void **state)
{
	static const unsigned int per_mille[] = { 1, 10, 500, 900, 990, 999, 1000 };
	uint64_t lat[LAT_BUCKETS] = { 0 };
	uint64_t ns, exact;
	unsigned int i;

	(void)state;
	assert_int_equal(lat_quantile(lat, 500), 0);

	for (ns = 1; ns <= 100000; ns++)
		lat_add(lat, ns);
	for (i = 0; i < sizeof(per_mille) / sizeof(per_mille[0]); i++) {
		exact = 100000 / 1000 * per_mille[i];
		assert_in_range(lat_quantile(lat, per_mille[i]), exact, exact + exact / 8 + 1);
	}

	/* One slow fault in a thousand is not the 999th, two are. */
	memset(lat, 0, sizeof(lat));
	for (i = 0; i < 999; i++)
		lat_add(lat, 5);
	lat_add(lat, 1000000);
	assert_int_equal(lat_quantile(lat, 999), 5);
	lat_add(lat, 1000000);
	assert_in_range(lat_quantile(lat, 999), 1000000, 1125000);
	assert_in_range(lat_quantile(lat, 0), 5, 5);

	memset(lat, 0, sizeof(lat));
	lat_add(lat, UINT64_MAX);
	assert_true(lat_quantile(lat, 500) == UINT64_MAX);
}

#define COUNTS	 200000
#define COUNTERS 2

static uint64_t shared_lat[LAT_BUCKETS];

static void *count(void *arg)
{
	unsigned int i;

	(void)arg;
	for (i = 0; i < COUNTS; i++)
		lat_add(shared_lat, i & 0xff);
	return NULL;
}

static void test_lat_threads(void **state)
{
	pthread_t thread[COUNTERS];
	uint64_t sum = 0;
	unsigned int i;

	(void)state;
	for (i = 0; i < COUNTERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count, NULL), 0);
	for (i = 0; i < 100; i++)
		assert_in_range(lat_quantile(shared_lat, 500), 0, 0xff);
	for (i = 0; i < COUNTERS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	for (i = 0; i < LAT_BUCKETS; i++)
		sum += shared_lat[i];
	assert_int_equal(sum, COUNTERS * COUNTS);
}

/* ---- reports ----------------------------------------------------------- */

/* A snapshot in which no two numbers are the same. */
static void make_snapshot(struct pager_stat *st)
{
	uint64_t *word = (uint64_t *)&st->ram_limit;
	unsigned int i;

	memset(st, 0, sizeof(*st));
	for (i = 0; &word[i] < &st->lat[0]; i++)
		word[i] = 1000 + i;
	word = (uint64_t *)&st->swap;
	for (i = 0; i < sizeof(st->swap) / sizeof(*word); i++)
		word[i] = 3000 + i;
	st->pid = 4321;
	st->program = "/usr/bin/so\"rt\n\xff\xc3\xa4";
	st->elapsed_ns = 1500000000;
	for (i = 0; i < 90; i++)
		lat_add(st->lat, 1000);
	for (i = 0; i < 10; i++)
		lat_add(st->lat, 1000000);
	st->lat_nr = 100;
	st->lat_max_ns = 1000000;
	st->lat_sum_ns = 90 * 1000 + 10 * 1000000;
	st->nr_tiers = 2;
	st->tier[0] = (struct swap_tier_stat){
		.name = "/dev/fast",
		.prio = 5,
		.full = true,
		.nr_slots = 100,
		.slots_used = 40,
		.bytes_written = 163840,
		.bytes_read = 4096,
	};
	st->tier[1] = (struct swap_tier_stat){
		.name = "/var/slow",
		.prio = -1,
		.failed = true,
		.nr_slots = 1000,
		.slots_used = 2,
	};
}

static char *report(int (*make)(FILE *, const struct pager_stat *), const struct pager_stat *st)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	assert_int_equal(make(f, st), 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(strlen(text), len);
	return text;
}

static struct json_object *member(struct json_object *obj, const char *group, const char *name)
{
	struct json_object *value = NULL;

	if (group)
		assert_true(json_object_object_get_ex(obj, group, &obj));
	if (!json_object_object_get_ex(obj, name, &value))
		fail_msg("%s is missing", name);
	return value;
}

static uint64_t number(struct json_object *obj, const char *group, const char *name)
{
	struct json_object *value = member(obj, group, name);

	assert_true(json_object_is_type(value, json_type_int));
	return json_object_get_uint64(value);
}

static void test_json(void **state)
{
	struct pager_stat st;
	struct json_object *root, *tier;
	char *text;

	(void)state;
	make_snapshot(&st);
	text = report(report_json, &st);
	root = json_tokener_parse(text);
	assert_non_null(root);
	free(text);

	assert_int_equal(number(root, NULL, "pid"), 4321);
	assert_string_equal(json_object_get_string(member(root, NULL, "program")),
			    "/usr/bin/so\"rt??\xc3\xa4");
	assert_false(json_object_get_boolean(member(root, NULL, "finished")));
	assert_false(json_object_object_get_ex(root, "status", NULL));
	assert_int_equal(number(root, NULL, "elapsed_ns"), st.elapsed_ns);

#define SAME(group, name, member) assert_int_equal(number(root, group, name), st.member)
	SAME(NULL, "ram_limit_bytes", ram_limit);
	SAME(NULL, "ram_bytes", ram_bytes);
	SAME(NULL, "ram_bytes_peak", ram_bytes_peak);
	SAME(NULL, "program_resident_bytes", program_bytes);
	SAME(NULL, "vswap_bytes", self_bytes);
	SAME(NULL, "cache_bytes", cache_bytes);
	SAME(NULL, "window_bytes", window_bytes);
	SAME(NULL, "pool_bytes", swap.pool_bytes);
	SAME(NULL, "pool_objects", swap.pool_objects);
	SAME(NULL, "pool_live_bytes", swap.pool_live_bytes);
	SAME(NULL, "pool_data_bytes", swap.pool_data_bytes);
	SAME(NULL, "table_bytes", swap.table_bytes);
	SAME(NULL, "cluster_bytes", swap.cluster_bytes);
	SAME(NULL, "tier_meta_bytes", swap.tier_meta_bytes);
	SAME(NULL, "clusters", swap.clusters);
	SAME(NULL, "slots_used", swap.slots_used);
	SAME(NULL, "slots_peak", swap.slots_peak);
	SAME("slots", "cache", swap.nr_cached);
	SAME("slots", "fill", swap.nr_fill);
	SAME("slots", "pool", swap.nr_pool);
	SAME("slots", "tier", swap.nr_tier);
	SAME("slots", "poison", swap.nr_poison);
	SAME("faults", "first_touch", fault_zero);
	SAME("faults", "cache", fault_cache);
	SAME("faults", "fill", fault_fill);
	SAME("faults", "pool", fault_pool);
	SAME("faults", "tier", fault_tier);
	SAME("faults", "wait", fault_wait);
	SAME("pages_out", "fill", swap.swpout_zero);
	SAME("pages_out", "pool", swap.zswpout);
	SAME("pages_out", "tier", swap.pswpout);
	SAME("readahead", "pages", swap_ra);
	SAME("readahead", "hits", swap_ra_hit);
	SAME("readahead", "misses", swap_ra_miss);
	SAME(NULL, "refaults", refault);
	SAME(NULL, "stall_ns", stall_ns);
	SAME("evictions", "move", evict_move);
	SAME("evictions", "copy", evict_copy);
	SAME("evictions", "busy", evict_busy);
	SAME("events", "remove", event_remove);
	SAME("events", "unmap", event_unmap);
	SAME("events", "remap", event_remap);
	SAME("events", "fork", event_fork);
	SAME(NULL, "pswpin", swap.pswpin);
	SAME(NULL, "pswpout", swap.pswpout);
	SAME(NULL, "zswpin", swap.zswpin);
	SAME(NULL, "zswpout", swap.zswpout);
	SAME(NULL, "zswpwb", swap.zswpwb);
	SAME(NULL, "swpin_zero", swap.swpin_zero);
	SAME(NULL, "swpout_zero", swap.swpout_zero);
	SAME(NULL, "swap_ra", swap_ra);
	SAME(NULL, "swap_ra_hit", swap_ra_hit);
	SAME(NULL, "pgsteal", pgsteal);
	SAME(NULL, "pgsteal_file", pgsteal_file);
	SAME(NULL, "reject_compress_poor", swap.reject_compress_poor);
	SAME(NULL, "compacted_bytes", swap.compacted_bytes);
	SAME(NULL, "read_errors", swap.read_errors);
	SAME(NULL, "write_errors", swap.write_errors);
	SAME(NULL, "pages_lost", sigbus);
#undef SAME

	assert_in_range(number(root, "fault_latency_ns", "p50"), 1000, 1125);
	assert_in_range(number(root, "fault_latency_ns", "p90"), 1000, 1125);
	assert_int_equal(number(root, "fault_latency_ns", "p99"), 1000000);
	assert_int_equal(number(root, "fault_latency_ns", "p99_9"), 1000000);
	assert_int_equal(number(root, "fault_latency_ns", "max"), 1000000);
	assert_int_equal(number(root, "fault_latency_ns", "mean"), 100900);
	assert_int_equal(number(root, "fault_latency_ns", "count"), 100);
	assert_int_equal(json_object_array_length(member(root, "fault_latency_ns", "histogram")),
			 2);

	assert_int_equal(number(root, NULL, "tier_bytes"), 42 * 4096);
	assert_int_equal(json_object_array_length(member(root, NULL, "tiers")), 2);
	tier = json_object_array_get_idx(member(root, NULL, "tiers"), 0);
	assert_string_equal(json_object_get_string(member(tier, NULL, "name")), "/dev/fast");
	assert_int_equal(number(tier, NULL, "prio"), 5);
	assert_int_equal(number(tier, NULL, "size_bytes"), 100 * 4096);
	assert_int_equal(number(tier, NULL, "used_bytes"), 40 * 4096);
	assert_int_equal(number(tier, NULL, "bytes_written"), 163840);
	assert_int_equal(number(tier, NULL, "bytes_read"), 4096);
	assert_true(json_object_get_boolean(member(tier, NULL, "full")));
	assert_false(json_object_get_boolean(member(tier, NULL, "failed")));
	tier = json_object_array_get_idx(member(root, NULL, "tiers"), 1);
	assert_int_equal(json_object_get_int(member(tier, NULL, "prio")), -1);
	assert_true(json_object_get_boolean(member(tier, NULL, "failed")));
	json_object_put(root);
}

static void test_json_finished(void **state)
{
	struct pager_stat st = { .pid = 1, .finished = true, .status = 137 };
	struct json_object *root;
	char *text;
	FILE *full;

	(void)state;
	text = report(report_json, &st);
	root = json_tokener_parse(text);
	assert_non_null(root);
	assert_true(json_object_get_boolean(member(root, NULL, "finished")));
	assert_int_equal(number(root, NULL, "status"), 137);
	assert_int_equal(number(root, "fault_latency_ns", "p50"), 0);
	assert_int_equal(json_object_array_length(member(root, NULL, "tiers")), 0);
	json_object_put(root);
	free(text);

	full = fopen("/dev/full", "w");
	assert_non_null(full);
	assert_int_equal(report_json(full, &st), -ENOSPC);
	fclose(full);
}

static void test_text(void **state)
{
	struct pager_stat st;
	char *text, *line, *save;

	(void)state;
	make_snapshot(&st);
	st.finished = true;
	st.status = 3;
	st.ram_limit = st.ram_bytes_peak = 160ULL << 20;
	text = report(report_text, &st);
	assert_non_null(strstr(text, "ended with status 3 after 1.5 s"));
	assert_non_null(strstr(text, "peak 160M of 160M (100%)"));
	assert_non_null(strstr(text, "/dev/fast (full)"));
	assert_non_null(strstr(text, "/var/slow (failed)"));
	assert_non_null(strstr(text, "trouble"));
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		assert_memory_equal(line, "vswap: ", 7);
	free(text);

	/* Nothing happened: nothing is wrong. */
	memset(&st, 0, sizeof(st));
	st.program = "true";
	text = report(report_text, &st);
	assert_null(strstr(text, "trouble"));
	assert_non_null(strstr(text, "is running"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lat_floor),     cmocka_unit_test(test_lat_quantile),
		cmocka_unit_test(test_lat_threads),   cmocka_unit_test(test_json),
		cmocka_unit_test(test_json_finished), cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
