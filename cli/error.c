// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The one way an error is told.
 */
#include <stdarg.h>
#include <stdio.h>

#include "cli.h"

int cli_error(int status, const char *fmt, ...)
{
	char line[4096];
	va_list ap;
	char *p;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* Names come from outside: they shall neither break the line nor move the cursor. */
	for (p = line; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	}
	fprintf(stderr, "vswap: %s\n", line);
	return status;
}
