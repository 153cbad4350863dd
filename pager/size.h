/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sizes and times as people write them.
 */
#ifndef PAGER_SIZE_H
#define PAGER_SIZE_H

#include <stdint.h>

/* Room for any text size_format() or time_format() makes. */
#define SIZE_TEXT 32

/*
 * Read a size: digits, maybe a fraction, then K, M, G or T in either case
 * (powers of 1024), alone or followed by "B" or "iB".  No unit means bytes.
 * "N%" is that part of @whole bytes; @whole 0 means no percentage is taken
 * here.  Returns NULL with *@bytes set (rounded down, maybe to 0), or the reason
 * it is not a size, with advice, as it may stand in an error line after "SIZE: ".
 */
const char *size_parse(const char *text, uint64_t whole, uint64_t *bytes);

/* "160M", "1.2G", "512B": rounded to what a person wants to read.  Returns @buf. */
const char *size_format(char buf[SIZE_TEXT], uint64_t bytes);

/* "850 ns", "6.1 us", "3.2 ms", "12.3 s".  Returns @buf. */
const char *time_format(char buf[SIZE_TEXT], uint64_t ns);

#endif
