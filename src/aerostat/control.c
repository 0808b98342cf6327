// SPDX-License-Identifier: MIT
#include "control.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"

#define READ_BYTES 65536

/*
 * A host with ten thousand machines answers query-vms with some 20 MiB and 1.5 million tokens. A
 * token can cost a few hundred bytes of memory, and whoever sends it nothing.
 */
static const struct qmp_limits of_aerostatd = {.bytes = 64u << 20, .tokens = 4u << 20};

/* What a machine's monitor is asked for is text. */
static const struct qmp_limits of_machine = {.bytes = 16u << 20, .tokens = 64u << 10};

struct control {
	int fd;
	struct qmp_client *client;
	struct control_hooks hooks;
	char *out; /* bytes that the client handed out and the socket did not take yet */
	size_t out_len, out_at;
	int error; /* why it is lost; 0: it is not */
	char why[256];
	char whose[64];
};

uint64_t control_now(void)
{
	return clock_now().mono_ms;
}

static void on_ready(void *opaque, struct json_object *greeting)
{
	(void)opaque; /* the client's state says so */
	(void)greeting;
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	struct control *c = opaque;

	if (c->hooks.event)
		c->hooks.event(c->hooks.opaque, event);
}

static void on_lost(void *opaque, int error, const char *why)
{
	struct control *c = opaque;

	c->error = error;
	snprintf(c->why, sizeof(c->why), "%s", why);
}

static const struct qmp_client_ops ops = {on_ready, on_event, on_lost};

/* Connects to a Unix socket within its time: a full backlog is waited out. The fd or -errno. */
static int connect_to(const char *path, uint64_t deadline)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		error = errno;
		if (error == EAGAIN && control_now() < deadline) {
			poll(NULL, 0, 20);
			continue;
		}
		if (error == EINTR)
			continue;
		close(fd);
		return error == EAGAIN ? -ETIMEDOUT : -error;
	}
	return fd;
}

struct control *control_begin(const char *path, const char *whose, uint64_t timeout_ms,
			      const struct control_hooks *hooks, struct failure *failure)
{
	uint64_t deadline = control_now() + timeout_ms;
	struct control *c = calloc(1, sizeof(*c));

	if (!c) {
		failure_set(failure, STATUS_FAILED, "out of memory");
		return NULL;
	}
	if (hooks)
		c->hooks = *hooks;
	snprintf(c->whose, sizeof(c->whose), "%s", whose);
	c->fd = connect_to(path, deadline);
	if (c->fd < 0) {
		failure_set(failure, c->fd == -ETIMEDOUT ? STATUS_TIMED_OUT : STATUS_FAILED,
			    "cannot reach %s at %s: %s", whose, path, strerror(-c->fd));
		free(c);
		return NULL;
	}
	c->client =
		qmp_client_new(&ops, c, deadline, c->hooks.machine ? &of_machine : &of_aerostatd);
	if (!c->client) {
		failure_set(failure, STATUS_FAILED, "out of memory");
		control_close(c);
		return NULL;
	}
	return c;
}

struct control *control_open(const char *path, const char *whose, uint64_t timeout_ms,
			     const struct control_hooks *hooks, struct failure *failure)
{
	struct control *c = control_begin(path, whose, timeout_ms, hooks, failure);

	while (c && !control_ready(c)) {
		/* The client's own deadline ends it. */
		if (control_wait(c, timeout_ms, failure) != STATUS_DONE) {
			control_close(c);
			return NULL;
		}
	}
	return c;
}

bool control_ready(const struct control *c)
{
	return qmp_client_state(c->client) == QMP_CLIENT_READY;
}

void control_close(struct control *c)
{
	if (!c)
		return;
	if (c->client)
		qmp_client_free(c->client);
	close(c->fd);
	free(c->out);
	free(c);
}

static enum status lost(const struct control *c, struct failure *failure)
{
	if (c->error == -ETIMEDOUT)
		return failure_set(failure, STATUS_TIMED_OUT,
				   "%s does not answer (is another client connected to a monitor "
				   "that takes only one?)",
				   c->whose);
	return failure_set(failure, STATUS_FAILED, "the connection to %s is lost: %s", c->whose,
			   c->why);
}

/* Sends what waits, as far as the socket takes it. */
static void flush(struct control *c)
{
	while (!c->error) {
		ssize_t n;

		if (!c->out) {
			c->out_at = 0;
			c->out = qmp_client_take_output(c->client, &c->out_len);
			if (!c->out)
				return;
		}
		n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			qmp_client_close(c->client, -errno, strerror(errno));
			return;
		}
		c->out_at += (size_t)n;
		if (c->out_at == c->out_len) {
			free(c->out);
			c->out = NULL;
			qmp_client_written(c->client, c->out_len);
		}
	}
}

static void take_input(struct control *c)
{
	static char input[READ_BYTES];
	ssize_t n = recv(c->fd, input, sizeof(input), MSG_DONTWAIT);

	if (n > 0)
		(void)qmp_client_feed(c->client, input, (size_t)n);
	else if (n == 0)
		qmp_client_close(c->client, -ECONNRESET, "it hung up");
	else if (errno != EAGAIN && errno != EINTR)
		qmp_client_close(c->client, -errno, strerror(errno));
}

void control_prepare(struct control *c, struct pollfd *p, int *timeout_ms)
{
	uint64_t due, now = control_now(), left;

	flush(c);
	*p = (struct pollfd){.fd = c->fd};
	if (c->error) {
		*timeout_ms = 0;
		return;
	}
	if (qmp_client_wants_input(c->client))
		p->events |= POLLIN;
	if (c->out)
		p->events |= POLLOUT;
	due = qmp_client_next_deadline(c->client);
	if (due == QMP_CLIENT_NEVER)
		return;
	left = due > now ? due - now : 0;
	if (*timeout_ms < 0 || left < (uint64_t)*timeout_ms)
		*timeout_ms = left > INT_MAX ? INT_MAX : (int)left;
}

enum status control_handle(struct control *c, short revents, struct failure *failure)
{
	if (!c->error && (revents & POLLOUT))
		flush(c);
	if (!c->error && (revents & (POLLIN | POLLHUP | POLLERR)) &&
	    qmp_client_wants_input(c->client))
		take_input(c);
	if (!c->error)
		qmp_client_tick(c->client, control_now());
	return c->error ? lost(c, failure) : STATUS_DONE;
}

enum status control_wait(struct control *c, uint64_t timeout_ms, struct failure *failure)
{
	int timeout = timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
	struct pollfd p;

	control_prepare(c, &p, &timeout);
	if (poll(&p, 1, timeout) < 0)
		p.revents = 0;
	return control_handle(c, p.revents, failure);
}

int control_start(struct control *c, const char *command, struct json_object *args,
		  uint64_t timeout_ms, qmp_client_done *done, void *opaque)
{
	if (!args)
		args = json_object_new_object();
	return qmp_client_execute(c->client, command, args, control_now() + timeout_ms, done,
				  opaque);
}

enum status control_judge(const struct qmp_answer *answer, const char *command, const char *whose,
			  struct failure *failure)
{
	switch (answer->kind) {
	case QMP_ANSWER_RETURN:
		return STATUS_DONE;
	case QMP_ANSWER_ERROR:
		return failure_set(failure,
				   answer->error->class == QMP_DEVICE_NOT_FOUND ? STATUS_NOT_FOUND
										: STATUS_FAILED,
				   "%s", answer->error->desc);
	case QMP_ANSWER_TIMEOUT:
		return failure_set(failure, STATUS_TIMED_OUT, "%s did not answer %s in time", whose,
				   command);
	case QMP_ANSWER_LOST:
	default:
		return failure_set(failure, STATUS_FAILED,
				   "the connection to %s was lost before it answered %s", whose,
				   command);
	}
}

struct question {
	const struct control *c;
	const char *command;
	struct failure *failure;
	struct json_object **value;
	enum status status;
	bool over;
};

static void on_answer(void *opaque, const struct qmp_answer *answer)
{
	struct question *q = opaque;

	q->over = true;
	q->status = control_judge(answer, q->command, q->c->whose, q->failure);
	if (q->status == STATUS_DONE && q->value)
		*q->value = json_object_get(answer->value);
}

enum status control_ask(struct control *c, const char *command, struct json_object *args,
			uint64_t timeout_ms, struct json_object **value, struct failure *failure)
{
	struct question q = {.c = c, .command = command, .failure = failure, .value = value};
	uint64_t step = c->hooks.idle ? c->hooks.idle_ms : 60000, next = control_now() + step;
	struct failure ignored;
	int ret;

	if (value)
		*value = NULL;
	ret = control_start(c, command, args, timeout_ms, on_answer, &q);
	if (ret < 0 && c->error)
		return lost(c, failure); /* it was before */
	if (ret < 0)
		return failure_set(failure, STATUS_FAILED, "%s: %s", command, strerror(-ret));
	/* Every request has its answer in the end, also when the connection is lost. */
	while (!q.over) {
		uint64_t now = control_now();

		if (now >= next && c->hooks.idle) {
			c->hooks.idle(c->hooks.opaque);
			next = now + step;
		}
		(void)control_wait(c, next > now ? next - now : step, &ignored);
	}
	if (q.status == STATUS_FAILED && c->error)
		return lost(c, failure);
	return q.status;
}
