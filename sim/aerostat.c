// SPDX-License-Identifier: MIT
/*
 * Our own: lib/manager, the very code that aerostatd runs, with simulated guests where that has
 * monitors. Statistics come from every guest once a second, pushed or asked for; a message comes
 * at once, and its target is there before the guest goes on. The host keeps what the others aim at.
 */
#include <stdio.h>
#include <stdlib.h>

#include "manager/manager.h"
#include "world.h"

/* Simulated time begins somewhere: 0 means "never" to some. */
#define BEGIN_MS      1000000U
#define STATS_LATE_MS 100 /* within a second: guests have moved, then statistics come */

struct aerostat {
	struct world *world;
	struct manager manager;
	struct manager_vm *vms;
	struct balance_vm *balance;
	double *told; /* by guest: the balloon that the manager knows of */
	uint64_t decisions[ACTION_COUNT][REASON_COUNT];
	uint64_t scarce_s;
};

static uint64_t now_ms(const struct world *w, uint64_t late_ms)
{
	return BEGIN_MS + w->now_s * 1000 + late_ms;
}

static void set_target(void *opaque, uint32_t slot, uint64_t keep)
{
	struct aerostat *a = opaque;

	world_keep(a->world, &a->world->guests[slot], (double)keep);
	/* The monitor belongs to the VMM, which answers also if the guest hangs. */
	manager_target_answered(&a->manager, slot, true, a->manager.now_ms);
}

static void on_event(void *opaque, const struct manager_event *event)
{
	struct aerostat *a = opaque;

	if (event->kind == MANAGER_EVENT_DECISION)
		a->decisions[event->decision->action][event->decision->reason]++;
}

static const struct manager_ops manager_ops = {.set_target = set_target, .event = on_event};

static void destroy(void *state)
{
	struct aerostat *a = state;

	free(a->vms);
	free(a->balance);
	free(a->told);
	free(a);
}

static int add(struct aerostat *a, struct guest *g)
{
	struct manager_facts facts = {
		.size = (uint64_t)g->size,
		.floor = (uint64_t)world_floor(a->world, g),
		.ceiling = MANAGER_UNKNOWN,
		.driver = MANAGER_DRIVER_FULL,
		.actual = (uint64_t)(g->size - g->balloon),
		.target = MANAGER_UNKNOWN,
	};

	a->told[g->index] = g->balloon;
	return manager_vm_add(&a->manager, g->index, &facts, NULL, now_ms(a->world, 0));
}

static void *create(struct world *w)
{
	struct manager_config config = {.reserve = (uint64_t)(w->total * (1 - HOST_GOAL))};
	struct aerostat *a = calloc(1, sizeof(*a));
	int ret;

	if (!a)
		return NULL;
	a->world = w;
	a->vms = calloc(w->n, sizeof(*a->vms));
	a->balance = calloc(w->n, sizeof(*a->balance));
	a->told = calloc(w->n, sizeof(*a->told));
	if (!a->vms || !a->balance || !a->told) {
		destroy(a);
		return NULL;
	}
	ret = manager_init(&a->manager, &config, &manager_ops, a, a->vms, a->balance, w->n,
			   now_ms(w, 0));
	for (uint32_t i = 0; ret == 0 && i < w->n; i++)
		ret = add(a, &w->guests[i]);
	if (ret == 0)
		return a;
	destroy(a);
	return NULL;
}

static void tell_actual(struct aerostat *a, const struct guest *g, uint64_t now)
{
	if (a->told[g->index] == g->balloon)
		return;
	a->told[g->index] = g->balloon;
	manager_actual(&a->manager, g->index, (uint64_t)(g->size - g->balloon), now);
}

static void tell_statistics(struct aerostat *a, const struct guest *g, uint64_t now)
{
	struct driver_statistics s = {.set = 0};
	struct guest_stats stats = {.at_ms = now};

	guest_statistics(g, &s);
	for (uint32_t tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++) {
		if (s.set >> tag & 1)
			stats_put(&stats, tag, s.value[tag]);
	}
	manager_stats(&a->manager, g->index, &stats, now);
}

static void tell_host(struct aerostat *a, const struct world *w, uint64_t now)
{
	double available = world_available(w);
	uint32_t some = (uint32_t)(w->psi * 10000);
	struct manager_host host = {
		.total = (uint64_t)w->total,
		.available = available > 0 ? (uint64_t)available : 0,
		.resident = (uint64_t)w->resident,
		.some_centi = some,
		.full_centi = some / 2, /* half of what waits, waits alone */
	};

	manager_host(&a->manager, &host, now);
}

static void second(void *state, struct world *w)
{
	struct aerostat *a = state;
	uint64_t now = now_ms(w, STATS_LATE_MS);

	tell_host(a, w, now);
	for (uint32_t i = 0; i < w->n; i++) {
		const struct guest *g = &w->guests[i];

		if (g->hung) {
			manager_unanswered(&a->manager, i, now);
			continue;
		}
		tell_actual(a, g, now);
		tell_statistics(a, g, now);
	}
	if (manager_next(&a->manager) <= now)
		manager_tick(&a->manager, now);
	a->scarce_s += a->manager.scarce;
}

/* Decisions by what they did and why, and for how long there was too little for all. */
static void notes(const void *state, char *buf, size_t len)
{
	const struct aerostat *a = state;
	size_t at = 0;

	at += (size_t)snprintf(buf, len, "{\"scarce-seconds\": %llu, \"decisions\": {",
			       (unsigned long long)a->scarce_s);
	for (uint32_t action = 0; action < ACTION_COUNT; action++) {
		for (uint32_t reason = 0; reason < REASON_COUNT && at < len; reason++) {
			uint64_t n = a->decisions[action][reason];

			if (n)
				at += (size_t)snprintf(buf + at, len - at, "\"%s/%s\": %llu, ",
						       action_name((enum action)action),
						       reason_name((enum reason)reason),
						       (unsigned long long)n);
		}
	}
	if (at < len)
		at += (size_t)snprintf(buf + at, len - at, "\"passes\": %llu}}",
				       (unsigned long long)a->manager.passes);
	if (at >= len)
		buf[0] = '\0';
}

static void pressure(void *state, struct world *w, struct guest *g, uint32_t level)
{
	struct aerostat *a = state;

	manager_pressure(&a->manager, g->index, level, now_ms(w, 0));
}

static void relieved(void *state, struct world *w, struct guest *g)
{
	struct aerostat *a = state;

	manager_relieved(&a->manager, g->index, now_ms(w, 0));
}

const struct policy policy_aerostat = {
	.name = "aerostat",
	.text = "our manager",
	.create = create,
	.second = second,
	.pressure = pressure,
	.relieved = relieved,
	.notes = notes,
	.destroy = destroy,
};
