// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bitmap.h"

#define BITS  256U
#define WORDS (BITS / 64)

/* Where ranges begin and end: around every word border. */
static const uint64_t edges[] = {0,   1,   2,   31,  62,  63,  64,  65,  66,  126, 127,
				 128, 129, 190, 191, 192, 193, 253, 254, 255, 256};
#define EDGES (sizeof(edges) / sizeof(edges[0]))

/* The plain way. */
static uint64_t naive_count(const uint64_t *map, uint64_t first, uint64_t n)
{
	uint64_t count = 0;

	for (uint64_t i = first; i < first + n; i++)
		count += map[i / 64] >> (i % 64) & 1;
	return count;
}

static void words(void **state)
{
	(void)state;
	assert_int_equal(bitmap_words(0), 0);
	assert_int_equal(bitmap_words(1), 1);
	assert_int_equal(bitmap_words(64), 1);
	assert_int_equal(bitmap_words(65), 2);
	assert_true(bitmap_words(UINT64_MAX) == 1ULL << 58);
}

/* Sets or clears each range on each pattern; looks at every bit, and at those beside the map. */
static void ranges(void **state)
{
	static const uint64_t patterns[] = {0, ~0ULL, 0xaaaaaaaaaaaaaaaa, 0x8000000000000001};

	(void)state;
	for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
		for (size_t a = 0; a < EDGES; a++) {
			for (size_t b = a + 1; b < EDGES; b++) {
				uint64_t room[WORDS + 2], *map = room + 1;
				uint64_t n = edges[b] - edges[a], set;

				memset(room, 0x55, sizeof(room));
				for (size_t i = 0; i < WORDS; i++)
					map[i] = patterns[p];
				set = naive_count(map, edges[a], n);
				assert_int_equal(bitmap_set_range(map, edges[a], n), n - set);
				assert_int_equal(naive_count(map, edges[a], n), n);
				assert_int_equal(bitmap_set_range(map, edges[a], n), 0);
				assert_int_equal(bitmap_clear_range(map, edges[a], n), n);
				assert_int_equal(naive_count(map, edges[a], n), 0);
				assert_int_equal(bitmap_clear_range(map, edges[a], n), 0);
				for (uint64_t i = 0; i < BITS; i++) {
					if (i < edges[a] || i >= edges[b])
						assert_int_equal(bitmap_find(map, i, i + 1, true) ==
									 i,
								 patterns[p] >> (i % 64) & 1);
				}
				assert_true(room[0] == 0x5555555555555555);
				assert_true(room[WORDS + 1] == 0x5555555555555555);
			}
		}
	}
}

static void find(void **state)
{
	(void)state;
	for (size_t bit = 0; bit < EDGES - 1; bit++) {
		uint64_t one[WORDS] = {0}, hole[WORDS];

		bitmap_set_range(one, edges[bit], 1);
		memset(hole, 0xff, sizeof(hole));
		bitmap_clear_range(hole, edges[bit], 1);
		for (size_t a = 0; a < EDGES; a++) {
			for (size_t b = a; b < EDGES; b++) {
				uint64_t inside = edges[bit] >= edges[a] && edges[bit] < edges[b];
				uint64_t expected = inside ? edges[bit] : edges[b];

				assert_int_equal(bitmap_find(one, edges[a], edges[b], true),
						 expected);
				assert_int_equal(bitmap_find(hole, edges[a], edges[b], false),
						 expected);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test(ranges),
		cmocka_unit_test(find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
