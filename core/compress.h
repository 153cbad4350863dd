/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Compressing one page, with work memory that is there before it is needed.
 */
#ifndef CORE_COMPRESS_H
#define CORE_COMPRESS_H

#include <linux/types.h>

struct swap_comp;

/*
 * A page is worth compressing when it shrinks to this or less.  What saves
 * less than an eighth of a page costs more than it brings.
 */
#define SWAP_COMP_MAX (4096 - 4096 / 8)

/* Compressors have numbers below this, the same in every space. */
#define SWAP_COMPS 2

/* The number of the compressor of that name, or -EINVAL. */
int swap_comp_number(const char *name);

/*
 * A compressor by name, "lz4" or "zstd", with all the memory it will ever use.
 * ERR_PTR(-EINVAL): no such compressor; ERR_PTR(-ENOMEM).  Sleeps.
 */
struct swap_comp *swap_comp_create(const char *name);
/* Nobody may be in a call. */
void swap_comp_destroy(struct swap_comp *comp);

/*
 * Compress the page at @page into @dst, which has room for @dst_len bytes.
 * Returns the length, 1 .. min(@dst_len, SWAP_COMP_MAX), or -E2BIG when the page
 * will not shrink to that.  May sleep, allocates nothing; any thread, any number
 * at once.  @dst is scribbled on whatever the result.
 */
int swap_compress(struct swap_comp *comp, const void *page, void *dst, size_t dst_len);

/*
 * The page back, from the @len bytes swap_compress() returned.  0, or -EIO when
 * they are not what it made of any page.  As for threads and sleep, the same.
 */
int swap_decompress(struct swap_comp *comp, const void *src, size_t len, void *page);

#endif
