/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The operations on groups, and joining: for control_start().
 */
#ifndef PAGER_GROUPOPS_H
#define PAGER_GROUPOPS_H

#include "control.h"

extern const struct control_op group_ops[];

/*
 * The tier of that swap_tier_stat.nr, which a user calls @name, is to go: 0, or -1
 * with a refusal of @call, for a group would have nowhere to put its pages.  Until
 * group_tier_left() no group is set to need it.
 */
int group_tier_leaves(struct control_call *call, const char *name, unsigned int nr);
/* It is gone, or stays.  The number may be another tier's soon: no group keeps it. */
void group_tier_left(unsigned int nr, bool gone);

#endif
