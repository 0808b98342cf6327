/* SPDX-License-Identifier: MIT */
/*
 * Who keeps how much of a host's memory.
 *
 * Each VM has five levels, each at least as high as the one before (bytes to keep):
 *
 *     FLOOR    the operator's floor, and what is in use now with a quarter of a margin
 *     BARE     what is in use, half a margin, and headroom for growth: less hurts at once
 *     NEED     what was used of late, a whole margin and headroom; or its learned floor
 *     WANT     and half of the caches that seem worth keeping
 *     CEILING  all that it may have
 *
 * What is in use cannot be had without harm, so it is protected like a floor; of VMs below the
 * usual weight only a part of it is.
 *
 * The budget is filled into the levels from below. A level that does not fit for all is filled in
 * part: each VM gets the same share of its own step there, times its weight (so a VM of twice the
 * weight is filled twice as fast). So those who have idle memory give first; nobody goes below BARE
 * before all that is idle elsewhere is gone; and if even that is not enough, weights decide between
 * FLOOR and BARE. FLOOR is promised whatever the budget is. Nobody is asked for what he was found
 * to suffer without, or not to be able to give (his learned floor), while that is remembered.
 *
 * Part of what is left above the BARE levels is given to nobody: the pool, out of which the next
 * burst is served without waiting for another guest's balloon (see balance_pool()). With room for
 * everybody's ceiling there is no pool, as nobody could ask for more.
 *
 * From the goal so found to a target: raises to what is needed go at once, as far as room is there;
 * everything else waits for hysteresis, and inflation goes in steps. Emergencies release everything
 * at once, whatever the budget is. What an emergency was given beyond its NEED is not held against
 * the needs of others, only against their comfort.
 *
 * What is promised to a VM is the higher of its target and what it has: memory that is asked back
 * is not given to others before it has come. VMs that cannot or must not be moved (`fixed`) keep
 * what is promised, and the rest is shared among the others.
 *
 * Exceptions from "the sum of promises never exceeds the budget": FLOOR (so: floors and what is in
 * use), learned floors, emergencies and fixed VMs. No promise is raised for another reason while
 * the sum is above the budget.
 */
#ifndef POLICY_BALANCE_H
#define POLICY_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/decision.h"

/* What a VM's share is made of, from below: see above. */
enum level {
	LEVEL_FLOOR,
	LEVEL_BARE,
	LEVEL_NEED,
	LEVEL_WANT,
	LEVEL_CEILING,
	LEVEL_COUNT,
};

/* VMs are smaller than this, and there are fewer than that: sums then fit into 64 bits. */
#define BALANCE_SIZE_MAX (1ULL << 48)
#define BALANCE_VMS_MAX  32768

/* Targets are whole multiples of this, counted from the VM's size downwards: 64 KiB pages and all.
 */
#define BALANCE_GRAIN (1ULL << 20)

/* Weights, of priority. */
#define BALANCE_WEIGHT_MIN     1
#define BALANCE_WEIGHT_DEFAULT 100
#define BALANCE_WEIGHT_MAX     10000

/*
 * The pool: at least this part of the budget (a 16th), or what the largest single release would
 * take if that is more, but never more than a quarter of what is above the BARE levels.
 */
#define BALANCE_POOL_PART 16

/*
 * Dead bands: a target is not lowered by less than a 64th of the VM's size, nor raised by less than
 * a 32nd unless the guest needs it; at least 2 grains. Noise of a host's free memory stays below.
 */
#define BALANCE_LOWER_PART 64
#define BALANCE_RAISE_PART 32

/*
 * A target that was raised is not lowered for this long, unless others are in need of it; nor one
 * that was lowered raised again for comfort. Raises for need never wait.
 */
#define BALANCE_AFTER_RAISE_MS 10000
#define BALANCE_AFTER_LOWER_MS 30000

/* With others in need the first is this. */
#define BALANCE_AFTER_RAISE_SCARCE_MS 1000

/*
 * One step of inflation: three quarters of what the guest has free (it costs it nothing), or a 32nd
 * of its size if that is more (caches, in portions that its LRU can choose well); an 8th when
 * others are in need. A VM whose verdicts are weak and not good: a quarter of it all.
 */
#define BALANCE_STEP_PART        32
#define BALANCE_STEP_SCARCE_PART 8

/* What is in use, or nearly, is taken a 64th of the size at a time. */
#define BALANCE_STEP_USED_PART 64

/* Why a VM cannot be moved, or how it may. */
enum balance_flag {
	BALANCE_NO_DRIVER = 1U << 0,     /* fixed, and it keeps its whole size */
	BALANCE_NO_STATISTICS = 1U << 1, /* fixed */
	BALANCE_STALE = 1U << 2,         /* fixed */
	BALANCE_UNRESPONSIVE = 1U << 3,  /* fixed */
	BALANCE_PAUSED = 1U << 4,        /* fixed */
	BALANCE_UNCOOPERATIVE = 1U << 5, /* fixed */
	BALANCE_INHIBITED = 1U << 6,     /* fixed: commands fail */
	BALANCE_PENDING = 1U << 7,       /* an older target is not reached: no further inflation */
	BALANCE_EMERGENCY = 1U << 8, /* to be released, or released a moment ago: no inflation */
	BALANCE_CAREFUL = 1U << 9,   /* smaller steps */
	BALANCE_LEARNED_HARD = 1U << 10, /* learned: it could not give more, rather than suffered */
};
#define BALANCE_FIXED 0x7fU

/* One VM. The caller fills all but what is said to be worked out. */
struct balance_vm {
	uint64_t size;           /* its memory with an empty balloon; below BALANCE_SIZE_MAX */
	uint64_t floor, ceiling; /* floor <= ceiling <= size */
	uint32_t weight;         /* BALANCE_WEIGHT_MIN to _MAX */
	uint32_t flags;          /* enum balance_flag */
	uint64_t actual;         /* what it keeps, by the guest's driver */
	uint64_t target;         /* what it was told to keep; its size if nothing */
	uint64_t raised_ms, lowered_ms; /* when the target was moved last; 0: never */
	uint64_t used, working, headroom, cache, free; /* struct demand; unless fixed */
	uint64_t learned;                              /* learned floor; 0: none */

	/* Why, in words for decisions: for EMERGENCY, and for needing more than before. */
	enum reason emergency_reason, need_reason;

	/* Worked out by balance_levels() and balance_plan(). */
	uint64_t level[LEVEL_COUNT];
	uint64_t goal;
};

/* The host, as far as it is known. */
struct balance_host {
	bool known;         /* else only the budget counts */
	uint64_t available; /* bytes that could be had without swapping */
	uint64_t resident;  /* of the VMs, as much as is known; else what they keep */
	uint64_t total;
	uint64_t reserve;    /* stays free */
	uint32_t some_centi; /* PSI memory avg10: percent times 100; 0 also if not known */
	uint32_t full_centi;
	uint64_t budget;   /* what the VMs may keep together; 0: no limit but the host */
	uint64_t reserved; /* of that, promised to reservations or being gathered for them */
	bool reservation;  /* one is being gathered */
};

/*
 * PSI "some" from which on the host keeps more than its reserve, and at which it keeps twice as
 * much; "full" counts four times. Below 5 % of time waiting nobody notices; at 40 % everybody.
 */
#define BALANCE_PSI_LOW  500
#define BALANCE_PSI_HIGH 4000

/*
 * With less than this part of its reserve left (a 4th) the host is about to swap or kill, which
 * hurts all VMs at once: then what guests learned protects them no longer. What they use still
 * does.
 */
#define BALANCE_DESPERATE_PART 4

/* What a pass found; valid until the next. */
struct balance_plan {
	bool known;                /* there is a budget, or a host to derive one from */
	uint64_t budget;           /* what all VMs may keep together, reservations taken off */
	uint64_t promised;         /* what is promised to them: sum of balance_promised() */
	uint64_t surplus;          /* of that, to emergencies beyond their needs; not in sum[] */
	uint64_t fixed;            /* of that, to VMs that cannot be moved */
	uint64_t pool;             /* is to stay free */
	uint64_t unmet;            /* sum of what others are below min(goal, NEED) */
	uint64_t sum[LEVEL_COUNT]; /* of the levels of those that can be moved: see surplus */
	enum level level;          /* the one that is filled in part */
	uint64_t share_q32;        /* of that level, for weight 1, times 2^32 */
	bool scarce;               /* that level is NEED or below, or promises exceed the budget */
	bool host_pressed;         /* PSI */
	bool desperate; /* hardly anything of the host's reserve is left: BALANCE_DESPERATE_PART */
	bool reservation;
};

/* The budget that a host's free memory and PSI allow, by struct balance_host. UINT64_MAX: none. */
uint64_t balance_budget(const struct balance_host *host);

/* What of the surplus above the BARE levels is kept free: see above. */
uint64_t balance_pool(uint64_t budget, uint64_t surplus, uint64_t room_above, uint64_t largest);

/* Works out vm->level. O(1). */
void balance_levels(struct balance_vm *vm);

/* What is promised to the VM: the higher of target and actual; its size without a driver. */
uint64_t balance_promised(const struct balance_vm *vm);

/* Of that, what is not held against the needs of others: an emergency's surplus. */
uint64_t balance_surplus(const struct balance_vm *vm);

/*
 * Works out levels and goals of all VMs. O(n) for one weight, and O(n) times the number of
 * different weights (16 at most) otherwise. Entries with size 0 are empty and skipped.
 */
void balance_plan(const struct balance_host *host, struct balance_vm *vms, size_t n,
		  struct balance_plan *plan);

/*
 * Works out levels and goal of one VM by the shares of the last plan, without looking at others.
 * O(1).
 */
void balance_goal(const struct balance_plan *plan, struct balance_vm *vm);

/*
 * What to do with one VM now: sets action, reason, from, to, goal, budget and room of *d, and
 * touches nothing else of it. `cap` is how much more may be promised to it at most (a caller that
 * serves several in turn shares the room out); only emergencies and bounds exceed it. Changes
 * nothing: balance_apply() does.
 */
void balance_decide(const struct balance_plan *plan, const struct balance_vm *vm, uint64_t cap,
		    uint64_t now_ms, struct decision *d);

/* Room for what is needed, and for comfort: what may be promised in addition. */
uint64_t balance_room_need(const struct balance_plan *plan);
uint64_t balance_room_comfort(const struct balance_plan *plan);

/* Makes d->to the VM's target, and keeps the sums of the plan. */
void balance_apply(struct balance_plan *plan, struct balance_vm *vm, const struct decision *d,
		   uint64_t now_ms);

/*
 * The VM is about to change (true: before) or has changed (false: after): its part of the plan's
 * sums is taken out and put back. For actual and flags that change between passes.
 */
void balance_account(struct balance_plan *plan, const struct balance_vm *vm, bool before);

#endif
