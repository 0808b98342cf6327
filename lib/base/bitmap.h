/* SPDX-License-Identifier: MIT */
/*
 * Ranges of bits in an array of 64-bit words that the caller owns. Bit n is bit n % 64 of word n
 * / 64. No function checks against the array's end: the caller has validated the range.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#define BITMAP_WORD_BITS 64U

/* Words that nbits bits need. */
static inline uint64_t bitmap_words(uint64_t nbits)
{
	return nbits / BITMAP_WORD_BITS + (nbits % BITMAP_WORD_BITS != 0);
}

/* bitmap_set_range() and bitmap_clear_range() over any number of words. */
uint64_t bitmap_set_long(uint64_t *map, uint64_t first, uint64_t n);
uint64_t bitmap_clear_long(uint64_t *map, uint64_t first, uint64_t n);

/* The bits of one word that a range covers which does not leave it: n from 1 to 64 - offset. */
static inline uint64_t bitmap_mask(uint64_t offset, uint64_t n)
{
	return (~0ULL >> (BITMAP_WORD_BITS - n)) << offset;
}

/*
 * Sets [first, first + n), n not 0; returns how many of them were clear before. In line where it
 * costs most: shuffled pages come one by one.
 */
static inline uint64_t bitmap_set_range(uint64_t *map, uint64_t first, uint64_t n)
{
	uint64_t *word = &map[first / BITMAP_WORD_BITS], offset = first % BITMAP_WORD_BITS, mask;

	if (offset + n > BITMAP_WORD_BITS)
		return bitmap_set_long(map, first, n);
	mask = bitmap_mask(offset, n);
	if (*word & mask)
		return bitmap_set_long(map, first, n);
	*word |= mask;
	return n;
}

/* Clears [first, first + n), n not 0; returns how many of them were set before. */
static inline uint64_t bitmap_clear_range(uint64_t *map, uint64_t first, uint64_t n)
{
	uint64_t *word = &map[first / BITMAP_WORD_BITS], offset = first % BITMAP_WORD_BITS, mask;

	if (offset + n > BITMAP_WORD_BITS)
		return bitmap_clear_long(map, first, n);
	mask = bitmap_mask(offset, n);
	if (~*word & mask)
		return bitmap_clear_long(map, first, n);
	*word &= ~mask;
	return n;
}

/* The first bit of [from, end) that has the given value; end if there is none. */
uint64_t bitmap_find(const uint64_t *map, uint64_t from, uint64_t end, bool value);

#endif
