// SPDX-License-Identifier: MIT
#include "policy/decision.h"

#include <assert.h>

static const char *const actions[] = {
	[ACTION_KEEP] = "keep",
	[ACTION_TAKE] = "take",
	[ACTION_GIVE] = "give",
	[ACTION_RELEASE] = "release",
};
static_assert(sizeof(actions) / sizeof(actions[0]) == ACTION_COUNT, "a name for each action");

static const char *const reasons[] = {
	[REASON_PRESSURE] = "pressure",
	[REASON_VERDICT] = "verdict",
	[REASON_SILENT_SHORT] = "silent-short",
	[REASON_TOOK_BACK] = "took-back",
	[REASON_GROWTH] = "growth",
	[REASON_SHORT] = "short",
	[REASON_LOW_PRESSURE] = "low-pressure",
	[REASON_PLENTY] = "plenty",
	[REASON_STALLED] = "stalled",
	[REASON_RELEARNED] = "relearned",
	[REASON_BOUNDS] = "bounds",
	[REASON_IDLE] = "idle",
	[REASON_SCARCE] = "scarce",
	[REASON_HOST] = "host",
	[REASON_RESERVATION] = "reservation",
	[REASON_SETTLED] = "settled",
	[REASON_JUST_MOVED] = "just-moved",
	[REASON_PENDING] = "pending",
	[REASON_EMERGENCY] = "emergency",
	[REASON_LEARNED] = "learned",
	[REASON_NO_ROOM] = "no-room",
	[REASON_NO_DRIVER] = "no-driver",
	[REASON_NO_STATISTICS] = "no-statistics",
	[REASON_STALE] = "stale",
	[REASON_UNRESPONSIVE] = "unresponsive",
	[REASON_PAUSED] = "paused",
	[REASON_UNCOOPERATIVE] = "uncooperative",
	[REASON_INHIBITED] = "inhibited",
	[REASON_NO_HOST] = "no-host",
};
static_assert(sizeof(reasons) / sizeof(reasons[0]) == REASON_COUNT, "a name for each reason");

const char *action_name(enum action action)
{
	return actions[action];
}

const char *reason_name(enum reason reason)
{
	return reasons[reason];
}
