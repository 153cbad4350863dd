/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Snapshots as Prometheus and its kind read them: the OpenMetrics text format.
 */
#ifndef CLI_OPENMETRICS_H
#define CLI_OPENMETRICS_H

#include <stdio.h>

#include "space.h"

/* All families with the samples of all spaces, "# EOF" at the end. */
void openmetrics_print(FILE *f, const struct space_list *list);

#endif
