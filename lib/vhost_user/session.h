/* SPDX-License-Identifier: MIT */
/*
 * One connection of a front end (a VMM), as a state machine over bytes and file descriptors. It
 * knows rings and memory, but not what kind of device it speaks for.
 *
 * Bytes come in through vu_session_feed(), replies go out through vu_session_output(). An error
 * from feed ends the session: send what output there is, then vu_session_end().
 *
 * A ring runs when it has size, addresses, a kick descriptor (or none on purpose) and is enabled;
 * it stops when one of these is taken away. Once started it is the device's to serve until
 * ring_stopping().
 */
#ifndef VHOST_USER_SESSION_H
#define VHOST_USER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhost_user/log.h"
#include "vhost_user/memory.h"
#include "vhost_user/protocol.h"
#include "virtio/vq.h"

#define VU_MAX_QUEUES 6U
#define VU_OUT_MAX    2048U

/* What the session asks of the device it speaks for. */
struct vu_device_ops {
	/* The feature bits that the device offers; the session adds its own. */
	uint64_t (*features)(void *opaque);
	/* Takes the driver's choice; -EINVAL if it was not offered. */
	int (*set_features)(void *opaque, uint64_t features);
	/* Configuration space; any offset and len up to VU_CONFIG_MAX. */
	void (*config_read)(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len);
	void (*config_write)(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len);
	/* The driver starts afresh: nothing is left of what it did before. */
	void (*reset)(void *opaque);
	/*
	 * Begins to move the device's state: to fd or, `load`, from it, in place of another that
	 * may be under way. All rings stand still. fd is the device's from here on, also on
	 * failure. -errno: it cannot be done this way. NULL: no device state on offer.
	 */
	int (*transfer)(void *opaque, bool load, int fd);
	/*
	 * The front end has seen the end of the transfer that was begun last: how did it go? 0:
	 * well; a state that was read holds from now on. -errno: not, and nothing has changed.
	 */
	int (*transfer_check)(void *opaque);
};

/* ... and of whoever serves its rings and memory. */
struct vu_ring_ops {
	/* No address in guest memory may be kept past this; the change follows at once. */
	void (*memory_changing)(void *opaque);
	/* The table is as the front end wants it. An error (-ENOMEM) ends the session. */
	int (*memory_changed)(void *opaque);
	/* Serve the ring: once now, then on each kick. An error ends the session. */
	int (*ring_started)(void *opaque, uint32_t index, bool resumed);
	/* Stop watching its kick descriptor and let go of what is in hand. */
	void (*ring_stopping)(void *opaque, uint32_t index);
};

/*
 * Where the session stands. A request names the states it may come in.
 */
enum vu_state {
	VU_STATE_NEW,        /* from the connection on; features may be asked, queues not set up */
	VU_STATE_NEGOTIATED, /* from SET_FEATURES on; everything may come */
	VU_STATE_COUNT,
};

struct vu_ring {
	struct vq vq;
	int kick_fd; /* -1: none; owned, as the others */
	int call_fd;
	int err_fd;
	bool kick_set; /* SET_VRING_KICK came; without a descriptor the ring is to be polled */
	bool addr_set;
	bool enabled;
	bool used;            /* it moved since the driver last started afresh */
	bool base_told;       /* GET_VRING_BASE came, and SET_VRING_BASE not yet */
	bool resumed;         /* when it starts, it goes on where it was stopped */
	bool unclear;         /* ... or is a fresh one: what is in its memory tells */
	bool loaded;          /* goes on at whatever base, with a state from elsewhere */
	uint64_t fingerprint; /* of its memory, when it was stopped */
};

struct vu_session {
	enum vu_state state;
	uint64_t features;          /* acknowledged, with the session's own bit */
	uint64_t protocol_features; /* acknowledged */
	struct vu_ring ring[VU_MAX_QUEUES];
	struct vu_memory memory;
	struct vu_log log;
	int log_fd;     /* tells the front end that the log has changed; -1: none */
	int backend_fd; /* channel for our requests; -1: none */
	bool config_change_due;
	bool loading; /* the transfer begun last brings a state, which has not been checked */
	bool loaded;  /* it holds, and no ring has started since: what comes now is no reset */

	const struct vu_device_ops *device_ops;
	const struct vu_ring_ops *ring_ops;
	void *opaque;
	const char *error; /* what was wrong, when feed failed; static text */

	/* The message that is being read. */
	uint32_t have; /* bytes of header and payload so far */
	struct vu_header header;
	union vu_payload payload;
	uint32_t n_fds;
	int fds[VU_FDS_MAX]; /* -1: taken over by a handler */

	uint32_t out_len;
	uint8_t out[VU_OUT_MAX];
};

/* opaque goes to all ops. */
void vu_session_init(struct vu_session *s, const struct vu_device_ops *device_ops,
		     const struct vu_ring_ops *ring_ops, void *opaque);

/* Stops all rings, resets the device, unmaps memory, closes every descriptor; ready for the next.
 */
void vu_session_end(struct vu_session *s);

/*
 * How many bytes to read next: never past the end of the message, so that descriptors belong to the
 * message they come with. 0: not now, output must drain first.
 */
size_t vu_session_wanted(const struct vu_session *s);

/*
 * Takes n bytes (at most what was wanted) and the descriptors that came with them, which are the
 * session's from here on. 0, or -errno and s->error: the session is over.
 */
int vu_session_feed(struct vu_session *s, const uint8_t *buf, size_t n, const int *fds,
		    uint32_t n_fds);

/* What is to be sent; and how much of it was. */
const uint8_t *vu_session_output(const struct vu_session *s, size_t *len);
void vu_session_sent(struct vu_session *s, size_t n);

/* The driver shall be told that the configuration has changed, as soon as that is safe. */
void vu_session_config_changed(struct vu_session *s);

/*
 * The message for the back-end channel that is due, if any: false if not, or if it is not safe to
 * send it. QEMU 11.1 crashes when one arrives while rings are stopped, so all that are set up must
 * run. Call vu_session_backend_sent() when it is out.
 */
bool vu_session_backend_output(const struct vu_session *s, struct vu_header *message);
void vu_session_backend_sent(struct vu_session *s);

/* Forgets the back-end channel, which has failed. */
void vu_session_backend_lost(struct vu_session *s);

/*
 * If host lies in memory that the front end shares, guest memory or log, puts zeroed private memory
 * in the place of that whole mapping. For a SIGBUS handler: async-signal-safe. True if it did.
 */
bool vu_session_patch(struct vu_session *s, const uint8_t *host);

/* Stops a ring that the device cannot go on with; the front end may start it anew. */
void vu_session_stop_ring(struct vu_session *s, uint32_t index);

#endif
