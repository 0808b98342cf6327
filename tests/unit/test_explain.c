// SPDX-License-Identifier: MIT
/* Sentences: right words, right numbers, and never a byte too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/explain.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static void sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 bytes"},
		{1023, "1023 bytes"},
		{1024, "1.0 KiB"},
		{10240, "10 KiB"},
		{1536 * 1024, "1.5 MiB"},
		{10 * MIB - 1, "9.9 MiB"},
		{812 * MIB, "812 MiB"},
		{GIB, "1.0 GiB"},
		{5 * GIB / 2, "2.5 GiB"},
		{1ULL << 40, "1.0 TiB"},
		{UINT64_MAX, "16777215 TiB"},
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(explain_bytes(cases[i].bytes, buf, sizeof(buf)),
				 strlen(cases[i].text));
		assert_string_equal(buf, cases[i].text);
	}
}

static void sentences(void **state)
{
	struct decision d = {
		.from = 3 * GIB,
		.to = 5 * GIB / 2,
		.action = ACTION_TAKE,
		.reason = REASON_IDLE,
		.goal = 2 * GIB,
		.actual = 3 * GIB,
		.used = GIB,
		.working = GIB,
		.available = 2 * GIB,
		.growth = DECISION_UNKNOWN,
		.age_ms = 1234,
		.budget = 16 * GIB,
		.room = 512 * MIB,
	};
	char buf[EXPLAIN_ROOM];

	(void)state;
	explain_decision(&d, "web1", buf, sizeof(buf));
	assert_string_equal(
		buf,
		"web1: lowered from 3.0 GiB to 2.5 GiB, because it does not use it, and others may "
		"at "
		"any moment (has 3.0 GiB, uses 1.0 GiB, used of late 1.0 GiB, available 2.0 GiB, "
		"should have 2.0 GiB, all may have 16 GiB, of that free 512 MiB, statistics 1.2 s "
		"old).");
	d.action = ACTION_RELEASE;
	d.reason = REASON_PRESSURE;
	d.pressure = 3;
	d.to = 4 * GIB;
	explain_decision(&d, "a\nb\x7f", buf, sizeof(buf));
	assert_non_null(strstr(buf, "a?b?: released fully, from 3.0 GiB to 4.0 GiB, because the "
				    "guest said that memory is short: critical pressure"));
	d.reason = REASON_VERDICT;
	d.verdict = VERDICT_THRASHING;
	explain_decision(&d, "x", buf, sizeof(buf));
	assert_non_null(strstr(buf, "because the guest is thrashing"));
	d.action = ACTION_KEEP;
	d.reason = REASON_NO_STATISTICS;
	d.actual = d.used = d.working = d.available = d.goal = d.budget = d.room = d.age_ms =
		DECISION_UNKNOWN;
	explain_decision(&d, "x", buf, sizeof(buf));
	assert_string_equal(buf, "x: stays at 3.0 GiB, because it sends no statistics.");
}

static void judgements(void **state)
{
	struct judgement j = {
		.verdict = VERDICT_THRASHING,
		.reason = VERDICT_BY_STALL_RATIO,
		.numbers = {.span_ms = 1000, .stalls = 12, .scan_direct = 8 * MIB, .total = GIB},
	};
	char buf[EXPLAIN_ROOM];

	(void)state;
	explain_judgement(&j, "db", buf, sizeof(buf));
	assert_string_equal(buf,
			    "db: thrashing, because allocations stall for want of memory, and "
			    "reclaim finds little (12 stalls, 8.0 MiB scanned directly, 1.0 GiB "
			    "in all, in 1.0 s).");
	j.weak = true;
	explain_judgement(&j, "db", buf, sizeof(buf));
	assert_non_null(strstr(buf, "may be wrong"));
}

/* Everything that can be said fits into EXPLAIN_ROOM, and into any smaller buffer as a beginning.
 */
static void fits(void **state)
{
	char name[200], full[EXPLAIN_ROOM], part[EXPLAIN_ROOM + 1];
	struct judgement j = {.weak = true};
	struct decision d;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	for (int i = 0; i < ACTION_COUNT * REASON_COUNT; i++) {
		size_t n;

		memset(&d, 0x7f, sizeof(d));
		d.action = (enum action)(i % ACTION_COUNT);
		d.reason = (enum reason)(i / ACTION_COUNT);
		d.verdict = (enum verdict)(i % VERDICT_COUNT);
		n = explain_decision(&d, name, full, sizeof(full));
		assert_in_range(n, 20, EXPLAIN_ROOM - 1);
		assert_int_equal(strlen(full), n);
		assert_int_equal(full[n - 1], '.');
		for (size_t len = 0; len < 200; len += 7) {
			memset(part, '#', sizeof(part));
			assert_int_equal(explain_decision(&d, name, part, len), n);
			assert_int_equal(part[len], '#');
			if (len) {
				assert_int_equal(part[len - 1], '\0');
				assert_memory_equal(part, full, len - 1);
			}
		}
	}
	memset(&j.numbers, 0xff, sizeof(j.numbers));
	for (int v = 0; v < VERDICT_COUNT; v++) {
		for (int r = 0; r < VERDICT_REASON_COUNT; r++) {
			j.verdict = (enum verdict)v;
			j.reason = (enum verdict_reason)r;
			assert_in_range(explain_judgement(&j, name, full, sizeof(full)), 20,
					EXPLAIN_ROOM - 1);
		}
	}
}

static void names(void **state)
{
	(void)state;
	for (int i = 0; i < REASON_COUNT; i++) {
		for (int k = 0; k < i; k++)
			assert_string_not_equal(reason_name((enum reason)i),
						reason_name((enum reason)k));
	}
	for (int i = 0; i < ACTION_COUNT; i++)
		assert_true(strlen(action_name((enum action)i)) > 3);
	assert_string_equal(reason_name(REASON_NO_HOST), "no-host");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes), cmocka_unit_test(sentences), cmocka_unit_test(judgements),
		cmocka_unit_test(fits),  cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
