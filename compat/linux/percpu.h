/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One copy for each CPU.  A thread may be moved between asking for its CPU's
 * copy and using it, so updates are atomic, only never contended for long.
 */
#ifndef COMPAT_LINUX_PERCPU_H
#define COMPAT_LINUX_PERCPU_H

#include <linux/compiler.h>
#include <linux/cpumask.h>
#include <linux/smp.h>
#include <linux/types.h>

#define __percpu

/* Copies of one thing are this far apart. */
#define COMPAT_PERCPU_SHIFT 18

/* Zeroed, on cache lines of their own.  NULL: no memory. */
void *compat_percpu_alloc(size_t size);
void free_percpu(void *p);

static inline void *compat_percpu_ptr(void *p, unsigned int cpu)
{
	return (char *)p + ((size_t)cpu << COMPAT_PERCPU_SHIFT);
}

#define alloc_percpu(type)  ((type *)compat_percpu_alloc(sizeof(type)))
#define per_cpu_ptr(p, cpu) ((__typeof__(p))compat_percpu_ptr((p), (cpu)))
#define raw_cpu_ptr(p)	    per_cpu_ptr(p, raw_smp_processor_id())
#define this_cpu_ptr(p)	    raw_cpu_ptr(p)

/* @field: member of a per-CPU struct, spelt p->member as in the kernel. */
#define this_cpu_add(field, n)                                                              \
	__atomic_fetch_add((__typeof__(&(field)))compat_percpu_ptr((void *)&(field),        \
								   raw_smp_processor_id()), \
			   (n), __ATOMIC_RELAXED)
#define this_cpu_inc(field) this_cpu_add(field, 1)

#endif
