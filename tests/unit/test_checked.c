// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/instant.h"
#include "base/le.h"

#define MAX UINT64_MAX
#define TOP (1ULL << 63)

static void add_and_mul(void **state)
{
	static const struct {
		uint64_t a, b;
		bool sum_ok, product_ok;
	} cases[] = {
		{0, 0, true, true},
		{MAX, 0, true, true},
		{MAX, 1, false, true},
		{1, MAX, false, true},
		{MAX, MAX, false, false},
		{TOP, TOP, false, false},
		{TOP, TOP - 1, true, false},
		{TOP, 2, true, false},
		{1ULL << 32, 1ULL << 31, true, true},
		{1ULL << 32, 1ULL << 32, true, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t r = 42;

		assert_int_equal(checked_add(cases[i].a, cases[i].b, &r), cases[i].sum_ok);
		assert_true(r == (cases[i].sum_ok ? cases[i].a + cases[i].b : 42));
		r = 42;
		assert_int_equal(checked_mul(cases[i].a, cases[i].b, &r), cases[i].product_ok);
		assert_true(r == (cases[i].product_ok ? cases[i].a * cases[i].b : 42));
	}
}

static void within(void **state)
{
	static const struct {
		uint64_t start, len, size;
		bool ok;
	} cases[] = {
		{0, 0, 0, true},        {0, 1, 0, false},    {0, 10, 10, true},
		{1, 10, 10, false},     {10, 0, 10, true},   {11, 0, 10, false},
		{9, 1, 10, true},       {10, 1, 10, false},  {MAX, 1, MAX, false},
		{MAX, 0, MAX, true},    {0, MAX, MAX, true}, {1, MAX, MAX, false},
		{MAX, MAX, MAX, false}, {MAX, 2, 10, false}, {5, MAX - 4, 10, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(range_within(cases[i].start, cases[i].len, cases[i].size),
				 cases[i].ok);
}

static void overlap(void **state)
{
	static const struct {
		uint64_t a, alen, b, blen;
		bool overlap;
	} cases[] = {
		{0, 10, 10, 10, false},      {0, 11, 10, 10, true},
		{5, 1, 0, 10, true},         {0, 0, 0, 10, false},
		{5, 0, 0, 10, false},        {0, 10, 0, 10, true},
		{MAX - 1, 1, MAX, 0, false}, {MAX - 9, 9, MAX - 1, 1, true},
		{0, MAX, MAX - 1, 1, true},  {0, 1, MAX - 1, 1, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(
			ranges_overlap(cases[i].a, cases[i].alen, cases[i].b, cases[i].blen),
			cases[i].overlap);
		assert_int_equal(
			ranges_overlap(cases[i].b, cases[i].blen, cases[i].a, cases[i].alen),
			cases[i].overlap);
	}
}

static void powers_and_alignment(void **state)
{
	(void)state;
	assert_false(is_power_of_two(0));
	assert_true(is_power_of_two(1));
	assert_false(is_power_of_two(3));
	assert_true(is_power_of_two(TOP));
	assert_false(is_power_of_two(MAX));
	assert_true(align_down(4095, 4096) == 0);
	assert_true(align_down(MAX, 4096) == MAX - 4095);
	assert_true(align_up(0, 4096) == 0);
	assert_true(align_up(1, 4096) == 4096);
	assert_true(align_up(4096, 4096) == 4096);
	assert_true(align_up(7, 1) == 7);
	assert_true(min_u64(MAX, 1) == 1 && min_u64(1, MAX) == 1);
}

static void little_endian(void **state)
{
	static const uint8_t bytes[] = {0xff, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
	uint8_t out[9] = {0};

	(void)state;
	/* at an odd address on purpose */
	assert_int_equal(le16_get(bytes + 1), 0x2301);
	assert_int_equal(le32_get(bytes + 1), 0x67452301);
	assert_true(le64_get(bytes + 1) == 0xefcdab8967452301);
	le16_put(out + 1, 0x2301);
	assert_memory_equal(out + 1, bytes + 1, 2);
	le32_put(out + 1, 0x67452301);
	assert_memory_equal(out + 1, bytes + 1, 4);
	le64_put(out + 1, 0xefcdab8967452301);
	assert_memory_equal(out + 1, bytes + 1, 8);
	assert_int_equal(out[0], 0);
}

static void ages(void **state)
{
	struct instant then = {.mono_ms = 1000}, now = {.mono_ms = 1007};

	(void)state;
	assert_int_equal(instant_age_ms(now, then), 7);
	assert_int_equal(instant_age_ms(then, then), 0);
	assert_int_equal(instant_age_ms(then, now), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add_and_mul),   cmocka_unit_test(within),
		cmocka_unit_test(overlap),       cmocka_unit_test(powers_and_alignment),
		cmocka_unit_test(little_endian), cmocka_unit_test(ages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
