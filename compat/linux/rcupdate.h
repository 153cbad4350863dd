/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * RCU by liburcu's membarrier flavour: a reader is two plain stores to its own
 * memory.  A thread is registered when it reads for the first time and leaves
 * when it ends; callers need not know.
 *
 * Callbacks are run by a thread of our own: liburcu's would make whoever waits
 * for them wait 10 ms, which is half of what starting a program may cost.
 *
 * liburcu is not built for the thread sanitizer, so what it promises (a reader's
 * end before the end of the grace period) is told to that here.
 */
#ifndef COMPAT_LINUX_RCUPDATE_H
#define COMPAT_LINUX_RCUPDATE_H

#include <linux/compiler.h>
#include <linux/container_of.h>

/* Readers inline, unless the sanitizer would look into them. */
#if !defined(_LGPL_SOURCE) && !defined(COMPAT_TSAN)
#define _LGPL_SOURCE
#endif
#define URCU_NO_COMPAT_IDENTIFIERS
#include <urcu/urcu-memb.h>

#ifdef COMPAT_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
extern char compat_rcu_grace; /* stands for all grace periods */
#define compat_tsan_acquire(p) __tsan_acquire(p)
#define compat_tsan_release(p) __tsan_release(p)
#else
#define compat_tsan_acquire(p) \
	do {                   \
	} while (0)
#define compat_tsan_release(p) \
	do {                   \
	} while (0)
#endif

/* liburcu has a struct of that name, too. */
struct compat_rcu_head {
	struct compat_rcu_head *next;
	void (*func)(struct compat_rcu_head *head);
};
#define rcu_head compat_rcu_head

extern __thread bool compat_rcu_reader; /* this thread is registered */
void compat_rcu_register(void);

static inline void rcu_read_lock(void)
{
	if (unlikely(!compat_rcu_reader))
		compat_rcu_register();
	urcu_memb_read_lock();
}

static inline void rcu_read_unlock(void)
{
	compat_tsan_release(&compat_rcu_grace);
	urcu_memb_read_unlock();
}

/* liburcu's own are not for this sanitizer. */
#undef rcu_dereference
#undef rcu_assign_pointer
#define rcu_dereference(p)		__atomic_load_n(&(p), __ATOMIC_ACQUIRE)
#define rcu_dereference_protected(p, c) __atomic_load_n(&(p), __ATOMIC_RELAXED)
#define rcu_assign_pointer(p, v)	__atomic_store_n(&(p), (v), __ATOMIC_RELEASE)
#define RCU_INIT_POINTER(p, v)		__atomic_store_n(&(p), (v), __ATOMIC_RELAXED)

/* Have @func called after a grace period, by some thread, no lock held. */
void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head));
/* Callbacks queued before have run when it returns. */
void rcu_barrier(void);
void synchronize_rcu(void);

#endif
