// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is made of snapshots and maps for others to read: OpenMetrics, SVG.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/openmetrics.h"
#include "cli/svg.h"

static const char snapshot[] =
	"{\"pid\":7,\"program\":\"/bin/a\\\"b\\\\c\",\"ram_bytes\":123,"
	"\"faults\":{\"pool\":5,\"tier\":6},"
	"\"fault_latency_ns\":{\"sum\":2500000001,\"count\":6,"
	"\"histogram\":[[900,2],[1024,1],[1500000000,3]]},"
	"\"tiers\":[{\"name\":\"/t\",\"size_bytes\":4096,\"bytes_written\":8192}]}";

static void has(const char *text, const char *part)
{
	assert_non_null(text);
	if (!strstr(text, part))
		fail_msg("no '%s' in:\n%s", part, text);
}

static void test_openmetrics(void **state)
{
	struct space space[2] = { { 42, json_tokener_parse(snapshot) },
				  { 43, json_tokener_parse("{\"name\":\"n\"}") } };
	struct space_list list = { .space = space, .nr = 2 };
	char *text = NULL, *line, *save, *head;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	openmetrics_print(f, &list);
	fclose(f);
	has(text, "# TYPE vswap_ram_bytes gauge\n# UNIT vswap_ram_bytes bytes\n");
	has(text, "\nvswap_ram_bytes{space=\"42\",program=\"a\\\"b\\\\c\"} 123\n");
	has(text, "\nvswap_ram_bytes{space=\"n\",program=\"?\"} 0\n");
	has(text, "# TYPE vswap_faults counter\n");
	has(text, "kind=\"tier\"} 6\n");
	has(text,
	    "\nvswap_tier_written_bytes_total{space=\"42\",program=\"a\\\"b\\\\c\",tier=\"/t\"} 8192\n");
	/* A bucket's faults took at least its least time, and less than the next power of two. */
	has(text, "le=\"0.000001024\"} 2\n");
	has(text, "le=\"0.000002048\"} 3\n");
	has(text, "le=\"1.073741824\"} 3\n");
	has(text, "le=\"2.147483648\"} 6\n");
	has(text, "le=\"+Inf\"} 6\n");
	has(text,
	    "vswap_fault_latency_seconds_sum{space=\"42\",program=\"a\\\"b\\\\c\"} 2.500000001\n");
	assert_string_equal(text + len - 6, "# EOF\n");
	/* Each family once. */
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "# TYPE ", 7))
			continue;
		for (head = save; head && *head; head = strchr(head, '\n') + 1)
			assert_true(strncmp(head, line, strlen(line)));
	}
	free(text);
	json_object_put(space[0].snapshot);
	json_object_put(space[1].snapshot);
}

#define PLACES "\"places\":[\"none\",\"resident\",\"cache\",\"fill\",\"pool\",\"lost\",\"/a<b&c\"]"

static char *draw(const char *json, int expected)
{
	struct json_object *map = json_tokener_parse(json);
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(map);
	assert_int_equal(svg_map(f, map, "<title> & more"), expected);
	fclose(f);
	json_object_put(map);
	return text;
}

static unsigned int count(const char *text, const char *part)
{
	unsigned int n = 0;

	for (text = strstr(text, part); text; text = strstr(text + 1, part))
		n++;
	return n;
}

static void test_svg(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"cell_bytes\":4096,\"clients\":[]}",
		"{\"cell_bytes\":0,\"clients\":[]," PLACES "}",
		"{\"cell_bytes\":4096,\"clients\":{}," PLACES "}",
		"{\"cell_bytes\":4096,\"clients\":[],\"places\":[1,2,3,4,5,6,7]}",
		"{\"cell_bytes\":4096,\"clients\":[{\"pid\":1}]," PLACES "}",
		"{\"cell_bytes\":4096,\"clients\":[{\"ranges\":[{}]}]," PLACES "}",
		"{\"cell_bytes\":4096,\"clients\":[{\"ranges\":[{\"runs\":[[1,1]]}]}]," PLACES "}",
		"{\"cell_bytes\":4096,\"clients\":[{\"ranges\":[{\"runs\":[[7,1,1]]}]}]," PLACES
		"}",
		"{\"cell_bytes\":4096,\"clients\":[{\"ranges\":[{\"runs\":[7]}]}]," PLACES "}",
		"{\"cell_bytes\":4096,\"clients\":[{\"ranges\":[{\"runs\":[[1,1,99999999]]}]}]," PLACES
		"}",
	};
	char *text;
	unsigned int i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		free(draw(bad[i], -EINVAL));

	text = draw("{\"cell_bytes\":8192,\"clients\":[{\"pid\":77,\"ranges\":["
		    "{\"start\":65536,\"end\":2162688,\"runs\":[[1,8,100],[6,2,100],[0,0,56]]},"
		    "{\"start\":4294967296,\"end\":4294975488,\"runs\":[[4,0,1]]}]}]," PLACES "}",
		    0);
	assert_int_equal(strncmp(text, "<svg xmlns=", 11), 0);
	assert_string_equal(text + strlen(text) - 7, "</svg>\n");
	has(text, "&lt;title> &amp; more");
	has(text, "/a&lt;b&amp;c: 800K");
	has(text, "resident: 800K");
	has(text, "untouched: 448K");
	has(text, "process 77");
	has(text, ">10000<");
	has(text, ">100000000<");
	assert_null(strstr(text, "cache"));
	/* The second run goes on in the second row. */
	assert_int_equal(count(text, "fill-opacity"), 4);
	has(text, "width=\"600\" height=\"8\" fill=\"#d7301f\" fill-opacity=\"0.72\"");
	has(text, "width=\"168\" height=\"8\" fill=\"#2171b5\" fill-opacity=\"0.48\"");
	has(text, "width=\"432\" height=\"8\" fill=\"#2171b5\" fill-opacity=\"0.48\"");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_openmetrics),
		cmocka_unit_test(test_svg),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
