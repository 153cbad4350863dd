// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sizes as people write them, and how much memory there is to take part of.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "pager/machine.h"
#include "pager/size.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static void test_parse(void **state)
{
	/* clang-format off */
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "1", 1 },
		{ "4096", 4096 },
		{ "512B", 512 },
		{ "1K", 1024 },
		{ "1k", 1024 },
		{ "3kB", 3072 },
		{ "7KiB", 7168 },
		{ "128M", 128ULL << 20 },
		{ "128mib", 128ULL << 20 },
		{ "1.5G", 3ULL << 29 },
		{ "0.25K", 256 },
		{ "1.0000000009K", 1024 },
		{ "2T", 2ULL << 40 },
		{ "8388607T", 8388607ULL << 40 },
		{ "9223372036854775807", INT64_MAX },
		{ "9007199254740991.5K", INT64_MAX - 511 },
		{ "50%", 500 },
		{ "100%", 1000 },
		{ "12.5%", 125 },
		{ "0.05%", 0 },
	};
	/* clang-format on */
	uint64_t bytes;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(good); i++) {
		bytes = UINT64_MAX;
		assert_null(size_parse(good[i].text, 1000, &bytes));
		assert_int_equal(bytes, good[i].bytes);
	}
	/* A percentage of much must not overflow on the way. */
	assert_null(size_parse("99.999999999%", 1ULL << 50, &bytes));
	assert_in_range(bytes, (1ULL << 50) - (1ULL << 24), 1ULL << 50);
}

static void test_parse_garbage(void **state)
{
	/* clang-format off */
	static const char *const bad[] = {
		"", " ", "K", "M1", "-1", "+1", "-1M", "1 M", "1M ", " 1M", "1X", "1KM", "1MBB",
		"1iB", "1.", ".5G", "1..5G", "1.5.5G", "0x10", "1e9", "12,5M", "50%%", "%", "50%M",
		"101%", "100.1%", "18446744073709551616", "18446744073709551616K", "8388608T",
		"309485009821345069T", "16777217T", "18446744073709551615T", "9007199254740992.5K",
		"9999999999999999999999999999999999999999999999999T", "1\xff", "10M\n",
	};
	/* clang-format on */
	uint64_t bytes;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		bytes = 42;
		if (!size_parse(bad[i], 1000, &bytes))
			fail_msg("\"%s\" taken for a size", bad[i]);
		assert_int_equal(bytes, 42);
	}
	assert_non_null(size_parse("50%", 0, &bytes));
	assert_null(strchr(size_parse("x", 0, &bytes), '%'));
}

static void test_format(void **state)
{
	/* clang-format off */
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
		{ 0, "0B" },
		{ 1023, "1023B" },
		{ 1024, "1K" },
		{ 1536, "1.5K" },
		{ 160ULL << 20, "160M" },
		{ (160ULL << 20) + (512 << 10), "161M" },
		{ (1ULL << 20) - 1, "1M" },
		{ (1ULL << 30) - 1, "1G" },
		{ 1288490189, "1.2G" },
		{ 1ULL << 40, "1T" },
		{ UINT64_MAX, "16777216T" },
	};
	static const struct {
		uint64_t ns;
		const char *text;
	} times[] = {
		{ 0, "0 ns" },
		{ 999, "999 ns" },
		{ 1000, "1 us" },
		{ 6149, "6.1 us" },
		{ 999499, "999 us" },
		{ 999999, "1 ms" },
		{ 3200000, "3.2 ms" },
		{ 999999999, "1 s" },
		{ 12345000000, "12.3 s" },
		{ UINT64_MAX, "18446744074 s" },
	};
	/* clang-format on */
	char buf[SIZE_TEXT];
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(sizes); i++)
		assert_string_equal(size_format(buf, sizes[i].bytes), sizes[i].text);
	for (i = 0; i < ARRAY_LEN(times); i++)
		assert_string_equal(time_format(buf, times[i].ns), times[i].text);
}

/* ---- a machine made of files ------------------------------------------ */

static char root[] = "/tmp/vswap-test-XXXXXX";

static void put_file(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put_file(const char *name, const char *fmt, ...)
{
	char path[512], *slash;
	va_list ap;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		assert_true(!mkdir(path, 0700) || errno == EEXIST);
		*slash = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	assert_int_equal(fclose(f), 0);
}

static void clear_machine(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s/proc %s/sys", root, root);
	assert_int_equal(system(command), 0);
}

static int setup_machine(void **state)
{
	(void)state;
	strcpy(root + sizeof(root) - 7, "XXXXXX");
	if (!mkdtemp(root))
		return -1;
	put_file("proc/meminfo", "MemTotal:        1048576 kB\nMemFree: 1 kB\n"
				 "MemAvailable:     819200 kB\n");
	return 0;
}

static int teardown_machine(void **state)
{
	(void)state;
	clear_machine();
	return rmdir(root);
}

#define MB(n) ((uint64_t)(n) << 20)

static void check_memory(uint64_t limit, uint64_t available)
{
	struct machine_memory mem;

	assert_int_equal(machine_memory(root, &mem), 0);
	assert_int_equal(mem.total, MB(1024));
	assert_int_equal(mem.limit, limit);
	assert_int_equal(mem.available, available);
}

static void test_no_cgroup(void **state)
{
	struct machine_memory mem;

	(void)state;
	check_memory(MB(1024), MB(800));
	clear_machine();
	assert_int_equal(machine_memory(root, &mem), -ENOENT);
}

static void test_cgroup_v2(void **state)
{
	(void)state;
	put_file("proc/self/cgroup", "0::/a/b\n");
	put_file("proc/self/mountinfo",
		 "20 1 0:20 / /proc rw - proc proc rw\n"
		 "30 1 0:30 / /sys/fs/cg\\040oup rw shared:4 - cgroup2 cgroup2 rw\n");
	put_file("sys/fs/cg oup/a/b/memory.max", "max\n");
	put_file("sys/fs/cg oup/a/b/memory.current", "%llu\n", 50ULL << 20);
	check_memory(MB(1024), MB(800));

	/* The parent's limit counts for the child, less what all in it use. */
	put_file("sys/fs/cg oup/a/memory.max", "%llu\n", 300ULL << 20);
	put_file("sys/fs/cg oup/a/memory.current", "%llu\n", 120ULL << 20);
	put_file("sys/fs/cg oup/a/memory.stat", "anon 1\nfile 2\ninactive_file %llu\n",
		 20ULL << 20);
	check_memory(MB(300), MB(200));

	/* A throttle is a limit, and the tightest one wins. */
	put_file("sys/fs/cg oup/a/b/memory.high", "%llu\n", 100ULL << 20);
	check_memory(MB(100), MB(50));

	/* Above what the machine has, a limit says nothing. */
	put_file("sys/fs/cg oup/a/b/memory.high", "%llu\n", 5000ULL << 20);
	put_file("sys/fs/cg oup/a/memory.max", "%llu\n", 5000ULL << 20);
	check_memory(MB(1024), MB(800));
}

static void test_cgroup_v1(void **state)
{
	(void)state;
	/* As a container sees it: the mount shows the subtree it is in. */
	put_file("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/docker/c1\n0::/\n");
	put_file("proc/self/mountinfo",
		 "31 1 0:31 /docker/c1 /sys/cpu rw - cgroup cgroup rw,cpu\n"
		 "32 1 0:32 /docker/c1 /sys/mem rw - cgroup cgroup rw,hugetlb,memory\n");
	put_file("sys/mem/memory.limit_in_bytes", "%llu\n", 256ULL << 20);
	put_file("sys/mem/memory.usage_in_bytes", "%llu\n", 300ULL << 20);
	put_file("sys/mem/memory.stat", "inactive_file 1\ntotal_inactive_file %llu\n", 8ULL << 20);
	check_memory(MB(256), MB(8));
}

static void test_this_machine(void **state)
{
	struct machine_memory mem;

	(void)state;
	assert_int_equal(machine_memory("", &mem), 0);
	assert_true(mem.total >= mem.limit && mem.limit > 0);
	assert_true(mem.available > 0 && mem.available <= mem.limit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_garbage),
		cmocka_unit_test(test_format),
		cmocka_unit_test_setup_teardown(test_no_cgroup, setup_machine, teardown_machine),
		cmocka_unit_test_setup_teardown(test_cgroup_v2, setup_machine, teardown_machine),
		cmocka_unit_test_setup_teardown(test_cgroup_v1, setup_machine, teardown_machine),
		cmocka_unit_test(test_this_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
