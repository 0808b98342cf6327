// SPDX-License-Identifier: MIT
/* Reservations: free first, then grant; and nothing is promised twice. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "draw_helpers.h"
#include "policy/reserve.h"

static struct reserve r;
static struct reservation got;

static uint64_t open_one(uint64_t bytes, uint64_t timeout_ms, uint64_t now_ms)
{
	uint64_t id = 0;

	assert_int_equal(reserve_open(&r, bytes, UINT64_MAX, timeout_ms, 0, now_ms, &id), 0);
	assert_int_not_equal(id, 0);
	return id;
}

static void free_first_then_grant(void **state)
{
	uint64_t id;

	(void)state;
	reserve_init(&r);
	id = open_one(100, 2000, 1000);
	reserve_supply(&r, 60);
	assert_int_equal(reserve_step(&r, 1500, &got), RESERVE_NOTHING);
	assert_int_equal(reserve_held(&r), 60);
	assert_int_equal(reserve_missing(&r), 40);
	reserve_supply(&r, 250);
	assert_int_equal(reserve_step(&r, 1600, &got), RESERVE_IS_GRANTED);
	assert_int_equal(got.id, id);
	assert_int_equal(reserve_held(&r), 100);
	assert_int_equal(reserve_missing(&r), 0);
	assert_int_equal(reserve_step(&r, 1600, &got), RESERVE_NOTHING);
	assert_int_equal(reserve_next(&r), 1600 + RESERVE_HOLD_MS);
	/* What is granted stays so when memory goes away. */
	reserve_supply(&r, 0);
	assert_int_equal(reserve_held(&r), 100);
}

/* On the deadline it has failed, and what was gathered is free. */
static void all_or_nothing(void **state)
{
	(void)state;
	reserve_init(&r);
	open_one(100, 2000, 1000);
	reserve_supply(&r, 99);
	assert_int_equal(reserve_next(&r), 3000);
	assert_int_equal(reserve_step(&r, 2999, &got), RESERVE_NOTHING);
	assert_int_equal(reserve_step(&r, 3000, &got), RESERVE_HAS_FAILED);
	assert_int_equal(got.got, 99);
	assert_int_equal(reserve_held(&r), 0);
	assert_int_equal(reserve_missing(&r), 0);
	assert_int_equal(reserve_next(&r), UINT64_MAX);
	/* In time by a millisecond, or to the millisecond. */
	open_one(100, 0, 5000);
	reserve_supply(&r, 100);
	assert_int_equal(reserve_step(&r, 5000, &got), RESERVE_IS_GRANTED);
}

static const struct reservation *find(uint64_t id)
{
	for (uint32_t i = 0; i < r.n; i++) {
		if (r.entry[i].id == id)
			return &r.entry[i];
	}
	return NULL;
}

/* What a reservation that there is has so far. */
static uint64_t got_by(uint64_t id)
{
	const struct reservation *reservation = find(id);

	assert_non_null(reservation);
	return reservation ? reservation->got : 0;
}

static void oldest_first(void **state)
{
	uint64_t first, second;

	(void)state;
	reserve_init(&r);
	first = open_one(100, 2000, 1000);
	second = open_one(50, 1000, 1100);
	assert_int_not_equal(first, second);
	reserve_supply(&r, 120);
	assert_int_equal(reserve_step(&r, 1200, &got), RESERVE_IS_GRANTED);
	assert_int_equal(got.id, first);
	assert_int_equal(got_by(second), 20);
	/* The same 120 again: 100 of them are gone. */
	reserve_supply(&r, 120);
	assert_int_equal(got_by(second), 20);
	assert_int_equal(reserve_step(&r, 1300, &got), RESERVE_NOTHING);
	/* Less there than before: the younger one loses. */
	reserve_supply(&r, 105);
	assert_int_equal(got_by(second), 5);
	assert_int_equal(reserve_step(&r, 2100, &got), RESERVE_HAS_FAILED);
	assert_int_equal(got.id, second);
	assert_null(find(second));
	assert_non_null(find(first));
}

static void ends(void **state)
{
	struct reservation was;
	uint64_t id;

	(void)state;
	reserve_init(&r);
	assert_int_equal(reserve_open(&r, 10, 10, 1000, 500, 1000, &id), 0);
	reserve_supply(&r, 10);
	assert_int_equal(reserve_step(&r, 1000, &got), RESERVE_IS_GRANTED);
	assert_int_equal(reserve_step(&r, 1499, &got), RESERVE_NOTHING);
	assert_int_equal(reserve_step(&r, 1500, &got), RESERVE_HAS_EXPIRED);
	assert_int_equal(reserve_release(&r, id, NULL), -ENOENT);
	id = open_one(10, 1000, 2000);
	reserve_supply(&r, 4);
	assert_int_equal(reserve_release(&r, id, &was), 0);
	assert_int_equal(was.got, 4);
	assert_int_equal(reserve_held(&r), 0);
	assert_int_equal(reserve_release(&r, id, NULL), -ENOENT);
	assert_int_equal(reserve_release(&r, 0, NULL), -ENOENT);
}

static void refused(void **state)
{
	uint64_t id = 77;

	(void)state;
	reserve_init(&r);
	assert_int_equal(reserve_open(&r, 0, 10, 1, 1, 0, &id), -EINVAL);
	assert_int_equal(reserve_open(&r, 11, 10, 1, 1, 0, &id), -ENOSPC);
	assert_int_equal(id, 77);
	for (int i = 0; i < RESERVE_MAX; i++)
		open_one(1, UINT64_MAX, 1000);
	assert_int_equal(reserve_next(&r), UINT64_MAX);
	assert_int_equal(reserve_open(&r, 1, 10, 1, 1, 0, &id), -EAGAIN);
}

/* Random reservations: what is earmarked is never more than was supplied, or was granted before. */
static void never_twice(void **state)
{
	uint64_t now = 1;

	(void)state;
	draw_begin(7);
	reserve_init(&r);
	for (int step = 0; step < 50000; step++) {
		uint64_t supply = draw(1000), granted = 0, id, sum = 0;

		now += draw(50);
		if (draw(3) == 0)
			(void)reserve_open(&r, draw(300), 250, draw(500), draw(500), now, &id);
		if (draw(10) == 0 && r.n)
			reserve_release(&r, r.entry[(uint32_t)draw(r.n)].id, NULL);
		for (uint32_t i = 0; i < r.n; i++)
			granted += r.entry[i].state == RESERVE_GRANTED ? r.entry[i].got : 0;
		reserve_supply(&r, supply);
		assert_true(reserve_held(&r) <= (supply > granted ? supply : granted));
		while (reserve_step(&r, now, &got) != RESERVE_NOTHING)
			assert_true(got.state != RESERVE_GRANTED || got.got == got.bytes);
		for (uint32_t i = 0; i < r.n; i++) {
			assert_true(r.entry[i].got <= r.entry[i].bytes);
			assert_true(r.entry[i].deadline_ms > now);
			sum += r.entry[i].bytes;
		}
		assert_int_equal(sum, reserve_held(&r) + reserve_missing(&r));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(free_first_then_grant),
		cmocka_unit_test(all_or_nothing),
		cmocka_unit_test(oldest_first),
		cmocka_unit_test(ends),
		cmocka_unit_test(refused),
		cmocka_unit_test(never_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
