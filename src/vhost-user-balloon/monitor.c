// SPDX-License-Identifier: MIT
/*
 * A client is read only while its connection wants input, and has one write under way at a time:
 * who does not read its answers is not read either, and costs a bounded amount of memory, no time.
 */
#include "monitor.h"

#include <errno.h>
#include <stdlib.h>

#include "log.h"

struct monitor_client {
	struct monitor_client *next;
	struct monitor *monitor;
	uv_pipe_t pipe;
	struct qmp_conn *conn;
	uv_write_t write;
	uv_buf_t writing; /* base is NULL unless a write is under way */
	bool reading;
	char in[4096];
};

static void flush_all(struct monitor *m);

static void on_client_closed(uv_handle_t *handle)
{
	struct monitor_client *c = handle->data;

	free(c->writing.base);
	free(c);
}

static void drop_client(struct monitor_client *c)
{
	struct monitor_client **at = &c->monitor->clients;

	if (uv_is_closing((uv_handle_t *)&c->pipe))
		return;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->monitor->n_clients--;
	qmp_conn_free(c->conn);
	c->conn = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_client_closed);
}

static void on_written(uv_write_t *write, int status)
{
	struct monitor_client *c = write->data;
	size_t len = c->writing.len;

	if (!c->conn)
		return; /* dropped; closing frees the buffer */
	free(c->writing.base);
	c->writing.base = NULL;
	if (status < 0) {
		drop_client(c);
		return;
	}
	c->monitor->busy++;
	qmp_conn_written(c->conn, len);
	c->monitor->busy--;
	flush_all(c->monitor);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct monitor_client *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init(c->in, sizeof(c->in));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct monitor_client *c = stream->data;
	struct monitor *m = c->monitor;
	int r = 0;

	m->busy++;
	if (n > 0)
		r = qmp_conn_feed(c->conn, buf->base, (size_t)n);
	m->busy--;
	if (n < 0 || r < 0)
		drop_client(c);
	flush_all(m);
}

/* Sends what waits and reads or does not read, as the connection wishes now. */
static void flush(struct monitor_client *c)
{
	bool wanted = qmp_conn_wants_input(c->conn);

	if (!c->writing.base) {
		size_t len;
		char *out = qmp_conn_take_output(c->conn, &len);

		if (out) {
			const uv_buf_t buf = uv_buf_init(out, (unsigned int)len);

			c->writing = buf;
			c->write.data = c;
			if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written) < 0) {
				drop_client(c);
				return;
			}
		}
	}
	if (qmp_conn_failed(c->conn)) {
		drop_client(c);
		return;
	}
	if (wanted && !c->reading)
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
	else if (!wanted && c->reading)
		uv_read_stop((uv_stream_t *)&c->pipe);
	c->reading = wanted;
}

static void flush_all(struct monitor *m)
{
	if (m->busy)
		return;
	for (struct monitor_client *c = m->clients, *next; c; c = next) {
		next = c->next;
		flush(c);
	}
}

static void on_refused_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void on_client(uv_stream_t *listener, int status)
{
	struct monitor *m = listener->data;
	struct monitor_client *c;

	if (status < 0) {
		log_limited("cannot accept a monitor client: %s", uv_strerror(status));
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	uv_pipe_init(m->loop, &c->pipe, 0);
	c->pipe.data = c;
	c->monitor = m;
	if (uv_accept(listener, (uv_stream_t *)&c->pipe) < 0 ||
	    m->n_clients == MONITOR_CLIENTS_MAX || !(c->conn = qmp_conn_new(&m->qmp))) {
		uv_close((uv_handle_t *)&c->pipe, on_refused_closed);
		return;
	}
	c->next = m->clients;
	m->clients = c;
	m->n_clients++;
	flush_all(m);
}

int monitor_start(struct monitor *m, uv_loop_t *loop, int fd, const struct qmp_schema *schema,
		  void *opaque)
{
	const struct qmp_version version = {AEROSTAT_VERSION_MAJOR, AEROSTAT_VERSION_MINOR,
					    AEROSTAT_VERSION_MICRO, "aerostat " AEROSTAT_VERSION};
	int r;

	m->loop = loop;
	m->busy = 0;
	m->n_clients = 0;
	m->clients = NULL;
	qmp_server_init(&m->qmp, schema, &version, opaque);
	uv_pipe_init(loop, &m->listener, 0);
	m->listener.data = m;
	if (fd < 0)
		return 0;
	r = uv_pipe_open(&m->listener, fd);
	return r < 0 ? r : uv_listen((uv_stream_t *)&m->listener, 16, on_client);
}

void monitor_stop(struct monitor *m)
{
	while (m->clients)
		drop_client(m->clients);
}

void monitor_event(struct monitor *m, size_t event, struct json_object *data, struct instant now)
{
	/* Out of memory for an event: clients go on without it. */
	m->busy++;
	(void)qmp_server_event(&m->qmp, event, data, now.wall_us / 1000000,
			       (int32_t)(now.wall_us % 1000000));
	m->busy--;
	flush_all(m);
}

void monitor_complete(struct monitor *m, struct qmp_request *req, struct json_object *result,
		      const struct qmp_error *err)
{
	m->busy++;
	qmp_request_complete(req, result, err);
	m->busy--;
	flush_all(m);
}
