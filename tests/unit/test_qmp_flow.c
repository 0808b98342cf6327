// SPDX-License-Identifier: MIT
/* Answers that come later, clients that do not read, and events. */
#include "qmp_helpers.h"

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

/* Handed over as another process would: what is known of the old one is one bit. */
static struct qmp_conn *hand_over(struct qmp_conn *old)
{
	bool negotiated = qmp_conn_negotiated(old);
	struct qmp_conn *conn;

	assert_true(qmp_conn_idle(old));
	qmp_conn_free(old);
	conn = qmp_conn_resume(&server, negotiated);
	assert_non_null(conn);
	assert_int_equal(qmp_conn_negotiated(conn), negotiated);
	assert_true(qmp_conn_idle(conn));
	assert_true(qmp_conn_wants_input(conn));
	return conn;
}

static void test_hand_over(void **state)
{
	struct qmp_conn *conn = connect_raw();

	(void)state;
	/* before negotiation: no greeting again, and negotiation is still to come */
	conn = hand_over(conn);
	expect(conn, "");
	qmp_server_event(&server, EVENT_PLAIN, NULL, 1700000000, 5);
	expect(conn, "");
	feed(conn, "{\"execute\": \"nothing\"}");
	expect(conn, NOT_FOUND(EXPECTING));
	feed(conn, NEGOTIATE);
	expect(conn, OK);
	assert_true(qmp_conn_negotiated(conn));
	/* after it: not again */
	conn = hand_over(conn);
	expect(conn, "");
	feed(conn, "{\"execute\": \"nothing\", \"id\": 1}");
	expect(conn, "{\"return\": {}, \"id\": 1}\r\n");
	feed(conn, NEGOTIATE);
	expect(conn, NOT_FOUND("Capabilities negotiation is already complete, command ignored"));
	qmp_server_event(&server, EVENT_PLAIN, NULL, 1700000000, 5);
	expect(conn, STAMP "\"PLAIN\"}\r\n");
	/* blanks between texts belong to none */
	feed(conn, " \r\n\t");
	conn = hand_over(conn);
	feed(conn, "{\"execute\": \"nothing\"}");
	expect(conn, OK);
	qmp_conn_free(conn);
}

static void test_idle_input(void **state)
{
	static const char text[] = "{\"execute\": \"echo\", \"arguments\": {\"value\": "
				   "[\"a\\n\", {\"b\": -1.5e3}, true]}}";
	struct qmp_conn *conn = connect_open();
	char byte;

	(void)state;
	/* not within a text, wherever it is cut */
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		assert_true(qmp_conn_idle(conn) == (i == 0));
		byte = text[i];
		assert_int_equal(qmp_conn_feed(conn, &byte, 1), 0);
	}
	assert_false(qmp_conn_idle(conn)); /* the answer waits */
	expect(conn, "{\"return\": [[\"a\\n\", {\"b\": -1500.0}, true]]}\r\n");
	assert_true(qmp_conn_idle(conn));
	/* a number ends with the byte behind it */
	feed(conn, "12");
	assert_false(qmp_conn_idle(conn));
	feed(conn, " ");
	expect(conn, GENERIC("QMP input must be a JSON object"));
	assert_true(qmp_conn_idle(conn));
	/* a text that is refused, to its end */
	feed(conn, "{\"x\": \"\\q\"");
	expect(conn, GENERIC("JSON parse error, invalid escape sequence in string"));
	assert_false(qmp_conn_idle(conn));
	feed(conn, "}");
	assert_true(qmp_conn_idle(conn));
	/* or abandoned */
	feed(conn, "{\"x\": [\xff");
	expect(conn, GENERIC("JSON parse error, stray '\\ufffd'"));
	assert_true(qmp_conn_idle(conn));
	qmp_conn_free(conn);
}

static void test_idle_output(void **state)
{
	struct qmp_conn *conn = connect_open(), *raw = qmp_conn_new(&server);
	struct qmp_request *req;
	size_t len;
	char *data;

	(void)state;
	/* the greeting is output like any other */
	assert_non_null(raw);
	assert_false(qmp_conn_idle(raw));
	expect(raw, GREETING);
	assert_true(qmp_conn_idle(raw));
	qmp_conn_free(raw);
	/* handed out is not written */
	feed(conn, "{\"execute\": \"nothing\"}");
	assert_false(qmp_conn_idle(conn));
	data = qmp_conn_take_output(conn, &len);
	free(data);
	assert_false(qmp_conn_idle(conn));
	qmp_conn_written(conn, len - 1);
	assert_false(qmp_conn_idle(conn));
	qmp_conn_written(conn, 1);
	assert_true(qmp_conn_idle(conn));
	/* an answer is owed, and input parked behind it */
	feed(conn, "{\"execute\": \"later\"}");
	assert_false(qmp_conn_idle(conn));
	feed(conn, "{\"execute\": \"nothing\"");
	req = deferred;
	deferred = NULL;
	qmp_request_complete(req, json_object_new_string("x"), NULL);
	expect(conn, "{\"return\": \"x\"}\r\n");
	assert_false(qmp_conn_idle(conn));
	feed(conn, "}");
	expect(conn, OK);
	assert_true(qmp_conn_idle(conn));
	qmp_conn_free(conn);
}

static void test_idle_events(void **state)
{
	struct qmp_conn *conn = connect_open();
	size_t len;
	char *data;

	(void)state;
	feed(conn, "{\"execute\": \"big\"}{\"execute\": \"big\"}");
	qmp_server_event(&server, EVENT_PLAIN, NULL, 1700000000, 5);
	data = qmp_conn_take_output(conn, &len);
	free(data);
	/* held back until there is room, then in the output */
	assert_false(qmp_conn_idle(conn));
	qmp_conn_written(conn, len);
	assert_false(qmp_conn_idle(conn));
	expect(conn, STAMP "\"PLAIN\"}\r\n");
	assert_true(qmp_conn_idle(conn));
	qmp_conn_free(conn);
}

static void test_idle_failed(void **state)
{
	struct qmp_conn *conn = connect_open();
	char chunk[4096];

	(void)state;
	memset(chunk, ' ', sizeof(chunk));
	feed(conn, "{\"execute\": \"later\"}");
	while (qmp_conn_feed(conn, chunk, sizeof(chunk)) == 0)
		;
	qmp_request_complete(deferred, json_object_new_string("x"), NULL);
	assert_true(qmp_conn_failed(conn));
	assert_false(qmp_conn_idle(conn));
	qmp_conn_free(conn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_deferred, setup),
		cmocka_unit_test_setup(test_deferred_null, setup),
		cmocka_unit_test_setup(test_closed_while_deferred, setup),
		cmocka_unit_test_setup(test_parked_limit, setup),
		cmocka_unit_test_setup(test_slow_reader, setup),
		cmocka_unit_test_setup(test_events, setup),
		cmocka_unit_test_setup(test_event_flood, setup),
		cmocka_unit_test_setup(test_events_held_back, setup),
		cmocka_unit_test_setup(test_conn_list, setup),
		cmocka_unit_test_setup(test_hand_over, setup),
		cmocka_unit_test_setup(test_idle_input, setup),
		cmocka_unit_test_setup(test_idle_output, setup),
		cmocka_unit_test_setup(test_idle_events, setup),
		cmocka_unit_test_setup(test_idle_failed, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
