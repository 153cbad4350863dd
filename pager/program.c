// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which file a command name means, and whether the agent can live in it.
 *
 * A program the agent is not loaded into would run unmanaged, above any limit,
 * so whatever would make the dynamic loader skip LD_PRELOAD is found out before
 * anything is started: another word size, no loader at all, another libc's
 * loader, and the secure mode (AT_SECURE) of programs that change who they run
 * as.  This mirrors what the kernel decides at exec; it is advice to the user,
 * and the pager still notices when no agent shows up.
 */
#include "program.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef VSWAP_AGENT_PATH
#error "VSWAP_AGENT_PATH: where the agent library gets installed"
#endif

#define AGENT_BUILT "../agent/vswap-agent.so"

/* What the kernel does: bytes of a file it looks at for "#!", and how often. */
#define HEAD_BYTES	 256
#define MAX_INTERPRETERS 5

/* The most a program header table of a sane program has. */
#define MAX_PHDRS 256

/* This executable's own header says what a fellow program looks like. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

/* Where the reason goes. */
struct reason {
	char *text;
	size_t len;
};

static int refuse(const struct reason *why, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int refuse(const struct reason *why, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why->text, why->len, fmt, ap);
	va_end(ap);
	return status;
}

/* 0 when the file can be executed, or -errno as execve() would say it. */
static int check_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return -EACCES;
	return 0;
}

/*
 * execvp's walk: errors that mean "not there" go on to the next directory, a
 * refusal is remembered, for a later directory may still have the program.
 */
static int search(const char *name, char *path, size_t len)
{
	const char *dir = getenv("PATH"), *end;
	int err, seen = -ENOENT;
	int n;

	if (!dir)
		dir = "/bin:/usr/bin";
	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		n = snprintf(path, len, "%.*s%s%s", (int)(end - dir), dir, end == dir ? "./" : "/",
			     name);
		if (n > 0 && (size_t)n < len) {
			/* A relative directory needs no "./": it has a slash now. */
			err = check_executable(path);
			if (!err)
				return 0;
			if (err == -EACCES)
				seen = err;
		}
		if (!*end)
			return seen;
	}
}

static int find_program(const char *name, char *path, size_t len, const struct reason *why)
{
	struct stat st;
	int err;

	if (strchr(name, '/')) {
		if ((size_t)snprintf(path, len, "%s", name) >= len)
			return refuse(why, PROGRAM_CANNOT_RUN,
				      "the name is too long (use a shorter one)");
		err = check_executable(path);
		if (err == -EACCES && !stat(path, &st) && S_ISDIR(st.st_mode))
			return refuse(why, PROGRAM_CANNOT_RUN,
				      "is a directory (name a program in it)");
	} else {
		err = *name ? search(name, path, len) : -ENOENT;
	}

	switch (err) {
	case 0:
		return 0;
	case -ENOENT:
	case -ENOTDIR:
		return refuse(why, PROGRAM_NOT_FOUND,
			      strchr(name, '/') ? "no such program (check the path)" :
						  "program not found (check the name and $PATH)");
	case -EACCES:
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "not executable (chmod +x, or check the path and mount options)");
	default:
		return refuse(why, PROGRAM_CANNOT_RUN, "%s (check the path)", strerror(-err));
	}
}

/* Fill @buf as far as the file goes.  Returns bytes read or -errno. */
static ssize_t read_at(int fd, void *buf, size_t len, off_t offset)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done, offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += n;
	}
	return done;
}

/*
 * The interpreter a "#!" line names: false when @head has none the kernel
 * would take.  @head has HEAD_BYTES + 1 bytes, zero behind what was read.
 */
static bool script_interpreter(const char *head, char *path)
{
	const char *p = head, *end;

	if (strncmp(p, "#!", 2))
		return false;
	p += 2;
	p += strspn(p, " \t");
	end = p + strcspn(p, " \t\n");
	/* Cut off by the end of what the kernel looks at: it refuses, too. */
	if (end == p || end == head + HEAD_BYTES)
		return false;
	memcpy(path, p, end - p);
	path[end - p] = '\0';
	return true;
}

/* Would the kernel give this file's process another user, group or capability? */
static bool changes_identity(int fd, const struct stat *st)
{
	struct vfs_ns_cap_data caps;
	struct statvfs fs;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	bool may;
	ssize_t n;

	may = !fstatvfs(fd, &fs) && !(fs.f_flag & ST_NOSUID);
	if (may && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0) {
		if (st->st_mode & S_ISUID)
			uid = st->st_uid;
		if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
			gid = st->st_gid;
	}
	/* The kernel compares with the real ids: vswap itself may be the odd one. */
	if (uid != getuid() || gid != getgid())
		return true;

	/* For the real root, capabilities of a file are no change. */
	if (!may || getuid() == 0)
		return false;
	n = fgetxattr(fd, "security.capability", &caps, sizeof(caps));
	if (n < (ssize_t)(2 * sizeof(uint32_t)))
		return false;
	if (caps.magic_etc & htole32(VFS_CAP_FLAGS_EFFECTIVE))
		return true;
	for (unsigned int i = 0; i < VFS_CAP_U32; i++) {
		if (n >= (ssize_t)(sizeof(uint32_t) * (1 + 2 * (i + 1))) &&
		    (caps.data[i].permitted || caps.data[i].inheritable))
			return true;
	}
	return false;
}

/*
 * Does the loader the program asks for belong to glibc?  Its file name does
 * not depend on where a distribution keeps it.
 */
static int check_loader(int fd, const ElfW(Phdr) *phdr, const struct reason *why)
{
	char loader[PATH_MAX], *base;
	ssize_t n;

	if (phdr->p_filesz < 2 || phdr->p_filesz > sizeof(loader))
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "damaged: the name of its loader makes no sense (install it again)");
	n = read_at(fd, loader, phdr->p_filesz, phdr->p_offset);
	if (n != (ssize_t)phdr->p_filesz || loader[n - 1])
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "damaged: the name of its loader is cut off (install it again)");
	base = strrchr(loader, '/');
	base = base ? base + 1 : loader;
	if (strncmp(base, "ld-linux", strlen("ld-linux")))
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "linked with another libc, its loader is %.256s "
			      "(use a build for glibc)",
			      loader);
	if (check_executable(loader))
		return refuse(why, PROGRAM_NOT_FOUND,
			      "its loader %.256s is missing (install the libc it was built for)",
			      loader);
	return 0;
}

static int check_elf(int fd, const char *head, const struct stat *st, const struct reason *why)
{
	const ElfW(Ehdr) *self = &__ehdr_start;
	ElfW(Phdr) phdr[MAX_PHDRS];
	ElfW(Ehdr) ehdr;
	unsigned int i;
	size_t size;

	memcpy(&ehdr, head, sizeof(ehdr));
	if (ehdr.e_ident[EI_CLASS] != self->e_ident[EI_CLASS] ||
	    ehdr.e_ident[EI_DATA] != self->e_ident[EI_DATA] || ehdr.e_machine != self->e_machine)
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "built for another machine or word size than vswap "
			      "(use a %zu-bit build for this machine)",
			      8 * sizeof(void *));
	if (ehdr.e_type != ET_EXEC && ehdr.e_type != ET_DYN)
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "an ELF file but no program (link it first)");
	if (ehdr.e_phentsize != sizeof(phdr[0]) || !ehdr.e_phnum || ehdr.e_phnum > MAX_PHDRS)
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "damaged: its program headers make no sense (install it again)");
	size = ehdr.e_phnum * sizeof(phdr[0]);
	if (read_at(fd, phdr, size, ehdr.e_phoff) != (ssize_t)size)
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "damaged: its program headers are cut off (install it again)");

	if (changes_identity(fd, st))
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "setuid, setgid or with capabilities: the loader would ignore "
			      "vswap's library (become that user first, or use a copy without)");
	for (i = 0; i < ehdr.e_phnum; i++) {
		if (phdr[i].p_type == PT_INTERP)
			return check_loader(fd, &phdr[i], why);
	}
	return refuse(why, PROGRAM_CANNOT_RUN,
		      "statically linked: vswap's library cannot be loaded into it "
		      "(use a dynamically linked build)");
}

/*
 * Look at one file of the chain from script to program.  Returns an exit
 * status, 0 when it is a fit program, or -EAGAIN with the next file in @next:
 * where the kernel finds no format it knows, execvp() turns to the shell.
 */
static int check_file(const char *path, char next[HEAD_BYTES], const struct reason *why)
{
	char head[HEAD_BYTES + 1] = "";
	struct stat st;
	int fd, ret;
	ssize_t n;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return refuse(why, PROGRAM_CANNOT_RUN,
			      "cannot be read to see whether it can be managed: %s (chmod +r)",
			      strerror(errno));
	n = read_at(fd, head, HEAD_BYTES, 0);
	if (n < 0 || fstat(fd, &st)) {
		ret = refuse(why, PROGRAM_CANNOT_RUN, "cannot be read: %s (check the disk)",
			     strerror(n < 0 ? (int)-n : errno));
	} else if (n >= (ssize_t)sizeof(ElfW(Ehdr)) && !memcmp(head, ELFMAG, SELFMAG)) {
		ret = check_elf(fd, head, &st, why);
	} else if (script_interpreter(head, next)) {
		ret = -EAGAIN;
	} else {
		strcpy(next, "/bin/sh");
		ret = -EAGAIN;
	}
	close(fd);
	return ret;
}

int program_resolve(const char *name, char *path, size_t len, char *text, size_t textlen)
{
	const struct reason why = { text, textlen };
	char file[HEAD_BYTES], next[HEAD_BYTES];
	unsigned int depth;
	int err, ret;

	ret = find_program(name, path, len, &why);
	if (ret)
		return ret;
	ret = check_file(path, next, &why);
	for (depth = 1; ret == -EAGAIN && depth <= MAX_INTERPRETERS; depth++) {
		strcpy(file, next);
		err = check_executable(file);
		if (err == -EACCES)
			return refuse(&why, PROGRAM_CANNOT_RUN,
				      "its interpreter %s is not executable (check the #! line)",
				      file);
		if (err)
			return refuse(
				&why, PROGRAM_NOT_FOUND,
				"its interpreter %s is missing (install it or check the #! line)",
				file);
		ret = check_file(file, next, &why);
	}
	if (ret == -EAGAIN)
		return refuse(&why, PROGRAM_CANNOT_RUN,
			      "too many interpreters, one behind the other (check the #! lines)");
	return ret;
}

int own_path(const char *built, const char *installed, char *path)
{
	const char *const places[] = { built, installed };
	char own[PATH_MAX], place[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
	unsigned int i;

	own[n > 0 ? n : 0] = '\0';
	slash = strrchr(own, '/');
	if (!slash)
		return -ENOENT; /* no /proc, and then no vswap either */
	*slash = '\0';
	for (i = 0; i < 2; i++) {
		n = *places[i] == '/' ? snprintf(place, sizeof(place), "%s", places[i]) :
					snprintf(place, sizeof(place), "%s/%s", own, places[i]);
		if ((size_t)n >= sizeof(place))
			return -ENAMETOOLONG;
		if (realpath(place, path))
			return access(path, R_OK) ? -ENOENT : 0;
	}
	return -ENOENT;
}

int agent_path(char *buf, size_t len)
{
	char path[PATH_MAX];
	int err = own_path(AGENT_BUILT, VSWAP_AGENT_PATH, path);

	if (err)
		return err;
	if (strpbrk(path, " :"))
		return -EINVAL;
	return (size_t)snprintf(buf, len, "%s", path) >= len ? -ENAMETOOLONG : 0;
}
