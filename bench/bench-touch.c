// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What bench-fault runs: touches pages of a region in a pattern and prints how
 * fast it went, as JSON.
 *
 *	bench-touch PATTERN MIB OPS [RANDOM [THREADS]]
 *
 * RANDOM of each 32 words of a page are: with 8 (the default) a page compresses to
 * about a third, with 1 to a twentieth.
 *
 * PATTERN: fill (write the region once), seq, uniform, zipf (0.99), rw (uniform,
 * half of them writes), seqw, fork.  Ops are pages; their latencies are the program's
 * own, a page that was there included.  Of fork they are children that leave at once,
 * and the latencies those of fork().  Threads share the region and the ops.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define BUCKETS 512

static uint64_t hist[BUCKETS];
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

/* Eight buckets to a power of two. */
static unsigned int bucket(uint64_t ns)
{
	unsigned int log = ns < 8 ? 0 : 60 - __builtin_clzll(ns);

	return log * 8 + (ns < 8 ? ns : (ns >> log) & 7);
}

static uint64_t quantile(uint64_t ops, double q)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < BUCKETS; i++) {
		sum += hist[i];
		if (sum >= ops * q)
			return i < 8 ? i : (8ULL + i % 8) << (i / 8);
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

/* Returns how many did not go well. */
static uint64_t forks(uint64_t nr)
{
	uint64_t bad = 0;

	while (nr--) {
		uint64_t t = now_ns();
		pid_t child = fork();
		int status;

		if (!child)
			_exit(0);
		hist[bucket(now_ns() - t)]++;
		bad += child < 0 || waitpid(child, &status, 0) != child || status;
	}
	return bad;
}

static const char *pattern;
static char *mem;
static uint64_t nr;

struct toucher {
	pthread_t thread;
	uint64_t first, ops; /* of all of them */
	uint64_t seed, wrong;
	uint64_t hist[BUCKETS];
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	seed = t->seed;
	for (uint64_t i = t->first; i < t->first + t->ops; i++) {
		uint64_t begin = now_ns(), p, *word;
		int write = !strcmp(pattern, "seqw") || (!strcmp(pattern, "rw") && next() & 1);

		if (!strncmp(pattern, "seq", 3))
			p = i % nr;
		else
			p = !strcmp(pattern, "zipf") ? zipf(nr) : next() % nr;
		word = (uint64_t *)(mem + p * PAGE);
		if (write)
			word[256]++;
		t->wrong += word[511] != p;
		t->hist[bucket(now_ns() - begin)]++;
	}
	return NULL;
}

/* Returns how many pages were wrong. */
static uint64_t touch_all(uint64_t ops, unsigned int threads)
{
	struct toucher *t = calloc(threads, sizeof(*t));
	uint64_t wrong = 0;

	if (!t) {
		perror("bench-touch");
		exit(1);
	}
	for (unsigned int i = 0; i < threads; i++) {
		t[i].first = ops / threads * i;
		t[i].ops = ops / threads;
		t[i].seed = seed + i * 0x9e3779b97f4a7c15ULL;
		/* The last one is this thread. */
		if (i == threads - 1)
			touch(&t[i]);
		else if (pthread_create(&t[i].thread, NULL, touch, &t[i])) {
			fprintf(stderr, "bench-touch: no more threads\n");
			exit(1);
		}
	}
	for (unsigned int i = 0; i < threads; i++) {
		if (i < threads - 1)
			pthread_join(t[i].thread, NULL);
		wrong += t[i].wrong;
		for (unsigned int b = 0; b < BUCKETS; b++)
			hist[b] += t[i].hist[b];
	}
	free(t);
	return wrong;
}

int main(int argc, char **argv)
{
	uint64_t ops, start, random = 8, wrong = 0;
	unsigned int threads = 1;

	if (argc < 4 || argc > 6) {
		fprintf(stderr, "usage: bench-touch PATTERN MIB OPS [RANDOM [THREADS]]\n");
		return 2;
	}
	pattern = argv[1];
	nr = strtoull(argv[2], NULL, 10) << 20 >> 12;
	ops = strtoull(argv[3], NULL, 10);
	if (argc > 4)
		random = strtoull(argv[4], NULL, 10);
	if (argc > 5)
		threads = strtoul(argv[5], NULL, 10);
	mem = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!nr || !threads || mem == MAP_FAILED) {
		perror("bench-touch: mmap");
		return 1;
	}
	if (!strcmp(pattern, "zipf"))
		zipf_init(nr);
	start = now_ns();
	for (uint64_t p = 0; p < nr; p++) {
		uint64_t *word = (uint64_t *)(mem + p * PAGE);

		for (unsigned int i = 0; i < PAGE / 8; i++)
			word[i] = i % 32 < random ? next() : p;
		word[511] = p;
	}
	if (!strcmp(pattern, "fill")) {
		printf("{\"ops_per_s\": %.0f, \"p50_ns\": 0, \"p99_ns\": 0, \"p999_ns\": 0}\n",
		       nr * 1e9 / (now_ns() - start));
		return 0;
	}
	start = now_ns();
	if (!strcmp(pattern, "fork")) {
		if (forks(ops)) {
			fprintf(stderr, "bench-touch: fork failed\n");
			return 1;
		}
	} else {
		wrong = touch_all(ops, threads);
	}
	printf("{\"ops_per_s\": %.0f, \"p50_ns\": %lu, \"p99_ns\": %lu, \"p999_ns\": %lu}\n",
	       ops * 1e9 / (now_ns() - start), quantile(ops, 0.5), quantile(ops, 0.99),
	       quantile(ops, 0.999));
	if (wrong)
		fprintf(stderr, "bench-touch: %lu pages with WRONG BYTES\n", wrong);
	return wrong != 0;
}
