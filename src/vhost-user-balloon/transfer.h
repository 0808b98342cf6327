/* SPDX-License-Identifier: MIT */
/*
 * The device's state on its way to another host, or from one: a snapshot (balloon/snapshot.h)
 * through a pipe or socket that the front end gives (vhost-user's SET_DEVICE_STATE_FD and
 * CHECK_DEVICE_STATE). The event loop moves the bytes; nothing here waits.
 *
 * A transfer lives in this process only. If that dies, the descriptor is closed with it and whoever
 * goes on for it knows of no transfer: CHECK_DEVICE_STATE says that it failed. But a state that was
 * loaded outlives it: transfer_loaded(), transfer_resume().
 */
#ifndef VUB_TRANSFER_H
#define VUB_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "balloon/snapshot.h"
#include "watch.h"

struct transfer_ops {
	/*
	 * The balloon has been given another state: calls balloon_memory_changed() for the memory
	 * table as it is. -errno: it cannot, and has called it with an empty one.
	 */
	int (*memory_changed)(void *opaque);
	/* The descriptor is closed. */
	void (*released)(void *opaque);
	/*
	 * Zeroed memory for the bitmap of a state that comes, to be unmapped by munmap(); the one
	 * before is gone. NULL: there is no room. Without this op it goes with this process.
	 */
	uint64_t *(*map)(void *opaque, size_t bytes);
};

enum transfer_state {
	TRANSFER_NONE,    /* at first, and after transfer_stop() */
	TRANSFER_SAVING,  /* after a start; until all is written */
	TRANSFER_SAVED,   /* all is written and the descriptor closed */
	TRANSFER_LOADING, /* after a start; until the end of the stream */
	TRANSFER_READ,    /* the stream is at its end, and good; it has no effect yet */
	TRANSFER_APPLIED, /* transfer_check() has put it in the place of the balloon's state */
	TRANSFER_FAILED,  /* transfer_check() says so */
	TRANSFER_STATES,
};

struct transfer {
	uv_loop_t *loop;
	struct balloon *balloon;
	const struct transfer_ops *ops;
	void *opaque;

	enum transfer_state state;
	int result;        /* FAILED: -errno */
	const char *error; /* ... and why, for people; static text */
	int fd;            /* -1: none */
	struct watch *watch;
	uint64_t *map; /* the snapshot's bitmap */
	size_t map_bytes;
	union {
		struct snapshot_writer writer;
		struct snapshot_reader reader;
	} u;
	uint8_t buf[4096]; /* saving: what is on its way out */
	uint32_t have;
	uint32_t sent;
};

void transfer_init(struct transfer *t, uv_loop_t *loop, struct balloon *b,
		   const struct transfer_ops *ops, void *opaque);

/*
 * vu_device_ops.transfer: begins, in the place of whatever was before. Takes fd over, also on
 * failure. -EBADF: no pipe or socket for that direction; -ENOMEM: it cannot be watched.
 */
int transfer_start(struct transfer *t, bool load, int fd);

/*
 * vu_device_ops.transfer_check: how did it go? If a state was loaded, the balloon has it from here
 * on (see transfer_hold()). -ENODATA: there was no transfer; -EAGAIN: the other side has not ended
 * it, or not seen its end; -EBADMSG, -EPROTONOSUPPORT, -ENOTSUP, -EINVAL, -ENOMEM: what was read is
 * no state for this device; -EPIPE and others: the descriptor failed. Then the balloon is as it
 * was, but after an error of ops.memory_changed: then it is empty.
 */
int transfer_check(struct transfer *t);

/*
 * To be called before each balloon_memory_changed(). A state that came before the guest's memory
 * was known holds for all of that, until a ring starts: the balloon holds it again. One that is
 * being saved is given up.
 */
void transfer_hold(struct transfer *t);

/* The device was reset: a state that was loaded, or is being saved, is nothing any more. */
void transfer_forget(struct transfer *t);

/*
 * What the balloon holds by a state that was loaded, while that is still to be held: to be saved.
 * NULL: there is none. The bitmap is where ops.map said, and is not changed any more.
 */
const struct pageset *transfer_loaded(const struct transfer *t);

/* Goes on with that in another process: held->map is of ops.map's memory again. */
void transfer_resume(struct transfer *t, const struct pageset *held);

/* A ring is about to start, or the session is over: gives up what is under way. */
void transfer_stop(struct transfer *t);

#endif
