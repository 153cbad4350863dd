// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Groups through the control socket: joined, shown, limited, removed.
 */
#include "groupops.h"

#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <string.h>

#include "group.h"
#include "job.h"
#include "json.h"
#include "serve.h"
#include "size.h"
#include "state.h"
#include "tiers.h"
#include "window.h"

/*
 * Groups are set and removed by one thread, tiers go by another.  The lock keeps a
 * mask of tiers from being looked up before one goes and set after.
 */
static struct {
	pthread_mutex_t lock;
	uint32_t leaving; /* tiers that are about to go */
} ops = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int no_memory(struct control_call *call)
{
	return control_refuse(call, "out of memory (free some)");
}

static int bad_name(struct control_call *call, const char *name)
{
	const char *why = group_name_check(name);

	return why ? control_refuse(call, "group %.140s: %s", name, why) : 0;
}

static int op_join(struct control_call *call)
{
	const char *name = control_text(call, "group");
	struct group *group;
	char socket[JOB_NAME];
	int err;

	if (name && bad_name(call, name))
		return -1;
	group = group_find(name ? name : "");
	if (!group)
		return control_refuse(call, "group %s: there is none (vswap group set %s makes it)",
				      name, name);
	err = serve_join(group, socket);
	group_put(group);
	if (err == -ENOTSUP)
		return control_refuse(call, "join: this space is one program's own (vswap serve "
					    "keeps one for several)");
	if (err == -ESHUTDOWN)
		return control_refuse(call, "join: this space is about to end (start another)");
	if (err)
		return control_refuse(call, "join: %s (too many programs in this space?)",
				      strerror(-err));
	return json_add_text(call->answer, "socket", socket) ? no_memory(call) : 0;
}

/* The mask for a list of names, "all" being all there are and will be.  0 or -1. */
static int get_tiers(struct control_call *call, const char *name, uint32_t *mask)
{
	struct swap_tier_stat st[SWAP_MAX_TIERS];
	unsigned int nr = tiers_stat(st), j;
	struct json_object *list;

	json_object_object_get_ex(call->request, "tiers", &list);
	*mask = 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		const char *tier = json_object_get_string(json_object_array_get_idx(list, i));

		if (!strcmp(tier, "all")) {
			*mask = ~0u;
			continue;
		}
		for (j = 0; j < nr && strcmp(st[j].name, tier); j++)
			;
		if (j == nr)
			return control_refuse(call,
					      "group %s: tier %.256s: there is none (vswap tier ls "
					      "lists them)",
					      name, tier);
		*mask |= 1u << st[j].nr;
	}
	if (!*mask)
		return control_refuse(call, "group %s: tiers: none given (or: all)", name);
	return 0;
}

/* Tiers there are and will be. */
static uint32_t tiers_there(void)
{
	struct swap_tier_stat st[SWAP_MAX_TIERS];
	unsigned int nr = tiers_stat(st);
	uint32_t mask = 0;

	while (nr--)
		mask |= 1u << st[nr].nr;
	return mask & ~ops.leaving;
}

/* As in the core: its own and those of all it is in. */
static uint32_t tiers_of(const struct group *g)
{
	uint32_t mask = ~0u;

	for (; g; g = g->parent)
		mask &= g->limit.tiers;
	return mask;
}

static bool is_direct(const struct group *g)
{
	while (g && !g->limit.direct)
		g = g->parent;
	return g;
}

int group_tier_leaves(struct control_call *call, const char *name, unsigned int nr)
{
	struct group *g;
	int ret = 0;

	pthread_mutex_lock(&ops.lock);
	ops.leaving = 1u << nr;
	/* One that may use none already is no worse off. */
	for (g = group_root(); g; g = group_next(g))
		if (is_direct(g) && (tiers_of(g) & 1u << nr) && !(tiers_of(g) & tiers_there()))
			break;
	if (g) {
		ops.leaving = 0;
		ret = control_refuse(
			call,
			"tier %.256s: group %s is direct and has no other (group set %s "
			"mode=virtual, or add another tier first)",
			name, g->name, g->name);
	}
	pthread_mutex_unlock(&ops.lock);
	return ret;
}

void group_tier_left(unsigned int nr, bool gone)
{
	struct group_limits limit;

	pthread_mutex_lock(&ops.lock);
	ops.leaving = 0;
	for (struct group *g = group_next(group_root()); gone && g; g = group_next(g)) {
		limit = g->limit;
		if (limit.tiers == ~0u)
			continue;
		limit.tiers &= ~(1u << nr);
		group_set(g, &limit);
	}
	pthread_mutex_unlock(&ops.lock);
}

/* Those @name has, or would be made with. */
static struct group_limits limits_of(const char *name)
{
	struct group_limits limit = {
		.ram = GROUP_NO_LIMIT,
		.pool = GROUP_NO_LIMIT,
		.swap = GROUP_NO_LIMIT,
		.tiers = ~0u,
	};
	struct group *g = group_find(name);

	if (g) {
		limit = g->limit;
		group_put(g);
	}
	return limit;
}

static int set(struct control_call *call)
{
	const char *name = control_text(call, "group");
	int64_t ram = control_number(call, "ram", INT64_MAX);
	int64_t pool = control_number(call, "pool", INT64_MAX);
	int64_t swap = control_number(call, "swap", INT64_MAX);
	const char *mode = control_text(call, "mode");
	struct group_limits limit;
	struct group *group;
	char least[SIZE_TEXT];
	uint32_t tiers = ~0u;
	int err;

	if (bad_name(call, name))
		return -1;
	if (control_has(call, "tiers") && get_tiers(call, name, &tiers))
		return -1;
	if (mode && strcmp(mode, "virtual") && strcmp(mode, "direct"))
		return control_refuse(
			call, "group %s: mode %.64s: not known (there are virtual and direct)",
			name, mode);
	if (control_has(call, "ram") && (uint64_t)ram < GROUP_MIN_RAM)
		return control_refuse(call, "group %s: ram: too small (give at least %s)", name,
				      size_format(least, GROUP_MIN_RAM));
	limit = limits_of(name);
	if (control_has(call, "ram"))
		limit.ram = ram == INT64_MAX ? GROUP_NO_LIMIT : (uint64_t)ram;
	if (control_has(call, "pool"))
		limit.pool = pool == INT64_MAX ? GROUP_NO_LIMIT : (uint64_t)pool;
	if (control_has(call, "swap"))
		limit.swap = swap == INT64_MAX ? GROUP_NO_LIMIT : (uint64_t)swap;
	if (control_has(call, "tiers"))
		limit.tiers = tiers;
	if (mode)
		limit.direct = !strcmp(mode, "direct");
	if (limit.direct && !(limit.tiers & tiers_there()))
		return control_refuse(
			call, "group %s: mode direct: there is no tier for it (add one first)",
			name);
	err = group_make(name, &group);
	if (err == -ENOSPC)
		return control_refuse(call, "group %s: too many groups (remove one)", name);
	if (err)
		return no_memory(call);
	group_set(group, &limit);
	group_put(group);
	return 0;
}

static int op_set(struct control_call *call)
{
	int ret;

	pthread_mutex_lock(&ops.lock);
	ret = set(call);
	pthread_mutex_unlock(&ops.lock);
	return ret;
}

static int op_rm(struct control_call *call)
{
	const char *name = control_text(call, "group");
	int err;

	if (bad_name(call, name))
		return -1;
	pthread_mutex_lock(&ops.lock);
	err = group_remove(name);
	pthread_mutex_unlock(&ops.lock);
	switch (err) {
	case 0:
		return 0;
	case -EBUSY:
		return control_refuse(call, "group %s: programs run in it (end them first)", name);
	case -ENOTEMPTY:
		return control_refuse(call, "group %s: there are groups in it (remove them first)",
				      name);
	default:
		return control_refuse(call, "group %s: there is none (vswap group ls lists them)",
				      name);
	}
}

static int add_limit(struct json_object *obj, const char *name, uint64_t limit)
{
	/* No member stands for no limit. */
	return limit == GROUP_NO_LIMIT ? 0 : json_add_u64(obj, name, limit);
}

static int add_tiers(struct json_object *obj, uint32_t mask)
{
	struct json_object *list;
	struct swap_tier_stat st[SWAP_MAX_TIERS];
	unsigned int nr = tiers_stat(st);
	char text[4096];
	int err;

	/* As with limits: no member, all of them. */
	if (mask == ~0u)
		return 0;
	list = json_object_new_array();
	err = json_add(obj, "tiers", list);
	for (unsigned int i = 0; !err && i < nr; i++) {
		if (!(mask & 1u << st[i].nr))
			continue;
		json_to_text(text, sizeof(text), st[i].name);
		err = json_append(list, json_object_new_string(text));
	}
	return err;
}

/* What the core keeps: of the root nothing. */
static int add_stores(struct json_object *obj, const struct group *g)
{
	struct swap_group_stat stat;
	int err;

	if (!group_swap_stat(g, &stat))
		return 0;
	err = add_limit(obj, "pool", count_read(&g->limit.pool));
	if (!err)
		err = add_limit(obj, "swap", count_read(&g->limit.swap));
	if (!err)
		err = add_tiers(obj, __atomic_load_n(&g->limit.tiers, __ATOMIC_RELAXED));
	if (!err)
		err = json_add_text(
			obj, "mode",
			__atomic_load_n(&g->limit.direct, __ATOMIC_RELAXED) ? "direct" : "virtual");
	if (!err)
		err = json_add_u64(obj, "pool_bytes_peak", stat.pool.peak);
	if (!err)
		err = json_add_u64(obj, "pool_events", stat.pool.events);
	if (!err)
		err = json_add_u64(obj, "swap_bytes", stat.swap.used * SWAP_PAGE_SIZE);
	if (!err)
		err = json_add_u64(obj, "swap_bytes_peak", stat.swap.peak * SWAP_PAGE_SIZE);
	if (!err)
		err = json_add_u64(obj, "swap_events", stat.swap.events);
	return err;
}

static int add_group(struct json_object *list, const struct group *g)
{
	int64_t resident = __atomic_load_n(&g->resident, __ATOMIC_RELAXED);
	struct json_object *obj = json_object_new_object();
	int err = json_append(list, obj);

	if (!err)
		err = json_add_text(obj, "group", g->parent ? g->name : "/");
	if (!err)
		err = json_add_u64(obj, "programs", jobs_in(g));
	if (!err)
		err = add_limit(obj, "ram", group_ram(g));
	if (!err)
		err = json_add_u64(obj, "ram_bytes", group_used(g));
	if (!err)
		err = json_add_u64(obj, "ram_bytes_peak", count_read(&g->peak));
	if (!err)
		err = json_add_u64(obj, "share_bytes", count_read(&g->share));
	if (!err)
		err = json_add_u64(obj, "resident_bytes", resident > 0 ? resident : 0);
	if (!err)
		err = json_add_u64(obj, "cache_bytes", count_read(&g->frames) * PAGE_SIZE_);
	if (!err)
		err = json_add_u64(obj, "pool_bytes", count_read(&g->pool));
	if (!err)
		err = add_stores(obj, g);
	if (!err)
		err = json_add_u64(obj, "faults", count_read(&g->count[GROUP_FAULT]));
	if (!err)
		err = json_add_u64(obj, "refaults", count_read(&g->count[GROUP_REFAULT]));
	if (!err)
		err = json_add_u64(obj, "pgsteal", count_read(&g->count[GROUP_PGSTEAL]));
	if (!err)
		err = json_add_u64(obj, "ram_events", count_read(&g->count[GROUP_OVER]));
	return err;
}

static int op_ls(struct control_call *call)
{
	struct json_object *list = json_object_new_array();
	int err = json_add(call->answer, "groups", list);
	struct group *g;

	for (g = group_root(); !err && g; g = group_next(g))
		err = add_group(list, g);
	return err ? no_memory(call) : 0;
}

/* clang-format off */
const struct control_op group_ops[] = {
	{ .name = "join", .run = op_join, .member = { { "group", CONTROL_TEXT, true } } },
	{ .name = "group-ls", .run = op_ls },
	{ .name = "group-set", .run = op_set,
	  .member = { { "group", CONTROL_TEXT }, { "ram", CONTROL_COUNT, true },
		      { "pool", CONTROL_COUNT, true }, { "swap", CONTROL_COUNT, true },
		      { "tiers", CONTROL_LIST, true }, { "mode", CONTROL_TEXT, true } } },
	{ .name = "group-rm", .run = op_rm, .member = { { "group", CONTROL_TEXT } } },
	{ 0 },
};
/* clang-format on */
