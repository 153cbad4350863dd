/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The operations every space has: for control_start().
 */
#ifndef PAGER_OPS_H
#define PAGER_OPS_H

#include "control.h"

extern const struct control_op control_ops[];

/* map.c: where the pages of all clients are. */
int op_map(struct control_call *call);

#endif
