// SPDX-License-Identifier: MIT
#include "helpers.h"

#include "balloon/pfn.h"

#define MAX UINT32_MAX

static struct pfn_batch batch;

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Merges, and compares with the sorted list; returns the number of ranges. */
static uint32_t check(const uint32_t *pfn, uint32_t n)
{
	uint32_t sorted[PFN_BATCH_MAX], unique = 0, at = 0, duplicates = 77, ranges;

	memcpy(batch.pfn, pfn, n * sizeof(*pfn));
	batch.n = n;
	ranges = pfn_batch_merge(&batch, &duplicates);

	memcpy(sorted, pfn, n * sizeof(*pfn));
	qsort(sorted, n, sizeof(*sorted), compare);
	for (uint32_t i = 0; i < n; i++) {
		if (!unique || sorted[unique - 1] != sorted[i])
			sorted[unique++] = sorted[i];
	}
	assert_int_equal(duplicates, n - unique);
	for (uint32_t i = 0; i < ranges; i++) {
		struct pfn_range r = batch.range[i];

		assert_true(r.n > 0);
		for (uint32_t k = 0; k < r.n; k++, at++) {
			assert_true(at < unique);
			assert_int_equal(r.first + k, sorted[at]);
			assert_true(k == 0 || r.first + k != 0); /* no wrap around 2^32 */
		}
		if (i > 0)
			assert_true(r.first - batch.range[i - 1].first > batch.range[i - 1].n);
	}
	assert_int_equal(at, unique);
	return ranges;
}

static void cases(void **state)
{
	static const struct {
		uint32_t ranges, n;
		uint32_t pfn[12];
	} c[] = {
		{0, 0, {0}},
		{1, 1, {0}},
		{1, 1, {MAX}},
		{1, 4, {5, 6, 7, 8}},
		{1, 4, {8, 7, 6, 5}},
		{1, 2, {MAX - 1, MAX}},
		{1, 2, {MAX, MAX - 1}},
		{2, 2, {MAX, 0}},
		{2, 2, {0, MAX}},
		{2, 4, {MAX - 1, MAX, 0, 1}},
		{2, 4, {1, 0, MAX, MAX - 1}},
		{1, 3, {5, 5, 5}},
		{1, 3, {0, 0, 0}},
		{1, 3, {MAX, MAX, MAX}},
		{1, 6, {5, 6, 7, 5, 6, 7}},
		{1, 6, {5, 6, 7, 7, 6, 5}},
		{1, 4, {5, 7, 6, 8}},
		{1, 4, {7, 8, 5, 6}}, /* runs that touch, falling */
		{1, 4, {6, 5, 8, 7}}, /* ... and rising */
		{2, 4, {5, 6, 8, 9}}, /* one page short of touching */
		{2, 4, {9, 8, 6, 5}},
		{2, 4, {8, 9, 5, 6}},
		{3, 3, {10, 30, 20}},
		{3, 6, {30, 31, 20, 21, 10, 11}},
		{1, 5, {4, 0, 3, 1, 2}},
		{1, 7, {10, 11, 12, 13, 11, 12, 14}}, /* a run inside another, then on */
		{2, 6, {100, 101, 102, 50, 101, 51}},
		{4, 4, {0x00000001, 0x00000100, 0x00010000, 0x01000000}},
		{4, 4, {0x01000000, 0x00000001, 0x00010000, 0x00000100}},
		{2, 6, {MAX, MAX - 1, 0, 1, MAX, 0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		assert_int_equal(check(c[i].pfn, c[i].n), c[i].ranges);
}

/* Full batches: in order, reverse, strided, shuffled, all equal, pairs. */
static void full_batches(void **state)
{
	static uint32_t pfn[PFN_BATCH_MAX];
	uint32_t x = 12345;

	(void)state;
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = MAX - PFN_BATCH_MAX + 1 + i;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), 1);
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = PFN_BATCH_MAX - 1 - i;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), 1);
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = i * 2;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), PFN_BATCH_MAX);
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = MAX - i * 0x1000;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), PFN_BATCH_MAX);
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = i * 677 % PFN_BATCH_MAX;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), 1);
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = 9;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), 1);
	for (uint32_t i = 0; i < PFN_BATCH_MAX; i++)
		pfn[i] = i ^ 1;
	assert_int_equal(check(pfn, PFN_BATCH_MAX), 1);
	for (uint32_t round = 0; round < 200; round++) {
		for (uint32_t i = 0; i < PFN_BATCH_MAX; i++) {
			x = x * 1664525 + 1013904223;
			pfn[i] = x >> round % 32;
		}
		check(pfn, 1 + x % PFN_BATCH_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cases),
		cmocka_unit_test(full_batches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
