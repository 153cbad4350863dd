/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Writeback of the pool's oldest objects.  Inside core only.
 */
#ifndef CORE_WRITEBACK_H
#define CORE_WRITEBACK_H

#include "space.h"

/*
 * One batch of the pool's oldest objects to a tier, to make room for one newer: of
 * @top and the groups in it, or of all that have not less than is to be left to
 * them.  Folio locks may be held.  Returns pool bytes set free.
 */
u64 writeback_room(struct swap_space *space, struct swap_group *top);
/* Have the memory it needs; before the first tier comes, under tier_mutex.  0, -ENOMEM. */
int writeback_prepare(struct swap_space *space);
void writeback_exit(struct swap_space *space);
/* Bytes that takes. */
u64 writeback_bytes(struct swap_space *space);

#endif
