// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The life of a space, whoever keeps it: what it needs is asked for and made in
 * an order in which every failure can still be said and undone, then its
 * threads start, and at the end all of it goes in the other direction.
 */
#include "space.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "client.h"
#include "control.h"
#include "group.h"
#include "groupops.h"
#include "ops.h"
#include "state.h"
#include "tiers.h"

struct pager pager;

static struct {
	bool frames;
} space;

void pager_say(const char *fmt, ...)
{
	char line[1024] = "vswap: ";
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line + 7, sizeof(line) - 8, fmt, ap);
	va_end(ap);
	n = n < 0 ? 0 : n > (int)sizeof(line) - 9 ? (int)sizeof(line) - 9 : n;
	line[7 + n] = '\n';
	/* Nothing can be done for one who does not listen. */
	if (write(STDERR_FILENO, line, 8 + n) < 0)
		return;
}

/*
 * What this kernel's userfaultfd can do, asked of one that is thrown away.
 * Returns 0 or -errno; the agent may still have permission where we have not,
 * so EPERM is not the end.
 */
static int probe_features(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	uint64_t needed = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			  UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
			  UFFD_FEATURE_THREAD_ID;
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		if (dev < 0)
			return -EPERM;
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
		if (fd < 0)
			return -errno;
	}
	if (ioctl(fd, UFFDIO_API, &api)) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	close(fd);
	if ((api.features & needed) != needed)
		return -ENOSYS;
	pager.features = needed | (api.features & (UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON));
	/* For tests of what older kernels get. */
	if (getenv("VSWAP_DEBUG") && strstr(getenv("VSWAP_DEBUG"), "nomove"))
		pager.features &= ~(uint64_t)UFFD_FEATURE_MOVE;
	pager.features |= api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	if (!(pager.features & (UFFD_FEATURE_MOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP)))
		return -ENOSYS;
	return 0;
}

int space_open(const struct pager_opts *opts)
{
	struct swap_space_conf conf = {
		.compressor = opts->compressor,
		.pool_limit = opts->ram / 2,
		.shadow_shift = 4,
	};
	unsigned int nr_frames = frames_for(opts->ram);
	struct rlimit files;
	int ret;

	pager.pid = getpid();
	pager.program = "vswap serve";
	pager.name = opts->space;
	pager.start_ns = now_ns();
	groups_init();
	clients_init();
	reclaim_init();
	budget_init(opts->ram);
	ret = probe_features();
	if (ret == -EPERM) {
		pager_say("userfaultfd: Operation not permitted (run as root, or set sysctl "
			  "vm.unprivileged_userfaultfd=1, or give access to /dev/userfaultfd; see "
			  "'vswap doctor')");
		return ret;
	}
	if (ret) {
		pager_say("userfaultfd: %s (Linux 5.7 or later is needed; see 'vswap doctor')",
			  strerror(-ret));
		return ret;
	}
	/* The clients' limit stays as it is; we may need a descriptor for each child. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	pager.space = swap_space_create(&conf);
	if (IS_ERR(pager.space)) {
		pager_say("swap space: %s (free some memory)", strerror(-PTR_ERR(pager.space)));
		return -1;
	}
	/* Batches take part of the frames and as much staging; small budgets get small ones. */
	pager.batch_pages = nr_frames / 4 < BATCH_PAGES ? nr_frames / 4 : BATCH_PAGES;
	pager.ra_max = nr_frames / 16 < 64 ? nr_frames / 16 : 64;
	ret = frames_init(nr_frames);
	if (ret) {
		pager_say("memory for the swap cache: %s (free some, or raise ulimit -v)",
			  strerror(-ret));
		return -1;
	}
	space.frames = true;
	return tiers_open(opts);
}

int space_start(void)
{
	int ret = servers_start();

	if (!ret)
		ret = reclaim_start();
	if (ret)
		pager_say("threads: %s (see 'ulimit -u')", strerror(-ret));
	return ret;
}

int space_listen(void)
{
	static const struct control_op *const tables[] = { control_ops, group_ops, NULL };

	return control_start(tables);
}

void space_stop(void)
{
	control_stop();
	__atomic_store_n(&pager.stopping, true, __ATOMIC_RELEASE);
	reclaim_stop();
	servers_stop();
}

void space_close(void)
{
	struct frame *frame;

	/* No client is left, so no frame has an owner. */
	while (space.frames && (frame = frame_dequeue(NULL))) {
		swap_folio_lock(&frame->folio);
		folio_free_swap(pager.space, &frame->folio);
		swap_folio_unlock(&frame->folio);
		swap_folio_put(&frame->folio);
	}
	if (pager.space && !IS_ERR(pager.space))
		swap_space_destroy(pager.space);
	tiers_close();
}
