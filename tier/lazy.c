// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Libraries that few runs need, loaded when one does.
 */
#include <dlfcn.h>

#include "lazy.h"

const char *lazy_load(const char *soname, const struct lazy_call *calls, size_t nr)
{
	void *lib;

	/* Loaded before: others may be calling. */
	if (*calls[nr - 1].call)
		return NULL;
	lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
	for (size_t i = 0; lib && i < nr; i++) {
		*calls[i].call = dlsym(lib, calls[i].name);
		if (!*calls[i].call)
			return dlerror();
	}
	return lib ? NULL : dlerror();
}
