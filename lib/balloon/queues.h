/* SPDX-License-Identifier: MIT */
/* What the files of lib/balloon share among themselves. */
#ifndef BALLOON_QUEUES_H
#define BALLOON_QUEUES_H

#include "balloon/balloon.h"

#define PAGE_SHIFT VIRTIO_BALLOON_PFN_SHIFT
#define PAGE_BYTES (1ULL << PAGE_SHIFT)

static inline bool balloon_has(const struct balloon *b, unsigned int feature)
{
	return b->st.negotiated >> feature & 1;
}

static inline void balloon_count_error(struct balloon *b, enum balloon_error error, uint64_t n)
{
	b->st.errors[error] += n;
}

/*
 * Which ring is which queue: roles.c. At first only inflate and deflate are known. _find() takes
 * the numbering that fits the rings which are started. If none does it keeps the last one, unless
 * rings are started that this one does not have, or all is to be found `anew`. Returns the rings,
 * as a bit mask, whose queue is another than before.
 */
void balloon_roles_init(struct balloon *b);
uint32_t balloon_roles_find(struct balloon *b, bool anew);

/*
 * A ring is run that is not known: the time that it has begins, if it was kicked. And: counts those
 * that are not known when it is over.
 */
void balloon_roles_wait(struct balloon *b, struct instant now);
void balloon_roles_judge(struct balloon *b, struct instant now);

/* What is sent on a queue: by the device's direction. */
enum balloon_direction {
	BALLOON_READS,  /* readable parts only, and some */
	BALLOON_WRITES, /* writable parts only, and some */
	BALLOON_EITHER, /* not empty */
};

/*
 * Pops the next chain of a queue into b->chain[queue]. As vq_pop(); -EPROTO also for the wrong
 * direction, and the ring is broken then.
 */
int balloon_take_chain(struct balloon *b, enum virtio_balloon_queue queue,
		       enum balloon_direction direction);

/* Counts a chain as served and returns it, unwritten; tells the driver if it wants to know. */
void balloon_return(struct balloon *b, enum virtio_balloon_queue queue, uint16_t id,
		    uint16_t slots);

/* b->chain[queue] is done with: returns it. */
void balloon_chain_done(struct balloon *b, enum virtio_balloon_queue queue);

/* Hands an unfinished chain back to its ring, remembering how far it is done. */
void balloon_put_back(struct balloon *b, enum virtio_balloon_queue queue);

/* The same with everything of the queue that is here, as its ring stops or changes hands. */
void balloon_let_go(struct balloon *b, enum virtio_balloon_queue queue);

/* Work that one turn may do, roughly in PFNs, before other queues and the monitor get theirs. */
#define BALLOON_TURN_WORK 4096

/* Memory that one turn may give back: bytes. Some milliseconds' worth of 4 KiB pages. */
#define BALLOON_TURN_BYTES (64ULL << 20)

/* One queue protocol each: as balloon_queue_run(). */
bool balloon_pages_run(struct balloon *b, enum virtio_balloon_queue queue);
bool balloon_stats_run(struct balloon *b, struct instant now);
bool balloon_hint_run(struct balloon *b);
bool balloon_report_run(struct balloon *b);
bool balloon_message_run(struct balloon *b, struct instant now);

/* Tells of figures that came in a burst, when it is time. */
void balloon_stats_tick(struct balloon *b, struct instant now);

/* Statistics are asked for if they are due. */
void balloon_poll(struct balloon *b, struct instant now);

/* Hands the buffer that is held back to its ring; or only says that this has happened. */
void balloon_stats_put_back(struct balloon *b);
void balloon_stats_comes_again(struct balloon *b);

/* The rings of a fresh driver begin: what is known of the last one's does not hold. */
void balloon_stats_fresh(struct balloon *b);
void balloon_hint_fresh(struct balloon *b);

/* Hints cannot be taken, or have no place to be marked in, any more: ends a command under way. */
void balloon_hint_useless(struct balloon *b);

/* The configuration's word on hinting. */
uint32_t balloon_hint_command(const struct balloon *b);

#endif
