/* SPDX-License-Identifier: MIT */
/* What the files of the manager share; not for others. */
#ifndef MANAGER_PARTS_H
#define MANAGER_PARTS_H

#include "base/checked.h"
#include "manager/manager.h"

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t sub_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Moments near the end of time are the end of time. */
static inline uint64_t later(uint64_t now_ms, uint64_t ms)
{
	return now_ms > UINT64_MAX - ms ? UINT64_MAX : now_ms + ms;
}

/* Of a VM of that size: the lowest target at or above `bytes`, and the highest at or below. */
static inline uint64_t grain_up(uint64_t size, uint64_t bytes)
{
	return size - align_down(size - bytes, BALANCE_GRAIN);
}

static inline uint64_t grain_down(uint64_t size, uint64_t bytes)
{
	return sub_u64(size, align_up(size - bytes, BALANCE_GRAIN));
}

/* The time now: never before that of the last call. */
uint64_t manager_now(struct manager *m, uint64_t now_ms);

/* NULL: no VM there. */
struct manager_vm *manager_find(const struct manager *m, uint32_t slot);

/* Tells news; fills in slot and time. */
void manager_tell(struct manager *m, uint32_t slot, struct manager_event *event);

/* A pass is wanted sooner than usual. */
void manager_hurry(struct manager *m);

/* Brings the VM's part of the balance up to date with what is known of it. */
void manager_refresh(struct manager *m, uint32_t slot);

/* Is it moved by what it needs, and not by what is left over? */
bool manager_is_urgent(const struct decision *d);

/* Decides for one VM, with at most `cap` more for it, and keeps the decision as standing. */
void manager_decide(struct manager *m, uint32_t slot, uint64_t cap, struct decision *d);

/* Carries a decision out: target, command, record, event. */
void manager_move(struct manager *m, uint32_t slot, const struct decision *d);

/*
 * A target by the manager itself, past the balance: within the bounds, and whole grains like those
 * of the balance, down from `to`. Nothing if it would not change.
 */
void manager_move_to(struct manager *m, uint32_t slot, uint64_t to, enum reason reason);

/* Sends the target (again). */
void manager_send(struct manager *m, uint32_t slot);

/* Remembers that the VM should not, or could not (hard), have less than this. */
void manager_learn(struct manager *m, uint32_t slot, uint64_t bytes, bool hard);

/* Of what was remembered no more than that holds, in bytes; 0: nothing. */
void manager_unlearn(struct manager *m, uint32_t slot, uint64_t to);

/* Releases the VM fully, and takes nothing from it for a while. */
void manager_emergency(struct manager *m, uint32_t slot, enum reason reason);

/* The same for one of which it is known that it kept so many bytes when it suffered. */
void manager_emergency_with(struct manager *m, uint32_t slot, enum reason reason, uint64_t kept);

/* Tells how it follows its target. */
void manager_tell_progress(struct manager *m, uint32_t slot);

/* The same, if before it was stalled or uncooperative and is not so any more. */
void manager_tell_end(struct manager *m, uint32_t slot, enum progress_state before);

/* What time does to one VM: stalls, silences, ends of learned floors and of emergencies. */
void manager_upkeep(struct manager *m, uint32_t slot);

#endif
