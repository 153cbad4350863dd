// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A map of the managed memory: where each page is and how warm.
 *
 * Memory is told in cells of as many pages as keep the answer short; a cell
 * stands for the place most of its pages are in.  Nothing is held still: a client
 * is looked at two MiB at a time with its state locked, so what is told of two
 * such parts is of two moments.
 */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "json.h"
#include "ops.h"
#include "state.h"
#include "tiers.h"

#define CELLS_DEFAULT 16384
#define CELLS_MOST    (1 << 18)
/* Heat of what is swapped out ends below that of what is resident. */
#define HEAT_RESIDENT 8
#define HEAT_CACHE    7

enum place {
	PLACE_NONE, /* never touched, or given back */
	PLACE_RESIDENT,
	PLACE_CACHE,
	PLACE_FILL,
	PLACE_POOL,
	PLACE_LOST,
	PLACE_TIER, /* the first one */
	NR_PLACES = PLACE_TIER + SWAP_MAX_TIERS,
};

static const char *const place_name[] = { "none", "resident", "cache", "fill", "pool", "lost" };

struct map {
	struct control_call *call;
	void *tier[SWAP_MAX_TIERS]; /* seen so far, their priv */
	unsigned int nr_tiers;
	uint64_t cell_pages, pages, done;
	/* the cell under way */
	unsigned int count[NR_PLACES];
	uint64_t heat[NR_PLACES]; /* sums */
	uint64_t seen;
	/* the run under way */
	struct json_object *runs;
	int place, warmth;
	uint64_t cells;
	bool failed;
};

static unsigned int tier_place(struct map *m, void *priv)
{
	unsigned int i;

	for (i = 0; i < m->nr_tiers && m->tier[i] != priv; i++)
		;
	if (i == m->nr_tiers) {
		/* More than there can be at a time came and went meanwhile. */
		if (i == SWAP_MAX_TIERS)
			return PLACE_NONE;
		m->tier[m->nr_tiers++] = priv;
	}
	return PLACE_TIER + i;
}

/* The colder, the more has been evicted since: each step four times as much. */
static unsigned int age_heat(uint64_t distance)
{
	unsigned int heat = HEAT_CACHE - 1;

	for (distance >>= 10; distance && heat; distance >>= 2)
		heat--;
	return heat;
}

static void end_run(struct map *m)
{
	struct json_object *run;

	if (!m->cells)
		return;
	run = json_object_new_array();
	m->failed |= json_append(m->runs, run) || json_append(run, json_object_new_int(m->place)) ||
		     json_append(run, json_object_new_int(m->warmth)) ||
		     json_append(run, json_object_new_uint64(m->cells));
	m->cells = 0;
}

static void end_cell(struct map *m)
{
	int place = PLACE_NONE, warmth;

	if (!m->seen)
		return;
	for (int i = 1; i < NR_PLACES; i++)
		if (m->count[i] > m->count[place])
			place = i;
	warmth = m->count[place] ? m->heat[place] / m->count[place] : 0;
	if (m->cells && (place != m->place || warmth != m->warmth))
		end_run(m);
	m->place = place;
	m->warmth = warmth;
	m->cells++;
	m->seen = 0;
	memset(m->count, 0, sizeof(m->count));
	memset(m->heat, 0, sizeof(m->heat));
}

/* Where an entry's bytes are, and how warm. */
static unsigned int entry_place(struct map *m, vswp_entry_t entry, unsigned int *heat)
{
	void *priv;

	*heat = age_heat(swap_refault_distance(pager.space, entry));
	switch (swap_entry_where(pager.space, entry)) {
	case SWAP_FOLIO:
		*heat = HEAT_CACHE;
		return PLACE_CACHE;
	case SWAP_FILL:
		return PLACE_FILL;
	case SWAP_ZPOOL:
		return PLACE_POOL;
	case SWAP_SLOT:
		priv = swap_entry_tier(pager.space, entry);
		return priv ? tier_place(m, priv) : PLACE_NONE;
	case SWAP_POISON:
		return PLACE_LOST;
	case SWAP_NULL:
		break;
	}
	return PLACE_NONE;
}

/* [start, end) is within one window. */
static void map_window(struct map *m, struct client *c, uint64_t start, uint64_t end)
{
	uint64_t pagemap[WINDOW_PAGES];
	uint64_t pages = (end - start) / PAGE_SIZE_;
	ssize_t got = -1;

	if (c->pagemap >= 0)
		got = pread(c->pagemap, pagemap, pages * sizeof(*pagemap),
			    start / PAGE_SIZE_ * sizeof(*pagemap));
	if (got < 0)
		got = 0;
	memset((char *)pagemap + got, 0, pages * sizeof(*pagemap) - got);
	pthread_mutex_lock(&c->state);
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t addr = start + i * PAGE_SIZE_;
		vswp_entry_t entry = window_get(&c->win, addr);
		unsigned int place = PLACE_NONE, heat = 0;

		if (entry.val) {
			place = entry_place(m, entry, &heat);
		} else if (pagemap[i] >> 63) {
			place = PLACE_RESIDENT;
			heat = HEAT_RESIDENT + window_heat(&c->win, addr) / 2;
		}
		m->count[place]++;
		m->heat[place] += heat;
		if (++m->seen == m->cell_pages)
			end_cell(m);
	}
	pthread_mutex_unlock(&c->state);
	m->done += pages;
}

static int map_range(struct map *m, struct client *c, struct json_object *ranges,
		     const struct range *r)
{
	struct json_object *obj = json_object_new_object();
	uint64_t start, end;

	m->runs = json_object_new_array();
	if (json_append(ranges, obj) || json_add_u64(obj, "start", r->start) ||
	    json_add_u64(obj, "end", r->end) || json_add(obj, "runs", m->runs))
		return -1;
	for (start = r->start; start < r->end; start = end) {
		end = ((start >> WINDOW_SHIFT) + 1) << WINDOW_SHIFT;
		if (end > r->end)
			end = r->end;
		map_window(m, c, start, end);
		if (!control_progress(m->call, m->done * PAGE_SIZE_, m->pages * PAGE_SIZE_))
			return -1;
	}
	/* Each range begins with a cell of its own. */
	end_cell(m);
	end_run(m);
	return m->failed ? -1 : 0;
}

/* What is managed of @c now, the caller's to free; NULL and 0 when nothing is. */
static struct range *ranges_of(struct client *c, unsigned int *nr)
{
	struct range *copy = NULL;

	pthread_mutex_lock(&c->state);
	*nr = c->nr_ranges;
	if (*nr)
		copy = malloc(*nr * sizeof(*copy));
	if (copy)
		memcpy(copy, c->range, *nr * sizeof(*copy));
	else
		*nr = 0;
	pthread_mutex_unlock(&c->state);
	return copy;
}

static uint64_t pages_of(struct client *c)
{
	unsigned int nr;
	struct range *r = ranges_of(c, &nr);
	uint64_t pages = 0;

	for (unsigned int i = 0; i < nr; i++)
		pages += (r[i].end - r[i].start) / PAGE_SIZE_;
	free(r);
	return pages;
}

static int map_client(struct map *m, struct client *c, struct json_object *clients)
{
	struct json_object *obj = json_object_new_object(), *ranges = json_object_new_array();
	unsigned int nr;
	struct range *r = ranges_of(c, &nr);
	int err;

	err = json_append(clients, obj);
	if (!err)
		err = json_add_u64(obj, "pid", client_pid(c));
	if (err)
		json_object_put(ranges);
	else
		err = json_add(obj, "ranges", ranges);
	for (unsigned int i = 0; i < nr && !err; i++)
		err = map_range(m, c, ranges, &r[i]);
	free(r);
	return err;
}

/* The names of places by number: what runs say. */
static int add_places(struct map *m)
{
	struct json_object *places = json_object_new_array();
	int err = json_add(m->call->answer, "places", places);

	for (unsigned int i = 0; i < PLACE_TIER && !err; i++)
		err = json_append(places, json_object_new_string(place_name[i]));
	for (unsigned int i = 0; i < m->nr_tiers && !err; i++) {
		char name[4096];

		json_to_text(name, sizeof(name), tiers_name(m->tier[i]));
		err = json_append(places, json_object_new_string(name));
	}
	return err;
}

int op_map(struct control_call *call)
{
	struct map m = { .call = call, .cell_pages = 1 };
	struct client *list[MAX_CLIENTS];
	struct json_object *clients;
	int64_t cells = control_number(call, "cells", CELLS_DEFAULT);
	unsigned int n;
	int err;

	if (cells < 1 || cells > CELLS_MOST)
		return control_refuse(call, "map: cells %lld: too few or too many (give 1 to %d)",
				      (long long)cells, CELLS_MOST);
	clients = json_object_new_array();
	err = json_add(call->answer, "clients", clients);
	n = clients_get(list, MAX_CLIENTS);
	for (unsigned int i = 0; i < n; i++)
		m.pages += pages_of(list[i]);
	while (m.pages / m.cell_pages > (uint64_t)cells)
		m.cell_pages *= 2;
	for (unsigned int i = 0; i < n; i++) {
		if (!err && !client_is_dead(list[i]))
			err = map_client(&m, list[i], clients);
		client_put(list[i]);
	}
	if (!err)
		err = json_add_u64(call->answer, "cell_bytes", m.cell_pages * PAGE_SIZE_);
	if (!err)
		err = add_places(&m);
	if (control_cancelled(call))
		return control_refuse(call, "map: given up (its client left)");
	return err ? control_refuse(call, "out of memory (free some)") : 0;
}
