/* SPDX-License-Identifier: MIT */
/*
 * Random numbers of a simulation: the same for the same seed on every machine, and a stream of its
 * own for each guest, so that nothing a policy does changes what any guest wants.
 * The generator is splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
 * generators", 2014).
 */
#ifndef SIM_RNG_H
#define SIM_RNG_H

#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* A stream that differs for each stream number of a seed. */
static inline struct rng rng_stream(uint64_t seed, uint64_t stream)
{
	struct rng r = {seed};

	r.state = rng_next(&r) + stream * 0x9e3779b97f4a7c15u;
	r.state = rng_next(&r);
	return r;
}

/* Even between low and high. */
static inline double rng_between(struct rng *r, double low, double high)
{
	return low + (high - low) * (double)(rng_next(r) >> 11) * 0x1p-53;
}

#endif
