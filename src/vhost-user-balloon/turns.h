/* SPDX-License-Identifier: MIT */
/*
 * When which ring is run. A kick runs its ring once, for a bounded amount of work. A ring that has
 * more to do is marked in `ready` and gets another turn in the loop's next round, after sockets and
 * timers had theirs: so a guest that refills a ring as fast as it drains, or sends a buffer of
 * gigabytes, keeps nobody waiting.
 *
 * One quirk of user-mode-linux: once in a while its interrupt is lost, and the guest sleeps on
 * until something else wakes it. A ring whose driver was notified and that does nothing for
 * a while is notified once more; the driver does not mind.
 */
#ifndef VUB_TURNS_H
#define VUB_TURNS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "vhost_user/session.h"
#include "watch.h"

struct turns_ops {
	/* Runs a ring for a turn. True: it wants another. */
	bool (*run)(void *opaque, uint32_t ring);
	/* The driver has kicked a ring, which is about to be run. */
	void (*kicked)(void *opaque, uint32_t ring);
	/* Buffers that a ring has served. */
	uint64_t (*served)(void *opaque, uint32_t ring);
	/* The ring's kick descriptor will never kick again: stop it. */
	void (*dead)(void *opaque, uint32_t ring);
};

struct turns {
	uv_loop_t *loop;
	const struct vu_session *session;
	const struct turns_ops *ops;
	void *opaque;

	struct watch *kick[VU_MAX_QUEUES];
	uint32_t ready;    /* bit n: ring n wants to be run */
	uv_idle_t turn;    /* runs while ready is not 0 */
	uint32_t polled;   /* bit n: ring n has no kick descriptor */
	uv_timer_t poll;   /* runs while polled is not 0 */
	uint32_t notified; /* bit n: the driver was notified on ring n and has not kicked since */
	uv_timer_t nudge;
};

void turns_init(struct turns *t, uv_loop_t *loop, const struct vu_session *session,
		const struct turns_ops *ops, void *opaque);

/* Waits for a ring's kicks. -EINVAL: its descriptor cannot be watched. */
int turns_begin(struct turns *t, uint32_t ring);
/* ... no more; nor does it get the turns that it wanted. */
void turns_end(struct turns *t, uint32_t ring);

/* These rings (a bit mask) want to be run, soon. */
void turns_want(struct turns *t, uint32_t rings);

/* Tells the driver of used buffers on a ring. */
void turns_notify(struct turns *t, uint32_t ring);

/* Nobody is to be told again. */
void turns_quiet(struct turns *t);

#endif
