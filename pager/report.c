// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A snapshot as text: JSON for programs, a page of lines for people.
 *
 * The JSON is a table of names and members.  What /proc/vmstat counts too has
 * its name there; a name that ends in _bytes or _ns says its unit, any other
 * is a count (of pages, faults or events).
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stddef.h>
#include <string.h>

#include "json.h"
#include "size.h"
#include "stat.h"

/* A 64-bit counter of struct pager_stat: where it is and where it goes. */
struct field {
	const char *group; /* object it is in, NULL: top level */
	const char *name;
	size_t offset;
};

/* clang-format off */
#define FIELD(group, name, member)	{ group, name, offsetof(struct pager_stat, member) }
/* clang-format on */

static const struct field fields[] = {
	FIELD(NULL, "elapsed_ns", elapsed_ns),
	FIELD(NULL, "ram_limit_bytes", ram_limit),
	FIELD(NULL, "ram_bytes", ram_bytes),
	FIELD(NULL, "ram_bytes_peak", ram_bytes_peak),
	FIELD(NULL, "program_resident_bytes", program_bytes),
	FIELD(NULL, "vswap_bytes", self_bytes),
	FIELD(NULL, "cache_bytes", cache_bytes),
	FIELD(NULL, "window_bytes", window_bytes),

	FIELD(NULL, "pool_bytes", swap.pool_bytes),
	FIELD(NULL, "pool_live_bytes", swap.pool_live_bytes),
	FIELD(NULL, "pool_data_bytes", swap.pool_data_bytes),
	FIELD(NULL, "pool_objects", swap.pool_objects),
	FIELD(NULL, "table_bytes", swap.table_bytes),
	FIELD(NULL, "cluster_bytes", swap.cluster_bytes),
	FIELD(NULL, "tier_meta_bytes", swap.tier_meta_bytes),

	FIELD(NULL, "clusters", swap.clusters),
	FIELD(NULL, "slots_used", swap.slots_used),
	FIELD(NULL, "slots_peak", swap.slots_peak),
	FIELD("slots", "cache", swap.nr_cached),
	FIELD("slots", "fill", swap.nr_fill),
	FIELD("slots", "pool", swap.nr_pool),
	FIELD("slots", "tier", swap.nr_tier),
	FIELD("slots", "poison", swap.nr_poison),

	FIELD("faults", "first_touch", fault_zero),
	FIELD("faults", "cache", fault_cache),
	FIELD("faults", "fill", fault_fill),
	FIELD("faults", "pool", fault_pool),
	FIELD("faults", "tier", fault_tier),
	FIELD("faults", "wait", fault_wait),
	FIELD("pages_out", "fill", swap.swpout_zero),
	FIELD("pages_out", "pool", swap.zswpout),
	FIELD("pages_out", "tier", swap.pswpout),
	FIELD("readahead", "pages", swap_ra),
	FIELD("readahead", "hits", swap_ra_hit),
	FIELD("readahead", "misses", swap_ra_miss),
	FIELD(NULL, "refaults", refault),
	FIELD(NULL, "stall_ns", stall_ns),

	FIELD("evictions", "move", evict_move),
	FIELD("evictions", "copy", evict_copy),
	FIELD("evictions", "busy", evict_busy),
	FIELD("evictions", "spared", evict_spared),
	FIELD("events", "remove", event_remove),
	FIELD("events", "unmap", event_unmap),
	FIELD("events", "remap", event_remap),
	FIELD("events", "fork", event_fork),

	FIELD(NULL, "pswpin", swap.pswpin),
	FIELD(NULL, "pswpout", swap.pswpout),
	FIELD(NULL, "zswpin", swap.zswpin),
	FIELD(NULL, "zswpout", swap.zswpout),
	FIELD(NULL, "zswpwb", swap.zswpwb),
	FIELD(NULL, "swpin_zero", swap.swpin_zero),
	FIELD(NULL, "swpout_zero", swap.swpout_zero),
	FIELD(NULL, "swap_ra", swap_ra),
	FIELD(NULL, "swap_ra_hit", swap_ra_hit),
	FIELD(NULL, "pgsteal", pgsteal),
	FIELD(NULL, "pgsteal_file", pgsteal_file),
	FIELD(NULL, "reject_compress_poor", swap.reject_compress_poor),
	FIELD(NULL, "compacted_bytes", swap.compacted_bytes),
	FIELD(NULL, "read_errors", swap.read_errors),
	FIELD(NULL, "write_errors", swap.write_errors),
	FIELD(NULL, "pages_lost", sigbus),
};

/* clang-format off */
static const struct {
	const char *name;
	unsigned int per_mille;
} quantiles[] = {
	{ "p50", 500 },
	{ "p90", 900 },
	{ "p99", 990 },
	{ "p99_9", 999 },
};
/* clang-format on */

static int add_field(struct json_object *root, const struct field *f, const struct pager_stat *st)
{
	struct json_object *obj = root;
	uint64_t value;
	int err;

	memcpy(&value, (const char *)st + f->offset, sizeof(value));
	if (f->group && !json_object_object_get_ex(root, f->group, &obj)) {
		obj = json_object_new_object();
		err = json_add(root, f->group, obj);
		if (err)
			return err;
	}
	return json_add_u64(obj, f->name, value);
}

/* A bucket can reach past the largest latency that was seen. */
static uint64_t latency_quantile(const struct pager_stat *st, unsigned int per_mille)
{
	uint64_t ns = lat_quantile(st->lat, per_mille);

	return ns < st->lat_max_ns ? ns : st->lat_max_ns;
}

static uint64_t latency_mean(const struct pager_stat *st)
{
	return st->lat_nr ? st->lat_sum_ns / st->lat_nr : 0;
}

static int add_histogram(struct json_object *obj, const struct pager_stat *st)
{
	struct json_object *array = json_object_new_array(), *pair;
	unsigned int i;
	int err = json_add(obj, "histogram", array);

	for (i = 0; !err && i < LAT_BUCKETS; i++) {
		if (!st->lat[i])
			continue;
		pair = json_object_new_array();
		err = json_append(array, pair);
		if (!err)
			err = json_append(pair, json_object_new_uint64(lat_floor(i)));
		if (!err)
			err = json_append(pair, json_object_new_uint64(st->lat[i]));
	}
	return err;
}

static int add_latency(struct json_object *root, const struct pager_stat *st)
{
	struct json_object *obj = json_object_new_object();
	unsigned int i;
	int err = json_add(root, "fault_latency_ns", obj);

	for (i = 0; !err && i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
		err = json_add_u64(obj, quantiles[i].name,
				   latency_quantile(st, quantiles[i].per_mille));
	if (!err)
		err = json_add_u64(obj, "max", st->lat_max_ns);
	if (!err)
		err = json_add_u64(obj, "mean", latency_mean(st));
	if (!err)
		err = json_add_u64(obj, "sum", st->lat_sum_ns);
	if (!err)
		err = json_add_u64(obj, "count", st->lat_nr);
	if (!err)
		err = add_histogram(obj, st);
	return err;
}

static int add_tier(struct json_object *array, const struct swap_tier_stat *tier)
{
	struct json_object *obj = json_object_new_object();
	int err = json_append(array, obj);

	if (!err)
		err = json_add_text(obj, "name", tier->name);
	if (!err)
		err = json_add(obj, "prio", json_object_new_int(tier->prio));
	if (!err)
		err = json_add_u64(obj, "size_bytes", tier->nr_slots * SWAP_PAGE_SIZE);
	if (!err)
		err = json_add_u64(obj, "used_bytes", tier->slots_used * SWAP_PAGE_SIZE);
	if (!err)
		err = json_add_u64(obj, "bytes_written", tier->bytes_written);
	if (!err)
		err = json_add_u64(obj, "bytes_read", tier->bytes_read);
	if (!err)
		err = json_add_bool(obj, "full", tier->full);
	if (!err)
		err = json_add_bool(obj, "failed", tier->failed);
	return err;
}

static int add_tiers(struct json_object *root, const struct pager_stat *st)
{
	struct json_object *array = json_object_new_array();
	uint64_t used = 0;
	unsigned int i;
	int err = json_add(root, "tiers", array);

	for (i = 0; !err && i < st->nr_tiers; i++) {
		used += st->tier[i].slots_used * SWAP_PAGE_SIZE;
		err = add_tier(array, &st->tier[i]);
	}
	if (!err)
		err = json_add_u64(root, "tier_bytes", used);
	return err;
}

static int add_all(struct json_object *root, const struct pager_stat *st)
{
	unsigned int i;
	int err;

	err = json_add(root, "pid", json_object_new_int64(st->pid));
	if (!err)
		err = json_add_text(root, "program", st->program);
	if (!err && st->name)
		err = json_add_text(root, "name", st->name);
	if (!err)
		err = json_add_bool(root, "finished", st->finished);
	if (!err && st->finished)
		err = json_add(root, "status", json_object_new_int(st->status));
	for (i = 0; !err && i < sizeof(fields) / sizeof(fields[0]); i++)
		err = add_field(root, &fields[i], st);
	if (!err)
		err = add_latency(root, st);
	if (!err)
		err = add_tiers(root, st);
	return err;
}

struct json_object *report_object(const struct pager_stat *st)
{
	struct json_object *root = json_object_new_object();

	if (root && add_all(root, st)) {
		json_object_put(root);
		return NULL;
	}
	return root;
}

int report_json(FILE *f, const struct pager_stat *st)
{
	struct json_object *root = report_object(st);
	const char *text;
	int err = 0;

	if (!root)
		return -ENOMEM;
	text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY |
							    JSON_C_TO_STRING_SPACED |
							    JSON_C_TO_STRING_NOSLASHESCAPE);
	if (!text) {
		err = -ENOMEM;
		goto out;
	}
	errno = 0;
	if (fputs(text, f) < 0 || fputc('\n', f) < 0 || fflush(f))
		err = errno ? -errno : -EIO;
out:
	json_object_put(root);
	return err;
}

/* ---- for people ------------------------------------------------------- */

static void print_size(FILE *f, const char *what, uint64_t bytes)
{
	char buf[SIZE_TEXT];

	fprintf(f, "%s%s", what, size_format(buf, bytes));
}

static void print_time(FILE *f, const char *what, uint64_t ns)
{
	char buf[SIZE_TEXT];

	fprintf(f, "%s%s", what, time_format(buf, ns));
}

static unsigned int percent(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned __int128)part * 100 / whole : 0;
}

/* "what: 12" for the kinds that happened, in a row. */
struct kind {
	const char *name;
	uint64_t count;
};

static void print_kinds(FILE *f, const char *title, const struct kind *kinds, unsigned int nr)
{
	const char *separator = ": ";
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < nr; i++)
		sum += kinds[i].count;
	fprintf(f, "vswap:   %-10s %" PRIu64, title, sum);
	for (i = 0; i < nr; i++) {
		if (!kinds[i].count)
			continue;
		fprintf(f, "%s%s %" PRIu64, separator, kinds[i].name, kinds[i].count);
		separator = ", ";
	}
	fputc('\n', f);
}

static void print_memory(FILE *f, const struct pager_stat *st)
{
	const struct swap_stat *sw = &st->swap;

	print_size(f, "vswap:   memory     peak ", st->ram_bytes_peak);
	print_size(f, " of ", st->ram_limit);
	fprintf(f, " (%u%%)", percent(st->ram_bytes_peak, st->ram_limit));
	print_size(f, "; last: program ", st->program_bytes);
	print_size(f, ", vswap ", st->self_bytes);
	print_size(f, " (pool ", sw->pool_bytes);
	print_size(f, ", cache ", st->cache_bytes);
	print_size(f, ", tables ",
		   sw->table_bytes + sw->cluster_bytes + sw->tier_meta_bytes + st->window_bytes);
	fputs(")\n", f);
}

static void print_traffic(FILE *f, const struct pager_stat *st)
{
	const struct swap_stat *sw = &st->swap;
	/* clang-format off */
	const struct kind in[] = {
		{ "first touch", st->fault_zero },
		{ "cache", st->fault_cache },
		{ "fill", st->fault_fill },
		{ "pool", st->fault_pool },
		{ "tier", st->fault_tier },
		{ "wait", st->fault_wait },
	};
	const struct kind out[] = {
		{ "fill", sw->swpout_zero },
		{ "pool", sw->zswpout },
		{ "tier", sw->pswpout },
	};
	/* clang-format on */

	print_kinds(f, "faults", in, sizeof(in) / sizeof(in[0]));
	if (st->lat_nr) {
		print_time(f, "vswap:   latency    p50 ", latency_quantile(st, 500));
		print_time(f, ", p99 ", latency_quantile(st, 990));
		print_time(f, ", p99.9 ", latency_quantile(st, 999));
		print_time(f, ", max ", st->lat_max_ns);
		print_time(f, "; faults stalled for memory ", st->stall_ns);
		fputc('\n', f);
	}
	print_kinds(f, "pages out", out, sizeof(out) / sizeof(out[0]));
	if (st->swap_ra)
		fprintf(f,
			"vswap:   readahead  %" PRIu64 ": hits %" PRIu64 ", misses %" PRIu64 "\n",
			st->swap_ra, st->swap_ra_hit, st->swap_ra_miss);
	if (st->pgsteal)
		fprintf(f,
			"vswap:   evicted    %" PRIu64 ", %" PRIu64
			" of them missed soon after; of mapped files %" PRIu64 "\n",
			st->pgsteal, st->refault, st->pgsteal_file);
}

static void print_stores(FILE *f, const struct pager_stat *st)
{
	const struct swap_stat *sw = &st->swap;
	const struct swap_tier_stat *tier;
	char name[256];
	unsigned int i;

	fprintf(f, "vswap:   slots      %" PRIu64 " at the peak, %" PRIu64 " now\n",
		(uint64_t)sw->slots_peak, (uint64_t)sw->slots_used);
	if (sw->pool_objects) {
		fprintf(f, "vswap:   pool       %" PRIu64 " pages", (uint64_t)sw->pool_objects);
		print_size(f, " in ", sw->pool_bytes);
		fprintf(f, ", %u%% of it live\n", percent(sw->pool_live_bytes, sw->pool_bytes));
	}
	for (i = 0; i < st->nr_tiers; i++) {
		tier = &st->tier[i];
		json_to_text(name, sizeof(name), tier->name);
		print_size(f, "vswap:   tier       used ", tier->slots_used * SWAP_PAGE_SIZE);
		print_size(f, " of ", tier->nr_slots * SWAP_PAGE_SIZE);
		print_size(f, ", written ", tier->bytes_written);
		print_size(f, ", read ", tier->bytes_read);
		fprintf(f, ": %s%s%s\n", name, tier->full ? " (full)" : "",
			tier->failed ? " (failed)" : "");
	}
}

static void print_trouble(FILE *f, const struct pager_stat *st)
{
	const struct swap_stat *sw = &st->swap;

	if (!sw->read_errors && !sw->write_errors && !st->sigbus)
		return;
	fprintf(f,
		"vswap:   trouble    read errors %" PRIu64 ", write errors %" PRIu64
		", pages lost %" PRIu64 "\n",
		(uint64_t)sw->read_errors, (uint64_t)sw->write_errors, st->sigbus);
}

int report_text(FILE *f, const struct pager_stat *st)
{
	char name[256];

	json_to_text(name, sizeof(name), st->program);
	errno = 0;
	fprintf(f, "vswap: %s (pid %ld) ", name, (long)st->pid);
	if (st->finished)
		fprintf(f, "ended with status %d", st->status);
	else
		fputs("is running", f);
	print_time(f, " after ", st->elapsed_ns);
	fputc('\n', f);
	print_memory(f, st);
	print_traffic(f, st);
	print_stores(f, st);
	print_trouble(f, st);
	if (fflush(f) || ferror(f))
		return errno ? -errno : -EIO;
	return 0;
}
