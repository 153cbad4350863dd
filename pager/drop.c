// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "drop.h"

void drop_begin(struct drop *d, uint32_t number, struct range range)
{
	if (d->number == number)
		return;
	d->number = number;
	d->range = range;
	d->nr = 0;
}

static uint64_t reached(const struct drop *d)
{
	return d->nr ? d->own[d->nr - 1].end : d->range.start;
}

bool drop_seen(const struct drop *d)
{
	return reached(d) >= d->range.end;
}

bool drop_is_own(struct drop *d, struct range event, struct range *others, unsigned int *nr_others)
{
	unsigned int i;

	*nr_others = 0;
	if (event.end > d->range.end)
		return false;
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
	if (event.start != reached(d) || d->nr == DROP_EVENTS)
		return false;
	d->own[d->nr++] = event;
	return true;
}
