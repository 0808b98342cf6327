// SPDX-License-Identifier: MIT
/* When a ring runs, and when the front end is taken to have a driver that started afresh. */
#include "vu_helpers.h"

#define FRESH_PACKED 0x80008000U

static struct test_front f;

static uint32_t fresh(uint64_t features)
{
	return features & F_PACKED ? FRESH_PACKED : 0;
}

/* A session with memory in which rings 0 to n - 1 run. */
static void begin(uint64_t features, uint32_t n)
{
	front_negotiate(&f, features);
	front_memory(&f);
	for (uint32_t i = 0; i < n; i++)
		front_ring_prepare(&f, i, fresh(features));
	for (uint32_t i = 0; i < n; i++) {
		front_enable(&f, i, true);
		assert_true(front_runs(&f, i));
		assert_false(f.resumed[i]);
	}
	f.resets = 0; /* there may have been one for the features */
}

static void apply(uint32_t step)
{
	switch (step) {
	case 0:
		assert_int_equal(front_send_state(&f, VU_SET_VRING_NUM, 0, 8), 0);
		assert_int_equal(front_ring_addr(&f, 0), 0);
		break;
	case 1:
		assert_int_equal(front_kick(&f, 0), 0);
		break;
	default:
		front_enable(&f, 0, true);
	}
}

/* Addresses, kick, enable: in any order, and not before the last of them. */
static void all_three(void **state)
{
	(void)state;
	for (uint32_t a = 0; a < 3; a++) {
		for (uint32_t b = 0; b < 3; b++) {
			if (a == b)
				continue;
			begin(F_PROTOCOL, 0);
			apply(a);
			assert_false(front_runs(&f, 0));
			apply(b);
			assert_false(front_runs(&f, 0));
			apply(3 - a - b);
			assert_true(front_runs(&f, 0));
			front_end(&f);
		}
	}
}

static void without_protocol_features(void **state)
{
	(void)state;
	begin(F_V1, 0);
	front_ring_prepare(&f, 0, 0);
	assert_true(front_runs(&f, 0));
	assert_int_equal(front_send_state(&f, VU_SET_VRING_ENABLE, 0, 1), -EPROTO);
	front_end(&f);
	/* The bit may come late. */
	front_negotiate(&f, F_PROTOCOL);
	front_memory(&f);
	front_ring_prepare(&f, 0, 0);
	assert_false(front_runs(&f, 0));
	assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_V1, -1), 0);
	assert_true(front_runs(&f, 0));
	front_end(&f);
}

static void polled_ring(void **state)
{
	(void)state;
	begin(F_PROTOCOL, 1);
	assert_int_equal(front_send_u64(&f, VU_SET_VRING_KICK, VU_VRING_NO_FD | 0, -1), 0);
	assert_true(front_runs(&f, 0));
	assert_int_equal(f.started[0], 2);
	assert_int_equal(f.s.ring[0].kick_fd, -1);
	front_end(&f);
}

static void disable_and_enable(void **state)
{
	(void)state;
	begin(F_PROTOCOL, 2);
	front_serve(&f, 0, 3);
	for (uint32_t i = 0; i < 2; i++) {
		front_enable(&f, i, false);
		assert_false(front_runs(&f, i));
		front_enable(&f, i, true);
		assert_true(front_runs(&f, i));
		assert_int_equal(vq_base(&f.s.ring[i].vq), i ? 0 : 3);
	}
	assert_true(f.resumed[0]);
	assert_int_equal(f.resets, 0);
	assert_int_equal(front_send_state(&f, VU_SET_VRING_ENABLE, 0, 2), -EPROTO);
	front_end(&f);
}

/* The guest is paused and goes on: nothing is forgotten. Also where a ring never moved. */
static void pause_and_resume(void **state)
{
	static const uint64_t features[] = {F_PROTOCOL, F_PROTOCOL | F_PACKED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		begin(features[i], 3);
		front_serve(&f, 0, 5);
		front_serve(&f, 2, 1);
		/* As the statistics queue does: the first buffer is kept, none came back yet. */
		front_hold(&f, 1);
		for (int round = 0; round < 3; round++) {
			uint32_t base[3];

			for (uint32_t q = 0; q < 3; q++) {
				front_enable(&f, q, false);
				base[q] = front_get_base(&f, q);
			}
			assert_int_equal(base[1], fresh(features[i]));
			for (uint32_t q = 0; q < 3; q++)
				front_ring_prepare(&f, q, base[q]);
			for (uint32_t q = 0; q < 3; q++)
				front_enable(&f, q, true);
			for (uint32_t q = 0; q < 3; q++) {
				assert_true(front_runs(&f, q));
				assert_true(f.resumed[q]);
			}
			front_serve(&f, 0, 1);
			assert_int_equal(f.resets, 0);
		}
		front_end(&f);
	}
}

/* Its driver starts afresh: one reset, and all rings come up again. */
static void driver_starts_afresh(void **state)
{
	static const uint64_t features[] = {F_PROTOCOL, F_PROTOCOL | F_PACKED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		begin(features[i], 3);
		front_serve(&f, 0, 5);
		front_serve(&f, 2, 1);
		for (uint32_t q = 0; q < 3; q++) {
			front_enable(&f, q, false);
			(void)front_get_base(&f, q);
		}
		for (uint32_t q = 0; q < 3; q++)
			front_ring_prepare(&f, q, fresh(features[i]));
		for (uint32_t q = 0; q < 3; q++)
			front_enable(&f, q, true);
		for (uint32_t q = 0; q < 3; q++) {
			assert_true(front_runs(&f, q));
			assert_false(f.resumed[q]);
		}
		assert_int_equal(f.resets, 1);
		front_end(&f);
	}
}

/* The same where each ring is enabled before the next one is set up. */
static void driver_starts_afresh_ring_by_ring(void **state)
{
	(void)state;
	begin(F_PROTOCOL, 3);
	front_serve(&f, 2, 1); /* statistics; nothing was ever inflated */
	for (uint32_t q = 0; q < 3; q++) {
		front_enable(&f, q, false);
		(void)front_get_base(&f, q);
	}
	for (uint32_t q = 0; q < 3; q++) {
		front_ring_prepare(&f, q, 0);
		front_enable(&f, q, true);
	}
	assert_int_equal(f.resets, 1);
	for (uint32_t q = 0; q < 3; q++)
		assert_true(front_runs(&f, q));
	front_end(&f);
}

/*
 * A ring that came all the way round stands where a fresh one does. Whether it was paused there or
 * its driver starts afresh is told by its memory, which only the latter lays out anew.
 */
static void all_the_way_round(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t buffers;
		bool afresh;
	} cases[] = {{F_PROTOCOL, 65536, false},
		     {F_PROTOCOL, 65536, true},
		     {F_PROTOCOL | F_PACKED, 16, false},
		     {F_PROTOCOL | F_PACKED, 16, true}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(cases[i].features, 2);
		front_serve(&f, 0, cases[i].buffers);
		for (uint32_t q = 0; q < 2; q++) {
			front_enable(&f, q, false);
			assert_int_equal(front_get_base(&f, q), fresh(cases[i].features));
		}
		if (cases[i].afresh)
			memset(f.map, 0, 2 * FRONT_RING);
		for (uint32_t q = 0; q < 2; q++) {
			front_ring_prepare(&f, q, fresh(cases[i].features));
			front_enable(&f, q, true);
			assert_true(front_runs(&f, q));
			assert_int_equal(f.resumed[q], !cases[i].afresh);
		}
		assert_int_equal(f.resets, cases[i].afresh);
		front_end(&f);
	}
}

/* User-mode-linux: the module is loaded again, and nobody stopped the rings. */
static void running_ring_set_up_anew(void **state)
{
	static const uint32_t requests[] = {VU_SET_VRING_NUM, VU_SET_VRING_BASE, VU_SET_VRING_ADDR};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct vu_vring_addr addr = front_addr(0);

		begin(F_PROTOCOL, 2);
		front_serve(&f, 0, 3);
		addr.used += PAGE;
		if (requests[i] == VU_SET_VRING_ADDR)
			assert_int_equal(front_send(&f, requests[i], &addr, sizeof(addr), -1), 0);
		else
			assert_int_equal(front_send_state(&f, requests[i], 0, 4), 0);
		assert_int_equal(f.resets, 1);
		assert_false(front_runs(&f, 0));
		assert_false(front_runs(&f, 1));
		for (uint32_t q = 0; q < 2; q++)
			front_ring_prepare(&f, q, 0);
		for (uint32_t q = 0; q < 2; q++)
			front_enable(&f, q, true);
		assert_true(front_runs(&f, 0) && front_runs(&f, 1));
		assert_false(f.resumed[0]);
		assert_int_equal(vq_base(&f.s.ring[0].vq), 0);
		assert_int_equal(f.resets, 1);
		front_end(&f);
	}
	/* The same addresses once more, which some front ends send for the log flag, are nothing.
	 */
	begin(F_PROTOCOL, 1);
	assert_int_equal(front_ring_addr(&f, 0), 0);
	assert_int_equal(f.resets, 0);
	assert_int_equal(f.started[0], 1);
	front_end(&f);
}

/* For a packed ring 0 is what user-mode-linux calls a fresh one. */
static void packed_base_zero(void **state)
{
	(void)state;
	begin(F_PROTOCOL | F_PACKED, 0);
	front_ring_prepare(&f, 0, 0);
	assert_int_equal(vq_base(&f.s.ring[0].vq), FRESH_PACKED);
	front_enable(&f, 0, true);
	/* Once round: positions 0, counters 0. Told so, a front end means it. */
	front_serve(&f, 0, 8);
	front_enable(&f, 0, false);
	assert_int_equal(front_get_base(&f, 0), 0);
	front_ring_prepare(&f, 0, 0);
	front_enable(&f, 0, true);
	assert_int_equal(vq_base(&f.s.ring[0].vq), 0);
	assert_true(f.resumed[0]);
	assert_int_equal(f.resets, 0);
	/* One that was told another place and says 0 has a fresh driver. */
	front_serve(&f, 0, 3);
	front_enable(&f, 0, false);
	assert_int_equal(front_get_base(&f, 0), 0x00030003);
	front_ring_prepare(&f, 0, 0);
	assert_int_equal(f.resets, 1);
	assert_int_equal(vq_base(&f.s.ring[0].vq), FRESH_PACKED);
	front_end(&f);
}

/* A driver that changes its mind about rings has started afresh; about other bits it may. */
static void features_again(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t resets;
	} cases[] = {{F_PROTOCOL, 0},
		     {F_PROTOCOL | F_V1, 0},
		     {F_PROTOCOL | F_EVENT, 1},
		     {F_PROTOCOL | F_PACKED, 1},
		     {0, 0}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(F_PROTOCOL, 2);
		front_serve(&f, 0, 1);
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, cases[i].features, -1), 0);
		assert_int_equal(f.resets, cases[i].resets);
		assert_int_equal(front_runs(&f, 0), !cases[i].resets);
		assert_int_equal(f.s.ring[0].vq.st.packed,
				 cases[i].features >> VIRTIO_F_RING_PACKED);
		front_end(&f);
	}
}

/*
 * A front end that cannot say that rings are disabled asks for the features when its driver goes:
 * from then on their memory is none of the device's business.
 */
static void driver_goes_without_a_word(void **state)
{
	struct vu_header header;
	union vu_payload payload;

	(void)state;
	begin(F_V1 | F_PACKED, 0);
	front_ring_prepare(&f, 0, 0);
	front_ring_prepare(&f, 1, 0);
	assert_true(front_runs(&f, 1));
	f.resets = 0;
	front_serve(&f, 0, 3);
	assert_int_equal(front_send(&f, VU_GET_FEATURES, NULL, 0, -1), 0);
	assert_true(front_reply(&f, &header, &payload));
	assert_false(front_runs(&f, 0));
	assert_false(front_runs(&f, 1));
	front_ring_prepare(&f, 0, 0);
	assert_true(front_runs(&f, 0));
	assert_false(f.resumed[0]);
	assert_int_equal(f.resets, 1);
	front_end(&f);
	/* Others do say it. */
	begin(F_PROTOCOL, 2);
	assert_int_equal(front_send(&f, VU_GET_FEATURES, NULL, 0, -1), 0);
	assert_true(front_reply(&f, &header, &payload));
	assert_true(front_runs(&f, 0));
	front_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_three),
		cmocka_unit_test(without_protocol_features),
		cmocka_unit_test(polled_ring),
		cmocka_unit_test(disable_and_enable),
		cmocka_unit_test(pause_and_resume),
		cmocka_unit_test(driver_starts_afresh),
		cmocka_unit_test(driver_starts_afresh_ring_by_ring),
		cmocka_unit_test(all_the_way_round),
		cmocka_unit_test(running_ring_set_up_anew),
		cmocka_unit_test(packed_base_zero),
		cmocka_unit_test(features_again),
		cmocka_unit_test(driver_goes_without_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
