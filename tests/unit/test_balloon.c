// SPDX-License-Identifier: MIT
/* Features, configuration space, target, and the life of queues and memory. */
#include "helpers.h"

#include <errno.h>

#define V1      BIT(VIRTIO_F_VERSION_1)
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define OOM     BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define PUSH    BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define POISON  BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define RINGS   (BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC))
#define MESSAGE BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define CONFIG  20U

static struct test_balloon t;

static void with_memory(uint64_t pages)
{
	test_balloon_init(&t, STATS | OOM | POISON | MESSAGE);
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

/* STATS_PUSH means something with STATS_VQ only: neither is it offered alone nor taken. */
static void push_needs_stats(void **state)
{
	(void)state;
	test_balloon_init(&t, PUSH | OOM);
	assert_true(t.b.st.offered == (MTH | OOM | V1 | RINGS));
	test_balloon_end(&t);
	test_balloon_init(&t, PUSH | STATS);
	assert_true(t.b.st.offered == (MTH | PUSH | STATS | V1 | RINGS));
	assert_int_equal(balloon_set_features(&t.b, PUSH), 0);
	assert_true(t.b.st.negotiated == 0);
	assert_int_equal(balloon_set_features(&t.b, PUSH | STATS), 0);
	assert_true(t.b.st.negotiated == (PUSH | STATS));
	test_balloon_end(&t);
}

/* All five fields, from every offset, over the end and beyond it. */
static void config_reads(void **state)
{
	static const uint8_t all[CONFIG] = {0x10, 0x32, 0x54, 0x76, 0x01, 0x02, 0x03,
					    0x04, 0x07, 0x00, 0x00, 0x80, 0xaa, 0xbb,
					    0xcc, 0xdd, 0x0b, 0x0a, 0x00, 0x00};

	(void)state;
	with_memory(16);
	assert_int_equal(sizeof(struct virtio_balloon_config), CONFIG);
	t.b.st.negotiated = POISON;
	t.b.st.num_pages = 0x76543210;
	t.b.st.actual = 0x04030201;
	t.b.st.hint = (struct balloon_hint){.state = BALLOON_HINT_HINTING, .id = 0x80000007};
	t.b.st.poison_val = 0xddccbbaa;
	t.b.st.push_interval_ms = 0x0a0b;
	for (uint32_t offset = 0; offset < CONFIG + 4; offset++) {
		for (uint32_t len = 0; len < 256; len++) {
			uint8_t got[257];

			memset(got, 0xee, sizeof(got));
			balloon_config_read(&t.b, offset, got, len);
			for (uint32_t i = 0; i < len; i++)
				assert_int_equal(got[i], offset + i < CONFIG ? all[offset + i] : 0);
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

static uint32_t field(uint32_t offset)
{
	uint8_t raw[4];

	balloon_config_read(&t.b, offset, raw, sizeof(raw));
	return le32_get(raw);
}

/* What a driver of VERSION_1 or a legacy one wants `actual` to be, having written that much. */
static void check_actual(uint32_t offset, uint32_t len, const uint8_t *data, uint64_t version_1)
{
	uint8_t expected[4] = {1, 2, 3, 4};
	bool changed = false;

	for (uint32_t i = 0; i < len; i++) {
		if (offset + i >= 4 && offset + i < 8) {
			expected[offset + i - 4] = data[i];
			changed = true;
		}
	}
	/* A legacy one writes byte by byte: until the last one comes there is no number. */
	if (!version_1 && offset + len < 8)
		changed = false;
	assert_int_equal(t.b.st.actual, changed ? le32_get(expected) : 0x04030201);
	assert_int_equal(t.events[BALLOON_EVENT_ACTUAL], changed);
}

static void put_known_config(void)
{
	t.b.st.num_pages = 0x1230;
	t.b.st.actual = t.b.st.actual_written = 0x04030201;
	t.b.st.poison_val = 0;
	t.b.st.push_interval_ms = 77;
	t.events[BALLOON_EVENT_ACTUAL] = 0;
}

/* Any part of the space, written at any offset: what covers the driver's two fields is taken. */
static void config_writes(void **state)
{
	static const uint8_t data[CONFIG + 4] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
						 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
						 0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7};

	(void)state;
	for (uint64_t v1 = 0; v1 < 2; v1++) {
		with_memory(1ULL << 20);
		assert_int_equal(balloon_set_features(&t.b, POISON | (v1 ? V1 : 0)), 0);
		for (uint32_t offset = 0; offset < sizeof(data); offset++) {
			for (uint32_t len = 0; offset + len <= sizeof(data); len++) {
				uint8_t poison[4] = {0};

				put_known_config();
				balloon_config_write(&t.b, offset, data, len);
				check_actual(offset, len, data, v1);
				for (uint32_t i = 0; i < len; i++) {
					if (offset + i >= 12 && offset + i < 16)
						poison[offset + i - 12] = data[i];
				}
				assert_int_equal(field(12), le32_get(poison));
				/* The others are the device's. */
				assert_int_equal(field(0), 0x1230);
				assert_int_equal(field(8), 0);
				assert_int_equal(field(16), 77);
				/* once more: no change, no event */
				balloon_config_write(&t.b, offset, data, len);
				check_actual(offset, len, data, v1);
			}
		}
		balloon_config_write(&t.b, UINT32_MAX, data, 4);
		balloon_config_write(&t.b, UINT32_MAX - 1, data, 8);
		assert_int_equal(t.config_changes, 0);
		test_balloon_end(&t);
	}
}

/* A legacy driver's four writes of a byte each are one change. */
static void legacy_writes_bytes(void **state)
{
	static const uint8_t value[4] = {0x10, 0x20, 0x00, 0x01};

	(void)state;
	with_memory(64);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(t.b.st.actual, 0);
		balloon_config_write(&t.b, 4 + i, value + i, 1);
	}
	assert_int_equal(t.b.st.actual, 0x01002010);
	assert_int_equal(t.events[BALLOON_EVENT_ACTUAL], 1);
	test_balloon_end(&t);
}

/*
 * The driver writes poison_val while it is being probed. A front end may tell of its features only
 * when it is ready, and that the last driver is gone only after that.
 */
static void poison_before_features(void **state)
{
	static const uint8_t aa[4] = {0xaa, 0xaa, 0xaa, 0xaa}, zero[4];

	(void)state;
	with_memory(64);
	balloon_config_write(&t.b, 12, aa, 4);
	assert_int_equal(balloon_poison(&t.b), 0);
	test_balloon_start(&t, V1 | MTH | POISON);
	assert_int_equal(balloon_poison(&t.b), 0xaaaaaaaa);
	assert_int_equal(field(12), 0xaaaaaaaa);
	test_send_run(&t, INFLATE, 0, 4);
	assert_int_equal(t.n_ranges, 0);

	/* The next one has no poison; the one after that writes its own before the reset shows. */
	balloon_reset(&t.b);
	assert_int_equal(balloon_set_features(&t.b, V1 | MTH), 0);
	assert_int_equal(balloon_poison(&t.b), 0);
	assert_int_equal(field(12), 0);
	test_send_run(&t, INFLATE, 0, 4);
	assert_int_equal(t.n_ranges, 1);
	balloon_config_write(&t.b, 12, zero, 4);
	balloon_config_write(&t.b, 13, aa, 1);
	assert_int_equal(balloon_set_features(&t.b, V1 | MTH | POISON), 0);
	balloon_reset(&t.b);
	assert_int_equal(balloon_poison(&t.b), 0xaa00);
	test_balloon_end(&t);
}

/* A device that does not offer it has no such field. */
static void poison_not_offered(void **state)
{
	static const uint8_t aa[4] = {0xaa, 0xaa, 0xaa, 0xaa};

	(void)state;
	test_balloon_init(&t, 0);
	balloon_config_write(&t.b, 12, aa, 4);
	assert_int_equal(t.b.st.poison_val, 0);
	assert_int_equal(field(12), 0);
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
	assert_int_equal(balloon_set_features(&t.b, V1), 0);
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

/* threats.md, rings, line 7: kicks before a queue runs */
static void kicks_out_of_place(void **state)
{
	(void)state;
	with_memory(64);
	for (uint32_t i = 0; i < TEST_RINGS; i++) {
		balloon_queue_kicked(&t.b, i);
		assert_false(balloon_queue_run(&t.b, i, test_at(0)));
	}
	assert_false(balloon_driver_active(&t.b));
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	test_balloon_start(&t, V1);
	assert_true(balloon_driver_active(&t.b));
	test_balloon_pause(&t, DEFLATE);
	assert_false(balloon_driver_active(&t.b));
	balloon_queue_kicked(&t.b, DEFLATE);
	assert_false(balloon_queue_run(&t.b, DEFLATE, test_at(0)));
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
	for (uint32_t queue = 0; queue < 4; queue++) {
		for (uint32_t writable_only = 0; writable_only < 2; writable_only++) {
			with_memory(64);
			test_balloon_start(&t, V1 | STATS | MESSAGE);
			test_offer(&t.ring[queue], d + writable_only, 2 - writable_only);
			assert_false(balloon_queue_run(&t.b, queue, test_at(0)));
			assert_int_equal(t.broken[queue], 1);
			assert_int_equal(t.ring[queue].vq.st.error, VQ_ERR_DIRECTION);
			assert_int_equal(balloon_held_bytes(&t.b), 0);
			test_balloon_end(&t);
		}
	}
}

/* Whatever is due at once, ticks come to an end at which nothing is due any more. */
static void ticks_end(void **state)
{
	uint32_t ticks = 0;

	(void)state;
	with_memory(1ULL << 16);
	test_balloon_start(&t, V1 | MTH | STATS | MESSAGE);
	t.b.policy.messages_per_second = 10;
	balloon_set_inhibited(&t.b, true);
	test_send_run(&t, INFLATE, 0, 1024);
	balloon_set_inhibited(&t.b, false);
	balloon_set_poll_interval(&t.b, 1, test_at(0));
	for (int i = 0; i < 3; i++)
		test_offer_one(&t.ring[3], TEST_BUFFER, 4);
	assert_false(balloon_queue_run(&t.b, 3, test_at(0)));
	test_balloon_queue(&t, 4, 0, false);
	balloon_queue_kicked(&t.b, 4);
	assert_false(balloon_queue_run(&t.b, 4, test_at(0)));
	assert_int_equal(balloon_next_tick(&t.b), 0);
	for (; balloon_next_tick(&t.b) <= 1000; ticks++) {
		/* What it asks for may not be done: that must not matter. */
		(void)balloon_tick(&t.b, test_at(1000));
		assert_true(ticks < 10);
	}
	assert_int_equal(balloon_next_tick(&t.b), 1001);
	balloon_set_poll_interval(&t.b, 0, test_at(1000));
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	test_balloon_end(&t);
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
		cmocka_unit_test(push_needs_stats),
		cmocka_unit_test(config_reads),
		cmocka_unit_test(config_writes),
		cmocka_unit_test(legacy_writes_bytes),
		cmocka_unit_test(poison_before_features),
		cmocka_unit_test(poison_not_offered),
		cmocka_unit_test(actual_that_lies),
		cmocka_unit_test(target),
		cmocka_unit_test(reset),
		cmocka_unit_test(kicks_out_of_place),
		cmocka_unit_test(broken_queue),
		cmocka_unit_test(wrong_direction),
		cmocka_unit_test(ticks_end),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
