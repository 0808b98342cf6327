// SPDX-License-Identifier: MIT
/*
 * Messages (wire.md, "Messages"): above all that an acknowledgement comes when the host has dealt
 * with the message, and not before.
 */
#include "helpers.h"

#define V1       BIT(VIRTIO_F_VERSION_1)
#define PACKED   BIT(VIRTIO_F_RING_PACKED)
#define MESSAGE  BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define STATS    BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define RING     2U
#define PAGES    1024U
#define PRESSURE VIRTIO_BALLOON_MSG_PRESSURE
#define RELIEVED VIRTIO_BALLOON_MSG_RELIEVED
#define WAIT_MS  100
#define PLACE    (TEST_BUFFERS + 0x20000U) /* of messages, apart from PFNs */

static struct test_balloon t;

static const struct balloon_pressure *const told = &t.b.st.pressure;

/* A driver that holds `held` pages, of which the host wants `target`. */
static void begin(uint64_t features, enum balloon_pressure_policy on_pressure, uint32_t held,
		  uint32_t target)
{
	test_balloon_init(&t, MESSAGE | STATS);
	test_add_region(&t.mem, 0, PAGES * PAGE, PAGE, t.queues);
	test_balloon_start(&t, V1 | MESSAGE | features);
	t.b.policy = (struct balloon_policy){.on_pressure = on_pressure,
					     .step_pages = {16, 32, 64, 128}};
	if (held)
		test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, held);
	balloon_set_target(&t.b, target);
	t.config_changes = t.commits = t.n_ranges = 0;
}

/* The driver sends a message of len bytes; room for 64. */
static void put(uint32_t type, uint32_t arg, uint32_t len)
{
	uint8_t *at = t.queues + PLACE;

	memset(at, 0xff, 64);
	le32_put(at, type);
	le32_put(at + 4, arg);
	test_offer_one(&t.ring[RING], (TEST_QUEUES_GPA + PLACE), len);
}

static bool run(uint64_t now)
{
	return balloon_queue_run(&t.b, RING, test_at(now));
}

static bool came_back(void)
{
	uint32_t id, len;
	bool back = test_take_used(&t.ring[RING], &id, &len);

	if (back)
		assert_int_equal(len, 0);
	return back;
}

static void say(uint32_t type, uint32_t arg, uint32_t len)
{
	put(type, arg, len);
	assert_false(run(0));
	assert_true(came_back());
}

static uint32_t num_pages(void)
{
	uint8_t raw[4];

	balloon_config_read(&t.b, 0, raw, sizeof(raw));
	return le32_get(raw);
}

/* What the driver can see at the beginning of each action: text. */
static char seen[512];

static bool shown_to_driver(void)
{
	const struct test_ring *r = &t.ring[RING];

	if (!r->vq.st.packed)
		return le16_get(r->device + VRING_USED_IDX) != r->seen;
	return le16_get(r->desc + (size_t)r->seen * VRING_DESC_SIZE + 14) & VRING_DESC_F_USED;
}

static void note(struct test_balloon *at, enum test_op op)
{
	static const char *const names[] = {"discard", "config", "notify",
					    "broken",  "event",  "commit"};
	size_t used = strlen(seen);

	(void)snprintf(seen + used, sizeof(seen) - used, "%s%s:%u:%s", used ? " " : "", names[op],
		       num_pages(), shown_to_driver() ? "back" : "out");
	assert_ptr_equal(at, &t);
}

/*
 * The invariant: the new target, the configuration change, the acknowledgement. What a successor
 * would know of it is complete before the buffer shows in the guest's memory.
 */
static void order(void **state)
{
	static const struct {
		enum balloon_pressure_policy policy;
		const char *seen;
	} cases[] = {
		{BALLOON_PRESSURE_REPORT, "commit:512:out notify:512:back event:512:back"},
		{BALLOON_PRESSURE_HOLD,
		 "config:256:out commit:256:out notify:256:back event:256:back"},
		{BALLOON_PRESSURE_DEFLATE,
		 "config:192:out commit:192:out notify:192:back event:192:back"},
	};

	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			begin(packed ? PACKED : 0, cases[i].policy, 256, 512);
			seen[0] = '\0';
			t.hook = note;
			say(PRESSURE, VIRTIO_BALLOON_PRESSURE_MEDIUM, 8);
			assert_string_equal(seen, cases[i].seen);
			t.hook = NULL;
			test_balloon_end(&t);
		}
	}
}

static void report_changes_nothing(void **state)
{
	(void)state;
	for (uint32_t level = 0; level < VIRTIO_BALLOON_PRESSURE_NR; level++) {
		begin(0, BALLOON_PRESSURE_REPORT, 100, 512);
		say(PRESSURE, level, 8);
		assert_int_equal(num_pages(), 512);
		assert_int_equal(t.b.st.wanted_pages, 512);
		assert_int_equal(t.config_changes, 0);
		assert_int_equal(told->messages[level], 1);
		assert_int_equal(t.events[BALLOON_EVENT_PRESSURE], 1);
		test_balloon_end(&t);
	}
}

/* Down to what the balloon holds, in whole steps of the target; never up. */
static void hold(void **state)
{
	static const struct {
		uint32_t held, target, expected;
	} cases[] = {
		{0, 512, 0},     {256, 512, 256}, {255, 512, 240}, {257, 512, 256},
		{512, 512, 512}, {520, 512, 512}, {600, 512, 512}, {600, 16, 16},
		{600, 0, 0},     {15, 16, 0},     {1, 0, 0},       {600, 519, 512},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(0, BALLOON_PRESSURE_HOLD, cases[i].held, cases[i].target);
		for (uint32_t again = 0; again < 2; again++) {
			say(PRESSURE, VIRTIO_BALLOON_PRESSURE_CRITICAL, 8);
			assert_int_equal(num_pages(), cases[i].expected);
			assert_int_equal(t.config_changes,
					 cases[i].expected != align_down(cases[i].target, 16));
		}
		/* Where nothing changes, the host's wish stays what it was, to the page. */
		if (cases[i].expected == align_down(cases[i].target, 16))
			assert_int_equal(t.b.st.wanted_pages, cases[i].target);
		/* What was wanted before does not come back by itself. */
		balloon_update_target(&t.b);
		assert_int_equal(num_pages(), cases[i].expected);
		test_balloon_end(&t);
	}
}

/* Below what the balloon holds, by a step that the level gives; to nothing, and not further. */
static void deflate_by_level(void **state)
{
	static const struct {
		uint32_t held, target, level, expected;
	} cases[] = {
		{256, 512, 0, 240},  {256, 512, 1, 224},
		{256, 512, 2, 192},  {256, 512, 3, 128},
		{256, 128, 3, 0},    {600, 256, 1, 224},
		{128, 512, 3, 0},    {100, 512, 3, 0},
		{0, 512, 1, 0},      {600, 0, 3, 0},
		{300, 512, 1, 256},  {256, 512, 4, 240},
		{256, 512, 77, 240}, {256, 512, UINT32_MAX, 240},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t counted = cases[i].level < 4 ? cases[i].level : 0;

		begin(0, BALLOON_PRESSURE_DEFLATE, cases[i].held, cases[i].target);
		say(PRESSURE, cases[i].level, 8);
		assert_int_equal(num_pages(), cases[i].expected);
		assert_int_equal(told->messages[counted], 1);
		assert_int_equal(told->level, counted);
		test_balloon_end(&t);
	}
}

/* A guest that says it again is given more, though it has not taken the first step yet. */
static void deflate_again(void **state)
{
	(void)state;
	begin(0, BALLOON_PRESSURE_DEFLATE, 256, 512);
	for (uint32_t expected = 224; expected; expected -= 32) {
		say(PRESSURE, VIRTIO_BALLOON_PRESSURE_LOW, 8);
		assert_int_equal(num_pages(), expected);
	}
	say(PRESSURE, VIRTIO_BALLOON_PRESSURE_LOW, 8);
	say(PRESSURE, VIRTIO_BALLOON_PRESSURE_LOW, 8);
	assert_int_equal(num_pages(), 0);
	test_balloon_end(&t);
}

/* Four bytes alone mean arg 0; what follows an argument is ignored; less than a type is an error.
 */
static void lengths(void **state)
{
	(void)state;
	for (uint32_t len = 1; len <= 64; len++) {
		begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
		say(PRESSURE, VIRTIO_BALLOON_PRESSURE_MEDIUM, len);
		assert_int_equal(told->messages[VIRTIO_BALLOON_PRESSURE_MEDIUM], len >= 8);
		assert_int_equal(told->messages[0], len >= 4 && len < 8);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_MESSAGE], len < 4);
		assert_int_equal(t.events[BALLOON_EVENT_PRESSURE], len >= 4);
		assert_int_equal(told->unknown, 0);
		assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_MESSAGE], 1);
		test_balloon_end(&t);
	}
}

/* Cut into descriptors anywhere. */
static void scattered(void **state)
{
	(void)state;
	for (uint32_t a = 1; a < 11; a++) {
		for (uint32_t b = a + 1; b < 12; b++) {
			const struct test_desc d[] = {
				{(TEST_QUEUES_GPA + PLACE), a, 0, 0},
				{(TEST_QUEUES_GPA + PLACE) + a, b - a, 0, 0},
				{(TEST_QUEUES_GPA + PLACE) + b, 12 - b, 0, 0}};

			begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
			memset(t.queues + PLACE, 0xff, 12);
			le32_put(t.queues + PLACE, PRESSURE);
			le32_put(t.queues + PLACE + 4, 3);
			test_offer(&t.ring[RING], d, 3);
			assert_false(run(0));
			assert_true(came_back());
			assert_int_equal(told->messages[3], 1);
			test_balloon_end(&t);
		}
	}
}

/* Of a later driver: acknowledged, counted, and nothing else. */
static void unknown_types(void **state)
{
	static const uint32_t types[] = {0, 3, 4, 0x100, 0x01000000, UINT32_MAX};

	(void)state;
	begin(0, BALLOON_PRESSURE_DEFLATE, 256, 512);
	for (uint32_t i = 0; i < ARRAY_SIZE(types); i++) {
		say(types[i], 3, 8);
		assert_int_equal(told->unknown, i + 1);
	}
	assert_false(told->ever);
	assert_int_equal(t.events[BALLOON_EVENT_PRESSURE], 0);
	assert_int_equal(num_pages(), 512);
	assert_int_equal(t.config_changes, 0);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_MESSAGE], ARRAY_SIZE(types));
	test_balloon_end(&t);
}

static void relieved(void **state)
{
	(void)state;
	begin(0, BALLOON_PRESSURE_DEFLATE, 256, 512);
	put(PRESSURE, 3, 8);
	assert_false(run(70));
	assert_true(came_back());
	assert_true(told->ever);
	assert_int_equal(told->type, PRESSURE);
	assert_int_equal(told->level, 3);
	assert_int_equal(told->arrived.mono_ms, 70);
	put(RELIEVED, 3, 8);
	assert_false(run(90));
	assert_true(came_back());
	assert_int_equal(told->type, RELIEVED);
	assert_int_equal(told->level, 0);
	assert_int_equal(told->relieved, 1);
	assert_int_equal(told->messages[3], 1);
	assert_int_equal(told->arrived.mono_ms, 90);
	assert_int_equal(t.events[BALLOON_EVENT_PRESSURE], 2);
	assert_int_equal(num_pages(), 128); /* it does not raise the target either */
	test_balloon_end(&t);
}

/* What of n messages in a row is served at this moment. */
static uint32_t served(uint32_t n, uint64_t now)
{
	uint32_t back = 0;

	for (uint32_t i = 0; i < n; i++)
		put(PRESSURE, 1, 8);
	assert_false(run(now));
	while (came_back())
		back++;
	return back;
}

/* A flood is made to wait, and counted; the device does not look at it again and again. */
static void flood(void **state)
{
	(void)state;
	begin(STATS, BALLOON_PRESSURE_REPORT, 0, 0);
	/* The statistics ring comes before it. */
	assert_int_equal(balloon_queue_of(&t.b, 3), VIRTIO_BALLOON_VQ_MESSAGE);
	test_balloon_end(&t);

	begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
	t.b.policy.messages_per_second = 45; /* five in 100 ms */
	assert_int_equal(served(5, 1000), 5);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_MESSAGE_FLOOD], 0);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	assert_int_equal(served(8, 1010), 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_MESSAGE_FLOOD], 1);
	assert_int_equal(balloon_next_tick(&t.b), 1000 + WAIT_MS);
	/* Kicks while it waits are nothing. */
	assert_false(run(1050));
	assert_false(run(1099));
	assert_int_equal(t.b.st.errors[BALLOON_ERR_MESSAGE_FLOOD], 1);
	/* The others are served meanwhile. */
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, 8);
	test_send_run(&t, VIRTIO_BALLOON_VQ_DEFLATE, 0, 8);
	assert_int_equal(balloon_tick(&t.b, test_at(1099)), 0);
	assert_int_equal(balloon_next_tick(&t.b), 1000 + WAIT_MS);
	assert_int_equal(balloon_tick(&t.b, test_at(1100)), 1U << RING);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX); /* that is up to the ring's run now */
	assert_int_equal(served(0, 1100), 5);
	assert_int_equal(balloon_next_tick(&t.b), 1200);
	assert_int_equal(balloon_tick(&t.b, test_at(1205)), 1U << RING);
	assert_int_equal(served(0, 1205), 3);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	assert_int_equal(told->messages[1], 13);
	test_balloon_end(&t);
}

static void no_limit(void **state)
{
	(void)state;
	begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(served(10, 5), 10);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_MESSAGE_FLOOD], 0);
	test_balloon_end(&t);
}

static uint32_t refills;

static void refill(struct test_balloon *at, enum test_op op)
{
	(void)at;
	if (op != TEST_OP_NOTIFY)
		return;
	refills++;
	put(PRESSURE, 1, 8);
}

/* threats.md, rings, line 8: a ring that refills as fast as it drains */
static void endless_ring(void **state)
{
	(void)state;
	begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
	refills = 0;
	put(PRESSURE, 1, 8);
	t.hook = refill;
	assert_true(run(0));
	assert_in_range(refills, 2, 1000);
	test_balloon_end(&t);
}

/* The message that waits is not lost when the ring stops or memory changes, nor when both. */
static void waiting_through_changes(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		begin(packed ? PACKED : 0, BALLOON_PRESSURE_REPORT, 0, 0);
		t.b.policy.messages_per_second = 10;
		assert_int_equal(served(2, 1000), 1);
		balloon_memory_changing(&t.b);
		test_balloon_memory(&t);
		test_balloon_pause(&t, RING);
		assert_int_equal(t.ring[RING].vq.st.in_use, 0);
		assert_int_equal(balloon_tick(&t.b, test_at(1100)), 1U << RING);
		assert_false(run(1100)); /* it is stopped */
		assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
		test_balloon_resume(&t, RING);
		assert_int_equal(served(0, 1150), 1);
		assert_int_equal(told->messages[1], 2);
		test_balloon_end(&t);
	}
}

/* With the state in a process whose clock stands elsewhere nobody waits for years. */
static void clock_stands_elsewhere(void **state)
{
	(void)state;
	begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
	t.b.policy.messages_per_second = 10;
	assert_int_equal(served(2, 1ULL << 40), 1);
	assert_int_equal(served(0, 500), 1);
	test_balloon_end(&t);
}

/* A fresh driver does not wait for what the last one has said. */
static void fresh_driver(void **state)
{
	(void)state;
	begin(0, BALLOON_PRESSURE_REPORT, 0, 0);
	t.b.policy.messages_per_second = 10;
	assert_int_equal(served(3, 1000), 1);
	balloon_queue_stopped(&t.b, RING);
	vq_stop(&t.ring[RING].vq);
	balloon_reset(&t.b);
	test_balloon_queue(&t, RING, 0, false);
	assert_true(balloon_next_tick(&t.b) == UINT64_MAX);
	assert_int_equal(served(1, 1100), 1);
	test_balloon_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order),
		cmocka_unit_test(report_changes_nothing),
		cmocka_unit_test(hold),
		cmocka_unit_test(deflate_by_level),
		cmocka_unit_test(deflate_again),
		cmocka_unit_test(lengths),
		cmocka_unit_test(scattered),
		cmocka_unit_test(unknown_types),
		cmocka_unit_test(relieved),
		cmocka_unit_test(flood),
		cmocka_unit_test(no_limit),
		cmocka_unit_test(endless_ring),
		cmocka_unit_test(waiting_through_changes),
		cmocka_unit_test(clock_stands_elsewhere),
		cmocka_unit_test(fresh_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
