// SPDX-License-Identifier: MIT
/* A balloon's state as a stream: all of it arrives, in pieces of any size, and the guest goes on.
 */
#include "snapshot_helpers.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH    BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define MESSAGE BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define POISON  BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define GUEST   1024U /* pages of guest memory */

static struct test_balloon t, u; /* here and there */
static struct stream s;
static struct load l;

static const size_t pieces[] = {1, 7, 16, 4096, STREAM_MAX / 2};

/* Guest memory of GUEST pages at GPA 0, in n regions of the same size. */
static void begin(struct test_balloon *b, uint64_t offered, uint32_t n)
{
	test_balloon_init(b, offered);
	for (uint32_t i = 0; i < n; i++)
		test_add_region(&b->mem, i * (GUEST / n) * PAGE, GUEST / n * PAGE, PAGE, b->queues);
}

static struct balloon_state some_state(void)
{
	struct balloon_state st = {
		.negotiated = V1 | STATS | PUSH,
		.wanted_pages = 0x123456789aULL,
		.num_pages = 0x30,
		.actual = 0x12345,
		.actual_written = 0x22345,
		.poison_val = 0xaaaaaaaa,
		.ring_of = {0, 1, 2, -1, -1, 3},
		.fresh_rings = 1U << 5,
		.stats_awaited = true,
		.stats_skip = true,
		.poll_interval_ms = 60000,
		.poll_due_ms = 1000 + 777,
		.push_interval_ms = 10,
		.unknown_tags = 21,
		.inflated_pages = 1ULL << 40,
		.deflated_pages = 3,
		.reported_bytes = 4,
		.hinted_bytes = 5,
		.kept_bytes = 6,
		.freed_bytes = UINT64_MAX,
		.message_due_ms = 1000 + 5,
		.stats = {.set = 0x8001, .ever = true, .arrived = {600, -5}},
		.pressure = {.ever = true,
			     .type = VIRTIO_BALLOON_MSG_RELIEVED,
			     .level = VIRTIO_BALLOON_PRESSURE_MEDIUM,
			     .arrived = {999, INT64_MAX},
			     .relieved = 31,
			     .unknown = 32},
		.hint = {BALLOON_HINT_HINTING, 9, UINT32_MAX},
	};

	for (uint32_t i = 0; i < VIRTIO_BALLOON_S_NR; i++)
		st.stats.value[i] = i * 0x1111111111ULL;
	for (uint32_t i = 0; i < BALLOON_ERR_COUNT; i++)
		st.errors[i] = 100 + i;
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++) {
		st.buffers[i] = 200 + i;
		st.resume[i] = 300 + i;
	}
	for (uint32_t i = 0; i < VIRTIO_BALLOON_PRESSURE_NR; i++)
		st.pressure.messages[i] = 400 + i;
	return st;
}

/* Every number that is to arrive does; the clock of the other host has another origin. */
static void every_field(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces) * ARRAY_SIZE(pieces); i++) {
		struct balloon_state st = some_state();

		begin(&t, ~0ULL, 1);
		t.b.st = st;
		t.b.st.offered = 77; /* these stay behind */
		t.b.st.inhibited = true;
		t.b.st.stats_held = true;
		t.b.st.message_rate.passed = t.b.st.push_rate.passed = 5;
		t.b.st.sweep.active = true;
		stream_save(&s, &t.b, test_at(1000), pieces[i % ARRAY_SIZE(pieces)]);
		assert_int_equal(
			stream_load(&s, &l, test_at(50000), pieces[i / ARRAY_SIZE(pieces)]), 0);
		st.poll_due_ms += 49000;
		st.message_due_ms += 49000;
		st.stats.arrived.mono_ms += 49000;
		st.pressure.arrived.mono_ms += 49000;
		assert_memory_equal(&l.r.snap.st, &st, sizeof(st));
		assert_null(l.map); /* nothing is held: no room is asked for */
		assert_int_equal(l.r.snap.held.count, 0);
		load_free(&l);
		test_balloon_end(&t);
	}
}

static void times(void **state)
{
	(void)state;
	begin(&t, ~0ULL, 1);
	t.b.st.stats.arrived = test_at(1000);
	t.b.st.poll_due_ms = 300;
	t.b.st.message_due_ms = 400;
	stream_save(&s, &t.b, test_at(500), 64);
	/* A host that has just started: as old as it can tell. What was due is due. */
	assert_int_equal(stream_load(&s, &l, test_at(3), 64), 0);
	assert_int_equal(l.r.snap.st.stats.arrived.mono_ms, 3); /* it came from the future */
	assert_int_equal(l.r.snap.st.poll_due_ms, 3);
	assert_int_equal(l.r.snap.st.message_due_ms, 3);
	t.b.st.stats.arrived = test_at(100);
	stream_save(&s, &t.b, test_at(500), 64);
	assert_int_equal(stream_load(&s, &l, test_at(3), 64), 0);
	assert_int_equal(l.r.snap.st.stats.arrived.mono_ms, 0);
	assert_int_equal(l.r.snap.st.stats.arrived.wall_us, 100000);
	/* None waits: none does there. */
	t.b.st.message_due_ms = 0;
	stream_save(&s, &t.b, test_at(500), 64);
	assert_int_equal(stream_load(&s, &l, test_at(3), 64), 0);
	assert_int_equal(l.r.snap.st.message_due_ms, 0);
	test_balloon_end(&t);
}

static uint64_t seed = 88172645463325252ULL;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Fills a region, from a page on, in one of several manners. */
static void fill(struct pageset *set, uint32_t region, uint32_t manner)
{
	uint64_t pages = set->at.region[region].pages;

	for (uint64_t page = 0; page < pages;) {
		uint64_t n = 1, gap = 1;

		if (manner == 0) /* all of it */
			n = pages;
		else if (manner == 1) /* every other page */
			gap = 1;
		else if (manner == 2) /* whole words, here and there */
			gap = 64 * (next_random() % 20), n = 64 * (next_random() % 20 + 1);
		else if (manner == 3) /* one page in a long while */
			page += next_random() % 3000, gap = next_random() % 3000;
		else if (manner == 4) /* the first and the last */
			gap = pages > 2 ? pages - 2 : 0;
		else /* anything */
			n = next_random() % 700 + 1, gap = next_random() % 700;
		if (page >= pages)
			break;
		n = min_u64(n, pages - page);
		pageset_set(set, region, page, n);
		page += n + gap;
	}
}

static void check_same(const struct pageset *a, const struct pageset *b)
{
	uint32_t k = 0;

	assert_int_equal(a->count, b->count);
	for (uint32_t i = 0; i < a->at.n; i++) {
		uint64_t n = bitmap_words(a->at.region[i].pages), page = 0, run;

		if (!pageset_next_run(a, i, &page, &run))
			continue;
		assert_int_equal(a->at.region[i].first_pfn, b->at.region[k].first_pfn);
		assert_int_equal(a->at.region[i].pages, b->at.region[k].pages);
		assert_memory_equal(a->map + a->at.region[i].first_bit / 64,
				    b->map + b->at.region[k].first_bit / 64, n * 8);
		k++;
	}
	assert_int_equal(k, b->at.n);
}

/* Bitmaps of all kinds, in regions of awkward sizes. */
static void bitmaps(void **state)
{
	static const uint64_t sizes[] = {1, 63, 64, 65, 4096, 100001, 70000, 640};

	(void)state;
	for (uint32_t manner = 0; manner < 60; manner++) {
		test_balloon_init(&t, 0);
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			test_add_region(&t.mem, BIT(30) * i + PAGE / 2, (sizes[i] + 1) * PAGE, PAGE,
					t.queues);
		test_balloon_memory(&t);
		for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			uint32_t m = manner < 6 ? manner : (uint32_t)(next_random() % 8);

			assert_int_equal(t.b.held.at.region[i].pages, sizes[i]);
			if (m < 6)
				fill(&t.b.held, i, m);
		}
		stream_save(&s, &t.b, test_at(0), pieces[manner % ARRAY_SIZE(pieces)]);
		assert_int_equal(
			stream_load(&s, &l, test_at(0), pieces[manner / 2 % ARRAY_SIZE(pieces)]),
			0);
		check_same(&t.b.held, &l.r.snap.held);
		if (manner == 0) /* a balloon that is full takes no room to speak of */
			assert_in_range(s.len, 1, 2048);
		load_free(&l);
		test_balloon_end(&t);
	}
}

/* Regions end where page frame numbers do. */
static void memory_beyond_page_frame_numbers(void **state)
{
	(void)state;
	test_balloon_init(&t, 0);
	test_add_region(&t.mem, (SNAPSHOT_PFN_END - 10) * PAGE, 20 * PAGE, PAGE, t.queues);
	test_add_region(&t.mem, (SNAPSHOT_PFN_END + 10) * PAGE, 20 * PAGE, PAGE, t.queues);
	test_balloon_memory(&t);
	pageset_set(&t.b.held, 1, 3, 7);
	stream_save(&s, &t.b, test_at(0), 100);
	assert_int_equal(stream_load(&s, &l, test_at(0), 100), 0);
	assert_int_equal(l.r.snap.held.at.n, 1);
	assert_int_equal(l.r.snap.held.at.region[0].pages, 10);
	assert_int_equal(l.r.snap.held.count, 7);
	load_free(&l);
	test_balloon_end(&t);
}

/* The source: a guest at work, then paused. The destination: a device without a session. */
static void move(uint64_t features, uint64_t offered_there, uint32_t regions_there)
{
	for (uint32_t ring = 0; ring < TEST_RINGS; ring++) {
		if (vq_started(t.b.vq[ring]))
			test_balloon_pause(&t, ring);
	}
	stream_save(&s, &t.b, test_at(1000), 100);
	begin(&u, offered_there, regions_there);
	u.features = features;
	assert_int_equal(stream_load(&s, &l, test_at(1000), 100), 0);
}

/* All rings of the source start at the destination, in the same guest memory. */
static void go_on(void)
{
	memcpy(u.queues, t.queues, TEST_ROOM);
	for (uint32_t ring = 0; ring < TEST_RINGS; ring++) {
		uint8_t *old = t.queues, *new = u.queues;

		if (!t.ring[ring].vq.st.size)
			continue;
		u.ring[ring] = t.ring[ring];
		u.ring[ring].desc += new - old;
		u.ring[ring].driver += new - old;
		u.ring[ring].device += new - old;
		assert_int_equal(vq_start(&u.ring[ring].vq, &u.mem), 0);
		balloon_queue_started(&u.b, ring, true);
	}
}

/* The guest deflates what it inflated on the other host, and inflates again. */
static void guest_goes_on(void **state)
{
	static const uint64_t features[] = {V1 | MTH, V1 | MTH | BIT(VIRTIO_F_RING_PACKED)};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		begin(&t, 0, 1);
		test_balloon_start(&t, features[i]);
		balloon_set_target(&t.b, 512);
		test_send_run(&t, INFLATE, 0, 512);
		test_send_run(&t, DEFLATE, 100, 12);
		t.b.st.actual = 500;
		move(features[i], 0, 2);
		assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
		test_balloon_memory(&u);
		load_free(&l);
		assert_int_equal(balloon_set_features(&u.b, features[i]), 0);
		go_on();
		assert_int_equal(u.b.st.num_pages, 512);
		assert_int_equal(u.b.st.actual, 500);
		assert_int_equal(balloon_held_bytes(&u.b), 500 * PAGE);
		assert_int_equal(u.b.st.inflated_pages, 512);
		test_send_run(&u, DEFLATE, 400, 112);
		test_send_run(&u, INFLATE, 100, 12);
		test_send_run(&u, INFLATE, 510, 4); /* across the border of regions */
		assert_int_equal(balloon_held_bytes(&u.b), 404 * PAGE);
		for (uint32_t e = 0; e < BALLOON_ERR_COUNT; e++)
			assert_int_equal(u.b.st.errors[e], 0);
		test_balloon_end(&t);
		test_balloon_end(&u);
	}
}

/* A front end that names its regions one by one: none of what is held is lost on the way. */
static void memory_piece_by_piece(void **state)
{
	struct guest_mem whole;

	(void)state;
	begin(&t, 0, 1);
	test_balloon_start(&t, V1 | MTH);
	test_send_run(&t, INFLATE, 0, 1024);
	test_send_run(&t, DEFLATE, 200, 600);
	move(V1 | MTH, 0, 4);
	whole = u.mem;
	u.mem.n = 0;
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
	test_balloon_memory(&u);
	assert_int_equal(u.b.held.count, 0);
	for (uint32_t i = 0; i < whole.n; i++) {
		u.mem = whole;
		u.mem.n = i + 1;
		snapshot_hold(&l.r.snap, &u.b);
		test_balloon_memory(&u);
	}
	assert_int_equal(u.b.held.count, 424);
	load_free(&l);
	go_on();
	test_send_run(&u, DEFLATE, 0, 200);
	test_send_run(&u, DEFLATE, 800, 224);
	assert_int_equal(u.b.st.errors[BALLOON_ERR_NOT_HELD], 0);
	assert_int_equal(u.b.held.count, 0);
	test_balloon_end(&t);
	test_balloon_end(&u);
}

/* A long buffer of which a part is done: the rest is done over there, and nothing twice. */
static void buffer_half_done(void **state)
{
	const uint32_t n = 60000; /* page frame numbers, the guest's pages over and over */
	uint32_t id, len;
	uint64_t done;

	(void)state;
	begin(&t, 0, 1);
	test_balloon_start(&t, V1 | MTH);
	t.any_page = true;
	for (uint32_t i = 0; i < n; i++)
		le32_put(t.queues + TEST_BUFFERS + (size_t)i * 4, i % GUEST);
	test_offer_one(&t.ring[INFLATE], TEST_BUFFER, n * 4);
	assert_true(balloon_queue_run(&t.b, INFLATE, test_at(0)));
	done = t.b.st.inflated_pages;
	assert_in_range(done, 1, n - 1);
	move(V1 | MTH, 0, 1);
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
	test_balloon_memory(&u);
	load_free(&l);
	go_on();
	while (balloon_queue_run(&u.b, INFLATE, test_at(0)))
		u.n_ranges = 0;
	assert_true(test_take_used(&u.ring[INFLATE], &id, &len));
	assert_int_equal(u.b.st.inflated_pages + u.b.st.errors[BALLOON_ERR_DUPLICATE], n);
	assert_int_equal(balloon_held_bytes(&u.b), GUEST * PAGE);
	test_balloon_end(&t);
	test_balloon_end(&u);
}

/* What is this host's own stays; what the guest was told comes along. */
static void what_stays(void **state)
{
	uint8_t config[20];

	(void)state;
	begin(&t, ~0ULL, 1);
	t.b.st = some_state();
	move(t.b.st.negotiated, STATS | PUSH | POISON, 1);
	u.b.st.inhibited = true;
	u.mem.n = 0;
	test_balloon_memory(&u); /* as at the end of a session */
	u.config_changes = 0;
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
	assert_true(u.b.st.inhibited);
	assert_true(u.b.st.offered & POISON);
	assert_false(u.b.st.offered & BIT(VIRTIO_BALLOON_F_MESSAGE_VQ));
	assert_int_equal(u.events[BALLOON_EVENT_ACTUAL], 1);
	/* Before memory is known the guest's idea of the target is the one that holds. */
	balloon_config_read(&u.b, 0, config, sizeof(config));
	assert_int_equal(le32_get(config), 0x30);
	assert_int_equal(le32_get(config + 8), 9);
	assert_int_equal(le32_get(config + 16), 10);
	assert_int_equal(u.config_changes, 0);
	test_balloon_end(&t);
	test_balloon_end(&u);
}

/* With memory known already, the target is what that allows. */
static void target_of_known_memory(void **state)
{
	(void)state;
	begin(&t, 0, 1);
	t.b.st.wanted_pages = 1ULL << 40;
	t.b.st.num_pages = 16;
	t.b.st.ring_of[0] = 0;
	move(0, 0, 1);
	test_balloon_memory(&u);
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
	assert_int_equal(u.b.st.num_pages,
			 align_down((GUEST * PAGE + TEST_ROOM) / PAGE, BALLOON_TARGET_STEP));
	assert_int_equal(u.config_changes, 1);
	test_balloon_end(&t);
	test_balloon_end(&u);
}

static void features_that_do_not_fit(void **state)
{
	struct balloon_state before;

	(void)state;
	begin(&t, MESSAGE, 1);
	t.b.st.negotiated = V1 | MESSAGE;
	move(V1 | MESSAGE, STATS, 1);
	before = u.b.st;
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), -ENOTSUP);
	assert_memory_equal(&u.b.st, &before, sizeof(before));
	test_balloon_end(&u);
	begin(&u, MESSAGE, 1);
	assert_int_equal(balloon_set_features(&u.b, V1), 0);
	before = u.b.st;
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), -EINVAL);
	assert_memory_equal(&u.b.st, &before, sizeof(before));
	assert_int_equal(balloon_set_features(&u.b, V1 | MESSAGE), 0);
	assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
	test_balloon_end(&t);
	test_balloon_end(&u);
}

/* Memory that came along for nothing goes back: unless something speaks against it. */
static void held_memory_goes_back(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t poison;
		bool inhibited, goes;
	} cases[] = {
		{V1 | MTH, 0, false, true},           {V1, 0, false, false},
		{V1 | MTH | POISON, 1, false, false}, {V1 | MTH | POISON, 0, false, true},
		{V1 | MTH, 0, true, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(&t, POISON, 1);
		test_balloon_start(&t, cases[i].features);
		test_send_run(&t, INFLATE, 7, 100);
		t.b.st.poison_val = cases[i].poison;
		move(cases[i].features, POISON, 1);
		u.b.st.inhibited = cases[i].inhibited;
		assert_int_equal(snapshot_apply(&l.r.snap, &u.b), 0);
		test_balloon_memory(&u);
		snapshot_hold(&l.r.snap, &u.b);
		test_balloon_memory(&u);
		load_free(&l);
		go_on();
		balloon_tick(&u.b, test_at(1000));
		assert_int_equal(u.n_ranges, cases[i].goes);
		assert_int_equal(u.b.st.kept_bytes, 0);
		if (cases[i].goes) {
			assert_int_equal(u.range[0].offset, 7 * PAGE);
			assert_int_equal(u.range[0].len, 100 * PAGE);
		}
		test_balloon_end(&t);
		test_balloon_end(&u);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field),
		cmocka_unit_test(times),
		cmocka_unit_test(bitmaps),
		cmocka_unit_test(memory_beyond_page_frame_numbers),
		cmocka_unit_test(guest_goes_on),
		cmocka_unit_test(memory_piece_by_piece),
		cmocka_unit_test(buffer_half_done),
		cmocka_unit_test(what_stays),
		cmocka_unit_test(target_of_known_memory),
		cmocka_unit_test(features_that_do_not_fit),
		cmocka_unit_test(held_memory_goes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
