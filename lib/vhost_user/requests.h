/* SPDX-License-Identifier: MIT */
/*
 * The table of requests: what each must look like, and who handles it. A message is checked against
 * its row before the handler runs; the handler trusts sizes, counts of descriptors and state.
 */
#ifndef VHOST_USER_REQUESTS_H
#define VHOST_USER_REQUESTS_H

#include "vhost_user/session.h"

/* What comes back. */
enum vu_reply {
	VU_REPLY_NONE,    /* nothing, or an acknowledgement if the front end asked for one */
	VU_REPLY_PAYLOAD, /* the handler has put it in s->payload, and its size in s->header.size */
};

struct vu_request_row {
	const char *name;
	uint32_t size_min; /* payload, bytes */
	uint32_t size_max;
	uint8_t fds_min;
	uint8_t fds_max;
	int feature;    /* protocol feature that it needs; -1: none */
	uint8_t states; /* bit n: allowed in state n */
	enum vu_reply reply;
	/* 0 or -errno, with s->error set. Descriptors it keeps it replaces by -1 in s->fds. */
	int (*handler)(struct vu_session *s);
};

/* Of these DEVICE_STATE is offered only where the device can do it. */
#define VU_PROTOCOL_FEATURES                                                                    \
	(1ULL << VU_PF_MQ | 1ULL << VU_PF_LOG_SHMFD | 1ULL << VU_PF_REPLY_ACK |                 \
	 1ULL << VU_PF_BACKEND_REQ | 1ULL << VU_PF_CONFIG | 1ULL << VU_PF_CONFIGURE_MEM_SLOTS | \
	 1ULL << VU_PF_DEVICE_STATE)

/* Bits of the virtio feature mask that are the session's own, and not the device's. */
#define VU_OWN_FEATURES (1ULL << VHOST_USER_F_PROTOCOL_FEATURES | 1ULL << VHOST_F_LOG_ALL)

/* The row of a request; NULL if it is not one that is served. */
const struct vu_request_row *vu_request_row(uint32_t request);

/* Sets s->error and returns -EPROTO: for `return vu_fail(s, "...")`. */
int vu_fail(struct vu_session *s, const char *error);

/* The handlers for rings and memory, in rings.c. */
int vu_handle_mem_table(struct vu_session *s);
int vu_handle_add_mem(struct vu_session *s);
int vu_handle_rem_mem(struct vu_session *s);
int vu_handle_vring_num(struct vu_session *s);
int vu_handle_vring_addr(struct vu_session *s);
int vu_handle_set_base(struct vu_session *s);
int vu_handle_get_base(struct vu_session *s);
int vu_handle_kick(struct vu_session *s);
int vu_handle_call(struct vu_session *s);
int vu_handle_err(struct vu_session *s);
int vu_handle_enable(struct vu_session *s);
int vu_handle_log_base(struct vu_session *s);
int vu_handle_log_fd(struct vu_session *s);

/* The driver starts afresh: resets the device. */
void vu_reset_device(struct vu_session *s);
/* The same, and the rings that run are the old driver's: stops them, to be set up anew. */
void vu_restart_device(struct vu_session *s);

/*
 * The front end asks for the features once more. User-mode-linux does so, to have an answer, when
 * the guest's driver goes; as it does not acknowledge PROTOCOL_FEATURES it has no other word to
 * say that rings are not to be touched any more, and their memory is the guest's again. So in such
 * a session they stop, and run again when they are set up again.
 */
void vu_driver_may_be_gone(struct vu_session *s);

/* The device's state came from elsewhere: the rings that will be set up go on where those did. */
void vu_device_loaded(struct vu_session *s);
/* Tells the rings whether they write to the dirty log. -EPROTO if one does not fit into it. */
int vu_logs_changed(struct vu_session *s);
/* Applies acknowledged features to rings, and starts those that may run now. */
int vu_features_changed(struct vu_session *s, uint64_t old);

#endif
