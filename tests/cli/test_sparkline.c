// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "sparkline.h"

#define TOP 800

static void empty(void **state)
{
	struct history h = {0};
	char buf[64];

	(void)state;
	assert_string_equal(sparkline(&h, TOP, 5, false, buf, sizeof(buf)), "     ");
	assert_string_equal(sparkline(&h, TOP, 0, false, buf, sizeof(buf)), "");
}

static void steps(void **state)
{
	struct history h = {0};
	char buf[2 * HISTORY_SAMPLES];

	(void)state;
	for (uint64_t value = 0; value <= 900; value += 100)
		history_add(&h, value);
	/* As many cells as samples: each has its own, the newest at the right. */
	sparkline(&h, TOP, HISTORY_SAMPLES, false, buf, sizeof(buf));
	assert_int_equal(strlen(buf), HISTORY_SAMPLES);
	assert_string_equal(buf + HISTORY_SAMPLES - 10, "_.:-=+*###");
	assert_string_equal(sparkline(&h, TOP, 1, true, buf, sizeof(buf)), "\u2588");
	/* Nothing is known of what would be all of it. */
	assert_string_equal(sparkline(&h, 0, 1, false, buf, sizeof(buf)), "_");
}

static void gaps(void **state)
{
	struct history h = {0};
	char buf[2 * HISTORY_SAMPLES];

	(void)state;
	history_add(&h, 800);
	history_add(&h, HISTORY_UNKNOWN);
	history_add(&h, 0);
	sparkline(&h, TOP, HISTORY_SAMPLES, false, buf, sizeof(buf));
	assert_string_equal(buf + HISTORY_SAMPLES - 4, " # _");
}

/* A cell shows the highest of its samples, and keeps them while it moves to the left. */
static void together(void **state)
{
	struct history h = {0};
	char buf[64];

	(void)state;
	for (int i = 0; i < 100; i++)
		history_add(&h, i == 50 ? 800 : 100);
	assert_string_equal(sparkline(&h, TOP, 3, false, buf, sizeof(buf)), "  #");
	history_add(&h, 100);
	assert_string_equal(sparkline(&h, TOP, 3, false, buf, sizeof(buf)), " #.");
	for (int i = 0; i < 100; i++)
		history_add(&h, 100);
	assert_string_equal(sparkline(&h, TOP, 3, false, buf, sizeof(buf)), "#..");
}

/* What was overwritten is not shown as what stands in its place now. */
static void around(void **state)
{
	struct history h = {0};
	char buf[64];

	(void)state;
	for (int i = 0; i < 10 * HISTORY_SAMPLES; i++)
		history_add(&h, 100);
	history_add(&h, 800);
	/* 100 cells of 3 samples; the newest cell has only that one, the oldest its last two. */
	assert_string_equal(sparkline(&h, TOP, 2, false, buf, sizeof(buf)), ".#");
	for (int i = 0; i < HISTORY_SAMPLES; i++)
		history_add(&h, 100);
	assert_null(strchr(sparkline(&h, TOP, 2, false, buf, sizeof(buf)), '#'));
}

static void small_buffer(void **state)
{
	struct history h = {0};
	char buf[8];

	(void)state;
	for (int i = 0; i < HISTORY_SAMPLES; i++)
		history_add(&h, 800);
	assert_string_equal(sparkline(&h, TOP, 30, true, buf, sizeof(buf)), "\u2588\u2588");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty),  cmocka_unit_test(steps),
		cmocka_unit_test(gaps),   cmocka_unit_test(together),
		cmocka_unit_test(around), cmocka_unit_test(small_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
