// SPDX-License-Identifier: MIT
/* Looking at a device. Nothing here changes it, so all may be called from within callbacks. */
#include <errno.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "embed/embed.h"

#define PAGE_SHIFT VIRTIO_BALLOON_PFN_SHIFT

static_assert(VIRTIO_BALLOON_S_NR <= AEROSTAT_STATS_MAX, "room for every tag");

int embed_take(void *to, size_t known, size_t least, const void *from, size_t size)
{
	const uint8_t *bytes = from;

	if (size < least)
		return -EINVAL;
	for (size_t i = known; i < size; i++) {
		if (bytes[i])
			return -E2BIG;
	}
	memset(to, 0, known);
	memcpy(to, from, min_u64(size, known));
	return 0;
}

int embed_give(void *to, size_t size, size_t least, const void *from, size_t known)
{
	uint8_t *bytes = to;
	size_t filled = min_u64(size, known);

	if (size < least)
		return -EINVAL;
	memcpy(bytes + sizeof(size_t), (const uint8_t *)from + sizeof(size_t),
	       filled - sizeof(size_t));
	memset(bytes + filled, 0, size - filled);
	return 0;
}

uint64_t aerostat_balloon_features(const struct aerostat_balloon *device)
{
	return device ? device->b.st.offered : 0;
}

int aerostat_balloon_config_read(const struct aerostat_balloon *device, uint32_t offset, void *buf,
				 uint32_t len)
{
	if (!device || (len && !buf))
		return -EINVAL;
	if (len)
		balloon_config_read(&device->b, offset, buf, len);
	return 0;
}

int aerostat_balloon_get_stats(const struct aerostat_balloon *device, uint64_t now_ms,
			       struct aerostat_stats *stats)
{
	const struct instant now = {.mono_ms = now_ms};
	const struct balloon_stats *last;
	struct aerostat_stats out = {0};

	if (!device || !stats)
		return -EINVAL;
	last = &device->b.st.stats;
	if (!last->ever)
		return -ENODATA;
	out.age_ms = instant_age_ms(now, last->arrived);
	out.valid = last->set;
	for (uint32_t i = 0; i < VIRTIO_BALLOON_S_NR; i++)
		out.value[i] = last->set >> i & 1 ? last->value[i] : 0;
	return embed_give(stats, stats->size, sizeof(out), &out, sizeof(out));
}

/* The part of [first, first + n) that is guest page run [page, page + len) of a region. */
static void copy_run(uint64_t *bitmap, uint64_t first, uint64_t n, uint64_t page, uint64_t len)
{
	uint64_t from = page > first ? page : first;
	uint64_t to = min_u64(page + len, first + n);

	if (from < to)
		(void)bitmap_set_range(bitmap, from - first, to - from);
}

static void copy_pages(const struct pageset *set, uint64_t first, uint64_t n, uint64_t *bitmap)
{
	for (uint32_t i = 0; i < set->at.n; i++) {
		uint64_t base = set->at.region[i].first_pfn, page = first > base ? first - base : 0;
		uint64_t len;

		while (page < set->at.region[i].pages && base + page < first + n &&
		       pageset_next_run(set, i, &page, &len)) {
			copy_run(bitmap, first, n, base + page, len);
			page += len;
		}
	}
}

int aerostat_balloon_read_pages(const struct aerostat_balloon *device, enum aerostat_page_set set,
				uint64_t first_page, uint64_t n_pages, uint64_t *bitmap)
{
	uint64_t end;

	if (!device || !bitmap || !n_pages || !checked_add(first_page, n_pages, &end) ||
	    (set != AEROSTAT_PAGES_HELD && set != AEROSTAT_PAGES_HINTED))
		return -EINVAL;
	memset(bitmap, 0, bitmap_words(n_pages) * sizeof(*bitmap));
	copy_pages(set == AEROSTAT_PAGES_HELD ? &device->b.held : &device->b.hints, first_page,
		   n_pages, bitmap);
	return 0;
}

static uint32_t to_hint_state(enum balloon_hint_state state)
{
	static const enum aerostat_hint_state states[] = {
		[BALLOON_HINT_IDLE] = AEROSTAT_HINT_IDLE,
		[BALLOON_HINT_REQUESTED] = AEROSTAT_HINT_REQUESTED,
		[BALLOON_HINT_HINTING] = AEROSTAT_HINT_HINTING,
		[BALLOON_HINT_FINISHED] = AEROSTAT_HINT_FINISHED,
		[BALLOON_HINT_DONE] = AEROSTAT_HINT_ENDED,
	};
	static_assert(sizeof(states) / sizeof(states[0]) == BALLOON_HINT_COUNT,
		      "a name for every state");

	return states[state];
}

static void fill_pressure(struct aerostat_balloon_info *out, const struct balloon_pressure *p,
			  struct instant now)
{
	if (p->ever) {
		out->pressure_type = p->type;
		out->pressure_level = p->level;
		out->pressure_age_ms = instant_age_ms(now, p->arrived);
	}
	for (uint32_t i = 0; i < AEROSTAT_PRESSURE_LEVELS; i++)
		out->pressure_messages[i] = p->messages[i];
	out->relieved_messages = p->relieved;
	out->unknown_messages = p->unknown;
}

int aerostat_balloon_get_info(const struct aerostat_balloon *device, uint64_t now_ms,
			      struct aerostat_balloon_info *info)
{
	const struct instant now = {.mono_ms = now_ms};
	const struct balloon_state *st;
	struct aerostat_balloon_info out = {0};

	if (!device || !info)
		return -EINVAL;
	st = &device->b.st;
	out.features_offered = st->offered;
	out.features_negotiated = st->negotiated;
	out.memory = guest_mem_total(&device->memory.mem);
	out.target = (uint64_t)st->num_pages << PAGE_SHIFT;
	out.actual = (uint64_t)st->actual << PAGE_SHIFT;
	out.held = balloon_held_bytes(&device->b);
	out.inflated = st->inflated_pages << PAGE_SHIFT;
	out.deflated = st->deflated_pages << PAGE_SHIFT;
	out.reported = st->reported_bytes;
	out.hinted = st->hinted_bytes;
	out.kept = st->kept_bytes;
	out.freed = st->freed_bytes;
	out.discard_failures = device->failed_before + memory_failures(&device->memory);
	out.driver_active = balloon_driver_active(&device->b);
	out.poison_value = balloon_poison(&device->b);
	out.inhibitors = device->inhibitors;
	out.push_interval_ms = st->push_interval_ms;
	out.hint_state = to_hint_state(st->hint.state);
	out.hint_id = st->hint.id;
	fill_pressure(&out, &st->pressure, now);
	out.unknown_stats = st->unknown_tags;
	return embed_give(info, info->size, sizeof(out), &out, sizeof(out));
}

int aerostat_balloon_get_resident(const struct aerostat_balloon *device, uint64_t *bytes)
{
	const struct memory *m;
	uint64_t sum = 0;

	if (!device || !bytes)
		return -EINVAL;
	m = &device->memory;
	for (uint32_t i = 0; i < m->mem.n; i++) {
		if (m->counts[i])
			sum += discard_resident(&m->area[i]);
	}
	*bytes = sum;
	return 0;
}

int aerostat_balloon_get_ring(const struct aerostat_balloon *device, uint32_t ring,
			      struct aerostat_ring_info *info)
{
	struct aerostat_ring_info out = {0};
	const struct vq *vq;

	if (!device || ring >= AEROSTAT_RINGS || !info)
		return -EINVAL;
	vq = &device->vq[ring];
	out.queue = balloon_queue_of(&device->b, ring);
	out.started = vq_started(vq);
	if (out.queue >= 0)
		out.buffers = device->b.st.buffers[out.queue];
	if (vq->st.error)
		out.broken = vq_error_name(vq->st.error);
	return embed_give(info, info->size, sizeof(out), &out, sizeof(out));
}

int aerostat_balloon_get_error(const struct aerostat_balloon *device, uint32_t index,
			       const char **name, uint64_t *count)
{
	if (!device)
		return -EINVAL;
	if (index >= BALLOON_ERR_COUNT)
		return -ENOENT;
	if (name)
		*name = balloon_error_name((enum balloon_error)index);
	if (count)
		*count = device->b.st.errors[index];
	return 0;
}
