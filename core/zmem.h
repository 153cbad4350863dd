/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Memory by the mapping: what the pool's segments are made of.
 *
 * The two homes differ in one thing the pool must know.  A process gets address
 * space that fills page by page as it is touched, and can empty part of it
 * again; the kernel's vmalloc space is all there or not there.  So the pool
 * says what it uses, and asks here what that costs.  Made in compat/zmem.c and
 * in kernel/zmem.c.
 */
#ifndef CORE_ZMEM_H
#define CORE_ZMEM_H

#include <linux/types.h>

/*
 * @len bytes (a multiple of the page size), page aligned and all zero, or NULL.
 * May sleep; in the kernel it starts no I/O, for it is called to make room.
 */
void *zmem_alloc(size_t len);
/* Give all of it back; @len as it was asked for.  NULL is nothing.  May sleep. */
void zmem_free(void *mem, size_t len);
/*
 * The bytes [from, to) are not needed for now; both are page aligned.  They read
 * as anything afterwards and may be written again.
 */
void zmem_trim(void *mem, size_t from, size_t to);
/* Does a mapping cost memory only where it was touched since zmem_alloc() or zmem_trim()? */
bool zmem_is_lazy(void);

#endif
