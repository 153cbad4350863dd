/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Allocations that must not fail for want of memory: so many elements are put
 * by, used when the allocator says no, and filled up again by frees.
 */
#ifndef COMPAT_LINUX_MEMPOOL_H
#define COMPAT_LINUX_MEMPOOL_H

#include <linux/slab.h>
#include <linux/types.h>

typedef struct mempool_s mempool_t;

typedef void *(mempool_alloc_t)(gfp_t gfp, void *data);
typedef void(mempool_free_t)(void *element, void *data);

mempool_t *mempool_create(int min_nr, mempool_alloc_t *alloc, mempool_free_t *free, void *data);
mempool_t *mempool_create_slab_pool(int min_nr, struct kmem_cache *cache);
mempool_t *mempool_create_kmalloc_pool(int min_nr, size_t size);
void mempool_destroy(mempool_t *pool);
/* With __GFP_DIRECT_RECLAIM it waits for an element rather than fail. */
void *mempool_alloc(mempool_t *pool, gfp_t gfp);
void mempool_free(void *element, mempool_t *pool);

#endif
