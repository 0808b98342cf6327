/* SPDX-License-Identifier: MIT */
/*
 * A token bucket: lets `burst` through at once, then `burst` per interval, and counts the rest.
 * Keeps a guest from filling the host's log.
 */
#ifndef BASE_RATELIMIT_H
#define BASE_RATELIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct ratelimit {
	uint64_t interval_ms;
	uint32_t burst;
	uint32_t passed;     /* within the running interval */
	uint64_t started_ms; /* when it began */
	uint64_t suppressed; /* refused since the last one that passed */
};

/*
 * May one more pass at now_ms? If so *suppressed is how many were refused since the last one that
 * passed. A fresh limiter needs only interval_ms and burst set, the rest zero.
 */
bool ratelimit_pass(struct ratelimit *rl, uint64_t now_ms, uint64_t *suppressed);

#endif
