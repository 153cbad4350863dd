// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "group.h"

#include <errno.h>
#include <linux/rcupdate.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../core/swap.h"
#include "budget.h"
#include "lock.h"
#include "state.h"
#include "window.h"

/*
 * The lock guards names and what is used: making, finding, removing.  Usage is
 * charged without it, up the chain of parents; whoever charges has a reference,
 * and a parent goes after what is in it.  Who has none goes through the tree in an
 * RCU section: the place of a removed group is used again after one.
 */
static struct {
	pthread_mutex_t lock;
	struct group group[GROUP_MAX];
	unsigned int nr; /* numbers ever used; atomic */
	unsigned int nr_live;
} groups;

static const struct group_limits no_limits = {
	.ram = GROUP_NO_LIMIT,
	.pool = GROUP_NO_LIMIT,
	.swap = GROUP_NO_LIMIT,
	.tiers = ~0u,
};

void groups_init(void)
{
	struct group *root = &groups.group[0];

	lock_init(&groups.lock);
	root->live = true;
	root->ref = 1;
	root->limit = no_limits;
	INIT_LIST_HEAD(&root->queue);
	groups.nr = groups.nr_live = 1;
}

struct group *group_root(void)
{
	return &groups.group[0];
}

struct group *group_nth(unsigned int i)
{
	return i < __atomic_load_n(&groups.nr, __ATOMIC_ACQUIRE) ? &groups.group[i] : NULL;
}

static bool is_root(const struct group *g)
{
	return g == &groups.group[0];
}

static bool live(const struct group *g)
{
	return __atomic_load_n(&g->live, __ATOMIC_ACQUIRE);
}

unsigned int group_index(const struct group *g)
{
	return g - groups.group;
}

struct group *group_next(struct group *g)
{
	for (unsigned int i = group_index(g) + 1; (g = group_nth(i)); i++)
		if (live(g))
			return g;
	return NULL;
}

bool groups_any(void)
{
	return __atomic_load_n(&groups.nr, __ATOMIC_ACQUIRE) > 1;
}

void group_get(struct group *g)
{
	__atomic_add_fetch(&g->ref, 1, __ATOMIC_RELAXED);
}

void group_put(struct group *g)
{
	__atomic_sub_fetch(&g->ref, 1, __ATOMIC_RELEASE);
}

bool group_is_in(const struct group *g, const struct group *top)
{
	while (g && g != top)
		g = g->parent;
	return g;
}

/* ---- names ------------------------------------------------------------ */

const char *group_name_check(const char *name)
{
	unsigned int depth = 1;

	if (!*name)
		return "empty (give a name like batch or batch/nightly)";
	if (strlen(name) >= GROUP_NAME)
		return "too long (127 characters at most)";
	for (const char *p = name; p;) {
		const char *end = strchrnul(p, '/');

		if (end == p)
			return "an empty part (one slash between two names, none around)";
		if (*p == '.')
			return "a part begins with a dot (begin it with a letter or digit)";
		for (; p < end; p++)
			if (!(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') &&
			    !(*p >= '0' && *p <= '9') && *p != '.' && *p != '-' && *p != '_')
				return "a character that cannot be in a name (use letters, digits, "
				       ". - _)";
		p = *end ? end + 1 : NULL;
		if (p && ++depth > GROUP_DEPTH)
			return "nested too deeply (8 levels at most)";
	}
	return NULL;
}

static struct group *find(const char *name, size_t len)
{
	for (unsigned int i = 0; i < groups.nr; i++) {
		struct group *g = &groups.group[i];

		if (g->live && strlen(g->name) == len && !memcmp(g->name, name, len))
			return g;
	}
	return NULL;
}

struct group *group_find(const char *name)
{
	struct group *g;

	pthread_mutex_lock(&groups.lock);
	g = find(name, strlen(name));
	if (g)
		group_get(g);
	pthread_mutex_unlock(&groups.lock);
	return g;
}

static bool has_children(const struct group *parent)
{
	for (unsigned int i = 1; i < groups.nr; i++)
		if (!groups.group[i].buried && groups.group[i].parent == parent)
			return true;
	return false;
}

/*
 * Give a removed group back to the core once nothing of it is left: its frames
 * outlive its clients a little.
 */
static bool bury(struct group *g)
{
	if (g->buried)
		return true;
	if (g->live || __atomic_load_n(&g->ref, __ATOMIC_ACQUIRE) || count_read(&g->frames) ||
	    has_children(g))
		return false;
	if (g->swap)
		swap_group_destroy(g->swap);
	g->swap = NULL;
	g->buried = true;
	return true;
}

static struct group *unused(void)
{
	for (unsigned int i = 1; i < groups.nr; i++)
		if (bury(&groups.group[i]))
			return &groups.group[i];
	return groups.nr < GROUP_MAX ? &groups.group[groups.nr] : NULL;
}

static void set_limits(struct group *g, const struct group_limits *limit)
{
	__atomic_store_n(&g->limit.ram, limit->ram, __ATOMIC_RELAXED);
	__atomic_store_n(&g->limit.pool, limit->pool, __ATOMIC_RELAXED);
	__atomic_store_n(&g->limit.swap, limit->swap, __ATOMIC_RELAXED);
	__atomic_store_n(&g->limit.tiers, limit->tiers, __ATOMIC_RELAXED);
	__atomic_store_n(&g->limit.direct, limit->direct, __ATOMIC_RELAXED);
}

static void clear_counts(struct group *g)
{
	__atomic_store_n(&g->resident, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&g->pool, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&g->peak, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&g->share, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&g->own_share, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&g->over, false, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < NR_GROUP_EVENTS; i++)
		__atomic_store_n(&g->count[i], 0, __ATOMIC_RELAXED);
}

static int make_one(struct group *parent, const char *name, size_t len, struct group **out)
{
	struct group *g = unused();
	struct swap_group *swap;

	if (!g)
		return -ENOSPC;
	swap = swap_group_create(pager.space, parent->swap);
	if (!swap)
		return -ENOMEM;
	/* Who still goes through the list looks at numbers only, or in an RCU section. */
	memset(g->name, 0, sizeof(g->name));
	memcpy(g->name, name, len);
	g->swap = swap;
	g->buried = false;
	set_limits(g, &no_limits);
	clear_counts(g);
	g->hungry_ns = g->stuck_ns = g->full_ns = 0;
	g->said_full = false;
	g->spared = 0;
	INIT_LIST_HEAD(&g->queue);
	g->parent = parent;
	__atomic_store_n(&g->live, true, __ATOMIC_RELEASE);
	groups.nr_live++;
	if (group_index(g) == groups.nr)
		__atomic_store_n(&groups.nr, groups.nr + 1, __ATOMIC_RELEASE);
	*out = g;
	return 0;
}

static void remove_one(struct group *g)
{
	__atomic_store_n(&g->live, false, __ATOMIC_RELEASE);
	__atomic_store_n(&g->limit.ram, GROUP_NO_LIMIT, __ATOMIC_RELAXED);
	groups.nr_live--;
	bury(g);
}

int group_make(const char *name, struct group **group)
{
	struct group *made[GROUP_DEPTH], *g = group_root(), *next;
	unsigned int nr = 0;
	int ret = 0;

	pthread_mutex_lock(&groups.lock);
	for (const char *end = strchrnul(name, '/'); !ret; end = strchrnul(end + 1, '/')) {
		next = find(name, end - name);
		if (!next) {
			ret = make_one(g, name, end - name, &next);
			if (!ret)
				made[nr++] = next;
		}
		g = next;
		if (!*end)
			break;
	}
	if (ret)
		while (nr)
			remove_one(made[--nr]);
	else
		group_get(g);
	pthread_mutex_unlock(&groups.lock);
	*group = g;
	return ret;
}

static bool has_live_children(const struct group *parent)
{
	for (unsigned int i = 1; i < groups.nr; i++)
		if (groups.group[i].live && groups.group[i].parent == parent)
			return true;
	return false;
}

int group_remove(const char *name)
{
	struct group *g;
	int ret = 0;

	pthread_mutex_lock(&groups.lock);
	g = find(name, strlen(name));
	if (!g || !g->parent)
		ret = -ENOENT;
	else if (has_live_children(g))
		ret = -ENOTEMPTY;
	else if (__atomic_load_n(&g->ref, __ATOMIC_ACQUIRE))
		ret = -EBUSY;
	else
		remove_one(g);
	pthread_mutex_unlock(&groups.lock);
	return ret;
}

/* The most it may have in the pool, bytes. */
static uint64_t pool_limit(const struct group *g)
{
	uint64_t ram = count_read(&g->share), limit = count_read(&g->limit.pool), most;

	if (group_ram(g) < ram)
		ram = group_ram(g);
	most = reclaim_pool_most(ram);
	return most < limit ? most : limit;
}

/*
 * Tell the core.  The group has a reference, or the caller is in an RCU section
 * and saw it live: the core's group goes after one.
 */
static void apply(struct group *g)
{
	uint64_t swap = count_read(&g->limit.swap);
	struct swap_group_conf conf = {
		.pool_limit = pool_limit(g),
		.pool_low = pool_limit(g),
		.swap_limit = swap == GROUP_NO_LIMIT ? SWAP_NO_LIMIT : swap / PAGE_SIZE_,
		.tiers = __atomic_load_n(&g->limit.tiers, __ATOMIC_RELAXED),
		.direct = __atomic_load_n(&g->limit.direct, __ATOMIC_RELAXED),
	};

	swap_group_set(g->swap, &conf);
}

void group_set(struct group *g, const struct group_limits *limit)
{
	set_limits(g, limit);
	apply(g);
	reclaim_wake();
}

/* ---- usage ------------------------------------------------------------ */

uint64_t group_used(const struct group *g)
{
	int64_t resident;

	if (is_root(g))
		return budget_used();
	resident = __atomic_load_n(&g->resident, __ATOMIC_RELAXED);
	return (resident > 0 ? resident : 0) + count_read(&g->frames) * PAGE_SIZE_ +
	       count_read(&g->pool);
}

uint64_t group_ram(const struct group *g)
{
	return is_root(g) ? budget_limit() : count_read(&g->limit.ram);
}

void group_add_resident(struct group *g, int64_t bytes)
{
	for (; g->parent; g = g->parent) {
		uint64_t limit = group_ram(g);

		__atomic_add_fetch(&g->resident, bytes, __ATOMIC_RELAXED);
		if (bytes > 0 && limit != GROUP_NO_LIMIT && group_used(g) > limit - limit / 64)
			reclaim_wake();
	}
}

void group_add_frames(struct group *g, int frames)
{
	for (; g; g = g->parent)
		__atomic_add_fetch(&g->frames, (int64_t)frames, __ATOMIC_RELAXED);
}

void group_count(struct group *g, enum group_event event, uint64_t n)
{
	for (; g; g = g->parent)
		count_add(&g->count[event], n);
}

bool group_swap_stat(const struct group *g, struct swap_group_stat *stat)
{
	bool there;

	/* The core's group goes after an RCU section that saw this one live. */
	rcu_read_lock();
	there = !is_root(g) && live(g);
	if (there)
		swap_group_stat(g->swap, stat);
	rcu_read_unlock();
	return there;
}

static uint64_t pool_bytes(const struct group *g)
{
	struct swap_group_stat stat;

	if (is_root(g))
		return swap_space_bytes(pager.space);
	return group_swap_stat(g, &stat) ? stat.pool.used : 0;
}

void groups_sampled(const uint64_t resident[GROUP_MAX], const uint64_t twice[GROUP_MAX])
{
	unsigned int nr = __atomic_load_n(&groups.nr, __ATOMIC_ACQUIRE);

	for (unsigned int i = 0; i < nr; i++) {
		struct group *g = &groups.group[i];
		uint64_t used, limit = group_ram(g);

		if (!live(g))
			continue;
		__atomic_store_n(&g->resident, (int64_t)resident[i], __ATOMIC_RELAXED);
		__atomic_store_n(&g->pool, pool_bytes(g), __ATOMIC_RELAXED);
		used = group_used(g);
		if (used > count_read(&g->peak) + twice[i])
			__atomic_store_n(&g->peak, used - twice[i], __ATOMIC_RELAXED);
		if (is_root(g))
			continue;
		if (used <= limit)
			__atomic_store_n(&g->over, false, __ATOMIC_RELAXED);
		else if (!__atomic_exchange_n(&g->over, true, __ATOMIC_RELAXED))
			count_add(&g->count[GROUP_OVER], 1);
	}
}

/* What should go to a tier before it is at its limit in the pool, bytes. */
static uint64_t pool_excess(const struct group *g)
{
	return reclaim_pool_excess(count_read(&g->pool), pool_limit(g));
}

bool groups_pool_full(void)
{
	struct group *g;

	for (g = group_next(group_root()); g; g = group_next(g))
		if (pool_excess(g))
			return true;
	return false;
}

bool group_pool_full(const struct group *g)
{
	for (; g->parent; g = g->parent)
		if (reclaim_pool_full(count_read(&g->pool), pool_limit(g)))
			return true;
	return reclaim_pool_full(swap_pool_bytes(pager.space), pool_limit(g));
}

uint64_t group_writeback(struct group *g, uint64_t bytes)
{
	bool there;

	if (!g->parent)
		return swap_writeback(pager.space, bytes);
	/* The reference keeps the core's group. */
	pthread_mutex_lock(&groups.lock);
	there = g->live;
	if (there)
		group_get(g);
	pthread_mutex_unlock(&groups.lock);
	if (!there)
		return 0;
	bytes = swap_group_writeback(g->swap, bytes);
	group_put(g);
	return bytes;
}

void groups_writeback(void)
{
	struct group *g;

	for (g = group_next(group_root()); g; g = group_next(g)) {
		uint64_t excess = pool_excess(g);

		if (excess)
			group_writeback(g, excess);
	}
}

/* What one below its share may take above the limit of the group it is in. */
static uint64_t reserve(uint64_t limit)
{
	return limit / 64;
}

bool group_spent(struct group *g)
{
	bool below = false;

	for (; g; g = g->parent) {
		uint64_t used = group_used(g), limit = group_ram(g);

		if (limit != GROUP_NO_LIMIT && used > limit + (below ? reserve(limit) : 0)) {
			__atomic_store_n(&g->hungry_ns, now_ns(), __ATOMIC_RELAXED);
			return true;
		}
		below = used < count_read(&g->share);
	}
	return false;
}

/* ---- shares ----------------------------------------------------------- */

static uint64_t resident(const struct group *g)
{
	int64_t n = __atomic_load_n(&g->resident, __ATOMIC_RELAXED);

	return n > 0 ? n : 0;
}

static bool child_of(const struct group *g, const struct group *parent)
{
	return g->parent == parent && resident(g);
}

/* What is of @g's own clients, not of groups in it. */
static uint64_t own_used(const struct group *g)
{
	uint64_t own = group_used(g), all = resident(g), in = 0;
	struct group *c;

	if (!g->parent)
		own = all + count_read(&g->frames) * PAGE_SIZE_ + count_read(&g->pool);
	for (c = group_next(group_root()); c; c = group_next(c))
		if (c->parent == g) {
			uint64_t used = group_used(c);

			own -= used < own ? used : own;
			in += resident(c);
		}
	return all > in ? own : 0;
}

static void share_out(struct group *g, uint64_t share)
{
	uint64_t part, sum = 0;
	unsigned int n = own_used(g) > 0;
	struct group *c;

	__atomic_store_n(&g->share, share, __ATOMIC_RELAXED);
	if (!is_root(g))
		apply(g);
	for (c = group_next(group_root()); c; c = group_next(c))
		n += child_of(c, g);
	if (!n)
		return;
	part = share / n;
	if (own_used(g))
		sum = part;
	for (c = group_next(group_root()); c; c = group_next(c))
		if (child_of(c, g))
			sum += group_ram(c) == GROUP_NO_LIMIT ? part : group_ram(c);
	__atomic_store_n(&g->own_share, sum > share ? part * ((double)share / sum) : part,
			 __ATOMIC_RELAXED);
	for (c = group_next(group_root()); c; c = group_next(c))
		if (child_of(c, g)) {
			uint64_t want = group_ram(c) == GROUP_NO_LIMIT ? part : group_ram(c);

			share_out(c, sum > share ? want * ((double)share / sum) : want);
		}
}

void groups_share(uint64_t overhead)
{
	uint64_t limit = budget_limit();

	rcu_read_lock();
	share_out(group_root(), limit > overhead ? limit - overhead : 0);
	rcu_read_unlock();
}

/* In 1024ths of its share. */
static uint64_t fullness(uint64_t used, uint64_t share)
{
	return used * 1024 / (share + 1);
}

/* Is there nobody left to ask in @g? */
static bool all_dry(const struct group *g)
{
	struct group *c;

	if (!g->dry && own_used(g))
		return false;
	for (c = group_next(group_root()); c; c = group_next(c))
		if (child_of(c, g) && !all_dry(c))
			return false;
	return true;
}

/* Is one the reason of that who cannot give, being stopped, rather than will not? */
static bool stalled(const struct group *g)
{
	struct group *c;

	for (c = group_root(); c; c = group_next(c))
		if (c->stalled && group_is_in(c, g))
			return true;
	return false;
}

static struct group *find_victim(struct group *top)
{
	for (;;) {
		struct group *best = NULL, *c;
		uint64_t most = 0, full = 0, own = own_used(top);

		if (own) {
			uint64_t f = fullness(own, count_read(&top->own_share));

			if (!top->dry) {
				best = top;
				full = most = f;
			} else if (!top->stalled) {
				most = f;
			}
		}
		for (c = group_next(group_root()); c; c = group_next(c)) {
			uint64_t f;

			if (!child_of(c, top))
				continue;
			f = fullness(group_used(c), count_read(&c->share));
			if (all_dry(c)) {
				if (f > most && !stalled(c))
					most = f;
				continue;
			}
			if (f > most)
				most = f;
			if (f >= full) {
				best = c;
				full = f;
			}
		}
		/* Better nobody than one who keeps to its share while another does not. */
		if (!best || (full <= 1024 && most > 1024))
			return NULL;
		if (best == top)
			return top;
		top = best;
	}
}

struct group *group_victim(struct group *top)
{
	struct group *g;

	if (!groups_any())
		return top->dry ? NULL : top;
	rcu_read_lock();
	g = find_victim(top);
	rcu_read_unlock();
	return g;
}

bool group_stalled(const struct group *g)
{
	bool any;

	rcu_read_lock();
	any = stalled(g);
	rcu_read_unlock();
	return any;
}
