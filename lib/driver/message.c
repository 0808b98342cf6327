// SPDX-License-Identifier: MIT
/*
 * Messages about memory pressure. When pressure is noticed inflation stops at once, and goes on
 * when the host has returned the message, or after a while without it. One message is out at a
 * time. What is noticed meanwhile is sent next if it is worse, and otherwise the message that is
 * under way speaks for it too.
 *
 * Messages keep a distance in time, unless the level rises over that of the last one: so there are
 * never more in quick succession than there are levels.
 *
 * The buffer is there from the beginning, as this happens when memory is short.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "driver/parts.h"

#define NONE (-1)

void driver_message_init(struct driver_balloon *d)
{
	d->message.pending = d->message.at_host = d->message.last = NONE;
}

/* May a message of this level (NONE: relieved) go now, as far as its distance to others goes? */
static bool in_time(const struct driver_message *m, int32_t level, uint64_t now_ms)
{
	return !m->sent || level > m->last || now_ms >= m->sent_ms + DRIVER_MESSAGE_GAP_MS;
}

/* Is there one that wants to be sent? Its level, or NONE for relieved, to *level. */
static bool wanted(const struct driver_message *m, int32_t *level)
{
	*level = m->pending;
	return m->pending != NONE || m->relief;
}

static void send(struct driver_balloon *d, int32_t level, uint64_t now_ms)
{
	struct driver_message *m = &d->message;
	struct driver_buf buf = {m->room.gpa, sizeof(struct virtio_balloon_message)};
	bool pressure = level != NONE;

	le32_put(m->room.host + offsetof(struct virtio_balloon_message, type),
		 pressure ? VIRTIO_BALLOON_MSG_PRESSURE : VIRTIO_BALLOON_MSG_RELIEVED);
	le32_put(m->room.host + offsetof(struct virtio_balloon_message, arg),
		 pressure ? (uint32_t)level : 0);
	if (pressure)
		m->pending = NONE;
	else
		m->relief = false;
	m->out = driver_ring_add(&d->ring[VIRTIO_BALLOON_VQ_MESSAGE], &buf, 1, 1) >= 0;
	m->at_host = m->last = level;
	m->sent_ms = now_ms;
	m->sent++;
	driver_kick(d, VIRTIO_BALLOON_VQ_MESSAGE);
}

void driver_message_step(struct driver_balloon *d, uint64_t now_ms)
{
	struct driver_message *m = &d->message;
	int32_t level;

	if (m->waiting && now_ms >= m->deadline_ms) {
		m->waiting = false;
		m->timeouts++;
	}
	if (!m->out && !d->closing && wanted(m, &level) && in_time(m, level, now_ms))
		send(d, level, now_ms);
}

void driver_message_used(struct driver_balloon *d)
{
	struct driver_message *m = &d->message;

	if (!m->out)
		return;
	m->out = false;
	m->at_host = NONE;
	if (m->pending == NONE)
		m->waiting = false;
	/* The host has set what it wants now. */
	d->pages.stale = true;
}

uint64_t driver_message_next(const struct driver_balloon *d)
{
	const struct driver_message *m = &d->message;
	uint64_t due = m->waiting ? m->deadline_ms : UINT64_MAX;
	int32_t level;

	/* What is worse than all before is not waiting for its time, but for the buffer. */
	if (!m->out && !d->closing && wanted(m, &level))
		due = min_u64(due, m->sent_ms + DRIVER_MESSAGE_GAP_MS);
	return due;
}

static int ready(const struct driver_balloon *d)
{
	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_MESSAGE_VQ))
		return -ENOTSUP;
	return d->running && !d->closing ? 0 : -ENODEV;
}

int driver_balloon_pressure(struct driver_balloon *d, uint32_t level, uint64_t now_ms)
{
	struct driver_message *m = &d->message;
	int r = ready(d);

	if (r < 0)
		return r;
	if (level >= VIRTIO_BALLOON_PRESSURE_NR)
		return -EINVAL;
	/* One that is out and was given up on speaks for nothing. */
	if ((int32_t)level <= m->pending ||
	    (m->out && m->waiting && (int32_t)level <= m->at_host)) {
		m->merged++;
		return 0;
	}
	m->pending = (int32_t)level;
	m->relief = false;
	m->waiting = true;
	m->deadline_ms = now_ms + DRIVER_MESSAGE_WAIT_MS;
	driver_balloon_step(d, now_ms);
	return 0;
}

int driver_balloon_relieved(struct driver_balloon *d, uint64_t now_ms)
{
	int r = ready(d);

	if (r < 0)
		return r;
	d->message.relief = true;
	driver_balloon_step(d, now_ms);
	return 0;
}
