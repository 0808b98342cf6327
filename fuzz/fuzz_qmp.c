// SPDX-License-Identifier: MIT
/*
 * A QMP client that sends anything, in any split, reads when it likes and may leave at any time.
 *
 * Input: byte 0 chooses the splits, bit 7 of it whether the client negotiates first; the rest is
 * what is sent. Between pieces things happen that a client has no say in: deferred requests
 * complete, events come, output is written or is not. Fed twice, once in pieces and once whole,
 * the replies must be the same bytes, and every line must be JSON.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/human.h"
#include "qmp/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct qmp_request *deferred;

static void require(bool ok)
{
	if (!ok)
		abort();
}

static enum qmp_outcome cmd_echo(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)err;
	*result = json_object_get(args);
	return QMP_DONE;
}

static enum qmp_outcome cmd_later(struct qmp_request *req, struct json_object *args,
				  struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	require(!deferred);
	deferred = req;
	return QMP_DEFERRED;
}

static enum qmp_outcome human_say(struct qmp_request *req, size_t argc, char *const *argv,
				  struct qmp_buf *text, struct qmp_error *err)
{
	(void)req;
	(void)err;
	for (size_t i = 0; i < argc; i++)
		qmp_buf_printf(text, "%s\n", argv[i]);
	return QMP_DONE;
}

static const struct qmp_human_command humans[] = {
	{.name = "say", .args = "[word]...", .help = "say it", .max_args = 3, .handler = human_say},
};

static enum qmp_outcome cmd_human(struct qmp_request *req, struct json_object *args,
				  struct json_object **result, struct qmp_error *err)
{
	return qmp_human_run(humans, 1, req, args, result, err);
}

static const struct qmp_type mode = QMP_ENUM("a", "b");
static const struct qmp_type ints = QMP_ARRAY(&qmp_int);
static const struct qmp_type echo_args =
	QMP_OBJECT(QMP_OPTIONAL("any", &qmp_any, "x"), QMP_OPTIONAL("size", &qmp_size, "x"),
		   QMP_OPTIONAL("ints", &ints, "x"), QMP_OPTIONAL("mode", &mode, "x"),
		   QMP_OPTIONAL("number", &qmp_number, "x"), QMP_OPTIONAL("bool", &qmp_bool, "x"));

static const struct qmp_command commands[] = {
	{.name = "echo",
	 .args = &echo_args,
	 .returns = &echo_args,
	 .handler = cmd_echo,
	 .doc = "x"},
	{.name = "later", .handler = cmd_later, .doc = "x"},
	{.name = "human-monitor-command",
	 .args = &qmp_human_args,
	 .returns = &qmp_str,
	 .handler = cmd_human,
	 .doc = "x"},
};
static const struct qmp_event events[] = {{.name = "TICK", .doc = "x"}};
static const struct qmp_schema schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
static const struct qmp_version version = {1, 2, 3, "fuzz"};

static void complete(void)
{
	struct qmp_request *req = deferred;

	deferred = NULL;
	if (req)
		qmp_request_complete(req, NULL, NULL);
}

static void collect(struct qmp_conn *conn, struct qmp_buf *out)
{
	size_t len;
	char *data;

	while ((data = qmp_conn_take_output(conn, &len))) {
		qmp_buf_append(out, data, len);
		free(data);
		qmp_conn_written(conn, len);
	}
}

/* What comes back for @len bytes sent in pieces of @step, without events. */
static struct qmp_buf replies(const char *in, size_t len, size_t step, bool negotiate)
{
	struct qmp_server server;
	struct qmp_conn *conn;
	struct qmp_buf out = {0};

	qmp_server_init(&server, &schema, &version, NULL);
	conn = qmp_conn_new(&server);
	require(conn);
	if (negotiate)
		qmp_conn_feed(conn, "{\"execute\":\"qmp_capabilities\"}", 30);
	for (size_t pos = 0; pos < len; pos += step) {
		size_t n = len - pos < step ? len - pos : step;

		require(qmp_conn_feed(conn, in + pos, n) == 0);
		do {
			complete();
			collect(conn, &out);
		} while (deferred);
		require(qmp_conn_wants_input(conn));
	}
	qmp_conn_free(conn);
	return out;
}

static void check_lines(const struct qmp_buf *out)
{
	struct json_tokener *tok = json_tokener_new_ex(80);

	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	for (size_t pos = 0; pos < out->len;) {
		const char *end = memchr(out->data + pos, '\n', out->len - pos);
		struct json_object *obj;

		require(end && end[-1] == '\r');
		obj = json_tokener_parse_ex(tok, out->data + pos,
					    (int)(end - out->data - (long)pos));
		require(json_object_is_type(obj, json_type_object));
		json_object_put(obj);
		json_tokener_reset(tok);
		pos = (size_t)(end - out->data) + 1;
	}
	json_tokener_free(tok);
}

/* The same, by a client that reads little and leaves in the middle, with events. */
static void rude(const char *in, size_t len, size_t step)
{
	struct qmp_server server;
	struct qmp_conn *conn;
	size_t pending;
	char *data;

	qmp_server_init(&server, &schema, &version, NULL);
	conn = qmp_conn_new(&server);
	require(conn);
	qmp_conn_feed(conn, "{\"execute\":\"qmp_capabilities\"}", 30);
	for (size_t pos = 0, turn = 0; pos < len; pos += step, turn++) {
		size_t n = len - pos < step ? len - pos : step;

		if (qmp_conn_feed(conn, in + pos, n))
			break;
		require(qmp_server_event(&server, 0, NULL, 1, 2) == 0);
		if (turn % 5 == 4)
			complete();
		if (turn % 3 == 2 && (data = qmp_conn_take_output(conn, &pending))) {
			free(data);
			qmp_conn_written(conn, pending);
		}
	}
	qmp_conn_free(conn);
	complete();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qmp_buf whole, pieces;
	const char *in = (const char *)data + 1;
	size_t step;

	if (size < 2)
		return 0;
	step = 1 + (data[0] & 0x3fu);
	whole = replies(in, size - 1, size - 1, data[0] & 0x80);
	pieces = replies(in, size - 1, step, data[0] & 0x80);
	require(whole.len == pieces.len);
	require(!whole.len || !memcmp(whole.data, pieces.data, whole.len));
	check_lines(&whole);
	qmp_buf_free(&whole);
	qmp_buf_free(&pieces);
	rude(in, size - 1, step);
	return 0;
}
