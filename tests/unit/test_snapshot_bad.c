// SPDX-License-Identifier: MIT
/* Streams that are cut, damaged or made up: each is refused, with a reason, before it can matter.
 */
#include "snapshot_helpers.h"

#include "balloon/snapshot_format.h"

static struct test_balloon t;
static struct stream good, s;
static struct load l;

/* Regions: pages 0 to 99, 0x400 to 0x400 + 639, 0x1000 to 0x1000 + 4095. Held: see below. */
static void make(void)
{
	test_balloon_init(&t, ~0ULL);
	test_add_region(&t.mem, 0, 100 * PAGE, PAGE, t.queues);
	test_add_region(&t.mem, 0x400 * PAGE, 640 * PAGE, PAGE, t.queues);
	test_add_region(&t.mem, 0x1000 * PAGE, 4096 * PAGE, PAGE, t.queues);
	test_balloon_memory(&t);
	t.b.st.ring_of[VIRTIO_BALLOON_VQ_STATS] = 2;
	t.b.st.ring_of[VIRTIO_BALLOON_VQ_MESSAGE] = 3;
	t.b.st.stats.set = 7;
	pageset_set(&t.b.held, 0, 5, 90);    /* literal: 2 words */
	pageset_set(&t.b.held, 1, 0, 640);   /* all set: 10 words */
	pageset_set(&t.b.held, 2, 1, 1);     /* literal: word 0 */
	pageset_set(&t.b.held, 2, 4000, 96); /* literal: words 62 and 63 */
	stream_save(&good, &t.b, test_at(1000), 4096);
	test_balloon_end(&t);
}

static int load(void)
{
	int r = stream_load(&s, &l, test_at(1000), 4096);

	load_free(&l);
	return r;
}

static void refused(int result, const char *error)
{
	assert_int_equal(load(), result);
	assert_string_equal(l.r.error, error);
	/* And it stays so. */
	assert_int_equal(snapshot_write(&l.r, s.bytes, 1), result);
	assert_int_equal(snapshot_finish(&l.r), result);
}

static void cut_anywhere(void **state)
{
	(void)state;
	s = good;
	assert_int_equal(load(), 0);
	for (size_t len = 0; len < good.len; len++) {
		s.len = len;
		refused(-EBADMSG, "it ends too early");
	}
}

static void any_bit_flipped(void **state)
{
	(void)state;
	s = good;
	for (size_t bit = 0; bit < good.len * 8; bit++) {
		s.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_true(load() < 0);
		assert_non_null(l.r.error);
		s.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
}

static void goes_on_after_its_end(void **state)
{
	(void)state;
	s = good;
	s.bytes[s.len++] = 0;
	refused(-EBADMSG, "something comes after its end");
}

static void other_beginnings(void **state)
{
	(void)state;
	s = good;
	s.bytes[7] = 'S';
	refused(-EBADMSG, "it is no state of a balloon");
	for (uint32_t version = 0; version < 4; version++) {
		s = good;
		le32_put(s.bytes + 8, version);
		stream_seal(&s);
		if (version == SNAPSHOT_VERSION)
			assert_int_equal(load(), 0);
		else
			refused(-EPROTONOSUPPORT, "it is of another version");
	}
	s = good;
	s.bytes[12] = 1;
	stream_seal(&s);
	refused(-EPROTONOSUPPORT, "it is of another version");
}

static void no_room(void **state)
{
	(void)state;
	s = good;
	l.refuse = true;
	refused(-ENOMEM, "no room for the bitmap");
	l.refuse = false;
}

/* Of a section's numbers, at an offset in its body, one is another; the checksum is right. */
static void wrong_numbers(void **state)
{
	static const char rings[] = "rings are numbered as none are",
			  regions[] = "memory regions overlap, or are none",
			  queues[] = "more queues than there are",
			  length[] = "a section has a length that it cannot have",
			  order[] = "bitmap is out of order",
			  past[] = "bitmap reaches past its region",
			  beyond[] = "pages are held that are in no region",
			  match[] = "bitmap does not match its length",
			  count[] = "another number of pages is held than it says",
			  poll[] = "poll interval makes no sense",
			  stats[] = "statistics make no sense",
			  pressure[] = "pressure makes no sense", counters[] = "too many counters";
	static const struct {
		uint32_t kind, nth, at, bytes;
		uint64_t value;
		const char *error; /* NULL: this is fine */
	} cases[] = {
		{SNAPSHOT_DEVICE, 0, 32, 4, 9, "push interval is too short"},
		{SNAPSHOT_DEVICE, 0, 32, 4, 10, NULL},
		{SNAPSHOT_DEVICE, 0, 32, 4, UINT32_MAX, NULL},
		{SNAPSHOT_DEVICE, 0, 40, 8, BIT(48), NULL},
		{SNAPSHOT_DEVICE, 0, 40, 8, BIT(48) + 1, poll},
		{SNAPSHOT_DEVICE, 0, 48, 8, BIT(48), NULL},
		{SNAPSHOT_DEVICE, 0, 48, 8, UINT64_MAX, poll},
		{SNAPSHOT_QUEUES, 0, 0, 4, 63, NULL},
		{SNAPSHOT_QUEUES, 0, 0, 4, 64, queues},
		{SNAPSHOT_QUEUES, 0, 4, 4, 7, queues},
		{SNAPSHOT_QUEUES, 0, 4, 4, UINT32_MAX, queues},
		{SNAPSHOT_QUEUES, 0, 4, 4, 5, length},
		{SNAPSHOT_QUEUES, 0, 4, 4, 0, rings},
		{SNAPSHOT_QUEUES, 0, 8, 4, 1, rings},
		{SNAPSHOT_QUEUES, 0, 8, 4, UINT32_MAX, rings},
		{SNAPSHOT_QUEUES, 0, 24, 4, 2, rings},
		{SNAPSHOT_QUEUES, 0, 24, 4, UINT32_MAX, rings},
		{SNAPSHOT_QUEUES, 0, 40, 4, 1, rings},
		{SNAPSHOT_QUEUES, 0, 40, 4, 3, rings},
		{SNAPSHOT_QUEUES, 0, 40, 4, UINT32_MAX, NULL},
		{SNAPSHOT_QUEUES, 0, 88, 4, 5, NULL},
		{SNAPSHOT_QUEUES, 0, 88, 4, 6, rings},
		{SNAPSHOT_QUEUES, 0, 88, 4, 0x80000000, rings},
		{SNAPSHOT_QUEUES, 0, 16, 8, BIT(32), NULL},
		{SNAPSHOT_QUEUES, 0, 16, 8, BIT(32) + 1, "more is done of a buffer than any has"},
		{SNAPSHOT_STATS, 0, 0, 4, 8, stats},
		{SNAPSHOT_STATS, 0, 4, 4, 65, stats},
		{SNAPSHOT_STATS, 0, 4, 4, UINT32_MAX, stats},
		{SNAPSHOT_STATS, 0, 4, 4, 64, length},
		{SNAPSHOT_STATS, 0, 4, 4, 15, length},
		{SNAPSHOT_STATS, 0, 8, 8, UINT64_MAX, NULL},
		{SNAPSHOT_STATS, 0, 24, 8, 0xffff, NULL},
		{SNAPSHOT_STATS, 0, 24, 8, 0x10000, "statistics are set that are not there"},
		{SNAPSHOT_STATS, 0, 24, 8, BIT(63), "statistics are set that are not there"},
		{SNAPSHOT_HINT, 0, 0, 4, 4, NULL},
		{SNAPSHOT_HINT, 0, 0, 4, 5, "free page hinting is in no state that there is"},
		{SNAPSHOT_HINT, 0, 0, 4, UINT32_MAX,
		 "free page hinting is in no state that there is"},
		{SNAPSHOT_PRESSURE, 0, 0, 4, 1, pressure}, /* of which type 0 is none */
		{SNAPSHOT_PRESSURE, 0, 0, 4, 2, pressure},
		{SNAPSHOT_PRESSURE, 0, 8, 4, 3, NULL},
		{SNAPSHOT_PRESSURE, 0, 8, 4, 4, pressure},
		{SNAPSHOT_PRESSURE, 0, 32, 8, BIT(48) + 1, NULL},
		{SNAPSHOT_PRESSURE, 0, 32, 8, BIT(48) + 2, "a message waits for ever"},
		{SNAPSHOT_PRESSURE, 0, 32, 8, UINT64_MAX, "a message waits for ever"},
		{SNAPSHOT_REGIONS, 0, 0, 4, 65, "too many memory regions"},
		{SNAPSHOT_REGIONS, 0, 0, 4, UINT32_MAX, "too many memory regions"},
		{SNAPSHOT_REGIONS, 0, 0, 4, 64, length},
		{SNAPSHOT_REGIONS, 0, 0, 4, 4, length},
		{SNAPSHOT_REGIONS, 0, 0, 4, 2, length},
		{SNAPSHOT_REGIONS, 0, 8, 8, 0x400 - 100, NULL},
		{SNAPSHOT_REGIONS, 0, 8, 8, 0x400 - 99, regions},
		{SNAPSHOT_REGIONS, 0, 16, 8, 0, regions},
		{SNAPSHOT_REGIONS, 0, 16, 8, UINT64_MAX, regions},
		{SNAPSHOT_REGIONS, 0, 24, 8, 99, regions},
		{SNAPSHOT_REGIONS, 0, 24, 8, 100, NULL},
		{SNAPSHOT_REGIONS, 0, 40, 8, UINT64_MAX - 4094, regions},
		{SNAPSHOT_REGIONS, 0, 40, 8, BIT(32) - 4096, NULL},
		{SNAPSHOT_REGIONS, 0, 40, 8, BIT(32) - 4095, regions},
		{SNAPSHOT_REGIONS, 0, 40, 8, BIT(32), regions},
		{SNAPSHOT_REGIONS, 0, 16, 8, 95, NULL},
		{SNAPSHOT_REGIONS, 0, 16, 8, 94, beyond},
		{SNAPSHOT_REGIONS, 0, 16, 8, 64, past},
		{SNAPSHOT_REGIONS, 0, 32, 8, 639, beyond}, /* of which all are set */
		{SNAPSHOT_REGIONS, 0, 32, 8, 576, past},
		{SNAPSHOT_HELD, 0, 0, 4, 3, order},
		{SNAPSHOT_HELD, 0, 0, 4, UINT32_MAX, order},
		{SNAPSHOT_HELD, 0, 0, 4, 2, order}, /* what comes then is below it */
		{SNAPSHOT_HELD, 1, 0, 4, 0, order},
		{SNAPSHOT_HELD, 0, 4, 4, 0, beyond},
		{SNAPSHOT_HELD, 0, 4, 4, 2, "bitmap has a form that is none"},
		{SNAPSHOT_HELD, 1, 4, 4, 1, match},
		{SNAPSHOT_HELD, 0, 8, 8, 1, past},
		{SNAPSHOT_HELD, 0, 8, 8, UINT64_MAX, past},
		{SNAPSHOT_HELD, 3, 8, 8, 0, order},
		{SNAPSHOT_HELD, 3, 8, 8, 1, NULL},
		{SNAPSHOT_HELD, 3, 8, 8, 63, past},
		{SNAPSHOT_HELD, 0, 16, 8, 0, past},
		{SNAPSHOT_HELD, 0, 16, 8, 1, match},
		{SNAPSHOT_HELD, 1, 16, 8, 11, past},
		{SNAPSHOT_HELD, 1, 16, 8, UINT64_MAX, past},
		{SNAPSHOT_HELD, 1, 16, 8, 9, count},
		{SNAPSHOT_HELD, 0, 24, 8, ~0ULL << 4, count},
		{SNAPSHOT_HELD, 0, 24, 8, ~0ULL << 6 | BIT(0), NULL},
		{SNAPSHOT_HELD, 0, 32, 8, BIT(36), beyond},
		{SNAPSHOT_HELD, 0, 32, 8, BIT(63), beyond},
		{SNAPSHOT_COUNTERS, 0, 0, 4, 65, counters},
		{SNAPSHOT_COUNTERS, 0, 4, 4, UINT32_MAX, counters},
		{SNAPSHOT_COUNTERS, 0, 8, 4, 65, counters},
		{SNAPSHOT_COUNTERS, 0, 8, 4, 64, length},
		{SNAPSHOT_COUNTERS, 0, 8, 4, 3, length},
		{SNAPSHOT_END, 0, 0, 8, 0, count},
		{SNAPSHOT_END, 0, 0, 8, UINT64_MAX, count},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t value[8];
		size_t at;

		s = good;
		at = stream_find(&s, cases[i].kind, cases[i].nth) + 8 + cases[i].at;
		assert_true(at > 8 + cases[i].at);
		le64_put(value, cases[i].value);
		memcpy(s.bytes + at, value, cases[i].bytes);
		stream_seal(&s);
		if (load() != (cases[i].error ? -EBADMSG : 0) ||
		    (cases[i].error && strcmp(l.r.error, cases[i].error) != 0))
			fail_msg("case %zu: %s", i, l.r.error ? l.r.error : "accepted");
	}
}

/* A section says that it is longer or shorter than what it has to say. */
static void wrong_lengths(void **state)
{
	static const uint32_t kinds[] = {SNAPSHOT_DEVICE, SNAPSHOT_QUEUES,   SNAPSHOT_STATS,
					 SNAPSHOT_HINT,   SNAPSHOT_PRESSURE, SNAPSHOT_REGIONS,
					 SNAPSHOT_HELD,   SNAPSHOT_COUNTERS, SNAPSHOT_END};
	static const uint8_t zeros[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t at = stream_find(&good, kinds[i], 0), len = stream_section_len(&good, at);

		for (size_t cut = 1; cut <= len - 8; cut++) {
			s = good;
			stream_splice(&s, at + len - cut, cut, NULL, 0);
			le32_put(s.bytes + at + 4, (uint32_t)(len - 8 - cut));
			if (kinds[i] != SNAPSHOT_END)
				stream_seal(&s);
			assert_true(load() < 0);
		}
		s = good;
		stream_splice(&s, at + len, 0, zeros, sizeof(zeros));
		le32_put(s.bytes + at + 4, (uint32_t)len);
		if (kinds[i] != SNAPSHOT_END)
			stream_seal(&s);
		assert_true(load() < 0);
		s = good;
		le32_put(s.bytes + at + 4, SNAPSHOT_SECTION_MAX + 1);
		refused(-EBADMSG, "a section has a length that it cannot have");
		le32_put(s.bytes + at + 4, UINT32_MAX);
		refused(-EBADMSG, "a section has a length that it cannot have");
	}
}

/* Sections that are missing, come twice, or change places. */
static void order_of_sections(void **state)
{
	static const struct {
		uint32_t kind;
		const char *missing, *twice; /* NULL: may be */
	} cases[] = {
		{SNAPSHOT_DEVICE, "a section is missing", "sections are out of order"},
		{SNAPSHOT_QUEUES, "a section is missing", "sections are out of order"},
		{SNAPSHOT_STATS, "a section is missing", "sections are out of order"},
		{SNAPSHOT_HINT, "a section is missing", "sections are out of order"},
		{SNAPSHOT_PRESSURE, "a section is missing", "sections are out of order"},
		{SNAPSHOT_REGIONS, "a section is missing", "sections are out of order"},
		{SNAPSHOT_HELD, "another number of pages is held than it says",
		 "bitmap is out of order"},
		{SNAPSHOT_COUNTERS, NULL, "sections are out of order"},
		{SNAPSHOT_END, "it ends too early", "something comes after its end"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t at = stream_find(&good, cases[i].kind, 0);
		size_t len = stream_section_len(&good, at);

		s = good;
		stream_splice(&s, at, len, NULL, 0);
		if (cases[i].kind != SNAPSHOT_END)
			stream_seal(&s);
		if (cases[i].missing)
			refused(-EBADMSG, cases[i].missing);
		else
			assert_int_equal(load(), 0);
		s = good;
		stream_splice(&s, at, 0, good.bytes + at, len);
		if (cases[i].kind != SNAPSHOT_END)
			stream_seal(&s);
		refused(-EBADMSG, cases[i].twice);
		/* To the end of the stream, but before END. */
		if (cases[i].kind == SNAPSHOT_END || cases[i].kind == SNAPSHOT_COUNTERS)
			continue;
		s = good;
		stream_splice(&s, at, len, NULL, 0);
		stream_splice(&s, stream_find(&s, SNAPSHOT_END, 0), 0, good.bytes + at, len);
		stream_seal(&s);
		assert_int_equal(load(), -EBADMSG);
	}
}

/* What later versions may add, wherever it stands. */
static void unknown_sections(void **state)
{
	static uint8_t added[8 + 5000];
	static const uint32_t lengths[] = {0, 1, 8, 4999, 5000};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		memset(added, 0xee, sizeof(added));
		le32_put(added, SNAPSHOT_OPTIONAL | 1); /* not what 1 without that bit is */
		le32_put(added + 4, lengths[i]);
		for (size_t at = 16; at < good.len; at += stream_section_len(&good, at)) {
			s = good;
			stream_splice(&s, at, 0, added, 8 + lengths[i]);
			stream_seal(&s);
			assert_int_equal(load(), 0);
			assert_int_equal(l.r.snap.held.count, 90 + 640 + 1 + 96);
			le32_put(s.bytes + at, 9);
			stream_seal(&s);
			refused(-EPROTONOSUPPORT, "it has a section that is not known here");
			/* Not to be passed over by those that could, either. */
			s.bytes[at + 3] ^= 0x80;
			s.bytes[at + 8] ^= lengths[i] ? 1 : 0;
			if (lengths[i])
				refused(-EBADMSG, "checksum is wrong");
		}
	}
	/* Optional ones lose that if the bit is taken off. */
	s = good;
	le32_put(s.bytes + stream_find(&s, SNAPSHOT_COUNTERS, 0), 8);
	stream_seal(&s);
	refused(-EPROTONOSUPPORT, "it has a section that is not known here");
}

/* Statistics, errors, queues and levels of a later time: what is known here is taken. */
static void more_than_is_known(void **state)
{
	static const uint8_t value[] = {1, 2, 3, 4, 5, 6, 7, 8};
	size_t at;

	(void)state;
	s = good;
	at = stream_find(&s, SNAPSHOT_STATS, 0);
	le32_put(s.bytes + at + 8 + 4, VIRTIO_BALLOON_S_NR + 1);
	le64_put(s.bytes + at + 8 + 24, BIT(VIRTIO_BALLOON_S_NR) | 4);
	stream_splice(&s, at + stream_section_len(&s, at), 0, value, sizeof(value));
	le32_put(s.bytes + at + 4, le32_get(s.bytes + at + 4) + 8);
	at = stream_find(&s, SNAPSHOT_COUNTERS, 0);
	le64_put(s.bytes + at + 8 + 16 + 8ULL * BALLOON_ERR_COUNT, 17); /* the first of buffers */
	le32_put(s.bytes + at + 8, BALLOON_ERR_COUNT + 1);
	stream_splice(&s, at + 8 + 16 + 8ULL * BALLOON_ERR_COUNT, 0, value, sizeof(value));
	le32_put(s.bytes + at + 4, le32_get(s.bytes + at + 4) + 8);
	stream_seal(&s);
	assert_int_equal(load(), 0);
	assert_int_equal(l.r.snap.st.stats.set, 4);
	assert_int_equal(l.r.snap.st.buffers[0], 17);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(any_bit_flipped),
		cmocka_unit_test(goes_on_after_its_end),
		cmocka_unit_test(other_beginnings),
		cmocka_unit_test(no_room),
		cmocka_unit_test(wrong_numbers),
		cmocka_unit_test(wrong_lengths),
		cmocka_unit_test(order_of_sections),
		cmocka_unit_test(unknown_sections),
		cmocka_unit_test(more_than_is_known),
	};

	make();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
