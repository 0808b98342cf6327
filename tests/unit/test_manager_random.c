// SPDX-License-Identifier: MIT
/*
 * The manager against 1 to 64 guests of every kind, and anything that may happen to them, at random
 * by seed. After each event holds what must always hold; see check() and on_decision().
 */
#include "manager_helpers.h"
#include "policy/explain.h"

#define STEPS  50000
#define ROUNDS 10

static struct test_host h;
static uint64_t seed;
static uint64_t decisions, releases;

static uint64_t draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* What the rules allow to exceed the budget: bounds, and what is asked of those that stand fixed.
 */
static bool may_exceed(const struct decision *d)
{
	return d->action == ACTION_RELEASE || d->reason == REASON_BOUNDS ||
	       d->reason == REASON_NO_DRIVER;
}

static void on_decision(struct test_host *t, uint32_t slot, const struct decision *d)
{
	const struct balance_vm *b = &t->balance[slot];
	char buf[EXPLAIN_ROOM];
	size_t n = explain_decision(d, "a-guest", buf, sizeof(buf));

	decisions++;
	/* It has a reason and can be told. */
	assert_in_range(n, 30, EXPLAIN_ROOM - 1);
	assert_int_equal(strlen(buf), n);
	assert_in_range(d->reason, 0, REASON_COUNT - 1);
	assert_int_equal(d->at_ms, t->m.now_ms);
	assert_true(d->from != d->to);
	assert_true((d->to > d->from) == (d->action != ACTION_TAKE));
	/* Within the bounds, and no guest is moved that cannot be. */
	assert_in_range(d->to, b->floor, b->ceiling);
	assert_true((b->size - d->to) % BALANCE_GRAIN == 0 || d->to == b->floor ||
		    d->to == b->ceiling);
	if (d->reason != REASON_BOUNDS && d->action == ACTION_TAKE)
		assert_true(!(b->flags & BALANCE_FIXED & ~(uint32_t)BALANCE_INHIBITED) ||
			    d->reason == REASON_UNRESPONSIVE);
	/* An emergency is answered with everything. */
	if (d->action == ACTION_RELEASE) {
		assert_true(d->to == b->ceiling);
		releases++;
	}
	/* No promise grows beyond the budget, but for emergencies and bounds. */
	if (d->action == ACTION_GIVE && !may_exceed(d) && d->to > d->from && t->m.plan.known &&
	    d->to > b->actual)
		assert_true(t->m.plan.promised - t->m.plan.surplus <= t->m.plan.budget);
}

/* The sums that are kept from event to event are those of a fresh count. */
static void check(void)
{
	uint64_t promised = 0, surplus = 0;

	for (uint32_t i = 0; i < h.m.n; i++) {
		const struct balance_vm *b = manager_balance(&h.m, i);

		if (!b)
			continue;
		promised += balance_promised(b);
		surplus += balance_surplus(b);
		assert_true(b->target <= b->size && b->actual <= b->size);
		for (int l = 1; l < LEVEL_COUNT; l++)
			assert_true(b->level[l] >= b->level[l - 1] && b->level[l] <= b->size);
		/* In an emergency it has everything, from the first moment on. */
		if (b->flags & BALANCE_EMERGENCY && !(b->flags & BALANCE_NO_DRIVER))
			assert_true(b->target >= b->ceiling);
	}
	if (h.m.passes) {
		assert_true(h.m.plan.promised == promised);
		assert_true(h.m.plan.surplus == surplus);
	}
}

static void some_guest(uint32_t slot)
{
	uint64_t size = (64 + draw(4096)) * MIB;
	struct manager_facts facts = test_facts(size);

	if (draw(2))
		facts.floor = draw(size);
	if (draw(4) == 0)
		facts.ceiling = facts.floor == MANAGER_UNKNOWN
					? size
					: facts.floor + draw(size - facts.floor);
	facts.weight = (uint32_t)draw(3) * 100;
	facts.driver = (enum manager_driver)draw(3);
	facts.actual = draw(2) ? MANAGER_UNKNOWN : draw(2 * size);
	facts.target = draw(2) ? MANAGER_UNKNOWN : draw(2 * size);
	if (manager_vm_add(&h.m, slot, &facts, NULL, h.now))
		return;
	h.guest[slot] = (struct test_guest){.size = size,
					    .used = draw(size),
					    .keeps = manager_balance(&h.m, slot)->actual,
					    .target = manager_balance(&h.m, slot)->target};
}

/* What a guest does by itself. */
static void guest_event(uint32_t slot)
{
	struct test_guest *g = &h.guest[slot];
	struct guest_stats s = {.at_ms = h.now - draw(h.now)};

	switch (draw(10)) {
	case 0:
		g->used = draw(g->size);
		break;
	case 1:
		g->kills += draw(2);
		g->stalls += draw(50);
		g->scanned += draw(100 * MIB);
		g->reclaimed += draw(50 * MIB);
		break;
	case 2:
		g->deaf = draw(4) == 0;
		g->mute = draw(4) == 0;
		break;
	case 3:
		if (draw(10) == 0)
			manager_pressure(&h.m, slot, (uint32_t)draw(6), h.now);
		break;
	case 4:
		manager_unanswered(&h.m, slot, h.now);
		break;
	case 5:
		if (draw(20) == 0)
			manager_driver(&h.m, slot, (enum manager_driver)draw(3), h.now);
		break;
	case 6: /* garbage */
		for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++)
			stats_put(&s, tag, ~0ULL >> draw(64));
		if (draw(10) == 0)
			manager_stats(&h.m, slot, &s, h.now);
		break;
	case 7:
		if (draw(10) == 0)
			manager_actual(&h.m, slot, ~0ULL >> draw(64), h.now);
		break;
	case 8:
		if (draw(10) == 0)
			manager_health(&h.m, slot, (enum health_state)draw(HEALTH_STATE_COUNT),
				       h.now);
		break;
	default:
		manager_relieved(&h.m, slot, h.now);
		break;
	}
}

/* What the host and its operator do. */
static void host_event(uint32_t slot)
{
	struct manager_host host = {.total = 65536 * MIB,
				    .available = draw(65536) * MIB,
				    .resident = draw(2) ? MANAGER_UNKNOWN : draw(32768) * MIB,
				    .some_centi = (uint32_t)draw(6000)};
	uint64_t id;

	switch (draw(6)) {
	case 0:
		manager_host(&h.m, &host, h.now);
		break;
	case 1:
		manager_reserve(&h.m, draw(2000) * MIB, draw(3000), draw(3000), h.now, &id);
		break;
	case 2:
		manager_release(&h.m, h.m.reserve.last_id - draw(3), h.now);
		break;
	case 3:
		manager_vm_set(&h.m, slot, draw(2048) * MIB, MANAGER_UNKNOWN, (uint32_t)draw(500),
			       h.now);
		break;
	case 4:
		h.refuse = draw(8) == 0;
		break;
	default:
		if (draw(3) == 0 && manager_vm(&h.m, slot))
			manager_vm_remove(&h.m, slot, h.now);
		else
			some_guest(slot);
		break;
	}
}

static void anything(void **state)
{
	(void)state;
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		uint32_t n = 1 + (uint32_t)(round == ROUNDS ? 63 : draw(64) * (round > 1));
		uint64_t budget = round % 4 ? (1 + draw(40000)) * MIB : 0;

		seed = 88172645463325252ULL * round + 1;
		test_begin(&h, budget, n);
		h.on_decision = on_decision;
		/* Every other round things happen between the portions of a pass. */
		h.m.config.portion = round % 2 ? 0 : 1 + (uint32_t)draw(10);
		for (uint32_t i = 0; i < n; i++)
			some_guest(i);
		for (int step = 0; step < STEPS / ROUNDS; step++) {
			uint32_t slot = (uint32_t)draw(n);

			h.now += draw(300);
			if (draw(100) == 0)
				h.now += draw(60000);
			if (manager_vm(&h.m, slot)) {
				test_guest_step(&h, slot);
				check();
				guest_event(slot);
				check();
			}
			if (draw(20) == 0)
				host_event(slot);
			manager_tick(&h.m, h.now);
			check();
		}
	}
	assert_true(decisions > 3000);
	assert_true(releases > 300);
}

/*
 * Guests whose use does not change: after some minutes no target moves any more, and what is
 * promised fits, but for floors.
 */
static void no_oscillation(void **state)
{
	(void)state;
	for (uint64_t round = 1; round <= 60; round++) {
		uint32_t n = 1 + (uint32_t)(round % TEST_VMS);
		uint64_t all = 0, floors = 0, used = 0, moves, budget;

		seed = 362436069ULL * round + 1;
		budget = (64 + draw(2048 * n)) * MIB;
		test_begin(&h, budget, n);
		for (uint32_t i = 0; i < n; i++) {
			uint64_t size = (256 + draw(4096)) * MIB;

			test_add(&h, i, size, 32 * MIB + draw(size * 3 / 4));
			all += size;
			used += h.guest[i].used;
			floors += h.balance[i].floor > h.guest[i].used ? h.balance[i].floor
								       : h.guest[i].used;
		}
		test_run(&h, 300);
		moves = h.m.moves;
		/* With room for what is in use: at rest for good, and within the budget. */
		if (budget < used + used / 8 + all / 64 + n * 9 * MIB)
			continue;
		test_run(&h, 900);
		assert_true(h.m.moves == moves);
		assert_true(test_promised(&h) <= (budget > floors ? budget : floors));
		for (uint32_t i = 0; i < n; i++)
			assert_true(h.guest[i].keeps >= h.guest[i].used);
	}
}

/* One that hangs, at any point, blocks nobody: the others come to rest within what is left. */
static void hung_one(void **state)
{
	(void)state;
	for (uint64_t round = 1; round <= 40; round++) {
		uint32_t n = 2 + (uint32_t)(round % 16);

		seed = 521288629ULL * round + 1;
		test_begin(&h, n * 700 * MIB, n);
		for (uint32_t i = 0; i < n; i++)
			test_add(&h, i, 1024 * MIB, 200 * MIB + draw(100 * MIB));
		test_run(&h, (uint32_t)draw(20));
		h.guest[0].deaf = true;
		/* Every other time with a promise that it has not taken up. */
		if (round % 2) {
			manager_vm_set(&h.m, 0, 1024 * MIB, MANAGER_UNKNOWN, 0, h.now);
			manager_vm_set(&h.m, 0, 128 * MIB, MANAGER_UNKNOWN, 0, h.now);
			assert_true(h.balance[0].target == 1024 * MIB);
		}
		h.guest[0].mute = true;
		for (int i = 0; i < MANAGER_UNANSWERED_HUNG; i++)
			manager_unanswered(&h.m, 0, h.now);
		test_run(&h, 120);
		for (uint32_t i = 1; i < n; i++) {
			assert_false(h.balance[i].flags & BALANCE_FIXED);
			assert_true(h.balance[i].target >=
				    h.balance[i].level[LEVEL_BARE] - BALANCE_GRAIN);
		}
		assert_true(test_promised(&h) <= n * 700 * MIB);
		assert_true(h.balance[0].target <= h.balance[0].actual + BALANCE_GRAIN ||
			    h.balance[0].target <= h.balance[0].level[LEVEL_NEED] + BALANCE_GRAIN);
		/* And each can still burst. */
		manager_pressure(&h.m, n - 1, VIRTIO_BALLOON_PRESSURE_CRITICAL, h.now);
		assert_true(h.guest[n - 1].target == 1024 * MIB);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(anything),
		cmocka_unit_test(no_oscillation),
		cmocka_unit_test(hung_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
