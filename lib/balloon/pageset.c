// SPDX-License-Identifier: MIT
#include "balloon/pageset.h"

#include <string.h>

#include "aerostat/virtio_balloon.h"
#include "base/checked.h"

/* The whole pages of a region; where their bits lie is left open. */
static struct pageset_region whole_pages(const struct guest_region *r)
{
	uint64_t page = 1ULL << VIRTIO_BALLOON_PFN_SHIFT;
	uint64_t end = (r->gpa + r->size) >> VIRTIO_BALLOON_PFN_SHIFT;
	/* Not align_up(): a region may end at the very top of the address space. */
	uint64_t first = (r->gpa >> VIRTIO_BALLOON_PFN_SHIFT) + (r->gpa % page != 0);

	return (struct pageset_region){.first_pfn = first, .pages = end > first ? end - first : 0};
}

uint64_t pageset_words(const struct guest_mem *mem)
{
	uint64_t words = 0;

	for (uint32_t i = 0; i < mem->n; i++)
		words += bitmap_words(whole_pages(&mem->region[i]).pages);
	return words;
}

uint64_t pageset_layout_words(const struct pageset_layout *at)
{
	uint64_t words = 0;

	for (uint32_t i = 0; i < at->n; i++)
		words += bitmap_words(at->region[i].pages);
	return words;
}

bool pageset_next_run(const struct pageset *set, uint32_t region, uint64_t *page, uint64_t *n)
{
	const struct pageset_region *r = &set->at.region[region];
	uint64_t end = r->first_bit + r->pages;
	uint64_t bit = bitmap_find(set->map, r->first_bit + *page, end, true);

	if (bit == end)
		return false;
	*page = bit - r->first_bit;
	*n = bitmap_find(set->map, bit, end, false) - bit;
	return true;
}

/* Adds pages [pfn, pfn + left), as far as they are in the table. */
static void add(struct pageset *set, uint64_t pfn, uint64_t left)
{
	while (left) {
		uint64_t n = left, page;
		int region = pageset_locate(set, pfn, &n, &page);

		if (region >= 0)
			pageset_set(set, (uint32_t)region, page, n);
		pfn += n;
		left -= n;
	}
}

static void take_over(struct pageset *set, const struct pageset *old)
{
	uint64_t left = old->count;

	for (uint32_t i = 0; left && i < old->at.n; i++) {
		uint64_t n;

		for (uint64_t page = 0; left && pageset_next_run(old, i, &page, &n); page += n) {
			add(set, old->at.region[i].first_pfn + page, n);
			left -= n;
		}
	}
}

void pageset_init(struct pageset *set, const struct guest_mem *mem, uint64_t *map,
		  const struct pageset *old)
{
	uint64_t bit = 0;

	set->map = map;
	set->count = 0;
	set->at.n = mem->n;
	for (uint32_t i = 0; i < mem->n; i++) {
		set->at.region[i] = whole_pages(&mem->region[i]);
		set->at.region[i].first_bit = bit;
		bit += bitmap_words(set->at.region[i].pages) * BITMAP_WORD_BITS;
	}
	take_over(set, old);
}

void pageset_clear(struct pageset *set)
{
	for (uint32_t i = 0; set->count && i < set->at.n; i++) {
		uint64_t n;

		for (uint64_t page = 0; set->count && pageset_next_run(set, i, &page, &n);
		     page += n)
			pageset_unset(set, i, page, n);
	}
}

void pageset_attach(struct pageset *set, const struct pageset_layout *at, uint64_t *map)
{
	set->map = map;
	set->count = 0;
	set->at.n = at->n;
	memcpy(set->at.region, at->region, at->n * sizeof(at->region[0]));
	/* Counted, as what was counted may be older than the bits. */
	for (uint32_t i = 0; map && i < at->n; i++) {
		uint64_t n;

		for (uint64_t page = 0; pageset_next_run(set, i, &page, &n); page += n)
			set->count += n;
	}
}

/* Index of the first region that ends above pfn; n if there is none. */
static uint32_t first_above(const struct pageset *set, uint64_t pfn)
{
	uint32_t low = 0, high = set->at.n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (set->at.region[mid].first_pfn + set->at.region[mid].pages <= pfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int pageset_locate(const struct pageset *set, uint64_t pfn, uint64_t *n, uint64_t *page)
{
	uint32_t index = first_above(set, pfn);
	const struct pageset_region *r = &set->at.region[index];

	if (index == set->at.n)
		return -1;
	if (pfn < r->first_pfn) {
		*n = min_u64(*n, r->first_pfn - pfn);
		return -1;
	}
	*page = pfn - r->first_pfn;
	*n = min_u64(*n, r->pages - *page);
	return (int)index;
}

bool pageset_all(const struct pageset *set, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t bit = set->at.region[region].first_bit + page;

	return bitmap_find(set->map, bit, bit + n, false) == bit + n;
}
