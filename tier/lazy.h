/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Libraries that few runs need, loaded when one does.
 *
 * Linking to libnbd and what it needs in turn costs every start some
 * milliseconds and 5 MiB, more than a page cache of a small budget.  So its
 * calls are pointers in a table, found by name.
 */
#ifndef TIER_LAZY_H
#define TIER_LAZY_H

#include <stddef.h>

struct lazy_call {
	const char *name;
	void **call; /* to be set */
};

/*
 * Load @soname and set @nr calls.  It stays loaded.  May be called any number of
 * times, from one thread at a time.  Returns NULL, or why not.
 */
const char *lazy_load(const char *soname, const struct lazy_call *calls, size_t nr);

#endif
