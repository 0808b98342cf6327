// SPDX-License-Identifier: MIT
/* The manager: reservations, the host, settings, and what is told of it all. */
#include <errno.h>

#include "manager_helpers.h"
#include "policy/explain.h"

#define SIZE (1024 * MIB)

static struct test_host h;

static const struct balance_vm *vm(uint32_t slot)
{
	return manager_balance(&h.m, slot);
}

/* Reservations: memory is freed first and granted then; what does not fit is refused at once. */
static void reserves(void **state)
{
	uint64_t id, other;

	(void)state;
	test_four(&h);
	assert_int_equal(manager_reserve(&h.m, 2000 * MIB, 2000, 0, h.now, &id), -ENOSPC);
	assert_int_equal(manager_reserve(&h.m, 800 * MIB, 5000, 0, h.now, &id), 0);
	assert_int_equal(h.events[MANAGER_EVENT_RESERVATION], 0);
	test_run(&h, 4);
	assert_int_equal(h.events[MANAGER_EVENT_RESERVATION], 1);
	assert_int_equal(h.last[MANAGER_EVENT_RESERVATION].change, RESERVE_IS_GRANTED);
	assert_true(h.reservation.id == id);
	assert_true(test_promised(&h) + 800 * MIB <= 2400 * MIB);
	/* What is granted to one is not there for another, nor for a guest. */
	assert_int_equal(manager_reserve(&h.m, 800 * MIB, 5000, 0, h.now, &other), -ENOSPC);
	for (uint32_t i = 0; i < 4; i++)
		h.guest[i].used += 50 * MIB;
	test_run(&h, 20);
	assert_true(test_promised(&h) + 800 * MIB <= 2400 * MIB);
	/* Used and released. */
	assert_int_equal(manager_release(&h.m, id, h.now), 0);
	assert_int_equal(manager_release(&h.m, id, h.now), -ENOENT);
	/* Guests that do not follow make it fail in time; then they have their memory back. */
	test_run(&h, 60);
	for (uint32_t i = 0; i < 4; i++)
		h.guest[i].deaf = true;
	assert_int_equal(manager_reserve(&h.m, 900 * MIB, 2000, 0, h.now, &id), 0);
	test_run(&h, 3);
	assert_int_equal(h.last[MANAGER_EVENT_RESERVATION].change, RESERVE_HAS_FAILED);
	assert_int_equal(reserve_held(&h.m.reserve) + reserve_missing(&h.m.reserve), 0);
}

/* The host's free memory is a budget as well, and its pressure makes it smaller. */
static void by_host(void **state)
{
	struct manager_host host = {.total = 4096 * MIB, .available = 4096 * MIB};
	uint64_t calm;

	(void)state;
	test_begin(&h, 0, 2);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_add(&h, 1, SIZE, 256 * MIB);
	test_run(&h, 10);
	/* Nothing known: nobody is moved. */
	assert_true(vm(0)->target == SIZE);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_NO_HOST);
	host.resident = MANAGER_UNKNOWN;
	manager_host(&h.m, &host, h.now);
	test_run(&h, 10);
	assert_true(vm(0)->target == SIZE);
	/* 600 MiB are free of which 256 are the reserve, and the guests hold 1 GiB. */
	host.resident = 1024 * MIB;
	host.available = 600 * MIB;
	manager_host(&h.m, &host, h.now);
	test_run(&h, 100);
	assert_true(h.m.plan.budget == (1024 + 600 - 256) * MIB);
	assert_true(test_promised(&h) <= h.m.plan.budget);
	calm = test_promised(&h);
	host.some_centi = BALANCE_PSI_HIGH;
	manager_host(&h.m, &host, h.now);
	test_run(&h, 100);
	assert_true(test_promised(&h) < calm);
	assert_true(h.m.plan.host_pressed);
}

/* Bounds by the operator hold at once. */
static void settings(void **state)
{
	(void)state;
	test_four(&h);
	assert_int_equal(manager_vm_set(&h.m, 0, 900 * MIB, MANAGER_UNKNOWN, 0, h.now), 0);
	assert_true(h.guest[0].target == 900 * MIB);
	assert_int_equal(manager_vm_set(&h.m, 0, 0, 300 * MIB, 0, h.now), 0);
	assert_true(h.guest[0].target == 300 * MIB);
	assert_int_equal(h.decision.reason, REASON_BOUNDS);
	assert_int_equal(manager_vm_set(&h.m, 0, 2, 1, 0, h.now), -EINVAL);
	assert_int_equal(manager_vm_set(&h.m, 0, 0, 2 * SIZE, 0, h.now), -EINVAL);
	assert_int_equal(manager_vm_set(&h.m, 7, 0, 0, 0, h.now), -ENOENT);
	assert_true(vm(0)->ceiling == 300 * MIB);
}

static void slots(void **state)
{
	struct manager_facts facts = test_facts(SIZE);
	struct manager m;

	(void)state;
	test_four(&h);
	assert_int_equal(manager_vm_add(&h.m, 0, &facts, NULL, h.now), -EEXIST);
	assert_int_equal(manager_vm_add(&h.m, 8, &facts, NULL, h.now), -EINVAL);
	facts.size = 0;
	assert_int_equal(manager_vm_add(&h.m, 4, &facts, NULL, h.now), -EINVAL);
	facts.size = BALANCE_SIZE_MAX;
	assert_int_equal(manager_vm_add(&h.m, 4, &facts, NULL, h.now), -EINVAL);
	facts = test_facts(SIZE);
	facts.floor = SIZE + 1;
	assert_int_equal(manager_vm_add(&h.m, 4, &facts, NULL, h.now), -EINVAL);
	assert_int_equal(manager_vm_remove(&h.m, 0, h.now), 0);
	assert_int_equal(manager_vm_remove(&h.m, 0, h.now), -ENOENT);
	assert_int_equal(h.m.present, 3);
	/* Answers for one that has gone are nothing; its memory is there for the others. */
	manager_actual(&h.m, 0, 1, h.now);
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	manager_target_answered(&h.m, UINT32_MAX, true, h.now);
	manager_unanswered(&h.m, 0, h.now);
	manager_health(&h.m, 0, HEALTH_SLOW, h.now);
	manager_driver(&h.m, 0, MANAGER_DRIVER_NONE, h.now);
	assert_null(manager_vm(&h.m, 0));
	assert_null(manager_decision(&h.m, 0, 0));
	test_run(&h, 100);
	assert_true(vm(1)->target > 550 * MIB);
	assert_int_equal(manager_init(&m, &h.m.config, h.m.ops, &h, h.vms, h.balance, 0, 0),
			 -EINVAL);
}

/* Only observing: everything is decided and told, once, and nothing is sent. */
static void observing(void **state)
{
	struct manager_config config = {.budget = 600 * MIB, .observe = true};

	(void)state;
	test_begin(&h, 0, 1);
	manager_configure(&h.m, &config, h.now);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_run(&h, 30);
	assert_in_range(h.events[MANAGER_EVENT_DECISION], 1, 5);
	assert_int_equal(h.decision.action, ACTION_TAKE);
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_int_equal(h.guest[0].commands, 0);
	assert_true(vm(0)->target == SIZE);
}

/* What was learned outlives the process, for the same VM, and only that. */
static void saved(void **state)
{
	struct manager_facts facts = test_facts(SIZE);
	struct manager_saved s;

	(void)state;
	test_four(&h);
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	test_run(&h, 20);
	assert_int_equal(manager_save(&h.m, 0, &s, h.now), 0);
	assert_int_equal(manager_save(&h.m, 7, &s, h.now), -ENOENT);
	assert_true(s.learned == vm(0)->learned && s.learned > 0);
	assert_in_range(s.learned_left_ms, 90000, 110000);
	test_begin(&h, 2400 * MIB, 4);
	assert_int_equal(manager_vm_add(&h.m, 0, &facts, &s, h.now), 0);
	assert_true(vm(0)->learned == s.learned);
	assert_true(h.m.vms[0].demand.working == s.working);
	s.size--;
	assert_int_equal(manager_vm_add(&h.m, 1, &facts, &s, h.now), 0);
	assert_true(vm(1)->learned == 0);
	s.size++;
	s.version++;
	assert_int_equal(manager_vm_add(&h.m, 2, &facts, &s, h.now), 0);
	assert_true(vm(2)->learned == 0);
	/* It ends when it would have. */
	h.guest[0] =
		(struct test_guest){.size = SIZE, .used = 256 * MIB, .keeps = SIZE, .target = SIZE};
	h.guest[1].mute = h.guest[2].mute = true;
	test_run(&h, 112);
	assert_int_equal(vm(0)->learned, 0);
}

/*
 * What was free when it was learned is known after a restart, or taken for all there is: that much
 * left free again does not speak against what was learned.
 */
static void saved_free(void **state)
{
	static const struct {
		uint64_t learned_free;
		uint32_t hard;
		bool holds;
	} cases[] = {
		{200 * MIB, 0, true}, {MANAGER_UNKNOWN, 0, true}, {0, 0, false},
		{200 * MIB, 1, true}, {MANAGER_UNKNOWN, 1, true}, {0, 1, false},
	};
	struct manager_facts facts = test_facts(SIZE);
	struct manager_saved s;

	(void)state;
	facts.actual = facts.target = 500 * MIB;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		test_four(&h);
		h.guest[0].used = h.guest[0].keeps - 150 * MIB;
		test_run(&h, 1);
		manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
		assert_int_equal(manager_save(&h.m, 0, &s, h.now), 0);
		assert_true(s.learned_free == h.m.vms[0].demand.free && s.learned_free > 0);
		s.learned = 500 * MIB;
		s.learned_used = 300 * MIB;
		s.learned_hard = cases[i].hard;
		s.learned_free = cases[i].learned_free;
		test_begin(&h, 500 * MIB, 1);
		assert_int_equal(manager_vm_add(&h.m, 0, &facts, &s, h.now), 0);
		h.guest[0] = (struct test_guest){
			.size = SIZE, .used = 300 * MIB, .keeps = 500 * MIB, .target = 500 * MIB};
		test_run(&h, 10);
		assert_int_equal(vm(0)->learned == 500 * MIB, cases[i].holds);
	}
}

/* Why a VM stands where it does can be told at any moment, in any buffer. */
static void explains(void **state)
{
	char buf[2 * EXPLAIN_ROOM], part[64];
	size_t n;

	(void)state;
	test_four(&h);
	n = manager_explain(&h.m, 0, "web1", buf, sizeof(buf));
	assert_int_equal(n, strlen(buf));
	assert_non_null(strstr(buf, "web1: lowered from"));
	assert_non_null(strstr(buf, "web1: stays at"));
	for (size_t len = 0; len < sizeof(part); len++) {
		memset(part, '#', sizeof(part));
		assert_int_equal(manager_explain(&h.m, 0, "web1", part, len), n);
		if (len)
			assert_int_equal(part[len - 1], '\0');
		assert_int_equal(part[len], '#');
	}
	for (size_t len = 64; len < sizeof(buf); len += 13) {
		assert_int_equal(manager_explain(&h.m, 0, "web1", buf, len), n);
		assert_true(strlen(buf) < len);
	}
	assert_int_equal(manager_explain(&h.m, 7, "none", buf, sizeof(buf)), 0);
	/* The last decisions are kept, the last first. */
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_non_null(manager_decision(&h.m, 0, 0));
	assert_true(manager_decision(&h.m, 0, 0)->at_ms >= manager_decision(&h.m, 0, 1)->at_ms);
	assert_null(manager_decision(&h.m, 0, MANAGER_DECISIONS));
}

/* Needs that do not fit are told, once, and so is when they do again. */
static void scarcity(void **state)
{
	(void)state;
	test_four(&h);
	assert_int_equal(h.events[MANAGER_EVENT_SCARCE], 0);
	for (uint32_t i = 0; i < 4; i++)
		h.guest[i].used = h.guest[i].keeps = 700 * MIB;
	test_run(&h, 5);
	assert_int_equal(h.events[MANAGER_EVENT_SCARCE], 1);
	assert_true(h.last[MANAGER_EVENT_SCARCE].on);
	for (uint32_t i = 0; i < 4; i++)
		h.guest[i].used = 100 * MIB;
	test_run(&h, 200);
	assert_int_equal(h.events[MANAGER_EVENT_SCARCE], 2);
	assert_false(h.last[MANAGER_EVENT_SCARCE].on);
}

static void defaults(void **state)
{
	(void)state;
	assert_true(manager_default_floor(8192 * MIB) == 1056 * MIB);
	assert_true(manager_default_floor(16 * MIB) == 16 * MIB);
	assert_true(manager_default_reserve(1024 * MIB) == 256 * MIB);
	assert_true(manager_default_reserve(512 * MIB) == 128 * MIB);
	assert_true(manager_default_reserve(102400 * MIB) == 5120 * MIB);
	assert_true(manager_default_reserve(1024 * 1024 * MIB) == 8192 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reserves),   cmocka_unit_test(by_host),
		cmocka_unit_test(settings),   cmocka_unit_test(slots),
		cmocka_unit_test(observing),  cmocka_unit_test(saved),
		cmocka_unit_test(saved_free), cmocka_unit_test(explains),
		cmocka_unit_test(scarcity),   cmocka_unit_test(defaults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
