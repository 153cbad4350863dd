/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What core/ needs of memory management is all in slab.h and gfp.h.
 */
#ifndef COMPAT_LINUX_MM_H
#define COMPAT_LINUX_MM_H

#include <linux/gfp.h>
#include <linux/slab.h>

#endif
