/* SPDX-License-Identifier: MIT */
/*
 * What the parent and its worker say to each other: datagrams on a socketpair (SOCK_SEQPACKET).
 *
 * The parent sends START, then the descriptors that its worker's predecessor had (SLOTS, CLIENT),
 * then GO. The worker answers READY. From then on the parent sends one EVENT at a time, and the
 * next one only after DONE for the last. A worker that dies before DONE leaves the event to its
 * successor: the block (block.h) says whether it had its effect, and READY tells the parent.
 *
 * Both sides check what they receive: a worker may be in the hands of its guest.
 */
#ifndef VUB_CHANNEL_H
#define VUB_CHANNEL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "common/monitor_record.h"
#include "settings.h"
#include "vhost_user/protocol.h"

#define CHANNEL_SLOT_COUNT   128U /* descriptors of the front end that the parent keeps */
#define CHANNEL_CLIENT_COUNT 32U  /* of the monitor */
#define CHANNEL_FDS_MAX      16U  /* with one datagram */
#define CHANNEL_REASON_MAX   128U
/* The largest message of a front end, and the largest reply: header and payload. */
#define CHANNEL_BYTES_MAX ((uint32_t)(sizeof(struct vu_header) + sizeof(union vu_payload)))
#define CHANNEL_REPLY_MAX CHANNEL_BYTES_MAX

/* In the worker the descriptor of slot n has this number, plus n; in its successors as well. */
#define CHANNEL_SLOT_FD 256

enum channel_type {
	/* From the parent. */
	CHANNEL_START,  /* first of all */
	CHANNEL_SLOTS,  /* descriptors for slots */
	CHANNEL_CLIENT, /* a monitor client, new or left by the predecessor */
	CHANNEL_GO,     /* that was all that there is */
	CHANNEL_EVENT,  /* what the front end does */
	CHANNEL_LEAVE,  /* end what is in hand and go: a successor takes over */
	CHANNEL_STOP,   /* the program ends */
	/* From the worker. */
	CHANNEL_READY,       /* answers GO */
	CHANNEL_DONE,        /* answers EVENT */
	CHANNEL_STATE,       /* slots are free now, or the session is over, without an event */
	CHANNEL_CLIENT_GONE, /* the monitor client's descriptor may be closed */
	CHANNEL_SETTINGS,    /* what a cold start shall find */
	CHANNEL_QUIT,        /* an operator wants the program to end */
	CHANNEL_TYPE_COUNT,
};

struct channel_start {
	uint32_t restarts; /* workers that went before this one */
	uint32_t fault;    /* the last of them died by a fault of its own */
	int32_t hints_fd;  /* where the parent has the file of free page hints */
	int32_t parent;    /* its process id */
	uint32_t uid;      /* who the worker shall be; -1: who it is */
	uint32_t gid;
	char reason[CHANNEL_REASON_MAX]; /* why the last one is gone; "": this is the first */
	struct settings settings;        /* for the first */
};

struct channel_slots {
	uint32_t n;
	uint8_t slot[CHANNEL_FDS_MAX];
};

enum channel_event_kind {
	CHANNEL_BEGIN,   /* a front end has connected */
	CHANNEL_HEADER,  /* the header of a message whose payload is not there yet: may it come? */
	CHANNEL_MESSAGE, /* header and payload */
	CHANNEL_END,     /* the connection is over; bytes: why, as text */
	CHANNEL_EVENT_KINDS,
};

struct channel_event {
	uint64_t seq; /* from 1, rising by 1 */
	uint32_t kind;
	uint32_t len;
	uint32_t n_slots; /* descriptors that came with the message */
	uint8_t slot[VU_FDS_MAX];
	uint8_t bytes[CHANNEL_BYTES_MAX];
};
static_assert(CHANNEL_REASON_MAX <= CHANNEL_BYTES_MAX, "a reason fits an event");
static_assert(VU_FDS_MAX <= CHANNEL_FDS_MAX, "an event's descriptors fit a datagram");

/* READY, DONE and STATE: where the worker stands. */
struct channel_report {
	uint64_t handled; /* seq of the last event that had its effect */
	uint64_t session; /* seq of the BEGIN of the open session; 0: none */
	uint64_t in_use[CHANNEL_SLOT_COUNT / 64]; /* bit n of word m: slot 64 * m + n is */
	uint32_t reply_len;
	uint8_t reply[CHANNEL_REPLY_MAX]; /* to the event `handled`, for the front end */
};

struct channel_message {
	enum channel_type type;
	union {
		struct channel_start start;
		struct channel_slots slots;
		struct monitor_name client;
		struct channel_event event;
		struct channel_report report;
		struct settings settings;
	} u;
};

/*
 * Sends m with n_fds descriptors, which stay the caller's. 0, -EAGAIN: no room; else -errno: the
 * other side is gone.
 */
int channel_send(int fd, const struct channel_message *m, const int *fds, uint32_t n_fds);

enum channel_side {
	CHANNEL_PARENT,
	CHANNEL_WORKER,
};

/*
 * Takes the next datagram off, which `from` has sent, and the descriptors that it says it has
 * (fds: room for CHANNEL_FDS_MAX). 0; -EAGAIN: none is there; -ECONNRESET: the other side is gone;
 * -EPROTO: it says what makes no sense; others from recvmsg().
 */
int channel_receive(int fd, enum channel_side from, struct channel_message *m, int *fds,
		    uint32_t *n_fds);

#endif
