// SPDX-License-Identifier: MIT
/* What all endpoints have in common, whoever it is that they ask. */
#include "endpoint.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "endpoint_parts.h"
#include "qmp/json.h"

/* Statistics this many intervals old were due and have not come. */
#define LATE_INTERVALS 2
#define LATE_SLACK_MS  500

static const char *const phase_names[] = {
	[ENDPOINT_RESTING] = "resting",
	[ENDPOINT_CONNECTING] = "connecting",
	[ENDPOINT_ASKING] = "asking",
	[ENDPOINT_SERVING] = "serving",
};
static_assert(sizeof(phase_names) / sizeof(phase_names[0]) == ENDPOINT_PHASE_COUNT, "all phases");

static const char *const kind_names[] = {
	[ENDPOINT_KIND_UNKNOWN] = "unknown",
	[ENDPOINT_KIND_QEMU] = "qemu",
	[ENDPOINT_KIND_AEROSTAT] = "aerostat",
	[ENDPOINT_KIND_LIBVIRT] = "libvirt",
};
static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == ENDPOINT_KIND_COUNT, "all kinds");

const char *endpoint_phase_name(enum endpoint_phase phase)
{
	return phase_names[phase];
}

const char *endpoint_kind_name(enum endpoint_kind kind)
{
	return kind_names[kind];
}

/* --- telling ---------------------------------------------------------------------------------- */

void endpoint_tell(struct endpoint *e, enum endpoint_change what)
{
	if (!e->closing)
		e->ops->changed(e->opaque, e, what);
}

/* What is said of a VM is said when it can be managed. Up first, statistics last, and only if there
 * are some. */
void endpoint_tell_all(struct endpoint *e, unsigned int changes)
{
	static const enum endpoint_change order[] = {
		ENDPOINT_CHANGE_UP,     ENDPOINT_CHANGE_DRIVER, ENDPOINT_CHANGE_ACTUAL,
		ENDPOINT_CHANGE_HEALTH, ENDPOINT_CHANGE_DEVICE, ENDPOINT_CHANGE_STATS,
	};

	if (e->view.phase != ENDPOINT_SERVING || !e->view.ready)
		return;
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (order[i] == ENDPOINT_CHANGE_STATS && !e->view.stats.known)
			continue;
		if (changes >> order[i] & 1)
			endpoint_tell(e, order[i]);
	}
}

/* --- taking figures --------------------------------------------------------------------------- */

void endpoint_take_text(char *place, size_t room, const char *text)
{
	size_t n = 0;

	if (!text)
		return;
	for (; *text && n + 1 < room; text++) {
		bool wide = (unsigned char)*text >= 0x80 && qmp_utf8_is_control(text);

		place[n++] = wide || (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
		text += wide;
	}
	/* Not in the middle of a character. */
	while (*text && n > 0 && ((unsigned char)place[n - 1] & 0xc0) == 0x80)
		n--;
	if (*text && n > 0 && (unsigned char)place[n - 1] >= 0xc0)
		n--;
	place[n] = '\0';
}

bool endpoint_is_uuid(const char *text)
{
	static const char like[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	size_t i = 0;

	while (like[i] && (like[i] == '-' ? text[i] == '-' : isxdigit((unsigned char)text[i])))
		i++;
	return !like[i] && !text[i];
}

void endpoint_set_size(struct endpoint *e, uint64_t size, unsigned int *changes)
{
	if (size == e->view.size || size == 0 || size > ENDPOINT_SIZE_MAX)
		return;
	e->view.size = size;
	*changes |= 1U << ENDPOINT_CHANGE_UP;
}

void endpoint_set_driver(struct endpoint *e, enum manager_driver driver, unsigned int *changes)
{
	if (driver == e->view.driver)
		return;
	*changes |= 1U << ENDPOINT_CHANGE_DRIVER;
	if (driver == MANAGER_DRIVER_NONE)
		endpoint_forget_driver(e);
	e->view.driver = driver;
}

bool endpoint_set_actual(struct endpoint *e, uint64_t actual)
{
	if (actual == 0 || actual > ENDPOINT_SIZE_MAX)
		return false;
	if (e->view.size && actual > e->view.size)
		actual = e->view.size;
	if (actual == e->view.actual)
		return false;
	e->view.actual = actual;
	return true;
}

void endpoint_take_running(struct endpoint *e, bool running, struct instant now)
{
	e->view.running = running;
	e->runs_since_ms = now.mono_ms;
}

void endpoint_forget_driver(struct endpoint *e)
{
	e->view.driver = MANAGER_DRIVER_NONE;
	e->forgotten_update = e->last_update;
	e->view.stats.known = 0;
	if (e->view.size)
		e->view.actual = e->view.size;
}

/* When they were taken, on the monotonic clock. Always later than the last ones. */
static uint64_t moment_of(const struct endpoint *e, uint64_t age_ms, struct instant now)
{
	uint64_t at = now.mono_ms > age_ms ? now.mono_ms - age_ms : 1;

	return at > e->view.stats.at_ms ? at : e->view.stats.at_ms + 1;
}

/* How old QEMU's are: it tells whole seconds of the wall clock, and half a second is the likeliest
 * rest. That clock can be set back meanwhile. update <= INT64_MAX / 2000. */
uint64_t endpoint_wall_age_ms(uint64_t update, struct instant now)
{
	int64_t ms = now.wall_us / 1000 - (int64_t)update * 1000 - 500;

	return ms > 0 ? (uint64_t)ms : 0;
}

bool endpoint_set_stats(struct endpoint *e, struct guest_stats *fresh, uint64_t update,
			uint64_t age_ms, struct instant now)
{
	fresh->at_ms = moment_of(e, age_ms, now);
	if (fresh->at_ms > now.mono_ms)
		return false; /* more than one each millisecond */
	e->last_update = update;
	e->view.stats = *fresh;
	return true;
}

bool endpoint_overdue(const struct endpoint *e, uint64_t now_ms)
{
	const struct endpoint_view *v = &e->view;
	uint64_t since = v->stats.at_ms > e->runs_since_ms ? v->stats.at_ms : e->runs_since_ms;

	return (v->kind == ENDPOINT_KIND_QEMU || v->kind == ENDPOINT_KIND_LIBVIRT) && v->running &&
	       v->driver == MANAGER_DRIVER_FULL && v->stats.at_ms && now_ms > since &&
	       now_ms - since > LATE_INTERVALS * e->interval_ms + LATE_SLACK_MS;
}

/* --- losing it -------------------------------------------------------------------------------- */

/* The process has ended: its figures are nobody's now. What it was called is still of interest. */
static void forget_process(struct endpoint *e)
{
	struct endpoint_view *v = &e->view;

	endpoint_forget_driver(e);
	v->ready = false;
	v->size = v->actual = 0;
	v->target = MANAGER_UNKNOWN;
	v->health = HEALTH_UNKNOWN;
	v->stats = (struct guest_stats){0};
	v->device = (struct endpoint_device){0};
	e->last_update = e->forgotten_update = 0;
}

/* Also called again for one that rests: several commands can time out together. */
void endpoint_rest(struct endpoint *e, enum endpoint_absence absence, const char *why)
{
	bool serving = e->view.phase == ENDPOINT_SERVING;

	if (e->view.phase == ENDPOINT_RESTING)
		return;
	e->backend->drop(e);
	e->view.phase = ENDPOINT_RESTING;
	e->view.absence = absence;
	e->view.why[0] = '\0';
	endpoint_take_text(e->view.why, sizeof(e->view.why), why);
	/* Nothing to be had there soon, but a balloon may be plugged in. */
	if (absence == ENDPOINT_NO_BALLOON)
		e->rest_ms = ENDPOINT_REST_MAX_MS;
	uv_timer_start(&e->timer, e->backend->on_timer, e->rest_ms, 0);
	e->rest_ms = e->rest_ms * 2 < ENDPOINT_REST_MAX_MS ? e->rest_ms * 2 : ENDPOINT_REST_MAX_MS;
	if (serving || absence != ENDPOINT_PRESENT)
		endpoint_tell(e, ENDPOINT_CHANGE_DOWN);
	if (absence == ENDPOINT_GONE)
		forget_process(e);
}

/* --- its owner -------------------------------------------------------------------------------- */

struct endpoint *endpoint_create(uv_loop_t *loop, const char *path, uint32_t interval_ms,
				 bool observe, const struct endpoint_ops *ops, void *opaque,
				 const struct endpoint_backend *backend)
{
	struct endpoint *e = calloc(1, sizeof(*e));

	if (e)
		e->path = strdup(path);
	if (!e || !e->path) {
		free(e);
		return NULL;
	}
	e->backend = backend;
	e->loop = loop;
	e->interval_ms = interval_ms;
	e->observe = observe;
	e->ops = ops;
	e->opaque = opaque;
	e->rest_ms = ENDPOINT_REST_MS;
	e->view.target = MANAGER_UNKNOWN;
	e->view.running = true;
	uv_timer_init(loop, &e->timer); /* cannot fail */
	e->timer.data = e;
	uv_timer_start(&e->timer, backend->on_timer, 0, 0);
	return e;
}

int endpoint_set_target(struct endpoint *e, uint64_t keep)
{
	int r;

	if (e->view.phase != ENDPOINT_SERVING)
		return -ENOTCONN;
	r = e->backend->set_target(e, keep);
	if (r == 0)
		e->view.target = keep;
	return r;
}

void endpoint_observe(struct endpoint *e, bool observe)
{
	if (e->observe == observe)
		return;
	e->observe = observe;
	e->backend->observe(e);
}

static void on_closed(uv_handle_t *handle)
{
	struct endpoint *e = handle->data;

	free(e->path);
	free(e);
}

void endpoint_free(struct endpoint *e)
{
	if (!e || e->closing)
		return;
	e->closing = true;
	e->backend->drop(e);
	uv_close((uv_handle_t *)&e->timer, on_closed);
}

const struct endpoint_view *endpoint_view(const struct endpoint *e)
{
	return &e->view;
}

const char *endpoint_path(const struct endpoint *e)
{
	return e->path;
}

void endpoint_set_user(struct endpoint *e, void *user)
{
	e->user = user;
}

void *endpoint_user(const struct endpoint *e)
{
	return e->user;
}
