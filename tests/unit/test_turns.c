// SPDX-License-Identifier: MIT
/*
 * Long buffers are worked off in turns. Whatever comes between two turns - a change of memory, a
 * stop, a reset - no part of the buffer is lost, done twice, or read from memory that is gone.
 */
#include "helpers.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define PACKED  BIT(VIRTIO_F_RING_PACKED)
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define PFNS    60000U /* more than a turn does, in one buffer */

static struct test_balloon t;

static void begin(uint64_t features)
{
	test_balloon_init(&t, 0);
	test_add_region(&t.mem, 0, 2ULL * PFNS * PAGE, PAGE, t.queues);
	test_balloon_start(&t, features);
	for (uint32_t i = 0; i < PFNS; i++)
		le32_put(t.queues + TEST_BUFFERS + (size_t)i * 4, i);
}

/* Runs until the buffer is back; returns the number of turns. */
static uint32_t finish(void)
{
	uint32_t turns = 0, id, len;
	bool more;

	do {
		more = balloon_queue_run(&t.b, INFLATE, test_at(0));
		turns++;
		t.n_ranges = 0;
		assert_true(turns < 1000);
	} while (more);
	assert_true(test_take_used(&t.ring[INFLATE], &id, &len));
	assert_false(test_take_used(&t.ring[INFLATE], &id, &len));
	return turns;
}

static void check_all_done(void)
{
	assert_int_equal(balloon_held_bytes(&t.b), (uint64_t)PFNS * PAGE);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_DOUBLE], 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_FRAGMENT], 0);
	assert_int_equal(t.b.st.buffers[INFLATE], 1);
}

static void bounded_turns(void **state)
{
	(void)state;
	begin(V1);
	test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, PFNS * 4);
	assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
	/* Some of it, and nothing returned before all is done. */
	assert_in_range(balloon_held_bytes(&t.b), PAGE, 8192 * PAGE);
	assert_int_equal(le16_get(t.ring[INFLATE].device + VRING_USED_IDX), 0);
	assert_in_range(finish(), 5, 60);
	check_all_done();
	test_balloon_end(&t);
}

/* threats.md, rings, line 8: buffers that do next to nothing are bounded too. */
static void many_small_buffers(void **state)
{
	uint32_t served = 0, turns = 0, id, len;

	(void)state;
	begin(V1);
	for (; served < 2000; turns++) {
		for (uint32_t i = (uint16_t)(t.ring[INFLATE].next - t.ring[INFLATE].seen); i < 16;
		     i++)
			test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, 4);
		(void)balloon_queue_run(&t.b, INFLATE, test_at(0));
		t.n_ranges = 0;
		while (test_take_used(&t.ring[INFLATE], &id, &len))
			served++;
	}
	assert_int_equal(t.b.st.buffers[INFLATE], served);
	assert_in_range(turns, 2000 / 16, 2000);
	test_balloon_end(&t);
}

/* threats.md, balloon, line 9: a buffer as long as one can be; a turn does no more of it. */
static void buffer_of_4_gib(void **state)
{
	const uint64_t len = 0xfffff000, gpa = 1ULL << 41;
	uint8_t *zeros =
		mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)state;
	assert_ptr_not_equal(zeros, MAP_FAILED);
	test_balloon_init(&t, 0);
	test_add_region(&t.mem, 0, 1024ULL * PAGE, PAGE, t.queues);
	test_add_region(&t.mem, gpa, len, PAGE, zeros);
	test_balloon_start(&t, V1);
	test_offer_one(&t.ring[INFLATE], gpa, (uint32_t)len);
	for (uint32_t turn = 1; turn < 5; turn++) {
		uint64_t before = t.b.st.resume[INFLATE];

		assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
		assert_in_range(t.b.st.resume[INFLATE] - before, 4096, 0x10000);
	}
	assert_int_equal(balloon_held_bytes(&t.b), PAGE);
	test_balloon_pause(&t, INFLATE);
	assert_int_equal(t.ring[INFLATE].vq.st.in_use, 0);
	test_balloon_end(&t);
	assert_int_equal(munmap(zeros, len), 0);
}

/* The table changes in the middle of a buffer, and the buffer moves with it. */
static void memory_changes_between_turns(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		uint8_t *moved = aligned_alloc(PAGE, TEST_ROOM), *old;

		assert_non_null(moved);
		begin(V1 | (packed ? PACKED : 0));
		test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, PFNS * 4);
		assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
		t.n_ranges = 0;

		balloon_memory_changing(&t.b);
		old = t.queues;
		memcpy(moved, old, TEST_ROOM);
		t.mem.host[0] = t.mem.host[1] = moved;
		t.queues = moved;
		for (uint32_t i = 0; i < 3; i++) {
			struct test_ring *r = &t.ring[i];

			if (!vq_started(&r->vq))
				continue;
			assert_int_equal(vq_remap(&r->vq), 0);
			r->device = moved + (r->device - old);
			r->driver = moved + (r->driver - old);
			r->desc = moved + (r->desc - old);
		}
		test_balloon_memory(&t);
		free(old); /* the sanitizer tells if anything still looks there */
		finish();
		check_all_done();
		test_balloon_end(&t);
	}
}

/* Stopped and resumed at the same place: goes on. Started afresh: begins anew, in an empty balloon.
 */
static void stops_between_turns(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		for (int resumed = 0; resumed < 2; resumed++) {
			struct vq *vq = &t.ring[INFLATE].vq;
			uint32_t base;

			begin(V1 | (packed ? PACKED : 0));
			base = vq_base(vq);
			test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, PFNS * 4);
			assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
			balloon_queue_stopped(&t.b, INFLATE);
			vq_stop(vq);
			assert_int_equal(vq_base(vq), base);
			/* It stands where it began, and yet is not as if nobody had used it. */
			assert_true(vq->st.served);
			if (!resumed)
				balloon_reset(&t.b);
			vq_set_base(vq, base);
			assert_int_equal(vq_start(vq, &t.mem), 0);
			balloon_queue_started(&t.b, INFLATE, resumed);
			t.n_ranges = 0;
			finish();
			check_all_done();
			test_balloon_end(&t);
		}
	}
}

/* Started afresh, and nobody has said reset: all of the buffer is the new driver's. */
static void fresh_between_turns(void **state)
{
	struct vq *vq = &t.ring[INFLATE].vq;
	uint64_t before;

	(void)state;
	begin(V1);
	test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, PFNS * 4);
	assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
	before = balloon_held_bytes(&t.b) / PAGE;
	balloon_queue_stopped(&t.b, INFLATE);
	vq_stop(vq);
	vq_set_base(vq, 0);
	assert_int_equal(vq_start(vq, &t.mem), 0);
	balloon_queue_started(&t.b, INFLATE, false);
	t.n_ranges = 0;
	finish();
	assert_int_equal(t.b.st.inflated_pages, before + PFNS);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_DOUBLE], before);
	test_balloon_end(&t);
}

/* The device is reset and the ring runs on, for it is the new driver's: the buffer comes back. */
static void reset_between_turns(void **state)
{
	uint64_t before;

	(void)state;
	begin(V1);
	test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, PFNS * 4);
	assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
	t.n_ranges = 0;
	before = balloon_held_bytes(&t.b);
	balloon_reset(&t.b);
	assert_int_equal(balloon_held_bytes(&t.b), 0);
	finish();
	/* Forgotten or done anew, both are harmless: nothing is held that was not sent. */
	assert_in_range(balloon_held_bytes(&t.b), (uint64_t)PFNS * PAGE - before,
			(uint64_t)PFNS * PAGE);
	assert_int_equal(t.b.st.buffers[INFLATE], 1);
	test_balloon_end(&t);
}

/* The guest shortens the buffer meanwhile: the rest is empty, and the buffer comes back. */
static void shortened_between_turns(void **state)
{
	static const uint32_t lengths[] = {1, 4, 4096, 4099};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint64_t before;

		begin(V1);
		test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, PFNS * 4);
		assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
		t.n_ranges = 0;
		before = balloon_held_bytes(&t.b);
		balloon_memory_changing(&t.b);
		test_balloon_memory(&t);
		le32_put(t.ring[INFLATE].desc + 8, lengths[i]);
		finish();
		assert_int_equal(balloon_held_bytes(&t.b), before);
		test_balloon_end(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounded_turns),
		cmocka_unit_test(many_small_buffers),
		cmocka_unit_test(buffer_of_4_gib),
		cmocka_unit_test(memory_changes_between_turns),
		cmocka_unit_test(stops_between_turns),
		cmocka_unit_test(fresh_between_turns),
		cmocka_unit_test(reset_between_turns),
		cmocka_unit_test(shortened_between_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
