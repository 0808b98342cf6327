// SPDX-License-Identifier: MIT
/*
 * Statistics. There is one buffer, and at most that one is ever at the device.
 *
 *             on request (interval 0)            pushed (interval N)
 *   at first  a buffer is left with the device   the same: it is the first push
 *   returned  a request: fresh figures are owed  nothing: the buffer is here
 *   tick      -                                  fresh figures are owed; if the buffer is still
 *                                                at the device the tick is skipped
 *   0 -> N    the period begins; the first push is owed, and sent when the buffer is here
 *   N -> M    the new period begins
 *   N -> 0    if the buffer is here, figures are owed: the device is to have one
 *
 * What is owed is sent as soon as the buffer is here. So whatever comes first, the notice of a new
 * interval or the buffer's return, no buffer is lost or doubled.
 */
#include <string.h>

#include "base/le.h"
#include "driver/parts.h"

static uint32_t read_interval(const struct driver_balloon *d)
{
	uint32_t ms;

	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_STATS_PUSH))
		return 0;
	ms = driver_config_get(d, offsetof(struct virtio_balloon_config, stats_push_interval_ms));
	if (ms && ms < VIRTIO_BALLOON_PUSH_INTERVAL_MIN)
		ms = VIRTIO_BALLOON_PUSH_INTERVAL_MIN;
	return ms;
}

static void set_interval(struct driver_stats *s, uint32_t interval_ms, uint64_t now_ms)
{
	uint32_t old = s->interval_ms;

	if (interval_ms == old)
		return;
	s->interval_ms = interval_ms;
	s->start_ms = now_ms;
	s->tick = 1;
	if (!old)
		s->owed = true;
	else if (!interval_ms)
		s->owed = !s->out;
}

/*
 * Fills the buffer and makes it available. All buffers have the entries of the first one, as the
 * standard wants it: a figure that is not known this time is marked as unset.
 */
static void send(struct driver_balloon *d)
{
	struct driver_stats *s = &d->stats;
	struct driver_statistics now;
	struct driver_buf buf = {s->room.gpa, 0};

	memset(&now, 0, sizeof(now));
	d->setup.ops->statistics(d->setup.opaque, &now);
	if (!s->tags)
		s->tags = now.set;
	for (uint32_t tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++) {
		uint8_t *entry = s->room.host + buf.len;
		bool known = now.set >> tag & 1;

		if (!(s->tags >> tag & 1))
			continue;
		le16_put(entry + offsetof(struct virtio_balloon_stat, tag), (uint16_t)tag);
		le64_put(entry + offsetof(struct virtio_balloon_stat, val),
			 known ? now.value[tag] : VIRTIO_BALLOON_S_UNSET);
		buf.len += (uint32_t)sizeof(struct virtio_balloon_stat);
	}
	s->owed = false;
	/* A system that knows nothing has nothing to send: a buffer must not be empty. */
	if (!buf.len)
		return;
	s->out = driver_ring_add(&d->ring[VIRTIO_BALLOON_VQ_STATS], &buf, 1, 1) >= 0;
	s->sent++;
}

void driver_stats_prepare(struct driver_balloon *d)
{
	if (driver_balloon_has(d, VIRTIO_BALLOON_F_STATS_VQ))
		send(d);
}

void driver_stats_start(struct driver_balloon *d, uint64_t now_ms)
{
	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_STATS_VQ))
		return;
	driver_kick(d, VIRTIO_BALLOON_VQ_STATS);
	set_interval(&d->stats, read_interval(d), now_ms);
	/* The one that is in the ring is the first push. */
	d->stats.owed = false;
}

void driver_stats_config_changed(struct driver_balloon *d, uint64_t now_ms)
{
	set_interval(&d->stats, read_interval(d), now_ms);
}

void driver_stats_used(struct driver_balloon *d, uint64_t now_ms)
{
	struct driver_stats *s = &d->stats;

	if (!s->out)
		return;
	s->out = false;
	if (s->interval_ms)
		return;
	/* A request; or pushing was switched on, and the notice of that is still to come. */
	s->owed = true;
	set_interval(s, read_interval(d), now_ms);
}

/* The ticks that have come by now; true if a buffer is to be pushed for them. */
static bool tick(struct driver_stats *s, uint64_t now_ms)
{
	uint64_t now;

	if (!s->interval_ms || now_ms < s->start_ms)
		return false;
	now = (now_ms - s->start_ms) / s->interval_ms;
	if (now < s->tick)
		return false;
	s->missed += now - s->tick;
	s->tick = now + 1;
	if (!s->out)
		return true;
	s->skipped++;
	return false;
}

void driver_stats_step(struct driver_balloon *d, uint64_t now_ms)
{
	struct driver_stats *s = &d->stats;

	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_STATS_VQ) || d->closing)
		return;
	if (tick(s, now_ms))
		s->owed = true;
	if (!s->owed || s->out)
		return;
	send(d);
	driver_kick(d, VIRTIO_BALLOON_VQ_STATS);
}

uint64_t driver_stats_next(const struct driver_balloon *d)
{
	const struct driver_stats *s = &d->stats;

	if (!s->interval_ms || d->closing)
		return UINT64_MAX;
	return s->start_ms + s->tick * s->interval_ms;
}
