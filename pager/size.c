// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sizes and times as people write them, without floating point: a fraction is
 * kept as a count of billionths, and 128 bits hold every product of what is not
 * refused before.
 */
#include "size.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define FRACTION 1000000000u /* nine digits; more are cut off */

static const char units[] = "KMGT";

static const char too_large[] = "too large (the most is 8388607T)";
static const char not_a_size[] = "not a size (digits and K, M, G or T, as in 512M)";
static const char not_a_size_or_part[] =
	"not a size (digits and K, M, G or T, as in 512M, or a percentage, as in 50%)";

const char *size_parse(const char *text, uint64_t whole, uint64_t *bytes)
{
	const char *wrong = whole ? not_a_size_or_part : not_a_size;
	unsigned __int128 value = 0, unit = 1;
	uint32_t fraction = 0, place = FRACTION;
	const char *p = text, *found;

	if (*p < '0' || *p > '9')
		return wrong;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (*p - '0');
		if (value > UINT64_MAX)
			return "too large (T is the largest unit there is)";
	}
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return wrong;
		for (; *p >= '0' && *p <= '9'; p++) {
			place /= 10;
			fraction += place * (*p - '0');
		}
	}

	if (!strcmp(p, "%")) {
		if (!whole)
			return "a percentage means nothing here (give a size, as in 8G)";
		if (value > 100 || (value == 100 && fraction))
			return "more than the whole (100% is all memory)";
		value = (value * FRACTION + fraction) * whole / 100 / FRACTION;
	} else {
		found = *p ? strchr(units, *p & ~0x20) : NULL;
		if (found) {
			unit <<= 10 * (found - units + 1);
			p++;
			if (!strcasecmp(p, "B") || !strcasecmp(p, "iB"))
				p += strlen(p);
		} else if (!strcasecmp(p, "B")) {
			p++;
		}
		if (*p)
			return wrong;
		/* Before it is multiplied: what overflows 128 bits looks small. */
		if (value > INT64_MAX / unit)
			return too_large;
		value = (value * FRACTION + fraction) * unit / FRACTION;
	}

	if (value > INT64_MAX)
		return too_large;
	*bytes = value;
	return NULL;
}

/* Print @value / @unit with a decimal while it is short and not round. */
static void decimal(char *buf, uint64_t value, uint64_t unit, const char *suffix)
{
	const unsigned __int128 wide = value;
	uint64_t tenths = (wide * 10 + unit / 2) / unit;

	if (tenths < 1000 && tenths % 10)
		snprintf(buf, SIZE_TEXT, "%" PRIu64 ".%" PRIu64 "%s", tenths / 10, tenths % 10,
			 suffix);
	else
		snprintf(buf, SIZE_TEXT, "%" PRIu64 "%s", (uint64_t)((wide + unit / 2) / unit),
			 suffix);
}

const char *size_format(char buf[SIZE_TEXT], uint64_t bytes)
{
	char suffix[2] = "B";
	uint64_t unit = 1;
	const char *u;

	/* Step up a unit as soon as rounding would print 1024 of this one. */
	for (u = units; *u && bytes >= unit * 1024 - unit / 2; u++) {
		unit <<= 10;
		suffix[0] = *u;
	}
	decimal(buf, bytes, unit, suffix);
	return buf;
}

const char *time_format(char buf[SIZE_TEXT], uint64_t ns)
{
	if (ns < 1000)
		decimal(buf, ns, 1, " ns");
	else if (ns < 999500)
		decimal(buf, ns, 1000, " us");
	else if (ns < 999500000)
		decimal(buf, ns, 1000000, " ms");
	else
		decimal(buf, ns, 1000000000, " s");
	return buf;
}
