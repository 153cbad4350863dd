/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Assumptions the compiler checks.
 */
#ifndef COMPAT_LINUX_BUILD_BUG_H
#define COMPAT_LINUX_BUILD_BUG_H

#define BUILD_BUG_ON(cond) _Static_assert(!(cond), "not so: " #cond)
#ifndef static_assert
#define static_assert(expr, ...) _Static_assert(expr, #expr)
#endif

#endif
