// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "tiers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "budget.h"
#include "state.h"

struct entry {
	struct tier *tier;
	struct swap_tier *swap;
	char *name;
};

/* The name of a tier that is gone; a report may still show it. */
struct name {
	struct name *next;
	char *text;
};

/* The lock guards the list against tiers_stat(); who changes it is alone. */
static struct {
	pthread_mutex_t lock;
	struct entry entry[PAGER_MAX_TIERS];
	unsigned int nr;
	struct name *gone;
	bool encrypt;	  /* all of them, also those to come */
	pthread_t closer; /* of the one removed last, while @closing */
	bool closing;
} tiers = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* As many tiers are there, or soon will be. */
static void set_nr(unsigned int nr)
{
	__atomic_store_n(&pager.has_tier, nr != 0, __ATOMIC_RELAXED);
	reclaim_limits_changed();
}

/* A tier just opened, into the space.  0 or -errno. */
static int add(struct tier *t, int prio)
{
	struct swap_tier_conf conf = {
		.name = t->name,
		.ops = t->ops,
		.priv = t->priv,
		.nr_slots = t->nr_slots,
		.prio = prio,
	};
	struct entry e = { .tier = t, .name = strdup(t->name) };

	if (!e.name)
		return -ENOMEM;
	/* From the moment the space has it a report may ask for its name. */
	pthread_mutex_lock(&tiers.lock);
	e.swap = swap_tier_add(pager.space, &conf);
	if (!IS_ERR(e.swap))
		tiers.entry[tiers.nr++] = e;
	pthread_mutex_unlock(&tiers.lock);
	if (!IS_ERR(e.swap))
		return 0;
	free(e.name);
	return PTR_ERR(e.swap);
}

static void close_gently(struct tier *store)
{
	tier_shrink(store);
	tier_close(store);
}

static void *closer_main(void *store)
{
	prctl(PR_SET_NAME, "vswap-close");
	close_gently(store);
	return NULL;
}

static void wait_closed(void)
{
	if (tiers.closing)
		pthread_join(tiers.closer, NULL);
	tiers.closing = false;
}

/*
 * Its pages are elsewhere.  That a file without a name gives its room back is waited for by
 * none but the next tier, which may need it: on some disks that takes as long as to read it.
 */
static void close_removed(struct tier *store)
{
	wait_closed();
	if (store->nameless && !pthread_create(&tiers.closer, NULL, closer_main, store))
		tiers.closing = true;
	else
		close_gently(store);
}

int tiers_add(const struct tier_opts *opts, int prio, char *err, size_t errlen)
{
	struct tier_opts all = *opts;
	struct tier *t;
	int ret;

	if (tiers.nr == PAGER_MAX_TIERS) {
		snprintf(err, errlen, "tier %s: one too many (%d are there; remove one)",
			 opts->path, PAGER_MAX_TIERS);
		return -1;
	}
	/* One that exists is locked as well; the other kind is made anew each time. */
	for (unsigned int i = 0; i < tiers.nr && opts->path; i++)
		if (!strcmp(tiers.entry[i].name, opts->path)) {
			snprintf(err, errlen, "tier %s: is there already (name another)",
				 opts->path);
			return -1;
		}
	wait_closed();
	all.encrypt = tiers.encrypt;
	t = tier_open(&all, err, errlen);
	if (!t)
		return -1;
	ret = add(t, prio);
	if (!ret) {
		set_nr(tiers.nr);
		return 0;
	}
	if (ret == -ENOSPC)
		snprintf(err, errlen,
			 "tier %s: no slot numbers left for it, all tiers together hold 4 TiB "
			 "(remove one)",
			 t->name);
	else
		snprintf(err, errlen, "tier %s: %s", t->name, strerror(-ret));
	tier_close(t);
	return -1;
}

/*
 * The temporary tier is not where the user wanted it.  Of a TMPDIR in memory nothing is
 * said: such a tier would be none.
 */
static void say_unused_tmpdir(void)
{
	const char *dir = getenv("TMPDIR");
	struct stat st;
	int err = 0;

	if (!dir || !*dir)
		return;
	if (stat(dir, &st))
		err = errno;
	else if (!S_ISDIR(st.st_mode))
		err = ENOTDIR;
	else if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS))
		err = errno;
	if (err)
		pager_say("TMPDIR %s: %s: the temporary tier is in %s (set it to a directory that "
			  "can be written to, or give --tier)",
			  dir, strerror(err), tiers.entry[0].name);
}

int tiers_open(const struct pager_opts *opts)
{
	char err[512];
	int ret = 0;

	tiers.encrypt = opts->encrypt;
	if (!opts->nr_tiers && !opts->no_tier) {
		ret = tiers_add(&(struct tier_opts){ 0 }, 0, err, sizeof(err));
		if (!ret)
			say_unused_tmpdir();
	}
	if (!ret && tiers.nr && tiers.entry[0].tier->in_memory)
		pager_say(
			"tier %s: is in memory (tmpfs), not on a disk (give --tier, or set TMPDIR)",
			tiers.entry[0].name);
	for (unsigned int i = 0; i < opts->nr_tiers && !ret; i++)
		ret = tiers_add(&(struct tier_opts){ .path = opts->tier[i].path,
						     .size = opts->tier[i].size,
						     .timeout = opts->tier[i].timeout },
				opts->tier[i].prio, err, sizeof(err));
	if (ret)
		pager_say("%s", err);
	return ret;
}

void tiers_close(void)
{
	struct name *name;

	/* The process ends, and what room is left is given back with it. */
	if (tiers.closing)
		pthread_detach(tiers.closer);
	tiers.closing = false;
	while (tiers.nr) {
		struct entry *e = &tiers.entry[--tiers.nr];

		tier_close(e->tier);
		free(e->name);
	}
	while ((name = tiers.gone)) {
		tiers.gone = name->next;
		free(name->text);
		free(name);
	}
}

/* Off the list, its name kept. */
static void forget(unsigned int i)
{
	struct name *gone = malloc(sizeof(*gone));

	pthread_mutex_lock(&tiers.lock);
	/* Without memory the name is never given back. */
	if (gone) {
		gone->text = tiers.entry[i].name;
		gone->next = tiers.gone;
		tiers.gone = gone;
	}
	tiers.entry[i] = tiers.entry[--tiers.nr];
	pthread_mutex_unlock(&tiers.lock);
}

int tiers_remove(struct swap_tier *tier, bool (*go_on)(void *priv, u64 left), void *priv)
{
	const struct swapoff_watch watch = { go_on, priv };
	struct tier *store;
	unsigned int i;
	int ret;

	for (i = 0; tiers.entry[i].swap != tier; i++)
		;
	store = tiers.entry[i].tier;
	/* Where memory is all there will be, the pool may have more of it from now on. */
	set_nr(tiers.nr - 1);
	ret = swapoff_fits(pager.space, tier) ? swapoff(pager.space, tier, &watch) : -ENOSPC;
	if (!ret || ret == -EIO) {
		forget(i);
		close_removed(store);
	}
	set_nr(tiers.nr);
	return ret;
}

struct swap_tier *tiers_find(const char *word)
{
	struct swap_tier *found = NULL;

	for (unsigned int i = 0; i < tiers.nr; i++)
		if (!strcmp(tiers.entry[i].name, word))
			return tiers.entry[i].swap;
	for (unsigned int i = 0; i < tiers.nr; i++) {
		const char *base = strrchr(tiers.entry[i].name, '/');

		if (!base || strcmp(base + 1, word))
			continue;
		if (found)
			return NULL;
		found = tiers.entry[i].swap;
	}
	return found;
}

void *tiers_priv(const struct swap_tier *tier)
{
	for (unsigned int i = 0; i < tiers.nr; i++)
		if (tiers.entry[i].swap == tier)
			return tiers.entry[i].tier->priv;
	return NULL;
}

/* The lock is held. */
static const char *name_of(const void *priv)
{
	for (unsigned int i = 0; i < tiers.nr; i++)
		if (tiers.entry[i].tier->priv == priv)
			return tiers.entry[i].name;
	return "";
}

const char *tiers_name(const void *priv)
{
	const char *name;

	pthread_mutex_lock(&tiers.lock);
	name = name_of(priv);
	pthread_mutex_unlock(&tiers.lock);
	return name;
}

unsigned int tiers_stat(struct swap_tier_stat *st)
{
	unsigned int nr = 0;

	pthread_mutex_lock(&tiers.lock);
	while (nr < SWAP_MAX_TIERS && swap_tier_stat(pager.space, nr, &st[nr])) {
		/* The space's own name goes with the tier, which swapoff() may end any moment. */
		st[nr].name = name_of(st[nr].priv);
		nr++;
	}
	pthread_mutex_unlock(&tiers.lock);
	return nr;
}
