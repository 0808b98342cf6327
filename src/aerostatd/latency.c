// SPDX-License-Identifier: MIT
#include "latency.h"

const uint64_t latency_bounds_us[LATENCY_BUCKETS] = {
	100,   250,    500,    1000,    2500,    5000,     10000,
	25000, 100000, 250000, 1000000, 2500000, 10000000, 60000000,
};

void latency_add(struct latency *l, uint64_t us)
{
	l->count++;
	l->sum_us += us;
	for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
		if (us <= latency_bounds_us[i]) {
			l->bucket[i]++;
			return;
		}
	}
}
