/* SPDX-License-Identifier: MIT */
/* The monitor's socket and its clients; what they may say stands in commands.c. */
#ifndef VUB_MONITOR_H
#define VUB_MONITOR_H

#include <uv.h>

#include "base/instant.h"
#include "qmp/server.h"

#define MONITOR_CLIENTS_MAX 32

struct monitor_client;

struct monitor {
	uv_loop_t *loop;
	struct qmp_server qmp;
	uv_pipe_t listener;
	int busy; /* depth of calls into the engine */
	int n_clients;
	struct monitor_client *clients; /* list */
};

/*
 * Listens on fd, which it takes over; -1: no monitor, but events and commands have their place.
 * opaque is for the handlers. -errno.
 */
int monitor_start(struct monitor *m, uv_loop_t *loop, int fd, const struct qmp_schema *schema,
		  void *opaque);

/* Ends all connections. */
void monitor_stop(struct monitor *m);

/* Tells all clients. data: one reference, taken over; NULL for an event without. */
void monitor_event(struct monitor *m, size_t event, struct json_object *data, struct instant now);

/* Answers a deferred request; as qmp_request_complete(). */
void monitor_complete(struct monitor *m, struct qmp_request *req, struct json_object *result,
		      const struct qmp_error *err);

#endif
