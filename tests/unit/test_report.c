// SPDX-License-Identifier: MIT
/*
 * Page reporting: just the whole host pages of what is reported are discarded, once, and not a byte
 * of it is read or written: the memory is not there.
 */
#include "helpers.h"

#define V1        BIT(VIRTIO_F_VERSION_1)
#define PACKED    BIT(VIRTIO_F_RING_PACKED)
#define REPORTING BIT(VIRTIO_BALLOON_F_PAGE_REPORTING)
#define POISON    BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define QUEUE     VIRTIO_BALLOON_VQ_REPORTING
#define RING      2U
#define K64       0x10000U
#define M2        0x200000U
#define MIB       (1ULL << 20)
#define GIB       (1ULL << 30)
#define TURN      (64 * MIB) /* what a turn discards at most, but for a larger host page */

static struct test_balloon t;

static uint8_t *forbidden;
static uint64_t forbidden_size;

/* Region 0 is the guest's memory. */
static void begin(uint64_t features, uint64_t gpa, uint64_t size, uint64_t page_size,
		  uint64_t backing_offset)
{
	test_balloon_init(&t, REPORTING | POISON);
	forbidden_size = size;
	forbidden = test_add_forbidden(&t.mem, gpa, size, page_size);
	t.mem.region[0].backing_offset = backing_offset;
	test_balloon_start(&t, V1 | REPORTING | features);
	t.any_page = true;
}

static void end(void)
{
	test_drop_forbidden(forbidden, forbidden_size);
	test_balloon_end(&t);
}

static struct test_desc reported(uint64_t gpa, uint64_t len)
{
	return (struct test_desc){gpa, (uint32_t)len, VRING_DESC_F_WRITE, 0};
}

static void offer(uint64_t gpa, uint64_t len)
{
	struct test_desc d = reported(gpa, len);

	test_offer(&t.ring[RING], &d, 1);
}

static bool came_back(void)
{
	uint32_t id, len;
	bool back = test_take_used(&t.ring[RING], &id, &len);

	if (back)
		assert_int_equal(len, 0);
	return back;
}

/* Runs to the end; returns the number of turns. */
static uint32_t finish(void)
{
	uint32_t turns = 1;

	while (balloon_queue_run(&t.b, RING, test_at(0)))
		turns++;
	assert_true(came_back());
	assert_false(came_back());
	assert_int_equal(t.b.st.resume[QUEUE], 0);
	assert_int_equal(t.ring[RING].vq.st.in_use, 0);
	return turns;
}

static uint64_t discarded(void)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < t.n_ranges; i++)
		bytes += t.range[i].len;
	return bytes;
}

static void whole_host_pages(void **state)
{
	static const struct {
		uint64_t page_size, region, size, backing_offset, gpa, len;
		uint64_t offset, bytes; /* expected, in region 0 */
	} cases[] = {
		{PAGE, 0, M2, 0, 0, M2, 0, M2},
		{PAGE, 0, M2, 0, PAGE, PAGE, PAGE, PAGE},
		{PAGE, 0, M2, 0, 1, 2 * PAGE, PAGE, PAGE},
		{PAGE, 0, M2, 0, 1, 2 * PAGE - 2, 0, 0},
		{PAGE, 0, M2, 0, PAGE, PAGE - 1, 0, 0},
		{PAGE, 0x10000, M2, 0, 0x10000, M2, 0, M2},
		{K64, 0, M2, 0, 0, M2, 0, M2},
		{K64, 0, M2, 0, PAGE, M2 - PAGE, K64, M2 - K64},
		{K64, 0, M2, 0, 0, M2 - PAGE, 0, M2 - K64},
		{K64, 0, M2, 0, PAGE, 2 * K64 - 2 * PAGE, 0, 0},
		{K64, 0, M2, 0, PAGE, 2 * K64 - PAGE, K64, K64},
		{K64, 0, M2, 0, K64 - 1, K64 + 1, K64, K64},
		/* where host pages begin, the file says and not the guest's addresses */
		{K64, 0, M2, 5 * PAGE, 0, M2, 11 * PAGE, M2 - K64},
		{K64, 0, M2, K64 + 5 * PAGE, 11 * PAGE, K64, 11 * PAGE, K64},
		{K64, 7 * PAGE, M2, 0, 7 * PAGE, K64, 0, K64},
		{K64, 7 * PAGE, M2, 0, 8 * PAGE, 2 * K64 - PAGE, K64, K64},
		/* the last host page ends behind the region, and is not its own */
		{K64, 0, M2 + PAGE, 0, M2, PAGE, 0, 0},
		{K64, 0, M2 + PAGE, 0, 0, M2 + PAGE, 0, M2},
		{M2, 0, 4ULL * M2, 0, M2 - PAGE, 2ULL * M2, M2, M2},
		{M2, 0, 4ULL * M2, 0, PAGE, 2ULL * M2 - PAGE, M2, M2},
		{M2, 0, 4ULL * M2, 0, PAGE, 2ULL * M2 - 2 * PAGE, 0, 0},
		{GIB, 0, 2 * GIB, 0, 0, GIB, 0, GIB},
		{GIB, 0, 2 * GIB, 0, GIB, GIB, GIB, GIB},
		{GIB, 0, 2 * GIB, 0, PAGE, GIB, 0, 0},
		{GIB, 0, 4 * GIB, 0, GIB / 2, 2 * GIB, GIB, GIB},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(0, cases[i].region, cases[i].size, cases[i].page_size,
		      cases[i].backing_offset);
		t.free_each = 4321;
		offer(cases[i].gpa, cases[i].len);
		finish();
		assert_int_equal(discarded(), cases[i].bytes);
		if (cases[i].bytes) {
			assert_int_equal(t.range[0].region, 0);
			assert_int_equal(t.range[0].offset, cases[i].offset);
		}
		assert_int_equal(t.b.st.reported_bytes, cases[i].len);
		assert_int_equal(t.b.st.freed_bytes, t.n_ranges * 4321);
		assert_int_equal(t.b.st.kept_bytes, 0);
		/* The guest may use them from now on: they are not in the balloon. */
		assert_int_equal(balloon_held_bytes(&t.b), 0);
		assert_int_equal(t.b.st.inflated_pages, 0);
		end();
	}
}

/* As Linux does it: 32 stretches in an indirect table. */
static void many_stretches(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		struct test_desc d = {TEST_BUFFER, 32 * VRING_DESC_SIZE, VRING_DESC_F_INDIRECT, 0};

		begin(BIT(VIRTIO_F_INDIRECT_DESC) | (packed ? PACKED : 0), 0, 128 * MIB, PAGE, 0);
		for (uint32_t i = 0; i < 32; i++) {
			struct test_desc in = reported((31 - i) * 4 * MIB, i == 31 ? PAGE : MIB);

			in.next = (uint16_t)(i + 1);
			if (i < 31 && !packed)
				in.flags |= VRING_DESC_F_NEXT;
			test_put_desc(t.queues + TEST_BUFFERS, packed, i, in);
		}
		test_offer(&t.ring[RING], &d, 1);
		assert_false(balloon_queue_run(&t.b, RING, test_at(0)));
		assert_true(came_back());
		assert_int_equal(t.n_ranges, 32);
		for (uint32_t i = 0; i < 32; i++) {
			assert_int_equal(t.range[i].offset, (31 - i) * 4 * MIB);
			assert_int_equal(t.range[i].len, i == 31 ? PAGE : MIB);
		}
		end();
	}
}

/* Over the border of two regions with pages of different size; each has its own whole pages. */
static void across_regions(void **state)
{
	uint8_t *second;

	(void)state;
	test_balloon_init(&t, REPORTING);
	forbidden_size = M2;
	forbidden = test_add_forbidden(&t.mem, 0, M2, PAGE);
	second = test_add_forbidden(&t.mem, M2, M2, K64);
	test_balloon_start(&t, V1 | REPORTING);
	t.any_page = true;
	offer(M2 - 3 * PAGE, K64 + 6 * PAGE);
	finish();
	assert_int_equal(t.n_ranges, 2);
	assert_int_equal(t.range[0].region, 0);
	assert_int_equal(t.range[0].offset, M2 - 3 * PAGE);
	assert_int_equal(t.range[0].len, 3 * PAGE);
	assert_int_equal(t.range[1].region, 1);
	assert_int_equal(t.range[1].offset, 0);
	assert_int_equal(t.range[1].len, K64);
	test_drop_forbidden(second, M2);
	end();
}

/* Where all that was discarded lies, counted in units: each unit once. */
static uint8_t times[4096];

static void collect(uint64_t unit)
{
	for (uint32_t i = 0; i < t.n_ranges; i++) {
		assert_int_equal(t.range[i].offset % unit, 0);
		assert_int_equal(t.range[i].len % unit, 0);
		for (uint64_t at = 0; at < t.range[i].len; at += unit)
			times[(t.range[i].offset + at) / unit]++;
	}
	t.n_ranges = 0;
}

static void check_once(uint64_t first, uint64_t end_unit)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(times); i++)
		assert_int_equal(times[i], i >= first && i < end_unit);
	memset(times, 0, sizeof(times));
}

/*
 * A long report is worked off in turns, and whatever the size of host pages and the place where the
 * report begins, none of the pages is lost where one turn ends and the next begins.
 */
static void bounded_turns(void **state)
{
	static const struct {
		uint64_t page_size, gpa;
	} cases[] = {
		{PAGE, 0}, {PAGE, PAGE},           {PAGE, 5},   {K64, 3 * PAGE},
		{M2, 0},   {M2, M2 / 2},           {M2, PAGE},  {256 * MIB, 0},
		{GIB, 0},  {256 * MIB, 100 * MIB}, {GIB, PAGE},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t unit = cases[i].page_size < MIB ? MIB : cases[i].page_size;
		uint64_t most = cases[i].page_size > TURN ? cases[i].page_size : TURN;
		uint64_t gpa = cases[i].gpa, stop = 3 * GIB, bytes = 0;
		bool more;

		begin(0, 0, 4 * GIB, cases[i].page_size, 0);
		offer(gpa, stop - gpa);
		do {
			uint32_t commits = t.commits;

			more = balloon_queue_run(&t.b, RING, test_at(0));
			assert_in_range(discarded(), 0, most);
			assert_true(t.commits > commits || !more);
			if (more && t.b.in_hand[QUEUE])
				assert_false(came_back());
			bytes += discarded();
			if (cases[i].page_size >= MIB)
				collect(unit);
			t.n_ranges = 0;
		} while (more);
		assert_true(came_back());
		assert_int_equal(bytes, align_down(stop, cases[i].page_size) -
						align_up(gpa, cases[i].page_size));
		if (cases[i].page_size >= MIB)
			check_once(align_up(gpa, unit) / unit, stop / unit);
		end();
	}
}

/* Thousands of single pages in one report: as little of them a turn as of large ones. */
static void many_small_stretches(void **state)
{
	const struct test_desc d = {TEST_BUFFER, 4096 * VRING_DESC_SIZE, VRING_DESC_F_INDIRECT, 0};
	uint32_t turns = 1, id, len;

	(void)state;
	begin(BIT(VIRTIO_F_INDIRECT_DESC), 0, 64 * MIB, PAGE, 0);
	for (uint32_t i = 0; i < 4096; i++) {
		struct test_desc in = reported(i * 2ULL * PAGE, PAGE);

		in.next = (uint16_t)(i + 1);
		if (i < 4095)
			in.flags |= VRING_DESC_F_NEXT;
		test_put_desc(t.queues + TEST_BUFFERS, false, i, in);
	}
	test_offer(&t.ring[RING], &d, 1);
	while (balloon_queue_run(&t.b, RING, test_at(0))) {
		turns++;
		assert_in_range(t.n_ranges, 1, 300);
		t.n_ranges = 0;
	}
	assert_in_range(turns, 4096 / 300, 100);
	assert_int_equal(t.b.st.reported_bytes, 4096 * PAGE);
	assert_true(test_take_used(&t.ring[RING], &id, &len));
	end();
}

/* A report of 256 MiB of which one turn is done. */
static void begin_long(uint64_t packed)
{
	struct test_desc d[16];

	begin(packed ? PACKED : 0, 0, 256 * MIB, M2, 0);
	for (uint32_t i = 0; i < 16; i++)
		d[i] = reported(i * 16 * MIB, 16 * MIB);
	test_offer(&t.ring[RING], d, 16);
	assert_true(balloon_queue_run(&t.b, RING, test_at(0)));
	assert_true(t.b.in_hand[QUEUE]);
	assert_int_equal(discarded(), TURN);
	collect(M2);
}

static void check_long(void)
{
	collect(M2);
	check_once(0, 256 * MIB / M2);
	assert_int_equal(t.b.st.reported_bytes, 256 * MIB);
	assert_int_equal(t.b.st.buffers[QUEUE], 1);
}

static void pause_between_turns(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		begin_long(packed);
		test_balloon_pause(&t, RING);
		assert_int_equal(t.ring[RING].vq.st.in_use, 0);
		test_balloon_resume(&t, RING);
		assert_int_equal(finish(), 4);
		check_long();
		end();

		/* Begun afresh instead: all of it is the new driver's. */
		begin_long(packed);
		memset(times, 0, sizeof(times));
		t.b.st.reported_bytes = 0;
		balloon_queue_stopped(&t.b, RING);
		vq_stop(&t.ring[RING].vq);
		vq_set_base(&t.ring[RING].vq, vq_base(&t.ring[RING].vq));
		balloon_reset(&t.b);
		assert_int_equal(vq_start(&t.ring[RING].vq, &t.mem), 0);
		balloon_queue_started(&t.b, RING, false);
		finish();
		check_long();
		end();
	}
}

/* threats.md, balloon, line 11: reports racing a change of the memory table */
static void memory_changes_between_turns(void **state)
{
	uint8_t *below;

	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		/* A region comes below it: its index is another. */
		begin_long(packed);
		balloon_memory_changing(&t.b);
		assert_int_equal(t.ring[RING].vq.st.in_use, 0);
		t.mem.region[0].gpa += GIB;
		t.mem.region[0].uaddr += GIB;
		for (uint32_t i = 0; i < 16; i++) {
			uint8_t *desc = t.ring[RING].desc + (size_t)i * VRING_DESC_SIZE;

			le64_put(desc, le64_get(desc) + GIB);
		}
		below = test_add_forbidden(&t.mem, 0, M2, PAGE);
		test_balloon_memory(&t);
		finish();
		for (uint32_t i = 0; i < t.n_ranges; i++)
			assert_int_equal(t.range[i].region, 1);
		check_long();
		test_drop_forbidden(below, M2);
		end();

		/* It is taken away: the rest is in no memory, and that breaks this queue only. */
		begin_long(packed);
		balloon_memory_changing(&t.b);
		guest_mem_remove(&t.mem, 0);
		test_balloon_memory(&t);
		assert_false(balloon_queue_run(&t.b, RING, test_at(0)));
		assert_int_equal(t.broken[RING], 1);
		assert_int_equal(t.ring[RING].vq.st.error, VQ_ERR_ADDRESS);
		assert_int_equal(t.n_ranges, 0);
		memset(times, 0, sizeof(times));
		end();

		/* It shrinks, and the guest has shortened the report: what is left is too short. */
		begin_long(packed);
		balloon_memory_changing(&t.b);
		for (uint32_t i = 0; i < 16; i++)
			le32_put(t.ring[RING].desc + (size_t)i * VRING_DESC_SIZE + 8, PAGE);
		test_balloon_memory(&t);
		finish();
		assert_int_equal(t.n_ranges, 0);
		memset(times, 0, sizeof(times));
		end();
	}
}

/* threats.md, balloon, line 11: poison not zero. And what an inhibitor keeps, is kept. */
static void kept(void **state)
{
	uint8_t poison[4] = {0, 0, 0, 1};

	(void)state;
	begin(POISON, 0, 16 * MIB, M2, 0);
	balloon_config_write(&t.b, 12, poison, 4);
	offer(PAGE, 8 * MIB);
	finish();
	assert_int_equal(t.n_ranges, 0);
	assert_int_equal(t.b.st.kept_bytes, 3 * M2);
	assert_int_equal(t.b.st.reported_bytes, 8 * MIB);
	poison[3] = 0;
	balloon_config_write(&t.b, 12, poison, 4);
	offer(PAGE, 8 * MIB);
	finish();
	assert_int_equal(discarded(), 3 * M2);
	assert_int_equal(t.b.st.kept_bytes, 3 * M2);
	end();

	begin(0, 0, 16 * MIB, M2, 0);
	balloon_set_inhibited(&t.b, true);
	offer(0, 8 * MIB);
	finish();
	assert_int_equal(t.n_ranges, 0);
	assert_int_equal(t.b.st.kept_bytes, 8 * MIB);
	/* They are the guest's again: nothing follows when it is lifted. */
	balloon_set_inhibited(&t.b, false);
	while (balloon_next_tick(&t.b) != UINT64_MAX)
		balloon_tick(&t.b, test_at(0));
	assert_int_equal(t.n_ranges, 0);
	end();
}

/* The inhibitor comes in the middle: from then on nothing goes. */
static void inhibited_between_turns(void **state)
{
	(void)state;
	begin_long(0);
	balloon_set_inhibited(&t.b, true);
	finish();
	assert_int_equal(t.n_ranges, 0);
	assert_int_equal(t.b.st.kept_bytes, 256 * MIB - TURN);
	memset(times, 0, sizeof(times));
	end();
}

/* Something to read in a report breaks this queue, and no other. */
static void wrong_direction(void **state)
{
	const struct test_desc d[] = {{0, PAGE, 0, 0}, reported(PAGE, PAGE)};

	(void)state;
	for (uint32_t n = 1; n < 3; n++) {
		begin(0, 0, 16 * MIB, PAGE, 0);
		test_offer(&t.ring[RING], d, n);
		assert_false(balloon_queue_run(&t.b, RING, test_at(0)));
		assert_int_equal(t.broken[RING], 1);
		assert_int_equal(t.ring[RING].vq.st.error, VQ_ERR_DIRECTION);
		assert_int_equal(t.n_ranges, 0);
		test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, 2);
		assert_int_equal(t.n_ranges, 1);
		end();
	}
}

static uint32_t refills;

static void refill(struct test_balloon *at, enum test_op op)
{
	(void)at;
	if (op != TEST_OP_NOTIFY)
		return;
	refills++;
	offer(0, 1);
}

/* threats.md, rings, line 8: reports of a byte are bounded too. */
static void endless_ring(void **state)
{
	(void)state;
	begin(0, 0, MIB, PAGE, 0);
	refills = 0;
	offer(0, 1);
	t.hook = refill;
	assert_true(balloon_queue_run(&t.b, RING, test_at(0)));
	assert_in_range(refills, 2, 1000);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_host_pages),
		cmocka_unit_test(many_stretches),
		cmocka_unit_test(across_regions),
		cmocka_unit_test(bounded_turns),
		cmocka_unit_test(many_small_stretches),
		cmocka_unit_test(pause_between_turns),
		cmocka_unit_test(memory_changes_between_turns),
		cmocka_unit_test(kept),
		cmocka_unit_test(inhibited_between_turns),
		cmocka_unit_test(wrong_direction),
		cmocka_unit_test(endless_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
