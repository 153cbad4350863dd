// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Does an operation cost more when there are more slots?  From 2^16 to 2^30 of
 * them, with no page and no fault: entries alone, and who holds them.
 *
 *	bench-scale [--from SHIFT] [--to SHIFT] [--json FILE]
 *
 * Entries are held as the pager does, by address in windows: those of at least
 * eight clients, 128 TiB of addresses each, a petabyte together.  In each, what
 * is swapped out lies in pieces of 32 MiB as far from each other as they can be.
 * As many threads as there are CPUs work at the same time, each on clients of its
 * own; entries come from one space.
 *
 * Addresses are drawn in two ways: any page of a working set of 2^16 pages, which
 * lie in windows spread evenly over all, and any page of all.  With the same
 * working set the CPU's caches serve as well in a large space as in a small one, and
 * what is left is the core's own doing; without, memory's is on top.  Times are a
 * thread's own, in nanoseconds an operation.  The last row is what memory alone
 * makes of it: one word out of as many as there are slots, each known only when the
 * one before was read.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kernel.h>
#include <linux/minmax.h>

#include "common.h"
#include "pager/window.h"

#define ADDR_BITS     47
#define LEAST_CLIENTS 8U	  /* ... and two for each thread */
#define PIECE_WINDOWS 16UL	  /* next to each other */
#define CHUNK	      4096U	  /* operations between two looks at the clock */
#define SET_WINDOWS   128U	  /* of the working set */
#define OPS	      (1UL << 20) /* drawn in all, at each size; as many slots are filled at least */
#define FLAT	      1.5

static const unsigned int shifts[] = { 16, 20, 24, 28, 30 };

enum op {
	OP_ALLOC,
	OP_LOOKUP_SET,
	OP_LOOKUP_ANY,
	OP_CHURN_SET,
	OP_CHURN_ANY,
	OP_FREE,
	NR_ENGINE_OPS, /* which are to be flat */
	OP_WINDOW_SET = NR_ENGINE_OPS,
	OP_WINDOW_GET_SET,
	OP_WINDOW_GET_ANY,
	OP_MEMORY,
	NR_OPS,
};

static const char *const op_names[NR_OPS] = {
	[OP_ALLOC] = "allocate a slot",
	[OP_LOOKUP_SET] = "look an entry up, working set",
	[OP_LOOKUP_ANY] = "look an entry up, any",
	[OP_CHURN_SET] = "free a slot and allocate one, working set",
	[OP_CHURN_ANY] = "free a slot and allocate one, any",
	[OP_FREE] = "free a slot, in order of addresses",
	[OP_WINDOW_SET] = "window: entry of an address set",
	[OP_WINDOW_GET_SET] = "window: entry of an address, working set",
	[OP_WINDOW_GET_ANY] = "window: entry of an address, any",
	[OP_MEMORY] = "memory: a word, any",
};

struct cost {
	u64 ns, nr;
};

/* One size. */
struct step {
	unsigned int shift;
	bool done;
	double ns[NR_OPS];
	double rss, meta; /* bytes a slot: all, the core's own */
};

static struct step steps[ARRAY_SIZE(shifts)];

static struct {
	struct swap_space *space;
	struct windows *clients;
	unsigned int nr_clients, nr_threads;
	u64 windows; /* of each client */
	u64 ops;     /* drawn by each thread */
	pthread_barrier_t barrier;
} job;

struct worker {
	pthread_t thread;
	unsigned int nr;
	u64 rnd;
	u64 begin;
	bool warm_up; /* nothing counts yet */
	struct cost cost[NR_OPS];
	/* a chunk */
	struct windows *client[CHUNK];
	u64 addr[CHUNK];
	vswp_entry_t entry[CHUNK];
};

/* ---- addresses ------------------------------------------------------- */

static u64 window_addr(u64 window)
{
	u64 pieces = (job.windows + PIECE_WINDOWS - 1) / PIECE_WINDOWS;
	u64 apart = (1UL << (ADDR_BITS - WINDOW_SHIFT)) / pieces;

	return (window / PIECE_WINDOWS * apart + window % PIECE_WINDOWS) << WINDOW_SHIFT;
}

/* How many clients a thread has: numbers w->nr, w->nr + nr_threads, ... */
static unsigned int nr_mine(const struct worker *w)
{
	return (job.nr_clients - w->nr + job.nr_threads - 1) / job.nr_threads;
}

/* Draw a chunk of addresses of the first @mine clients. */
static void draw(struct worker *w, unsigned int mine, bool set)
{
	u64 nr = set ? max(SET_WINDOWS / job.nr_clients, 1U) : job.windows;
	u64 apart = job.windows / nr;
	unsigned int i;

	for (i = 0; i < CHUNK; i++) {
		u64 r = next_random(&w->rnd);

		w->client[i] = &job.clients[w->nr + r % mine * job.nr_threads];
		w->addr[i] = window_addr((r >> 16) % nr * apart) +
			     (next_random(&w->rnd) >> 32) % WINDOW_PAGES * PAGE_SIZE_;
	}
}

static struct worker *workers;

/* ---- the trace ------------------------------------------------------- */

static void clock_on(struct worker *w)
{
	w->begin = spent_ns();
}

static void clock_off(struct worker *w, enum op op, u64 nr)
{
	u64 ns = spent_ns() - w->begin;

	if (w->warm_up)
		return;
	w->cost[op].ns += ns;
	w->cost[op].nr += nr;
}

/* An entry for each of the first @nr addresses of the chunk. */
static void set_entries(struct worker *w, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (window_set(w->client[i], w->addr[i], w->entry[i]))
			die("window_set", ENOMEM);
}

static void get_entries(struct worker *w, enum op op)
{
	unsigned int i;

	clock_on(w);
	for (i = 0; i < CHUNK; i++)
		w->entry[i] = window_get(w->client[i], w->addr[i]);
	clock_off(w, op, CHUNK);
}

static void lookups(struct worker *w, bool set)
{
	u64 n, found = 0;
	unsigned int i;

	for (n = 0; n < job.ops; n += CHUNK) {
		draw(w, nr_mine(w), set);
		get_entries(w, set ? OP_WINDOW_GET_SET : OP_WINDOW_GET_ANY);
		clock_on(w);
		for (i = 0; i < CHUNK; i++)
			found += swap_entry_where(job.space, w->entry[i]) == SWAP_FILL;
		clock_off(w, set ? OP_LOOKUP_SET : OP_LOOKUP_ANY, CHUNK);
	}
	if (found != n)
		die("an entry is lost", EINVAL);
}

/* In half of the clients: the others are to be freed in the order they were filled. */
static void churn(struct worker *w, bool set)
{
	unsigned int i, nr;
	u64 n;

	for (n = 0; n < job.ops; n += CHUNK) {
		draw(w, nr_mine(w) / 2, set);
		for (i = 0, nr = 0; i < CHUNK; i++) {
			vswp_entry_t e = window_get(w->client[i], w->addr[i]);

			/* Drawn twice. */
			if (!e.val)
				continue;
			window_clear(w->client[i], w->addr[i], 0);
			w->client[nr] = w->client[i];
			w->addr[nr] = w->addr[i];
			w->entry[nr++] = e;
		}
		clock_on(w);
		for (i = 0; i < nr; i++) {
			swap_free_range(job.space, w->entry[i], 1);
			w->entry[i] = take(job.space, 0);
		}
		clock_off(w, set ? OP_CHURN_SET : OP_CHURN_ANY, nr);
		set_entries(w, nr);
	}
}

/* The addresses of @n pages of a client from page @from on, in order. */
static void in_order(struct worker *w, struct windows *client, u64 from, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		w->client[i] = client;
		w->addr[i] = window_addr((from + i) / WINDOW_PAGES) +
			     (from + i) % WINDOW_PAGES * PAGE_SIZE_;
	}
}

static void fill(struct worker *w, struct windows *client, u64 from, unsigned int n)
{
	unsigned int i;

	in_order(w, client, from, n);
	clock_on(w);
	for (i = 0; i < n; i++)
		w->entry[i] = take(job.space, 0);
	clock_off(w, OP_ALLOC, n);
	clock_on(w);
	set_entries(w, n);
	clock_off(w, OP_WINDOW_SET, n);
}

/* As memory is unmapped: neighbours together. */
static void empty(struct worker *w, struct windows *client, u64 from, unsigned int n)
{
	unsigned int i, first;

	in_order(w, client, from, n);
	for (i = 0; i < n; i++) {
		w->entry[i] = window_get(client, w->addr[i]);
		window_clear(client, w->addr[i], 0);
	}
	clock_on(w);
	for (first = 0; first < n; first = i) {
		for (i = first + 1; i < n; i++)
			if (w->entry[i].val != w->entry[first].val + i - first)
				break;
		swap_free_range(job.space, w->entry[first], i - first);
	}
	if (client >= &job.clients[w->nr + nr_mine(w) / 2 * job.nr_threads])
		clock_off(w, OP_FREE, n);
}

static void each_chunk(struct worker *w, void (*what)(struct worker *w, struct windows *client,
						      u64 from, unsigned int n))
{
	u64 pages = job.windows * WINDOW_PAGES, at;
	unsigned int c;

	for (c = w->nr; c < job.nr_clients; c += job.nr_threads)
		for (at = 0; at < pages; at += CHUNK)
			what(w, &job.clients[c], at,
			     (unsigned int)(pages - at < CHUNK ? pages - at : CHUNK));
}

static const struct phase {
	void (*what)(struct worker *w, bool set);
	bool set;
} phases[] = {
	{ lookups, true },
	{ lookups, false },
	{ churn, true },
	{ churn, false },
};

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	pin_to(w->nr);
	each_chunk(w, fill);
	/* Twice: who asks what it takes in memory is between. */
	pthread_barrier_wait(&job.barrier);
	pthread_barrier_wait(&job.barrier);
	for (i = 0; i < ARRAY_SIZE(phases); i++) {
		w->warm_up = true;
		phases[i].what(w, phases[i].set);
		w->warm_up = false;
		phases[i].what(w, phases[i].set);
		pthread_barrier_wait(&job.barrier);
	}
	each_chunk(w, empty);
	return NULL;
}

/* ---- one size -------------------------------------------------------- */

static void step_memory(struct step *step, struct cost *cost)
{
	const u64 nr = 1UL << step->shift, ops = OPS / 4;
	u64 *words = mmap(NULL, nr * sizeof(*words), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	u64 i, rnd = 9, word = 0, begin;

	if (words == MAP_FAILED)
		die("memory", errno);
	/* As the pages of tables are; a kernel without huge pages says EINVAL. */
	(void)madvise(words, nr * sizeof(*words), MADV_NOHUGEPAGE);
	for (i = 0; i < nr; i += SWAP_CLUSTER_SLOTS)
		words[i] = 0;
	begin = spent_ns();
	for (i = 0; i < ops; i++)
		word = *(volatile u64 *)&words[(next_random(&rnd) + word) & (nr - 1)];
	cost->ns += spent_ns() - begin;
	cost->nr += ops;
	munmap(words, nr * sizeof(*words));
}

/* A space filled, used and emptied; figures of the last round stay. */
static void step_round(struct step *step)
{
	struct swap_stat st;
	u64 rss = resident();
	unsigned int i;
	int err;

	job.space = open_space(64 << 20);
	for (i = 0; i < job.nr_clients; i++)
		if (windows_init(&job.clients[i]))
			die("windows", ENOMEM);
	for (i = 0; i < job.nr_threads; i++) {
		err = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		if (err)
			die("thread", err);
	}
	pthread_barrier_wait(&job.barrier);
	swap_space_stat(job.space, &st);
	step->meta = (double)meta_bytes(&st) / (double)st.slots_used;
	step->rss = (double)(resident() - rss) / (double)st.slots_used;
	for (i = 0; i < 1 + ARRAY_SIZE(phases); i++)
		pthread_barrier_wait(&job.barrier);
	for (i = 0; i < job.nr_threads; i++)
		pthread_join(workers[i].thread, NULL);
	for (i = 0; i < job.nr_clients; i++)
		windows_destroy(&job.clients[i]);
	swap_space_destroy(job.space);
}

static void step_run(struct step *step)
{
	u64 slots = 1UL << step->shift, round, rounds = max_t(u64, OPS / slots, 1);
	struct cost memory = { 0 };
	unsigned int i, op;

	job.windows = max_t(u64, slots / WINDOW_PAGES / job.nr_clients, 1);
	job.ops = max_t(u64, OPS / rounds / job.nr_threads / CHUNK, 1) * CHUNK;
	for (i = 0; i < job.nr_threads; i++) {
		memset(workers[i].cost, 0, sizeof(workers[i].cost));
		workers[i].nr = i;
		workers[i].rnd = 88172645463325252ULL + i;
	}
	for (round = 0; round < rounds; round++) {
		step_memory(step, &memory);
		step_round(step);
	}
	for (op = 0; op < NR_OPS; op++) {
		struct cost sum = op == OP_MEMORY ? memory : (struct cost){ 0 };

		for (i = 0; i < job.nr_threads; i++) {
			sum.ns += workers[i].cost[op].ns;
			sum.nr += workers[i].cost[op].nr;
		}
		step->ns[op] = (double)sum.ns / (double)sum.nr;
	}
	step->done = true;
}

/* Memory there is for us, bytes. */
static u64 available(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	unsigned long kib = 0;
	char line[128];

	if (!f)
		die("/proc/meminfo", errno);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
			break;
	fclose(f);
	return (u64)kib << 10;
}

/* ---- results --------------------------------------------------------- */

static const struct step *first, *last;

static double ratio(unsigned int op)
{
	return last->ns[op] / first->ns[op];
}

static void print_row(const char *name, size_t at, int digits)
{
	const struct step *s;

	printf("%-42s", name);
	for (s = steps; s < steps + ARRAY_SIZE(shifts); s++)
		if (s->done)
			printf("%9.*f", digits, *(const double *)((const char *)s + at));
}

static void print_all(void)
{
	const struct step *s;
	unsigned int op;

	printf("%u threads, ns an operation; slots in use:", job.nr_threads);
	for (s = steps; s < steps + ARRAY_SIZE(shifts); s++)
		if (s->done)
			printf("     2^%u", s->shift);
	printf("   ratio\n");
	for (op = 0; op < NR_OPS; op++) {
		print_row(op_names[op], offsetof(struct step, ns) + op * sizeof(double), 1);
		printf("%8.2f", ratio(op));
		if (op < NR_ENGINE_OPS)
			printf("  <= %.1f %s", FLAT, ratio(op) <= FLAT ? "reached" : "MISSED");
		putchar('\n');
	}
	print_row("bytes a slot, the core's", offsetof(struct step, meta), 2);
	putchar('\n');
	print_row("bytes a slot, resident, with windows", offsetof(struct step, rss), 2);
	putchar('\n');
}

static void write_json(const char *path)
{
	FILE *f = fopen(path, "w");
	const struct step *s;
	unsigned int op;

	if (!f)
		die(path, errno);
	fprintf(f, "{\"bench\": \"scale\", \"threads\": %u, \"results\": [\n", job.nr_threads);
	for (op = 0; op < NR_OPS; op++) {
		for (s = steps; s < steps + ARRAY_SIZE(shifts); s++)
			if (s->done)
				fprintf(f,
					"  {\"name\": \"%s, 2^%u slots\", \"value\": %.6g, \"unit\": \"ns\"},\n",
					op_names[op], s->shift, s->ns[op]);
		fprintf(f,
			"  {\"name\": \"%s, 2^%u against 2^%u\", \"value\": %.6g, \"unit\": \"times\"",
			op_names[op], last->shift, first->shift, ratio(op));
		if (op < NR_ENGINE_OPS)
			fprintf(f, ", \"target\": \"<= %.1f\", \"pass\": %s", FLAT,
				ratio(op) <= FLAT ? "true" : "false");
		fprintf(f, "},\n");
	}
	fprintf(f,
		"  {\"name\": \"bytes a slot, the core's\", \"value\": %.6g, \"unit\": \"bytes\"},\n",
		last->meta);
	fprintf(f,
		"  {\"name\": \"bytes a slot, resident\", \"value\": %.6g, \"unit\": \"bytes\"}\n]}\n",
		last->rss);
	if (fclose(f))
		die(path, errno);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "from", required_argument, NULL, 'f' },
		{ "to", required_argument, NULL, 't' },
		{ "json", required_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned long from = 0, to = ~0UL;
	const char *json = NULL;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			from = strtoul(optarg, NULL, 10);
			break;
		case 't':
			to = strtoul(optarg, NULL, 10);
			break;
		case 'j':
			json = optarg;
			break;
		default:
			fprintf(stderr,
				"usage: bench-scale [--from SHIFT] [--to SHIFT] [--json FILE]\n");
			return 2;
		}
	}
	job.nr_threads = cpus > 0 ? (unsigned int)cpus : 1;
	job.nr_clients = max(2 * job.nr_threads, LEAST_CLIENTS);
	job.clients = must(calloc(job.nr_clients, sizeof(*job.clients)));
	workers = must(calloc(job.nr_threads, sizeof(*workers)));
	pthread_barrier_init(&job.barrier, NULL, job.nr_threads + 1);
	for (i = 0; i < ARRAY_SIZE(shifts); i++) {
		/* Table and window 8 bytes a slot each, clusters, the windows' maps; and some room. */
		u64 need = (17UL << shifts[i]) + (1UL << 30);

		steps[i].shift = shifts[i];
		if (shifts[i] < from || shifts[i] > to)
			continue;
		if (available() < need) {
			printf("2^%u slots left out: %llu MiB of memory needed, %llu there\n",
			       shifts[i], (unsigned long long)(need >> 20),
			       (unsigned long long)(available() >> 20));
			continue;
		}
		step_run(&steps[i]);
		first = first ? first : &steps[i];
		last = &steps[i];
	}
	if (!last) {
		fprintf(stderr, "bench-scale: nothing was run\n");
		return 1;
	}
	print_all();
	if (json)
		write_json(json);
	pthread_barrier_destroy(&job.barrier);
	free(workers);
	free(job.clients);
	return 0;
}
