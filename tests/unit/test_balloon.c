// SPDX-License-Identifier: MIT
/* Features, configuration space, target, and the life of queues and memory. */
#include "helpers.h"

#include <errno.h>

#define V1      BIT(VIRTIO_F_VERSION_1)
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define OOM     BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define RINGS   (BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC))
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE

static struct test_balloon t;

static void with_memory(uint64_t pages)
{
	test_balloon_init(&t, STATS | OOM);
	test_add_region(&t.mem, 0, pages * PAGE, PAGE, t.queues);
}

static void features(void **state)
{
	(void)state;
	test_balloon_init(&t, 0);
	assert_true(t.b.st.offered == (MTH | V1 | RINGS));
	test_balloon_end(&t);
	test_balloon_init(&t, STATS | OOM);
	assert_true(t.b.st.offered == (MTH | STATS | OOM | V1 | RINGS));
	for (uint32_t bit = 0; bit < 64; bit++) {
		uint64_t offered = t.b.st.offered & BIT(bit);

		assert_int_equal(balloon_set_features(&t.b, MTH), 0);
		assert_int_equal(balloon_set_features(&t.b, V1 | BIT(bit)), offered ? 0 : -EINVAL);
		assert_true(t.b.st.negotiated == (offered ? V1 | BIT(bit) : MTH));
	}
	assert_int_equal(balloon_set_features(&t.b, 0), 0);
	assert_int_equal(balloon_set_features(&t.b, t.b.st.offered), 0);
	test_balloon_end(&t);
}

static void config_reads(void **state)
{
	static const uint8_t all[8] = {0x10, 0x32, 0x54, 0x76, 0x01, 0x02, 0x03, 0x04};

	(void)state;
	with_memory(16);
	t.b.st.num_pages = 0x76543210;
	t.b.st.actual = 0x04030201;
	for (uint32_t offset = 0; offset < 12; offset++) {
		for (uint32_t len = 0; len < 12; len++) {
			uint8_t got[13];

			memset(got, 0xee, sizeof(got));
			balloon_config_read(&t.b, offset, got, len);
			for (uint32_t i = 0; i < len; i++)
				assert_int_equal(got[i], offset + i < 8 ? all[offset + i] : 0);
			assert_int_equal(got[len], 0xee);
		}
	}
	{
		uint8_t got[4] = {1, 1, 1, 1};

		balloon_config_read(&t.b, UINT32_MAX, got, 4);
		assert_int_equal(le32_get(got), 0);
	}
	test_balloon_end(&t);
}

/* Any part of the space, written at any offset: only what covers `actual` is taken. */
static void config_writes(void **state)
{
	static const uint8_t data[12] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5,
					 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab};

	(void)state;
	with_memory(1ULL << 20);
	for (uint32_t offset = 0; offset < 12; offset++) {
		for (uint32_t len = 0; offset + len <= 12; len++) {
			uint8_t expected[4] = {1, 2, 3, 4};
			bool changed = false;

			t.b.st.num_pages = 0x1230;
			t.b.st.actual = 0x04030201;
			t.events[BALLOON_EVENT_ACTUAL] = 0;
			for (uint32_t i = 0; i < len; i++) {
				if (offset + i >= 4 && offset + i < 8) {
					expected[offset + i - 4] = data[i];
					changed = true;
				}
			}
			balloon_config_write(&t.b, offset, data, len);
			assert_int_equal(t.b.st.actual, le32_get(expected));
			assert_int_equal(t.b.st.num_pages, 0x1230);
			assert_int_equal(t.events[BALLOON_EVENT_ACTUAL], changed);
			/* once more: no change, no event */
			balloon_config_write(&t.b, offset, data, len);
			assert_int_equal(t.events[BALLOON_EVENT_ACTUAL], changed);
		}
	}
	balloon_config_write(&t.b, UINT32_MAX, data, 4);
	balloon_config_write(&t.b, UINT32_MAX - 1, data, 8);
	assert_int_equal(t.config_changes, 0);
	test_balloon_end(&t);
}

/* threats.md, balloon, line 12 */
static void actual_that_lies(void **state)
{
	static const struct {
		uint32_t actual;
		uint64_t errors;
	} cases[] = {{UINT32_MAX, 1},
		     {0, 1},
		     {1024 + TEST_ROOM / PAGE, 1},
		     {1025 + TEST_ROOM / PAGE, 2},
		     {0x80000000, 3}};
	uint8_t raw[4];

	(void)state;
	with_memory(1024);
	test_balloon_memory(&t);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		le32_put(raw, cases[i].actual);
		balloon_config_write(&t.b, 4, raw, 4);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_ACTUAL], cases[i].errors);
		assert_true(balloon_actual_bytes(&t.b, UINT64_MAX) ==
			    (uint64_t)cases[i].actual * PAGE);
		assert_true(balloon_actual_bytes(&t.b, 5 * PAGE) <= 5 * PAGE);
	}
	test_balloon_end(&t);
}

static void target(void **state)
{
	static const struct {
		uint64_t wanted;
		uint32_t num_pages;
		uint32_t changes; /* so far */
	} known[] = {
		{0, 0, 0},   {15, 0, 0},     {16, 16, 1},           {31, 16, 1},
		{32, 32, 2}, {1000, 992, 3}, {UINT64_MAX, 1040, 4}, {1043, 1040, 4},
		{0, 0, 5},
	};

	(void)state;
	/* Before the memory is known any wish is kept, as far as the field goes. */
	with_memory(1043 - TEST_ROOM / PAGE);
	balloon_set_target(&t.b, UINT64_MAX);
	assert_int_equal(t.b.st.num_pages, 0xfffffff0);
	balloon_set_target(&t.b, 0x12345);
	assert_int_equal(t.b.st.num_pages, 0x12340);
	balloon_set_target(&t.b, 0);
	t.config_changes = 0;
	test_balloon_memory(&t);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		balloon_set_target(&t.b, known[i].wanted);
		assert_int_equal(t.b.st.num_pages, known[i].num_pages);
		assert_int_equal(t.config_changes, known[i].changes);
	}
	test_balloon_end(&t);
}

/* A reset empties the balloon, and no count of errors or served buffers is lost by it. */
static void reset(void **state)
{
	uint8_t raw[4] = {7};

	(void)state;
	with_memory(64);
	test_balloon_start(&t, V1 | MTH | STATS);
	test_send_run(&t, INFLATE, 60, 8);
	balloon_config_write(&t.b, 4, raw, 4);
	assert_int_equal(balloon_held_bytes(&t.b), 4 * PAGE);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_PFN], 4);
	balloon_set_target(&t.b, 32);
	t.events[BALLOON_EVENT_ACTUAL] = 0;
	balloon_reset(&t.b);
	assert_int_equal(balloon_held_bytes(&t.b), 0);
	assert_int_equal(t.b.st.actual, 0);
	assert_int_equal(t.b.st.num_pages, 32);
	assert_int_equal(t.b.st.buffers[INFLATE], 1);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_PFN], 4);
	assert_int_equal(t.events[BALLOON_EVENT_ACTUAL], 1);
	balloon_reset(&t.b);
	assert_int_equal(t.events[BALLOON_EVENT_ACTUAL], 1);
	/* What was held is not held any more. */
	test_send_run(&t, DEFLATE, 60, 4);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_NOT_HELD], 4);
	test_balloon_end(&t);
}

/* threats.md, rings, line 7: kicks before a queue runs, for one that no feature calls for, ... */
static void kicks_out_of_place(void **state)
{
	(void)state;
	with_memory(64);
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		assert_false(balloon_queue_run(&t.b, i, test_at(0)));
	assert_false(balloon_driver_active(&t.b));
	test_balloon_start(&t, V1); /* no statistics */
	assert_true(balloon_driver_active(&t.b));
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 0);
	test_offer_one(&t.ring[2], TEST_QUEUES_GPA + TEST_BUFFERS, 10);
	assert_false(balloon_queue_run(&t.b, 2, test_at(0)));
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 1);
	assert_int_equal(t.b.st.buffers[2], 0);
	balloon_queue_stopped(&t.b, DEFLATE);
	vq_stop(&t.ring[DEFLATE].vq);
	assert_false(balloon_driver_active(&t.b));
	test_balloon_end(&t);
}

/* One queue breaks, is reported once, and is served no more; the other goes on. */
static void broken_queue(void **state)
{
	(void)state;
	with_memory(64);
	test_balloon_start(&t, V1);
	test_offer_one(&t.ring[INFLATE], 0xdead0000000, 4);
	for (int i = 0; i < 3; i++)
		assert_false(balloon_queue_run(&t.b, INFLATE, test_at(0)));
	assert_int_equal(t.broken[INFLATE], 1);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_BROKEN], 1);
	assert_int_equal(t.ring[INFLATE].vq.st.error, VQ_ERR_ADDRESS);
	assert_int_equal(t.b.st.buffers[INFLATE], 0);
	test_send_run(&t, DEFLATE, 0, 1);
	assert_int_equal(t.b.st.buffers[DEFLATE], 1);
	/* Started anew, it works. */
	balloon_queue_stopped(&t.b, INFLATE);
	vq_stop(&t.ring[INFLATE].vq);
	test_balloon_queue(&t, INFLATE, 0, false);
	test_send_run(&t, INFLATE, 0, 1);
	assert_int_equal(balloon_held_bytes(&t.b), PAGE);
	test_balloon_end(&t);
}

/* What each kind of buffer must not be. */
static void wrong_direction(void **state)
{
	static const struct test_desc d[] = {
		{TEST_QUEUES_GPA + TEST_BUFFERS, 10, 0, 0},
		{TEST_QUEUES_GPA + TEST_BUFFERS, 10, VRING_DESC_F_WRITE, 0},
	};

	(void)state;
	for (uint32_t queue = 0; queue < 3; queue++) {
		for (uint32_t writable_only = 0; writable_only < 2; writable_only++) {
			with_memory(64);
			test_balloon_start(&t, V1 | STATS);
			test_offer(&t.ring[queue], d + writable_only, 2 - writable_only);
			assert_false(balloon_queue_run(&t.b, queue, test_at(0)));
			assert_int_equal(t.broken[queue], 1);
			assert_int_equal(t.ring[queue].vq.st.error, VQ_ERR_DIRECTION);
			assert_int_equal(balloon_held_bytes(&t.b), 0);
			test_balloon_end(&t);
		}
	}
}

static void names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < BALLOON_ERR_COUNT; i++) {
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(balloon_error_name((enum balloon_error)i),
						balloon_error_name((enum balloon_error)j));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features),
		cmocka_unit_test(config_reads),
		cmocka_unit_test(config_writes),
		cmocka_unit_test(actual_that_lies),
		cmocka_unit_test(target),
		cmocka_unit_test(reset),
		cmocka_unit_test(kicks_out_of_place),
		cmocka_unit_test(broken_queue),
		cmocka_unit_test(wrong_direction),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
