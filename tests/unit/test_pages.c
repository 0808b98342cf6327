// SPDX-License-Identifier: MIT
/*
 * Inflate and deflate: what is discarded, and above all what never is. That nothing goes which is
 * not held is checked at every discard, in helpers.h.
 */
#include "helpers.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define K64     0x10000U
#define M2      0x200000U

static struct test_balloon t;

/* Region 0 is the guest's memory. */
static void begin(uint64_t features, uint64_t gpa, uint64_t size, uint64_t page_size,
		  uint64_t backing_offset)
{
	test_balloon_init(&t, 0);
	test_add_region(&t.mem, gpa, size, page_size, t.queues);
	t.mem.region[0].backing_offset = backing_offset;
	test_balloon_start(&t, features);
}

/* What was discarded since the last call, as text: "first page+pages" of region 0. */
static void expect(const char *expected)
{
	char got[256] = "";
	size_t at = 0;

	for (uint32_t i = 0; i < t.n_ranges && at < sizeof(got) - 40; i++) {
		assert_int_equal(t.range[i].offset % PAGE, 0);
		at += (size_t)snprintf(got + at, sizeof(got) - at, "%s%u:%u+%u", i ? " " : "",
				       t.range[i].region, (unsigned int)(t.range[i].offset / PAGE),
				       (unsigned int)(t.range[i].len / PAGE));
	}
	assert_string_equal(got, expected);
	t.n_ranges = 0;
}

static void small_pages(void **state)
{
	static const uint32_t mixed[] = {7, 6, 5, 100, 200, 201, 5, 99};

	(void)state;
	begin(V1, 0, 1024 * PAGE, PAGE, 0);
	t.free_each = 5000;
	test_send_run(&t, INFLATE, 3, 4);
	expect("0:3+4");
	test_send_pfns(&t, INFLATE, mixed, ARRAY_SIZE(mixed));
	expect("0:5+3 0:99+2 0:200+2");
	assert_int_equal(t.b.st.errors[BALLOON_ERR_DUPLICATE], 1);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_DOUBLE], 2);
	assert_int_equal(t.b.st.freed_bytes, 4 * 5000);
	assert_int_equal(balloon_held_bytes(&t.b), 9 * PAGE);
	test_send_run(&t, DEFLATE, 0, 6);
	expect("");
	assert_int_equal(t.b.st.errors[BALLOON_ERR_NOT_HELD], 3);
	assert_int_equal(balloon_held_bytes(&t.b), 6 * PAGE);
	test_balloon_end(&t);
}

/* Runs over the ends of regions, across gaps, and PFNs at the very ends of their range. */
static void ends_of_regions(void **state)
{
	static const uint32_t far[] = {0, UINT32_MAX, UINT32_MAX - 1};

	(void)state;
	test_balloon_init(&t, 0);
	test_add_region(&t.mem, 0x10000, 0x4000, PAGE, t.queues);
	test_add_region(&t.mem, 0x14000, 0x4000, PAGE, t.queues);
	test_add_region(&t.mem, 0x20000, 0x4000, PAGE, t.queues);
	test_balloon_start(&t, V1);
	test_send_run(&t, INFLATE, 0xe, 0x20);
	expect("0:0+4 1:0+4 2:0+4");
	assert_int_equal(t.b.st.errors[BALLOON_ERR_PFN], 0x20 - 12);
	test_send_run(&t, DEFLATE, 0xe, 0x20);
	assert_int_equal(balloon_held_bytes(&t.b), 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_NOT_HELD], 0);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_PFN], 2 * (0x20 - 12));
	test_send_pfns(&t, INFLATE, far, 3);
	expect("");
	assert_int_equal(t.b.st.errors[BALLOON_ERR_PFN], 2 * (0x20 - 12) + 3);
	test_balloon_end(&t);
}

/* threats.md, balloon, line 10 */
static void inflate_deflate_inflate(void **state)
{
	static const uint32_t sizes[] = {K64, M2};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint32_t pages = sizes[i] / PAGE, half = pages / 2;

		for (uint64_t told = 0; told < 2; told++) {
			begin(V1 | (told ? MTH : 0), 0, 4 * sizes[i], sizes[i], 0);
			/* page A, then back, then all the others */
			test_send_run(&t, INFLATE, pages + half, 1);
			test_send_run(&t, DEFLATE, pages + half, 1);
			test_send_run(&t, INFLATE, pages, half);
			test_send_run(&t, INFLATE, pages + half + 1, half - 1);
			expect("");
			assert_int_equal(balloon_held_bytes(&t.b), (pages - 1) * PAGE);
			/* only when A goes again */
			test_send_run(&t, INFLATE, pages + half, 1);
			if (told)
				assert_int_equal(t.n_ranges, 1);
			else
				expect("");
			test_balloon_end(&t);
		}
	}
}

/* A host page is complete over many buffers, in any order; only with MUST_TELL_HOST. */
static void completion_over_buffers(void **state)
{
	(void)state;
	for (uint64_t told = 0; told < 2; told++) {
		begin(V1 | (told ? MTH : 0), 0, 64 * PAGE, K64, 0);
		for (uint32_t i = 0; i < 16; i++) {
			expect("");
			test_send_run(&t, INFLATE, 16 + i * 5 % 16, 1);
		}
		expect(told ? "0:16+16" : "");
		/* All of it in one run goes either way; partial neighbours stay. */
		test_send_run(&t, INFLATE, 31, 18);
		expect(told ? "0:16+16 0:32+16" : "0:32+16");
		test_balloon_end(&t);
	}
}

/* In one buffer, but in runs that do not touch, or with pages of other host pages between. */
static void one_buffer_many_runs(void **state)
{
	uint32_t pfn[48], n = 0;

	(void)state;
	begin(V1, 0, 64 * PAGE, K64, 0);
	for (uint32_t i = 0; i < 48; i++)
		pfn[n++] = i * 7 % 48; /* all pages of three host pages, shuffled */
	test_send_pfns(&t, INFLATE, pfn, n);
	expect("0:0+16 0:16+16 0:32+16");
	test_balloon_end(&t);

	begin(V1 | MTH, 0, 64 * PAGE, K64, 0);
	n = 0;
	for (uint32_t i = 0; i < 16; i += 2)
		pfn[n++] = i; /* one page in two */
	test_send_pfns(&t, INFLATE, pfn, n);
	expect("");
	for (uint32_t i = 0; i < n; i++)
		pfn[i]++;
	/* Eight runs in the same host page: it goes, and not eight times. */
	test_send_pfns(&t, INFLATE, pfn, n);
	expect("0:0+16");
	test_balloon_end(&t);
}

/* A region that begins or ends within a host page of its file, or off its alignment. */
static void unaligned_regions(void **state)
{
	static const struct {
		uint64_t gpa, size, backing_offset;
		const char *discarded; /* of all that is inflated */
	} cases[] = {
		{0, 64 * PAGE, 0, "0:0+16 0:16+16 0:32+16 0:48+16"},
		{0, 63 * PAGE, 0, "0:0+16 0:16+16 0:32+16"},
		{0, 15 * PAGE, 0, ""},
		{0, 64 * PAGE, 4 * PAGE, "0:12+16 0:28+16 0:44+16"},
		{16 * PAGE, 64 * PAGE, 15 * PAGE, "0:1+16 0:17+16 0:33+16"},
		{7 * PAGE, 48 * PAGE, 0, "0:0+16 0:16+16 0:32+16"},
		/* host pages that lie askew to the guest's: none is made of whole guest pages */
		{0, 64 * PAGE, 0x800, ""},
		{0x800, 64 * PAGE, 0, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(V1 | MTH, cases[i].gpa, cases[i].size, K64, cases[i].backing_offset);
		test_send_run(&t, INFLATE, 0, 100);
		expect(cases[i].discarded);
		test_balloon_end(&t);
	}
}

/* Small pages in a region that is off by half a page: offsets are the region's, not the guest's. */
static void askew_small_pages(void **state)
{
	(void)state;
	test_balloon_init(&t, 0);
	test_add_region(&t.mem, 0x1800, 0x4000, PAGE, t.queues);
	test_balloon_start(&t, V1);
	test_send_run(&t, INFLATE, 0, 16);
	assert_int_equal(t.n_ranges, 1);
	assert_int_equal(t.range[0].offset, 0x800);
	assert_int_equal(t.range[0].len, 3 * PAGE);
	assert_int_equal(t.b.st.errors[BALLOON_ERR_PFN], 13);
	test_balloon_end(&t);
}

/* Lengths that are no multiple of 4: the whole entries count. */
static void fragments(void **state)
{
	(void)state;
	for (uint32_t len = 1; len < 12; len++) {
		uint32_t id, used;

		begin(V1, 0, 64 * PAGE, PAGE, 0);
		for (uint32_t i = 0; i < 3; i++)
			le32_put(t.queues + TEST_BUFFERS + (size_t)i * 4, 10 + i);
		test_offer_one(&t.ring[INFLATE], TEST_QUEUES_GPA + TEST_BUFFERS, len);
		assert_false(balloon_queue_run(&t.b, INFLATE, test_at(0)));
		assert_true(test_take_used(&t.ring[INFLATE], &id, &used));
		assert_int_equal(balloon_held_bytes(&t.b), len / 4 * PAGE);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_FRAGMENT], len % 4 != 0);
		test_balloon_end(&t);
	}
}

/* A PFN array cut into descriptors at every place, also within an entry. */
static void scattered(void **state)
{
	const uint64_t at = TEST_QUEUES_GPA + TEST_BUFFERS;

	(void)state;
	for (uint32_t a = 1; a < 31; a++) {
		for (uint32_t b = a + 1; b < 32; b++) {
			const struct test_desc d[] = {
				{at, a, 0, 0}, {at + a, b - a, 0, 0}, {at + b, 32 - b, 0, 0}};
			uint32_t id, len;

			begin(V1, 0, 64 * PAGE, PAGE, 0);
			for (uint32_t i = 0; i < 8; i++)
				le32_put(t.queues + TEST_BUFFERS + (size_t)i * 4, 60 - i * 3);
			test_offer(&t.ring[INFLATE], d, 3);
			assert_false(balloon_queue_run(&t.b, INFLATE, test_at(0)));
			assert_true(test_take_used(&t.ring[INFLATE], &id, &len));
			assert_int_equal(t.n_ranges, 8);
			assert_int_equal(t.range[0].offset, 39 * PAGE);
			assert_int_equal(balloon_held_bytes(&t.b), 8 * PAGE);
			test_balloon_end(&t);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages),
		cmocka_unit_test(ends_of_regions),
		cmocka_unit_test(inflate_deflate_inflate),
		cmocka_unit_test(completion_over_buffers),
		cmocka_unit_test(one_buffer_many_runs),
		cmocka_unit_test(unaligned_regions),
		cmocka_unit_test(askew_small_pages),
		cmocka_unit_test(fragments),
		cmocka_unit_test(scattered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
