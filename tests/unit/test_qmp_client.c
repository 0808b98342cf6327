// SPDX-License-Identifier: MIT
/* The client against every kind of message in every state, in every split, and at every limit. */
#include "qmp_client_helpers.h"

static int setup(void **state)
{
	(void)state;
	told_len = 0;
	told[0] = '\0';
	return 0;
}

#define PROTO      "lost -71 "
#define JSON       PROTO "JSON parse error, "
#define NOT_A      "neither greeting nor answer nor event;"
#define EARLY      PROTO "something else than a greeting;"
#define UNASKED    PROTO "an answer to what was not asked;"
#define NO_CLASS   PROTO "an error without class or description;"
#define NO_NAME    PROTO "an event without a name, or with data that is no object;"
#define SECOND     PROTO "a second greeting;"
#define NO_VERSION PROTO "the greeting lacks version or capabilities;"
#define B_LOST     "b lost;"

/*
 * What each message makes a client say that has not been greeted, one that negotiates, and one that
 * is ready: there request 1 has timed out, 2 ("b") is pending, and 3 was never made.
 */
static const struct {
	const char *text;
	const char *told[QMP_CLIENT_LOST];
} moves[] = {
	{GREETING, {"", SECOND, B_LOST SECOND}},
	{"{\"QMP\": {\"version\": {}, \"capabilities\": [], \"x\": 1}, \"y\": 2}",
	 {"", SECOND, B_LOST SECOND}},
	{"{\"QMP\": {\"version\": {}}}", {NO_VERSION, SECOND, B_LOST SECOND}},
	{"{\"QMP\": {\"capabilities\": []}}", {NO_VERSION, SECOND, B_LOST SECOND}},
	{"{\"QMP\": {\"version\": 1, \"capabilities\": []}}", {NO_VERSION, SECOND, B_LOST SECOND}},
	{"{\"QMP\": {\"version\": {}, \"capabilities\": {}}}", {NO_VERSION, SECOND, B_LOST SECOND}},
	{"{\"QMP\": null}", {NO_VERSION, SECOND, B_LOST SECOND}},
	/* answers: to the negotiation, to a late one, to the pending one, to none */
	{"{\"return\": {}, \"id\": 0}", {EARLY, "ready 11;", ""}},
	{"{\"return\": {}, \"id\": 1}", {EARLY, UNASKED, ""}},
	{"{\"return\": {}, \"id\": 2}", {EARLY, UNASKED, "b return {};"}},
	{"{\"return\": {}, \"id\": 3}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"id\": 2, \"return\": null, \"more\": [1]}", {EARLY, UNASKED, "b return null;"}},
	{"{\"return\": 18446744073709551615, \"id\": 2}",
	 {EARLY, UNASKED, "b return 18446744073709551615;"}},
	{"{\"return\": -9223372036854775808, \"id\": 2}",
	 {EARLY, UNASKED, "b return -9223372036854775808;"}},
	{"{\"return\": {}}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"return\": {}, \"id\": null}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"return\": {}, \"id\": \"2\"}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"return\": {}, \"id\": 2.0}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"return\": {}, \"id\": [2]}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"return\": {}, \"id\": -1}", {EARLY, UNASKED, B_LOST UNASKED}},
	{"{\"return\": {}, \"id\": 18446744073709551615}", {EARLY, UNASKED, B_LOST UNASKED}},
	/* errors */
	{"{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no\"}, \"id\": 0}",
	 {EARLY, PROTO "no;", ""}},
	{"{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no\"}, \"id\": 1}",
	 {EARLY, PROTO "no;", ""}},
	{"{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no\"}, \"id\": 2}",
	 {EARLY, PROTO "no;", "b error DeviceNotFound no;"}},
	{"{\"error\": {\"class\": \"KVMMissingCap\", \"desc\": \"\", \"x\": 1}, \"id\": 2}",
	 {EARLY, UNASKED, "b error KVMMissingCap ;"}},
	{"{\"error\": {\"class\": \"Unheard\", \"desc\": \"of\"}, \"id\": 2}",
	 {EARLY, PROTO "of;", "b error GenericError of;"}},
	{"{\"error\": {\"class\": \"GenericError\", \"desc\": \"cannot read\"}}",
	 {EARLY, PROTO "cannot read;", B_LOST PROTO "cannot read;"}},
	{"{\"error\": {\"class\": \"GenericError\"}, \"id\": 2}",
	 {EARLY, NO_CLASS, B_LOST NO_CLASS}},
	{"{\"error\": {\"desc\": \"no\"}, \"id\": 2}", {EARLY, NO_CLASS, B_LOST NO_CLASS}},
	{"{\"error\": {\"class\": 1, \"desc\": \"no\"}, \"id\": 2}",
	 {EARLY, NO_CLASS, B_LOST NO_CLASS}},
	{"{\"error\": {\"class\": \"GenericError\", \"desc\": null}, \"id\": 2}",
	 {EARLY, NO_CLASS, B_LOST NO_CLASS}},
	{"{\"error\": \"no\", \"id\": 2}", {EARLY, NO_CLASS, B_LOST NO_CLASS}},
	/* events */
	{"{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 7}}",
	 {EARLY, "", "event STOP null 1700000000.000007;"}},
	{"{\"event\": \"BALLOON_CHANGE\", \"data\": {\"actual\": 9007199254740993}, "
	 "\"timestamp\": {\"seconds\": 1, \"microseconds\": 999999}, \"dropped\": 5}",
	 {EARLY, "", "event BALLOON_CHANGE {\"actual\":9007199254740993} 1.999999 dropped 5;"}},
	{"{\"event\": \"E\", \"timestamp\": {\"seconds\": -1, \"microseconds\": -1}}",
	 {EARLY, "", "event E null -1.000000;"}},
	{"{\"event\": \"E\", \"timestamp\": {\"seconds\": 5, \"microseconds\": 1000000}}",
	 {EARLY, "", "event E null 5.000000;"}},
	{"{\"event\": \"E\", \"timestamp\": [], \"dropped\": -1}",
	 {EARLY, "", "event E null -1.000000;"}},
	{"{\"event\": \"E\", \"id\": 2}", {EARLY, "", "event E null -1.000000;"}},
	{"{\"event\": 1}", {EARLY, "", B_LOST NO_NAME}},
	{"{\"event\": \"E\", \"data\": null}", {EARLY, "", B_LOST NO_NAME}},
	{"{\"event\": \"E\", \"data\": [1]}", {EARLY, "", B_LOST NO_NAME}},
	/* no message of QMP */
	{"{}", {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"[]", {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"null ", {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"5\n", {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"\"return\"", {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"{\"execute\": \"stop\", \"id\": 2}", {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"{\"return\": {}, \"event\": \"E\", \"id\": 2}",
	 {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	{"{\"return\": {}, \"error\": {\"class\": \"a\", \"desc\": \"b\"}, \"id\": 2}",
	 {PROTO NOT_A, PROTO NOT_A, B_LOST PROTO NOT_A}},
	/* no text of JSON */
	{"SSH-2.0", {JSON "stray 'S';", JSON "stray 'S';", B_LOST JSON "stray 'S';"}},
	{"{\"return\": {}, \"id\": 2, \"id\": 2}",
	 {JSON "duplicate key;", JSON "duplicate key;", B_LOST JSON "duplicate key;"}},
	{"{\"return\": {\"a\": 1, \"\\u0061\": 2}, \"id\": 2}",
	 {JSON "duplicate key;", JSON "duplicate key;", B_LOST JSON "duplicate key;"}},
	{"{\"return\": 18446744073709551616, \"id\": 2}",
	 {JSON "number '18446744073709551616' out of range;",
	  JSON "number '18446744073709551616' out of range;",
	  B_LOST JSON "number '18446744073709551616' out of range;"}},
	{"{\"return\" {}}",
	 {JSON "object property name separator ':' expected;",
	  JSON "object property name separator ':' expected;",
	  B_LOST JSON "object property name separator ':' expected;"}},
	{"}", {JSON "stray '}';", JSON "stray '}';", B_LOST JSON "stray '}';"}},
	/* nothing, or not all of it yet */
	{" \r\n", {"", "", ""}},
	{"{\"return\": {}, \"id\": 2", {"", "", ""}},
};

/* A client in @state, as the table has it. */
static struct qmp_client *bring_to(enum qmp_client_state state)
{
	struct qmp_client *client =
		state == QMP_CLIENT_READY ? connect_ready() : connect_raw(QMP_CLIENT_NEVER);

	if (state == QMP_CLIENT_NEGOTIATING) {
		assert_int_equal(feed(client, GREETING), 0);
		expect_output(client, NEGOTIATE);
	}
	if (state == QMP_CLIENT_READY) {
		assert_int_equal(ask(client, "a", 10), 0);
		assert_int_equal(ask(client, "b", 11), 0);
		qmp_client_tick(client, 10);
		expect_told("a timeout;");
	}
	assert_int_equal(qmp_client_state(client), state);
	return client;
}

static void test_every_message_in_every_state(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
		for (int in = 0; in < QMP_CLIENT_LOST; in++) {
			struct qmp_client *client = bring_to((enum qmp_client_state)in);
			bool lost = strstr(moves[i].told[in], "lost") != NULL;

			assert_int_equal(feed(client, moves[i].text), lost ? -EPROTO : 0);
			expect_told(moves[i].told[in]);
			assert_int_equal(qmp_client_state(client) == QMP_CLIENT_LOST, lost);
			assert_int_equal(qmp_client_wants_input(client), !lost);
			if (lost)
				assert_int_equal(qmp_client_pending(client), 0);
			qmp_client_close(client, -EIO, "end");
			told_len = 0;
			told[0] = '\0';
			qmp_client_free(client);
			expect_told("");
		}
	}
}

static void test_lost_is_for_good(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
		struct qmp_client *client = connect_ready();
		size_t len;

		ask(client, "a", 5);
		qmp_client_close(client, -ECONNRESET, "gone");
		expect_told("a lost;lost -104 gone;");
		assert_int_equal(feed(client, moves[i].text), -ECONNRESET);
		assert_int_equal(ask(client, "b", 5), -ENOTCONN);
		qmp_client_tick(client, 100);
		qmp_client_close(client, -EIO, "again");
		assert_null(qmp_client_take_output(client, &len));
		qmp_client_written(client, 5);
		assert_int_equal(qmp_client_next_deadline(client), QMP_CLIENT_NEVER);
		expect_told("");
		qmp_client_free(client);
	}
}

/* A whole connection; every cut of it into two pieces, and into single bytes, says the same. */
static void test_every_split(void **state)
{
	static const char text[] =
		"\r\n" GREETING NEGOTIATED
		"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"A\\u00e9\", "
		"\"data\": {\"x\": [1, 2.5, \"\xc3\xa9\"]}}\r\n"
		"{\"return\": {\"actual\": 18446744073709551615}, \"id\": 1}\r\n"
		"{\"id\": 2, \"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"\\\"}{\"}}"
		"{\"event\": \"B\"}";
	static const char expected[] =
		"ready 11;event A\xc3\xa9 {\"x\":[1,2.5,\"\xc3\xa9\"]} 1.000002;"
		"a return {\"actual\":18446744073709551615};b error DeviceNotActive \"}{;"
		"event B null -1.000000;";
	size_t ready = strlen("\r\n" GREETING NEGOTIATED);

	(void)state;
	for (size_t cut = 0; cut <= sizeof(text); cut++) {
		struct qmp_client *client = connect_raw(QMP_CLIENT_NEVER);
		size_t step = cut < sizeof(text) ? sizeof(text) : 1;
		size_t pos = 0;

		while (pos < sizeof(text) - 1) {
			size_t end = pos + step < sizeof(text) - 1 ? pos + step : sizeof(text) - 1;

			if (pos < cut && end > cut && cut < sizeof(text) - 1)
				end = cut;
			/* requests are made as soon as that can be */
			if (pos < ready && end > ready)
				end = ready;
			if (pos == ready) {
				assert_int_equal(ask(client, "a", 10), 0);
				assert_int_equal(ask(client, "b", 10), 0);
			}
			assert_int_equal(qmp_client_feed(client, text + pos, end - pos), 0);
			pos = end;
		}
		expect_told(expected);
		assert_int_equal(qmp_client_pending(client), 0);
		qmp_client_free(client);
	}
}

static void test_requests_on_the_wire(void **state)
{
	struct qmp_client *client = connect_ready();
	struct json_object *args = json_object_new_object();
	struct json_object *long_one = json_object_new_object();
	char *text = malloc(QMP_MESSAGE_MAX);

	(void)state;
	json_object_object_add(args, "value", json_object_new_uint64(UINT64_MAX));
	json_object_object_add(args, "name", json_object_new_string("a\"\n\xc3\xa9"));
	assert_int_equal(ask_for(client, "balloon \"x\"", args, 5, on_answer, "a"), 0);
	assert_int_equal(ask(client, "b", 6), 0);
	expect_output(client, "{\"execute\": \"balloon \\\"x\\\"\", \"arguments\": {\"value\": "
			      "18446744073709551615, \"name\": \"a\\\"\\n\\u00e9\"}, \"id\": 1}\r\n"
			      "{\"execute\": \"ask\", \"id\": 2}\r\n");
	/* what cannot be sent leaves no trace, not even a number */
	assert_int_equal(ask_for(client, "x", json_object_new_array(), 5, on_answer, 0), -EINVAL);
	assert_int_equal(ask_for(client, "x", NULL, 5, on_answer, 0), -ENOMEM);
	memset(text, 'x', QMP_MESSAGE_MAX);
	json_object_object_add(long_one, "x", json_object_new_string_len(text, QMP_MESSAGE_MAX));
	assert_int_equal(ask(client, "c", 7), 0);
	assert_int_equal(ask_for(client, "x", long_one, 5, on_answer, 0), -EMSGSIZE);
	assert_int_equal(ask(client, "d", 7), 0);
	expect_output(client, "{\"execute\": \"ask\", \"id\": 3}\r\n"
			      "{\"execute\": \"ask\", \"id\": 4}\r\n");
	assert_int_equal(qmp_client_pending(client), 4);
	qmp_client_free(client);
	expect_told("a lost;b lost;c lost;d lost;");
	free(text);
}

static void test_not_ready(void **state)
{
	struct qmp_client *client = connect_raw(5);

	(void)state;
	assert_int_equal(ask(client, "a", 5), -ENOTCONN);
	feed(client, GREETING);
	assert_int_equal(ask(client, "a", 5), -ENOTCONN);
	expect_output(client, NEGOTIATE);
	qmp_client_free(client);
	expect_told("");
	qmp_client_free(NULL);
}

static void test_limits_of_requests(void **state)
{
	struct qmp_client *client = connect_ready();
	size_t len;
	char *data;

	(void)state;
	for (size_t i = 0; i < QMP_CLIENT_PENDING_MAX; i++)
		assert_int_equal(ask(client, "a", 9), 0);
	assert_int_equal(ask(client, "b", 9), -EBUSY);
	/* a monitor that hangs: requests end, and come again, and nobody reads them */
	qmp_client_tick(client, 9);
	assert_int_equal(qmp_client_pending(client), 0);
	for (int i = 0; qmp_client_pending(client) == 0; i++) {
		int ret = 0;

		for (size_t n = 0; ret == 0 && n < QMP_CLIENT_PENDING_MAX; n++)
			ret = ask(client, "c", 10);
		told_len = 0; /* "c timeout;", very often */
		if (ret) {
			assert_int_equal(ret, -ENOBUFS);
			assert_in_range(i, 100, 10000);
			break;
		}
		qmp_client_tick(client, 10);
	}
	/* handed out is not written */
	data = qmp_client_take_output(client, &len);
	assert_in_range(len, QMP_CLIENT_OUTPUT_MAX, QMP_CLIENT_OUTPUT_MAX + 100);
	free(data);
	assert_int_equal(ask(client, "d", 10), -ENOBUFS);
	qmp_client_written(client, len / 2);
	assert_int_equal(ask(client, "d", 10), 0);
	/* more than there was is all of it */
	qmp_client_written(client, len);
	assert_int_equal(ask(client, "d", 10), 0);
	qmp_client_free(client);
}

static void test_deadlines(void **state)
{
	struct qmp_client *client = connect_ready();

	(void)state;
	assert_int_equal(qmp_client_next_deadline(client), QMP_CLIENT_NEVER);
	ask(client, "a", 300);
	ask(client, "b", 100);
	ask(client, "c", 200);
	ask(client, "d", QMP_CLIENT_NEVER);
	assert_int_equal(qmp_client_next_deadline(client), 100);
	qmp_client_tick(client, 99);
	expect_told("");
	qmp_client_tick(client, 100);
	expect_told("b timeout;");
	assert_int_equal(qmp_client_next_deadline(client), 200);
	/* an answer that is there is an answer, whatever the time */
	feed(client,
	     "{\"return\": 1, \"id\": 3}{\"return\": 2, \"id\": 2}{\"return\": 3, \"id\": 3}");
	expect_told("c return 1;");
	assert_int_equal(qmp_client_late(client), 2);
	qmp_client_tick(client, UINT64_MAX - 1);
	expect_told("a timeout;");
	feed(client, "{\"return\": 4, \"id\": 4}{\"return\": 5, \"id\": 1}");
	expect_told("d return 4;");
	assert_int_equal(qmp_client_late(client), 3);
	assert_int_equal(qmp_client_next_deadline(client), QMP_CLIENT_NEVER);
	qmp_client_free(client);
}

static void test_slow_negotiation(void **state)
{
	struct qmp_client *client = connect_raw(50);

	(void)state;
	assert_int_equal(qmp_client_next_deadline(client), 50);
	qmp_client_tick(client, 49);
	expect_told("");
	qmp_client_tick(client, 50);
	expect_told("lost -110 no greeting in time;");
	qmp_client_free(client);
	client = connect_raw(50);
	feed(client, GREETING "{\"event\": \"E\"}{\"retu");
	qmp_client_tick(client, 49);
	assert_int_equal(qmp_client_next_deadline(client), 50);
	qmp_client_tick(client, 50);
	expect_told("lost -110 no answer to qmp_capabilities in time;");
	qmp_client_free(client);
	/* and in time */
	client = connect_raw(50);
	feed(client, GREETING NEGOTIATED);
	qmp_client_tick(client, 50);
	expect_told("ready 11;");
	qmp_client_free(client);
}

/* A flood is handled by the batch, in order; nothing is lost and nothing comes at once. */
static void test_flood(void **state)
{
	struct qmp_client *client = connect_ready();
	static const char event[] = "{\"event\": \"E\"}";
	struct qmp_buf flood = {0};
	size_t batches = 5;

	(void)state;
	ask(client, "a", 7);
	for (size_t i = 0; i < batches * QMP_CLIENT_BATCH; i++)
		qmp_buf_append(&flood, event, strlen(event));
	qmp_buf_printf(&flood, "{\"return\": 1, \"id\": 1}{\"ret");
	assert_int_equal(qmp_client_feed(client, flood.data, flood.len), 0);
	for (size_t i = 0; i < batches; i++) {
		assert_int_equal(told_len, QMP_CLIENT_BATCH * strlen("event E null -1.000000;"));
		told_len = 0;
		told[0] = '\0';
		assert_false(qmp_client_wants_input(client));
		assert_int_equal(qmp_client_next_deadline(client), 0);
		if (i == 2) /* feed takes it, and handles nothing out of turn */
			assert_int_equal(feed(client, "urn\": 2, \"id\": 1}{\"event\": \"L\"}"), 0);
		assert_int_equal(told_len, 0);
		qmp_client_tick(client, 6);
	}
	expect_told("a return 1;event L null -1.000000;");
	assert_true(qmp_client_wants_input(client));
	assert_int_equal(qmp_client_late(client), 1);
	/* one that goes on cannot keep a request from its deadline */
	ask(client, "b", 7);
	qmp_client_feed(client, flood.data, flood.len);
	told_len = 0;
	qmp_client_tick(client, 7);
	assert_non_null(strstr(told, "b timeout;"));
	qmp_buf_free(&flood);
	qmp_client_free(client);
}

static void test_flood_of_who_does_not_listen(void **state)
{
	struct qmp_client *client = connect_ready();
	char *spaces = malloc(QMP_CLIENT_PARKED_MAX);

	(void)state;
	for (size_t i = 0; i <= QMP_CLIENT_BATCH; i++)
		feed(client, "{\"event\": \"E\"}");
	assert_true(qmp_client_wants_input(client));
	memset(spaces, ' ', QMP_CLIENT_PARKED_MAX);
	for (size_t i = 0; i <= QMP_CLIENT_BATCH; i++)
		memcpy(spaces + i * 14, "{\"event\": \"E\"}", 14);
	assert_int_equal(qmp_client_feed(client, spaces, QMP_CLIENT_PARKED_MAX), 0);
	assert_int_equal(qmp_client_feed(client, spaces, QMP_CLIENT_BATCH * 14), 0);
	told_len = 0;
	assert_int_equal(feed(client, " "), -ENOBUFS);
	expect_told("lost -105 more input than can wait;");
	assert_int_equal(feed(client, " "), -ENOBUFS);
	free(spaces);
	qmp_client_free(client);
}

static void nested(struct qmp_buf *buf, size_t depth)
{
	qmp_buf_printf(buf, "{\"id\": 1, \"return\": ");
	for (size_t i = 1; i < depth; i++)
		qmp_buf_append(buf, "[", 1);
	for (size_t i = 1; i < depth; i++)
		qmp_buf_append(buf, "]", 1);
	qmp_buf_append(buf, "}", 1);
}

/* What one message may be; each limit met is fine, and one more is the end. */
static void test_limits_of_messages(void **state)
{
	static const struct qmp_limits small = {.bytes = 150, .tokens = 40};

	(void)state;
	for (size_t over = 0; over < 2; over++) {
		struct qmp_client *client = connect_ready();
		struct qmp_buf text = {0};

		ask(client, "a", 1);
		nested(&text, QMP_DEPTH_MAX + over);
		assert_int_equal(qmp_client_feed(client, text.data, text.len), over ? -EPROTO : 0);
		if (over)
			expect_told("a lost;" PROTO "JSON nesting depth limit exceeded;");
		else
			assert_memory_equal(told, "a return [[[[", 13);
		told_len = 0;
		qmp_buf_free(&text);
		qmp_client_free(client);

		client = connect_ready();
		ask(client, "a", 1);
		qmp_buf_printf(&text, "{\"id\": 1, \"return\": 1");
		while (text.len < QMP_MESSAGE_MAX - 1 + over)
			qmp_buf_append(&text, " ", 1);
		qmp_buf_append(&text, "}", 1);
		assert_int_equal(qmp_client_feed(client, text.data, text.len), over ? -EPROTO : 0);
		expect_told(over ? "a lost;" PROTO "JSON token size limit exceeded;"
				 : "a return 1;");
		qmp_buf_free(&text);
		qmp_client_free(client);

		/* other limits than the usual ones, kept from message to message */
		client = qmp_client_new(&ops, &mark, 1, &small);
		assert_int_equal(feed(client, GREETING NEGOTIATED "{\"event\": \"E\"}"), 0);
		qmp_buf_printf(&text, "{\"event\": \"E\", \"x\": [");
		for (size_t i = 0; i < 34 + over; i++)
			qmp_buf_append(&text, i ? ",1" : "1", i ? 2 : 1);
		qmp_buf_append(&text, "]}", 2);
		told_len = 0;
		assert_int_equal(qmp_client_feed(client, text.data, text.len), over ? -EPROTO : 0);
		expect_told(over ? PROTO "JSON token count limit exceeded;"
				 : "event E null -1.000000;");
		qmp_buf_free(&text);
		qmp_client_free(client);
	}
}

/* Whatever a callback does: here each answer closes the client, asks again, or both. */
static struct qmp_client *current;
static int asked_again;

static void on_answer_close(void *opaque, const struct qmp_answer *answer)
{
	on_answer(opaque, answer);
	qmp_client_close(current, -ECANCELED, "enough");
	asked_again = ask(current, "never", 0);
}

static void on_answer_ask(void *opaque, const struct qmp_answer *answer)
{
	on_answer(opaque, answer);
	asked_again = ask_for(current, "ask", json_object_new_object(), 0, on_answer_ask, "again");
}

static void test_callbacks_that_close(void **state)
{
	(void)state;
	for (int timeout = 0; timeout < 2; timeout++) {
		current = connect_ready();
		ask(current, "a", 9);
		ask_for(current, "x", json_object_new_object(), 5, on_answer_close, "b");
		ask(current, "c", 5);
		if (timeout)
			qmp_client_tick(current, 5);
		else
			assert_int_equal(
				feed(current, "{\"return\": 1, \"id\": 2}{\"event\": \"E\"}"),
				-ECANCELED);
		expect_told(timeout ? "b timeout;a lost;c lost;lost -125 enough;"
				    : "b return 1;a lost;c lost;lost -125 enough;");
		assert_int_equal(asked_again, -ENOTCONN);
		qmp_client_free(current);
	}
}

static void test_callbacks_that_ask(void **state)
{
	(void)state;
	current = connect_ready();
	ask_for(current, "x", json_object_new_object(), 5, on_answer_ask, "a");
	feed(current, "{\"return\": 1, \"id\": 1}");
	expect_told("a return 1;");
	assert_int_equal(asked_again, 0);
	assert_int_equal(qmp_client_next_deadline(current), 0);
	/* once a tick: that ends */
	qmp_client_tick(current, 5);
	expect_told("again timeout;");
	qmp_client_tick(current, 5);
	expect_told("again timeout;");
	assert_int_equal(qmp_client_pending(current), 1);
	qmp_client_free(current);
	expect_told("again lost;");
	assert_int_equal(asked_again, -ENOTCONN);
}

static void test_numbers(void **state)
{
	struct json_object *obj = json_tokener_parse("{\"a\": 18446744073709551615, \"b\": 0, "
						     "\"c\": -1, \"d\": 1.0, \"e\": \"1\", "
						     "\"f\": null, \"g\": 9223372036854775808}");
	static const struct {
		const char *key;
		int ret;
		uint64_t value;
	} cases[] = {
		{"a", 0, UINT64_MAX},        {"b", 0, 0},       {"c", -ERANGE, 7},
		{"d", -EINVAL, 7},           {"e", -EINVAL, 7}, {"f", -EINVAL, 7},
		{"g", 0, UINT64_C(1) << 63}, {"h", -ENOENT, 7},
	};

	(void)state;
	assert_non_null(obj);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 7;

		assert_int_equal(qmp_obj_get_uint64(obj, cases[i].key, &value), cases[i].ret);
		assert_int_equal(value, cases[i].value);
	}
	assert_int_equal(qmp_obj_get_uint64(NULL, "a", &(uint64_t){0}), -ENOENT);
	assert_null(qmp_obj_get(obj, "a", json_type_string));
	assert_null(qmp_obj_get(NULL, "a", json_type_int));
	assert_non_null(qmp_obj_get(obj, "e", json_type_string));
	json_object_put(obj);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_every_message_in_every_state, setup),
		cmocka_unit_test_setup(test_lost_is_for_good, setup),
		cmocka_unit_test_setup(test_every_split, setup),
		cmocka_unit_test_setup(test_requests_on_the_wire, setup),
		cmocka_unit_test_setup(test_not_ready, setup),
		cmocka_unit_test_setup(test_limits_of_requests, setup),
		cmocka_unit_test_setup(test_deadlines, setup),
		cmocka_unit_test_setup(test_slow_negotiation, setup),
		cmocka_unit_test_setup(test_flood, setup),
		cmocka_unit_test_setup(test_flood_of_who_does_not_listen, setup),
		cmocka_unit_test_setup(test_limits_of_messages, setup),
		cmocka_unit_test_setup(test_callbacks_that_close, setup),
		cmocka_unit_test_setup(test_callbacks_that_ask, setup),
		cmocka_unit_test_setup(test_numbers, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
