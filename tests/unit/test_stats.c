// SPDX-License-Identifier: MIT
#include "helpers.h"

#include <errno.h>

#define V1     BIT(VIRTIO_F_VERSION_1)
#define STATS  BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define QUEUE  VIRTIO_BALLOON_VQ_STATS
#define UNSET  VIRTIO_BALLOON_S_UNSET
#define BUFFER (TEST_QUEUES_GPA + TEST_BUFFERS)

static struct test_balloon t;

static void begin(uint64_t features)
{
	test_balloon_init(&t, STATS);
	test_add_region(&t.mem, 0, 64 * PAGE, PAGE, t.queues);
	test_balloon_start(&t, features);
}

static void put(uint32_t index, uint16_t tag, uint64_t value)
{
	uint8_t *p = t.queues + TEST_BUFFERS + (size_t)index * 10;

	le16_put(p, tag);
	le64_put(p + 2, value);
}

/* The driver sends a buffer of len bytes, and the queue runs. */
static void send(uint32_t len, uint64_t now)
{
	test_offer_one(&t.ring[QUEUE], BUFFER, len);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(now)));
}

static bool came_back(void)
{
	uint32_t id, len;
	bool back = test_take_used(&t.ring[QUEUE], &id, &len);

	if (back)
		assert_int_equal(len, 0);
	return back;
}

static void figures(void **state)
{
	const struct balloon_stats *s = &t.b.st.stats;

	(void)state;
	begin(V1 | STATS);
	assert_false(s->ever);
	/* all tags, backwards, the largest value that is one */
	for (uint16_t i = 0; i < 16; i++)
		put(i, (uint16_t)(15 - i), i == 3 ? UNSET - 1 : 1000U + i);
	send(160, 77);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_true(s->ever);
	assert_int_equal(s->set, 0xffff);
	assert_int_equal(s->value[15], 1000);
	assert_int_equal(s->value[0], 1015);
	assert_true(s->value[12] == UNSET - 1);
	assert_int_equal(s->arrived.mono_ms, 77);
	assert_int_equal(s->arrived.wall_us, 77000);
	assert_false(came_back()); /* kept, to ask with */

	/* A set replaces all of the one before: what is missing now is unset. */
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	put(0, VIRTIO_BALLOON_S_AVAIL, 5);
	send(10, 90);
	assert_int_equal(s->set, 1 << VIRTIO_BALLOON_S_AVAIL);
	assert_int_equal(s->value[VIRTIO_BALLOON_S_AVAIL], 5);
	assert_int_equal(t.b.st.buffers[QUEUE], 2);
	test_balloon_end(&t);
}

/* threats.md, balloon, line 9 */
static void odd_buffers(void **state)
{
	static const struct {
		struct {
			uint16_t tag;
			uint64_t value;
		} entry[3];
		uint32_t len;
		uint32_t set;
		uint64_t value4; /* of tag 4 */
		uint64_t unknown, fragments;
	} cases[] = {
		{{{4, 1}, {5, 2}, {6, 3}}, 30, 0x70, 1, 0, 0},
		{{{4, 1}, {4, 2}, {4, 3}}, 30, 0x10, 3, 0, 0},     /* the last one holds */
		{{{4, 1}, {4, UNSET}, {5, 3}}, 30, 0x20, 0, 0, 0}, /* also if it unsets */
		{{{4, UNSET}, {4, 2}, {5, UNSET}}, 30, 0x10, 2, 0, 0},
		{{{16, 1}, {65535, 2}, {4, 3}}, 30, 0x10, 3, 2, 0},
		{{{0x8004, 1}, {0x0104, 2}, {32, UNSET}}, 30, 0, 0, 3, 0},
		{{{4, 1}, {5, 2}, {6, 3}}, 29, 0x30, 1, 0, 1},
		{{{4, 1}, {5, 2}, {6, 3}}, 21, 0x30, 1, 0, 1},
		{{{4, 1}, {5, 2}, {6, 3}}, 9, 0, 0, 0, 1},
		{{{4, 1}, {5, 2}, {6, 3}}, 1, 0, 0, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(V1 | STATS);
		for (uint32_t k = 0; k < 3; k++)
			put(k, cases[i].entry[k].tag, cases[i].entry[k].value);
		send(cases[i].len, 1);
		assert_int_equal(t.b.st.stats.set, cases[i].set);
		if (cases[i].set & 0x10)
			assert_int_equal(t.b.st.stats.value[4], cases[i].value4);
		assert_int_equal(t.b.st.unknown_tags, cases[i].unknown);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_FRAGMENT], cases[i].fragments);
		assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
		test_balloon_end(&t);
	}
}

/* threats.md, balloon, line 12: it is told as it was said; who reads it has to judge. */
static void figures_that_cannot_be(void **state)
{
	(void)state;
	begin(V1 | STATS);
	put(0, VIRTIO_BALLOON_S_MEMTOT, 1000);
	put(1, VIRTIO_BALLOON_S_AVAIL, 5000);
	put(2, VIRTIO_BALLOON_S_MAJFLT, 50);
	send(30, 1);
	assert_int_equal(t.b.st.stats.value[VIRTIO_BALLOON_S_AVAIL], 5000);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	put(0, VIRTIO_BALLOON_S_MAJFLT, 49);
	send(10, 2);
	assert_int_equal(t.b.st.stats.value[VIRTIO_BALLOON_S_MAJFLT], 49);
	assert_int_equal(t.b.st.stats.set, 1 << VIRTIO_BALLOON_S_MAJFLT);
	test_balloon_end(&t);
}

static void too_long(void **state)
{
	static const struct {
		uint32_t len;
		uint64_t errors;
		uint64_t value;
	} cases[] = {{10240, 0, 1023},
		     {10241, 1, 1023},
		     {10250, 1, 1023},
		     {200000, 1, 1023},
		     {10239, 0, 1022}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(V1 | STATS);
		for (uint32_t k = 0; k < 2000; k++)
			put(k, 7, k);
		send(cases[i].len, 1);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_LONG], cases[i].errors);
		assert_int_equal(t.b.st.stats.value[7], cases[i].value);
		test_balloon_end(&t);
	}
}

static void second_buffer(void **state)
{
	(void)state;
	begin(V1 | STATS);
	put(0, 4, 1);
	send(10, 1);
	put(0, 4, 2);
	send(10, 2);
	/* One is back, one is here: the newer one. */
	assert_true(came_back());
	assert_false(came_back());
	assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_TWICE], 1);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1); /* who asks for none gets none */
	assert_int_equal(t.b.st.stats.value[4], 2);
	assert_true(t.b.st.stats_held);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	assert_int_equal(t.ring[QUEUE].vq.st.in_use, 0);
	test_balloon_end(&t);
}

static void requests(void **state)
{
	(void)state;
	begin(V1); /* not negotiated */
	assert_int_equal(balloon_request_stats(&t.b), -ENOTSUP);
	test_balloon_end(&t);

	begin(V1 | STATS);
	/* No buffer yet: it is on its way. */
	assert_int_equal(balloon_request_stats(&t.b), 0);
	send(10, 1);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	assert_int_equal(t.notified[QUEUE], 1);
	/* Twice before the answer is one question. */
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_false(came_back());
	send(10, 4);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
	/* A broken queue answers nothing. */
	vq_break(&t.ring[QUEUE].vq, VQ_ERR_LOOP);
	assert_int_equal(balloon_request_stats(&t.b), -ENODEV);
	assert_false(came_back());
	balloon_queue_stopped(&t.b, 0);
	vq_stop(&t.ring[0].vq);
	assert_int_equal(balloon_request_stats(&t.b), -ENODEV);
	test_balloon_end(&t);
}

/* On the legacy interface the first buffer holds nothing. */
static void legacy(void **state)
{
	(void)state;
	begin(STATS);
	put(0, 4, 1);
	send(10, 1);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 0);
	assert_false(t.b.st.stats.ever);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	put(0, 4, 2);
	send(10, 3);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_int_equal(t.b.st.stats.value[4], 2);
	test_balloon_end(&t);

	/* Who asked before that is answered by the second one, for which the first goes back. */
	begin(STATS);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	send(10, 1);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 0);
	assert_true(came_back());
	send(10, 3);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_false(came_back());
	test_balloon_end(&t);
}

static void stop_and_start(bool resumed)
{
	struct vq *vq = &t.ring[QUEUE].vq;

	balloon_queue_stopped(&t.b, QUEUE);
	vq_stop(vq);
	vq_set_base(vq, vq_base(vq));
	assert_int_equal(vq_start(vq, &t.mem), 0);
	balloon_queue_started(&t.b, QUEUE, resumed);
}

/* The guest is paused while the buffer is here: what it held is old after that. */
static void pause_while_held(void **state)
{
	(void)state;
	begin(V1 | STATS);
	put(0, 4, 1);
	send(10, 1);
	stop_and_start(true);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(50)));
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
	assert_int_equal(t.b.st.stats.arrived.mono_ms, 1);
	/* It can be asked with. */
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	put(0, 4, 2);
	send(10, 52);
	assert_int_equal(t.b.st.stats.value[4], 2);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_TWICE], 0);
	test_balloon_end(&t);
}

/* It is paused while the answer is due: the answer, which comes after that, is news. */
static void pause_while_awaited(void **state)
{
	(void)state;
	begin(V1 | STATS);
	send(10, 1);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	stop_and_start(true);
	assert_false(balloon_queue_run(&t.b, QUEUE, test_at(50)));
	put(0, 4, 2);
	send(10, 51);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
	assert_int_equal(t.b.st.stats.arrived.mono_ms, 51);
	test_balloon_end(&t);
}

/* The request that the last driver had not answered is none of the next one's. */
static void fresh_driver(void **state)
{
	(void)state;
	begin(V1 | STATS);
	send(10, 1);
	assert_int_equal(balloon_request_stats(&t.b), 0);
	assert_true(came_back());
	stop_and_start(false);
	assert_false(t.b.st.stats_awaited);
	send(10, 2);
	assert_int_equal(t.events[BALLOON_EVENT_STATS], 2);
	assert_false(came_back());
	test_balloon_end(&t);
}

/* The ring's memory is taken away while the buffer is here: the ring has let go of it already. */
static void memory_taken_away(void **state)
{
	struct vq *vq = &t.ring[QUEUE].vq;

	(void)state;
	begin(V1 | STATS);
	send(10, 1);
	balloon_memory_changing(&t.b);
	vq->st.device_uaddr = 0x123456780;
	assert_int_not_equal(vq_remap(vq), 0);
	assert_int_equal(vq->st.in_use, 0);
	balloon_queue_stopped(&t.b, QUEUE);
	assert_int_equal(vq->st.in_use, 0);
	assert_int_equal(vq->st.avail, 0);
	assert_false(t.b.st.stats_held);
	assert_int_equal(t.b.st.buffers[QUEUE], 0);
	test_balloon_end(&t);
}

static void polling(void **state)
{
	(void)state;
	begin(V1 | STATS);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	send(10, 1000);
	balloon_set_poll_interval(&t.b, 100, test_at(1003));
	assert_true(came_back()); /* at once */
	assert_int_equal(balloon_next_tick(&t.b), 1103);
	send(10, 1005);
	balloon_tick(&t.b, test_at(1102));
	assert_false(came_back());
	balloon_tick(&t.b, test_at(1103));
	assert_true(came_back());
	send(10, 1104);
	/* Late, and later than a whole interval: still on the grid, and only once. */
	balloon_tick(&t.b, test_at(1477));
	assert_true(came_back());
	assert_int_equal(balloon_next_tick(&t.b), 1503);
	balloon_tick(&t.b, test_at(1503)); /* the guest has not answered */
	assert_false(came_back());
	assert_int_equal(balloon_next_tick(&t.b), 1603);
	send(10, 1510);
	balloon_set_poll_interval(&t.b, 0, test_at(1600));
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	balloon_tick(&t.b, test_at(99999));
	assert_false(came_back());
	test_balloon_end(&t);
}

/* The longest that the monitor takes. */
static void huge_interval(void **state)
{
	(void)state;
	begin(V1 | STATS);
	balloon_set_poll_interval(&t.b, UINT32_MAX * 1000ULL, test_at(1000));
	assert_true(balloon_next_tick(&t.b) == 1000 + UINT32_MAX * 1000ULL);
	test_balloon_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures),
		cmocka_unit_test(odd_buffers),
		cmocka_unit_test(figures_that_cannot_be),
		cmocka_unit_test(too_long),
		cmocka_unit_test(second_buffer),
		cmocka_unit_test(requests),
		cmocka_unit_test(legacy),
		cmocka_unit_test(pause_while_held),
		cmocka_unit_test(pause_while_awaited),
		cmocka_unit_test(fresh_driver),
		cmocka_unit_test(memory_taken_away),
		cmocka_unit_test(polling),
		cmocka_unit_test(huge_interval),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
