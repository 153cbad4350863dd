// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which parts of a client are registered, and late registration.
 *
 * Nothing is registered until the budget is nearly used: first touches stay in
 * the kernel, with huge pages, at full speed.  Then, and whenever the program
 * has grown by other ways than our faults, its map is read and what is private,
 * writable and anonymous is registered.
 *
 * Invariant: a range in the list is registered.  The kernel drops a registration
 * only with an event (unmap, remap) that takes the range off the list before
 * anything else is done to the client.  The other way round does no harm: what
 * is registered and not in the list is served, and not evicted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "client.h"
#include "mapping.h"
#include "state.h"
#include "thread.h"

#define MAX_NEIGHBOURS 256
#define LIST_NS	       200000L
#define PROTECT_TRIES  20
#define PROTECT_US     50
#define REGISTER_TRIES 3

struct range *range_from(struct client *c, uint64_t addr)
{
	unsigned int lo = 0, hi = c->nr_ranges;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (c->range[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->nr_ranges ? &c->range[lo] : NULL;
}

static int ranges_insert(struct client *c, unsigned int at, uint64_t start, uint64_t end)
{
	if (c->nr_ranges == c->max_ranges) {
		unsigned int max = c->max_ranges ? c->max_ranges * 2 : 64;
		struct range *range = realloc(c->range, max * sizeof(*range));

		if (!range)
			return -ENOMEM;
		c->range = range;
		c->max_ranges = max;
	}
	memmove(&c->range[at + 1], &c->range[at], (c->nr_ranges - at) * sizeof(*c->range));
	c->range[at] = (struct range){ start, end };
	c->nr_ranges++;
	return 0;
}

void ranges_remove(struct client *c, uint64_t start, uint64_t end)
{
	struct range *r = range_from(c, start);
	unsigned int i;

	if (!r)
		return;
	for (i = r - c->range; i < c->nr_ranges && c->range[i].start < end;) {
		r = &c->range[i];
		if (r->start < start && r->end > end) {
			uint64_t tail = r->end;

			r->end = start;
			/* Out of memory: the tail is served and not evicted until found again. */
			ranges_insert(c, i + 1, end, tail);
			return;
		}
		if (r->start < start) {
			r->end = start;
			i++;
		} else if (r->end > end) {
			r->start = end;
			return;
		} else {
			c->nr_ranges--;
			memmove(r, r + 1, (c->nr_ranges - i) * sizeof(*r));
		}
	}
}

int ranges_add(struct client *c, uint64_t start, uint64_t end)
{
	struct range *r;
	unsigned int i;

	ranges_remove(c, start, end);
	r = range_from(c, start ? start - 1 : 0);
	i = r ? r - c->range : c->nr_ranges;
	if (r && r->end == start) {
		r->end = end;
		if (i + 1 < c->nr_ranges && r[1].start == end) {
			r->end = r[1].end;
			c->nr_ranges--;
			memmove(r + 1, r + 2, (c->nr_ranges - i - 1) * sizeof(*r));
		}
		return 0;
	}
	if (r && r->start == end) {
		r->start = start;
		return 0;
	}
	return ranges_insert(c, i, start, end);
}

static bool write_protect(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_writeprotect wp = {
		.range = { start, end - start },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return !ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
}

/*
 * Pages only read so far all map the one zero page.  A write gives each memory of
 * its own without any fault of ours, so those are write-protected: then it comes
 * to us, and waits when there is no room.
 */
static void protect_zeros(struct client *c, uint64_t start, uint64_t end)
{
	struct page_region region[64];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.end = end,
		.vec = (uint64_t)region,
		.vec_len = 64,
		.category_mask = PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_PFNZERO,
	};
	int n;

	while (start < end) {
		scan.start = start;
		n = ioctl(c->pagemap, PAGEMAP_SCAN, &scan);
		/* Refused while the program changes its map: a little growth unseen. */
		for (int i = 0; i < n; i++)
			write_protect(c->uffd, region[i].start, region[i].end);
		if (n < 0 || scan.walk_end <= start)
			break;
		start = scan.walk_end;
	}
}

/*
 * Is [start, end) one mapping, and registered?  UFFDIO_REGISTER takes a range with
 * holes, and what is mapped into one later would be ours by the list alone: taken
 * out of the program, and zeros when it is touched.  UFFDIO_COPY does not.
 */
static bool is_registered(struct client *c, uint64_t start, uint64_t end)
{
	int err = try_copy(c->uffd, start, end);

	return err == EEXIST || err == EFAULT;
}

static bool do_register(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = { start, end - start },
		.mode = UFFDIO_REGISTER_MODE_MISSING |
			(pager.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP ? UFFDIO_REGISTER_MODE_WP :
									   0),
	};

	return !ioctl(uffd, UFFDIO_REGISTER, &reg);
}

/*
 * What was registered goes on the list, if it is there still, and if no event was read that
 * is to be followed yet: one that tells how it came there would find it known, and take it for
 * what was there before.  Then the next look lists it.  Returns bytes.
 */
static uint64_t list_registered(struct client *c, uint64_t start, uint64_t end)
{
	bool ok;

	if (gate_lock(c->gate, GATE_TO_COPY, LIST_NS) != GATE_ENTERED)
		return 0;
	pthread_mutex_lock(&c->state);
	ok = !event_unfollowed(c) && is_registered(c, start, end) && !ranges_add(c, start, end);
	if (ok)
		event_all_told(c);
	pthread_mutex_unlock(&c->state);
	client_ungate(c, GATE_TO_COPY);
	if (!ok)
		return 0;
	if (pager.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP)
		protect_zeros(c, start, end);
	return end - start;
}

/* The first part of [*start, end) that is not on the list; *start is where to go on.  False: none. */
static bool next_gap(struct client *c, uint64_t *start, uint64_t end, struct range *gap)
{
	struct range *r;

	pthread_mutex_lock(&c->state);
	while ((r = range_from(c, *start)) && r->start <= *start && *start < end)
		*start = r->end;
	*gap = (struct range){ *start, r && r->start < end ? r->start : end };
	pthread_mutex_unlock(&c->state);
	*start = gap->end;
	return gap->start < end;
}

static bool is_listed(struct client *c, uint64_t start, uint64_t end)
{
	struct range gap;

	return !next_gap(c, &start, end, &gap);
}

/*
 * Register the parts of [start, end) that are not, less what the agent owns.  It may be
 * gone, in part even, or something else by now: then the next look at the map tells.
 */
static uint64_t register_gaps(struct client *c, uint64_t start, uint64_t end)
{
	uint64_t bytes = 0;
	struct range gap;

	while (next_gap(c, &start, end, &gap)) {
		for (unsigned int i = 0; i < WIRE_RANGES; i++) {
			const struct range *own = &c->own[i];

			if (own->start >= gap.end || own->end <= gap.start)
				continue;
			if (own->start > gap.start) {
				gap.end = own->start;
			} else {
				gap.start = own->end;
				if (gap.end < gap.start)
					gap.end = gap.start;
			}
			start = gap.end;
		}
		if (gap.start < gap.end && do_register(c->uffd, gap.start, gap.end))
			bytes += list_registered(c, gap.start, gap.end);
	}
	return bytes;
}

static bool touches_own(const struct client *c, uint64_t start, uint64_t end)
{
	for (unsigned int i = 0; i < WIRE_RANGES; i++)
		if (c->own[i].start < end && c->own[i].end > start)
			return true;
	return false;
}

/*
 * Only private anonymous memory is taken: a registered page that somebody else could
 * drop without telling us would come back as zeros.
 */
static bool is_anonymous(const struct mapping *m)
{
	const char *name = m->name;

	return !m->inode && m->perms[3] == 'p' && m->end < 1UL << 47 &&
	       (!*name || !strcmp(name, "[heap]") || !strcmp(name, "[stack]") ||
		!strncmp(name, "[anon:", 6) || !strncmp(name, "[stack:", 7));
}

static bool is_writable(const struct mapping *m)
{
	return m->perms[0] == 'r' && m->perms[1] == 'w';
}

/*
 * Neighbours are registered at once: the kernel waits for a fault under way in each, and
 * while it has them all locked the others that fault there sleep, and leave their CPU to
 * the one it waits for.  Thread stacks and arenas stand side by side, with memory between
 * and behind that may not be touched; it is taken along, not on the list: what mprotect()
 * makes of it later comes by faults from the start.
 */
struct registering {
	struct client *client;
	uint64_t end;	 /* of the neighbours so far */
	unsigned int nr; /* mappings among them that are to be registered */
	struct range mapping[MAX_NEIGHBOURS];
	uint64_t bytes;
};

static void register_neighbours(struct registering *r)
{
	struct client *c = r->client;
	unsigned int nr = r->nr;

	r->nr = 0;
	if (nr && do_register(c->uffd, r->mapping[0].start, r->end))
		for (unsigned int i = 0; i < nr; i++)
			r->bytes += list_registered(c, r->mapping[i].start, r->mapping[i].end);
	else
		for (unsigned int i = 0; i < nr; i++)
			r->bytes += register_gaps(c, r->mapping[i].start, r->mapping[i].end);
}

static bool register_mapping(void *arg, const struct mapping *m)
{
	struct registering *r = arg;
	struct client *c = r->client;
	bool ours = is_anonymous(m), rw = ours && is_writable(m);
	bool own = touches_own(c, m->start, m->end);

	if (m->start != r->end || !ours || own || r->nr == MAX_NEIGHBOURS)
		register_neighbours(r);
	if (own && rw)
		r->bytes += register_gaps(c, m->start, m->end);
	else if (rw && !is_listed(c, m->start, m->end))
		r->mapping[r->nr++] = (struct range){ m->start, m->end };
	r->end = ours && !own ? m->end : 0;
	return true;
}

uint64_t client_register(struct client *c)
{
	struct registering r = { .client = c };
	unsigned int tries = 0;
	uint64_t before;

	/*
	 * What has grown meanwhile is two mappings where we cut it, of which the program
	 * cannot mremap() more than one: look again at once.
	 */
	do {
		before = r.bytes;
		/* It may be going: what was registered so far is. */
		mappings_walk(c->maps, register_mapping, &r);
		register_neighbours(&r);
	} while (r.bytes > before && ++tries < REGISTER_TRIES);
	if (r.bytes)
		__atomic_store_n(&c->registered, true, __ATOMIC_RELAXED);
	return r.bytes;
}

struct protecting {
	const struct client *parent;
	int uffd;
};

static bool protect_mapping(void *arg, const struct mapping *m)
{
	struct protecting *p = arg;

	/* Refused is a little growth unseen. */
	if (is_anonymous(m) && is_writable(m) && !touches_own(p->parent, m->start, m->end) &&
	    do_register(p->uffd, m->start, m->end))
		write_protect(p->uffd, m->start, m->end);
	return true;
}

void client_protect_child(const struct client *parent, int uffd)
{
	struct protecting p = { parent, uffd };

	/* The child's map is its parent's still. */
	mappings_walk(parent->maps, protect_mapping, &p);
}

/* All of [start, end) but those pages. */
static bool protect_but(struct client *c, uint64_t start, uint64_t end, const struct pages *but)
{
	for (unsigned int i = 0; i < but->nr; i++) {
		if (but->addr[i] < start || but->addr[i] >= end)
			continue;
		if (but->addr[i] > start && !write_protect(c->uffd, start, but->addr[i]))
			return false;
		start = but->addr[i] + PAGE_SIZE_;
	}
	return start == end || write_protect(c->uffd, start, end);
}

void client_protect(struct client *c)
{
	unsigned int tries = 0;
	struct pages ends;
	struct range *r;
	uint64_t addr = 0;

	client_register(c);
	ends = thread_ends(client_pid(c));
	pthread_mutex_lock(&c->state);
	while ((r = range_from(c, addr))) {
		uint64_t end = r->end;

		/* Refused until the thread that forks is awake, and while others change the map. */
		if (!protect_but(c, r->start, end, &ends) && errno == EAGAIN &&
		    tries++ < PROTECT_TRIES) {
			pthread_mutex_unlock(&c->state);
			usleep(PROTECT_US);
			pthread_mutex_lock(&c->state);
			continue;
		}
		addr = end;
	}
	pthread_mutex_unlock(&c->state);
	free(ends.addr);
}

void client_protect_shared(struct client *c)
{
	if ((pager.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) && client_shares(c) &&
	    !__atomic_exchange_n(&c->is_protected, true, __ATOMIC_RELAXED))
		client_protect(c);
}
