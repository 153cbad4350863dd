// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "drop.h"

void drop_begin(struct drop *d, uint32_t number, struct range range)
{
	if (d->number == number)
		return;
	d->number = number;
	d->range = range;
	d->nr = d->nr_others = d->nr_holes = 0;
	d->forgot = d->unsure = false;
}

static void keep(struct drop *d, struct range *list, unsigned int *nr, struct range r)
{
	if (*nr < DROP_EVENTS)
		list[(*nr)++] = r;
	else
		d->forgot = true;
}

static uint64_t reached(const struct drop *d)
{
	return d->nr ? d->own[d->nr - 1].end : d->range.start;
}

bool drop_seen(const struct drop *d)
{
	return reached(d) >= d->range.end;
}

struct range drop_last(const struct drop *d)
{
	return d->nr ? d->own[d->nr - 1] : (struct range){ 0, 0 };
}

/* Of the last mapping only what is before @there was dropped, and the rest is told of again. */
static bool goes_again(struct drop *d, struct range event, uint64_t there)
{
	struct range last = drop_last(d);

	if (event.start <= last.start || event.start > there || there <= last.start ||
	    there >= last.end)
		return false;
	/* Where the program has dropped what is before, it is not known from where on. */
	for (unsigned int i = 0; i < d->nr_others; i++)
		d->unsure |= d->other[i].start < there && d->other[i].end >= there;
	return event.start == there && !d->unsure;
}

bool drop_is_own(struct drop *d, struct range event, uint64_t there, struct range *others,
		 unsigned int *nr_others)
{
	unsigned int i;

	*nr_others = 0;
	if (event.end > d->range.end)
		return false;
	if (goes_again(d, event, there))
		d->own[d->nr - 1].end = there;
	for (i = 0; i < d->nr && d->own[i].start != event.start; i++)
		;
	if (i < d->nr) {
		if (event.end <= d->own[i].end)
			return false;
		/* That was the program's, and so was what seemed to go on from there. */
		for (unsigned int j = i; j < d->nr; j++)
			others[(*nr_others)++] = d->own[j];
		d->nr = i;
	}
	if (event.start != reached(d) || d->nr == DROP_EVENTS) {
		if (event.start >= d->range.start)
			keep(d, d->other, &d->nr_others, event);
		return false;
	}
	d->own[d->nr++] = event;
	return true;
}

void drop_has_hole(struct drop *d, struct range hole)
{
	if (hole.start < d->range.end && hole.end > d->range.start)
		keep(d, d->hole, &d->nr_holes, hole);
}

/* May an event of the agent's begin at @at: where one of its ended, or a hole? */
static bool goes_on(const struct drop *d, const struct range *own, unsigned int nr, uint64_t at)
{
	if (at == reached(d))
		return true;
	for (unsigned int i = 0; i < nr; i++)
		if (own[i].end == at)
			return true;
	for (unsigned int i = 0; i < d->nr_holes; i++)
		if (d->hole[i].end == at)
			return true;
	return false;
}

static uint64_t reach(const struct range *list, unsigned int nr, uint64_t at)
{
	for (unsigned int i = 0; i < nr; i++)
		if (list[i].start <= at && list[i].end > at)
			at = list[i].end;
	return at;
}

/* Is all of the range told of, so that there can be no more events of the agent's? */
static bool all_known(const struct drop *d, const struct range *own, unsigned int nr)
{
	uint64_t at = d->range.start, before;

	do {
		before = at;
		at = reach(d->own, d->nr, at);
		at = reach(own, nr, at);
		at = reach(d->hole, d->nr_holes, at);
	} while (at > before);
	return at >= d->range.end;
}

bool drop_over_hole(const struct drop *d, struct range *own, unsigned int *nr_own)
{
	bool known[DROP_EVENTS] = { false }, more = true, left = false;

	*nr_own = 0;
	if (d->forgot)
		return false;
	while (more) {
		more = false;
		for (unsigned int i = 0; i < d->nr_others; i++) {
			struct range longest = d->other[i];

			if (known[i] || !goes_on(d, own, *nr_own, longest.start))
				continue;
			for (unsigned int j = i; j < d->nr_others; j++)
				if (d->other[j].start == longest.start) {
					known[j] = true;
					if (d->other[j].end > longest.end)
						longest = d->other[j];
				}
			own[(*nr_own)++] = longest;
			more = true;
		}
	}
	for (unsigned int i = 0; i < d->nr_others; i++)
		left |= !known[i];
	return !left || all_known(d, own, *nr_own);
}
