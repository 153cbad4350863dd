// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "vacated.h"

#include <errno.h>
#include <stdlib.h>

/* Room for one more of @size bytes in @list, of *max. */
static void *room(void *list, unsigned int nr, unsigned int *max, size_t size)
{
	unsigned int more = *max ? *max * 2 : 16;
	void *new;

	if (nr < *max)
		return list;
	new = realloc(list, more * size);
	if (new)
		*max = more;
	return new;
}

int vacated_add(struct vacated *v, uint64_t start, uint64_t end)
{
	struct range *range = room(v->range, v->nr, &v->max, sizeof(*range));

	if (!range)
		return -ENOMEM;
	v->range = range;
	range[v->nr++] = (struct range){ start, end };
	return 0;
}

int vacated_keep(struct vacated *v, uint64_t addr, vswp_entry_t entry)
{
	struct vacated_page *page = room(v->page, v->pages, &v->max_pages, sizeof(*page));

	if (!page)
		return -ENOMEM;
	v->page = page;
	page[v->pages++] = (struct vacated_page){ addr, entry };
	return 0;
}

uint64_t vacated_part(const struct vacated *v, uint64_t start, uint64_t end, bool *here)
{
	*here = false;
	for (unsigned int i = 0; i < v->nr; i++) {
		const struct range *r = &v->range[i];

		if (r->start <= start && r->end > start) {
			*here = true;
			return r->end < end ? r->end : end;
		}
		if (r->start > start && r->start < end)
			end = r->start;
	}
	return end;
}

uint64_t vacated_next(const struct vacated *v, uint64_t start, uint64_t end)
{
	for (unsigned int i = 0; i < v->pages; i++)
		if (v->page[i].addr >= start && v->page[i].addr < end)
			end = v->page[i].addr;
	return end;
}

bool vacated_take(struct vacated *v, uint64_t start, uint64_t end, struct vacated_page *page)
{
	for (unsigned int i = 0; i < v->pages; i++)
		if (v->page[i].addr >= start && v->page[i].addr < end) {
			*page = v->page[i];
			v->page[i] = v->page[--v->pages];
			return true;
		}
	return false;
}

int vacated_forget(struct vacated *v, uint64_t start, uint64_t end)
{
	for (unsigned int i = 0; i < v->nr;) {
		struct range *r = &v->range[i];
		uint64_t tail = r->end;

		if (tail <= start || r->start >= end) {
			i++;
		} else if (r->start < start) {
			r->end = start;
			if (tail > end && vacated_add(v, end, tail))
				return -ENOMEM;
			i++;
		} else if (tail > end) {
			r->start = end;
			i++;
		} else {
			*r = v->range[--v->nr];
		}
	}
	return 0;
}

void vacated_destroy(struct vacated *v)
{
	free(v->range);
	free(v->page);
}
