/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a member to the struct that holds it.
 */
#ifndef COMPAT_LINUX_CONTAINER_OF_H
#define COMPAT_LINUX_CONTAINER_OF_H

#include <stddef.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
