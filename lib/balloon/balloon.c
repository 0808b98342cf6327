// SPDX-License-Identifier: MIT
/*
 * The device as a whole: features, configuration space, target, and which queue goes where. What is
 * said on the queues stands in pages.c and stats.c.
 */
#include "balloon/balloon.h"

#include <errno.h>
#include <string.h>

#include "balloon/queues.h"
#include "base/checked.h"
#include "base/le.h"

#define BIT(n)     (1ULL << (n))
#define PAGE_SHIFT VIRTIO_BALLOON_PFN_SHIFT

static const char *const error_names[] = {
	[BALLOON_ERR_PFN] = "pfn-out-of-range",
	[BALLOON_ERR_DOUBLE] = "inflated-twice",
	[BALLOON_ERR_NOT_HELD] = "deflated-not-held",
	[BALLOON_ERR_DUPLICATE] = "duplicate-pfn",
	[BALLOON_ERR_FRAGMENT] = "partial-entry",
	[BALLOON_ERR_STATS_TWICE] = "second-stats-buffer",
	[BALLOON_ERR_STATS_LONG] = "stats-too-long",
	[BALLOON_ERR_ACTUAL] = "actual-too-large",
	[BALLOON_ERR_UNKNOWN_QUEUE] = "unknown-queue",
	[BALLOON_ERR_BROKEN] = "queue-broken",
};
static_assert(sizeof(error_names) / sizeof(error_names[0]) == BALLOON_ERR_COUNT,
	      "a name for every error");

const char *balloon_error_name(enum balloon_error error)
{
	return error_names[error];
}

#define TRANSPORT_FEATURES                                                               \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_EVENT_IDX) | \
	 BIT(VIRTIO_F_INDIRECT_DESC))

void balloon_init(struct balloon *b, uint64_t features, const struct balloon_ops *ops, void *opaque)
{
	memset(&b->st, 0, sizeof(b->st));
	memset(&b->held, 0, sizeof(b->held));
	b->st.offered = features | BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | TRANSPORT_FEATURES;
	b->mem = NULL;
	b->ops = ops;
	b->opaque = opaque;
	b->in_hand[0] = b->in_hand[1] = false;
}

int balloon_set_features(struct balloon *b, uint64_t features)
{
	if (features & ~b->st.offered)
		return -EINVAL;
	b->st.negotiated = features;
	return 0;
}

void balloon_config_read(const struct balloon *b, uint32_t offset, uint8_t *buf, uint32_t len)
{
	struct virtio_balloon_config config = {
		.num_pages = htole32(b->st.num_pages),
		.actual = htole32(b->st.actual),
	};

	memset(buf, 0, len);
	if (offset < sizeof(config))
		memcpy(buf, (const uint8_t *)&config + offset,
		       min_u64(len, sizeof(config) - offset));
}

void balloon_config_write(struct balloon *b, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	const uint32_t field = offsetof(struct virtio_balloon_config, actual);
	uint8_t raw[sizeof(uint32_t)];
	uint32_t old = b->st.actual;
	bool covered = false;

	le32_put(raw, old);
	for (uint32_t i = 0; i < sizeof(raw); i++) {
		if (field + i >= offset && field + i - offset < len) {
			raw[i] = buf[field + i - offset];
			covered = true;
		}
	}
	b->st.actual = le32_get(raw);
	if (!covered || b->st.actual == old)
		return;
	if (b->mem && (uint64_t)b->st.actual << PAGE_SHIFT > guest_mem_total(b->mem))
		balloon_count_error(b, BALLOON_ERR_ACTUAL, 1);
	b->ops->event(b->opaque, BALLOON_EVENT_ACTUAL);
}

void balloon_update_target(struct balloon *b)
{
	uint64_t pages = min_u64(b->st.wanted_pages, UINT32_MAX);
	uint32_t old = b->st.num_pages;

	if (b->mem)
		pages = min_u64(pages, guest_mem_total(b->mem) >> PAGE_SHIFT);
	b->st.num_pages = (uint32_t)align_down(pages, BALLOON_TARGET_STEP);
	if (b->st.num_pages != old)
		b->ops->config_changed(b->opaque);
}

void balloon_set_target(struct balloon *b, uint64_t pages)
{
	b->st.wanted_pages = pages;
	balloon_update_target(b);
}

uint64_t balloon_actual_bytes(const struct balloon *b, uint64_t limit)
{
	return min_u64((uint64_t)b->st.actual << PAGE_SHIFT, limit);
}

uint64_t balloon_held_bytes(const struct balloon *b)
{
	return b->held.count << PAGE_SHIFT;
}

void balloon_memory_changing(struct balloon *b)
{
	balloon_pages_let_go(b, VIRTIO_BALLOON_VQ_INFLATE);
	balloon_pages_let_go(b, VIRTIO_BALLOON_VQ_DEFLATE);
}

void balloon_memory_changed(struct balloon *b, const struct guest_mem *mem, uint64_t *map)
{
	struct held old = b->held;

	b->mem = mem;
	held_init(&b->held, mem, map, &old);
}

bool balloon_driver_active(const struct balloon *b)
{
	return vq_started(b->vq[VIRTIO_BALLOON_VQ_INFLATE]) &&
	       vq_started(b->vq[VIRTIO_BALLOON_VQ_DEFLATE]);
}

void balloon_queue_started(struct balloon *b, uint32_t queue, bool resumed)
{
	if (queue == VIRTIO_BALLOON_VQ_STATS) {
		if (!resumed) {
			b->st.stats_awaited = false;
			b->st.stats_skip = !balloon_has(b, VIRTIO_F_VERSION_1);
		}
	} else if (queue < VIRTIO_BALLOON_VQ_STATS && !resumed) {
		b->st.resume[queue] = 0;
	}
}

void balloon_queue_stopped(struct balloon *b, uint32_t queue)
{
	if (queue == VIRTIO_BALLOON_VQ_STATS) {
		/* The one that is here goes back to the ring, and comes again when that goes on. */
		b->st.stats_skip |= b->st.stats_held;
		b->st.stats_held = false;
	} else if (queue < VIRTIO_BALLOON_VQ_STATS) {
		balloon_pages_let_go(b, queue);
	}
}

void balloon_reset(struct balloon *b)
{
	bool changed = b->st.actual != 0;

	held_clear(&b->held);
	b->st.actual = 0;
	for (uint32_t i = 0; i < 2; i++) {
		if (!b->in_hand[i]) /* a chain in hand is the new driver's */
			b->st.resume[i] = 0;
	}
	memset(&b->st.stats, 0, sizeof(b->st.stats));
	if (changed)
		b->ops->event(b->opaque, BALLOON_EVENT_ACTUAL);
}

void balloon_break_queue(struct balloon *b, uint32_t queue, enum vq_error error)
{
	vq_break(b->vq[queue], error);
	balloon_count_error(b, BALLOON_ERR_BROKEN, 1);
	b->ops->queue_broken(b->opaque, queue);
}

void balloon_return(struct balloon *b, uint32_t queue, uint16_t id, uint16_t slots)
{
	struct vq *vq = b->vq[queue];

	vq_push(vq, id, slots, 0);
	if (vq_should_notify(vq))
		b->ops->notify(b->opaque, queue);
}

bool balloon_queue_run(struct balloon *b, uint32_t queue, struct instant now)
{
	if (!vq_started(b->vq[queue]) || b->vq[queue]->st.error)
		return false;

	switch ((enum virtio_balloon_queue)queue) {
	case VIRTIO_BALLOON_VQ_INFLATE:
	case VIRTIO_BALLOON_VQ_DEFLATE:
		return balloon_pages_run(b, queue);
	case VIRTIO_BALLOON_VQ_STATS:
		if (balloon_has(b, VIRTIO_BALLOON_F_STATS_VQ))
			return balloon_stats_run(b, now);
		break;
	case VIRTIO_BALLOON_VQ_FREE_PAGE:
	case VIRTIO_BALLOON_VQ_REPORTING:
	case VIRTIO_BALLOON_VQ_MESSAGE:
	case VIRTIO_BALLOON_VQ_COUNT:
	default:
		break;
	}
	balloon_count_error(b, BALLOON_ERR_UNKNOWN_QUEUE, 1);
	return false;
}
