// SPDX-License-Identifier: MIT
#include "turns.h"

#include <assert.h>
#include <errno.h>

#include "common/log.h"
#include "vhost_user/socket.h"

#define NUDGE_MS 20
#define POLL_MS  5 /* rings without a kick descriptor */

static void on_turn(uv_idle_t *turn);

static void run(struct turns *t, uint32_t ring)
{
	t->ready &= ~(1U << ring);
	if (t->ops->run(t->opaque, ring))
		turns_want(t, 1U << ring);
}

static void on_turn(uv_idle_t *turn)
{
	struct turns *t = turn->data;
	uint32_t ready = t->ready;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		/* A ring may have stopped since, with the session that it was in. */
		if (ready & t->ready & 1U << i)
			run(t, i);
	}
	if (!t->ready)
		uv_idle_stop(turn);
}

void turns_want(struct turns *t, uint32_t rings)
{
	if (!rings)
		return;
	t->ready |= rings;
	uv_idle_start(&t->turn, on_turn);
}

static void on_poll(uv_timer_t *timer)
{
	struct turns *t = timer->data;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (t->polled & 1U << i)
			run(t, i);
	}
}

static void on_nudge(uv_timer_t *timer)
{
	struct turns *t = timer->data;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (t->notified & 1U << i)
			vu_socket_signal(t->session->ring[i].call_fd);
	}
	t->notified = 0;
}

static void nudge_later(struct turns *t, uint32_t rings)
{
	t->notified |= rings;
	if (t->notified && !uv_is_active((uv_handle_t *)&t->nudge))
		uv_timer_start(&t->nudge, on_nudge, NUDGE_MS, 0);
}

void turns_notify(struct turns *t, uint32_t ring)
{
	vu_socket_signal(t->session->ring[ring].call_fd);
	nudge_later(t, 1U << ring);
}

void turns_quiet(struct turns *t)
{
	uv_timer_stop(&t->nudge);
	t->notified = 0;
}

/*
 * The driver has kicked. One that has put something on the ring is awake; a kick that brings
 * nothing may be late, for a buffer that was served before it, and its driver may still be asleep.
 */
static void take_kick(struct turns *t, uint32_t ring)
{
	const uint32_t bit = 1U << ring, notified = t->notified & bit;
	const uint64_t served = t->ops->served(t->opaque, ring);

	t->notified &= ~bit;
	/* It begins anew with the next notification, or would come too soon for that. */
	if (!t->notified)
		uv_timer_stop(&t->nudge);
	t->ops->kicked(t->opaque, ring);
	run(t, ring);
	if (t->ops->served(t->opaque, ring) == served)
		nudge_later(t, notified);
}

/* One kick descriptor: which ring it belongs to is where in t->kick it stands. */
static void on_kick(struct turns *t, uint32_t ring)
{
	int r = vu_socket_take_kick(t->session->ring[ring].kick_fd);

	if (r > 0) {
		take_kick(t, ring);
	} else if (r < 0) {
		/* Readable for ever, and never a kick: the loop would spin. */
		log_limited("kick descriptor of queue %u is dead", ring);
		t->ops->dead(t->opaque, ring);
	}
}

#define KICK_CALLBACK(i)                                  \
	static void on_kick_##i(void *opaque, int events) \
	{                                                 \
		(void)events;                             \
		on_kick(opaque, i);                       \
	}
KICK_CALLBACK(0)
KICK_CALLBACK(1)
KICK_CALLBACK(2)
KICK_CALLBACK(3)
KICK_CALLBACK(4)
KICK_CALLBACK(5)

static const watch_cb kick_callbacks[] = {on_kick_0, on_kick_1, on_kick_2,
					  on_kick_3, on_kick_4, on_kick_5};
static_assert(sizeof(kick_callbacks) / sizeof(kick_callbacks[0]) == VU_MAX_QUEUES,
	      "a callback for every queue");

int turns_begin(struct turns *t, uint32_t ring)
{
	int fd = t->session->ring[ring].kick_fd;

	if (fd < 0) {
		t->polled |= 1U << ring;
		uv_timer_start(&t->poll, on_poll, POLL_MS, POLL_MS);
		return 0;
	}
	t->kick[ring] = watch_start(t->loop, fd, UV_READABLE, kick_callbacks[ring], t);
	return t->kick[ring] ? 0 : -EINVAL;
}

void turns_end(struct turns *t, uint32_t ring)
{
	uint32_t bit = 1U << ring;

	watch_end(&t->kick[ring]);
	t->ready &= ~bit;
	t->notified &= ~bit;
	t->polled &= ~bit;
	if (!t->polled)
		uv_timer_stop(&t->poll);
}

void turns_init(struct turns *t, uv_loop_t *loop, const struct vu_session *session,
		const struct turns_ops *ops, void *opaque)
{
	*t = (struct turns){.loop = loop, .session = session, .ops = ops, .opaque = opaque};
	uv_idle_init(loop, &t->turn);
	uv_timer_init(loop, &t->poll);
	uv_timer_init(loop, &t->nudge);
	t->turn.data = t->poll.data = t->nudge.data = t;
}
