// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A program that becomes another one by exec, or starts others, takes the agent
 * along: our two variables are put into the environment that is passed on, and
 * taken out again by the agent over there.  These wrappers stand before libc's
 * functions of the same name; those are looked up once, at start, for a child of
 * vfork() must not; other objects' constructors may come before ours.  What libc
 * starts by itself, in system() and popen(), is not seen here: their command line is
 * made to say it.
 */
#include "exec.h"

#include <stdarg.h>
#include <sys/mman.h>

#include "sys.h"
#include "text.h"
#include "wire.h"

extern char **environ __attribute__((weak));

typedef int exec_fn(const char *, char *const[], char *const[]);
typedef int fexec_fn(int, char *const[], char *const[]);
typedef int execat_fn(int, const char *, char *const[], char *const[], int);
typedef int system_fn(const char *);
typedef void *popen_fn(const char *, const char *);
typedef int spawn_fn(int *, const char *, const void *, const void *, char *const[], char *const[]);

static struct {
	char space[256]; /* VSWAP_SPACE=... */
	char path[4096]; /* of this object */
	exec_fn *execve, *execvpe;
	fexec_fn *fexecve;
	execat_fn *execveat;
	spawn_fn *spawn, *spawnp;
	system_fn *system;
	popen_fn *popen;
} heir;

void exec_set_up(void)
{
	if (heir.execve)
		return;
	heir.execve = (exec_fn *)libc_symbol("execve");
	heir.execvpe = (exec_fn *)libc_symbol("execvpe");
	heir.fexecve = (fexec_fn *)libc_symbol("fexecve");
	heir.execveat = (execat_fn *)libc_symbol("execveat");
	heir.spawn = (spawn_fn *)libc_symbol("posix_spawn");
	heir.spawnp = (spawn_fn *)libc_symbol("posix_spawnp");
	heir.system = (system_fn *)libc_symbol("system");
	heir.popen = (popen_fn *)libc_symbol("popen");
}

static size_t count(char *const v[])
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

static size_t preload_bytes(char *const env[])
{
	size_t n = sizeof("LD_PRELOAD=:") + length(heir.path);

	for (; env && *env; env++)
		if (starts(*env, "LD_PRELOAD="))
			n += length(*env);
	return n;
}

/* @to has room for two more than @env has, @preload for preload_bytes(). */
static char **heir_env(char *const env[], char **to, char *preload)
{
	const char *old = NULL;
	size_t n = 0, at;

	for (; env && *env; env++)
		if (starts(*env, "LD_PRELOAD="))
			old = *env + length("LD_PRELOAD=");
		else if (!starts(*env, WIRE_ENV "="))
			to[n++] = *env;
	memcpy(preload, "LD_PRELOAD=", length("LD_PRELOAD="));
	at = length("LD_PRELOAD=");
	memcpy(preload + at, heir.path, length(heir.path));
	at += length(heir.path);
	if (old && *old) {
		preload[at++] = ':';
		memcpy(preload + at, old, length(old));
		at += length(old);
	}
	preload[at] = 0;
	to[n++] = preload;
	to[n++] = heir.space;
	to[n] = NULL;
	return to;
}

/* The environment to pass on, on the caller's stack: no allocation in a vfork()ed child. */
#define HEIR_ENV(env)                                                                     \
	(*heir.space ? heir_env(env, __builtin_alloca((count(env) + 3) * sizeof(char *)), \
				__builtin_alloca(preload_bytes(env))) :                   \
		       (char **)(env))

EXPORT int execve(const char *path, char *const argv[], char *const env[])
{
	exec_set_up();
	return heir.execve(path, argv, HEIR_ENV(env));
}

EXPORT int execvpe(const char *file, char *const argv[], char *const env[])
{
	exec_set_up();
	return heir.execvpe(file, argv, HEIR_ENV(env));
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

EXPORT int fexecve(int fd, char *const argv[], char *const env[])
{
	exec_set_up();
	return heir.fexecve(fd, argv, HEIR_ENV(env));
}

EXPORT int execveat(int dir, const char *path, char *const argv[], char *const env[], int flags)
{
	exec_set_up();
	return heir.execveat(dir, path, argv, HEIR_ENV(env), flags);
}

EXPORT int posix_spawn(int *pid, const char *path, const void *actions, const void *attr,
		       char *const argv[], char *const env[])
{
	exec_set_up();
	return heir.spawn(pid, path, actions, attr, argv, HEIR_ENV(env));
}

EXPORT int posix_spawnp(int *pid, const char *file, const void *actions, const void *attr,
			char *const argv[], char *const env[])
{
	exec_set_up();
	return heir.spawnp(pid, file, actions, attr, argv, HEIR_ENV(env));
}

static bool quotable(const char *s)
{
	while (*s && *s != '\'')
		s++;
	return !*s;
}

/*
 * @command for the shell, with our variables set for what it starts; the shell
 * itself stays as it is.  To be unmapped, *bytes of it; NULL: take the plain one.
 */
static char *heir_command(const char *command, size_t *bytes)
{
	static const char middle[] = "' LD_PRELOAD='", last[] = "'${LD_PRELOAD:+:$LD_PRELOAD}; ";
	const char *name = heir.space + length(WIRE_ENV "=");
	size_t at = 0;
	char *text;

	if (!command || !*heir.space || !quotable(name) || !quotable(heir.path))
		return NULL;
	*bytes = sizeof("export " WIRE_ENV "='") + length(name) + sizeof(middle) +
		 length(heir.path) + sizeof(last) + length(command);
	text = map_memory(*bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!text)
		return NULL;
	at += put_text(text + at, "export " WIRE_ENV "='");
	at += put_text(text + at, name);
	at += put_text(text + at, middle);
	at += put_text(text + at, heir.path);
	at += put_text(text + at, last);
	at += put_text(text + at, command);
	text[at] = 0;
	return text;
}

EXPORT int system(const char *command)
{
	size_t bytes = 0;
	char *text = heir_command(command, &bytes);
	int ret;

	exec_set_up();
	ret = heir.system(text ? text : command);
	if (text)
		sys2(SYS_munmap, text, bytes);
	return ret;
}

EXPORT void *popen(const char *command, const char *mode)
{
	size_t bytes = 0;
	char *text = heir_command(command, &bytes);
	void *ret;

	exec_set_up();
	ret = heir.popen(text ? text : command, mode);
	if (text)
		sys2(SYS_munmap, text, bytes);
	return ret;
}

static size_t count_args(va_list ap)
{
	size_t n = 1;

	while (va_arg(ap, char *))
		n++;
	return n;
}

static void take_args(char **argv, const char *arg, va_list *ap)
{
	*argv++ = (char *)arg;
	while ((*argv++ = va_arg(*ap, char *)))
		;
}

/* @ap is left behind the NULL that ends the arguments. */
#define ARGS(argv, arg, ap)                                                     \
	do {                                                                    \
		va_start(ap, arg);                                              \
		argv = __builtin_alloca((count_args(ap) + 1) * sizeof(char *)); \
		va_end(ap);                                                     \
		va_start(ap, arg);                                              \
		take_args(argv, arg, &ap);                                      \
	} while (0)

EXPORT int execl(const char *path, const char *arg, ...)
{
	char **argv;
	va_list ap;

	ARGS(argv, arg, ap);
	va_end(ap);
	return execve(path, argv, environ);
}

EXPORT int execlp(const char *file, const char *arg, ...)
{
	char **argv;
	va_list ap;

	ARGS(argv, arg, ap);
	va_end(ap);
	return execvpe(file, argv, environ);
}

EXPORT int execle(const char *path, const char *arg, ...)
{
	char **argv, **env;
	va_list ap;

	ARGS(argv, arg, ap);
	env = va_arg(ap, char **);
	va_end(ap);
	return execve(path, argv, env);
}

bool exec_take_env(char **envp)
{
	char **to = envp;

	for (char **from = envp; *from; from++) {
		char *var = *from;

		if (starts(var, WIRE_ENV "=")) {
			if (length(var) >= sizeof(heir.space))
				return false;
			memcpy(heir.space, var, length(var) + 1);
			continue;
		}
		if (starts(var, "LD_PRELOAD=")) {
			/* This object stands first; what follows the colon was there before. */
			char *value = var + length("LD_PRELOAD=");
			char *rest = value;

			while (*rest && *rest != ':')
				rest++;
			if (rest - value >= (long)sizeof(heir.path))
				return false;
			memcpy(heir.path, value, rest - value);
			if (!*rest)
				continue;
			rest++;
			while ((*value++ = *rest++))
				;
		}
		*to++ = var;
	}
	*to = NULL;
	return *heir.space && *heir.path;
}

const char *exec_space(void)
{
	return heir.space + length(WIRE_ENV "=");
}
