/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs that measure the core share: a space, folios for batches,
 * pages as programs have them, time, memory.  Whatever fails ends the program.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>

#include "core/swap.h"

#define BATCH 64

void die(const char *what, int err) __attribute__((__noreturn__));
void *must(void *p);

/*
 * The thread's own time: what else the machine does takes nothing away, while
 * waiting for another thread does, for the core waits by spinning.
 */
u64 spent_ns(void);
/* Memory of this process, bytes. */
u64 resident(void);
unsigned int nr_cpus(void);
/* This thread, to one of the CPUs there are: where they are fewer, some share one. */
void pin_to(unsigned int nth);

struct swap_space *open_space(u64 pool_limit);
u64 meta_bytes(const struct swap_stat *st);

/* What is measured calls these two: no call more. */
static inline u64 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline vswp_entry_t take(struct swap_space *space, unsigned int order)
{
	vswp_entry_t e = swap_alloc(space, NULL, order);

	if (!e.val)
		die("swap_alloc", ENOMEM);
	return e;
}

/* Folios of one page each, used again and again: a batch on its way. */
struct outbox {
	struct swap_folio *folio[BATCH];
	char *data;
};

void outbox_open(struct outbox *o);
void outbox_close(struct outbox *o);
/* What becomes of a folio of an outbox when nobody has it: nothing. */
void keep_folio(struct swap_folio *folio);
/* Folio @i anew, over its own page, locked. */
void outbox_folio(struct outbox *o, unsigned int i, unsigned long flags);

enum kind {
	KIND_MIX,
	KIND_FILL,
	KIND_NOISE
};

/*
 * A page as programs have them.  The mix: of eight pages two of text, two of
 * small structs with pointers, one of numbers, one of floating point with noise
 * in the low bits, one nearly empty, one of a third noise.
 */
void make_page(u64 *page, enum kind kind, u64 *rnd);

#endif
