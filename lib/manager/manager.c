// SPDX-License-Identifier: MIT
/* The manager's records: VMs come, are set, go, and are looked at. */
#include "manager/manager.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "manager/parts.h"
#include "policy/explain.h"

uint64_t manager_now(struct manager *m, uint64_t now_ms)
{
	m->now_ms = max_u64(m->now_ms, now_ms);
	return m->now_ms;
}

struct manager_vm *manager_find(const struct manager *m, uint32_t slot)
{
	return slot < m->n && m->vms[slot].present ? &m->vms[slot] : NULL;
}

void manager_tell(struct manager *m, uint32_t slot, struct manager_event *event)
{
	event->slot = slot;
	event->at_ms = m->now_ms;
	m->calls++;
	if (m->ops->event)
		m->ops->event(m->opaque, event);
}

void manager_hurry(struct manager *m)
{
	m->due_ms =
		min_u64(m->due_ms, max_u64(m->now_ms, later(m->passed_ms, MANAGER_PASS_SOON_MS)));
}

uint64_t manager_default_floor(uint64_t size)
{
	return min_u64(size / 8 + (32ULL << 20), size);
}

uint64_t manager_default_reserve(uint64_t total)
{
	uint64_t reserve = max_u64(total / 20, 256ULL << 20);

	return min_u64(min_u64(reserve, 8ULL << 30), total / 4);
}

void manager_configure(struct manager *m, const struct manager_config *config, uint64_t now_ms)
{
	manager_now(m, now_ms);
	m->config = *config;
	if (!m->config.pass_ms)
		m->config.pass_ms = MANAGER_PASS_MS;
	if (!m->config.stale_ms)
		m->config.stale_ms = MANAGER_STALE_MS;
	m->pass.step = PASS_NONE;
	manager_hurry(m);
}

int manager_init(struct manager *m, const struct manager_config *config,
		 const struct manager_ops *ops, void *opaque, struct manager_vm *vms,
		 struct balance_vm *balance, uint32_t n, uint64_t now_ms)
{
	if (!n || n > BALANCE_VMS_MAX || !ops || !ops->set_target || !vms || !balance)
		return -EINVAL;
	*m = (struct manager){
		.ops = ops,
		.opaque = opaque,
		.vms = vms,
		.balance = balance,
		.n = n,
		.now_ms = now_ms,
		.passed_ms = now_ms,
		.due_ms = now_ms,
	};
	memset(vms, 0, n * sizeof(*vms));
	memset(balance, 0, n * sizeof(*balance));
	reserve_init(&m->reserve);
	manager_configure(m, config, now_ms);
	m->due_ms = now_ms;
	return 0;
}

static int set_bounds(struct balance_vm *b, uint64_t size, uint64_t floor, uint64_t ceiling,
		      uint32_t weight)
{
	if (floor == MANAGER_UNKNOWN)
		floor = min_u64(manager_default_floor(size), min_u64(ceiling, size));
	if (ceiling == MANAGER_UNKNOWN)
		ceiling = size;
	if (!weight)
		weight = BALANCE_WEIGHT_DEFAULT;
	if (floor > ceiling || ceiling > size || weight > BALANCE_WEIGHT_MAX)
		return -EINVAL;
	b->size = size;
	b->floor = floor;
	b->ceiling = ceiling;
	b->weight = weight;
	/*
	 * Bounds that are no targets themselves would have guests with large pages chase them for
	 * ever. Unless they are closer together than that.
	 */
	if (grain_up(size, floor) <= grain_down(size, ceiling)) {
		b->floor = grain_up(size, floor);
		b->ceiling = grain_down(size, ceiling);
	}
	return 0;
}

/* What was known before a restart, as far as it is of the same VM. */
static void restore(struct manager_vm *v, struct balance_vm *b, const struct manager_saved *saved,
		    uint64_t now_ms)
{
	if (!saved || saved->version != MANAGER_SAVED_VERSION || saved->size != b->size)
		return;
	v->demand.working = min_u64(saved->working, b->size);
	v->demand.growth = min_u64(saved->growth, b->size);
	v->demand.cache = min_u64(saved->cache, b->size);
	if (!saved->learned || !saved->learned_left_ms)
		return;
	b->learned = min_u64(saved->learned, b->size);
	if (saved->learned_hard)
		b->flags |= BALANCE_LEARNED_HARD;
	v->learned_span_ms = min_u64(max_u64(saved->learned_span_ms, MANAGER_LEARNED_MS),
				     MANAGER_LEARNED_MAX_MS);
	v->learned_end_ms = later(now_ms, min_u64(saved->learned_left_ms, v->learned_span_ms));
	v->learned_used = saved->learned_used;
	v->learned_free = min_u64(saved->learned_free, b->size);
}

/* A record as of a guest of which nothing is known yet. */
static void forget(struct manager_vm *v, uint64_t actual, uint64_t target, uint64_t now_ms)
{
	v->stats_ever = false;
	v->unanswered = 0;
	v->weak_run = 0;
	v->health = HEALTH_UNKNOWN;
	v->judgement = (struct judgement){.verdict = VERDICT_UNKNOWN};
	v->pressure_ms = 0;
	v->emergency_end_ms = 0;
	v->retry_ms = 0;
	v->retry_span_ms = 0;
	v->actual_ms = now_ms;
	v->heard_ms = now_ms;
	demand_init(&v->demand);
	progress_init(&v->progress, actual, now_ms);
	progress_target(&v->progress, target, now_ms);
}

int manager_vm_add(struct manager *m, uint32_t slot, const struct manager_facts *facts,
		   const struct manager_saved *saved, uint64_t now_ms)
{
	struct balance_vm b = {.size = 0};
	struct manager_vm *v;
	int err;

	now_ms = manager_now(m, now_ms);
	if (slot >= m->n || !facts->size || facts->size >= BALANCE_SIZE_MAX)
		return -EINVAL;
	v = &m->vms[slot];
	if (v->present)
		return -EEXIST;
	err = set_bounds(&b, facts->size, facts->floor, facts->ceiling, facts->weight);
	if (err)
		return err;
	b.actual = min_u64(facts->actual, facts->size);
	b.target = facts->target == MANAGER_UNKNOWN ? b.actual : min_u64(facts->target, b.size);
	*v = (struct manager_vm){.present = true, .driver = facts->driver};
	forget(v, b.actual, b.target, now_ms);
	restore(v, &b, saved, now_ms);
	m->balance[slot] = b;
	m->present++;
	if (slot >= m->used)
		m->used = slot + 1;
	balance_levels(&m->balance[slot]);
	balance_account(&m->plan, &m->balance[slot], false);
	manager_refresh(m, slot);
	manager_hurry(m);
	return 0;
}

int manager_vm_remove(struct manager *m, uint32_t slot, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);

	manager_now(m, now_ms);
	if (!v)
		return -ENOENT;
	balance_account(&m->plan, &m->balance[slot], true);
	m->balance[slot] = (struct balance_vm){.size = 0};
	*v = (struct manager_vm){.present = false};
	m->present--;
	while (m->used && !m->vms[m->used - 1].present)
		m->used--;
	manager_hurry(m);
	return 0;
}

int manager_vm_set(struct manager *m, uint32_t slot, uint64_t floor, uint64_t ceiling,
		   uint32_t weight, uint64_t now_ms)
{
	struct balance_vm *b, wanted;
	struct decision d;
	int err;

	manager_now(m, now_ms);
	if (!manager_find(m, slot))
		return -ENOENT;
	b = &m->balance[slot];
	wanted = *b;
	err = set_bounds(&wanted, b->size, floor, ceiling, weight);
	if (err)
		return err;
	balance_account(&m->plan, b, true);
	*b = wanted;
	balance_levels(b);
	balance_account(&m->plan, b, false);
	manager_refresh(m, slot);
	manager_decide(m, slot, 0, &d);
	if (d.reason == REASON_BOUNDS)
		manager_move(m, slot, &d);
	manager_hurry(m);
	return 0;
}

void manager_driver(struct manager *m, uint32_t slot, enum manager_driver driver, uint64_t now_ms)
{
	struct manager_vm *v = manager_find(m, slot);
	struct balance_vm *b;
	bool known_better;

	now_ms = manager_now(m, now_ms);
	if (!v)
		return;
	known_better = v->driver != driver && v->driver != MANAGER_DRIVER_NONE &&
		       driver != MANAGER_DRIVER_NONE;
	v->driver = driver;
	if (known_better) {
		manager_refresh(m, slot);
		manager_hurry(m);
		return;
	}
	b = &m->balance[slot];
	balance_account(&m->plan, b, true);
	b->actual = b->size;
	forget(v, b->actual, b->target, now_ms);
	balance_levels(b);
	balance_account(&m->plan, b, false);
	manager_unlearn(m, slot, 0);
	manager_refresh(m, slot);
	/* The next driver would go straight to the old target, in the middle of its boot. */
	if (driver == MANAGER_DRIVER_NONE)
		manager_move_to(m, slot, b->ceiling, REASON_NO_DRIVER);
	manager_hurry(m);
}

const struct manager_vm *manager_vm(const struct manager *m, uint32_t slot)
{
	return manager_find(m, slot);
}

const struct balance_vm *manager_balance(const struct manager *m, uint32_t slot)
{
	return manager_find(m, slot) ? &m->balance[slot] : NULL;
}

const struct decision *manager_decision(const struct manager *m, uint32_t slot, uint32_t i)
{
	const struct manager_vm *v = manager_find(m, slot);

	if (!v || i >= v->decisions)
		return NULL;
	return &v->ring[(v->newest + MANAGER_DECISIONS - i) % MANAGER_DECISIONS];
}

/* Adds to a text of *at characters; goes on counting when buf is full. */
static void append(char *buf, size_t len, size_t *at, const struct decision *d, const char *name)
{
	size_t used = min_u64(*at, len);

	if (*at) {
		if (used + 1 < len) {
			buf[used] = ' ';
			buf[used + 1] = '\0';
			used++;
		} else {
			used = len;
		}
		*at += 1;
	}
	/* A full buffer stays terminated: nothing is written behind its last character. */
	*at += explain_decision(d, name, used < len ? buf + used : buf, len - used);
}

size_t manager_explain(const struct manager *m, uint32_t slot, const char *name, char *buf,
		       size_t len)
{
	const struct manager_vm *v = manager_find(m, slot);
	const struct decision *last = manager_decision(m, slot, 0);
	size_t at = 0;

	if (len)
		buf[0] = '\0';
	if (!v)
		return 0;
	if (last)
		append(buf, len, &at, last, name);
	if (v->standing.at_ms && v->standing.action == ACTION_KEEP)
		append(buf, len, &at, &v->standing, name);
	return at;
}

int manager_save(const struct manager *m, uint32_t slot, struct manager_saved *saved,
		 uint64_t now_ms)
{
	const struct manager_vm *v = manager_find(m, slot);
	const struct balance_vm *b;

	if (!v)
		return -ENOENT;
	b = &m->balance[slot];
	*saved = (struct manager_saved){
		.version = MANAGER_SAVED_VERSION,
		.learned_hard = b->flags & BALANCE_LEARNED_HARD ? 1 : 0,
		.size = b->size,
		.target = b->target,
		.learned = b->learned,
		.learned_left_ms = b->learned ? sub_u64(v->learned_end_ms, now_ms) : 0,
		.learned_span_ms = v->learned_span_ms,
		.learned_used = v->learned_used,
		.learned_free = v->learned_free,
		.working = v->demand.working,
		.growth = v->demand.growth,
		.cache = v->demand.cache,
	};
	return 0;
}
