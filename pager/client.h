/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A client: one address space being paged.
 *
 * Locks, outermost first:
 *
 *	gate (agent/wire.h) -> client state -> core's own
 *
 * The state lock guards windows, registered ranges, doubts, the batch on its
 * way out and what each fault server is about.  It is held for lookups and
 * updates, never across I/O; its holder is as urgent as who waits (lock.h).  The one who waits for the end of a batch may hold
 * the gate, for neither agent nor reclaim needs the gate to end a batch that
 * was cancelled.
 */
#ifndef PAGER_CLIENT_H
#define PAGER_CLIENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../agent/wire.h"
#include "drop.h"
#include "dropbehind.h"
#include "frame.h"
#include "vacated.h"
#include "window.h"

struct job;
struct uffd_msg;

#define MAX_SERVERS 8
#define MAX_CLIENTS 1024
#define MAX_DOUBTS  256
#define MAX_STREAMS 8
#define MAX_COPIES  512

/* What one fault server is bringing in: nobody else touches these pages. */
struct busy {
	uint64_t start, end; /* empty: 0, 0 */
	bool wake;	     /* a second fault was dropped: wake the range when done */
	bool moved;	     /* other pages came there by mremap() since it was looked at */
	bool copying;	     /* looked at for the last time, its bytes on the way: gate held */
};

/*
 * Pages of a range given to MADV_DONTNEED may still be there when we hear of
 * it, and must not be evicted until they are gone: the old bytes would come
 * back.  So the range is in doubt until none of it was seen present, or for
 * long enough that the call must have ended (MADV_FREE leaves pages).  A page
 * that came by a fault since is new, and in no doubt.
 */
struct doubt {
	uint64_t start, end;
	uint64_t until_ns;
	uint8_t *fresh; /* a bit for each page that came since, or NULL */
};

/* Faults in ascending order: the length of the next readahead. */
struct stream {
	uint64_t next;	    /* the fault that would prove it right */
	unsigned int pages; /* length of the last one */
	unsigned int ahead; /* pages of it that were not asked for */
	uint64_t used;	    /* when, in faults of the client */
};

/* Pages on their way out.  Runs ascend; frames' folios are cached and locked. */
struct batch {
	unsigned int pages;
	unsigned int runs;
	unsigned int takers; /* servers that are copying a page of it back */
	struct range run[BATCH_RUNS];
	uint64_t addr[BATCH_PAGES];
	struct frame *frame[BATCH_PAGES];
	bool back[BATCH_PAGES]; /* in the program again */
};

/* What clients_weigh() found of a client; each field atomic. */
struct weight {
	uint64_t anon, file; /* resident bytes that other processes account for */
	uint64_t faults;     /* minor faults not served by us, before it was found */
	int64_t touched;     /* resident bytes that came otherwise than by us, then */
	/* Bytes taken off the first since: one of them has died, or is being born. */
	uint64_t guessed;
};

struct client {
	uint64_t id;	     /* never used again */
	unsigned int ref;    /* guarded by the list's lock */
	bool dead;	     /* atomic; its address space is gone */
	uint64_t hung_up_ns; /* atomic; since when its agent is gone and its memory is not, or 0 */
	int64_t hung_up_charged; /* what was charged by then; set before */
	struct job *job;	 /* with a reference */
	bool is_program;	 /* the process is the job's program */
	pid_t pid; /* atomic; 0: a forked child whose agent is not here yet, or lingers */
	int uffd;
	int sock; /* -1: no agent, nothing can be evicted; atomic, the last to be set */
	int statm, stat, pagemap, maps;
	struct weight foreign;
	uint32_t *gate;
	struct agent_shared *shared;
	int shared_fd; /* of a forked child, for the agent that may come; else -1 */
	uint32_t agent_tid;
	bool copy_mode;		       /* no UFFDIO_MOVE here */
	bool batch_copies;	       /* the batch under way is by copying */
	struct range own[WIRE_RANGES]; /* the agent's: never managed */
	struct range arguments;	       /* of the program: never evicted */

	pthread_mutex_t state;
	pthread_cond_t batch_done;
	struct windows win;
	struct range *range; /* registered, ascending, disjoint */
	unsigned int nr_ranges, max_ranges;
	struct vacated vacated;	    /* something came there: an UNMAP or REMAP is to come */
	struct vacated unmapping;   /* what was there has moved: an UNMAP is; no pages in it */
	struct batch *batch;	    /* published, or NULL */
	struct batch *own_batch;    /* its memory; reclaim's, as the next */
	bool late;		    /* the agent owes an answer */
	uint64_t late_ns;	    /* since when */
	unsigned int waiting_batch; /* servers that want to hear of its end */
	struct busy busy[MAX_SERVERS];
	struct doubt doubt[MAX_DOUBTS];
	unsigned int nr_doubts;
	struct stream stream[MAX_STREAMS];
	uint64_t faults;       /* served */
	uint64_t family;       /* id of the one all of it came from by fork */
	uint64_t deaths;       /* in it; the list's lock */
	uint32_t forking;      /* forks under way when last looked for; the list's lock */
	uint64_t forking_ns;   /* since when it was as many */
	bool counted;	       /* atomic; was weighed, before it had an agent perhaps */
	uint64_t inherited;    /* atomic; of a child: bytes its parent had, less what it let go */
	bool alone;	       /* atomic; nobody accounts for those, so it does itself */
	struct client *parent; /* of a child without an agent; the list's lock */
	struct client *holder; /* whose agent keeps our userfaultfd, or NULL */
	unsigned int hold;     /* ... and its number there */
	uint64_t held[WIRE_HOLDS / 64]; /* numbers in use here; the list's lock */
	struct uffd_msg *stash;		/* read beside what was looked for; gate held */
	unsigned int nr_stash, max_stash;

	struct behind behind;  /* to go before what the hand finds */
	unsigned int turns;    /* batches picked, see pick() */
	uint64_t hand;	       /* of the clock: where the next scan begins */
	uint64_t files_hand;   /* the same for mapped files */
	uint64_t files_ns;     /* when the last round over those ended */
	uint64_t framed;       /* pages its agent may have copied to frames, so far */
	int64_t charged;       /* atomic; anonymous bytes by client_charge() */
	uint64_t own_anon;     /* atomic; what client_resident() told last */
	int64_t unseen;	       /* resident beyond those when last looked for growth */
	uint64_t next_look_ns; /* to look for growth all the same */
	struct range *copy;    /* to be evicted by copying: move was refused */
	unsigned int nr_copy;
	struct drop drop;    /* the agent's that events were last seen of */
	uint64_t drop_ns;    /* when an event was last read beside it */
	struct range race;   /* unmapped while being dropped */
	struct range unsure; /* dropped while something was done there, not yet followed */
	struct range not_followed[DROP_EVENTS]; /* events put by that were the agent's */
	unsigned int nr_not_followed;
	uint64_t populated;	 /* end of what was last made the program's own again */
	unsigned int busy_again; /* batches in a row that met it busy still */
	uint64_t parked_ns;	 /* atomic; not to be read from before, its agent has the gate */
	bool registered;	 /* atomic; something is: growth may come by faults */
	bool is_protected;	 /* atomic; what forks have shared so far is, or is about to be */
	bool protect;		 /* atomic; a fork has shared what is to be write-protected */
};

/* ---- client.c ------------------------------------------------------- */

/*
 * The next message on @sock, with what descriptor comes along, else -1.  Waits for some
 * seconds.  0 or -errno; -ECONNRESET: there is none to come.
 */
int client_receive(int sock, struct wire_msg *msg, int *fd);
/*
 * Answer an agent that said @hello on @sock, with @uffd: give it a control block and the
 * frames, make it a client of @job, of process @pid; or find the client it is the agent of,
 * if its process is a forked child.  @uffd is closed or the client's then.
 * Returns 0; @sock is the client's then.  -ENOENT: a child that goes on without, or the
 * process has ended, or is another program's by now.  Else it said why, and the process
 * must not go on.  Waits for the agent, some seconds.
 */
int client_accept(struct job *job, int sock, pid_t pid, const struct wire_msg *hello, int uffd);
/*
 * A child of @parent, born with @uffd, with the parent's entries; @protect: what they share
 * is to be write-protected in both.  State and gate held.
 */
struct client *client_fork(struct client *parent, int uffd, bool protect);

/* Before there is any. */
void clients_init(void);

void client_get(struct client *c);
void client_put(struct client *c);
/* Its address space is gone: no more faults; entries are given back at the last put. */
void client_dead(struct client *c);
/* Clients alive with a reference each; returns how many. */
unsigned int clients_get(struct client **list, unsigned int max);
/* Changes with the list, and with what its members account for. */
uint64_t clients_generation(void);
unsigned int clients_count(void);
/* Forked children of @job that have no agent yet, or never will. */
unsigned int clients_without_agent(const struct job *job);
/* The living client of that id with a reference, or NULL. */
struct client *client_find(uint64_t id);

/* Is the address space gone?  Asked of clients whose process is not known. */
bool client_gone(struct client *c);
/*
 * What the kernel says to a copy to [start, end), an errno.  It is from an address that cannot
 * be read, so nothing changes.  EFAULT, EEXIST: that is one mapping, and registered with @uffd;
 * ENOENT: not; EAGAIN: the map is being changed; ESRCH: the address space is gone.
 */
int try_copy(int uffd, uint64_t start, uint64_t end);
/*
 * The kernel refuses to copy pages from the beginning of a change to the mappings, a fork
 * too, until its last event was read and the thread is awake.  Does it now?
 */
bool client_map_changes(const struct client *c);

static inline bool client_is_dead(const struct client *c)
{
	return __atomic_load_n(&c->dead, __ATOMIC_ACQUIRE);
}

/* Is there an agent, so that it can be looked into and pages taken from it? */
static inline bool client_has_agent(const struct client *c)
{
	return __atomic_load_n(&c->sock, __ATOMIC_ACQUIRE) >= 0;
}

/*
 * Does it account for what it has?  Else its nearest forebear does that is counted, or
 * another relative; of a family without any, one accounts for what it was born with.
 */
static inline bool client_is_counted(const struct client *c)
{
	return client_has_agent(c) || __atomic_load_n(&c->counted, __ATOMIC_ACQUIRE);
}

/* 0: not known. */
static inline pid_t client_pid(const struct client *c)
{
	return __atomic_load_n(&c->pid, __ATOMIC_ACQUIRE);
}

/* Is @addr the agent's? */
static inline bool client_owns(const struct client *c, uint64_t addr)
{
	for (unsigned int i = 0; i < WIRE_RANGES; i++)
		if (addr >= c->own[i].start && addr < c->own[i].end)
			return true;
	return false;
}

/* Is its agent gone, and its memory not? */
static inline bool client_lingers(const struct client *c)
{
	return __atomic_load_n(&c->hung_up_ns, __ATOMIC_ACQUIRE);
}

/*
 * From now on it does.  False: there has been a batch on its way out for as long as @ns since,
 * and nobody will tell which of its pages are still there.
 */
bool client_linger(struct client *c, uint64_t ns);

/* Is any of its memory registered, and so evictable? */
static inline bool client_registered(const struct client *c)
{
	return __atomic_load_n(&c->registered, __ATOMIC_RELAXED);
}

/*
 * Take the gate to read, soon or not at all: an agent that was stopped may hold
 * it.  False: not now, and the client is parked.
 */
bool client_gate_to_read(struct client *c);
/*
 * Take the gate to copy.  False: the client is dead, or a server that has the gate waits, for
 * as long as the client is stopped, say.
 */
bool client_gate_to_copy(struct client *c);
/* Is there such a server? */
bool client_gate_blocked(const struct client *c);
void client_ungate(struct client *c, enum gate_for what);

/*
 * Resident bytes as the kernel counts them, without what clients_weigh() found to be
 * others': anonymous, and of files and shared memory.  0 or -errno; 1: it is gone, and
 * that is what it had, which others may account for already or not.  Of one that is not
 * counted, what we brought into it, and what it was born with if nobody else accounts for
 * that: it can be neither looked into nor weighed.
 */
int client_resident(struct client *c, uint64_t *anon, uint64_t *file);
/* Of that, bytes that others may account for as well, until all are weighed. */
uint64_t client_guessed(const struct client *c);
/* Anonymous pages came into it by us, or left it. */
void client_charge(struct client *c, int64_t bytes);
/*
 * It has let go of up to @bytes.  Of one that is not counted all of them are taken to have
 * been there: what it has would only grow otherwise.
 */
void client_dropped(struct client *c, uint64_t bytes);
/*
 * Has it grown otherwise than by us since the last look that said so?  Then there
 * is memory to be registered.  One thread asks.
 */
bool client_has_grown(struct client *c, uint64_t now);
/* It has given up @bytes that others may have still: then they account for them. */
void client_gave(struct client *c, uint64_t bytes);
/* Has it memory that a fork has shared, and that would be twice there once written? */
bool client_shares(struct client *c);
/*
 * Find the proportional shares the @n clients of @list have of what is resident: of
 * mapped files, and of memory a fork has shared.  Walks the page tables: a millisecond
 * for each some ten MiB mapped.  False: one died of whose family some are; what is known
 * of those is as it was.
 */
bool clients_weigh(struct client **list, unsigned int n);

/* ---- range.c: what is registered; state lock held ------------------- */

int ranges_add(struct client *c, uint64_t start, uint64_t end);
void ranges_remove(struct client *c, uint64_t start, uint64_t end);
/* The first range that ends above @addr, or NULL. */
struct range *range_from(struct client *c, uint64_t addr);

/*
 * Register what is there by now and not registered: heap, anonymous mappings,
 * stacks.  Takes the state lock itself.  Returns bytes newly registered.
 */
uint64_t client_register(struct client *c);
/*
 * Register what a fork has shared, and write-protect it, so that writing it anew waits for
 * room: in the child born with @uffd, before it is listed, and in its parent, once the
 * event was read.  The latter takes the state lock itself.
 */
void client_protect_child(const struct client *parent, int uffd);
void client_protect(struct client *c);
/* The same where there was room at the fork, and is not any more: once for a fork. */
void client_protect_shared(struct client *c);

/* Kill all of @job whose numbers are known. */
void clients_kill(const struct job *job);
/* Where the agent lies in a process and all that are forked of it. */
struct home {
	uint64_t code, area;
};
/* Those of the others; @list is for MAX_CLIENTS.  Returns how many. */
unsigned int clients_homes(const struct job *job, struct home *list);
/* Are some of @job alive whose fork could not be followed? */
bool clients_lost(struct job *job);

/* ---- event.c -------------------------------------------------------- */

/*
 * Follow all events that were read.  Returns whether there were any.  State lock held, and
 * the gate exclusively.
 */
bool event_follow(struct client *c);
/*
 * @c is dead, and children it had are not: follow the forks among the events, and what came
 * before them.  State lock held.
 */
void event_follow_forks(struct client *c);
/*
 * [start, end) was unmapped while the agent was dropping pages there.  Nothing stops
 * that when the program has put something else in their place by now.
 */
void event_drop_race(struct client *c, uint64_t start, uint64_t end);
/*
 * Is it known now what was done while pages were dropped?  If not, nothing may be evicted.
 * Takes gate and state lock if they are free.
 */
bool event_drop_sure(struct client *c);
/*
 * The kernel has just copied pages, or would have: nothing that was left is still to be told of.
 * Gate and state lock are held.
 */
void event_all_told(struct client *c);
/* Give back all entries in [start, end).  State lock held. */
void client_drop_entries(struct client *c, uint64_t start, uint64_t end);
/* State lock held. */
bool doubtful(const struct client *c, uint64_t addr);
/* Leave [start, end) alone for @ns at most.  State lock held. */
void doubt_add(struct client *c, uint64_t start, uint64_t end, uint64_t ns);
/* The page at @addr has just come by a fault.  State lock held. */
void doubts_settle(struct client *c, uint64_t addr);
/* Settle what can be settled; takes the state lock. */
void doubts_review(struct client *c);

/* It cannot be followed any further, so the program must not go on. */
void event_no_memory(struct client *c);

/* ---- stash.c -------------------------------------------------------- */

/*
 * Put a message by for whoever follows or serves it.  The gate is held, and the state lock
 * from before it was read.
 */
void event_stash(struct client *c, const struct uffd_msg *msg);
/* Read one message; false: there is none.  The gate is held. */
bool event_read(struct client *c, struct uffd_msg *msg);
/* Are there any? */
static inline bool event_stashed(const struct client *c)
{
	return __atomic_load_n(&c->nr_stash, __ATOMIC_RELAXED);
}
/*
 * Is there an event among them?  It was read, so the kernel no longer refuses to copy
 * pages, but it was not followed: what was dropped would come back, and of a fork the
 * child has no entries yet, so one the parent gave back now would be missing there.
 * Nothing is copied then.  Gate and state lock are held.
 */
bool event_unfollowed(const struct client *c);
/*
 * If a fork is among the events, or under way, read what may have come before it.  Returns
 * whether the order matters then.  State lock held, which is let go in between, and the
 * gate exclusively.
 */
bool event_gather(struct client *c);
/*
 * Take out the event to be followed next; false: there is none.  State lock held, and no batch
 * under way if the order matters.
 */
bool event_next(struct client *c, struct uffd_msg *msg);
/* Is a fork among them?  State lock held. */
bool event_has_fork(const struct client *c);
/* Take out the first fault; false: there is none.  State lock held. */
bool event_unstash_fault(struct client *c, struct uffd_msg *msg);

/* ---- evict.c -------------------------------------------------------- */

/* State lock held. */
bool batch_covers(const struct client *c, uint64_t start, uint64_t end);
/*
 * A fault on a page that has left with the batch need not wait for the others.  Where are
 * the bytes of the one at @addr?  NULL: it is not in the batch, or they are not to be had
 * before its end.  State lock held.
 */
const void *batch_bytes(const struct client *c, uint64_t addr);
/*
 * Between these the batch does not end; the gate is held.  @back: the page at @addr is in the
 * program again, and there alone.  State lock held.
 */
void batch_take(struct client *c);
void batch_taken(struct client *c, uint64_t addr, bool back);
/*
 * Begin to move up to @want cold pages out of the client; the caller goes on
 * and calls evict_finish().  Returns how many are on their way.
 */
unsigned int evict_start(struct client *c, unsigned int want);
/*
 * Wait for the agent, record where its pages are now.  Returns pages gone; none
 * yet if the agent is late, its process being stopped perhaps: evict_late() then
 * sees to it.
 */
unsigned int evict_finish(struct client *c);
/*
 * Have the kernel drop a slice of the files the program has mapped and does not
 * write to: its own text above all.  What is needed is read again, so a round over
 * all of them is made once a second at most; ten times if it is @urgent.  Returns
 * bytes less resident; 0 too where the files are others' and may not be dropped.
 */
uint64_t evict_files(struct client *c, bool urgent);
/*
 * See to those that are late, without waiting; with @give_up, take them for dead.
 * Returns pages gone.
 */
unsigned int evict_late(bool give_up);
/*
 * Put a cached frame back into its program, which may be busy: then it stays cached.  The
 * page is as warm as @heat says, see window_clear().  True when it is there.
 */
bool evict_undo(struct frame *frame, unsigned int heat);

/* ---- fault.c -------------------------------------------------------- */

int servers_start(void);
void servers_stop(void);
/*
 * A server waits long in the midst of an event of @c, or no more: the others leave
 * that client alone, and all listen to the rest.
 */
void servers_blocked(struct client *c, bool blocked);
/* The list of clients changed, or a batch some server waits for is over. */
void servers_wake(void);

#endif
