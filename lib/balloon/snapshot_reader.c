// SPDX-License-Identifier: MIT
/*
 * The reader. A section is collected as a whole in the buffer and then decoded, by the table `rows`
 * below, into r->snap; what is wrong with it is told at once, and ends the reading. Only END, with
 * its checksum, makes what was read so far worth anything.
 */
#include <errno.h>
#include <string.h>

#include "balloon/giveback.h"
#include "balloon/queues.h"
#include "balloon/snapshot_format.h"
#include "base/bitmap.h"
#include "base/checked.h"
#include "base/crc32.h"
#include "base/le.h"

#define ARRAY_MAX    64U          /* values of a kind that there will ever be */
#define INTERVAL_MAX (1ULL << 48) /* ms */
#define RESUME_MAX   (1ULL << 32) /* bytes of a chain */

/* What is left of a section's body. */
struct body {
	const uint8_t *p;
	uint32_t left;
	bool bad; /* more was taken than there is */
};

static int fail(struct snapshot_reader *r, int result, const char *error)
{
	r->phase = SNAPSHOT_FAILED;
	r->error = error;
	r->result = result;
	return result;
}

static int damaged(struct snapshot_reader *r, const char *error)
{
	return fail(r, -EBADMSG, error);
}

static const uint8_t *take(struct body *b, uint32_t n)
{
	static const uint8_t zeros[8];
	const uint8_t *p = b->p;

	if (b->left < n) {
		b->bad = true;
		b->left = 0;
		return zeros;
	}
	b->p += n;
	b->left -= n;
	return p;
}

static uint32_t get32(struct body *b)
{
	return le32_get(take(b, sizeof(uint32_t)));
}

static uint64_t get64(struct body *b)
{
	return le64_get(take(b, sizeof(uint64_t)));
}

/* Takes n values, of which as many are kept as there is room for; the others are of a later time.
 */
static void get_array(struct body *b, uint32_t n, uint64_t *v, uint32_t room)
{
	for (uint32_t i = 0; i < n && !b->bad; i++) {
		uint64_t value = get64(b);

		if (i < room)
			v[i] = value;
	}
}

/* Until something is due: on this host's clock. False: that is no time. */
static bool get_due(const struct snapshot_reader *r, uint64_t left_ms, uint64_t *due_ms)
{
	if (left_ms > INTERVAL_MAX)
		return false;
	*due_ms = r->now.mono_ms + left_ms;
	return true;
}

static struct instant get_arrival(const struct snapshot_reader *r, struct body *b)
{
	uint64_t age_ms = get64(b);
	struct instant arrived = {.wall_us = (int64_t)get64(b)};

	/* What is older than this host's clock is as old as that. */
	if (age_ms < r->now.mono_ms)
		arrived.mono_ms = r->now.mono_ms - age_ms;
	return arrived;
}

static int read_device(struct snapshot_reader *r, struct body *b)
{
	struct balloon_state *st = &r->snap.st;

	st->negotiated = get64(b);
	st->wanted_pages = get64(b);
	st->num_pages = get32(b);
	st->actual = get32(b);
	st->actual_written = get32(b);
	st->poison_val = get32(b);
	st->push_interval_ms = get32(b);
	(void)get32(b);
	st->poll_interval_ms = get64(b);
	if (st->push_interval_ms && st->push_interval_ms < VIRTIO_BALLOON_PUSH_INTERVAL_MIN)
		return damaged(r, "push interval is too short");
	if (st->poll_interval_ms > INTERVAL_MAX || !get_due(r, get64(b), &st->poll_due_ms))
		return damaged(r, "poll interval makes no sense");
	return 0;
}

static int read_queues(struct snapshot_reader *r, struct body *b)
{
	struct balloon_state *st = &r->snap.st;
	uint32_t next = 0, n;

	st->fresh_rings = get32(b);
	n = get32(b);
	if (n > VIRTIO_BALLOON_VQ_COUNT || st->fresh_rings >> VIRTIO_BALLOON_VQ_COUNT)
		return damaged(r, "more queues than there are");
	memset(st->ring_of, -1, sizeof(st->ring_of));
	for (uint32_t queue = 0; queue < n; queue++) {
		uint32_t ring = get32(b);

		(void)get32(b);
		st->resume[queue] = get64(b);
		if (st->resume[queue] > RESUME_MAX)
			return damaged(r, "more is done of a buffer than any has");
		if (ring == SNAPSHOT_NO_RING)
			continue;
		/* Every numbering of rings rises with the queue's number. */
		if (ring < next || ring >= VIRTIO_BALLOON_VQ_COUNT)
			return damaged(r, "rings are numbered as none are");
		next = ring + 1;
		st->ring_of[queue] = (int8_t)ring;
	}
	if (st->ring_of[VIRTIO_BALLOON_VQ_INFLATE] != 0 ||
	    st->ring_of[VIRTIO_BALLOON_VQ_DEFLATE] != 1)
		return damaged(r, "rings are numbered as none are");
	return 0;
}

static int read_stats(struct snapshot_reader *r, struct body *b)
{
	struct balloon_state *st = &r->snap.st;
	uint32_t flags = get32(b), n = get32(b);
	uint64_t set;

	if (n > ARRAY_MAX ||
	    flags & ~(SNAPSHOT_STATS_EVER | SNAPSHOT_STATS_AWAITED | SNAPSHOT_STATS_SKIP))
		return damaged(r, "statistics make no sense");
	st->stats.arrived = get_arrival(r, b);
	set = get64(b);
	if (n < ARRAY_MAX && set >> n)
		return damaged(r, "statistics are set that are not there");
	get_array(b, n, st->stats.value, VIRTIO_BALLOON_S_NR);
	st->stats.set = (uint32_t)(set & ((1ULL << VIRTIO_BALLOON_S_NR) - 1));
	st->stats.ever = flags & SNAPSHOT_STATS_EVER;
	st->stats_awaited = flags & SNAPSHOT_STATS_AWAITED;
	st->stats_skip = flags & SNAPSHOT_STATS_SKIP;
	return 0;
}

static int read_hint(struct snapshot_reader *r, struct body *b)
{
	struct balloon_hint *hint = &r->snap.st.hint;
	uint32_t state = get32(b);

	if (state >= BALLOON_HINT_COUNT)
		return damaged(r, "free page hinting is in no state that there is");
	hint->state = (enum balloon_hint_state)state;
	hint->id = get32(b);
	hint->driver_id = get32(b);
	(void)get32(b);
	return 0;
}

static int read_pressure(struct snapshot_reader *r, struct body *b)
{
	struct balloon_state *st = &r->snap.st;
	struct balloon_pressure *p = &st->pressure;
	uint32_t flags = get32(b);
	uint64_t wait;

	p->ever = flags & SNAPSHOT_PRESSURE_EVER;
	p->type = get32(b);
	p->level = get32(b);
	(void)get32(b);
	p->arrived = get_arrival(r, b);
	wait = get64(b);
	if (flags & ~SNAPSHOT_PRESSURE_EVER || p->level >= VIRTIO_BALLOON_PRESSURE_NR ||
	    (p->ever && p->type != VIRTIO_BALLOON_MSG_PRESSURE &&
	     p->type != VIRTIO_BALLOON_MSG_RELIEVED))
		return damaged(r, "pressure makes no sense");
	if (wait && !get_due(r, wait - 1, &st->message_due_ms))
		return damaged(r, "a message waits for ever");
	return 0;
}

static int read_counters(struct snapshot_reader *r, struct body *b)
{
	struct balloon_state *st = &r->snap.st;
	uint32_t errors = get32(b), queues = get32(b), levels = get32(b);

	(void)get32(b);
	if (errors > ARRAY_MAX || queues > ARRAY_MAX || levels > ARRAY_MAX)
		return damaged(r, "too many counters");
	get_array(b, errors, st->errors, BALLOON_ERR_COUNT);
	get_array(b, queues, st->buffers, VIRTIO_BALLOON_VQ_COUNT);
	get_array(b, levels, st->pressure.messages, VIRTIO_BALLOON_PRESSURE_NR);
	st->pressure.relieved = get64(b);
	st->pressure.unknown = get64(b);
	st->unknown_tags = get64(b);
	st->inflated_pages = get64(b);
	st->deflated_pages = get64(b);
	st->reported_bytes = get64(b);
	st->hinted_bytes = get64(b);
	st->kept_bytes = get64(b);
	st->freed_bytes = get64(b);
	return 0;
}

static int read_regions(struct snapshot_reader *r, struct body *b)
{
	struct pageset_layout *at = &r->snap.held.at;
	uint64_t end = 0, words = 0;
	uint32_t n = get32(b);

	(void)get32(b);
	if (n > GUEST_MEM_MAX_REGIONS)
		return damaged(r, "too many memory regions");
	for (at->n = 0; at->n < n; at->n++) {
		struct pageset_region *region = &at->region[at->n];

		region->first_pfn = get64(b);
		region->pages = get64(b);
		if (b->bad)
			return 0; /* told by the caller */
		if (region->first_pfn < end || !region->pages ||
		    !range_within(region->first_pfn, region->pages, SNAPSHOT_PFN_END))
			return damaged(r, "memory regions overlap, or are none");
		end = region->first_pfn + region->pages;
		region->first_bit = words * BITMAP_WORD_BITS;
		words += bitmap_words(region->pages);
	}
	if (!words)
		return 0;
	r->snap.held.map = r->words(r->opaque, words);
	return r->snap.held.map ? 0 : fail(r, -ENOMEM, "no room for the bitmap");
}

/* Puts n words, from `word` of a region on, into the bitmap. */
static int read_words(struct snapshot_reader *r, struct body *b, uint64_t *map, uint64_t n)
{
	const struct pageset_region *region = &r->snap.held.at.region[r->region];
	uint64_t last = bitmap_words(region->pages) - 1;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t bits = get64(b), beyond = 0;

		if (r->word + i == last && region->pages % BITMAP_WORD_BITS)
			beyond = bits >> region->pages % BITMAP_WORD_BITS;
		if (beyond)
			return damaged(r, "pages are held that are in no region");
		map[i] = bits;
		r->snap.held.count += (uint64_t)__builtin_popcountll(bits);
	}
	return 0;
}

static int read_held(struct snapshot_reader *r, struct body *b)
{
	struct pageset *held = &r->snap.held;
	const struct pageset_region *region;
	uint32_t index = get32(b), form = get32(b);
	uint64_t word = get64(b), n = get64(b), *map;
	int result = 0;

	if (index >= held->at.n || index < r->region || (index == r->region && word < r->word))
		return damaged(r, "bitmap is out of order");
	region = &held->at.region[index];
	if (!n || !range_within(word, n, bitmap_words(region->pages)))
		return damaged(r, "bitmap reaches past its region");
	r->region = index;
	r->word = word;
	map = held->map + region->first_bit / BITMAP_WORD_BITS + word;
	switch (form) {
	case SNAPSHOT_ALL_SET:
		if ((word + n) * BITMAP_WORD_BITS > region->pages)
			return damaged(r, "pages are held that are in no region");
		memset(map, 0xff, n * sizeof(*map));
		held->count += n * BITMAP_WORD_BITS;
		break;
	case SNAPSHOT_LITERAL:
		if (b->left != n * sizeof(*map) || n > SNAPSHOT_WORDS_MAX)
			return damaged(r, "bitmap does not match its length");
		result = read_words(r, b, map, n);
		break;
	default:
		return damaged(r, "bitmap has a form that is none");
	}
	r->word = word + n;
	return result;
}

static int read_end(struct snapshot_reader *r, struct body *b)
{
	if (get64(b) != r->snap.held.count)
		return damaged(r, "another number of pages is held than it says");
	if (get32(b) != r->crc)
		return damaged(r, "checksum is wrong");
	r->phase = SNAPSHOT_DONE;
	return 0;
}

/* In the order in which they come. */
static const struct {
	uint32_t kind;
	bool repeat;  /* may come several times */
	bool missing; /* may be missing */
	int (*read)(struct snapshot_reader *r, struct body *b);
} rows[] = {
	{SNAPSHOT_DEVICE, false, false, read_device},
	{SNAPSHOT_QUEUES, false, false, read_queues},
	{SNAPSHOT_STATS, false, false, read_stats},
	{SNAPSHOT_HINT, false, false, read_hint},
	{SNAPSHOT_PRESSURE, false, false, read_pressure},
	{SNAPSHOT_REGIONS, false, false, read_regions},
	{SNAPSHOT_HELD, true, true, read_held},
	{SNAPSHOT_COUNTERS, false, true, read_counters},
	{SNAPSHOT_END, false, false, read_end},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

void snapshot_reader_init(struct snapshot_reader *r, struct instant now, snapshot_words words,
			  void *opaque)
{
	memset(r, 0, sizeof(*r));
	r->now = now;
	r->words = words;
	r->opaque = opaque;
	r->phase = SNAPSHOT_HEAD;
	r->want = SNAPSHOT_HEAD_BYTES;
}

static void expect(struct snapshot_reader *r, enum snapshot_phase phase, uint32_t want)
{
	r->phase = phase;
	r->want = want;
	r->have = 0;
}

static int take_head(struct snapshot_reader *r)
{
	const uint8_t *p = r->buf + SNAPSHOT_MAGIC_BYTES;

	if (memcmp(r->buf, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_BYTES) != 0)
		return damaged(r, "it is no state of a balloon");
	if (le32_get(p) != SNAPSHOT_VERSION || le32_get(p + 4) != 0)
		return fail(r, -EPROTONOSUPPORT, "it is of another version");
	expect(r, SNAPSHOT_SECTION, SNAPSHOT_SECTION_HEAD);
	return 0;
}

/* A section begins: which one is it, and may it come now? */
static int take_section(struct snapshot_reader *r)
{
	uint32_t kind = le32_get(r->buf), len = le32_get(r->buf + 4), row = 0;

	while (row < ROWS && rows[row].kind != kind)
		row++;
	if (row == ROWS && !(kind & SNAPSHOT_OPTIONAL))
		return fail(r, -EPROTONOSUPPORT, "it has a section that is not known here");
	if (row == ROWS) {
		expect(r, len ? SNAPSHOT_SKIP : SNAPSHOT_SECTION,
		       len ? len : SNAPSHOT_SECTION_HEAD);
		return 0;
	}
	for (; r->next < row; r->next++) {
		if (!rows[r->next].missing)
			return damaged(r, "a section is missing");
	}
	if (row < r->next)
		return damaged(r, "sections are out of order");
	if (!len || len > sizeof(r->buf))
		return damaged(r, "a section has a length that it cannot have");
	r->row = row;
	r->next = rows[row].repeat ? row : row + 1;
	expect(r, SNAPSHOT_BODY, len);
	return 0;
}

static int take_body(struct snapshot_reader *r)
{
	struct body b = {.p = r->buf, .left = r->want};
	int result = rows[r->row].read(r, &b);

	if (result)
		return result;
	if (b.bad || b.left)
		return damaged(r, "a section has a length that it cannot have");
	if (r->phase != SNAPSHOT_DONE)
		expect(r, SNAPSHOT_SECTION, SNAPSHOT_SECTION_HEAD);
	return 0;
}

/* What was waited for is here. */
static int take_all(struct snapshot_reader *r)
{
	bool end = r->phase == SNAPSHOT_BODY && rows[r->row].kind == SNAPSHOT_END;

	/* The sum is not in the sum. */
	if (r->phase != SNAPSHOT_SKIP)
		r->crc = crc32_add(r->crc, r->buf, end ? sizeof(uint64_t) : r->want);
	switch (r->phase) {
	case SNAPSHOT_HEAD:
		return take_head(r);
	case SNAPSHOT_SECTION:
		return take_section(r);
	case SNAPSHOT_BODY:
		return take_body(r);
	case SNAPSHOT_SKIP:
		expect(r, SNAPSHOT_SECTION, SNAPSHOT_SECTION_HEAD);
		return 0;
	case SNAPSHOT_DONE:
	case SNAPSHOT_FAILED:
	default:
		return r->result;
	}
}

int snapshot_write(struct snapshot_reader *r, const uint8_t *buf, size_t len)
{
	while (len) {
		uint32_t n = (uint32_t)min_u64(len, r->want - r->have);

		if (r->phase == SNAPSHOT_FAILED)
			return r->result;
		if (r->phase == SNAPSHOT_DONE)
			return damaged(r, "something comes after its end");
		if (r->phase == SNAPSHOT_SKIP)
			r->crc = crc32_add(r->crc, buf, n);
		else
			memcpy(r->buf + r->have, buf, n);
		r->have += n;
		buf += n;
		len -= n;
		if (r->have == r->want && take_all(r))
			return r->result;
	}
	return r->result;
}

int snapshot_finish(struct snapshot_reader *r)
{
	if (r->phase != SNAPSHOT_DONE && r->phase != SNAPSHOT_FAILED)
		return damaged(r, "it ends too early");
	return r->result;
}

void snapshot_hold(const struct snapshot *s, struct balloon *b)
{
	b->held = s->held;
	giveback_sweep_start(b); /* which comes to nothing where it is not allowed */
}

int snapshot_apply(const struct snapshot *s, struct balloon *b)
{
	const struct balloon_state old = b->st;

	if (s->st.negotiated & ~old.offered)
		return -ENOTSUP;
	if (old.negotiated && old.negotiated != s->st.negotiated)
		return -EINVAL;
	b->st = s->st;
	b->st.offered = old.offered;
	b->st.inhibited = old.inhibited;
	b->redo = 0;
	snapshot_hold(s, b);
	/* Without memory the target would be 0, and the guest might come to see it. */
	if (b->mem && b->mem->n)
		balloon_update_target(b);
	if (b->st.actual != old.actual)
		b->ops->event(b->opaque, BALLOON_EVENT_ACTUAL);
	return 0;
}
