/* SPDX-License-Identifier: MIT */
/*
 * Reservations of memory: "free 8 GiB within 2 s or fail".
 *
 *     GATHERING --(all is there)--> GRANTED --(released, or expired)--> gone
 *         |
 *         +-----(deadline, or given up)--> gone, and what was gathered is free again
 *
 * Free first, then grant: memory is earmarked for a reservation as it becomes free
 * (reserve_supply), for the oldest one first, and a reservation is granted when all of it is. What
 * is earmarked for one is not free for another, nor for a VM: the sum of all that is earmarked
 * never exceeds what was supplied. What holds memory is counted, not named: it becomes real in the
 * balance, which does without (struct balance_host.reserved).
 *
 * A grant is for whoever asked to use the memory (to start a VM) and then to release the
 * reservation; it expires by itself if he does not.
 */
#ifndef POLICY_RESERVE_H
#define POLICY_RESERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESERVE_MAX 32 /* reservations at a time */

/* A grant that nobody uses or releases ends after this long, unless said otherwise. */
#define RESERVE_HOLD_MS 60000

enum reserve_state {
	RESERVE_FREE, /* no reservation */
	RESERVE_GATHERING,
	RESERVE_GRANTED,
};

struct reservation {
	uint64_t id; /* not 0 */
	enum reserve_state state;
	uint64_t bytes;       /* wanted */
	uint64_t got;         /* earmarked so far; all of it when granted */
	uint64_t deadline_ms; /* gathering: fails then; granted: expires then */
	uint64_t hold_ms;     /* a grant's life */
};

struct reserve {
	uint64_t last_id;
	uint32_t n; /* entries in use are the first n, oldest first */
	struct reservation entry[RESERVE_MAX];
};

/* How a reservation changed. */
enum reserve_change {
	RESERVE_NOTHING,
	RESERVE_IS_GRANTED,
	RESERVE_HAS_FAILED,  /* its time was over; all that was gathered is free again */
	RESERVE_HAS_EXPIRED, /* a grant that nobody released */
};

void reserve_init(struct reserve *r);

/*
 * Asks for bytes within timeout_ms, to be held for hold_ms (0: RESERVE_HOLD_MS) when granted.
 * -EINVAL: 0 bytes; -ENOSPC: more than `possible`, which is what the balance could free at best
 * (then nothing is tried); -EAGAIN: RESERVE_MAX reservations.
 */
int reserve_open(struct reserve *r, uint64_t bytes, uint64_t possible, uint64_t timeout_ms,
		 uint64_t hold_ms, uint64_t now_ms, uint64_t *id);

/* Gives up or releases one. -ENOENT: there is none of that id. *was may be NULL. */
int reserve_release(struct reserve *r, uint64_t id, struct reservation *was);

/* What is earmarked (gathered and granted) in sum. */
uint64_t reserve_held(const struct reserve *r);

/* What is still to be gathered in sum. */
uint64_t reserve_missing(const struct reserve *r);

/*
 * `available` bytes are free for all reservations together, including what is earmarked already:
 * earmarks more of it, or less if there is less now (what is granted stays granted; the youngest
 * gathering one loses first).
 */
void reserve_supply(struct reserve *r, uint64_t available);

/*
 * Tells the next change that is due by now, as often as there is one: grants those with everything,
 * fails and expires those whose time is over. *out is the reservation as it is, or was.
 */
enum reserve_change reserve_step(struct reserve *r, uint64_t now_ms, struct reservation *out);

/* When the next deadline is; UINT64_MAX: never. */
uint64_t reserve_next(const struct reserve *r);

#endif
