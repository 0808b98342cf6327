/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the portable driver share: a system around it whose pages are counted, and a
 * device that does nothing by itself, only what the test has it do through the real device side of
 * the rings.
 */
#ifndef TEST_DRIVER_HELPERS_H
#define TEST_DRIVER_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bitmap.h"
#include "base/le.h"
#include "driver/balloon.h"
#include "virtio/vq.h"

#define BIT(n)        (1ULL << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define TD_PAGES     4096U
#define TD_FIRST_PFN 0x1000U
#define TD_LOW_GPA   0x100000ULL
#define TD_FIELD(f)  offsetof(struct virtio_balloon_config, f)

/* All that can be accepted, but for packed rings. */
#define TD_ALL                                                                         \
	(BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_BALLOON_F_STATS_VQ) |       \
	 BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | \
	 BIT(VIRTIO_BALLOON_F_PAGE_POISON) | BIT(VIRTIO_BALLOON_F_PAGE_REPORTING) |    \
	 BIT(VIRTIO_BALLOON_F_STATS_PUSH) | BIT(VIRTIO_BALLOON_F_MESSAGE_VQ) |         \
	 BIT(VIRTIO_F_VERSION_1))

struct test_driver {
	struct driver_balloon d;
	struct driver_balloon_setup setup;
	uint64_t in_balloon[TD_PAGES / BITMAP_WORD_BITS];
	uint64_t hinted[TD_PAGES / BITMAP_WORD_BITS];

	/* The system. */
	bool taken[TD_PAGES]; /* the driver has it */
	enum driver_use use[TD_PAGES];
	uint32_t left[3]; /* by use: pages that can still be spared */
	uint32_t run;     /* pages given out together, at most */
	uint32_t n_taken[3];
	uint32_t n_given[3];
	uint32_t next; /* where the system looks for a free page */
	struct driver_statistics figures;
	void (*on_give)(struct test_driver *t); /* happens meanwhile; may be NULL */

	/* The device. */
	uint8_t config[sizeof(struct virtio_balloon_config)];
	uint32_t writes[sizeof(struct virtio_balloon_config)]; /* by offset */
	uint32_t reads[sizeof(struct virtio_balloon_config)];
	uint32_t kicks[VIRTIO_BALLOON_VQ_COUNT]; /* by ring */
	struct guest_mem mem;
	uint8_t *low;
	struct vq vq[VIRTIO_BALLOON_VQ_COUNT]; /* by queue */
	uint16_t id[VIRTIO_BALLOON_VQ_COUNT];  /* of the chain that was taken last */
	uint16_t slots[VIRTIO_BALLOON_VQ_COUNT];
};

/* The pages' memory, which nobody touches; and the chain that was taken last, from any queue. */
static uint8_t td_pages[TD_PAGES * 4096U] __attribute__((aligned(4096)));
static struct vq_chain td_chain;

static inline uint32_t td_take(void *opaque, enum driver_use use, uint32_t max, uint32_t *pfn)
{
	struct test_driver *t = opaque;
	uint32_t n = 0;

	assert_true(max > 0);
	for (uint32_t i = 0; i < TD_PAGES && t->taken[t->next]; i++)
		t->next = (t->next + 1) % TD_PAGES;
	while (n < max && n < t->left[use] && n < t->run && t->next + n < TD_PAGES &&
	       !t->taken[t->next + n]) {
		t->taken[t->next + n] = true;
		t->use[t->next + n] = use;
		n++;
	}
	*pfn = TD_FIRST_PFN + t->next;
	t->next = (t->next + n) % TD_PAGES;
	t->left[use] -= n;
	t->n_taken[use] += n;
	return n;
}

static inline void td_give(void *opaque, enum driver_use use, uint32_t pfn, uint32_t n)
{
	struct test_driver *t = opaque;

	assert_true(n > 0);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t page = pfn + i - TD_FIRST_PFN;

		assert_in_range(page, 0, TD_PAGES - 1);
		assert_true(t->taken[page]);
		assert_int_equal(t->use[page], use);
		t->taken[page] = false;
	}
	t->n_given[use] += n;
	if (t->on_give)
		t->on_give(t);
}

static inline void td_config_read(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len)
{
	struct test_driver *t = opaque;

	assert_int_equal(offset % 4, 0);
	assert_int_equal(len, 4);
	memcpy(buf, t->config + offset, len);
	t->reads[offset]++;
}

static inline void td_config_write(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	struct test_driver *t = opaque;

	assert_int_equal(offset % 4, 0);
	assert_int_equal(len, 4);
	memcpy(t->config + offset, buf, len);
	t->writes[offset]++;
}

static inline void td_kick(void *opaque, uint32_t ring)
{
	struct test_driver *t = opaque;

	assert_in_range(ring, 0, VIRTIO_BALLOON_VQ_COUNT - 1);
	assert_true(t->d.running);
	t->kicks[ring]++;
}

static inline void td_statistics(void *opaque, struct driver_statistics *s)
{
	struct test_driver *t = opaque;

	assert_int_equal(s->set, 0);
	*s = t->figures;
}

static const struct driver_balloon_ops td_ops = {td_take,         td_give, td_config_read,
						 td_config_write, td_kick, td_statistics};

static inline uint32_t td_get(const struct test_driver *t, size_t field)
{
	return le32_get(t->config + field);
}

static inline void td_set(struct test_driver *t, size_t field, uint32_t value)
{
	le32_put(t->config + field, value);
}

/* A system with memory to spare, and a setup that wants all. */
static inline void td_init(struct test_driver *t, uint64_t offered)
{
	memset(t, 0, sizeof(*t));
	t->setup = (struct driver_balloon_setup){
		.offered = offered,
		.wanted = ~0ULL,
		.first_pfn = TD_FIRST_PFN,
		.pages = TD_PAGES,
		.in_balloon = t->in_balloon,
		.hinted = t->hinted,
		.ops = &td_ops,
		.opaque = t,
	};
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
		t->setup.ring_size[queue] = 32;
	for (uint32_t use = 0; use < 3; use++)
		t->left[use] = TD_PAGES;
	t->run = TD_PAGES;
	t->figures.set = BIT(VIRTIO_BALLOON_S_MEMFREE);
	t->figures.value[VIRTIO_BALLOON_S_MEMFREE] = 1000;
}

/* Up to DRIVER_OK. */
static inline void td_prepare(struct test_driver *t)
{
	struct guest_region low = {.gpa = TD_LOW_GPA, .uaddr = TD_LOW_GPA, .page_size = 4096};
	struct guest_region pages = {.gpa = (uint64_t)TD_FIRST_PFN << 12,
				     .size = sizeof(td_pages),
				     .uaddr = BIT(40),
				     .page_size = 4096};

	assert_int_equal(driver_balloon_init(&t->d, &t->setup), 0);
	low.size = (driver_balloon_bytes(&t->d) + 63) / 64 * 64;
	t->low = aligned_alloc(64, low.size);
	assert_non_null(t->low);
	memset(t->low, 0, low.size);
	assert_int_equal(guest_mem_add(&t->mem, &low, t->low), 0);
	assert_int_equal(guest_mem_add(&t->mem, &pages, td_pages), 0);
	driver_balloon_prepare(&t->d, t->low, TD_LOW_GPA);
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		const struct driver_ring *ring = &t->d.ring[queue];
		uint64_t gpa = t->d.ring_gpa[queue];
		struct vq *vq = &t->vq[queue];

		if (t->d.ring_of[queue] < 0)
			continue;
		vq_set_features(vq, t->d.features);
		vq->st.size = ring->size;
		vq->st.desc_uaddr = gpa;
		vq->st.driver_uaddr = gpa + driver_ring_driver_offset(ring->size);
		vq->st.device_uaddr = gpa + driver_ring_device_offset(ring->packed, ring->size);
		vq_set_base(vq, vq_fresh_base(ring->packed));
		assert_int_equal(vq_start(vq, &t->mem), 0);
	}
}

static inline void td_begin(struct test_driver *t, uint64_t now)
{
	td_prepare(t);
	driver_balloon_start(&t->d, now);
}

/* Ends, and sees that the system has everything again. */
static inline void td_end(struct test_driver *t)
{
	driver_balloon_reset(&t->d);
	for (uint32_t i = 0; i < TD_PAGES; i++)
		assert_false(t->taken[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(t->in_balloon); i++)
		assert_int_equal(t->in_balloon[i] | t->hinted[i], 0);
	assert_int_equal(driver_balloon_next_tick(&t->d), UINT64_MAX);
	free(t->low);
}

/* The device takes the next buffer of a queue into td_chain; false if there is none. */
static inline bool td_pop(struct test_driver *t, int queue)
{
	int r = vq_pop(&t->vq[queue], &td_chain);

	assert_true(r >= 0);
	if (!r) {
		(void)vq_enable_kicks(&t->vq[queue]);
		return false;
	}
	t->id[queue] = td_chain.id;
	t->slots[queue] = td_chain.slots;
	return true;
}

/* The device returns the buffer it took last; the driver does not look yet. */
static inline void td_push(struct test_driver *t, int queue)
{
	vq_push(&t->vq[queue], t->id[queue], t->slots[queue], 0);
}

/* ... and now it does. */
static inline void td_return(struct test_driver *t, int queue, uint64_t now)
{
	td_push(t, queue);
	driver_balloon_used(&t->d, now);
}

static inline void td_set_target(struct test_driver *t, uint32_t pages, uint64_t now)
{
	td_set(t, TD_FIELD(num_pages), pages);
	driver_balloon_config_changed(&t->d, now);
}

/* How many PFNs there are in the buffer that was taken; 0 if there is no buffer. */
static inline uint32_t td_pop_pfns(struct test_driver *t, int queue)
{
	if (!td_pop(t, queue))
		return 0;
	assert_int_equal(td_chain.n_write, 0);
	assert_int_equal(td_chain.read_bytes % 4, 0);
	return (uint32_t)(td_chain.read_bytes / 4);
}

/* Serves inflate and deflate until there is no more. */
static inline void td_serve_pages(struct test_driver *t, uint64_t now)
{
	bool more = true;

	while (more) {
		more = false;
		for (int queue = VIRTIO_BALLOON_VQ_INFLATE; queue <= VIRTIO_BALLOON_VQ_DEFLATE;
		     queue++) {
			if (!td_pop(t, queue))
				continue;
			td_return(t, queue, now);
			more = true;
		}
	}
}

#endif
