/* SPDX-License-Identifier: MIT */
#ifndef QMP_SERVER_H
#define QMP_SERVER_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qmp/schema.h"

/* Limits of one connection; see the head of server.c. Bytes unless said otherwise. */
#define QMP_OUTPUT_HIGH                                                                          \
	(64u * 1024)                 /* output waiting: no command and no event is handled above \
				      */
#define QMP_PARKED_MAX (256u * 1024) /* input that came although it was not wanted */

struct qmp_conn;

struct qmp_version {
	int major;
	int minor;
	int micro;
	const char *package; /* free text, such as "aerostat 0.1.0" */
};

/* One per program. Embed it; the members are private. */
struct qmp_server {
	struct qmp_schema schema;
	struct qmp_version version;
	void *opaque;
	struct qmp_conn *conns; /* list */
};

/*
 * Prepares @server. The tables of @schema and the package string must live as long as it does;
 * the engine's own commands (qmp_capabilities, query-version, query-commands, query-qmp-schema)
 * are added. @opaque is for the handlers, see qmp_request_opaque().
 */
void qmp_server_init(struct qmp_server *server, const struct qmp_schema *schema,
		     const struct qmp_version *version, void *opaque);

/*
 * Tells every connection past negotiation that event number @event (index in the event table of
 * the schema) happened at @seconds, @microseconds since the epoch. @data: one reference, taken
 * over; NULL for an event without data.
 * 0, -EINVAL (no such event), -ENOMEM (NULL for an event that has data).
 * Afterwards output may wait on any connection.
 */
int qmp_server_event(struct qmp_server *server, size_t event, struct json_object *data,
		     int64_t seconds, int32_t microseconds);

/* A new client, the greeting already in its output. NULL: out of memory. */
struct qmp_conn *qmp_conn_new(struct qmp_server *server);

/*
 * A client that another process has served, and handed over with its connection when that was idle:
 * it gets no greeting. @negotiated: as qmp_conn_negotiated() said there. NULL: out of memory.
 */
struct qmp_conn *qmp_conn_resume(struct qmp_server *server, bool negotiated);

/* Whether capabilities negotiation is over: the client may run commands and hears of events. */
bool qmp_conn_negotiated(const struct qmp_conn *conn);

/*
 * Whether this client could be handed over now: nothing that it has sent is half read or waits to
 * be answered, and it has been sent all that was for it. False for one that has failed.
 */
bool qmp_conn_idle(const struct qmp_conn *conn);

/*
 * The client is gone. A request still deferred stays valid; completing it does nothing.
 * Not from within a handler. NULL is allowed.
 */
void qmp_conn_free(struct qmp_conn *conn);

/*
 * Bytes from the client, in any split. Runs handlers.
 * 0; -ENOBUFS: fed more than QMP_PARKED_MAX while qmp_conn_wants_input() said no; -ENOMEM. After
 * an error the connection must be closed (qmp_conn_failed() says so too).
 */
int qmp_conn_feed(struct qmp_conn *conn, const void *data, size_t len);

/* Whether the program should read from this client now. */
bool qmp_conn_wants_input(const struct qmp_conn *conn);

/* Whether the connection ran out of memory and must be closed. */
bool qmp_conn_failed(const struct qmp_conn *conn);

/*
 * Hands out all bytes that wait for the client, NULL if there are none. The caller frees them
 * with free() and says qmp_conn_written() when the client has them; until then they count as
 * waiting. Sized for uv_write(): one write under way at a time, the buffer stays put.
 */
char *qmp_conn_take_output(struct qmp_conn *conn, size_t *len);

/*
 * @len of the bytes taken have been written. Events that were held back follow, and commands
 * that waited are run, so look for output and at qmp_conn_wants_input() again.
 */
void qmp_conn_written(struct qmp_conn *conn, size_t len);

/* The opaque of qmp_server_init(). */
void *qmp_request_opaque(const struct qmp_request *req);

/* The connection that asked, NULL if it is gone by now. */
struct qmp_conn *qmp_request_conn(const struct qmp_request *req);

/*
 * Answers a deferred request and frees it: with @result (one reference, taken over; NULL as in
 * enum qmp_outcome), or with @err if that is not NULL. Exactly one call per request for which the
 * handler returned (or is about to return) QMP_DEFERRED, whether or not the connection is still
 * there. Commands that waited are run, so look for output on qmp_request_conn() asked before.
 */
void qmp_request_complete(struct qmp_request *req, struct json_object *result,
			  const struct qmp_error *err);

#endif
