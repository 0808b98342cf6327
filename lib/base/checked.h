/* SPDX-License-Identifier: MIT */
/* Arithmetic on sizes and addresses that come from outside. */
#ifndef BASE_CHECKED_H
#define BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* *sum = a + b. False, and *sum untouched, if that overflows. */
static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *sum)
{
	uint64_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*sum = r;
	return true;
}

/* *product = a * b. False, and *product untouched, if that overflows. */
static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *product)
{
	uint64_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*product = r;
	return true;
}

/* Does [start, start + len) lie within [0, size)? Never overflows; an empty range at size does. */
static inline bool range_within(uint64_t start, uint64_t len, uint64_t size)
{
	return len <= size && start <= size - len;
}

/* Do [a, a + alen) and [b, b + blen) share a byte? Neither may wrap around 2^64. */
static inline bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return alen && blen && (a < b ? b - a < alen : a - b < blen);
}

static inline bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* Rounds to a multiple of align, a power of two. align_up() must not be given values near 2^64. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
	return align_down(v + align - 1, align);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

#endif
