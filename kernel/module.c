// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The module: one space, made when it is loaded and gone when it is unloaded.
 */
#include <linux/err.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "../core/swap.h"

static char *compressor = "lz4";
module_param(compressor, charp, 0444);
MODULE_PARM_DESC(compressor, "lz4, zstd or none");

static unsigned int pool_percent = 20;
module_param(pool_percent, uint, 0444);
MODULE_PARM_DESC(pool_percent, "share of memory the compressed pool may take");

static struct swap_space *space;

static int __init vswap_init(void)
{
	struct swap_space_conf conf = {
		.compressor = compressor,
		.pool_limit = (u64)totalram_pages() * PAGE_SIZE / 100 * min(pool_percent, 100U),
	};

	space = swap_space_create(&conf);
	return PTR_ERR_OR_ZERO(space);
}

static void __exit vswap_exit(void)
{
	swap_space_destroy(space);
}

module_init(vswap_init);
module_exit(vswap_exit);

MODULE_DESCRIPTION("Virtual swap space");
MODULE_LICENSE("Dual BSD/GPL");
