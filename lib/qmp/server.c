// SPDX-License-Identifier: MIT
/*
 * Theory of operation
 *
 * The engine turns bytes into bytes. The program owns sockets and time: it feeds what it reads,
 * takes what is to be written, says when it was written, and hands in the time with each event.
 *
 * Input: qmp_scan() cuts the stream into JSON texts (limits, errors and recovery at the head of
 * scan.c), json-c parses one, and the message is checked and dispatched in the order and with
 * the words of QEMU's qmp-dispatch.c: shape of the message, then the command's name, then its
 * arguments against the schema, then the handler. A bad message gets an error object, with the
 * id if the message could be parsed, and the connection stays usable. Two deliberate
 * differences from QEMU: no single-quoted strings, and \u0000 is refused.
 *
 * States of a connection (members of struct qmp_conn):
 * - negotiating (not @negotiated): from the greeting to the first qmp_capabilities that
 *   succeeds. Any other command is CommandNotFound; no events.
 * - open: commands run, events are sent.
 * - waiting (@current set, no handler running): the handler deferred its answer. Nothing is
 *   parsed until qmp_request_complete(), so replies keep the order of commands. Others go on.
 * - failed: an allocation failed where an answer was due. Rather than to leave a client waiting
 *   for a reply that was lost, the program is told to close. Nothing is parsed or sent any more.
 *
 * A handler can defer because struct qmp_request is an allocation of its own. From the call of
 * the handler to qmp_request_complete() it belongs to the handler; the connection only points at
 * it, and it back. Freeing the connection cuts both pointers, so completing later is safe.
 *
 * Output is a buffer per connection. Replies are never dropped. What bounds it is that no
 * command is handled while QMP_OUTPUT_HIGH bytes or more wait (handed out and not yet written
 * included), so it ends at that plus one reply. Input that arrives meanwhile is parked, up to
 * QMP_PARKED_MAX, and handled when there is room; a program that honours
 * qmp_conn_wants_input() parks at most one read.
 *
 * Events: a connection has one slot per event name. An event goes to the slot and from there to
 * the output if less than QMP_OUTPUT_HIGH waits. If the slot is still taken, the newer one
 * replaces the older; the event then says how many were lost in "dropped", a member beside
 * "data" and "timestamp" and absent if none were. Clients must ignore members they do not know
 * (QMP specification), and libvirt, qemu.qmp and qmp-shell do; "data" stays what the schema says.
 *
 * Lines end in "\r\n" as QEMU's do: libvirt looks for just that.
 *
 * A connection outlives the process that serves it if it is handed over while it is idle. All that
 * there is to know of it then is whether it has negotiated.
 */
#include "qmp/server.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/builtin.h"
#include "qmp/scan.h"

static_assert(QMP_PARKED_MAX >= QMP_MESSAGE_MAX, "a whole message can be parked");

/* The newest event of one name that this client has not got yet. */
struct event_slot {
	bool full;
	struct json_object *data;
	int64_t seconds;
	int32_t microseconds;
	uint64_t order;   /* of arrival, over all names */
	uint64_t dropped; /* older ones that this one replaced */
};

struct qmp_conn {
	struct qmp_server *server;
	struct qmp_conn *prev, *next;
	struct qmp_scan scan;
	struct qmp_buf out;    /* not handed out yet */
	size_t in_flight;      /* bytes handed out, not yet written */
	struct qmp_buf parked; /* input not looked at yet */
	struct qmp_request *current;
	bool negotiated;
	bool running; /* in run_input() */
	bool failed;
	uint64_t events; /* seen, for event_slot.order */
	struct event_slot slots[];
};

struct qmp_request {
	void *opaque;
	struct qmp_conn *conn; /* NULL once that is freed */
	const struct qmp_command *command;
	bool has_id;
	struct json_object *id;
};

/* A client that cannot be answered is let go. */
static void fail(struct qmp_conn *conn)
{
	conn->failed = true;
	qmp_buf_free(&conn->out);
	qmp_buf_free(&conn->parked);
	qmp_scan_free(&conn->scan);
}

static bool below_mark(const struct qmp_conn *conn)
{
	return conn->out.len + conn->in_flight < QMP_OUTPUT_HIGH;
}

static void end_line(struct qmp_conn *conn)
{
	qmp_buf_append(&conn->out, "\r\n", 2);
	if (conn->out.failed)
		fail(conn);
}

/* Sends a reply: @err if not NULL, else @result (borrowed; NULL is {}). */
static void reply(struct qmp_conn *conn, bool has_id, struct json_object *id,
		  struct json_object *result, const struct qmp_error *err)
{
	struct qmp_buf *out = &conn->out;

	if (conn->failed)
		return;
	if (err) {
		struct json_object *desc = json_object_new_string(err->desc);

		qmp_buf_printf(out, "{\"error\": {\"class\": \"%s\", \"desc\": ",
			       qmp_error_class_name(err->class));
		qmp_json_write(out, desc);
		qmp_buf_append(out, "}", 1);
		if (!desc)
			out->failed = true;
		json_object_put(desc);
	} else {
		qmp_buf_append(out, "{\"return\": ", 11);
		if (result)
			qmp_json_write(out, result);
		else
			qmp_buf_append(out, "{}", 2);
	}
	if (has_id) {
		qmp_buf_append(out, ", \"id\": ", 8);
		qmp_json_write(out, id);
	}
	qmp_buf_append(out, "}", 1);
	end_line(conn);
}

static void free_request(struct qmp_request *req)
{
	json_object_put(req->id);
	free(req);
}

/* Answers @req as @outcome says. Takes @req and @result over. */
static void finish(struct qmp_request *req, enum qmp_outcome outcome, struct json_object *result,
		   struct qmp_error *err)
{
	struct qmp_conn *conn = req->conn;

	if (outcome == QMP_FAILED && !err->desc[0])
		qmp_error_set(err, err->class, "The command %s failed", req->command->name);
	if (outcome == QMP_DONE && !result && req->command->returns) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "Out of memory");
		outcome = QMP_FAILED;
	}
	if (conn) {
		conn->current = NULL;
		reply(conn, req->has_id, req->id, result, outcome == QMP_FAILED ? err : NULL);
	}
	json_object_put(result);
	free_request(req);
}

/* The command @msg wants, its shape checked as in QEMU; NULL with the reason in @err. */
static const struct qmp_command *check_message(const struct qmp_conn *conn, struct json_object *msg,
					       struct json_object **args, struct qmp_error *err)
{
	const struct qmp_command *command;
	const char *name = NULL;

	if (!json_object_is_type(msg, json_type_object)) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "QMP input must be a JSON object");
		return NULL;
	}
	json_object_object_foreach(msg, key, val)
	{
		if (!strcmp(key, "execute")) {
			if (!json_object_is_type(val, json_type_string)) {
				qmp_error_set(err, QMP_GENERIC_ERROR,
					      "QMP input member 'execute' must be a string");
				return NULL;
			}
			name = json_object_get_string(val);
		} else if (!strcmp(key, "arguments")) {
			if (!json_object_is_type(val, json_type_object)) {
				qmp_error_set(err, QMP_GENERIC_ERROR,
					      "QMP input member 'arguments' must be an object");
				return NULL;
			}
			*args = val;
		} else if (strcmp(key, "id")) {
			/* exec-oob too: the capability is not offered. */
			qmp_error_set(err, QMP_GENERIC_ERROR, "QMP input member '%s' is unexpected",
				      key);
			return NULL;
		}
	}
	if (!name) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "QMP input lacks member 'execute'");
		return NULL;
	}
	command = qmp_schema_command(&conn->server->schema, name);
	if (!conn->negotiated && (!command || strcmp(name, "qmp_capabilities"))) {
		qmp_error_set(err, QMP_COMMAND_NOT_FOUND,
			      "Expecting capabilities negotiation with 'qmp_capabilities'");
		return NULL;
	}
	if (!command)
		qmp_error_set(err, QMP_COMMAND_NOT_FOUND, "The command %s has not been found",
			      name);
	return command;
}

/* Runs @command for @conn; answers, or leaves it deferred. */
static void run_command(struct qmp_conn *conn, const struct qmp_command *command,
			struct json_object *args, bool has_id, struct json_object *id)
{
	struct qmp_request *req = calloc(1, sizeof(*req));
	struct qmp_error err = {.class = QMP_GENERIC_ERROR};
	struct json_object *result = NULL;
	enum qmp_outcome outcome;

	if (!req) {
		fail(conn);
		return;
	}
	req->opaque = conn->server->opaque;
	req->conn = conn;
	req->command = command;
	req->has_id = has_id;
	req->id = json_object_get(id);
	conn->current = req;
	outcome = command->handler(req, args, &result, &err);
	if (outcome != QMP_DEFERRED)
		finish(req, outcome, result, &err);
	else
		json_object_put(result); /* @req may be gone: completed within the handler */
}

static void handle_message(struct qmp_conn *conn, struct json_object *msg)
{
	struct json_object *id = NULL, *args = NULL;
	struct qmp_error err = {.class = QMP_GENERIC_ERROR};
	const struct qmp_command *command = check_message(conn, msg, &args, &err);
	bool has_id = json_object_is_type(msg, json_type_object) &&
		      json_object_object_get_ex(msg, "id", &id);

	if (!command) {
		reply(conn, has_id, id, NULL, &err);
		return;
	}
	args = args ? json_object_get(args) : json_object_new_object();
	if (!args)
		fail(conn);
	else if (qmp_type_check(command->args, args, NULL, &err))
		reply(conn, has_id, id, NULL, &err);
	else
		run_command(conn, command, args, has_id, id);
	json_object_put(args);
}

/* The text in conn->scan is complete: parse it and see to it. */
static void handle_text(struct qmp_conn *conn)
{
	struct qmp_error err;
	struct json_object *msg;
	int ret = qmp_scan_parse(&conn->scan, &msg, &err);

	if (ret == -ENOMEM)
		fail(conn);
	else if (ret)
		reply(conn, false, NULL, NULL, &err);
	else
		handle_message(conn, msg);
	json_object_put(msg);
}

/* Handles @data until it is used up or the connection may not go on. Returns the bytes used. */
static size_t run_input(struct qmp_conn *conn, const char *data, size_t len)
{
	size_t pos = 0, used;
	struct qmp_error err;

	conn->running = true;
	while (pos < len && !conn->failed && !conn->current && below_mark(conn)) {
		enum qmp_scan_event event =
			qmp_scan(&conn->scan, data + pos, len - pos, &used, &err);

		pos += used;
		switch (event) {
		case QMP_SCAN_TEXT:
			handle_text(conn);
			qmp_scan_done(&conn->scan); /* a long text must not stay in memory */
			break;
		case QMP_SCAN_ERROR:
			reply(conn, false, NULL, NULL, &err);
			break;
		case QMP_SCAN_NOMEM:
			fail(conn);
			break;
		case QMP_SCAN_MORE:
			break;
		}
	}
	conn->running = false;
	return pos;
}

/* Goes on with input that had to wait. */
static void run_parked(struct qmp_conn *conn)
{
	struct qmp_buf parked = conn->parked;
	size_t used;

	if (conn->running || !parked.len)
		return;
	conn->parked = (struct qmp_buf){0};
	used = run_input(conn, parked.data, parked.len);
	if (conn->failed || used == parked.len) {
		qmp_buf_free(&parked);
		return;
	}
	memmove(parked.data, parked.data + used, parked.len - used);
	parked.len -= used;
	conn->parked = parked;
}

int qmp_conn_feed(struct qmp_conn *conn, const void *data, size_t len)
{
	size_t used = 0;

	if (conn->failed)
		return -ENOMEM;
	if (!conn->parked.len)
		used = run_input(conn, data, len);
	if (conn->failed)
		return -ENOMEM;
	if (used == len)
		return 0;
	if (len - used > QMP_PARKED_MAX - conn->parked.len) {
		fail(conn);
		return -ENOBUFS;
	}
	if (qmp_buf_append(&conn->parked, (const char *)data + used, len - used)) {
		fail(conn);
		return -ENOMEM;
	}
	return 0;
}

bool qmp_conn_wants_input(const struct qmp_conn *conn)
{
	return !conn->failed && !conn->current && !conn->parked.len && below_mark(conn);
}

bool qmp_conn_failed(const struct qmp_conn *conn)
{
	return conn->failed;
}

/* The oldest event that waits, or NULL. */
static struct event_slot *oldest_event(struct qmp_conn *conn)
{
	struct event_slot *found = NULL;

	for (size_t i = 0; i < conn->server->schema.n_events; i++) {
		struct event_slot *slot = &conn->slots[i];

		if (slot->full && (!found || slot->order < found->order))
			found = slot;
	}
	return found;
}

static void send_events(struct qmp_conn *conn)
{
	struct event_slot *slot;
	struct qmp_buf *out = &conn->out;

	while (!conn->failed && below_mark(conn) && (slot = oldest_event(conn))) {
		qmp_buf_printf(out,
			       "{\"timestamp\": {\"seconds\": %" PRId64
			       ", \"microseconds\": %" PRId32 "}, \"event\": \"%s\"",
			       slot->seconds, slot->microseconds,
			       conn->server->schema.events[slot - conn->slots].name);
		if (slot->data) {
			qmp_buf_append(out, ", \"data\": ", 10);
			qmp_json_write(out, slot->data);
		}
		if (slot->dropped)
			qmp_buf_printf(out, ", \"dropped\": %" PRIu64, slot->dropped);
		qmp_buf_append(out, "}", 1);
		end_line(conn);
		json_object_put(slot->data);
		*slot = (struct event_slot){0};
	}
}

int qmp_server_event(struct qmp_server *server, size_t event, struct json_object *data,
		     int64_t seconds, int32_t microseconds)
{
	if (event >= server->schema.n_events || (data && !server->schema.events[event].data)) {
		json_object_put(data);
		return -EINVAL;
	}
	if (!data && server->schema.events[event].data)
		return -ENOMEM;
	for (struct qmp_conn *conn = server->conns; conn; conn = conn->next) {
		struct event_slot *slot = &conn->slots[event];
		uint64_t dropped = slot->full ? slot->dropped + 1 : 0;

		if (!conn->negotiated || conn->failed)
			continue;
		json_object_put(slot->data);
		*slot = (struct event_slot){
			.full = true,
			.data = json_object_get(data),
			.seconds = seconds,
			.microseconds = microseconds,
			.order = conn->events++,
			.dropped = dropped,
		};
		send_events(conn);
	}
	json_object_put(data);
	return 0;
}

char *qmp_conn_take_output(struct qmp_conn *conn, size_t *len)
{
	char *data = conn->out.data;

	if (!conn->out.len)
		return NULL;
	*len = conn->out.len;
	conn->in_flight += conn->out.len;
	conn->out = (struct qmp_buf){0};
	return data;
}

void qmp_conn_written(struct qmp_conn *conn, size_t len)
{
	conn->in_flight -= len < conn->in_flight ? len : conn->in_flight;
	send_events(conn);
	run_parked(conn);
}

void *qmp_request_opaque(const struct qmp_request *req)
{
	return req->opaque;
}

struct qmp_conn *qmp_request_conn(const struct qmp_request *req)
{
	return req->conn;
}

void qmp_request_complete(struct qmp_request *req, struct json_object *result,
			  const struct qmp_error *err)
{
	struct qmp_conn *conn = req->conn;
	struct qmp_error copy = {.class = QMP_GENERIC_ERROR};

	if (err)
		copy = *err;
	finish(req, err ? QMP_FAILED : QMP_DONE, result, &copy);
	if (conn)
		run_parked(conn);
}

const struct qmp_server *qmp_request_server(const struct qmp_request *req)
{
	return req->conn->server;
}

bool qmp_conn_negotiated(const struct qmp_conn *conn)
{
	return conn->negotiated;
}

void qmp_conn_set_negotiated(struct qmp_conn *conn)
{
	conn->negotiated = true;
}

void qmp_server_init(struct qmp_server *server, const struct qmp_schema *schema,
		     const struct qmp_version *version, void *opaque)
{
	*server = (struct qmp_server){.schema = *schema, .version = *version, .opaque = opaque};
	server->schema.base = &qmp_builtin_schema;
}

struct qmp_conn *qmp_conn_resume(struct qmp_server *server, bool negotiated)
{
	struct qmp_conn *conn =
		calloc(1, sizeof(*conn) + server->schema.n_events * sizeof(conn->slots[0]));

	if (!conn)
		return NULL;
	conn->server = server;
	conn->negotiated = negotiated;
	conn->next = server->conns;
	if (conn->next)
		conn->next->prev = conn;
	server->conns = conn;
	return conn;
}

struct qmp_conn *qmp_conn_new(struct qmp_server *server)
{
	struct json_object *version = qmp_version_info(server);
	struct qmp_conn *conn = version ? qmp_conn_resume(server, false) : NULL;

	if (conn) {
		qmp_buf_append(&conn->out, "{\"QMP\": {\"version\": ", 20);
		qmp_json_write(&conn->out, version);
		qmp_buf_append(&conn->out, ", \"capabilities\": []}}", 22);
		end_line(conn);
		if (conn->failed) {
			qmp_conn_free(conn);
			conn = NULL;
		}
	}
	json_object_put(version);
	return conn;
}

bool qmp_conn_idle(const struct qmp_conn *conn)
{
	for (size_t i = 0; i < conn->server->schema.n_events; i++) {
		if (conn->slots[i].full)
			return false;
	}
	return !conn->failed && !conn->current && !conn->running && !conn->parked.len &&
	       !conn->out.len && !conn->in_flight && qmp_scan_at_start(&conn->scan);
}

void qmp_conn_free(struct qmp_conn *conn)
{
	if (!conn)
		return;
	if (conn->current)
		conn->current->conn = NULL;
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		conn->server->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	for (size_t i = 0; i < conn->server->schema.n_events; i++)
		json_object_put(conn->slots[i].data);
	qmp_buf_free(&conn->out);
	qmp_buf_free(&conn->parked);
	qmp_scan_free(&conn->scan);
	free(conn);
}
