// SPDX-License-Identifier: MIT
/* Free page hinting: which pages are marked, and buffers of every shape and length. */
#include "hint_helpers.h"

/* The pages that are hinted wholly, wherever a hint and the region begin and end. */
static void whole_pages_only(void **state)
{
	static const struct {
		uint64_t region, gpa;
		uint32_t len;
		uint64_t first, n; /* pages by the region's first whole one */
	} cases[] = {
		{0, 0, PAGE, 0, 1},
		{0, 0, PAGE - 1, 0, 0},
		{0, 1, PAGE, 0, 0},
		{0, 1, 2 * PAGE - 2, 0, 0},
		{0, 1, 2 * PAGE - 1, 1, 1},
		{0, 1, 3 * PAGE, 1, 2},
		{0, PAGE - 1, 2 * PAGE, 1, 1},
		{0, 5 * PAGE, 3 * PAGE + 4095, 5, 3},
		{0, 0, 64 * MIB, 0, 64 * 256},
		{0, 64 * MIB - PAGE, PAGE, 64 * 256 - 1, 1},
		{0, 0, 1, 0, 0},
		/* the region begins and ends within a page */
		{0x800, 0x800, 0x800, 0, 0},
		{0x800, 0x800, 0x1800, 0, 1},
		{0x800, 0x800, 0x1801, 0, 1},
		{0x800, 0x801, 0x17ff, 0, 1},
		{0x800, 0x1000, 0x1000, 0, 1},
		{0x800, 0x1001, 0x1000, 0, 0},
		{0x800, 0x800, 64 * MIB, 0, 64 * 256 - 1},
		{0x800, 64 * MIB - PAGE, PAGE + 0x800, 64 * 256 - 2, 1},
		{0xfff, 0xfff, 0x1001, 0, 1},
		{0x1001, 0x1001, 0x1fff, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin_at(HINT, cases[i].region, 64 * MIB);
		assert_int_equal(balloon_hint(&t.b, START), 0);
		send_id(FIRST);
		send_pages(cases[i].gpa, cases[i].len);
		check_marked(cases[i].first, cases[i].n);
		assert_int_equal(t.b.st.hinted_bytes, cases[i].len);
		end();
	}
}

/* A hint over the border of two regions: in each its own pages, the one that both share in none. */
static void across_regions(void **state)
{
	uint8_t *second;

	(void)state;
	test_balloon_init(&t, HINT);
	forbidden_size = 0x4800;
	forbidden = test_add_forbidden(&t.mem, 0, forbidden_size, PAGE);
	second = test_add_forbidden(&t.mem, 0x4800, 0x4800, PAGE);
	test_balloon_start(&t, V1 | HINT);
	assert_int_equal(balloon_hint(&t.b, START), 0);
	send_id(FIRST);
	send_pages(0x3000, 0x4000);
	assert_int_equal(marked(), 3);
	assert_true(pageset_all(&t.b.hints, 0, 3, 1));
	assert_true(pageset_all(&t.b.hints, 1, 0, 2));
	test_drop_forbidden(second, 0x4800);
	end();
}

/* The id's buffer may be cut, or longer; a part of one is none. An id and pages may come together.
 */
static void odd_id_buffers(void **state)
{
	const struct test_desc cut[] = {
		{TEST_BUFFER, 1, 0, 0}, {TEST_BUFFER + 1, 2, 0, 0}, {TEST_BUFFER + 3, 1, 0, 0}};
	const struct test_desc both[] = {{TEST_BUFFER, 4, 0, 0},
					 {8 * PAGE, 2 * PAGE, VRING_DESC_F_WRITE, 0},
					 {16 * PAGE, PAGE, VRING_DESC_F_WRITE, 0}};

	(void)state;
	for (uint32_t len = 1; len < 64; len++) {
		reach(BALLOON_HINT_REQUESTED);
		put_id(FIRST);
		memset(t.queues + TEST_BUFFERS + 4, 0xff, 64);
		test_offer_one(&t.ring[RING], TEST_BUFFER, len);
		run();
		assert_int_equal(t.b.st.hint.state,
				 len < 4 ? BALLOON_HINT_REQUESTED : BALLOON_HINT_HINTING);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_FRAGMENT], len < 4);
		end();
	}
	reach(BALLOON_HINT_REQUESTED);
	put_id(FIRST);
	test_offer(&t.ring[RING], cut, 3);
	run();
	assert_int_equal(t.b.st.hint.state, BALLOON_HINT_HINTING);
	end();

	reach(BALLOON_HINT_REQUESTED);
	put_id(FIRST);
	test_offer(&t.ring[RING], both, 3);
	run();
	assert_int_equal(marked(), 3);
	assert_true(pageset_all(&t.b.hints, 0, 8, 2));
	assert_true(pageset_all(&t.b.hints, 0, 16, 1));
	end();
}

/* Fifteen hints in one chain, with the id before them; the last one is more than a turn does. */
#define LONG_EACH (288 * MIB)
#define LONG_LAST (32 * MIB)
#define LONG_ALL  (14 * LONG_EACH)

static void begin_long(uint64_t packed)
{
	struct test_desc d[16] = {{TEST_BUFFER, 4, 0, 0}};

	begin_at(HINT | (packed ? PACKED : 0), 0, GIB);
	assert_int_equal(balloon_hint(&t.b, START), 0);
	put_id(FIRST);
	for (uint32_t i = 1; i < 15; i++)
		d[i] = (struct test_desc){(i - 1) * 52 * MIB, LONG_EACH, VRING_DESC_F_WRITE, 0};
	d[15] = (struct test_desc){GIB - LONG_LAST, LONG_LAST, VRING_DESC_F_WRITE, 0};
	test_offer(&t.ring[RING], d, 16);
	t.commits = 0;
	assert_true(balloon_queue_run(&t.b, RING, test_at(0)));
	assert_true(t.b.in_hand[QUEUE]);
	assert_int_equal(t.commits, 1);
	assert_int_equal(t.b.st.hinted_bytes, LONG_ALL);
	check_marked(0, (13 * 52 * MIB + LONG_EACH) / PAGE);
}

static void finish_long(void)
{
	run();
	assert_int_equal(t.b.st.hinted_bytes, LONG_ALL + LONG_LAST);
	assert_int_equal(t.events[BALLOON_EVENT_HINT], 1); /* the id has its effect once */
	assert_int_equal(t.b.st.buffers[QUEUE], 1);
	assert_int_equal(t.b.st.resume[QUEUE], 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_HINT_ID], 0);
	assert_true(pageset_all(&t.b.hints, 0, (GIB - LONG_LAST) / PAGE, LONG_LAST / PAGE));
}

static void long_chain(void **state)
{
	const uint64_t all = (13 * 52 * MIB + LONG_EACH + LONG_LAST) / PAGE;

	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		begin_long(packed);
		finish_long();
		assert_int_equal(marked(), all);
		end();

		/* Paused in the middle. */
		begin_long(packed);
		test_balloon_pause(&t, RING);
		assert_false(t.b.in_hand[QUEUE]);
		assert_int_equal(t.ring[RING].vq.st.in_use, 0);
		put_id(UINT32_MAX); /* what stands there now is not looked at again */
		test_balloon_resume(&t, RING);
		finish_long();
		assert_int_equal(marked(), all);
		end();

		/* The memory table changes in the middle: what was marked is forgotten, no more. */
		begin_long(packed);
		balloon_memory_changing(&t.b);
		assert_int_equal(t.ring[RING].vq.st.in_use, 0);
		test_balloon_memory(&t);
		assert_int_equal(marked(), 0);
		finish_long();
		assert_int_equal(marked(), LONG_LAST / PAGE);
		assert_int_equal(t.b.st.hint.state, BALLOON_HINT_HINTING);
		end();
	}
}

/* threats.md, rings, line 8: small hints are bounded too. */
static uint32_t refills;

static void refill(struct test_balloon *at, enum test_op op)
{
	struct test_desc d = {0, 1, VRING_DESC_F_WRITE, 0};

	if (op != TEST_OP_NOTIFY)
		return;
	refills++;
	test_offer(&at->ring[RING], &d, 1);
}

static void endless_ring(void **state)
{
	struct test_desc d = {0, 1, VRING_DESC_F_WRITE, 0};

	(void)state;
	reach(BALLOON_HINT_HINTING);
	refills = 0;
	test_offer(&t.ring[RING], &d, 1);
	t.hook = refill;
	assert_true(balloon_queue_run(&t.b, RING, test_at(0)));
	assert_in_range(refills, 2, 1000);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_pages_only), cmocka_unit_test(across_regions),
		cmocka_unit_test(odd_id_buffers),   cmocka_unit_test(long_chain),
		cmocka_unit_test(endless_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
