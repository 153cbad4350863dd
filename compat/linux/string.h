/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * memcpy and its like.
 */
#ifndef COMPAT_LINUX_STRING_H
#define COMPAT_LINUX_STRING_H

#include_next <linux/string.h>
#include <string.h>

#include <linux/slab.h>

#endif
