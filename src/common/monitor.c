// SPDX-License-Identifier: MIT
/*
 * A client is read only while its connection wants input, and has one write under way at a time:
 * who does not read its answers is not read either, and costs a bounded amount of memory, no time.
 *
 * A client's record is clean from when its last answer is written until its socket is read again.
 * A command that is still in the socket when a worker dies is found there by the next.
 */
#include "common/monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

struct monitor_client {
	struct monitor_client *next;
	struct monitor *monitor;
	struct monitor_name name;
	uv_pipe_t pipe;
	struct qmp_conn *conn;
	uv_write_t write;
	uv_buf_t writing; /* base is NULL unless a write is under way */
	bool reading;
	char in[4096];
};

static void flush_all(struct monitor *m);

static struct monitor_record *record_of(const struct monitor_client *c)
{
	return &c->monitor->records[c->name.id];
}

static void set_clean(struct monitor_client *c, bool clean)
{
	__atomic_store_n(&record_of(c)->clean, clean, __ATOMIC_RELEASE);
	/* What follows must not happen before this is seen. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct monitor_client *c = handle->data;

	free(c->writing.base);
	free(c);
}

/* Takes it out of the list and closes this process's descriptor; the parent has its own. */
static void forget_client(struct monitor_client *c)
{
	struct monitor_client **at = &c->monitor->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	qmp_conn_free(c->conn);
	c->conn = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_client_closed);
}

static void drop_client(struct monitor_client *c)
{
	struct monitor *m = c->monitor;

	if (uv_is_closing((uv_handle_t *)&c->pipe))
		return;
	set_clean(c, false);
	m->ops->gone(m->opaque, &c->name);
	forget_client(c);
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

/* Called just before the socket is read. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct monitor_client *c = handle->data;

	(void)suggested;
	set_clean(c, false);
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

/* The rest of what is being written, when there is room. False: the client is gone. */
static bool write_later(struct monitor_client *c, char *out, size_t len, size_t done)
{
	uv_buf_t rest = uv_buf_init(out + done, (unsigned int)(len - done));

	c->writing = uv_buf_init(out, (unsigned int)len);
	c->write.data = c;
	if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &rest, 1, on_written) == 0)
		return true;
	drop_client(c);
	return false;
}

/*
 * Sends what waits, at once as far as there is room: the less time passes between an event and a
 * clean record, the fewer clients notice when a worker dies. False: the client is gone.
 */
static bool send_output(struct monitor_client *c)
{
	struct monitor *m = c->monitor;
	size_t len;
	char *out;

	while (!c->writing.base && (out = qmp_conn_take_output(c->conn, &len))) {
		uv_buf_t buf = uv_buf_init(out, (unsigned int)len);
		int n;

		/* Not before what it says is so. */
		m->ops->telling(m->opaque);
		set_clean(c, false);
		n = uv_try_write((uv_stream_t *)&c->pipe, &buf, 1);
		if (n < 0 || (size_t)n < len)
			return write_later(c, out, len, n < 0 ? 0 : (size_t)n);
		free(out);
		m->busy++;
		qmp_conn_written(c->conn, len);
		m->busy--;
	}
	return true;
}

/* Sends what waits and reads or does not read, as the connection wishes now. */
static void flush(struct monitor_client *c)
{
	bool wanted;

	if (!send_output(c))
		return;
	if (qmp_conn_failed(c->conn)) {
		drop_client(c);
		return;
	}
	wanted = qmp_conn_wants_input(c->conn);
	if (wanted && !c->reading)
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
	else if (!wanted && c->reading)
		uv_read_stop((uv_stream_t *)&c->pipe);
	c->reading = wanted;
	if (c->writing.base || !qmp_conn_idle(c->conn))
		return;
	record_of(c)->negotiated = qmp_conn_negotiated(c->conn);
	set_clean(c, true);
}

/*
 * What a client had sent before can be handled as soon as its last answer is written: that may be
 * news for those who had their turn already.
 */
static void flush_all(struct monitor *m)
{
	if (m->busy) {
		m->missed = true;
		return;
	}
	do {
		m->missed = false;
		for (struct monitor_client *c = m->clients, *next; c; c = next) {
			next = c->next;
			flush(c);
		}
	} while (m->missed);
}

void monitor_add_client(struct monitor *m, const struct monitor_name *client, int fd)
{
	struct monitor_record *record = &m->records[client->id];
	bool known = record->serial == client->serial, clean = record->clean;
	struct monitor_client *c = NULL;

	/* From here on it can notice, and stays so if it is given up: also for other workers. */
	record->clean = false;
	__atomic_store_n(&record->serial, client->serial, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (!known || clean)
		c = calloc(1, sizeof(*c));
	if (c)
		c->conn = known ? qmp_conn_resume(&m->qmp, record->negotiated)
				: qmp_conn_new(&m->qmp);
	if (!c || !c->conn) {
		free(c);
		/* seccomp: close */
		close(fd);
		m->ops->gone(m->opaque, client);
		return;
	}
	c->monitor = m;
	c->name = *client;
	uv_pipe_init(m->loop, &c->pipe, 0);
	c->pipe.data = c;
	c->next = m->clients;
	m->clients = c;
	if (uv_pipe_open(&c->pipe, fd) < 0) {
		close(fd);
		drop_client(c);
		return;
	}
	flush_all(m);
}

void monitor_start(struct monitor *m, uv_loop_t *loop, const struct qmp_schema *schema,
		   struct monitor_record *records, const struct monitor_ops *ops, void *opaque)
{
	const struct qmp_version version = {AEROSTAT_VERSION_MAJOR, AEROSTAT_VERSION_MINOR,
					    AEROSTAT_VERSION_MICRO, "aerostat " AEROSTAT_VERSION};

	m->loop = loop;
	m->records = records;
	m->ops = ops;
	m->opaque = opaque;
	m->busy = 0;
	m->missed = false;
	m->clients = NULL;
	qmp_server_init(&m->qmp, schema, &version, opaque);
}

void monitor_stop(struct monitor *m)
{
	while (m->clients)
		drop_client(m->clients);
}

void monitor_leave(struct monitor *m)
{
	while (m->clients)
		forget_client(m->clients);
}

bool monitor_busy(const struct monitor *m)
{
	for (const struct monitor_client *c = m->clients; c; c = c->next) {
		if (!record_of(c)->clean)
			return true;
	}
	return false;
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
