// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Windows live in one reserved arena, so that giving one back is one madvise()
 * and a word of the map can carry the window's number of entries in the low
 * bits of its address.
 */
#include "window.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define ADDR_BITS     47
#define MAP_WORDS     (1UL << (ADDR_BITS - WINDOW_SHIFT))
#define BLOCK_SHIFT   30 /* a page of the map */
#define BLOCKS	      (1UL << (ADDR_BITS - BLOCK_SHIFT))
#define TOP_SHIFT     38
#define WINDOW_BYTES  (WINDOW_PAGES * sizeof(uint64_t))
#define COUNT_MASK    (WINDOW_BYTES - 1)
#define ARENA_WINDOWS (1UL << 22) /* 8 TiB of swapped out memory */

static struct {
	pthread_mutex_t lock;
	char *base;
	uint32_t *free; /* numbers of windows given back */
	uint64_t nr_free, top;
} arena = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int arena_init(void)
{
	int ret = 0;

	pthread_mutex_lock(&arena.lock);
	if (!arena.base) {
		arena.free = reserve(ARENA_WINDOWS * sizeof(*arena.free));
		arena.base = arena.free ? reserve(ARENA_WINDOWS * WINDOW_BYTES) : NULL;
		if (!arena.base)
			ret = -ENOMEM;
	}
	pthread_mutex_unlock(&arena.lock);
	return ret;
}

static uint64_t *window_alloc(void)
{
	uint64_t *window = NULL;

	pthread_mutex_lock(&arena.lock);
	if (arena.nr_free)
		window = (uint64_t *)(arena.base + arena.free[--arena.nr_free] * WINDOW_BYTES);
	else if (arena.top < ARENA_WINDOWS)
		window = (uint64_t *)(arena.base + arena.top++ * WINDOW_BYTES);
	pthread_mutex_unlock(&arena.lock);
	return window;
}

static void window_free(uint64_t *window)
{
	/* Zero when used again, and no memory until then. */
	if (madvise(window, WINDOW_BYTES, MADV_DONTNEED))
		memset(window, 0, WINDOW_BYTES);
	pthread_mutex_lock(&arena.lock);
	arena.free[arena.nr_free++] = ((char *)window - arena.base) / WINDOW_BYTES;
	pthread_mutex_unlock(&arena.lock);
}

uint64_t windows_bytes(void)
{
	uint64_t bytes;

	pthread_mutex_lock(&arena.lock);
	bytes = (arena.top - arena.nr_free) * WINDOW_BYTES;
	pthread_mutex_unlock(&arena.lock);
	return bytes;
}

int windows_init(struct windows *w)
{
	memset(w, 0, sizeof(*w));
	if (arena_init())
		return -ENOMEM;
	w->map = reserve(MAP_WORDS * sizeof(*w->map));
	w->block = reserve(BLOCKS * sizeof(*w->block));
	if (w->map && w->block)
		return 0;
	windows_destroy(w);
	return -ENOMEM;
}

static uint64_t *word_of(const struct windows *w, uint64_t addr)
{
	uint64_t index = addr >> WINDOW_SHIFT;

	return index < MAP_WORDS ? &w->map[index] : NULL;
}

static uint64_t *slot_of(const struct windows *w, uint64_t addr)
{
	uint64_t *word = word_of(w, addr);

	if (!word || !*word)
		return NULL;
	return (uint64_t *)(*word & ~COUNT_MASK) + (addr / PAGE_SIZE_) % WINDOW_PAGES;
}

vswp_entry_t window_get(const struct windows *w, uint64_t addr)
{
	uint64_t *slot = slot_of(w, addr);

	return vswp_entry(slot ? *slot >> HEAT_BITS : 0);
}

int window_set(struct windows *w, uint64_t addr, vswp_entry_t entry)
{
	uint64_t *word = word_of(w, addr);

	if (!word)
		return -ENOMEM;
	if (!*word) {
		uint64_t *window = window_alloc();

		if (!window)
			return -ENOMEM;
		*word = (uint64_t)window;
		w->block[addr >> BLOCK_SHIFT]++;
		w->top[addr >> TOP_SHIFT]++;
	}
	++*word;
	*slot_of(w, addr) = entry.val << HEAT_BITS;
	return 0;
}

void window_clear(struct windows *w, uint64_t addr, unsigned int heat)
{
	uint64_t *word = word_of(w, addr);

	*slot_of(w, addr) = heat;
	if (!(--*word & COUNT_MASK)) {
		window_free((uint64_t *)*word);
		*word = 0;
		w->block[addr >> BLOCK_SHIFT]--;
		w->top[addr >> TOP_SHIFT]--;
	}
}

unsigned int window_heat(const struct windows *w, uint64_t addr)
{
	uint64_t *slot = slot_of(w, addr);

	return slot ? *slot & HEAT_MAX : 0;
}

void window_set_heat(struct windows *w, uint64_t addr, unsigned int heat)
{
	uint64_t *slot = slot_of(w, addr);

	if (slot)
		*slot = (*slot & ~(uint64_t)HEAT_MAX) | heat;
}

/* The next multiple of 1 << @shift, or @end if that comes first. */
static uint64_t skip(uint64_t addr, unsigned int shift, uint64_t end)
{
	uint64_t next = ((addr >> shift) + 1) << shift;

	return next < end ? next : end;
}

uint64_t window_next(const struct windows *w, uint64_t addr, uint64_t end)
{
	if (end > 1UL << ADDR_BITS)
		end = 1UL << ADDR_BITS;
	while (addr < end) {
		if (!w->top[addr >> TOP_SHIFT])
			addr = skip(addr, TOP_SHIFT, end);
		else if (!w->block[addr >> BLOCK_SHIFT])
			addr = skip(addr, BLOCK_SHIFT, end);
		else if (!*word_of(w, addr))
			addr = skip(addr, WINDOW_SHIFT, end);
		else if (*slot_of(w, addr) >> HEAT_BITS)
			break;
		else
			addr += PAGE_SIZE_;
	}
	return addr;
}

void windows_destroy(struct windows *w)
{
	if (w->map)
		munmap(w->map, MAP_WORDS * sizeof(*w->map));
	if (w->block)
		munmap(w->block, BLOCKS * sizeof(*w->block));
	memset(w, 0, sizeof(*w));
}
