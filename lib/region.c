// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Regions: made, advised, pinned, counted, ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../agent/uffd.h"
#include "region.h"

#define ALL_FLAGS ((u64)VSWAP_REGION_SIGBUS)
/* Addresses end at 47 bits; with those of the words it is a little more. */
#define MAX_BYTES (1ULL << 46)

/* ---- memory ---------------------------------------------------------- */

/* Address space that costs nothing until it is touched.  NULL: errno. */
static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/*
 * The same for pages that come by faults: not copied by a fork, whose child nobody
 * would serve; without huge pages; and not filled by an mlockall() of the program, so
 * it must not be readable while it is locked.
 */
static void *reserve_paged(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* A kernel without huge pages does not know MADV_NOHUGEPAGE. */
	(void)madvise(p, bytes, MADV_NOHUGEPAGE);
	if (!munlock(p, bytes) && !madvise(p, bytes, MADV_DONTFORK) &&
	    !mprotect(p, bytes, PROT_READ | PROT_WRITE))
		return p;
	munmap(p, bytes);
	return NULL;
}

static void release(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

/* What belongs to a region of so many pages. */
static size_t words_bytes(const struct vswap_region *r)
{
	return r->pages * sizeof(*r->page);
}

static size_t windows_bytes(const struct vswap_region *r)
{
	return (r->pages + WINDOW_PAGES - 1) / WINDOW_PAGES * sizeof(*r->window);
}

#define BOUNCE_BYTES (BOUNCES * RUN_PAGES * PAGE)

static bool region_reserve(struct vswap_region *r)
{
	r->segment = calloc(SEGMENTS, sizeof(*r->segment));
	r->base = reserve_paged(r->pages * PAGE);
	r->staging = reserve_paged(STAGING_BYTES + BELL_BYTES);
	r->page = reserve(words_bytes(r));
	r->window = reserve(windows_bytes(r));
	r->bounce = reserve(BOUNCE_BYTES);
	for (size_t i = 0; r->segment && i < SEGMENTS; i++)
		r->segment[i].base = i * SEGMENT_SLOTS;
	return r->segment && r->base && r->staging && r->page && r->window && r->bounce;
}

static void region_release(struct vswap_region *r)
{
	/* Before the userfaultfd: nobody must read zeros where bytes were. */
	release(r->base, r->pages * PAGE);
	release(r->staging, STAGING_BYTES + BELL_BYTES);
	release(r->page, words_bytes(r));
	release(r->window, windows_bytes(r));
	release(r->bounce, BOUNCE_BYTES);
	free(r->segment);
	if (r->uffd >= 0)
		close(r->uffd);
	if (r->pagemap >= 0)
		close(r->pagemap);
}

/* ---- the userfaultfd -------------------------------------------------- */

/* One that also serves the kernel's own accesses, if we may have it. */
static int uffd_open(struct vswap_region *r)
{
	int fd, dev;

	if (!(r->flags & VSWAP_REGION_SIGBUS)) {
		r->whole = true;
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
		if (fd >= 0)
			return fd;
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev >= 0) {
			fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
			close(dev);
			if (fd >= 0)
				return fd;
		}
	}
	r->whole = false;
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
}

static int uffd_register(struct vswap_region *r, const void *from, size_t bytes)
{
	struct uffdio_register reg = {
		.range = { (u64)(uintptr_t)from, bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(r->uffd, UFFDIO_REGISTER, &reg);
}

static int uffd_setup(struct vswap_region *r)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON,
	};
	int err;

	r->uffd = uffd_open(r);
	if (r->uffd < 0)
		return store_says(r->store, -errno,
				  "map: userfaultfd: %s (a sandbox may forbid it)",
				  strerror(errno));
	if (r->flags & VSWAP_REGION_SIGBUS)
		api.features |= UFFD_FEATURE_SIGBUS;
	if (ioctl(r->uffd, UFFDIO_API, &api)) {
		err = errno == EINVAL ? -EOPNOTSUPP : -errno;
		return store_says(r->store, err,
				  "map: the kernel's userfaultfd cannot move pages (Linux 6.8 or "
				  "later is needed)");
	}
	if (uffd_register(r, r->base, r->pages * PAGE) ||
	    uffd_register(r, r->staging, STAGING_BYTES + BELL_BYTES))
		return store_says(r->store, -errno, "map: userfaultfd: %s", strerror(errno));
	r->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (r->pagemap < 0)
		return store_says(r->store, -errno, "map: /proc/self/pagemap: %s", strerror(errno));
	return 0;
}

/* ---- life ------------------------------------------------------------ */

static int threads_start(struct vswap_region *r)
{
	sigset_t all, old;
	int err;

	/* They must not be the threads a signal of the process finds. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = reclaimer_start(r);
	if (!err && !(r->flags & VSWAP_REGION_SIGBUS)) {
		err = servers_start(r);
		if (err)
			reclaimer_stop(r);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err ? store_says(r->store, err, "map: no thread: %s", strerror(-err)) : 0;
}

static int region_start(struct vswap_region *r)
{
	int err;

	if (!region_reserve(r))
		return store_says(r->store, -ENOMEM, "map: no address space for %zu MiB",
				  r->pages * PAGE >> 20);
	err = uffd_setup(r);
	if (err)
		return err;
	if (store_reserve(r->store))
		return store_says(r->store, -ENOMEM, "map: no memory");
	err = threads_start(r);
	if (err)
		return err;
	if (!(r->flags & VSWAP_REGION_SIGBUS))
		return 0;
	err = sigbus_add(r);
	if (err) {
		reclaimer_stop(r);
		return store_says(r->store, err, "map: SIGBUS: %s", strerror(-err));
	}
	return 0;
}

int vswap_map(struct vswap *s, const struct vswap_region_conf *conf, size_t size,
	      struct vswap_region **region)
{
	NO_CANCEL;
	struct vswap_region_conf c = { 0 };
	struct vswap_region *r;
	int err;

	memcpy(&c, conf, size < sizeof(c) ? size : sizeof(c));
	if (!c.size || c.size > MAX_BYTES)
		return store_says(s, -EINVAL, "map: a region has 1 byte to 64 TiB");
	if (c.ram / PAGE < MIN_RAM_PAGES)
		return store_says(s, -EINVAL, "map: a region's ram is %zu KiB at least",
				  MIN_RAM_PAGES * PAGE >> 10);
	if (c.flags & ~ALL_FLAGS)
		return store_says(s, -EINVAL, "map: no such flag: %#llx",
				  (unsigned long long)(c.flags & ~ALL_FLAGS));
	if (sysconf(_SC_PAGESIZE) != (long)PAGE)
		return store_says(s, -EOPNOTSUPP, "map: the machine's pages are not of %zu bytes",
				  PAGE);
	r = calloc(1, sizeof(*r));
	if (!r)
		return store_says(s, -ENOMEM, "map: no memory");
	r->store = s;
	r->pages = (c.size + PAGE - 1) / PAGE;
	r->ram = c.ram / PAGE;
	r->flags = (unsigned int)c.flags;
	r->uffd = r->pagemap = -1;
	pthread_mutex_init(&r->pin_lock, NULL);
	pthread_mutex_init(&r->hand_lock, NULL);
	err = region_start(r);
	if (err) {
		region_release(r);
		free(r);
		return err;
	}
	pthread_mutex_lock(&s->lock);
	r->next = s->regions;
	s->regions = r;
	pthread_mutex_unlock(&s->lock);
	*region = r;
	return 0;
}

/* Nobody is at the region any more: what it has in the store is not needed. */
static void region_free_entries(struct vswap_region *r)
{
	vswap_entry entry[STORE_BATCH];
	unsigned int n = 0;

	for (size_t page = 0; page < r->pages; page++) {
		if (page % WINDOW_PAGES == 0 && !window_of(r, page)->used) {
			page += WINDOW_PAGES - 1;
			continue;
		}
		if (page_state(r->page[page]) != PAGE_STORED)
			continue;
		entry[n++] = page_value(r->page[page]);
		if (n == STORE_BATCH) {
			vswap_free(r->store, entry, n);
			n = 0;
		}
	}
	vswap_free(r->store, entry, n);
}

void vswap_unmap(struct vswap_region *r)
{
	NO_CANCEL;
	struct vswap *s;

	if (!r)
		return;
	s = r->store;
	pthread_mutex_lock(&s->lock);
	for (struct vswap_region **p = &s->regions; *p; p = &(*p)->next) {
		if (*p == r) {
			*p = r->next;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (r->flags & VSWAP_REGION_SIGBUS)
		sigbus_remove(r);
	servers_stop(r);
	reclaimer_stop(r);
	region_free_entries(r);
	region_release(r);
	pthread_mutex_destroy(&r->pin_lock);
	pthread_mutex_destroy(&r->hand_lock);
	free(r);
}

void *vswap_addr(const struct vswap_region *r)
{
	return r->base;
}

/* ---- advice ---------------------------------------------------------- */

/* The pages [*first, *first + *nr) of an address and a length.  A part of a page is all of it. */
static int range_of(struct vswap_region *r, const void *addr, size_t len, size_t *first, size_t *nr)
{
	size_t off = (size_t)(uintptr_t)addr - (size_t)(uintptr_t)r->base;
	size_t size = r->pages * PAGE;

	*first = *nr = 0;
	if (off > size || len > size - off)
		return store_says(r->store, -EINVAL,
				  "region: %p and %zu bytes are not all within it", addr, len);
	*first = off / PAGE;
	*nr = len ? (off + len - 1) / PAGE - *first + 1 : 0;
	return 0;
}

static void willneed(struct vswap_region *r, size_t first, size_t nr)
{
	size_t left = __atomic_load_n(&r->ram, __ATOMIC_RELAXED) / 2;

	while (nr && left) {
		unsigned int n;
		page_t p = __atomic_load_n(&r->page[first], __ATOMIC_RELAXED);

		if (!__atomic_load_n(&window_of(r, first)->used, __ATOMIC_RELAXED)) {
			n = (unsigned int)(WINDOW_PAGES - first % WINDOW_PAGES);
		} else if (page_state(p) == PAGE_STORED) {
			size_t most = nr < left ? nr : left;

			/* One, if need be by taking another's memory; then those beside it. */
			if (region_bring(r, first, false) == FAULT_GONE)
				return;
			n = 1 +
			    (most > 1 ? region_bring_run(r, first + 1,
							 most < RUN_PAGES ? (unsigned int)most - 1 :
									    RUN_PAGES,
							 PAGE_STORED) :
					0);
			left -= n < left ? n : left;
		} else {
			n = 1;
		}
		first += n;
		nr -= n < nr ? n : nr;
	}
}

/* Locked pages [first, first + n), not pinned: they are NEW again. */
static int drop_run(struct vswap_region *r, size_t first, unsigned int n, const page_t *was)
{
	vswap_entry entry[RUN_PAGES];
	unsigned int stored = 0, present = 0;
	bool mapped = false;

	for (unsigned int i = 0; i < n; i++)
		mapped |= page_state(was[i]) == PAGE_PRESENT || page_state(was[i]) == PAGE_LOST;
	if (n && mapped && madvise(page_addr(r, first), n * PAGE, MADV_DONTNEED_LOCKED)) {
		int err = -errno;

		for (unsigned int i = 0; i < n; i++)
			page_unlock(&r->page[first + i], was[i]);
		return store_says(r->store, err, "dontneed: %s", strerror(-err));
	}
	for (unsigned int i = 0; i < n; i++) {
		if (page_state(was[i]) == PAGE_STORED)
			entry[stored++] = page_value(was[i]);
		present += page_state(was[i]) == PAGE_PRESENT;
		/* Of one that is staged the slot goes when its batch does. */
		page_turn(r, first + i, was[i], page_make(PAGE_NEW));
	}
	uncharge(r, present);
	vswap_free(r->store, entry, stored);
	return 0;
}

static int dontneed(struct vswap_region *r, size_t first, size_t nr)
{
	page_t was[RUN_PAGES];
	bool pinned = false;
	int err = 0;

	while (nr && !err) {
		unsigned int n = 0;

		if (first % WINDOW_PAGES == 0 && nr >= WINDOW_PAGES &&
		    !__atomic_load_n(&window_of(r, first)->used, __ATOMIC_ACQUIRE)) {
			first += WINDOW_PAGES;
			nr -= WINDOW_PAGES;
			continue;
		}
		while (n < RUN_PAGES && n < nr) {
			was[n] = page_lock(&r->page[first + n]);
			if (was[n] & PAGE_PINNED)
				break;
			n++;
		}
		if (n < RUN_PAGES && n < nr) {
			page_unlock(&r->page[first + n], was[n]);
			pinned = true;
		}
		err = drop_run(r, first, n, was);
		n += n < RUN_PAGES && n < nr;
		first += n;
		nr -= n;
	}
	if (!err && pinned)
		return store_says(r->store, -EBUSY,
				  "dontneed: pages that are pinned were left (unpin them first)");
	return err;
}

int vswap_advise(struct vswap_region *r, void *addr, size_t len, int advice)
{
	NO_CANCEL;
	size_t first, nr;
	int err = range_of(r, addr, len, &first, &nr);

	if (err)
		return err;
	switch (advice) {
	case VSWAP_WILLNEED:
		willneed(r, first, nr);
		return 0;
	case VSWAP_COLD:
		err = region_evict(r, first, nr);
		return err ? store_full(r->store, "cold", err) : 0;
	case VSWAP_DONTNEED:
		if (((size_t)(uintptr_t)addr | len) % PAGE)
			return store_says(r->store, -EINVAL,
					  "dontneed: drops whole pages of %zu bytes", PAGE);
		return dontneed(r, first, nr);
	default:
		return store_says(r->store, -EINVAL, "advise: no such advice: %d", advice);
	}
}

/* ---- pinned pages ---------------------------------------------------- */

/* What has to stay free for faults to get on. */
static size_t pin_limit(struct vswap_region *r)
{
	size_t ram = __atomic_load_n(&r->ram, __ATOMIC_RELAXED), slack = ram / 8;

	return ram - (slack > PIN_SLACK_PAGES ? slack : PIN_SLACK_PAGES);
}

/* Both with pin_lock held: only who has it changes that. */
static bool is_pinned(struct vswap_region *r, size_t page)
{
	return __atomic_load_n(&r->page[page], __ATOMIC_RELAXED) & PAGE_PINNED;
}

static void unpin(struct vswap_region *r, size_t first, size_t nr)
{
	for (size_t page = first; page < first + nr; page++) {
		page_t p;

		if (!is_pinned(r, page))
			continue;
		p = page_lock(&r->page[page]);
		page_unlock(&r->page[page], p & ~PAGE_PINNED);
		uncount(&r->pinned, 1);
	}
}

int vswap_pin(struct vswap_region *r, void *addr, size_t len)
{
	NO_CANCEL;
	size_t first, nr, more = 0;
	int err = range_of(r, addr, len, &first, &nr);

	if (err)
		return err;
	pthread_mutex_lock(&r->pin_lock);
	for (size_t page = first; page < first + nr; page++)
		more += !is_pinned(r, page);
	if (r->pinned + more > pin_limit(r))
		err = store_says(
			r->store, -ENOMEM,
			"pin: %zu pages of %zu that can be are pinned, %zu more do not fit "
			"(raise the region's ram)",
			(size_t)r->pinned, pin_limit(r), more);
	for (size_t page = first; page < first + nr && !err; page++) {
		if (is_pinned(r, page))
			continue;
		switch (region_bring(r, page, true)) {
		case FAULT_SERVED:
			count(&r->pinned, 1);
			break;
		case FAULT_LOST:
			err = store_says(r->store, -EIO, "pin: the page at %p is lost",
					 (void *)page_addr(r, page));
			unpin(r, first, page - first);
			break;
		case FAULT_GONE:
			err = -ESRCH;
			break;
		}
	}
	pthread_mutex_unlock(&r->pin_lock);
	return err;
}

int vswap_unpin(struct vswap_region *r, void *addr, size_t len)
{
	NO_CANCEL;
	size_t first, nr;
	int err = range_of(r, addr, len, &first, &nr);

	if (err)
		return err;
	pthread_mutex_lock(&r->pin_lock);
	unpin(r, first, nr);
	pthread_mutex_unlock(&r->pin_lock);
	return 0;
}

/* ---- the budget, counters --------------------------------------------- */

int vswap_set_ram(struct vswap_region *r, uint64_t bytes)
{
	NO_CANCEL;
	size_t ram = bytes / PAGE, before;
	int err = 0;

	if (ram < MIN_RAM_PAGES)
		return store_says(r->store, -EINVAL, "ram: %zu KiB at least",
				  MIN_RAM_PAGES * PAGE >> 10);
	pthread_mutex_lock(&r->pin_lock);
	before = __atomic_exchange_n(&r->ram, ram, __ATOMIC_RELAXED);
	if (r->pinned > pin_limit(r)) {
		err = store_says(r->store, -EBUSY, "ram: %zu pages are pinned (unpin some first)",
				 (size_t)r->pinned);
		__atomic_store_n(&r->ram, before, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&r->pin_lock);
	if (err)
		return err;
	err = region_shrink(r);
	return err ? store_full(r->store, "ram", err) : 0;
}

static u64 value(const u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void vswap_region_stat(struct vswap_region *r, struct vswap_region_stat *st, size_t size)
{
	struct vswap_region_stat out = {
		.size = r->pages * PAGE,
		.ram = __atomic_load_n(&r->ram, __ATOMIC_RELAXED) * PAGE,
		.pages_present = value(&r->count.present),
		.pages_staged = value(&r->count.staged),
		.pages_stored = value(&r->count.stored),
		.pages_lost = value(&r->count.lost),
		.pages_pinned = __atomic_load_n(&r->pinned, __ATOMIC_RELAXED),
		.faults_first = value(&r->count.first),
		.faults_stored = value(&r->count.refaults),
		.faults_staged = value(&r->count.recalled),
		.refaults_soon = value(&r->count.soon),
		.readahead = value(&r->count.readahead),
		.evicted = value(&r->count.evicted),
		.direct = value(&r->count.direct),
		.over = value(&r->count.over),
		.syscalls = r->whole,
	};

	out.faults = out.faults_first + out.faults_stored + out.faults_staged;
	if (size > sizeof(out)) {
		memset((char *)st + sizeof(out), 0, size - sizeof(out));
		size = sizeof(out);
	}
	memcpy(st, &out, size);
}
