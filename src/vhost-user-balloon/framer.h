/* SPDX-License-Identifier: MIT */
/*
 * One message of a front end at a time, off its socket: header, payload, descriptors. Nothing of
 * what is in it is looked at but the size in the header.
 */
#ifndef VUB_FRAMER_H
#define VUB_FRAMER_H

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"

struct framer {
	uint32_t have; /* bytes */
	bool checked;  /* the header is found good: its payload may be waited for */
	uint32_t n_fds;
	int fds[VU_FDS_MAX]; /* owned */
	union {
		uint8_t bytes[CHANNEL_BYTES_MAX];
		struct vu_header header;
	} u;
};

enum framer_result {
	FRAMER_MORE,    /* nothing more to be had now */
	FRAMER_HEADER,  /* the header is here, and its payload is not, or is too large to be read */
	FRAMER_MESSAGE, /* a whole message is here */
	FRAMER_OVER,    /* the connection is over */
};

/*
 * Reads what there is of a message, never past its end; FRAMER_HEADER comes once for a message.
 * With FRAMER_OVER *why is set to the reason, static text.
 */
enum framer_result framer_read(struct framer *f, int fd, const char **why);

/* After FRAMER_HEADER: the header is good. */
void framer_go_on(struct framer *f);

/* Forgets the message; its descriptors are the caller's, or closed if there are some still. */
void framer_clear(struct framer *f);

#endif
