// SPDX-License-Identifier: MIT
/* A histogram: each duration in one bucket, and in the sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/aerostatd/latency.h"

static void bounds_rise(void **state)
{
	(void)state;
	for (size_t i = 1; i < LATENCY_BUCKETS; i++)
		assert_true(latency_bounds_us[i] > latency_bounds_us[i - 1]);
}

static void ends_belong_to_their_bucket(void **state)
{
	(void)state;
	for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
		struct latency l = {0};

		latency_add(&l, latency_bounds_us[i]);
		latency_add(&l, latency_bounds_us[i] + 1);
		assert_int_equal(l.bucket[i], 1);
		if (i + 1 < LATENCY_BUCKETS)
			assert_int_equal(l.bucket[i + 1], 1);
		assert_int_equal(l.count, 2);
		assert_int_equal(l.sum_us, 2 * latency_bounds_us[i] + 1);
	}
}

static void very_short_and_very_long(void **state)
{
	struct latency l = {0};
	uint64_t in_buckets = 0;

	(void)state;
	latency_add(&l, 0);
	latency_add(&l, 3600000000ULL);
	for (size_t i = 0; i < LATENCY_BUCKETS; i++)
		in_buckets += l.bucket[i];
	assert_int_equal(l.bucket[0], 1);
	assert_int_equal(in_buckets, 1);
	assert_int_equal(l.count, 2);
	assert_int_equal(l.sum_us, 3600000000ULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounds_rise),
		cmocka_unit_test(ends_belong_to_their_bucket),
		cmocka_unit_test(very_short_and_very_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
