/* SPDX-License-Identifier: MIT */
/* A program in small that the tests of the QMP server speak to; one for each test program. */
#ifndef QMP_HELPERS_H
#define QMP_HELPERS_H

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qmp/server.h"

static struct qmp_request *deferred; /* by "later", until completed */
static unsigned int calls;           /* of any handler below */
static char mark;                    /* its address is the opaque */

static enum qmp_outcome cmd_echo(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	struct json_object *val = NULL;

	(void)err;
	calls++;
	assert_ptr_equal(qmp_request_opaque(req), &mark);
	assert_non_null(qmp_request_conn(req));
	*result = json_object_new_array();
	if (json_object_object_get_ex(args, "value", &val))
		json_object_array_add(*result, json_object_get(val));
	return QMP_DONE;
}

static enum qmp_outcome cmd_fail(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	struct json_object *val = NULL;

	(void)req;
	calls++;
	*result = json_object_new_object(); /* must be dropped */
	if (json_object_object_get_ex(args, "why", &val))
		qmp_error_set(err, QMP_DEVICE_NOT_ACTIVE, "%s", json_object_get_string(val));
	return QMP_FAILED;
}

static enum qmp_outcome cmd_null(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)result;
	(void)err;
	calls++;
	return QMP_DONE;
}

static enum qmp_outcome cmd_later(struct qmp_request *req, struct json_object *args,
				  struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	calls++;
	assert_null(deferred);
	deferred = req;
	return QMP_DEFERRED;
}

static enum qmp_outcome cmd_sooner(struct qmp_request *req, struct json_object *args,
				   struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	calls++;
	qmp_request_complete(req, json_object_new_string("sooner"), NULL);
	return QMP_DEFERRED;
}

static enum qmp_outcome cmd_big(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	char text[40000];

	(void)req;
	(void)args;
	(void)err;
	calls++;
	memset(text, 'x', sizeof(text));
	*result = json_object_new_string_len(text, (int)sizeof(text));
	return QMP_DONE;
}

static const struct qmp_type any_list = QMP_ARRAY(&qmp_any);

static const struct qmp_command commands[] = {
	{.name = "echo",
	 .args = QMP_ARGS(QMP_OPTIONAL("value", &qmp_any, "comes back")),
	 .returns = &any_list,
	 .handler = cmd_echo,
	 .doc = "Give back what came."},
	{.name = "size",
	 .args = QMP_ARGS(QMP_MEMBER("value", &qmp_size, "comes back")),
	 .returns = &any_list,
	 .handler = cmd_echo,
	 .doc = "Give back a size."},
	{.name = "fail",
	 .args = QMP_ARGS(QMP_OPTIONAL("why", &qmp_str, "the reason")),
	 .returns = &qmp_any,
	 .handler = cmd_fail,
	 .doc = "Fail."},
	{.name = "nothing", .handler = cmd_null, .doc = "Return nothing."},
	{.name = "lost", .returns = &qmp_str, .handler = cmd_null, .doc = "Forget the result."},
	{.name = "later", .returns = &qmp_str, .handler = cmd_later, .doc = "Answer later."},
	{.name = "sooner", .returns = &qmp_str, .handler = cmd_sooner, .doc = "Answer at once."},
	{.name = "big", .returns = &qmp_str, .handler = cmd_big, .doc = "Return much."},
};

enum { EVENT_CHANGE, EVENT_PLAIN, EVENT_COUNT };
static const struct qmp_event events[] = {
	[EVENT_CHANGE] = {.name = "CHANGE",
			  .data = QMP_ARGS(QMP_MEMBER("actual", &qmp_size, "the value")),
			  .doc = "It changed."},
	[EVENT_PLAIN] = {.name = "PLAIN", .doc = "It happened."},
};
static const struct qmp_schema schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
static const struct qmp_version version = {1, 2, 3, "test 1.2.3"};

static struct qmp_server server;

static int setup(void **state)
{
	(void)state;
	calls = 0;
	deferred = NULL;
	qmp_server_init(&server, &schema, &version, &mark);
	return 0;
}

/* Takes what waits, as written at once. */
static void take(struct qmp_conn *conn, struct qmp_buf *out)
{
	size_t len;
	char *data;

	while ((data = qmp_conn_take_output(conn, &len))) {
		qmp_buf_append(out, data, len);
		free(data);
		qmp_conn_written(conn, len);
	}
}

static void expect(struct qmp_conn *conn, const char *expected)
{
	struct qmp_buf out = {0};

	take(conn, &out);
	qmp_buf_append(&out, "", 1);
	assert_string_equal(out.data, expected);
	qmp_buf_free(&out);
}

static void feed(struct qmp_conn *conn, const char *text)
{
	assert_int_equal(qmp_conn_feed(conn, text, strlen(text)), 0);
}

#define GREETING                                                                          \
	"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 1, \"minor\": 2, \"micro\": 3}, " \
	"\"package\": \"test 1.2.3\"}, \"capabilities\": []}}\r\n"
#define NEGOTIATE          "{\"execute\": \"qmp_capabilities\"}"
#define OK                 "{\"return\": {}}\r\n"
#define ERROR(class, desc) "{\"error\": {\"class\": \"" class "\", \"desc\": \"" desc "\"}}\r\n"
#define ERROR_ID(class, desc, id) \
	"{\"error\": {\"class\": \"" class "\", \"desc\": \"" desc "\"}, \"id\": " id "}\r\n"
#define GENERIC(desc)   ERROR("GenericError", desc)
#define NOT_FOUND(desc) ERROR("CommandNotFound", desc)
#define EXPECTING       "Expecting capabilities negotiation with 'qmp_capabilities'"

static struct qmp_conn *connect_raw(void)
{
	struct qmp_conn *conn = qmp_conn_new(&server);

	assert_non_null(conn);
	expect(conn, GREETING);
	assert_true(qmp_conn_wants_input(conn));
	return conn;
}

static struct qmp_conn *connect_open(void)
{
	struct qmp_conn *conn = connect_raw();

	feed(conn, NEGOTIATE);
	expect(conn, OK);
	return conn;
}

#endif
