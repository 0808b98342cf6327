/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the manager share: a host of simple guests that do what they are told, and a
 * record of what the manager did.
 */
#ifndef TEST_MANAGER_HELPERS_H
#define TEST_MANAGER_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "manager/manager.h"

#define MIB       ((uint64_t)1 << 20)
#define TEST_VMS  64
#define TEST_MANY 4096 /* events that are recorded */

/* A guest: uses so much (its kernel's own included) of what it keeps, the rest is free. */
struct test_guest {
	uint64_t size, used, keeps, target;
	uint64_t kills, stalls, scanned, reclaimed; /* counters of its kernel */
	uint32_t commands;
	bool deaf; /* does not follow its target */
	bool mute; /* sends no statistics */
};

struct test_host {
	struct manager m;
	struct manager_vm vms[TEST_VMS];
	struct balance_vm balance[TEST_VMS];
	struct test_guest guest[TEST_VMS];
	uint64_t now;
	bool refuse; /* commands fail */

	uint32_t events[MANAGER_EVENT_SCARCE + 1];
	struct manager_event last[MANAGER_EVENT_SCARCE + 1];
	struct decision decision; /* of the last event of that kind */
	struct reservation reservation;
	void (*on_decision)(struct test_host *h, uint32_t slot, const struct decision *d);
};

static inline void test_set_target(void *opaque, uint32_t slot, uint64_t keep)
{
	struct test_host *h = opaque;
	struct test_guest *g = &h->guest[slot];

	g->commands++;
	if (!h->refuse)
		g->target = keep;
	manager_target_answered(&h->m, slot, !h->refuse, h->now);
}

static inline void test_event(void *opaque, const struct manager_event *event)
{
	struct test_host *h = opaque;

	h->events[event->kind]++;
	h->last[event->kind] = *event;
	assert_int_equal(event->at_ms, h->m.now_ms);
	if (event->decision)
		h->decision = *event->decision;
	if (event->reservation) {
		const struct reserve *r = &h->m.reserve;

		h->reservation = *event->reservation;
		/* What is granted is there: neither promised to a VM nor to another reservation. */
		if (event->change == RESERVE_IS_GRANTED)
			assert_true(h->m.plan.promised + reserve_held(r) <=
				    h->m.plan.budget + reserve_held(r) + reserve_missing(r));
	}
	if (event->decision && h->on_decision)
		h->on_decision(h, event->slot, event->decision);
}

static inline void test_begin(struct test_host *h, uint64_t budget, uint32_t n)
{
	static const struct manager_ops ops = {test_set_target, test_event};
	struct manager_config config = {.budget = budget, .reserve = MANAGER_UNKNOWN};

	memset(h, 0, sizeof(*h));
	h->now = 1000;
	assert_int_equal(manager_init(&h->m, &config, &ops, h, h->vms, h->balance, n, h->now), 0);
}

static inline struct manager_facts test_facts(uint64_t size)
{
	return (struct manager_facts){
		.size = size,
		.floor = MANAGER_UNKNOWN,
		.ceiling = MANAGER_UNKNOWN,
		.driver = MANAGER_DRIVER_FULL,
		.actual = MANAGER_UNKNOWN,
		.target = MANAGER_UNKNOWN,
	};
}

static inline void test_add(struct test_host *h, uint32_t slot, uint64_t size, uint64_t used)
{
	struct manager_facts facts = test_facts(size);

	h->guest[slot] =
		(struct test_guest){.size = size, .used = used, .keeps = size, .target = size};
	assert_int_equal(manager_vm_add(&h->m, slot, &facts, NULL, h->now), 0);
}

/* What the guest's kernel would say. */
static inline struct guest_stats test_sample(const struct test_guest *g, uint64_t now)
{
	struct guest_stats s = {.at_ms = now};
	uint64_t left = g->keeps > g->used ? g->keeps - g->used : 0;

	stats_put(&s, VIRTIO_BALLOON_S_MEMTOT, g->keeps);
	stats_put(&s, VIRTIO_BALLOON_S_AVAIL, left);
	stats_put(&s, VIRTIO_BALLOON_S_MEMFREE, left);
	stats_put(&s, VIRTIO_BALLOON_S_CACHES, 0);
	stats_put(&s, VIRTIO_BALLOON_S_OOM_KILL, g->kills);
	stats_put(&s, VIRTIO_BALLOON_S_ALLOC_STALL, g->stalls);
	stats_put(&s, VIRTIO_BALLOON_S_SCAN_DIRECT, g->scanned);
	stats_put(&s, VIRTIO_BALLOON_S_RECLAIM_DIRECT, g->reclaimed);
	stats_put(&s, VIRTIO_BALLOON_S_SCAN_ASYNC, 0);
	stats_put(&s, VIRTIO_BALLOON_S_RECLAIM_ASYNC, 0);
	return s;
}

/* The guest follows its target, as far as it has free memory, and says how it is. */
static inline void test_guest_step(struct test_host *h, uint32_t slot)
{
	struct test_guest *g = &h->guest[slot];

	if (!g->deaf)
		g->keeps = g->target > g->used || g->target > g->keeps ? g->target : g->used;
	if (g->keeps > g->size)
		g->keeps = g->size;
	manager_actual(&h->m, slot, g->keeps, h->now);
	if (!g->mute) {
		struct guest_stats s = test_sample(g, h->now);

		manager_stats(&h->m, slot, &s, h->now);
	}
}

/* So many seconds pass: statistics once a second, ticks when they are due. */
static inline void test_run(struct test_host *h, uint32_t seconds)
{
	for (uint32_t ms = 0; ms < seconds * 1000; ms += 100) {
		h->now += 100;
		for (uint32_t i = 0; h->now % 1000 == 0 && i < h->m.n; i++) {
			if (manager_vm(&h->m, i))
				test_guest_step(h, i);
		}
		if (h->now >= manager_next(&h->m))
			assert_true(manager_tick(&h->m, h->now) > h->now);
	}
}

/* Begins with four guests of 1 GiB that use 256 MiB, in 2.4 GiB, settled. */
static inline void test_four(struct test_host *h)
{
	test_begin(h, 2400 * MIB, 8);
	for (uint32_t i = 0; i < 4; i++)
		test_add(h, i, 1024 * MIB, 256 * MIB);
	test_run(h, 120);
}

static inline uint64_t test_promised(const struct test_host *h)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < h->m.n; i++)
		sum += manager_vm(&h->m, i) ? balance_promised(manager_balance(&h->m, i)) : 0;
	return sum;
}

#endif
