// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "json.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/* Bytes at @s that make one well-formed UTF-8 character above ASCII, or 0 if none does. */
static size_t utf8_length(const unsigned char *s)
{
	size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	uint32_t code = s[0] & (0x7f >> len);
	size_t i;

	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	for (i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	/* Longer than needed, a surrogate, or past the last character. */
	if ((len == 3 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
	    (len == 4 && (code < 0x10000 || code > 0x10ffff)))
		return 0;
	return len;
}

#define TEXT_MAX 4096

void json_to_text(char *buf, size_t len, const char *name)
{
	const unsigned char *s = (const unsigned char *)name;
	size_t n, used = 0;

	while (s && *s) {
		n = *s < 0x80 ? *s >= ' ' && *s != 0x7f : utf8_length(s);
		if (used + (n ? n : 1) >= len)
			break;
		if (n)
			memcpy(buf + used, s, n);
		else
			buf[used] = '?';
		used += n ? n : 1;
		s += n ? n : 1;
	}
	buf[used] = '\0';
}

bool json_is_text(const char *name)
{
	char buf[TEXT_MAX];

	json_to_text(buf, sizeof(buf), name);
	return !strcmp(buf, name);
}

int json_add(struct json_object *obj, const char *name, struct json_object *value)
{
	if (!value)
		return -ENOMEM;
	if (json_object_object_add(obj, name, value)) {
		json_object_put(value);
		return -ENOMEM;
	}
	return 0;
}

int json_append(struct json_object *array, struct json_object *value)
{
	if (!value)
		return -ENOMEM;
	if (json_object_array_add(array, value)) {
		json_object_put(value);
		return -ENOMEM;
	}
	return 0;
}

int json_add_u64(struct json_object *obj, const char *name, uint64_t value)
{
	return json_add(obj, name, json_object_new_uint64(value));
}

int json_add_bool(struct json_object *obj, const char *name, bool value)
{
	return json_add(obj, name, json_object_new_boolean(value));
}

struct json_object *json_text(const char *text)
{
	char buf[TEXT_MAX];

	json_to_text(buf, sizeof(buf), text);
	return json_object_new_string(buf);
}

int json_add_text(struct json_object *obj, const char *name, const char *text)
{
	return json_add(obj, name, json_text(text));
}
