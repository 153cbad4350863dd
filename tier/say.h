/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reasons, for the one line a user sees.
 */
#ifndef TIER_SAY_H
#define TIER_SAY_H

#include <stddef.h>

#include "../core/swap.h"

/* As snprintf(); sets errno to @num, and is always -1. */
int tier_say(char *err, size_t len, int num, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* "1.5 GiB", in @buf. */
const char *tier_human(u64 bytes, char buf[32]);

#endif
