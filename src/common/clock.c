// SPDX-License-Identifier: MIT
#include "common/clock.h"

#include <time.h>

struct instant clock_now(void)
{
	struct timespec mono, wall;

	/* seccomp: clock_gettime clock_gettime64 */
	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &wall);
	return (struct instant){
		.mono_ms = (uint64_t)mono.tv_sec * 1000 + (uint64_t)mono.tv_nsec / 1000000,
		.wall_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000,
	};
}
