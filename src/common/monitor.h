/* SPDX-License-Identifier: MIT */
/*
 * The monitor's clients; what they may say stands in commands.c. The parent accepts them, and keeps
 * them when a worker dies. A record in the block says of each whether the next worker can go on
 * with it: that is so while no command is half read or deferred and no answer half sent.
 */
#ifndef VUB_MONITOR_H
#define VUB_MONITOR_H

#include <uv.h>

#include "base/instant.h"
#include "block.h"
#include "channel.h"
#include "qmp/server.h"

struct monitor_client;

struct monitor_ops {
	/* What clients have caused is about to be told to them: it must hold. */
	void (*telling)(void *opaque);
	/* A client is gone. */
	void (*gone)(void *opaque, const struct channel_client *client);
};

struct monitor {
	uv_loop_t *loop;
	struct qmp_server qmp;
	struct block_client *records; /* CHANNEL_CLIENT_COUNT, by id */
	const struct monitor_ops *ops;
	void *opaque;
	int busy;                       /* depth of calls into the engine */
	struct monitor_client *clients; /* list */
};

/* opaque is for the commands' handlers and for ops. */
void monitor_start(struct monitor *m, uv_loop_t *loop, const struct qmp_schema *schema,
		   struct block_client *records, const struct monitor_ops *ops, void *opaque);

/*
 * A client of the parent's: greeted, or gone on with if its record is of this very client. One that
 * was in the middle of something sees its end. Takes fd over.
 */
void monitor_add_client(struct monitor *m, const struct channel_client *client, int fd);

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
