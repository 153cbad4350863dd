// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A tier of any kind, from what the user wrote.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crypt.h"
#include "file.h"
#include "nbd.h"
#include "say.h"
#include "tier.h"

#include <linux/printk.h>

static void shrink_file(void *priv)
{
	tier_file_shrink(priv);
}

static void close_file(void *priv)
{
	tier_file_close(priv);
}

static int open_file(struct tier *t, const struct tier_opts *opts, char *err, size_t len)
{
	struct tier_file *f = opts->path ? tier_file_open(opts->path, opts->size, err, len) :
					   tier_file_temp(opts->size, err, len);

	if (!f)
		return -1;
	*t = (struct tier){
		.name = tier_file_name(f),
		.nr_slots = tier_file_slots(f),
		.ops = &tier_file_ops,
		.priv = f,
		.in_memory = tier_file_in_memory(f),
		.readable = tier_file_readable(f),
		.nameless = tier_file_nameless(f),
		.shrink = shrink_file,
		.close = close_file,
	};
	return 0;
}

static void close_nbd(void *priv)
{
	tier_nbd_close(priv);
}

static int open_nbd(struct tier *t, const struct tier_opts *opts, char *err, size_t len)
{
	struct tier_nbd *n = tier_nbd_open(opts->path, opts->size, opts->timeout, err, len);

	if (!n)
		return -1;
	*t = (struct tier){
		.name = tier_nbd_name(n),
		.nr_slots = tier_nbd_slots(n),
		.ops = &tier_nbd_ops,
		.priv = n,
		.close = close_nbd,
	};
	return 0;
}

/* SCHEME://...: the address of something, rather than a path. */
static bool is_address(const char *path)
{
	size_t n = strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+");

	return n && !strncmp(path + n, "://", 3);
}

static int open_any(struct tier *t, const struct tier_opts *opts, char *err, size_t len)
{
	if (opts->path && tier_nbd_uri(opts->path))
		return open_nbd(t, opts, err, len);
	if (opts->path && is_address(opts->path))
		return tier_say(err, len, EINVAL,
				"tier %s: unknown kind of address (there are nbd://HOST/EXPORT and "
				"nbd+unix:///EXPORT?socket=PATH)",
				opts->path);
	if (opts->timeout)
		return tier_say(err, len, EINVAL,
				"tier %s: timeout=: it is no server (leave it out)",
				opts->path ? opts->path : "temporary file");
	return open_file(t, opts, err, len);
}

static struct tier *open_opts(const struct tier_opts *opts, char *err, size_t errlen)
{
	struct tier *inner, *t = malloc(sizeof(*t));

	if (!t) {
		tier_say(err, errlen, ENOMEM, "tier %s: %s",
			 opts->path ? opts->path : "temporary file", strerror(ENOMEM));
		return NULL;
	}
	if (opts->encrypt) {
		struct tier_opts plain = *opts;

		plain.encrypt = false;
		inner = open_opts(&plain, err, errlen);
		if (inner && !tier_crypt(t, inner, err, errlen))
			return t;
		tier_close(inner);
	} else if (!open_any(t, opts, err, errlen)) {
		return t;
	}
	free(t);
	return NULL;
}

struct tier *tier_open(const struct tier_opts *opts, char *err, size_t errlen)
{
	struct tier *t = open_opts(opts, err, errlen);

	if (t && t->readable && !opts->encrypt)
		pr_warn("tier %s: others may read it (chmod 600 %s, or --encrypt)\n", t->name,
			t->name);
	return t;
}

void tier_shrink(struct tier *t)
{
	if (t->shrink)
		t->shrink(t->priv);
}

void tier_close(struct tier *t)
{
	if (!t)
		return;
	t->close(t->priv);
	free(t);
}
