// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What can be asked of every space through its control socket.
 */
#include "ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "budget.h"
#include "groupops.h"
#include "json.h"
#include "size.h"
#include "state.h"
#include "tiers.h"

#define MS	     1000000ULL
#define STUCK_NS     (3000 * MS) /* no less used for so long: it cannot be had */
#define IDLE_NS	     (200 * MS)
#define MIN_PROGRESS (64 << 10) /* bytes; less is noise */

static int no_memory(struct control_call *call)
{
	return control_refuse(call, "out of memory (free some)");
}

static int op_stat(struct control_call *call)
{
	struct pager_stat *st = malloc(sizeof(*st));
	int err;

	if (!st)
		return no_memory(call);
	pager_snapshot(st);
	err = json_add(call->answer, "stat", report_object(st));
	free(st);
	return err ? no_memory(call) : 0;
}

/* ---- tiers ------------------------------------------------------------ */

/* Below all there are. */
static int last_prio(void)
{
	struct swap_tier_stat st[SWAP_MAX_TIERS];
	unsigned int nr = tiers_stat(st);

	return nr && st[nr - 1].prio <= 0 ? st[nr - 1].prio - 1 : -1;
}

struct drain {
	struct control_call *call;
	uint64_t total; /* bytes, the most that were there */
};

static bool drain_goes_on(void *priv, u64 left)
{
	struct drain *drain = priv;

	left *= SWAP_PAGE_SIZE;
	if (left > drain->total)
		drain->total = left;
	return control_progress(drain->call, drain->total - left, drain->total);
}

/* What is on a tier or, with NULL, in the pool, in bytes of pages. */
static uint64_t store_bytes(struct swap_tier *tier)
{
	struct swap_tier_stat st[SWAP_MAX_TIERS];
	struct swap_stat all;
	unsigned int nr;

	if (!tier) {
		swap_space_stat(pager.space, &all);
		return all.nr_pool * SWAP_PAGE_SIZE;
	}
	nr = tiers_stat(st);
	for (unsigned int i = 0; i < nr; i++)
		if (st[i].priv == tiers_priv(tier))
			return st[i].slots_used * SWAP_PAGE_SIZE;
	return 0;
}

/* What masks of tiers know it by. */
static unsigned int tier_nr(struct swap_tier *tier)
{
	struct swap_tier_stat st[SWAP_MAX_TIERS];
	unsigned int nr = tiers_stat(st);

	while (nr-- && st[nr].priv != tiers_priv(tier))
		;
	return st[nr].nr;
}

static bool drain_to_the_end(void *priv, u64 left)
{
	(void)priv;
	(void)left;
	return true;
}

/* As tiers_remove(); with @drain NULL there is nobody to be told, and no giving up. */
static int remove_tier(struct swap_tier *tier, struct drain *drain)
{
	unsigned int nr = tier_nr(tier);
	int ret = tiers_remove(tier, drain ? drain_goes_on : drain_to_the_end, drain);

	group_tier_left(nr, !ret || ret == -EIO);
	return ret;
}

static int op_tier_add(struct control_call *call)
{
	struct tier_opts opts = {
		.path = control_text(call, "path"),
		.size = control_number(call, "size", 0),
		.timeout = control_number(call, "timeout", 0),
	};
	int64_t prio = control_number(call, "prio", 0);
	struct swap_tier *tier;
	char err[512];

	/* It could not be named again. */
	if (!json_is_text(opts.path))
		return control_refuse(call, "tier %s: has control characters in it (rename it)",
				      opts.path);
	if (control_has(call, "size") && !opts.size)
		return control_refuse(call, "tier %s: size 0 (leave it out to use all there is)",
				      opts.path);
	if (prio < 0 || prio > PAGER_MAX_PRIO)
		return control_refuse(call, "tier %s: prio %lld: not a priority (give 0 to %d)",
				      opts.path, (long long)prio, PAGER_MAX_PRIO);
	if (control_number(call, "timeout", 1) < 1 ||
	    control_number(call, "timeout", 1) > PAGER_MAX_TIMEOUT)
		return control_refuse(call,
				      "tier %s: timeout: not a number of seconds (give 1 to %d)",
				      opts.path, PAGER_MAX_TIMEOUT);
	if (!control_has(call, "prio"))
		prio = last_prio();
	if (tiers_add(&opts, prio, err, sizeof(err)))
		return control_refuse(call, "%s", err);
	if (!control_cancelled(call))
		return 0;
	/* What nobody waited for shall not have come about. */
	tier = tiers_find(opts.path);
	if (tier && !remove_tier(tier, NULL))
		return control_refuse(call, "tier %s: given up (its client left)", opts.path);
	return 0;
}

static int op_tier_rm(struct control_call *call)
{
	const char *name = control_text(call, "tier");
	struct swap_tier *tier = tiers_find(name);
	struct drain drain = { .call = call };

	if (!tier)
		return control_refuse(call, "tier %s: no such tier (vswap tier ls lists them)",
				      name);
	if (group_tier_leaves(call, name, tier_nr(tier)))
		return -1;
	switch (remove_tier(tier, &drain)) {
	case 0:
		return 0;
	case -ENOSPC:
		if (!drain.total)
			return control_refuse(
				call,
				"tier %s: the rest of the space has no room for what is on "
				"it (add another tier first)",
				name);
		return control_refuse(
			call,
			"tier %s: the rest of the space filled up meanwhile: it stays, with what is "
			"left on it (add another tier first)",
			name);
	case -EINTR:
		return control_refuse(call, "tier %s: given up (its client left)", name);
	case -EIO:
		if (json_add_bool(call->answer, "lost", true))
			return no_memory(call);
		return 0;
	default:
		return no_memory(call);
	}
}

/* A store by the name of a tier or "pool", which is *@tier NULL.  0 or -1 with a refusal. */
static int find_store(struct control_call *call, const char *member, struct swap_tier **tier)
{
	const char *name = control_text(call, member);

	*tier = NULL;
	if (!strcmp(name, "pool"))
		return 0;
	*tier = tiers_find(name);
	if (*tier)
		return 0;
	return control_refuse(call,
			      "%s %s: no such tier (vswap tier ls lists them; the other store "
			      "is called pool)",
			      member, name);
}

static int op_migrate(struct control_call *call)
{
	uint64_t bytes = control_number(call, "bytes", INT64_MAX);
	struct drain drain = { .call = call };
	const struct swapoff_watch watch = { drain_goes_on, &drain };
	struct swap_tier *from, *to;
	const char *why;
	u64 moved;
	int ret;

	if (!bytes)
		return control_refuse(call, "migrate: 0 bytes (leave it out to move all)");
	if (find_store(call, "from", &from) || find_store(call, "to", &to))
		return -1;
	if (from == to)
		return control_refuse(call, "migrate: %s to itself (name two stores)",
				      control_text(call, "from"));
	/* For the bar; more may come there meanwhile. */
	if (bytes > store_bytes(from))
		bytes = store_bytes(from);
	ret = swap_migrate(pager.space, from, to, bytes, &watch, &moved);
	if (ret == -EINTR)
		return control_refuse(call, "migrate: given up (its client left)");
	if (ret == -ENOMEM)
		return no_memory(call);
	why = ret == -ENOSPC ? "no room for more" : ret ? "read or write error" : NULL;
	if (json_add_u64(call->answer, "moved", moved) ||
	    (why && json_add_text(call->answer, "stopped", why)))
		return no_memory(call);
	return 0;
}

/* ---- memory ----------------------------------------------------------- */

/* How the pursuit of a goal ended. */
enum chase {
	CHASE_DONE,
	CHASE_STUCK,
	CHASE_CANCELLED,
};

/*
 * Reclaim until no more than @goal bytes are used.  With @ratchet the limit follows
 * what is used down, so that what went does not come back in at once; it is the
 * caller who says what it is in the end.
 */
static enum chase chase(struct control_call *call, uint64_t goal, bool ratchet)
{
	uint64_t used = budget_sample(), start = used, best = used, best_ns = now_ns();
	enum chase end = CHASE_DONE;

	if (used > goal)
		reclaim_set_goal(goal);
	while (used > goal) {
		if (!control_progress(call, start - best, start - goal)) {
			end = CHASE_CANCELLED;
			break;
		}
		if (now_ns() - best_ns > STUCK_NS) {
			end = CHASE_STUCK;
			break;
		}
		/* Programs have nothing more to give, or take it back as fast: so has the pool. */
		if (now_ns() - best_ns > IDLE_NS) {
			swap_writeback(pager.space, used - goal);
			swap_compact(pager.space);
		}
		if (ratchet && used < budget_limit())
			budget_set_limit(used);
		usleep(2000);
		used = budget_sample();
		if (used + MIN_PROGRESS <= best) {
			best = used;
			best_ns = now_ns();
		}
	}
	reclaim_set_goal(0);
	return end;
}

static int op_reclaim(struct control_call *call)
{
	uint64_t bytes = control_number(call, "bytes", 0), start = budget_sample(), used;

	if (!bytes)
		return control_refuse(call, "reclaim: 0 bytes (say how many)");
	if (chase(call, bytes < start ? start - bytes : 1, false) == CHASE_CANCELLED)
		return control_refuse(call, "reclaim: given up (its client left)");
	used = budget_used();
	if (json_add_u64(call->answer, "reclaimed", used < start ? start - used : 0))
		return no_memory(call);
	return 0;
}

/* Another limit for all of the space.  Answers when it holds. */
static int set_ram(struct control_call *call, uint64_t ram)
{
	uint64_t old = budget_limit(), goal = reclaim_low_mark(ram);
	char text[SIZE_TEXT], held[SIZE_TEXT];
	enum chase end;

	if (ram >= old) {
		budget_set_limit(ram);
		return 0;
	}
	end = chase(call, goal, true);
	if (end == CHASE_DONE) {
		budget_set_limit(ram);
		return 0;
	}
	budget_set_limit(old);
	if (end == CHASE_CANCELLED)
		return control_refuse(call, "set: ram: given up (its client left)");
	return control_refuse(call,
			      "set: ram: %s cannot hold: %s are used and nothing more can be put "
			      "elsewhere (add a tier, or give more)",
			      size_format(text, ram), size_format(held, budget_used()));
}

static int op_set(struct control_call *call)
{
	const char *compressor = control_text(call, "compressor");
	uint64_t ram = control_number(call, "ram", 0);
	char text[SIZE_TEXT], least[SIZE_TEXT];
	int err;

	if (!control_has(call, "ram") && !compressor)
		return control_refuse(call, "set: nothing to set (give ram or compressor)");
	if (compressor && strcmp(compressor, "lz4") && strcmp(compressor, "zstd") &&
	    strcmp(compressor, "none"))
		return control_refuse(
			call, "set: compressor %s: not known (there are lz4, zstd and none)",
			compressor);
	if (control_has(call, "ram") && ram < PAGER_MIN_RAM)
		return control_refuse(call, "set: ram %s: too small (give at least %s)",
				      size_format(text, ram), size_format(least, PAGER_MIN_RAM));
	/* The one that may fail for want of room comes first: then nothing has changed. */
	if (control_has(call, "ram") && set_ram(call, ram))
		return -1;
	err = compressor ? swap_space_set_compressor(pager.space, compressor) : 0;
	if (err)
		return control_refuse(call, "set: compressor %s: %s (free memory)", compressor,
				      strerror(-err));
	return 0;
}

/* clang-format off */
const struct control_op control_ops[] = {
	{ .name = "stat", .run = op_stat },
	{ .name = "map", .run = op_map, .slow = true, .member = {
		{ "cells", CONTROL_COUNT, true } } },
	{ .name = "tier-add", .run = op_tier_add, .slow = true, .member = {
		{ "path", CONTROL_TEXT, false },
		{ "size", CONTROL_COUNT, true },
		{ "timeout", CONTROL_INT, true },
		{ "prio", CONTROL_COUNT, true } } },
	{ .name = "tier-rm", .run = op_tier_rm, .slow = true, .member = {
		{ "tier", CONTROL_TEXT, false } } },
	{ .name = "migrate", .run = op_migrate, .slow = true, .member = {
		{ "from", CONTROL_TEXT, false },
		{ "to", CONTROL_TEXT, false },
		{ "bytes", CONTROL_COUNT, true } } },
	{ .name = "reclaim", .run = op_reclaim, .slow = true, .member = {
		{ "bytes", CONTROL_COUNT, false } } },
	{ .name = "set", .run = op_set, .slow = true, .member = {
		{ "ram", CONTROL_COUNT, true },
		{ "compressor", CONTROL_TEXT, true } } },
	{ 0 },
};
/* clang-format on */
