// SPDX-License-Identifier: MIT
#include "policy/progress.h"

#include <assert.h>

#include "base/checked.h"

static const char *const names[] = {
	[PROGRESS_REACHED] = "reached",
	[PROGRESS_MOVING] = "moving",
	[PROGRESS_STALLED] = "stalled",
	[PROGRESS_UNCOOPERATIVE] = "uncooperative",
};
static_assert(sizeof(names) / sizeof(names[0]) == PROGRESS_STATE_COUNT, "a name for each state");

static uint64_t distance(const struct progress *p)
{
	return p->target > p->actual ? p->target - p->actual : p->actual - p->target;
}

static uint64_t age(uint64_t now_ms, uint64_t then_ms)
{
	return now_ms > then_ms ? now_ms - then_ms : 0;
}

/* The rate is measured from here. */
static void mark(struct progress *p, uint64_t now_ms)
{
	p->mark_ms = now_ms;
	p->mark_actual = p->actual;
}

static void begin(struct progress *p, uint64_t now_ms)
{
	p->began = distance(p);
	p->nearest = p->began;
	p->step = p->began;
	p->step_ms = now_ms;
	mark(p, now_ms);
}

void progress_init(struct progress *p, uint64_t actual, uint64_t now_ms)
{
	*p = (struct progress){.state = PROGRESS_REACHED, .target = actual, .actual = actual};
	begin(p, now_ms);
}

void progress_target(struct progress *p, uint64_t target, uint64_t now_ms)
{
	bool deaf = p->state == PROGRESS_UNCOOPERATIVE;

	if (target == p->target)
		return;
	p->target = target;
	begin(p, now_ms);
	if (distance(p) <= PROGRESS_NEAR)
		p->state = PROGRESS_REACHED;
	else if (!deaf)
		p->state = PROGRESS_MOVING;
}

void progress_actual(struct progress *p, uint64_t actual, uint64_t now_ms)
{
	p->actual = actual;
	if (distance(p) <= PROGRESS_NEAR) {
		p->state = PROGRESS_REACHED;
	} else if (p->state == PROGRESS_REACHED) {
		/* It has left by itself: it has all the time to come back. */
		p->state = PROGRESS_MOVING;
		begin(p, now_ms);
	}
	p->nearest = min_u64(p->nearest, distance(p));
	if (p->nearest + PROGRESS_STEP > p->step)
		return;
	/* A deaf guest that moves a step has heard. */
	if (p->state == PROGRESS_UNCOOPERATIVE) {
		p->state = PROGRESS_MOVING;
		mark(p, now_ms);
	}
	p->step = p->nearest;
	p->step_ms = now_ms;
}

void progress_skip(struct progress *p, uint64_t now_ms)
{
	if (p->state == PROGRESS_UNCOOPERATIVE)
		return;
	p->step_ms = now_ms;
	mark(p, now_ms);
}

/* Has an inflation become slow? Moves the mark when a window is over. */
static bool stalls(struct progress *p, uint64_t now_ms)
{
	uint64_t span = age(now_ms, p->mark_ms), taken;

	if (p->actual <= p->target || span < PROGRESS_STALL_MS)
		return false;
	taken = p->mark_actual > p->actual ? p->mark_actual - p->actual : 0;
	if (taken < PROGRESS_STALL_RATE / 1000 * min_u64(span, 3600000))
		return true;
	mark(p, now_ms);
	return false;
}

/* What time makes of a guest that is not there yet. */
static enum progress_state judge(struct progress *p, uint64_t now_ms)
{
	bool deaf =
		p->state == PROGRESS_UNCOOPERATIVE || age(now_ms, p->step_ms) >= PROGRESS_DEAF_MS;
	bool stalled = p->state == PROGRESS_STALLED && p->actual > p->target;

	if (deaf)
		return PROGRESS_UNCOOPERATIVE;
	return stalled || stalls(p, now_ms) ? PROGRESS_STALLED : PROGRESS_MOVING;
}

bool progress_update(struct progress *p, uint64_t now_ms)
{
	enum progress_state before = p->state;

	p->state = distance(p) <= PROGRESS_NEAR ? PROGRESS_REACHED : judge(p, now_ms);
	if (p->state == before)
		return false;
	/* What it did before it was called deaf does not make it hear. */
	if (p->state == PROGRESS_UNCOOPERATIVE)
		p->step = p->nearest;
	if (p->state == PROGRESS_STALLED)
		mark(p, now_ms);
	return true;
}

bool progress_stalls_again(struct progress *p, uint64_t now_ms)
{
	if (p->state != PROGRESS_STALLED || !stalls(p, now_ms))
		return false;
	mark(p, now_ms);
	return true;
}

bool progress_pending(const struct progress *p)
{
	return p->state == PROGRESS_MOVING || p->state == PROGRESS_STALLED;
}

bool progress_has_moved(const struct progress *p)
{
	return p->began > p->nearest && p->began - p->nearest >= PROGRESS_NEAR;
}

uint64_t progress_back_off(const struct progress *p, uint64_t size)
{
	uint64_t back = min_u64(PROGRESS_BACK_OFF, size / PROGRESS_BACK_OFF_PART);

	return min_u64(p->actual + back, size);
}

const char *progress_name(enum progress_state state)
{
	return names[state];
}
