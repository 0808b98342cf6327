// SPDX-License-Identifier: MIT
/*
 * Every allocation fails once: the client gets whole lines of JSON, one reply for each command in
 * their order, or the connection says that it must be closed. Never a crash, a leak, or half a
 * reply. The allocator of this program is the real one but for the one call that fails.
 */
#define ALLOC_STRDUP_WORKS
#include "alloc_helpers.h"

#include <string.h>

#include "qmp/human.h"
#include "qmp/server.h"

static struct qmp_request *deferred;

static enum qmp_outcome cmd_object(struct qmp_request *req, struct json_object *args,
				   struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)err;
	*result = json_object_new_object();
	qmp_obj_add(result, "a", json_object_new_int64(1));
	qmp_obj_add(result, "b", json_object_new_string("text"));
	return QMP_DONE;
}

static enum qmp_outcome cmd_later(struct qmp_request *req, struct json_object *args,
				  struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	deferred = req;
	return QMP_DEFERRED;
}

static enum qmp_outcome human_say(struct qmp_request *req, size_t argc, char *const *argv,
				  struct qmp_buf *text, struct qmp_error *err)
{
	(void)req;
	(void)argc;
	(void)err;
	for (size_t i = 0; i < 100; i++)
		qmp_buf_printf(text, "%s\n", argv[0]);
	return QMP_DONE;
}

static const struct qmp_human_command humans[] = {
	{.name = "say",
	 .args = "word",
	 .help = "say it",
	 .min_args = 1,
	 .max_args = 1,
	 .handler = human_say},
};

static enum qmp_outcome cmd_human(struct qmp_request *req, struct json_object *args,
				  struct json_object **result, struct qmp_error *err)
{
	return qmp_human_run(humans, 1, req, args, result, err);
}

static const struct qmp_type reply_type =
	QMP_OBJECT(QMP_MEMBER("a", &qmp_int, "a"), QMP_MEMBER("b", &qmp_str, "b"));
static const struct qmp_command commands[] = {
	{.name = "object", .returns = &reply_type, .handler = cmd_object, .doc = "x"},
	{.name = "later", .handler = cmd_later, .doc = "x"},
	{.name = "hmp",
	 .args = &qmp_human_args,
	 .returns = &qmp_str,
	 .handler = cmd_human,
	 .doc = "x"},
};
static const struct qmp_event events[] = {
	{.name = "TICK", .data = &reply_type, .doc = "x"},
};
static const struct qmp_schema schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
static const struct qmp_version version = {1, 2, 3, "test"};

static const char *const sent[] = {
	"{\"execute\": \"qmp_capabilities\", \"id\": 0}",
	"{\"execute\": \"object\", \"id\": 1}",
	"{\"execute\": \"object\", \"arguments\": {}, \"id\": 2}",
	"{\"execute\": \"object\", \"arguments\": {\"x\": [1, 2.5, \"y\"]}, \"id\": 3}",
	"{\"execute\": \"query-qmp-schema\", \"id\": 4}",
	"{\"execute\": \"query-commands\", \"id\": 5}",
	"{\"execute\": \"query-version\", \"id\": 6}",
	"{\"execute\": \"later\", \"id\": 7}",
	"{\"id\": 8, \"execute\": \"hmp\", \"arguments\": {\"command-line\": \"say x\"}}",
	"{\"execute\": \"nope\", \"id\": 9}",
};
#define SENT (sizeof(sent) / sizeof(sent[0]))

/* Everything a client got; not through the allocator that fails. */
static char got[128 * 1024];
static size_t got_len;

static void take(struct qmp_conn *conn)
{
	size_t len;
	char *data;

	while ((data = qmp_conn_take_output(conn, &len))) {
		assert_true(got_len + len < sizeof(got));
		memcpy(got + got_len, data, len);
		got_len += len;
		free(data);
		qmp_conn_written(conn, len);
	}
}

/* One client from start to end with the @nth allocation failing; whether that came to be. */
static bool run(unsigned long nth, bool *closed)
{
	struct qmp_server server;
	struct qmp_conn *conn;
	struct json_object *data;
	bool failed;

	got_len = 0;
	deferred = NULL;
	qmp_server_init(&server, &schema, &version, NULL);
	alloc_fail_at(nth);
	conn = qmp_conn_new(&server);
	for (size_t i = 0; conn && i < SENT && !qmp_conn_failed(conn); i++) {
		qmp_conn_feed(conn, sent[i], strlen(sent[i]));
		data = NULL;
		cmd_object(NULL, NULL, &data, NULL);
		qmp_server_event(&server, 0, data, 1, 2);
		if (deferred)
			qmp_request_complete(deferred, NULL, NULL);
		deferred = NULL;
		take(conn);
	}
	*closed = !conn || qmp_conn_failed(conn);
	qmp_conn_free(conn);
	failed = alloc_failed();
	alloc_fail_at(0);
	return failed;
}

/* Checks what was got: lines of JSON, replies in order. Returns how many replies there were. */
static size_t check_lines(void)
{
	size_t replies = 0;

	got[got_len] = '\0';
	for (char *line = got, *end; *line; line = end + 2) {
		struct json_object *msg, *val;

		end = strstr(line, "\r\n");
		assert_non_null(end);
		*end = '\0';
		msg = json_tokener_parse(line);
		assert_true(json_object_is_type(msg, json_type_object));
		if (json_object_object_get_ex(msg, "event", &val)) {
			assert_true(json_object_object_get_ex(msg, "data", &val));
			assert_int_equal(
				qmp_type_check(&reply_type, val, NULL, &(struct qmp_error){0}), 0);
		} else if (!json_object_object_get_ex(msg, "QMP", &val)) {
			/* a message that could not be parsed for want of memory has no id */
			if (json_object_object_get_ex(msg, "id", &val))
				assert_int_equal(json_object_get_int(val), replies);
			else
				assert_true(json_object_object_get_ex(msg, "error", &val));
			replies++;
		}
		json_object_put(msg);
	}
	return replies;
}

static void test_each_allocation(void **state)
{
	unsigned long nth = 0;
	bool closed;

	(void)state;
	run(0, &closed);
	assert_false(closed);
	assert_int_equal(check_lines(), SENT);
	while (run(++nth, &closed)) {
		size_t replies = check_lines();

		if (!closed)
			assert_int_equal(replies, SENT);
	}
	/* that was the run in which none failed any more */
	assert_false(closed);
	assert_true(nth > 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
