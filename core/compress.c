// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Compressing one page, with work memory that is there before it is needed.
 *
 * Swap-out runs when memory is short, so a call must not have to ask for any.
 * Each CPU has its own lane of work memory from the start.  A lane is taken by
 * a mutex, not by disabling preemption: a call that is moved to another CPU
 * half-way keeps the lane it has, and whoever finds it taken waits for a few
 * microseconds of compression, nothing else.  The mutex is a leaf.
 *
 * LZ4 needs no memory to decompress, so a fault served by it takes no lane.
 */
#include <linux/align.h>
#include <linux/build_bug.h>
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/lz4.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/zstd.h>

#include "compress.h"
#include "swap.h"
#include "zmem.h"

/* Beyond level 1 a single page gains 2 % for a fifth more time: too small a window. */
#define COMP_ZSTD_LEVEL 1

struct comp_lane {
	struct mutex lock;
	void *work; /* compressor's, then decompressor's memory */
	zstd_cctx *cctx;
	zstd_dctx *dctx;
} __aligned(64);

struct comp_algo {
	const char *name;
	size_t (*work_size)(void);
	int (*init)(struct comp_lane *lane);
	int (*compress)(struct comp_lane *lane, const void *page, void *dst, size_t room);
	int (*decompress)(struct swap_comp *comp, const void *src, size_t len, void *page);
};

struct swap_comp {
	const struct comp_algo *algo;
	size_t work_size;
	unsigned int nr_lanes;
	struct comp_lane lane[];
};

static struct comp_lane *comp_lane_lock(struct swap_comp *comp)
{
	struct comp_lane *lane = &comp->lane[raw_smp_processor_id() % comp->nr_lanes];

	mutex_lock(&lane->lock);
	return lane;
}

static void comp_lane_unlock(struct comp_lane *lane)
{
	mutex_unlock(&lane->lock);
}

static size_t comp_lz4_work_size(void)
{
	return LZ4_MEM_COMPRESS;
}

static int comp_lz4_init(struct comp_lane *lane)
{
	(void)lane;
	return 0;
}

static int comp_lz4_compress(struct comp_lane *lane, const void *page, void *dst, size_t room)
{
	int len = LZ4_compress_fast(page, dst, SWAP_PAGE_SIZE, (int)room, LZ4_ACCELERATION_DEFAULT,
				    lane->work);

	return len > 0 ? len : -E2BIG;
}

static int comp_lz4_decompress(struct swap_comp *comp, const void *src, size_t len, void *page)
{
	(void)comp;
	if (LZ4_decompress_safe(src, page, (int)len, SWAP_PAGE_SIZE) != (int)SWAP_PAGE_SIZE)
		return -EIO;
	return 0;
}

static zstd_parameters comp_zstd_params(void)
{
	return zstd_get_params(COMP_ZSTD_LEVEL, SWAP_PAGE_SIZE);
}

/* Both contexts lie in one piece of memory, the second where the first one's bound ends. */
static size_t comp_zstd_cctx_size(void)
{
	zstd_parameters params = comp_zstd_params();

	return ALIGN(zstd_cctx_workspace_bound(&params.cParams), 64);
}

static size_t comp_zstd_work_size(void)
{
	return comp_zstd_cctx_size() + zstd_dctx_workspace_bound();
}

static int comp_zstd_init(struct comp_lane *lane)
{
	size_t clen = comp_zstd_cctx_size();

	lane->cctx = zstd_init_cctx(lane->work, clen);
	lane->dctx = zstd_init_dctx((char *)lane->work + clen, zstd_dctx_workspace_bound());
	return lane->cctx && lane->dctx ? 0 : -EINVAL;
}

static int comp_zstd_compress(struct comp_lane *lane, const void *page, void *dst, size_t room)
{
	zstd_parameters params = comp_zstd_params();
	size_t len = zstd_compress_cctx(lane->cctx, dst, room, page, SWAP_PAGE_SIZE, &params);

	return zstd_is_error(len) ? -E2BIG : (int)len;
}

static int comp_zstd_decompress(struct swap_comp *comp, const void *src, size_t len, void *page)
{
	struct comp_lane *lane = comp_lane_lock(comp);
	size_t got = zstd_decompress_dctx(lane->dctx, page, SWAP_PAGE_SIZE, src, len);

	comp_lane_unlock(lane);
	return zstd_is_error(got) || got != SWAP_PAGE_SIZE ? -EIO : 0;
}

static const struct comp_algo comp_algos[] = {
	{
		.name = "lz4",
		.work_size = comp_lz4_work_size,
		.init = comp_lz4_init,
		.compress = comp_lz4_compress,
		.decompress = comp_lz4_decompress,
	},
	{
		.name = "zstd",
		.work_size = comp_zstd_work_size,
		.init = comp_zstd_init,
		.compress = comp_zstd_compress,
		.decompress = comp_zstd_decompress,
	},
};

int swap_comp_number(const char *name)
{
	unsigned int i;

	BUILD_BUG_ON(ARRAY_SIZE(comp_algos) != SWAP_COMPS);
	for (i = 0; i < ARRAY_SIZE(comp_algos); i++)
		if (!strcmp(comp_algos[i].name, name))
			return (int)i;
	return -EINVAL;
}

struct swap_comp *swap_comp_create(const char *name)
{
	int number = swap_comp_number(name), err = -ENOMEM;
	const struct comp_algo *algo;
	unsigned int nr = nr_cpu_ids;
	struct swap_comp *comp;
	unsigned int i;

	if (number < 0)
		return ERR_PTR(number);
	algo = &comp_algos[number];
	comp = kzalloc(sizeof(*comp) + nr * sizeof(comp->lane[0]), GFP_KERNEL);
	if (!comp)
		return ERR_PTR(-ENOMEM);
	comp->algo = algo;
	comp->work_size = ALIGN(algo->work_size(), SWAP_PAGE_SIZE);
	comp->nr_lanes = nr;
	for (i = 0; i < nr; i++)
		mutex_init(&comp->lane[i].lock);
	for (i = 0; i < nr; i++) {
		comp->lane[i].work = zmem_alloc(comp->work_size);
		if (!comp->lane[i].work)
			goto fail;
		err = algo->init(&comp->lane[i]);
		if (err)
			goto fail;
		err = -ENOMEM;
	}
	return comp;
fail:
	swap_comp_destroy(comp);
	return ERR_PTR(err);
}

void swap_comp_destroy(struct swap_comp *comp)
{
	unsigned int i;

	for (i = 0; i < comp->nr_lanes; i++) {
		zmem_free(comp->lane[i].work, comp->work_size);
		mutex_destroy(&comp->lane[i].lock);
	}
	kfree(comp);
}

int swap_compress(struct swap_comp *comp, const void *page, void *dst, size_t dst_len)
{
	struct comp_lane *lane = comp_lane_lock(comp);
	int ret;

	ret = comp->algo->compress(lane, page, dst, min_t(size_t, dst_len, SWAP_COMP_MAX));
	comp_lane_unlock(lane);
	return ret;
}

int swap_decompress(struct swap_comp *comp, const void *src, size_t len, void *page)
{
	return comp->algo->decompress(comp, src, len, page);
}
