// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * libvswap: the virtual swap space behind a plain interface.
 *
 * A stored page has no folio.  Folios exist only inside a call, laid over the
 * caller's own pages: a store puts them into the swap cache dirty, has them
 * written out and takes them away; a load puts them there empty, has them
 * filled and takes them away.
 *
 * A folio stays locked from when it enters the cache until it has left it.  So
 * whoever finds another's folio in front of an entry learns nothing from it but
 * that the entry is busy; he waits for the lock, lets go, and starts again.  He
 * holds no lock of his own then, for two callers may want the same entries in
 * different orders.
 *
 * One who waited may look at a folio whose call is over, therefore the structs
 * (shells) go back to a list with their last reference and are freed only with
 * the store.
 */
#include "../core/swap.h"

#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/err.h>
#include <linux/printk.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tier/tier.h"
#include "store.h"

#define WRITEBACK (1ULL << 20) /* bytes moved at one go, once the pool is full enough */

_Static_assert(VSWAP_PAGE_SIZE == SWAP_PAGE_SIZE, "one size of page");

struct shell {
	struct swap_folio folio;
	struct vswap *owner;
	struct shell *next; /* idle */
};

/* Shells are made by the batch. */
struct crate {
	struct shell shell[STORE_BATCH];
	struct crate *next;
};

struct vswap_tier {
	struct tier *store;
	struct swap_tier *tier;
	struct vswap_tier *next;
};

/* ---- shells ---------------------------------------------------------- */

static void shell_release(struct swap_folio *folio)
{
	struct shell *shell = (struct shell *)folio;
	struct vswap *s = shell->owner;

	pthread_mutex_lock(&s->lock);
	shell->next = s->idle;
	s->idle = shell;
	pthread_mutex_unlock(&s->lock);
}

int store_reserve(struct vswap *s)
{
	struct crate *crate = aligned_alloc(_Alignof(struct crate), sizeof(*crate));

	if (!crate)
		return -ENOMEM;
	memset(crate, 0, sizeof(*crate));
	for (unsigned int i = 0; i < STORE_BATCH; i++)
		crate->shell[i].owner = s;
	for (unsigned int i = 0; i < STORE_BATCH - 1; i++)
		crate->shell[i].next = &crate->shell[i + 1];
	pthread_mutex_lock(&s->lock);
	crate->next = s->crates;
	s->crates = crate;
	crate->shell[STORE_BATCH - 1].next = s->idle;
	s->idle = &crate->shell[0];
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static struct shell *shell_get(struct vswap *s)
{
	struct shell *shell;

	do {
		pthread_mutex_lock(&s->lock);
		shell = s->idle;
		if (shell)
			s->idle = shell->next;
		pthread_mutex_unlock(&s->lock);
	} while (!shell && !store_reserve(s));
	return shell;
}

/* A locked folio over the page @data, or NULL. */
static struct swap_folio *folio_over(struct vswap *s, void *data)
{
	struct shell *shell = shell_get(s);

	if (!shell)
		return NULL;
	swap_folio_init(&shell->folio, data, 0, NULL, shell_release);
	/* Nobody knows it yet; and only by trylock may one thread have many. */
	BUG_ON(!swap_folio_trylock(&shell->folio));
	return &shell->folio;
}

static void folio_done(struct swap_folio *folio)
{
	swap_folio_unlock(folio);
	swap_folio_put(folio);
}

/* ---- life ------------------------------------------------------------ */

struct vswap *vswap_create(const struct vswap_conf *conf, size_t size)
{
	NO_CANCEL;
	struct vswap_conf c = { 0 };
	struct swap_space_conf sc = { 0 };
	struct vswap *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	if (conf)
		memcpy(&c, conf, size < sizeof(c) ? size : sizeof(c));
	s->writeback = 90;
	s->pool_limit = c.pool_limit;
	if (!s->pool_limit)
		s->pool_limit = (u64)sysconf(_SC_PHYS_PAGES) * (u64)sysconf(_SC_PAGESIZE);
	sc.compressor = c.compressor;
	sc.pool_limit = s->pool_limit;
	errno = pthread_mutex_init(&s->lock, NULL);
	if (errno) {
		free(s);
		return NULL;
	}
	s->space = swap_space_create(&sc);
	if (IS_ERR(s->space)) {
		errno = (int)-PTR_ERR(s->space);
		pthread_mutex_destroy(&s->lock);
		free(s);
		return NULL;
	}
	return s;
}

void vswap_destroy(struct vswap *s)
{
	NO_CANCEL;
	struct vswap_tier *t;
	struct crate *crate;

	if (!s)
		return;
	while (s->regions)
		vswap_unmap(s->regions);
	swap_space_destroy(s->space);
	while ((t = s->tiers)) {
		s->tiers = t->next;
		tier_close(t->store);
		free(t);
	}
	while ((crate = s->crates)) {
		s->crates = crate->next;
		free(crate);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- what went wrong -------------------------------------------------- */

int store_says(struct vswap *s, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pthread_mutex_lock(&s->lock);
	vsnprintf(s->message, sizeof(s->message), fmt, ap);
	pthread_mutex_unlock(&s->lock);
	va_end(ap);
	return err;
}

size_t vswap_message(struct vswap *s, char *line, size_t len)
{
	char message[sizeof(s->message)];

	/* @line may be in a region: a fault there takes the lock. */
	pthread_mutex_lock(&s->lock);
	memcpy(message, s->message, sizeof(message));
	pthread_mutex_unlock(&s->lock);
	if (len)
		snprintf(line, len, "%s", message);
	return strlen(message);
}

/* ---- pages ----------------------------------------------------------- */

static bool aligned(const void *p)
{
	return !((uintptr_t)p & (SWAP_PAGE_SIZE - 1));
}

/* Now and then, keep the pool as full as it may be by moving its oldest out. */
static void relieve_pool(struct vswap *s, unsigned int stored)
{
	unsigned int percent = __atomic_load_n(&s->writeback, __ATOMIC_RELAXED);
	u64 mark;

	if (percent >= 100 ||
	    __atomic_add_fetch(&s->unchecked, stored, __ATOMIC_RELAXED) < STORE_BATCH)
		return;
	__atomic_store_n(&s->unchecked, 0, __ATOMIC_RELAXED);
	mark = __atomic_load_n(&s->pool_limit, __ATOMIC_RELAXED) / 100 * percent;
	if (swap_pool_bytes(s->space) > mark)
		swap_writeback(s->space, WRITEBACK);
}

unsigned int store_pages(struct vswap *s, void *const *pages, unsigned int nr, vswap_entry *entries,
			 int *err)
{
	struct swap_folio *folio[STORE_BATCH];
	unsigned int have, cached = 0, stored = 0;

	relieve_pool(s, nr);
	for (have = 0; have < nr; have++) {
		folio[have] = folio_over(s, pages[have]);
		if (!folio[have])
			break;
		set_bit(SWAP_FOLIO_UPTODATE, &folio[have]->flags);
		set_bit(SWAP_FOLIO_DIRTY, &folio[have]->flags);
	}
	if (have)
		cached = folios_alloc_swap(s->space, NULL, folio, have);
	if (cached)
		swap_writeout(s->space, folio, cached);

	for (unsigned int i = 0; i < nr; i++) {
		entries[i] = 0;
		if (i >= have)
			continue;
		if (i < cached && !swap_folio_test(folio[i], SWAP_FOLIO_DIRTY)) {
			entries[i] = folio[i]->entry.val;
			stored++;
			swap_cache_del_folio(s->space, folio[i]);
		} else if (i < cached) {
			folio_put_swap(s->space, folio[i]);
			folio_free_swap(s->space, folio[i]);
		}
		folio_done(folio[i]);
	}
	*err = cached < nr ? -ENOMEM : stored < nr ? -ENOSPC : 0;
	return stored;
}

int store_full(struct vswap *s, const char *who, int err)
{
	if (err == -ENOMEM)
		return store_says(s, err, "%s: no memory", who);
	if (err == -EBUSY)
		return store_says(s, err, "%s: pages cannot be had (a device may use them)", who);
	return store_says(
		s, err,
		"%s: no room in the pool of %llu MiB nor on a tier (raise the pool's "
		"limit, or add a tier)",
		who, (unsigned long long)__atomic_load_n(&s->pool_limit, __ATOMIC_RELAXED) >> 20);
}

/* Up to STORE_BATCH aligned pages, one after the other.  All or nothing. */
static int store_batch(struct vswap *s, char *pages, unsigned int nr, vswap_entry *entries)
{
	void *page[STORE_BATCH] = { NULL };
	int err;

	for (unsigned int i = 0; i < nr; i++)
		page[i] = pages + i * SWAP_PAGE_SIZE;
	if (store_pages(s, page, nr, entries, &err) == nr)
		return 0;
	for (unsigned int i = 0; i < nr; i++)
		if (entries[i])
			vswap_free(s, &entries[i], 1);
	return store_full(s, "store", err);
}

int vswap_store(struct vswap *s, const void *pages, size_t nr, vswap_entry *entries)
{
	NO_CANCEL;
	char *bounce = NULL, *from = (char *)pages;
	size_t done = 0;
	int err = 0;

	if (!aligned(pages)) {
		bounce = aligned_alloc(SWAP_PAGE_SIZE, STORE_BATCH * SWAP_PAGE_SIZE);
		if (!bounce)
			return store_says(s, -ENOMEM, "store: no memory");
	}
	while (done < nr && !err) {
		unsigned int n = nr - done < STORE_BATCH ? (unsigned int)(nr - done) : STORE_BATCH;

		if (bounce)
			memcpy(bounce, from, n * SWAP_PAGE_SIZE);
		err = store_batch(s, bounce ? bounce : from, n, entries + done);
		if (!err)
			done += n;
		from += n * SWAP_PAGE_SIZE;
	}
	if (err)
		vswap_free(s, entries, done);
	free(bounce);
	return err;
}

/* Somebody else has @entry in the cache: wait until he has not. */
static void wait_for(struct vswap *s, vswap_entry entry)
{
	struct swap_folio *folio = swap_cache_get_folio(s->space, vswp_entry(entry));

	if (!folio)
		return;
	swap_folio_lock(folio);
	folio_done(folio);
}

/*
 * Of two errors of a load.  No other may hide -ENOMEM, with which pages may not have been
 * tried; and what another try may mend comes before what none will.
 */
static int load_error(int err, int other)
{
	static const int first[] = { -ENOMEM, -EAGAIN, -EIO };

	for (unsigned int i = 0; i < sizeof(first) / sizeof(*first); i++)
		if (err == first[i] || other == first[i])
			return first[i];
	return err ? err : other;
}

/*
 * Up to STORE_BATCH aligned pages.  What is busy when its turn comes is left for
 * another round, after everything else has been let go.
 */
static int load_batch(struct vswap *s, const vswap_entry *entries, unsigned int nr, char *pages)
{
	struct swap_folio *folio[STORE_BATCH];
	unsigned int todo[STORE_BATCH], left = nr, have, busy;
	int err = 0, ret;

	for (unsigned int i = 0; i < nr; i++)
		todo[i] = i;
	while (left) {
		have = 0;
		busy = 0;
		for (unsigned int i = 0; i < left; i++) {
			struct swap_folio *f = folio_over(s, pages + todo[i] * SWAP_PAGE_SIZE);

			ret = f ? swap_cache_add_folio(s->space, vswp_entry(entries[todo[i]]), f) :
				  -ENOMEM;
			if (!ret) {
				folio[have++] = f;
				continue;
			}
			if (f)
				folio_done(f);
			if (ret == -EEXIST)
				todo[busy++] = todo[i];
			else
				err = load_error(err, ret);
		}
		if (have)
			swap_readin(s->space, folio, have);
		for (unsigned int i = 0; i < have; i++) {
			if (!swap_folio_test(folio[i], SWAP_FOLIO_UPTODATE))
				err = load_error(err, folio[i]->error);
			swap_cache_del_folio(s->space, folio[i]);
			folio_done(folio[i]);
		}
		if (busy)
			wait_for(s, entries[todo[0]]);
		left = busy;
	}
	return err;
}

int vswap_load(struct vswap *s, const vswap_entry *entries, size_t nr, void *pages)
{
	NO_CANCEL;
	char *bounce = NULL, *to = pages;
	int err = 0;

	if (!aligned(pages)) {
		bounce = aligned_alloc(SWAP_PAGE_SIZE, STORE_BATCH * SWAP_PAGE_SIZE);
		if (!bounce)
			return store_says(s, -ENOMEM, "load: no memory");
	}
	while (nr) {
		unsigned int n = nr < STORE_BATCH ? (unsigned int)nr : STORE_BATCH;

		/* What is not even tried leaves the caller's page as it was. */
		if (bounce)
			memcpy(bounce, to, n * SWAP_PAGE_SIZE);
		err = load_error(err, load_batch(s, entries, n, bounce ? bounce : to));
		if (bounce)
			memcpy(to, bounce, n * SWAP_PAGE_SIZE);
		entries += n;
		to += n * SWAP_PAGE_SIZE;
		nr -= n;
	}
	free(bounce);
	if (err)
		store_says(s, err, "load: %s",
			   err == -EIO	  ? "a page could not be read, or was not what was stored" :
			   err == -ENOENT ? "an entry that is not in use" :
			   err == -EFAULT ? "no memory of the caller's to put a page in" :
					    "no memory, or not now");
	return err;
}

/* How many of @nr entries, from the front, follow each other. */
static unsigned int run_length(const vswap_entry *entries, size_t nr)
{
	unsigned int n = 1;

	while (n < nr && n < SWAP_CLUSTER_SLOTS && entries[n] == entries[0] + n)
		n++;
	return n;
}

int vswap_dup(struct vswap *s, const vswap_entry *entries, size_t nr)
{
	NO_CANCEL;
	size_t done = 0;

	while (done < nr) {
		unsigned int n = run_length(entries + done, nr - done);
		int ret = swap_dup_range(s->space, vswp_entry(entries[done]), n);

		if (ret) {
			vswap_free(s, entries, done);
			return store_says(s, ret, "dup: %s",
					  ret == -ENOENT ? "an entry that is not in use" :
							   "no memory");
		}
		done += n;
	}
	return 0;
}

void vswap_free(struct vswap *s, const vswap_entry *entries, size_t nr)
{
	NO_CANCEL;
	while (nr) {
		unsigned int n = run_length(entries, nr);

		swap_free_range(s->space, vswp_entry(*entries), n);
		entries += n;
		nr -= n;
	}
}

/* ---- the pool -------------------------------------------------------- */

void vswap_set_pool_limit(struct vswap *s, uint64_t bytes)
{
	NO_CANCEL;
	__atomic_store_n(&s->pool_limit, bytes, __ATOMIC_RELAXED);
	swap_space_set_pool_limit(s->space, bytes);
}

int vswap_set_writeback(struct vswap *s, unsigned int percent)
{
	if (percent > 100)
		return store_says(s, -EINVAL, "writeback: %u percent is more than there is",
				  percent);
	__atomic_store_n(&s->writeback, percent, __ATOMIC_RELAXED);
	return 0;
}

uint64_t vswap_writeback(struct vswap *s, uint64_t bytes)
{
	NO_CANCEL;
	return swap_writeback(s->space, bytes);
}

uint64_t vswap_compact(struct vswap *s)
{
	NO_CANCEL;
	return swap_compact(s->space);
}

/* ---- tiers ----------------------------------------------------------- */

/* Take a tier off the store's list.  Is it one of them? */
static bool tier_unlist(struct vswap *s, const struct vswap_tier *tier)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (struct vswap_tier **p = &s->tiers; *p; p = &(*p)->next) {
		if (*p == tier) {
			*p = tier->next;
			found = true;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static void tier_list(struct vswap *s, struct vswap_tier *tier)
{
	pthread_mutex_lock(&s->lock);
	tier->next = s->tiers;
	s->tiers = tier;
	pthread_mutex_unlock(&s->lock);
}

struct vswap_tier *vswap_tier_add(struct vswap *s, const char *path, uint64_t size, int prio,
				  char *err, size_t errlen)
{
	NO_CANCEL;
	struct vswap_tier *t = calloc(1, sizeof(*t));
	struct swap_tier_conf conf = { .prio = prio };
	char line[sizeof(s->message)] = "tier: no memory";
	int ret = ENOMEM;

	if (!t)
		goto out;
	t->store = tier_open(&(struct tier_opts){ .path = path, .size = size }, line, sizeof(line));
	if (!t->store) {
		ret = errno;
		goto out;
	}
	conf.name = t->store->name;
	conf.ops = t->store->ops;
	conf.priv = t->store->priv;
	conf.nr_slots = t->store->nr_slots;
	t->tier = swap_tier_add(s->space, &conf);
	if (IS_ERR(t->tier)) {
		ret = (int)-PTR_ERR(t->tier);
		if (ret == ENOSPC)
			snprintf(
				line, sizeof(line),
				"tier %s: no more fit: %d tiers, or 4 TiB on all together (remove one)",
				conf.name, SWAP_MAX_TIERS);
		else
			snprintf(line, sizeof(line), "tier %s: %s", conf.name, strerror(ret));
		goto out;
	}
	tier_list(s, t);
	return t;
out:
	store_says(s, 0, "%s", line);
	if (err)
		snprintf(err, errlen, "%s", line);
	if (t)
		tier_close(t->store);
	free(t);
	errno = ret;
	return NULL;
}

int vswap_tier_remove(struct vswap *s, struct vswap_tier *tier)
{
	NO_CANCEL;
	int ret;

	/* Off the list first, so that of two who remove it one is told so. */
	if (!tier_unlist(s, tier))
		return store_says(s, -EINVAL, "tier: not one of this store (any more)");
	ret = swapoff(s->space, tier->tier, NULL);
	if (ret)
		store_says(s, ret, "tier %s: %s", tier->store->name,
			   ret == -EIO	  ? "pages that could not be read are lost with it" :
			   ret == -ENOMEM ? "no memory" :
					    "what is left on it has no other place (add one)");
	if (ret && ret != -EIO) {
		tier_list(s, tier);
		return ret;
	}
	tier_shrink(tier->store);
	tier_close(tier->store);
	free(tier);
	return ret;
}

/* ---- counters -------------------------------------------------------- */

void vswap_stat(struct vswap *s, struct vswap_stat *st, size_t size)
{
	struct vswap_stat out;
	struct swap_stat in;

	swap_space_stat(s->space, &in);
	out = (struct vswap_stat){
		.pages = in.slots_used,
		.pages_peak = in.slots_peak,
		.pages_fill = in.nr_fill,
		.pages_pool = in.nr_pool,
		.pages_tier = in.nr_tier,
		.pages_lost = in.nr_poison,
		.pool_bytes = in.pool_bytes,
		.pool_data_bytes = in.pool_data_bytes,
		.meta_bytes = in.cluster_bytes + in.table_bytes + in.tier_meta_bytes,
		.tier_pages_read = in.pswpin,
		.tier_pages_written = in.pswpout,
		.read_errors = in.read_errors,
		.write_errors = in.write_errors,
	};
	if (size > sizeof(out)) {
		memset((char *)st + sizeof(out), 0, size - sizeof(out));
		size = sizeof(out);
	}
	memcpy(st, &out, size);
}

void vswap_log(void (*sink)(const char *line))
{
	compat_printk_to(sink);
}

const char *vswap_version(void)
{
	return VSWAP_VERSION;
}
