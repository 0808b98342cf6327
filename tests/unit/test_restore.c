// SPDX-License-Identifier: MIT
/*
 * A process that serves the device dies, and another goes on with what balloon_ops.commit has
 * saved. It dies here at every action that it takes, before and after each commit, and its
 * successor once more; the driver sees every buffer come back once, and all is as if nothing had
 * happened.
 */
#include "helpers.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define PACKED  BIT(VIRTIO_F_RING_PACKED)
#define EVENT   BIT(VIRTIO_F_EVENT_IDX)
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH    BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define HINT    BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define REPORT  BIT(VIRTIO_BALLOON_F_PAGE_REPORTING)
#define MESSAGE BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define ALL     (MTH | STATS | PUSH | HINT | REPORT | MESSAGE)
#define PAGES   65536U /* of the guest */
#define PFNS    5000U  /* in a long buffer: some batches, and more than a turn does */
#define MIB     (1ULL << 20)

static struct test_balloon t;
static uint8_t *forbidden;

/* What a successor gets. Bitmaps and guest memory are changed in place. */
static struct {
	struct balloon_state st;
	struct vq_state vq[TEST_RINGS];
	bool started[TEST_RINGS];
	struct pageset_layout held, hints;
} saved;

static void save(void)
{
	saved.st = t.b.st;
	for (uint32_t i = 0; i < TEST_RINGS; i++) {
		saved.vq[i] = t.ring[i].vq.st;
		saved.started[i] = vq_started(&t.ring[i].vq);
	}
	saved.held = t.b.held.at;
	saved.hints = t.b.hints.at;
}

static uint8_t was_discarded[PAGES];

static void collect_discarded(void)
{
	for (uint32_t i = 0; i < t.n_ranges; i++) {
		uint64_t first = t.range[i].offset / PAGE;

		assert_int_equal(t.range[i].region, 0);
		memset(was_discarded + first, 1, t.range[i].len / PAGE);
	}
	t.n_ranges = 0;
}

static jmp_buf death;
static uint32_t life; /* actions until the process dies */

static void live(void)
{
	if (!--life)
		longjmp(death, 1);
}

static void on_op(struct test_balloon *at, enum test_op op)
{
	(void)at;
	collect_discarded();
	live();
	if (op != TEST_OP_COMMIT)
		return;
	save();
	live();
}

static void begin(uint64_t features)
{
	test_balloon_init(&t, ALL);
	forbidden = test_add_forbidden(&t.mem, 0, (uint64_t)PAGES * PAGE, PAGE);
	test_balloon_start(&t, V1 | features);
	t.b.policy = (struct balloon_policy){.on_pressure = BALLOON_PRESSURE_DEFLATE,
					     .step_pages = {16, 16, 16, 16}};
	memset(was_discarded, 0, sizeof(was_discarded));
	life = UINT32_MAX;
	t.hook = on_op;
}

static void end(void)
{
	test_drop_forbidden(forbidden, (uint64_t)PAGES * PAGE);
	test_balloon_end(&t);
}

/* Another process takes over: it knows what was saved, and nothing else. */
static void succeed(void)
{
	static struct pageset held, hints;
	const struct balloon_ops *ops = t.b.ops;
	struct balloon_policy policy = t.b.policy;
	uint64_t offered = t.b.st.offered;

	memset(t.b.cursor, 0xa5, sizeof(t.b.cursor));
	memset(t.b.in_hand, 0xff, sizeof(t.b.in_hand));
	memset(&t.b.batch, 0xa5, sizeof(t.b.batch));
	t.n_ranges = 0;
	balloon_init(&t.b, offered, ops, &t);
	t.b.policy = policy;
	pageset_attach(&held, &saved.held, t.map);
	pageset_attach(&hints, &saved.hints, t.hints);
	balloon_restore(&t.b, &saved.st, &t.mem, &held, &hints);
	for (uint32_t i = 0; i < TEST_RINGS; i++) {
		struct vq *vq = &t.ring[i].vq;

		*vq = (struct vq){.st = saved.vq[i]};
		if (!saved.started[i])
			continue;
		assert_int_equal(vq_recover(vq, &t.mem), 0);
	}
	for (uint32_t i = 0; i < TEST_RINGS; i++) {
		if (saved.started[i])
			assert_true(balloon_queue_started(&t.b, i, true) >> i & 1);
	}
	save();
}

/* Everything that is to be done, turn by turn. */
static void work(void)
{
	bool more = true;

	while (more) {
		more = false;
		for (uint32_t ring = 0; ring < TEST_RINGS; ring++) {
			more |= balloon_queue_run(&t.b, ring, test_at(1000));
			save();
		}
		if (balloon_next_tick(&t.b) <= 1000) {
			balloon_tick(&t.b, test_at(1000));
			save();
			more = true;
		}
	}
	collect_discarded();
}

/* Dies after so many actions, and the successor after so many. True if it came to that. */
static bool work_and_die(uint32_t first, uint32_t second)
{
	volatile uint32_t deaths = 0;

	save();
	life = first;
	if (setjmp(death)) {
		deaths++;
		life = deaths == 1 && second ? second : UINT32_MAX;
		succeed();
	}
	work();
	life = UINT32_MAX;
	return deaths > 0;
}

static uint32_t ring_of(enum virtio_balloon_queue queue)
{
	return test_ring_of(t.features, queue);
}

/* The driver got n buffers back, each of those it had sent, in that order. */
static uint16_t sent[64];
static uint32_t n_sent;

static void check_returned(uint32_t ring, uint32_t n)
{
	uint32_t id, len, i;

	for (i = 0; test_take_used(&t.ring[ring], &id, &len); i++) {
		assert_in_range(i, 0, n - 1);
		assert_int_equal(id, sent[i]);
		assert_int_equal(len, 0);
	}
	assert_int_equal(i, n);
	assert_int_equal(t.ring[ring].vq.st.error, VQ_OK);
	assert_int_equal(t.ring[ring].vq.st.pushing, 0);
}

static void offer(uint32_t ring, const struct test_desc *d, uint32_t n)
{
	sent[n_sent++] = test_offer(&t.ring[ring], d, n);
}

static void check_errors(void)
{
	for (int i = 0; i < BALLOON_ERR_COUNT; i++)
		assert_int_equal(t.b.st.errors[i], 0);
}

/* Bits and their count. */
static void check_held(uint32_t first, uint32_t n)
{
	uint64_t bits = 0;

	for (uint64_t i = 0; i < pageset_words(&t.mem); i++)
		bits += (uint64_t)__builtin_popcountll(t.map[i]);
	assert_int_equal(bits, n);
	assert_int_equal(t.b.held.count, n);
	if (n)
		assert_true(pageset_all(&t.b.held, 0, first, n));
}

static void check_discarded(uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < PAGES; i++)
		assert_int_equal(was_discarded[i], i >= first && i - first < n);
}

/* A short buffer, a long one, a short one: PFNs 0 to PFNS + 1. */
static void offer_pfns(uint32_t ring)
{
	const struct test_desc d[] = {{TEST_BUFFER, 4, 0, 0},
				      {TEST_BUFFER + 4, PFNS * 4, 0, 0},
				      {TEST_BUFFER + 4 + PFNS * 4, 4, 0, 0}};

	for (uint32_t i = 0; i < PFNS + 2; i++)
		le32_put(t.queues + TEST_BUFFERS + (size_t)i * 4, i);
	for (uint32_t i = 0; i < 3; i++)
		offer(ring, d + i, 1);
}

static void prepare_inflate(void)
{
	offer_pfns(VIRTIO_BALLOON_VQ_INFLATE);
}

static void check_inflate(void)
{
	check_returned(VIRTIO_BALLOON_VQ_INFLATE, 3);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_INFLATE], 3);
	assert_int_equal(t.b.st.inflated_pages, PFNS + 2);
	check_held(0, PFNS + 2);
	check_discarded(0, PFNS + 2);
}

static void prepare_deflate(void)
{
	offer_pfns(VIRTIO_BALLOON_VQ_INFLATE);
	work();
	check_inflate();
	n_sent = 0;
	offer_pfns(VIRTIO_BALLOON_VQ_DEFLATE);
}

static void check_deflate(void)
{
	check_returned(VIRTIO_BALLOON_VQ_DEFLATE, 3);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_DEFLATE], 3);
	assert_int_equal(t.b.st.deflated_pages, PFNS + 2);
	check_held(0, 0);
}

/* Nothing is discarded yet of what is held; the sweep is about to begin. */
static void prepare_sweep(void)
{
	balloon_set_inhibited(&t.b, true);
	offer_pfns(VIRTIO_BALLOON_VQ_INFLATE);
	work();
	check_returned(VIRTIO_BALLOON_VQ_INFLATE, 3);
	check_discarded(0, 0);
	balloon_set_inhibited(&t.b, false);
	assert_int_equal(balloon_next_tick(&t.b), 0);
}

static void check_sweep(void)
{
	check_held(0, PFNS + 2);
	check_discarded(0, PFNS + 2);
	assert_false(t.b.st.sweep.active);
}

static void offer_stats(uint64_t value)
{
	const struct test_desc d = {TEST_BUFFER, 10, 0, 0};

	le16_put(t.queues + TEST_BUFFERS, VIRTIO_BALLOON_S_AVAIL);
	le64_put(t.queues + TEST_BUFFERS + 2, value);
	offer(ring_of(VIRTIO_BALLOON_VQ_STATS), &d, 1);
}

/* A buffer is here when the process dies, before or after it was asked with. */
static void prepare_pull(void)
{
	offer_stats(77);
}

static void check_pull(void)
{
	uint32_t ring = ring_of(VIRTIO_BALLOON_VQ_STATS);

	check_returned(ring, 0);
	assert_true(t.b.st.stats_held);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_STATS], 1);
	assert_int_equal(t.ring[ring].vq.st.in_use, 1);
	assert_int_equal(t.b.st.stats.value[VIRTIO_BALLOON_S_AVAIL], 77);
	/* It asks, once, and what comes then is news. */
	assert_int_equal(balloon_request_stats(&t.b), 0);
	check_returned(ring, 1);
	n_sent = 0;
	offer_stats(78);
	work();
	check_returned(ring, 0);
	assert_int_equal(t.b.st.stats.value[VIRTIO_BALLOON_S_AVAIL], 78);
	assert_false(t.b.st.stats_awaited);
}

/* It dies while it asks. */
static void prepare_request(void)
{
	offer_stats(77);
	work();
	t.b.st.poll_interval_ms = 100000;
	t.b.st.poll_due_ms = 1000;
}

static void check_request(void)
{
	uint32_t ring = ring_of(VIRTIO_BALLOON_VQ_STATS);

	check_returned(ring, 1);
	assert_false(t.b.st.stats_held);
	assert_true(t.b.st.stats_awaited);
	n_sent = 0;
	offer_stats(78);
	work();
	check_returned(ring, 0);
	assert_int_equal(t.b.st.stats.value[VIRTIO_BALLOON_S_AVAIL], 78);
	assert_false(t.b.st.stats_awaited);
}

static void prepare_push(void)
{
	assert_int_equal(balloon_set_push_interval(&t.b, 10), 0);
	for (uint32_t i = 0; i < 5; i++)
		offer_stats(77);
}

static void check_push(void)
{
	check_returned(ring_of(VIRTIO_BALLOON_VQ_STATS), 5);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_STATS], 5);
	assert_int_equal(t.b.st.stats.value[VIRTIO_BALLOON_S_AVAIL], 77);
	assert_false(t.b.st.stats_held);
	assert_false(t.b.st.stats_skip);
}

/* An id, pages, an id with pages behind it, STOP. */
static void prepare_hints(void)
{
	const struct test_desc id = {TEST_BUFFER, 4, 0, 0}, stop = {TEST_BUFFER + 4, 4, 0, 0};
	struct test_desc d[16];

	assert_int_equal(balloon_hint(&t.b, BALLOON_HINT_START), 0);
	le32_put(t.queues + TEST_BUFFERS, t.b.st.hint.id);
	le32_put(t.queues + TEST_BUFFERS + 4, VIRTIO_BALLOON_CMD_ID_STOP);
	offer(ring_of(VIRTIO_BALLOON_VQ_FREE_PAGE), &id, 1);
	d[0] = id;
	for (uint32_t i = 1; i < 13; i++)
		d[i] = (struct test_desc){i * 4 * MIB, 4 * MIB, VRING_DESC_F_WRITE, 0};
	offer(ring_of(VIRTIO_BALLOON_VQ_FREE_PAGE), d + 1, 1);
	offer(ring_of(VIRTIO_BALLOON_VQ_FREE_PAGE), d, 13);
	offer(ring_of(VIRTIO_BALLOON_VQ_FREE_PAGE), &stop, 1);
}

static void check_hints(void)
{
	check_returned(ring_of(VIRTIO_BALLOON_VQ_FREE_PAGE), 4);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_FREE_PAGE], 4);
	assert_int_equal(t.b.st.hint.state, BALLOON_HINT_FINISHED);
	assert_int_equal(t.b.st.hinted_bytes, 13 * 4 * MIB);
	assert_int_equal(t.b.hints.count, 12 * 4 * MIB / PAGE);
	assert_true(pageset_all(&t.b.hints, 0, 1024, 12 * 1024));
	check_discarded(0, 0);
}

/* 192 MiB in one report, more than a turn does, between two small ones. */
static void prepare_reports(void)
{
	const struct test_desc small[] = {{0, MIB, VRING_DESC_F_WRITE, 0},
					  {193 * MIB, MIB, VRING_DESC_F_WRITE, 0}};
	struct test_desc d[12];

	t.any_page = true;
	for (uint32_t i = 0; i < 12; i++)
		d[i] = (struct test_desc){MIB + i * 16 * MIB, 16 * MIB, VRING_DESC_F_WRITE, 0};
	offer(ring_of(VIRTIO_BALLOON_VQ_REPORTING), small, 1);
	offer(ring_of(VIRTIO_BALLOON_VQ_REPORTING), d, 12);
	offer(ring_of(VIRTIO_BALLOON_VQ_REPORTING), small + 1, 1);
}

static void check_reports(void)
{
	check_returned(ring_of(VIRTIO_BALLOON_VQ_REPORTING), 3);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_REPORTING], 3);
	assert_int_equal(t.b.st.reported_bytes, 194 * MIB);
	check_discarded(0, 194 * MIB / PAGE);
	check_held(0, 0);
}

/* Each of them takes the target down by a step of 16 pages. */
static void prepare_messages(void)
{
	const struct test_desc d = {TEST_BUFFER, 8, 0, 0};

	balloon_set_target(&t.b, 512);
	offer_pfns(VIRTIO_BALLOON_VQ_INFLATE);
	work();
	check_returned(VIRTIO_BALLOON_VQ_INFLATE, 3);
	n_sent = 0;
	le32_put(t.queues + TEST_BUFFERS, VIRTIO_BALLOON_MSG_PRESSURE);
	le32_put(t.queues + TEST_BUFFERS + 4, VIRTIO_BALLOON_PRESSURE_LOW);
	for (uint32_t i = 0; i < 4; i++)
		offer(ring_of(VIRTIO_BALLOON_VQ_MESSAGE), &d, 1);
}

static void check_messages(void)
{
	check_returned(ring_of(VIRTIO_BALLOON_VQ_MESSAGE), 4);
	assert_int_equal(t.b.st.num_pages, 512 - 4 * 16);
	assert_int_equal(t.b.st.pressure.messages[VIRTIO_BALLOON_PRESSURE_LOW], 4);
	assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_MESSAGE], 4);
}

static void at_every_action(void (*prepare)(void), void (*check)(void))
{
	static const uint32_t second[] = {0, 1, 2, 3, 5, 8};
	static const uint64_t rings[] = {0, PACKED, EVENT, PACKED | EVENT};

	for (size_t r = 0; r < ARRAY_SIZE(rings); r++) {
		for (size_t i = 0; i < ARRAY_SIZE(second); i++) {
			bool died = true;

			for (uint32_t first = 1; died; first++) {
				assert_true(first < 1000);
				begin(ALL | rings[r]);
				n_sent = 0;
				prepare();
				died = work_and_die(first, second[i]);
				check();
				check_errors();
				end();
			}
		}
	}
}

#define TEST_AT_EVERY_ACTION(what)                             \
	static void what(void **state)                         \
	{                                                      \
		(void)state;                                   \
		at_every_action(prepare_##what, check_##what); \
	}

TEST_AT_EVERY_ACTION(inflate)
TEST_AT_EVERY_ACTION(deflate)
TEST_AT_EVERY_ACTION(sweep)
TEST_AT_EVERY_ACTION(pull)
TEST_AT_EVERY_ACTION(request)
TEST_AT_EVERY_ACTION(push)
TEST_AT_EVERY_ACTION(hints)
TEST_AT_EVERY_ACTION(reports)
TEST_AT_EVERY_ACTION(messages)

/* What it knew of rings and queues is not worked out anew: some may be stopped just then. */
static void roles_are_kept(void **state)
{
	(void)state;
	begin(MTH | STATS | MESSAGE);
	test_balloon_pause(&t, 2);
	save();
	succeed();
	assert_int_equal(balloon_queue_of(&t.b, 2), VIRTIO_BALLOON_VQ_STATS);
	assert_int_equal(balloon_queue_of(&t.b, 3), VIRTIO_BALLOON_VQ_MESSAGE);
	n_sent = 0;
	le32_put(t.queues + TEST_BUFFERS, VIRTIO_BALLOON_MSG_RELIEVED);
	offer(3, &(const struct test_desc){TEST_BUFFER, 4, 0, 0}, 1);
	work();
	check_returned(3, 1);
	test_balloon_resume(&t, 2);
	assert_int_equal(balloon_queue_of(&t.b, 2), VIRTIO_BALLOON_VQ_STATS);
	end();
}

/* The buffer that is here comes again to the successor. What it holds is as old as it was. */
static void held_buffer_is_old(void **state)
{
	(void)state;
	begin(MTH | STATS);
	n_sent = 0;
	offer_stats(77);
	assert_false(balloon_queue_run(&t.b, 2, test_at(5)));
	save();
	for (uint32_t i = 0; i < 3; i++) {
		succeed();
		work();
		assert_true(t.b.st.stats_held);
		assert_int_equal(t.events[BALLOON_EVENT_STATS], 1);
		assert_int_equal(t.b.st.stats.arrived.mono_ms, 5);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_STATS_TWICE], 0);
		assert_int_equal(t.b.st.buffers[VIRTIO_BALLOON_VQ_STATS], 1);
		check_returned(2, 0);
	}
	end();
}

/* A ring that had broken stays so, and its successor does not report it once more. */
static void broken_ring(void **state)
{
	const struct test_desc d = {1ULL << 50, 4, 0, 0};

	(void)state;
	begin(MTH | STATS);
	n_sent = 0;
	offer(VIRTIO_BALLOON_VQ_INFLATE, &d, 1);
	work();
	assert_int_equal(t.broken[VIRTIO_BALLOON_VQ_INFLATE], 1);
	succeed();
	work();
	assert_int_equal(t.ring[VIRTIO_BALLOON_VQ_INFLATE].vq.st.error, VQ_ERR_ADDRESS);
	assert_int_equal(t.broken[VIRTIO_BALLOON_VQ_INFLATE], 1);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_BROKEN], 1);
	check_returned(VIRTIO_BALLOON_VQ_DEFLATE, 0);
	end();
}

/* One that kills whoever serves it is given up, and told of; the others go on. */
static void given_up(void **state)
{
	(void)state;
	begin(MTH | STATS);
	n_sent = 0;
	offer_pfns(VIRTIO_BALLOON_VQ_INFLATE);
	save();
	succeed();
	balloon_give_up_ring(&t.b, VIRTIO_BALLOON_VQ_INFLATE, VQ_ERR_LOOP);
	work();
	assert_int_equal(t.broken[VIRTIO_BALLOON_VQ_INFLATE], 1);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_BROKEN], 1);
	assert_int_equal(balloon_held_bytes(&t.b), 0);
	n_sent = 0;
	offer_stats(5);
	work();
	assert_true(t.b.st.stats_held);
	end();
}

/* What is wrong is still counted, from the second batch after the death on. */
static void errors_after_restore(void **state)
{
	(void)state;
	begin(MTH);
	t.hook = NULL;
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 0, 8);
	save();
	succeed();
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 100, 8);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_DOUBLE], 0);
	test_send_run(&t, VIRTIO_BALLOON_VQ_INFLATE, 100, 8);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_DOUBLE], 8);
	test_send_run(&t, VIRTIO_BALLOON_VQ_DEFLATE, 100, 8);
	test_send_run(&t, VIRTIO_BALLOON_VQ_DEFLATE, 100, 8);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_NOT_HELD], 8);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inflate),
		cmocka_unit_test(deflate),
		cmocka_unit_test(sweep),
		cmocka_unit_test(pull),
		cmocka_unit_test(request),
		cmocka_unit_test(push),
		cmocka_unit_test(hints),
		cmocka_unit_test(reports),
		cmocka_unit_test(messages),
		cmocka_unit_test(roles_are_kept),
		cmocka_unit_test(held_buffer_is_old),
		cmocka_unit_test(broken_ring),
		cmocka_unit_test(given_up),
		cmocka_unit_test(errors_after_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
