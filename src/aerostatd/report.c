// SPDX-License-Identifier: MIT
#include "report.h"

#include <inttypes.h>
#include <string.h>

#include "common/stat_name.h"
#include "policy/explain.h"
#include "qmp/json.h"

static void add_u64(struct json_object **out, const char *key, uint64_t value)
{
	qmp_obj_add(out, key, json_object_new_uint64(value));
}

/* What is not known is not there. */
static void add_known(struct json_object **out, const char *key, uint64_t value)
{
	if (value != MANAGER_UNKNOWN)
		add_u64(out, key, value);
}

static void add_str(struct json_object **out, const char *key, const char *value)
{
	qmp_obj_add(out, key, json_object_new_string(value));
}

static void add_bool(struct json_object **out, const char *key, bool value)
{
	qmp_obj_add(out, key, json_object_new_boolean(value));
}

static const char *driver_name(enum manager_driver driver)
{
	static const char *const names[] = {
		[MANAGER_DRIVER_NONE] = "none",
		[MANAGER_DRIVER_NO_STATS] = "no-statistics",
		[MANAGER_DRIVER_FULL] = "full",
	};

	return names[driver];
}

static void add_absence(struct json_object **out, const struct endpoint_view *view)
{
	static const char *const names[] = {
		[ENDPOINT_PRESENT] = NULL,
		[ENDPOINT_GONE] = "gone",
		[ENDPOINT_HUNG] = "hung",
		[ENDPOINT_MISBEHAVED] = "misbehaved",
		[ENDPOINT_NO_BALLOON] = "no-balloon",
	};

	if (names[view->absence])
		add_str(out, "absence", names[view->absence]);
	if (view->why[0])
		add_str(out, "why", view->why);
}

static void add_stats(struct json_object **out, const struct guest_stats *stats, struct instant now)
{
	struct json_object *set;

	if (!stats->known)
		return;
	set = json_object_new_object();
	for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++) {
		if (stats_has(stats, tag))
			add_u64(&set, stat_name(tag), stats_get(stats, tag));
	}
	qmp_obj_add(out, "stats", set);
	add_u64(out, "stats-age-ms", now.mono_ms > stats->at_ms ? now.mono_ms - stats->at_ms : 0);
}

/* What only the manager knows. */
static void add_managed(struct json_object **out, const struct fleet *fleet, uint32_t slot)
{
	const struct manager_vm *vm = manager_vm(&fleet->manager, slot);
	const struct balance_vm *balance = manager_balance(&fleet->manager, slot);

	if (!vm || !balance)
		return;
	add_u64(out, "target", balance->target);
	add_str(out, "verdict", verdict_name(vm->judgement.verdict));
	add_bool(out, "verdict-weak", vm->judgement.weak);
	add_str(out, "verdict-reason", verdict_reason_name(vm->judgement.reason));
	add_str(out, "health", health_state_name(vm->health));
	add_str(out, "progress", progress_name(vm->progress.state));
	add_bool(out, "emergency", vm->emergency_end_ms != 0);
	if (balance->learned)
		add_u64(out, "learned-floor", balance->learned);
	if (vm->demand.known) {
		add_u64(out, "used", vm->demand.used);
		add_u64(out, "working", vm->demand.working);
		add_u64(out, "growth", vm->demand.growth);
	}
	add_u64(out, "releases", vm->releases);
	add_u64(out, "oom-kills", vm->oom_kills);
}

struct json_object *report_vm(const struct fleet *fleet, uint32_t slot, struct instant now)
{
	const struct fleet_vm *vm = &fleet->vms[slot];
	const struct endpoint_view *view = endpoint_view(vm->endpoint);
	struct state_wishes bounds = fleet_bounds(fleet, slot);
	struct json_object *out = json_object_new_object();

	add_str(&out, "name", vm->name);
	if (view->uuid[0])
		add_str(&out, "uuid", view->uuid);
	add_str(&out, "monitor", endpoint_path(vm->endpoint));
	add_str(&out, "kind", endpoint_kind_name(view->kind));
	add_str(&out, "state", endpoint_phase_name(view->phase));
	add_absence(&out, view);
	add_bool(&out, "managed", vm->managed);
	add_bool(&out, "running", view->running);
	add_str(&out, "driver", driver_name(view->driver));
	if (view->size) {
		add_u64(&out, "size", view->size);
		add_u64(&out, "floor", bounds.floor);
		add_u64(&out, "ceiling", bounds.ceiling);
	}
	add_u64(&out, "priority", bounds.priority);
	if (view->ready)
		add_u64(&out, "actual", view->actual);
	if (view->device.known) {
		add_u64(&out, "resident", view->device.resident);
		add_u64(&out, "freed", view->device.freed);
		add_bool(&out, "push", view->device.push);
		add_bool(&out, "messages", view->device.messages);
	}
	add_stats(&out, &view->stats, now);
	add_managed(&out, fleet, slot);
	return out;
}

struct json_object *report_vms(const struct fleet *fleet, struct instant now)
{
	struct json_object *list = json_object_new_array();

	for (uint32_t i = 0; i < fleet->used; i++) {
		if (fleet->vms[i].endpoint)
			qmp_arr_add(&list, report_vm(fleet, i, now));
	}
	return list;
}

static struct json_object *report_reservations(const struct reserve *reserve, struct instant now)
{
	struct json_object *list = json_object_new_array();

	for (uint32_t i = 0; i < reserve->n; i++) {
		const struct reservation *r = &reserve->entry[i];
		struct json_object *out = json_object_new_object();

		add_u64(&out, "id", r->id);
		add_u64(&out, "bytes", r->bytes);
		add_u64(&out, "got", r->got);
		add_bool(&out, "granted", r->state == RESERVE_GRANTED);
		add_u64(&out, "left-ms",
			r->deadline_ms > now.mono_ms ? r->deadline_ms - now.mono_ms : 0);
		qmp_arr_add(&list, out);
	}
	return list;
}

struct json_object *report_host(const struct fleet *fleet, struct instant now)
{
	const struct manager *m = &fleet->manager;
	const struct balance_plan *plan = &m->plan;
	struct json_object *out = json_object_new_object();
	uint64_t reserve = m->config.reserve, vms = 0;

	if (fleet->host_known) {
		add_u64(&out, "total", fleet->host.total);
		add_u64(&out, "available", fleet->host.available);
		add_u64(&out, "resident", fleet->host.resident);
		if (fleet->psi_known) {
			qmp_obj_add(&out, "some-avg10",
				    json_object_new_double(fleet->host.some_centi / 100.0));
			qmp_obj_add(&out, "full-avg10",
				    json_object_new_double(fleet->host.full_centi / 100.0));
		}
		if (reserve == MANAGER_UNKNOWN)
			reserve = manager_default_reserve(fleet->host.total);
	}
	add_known(&out, "reserve", reserve);
	if (m->config.budget)
		add_u64(&out, "budget", m->config.budget);
	if (plan->known) {
		add_u64(&out, "allowed", plan->budget);
		add_u64(&out, "promised", plan->promised);
		add_u64(&out, "pool", plan->pool);
		add_u64(&out, "unmet", plan->unmet);
	}
	add_bool(&out, "scarce", m->scarce);
	add_bool(&out, "pressed", plan->host_pressed);
	for (uint32_t i = 0; i < fleet->used; i++)
		vms += fleet->vms[i].endpoint != NULL;
	add_u64(&out, "vms", vms);
	add_u64(&out, "managed", m->present);
	add_bool(&out, "dry-run", m->config.observe);
	add_u64(&out, "passes", m->passes);
	add_u64(&out, "moves", m->moves);
	add_u64(&out, "uptime-ms", now.mono_ms - fleet->started_ms);
	qmp_obj_add(&out, "reservations", report_reservations(&m->reserve, now));
	return out;
}

struct json_object *report_decision(const struct decision *d, const char *name, struct instant now)
{
	struct json_object *out = json_object_new_object();
	char text[EXPLAIN_ROOM];

	explain_decision(d, name, text, sizeof(text));
	add_u64(&out, "age-ms", now.mono_ms > d->at_ms ? now.mono_ms - d->at_ms : 0);
	add_str(&out, "action", action_name(d->action));
	add_str(&out, "reason", reason_name(d->reason));
	add_u64(&out, "from", d->from);
	add_u64(&out, "to", d->to);
	add_known(&out, "goal", d->goal);
	add_known(&out, "actual", d->actual);
	add_known(&out, "used", d->used);
	add_known(&out, "working", d->working);
	add_known(&out, "available", d->available);
	add_known(&out, "growth", d->growth);
	add_known(&out, "learned", d->learned);
	add_known(&out, "stats-age-ms", d->age_ms);
	add_known(&out, "budget", d->budget);
	add_known(&out, "room", d->room);
	add_str(&out, "verdict", verdict_name(d->verdict));
	add_str(&out, "text", text);
	return out;
}

struct json_object *report_judgement(const struct judgement *j, const char *name)
{
	const struct verdict_numbers *n = &j->numbers;
	struct json_object *out = json_object_new_object();
	char text[EXPLAIN_ROOM];

	explain_judgement(j, name, text, sizeof(text));
	add_str(&out, "verdict", verdict_name(j->verdict));
	add_bool(&out, "weak", j->weak);
	add_str(&out, "reason", verdict_reason_name(j->reason));
	add_u64(&out, "span-ms", n->span_ms);
	add_u64(&out, "kills", n->kills);
	add_u64(&out, "stalls", n->stalls);
	add_u64(&out, "scan-direct", n->scan_direct);
	add_u64(&out, "reclaim-direct", n->reclaim_direct);
	add_u64(&out, "scan-async", n->scan_async);
	add_u64(&out, "reclaim-async", n->reclaim_async);
	add_u64(&out, "swap-in", n->swap_in);
	add_u64(&out, "swap-out", n->swap_out);
	add_u64(&out, "major-faults", n->major_faults);
	add_u64(&out, "available", n->available);
	add_u64(&out, "total", n->total);
	add_str(&out, "text", text);
	return out;
}

struct json_object *report_explanation(const struct fleet *fleet, uint32_t slot, struct instant now)
{
	const char *name = fleet->vms[slot].name;
	const struct manager_vm *vm = manager_vm(&fleet->manager, slot);
	struct json_object *out = json_object_new_object(), *list = json_object_new_array();
	const struct decision *d;
	char text[2 * EXPLAIN_ROOM];

	if (!vm) {
		const struct endpoint_view *view = endpoint_view(fleet->vms[slot].endpoint);

		snprintf(text, sizeof(text), "%s: not managed: %s", name,
			 view->why[0] ? view->why : "its memory is not known yet");
	} else {
		manager_explain(&fleet->manager, slot, name, text, sizeof(text));
		qmp_obj_add(&out, "judgement", report_judgement(&vm->judgement, name));
	}
	add_str(&out, "text", text);
	for (uint32_t i = 0; (d = manager_decision(&fleet->manager, slot, i)); i++)
		qmp_arr_add(&list, report_decision(d, name, now));
	qmp_obj_add(&out, "decisions", list);
	return out;
}

struct json_object *report_news(const struct news_item *item, struct instant now)
{
	struct json_object *out = json_object_new_object();

	add_u64(&out, "seq", item->seq);
	add_u64(&out, "age-ms", instant_age_ms(now, item->at));
	add_str(&out, "event", item->event);
	if (item->text)
		add_str(&out, "text", item->text);
	if (item->data)
		qmp_obj_add(&out, "data", json_object_get(item->data));
	return out;
}
