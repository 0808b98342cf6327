// SPDX-License-Identifier: MIT
/* Statistics that come by themselves (wire.md, "Push"), and switching from and to requests. */
#include "helpers.h"

#include <errno.h>

#define V1     BIT(VIRTIO_F_VERSION_1)
#define PACKED BIT(VIRTIO_F_RING_PACKED)
#define STATS  BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH   BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define QUEUE  VIRTIO_BALLOON_VQ_STATS
#define TAG    VIRTIO_BALLOON_S_AVAIL

static struct test_balloon t;

static void begin(uint64_t features)
{
	test_balloon_init(&t, STATS | PUSH);
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	test_balloon_start(&t, features);
}

static uint32_t told_interval(void)
{
	uint8_t raw[4];

	balloon_config_read(&t.b, 16, raw, sizeof(raw));
	return le32_get(raw);
}

/* The driver sends one figure. */
static void offer(uint64_t value)
{
	le16_put(t.queues + TEST_BUFFERS, TAG);
	le64_put(t.queues + TEST_BUFFERS + 2, value);
	test_offer_one(&t.ring[QUEUE], TEST_BUFFER, 10);
}

static void send(uint64_t value, uint64_t now)
{
	offer(value);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(now)));
}

static bool came_back(void)
{
	uint32_t id, len;
	bool back = test_take_used(&t.ring[QUEUE], &id, &len);

	if (back)
		assert_int_equal(len, 0);
	return back;
}

static void returned_at_once(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		begin(V1 | STATS | PUSH | (packed ? PACKED : 0));
		assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
		assert_int_equal(told_interval(), 50);
		assert_int_equal(t.config_changes, 1);
		assert_true(balloon_pushing(&t.b));
		for (uint32_t i = 0; i < 50; i++) {
			send(1000 + i, 50 * i);
			assert_true(came_back());
			assert_false(came_back());
			assert_false(t.b.st.stats_held);
			assert_int_equal(t.b.st.stats.value[TAG], 1000 + i);
			assert_int_equal(t.b.st.stats.arrived.mono_ms, 50 * i);
			assert_int_equal(t.events[BALLOON_EVENT_STATS], i + 1);
		}
		assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_TWICE], 0);
		assert_int_equal(t.ring[QUEUE].vq.st.in_use, 0);
		assert_int_equal(t.b.st.buffers[QUEUE], 50);
		test_balloon_end(&t);
	}
}

/* At most one a 10 ms: what asks for more gets that. 0 is no such interval. */
static void clamped(void **state)
{
	static const struct {
		uint32_t wanted, got;
	} cases[] = {{1, 10},
		     {9, 10},
		     {10, 10},
		     {11, 11},
		     {0, 0},
		     {1000, 1000},
		     {UINT32_MAX, UINT32_MAX}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(V1 | STATS | PUSH);
		assert_int_equal(balloon_set_push_interval(&t.b, cases[i].wanted), 0);
		assert_int_equal(told_interval(), cases[i].got);
		assert_int_equal(t.config_changes, cases[i].got != 0);
		/* The same once more is no change. */
		assert_int_equal(balloon_set_push_interval(&t.b, cases[i].wanted), 0);
		assert_int_equal(t.config_changes, cases[i].got != 0);
		test_balloon_end(&t);
	}
}

static void drivers_that_cannot(void **state)
{
	static const uint64_t features[] = {V1, V1 | STATS};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		begin(features[i]);
		assert_int_equal(balloon_set_push_interval(&t.b, 50), -ENOTSUP);
		assert_int_equal(told_interval(), 0);
		assert_int_equal(t.config_changes, 0);
		assert_int_equal(balloon_set_push_interval(&t.b, 0), 0);
		test_balloon_end(&t);
	}

	/* Set while there was no driver; one comes that has to be asked. That can be switched off.
	 */
	test_balloon_init(&t, STATS | PUSH);
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	test_balloon_start(&t, V1 | STATS);
	assert_false(balloon_pushing(&t.b));
	send(1, 1);
	assert_false(came_back());
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	balloon_set_poll_interval(&t.b, 100, test_at(100));
	send(2, 101);
	balloon_tick(&t.b, test_at(200));
	assert_true(came_back());
	assert_int_equal(balloon_set_push_interval(&t.b, 70), -ENOTSUP);
	assert_int_equal(told_interval(), 50);
	assert_int_equal(balloon_set_push_interval(&t.b, 0), 0);
	assert_int_equal(told_interval(), 0);
	test_balloon_end(&t);
}

/* Set before the driver is there, and kept from one to the next. */
static void kept_for_next_driver(void **state)
{
	(void)state;
	test_balloon_init(&t, STATS | PUSH);
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	test_balloon_start(&t, V1 | STATS | PUSH);
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(balloon_pushing(&t.b));
		assert_int_equal(told_interval(), 50);
		send(i, i * 50);
		assert_true(came_back());
		for (uint32_t ring = 0; ring < 3; ring++) {
			balloon_queue_stopped(&t.b, ring);
			vq_stop(&t.ring[ring].vq);
		}
		balloon_reset(&t.b);
		for (uint32_t ring = 0; ring < 3; ring++)
			test_balloon_queue(&t, ring, 0, false);
	}
	test_balloon_end(&t);
}

/* What a driver can see at each action. */
static uint16_t used_at_config;
static bool fresh_at_commit;

static void note(struct test_balloon *at, enum test_op op)
{
	if (op == TEST_OP_CONFIG)
		used_at_config = le16_get(at->ring[QUEUE].device + VRING_USED_IDX);
	if (op == TEST_OP_COMMIT)
		fresh_at_commit = at->b.st.stats.value[TAG] == 7;
}

/* 0 -> N: the buffer that is here goes back, after the change was told, and asks for nothing. */
static void from_requests(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	send(1, 1);
	assert_false(came_back());
	t.hook = note;
	used_at_config = 99;
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	assert_int_equal(used_at_config, 0);
	assert_true(came_back());
	assert_false(t.b.st.stats_held);
	assert_false(t.b.st.stats_awaited);
	/* A push is read before it is returned. */
	fresh_at_commit = false;
	send(7, 2);
	assert_true(fresh_at_commit);
	assert_true(came_back());
	test_balloon_end(&t);
}

/* 0 -> N while the driver has the buffer: the answer that is due comes as a push. */
static void from_an_open_request(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	send(1, 1);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	assert_false(came_back());
	assert_true(t.b.st.stats_awaited);
	send(2, 3);
	assert_true(came_back());
	assert_false(t.b.st.stats_awaited);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
	test_balloon_end(&t);
}

/* N -> 0: the next buffer stays, to ask with. */
static void to_requests(void **state)
{
	(void)state;
	for (int in_ring = 0; in_ring < 2; in_ring++) {
		begin(V1 | STATS | PUSH);
		assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
		send(1, 1);
		assert_true(came_back());
		/* The driver's last one may be on its way already. */
		if (in_ring)
			offer(2);
		assert_int_equal(balloon_set_push_interval(&t.b, 0), 0);
		assert_false(balloon_pushing(&t.b));
		if (!in_ring)
			offer(2);
		assert_false(balloon_queue_run(&t.b, QUEUE, test_at(2)));
		assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
		assert_false(came_back());
		assert_true(t.b.st.stats_held);
		assert_int_equal(balloon_request_stats(&t.b), 0);
		assert_true(came_back());
		send(3, 3);
		assert_false(came_back());
		assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_TWICE], 0);
		test_balloon_end(&t);
	}
}

/* N -> M: told, and no buffer moves. */
static void another_interval(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	send(1, 1);
	assert_true(came_back());
	assert_int_equal(balloon_set_push_interval(&t.b, 2000), 0);
	assert_int_equal(told_interval(), 2000);
	assert_int_equal(t.config_changes, 2);
	assert_false(came_back());
	send(2, 2);
	assert_true(came_back());
	assert_false(came_back());
	test_balloon_end(&t);
}

/* In any order, at any moment, with the driver's buffer here or there: there always is just one. */
static void switching(void **state)
{
	static const uint32_t intervals[] = {0, 50, 0, 10, 3000, 50, 50, 0, 0, 77};
	uint32_t random = 12345;
	bool with_driver = true;

	(void)state;
	begin(V1 | STATS | PUSH);
	for (uint32_t step = 0; step < 5000; step++) {
		random = random * 1664525 + 1013904223;
		switch (random >> 28) {
		case 0:
		case 1:
		case 2:
			assert_int_equal(balloon_set_push_interval(&t.b, intervals[step % 10]), 0);
			break;
		case 3:
		case 4:
		case 5:
			assert_int_equal(balloon_request_stats(&t.b), 0);
			break;
		case 6:
			test_balloon_pause(&t, QUEUE);
			test_balloon_resume(&t, QUEUE);
			assert_false(balloon_queue_run(&t.b, QUEUE, test_at(step)));
			break;
		default:
			if (with_driver)
				send(step, step);
			with_driver = false;
			break;
		}
		if (!with_driver)
			with_driver = came_back();
		assert_false(came_back());
		/* It is at one of the two, and at the device only to be asked with. */
		assert_int_equal(t.b.st.stats_held, !with_driver);
		assert_false(t.b.st.stats_held && balloon_pushing(&t.b));
		assert_false(t.b.st.stats_held && t.b.st.stats_awaited);
	}
	assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_TWICE], 0);
	test_balloon_end(&t);
}

/* While pushing nothing is asked for: neither by command nor by poll. */
static void requests_are_suppressed(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	balloon_set_poll_interval(&t.b, 10, test_at(0));
	for (uint64_t now = 0; now < 500; now += 5)
		assert_int_equal(balloon_tick(&t.b, test_at(now)), 0);
	assert_false(t.b.st.stats_awaited);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_false(came_back());
	assert_int_equal(t.notified[QUEUE], 0);
	assert_true(balloon_next_tick(&t.b) > 495); /* and it keeps no one busy */
	/* Who asked is answered by the next push. */
	assert_true(t.b.st.stats_awaited);
	send(1, 501);
	assert_false(t.b.st.stats_awaited);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	test_balloon_end(&t);
}

/* On the legacy interface the first buffer holds nothing, and goes back all the same. */
static void legacy(void **state)
{
	(void)state;
	begin(STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	send(1, 1);
	assert_true(came_back());
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 0);
	assert_false(t.b.st.stats.ever);
	send(2, 51);
	assert_true(came_back());
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_int_equal(t.b.st.stats.value[TAG], 2);
	test_balloon_end(&t);
}

/* The guest is paused; what it had sent and nobody has read is news when it goes on. */
static void pause_while_pushing(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	send(1, 1);
	assert_true(came_back());
	offer(2);
	test_balloon_pause(&t, QUEUE);
	assert_int_equal(balloon_set_push_interval(&t.b, 100), 0);
	test_balloon_resume(&t, QUEUE);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(9)));
	assert_true(came_back());
	assert_int_equal(t.b.st.stats.value[TAG], 2);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
	test_balloon_end(&t);
}

/* It is paused with the buffer here, and the push begins meanwhile: what the buffer holds is old.
 */
static void push_begins_during_pause(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	send(1, 1);
	test_balloon_pause(&t, QUEUE);
	assert_int_equal(t.ring[QUEUE].vq.st.in_use, 0);
	assert_int_equal(balloon_set_push_interval(&t.b, 100), 0);
	test_balloon_resume(&t, QUEUE);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(500)));
	assert_true(came_back());
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_int_equal(t.b.st.stats.arrived.mono_ms, 1);
	send(2, 501);
	assert_true(came_back());
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
	test_balloon_end(&t);
}

/* Nothing is returned on a ring that the guest has broken, nor on one that is not there. */
static void queue_out_of_service(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	send(1, 1);
	vq_break(&t.ring[QUEUE].vq, VQ_ERR_LOOP);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	assert_false(came_back());
	test_balloon_pause(&t, QUEUE);
	assert_int_equal(t.ring[QUEUE].vq.st.in_use, 0);
	assert_int_equal(balloon_set_push_interval(&t.b, 0), 0);
	assert_int_equal(balloon_set_push_interval(&t.b, 50), 0);
	assert_int_equal(balloon_request_stats(&t.b), -ENODEV);
	test_balloon_end(&t);
}

/* A guest that pushes without end does not set the monitor's pace; the newest figures hold. */
static void flood(void **state)
{
	uint64_t value = 0;

	(void)state;
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 10), 0);
	for (uint64_t now = 0; now < 1000; now++) {
		for (uint32_t i = 0; i < 20; i++) {
			send(++value, now);
			assert_true(came_back());
			assert_int_equal(t.b.st.stats.value[TAG], value);
		}
	}
	assert_in_range(t.events[BALLOON_EVENT_STATS], 100, 250);
	/* The last ones are told of a little later, once. */
	value = t.events[BALLOON_EVENT_STATS];
	assert_in_range(balloon_next_tick(&t.b), 1000, 1100);
	assert_int_equal(balloon_tick(&t.b, test_at(balloon_next_tick(&t.b) - 1)), 0);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], value);
	assert_int_equal(balloon_tick(&t.b, test_at(1100)), 0);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], value + 1);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	test_balloon_end(&t);

	/* Of a driver that is gone there is no news. */
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 10), 0);
	for (uint32_t i = 0; i < 30; i++) {
		send(i, 0);
		assert_true(came_back());
	}
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 20);
	balloon_reset(&t.b);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	balloon_tick(&t.b, test_at(1000));
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 20);
	test_balloon_end(&t);

	/* One that keeps to the shortest interval, give or take, is heard every time. */
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 10), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		send(i, 10ULL * i + i * 7 % 10);
		assert_true(came_back());
	}
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1000);
	test_balloon_end(&t);
}

/* threats.md, rings, line 8: the ring is filled while it is emptied. */
static void refill(struct test_balloon *at, enum test_op op)
{
	(void)at;
	if (op == TEST_OP_NOTIFY)
		offer(1);
}

static void endless_ring(void **state)
{
	(void)state;
	begin(V1 | STATS | PUSH);
	assert_int_equal(balloon_set_push_interval(&t.b, 10), 0);
	offer(1);
	t.hook = refill;
	assert_true(balloon_queue_run(&t.b, QUEUE, test_at(0)));
	assert_in_range(t.b.st.buffers[QUEUE], 2, 1000);
	test_balloon_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(returned_at_once),
		cmocka_unit_test(clamped),
		cmocka_unit_test(drivers_that_cannot),
		cmocka_unit_test(kept_for_next_driver),
		cmocka_unit_test(from_requests),
		cmocka_unit_test(from_an_open_request),
		cmocka_unit_test(to_requests),
		cmocka_unit_test(another_interval),
		cmocka_unit_test(switching),
		cmocka_unit_test(requests_are_suppressed),
		cmocka_unit_test(legacy),
		cmocka_unit_test(pause_while_pushing),
		cmocka_unit_test(push_begins_during_pause),
		cmocka_unit_test(queue_out_of_service),
		cmocka_unit_test(flood),
		cmocka_unit_test(endless_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
