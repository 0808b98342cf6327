// SPDX-License-Identifier: MIT
/*
 * The statistics queue. It works backwards: the driver leaves one buffer here, filled; returning it
 * is the request for fresh figures, which come in the next buffer.
 *
 *   awaited --(buffer arrives: figures)--> held --(request, poll)--> awaited
 *
 * Sources: virtio 1.4 "Memory Statistics". Its "multiple of 6" for the buffer's length is an error
 * in the text; entries have 10 bytes.
 */
#include <errno.h>
#include <string.h>

#include "balloon/queues.h"
#include "base/le.h"

static_assert(sizeof(struct virtio_balloon_stat) == 10, "virtio: statistics entry");

/* Some 16 tags are known. What stands behind this many entries is not looked at. */
#define ENTRIES_MAX 1024U

static void take_entry(struct balloon *b, struct balloon_stats *stats, const uint8_t *entry)
{
	uint16_t tag = le16_get(entry + offsetof(struct virtio_balloon_stat, tag));
	uint64_t value = le64_get(entry + offsetof(struct virtio_balloon_stat, val));

	if (tag >= VIRTIO_BALLOON_S_NR) {
		b->st.unknown_tags++;
		return;
	}
	if (value == VIRTIO_BALLOON_S_UNSET) {
		stats->set &= ~(1U << tag);
		return;
	}
	stats->value[tag] = value;
	stats->set |= 1U << tag;
}

/* Reads the whole set from a chain. */
static void take_figures(struct balloon *b, const struct vq_chain *chain, struct instant now)
{
	struct balloon_stats stats = {.ever = true, .arrived = now};
	struct chain_cursor at = {0};
	uint8_t entry[sizeof(struct virtio_balloon_stat)];
	size_t len = 0;

	for (uint32_t i = 0; i < ENTRIES_MAX; i++) {
		len = chain_read(chain, &at, entry, sizeof(entry));
		if (len < sizeof(entry))
			break;
		take_entry(b, &stats, entry);
	}
	if (len == sizeof(entry) && at.seg < chain->n_read)
		balloon_count_error(b, BALLOON_ERR_STATS_LONG, 1);
	else if (len % sizeof(entry))
		balloon_count_error(b, BALLOON_ERR_FRAGMENT, 1);
	b->st.stats = stats;
}

static void give_back(struct balloon *b)
{
	b->st.stats_held = false;
	balloon_return(b, VIRTIO_BALLOON_VQ_STATS, b->st.stats_id, b->st.stats_slots);
}

static void take_buffer(struct balloon *b, const struct vq_chain *chain, struct instant now)
{
	bool second = b->st.stats_held;

	b->st.buffers[VIRTIO_BALLOON_VQ_STATS]++;
	if (second) {
		/* Two are out: return the older one, so that there is again one. */
		balloon_count_error(b, BALLOON_ERR_STATS_TWICE, 1);
		give_back(b);
	}
	b->st.stats_held = true;
	b->st.stats_id = chain->id;
	b->st.stats_slots = chain->slots;
	if (b->st.stats_skip) {
		b->st.stats_skip = false;
		if (b->st.stats_awaited)
			give_back(b);
		return;
	}
	b->st.stats_awaited = false;
	take_figures(b, chain, now);
	/* One that must not have come is no event: the guest does not set the monitor's pace. */
	if (!second)
		b->ops->event(b->opaque, BALLOON_EVENT_STATS);
}

bool balloon_stats_run(struct balloon *b, struct instant now)
{
	const uint32_t queue = VIRTIO_BALLOON_VQ_STATS;
	struct vq *vq = b->vq[queue];
	struct vq_chain *chain = &b->chain[queue];
	int64_t work = BALLOON_TURN_WORK;

	while (work > 0) {
		int r = vq_pop(vq, chain);

		if (r == 0 && !vq_enable_kicks(vq))
			return false;
		work--;
		if (r == 0)
			continue;
		if (r > 0 && (chain->n_write || !chain->n_read)) {
			vq_break(vq, VQ_ERR_DIRECTION);
			r = -EPROTO;
		}
		if (r < 0) {
			balloon_break_queue(b, queue, vq->st.error);
			return false;
		}
		work -= 64 + chain->n_read;
		take_buffer(b, chain, now);
	}
	return true;
}

int balloon_request_stats(struct balloon *b)
{
	struct vq *vq = b->vq[VIRTIO_BALLOON_VQ_STATS];

	if (!balloon_driver_active(b))
		return -ENODEV;
	if (!balloon_has(b, VIRTIO_BALLOON_F_STATS_VQ))
		return -ENOTSUP;
	if (!vq_started(vq) || vq->st.error)
		return -ENODEV;
	b->st.stats_awaited = true;
	if (b->st.stats_held)
		give_back(b);
	return 0;
}

void balloon_set_poll_interval(struct balloon *b, uint64_t interval_ms, struct instant now)
{
	b->st.poll_interval_ms = interval_ms;
	b->st.poll_due_ms = now.mono_ms;
	balloon_tick(b, now);
}

void balloon_tick(struct balloon *b, struct instant now)
{
	uint64_t interval = b->st.poll_interval_ms;

	if (!interval || now.mono_ms < b->st.poll_due_ms)
		return;
	/* On a fixed grid, so that the time that asking takes does not add up. */
	b->st.poll_due_ms += ((now.mono_ms - b->st.poll_due_ms) / interval + 1) * interval;
	(void)balloon_request_stats(b); /* without a driver there is nobody to ask */
}

uint64_t balloon_next_tick(const struct balloon *b)
{
	return b->st.poll_interval_ms ? b->st.poll_due_ms : UINT64_MAX;
}
