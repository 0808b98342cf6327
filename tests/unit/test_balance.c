// SPDX-License-Identifier: MIT
/* Levels, pool and shares: where everybody should be. How they get there is in test_move. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "draw_helpers.h"
#include "policy/balance.h"
#include "policy/demand.h"

#define MIB  ((uint64_t)1 << 20)
#define SIZE (1024 * MIB)
#define N    4

static struct balance_vm vms[N];
static struct balance_plan plan;

/* VMs of 1 GiB that use 256 MiB each and could have it all. */
static void four(void)
{
	for (int i = 0; i < N; i++)
		vms[i] = (struct balance_vm){
			.size = SIZE,
			.floor = 128 * MIB,
			.ceiling = SIZE,
			.weight = BALANCE_WEIGHT_DEFAULT,
			.actual = SIZE,
			.target = SIZE,
			.used = 256 * MIB,
			.working = 256 * MIB,
		};
}

static void plan_for(uint64_t budget)
{
	struct balance_host host = {.budget = budget};

	balance_plan(&host, vms, N, &plan);
}

static uint64_t goals(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < N; i++)
		sum += vms[i].goal;
	return sum;
}

static void levels(void **state)
{
	uint64_t margin = demand_margin(256 * MIB, SIZE);

	(void)state;
	four();
	vms[0].working = 300 * MIB;
	vms[0].headroom = 20 * MIB;
	vms[0].cache = 100 * MIB;
	balance_levels(&vms[0]);
	/* What is in use is like a floor, of those with a low weight in part. */
	assert_true(vms[0].level[LEVEL_FLOOR] == 256 * MIB + margin / 4);
	vms[2].weight = BALANCE_WEIGHT_DEFAULT / 2;
	balance_levels(&vms[2]);
	assert_in_range(vms[2].level[LEVEL_FLOOR], (128 + 64) * MIB, (128 + 64) * MIB + margin / 8);
	assert_true(vms[0].level[LEVEL_BARE] == 276 * MIB + margin / 2);
	assert_true(vms[0].level[LEVEL_NEED] == 320 * MIB + demand_margin(300 * MIB, SIZE));
	assert_true(vms[0].level[LEVEL_WANT] == vms[0].level[LEVEL_NEED] + 50 * MIB);
	assert_true(vms[0].level[LEVEL_CEILING] == SIZE);
	/* The floor lifts them all, the ceiling cuts them off. */
	vms[0].floor = 500 * MIB;
	vms[0].ceiling = 510 * MIB;
	balance_levels(&vms[0]);
	for (int l = 0; l < LEVEL_CEILING; l++)
		assert_in_range(vms[0].level[l], 500 * MIB, 510 * MIB);
	/* A learned floor is worth keeping; one of what it cannot give is not asked for at all. */
	four();
	vms[1].learned = 600 * MIB;
	balance_levels(&vms[1]);
	assert_true(vms[1].level[LEVEL_NEED] == 600 * MIB);
	assert_true(vms[1].level[LEVEL_BARE] == 256 * MIB + margin / 2);
	vms[1].flags = BALANCE_LEARNED_HARD;
	balance_levels(&vms[1]);
	assert_true(vms[1].level[LEVEL_BARE] == 600 * MIB);
}

/* With room for all ceilings everybody is full and there is no pool; without limits as well. */
static void plenty(void **state)
{
	(void)state;
	four();
	plan_for(4 * SIZE);
	assert_true(plan.known);
	assert_int_equal(plan.pool, 0);
	for (int i = 0; i < N; i++)
		assert_true(vms[i].goal == SIZE);
	/* No budget and nothing known of the host: nobody is moved. */
	plan_for(0);
	assert_false(plan.known);
	for (int i = 0; i < N; i++)
		assert_true(vms[i].goal == vms[i].target);
}

/* Memory that is idle is given equally, and part of it to nobody. */
static void pool(void **state)
{
	uint64_t budget = 2 * SIZE, before = 0;

	(void)state;
	four();
	plan_for(budget);
	assert_true(plan.pool >= budget / BALANCE_POOL_PART);
	assert_true(goals() + plan.pool <= budget);
	assert_true(goals() + plan.pool > budget - (N + 1) * BALANCE_GRAIN);
	for (int i = 1; i < N; i++)
		assert_true(vms[i].goal == vms[0].goal);
	/* Never more than a quarter of what is above the bare levels, nor than could be asked for.
	 */
	assert_true(balance_pool(1600, 100, 1000, 800) == 25);
	assert_true(balance_pool(1600, 800, 1000, 10) == 100);
	assert_true(balance_pool(1600, 800, 1000, 800) == 200);
	assert_true(balance_pool(1600, 990, 1000, 800) == 10);
	assert_true(balance_pool(1600, 1000, 1000, 800) == 0);
	assert_true(balance_pool(1600, 2000, 1000, 800) == 0);
	assert_true(balance_pool(1600, 0, 1000, 800) == 0);
	/* What is handed out grows with the budget, without a step back. */
	for (budget = 256 * MIB; budget < 5 * SIZE; budget += 7 * MIB) {
		plan_for(budget);
		assert_true(goals() + N * BALANCE_GRAIN >= before);
		before = goals();
	}
}

/* Equal relative squeeze: each the same share of what it could have above its need. */
static void equal_squeeze(void **state)
{
	uint64_t share[2];

	(void)state;
	four();
	vms[1].used = vms[1].working = 700 * MIB;
	plan_for(3 * SIZE);
	for (int i = 0; i < 2; i++) {
		assert_true(vms[i].goal >= vms[i].level[LEVEL_NEED]);
		share[i] = (vms[i].goal - vms[i].level[LEVEL_NEED]) * 1000 /
			   (SIZE - vms[i].level[LEVEL_NEED]);
	}
	assert_in_range(share[0], share[1] - 10, share[1] + 10);
	/* Twice the weight is filled twice as fast. */
	four();
	vms[2].weight = 2 * BALANCE_WEIGHT_DEFAULT;
	plan_for(2 * SIZE);
	assert_in_range((vms[2].goal - vms[2].level[LEVEL_NEED]) * 1000 /
				(vms[0].goal - vms[0].level[LEVEL_NEED]),
			1950, 2050);
	assert_true(goals() + plan.pool <= 2 * SIZE);
}

/* Caches come after needs and before everything else. */
static void caches(void **state)
{
	(void)state;
	four();
	vms[3].cache = 800 * MIB;
	plan_for(2 * SIZE);
	assert_true(vms[3].goal > vms[0].goal + 50 * MIB);
	assert_true(vms[0].goal >= vms[0].level[LEVEL_NEED]);
}

/* Those with idle memory give first: nobody is below what it uses while others have idle memory. */
static void idle_first(void **state)
{
	uint64_t bare = 0;

	(void)state;
	four();
	vms[0].working = vms[1].working = 900 * MIB;
	for (int i = 0; i < N; i++) {
		balance_levels(&vms[i]);
		bare += vms[i].level[LEVEL_BARE];
	}
	/* Just enough for what is in use. */
	plan_for(bare + 2 * MIB);
	assert_true(plan.scarce);
	for (int i = 0; i < N; i++) {
		assert_true(vms[i].goal + BALANCE_GRAIN > vms[i].level[LEVEL_BARE]);
		assert_true(vms[i].goal < vms[i].level[LEVEL_BARE] + 2 * MIB);
	}
}

/* If not even that is enough: by weight, and never below a floor or what is in use. */
static void by_weight(void **state)
{
	uint64_t in_use = 256 * MIB + demand_margin(256 * MIB, SIZE) / 4;

	(void)state;
	four();
	vms[0].weight = 400;
	plan_for(4 * in_use + 10 * MIB);
	assert_int_equal(plan.level, LEVEL_BARE);
	assert_true(vms[0].goal > vms[1].goal);
	assert_true(vms[1].goal == vms[2].goal);
	assert_true(goals() <= 4 * in_use + 10 * MIB);
	/* Floors, and what is in use, are promised, whatever there is. */
	vms[1].floor = 500 * MIB;
	plan_for(100 * MIB);
	assert_int_equal(plan.level, LEVEL_FLOOR);
	assert_true(vms[1].goal == 500 * MIB);
	assert_true(vms[2].goal + BALANCE_GRAIN > in_use);
	/* But of those with a low weight: it is taken from them before others suffer. */
	vms[2].weight = 1;
	plan_for(100 * MIB);
	assert_in_range(vms[2].goal, 128 * MIB, 132 * MIB);
}

/* Any weights: the sum fits, nothing is left over that somebody could have, heavier is not worse.
 */
static void any_weights(void **state)
{
	struct balance_vm many[64];
	struct balance_host host = {.budget = 1};

	(void)state;
	draw_begin(11);
	for (int round = 0; round < 2000; round++) {
		size_t n = 1 + (size_t)draw(64);
		uint64_t sum = 0, floors = 0, all = 0;

		for (size_t i = 0; i < n; i++) {
			uint64_t size = (64 + draw(4096)) * MIB;

			many[i] = (struct balance_vm){
				.size = size,
				.floor = draw(64) * MIB,
				.ceiling = size,
				.weight = 1 + (uint32_t)draw(draw(2) ? 10000 : 3),
				.actual = size,
				.target = size,
				.used = draw(4096) * MIB,
				.headroom = draw(100) * MIB,
				.cache = draw(1000) * MIB,
			};
			many[i].working = many[i].used + draw(500) * MIB;
			balance_levels(&many[i]);
			floors += many[i].level[LEVEL_FLOOR];
			all += size;
		}
		host.budget = (1 + draw(all / MIB)) * MIB;
		balance_plan(&host, many, n, &plan);
		for (size_t i = 0; i < n; i++) {
			assert_in_range(many[i].goal, many[i].floor, many[i].size);
			sum += many[i].goal;
		}
		assert_true(sum <= (host.budget > floors ? host.budget : floors));
		if (plan.level > LEVEL_FLOOR && plan.share_q32 < 1ULL << 32)
			assert_true(sum + plan.pool + (n + 2) * BALANCE_GRAIN + all / 500 >=
				    host.budget);
	}
}

/* VMs that cannot be moved keep what they are promised, and the others share the rest. */
static void fixed_ones(void **state)
{
	static const uint32_t flags[] = {
		BALANCE_NO_STATISTICS, BALANCE_STALE,         BALANCE_UNRESPONSIVE,
		BALANCE_PAUSED,        BALANCE_UNCOOPERATIVE, BALANCE_INHIBITED,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		four();
		vms[0].flags = flags[i];
		vms[0].target = 512 * MIB;
		vms[0].actual = 900 * MIB;
		plan_for(2 * SIZE);
		assert_true(plan.fixed == 900 * MIB);
		assert_true(vms[0].goal == 512 * MIB);
		assert_true(900 * MIB + vms[1].goal + vms[2].goal + vms[3].goal <= 2 * SIZE);
	}
	/* Without a driver it has everything, whatever it was told. */
	vms[0].flags = BALANCE_NO_DRIVER;
	assert_true(balance_promised(&vms[0]) == SIZE);
}

/* Of an emergency only what it needs is held against the needs of others; against comfort, all. */
static void emergency_surplus(void **state)
{
	(void)state;
	four();
	vms[0].flags = BALANCE_EMERGENCY;
	for (int i = 1; i < N; i++)
		vms[i].actual = vms[i].target = 300 * MIB;
	plan_for(1800 * MIB);
	assert_true(plan.promised == SIZE + 900 * MIB);
	assert_true(plan.surplus == SIZE - vms[0].level[LEVEL_NEED]);
	assert_true(balance_room_need(&plan) == 1800 * MIB - plan.promised + plan.surplus);
	assert_true(balance_room_comfort(&plan) == 0);
	for (int i = 1; i < N; i++)
		assert_in_range(vms[i].goal, vms[i].level[LEVEL_NEED] - BALANCE_GRAIN,
				vms[i].level[LEVEL_NEED]);
	/* It is held against that once: where there is room for all, all are full. */
	plan_for(4 * SIZE);
	assert_false(plan.scarce);
	for (int i = 1; i < N; i++)
		assert_true(vms[i].goal == SIZE);
	/* And what is left after it is handed out, down to the grains. */
	plan_for(3 * SIZE);
	assert_true(plan.level > LEVEL_NEED);
	assert_in_range(SIZE + vms[1].goal + vms[2].goal + vms[3].goal,
			3 * SIZE - plan.pool - N * BALANCE_GRAIN, 3 * SIZE - plan.pool);
}

/* The host: what is resident and what is available, less the reserve; more of it under pressure. */
static void host_budget(void **state)
{
	struct balance_host host = {.known = true,
				    .available = 3000,
				    .resident = 5000,
				    .total = 10000,
				    .reserve = 1000};
	uint64_t before = 7000;

	(void)state;
	assert_true(balance_budget(&host) == 7000);
	host.some_centi = BALANCE_PSI_LOW;
	assert_true(balance_budget(&host) == 7000);
	for (host.some_centi = BALANCE_PSI_LOW; host.some_centi < 10000; host.some_centi += 50) {
		assert_true(balance_budget(&host) <= before);
		before = balance_budget(&host);
	}
	host.reserve = 700000;
	host.available = 3000000;
	host.some_centi = BALANCE_PSI_HIGH;
	assert_true(balance_budget(&host) == 3005000 - 2 * 700000);
	/* Waiting of everybody counts four times. */
	host.some_centi = 0;
	host.full_centi = BALANCE_PSI_HIGH / 4;
	assert_true(balance_budget(&host) == 3005000 - 2 * 700000);
	host.full_centi = 0;
	/* The lower of the two holds; what makes no sense leaves nothing. */
	host.budget = 100;
	assert_true(balance_budget(&host) == 100);
	host.budget = UINT64_MAX;
	assert_true(balance_budget(&host) == 3005000 - 700000);
	host.reserve = UINT64_MAX;
	assert_int_equal(balance_budget(&host), 0);
	host.known = false;
	host.budget = 0;
	assert_true(balance_budget(&host) == UINT64_MAX);
	/* With a quarter of its reserve left the host comes before what guests have learned. */
	host = (struct balance_host){
		.known = true, .available = 250, .resident = 4 * SIZE, .reserve = 1000};
	four();
	balance_plan(&host, vms, N, &plan);
	assert_false(plan.desperate);
	host.available--;
	balance_plan(&host, vms, N, &plan);
	assert_true(plan.desperate);
	host.known = false;
	balance_plan(&host, vms, N, &plan);
	assert_false(plan.desperate);
}

/* What is reserved is taken off before anybody gets anything. */
static void reservations(void **state)
{
	struct balance_host host = {.budget = 2 * SIZE, .reserved = SIZE / 2, .reservation = true};

	(void)state;
	four();
	balance_plan(&host, vms, N, &plan);
	assert_true(plan.budget == 2 * SIZE - SIZE / 2);
	assert_true(goals() <= plan.budget);
	assert_true(plan.scarce);
}

/* The goal of one VM by the last plan is what the plan found, as long as nothing has changed. */
static void goal_alone(void **state)
{
	uint64_t goal;

	(void)state;
	four();
	vms[2].used = 500 * MIB;
	vms[2].working = 600 * MIB;
	plan_for(2 * SIZE);
	for (int i = 0; i < N; i++) {
		goal = vms[i].goal;
		balance_goal(&plan, &vms[i]);
		assert_true(vms[i].goal == goal);
		/* In whole grains below the size. */
		assert_int_equal((vms[i].size - goal) % BALANCE_GRAIN, 0);
	}
	/* What needs more gets more, without a new plan. */
	goal = vms[0].goal;
	vms[0].headroom = 100 * MIB;
	balance_goal(&plan, &vms[0]);
	assert_true(vms[0].goal > goal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels),      cmocka_unit_test(plenty),
		cmocka_unit_test(pool),        cmocka_unit_test(equal_squeeze),
		cmocka_unit_test(caches),      cmocka_unit_test(idle_first),
		cmocka_unit_test(by_weight),   cmocka_unit_test(any_weights),
		cmocka_unit_test(fixed_ones),  cmocka_unit_test(emergency_surplus),
		cmocka_unit_test(host_budget), cmocka_unit_test(reservations),
		cmocka_unit_test(goal_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
