// SPDX-License-Identifier: MIT
/* Push interval, hinting, inhibitors and health, by a real balloon and rings in memory. */
#include "helpers.h"

#include <errno.h>

#include "../../src/vhost-user-balloon/control.c"
#include "../../src/vhost-user-balloon/settings.c"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH    BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define QUEUE   VIRTIO_BALLOON_VQ_STATS
#define OFFERED (STATS | PUSH | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT))

static struct test_balloon t;
static struct control c;
static struct settings settings;
static uint32_t touched, changed;

static void on_touched(void *opaque)
{
	assert_ptr_equal(opaque, &c);
	touched++;
}

static void on_health_changed(void *opaque)
{
	assert_ptr_equal(opaque, &c);
	changed++;
}

static const struct control_ops control_ops = {on_touched, on_health_changed};
static const struct options options = {
	.policy = {.on_pressure = BALLOON_PRESSURE_DEFLATE,
		   .step_pages = {16, 16, 32, 64},
		   .messages_per_second = 7},
	.health = HEALTH_LIMITS_DEFAULT,
};

static void init(void)
{
	touched = changed = 0;
	test_balloon_init(&t, OFFERED);
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	control_init(&c, &t.b, &settings, &options, &control_ops, &c, test_at(1000));
}

static int begin(void **state)
{
	(void)state;
	memset(&settings, 0, sizeof(settings));
	init();
	return 0;
}

static int end(void **state)
{
	(void)state;
	test_balloon_end(&t);
	return 0;
}

static void expect(uint64_t now, enum health_state state, enum health_reason reason)
{
	control_check(&c, true, test_at(now));
	assert_int_equal(c.health.state, state);
	assert_int_equal(c.health.reason, reason);
}

/* The driver sends statistics. */
static void arrive(uint64_t now)
{
	uint32_t before = t.events[BALLOON_EVENT_STATS];

	test_offer_one(&t.ring[QUEUE], TEST_QUEUES_GPA + TEST_BUFFERS, 10);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(now)));
	assert_int_equal(t.events[BALLOON_EVENT_STATS], before + 1);
}

static void policy_and_settings(void **state)
{
	(void)state;
	assert_int_equal(t.b.policy.on_pressure, BALLOON_PRESSURE_DEFLATE);
	assert_int_equal(t.b.policy.step_pages[VIRTIO_BALLOON_PRESSURE_CRITICAL], 64);
	assert_int_equal(t.b.policy.messages_per_second, 7);
	assert_false(t.b.st.inhibited);
	assert_int_equal(t.b.st.push_interval_ms, 0);
	/* What a cold start finds. */
	test_balloon_end(&t);
	settings.push_ms = 3;
	assert_int_equal(settings_inhibit(&settings, "vfio"), 0);
	init();
	assert_true(t.b.st.inhibited);
	assert_int_equal(t.b.st.push_interval_ms, VIRTIO_BALLOON_PUSH_INTERVAL_MIN);
	assert_int_equal(settings.push_ms, VIRTIO_BALLOON_PUSH_INTERVAL_MIN);
	assert_int_equal(touched, 0);
}

static void health_pull(void **state)
{
	(void)state;
	control_check(&c, false, test_at(1000));
	assert_int_equal(c.health.reason, HEALTH_NO_DRIVER);
	assert_true(control_next(&c) == UINT64_MAX);
	/* A front end without a driver. */
	expect(1500, HEALTH_UNKNOWN, HEALTH_NO_DRIVER);
	test_balloon_start(&t, V1 | STATS);
	expect(2000, HEALTH_UNKNOWN, HEALTH_NOT_ASKED);
	assert_int_equal(changed, 0);
	arrive(2100);
	expect(2100, HEALTH_HEALTHY, HEALTH_ON_TIME);
	assert_int_equal(changed, 1);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	expect(5000, HEALTH_HEALTHY, HEALTH_ON_TIME);
	assert_int_equal(control_next(&c), 6501);
	expect(6501, HEALTH_SLOW, HEALTH_ANSWER_LATE);
	expect(8001, HEALTH_UNRESPONSIVE, HEALTH_ANSWER_LATE);
	assert_int_equal(changed, 3);
	/* The VM stops: every ring does. */
	for (uint32_t i = 0; i < 3; i++) {
		balloon_queue_stopped(&t.b, i);
		vq_stop(&t.ring[i].vq);
	}
	expect(9000, HEALTH_PAUSED, HEALTH_STOPPED);
	/* It goes on, ring after ring, and nothing is forgotten on the way. */
	assert_int_equal(vq_start(&t.ring[0].vq, &t.mem), 0);
	balloon_queue_started(&t.b, 0, true);
	assert_int_equal(vq_start(&t.ring[1].vq, &t.mem), 0);
	balloon_queue_started(&t.b, 1, true);
	expect(9500, HEALTH_PAUSED, HEALTH_STOPPED);
	assert_int_equal(vq_start(&t.ring[2].vq, &t.mem), 0);
	balloon_queue_started(&t.b, 2, true);
	expect(9600, HEALTH_UNRESPONSIVE, HEALTH_ANSWER_LATE);
	arrive(9700);
	expect(9700, HEALTH_HEALTHY, HEALTH_ON_TIME);
	/* The front end goes. */
	for (uint32_t i = 0; i < 3; i++) {
		balloon_queue_stopped(&t.b, i);
		vq_stop(&t.ring[i].vq);
	}
	control_check(&c, false, test_at(9800));
	assert_int_equal(c.health.state, HEALTH_UNKNOWN);
	assert_int_equal(c.health.reason, HEALTH_NO_DRIVER);
}

static void health_push(void **state)
{
	(void)state;
	assert_int_equal(control_set_push_interval(&c, 100), 0);
	assert_int_equal(touched, 1);
	assert_int_equal(settings.push_ms, 100);
	test_balloon_start(&t, V1 | STATS | PUSH);
	expect(2000, HEALTH_UNKNOWN, HEALTH_AWAITED);
	assert_int_equal(control_next(&c), 2151);
	arrive(2010);
	expect(2010, HEALTH_HEALTHY, HEALTH_ON_TIME);
	expect(2161, HEALTH_SLOW, HEALTH_PUSH_LATE);
	/* Another interval while it is late, then none. */
	assert_int_equal(control_set_push_interval(&c, 4), 0);
	assert_int_equal(settings.push_ms, VIRTIO_BALLOON_PUSH_INTERVAL_MIN);
	expect(2200, HEALTH_SLOW, HEALTH_PUSH_LATE);
	arrive(2205);
	expect(2205, HEALTH_HEALTHY, HEALTH_ON_TIME);
	assert_int_equal(control_set_push_interval(&c, 0), 0);
	expect(2206, HEALTH_HEALTHY, HEALTH_ON_TIME);
	assert_true(control_next(&c) == UINT64_MAX);
	expect(900000, HEALTH_HEALTHY, HEALTH_ON_TIME);
}

/* A guest that pushes far too fast is not late because the monitor is not told of all of it. */
static void not_every_arrival_is_an_event(void **state)
{
	uint32_t events;

	(void)state;
	assert_int_equal(control_set_push_interval(&c, 10), 0);
	test_balloon_start(&t, V1 | STATS | PUSH);
	for (uint64_t now = 2000; now < 4000; now++) {
		uint32_t id, len;

		test_offer_one(&t.ring[QUEUE], TEST_QUEUES_GPA + TEST_BUFFERS, 10);
		assert_false(balloon_queue_run(&t.b, QUEUE, test_at(now)));
		assert_true(test_take_used(&t.ring[QUEUE], &id, &len));
		expect(now, HEALTH_HEALTHY, HEALTH_ON_TIME);
	}
	events = t.events[BALLOON_EVENT_STATS];
	assert_in_range(events, 1, 1000);
	assert_int_equal(changed, 1);
}

/* Figures that came with the device's state, by the clock of the machine that it was on. */
static void arrivals_of_another_clock(void **state)
{
	(void)state;
	assert_int_equal(control_set_push_interval(&c, 100), 0);
	test_balloon_start(&t, V1 | STATS | PUSH);
	t.b.st.stats.ever = true;
	t.b.st.stats.arrived = test_at(900000);
	expect(2000, HEALTH_UNKNOWN, HEALTH_AWAITED);
	expect(2151, HEALTH_SLOW, HEALTH_PUSH_LATE);
}

static void driver_without_statistics(void **state)
{
	(void)state;
	test_balloon_start(&t, V1);
	expect(2000, HEALTH_UNKNOWN, HEALTH_NO_STATISTICS);
	/* And one that cannot push is not asked to. */
	assert_int_equal(control_set_push_interval(&c, 100), -ENOTSUP);
	assert_int_equal(touched, 0);
	assert_int_equal(settings.push_ms, 0);
}

static void broken_statistics(void **state)
{
	(void)state;
	test_balloon_start(&t, V1 | STATS);
	arrive(2000);
	expect(2000, HEALTH_HEALTHY, HEALTH_ON_TIME);
	balloon_give_up_ring(&t.b, QUEUE, VQ_ERR_DIRECTION);
	expect(2100, HEALTH_UNKNOWN, HEALTH_NO_STATISTICS);
}

/* What was known of a driver is not known of the next one, even if nobody saw it go. */
static void another_driver(void **state)
{
	(void)state;
	test_balloon_start(&t, V1 | STATS);
	arrive(2000);
	expect(2000, HEALTH_HEALTHY, HEALTH_ON_TIME);
	balloon_reset(&t.b);
	expect(2100, HEALTH_UNKNOWN, HEALTH_NOT_ASKED);
}

static void inhibitors(void **state)
{
	char reason[SETTINGS_REASON_MAX + 1];

	(void)state;
	test_balloon_start(&t, V1 | BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST));
	assert_int_equal(control_inhibit(&c, ""), -EINVAL);
	assert_int_equal(control_uninhibit(&c, "vfio"), -ENOENT);
	assert_int_equal(touched, 0);
	assert_int_equal(control_inhibit(&c, "vfio"), 0);
	assert_int_equal(touched, 1);
	assert_true(t.b.st.inhibited);
	/* The same twice counts once. */
	assert_int_equal(control_inhibit(&c, "vfio"), 0);
	assert_int_equal(settings.n_inhibitors, 1);
	assert_int_equal(control_inhibit(&c, "post-copy"), 0);
	/* Taken in, kept, counted. */
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, 8);
	assert_int_equal(t.n_ranges, 0);
	assert_int_equal(control_uninhibit(&c, "vfio"), 0);
	assert_true(t.b.st.inhibited);
	assert_int_equal(control_uninhibit(&c, "vfio"), -ENOENT);
	assert_true(t.b.st.inhibited);
	/* The last one: what the balloon holds now goes. */
	assert_int_equal(control_uninhibit(&c, "post-copy"), 0);
	assert_false(t.b.st.inhibited);
	assert_int_equal(balloon_next_tick(&t.b), 0);
	balloon_tick(&t.b, test_at(0));
	assert_int_equal(t.n_ranges, 1);
	assert_int_equal(t.range[0].len, 8 * PAGE);
	/* As many as there is room for, and as long. */
	memset(reason, 'x', sizeof(reason));
	reason[SETTINGS_REASON_MAX] = '\0';
	assert_int_equal(control_inhibit(&c, reason), -ENAMETOOLONG);
	assert_false(t.b.st.inhibited);
	reason[SETTINGS_REASON_MAX - 1] = '\0';
	for (uint32_t i = 0; i < SETTINGS_INHIBITORS_MAX; i++) {
		reason[0] = (char)('a' + i);
		assert_int_equal(control_inhibit(&c, reason), 0);
	}
	assert_int_equal(control_inhibit(&c, "one more"), -ENOSPC);
	assert_true(settings_valid(&settings));
}

static void hint_errors(void **state)
{
	(void)state;
	assert_int_equal(control_hint(&c, BALLOON_HINT_START), -ENODEV);
	test_balloon_start(&t, V1);
	assert_int_equal(control_hint(&c, BALLOON_HINT_START), -ENOTSUP);
	assert_int_equal(touched, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(policy_and_settings, begin, end),
		cmocka_unit_test_setup_teardown(health_pull, begin, end),
		cmocka_unit_test_setup_teardown(health_push, begin, end),
		cmocka_unit_test_setup_teardown(not_every_arrival_is_an_event, begin, end),
		cmocka_unit_test_setup_teardown(arrivals_of_another_clock, begin, end),
		cmocka_unit_test_setup_teardown(driver_without_statistics, begin, end),
		cmocka_unit_test_setup_teardown(broken_statistics, begin, end),
		cmocka_unit_test_setup_teardown(another_driver, begin, end),
		cmocka_unit_test_setup_teardown(inhibitors, begin, end),
		cmocka_unit_test_setup_teardown(hint_errors, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
