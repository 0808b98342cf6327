// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/ratelimit.h"

static void bursts(void **state)
{
	struct ratelimit rl = {.interval_ms = 1000, .burst = 3};
	uint64_t suppressed = 99;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_true(ratelimit_pass(&rl, 5000, &suppressed));
		assert_int_equal(suppressed, 0);
	}
	for (int i = 0; i < 10; i++) {
		suppressed = 99;
		assert_false(ratelimit_pass(&rl, 5999, &suppressed));
		assert_int_equal(suppressed, 99);
	}
	/* The interval began with the first one; what was refused is told once. */
	assert_true(ratelimit_pass(&rl, 6000, &suppressed));
	assert_int_equal(suppressed, 10);
	assert_true(ratelimit_pass(&rl, 6000, &suppressed));
	assert_int_equal(suppressed, 0);
}

/* A clock at its very beginning, and one that goes backwards, must not close the gate. */
static void clocks(void **state)
{
	struct ratelimit rl = {.interval_ms = 1000, .burst = 1};
	uint64_t suppressed;

	(void)state;
	assert_true(ratelimit_pass(&rl, 0, &suppressed));
	assert_false(ratelimit_pass(&rl, 0, &suppressed));
	assert_true(ratelimit_pass(&rl, UINT64_MAX, &suppressed));
	assert_int_equal(suppressed, 1);
	assert_true(ratelimit_pass(&rl, 7, &suppressed));
	assert_false(ratelimit_pass(&rl, 8, &suppressed));
}

static void nothing_passes(void **state)
{
	struct ratelimit rl = {.interval_ms = 1000, .burst = 0};
	uint64_t suppressed;

	(void)state;
	assert_false(ratelimit_pass(&rl, 0, &suppressed));
	assert_false(ratelimit_pass(&rl, 100000, &suppressed));
	assert_int_equal(rl.suppressed, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bursts),
		cmocka_unit_test(clocks),
		cmocka_unit_test(nothing_passes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
