// SPDX-License-Identifier: MIT
/* What the manager does to one VM: decide, move, release, learn, and look after it. */
#include "base/checked.h"
#include "manager/parts.h"

static bool is_stale(const struct manager *m, const struct manager_vm *v)
{
	return sub_u64(m->now_ms, v->last.at_ms) > m->config.stale_ms;
}

/* Is its last word on memory from before its last fall, or is the fall not over? */
static bool is_pending(const struct manager_vm *v, const struct balance_vm *b)
{
	return progress_pending(&v->progress) ||
	       (b->lowered_ms && v->demand.measured_ms < b->lowered_ms);
}

static uint32_t flags_of(const struct manager *m, const struct manager_vm *v,
			 const struct balance_vm *b)
{
	uint32_t flags = b->flags & BALANCE_LEARNED_HARD;

	if (v->driver == MANAGER_DRIVER_NONE)
		flags |= BALANCE_NO_DRIVER;
	if (!v->demand.known || v->driver == MANAGER_DRIVER_NO_STATS)
		flags |= BALANCE_NO_STATISTICS;
	else if (is_stale(m, v))
		flags |= BALANCE_STALE;
	if (v->health == HEALTH_UNRESPONSIVE)
		flags |= BALANCE_UNRESPONSIVE;
	if (v->health == HEALTH_PAUSED)
		flags |= BALANCE_PAUSED;
	if (v->progress.state == PROGRESS_UNCOOPERATIVE)
		flags |= BALANCE_UNCOOPERATIVE;
	if (v->failing)
		flags |= BALANCE_INHIBITED;
	if (is_pending(v, b))
		flags |= BALANCE_PENDING;
	if (v->emergency_end_ms)
		flags |= BALANCE_EMERGENCY;
	if (v->judgement.weak && v->judgement.verdict > VERDICT_FINE)
		flags |= BALANCE_CAREFUL;
	return flags;
}

static enum reason need_reason(const struct manager_vm *v)
{
	if (v->pressure_ms && v->pressure_ms > v->demand.at_ms)
		return REASON_LOW_PRESSURE;
	if (v->judgement.verdict == VERDICT_STRUGGLING)
		return REASON_LOW_PRESSURE;
	return v->demand.short_run ? REASON_SHORT : REASON_GROWTH;
}

void manager_refresh(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];

	balance_account(&m->plan, b, true);
	b->flags = flags_of(m, v, b);
	b->used = v->demand.used;
	b->working = v->demand.working;
	b->headroom = v->demand.headroom;
	b->cache = v->demand.cache;
	/* What was taken since then was free, if anything was. */
	b->free = sub_u64(v->demand.idle, sub_u64(v->demand.last_actual, b->actual));
	b->need_reason = need_reason(v);
	balance_goal(&m->plan, b);
	balance_account(&m->plan, b, false);
}

bool manager_is_urgent(const struct decision *d)
{
	if (d->action == ACTION_RELEASE)
		return true;
	return d->action == ACTION_GIVE && d->reason != REASON_PLENTY;
}

static void describe(const struct manager *m, uint32_t slot, struct decision *d)
{
	const struct manager_vm *v = &m->vms[slot];
	const struct balance_vm *b = &m->balance[slot];
	bool known = v->demand.known;

	d->at_ms = m->now_ms;
	d->verdict = v->judgement.verdict;
	d->pressure = v->pressure;
	d->actual = b->actual;
	d->used = known ? v->demand.used : DECISION_UNKNOWN;
	d->working = known ? v->demand.working : DECISION_UNKNOWN;
	d->available = known ? v->demand.available : DECISION_UNKNOWN;
	d->growth = known ? v->demand.growth : DECISION_UNKNOWN;
	d->learned = b->learned;
	d->age_ms = known ? sub_u64(m->now_ms, v->last.at_ms) : DECISION_UNKNOWN;
}

void manager_decide(struct manager *m, uint32_t slot, uint64_t cap, struct decision *d)
{
	describe(m, slot, d);
	balance_decide(&m->plan, &m->balance[slot], cap, m->now_ms, d);
	m->vms[slot].standing = *d;
}

void manager_send(struct manager *m, uint32_t slot)
{
	/* What was refused before it only observed is not tried again now. */
	if (m->config.observe)
		return;
	m->calls++;
	m->vms[slot].sent_ms = m->now_ms;
	m->ops->set_target(m->opaque, slot, m->balance[slot].target);
}

/* Only observing, the same thing is found in each pass, and told once. */
static bool is_told(const struct manager *m, uint32_t slot, const struct decision *d)
{
	const struct decision *last = manager_decision(m, slot, 0);

	return m->config.observe && last && last->action == d->action &&
	       last->reason == d->reason && last->from == d->from && last->to == d->to;
}

void manager_move(struct manager *m, uint32_t slot, const struct decision *d)
{
	struct manager_vm *v = &m->vms[slot];
	struct manager_event event = {.kind = MANAGER_EVENT_DECISION, .decision = d};
	enum progress_state before = v->progress.state;

	if (is_told(m, slot, d))
		return;
	v->newest = (uint8_t)((v->newest + 1) % MANAGER_DECISIONS);
	v->ring[v->newest] = *d;
	v->decisions = (uint8_t)min_u64(v->decisions + 1U, MANAGER_DECISIONS);
	v->standing = *d;
	if (!m->config.observe) {
		m->moves++;
		balance_apply(&m->plan, &m->balance[slot], d, m->now_ms);
		progress_target(&v->progress, d->to, m->now_ms);
		manager_refresh(m, slot);
		manager_send(m, slot);
	}
	manager_tell(m, slot, &event);
	manager_tell_end(m, slot, before);
}

void manager_move_to(struct manager *m, uint32_t slot, uint64_t to, enum reason reason)
{
	struct balance_vm *b = &m->balance[slot];
	struct decision d;

	to = to < b->ceiling ? max_u64(b->floor, grain_down(b->size, to)) : b->ceiling;
	if (to == b->target)
		return;
	manager_decide(m, slot, 0, &d);
	d.action = to > b->target ? ACTION_GIVE : ACTION_TAKE;
	d.reason = reason;
	d.to = to;
	manager_move(m, slot, &d);
}

void manager_learn(struct manager *m, uint32_t slot, uint64_t bytes, bool hard)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];
	bool again = v->learned_span_ms && m->now_ms < later(v->learned_end_ms, v->learned_span_ms);

	balance_account(&m->plan, b, true);
	b->learned = min_u64(max_u64(b->learned, bytes), b->ceiling);
	/* Once it has suffered, memory that it could not give is memory that it needs. */
	b->flags &= ~(uint32_t)BALANCE_LEARNED_HARD;
	if (hard)
		b->flags |= BALANCE_LEARNED_HARD;
	balance_account(&m->plan, b, false);
	v->learned_span_ms = again ? min_u64(2 * v->learned_span_ms, MANAGER_LEARNED_MAX_MS)
				   : MANAGER_LEARNED_MS;
	v->learned_end_ms = later(m->now_ms, v->learned_span_ms);
	v->learned_used = v->demand.known ? v->demand.used : 0;
	v->learned_free = v->demand.known ? v->demand.free : 0;
}

/* How often it had to be learned is remembered for a while. */
void manager_unlearn(struct manager *m, uint32_t slot, uint64_t to)
{
	struct balance_vm *b = &m->balance[slot];

	if (b->learned <= to)
		return;
	balance_account(&m->plan, b, true);
	b->learned = to;
	if (!to)
		b->flags &= ~(uint32_t)BALANCE_LEARNED_HARD;
	balance_account(&m->plan, b, false);
}

/*
 * Its commands are refused, perhaps for so long that they are tried seldom. An emergency does not
 * wait for that: what it was told is sent again now, if it is not sent anyway, unless it was a
 * moment ago; and soon again if that is refused as well.
 */
static void try_soon(struct manager *m, uint32_t slot, bool sent_anyway)
{
	struct manager_vm *v = &m->vms[slot];
	bool due = m->now_ms >= later(v->sent_ms, MANAGER_REFUSED_MS);

	v->refused_span_ms = 0;
	v->refused_ms = later(sent_anyway || due ? m->now_ms : v->sent_ms, MANAGER_REFUSED_MS);
	if (due && !sent_anyway)
		manager_send(m, slot);
}

void manager_emergency(struct manager *m, uint32_t slot, enum reason reason)
{
	manager_emergency_with(m, slot, reason,
			       demand_kept(&m->vms[slot].demand, m->balance[slot].actual));
}

void manager_emergency_with(struct manager *m, uint32_t slot, enum reason reason, uint64_t kept)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];
	struct decision d;

	if (v->driver == MANAGER_DRIVER_NONE)
		return;
	if (!v->emergency_end_ms) {
		b->emergency_reason = reason;
		/* What it had was not enough. Somebody who had it all teaches nothing. */
		if (b->target < b->ceiling && b->actual < b->ceiling)
			manager_learn(m, slot, kept + b->size / 16, false);
	}
	v->emergency_end_ms = later(m->now_ms, MANAGER_EMERGENCY_MS);
	manager_refresh(m, slot);
	manager_decide(m, slot, 0, &d);
	if (v->failing)
		try_soon(m, slot, d.action == ACTION_RELEASE);
	if (d.action == ACTION_RELEASE) {
		v->releases++;
		manager_move(m, slot, &d);
		manager_hurry(m);
	}
}

void manager_tell_progress(struct manager *m, uint32_t slot)
{
	struct manager_event event = {.kind = MANAGER_EVENT_PROGRESS,
				      .progress = m->vms[slot].progress.state};

	manager_tell(m, slot, &event);
}

void manager_tell_end(struct manager *m, uint32_t slot, enum progress_state before)
{
	if (before >= PROGRESS_STALLED && m->vms[slot].progress.state != before)
		manager_tell_progress(m, slot);
}

/* It cannot give what it was asked for: some of it is given back, and not asked for again soon. */
static void back_off(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];
	uint64_t more = progress_back_off(&v->progress, b->size) - v->progress.actual;

	/* One that does nothing at all, and has memory, does not hear: that takes longer to say. */
	if (!progress_has_moved(&v->progress) && !demand_is_short(&v->demand, b->size))
		return;
	v->backed_off = true;
	more = min_u64(more, balance_room_need(&m->plan));
	manager_learn(m, slot, max_u64(b->actual + more, b->target), true);
	manager_refresh(m, slot);
	if (b->actual + more > b->target)
		manager_move_to(m, slot, b->actual + more, REASON_STALLED);
}

static void turn_deaf(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];

	v->retry_span_ms = v->retry_span_ms ? min_u64(2 * v->retry_span_ms, MANAGER_RETRY_MAX_MS)
					    : MANAGER_RETRY_MS;
	v->retry_ms = later(m->now_ms, v->retry_span_ms);
}

/* A guest that hangs, stands still or refuses is not blamed for being slow as well. */
static bool is_excused(const struct manager_vm *v)
{
	return v->driver == MANAGER_DRIVER_NONE || v->health == HEALTH_UNRESPONSIVE ||
	       v->health == HEALTH_PAUSED || v->failing;
}

static void watch_progress(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];
	enum progress_state before = v->progress.state;

	if (is_excused(v)) {
		progress_skip(&v->progress, m->now_ms);
		return;
	}
	if (before == PROGRESS_UNCOOPERATIVE && m->now_ms >= v->retry_ms) {
		/* Another chance, with a fresh command. */
		progress_init(&v->progress, v->progress.actual, m->now_ms);
		progress_target(&v->progress, m->balance[slot].target, m->now_ms);
		manager_tell_progress(m, slot);
		manager_send(m, slot);
		return;
	}
	if (!progress_update(&v->progress, m->now_ms)) {
		/* It may do something at last, and still be slow. */
		if (!v->backed_off && progress_stalls_again(&v->progress, m->now_ms))
			back_off(m, slot);
		return;
	}
	if (v->progress.state == PROGRESS_UNCOOPERATIVE)
		turn_deaf(m, slot);
	if (v->progress.state >= PROGRESS_STALLED || before >= PROGRESS_STALLED)
		manager_tell_progress(m, slot);
	v->backed_off = false;
	if (v->progress.state == PROGRESS_STALLED)
		back_off(m, slot);
}

/* A promise that nobody answered to is not kept for ever: a guest that hangs does not take it up.
 */
static void take_back_promise(struct manager *m, uint32_t slot)
{
	struct balance_vm *b = &m->balance[slot];
	uint64_t needed = max_u64(b->actual, min_u64(b->target, b->level[LEVEL_NEED]));

	if (!(b->flags & BALANCE_UNRESPONSIVE) ||
	    b->flags & (BALANCE_EMERGENCY | BALANCE_NO_DRIVER))
		return;
	/* It is not asked for any of that. */
	needed = grain_up(b->size, needed);
	if (b->target > needed + BALANCE_GRAIN)
		manager_move_to(m, slot, needed, REASON_UNRESPONSIVE);
}

/* Is the emergency over? Sooner when it has brought more than there is, and was enough. */
static bool is_over(const struct manager *m, const struct manager_vm *v, const struct balance_vm *b)
{
	uint64_t least =
		sub_u64(v->emergency_end_ms, MANAGER_EMERGENCY_MS - MANAGER_EMERGENCY_MIN_MS);

	if (!v->emergency_end_ms || m->now_ms >= v->emergency_end_ms)
		return v->emergency_end_ms;
	return m->plan.known && m->plan.promised > m->plan.budget && m->now_ms >= least &&
	       v->demand.known && v->demand.measured_ms > b->raised_ms &&
	       v->judgement.verdict < VERDICT_STRUGGLING && !demand_is_short(&v->demand, b->size);
}

void manager_upkeep(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];

	watch_progress(m, slot);
	if (v->failing && m->now_ms >= v->refused_ms) {
		v->refused_ms = later(m->now_ms, max_u64(v->refused_span_ms, MANAGER_REFUSED_MS));
		manager_send(m, slot);
	}
	if (b->learned && m->now_ms >= v->learned_end_ms)
		manager_unlearn(m, slot, 0);
	if (is_over(m, v, b)) {
		balance_account(&m->plan, b, true);
		v->emergency_end_ms = 0;
		b->flags &= ~(uint32_t)BALANCE_EMERGENCY;
		balance_account(&m->plan, b, false);
	}
	manager_refresh(m, slot);
	take_back_promise(m, slot);
}
