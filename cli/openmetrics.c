// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A table of families: each is named once, and has its samples of all spaces
 * together, as the format demands.  Times are in seconds, sizes in bytes.
 */
#include "openmetrics.h"

#include <inttypes.h>
#include <string.h>

/* Latency buckets told: powers of two of nanoseconds, so no bucket of ours spans two of them. */
#define LAT_FIRST 10
#define LAT_LAST  34

enum type {
	GAUGE,
	COUNTER,
};

/* What a member of the snapshot is called here; those of one family follow each other. */
static const struct metric {
	const char *name; /* without "vswap_" and "_total" */
	enum type type;
	const char *unit, *help;
	const char *group, *member; /* where it is in the snapshot */
	const char *key, *value;    /* a label of its own */
} metrics[] = {
/* clang-format off */
#define BYTES(name, help, member) { name, GAUGE, "bytes", help, NULL, member, NULL, NULL }
#define PAGES(name, help, group, member) { name, GAUGE, NULL, help, group, member, "where", member }
#define KIND(name, help, group, member) { name, COUNTER, NULL, help, group, member, "kind", member }
#define COUNT(name, help, member) { name, COUNTER, NULL, help, NULL, member, NULL, NULL }
	BYTES("ram_limit_bytes", "Memory the programs and vswap may use.", "ram_limit_bytes"),
	BYTES("ram_bytes", "Memory the programs and vswap use.", "ram_bytes"),
	BYTES("ram_peak_bytes", "The most they ever used.", "ram_bytes_peak"),
	BYTES("program_resident_bytes", "Resident memory of the programs.", "program_resident_bytes"),
	BYTES("self_bytes", "Memory of vswap itself, pool and cache included.", "vswap_bytes"),
	BYTES("cache_bytes", "Memory of the swap cache.", "cache_bytes"),
	BYTES("pool_bytes", "Memory of the compressed pool.", "pool_bytes"),
	BYTES("pool_data_bytes", "Compressed bytes in the pool.", "pool_data_bytes"),
	{ "pool_pages", GAUGE, NULL, "Pages in the compressed pool.", NULL, "pool_objects", NULL, NULL },
	PAGES("swapped_pages", "Pages swapped out, by where they are.", "slots", "cache"),
	PAGES("swapped_pages", NULL, "slots", "fill"),
	PAGES("swapped_pages", NULL, "slots", "pool"),
	PAGES("swapped_pages", NULL, "slots", "tier"),
	PAGES("swapped_pages", NULL, "slots", "poison"),
	KIND("faults", "Page faults served, by what was behind them.", "faults", "first_touch"),
	KIND("faults", NULL, "faults", "cache"),
	KIND("faults", NULL, "faults", "fill"),
	KIND("faults", NULL, "faults", "pool"),
	KIND("faults", NULL, "faults", "tier"),
	KIND("faults", NULL, "faults", "wait"),
	KIND("pages_out", "Pages swapped out, by where to.", "pages_out", "fill"),
	KIND("pages_out", NULL, "pages_out", "pool"),
	KIND("pages_out", NULL, "pages_out", "tier"),
	COUNT("refaults", "Faults soon after the page was taken.", "refaults"),
	COUNT("evicted_pages", "Pages taken out of the programs.", "pgsteal"),
	COUNT("evicted_file_pages", "Pages of mapped files they were made to drop.",
	      "pgsteal_file"),
	COUNT("readahead_pages", "Pages read ahead.", "swap_ra"),
	COUNT("readahead_hits", "Pages read ahead that were wanted.", "swap_ra_hit"),
	COUNT("read_errors", "Reads that failed.", "read_errors"),
	COUNT("write_errors", "Writes that failed.", "write_errors"),
	COUNT("lost_pages", "Pages lost.", "pages_lost"),
	/* clang-format on */
};

static const struct tier_metric {
	const char *name;
	enum type type;
	const char *help, *member;
} tier_metrics[] = {
	{ "tier_size_bytes", GAUGE, "Room on a tier.", "size_bytes" },
	{ "tier_used_bytes", GAUGE, "Room taken on a tier.", "used_bytes" },
	{ "tier_written_bytes", COUNTER, "Bytes written to a tier.", "bytes_written" },
	{ "tier_read_bytes", COUNTER, "Bytes read from a tier.", "bytes_read" },
};

static void print_head(FILE *f, const char *name, const char *type, const char *unit,
		       const char *help)
{
	fprintf(f, "# TYPE vswap_%s %s\n", name, type);
	if (unit)
		fprintf(f, "# UNIT vswap_%s %s\n", name, unit);
	fprintf(f, "# HELP vswap_%s %s\n", name, help);
}

static void print_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", f);
		else if (*text == '\\' || *text == '"')
			fprintf(f, "\\%c", *text);
		else
			fputc(*text, f);
	}
}

/* {space="...",program="..." and, with @key, one more; the brace stays open. */
static void print_labels(FILE *f, const struct space *space, const char *key, const char *value)
{
	const char *name = snapshot_text(space->snapshot, "name");
	char program[256];

	snapshot_program(space->snapshot, program, sizeof(program));
	fputs("{space=\"", f);
	if (name)
		print_text(f, name);
	else
		fprintf(f, "%d", (int)space->supervisor);
	fputs("\",program=\"", f);
	print_text(f, program);
	fputc('"', f);
	if (key) {
		fprintf(f, ",%s=\"", key);
		print_text(f, value);
		fputc('"', f);
	}
}

static void print_metrics(FILE *f, const struct space_list *list)
{
	const size_t nr = sizeof(metrics) / sizeof(metrics[0]);
	size_t i, j, end;
	unsigned int s;

	for (i = 0; i < nr; i = end) {
		const struct metric *m = &metrics[i];

		for (end = i + 1; end < nr && !strcmp(metrics[end].name, m->name); end++)
			;
		print_head(f, m->name, m->type == COUNTER ? "counter" : "gauge", m->unit, m->help);
		for (s = 0; s < list->nr; s++) {
			for (j = i; j < end; j++) {
				m = &metrics[j];
				fprintf(f, "vswap_%s%s", m->name,
					m->type == COUNTER ? "_total" : "");
				print_labels(f, &list->space[s], m->key, m->value);
				fprintf(f, "} %" PRIu64 "\n",
					snapshot_number(list->space[s].snapshot, m->group,
							m->member));
			}
		}
	}
}

static void print_tiers(FILE *f, const struct space_list *list)
{
	struct json_object *tiers, *tier;
	const char *name;
	size_t i, t;
	unsigned int s;

	for (i = 0; i < sizeof(tier_metrics) / sizeof(tier_metrics[0]); i++) {
		const struct tier_metric *m = &tier_metrics[i];

		print_head(f, m->name, m->type == COUNTER ? "counter" : "gauge", "bytes", m->help);
		for (s = 0; s < list->nr; s++) {
			if (!json_object_object_get_ex(list->space[s].snapshot, "tiers", &tiers))
				continue;
			for (t = 0; t < json_object_array_length(tiers); t++) {
				tier = json_object_array_get_idx(tiers, t);
				name = snapshot_text(tier, "name");
				fprintf(f, "vswap_%s%s", m->name,
					m->type == COUNTER ? "_total" : "");
				print_labels(f, &list->space[s], "tier", name ? name : "");
				fprintf(f, "} %" PRIu64 "\n",
					snapshot_number(tier, NULL, m->member));
			}
		}
	}
}

/* Faults that took no longer than 2^@shift ns, of pairs [least ns of a bucket, faults]. */
static uint64_t faults_within(struct json_object *histogram, unsigned int shift)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; histogram && i < json_object_array_length(histogram); i++) {
		struct json_object *pair = json_object_array_get_idx(histogram, i);

		if (json_object_get_uint64(json_object_array_get_idx(pair, 0)) < 1ULL << shift)
			sum += json_object_get_uint64(json_object_array_get_idx(pair, 1));
	}
	return sum;
}

static void print_latency(FILE *f, const struct space_list *list)
{
	struct json_object *latency, *histogram;
	char le[32];
	unsigned int s, shift;
	uint64_t count, ns;

	print_head(f, "fault_latency_seconds", "histogram", "seconds",
		   "Time from a fault to its end.");
	for (s = 0; s < list->nr; s++) {
		histogram = NULL;
		if (json_object_object_get_ex(list->space[s].snapshot, "fault_latency_ns",
					      &latency))
			json_object_object_get_ex(latency, "histogram", &histogram);
		for (shift = LAT_FIRST; shift <= LAT_LAST; shift++) {
			snprintf(le, sizeof(le), "%" PRIu64 ".%09" PRIu64,
				 (uint64_t)((1ULL << shift) / 1000000000),
				 (uint64_t)((1ULL << shift) % 1000000000));
			fputs("vswap_fault_latency_seconds_bucket", f);
			print_labels(f, &list->space[s], "le", le);
			fprintf(f, "} %" PRIu64 "\n", faults_within(histogram, shift));
		}
		/* Counted while faults are: the buckets have the last word. */
		count = faults_within(histogram, 63);
		fputs("vswap_fault_latency_seconds_bucket", f);
		print_labels(f, &list->space[s], "le", "+Inf");
		fprintf(f, "} %" PRIu64 "\nvswap_fault_latency_seconds_count", count);
		print_labels(f, &list->space[s], NULL, NULL);
		ns = snapshot_number(list->space[s].snapshot, "fault_latency_ns", "sum");
		fprintf(f, "} %" PRIu64 "\nvswap_fault_latency_seconds_sum", count);
		print_labels(f, &list->space[s], NULL, NULL);
		fprintf(f, "} %" PRIu64 ".%09" PRIu64 "\n", ns / 1000000000, ns % 1000000000);
	}
}

void openmetrics_print(FILE *f, const struct space_list *list)
{
	print_metrics(f, list);
	print_tiers(f, list);
	print_latency(f, list);
	fputs("# EOF\n", f);
}
