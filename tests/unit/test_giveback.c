// SPDX-License-Identifier: MIT
/*
 * What may be discarded and what not: inhibitors, what follows when they are lifted, and poison.
 * That nothing goes which is not held is checked at every discard, in helpers.h.
 */
#include "helpers.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define POISON  BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define K64     0x10000U
#define M2      0x200000U
#define PIECE   16384U /* pages that the sweep does at once */

static struct test_balloon t;

/* Region 0 is the guest's memory. */
static void begin(uint64_t features, uint64_t pages, uint64_t page_size)
{
	test_balloon_init(&t, POISON);
	test_add_region(&t.mem, 0, pages * PAGE, page_size, t.queues);
	test_balloon_start(&t, V1 | features);
}

static void inflate(uint32_t first, uint32_t n)
{
	for (uint32_t done = 0; done < n; done += 1024)
		test_send_run(&t, INFLATE, first + done, n - done < 1024 ? n - done : 1024);
}

static uint64_t discarded(void)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < t.n_ranges; i++)
		bytes += t.range[i].len;
	return bytes;
}

/* Ticks until nothing is due; returns how often. */
static uint32_t tick_to_end(void)
{
	uint32_t ticks = 0;

	while (balloon_next_tick(&t.b) != UINT64_MAX) {
		assert_int_equal(balloon_tick(&t.b, test_at(0)), 0);
		ticks++;
		assert_true(ticks < 1000);
	}
	assert_false(t.b.st.sweep.active);
	return ticks;
}

/* Nothing is discarded while inhibited; inflation is accepted and counted. */
static void inhibited(void **state)
{
	static const uint64_t page_sizes[] = {PAGE, K64, M2};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(page_sizes); i++) {
		begin(MTH, 4096, page_sizes[i]);
		balloon_set_inhibited(&t.b, true);
		inflate(0, 1024);
		assert_int_equal(t.n_ranges, 0);
		assert_int_equal(balloon_held_bytes(&t.b), 1024 * PAGE);
		assert_int_equal(t.b.st.inflated_pages, 1024);
		assert_int_equal(t.b.st.kept_bytes, 1024 * PAGE);
		assert_int_equal(t.b.st.freed_bytes, 0);
		assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
		balloon_tick(&t.b, test_at(1));
		/* Nor by a second word to the same end. */
		balloon_set_inhibited(&t.b, true);
		assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
		assert_int_equal(t.n_ranges, 0);
		test_balloon_end(&t);
	}
}

/* A large host page that is named many times is kept once. */
static void kept_is_counted_once(void **state)
{
	uint32_t pfn[8];

	(void)state;
	begin(MTH, 64, K64);
	inflate(0, 16);
	assert_int_equal(t.n_ranges, 1);
	balloon_set_inhibited(&t.b, true);
	for (uint32_t i = 0; i < ARRAY_SIZE(pfn); i++)
		pfn[i] = i * 2;
	test_send_pfns(&t, INFLATE, pfn, ARRAY_SIZE(pfn));
	assert_int_equal(t.b.st.kept_bytes, K64);
	test_balloon_end(&t);
}

/* When it is lifted, what is held by then goes: all of it, once, and nothing else. */
static void lifted(void **state)
{
	static const uint64_t page_sizes[] = {PAGE, K64};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(page_sizes); i++) {
		begin(MTH, 4096, page_sizes[i]);
		t.free_each = 10;
		balloon_set_inhibited(&t.b, true);
		inflate(0, 256);
		inflate(1000, 100);
		inflate(4095, 1);
		test_send_run(&t, DEFLATE, 64, 64);
		balloon_set_inhibited(&t.b, false);
		assert_int_equal(balloon_next_tick(&t.b), 0);
		assert_int_equal(tick_to_end(), 1);
		if (page_sizes[i] == PAGE) {
			assert_int_equal(t.n_ranges, 4);
			assert_int_equal(discarded(), (256 - 64 + 100 + 1) * PAGE);
		} else {
			/* 1008 to 1100 has five whole ones. */
			assert_int_equal(discarded(), (256 - 64) * PAGE + 5 * K64);
		}
		assert_int_equal(t.b.st.freed_bytes, t.n_ranges * 10);
		assert_int_equal(balloon_held_bytes(&t.b), (256 - 64 + 100 + 1) * PAGE);
		/* From now on it goes at once. */
		t.n_ranges = 0;
		inflate(2048, 16);
		assert_int_equal(discarded(), 16 * PAGE);
		test_balloon_end(&t);
	}
}

static void nothing_to_sweep(void **state)
{
	(void)state;
	begin(MTH, 64, PAGE);
	balloon_set_inhibited(&t.b, false);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	balloon_set_inhibited(&t.b, true);
	balloon_set_inhibited(&t.b, false);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	/* It never was inhibited: nothing to make up for. */
	inflate(0, 16);
	t.n_ranges = 0;
	balloon_set_inhibited(&t.b, false);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	test_balloon_end(&t);

	/* No memory at all yet. */
	test_balloon_init(&t, 0);
	balloon_set_inhibited(&t.b, true);
	balloon_set_inhibited(&t.b, false);
	tick_to_end();
	test_balloon_end(&t);
}

/* Without the promise that a page is not used before it was deflated, none may go that late. */
static void not_without_must_tell_host(void **state)
{
	(void)state;
	begin(0, 4096, PAGE);
	balloon_set_inhibited(&t.b, true);
	inflate(0, 1024);
	balloon_set_inhibited(&t.b, false);
	tick_to_end();
	assert_int_equal(t.n_ranges, 0);
	test_balloon_end(&t);

	/* The driver gives the promise up in the middle. */
	begin(MTH, 2 * PIECE, PAGE);
	balloon_set_inhibited(&t.b, true);
	inflate(0, 2 * PIECE);
	balloon_set_inhibited(&t.b, false);
	balloon_tick(&t.b, test_at(0));
	assert_int_equal(discarded(), PIECE * PAGE);
	assert_int_equal(balloon_set_features(&t.b, V1), 0);
	t.n_ranges = 0;
	tick_to_end();
	assert_int_equal(t.n_ranges, 0);
	test_balloon_end(&t);
}

/* Holds `pages` pages that are not discarded yet, and lets the sweep do its first piece. */
static void begin_sweep(uint32_t pages)
{
	begin(MTH, 4ULL * PIECE, PAGE);
	balloon_set_inhibited(&t.b, true);
	inflate(0, pages);
	balloon_set_inhibited(&t.b, false);
	t.commits = 0;
	balloon_tick(&t.b, test_at(0));
	assert_int_equal(t.commits, 1);
	assert_int_equal(discarded(), PIECE * PAGE);
	t.n_ranges = 0;
}

static void in_pieces(void **state)
{
	(void)state;
	begin_sweep(3 * PIECE - 100);
	assert_int_equal(balloon_next_tick(&t.b), 0);
	balloon_tick(&t.b, test_at(0));
	assert_int_equal(discarded(), PIECE * PAGE);
	assert_int_equal(t.range[0].offset, (uint64_t)PIECE * PAGE);
	t.n_ranges = 0;
	assert_int_equal(tick_to_end(), 1);
	assert_int_equal(discarded(), (PIECE - 100) * PAGE);
	test_balloon_end(&t);
}

static uint32_t ranges;

/* Before each call: the ranges of the last one are counted and forgotten. */
static void count_ranges(struct test_balloon *at, enum test_op op)
{
	if (op == TEST_OP_DISCARD) {
		ranges += at->n_ranges;
		at->n_ranges = 0;
	}
}

/* Single pages cost more than a run does: fewer of them at once. */
static void single_pages(void **state)
{
	uint32_t pfn[1024];

	(void)state;
	begin(MTH, 4ULL * PIECE, PAGE);
	balloon_set_inhibited(&t.b, true);
	for (uint32_t i = 0; i < PIECE; i++) {
		pfn[i % 1024] = i * 2;
		if (i % 1024 == 1023)
			test_send_pfns(&t, INFLATE, pfn, 1024);
	}
	balloon_set_inhibited(&t.b, false);
	t.hook = count_ranges;
	for (uint32_t turn = 0; turn < 4; turn++) {
		ranges = t.n_ranges = 0;
		balloon_tick(&t.b, test_at(0));
		assert_int_equal(ranges + t.n_ranges, PIECE / 4);
	}
	ranges = t.n_ranges = 0;
	tick_to_end();
	assert_int_equal(ranges + t.n_ranges, 0);
	test_balloon_end(&t);
}

/* Between two pieces the guest takes pages back: those already swept, and those that are not. */
static void deflate_during_sweep(void **state)
{
	(void)state;
	begin_sweep(3 * PIECE);
	test_send_run(&t, DEFLATE, PIECE - 512, 1024);
	test_send_run(&t, DEFLATE, 2 * PIECE, 1024);
	tick_to_end();
	assert_int_equal(discarded(), (2 * PIECE - 512 - 1024) * PAGE);
	for (uint32_t i = 0; i < t.n_ranges; i++) {
		uint64_t first = t.range[i].offset / PAGE, n = t.range[i].len / PAGE;

		assert_false(ranges_overlap(first, n, PIECE - 512, 1024));
		assert_false(ranges_overlap(first, n, 2 * PIECE, 1024));
	}
	test_balloon_end(&t);
}

/* ... and gives others: those go at once, and need not be swept again. */
static void inflate_during_sweep(void **state)
{
	(void)state;
	begin_sweep(2 * PIECE);
	inflate(0, 1024); /* once more */
	inflate(3 * PIECE, 1024);
	assert_int_equal(discarded(), 2048 * PAGE);
	tick_to_end();
	assert_int_equal(balloon_held_bytes(&t.b), (2 * PIECE + 1024ULL) * PAGE);
	test_balloon_end(&t);
}

static void inhibited_again_during_sweep(void **state)
{
	(void)state;
	begin_sweep(3 * PIECE);
	balloon_set_inhibited(&t.b, true);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	balloon_tick(&t.b, test_at(0));
	assert_int_equal(t.n_ranges, 0);
	/* What it did not come to is done when that is lifted too. */
	balloon_set_inhibited(&t.b, false);
	tick_to_end();
	assert_int_equal(discarded(), 3ULL * PIECE * PAGE);
	test_balloon_end(&t);
}

/* The table changes between two pieces: regions move in it, and none is passed over. */
static void memory_changes_during_sweep(void **state)
{
	(void)state;
	begin_sweep(2 * PIECE);
	balloon_memory_changing(&t.b);
	t.mem.region[0].gpa += PIECE * (uint64_t)PAGE;
	t.mem.region[0].uaddr += PIECE * (uint64_t)PAGE;
	t.mem.region[0].size -= PIECE * (uint64_t)PAGE;
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	test_balloon_memory(&t);
	assert_int_equal(balloon_held_bytes(&t.b), (64ULL + PIECE) * PAGE);
	tick_to_end();
	assert_int_equal(discarded(), (64ULL + PIECE) * PAGE);
	assert_int_equal(t.range[0].region, 0);
	assert_int_equal(t.range[t.n_ranges - 1].region, 1);
	test_balloon_end(&t);

	/* All of it goes away. */
	begin_sweep(2 * PIECE);
	balloon_memory_changing(&t.b);
	guest_mem_remove(&t.mem, 0);
	test_balloon_memory(&t);
	tick_to_end();
	assert_int_equal(t.n_ranges, 0);
	test_balloon_end(&t);
}

/* The driver starts afresh between two pieces: all pages are its own. */
static void reset_during_sweep(void **state)
{
	(void)state;
	begin_sweep(3 * PIECE);
	balloon_reset(&t.b);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	balloon_tick(&t.b, test_at(0));
	assert_int_equal(t.n_ranges, 0);
	test_balloon_end(&t);
}

/* Where a piece ends within a host page; and host pages of which not all is held. */
static void large_pages_in_sweep(void **state)
{
	uint8_t times[256] = {0};

	(void)state;
	begin(MTH, 4ULL * PIECE, M2);
	balloon_set_inhibited(&t.b, true);
	inflate(100, 2 * PIECE);
	test_send_run(&t, DEFLATE, 5 * 512 + 7, 1);
	balloon_set_inhibited(&t.b, false);
	tick_to_end();
	for (uint32_t i = 0; i < t.n_ranges; i++) {
		assert_int_equal(t.range[i].len, M2);
		assert_int_equal(t.range[i].offset % M2, 0);
		times[t.range[i].offset / M2]++;
	}
	/* The first is not held wholly, nor are the sixth and the last. */
	for (uint32_t i = 0; i < 128; i++)
		assert_int_equal(times[i] > 0, i > 0 && i != 5 && i < 2 * PIECE / 512);
	test_balloon_end(&t);
}

static void set_poison(uint32_t value)
{
	uint8_t raw[4];

	le32_put(raw, value);
	balloon_config_write(&t.b, 12, raw, sizeof(raw));
}

/* threats.md, balloon, line 11: zeros would be no poison. Only with the feature, and only not 0. */
static void poison(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t value;
		bool kept;
	} cases[] = {
		{POISON, 0, false}, {POISON, 1, true},      {POISON, 0x01000000, true},
		{0, 0, false},      {0, 0xaaaaaaaa, false}, {POISON, UINT32_MAX, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(MTH | cases[i].features, 64, PAGE);
		set_poison(cases[i].value);
		inflate(0, 16);
		assert_int_equal(discarded(), cases[i].kept ? 0 : 16 * PAGE);
		assert_int_equal(t.b.st.kept_bytes, cases[i].kept ? 16 * PAGE : 0);
		assert_int_equal(balloon_held_bytes(&t.b), 16 * PAGE);
		/* An inhibitor that ends does not change it. */
		t.n_ranges = 0;
		balloon_set_inhibited(&t.b, true);
		balloon_set_inhibited(&t.b, false);
		tick_to_end();
		assert_int_equal(discarded(), cases[i].kept ? 0 : 16 * PAGE);
		assert_int_equal(t.b.st.kept_bytes, cases[i].kept ? 16 * PAGE : 0);
		test_balloon_end(&t);
	}
}

static void poison_during_sweep(void **state)
{
	(void)state;
	begin_sweep(2 * PIECE);
	t.b.st.negotiated |= POISON;
	set_poison(7);
	tick_to_end();
	assert_int_equal(t.n_ranges, 0);
	test_balloon_end(&t);
}

/* In the middle of a buffer that takes many turns: what comes after it is kept. */
static void inhibited_between_turns(void **state)
{
	uint64_t before;
	uint32_t id, len;

	(void)state;
	begin(MTH, 4ULL * PIECE, PAGE);
	for (uint32_t i = 0; i < PIECE; i++)
		le32_put(t.queues + TEST_BUFFERS + (size_t)i * 4, i);
	test_offer_one(&t.ring[INFLATE], TEST_BUFFER, PIECE * 4);
	assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
	before = discarded();
	assert_in_range(before, PAGE, 8192 * PAGE);
	balloon_set_inhibited(&t.b, true);
	while (balloon_queue_run(&t.b, INFLATE, test_at(0)))
		;
	assert_true(test_take_used(&t.ring[INFLATE], &id, &len));
	assert_int_equal(discarded(), before);
	assert_int_equal(t.b.st.kept_bytes, PIECE * PAGE - before);
	/* A sweep may run while the next buffer is in hand. */
	test_offer_one(&t.ring[DEFLATE], TEST_BUFFER, PIECE * 4);
	assert_true(balloon_queue_run(&t.b, DEFLATE, test_at(0)));
	t.n_ranges = 0;
	before = balloon_held_bytes(&t.b);
	balloon_set_inhibited(&t.b, false);
	tick_to_end();
	assert_int_equal(discarded(), before);
	test_balloon_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inhibited),
		cmocka_unit_test(kept_is_counted_once),
		cmocka_unit_test(lifted),
		cmocka_unit_test(nothing_to_sweep),
		cmocka_unit_test(not_without_must_tell_host),
		cmocka_unit_test(in_pieces),
		cmocka_unit_test(single_pages),
		cmocka_unit_test(deflate_during_sweep),
		cmocka_unit_test(inflate_during_sweep),
		cmocka_unit_test(inhibited_again_during_sweep),
		cmocka_unit_test(memory_changes_during_sweep),
		cmocka_unit_test(reset_during_sweep),
		cmocka_unit_test(large_pages_in_sweep),
		cmocka_unit_test(poison),
		cmocka_unit_test(poison_during_sweep),
		cmocka_unit_test(inhibited_between_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
