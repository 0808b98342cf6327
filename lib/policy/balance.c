// SPDX-License-Identifier: MIT
/*
 * Levels, shares and goals: where everybody should be. How they get there is in move.c.
 *
 * The share of the level that is filled in part is found by Newton's method: what is filled is a
 * concave function of the share, with a bend where a VM becomes full. Each step assumes that nobody
 * else becomes full, so it ends at or below the true share, and the next goes on with those who are
 * not full there; with equal weights the first is exact. Rounding, too, only ever gives less.
 */
#include "policy/balance.h"

#include "base/checked.h"
#include "policy/demand.h"

typedef unsigned __int128 u128;

#define ONE_Q32    (1ULL << 32)
#define STEPS_MAX  16 /* each takes out at least one weight; what is left then is rounding */
#define SIZE_LIMIT (BALANCE_SIZE_MAX - 1)

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sub_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static bool is_fixed(const struct balance_vm *vm)
{
	return vm->flags & BALANCE_FIXED;
}

/* value * factor / 2^32 */
static uint64_t mul_q32(uint64_t value, uint64_t factor)
{
	return (uint64_t)((u128)value * factor >> 32);
}

static uint64_t extra_reserve(const struct balance_host *host)
{
	uint64_t psi = max_u64(host->some_centi, 4ULL * host->full_centi);
	uint64_t over = min_u64(sub_u64(psi, BALANCE_PSI_LOW), BALANCE_PSI_HIGH - BALANCE_PSI_LOW);

	return host->reserve / (BALANCE_PSI_HIGH - BALANCE_PSI_LOW) * over;
}

uint64_t balance_budget(const struct balance_host *host)
{
	uint64_t budget = host->budget ? host->budget : UINT64_MAX;
	uint64_t backed;

	if (host->known) {
		if (!checked_add(host->resident, host->available, &backed))
			backed = UINT64_MAX;
		backed = sub_u64(backed, host->reserve);
		budget = min_u64(budget, sub_u64(backed, extra_reserve(host)));
	}
	return budget;
}

uint64_t balance_pool(uint64_t budget, uint64_t surplus, uint64_t room_above, uint64_t largest)
{
	uint64_t goal = max_u64(budget / BALANCE_POOL_PART, largest);

	/* No more than anybody could ever ask for: none when everybody can be full. */
	goal = min_u64(goal, sub_u64(room_above, surplus));
	return min_u64(goal, surplus / 4);
}

uint64_t balance_promised(const struct balance_vm *vm)
{
	if (vm->flags & BALANCE_NO_DRIVER)
		return vm->size;
	return max_u64(vm->target, vm->actual);
}

uint64_t balance_surplus(const struct balance_vm *vm)
{
	if (!(vm->flags & BALANCE_EMERGENCY) || is_fixed(vm))
		return 0;
	return sub_u64(balance_promised(vm), vm->level[LEVEL_NEED]);
}

static uint64_t within(uint64_t value, uint64_t low, uint64_t high)
{
	return max_u64(low, min_u64(value, high));
}

/*
 * What is in use, and a bit: to take that makes a guest thrash, and brings nothing. Of those below
 * the usual weight only a part of it is protected: between them and others, weights decide.
 */
static uint64_t protected_use(const struct balance_vm *vm, uint64_t used)
{
	uint64_t in_use = used + demand_margin(used, vm->size) / 4;

	if (vm->weight >= BALANCE_WEIGHT_DEFAULT || in_use <= vm->floor)
		return in_use;
	return vm->floor + (in_use - vm->floor) / BALANCE_WEIGHT_DEFAULT * vm->weight;
}

void balance_levels(struct balance_vm *vm)
{
	uint64_t used = min_u64(vm->used, vm->size), working = min_u64(vm->working, vm->size);
	uint64_t headroom = min_u64(vm->headroom, vm->size);
	uint64_t learned = min_u64(vm->learned, vm->size);
	uint64_t half = demand_margin(used, vm->size) / 2;
	uint64_t whole = demand_margin(working, vm->size);
	uint64_t top = vm->ceiling, *level = vm->level;

	level[LEVEL_FLOOR] = within(protected_use(vm, used), min_u64(vm->floor, top), top);
	level[LEVEL_BARE] = within(used + half + headroom, level[LEVEL_FLOOR], top);
	/* What it cannot give need not be asked for; what it suffered from is only worth avoiding.
	 */
	if (vm->flags & BALANCE_LEARNED_HARD)
		level[LEVEL_BARE] = within(learned, level[LEVEL_BARE], top);
	level[LEVEL_NEED] =
		within(max_u64(working + whole + headroom, learned), level[LEVEL_BARE], top);
	level[LEVEL_WANT] = within(level[LEVEL_NEED] + min_u64(vm->cache, vm->size) / 2,
				   level[LEVEL_NEED], top);
	level[LEVEL_CEILING] = top;
}

/* What a VM is told is a whole number of grains below its size, and within its bounds. */
static uint64_t to_grain(const struct balance_vm *vm, uint64_t keep)
{
	uint64_t balloon = sub_u64(vm->size, keep), up = align_up(balloon, BALANCE_GRAIN);

	keep = sub_u64(vm->size, up);
	return within(keep, vm->floor, vm->ceiling);
}

void balance_goal(const struct balance_plan *plan, struct balance_vm *vm)
{
	uint64_t low, step, part;

	balance_levels(vm);
	if (is_fixed(vm) || !plan->known) {
		vm->goal = vm->target;
		return;
	}
	if (plan->level == LEVEL_FLOOR) {
		vm->goal = to_grain(vm, vm->level[LEVEL_FLOOR]);
		return;
	}
	low = vm->level[plan->level - 1];
	step = vm->level[plan->level] - low;
	part = min_u64(plan->share_q32 * vm->weight, ONE_Q32);
	vm->goal = to_grain(vm, low + mul_q32(step, part));
}

/*
 * What counts of a VM's level when memory is handed out. An emergency has all that it may have:
 * what that is above its NEED was taken off before (plan->surplus), and nothing is left to give.
 */
static uint64_t counted(const struct balance_vm *vm, unsigned int level)
{
	if (level > LEVEL_NEED && vm->flags & BALANCE_EMERGENCY)
		level = LEVEL_NEED;
	return vm->level[level];
}

/* How much of a level VMs of that share get, and what those weigh that are not full yet. */
struct filled {
	uint64_t full; /* bytes that those need who are full */
	u128 weighted; /* sum of weight times step of the others */
};

static struct filled fill(const struct balance_vm *vms, size_t n, enum level level,
			  uint64_t share_q32)
{
	struct filled f = {0, 0};

	for (size_t i = 0; i < n; i++) {
		const struct balance_vm *vm = &vms[i];
		uint64_t step;

		if (!vm->size || is_fixed(vm))
			continue;
		step = counted(vm, level) - counted(vm, level - 1);
		if (share_q32 && share_q32 * vm->weight >= ONE_Q32)
			f.full += step;
		else
			f.weighted += (u128)step * vm->weight;
	}
	return f;
}

/* The share for weight 1 at which `amount` is handed out on that level. */
static uint64_t share_of(const struct balance_vm *vms, size_t n, enum level level, uint64_t amount)
{
	uint64_t share = 0;

	for (int i = 0; i < STEPS_MAX; i++) {
		struct filled f = fill(vms, n, level, share);
		uint64_t next;

		if (!f.weighted || f.full >= amount)
			return share;
		next = (uint64_t)(((u128)(amount - f.full) << 32) / f.weighted);
		/* Those who are full stay full: the share only rises. */
		if (next <= share)
			return share;
		share = next;
	}
	return share;
}

/* What could be asked for above the BARE levels: by all, and by one of them. */
struct above {
	uint64_t all, largest;
};

static void gather(struct balance_vm *vms, size_t n, struct balance_plan *plan, struct above *above)
{
	*above = (struct above){0, 0};
	for (size_t i = 0; i < n; i++) {
		struct balance_vm *vm = &vms[i];

		if (!vm->size)
			continue;
		balance_levels(vm);
		plan->promised += balance_promised(vm);
		plan->surplus += balance_surplus(vm);
		if (is_fixed(vm)) {
			plan->fixed += balance_promised(vm);
			continue;
		}
		for (unsigned int l = 0; l < LEVEL_COUNT; l++)
			plan->sum[l] += counted(vm, l);
		above->all += vm->ceiling - vm->level[LEVEL_BARE];
		above->largest = max_u64(above->largest, vm->ceiling - vm->level[LEVEL_BARE]);
	}
}

static void choose_level(const struct balance_vm *vms, size_t n, uint64_t amount,
			 struct balance_plan *plan)
{
	int level = LEVEL_FLOOR;

	plan->share_q32 = 0;
	while (level < LEVEL_CEILING && plan->sum[level] <= amount)
		level++;
	plan->level = (enum level)level;
	if (plan->sum[LEVEL_CEILING] <= amount)
		plan->share_q32 = ONE_Q32;
	else if (level > LEVEL_FLOOR)
		plan->share_q32 = share_of(vms, n, plan->level, amount - plan->sum[level - 1]);
}

static void set_goals(struct balance_vm *vms, size_t n, struct balance_plan *plan)
{
	for (size_t i = 0; i < n; i++) {
		struct balance_vm *vm = &vms[i];

		if (!vm->size)
			continue;
		balance_goal(plan, vm);
		if (!is_fixed(vm))
			plan->unmet += sub_u64(min_u64(vm->goal, vm->level[LEVEL_NEED]),
					       balance_promised(vm));
	}
}

void balance_plan(const struct balance_host *host, struct balance_vm *vms, size_t n,
		  struct balance_plan *plan)
{
	uint64_t budget = balance_budget(host), live, surplus, amount;
	struct above above;

	*plan = (struct balance_plan){.known = budget != UINT64_MAX};
	gather(vms, n, plan, &above);
	plan->budget = sub_u64(budget, host->reserved);
	plan->reservation = host->reservation;
	plan->desperate = host->known && host->available < host->reserve / BALANCE_DESPERATE_PART;
	plan->host_pressed = host->known && extra_reserve(host) > 0;
	if (!plan->known)
		plan->budget = UINT64_MAX;
	live = sub_u64(plan->budget, plan->fixed);
	surplus = sub_u64(live, plan->sum[LEVEL_BARE]);
	plan->pool = balance_pool(plan->budget, surplus, above.all, above.largest);
	/* What emergencies hold beyond their needs is not there for anybody's comfort. */
	amount = live - plan->pool;
	amount -= min_u64(plan->surplus, sub_u64(amount, plan->sum[LEVEL_NEED]));
	choose_level(vms, n, amount, plan);
	set_goals(vms, n, plan);
	plan->scarce = live < plan->sum[LEVEL_NEED] ||
		       plan->promised - plan->surplus > plan->budget || plan->reservation;
}
