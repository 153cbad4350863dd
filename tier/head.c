// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The head of a store that was there before us: may the rest be overwritten?
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"

#define SAMPLES 64

static const char own_magic[] =
	"vswap tier 1\n"
	"Swap space of vswap.  Once vswap has ended nothing in here means anything.\n";

static bool is_zero(const char *buf, size_t len)
{
	return !len || (!buf[0] && !memcmp(buf, buf + 1, len - 1));
}

/* Zeros at [@pos, @pos + @len), as far as the store reaches? */
static enum head_content look_at(head_read_t read, void *store, char *buf, size_t len, u64 pos)
{
	ssize_t ret = read(store, buf, len, pos);

	if (ret < 0)
		return HEAD_UNREADABLE;
	return is_zero(buf, (size_t)ret) ? HEAD_EMPTY : HEAD_DATA;
}

enum head_content head_look(head_read_t read, void *store, u64 size)
{
	char *buf = calloc(1, HEAD_BYTES);
	enum head_content c;

	if (!buf) {
		errno = ENOMEM;
		return HEAD_UNREADABLE;
	}
	c = look_at(read, store, buf, HEAD_BYTES, 0);
	if (c == HEAD_DATA && !memcmp(buf + SWAP_PAGE_SIZE - 10, "SWAPSPACE2", 10))
		c = HEAD_SWAP;
	else if (c == HEAD_DATA && !memcmp(buf, own_magic, sizeof(own_magic) - 1))
		c = HEAD_OWN;
	for (u64 i = 1; i < SAMPLES && c == HEAD_EMPTY; i++)
		c = look_at(read, store, buf, SWAP_PAGE_SIZE,
			    size / SAMPLES * i & ~(u64)(SWAP_PAGE_SIZE - 1));
	if (c == HEAD_EMPTY && size > HEAD_BYTES)
		c = look_at(read, store, buf, HEAD_BYTES, size - HEAD_BYTES);
	free(buf);
	return c;
}

void head_page(char page[SWAP_PAGE_SIZE])
{
	memset(page, 0, SWAP_PAGE_SIZE);
	memcpy(page, own_magic, sizeof(own_magic) - 1);
}
