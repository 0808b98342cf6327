/* SPDX-License-Identifier: MIT */
/* A histogram of durations, as OpenMetrics has them. */
#ifndef AEROSTATD_LATENCY_H
#define AEROSTATD_LATENCY_H

#include <stddef.h>
#include <stdint.h>

#define LATENCY_BUCKETS 14

/* Upper ends of the buckets, in microseconds; what is longer counts in the total only. */
extern const uint64_t latency_bounds_us[LATENCY_BUCKETS];

struct latency {
	uint64_t bucket[LATENCY_BUCKETS]; /* not cumulative */
	uint64_t count, sum_us;
};

void latency_add(struct latency *l, uint64_t us);

#endif
