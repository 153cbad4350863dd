// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the core costs: slots a second, bytes a slot, bytes a page, density.
 *
 * Prints a table, each figure beside its target where it has one, and with
 * --json FILE writes the same for programs.  Rates are medians of several runs,
 * by the thread's own clock.  Bytes a page are what one more page costs; what an
 * empty space costs is a figure of its own.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/err.h>

#include "common.h"

#define RUNS	    5
#define RUN_NS	    200000000ULL
#define MAX_THREADS 2
#define NR_PAGES    (96UL << 10) /* 384 MiB of pages for the figures a page */
#define KIB	    1024.0

struct result {
	const char *name, *unit;
	double value;
	double target; /* 0: none */
	bool at_least; /* else at most */
};

static struct result results[64];
static unsigned int nr_results;

static bool passed(const struct result *r)
{
	return r->at_least ? r->value >= r->target : r->value <= r->target;
}

static void report(const char *name, double value, const char *unit, const char *rel, double target)
{
	struct result *r = &results[nr_results++];

	*r = (struct result){ name, unit, value, rel ? target : 0, rel && rel[0] == '>' };
	printf("%-62s %10.2f %-12s", name, value, unit);
	if (rel)
		printf(" %s %-7.5g %s", rel, target, passed(r) ? "reached" : "MISSED");
	putchar('\n');
	fflush(stdout);
}

static void write_json(const char *path)
{
	FILE *f = fopen(path, "w");
	unsigned int i;

	if (!f)
		die(path, errno);
	fprintf(f, "{\"bench\": \"core\", \"results\": [\n");
	for (i = 0; i < nr_results; i++) {
		struct result *r = &results[i];

		fprintf(f, "  {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"", r->name,
			r->value, r->unit);
		if (r->target != 0)
			fprintf(f, ", \"target\": \"%s %.6g\", \"pass\": %s",
				r->at_least ? ">=" : "<=", r->target, passed(r) ? "true" : "false");
		fprintf(f, "}%s\n", i + 1 < nr_results ? "," : "");
	}
	fprintf(f, "]}\n");
	if (fclose(f))
		die(path, errno);
}

/* ---- an empty space -------------------------------------------------- */

static void bench_empty(void)
{
	u64 rss = resident();
	struct swap_space *space = open_space(1ULL << 40);
	struct swap_stat st;

	rss = resident() - rss;
	swap_space_stat(space, &st);
	report("empty space: counted", (double)meta_bytes(&st) / KIB, "KiB", "<=", 1024);
	report("empty space: resident memory grew by", (double)rss / KIB, "KiB", "<=", 1024);
	swap_space_destroy(space);
}

/* ---- slots a second -------------------------------------------------- */

/* How SWAP_CLUSTER_SLOTS slots are taken and given back. */
struct pattern {
	const char *name;
	void (*round)(struct swap_space *space, struct swap_folio **folios);
	const char *rel;
	double target, target2;
};

/* No slots at all, and nothing shared: what two CPUs of this machine are to one. */
static void round_alone(struct swap_space *space, struct swap_folio **folios)
{
	volatile unsigned long word[SWAP_CLUSTER_SLOTS];
	unsigned int i;

	(void)space;
	(void)folios;
	for (i = 0; i < SWAP_CLUSTER_SLOTS; i++)
		word[i] = i;
	for (i = 0; i < SWAP_CLUSTER_SLOTS; i++)
		__atomic_fetch_add(&word[i], 1, __ATOMIC_SEQ_CST);
}

/* One by one, and one by one back. */
static void round_single(struct swap_space *space, struct swap_folio **folios)
{
	vswp_entry_t e[SWAP_CLUSTER_SLOTS];
	unsigned int i;

	(void)folios;
	for (i = 0; i < SWAP_CLUSTER_SLOTS; i++)
		e[i] = take(space, 0);
	for (i = 0; i < SWAP_CLUSTER_SLOTS; i++)
		swap_free_range(space, e[i], 1);
}

/* One by one, and back as one range wherever they are neighbours. */
static void round_range(struct swap_space *space, struct swap_folio **folios)
{
	vswp_entry_t first = { 0 };
	unsigned int i, nr = 0;

	(void)folios;
	for (i = 0; i < SWAP_CLUSTER_SLOTS; i++) {
		vswp_entry_t e = take(space, 0);

		if (nr && e.val != first.val + nr) {
			swap_free_range(space, first, nr);
			nr = 0;
		}
		if (!nr++)
			first = e;
	}
	swap_free_range(space, first, nr);
}

/* As runs of a large folio's size. */
static void round_folio(struct swap_space *space, struct swap_folio **folios)
{
	vswp_entry_t e[32];
	unsigned int i;

	(void)folios;
	for (i = 0; i < 32; i++)
		e[i] = take(space, 4);
	for (i = 0; i < 32; i++)
		swap_free_range(space, e[i], 16);
}

/* In the swap cache and out again, a batch of folios at a time. */
static void round_cache(struct swap_space *space, struct swap_folio **folios)
{
	unsigned int i, k;

	for (k = 0; k < SWAP_CLUSTER_SLOTS / BATCH; k++) {
		if (folios_alloc_swap(space, NULL, folios, BATCH) != BATCH)
			die("folios_alloc_swap", ENOMEM);
		for (i = 0; i < BATCH; i++) {
			folio_put_swap(space, folios[i]);
			swap_cache_del_folio(space, folios[i]);
		}
	}
}

static const struct pattern patterns[] = {
	{ "this machine: words of its own, nothing shared", round_alone, NULL, 0, 0 },
	{ "slots: one by one, freed one by one", round_single, ">=", 20, 1.8 },
	{ "slots: one by one, freed by range", round_range, ">=", 20, 1.8 },
	{ "slots: 16 at a time", round_folio, NULL, 0, 0 },
	{ "slots: for batches of 64 folios, into the cache, out", round_cache, NULL, 0, 0 },
};

struct slot_thread {
	pthread_t thread;
	const struct pattern *pattern;
	struct swap_space *space;
	unsigned int cpu;
	pthread_barrier_t *start;
	double rate;
};

static void *slot_thread(void *arg)
{
	struct slot_thread *t = arg;
	unsigned long pairs = 0;
	struct outbox o;
	unsigned int i;
	u64 begin, now;

	pin_to(t->cpu);
	outbox_open(&o);
	for (i = 0; i < BATCH; i++)
		outbox_folio(&o, i, 0);
	pthread_barrier_wait(t->start);
	begin = spent_ns();
	do {
		for (i = 0; i < 32; i++)
			t->pattern->round(t->space, o.folio);
		pairs += 32 * SWAP_CLUSTER_SLOTS;
		now = spent_ns();
	} while (now - begin < RUN_NS);
	t->rate = (double)pairs * 1e3 / (double)(now - begin);
	outbox_close(&o);
	return NULL;
}

/* All @threads together, from CPU @first on. */
static double slot_rate(struct swap_space *space, const struct pattern *p, unsigned int first,
			unsigned int threads)
{
	struct slot_thread t[MAX_THREADS];
	pthread_barrier_t start;
	double rate = 0;
	unsigned int i;
	int err;

	pthread_barrier_init(&start, NULL, threads);
	for (i = 0; i < threads; i++) {
		t[i] = (struct slot_thread){
			.pattern = p, .space = space, .cpu = first + i, .start = &start
		};
		err = pthread_create(&t[i].thread, NULL, slot_thread, &t[i]);
		if (err)
			die("thread", err);
	}
	for (i = 0; i < threads; i++) {
		pthread_join(t[i].thread, NULL);
		rate += t[i].rate;
	}
	pthread_barrier_destroy(&start);
	return rate;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned int nr)
{
	qsort(v, nr, sizeof(*v), by_value);
	return v[nr / 2];
}

static void bench_slots(void)
{
	struct swap_space *space = open_space(64 << 20);
	static char name[sizeof(patterns) / sizeof(patterns[0])][3][80];
	/* By their own time two threads would be twice as fast on one CPU, too. */
	bool pair = nr_cpus() >= 2;
	unsigned int i, r;

	for (i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		const struct pattern *p = &patterns[i];
		double one[RUNS], two[RUNS], ratio[RUNS];

		slot_rate(space, p, 0, 1);
		/* Side by side, so that what else the machine does meets both. */
		for (r = 0; r < RUNS; r++) {
			one[r] = slot_rate(space, p, 0, 1);
			if (!pair)
				continue;
			one[r] = (one[r] + slot_rate(space, p, 1, 1)) / 2;
			two[r] = slot_rate(space, p, 0, 2);
			ratio[r] = two[r] / one[r];
		}
		snprintf(name[i][0], sizeof(name[i][0]), "%s, 1 thread", p->name);
		snprintf(name[i][1], sizeof(name[i][1]), "%s, 2 threads", p->name);
		snprintf(name[i][2], sizeof(name[i][2]), "%s, 2 against 1", p->name);
		report(name[i][0], median(one, RUNS), "M pairs/s", p->rel, p->target);
		if (!pair)
			continue;
		report(name[i][1], median(two, RUNS), "M pairs/s", NULL, 0);
		report(name[i][2], median(ratio, RUNS), "times", p->rel, p->target2);
	}
	swap_space_destroy(space);
}

/* ---- bytes a slot ---------------------------------------------------- */

#define NR_SLOTS (1UL << 20)

static void bench_slot_bytes(void)
{
	static const unsigned int percent[] = { 100, 75, 50, 25, 0 };
	static char name[2][5][80];
	struct swap_stat empty, st;
	vswp_entry_t *e = must(calloc(NR_SLOTS, sizeof(*e)));
	u64 rnd = 1;
	unsigned int k;

	for (k = 0; k < 5; k++) {
		unsigned long nr = NR_SLOTS / 100 * percent[k], i, j;
		struct swap_space *space = open_space(64 << 20);

		swap_space_stat(space, &empty);
		for (i = 0; i < NR_SLOTS; i++)
			e[i] = take(space, 0);
		/* Filled one after the other up to there: the rest goes in order. */
		for (i = nr; i < NR_SLOTS; i++)
			swap_free_range(space, e[i], 1);
		swap_space_stat(space, &st);
		if (!nr) {
			report("bytes for all of 1 Mi slots, 0 % used",
			       (double)(meta_bytes(&st) - meta_bytes(&empty)), "bytes", NULL, 0);
			swap_space_destroy(space);
			break;
		}
		snprintf(name[0][k], sizeof(name[0][k]), "bytes a slot, %u %% used, packed",
			 percent[k]);
		report(name[0][k], (double)(meta_bytes(&st) - meta_bytes(&empty)) / (double)nr,
		       "bytes", "<=", 8.5);
		for (i = nr; i < NR_SLOTS; i++)
			e[i] = take(space, 0);
		/* And thinned out at random, the worst there is. */
		for (i = NR_SLOTS; i-- > nr;) {
			vswp_entry_t t;

			j = next_random(&rnd) % (i + 1);
			t = e[j];
			e[j] = e[i];
			swap_free_range(space, t, 1);
		}
		swap_space_stat(space, &st);
		snprintf(name[1][k], sizeof(name[1][k]), "bytes a slot, %u %% used, at random",
			 percent[k]);
		report(name[1][k], (double)(meta_bytes(&st) - meta_bytes(&empty)) / (double)nr,
		       "bytes", NULL, 0);
		for (i = 0; i < nr; i++)
			swap_free_range(space, e[i], 1);
		swap_space_destroy(space);
	}
	free(e);
}

/* ---- pages ----------------------------------------------------------- */

/* Swap out @nr new pages of @kind; their entries go to @e.  Returns nanoseconds it took. */
static u64 swap_out(struct swap_space *space, struct outbox *o, enum kind kind, u64 *rnd,
		    vswp_entry_t *e, unsigned int nr)
{
	unsigned int i;
	u64 begin;

	for (i = 0; i < nr; i++) {
		make_page((u64 *)(o->data + i * SWAP_PAGE_SIZE), kind, rnd);
		outbox_folio(o, i, 1UL << SWAP_FOLIO_UPTODATE | 1UL << SWAP_FOLIO_DIRTY);
	}
	begin = spent_ns();
	if (folios_alloc_swap(space, NULL, o->folio, nr) != nr)
		die("folios_alloc_swap", ENOMEM);
	if (swap_writeout(space, o->folio, nr) != nr)
		die("swap_writeout", ENOSPC);
	for (i = 0; i < nr; i++) {
		e[i] = o->folio[i]->entry;
		swap_cache_del_folio(space, o->folio[i]);
	}
	begin = spent_ns() - begin;
	for (i = 0; i < nr; i++) {
		swap_folio_unlock(o->folio[i]);
		swap_folio_put(o->folio[i]);
	}
	return begin;
}

static u64 swap_out_all(struct swap_space *space, enum kind kind, u64 *rnd, vswp_entry_t *e,
			unsigned long nr)
{
	struct outbox o;
	unsigned long i;
	u64 ns = 0;

	outbox_open(&o);
	for (i = 0; i < nr; i += BATCH)
		ns += swap_out(space, &o, kind, rnd, e + i,
			       (unsigned int)(nr - i < BATCH ? nr - i : BATCH));
	outbox_close(&o);
	return ns;
}

/* A tier that takes all and keeps nothing: these figures are not about disks. */
static void null_io(void *priv, struct swap_io *io, unsigned int nr)
{
	unsigned int i;

	(void)priv;
	for (i = 0; i < nr; i++)
		io[i].error = 0;
}

static int null_discard(void *priv, u64 slot, u64 nr)
{
	(void)priv;
	(void)slot;
	(void)nr;
	return 0;
}

static const struct swap_tier_ops null_ops = {
	.write = null_io,
	.read = null_io,
	.discard = null_discard,
};

static void add_null_tier(struct swap_space *space)
{
	struct swap_tier_conf conf = { .name = "null", .ops = &null_ops, .nr_slots = 2 * NR_PAGES };
	struct swap_tier *tier = swap_tier_add(space, &conf);

	if (IS_ERR(tier))
		die("tier", (int)-PTR_ERR(tier));
}

static void free_all(struct swap_space *space, const vswp_entry_t *e, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		swap_free_range(space, e[i], 1);
}

static double each(const struct swap_stat *st, const struct swap_stat *empty, u64 nr)
{
	return (double)(meta_bytes(st) - meta_bytes(empty)) / (double)nr;
}

static void bench_page_bytes(void)
{
	vswp_entry_t *e = must(calloc(NR_PAGES, sizeof(*e)));
	struct swap_stat empty, tier, st;
	struct swap_space *space;
	u64 rnd = 7, ns;

	space = open_space(1ULL << 40);
	swap_space_stat(space, &empty);
	ns = swap_out_all(space, KIND_MIX, &rnd, e, NR_PAGES);
	swap_space_stat(space, &st);
	report("swap out to the pool, lz4", NR_PAGES * 1e6 / (double)ns, "K pages/s", NULL, 0);
	report("compressed size of a page of the mix",
	       (double)st.pool_data_bytes / (double)st.pool_objects, "bytes", NULL, 0);
	report("metadata a page in the pool", each(&st, &empty, st.nr_pool), "bytes", "<=", 18.5);
	report("... of which the pool's",
	       (double)(st.pool_bytes - st.pool_data_bytes - empty.pool_bytes) /
		       (double)st.pool_objects,
	       "bytes", "<=", 10);
	if (st.nr_pool != NR_PAGES)
		die("not all pages are in the pool", EINVAL);

	/* The same pages, written back as they are.  What the tier itself costs is apart. */
	add_null_tier(space);
	swap_space_stat(space, &tier);
	while (swap_writeback(space, 64 << 20))
		;
	swap_compact(space);
	swap_space_stat(space, &st);
	if (st.nr_tier != NR_PAGES)
		die("not all pages are on the tier", EINVAL);
	report("metadata a page on a tier, compressed",
	       (double)(st.table_bytes + st.cluster_bytes + st.tier_meta_bytes - empty.table_bytes -
			empty.cluster_bytes - tier.tier_meta_bytes) /
		       NR_PAGES,
	       "bytes", "<=", 8.5);
	report("the pool after writeback of all", (double)st.pool_bytes / KIB, "KiB", NULL, 0);
	free_all(space, e, NR_PAGES);
	swap_space_destroy(space);

	space = open_space(1ULL << 40);
	add_null_tier(space);
	swap_space_stat(space, &empty);
	swap_out_all(space, KIND_NOISE, &rnd, e, NR_PAGES);
	swap_space_stat(space, &st);
	if (st.nr_tier != NR_PAGES)
		die("not all pages are on the tier", EINVAL);
	report("metadata a page on a tier, raw", each(&st, &empty, NR_PAGES), "bytes", "<=", 8.5);
	free_all(space, e, NR_PAGES);
	swap_space_destroy(space);

	space = open_space(1ULL << 40);
	swap_space_stat(space, &empty);
	ns = swap_out_all(space, KIND_FILL, &rnd, e, NR_PAGES);
	swap_space_stat(space, &st);
	if (st.nr_fill != NR_PAGES)
		die("not all pages are fills", EINVAL);
	report("swap out of repeated words", NR_PAGES * 1e6 / (double)ns, "K pages/s", NULL, 0);
	report("metadata a page of one repeated word", each(&st, &empty, NR_PAGES), "bytes",
	       "<=", 8.5);
	free_all(space, e, NR_PAGES);
	swap_space_destroy(space);
	free(e);
}

/* ---- density --------------------------------------------------------- */

static void bench_density(void)
{
	vswp_entry_t *e = must(calloc(NR_PAGES, sizeof(*e))), swap;
	struct swap_space *space = open_space(1ULL << 40);
	unsigned long i, j, round;
	struct swap_stat st, was;
	u64 rnd = 11, ns = 0;
	struct outbox o;

	swap_out_all(space, KIND_MIX, &rnd, e, NR_PAGES);
	swap_space_stat(space, &st);
	report("pool density: filled", 100.0 * (double)st.pool_live_bytes / (double)st.pool_bytes,
	       "%", ">=", 90);
	for (i = 0; i < NR_PAGES; i++) {
		j = i + next_random(&rnd) % (NR_PAGES - i);
		swap = e[i];
		e[i] = e[j];
		e[j] = swap;
	}
	free_all(space, e, NR_PAGES / 2);
	swap_out_all(space, KIND_MIX, &rnd, e, NR_PAGES / 2);
	swap_space_stat(space, &st);
	report("pool density: half freed at random and refilled",
	       100.0 * (double)st.pool_live_bytes / (double)st.pool_bytes, "%", ">=", 90);

	/* And on: one batch goes at random, one comes, as many as there are pages. */
	was = st;
	outbox_open(&o);
	for (round = 0; round < NR_PAGES / BATCH; round++) {
		i = next_random(&rnd) % (NR_PAGES - BATCH);
		for (j = 0; j < BATCH; j++) {
			unsigned long k = next_random(&rnd) % NR_PAGES;

			swap = e[i + j];
			e[i + j] = e[k];
			e[k] = swap;
		}
		free_all(space, e + i, BATCH);
		ns += swap_out(space, &o, KIND_MIX, &rnd, e + i, BATCH);
	}
	outbox_close(&o);
	swap_space_stat(space, &st);
	report("pool density: replaced at random, all of it once",
	       100.0 * (double)st.pool_live_bytes / (double)st.pool_bytes, "%", ">=", 90);
	report("... bytes moved for each byte stored",
	       (double)(st.compacted_bytes - was.compacted_bytes) /
		       ((double)st.pool_live_bytes * (double)(NR_PAGES / BATCH * BATCH) / NR_PAGES),
	       "bytes", NULL, 0);
	report("... swap out meanwhile", NR_PAGES * 1e6 / (double)ns, "K pages/s", NULL, 0);
	free_all(space, e, NR_PAGES);
	swap_compact(space);
	swap_space_stat(space, &st);
	report("the pool after all is freed", (double)st.pool_bytes / KIB, "KiB", NULL, 0);
	swap_space_destroy(space);
	free(e);
}

/* ---- lookups --------------------------------------------------------- */

static void bench_lookups(void)
{
	const unsigned long nr = 256 << 10;
	struct swap_space *space = open_space(64 << 20);
	struct swap_folio *folios = must(aligned_alloc(64, BATCH * sizeof(*folios)));
	vswp_entry_t *e = must(calloc(nr, sizeof(*e)));
	char *data = must(aligned_alloc(SWAP_PAGE_SIZE, SWAP_PAGE_SIZE));
	double rate[RUNS];
	unsigned long i, found = 0;
	unsigned int r;
	u64 rnd = 3, ns;

	for (i = 0; i < nr; i++)
		e[i] = take(space, 0);
	for (r = 0; r < RUNS; r++) {
		ns = spent_ns();
		for (i = 0; i < nr * 4; i++)
			found += swap_entry_where(space, e[next_random(&rnd) % nr]) == SWAP_FILL;
		rate[r] = (double)nr * 4e3 / (double)(spent_ns() - ns);
	}
	if (found != RUNS * 4 * nr)
		die("an entry is lost", EINVAL);
	report("lookups: where is an entry, at random, 1 GiB", median(rate, RUNS), "M/s", NULL, 0);
	free_all(space, e, nr);

	memset(data, 1, SWAP_PAGE_SIZE);
	for (i = 0; i < BATCH; i++) {
		swap_folio_init(&folios[i], data, 0, NULL, keep_folio);
		swap_folio_lock(&folios[i]);
		if (folio_alloc_swap(space, NULL, &folios[i]))
			die("folio_alloc_swap", ENOMEM);
		swap_folio_unlock(&folios[i]);
		e[i] = folios[i].entry;
	}
	found = 0;
	for (r = 0; r < RUNS; r++) {
		ns = spent_ns();
		for (i = 0; i < nr * 4; i++) {
			struct swap_folio *f = swap_cache_get_folio(space, e[i % BATCH]);

			if (f) {
				found++;
				swap_folio_put(f);
			}
		}
		rate[r] = (double)nr * 4e3 / (double)(spent_ns() - ns);
	}
	if (found != RUNS * 4 * nr)
		die("a folio is lost", EINVAL);
	report("lookups: a cached folio, found, taken and put", median(rate, RUNS), "M/s", NULL, 0);
	for (i = 0; i < BATCH; i++) {
		swap_folio_lock(&folios[i]);
		folio_put_swap(space, &folios[i]);
		swap_cache_del_folio(space, &folios[i]);
		swap_folio_unlock(&folios[i]);
		swap_folio_put(&folios[i]);
	}
	swap_space_destroy(space);
	free(data);
	free(folios);
	free(e);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", required_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	const char *json = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'j') {
			fprintf(stderr, "usage: bench-core [--json FILE]\n");
			return 2;
		}
		json = optarg;
	}
	bench_empty();
	bench_slots();
	bench_lookups();
	bench_slot_bytes();
	bench_page_bytes();
	bench_density();
	if (json)
		write_json(json);
	return 0;
}
