// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The control socket with operations of the test's own: what is refused, that
 * nobody holds up anybody, progress, and what becomes of those who leave.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "pager/control.h"
#include "pager/json.h"

/* ---- operations ------------------------------------------------------- */

static unsigned int runs, begun, ended, cancelled, closed;

static void count(unsigned int *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

static unsigned int so_many(unsigned int *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static bool counted(unsigned int *counter, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < 5000 && so_many(counter) < n; i++)
		usleep(1000);
	return so_many(counter) == n;
}

static int op_echo(struct control_call *call)
{
	count(&runs);
	json_add_text(call->answer, "text", control_text(call, "text"));
	json_add_u64(call->answer, "number", control_number(call, "number", 7));
	return 0;
}

static int op_no(struct control_call *call)
{
	return control_refuse(call, "no: never\n (ask \"another\")");
}

/* Until it is cancelled, or as long as it was told, ms. */
static int op_slow(struct control_call *call)
{
	uint64_t i, ms = control_number(call, "ms", 0);

	count(&begun);
	for (i = 0; i < ms; i++) {
		usleep(1000);
		if (!control_progress(call, i, ms)) {
			count(&cancelled);
			return control_refuse(call, "slow: cancelled");
		}
	}
	count(&ended);
	return 0;
}

static void on_close(void *arg)
{
	count(arg);
}

static int op_stay(struct control_call *call)
{
	if (control_on_close(call, on_close, &closed))
		return control_refuse(call, "stay: is here already");
	json_add_u64(call->answer, "pid", control_peer(call));
	return 0;
}

/* Far more than a socket takes at once. */
static int op_large(struct control_call *call)
{
	char *text = malloc((4 << 20) + 1);

	memset(text, 'x', 4 << 20);
	text[4 << 20] = 0;
	json_add(call->answer, "text", json_object_new_string(text));
	free(text);
	return 0;
}

/* clang-format off */
static const struct control_op ops[] = {
	{ .name = "echo", .run = op_echo, .member = {
		{ "text", CONTROL_TEXT, false }, { "number", CONTROL_COUNT, true },
		{ "int", CONTROL_INT, true }, { "bool", CONTROL_BOOL, true },
		{ "list", CONTROL_LIST, true } } },
	{ .name = "no", .run = op_no },
	{ 0 },
};
static const struct control_op more_ops[] = {
	{ .name = "slow", .run = op_slow, .slow = true, .member = { { "ms", CONTROL_COUNT, false } } },
	{ .name = "stay", .run = op_stay },
	{ .name = "large", .run = op_large },
	{ 0 },
};
/* clang-format on */
static const struct control_op *const tables[] = { ops, more_ops, NULL };

/* ---- a client --------------------------------------------------------- */

static int connect_control(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char dir[64];
	int fd;

	assert_int_equal(control_dir(dir, sizeof(dir)), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%ld", dir, (long)getpid());
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return -errno;
	}
	return fd;
}

static void say_bytes(int fd, const char *text, size_t len)
{
	ssize_t n;

	for (; len; text += n, len -= n) {
		n = send(fd, text, len, MSG_NOSIGNAL);
		assert_true(n > 0);
	}
}

static void say(int fd, const char *text)
{
	say_bytes(fd, text, strlen(text));
}

/* The next line as an object; NULL at the end. */
static struct json_object *hear(int fd)
{
	static char line[8 << 20];
	struct json_object *obj;
	size_t used = 0;
	ssize_t n;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		char *end;
		size_t i;

		assert_int_equal(poll(&p, 1, 10000), 1);
		/* No further than one line, to leave the next one where it is. */
		n = recv(fd, line + used, sizeof(line) - 1 - used, MSG_PEEK);
		if (n <= 0)
			return NULL;
		end = memchr(line + used, '\n', n);
		i = end ? (size_t)(end + 1 - line) - used : (size_t)n;
		assert_int_equal(recv(fd, line + used, i, 0), i);
		used += i;
		if (end)
			break;
	}
	line[used] = '\0';
	obj = json_tokener_parse(line);
	assert_true(json_object_is_type(obj, json_type_object));
	return obj;
}

static struct json_object *member(struct json_object *obj, const char *name)
{
	struct json_object *value = NULL;

	if (!json_object_object_get_ex(obj, name, &value))
		fail_msg("no %s in %s", name, json_object_to_json_string(obj));
	return value;
}

/* An answer that all is well, whatever progress was told before. */
static void hear_ok(int fd)
{
	struct json_object *obj = hear(fd);

	while (obj && json_object_object_get_ex(obj, "progress", NULL)) {
		json_object_put(obj);
		obj = hear(fd);
	}
	assert_non_null(obj);
	if (!json_object_get_boolean(member(obj, "ok")))
		fail_msg("%s", json_object_to_json_string(obj));
	json_object_put(obj);
}

/* The answer is an error of one line that has @word in it. */
static void hear_error(int fd, const char *word)
{
	struct json_object *obj = hear(fd);
	const char *text;

	assert_non_null(obj);
	assert_false(json_object_get_boolean(member(obj, "ok")));
	text = json_object_get_string(member(obj, "error"));
	if (!strstr(text, word) || strchr(text, '\n'))
		fail_msg("'%s' has no '%s'", text, word);
	json_object_put(obj);
}

/* ---- tests ------------------------------------------------------------ */

static void test_requests(void **state)
{
	/* clang-format off */
	static const struct {
		const char *line, *word;
	} bad[] = {
		{ "\n", "not JSON" },
		{ "hello\n", "not JSON" },
		{ "{\"op\":\"echo\",\"text\":\"x\"\n", "not JSON" },
		{ "{\"op\":\"echo\",\"text\":\"x\"}}\n", "not JSON" },
		{ "{\"op\":\"echo\",\"text\":\"x\"} {}\n", "not JSON" },
		{ "{'op':'echo','text':'x'}\n", "not JSON" },
		{ "{\"op\":\"echo\",\"text\":\"\xff\"}\n", "not JSON" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"list\":[[[[1]]]]}\n", "not JSON" },
		{ "[\"echo\"]\n", "not an object" },
		{ "\"echo\"\n", "not an object" },
		{ "12\n", "not an object" },
		{ "null\n", "not an object" },
		{ "{}\n", "op" },
		{ "{\"op\":1}\n", "op" },
		{ "{\"op\":\"\"}\n", "op" },
		{ "{\"op\":null}\n", "op" },
		{ "{\"op\":\"fly\"}\n", "fly" },
		{ "{\"op\":\"echo\\u0000\",\"text\":\"x\"}\n", "op" },
		{ "{\"op\":\"echo\"}\n", "text" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"color\":1}\n", "color" },
		{ "{\"op\":\"echo\",\"text\":1}\n", "string" },
		{ "{\"op\":\"echo\",\"text\":\"\"}\n", "string" },
		{ "{\"op\":\"echo\",\"text\":\"a\\u0000b\"}\n", "string" },
		{ "{\"op\":\"echo\",\"text\":null}\n", "string" },
		{ "{\"op\":\"echo\",\"text\":[\"x\"]}\n", "string" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":-1}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":1.5}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":\"1\"}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":true}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":9223372036854775808}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":99999999999999999999999}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"number\":1e99}\n", "number" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"int\":2147483648}\n", "int" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"bool\":1}\n", "bool" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"list\":\"x\"}\n", "list" },
		{ "{\"op\":\"echo\",\"text\":\"x\",\"list\":[\"x\",1]}\n", "list" },
		{ "{\"op\":\"no\"}\n", "no: never? (ask \"another\")" },
		{ "{\"op\":\"no\",\"text\":\"x\"}\n", "text" },
	};
	/* clang-format on */
	struct json_object *obj;
	char *line;
	unsigned int i;
	int fd;

	(void)state;
	runs = 0;
	assert_int_equal(control_start(tables), 0);
	fd = connect_control();
	assert_true(fd >= 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		say(fd, bad[i].line);
		hear_error(fd, bad[i].word);
	}
	say_bytes(fd, "{\"op\":\"echo\",\"text\":\"x\"}\0\n", 26);
	hear_error(fd, "not JSON");
	assert_int_equal(so_many(&runs), 0);

	/* After all that the connection is as good as new; several lines at once are several. */
	say(fd,
	    "{\"op\":\"echo\",\"text\":\"\xc3\xa4\\n\",\"number\":9223372036854775807,\"int\":-5,"
	    "\"bool\":false,\"list\":[\"a\",\"b\"]}\n \t{ \"text\" : \"2\", \"op\" : \"echo\" } \r\n{\"op\":");
	obj = hear(fd);
	assert_string_equal(json_object_get_string(member(obj, "text")), "\xc3\xa4?");
	assert_true(json_object_get_uint64(member(obj, "number")) == INT64_MAX);
	json_object_put(obj);
	obj = hear(fd);
	assert_string_equal(json_object_get_string(member(obj, "text")), "2");
	assert_int_equal(json_object_get_int(member(obj, "number")), 7);
	json_object_put(obj);
	say(fd, "\"echo\",\"text\":\"x\"}\n");
	hear_ok(fd);

	/* The longest line there may be, and one byte more; the rest of it is no request. */
	line = malloc(3 * CONTROL_LINE);
	memset(line, ' ', 3 * CONTROL_LINE);
	memcpy(line, "{\"op\":\"echo\",\"text\":\"x\"}", 24);
	line[CONTROL_LINE - 1] = '\n';
	say_bytes(fd, line, CONTROL_LINE);
	hear_ok(fd);
	line[CONTROL_LINE - 1] = ' ';
	line[3 * CONTROL_LINE - 1] = '\n';
	say_bytes(fd, line, 3 * CONTROL_LINE);
	hear_error(fd, "longer than 64 KiB");
	say(fd, "{\"op\":\"echo\",\"text\":\"x\"}\n");
	hear_ok(fd);
	free(line);

	/* A line that was cut off is none, even where it is JSON. */
	say(fd, "{\"op\":\"echo\",\"text\":\"x\"}\n{\"op\":\"echo\",\"text\":\"x\"}");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	hear_ok(fd);
	hear_error(fd, "cut off");
	assert_null(hear(fd));
	close(fd);
	assert_int_equal(so_many(&runs), 6);
	control_stop();
}

static void test_stalls(void **state)
{
	int idle[400], fd, i;

	(void)state;
	assert_int_equal(control_start(tables), 0);
	/* Those who ask for much and read nothing, who send half a line, who send nothing. */
	for (i = 0; i < 400; i++) {
		idle[i] = connect_control();
		assert_true(idle[i] >= 0);
		if (i % 40 == 0)
			say(idle[i], "{\"op\":\"large\"}\n{\"op\":\"large\"}\n");
		else if (i % 3 == 0)
			say(idle[i], "{\"op\":\"ec");
	}
	fd = connect_control();
	say(fd, "{\"op\":\"echo\",\"text\":\"x\"}\n");
	hear_ok(fd);
	/* The oldest had to go; who was late has everything. */
	assert_null(hear(idle[1]));
	say(idle[399], "ho\",\"text\":\"x\"}\n");
	hear_ok(idle[399]);
	hear_ok(idle[360]);
	hear_ok(idle[360]);
	for (i = 0; i < 400; i++)
		close(idle[i]);
	say(fd, "{\"op\":\"echo\",\"text\":\"x\"}\n");
	hear_ok(fd);
	close(fd);
	control_stop();
}

static void test_slow(void **state)
{
	int fd[3], other, progress = 0;
	struct json_object *obj, *value;

	(void)state;
	begun = ended = cancelled = 0;
	assert_int_equal(control_start(tables), 0);
	for (int i = 0; i < 3; i++)
		fd[i] = connect_control();
	other = connect_control();

	/* Meanwhile others are served, and so is the next line on the same connection after it. */
	say(fd[0], "{\"op\":\"slow\",\"ms\":500}\n{\"op\":\"echo\",\"text\":\"x\"}\n");
	say(other, "{\"op\":\"echo\",\"text\":\"x\"}\n");
	hear_ok(other);
	assert_int_equal(so_many(&ended), 0);
	for (;;) {
		obj = hear(fd[0]);
		if (!json_object_object_get_ex(obj, "progress", &value))
			break;
		assert_int_equal(json_object_get_int(member(value, "total")), 500);
		progress++;
		json_object_put(obj);
	}
	assert_true(json_object_get_boolean(member(obj, "ok")));
	json_object_put(obj);
	assert_int_equal(so_many(&ended), 1);
	assert_in_range(progress, 1, 20);
	hear_ok(fd[0]);

	/* Who leaves gives up, under way and waiting; who half closes does not. */
	say(fd[0], "{\"op\":\"slow\",\"ms\":1000000}\n");
	assert_true(counted(&begun, 2));
	say(fd[1], "{\"op\":\"slow\",\"ms\":1000000}\n");
	say(fd[2], "{\"op\":\"slow\",\"ms\":1}\n");
	assert_int_equal(shutdown(fd[2], SHUT_WR), 0);
	usleep(20000);
	close(fd[1]);
	close(fd[0]);
	hear_ok(fd[2]);
	assert_null(hear(fd[2]));
	assert_int_equal(so_many(&cancelled), 1);
	assert_int_equal(so_many(&ended), 2);
	close(fd[2]);

	/* Closed down in the middle. */
	fd[0] = connect_control();
	fd[1] = connect_control();
	say(fd[0], "{\"op\":\"slow\",\"ms\":1000000}\n");
	say(fd[1], "{\"op\":\"slow\",\"ms\":1000000}\n");
	assert_true(counted(&begun, 4));
	control_stop();
	close(fd[0]);
	close(fd[1]);
	close(other);
	assert_int_equal(so_many(&cancelled), 2);
}

static void test_close(void **state)
{
	struct json_object *obj;
	int fd;

	(void)state;
	assert_int_equal(control_start(tables), 0);
	fd = connect_control();
	say(fd, "{\"op\":\"stay\"}\n");
	obj = hear(fd);
	assert_int_equal(json_object_get_int(member(obj, "pid")), getpid());
	json_object_put(obj);
	say(fd, "{\"op\":\"stay\"}\n");
	hear_error(fd, "already");
	assert_int_equal(so_many(&closed), 0);
	close(fd);
	assert_true(counted(&closed, 1));
	fd = connect_control();
	say(fd, "{\"op\":\"stay\"}\n");
	hear_ok(fd);
	control_stop();
	assert_int_equal(so_many(&closed), 2);
	close(fd);

	/* Stopped while clients are connected; no name is left.  Stopping twice is once. */
	assert_int_equal(connect_control(), -ENOENT);
	control_stop();
}

/* A directory that others can enter or that is not a directory is refused. */
static void test_control_dir(void **state)
{
	char dir[] = "/tmp/vswap-test-XXXXXX", link[64];
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(control_check_dir(dir), 0);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(control_check_dir(dir), -EPERM);
	assert_int_equal(chmod(dir, 0700), 0);
	snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(symlink("/", link), 0);
	assert_int_equal(control_check_dir(link), -EPERM);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(control_check_dir(link), -ENOENT);
	assert_int_equal(rmdir(dir), 0);

	/* The socket itself is its owner's alone, too. */
	assert_int_equal(control_start(tables), 0);
	assert_int_equal(control_dir(dir, sizeof(dir)), 0);
	snprintf(link, sizeof(link), "%s/%ld", dir, (long)getpid());
	assert_int_equal(stat(link, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	control_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),    cmocka_unit_test(test_stalls),
		cmocka_unit_test(test_slow),	    cmocka_unit_test(test_close),
		cmocka_unit_test(test_control_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
