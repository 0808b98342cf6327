// SPDX-License-Identifier: MIT
/*
 * From a goal to the next target: what goes at once, what waits, and how far one step goes. The
 * rules are asked in the order of balance_decide(); each either decides or leaves it to the next.
 */
#include "policy/balance.h"

#include "base/checked.h"
#include "policy/demand.h"

/* What one rule looks at. */
struct view {
	const struct balance_plan *plan;
	const struct balance_vm *vm;
	uint64_t cap, comfort; /* how much more may be promised */
	uint64_t now_ms;
};

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sub_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static bool settle(struct decision *d, enum action action, enum reason reason, uint64_t to)
{
	d->action = action;
	d->reason = reason;
	d->to = to;
	return true;
}

static bool keep(struct decision *d, enum reason reason)
{
	return settle(d, ACTION_KEEP, reason, d->from);
}

/* Is it less than ms since then? 0 is never; a clock that went back stands still. */
static bool within_ms(uint64_t now_ms, uint64_t then_ms, uint64_t ms)
{
	return then_ms && sub_u64(now_ms, then_ms) < ms;
}

uint64_t balance_room_need(const struct balance_plan *plan)
{
	return plan->known ? sub_u64(plan->budget, plan->promised - plan->surplus) : 0;
}

uint64_t balance_room_comfort(const struct balance_plan *plan)
{
	return plan->known ? sub_u64(sub_u64(plan->budget, plan->promised), plan->pool) : 0;
}

/* Down from a wish to a target that may be told. */
static uint64_t grain(const struct balance_vm *vm, uint64_t wish)
{
	uint64_t balloon = align_up(sub_u64(vm->size, wish), BALANCE_GRAIN);

	return max_u64(vm->floor, min_u64(sub_u64(vm->size, balloon), vm->ceiling));
}

static bool emergency(const struct view *v, struct decision *d)
{
	if (!(v->vm->flags & BALANCE_EMERGENCY) || v->vm->flags & BALANCE_NO_DRIVER)
		return false;
	if (v->vm->target < v->vm->ceiling)
		return settle(d, ACTION_RELEASE, v->vm->emergency_reason, v->vm->ceiling);
	return keep(d, REASON_EMERGENCY);
}

/* Those of whom a fall of the target cannot be asked, not even by the operator. */
#define OUT_OF_REACH                                                                         \
	(BALANCE_NO_DRIVER | BALANCE_UNRESPONSIVE | BALANCE_PAUSED | BALANCE_UNCOOPERATIVE | \
	 BALANCE_INHIBITED)

/* The operator's bounds hold for everybody, and at once: no step is too large for an order. */
static bool bounds(const struct view *v, struct decision *d)
{
	if (v->vm->target < v->vm->floor)
		return settle(d, ACTION_GIVE, REASON_BOUNDS, v->vm->floor);
	if (v->vm->target > v->vm->ceiling && !(v->vm->flags & OUT_OF_REACH))
		return settle(d, ACTION_TAKE, REASON_BOUNDS, v->vm->ceiling);
	return false;
}

static bool fixed(const struct view *v, struct decision *d)
{
	/* The first of these that holds is the one that is named. */
	static const struct {
		enum balance_flag flag;
		enum reason reason;
	} why[] = {
		{BALANCE_NO_DRIVER, REASON_NO_DRIVER},
		{BALANCE_PAUSED, REASON_PAUSED},
		{BALANCE_UNRESPONSIVE, REASON_UNRESPONSIVE},
		{BALANCE_INHIBITED, REASON_INHIBITED},
		{BALANCE_UNCOOPERATIVE, REASON_UNCOOPERATIVE},
		{BALANCE_NO_STATISTICS, REASON_NO_STATISTICS},
		{BALANCE_STALE, REASON_STALE},
	};

	for (size_t i = 0; i < sizeof(why) / sizeof(why[0]); i++) {
		if (v->vm->flags & why[i].flag)
			return keep(d, why[i].reason);
	}
	return v->plan->known ? false : keep(d, REASON_NO_HOST);
}

static enum reason why_needed(const struct balance_vm *vm)
{
	if (vm->learned && vm->level[LEVEL_NEED] <= vm->learned && !vm->headroom)
		return REASON_RELEARNED;
	return vm->need_reason;
}

/* Raises to what it needs and deserves, at once, as far as there is room. */
static bool need(const struct view *v, struct decision *d)
{
	const struct balance_vm *vm = v->vm;
	uint64_t deserved = min_u64(vm->goal, vm->level[LEVEL_NEED]), to;
	uint64_t slack = 0;

	/* Above BARE a quarter of the margin is no reason to move. */
	if (vm->target >= vm->level[LEVEL_BARE])
		slack = vm->size / (BALANCE_LOWER_PART * 2);
	if (deserved < vm->target + max_u64(slack, BALANCE_GRAIN))
		return false;
	to = grain(vm, min_u64(deserved, balance_promised(vm) + v->cap));
	if (to <= vm->target)
		return keep(d, REASON_NO_ROOM);
	return settle(d, ACTION_GIVE, why_needed(vm), to);
}

/* Raises for comfort wait until the last fall is some time ago, and leave the pool alone. */
static bool comfort(const struct view *v, struct decision *d)
{
	const struct balance_vm *vm = v->vm;
	uint64_t band = max_u64(vm->size / BALANCE_RAISE_PART, 2 * BALANCE_GRAIN), to;

	if (vm->goal <= vm->target || vm->target < min_u64(vm->goal, vm->level[LEVEL_BARE]))
		return false;
	/* The last bit to the top is worth a command: then the balloon is empty. */
	if (vm->goal < vm->target + band && vm->goal < vm->ceiling)
		return keep(d, REASON_SETTLED);
	if (within_ms(v->now_ms, vm->lowered_ms, BALANCE_AFTER_LOWER_MS))
		return keep(d, REASON_JUST_MOVED);
	to = grain(vm, min_u64(vm->goal, balance_promised(vm) + v->comfort));
	if (to <= vm->target || (to < vm->target + band && to < vm->goal))
		return keep(d, REASON_NO_ROOM);
	return settle(d, ACTION_GIVE, REASON_PLENTY, to);
}

static uint64_t step_of(const struct view *v)
{
	const struct balance_vm *vm = v->vm;
	uint64_t part = v->plan->scarce ? BALANCE_STEP_SCARCE_PART : BALANCE_STEP_PART;
	uint64_t bare = vm->used + demand_margin(vm->used, vm->size) / 2;
	uint64_t idle = sub_u64(vm->target, bare);
	uint64_t step = max_u64(vm->free - vm->free / 4, vm->size / part);

	if (vm->flags & BALANCE_CAREFUL)
		step /= 4;
	/* What is in use is taken a little at a time: it has to be swapped, or cannot be had. */
	step = min_u64(step, max_u64(idle, vm->size / BALANCE_STEP_USED_PART));
	return max_u64(step, BALANCE_GRAIN);
}

/*
 * What was found that it cannot give, or cannot do without, is not asked for again before that is
 * forgotten, however scarce memory is: the guest would thrash and get everything back, again and
 * again.
 */
static uint64_t least(const struct view *v)
{
	const struct balance_vm *vm = v->vm;

	if (v->plan->desperate && !(vm->flags & BALANCE_LEARNED_HARD))
		return vm->goal;
	return max_u64(vm->goal, min_u64(vm->learned, vm->ceiling));
}

static enum reason why_taken(const struct view *v)
{
	if (v->plan->reservation)
		return REASON_RESERVATION;
	if (v->plan->scarce)
		return REASON_SCARCE;
	return v->plan->host_pressed ? REASON_HOST : REASON_IDLE;
}

/* Takes a step down, unless something speaks against it. */
static bool take(const struct view *v, struct decision *d)
{
	const struct balance_vm *vm = v->vm;
	const struct balance_plan *plan = v->plan;
	bool over = plan->promised - plan->surplus > plan->budget;
	uint64_t band =
		over ? BALANCE_GRAIN : max_u64(vm->size / BALANCE_LOWER_PART, 2 * BALANCE_GRAIN);
	uint64_t hold = plan->scarce ? BALANCE_AFTER_RAISE_SCARCE_MS : BALANCE_AFTER_RAISE_MS;
	uint64_t to;

	if (vm->goal + band > vm->target)
		return false;
	if (vm->flags & BALANCE_PENDING)
		return keep(d, REASON_PENDING);
	if (!plan->reservation && within_ms(v->now_ms, vm->raised_ms, hold))
		return keep(d, REASON_JUST_MOVED);
	to = grain(vm, max_u64(least(v), sub_u64(vm->target, step_of(v))));
	if (to >= vm->target)
		return keep(d, REASON_LEARNED);
	return settle(d, ACTION_TAKE, why_taken(v), to);
}

static bool settled(const struct view *v, struct decision *d)
{
	const struct balance_vm *vm = v->vm;

	if (vm->learned && vm->learned >= vm->level[LEVEL_NEED] &&
	    vm->goal <= vm->level[LEVEL_NEED])
		return keep(d, REASON_LEARNED);
	return keep(d, REASON_SETTLED);
}

void balance_decide(const struct balance_plan *plan, const struct balance_vm *vm, uint64_t cap,
		    uint64_t now_ms, struct decision *d)
{
	static bool (*const rules[])(const struct view *, struct decision *) = {
		emergency, bounds, fixed, need, comfort, take, settled,
	};
	struct view v = {
		.plan = plan,
		.vm = vm,
		.cap = cap,
		.comfort = min_u64(cap, balance_room_comfort(plan)),
		.now_ms = now_ms,
	};

	d->from = vm->target;
	d->goal = vm->goal;
	d->budget = plan->known ? plan->budget : DECISION_UNKNOWN;
	d->room = balance_room_need(plan);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		if (rules[i](&v, d))
			return;
	}
}

void balance_account(struct balance_plan *plan, const struct balance_vm *vm, bool before)
{
	uint64_t promised = balance_promised(vm), surplus = balance_surplus(vm);

	plan->promised = before ? plan->promised - promised : plan->promised + promised;
	plan->surplus = before ? plan->surplus - surplus : plan->surplus + surplus;
}

void balance_apply(struct balance_plan *plan, struct balance_vm *vm, const struct decision *d,
		   uint64_t now_ms)
{
	balance_account(plan, vm, true);
	vm->target = d->to;
	balance_account(plan, vm, false);
	/* A moment of 0 would read as never. */
	if (d->to > d->from)
		vm->raised_ms = max_u64(now_ms, 1);
	else if (d->to < d->from)
		vm->lowered_ms = max_u64(now_ms, 1);
}
