// SPDX-License-Identifier: MIT
/* What monitors answer: right, wrong, hostile or not at all, for every question and both kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/aerostatd/endpoint_parts.h"
#include "qmp/json.h"

#define GIB            (1ULL << 30)
#define BIT_OF(change) (1U << ENDPOINT_CHANGE_##change)

#define QEMU_COMMANDS                                                                        \
	"[{\"name\": \"query-balloon\"}, {\"name\": \"qom-get\"}, {\"name\": \"qom-set\"},"  \
	" {\"name\": \"qom-list\"}, {\"name\": \"query-name\"}, {\"name\": \"query-uuid\"}," \
	" {\"name\": \"query-status\"}, {\"name\": \"query-memory-size-summary\"}]"
#define OUR_COMMANDS                                                                        \
	"[{\"name\": \"query-balloon\"}, {\"name\": \"qom-get\"}, {\"name\": \"qom-set\"}," \
	" {\"name\": \"query-balloon-device\"}, {\"name\": \"set-stats-push-interval\"},"   \
	" {\"name\": \"query-guest-health\"}]"

static const struct instant now = {.mono_ms = 1000000, .wall_us = 1700000000500000};

static struct endpoint e;
static unsigned int changes;

static int setup(void **state)
{
	(void)state;
	e = (struct endpoint){.interval_ms = 1000};
	e.view.target = MANAGER_UNKNOWN;
	e.view.running = true;
	return 0;
}

static enum verdict_on_answer answer_at(enum question q, const char *text, struct instant when)
{
	struct json_object *value = text ? json_tokener_parse(text) : NULL;
	enum verdict_on_answer verdict;

	changes = 0;
	verdict = question_answer(&e, q, value, when, &changes);
	json_object_put(value);
	return verdict;
}

static enum verdict_on_answer answer(enum question q, const char *text)
{
	return answer_at(q, text, now);
}

static bool take_stats(const char *text, struct instant when)
{
	struct json_object *value = json_tokener_parse(text);
	bool fresh;

	assert_non_null(value);
	fresh = endpoint_take_stats(&e, value, when);
	json_object_put(value);
	return fresh;
}

static void kinds(void **state)
{
	(void)state;
	assert_int_equal(answer(QUESTION_COMMANDS, QEMU_COMMANDS), ANSWER_FINE);
	assert_int_equal(e.view.kind, ENDPOINT_KIND_QEMU);
	assert_string_equal(e.balloon, "");
	assert_true(question_applies(&e, QUESTION_NAMED));
	assert_true(question_applies(&e, QUESTION_SIZE));
	assert_false(question_applies(&e, QUESTION_DEVICE));
	assert_false(question_applies(&e, QUESTION_PUSHING));
	assert_int_equal(answer(QUESTION_COMMANDS, OUR_COMMANDS), ANSWER_FINE);
	assert_int_equal(e.view.kind, ENDPOINT_KIND_AEROSTAT);
	assert_string_not_equal(e.balloon, "");
	assert_false(question_applies(&e, QUESTION_NAMED));
	assert_false(question_applies(&e, QUESTION_NAMELESS));
	assert_false(question_applies(&e, QUESTION_BALLOON));
	assert_true(question_applies(&e, QUESTION_PUSHING));
	e.observe = true;
	assert_false(question_applies(&e, QUESTION_PUSHING));
	assert_false(question_applies(&e, QUESTION_POLLING));
	assert_true(question_applies(&e, QUESTION_STATS));
	assert_int_equal(answer(QUESTION_COMMANDS, "[{\"name\": \"quit\"}]"), ANSWER_NO_BALLOON);
	assert_int_equal(e.view.kind, ENDPOINT_KIND_UNKNOWN);
	assert_int_equal(answer(QUESTION_COMMANDS, "[{\"name\": \"query-balloon\"},"
						   " {\"name\": \"qom-get\"}]"),
			 ANSWER_NO_BALLOON);
}

static void commands_that_are_none(void **state)
{
	static const char *const cases[] = {NULL, "{}", "5", "\"query-balloon\"", "null"};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(answer(QUESTION_COMMANDS, cases[i]), ANSWER_NONSENSE);
	assert_int_equal(answer(QUESTION_COMMANDS, "[1, null, [], {\"name\": 5}, {}]"),
			 ANSWER_NO_BALLOON);
}

static void names(void **state)
{
	char text[600], name[300];

	(void)state;
	assert_int_equal(answer(QUESTION_NAME, "{\"name\": \"web\"}"), ANSWER_FINE);
	assert_string_equal(e.view.name, "web");
	answer(QUESTION_NAME, "{\"name\": \"a\\nb\\u001b\\u007f\\tc\"}");
	assert_string_equal(e.view.name, "a?b???c");
	answer(QUESTION_NAME, "{\"name\": \"a\\u009b2J\\u00a0\\u00e9\"}");
	assert_string_equal(e.view.name, "a?2J\u00a0\u00e9");
	/* One without a name has none, and not that of who was here before. */
	answer(QUESTION_NAME, "{}");
	assert_string_equal(e.view.name, "");
	strcpy(e.view.name, "before");
	answer(QUESTION_NAME, "{\"name\": 5}");
	assert_string_equal(e.view.name, "");
	strcpy(e.view.name, "before");
	strcpy(e.view.uuid, "before");
	answer(QUESTION_COMMANDS, OUR_COMMANDS);
	assert_string_equal(e.view.name, "");
	assert_string_equal(e.view.uuid, "");
	/* Cut, but not in the middle of a character, wherever that begins. */
	for (size_t n = 110; n < 140; n++) {
		static const char *const tails[] = {"x", "\xc3\xa4", "\xe2\x82\xac",
						    "\xf0\x9f\x8e\x88"};

		for (size_t t = 0; t < 4; t++) {
			memset(name, 'n', n);
			name[n] = '\0';
			strcat(strcat(strcat(name, tails[t]), tails[t]), tails[t]);
			snprintf(text, sizeof(text), "{\"name\": \"%s\"}", name);
			answer(QUESTION_NAME, text);
			assert_in_range(strlen(e.view.name), 100, ENDPOINT_NAME_MAX - 1);
			assert_memory_equal(e.view.name, name, strlen(e.view.name));
			for (size_t i = 0; e.view.name[i];) {
				size_t len = qmp_utf8_len(e.view.name + i, strlen(e.view.name + i));

				assert_true(len > 0);
				i += len;
			}
		}
	}
}

static void uuids(void **state)
{
	(void)state;
	answer(QUESTION_UUID, "{\"UUID\": \"6ba7b812-9dad-11d1-80b4-00c04fd430c8\"}");
	assert_string_equal(e.view.uuid, "6ba7b812-9dad-11d1-80b4-00c04fd430c8");
	answer(QUESTION_UUID, "{\"UUID\": \"00000000-0000-0000-0000-000000000000\"}");
	assert_string_equal(e.view.uuid, "");
	answer(QUESTION_UUID, "{\"UUID\": \"6ba7b812-9dad-11d1-80b4-00c04fd430c8-and-more\"}");
	assert_string_equal(e.view.uuid, "");
	answer(QUESTION_UUID, "{\"UUID\": \"6BA7B812-9DAD-11D1-80B4-00C04FD430C8\"}");
	assert_string_equal(e.view.uuid, "6BA7B812-9DAD-11D1-80B4-00C04FD430C8");
	answer(QUESTION_UUID, NULL);
	assert_string_equal(e.view.uuid, "");
	/* It could be what another is called. */
	answer(QUESTION_UUID, "{\"UUID\": \"web\"}");
	assert_string_equal(e.view.uuid, "");
}

static void status(void **state)
{
	(void)state;
	assert_int_equal(answer(QUESTION_STATUS, "{\"running\": false}"), ANSWER_FINE);
	assert_false(e.view.running);
	assert_int_equal(changes, BIT_OF(HEALTH));
	assert_int_equal(answer(QUESTION_STATUS, "{\"running\": false}"), ANSWER_FINE);
	assert_int_equal(changes, 0);
	assert_int_equal(answer(QUESTION_STATUS, "{\"running\": 1}"), ANSWER_FINE);
	assert_int_equal(answer(QUESTION_STATUS, NULL), ANSWER_FINE);
	assert_false(e.view.running);
	answer(QUESTION_STATUS, "{\"running\": true}");
	assert_true(e.view.running);
	assert_int_equal(e.runs_since_ms, now.mono_ms);
}

static void sizes(void **state)
{
	static const char *const nonsense[] = {
		NULL,
		"{}",
		"[]",
		"5",
		"{\"base-memory\": -1}",
		"{\"base-memory\": \"1\"}",
		"{\"base-memory\": 1.5}",
		"{\"base-memory\": 18446744073709551615}",
		"{\"base-memory\": 99999999999999999999999999}",
		"{\"base-memory\": 140737488355329}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		assert_int_equal(answer(QUESTION_SIZE, nonsense[i]), ANSWER_NONSENSE);
		assert_int_equal(e.view.size, 0);
	}
	assert_int_equal(answer(QUESTION_SIZE, "{\"base-memory\": 0}"), ANSWER_FINE);
	assert_int_equal(answer(QUESTION_SIZE, "{\"base-memory\": 140737488355328,"
					       " \"plugged-memory\": 140737488355328}"),
			 ANSWER_FINE);
	assert_int_equal(e.view.size, 0);
	assert_int_equal(changes, 0);
	answer(QUESTION_SIZE, "{\"base-memory\": 1073741824, \"plugged-memory\": 1073741824}");
	assert_int_equal(e.view.size, 2 * GIB);
	assert_int_equal(changes, BIT_OF(UP));
	answer(QUESTION_SIZE, "{\"base-memory\": 2147483648, \"plugged-memory\": -1}");
	assert_int_equal(e.view.size, 2 * GIB);
	assert_int_equal(changes, 0);
}

static void where_the_balloon_is(void **state)
{
	char text[256];

	(void)state;
	e.offers = ~0U;
	e.view.kind = ENDPOINT_KIND_QEMU;
	assert_int_equal(answer(QUESTION_NAMED, "[{\"name\": \"type\", \"type\": \"string\"}, 5,"
						" {\"name\": \"b\"}, {\"type\": \"child<virtio-"
						"balloon-pci>\"}]"),
			 ANSWER_FINE);
	assert_string_equal(e.balloon, "");
	assert_true(question_applies(&e, QUESTION_NAMELESS));
	assert_int_equal(answer(QUESTION_NAMELESS, NULL), ANSWER_NO_BALLOON);
	assert_int_equal(answer(QUESTION_NAMELESS, "[]"), ANSWER_NO_BALLOON);
	answer(QUESTION_NAMED, "[{\"name\": \"b0\", \"type\": \"child<virtio-balloon-pci>\"},"
			       " {\"name\": \"b1\", \"type\": \"child<virtio-balloon-pci>\"}]");
	assert_string_equal(e.balloon, "/machine/peripheral/b0");
	assert_false(question_applies(&e, QUESTION_NAMELESS));
	e.balloon[0] = '\0';
	/* A path that does not fit is not cut: it would be another's. */
	snprintf(text, sizeof(text), "[{\"name\": \"%050d\", \"type\": \"child<virtio-balloon>\"}]",
		 5);
	answer(QUESTION_NAMED, text);
	assert_string_equal(e.balloon, "");
	answer(QUESTION_NAMELESS, "[{\"name\": \"device[0]\","
				  " \"type\": \"child<virtio-balloon-ccw>\"}]");
	assert_string_equal(e.balloon, "/machine/peripheral-anon/device[0]");
}

static void what_qemu_keeps(void **state)
{
	static const char *const ignored[] = {
		"{}",
		"5",
		"{\"actual\": 0}",
		"{\"actual\": -5}",
		"{\"actual\": 1.0}",
		"{\"actual\": 18446744073709551615}",
		"{\"actual\": \"1\"}",
	};

	(void)state;
	e.view.kind = ENDPOINT_KIND_QEMU;
	assert_int_equal(answer(QUESTION_BALLOON, NULL), ANSWER_NO_BALLOON);
	answer(QUESTION_BALLOON, "{\"actual\": 1073741824}");
	assert_false(e.view.ready); /* its size is not known */
	e.view.size = GIB;
	answer(QUESTION_BALLOON, "{\"actual\": 1073741824}");
	assert_true(e.view.ready);
	assert_int_equal(changes, BIT_OF(UP));
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
		assert_int_equal(answer(QUESTION_BALLOON, ignored[i]), ANSWER_FINE);
		assert_int_equal(e.view.actual, GIB);
		assert_int_equal(changes, 0);
	}
	answer(QUESTION_BALLOON, "{\"actual\": 2147483648}"); /* more than there is */
	assert_int_equal(e.view.actual, GIB);
	assert_int_equal(e.view.driver, MANAGER_DRIVER_NONE);
	answer(QUESTION_BALLOON, "{\"actual\": 536870912}"); /* who else took it? */
	assert_int_equal(e.view.driver, MANAGER_DRIVER_NO_STATS);
	assert_int_equal(changes, BIT_OF(ACTUAL) | BIT_OF(DRIVER));
}

static void statistics(void **state)
{
	(void)state;
	e.view.kind = ENDPOINT_KIND_QEMU;
	assert_int_equal(answer(QUESTION_STATS, NULL), ANSWER_FINE);
	assert_int_equal(answer(QUESTION_STATS, "{\"stats\": {}, \"last-update\": 0}"),
			 ANSWER_FINE);
	assert_int_equal(changes, 0);
	answer(QUESTION_STATS,
	       "{\"last-update\": 1699999999, \"stats\": {\"stat-free-memory\": 5,"
	       " \"stat-total-memory\": 18446744073709551615, \"stat-swap-in\": -1,"
	       " \"stat-swap-out\": \"7\", \"stat-major-faults\": 1e3,"
	       " \"stat-minor-faults\": 99999999999999999999999999, \"stat-oom-kills\": null,"
	       " \"stat-disk-caches\": 9223372036854775808, \"stat-of-the-future\": 1}}");
	assert_int_equal(changes, BIT_OF(STATS) | BIT_OF(DRIVER));
	assert_int_equal(e.view.driver, MANAGER_DRIVER_FULL);
	assert_int_equal(e.view.stats.known,
			 1U << VIRTIO_BALLOON_S_MEMFREE | 1U << VIRTIO_BALLOON_S_CACHES);
	assert_int_equal(stats_get(&e.view.stats, VIRTIO_BALLOON_S_MEMFREE), 5);
	assert_int_equal(stats_get(&e.view.stats, VIRTIO_BALLOON_S_CACHES), 1ULL << 63);
	assert_int_equal(e.view.stats.at_ms, now.mono_ms - 1000); /* 1.5 s less half a second */
	answer(QUESTION_STATS, "{\"last-update\": 1699999999, \"stats\": {}}");
	assert_int_equal(changes, 0); /* these have been here */
}

static void times_of_statistics(void **state)
{
	static const char *const never[] = {
		"{\"stats\": {}}",
		"{\"stats\": {}, \"last-update\": -1}",
		"{\"stats\": {}, \"last-update\": 18446744073709551615}",
		"{\"stats\": {}, \"last-update\": 9223372036854775808}",
		"{\"stats\": {}, \"last-update\": 9223372036854775807}",
		"{\"stats\": {}, \"last-update\": 9223372036854776}",
		"{\"stats\": {}, \"last-update\": \"5\"}",
	};
	struct instant later = now;
	uint64_t last;

	(void)state;
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
		if (take_stats(never[i], now))
			fail_msg("%s is taken", never[i]);
	}
	/* Of the future: the wall clock was set back. Of before this host was started. */
	assert_true(take_stats("{\"last-update\": 1800000000}", now));
	assert_int_equal(e.view.stats.at_ms, now.mono_ms);
	setup(NULL);
	assert_true(take_stats("{\"last-update\": 5}", now));
	assert_int_equal(e.view.stats.at_ms, 1);
	assert_true(take_stats("{\"last-update\": 6}", now));
	assert_int_equal(e.view.stats.at_ms, 2); /* always later than the ones before */
	/* Whatever a monitor says: never later than now. */
	assert_true(take_stats("{\"last-update\": 1800000000}", now));
	assert_false(take_stats("{\"last-update\": 1800000001}", now));
	last = e.view.stats.at_ms;
	assert_int_equal(last, now.mono_ms);
	later.mono_ms += 5000;
	later.wall_us -= 3600000000LL;
	assert_true(take_stats("{\"last-update\": 1700000003}", later));
	assert_int_equal(e.view.stats.at_ms, later.mono_ms);
}

static void our_own_statistics(void **state)
{
	struct instant later = now;

	(void)state;
	e.view.kind = ENDPOINT_KIND_AEROSTAT;
	assert_true(take_stats("{\"last-update\": 7, \"age-ms\": 250, \"stats\": {}}", now));
	assert_int_equal(e.view.stats.at_ms, now.mono_ms - 250);
	later.mono_ms += 100;
	assert_false(take_stats("{\"last-update\": 7, \"age-ms\": 350, \"stats\": {}}", later));
	assert_false(take_stats("{\"last-update\": 7, \"age-ms\": 18446744073709551615}", later) &&
		     e.view.stats.at_ms > later.mono_ms);
	assert_true(take_stats("{\"last-update\": 7, \"age-ms\": 0}", later));
	assert_false(take_stats("{\"last-update\": 8, \"age-ms\": 0}", later));
	/* Those of a driver that is gone do not come back. */
	endpoint_forget_driver(&e);
	assert_int_equal(e.view.driver, MANAGER_DRIVER_NONE);
	assert_int_equal(e.view.stats.known, 0);
	later.mono_ms += 1000;
	assert_false(take_stats("{\"last-update\": 7, \"age-ms\": 0}", later));
	assert_true(take_stats("{\"last-update\": 8, \"age-ms\": 0}", later));
}

#define DEVICE(more)                                                                   \
	"{\"actual\": 268435456, \"target\": 536870912, \"memory\": 1073741824, "      \
	"\"features-negotiated\": [\"stats\", 5, \"stats-push\", \"message\"], "       \
	"\"freed\": 1, \"inflated\": 2, \"deflated\": 3, \"reported\": 4, "            \
	"\"driver-errors\": {\"hint-id\": 9, \"queue-broken\": 18446744073709551615, " \
	"\"pfn-out-of-range\": -1}" more "}"

static void the_device(void **state)
{
	(void)state;
	e.view.kind = ENDPOINT_KIND_AEROSTAT;
	assert_int_equal(answer(QUESTION_DEVICE, DEVICE(", \"resident\": 5")), ANSWER_FINE);
	assert_true(e.view.ready && e.view.device.known);
	assert_int_equal(e.view.size, GIB);
	assert_int_equal(e.view.actual, GIB - GIB / 4);
	assert_int_equal(e.view.target, GIB / 2);
	assert_int_equal(e.view.driver, MANAGER_DRIVER_FULL);
	assert_true(e.view.device.push && e.view.device.messages && e.view.device.stats);
	assert_int_equal(e.view.device.reported, 4);
	assert_int_equal(e.view.device.errors_known, 1U << ENDPOINT_ERROR_HINT_ID);
	assert_int_equal(e.view.device.errors[ENDPOINT_ERROR_HINT_ID], 9);
	assert_true(changes & BIT_OF(UP) && changes & BIT_OF(DEVICE) && changes & BIT_OF(DRIVER));
	assert_int_equal(answer(QUESTION_DEVICE, DEVICE("")), ANSWER_FINE);
	assert_false(e.view.device.known);
	answer(QUESTION_DEVICE, DEVICE(", \"resident\": 140737488355329"));
	assert_false(e.view.device.known);
	answer(QUESTION_DEVICE, DEVICE(", \"resident\": 5, \"freed\": 18446744073709551615"));
	assert_false(e.view.device.known);
	/* Nobody is connected: there is no memory and no driver. */
	answer(QUESTION_DEVICE, "{\"actual\": 0, \"target\": 0}");
	assert_int_equal(e.view.driver, MANAGER_DRIVER_NONE);
	assert_int_equal(e.view.actual, GIB);
	assert_true(changes & BIT_OF(DRIVER));
}

static void devices_that_are_none(void **state)
{
	static const char *const cases[] = {
		NULL,
		"{}",
		"[]",
		"{\"actual\": 1}",
		"{\"target\": 1}",
		"{\"actual\": -1, \"target\": 1}",
		"{\"actual\": 0, \"target\": 0, \"memory\": 0}",
		"{\"actual\": 5, \"target\": 0, \"memory\": 5}",
		"{\"actual\": 18446744073709551615, \"target\": 0, \"memory\": 5}",
		"{\"actual\": 0, \"target\": 0, \"memory\": 140737488355329}",
	};

	(void)state;
	e.view.kind = ENDPOINT_KIND_AEROSTAT;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (answer(QUESTION_DEVICE, cases[i]) != ANSWER_NONSENSE)
			fail_msg("%s is taken", cases[i]);
		assert_int_equal(e.view.size, 0);
	}
	answer(QUESTION_DEVICE, "{\"actual\": 0, \"target\": 18446744073709551615, "
				"\"memory\": 1073741824, \"features-negotiated\": \"stats\"}");
	assert_true(e.view.target == MANAGER_UNKNOWN);
	assert_int_equal(e.view.driver, MANAGER_DRIVER_NO_STATS);
}

static void health(void **state)
{
	char text[64];

	(void)state;
	for (enum health_state s = 0; s < HEALTH_STATE_COUNT; s++) {
		e.view.health = (s + 1) % HEALTH_STATE_COUNT;
		snprintf(text, sizeof(text), "{\"status\": \"%s\"}", health_state_name(s));
		assert_int_equal(answer(QUESTION_HEALTH, text), ANSWER_FINE);
		assert_int_equal(e.view.health, s);
		assert_int_equal(changes, BIT_OF(HEALTH));
		answer(QUESTION_HEALTH, text);
		assert_int_equal(changes, 0);
	}
	e.view.health = HEALTH_SLOW;
	assert_int_equal(answer(QUESTION_HEALTH, NULL), ANSWER_FINE);
	answer(QUESTION_HEALTH, "{\"status\": \"splendid\"}");
	answer(QUESTION_HEALTH, "{\"status\": 5}");
	answer(QUESTION_HEALTH, "[]");
	assert_int_equal(e.view.health, HEALTH_SLOW);
}

static void what_is_asked(void **state)
{
	static const struct {
		enum question q;
		const char *command, *args;
	} cases[] = {
		{QUESTION_NAMED, "qom-list", "{\"path\":\"\\/machine\\/peripheral\"}"},
		{QUESTION_NAMELESS, "qom-list", "{\"path\":\"\\/machine\\/peripheral-anon\"}"},
		{QUESTION_POLLING, "qom-set",
		 "{\"path\":\"b\",\"property\":\"guest-stats-polling-interval\",\"value\":2}"},
		{QUESTION_STATS, "qom-get", "{\"path\":\"b\",\"property\":\"guest-stats\"}"},
		{QUESTION_PUSHING, "set-stats-push-interval", "{\"interval-ms\":1001}"},
		{QUESTION_BALLOON, "query-balloon", "{}"},
	};

	(void)state;
	e.interval_ms = 1001;
	strcpy(e.balloon, "b");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct json_object *args = question_args(&e, cases[i].q);

		assert_string_equal(question_command(cases[i].q), cases[i].command);
		assert_string_equal(json_object_to_json_string_ext(args, JSON_C_TO_STRING_PLAIN),
				    cases[i].args);
		json_object_put(args);
	}
}

/* Whatever is answered to whatever question: no crash, and nothing that is impossible. */
static void anything_to_anything(void **state)
{
	static const char *const values[] = {
		"null",
		"true",
		"[]",
		"{}",
		"[[[]]]",
		"\"\"",
		"-1",
		"1e308",
		"[{\"name\": [], \"type\": {}}]",
		"{\"actual\": {}, \"target\": [], \"memory\": \"\"}",
		"{\"stats\": [], \"last-update\": 1}",
		"{\"stats\": 5, \"last-update\": 1.5}",
		("{\"features-negotiated\": {}, \"actual\": 0, \"target\": 0, \"memory\": 1,"
		 " \"driver-errors\": []}"),
		"{\"base-memory\": 1, \"plugged-memory\": 140737488355327}",
	};

	(void)state;
	for (enum question q = 0; q < QUESTION_COUNT; q++) {
		for (enum endpoint_kind kind = 0; kind < ENDPOINT_KIND_COUNT; kind++) {
			for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
				setup(NULL);
				e.view.kind = kind;
				(void)answer(q, values[i]);
				assert_true(e.view.size <= 1ULL << 47);
				assert_true(!e.view.size || e.view.actual <= e.view.size);
				assert_true(e.view.stats.at_ms <= now.mono_ms);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(kinds, setup),
		cmocka_unit_test_setup(commands_that_are_none, setup),
		cmocka_unit_test_setup(names, setup),
		cmocka_unit_test_setup(uuids, setup),
		cmocka_unit_test_setup(status, setup),
		cmocka_unit_test_setup(sizes, setup),
		cmocka_unit_test_setup(where_the_balloon_is, setup),
		cmocka_unit_test_setup(what_qemu_keeps, setup),
		cmocka_unit_test_setup(statistics, setup),
		cmocka_unit_test_setup(times_of_statistics, setup),
		cmocka_unit_test_setup(our_own_statistics, setup),
		cmocka_unit_test_setup(the_device, setup),
		cmocka_unit_test_setup(devices_that_are_none, setup),
		cmocka_unit_test_setup(health, setup),
		cmocka_unit_test_setup(what_is_asked, setup),
		cmocka_unit_test_setup(anything_to_anything, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
