// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "frame.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "group.h"
#include "window.h"

#define FRAMES_PART 64	  /* one part in so many of a budget, */
#define SMALL_PART  16	  /* ... of a small one more, */
#define MIN_FRAMES  256	  /* ... up to so many */
#define MAX_FRAMES  16384 /* 64 MiB: longer a rest does not tell hot from cold better */

static struct {
	pthread_mutex_t lock;
	struct frame *frame;
	unsigned int nr, usable, nr_free, touched;
	struct list_head free;
	struct list_head surplus; /* not in use, not usable, their memory still there */
	struct list_head retired; /* ... and not there */
	char *data;
	int fd;
} frames = { .lock = PTHREAD_MUTEX_INITIALIZER };

int frames_init(unsigned int nr)
{
	uint64_t bytes = nr * PAGE_SIZE_;
	int fd;

	fd = memfd_create("vswap-frames", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, bytes))
		goto fail;
	frames.data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (frames.data == MAP_FAILED)
		goto fail;
	frames.frame = aligned_alloc(64, nr * sizeof(*frames.frame));
	if (!frames.frame) {
		munmap(frames.data, bytes);
		errno = ENOMEM;
		goto fail;
	}
	INIT_LIST_HEAD(&frames.free);
	INIT_LIST_HEAD(&frames.surplus);
	INIT_LIST_HEAD(&frames.retired);
	for (unsigned int i = 0; i < nr; i++) {
		/* A count of 0 from the start: lookups turn away from what is not in use. */
		swap_folio_init(&frames.frame[i].folio, NULL, 0, NULL, NULL);
		atomic_set(&frames.frame[i].folio.ref, 0);
		frames.frame[i].touched = false;
		list_add_tail(&frames.frame[i].folio.lru, &frames.free);
	}
	frames.nr = frames.usable = frames.nr_free = nr;
	frames.fd = fd;
	return 0;
fail:
	nr = errno;
	close(fd);
	return -(int)nr;
}

unsigned int frames_for(uint64_t bytes)
{
	uint64_t pages = bytes / PAGE_SIZE_, nr = pages / FRAMES_PART;

	/* A quarter is a batch, which should be worth the wake-ups it takes. */
	if (nr < MIN_FRAMES)
		nr = pages / SMALL_PART < MIN_FRAMES ? pages / SMALL_PART : MIN_FRAMES;
	return nr < MAX_FRAMES ? nr : MAX_FRAMES;
}

int frames_fd(void)
{
	return frames.fd;
}

uint64_t frames_bytes(void)
{
	return frames.nr * PAGE_SIZE_;
}

static struct frame *frame_of(struct swap_folio *folio)
{
	return container_of(folio, struct frame, folio);
}

unsigned int frame_number(const struct frame *frame)
{
	return frame - frames.frame;
}

/* One nobody uses, to where it belongs.  The lock is held. */
static void put_by(struct frame *frame)
{
	struct list_head *lru = &frame->folio.lru;

	if (frame_number(frame) < frames.usable) {
		/* Last in, first out: what was used before already has its memory. */
		list_add(lru, &frames.free);
		frames.nr_free++;
	} else {
		list_add(lru, frame->touched ? &frames.surplus : &frames.retired);
	}
}

static void frame_release(struct swap_folio *folio)
{
	group_add_frames(frame_of(folio)->group, -1);
	pthread_mutex_lock(&frames.lock);
	put_by(frame_of(folio));
	pthread_mutex_unlock(&frames.lock);
}

void frames_resize(unsigned int nr)
{
	struct swap_folio *folio;
	LIST_HEAD(all);

	if (nr > frames.nr)
		nr = frames.nr;
	pthread_mutex_lock(&frames.lock);
	if (nr != frames.usable) {
		frames.usable = nr;
		list_splice_init(&frames.surplus, &all);
		list_splice_init(&frames.retired, &all);
		list_splice_init(&frames.free, &all);
		frames.nr_free = 0;
		while (!list_empty(&all)) {
			folio = list_first_entry(&all, struct swap_folio, lru);
			list_del_init(&folio->lru);
			put_by(frame_of(folio));
		}
	}
	pthread_mutex_unlock(&frames.lock);
}

void frames_trim(void)
{
	struct frame *frame;

	pthread_mutex_lock(&frames.lock);
	while (!list_empty(&frames.surplus)) {
		frame = frame_of(list_first_entry(&frames.surplus, struct swap_folio, lru));
		list_del_init(&frame->folio.lru);
		/* Nobody looks for it while it is on no list. */
		pthread_mutex_unlock(&frames.lock);
		madvise(frames.data + frame_number(frame) * PAGE_SIZE_, PAGE_SIZE_, MADV_REMOVE);
		pthread_mutex_lock(&frames.lock);
		frame->touched = false;
		frames.touched--;
		put_by(frame);
	}
	pthread_mutex_unlock(&frames.lock);
}

bool folio_is_frame(const struct swap_folio *folio)
{
	const char *p = (const char *)folio;

	return p >= (char *)frames.frame && p < (char *)(frames.frame + frames.nr);
}

struct frame *frame_alloc(struct group *group)
{
	struct frame *frame = NULL;

	pthread_mutex_lock(&frames.lock);
	if (frames.nr_free) {
		frame = frame_of(list_first_entry(&frames.free, struct swap_folio, lru));
		list_del_init(&frame->folio.lru);
		frames.nr_free--;
		frames.touched += !frame->touched;
		frame->touched = true;
	}
	pthread_mutex_unlock(&frames.lock);
	if (frame) {
		swap_folio_init(&frame->folio, frames.data + frame_number(frame) * PAGE_SIZE_, 0,
				NULL, frame_release);
		frame->group = group;
		group_add_frames(group, 1);
		INIT_LIST_HEAD(&frame->folio.lru);
	}
	return frame;
}

void frame_queue(struct frame *frame)
{
	pthread_mutex_lock(&frames.lock);
	list_add_tail(&frame->folio.lru, &frame->group->queue);
	frame->group->queued++;
	pthread_mutex_unlock(&frames.lock);
}

static struct group *longest_queue(void)
{
	struct group *longest = group_root(), *g;

	for (unsigned int i = 1; (g = group_nth(i)); i++)
		if (g->queued > longest->queued)
			longest = g;
	return longest;
}

struct frame *frame_dequeue(struct group *group)
{
	struct frame *frame = NULL;

	pthread_mutex_lock(&frames.lock);
	if (!group)
		group = longest_queue();
	if (group->queued) {
		frame = frame_of(list_first_entry(&group->queue, struct swap_folio, lru));
		list_del_init(&frame->folio.lru);
		group->queued--;
	}
	pthread_mutex_unlock(&frames.lock);
	return frame;
}

void frame_forget(struct frame *frame)
{
	bool queued;

	pthread_mutex_lock(&frames.lock);
	queued = !list_empty(&frame->folio.lru);
	list_del_init(&frame->folio.lru);
	frame->group->queued -= queued;
	pthread_mutex_unlock(&frames.lock);
	if (queued)
		swap_folio_put(&frame->folio);
}

unsigned int frames_free(void)
{
	unsigned int n;

	pthread_mutex_lock(&frames.lock);
	n = frames.nr_free;
	pthread_mutex_unlock(&frames.lock);
	return n;
}

unsigned int frames_total(void)
{
	unsigned int n;

	pthread_mutex_lock(&frames.lock);
	n = frames.usable;
	pthread_mutex_unlock(&frames.lock);
	return n;
}

unsigned int frames_touched(void)
{
	unsigned int n;

	pthread_mutex_lock(&frames.lock);
	n = frames.touched;
	pthread_mutex_unlock(&frames.lock);
	return n;
}
