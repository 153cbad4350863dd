// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the programs that measure the core share.
 */
#include "common.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/err.h>

void die(const char *what, int err)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(err));
	exit(1);
}

void *must(void *p)
{
	if (!p)
		die("memory", ENOMEM);
	return p;
}

u64 spent_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

u64 resident(void)
{
	unsigned long size = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%lu %lu", &size, &rss) != 2)
		die("/proc/self/statm", errno);
	fclose(f);
	return (u64)rss * (u64)sysconf(_SC_PAGESIZE);
}

struct swap_space *open_space(u64 pool_limit)
{
	struct swap_space_conf conf = { .compressor = "lz4", .pool_limit = pool_limit };
	struct swap_space *space = swap_space_create(&conf);

	if (IS_ERR(space))
		die("swap space", (int)-PTR_ERR(space));
	return space;
}

/* Those the process may run on, whatever its threads were pinned to. */
static void all_cpus(cpu_set_t *set)
{
	if (sched_getaffinity(getpid(), sizeof(*set), set))
		die("sched_getaffinity", errno);
}

unsigned int nr_cpus(void)
{
	cpu_set_t set;

	all_cpus(&set);
	return (unsigned int)CPU_COUNT(&set);
}

void pin_to(unsigned int nth)
{
	cpu_set_t all, one;
	unsigned int cpu;

	all_cpus(&all);
	nth %= (unsigned int)CPU_COUNT(&all);
	for (cpu = 0; !CPU_ISSET(cpu, &all) || nth--; cpu++)
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		die("sched_setaffinity", errno);
}

u64 meta_bytes(const struct swap_stat *st)
{
	return st->table_bytes + st->cluster_bytes + st->tier_meta_bytes + st->pool_bytes -
	       st->pool_data_bytes;
}

void keep_folio(struct swap_folio *folio)
{
	(void)folio;
}

void outbox_open(struct outbox *o)
{
	struct swap_folio *folios = must(aligned_alloc(64, BATCH * sizeof(*folios)));
	unsigned int i;

	o->data = must(aligned_alloc(SWAP_PAGE_SIZE, BATCH * SWAP_PAGE_SIZE));
	for (i = 0; i < BATCH; i++)
		o->folio[i] = &folios[i];
}

void outbox_close(struct outbox *o)
{
	free(o->folio[0]);
	free(o->data);
}

void outbox_folio(struct outbox *o, unsigned int i, unsigned long flags)
{
	struct swap_folio *folio = o->folio[i];

	swap_folio_init(folio, o->data + i * SWAP_PAGE_SIZE, 0, NULL, keep_folio);
	folio->flags = flags;
	swap_folio_lock(folio);
}

void make_page(u64 *page, enum kind kind, u64 *rnd)
{
	static const char words[] = "the of and to in is that it was for on are with as his they "
				    "be at one have this from or had by hot but some what there ";
	const unsigned int nr = SWAP_PAGE_SIZE / sizeof(*page);
	u64 base = 0x7f0000000000 + (next_random(rnd) & 0xffffff000), r;
	unsigned int i, what = kind == KIND_NOISE ? 8 : (unsigned int)(next_random(rnd) % 8);
	char *text = (char *)page;

	if (kind == KIND_FILL) {
		r = next_random(rnd) % 4 ? 0 : next_random(rnd) & 0xff;
		for (i = 0; i < nr; i++)
			page[i] = r;
		return;
	}
	for (i = 0; i < nr; i++) {
		r = next_random(rnd);
		switch (what) {
		case 0:
		case 1:
			memcpy(text + i * 8, words + r % (sizeof(words) - 8), 8);
			break;
		case 2:
		case 3:
			page[i] = i % 4 == 0 ? base + (r & 0xffff0) :
				  i % 4 == 1 ? r & 0xff :
				  i % 4 == 2 ? 1 :
					       0;
			break;
		case 4:
			page[i] = r & 0xfffff;
			break;
		case 5:
			page[i] = 0x3ff0000000000000 | (r & 0xffffff);
			break;
		case 6:
			page[i] = !i ? base : r % 64 ? 0 : r;
			break;
		case 7:
			page[i] = r % 3 ? base : r >> 8;
			break;
		default:
			page[i] = r;
			break;
		}
	}
}
