/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Error numbers.
 */
#ifndef COMPAT_LINUX_ERRNO_H
#define COMPAT_LINUX_ERRNO_H

#include_next <linux/errno.h>
#include <errno.h>

#endif
