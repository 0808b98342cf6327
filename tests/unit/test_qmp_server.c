// SPDX-License-Identifier: MIT
/* What a client says and what it is answered, however its bytes are cut. */
#include "qmp_helpers.h"

#include "qmp/scan.h"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
