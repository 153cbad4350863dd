// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Messages: one line, one write to stderr, unless somebody took them over.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <linux/bug.h>
#include <linux/printk.h>

#define RATELIMIT_NS	5000000000ULL
#define RATELIMIT_BURST 10

static void (*printk_sink)(const char *line);

void compat_printk_to(void (*sink)(const char *line))
{
	__atomic_store_n(&printk_sink, sink, __ATOMIC_RELEASE);
}

void compat_printk(const char *fmt, ...)
{
	void (*sink)(const char *line) = __atomic_load_n(&printk_sink, __ATOMIC_ACQUIRE);
	char line[512];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	if (len >= (int)sizeof(line)) {
		len = sizeof(line) - 1;
		line[len - 1] = '\n';
	}
	if (sink)
		sink(line);
	else if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return; /* nobody is listening, and there is nobody else to tell */
}

bool compat_ratelimit(struct compat_ratelimit *rs)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	unsigned long long now;
	unsigned int missed = 0;
	struct timespec ts;
	bool say;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = ts.tv_sec * 1000000000ULL + ts.tv_nsec;
	pthread_mutex_lock(&lock);
	if (!rs->begin || now - rs->begin > RATELIMIT_NS) {
		missed = rs->missed;
		*rs = (struct compat_ratelimit){ .begin = now };
	}
	say = rs->said < RATELIMIT_BURST;
	if (say)
		rs->said++;
	else
		rs->missed++;
	pthread_mutex_unlock(&lock);
	if (missed)
		pr_warn("%u messages like the next one were left out\n", missed);
	return say;
}

void compat_warn(const char *what, const char *file, int line)
{
	pr_warn("this cannot be: %s (%s:%d; please report it)\n", what, file, line);
}

void compat_bug(const char *what, const char *file, int line)
{
	pr_err("this cannot be: %s (%s:%d; stopping, please report it)\n", what, file, line);
	abort();
}
