// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "budget.h"
#include "job.h"
#include "state.h"

#define HANDSHAKE_MS	10000
#define GATE_TIMEOUT_NS 20000000L
#define GATE_PARKED_NS	100000L
#define PARKED_NS	20000000ULL
#define GROWTH_BYTES	(512 << 10) /* the kernel counts what is resident to within some of that */
#define LOOK_NS		20000000ULL

static struct {
	pthread_mutex_t lock;
	struct client **list;
	unsigned int nr, max;
	uint64_t generation;
	uint64_t last_id;
} clients = { .lock = PTHREAD_MUTEX_INITIALIZER };

long wire_futex(uint32_t *word, int op, uint32_t val, long timeout_ns)
{
	struct timespec ts = { timeout_ns / 1000000000L, timeout_ns % 1000000000L };

	if (syscall(SYS_futex, word, op, val, timeout_ns ? &ts : NULL, NULL, 0) < 0)
		return -errno;
	return 0;
}

bool client_gate(struct client *c, enum gate_for what)
{
	/* A client killed while its agent was inside leaves the gate shut for ever. */
	while (gate_lock(c->gate, what, GATE_TIMEOUT_NS) != GATE_ENTERED)
		if (client_is_dead(c) || client_gone(c))
			return false;
	return true;
}

bool client_gate_to_read(struct client *c)
{
	bool parked = __atomic_load_n(&c->parked_ns, __ATOMIC_RELAXED);

	if (gate_lock(c->gate, GATE_TO_READ, parked ? GATE_PARKED_NS : GATE_TIMEOUT_NS) ==
	    GATE_ENTERED) {
		__atomic_store_n(&c->parked_ns, 0, __ATOMIC_RELAXED);
		return true;
	}
	__atomic_store_n(&c->parked_ns, now_ns() + PARKED_NS, __ATOMIC_RELAXED);
	return false;
}

void client_ungate(struct client *c, enum gate_for what)
{
	gate_unlock(c->gate, what);
}

/* @nr is 1 or 2. */
static int send_with_fds(int sock, const struct wire_msg *msg, const int *fds, unsigned int nr)
{
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { (void *)msg, sizeof(*msg) };
	struct msghdr hdr = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
	return sendmsg(sock, &hdr, MSG_NOSIGNAL) == sizeof(*msg) ? 0 : -errno;
}

/* ---- the list -------------------------------------------------------- */

static int clients_add(struct client *c)
{
	int ret = 0;

	pthread_mutex_lock(&clients.lock);
	if (clients.nr == MAX_CLIENTS) {
		ret = -EUSERS;
	} else if (clients.nr == clients.max) {
		unsigned int max = clients.max ? clients.max * 2 : 16;
		struct client **list = realloc(clients.list, max * sizeof(*list));

		if (list) {
			clients.list = list;
			clients.max = max;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret) {
		c->id = ++clients.last_id;
		clients.list[clients.nr++] = c;
		__atomic_add_fetch(&clients.generation, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&clients.lock);
	if (!ret)
		servers_wake();
	return ret;
}

unsigned int clients_get(struct client **list, unsigned int max)
{
	unsigned int n;

	pthread_mutex_lock(&clients.lock);
	for (n = 0; n < clients.nr && n < max; n++) {
		list[n] = clients.list[n];
		list[n]->ref++;
	}
	pthread_mutex_unlock(&clients.lock);
	return n;
}

struct client *client_find(uint64_t id)
{
	struct client *c = NULL;

	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr && !c; i++)
		if (clients.list[i]->id == id) {
			c = clients.list[i];
			c->ref++;
		}
	pthread_mutex_unlock(&clients.lock);
	return c;
}

uint64_t clients_generation(void)
{
	return __atomic_load_n(&clients.generation, __ATOMIC_ACQUIRE);
}

unsigned int clients_count(void)
{
	unsigned int n;

	pthread_mutex_lock(&clients.lock);
	n = clients.nr;
	pthread_mutex_unlock(&clients.lock);
	return n;
}

void client_get(struct client *c)
{
	pthread_mutex_lock(&clients.lock);
	c->ref++;
	pthread_mutex_unlock(&clients.lock);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/*
 * Should we die, the child's userfaultfd would close and its evicted pages read
 * as zeros.  So the nearest forebear with an agent keeps it open too, and kills
 * the child first if it comes to that.
 */
static void hold(struct client *c)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_HOLD };
	struct client *h = c->parent;
	unsigned int i;

	while (h && h->sock < 0)
		h = h->parent;
	if (!h)
		return;
	pthread_mutex_lock(&clients.lock);
	for (i = 0; i < WIRE_HOLDS && (h->held[i / 64] & 1ULL << i % 64); i++)
		;
	if (i < WIRE_HOLDS)
		h->held[i / 64] |= 1ULL << i % 64;
	pthread_mutex_unlock(&clients.lock);
	if (i == WIRE_HOLDS)
		return;
	msg.hold = i;
	if (!send_with_fds(h->sock, &msg, &c->uffd, 1)) {
		client_get(h);
		c->holder = h;
		c->hold = i;
	}
}

static void unhold(struct client *c)
{
	struct wire_msg msg = { .magic = WIRE_MAGIC, .type = WIRE_DROP, .hold = c->hold };
	struct client *h = c->holder;

	if (!h)
		return;
	/* Gone already is as good. */
	send(h->sock, &msg, sizeof(msg), MSG_NOSIGNAL);
	pthread_mutex_lock(&clients.lock);
	h->held[c->hold / 64] &= ~(1ULL << c->hold % 64);
	pthread_mutex_unlock(&clients.lock);
	client_put(h);
}

static void client_free(struct client *c)
{
	/* The list is short of this one and nobody else knows it: no lock is needed. */
	unhold(c);
	if (c->parent)
		client_put(c->parent);
	client_drop_entries(c, 0, 1ULL << 47);
	windows_destroy(&c->win);
	close_fd(c->uffd);
	close_fd(c->sock);
	close_fd(c->statm);
	close_fd(c->pagemap);
	close_fd(c->maps);
	if (c->shared)
		munmap(c->shared, SHARED_BYTES);
	pthread_mutex_destroy(&c->state);
	pthread_cond_destroy(&c->batch_done);
	for (unsigned int i = 0; i < c->nr_doubts; i++)
		free(c->doubt[i].fresh);
	free(c->range);
	free(c->copy);
	free(c->own_batch);
	free(c->stash);
	job_put(c->job);
	free(c);
}

void client_put(struct client *c)
{
	bool last;

	pthread_mutex_lock(&clients.lock);
	last = --c->ref == 0;
	pthread_mutex_unlock(&clients.lock);
	if (last)
		client_free(c);
}

void client_dead(struct client *c)
{
	bool mine = false;

	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr; i++)
		if (clients.list[i] == c) {
			clients.list[i] = clients.list[--clients.nr];
			mine = true;
			break;
		}
	__atomic_store_n(&c->dead, true, __ATOMIC_RELEASE);
	__atomic_add_fetch(&clients.generation, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&clients.lock);
	servers_wake();
	if (mine)
		client_put(c);
}

bool client_gone(struct client *c)
{
	/* Nothing of ours is ever mapped there: ENOENT from a living one. */
	struct uffdio_zeropage probe = { .range = { 1UL << 20, PAGE_SIZE_ } };

	if (client_is_dead(c))
		return true;
	return ioctl(c->uffd, UFFDIO_ZEROPAGE, &probe) && errno == ESRCH;
}

int client_resident(struct client *c, uint64_t *anon, uint64_t *file)
{
	unsigned long size, resident, shared;
	uint64_t foreign;
	char buf[128];
	ssize_t n = pread(c->statm, buf, sizeof(buf) - 1, 0);

	if (n <= 0)
		return n < 0 ? -errno : -ESRCH;
	buf[n] = 0;
	if (sscanf(buf, "%lu %lu %lu", &size, &resident, &shared) != 3)
		return -EIO;
	*anon = (resident - shared) * PAGE_SIZE_;
	*file = shared * PAGE_SIZE_;
	foreign = __atomic_load_n(&c->foreign, __ATOMIC_RELAXED);
	*file -= foreign < *file ? foreign : *file;
	return 0;
}

void client_charge(struct client *c, int64_t bytes)
{
	__atomic_add_fetch(&c->charged, bytes, __ATOMIC_RELAXED);
	budget_charge(c->job->group, bytes);
}

bool client_has_grown(struct client *c, uint64_t now)
{
	uint64_t anon, file;
	int64_t unseen;

	if (client_resident(c, &anon, &file))
		return false;
	unseen = (int64_t)anon - __atomic_load_n(&c->charged, __ATOMIC_RELAXED);
	if (client_registered(c) && unseen < c->unseen + GROWTH_BYTES && now < c->next_look_ns)
		return false;
	c->unseen = unseen;
	c->next_look_ns = now + LOOK_NS;
	return true;
}

/* The value in bytes of a line "@name:   N kB" of a file of /proc; 0 without one. */
static uint64_t proc_kb(pid_t pid, const char *file, const char *name)
{
	char path[64], line[256];
	unsigned long kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':' &&
		    sscanf(line + strlen(name) + 1, "%lu", &kb) == 1)
			break;
	fclose(f);
	return (uint64_t)kb << 10;
}

void client_weigh_files(struct client *c)
{
	uint64_t share = proc_kb(c->pid, "smaps_rollup", "Pss_File");
	uint64_t all = proc_kb(c->pid, "status", "RssFile");

	/* Nothing to be read: all is its own. */
	__atomic_store_n(&c->foreign, share && all > share ? all - share : 0, __ATOMIC_RELAXED);
}

/* ---- birth ----------------------------------------------------------- */

static struct client *client_new(struct job *job)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->ref = 1;
	c->uffd = c->sock = c->statm = c->pagemap = c->maps = -1;
	c->gate = &c->own_gate;
	if (windows_init(&c->win)) {
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->state, NULL);
	pthread_cond_init(&c->batch_done, NULL);
	job_get(job);
	c->job = job;
	return c;
}

static int receive(int sock, struct wire_msg *msg, int *fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr hdr = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct cmsghdr *cmsg;
	ssize_t n;

	*fd = -1;
	do {
		n = poll(&p, 1, HANDSHAKE_MS);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	n = recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n ? -errno : -ECONNRESET;
	cmsg = CMSG_FIRSTHDR(&hdr);
	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(cmsg), sizeof(*fd));
	if (n != sizeof(*msg) || msg->magic != WIRE_MAGIC)
		return -EPROTO;
	return 0;
}

static int open_proc(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The client's control block; the descriptor for the agent, or -errno. */
static int make_shared(struct client *c)
{
	int fd = memfd_create("vswap-agent", MFD_CLOEXEC);
	void *p;

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, SHARED_BYTES)) {
		p = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) {
			c->shared = p;
			c->gate = &c->shared->gate;
			return fd;
		}
	}
	close(fd);
	return -errno;
}

struct client *client_accept(struct job *job, int sock, pid_t pid)
{
	struct uffdio_api api = { .api = UFFD_API, .features = pager.features };
	struct wire_msg msg = { 0 };
	struct client *c = client_new(job);
	int fds[2], fd = -1, ret;

	if (!c) {
		job_say(job, "cannot manage the program: %s", strerror(ENOMEM));
		return NULL;
	}
	c->pid = pid;
	ret = receive(sock, &msg, &c->uffd);
	if (ret == -ECONNRESET)
		goto fail;
	if (ret || msg.type != WIRE_HELLO) {
		job_say(job, "agent: no greeting from process %d: %s", pid,
			strerror(ret ? -ret : EPROTO));
		goto fail;
	}
	if (msg.error || c->uffd < 0) {
		job_say(job,
			"userfaultfd: %s (run as root, or set sysctl vm.unprivileged_userfaultfd=1, "
			"or give access to /dev/userfaultfd; see 'vswap doctor')",
			strerror(msg.error ? msg.error : EBADF));
		goto fail;
	}
	if (ioctl(c->uffd, UFFDIO_API, &api)) {
		job_say(job,
			"userfaultfd: fork events: %s (run as root, or give vswap the capability "
			"CAP_SYS_PTRACE; see 'vswap doctor')",
			strerror(errno));
		goto fail;
	}
	msg = (struct wire_msg){
		.magic = WIRE_MAGIC,
		.type = WIRE_WELCOME,
		.frames_bytes = frames_total() * PAGE_SIZE_,
		.staging_pages = pager.batch_pages,
	};
	fds[0] = ret = make_shared(c);
	fds[1] = frames_fd();
	if (ret >= 0) {
		ret = send_with_fds(sock, &msg, fds, 2);
		close(fds[0]);
	}
	if (!ret)
		ret = receive(sock, &msg, &fd);
	close_fd(fd);
	if (ret == -ECONNRESET)
		goto fail;
	if (ret || msg.type != WIRE_READY || msg.error) {
		job_say(job,
			"agent: cannot be set up in process %d: %s (is its address space or number "
			"of threads limited? see 'ulimit -a')",
			pid,
			strerror(ret	   ? -ret :
				 msg.error ? (int)msg.error :
					     EPROTO));
		goto fail;
	}
	memcpy(c->own, msg.own, sizeof(c->own));
	c->agent_tid = msg.tid;
	c->copy_mode = !(pager.features & UFFD_FEATURE_MOVE);
	c->statm = open_proc(pid, "statm");
	c->pagemap = open_proc(pid, "pagemap");
	c->maps = open_proc(pid, "maps");
	if (c->statm < 0 || c->pagemap < 0 || c->maps < 0) {
		if (errno != ENOENT && errno != ESRCH)
			job_say(job, "/proc/%d: %s (may vswap trace this process?)", pid,
				strerror(errno));
		goto fail;
	}
	/* Not blocking: which message comes first is seen only with the gate in hand. */
	ret = fcntl(c->uffd, F_GETFL);
	if (ret < 0 || fcntl(c->uffd, F_SETFL, ret | O_NONBLOCK)) {
		job_say(job, "userfaultfd: %s", strerror(errno));
		goto fail;
	}
	c->sock = sock;
	ret = clients_add(c);
	if (!ret) {
		/* From here on its death is found out as anyone's. */
		msg.type = WIRE_GO;
		send(sock, &msg, sizeof(msg), MSG_NOSIGNAL);
		return c;
	}
	job_say(job, "cannot manage the program: %s", strerror(-ret));
	c->sock = -1;
fail:
	client_free(c);
	return NULL;
}

struct client *client_fork(struct client *parent, int uffd)
{
	struct client *c = client_new(parent->job);
	uint64_t addr = 0, end = 1ULL << 47;

	if (!c) {
		close(uffd);
		return NULL;
	}
	c->uffd = uffd;
	c->copy_mode = parent->copy_mode;
	client_get(parent);
	c->parent = parent;
	hold(c);
	while ((addr = window_next(&parent->win, addr, end)) < end) {
		vswp_entry_t entry = window_get(&parent->win, addr);

		if (window_set(&c->win, addr, entry))
			goto fail;
		if (swap_dup_range(pager.space, entry, 1)) {
			window_clear(&c->win, addr, 0);
			goto fail;
		}
		addr += PAGE_SIZE_;
	}
	if (clients_add(c))
		goto fail;
	return c;
fail:
	client_free(c);
	return NULL;
}

void clients_kill(const struct job *job)
{
	pthread_mutex_lock(&clients.lock);
	for (unsigned int i = 0; i < clients.nr; i++) {
		pid_t pid = clients.list[i]->pid ? clients.list[i]->pid :
						   (pid_t)clients.list[i]->tid;

		if (clients.list[i]->job == job && pid > 0)
			kill(pid, SIGKILL);
	}
	pthread_mutex_unlock(&clients.lock);
}
