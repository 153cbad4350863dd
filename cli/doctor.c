// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vswap doctor: can this machine, and this user on it, run vswap?
 *
 * Each check tries the thing itself rather than compare version numbers: what
 * a container or a security module takes away has no version.  A check that
 * fails means that vswap run will not work, a warning that it will be slower
 * or lacks something.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "../agent/uffd.h"
#include "../pager/control.h"
#include "../pager/json.h"
#include "../pager/machine.h"
#include "../pager/pager.h"
#include "../pager/program.h"
#include "../pager/size.h"
#include "../tier/file.h"
#include "space.h"

/* Descriptors vswap may need: tiers, rings, userfaultfds, sockets. */
#define MIN_NOFILE 256
/* Address space that is reserved at start; the memory behind it is taken as needed. */
#define MIN_AS (128ULL << 30)

const char cli_doctor_help[] =
	"Usage: vswap doctor [OPTION]...\n"
	"\n"
	"Say whether this machine can run vswap, and what to do if not.  Each line is\n"
	"ok, warn (works, with less) or fail.  The exit status is 0 when vswap run can\n"
	"work, 1 when it cannot.\n"
	"\n"
	"  -j, --json    print JSON\n"
	"  -h, --help    print this\n";

/* clang-format off */
static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};
/* clang-format on */

enum verdict {
	OK,
	WARN,
	FAIL,
};

static const char *const verdict_names[] = { "ok", "warn", "fail" };

/* What a check found, and for other than OK what to do about it. */
struct finding {
	enum verdict verdict;
	char detail[512];
	char advice[512];
};

static void found(struct finding *f, enum verdict verdict, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void advise(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void found(struct finding *f, enum verdict verdict, const char *fmt, ...)
{
	va_list ap;

	f->verdict = verdict;
	va_start(ap, fmt);
	vsnprintf(f->detail, sizeof(f->detail), fmt, ap);
	va_end(ap);
}

static void advise(struct finding *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->advice, sizeof(f->advice), fmt, ap);
	va_end(ap);
}

static void check_kernel(struct finding *f)
{
	long page = sysconf(_SC_PAGESIZE);
	struct utsname uts;

	if (uname(&uts)) {
		found(f, FAIL, "uname: %s", strerror(errno));
		advise(f, "run it on Linux");
		return;
	}
	found(f, OK, "Linux %s, %s, %ld byte pages", uts.release, uts.machine, page);
	if (page != (long)SWAP_PAGE_SIZE) {
		f->verdict = FAIL;
		advise(f, "boot a kernel with %lu byte pages", SWAP_PAGE_SIZE);
	}
}

/*
 * A userfaultfd that also serves faults the kernel takes for the program, got
 * the way the agent gets it; -1 with errno of userfaultfd(2).  Says in @how.
 */
static int open_userfaultfd(const char **how)
{
	int fd, dev, err;

	*how = "userfaultfd(2)";
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		return fd;
	err = errno;
	*how = "/dev/userfaultfd";
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
	}
	errno = err;
	return fd;
}

static void check_userfaultfd(struct finding *f)
{
	const char *how;
	int fd = open_userfaultfd(&how);

	if (fd >= 0) {
		found(f, OK, "by %s", how);
		close(fd);
		return;
	}
	found(f, FAIL, "userfaultfd(2): %s, and no access to /dev/userfaultfd", strerror(errno));
	if (errno == ENOSYS)
		advise(f, "use a kernel with CONFIG_USERFAULTFD");
	else
		advise(f,
		       "as root, one of: sysctl vm.unprivileged_userfaultfd=1; setfacl -m u:%lu:rw "
		       "/dev/userfaultfd (Linux 6.1 and later); in a container: allow the system call "
		       "in its seccomp profile, or give it the device",
		       (unsigned long)geteuid());
}

/*
 * The features this kernel has, by handshake on a descriptor of its own, for
 * it works once.  @want is asked for.  Returns 0 or -errno.
 */
static int handshake(uint64_t want, uint64_t *have)
{
	struct uffdio_api api = { .api = UFFD_API, .features = want };
	const char *how;
	int fd = open_userfaultfd(&how), err = 0;

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api))
		err = -errno;
	else
		*have = api.features;
	close(fd);
	return err;
}

static void check_events(struct finding *f)
{
	const uint64_t need = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
			      UFFD_FEATURE_EVENT_UNMAP;
	uint64_t have;
	int err = handshake(need, &have);

	if (err) {
		found(f, FAIL, "remap, remove and unmap events: %s", strerror(-err));
		advise(f, err == -EINVAL ? "use Linux 4.11 or later" : "see userfaultfd above");
		return;
	}
	err = handshake(need | UFFD_FEATURE_EVENT_FORK, &have);
	if (err) {
		found(f, FAIL, "remap, remove, unmap; not fork: %s", strerror(-err));
		advise(f, "a fork must be followed, or children would lose pages: run vswap as "
			  "root, or setcap cap_sys_ptrace+ep on it");
		return;
	}
	found(f, OK, "remap, remove, unmap, fork");
}

static void check_move(struct finding *f)
{
	uint64_t have;
	int err = handshake(0, &have);

	if (err) {
		found(f, FAIL, "features: %s", strerror(-err));
		advise(f, "see userfaultfd above");
	} else if (have & UFFD_FEATURE_MOVE) {
		found(f, OK, "UFFDIO_MOVE (features %#" PRIx64 ")", have);
	} else if (have & UFFD_FEATURE_PAGEFAULT_FLAG_WP) {
		found(f, WARN,
		      "no UFFDIO_MOVE, pages are evicted by write-protect and copy "
		      "(features %#" PRIx64 ")",
		      have);
		advise(f, "use Linux 6.8 or later for speed");
	} else {
		found(f, FAIL, "neither UFFDIO_MOVE nor write-protection (features %#" PRIx64 ")",
		      have);
		advise(f, "use Linux 6.8 or later (5.7 at the least)");
	}
}

static void check_poison(struct finding *f)
{
	uint64_t have;
	int err = handshake(0, &have);

	if (err) {
		found(f, FAIL, "features: %s", strerror(-err));
		advise(f, "see userfaultfd above");
	} else if (have & UFFD_FEATURE_POISON) {
		found(f, OK, "a lost page raises SIGBUS");
	} else {
		found(f, WARN, "no UFFDIO_POISON: a program that touches a lost page is killed");
		advise(f, "use Linux 6.6 or later");
	}
}

/* Ask it about one page of ours, so that only the call itself is tried. */
static void check_pagemap_scan(struct finding *f)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct page_region region;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)page,
		.end = (uintptr_t)page + sizeof(page),
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT,
	};
	int fd;

	page[0] = 1;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		found(f, FAIL, "/proc/self/pagemap: %s", strerror(errno));
		advise(f, "mount /proc, and use a kernel with CONFIG_PROC_PAGE_MONITOR");
		return;
	}
	if (ioctl(fd, PAGEMAP_SCAN, &arg) >= 0) {
		found(f, OK, "PAGEMAP_SCAN");
	} else {
		found(f, WARN, "no PAGEMAP_SCAN: /proc/PID/pagemap is read instead");
		advise(f, "use Linux 6.7 or later for speed");
	}
	close(fd);
}

static void check_io_uring(struct finding *f)
{
	struct io_uring_params params = { 0 };
	int fd = syscall(SYS_io_uring_setup, 4, &params);

	if (fd >= 0) {
		close(fd);
		found(f, OK, "works (features %#x)", params.features);
		return;
	}
	found(f, WARN, "%s: tiers are read and written one run at a time", strerror(errno));
	if (errno == ENOMEM)
		advise(f, "raise ulimit -l");
	else
		advise(f,
		       "sysctl kernel.io_uring_disabled=0; in a container: allow io_uring_setup, "
		       "io_uring_enter and io_uring_register in its seccomp profile");
}

/* Write a page to the default tier and read it back, the way vswap run would. */
static void check_temporary(struct finding *f)
{
	char err[512], how[256], size[SIZE_TEXT];
	struct tier_file *tier = tier_file_temp(0, err, sizeof(err));
	struct swap_io io = { .slot = 0 };
	unsigned char *page;

	if (!tier) {
		found(f, WARN, "%s", err);
		advise(f, "set TMPDIR, or use --tier or --no-tier");
		return;
	}
	page = aligned_alloc(SWAP_PAGE_SIZE, SWAP_PAGE_SIZE);
	if (!page) {
		found(f, FAIL, "out of memory");
		advise(f, "free some memory");
		goto out;
	}
	memset(page, 0x5a, SWAP_PAGE_SIZE);
	io.data = page;
	tier_file_ops.write(tier, &io, 1);
	if (!io.error) {
		memset(page, 0, SWAP_PAGE_SIZE);
		tier_file_ops.read(tier, &io, 1);
	}
	if (!io.error && (page[0] != 0x5a || page[SWAP_PAGE_SIZE - 1] != 0x5a))
		io.error = -EIO;
	free(page);

	size_format(size, tier_file_slots(tier) * SWAP_PAGE_SIZE);
	tier_file_describe(tier, how, sizeof(how));
	if (io.error) {
		found(f, WARN, "%s: %s", tier_file_name(tier), strerror(-io.error));
		advise(f, "set TMPDIR, or use --tier or --no-tier");
	} else {
		found(f, OK, "%s: %s, room for %s", tier_file_name(tier), how, size);
		if (tier_file_in_memory(tier)) {
			f->verdict = WARN;
			advise(f, "this directory is in memory: set TMPDIR to one on a disk");
		}
	}
out:
	tier_file_close(tier);
}

static void check_files(struct finding *f)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit)) {
		found(f, WARN, "RLIMIT_NOFILE: %s", strerror(errno));
		advise(f, "check ulimit -n");
		return;
	}
	found(f, OK, "%" PRIu64 " descriptors", (uint64_t)limit.rlim_cur);
	if (limit.rlim_cur < MIN_NOFILE) {
		f->verdict = WARN;
		advise(f, "ulimit -n %d or more", MIN_NOFILE);
	}
}

static void check_address_space(struct finding *f)
{
	struct rlimit limit;
	char size[SIZE_TEXT];

	if (getrlimit(RLIMIT_AS, &limit)) {
		found(f, WARN, "RLIMIT_AS: %s", strerror(errno));
		advise(f, "check ulimit -v");
	} else if (limit.rlim_cur == RLIM_INFINITY) {
		found(f, OK, "not limited");
	} else if (limit.rlim_cur >= MIN_AS) {
		found(f, OK, "%s", size_format(size, limit.rlim_cur));
	} else {
		found(f, FAIL, "limited to %s, the tables reserve more",
		      size_format(size, limit.rlim_cur));
		advise(f, "ulimit -v unlimited");
	}
}

/* The first number of a file, or -1. */
static long read_number(const char *path)
{
	long value = -1;
	FILE *f = fopen(path, "re");

	if (!f)
		return -1;
	if (fscanf(f, "%ld", &value) != 1)
		value = -1;
	fclose(f);
	return value;
}

/* Managed ranges split mappings, and memory that is not there yet must be allowed. */
static void check_sysctls(struct finding *f)
{
	long maps = read_number("/proc/sys/vm/max_map_count");
	long overcommit = read_number("/proc/sys/vm/overcommit_memory");

	found(f, OK, "vm.max_map_count %ld, vm.overcommit_memory %ld", maps, overcommit);
	if (overcommit == 2) {
		f->verdict = WARN;
		advise(f,
		       "sysctl vm.overcommit_memory=0: the program's own allocations count in full");
	} else if (maps >= 0 && maps < 65530) {
		f->verdict = WARN;
		advise(f, "sysctl vm.max_map_count=65530 or more");
	}
}

static void check_memory(struct finding *f)
{
	char total[SIZE_TEXT], limit[SIZE_TEXT], available[SIZE_TEXT], ram[SIZE_TEXT];
	struct machine_memory mem;
	int err = machine_memory("", &mem);

	if (err) {
		found(f, FAIL, "/proc/meminfo: %s", strerror(-err));
		advise(f, "mount /proc");
		return;
	}
	size_format(total, mem.total);
	size_format(limit, mem.limit);
	size_format(available, mem.available);
	size_format(ram, mem.available / 2);
	if (mem.limit < mem.total)
		found(f, OK, "%s of %s by cgroup, %s available, default --ram %s", limit, total,
		      available, ram);
	else
		found(f, OK, "%s, %s available, default --ram %s", total, available, ram);
	if (mem.available / 2 < PAGER_MIN_RAM) {
		f->verdict = mem.available < PAGER_MIN_RAM ? FAIL : WARN;
		advise(f, "free some memory: %s is the least for --ram",
		       size_format(ram, PAGER_MIN_RAM));
	}
}

static void check_agent(struct finding *f)
{
	char path[PATH_MAX];
	int err = agent_path(path, sizeof(path));

	if (!err) {
		found(f, OK, "%s", path);
		return;
	}
	found(f, FAIL, "the library for programs: %s",
	      err == -EINVAL ? "its path has a blank or a colon" : strerror(-err));
	advise(f, err == -EINVAL ? "install or build vswap elsewhere" : "install vswap again");
}

static void check_control(struct finding *f)
{
	char dir[PATH_MAX];
	int err = control_dir(dir, sizeof(dir));

	if (!err) {
		err = control_check_dir(dir);
		/* It is made by the first vswap run; that needs the directory above it. */
		if (err == -ENOENT) {
			char *slash = strrchr(dir, '/');

			*slash = '\0';
			err = faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) ? -errno : 0;
			*slash = '/';
		}
	}
	if (!err) {
		found(f, OK, "%s", dir);
		return;
	}
	found(f, WARN, "%s: %s: vswap stat will not see running spaces", dir, strerror(-err));
	advise(f, "%s", control_advice(dir, err));
}

/* clang-format off */
static const struct {
	const char *name;
	void (*check)(struct finding *f);
} checks[] = {
	{ "kernel", check_kernel },
	{ "userfaultfd", check_userfaultfd },
	{ "events", check_events },
	{ "move", check_move },
	{ "poison", check_poison },
	{ "pagemap", check_pagemap_scan },
	{ "io_uring", check_io_uring },
	{ "temporary", check_temporary },
	{ "files", check_files },
	{ "address space", check_address_space },
	{ "sysctl", check_sysctls },
	{ "memory", check_memory },
	{ "agent", check_agent },
	{ "control", check_control },
};
/* clang-format on */

#define NR_CHECKS (sizeof(checks) / sizeof(checks[0]))

static void print_text(const struct finding *findings, bool works)
{
	unsigned int i;

	for (i = 0; i < NR_CHECKS; i++) {
		printf("%-4s  %-13s  %s\n", verdict_names[findings[i].verdict], checks[i].name,
		       findings[i].detail);
		if (findings[i].verdict != OK)
			printf("      %-13s  -> %s\n", "", findings[i].advice);
	}
	puts(works ? "vswap can run here" : "vswap cannot run here");
}

static bool add_finding(struct json_object *array, const char *name, const struct finding *f)
{
	struct json_object *obj = json_object_new_object();

	return !json_append(array, obj) && !json_add_text(obj, "name", name) &&
	       !json_add_text(obj, "verdict", verdict_names[f->verdict]) &&
	       !json_add_text(obj, "detail", f->detail) &&
	       (f->verdict == OK || !json_add_text(obj, "advice", f->advice));
}

static bool print_findings(const struct finding *findings, bool works)
{
	struct json_object *root = json_object_new_object(), *array;
	unsigned int i;
	bool good;

	if (!root)
		return false;
	array = json_object_new_array();
	good = !json_add_bool(root, "works", works) && !json_add(root, "checks", array);
	for (i = 0; good && i < NR_CHECKS; i++)
		good = add_finding(array, checks[i].name, &findings[i]);
	if (good)
		print_json(root, false);
	json_object_put(root);
	return good;
}

int cli_doctor(int argc, char **argv)
{
	static struct finding findings[NR_CHECKS];
	bool json = false, works = true;
	unsigned int i;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":jh", options, NULL)) >= 0) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(cli_doctor_help, stdout);
			return 0;
		default:
			return cli_bad_option(argv, c, options, "doctor");
		}
	}
	if (optind < argc)
		return cli_error(CLI_FAILED, "%s: doctor takes no argument (vswap doctor --help)",
				 argv[optind]);

	for (i = 0; i < NR_CHECKS; i++) {
		checks[i].check(&findings[i]);
		if (findings[i].verdict == FAIL)
			works = false;
	}
	if (!json)
		print_text(findings, works);
	else if (!print_findings(findings, works))
		return cli_error(CLI_FAILED, "doctor: out of memory (free some)");
	return works ? 0 : 1;
}
