/* SPDX-License-Identifier: MIT */
/* What the files of lib/balloon share among themselves. */
#ifndef BALLOON_QUEUES_H
#define BALLOON_QUEUES_H

#include "balloon/balloon.h"

static inline bool balloon_has(const struct balloon *b, unsigned int feature)
{
	return b->st.negotiated >> feature & 1;
}

static inline void balloon_count_error(struct balloon *b, enum balloon_error error, uint64_t n)
{
	b->st.errors[error] += n;
}

/* Breaks a queue for a fault that the ring code cannot see, or reports one that it has seen. */
void balloon_break_queue(struct balloon *b, uint32_t queue, enum vq_error error);

/* Returns a chain of which nothing was written, and tells the driver if it wants to know. */
void balloon_return(struct balloon *b, uint32_t queue, uint16_t id, uint16_t slots);

/* Work that one turn may do, roughly in PFNs, before other queues and the monitor get theirs. */
#define BALLOON_TURN_WORK 4096

/* One queue protocol each: as balloon_queue_run(). */
bool balloon_pages_run(struct balloon *b, uint32_t queue);
bool balloon_stats_run(struct balloon *b, struct instant now);

/* Hands an unfinished chain back to its ring, remembering how far it is done. */
void balloon_pages_let_go(struct balloon *b, uint32_t queue);

#endif
