/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How many CPUs there may be.
 */
#ifndef COMPAT_LINUX_CPUMASK_H
#define COMPAT_LINUX_CPUMASK_H

extern unsigned int nr_cpu_ids;

#define num_possible_cpus()	   nr_cpu_ids
#define for_each_possible_cpu(cpu) for ((cpu) = 0; (cpu) < nr_cpu_ids; (cpu)++)

#endif
