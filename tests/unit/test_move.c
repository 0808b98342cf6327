// SPDX-License-Identifier: MIT
/* From a goal to a target: what goes at once, what waits, and how far one step goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/balance.h"
#include "policy/demand.h"

#define MIB  (1ULL << 20)
#define SIZE (1024 * MIB)
#define NOW  1000000

static struct balance_vm vm;
static struct balance_plan plan;
static struct decision d;

/* A VM that uses 256 MiB and stands at that target, in a plan with room. */
static void at(uint64_t target, uint64_t goal)
{
	vm = (struct balance_vm){
		.size = SIZE,
		.floor = 128 * MIB,
		.ceiling = SIZE,
		.weight = BALANCE_WEIGHT_DEFAULT,
		.actual = target,
		.target = target,
		.used = 256 * MIB,
		.working = 256 * MIB,
		.goal = goal,
		.need_reason = REASON_GROWTH,
		.emergency_reason = REASON_PRESSURE,
	};
	balance_levels(&vm);
	plan = (struct balance_plan){
		.known = true, .budget = 8 * SIZE, .promised = 4 * SIZE, .level = LEVEL_CEILING};
}

static void decide_with(uint64_t cap)
{
	memset(&d, 0xee, sizeof(d));
	balance_decide(&plan, &vm, cap, NOW, &d);
	assert_true(d.from == vm.target);
	assert_true(d.goal == vm.goal);
	assert_true(d.to >= vm.floor && d.to <= vm.size);
	if (d.action == ACTION_KEEP)
		assert_true(d.to == d.from);
}

static void expect(enum action action, enum reason reason)
{
	decide_with(balance_room_need(&plan));
	if (d.action != action || d.reason != reason)
		fail_msg("%s because %s", action_name(d.action), reason_name(d.reason));
}

/* An emergency releases everything at once, and wins over everything but the lack of a driver. */
static void emergencies(void **state)
{
	(void)state;
	at(200 * MIB, 200 * MIB);
	plan.budget = 0; /* whatever the budget is */
	for (uint32_t other = 0; other < 1U << 11; other++) {
		vm.flags = BALANCE_EMERGENCY | (other & ~(uint32_t)BALANCE_NO_DRIVER);
		vm.lowered_ms = NOW;
		decide_with(0);
		assert_int_equal(d.action, ACTION_RELEASE);
		assert_int_equal(d.reason, REASON_PRESSURE);
		assert_true(d.to == SIZE);
	}
	vm.flags |= BALANCE_NO_DRIVER;
	expect(ACTION_KEEP, REASON_NO_DRIVER);
	/* As much as the operator lets it have. */
	vm.flags = BALANCE_EMERGENCY;
	vm.ceiling = 500 * MIB;
	decide_with(0);
	assert_true(d.to == 500 * MIB);
	/* And nothing is taken while it lasts. */
	at(SIZE, 300 * MIB);
	vm.flags = BALANCE_EMERGENCY;
	expect(ACTION_KEEP, REASON_EMERGENCY);
}

/* The operator's bounds hold at once, without a step, whatever else; but nobody out of reach falls.
 */
static void bounds(void **state)
{
	static const uint32_t out_of_reach[] = {BALANCE_NO_DRIVER, BALANCE_UNRESPONSIVE,
						BALANCE_PAUSED, BALANCE_UNCOOPERATIVE,
						BALANCE_INHIBITED};

	(void)state;
	at(100 * MIB, 100 * MIB);
	vm.floor = 150 * MIB;
	vm.flags = BALANCE_STALE;
	plan.promised = 9 * SIZE;
	expect(ACTION_GIVE, REASON_BOUNDS);
	assert_true(d.to == 150 * MIB);
	at(SIZE, SIZE);
	vm.ceiling = 150 * MIB;
	vm.flags = BALANCE_NO_STATISTICS | BALANCE_PENDING;
	vm.raised_ms = NOW;
	expect(ACTION_TAKE, REASON_BOUNDS);
	assert_true(d.to == 150 * MIB);
	for (size_t i = 0; i < sizeof(out_of_reach) / sizeof(out_of_reach[0]); i++) {
		vm.flags = out_of_reach[i];
		decide_with(0);
		assert_int_equal(d.action, ACTION_KEEP);
	}
}

/* VMs that cannot be moved are not, each for its reason. */
static void fixed(void **state)
{
	static const struct {
		uint32_t flag;
		enum reason reason;
	} cases[] = {
		{BALANCE_NO_DRIVER, REASON_NO_DRIVER},
		{BALANCE_NO_STATISTICS, REASON_NO_STATISTICS},
		{BALANCE_STALE, REASON_STALE},
		{BALANCE_UNRESPONSIVE, REASON_UNRESPONSIVE},
		{BALANCE_PAUSED, REASON_PAUSED},
		{BALANCE_UNCOOPERATIVE, REASON_UNCOOPERATIVE},
		{BALANCE_INHIBITED, REASON_INHIBITED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		at(800 * MIB, 200 * MIB);
		vm.flags = cases[i].flag;
		expect(ACTION_KEEP, cases[i].reason);
		assert_true(cases[i].flag & BALANCE_FIXED);
	}
	at(800 * MIB, 200 * MIB);
	plan.known = false;
	expect(ACTION_KEEP, REASON_NO_HOST);
}

/* What is needed goes at once, in one step, also right after a fall. */
static void need_at_once(void **state)
{
	(void)state;
	at(200 * MIB, SIZE);
	vm.headroom = 300 * MIB;
	balance_levels(&vm);
	vm.lowered_ms = NOW;
	expect(ACTION_GIVE, REASON_GROWTH);
	assert_true(d.to + BALANCE_GRAIN > vm.level[LEVEL_NEED]);
	assert_true(d.to <= vm.level[LEVEL_NEED]);
	/* As far as there is room. */
	decide_with(50 * MIB);
	assert_true(d.to == 250 * MIB);
	decide_with(0);
	assert_int_equal(d.action, ACTION_KEEP);
	assert_int_equal(d.reason, REASON_NO_ROOM);
	/* What has not been given yet is given back for nothing. */
	vm.actual = 400 * MIB;
	decide_with(0);
	assert_int_equal(d.action, ACTION_GIVE);
	assert_true(d.to == 400 * MIB);
	/* No more than it deserves when memory is scarce. */
	vm.goal = 260 * MIB;
	decide_with(SIZE);
	assert_true(d.to == 260 * MIB);
	/* What it learned. */
	at(280 * MIB, SIZE);
	vm.learned = 500 * MIB;
	balance_levels(&vm);
	expect(ACTION_GIVE, REASON_RELEARNED);
}

/* Raises for comfort: outside the dead band, not after a fall, and not out of the pool. */
static void comfort(void **state)
{
	uint64_t band = SIZE / BALANCE_RAISE_PART;

	(void)state;
	at(500 * MIB, 500 * MIB + band - BALANCE_GRAIN);
	expect(ACTION_KEEP, REASON_SETTLED);
	at(500 * MIB, 500 * MIB + band);
	expect(ACTION_GIVE, REASON_PLENTY);
	assert_true(d.to == vm.goal);
	vm.lowered_ms = NOW - BALANCE_AFTER_LOWER_MS + 1;
	expect(ACTION_KEEP, REASON_JUST_MOVED);
	vm.lowered_ms = NOW - BALANCE_AFTER_LOWER_MS;
	expect(ACTION_GIVE, REASON_PLENTY);
	plan.pool = 4 * SIZE - band / 2;
	expect(ACTION_KEEP, REASON_NO_ROOM);
	plan.pool = 4 * SIZE - band;
	expect(ACTION_GIVE, REASON_PLENTY);
	/* The last bit to an empty balloon is worth it. */
	at(SIZE - 2 * BALANCE_GRAIN, SIZE);
	expect(ACTION_GIVE, REASON_PLENTY);
	assert_true(d.to == SIZE);
}

/* Steps are capped on the way down: three quarters of what is free, or a 32nd; an 8th in need. */
static void steps(void **state)
{
	(void)state;
	at(800 * MIB, 300 * MIB);
	expect(ACTION_TAKE, REASON_IDLE);
	assert_true(d.to == 800 * MIB - SIZE / BALANCE_STEP_PART);
	vm.free = 200 * MIB;
	expect(ACTION_TAKE, REASON_IDLE);
	assert_true(d.to == 650 * MIB);
	vm.free = 0;
	plan.scarce = true;
	expect(ACTION_TAKE, REASON_SCARCE);
	assert_true(d.to == 800 * MIB - SIZE / BALANCE_STEP_SCARCE_PART);
	/* Judged by weak evidence: a quarter of it. */
	vm.flags = BALANCE_CAREFUL;
	expect(ACTION_TAKE, REASON_SCARCE);
	assert_true(d.to == 800 * MIB - SIZE / BALANCE_STEP_SCARCE_PART / 4);
	/* What is in use goes in small bits. */
	at(250 * MIB, 128 * MIB);
	plan.scarce = true;
	expect(ACTION_TAKE, REASON_SCARCE);
	assert_true(d.to == 250 * MIB - SIZE / BALANCE_STEP_USED_PART);
	/* Never further than the goal, and the reason is the host's when it is pressed. */
	at(800 * MIB, 780 * MIB);
	vm.free = 700 * MIB;
	plan.host_pressed = true;
	expect(ACTION_TAKE, REASON_HOST);
	assert_true(d.to == 780 * MIB);
	plan.reservation = true;
	expect(ACTION_TAKE, REASON_RESERVATION);
}

/* The dead band downwards, which narrows when more is promised than there is. */
static void dead_band(void **state)
{
	uint64_t band = SIZE / BALANCE_LOWER_PART;

	(void)state;
	at(800 * MIB, 800 * MIB - band + BALANCE_GRAIN);
	expect(ACTION_KEEP, REASON_SETTLED);
	vm.goal = 800 * MIB - band;
	expect(ACTION_TAKE, REASON_IDLE);
	vm.goal = 800 * MIB - BALANCE_GRAIN;
	expect(ACTION_KEEP, REASON_SETTLED);
	plan.promised = plan.budget + 1;
	expect(ACTION_TAKE, REASON_IDLE);
}

/* A target that was raised is not lowered for noise; nor one that is not reached yet. */
static void hysteresis(void **state)
{
	(void)state;
	at(800 * MIB, 300 * MIB);
	vm.raised_ms = NOW - BALANCE_AFTER_RAISE_MS + 1;
	expect(ACTION_KEEP, REASON_JUST_MOVED);
	vm.raised_ms--;
	expect(ACTION_TAKE, REASON_IDLE);
	plan.scarce = true;
	vm.raised_ms = NOW - BALANCE_AFTER_RAISE_SCARCE_MS + 1;
	expect(ACTION_KEEP, REASON_JUST_MOVED);
	vm.raised_ms--;
	expect(ACTION_TAKE, REASON_SCARCE);
	/* A reservation has no time for that. */
	vm.raised_ms = NOW;
	plan.reservation = true;
	expect(ACTION_TAKE, REASON_RESERVATION);
	vm.flags = BALANCE_PENDING;
	expect(ACTION_KEEP, REASON_PENDING);
	/* A clock that went back: the raise is just now. */
	at(800 * MIB, 300 * MIB);
	vm.raised_ms = NOW + 1000000;
	expect(ACTION_KEEP, REASON_JUST_MOVED);
}

/* What it could not give is not asked for again. */
static void learned(void **state)
{
	(void)state;
	at(600 * MIB, 300 * MIB);
	vm.learned = 590 * MIB;
	vm.flags = BALANCE_LEARNED_HARD;
	expect(ACTION_TAKE, REASON_IDLE);
	assert_true(d.to == 590 * MIB);
	vm.learned = 600 * MIB;
	expect(ACTION_KEEP, REASON_LEARNED);
	/* Nor what it suffered without, however scarce memory is. */
	vm.flags = 0;
	plan.scarce = true;
	expect(ACTION_KEEP, REASON_LEARNED);
	/* Unless the host itself is about to swap; what it cannot give is no help even then. */
	plan.desperate = true;
	expect(ACTION_TAKE, REASON_SCARCE);
	vm.flags = BALANCE_LEARNED_HARD;
	expect(ACTION_KEEP, REASON_LEARNED);
	plan.desperate = false;
	vm.learned = 0;
	expect(ACTION_TAKE, REASON_SCARCE);
}

/* The sums of a plan follow what is applied. */
static void applied(void **state)
{
	(void)state;
	at(800 * MIB, 300 * MIB);
	plan.promised = 800 * MIB;
	expect(ACTION_TAKE, REASON_IDLE);
	balance_apply(&plan, &vm, &d, NOW);
	assert_true(vm.target == d.to);
	assert_int_equal(vm.lowered_ms, NOW);
	assert_int_equal(vm.raised_ms, 0);
	/* It is still there: memory that is asked back is promised until it comes. */
	assert_true(plan.promised == 800 * MIB);
	balance_account(&plan, &vm, true);
	vm.actual = 700 * MIB;
	balance_account(&plan, &vm, false);
	assert_true(plan.promised == vm.target);
	/* The emergency's surplus counts apart. */
	balance_account(&plan, &vm, true);
	vm.flags = BALANCE_EMERGENCY;
	balance_account(&plan, &vm, false);
	expect(ACTION_RELEASE, REASON_PRESSURE);
	balance_apply(&plan, &vm, &d, 0);
	assert_int_equal(vm.raised_ms, 1);
	assert_true(plan.promised == SIZE);
	assert_true(plan.surplus == SIZE - vm.level[LEVEL_NEED]);
}

/* Targets are whole grains below the size, unless the operator's bounds are not. */
static void grains(void **state)
{
	(void)state;
	at(200 * MIB, SIZE);
	vm.headroom = 300 * MIB + 12345;
	balance_levels(&vm);
	decide_with(100 * MIB + 4567);
	assert_int_equal((SIZE - d.to) % BALANCE_GRAIN, 0);
	vm.floor = vm.ceiling = 300 * MIB + 77;
	decide_with(SIZE);
	assert_true(d.to == 300 * MIB + 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(emergencies), cmocka_unit_test(bounds),
		cmocka_unit_test(fixed),       cmocka_unit_test(need_at_once),
		cmocka_unit_test(comfort),     cmocka_unit_test(steps),
		cmocka_unit_test(dead_band),   cmocka_unit_test(hysteresis),
		cmocka_unit_test(learned),     cmocka_unit_test(applied),
		cmocka_unit_test(grains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
