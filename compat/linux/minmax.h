/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * min, max and their like, each argument looked at once.
 */
#ifndef COMPAT_LINUX_MINMAX_H
#define COMPAT_LINUX_MINMAX_H

#define min(a, b)                                      \
	__extension__({                                \
		__typeof__(a) __min_a = (a);           \
		__typeof__(b) __min_b = (b);           \
		(void)(&__min_a == &__min_b);          \
		__min_a < __min_b ? __min_a : __min_b; \
	})
#define max(a, b)                                      \
	__extension__({                                \
		__typeof__(a) __max_a = (a);           \
		__typeof__(b) __max_b = (b);           \
		(void)(&__max_a == &__max_b);          \
		__max_a > __max_b ? __max_a : __max_b; \
	})
#define min_t(type, a, b)                                  \
	__extension__({                                    \
		type __min_ta = (a);                       \
		type __min_tb = (b);                       \
		__min_ta < __min_tb ? __min_ta : __min_tb; \
	})
#define max_t(type, a, b)                                  \
	__extension__({                                    \
		type __max_ta = (a);                       \
		type __max_tb = (b);                       \
		__max_ta > __max_tb ? __max_ta : __max_tb; \
	})
#define clamp_t(type, v, lo, hi) min_t(type, max_t(type, v, lo), hi)

#endif
