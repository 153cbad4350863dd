// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Touches pages of some memory in a pattern and prints how fast it went, as JSON.
 *
 * RANDOM of each 32 words of a page are: with 32 it does not compress, with 15 LZ4
 * makes a half of it, with 8 (the default) a third, with 6 a quarter, with 1 a
 * twentieth.  0: all of it is zeros.  Or it is a file, whose pages they are, but for the
 * last two words.
 *
 * PATTERN: fill (write the region OPS times, from one end to the other), rfill (the same
 * in random order), seq, seqw, stride (every 16th page, then the
 * ones beside them), uniform, zipf (0.99), rw (uniform, half of them writes), phase
 * (uniform over a quarter of the region, another one after as many ops as there are
 * pages).  Ops are pages.  The latencies are the program's own, of the first word it
 * touches, a page that was there included.
 * Threads share the region and the ops; they only read.
 *
 * Or a call, whose ops and latencies are: fork (of children that leave at once), unmap (a
 * MiB mapped, written and unmapped), drop (a MiB of the region given to MADV_DONTNEED and
 * written anew).
 *
 * All words of a page add up to what its number makes; each touch adds them up.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "touch.h"

#define PAGE	   4096UL
#define WORDS	   (PAGE / 8)
#define STRIDE	   16UL
#define BUCKETS	   512
#define CALL_BYTES (1UL << 20)

static uint64_t hist[BUCKETS], longest;
static __thread uint64_t seed = 88172645463325252ULL;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Eight buckets to a power of two, and one for each of the first sixteen. */
static unsigned int bucket(uint64_t ns)
{
	unsigned int log = ns < 16 ? 0 : 60 - __builtin_clzll(ns);

	return log * 8 + (ns >> log);
}

/* The least that is in it. */
static uint64_t bucket_ns(unsigned int i)
{
	return i < 16 ? i : (8ULL + i % 8) << (i / 8 - 1);
}

/* As if what is in a bucket were spread evenly: its ends are an eighth apart. */
static uint64_t quantile(uint64_t ops, double q)
{
	double left = ops * q;

	for (unsigned int i = 0; i < BUCKETS; i++) {
		if (hist[i] && hist[i] >= left) {
			double width = bucket_ns(i + 1) - bucket_ns(i);
			uint64_t ns = bucket_ns(i) + width * left / hist[i];

			return ns < longest ? ns : longest;
		}
		left -= hist[i];
	}
	return 0;
}

/* Gray et al., "Quickly generating billion-record synthetic databases". */
static double zetan, alpha, eta;

static void zipf_init(uint64_t n)
{
	double zeta2 = 1 + pow(0.5, 0.99);

	for (uint64_t i = 1; i <= n; i++)
		zetan += 1 / pow(i, 0.99);
	alpha = 1 / (1 - 0.99);
	eta = (1 - pow(2.0 / n, 1 - 0.99)) / (1 - zeta2 / zetan);
}

static uint64_t zipf(uint64_t n)
{
	double u = (next() >> 11) / 9007199254740992.0, uz = u * zetan;
	uint64_t rank = uz < 1			? 0 :
			uz < 1 + pow(0.5, 0.99) ? 1 :
						  n * pow(eta * u - eta + 1, alpha);

	/* Hot pages lie scattered, as they do in programs. */
	return rank * 2654435761ULL % n;
}

static const char *pattern;
static char *mem;
static uint64_t nr, random_words = 8;
static uint64_t image_pages; /* of a file that the pages are made of, or 0 */
static int image;

static uint64_t *page(uint64_t p)
{
	return (uint64_t *)(mem + p * PAGE);
}

static uint64_t sum_of(const uint64_t *word)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < WORDS; i++)
		sum += word[i];
	return sum;
}

static uint64_t sum_wanted(uint64_t p)
{
	return random_words ? (p + 1) * 0x9e3779b97f4a7c15ULL : 0;
}

/* The last word is the page's number, the one before makes the sum right. */
static void fill_page(uint64_t p)
{
	uint64_t *word = page(p);

	if (!random_words) {
		memset(word, 0, PAGE);
		return;
	}
	for (unsigned int i = 0; i < WORDS && !image_pages; i++)
		word[i] = i % 32 < random_words ? next() : p;
	if (image_pages && pread(image, word, PAGE, p % image_pages * PAGE) != PAGE) {
		perror("touch: RANDOM");
		exit(1);
	}
	word[WORDS - 1] = p;
	word[WORDS - 2] += sum_wanted(p) - sum_of(word);
}

static bool fills(void)
{
	return !strcmp(pattern, "fill") || !strcmp(pattern, "rfill");
}

static void fill(void)
{
	bool in_order = strcmp(pattern, "rfill"), timed = fills();

	for (uint64_t i = 0; i < nr; i++) {
		/* A prime, and so each page once. */
		uint64_t p = in_order ? i : i * 2654435761ULL % nr;
		uint64_t t = now_ns();

		/* What faults is the first word; the rest is making it up. */
		*(volatile uint64_t *)page(p) = 0;
		t = now_ns() - t;
		fill_page(p);
		if (!timed)
			continue;
		hist[bucket(t)]++;
		longest = t > longest ? t : longest;
	}
}

struct toucher {
	pthread_t thread;
	uint64_t first, ops; /* of all of them */
	uint64_t done, seed, wrong, longest;
	uint64_t hist[BUCKETS];
};

static uint64_t choose(uint64_t i)
{
	uint64_t quarter = nr / 4, rows = nr / STRIDE;

	if (!strncmp(pattern, "seq", 3))
		return i % nr;
	if (!strcmp(pattern, "stride"))
		return i % rows * STRIDE + i / rows % STRIDE;
	if (!strcmp(pattern, "phase"))
		return i / nr % 4 * quarter + next() % quarter;
	return !strcmp(pattern, "zipf") ? zipf(nr) : next() % nr;
}

static void *touch(void *arg)
{
	struct toucher *t = arg;

	seed = t->seed;
	for (uint64_t i = t->first; i < t->first + t->ops; i++) {
		int write = !strcmp(pattern, "seqw") || (!strcmp(pattern, "rw") && next() & 1);
		uint64_t p = choose(i), begin, took;
		volatile uint64_t *word = page(p);

		begin = now_ns();
		if (!write)
			(void)word[WORDS / 2];
		else if (!random_words)
			word[WORDS / 2] = 0;
		else
			word[WORDS / 2]++;
		took = now_ns() - begin;
		if (write && random_words)
			word[WORDS - 2]--;
		t->wrong += sum_of(page(p)) != sum_wanted(p);
		t->hist[bucket(took)]++;
		t->longest = took > t->longest ? took : t->longest;
		t->done++;
	}
	return NULL;
}

/* Returns how many pages were wrong, and in *ops how many were touched. */
static uint64_t touch_all(uint64_t *ops, unsigned int threads)
{
	struct toucher *t = calloc(threads, sizeof(*t));
	uint64_t wrong = 0, done = 0;

	if (!t) {
		perror("touch");
		exit(1);
	}
	for (unsigned int i = 0; i < threads; i++) {
		t[i].first = *ops / threads * i;
		t[i].ops = *ops / threads;
		t[i].seed = seed + i * 0x9e3779b97f4a7c15ULL;
		/* The last one is this thread. */
		if (i == threads - 1)
			touch(&t[i]);
		else if (pthread_create(&t[i].thread, NULL, touch, &t[i])) {
			fprintf(stderr, "touch: no more threads\n");
			exit(1);
		}
	}
	for (unsigned int i = 0; i < threads; i++) {
		if (i < threads - 1)
			pthread_join(t[i].thread, NULL);
		wrong += t[i].wrong;
		done += t[i].done;
		longest = t[i].longest > longest ? t[i].longest : longest;
		for (unsigned int b = 0; b < BUCKETS; b++)
			hist[b] += t[i].hist[b];
	}
	free(t);
	*ops = done;
	return wrong;
}

static int write_pages(char *at)
{
	for (uint64_t i = 0; i < CALL_BYTES; i += PAGE)
		at[i] = 1;
	return 0;
}

static int do_fork(uint64_t *ns)
{
	uint64_t start = now_ns();
	pid_t child = fork();
	int status;

	if (!child)
		_exit(0);
	*ns = now_ns() - start;
	return child < 0 || waitpid(child, &status, 0) != child || status;
}

static int do_unmap(uint64_t *ns)
{
	uint64_t start = now_ns();
	char *p =
		mmap(NULL, CALL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret = p == MAP_FAILED || write_pages(p) || munmap(p, CALL_BYTES);

	*ns = now_ns() - start;
	return ret;
}

static int do_drop(uint64_t *ns)
{
	uint64_t start = now_ns();
	int ret = madvise(mem, CALL_BYTES, MADV_DONTNEED) || write_pages(mem);

	*ns = now_ns() - start;
	return ret;
}

static const struct call {
	const char *name;
	int (*once)(uint64_t *ns);
} calls[] = { { "fork", do_fork }, { "unmap", do_unmap }, { "drop", do_drop } };

static const struct call *call_named(const char *name)
{
	for (unsigned int i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (!strcmp(name, calls[i].name))
			return &calls[i];
	return NULL;
}

/* Returns how many did not go well. */
static uint64_t call(const struct call *c, uint64_t times)
{
	uint64_t bad = 0, ns = 0;

	while (times--) {
		bad += c->once(&ns) != 0;
		hist[bucket(ns)]++;
		longest = ns > longest ? ns : longest;
	}
	return bad;
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void print(uint64_t ops, uint64_t ns, uint64_t fill_ns, uint64_t free_ns)
{
	const char *comma = "";
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("\"ops_per_s\": %.0f, \"p50_ns\": %lu, \"p99_ns\": %lu, \"p999_ns\": %lu, "
	       "\"max_ns\": %lu, \"ops\": %lu, \"fill_per_s\": %.0f, \"free_ns\": %lu, "
	       "\"user_s\": %.3f, \"sys_s\": %.3f, \"hist\": [",
	       ops * 1e9 / ns, quantile(ops, 0.5), quantile(ops, 0.99), quantile(ops, 0.999),
	       longest, ops, nr * 1e9 / fill_ns, free_ns, seconds(usage.ru_utime),
	       seconds(usage.ru_stime));
	for (unsigned int i = 0; i < BUCKETS; i++) {
		if (!hist[i])
			continue;
		printf("%s[%lu, %lu]", comma, bucket_ns(i), hist[i]);
		comma = ", ";
	}
	puts("]}");
}

static int known(const char *name)
{
	static const char *const names[] = { "fill",	"rfill", "seq", "seqw", "stride",
					     "uniform", "zipf",	 "rw",	"phase" };

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return 1;
	return call_named(name) != NULL;
}

/* Returns 0, or -1 with the reason in errno. */
static int take_image(const char *path)
{
	struct stat st;

	image = open(path, O_RDONLY | O_CLOEXEC);
	if (image < 0 || fstat(image, &st))
		return -1;
	image_pages = st.st_size / PAGE;
	if (!image_pages)
		errno = EINVAL;
	return image_pages ? 0 : -1;
}

int touch_main(int argc, char **argv, const struct touch_memory *memory)
{
	uint64_t ops, start, fill_ns, ns, free_ns, wrong = 0, sweeps = 1;
	unsigned int threads = 1;

	if (argc < 4 || argc > 6 || !known(argv[1])) {
		fprintf(stderr, "usage: %s " TOUCH_USAGE "\n", memory->usage);
		return 2;
	}
	pattern = argv[1];
	nr = strtoull(argv[2], NULL, 10) << 20 >> 12;
	ops = strtoull(argv[3], NULL, 10);
	if (argc > 4 && strchr(argv[4], '/')) {
		if (take_image(argv[4])) {
			perror(argv[4]);
			return 1;
		}
	} else if (argc > 4) {
		random_words = strtoull(argv[4], NULL, 10);
	}
	if (argc > 5)
		threads = strtoul(argv[5], NULL, 10);
	if (threads > 1 && (!strcmp(pattern, "rw") || !strcmp(pattern, "seqw"))) {
		fprintf(stderr, "%s: %s: one thread only\n", memory->name, pattern);
		return 2;
	}
	if (fills())
		sweeps = ops;
	if (!nr || !threads || !sweeps) {
		fprintf(stderr, "%s: no memory, no ops or no threads wanted\n", memory->name);
		return 2;
	}
	mem = memory->get(nr * PAGE);
	if (!mem)
		return 1;
	if (!strcmp(pattern, "zipf"))
		zipf_init(nr);
	start = now_ns();
	for (uint64_t i = 0; i < sweeps; i++)
		fill();
	fill_ns = (now_ns() - start) / sweeps;
	start = now_ns();
	if (call_named(pattern)) {
		if (call(call_named(pattern), ops)) {
			fprintf(stderr, "%s: %s failed\n", memory->name, pattern);
			return 1;
		}
	} else if (!fills()) {
		wrong = touch_all(&ops, threads);
	}
	ns = now_ns() - start;
	if (fills()) {
		ops = nr * sweeps;
		ns = fill_ns * sweeps;
	}
	printf("{");
	if (memory->tell)
		memory->tell();
	start = now_ns();
	memory->put(mem, nr * PAGE);
	free_ns = now_ns() - start;
	print(ops, ns, fill_ns, free_ns);
	if (wrong)
		fprintf(stderr, "%s: %lu pages with WRONG BYTES\n", memory->name, wrong);
	return wrong != 0;
}
