// SPDX-License-Identifier: MIT
/* The portable driver's statistics: on request, and pushed on a schedule. */
#include "driver_helpers.h"

#define QUEUE VIRTIO_BALLOON_VQ_STATS
#define STATS BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH  BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define V1    BIT(VIRTIO_F_VERSION_1)

static struct test_driver t;

static void set_interval(uint32_t ms, uint64_t now)
{
	td_set(&t, TD_FIELD(stats_push_interval_ms), ms);
	driver_balloon_config_changed(&t.d, now);
}

/* The value of MEMFREE in the buffer that was taken last. */
static uint64_t memfree(void)
{
	struct chain_cursor at = {0};
	uint8_t entry[10];

	while (chain_read(&td_chain, &at, entry, sizeof(entry)) == sizeof(entry)) {
		if (le16_get(entry) == VIRTIO_BALLOON_S_MEMFREE)
			return le64_get(entry + 2);
	}
	fail_msg("no MEMFREE");
	return 0;
}

/* A tick of the driver when it asks for one, up to and at `until`. */
static void tick_until(uint64_t until)
{
	while (driver_balloon_next_tick(&t.d) <= until) {
		uint64_t due = driver_balloon_next_tick(&t.d);

		driver_balloon_tick(&t.d, due);
		assert_true(driver_balloon_next_tick(&t.d) > due);
	}
}

/* A buffer is there before DRIVER_OK, the device hears of it after; each return is a request. */
static void pull(void **state)
{
	(void)state;
	td_init(&t, V1 | STATS | PUSH);
	td_prepare(&t);
	assert_int_equal(t.kicks[QUEUE], 0);
	assert_true(driver_ring_should_kick(&t.d.ring[QUEUE]));
	t.d.ring[QUEUE].added = 1;
	driver_balloon_start(&t.d, 0);
	assert_int_equal(t.kicks[QUEUE], 1);
	for (uint64_t i = 0; i < 100; i++) {
		assert_true(td_pop(&t, QUEUE));
		assert_int_equal(memfree(), 1000 + i);
		/* Nothing comes by itself. */
		driver_balloon_tick(&t.d, i * 1000);
		assert_false(td_pop(&t, QUEUE));
		assert_int_equal(driver_balloon_next_tick(&t.d), UINT64_MAX);
		t.figures.value[VIRTIO_BALLOON_S_MEMFREE]++;
		td_return(&t, QUEUE, i * 1000);
		assert_int_equal(t.kicks[QUEUE], i + 2);
	}
	td_end(&t);
}

/* Entries of ten bytes, those that are known and no others. */
static void layout(void **state)
{
	static const uint32_t sets[] = {1, 0xffff, 0x8001, 0xfc00, 0x00f0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		struct chain_cursor at = {0};
		uint8_t entry[10];
		uint32_t found = 0;

		td_init(&t, V1 | STATS);
		t.figures.set = sets[i];
		for (uint32_t tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++)
			t.figures.value[tag] = BIT(63) + tag;
		td_begin(&t, 0);
		assert_true(td_pop(&t, QUEUE));
		assert_int_equal(td_chain.n_write, 0);
		assert_int_equal(td_chain.read_bytes, 10 * __builtin_popcount(sets[i]));
		while (chain_read(&td_chain, &at, entry, sizeof(entry)) == sizeof(entry)) {
			assert_int_equal(le64_get(entry + 2), BIT(63) + le16_get(entry));
			found |= 1U << le16_get(entry);
		}
		assert_int_equal(found, sets[i]);
		td_end(&t);
	}
}

/* Tick k is at start + k * N, however late the driver is called and however slow the device is. */
static void schedule(void **state)
{
	(void)state;
	td_init(&t, V1 | STATS | PUSH);
	td_set(&t, TD_FIELD(stats_push_interval_ms), 100);
	td_begin(&t, 5000);
	/* The buffer that is there from the beginning is the first push. */
	assert_true(td_pop(&t, QUEUE));
	td_return(&t, QUEUE, 5001);
	for (uint64_t k = 1; k < 1000; k++) {
		uint64_t due = 5000 + k * 100, late = k * 37 % 90;

		assert_int_equal(driver_balloon_next_tick(&t.d), due);
		driver_balloon_tick(&t.d, due - 1);
		assert_false(td_pop(&t, QUEUE));
		driver_balloon_tick(&t.d, due + late);
		assert_true(td_pop(&t, QUEUE));
		assert_false(td_pop(&t, QUEUE));
		/* Returned, it is no request. */
		td_return(&t, QUEUE, due + late + k % 10);
		assert_false(td_pop(&t, QUEUE));
	}
	assert_int_equal(t.d.stats.sent, 1000);
	assert_int_equal(t.d.stats.skipped, 0);
	assert_int_equal(t.d.stats.missed, 0);
	td_end(&t);
}

/* While the buffer is at the device ticks pass, and it is not written to. */
static void skipped(void **state)
{
	uint64_t was;

	(void)state;
	td_init(&t, V1 | STATS | PUSH);
	td_set(&t, TD_FIELD(stats_push_interval_ms), 50);
	td_begin(&t, 0);
	assert_true(td_pop(&t, QUEUE));
	was = memfree();
	t.figures.value[VIRTIO_BALLOON_S_MEMFREE] = 5;
	tick_until(500);
	assert_int_equal(t.d.stats.skipped, 10);
	assert_int_equal(t.d.stats.sent, 1);
	assert_int_equal(memfree(), was);
	assert_false(td_pop(&t, QUEUE));
	/* Then the next tick goes on as usual. */
	td_return(&t, QUEUE, 520);
	assert_false(td_pop(&t, QUEUE));
	assert_int_equal(driver_balloon_next_tick(&t.d), 550);
	tick_until(550);
	assert_true(td_pop(&t, QUEUE));
	assert_int_equal(memfree(), 5);
	assert_int_equal(t.d.stats.skipped, 10);
	/* A driver that was not called for long makes up for nothing. */
	td_return(&t, QUEUE, 551);
	driver_balloon_tick(&t.d, 1049);
	assert_true(td_pop(&t, QUEUE));
	assert_int_equal(t.d.stats.missed, 8);
	td_return(&t, QUEUE, 1049);
	assert_false(td_pop(&t, QUEUE));
	assert_int_equal(driver_balloon_next_tick(&t.d), 1050);
	td_end(&t);
}

/* 0 -> N: the first push is at once when the buffer is back, whichever shows first. */
static void pull_to_push(void **state)
{
	(void)state;
	for (int order = 0; order < 3; order++) {
		td_init(&t, V1 | STATS | PUSH);
		td_begin(&t, 0);
		assert_true(td_pop(&t, QUEUE));
		td_set(&t, TD_FIELD(stats_push_interval_ms), 100);
		switch (order) {
		case 0: /* the notice, then the buffer */
			driver_balloon_config_changed(&t.d, 1000);
			assert_false(td_pop(&t, QUEUE));
			td_return(&t, QUEUE, 1010);
			break;
		case 1: /* the buffer, then the notice */
			td_return(&t, QUEUE, 1000);
			driver_balloon_config_changed(&t.d, 1010);
			break;
		default: /* the buffer takes longer than an interval */
			driver_balloon_config_changed(&t.d, 1000);
			tick_until(1100);
			assert_int_equal(t.d.stats.skipped, 1);
			td_return(&t, QUEUE, 1110);
			break;
		}
		assert_true(td_pop(&t, QUEUE));
		assert_false(td_pop(&t, QUEUE));
		assert_int_equal(t.d.stats.sent, 2);
		td_return(&t, QUEUE, order == 2 ? 1120 : 1050);
		assert_false(td_pop(&t, QUEUE));
		/* The period begins with the change. */
		assert_int_equal(driver_balloon_next_tick(&t.d), order == 2 ? 1200 : 1100);
		tick_until(1200);
		assert_true(td_pop(&t, QUEUE));
		td_end(&t);
	}
}

/* N -> 0: exactly one buffer is at the device, wherever it was. */
static void push_to_pull(void **state)
{
	(void)state;
	for (int order = 0; order < 4; order++) {
		td_init(&t, V1 | STATS | PUSH);
		td_set(&t, TD_FIELD(stats_push_interval_ms), 100);
		td_begin(&t, 0);
		assert_true(td_pop(&t, QUEUE));
		switch (order) {
		case 0: /* it is here */
			td_return(&t, QUEUE, 10);
			set_interval(0, 20);
			assert_true(td_pop(&t, QUEUE));
			break;
		case 1: /* it is at the device, and stays */
			set_interval(0, 20);
			break;
		case 2: /* it was returned, and nobody has looked */
			td_push(&t, QUEUE);
			set_interval(0, 20);
			assert_false(td_pop(&t, QUEUE));
			driver_balloon_used(&t.d, 21);
			assert_true(td_pop(&t, QUEUE));
			break;
		default: /* it comes back although it might have stayed */
			set_interval(0, 20);
			td_return(&t, QUEUE, 30);
			assert_true(td_pop(&t, QUEUE));
			break;
		}
		assert_false(td_pop(&t, QUEUE));
		assert_true(t.d.stats.out);
		assert_int_equal(driver_balloon_next_tick(&t.d), UINT64_MAX);
		driver_balloon_tick(&t.d, 1000);
		assert_false(td_pop(&t, QUEUE));
		/* From now on it is a request. */
		td_return(&t, QUEUE, 1001);
		assert_true(td_pop(&t, QUEUE));
		td_end(&t);
	}
}

static void push_to_push(void **state)
{
	(void)state;
	for (int out = 0; out < 2; out++) {
		td_init(&t, V1 | STATS | PUSH);
		td_set(&t, TD_FIELD(stats_push_interval_ms), 100);
		td_begin(&t, 1000);
		assert_true(td_pop(&t, QUEUE));
		if (!out)
			td_return(&t, QUEUE, 1010);
		set_interval(30, 1050);
		assert_int_equal(driver_balloon_next_tick(&t.d), 1080);
		assert_false(td_pop(&t, QUEUE));
		if (out)
			td_return(&t, QUEUE, 1060);
		assert_false(td_pop(&t, QUEUE));
		tick_until(1080);
		assert_true(td_pop(&t, QUEUE));
		assert_false(td_pop(&t, QUEUE));
		/* A notice of something else changes nothing. */
		driver_balloon_config_changed(&t.d, 1095);
		assert_int_equal(driver_balloon_next_tick(&t.d), 1110);
		td_end(&t);
	}
}

static void clamped(void **state)
{
	static const struct {
		uint32_t config, served;
	} cases[] = {{1, 10}, {9, 10}, {10, 10}, {11, 11}, {UINT32_MAX, UINT32_MAX}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		td_init(&t, V1 | STATS | PUSH);
		td_begin(&t, 0);
		set_interval(cases[i].config, 100);
		assert_int_equal(driver_balloon_next_tick(&t.d), 100 + (uint64_t)cases[i].served);
		td_end(&t);
	}
}

/* Without the feature the field is not there. */
static void not_negotiated(void **state)
{
	(void)state;
	for (int stats = 0; stats < 2; stats++) {
		td_init(&t, V1 | (stats ? STATS : PUSH));
		td_set(&t, TD_FIELD(stats_push_interval_ms), 100);
		td_begin(&t, 0);
		set_interval(50, 10);
		assert_int_equal(t.reads[TD_FIELD(stats_push_interval_ms)], 0);
		assert_int_equal(driver_balloon_next_tick(&t.d), UINT64_MAX);
		assert_int_equal(t.d.stats.sent, stats);
		td_end(&t);
	}
}

/* A legacy device ignores the first buffer; it is there, and the next one comes when asked for. */
static void legacy(void **state)
{
	(void)state;
	td_init(&t, STATS);
	td_begin(&t, 0);
	assert_true(td_pop(&t, QUEUE));
	td_return(&t, QUEUE, 0);
	assert_true(td_pop(&t, QUEUE));
	assert_int_equal(memfree(), 1000);
	td_end(&t);
}

/* Whatever happens in whatever order: one buffer at most is out, and in the end all is as it was.
 */
static void never_two(void **state)
{
	static const uint32_t intervals[] = {0, 0, 10, 35, 1000};

	(void)state;
	for (unsigned int seed = 1; seed < 200; seed++) {
		uint64_t now = 0, random = seed;
		bool held = false;

		td_init(&t, V1 | STATS | PUSH);
		td_begin(&t, 0);
		for (int i = 0; i < 500; i++) {
			random = random * 6364136223846793005ULL + 1442695040888963407ULL;
			switch (random >> 40 & 7) {
			case 0:
				td_set(&t, TD_FIELD(stats_push_interval_ms),
				       intervals[(random >> 50) % 5]);
				break;
			case 1:
				driver_balloon_config_changed(&t.d, now);
				break;
			case 2:
			case 3:
				if (!held)
					held = td_pop(&t, QUEUE);
				else
					assert_false(td_pop(&t, QUEUE));
				break;
			case 4:
				if (held)
					td_push(&t, QUEUE);
				held = false;
				break;
			case 5:
				driver_balloon_used(&t.d, now);
				break;
			default:
				now += random >> 50 & 63;
				driver_balloon_tick(&t.d, now);
				break;
			}
			assert_true(t.d.ring[QUEUE].n_free >= t.d.ring[QUEUE].size - 1);
		}
		set_interval(0, now);
		driver_balloon_used(&t.d, now);
		if (!held)
			assert_true(td_pop(&t, QUEUE));
		assert_false(td_pop(&t, QUEUE));
		td_end(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pull),           cmocka_unit_test(layout),
		cmocka_unit_test(schedule),       cmocka_unit_test(skipped),
		cmocka_unit_test(pull_to_push),   cmocka_unit_test(push_to_pull),
		cmocka_unit_test(push_to_push),   cmocka_unit_test(clamped),
		cmocka_unit_test(not_negotiated), cmocka_unit_test(legacy),
		cmocka_unit_test(never_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
