/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which CPU this is: a hint, as a thread may move at any time.
 */
#ifndef COMPAT_LINUX_SMP_H
#define COMPAT_LINUX_SMP_H

#include <linux/compiler.h>
#include <linux/cpumask.h>

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

unsigned int compat_ask_cpu(void);

static inline unsigned int raw_smp_processor_id(void)
{
#ifdef RSEQ_SIG
	/* The kernel writes it there for each thread that glibc has registered. */
	const struct rseq *rseq = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	unsigned int cpu = READ_ONCE(rseq->cpu_id);

	/* Not registered: negative, which is more than there are. */
	if (likely(cpu < nr_cpu_ids))
		return cpu;
#endif
	return compat_ask_cpu();
}
#define smp_processor_id() raw_smp_processor_id()

#endif
