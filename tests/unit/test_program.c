// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which programs may run under vswap: each way to be found, each reason to be
 * turned away.  ELF files are made here, header by header.
 */
#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "pager/program.h"

#define OTHER_ID 12345 /* a user and group that is not ours */

static char dir[] = "/var/tmp/vswap-test-XXXXXX";
static char loader[PATH_MAX]; /* this program's, so one that exists */
static Elf64_Ehdr native;

static const char *in_dir(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void put_bytes(const char *name, mode_t mode, const void *bytes, size_t len)
{
	int fd;

	unlink(in_dir(name));
	fd = open(in_dir(name), O_WRONLY | O_CREAT | O_EXCL, 0700);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
}

static void put_text(const char *name, mode_t mode, const char *text)
{
	put_bytes(name, mode, text, strlen(text));
}

/* A program that asks for loader @interp; NULL: for none, it is static. */
static void put_elf(const char *name, const Elf64_Ehdr *like, const char *interp)
{
	struct {
		Elf64_Ehdr ehdr;
		Elf64_Phdr phdr[2];
		char interp[256];
	} elf = { .ehdr = *like };

	elf.ehdr.e_phoff = offsetof(typeof(elf), phdr);
	elf.ehdr.e_phnum = 2;
	elf.phdr[0].p_type = PT_LOAD;
	elf.phdr[1].p_type = PT_NULL;
	if (interp) {
		elf.phdr[1].p_type = PT_INTERP;
		elf.phdr[1].p_offset = offsetof(typeof(elf), interp);
		elf.phdr[1].p_filesz = strlen(interp) + 1;
		strcpy(elf.interp, interp);
	}
	put_bytes(name, 0755, &elf, sizeof(elf));
}

/* The reason must be there when the program is refused, and have advice in it. */
static int resolve(const char *name, char *path)
{
	char why[512] = "";
	int status = program_resolve(name, path, PATH_MAX, why, sizeof(why));

	if (status)
		assert_true(strchr(why, '(') && why[strlen(why) - 1] == ')' && !strchr(why, '\n'));
	return status;
}

static void expect(const char *name, int status)
{
	char path[PATH_MAX];

	assert_int_equal(resolve(in_dir(name), path), status);
	if (!status)
		assert_string_equal(path, in_dir(name));
}

static int setup(void **state)
{
	Elf64_Phdr phdr;
	FILE *self;
	int i;

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	self = fopen("/proc/self/exe", "r");
	if (!self || fread(&native, sizeof(native), 1, self) != 1)
		return -1;
	for (i = 0; i < native.e_phnum; i++) {
		if (fseek(self, native.e_phoff + i * sizeof(phdr), SEEK_SET) ||
		    fread(&phdr, sizeof(phdr), 1, self) != 1)
			return -1;
		if (phdr.p_type == PT_INTERP &&
		    (fseek(self, phdr.p_offset, SEEK_SET) || phdr.p_filesz > sizeof(loader) ||
		     fread(loader, phdr.p_filesz, 1, self) != 1))
			return -1;
	}
	fclose(self);
	return loader[0] ? 0 : -1;
}

static int teardown(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void test_found(void **state)
{
	char path[PATH_MAX], search[128], cwd[PATH_MAX];

	(void)state;
	put_elf("prog", &native, loader);
	expect("prog", 0);
	expect("missing", PROGRAM_NOT_FOUND);
	expect("prog/below", PROGRAM_NOT_FOUND);
	assert_int_equal(resolve("", path), PROGRAM_NOT_FOUND);

	/* By $PATH: a directory without it, one where it may not run, then the right one. */
	assert_int_equal(mkdir(in_dir("no"), 0755), 0);
	put_text("no/prog", 0644, "not for running");
	assert_int_equal(mkdir(in_dir("no/dir"), 0755), 0);
	snprintf(search, sizeof(search), "/nonexistent:%s/no:%s", dir, dir);
	assert_int_equal(setenv("PATH", search, 1), 0);
	assert_int_equal(resolve("prog", path), 0);
	assert_string_equal(path, in_dir("prog"));
	assert_int_equal(resolve("missing", path), PROGRAM_NOT_FOUND);
	assert_int_equal(resolve("dir", path), PROGRAM_CANNOT_RUN);

	snprintf(search, sizeof(search), "/nonexistent:%s/no", dir);
	assert_int_equal(setenv("PATH", search, 1), 0);
	assert_int_equal(resolve("prog", path), PROGRAM_CANNOT_RUN);

	/* An empty entry is the working directory, a relative one starts there. */
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(setenv("PATH", "/nonexistent:", 1), 0);
	assert_int_equal(resolve("prog", path), 0);
	assert_string_equal(path, "./prog");
	assert_int_equal(symlink(".", "link"), 0);
	assert_int_equal(setenv("PATH", "link", 1), 0);
	assert_int_equal(resolve("prog", path), 0);
	assert_string_equal(path, "link/prog");
	assert_int_equal(chdir(cwd), 0);

	assert_int_equal(unsetenv("PATH"), 0);
	assert_int_equal(resolve("sh", path), 0);
	assert_string_equal(path, "/bin/sh");
}

static void test_not_executable(void **state)
{
	char path[PATH_MAX], small[8], why[64];

	(void)state;
	put_text("plain", 0644, "text");
	expect("plain", PROGRAM_CANNOT_RUN);
	assert_int_equal(resolve(dir, path), PROGRAM_CANNOT_RUN);
	assert_int_equal(resolve("/dev/null", path), PROGRAM_CANNOT_RUN);
	assert_int_equal(program_resolve("/bin/true-and-more", small, sizeof(small), why,
					 sizeof(why)),
			 PROGRAM_CANNOT_RUN);
}

static void test_elf(void **state)
{
	Elf64_Ehdr other;

	(void)state;
	put_elf("static", &native, NULL);
	expect("static", PROGRAM_CANNOT_RUN);
	put_elf("musl", &native, "/lib/ld-musl-x86_64.so.1");
	expect("musl", PROGRAM_CANNOT_RUN);
	put_elf("noloader", &native, "/nonexistent/ld-linux-x86-64.so.2");
	expect("noloader", PROGRAM_NOT_FOUND);

	other = native;
	other.e_ident[EI_CLASS] = ELFCLASS32;
	put_elf("narrow", &other, loader);
	expect("narrow", PROGRAM_CANNOT_RUN);
	other = native;
	other.e_machine = EM_S390;
	put_elf("machine", &other, loader);
	expect("machine", PROGRAM_CANNOT_RUN);
	other = native;
	other.e_ident[EI_DATA] ^= ELFDATA2LSB ^ ELFDATA2MSB;
	put_elf("endian", &other, loader);
	expect("endian", PROGRAM_CANNOT_RUN);
	other = native;
	other.e_type = ET_REL;
	put_elf("object", &other, loader);
	expect("object", PROGRAM_CANNOT_RUN);
	other = native;
	other.e_phentsize = 1;
	put_elf("damaged", &other, loader);
	expect("damaged", PROGRAM_CANNOT_RUN);

	/* Headers promised past the end of the file. */
	other = native;
	other.e_phoff = sizeof(other);
	put_bytes("short", 0755, &other, sizeof(other));
	expect("short", PROGRAM_CANNOT_RUN);
}

static void test_scripts(void **state)
{
	char line[PATH_MAX + 64], name[16], before[16];
	unsigned int i;

	(void)state;
	put_elf("interp", &native, loader);
	snprintf(line, sizeof(line), "#! \t%s -x y\nrest\n", in_dir("interp"));
	put_text("script", 0755, line);
	expect("script", 0);
	put_text("noline", 0755, "#!/bin/sh");
	expect("noline", 0);
	put_text("env", 0755, "#!/usr/bin/env sh\n");
	expect("env", 0);
	put_text("shell", 0755, "echo no first line\n");
	expect("shell", 0);
	put_text("empty", 0755, "");
	expect("empty", 0);
	put_text("gone", 0755, "#!/nonexistent/interp\n");
	expect("gone", PROGRAM_NOT_FOUND);

	put_text("plain", 0644, "text");
	snprintf(line, sizeof(line), "#!%s\n", in_dir("plain"));
	put_text("refused", 0755, line);
	expect("refused", PROGRAM_CANNOT_RUN);

	/* What runs in the end decides. */
	put_elf("static", &native, NULL);
	snprintf(line, sizeof(line), "#!%s\n", in_dir("static"));
	put_text("tostatic", 0755, line);
	expect("tostatic", PROGRAM_CANNOT_RUN);

	/* As many scripts behind each other as the kernel takes, and one more. */
	strcpy(before, "interp");
	for (i = 1; i <= 6; i++) {
		snprintf(line, sizeof(line), "#!%s\n", in_dir(before));
		snprintf(name, sizeof(name), "chain%u", i);
		put_text(name, 0755, line);
		expect(name, i <= 5 ? 0 : PROGRAM_CANNOT_RUN);
		strcpy(before, name);
	}

	/* An interpreter longer than the kernel looks is none: the shell's turn. */
	memset(line, 'a', 512);
	line[512] = '\0';
	memcpy(line, "#!/", 3);
	put_text("endless", 0755, line);
	expect("endless", 0);
}

/* As root only a change of the real ids counts. */
static void test_identity_root(void **state)
{
	(void)state;
	put_elf("prog", &native, loader);

	/* Ours anyway: no change. */
	assert_int_equal(chmod(in_dir("prog"), 06755), 0);
	expect("prog", 0);
	/* Without group execution the bit means something else. */
	assert_int_equal(chown(in_dir("prog"), 0, OTHER_ID), 0);
	assert_int_equal(chmod(in_dir("prog"), 02745), 0);
	expect("prog", 0);
	assert_int_equal(chmod(in_dir("prog"), 02755), 0);
	expect("prog", PROGRAM_CANNOT_RUN);
	assert_int_equal(chown(in_dir("prog"), OTHER_ID, 0), 0);
	assert_int_equal(chmod(in_dir("prog"), 04755), 0);
	expect("prog", PROGRAM_CANNOT_RUN);
	assert_int_equal(chmod(in_dir("prog"), 0755), 0);
	expect("prog", 0);
}

/* Run @check in a child that is an ordinary user.  The child must exit with 0. */
static void as_user(int (*check)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(setgid(OTHER_ID) || setuid(OTHER_ID) ? 99 : check());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* In the child a failure is a number: asserts belong to the parent. */
static int status_of(const char *name)
{
	char path[PATH_MAX], why[512];

	return program_resolve(in_dir(name), path, sizeof(path), why, sizeof(why));
}

static int user_sees(void)
{
	if (status_of("prog") != 0)
		return 1;
	if (status_of("setuid") != PROGRAM_CANNOT_RUN)
		return 2;
	if (status_of("caps") != PROGRAM_CANNOT_RUN)
		return 3;
	if (status_of("nocaps") != 0)
		return 4;
	if (status_of("unreadable") != PROGRAM_CANNOT_RUN)
		return 5;
	/* A process that cannot gain anything loses nothing by a setuid program. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return 6;
	return status_of("setuid") ? 7 : 0;
}

static void test_identity_user(void **state)
{
	struct vfs_cap_data caps = { .magic_etc = htole32(VFS_CAP_REVISION_2) };

	(void)state;
	assert_int_equal(chmod(dir, 0755), 0);
	put_elf("prog", &native, loader);
	put_elf("setuid", &native, loader);
	assert_int_equal(chmod(in_dir("setuid"), 04755), 0);
	put_elf("unreadable", &native, loader);
	assert_int_equal(chmod(in_dir("unreadable"), 0711), 0);
	put_elf("nocaps", &native, loader);
	assert_int_equal(setxattr(in_dir("nocaps"), "security.capability", &caps, sizeof(caps), 0),
			 0);
	put_elf("caps", &native, loader);
	caps.data[0].permitted = htole32(1 << CAP_NET_RAW);
	assert_int_equal(setxattr(in_dir("caps"), "security.capability", &caps, sizeof(caps), 0),
			 0);

	as_user(user_sees);
	/* Capabilities of a file are no change for root. */
	expect("caps", 0);
}

static void test_real_programs(void **state)
{
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(setenv("PATH", "/usr/bin:/bin", 1), 0);
	assert_int_equal(resolve("true", path), 0);
	assert_int_equal(resolve("env", path), 0);
	assert_int_equal(resolve("/proc/self/exe", path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),	      cmocka_unit_test(test_not_executable),
		cmocka_unit_test(test_elf),	      cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_real_programs),
	};
	/* Giving files away and changing users takes root. */
	const struct CMUnitTest root_tests[] = {
		cmocka_unit_test(test_identity_root),
		cmocka_unit_test(test_identity_user),
	};
	int failed;

	umask(022);
	failed = cmocka_run_group_tests_name("program", tests, setup, teardown);
	if (geteuid() == 0) {
		strcpy(dir + sizeof(dir) - 7, "XXXXXX");
		failed += cmocka_run_group_tests_name("identity", root_tests, setup, teardown);
	}
	return failed;
}
