// SPDX-License-Identifier: MIT
/* A monitor's other end over a real socket: when it comes, what it sends, and closing it anywhere.
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "common/qmp_link.h"
#include "qmp_told_helpers.h"

#define SOON_MS 50    /* for what is to time out */
#define LONG_MS 60000 /* for what is not */

static struct {
	uv_loop_t loop;
	char dir[32], path[64];
	int listener;
	int peer; /* -1: none */
	struct qmp_link *link;
	bool counting; /* events, instead of telling them */
	int events;
	const char *close_in; /* the word told at which the owner closes the link; NULL: none */
} t;

static void forget(void)
{
	told_len = 0;
	told[0] = '\0';
}

/* --- the owner ------------------------------------------------------------------------------- */

static void close_link(void)
{
	qmp_link_close(t.link);
	t.link = NULL;
}

static void maybe_close(const char *where)
{
	if (t.close_in && strcmp(t.close_in, where) == 0)
		close_link();
}

static void ready_here(void *opaque, struct json_object *greeting)
{
	on_ready(opaque, greeting);
	maybe_close("ready");
}

static void event_here(void *opaque, const struct qmp_client_event *event)
{
	t.events++;
	if (!t.counting)
		on_event(opaque, event);
	maybe_close("event");
}

static void lost_here(void *opaque, int error, const char *why)
{
	on_lost(opaque, error, why);
	maybe_close("lost");
}

static void answer_here(void *opaque, const struct qmp_answer *answer)
{
	on_answer(opaque, answer);
	maybe_close("answer");
}

static const struct qmp_client_ops our_ops = {ready_here, event_here, lost_here};

static void connect_to(const char *path, uint64_t timeout_ms)
{
	t.link = qmp_link_connect(&t.loop, path, timeout_ms, NULL, &our_ops, &mark);
	assert_non_null(t.link);
	expect_told(""); /* never from within that call */
}

static int execute(struct json_object *args, uint64_t timeout_ms)
{
	static char name[] = "ask";

	return qmp_link_execute(t.link, "query-status", args, timeout_ms, answer_here, name);
}

/* --- the monitor ----------------------------------------------------------------------------- */

static void answer_call(void)
{
	t.peer = accept4(t.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_return_code(t.peer, errno);
}

static void hang_up(void)
{
	close(t.peer);
	t.peer = -1;
}

static void say(const char *text)
{
	ssize_t n = send(t.peer, text, strlen(text), MSG_NOSIGNAL);

	assert_int_equal(n, strlen(text));
}

/* Lets the loop run until something was told since the last time. */
static void run_until_told(void)
{
	while (told_len == 0)
		assert_true(uv_run(&t.loop, UV_RUN_ONCE) || told_len > 0);
}

/* What is told is @expected, and nothing more comes however long the loop runs. */
static void expect_last(const char *expected)
{
	run_until_told();
	uv_run(&t.loop, UV_RUN_DEFAULT);
	expect_told(expected);
}

/* Reads @len bytes of what the link sends, or until it hangs up. How many came. */
static size_t hear(char *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = recv(t.peer, buf + got, len - got, 0);

		if (n == 0)
			break;
		if (n > 0)
			got += (size_t)n;
		else
			assert_int_equal(errno, EAGAIN);
		uv_run(&t.loop, UV_RUN_NOWAIT);
	}
	return got;
}

static void expect_heard(const char *expected)
{
	char buf[256] = "";
	size_t len = strlen(expected);

	assert_in_range(len, 1, sizeof(buf) - 1);
	assert_int_equal(hear(buf, len), len);
	assert_string_equal(buf, expected);
}

static void become_ready(void)
{
	connect_to(t.path, LONG_MS);
	answer_call();
	say(GREETING);
	expect_heard(NEGOTIATE);
	say(NEGOTIATED);
	run_until_told();
	expect_told("ready 11;");
}

/* --- tests ----------------------------------------------------------------------------------- */

static int setup(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)state;
	forget();
	t.link = NULL;
	t.close_in = NULL;
	t.counting = false;
	t.events = 0;
	t.peer = -1;
	strcpy(t.dir, "/tmp/qmp-link-XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.path, sizeof(t.path), "%s/qmp", t.dir);
	strcpy(addr.sun_path, t.path);
	t.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_return_code(t.listener, errno);
	assert_return_code(bind(t.listener, (struct sockaddr *)&addr, sizeof(addr)), errno);
	assert_return_code(listen(t.listener, 1), errno);
	return uv_loop_init(&t.loop);
}

/* However a test ended: what was asked is answered, the loop frees all, and nobody hears more. */
static int teardown(void **state)
{
	(void)state;
	forget();
	t.close_in = NULL;
	if (t.link) {
		bool pending = execute(json_object_new_object(), LONG_MS) == 0;

		close_link();
		expect_told(pending ? "ask lost;" : "");
	}
	uv_run(&t.loop, UV_RUN_DEFAULT);
	assert_int_equal(told_len, 0);
	assert_int_equal(uv_loop_close(&t.loop), 0);
	if (t.peer >= 0)
		close(t.peer);
	close(t.listener);
	unlink(t.path);
	return rmdir(t.dir);
}

static void question_and_answer(void **state)
{
	(void)state;
	become_ready();
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	expect_heard("{\"execute\": \"query-status\", \"id\": 1}\r\n");
	say("{\"return\": {}, \"id\": 1}\r\n{\"event\": \"STOP\"}\r\n");
	run_until_told();
	expect_told("ask return {};event STOP null -1.000000;");
}

static void nobody_there(void **state)
{
	(void)state;
	unlink(t.path);
	connect_to(t.path, LONG_MS);
	run_until_told();
	expect_told("lost -2 No such file or directory;");
}

/* Nothing that is called like the beginning of it is connected to instead. */
static void path_too_long(void **state)
{
	char path[128];

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	connect_to(path, LONG_MS);
	run_until_told();
	expect_told("lost -36 File name too long;");
}

static void no_greeting(void **state)
{
	(void)state;
	connect_to(t.path, SOON_MS);
	run_until_told();
	assert_non_null(strstr(told, "lost -110 "));
}

static void no_answer(void **state)
{
	(void)state;
	become_ready();
	assert_int_equal(execute(json_object_new_object(), SOON_MS), 0);
	run_until_told();
	expect_told("ask timeout;");
	/* The monitor is slow, not gone. */
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	say("{\"return\": {}, \"id\": 1}\r\n{\"return\": {}, \"id\": 2}\r\n");
	run_until_told();
	expect_told("ask return {};");
}

static void hangs_up(void **state)
{
	(void)state;
	become_ready();
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	hang_up();
	run_until_told();
	expect_told("ask lost;lost -104 the monitor hung up;");
	assert_int_equal(execute(json_object_new_object(), LONG_MS), -ENOTCONN);
}

static void speaks_nonsense(void **state)
{
	(void)state;
	become_ready();
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	say("}");
	run_until_told();
	assert_non_null(strstr(told, "ask lost;lost -71 "));
	forget();
	/* It is not read from any more: soon it cannot say more. */
	for (int i = 0; send(t.peer, GREETING, strlen(GREETING), MSG_NOSIGNAL) >= 0; i++) {
		assert_in_range(i, 0, 10000);
		uv_run(&t.loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(told_len, 0);
}

/* More than may wait in the client waits in the socket. */
static void many_events(void **state)
{
	enum { EVENTS = 40000 };
	static const char event[] = "{\"event\": \"E\"}\r\n";
	static char text[EVENTS * sizeof(event)];
	size_t len = 0, sent = 0;

	(void)state;
	become_ready();
	for (int i = 0; i < EVENTS; i++)
		len += (size_t)sprintf(text + len, "%s", event);
	assert_true(len > QMP_CLIENT_PARKED_MAX + 212992); /* and Linux's socket buffer */
	t.counting = true;
	while (sent < len) {
		ssize_t n = send(t.peer, text + sent, len - sent, MSG_NOSIGNAL);

		sent += n > 0 ? (size_t)n : 0;
		uv_run(&t.loop, UV_RUN_NOWAIT);
		expect_told("");
	}
	while (t.events < EVENTS && told_len == 0)
		uv_run(&t.loop, UV_RUN_ONCE);
	expect_told("");
	assert_int_equal(t.events, EVENTS);
}

/*
 * Asks with much text, more than one buffer of a socket holds, until no more is taken. Writes what
 * is to come out of it to @expected, which has room for @room bytes. How many were taken.
 */
static int ask_until_full(int first_id, char *expected, size_t room)
{
	static char text[50001];
	size_t len = 0;
	int taken = 0, r = 0;

	while (r == 0) {
		struct json_object *args = json_object_new_object();

		memset(text, 'a' + taken % 26, sizeof(text) - 1);
		json_object_object_add(args, "text", json_object_new_string(text));
		r = execute(args, LONG_MS);
		uv_run(&t.loop, UV_RUN_NOWAIT);
		if (r < 0)
			break;
		len += (size_t)snprintf(expected + len, room - len,
					"{\"execute\": \"query-status\", \"arguments\": "
					"{\"text\": \"%s\"}, \"id\": %d}\r\n",
					text, first_id + taken++);
		assert_in_range(len, 1, room - 1);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_true(taken > 1);
	return taken;
}

/* What the socket does not take waits, is sent in order when there is room, and is bounded. */
static void monitor_does_not_read(void **state)
{
	static char expected[1024 * 1024], heard[sizeof(expected)];
	int before = 0;

	(void)state;
	become_ready();
	for (int round = 0, id = 1; round < 3; round++) {
		int taken = ask_until_full(id, expected, sizeof(expected));
		size_t len = strlen(expected);

		assert_true(taken == before || round == 0);
		before = taken;
		assert_int_equal(hear(heard, len), len);
		assert_memory_equal(heard, expected, len);
		for (; taken > 0; taken--) {
			char answer[64];

			snprintf(answer, sizeof(answer), "{\"return\": {}, \"id\": %d}\r\n", id++);
			say(answer);
			run_until_told();
			expect_told("ask return {};");
		}
	}
}

/* A write is under way when it is closed, or when the monitor goes. */
static void closed_while_it_writes(void **state)
{
	static char expected[1024 * 1024];

	(void)state;
	become_ready();
	ask_until_full(1, expected, sizeof(expected));
	close_link();
	assert_true(told_len > 0);
	for (const char *p = told; *p; p += strlen("ask lost;"))
		assert_true(strncmp(p, "ask lost;", strlen("ask lost;")) == 0);
}

static void gone_while_it_writes(void **state)
{
	static char expected[1024 * 1024];

	(void)state;
	become_ready();
	ask_until_full(1, expected, sizeof(expected));
	hang_up();
	while (!strstr(told, ";lost -"))
		assert_true(uv_run(&t.loop, UV_RUN_ONCE) || strstr(told, ";lost -"));
}

static void closed_at_once(void **state)
{
	(void)state;
	connect_to(t.path, LONG_MS);
	close_link();
	uv_run(&t.loop, UV_RUN_DEFAULT);
	expect_told("");
	qmp_link_close(NULL);
}

/* The owner closes it from whatever he is told; nothing is told after that but what it owes. */
static void closed_from_ready(void **state)
{
	(void)state;
	t.close_in = "ready";
	connect_to(t.path, LONG_MS);
	answer_call();
	say(GREETING);
	expect_heard(NEGOTIATE);
	say(NEGOTIATED "{\"event\": \"STOP\"}\r\n");
	expect_last("ready 11;");
}

static void closed_from_event(void **state)
{
	(void)state;
	become_ready();
	t.close_in = "event";
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	say("{\"event\": \"STOP\"}\r\n{\"event\": \"RESUME\"}\r\n{\"return\": {}, \"id\": 1}\r\n");
	expect_last("event STOP null -1.000000;ask lost;");
}

static void closed_from_answer(void **state)
{
	(void)state;
	become_ready();
	t.close_in = "answer";
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	assert_int_equal(execute(json_object_new_object(), LONG_MS), 0);
	say("{\"return\": {}, \"id\": 1}\r\n{\"return\": {}, \"id\": 2}\r\n");
	expect_last("ask return {};ask lost;");
}

static void closed_from_timeout(void **state)
{
	(void)state;
	become_ready();
	t.close_in = "answer";
	assert_int_equal(execute(json_object_new_object(), SOON_MS), 0);
	expect_last("ask timeout;");
}

static void closed_from_lost(void **state)
{
	(void)state;
	become_ready();
	t.close_in = "lost";
	hang_up();
	expect_last("lost -104 the monitor hung up;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(question_and_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_there, setup, teardown),
		cmocka_unit_test_setup_teardown(path_too_long, setup, teardown),
		cmocka_unit_test_setup_teardown(no_greeting, setup, teardown),
		cmocka_unit_test_setup_teardown(no_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(hangs_up, setup, teardown),
		cmocka_unit_test_setup_teardown(speaks_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(many_events, setup, teardown),
		cmocka_unit_test_setup_teardown(monitor_does_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_while_it_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(gone_while_it_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_from_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_from_event, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_from_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_from_timeout, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_from_lost, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN); /* as programs with sockets of libuv do */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
