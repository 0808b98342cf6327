// SPDX-License-Identifier: MIT
/* Does a guest follow its target? Slow, stalled, deaf, and excused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/progress.h"

#define MIB (1ULL << 20)

static struct progress p;

static void begin(uint64_t actual, uint64_t target)
{
	progress_init(&p, actual, 1000);
	assert_int_equal(p.state, PROGRESS_REACHED);
	assert_false(progress_pending(&p));
	progress_target(&p, target, 1000);
}

/* 15 MiB/s for 4 s is no stall, a byte less is one. */
static void stall(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	assert_true(progress_pending(&p));
	progress_actual(&p, 940 * MIB, 4000);
	assert_false(progress_update(&p, 5000));
	assert_int_equal(p.state, PROGRESS_MOVING);
	progress_actual(&p, 881 * MIB, 8000);
	assert_false(progress_update(&p, 8999));
	assert_true(progress_update(&p, 9000));
	assert_int_equal(p.state, PROGRESS_STALLED);
	assert_true(progress_pending(&p));
	/* It stays stalled until there is another target. */
	progress_actual(&p, 600 * MIB, 9500);
	assert_false(progress_update(&p, 9500));
	progress_target(&p, 700 * MIB, 9600);
	assert_int_equal(p.state, PROGRESS_MOVING);
}

/* Deflation does not stall: nobody has to reclaim for it. */
static void deflation(void **state)
{
	(void)state;
	begin(500 * MIB, 1000 * MIB);
	progress_actual(&p, 510 * MIB, 3000);
	assert_false(progress_update(&p, 20000));
	assert_int_equal(p.state, PROGRESS_MOVING);
	assert_true(progress_update(&p, 23000));
	assert_int_equal(p.state, PROGRESS_UNCOOPERATIVE);
}

static void reached(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	progress_actual(&p, 500 * MIB + PROGRESS_NEAR, 2000);
	assert_int_equal(p.state, PROGRESS_REACHED);
	assert_false(progress_update(&p, 99000));
	/* A guest that leaves its target has its time anew. */
	progress_actual(&p, 600 * MIB, 100000);
	assert_int_equal(p.state, PROGRESS_MOVING);
}

static void deaf(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	assert_true(progress_update(&p, 5000));
	assert_int_equal(p.state, PROGRESS_STALLED);
	/* The back-off does not reach it either: deaf, 20 s after it was told. */
	progress_target(&p, progress_back_off(&p, 4096 * MIB), 5000);
	assert_int_equal(p.target, 1128 * MIB);
	assert_false(progress_update(&p, 24999));
	assert_true(progress_update(&p, 25000));
	assert_int_equal(p.state, PROGRESS_UNCOOPERATIVE);
	assert_false(progress_pending(&p));
	/* Another target does not make it hear; a step towards it does. */
	progress_target(&p, 600 * MIB, 26000);
	assert_false(progress_update(&p, 26000));
	assert_int_equal(p.state, PROGRESS_UNCOOPERATIVE);
	progress_actual(&p, 1000 * MIB - 1, 27000);
	assert_int_equal(p.state, PROGRESS_UNCOOPERATIVE);
	progress_actual(&p, 990 * MIB, 28000);
	assert_int_equal(p.state, PROGRESS_MOVING);
}

/* Slow but steady is not deaf. */
static void steady(void **state)
{
	(void)state;
	begin(500 * MIB, 1000 * MIB);
	for (uint64_t s = 2; s < 100; s++) {
		progress_actual(&p, (500 + s) * MIB, s * 1000);
		assert_false(progress_update(&p, s * 1000));
	}
}

/* A page now and then is deaf all the same; small steps count when they add up in time. */
static void crawls(void **state)
{
	static const struct {
		uint64_t step;
		enum progress_state state;
	} cases[] = {
		{4096, PROGRESS_UNCOOPERATIVE},
		{PROGRESS_STEP / 2 - 4096, PROGRESS_UNCOOPERATIVE},
		{PROGRESS_STEP / 2, PROGRESS_STALLED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t actual = 1000 * MIB;

		begin(actual, 500 * MIB);
		for (uint64_t ms = 1000 + 9900; ms < 200000; ms += 9900) {
			progress_actual(&p, actual -= cases[i].step, ms);
			progress_update(&p, ms);
			if (p.state == PROGRESS_UNCOOPERATIVE)
				break;
		}
		progress_update(&p, 205000);
		assert_int_equal(p.state, cases[i].state);
	}
	/* What it did before it was called deaf does not make it hear again. */
	begin(1000 * MIB, 500 * MIB);
	progress_actual(&p, 1000 * MIB - PROGRESS_STEP + 4096, 2000);
	assert_true(progress_update(&p, 21000));
	assert_int_equal(p.state, PROGRESS_UNCOOPERATIVE);
	progress_actual(&p, 1000 * MIB - PROGRESS_STEP, 22000);
	assert_int_equal(p.state, PROGRESS_UNCOOPERATIVE);
	progress_actual(&p, 1000 * MIB - 2 * PROGRESS_STEP + 4096, 23000);
	assert_int_equal(p.state, PROGRESS_MOVING);
}

/* Each window in which a stalled inflation is slow counts once; one that is fast again does not. */
static void stalls_again(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	assert_false(progress_stalls_again(&p, 5000));
	assert_true(progress_update(&p, 5500));
	assert_int_equal(p.state, PROGRESS_STALLED);
	assert_false(progress_stalls_again(&p, 9499));
	assert_true(progress_stalls_again(&p, 9500));
	progress_actual(&p, 941 * MIB, 13000);
	assert_false(progress_stalls_again(&p, 13499));
	assert_true(progress_stalls_again(&p, 13500));
	progress_actual(&p, 881 * MIB, 17000);
	assert_false(progress_stalls_again(&p, 17500));
	progress_actual(&p, 821 * MIB, 21000);
	assert_false(progress_stalls_again(&p, 21500));
	assert_int_equal(p.state, PROGRESS_STALLED);
	progress_actual(&p, 500 * MIB, 22000);
	assert_false(progress_stalls_again(&p, 99000));
}

/* Nothing is held against a guest that did not run. */
static void excused(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	progress_skip(&p, 900000);
	assert_false(progress_update(&p, 903999));
	assert_true(progress_update(&p, 904000));
	assert_int_equal(p.state, PROGRESS_STALLED);
}

/* Back-off: 128 MiB, a 16th of the VM, and never above its size. */
static void back_off(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	assert_true(progress_back_off(&p, 1024 * MIB) == 1024 * MIB);
	assert_true(progress_back_off(&p, 1600 * MIB) == 1100 * MIB);
	assert_true(progress_back_off(&p, 8192 * MIB) == 1128 * MIB);
}

/* A clock that goes back, and one at its end. */
static void clocks(void **state)
{
	(void)state;
	begin(1000 * MIB, 500 * MIB);
	assert_false(progress_update(&p, 0));
	progress_init(&p, 1000 * MIB, UINT64_MAX - 10);
	progress_target(&p, 500 * MIB, UINT64_MAX - 10);
	assert_false(progress_update(&p, UINT64_MAX));
}

static void names(void **state)
{
	(void)state;
	for (int i = 0; i < PROGRESS_STATE_COUNT; i++) {
		for (int k = 0; k < i; k++)
			assert_string_not_equal(progress_name((enum progress_state)i),
						progress_name((enum progress_state)k));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stall),    cmocka_unit_test(deflation),
		cmocka_unit_test(reached),  cmocka_unit_test(deaf),
		cmocka_unit_test(steady),   cmocka_unit_test(excused),
		cmocka_unit_test(crawls),   cmocka_unit_test(stalls_again),
		cmocka_unit_test(back_off), cmocka_unit_test(clocks),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
