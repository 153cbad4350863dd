// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Faults served in the thread that touched the page, by a handler of SIGBUS.
 *
 * The handler is the process's: there is one for all regions, of all stores, from the
 * first to the last.  What is not ours goes to the one that was there before.  One that
 * was installed over ours may call it, so ours is left below it when the last region goes.
 *
 * Such a signal comes out of the instruction that touched the page and nowhere else.
 * This library touches no region itself, and a handler of an asynchronous signal, which
 * may have come in the middle of one of its calls, must not (vswap.h).  So the thread
 * holds no lock of ours, and the handler may take them as any other function may.  All
 * signals are blocked in it, so that a handler that touches one all the same does not
 * come between and want the very page it has locked.
 */
#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include <linux/rcupdate.h>

#include "region.h"

static struct {
	pthread_mutex_t lock; /* all but reading the list */
	struct vswap_region *regions;
	bool installed;
	struct sigaction before;
} bus = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct vswap_region *region_of(const char *addr)
{
	struct vswap_region *r;

	rcu_read_lock();
	for (r = rcu_dereference(bus.regions); r; r = rcu_dereference(r->next_sigbus))
		if (addr >= r->base && addr < r->base + r->pages * PAGE)
			break;
	rcu_read_unlock();
	/* It stays: who unmaps it while it is touched has other worries. */
	return r;
}

/* As if ours had never been there. */
static void chain(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *sa = &bus.before;
	const ucontext_t *uc = context;
	sigset_t set = uc->uc_sigmask, old;
	/* By no access of this thread. */
	bool sent = info->si_code <= 0 || info->si_code == BUS_MCEERR_AO;

	if (!(sa->sa_flags & SA_SIGINFO) &&
	    (sa->sa_handler == SIG_DFL || sa->sa_handler == SIG_IGN)) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		if (sa->sa_handler == SIG_IGN && sent)
			return;
		/* The access is done again, and ends the process; so does what is sent. */
		sigaction(sig, &dfl, NULL);
		if (sent)
			raise(sig);
		return;
	}
	sigorset(&set, &set, &sa->sa_mask);
	if (!(sa->sa_flags & SA_NODEFER))
		sigaddset(&set, sig);
	pthread_sigmask(SIG_SETMASK, &set, &old);
	if (sa->sa_flags & SA_SIGINFO)
		sa->sa_sigaction(sig, info, context);
	else
		sa->sa_handler(sig);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	const char *addr = info->si_addr;
	/* BUS_MCEERR_...: memory is bad, or a page is marked as lost, which is for others, too. */
	struct vswap_region *r = info->si_code == BUS_ADRERR ? region_of(addr) : NULL;
	enum fault_result result = FAULT_GONE;

	if (r) {
		NO_CANCEL;
		result = region_fault(r, (size_t)(addr - r->base) / PAGE);
	}
	errno = saved;
	if (result == FAULT_SERVED)
		return;
	/* As a kernel says that has CONFIG_MEMORY_FAILURE, of a page marked as lost. */
	if (result == FAULT_LOST)
		info->si_code = BUS_MCEERR_AR;
	chain(sig, info, context);
	errno = saved;
}

static bool is_ours(const struct sigaction *sa)
{
	return (sa->sa_flags & SA_SIGINFO) && sa->sa_sigaction == on_sigbus;
}

/*
 * Before the first region: is ours still there, or below one that may call it?  To go
 * over such a one would be to call each other without end.  The default is none, nor is
 * what ours was put over and calls as it is.
 */
static bool is_in_place(void)
{
	struct sigaction now;

	if (!bus.installed || sigaction(SIGBUS, NULL, &now))
		return false;
	if (is_ours(&now))
		return true;
	return now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN &&
	       now.sa_sigaction != bus.before.sa_sigaction;
}

int sigbus_add(struct vswap_region *r)
{
	struct sigaction ours = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	int err = 0;

	/* A thread of the program may have none of its own on its alternate stack. */
	sigfillset(&ours.sa_mask);
	pthread_mutex_lock(&bus.lock);
	if (!bus.regions && !is_in_place() && sigaction(SIGBUS, &ours, &bus.before))
		err = -errno;
	if (!err) {
		bus.installed = true;
		r->next_sigbus = bus.regions;
		rcu_assign_pointer(bus.regions, r);
	}
	pthread_mutex_unlock(&bus.lock);
	return err;
}

void sigbus_remove(struct vswap_region *r)
{
	struct sigaction now;
	struct vswap_region **p;

	pthread_mutex_lock(&bus.lock);
	for (p = &bus.regions; *p != r; p = &(*p)->next_sigbus)
		;
	rcu_assign_pointer(*p, r->next_sigbus);
	/* One installed over ours may call it: ours stays then, and passes all on. */
	if (!bus.regions && !sigaction(SIGBUS, NULL, &now) && is_ours(&now) &&
	    !sigaction(SIGBUS, &bus.before, NULL))
		bus.installed = false;
	pthread_mutex_unlock(&bus.lock);
	/* Others may be walking over it. */
	synchronize_rcu();
}
