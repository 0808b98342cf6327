// SPDX-License-Identifier: MIT
/* The manager's pass in portions: what comes of it in the end, and what happens in between. */
#include "manager_helpers.h"

#define SIZE    (1024 * MIB)
#define N       40
#define PORTION 6U /* three moves, of a command and an event each */

static struct test_host h;

static const struct balance_vm *vm(uint32_t slot)
{
	return manager_balance(&h.m, slot);
}

/*
 * Guests that have everything, with statistics of now, when the budget does not hold for all: each
 * is told to keep less by the next pass.
 */
static void crowd(uint32_t portion, uint64_t budget)
{
	test_begin(&h, budget, TEST_VMS);
	h.m.config.portion = portion;
	for (uint32_t i = 0; i < N; i++)
		test_add(&h, i, SIZE, 128 * MIB + i * MIB);
	h.now += MANAGER_PASS_MS;
	for (uint32_t i = 0; i < N; i++)
		test_guest_step(&h, i);
	assert_int_equal(h.m.moves, 0);
}

/* One portion, no larger than it may be: the last VM whose turn it is makes up to two calls. */
static void portion(void)
{
	uint64_t calls = h.m.calls;

	manager_tick(&h.m, h.now);
	assert_in_range(h.m.calls - calls, 0, PORTION + 1);
}

/* As many as it takes to have the first moves made; not all. */
static void until_moving(void)
{
	for (int i = 0; i < 3; i++)
		portion();
	assert_int_equal(h.m.pass.step, PASS_MOVES);
	assert_in_range(h.m.moves, 1, N - 10);
	assert_true(manager_next(&h.m) == h.now);
}

static void to_the_end(void)
{
	for (int i = 0; i < 2 * N && h.m.pass.step != PASS_NONE; i++)
		portion();
	assert_int_equal(h.m.pass.step, PASS_NONE);
	assert_true(manager_next(&h.m) > h.now);
}

/* Drained without anything in between, portions are the whole pass: the same moves for the same
 * reasons, and the same sums. */
static void adds_up(void **state)
{
	static struct balance_vm whole[N];
	static struct decision why[N];
	struct balance_plan plan;
	uint64_t passes;

	(void)state;
	crowd(0, N * 600 * MIB);
	manager_tick(&h.m, h.now);
	assert_int_equal(h.m.moves, N);
	plan = h.m.plan;
	memcpy(whole, h.balance, sizeof(whole));
	for (uint32_t i = 0; i < N; i++)
		why[i] = *manager_decision(&h.m, i, 0);
	crowd(PORTION, N * 600 * MIB);
	passes = h.m.passes;
	until_moving();
	to_the_end();
	assert_true(h.m.passes == passes + 1);
	assert_memory_equal(&h.m.plan, &plan, sizeof(plan));
	assert_memory_equal(h.balance, whole, sizeof(whole));
	for (uint32_t i = 0; i < N; i++) {
		assert_int_equal(h.guest[i].commands, 1);
		assert_memory_equal(manager_decision(&h.m, i, 0), &why[i], sizeof(why[i]));
	}
}

/* An emergency overtakes what is left of a pass, which takes nothing from it when its turn comes.
 */
static void emergency(void **state)
{
	uint32_t last = N - 1, first = 0;

	(void)state;
	crowd(PORTION, N * 600 * MIB);
	until_moving();
	assert_true(vm(first)->target < SIZE && vm(last)->target == SIZE);
	manager_pressure(&h.m, first, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_true(h.guest[first].target == SIZE);
	assert_int_equal(h.decision.action, ACTION_RELEASE);
	assert_int_equal(h.m.pass.step, PASS_MOVES);
	manager_pressure(&h.m, last, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	to_the_end();
	assert_int_equal(h.guest[last].commands, 0);
	assert_true(vm(first)->target == SIZE && vm(last)->target == SIZE);
	assert_int_equal(manager_vm(&h.m, last)->standing.reason, REASON_EMERGENCY);
	for (uint32_t i = 1; i < last; i++)
		assert_true(h.guest[i].commands == 1 && vm(i)->target < SIZE);
}

/* Who has gone, fallen silent or has come before his turn is treated as what he is then. */
static void changed(void **state)
{
	(void)state;
	crowd(PORTION, N * 600 * MIB);
	until_moving();
	assert_int_equal(manager_vm_remove(&h.m, N - 1, h.now), 0);
	assert_int_equal(manager_vm_remove(&h.m, N - 2, h.now), 0);
	assert_int_equal(manager_vm_remove(&h.m, N - 7, h.now), 0);
	test_add(&h, N - 2, SIZE / 2, 100 * MIB);
	for (int i = 0; i < MANAGER_UNANSWERED_HUNG; i++)
		manager_unanswered(&h.m, N - 3, h.now);
	manager_driver(&h.m, N - 4, MANAGER_DRIVER_NONE, h.now);
	/* Told by its operator meanwhile. */
	assert_int_equal(manager_vm_set(&h.m, N - 5, 0, 300 * MIB, 0, h.now), 0);
	to_the_end();
	for (uint32_t i = N - 4; i < N; i++)
		assert_int_equal(h.guest[i].commands, 0);
	assert_true(vm(N - 2)->target == SIZE / 2);
	assert_int_equal(manager_vm(&h.m, N - 3)->standing.reason, REASON_UNRESPONSIVE);
	assert_true(h.guest[N - 5].commands == 1 && vm(N - 5)->target == 300 * MIB);
	assert_int_equal(h.guest[N - 6].commands, 1);
	assert_int_equal(h.guest[N - 7].commands, 0);
	/* Slots are walked only as far as they are taken. */
	assert_int_equal(h.m.used, N - 1);
	for (uint32_t i = 0; i < N - 1; i++)
		manager_vm_remove(&h.m, i, h.now);
	assert_int_equal(h.m.used, 0);
}

/* What is known when it is one's turn counts, and that may be too old by then: it is left at that.
 */
static void stale(void **state)
{
	uint64_t moves;

	(void)state;
	crowd(PORTION, N * 600 * MIB);
	until_moving();
	moves = h.m.moves;
	h.now += MANAGER_STALE_MS + 1;
	while (h.m.pass.step != PASS_NONE)
		portion();
	assert_true(h.m.moves == moves);
	assert_int_equal(manager_vm(&h.m, N - 1)->standing.reason, REASON_STALE);
}

/* Other settings: nothing more is done by the plan that was made under the old ones. */
static void settings(void **state)
{
	struct manager_config config;
	uint64_t moves;

	(void)state;
	crowd(PORTION, N * 600 * MIB);
	until_moving();
	moves = h.m.moves;
	config = h.m.config;
	config.budget = 2ULL * N * SIZE;
	manager_configure(&h.m, &config, h.now);
	assert_true(manager_next(&h.m) == h.m.passed_ms + MANAGER_PASS_SOON_MS);
	h.now = manager_next(&h.m);
	manager_tick(&h.m, h.now);
	to_the_end();
	assert_true(h.m.moves == moves);
}

/* A reservation does not wait for what is left of a pass: it is free first, and granted then. */
static void reservation(void **state)
{
	uint64_t id;

	(void)state;
	crowd(PORTION, N * SIZE + 100 * MIB);
	manager_tick(&h.m, h.now);
	to_the_end();
	assert_int_equal(manager_reserve(&h.m, 50 * MIB, 2000, 0, h.now, &id), 0);
	assert_int_equal(h.events[MANAGER_EVENT_RESERVATION], 1);
	assert_int_equal(h.last[MANAGER_EVENT_RESERVATION].change, RESERVE_IS_GRANTED);
	assert_int_equal(manager_release(&h.m, id, h.now), 0);

	crowd(PORTION, N * 600 * MIB);
	until_moving();
	assert_int_equal(manager_reserve(&h.m, 1024 * MIB, 60000, 0, h.now, &id), 0);
	assert_int_equal(h.events[MANAGER_EVENT_RESERVATION], 0);
	assert_true(manager_next(&h.m) == h.now);
	to_the_end();
	for (uint32_t i = 0; i < N; i++) {
		assert_int_equal(h.guest[i].commands, 1);
		test_guest_step(&h, i);
	}
	/* The first were told before it was asked for, the others for it. */
	assert_int_equal(manager_decision(&h.m, 0, 0)->reason, REASON_SCARCE);
	assert_int_equal(manager_decision(&h.m, N - 1, 0)->reason, REASON_RESERVATION);
	assert_int_equal(h.events[MANAGER_EVENT_RESERVATION], 0);
	for (int i = 0; i < 600 && !h.events[MANAGER_EVENT_RESERVATION]; i++) {
		h.now += 100;
		manager_tick(&h.m, h.now);
		to_the_end();
		for (uint32_t k = 0; h.now % 1000 == 0 && k < N; k++)
			test_guest_step(&h, k);
	}
	assert_int_equal(h.last[MANAGER_EVENT_RESERVATION].change, RESERVE_IS_GRANTED);
	assert_true(test_promised(&h) + 1024 * MIB <= N * 600 * MIB);
}

/* A guest of which 300 MiB are left, and more is needed; or one that has memory to give. */
static void needs(uint32_t slot, bool more)
{
	struct manager_facts facts = test_facts(SIZE);
	struct test_guest *g = &h.guest[slot];

	*g = (struct test_guest){.size = SIZE};
	g->used = (more ? 290 : 50) * MIB;
	g->keeps = g->target = facts.actual = facts.target = (more ? 300 : 500) * MIB;
	assert_int_equal(manager_vm_add(&h.m, slot, &facts, NULL, h.now), 0);
}

/* There is some room that half of all are in need of, and each gets a part. What somebody takes of
 * it before the turn of others is not promised to them a second time. */
static void room(void **state)
{
	(void)state;
	test_begin(&h, N * 400 * MIB, N);
	for (uint32_t i = 0; i < N; i++)
		needs(i, i < N / 2);
	manager_tick(&h.m, h.now);
	h.now += MANAGER_PASS_MS;
	for (uint32_t i = 0; i < N; i++)
		test_guest_step(&h, i);
	assert_int_equal(h.m.moves, 0);
	h.m.config.budget += 400 * MIB;
	h.m.config.portion = PORTION;
	until_moving();
	assert_true(h.m.pass.unmet > h.m.pass.room && h.m.pass.room > 0);
	assert_true(vm(0)->target > 300 * MIB && h.guest[N / 2 - 1].commands == 0);
	/* An operator's floor is given whatever the room is: it takes all that was left. */
	assert_int_equal(manager_vm_set(&h.m, N - 1, SIZE, MANAGER_UNKNOWN, 0, h.now), 0);
	assert_true(h.m.plan.promised >= h.m.plan.budget);
	to_the_end();
	assert_int_equal(h.guest[N / 2 - 1].commands, 0);
	assert_int_equal(manager_vm(&h.m, N / 2 - 1)->standing.reason, REASON_NO_ROOM);
	assert_int_equal(h.decision.action, ACTION_TAKE);
}

/* What pass after pass is only told, observing, comes in portions as well; so does what time does
 * to many at once. */
static void only_told(void **state)
{
	(void)state;
	crowd(PORTION, N * 600 * MIB);
	h.m.config.observe = true;
	manager_tick(&h.m, h.now);
	portion();
	assert_in_range(h.events[MANAGER_EVENT_DECISION], 1, PORTION);
	to_the_end();
	assert_int_equal(h.events[MANAGER_EVENT_DECISION], N);

	crowd(PORTION, N * 600 * MIB);
	manager_tick(&h.m, h.now);
	to_the_end();
	for (uint32_t i = 0; i < N; i++)
		h.guest[i].deaf = true;
	for (int s = 0; s < 60 && !h.events[MANAGER_EVENT_PROGRESS]; s++) {
		h.now += 1000;
		for (uint32_t i = 0; i < N; i++)
			test_guest_step(&h, i);
		portion();
	}
	assert_in_range(h.events[MANAGER_EVENT_PROGRESS], 1, PORTION);
	assert_int_equal(h.m.pass.step, PASS_UPKEEP);
	to_the_end();
	assert_int_equal(h.events[MANAGER_EVENT_PROGRESS], N);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adds_up),  cmocka_unit_test(emergency),
		cmocka_unit_test(changed),  cmocka_unit_test(stale),
		cmocka_unit_test(settings), cmocka_unit_test(reservation),
		cmocka_unit_test(room),     cmocka_unit_test(only_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
