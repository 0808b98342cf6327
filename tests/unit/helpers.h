/* SPDX-License-Identifier: MIT */
/*
 * What the tests of rings and of the balloon share: guest memory with exact bounds (the sanitizer
 * sees the first byte past it), the driver's side of a ring, and a balloon whose every action is
 * recorded.
 */
#ifndef TEST_HELPERS_H
#define TEST_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "balloon/balloon.h"
#include "base/checked.h"
#include "base/le.h"
#include "virtio/vq.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)        (1ULL << (n))
#define PAGE          4096U

/* Where front ends of tests have GPA 0 mapped. */
#define TEST_UADDR 0x7f0000000000ULL

/* As written into a descriptor. */
struct test_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next; /* packed: the buffer id */
};

static inline void test_put_desc(uint8_t *table, bool packed, uint32_t index, struct test_desc d)
{
	uint8_t *p = table + (size_t)index * VRING_DESC_SIZE;

	le64_put(p, d.addr);
	le32_put(p + 8, d.len);
	le16_put(p + (packed ? 14 : 12), d.flags);
	le16_put(p + (packed ? 12 : 14), d.next);
}

/* Adds a region of guest memory; host NULL: new memory, which the caller frees. */
static inline uint8_t *test_add_region(struct guest_mem *mem, uint64_t gpa, uint64_t size,
				       uint64_t page_size, uint8_t *host)
{
	struct guest_region region = {
		.gpa = gpa, .size = size, .uaddr = TEST_UADDR + gpa, .page_size = page_size};

	if (!host) {
		host = aligned_alloc(PAGE, align_up(size, PAGE));
		assert_non_null(host);
		memset(host, 0, size);
	}
	assert_int_equal(guest_mem_add(mem, &region, host), 0);
	return host;
}

/* Adds a region of which nothing may be read or written. */
static inline uint8_t *test_add_forbidden(struct guest_mem *mem, uint64_t gpa, uint64_t size,
					  uint64_t page_size)
{
	void *host =
		mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_ptr_not_equal(host, MAP_FAILED);
	return test_add_region(mem, gpa, size, page_size, host);
}

static inline void test_drop_forbidden(uint8_t *host, uint64_t size)
{
	assert_int_equal(munmap(host, size), 0);
}

/* A ring and its driver. */
struct test_ring {
	struct vq vq;
	uint8_t *desc; /* the ring's three parts, as the driver has them mapped */
	uint8_t *driver;
	uint8_t *device;
	uint16_t next; /* split: avail index; packed: slot */
	uint16_t free; /* split: descriptor to use next */
	uint16_t seen; /* the same for used buffers */
	bool wrap;
	bool seen_wrap;
	uint16_t slots[VRING_SIZE_MAX]; /* by buffer id */
};

static inline uint32_t test_ring_bytes(uint32_t size)
{
	return size * 16 + 16 + size * 2 + 16 + size * 8 + 16;
}

/* Lays a ring out at gpa, which is mapped at host, and starts it there with the given base. */
static inline int test_ring_start(struct test_ring *r, const struct guest_mem *mem, uint64_t gpa,
				  uint8_t *host, uint32_t size, uint64_t features, uint32_t base)
{
	uint32_t driver = size * 16, device = driver + (uint32_t)align_up(size * 2 + 6, 16);
	bool packed = features & BIT(VIRTIO_F_RING_PACKED);

	memset(&r->vq, 0, sizeof(r->vq));
	r->desc = host;
	r->driver = host + driver;
	r->device = host + device;
	r->next = r->seen = packed ? (uint16_t)(base & 0x7fff) : (uint16_t)base;
	r->wrap = packed && base & 0x8000;
	r->seen_wrap = packed && base >> 31;
	r->free = 0;
	vq_set_features(&r->vq, features);
	vq_set_base(&r->vq, base);
	r->vq.st.size = size;
	r->vq.st.desc_uaddr = TEST_UADDR + gpa;
	r->vq.st.driver_uaddr = TEST_UADDR + gpa + driver;
	r->vq.st.device_uaddr = TEST_UADDR + gpa + device;
	if (!packed) {
		le16_put(r->driver + VRING_AVAIL_IDX, r->next);
		le16_put(r->device + VRING_USED_IDX, r->next);
	}
	/* All slots were used before: those behind the position in the lap before this one. */
	for (uint32_t i = 0; packed && i < size; i++)
		le16_put(host + (size_t)i * VRING_DESC_SIZE + 14,
			 (i < r->seen) == r->seen_wrap ? VRING_DESC_F_AVAIL | VRING_DESC_F_USED
						       : 0);
	return vq_start(&r->vq, mem);
}

static inline uint16_t test_avail_flags(bool wrap)
{
	return wrap ? VRING_DESC_F_AVAIL : VRING_DESC_F_USED;
}

/* Makes descriptors available as one chain; those of d[].flags it leaves alone but for NEXT. */
static inline uint16_t test_offer(struct test_ring *r, const struct test_desc *d, uint32_t n)
{
	bool packed = r->vq.st.packed;
	uint32_t size = r->vq.st.size;
	uint16_t id = packed ? r->next : r->free;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = (id + i) % size;
		struct test_desc put = d[i];

		put.next = (uint16_t)(packed ? id : (at + 1) % size);
		if (i + 1 < n)
			put.flags = (uint16_t)(put.flags | VRING_DESC_F_NEXT);
		if (packed)
			put.flags =
				(uint16_t)(put.flags |
					   test_avail_flags(id + i < size ? r->wrap : !r->wrap));
		test_put_desc(r->desc, packed, at, put);
	}
	r->slots[id] = packed ? (uint16_t)n : 1;
	if (packed) {
		if (id + n >= size)
			r->wrap = !r->wrap;
		r->next = (uint16_t)((id + n) % size);
	} else {
		le16_put(r->driver + VRING_AVAIL_RING(r->next % size), id);
		le16_put(r->driver + VRING_AVAIL_IDX, ++r->next);
		r->free = (uint16_t)((id + n) % size);
	}
	return id;
}

static inline uint16_t test_offer_one(struct test_ring *r, uint64_t gpa, uint32_t len)
{
	struct test_desc d = {.addr = gpa, .len = len};

	return test_offer(r, &d, 1);
}

/* The next used buffer; false if there is none. */
static inline bool test_take_used(struct test_ring *r, uint32_t *id, uint32_t *len)
{
	const uint32_t size = r->vq.st.size;
	const uint8_t *slot = r->desc + (size_t)r->seen * VRING_DESC_SIZE;

	if (!r->vq.st.packed) {
		const uint8_t *entry = r->device + VRING_USED_RING(r->seen % size);

		if (le16_get(r->device + VRING_USED_IDX) == r->seen)
			return false;
		*id = le32_get(entry);
		*len = le32_get(entry + 4);
		r->seen++;
		return true;
	}
	if ((le16_get(slot + 14) & (VRING_DESC_F_AVAIL | VRING_DESC_F_USED)) !=
	    (r->seen_wrap ? VRING_DESC_F_AVAIL | VRING_DESC_F_USED : 0))
		return false;
	*len = le32_get(slot + 8);
	*id = le16_get(slot + 12);
	assert_in_range(r->slots[*id], 1, size);
	r->seen = (uint16_t)(r->seen + r->slots[*id]);
	if (r->seen >= size) {
		r->seen = (uint16_t)(r->seen - size);
		r->seen_wrap = !r->seen_wrap;
	}
	return true;
}

/* A balloon with its rings in a region of their own, and what it did. */
#define TEST_QUEUES_GPA BIT(40)
#define TEST_QUEUE_ROOM 0x4000U
#define TEST_RINGS      VIRTIO_BALLOON_VQ_COUNT
#define TEST_BUFFERS    (TEST_RINGS * TEST_QUEUE_ROOM) /* room for buffers: offset in there */
#define TEST_ROOM       (TEST_BUFFERS + 0x40000U)
#define TEST_BUFFER     (TEST_QUEUES_GPA + TEST_BUFFERS)

/* The functions of struct balloon_ops. */
enum test_op {
	TEST_OP_DISCARD,
	TEST_OP_CONFIG,
	TEST_OP_NOTIFY,
	TEST_OP_BROKEN,
	TEST_OP_EVENT,
	TEST_OP_COMMIT,
};

struct test_balloon {
	struct balloon b;
	struct guest_mem mem;
	uint8_t *queues; /* host address of TEST_QUEUES_GPA */
	uint64_t *map;   /* bitmap of what is held */
	uint64_t *hints; /* bitmap of hints */
	struct test_ring ring[TEST_RINGS];
	uint64_t features;

	bool any_page; /* pages may be discarded that are not held: they are reported */
	uint32_t n_ranges;
	struct balloon_range range[512];
	uint64_t free_each; /* what discarding a range is said to free */
	uint32_t config_changes, notified[TEST_RINGS], broken[TEST_RINGS], events[4], commits;
	void (*hook)(struct test_balloon *t, enum test_op op); /* at the beginning of each */
};

static inline void test_on_op(struct test_balloon *t, enum test_op op)
{
	if (t->hook)
		t->hook(t, op);
}

static inline uint64_t test_on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct test_balloon *t = opaque;

	test_on_op(t, TEST_OP_DISCARD);
	assert_in_range(n, 1, 512);
	for (uint32_t i = 0; i < n; i++) {
		const struct guest_region *r = &t->mem.region[ranges[i].region];
		uint64_t page, held = 1;

		assert_in_range(ranges[i].region, 0, t->mem.n - 1);
		assert_true(ranges[i].len > 0);
		assert_true(range_within(ranges[i].offset, ranges[i].len, r->size));
		/* Nothing goes that the balloon does not hold. */
		for (uint64_t at = 0; !t->any_page && at < ranges[i].len; at += PAGE, held = 1) {
			uint64_t pfn = (r->gpa + ranges[i].offset + at) / PAGE;

			assert_int_equal(pageset_locate(&t->b.held, pfn, &held, &page),
					 ranges[i].region);
			assert_true(pageset_all(&t->b.held, ranges[i].region, page, 1));
		}
		assert_in_range(t->n_ranges, 0, ARRAY_SIZE(t->range) - 1);
		t->range[t->n_ranges++] = ranges[i];
	}
	return n * t->free_each;
}

static inline void test_on_config(void *opaque)
{
	test_on_op(opaque, TEST_OP_CONFIG);
	((struct test_balloon *)opaque)->config_changes++;
}

static inline void test_on_notify(void *opaque, uint32_t ring)
{
	test_on_op(opaque, TEST_OP_NOTIFY);
	((struct test_balloon *)opaque)->notified[ring]++;
}

static inline void test_on_broken(void *opaque, uint32_t ring)
{
	test_on_op(opaque, TEST_OP_BROKEN);
	((struct test_balloon *)opaque)->broken[ring]++;
}

static inline void test_on_event(void *opaque, enum balloon_event event)
{
	test_on_op(opaque, TEST_OP_EVENT);
	((struct test_balloon *)opaque)->events[event]++;
}

static inline void test_on_commit(void *opaque)
{
	test_on_op(opaque, TEST_OP_COMMIT);
	((struct test_balloon *)opaque)->commits++;
}

/* Sets up memory; the regions of the guest are added by the caller, then test_balloon_start(). */
static inline void test_balloon_init(struct test_balloon *t, uint64_t offered)
{
	static const struct balloon_ops ops = {test_on_discard, test_on_config, test_on_notify,
					       test_on_broken,  test_on_event,  test_on_commit};

	memset(t, 0, offsetof(struct test_balloon, ring));
	memset(&t->features, 0, sizeof(*t) - offsetof(struct test_balloon, features));
	balloon_init(&t->b, offered, &ops, t);
	for (uint32_t i = 0; i < TEST_RINGS; i++) {
		t->b.vq[i] = &t->ring[i].vq;
		memset(&t->ring[i].vq, 0, sizeof(t->ring[i].vq));
	}
	t->queues = test_add_region(&t->mem, TEST_QUEUES_GPA, TEST_ROOM, PAGE, NULL);
}

/* After a change of t->mem. */
static inline void test_balloon_memory(struct test_balloon *t)
{
	uint64_t *old = t->map, *old_hints = t->hints;

	t->map = calloc(pageset_words(&t->mem), sizeof(*t->map));
	t->hints = calloc(pageset_words(&t->mem), sizeof(*t->hints));
	assert_non_null(t->map);
	assert_non_null(t->hints);
	balloon_memory_changed(&t->b, &t->mem, t->map, t->hints);
	free(old);
	free(old_hints);
}

static inline void test_balloon_queue(struct test_balloon *t, uint32_t ring, uint32_t base,
				      bool resumed)
{
	uint32_t at = ring * TEST_QUEUE_ROOM;

	assert_int_equal(test_ring_start(&t->ring[ring], &t->mem, TEST_QUEUES_GPA + at,
					 t->queues + at, 16, t->features, base),
			 0);
	balloon_queue_started(&t->b, ring, resumed);
}

/* The ring of a queue as Linux numbers it: those of negotiated features only. */
static inline uint32_t test_ring_of(uint64_t features, enum virtio_balloon_queue queue)
{
	static const unsigned int feature[] = {
		VIRTIO_BALLOON_F_STATS_VQ, VIRTIO_BALLOON_F_FREE_PAGE_HINT,
		VIRTIO_BALLOON_F_PAGE_REPORTING, VIRTIO_BALLOON_F_MESSAGE_VQ};
	uint32_t ring = queue < VIRTIO_BALLOON_VQ_STATS ? queue : VIRTIO_BALLOON_VQ_STATS;

	for (uint32_t i = VIRTIO_BALLOON_VQ_STATS; i < (uint32_t)queue; i++)
		ring += (uint32_t)(features >> feature[i - VIRTIO_BALLOON_VQ_STATS] & 1);
	return ring;
}

/* The driver comes, with these features, and its queues start. */
static inline void test_balloon_start(struct test_balloon *t, uint64_t features)
{
	uint32_t rings = test_ring_of(features, VIRTIO_BALLOON_VQ_COUNT);

	t->features = features;
	test_balloon_memory(t);
	assert_int_equal(balloon_set_features(&t->b, features), 0);
	for (uint32_t i = 0; i < rings; i++)
		test_balloon_queue(t, i, vq_fresh_base(features >> VIRTIO_F_RING_PACKED & 1),
				   false);
}

/* The transport stops a ring, and starts it where it stood. */
static inline void test_balloon_pause(struct test_balloon *t, uint32_t ring)
{
	balloon_queue_stopped(&t->b, ring);
	vq_stop(&t->ring[ring].vq);
	vq_set_base(&t->ring[ring].vq, vq_base(&t->ring[ring].vq));
}

static inline void test_balloon_resume(struct test_balloon *t, uint32_t ring)
{
	assert_int_equal(vq_start(&t->ring[ring].vq, &t->mem), 0);
	balloon_queue_started(&t->b, ring, true);
}

static inline void test_balloon_end(struct test_balloon *t)
{
	free(t->queues);
	free(t->map);
	free(t->hints);
}

static inline struct instant test_at(uint64_t ms)
{
	return (struct instant){.mono_ms = ms, .wall_us = (int64_t)ms * 1000};
}

/* Sends PFNs over a queue in one buffer, runs the queue, and sees that the buffer comes back. */
static inline void test_send_pfns(struct test_balloon *t, uint32_t queue, const uint32_t *pfn,
				  uint32_t n)
{
	uint32_t id = 0, len = 0;

	assert_in_range(n * 4, 4, TEST_ROOM - TEST_BUFFERS);
	for (uint32_t i = 0; i < n; i++)
		le32_put(t->queues + TEST_BUFFERS + (size_t)i * 4, pfn[i]);
	test_offer_one(&t->ring[queue], TEST_BUFFER, n * 4);
	while (balloon_queue_run(&t->b, queue, test_at(0)))
		;
	assert_true(test_take_used(&t->ring[queue], &id, &len));
	assert_int_equal(len, 0);
}

/* The same for n consecutive ones. */
static inline void test_send_run(struct test_balloon *t, uint32_t queue, uint32_t first, uint32_t n)
{
	uint32_t pfn[1024];

	assert_in_range(n, 1, ARRAY_SIZE(pfn));
	for (uint32_t i = 0; i < n; i++)
		pfn[i] = first + i;
	test_send_pfns(t, queue, pfn, n);
}

#endif
