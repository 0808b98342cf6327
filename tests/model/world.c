// SPDX-License-Identifier: MIT
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/le.h"

#define PAGE       4096ULL
#define HALF       (WORLD_PAGES / 2)
#define RING_SIZE  64U
#define RING_AREA  8192U
#define SLOT_BYTES (WORLD_ENTRIES * 4U + 8U)
#define SLOT_AREA  (SLOT_BYTES + 64U * VRING_DESC_SIZE + 64U)
#define LOW_BYTES  (2U * (RING_AREA + WORLD_BUFFERS * SLOT_AREA))

/* Low memory, then two regions whose pages do not begin at host page borders, with a gap. */
static const uint64_t gpa_high[2] = {0x2003000, 0x4005000};

uint32_t world_random(struct world *w, uint32_t n)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 11) % n;
}

uint32_t world_pfn(uint32_t page)
{
	return (uint32_t)(gpa_high[page / HALF] / PAGE) + page % HALF;
}

int64_t world_page(uint32_t pfn)
{
	for (uint32_t half = 0; half < 2; half++) {
		uint64_t first = gpa_high[half] / PAGE;

		if (pfn >= first && pfn < first + HALF)
			return (int64_t)(half * HALF + pfn - first);
	}
	return -1;
}

/* May page i lose its contents now? */
static bool may_discard(const struct world *w, uint32_t i)
{
	switch (w->page[i]) {
	case PAGE_GIVING:
	case PAGE_HELD:
		return true;
	case PAGE_TAKING:
		return w->config.told; /* the guest waits for the acknowledgement */
	case PAGE_OWNED:
	default:
		return false;
	}
}

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct world *w = opaque;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct balloon_range *r = &ranges[i];

		assert_in_range(r->region, 1, 2);
		assert_true(r->len && r->offset + r->len <= HALF * PAGE);
		assert_int_equal((r->offset + w->mem.region[r->region].backing_offset) %
					 w->config.page_size,
				 0);
		assert_int_equal(r->len % w->config.page_size, 0);
		for (uint64_t at = r->offset; at < r->offset + r->len; at += PAGE) {
			uint32_t page = (r->region - 1) * HALF + (uint32_t)(at / PAGE);

			if (!may_discard(w, page))
				fail_msg("page %u is discarded while the guest may use it", page);
			w->discards[page]++;
		}
		bytes += r->len;
	}
	return bytes;
}

static void on_config_changed(void *opaque)
{
	((struct world *)opaque)->config_changes++;
}

static void on_notify(void *opaque, uint32_t queue)
{
	((struct world *)opaque)->queue[queue].notified = true;
}

static void on_broken(void *opaque, uint32_t queue)
{
	struct world *w = opaque;

	fail_msg("queue %u broke: %s", queue, vq_error_name(w->balloon.vq[queue]->st.error));
}

static void on_event(void *opaque, enum balloon_event event)
{
	(void)opaque;
	(void)event;
}

static const struct balloon_ops ops = {on_discard, on_config_changed, on_notify, on_broken,
				       on_event};

static void lay_out_memory(struct world *w)
{
	struct guest_region low = {
		.gpa = 0x10000, .size = LOW_BYTES, .uaddr = 0x10000, .page_size = PAGE};

	w->mem.n = 0;
	assert_int_equal(guest_mem_add(&w->mem, &low, w->low), 0);
	for (uint32_t i = 0; i < 2; i++) {
		struct guest_region high = {
			.gpa = gpa_high[i],
			.size = HALF * PAGE,
			.uaddr = gpa_high[i] + 0x100000000ULL,
			.page_size = w->config.page_size,
			.backing_offset = gpa_high[i],
		};

		assert_int_equal(guest_mem_add(&w->mem, &high, w->high[i]), 0);
	}
}

static void new_bitmap(struct world *w)
{
	uint64_t *old = w->bitmap;

	w->bitmap = calloc(held_words(&w->mem), sizeof(uint64_t));
	assert_non_null(w->bitmap);
	balloon_memory_changed(&w->balloon, &w->mem, w->bitmap);
	free(old);
}

static uint8_t *ring_area(struct world *w, uint32_t queue)
{
	return w->low + queue * RING_AREA;
}

static uint64_t low_gpa(const struct world *w, const uint8_t *host)
{
	return 0x10000 + (uint64_t)(host - w->low);
}

static void start_queue(struct world *w, uint32_t queue, bool resumed)
{
	struct world_queue *q = &w->queue[queue];

	assert_int_equal(vq_start(&q->vq, &w->mem), 0);
	balloon_queue_started(&w->balloon, queue, resumed);
	q->runnable = true;
}

static void fresh_queue(struct world *w, uint32_t queue, uint64_t features)
{
	struct world_queue *q = &w->queue[queue];
	uint64_t base = low_gpa(w, ring_area(w, queue));

	memset(ring_area(w, queue), 0, RING_AREA);
	assert_true(driver_ring_bytes(w->config.packed, RING_SIZE) <= RING_AREA);
	driver_ring_init(&q->ring, w->config.packed, w->config.event_idx, RING_SIZE,
			 ring_area(w, queue));
	vq_set_features(&q->vq, features);
	q->vq.st.size = RING_SIZE;
	q->vq.st.desc_uaddr = base;
	q->vq.st.driver_uaddr = base + driver_ring_driver_offset(RING_SIZE);
	q->vq.st.device_uaddr = base + driver_ring_device_offset(w->config.packed, RING_SIZE);
	vq_set_base(&q->vq, vq_fresh_base(w->config.packed));
	for (uint32_t i = 0; i < WORLD_BUFFERS; i++)
		q->buffer[i].under_way = false;
	q->first = q->n_out = 0;
	q->notified = q->wants_notify = false;
	start_queue(w, queue, false);
}

static void fresh_queues(struct world *w)
{
	uint64_t features = 1ULL << VIRTIO_F_VERSION_1;

	features |= (uint64_t)w->config.packed << VIRTIO_F_RING_PACKED;
	features |= (uint64_t)w->config.event_idx << VIRTIO_F_EVENT_IDX;
	features |= (uint64_t)w->config.indirect << VIRTIO_F_INDIRECT_DESC;
	features |= (uint64_t)w->config.told << VIRTIO_BALLOON_F_MUST_TELL_HOST;
	assert_int_equal(balloon_set_features(&w->balloon, features), 0);
	fresh_queue(w, 0, features);
	fresh_queue(w, 1, features);
}

void world_init(struct world *w, const struct world_config *config, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->config = *config;
	w->random = seed * 0x9e3779b97f4a7c15ULL + 1;
	w->low = aligned_alloc(4096, (LOW_BYTES + 4095) / 4096 * 4096);
	assert_non_null(w->low);
	for (uint32_t i = 0; i < 2; i++) {
		w->high[i] = mmap(NULL, HALF * PAGE, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(w->high[i], MAP_FAILED);
	}
	balloon_init(&w->balloon, 0, &ops, w);
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		w->balloon.vq[i] = i < 2 ? &w->queue[i].vq : &w->idle[i];
	lay_out_memory(w);
	new_bitmap(w);
	fresh_queues(w);
}

void world_free(struct world *w)
{
	free(w->low);
	free(w->bitmap);
	for (uint32_t i = 0; i < 2; i++)
		munmap(w->high[i], HALF * PAGE);
}

/* Cuts a buffer into random pieces; they need not end where entries do. */
static uint16_t cut(struct world *w, uint64_t gpa, uint32_t len, struct driver_buf *piece)
{
	uint16_t n = 0;

	while (len) {
		uint32_t part = len;

		if (n < 7 && world_random(w, 3))
			part = 1 + world_random(w, len);
		piece[n++] = (struct driver_buf){gpa, part};
		gpa += part;
		len -= part;
	}
	return n;
}

bool world_submit(struct world *w, uint32_t queue, const uint32_t *pfn, uint32_t n, uint32_t extra)
{
	struct world_queue *q = &w->queue[queue];
	struct driver_buf piece[8];
	uint32_t slot = 0;
	uint8_t *data;
	uint16_t pieces;
	int id;

	while (slot < WORLD_BUFFERS && q->buffer[slot].under_way)
		slot++;
	if (slot == WORLD_BUFFERS)
		return false;
	data = w->low + 2 * RING_AREA + (queue * WORLD_BUFFERS + slot) * SLOT_AREA;
	for (uint32_t i = 0; i < n; i++)
		le32_put(data + (size_t)i * 4, pfn[i]);
	memset(data + (size_t)n * 4, 0xff, extra);
	pieces = cut(w, low_gpa(w, data), n * 4 + extra, piece);
	if (w->config.indirect && world_random(w, 2)) {
		uint8_t *table = data + SLOT_BYTES;

		id = driver_ring_add_indirect(&q->ring, piece, pieces, pieces, table,
					      low_gpa(w, table));
	} else {
		id = driver_ring_add(&q->ring, piece, pieces, pieces);
	}
	if (id < 0)
		return false;

	q->owner[id] = (uint16_t)slot;
	q->order[(q->first + q->n_out++) % WORLD_BUFFERS] = (uint16_t)slot;
	q->buffer[slot].under_way = true;
	q->buffer[slot].n = n;
	memcpy(q->buffer[slot].pfn, pfn, n * sizeof(*pfn));
	w->entries += n;
	w->fragments += extra != 0;
	for (uint32_t i = 0; i < n; i++) {
		int64_t page = world_page(pfn[i]);

		if (page >= 0 && queue == 0 && w->page[page] == PAGE_OWNED)
			w->page[page] = PAGE_GIVING;
		else if (page >= 0 && queue == 1 && w->page[page] == PAGE_HELD)
			w->page[page] = PAGE_TAKING;
		else
			continue;
		w->changes++;
	}
	if (driver_ring_should_kick(&q->ring))
		q->runnable = true;
	return true;
}

void world_run(struct world *w, uint32_t queue)
{
	struct world_queue *q = &w->queue[queue];

	if (q->runnable)
		q->runnable = balloon_queue_run(&w->balloon, queue, (struct instant){0});
}

void world_collect(struct world *w, uint32_t queue)
{
	struct world_queue *q = &w->queue[queue];
	uint32_t written, got = 0;
	uint16_t id;

	while (driver_ring_used(&q->ring, &id, &written)) {
		struct world_buffer *b = &q->buffer[q->owner[id]];

		assert_true(b->under_way && q->n_out);
		assert_int_equal(written, 0);
		assert_int_equal(q->owner[id], q->order[q->first % WORLD_BUFFERS]);
		q->first++;
		q->n_out--;
		b->under_way = false;
		got++;
		for (uint32_t i = 0; i < b->n; i++) {
			int64_t page = world_page(b->pfn[i]);

			if (page >= 0 && queue == 0 && w->page[page] == PAGE_GIVING) {
				w->page[page] = PAGE_HELD;
				/* The host has it back by now, if its pages are that small. */
				if (w->config.page_size == PAGE)
					assert_int_not_equal(w->discards[page], 0);
			} else if (page >= 0 && queue == 1 && w->page[page] == PAGE_TAKING) {
				w->page[page] = PAGE_OWNED;
				w->discards[page] = 0;
			}
		}
	}
	if (got && q->wants_notify)
		assert_true(q->notified);
	if (got || !q->wants_notify) {
		q->notified = false;
		driver_ring_enable_notify(&q->ring);
		q->wants_notify = true;
	}
}

void world_settle(struct world *w)
{
	for (uint32_t queue = 0; queue < 2; queue++) {
		struct world_queue *q = &w->queue[queue];

		while (q->runnable) {
			world_run(w, queue);
			world_collect(w, queue);
		}
		world_collect(w, queue);
		if (q->n_out)
			fail_msg("queue %u: %u buffers forgotten", queue, q->n_out);
	}
}

void world_resume(struct world *w, uint32_t queue)
{
	struct vq *vq = &w->queue[queue].vq;
	uint32_t base;

	balloon_queue_stopped(&w->balloon, queue);
	vq_stop(vq);
	base = vq_base(vq);
	vq_set_base(vq, base);
	start_queue(w, queue, true);
}

void world_remap(struct world *w)
{
	balloon_memory_changing(&w->balloon);
	lay_out_memory(w);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(vq_remap(&w->queue[i].vq), 0);
	new_bitmap(w);
}

void world_reset(struct world *w)
{
	for (uint32_t i = 0; i < 2; i++) {
		balloon_queue_stopped(&w->balloon, i);
		vq_stop(&w->queue[i].vq);
	}
	balloon_reset(&w->balloon);
	memset(w->page, 0, sizeof(w->page));
	memset(w->discards, 0, sizeof(w->discards));
	memset(w->balloon.st.errors, 0, sizeof(w->balloon.st.errors));
	w->entries = w->changes = w->fragments = 0;
	fresh_queues(w);
}

/* Is every host page that is held as a whole given back? */
static void check_large_pages(const struct world *w)
{
	uint32_t per = (uint32_t)(w->config.page_size / PAGE);

	for (uint32_t half = 0; half < 2; half++) {
		uint32_t first = (uint32_t)(gpa_high[half] / PAGE % per);

		/* The first page that begins at a border of host pages. */
		for (uint32_t at = (per - first) % per; at + per <= HALF; at += per) {
			uint32_t held = 0;

			for (uint32_t i = 0; i < per; i++)
				held += w->page[half * HALF + at + i] == PAGE_HELD;
			if (held == per)
				assert_int_not_equal(w->discards[half * HALF + at], 0);
		}
	}
}

void world_check(struct world *w)
{
	const uint64_t *errors = w->balloon.st.errors;
	uint64_t held = 0, wrong = 0;

	for (uint32_t i = 0; i < WORLD_PAGES; i++) {
		assert_true(w->page[i] == PAGE_OWNED || w->page[i] == PAGE_HELD);
		held += w->page[i] == PAGE_HELD;
	}
	assert_int_equal(balloon_held_bytes(&w->balloon), held * PAGE);
	/* Every entry either moved a page or is counted as an error, and only once. */
	for (int i = BALLOON_ERR_PFN; i <= BALLOON_ERR_DUPLICATE; i++)
		wrong += errors[i];
	assert_int_equal(w->entries, w->changes + wrong);
	assert_int_equal(errors[BALLOON_ERR_FRAGMENT], w->fragments);
	if (w->config.told)
		check_large_pages(w);
}
