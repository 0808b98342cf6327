// SPDX-License-Identifier: MIT
/* What the standard asks of a driver and no other test of the driver looks at. */
#include "driver_helpers.h"

#include <sys/mman.h>

#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define STATS   VIRTIO_BALLOON_VQ_STATS
#define HINTS   VIRTIO_BALLOON_VQ_FREE_PAGE
#define REPORTS VIRTIO_BALLOON_VQ_REPORTING
#define MESSAGE VIRTIO_BALLOON_VQ_MESSAGE

static struct test_driver t;

/* "Driver MUST supply the same subset of statistics in all buffers." */
static void same_subset(void **state)
{
	static const uint32_t later[] = {0x00f0, 0x0010, 0x0000, 0xffff, 0xff0f};

	(void)state;
	td_init(&t, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_BALLOON_F_STATS_VQ));
	t.figures.set = 0x00f0;
	for (uint32_t tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++)
		t.figures.value[tag] = 100 + tag;
	td_begin(&t, 0);
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		struct chain_cursor at = {0};
		uint8_t entry[10];

		t.figures.set = later[i];
		if (i) {
			td_return(&t, STATS, i);
		}
		assert_true(td_pop(&t, STATS));
		assert_int_equal(td_chain.read_bytes, 40);
		for (uint32_t tag = 4; tag < 8; tag++) {
			bool known = later[i] >> tag & 1;

			assert_int_equal(chain_read(&td_chain, &at, entry, sizeof(entry)), 10);
			assert_int_equal(le16_get(entry), tag);
			assert_true(le64_get(entry + 2) ==
				    (known ? 100 + tag : VIRTIO_BALLOON_S_UNSET));
		}
	}
	td_end(&t);
}

/* The device says of a buffer that it wrote so much, and the driver does not care. */
static void return_with(int queue, uint32_t len)
{
	vq_push(&t.vq[queue], t.id[queue], t.slots[queue], len);
	driver_balloon_used(&t.d, 0);
}

/* "When using the legacy interface, the driver SHOULD ignore the used length values." */
static void used_length(void **state)
{
	static const uint32_t lengths[] = {0, 1, 1024, UINT32_MAX};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(lengths); i++) {
		uint32_t len = lengths[i / 2];

		td_init(&t, i % 2 ? TD_ALL : TD_ALL & ~BIT(VIRTIO_F_VERSION_1));
		t.left[DRIVER_FOR_HINT] = 0;
		td_set(&t, TD_FIELD(num_pages), 256);
		td_set(&t, TD_FIELD(free_page_hint_cmd_id), 2);
		td_begin(&t, 0);
		assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
		return_with(INFLATE, len);
		assert_int_equal(td_get(&t, TD_FIELD(actual)), 256);
		td_set_target(&t, 0, 0);
		assert_int_equal(td_pop_pfns(&t, DEFLATE), 256);
		return_with(DEFLATE, len);
		assert_int_equal(td_get(&t, TD_FIELD(actual)), 0);
		assert_true(td_pop(&t, STATS));
		return_with(STATS, len);
		assert_true(td_pop(&t, STATS));
		assert_true(td_pop(&t, HINTS));
		return_with(HINTS, len);
		assert_false(t.d.hint.start_out);
		assert_true(driver_balloon_report(&t.d) > 0);
		assert_true(td_pop(&t, REPORTS));
		return_with(REPORTS, len);
		assert_int_equal(t.n_given[DRIVER_FOR_REPORT], t.n_taken[DRIVER_FOR_REPORT]);
		if (driver_balloon_has(&t.d, VIRTIO_BALLOON_F_MESSAGE_VQ)) {
			assert_int_equal(driver_balloon_pressure(&t.d, 1, 0), 0);
			assert_true(td_pop(&t, MESSAGE));
			return_with(MESSAGE, len);
			assert_false(t.d.message.waiting);
		}
		td_end(&t);
	}
}

/*
 * Neither what is in the balloon, nor hinted or reported pages are read or written: here that would
 * be a fault.
 */
static void pages_stay_untouched(void **state)
{
	(void)state;
	assert_int_equal(mprotect(td_pages, sizeof(td_pages), PROT_NONE), 0);
	for (int poison = 0; poison < 2; poison++) {
		td_init(&t, TD_ALL);
		t.setup.poison = poison;
		t.setup.poison_val = 0xaaaaaaaa;
		t.run = 100;
		t.left[DRIVER_FOR_HINT] = 500;
		td_begin(&t, 0);
		td_set_target(&t, 1000, 0);
		td_serve_pages(&t, 0);
		assert_true(driver_balloon_report(&t.d) > 0);
		assert_true(td_pop(&t, REPORTS));
		td_return(&t, REPORTS, 0);
		td_set(&t, TD_FIELD(free_page_hint_cmd_id), 2);
		td_set_target(&t, 100, 0);
		td_serve_pages(&t, 0);
		while (td_pop(&t, HINTS))
			td_return(&t, HINTS, 0);
		assert_int_equal(t.d.hint.pages, 500);
		td_end(&t);
	}
	assert_int_equal(mprotect(td_pages, sizeof(td_pages), PROT_READ | PROT_WRITE), 0);
}

/* Where num_pages is what the balloon has, or more and there is no memory, no page comes out. */
static void no_deflation_without_need(void **state)
{
	(void)state;
	for (int oom = 0; oom < 2; oom++) {
		td_init(&t, oom ? TD_ALL : TD_ALL & ~BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM));
		td_begin(&t, 0);
		td_set_target(&t, 500, 0);
		td_serve_pages(&t, 0);
		t.left[DRIVER_FOR_BALLOON] = 0;
		for (uint32_t target = 500; target < 1500; target += 250) {
			td_set_target(&t, target, target);
			driver_balloon_tick(&t.d, 2 * target);
			assert_int_equal(td_pop_pfns(&t, DEFLATE), 0);
			assert_int_equal(td_pop_pfns(&t, INFLATE), 0);
		}
		assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], 0);
		/* Unless the system needs it and both have agreed that it may. */
		assert_int_equal(driver_balloon_oom(&t.d, 100, 5000), oom ? 100 : 0);
		assert_int_equal(td_pop_pfns(&t, DEFLATE), oom ? 100 : 0);
		td_end(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_subset),
		cmocka_unit_test(used_length),
		cmocka_unit_test(pages_stay_untouched),
		cmocka_unit_test(no_deflation_without_need),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
