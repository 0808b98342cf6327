// SPDX-License-Identifier: MIT
/* The portable driver inflates and deflates. */
#include "driver_helpers.h"

#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define TELL    BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define OOM     BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define V1      BIT(VIRTIO_F_VERSION_1)

static struct test_driver t;

static uint32_t in_balloon(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < TD_PAGES; i++)
		n += (t.in_balloon[i / 64] >> (i % 64) & 1) != 0;
	return n;
}

/* The pages of the buffer that was taken last are all the driver's, and named once. */
static void check_named(void)
{
	static uint8_t named[TD_PAGES];
	struct chain_cursor at = {0};
	uint8_t raw[4];

	memset(named, 0, sizeof(named));
	while (chain_read(&td_chain, &at, raw, sizeof(raw)) == sizeof(raw)) {
		uint32_t page = le32_get(raw) - TD_FIRST_PFN;

		assert_in_range(page, 0, TD_PAGES - 1);
		assert_true(t.taken[page]);
		assert_int_equal(named[page]++, 0);
	}
}

/* To the target, in arrays of the size that was asked for; `actual` follows each. */
static void arrays(void **state)
{
	static const uint32_t sizes[] = {0, 1, 7, 256, 1000, 4096};
	const uint32_t target = 1024;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint32_t size = sizes[i] ? sizes[i] : 256, at = 0, writes = 0;

		td_init(&t, TELL | V1);
		t.setup.array_pfns = sizes[i];
		t.run = 33;
		td_begin(&t, 0);
		td_set_target(&t, target, 0);
		while (at < target) {
			uint32_t n = target - at < size ? target - at : size;

			assert_int_equal(td_pop_pfns(&t, INFLATE), n);
			check_named();
			assert_int_equal(t.writes[TD_FIELD(actual)], writes);
			/* One array at a time, and it counts when it is back. */
			assert_false(td_pop(&t, INFLATE));
			assert_int_equal(in_balloon(), at);
			td_return(&t, INFLATE, 0);
			at += n;
			assert_int_equal(t.writes[TD_FIELD(actual)], ++writes);
			assert_int_equal(td_get(&t, TD_FIELD(actual)), at);
			assert_int_equal(in_balloon(), at);
		}
		assert_false(td_pop(&t, INFLATE));
		assert_int_equal(t.kicks[INFLATE], writes);

		td_set_target(&t, 0, 0);
		for (writes = 0; at;) {
			uint32_t n = at < size ? at : size;

			assert_int_equal(td_pop_pfns(&t, DEFLATE), n);
			check_named();
			td_return(&t, DEFLATE, 0);
			at -= n;
			writes++;
			assert_int_equal(td_get(&t, TD_FIELD(actual)), at);
			assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], target - at);
		}
		assert_false(td_pop(&t, DEFLATE));
		assert_int_equal(t.kicks[DEFLATE], writes);
		assert_false(td_pop(&t, INFLATE));
		td_end(&t);
	}
}

/* With MUST_TELL_HOST a page is used when the device has acknowledged, without it at once. */
static void tell_before_use(void **state)
{
	(void)state;
	for (int told = 0; told < 2; told++) {
		td_init(&t, V1 | (told ? TELL : 0));
		td_begin(&t, 0);
		td_set_target(&t, 300, 0);
		td_serve_pages(&t, 0);
		td_set_target(&t, 100, 0);
		assert_int_equal(td_pop_pfns(&t, DEFLATE), 200);
		assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], told ? 0 : 200);
		assert_int_equal(td_get(&t, TD_FIELD(actual)), 300);
		td_return(&t, DEFLATE, 0);
		assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], 200);
		assert_int_equal(td_get(&t, TD_FIELD(actual)), 100);
		td_end(&t);
	}
}

/* What is being inflated is not deflated before the device has acknowledged. */
static void target_falls_while_inflating(void **state)
{
	(void)state;
	td_init(&t, TELL | V1);
	td_begin(&t, 0);
	td_set_target(&t, 512, 0);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	td_set_target(&t, 0, 0);
	assert_false(td_pop(&t, DEFLATE));
	td_return(&t, INFLATE, 0);
	assert_int_equal(td_pop_pfns(&t, DEFLATE), 256);
	assert_false(td_pop(&t, INFLATE));
	td_return(&t, DEFLATE, 0);
	assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], 256);
	td_end(&t);
}

/* While a deflation is out a page of it must not come back by the other queue. */
static void target_rises_while_deflating(void **state)
{
	(void)state;
	td_init(&t, V1);
	td_begin(&t, 0);
	td_set_target(&t, 256, 0);
	td_serve_pages(&t, 0);
	td_set_target(&t, 0, 0);
	assert_int_equal(td_pop_pfns(&t, DEFLATE), 256);
	td_set_target(&t, 512, 0);
	assert_false(td_pop(&t, INFLATE));
	td_return(&t, DEFLATE, 0);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	td_end(&t);
}

/* The configuration is looked at for each array: the notice may come late. */
static void reads_target_for_each_array(void **state)
{
	(void)state;
	td_init(&t, TELL | V1);
	td_begin(&t, 0);
	td_set_target(&t, 1024, 0);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	td_set(&t, TD_FIELD(num_pages), 272);
	td_return(&t, INFLATE, 0);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 16);
	td_return(&t, INFLATE, 0);
	assert_false(td_pop(&t, INFLATE));
	/* And not when there is nothing that it could change. */
	t.reads[TD_FIELD(num_pages)] = 0;
	for (uint64_t now = 1; now < 100; now++)
		driver_balloon_tick(&t.d, now);
	assert_int_equal(t.reads[TD_FIELD(num_pages)], 0);
	td_end(&t);
}

/* Short of memory it sends what it has, and tries again later. */
static void memory_is_short(void **state)
{
	(void)state;
	td_init(&t, TELL | V1);
	t.left[DRIVER_FOR_BALLOON] = 100;
	td_begin(&t, 1000);
	td_set_target(&t, 512, 1000);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 100);
	assert_int_equal(t.d.pages.refused, 1);
	td_return(&t, INFLATE, 1010);
	assert_int_equal(td_get(&t, TD_FIELD(actual)), 100);
	assert_int_equal(driver_balloon_next_tick(&t.d), 1200);
	t.left[DRIVER_FOR_BALLOON] = 50;
	driver_balloon_tick(&t.d, 1199);
	assert_false(td_pop(&t, INFLATE));
	driver_balloon_tick(&t.d, 1200);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 50);
	assert_int_equal(driver_balloon_next_tick(&t.d), 1400);
	td_return(&t, INFLATE, 1201);
	/* None at all: nothing is sent. */
	driver_balloon_tick(&t.d, 1400);
	assert_false(td_pop(&t, INFLATE));
	assert_int_equal(t.d.pages.refused, 3);
	assert_int_equal(driver_balloon_next_tick(&t.d), 1600);
	/* The target has come down: there is nothing to try again for. */
	td_set_target(&t, 150, 1500);
	driver_balloon_tick(&t.d, 1600);
	assert_int_equal(driver_balloon_next_tick(&t.d), UINT64_MAX);
	td_end(&t);
}

static void oom(void **state)
{
	(void)state;
	td_init(&t, TELL | V1 | OOM);
	td_begin(&t, 0);
	td_set_target(&t, 1000, 0);
	td_serve_pages(&t, 0);
	/* Whatever the host wants; in as many arrays as it takes. */
	assert_int_equal(driver_balloon_oom(&t.d, 300, 10), 300);
	assert_int_equal(td_pop_pfns(&t, DEFLATE), 256);
	assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], 0);
	td_return(&t, DEFLATE, 10);
	assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], 256);
	assert_int_equal(td_pop_pfns(&t, DEFLATE), 44);
	td_return(&t, DEFLATE, 10);
	assert_int_equal(td_get(&t, TD_FIELD(actual)), 700);
	assert_int_equal(t.d.pages.oom_pages, 300);
	/* It does not take them back before the host says something new. */
	for (uint64_t now = 10; now < 1000; now += 50)
		driver_balloon_tick(&t.d, now);
	assert_false(td_pop(&t, INFLATE));
	assert_false(td_pop(&t, DEFLATE));
	td_set_target(&t, 1000, 1000);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	td_return(&t, INFLATE, 1000);
	td_serve_pages(&t, 1000);
	/* More than there is. */
	assert_int_equal(driver_balloon_oom(&t.d, 5000, 1001), 1000);
	td_serve_pages(&t, 1001);
	assert_int_equal(td_get(&t, TD_FIELD(actual)), 0);
	assert_int_equal(driver_balloon_oom(&t.d, 1, 1002), 0);
	td_end(&t);
}

/* A deflation that is under way counts: it comes back all the same. */
static void oom_while_deflating(void **state)
{
	(void)state;
	td_init(&t, TELL | V1 | OOM);
	td_begin(&t, 0);
	td_set_target(&t, 512, 0);
	td_serve_pages(&t, 0);
	td_set_target(&t, 312, 0);
	assert_int_equal(td_pop_pfns(&t, DEFLATE), 200);
	assert_int_equal(driver_balloon_oom(&t.d, 250, 0), 250);
	td_return(&t, DEFLATE, 0);
	assert_int_equal(td_pop_pfns(&t, DEFLATE), 50);
	td_return(&t, DEFLATE, 0);
	assert_false(td_pop(&t, DEFLATE));
	assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], 250);
	td_end(&t);
}

static void oom_not_negotiated(void **state)
{
	(void)state;
	td_init(&t, TELL | V1);
	td_begin(&t, 0);
	td_set_target(&t, 100, 0);
	td_serve_pages(&t, 0);
	assert_int_equal(driver_balloon_oom(&t.d, 50, 0), 0);
	assert_false(td_pop(&t, DEFLATE));
	td_set_target(&t, 120, 0);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 20);
	td_end(&t);
}

/* Every page comes out again, wherever the last deflation ended. */
static void deflation_goes_round(void **state)
{
	(void)state;
	td_init(&t, TELL | V1);
	t.run = 50;
	t.left[DRIVER_FOR_BALLOON] = UINT32_MAX;
	td_begin(&t, 0);
	for (uint32_t i = 0; i < 200; i++) {
		uint32_t target = i * 977 % 4000;

		td_set_target(&t, target, 0);
		td_serve_pages(&t, 0);
		assert_int_equal(in_balloon(), target);
		assert_int_equal(t.d.pages.count, target);
	}
	td_set_target(&t, 0, 0);
	td_serve_pages(&t, 0);
	assert_int_equal(t.n_taken[DRIVER_FOR_BALLOON], t.n_given[DRIVER_FOR_BALLOON]);
	td_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arrays),
		cmocka_unit_test(tell_before_use),
		cmocka_unit_test(target_falls_while_inflating),
		cmocka_unit_test(target_rises_while_deflating),
		cmocka_unit_test(reads_target_for_each_array),
		cmocka_unit_test(memory_is_short),
		cmocka_unit_test(oom),
		cmocka_unit_test(oom_while_deflating),
		cmocka_unit_test(oom_not_negotiated),
		cmocka_unit_test(deflation_goes_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
