// SPDX-License-Identifier: MIT
#include "raw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/le.h"

#define PAGE       4096ULL
#define RING_SIZE  64U
#define RING_AREA  8192U
#define SLOT_BYTES (RAW_ENTRIES * 4U + 8U)
#define SLOT_AREA  (SLOT_BYTES + 64U * VRING_DESC_SIZE + 64U)
/* Pages that are named each by itself in one buffer, at most; and a word, in a slot. */
#define SINGLE_MAX 700U

#define LOW_BYTES (RAW_QUEUES * (RING_AREA + RAW_BUFFERS * SLOT_AREA))
#define OFFERED   (1ULL << VIRTIO_BALLOON_F_FREE_PAGE_HINT | 1ULL << VIRTIO_BALLOON_F_PAGE_REPORTING)
#define INFLATE   VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE   VIRTIO_BALLOON_VQ_DEFLATE

static uint8_t *ring_area(struct raw *w, uint32_t queue)
{
	return w->m.low + queue * RING_AREA;
}

static void fresh_queue(struct raw *w, uint32_t queue)
{
	struct raw_queue *q = &w->queue[queue];
	uint64_t base = machine_gpa(&w->m, ring_area(w, queue));
	const struct machine_ring at = {
		.size = RING_SIZE,
		.desc = base,
		.driver = base + driver_ring_driver_offset(RING_SIZE),
		.device = base + driver_ring_device_offset(w->config.packed, RING_SIZE),
	};

	memset(ring_area(w, queue), 0, RING_AREA);
	assert_true(driver_ring_bytes(w->config.packed, RING_SIZE) <= RING_AREA);
	driver_ring_init(&q->ring, w->config.packed, w->config.event_idx, RING_SIZE,
			 ring_area(w, queue));
	for (uint32_t i = 0; i < RAW_BUFFERS; i++)
		q->buffer[i].under_way = false;
	q->first = q->n_out = 0;
	q->wants_notify = false;
	machine_start_ring(&w->m, queue, &at);
}

static void fresh_queues(struct raw *w)
{
	uint64_t features = 1ULL << VIRTIO_F_VERSION_1 | OFFERED;

	features |= (uint64_t)w->config.packed << VIRTIO_F_RING_PACKED;
	features |= (uint64_t)w->config.event_idx << VIRTIO_F_EVENT_IDX;
	features |= (uint64_t)w->config.indirect << VIRTIO_F_INDIRECT_DESC;
	features |= (uint64_t)w->config.told << VIRTIO_BALLOON_F_MUST_TELL_HOST;
	machine_set_features(&w->m, features);
	for (uint32_t queue = 0; queue < RAW_QUEUES; queue++)
		fresh_queue(w, queue);
}

static void goes_on(void *opaque, bool look)
{
	struct raw *w = opaque;

	(void)look;
	for (uint32_t queue = 0; queue < RAW_QUEUES; queue++)
		raw_collect(w, queue);
	if (w->more && !w->settling)
		w->more(w);
}

void raw_init(struct raw *w, const struct raw_config *config, uint64_t seed)
{
	const struct machine_config machine = {
		.offered = OFFERED,
		.page_size = config->page_size,
		.low_bytes = LOW_BYTES,
		.death_in = config->death_in,
	};

	memset(w, 0, sizeof(*w));
	w->config = *config;
	machine_init(&w->m, &machine, seed);
	fresh_queues(w);
	w->m.guest = goes_on;
	w->m.opaque = w;
}

void raw_free(struct raw *w)
{
	machine_free(&w->m);
}

/* Cuts a buffer into random pieces; they need not end where entries do. */
static uint16_t cut(struct raw *w, uint64_t gpa, uint32_t len, struct driver_buf *piece)
{
	uint16_t n = 0;

	while (len) {
		uint32_t part = len;

		if (n < 7 && machine_random(&w->m, 3))
			part = 1 + machine_random(&w->m, len);
		piece[n++] = (struct driver_buf){gpa, part};
		gpa += part;
		len -= part;
	}
	return n;
}

/* The pages of a list are under way. */
static void move_pages(struct raw *w, uint32_t queue, const uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		int64_t page = machine_page(pfn[i]);

		if (page >= 0 && queue == INFLATE && w->m.page[page] == PAGE_OWNED)
			machine_set_page(&w->m, (uint32_t)page, PAGE_GIVING);
		else if (page >= 0 && queue != INFLATE && w->m.page[page] == PAGE_HELD)
			machine_set_page(&w->m, (uint32_t)page, PAGE_TAKING);
		else
			continue;
		w->changes++;
	}
}

/* A buffer that is free, and where its data are; false: there is none. */
static bool find_buffer(struct raw *w, uint32_t queue, uint32_t *slot, uint8_t **data)
{
	for (*slot = 0; *slot < RAW_BUFFERS; ++*slot) {
		if (w->queue[queue].buffer[*slot].under_way)
			continue;
		*data = w->m.low + RAW_QUEUES * RING_AREA +
			(queue * RAW_BUFFERS + *slot) * SLOT_AREA;
		return true;
	}
	return false;
}

static void under_way(struct raw *w, uint32_t queue, uint32_t slot, uint16_t id,
		      const uint32_t *pfn, uint32_t n)
{
	struct raw_queue *q = &w->queue[queue];

	q->owner[id] = (uint16_t)slot;
	q->order[(q->first + q->n_out++) % RAW_BUFFERS] = (uint16_t)slot;
	q->buffer[slot].under_way = true;
	q->buffer[slot].n = n;
	memcpy(q->buffer[slot].pfn, pfn, n * sizeof(*pfn));
	if (driver_ring_should_kick(&q->ring))
		machine_kick(&w->m, queue);
}

bool raw_submit(struct raw *w, uint32_t queue, const uint32_t *pfn, uint32_t n, uint32_t extra)
{
	struct raw_queue *q = &w->queue[queue];
	struct driver_buf piece[8];
	uint32_t slot;
	uint8_t *data;
	uint16_t pieces;
	int id;

	if (!find_buffer(w, queue, &slot, &data))
		return false;
	for (uint32_t i = 0; i < n; i++)
		le32_put(data + (size_t)i * 4, pfn[i]);
	memset(data + (size_t)n * 4, 0xff, extra);
	pieces = cut(w, machine_gpa(&w->m, data), n * 4 + extra, piece);
	if (w->config.indirect && machine_random(&w->m, 2)) {
		uint8_t *table = data + SLOT_BYTES;

		id = driver_ring_add_indirect(&q->ring, piece, pieces, pieces, table,
					      machine_gpa(&w->m, table));
	} else {
		id = driver_ring_add(&q->ring, piece, pieces, pieces);
	}
	if (id < 0)
		return false;
	w->entries += n;
	w->fragments += extra != 0;
	move_pages(w, queue, pfn, n);
	under_way(w, queue, slot, (uint16_t)id, pfn, n);
	return true;
}

/* n pages as pieces of a buffer, each by itself. */
static void name_pages(struct driver_buf *piece, const uint32_t *pfn, uint32_t n)
{
	assert_true(n < SINGLE_MAX);
	for (uint32_t i = 0; i < n; i++)
		piece[i] = (struct driver_buf){pfn[i] * PAGE, PAGE};
}

/* Through a table of its own if that can be, which then is where a buffer's data would be. */
static int add_pieces(struct raw *w, struct driver_ring *ring, const struct driver_buf *piece,
		      uint32_t n, uint32_t n_out, uint8_t *data)
{
	if (!w->config.indirect)
		return driver_ring_add(ring, piece, (uint16_t)n, (uint16_t)n_out);
	return driver_ring_add_indirect(ring, piece, (uint16_t)n, (uint16_t)n_out, data,
					machine_gpa(&w->m, data));
}

bool raw_report(struct raw *w, const uint32_t *pfn, uint32_t n)
{
	struct driver_buf piece[SINGLE_MAX];
	uint32_t slot;
	uint8_t *data;
	int id;

	if (!find_buffer(w, RAW_REPORT, &slot, &data))
		return false;
	name_pages(piece, pfn, n);
	id = add_pieces(w, &w->queue[RAW_REPORT].ring, piece, n, 0, data);
	if (id < 0)
		return false;
	w->reported += n;
	for (uint32_t i = 0; i < n; i++)
		machine_set_page(&w->m, (uint32_t)machine_page(pfn[i]), PAGE_REPORTED);
	under_way(w, RAW_REPORT, slot, (uint16_t)id, pfn, n);
	return true;
}

bool raw_hint(struct raw *w, int64_t word, const uint32_t *pfn, uint32_t n)
{
	struct driver_buf piece[1 + SINGLE_MAX];
	uint32_t slot, first = word >= 0;
	uint8_t *data, *raw;
	int id;

	if (!find_buffer(w, RAW_HINT, &slot, &data))
		return false;
	raw = data + (1 + SINGLE_MAX) * VRING_DESC_SIZE;
	le32_put(raw, (uint32_t)word);
	piece[0] = (struct driver_buf){machine_gpa(&w->m, raw), sizeof(uint32_t)};
	name_pages(piece + first, pfn, n);
	id = add_pieces(w, &w->queue[RAW_HINT].ring, piece, first + n, first, data);
	if (id < 0)
		return false;
	under_way(w, RAW_HINT, slot, (uint16_t)id, pfn, 0);
	return true;
}

static void page_done(struct raw *w, uint32_t queue, uint32_t page)
{
	struct machine *m = &w->m;

	/* The host has it back by now, if its pages are that small. */
	if (m->page[page] != PAGE_OWNED && m->page[page] != PAGE_TAKING &&
	    m->config.page_size == PAGE && !m->excused[page])
		assert_int_not_equal(m->discards[page], 0);
	if (queue == INFLATE && m->page[page] == PAGE_GIVING)
		m->page[page] = PAGE_HELD;
	else if ((queue == DEFLATE && m->page[page] == PAGE_TAKING) ||
		 (queue == RAW_REPORT && m->page[page] == PAGE_REPORTED))
		machine_set_page(m, page, PAGE_OWNED);
}

void raw_collect(struct raw *w, uint32_t queue)
{
	struct raw_queue *q = &w->queue[queue];
	uint32_t written, got = 0;
	uint16_t id;

	while (driver_ring_used(&q->ring, &id, &written)) {
		struct raw_buffer *b = &q->buffer[q->owner[id]];

		assert_true(b->under_way && q->n_out);
		assert_int_equal(written, 0);
		assert_int_equal(q->owner[id], q->order[q->first % RAW_BUFFERS]);
		q->first++;
		q->n_out--;
		q->returned++;
		b->under_way = false;
		got++;
		for (uint32_t i = 0; i < b->n; i++) {
			int64_t page = machine_page(b->pfn[i]);

			if (page >= 0)
				page_done(w, queue, (uint32_t)page);
		}
	}
	assert_false(q->ring.broken);
	/* While the device is at work the notification may be still to come. */
	if (got && q->wants_notify && !w->m.busy)
		assert_true(w->m.notified[queue]);
	if (got || !q->wants_notify) {
		if (!w->m.busy)
			w->m.notified[queue] = false;
		driver_ring_enable_notify(&q->ring);
		q->wants_notify = true;
	}
}

static bool any_runnable(const struct machine *m)
{
	for (uint32_t ring = 0; ring < RAW_QUEUES; ring++) {
		if (m->runnable[ring])
			return true;
	}
	return false;
}

void raw_settle(struct raw *w)
{
	struct machine *m = &w->m;

	w->settling = true;
	do {
		for (uint32_t queue = 0; queue < RAW_QUEUES; queue++) {
			machine_run(m, queue);
			raw_collect(w, queue);
		}
		if (m->balloon->st.sweep.active)
			machine_tick(m);
	} while (any_runnable(m) || m->balloon->st.sweep.active);
	w->settling = false;
	for (uint32_t queue = 0; queue < RAW_QUEUES; queue++) {
		raw_collect(w, queue);
		if (w->queue[queue].n_out)
			fail_msg("queue %u: %u buffers forgotten", queue, w->queue[queue].n_out);
	}
	machine_swept(m, PAGE_HELD);
}

void raw_reset(struct raw *w)
{
	struct balloon_state *st;

	w->settling = true;
	machine_reset(&w->m);
	/* What it had returned by then. */
	for (uint32_t queue = 0; queue < RAW_QUEUES; queue++) {
		w->queue[queue].wants_notify = false;
		raw_collect(w, queue);
	}
	memset(w->m.page, 0, sizeof(w->m.page));
	st = &w->m.balloon->st;
	memset(st->errors, 0, sizeof(st->errors));
	st->inflated_pages = st->deflated_pages = st->reported_bytes = 0;
	memset(w->m.saved.st.errors, 0, sizeof(st->errors));
	w->m.saved.st.inflated_pages = w->m.saved.st.deflated_pages = 0;
	w->m.saved.st.reported_bytes = 0;
	w->entries = w->changes = w->fragments = w->reported = 0;
	fresh_queues(w);
	w->settling = false;
}

void raw_check(struct raw *w)
{
	const struct machine *m = &w->m;
	const struct balloon_state *st = &m->balloon->st;
	const uint64_t *errors = st->errors;
	uint64_t held = 0, wrong = 0;

	for (uint32_t i = 0; i < MACHINE_PAGES; i++) {
		assert_true(m->page[i] == PAGE_OWNED || m->page[i] == PAGE_HELD);
		held += m->page[i] == PAGE_HELD;
	}
	assert_int_equal(balloon_held_bytes(m->balloon), held * PAGE);
	assert_int_equal(st->buffers[INFLATE], w->queue[INFLATE].returned);
	assert_int_equal(st->buffers[DEFLATE], w->queue[DEFLATE].returned);
	assert_int_equal(st->buffers[VIRTIO_BALLOON_VQ_FREE_PAGE], w->queue[RAW_HINT].returned);
	assert_int_equal(st->buffers[VIRTIO_BALLOON_VQ_REPORTING], w->queue[RAW_REPORT].returned);
	assert_int_equal(st->reported_bytes, w->reported * PAGE);
	assert_int_equal(st->inflated_pages + st->deflated_pages,
			 w->entries - errors[BALLOON_ERR_PFN] - errors[BALLOON_ERR_DUPLICATE]);
	assert_int_equal(errors[BALLOON_ERR_FRAGMENT], w->fragments);
	/* Every entry either moved a page or is counted as an error, and only once. */
	for (int i = BALLOON_ERR_PFN; i <= BALLOON_ERR_DUPLICATE; i++)
		wrong += errors[i];
	if (m->config.death_in)
		assert_true(w->changes + wrong <= w->entries);
	else
		assert_int_equal(w->changes + wrong, w->entries);
	if (w->config.told || m->config.page_size == PAGE)
		machine_check_discarded(m, PAGE_HELD);
}
