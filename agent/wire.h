/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What agent and pager say to each other.
 *
 * The agent connects to the supervisor's socket, hands over a userfaultfd and
 * gets two shared memory objects back: a control block of its own, and the
 * frames it copies evicted pages into.  After that the socket only carries "look at the control
 * block" in both directions, and its end tells either side of the other's
 * death.
 *
 * The gate
 * --------
 * Reading a REMOVE, UNMAP, REMAP or FORK event from the userfaultfd lets the
 * program go on; from then on it may map something else at the same address.
 * So an event must not be read while a UFFDIO_COPY or UFFDIO_MOVE decided
 * before the event is still to come.  The gate is a readers-writer lock in
 * shared memory: moves and copies hold it shared, whoever reads the
 * userfaultfd holds it exclusively until an event that was read is followed.
 */
#ifndef AGENT_WIRE_H
#define AGENT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define WIRE_MAGIC     0x70617773760006ULL /* the last digits are the version */
#define WIRE_ENV       "VSWAP_SPACE"	   /* see wire_where() */
#define WIRE_KEY       32		   /* characters; all names are public, keys are not */
#define WIRE_PAGE      4096UL
#define WIRE_ETIMEDOUT 110

/* Children of one process whose userfaultfds its agent keeps for the worst case. */
#define WIRE_HOLDS 256

enum wire_type {
	WIRE_HELLO = 1,	  /* agent: with the userfaultfd, or error set */
	WIRE_HELLO_CHILD, /* agent of a forked child, thread @tid; own[] told it whose */
	WIRE_WELCOME,	  /* pager: with control block and frames, and a child's userfaultfd */
	WIRE_READY,	  /* agent: its ranges, thread is up */
	WIRE_GO,	  /* pager: the program may begin */
	WIRE_CMD,	  /* pager: a command waits in the control block */
	WIRE_DONE,	  /* agent: its result is there */
	WIRE_HOLD,	  /* pager: keep this userfaultfd of a forked child, number @hold */
	WIRE_DROP,	  /* pager: close it */
};

/*
 * Where the pager listens, of the text NAME:KEY or NAME:KEY:PATH.  A path is found from
 * another network namespace, too, a name in the abstract namespace by another user and in
 * another root.
 */
struct wire_where {
	const char *key; /* WIRE_KEY characters */
	struct sockaddr_un path, name;
	unsigned int path_len, name_len; /* of these as addresses; 0: there is no path */
};

/* False: it is no such text. */
static inline bool wire_where(const char *text, struct wire_where *w)
{
	unsigned int base = offsetof(struct sockaddr_un, sun_path), n = 0;

	*w = (struct wire_where){ .path.sun_family = AF_UNIX, .name.sun_family = AF_UNIX };
	for (; *text && *text != ':'; text++) {
		/* Behind the NUL of an abstract one. */
		if (++n == sizeof(w->name.sun_path))
			return false;
		w->name.sun_path[n] = *text;
	}
	w->name_len = base + 1 + n;
	if (!*text)
		return false;
	w->key = ++text;
	for (n = 0; n < WIRE_KEY; n++)
		if (!text[n])
			return false;
	text += WIRE_KEY;
	if (!*text)
		return true;
	if (*text++ != ':')
		return false;
	for (n = 0; *text; text++) {
		if (n == sizeof(w->path.sun_path) - 1)
			return false;
		w->path.sun_path[n++] = *text;
	}
	w->path_len = base + n + 1;
	return true;
}

struct wire_range {
	uint64_t start, end;
};

#define WIRE_RANGES 4

struct wire_msg {
	uint64_t magic;
	uint32_t type;		/* enum wire_type */
	uint32_t error;		/* errno of what could not be done, 0 */
	uint64_t frames_bytes;	/* WELCOME: size of the frames' memory */
	uint32_t staging_pages; /* WELCOME */
	uint32_t tid;		/* HELLO_CHILD, READY: the agent's thread */
	uint64_t hold;		/* HOLD, DROP */
	char key[WIRE_KEY];	/* HELLO, HELLO_CHILD */
	uint64_t client;	/* HELLO_CHILD: its number with the pager */
	/* READY: never to be managed; a child's are its parent's. */
	struct wire_range own[WIRE_RANGES];
};

enum agent_op {
	AGENT_EVICT = 1,  /* move runs out, copy them to frames, drop them */
	AGENT_EVICT_COPY, /* the same by write-protect, copy, MADV_DONTNEED */
	AGENT_POPULATE,	  /* make pages a fork has shared the program's own again */
	AGENT_PAGEOUT,	  /* runs of mapped files: let the kernel take what it can read again */
};

enum agent_result {
	PAGE_STAYED = 0, /* a hole by now, or the batch was cancelled */
	PAGE_GONE,	 /* its bytes are in the frame, the program has it no more */
	PAGE_BUSY,	 /* shared after a fork, or pinned */
	PAGE_REFUSED,	 /* the kind of mapping does not allow it */
};

#define BATCH_PAGES 512
#define BATCH_RUNS  512
#define CHUNK_PAGES 64 /* of a run, moved or dropped in one go while the gate is held */

struct agent_run {
	uint64_t addr;
	uint32_t pages;
	uint32_t first; /* index of its first page in frame[] and result[] */
};

struct agent_shared {
	uint32_t gate;
	/*
	 * AGENT_EVICT_COPY: a MADV_DONTNEED of the agent's is under way there,
	 * the gate in its hand.  It waits until the REMOVE events of it were
	 * read, so reclaim, which waits for the end of the batch, reads those.
	 */
	uint64_t drop_start, drop_end;
	uint32_t dropping; /* its number, 0: none */
	uint32_t hole;	   /* the number of the last one that met memory unmapped meanwhile */
	/* All between was dropped while the map was being changed: before or after, who knows? */
	uint64_t unsure_start, unsure_end;
	/* 1: the program is above its limit.  A futex: mmap() waits on it. */
	uint32_t over;
	/*
	 * Looks at the map the pager has ended: what was mapped before one began is
	 * registered.  0: far from a limit, it does not look.
	 */
	uint32_t looks;
	/* What a forked child touches before its agent is there may be above a limit. */
	uint32_t fork_waits;
	/* Forks begun by the agent's account, less those the pager has followed. */
	uint32_t forking;
	/*
	 * It keeps memory from its children: MADV_WIPEONFORK, MADV_DONTFORK.  Which, the
	 * pager reads of its map when it follows a fork, so fork() returns after that: when
	 * nobody has the gate to read, and nothing is behind, read and put by.
	 */
	uint32_t keeps, behind;
	/* The program has forbidden all of its threads what the agent does: seccomp. */
	uint32_t forbidden;
	uint32_t op; /* enum agent_op */
	uint32_t nr_runs;
	struct agent_run run[BATCH_RUNS];
	uint32_t frame[BATCH_PAGES]; /* frame number for each page */
	uint8_t result[BATCH_PAGES]; /* enum agent_result */
};

#define SHARED_BYTES ((sizeof(struct agent_shared) + WIRE_PAGE - 1) & ~(WIRE_PAGE - 1))

/*
 * futex(2) without errno: 0 or more, or -errno.  Each side has its own, since
 * the agent has no libc.
 */
long wire_futex(uint32_t *word, int op, uint32_t val, long timeout_ns);

#define GATE_READER	0x80000000u /* somebody reads the userfaultfd */
#define GATE_WAITERS	0x40000000u
#define GATE_CANCEL	0x20000000u /* the batch under way shall end: no more moves */
#define GATE_HOLDERS	0x1fffffffu
#define GATE_SPIN	1500 /* most hold it for no longer than that takes */
#define GATE_FUTEX_WAIT 0
#define GATE_FUTEX_WAKE 1

enum gate_for {
	GATE_TO_COPY, /* shared */
	GATE_TO_MOVE, /* shared, and given up when the batch is cancelled */
	GATE_TO_READ, /* exclusive */
};

enum gate_result {
	GATE_ENTERED,
	GATE_TIMEDOUT,
	GATE_CANCELLED,
};

static inline void gate_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Take it if it is free: for who must not wait. */
static inline bool gate_trylock(uint32_t *gate, enum gate_for what)
{
	uint32_t block = what == GATE_TO_READ ? GATE_READER | GATE_HOLDERS : GATE_READER;
	uint32_t old = __atomic_load_n(gate, __ATOMIC_RELAXED);

	while (!(old & block))
		if (__atomic_compare_exchange_n(gate, &old,
						what == GATE_TO_READ ? old | GATE_READER : old + 1,
						true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
	return false;
}

/*
 * Take the gate.  GATE_TIMEDOUT: not to be had for @timeout_ns; the caller sees
 * whether the other side is still alive, and tries again.
 */
static inline enum gate_result gate_lock(uint32_t *gate, enum gate_for what, long timeout_ns)
{
	uint32_t block = what == GATE_TO_READ ? GATE_READER | GATE_HOLDERS : GATE_READER;
	unsigned int spin = 0;

	for (;;) {
		uint32_t old = __atomic_load_n(gate, __ATOMIC_RELAXED);

		if (what == GATE_TO_MOVE && (old & GATE_CANCEL))
			return GATE_CANCELLED;
		if (gate_trylock(gate, what))
			return GATE_ENTERED;
		old = __atomic_load_n(gate, __ATOMIC_RELAXED);
		if (!(old & block))
			continue;
		if (spin++ < GATE_SPIN) {
			gate_relax();
			continue;
		}
		if (!(old & GATE_WAITERS) &&
		    !__atomic_compare_exchange_n(gate, &old, old | GATE_WAITERS, true,
						 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			continue;
		if (wire_futex(gate, GATE_FUTEX_WAIT, old | GATE_WAITERS, timeout_ns) ==
		    -WIRE_ETIMEDOUT)
			return GATE_TIMEDOUT;
		spin = 0;
	}
}

/* Whoever leaves the gate empty wakes all; those who must wait again say so again. */
static inline void gate_wake(uint32_t *gate, uint32_t left)
{
	if ((left & GATE_WAITERS) && !(left & (GATE_READER | GATE_HOLDERS))) {
		__atomic_and_fetch(gate, ~GATE_WAITERS, __ATOMIC_RELAXED);
		wire_futex(gate, GATE_FUTEX_WAKE, 0x7fffffff, 0);
	}
}

static inline void gate_unlock(uint32_t *gate, enum gate_for what)
{
	if (what == GATE_TO_READ)
		gate_wake(gate, __atomic_and_fetch(gate, ~GATE_READER, __ATOMIC_RELEASE));
	else
		gate_wake(gate, __atomic_sub_fetch(gate, 1, __ATOMIC_RELEASE));
}

/* By the exclusive holder: turn away a mover, also one that waits already. */
static inline void gate_cancel(uint32_t *gate)
{
	__atomic_or_fetch(gate, GATE_CANCEL, __ATOMIC_RELEASE);
	wire_futex(gate, GATE_FUTEX_WAKE, 0x7fffffff, 0);
}

#endif
