// SPDX-License-Identifier: MIT
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

#include "qmp/scan.h"
#include "qmp/server.h"

/* A program in small. */

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

/* A transcript: what is sent and what comes back. One connection each, negotiating at first. */
static const struct {
	const char *in;
	const char *out;
} negotiation[] = {
	{"{\"execute\": \"query-version\", \"id\": 7}",
	 ERROR_ID("CommandNotFound", EXPECTING, "7")},
	{"{\"execute\": \"no-such-cmd\"}", NOT_FOUND(EXPECTING)},
	{"{}", GENERIC("QMP input lacks member 'execute'")},
	{"{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"x\"]}}",
	 GENERIC("Parameter 'enable[0]' does not accept value 'x'")},
	{"{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}",
	 GENERIC("Capability oob not available")},
	{"{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": true}}",
	 GENERIC("Invalid parameter type for 'enable', expected: array")},
	{"{\"execute\": \"qmp_capabilities\", \"arguments\": {\"disable\": []}}",
	 GENERIC("Parameter 'disable' is unexpected")},
	/* none of these opened it */
	{"{\"execute\": \"nothing\"}", NOT_FOUND(EXPECTING)},
	{"{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}, \"id\": \"a\"}",
	 "{\"return\": {}, \"id\": \"a\"}\r\n"},
	{NEGOTIATE, NOT_FOUND("Capabilities negotiation is already complete, command ignored")},
	{"{\"execute\": \"nothing\"}", OK},
};

static void test_negotiation(void **state)
{
	struct qmp_conn *conn = connect_raw();

	(void)state;
	for (size_t i = 0; i < sizeof(negotiation) / sizeof(negotiation[0]); i++) {
		feed(conn, negotiation[i].in);
		expect(conn, negotiation[i].out);
	}
	qmp_conn_free(conn);
	assert_int_equal(calls, 1);
}

#define ECHO(value)     "{\"execute\": \"echo\", \"arguments\": {\"value\": " value "}}"
#define ECHOED(value)   "{\"return\": [" value "]}\r\n"
#define WITH_ID(id)     "{\"execute\": \"echo\", \"id\": " id "}"
#define RETURNED_ID(id) "{\"return\": [], \"id\": " id "}\r\n"
#define SAME_VALUE(value)                  \
	{                                  \
		ECHO(value), ECHOED(value) \
	}
#define SAME_ID(value)                             \
	{                                          \
		WITH_ID(value), RETURNED_ID(value) \
	}
#define PARSE_ERROR(text) GENERIC("JSON parse error, " text)

static const struct {
	const char *in;
	const char *out;
} messages[] = {
	/* the shape of a message */
	{"null ", GENERIC("QMP input must be a JSON object")},
	{"12 ", GENERIC("QMP input must be a JSON object")},
	{"[]", GENERIC("QMP input must be a JSON object")},
	{"\"execute\"", GENERIC("QMP input must be a JSON object")},
	{"{}", GENERIC("QMP input lacks member 'execute'")},
	{"{\"id\": 1}", ERROR_ID("GenericError", "QMP input lacks member 'execute'", "1")},
	{"{\"execute\": true}", GENERIC("QMP input member 'execute' must be a string")},
	{"{\"execute\": null, \"id\": 1}",
	 ERROR_ID("GenericError", "QMP input member 'execute' must be a string", "1")},
	{"{\"execute\": \"echo\", \"arguments\": []}",
	 GENERIC("QMP input member 'arguments' must be an object")},
	{"{\"execute\": \"echo\", \"arguments\": null}",
	 GENERIC("QMP input member 'arguments' must be an object")},
	{"{\"execute\": \"echo\", \"extra\": true, \"id\": {}}",
	 ERROR_ID("GenericError", "QMP input member 'extra' is unexpected", "{}")},
	{"{\"exec-oob\": \"echo\", \"id\": 3}",
	 ERROR_ID("GenericError", "QMP input member 'exec-oob' is unexpected", "3")},
	{"{\"execute\": \"echo\", \"exec-oob\": \"echo\"}",
	 GENERIC("QMP input member 'exec-oob' is unexpected")},
	{"{\"execute\": \"no-such-cmd\", \"id\": 1}",
	 ERROR_ID("CommandNotFound", "The command no-such-cmd has not been found", "1")},
	{"{\"execute\": \"\"}", NOT_FOUND("The command  has not been found")},
	{"{\"execute\": \"a\\nb\\\"\\u20ac\"}",
	 NOT_FOUND("The command a\\nb\\\"\\u20ac has not been found")},
	{"{\"arguments\": {}, \"id\": 1, \"execute\": \"nothing\"}",
	 "{\"return\": {}, \"id\": 1}\r\n"},
	/* id */
	SAME_ID("null"),
	SAME_ID("0"),
	SAME_ID("-1"),
	SAME_ID("18446744073709551615"),
	SAME_ID("1.5"),
	SAME_ID("\"\""),
	SAME_ID("\"\\ud83d\\ude00\""),
	SAME_ID("[1, [], {}]"),
	SAME_ID("{\"a\": {\"b\": [null]}}"),
	SAME_ID("true"),
	/* values */
	SAME_VALUE("18446744073709551615"),
	SAME_VALUE("-9223372036854775808"),
	SAME_VALUE("9223372036854775807"),
	SAME_VALUE("9223372036854775808"),
	SAME_VALUE("0.1"),
	SAME_VALUE("1e+300"),
	SAME_VALUE("-1e-300"),
	SAME_VALUE("null"),
	SAME_VALUE("\"\\\"\\\\/\\n\\r\\t\\u0001\\u007f\""),
	SAME_VALUE("false"),
	SAME_VALUE("[[]]"),
	{ECHO("-0"), ECHOED("0")},
	{ECHO("1.0"), ECHOED("1.0")},
	{ECHO("1E2"), ECHOED("100.0")},
	{ECHO("\"\xf0\x9f\x98\x80\""), ECHOED("\"\\ud83d\\ude00\"")},
	{ECHO("\"\\ud83d\\ude00\\u00e9\""), ECHOED("\"\\ud83d\\ude00\\u00e9\"")},
	{ECHO("1e400"), PARSE_ERROR("number '1e400' out of range")},
	{ECHO("18446744073709551616"), PARSE_ERROR("number '18446744073709551616' out of range")},
	{ECHO("-9223372036854775809"), PARSE_ERROR("number '-9223372036854775809' out of range")},
	{ECHO("\"\\ud800\""), PARSE_ERROR("\\\\ud800 is not a valid Unicode character")},
	{ECHO("\"\\u0000\""), PARSE_ERROR("\\\\u0000 is not a valid Unicode character")},
	{ECHO("\"\xc3(\""), PARSE_ERROR("invalid UTF-8 sequence in string")},
	/* arguments */
	{"{\"execute\": \"size\"}", GENERIC("Parameter 'value' is missing")},
	{"{\"execute\": \"size\", \"arguments\": {}}", GENERIC("Parameter 'value' is missing")},
	{"{\"execute\": \"size\", \"arguments\": {\"value\": -1}, \"id\": 5}",
	 ERROR_ID("GenericError", "Parameter 'value' expects uint64", "5")},
	{"{\"execute\": \"size\", \"arguments\": {\"value\": 18446744073709551615}}",
	 ECHOED("18446744073709551615")},
	{"{\"execute\": \"size\", \"arguments\": {\"value\": 1, \"unit\": \"K\"}}",
	 GENERIC("Parameter 'unit' is unexpected")},
	{"{\"execute\": \"nothing\", \"arguments\": {\"value\": 1}}",
	 GENERIC("Parameter 'value' is unexpected")},
	/* handlers */
	{"{\"execute\": \"fail\", \"arguments\": {\"why\": \"no\"}, \"id\": 1}",
	 ERROR_ID("DeviceNotActive", "no", "1")},
	{"{\"execute\": \"fail\"}", GENERIC("The command fail failed")},
	{"{\"execute\": \"lost\"}", GENERIC("Out of memory")},
	{"{\"execute\": \"sooner\", \"id\": 4}", "{\"return\": \"sooner\", \"id\": 4}\r\n"},
	{"{\"execute\": \"query-version\"}",
	 "{\"return\": {\"qemu\": {\"major\": 1, \"minor\": 2, \"micro\": 3}, "
	 "\"package\": \"test 1.2.3\"}}\r\n"},
	{"{\"execute\": \"query-commands\"}",
	 "{\"return\": [{\"name\": \"echo\"}, {\"name\": \"size\"}, {\"name\": \"fail\"}, "
	 "{\"name\": \"nothing\"}, {\"name\": \"lost\"}, {\"name\": \"later\"}, "
	 "{\"name\": \"sooner\"}, {\"name\": \"big\"}, {\"name\": \"qmp_capabilities\"}, "
	 "{\"name\": \"query-version\"}, {\"name\": \"query-commands\"}, "
	 "{\"name\": \"query-qmp-schema\"}]}\r\n"},
	/* equal keys, at any depth and in any spelling; equal keys of two objects are fine */
	{"{\"execute\": \"nothing\", \"execute\": \"nothing\"}", PARSE_ERROR("duplicate key")},
	{"{\"execute\": \"fail\", \"\\u0065xecute\": \"nothing\"}", PARSE_ERROR("duplicate key")},
	{ECHO("[{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2}}]"), PARSE_ERROR("duplicate key")},
	{ECHO("[{\"\": 1, \"\": 2}]"), PARSE_ERROR("duplicate key")},
	SAME_VALUE("{\"a\": {\"a\": [{\"a\": \"a:a\"}, {\"a\": 1}]}}"),
	/* grammar, which is json-c's part */
	{"{\"a\" 1}", PARSE_ERROR("object property name separator ':' expected")},
	{"{\"a\": 1 \"b\": 2}", PARSE_ERROR("object value separator ',' expected")},
	{"{1: 2}", PARSE_ERROR("quoted object property name expected")},
	{"{\"a\": 1,}", PARSE_ERROR("unexpected character")},
	{"[1,]", PARSE_ERROR("unexpected character")},
	{"[1 2]", PARSE_ERROR("array value separator ',' expected")},
	{"[{]}", PARSE_ERROR("quoted object property name expected")},
	{",", PARSE_ERROR("unexpected character")},
	{":", PARSE_ERROR("unexpected character")},
	/* as QEMU's qmp-test.c sends them */
	{"{]\n", PARSE_ERROR("stray ']'")},
	{"{\xff", PARSE_ERROR("stray '\\ufffd'")},
	{"{\x01", PARSE_ERROR("stray '\\u0001'")},
	{"{\"bad \xff", PARSE_ERROR("stray '\\ufffd'")},
	{"{\"execute\": \"nonexistent\", \"id\":\"\n", PARSE_ERROR("stray '\\n'")},
};

static void test_messages(void **state)
{
	struct qmp_conn *conn = connect_open();

	(void)state;
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		feed(conn, messages[i].in);
		expect(conn, messages[i].out);
		assert_true(qmp_conn_wants_input(conn));
		/* usable after each of them */
		feed(conn, "{\"execute\": \"nothing\"}");
		expect(conn, OK);
	}
	qmp_conn_free(conn);
}

/* All transcripts in one stream. */
static void whole_stream(struct qmp_buf *in, struct qmp_buf *out)
{
	for (size_t i = 0; i < sizeof(negotiation) / sizeof(negotiation[0]); i++) {
		qmp_buf_append(in, negotiation[i].in, strlen(negotiation[i].in));
		qmp_buf_append(out, negotiation[i].out, strlen(negotiation[i].out));
	}
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		qmp_buf_append(in, messages[i].in, strlen(messages[i].in));
		qmp_buf_append(out, messages[i].out, strlen(messages[i].out));
	}
	qmp_buf_append(out, "", 1);
	assert_false(in->failed || out->failed);
}

static void test_every_split(void **state)
{
	struct qmp_buf in = {0}, out = {0};

	(void)state;
	whole_stream(&in, &out);
	for (size_t split = 0; split <= in.len; split++) {
		struct qmp_conn *conn = connect_raw();

		assert_int_equal(qmp_conn_feed(conn, in.data, split), 0);
		assert_int_equal(qmp_conn_feed(conn, in.data + split, in.len - split), 0);
		expect(conn, out.data);
		qmp_conn_free(conn);
	}
	qmp_buf_free(&in);
	qmp_buf_free(&out);
}

static void test_byte_by_byte(void **state)
{
	struct qmp_conn *conn = connect_raw();
	struct qmp_buf in = {0}, out = {0};

	(void)state;
	whole_stream(&in, &out);
	for (size_t i = 0; i < in.len; i++)
		assert_int_equal(qmp_conn_feed(conn, in.data + i, 1), 0);
	expect(conn, out.data);
	qmp_conn_free(conn);
	qmp_buf_free(&in);
	qmp_buf_free(&out);
}

/* An id nested @n deep in the message, which is one level itself. */
static void test_depth(void **state)
{
	(void)state;
	for (size_t n = QMP_DEPTH_MAX - 2; n < QMP_DEPTH_MAX + 3; n++) {
		struct qmp_conn *conn = connect_open();
		struct qmp_buf id = {0}, in = {0}, out = {0};

		for (size_t i = 0; i < n; i++)
			qmp_buf_append(&id, "[", 1);
		qmp_buf_append(&id, "1", 1);
		for (size_t i = 0; i < n; i++)
			qmp_buf_append(&id, "]", 1);
		qmp_buf_append(&id, "", 1);
		qmp_buf_printf(&in, WITH_ID("%s") "{\"execute\": \"nothing\"}", id.data);
		if (n < QMP_DEPTH_MAX)
			qmp_buf_printf(&out, RETURNED_ID("%s") OK, id.data);
		else
			qmp_buf_printf(&out, GENERIC("JSON nesting depth limit exceeded") OK);
		feed(conn, in.data);
		expect(conn, out.data);
		qmp_conn_free(conn);
		qmp_buf_free(&id);
		qmp_buf_free(&in);
		qmp_buf_free(&out);
	}
}

static void test_too_long(void **state)
{
	struct qmp_conn *conn = connect_open();
	char chunk[1000];

	(void)state;
	memset(chunk, 'a', sizeof(chunk));
	feed(conn, "{\"execute\": \"");
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(qmp_conn_feed(conn, chunk, sizeof(chunk)), 0);
	expect(conn, GENERIC("JSON token size limit exceeded"));
	feed(conn, "\"}{\"execute\": \"nothing\"}");
	expect(conn, OK);
	/* and while it is unfinished, 0xff gets out of it */
	feed(conn, "{\"execute\": \"");
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(qmp_conn_feed(conn, chunk, sizeof(chunk)), 0);
	feed(conn, "\xff{\"execute\": \"nothing\"}");
	expect(conn, GENERIC("JSON token size limit exceeded") OK);
	qmp_conn_free(conn);
}

static void test_long_name(void **state)
{
	struct qmp_conn *conn = connect_open();
	struct qmp_buf in = {0}, out = {0};

	(void)state;
	/* the reply is cut short, and is JSON all the same */
	qmp_buf_printf(&in, "{\"execute\": \"");
	for (size_t i = 0; i < 1000; i++)
		qmp_buf_printf(&in, "\xe2\x82\xac");
	qmp_buf_printf(&in, "\"}");
	feed(conn, in.data);
	take(conn, &out);
	assert_in_range(out.len, 900, 1300); /* some 500 bytes, 6 for each 3 of them */
	qmp_buf_append(&out, "", 1);
	assert_null(strstr(out.data, "\\ufffd"));
	assert_non_null(strstr(out.data, "\\u20ac\"}}\r\n"));
	qmp_conn_free(conn);
	qmp_buf_free(&in);
	qmp_buf_free(&out);
}

static void test_deferred(void **state)
{
	struct qmp_conn *conn = connect_open(), *other = connect_open();
	struct qmp_error err;

	(void)state;
	feed(conn, "{\"execute\": \"nothing\", \"id\": 1}{\"execute\": \"later\", \"id\": 2}"
		   "{\"execute\": \"nothing\", \"id\": 3}{\"execute\": \"later\", \"id\": 4}{\"ex");
	expect(conn, "{\"return\": {}, \"id\": 1}\r\n");
	assert_int_equal(calls, 2);
	assert_non_null(deferred);
	assert_false(qmp_conn_wants_input(conn));
	feed(conn, "ecute\": \"nothing\", \"id\": 5}");
	expect(conn, "");
	/* others go on */
	feed(other, "{\"execute\": \"nothing\"}");
	expect(other, OK);

	struct qmp_request *req = deferred;

	deferred = NULL;
	assert_ptr_equal(qmp_request_conn(req), conn);
	qmp_request_complete(req, json_object_new_string("done"), NULL);
	assert_non_null(deferred);
	expect(conn, "{\"return\": \"done\", \"id\": 2}\r\n{\"return\": {}, \"id\": 3}\r\n");
	assert_false(qmp_conn_wants_input(conn));
	qmp_error_set(&err, QMP_DEVICE_NOT_FOUND, "gone");
	req = deferred;
	deferred = NULL;
	qmp_request_complete(req, NULL, &err);
	expect(conn, ERROR_ID("DeviceNotFound", "gone", "4") "{\"return\": {}, \"id\": 5}\r\n");
	assert_true(qmp_conn_wants_input(conn));
	qmp_conn_free(conn);
	qmp_conn_free(other);
}

static void test_deferred_null(void **state)
{
	struct qmp_conn *conn = connect_open();
	struct qmp_error unset = {.class = QMP_GENERIC_ERROR};

	(void)state;
	feed(conn, "{\"execute\": \"later\"}");
	qmp_request_complete(deferred, NULL, NULL);
	expect(conn, GENERIC("Out of memory"));
	deferred = NULL;
	feed(conn, "{\"execute\": \"later\"}");
	qmp_request_complete(deferred, json_object_new_string("dropped"), &unset);
	expect(conn, GENERIC("The command later failed"));
	qmp_conn_free(conn);
}

static void test_closed_while_deferred(void **state)
{
	struct qmp_conn *conn = connect_open();

	(void)state;
	feed(conn, "{\"execute\": \"later\", \"id\": [1]}{\"execute\": \"nothing\"}");
	qmp_conn_free(conn);
	assert_null(qmp_request_conn(deferred));
	assert_ptr_equal(qmp_request_opaque(deferred), &mark);
	qmp_request_complete(deferred, json_object_new_string("nobody there"), NULL);
	assert_int_equal(calls, 1);
}

static void test_parked_limit(void **state)
{
	struct qmp_conn *conn = connect_open();
	char chunk[4096];

	(void)state;
	memset(chunk, ' ', sizeof(chunk));
	feed(conn, "{\"execute\": \"later\"}");
	for (size_t i = 0; i < QMP_PARKED_MAX / sizeof(chunk); i++)
		assert_int_equal(qmp_conn_feed(conn, chunk, sizeof(chunk)), 0);
	assert_int_equal(qmp_conn_feed(conn, chunk, 1), -ENOBUFS);
	assert_true(qmp_conn_failed(conn));
	assert_false(qmp_conn_wants_input(conn));
	assert_int_equal(qmp_conn_feed(conn, chunk, 1), -ENOMEM);
	/* completing is still fine */
	qmp_request_complete(deferred, json_object_new_string("late"), NULL);
	expect(conn, "");
	qmp_conn_free(conn);
}

static void test_slow_reader(void **state)
{
	struct qmp_conn *conn = connect_open();
	struct qmp_buf out = {0};
	unsigned int sent = 0;
	size_t len;
	char *data;

	(void)state;
	/* two replies pass the mark, the rest waits although it has been read */
	for (sent = 0; sent < 50; sent++)
		feed(conn, "{\"execute\": \"big\"}");
	assert_int_equal(calls, 2);
	assert_false(qmp_conn_wants_input(conn));
	/* handed out is not written */
	data = qmp_conn_take_output(conn, &len);
	assert_int_equal(len, 2 * (40000 + 16));
	assert_false(qmp_conn_wants_input(conn));
	assert_int_equal(calls, 2);
	qmp_buf_append(&out, data, len);
	free(data);
	qmp_conn_written(conn, 10000);
	assert_int_equal(calls, 2);
	assert_null(qmp_conn_take_output(conn, &len));
	qmp_conn_written(conn, 10000);
	assert_int_equal(calls, 3);
	qmp_conn_written(conn, 2 * (40000 + 16) - 20000);
	/* none is lost */
	take(conn, &out);
	assert_int_equal(calls, 50);
	assert_int_equal(out.len, 50 * (40000 + 16));
	assert_true(qmp_conn_wants_input(conn));
	qmp_buf_free(&out);
	qmp_conn_free(conn);
}

static struct json_object *change(uint64_t actual)
{
	struct json_object *data = json_object_new_object();

	qmp_obj_add(&data, "actual", json_object_new_uint64(actual));
	return data;
}

#define STAMP "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 5}, \"event\": "

static void test_events(void **state)
{
	struct qmp_conn *closed = connect_raw(), *a = connect_open(), *b = connect_open();

	(void)state;
	assert_int_equal(qmp_server_event(&server, EVENT_CHANGE, change(7), 1700000000, 5), 0);
	assert_int_equal(qmp_server_event(&server, EVENT_PLAIN, NULL, 1700000000, 5), 0);
	expect(a, STAMP "\"CHANGE\", \"data\": {\"actual\": 7}}\r\n" STAMP "\"PLAIN\"}\r\n");
	expect(b, STAMP "\"CHANGE\", \"data\": {\"actual\": 7}}\r\n" STAMP "\"PLAIN\"}\r\n");
	expect(closed, "");
	/* a connection that waits for an answer hears of events */
	feed(a, "{\"execute\": \"later\"}");
	qmp_conn_free(b);
	assert_int_equal(qmp_server_event(&server, EVENT_PLAIN, NULL, 1700000000, 5), 0);
	expect(a, STAMP "\"PLAIN\"}\r\n");
	qmp_request_complete(deferred, json_object_new_string("x"), NULL);
	expect(a, "{\"return\": \"x\"}\r\n");
	/* wrong use */
	assert_int_equal(qmp_server_event(&server, EVENT_COUNT, NULL, 0, 0), -EINVAL);
	assert_int_equal(qmp_server_event(&server, EVENT_PLAIN, change(1), 0, 0), -EINVAL);
	assert_int_equal(qmp_server_event(&server, EVENT_CHANGE, NULL, 0, 0), -ENOMEM);
	expect(a, "");
	qmp_conn_free(a);
	qmp_conn_free(closed);
}

static void test_event_flood(void **state)
{
	struct qmp_conn *slow = connect_open(), *quick = connect_open();
	struct qmp_buf got = {0};
	uint64_t seen = 0, dropped = 0;
	unsigned int sent = 0;
	char *line, *rest;

	(void)state;
	/* nobody reads: output ends near the mark however many there are */
	for (; sent < 100000; sent++) {
		assert_int_equal(qmp_server_event(&server, EVENT_CHANGE, change(sent), 1, 2), 0);
		if (sent == 99990)
			assert_int_equal(qmp_server_event(&server, EVENT_PLAIN, NULL, 1, 2), 0);
		if (sent % 100 == 0) {
			got.len = 0;
			take(quick, &got);
		}
	}
	got.len = 0;
	take(slow, &got);
	qmp_buf_append(&got, "", 1);
	assert_in_range(got.len, QMP_OUTPUT_HIGH, QMP_OUTPUT_HIGH + 1000);
	/* the newest of each name came last, in the order of arrival, and the count is right */
	for (line = strtok_r(got.data, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
		struct json_object *msg = json_tokener_parse(line), *val;

		assert_non_null(msg);
		if (json_object_object_get_ex(msg, "data", &val)) {
			seen++;
			assert_true(json_object_object_get_ex(val, "actual", &val));
			sent = (unsigned int)json_object_get_uint64(val);
		} else {
			assert_null(strstr(line, "dropped"));
			assert_int_not_equal(sent, 99999);
		}
		if (json_object_object_get_ex(msg, "dropped", &val)) {
			assert_int_equal(sent, 99999);
			dropped += json_object_get_uint64(val);
		}
		json_object_put(msg);
	}
	assert_int_equal(sent, 99999);
	assert_int_equal(seen + dropped, 100000);
	assert_true(dropped > 0);
	/* a client that keeps up loses none */
	qmp_conn_free(slow);
	qmp_conn_free(quick);
	qmp_buf_free(&got);
}

static void test_events_held_back(void **state)
{
	struct qmp_conn *conn = connect_open();
	struct qmp_buf out = {0};

	(void)state;
	feed(conn, "{\"execute\": \"big\"}{\"execute\": \"big\"}{\"execute\": \"nothing\"}");
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(qmp_server_event(&server, EVENT_CHANGE, change(i), 1700000000, 5),
				 0);
	take(conn, &out);
	qmp_buf_append(&out, "", 1);
	/* replies first, the event as soon as there is room */
	assert_string_equal(out.data + 2 * (40000 + 16),
			    STAMP "\"CHANGE\", \"data\": {\"actual\": 2}, \"dropped\": 2}\r\n" OK);
	qmp_buf_free(&out);
	/* events that nobody takes are freed with the connection */
	feed(conn, "{\"execute\": \"big\"}{\"execute\": \"big\"}");
	qmp_server_event(&server, EVENT_CHANGE, change(1), 0, 0);
	qmp_conn_free(conn);
}

static void test_conn_list(void **state)
{
	struct qmp_conn *conns[3];
	static const int orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}};

	(void)state;
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		for (size_t j = 0; j < 3; j++)
			conns[j] = connect_open();
		for (size_t j = 0; j < 3; j++) {
			qmp_conn_free(conns[orders[i][j]]);
			qmp_server_event(&server, EVENT_PLAIN, NULL, 1700000000, 5);
			for (size_t k = j + 1; k < 3; k++)
				expect(conns[orders[i][k]], STAMP "\"PLAIN\"}\r\n");
		}
		assert_null(server.conns);
	}
	qmp_conn_free(NULL);
}

static void test_bad_strings_out(void **state)
{
	struct json_object *val = json_object_new_array();
	struct qmp_buf buf = {0};

	(void)state;
	/* what a handler made of bytes from elsewhere */
	qmp_arr_add(&val, json_object_new_string("a\xff\xc3(\xed\xa0\x80z"));
	qmp_arr_add(&val, json_object_new_double(1.0 / 3));
	qmp_arr_add(&val, json_object_new_double((double)HUGE_VALF));
	assert_non_null(val);
	assert_int_equal(qmp_json_write(&buf, val), 0);
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(
		buf.data, "[\"a\\ufffd\\ufffd(\\ufffd\\ufffd\\ufffdz\", 0.3333333333333333, null]");
	qmp_buf_free(&buf);
	json_object_put(val);
}

static void test_builders(void **state)
{
	struct json_object *obj = json_object_new_object(), *arr = json_object_new_array();

	(void)state;
	qmp_obj_add(&obj, "a", json_object_new_int(1));
	assert_non_null(obj);
	qmp_obj_add(&obj, "b", NULL);
	assert_null(obj);
	qmp_obj_add(&obj, "c", json_object_new_int(1));
	assert_null(obj);
	qmp_arr_add(&arr, json_object_new_int(1));
	assert_non_null(arr);
	qmp_arr_add(&arr, NULL);
	assert_null(arr);
	qmp_arr_add(&arr, json_object_new_int(1));
	assert_null(arr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_negotiation, setup),
		cmocka_unit_test_setup(test_messages, setup),
		cmocka_unit_test_setup(test_every_split, setup),
		cmocka_unit_test_setup(test_byte_by_byte, setup),
		cmocka_unit_test_setup(test_depth, setup),
		cmocka_unit_test_setup(test_too_long, setup),
		cmocka_unit_test_setup(test_long_name, setup),
		cmocka_unit_test_setup(test_deferred, setup),
		cmocka_unit_test_setup(test_deferred_null, setup),
		cmocka_unit_test_setup(test_closed_while_deferred, setup),
		cmocka_unit_test_setup(test_parked_limit, setup),
		cmocka_unit_test_setup(test_slow_reader, setup),
		cmocka_unit_test_setup(test_events, setup),
		cmocka_unit_test_setup(test_event_flood, setup),
		cmocka_unit_test_setup(test_events_held_back, setup),
		cmocka_unit_test_setup(test_conn_list, setup),
		cmocka_unit_test(test_bad_strings_out),
		cmocka_unit_test(test_builders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
