/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Strings, with no libc. */
#ifndef AGENT_TEXT_H
#define AGENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* agent.c's: the compiler may call it whatever it is told. */
void *memcpy(void *dst, const void *src, size_t n);

static inline size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static inline bool starts(const char *s, const char *with)
{
	while (*with)
		if (*s++ != *with++)
			return false;
	return true;
}

/* Without its NUL.  Returns its length. */
static inline size_t put_text(char *to, const char *text)
{
	memcpy(to, text, length(text));
	return length(text);
}

#endif
