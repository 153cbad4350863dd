// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Events beside a fork, in the order they were read, against the order of what they tell
 * of: a real child has what its parent had at the fork, as the kernel would have left it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../agent/uffd.h"
#include "../../pager/client.h"

#define PAGES	8
#define MAX	6
#define PAGE(i) (base + (uint64_t)(i)*PAGE_SIZE_)

struct child {
	pid_t pid;
	int uffd;
};

static uint64_t base; /* of PAGES in us and in each child */
static struct client client;
static struct agent_shared shared;

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC) :
			    (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (dev >= 0)
		close(dev);
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* In the child: those of @pages are registered, the others not there.  Its number is told. */
static void be_child(unsigned int pages, int tell)
{
	int fd = open_uffd();

	for (unsigned int i = 0; i < PAGES; i++) {
		struct uffdio_register reg = {
			.range = { PAGE(i), PAGE_SIZE_ },
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};

		if (pages & 1U << i ? ioctl(fd, UFFDIO_REGISTER, &reg) :
				      munmap((void *)PAGE(i), PAGE_SIZE_))
			fd = -1;
	}
	if (write(tell, &fd, sizeof(fd)) == sizeof(fd))
		pause();
	_exit(1);
}

static struct child child_with(unsigned int pages)
{
	struct child child;
	int tell[2], fd, pidfd;

	assert_int_equal(pipe(tell), 0);
	child.pid = fork();
	assert_true(child.pid >= 0);
	if (!child.pid)
		be_child(pages, tell[1]);
	close(tell[1]);
	assert_int_equal(read(tell[0], &fd, sizeof(fd)), sizeof(fd));
	close(tell[0]);
	assert_true(fd >= 0);
	pidfd = (int)syscall(SYS_pidfd_open, child.pid, 0);
	assert_true(pidfd >= 0);
	child.uffd = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	assert_true(child.uffd >= 0);
	close(pidfd);
	return child;
}

static void child_end(struct child *child)
{
	close(child->uffd);
	assert_int_equal(kill(child->pid, SIGKILL), 0);
	assert_int_equal(waitpid(child->pid, NULL, 0), child->pid);
}

/* What may be read; pages are numbers of them. */
static struct uffd_msg unmap(unsigned int from, unsigned int to)
{
	return (struct uffd_msg){
		.event = UFFD_EVENT_UNMAP,
		.arg.remove = { PAGE(from), PAGE(to) },
	};
}

static struct uffd_msg removed(unsigned int from, unsigned int to)
{
	struct uffd_msg msg = unmap(from, to);

	msg.event = UFFD_EVENT_REMOVE;
	return msg;
}

static struct uffd_msg remap(unsigned int from, unsigned int to, unsigned int pages)
{
	return (struct uffd_msg){
		.event = UFFD_EVENT_REMAP,
		.arg.remap = { PAGE(from), PAGE(to), pages * PAGE_SIZE_ },
	};
}

static struct uffd_msg forked(const struct child *child)
{
	return (struct uffd_msg){
		.event = UFFD_EVENT_FORK,
		.arg.fork.ufd = (uint32_t)child->uffd,
	};
}

static struct uffd_msg fault(unsigned int page)
{
	return (struct uffd_msg){
		.event = UFFD_EVENT_PAGEFAULT,
		.arg.pagefault.address = PAGE(page),
	};
}

/* Those of @pages are swapped out in the parent, as far as its events were followed. */
static void swapped(unsigned int pages)
{
	for (unsigned int i = 0; i < PAGES; i++)
		if (pages & 1U << i)
			assert_int_equal(window_set(&client.win, PAGE(i), (vswp_entry_t){ i + 1 }),
					 0);
}

/* What following @msg does to what is swapped out. */
static void follow(const struct uffd_msg *msg)
{
	for (unsigned int i = 0; i < PAGES; i++) {
		vswp_entry_t entry = window_get(&client.win, PAGE(i));

		if (!entry.val)
			continue;
		if (msg->event == UFFD_EVENT_UNMAP && msg->arg.remove.start <= PAGE(i) &&
		    msg->arg.remove.end > PAGE(i)) {
			window_clear(&client.win, PAGE(i), 0);
		} else if (msg->event == UFFD_EVENT_REMAP && msg->arg.remap.from <= PAGE(i) &&
			   msg->arg.remap.from + msg->arg.remap.len > PAGE(i)) {
			window_clear(&client.win, PAGE(i), 0);
			assert_int_equal(
				window_set(&client.win,
					   PAGE(i) - msg->arg.remap.from + msg->arg.remap.to,
					   entry),
				0);
		}
	}
}

static bool same(const struct uffd_msg *a, const struct uffd_msg *b)
{
	return a->event == b->event && !memcmp(&a->arg, &b->arg, sizeof(a->arg));
}

/* @nr events are read in that order, and followed in the order of @want, numbers of them. */
static void order(unsigned int pages, const struct uffd_msg *msg, const unsigned int *want,
		  unsigned int nr)
{
	struct uffd_msg next;

	swapped(pages);
	for (unsigned int i = 0; i < nr; i++)
		event_stash(&client, &msg[i]);
	for (unsigned int i = 0; i < nr; i++) {
		assert_true(event_next(&client, &next));
		assert_true(same(&next, &msg[want[i]]));
		follow(&next);
	}
	assert_false(event_next(&client, &next));
	assert_false(event_stashed(&client));
	for (unsigned int i = 0; i < PAGES; i++)
		if (window_get(&client.win, PAGE(i)).val)
			window_clear(&client.win, PAGE(i), 0);
}

#define ORDER(pages, want, ...)                                                   \
	do {                                                                      \
		const struct uffd_msg msgs[] = { __VA_ARGS__ };                   \
		const char *digits = want;                                        \
		unsigned int numbers[MAX];                                        \
                                                                                  \
		assert_int_equal(strlen(digits), sizeof(msgs) / sizeof(msgs[0])); \
		for (unsigned int k = 0; digits[k]; k++)                          \
			numbers[k] = (unsigned int)(digits[k] - '0');             \
		order(pages, msgs, numbers, sizeof(msgs) / sizeof(msgs[0]));      \
	} while (0)

static int begin(void **state)
{
	void *area = mmap(NULL, PAGES * PAGE_SIZE_, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	if (area == MAP_FAILED)
		return -1;
	base = (uint64_t)area;
	memset(&client, 0, sizeof(client));
	memset(&shared, 0, sizeof(shared));
	client.shared = &shared;
	client.uffd = -1;
	shared.forking = 1;
	return windows_init(&client.win);
}

static int end(void **state)
{
	(void)state;
	windows_destroy(&client.win);
	free(client.stash);
	return munmap((void *)base, PAGES * PAGE_SIZE_);
}

static void test_unmap(void **state)
{
	struct child has = child_with(0xff), lacks = child_with(0xfe), hole = child_with(0xfb);

	(void)state;
	/* Whatever was read first. */
	ORDER(0x01, "10", unmap(0, 1), forked(&has));
	ORDER(0x01, "01", forked(&has), unmap(0, 1));
	ORDER(0x01, "01", unmap(0, 1), forked(&lacks));
	ORDER(0x01, "10", forked(&lacks), unmap(0, 1));
	/* What is asked about is a page that is swapped out, wherever in the range it is. */
	ORDER(0x04, "10", forked(&hole), unmap(0, 8));
	ORDER(0x80, "01", forked(&hole), unmap(0, 8));
	/* Of two. */
	ORDER(0x05, "201", forked(&lacks), unmap(2, 3), unmap(0, 1));
	child_end(&has);
	child_end(&lacks);
	child_end(&hole);
}

static void test_remap(void **state)
{
	struct child old = child_with(0x0f), new = child_with(0xf0), both = child_with(0xff);

	(void)state;
	ORDER(0x0f, "10", remap(0, 4, 4), forked(&old));
	ORDER(0x0f, "01", forked(&old), remap(0, 4, 4));
	ORDER(0x0f, "01", remap(0, 4, 4), forked(&new));
	ORDER(0x0f, "10", forked(&new), remap(0, 4, 4));
	/* MREMAP_DONTUNMAP leaves the old place: the new one tells. */
	ORDER(0x0f, "01", remap(0, 4, 4), forked(&both));
	ORDER(0x0f, "10", forked(&both), remap(0, 4, 4));
	/* Each page is asked about at its own new place. */
	ORDER(0x08, "10", forked(&new), remap(2, 6, 2));
	/* What it came upon is unmapped first, and tells by when it was read. */
	ORDER(0xff, "012", unmap(4, 8), remap(0, 4, 4), forked(&both));
	ORDER(0xff, "012", forked(&both), unmap(4, 8), remap(0, 4, 4));
	child_end(&old);
	child_end(&new);
	child_end(&both);
}

/* One thread unmaps, another moves what it has to there: the child has that, not what was. */
static void test_moved_to(void **state)
{
	struct child moved = child_with(0xf0), unmapped = child_with(0x0f);

	(void)state;
	ORDER(0xff, "120", forked(&moved), unmap(4, 8), remap(0, 4, 4));
	ORDER(0xff, "021", unmap(4, 8), remap(0, 4, 4), forked(&unmapped));
	ORDER(0xff, "102", forked(&unmapped), unmap(4, 8), remap(0, 4, 4));
	child_end(&moved);
	child_end(&unmapped);
}

static void test_forks(void **state)
{
	struct child first = child_with(0xff), second = child_with(0xfe);

	(void)state;
	/* A thread each, and one that unmaps between them. */
	ORDER(0x01, "210", forked(&second), unmap(0, 1), forked(&first));
	ORDER(0x01, "021", forked(&first), forked(&second), unmap(0, 1));
	ORDER(0x01, "102", unmap(0, 1), forked(&first), forked(&second));
	child_end(&first);
	child_end(&second);
}

static void test_not_asked(void **state)
{
	struct child has = child_with(0xff), lacks = child_with(0x00);
	const struct uffd_msg early = unmap(0, 1), late = forked(&has);
	struct uffd_msg msg;

	(void)state;
	/* No fork was under way yet when it was read. */
	swapped(0x01);
	shared.forking = 0;
	event_stash(&client, &early);
	shared.forking = 1;
	event_stash(&client, &late);
	assert_true(event_has_fork(&client));
	assert_true(event_next(&client, &msg) && same(&msg, &early));
	window_clear(&client.win, PAGE(0), 0);
	assert_true(event_next(&client, &msg) && same(&msg, &late));
	assert_false(event_has_fork(&client));
	/* Posted before anything is done. */
	ORDER(0x01, "01", removed(0, 1), forked(&has));
	ORDER(0x01, "01", forked(&lacks), removed(0, 1));
	/* Of nothing that is swapped out: all the same when. */
	ORDER(0x00, "01", forked(&lacks), unmap(0, 8));
	ORDER(0x00, "01", forked(&lacks), remap(0, 4, 4));
	child_end(&has);
	child_end(&lacks);
}

static void test_faults(void **state)
{
	struct child has = child_with(0xff);
	const struct uffd_msg msgs[] = { fault(1), unmap(0, 1), fault(2), forked(&has), fault(3) };
	struct uffd_msg msg;

	(void)state;
	swapped(0x01);
	for (unsigned int i = 0; i < 5; i++)
		event_stash(&client, &msgs[i]);
	assert_true(event_unfollowed(&client));
	assert_true(event_unstash_fault(&client, &msg) && same(&msg, &msgs[0]));
	assert_true(event_next(&client, &msg) && same(&msg, &msgs[3]));
	assert_true(event_next(&client, &msg) && same(&msg, &msgs[1]));
	window_clear(&client.win, PAGE(0), 0);
	assert_false(event_next(&client, &msg));
	assert_false(event_unfollowed(&client));
	assert_true(event_unstash_fault(&client, &msg) && same(&msg, &msgs[2]));
	assert_true(event_unstash_fault(&client, &msg) && same(&msg, &msgs[4]));
	assert_false(event_unstash_fault(&client, &msg));
	assert_false(event_stashed(&client));
	child_end(&has);
}

/* More than there was room for, and all come out in order. */
static void test_many(void **state)
{
	struct uffd_msg in, out;

	(void)state;
	shared.forking = 0;
	for (unsigned int i = 0; i < 1000; i++) {
		in = unmap(i, i + 1);
		event_stash(&client, &in);
	}
	for (unsigned int i = 0; i < 1000; i++) {
		in = unmap(i, i + 1);
		assert_true(event_next(&client, &out) && same(&in, &out));
	}
	assert_false(event_next(&client, &out));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_unmap, begin, end),
		cmocka_unit_test_setup_teardown(test_remap, begin, end),
		cmocka_unit_test_setup_teardown(test_moved_to, begin, end),
		cmocka_unit_test_setup_teardown(test_forks, begin, end),
		cmocka_unit_test_setup_teardown(test_not_asked, begin, end),
		cmocka_unit_test_setup_teardown(test_faults, begin, end),
		cmocka_unit_test_setup_teardown(test_many, begin, end),
	};
	int fd = open_uffd();

	if (fd < 0) {
		print_message("skipped: needs userfaultfd\n");
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
