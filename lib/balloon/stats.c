// SPDX-License-Identifier: MIT
/*
 * The statistics queue. It works backwards: the driver leaves one buffer here, filled; returning it
 * is the request for fresh figures, which come in the next buffer.
 *
 *   awaited --(buffer arrives: figures)--> held --(request, poll)--> awaited
 *
 * With STATS_PUSH and an interval the driver sends them by itself, and each buffer goes back as
 * soon as it has been read: none is held, and none that goes back is a request.
 *
 * Sources: virtio 1.4 "Memory Statistics"; the Linux patch for STATS_PUSH. The standard's "multiple
 * of 6" for the buffer's length is an error in the text; entries have 10 bytes.
 */
#include <errno.h>

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

/* Is there a queue that answers? */
static bool in_service(const struct balloon *b)
{
	const struct vq *vq = balloon_vq(b, VIRTIO_BALLOON_VQ_STATS);

	return vq && vq_started(vq) && !vq->st.error;
}

static void give_back(struct balloon *b)
{
	b->st.stats_held = false;
	balloon_return(b, VIRTIO_BALLOON_VQ_STATS, b->st.stats_id, b->st.stats_slots);
}

/* Not when they are pushed much faster than the shortest interval is. */
static bool in_time(struct balloon *b, struct instant now)
{
	struct ratelimit *rate = &b->st.push_rate;
	uint64_t suppressed;

	rate->interval_ms = 10 * VIRTIO_BALLOON_PUSH_INTERVAL_MIN;
	rate->burst = 20;
	if (!balloon_pushing(b) || ratelimit_pass(rate, now.mono_ms, &suppressed))
		return true;
	/* The last ones of a burst are news all the same, a little later. */
	b->st.push_news_ms = rate->started_ms + rate->interval_ms;
	return false;
}

/* Tells of fresh figures. */
static void tell(struct balloon *b)
{
	b->st.push_news_ms = 0;
	b->ops->event(b->opaque, BALLOON_EVENT_STATS);
}

void balloon_stats_tick(struct balloon *b, struct instant now)
{
	if (b->st.push_news_ms && b->st.push_news_ms <= now.mono_ms)
		tell(b);
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
		if (b->st.stats_awaited || balloon_pushing(b))
			give_back(b);
		return;
	}
	b->st.stats_awaited = false;
	take_figures(b, chain, now);
	if (balloon_pushing(b))
		give_back(b);
	/* One that must not have come is no event: the guest does not set the monitor's pace. */
	if (!second && in_time(b, now))
		tell(b);
}

bool balloon_stats_run(struct balloon *b, struct instant now)
{
	const enum virtio_balloon_queue queue = VIRTIO_BALLOON_VQ_STATS;
	const struct vq_chain *chain = &b->chain[queue];
	int64_t work = BALLOON_TURN_WORK;

	while (work > 0) {
		int r = balloon_take_chain(b, queue, BALLOON_READS);

		if (r < 0 || (r == 0 && !vq_enable_kicks(balloon_vq(b, queue))))
			return false;
		work--;
		if (r == 0)
			continue;
		work -= 64 + chain->n_read;
		take_buffer(b, chain, now);
	}
	return true;
}

void balloon_stats_comes_again(struct balloon *b)
{
	if (!b->st.stats_held)
		return;
	b->st.stats_held = false;
	b->st.stats_skip = true;
	b->st.buffers[VIRTIO_BALLOON_VQ_STATS]--;
}

/* It comes again when the ring goes on, with what is old then. */
void balloon_stats_put_back(struct balloon *b)
{
	struct vq *vq = balloon_vq(b, VIRTIO_BALLOON_VQ_STATS);

	if (!b->st.stats_held)
		return;
	balloon_stats_comes_again(b);
	if (vq_started(vq)) /* one that could not be kept has handed it back */
		vq_unpop(vq, b->st.stats_slots);
}

void balloon_stats_fresh(struct balloon *b)
{
	b->st.stats_held = false;
	b->st.stats_awaited = false;
	/* Legacy drivers send a first buffer that holds nothing. */
	b->st.stats_skip = !balloon_has(b, VIRTIO_F_VERSION_1);
}

bool balloon_pushing(const struct balloon *b)
{
	return b->st.push_interval_ms && balloon_has(b, VIRTIO_BALLOON_F_STATS_PUSH);
}

int balloon_set_push_interval(struct balloon *b, uint32_t interval_ms)
{
	if (interval_ms && balloon_driver_active(b) && !balloon_has(b, VIRTIO_BALLOON_F_STATS_PUSH))
		return -ENOTSUP;
	if (interval_ms && interval_ms < VIRTIO_BALLOON_PUSH_INTERVAL_MIN)
		interval_ms = VIRTIO_BALLOON_PUSH_INTERVAL_MIN;
	if (interval_ms == b->st.push_interval_ms)
		return 0;
	b->st.push_interval_ms = interval_ms;
	/* The driver hears of it before its buffer comes back, and takes that for no request. */
	b->ops->config_changed(b->opaque);
	if (b->st.stats_held && balloon_pushing(b) && in_service(b))
		give_back(b);
	return 0;
}

int balloon_request_stats(struct balloon *b)
{
	if (!balloon_driver_active(b))
		return -ENODEV;
	if (!balloon_has(b, VIRTIO_BALLOON_F_STATS_VQ))
		return -ENOTSUP;
	if (!in_service(b))
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
	balloon_poll(b, now);
}

void balloon_poll(struct balloon *b, struct instant now)
{
	uint64_t interval = b->st.poll_interval_ms;

	if (!interval || now.mono_ms < b->st.poll_due_ms)
		return;
	/* On a fixed grid, so that the time that asking takes does not add up. */
	b->st.poll_due_ms += ((now.mono_ms - b->st.poll_due_ms) / interval + 1) * interval;
	if (!balloon_pushing(b))
		(void)balloon_request_stats(b); /* without a driver there is nobody to ask */
}
