// SPDX-License-Identifier: MIT
/* The writable part of a chain as stretches of memory: none is lost, none comes twice. */
#include "helpers.h"

#include "balloon/spans.h"

#define K64     0x10000U
#define M2      0x200000U
#define GIB     (1ULL << 30)
#define REGIONS 8U

static struct guest_mem mem;
static struct vq_chain chain;
static uint8_t *base; /* of all regions: addresses only */

/* Region i is i * 4 GiB into the reserved addresses, in an order of its own. */
static uint8_t *place(uint32_t i)
{
	return base + (uint64_t)(i * 3 % REGIONS) * 4 * GIB;
}

static int set_up(void **state)
{
	(void)state;
	base = mmap(NULL, REGIONS * 4 * GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	return base == MAP_FAILED;
}

static int tear_down(void **state)
{
	(void)state;
	return munmap(base, REGIONS * 4 * GIB);
}

static void begin(uint64_t page_size, uint64_t backing_offset)
{
	memset(&mem, 0, sizeof(mem));
	for (uint32_t i = 0; i < REGIONS; i++) {
		test_add_region(&mem, i * 8 * GIB, 4 * GIB, page_size, place(i));
		mem.region[i].backing_offset = backing_offset;
	}
	chain.n_read = chain.n_write = 0;
	chain.read_bytes = chain.write_bytes = 0;
}

static void add_readable(uint64_t len)
{
	assert_int_equal(chain.n_write, 0);
	chain.seg[chain.n_read++] = (struct chain_seg){place(0), len};
	chain.read_bytes += len;
}

static void add(uint32_t region, uint64_t offset, uint64_t len)
{
	chain.seg[chain.n_read + chain.n_write++] = (struct chain_seg){place(region) + offset, len};
	chain.write_bytes += len;
}

static void each_in_its_region(void **state)
{
	static const struct span expected[] = {
		{0, 0, 1},           {0, 4 * GIB - 1, 1},     {7, 5, 4 * GIB - 5},
		{3, PAGE, 3 * PAGE}, {3, 4 * PAGE, 2 * PAGE}, {1, 4 * GIB - PAGE, PAGE},
		{6, 77, 77},
	};
	struct span_cursor at = {0};
	struct span span;
	uint64_t done = 0;

	(void)state;
	begin(PAGE, 0);
	add_readable(100);
	add_readable(4);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		add(expected[i].region, expected[i].offset, expected[i].len);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		assert_true(span_next(&chain, &mem, &at, UINT64_MAX / 2, &span));
		assert_int_equal(span.region, expected[i].region);
		assert_int_equal(span.offset, expected[i].offset);
		assert_int_equal(span.len, expected[i].len);
		done += span.len;
		assert_int_equal(at.done, done);
	}
	assert_false(span_next(&chain, &mem, &at, PAGE, &span));
	assert_int_equal(at.done, chain.write_bytes);
}

static void nothing_writable(void **state)
{
	struct span_cursor at = {0};
	struct span span;

	(void)state;
	begin(PAGE, 0);
	assert_false(span_next(&chain, &mem, &at, PAGE, &span));
	add_readable(10);
	assert_false(span_next(&chain, &mem, &at, PAGE, &span));
	span_skip(&chain, &at, 5);
	assert_int_equal(at.done, 0);
}

/*
 * What is longer than asked for is cut where a host page ends, and where else a stretch ends it is
 * the segment's own end. So no host page is lost to a cut.
 */
static void cuts(void **state)
{
	static const struct {
		uint64_t page_size, backing_offset, offset, len, max;
		uint64_t first; /* bytes of the first stretch */
	} cases[] = {
		{PAGE, 0, 0, 64 * PAGE, 16 * PAGE, 16 * PAGE},
		{PAGE, 0, 0, 16 * PAGE, 16 * PAGE, 16 * PAGE},
		{PAGE, 0, 100, 64 * PAGE, 16 * PAGE, 16 * PAGE - 100},
		{PAGE, 0, 100, 64 * PAGE, 1, PAGE - 100},
		{PAGE, 0, PAGE, 64 * PAGE, 1, PAGE},
		{PAGE, 0, 0, PAGE - 1, 1, PAGE - 1},
		{K64, 0, 3 * PAGE, 64 * PAGE, 16 * PAGE, 13 * PAGE},
		{K64, 0, 3 * PAGE, 64 * PAGE, 13 * PAGE, 13 * PAGE},
		{K64, 0, 3 * PAGE, 64 * PAGE, 12 * PAGE, 13 * PAGE},
		{K64, 5 * PAGE, 3 * PAGE, 64 * PAGE, 16 * PAGE, 8 * PAGE},
		{K64, 13 * PAGE, 3 * PAGE, 64 * PAGE, 20 * PAGE, 16 * PAGE},
		{M2, 0, M2 / 2, 8ULL * M2, 2ULL * M2, M2 + M2 / 2},
		{GIB, 0, 0, 3 * GIB, 64 << 20, GIB},
		{GIB, 0, 5 * PAGE, 3 * GIB, 64 << 20, GIB - 5 * PAGE},
		{GIB, 0, 5 * PAGE, 100 << 20, 64 << 20, 100 << 20},
		{GIB, 0, GIB, 3 * GIB, 2 * GIB + 1, 2 * GIB},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t phase = cases[i].backing_offset % cases[i].page_size, left;
		uint64_t offset = cases[i].offset;
		struct span_cursor at = {0};
		struct span span;

		begin(cases[i].page_size, cases[i].backing_offset);
		add(2, offset, cases[i].len);
		add(4, 0, 1);
		for (left = cases[i].len; left; left -= span.len) {
			assert_true(span_next(&chain, &mem, &at, cases[i].max, &span));
			if (left == cases[i].len)
				assert_int_equal(span.len, cases[i].first);
			assert_int_equal(span.region, 2);
			assert_int_equal(span.offset, offset);
			assert_in_range(span.len, 1, left);
			offset += span.len;
			if (span.len < left)
				assert_int_equal((offset + phase) % cases[i].page_size, 0);
			/* Longer than asked for only where there is no place to cut. */
			if (span.len > cases[i].max)
				assert_in_range(span.len, 1, cases[i].page_size);
		}
		assert_true(span_next(&chain, &mem, &at, cases[i].max, &span));
		assert_int_equal(span.region, 4);
		assert_false(span_next(&chain, &mem, &at, cases[i].max, &span));
	}
}

/* From any byte on there follows just what followed it in one go. */
static void skip_to_any_byte(void **state)
{
	static const uint32_t lengths[] = {1, 7, PAGE, 2 * PAGE + 3, 1, K64};
	uint64_t total;

	(void)state;
	begin(K64, 0);
	add_readable(50);
	for (uint32_t i = 0; i < ARRAY_SIZE(lengths); i++)
		add(i, i * 1000, lengths[i]);
	total = chain.write_bytes;
	for (uint64_t to = 0; to <= total + 2; to += to < 20 || to > total - 20 ? 1 : 97) {
		struct span_cursor at = {0};
		struct span span;
		uint64_t before = 0, left = total;
		uint32_t seg = 0;

		span_skip(&chain, &at, to);
		assert_int_equal(at.done, to < total ? to : total);
		left -= at.done;
		while (seg < ARRAY_SIZE(lengths) && before + lengths[seg] <= to)
			before += lengths[seg++];
		if (left) {
			assert_true(span_next(&chain, &mem, &at, GIB, &span));
			assert_int_equal(span.region, seg);
			assert_int_equal(span.offset, seg * 1000 + to - before);
			left -= span.len;
		}
		while (span_next(&chain, &mem, &at, 1, &span))
			left -= span.len;
		assert_int_equal(left, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_in_its_region),
		cmocka_unit_test(nothing_writable),
		cmocka_unit_test(cuts),
		cmocka_unit_test(skip_to_any_byte),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
