// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The library in a program that loads it, and unloads it while threads that used it
 * are still there.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "libpages.h"

static const char *library;

static struct {
	void *handle;
	__typeof__(vswap_create) *create;
	__typeof__(vswap_destroy) *destroy;
	__typeof__(vswap_store) *store;
	__typeof__(vswap_load) *load;
} lib;

static sem_t used, unloaded;

static void *user(void *arg)
{
	static char page[PAGE] __attribute__((__aligned__(PAGE)));
	bool *good = arg;
	struct vswap *s = lib.create(NULL, 0);
	vswap_entry e;

	fill(page, 3);
	*good = s && !lib.store(s, page, 1, &e);
	memset(page, 0, PAGE);
	*good = *good && !lib.load(s, &e, 1, page) && holds(page, 3);
	lib.destroy(s);
	sem_post(&used);
	sem_wait(&unloaded);
	return NULL;
}

/* What a thread leaves behind is tidied up by the library when the thread ends. */
static void test_unload(void **state)
{
	pthread_t thread;
	bool good = false;

	(void)state;
	lib.handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (!lib.handle)
		fail_msg("%s", dlerror());
	*(void **)&lib.create = dlsym(lib.handle, "vswap_create");
	*(void **)&lib.destroy = dlsym(lib.handle, "vswap_destroy");
	*(void **)&lib.store = dlsym(lib.handle, "vswap_store");
	*(void **)&lib.load = dlsym(lib.handle, "vswap_load");
	assert_true(lib.create && lib.destroy && lib.store && lib.load);
	assert_int_equal(sem_init(&used, 0, 0), 0);
	assert_int_equal(sem_init(&unloaded, 0, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, user, &good), 0);
	assert_int_equal(sem_wait(&used), 0);
	assert_int_equal(dlclose(lib.handle), 0);
	assert_int_equal(sem_post(&unloaded), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(good);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_unload) };

	if (argc != 2)
		return 2;
	library = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
