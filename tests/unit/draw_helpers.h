/* SPDX-License-Identifier: MIT */
/* Numbers at random that are the same in each run. */
#ifndef DRAW_HELPERS_H
#define DRAW_HELPERS_H

#include <stdint.h>

static uint64_t draw_state;

/* Begins the row of numbers of that seed. */
static inline void draw_begin(uint64_t seed)
{
	draw_state = 88172645463325252ULL + seed;
}

/* The next one, below that. By Marsaglia's xorshift. */
static inline uint64_t draw(uint64_t below)
{
	draw_state ^= draw_state << 13;
	draw_state ^= draw_state >> 7;
	draw_state ^= draw_state << 17;
	return draw_state % below;
}

#endif
