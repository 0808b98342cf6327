// SPDX-License-Identifier: MIT
/*
 * The pass over all VMs, and what is everybody's: the host, and reservations.
 *
 *     NONE --(due)--> UPKEEP --(all looked after: the plan)--> MOVES --(all decided)--> NONE
 *
 * What a pass costs is mostly its calls to the ops, so it stops after so many of them and goes on
 * with the next tick; what guests say meanwhile is acted on in between. The plan is made in one
 * piece. Each VM is decided for when it is its turn, by that plan and what is known of it then, as
 * between passes too (manager_stats()): no decision lies about that could be wrong by then.
 */
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
		for (uint32_t i = 0; i < m->used; i++)
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
static uint64_t share_of(const struct manager *m, const struct balance_vm *b)
{
	uint64_t deserved = min_u64(b->goal, b->level[LEVEL_NEED]);
	uint64_t deficit = sub_u64(deserved, balance_promised(b));

	return (uint64_t)((unsigned __int128)deficit * m->pass.room / m->pass.unmet);
}

/* What may be promised to the VM now, whatever has become of the room since it was shared out. */
static uint64_t cap_for(const struct manager *m, const struct balance_vm *b)
{
	uint64_t room = balance_room_need(&m->plan);

	return m->pass.unmet > m->pass.room ? min_u64(room, share_of(m, b)) : room;
}

/* The next VM whose turn it is in this step of the pass. False: all had theirs. */
static bool next_slot(struct manager *m, uint32_t *slot)
{
	while (m->pass.cursor < m->used) {
		*slot = m->pass.cursor++;
		if (m->vms[*slot].present)
			return true;
	}
	return false;
}

/* True: all were looked after. */
static bool look_after(struct manager *m, uint64_t calls_max)
{
	uint32_t slot;

	while (m->calls < calls_max) {
		if (!next_slot(m, &slot))
			return true;
		manager_upkeep(m, slot);
	}
	return false;
}

static void make_plan(struct manager *m)
{
	struct balance_host host = host_view(m);

	balance_plan(&host, m->balance, m->used, &m->plan);
	serve_reservations(m, &host);
	m->pass = (struct manager_pass){
		.step = PASS_MOVES,
		.room = balance_room_need(&m->plan),
		.unmet = m->plan.unmet,
	};
}

/* Decides by the plan, and by what is known of the VM when it is its turn. True: for all. */
static bool move_all(struct manager *m, uint64_t calls_max)
{
	struct decision d;
	uint32_t slot;

	while (m->calls < calls_max) {
		if (!next_slot(m, &slot))
			return true;
		manager_refresh(m, slot);
		manager_decide(m, slot, cap_for(m, &m->balance[slot]), &d);
		if (d.action != ACTION_KEEP)
			manager_move(m, slot, &d);
	}
	return false;
}

static void finish(struct manager *m)
{
	m->pass.step = PASS_NONE;
	tell_scarcity(m);
	m->due_ms = min_u64(m->due_ms, max_u64(reserve_next(&m->reserve), m->now_ms + 1));
}

/* What is left of another pass is left: all is found, and decided, anew. */
static void begin(struct manager *m)
{
	m->passed_ms = m->now_ms;
	m->due_ms = later(m->now_ms, m->config.pass_ms);
	m->passes++;
	m->pass = (struct manager_pass){.step = PASS_UPKEEP};
}

/* Goes on with the pass: one portion of it, or all that is left. */
static void go_on(struct manager *m)
{
	do {
		uint64_t most = m->config.portion ? m->calls + m->config.portion : UINT64_MAX;

		if (m->pass.step == PASS_UPKEEP && look_after(m, most))
			make_plan(m);
		else if (m->pass.step == PASS_MOVES && move_all(m, most))
			finish(m);
	} while (m->pass.step != PASS_NONE && !m->config.portion);
}

/* A pass as far as its plan, which somebody waits for. */
static void plan_now(struct manager *m)
{
	begin(m);
	(void)look_after(m, UINT64_MAX);
	make_plan(m);
	if (!m->config.portion)
		go_on(m);
}

uint64_t manager_tick(struct manager *m, uint64_t now_ms)
{
	manager_now(m, now_ms);
	if (m->pass.step == PASS_NONE && m->now_ms >= m->due_ms)
		begin(m);
	if (m->pass.step != PASS_NONE)
		go_on(m);
	return manager_next(m);
}

uint64_t manager_next(const struct manager *m)
{
	return m->pass.step == PASS_NONE ? m->due_ms : m->now_ms;
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
	plan_now(m);
	if (m->plan.known)
		possible = sub_u64(m->plan.budget, m->plan.fixed + m->plan.sum[LEVEL_BARE]);
	err = reserve_open(&m->reserve, bytes, possible, timeout_ms, hold_ms, now_ms, id);
	if (!err)
		plan_now(m);
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
