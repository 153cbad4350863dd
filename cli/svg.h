/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The answer to "map" as a picture.
 */
#ifndef CLI_SVG_H
#define CLI_SVG_H

#include <stdio.h>

#include <json-c/json.h>

/*
 * Draw @map, the answer of the operation, as SVG.  @title is any text.  Returns 0,
 * or -EINVAL when the answer is not one; what was written to @f is of no use then.
 */
int svg_map(FILE *f, struct json_object *map, const char *title);

#endif
