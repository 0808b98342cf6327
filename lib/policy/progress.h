/* SPDX-License-Identifier: MIT */
/*
 * Does the guest follow its target? Watches `actual` approach it.
 *
 *     REACHED        within PROGRESS_NEAR of the target
 *     MOVING         it approaches
 *     STALLED        an inflation that has become slow: the guest has to reclaim for it
 *     UNCOOPERATIVE  it has not come a step nearer for PROGRESS_DEAF_MS
 *
 * Time counts only while the guest runs: progress_skip() tells that it did not.
 */
#ifndef POLICY_PROGRESS_H
#define POLICY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Slower than 15 MiB/s over 4 s is a stall (ChromeOS); a guest takes 1000 MiB/s out of free memory.
 */
#define PROGRESS_STALL_MS   4000
#define PROGRESS_STALL_RATE (15ULL << 20)

/* How much is given back then: 128 MiB (ChromeOS), but no more than a 16th of the VM. */
#define PROGRESS_BACK_OFF      (128ULL << 20)
#define PROGRESS_BACK_OFF_PART 16

/* Xen's squeezed calls a guest uncooperative that has not reached its target after 20 s. */
#define PROGRESS_DEAF_MS 20000

/* This close is there. */
#define PROGRESS_NEAR (1ULL << 20)

/* And so much nearer than before is a step; less does not tell a deaf guest from one that jitters.
 */
#define PROGRESS_STEP (PROGRESS_NEAR / 2)

enum progress_state {
	PROGRESS_REACHED,
	PROGRESS_MOVING,
	PROGRESS_STALLED,
	PROGRESS_UNCOOPERATIVE,
	PROGRESS_STATE_COUNT,
};

struct progress {
	enum progress_state state;
	uint64_t target, actual;
	uint64_t began;                /* the distance when the target was set */
	uint64_t nearest;              /* the smallest distance since the target was set */
	uint64_t step, step_ms;        /* where and when it came a step nearer last, or began */
	uint64_t mark_ms, mark_actual; /* where the rate is measured from */
};

/* Begins at the target. */
void progress_init(struct progress *p, uint64_t actual, uint64_t now_ms);

/* A new target; the clocks start anew unless it is the same. One that was uncooperative stays so
 * until it comes a step nearer. */
void progress_target(struct progress *p, uint64_t target, uint64_t now_ms);

/* Where the guest is. */
void progress_actual(struct progress *p, uint64_t actual, uint64_t now_ms);

/* The guest did not run, or was not asked: nothing is held against it until now. */
void progress_skip(struct progress *p, uint64_t now_ms);

/* Works out the state. True if it has changed since the last call. */
bool progress_update(struct progress *p, uint64_t now_ms);

/*
 * Was a stalled inflation as slow in another PROGRESS_STALL_MS since it stalled, or since this was
 * true? To be asked at least that often.
 */
bool progress_stalls_again(struct progress *p, uint64_t now_ms);

/* Is an older target still to be reached (MOVING or STALLED)? */
bool progress_pending(const struct progress *p);

/* Has the guest come nearer at all since the target was set? */
bool progress_has_moved(const struct progress *p);

/* Where a stalled inflation should back off to: bytes to keep, at most size. */
uint64_t progress_back_off(const struct progress *p, uint64_t size);

const char *progress_name(enum progress_state state);

#endif
