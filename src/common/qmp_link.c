// SPDX-License-Identifier: MIT
/*
 * The client must not be freed from within its own callbacks, and its owner may well want to close
 * the link there: `busy` counts the calls into the client, and what was closed meanwhile is taken
 * down when the outermost of them is over.
 */
#include "common/qmp_link.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "common/clock.h"

#define READ_BYTES 16384

struct qmp_link {
	uv_pipe_t pipe;
	uv_timer_t timer;
	uv_connect_t connect;
	uv_write_t write;
	uv_buf_t writing; /* base is NULL unless a write is under way */
	struct qmp_client *client;
	struct qmp_client_ops ops; /* the owner's */
	void *opaque;
	int early; /* -errno with which the connection was lost before the loop ran */
	int busy;
	int handles; /* that the loop still has */
	bool connected, reading, closed;
};

/* One for all: a loop reads one socket after the other. */
static char input[READ_BYTES];

static void update(struct qmp_link *link);

static void on_handle_closed(uv_handle_t *handle)
{
	struct qmp_link *link = handle->data;

	if (--link->handles > 0)
		return;
	free(link->writing.base);
	free(link);
}

static void take_down(struct qmp_link *link)
{
	qmp_client_free(link->client);
	link->client = NULL;
	uv_close((uv_handle_t *)&link->pipe, on_handle_closed);
	uv_close((uv_handle_t *)&link->timer, on_handle_closed);
}

static void enter(struct qmp_link *link)
{
	link->busy++;
}

/* False: the link is no more. */
static bool leave(struct qmp_link *link)
{
	if (--link->busy == 0 && link->closed) {
		take_down(link);
		return false;
	}
	return !link->closed;
}

/* --- what the client tells ------------------------------------------------------------------- */

static void on_ready(void *opaque, struct json_object *greeting)
{
	struct qmp_link *link = opaque;

	if (!link->closed)
		link->ops.ready(link->opaque, greeting);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	struct qmp_link *link = opaque;

	if (!link->closed)
		link->ops.event(link->opaque, event);
}

static void on_lost(void *opaque, int error, const char *why)
{
	struct qmp_link *link = opaque;

	if (!link->closed)
		link->ops.lost(link->opaque, error, why);
}

static const struct qmp_client_ops client_ops = {on_ready, on_event, on_lost};

/* --- the socket ------------------------------------------------------------------------------ */

static void lose(struct qmp_link *link, int error)
{
	enter(link);
	qmp_client_close(link->client, error,
			 error == -ECONNRESET ? "the monitor hung up" : strerror(-error));
	if (leave(link))
		update(link);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	(void)handle;
	(void)suggested;
	*buf = uv_buf_init(input, sizeof(input));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct qmp_link *link = stream->data;

	if (n == 0)
		return;
	if (n < 0) {
		uv_read_stop(stream);
		link->reading = false;
		lose(link, n == UV_EOF ? -ECONNRESET : (int)n);
		return;
	}
	enter(link);
	(void)qmp_client_feed(link->client, buf->base, (size_t)n);
	if (leave(link))
		update(link);
}

static void on_written(uv_write_t *write, int status)
{
	struct qmp_link *link = write->data;
	size_t len = link->writing.len;

	if (!link->client)
		return; /* closing frees the buffer */
	free(link->writing.base);
	link->writing.base = NULL;
	if (status < 0) {
		lose(link, status);
		return;
	}
	qmp_client_written(link->client, len);
	update(link);
}

static void on_timer(uv_timer_t *timer)
{
	struct qmp_link *link = timer->data;

	if (link->early) {
		lose(link, link->early);
		return;
	}
	enter(link);
	qmp_client_tick(link->client, clock_now().mono_ms);
	if (leave(link))
		update(link);
}

/* Sends what waits. False: it cannot, and the owner hears of that later, from the loop. */
static bool send_output(struct qmp_link *link)
{
	if (link->early)
		return false;
	while (link->connected && !link->writing.base) {
		size_t len;
		char *out = qmp_client_take_output(link->client, &len);
		uv_buf_t buf;
		int n;

		if (!out)
			break;
		buf = uv_buf_init(out, (unsigned int)len);
		n = uv_try_write((uv_stream_t *)&link->pipe, &buf, 1);
		if (n >= 0 && (size_t)n == len) {
			free(out);
			qmp_client_written(link->client, len);
			continue;
		}
		n = n < 0 ? 0 : n;
		link->writing = buf;
		buf = uv_buf_init(out + n, (unsigned int)(len - (size_t)n));
		n = uv_write(&link->write, (uv_stream_t *)&link->pipe, &buf, 1, on_written);
		if (n < 0) {
			link->early = n;
			return false;
		}
	}
	return true;
}

/* After any call into the client: output, reading, and when to look next. */
static void update(struct qmp_link *link)
{
	uint64_t now = clock_now().mono_ms, due;
	bool wanted;

	if (link->closed || qmp_client_state(link->client) == QMP_CLIENT_LOST) {
		uv_timer_stop(&link->timer);
		if (link->reading)
			uv_read_stop((uv_stream_t *)&link->pipe);
		link->reading = false;
		return;
	}
	if (!send_output(link)) {
		uv_timer_start(&link->timer, on_timer, 0, 0);
		return;
	}
	wanted = link->connected && qmp_client_wants_input(link->client);
	if (wanted && !link->reading)
		uv_read_start((uv_stream_t *)&link->pipe, on_alloc, on_read);
	else if (!wanted && link->reading)
		uv_read_stop((uv_stream_t *)&link->pipe);
	link->reading = wanted;
	due = qmp_client_next_deadline(link->client);
	if (due == QMP_CLIENT_NEVER)
		uv_timer_stop(&link->timer);
	else
		uv_timer_start(&link->timer, on_timer, due > now ? due - now : 0, 0);
}

static void on_connected(uv_connect_t *connect, int status)
{
	struct qmp_link *link = connect->data;

	if (!link->client)
		return; /* it was closed before */
	if (status < 0) {
		lose(link, status);
		return;
	}
	link->connected = true;
	update(link);
}

/* --- its owner ------------------------------------------------------------------------------- */

struct qmp_link *qmp_link_connect(uv_loop_t *loop, const char *path, uint64_t timeout_ms,
				  const struct qmp_limits *limits, const struct qmp_client_ops *ops,
				  void *opaque)
{
	struct qmp_link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->ops = *ops;
	link->opaque = opaque;
	link->client = qmp_client_new(&client_ops, link, clock_now().mono_ms + timeout_ms, limits);
	if (!link->client) {
		free(link);
		return NULL;
	}
	uv_pipe_init(loop, &link->pipe, 0); /* neither of these can fail */
	uv_timer_init(loop, &link->timer);
	link->handles = 2;
	link->pipe.data = link->timer.data = link;
	link->connect.data = link->write.data = link;
	/* libuv would cut it, and connect to something else. */
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		link->early = -ENAMETOOLONG;
		uv_timer_start(&link->timer, on_timer, 0, 0);
		return link;
	}
	uv_pipe_connect(&link->connect, &link->pipe, path, on_connected);
	update(link);
	return link;
}

int qmp_link_execute(struct qmp_link *link, const char *command, struct json_object *args,
		     uint64_t timeout_ms, qmp_client_done *done, void *opaque)
{
	int r;

	if (link->closed) {
		json_object_put(args);
		return -ENOTCONN;
	}
	r = qmp_client_execute(link->client, command, args, clock_now().mono_ms + timeout_ms, done,
			       opaque);
	if (r < 0)
		return r;
	/* From within a callback it goes at once, too: somebody may wait for it. The rest is done
	 * when the callback is over. */
	if (!link->busy)
		update(link);
	else if (!send_output(link))
		uv_timer_start(&link->timer, on_timer, 0, 0);
	return 0;
}

void qmp_link_close(struct qmp_link *link)
{
	if (!link || link->closed)
		return;
	link->closed = true;
	/* Here and now, also within a callback: answers that came with what it tells of are not
	 * told to somebody who is through with it. */
	enter(link);
	qmp_client_close(link->client, -ECANCELED, "closed");
	leave(link);
}
