// SPDX-License-Identifier: MIT
/*
 * The message queue: the guest tells of memory pressure and waits. The promise to it is that the
 * acknowledgement means that the host has dealt with it, so the order is: the new target, the
 * configuration change, the buffer's return.
 *
 * A driver sends one message at a time, and a new one only every 100 ms unless the level rises. One
 * that floods the queue is made to wait: its buffer is not looked at before its time. Nobody else
 * is kept from anything by that.
 *
 * Source: the RFC "virtio_balloon: pressure notification via a new virtqueue" (2014).
 */
#include "balloon/queues.h"
#include "base/checked.h"
#include "base/le.h"

#define QUEUE VIRTIO_BALLOON_VQ_MESSAGE

#define RATE_INTERVAL_MS 100U

/* Does the next message have to wait? */
static bool too_soon(struct balloon *b, struct instant now)
{
	struct ratelimit *rate = &b->st.message_rate;
	uint64_t suppressed;

	if (!b->policy.messages_per_second)
		return false;
	rate->interval_ms = RATE_INTERVAL_MS;
	rate->burst = (b->policy.messages_per_second + 1000 / RATE_INTERVAL_MS - 1) /
		      (1000 / RATE_INTERVAL_MS);
	if (ratelimit_pass(rate, now.mono_ms, &suppressed))
		return false;
	b->st.message_due_ms = rate->started_ms + RATE_INTERVAL_MS;
	return true;
}

/* Takes the target down as the policy says; never up. */
static void apply_policy(struct balloon *b, uint32_t level)
{
	uint64_t pages = min_u64(b->st.num_pages, b->held.count);

	switch (b->policy.on_pressure) {
	case BALLOON_PRESSURE_HOLD:
		break;
	case BALLOON_PRESSURE_DEFLATE:
		pages -= min_u64(pages, b->policy.step_pages[level]);
		break;
	case BALLOON_PRESSURE_REPORT:
	default:
		return;
	}
	if (pages < b->st.num_pages)
		balloon_set_target(b, pages);
}

/* Deals with one message; false if it is none that is known. */
static bool take_message(struct balloon *b, const uint8_t *raw, struct instant now)
{
	struct balloon_pressure *p = &b->st.pressure;
	uint32_t type = le32_get(raw + offsetof(struct virtio_balloon_message, type));
	uint32_t arg = le32_get(raw + offsetof(struct virtio_balloon_message, arg));

	switch (type) {
	case VIRTIO_BALLOON_MSG_PRESSURE:
		/* A level of a later driver is some pressure. */
		if (arg >= VIRTIO_BALLOON_PRESSURE_NR)
			arg = VIRTIO_BALLOON_PRESSURE_UNSPECIFIED;
		p->messages[arg]++;
		p->level = arg;
		apply_policy(b, arg);
		break;
	case VIRTIO_BALLOON_MSG_RELIEVED:
		p->relieved++;
		p->level = VIRTIO_BALLOON_PRESSURE_UNSPECIFIED;
		break;
	default:
		p->unknown++;
		return false;
	}
	p->ever = true;
	p->type = type;
	p->arrived = now;
	return true;
}

static void serve(struct balloon *b, struct instant now)
{
	uint8_t raw[sizeof(struct virtio_balloon_message)] = {0};
	struct chain_cursor at = {0};
	size_t len = chain_read(&b->chain[QUEUE], &at, raw, sizeof(raw));
	bool known = false;

	/* Without an argument, or with a part of one, it is 0. */
	for (size_t i = len < sizeof(raw) ? sizeof(uint32_t) : sizeof(raw); i < sizeof(raw); i++)
		raw[i] = 0;
	if (len < sizeof(uint32_t))
		balloon_count_error(b, BALLOON_ERR_MESSAGE, 1);
	else
		known = take_message(b, raw, now);
	balloon_chain_done(b, QUEUE);
	if (known)
		b->ops->event(b->opaque, BALLOON_EVENT_PRESSURE);
}

bool balloon_message_run(struct balloon *b, struct instant now)
{
	struct vq *vq = balloon_vq(b, QUEUE);
	int64_t work = BALLOON_TURN_WORK;

	/* One is waiting, and has been counted. No longer, whatever became of the clock. */
	if (b->st.message_due_ms > now.mono_ms &&
	    b->st.message_due_ms - now.mono_ms <= RATE_INTERVAL_MS)
		return false;
	b->st.message_due_ms = 0;
	while (work > 0) {
		int r = balloon_take_chain(b, QUEUE, BALLOON_READS);

		if (r < 0 || (r == 0 && !vq_enable_kicks(vq)))
			return false;
		work -= 64;
		if (r == 0)
			continue;
		if (too_soon(b, now)) {
			vq_unpop(vq, b->chain[QUEUE].slots);
			balloon_count_error(b, BALLOON_ERR_MESSAGE_FLOOD, 1);
			return false;
		}
		serve(b, now);
	}
	return true;
}
