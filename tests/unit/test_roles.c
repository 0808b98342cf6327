// SPDX-License-Identifier: MIT
/*
 * Which ring is which queue (wire.md, "Queues"): every set of features and of rings, against the
 * rule written down a second time; and what happens when a driver's rings change hands.
 */
#include "helpers.h"

#include <errno.h>

#define V1        BIT(VIRTIO_F_VERSION_1)
#define STATS     BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH      BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define HINT      BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define REPORTING BIT(VIRTIO_BALLOON_F_PAGE_REPORTING)
#define MESSAGE   BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define ALL       (STATS | PUSH | HINT | REPORTING | MESSAGE)
#define QUEUES    VIRTIO_BALLOON_VQ_COUNT
#define TIME_MS   200 /* that a kicked ring has until its queue must be known */

static struct test_balloon t;

/* Of optional queue 2 + n. */
static const uint64_t feature[] = {STATS, HINT, REPORTING, MESSAGE};

static uint64_t features_of(uint32_t subset)
{
	uint64_t features = 0;

	for (uint32_t i = 0; i < ARRAY_SIZE(feature); i++)
		features |= subset >> i & 1 ? feature[i] : 0;
	return features;
}

/* Where a driver that counts the queues of these subsets has them; -1: nowhere. */
static void expected_rings(uint32_t counted, uint32_t accepted, int *ring_of)
{
	int next = 2;

	ring_of[0] = 0;
	ring_of[1] = 1;
	for (uint32_t i = 0; i < ARRAY_SIZE(feature); i++) {
		ring_of[2 + i] = accepted >> i & 1 ? next : -1;
		next += (int)(counted >> i & 1);
	}
}

static uint32_t set_of(const int *ring_of)
{
	uint32_t set = 0;

	for (int i = 0; i < QUEUES; i++)
		set |= ring_of[i] >= 0 ? 1U << ring_of[i] : 0U;
	return set;
}

static void begin(uint64_t offered, uint64_t features)
{
	test_balloon_init(&t, offered);
	test_add_region(&t.mem, 0, 1024 * PAGE, PAGE, t.queues);
	t.features = features;
	test_balloon_memory(&t);
	assert_int_equal(balloon_set_features(&t.b, features), 0);
}

static uint32_t start(uint32_t ring, bool resumed)
{
	uint32_t at = ring * TEST_QUEUE_ROOM;

	assert_int_equal(test_ring_start(&t.ring[ring], &t.mem, TEST_QUEUES_GPA + at, t.queues + at,
					 16, t.features, 0),
			 0);
	return balloon_queue_started(&t.b, ring, resumed);
}

static void stop(uint32_t ring)
{
	balloon_queue_stopped(&t.b, ring);
	vq_stop(&t.ring[ring].vq);
}

/* Starts a set of rings, in rising or falling order; returns which want to be run. */
static uint32_t start_set(uint32_t set, bool falling)
{
	uint32_t want = 0;

	for (uint32_t i = 0; i < QUEUES; i++) {
		uint32_t ring = falling ? QUEUES - 1 - i : i;

		if (set >> ring & 1) {
			uint32_t more = start(ring, false);

			assert_true(more >> ring & 1);
			want |= more;
		}
	}
	return want;
}

static void check_roles(const int *ring_of)
{
	for (int queue = 0; queue < QUEUES; queue++) {
		assert_int_equal(t.b.st.ring_of[queue], ring_of[queue]);
		if (ring_of[queue] >= 0)
			assert_int_equal(balloon_queue_of(&t.b, (uint32_t)ring_of[queue]), queue);
		assert_ptr_equal(balloon_vq(&t.b, (enum virtio_balloon_queue)queue),
				 ring_of[queue] < 0 ? NULL : &t.ring[ring_of[queue]].vq);
	}
	for (uint32_t ring = 0; ring < QUEUES; ring++) {
		if (!(set_of(ring_of) >> ring & 1))
			assert_int_equal(balloon_queue_of(&t.b, ring), -1);
	}
}

/*
 * Every set of rings, under every choice of features: it is taken if, and only if, one of the three
 * numberings makes it; and those that do agree.
 */
static void check_every_set(uint32_t offered, uint32_t accepted)
{
	const uint32_t counted[] = {0xf, accepted, offered};

	for (uint32_t set = 3; set < 64; set += 4) { /* inflate and deflate are always there */
		int expected[QUEUES] = {0, 1, -1, -1, -1, -1}, ring_of[QUEUES];
		bool fits = false;

		for (size_t i = 0; i < ARRAY_SIZE(counted); i++) {
			expected_rings(counted[i], accepted, ring_of);
			if (set_of(ring_of) != set)
				continue;
			if (fits)
				assert_memory_equal(ring_of, expected, sizeof(expected));
			memcpy(expected, ring_of, sizeof(expected));
			fits = true;
		}
		for (int falling = 0; falling < 2; falling++) {
			begin(features_of(offered), V1 | features_of(accepted));
			start_set(set, falling);
			check_roles(expected);
			test_balloon_end(&t);
		}
	}
}

static void every_set_of_rings(void **state)
{
	(void)state;
	for (uint32_t offered = 0; offered < 16; offered++) {
		for (uint32_t accepted = 0; accepted < 16; accepted++) {
			if (!(accepted & ~offered))
				check_every_set(offered, accepted);
		}
	}
}

/* Every combination of features and numbering, and that each ring gets its first run. */
static void every_numbering(void **state)
{
	(void)state;
	for (uint32_t offered = 0; offered < 16; offered++) {
		for (uint32_t accepted = 0; accepted < 16; accepted++) {
			const uint32_t counted[] = {0xf, accepted, offered};

			for (size_t i = 0; i < 3 && !(accepted & ~offered); i++) {
				int ring_of[QUEUES];

				expected_rings(counted[i], accepted, ring_of);
				for (int falling = 0; falling < 2; falling++) {
					begin(features_of(offered), V1 | features_of(accepted));
					assert_int_equal(start_set(set_of(ring_of), falling),
							 set_of(ring_of));
					check_roles(ring_of);
					/* Nothing more to come. */
					assert_int_equal(t.b.st.fresh_rings, 0);
					test_balloon_end(&t);
				}
			}
		}
	}
}

static void put_message(void)
{
	memset(t.queues + TEST_BUFFERS, 0, 8);
	le32_put(t.queues + TEST_BUFFERS, VIRTIO_BALLOON_MSG_PRESSURE);
}

/* Puts a message into a ring, and tells whether the device has returned it. */
static void offer_message(uint32_t ring)
{
	put_message();
	test_offer_one(&t.ring[ring], TEST_BUFFER, 8);
}

static bool returned(uint32_t ring)
{
	uint32_t id, len;

	return test_take_used(&t.ring[ring], &id, &len);
}

/*
 * A part of the rings is there, so the others' place is not clear. What is sent waits, and is
 * served without another kick when it is.
 */
static void partial_set_waits(void **state)
{
	uint32_t want;

	(void)state;
	begin(ALL, V1 | STATS | MESSAGE); /* 2 and 5, 2 and 3, or 2 and 5 again */
	start_set(0x3, false);
	assert_int_equal(start(3, false), 1U << 3);
	offer_message(3);
	assert_false(balloon_queue_run(&t.b, 3, test_at(0)));
	assert_false(returned(3));
	/* The pages' queues are clear all the time. */
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, 4);

	put_message();
	want = start(2, false);
	assert_int_equal(want, 1U << 3 | 1U << 2);
	assert_false(balloon_queue_run(&t.b, 3, test_at(0)));
	assert_true(returned(3));
	assert_int_equal(t.b.st.pressure.messages[0], 1);
	test_balloon_end(&t);
}

/* A set that fits nothing is a driver error, which is told when the time for set-up is over. */
static void unfit_set_is_reported(void **state)
{
	(void)state;
	begin(ALL, V1 | MESSAGE);
	start_set(0x3 | 1U << 4, false); /* by the standard 5, by Linux 2, by QEMU 5 */
	offer_message(4);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	balloon_queue_kicked(&t.b, 4);
	assert_false(balloon_queue_run(&t.b, 4, test_at(1000)));
	assert_int_equal(balloon_next_tick(&t.b), 1000 + TIME_MS);
	/* Once more changes nothing. */
	balloon_queue_kicked(&t.b, 4);
	assert_false(balloon_queue_run(&t.b, 4, test_at(1100)));
	assert_int_equal(balloon_next_tick(&t.b), 1000 + TIME_MS);
	assert_int_equal(balloon_tick(&t.b, test_at(1000 + TIME_MS - 1)), 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 0);
	assert_int_equal(balloon_tick(&t.b, test_at(1000 + TIME_MS)), 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 1);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	assert_false(returned(4)); /* and not guessed at */
	/* It kicks again, it has erred again. */
	balloon_queue_kicked(&t.b, 4);
	assert_false(balloon_queue_run(&t.b, 4, test_at(5000)));
	balloon_tick(&t.b, test_at(6000));
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 2);
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, 4);
	test_balloon_end(&t);
}

/* A kick that comes while the other rings are being set up is no error. */
static void early_kick_is_no_error(void **state)
{
	(void)state;
	begin(ALL, V1 | STATS | MESSAGE);
	start_set(0x7, false);
	balloon_queue_kicked(&t.b, 2);
	assert_false(balloon_queue_run(&t.b, 2, test_at(0)));
	start(3, false);
	balloon_queue_kicked(&t.b, 3);
	assert_false(balloon_queue_run(&t.b, 3, test_at(1)));
	balloon_tick(&t.b, test_at(10000));
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 0);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);

	/* Nor is one on a ring that has gone by then. */
	stop(3);
	balloon_reset(&t.b);
	balloon_queue_kicked(&t.b, 2);
	assert_false(balloon_queue_run(&t.b, 2, test_at(20000)));
	stop(2);
	balloon_tick(&t.b, test_at(30000));
	assert_int_equal(t.b.st.errors[BALLOON_ERR_UNKNOWN_QUEUE], 0);
	test_balloon_end(&t);
}

/* A ring that is paused keeps its queue, and the others theirs. */
static void pause_keeps_roles(void **state)
{
	static const int ring_of[QUEUES] = {0, 1, 2, -1, 3, 4};

	(void)state;
	begin(ALL, V1 | STATS | REPORTING | MESSAGE);
	start_set(0x1f, false);
	check_roles(ring_of);
	for (uint32_t ring = 0; ring < 5; ring++) {
		test_balloon_pause(&t, ring);
		check_roles(ring_of);
		if (ring != 4) {
			offer_message(4);
			assert_false(balloon_queue_run(&t.b, 4, test_at(0)));
			assert_true(returned(4));
		}
		assert_int_equal(vq_start(&t.ring[ring].vq, &t.mem), 0);
		assert_int_equal(balloon_queue_started(&t.b, ring, true), 1U << ring);
		check_roles(ring_of);
	}
	test_balloon_end(&t);
}

/*
 * A new driver counts otherwise than the last one, with the same features. While its rings come, in
 * any order, none is taken for what the last one had there: what is hinted would be discarded.
 */
static void next_driver_counts_otherwise(void **state)
{
	const uint32_t accepted = 0x6; /* hinting and reporting, of all four */
	const uint32_t counted[] = {0xf, accepted};
	int ring_of[QUEUES];

	(void)state;
	for (int falling = 0; falling < 2; falling++) {
		begin(ALL, V1 | features_of(accepted));
		for (size_t i = 0; i < 4; i++) {
			uint32_t set;

			expected_rings(counted[i % 2], accepted, ring_of);
			set = set_of(ring_of);
			for (uint32_t n = 0; n < QUEUES; n++) {
				uint32_t ring = falling ? QUEUES - 1 - n : n;
				int of;

				if (!(set >> ring & 1))
					continue;
				start(ring, false);
				of = balloon_queue_of(&t.b, ring);
				assert_true(of < 0 || (uint32_t)ring_of[of] == ring);
			}
			check_roles(ring_of);
			for (uint32_t ring = 0; ring < QUEUES; ring++) {
				if (set >> ring & 1)
					stop(ring);
			}
			balloon_reset(&t.b);
		}
		test_balloon_end(&t);
	}
}

/* A long report, of which a turn does a part. */
static void begin_report(uint32_t ring)
{
	struct test_desc d[16];

	t.any_page = true;
	for (uint32_t i = 0; i < 16; i++)
		d[i] = (struct test_desc){0, 2048 * PAGE, VRING_DESC_F_WRITE, 0};
	test_offer(&t.ring[ring], d, 16);
	assert_true(balloon_queue_run(&t.b, ring, test_at(0)));
}

static void fill_memory(void)
{
	t.mem.n = 0;
	free(t.queues);
	t.queues = test_add_region(&t.mem, TEST_QUEUES_GPA, TEST_ROOM, PAGE, NULL);
	test_add_region(&t.mem, 0, 64ULL << 20, PAGE, t.queues);
	test_balloon_memory(&t);
}

/*
 * The front end changes the features while rings run, with a report half done and the statistics
 * buffer here: both go back to where they came from, and nothing of them is touched again.
 */
static void features_change_while_running(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		uint64_t all = V1 | ALL | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0);

		begin(ALL, all);
		fill_memory();
		for (uint32_t i = 0; i < QUEUES; i++)
			test_balloon_queue(&t, i, vq_fresh_base(packed), false);
		test_offer_one(&t.ring[2], TEST_BUFFER, 10);
		assert_false(balloon_queue_run(&t.b, 2, test_at(0)));
		assert_true(t.b.st.stats_held);
		begin_report(4);
		assert_true(t.b.in_hand[VIRTIO_BALLOON_VQ_REPORTING]);
		assert_int_equal(t.ring[4].vq.st.in_use, packed ? 16 : 1);

		assert_int_equal(balloon_set_features(&t.b, all & ~(MESSAGE | HINT)), 0);
		assert_false(t.b.in_hand[VIRTIO_BALLOON_VQ_REPORTING]);
		assert_false(t.b.st.stats_held);
		assert_int_equal(t.ring[2].vq.st.in_use, 0);
		assert_int_equal(t.ring[4].vq.st.in_use, 0);
		assert_int_equal(t.b.st.resume[VIRTIO_BALLOON_VQ_REPORTING], 0);
		/* Six rings are four too many now: none of these is known. */
		assert_int_equal(balloon_queue_of(&t.b, 2), -1);
		assert_int_equal(balloon_set_push_interval(&t.b, 100), 0);
		assert_int_equal(balloon_request_stats(&t.b), -ENODEV);
		balloon_memory_changing(&t.b);
		for (uint32_t i = 0; i < QUEUES; i++) {
			assert_false(balloon_queue_run(&t.b, i, test_at(1)));
			stop(i);
		}
		test_balloon_end(&t);
	}
}

/* Rings stop and start one by one, and make other sets: a chain in hand goes back to its ring. */
static void set_changes_while_in_hand(void **state)
{
	(void)state;
	begin(ALL, V1 | HINT | REPORTING);
	fill_memory();
	start_set(0xf, false); /* as Linux counts: hinting is 2, reporting 3 */
	assert_int_equal(balloon_hint(&t.b, BALLOON_HINT_START), 0);
	le32_put(t.queues + TEST_BUFFERS, VIRTIO_BALLOON_CMD_ID_MIN);
	test_offer_one(&t.ring[2], TEST_BUFFER, 4);
	assert_false(balloon_queue_run(&t.b, 2, test_at(0)));
	assert_int_equal(t.b.st.hint.state, BALLOON_HINT_HINTING);
	begin_report(3);
	assert_true(t.b.in_hand[VIRTIO_BALLOON_VQ_REPORTING]);
	stop(2);
	start(4, false); /* as QEMU counts: hinting is 3, reporting 4 */
	assert_int_equal(balloon_queue_of(&t.b, 3), VIRTIO_BALLOON_VQ_FREE_PAGE);
	assert_int_equal(balloon_queue_of(&t.b, 4), VIRTIO_BALLOON_VQ_REPORTING);
	assert_false(t.b.in_hand[VIRTIO_BALLOON_VQ_REPORTING]);
	assert_int_equal(t.ring[3].vq.st.in_use, 0);
	assert_int_equal(t.ring[4].vq.st.in_use, 0);
	/* What lies in the ring is hints now, and none was asked for of this driver. */
	t.n_ranges = 0;
	while (balloon_queue_run(&t.b, 3, test_at(0)))
		;
	assert_int_equal(t.n_ranges, 0);
	assert_int_equal(t.b.st.hint.state, BALLOON_HINT_IDLE);
	assert_int_equal(t.b.hints.count, 0);
	test_balloon_end(&t);
}

/* A device reset while the rings run: those that are known stay known. */
static void reset_keeps_what_fits(void **state)
{
	static const int ring_of[QUEUES] = {0, 1, 2, 3, 4, 5};

	(void)state;
	begin(ALL, V1 | ALL);
	start_set(0x3f, false);
	balloon_reset(&t.b);
	check_roles(ring_of);
	offer_message(5);
	assert_false(balloon_queue_run(&t.b, 5, test_at(0)));
	assert_true(returned(5));
	test_balloon_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_set_of_rings),
		cmocka_unit_test(every_numbering),
		cmocka_unit_test(partial_set_waits),
		cmocka_unit_test(unfit_set_is_reported),
		cmocka_unit_test(early_kick_is_no_error),
		cmocka_unit_test(pause_keeps_roles),
		cmocka_unit_test(next_driver_counts_otherwise),
		cmocka_unit_test(features_change_while_running),
		cmocka_unit_test(set_changes_while_in_hand),
		cmocka_unit_test(reset_keeps_what_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
