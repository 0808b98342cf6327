// SPDX-License-Identifier: MIT
/* The manager: what it does when something happens, with guests that do what they are told. */
#include "manager_helpers.h"

#define SIZE (1024 * MIB)

static struct test_host h;

static const struct balance_vm *vm(uint32_t slot)
{
	return manager_balance(&h.m, slot);
}

/* Idle memory is taken, equally, down to a budget with a pool; then nothing moves any more. */
static void settles(void **state)
{
	uint64_t moves;

	(void)state;
	test_four(&h);
	assert_true(test_promised(&h) <= 2400 * MIB - h.m.plan.pool + 4 * SIZE / 64);
	assert_true(h.m.plan.pool >= 100 * MIB);
	for (uint32_t i = 0; i < 4; i++)
		assert_in_range(vm(i)->target, 400 * MIB, 700 * MIB);
	moves = h.m.moves;
	test_run(&h, 600);
	assert_true(h.m.moves == moves);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_SETTLED);
}

/* A pressure message: the new target is out before the call returns, and it is everything. */
static void pressure(void **state)
{
	uint32_t commands;

	(void)state;
	for (uint32_t level = VIRTIO_BALLOON_PRESSURE_MEDIUM; level < 6; level++) {
		test_four(&h);
		manager_pressure(&h.m, 2, level, h.now);
		assert_true(h.guest[2].target == SIZE);
		assert_true(vm(2)->target == SIZE);
		assert_int_equal(h.decision.action, ACTION_RELEASE);
		assert_int_equal(h.decision.reason, REASON_PRESSURE);
		assert_int_equal(h.decision.pressure, level);
		/* Said again and again: it has everything. */
		commands = h.guest[2].commands;
		for (int i = 0; i < 100; i++)
			manager_pressure(&h.m, 2, level, h.now);
		assert_int_equal(h.guest[2].commands, commands);
		/* Nothing is taken for a while, then what it does not use. */
		test_run(&h, MANAGER_EMERGENCY_MIN_MS / 1000 - 1);
		assert_true(vm(2)->target == SIZE);
		test_run(&h, 60);
		assert_true(vm(2)->target < SIZE);
		/* But not down to where it suffered. */
		assert_true(vm(2)->learned > 0);
		assert_true(vm(2)->target + BALANCE_GRAIN >= vm(2)->learned);
	}
}

/* Low pressure gives some more, out of the pool, at once. */
static void low_pressure(void **state)
{
	uint64_t before;

	(void)state;
	test_four(&h);
	before = vm(1)->target;
	h.guest[1].used = 400 * MIB;
	manager_pressure(&h.m, 1, VIRTIO_BALLOON_PRESSURE_LOW, h.now);
	test_run(&h, 1);
	assert_true(vm(1)->target > before);
	assert_true(vm(1)->target < SIZE);
	assert_int_equal(h.m.vms[1].emergency_end_ms, 0);
	/* Where there are no statistics it is all that is known, and is believed. */
	h.guest[5] = (struct test_guest){.size = SIZE, .mute = true};
	{
		struct manager_facts facts = test_facts(SIZE);

		facts.driver = MANAGER_DRIVER_NO_STATS;
		facts.actual = 300 * MIB;
		assert_int_equal(manager_vm_add(&h.m, 5, &facts, NULL, h.now), 0);
	}
	manager_pressure(&h.m, 5, VIRTIO_BALLOON_PRESSURE_LOW, h.now);
	assert_true(vm(5)->target == SIZE);
}

static void relieved(void **state)
{
	(void)state;
	test_four(&h);
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	manager_relieved(&h.m, 0, h.now);
	assert_true(h.m.vms[0].emergency_end_ms == h.now + MANAGER_EMERGENCY_MS / 2);
	manager_relieved(&h.m, 1, h.now);
	assert_int_equal(h.m.vms[1].emergency_end_ms, 0);
}

/*
 * An emergency lasts for MANAGER_EMERGENCY_MS; less when it brought more promises than there is
 * memory and was enough, but not less than MANAGER_EMERGENCY_MIN_MS.
 */
static void emergency_ends(void **state)
{
	static const struct {
		uint64_t budget;
		uint32_t seconds;
	} cases[] = {
		{8192 * MIB, MANAGER_EMERGENCY_MS / 1000},
		{1200 * MIB, MANAGER_EMERGENCY_MIN_MS / 1000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		test_four(&h);
		h.m.config.budget = cases[i].budget;
		manager_pressure(&h.m, 2, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
		test_run(&h, cases[i].seconds - 1);
		assert_true(h.m.vms[2].emergency_end_ms > 0);
		test_run(&h, 2);
		assert_int_equal(h.m.vms[2].emergency_end_ms, 0);
	}
}

/* A bad verdict releases in the same call; a cgroup's limit is nobody's business. */
static void verdicts(void **state)
{
	static const struct {
		uint64_t kills, stalls, scanned, reclaimed;
		bool releases;
	} cases[] = {
		{1, 0, 0, 0, true},                  /* critical */
		{0, 100, 100 * MIB, 10 * MIB, true}, /* thrashing */
		{0, 100, 100 * MIB, 90 * MIB, true}, /* pressed */
		{0, 100, 0, 0, false},               /* cgroup */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t before;

		test_four(&h);
		before = vm(3)->target;
		h.guest[3].kills += cases[i].kills;
		h.guest[3].stalls += cases[i].stalls;
		h.guest[3].scanned += cases[i].scanned;
		h.guest[3].reclaimed += cases[i].reclaimed;
		h.now += 1000;
		test_guest_step(&h, 3);
		assert_true(vm(3)->target == (cases[i].releases ? SIZE : before));
		assert_int_equal(h.m.vms[3].oom_kills, cases[i].kills);
		assert_int_equal(h.last[MANAGER_EVENT_VERDICT].slot, 3);
		if (cases[i].releases)
			assert_int_equal(h.decision.reason, REASON_VERDICT);
	}
}

/* A guest that has more than it may have is asked for some of it. */
static void take_from_one(void)
{
	test_begin(&h, 600 * MIB, 1);
	test_add(&h, 0, SIZE, 256 * MIB);
	h.now = 2000;
	test_guest_step(&h, 0);
	manager_tick(&h.m, h.now);
	assert_true(vm(0)->target < SIZE);
}

/* The stalls of an inflation that we asked for are no emergency while enough is available. */
static void our_own_doing(void **state)
{
	(void)state;
	take_from_one();
	h.guest[0].keeps = SIZE - 50 * MIB;
	h.guest[0].deaf = true;
	h.guest[0].stalls = 100;
	h.guest[0].scanned = h.guest[0].reclaimed = 100 * MIB;
	h.now = 3000;
	test_guest_step(&h, 0);
	assert_true(vm(0)->target == SIZE - 50 * MIB);
	assert_int_equal(h.decision.reason, REASON_STALLED);
	assert_true(vm(0)->flags & BALANCE_LEARNED_HARD);
	/* Thrashing is one, whoever did it. */
	h.guest[0].stalls += 100;
	h.guest[0].scanned += 100 * MIB;
	h.now = 4000;
	test_guest_step(&h, 0);
	assert_true(vm(0)->target == SIZE);
}

/*
 * A guest that was released since says what our taking did to it before: from that nothing is to be
 * learned of what it has now.
 */
static void verdict_after_release(void **state)
{
	uint64_t learned;

	(void)state;
	take_from_one();
	h.now = 2500;
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_MEDIUM, h.now);
	assert_true(vm(0)->target == SIZE);
	learned = vm(0)->learned;
	h.guest[0].stalls = 100;
	h.guest[0].scanned = h.guest[0].reclaimed = 100 * MIB;
	h.now = 3000;
	test_guest_step(&h, 0);
	assert_int_equal(h.m.vms[0].judgement.verdict, VERDICT_PRESSED);
	assert_true(vm(0)->learned == learned);
	assert_false(vm(0)->flags & BALANCE_LEARNED_HARD);
}

/* Verdicts of old kernels are believed when they come twice; before, they get some more. */
static void weak(void **state)
{
	struct guest_stats s;

	(void)state;
	test_four(&h);
	for (int i = 1; i <= 2; i++) {
		s = test_sample(&h.guest[0], h.now + (uint64_t)i * 1000);
		s.known &= (1U << VIRTIO_BALLOON_S_HTLB_PGALLOC) - 1;
		stats_put(&s, VIRTIO_BALLOON_S_SWAP_IN, (uint64_t)i * 100 * MIB);
		stats_put(&s, VIRTIO_BALLOON_S_AVAIL, 5 * MIB);
		if (i == 1) {
			struct guest_stats before = s;

			before.at_ms -= 500;
			before.value[VIRTIO_BALLOON_S_SWAP_IN] = 0;
			manager_stats(&h.m, 0, &before, h.now + 500);
		}
		manager_stats(&h.m, 0, &s, h.now + (uint64_t)i * 1000);
		assert_true(h.m.vms[0].judgement.weak);
		assert_int_equal(h.m.vms[0].judgement.verdict, VERDICT_THRASHING);
		assert_true(vm(0)->flags & BALANCE_CAREFUL);
		assert_int_equal(h.m.vms[0].emergency_end_ms != 0, i == 2);
	}
	assert_true(vm(0)->target == SIZE);
}

/* A need that grows is met when the statistics arrive, out of the pool, before any pass. */
static void growth(void **state)
{
	uint64_t passes, before;

	(void)state;
	test_four(&h);
	passes = h.m.passes;
	before = vm(0)->target;
	h.guest[0].used = 430 * MIB;
	h.now += 1000;
	test_guest_step(&h, 0);
	assert_true(h.m.passes == passes);
	assert_true(vm(0)->target > before);
	assert_true(vm(0)->target >= 430 * MIB + 3 * 150 * MIB / 2);
	assert_int_equal(h.decision.action, ACTION_GIVE);
	assert_true(test_promised(&h) <= 2400 * MIB);
}

/* The working set moves from guest to guest: nobody is ever short for long. */
static void moves_on(void **state)
{
	(void)state;
	test_four(&h);
	for (uint32_t turn = 0; turn < 12; turn++) {
		for (uint32_t i = 0; i < 4; i++)
			h.guest[i].used = i == turn % 4 ? 900 * MIB : 256 * MIB;
		/* It grows by itself, as far as there is memory for it. */
		for (int s = 0; s < 20; s++) {
			struct test_guest *g = &h.guest[turn % 4];

			g->used = g->keeps > 900 * MIB ? 900 * MIB : g->keeps - 2 * MIB;
			test_run(&h, 1);
		}
		assert_true(h.guest[turn % 4].used == 900 * MIB);
		assert_true(h.m.plan.promised - h.m.plan.surplus <= 2400 * MIB);
	}
}

/*
 * More is needed than there is, and each guest thrashes with less than 100 MiB to spare. They are
 * not taken to that point, released, and taken there again: what was learned holds.
 */
static void no_sawtooth(void **state)
{
	uint64_t releases = 0;

	(void)state;
	test_begin(&h, 1300 * MIB, 4);
	for (uint32_t i = 0; i < 4; i++)
		test_add(&h, i, SIZE, 256 * MIB);
	for (int s = 0; s < 600; s++) {
		for (uint32_t i = 0; i < 4; i++) {
			struct test_guest *g = &h.guest[i];

			if (g->keeps < g->used + 100 * MIB) {
				g->stalls += 100;
				g->scanned += 100 * MIB;
			}
		}
		test_run(&h, 1);
	}
	for (uint32_t i = 0; i < 4; i++)
		releases += h.m.vms[i].releases;
	assert_in_range(releases, 1, 16);
}

/* What a guest learned in a phase of much work does not hold when the work is done. */
static void other_phase(void **state)
{
	(void)state;
	test_four(&h);
	h.guest[0].used = vm(0)->target - MIB;
	h.guest[0].keeps = vm(0)->target;
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_MEDIUM, h.now);
	h.guest[0].used = 900 * MIB;
	test_run(&h, 5);
	assert_true(vm(0)->learned > 0);
	h.guest[0].used = 256 * MIB;
	test_run(&h, 2);
	assert_int_equal(vm(0)->learned, 0);
}

/* What a guest leaves free of what it was given it was not in need of: that is not remembered. */
static void left_free(void **state)
{
	uint64_t learned;

	(void)state;
	test_four(&h);
	h.guest[0].used = vm(0)->target - MIB;
	h.now += 1000;
	test_guest_step(&h, 0);
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_MEDIUM, h.now);
	learned = vm(0)->learned;
	assert_true(learned > h.guest[0].used);
	/* A little less than before, but by far not so much less that it is in another phase. */
	h.guest[0].used -= h.guest[0].used / 5;
	test_run(&h, 20);
	assert_true(vm(0)->learned > h.guest[0].used);
	assert_true(vm(0)->learned < learned - 64 * MIB);
}

/* A guest that hangs is named, keeps what it has, and nobody else has to wait for it. */
static void hung(void **state)
{
	uint64_t target;

	(void)state;
	test_four(&h);
	h.guest[0].mute = h.guest[0].deaf = true;
	target = vm(0)->target;
	for (uint32_t i = 0; i < MANAGER_UNANSWERED_HUNG; i++) {
		assert_int_not_equal(manager_vm(&h.m, 0)->health, HEALTH_UNRESPONSIVE);
		manager_unanswered(&h.m, 0, h.now);
	}
	assert_int_equal(manager_vm(&h.m, 0)->health, HEALTH_UNRESPONSIVE);
	assert_int_equal(h.last[MANAGER_EVENT_HEALTH].health, HEALTH_UNRESPONSIVE);
	h.guest[1].used = 900 * MIB;
	h.guest[1].keeps = SIZE;
	manager_pressure(&h.m, 1, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_true(h.guest[1].target == SIZE);
	test_run(&h, 100);
	assert_true(vm(0)->target == target);
	assert_true(h.m.plan.fixed >= target);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_UNRESPONSIVE);
	/* It is not called uncooperative as well. */
	assert_int_equal(h.events[MANAGER_EVENT_PROGRESS], 0);
	/* It comes back. */
	h.guest[0].mute = h.guest[0].deaf = false;
	test_run(&h, 2);
	assert_int_equal(manager_vm(&h.m, 0)->health, HEALTH_HEALTHY);
	assert_false(vm(0)->flags & BALANCE_FIXED);
}

/* One that falls silent when it is short may hang for want of memory: it gets it, for a while. */
static void silent_when_short(void **state)
{
	(void)state;
	test_four(&h);
	h.guest[0].used = vm(0)->target - MIB;
	test_begin(&h, 300 * MIB, 2);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_run(&h, 60);
	h.guest[0].used = h.guest[0].keeps - MIB;
	h.guest[0].deaf = true;
	test_run(&h, 2);
	assert_true(vm(0)->target < SIZE);
	manager_health(&h.m, 0, HEALTH_UNRESPONSIVE, h.now);
	assert_true(vm(0)->target == SIZE);
	assert_int_equal(h.decision.reason, REASON_SILENT_SHORT);
	/* What it does not take up is not promised to it for ever. */
	h.guest[0].mute = true;
	test_run(&h, 30);
	assert_true(vm(0)->target < SIZE);
	assert_true(vm(0)->target >= vm(0)->actual);
}

/* Who does not follow is named after 20 s, left alone, and tried again after a minute. */
static void uncooperative(void **state)
{
	uint32_t commands;

	(void)state;
	test_begin(&h, 1200 * MIB, 2);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_add(&h, 1, SIZE, 256 * MIB);
	h.guest[0].deaf = true;
	test_run(&h, 40);
	assert_int_equal(manager_vm(&h.m, 0)->progress.state, PROGRESS_UNCOOPERATIVE);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_UNCOOPERATIVE);
	assert_true(h.events[MANAGER_EVENT_PROGRESS] >= 2);
	/* The other has the rest, and is not below what it uses. */
	assert_true(h.m.plan.fixed == SIZE);
	assert_true(vm(1)->target >= vm(1)->floor);
	commands = h.guest[0].commands;
	test_run(&h, 15);
	assert_int_equal(h.guest[0].commands, commands);
	/* It hears: after the next try all is well. */
	h.guest[0].deaf = false;
	test_run(&h, 120);
	assert_int_equal(manager_vm(&h.m, 0)->progress.state, PROGRESS_REACHED);
	assert_true(vm(0)->target < SIZE);
	assert_true(test_promised(&h) <= 1200 * MIB);
}

/* An inflation that stalls is backed off, and not tried again before what was learned ends. */
static void stalled(void **state)
{
	uint64_t learned;

	(void)state;
	test_begin(&h, 700 * MIB, 1);
	test_add(&h, 0, SIZE, 256 * MIB);
	for (int i = 0; i < 8; i++) {
		test_run(&h, 1);
		/* It could, and does not: 5 MiB a second. */
		h.guest[0].deaf = true;
		if (h.guest[0].keeps > h.guest[0].target)
			h.guest[0].keeps -= 5 * MIB;
	}
	assert_true(vm(0)->flags & BALANCE_LEARNED_HARD);
	learned = vm(0)->learned;
	assert_true(learned > 900 * MIB);
	assert_true(h.m.vms[0].learned_end_ms > h.now + 60000);
}

/* Statistics that are old or off: nothing more is taken. */
static void stale(void **state)
{
	uint64_t target;

	(void)state;
	test_begin(&h, 600 * MIB, 2);
	test_add(&h, 0, SIZE, 256 * MIB);
	test_run(&h, 2);
	h.guest[0].mute = true;
	test_run(&h, 6);
	target = vm(0)->target;
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_STALE);
	test_run(&h, 100);
	assert_true(vm(0)->target == target);
	/* Never any: the same from the start. */
	test_add(&h, 1, SIZE, 0);
	h.guest[1].mute = true;
	test_run(&h, 20);
	assert_true(vm(1)->target == SIZE);
	assert_int_equal(manager_vm(&h.m, 1)->standing.reason, REASON_NO_STATISTICS);
	/* A pressure message is heard all the same. */
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_true(vm(0)->target == SIZE);
}

/* Without a driver a guest has everything; the next one does not start at the old target. */
static void drivers(void **state)
{
	(void)state;
	test_four(&h);
	manager_driver(&h.m, 0, MANAGER_DRIVER_NONE, h.now);
	assert_true(balance_promised(vm(0)) == SIZE);
	assert_true(h.guest[0].target == SIZE);
	h.guest[0].mute = true;
	test_run(&h, 3);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_NO_DRIVER);
	manager_pressure(&h.m, 0, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_NO_DRIVER);
	manager_driver(&h.m, 0, MANAGER_DRIVER_FULL, h.now);
	h.guest[0].mute = false;
	h.guest[0].keeps = SIZE;
	test_run(&h, 60);
	assert_true(vm(0)->target < SIZE);
}

/* That a driver has statistics shows when the first come: its balloon is as full as before. */
static void known_better(void **state)
{
	uint64_t keeps;

	(void)state;
	test_four(&h);
	keeps = vm(0)->actual;
	assert_true(keeps < SIZE);
	manager_driver(&h.m, 0, MANAGER_DRIVER_NO_STATS, h.now);
	assert_true(vm(0)->actual == keeps);
	assert_true(vm(0)->flags & BALANCE_NO_STATISTICS);
	manager_driver(&h.m, 0, MANAGER_DRIVER_FULL, h.now);
	assert_true(vm(0)->actual == keeps);
	assert_false(vm(0)->flags & BALANCE_NO_STATISTICS);
	/* With the same value it is another one. */
	manager_driver(&h.m, 0, MANAGER_DRIVER_FULL, h.now);
	assert_true(vm(0)->actual == SIZE);
}

/* A driver that takes memory back by itself was about to kill: an emergency. */
static void took_back(void **state)
{
	(void)state;
	test_four(&h);
	h.guest[0].deaf = true;
	manager_actual(&h.m, 0, vm(0)->actual + 2 * MIB, h.now);
	assert_int_equal(h.decision.reason, REASON_TOOK_BACK);
	assert_true(h.guest[0].target == SIZE);
}

/* What was not enough is what it had last, as far as it was given that: not what it took itself. */
static void learns_what_it_had(void **state)
{
	uint64_t before;

	(void)state;
	test_four(&h);
	before = vm(0)->actual;
	h.guest[0].deaf = true;
	manager_actual(&h.m, 0, before + 100 * MIB, h.now);
	assert_int_equal(h.decision.reason, REASON_TOOK_BACK);
	assert_true(vm(0)->learned == before + SIZE / 16);
	/* It was given some since it spoke last. */
	test_four(&h);
	assert_false(h.m.vms[1].demand.counts_balloon);
	before = vm(1)->actual;
	assert_int_equal(
		manager_vm_set(&h.m, 1, before + 100 * MIB, MANAGER_UNKNOWN, 0, h.now + 100), 0);
	assert_true(vm(1)->target == before + 100 * MIB);
	manager_actual(&h.m, 1, vm(1)->target, h.now + 500);
	manager_pressure(&h.m, 1, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now + 800);
	assert_true(vm(1)->learned == vm(1)->actual + SIZE / 16);
}

/* A command that fails is tried again, later and later; nothing is counted on meanwhile. */
static void refused(void **state)
{
	uint32_t commands;

	(void)state;
	test_begin(&h, 600 * MIB, 1);
	test_add(&h, 0, SIZE, 256 * MIB);
	h.refuse = true;
	test_run(&h, 3);
	assert_int_equal(manager_vm(&h.m, 0)->standing.reason, REASON_INHIBITED);
	assert_int_equal(h.events[MANAGER_EVENT_REFUSED], 1);
	assert_true(balance_promised(vm(0)) == SIZE);
	commands = h.guest[0].commands;
	test_run(&h, 60);
	assert_in_range(h.guest[0].commands, commands + 3, commands + 8);
	/* It is not uncooperative: it was never told. */
	assert_int_equal(h.events[MANAGER_EVENT_PROGRESS], 0);
	h.refuse = false;
	test_run(&h, 120);
	assert_int_equal(h.events[MANAGER_EVENT_REFUSED], 2);
	assert_true(h.guest[0].keeps < SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settles),
		cmocka_unit_test(pressure),
		cmocka_unit_test(low_pressure),
		cmocka_unit_test(relieved),
		cmocka_unit_test(emergency_ends),
		cmocka_unit_test(verdicts),
		cmocka_unit_test(our_own_doing),
		cmocka_unit_test(verdict_after_release),
		cmocka_unit_test(weak),
		cmocka_unit_test(growth),
		cmocka_unit_test(moves_on),
		cmocka_unit_test(no_sawtooth),
		cmocka_unit_test(other_phase),
		cmocka_unit_test(left_free),
		cmocka_unit_test(hung),
		cmocka_unit_test(silent_when_short),
		cmocka_unit_test(uncooperative),
		cmocka_unit_test(stalled),
		cmocka_unit_test(stale),
		cmocka_unit_test(drivers),
		cmocka_unit_test(known_better),
		cmocka_unit_test(took_back),
		cmocka_unit_test(learns_what_it_had),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
