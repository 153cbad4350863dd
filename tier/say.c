// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reasons, for the one line a user sees.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "say.h"

int tier_say(char *err, size_t len, int num, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, len, fmt, ap);
	va_end(ap);
	errno = num;
	return -1;
}

const char *tier_human(u64 bytes, char buf[32])
{
	static const char unit[] = "KMGTPE";
	unsigned int u = 0;
	u64 tenths = bytes / 1024 * 10 + bytes % 1024 * 10 / 1024;

	while (tenths >= 10240 && unit[u + 1]) {
		tenths /= 1024;
		u++;
	}
	if (tenths % 10)
		snprintf(buf, 32, "%llu.%llu %ciB", (unsigned long long)(tenths / 10),
			 (unsigned long long)(tenths % 10), unit[u]);
	else
		snprintf(buf, 32, "%llu %ciB", (unsigned long long)(tenths / 10), unit[u]);
	return buf;
}
