// SPDX-License-Identifier: MIT
#include "base/bitmap.h"

#include "base/checked.h"

/* The bits of one word that [*first, *first + *n) covers; moves the range past that word. */
static uint64_t take_mask(uint64_t *first, uint64_t *n)
{
	uint64_t offset = *first % BITMAP_WORD_BITS;
	uint64_t count = min_u64(*n, BITMAP_WORD_BITS - offset);

	*first += count;
	*n -= count;
	return bitmap_mask(offset, count);
}

static uint64_t popcount(uint64_t v)
{
	return (uint64_t)__builtin_popcountll(v);
}

uint64_t bitmap_set_long(uint64_t *map, uint64_t first, uint64_t n)
{
	uint64_t changed = 0;

	while (n) {
		uint64_t *word = &map[first / BITMAP_WORD_BITS];
		uint64_t mask = take_mask(&first, &n);

		changed += popcount(mask & ~*word);
		*word |= mask;
	}
	return changed;
}

uint64_t bitmap_clear_long(uint64_t *map, uint64_t first, uint64_t n)
{
	uint64_t changed = 0;

	while (n) {
		uint64_t *word = &map[first / BITMAP_WORD_BITS];
		uint64_t mask = take_mask(&first, &n);

		changed += popcount(mask & *word);
		*word &= ~mask;
	}
	return changed;
}

uint64_t bitmap_find(const uint64_t *map, uint64_t from, uint64_t end, bool value)
{
	uint64_t flip = value ? 0 : ~0ULL;

	while (from < end) {
		uint64_t offset = from % BITMAP_WORD_BITS;
		uint64_t word = (map[from / BITMAP_WORD_BITS] ^ flip) >> offset;

		if (word)
			return min_u64(end, from + (uint64_t)__builtin_ctzll(word));
		from += BITMAP_WORD_BITS - offset;
	}
	return end;
}
