/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A sleeping lock: one futex word, 0 free, 1 held, 2 held with sleepers.
 */
#ifndef COMPAT_LINUX_MUTEX_H
#define COMPAT_LINUX_MUTEX_H

#include <linux/compiler.h>
#include <linux/lockdep.h>

struct mutex {
	int state;
	struct compat_dep dep;
};

#define DEFINE_MUTEX(x) struct mutex x = { .state = 0 }

void compat_mutex_wait(struct mutex *lock);
void compat_mutex_wake(struct mutex *lock);

static inline void mutex_init(struct mutex *lock)
{
	*lock = (struct mutex){ .state = 0 };
}

static inline void mutex_destroy(struct mutex *lock)
{
	(void)lock;
}

static inline bool compat_mutex_grab(struct mutex *lock)
{
	int free = 0;

	return __atomic_compare_exchange_n(&lock->state, &free, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static inline int mutex_trylock(struct mutex *lock)
{
	if (!compat_mutex_grab(lock))
		return 0;
	compat_dep_acquired(&lock->dep);
	return 1;
}

static inline void mutex_lock(struct mutex *lock)
{
	compat_dep_check(&lock->dep, lock->dep.rank + 1);
	if (unlikely(!compat_mutex_grab(lock)))
		compat_mutex_wait(lock);
	compat_dep_acquired(&lock->dep);
}

static inline void mutex_unlock(struct mutex *lock)
{
	compat_dep_release(&lock->dep);
	if (unlikely(__atomic_exchange_n(&lock->state, 0, __ATOMIC_RELEASE) == 2))
		compat_mutex_wake(lock);
}

static inline bool mutex_is_locked(struct mutex *lock)
{
	return __atomic_load_n(&lock->state, __ATOMIC_RELAXED) != 0;
}

#endif
