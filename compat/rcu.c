// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Registration of RCU readers, and callbacks.
 *
 * One thread, made when the first callback comes, takes all that are queued,
 * waits a grace period and runs them.  It leaves them a little time to gather,
 * as a grace period interrupts every CPU.  rcu_barrier() does not wait for that
 * but does the thread's work itself.
 */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <linux/bug.h>
#include <linux/rcupdate.h>

#define GATHER_NS 10000000

#ifdef COMPAT_TSAN
char compat_rcu_grace;
#endif

__thread bool compat_rcu_reader;

static pthread_key_t reader_key;
static pthread_once_t reader_once = PTHREAD_ONCE_INIT;

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;
static pthread_cond_t batch_done = PTHREAD_COND_INITIALIZER;
static struct rcu_head *queue; /* the last one queued is first */
static unsigned int batches;   /* being waited for or run */
static bool have_worker;

/* ---- readers --------------------------------------------------------- */

static void reader_exit(void *unused)
{
	(void)unused;
	compat_rcu_reader = false;
	urcu_memb_unregister_thread();
}

static void reader_init(void)
{
	BUG_ON(pthread_key_create(&reader_key, reader_exit));
}

void compat_rcu_register(void)
{
	pthread_once(&reader_once, reader_init);
	urcu_memb_register_thread();
	compat_rcu_reader = true;
	/* Any value but NULL makes reader_exit run. */
	BUG_ON(pthread_setspecific(reader_key, &reader_key));
}

void synchronize_rcu(void)
{
	urcu_memb_synchronize_rcu();
	compat_tsan_acquire(&compat_rcu_grace);
}

/* ---- callbacks ------------------------------------------------------- */

/* Run what is queued.  The lock is held, and let go meanwhile. */
static void run_batch(void)
{
	struct rcu_head *head = queue, *next;

	queue = NULL;
	batches++;
	pthread_mutex_unlock(&queue_lock);
	synchronize_rcu();
	for (; head; head = next) {
		next = head->next;
		head->func(head);
	}
	pthread_mutex_lock(&queue_lock);
	batches--;
	pthread_cond_broadcast(&batch_done);
}

static void *worker(void *unused)
{
	const struct timespec gather = { .tv_nsec = GATHER_NS };

	(void)unused;
	pthread_mutex_lock(&queue_lock);
	for (;;) {
		while (!queue)
			pthread_cond_wait(&queue_filled, &queue_lock);
		pthread_mutex_unlock(&queue_lock);
		nanosleep(&gather, NULL);
		pthread_mutex_lock(&queue_lock);
		if (queue)
			run_batch();
	}
	return NULL;
}

/* It must not be the thread a signal of the process finds. */
static bool start_worker(void)
{
	pthread_t thread;
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&thread, NULL, worker, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return !ret && !pthread_detach(thread);
}

void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
	head->func = func;
	pthread_mutex_lock(&queue_lock);
	head->next = queue;
	queue = head;
	/* Without a thread callbacks wait for the next try, or for rcu_barrier(). */
	if (!have_worker)
		have_worker = start_worker();
	if (!head->next)
		pthread_cond_signal(&queue_filled);
	pthread_mutex_unlock(&queue_lock);
}

void rcu_barrier(void)
{
	pthread_mutex_lock(&queue_lock);
	if (queue)
		run_batch();
	while (batches)
		pthread_cond_wait(&batch_done, &queue_lock);
	pthread_mutex_unlock(&queue_lock);
}
