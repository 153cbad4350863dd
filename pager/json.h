/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * JSON as reports and answers are made of it: each adder takes NULL for an
 * allocation that failed, owns the value it is given, and returns 0 or -ENOMEM.
 */
#ifndef PAGER_JSON_H
#define PAGER_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

int json_add(struct json_object *obj, const char *name, struct json_object *value);
int json_append(struct json_object *array, struct json_object *value);
int json_add_u64(struct json_object *obj, const char *name, uint64_t value);
int json_add_bool(struct json_object *obj, const char *name, bool value);
/* A string; what is not text in @text becomes '?'.  NULL: no memory. */
struct json_object *json_text(const char *text);
int json_add_text(struct json_object *obj, const char *name, const char *text);

/*
 * File names are any bytes, JSON is Unicode, and a terminal obeys control
 * characters: what is not text becomes '?'.  Cut off to fit @len.
 */
void json_to_text(char *buf, size_t len, const char *name);
/* Is @name all text, and not too long, so that it can be said and named again? */
bool json_is_text(const char *name);

#endif
