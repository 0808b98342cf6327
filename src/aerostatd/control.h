/* SPDX-License-Identifier: MIT */
/* The control socket: a QMP monitor for the operator and for `aerostat`. */
#ifndef AEROSTATD_CONTROL_H
#define AEROSTATD_CONTROL_H

#include <uv.h>

#include "common/monitor.h"
#include "fleet.h"

#define CONTROL_CLIENTS_MAX      64U /* at a time; further ones are hung up on */
#define CONTROL_RESERVATIONS_MAX RESERVE_MAX
#define CONTROL_RETRY_MS         100 /* after a connection could not be taken */

struct control;

struct control_ops {
	/* As SIGHUP. 0, or -errno with a line in error. */
	int (*reload)(void *opaque, char *error, size_t error_size);
	void (*quit)(void *opaque);
	/* The text of /metrics, NULL: out of memory. The caller frees it. */
	char *(*metrics)(void *opaque);
};

/* A client that waits for its reservation. */
struct control_waiter {
	struct qmp_request *request; /* NULL: none */
	uint64_t id;
	uint64_t bytes, hold_ms;
	enum reserve_change change; /* what it is to be told; RESERVE_NOTHING: it waits */
};

struct control {
	struct monitor monitor;
	struct fleet *fleet;
	const struct control_ops *ops;
	void *opaque;
	uv_poll_t poll;
	uv_timer_t later;   /* accepts again, and looks for reservations whose client is gone */
	uv_timer_t answers; /* tells who waits for a reservation */
	int fd;
	char *path; /* NULL: the socket was given to us, and is not ours to remove */
	uint32_t serial;
	struct monitor_record record[CONTROL_CLIENTS_MAX];
	struct control_waiter waiter[CONTROL_RESERVATIONS_MAX];
};

/*
 * Listens at path, or on fd if that is not -1 (socket activation). 0 or -errno as
 * unix_socket_listen().
 */
int control_start(struct control *c, uv_loop_t *loop, const char *path, int fd, struct fleet *fleet,
		  const struct control_ops *ops, void *opaque);

/* Tells the clients; for fleet_ops. */
void control_news(struct control *c, const struct news_item *item);

/*
 * A reservation was granted, or is no more. Who waits for it is told when the manager is through
 * with what it does: he may have asked for more, and would be served in the middle of it.
 */
void control_reserved(struct control *c, uint64_t id, enum reserve_change change);

/* Ends all connections, and removes the socket. */
void control_stop(struct control *c);

#endif
