// SPDX-License-Identifier: MIT
/* The manager: guests that do not do what they are told, or not at once, and how that ends. */
#include "manager_helpers.h"

#define SIZE (1024 * MIB)

static struct test_host h;

static const struct balance_vm *vm(uint32_t slot)
{
	return manager_balance(&h.m, slot);
}

static void unanswered(uint32_t slot, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		manager_unanswered(&h.m, slot, h.now);
}

/* Polls without an answer before a pause and after it are not in a row. */
static void pause_between(void **state)
{
	(void)state;
	test_four(&h);
	unanswered(0, MANAGER_UNANSWERED_HUNG - 1);
	assert_int_equal(manager_vm(&h.m, 0)->health, HEALTH_SLOW);
	manager_health(&h.m, 0, HEALTH_PAUSED, h.now);
	unanswered(0, MANAGER_UNANSWERED_HUNG);
	assert_int_equal(manager_vm(&h.m, 0)->health, HEALTH_PAUSED);
	h.now += 3600000;
	manager_health(&h.m, 0, HEALTH_UNKNOWN, h.now);
	unanswered(0, MANAGER_UNANSWERED_HUNG - 1);
	assert_int_equal(manager_vm(&h.m, 0)->health, HEALTH_SLOW);
	unanswered(0, 1);
	assert_int_equal(manager_vm(&h.m, 0)->health, HEALTH_UNRESPONSIVE);
}

/* Two guests of which the first does not follow: runs until that is found out. */
static void until_deaf(void)
{
	h.guest[0].deaf = true;
	for (int s = 0; s < 300 && h.m.vms[0].progress.state != PROGRESS_UNCOOPERATIVE; s++)
		test_run(&h, 1);
	assert_int_equal(h.m.vms[0].progress.state, PROGRESS_UNCOOPERATIVE);
	assert_int_equal(h.last[MANAGER_EVENT_PROGRESS].progress, PROGRESS_UNCOOPERATIVE);
}

/* Who was deaf at times, and followed in between, is left alone for the first span each time. */
static void deaf_at_times(void **state)
{
	(void)state;
	test_begin(&h, 1200 * MIB, 2);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_add(&h, 1, SIZE, 256 * MIB);
	for (int i = 0; i < 4; i++) {
		until_deaf();
		assert_int_equal(h.m.vms[0].retry_span_ms, MANAGER_RETRY_MS);
		h.guest[0].deaf = false;
		test_run(&h, 120);
		assert_int_equal(h.m.vms[0].progress.state, PROGRESS_REACHED);
		assert_int_equal(h.m.vms[0].retry_span_ms, 0);
		/* It bursts and is done, and there is something to be taken again. */
		manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
		test_run(&h, 2);
		assert_true(h.guest[0].keeps == SIZE);
		h.m.vms[0].learned_end_ms = h.now;
		test_run(&h, 1);
	}
	/* Who only gets what it has anyway has not followed. */
	until_deaf();
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	test_run(&h, 2);
	assert_int_equal(h.m.vms[0].progress.state, PROGRESS_REACHED);
	assert_int_equal(h.last[MANAGER_EVENT_PROGRESS].progress, PROGRESS_REACHED);
	assert_int_equal(h.m.vms[0].retry_span_ms, MANAGER_RETRY_MS);
}

/* That a guest is stalled, and that it is no more, is told: by itself, and by another target. */
static void stall_ends(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		test_begin(&h, 600 * MIB, 1);
		test_add(&h, 0, SIZE, 256 * MIB);
		h.guest[0].deaf = true;
		for (int s = 0; s < 15 && !h.events[MANAGER_EVENT_PROGRESS]; s++)
			test_run(&h, 1);
		assert_int_equal(h.last[MANAGER_EVENT_PROGRESS].progress, PROGRESS_STALLED);
		assert_int_equal(h.m.vms[0].progress.state, PROGRESS_STALLED);
		if (i == 0) {
			h.guest[0].deaf = false;
			h.now += 1000;
			test_guest_step(&h, 0);
			assert_true(vm(0)->actual < SIZE);
		} else {
			manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
		}
		assert_int_equal(h.m.vms[0].progress.state, PROGRESS_REACHED);
		assert_int_equal(h.events[MANAGER_EVENT_PROGRESS], 2);
		assert_int_equal(h.last[MANAGER_EVENT_PROGRESS].progress, PROGRESS_REACHED);
	}
}

/* A monitor that has refused for so long that it is tried seldom. */
static void until_seldom(void)
{
	test_begin(&h, 600 * MIB, 1);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_run(&h, 20);
	assert_true(h.guest[0].keeps < SIZE);
	h.refuse = true;
	h.m.config.budget = 450 * MIB;
	test_run(&h, 130);
	assert_true(h.m.vms[0].failing && h.guest[0].keeps < SIZE);
	assert_int_equal(h.m.vms[0].refused_span_ms, MANAGER_REFUSED_MAX_MS);
}

/* An emergency is not kept waiting for the time at which a refused command is tried again. */
static void refused_emergency(void **state)
{
	uint32_t commands;

	(void)state;
	/* The release is refused as well: it is tried again soon. */
	until_seldom();
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_true(h.guest[0].target < SIZE);
	test_run(&h, 2);
	h.refuse = false;
	for (int s = 0; s < 3 && h.guest[0].target < SIZE; s++)
		test_run(&h, 1);
	assert_true(h.guest[0].target == SIZE);
	/* It is refused for long: each sign of the emergency has it tried, once a second at most.
	 */
	until_seldom();
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	test_run(&h, 100);
	commands = h.guest[0].commands;
	for (int i = 0; i < 20; i++)
		manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_int_equal(h.guest[0].commands, commands + 1);
	h.now += MANAGER_REFUSED_MS;
	h.refuse = false;
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_int_equal(h.guest[0].commands, commands + 2);
	assert_true(h.guest[0].target == SIZE);
	/* Accepted: nothing more is said. */
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now + 5000);
	assert_int_equal(h.guest[0].commands, commands + 2);
}

/* Whoever only observes sends nothing, also not what was refused before. */
static void refused_and_observed(void **state)
{
	uint32_t commands;

	(void)state;
	until_seldom();
	commands = h.guest[0].commands;
	h.m.config.observe = true;
	h.refuse = false;
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	test_run(&h, 200);
	assert_int_equal(h.guest[0].commands, commands);
}

/*
 * A guest that hangs before it took up what it was given out of plenty: others can have that, and
 * it keeps what it has and needs.
 */
static void hung_with_a_promise(void **state)
{
	uint64_t actual;

	(void)state;
	test_four(&h);
	actual = vm(0)->actual;
	h.guest[0].deaf = true;
	h.m.config.budget = 4 * SIZE;
	for (int s = 0; s < 60 && vm(0)->target == actual; s++)
		test_run(&h, 1);
	assert_true(vm(0)->target == SIZE && vm(0)->actual == actual);
	h.m.config.budget = 2400 * MIB;
	h.guest[0].mute = true;
	unanswered(0, MANAGER_UNANSWERED_HUNG);
	assert_true(balance_promised(vm(0)) == SIZE);
	test_run(&h, 2);
	assert_true(vm(0)->target >= vm(0)->level[LEVEL_NEED] && vm(0)->target >= actual);
	assert_true(balance_promised(vm(0)) <= actual + 2 * BALANCE_GRAIN);
	/* In an emergency everything is promised, for its time. */
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	test_run(&h, MANAGER_EMERGENCY_MIN_MS / 1000 - 1);
	assert_true(h.guest[0].target == SIZE && vm(0)->target == SIZE);
	test_run(&h, MANAGER_EMERGENCY_MS / 1000);
	assert_true(vm(0)->target < SIZE && vm(0)->target >= vm(0)->level[LEVEL_NEED]);
}

/* A guest of 8 GiB that keeps 5, and does nothing, whatever it was told. */
static void add_still(uint64_t target)
{
	struct manager_facts facts = test_facts(8 * SIZE);

	facts.actual = 5 * SIZE;
	facts.target = target;
	assert_int_equal(manager_vm_add(&h.m, 0, &facts, NULL, h.now), 0);
	h.guest[0] = (struct test_guest){.size = 8 * SIZE,
					 .used = 512 * MIB,
					 .keeps = 5 * SIZE,
					 .target = target,
					 .deaf = true};
}

/* It has memory to give, and others want it: it gives `bytes` every so many seconds. */
static void crawl(uint64_t bytes, uint32_t seconds, uint32_t times)
{
	test_begin(&h, 4 * SIZE, 2);
	test_add(&h, 1, SIZE, 256 * MIB);
	add_still(5 * SIZE);
	test_run(&h, 7);
	assert_int_equal(h.m.vms[0].progress.state, PROGRESS_STALLED);
	assert_true(vm(0)->target < vm(0)->actual);
	for (uint32_t i = 0; i < times; i++) {
		test_run(&h, seconds);
		h.guest[0].keeps -= bytes;
	}
}

/* So slow is deaf: it is named and left out of the plan. */
static void crawls(void **state)
{
	(void)state;
	crawl(64 << 10, 10, 5);
	assert_int_equal(h.m.vms[0].progress.state, PROGRESS_UNCOOPERATIVE);
	assert_true(h.m.plan.fixed >= vm(0)->actual);
	assert_int_equal(vm(0)->learned, 0);
}

/* Slow, but it moves: once that is seen it is backed off, once. */
static void crawls_on(void **state)
{
	uint64_t end;

	(void)state;
	crawl(100 << 10, 1, 2);
	assert_int_equal(h.m.vms[0].progress.state, PROGRESS_STALLED);
	assert_int_equal(vm(0)->learned, 0);
	for (int s = 0; s < 20 && !vm(0)->learned; s++) {
		test_run(&h, 1);
		h.guest[0].keeps -= 100 << 10;
	}
	assert_true(vm(0)->flags & BALANCE_LEARNED_HARD);
	assert_true(vm(0)->learned >= vm(0)->actual &&
		    vm(0)->target + BALANCE_GRAIN > vm(0)->actual);
	assert_int_equal(h.m.vms[0].learned_span_ms, MANAGER_LEARNED_MS);
	end = h.m.vms[0].learned_end_ms;
	test_run(&h, 60);
	assert_true(h.m.vms[0].learned_end_ms == end);
	/* Only observing, it is not asked for less: what was learned ends all the same. */
	test_begin(&h, 4 * SIZE, 1);
	h.m.config.observe = true;
	add_still(2 * SIZE);
	end = 0;
	for (int s = 0; s < 60; s++) {
		test_run(&h, 1);
		h.guest[0].keeps -= MIB;
		if (end)
			assert_true(h.m.vms[0].learned_end_ms == end);
		end = h.m.vms[0].learned_end_ms;
	}
	assert_int_equal(h.m.vms[0].progress.state, PROGRESS_STALLED);
	assert_true(end > 0);
}

/* Who begins late and is fast then is not backed off. */
static void begins_late(void **state)
{
	(void)state;
	crawl(0, 1, 6);
	for (int s = 0; s < 60 && h.m.vms[0].progress.state == PROGRESS_STALLED; s++) {
		h.guest[0].keeps -= 80 * MIB;
		if (h.guest[0].keeps < vm(0)->target)
			h.guest[0].keeps = vm(0)->target;
		test_run(&h, 1);
	}
	assert_int_equal(h.last[MANAGER_EVENT_PROGRESS].progress, PROGRESS_REACHED);
	assert_int_equal(vm(0)->learned, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pause_between),
		cmocka_unit_test(deaf_at_times),
		cmocka_unit_test(stall_ends),
		cmocka_unit_test(refused_emergency),
		cmocka_unit_test(refused_and_observed),
		cmocka_unit_test(hung_with_a_promise),
		cmocka_unit_test(crawls),
		cmocka_unit_test(crawls_on),
		cmocka_unit_test(begins_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
