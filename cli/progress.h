/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A request that takes long, with a bar on a terminal, and Ctrl-C to end it.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "space.h"

/*
 * As link_ask().  @what names it before the bar.  Interrupted, it returns 130
 * after a line that ends in @stays: what is left as it was.
 */
int progress_ask(struct link *link, struct json_object *request, const char *what,
		 const char *stays, struct json_object **answer);

#endif
