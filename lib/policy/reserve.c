// SPDX-License-Identifier: MIT
/* Entries in use are the first n, oldest first, so "who comes first" is the order of the array. */
#include "policy/reserve.h"

#include <errno.h>

#include "base/checked.h"

static uint64_t later(uint64_t now_ms, uint64_t ms)
{
	uint64_t at;

	return __builtin_add_overflow(now_ms, ms, &at) ? UINT64_MAX : at;
}

static void drop(struct reserve *r, uint32_t i)
{
	for (r->n--; i < r->n; i++)
		r->entry[i] = r->entry[i + 1];
	r->entry[r->n] = (struct reservation){.state = RESERVE_FREE};
}

void reserve_init(struct reserve *r)
{
	*r = (struct reserve){.n = 0};
}

int reserve_open(struct reserve *r, uint64_t bytes, uint64_t possible, uint64_t timeout_ms,
		 uint64_t hold_ms, uint64_t now_ms, uint64_t *id)
{
	if (!bytes)
		return -EINVAL;
	if (bytes > possible)
		return -ENOSPC;
	if (r->n == RESERVE_MAX)
		return -EAGAIN;
	r->entry[r->n++] = (struct reservation){
		.id = ++r->last_id,
		.state = RESERVE_GATHERING,
		.bytes = bytes,
		.deadline_ms = later(now_ms, timeout_ms),
		.hold_ms = hold_ms ? hold_ms : RESERVE_HOLD_MS,
	};
	*id = r->last_id;
	return 0;
}

int reserve_release(struct reserve *r, uint64_t id, struct reservation *was)
{
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->entry[i].id != id)
			continue;
		if (was)
			*was = r->entry[i];
		drop(r, i);
		return 0;
	}
	return -ENOENT;
}

uint64_t reserve_held(const struct reserve *r)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < r->n; i++)
		sum += r->entry[i].got;
	return sum;
}

uint64_t reserve_missing(const struct reserve *r)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < r->n; i++)
		sum += r->entry[i].bytes - r->entry[i].got;
	return sum;
}

void reserve_supply(struct reserve *r, uint64_t available)
{
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->entry[i].state == RESERVE_GRANTED)
			available -= min_u64(available, r->entry[i].got);
	}
	for (uint32_t i = 0; i < r->n; i++) {
		struct reservation *e = &r->entry[i];

		if (e->state != RESERVE_GATHERING)
			continue;
		e->got = min_u64(e->bytes, available);
		available -= e->got;
	}
}

enum reserve_change reserve_step(struct reserve *r, uint64_t now_ms, struct reservation *out)
{
	for (uint32_t i = 0; i < r->n; i++) {
		struct reservation *e = &r->entry[i];

		if (e->state == RESERVE_GATHERING && e->got == e->bytes) {
			e->state = RESERVE_GRANTED;
			e->deadline_ms = later(now_ms, e->hold_ms);
			*out = *e;
			return RESERVE_IS_GRANTED;
		}
		if (now_ms >= e->deadline_ms) {
			bool granted = e->state == RESERVE_GRANTED;

			*out = *e;
			drop(r, i);
			return granted ? RESERVE_HAS_EXPIRED : RESERVE_HAS_FAILED;
		}
	}
	return RESERVE_NOTHING;
}

uint64_t reserve_next(const struct reserve *r)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t i = 0; i < r->n; i++)
		next = min_u64(next, r->entry[i].deadline_ms);
	return next;
}
