/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs that touch memory share: the patterns, and what is printed.
 */
#ifndef BENCH_TOUCH_H
#define BENCH_TOUCH_H

#include <stddef.h>

#define TOUCH_USAGE "PATTERN MIB OPS [RANDOM [THREADS]]"

/* The memory that is touched. */
struct touch_memory {
	const char *name;  /* of the program */
	const char *usage; /* what comes before the arguments all have */
	/* NULL, having said why, if it is not to be had.  It reads as zeros. */
	void *(*get)(size_t bytes);
	void (*put)(void *mem, size_t bytes);
	/* Prints what is to be known of it: members of a JSON object, each with a comma. */
	void (*tell)(void);
};

/* main(), without the arguments that only the caller knows. */
int touch_main(int argc, char **argv, const struct touch_memory *memory);

#endif
