/* SPDX-License-Identifier: MIT */
/*
 * The vhost-user side of the worker: the session of the one front end, the kicks of its rings and
 * the turns in which rings are served. The front end's socket is the parent's.
 */
#ifndef VUB_FRONTEND_H
#define VUB_FRONTEND_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "block.h"
#include "channel.h"
#include "reclaim.h"
#include "transfer.h"
#include "turns.h"
#include "vhost_user/session.h"
#include "watch.h"

/* What the front end's coming and going means to the rest of the program. */
struct frontend_ops {
	void (*connected)(void *opaque);
	/* reason: for people. */
	void (*disconnected)(void *opaque, const char *reason);
	/* The memory table has changed, or a driver begins to work. */
	void (*guest_changed)(void *opaque);
	/* Something has changed that is to be saved before the loop waits again. */
	void (*touched)(void *opaque);
	/* ... and the parent is to hear of it: descriptors are closed, or the session is over. */
	void (*released)(void *opaque);
};

/* Between two messages that the configuration has changed, at least. */
#define CONFIG_GAP_MS 10

struct frontend {
	uv_loop_t *loop;
	uv_timer_t gap;                    /* until the front end may be told of the next change */
	uint64_t told_ms;                  /* when it was told of the last; 0: not yet */
	struct virtio_balloon_config told; /* what it was then, but for what drivers write */
	struct vu_session session;
	struct reclaim reclaim;
	struct turns turns;
	struct transfer transfer; /* of the device's state, to or from another host */
	struct balloon *balloon;
	struct block *block; /* where it is said what is being done */
	const struct frontend_ops *ops;
	void *opaque;

	const struct block_hot *restored; /* while a session is gone on with: from where */
	const struct block_cold *restored_cold;
	uint64_t connection;             /* seq of the session's BEGIN; 0: there is none */
	char reason[CHANNEL_REASON_MAX]; /* why the last one is over */
	struct watch *backend;           /* while the back-end channel is full */
	bool receiving;                  /* a message is being handled */
	bool changing;                   /* session and rings may not fit together just now */
};

/* f->reclaim is initialised already. */
void frontend_start(struct frontend *f, uv_loop_t *loop, struct balloon *balloon,
		    struct block *block, const struct frontend_ops *ops, void *opaque);

/*
 * Goes on for a process that died, with what it has committed; the descriptors are in place.
 * -errno: it cannot, and nothing has changed but that there is no session.
 */
int frontend_restore(struct frontend *f, const struct block_hot *hot,
		     const struct block_cold *cold);

/* Ends the session, if there is one; or just lets go of it, for another process to go on. */
void frontend_stop(struct frontend *f);
void frontend_leave(struct frontend *f);

/* Deals with what the front end did. *reply_len bytes of reply are for it. */
void frontend_event(struct frontend *f, const struct channel_event *event, uint8_t *reply,
		    uint32_t *reply_len);

/* The slots (a bit each) whose descriptors the session has. */
void frontend_slots(const struct frontend *f, uint64_t in_use[CHANNEL_SLOT_COUNT / 64]);

bool frontend_connected(const struct frontend *f);

/* To be called after anything outside of this module that may have touched guest memory. */
void frontend_check_memory(struct frontend *f);

/* These rings (a bit mask) want to be run, soon. */
void frontend_run_rings(struct frontend *f, uint32_t rings);

/* Buffers that a ring has served: with the ring, what names the one in hand. */
uint64_t frontend_served(const struct frontend *f, uint32_t ring);

/* balloon_ops.notify and .queue_broken */
void frontend_notify(struct frontend *f, uint32_t queue);
void frontend_queue_broken(struct frontend *f, uint32_t queue);

/*
 * The configuration has changed: tells the front end, when it may be told. Not at once: it may wait
 * for CONFIG_GAP_MS since the last time. At once is what the guest counts on, as a target that is
 * to be there before its message is acknowledged.
 */
void frontend_config_changed(struct frontend *f, bool at_once);

#endif
