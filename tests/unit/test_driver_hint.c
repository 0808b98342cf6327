// SPDX-License-Identifier: MIT
/* The portable driver hints and reports free pages. */
#include "driver_helpers.h"

#define HINTS   VIRTIO_BALLOON_VQ_FREE_PAGE
#define REPORTS VIRTIO_BALLOON_VQ_REPORTING
#define OFFER                                                             \
	(BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_F_VERSION_1) | \
	 BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | BIT(VIRTIO_BALLOON_F_PAGE_REPORTING))

#define STOP VIRTIO_BALLOON_CMD_ID_STOP
#define DONE VIRTIO_BALLOON_CMD_ID_DONE

static struct test_driver t;

static void command(uint32_t id, uint64_t now)
{
	td_set(&t, TD_FIELD(free_page_hint_cmd_id), id);
	driver_balloon_config_changed(&t.d, now);
}

/* The device takes a word; -1 if what comes is none, or nothing. */
static int64_t word(void)
{
	struct chain_cursor at = {0};
	uint8_t raw[4];

	if (!td_pop(&t, HINTS) || td_chain.n_write)
		return -1;
	/* Four bytes in a buffer of its own. */
	assert_int_equal(td_chain.read_bytes, 4);
	assert_int_equal(chain_read(&td_chain, &at, raw, sizeof(raw)), 4);
	return le32_get(raw);
}

/* The device takes a hint: its pages; 0 if there is none. */
static uint32_t hint(uint32_t *page)
{
	if (!td_pop(&t, HINTS))
		return 0;
	assert_int_equal(td_chain.n_read, 0);
	assert_int_equal(td_chain.n_write, 1);
	*page = (uint32_t)((size_t)(td_chain.seg[0].host - td_pages) / 4096);
	assert_int_equal((td_chain.seg[0].host - td_pages) % 4096, 0);
	assert_int_equal(td_chain.write_bytes % 4096, 0);
	for (uint32_t i = 0; i < td_chain.write_bytes / 4096; i++)
		assert_int_equal(t.use[*page + i], DRIVER_FOR_HINT);
	return (uint32_t)(td_chain.write_bytes / 4096);
}

static void expect_hints(uint32_t pages)
{
	while (pages) {
		uint32_t page, n = hint(&page);

		assert_in_range(n, 1, pages);
		pages -= n;
		td_return(&t, HINTS, 0);
	}
}

/* The id, hints each in a buffer of its own, STOP; and on DONE all pages come back. */
static void a_round(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.run = 64;
	t.left[DRIVER_FOR_HINT] = 1000;
	td_begin(&t, 0);
	assert_int_equal(word(), -1);
	command(0x80000000, 1);
	assert_int_equal(word(), 0x80000000);
	td_return(&t, HINTS, 1);
	expect_hints(1000);
	assert_int_equal(word(), STOP);
	td_return(&t, HINTS, 1);
	assert_false(td_pop(&t, HINTS));
	/* They stay away from the system, also under STOP; once said, the id is not said again. */
	command(0x80000000, 2);
	assert_false(td_pop(&t, HINTS));
	command(STOP, 3);
	assert_int_equal(t.n_given[DRIVER_FOR_HINT], 0);
	assert_int_equal(t.d.hint.pages, 1000);
	command(DONE, 4);
	assert_int_equal(t.n_given[DRIVER_FOR_HINT], 1000);
	assert_int_equal(t.d.hint.pages, 0);
	assert_false(td_pop(&t, HINTS));
	assert_int_equal(t.d.hint.rounds, 1);
	td_end(&t);
}

/* A command that is there when the driver begins; and no pages at all. */
static void nothing_to_hint(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.left[DRIVER_FOR_HINT] = 0;
	td_set(&t, TD_FIELD(free_page_hint_cmd_id), 2);
	td_begin(&t, 0);
	assert_int_equal(t.kicks[HINTS], 1);
	assert_int_equal(word(), 2);
	td_push(&t, HINTS);
	assert_int_equal(word(), STOP);
	td_end(&t);
}

/* The ring is smaller than what there is to hint: it goes on as buffers come back. */
static void small_ring(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.setup.ring_size[HINTS] = 4;
	t.run = 1;
	t.left[DRIVER_FOR_HINT] = 100;
	td_begin(&t, 0);
	command(7, 0);
	/* A place is kept for the word that ends it. */
	assert_int_equal(t.d.ring[HINTS].n_free, 1);
	assert_int_equal(word(), 7);
	td_return(&t, HINTS, 0);
	expect_hints(100);
	assert_int_equal(word(), STOP);
	td_return(&t, HINTS, 0);
	td_end(&t);
}

/* Another id, STOP or DONE in the middle: the round is ended first. */
static void cut_short(void **state)
{
	static const uint32_t next[] = {STOP, DONE, 9};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(next); i++) {
		uint32_t page;

		td_init(&t, OFFER);
		t.setup.ring_size[HINTS] = 8;
		t.run = 1;
		td_begin(&t, 0);
		command(8, 0);
		assert_int_equal(word(), 8);
		td_return(&t, HINTS, 0);
		command(next[i], 1);
		assert_int_equal(t.n_given[DRIVER_FOR_HINT],
				 next[i] == DONE ? t.n_taken[DRIVER_FOR_HINT] : 0);
		/* What was in the ring by then, and STOP. */
		for (uint32_t n = 0; n < 7; n++) {
			if (next[i] != DONE) {
				assert_int_equal(hint(&page), 1);
			} else {
				assert_true(td_pop(&t, HINTS));
				assert_int_equal(td_chain.n_read, 0);
			}
			td_push(&t, HINTS);
		}
		assert_int_equal(word(), STOP);
		/* The next one waits for the buffers of its words. */
		assert_false(td_pop(&t, HINTS));
		td_return(&t, HINTS, 2);
		if (next[i] == 9)
			assert_int_equal(word(), 9);
		else
			assert_false(td_pop(&t, HINTS));
		td_end(&t);
	}
}

/* The buffer that a word is in is not written to while the device has it. */
static void words_are_waited_for(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.left[DRIVER_FOR_HINT] = 0;
	td_begin(&t, 0);
	command(8, 0);
	assert_int_equal(word(), 8);
	td_push(&t, HINTS);
	assert_int_equal(word(), STOP);
	command(9, 1);
	driver_balloon_used(&t.d, 1);
	assert_false(td_pop(&t, HINTS));
	td_return(&t, HINTS, 2);
	assert_int_equal(word(), 9);
	/* Nor is the first one when the next round follows at once. */
	command(10, 3);
	assert_int_equal(le32_get(t.d.hint.start.host), 9);
	td_push(&t, HINTS);
	assert_int_equal(word(), STOP);
	td_return(&t, HINTS, 4);
	assert_int_equal(word(), 10);
	td_end(&t);
}

/* An id may come again when there was STOP or DONE in between. */
static void id_again(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.left[DRIVER_FOR_HINT] = 0;
	td_begin(&t, 0);
	for (int i = 0; i < 3; i++) {
		command(5, 0);
		assert_int_equal(word(), 5);
		td_return(&t, HINTS, 0);
		assert_int_equal(word(), STOP);
		td_return(&t, HINTS, 0);
		assert_false(td_pop(&t, HINTS));
		command(i % 2 ? STOP : DONE, 0);
	}
	td_end(&t);
}

/* The system may have hinted pages back before; DONE gives the rest. */
static void taken_early(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.run = 100;
	t.left[DRIVER_FOR_HINT] = 500;
	td_begin(&t, 0);
	assert_int_equal(driver_balloon_take_hinted(&t.d, 10), 0);
	command(5, 0);
	assert_int_equal(driver_balloon_take_hinted(&t.d, 150), 150);
	assert_int_equal(t.n_given[DRIVER_FOR_HINT], 150);
	assert_int_equal(driver_balloon_take_hinted(&t.d, 0), 0);
	command(DONE, 0);
	assert_int_equal(t.n_given[DRIVER_FOR_HINT], 500);
	td_end(&t);
}

/* Reported pages are the driver's until the report is back; one is out at a time. */
static void report(void **state)
{
	static const uint64_t indirect[] = {0, BIT(VIRTIO_F_INDIRECT_DESC)};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(indirect); i++) {
		td_init(&t, OFFER | indirect[i]);
		t.run = 10;
		td_begin(&t, 0);
		for (int n = 0; n < 50; n++) {
			t.next = 0;
			assert_int_equal(driver_balloon_report(&t.d), 320);
			assert_int_equal(driver_balloon_report(&t.d), 0);
			assert_int_equal(t.kicks[REPORTS], n + 1);
			assert_true(td_pop(&t, REPORTS));
			assert_int_equal(td_chain.n_read, 0);
			assert_int_equal(td_chain.write_bytes, 320 * 4096);
			assert_int_equal(td_chain.slots, 1);
			assert_int_equal(t.n_given[DRIVER_FOR_REPORT], n * 320);
			td_return(&t, REPORTS, 0);
			assert_int_equal(t.n_given[DRIVER_FOR_REPORT], (n + 1) * 320);
			t.left[DRIVER_FOR_REPORT] = 4096;
		}
		/* What cannot be had is not reported. */
		t.left[DRIVER_FOR_REPORT] = 25;
		assert_int_equal(driver_balloon_report(&t.d), 25);
		assert_true(td_pop(&t, REPORTS));
		assert_int_equal(td_chain.n_write, 3);
		td_return(&t, REPORTS, 0);
		assert_int_equal(driver_balloon_report(&t.d), 0);
		assert_false(td_pop(&t, REPORTS));
		td_end(&t);
	}
}

/* No more pieces than the ring has places. */
static void report_in_small_ring(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	t.setup.ring_size[REPORTS] = 4;
	t.run = 1;
	td_begin(&t, 0);
	assert_int_equal(driver_balloon_report(&t.d), 4);
	assert_true(td_pop(&t, REPORTS));
	assert_int_equal(td_chain.n_write, 4);
	td_return(&t, REPORTS, 0);
	td_end(&t);
}

static void not_negotiated(void **state)
{
	(void)state;
	td_init(&t, BIT(VIRTIO_F_VERSION_1));
	td_set(&t, TD_FIELD(free_page_hint_cmd_id), 5);
	td_begin(&t, 0);
	command(6, 0);
	assert_int_equal(t.reads[TD_FIELD(free_page_hint_cmd_id)], 0);
	assert_int_equal(driver_balloon_report(&t.d), 0);
	assert_int_equal(t.n_taken[DRIVER_FOR_HINT] + t.n_taken[DRIVER_FOR_REPORT], 0);
	td_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_round),
		cmocka_unit_test(nothing_to_hint),
		cmocka_unit_test(small_ring),
		cmocka_unit_test(cut_short),
		cmocka_unit_test(words_are_waited_for),
		cmocka_unit_test(id_again),
		cmocka_unit_test(taken_early),
		cmocka_unit_test(report),
		cmocka_unit_test(report_in_small_ring),
		cmocka_unit_test(not_negotiated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
