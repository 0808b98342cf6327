// SPDX-License-Identifier: MIT
#include "driver/balloon.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "driver/parts.h"

#define BIT(n) (1ULL << (n))

#define KNOWN_FEATURES                                                                     \
	(BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_BALLOON_F_STATS_VQ) |           \
	 BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) |     \
	 BIT(VIRTIO_BALLOON_F_PAGE_POISON) | BIT(VIRTIO_BALLOON_F_PAGE_REPORTING) |        \
	 BIT(VIRTIO_BALLOON_F_STATS_PUSH) | BIT(VIRTIO_BALLOON_F_MESSAGE_VQ) |             \
	 BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_VERSION_1) | \
	 BIT(VIRTIO_F_RING_PACKED))

/* What the legacy interface can speak of. */
#define LEGACY_FEATURES 0xffffffffULL

/* Buffers of different queues share no cache line. */
#define ALIGNMENT 64U

/* Hints need a place in the ring for the word that ends them. */
#define HINT_RING_MIN 2U

/* The feature that a queue exists with; -1: it always does. */
static const int queue_feature[] = {
	[VIRTIO_BALLOON_VQ_INFLATE] = -1,
	[VIRTIO_BALLOON_VQ_DEFLATE] = -1,
	[VIRTIO_BALLOON_VQ_STATS] = VIRTIO_BALLOON_F_STATS_VQ,
	[VIRTIO_BALLOON_VQ_FREE_PAGE] = VIRTIO_BALLOON_F_FREE_PAGE_HINT,
	[VIRTIO_BALLOON_VQ_REPORTING] = VIRTIO_BALLOON_F_PAGE_REPORTING,
	[VIRTIO_BALLOON_VQ_MESSAGE] = VIRTIO_BALLOON_F_MESSAGE_VQ,
};
static_assert(sizeof(queue_feature) / sizeof(queue_feature[0]) == VIRTIO_BALLOON_VQ_COUNT,
	      "a feature for every queue");

uint64_t driver_balloon_negotiate(uint64_t offered, uint64_t wanted, bool poison)
{
	uint64_t features = offered & wanted & KNOWN_FEATURES;

	if (!(features & BIT(VIRTIO_F_VERSION_1)))
		features &= LEGACY_FEATURES;
	if (!(features & BIT(VIRTIO_BALLOON_F_STATS_VQ)))
		features &= ~BIT(VIRTIO_BALLOON_F_STATS_PUSH);
	if (!poison)
		features &= ~BIT(VIRTIO_BALLOON_F_PAGE_POISON);
	else if (!(features & BIT(VIRTIO_BALLOON_F_PAGE_POISON)))
		features &= ~BIT(VIRTIO_BALLOON_F_PAGE_REPORTING);
	return features;
}

static bool exists(int queue, uint64_t features)
{
	return queue_feature[queue] < 0 || features >> queue_feature[queue] & 1;
}

/* Gives each queue that exists its ring. */
static void number_rings(struct driver_balloon *d)
{
	uint64_t counted = ~0ULL;
	int8_t next = 0;

	if (d->setup.numbering == DRIVER_NUMBERS_NEGOTIATED)
		counted = d->features;
	else if (d->setup.numbering == DRIVER_NUMBERS_OFFERED)
		counted = d->setup.offered;
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		int8_t ring = exists(queue, counted) ? next++ : -1;

		d->ring_of[queue] = exists(queue, d->features) ? ring : -1;
	}
}

static bool ring_size_ok(const struct driver_balloon *d, int queue)
{
	uint16_t size = d->setup.ring_size[queue];

	if (d->ring_of[queue] < 0)
		return true;
	if (!size || size > DRIVER_RING_MAX)
		return false;
	if (queue == VIRTIO_BALLOON_VQ_FREE_PAGE && size < HINT_RING_MIN)
		return false;
	return driver_balloon_has(d, VIRTIO_F_RING_PACKED) || is_power_of_two(size);
}

int driver_balloon_init(struct driver_balloon *d, const struct driver_balloon_setup *setup)
{
	uint64_t wanted = setup->wanted;

	memset(d, 0, sizeof(*d));
	d->setup = *setup;
	if (!setup->array_pfns)
		d->setup.array_pfns = DRIVER_ARRAY_PFNS;
	if (d->setup.array_pfns > DRIVER_ARRAY_MAX || !setup->pages ||
	    !range_within(setup->first_pfn, setup->pages, 1ULL << 32))
		return -EINVAL;
	if (!setup->hinted)
		wanted &= ~BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT);
	d->features = driver_balloon_negotiate(setup->offered, wanted, setup->poison);
	number_rings(d);
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		if (!ring_size_ok(d, queue))
			return -EINVAL;
	}
	driver_message_init(d);
	return 0;
}

/* Takes len bytes of the room; its place is noted where one is given. */
static void place(struct driver_room *room, size_t *at, const struct driver_room *all, size_t len)
{
	if (all && room)
		*room = (struct driver_room){all->host + *at, all->gpa + *at};
	*at += align_up(len, ALIGNMENT);
}

/* Returns what rings and buffers take; with `all` lays them out there. */
static size_t lay_out(const struct driver_balloon *d, struct driver_balloon *to,
		      const struct driver_room *all)
{
	size_t array = (size_t)d->setup.array_pfns * sizeof(virtio_balloon_pfn_t), at = 0;
	bool packed = driver_balloon_has(d, VIRTIO_F_RING_PACKED);

	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		struct driver_room room;
		uint16_t size = d->setup.ring_size[queue];

		if (d->ring_of[queue] < 0)
			continue;
		place(&room, &at, all, driver_ring_bytes(packed, size));
		if (!all)
			continue;
		driver_ring_init(&to->ring[queue], packed,
				 driver_balloon_has(d, VIRTIO_F_EVENT_IDX), size, room.host);
		to->ring_gpa[queue] = room.gpa;
	}
	place(to ? &to->pages.inflate.room : NULL, &at, all, array);
	place(to ? &to->pages.deflate.room : NULL, &at, all, array);
	place(to ? &to->stats.room : NULL, &at, all, DRIVER_STATS_BYTES);
	place(to ? &to->message.room : NULL, &at, all, sizeof(struct virtio_balloon_message));
	place(to ? &to->hint.start : NULL, &at, all, sizeof(uint32_t));
	place(to ? &to->hint.stop : NULL, &at, all, sizeof(uint32_t));
	place(to ? &to->report.table : NULL, &at, all, DRIVER_REPORT_BLOCKS * VRING_DESC_SIZE);
	return at;
}

size_t driver_balloon_bytes(const struct driver_balloon *d)
{
	return lay_out(d, NULL, NULL);
}

void driver_balloon_prepare(struct driver_balloon *d, uint8_t *mem, uint64_t gpa)
{
	const struct driver_room all = {mem, gpa};

	lay_out(d, d, &all);
	if (driver_balloon_has(d, VIRTIO_BALLOON_F_PAGE_POISON))
		driver_config_put(d, offsetof(struct virtio_balloon_config, poison_val),
				  d->setup.poison_val);
	driver_stats_prepare(d);
}

uint32_t driver_config_get(const struct driver_balloon *d, size_t field)
{
	uint8_t raw[sizeof(uint32_t)] = {0};

	d->setup.ops->config_read(d->setup.opaque, (uint32_t)field, raw, sizeof(raw));
	return le32_get(raw);
}

void driver_config_put(const struct driver_balloon *d, size_t field, uint32_t value)
{
	uint8_t raw[sizeof(uint32_t)];

	le32_put(raw, value);
	d->setup.ops->config_write(d->setup.opaque, (uint32_t)field, raw, sizeof(raw));
}

void driver_kick(struct driver_balloon *d, enum virtio_balloon_queue queue)
{
	if (driver_ring_should_kick(&d->ring[queue]))
		d->setup.ops->kick(d->setup.opaque, (uint32_t)d->ring_of[queue]);
}

/* Every queue asks to hear of the next used buffer; true if one has come meanwhile. */
static bool enable_notify(struct driver_balloon *d)
{
	bool more = false;

	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		if (d->ring_of[queue] < 0)
			continue;
		driver_ring_enable_notify(&d->ring[queue]);
		more = more || driver_ring_has_used(&d->ring[queue]);
	}
	return more;
}

void driver_balloon_start(struct driver_balloon *d, uint64_t now_ms)
{
	d->running = true;
	d->pages.stale = true;
	driver_stats_start(d, now_ms);
	driver_hint_config_changed(d);
	(void)enable_notify(d);
	/* Also what came back before anybody listened. */
	driver_balloon_used(d, now_ms);
}

void driver_balloon_step(struct driver_balloon *d, uint64_t now_ms)
{
	if (!d->running)
		return;
	driver_stats_step(d, now_ms);
	/* Before pages: it may forbid to inflate, or allow it again. */
	driver_message_step(d, now_ms);
	driver_hint_step(d);
	driver_pages_step(d, now_ms);
}

void driver_balloon_config_changed(struct driver_balloon *d, uint64_t now_ms)
{
	if (!d->running)
		return;
	driver_stats_config_changed(d, now_ms);
	driver_hint_config_changed(d);
	driver_pages_config_changed(d);
	driver_balloon_step(d, now_ms);
}

static void collect(struct driver_balloon *d, enum virtio_balloon_queue queue, uint64_t now_ms)
{
	uint32_t written; /* nothing ever is; on the legacy interface it may say anything */
	uint16_t id;

	while (driver_ring_used(&d->ring[queue], &id, &written)) {
		switch (queue) {
		case VIRTIO_BALLOON_VQ_INFLATE:
		case VIRTIO_BALLOON_VQ_DEFLATE:
			driver_pages_used(d, queue);
			break;
		case VIRTIO_BALLOON_VQ_STATS:
			driver_stats_used(d, now_ms);
			break;
		case VIRTIO_BALLOON_VQ_FREE_PAGE:
			driver_hint_used(d, id);
			break;
		case VIRTIO_BALLOON_VQ_REPORTING:
			driver_report_used(d);
			break;
		case VIRTIO_BALLOON_VQ_MESSAGE:
			driver_message_used(d);
			break;
		case VIRTIO_BALLOON_VQ_COUNT:
		default:
			break;
		}
	}
}

void driver_balloon_used(struct driver_balloon *d, uint64_t now_ms)
{
	if (!d->running)
		return;
	do {
		for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
			if (d->ring_of[queue] >= 0)
				collect(d, (enum virtio_balloon_queue)queue, now_ms);
		}
	} while (enable_notify(d));
	driver_balloon_step(d, now_ms);
}

void driver_balloon_tick(struct driver_balloon *d, uint64_t now_ms)
{
	driver_balloon_step(d, now_ms);
}

uint64_t driver_balloon_next_tick(const struct driver_balloon *d)
{
	uint64_t due;

	if (!d->running)
		return UINT64_MAX;
	due = min_u64(driver_stats_next(d), driver_message_next(d));
	return min_u64(due, driver_pages_next(d));
}

void driver_balloon_close(struct driver_balloon *d, uint64_t now_ms)
{
	d->closing = true;
	driver_balloon_step(d, now_ms);
}

bool driver_balloon_closed(const struct driver_balloon *d)
{
	const struct driver_pages *p = &d->pages;

	if (!d->running)
		return true;
	/* A buffer that was left for requests stays with the device: there is no way to ask for it.
	 */
	if (d->stats.out && d->stats.interval_ms)
		return false;
	return d->closing && !p->count && !p->inflate.out && !p->deflate.out && !d->message.out &&
	       !d->report.out && !d->hint.id && !d->hint.out && !d->hint.start_out &&
	       !d->hint.stop_out;
}

void driver_balloon_reset(struct driver_balloon *d)
{
	d->running = d->closing = false;
	driver_pages_reset(d);
	driver_hint_reset(d);
	driver_report_reset(d);
	memset(&d->stats, 0, sizeof(d->stats));
	memset(&d->message, 0, sizeof(d->message));
	driver_message_init(d);
}
