// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qmp/human.h"
#include "qmp/server.h"

static struct qmp_request *deferred;

static enum qmp_outcome info_balloon(struct qmp_request *req, size_t argc, char *const *argv,
				     struct qmp_buf *text, struct qmp_error *err)
{
	(void)req;
	(void)argv;
	(void)err;
	assert_int_equal(argc, 0);
	qmp_buf_printf(text, "balloon: actual=%d\n", 512);
	return QMP_DONE;
}

static enum qmp_outcome info_later(struct qmp_request *req, size_t argc, char *const *argv,
				   struct qmp_buf *text, struct qmp_error *err)
{
	(void)argc;
	(void)argv;
	(void)err;
	qmp_buf_printf(text, "never seen");
	deferred = req;
	return QMP_DEFERRED;
}

static enum qmp_outcome balloon(struct qmp_request *req, size_t argc, char *const *argv,
				struct qmp_buf *text, struct qmp_error *err)
{
	(void)req;
	if (strcmp(argv[0], "1")) {
		qmp_error_set(err, QMP_DEVICE_NOT_ACTIVE, "No balloon device has been activated");
		return QMP_FAILED;
	}
	if (argc == 2)
		qmp_buf_printf(text, "%s\n", argv[1]);
	return QMP_DONE;
}

static const struct qmp_human_command infos[] = {
	{.name = "balloon", .args = "", .help = "show the balloon", .handler = info_balloon},
	{.name = "later", .args = "", .help = "wait for it", .handler = info_later},
};
static const struct qmp_human_command table[] = {
	{.name = "info", .args = "[subcommand]", .help = "show things", .sub = infos, .n_sub = 2},
	{.name = "balloon",
	 .args = "target",
	 .help = "change it",
	 .min_args = 1,
	 .max_args = 2,
	 .handler = balloon},
};

static enum qmp_outcome human_monitor_command(struct qmp_request *req, struct json_object *args,
					      struct json_object **result, struct qmp_error *err)
{
	return qmp_human_run(table, 2, req, args, result, err);
}

static const struct qmp_command commands[] = {
	{.name = "human-monitor-command",
	 .args = &qmp_human_args,
	 .returns = &qmp_str,
	 .handler = human_monitor_command,
	 .doc = "Run a command of the human monitor."},
};
static const struct qmp_schema schema = {QMP_COMMANDS(commands)};
static const struct qmp_version version = {1, 2, 3, "test"};

static void drop_output(struct qmp_conn *conn)
{
	size_t len;
	char *out = qmp_conn_take_output(conn, &len);

	if (out)
		qmp_conn_written(conn, len);
	free(out);
}

/* Runs @line, and checks the text that comes back (NULL: none yet). */
static void expect(struct qmp_conn *conn, const char *line, const char *text)
{
	struct json_object *msg = json_object_new_object(), *args = json_object_new_object();
	struct json_object *reply, *val = NULL;
	struct qmp_buf in = {0};
	size_t len = 0;
	char *out;

	qmp_obj_add(&args, "command-line", json_object_new_string(line));
	qmp_obj_add(&msg, "execute", json_object_new_string("human-monitor-command"));
	qmp_obj_add(&msg, "arguments", args);
	assert_int_equal(qmp_json_write(&in, msg), 0);
	assert_int_equal(qmp_conn_feed(conn, in.data, in.len), 0);
	out = qmp_conn_take_output(conn, &len);
	if (text) {
		assert_non_null(out);
		out[len - 2] = '\0';
		reply = json_tokener_parse(out);
		assert_true(json_object_object_get_ex(reply, "return", &val));
		assert_string_equal(json_object_get_string(val), text);
		json_object_put(reply);
		qmp_conn_written(conn, len);
	} else {
		assert_null(out);
	}
	free(out);
	json_object_put(msg);
	qmp_buf_free(&in);
}

static const char *const lines[][2] = {
	{"", ""},
	{"   ", ""},
	{"info balloon", "balloon: actual=512\r\n"},
	{"  info \t balloon \r\n", "balloon: actual=512\r\n"},
	{"info", "info balloon -- show the balloon\r\ninfo later -- wait for it\r\n"},
	{"info nope", "unknown command: 'info nope'\r\n"},
	{"info balloon x", "balloon: extraneous characters at the end of line\r\n"
			   "Try \"help info balloon\" for more information\r\n"},
	{"balloon", "balloon: argument missing\r\nTry \"help balloon\" for more information\r\n"},
	{"balloon 1", ""},
	{"balloon 1 2", "2\r\n"},
	{"balloon 1 2 3", "balloon: extraneous characters at the end of line\r\n"
			  "Try \"help balloon\" for more information\r\n"},
	{"balloon 2", "Error: No balloon device has been activated\r\n"},
	{"x", "unknown command: 'x'\r\n"},
	{"x y z", "unknown command: 'x'\r\n"},
	{"INFO", "unknown command: 'INFO'\r\n"},
	{"help", "info [subcommand] -- show things\r\nballoon target -- change it\r\n"
		 "help [command] -- show what there is\r\n"},
	{"help balloon", "balloon target -- change it\r\n"},
	{"help help", "help [command] -- show what there is\r\n"},
	{"help info", "info balloon -- show the balloon\r\ninfo later -- wait for it\r\n"},
	{"help info later", "info later -- wait for it\r\n"},
	{"help info x", "unknown command: 'info x'\r\n"},
	{"help x", "unknown command: 'x'\r\n"},
	{"balloon 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
	 "balloon: extraneous characters at the end of line\r\n"},
};

static void test_lines(void **state)
{
	struct qmp_server server;
	struct qmp_conn *conn;

	(void)state;
	qmp_server_init(&server, &schema, &version, NULL);
	conn = qmp_conn_new(&server);
	assert_non_null(conn);
	qmp_conn_feed(conn, "{\"execute\":\"qmp_capabilities\"}", 30);
	drop_output(conn);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		expect(conn, lines[i][0], lines[i][1]);
	qmp_conn_free(conn);
}

static void test_deferred(void **state)
{
	struct qmp_server server;
	struct qmp_conn *conn;
	struct qmp_buf text = {0};
	size_t len;
	char *out;

	(void)state;
	qmp_server_init(&server, &schema, &version, NULL);
	conn = qmp_conn_new(&server);
	assert_non_null(conn);
	qmp_conn_feed(conn, "{\"execute\":\"qmp_capabilities\"}", 30);
	drop_output(conn);
	expect(conn, "info later", NULL);
	qmp_buf_printf(&text, "now\n\nthen");
	qmp_request_complete(deferred, qmp_human_text(&text), NULL);
	out = qmp_conn_take_output(conn, &len);
	assert_non_null(out);
	assert_memory_equal(out, "{\"return\": \"now\\r\\n\\r\\nthen\"}\r\n", len);
	free(out);
	/* what is not whole is no text */
	text.failed = true;
	assert_null(qmp_human_text(&text));
	qmp_buf_free(&text);
	qmp_conn_free(conn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_deferred),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
