// SPDX-License-Identifier: MIT
#include "base/ratelimit.h"

bool ratelimit_pass(struct ratelimit *rl, uint64_t now_ms, uint64_t *suppressed)
{
	/* A clock that went backwards starts a new interval too, rather than closing the gate. */
	if (now_ms < rl->started_ms || now_ms - rl->started_ms >= rl->interval_ms) {
		rl->started_ms = now_ms;
		rl->passed = 0;
	}
	if (rl->passed >= rl->burst) {
		rl->suppressed++;
		return false;
	}
	rl->passed++;
	*suppressed = rl->suppressed;
	rl->suppressed = 0;
	return true;
}
