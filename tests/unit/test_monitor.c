// SPDX-License-Identifier: MIT
/* A monitor's clients over real sockets: what one of them causes reaches the others at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/monitor.h"
#include "qmp/json.h"

#define CLIENTS 3

static struct {
	uv_loop_t loop;
	struct monitor monitor;
	struct monitor_record records[CLIENTS];
	int peer[CLIENTS]; /* the other ends */
	uint32_t serial;
	unsigned int gone;
	struct qmp_request *waiting;
} t;

/* --- a small program -------------------------------------------------------------------------- */

/* Its answer is more than may wait: what stands behind this command is handled after it is sent. */
static enum qmp_outcome cmd_big(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	static char text[QMP_OUTPUT_HIGH + 1];

	(void)req;
	(void)args;
	(void)err;
	memset(text, 'x', sizeof(text) - 1);
	*result = json_object_new_string(text);
	return QMP_DONE;
}

static enum qmp_outcome cmd_tell(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)result;
	(void)err;
	monitor_event(&t.monitor, 0, NULL, (struct instant){0});
	return QMP_DONE;
}

static enum qmp_outcome cmd_wait(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	t.waiting = req;
	return QMP_DEFERRED;
}

static enum qmp_outcome cmd_wake(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)result;
	(void)err;
	monitor_complete(&t.monitor, t.waiting, NULL, NULL);
	t.waiting = NULL;
	return QMP_DONE;
}

static const struct qmp_command commands[] = {
	{.name = "big", .returns = &qmp_str, .handler = cmd_big, .doc = "Much."},
	{.name = "tell", .handler = cmd_tell, .doc = "To all."},
	{.name = "wait", .handler = cmd_wait, .doc = "For wake."},
	{.name = "wake", .handler = cmd_wake, .doc = "Who waits."},
};
static const struct qmp_event events[] = {{"TOLD", NULL, "By tell."}};
static const struct qmp_schema schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};

static void on_telling(void *opaque)
{
	(void)opaque;
}

static void on_gone(void *opaque, const struct monitor_name *client)
{
	(void)opaque;
	t.records[client->id].serial = 0;
	t.gone++;
}

static const struct monitor_ops ops = {on_telling, on_gone};

/* --- its clients ------------------------------------------------------------------------------ */

/* All that can be done without anything else happening. */
static void run(void)
{
	for (int i = 0; i < 20; i++)
		uv_run(&t.loop, UV_RUN_NOWAIT);
}

static void say(uint32_t id, const char *text)
{
	assert_int_equal(send(t.peer[id], text, strlen(text), 0), strlen(text));
}

/* What has come, without waiting for more. */
static const char *heard(uint32_t id)
{
	static char text[4 * QMP_OUTPUT_HIGH];
	size_t len = 0;
	ssize_t n;

	while ((n = recv(t.peer[id], text + len, sizeof(text) - 1 - len, MSG_DONTWAIT)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return text;
}

/* One that has negotiated. The last one comes first where all are looked after. */
static void add_client(uint32_t id)
{
	const struct monitor_name name = {.id = id, .serial = ++t.serial};
	int fds[2], room = 1 << 20;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	/* So that whatever is to be sent goes at once. */
	assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	t.peer[id] = fds[1];
	monitor_add_client(&t.monitor, &name, fds[0]);
	say(id, "{\"execute\": \"qmp_capabilities\"}");
	run();
	assert_non_null(strstr(heard(id), "return"));
}

static int setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	if (uv_loop_init(&t.loop))
		return -1;
	monitor_start(&t.monitor, &t.loop, &schema, t.records, &ops, NULL);
	for (uint32_t i = 0; i < CLIENTS; i++)
		add_client(i);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	monitor_stop(&t.monitor);
	assert_int_equal(t.gone, CLIENTS);
	for (uint32_t i = 0; i < CLIENTS; i++)
		close(t.peer[i]);
	uv_run(&t.loop, UV_RUN_DEFAULT);
	return uv_loop_close(&t.loop);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void told_to_all(void **state)
{
	(void)state;
	say(1, "{\"execute\": \"tell\"}");
	run();
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_non_null(strstr(heard(i), "TOLD"));
	assert_false(monitor_busy(&t.monitor));
}

/* A command that had to wait until the answer before it was sent: nobody else waits for more. */
static void told_by_what_had_to_wait(void **state)
{
	(void)state;
	say(0, "{\"execute\": \"big\"}{\"execute\": \"tell\"}");
	run();
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_non_null(strstr(heard(i), "TOLD"));
	assert_false(monitor_busy(&t.monitor));
}

static void answered_by_what_had_to_wait(void **state)
{
	(void)state;
	say(2, "{\"execute\": \"wait\", \"id\": \"w\"}");
	run();
	assert_non_null(t.waiting);
	assert_string_equal(heard(2), "");
	say(0, "{\"execute\": \"big\"}{\"execute\": \"wake\"}");
	run();
	assert_non_null(strstr(heard(0), "{\"return\": {}}"));
	assert_non_null(strstr(heard(2), "\"id\": \"w\""));
	assert_false(monitor_busy(&t.monitor));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(told_to_all, setup, teardown),
		cmocka_unit_test_setup_teardown(told_by_what_had_to_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(answered_by_what_had_to_wait, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
