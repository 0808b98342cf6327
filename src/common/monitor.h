/* SPDX-License-Identifier: MIT */
/*
 * The clients of a program's monitor, over libuv; what they may say stands in the program's schema.
 *
 * The device's parent accepts them, and keeps them when a worker dies. A record that survives it
 * says of each whether the next worker can go on with it: that is so while no command is half read
 * or deferred and no answer half sent. Other programs keep the records to themselves.
 */
#ifndef COMMON_MONITOR_H
#define COMMON_MONITOR_H

#include <uv.h>

#include "base/instant.h"
#include "common/monitor_record.h"
#include "qmp/server.h"

struct monitor_client;

struct monitor_ops {
	/* What clients have caused is about to be told to them: it must hold. */
	void (*telling)(void *opaque);
	/* A client is gone. */
	void (*gone)(void *opaque, const struct monitor_name *client);
};

struct monitor {
	uv_loop_t *loop;
	struct qmp_server qmp;
	struct monitor_record *records; /* by id */
	const struct monitor_ops *ops;
	void *opaque;
	int busy;                       /* depth of calls into the engine */
	bool missed;                    /* somebody was to be looked after meanwhile */
	struct monitor_client *clients; /* list */
};

/* opaque is for the commands' handlers and for ops. */
void monitor_start(struct monitor *m, uv_loop_t *loop, const struct qmp_schema *schema,
		   struct monitor_record *records, const struct monitor_ops *ops, void *opaque);

/*
 * A client that was accepted: greeted, or gone on with if its record is of this very client. One
 * that was in the middle of something sees its end. Takes fd over.
 */
void monitor_add_client(struct monitor *m, const struct monitor_name *client, int fd);

/* Ends all connections; or gives those up that another worker can go on with, without a word. */
void monitor_stop(struct monitor *m);
void monitor_leave(struct monitor *m);

/* Is a client in the middle of something? */
bool monitor_busy(const struct monitor *m);

/* Tells all clients. data: one reference, taken over; NULL for an event without. */
void monitor_event(struct monitor *m, size_t event, struct json_object *data, struct instant now);

/* Answers a deferred request; as qmp_request_complete(). */
void monitor_complete(struct monitor *m, struct qmp_request *req, struct json_object *result,
		      const struct qmp_error *err);

#endif
