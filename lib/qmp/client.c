// SPDX-License-Identifier: MIT
/*
 * Theory of operation
 *
 * One client is one connection. It starts with the monitor's greeting, answers that with
 * qmp_capabilities (no capability is asked for: answers then come in the order of requests, and
 * out-of-band commands are not for us), and is ready when that has returned. Reconnecting, with
 * whatever patience, is making another client.
 *
 * The monitor is hostile until its message is checked, and there is one answer to whatever does not
 * hold: the connection is lost, and everybody who waits for an answer hears so. A monitor that
 * sends something else than QMP has nothing more to say that could be believed; and to skip what
 * was refused could mean to wait for an answer that was in it. So there are no half-broken states.
 * Refused is what qmp_scan() refuses (limits, grammar, duplicate keys, numbers that would be
 * rounded), whatever comes before the greeting, a message that is not of exactly one kind, a kind
 * that has no place in this state (the table `moves`), and an answer to what was never asked.
 * Members that we do not know are ignored, as the QMP specification wants it.
 *
 * Ids are numbers that count up from 1 (0 is the negotiation) and are never used again. So a
 * request that timed out needs no memory: an answer whose id was given out and is not pending is a
 * late one (or a second one), and is counted and dropped. It can never be taken for the answer to a
 * later request.
 *
 * What a monitor can make us hold: one message up to the limits, with what json-c makes of it while
 * it is handled; input that waits up to QMP_CLIENT_PARKED_MAX, in practice one read of the
 * program; the greeting, until negotiation is over. How long it can keep us: QMP_CLIENT_BATCH
 * messages a call. What one that does not read makes us hold: QMP_CLIENT_OUTPUT_MAX and one
 * request.
 *
 * Callbacks may close the client or make requests, so after each of them nothing is taken for
 * granted: a request is removed before its callback is called, and loops look at the state again.
 */
#include "qmp/client.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static_assert(QMP_CLIENT_PARKED_MAX >= QMP_MESSAGE_MAX, "a whole message can be parked");

struct pending {
	uint64_t id;
	uint64_t deadline;
	qmp_client_done *done;
	void *opaque;
};

struct qmp_client {
	const struct qmp_client_ops *ops;
	void *opaque;
	enum qmp_client_state state;
	int error;         /* why it is lost */
	uint64_t deadline; /* until ready */
	struct json_object *greeting;
	struct qmp_scan scan;
	struct qmp_buf out;    /* not handed out yet */
	size_t in_flight;      /* bytes handed out, not yet written */
	struct qmp_buf parked; /* input not looked at yet */
	bool running;          /* callbacks may be under way */
	uint64_t next_id;
	uint64_t late;
	size_t n_pending;
	struct pending pending[QMP_CLIENT_PENDING_MAX]; /* by id, lowest first */
};

enum kind { KIND_GREETING, KIND_RETURN, KIND_ERROR, KIND_EVENT, KIND_COUNT };

/* The member that says what a message is. */
static const char *const kind_keys[] = {
	[KIND_GREETING] = "QMP",
	[KIND_RETURN] = "return",
	[KIND_ERROR] = "error",
	[KIND_EVENT] = "event",
};
static_assert(sizeof(kind_keys) / sizeof(kind_keys[0]) == KIND_COUNT, "one key for every kind");

/* Takes the request at @index out, as its end is near, and tells how it ended. */
static void answer(struct qmp_client *client, size_t index, const struct qmp_answer *how)
{
	struct pending request = client->pending[index];

	client->n_pending--;
	memmove(&client->pending[index], &client->pending[index + 1],
		(client->n_pending - index) * sizeof(client->pending[0]));
	request.done(request.opaque, how);
}

/* From here on nothing is taken, sent or handled. */
static void shut(struct qmp_client *client, int error)
{
	const struct qmp_answer lost = {.kind = QMP_ANSWER_LOST};
	bool running = client->running;

	client->running = true;
	client->state = QMP_CLIENT_LOST;
	client->error = error;
	json_object_put(client->greeting);
	client->greeting = NULL;
	qmp_buf_free(&client->out);
	qmp_buf_free(&client->parked);
	qmp_scan_free(&client->scan);
	while (client->n_pending)
		answer(client, 0, &lost);
	client->running = running;
}

static void lose(struct qmp_client *client, int error, const char *why)
{
	bool running = client->running;

	if (client->state == QMP_CLIENT_LOST)
		return;
	shut(client, error);
	client->running = true;
	client->ops->lost(client->opaque, error, why);
	client->running = running;
}

/* Appends a request to the output, or leaves that as it was. 0, -EMSGSIZE, -ENOMEM. */
static int send(struct qmp_client *client, const char *command, struct json_object *args,
		uint64_t id)
{
	struct json_object *name = json_object_new_string(command);
	struct qmp_buf *out = &client->out;
	size_t before = out->len;
	int ret = 0;

	qmp_buf_append(out, "{\"execute\": ", 12);
	qmp_json_write(out, name);
	if (args && json_object_object_length(args)) {
		qmp_buf_append(out, ", \"arguments\": ", 15);
		qmp_json_write(out, args);
	}
	qmp_buf_printf(out, ", \"id\": %" PRIu64 "}\r\n", id);
	if (out->failed || !name)
		ret = -ENOMEM;
	else if (out->len - before > QMP_MESSAGE_MAX)
		ret = -EMSGSIZE;
	if (ret) {
		out->len = before;
		out->failed = false;
	}
	json_object_put(name);
	return ret;
}

static void on_greeting(struct qmp_client *client, struct json_object *msg)
{
	struct json_object *greeting = qmp_obj_get(msg, "QMP", json_type_object);

	if (!qmp_obj_get(greeting, "version", json_type_object) ||
	    !qmp_obj_get(greeting, "capabilities", json_type_array)) {
		lose(client, -EPROTO, "the greeting lacks version or capabilities");
		return;
	}
	client->greeting = json_object_get(greeting);
	client->state = QMP_CLIENT_NEGOTIATING;
	if (send(client, "qmp_capabilities", NULL, 0))
		lose(client, -ENOMEM, "out of memory");
}

/* Reads what an error answer says. Whether it has what it must have. */
static bool read_error(struct json_object *msg, struct qmp_error *err)
{
	struct json_object *error = qmp_obj_get(msg, "error", json_type_object);
	struct json_object *class = qmp_obj_get(error, "class", json_type_string);
	struct json_object *desc = qmp_obj_get(error, "desc", json_type_string);

	if (!class || !desc)
		return false;
	qmp_error_set(err, qmp_error_class_of(json_object_get_string(class)), "%s",
		      json_object_get_string(desc));
	return true;
}

static void on_negotiated(struct qmp_client *client)
{
	struct json_object *greeting = client->greeting;

	client->greeting = NULL;
	client->state = QMP_CLIENT_READY;
	client->ops->ready(client->opaque, greeting);
	json_object_put(greeting);
}

static void on_reply(struct qmp_client *client, struct json_object *msg)
{
	struct json_object *value = NULL;
	struct qmp_answer how = {.kind = QMP_ANSWER_RETURN};
	struct qmp_error err;
	uint64_t id;

	if (!json_object_object_get_ex(msg, "return", &value)) {
		how = (struct qmp_answer){.kind = QMP_ANSWER_ERROR, .error = &err};
		if (!read_error(msg, &err)) {
			lose(client, -EPROTO, "an error without class or description");
			return;
		}
	}
	how.value = value;
	if (qmp_obj_get_uint64(msg, "id", &id) || id >= client->next_id) {
		/* As with QEMU when it could not even read what was sent to it: the words help. */
		lose(client, -EPROTO,
		     how.kind == QMP_ANSWER_ERROR && err.desc[0]
			     ? err.desc
			     : "an answer to what was not asked");
		return;
	}
	if (client->state == QMP_CLIENT_NEGOTIATING) {
		if (how.kind == QMP_ANSWER_RETURN)
			on_negotiated(client);
		else
			lose(client, -EPROTO, err.desc);
		return;
	}
	for (size_t i = 0; i < client->n_pending; i++) {
		if (client->pending[i].id == id) {
			answer(client, i, &how);
			return;
		}
	}
	client->late++;
}

static void on_event(struct qmp_client *client, struct json_object *msg)
{
	struct json_object *name = qmp_obj_get(msg, "event", json_type_string);
	struct json_object *stamp = qmp_obj_get(msg, "timestamp", json_type_object);
	struct json_object *seconds = qmp_obj_get(stamp, "seconds", json_type_int);
	struct qmp_client_event event = {.seconds = -1};
	struct json_object *data;
	uint64_t micro;

	if (!name || (json_object_object_get_ex(msg, "data", &data) &&
		      !json_object_is_type(data, json_type_object))) {
		lose(client, -EPROTO, "an event without a name, or with data that is no object");
		return;
	}
	event.name = json_object_get_string(name);
	event.data = qmp_obj_get(msg, "data", json_type_object);
	if (seconds)
		event.seconds = json_object_get_int64(seconds);
	if (!qmp_obj_get_uint64(stamp, "microseconds", &micro) && micro < 1000000)
		event.microseconds = (int32_t)micro;
	if (qmp_obj_get_uint64(msg, "dropped", &event.dropped))
		event.dropped = 0;
	client->ops->event(client->opaque, &event);
}

/* Before it is ready the program knows nothing yet that an event could be about. */
static void skip(struct qmp_client *client, struct json_object *msg)
{
	(void)client;
	(void)msg;
}

/* What is done with a message of a kind in a state; nothing there: it has no place in it. */
typedef void move(struct qmp_client *client, struct json_object *msg);
static move *const moves[][KIND_COUNT] = {
	[QMP_CLIENT_GREETING] = {[KIND_GREETING] = on_greeting},
	[QMP_CLIENT_NEGOTIATING] =
		{[KIND_RETURN] = on_reply, [KIND_ERROR] = on_reply, [KIND_EVENT] = skip},
	[QMP_CLIENT_READY] =
		{[KIND_RETURN] = on_reply, [KIND_ERROR] = on_reply, [KIND_EVENT] = on_event},
	[QMP_CLIENT_LOST] = {NULL},
};
static_assert(sizeof(moves) / sizeof(moves[0]) == QMP_CLIENT_STATE_COUNT,
	      "one row for every state");

static void handle_message(struct qmp_client *client, struct json_object *msg)
{
	enum kind kind = KIND_COUNT;
	size_t kinds = 0;

	for (size_t i = 0; i < KIND_COUNT && json_object_is_type(msg, json_type_object); i++) {
		if (json_object_object_get_ex(msg, kind_keys[i], NULL)) {
			kind = (enum kind)i;
			kinds++;
		}
	}
	if (kinds != 1)
		lose(client, -EPROTO, "neither greeting nor answer nor event");
	else if (!moves[client->state][kind])
		lose(client, -EPROTO,
		     client->state == QMP_CLIENT_GREETING ? "something else than a greeting"
							  : "a second greeting");
	else
		moves[client->state][kind](client, msg);
}

static void handle_text(struct qmp_client *client)
{
	struct qmp_error err;
	struct json_object *msg;
	int ret = qmp_scan_parse(&client->scan, &msg, &err);

	if (ret == -ENOMEM)
		lose(client, -ENOMEM, "out of memory");
	else if (ret)
		lose(client, -EPROTO, err.desc);
	else
		handle_message(client, msg);
	json_object_put(msg);
}

/* Handles up to a batch of messages in @data. Returns the bytes used. */
static size_t run_input(struct qmp_client *client, const char *data, size_t len)
{
	size_t pos = 0, used;
	struct qmp_error err;

	client->running = true;
	for (size_t n = 0; pos < len && n < QMP_CLIENT_BATCH && client->state != QMP_CLIENT_LOST;
	     pos += used) {
		switch (qmp_scan(&client->scan, data + pos, len - pos, &used, &err)) {
		case QMP_SCAN_TEXT:
			handle_text(client);
			qmp_scan_done(&client->scan); /* a long text must not stay in memory */
			n++;
			break;
		case QMP_SCAN_ERROR:
			lose(client, -EPROTO, err.desc);
			break;
		case QMP_SCAN_NOMEM:
			lose(client, -ENOMEM, "out of memory");
			break;
		case QMP_SCAN_MORE:
			break;
		}
	}
	client->running = false;
	return pos;
}

static void run_parked(struct qmp_client *client)
{
	struct qmp_buf parked = client->parked;
	size_t used;

	if (!parked.len)
		return;
	client->parked = (struct qmp_buf){0};
	used = run_input(client, parked.data, parked.len);
	if (client->state == QMP_CLIENT_LOST || used == parked.len) {
		qmp_buf_free(&parked);
		return;
	}
	memmove(parked.data, parked.data + used, parked.len - used);
	parked.len -= used;
	client->parked = parked;
}

int qmp_client_feed(struct qmp_client *client, const void *data, size_t len)
{
	size_t used = 0;

	assert(!client->running);
	if (client->state != QMP_CLIENT_LOST && !client->parked.len)
		used = run_input(client, data, len);
	if (client->state != QMP_CLIENT_LOST && used < len) {
		if (len - used > QMP_CLIENT_PARKED_MAX - client->parked.len)
			lose(client, -ENOBUFS, "more input than can wait");
		else if (qmp_buf_append(&client->parked, (const char *)data + used, len - used))
			lose(client, -ENOMEM, "out of memory");
	}
	return client->error;
}

bool qmp_client_wants_input(const struct qmp_client *client)
{
	return client->state != QMP_CLIENT_LOST && !client->parked.len;
}

void qmp_client_tick(struct qmp_client *client, uint64_t now)
{
	const struct qmp_answer timeout = {.kind = QMP_ANSWER_TIMEOUT};
	uint64_t end = client->next_id; /* not those made by callbacks meanwhile: this must end */
	size_t i = 0;

	assert(!client->running);
	run_parked(client);
	if (client->state < QMP_CLIENT_READY && now >= client->deadline)
		lose(client, -ETIMEDOUT,
		     client->state == QMP_CLIENT_GREETING
			     ? "no greeting in time"
			     : "no answer to qmp_capabilities in time");
	client->running = true;
	while (i < client->n_pending && client->pending[i].id < end) {
		if (now >= client->pending[i].deadline)
			answer(client, i, &timeout);
		else
			i++;
	}
	client->running = false;
}

uint64_t qmp_client_next_deadline(const struct qmp_client *client)
{
	uint64_t next = QMP_CLIENT_NEVER;

	if (client->parked.len)
		return 0;
	if (client->state < QMP_CLIENT_READY)
		return client->deadline;
	for (size_t i = 0; i < client->n_pending; i++) {
		if (client->pending[i].deadline < next)
			next = client->pending[i].deadline;
	}
	return next;
}

int qmp_client_execute(struct qmp_client *client, const char *command, struct json_object *args,
		       uint64_t deadline, qmp_client_done *done, void *opaque)
{
	int ret;

	if (!args)
		return -ENOMEM;
	if (!json_object_is_type(args, json_type_object))
		ret = -EINVAL;
	else if (client->state != QMP_CLIENT_READY)
		ret = -ENOTCONN;
	else if (client->n_pending == QMP_CLIENT_PENDING_MAX)
		ret = -EBUSY;
	else if (client->out.len + client->in_flight >= QMP_CLIENT_OUTPUT_MAX)
		ret = -ENOBUFS;
	else
		ret = send(client, command, args, client->next_id);
	json_object_put(args);
	if (ret)
		return ret;
	client->pending[client->n_pending++] = (struct pending){
		.id = client->next_id++,
		.deadline = deadline,
		.done = done,
		.opaque = opaque,
	};
	return 0;
}

char *qmp_client_take_output(struct qmp_client *client, size_t *len)
{
	char *data = client->out.data;

	if (!client->out.len)
		return NULL;
	*len = client->out.len;
	client->in_flight += client->out.len;
	client->out = (struct qmp_buf){0};
	return data;
}

void qmp_client_written(struct qmp_client *client, size_t len)
{
	client->in_flight -= len < client->in_flight ? len : client->in_flight;
}

void qmp_client_close(struct qmp_client *client, int error, const char *why)
{
	lose(client, error, why);
}

enum qmp_client_state qmp_client_state(const struct qmp_client *client)
{
	return client->state;
}

size_t qmp_client_pending(const struct qmp_client *client)
{
	return client->n_pending;
}

uint64_t qmp_client_late(const struct qmp_client *client)
{
	return client->late;
}

struct qmp_client *qmp_client_new(const struct qmp_client_ops *ops, void *opaque, uint64_t deadline,
				  const struct qmp_limits *limits)
{
	struct qmp_client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->ops = ops;
	client->opaque = opaque;
	client->deadline = deadline;
	client->next_id = 1;
	if (limits)
		client->scan.limits = *limits;
	return client;
}

void qmp_client_free(struct qmp_client *client)
{
	if (!client)
		return;
	assert(!client->running);
	shut(client, -ECANCELED);
	free(client);
}
