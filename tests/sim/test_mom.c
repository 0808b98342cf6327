// SPDX-License-Identifier: MIT
/* The baseline follows MOM's rules: outcomes worked out by hand from doc/balloon.rules. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "world.h"

/* cmocka's own is for float. */
#define assert_near(a, b) assert_true(fabs((a) - (b)) < 0.01)

static const struct world_options options = {.guests = 1, .floor = 0.25};

/*
 * One guest of 4 GiB on a host of 10 GiB; `free_part` of the host is free, `unused` of the guest.
 * Returns what the guest is told to keep, in MiB, after ten seconds.
 */
static double after_a_round(double balloon, double unused, double free_part)
{
	struct guest g = {.size = 4 * GIB, .balloon = balloon, .target = balloon};
	struct world w = {.options = &options, .n = 1, .guests = &g, .total = 10 * GIB};
	void *state = policy_mom.create(&w);

	g.anon = g.size - g.balloon - unused;
	w.resident = w.total * (1 - free_part);
	for (w.now_s = 1; w.now_s <= 10; w.now_s++)
		policy_mom.second(state, &w);
	policy_mom.destroy(state);
	return (g.size - g.target) / MIB;
}

static void shrinks(void **state)
{
	(void)state;
	/* 10 % free: used + 10 % of 4096 is less than what 5 % less leaves. */
	assert_near(after_a_round(0, 2 * GIB, 0.10), 4096 * 0.95);
	/* 300 MiB unused, of which 10 % stay: nothing to take. */
	assert_near(after_a_round(0, 300 * MIB, 0.10), 4096);
	/* 500 MiB unused: 409.6 stay free. */
	assert_near(after_a_round(0, 500 * MIB, 0.10), 4096 - 500 + 409.6);
	/* Too small a change to be worth it: under 0.25 %. */
	assert_near(after_a_round(0, 415 * MIB, 0.10), 4096);
	/* Critical: 3 % free - 5 % of 4096 is taken from what it uses. */
	assert_near(after_a_round(0, 0, 0.03), 4096 * 0.98);
	/* Never under the minimum. */
	assert_near(after_a_round(3 * GIB - 20 * MIB, 900 * MIB, 0.03), 1024);
}

static void grows(void **state)
{
	(void)state;
	assert_near(after_a_round(2 * GIB, GIB, 0.30), 2048 * 1.05);
	/* 100 MiB unused of 2048, 20 % wanted: grows to that at once. */
	assert_near(after_a_round(2 * GIB, 100 * MIB, 0.30), 2048 - 100 + 409.6);
	assert_near(after_a_round(50 * MIB, GIB, 0.30), 4096);
	assert_near(after_a_round(0, GIB, 0.30), 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shrinks),
		cmocka_unit_test(grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
