/* SPDX-License-Identifier: MIT */
/*
 * The parent's side of the front end: its socket, one message at a time, and every descriptor that
 * came over it.
 *
 * What the front end does is an event with a number. One is in hand at a time, from when it is read
 * until the worker (or its successor) has dealt with it and the reply is written.
 */
#ifndef VUB_VMM_H
#define VUB_VMM_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "framer.h"

struct vmm {
	int listen_fd; /* -1: there was only the one connection */
	int fd;        /* of the front end; -1: none */
	struct framer framer;
	int slot[CHANNEL_SLOT_COUNT]; /* -1: free */

	uint64_t seq;        /* of the last event */
	uint64_t begun;      /* seq of the connection's BEGIN */
	uint64_t session;    /* what the worker said last: the open session, 0: none */
	bool in_hand;        /* an event waits for its DONE */
	bool sent;           /* ... and this worker has it */
	unsigned int deaths; /* ... and so many died of it */
	struct channel_message event;

	uint32_t out_len, out_sent;
	uint8_t out[CHANNEL_REPLY_MAX]; /* the reply that is being written */
	uint64_t retry_ms;              /* accept() again then; 0: at any time */
};

void vmm_init(struct vmm *v);

/* Serves fd, a listening or a connected stream socket, which it takes over. -errno: it is none. */
int vmm_serve(struct vmm *v, int fd);

/* Is it all over: was there one connection, and does the worker know that it is gone? */
bool vmm_finished(const struct vmm *v);

/* What to wait for; fd -1: for nothing. */
struct pollfd vmm_wanted(const struct vmm *v, uint64_t now_ms);

/* It is there. */
void vmm_ready(struct vmm *v, uint64_t now_ms);

/* The event for the worker, if there is one; its descriptors go into fds[VU_FDS_MAX]. */
const struct channel_message *vmm_due(const struct vmm *v, int *fds);
void vmm_was_sent(struct vmm *v);

/* The worker has said READY, DONE or STATE. False: it says what cannot be. */
bool vmm_report(struct vmm *v, enum channel_type type, const struct channel_report *report);

/*
 * The worker is gone; of_event: it died of the event that is in hand. Returns the reason if
 * that was once too often and the connection is given up; else NULL.
 */
const char *vmm_worker_gone(struct vmm *v, bool of_event);

/* Closes everything. */
void vmm_close(struct vmm *v);

#endif
