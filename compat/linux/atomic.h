/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Atomic counters, with the kernel's ordering rules: what returns a value is
 * fully ordered, what does not is relaxed.
 */
#ifndef COMPAT_LINUX_ATOMIC_H
#define COMPAT_LINUX_ATOMIC_H

#include <linux/compiler.h>
#include <linux/types.h>

#define ATOMIC_INIT(i) \
	{              \
		(i)    \
	}
#define ATOMIC_LONG_INIT(i) \
	{                   \
		(i)         \
	}
#define ATOMIC64_INIT(i) \
	{                \
		(i)      \
	}

#define smp_mb__before_atomic() barrier()
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)

#define COMPAT_ATOMIC_OPS(pfx, atype, type)                                                   \
	static inline type pfx##_read(const atype *v)                                         \
	{                                                                                     \
		return __atomic_load_n(&v->counter, __ATOMIC_RELAXED);                        \
	}                                                                                     \
	static inline type pfx##_read_acquire(const atype *v)                                 \
	{                                                                                     \
		return __atomic_load_n(&v->counter, __ATOMIC_ACQUIRE);                        \
	}                                                                                     \
	static inline void pfx##_set(atype *v, type i)                                        \
	{                                                                                     \
		__atomic_store_n(&v->counter, i, __ATOMIC_RELAXED);                           \
	}                                                                                     \
	static inline void pfx##_set_release(atype *v, type i)                                \
	{                                                                                     \
		__atomic_store_n(&v->counter, i, __ATOMIC_RELEASE);                           \
	}                                                                                     \
	static inline void pfx##_add(type i, atype *v)                                        \
	{                                                                                     \
		__atomic_fetch_add(&v->counter, i, __ATOMIC_RELAXED);                         \
	}                                                                                     \
	static inline void pfx##_sub(type i, atype *v)                                        \
	{                                                                                     \
		__atomic_fetch_sub(&v->counter, i, __ATOMIC_RELAXED);                         \
	}                                                                                     \
	static inline void pfx##_inc(atype *v)                                                \
	{                                                                                     \
		pfx##_add(1, v);                                                              \
	}                                                                                     \
	static inline void pfx##_dec(atype *v)                                                \
	{                                                                                     \
		pfx##_sub(1, v);                                                              \
	}                                                                                     \
	static inline type pfx##_add_return(type i, atype *v)                                 \
	{                                                                                     \
		return __atomic_add_fetch(&v->counter, i, __ATOMIC_SEQ_CST);                  \
	}                                                                                     \
	static inline type pfx##_sub_return(type i, atype *v)                                 \
	{                                                                                     \
		return __atomic_sub_fetch(&v->counter, i, __ATOMIC_SEQ_CST);                  \
	}                                                                                     \
	static inline type pfx##_inc_return(atype *v)                                         \
	{                                                                                     \
		return pfx##_add_return(1, v);                                                \
	}                                                                                     \
	static inline type pfx##_dec_return(atype *v)                                         \
	{                                                                                     \
		return pfx##_sub_return(1, v);                                                \
	}                                                                                     \
	static inline type pfx##_dec_return_release(atype *v)                                 \
	{                                                                                     \
		return __atomic_sub_fetch(&v->counter, 1, __ATOMIC_RELEASE);                  \
	}                                                                                     \
	static inline type pfx##_fetch_add(type i, atype *v)                                  \
	{                                                                                     \
		return __atomic_fetch_add(&v->counter, i, __ATOMIC_SEQ_CST);                  \
	}                                                                                     \
	static inline bool pfx##_dec_and_test(atype *v)                                       \
	{                                                                                     \
		return pfx##_sub_return(1, v) == 0;                                           \
	}                                                                                     \
	static inline type pfx##_xchg(atype *v, type i)                                       \
	{                                                                                     \
		return __atomic_exchange_n(&v->counter, i, __ATOMIC_SEQ_CST);                 \
	}                                                                                     \
	static inline type pfx##_cmpxchg(atype *v, type old, type want)                       \
	{                                                                                     \
		__atomic_compare_exchange_n(&v->counter, &old, want, false, __ATOMIC_SEQ_CST, \
					    __ATOMIC_RELAXED);                                \
		return old;                                                                   \
	}                                                                                     \
	static inline bool pfx##_try_cmpxchg(atype *v, type *old, type want)                  \
	{                                                                                     \
		return __atomic_compare_exchange_n(&v->counter, old, want, false,             \
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);       \
	}                                                                                     \
	static inline bool pfx##_inc_not_zero(atype *v)                                       \
	{                                                                                     \
		type old = pfx##_read(v);                                                     \
                                                                                              \
		do {                                                                          \
			if (!old)                                                             \
				return false;                                                 \
		} while (!pfx##_try_cmpxchg(v, &old, old + 1));                               \
		return true;                                                                  \
	}

COMPAT_ATOMIC_OPS(atomic, atomic_t, int)
COMPAT_ATOMIC_OPS(atomic_long, atomic_long_t, long)
COMPAT_ATOMIC_OPS(atomic64, atomic64_t, s64)

#define xchg(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define cmpxchg(p, old, want)                                                            \
	__extension__({                                                                  \
		__typeof__(*(p)) __cx = (old);                                           \
		__atomic_compare_exchange_n((p), &__cx, (want), false, __ATOMIC_SEQ_CST, \
					    __ATOMIC_RELAXED);                           \
		__cx;                                                                    \
	})

#endif
