// SPDX-License-Identifier: MIT
/*
 * The device as a whole: features, configuration space, target, and which queue goes where. What is
 * said on the queues stands in pages.c, stats.c, hint.c, report.c and message.c.
 */
#include "balloon/balloon.h"

#include <errno.h>
#include <string.h>

#include "balloon/giveback.h"
#include "balloon/queues.h"
#include "base/checked.h"
#include "base/le.h"

#define BIT(n) (1ULL << (n))

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
	[BALLOON_ERR_MESSAGE] = "message-too-short",
	[BALLOON_ERR_MESSAGE_FLOOD] = "message-flood",
	[BALLOON_ERR_HINT_ID] = "hint-id",
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
	memset(&b->hints, 0, sizeof(b->hints));
	memset(&b->policy, 0, sizeof(b->policy));
	memset(b->in_hand, 0, sizeof(b->in_hand));
	if (!(features & BIT(VIRTIO_BALLOON_F_STATS_VQ)))
		features &= ~BIT(VIRTIO_BALLOON_F_STATS_PUSH);
	b->st.offered = features | BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | TRANSPORT_FEATURES;
	b->redo = 0;
	b->mem = NULL;
	b->ops = ops;
	b->opaque = opaque;
	balloon_roles_init(b);
}

int balloon_set_features(struct balloon *b, uint64_t features)
{
	if (features & ~b->st.offered)
		return -EINVAL;
	/* A driver has to leave it, and what it would mean alone is nothing. */
	if (!(features & BIT(VIRTIO_BALLOON_F_STATS_VQ)))
		features &= ~BIT(VIRTIO_BALLOON_F_STATS_PUSH);
	if (features == b->st.negotiated)
		return 0;
	b->st.negotiated = features;
	(void)balloon_roles_find(b, true);
	return 0;
}

uint32_t balloon_poison(const struct balloon *b)
{
	return balloon_has(b, VIRTIO_BALLOON_F_PAGE_POISON) ? b->st.poison_val : 0;
}

void balloon_config_read(const struct balloon *b, uint32_t offset, uint8_t *buf, uint32_t len)
{
	struct virtio_balloon_config config = {
		.num_pages = htole32(b->st.num_pages),
		.actual = htole32(b->st.actual),
		.free_page_hint_cmd_id = htole32(balloon_hint_command(b)),
		.poison_val = htole32(balloon_poison(b)),
		.stats_push_interval_ms = htole32(b->st.push_interval_ms),
	};

	memset(buf, 0, len);
	if (offset < sizeof(config))
		memcpy(buf, (const uint8_t *)&config + offset,
		       min_u64(len, sizeof(config) - offset));
}

/* What of a field at `field` a write of len bytes at offset covers, put over *value. */
static bool write_field(uint32_t *value, uint32_t field, uint32_t offset, const uint8_t *buf,
			uint32_t len)
{
	uint8_t raw[sizeof(uint32_t)];
	bool covered = false;

	le32_put(raw, *value);
	for (uint32_t i = 0; i < sizeof(raw); i++) {
		if (field + i >= offset && field + i - offset < len) {
			raw[i] = buf[field + i - offset];
			covered = true;
		}
	}
	*value = le32_get(raw);
	return covered;
}

void balloon_config_write(struct balloon *b, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	const uint32_t actual_at = offsetof(struct virtio_balloon_config, actual);
	uint32_t old = b->st.actual;

	/* The driver may write it before the transport tells which features it has accepted. */
	if (b->st.offered >> VIRTIO_BALLOON_F_PAGE_POISON & 1)
		write_field(&b->st.poison_val, offsetof(struct virtio_balloon_config, poison_val),
			    offset, buf, len);
	if (!write_field(&b->st.actual_written, actual_at, offset, buf, len))
		return;
	/* A legacy driver writes byte by byte; what stands there before the last one is no number.
	 */
	if (!balloon_has(b, VIRTIO_F_VERSION_1) && offset + len < actual_at + sizeof(b->st.actual))
		return;
	b->st.actual = b->st.actual_written;
	if (b->st.actual == old)
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
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
		balloon_put_back(b, (enum virtio_balloon_queue)queue);
}

void balloon_memory_changed(struct balloon *b, const struct guest_mem *mem, uint64_t *map,
			    uint64_t *hints)
{
	static const struct pageset none;
	const struct pageset old = b->held;

	b->mem = mem;
	pageset_init(&b->held, mem, map, &old);
	pageset_init(&b->hints, mem, hints, &none);
	/* Without memory there is nothing to mark yet; it may come after a state from elsewhere. */
	if (!hints && mem->n)
		balloon_hint_useless(b);
	if (b->st.sweep.active)
		giveback_sweep_start(b);
}

void balloon_restore(struct balloon *b, const struct balloon_state *st, const struct guest_mem *mem,
		     const struct pageset *held, const struct pageset *hints)
{
	b->st = *st;
	b->mem = mem;
	b->held = *held;
	b->hints = *hints;
	b->redo = ~0U;
	/* vq_recover() takes it back. */
	balloon_stats_comes_again(b);
}

bool balloon_driver_active(const struct balloon *b)
{
	return vq_started(b->vq[VIRTIO_BALLOON_VQ_INFLATE]) &&
	       vq_started(b->vq[VIRTIO_BALLOON_VQ_DEFLATE]);
}

/* A driver that starts afresh begins with a queue. */
static void queue_fresh(struct balloon *b, enum virtio_balloon_queue queue)
{
	b->st.resume[queue] = 0;
	switch (queue) {
	case VIRTIO_BALLOON_VQ_STATS:
		balloon_stats_fresh(b);
		break;
	case VIRTIO_BALLOON_VQ_FREE_PAGE:
		balloon_hint_fresh(b);
		break;
	case VIRTIO_BALLOON_VQ_MESSAGE:
		b->st.message_due_ms = 0;
		break;
	case VIRTIO_BALLOON_VQ_INFLATE:
	case VIRTIO_BALLOON_VQ_DEFLATE:
	case VIRTIO_BALLOON_VQ_REPORTING:
	case VIRTIO_BALLOON_VQ_COUNT:
	default:
		break;
	}
}

uint32_t balloon_queue_started(struct balloon *b, uint32_t ring, bool resumed)
{
	uint32_t want = 1U << ring;

	if (!resumed)
		b->st.fresh_rings |= 1U << ring;
	want |= balloon_roles_find(b, false);
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		int8_t of = b->st.ring_of[queue];

		if (of < 0 || !(b->st.fresh_rings >> of & 1))
			continue;
		b->st.fresh_rings &= ~(1U << of);
		queue_fresh(b, (enum virtio_balloon_queue)queue);
	}
	return want;
}

void balloon_queue_stopped(struct balloon *b, uint32_t ring)
{
	int queue = balloon_queue_of(b, ring);

	if (queue >= 0)
		balloon_let_go(b, (enum virtio_balloon_queue)queue);
}

/*
 * poison_val stays: a transport may notice late that there is a new driver, when that has written
 * it already. One that does not write it does not accept the feature, and then it means nothing.
 */
void balloon_reset(struct balloon *b)
{
	bool changed = b->st.actual != 0;

	pageset_clear(&b->held);
	b->st.actual = b->st.actual_written = 0;
	b->st.sweep.active = false;
	balloon_hint_fresh(b);
	for (int i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++) {
		if (!b->in_hand[i]) /* a chain in hand is the new driver's */
			b->st.resume[i] = 0;
	}
	(void)balloon_roles_find(b, true);
	memset(&b->st.stats, 0, sizeof(b->st.stats));
	b->st.push_news_ms = 0;
	if (changed)
		b->ops->event(b->opaque, BALLOON_EVENT_ACTUAL);
}

void balloon_give_up_ring(struct balloon *b, uint32_t ring, enum vq_error error)
{
	vq_break(b->vq[ring], error);
	balloon_count_error(b, BALLOON_ERR_BROKEN, 1);
	b->ops->queue_broken(b->opaque, ring);
	if (balloon_queue_of(b, ring) == VIRTIO_BALLOON_VQ_FREE_PAGE)
		balloon_hint_useless(b);
}

int balloon_take_chain(struct balloon *b, enum virtio_balloon_queue queue,
		       enum balloon_direction direction)
{
	uint32_t ring = (uint32_t)b->st.ring_of[queue];
	struct vq_chain *chain = &b->chain[queue];
	struct vq *vq = b->vq[ring];
	int r = vq_pop(vq, chain);

	if (r > 0 && ((direction == BALLOON_READS && (chain->n_write || !chain->n_read)) ||
		      (direction == BALLOON_WRITES && (chain->n_read || !chain->n_write)) ||
		      (!chain->n_read && !chain->n_write))) {
		vq_break(vq, VQ_ERR_DIRECTION);
		r = -EPROTO;
	}
	if (r < 0)
		balloon_give_up_ring(b, ring, vq->st.error);
	return r;
}

void balloon_return(struct balloon *b, enum virtio_balloon_queue queue, uint16_t id, uint16_t slots)
{
	uint32_t ring = (uint32_t)b->st.ring_of[queue];
	struct vq *vq = b->vq[ring];

	vq_push_prepare(vq, id, slots, 0);
	b->ops->commit(b->opaque);
	vq_push_publish(vq);
	if (vq_should_notify(vq))
		b->ops->notify(b->opaque, ring);
}

void balloon_chain_done(struct balloon *b, enum virtio_balloon_queue queue)
{
	b->st.resume[queue] = 0;
	b->in_hand[queue] = false;
	b->st.buffers[queue]++;
	balloon_return(b, queue, b->chain[queue].id, b->chain[queue].slots);
}

void balloon_put_back(struct balloon *b, enum virtio_balloon_queue queue)
{
	struct vq *vq;

	if (!b->in_hand[queue])
		return;
	vq = balloon_vq(b, queue);
	vq_unpop(vq, b->chain[queue].slots);
	b->in_hand[queue] = false;
	/* A part of it had its effect: a driver that begins at 0 again has started afresh. */
	if (b->st.resume[queue])
		vq->st.served = true;
}

void balloon_let_go(struct balloon *b, enum virtio_balloon_queue queue)
{
	balloon_put_back(b, queue);
	if (queue == VIRTIO_BALLOON_VQ_STATS)
		balloon_stats_put_back(b);
}

bool balloon_queue_run(struct balloon *b, uint32_t ring, struct instant now)
{
	int queue = balloon_queue_of(b, ring);

	if (!vq_started(b->vq[ring]) || b->vq[ring]->st.error)
		return false;
	if (queue < 0) {
		balloon_roles_wait(b, now);
		return false;
	}
	switch ((enum virtio_balloon_queue)queue) {
	case VIRTIO_BALLOON_VQ_INFLATE:
	case VIRTIO_BALLOON_VQ_DEFLATE:
		return balloon_pages_run(b, (enum virtio_balloon_queue)queue);
	case VIRTIO_BALLOON_VQ_STATS:
		return balloon_stats_run(b, now);
	case VIRTIO_BALLOON_VQ_FREE_PAGE:
		return balloon_hint_run(b);
	case VIRTIO_BALLOON_VQ_REPORTING:
		return balloon_report_run(b);
	case VIRTIO_BALLOON_VQ_MESSAGE:
		return balloon_message_run(b, now);
	case VIRTIO_BALLOON_VQ_COUNT:
	default:
		return false;
	}
}

void balloon_set_inhibited(struct balloon *b, bool inhibited)
{
	bool lifted = b->st.inhibited && !inhibited;

	b->st.inhibited = inhibited;
	if (inhibited)
		b->st.sweep.active = false;
	else if (lifted)
		giveback_sweep_start(b);
}

uint32_t balloon_tick(struct balloon *b, struct instant now)
{
	uint32_t want = 0;

	balloon_stats_tick(b, now);
	balloon_poll(b, now);
	balloon_roles_judge(b, now);
	/* While the guest stands still its memory is not touched: it may be copied. */
	if (b->st.sweep.active && balloon_driver_active(b))
		giveback_sweep(b);
	if (b->st.message_due_ms && b->st.message_due_ms <= now.mono_ms) {
		int8_t ring = b->st.ring_of[VIRTIO_BALLOON_VQ_MESSAGE];

		b->st.message_due_ms = 0;
		if (ring >= 0)
			want |= 1U << ring;
	}
	return want;
}

uint64_t balloon_next_tick(const struct balloon *b)
{
	uint64_t due = b->st.poll_interval_ms ? b->st.poll_due_ms : UINT64_MAX;

	if (b->st.message_due_ms)
		due = min_u64(due, b->st.message_due_ms);
	if (b->st.push_news_ms)
		due = min_u64(due, b->st.push_news_ms);
	if (b->st.unknown_due_ms)
		due = min_u64(due, b->st.unknown_due_ms);
	return b->st.sweep.active && balloon_driver_active(b) ? 0 : due;
}
