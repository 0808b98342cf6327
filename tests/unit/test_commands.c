// SPDX-License-Identifier: MIT
/* The monitor's commands, over JSON, against a real balloon. */
#include "commands_helpers.h"

static void schema(void **state)
{
	struct qmp_error err;

	(void)state;
	if (qmp_schema_check(&monitor_schema, &err) < 0)
		fail_msg("%s", err.desc);
	for (size_t i = 0; i < EVENT_COUNT; i++)
		assert_non_null(monitor_schema.events[i].name);
}

static void check_event(enum monitor_event event, struct json_object *data)
{
	struct qmp_error err;

	if (qmp_type_check(monitor_schema.events[event].data, data, "data", &err) < 0)
		fail_msg("%s: %s", monitor_schema.events[event].name, err.desc);
	json_object_put(data);
}

/* Every name that can turn up is one that the schema knows. */
static void event_data(void **state)
{
	struct health health = s.control.health;
	struct balloon *b = &s.balloon;

	(void)state;
	for (int i = 0; i < HEALTH_STATE_COUNT; i++) {
		for (int j = 0; j < HEALTH_REASON_COUNT; j++) {
			health.state = (enum health_state)i;
			health.reason = (enum health_reason)j;
			check_event(EVENT_GUEST_HEALTH_CHANGE,
				    commands_health(&health, test_at(5)));
		}
	}
	for (int i = 0; i < BALLOON_HINT_COUNT; i++) {
		b->st.hint.state = (enum balloon_hint_state)i;
		b->st.hint.id = (uint32_t)i * 0x40000000U;
		check_event(EVENT_FREE_PAGE_HINT, commands_hint(b));
	}
	b->st.pressure.ever = true;
	for (uint32_t i = 0; i < VIRTIO_BALLOON_PRESSURE_NR; i++) {
		b->st.pressure.level = i;
		b->st.pressure.type = VIRTIO_BALLOON_MSG_PRESSURE;
		check_event(EVENT_GUEST_PRESSURE, commands_pressure_event(b));
		b->st.pressure.type = VIRTIO_BALLOON_MSG_RELIEVED;
		check_event(EVENT_GUEST_PRESSURE, commands_pressure_event(b));
	}
	check_event(EVENT_DEVICE_RESTARTED, commands_restarted("killed by signal 9", 7));
	check_event(EVENT_BALLOON, commands_stats_event(&b->st.stats, UINT64_MAX, test_at(5)));
	check_event(EVENT_BALLOON, commands_stats_event(&b->st.stats, 1U << 20, test_at(5)));
}

static void nobody_there(void **state)
{
	struct json_object *r;

	(void)state;
	r = ask("query-balloon-device", "");
	expect(r, "target", "0");
	expect(r, "resident", "12345");
	expect(r, "memory", "(none)");
	expect(r, "discard-failures", "3");
	expect(r, "queues", "[]");
	expect(r, "inhibitors", "[]");
	expect(r, "hint.status", "\"idle\"");
	expect(r, "hint.id", "(none)");
	expect(r, "pressure.type", "(none)");
	expect(r, "pressure.age-ms", "(none)");
	expect(r, "pressure.messages.low", "0");
	expect(r, "poison-value", "(none)");
	expect(r, "worker-restarts", "0");
	json_object_put(r);
	r = ask("query-status", "");
	expect(r, "status", "\"prelaunch\"");
	json_object_put(r);
	r = ask("query-guest-health", "");
	expect(r, "status", "\"unknown\"");
	expect(r, "reason", "\"no-driver\"");
	expect(r, "silence-ms", "(none)");
	json_object_put(r);
	refused("query-balloon", "", "DeviceNotActive", "No balloon device has been activated");
	refused("free-page-hint", "\"action\": \"start\"", "DeviceNotActive",
		"No balloon device has been activated");
	stats_error = -ENODEV;
	refused("refresh-balloon-stats", "", "DeviceNotActive",
		"No balloon device has been activated");
	human("info balloon", "balloon: no driver\n");
	human("info health", "health: unknown for=0ms (no driver is at work)\n");
	human("info hint", "free page hint: idle\n");
	human("info inhibitors", "no inhibitors\n");
	human("info pressure", "pressure: none (the driver sends no messages)\n");
	human("info status", "VM status: prelaunch\n");
	done("quit", "");
	assert_true(quit);
}

static void device(void **state)
{
	struct balloon_state *st = &s.balloon.st;
	struct json_object *r;

	(void)state;
	driver(V1 | STATS | POISON);
	s.control.restarts = 4;
	st->poison_val = 0xaaaaaaaa;
	st->inflated_pages = 1ULL << 40;
	st->deflated_pages = 2;
	st->reported_bytes = 3;
	st->hinted_bytes = 4;
	st->kept_bytes = 5;
	st->freed_bytes = 6;
	st->pressure = (struct balloon_pressure){.ever = true,
						 .type = VIRTIO_BALLOON_MSG_PRESSURE,
						 .level = VIRTIO_BALLOON_PRESSURE_MEDIUM,
						 .arrived = test_at(2000),
						 .messages = {1, 2, 3, 4},
						 .relieved = 5,
						 .unknown = 6};
	now_ms = 2500;
	r = ask("query-balloon-device", "");
	expect_number(r, "poison-value", 0xaaaaaaaa);
	expect_number(r, "inflated", 1ULL << 52);
	expect(r, "deflated", "8192");
	expect(r, "reported", "3");
	expect(r, "hinted", "4");
	expect(r, "kept", "5");
	expect(r, "freed", "6");
	expect(r, "worker-restarts", "4");
	expect(r, "unknown-messages", "6");
	expect(r, "pressure.level", "\"medium\"");
	expect(r, "pressure.age-ms", "500");
	expect(r, "pressure.last-update", "2");
	expect(r, "pressure.type", "\"pressure\"");
	expect(r, "pressure.messages.unspecified", "1");
	expect(r, "pressure.messages.critical", "4");
	expect(r, "pressure.relieved", "5");
	expect(r, "features-negotiated", "[\"stats\",\"page-poison\",\"version-1\"]");
	assert_int_equal(json_object_array_length(json_object_object_get(r, "queues")), 3);
	json_object_put(r);
	human("info pressure", "pressure: medium age=500ms\n");
	st->pressure.type = VIRTIO_BALLOON_MSG_RELIEVED;
	human("info pressure", "pressure: relieved age=500ms\n");
	r = ask("query-balloon-device", "");
	expect(r, "pressure.type", "\"relieved\"");
	expect(r, "pressure.level", "(none)");
	json_object_put(r);
	human("info status", "VM status: running\n");
}

static void push_interval(void **state)
{
	struct json_object *r;

	(void)state;
	r = ask("set-stats-push-interval", "\"interval-ms\": 5");
	expect(r, "interval-ms", "10");
	json_object_put(r);
	driver(V1 | STATS | PUSH);
	r = ask("set-stats-push-interval", "\"interval-ms\": 4294967295");
	expect_number(r, "interval-ms", UINT32_MAX);
	json_object_put(r);
	assert_int_equal(s.settings.push_ms, UINT32_MAX);
	r = ask("query-balloon-device", "");
	expect_number(r, "stats-push-interval-ms", UINT32_MAX);
	json_object_put(r);
	r = ask("query-guest-health", "");
	expect(r, "reason", "\"awaited\"");
	expect_number(r, "expected-ms", UINT32_MAX);
	json_object_put(r);
	refused("set-stats-push-interval", "\"interval-ms\": 4294967296", GENERIC,
		"Parameter 'interval-ms' is too big");
	refused("set-stats-push-interval", "\"interval-ms\": -1", GENERIC,
		"Parameter 'interval-ms' expects uint64");
	r = ask("set-stats-push-interval", "\"interval-ms\": 0");
	expect(r, "interval-ms", "0");
	json_object_put(r);
	assert_int_equal(s.settings.push_ms, 0);
}

static void push_refused(void **state)
{
	(void)state;
	driver(V1 | STATS);
	refused("set-stats-push-interval", "\"interval-ms\": 100", GENERIC,
		"the guest's driver cannot push statistics");
	done("set-stats-push-interval", "\"interval-ms\": 0");
	assert_int_equal(end(NULL), 0);
	begin_with(STATS);
	refused("set-stats-push-interval", "\"interval-ms\": 100", GENERIC,
		"stats-push is not offered (--features=stats-push)");
	done("set-stats-push-interval", "\"interval-ms\": 0");
}

static void health(void **state)
{
	struct json_object *r;

	(void)state;
	driver(V1 | STATS);
	s.balloon.st.stats.ever = true;
	s.balloon.st.stats.arrived = clock_now();
	on_touched(&s);
	human("info health", "health: healthy for=0ms (statistics come as they should)\n");
	s.balloon.st.stats_awaited = true;
	now_ms = 2000;
	on_touched(&s);
	for (now_ms = 3501; now_ms <= 5001; now_ms += 1500)
		on_touched(&s);
	now_ms = 7000;
	r = ask("query-guest-health", "");
	expect(r, "status", "\"unresponsive\"");
	expect(r, "reason", "\"answer-late\"");
	expect(r, "since", "5");
	expect(r, "duration-ms", "1999");
	expect(r, "gap-ms", "5000");
	expect(r, "expected-ms", "1000");
	expect(r, "silence-ms", "6000");
	expect(r, "changes", "3");
	json_object_put(r);
	human("info health", "health: unresponsive for=1999ms gap=5000ms expected=1000ms (a "
			     "request for statistics is not answered)\n");
}

static void inhibit(void **state)
{
	char arguments[128], long_one[SETTINGS_REASON_MAX + 1];
	struct json_object *r;

	(void)state;
	done("balloon-inhibit", "\"reason\": \"vfio\"");
	done("balloon-inhibit", "\"reason\": \"vfio\"");
	done("balloon-inhibit", "\"reason\": \"a snapshot\"");
	r = ask("query-balloon-device", "");
	expect(r, "inhibitors", "[\"vfio\",\"a snapshot\"]");
	json_object_put(r);
	human("info inhibitors", "inhibitor: vfio\ninhibitor: a snapshot\n");
	assert_true(s.balloon.st.inhibited);
	done("balloon-uninhibit", "\"reason\": \"vfio\"");
	assert_true(s.balloon.st.inhibited);
	done("balloon-uninhibit", "\"reason\": \"a snapshot\"");
	assert_false(s.balloon.st.inhibited);
	refused("balloon-uninhibit", "\"reason\": \"vfio\"", GENERIC,
		"there is no inhibitor 'vfio'");
	refused("balloon-inhibit", "\"reason\": \"\"", GENERIC, "Parameter 'reason' is empty");
	refused("balloon-inhibit", "", GENERIC, "Parameter 'reason' is missing");
	memset(long_one, 'y', sizeof(long_one));
	long_one[SETTINGS_REASON_MAX] = '\0';
	snprintf(arguments, sizeof(arguments), "\"reason\": \"%s\"", long_one);
	say("balloon-inhibit", arguments);
	r = reply();
	assert_non_null(strstr(json_object_to_json_string(r), "is longer than"));
	json_object_put(r);
	for (unsigned int i = 0; i < SETTINGS_INHIBITORS_MAX; i++) {
		snprintf(arguments, sizeof(arguments), "\"reason\": \"%u\"", i);
		done("balloon-inhibit", arguments);
	}
	say("balloon-inhibit", "\"reason\": \"more\"");
	r = reply();
	assert_non_null(strstr(json_object_to_json_string(r), "inhibitors already"));
	json_object_put(r);
}

static void hint(void **state)
{
	struct balloon_hint *h = &s.balloon.st.hint;
	struct json_object *r;

	(void)state;
	driver(V1 | STATS);
	refused("free-page-hint", "\"action\": \"start\"", GENERIC,
		"the guest's driver has no free page hinting");
	refused("free-page-hint", "\"action\": \"finish\"", GENERIC,
		"Parameter 'action' does not accept value 'finish'");
	r = ask("query-free-page-hint", "");
	expect(r, "status", "\"idle\"");
	expect(r, "path", "(none)");
	json_object_put(r);
	h->state = BALLOON_HINT_FINISHED;
	h->id = UINT32_MAX;
	s.balloon.hints.count = 512;
	memcpy(s.control.hints_path, "/proc/1/fd/9", sizeof("/proc/1/fd/9"));
	r = ask("query-free-page-hint", "");
	expect(r, "status", "\"finished\"");
	expect_number(r, "id", UINT32_MAX);
	expect(r, "hinted-bytes", "2097152");
	expect(r, "path", "\"\\/proc\\/1\\/fd\\/9\"");
	json_object_put(r);
	human("info hint", "free page hint: finished id=4294967295 hinted=2 path=/proc/1/fd/9\n");
}

static void as_in_qemu(void **state)
{
	struct json_object *r;

	(void)state;
	done("balloon", "\"value\": 104857600");
	assert_int_equal(guest_size, 104857600);
	refused("balloon", "\"value\": 0", GENERIC, "Parameter 'target' expects a size");
	refused("balloon", "\"value\": -4096", GENERIC, "Parameter 'target' expects a size");
	r = ask("query-balloon", "");
	expect(r, "actual", "104857600");
	json_object_put(r);
	human("balloon 7", "");
	assert_int_equal(guest_size, 7 << 20);
	human("balloon much", "Error: 'much' is no number of MiB\n");

#define PATH "\"path\": \"/machine/peripheral/balloon0\", "
	done("qom-set", PATH "\"property\": \"guest-stats-polling-interval\", \"value\": 3");
	assert_int_equal(poll_ms, 3000);
	refused("qom-set", PATH "\"property\": \"guest-stats-polling-interval\", \"value\": -1",
		GENERIC, "timer value must be greater than zero");
	refused("qom-set", PATH "\"property\": \"guest-stats\", \"value\": 1", GENERIC,
		"Property 'vhost-user-balloon.guest-stats' is not writable");
	refused("qom-get", PATH "\"property\": \"nonsense\"", GENERIC,
		"Property 'vhost-user-balloon.nonsense' not found");
	refused("qom-get", "\"path\": \"/machine\", \"property\": \"guest-stats\"",
		"DeviceNotFound", "Device '/machine' not found");
	s.balloon.st.poll_interval_ms = 3000;
	r = ask("qom-get", PATH "\"property\": \"guest-stats-polling-interval\"");
	assert_int_equal(json_object_get_int(r), 3);
	json_object_put(r);
}

static void statistics(void **state)
{
	struct balloon_stats *stats = &s.balloon.st.stats;
	struct json_object *r;

	(void)state;
	r = ask("qom-get", PATH "\"property\": \"guest-stats\"");
	expect(r, "stats", "{}");
	expect(r, "last-update", "0");
	expect(r, "age-ms", "(none)");
	json_object_put(r);
	stats->ever = true;
	stats->arrived = test_at(7000);
	stats->set = 1U << VIRTIO_BALLOON_S_AVAIL | 1U << VIRTIO_BALLOON_S_SWAP_IN;
	stats->value[VIRTIO_BALLOON_S_AVAIL] = UINT64_MAX - 1;
	now_ms = 7250;
	r = ask("qom-get", PATH "\"property\": \"guest-stats\"");
	expect_number(r, "stats.stat-available-memory", UINT64_MAX - 1);
	expect(r, "stats.stat-swap-in", "0");
	expect(r, "stats.stat-free-memory", "(none)");
	expect(r, "last-update", "7");
	expect(r, "age-ms", "250");
	json_object_put(r);
	/* all of them have a name that the schema knows */
	stats->set = (1U << VIRTIO_BALLOON_S_NR) - 1;
	check_event(EVENT_BALLOON, commands_stats_event(stats, 1U << 20, clock_now()));
	stats_error = -ENOTSUP;
	refused("refresh-balloon-stats", "", GENERIC, "the guest's driver has no statistics");
	stats_error = 0;
	done("refresh-balloon-stats", "");
}

static void info_balloon(void **state)
{
	struct json_object *r;

	(void)state;
	guest_size = 64ULL << 20;
	stats_error = -ENOTSUP;
	human("info balloon", "balloon: actual=64 (statistics off)\n");
	stats_error = 0;
	for (int fresh = 0; fresh < 2; fresh++) {
		say("human-monitor-command", "\"command-line\": \"info balloon\"");
		assert_null(take());
		assert_non_null(waiter);
		waiter->done(waiter, fresh);
		r = reply();
		expect(r, "return",
		       fresh ? "\"balloon: actual=64\\r\\n\""
			     : "\"balloon: actual=64 (the guest does not answer)\\r\\n\"");
		json_object_put(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(schema, begin, end),
		cmocka_unit_test_setup_teardown(event_data, begin, end),
		cmocka_unit_test_setup_teardown(nobody_there, begin, end),
		cmocka_unit_test_setup_teardown(device, begin, end),
		cmocka_unit_test_setup_teardown(push_interval, begin, end),
		cmocka_unit_test_setup_teardown(push_refused, begin, end),
		cmocka_unit_test_setup_teardown(health, begin, end),
		cmocka_unit_test_setup_teardown(inhibit, begin, end),
		cmocka_unit_test_setup_teardown(hint, begin, end),
		cmocka_unit_test_setup_teardown(as_in_qemu, begin, end),
		cmocka_unit_test_setup_teardown(statistics, begin, end),
		cmocka_unit_test_setup_teardown(info_balloon, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
