// SPDX-License-Identifier: MIT
/* What guests and their monitors say. */
#include "base/checked.h"
#include "manager/parts.h"

/* Less than the 256 pages that a stock driver takes back at once. */
#define TOOK_BACK (256ULL << 10)

/*
 * Is what was learned of the guest void? One that uses a quarter less is in another phase; and one
 * that has more memory free than then can give that, whatever it could not give before.
 */
static bool is_outdated(const struct manager_vm *v, const struct balance_vm *b)
{
	if (v->demand.used < v->learned_used - v->learned_used / 4)
		return true;
	return b->flags & BALANCE_LEARNED_HARD && v->demand.free > v->learned_free + b->size / 8;
}

/*
 * What a guest does not take up of what it was given, it was not in need of; but as much as it had
 * free when it suffered it needs to be free.
 */
static void ease(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];
	uint64_t spare = sub_u64(v->demand.spare, v->learned_free);

	if (is_outdated(v, b))
		manager_unlearn(m, slot, 0);
	else if (spare && !(b->flags & BALANCE_LEARNED_HARD))
		manager_unlearn(m, slot, sub_u64(b->actual, spare) + b->size / 16);
}

static void set_health(struct manager *m, uint32_t slot, enum health_state health)
{
	struct manager_vm *v = &m->vms[slot];
	struct manager_event event = {.kind = MANAGER_EVENT_HEALTH, .health = health};
	bool was_silent = v->health == HEALTH_UNRESPONSIVE || v->health == HEALTH_PAUSED;

	if (v->health == health)
		return;
	/* A guest that does not run does not answer: a row of silences ends there. */
	if (v->health == HEALTH_PAUSED || health == HEALTH_PAUSED)
		v->unanswered = 0;
	v->health = health;
	if (was_silent)
		progress_skip(&v->progress, m->now_ms);
	manager_refresh(m, slot);
	manager_tell(m, slot, &event);
	/* Who falls silent when he is short of memory may be silent because of that. */
	if (health == HEALTH_UNRESPONSIVE && v->demand.known &&
	    (demand_is_short(&v->demand, m->balance[slot].size) ||
	     (v->judgement.verdict >= VERDICT_STRUGGLING && !v->judgement.weak)))
		manager_emergency(m, slot, REASON_SILENT_SHORT);
}

/* Did this manager take memory from it in the time that was judged, or does it still? */
static bool is_our_doing(const struct manager_vm *v, const struct balance_vm *b, uint64_t since_ms)
{
	bool inflating = progress_pending(&v->progress) && b->actual > b->target;

	return inflating || (b->lowered_ms && b->lowered_ms >= since_ms);
}

/*
 * The guest reclaims for us and has enough left: no more of that, and no alarm. One that has been
 * released since tells of what was before; nothing is taken from it, and nothing to be learned.
 */
static void stop_taking(struct manager *m, uint32_t slot)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];
	uint64_t kept = demand_kept(&v->demand, b->actual);

	if (v->emergency_end_ms)
		return;
	manager_learn(m, slot, max_u64(kept, b->target), true);
	manager_refresh(m, slot);
	if (kept > b->target)
		manager_move_to(m, slot, kept, REASON_STALLED);
}

/* A weak verdict is believed when it comes twice; until then it is answered like low pressure. */
static bool is_believed(struct manager_vm *v)
{
	if (!v->judgement.weak || v->judgement.verdict < VERDICT_PRESSED) {
		v->weak_run = 0;
		return true;
	}
	v->weak_run = (uint8_t)min_u64(v->weak_run + 1U, MANAGER_WEAK_RUN);
	return v->weak_run >= MANAGER_WEAK_RUN;
}

static void act_on_verdict(struct manager *m, uint32_t slot, uint64_t since_ms)
{
	struct manager_vm *v = &m->vms[slot];
	struct balance_vm *b = &m->balance[slot];
	enum verdict verdict = v->judgement.verdict;
	bool believed = is_believed(v);

	if (verdict == VERDICT_CRITICAL)
		v->oom_kills += v->judgement.numbers.kills;
	if (verdict == VERDICT_PRESSED && is_our_doing(v, b, since_ms) &&
	    !demand_is_short(&v->demand, b->size))
		stop_taking(m, slot);
	else if (verdict >= VERDICT_PRESSED && believed)
		manager_emergency(m, slot, REASON_VERDICT);
	else if (verdict >= VERDICT_STRUGGLING)
		demand_hint_short(&v->demand, b->actual);
}

/* Judges the new sample against the older. True if there is a verdict to act on. */
static bool judge(struct manager *m, uint32_t slot, const struct guest_stats *s)
{
	struct manager_vm *v = &m->vms[slot];
	struct judgement j;
	enum verdict before = v->judgement.verdict;
	struct manager_event event = {.kind = MANAGER_EVENT_VERDICT, .judgement = &v->judgement};

	if (!v->stats_ever) {
		v->base = *s;
		return false;
	}
	verdict_judge(&v->base, s, &j);
	if (j.reason == VERDICT_BY_SPAN && j.numbers.span_ms < VERDICT_SPAN_MIN_MS)
		return false;
	v->base = *s;
	v->judgement = j;
	if (j.reason == VERDICT_BY_BACKWARDS)
		demand_init(&v->demand);
	if (j.verdict != before)
		manager_tell(m, slot, &event);
	return true;
}

/* Meets a need that has grown, as far as there is room: the pass is too far away for that. */
static void meet_need(struct manager *m, uint32_t slot)
{
	struct decision d;

	if (!m->plan.known)
		return;
	manager_decide(m, slot, balance_room_need(&m->plan), &d);
	if (manager_is_urgent(&d))
		manager_move(m, slot, &d);
	else if (d.reason == REASON_NO_ROOM)
		manager_hurry(m);
}

void manager_stats(struct manager *m, uint32_t slot, const struct guest_stats *stats,
		   uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);
	struct guest_stats s = *stats;
	struct balance_vm *b;
	uint64_t since;
	bool moving, judged;

	now_ms = manager_now(m, now_ms);
	if (!v || v->driver == MANAGER_DRIVER_NONE)
		return;
	s.at_ms = min_u64(s.at_ms, now_ms);
	if (v->stats_ever && s.at_ms <= v->last.at_ms)
		return;
	b = &m->balance[slot];
	v->driver = MANAGER_DRIVER_FULL;
	v->unanswered = 0;
	v->heard_ms = now_ms;
	since = v->base.at_ms;
	judged = judge(m, slot, &s);
	moving = progress_pending(&v->progress) || s.at_ms < v->actual_ms;
	demand_sample(&v->demand, &s, b->size, b->actual, moving);
	v->last = s;
	v->stats_ever = true;
	if (v->health != HEALTH_PAUSED)
		set_health(m, slot, HEALTH_HEALTHY);
	/* What it uses when it can is what it was in need of. */
	if (v->emergency_end_ms)
		v->learned_used = max_u64(v->learned_used, v->demand.used);
	ease(m, slot);
	if (judged)
		act_on_verdict(m, slot, since);
	manager_refresh(m, slot);
	meet_need(m, slot);
}

/*
 * At rest at its target, a guest has more than it was told to keep: its driver took memory back by
 * itself, which it does (DEFLATE_ON_OOM) when it would have to kill otherwise.
 */
static bool took_back(const struct manager_vm *v, const struct balance_vm *b, uint64_t keeps)
{
	return v->progress.state == PROGRESS_REACHED && keeps > b->target &&
	       keeps > b->actual + TOOK_BACK;
}

void manager_actual(struct manager *m, uint32_t slot, uint64_t keeps, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);
	enum progress_state before;
	struct balance_vm *b;
	uint64_t kept;
	bool back;

	now_ms = manager_now(m, now_ms);
	if (!v)
		return;
	b = &m->balance[slot];
	keeps = min_u64(keeps, b->size);
	back = took_back(v, b, keeps);
	kept = demand_kept(&v->demand, b->actual);
	before = v->progress.state;
	progress_actual(&v->progress, keeps, now_ms);
	/* It has followed. One whose target came to where it stands has not. */
	if (before != PROGRESS_REACHED && v->progress.state == PROGRESS_REACHED)
		v->retry_span_ms = 0;
	manager_tell_end(m, slot, before);
	if (keeps == b->actual)
		return;
	v->actual_ms = now_ms;
	balance_account(&m->plan, b, true);
	b->actual = keeps;
	balance_account(&m->plan, b, false);
	manager_refresh(m, slot);
	if (back)
		manager_emergency_with(m, slot, REASON_TOOK_BACK, kept);
	/* Memory may have come back that somebody waits for. */
	if (m->plan.unmet || reserve_missing(&m->reserve))
		manager_hurry(m);
}

void manager_pressure(struct manager *m, uint32_t slot, uint32_t level, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);
	bool urgent = level != VIRTIO_BALLOON_PRESSURE_LOW &&
		      level != VIRTIO_BALLOON_PRESSURE_UNSPECIFIED;

	now_ms = manager_now(m, now_ms);
	if (!v)
		return;
	v->pressure = level;
	v->pressure_ms = max_u64(now_ms, 1);
	/* Of a guest without statistics nothing else is known. */
	if (urgent || !v->demand.known) {
		manager_emergency(m, slot, REASON_PRESSURE);
		return;
	}
	demand_hint_short(&v->demand, m->balance[slot].actual);
	manager_refresh(m, slot);
	meet_need(m, slot);
}

void manager_relieved(struct manager *m, uint32_t slot, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);

	now_ms = manager_now(m, now_ms);
	if (v && v->emergency_end_ms)
		v->emergency_end_ms =
			min_u64(v->emergency_end_ms, later(now_ms, MANAGER_EMERGENCY_MS / 2));
}

void manager_target_answered(struct manager *m, uint32_t slot, bool ok, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);
	struct manager_event event = {.kind = MANAGER_EVENT_REFUSED, .on = !ok};
	bool before;

	now_ms = manager_now(m, now_ms);
	if (!v)
		return;
	before = v->failing;
	v->failing = !ok;
	if (ok) {
		v->refused_span_ms = 0;
	} else {
		v->refused_span_ms =
			v->refused_span_ms ? min_u64(2 * v->refused_span_ms, MANAGER_REFUSED_MAX_MS)
					   : MANAGER_REFUSED_MS;
		v->refused_ms = later(now_ms, v->refused_span_ms);
	}
	if (before == v->failing)
		return;
	progress_skip(&v->progress, now_ms);
	manager_refresh(m, slot);
	manager_tell(m, slot, &event);
}

void manager_unanswered(struct manager *m, uint32_t slot, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);

	manager_now(m, now_ms);
	if (!v || v->driver == MANAGER_DRIVER_NONE || v->health == HEALTH_PAUSED)
		return;
	v->unanswered = (uint8_t)min_u64(v->unanswered + 1U, MANAGER_UNANSWERED_HUNG);
	if (v->unanswered >= MANAGER_UNANSWERED_HUNG)
		set_health(m, slot, HEALTH_UNRESPONSIVE);
	else if (v->unanswered >= MANAGER_UNANSWERED_SLOW && v->health != HEALTH_UNRESPONSIVE)
		set_health(m, slot, HEALTH_SLOW);
}

void manager_health(struct manager *m, uint32_t slot, enum health_state health, uint64_t now_ms)
{
	manager_now(m, now_ms);
	if (!manager_find(m, slot) || (unsigned int)health >= HEALTH_STATE_COUNT)
		return;
	set_health(m, slot, health);
}
