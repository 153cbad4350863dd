/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef AGENT_ADVISE_H
#define AGENT_ADVISE_H

struct agent_shared;

/* Tell the pager in @control what was advised before there was one. */
void advise_set_up(struct agent_shared *control);

#endif
