// SPDX-License-Identifier: MIT
/*
 * A guest that is not fragmented names pages that all rise or all fall, in one or two runs a
 * buffer: one pass over them, and no more. Anything else is sorted first, by radix: the keys are
 * dense small numbers, so that the upper digits are often equal in all of them and their passes are
 * left out.
 */
#include "balloon/pfn.h"

#include <string.h>

/* So small that summing up the counts costs little beside the 256 keys of a usual buffer. */
#define RADIX_BITS 6U
#define RADIX_SIZE (1U << RADIX_BITS)

/* Ranges of PFNs that rise; equal neighbours count once. 0: they do not rise. */
static uint32_t merge_rising(struct pfn_batch *b)
{
	struct pfn_range *out = b->range;
	uint32_t first = b->pfn[0], last = first;

	for (uint32_t i = 1; i < b->n; i++) {
		uint32_t pfn = b->pfn[i];

		if (pfn < last)
			return 0;
		if (pfn - last > 1) {
			*out++ = (struct pfn_range){first, last - first + 1};
			first = pfn;
		}
		last = pfn;
	}
	*out++ = (struct pfn_range){first, last - first + 1};
	return (uint32_t)(out - b->range);
}

static void reverse(uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		uint32_t swap = pfn[i];

		pfn[i] = pfn[n - 1 - i];
		pfn[n - 1 - i] = swap;
	}
}

static int all_fall(const uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++) {
		if (pfn[i] > pfn[i - 1])
			return 0;
	}
	return 1;
}

static void sort(struct pfn_batch *b)
{
	uint32_t *from = b->pfn, *to = b->scratch, differ = 0;
	uint32_t count[RADIX_SIZE];

	for (uint32_t i = 1; i < b->n; i++)
		differ |= b->pfn[i] ^ b->pfn[0];

	for (uint32_t shift = 0; shift < 32; shift += RADIX_BITS) {
		uint32_t sum = 0, *swap;

		if (!(differ >> shift & (RADIX_SIZE - 1)))
			continue;
		memset(count, 0, sizeof(count));
		for (uint32_t i = 0; i < b->n; i++)
			count[from[i] >> shift & (RADIX_SIZE - 1)]++;
		for (uint32_t i = 0; i < RADIX_SIZE; i++) {
			uint32_t here = count[i];

			count[i] = sum;
			sum += here;
		}
		for (uint32_t i = 0; i < b->n; i++)
			to[count[from[i] >> shift & (RADIX_SIZE - 1)]++] = from[i];
		swap = from;
		from = to;
		to = swap;
	}
	if (from != b->pfn)
		memcpy(b->pfn, from, b->n * sizeof(*from));
}

uint32_t pfn_batch_merge(struct pfn_batch *b, uint32_t *duplicates)
{
	uint32_t ranges, pages = 0;

	*duplicates = 0;
	if (!b->n)
		return 0;
	ranges = merge_rising(b);
	if (!ranges) {
		if (all_fall(b->pfn, b->n))
			reverse(b->pfn, b->n);
		else
			sort(b);
		ranges = merge_rising(b);
	}
	for (uint32_t i = 0; i < ranges; i++)
		pages += b->range[i].n;
	*duplicates = b->n - pages;
	return ranges;
}
