// SPDX-License-Identifier: MIT
/*
 * One pass turns neighbours that count up or down into runs. A guest that is not fragmented gives
 * one or two runs a buffer, in order or in reverse, and that is all. Only where the runs themselves
 * are out of order (a fragmented guest) are they sorted, by radix: the keys are dense small
 * numbers, so that most of the four digits are often equal in all of them and their passes are
 * skipped.
 */
#include "balloon/pfn.h"

#include <string.h>

#define RADIX_BITS 8U
#define RADIX_SIZE (1U << RADIX_BITS)
#define DIGITS     (32U / RADIX_BITS)

/* Runs in the order of arrival. *unordered: they neither all rise nor all fall without touching. */
static uint32_t find_runs(struct pfn_batch *b, int *falling, int *unordered)
{
	const uint32_t *pfn = b->pfn, *end = b->pfn + b->n;
	struct pfn_range *out = b->range;
	int rises = 0, falls = 0, touches = 0;

	while (pfn < end) {
		uint32_t first = *pfn++, last = first;

		if (pfn < end && *pfn == first + 1 && first != UINT32_MAX) {
			do
				last++;
			while (++pfn < end && *pfn == last + 1 && last != UINT32_MAX);
		} else {
			while (pfn < end && *pfn == first - 1 && first != 0) {
				first--;
				pfn++;
			}
		}
		if (out > b->range) {
			const struct pfn_range *before = out - 1;

			if (first > before->first && first - before->first > before->n)
				rises = 1;
			else if (first < before->first && before->first - last > 1)
				falls = 1;
			else
				touches = 1;
		}
		*out++ = (struct pfn_range){first, last - first + 1};
	}
	*falling = falls;
	*unordered = touches || (rises && falls);
	return (uint32_t)(out - b->range);
}

static void reverse(struct pfn_range *range, uint32_t n)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		struct pfn_range r = range[i];

		range[i] = range[n - 1 - i];
		range[n - 1 - i] = r;
	}
}

/* Sorts range[0..n) by first; scratch has as much room. */
static void sort_ranges(struct pfn_range *range, struct pfn_range *scratch, uint32_t n)
{
	uint32_t count[DIGITS][RADIX_SIZE];
	struct pfn_range *from = range, *to = scratch;

	memset(count, 0, sizeof(count));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t key = range[i].first;

		for (uint32_t d = 0; d < DIGITS; d++)
			count[d][key >> (d * RADIX_BITS) & (RADIX_SIZE - 1)]++;
	}
	for (uint32_t d = 0; d < DIGITS; d++) {
		uint32_t shift = d * RADIX_BITS, sum = 0;
		struct pfn_range *swap;

		if (count[d][from[0].first >> shift & (RADIX_SIZE - 1)] == n)
			continue; /* this digit is the same in all */
		for (uint32_t i = 0; i < RADIX_SIZE; i++) {
			uint32_t here = count[d][i];

			count[d][i] = sum;
			sum += here;
		}
		for (uint32_t i = 0; i < n; i++)
			to[count[d][from[i].first >> shift & (RADIX_SIZE - 1)]++] = from[i];
		swap = from;
		from = to;
		to = swap;
	}
	if (from != range)
		memcpy(range, from, n * sizeof(*range));
}

/* Joins sorted ranges that touch or overlap. */
static uint32_t join_ranges(struct pfn_range *range, uint32_t n)
{
	uint32_t out = 0;

	for (uint32_t i = 1; i < n; i++) {
		uint32_t gap = range[i].first - range[out].first;

		if (gap > range[out].n) {
			range[++out] = range[i];
		} else {
			/* Ends may be 2^32, which does not fit: compare lengths from the same
			 * start. */
			uint64_t reach = (uint64_t)gap + range[i].n;

			if (reach > range[out].n)
				range[out].n = (uint32_t)reach;
		}
	}
	return out + 1;
}

uint32_t pfn_batch_merge(struct pfn_batch *b, uint32_t *duplicates)
{
	int falling, unordered;
	uint32_t n = find_runs(b, &falling, &unordered), pages = 0;

	if (unordered) {
		sort_ranges(b->range, b->scratch, n);
		n = join_ranges(b->range, n);
	} else if (falling) {
		reverse(b->range, n);
	}
	for (uint32_t i = 0; i < n; i++)
		pages += b->range[i].n;
	*duplicates = b->n - pages;
	return n;
}
