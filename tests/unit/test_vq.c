// SPDX-License-Identifier: MIT
/*
 * Both kinds of ring, driven by hand: sizes, wrap-around, notifications, and what breaks a queue.
 */
#include "helpers.h"

#include <errno.h>

#define GPA    0x100000ULL
#define BUF    0x10000ULL
#define PACKED BIT(VIRTIO_F_RING_PACKED)
#define EVENT  BIT(VIRTIO_F_EVENT_IDX)
#define SPLIT  0ULL
#define FRESH  0x80008000U /* of a packed ring: positions 0, wrap counters 1 */

static struct guest_mem mem;
static struct test_ring ring;
static struct vq_chain chain;
static uint8_t *host;

static int set_up(void **state)
{
	(void)state;
	host = test_add_region(&mem, GPA, test_ring_bytes(VRING_SIZE_MAX), PAGE, NULL);
	test_add_region(&mem, BUF, PAGE, PAGE, host); /* buffers are not looked into here */
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(host);
	return 0;
}

static int start(uint32_t size, uint64_t features, uint32_t base)
{
	memset(host, 0, test_ring_bytes(VRING_SIZE_MAX));
	return test_ring_start(&ring, &mem, GPA, host, size, features, base);
}

static void sizes(void **state)
{
	static const struct {
		uint32_t size;
		bool split, packed;
	} cases[] = {
		{0, false, false},
		{1, true, true},
		{2, true, true},
		{3, false, true},
		{128, true, true},
		{129, false, true},
		{32767, false, true},
		{32768, true, true},
		{32769, false, false},
		{65536, false, false},
		{UINT32_MAX, false, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(vq_check_size(false, cases[i].size), cases[i].split ? 0 : -EINVAL);
		assert_int_equal(vq_check_size(true, cases[i].size), cases[i].packed ? 0 : -EINVAL);
		if (cases[i].size > VRING_SIZE_MAX)
			continue;
		assert_int_equal(start(cases[i].size, SPLIT, 0), cases[i].split ? 0 : -EINVAL);
		assert_int_equal(vq_started(&ring.vq), cases[i].split);
		assert_int_equal(start(cases[i].size, PACKED, FRESH),
				 cases[i].packed ? 0 : -EINVAL);
	}
}

static void addresses(void **state)
{
	/* Per part of the ring: how far it is moved, and what is said to that. */
	static const struct {
		uint64_t features;
		int64_t desc, driver, device;
		int result;
	} cases[] = {
		{SPLIT, 0, 0, 0, 0},
		{SPLIT, 8, 0, 0, -EINVAL},
		{SPLIT, 0, 1, 0, -EINVAL},
		{SPLIT, 0, 2, 0, 0},
		{SPLIT, 0, 0, 2, -EINVAL},
		{SPLIT, 0, 0, 4, 0},
		{PACKED, 8, 0, 0, -EINVAL},
		{PACKED, 0, 2, 0, -EINVAL},
		{PACKED, 0, 0, 2, -EINVAL},
		{PACKED, 0, 4, 4, 0},
		{SPLIT, -(1 << 24), 0, 0, -EFAULT},
		{SPLIT, 0, 1 << 24, 0, -EFAULT},
		{SPLIT, 0, 0, 1 << 24, -EFAULT},
		{PACKED, 0, 0, 1 << 24, -EFAULT},
		{PACKED, 0, 1 << 24, 0, -EFAULT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vq_state *st = &ring.vq.st;

		assert_int_equal(start(16, cases[i].features, 0), 0);
		vq_stop(&ring.vq);
		st->desc_uaddr += (uint64_t)cases[i].desc;
		st->driver_uaddr += (uint64_t)cases[i].driver;
		st->device_uaddr += (uint64_t)cases[i].device;
		assert_int_equal(vq_start(&ring.vq, &mem), cases[i].result);
		assert_int_equal(vq_started(&ring.vq), cases[i].result == 0);
	}
}

/* A part that ends with the region's last byte is in; one byte further is not. */
static void end_of_memory(void **state)
{
	uint64_t end = TEST_UADDR + GPA + align_up(test_ring_bytes(VRING_SIZE_MAX), 4);
	struct vq_state *st = &ring.vq.st;

	(void)state;
	assert_int_equal(test_ring_bytes(VRING_SIZE_MAX) % 16, 0);
	assert_int_equal(start(16, SPLIT, 0), 0);
	vq_stop(&ring.vq);
	st->desc_uaddr = end - (uint64_t)16 * 16;
	assert_int_equal(vq_start(&ring.vq, &mem), 0);
	vq_stop(&ring.vq);
	st->desc_uaddr += 16;
	assert_int_equal(vq_start(&ring.vq, &mem), -EFAULT);
	st->desc_uaddr = TEST_UADDR + GPA;
	st->device_uaddr = end - VRING_USED_BYTES(16) + 2; /* 134 bytes, at a multiple of 4 */
	assert_int_equal(st->device_uaddr % 4, 0);
	assert_int_equal(vq_start(&ring.vq, &mem), -EFAULT);
	st->device_uaddr -= 4;
	assert_int_equal(vq_start(&ring.vq, &mem), 0);
	vq_stop(&ring.vq);
	st->desc_uaddr = UINT64_MAX - 15;
	assert_int_equal(vq_start(&ring.vq, &mem), -EFAULT);
}

/* Long enough for 16-bit indices to wrap, in batches of every size; nothing lost or doubled. */
static void wrap_around(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t size, base;
	} cases[] = {
		{SPLIT, 4, 65530},          {SPLIT, 1, 65535},       {SPLIT, 32768, 40000},
		{PACKED, 5, FRESH},         {PACKED, 1, FRESH},      {PACKED, 32768, FRESH},
		{PACKED, 4, 0x00030003},    {PACKED, 7, 0x80068006}, {EVENT, 4, 65530},
		{PACKED | EVENT, 5, FRESH},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t size = cases[i].size;

		assert_int_equal(start(size, cases[i].features, cases[i].base), 0);
		for (uint32_t round = 0; round < 200; round++) {
			uint32_t n = size > 100 ? (round % 2 ? size : 333) : 1 + round % size;
			uint32_t id = 0, len = 0;

			assert_int_equal(vq_pop(&ring.vq, &chain), 0);
			for (uint32_t k = 0; k < n; k++)
				test_offer_one(&ring, BUF + k % PAGE, 1);
			for (uint32_t k = 0; k < n; k++) {
				assert_int_equal(vq_pop(&ring.vq, &chain), 1);
				assert_ptr_equal(chain.seg[0].host, host + k % PAGE);
				/* pop all, push all; or one by one */
				if (round & 1)
					vq_push(&ring.vq, chain.id, chain.slots, round);
			}
			assert_int_equal(vq_pop(&ring.vq, &chain), 0);
			for (uint32_t k = 0; !(round & 1) && k < n; k++)
				vq_push(&ring.vq, (uint16_t)((ring.seen + k) % size), 1, round);
			for (uint32_t k = 0; k < n; k++) {
				assert_true(test_take_used(&ring, &id, &len));
				assert_int_equal(len, round);
			}
			assert_false(test_take_used(&ring, &id, &len));
			assert_int_equal(ring.vq.st.in_use, 0);
			(void)vq_should_notify(&ring.vq);
			if (size > 100 && round == 5)
				break;
		}
	}
}

/* Chains of several slots, which wrap in the middle of a packed ring. */
static void long_chains(void **state)
{
	static const struct test_desc d[] = {
		{BUF, 1, 0, 0}, {BUF + 1, 2, 0, 0}, {BUF + 3, 3, 0, 0}};
	static const uint64_t features[] = {SPLIT, PACKED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		assert_int_equal(start(features[i] ? 7 : 8, features[i], features[i] ? FRESH : 0),
				 0);
		for (uint32_t round = 0; round < 50; round++) {
			uint32_t id = 0, len = 0;

			test_offer(&ring, d, 1 + round % 3);
			test_offer(&ring, d, 1);
			assert_int_equal(vq_pop(&ring.vq, &chain), 1);
			assert_int_equal(chain.n_read, 1 + round % 3);
			vq_unpop(&ring.vq, chain.slots);
			assert_int_equal(vq_pop(&ring.vq, &chain), 1);
			assert_int_equal(chain.n_read, 1 + round % 3);
			vq_push(&ring.vq, chain.id, chain.slots, 7);
			assert_true(test_take_used(&ring, &id, &len));
			assert_int_equal(id, chain.id);
			assert_int_equal(vq_pop(&ring.vq, &chain), 1);
			assert_int_equal(chain.n_read, 1);
			vq_push(&ring.vq, chain.id, chain.slots, 0);
			assert_true(test_take_used(&ring, &id, &len));
			assert_int_equal(vq_pop(&ring.vq, &chain), 0);
		}
	}
}

/* threats.md, rings, line 2 */
static void more_than_the_ring_holds(void **state)
{
	(void)state;
	for (uint32_t jump = 0; jump < 2; jump++) {
		assert_int_equal(start(8, SPLIT, 0), 0);
		le16_put(ring.driver + VRING_AVAIL_IDX, jump ? 65535 : 9);
		assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
		assert_int_equal(ring.vq.st.error, VQ_ERR_INDEX);
		assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
		assert_false(vq_enable_kicks(&ring.vq));
	}
	/* Eight are out, none returned: a ninth cannot be. */
	assert_int_equal(start(8, SPLIT, 0), 0);
	for (int i = 0; i < 8; i++)
		test_offer_one(&ring, BUF, 1);
	for (int i = 0; i < 8; i++)
		assert_int_equal(vq_pop(&ring.vq, &chain), 1);
	test_offer_one(&ring, BUF, 1);
	assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
	assert_int_equal(ring.vq.st.error, VQ_ERR_INDEX);

	/* A full packed ring looks, at its next slot, as if there were more. */
	assert_int_equal(start(4, PACKED, FRESH), 0);
	for (int i = 0; i < 4; i++)
		test_offer_one(&ring, BUF, 1);
	for (int i = 0; i < 4; i++)
		assert_int_equal(vq_pop(&ring.vq, &chain), 1);
	for (uint32_t slot = 0; slot < 4; slot++) {
		uint16_t flags = slot ? 0 : (uint16_t)VRING_DESC_F_NEXT;

		test_put_desc(
			ring.desc, true, slot,
			(struct test_desc){BUF, 1, (uint16_t)(flags | test_avail_flags(false)), 0});
	}
	assert_int_equal(vq_pop(&ring.vq, &chain), 0);
	/* With one slot free, a chain of two takes one that is not the driver's to give. */
	vq_push(&ring.vq, 0, 1, 0);
	test_put_desc(ring.desc, true, 0,
		      (struct test_desc){
			      BUF, 1, (uint16_t)(VRING_DESC_F_NEXT | test_avail_flags(false)), 0});
	assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
	assert_int_equal(ring.vq.st.error, VQ_ERR_INDEX);
}

static void bad_heads(void **state)
{
	static const uint16_t heads[] = {8, 9, 32768, 65535};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		assert_int_equal(start(8, SPLIT, 0), 0);
		le16_put(ring.driver + VRING_AVAIL_RING(0), heads[i]);
		le16_put(ring.driver + VRING_AVAIL_IDX, 1);
		assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
		assert_int_equal(ring.vq.st.error, VQ_ERR_HEAD);
		/* Stopping and starting mends it. */
		vq_stop(&ring.vq);
		assert_int_equal(vq_start(&ring.vq, &mem), 0);
		le16_put(ring.driver + VRING_AVAIL_RING(0), 0);
		test_put_desc(ring.desc, false, 0, (struct test_desc){BUF, 1, 0, 0});
		assert_int_equal(vq_pop(&ring.vq, &chain), 1);
	}
	/* A packed chain in which a later slot is not available. */
	assert_int_equal(start(8, PACKED, FRESH), 0);
	test_put_desc(ring.desc, true, 0,
		      (struct test_desc){
			      BUF, 1, (uint16_t)(VRING_DESC_F_NEXT | test_avail_flags(true)), 0});
	assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
	assert_int_equal(ring.vq.st.error, VQ_ERR_HEAD);
	/* One that goes all around. */
	assert_int_equal(start(8, PACKED, FRESH), 0);
	for (uint32_t i = 0; i < 8; i++)
		test_put_desc(
			ring.desc, true, i,
			(struct test_desc){
				BUF, 1, (uint16_t)(VRING_DESC_F_NEXT | test_avail_flags(true)), 0});
	assert_int_equal(vq_pop(&ring.vq, &chain), -EPROTO);
	assert_int_equal(ring.vq.st.error, VQ_ERR_LOOP);
}

static void bases(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t base, back;
		int result;
	} cases[] = {
		{SPLIT, 0, 0, 0},
		{SPLIT, 65535, 65535, 0},
		{PACKED, 0, 0, 0},
		{PACKED, FRESH, FRESH, 0},
		{PACKED, 0x00078007, 0x00078007, 0},
		{PACKED, 0x00088000, 0x00088000, -EINVAL},
		{PACKED, 0x80008008, 0x80008008, -EINVAL},
		{PACKED, 0xffffffff, 0xffffffff, -EINVAL},
	};

	(void)state;
	assert_int_equal(vq_fresh_base(false), 0);
	assert_int_equal(vq_fresh_base(true), FRESH);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(start(8, cases[i].features, cases[i].base), cases[i].result);
		assert_int_equal(vq_base(&ring.vq), cases[i].back);
	}
}

/* What was popped and not pushed is popped again after a stop, also across the wrap. */
static void stop_hands_back(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t base;
	} cases[] = {{SPLIT, 65534}, {PACKED, 0x80068006}, {PACKED, FRESH}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t before;

		assert_int_equal(start(8, cases[i].features, cases[i].base), 0);
		before = vq_base(&ring.vq);
		for (uint32_t k = 0; k < 8; k++)
			test_offer_one(&ring, BUF + k, 1);
		for (uint32_t k = 0; k < 8; k++)
			assert_int_equal(vq_pop(&ring.vq, &chain), 1);
		vq_stop(&ring.vq);
		assert_int_equal(vq_base(&ring.vq), before);
		vq_set_base(&ring.vq, before);
		assert_int_equal(vq_start(&ring.vq, &mem), 0);
		for (uint32_t k = 0; k < 8; k++) {
			assert_int_equal(vq_pop(&ring.vq, &chain), 1);
			assert_ptr_equal(chain.seg[0].host, host + k);
			vq_push(&ring.vq, chain.id, chain.slots, 0);
		}
		assert_int_equal(vq_pop(&ring.vq, &chain), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),           cmocka_unit_test(addresses),
		cmocka_unit_test(end_of_memory),   cmocka_unit_test(wrap_around),
		cmocka_unit_test(long_chains),     cmocka_unit_test(more_than_the_ring_holds),
		cmocka_unit_test(bad_heads),       cmocka_unit_test(bases),
		cmocka_unit_test(stop_hands_back),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
