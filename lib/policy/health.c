// SPDX-License-Identifier: MIT
/*
 * All moments are kept on a clock of their own that runs while the VM does (ran_ms), so pauses need
 * no special cases. The state is worked out from the facts each time and never stepped from one to
 * the next; what makes it a state machine is only that lateness, once found, stands until an
 * arrival (found), also when the wait in which it was found has ended without one.
 */
#include "policy/health.h"

#include <assert.h>
#include <stddef.h>

/* What each source means to the clock and the verdict. */
static const struct {
	bool live;                 /* the VM runs and can be judged */
	bool forgets;              /* there is no driver that anything could be known of */
	enum health_state state;   /* unless live */
	enum health_reason reason; /* unless live; else the one for being late */
} sources[] = {
	[HEALTH_SOURCE_NONE] = {false, true, HEALTH_UNKNOWN, HEALTH_NO_DRIVER},
	[HEALTH_SOURCE_UNABLE] = {false, true, HEALTH_UNKNOWN, HEALTH_NO_STATISTICS},
	[HEALTH_SOURCE_STOPPED] = {false, false, HEALTH_PAUSED, HEALTH_STOPPED},
	[HEALTH_SOURCE_PULL] = {true, false, HEALTH_SLOW, HEALTH_ANSWER_LATE},
	[HEALTH_SOURCE_PUSH] = {true, false, HEALTH_SLOW, HEALTH_PUSH_LATE},
};
static_assert(sizeof(sources) / sizeof(sources[0]) == HEALTH_SOURCE_COUNT, "a row for each source");

static const char *const state_names[] = {
	[HEALTH_UNKNOWN] = "unknown",           [HEALTH_PAUSED] = "paused",
	[HEALTH_HEALTHY] = "healthy",           [HEALTH_SLOW] = "slow",
	[HEALTH_UNRESPONSIVE] = "unresponsive",
};
static_assert(sizeof(state_names) / sizeof(state_names[0]) == HEALTH_STATE_COUNT,
	      "a name for each state");

static const struct {
	const char *name, *text;
} reasons[] = {
	[HEALTH_NO_DRIVER] = {"no-driver", "no driver is at work"},
	[HEALTH_NO_STATISTICS] = {"no-statistics", "this driver sends no statistics"},
	[HEALTH_NOT_ASKED] = {"not-asked", "nobody has asked for statistics yet"},
	[HEALTH_AWAITED] = {"awaited", "the first statistics are due and not late"},
	[HEALTH_STOPPED] = {"stopped", "the VM does not run"},
	[HEALTH_ON_TIME] = {"on-time", "statistics come as they should"},
	[HEALTH_PUSH_LATE] = {"push-late", "pushed statistics do not come"},
	[HEALTH_ANSWER_LATE] = {"answer-late", "a request for statistics is not answered"},
};
static_assert(sizeof(reasons) / sizeof(reasons[0]) == HEALTH_REASON_COUNT,
	      "a name for each reason");

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The first gap, in whole milliseconds, that is over so many thousandths of a unit. */
static uint64_t first_over(const struct health *h, uint32_t milli)
{
	return (uint64_t)h->unit_ms * milli / 1000 + 1;
}

static uint64_t slow_from(const struct health *h)
{
	return first_over(h, h->limits.slow_milli);
}

static uint64_t unresponsive_from(const struct health *h)
{
	return max_u64(first_over(h, h->limits.unresponsive_milli), h->limits.unresponsive_min_ms);
}

static uint64_t gap(const struct health *h)
{
	return h->waiting ? h->ran_ms - h->wait_from : 0;
}

/* How late the guest is in the present wait alone: SLOW, UNRESPONSIVE, or UNKNOWN for not late. */
static enum health_state lateness(const struct health *h)
{
	if (!h->waiting || gap(h) < slow_from(h))
		return HEALTH_UNKNOWN;
	return gap(h) < unresponsive_from(h) ? HEALTH_SLOW : HEALTH_UNRESPONSIVE;
}

/* Ends the present wait; what was found in it stands. */
static void keep_found(struct health *h)
{
	enum health_state late = sources[h->source].live ? lateness(h) : HEALTH_UNKNOWN;

	if (late > h->found) {
		h->found = late;
		h->found_reason = sources[h->source].reason;
	}
}

static void wait_anew(struct health *h, bool waiting)
{
	keep_found(h);
	h->waiting = waiting;
	h->wait_from = h->ran_ms;
}

static void forget(struct health *h)
{
	h->heard = false;
	h->found = HEALTH_UNKNOWN;
	h->waiting = h->source == HEALTH_SOURCE_PUSH;
	h->wait_from = h->ran_ms;
}

/* Counts the time since the last call, if the VM ran and this process was there to see it. */
static void count_time(struct health *h, struct instant now)
{
	uint64_t elapsed = now.mono_ms > h->looked_ms ? now.mono_ms - h->looked_ms : 0;
	uint64_t due = health_next(h);

	if (!sources[h->source].live)
		elapsed = 0;
	else if (now.mono_ms > due && now.mono_ms - due > HEALTH_LOOK_SLACK_MS) {
		wait_anew(h, h->waiting);
		elapsed = 0;
	}
	h->ran_ms += elapsed;
	h->looked_ms = now.mono_ms; /* also after a clock that went backwards */
}

static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high)
{
	if (value < low)
		return low;
	return value > high ? high : value;
}

void health_init(struct health *h, const struct health_limits *limits, struct instant now)
{
	static const struct health_limits defaults = HEALTH_LIMITS_DEFAULT;
	struct health_limits *own = &h->limits;

	*h = (struct health){.source = HEALTH_SOURCE_NONE,
			     .reason = HEALTH_NO_DRIVER,
			     .since = now,
			     .looked_ms = now.mono_ms,
			     .unit_ms = HEALTH_ANSWER_MS};
	*own = limits ? *limits : defaults;
	own->slow_milli = clamp(own->slow_milli, 1000, HEALTH_MILLI_MAX);
	own->unresponsive_milli = clamp(own->unresponsive_milli, own->slow_milli, HEALTH_MILLI_MAX);
}

void health_observe(struct health *h, enum health_source source, uint32_t interval_ms, bool asked,
		    struct instant now)
{
	uint32_t unit = source == HEALTH_SOURCE_PUSH ? interval_ms : HEALTH_ANSWER_MS;

	count_time(h, now);
	if (!unit)
		unit = 1;
	if (source != h->source || unit != h->unit_ms) {
		keep_found(h); /* by the terms that held */
		h->source = source;
		/* What was due when the VM stopped is shown until it runs again. */
		if (sources[source].live) {
			h->unit_ms = unit;
			h->waiting = source == HEALTH_SOURCE_PUSH;
			h->wait_from = h->ran_ms;
		}
		if (sources[source].forgets)
			forget(h);
	}
	if (source == HEALTH_SOURCE_PULL && asked != h->waiting)
		wait_anew(h, asked);
}

void health_arrived(struct health *h, struct instant when, struct instant now)
{
	if (when.mono_ms > now.mono_ms || (h->heard && when.mono_ms == h->heard_ms))
		return;
	count_time(h, now);
	h->heard = true;
	h->heard_ms = when.mono_ms;
	h->heard_at = h->ran_ms;
	h->found = HEALTH_UNKNOWN;
	h->waiting = h->source == HEALTH_SOURCE_PUSH;
	h->wait_from = h->ran_ms;
}

void health_forget(struct health *h, struct instant now)
{
	count_time(h, now);
	forget(h);
}

/* The verdict on a guest that runs. */
static enum health_state judge(const struct health *h, enum health_reason *reason)
{
	enum health_state late = lateness(h);

	if (late != HEALTH_UNKNOWN || h->found != HEALTH_UNKNOWN) {
		*reason = late >= h->found ? sources[h->source].reason : h->found_reason;
		return late >= h->found ? late : h->found;
	}
	if (h->heard) {
		*reason = HEALTH_ON_TIME;
		return HEALTH_HEALTHY;
	}
	*reason = h->waiting ? HEALTH_AWAITED : HEALTH_NOT_ASKED;
	return HEALTH_UNKNOWN;
}

bool health_update(struct health *h, struct instant now)
{
	enum health_state state = sources[h->source].state;

	count_time(h, now);
	h->reason = sources[h->source].reason;
	if (sources[h->source].live)
		state = judge(h, &h->reason);
	if (state == h->state)
		return false;
	h->state = state;
	h->since = now;
	h->changes++;
	return true;
}

uint64_t health_next(const struct health *h)
{
	enum health_state late = lateness(h);
	uint64_t due, at;

	if (late < h->found)
		late = h->found;
	if (!sources[h->source].live || !h->waiting || late == HEALTH_UNRESPONSIVE)
		return UINT64_MAX;
	due = (late == HEALTH_SLOW ? unresponsive_from(h) : slow_from(h)) - gap(h);
	return __builtin_add_overflow(h->looked_ms, due, &at) ? UINT64_MAX : at;
}

/* Milliseconds that the VM has run by now. */
static uint64_t ran_by(const struct health *h, struct instant now)
{
	if (!sources[h->source].live || now.mono_ms <= h->looked_ms)
		return h->ran_ms;
	return h->ran_ms + (now.mono_ms - h->looked_ms);
}

uint64_t health_gap_ms(const struct health *h, struct instant now)
{
	return h->waiting ? ran_by(h, now) - h->wait_from : 0;
}

uint64_t health_silence_ms(const struct health *h, struct instant now)
{
	return h->heard ? ran_by(h, now) - h->heard_at : UINT64_MAX;
}

const char *health_state_name(enum health_state state)
{
	return state_names[state];
}

const char *health_reason_name(enum health_reason reason)
{
	return reasons[reason].name;
}

const char *health_reason_text(enum health_reason reason)
{
	return reasons[reason].text;
}
