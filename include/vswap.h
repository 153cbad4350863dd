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
 * once, may sleep, and returns 0 or a negative errno.  After fork() only the
 * parent may use a store made before it.
 *
 * Every page that was on a tier is verified by a checksum when it is loaded; a
 * page that cannot be had again is -EIO, never wrong bytes.
 */
#ifndef VSWAP_H
#define VSWAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VSWAP_PAGE_SIZE 4096

/* A store, and a tier of it. */
struct vswap;
struct vswap_tier;

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
 * Free the store with every page in it and all its tiers.  No other call may
 * be under way.  NULL is allowed.
 */
void vswap_destroy(struct vswap *s);

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
 * -EIO: one could not be read or failed its checksum; -ENOENT: one is not in
 * use; -ENOMEM.  All others have been copied then, except with -ENOMEM.
 */
int vswap_load(struct vswap *s, const vswap_entry *entries, size_t nr, void *pages);

/*
 * One more owner for each entry: it takes one more vswap_free() to end it.
 * -ENOENT, -ENOMEM: nothing was changed.
 */
int vswap_dup(struct vswap *s, const vswap_entry *entries, size_t nr);

/* One owner less; with the last one the page is gone and the entry may come back for another. */
void vswap_free(struct vswap *s, const vswap_entry *entries, size_t nr);

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
 * Returns the tier, which belongs to the store; or NULL with one line in @err
 * (may be NULL) that says why and what to do.
 */
struct vswap_tier *vswap_tier_add(struct vswap *s, const char *path, uint64_t size, int prio,
				  char *err, size_t errlen);

/*
 * Empty a tier and take it out; stores and loads go on meanwhile.  0: gone;
 * -EIO: gone, and pages that could not be read with it; -ENOSPC: what is left
 * has no other place, the tier stays and works.  A tier that is gone must not
 * be named again, so one thread removes it.
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
 * text, for the whole process: @sink gets it, newline and all, from any thread.
 * NULL, and the start: to stderr.  Call it before there is a store.
 */
void vswap_log(void (*sink)(const char *line));

/* "0.1.0" */
const char *vswap_version(void);

#ifdef __cplusplus
}
#endif

#endif
