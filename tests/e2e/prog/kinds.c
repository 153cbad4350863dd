/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Mappings that are not to be paged: locked, shared and file memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "vmtest.h"

/* Bit 0 of each byte: is that page in memory?  To be freed. */
static unsigned char *look(char *mem, size_t nr)
{
	unsigned char *vec = malloc(nr);

	if (!vec)
		fail_errno("malloc");
	if (mincore(mem, nr * PAGE, vec))
		fail_errno("mincore");
	return vec;
}

static void check_resident(char *mem, size_t nr)
{
	unsigned char *vec = look(mem, nr);
	size_t i;

	for (i = 0; i < nr; i++)
		if (!(vec[i] & 1))
			fail("locked page %zu of %zu is not in memory", i, nr);
	free(vec);
}

/* A few MiB, locked once while in memory and once while swapped out, at once or as touched. */
void test_mlock(void)
{
	size_t nr = (2UL << 20) / PAGE, half = nr / 2;
	char *early = map_anon(nr * PAGE), *late = map_anon(nr * PAGE), *slow = map_anon(nr * PAGE);
	unsigned int pass;

	pressure_init(args.size - 3 * nr * PAGE);
	range_fill(early, nr, 0, 0);
	range_fill(late, nr, nr, 0);
	range_fill(slow, nr, 2 * nr, 0);
	for (pass = 0; pass < args.passes; pass++) {
		if (mlock(early, nr * PAGE))
			fail_errno("mlock");
		pressure();
		if (mlock(late, nr * PAGE))
			fail_errno("mlock of cold memory");
		if (mlock2(slow, nr * PAGE, MLOCK_ONFAULT))
			fail_errno("mlock2 MLOCK_ONFAULT");
		range_check(slow, half, 2 * nr, pass);
		pressure();
		check_resident(early, nr);
		check_resident(late, nr);
		check_resident(slow, half);
		range_check(early, nr, 0, pass);
		range_check(late, nr, nr, pass);
		range_check(slow, nr, 2 * nr, pass);
		range_fill(early, nr, 0, pass + 1);
		range_fill(late, nr, nr, pass + 1);
		range_fill(slow, nr, 2 * nr, pass + 1);
		if (munlock(early, nr * PAGE) || munlock(late, nr * PAGE) ||
		    munlock(slow, nr * PAGE))
			fail_errno("munlock");
		pressure();
		range_check(early, nr, 0, pass + 1);
		range_check(late, nr, nr, pass + 1);
		range_check(slow, nr, 2 * nr, pass + 1);
	}
}

static char *map_fd(int fd, size_t nr, int flags)
{
	char *mem = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (mem == MAP_FAILED)
		fail_errno("mmap");
	return mem;
}

void test_shared(void)
{
	size_t nr = (4UL << 20) / PAGE;
	char path[] = "vmtest-shared-XXXXXX";
	char *anon, *mem1, *mem2, *file, *cow;
	int memfd, fd;
	unsigned int pass;

	memfd = memfd_create("vmtest", MFD_CLOEXEC);
	if (memfd < 0 || ftruncate(memfd, nr * PAGE))
		fail_errno("memfd");
	fd = mkstemp(path);
	if (fd < 0 || unlink(path) || ftruncate(fd, nr * PAGE))
		fail_errno(path);
	anon = map_fd(-1, nr, MAP_SHARED | MAP_ANONYMOUS);
	mem1 = map_fd(memfd, nr, MAP_SHARED);
	mem2 = map_fd(memfd, nr, MAP_SHARED);
	file = map_fd(fd, nr, MAP_SHARED);
	range_fill(file, nr, 4UL << 32, 0);
	cow = map_fd(fd, nr, MAP_PRIVATE);
	pressure_init(args.size);
	for (pass = 0; pass < args.passes; pass++) {
		range_fill(anon, nr, 1UL << 32, pass);
		range_fill(mem1, nr, 2UL << 32, pass);
		/* Half of the private file pages are the program's own, half the file's. */
		range_fill(cow, nr / 2, 3UL << 32, pass);
		range_fill(file, nr, 4UL << 32, pass);
		pressure();
		range_check(anon, nr, 1UL << 32, pass);
		range_check(mem2, nr, 2UL << 32, pass);
		range_check(cow, nr / 2, 3UL << 32, pass);
		range_check(cow + nr / 2 * PAGE, nr / 2, (4UL << 32) + nr / 2, pass);
		range_check(file, nr, 4UL << 32, pass);
	}
	if (close(memfd) || close(fd))
		fail_errno("close");
}

/* A file that is read much, and then not at all; with it, the rest is more than fits. */
void test_mapped(void)
{
	size_t nr = args.size / 16 / PAGE;
	FILE *f = tmpfile();
	unsigned int pass;
	char *mem;

	if (!f || ftruncate(fileno(f), (off_t)(nr * PAGE)))
		fail_errno("temporary file");
	mem = map_fd(fileno(f), nr, MAP_SHARED);
	range_fill(mem, nr, 0, 0);
	unmap(mem, nr * PAGE);
	/* What is not written yet stays. */
	if (fsync(fileno(f)))
		fail_errno("fsync");
	mem = mmap(NULL, nr * PAGE, PROT_READ, MAP_PRIVATE, fileno(f), 0);
	if (mem == MAP_FAILED)
		fail_errno("mmap of a file");
	pressure_init(args.size - nr * PAGE);
	for (pass = 0; pass < args.passes; pass++) {
		range_check(mem, nr, 0, 0);
		pressure();
	}
	range_check(mem, nr, 0, 0);
	unmap(mem, nr * PAGE);
	fclose(f);
}

/* Memory of System V is everybody's: left alone, beside what is paged, in parent and child. */
void test_sysv(void)
{
	size_t nr = args.size / 16 / PAGE, own = args.size / 4 / PAGE;
	char *mem = map_anon(own * PAGE), *shared;
	int id = shmget(IPC_PRIVATE, nr * PAGE, IPC_CREAT | 0600);
	pid_t child;

	if (id < 0)
		fail_errno("shmget");
	shared = shmat(id, NULL, 0);
	if (shmctl(id, IPC_RMID, NULL) || shared == (void *)-1)
		fail_errno("shmat");
	range_fill(mem, own, 0, 0);
	range_fill(shared, nr, own, 0);
	pressure_init(args.size / 2);
	pressure();
	range_check(shared, nr, own, 0);
	child = forked();
	if (!child) {
		range_check(mem, own, 0, 0);
		range_check(shared, nr, own, 0);
		range_fill(shared, nr, own, 1);
		_exit(0);
	}
	wait_for(child, "child");
	pressure();
	range_check(shared, nr, own, 1);
	range_check(mem, own, 0, 0);
	if (shmdt(shared))
		fail_errno("shmdt");
}

/* What is mapped from now on is locked, and stays while what was there before comes and goes. */
static void lock_future(size_t nr)
{
	char *whole, *touched;
	size_t half = nr / 2;

	if (mlockall(MCL_FUTURE))
		fail_errno("mlockall MCL_FUTURE");
	whole = map_anon(nr * PAGE);
	if (mlockall(MCL_FUTURE | MCL_ONFAULT))
		fail_errno("mlockall MCL_FUTURE | MCL_ONFAULT");
	touched = map_anon(nr * PAGE);
	range_fill(touched, half, 0, 0);
	pressure();
	check_resident(whole, nr);
	check_resident(touched, half);
	range_check_zero(whole, nr, 0);
	range_check(touched, half, 0, 0);
	range_check_zero(touched + half * PAGE, half, half);
	unmap(whole, nr * PAGE);
	unmap(touched, nr * PAGE);
}

/* What is in memory stays, and so does what comes back, when for that others would have to go. */
static void lock_as_touched(void)
{
	size_t nr = args.size / 2 / PAGE, some = (2UL << 20) / PAGE, i;
	char *mem = map_anon(nr * PAGE);
	unsigned char *before, *after;

	range_fill(mem, nr, 0, 0);
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		fail_errno("mlockall MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT");
	before = look(mem, nr);
	for (i = 0; i < nr && some; i++)
		if (!(before[i] & 1)) {
			page_check(mem + i * PAGE, i, 0);
			before[i] = 1;
			some--;
		}
	after = look(mem, nr);
	for (i = 0; i < nr; i++)
		if ((before[i] & 1) && !(after[i] & 1))
			fail("page %zu of %zu was in memory, locked, and is no more", i, nr);
	free(before);
	free(after);
	if (munlockall())
		fail_errno("munlockall");
	range_check(mem, nr, 0, 0);
	unmap(mem, nr * PAGE);
}

/* All of it locked, what comes later too, and let go again. */
void test_mlockall(void)
{
	size_t nr = (2UL << 20) / PAGE;
	char *mem = map_anon(nr * PAGE), *later, *much = map_anon(args.size);

	range_fill(mem, nr, 0, 0);
	range_fill(much, args.size / PAGE, nr, 0);
	range_check(mem, nr, 0, 0);
	unmap(much, args.size);
	if (mlockall(MCL_CURRENT))
		fail_errno("mlockall MCL_CURRENT");
	check_resident(mem, nr);
	if (mlockall(MCL_FUTURE))
		fail_errno("mlockall MCL_FUTURE");
	later = map_anon(nr * PAGE);
	check_resident(later, nr);
	range_fill(later, nr, nr, 0);
	/* MCL_FUTURE holds for what comes after, so it ends before what is to be paged is mapped. */
	if (mlockall(MCL_CURRENT))
		fail_errno("mlockall MCL_CURRENT");
	pressure_init(args.size / 2);
	pressure();
	check_resident(mem, nr);
	check_resident(later, nr);
	range_check(mem, nr, 0, 0);
	range_check(later, nr, nr, 0);
	lock_future(nr / 2);
	if (munlockall())
		fail_errno("munlockall");
	pressure();
	range_check(mem, nr, 0, 0);
	range_check(later, nr, nr, 0);
	lock_as_touched();
}
