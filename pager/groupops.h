/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The operations on groups, and joining: for control_start().
 */
#ifndef PAGER_GROUPOPS_H
#define PAGER_GROUPOPS_H

#include "control.h"

extern const struct control_op group_ops[];

#endif
