/* SPDX-License-Identifier: MIT */
/*
 * For tests of the monitor's commands: a client that speaks to them in JSON, with each reply
 * checked against the schema; a balloon with rings in memory; and what the server does around them.
 */
#ifndef COMMANDS_HELPERS_H
#define COMMANDS_HELPERS_H

#include "helpers.h"

#include <errno.h>

#include "../../src/vhost-user-balloon/commands.h"
#include "../../src/vhost-user-balloon/server.h"
#include "common/clock.h"
#include "qmp/human.h"
#include "qmp/server.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH    BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define POISON  BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define MESSAGE BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)

static struct server s;
static struct test_balloon t; /* its rings and memory serve s.balloon */
static struct qmp_server qmp;
static struct qmp_conn *conn;
static uint64_t now_ms, guest_size, poll_ms;
static bool vmm, quit;
static int stats_error;
static struct stats_waiter *waiter;

/* --- what the server does --- */

struct instant clock_now(void)
{
	return test_at(now_ms);
}

void server_set_guest_size(struct server *server, uint64_t bytes)
{
	assert_ptr_equal(server, &s);
	guest_size = bytes;
}

int server_guest_size(const struct server *server, uint64_t *bytes)
{
	assert_ptr_equal(server, &s);
	if (!guest_size)
		return -ENODEV;
	*bytes = guest_size;
	return 0;
}

int server_request_stats(struct server *server, struct stats_waiter *w)
{
	assert_ptr_equal(server, &s);
	if (!stats_error)
		waiter = w;
	return stats_error;
}

void server_set_poll_interval(struct server *server, uint64_t interval_ms)
{
	assert_ptr_equal(server, &s);
	poll_ms = interval_ms;
}

void server_quit(struct server *server)
{
	assert_ptr_equal(server, &s);
	quit = true;
}

bool frontend_connected(const struct frontend *f)
{
	assert_ptr_equal(f, &s.frontend);
	return vmm;
}

uint64_t reclaim_resident(const struct reclaim *r)
{
	assert_ptr_equal(r, &s.frontend.reclaim);
	return 12345;
}

uint64_t reclaim_failures(const struct reclaim *r)
{
	assert_ptr_equal(r, &s.frontend.reclaim);
	return 3;
}

void monitor_complete(struct monitor *m, struct qmp_request *req, struct json_object *result,
		      const struct qmp_error *err)
{
	assert_ptr_equal(m, &s.monitor);
	qmp_request_complete(req, result, err);
}

static void on_touched(void *opaque)
{
	control_check(&((struct server *)opaque)->control, vmm, clock_now());
}

static void on_health_changed(void *opaque)
{
	(void)opaque;
}

/* --- talking --- */

static char *take(void)
{
	size_t len;
	char *data = qmp_conn_take_output(conn, &len), *text;

	if (!data)
		return NULL;
	text = calloc(1, len + 1);
	assert_non_null(text);
	memcpy(text, data, len);
	free(data);
	qmp_conn_written(conn, len);
	return text;
}

static struct json_object *reply(void)
{
	char *text = take();
	struct json_object *obj;

	assert_non_null(text);
	obj = json_tokener_parse(text);
	if (!obj)
		fail_msg("no JSON: %s", text);
	free(text);
	return obj;
}

static void say(const char *command, const char *arguments)
{
	char line[512];
	int n = snprintf(line, sizeof(line), "{\"execute\": \"%s\", \"arguments\": {%s}}", command,
			 arguments);

	assert_in_range(n, 1, sizeof(line) - 1);
	assert_int_equal(qmp_conn_feed(conn, line, (size_t)n), 0);
}

/* What a command returns; it must be as the schema says. The caller puts it. */
static struct json_object *ask(const char *command, const char *arguments)
{
	const struct qmp_command *row = qmp_schema_command(&qmp.schema, command);
	struct json_object *all, *value;
	struct qmp_error err;

	assert_non_null(row);
	say(command, arguments);
	all = reply();
	if (!json_object_object_get_ex(all, "return", &value))
		fail_msg("%s: %s", command, json_object_to_json_string(all));
	if (qmp_type_check(row->returns, value, "return", &err) < 0)
		fail_msg("%s: %s: %s", command, err.desc, json_object_to_json_string(value));
	json_object_get(value);
	json_object_put(all);
	return value;
}

static void done(const char *command, const char *arguments)
{
	json_object_put(ask(command, arguments));
}

/* A command fails, with these words. */
static void refused(const char *command, const char *arguments, const char *class, const char *desc)
{
	struct json_object *all, *error;

	say(command, arguments);
	all = reply();
	if (!json_object_object_get_ex(all, "error", &error))
		fail_msg("%s: %s", command, json_object_to_json_string(all));
	assert_string_equal(json_object_get_string(json_object_object_get(error, "class")), class);
	assert_string_equal(json_object_get_string(json_object_object_get(error, "desc")), desc);
	json_object_put(all);
}

#define GENERIC "GenericError"

/* The JSON text of a member, dots going down. */
static const char *member(struct json_object *obj, const char *path)
{
	char copy[128], *save = NULL;

	assert_true(strlen(path) < sizeof(copy));
	memcpy(copy, path, strlen(path) + 1);
	for (char *key = strtok_r(copy, ".", &save); key; key = strtok_r(NULL, ".", &save)) {
		if (!json_object_object_get_ex(obj, key, &obj))
			return "(none)";
	}
	return json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN);
}

static void expect(struct json_object *obj, const char *path, const char *text)
{
	if (strcmp(member(obj, path), text) != 0)
		fail_msg("%s is %s, not %s", path, member(obj, path), text);
}

static void expect_number(struct json_object *obj, const char *path, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	expect(obj, path, text);
}

/* Runs a line of the human monitor; every "\n" of @expected is "\r\n" on the wire. */
static void human(const char *line, const char *expected)
{
	char arguments[128];
	struct json_object *text, *wanted;
	struct qmp_buf lines = {0};

	snprintf(arguments, sizeof(arguments), "\"command-line\": \"%s\"", line);
	text = ask("human-monitor-command", arguments);
	qmp_buf_printf(&lines, "%s", expected);
	wanted = qmp_human_text(&lines);
	assert_string_equal(json_object_get_string(text), json_object_get_string(wanted));
	json_object_put(text);
	json_object_put(wanted);
	qmp_buf_free(&lines);
}

/* --- set up --- */

static const struct control_ops control_ops = {on_touched, on_health_changed};

static void connect_client(void)
{
	static const struct qmp_version version = {1, 2, 3, "test"};

	qmp_server_init(&qmp, &monitor_schema, &version, &s);
	conn = qmp_conn_new(&qmp);
	assert_non_null(conn);
	free(take());
	done("qmp_capabilities", "");
}

static void begin_with(uint64_t offered)
{
	static const struct options options = {.health = HEALTH_LIMITS_DEFAULT};

	memset(&s, 0, sizeof(s));
	now_ms = 1000;
	guest_size = poll_ms = 0;
	vmm = quit = false;
	stats_error = 0;
	waiter = NULL;
	test_balloon_init(&t, offered);
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	s.balloon = t.b;
	control_init(&s.control, &s.balloon, &s.settings, &options, &control_ops, &s, clock_now());
	connect_client();
}

static int begin(void **state)
{
	(void)state;
	begin_with(STATS | PUSH | POISON | MESSAGE | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT));
	return 0;
}

static int end(void **state)
{
	(void)state;
	qmp_conn_free(conn);
	test_balloon_end(&t);
	return 0;
}

/* A driver comes. */
static void driver(uint64_t features)
{
	vmm = true;
	guest_size = 100ULL << 20;
	t.b = s.balloon;
	test_balloon_start(&t, features);
	s.balloon = t.b;
	on_touched(&s);
}

#endif
