// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the benches run: touches a program's own memory.  Patterns and what they
 * print: touch.c.
 *
 *	bench-touch PATTERN MIB OPS [RANDOM [THREADS]]
 */
#include <stdio.h>
#include <sys/mman.h>

#include "touch.h"

static void *get(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("bench-touch: mmap");
		return NULL;
	}
	return p;
}

static void put(void *mem, size_t bytes)
{
	munmap(mem, bytes);
}

int main(int argc, char **argv)
{
	static const struct touch_memory own = {
		.name = "bench-touch",
		.usage = "bench-touch",
		.get = get,
		.put = put,
	};

	return touch_main(argc, argv, &own);
}
