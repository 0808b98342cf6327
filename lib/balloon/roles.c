// SPDX-License-Identifier: MIT
/*
 * Which ring is which queue. The standard gives each queue a fixed number; Linux counts only the
 * queues of negotiated features, QEMU's own device those of offered ones. No message says which of
 * them a driver goes by. It shows in the set of rings that it has set up: a numbering fits if its
 * queues of negotiated features lie on just those rings. Every numbering rises with the queue's
 * number, so two that fit the same set agree on all of it, and what fits is right.
 *
 * Rings are set up one by one, so for a while none may fit; inflate and deflate are on rings 0 and
 * 1 in any case. A ring that is not known is not served: it waits in the guest's memory. A driver
 * may kick it while others are still being set up (Linux does so with the statistics); if some time
 * after that it is not known yet, the driver has erred.
 */
#include "balloon/queues.h"

/* From the first kick of an unknown ring on, for the others to be set up. */
#define SETUP_MS 200

#define BIT(n) (1ULL << (n))

/* The feature that a queue exists with, as a bit mask; 0: it always does. */
static const uint64_t queue_feature[] = {
	[VIRTIO_BALLOON_VQ_INFLATE] = 0,
	[VIRTIO_BALLOON_VQ_DEFLATE] = 0,
	[VIRTIO_BALLOON_VQ_STATS] = BIT(VIRTIO_BALLOON_F_STATS_VQ),
	[VIRTIO_BALLOON_VQ_FREE_PAGE] = BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT),
	[VIRTIO_BALLOON_VQ_REPORTING] = BIT(VIRTIO_BALLOON_F_PAGE_REPORTING),
	[VIRTIO_BALLOON_VQ_MESSAGE] = BIT(VIRTIO_BALLOON_F_MESSAGE_VQ),
};
static_assert(sizeof(queue_feature) / sizeof(queue_feature[0]) == VIRTIO_BALLOON_VQ_COUNT,
	      "a feature for every queue");

static bool exists(int queue, uint64_t features)
{
	return !queue_feature[queue] || features & queue_feature[queue];
}

/* Fills ring_of[] as a driver does that counts the queues of these features. */
static void number(const struct balloon *b, uint64_t counted, int8_t *ring_of)
{
	int8_t next = 0;

	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		ring_of[queue] = exists(queue, b->st.negotiated) ? next : -1;
		next = (int8_t)(next + exists(queue, counted));
	}
}

/* The rings that have a queue. */
static uint32_t rings_in(const int8_t *ring_of)
{
	uint32_t rings = 0;

	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		if (ring_of[queue] >= 0)
			rings |= 1U << ring_of[queue];
	}
	return rings;
}

static uint32_t started_rings(const struct balloon *b)
{
	uint32_t rings = 0;

	for (uint32_t ring = 0; ring < VIRTIO_BALLOON_VQ_COUNT; ring++) {
		if (vq_started(b->vq[ring]))
			rings |= 1U << ring;
	}
	return rings;
}

/* Fills ring_of[] by the numbering that fits the rings which are started. */
static bool find(const struct balloon *b, int8_t *ring_of)
{
	const uint64_t counted[] = {~0ULL /* fixed */, b->st.negotiated, b->st.offered};

	for (size_t i = 0; i < sizeof(counted) / sizeof(counted[0]); i++) {
		number(b, counted[i], ring_of);
		if (rings_in(ring_of) == started_rings(b))
			return true;
	}
	return false;
}

/* Returns the rings that have a queue now which they had not before. */
static uint32_t take(struct balloon *b, const int8_t *ring_of)
{
	uint32_t changed = 0;

	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		if (ring_of[queue] == b->st.ring_of[queue])
			continue;
		balloon_let_go(b, (enum virtio_balloon_queue)queue);
		b->st.resume[queue] = 0;
		b->st.ring_of[queue] = ring_of[queue];
		if (ring_of[queue] >= 0)
			changed |= 1U << ring_of[queue];
	}
	b->st.fresh_rings |= changed;
	return changed;
}

/* Only inflate and deflate are known. */
static void nothing_known(int8_t *ring_of)
{
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
		ring_of[queue] = queue_feature[queue] ? -1 : (int8_t)queue;
}

void balloon_roles_init(struct balloon *b)
{
	nothing_known(b->st.ring_of);
}

uint32_t balloon_roles_find(struct balloon *b, bool anew)
{
	int8_t ring_of[VIRTIO_BALLOON_VQ_COUNT];

	if (!find(b, ring_of)) {
		/* Those of a driver that are paused are not started either. */
		if (!anew && !(started_rings(b) & ~rings_in(b->st.ring_of)))
			return 0;
		nothing_known(ring_of);
	}
	return take(b, ring_of);
}

int balloon_queue_of(const struct balloon *b, uint32_t ring)
{
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		if (b->st.ring_of[queue] == (int8_t)ring)
			return queue;
	}
	return -1;
}

struct vq *balloon_vq(const struct balloon *b, enum virtio_balloon_queue queue)
{
	int8_t ring = b->st.ring_of[queue];

	return ring < 0 ? NULL : b->vq[ring];
}

void balloon_queue_kicked(struct balloon *b, uint32_t ring)
{
	if (vq_started(b->vq[ring]) && balloon_queue_of(b, ring) < 0)
		b->st.unknown_kicked |= 1U << ring;
}

void balloon_roles_wait(struct balloon *b, struct instant now)
{
	if (b->st.unknown_kicked && !b->st.unknown_due_ms)
		b->st.unknown_due_ms = now.mono_ms + SETUP_MS;
}

void balloon_roles_judge(struct balloon *b, struct instant now)
{
	if (!b->st.unknown_due_ms || now.mono_ms < b->st.unknown_due_ms)
		return;
	for (uint32_t ring = 0; ring < VIRTIO_BALLOON_VQ_COUNT; ring++) {
		if (b->st.unknown_kicked >> ring & 1 && vq_started(b->vq[ring]) &&
		    balloon_queue_of(b, ring) < 0)
			balloon_count_error(b, BALLOON_ERR_UNKNOWN_QUEUE, 1);
	}
	b->st.unknown_kicked = 0;
	b->st.unknown_due_ms = 0;
}
