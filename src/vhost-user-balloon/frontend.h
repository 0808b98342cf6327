/* SPDX-License-Identifier: MIT */
/*
 * The vhost-user side of the program: one front end at a time, its socket, the kicks of its rings
 * and the turns in which rings are served.
 */
#ifndef VUB_FRONTEND_H
#define VUB_FRONTEND_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "reclaim.h"
#include "vhost_user/session.h"
#include "watch.h"

/* What the front end's coming and going means to the rest of the program. */
struct frontend_ops {
	void (*connected)(void *opaque);
	/* reason: for people. */
	void (*disconnected)(void *opaque, const char *reason);
	/* The memory table has changed, or a driver begins to work. */
	void (*guest_changed)(void *opaque);
	/* There was only the one connection, and it is over. */
	void (*finished)(void *opaque);
};

struct frontend {
	uv_loop_t *loop;
	struct vu_session session;
	struct reclaim reclaim;
	struct balloon *balloon;
	const struct frontend_ops *ops;
	void *opaque;

	int listen_fd;          /* -1: none */
	struct watch *listener; /* NULL while a front end is served */
	int conn_fd;            /* -1: none */
	struct watch *conn;
	struct watch *backend; /* while the back-end channel is full */
	bool receiving;        /* messages are being handled */
	struct watch *kick[VU_MAX_QUEUES];

	uint32_t ready;    /* bit n: ring n wants to be run */
	uv_idle_t turn;    /* runs while ready is not 0 */
	uint32_t polled;   /* bit n: ring n has no kick descriptor */
	uv_timer_t poll;   /* runs while polled is not 0 */
	uint32_t notified; /* bit n: the driver was notified on ring n and has not kicked since */
	uv_timer_t nudge;
	uv_timer_t retry; /* until accept() may work again */
};

/*
 * Serves fd, a listening or a connected socket, which it takes over. -errno: not a stream socket,
 * or it cannot be watched.
 */
int frontend_start(struct frontend *f, uv_loop_t *loop, int fd, struct balloon *balloon,
		   const struct frontend_ops *ops, void *opaque);

/* Ends the session, if there is one, and the watch for others. */
void frontend_stop(struct frontend *f);

bool frontend_connected(const struct frontend *f);

/* To be called after anything outside of this module that may have touched guest memory. */
void frontend_check_memory(struct frontend *f);

/* balloon_ops.notify, .queue_broken and .config_changed */
void frontend_notify(struct frontend *f, uint32_t queue);
void frontend_queue_broken(struct frontend *f, uint32_t queue);
void frontend_config_changed(struct frontend *f);

#endif
