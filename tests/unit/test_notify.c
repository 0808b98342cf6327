// SPDX-License-Identifier: MIT
/*
 * Who tells whom: interrupts and kicks, with flags and with event indices, on both kinds of ring.
 */
#include "helpers.h"

#define GPA    0x100000ULL
#define PACKED BIT(VIRTIO_F_RING_PACKED)
#define EVENT  BIT(VIRTIO_F_EVENT_IDX)
#define SPLIT  0ULL
#define FRESH  0x80008000U /* of a packed ring */
#define SIZE   8U

static struct guest_mem mem;
static struct test_ring ring;
static struct vq_chain chain;
static uint8_t *host;

static int set_up(void **state)
{
	(void)state;
	host = test_add_region(&mem, GPA, PAGE, PAGE, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(host);
	return 0;
}

static void start(uint64_t features, uint32_t base)
{
	memset(host, 0, PAGE);
	assert_int_equal(test_ring_start(&ring, &mem, GPA, host, SIZE, features, base), 0);
}

static void serve(uint32_t n)
{
	uint32_t id = 0, len = 0;

	for (uint32_t i = 0; i < n; i++) {
		test_offer_one(&ring, GPA, 1);
		assert_int_equal(vq_pop(&ring.vq, &chain), 1);
		vq_push(&ring.vq, chain.id, chain.slots, 0);
		assert_true(test_take_used(&ring, &id, &len));
	}
}

static void need_event(void **state)
{
	static const struct {
		uint16_t event, new_idx, old_idx;
		bool need;
	} cases[] = {
		{0, 1, 0, true},
		{0, 0, 0, false},
		{1, 1, 0, false},
		{65535, 0, 65535, true},
		{65535, 1, 0, false},
		{0, 1, 65535, true},
		{65535, 65535, 65534, false},
		{5, 6, 5, true},
		{4, 6, 5, false},
		{6, 6, 5, false},
		{65000, 100, 64999, true},
		{101, 100, 64999, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(
			vring_need_event(cases[i].event, cases[i].new_idx, cases[i].old_idx),
			cases[i].need);
}

static void interrupts_by_flag(void **state)
{
	(void)state;
	start(SPLIT, 0);
	assert_false(vq_should_notify(&ring.vq)); /* of nothing */
	serve(1);
	assert_true(vq_should_notify(&ring.vq));
	assert_false(vq_should_notify(&ring.vq)); /* twice */
	le16_put(ring.driver + VRING_AVAIL_FLAGS, VRING_AVAIL_F_NO_INTERRUPT);
	serve(3);
	assert_false(vq_should_notify(&ring.vq));
	le16_put(ring.driver + VRING_AVAIL_FLAGS, 0xfffe);
	serve(1);
	assert_true(vq_should_notify(&ring.vq));

	start(PACKED, FRESH);
	serve(1);
	assert_true(vq_should_notify(&ring.vq));
	le16_put(ring.driver + 2, VRING_EVENT_F_DISABLE);
	serve(1);
	assert_false(vq_should_notify(&ring.vq));
	/* Without EVENT_IDX the driver cannot mean a descriptor. */
	le16_put(ring.driver + 2, VRING_EVENT_F_DESC);
	le16_put(ring.driver, 0x7000);
	serve(1);
	assert_true(vq_should_notify(&ring.vq));
}

/* The driver asks to hear of the k-th buffer from now; it must hear then, not before. */
static void interrupts_by_index(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t base;
	} cases[] = {{EVENT, 0},
		     {EVENT, 65532},
		     {EVENT | PACKED, FRESH},
		     {EVENT | PACKED, 0x00058005},
		     {EVENT | PACKED, 0x00070007}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool packed = cases[i].features & PACKED;

		for (uint32_t k = 0; k < SIZE; k++) {
			for (uint32_t burst = 1; burst <= SIZE; burst++) {
				uint32_t done = 0;
				uint16_t event;

				start(cases[i].features, cases[i].base);
				le16_put(ring.driver + 2, packed ? VRING_EVENT_F_DESC : 0);
				serve(1);
				/* Whatever the driver asked before the first one is not known. */
				assert_true(vq_should_notify(&ring.vq));
				if (packed) {
					uint32_t slot = ring.seen + k;
					bool wrap = slot < SIZE ? ring.seen_wrap : !ring.seen_wrap;

					event = (uint16_t)(slot % SIZE | (wrap ? 0x8000U : 0));
					le16_put(ring.driver, event);
				} else {
					event = (uint16_t)(ring.seen + k);
					le16_put(ring.driver + VRING_AVAIL_RING(SIZE), event);
				}
				le16_put(ring.driver + 2, packed ? VRING_EVENT_F_DESC : ring.next);
				while (done <= k) {
					serve(burst);
					assert_int_equal(vq_should_notify(&ring.vq),
							 done <= k && done + burst > k);
					done += burst;
				}
			}
		}
	}
}

/* After a stop and a start at the same place, the driver hears of the first buffer in any case. */
static void interrupt_after_restart(void **state)
{
	(void)state;
	start(EVENT, 0);
	serve(3);
	(void)vq_should_notify(&ring.vq);
	le16_put(ring.driver + VRING_AVAIL_RING(SIZE), 100);
	serve(1);
	assert_false(vq_should_notify(&ring.vq));
	vq_stop(&ring.vq);
	vq_set_base(&ring.vq, vq_base(&ring.vq));
	assert_int_equal(vq_start(&ring.vq, &mem), 0);
	serve(1);
	assert_true(vq_should_notify(&ring.vq));
}

static void kicks(void **state)
{
	(void)state;
	start(SPLIT, 0);
	le16_put(ring.device + VRING_USED_FLAGS, VRING_USED_F_NO_NOTIFY);
	assert_false(vq_enable_kicks(&ring.vq));
	assert_int_equal(le16_get(ring.device + VRING_USED_FLAGS), 0);

	start(EVENT, 65535);
	serve(1);
	assert_false(vq_enable_kicks(&ring.vq));
	assert_int_equal(le16_get(ring.device + VRING_USED_RING(SIZE)), 0);

	start(PACKED, FRESH);
	le16_put(ring.device + 2, VRING_EVENT_F_DISABLE);
	assert_false(vq_enable_kicks(&ring.vq));
	assert_int_equal(le16_get(ring.device + 2), VRING_EVENT_F_ENABLE);

	start(PACKED | EVENT, FRESH);
	serve(7);
	assert_false(vq_enable_kicks(&ring.vq));
	assert_int_equal(le16_get(ring.device + 2), VRING_EVENT_F_DESC);
	assert_int_equal(le16_get(ring.device), 0x8007);
	serve(1);
	assert_false(vq_enable_kicks(&ring.vq));
	assert_int_equal(le16_get(ring.device), 0);
}

/* threats.md, rings, line 8: asking for kicks on a ring that is not empty says so. */
static void kicks_on_a_full_ring(void **state)
{
	static const uint64_t features[] = {SPLIT, EVENT, PACKED, PACKED | EVENT};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		start(features[i], features[i] & PACKED ? FRESH : 0);
		assert_false(vq_enable_kicks(&ring.vq));
		test_offer_one(&ring, GPA, 1);
		assert_true(vq_enable_kicks(&ring.vq));
		assert_int_equal(vq_pop(&ring.vq, &chain), 1);
		assert_false(vq_enable_kicks(&ring.vq));
		vq_break(&ring.vq, VQ_ERR_DIRECTION);
		test_offer_one(&ring, GPA, 1);
		assert_false(vq_enable_kicks(&ring.vq));
		vq_break(&ring.vq, VQ_ERR_LOOP);
		assert_int_equal(ring.vq.st.error, VQ_ERR_DIRECTION); /* the first cause stays */
	}
}

/* The table changes while a buffer is out. */
static void remap(void **state)
{
	uint8_t *other = aligned_alloc(PAGE, PAGE);
	uint32_t id = 0, len = 0;

	(void)state;
	assert_non_null(other);
	start(SPLIT, 0);
	test_offer_one(&ring, GPA, 1);
	assert_int_equal(vq_pop(&ring.vq, &chain), 1);
	vq_break(&ring.vq, VQ_ERR_DIRECTION);
	memcpy(other, host, PAGE);
	mem.host[0] = other;
	assert_int_equal(vq_remap(&ring.vq), 0);
	assert_int_equal(ring.vq.st.error, VQ_ERR_DIRECTION); /* that does not mend it */
	vq_push(&ring.vq, chain.id, chain.slots, 5);
	assert_false(test_take_used(&ring, &id, &len)); /* nothing in the old place */
	ring.device = other + (ring.device - host);
	assert_true(test_take_used(&ring, &id, &len));
	assert_int_equal(len, 5);
	mem.n = 0;
	assert_true(vq_remap(&ring.vq) < 0);
	assert_false(vq_started(&ring.vq));
	mem.n = 1;
	mem.host[0] = host;
	free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(need_event),
		cmocka_unit_test(interrupts_by_flag),
		cmocka_unit_test(interrupts_by_index),
		cmocka_unit_test(interrupt_after_restart),
		cmocka_unit_test(kicks),
		cmocka_unit_test(kicks_on_a_full_ring),
		cmocka_unit_test(remap),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
