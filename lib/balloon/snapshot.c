// SPDX-License-Identifier: MIT
/*
 * The writer. It has one section at a time in its buffer: made, sent in pieces, then the next one.
 * The bitmap is read as it goes out; only the rest of the state is copied at the beginning.
 */
#include "balloon/snapshot.h"

#include <string.h>

#include "balloon/snapshot_format.h"
#include "base/bitmap.h"
#include "base/checked.h"
#include "base/crc32.h"
#include "base/le.h"

/* So many equal words, all clear or all set, are worth a section's end: bytes saved by less. */
#define WORTH_A_BREAK 8U

static void put32(struct snapshot_writer *w, uint32_t v)
{
	le32_put(w->buf + w->have, v);
	w->have += sizeof(v);
}

static void put64(struct snapshot_writer *w, uint64_t v)
{
	le64_put(w->buf + w->have, v);
	w->have += sizeof(v);
}

static void put_array(struct snapshot_writer *w, const uint64_t *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		put64(w, v[i]);
}

static uint64_t left_ms(const struct snapshot_writer *w, uint64_t due_ms)
{
	return due_ms > w->now.mono_ms ? due_ms - w->now.mono_ms : 0;
}

static void put_arrival(struct snapshot_writer *w, struct instant arrived)
{
	put64(w, instant_age_ms(w->now, arrived));
	put64(w, (uint64_t)arrived.wall_us);
}

static void write_device(struct snapshot_writer *w)
{
	const struct balloon_state *st = &w->st;

	put64(w, st->negotiated);
	put64(w, st->wanted_pages);
	put32(w, st->num_pages);
	put32(w, st->actual);
	put32(w, st->actual_written);
	put32(w, st->poison_val);
	put32(w, st->push_interval_ms);
	put32(w, 0);
	put64(w, st->poll_interval_ms);
	put64(w, left_ms(w, st->poll_due_ms));
}

static void write_queues(struct snapshot_writer *w)
{
	put32(w, w->st.fresh_rings);
	put32(w, VIRTIO_BALLOON_VQ_COUNT);
	for (uint32_t queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		int8_t ring = w->st.ring_of[queue];

		put32(w, ring < 0 ? SNAPSHOT_NO_RING : (uint32_t)ring);
		put32(w, 0);
		put64(w, w->st.resume[queue]);
	}
}

static void write_stats(struct snapshot_writer *w)
{
	const struct balloon_state *st = &w->st;

	put32(w, (st->stats.ever ? SNAPSHOT_STATS_EVER : 0) |
			 (st->stats_awaited ? SNAPSHOT_STATS_AWAITED : 0) |
			 (st->stats_skip ? SNAPSHOT_STATS_SKIP : 0));
	put32(w, VIRTIO_BALLOON_S_NR);
	put_arrival(w, st->stats.arrived);
	put64(w, st->stats.set);
	put_array(w, st->stats.value, VIRTIO_BALLOON_S_NR);
}

static void write_hint(struct snapshot_writer *w)
{
	put32(w, w->st.hint.state);
	put32(w, w->st.hint.id);
	put32(w, w->st.hint.driver_id);
	put32(w, 0);
}

static void write_pressure(struct snapshot_writer *w)
{
	const struct balloon_pressure *p = &w->st.pressure;

	put32(w, p->ever ? SNAPSHOT_PRESSURE_EVER : 0);
	put32(w, p->type);
	put32(w, p->level);
	put32(w, 0);
	put_arrival(w, p->arrived);
	put64(w, w->st.message_due_ms ? left_ms(w, w->st.message_due_ms) + 1 : 0);
}

static void write_counters(struct snapshot_writer *w)
{
	const struct balloon_state *st = &w->st;

	put32(w, BALLOON_ERR_COUNT);
	put32(w, VIRTIO_BALLOON_VQ_COUNT);
	put32(w, VIRTIO_BALLOON_PRESSURE_NR);
	put32(w, 0);
	put_array(w, st->errors, BALLOON_ERR_COUNT);
	put_array(w, st->buffers, VIRTIO_BALLOON_VQ_COUNT);
	put_array(w, st->pressure.messages, VIRTIO_BALLOON_PRESSURE_NR);
	put64(w, st->pressure.relieved);
	put64(w, st->pressure.unknown);
	put64(w, st->unknown_tags);
	put64(w, st->inflated_pages);
	put64(w, st->deflated_pages);
	put64(w, st->reported_bytes);
	put64(w, st->hinted_bytes);
	put64(w, st->kept_bytes);
	put64(w, st->freed_bytes);
}

static bool holds_some(const struct pageset *held, uint32_t region)
{
	uint64_t page = 0, n;

	return pageset_next_run(held, region, &page, &n);
}

static void write_regions(struct snapshot_writer *w)
{
	const struct pageset *held = &w->b->held;
	uint32_t at = w->have, n = 0;

	put32(w, 0);
	put32(w, 0);
	for (uint32_t i = 0; i < held->at.n; i++) {
		const struct pageset_region *r = &held->at.region[i];

		if (r->first_pfn >= SNAPSHOT_PFN_END || !holds_some(held, i))
			continue;
		w->listed[i] = n++;
		put64(w, r->first_pfn);
		put64(w, min_u64(r->pages, SNAPSHOT_PFN_END - r->first_pfn));
	}
	le32_put(w->buf + at, n);
}

/* How many words from `word` on, less than `end`, have this value; counts no further than max. */
static uint64_t equal_words(const uint64_t *map, uint64_t word, uint64_t end, uint64_t value,
			    uint64_t max)
{
	uint64_t n = 0;

	while (n < max && word + n < end && map[word + n] == value)
		n++;
	return n;
}

/* How many words from `word` on go out one by one. */
static uint64_t mixed_words(const uint64_t *map, uint64_t word, uint64_t end)
{
	uint64_t n = 1;

	end = min_u64(end, word + SNAPSHOT_WORDS_MAX);
	while (word + n < end &&
	       equal_words(map, word + n, end, 0, WORTH_A_BREAK) < WORTH_A_BREAK &&
	       equal_words(map, word + n, end, ~0ULL, WORTH_A_BREAK) < WORTH_A_BREAK)
		n++;
	return n;
}

/* The next part of the bitmap that is not clear; nothing if there is none any more. */
static void write_held(struct snapshot_writer *w)
{
	const struct pageset *held = &w->b->held;

	for (; w->region < held->at.n; w->region++, w->word = 0) {
		const struct pageset_region *r = &held->at.region[w->region];
		const uint64_t *map = held->map + r->first_bit / BITMAP_WORD_BITS;
		uint64_t page = bitmap_find(map, w->word * BITMAP_WORD_BITS, r->pages, true);
		uint64_t word = page / BITMAP_WORD_BITS, end = bitmap_words(r->pages), n;
		bool all_set;

		if (w->listed[w->region] == SNAPSHOT_NOT_LISTED || page == r->pages)
			continue;
		n = equal_words(map, word, end, ~0ULL, UINT64_MAX);
		all_set = n >= WORTH_A_BREAK;
		if (!all_set)
			n = mixed_words(map, word, end);
		put32(w, w->listed[w->region]);
		put32(w, all_set ? SNAPSHOT_ALL_SET : SNAPSHOT_LITERAL);
		put64(w, word);
		put64(w, n);
		if (!all_set)
			put_array(w, map + word, (uint32_t)n);
		w->word = word + n;
		return;
	}
}

static void write_end(struct snapshot_writer *w)
{
	put64(w, w->b->held.count);
}

/* In the order of the stream; a step is taken again until it writes nothing, or once. */
static const struct {
	uint32_t kind;
	bool repeat;
	void (*write)(struct snapshot_writer *w);
} steps[] = {
	{SNAPSHOT_DEVICE, false, write_device},     {SNAPSHOT_QUEUES, false, write_queues},
	{SNAPSHOT_STATS, false, write_stats},       {SNAPSHOT_HINT, false, write_hint},
	{SNAPSHOT_PRESSURE, false, write_pressure}, {SNAPSHOT_REGIONS, false, write_regions},
	{SNAPSHOT_HELD, true, write_held},          {SNAPSHOT_COUNTERS, false, write_counters},
	{SNAPSHOT_END, false, write_end},
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

void snapshot_writer_init(struct snapshot_writer *w, const struct balloon *b, struct instant now)
{
	w->b = b;
	w->st = b->st;
	w->now = now;
	w->step = 0;
	w->region = 0;
	w->word = 0;
	memset(w->listed, 0xff, sizeof(w->listed)); /* SNAPSHOT_NOT_LISTED */
	w->sent = w->have = 0;
	memcpy(w->buf, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_BYTES);
	w->have = SNAPSHOT_MAGIC_BYTES;
	put32(w, SNAPSHOT_VERSION);
	put32(w, 0);
	w->crc = crc32_add(0, w->buf, w->have);
}

/* Makes the next section; false at the end of the stream. */
static bool next_section(struct snapshot_writer *w)
{
	bool empty = true;

	w->sent = w->have = 0;
	while (empty && w->step < STEPS) {
		uint32_t kind = steps[w->step].kind, crc_bytes = kind == SNAPSHOT_END ? 4 : 0;

		w->have = SNAPSHOT_SECTION_HEAD;
		steps[w->step].write(w);
		empty = steps[w->step].repeat && w->have == SNAPSHOT_SECTION_HEAD;
		if (!steps[w->step].repeat || empty)
			w->step++;
		if (empty)
			continue;
		le32_put(w->buf, kind);
		le32_put(w->buf + 4, w->have - SNAPSHOT_SECTION_HEAD + crc_bytes);
		w->crc = crc32_add(w->crc, w->buf, w->have);
		if (crc_bytes)
			put32(w, w->crc);
	}
	return !empty;
}

size_t snapshot_read(struct snapshot_writer *w, uint8_t *buf, size_t len)
{
	size_t out = 0;

	while (out < len && (w->sent < w->have || next_section(w))) {
		size_t n = min_u64(len - out, w->have - w->sent);

		memcpy(buf + out, w->buf + w->sent, n);
		w->sent += (uint32_t)n;
		out += n;
	}
	return out;
}
