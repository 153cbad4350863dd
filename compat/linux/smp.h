/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which CPU this is: a hint, as a thread may move at any time.
 */
#ifndef COMPAT_LINUX_SMP_H
#define COMPAT_LINUX_SMP_H

#include <linux/cpumask.h>

unsigned int raw_smp_processor_id(void);
#define smp_processor_id() raw_smp_processor_id()

#endif
