// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Batches of pages over io_uring.
 *
 * A batch is cut into runs: pages whose slots follow each other, up to 1 MiB,
 * make one vectored transfer.  All runs of a wave are handed to the kernel by
 * one call and waited for together.  The ring only ever carries the good case:
 * a run that came back short, or with an error, or that the ring would not
 * take, is finished by plain preadv and pwritev, which is also the whole path
 * where io_uring is not permitted.  So there is one place that decides what
 * became of a page.
 *
 * A ring belongs to one thread while it works and lies on the idle list
 * otherwise.  The list's lock is the only one here and is never held over a
 * system call.
 */
#include "batch.h" /* before stdatomic.h, which liburing.h includes: both have atomic_*() */

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/uio.h>

#define RUN_PAGES 256 /* 1 MiB */
#define RING_RUNS 128
#define RING_IOVS 1024
#define MAX_RINGS 16

/* Pages whose slots follow each other. */
struct run {
	struct swap_io *io;
	unsigned int nr;
	unsigned int done; /* pages the ring has moved */
};

struct ring {
	struct io_uring uring;
	struct ring *next;
	struct run run[RING_RUNS];
	struct iovec iov[RING_IOVS];
};

struct tier_batch {
	pthread_mutex_t lock;
	struct ring *idle;
	unsigned int nr_rings;
	bool refused; /* io_uring is not for us */
};

/* One transfer: where, which way. */
struct xfer {
	int fd;
	u64 base;
	bool write;
};

struct tier_batch *tier_batch_new(void)
{
	struct tier_batch *b = calloc(1, sizeof(*b));

	if (b && pthread_mutex_init(&b->lock, NULL)) {
		free(b);
		b = NULL;
	}
	return b;
}

void tier_batch_free(struct tier_batch *b)
{
	struct ring *ring;

	if (!b)
		return;
	while ((ring = b->idle)) {
		b->idle = ring->next;
		io_uring_queue_exit(&ring->uring);
		free(ring);
	}
	pthread_mutex_destroy(&b->lock);
	free(b);
}

bool tier_batch_uring(struct tier_batch *b)
{
	bool refused;

	pthread_mutex_lock(&b->lock);
	refused = b->refused;
	pthread_mutex_unlock(&b->lock);
	return !refused;
}

static int ring_setup(struct io_uring *uring)
{
	/* Completions need no interrupt: whoever submits also waits. */
	int ret = io_uring_queue_init(RING_RUNS, uring, IORING_SETUP_COOP_TASKRUN);

	if (ret == -EINVAL) /* before Linux 5.19 */
		ret = io_uring_queue_init(RING_RUNS, uring, 0);
	return ret;
}

/* A ring for this thread alone, or NULL: do without. */
static struct ring *ring_get(struct tier_batch *b)
{
	struct ring *ring;
	bool create;
	int ret;

	pthread_mutex_lock(&b->lock);
	ring = b->idle;
	if (ring)
		b->idle = ring->next;
	create = !ring && !b->refused && b->nr_rings < MAX_RINGS;
	if (create)
		b->nr_rings++;
	pthread_mutex_unlock(&b->lock);
	if (!create)
		return ring;

	ring = malloc(sizeof(*ring));
	ret = ring ? ring_setup(&ring->uring) : -ENOMEM;
	if (!ret)
		return ring;

	free(ring);
	pthread_mutex_lock(&b->lock);
	b->nr_rings--;
	/* No memory or no descriptor may pass; everything else is a refusal. */
	if (ret != -ENOMEM && ret != -EMFILE && ret != -ENFILE && ret != -EAGAIN && ret != -EINTR)
		b->refused = true;
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

static void ring_put(struct tier_batch *b, struct ring *ring, bool broken)
{
	if (broken) {
		io_uring_queue_exit(&ring->uring);
		free(ring);
	}
	pthread_mutex_lock(&b->lock);
	if (broken) {
		b->nr_rings--;
	} else {
		ring->next = b->idle;
		b->idle = ring;
	}
	pthread_mutex_unlock(&b->lock);
}

static off_t io_offset(const struct xfer *x, const struct swap_io *io)
{
	return (off_t)(x->base + io->slot * SWAP_PAGE_SIZE);
}

/* Buffers that touch each other share a vector element. */
static unsigned int run_iov(const struct swap_io *io, unsigned int nr, struct iovec *iov)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < nr; i++) {
		if (n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == io[i].data) {
			iov[n - 1].iov_len += SWAP_PAGE_SIZE;
			continue;
		}
		iov[n].iov_base = io[i].data;
		iov[n].iov_len = SWAP_PAGE_SIZE;
		n++;
	}
	return n;
}

/* How many of @nr pages, from the front, make one run. */
static unsigned int run_length(const struct swap_io *io, unsigned int nr)
{
	unsigned int n = 1;

	while (n < nr && n < RUN_PAGES && io[n].slot == io[0].slot + n)
		n++;
	return n;
}

/*
 * Move @nr pages of a run by plain calls and settle the error of each.  Only
 * whole pages count: what is left of a page that came in part is done again.
 * When a read fails, its pages are read one by one, so that a bad one takes
 * none of its neighbours along.
 */
static void run_plain(const struct xfer *x, struct swap_io *io, unsigned int nr)
{
	struct iovec iov[RUN_PAGES];
	unsigned int i = 0, step = nr, n, nr_iov;
	ssize_t ret;
	int err;

	while (i < nr) {
		n = nr - i < step ? nr - i : step;
		nr_iov = run_iov(io + i, n, iov);
		if (x->write)
			ret = pwritev(x->fd, iov, (int)nr_iov, io_offset(x, io + i));
		else
			ret = preadv(x->fd, iov, (int)nr_iov, io_offset(x, io + i));
		if (ret < 0 && errno == EINTR)
			continue;
		if (ret >= (ssize_t)SWAP_PAGE_SIZE) {
			for (n = (unsigned int)(ret / SWAP_PAGE_SIZE); n; n--)
				io[i++].error = 0;
			continue;
		}
		/* Not even one page, and no reason given: the end of the room, or of the file. */
		err = ret < 0 ? errno : x->write ? ENOSPC : EIO;
		/* One's own part of it, but no more room all the same. */
		if (x->write && err == EDQUOT)
			err = ENOSPC;
		if (x->write) {
			while (i < nr)
				io[i++].error = -err;
		} else if (n > 1) {
			step = 1;
		} else {
			io[i++].error = -err;
		}
	}
}

static void ring_reap(struct ring *ring, unsigned int *pending)
{
	struct io_uring_cqe *cqe;

	while (*pending && !io_uring_peek_cqe(&ring->uring, &cqe)) {
		struct run *run = io_uring_cqe_get_data(cqe);

		if (cqe->res > 0)
			run->done = (unsigned int)cqe->res / SWAP_PAGE_SIZE;
		io_uring_cqe_seen(&ring->uring, cqe);
		(*pending)--;
	}
}

/*
 * Hand over @nr prepared runs and wait until none is under way.  Returns false
 * when the kernel would not take all of them: the ring is not to be used again.
 */
static bool ring_wait(struct ring *ring, unsigned int nr)
{
	unsigned int submitted = 0, pending = 0;
	struct io_uring_cqe *cqe;
	int ret;

	while (submitted < nr || pending) {
		ret = io_uring_submit_and_wait(&ring->uring, nr - submitted + pending);
		if (ret > 0) {
			submitted += (unsigned int)ret;
			pending += (unsigned int)ret;
		}
		ring_reap(ring, &pending);
		if ((ret < 0 && ret != -EINTR) || (ret == 0 && submitted < nr))
			break;
	}
	/* The buffers are the kernel's until each transfer has ended, come what may. */
	while (pending) {
		if (io_uring_wait_cqe(&ring->uring, &cqe))
			sched_yield();
		ring_reap(ring, &pending);
	}
	return submitted == nr;
}

/* One wave: as many runs as the ring holds.  Returns pages dealt with. */
static unsigned int ring_wave(struct ring *ring, const struct xfer *x, struct swap_io *io,
			      unsigned int nr, bool *broken)
{
	unsigned int nr_runs = 0, nr_iov = 0, pages = 0;

	while (pages < nr && nr_runs < RING_RUNS && nr_iov + RUN_PAGES <= RING_IOVS) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
		struct run *run = &ring->run[nr_runs];
		struct iovec *iov = &ring->iov[nr_iov];
		unsigned int n;

		if (!sqe)
			break;
		run->io = io + pages;
		run->nr = run_length(run->io, nr - pages);
		run->done = 0;
		n = run_iov(run->io, run->nr, iov);
		if (x->write)
			io_uring_prep_writev(sqe, x->fd, iov, n, (u64)io_offset(x, run->io));
		else
			io_uring_prep_readv(sqe, x->fd, iov, n, (u64)io_offset(x, run->io));
		io_uring_sqe_set_data(sqe, run);
		nr_runs++;
		nr_iov += n;
		pages += run->nr;
	}
	*broken = !nr_runs || !ring_wait(ring, nr_runs);

	for (unsigned int i = 0; i < nr_runs; i++) {
		struct run *run = &ring->run[i];

		for (unsigned int j = 0; j < run->done; j++)
			run->io[j].error = 0;
		if (run->done < run->nr)
			run_plain(x, run->io + run->done, run->nr - run->done);
	}
	return pages;
}

void tier_batch_run(struct tier_batch *b, int fd, u64 base, struct swap_io *io, unsigned int nr,
		    bool write)
{
	const struct xfer x = { .fd = fd, .base = base, .write = write };
	bool broken = false;
	struct ring *ring = NULL;
	unsigned int n;

	/* A lone run gains nothing from a ring: one system call either way. */
	if (nr && run_length(io, nr) < nr)
		ring = ring_get(b);
	while (nr && ring && !broken) {
		n = ring_wave(ring, &x, io, nr, &broken);
		io += n;
		nr -= n;
	}
	if (ring)
		ring_put(b, ring, broken);
	while (nr) {
		n = run_length(io, nr);
		run_plain(&x, io, n);
		io += n;
		nr -= n;
	}
}
