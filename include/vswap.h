/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libvswap: a store for pages that are not needed right now.
 *
 * Give it a page and it gives back an entry, a number that stays the same for
 * as long as the page is in the store.  Behind the entry the page is wherever
 * it costs least: nowhere, if it is one word over and over (zeros above all);
 * compressed in memory, up to the limit of the pool; or in a tier, a file or
 * block device.  Pages move from the pool to tiers oldest first, and out of a
 * tier that is removed, without their entries changing.
 *
 *	struct vswap *s = vswap_create(NULL, 0);
 *	vswap_entry e;
 *	int err = vswap_store(s, page, 1, &e);
 *	...
 *	err = vswap_load(s, &e, 1, page);
 *	vswap_free(s, &e, 1);
 *	vswap_destroy(s);
 *
 * Unless told otherwise a function may be called from any number of threads at
 * once, may sleep, is no cancellation point (pthreads(7)), and returns 0 or a negative
 * errno.  After fork() only the parent may use a store made before it.
 *
 * vswap_map() puts a store behind memory that a program just uses: a region, of any
 * size, of which some is in memory and the rest in the store (see "regions").
 *
 * Every page that was on a tier is verified by a checksum when it is loaded; a
 * page that cannot be had again is -EIO: no call returns 0 with wrong bytes.
 */
#ifndef VSWAP_H
#define VSWAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VSWAP_PAGE_SIZE 4096

/* A store, a tier of it, and memory it is behind. */
struct vswap;
struct vswap_tier;
struct vswap_region;

/* What stands for a stored page.  0 never does. */
typedef uint64_t vswap_entry;

/*
 * Structures of this interface grow at their end.  Each is passed with its
 * size, so that programs and libraries of different age understand each other:
 * what the other side does not know is zero or left out.
 */

struct vswap_conf {
	const char *compressor; /* "lz4" (NULL too), "zstd" or "none" */
	uint64_t pool_limit;	/* bytes the pool may hold; 0: the machine's memory */
};

/*
 * Make an empty store.  @conf may be NULL; @size is sizeof(*conf).  Returns
 * NULL with errno ENOMEM, or EINVAL: no such compressor.
 */
struct vswap *vswap_create(const struct vswap_conf *conf, size_t size);

/*
 * Free the store with every page in it and all its tiers; regions it still has
 * are unmapped.  No other call may be under way.  NULL is allowed.
 */
void vswap_destroy(struct vswap *s);

/*
 * Why the last call on the store, its tiers or its regions that failed did so, and
 * what to do: one line, no newline, cut where it is longer than @len - 1.  Where
 * several threads use the store it may be another's.  Returns the line's length.
 */
size_t vswap_message(struct vswap *s, char *line, size_t len);

/* ---- pages ----------------------------------------------------------- */

/*
 * Store @nr pages, one after the other at @pages, and set @entries[0..nr-1].
 * Pages stored by one call are loaded best by one call too.  @pages is only
 * read, must not change until the call returns, and is handled faster when it
 * is page aligned.  All are stored or none: -ENOSPC, no room in the pool nor on
 * any tier; -ENOMEM.
 */
int vswap_store(struct vswap *s, const void *pages, size_t nr, vswap_entry *entries);

/*
 * Copy @nr pages out, to follow one another at @pages.  The entries stay.
 * -EIO: one could not be read or failed its checksum, and what is in its place now
 * means nothing; -ENOENT: one is not in use; -ENOMEM, or -EAGAIN of a tier: try again.
 * Of several it is the first of -ENOMEM, -EAGAIN, -EIO.  All others have been copied
 * then, except with -ENOMEM.  @pages must be writable: if not, a page on a tier may be
 * -EFAULT, and is SIGSEGV otherwise, as any other page is.
 */
int vswap_load(struct vswap *s, const vswap_entry *entries, size_t nr, void *pages);

/*
 * One more owner for each entry: it takes one more vswap_free() to end it.
 * -ENOENT, -ENOMEM: nothing was changed.
 */
int vswap_dup(struct vswap *s, const vswap_entry *entries, size_t nr);

/* One owner less; with the last one the page is gone and the entry may come back for another. */
void vswap_free(struct vswap *s, const vswap_entry *entries, size_t nr);

/* ---- regions --------------------------------------------------------- */

/*
 * A region is memory like any other, but for: system calls (below); fork(), whose
 * child does not have it; mlock(), mlockall(), madvise(), mprotect(), mremap() and
 * munmap(), which are not for it; descriptors: a program must not close those it
 * did not open; and signals: a handler of an asynchronous one must not touch it, for
 * it may have come in the middle of a call of the library, and would wait for that.
 *
 * Each page is in memory, counted against the region's ram, or in the store, counted
 * against the limit of the store's pool or on its tiers; the two limits have nothing to
 * do with each other.  A page never touched takes nothing, but 8 bytes once one near it
 * is; and where pages are touched in order up to 16 that are next come with them.  Where
 * the store has no room, or pages cannot be moved because a device uses them, a region
 * takes more memory than its ram, and a line of text says so once (vswap_log()); nothing
 * is lost.
 *
 * Above its ram a region takes up to 256 KiB for each of the most threads that ever
 * touched it in the same moment; 16 MiB at most.
 *
 * A page that cannot be had again is SIGBUS for whoever touches it, until VSWAP_DONTNEED
 * makes it anew; its si_code is BUS_MCEERR_AR, if the kernel knows such a thing.
 *
 * vswap_store() and vswap_load() must not be given memory of any region.
 */

/*
 * Faults are served in the thread that touches the page, in a handler of SIGBUS: faster,
 * but only the program's own code may touch the region; a system call gets EFAULT for
 * memory of it that is not there.  The handler is the process's, from the first such
 * region to the last; what is not ours is passed to the one there was before.  A handler
 * installed later must pass on what is not its own.  Ours stays below it after the last
 * region, so it, or another in its place, must do so for the next one, too.  No thread
 * that touches the region may have SIGBUS blocked, have less than 16 KiB of stack left,
 * or hold a lock of malloc(): which only matters to an allocator that lives in a region.
 *
 * Without it threads of the library serve the faults, and system calls work, too, where
 * the kernel lets us serve them: as root, with vm.unprivileged_userfaultfd set, or with
 * access to /dev/userfaultfd.  Otherwise they get EFAULT as well.
 */
#define VSWAP_REGION_SIGBUS 1u

struct vswap_region_conf {
	uint64_t size;	/* bytes; whole pages */
	uint64_t ram;	/* bytes that may be in memory; 1 MiB at least */
	uint64_t flags; /* VSWAP_REGION_... */
};

/*
 * Make a region; @size is sizeof(*conf).  -EINVAL; -ENOMEM; -EPERM, -ENOSYS, -EOPNOTSUPP:
 * the system has no userfaultfd for us, or one before Linux 6.8; -ENOENT: no /proc;
 * -EACCES: /proc/self/pagemap is not ours to read, as in a program that has changed its
 * user (PR_SET_DUMPABLE in prctl(2)); -EMFILE, -ENFILE: no descriptor; -EAGAIN: no thread.
 */
int vswap_map(struct vswap *s, const struct vswap_region_conf *conf, size_t size,
	      struct vswap_region **region);

/*
 * The end of a region and of all that is in it.  Nobody may touch it, and no other
 * call on it be under way.  NULL is allowed.
 */
void vswap_unmap(struct vswap_region *r);

/* Where it begins. */
void *vswap_addr(const struct vswap_region *r);

enum vswap_advice {
	/* Bring in what is in the store, in order, up to a half of the region's ram. */
	VSWAP_WILLNEED,
	/* Not needed for long: to the store with it, but for what is pinned. */
	VSWAP_COLD,
	/* Not needed at all: from now on these, whole, pages read as zeros. */
	VSWAP_DONTNEED,
};

/*
 * Advise about @len bytes from @addr on, and all pages they touch.  -EINVAL: not all
 * of the region, no such advice, or VSWAP_DONTNEED of parts of pages; -EBUSY: there
 * were pinned pages to be dropped, which were left; -ENOSPC, -ENOMEM: the store had no
 * room for what is cold.
 */
int vswap_advise(struct vswap_region *r, void *addr, size_t len, int advice);

/*
 * Bring pages in, to stay until vswap_unpin(); this does not nest.  -EINVAL; -ENOMEM:
 * all that is pinned must leave an eighth of the region's ram, 512 KiB at least, for
 * others; -EIO: a page is lost, none of the range up to it is pinned now.
 */
int vswap_pin(struct vswap_region *r, void *addr, size_t len);
int vswap_unpin(struct vswap_region *r, void *addr, size_t len);

/*
 * Change a region's ram.  When it returns 0 no more than that is in memory.  -EINVAL,
 * -EBUSY: too little for what is pinned, nothing was changed; or pages are in use by a
 * device; -ENOSPC, -ENOMEM: it is the new limit, but the store has no room.
 */
int vswap_set_ram(struct vswap_region *r, uint64_t bytes);

struct vswap_region_stat {
	uint64_t size; /* bytes */
	uint64_t ram;
	uint64_t pages_present; /* right now, pinned ones among them */
	uint64_t pages_staged;	/* ... on their way to the store, still in memory */
	uint64_t pages_stored;
	uint64_t pages_lost;
	uint64_t pages_pinned;
	uint64_t faults;	/* ever, of: */
	uint64_t faults_first;	/* ... pages never touched before */
	uint64_t faults_stored; /* ... pages in the store */
	uint64_t faults_staged; /* ... pages on their way there */
	uint64_t refaults_soon; /* pages wanted soon after they left; stay longer next time */
	uint64_t readahead;	/* pages brought in before they were touched */
	uint64_t evicted;	/* pages that went to the store */
	uint64_t direct;	/* times a fault had to make room itself */
	uint64_t over;		/* pages brought in above the ram: no room in the store */
	uint64_t syscalls;	/* 1: system calls may touch the region */
};

/* A snapshot; @size is sizeof(*st). */
void vswap_region_stat(struct vswap_region *r, struct vswap_region_stat *st, size_t size);

/* ---- the pool -------------------------------------------------------- */

/* Applies to what is stored from now on; lowering it moves nothing by itself. */
void vswap_set_pool_limit(struct vswap *s, uint64_t bytes);

/*
 * How full the pool may be, in percent of its limit, before vswap_store() moves
 * the oldest pages to a tier first.  90 at the start; 100 leaves it to
 * vswap_writeback(), and to stores that find the pool full.  -EINVAL: above 100.
 */
int vswap_set_writeback(struct vswap *s, unsigned int percent);

/*
 * Move the oldest pages of the pool to a tier, compressed as they are, until
 * about @bytes are free.  Returns the bytes of pool set free: 0 when there is
 * no tier with room, or nothing to move.
 */
uint64_t vswap_writeback(struct vswap *s, uint64_t bytes);

/* Close gaps in the pool so that it gives memory back.  Returns how many bytes. */
uint64_t vswap_compact(struct vswap *s);

/* ---- tiers ----------------------------------------------------------- */

/*
 * Add a file, a block device, or an export of an NBD server (@path is
 * nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH).  @size bytes of
 * it are used, 0: all there is.  A path that does not exist needs a size and
 * becomes a nameless file on that filesystem; NULL is a temporary file under
 * $TMPDIR or /var/tmp, made when it is first needed.  What holds data is
 * refused.  A higher @prio is used first.
 * Returns the tier, which belongs to the store; or NULL with errno set, and one
 * line in @err (may be NULL) that says why and what to do.
 */
struct vswap_tier *vswap_tier_add(struct vswap *s, const char *path, uint64_t size, int prio,
				  char *err, size_t errlen);

/*
 * Empty a tier and take it out; stores and loads go on meanwhile.  0: gone;
 * -EIO: gone, and pages that could not be read with it; -ENOSPC: what is left
 * has no other place, the tier stays and works; -ENOMEM: nothing was done;
 * -EINVAL: no tier of this store, or no more.  One that is added later may get
 * the address of one that is gone.
 */
int vswap_tier_remove(struct vswap *s, struct vswap_tier *tier);

/* ---- counters -------------------------------------------------------- */

struct vswap_stat {
	uint64_t pages; /* stored right now */
	uint64_t pages_peak;
	uint64_t pages_fill;	  /* ... on no store: one repeated word */
	uint64_t pages_pool;	  /* ... in the pool */
	uint64_t pages_tier;	  /* ... on tiers */
	uint64_t pages_lost;	  /* ... in use but beyond reading */
	uint64_t pool_bytes;	  /* memory the pool takes */
	uint64_t pool_data_bytes; /* compressed bytes of live pages in it */
	uint64_t meta_bytes;	  /* memory for tables, of tiers too */
	uint64_t tier_pages_read; /* ever */
	uint64_t tier_pages_written;
	uint64_t read_errors;
	uint64_t write_errors;
};

/* A snapshot; @size is sizeof(*st). */
void vswap_stat(struct vswap *s, struct vswap_stat *st, size_t size);

/*
 * What goes wrong behind a call's back (a tier that fails, say) is a line of
 * text, for the whole process: @sink gets it, newline and all, from any thread,
 * which may hold locks of the library: it must touch no region, and call nothing
 * of this.  NULL, and the start: to stderr.  Call it before there is a store.
 */
void vswap_log(void (*sink)(const char *line));

/* "0.1.0" */
const char *vswap_version(void);

#ifdef __cplusplus
}
#endif

#endif
