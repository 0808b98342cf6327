// SPDX-License-Identifier: MIT
/* The portable driver as a whole: features, numbering, memory, beginning and end. */
#include "driver_helpers.h"

#include <errno.h>

#define STATS     BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH      BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define HINT      BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define REPORTING BIT(VIRTIO_BALLOON_F_PAGE_REPORTING)
#define POISON    BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define MESSAGE   BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define V1        BIT(VIRTIO_F_VERSION_1)
#define PACKED    BIT(VIRTIO_F_RING_PACKED)

static struct test_driver t;

static void features(void **state)
{
	static const struct {
		uint64_t offered, wanted;
		bool poison;
		uint64_t accepted;
	} cases[] = {
		{0, ~0ULL, false, 0},
		{~0ULL, 0, true, 0},
		{TD_ALL | PACKED, ~0ULL, true, TD_ALL | PACKED},
		{~0ULL, ~0ULL, true,
		 TD_ALL | PACKED | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC)},
		/* What it does not know it does not accept. */
		{BIT(7) | BIT(VIRTIO_BALLOON_F_RANGES) | V1, ~0ULL, false, V1},
		{V1 | STATS, STATS, false, STATS},
		/* STATS_PUSH only with STATS_VQ. */
		{V1 | PUSH, ~0ULL, false, V1},
		{V1 | STATS | PUSH, ~STATS, false, V1},
		{V1 | STATS | PUSH, ~0ULL, false, V1 | STATS | PUSH},
		/* PAGE_POISON only if pages are filled; and if so, no reporting without it. */
		{V1 | POISON | REPORTING, ~0ULL, false, V1 | REPORTING},
		{V1 | POISON | REPORTING, ~0ULL, true, V1 | POISON | REPORTING},
		{V1 | REPORTING, ~0ULL, true, V1},
		{V1 | POISON | REPORTING, ~POISON, true, V1},
		{V1 | REPORTING, ~0ULL, false, V1 | REPORTING},
		/* The legacy interface ends at bit 31. */
		{STATS | MESSAGE | PACKED, ~0ULL, false, STATS},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(driver_balloon_negotiate(cases[i].offered, cases[i].wanted,
							  cases[i].poison),
				 cases[i].accepted);
}

static void numbering(void **state)
{
	static const struct {
		uint64_t offered, wanted;
		int8_t fixed[6], negotiated[6], by_offer[6];
	} cases[] = {
		{V1, V1, {0, 1, -1, -1, -1, -1}, {0, 1, -1, -1, -1, -1}, {0, 1, -1, -1, -1, -1}},
		{TD_ALL,
		 TD_ALL & ~POISON,
		 {0, 1, 2, 3, 4, 5},
		 {0, 1, 2, 3, 4, 5},
		 {0, 1, 2, 3, 4, 5}},
		{V1 | HINT | REPORTING | MESSAGE,
		 V1 | REPORTING | MESSAGE,
		 {0, 1, -1, -1, 4, 5},
		 {0, 1, -1, -1, 2, 3},
		 {0, 1, -1, -1, 3, 4}},
		{V1 | STATS | MESSAGE,
		 V1 | MESSAGE,
		 {0, 1, -1, -1, -1, 5},
		 {0, 1, -1, -1, -1, 2},
		 {0, 1, -1, -1, -1, 3}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const int8_t *rings[] = {cases[i].fixed, cases[i].negotiated, cases[i].by_offer};

		for (int n = 0; n < 3; n++) {
			td_init(&t, cases[i].offered);
			t.setup.wanted = cases[i].wanted;
			t.setup.numbering = (enum driver_numbering)n;
			assert_int_equal(driver_balloon_init(&t.d, &t.setup), 0);
			assert_memory_equal(t.d.ring_of, rings[n], sizeof(t.d.ring_of));
		}
	}
}

static void bad_setup(void **state)
{
	(void)state;
	for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		static const uint16_t bad[] = {0, 3, 24, 255, DRIVER_RING_MAX + 1, 512};

		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			td_init(&t, TD_ALL);
			t.setup.ring_size[queue] = bad[i];
			assert_int_equal(driver_balloon_init(&t.d, &t.setup), -EINVAL);
		}
		/* A queue that does not exist needs no ring, and a packed one has any size. */
		td_init(&t, V1);
		t.setup.ring_size[queue] = 0;
		assert_int_equal(driver_balloon_init(&t.d, &t.setup), queue < 2 ? -EINVAL : 0);
		td_init(&t, TD_ALL | PACKED);
		t.setup.ring_size[queue] = 3;
		assert_int_equal(driver_balloon_init(&t.d, &t.setup), 0);
	}
	/* Hints need room for the word that ends them. */
	td_init(&t, TD_ALL);
	t.setup.ring_size[VIRTIO_BALLOON_VQ_FREE_PAGE] = 1;
	assert_int_equal(driver_balloon_init(&t.d, &t.setup), -EINVAL);

	td_init(&t, TD_ALL);
	t.setup.array_pfns = DRIVER_ARRAY_MAX + 1;
	assert_int_equal(driver_balloon_init(&t.d, &t.setup), -EINVAL);
	td_init(&t, TD_ALL);
	t.setup.pages = 0;
	assert_int_equal(driver_balloon_init(&t.d, &t.setup), -EINVAL);
	td_init(&t, TD_ALL);
	t.setup.first_pfn = UINT32_MAX - 10;
	assert_int_equal(driver_balloon_init(&t.d, &t.setup), -EINVAL);
	t.setup.pages = 11;
	assert_int_equal(driver_balloon_init(&t.d, &t.setup), 0);

	td_init(&t, TD_ALL);
	t.setup.hinted = NULL;
	assert_int_equal(driver_balloon_init(&t.d, &t.setup), 0);
	assert_false(driver_balloon_has(&t.d, VIRTIO_BALLOON_F_FREE_PAGE_HINT));
	assert_int_equal(t.d.ring_of[VIRTIO_BALLOON_VQ_FREE_PAGE], -1);
}

struct place {
	uint64_t start, len;
};

static int by_start(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* Nothing of what is laid out overlaps, or is outside of the room. */
static void layout(void **state)
{
	(void)state;
	for (int packed = 0; packed < 2; packed++) {
		struct place p[16];
		size_t n = 0;
		uint64_t at = TD_LOW_GPA;

		td_init(&t, TD_ALL | (packed ? PACKED : 0));
		t.setup.poison = true;
		t.setup.array_pfns = 1000;
		td_prepare(&t);
		for (int queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
			p[n++] = (struct place){t.d.ring_gpa[queue], driver_ring_bytes(packed, 32)};
		p[n++] = (struct place){t.d.pages.inflate.room.gpa, 4000};
		p[n++] = (struct place){t.d.pages.deflate.room.gpa, 4000};
		p[n++] = (struct place){t.d.stats.room.gpa, 16 * 10};
		p[n++] = (struct place){t.d.message.room.gpa, 8};
		p[n++] = (struct place){t.d.hint.start.gpa, 4};
		p[n++] = (struct place){t.d.hint.stop.gpa, 4};
		p[n++] = (struct place){t.d.report.table.gpa,
					DRIVER_REPORT_BLOCKS * VRING_DESC_SIZE};
		qsort(p, n, sizeof(p[0]), by_start);
		for (size_t i = 0; i < n; i++) {
			assert_true(p[i].start >= at);
			assert_int_equal(p[i].start % 64, 0);
			at = p[i].start + p[i].len;
		}
		assert_true(at <= TD_LOW_GPA + driver_balloon_bytes(&t.d));
		assert_ptr_equal(t.d.stats.room.host - t.low, t.d.stats.room.gpa - TD_LOW_GPA);
		td_end(&t);
	}
}

/* poison_val is there before DRIVER_OK, and without the feature the field is not touched. */
static void poison_value(void **state)
{
	(void)state;
	for (int poison = 0; poison < 2; poison++) {
		td_init(&t, TD_ALL);
		t.setup.poison = poison;
		t.setup.poison_val = 0xaaaaaaaa;
		td_prepare(&t);
		assert_int_equal(t.writes[TD_FIELD(poison_val)], poison);
		assert_int_equal(td_get(&t, TD_FIELD(poison_val)), poison ? 0xaaaaaaaa : 0);
		driver_balloon_start(&t.d, 0);
		td_set_target(&t, 500, 0);
		td_serve_pages(&t, 0);
		assert_int_equal(t.writes[TD_FIELD(poison_val)], poison);
		td_end(&t);
	}
}

/* Before DRIVER_OK and after reset it does nothing, whatever comes. */
static void not_running(void **state)
{
	(void)state;
	td_init(&t, TD_ALL);
	td_set(&t, TD_FIELD(num_pages), 100);
	td_set(&t, TD_FIELD(free_page_hint_cmd_id), 5);
	t.left[DRIVER_FOR_HINT] = 100;
	td_prepare(&t);
	for (int i = 0; i < 2; i++) {
		driver_balloon_config_changed(&t.d, 1);
		driver_balloon_used(&t.d, 2);
		driver_balloon_tick(&t.d, 3);
		assert_int_equal(driver_balloon_pressure(&t.d, 1, 4), -ENODEV);
		assert_int_equal(driver_balloon_relieved(&t.d, 4), -ENODEV);
		assert_int_equal(driver_balloon_oom(&t.d, 10, 5), 0);
		assert_int_equal(driver_balloon_report(&t.d), 0);
		assert_int_equal(driver_balloon_next_tick(&t.d), UINT64_MAX);
		assert_true(driver_balloon_closed(&t.d));
		for (uint32_t use = 0; use < 3; use++)
			assert_int_equal(t.n_taken[use], t.n_given[use]);
		if (i)
			break;
		driver_balloon_start(&t.d, 10);
		assert_int_equal(t.n_taken[DRIVER_FOR_BALLOON], 100);
		assert_int_equal(t.n_taken[DRIVER_FOR_HINT], 100);
		assert_false(driver_balloon_closed(&t.d));
		driver_balloon_reset(&t.d);
	}
	td_end(&t);
}

/* At any moment a reset gives everything back; what was on its way too. */
static void reset_gives_back(void **state)
{
	(void)state;
	for (int told = 0; told < 2; told++) {
		for (uint32_t steps = 0; steps < 12; steps++) {
			td_init(&t, TD_ALL & ~(told ? 0 : BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)));
			td_set(&t, TD_FIELD(num_pages), 1024);
			td_set(&t, TD_FIELD(free_page_hint_cmd_id), 7);
			t.left[DRIVER_FOR_HINT] = 300;
			t.run = 100;
			td_begin(&t, 0);
			(void)driver_balloon_report(&t.d);
			for (uint32_t i = 0; i < steps; i++) {
				if (i == 4)
					td_set_target(&t, 100, 0);
				for (int queue = 0; queue < 2; queue++) {
					if (td_pop(&t, queue))
						td_return(&t, queue, 0);
				}
			}
			td_end(&t);
			for (uint32_t use = 0; use < 3; use++)
				assert_int_equal(t.n_taken[use], t.n_given[use]);
		}
	}
}

static void close_empties(void **state)
{
	(void)state;
	td_init(&t, TD_ALL);
	td_set(&t, TD_FIELD(stats_push_interval_ms), 100);
	td_begin(&t, 0);
	td_set_target(&t, 600, 0);
	td_serve_pages(&t, 0);
	assert_int_equal(td_get(&t, TD_FIELD(actual)), 600);
	/* Inflation is under way, too. */
	td_set_target(&t, 1000, 0);
	assert_int_equal(driver_balloon_pressure(&t.d, 1, 0), 0);
	driver_balloon_close(&t.d, 10);
	assert_false(driver_balloon_closed(&t.d));
	assert_int_equal(driver_balloon_report(&t.d), 0);
	assert_int_equal(driver_balloon_pressure(&t.d, 3, 10), -ENODEV);
	td_serve_pages(&t, 10);
	assert_int_equal(td_get(&t, TD_FIELD(actual)), 0);
	assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], t.n_taken[DRIVER_FOR_BALLOON]);
	/* The message and the push that were under way are waited for. */
	assert_false(driver_balloon_closed(&t.d));
	assert_true(td_pop(&t, VIRTIO_BALLOON_VQ_MESSAGE));
	td_return(&t, VIRTIO_BALLOON_VQ_MESSAGE, 11);
	assert_false(driver_balloon_closed(&t.d));
	assert_true(td_pop(&t, VIRTIO_BALLOON_VQ_STATS));
	td_return(&t, VIRTIO_BALLOON_VQ_STATS, 12);
	assert_true(driver_balloon_closed(&t.d));
	/* The timer has stopped, and the target means nothing any more. */
	driver_balloon_tick(&t.d, 500);
	td_set_target(&t, 2000, 500);
	assert_false(td_pop(&t, VIRTIO_BALLOON_VQ_STATS));
	assert_int_equal(td_pop_pfns(&t, VIRTIO_BALLOON_VQ_INFLATE), 0);
	td_end(&t);
}

/* A buffer that is left with the device for requests does not come back: nobody waits for it. */
static void close_leaves_pull_buffer(void **state)
{
	(void)state;
	td_init(&t, TD_ALL);
	td_begin(&t, 0);
	assert_true(t.d.stats.out);
	driver_balloon_close(&t.d, 10);
	assert_true(driver_balloon_closed(&t.d));
	td_end(&t);
}

static void return_pages(struct test_driver *driver)
{
	driver->on_give = NULL;
	td_push(driver, VIRTIO_BALLOON_VQ_INFLATE);
}

/* What the device returns while the driver looks is seen too: there may be no other notice of it.
 */
static void returned_meanwhile(void **state)
{
	(void)state;
	td_init(&t, TD_ALL);
	t.left[DRIVER_FOR_REPORT] = 10;
	td_begin(&t, 0);
	td_set_target(&t, 100, 0);
	assert_int_equal(td_pop_pfns(&t, VIRTIO_BALLOON_VQ_INFLATE), 100);
	assert_int_equal(driver_balloon_report(&t.d), 10);
	assert_true(td_pop(&t, VIRTIO_BALLOON_VQ_REPORTING));
	t.on_give = return_pages;
	td_return(&t, VIRTIO_BALLOON_VQ_REPORTING, 0);
	assert_int_equal(td_get(&t, TD_FIELD(actual)), 100);
	td_end(&t);
}

/* What the device makes up breaks its ring, and nothing else happens. */
static void made_up_buffers(void **state)
{
	(void)state;
	for (int packed = 0; packed < 2; packed++) {
		static const uint16_t ids[] = {1, 31, 32, 300, 0xffff};

		for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
			td_init(&t, TD_ALL | (packed ? PACKED : 0));
			td_begin(&t, 0);
			td_set_target(&t, 10, 0);
			assert_int_equal(td_pop_pfns(&t, VIRTIO_BALLOON_VQ_INFLATE), 10);
			t.id[VIRTIO_BALLOON_VQ_INFLATE] =
				ids[i] == t.id[VIRTIO_BALLOON_VQ_INFLATE] ? 5 : ids[i];
			td_return(&t, VIRTIO_BALLOON_VQ_INFLATE, 1);
			assert_true(t.d.ring[VIRTIO_BALLOON_VQ_INFLATE].broken);
			assert_true(t.d.pages.inflate.out);
			assert_int_equal(t.d.pages.count, 0);
			/* The others go on. */
			assert_true(td_pop(&t, VIRTIO_BALLOON_VQ_STATS));
			td_return(&t, VIRTIO_BALLOON_VQ_STATS, 2);
			assert_true(td_pop(&t, VIRTIO_BALLOON_VQ_STATS));
			td_end(&t);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features),
		cmocka_unit_test(numbering),
		cmocka_unit_test(bad_setup),
		cmocka_unit_test(layout),
		cmocka_unit_test(poison_value),
		cmocka_unit_test(not_running),
		cmocka_unit_test(reset_gives_back),
		cmocka_unit_test(close_empties),
		cmocka_unit_test(close_leaves_pull_buffer),
		cmocka_unit_test(returned_meanwhile),
		cmocka_unit_test(made_up_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
