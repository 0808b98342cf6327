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

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
	return map[bit / BITMAP_WORD_BITS] >> (bit % BITMAP_WORD_BITS) & 1;
}

/* Sets [first, first + n); returns how many of them were clear before. */
uint64_t bitmap_set_range(uint64_t *map, uint64_t first, uint64_t n);

/* Clears [first, first + n); returns how many of them were set before. */
uint64_t bitmap_clear_range(uint64_t *map, uint64_t first, uint64_t n);

/* How many of [first, first + n) are set. */
uint64_t bitmap_count_range(const uint64_t *map, uint64_t first, uint64_t n);

/* The first bit of [from, end) that has the given value; end if there is none. */
uint64_t bitmap_find(const uint64_t *map, uint64_t from, uint64_t end, bool value);

#endif
