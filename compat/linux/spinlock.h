/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A lock for a few instructions: 4 bytes, spins, then gives the CPU away, for
 * unlike in the kernel the holder may not be running.
 */
#ifndef COMPAT_LINUX_SPINLOCK_H
#define COMPAT_LINUX_SPINLOCK_H

#include <linux/compiler.h>
#include <linux/lockdep.h>

typedef struct {
	int locked;
	struct compat_dep dep;
} spinlock_t;

#ifdef VSWAP_DEBUG_LOCKS
#define COMPAT_DEP_INIT , .dep = { .rank = 0 }
#else
#define COMPAT_DEP_INIT
#endif
#define DEFINE_SPINLOCK(x) spinlock_t x = { .locked = 0 COMPAT_DEP_INIT }

void compat_spin_wait(spinlock_t *lock);

static inline void spin_lock_init(spinlock_t *lock)
{
	*lock = (spinlock_t){ .locked = 0 };
}

static inline bool spin_trylock(spinlock_t *lock)
{
	if (__atomic_load_n(&lock->locked, __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&lock->locked, 1, __ATOMIC_ACQUIRE))
		return false;
	compat_dep_acquired(&lock->dep);
	return true;
}

static inline void spin_lock(spinlock_t *lock)
{
	compat_dep_check(&lock->dep, lock->dep.rank);
	if (unlikely(__atomic_exchange_n(&lock->locked, 1, __ATOMIC_ACQUIRE)))
		compat_spin_wait(lock);
	compat_dep_acquired(&lock->dep);
}

static inline void spin_unlock(spinlock_t *lock)
{
	compat_dep_release(&lock->dep);
	__atomic_store_n(&lock->locked, 0, __ATOMIC_RELEASE);
}

static inline bool spin_is_locked(spinlock_t *lock)
{
	return __atomic_load_n(&lock->locked, __ATOMIC_RELAXED);
}

/* There are no interrupts to keep out. */
#define spin_lock_irqsave(lock, flags) \
	do {                           \
		(flags) = 0;           \
		spin_lock(lock);       \
	} while (0)
#define spin_unlock_irqrestore(lock, flags) \
	do {                                \
		(void)(flags);              \
		spin_unlock(lock);          \
	} while (0)

#endif
