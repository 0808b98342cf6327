// SPDX-License-Identifier: MIT
#include "balloon/held.h"

#include <string.h>

#include "aerostat/virtio_balloon.h"
#include "base/checked.h"

/* The whole pages of a region; where their bits lie is left open. */
static struct held_region whole_pages(const struct guest_region *r)
{
	uint64_t page = 1ULL << VIRTIO_BALLOON_PFN_SHIFT;
	uint64_t end = (r->gpa + r->size) >> VIRTIO_BALLOON_PFN_SHIFT;
	/* Not align_up(): a region may end at the very top of the address space. */
	uint64_t first = (r->gpa >> VIRTIO_BALLOON_PFN_SHIFT) + (r->gpa % page != 0);

	return (struct held_region){.first_pfn = first, .pages = end > first ? end - first : 0};
}

uint64_t held_words(const struct guest_mem *mem)
{
	uint64_t words = 0;

	for (uint32_t i = 0; i < mem->n; i++)
		words += bitmap_words(whole_pages(&mem->region[i]).pages);
	return words;
}

/*
 * The next run of held pages of a region from *page on: true with its beginning in *page and its
 * length in *n. Only reads: in a bitmap that is mostly untouched, most of its memory stays so.
 */
static bool next_run(const struct held *held, uint32_t region, uint64_t *page, uint64_t *n)
{
	const struct held_region *r = &held->region[region];
	uint64_t end = r->first_bit + r->pages;
	uint64_t bit = bitmap_find(held->map, r->first_bit + *page, end, true);

	if (bit == end)
		return false;
	*page = bit - r->first_bit;
	*n = bitmap_find(held->map, bit, end, false) - bit;
	return true;
}

/* Marks pages [pfn, pfn + left) as held, as far as they are in the table. */
static void hold(struct held *held, uint64_t pfn, uint64_t left)
{
	while (left) {
		uint64_t n = left, page;
		int region = held_locate(held, pfn, &n, &page);

		if (region >= 0)
			held_set(held, (uint32_t)region, page, n);
		pfn += n;
		left -= n;
	}
}

static void take_over(struct held *held, const struct held *old)
{
	uint64_t left = old->count;

	for (uint32_t i = 0; left && i < old->n; i++) {
		uint64_t n;

		for (uint64_t page = 0; left && next_run(old, i, &page, &n); page += n) {
			hold(held, old->region[i].first_pfn + page, n);
			left -= n;
		}
	}
}

void held_init(struct held *held, const struct guest_mem *mem, uint64_t *map,
	       const struct held *old)
{
	uint64_t bit = 0;

	held->map = map;
	held->count = 0;
	held->n = mem->n;
	for (uint32_t i = 0; i < mem->n; i++) {
		held->region[i] = whole_pages(&mem->region[i]);
		held->region[i].first_bit = bit;
		bit += bitmap_words(held->region[i].pages) * BITMAP_WORD_BITS;
	}
	take_over(held, old);
}

void held_clear(struct held *held)
{
	for (uint32_t i = 0; held->count && i < held->n; i++) {
		uint64_t n;

		for (uint64_t page = 0; held->count && next_run(held, i, &page, &n); page += n)
			held_unset(held, i, page, n);
	}
}

/* Index of the first region that ends above pfn; n if there is none. */
static uint32_t first_above(const struct held *held, uint64_t pfn)
{
	uint32_t low = 0, high = held->n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (held->region[mid].first_pfn + held->region[mid].pages <= pfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int held_locate(const struct held *held, uint64_t pfn, uint64_t *n, uint64_t *page)
{
	uint32_t index = first_above(held, pfn);
	const struct held_region *r = &held->region[index];

	if (index == held->n)
		return -1;
	if (pfn < r->first_pfn) {
		*n = min_u64(*n, r->first_pfn - pfn);
		return -1;
	}
	*page = pfn - r->first_pfn;
	*n = min_u64(*n, r->pages - *page);
	return (int)index;
}

bool held_all(const struct held *held, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t bit = held->region[region].first_bit + page;

	return bitmap_find(held->map, bit, bit + n, false) == bit + n;
}
