// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory: malloc for what is small, and whole pages from an arena that gives
 * each freed page back to the system.
 *
 * Swap tables are single pages.  malloc would spend nearly a second page on
 * the alignment of each, so pages have an arena of reserved addresses.  A few
 * free pages stay as they are; the others are dropped and only their numbers
 * kept.  Under the address sanitizer every page is an allocation of its own.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <linux/align.h>
#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/mempool.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

/* ---- failures on demand ---------------------------------------------- */

static atomic_long_t nr_allocs;
static atomic_long_t fail_from = ATOMIC_LONG_INIT(-1);
static atomic_long_t fail_to = ATOMIC_LONG_INIT(-1);

void compat_alloc_fail_after(long nr, long nr_fails)
{
	long from = nr < 0 ? -1 : atomic_long_read(&nr_allocs) + nr;

	atomic_long_set(&fail_to, nr_fails < 0 ? __LONG_MAX__ : from + nr_fails);
	atomic_long_set(&fail_from, from);
}

bool compat_alloc_fails(void)
{
	long from = atomic_long_read(&fail_from);
	long n = atomic_long_fetch_add(1, &nr_allocs);

	return unlikely(from >= 0 && n >= from && n < atomic_long_read(&fail_to));
}

long compat_alloc_count(void)
{
	return atomic_long_read(&nr_allocs);
}

/* ---- kmalloc --------------------------------------------------------- */

void *kmalloc(size_t size, gfp_t gfp)
{
	if (compat_alloc_fails())
		return NULL;
	return gfp & __GFP_ZERO ? calloc(1, size) : malloc(size);
}

void *kzalloc(size_t size, gfp_t gfp)
{
	return kmalloc(size, gfp | __GFP_ZERO);
}

void *kmalloc_array(size_t n, size_t size, gfp_t gfp)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return kmalloc(bytes, gfp);
}

void *kcalloc(size_t n, size_t size, gfp_t gfp)
{
	return kmalloc_array(n, size, gfp | __GFP_ZERO);
}

char *kstrdup(const char *s, gfp_t gfp)
{
	size_t len = strlen(s) + 1;
	char *p = kmalloc(len, gfp);

	return p ? memcpy(p, s, len) : NULL;
}

void kfree(const void *p)
{
	free((void *)p);
}

void *kvmalloc(size_t size, gfp_t gfp)
{
	return kmalloc(size, gfp);
}

void *kvzalloc(size_t size, gfp_t gfp)
{
	return kzalloc(size, gfp);
}

void *kvcalloc(size_t n, size_t size, gfp_t gfp)
{
	return kcalloc(n, size, gfp);
}

void kvfree(const void *p)
{
	kfree(p);
}

/* ---- pages ----------------------------------------------------------- */

#ifdef COMPAT_ASAN

static void *page_get(void)
{
	return aligned_alloc(PAGE_SIZE, PAGE_SIZE);
}

static void page_put(void *page)
{
	free(page);
}

#else

#define ARENA_PAGES (1UL << 24) /* 64 GiB of addresses: tables of 32 TiB of swap */
#define ARENA_LEAST (1UL << 18) /* ... or fewer, where addresses are few: ulimit -v, valgrind */
#define ARENA_STEP  1024UL	/* pages made usable at a time */
#define NR_WARM	    96
#define NR_DROP	    32 /* ... so many fewer when there are too many */

static DEFINE_SPINLOCK(page_lock);
static char *page_arena;
static unsigned long page_max = ARENA_PAGES;
static unsigned long page_next; /* never given out so far: from here on */
static unsigned long page_end;	/* usable up to here */
static u32 *page_cold;		/* numbers of dropped free pages */
static unsigned long nr_cold;
static u32 page_warm[NR_WARM]; /* numbers of free pages still in memory */
static unsigned int nr_warm;

/* Addresses alone: not usable, so not counted against anybody's limit on memory. */
static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Make the next step of the arena, and the room for its numbers, usable. */
static bool arena_grow(void)
{
	if (!page_cold)
		page_cold = reserve(ARENA_PAGES * sizeof(*page_cold));
	if (!page_arena) {
		while (!(page_arena = reserve(page_max * PAGE_SIZE)) && page_max > ARENA_LEAST)
			page_max /= 2;
		/* Huge pages would make memory of what was given back. */
		if (page_arena)
			madvise(page_arena, page_max * PAGE_SIZE, MADV_NOHUGEPAGE);
	}
	if (!page_cold || !page_arena || page_end == page_max)
		return false;
	if (mprotect(page_cold + page_end, ARENA_STEP * sizeof(*page_cold),
		     PROT_READ | PROT_WRITE) ||
	    mprotect(page_arena + page_end * PAGE_SIZE, ARENA_STEP * PAGE_SIZE,
		     PROT_READ | PROT_WRITE))
		return false;
	page_end += ARENA_STEP;
	return true;
}

static void *page_get(void)
{
	void *page = NULL;

	spin_lock(&page_lock);
	if (nr_warm)
		page = page_arena + page_warm[--nr_warm] * PAGE_SIZE;
	else if (nr_cold)
		page = page_arena + page_cold[--nr_cold] * PAGE_SIZE;
	else if (page_next < page_end || arena_grow())
		page = page_arena + page_next++ * PAGE_SIZE;
	spin_unlock(&page_lock);
	return page;
}

static int page_compare(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

/* Give free pages back, neighbours together: each call interrupts the other CPUs. */
static void pages_drop(u32 *drop)
{
	unsigned int i, n;

	qsort(drop, NR_DROP, sizeof(*drop), page_compare);
	for (i = 0; i < NR_DROP; i += n) {
		for (n = 1; i + n < NR_DROP && drop[i + n] == drop[i] + n; n++)
			;
		/* A refusal costs memory, nothing else. */
		madvise(page_arena + drop[i] * PAGE_SIZE, n * PAGE_SIZE, MADV_DONTNEED);
	}
}

static void page_put(void *page)
{
	u32 drop[NR_DROP];
	bool full;

	spin_lock(&page_lock);
	full = nr_warm == NR_WARM;
	if (full) {
		nr_warm -= NR_DROP;
		memcpy(drop, page_warm, sizeof(drop));
		memmove(page_warm, page_warm + NR_DROP, nr_warm * sizeof(page_warm[0]));
	}
	page_warm[nr_warm++] = (u32)((unsigned long)((char *)page - page_arena) / PAGE_SIZE);
	spin_unlock(&page_lock);
	if (!full)
		return;
	/* On no list meanwhile, so still ours alone. */
	pages_drop(drop);
	spin_lock(&page_lock);
	memcpy(page_cold + nr_cold, drop, sizeof(drop));
	nr_cold += NR_DROP;
	spin_unlock(&page_lock);
}

#endif

unsigned long __get_free_page(gfp_t gfp)
{
	void *page = compat_alloc_fails() ? NULL : page_get();

	if (page && gfp & __GFP_ZERO)
		memset(page, 0, PAGE_SIZE);
	return (unsigned long)page;
}

void free_page(unsigned long addr)
{
	if (addr)
		page_put((void *)addr);
}

/* ---- caches ---------------------------------------------------------- */

struct kmem_cache {
	size_t size, align;
};

struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align,
				     unsigned int flags, void (*ctor)(void *))
{
	struct kmem_cache *cache = kmalloc(sizeof(*cache), GFP_KERNEL);

	(void)name;
	BUG_ON(ctor);
	if (cache) {
		cache->align = flags & SLAB_HWCACHE_ALIGN && align < 64 ? 64 : align;
		cache->size = ALIGN(size, cache->align ? cache->align : 1);
	}
	return cache;
}

void kmem_cache_destroy(struct kmem_cache *cache)
{
	kfree(cache);
}

void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	if (cache->size == PAGE_SIZE && cache->align == PAGE_SIZE)
		return (void *)__get_free_page(gfp);
	if (cache->align <= 16)
		return kmalloc(cache->size, gfp);
	if (compat_alloc_fails())
		return NULL;
	return aligned_alloc(cache->align, cache->size);
}

void kmem_cache_free(struct kmem_cache *cache, void *p)
{
	if (cache->size == PAGE_SIZE && cache->align == PAGE_SIZE)
		free_page((unsigned long)p);
	else
		kfree(p);
}

/* ---- mempools -------------------------------------------------------- */

struct mempool_s {
	spinlock_t lock;
	int nr, min_nr;
	mempool_alloc_t *alloc;
	mempool_free_t *free;
	void *data;
	void *element[];
};

void mempool_destroy(mempool_t *pool)
{
	if (!pool)
		return;
	while (pool->nr)
		pool->free(pool->element[--pool->nr], pool->data);
	kfree(pool);
}

mempool_t *mempool_create(int min_nr, mempool_alloc_t *alloc, mempool_free_t *free, void *data)
{
	mempool_t *pool = kmalloc(sizeof(*pool) + (size_t)min_nr * sizeof(void *), GFP_KERNEL);

	if (!pool)
		return NULL;
	*pool = (mempool_t){ .min_nr = min_nr, .alloc = alloc, .free = free, .data = data };
	spin_lock_init(&pool->lock);
	while (pool->nr < min_nr) {
		void *element = alloc(GFP_KERNEL, data);

		if (!element) {
			mempool_destroy(pool);
			return NULL;
		}
		pool->element[pool->nr++] = element;
	}
	return pool;
}

static void *slab_alloc(gfp_t gfp, void *cache)
{
	return kmem_cache_alloc(cache, gfp);
}

static void slab_free(void *element, void *cache)
{
	kmem_cache_free(cache, element);
}

mempool_t *mempool_create_slab_pool(int min_nr, struct kmem_cache *cache)
{
	return mempool_create(min_nr, slab_alloc, slab_free, cache);
}

static void *sized_alloc(gfp_t gfp, void *size)
{
	return kmalloc((size_t)size, gfp);
}

static void sized_free(void *element, void *size)
{
	(void)size;
	kfree(element);
}

mempool_t *mempool_create_kmalloc_pool(int min_nr, size_t size)
{
	return mempool_create(min_nr, sized_alloc, sized_free, (void *)size);
}

void *mempool_alloc(mempool_t *pool, gfp_t gfp)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	for (;;) {
		void *element = pool->alloc(gfp, pool->data);

		if (element)
			return element;
		spin_lock(&pool->lock);
		if (pool->nr)
			element = pool->element[--pool->nr];
		spin_unlock(&pool->lock);
		if (element || !(gfp & __GFP_DIRECT_RECLAIM))
			return element;
		nanosleep(&ms, NULL);
	}
}

void mempool_free(void *element, mempool_t *pool)
{
	if (!element)
		return;
	spin_lock(&pool->lock);
	if (pool->nr < pool->min_nr) {
		pool->element[pool->nr++] = element;
		element = NULL;
	}
	spin_unlock(&pool->lock);
	if (element)
		pool->free(element, pool->data);
}
