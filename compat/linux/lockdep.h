/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lock order, checked in debug builds (VSWAP_DEBUG_LOCKS).
 *
 * A lock may be given a rank with lockdep_set_subclass(), the kernel's own
 * name for it.  A thread may take a ranked lock only when all ranked locks it
 * holds have a lower one; mutexes may be of the same rank, too (a batch of
 * folios).  Rank 0 is not checked.  A trylock cannot deadlock, so it may be
 * taken in any order.
 */
#ifndef COMPAT_LINUX_LOCKDEP_H
#define COMPAT_LINUX_LOCKDEP_H

#include <linux/bug.h>
#include <linux/compiler.h>

#ifdef VSWAP_DEBUG_LOCKS

struct compat_dep {
	const void *owner; /* names the thread that holds the lock */
	unsigned int rank;
};

extern __thread unsigned int compat_held[8]; /* locks of each rank this thread holds */

/* @below: no lock of this rank or a higher one may be held. */
static inline void compat_dep_check(const struct compat_dep *dep, unsigned int below)
{
	unsigned int r;

	BUG_ON(__atomic_load_n(&dep->owner, __ATOMIC_RELAXED) == compat_held);
	for (r = below; dep->rank && r < 8; r++)
		BUG_ON(compat_held[r]);
}

static inline void compat_dep_acquired(struct compat_dep *dep)
{
	__atomic_store_n(&dep->owner, compat_held, __ATOMIC_RELAXED);
	compat_held[dep->rank]++;
}

static inline void compat_dep_release(struct compat_dep *dep)
{
	BUG_ON(__atomic_load_n(&dep->owner, __ATOMIC_RELAXED) != compat_held);
	__atomic_store_n(&dep->owner, NULL, __ATOMIC_RELAXED);
	compat_held[dep->rank]--;
}

#define lockdep_set_subclass(lock, sub) ((void)((lock)->dep.rank = (sub)))
#define lockdep_assert_held(lock) \
	BUG_ON(__atomic_load_n(&(lock)->dep.owner, __ATOMIC_RELAXED) != compat_held)

#else

struct compat_dep {
};

#define compat_dep_check(dep, below) \
	do {                         \
	} while (0)
#define compat_dep_acquired(dep) \
	do {                     \
	} while (0)
#define compat_dep_release(dep) \
	do {                    \
	} while (0)
#define lockdep_set_subclass(lock, sub) ((void)(lock))
#define lockdep_assert_held(lock)	((void)(lock))

#endif
#endif
