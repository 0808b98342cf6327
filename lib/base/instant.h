/* SPDX-License-Identifier: MIT */
/*
 * A moment, on both clocks that matter here. Nothing below the programs reads a clock: `now` comes
 * in as an argument.
 */
#ifndef BASE_INSTANT_H
#define BASE_INSTANT_H

#include <stdint.h>

struct instant {
	uint64_t mono_ms; /* CLOCK_MONOTONIC, milliseconds; for ages and intervals */
	int64_t wall_us;  /* CLOCK_REALTIME, microseconds since the epoch; only to be shown */
};

/* Milliseconds from `then` to `now`; 0 if the clock went backwards. */
static inline uint64_t instant_age_ms(struct instant now, struct instant then)
{
	return now.mono_ms > then.mono_ms ? now.mono_ms - then.mono_ms : 0;
}

#endif
