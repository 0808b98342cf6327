// SPDX-License-Identifier: MIT
#include "fleet.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "fleet_events.h"
#include "fleet_parts.h"
#include "host.h"
#include "policy/explain.h"

#define SAVE_SECONDS 30 /* between two looks whether the state has changed */

/*
 * Commands and events of a pass at a time, before the loop looks whether a guest is in need. A move
 * is one of each, and takes some 25 to 50 microseconds.
 */
#define PORTION 16

#define STALE_SLACK_MS 500 /* for the answer itself */

/* --- slots ------------------------------------------------------------------------------------ */

static uint32_t slot_of(const struct fleet *f, const struct endpoint *e)
{
	return (uint32_t)((struct fleet_vm *)endpoint_user(e) - f->vms);
}

static const struct config_vm *configured(const struct fleet *f, const struct fleet_vm *vm)
{
	const struct config_vm *found = config_find_vm(&f->config, vm->name);

	if (!found && endpoint_view(vm->endpoint)->uuid[0])
		found = config_find_vm(&f->config, endpoint_view(vm->endpoint)->uuid);
	return found;
}

struct state_wishes fleet_bounds(const struct fleet *fleet, uint32_t slot)
{
	const struct fleet_vm *vm = &fleet->vms[slot];
	const struct config_vm *told = configured(fleet, vm);
	uint64_t size = endpoint_view(vm->endpoint)->size;
	struct state_wishes bounds = vm->wishes;

	if (bounds.floor == MANAGER_UNKNOWN)
		bounds.floor = told && told->floor_bytes != CONFIG_AUTO
				       ? told->floor_bytes
				       : manager_default_floor(size);
	if (bounds.floor > size)
		bounds.floor = size;
	if (bounds.ceiling > size)
		bounds.ceiling = size;
	if (bounds.ceiling < bounds.floor)
		bounds.ceiling = bounds.floor;
	if (!bounds.priority)
		bounds.priority = told ? told->priority : CONFIG_PRIORITY_DEFAULT;
	return bounds;
}

/* --- the manager's side ----------------------------------------------------------------------- */

static void on_set_target(void *opaque, uint32_t slot, uint64_t keep)
{
	struct fleet *f = opaque;
	struct fleet_vm *vm = &f->vms[slot];
	const struct endpoint_view *view = endpoint_view(vm->endpoint);

	if (keep < view->actual && !vm->lowered_us)
		vm->lowered_us = uv_hrtime() / 1000;
	if (keep >= view->actual)
		vm->lowered_us = 0;
	vm->lowered_to = keep;
	if (endpoint_set_target(vm->endpoint, keep) < 0)
		manager_target_answered(&f->manager, slot, false, clock_now().mono_ms);
}

static void on_manager_event(void *opaque, const struct manager_event *event)
{
	fleet_tell_manager_event(opaque, event);
}

static const struct manager_ops manager_ops = {on_set_target, on_manager_event};

static enum health_state health_of(const struct endpoint_view *view)
{
	if (!view->running)
		return HEALTH_PAUSED;
	return view->health;
}

static void manage(struct fleet *f, uint32_t slot)
{
	struct fleet_vm *vm = &f->vms[slot];
	const struct endpoint_view *view = endpoint_view(vm->endpoint);
	struct instant now = clock_now();
	struct manager_saved saved;
	struct manager_facts facts = {.size = view->size,
				      .driver = view->driver,
				      .actual = view->actual,
				      .target = view->target};
	struct state_wishes bounds;
	int r;

	fleet_name_vm(f, vm);
	fleet_key(f, vm, vm->key, sizeof(vm->key));
	memcpy(vm->told, view->name, sizeof(vm->told));
	memcpy(vm->uuid, view->uuid, sizeof(vm->uuid));
	state_get(&f->state, vm->key, &saved, &vm->wishes, now);
	bounds = fleet_bounds(f, slot);
	facts.floor = bounds.floor;
	facts.ceiling = bounds.ceiling;
	facts.weight = bounds.priority;
	r = manager_vm_add(&f->manager, slot, &facts, saved.version ? &saved : NULL, now.mono_ms);
	if (r < 0) {
		log_limited("%s: cannot be managed: %s", vm->name, strerror(-r));
		return;
	}
	vm->managed = true;
	fleet_tell(f, NEWS_VM_APPEARED, slot, NULL, "%s: appeared: %s, %" PRIu64 " MiB", vm->name,
		   endpoint_kind_name(view->kind), view->size >> 20);
}

/* What was learned of it, before it goes or this process ends. */
static void remember(struct fleet *f, uint32_t slot)
{
	struct fleet_vm *vm = &f->vms[slot];
	struct instant now = clock_now();
	struct manager_saved saved = {0};

	if (!vm->managed)
		return;
	(void)manager_save(&f->manager, slot, &saved, now.mono_ms);
	state_put(&f->state, vm->key, &saved, &vm->wishes, now);
}

void fleet_unmanage(struct fleet *f, uint32_t slot, const char *why)
{
	struct fleet_vm *vm = &f->vms[slot];

	if (!vm->managed)
		return;
	remember(f, slot);
	vm->managed = false;
	vm->lowered_us = vm->pressed_us = 0;
	manager_vm_remove(&f->manager, slot, clock_now().mono_ms);
	fleet_tell(f, NEWS_VM_GONE, slot, NULL, "%s: gone: %s", vm->name, why);
}

/* --- the endpoints' side ---------------------------------------------------------------------- */

static void on_up(struct fleet *f, uint32_t slot)
{
	struct fleet_vm *vm = &f->vms[slot];
	const struct endpoint_view *view = endpoint_view(vm->endpoint);
	const struct balance_vm *known = manager_balance(&f->manager, slot);
	uint64_t now_ms = clock_now().mono_ms;

	if (vm->managed && known && known->size != view->size)
		fleet_unmanage(f, slot, "its memory has another size");
	else if (strcmp(vm->told, view->name) != 0 || strcmp(vm->uuid, view->uuid) != 0)
		fleet_unmanage(f, slot, "another one is at its socket");
	if (!vm->managed) {
		manage(f, slot);
	} else {
		/* A monitor that is back: what has happened meanwhile? */
		if (manager_vm(&f->manager, slot)->driver != view->driver)
			manager_driver(&f->manager, slot, view->driver, now_ms);
		manager_actual(&f->manager, slot, view->actual, now_ms);
	}
	/* Also that nothing is known: it was unresponsive because its monitor was. */
	if (vm->managed)
		manager_health(&f->manager, slot, health_of(view), now_ms);
}

static void on_down(struct fleet *f, uint32_t slot)
{
	const struct endpoint_view *view = endpoint_view(f->vms[slot].endpoint);

	if (view->phase == ENDPOINT_SERVING)
		fleet_unmanage(f, slot, "its monitor knows of no machine");
	else if (view->absence == ENDPOINT_GONE || view->absence == ENDPOINT_NO_BALLOON)
		fleet_unmanage(f, slot, view->why);
	else if (f->vms[slot].managed)
		manager_health(&f->manager, slot, HEALTH_UNRESPONSIVE, clock_now().mono_ms);
}

static void on_actual(struct fleet *f, uint32_t slot)
{
	struct fleet_vm *vm = &f->vms[slot];
	const struct endpoint_view *view = endpoint_view(vm->endpoint);
	uint64_t us = uv_hrtime() / 1000;

	if (vm->lowered_us && view->actual <= vm->lowered_to) {
		latency_add(&f->counts.reclaims, us - vm->lowered_us);
		vm->lowered_us = 0;
	}
	if (vm->pressed_us && view->actual > vm->pressed_at) {
		latency_add(&f->counts.reliefs, us - vm->pressed_us);
		vm->pressed_us = 0;
	}
	manager_actual(&f->manager, slot, view->actual, clock_now().mono_ms);
}

static void on_changed(void *opaque, struct endpoint *e, enum endpoint_change what)
{
	struct fleet *f = opaque;
	uint32_t slot = slot_of(f, e);
	const struct endpoint_view *view = endpoint_view(e);
	uint64_t now_ms = clock_now().mono_ms;

	switch (what) {
	case ENDPOINT_CHANGE_UP:
		on_up(f, slot);
		break;
	case ENDPOINT_CHANGE_DOWN:
		on_down(f, slot);
		break;
	case ENDPOINT_CHANGE_DRIVER:
		manager_driver(&f->manager, slot, view->driver, now_ms);
		/* One that was found late has its balloon inflated already. */
		manager_actual(&f->manager, slot, view->actual, now_ms);
		break;
	case ENDPOINT_CHANGE_ACTUAL:
		on_actual(f, slot);
		break;
	case ENDPOINT_CHANGE_STATS:
		manager_stats(&f->manager, slot, &view->stats, now_ms);
		break;
	case ENDPOINT_CHANGE_HEALTH:
		manager_health(&f->manager, slot, health_of(view), now_ms);
		break;
	case ENDPOINT_CHANGE_DEVICE:
	default:
		break;
	}
}

static void on_pressure(void *opaque, struct endpoint *e, bool relieved, uint32_t level)
{
	struct fleet *f = opaque;
	uint32_t slot = slot_of(f, e);
	struct fleet_vm *vm = &f->vms[slot];
	uint64_t now_ms = clock_now().mono_ms;

	/* First what counts, then what is told. */
	if (relieved) {
		manager_relieved(&f->manager, slot, now_ms);
	} else {
		manager_pressure(&f->manager, slot, level, now_ms);
		if (level < VIRTIO_BALLOON_PRESSURE_NR)
			vm->messages[level]++;
		if (!vm->pressed_us) {
			vm->pressed_us = uv_hrtime() / 1000;
			vm->pressed_at = endpoint_view(e)->actual;
		}
	}
	fleet_tell_pressure(f, slot, relieved, level);
}

static void on_target_answered(void *opaque, struct endpoint *e, bool ok)
{
	struct fleet *f = opaque;

	manager_target_answered(&f->manager, slot_of(f, e), ok, clock_now().mono_ms);
}

static void on_unanswered(void *opaque, struct endpoint *e)
{
	struct fleet *f = opaque;

	manager_unanswered(&f->manager, slot_of(f, e), clock_now().mono_ms);
}

static void on_took(void *opaque, uint64_t us)
{
	struct fleet *f = opaque;

	latency_add(&f->counts.requests, us);
}

const struct endpoint_ops fleet_endpoint_ops = {on_changed, on_pressure, on_target_answered,
						on_unanswered, on_took};

/* --- time ------------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *timer)
{
	struct fleet *f = timer->data;

	f->tick_due_ms = MANAGER_NEVER;
	manager_tick(&f->manager, clock_now().mono_ms);
}

/* Whatever has happened in this turn of the loop: when is the manager due? If it is now, or goes on
 * with a pass, the loop looks at its sockets first, and does not wait there. */
static void on_settle(uv_prepare_t *prepare)
{
	struct fleet *f = prepare->data;
	uint64_t due = manager_next(&f->manager), now;

	if (due == f->tick_due_ms)
		return;
	f->tick_due_ms = due;
	now = clock_now().mono_ms;
	if (due == MANAGER_NEVER)
		uv_timer_stop(&f->tick);
	else
		uv_timer_start(&f->tick, on_tick, due > now ? due - now : 0, 0);
}

/* What the VMs have of the host's memory, as far as their devices say so. */
static uint64_t sum_resident(const struct fleet *f)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < f->used; i++) {
		const struct endpoint_view *view;

		if (!f->vms[i].managed)
			continue;
		view = endpoint_view(f->vms[i].endpoint);
		sum += view->device.known ? view->device.resident : view->actual;
	}
	/* Whatever they say, no more than what is in use. */
	return sum < f->host.total - f->host.available ? sum : f->host.total - f->host.available;
}

static void look_at_host(struct fleet *f)
{
	int r = host_read("/proc", &f->host, &f->psi_known);

	f->host_known = r == 0;
	if (r < 0) {
		log_limited("cannot read how much memory the host has: %s", strerror(-r));
		return;
	}
	f->host.resident = sum_resident(f);
	manager_host(&f->manager, &f->host, clock_now().mono_ms);
}

static void remember_all(struct fleet *f)
{
	for (uint32_t i = 0; i < f->used; i++)
		remember(f, i);
}

static void complain_of_state(const struct fleet *f, int status)
{
	if (status < 0)
		log_limited("%s: cannot be written: %s", f->state.path, strerror(-status));
}

/* In another thread: a disk can take its time. */
static void write_state(uv_work_t *work)
{
	struct fleet *f = work->data;

	f->saved_status = state_write(f->state.path, f->saved_text, f->saved_len);
}

static void save_aside(struct fleet *f);

static void on_state_written(uv_work_t *work, int status)
{
	struct fleet *f = work->data;

	free(f->saved_text);
	f->saved_text = NULL;
	if (status == 0 && f->saved_status < 0)
		f->state.changed = true;
	complain_of_state(f, f->saved_status);
	if (!f->save_again)
		return;
	f->save_again = false;
	save_aside(f);
}

static void save_aside(struct fleet *f)
{
	if (f->saved_text)
		return;
	complain_of_state(f, state_render(&f->state, clock_now(), &f->saved_text, &f->saved_len));
	f->saving.data = f;
	f->saved_status = 0;
	if (f->saved_text && uv_queue_work(f->loop, &f->saving, write_state, on_state_written) < 0)
		on_state_written(&f->saving, 0);
}

static void on_second(uv_timer_t *timer)
{
	struct fleet *f = timer->data;

	look_at_host(f);
	if (++f->seconds % SAVE_SECONDS == 0) {
		remember_all(f);
		save_aside(f);
	}
}

/* --- beginning and end ------------------------------------------------------------------------ */

/* Statistics of which one was missed, and the next is late, are old; not sooner, where they are
 * asked for more seldom than is usual. */
static uint32_t stale_after(uint32_t interval_ms)
{
	uint32_t late_ms = 2 * interval_ms + STALE_SLACK_MS;

	return late_ms > MANAGER_STALE_MS ? late_ms : MANAGER_STALE_MS;
}

static struct manager_config manager_config_of(const struct config *config, uint32_t interval_ms)
{
	return (struct manager_config){
		.budget = config->budget_bytes == CONFIG_AUTO ? 0 : config->budget_bytes,
		.reserve = config->reserve_bytes == CONFIG_AUTO ? MANAGER_UNKNOWN
								: config->reserve_bytes,
		.stale_ms = stale_after(interval_ms),
		.observe = config->dry_run,
		.portion = PORTION,
	};
}

int fleet_start(struct fleet *fleet, uv_loop_t *loop, struct config *config, uint32_t interval_ms,
		const struct fleet_ops *ops, void *opaque)
{
	struct manager_config settings;
	char error[512];
	int r;

	fleet->config = *config;
	*config = (struct config){0};
	settings = manager_config_of(&fleet->config, interval_ms);
	fleet->loop = loop;
	fleet->ops = ops;
	fleet->opaque = opaque;
	fleet->interval_ms = interval_ms;
	fleet->started_ms = clock_now().mono_ms;
	fleet->started_wall_us = clock_now().wall_us;
	fleet->tick_due_ms = MANAGER_NEVER;
	fleet->vms = calloc(FLEET_VMS_MAX, sizeof(*fleet->vms));
	fleet->manager_vms = calloc(FLEET_VMS_MAX, sizeof(*fleet->manager_vms));
	fleet->balance_vms = calloc(FLEET_VMS_MAX, sizeof(*fleet->balance_vms));
	if (!fleet->vms || !fleet->manager_vms || !fleet->balance_vms)
		return -ENOMEM;
	r = manager_init(&fleet->manager, &settings, &manager_ops, fleet, fleet->manager_vms,
			 fleet->balance_vms, FLEET_VMS_MAX, fleet->started_ms);
	if (r < 0)
		return r;
	r = state_load(&fleet->state, fleet->config.state, error, sizeof(error));
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		log_line("%s", error);
	uv_timer_init(loop, &fleet->tick); /* none of these can fail */
	uv_timer_init(loop, &fleet->second);
	uv_prepare_init(loop, &fleet->settle);
	fleet->tick.data = fleet->second.data = fleet->settle.data = fleet;
	uv_prepare_start(&fleet->settle, on_settle);
	uv_timer_start(&fleet->second, on_second, 1000, 1000);
	look_at_host(fleet);
	roster_add_configured(fleet);
	roster_watch(fleet);
	return 0;
}

void fleet_configure(struct fleet *fleet, struct config *config)
{
	struct manager_config settings;
	uint64_t now_ms = clock_now().mono_ms;

	config_free(&fleet->config);
	fleet->config = *config;
	*config = (struct config){0};
	settings = manager_config_of(&fleet->config, fleet->interval_ms);
	manager_configure(&fleet->manager, &settings, now_ms);
	roster_leave(fleet);
	for (uint32_t i = 0; i < fleet->used; i++) {
		fleet->vms[i].configured = false;
		if (fleet->vms[i].endpoint)
			endpoint_observe(fleet->vms[i].endpoint, fleet->config.dry_run);
	}
	roster_add_configured(fleet);
	for (uint32_t i = fleet->used; i-- > 0;) {
		struct state_wishes bounds;

		if (!fleet->vms[i].endpoint || !fleet->vms[i].managed)
			continue;
		bounds = fleet_bounds(fleet, i);
		manager_vm_set(&fleet->manager, i, bounds.floor, bounds.ceiling, bounds.priority,
			       now_ms);
	}
	roster_drop_strangers(fleet);
	roster_watch(fleet);
}

int fleet_wish(struct fleet *fleet, uint32_t slot, const struct state_wishes *wishes)
{
	struct fleet_vm *vm = &fleet->vms[slot];
	struct state_wishes before = vm->wishes, bounds;
	int r;

	if (wishes->floor != MANAGER_UNKNOWN && wishes->floor > wishes->ceiling)
		return -EINVAL;
	if (!vm->managed)
		return -ENOTCONN;
	vm->wishes = *wishes;
	bounds = fleet_bounds(fleet, slot);
	r = manager_vm_set(&fleet->manager, slot, bounds.floor, bounds.ceiling, bounds.priority,
			   clock_now().mono_ms);
	if (r < 0) {
		vm->wishes = before;
		return r;
	}
	remember(fleet, slot);
	fleet->save_again = fleet->saved_text != NULL;
	save_aside(fleet);
	return 0;
}

void fleet_stop(struct fleet *fleet)
{
	remember_all(fleet);
	for (size_t i = 0; i < fleet->n_directories; i++)
		discover_stop(fleet->directories[i]);
	fleet->n_directories = 0;
	for (uint32_t i = 0; i < fleet->used; i++)
		endpoint_free(fleet->vms[i].endpoint);
	libvirt_stop(fleet->libvirt);
	uv_close((uv_handle_t *)&fleet->tick, NULL);
	uv_close((uv_handle_t *)&fleet->second, NULL);
	uv_close((uv_handle_t *)&fleet->settle, NULL);
}

void fleet_free(struct fleet *fleet)
{
	libvirt_settle();
	/* Now that no other thread writes there. */
	complain_of_state(fleet, state_save(&fleet->state, clock_now()));
	config_free(&fleet->config);
	state_free(&fleet->state);
	news_free(&fleet->news);
	free(fleet->vms);
	free(fleet->manager_vms);
	free(fleet->balance_vms);
	*fleet = (struct fleet){0};
}
