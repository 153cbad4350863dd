// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What spinlocks and mutexes do when the lock is taken.
 */
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/futex.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>

#define SPINS 128

#ifdef VSWAP_DEBUG_LOCKS
__thread unsigned int compat_held[8];
#endif

/*
 * A holder works for well under a microsecond unless it lost its CPU; past
 * that time the CPU is better given to it.
 */
void compat_spin_wait(spinlock_t *lock)
{
	unsigned int spins = 0;

	do {
		while (__atomic_load_n(&lock->locked, __ATOMIC_RELAXED)) {
			if (++spins < SPINS)
				cpu_relax();
			else
				sched_yield();
		}
	} while (__atomic_exchange_n(&lock->locked, 1, __ATOMIC_ACQUIRE));
}

static void futex(int *word, int op, int val)
{
	syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, NULL, NULL, 0);
}

void compat_mutex_wait(struct mutex *lock)
{
	unsigned int spins;

	for (spins = 0; spins < SPINS; spins++) {
		if (compat_mutex_grab(lock))
			return;
		cpu_relax();
	}
	while (__atomic_exchange_n(&lock->state, 2, __ATOMIC_ACQUIRE) != 0)
		futex(&lock->state, FUTEX_WAIT, 2);
}

void compat_mutex_wake(struct mutex *lock)
{
	futex(&lock->state, FUTEX_WAKE, 1);
}
