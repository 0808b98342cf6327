// SPDX-License-Identifier: MIT
/*
 * pfn_batch_merge() against a plain set.
 *
 * Input: entries of a byte that says how the next PFN follows from the last one, and what it needs.
 */
#include "balloon/pfn.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t read_pfns(struct input *in, uint32_t *pfn)
{
	uint32_t n = 0, last = 0;

	while (in->left && n < PFN_BATCH_MAX) {
		uint8_t how = input_u8(in);

		for (uint32_t repeat = 1 + (how >> 3); repeat && n < PFN_BATCH_MAX; repeat--) {
			switch (how & 7) {
			case 0:
				last++;
				break;
			case 1:
				last--;
				break;
			case 2: /* again */
				break;
			case 3:
				last += 2;
				break;
			case 4:
				last -= 2;
				break;
			case 5:
				last += input_u8(in) - 128U;
				break;
			case 6:
				last ^= 1U << (input_u8(in) & 31);
				break;
			default:
				last = input_u32(in);
			}
			pfn[n++] = last;
		}
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pfn_batch batch;
	static uint32_t set[PFN_BATCH_MAX];
	struct input in = {data, size};
	uint32_t n = read_pfns(&in, batch.pfn), unique = 0, at = 0, duplicates, ranges;

	memcpy(set, batch.pfn, n * sizeof(*set));
	if (n)
		qsort(set, n, sizeof(*set), compare);
	for (uint32_t i = 0; i < n; i++) {
		if (!unique || set[unique - 1] != set[i])
			set[unique++] = set[i];
	}
	batch.n = n;
	ranges = pfn_batch_merge(&batch, &duplicates);
	require(duplicates == n - unique);
	for (uint32_t i = 0; i < ranges; i++) {
		const struct pfn_range *r = &batch.range[i];

		require(r->n && r->n <= unique - at);
		require(i == 0 || set[at] - set[at - 1] > 1);
		for (uint32_t k = 0; k < r->n; k++, at++)
			require(set[at] - r->first == k);
	}
	require(at == unique);
	return 0;
}
