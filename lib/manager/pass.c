// SPDX-License-Identifier: MIT
/* The pass over all VMs, and what is everybody's: the host, and reservations. */
#include "base/checked.h"
#include "manager/parts.h"

static struct balance_host host_view(const struct manager *m)
{
	struct balance_host host = {
		.known = m->host_known,
		.available = m->host.available,
		.resident = m->host.resident,
		.total = m->host.total,
		.reserve = m->config.reserve,
		.some_centi = m->host.some_centi,
		.full_centi = m->host.full_centi,
		.budget = m->config.budget,
		.reserved = reserve_held(&m->reserve) + reserve_missing(&m->reserve),
		.reservation = reserve_missing(&m->reserve) > 0,
	};

	if (host.reserve == MANAGER_UNKNOWN)
		host.reserve = manager_default_reserve(host.total);
	if (host.known && host.resident == MANAGER_UNKNOWN) {
		host.resident = 0;
		for (uint32_t i = 0; i < m->n; i++)
			host.resident += m->balance[i].size ? m->balance[i].actual : 0;
	}
	return host;
}

static void tell_scarcity(struct manager *m)
{
	struct manager_event event = {.kind = MANAGER_EVENT_SCARCE};
	bool scarce =
		m->plan.known && sub_u64(m->plan.budget, m->plan.fixed) < m->plan.sum[LEVEL_NEED];

	if (scarce == m->scarce)
		return;
	m->scarce = scarce;
	event.on = scarce;
	manager_tell(m, MANAGER_ALL, &event);
}

/* What is promised to nobody goes to reservations first: they were taken off the budget before. */
static void serve_reservations(struct manager *m, const struct balance_host *host)
{
	struct manager_event event = {.kind = MANAGER_EVENT_RESERVATION};
	struct reservation r;
	enum reserve_change change;

	if (!m->reserve.n)
		return;
	reserve_supply(&m->reserve,
		       m->plan.known ? sub_u64(balance_budget(host), m->plan.promised) : 0);
	for (;;) {
		change = reserve_step(&m->reserve, m->now_ms, &r);
		if (change == RESERVE_NOTHING)
			return;
		event.change = change;
		event.reservation = &r;
		manager_tell(m, MANAGER_ALL, &event);
		if (change != RESERVE_IS_GRANTED)
			manager_hurry(m);
	}
}

/* The part of the room that is for this VM, when there is not enough for all that need some. */
static uint64_t cap_for(const struct balance_vm *b, uint64_t room, uint64_t unmet)
{
	uint64_t deserved = min_u64(b->goal, b->level[LEVEL_NEED]);
	uint64_t deficit = sub_u64(deserved, balance_promised(b));

	return (uint64_t)((unsigned __int128)deficit * room / unmet);
}

static void decide_all(struct manager *m)
{
	uint64_t room = balance_room_need(&m->plan), unmet = m->plan.unmet;

	for (uint32_t i = 0; i < m->n; i++) {
		struct decision d;
		uint64_t cap;

		if (!m->vms[i].present)
			continue;
		cap = unmet > room ? cap_for(&m->balance[i], room, unmet)
				   : balance_room_need(&m->plan);
		manager_decide(m, i, cap, &d);
		if (d.action != ACTION_KEEP)
			manager_move(m, i, &d);
	}
}

void manager_pass(struct manager *m)
{
	struct balance_host host;

	m->passed_ms = m->now_ms;
	m->due_ms = later(m->now_ms, m->config.pass_ms);
	m->passes++;
	for (uint32_t i = 0; i < m->n; i++) {
		if (m->vms[i].present)
			manager_upkeep(m, i);
	}
	host = host_view(m);
	balance_plan(&host, m->balance, m->n, &m->plan);
	serve_reservations(m, &host);
	decide_all(m);
	tell_scarcity(m);
	m->due_ms = min_u64(m->due_ms, max_u64(reserve_next(&m->reserve), m->now_ms + 1));
}

uint64_t manager_tick(struct manager *m, uint64_t now_ms)
{
	if (manager_now(m, now_ms) >= m->due_ms)
		manager_pass(m);
	return m->due_ms;
}

uint64_t manager_next(const struct manager *m)
{
	return m->due_ms;
}

void manager_host(struct manager *m, const struct manager_host *host, uint64_t now_ms)
{
	manager_now(m, now_ms);
	m->host = *host;
	m->host.available = min_u64(host->available, host->total);
	m->host_known = host->total != 0;
}

int manager_reserve(struct manager *m, uint64_t bytes, uint64_t timeout_ms, uint64_t hold_ms,
		    uint64_t now_ms, uint64_t *id)
{
	uint64_t possible = 0;
	int err;

	now_ms = manager_now(m, now_ms);
	manager_pass(m);
	if (m->plan.known)
		possible = sub_u64(m->plan.budget, m->plan.fixed + m->plan.sum[LEVEL_BARE]);
	err = reserve_open(&m->reserve, bytes, possible, timeout_ms, hold_ms, now_ms, id);
	if (!err)
		manager_pass(m);
	return err;
}

int manager_release(struct manager *m, uint64_t id, uint64_t now_ms)
{
	int err;

	manager_now(m, now_ms);
	err = reserve_release(&m->reserve, id, NULL);
	if (!err)
		manager_hurry(m);
	return err;
}
