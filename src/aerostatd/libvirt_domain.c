// SPDX-License-Identifier: MIT
/*
 * An endpoint that libvirt is asked about. One job at a time: a look at it, or a target; what comes
 * meanwhile waits, as it would for the domain's lock in libvirt. A job that is not back in time is
 * left to itself: the endpoint is hung, and stays so until that job has come back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "libvirt_parts.h"

/* Its memory can be plugged, and its name changed; that is looked at every so many beats. */
#define WHOLE_BEATS 5

static void go_on(struct endpoint *e);

/* --- what a look has found -------------------------------------------------------------------- */

static void set_running(struct endpoint *e, bool running, unsigned int *changes)
{
	if (e->view.running == running)
		return;
	endpoint_take_running(e, running, clock_now());
	*changes |= 1U << ENDPOINT_CHANGE_HEALTH;
}

static void set_actual(struct endpoint *e, uint64_t actual, unsigned int *changes)
{
	if (endpoint_set_actual(e, actual))
		*changes |= 1U << ENDPOINT_CHANGE_ACTUAL;
	/* The device is there without a driver; a balloon that is not empty has one. */
	if (e->view.driver == MANAGER_DRIVER_NONE && e->view.actual < e->view.size)
		endpoint_set_driver(e, MANAGER_DRIVER_NO_STATS, changes);
}

static void set_stats(struct endpoint *e, const struct libvirt_job *j, unsigned int *changes)
{
	struct instant now = clock_now();
	struct guest_stats fresh = j->stats;

	if (!j->update || j->update == e->last_update || j->update == e->forgotten_update ||
	    j->update > INT64_MAX / 2000 || !fresh.known)
		return;
	if (!endpoint_set_stats(e, &fresh, j->update, endpoint_wall_age_ms(j->update, now), now))
		return;
	*changes |= 1U << ENDPOINT_CHANGE_STATS;
	endpoint_set_driver(e, MANAGER_DRIVER_FULL, changes);
}

static void begin_serving(struct endpoint *e, unsigned int *changes)
{
	e->view.phase = ENDPOINT_SERVING;
	e->view.absence = ENDPOINT_PRESENT;
	e->view.why[0] = '\0';
	e->beats = 0;
	e->rest_ms = ENDPOINT_REST_MS;
	/* Those of many are spread over the interval by when they were reached. */
	uv_timer_start(&e->timer, e->backend->on_timer, e->interval_ms, 0);
	*changes |= 1U << ENDPOINT_CHANGE_UP | 1U << ENDPOINT_CHANGE_STATS;
}

static void take_look(struct endpoint *e, const struct libvirt_job *j)
{
	unsigned int changes = 0;

	if (!j->actual) {
		endpoint_rest(e, ENDPOINT_NO_BALLOON, "the machine has no balloon");
		return;
	}
	if (j->all) {
		endpoint_set_size(e, j->size, &changes);
		set_running(e, j->running, &changes);
	}
	set_actual(e, j->actual, &changes);
	set_stats(e, j, &changes);
	e->view.ready = e->view.size != 0;
	if (e->view.phase == ENDPOINT_ASKING)
		begin_serving(e, &changes);
	endpoint_tell_all(e, changes);
}

/* --- jobs ------------------------------------------------------------------------------------- */

static void answer_target(struct endpoint *e, bool ok)
{
	if (!e->target_asked)
		return;
	e->target_asked = false;
	e->wanted = MANAGER_UNKNOWN;
	if (!e->closing)
		e->ops->target_answered(e->opaque, e, ok);
}

static void give_up(struct endpoint *e, const struct libvirt_job *j)
{
	struct libvirt *lv = e->libvirt;

	if (j->result == LIBVIRT_LOST) {
		libvirt_lost(lv, j->why);
	} else if (j->result == LIBVIRT_NO_DOMAIN) {
		endpoint_rest(e, ENDPOINT_GONE, j->why);
		libvirt_list(lv);
	} else {
		endpoint_rest(e, ENDPOINT_HUNG, j->why);
	}
}

static void on_done(struct crew_job *job)
{
	const struct libvirt_job *j = (const struct libvirt_job *)job;
	struct endpoint *e = j->e;

	if (!e)
		return;
	e->job = NULL;
	if (e->view.phase < ENDPOINT_ASKING) {
		/* It came too late; but it came. */
		uv_timer_start(&e->timer, e->backend->on_timer, 0, 0);
		return;
	}
	e->ops->took(e->opaque, uv_hrtime() / 1000 - j->posted_us);
	if (j->keep == MANAGER_UNKNOWN) {
		if (j->result == LIBVIRT_FINE)
			take_look(e, j);
		else
			give_up(e, j);
	} else {
		/* If it is not well the next look says why. Another may be wanted meanwhile. */
		if (e->wanted == MANAGER_UNKNOWN)
			answer_target(e, j->result == LIBVIRT_FINE);
		if (j->result == LIBVIRT_LOST)
			libvirt_lost(e->libvirt, j->why);
	}
	if (e->view.phase == ENDPOINT_SERVING)
		go_on(e);
}

static void drop_job(struct crew_job *job)
{
	free(job);
}

/* keep: MANAGER_UNKNOWN for a look. False: out of memory. */
static bool post(struct endpoint *e, uint64_t keep)
{
	struct libvirt_job *j = calloc(1, sizeof(*j));

	if (!j)
		return false;
	j->job = (struct crew_job){libvirt_call_domain, on_done, drop_job, NULL};
	j->e = e;
	j->session = e->libvirt->session;
	memcpy(j->uuid, e->view.uuid, sizeof(j->uuid));
	j->posted_us = uv_hrtime() / 1000;
	j->keep = keep;
	if (keep == MANAGER_UNKNOWN) {
		j->all = e->anew || e->beats % WHOLE_BEATS == 0;
		if (e->anew && !e->observe)
			j->seconds = (e->interval_ms + 999) / 1000;
		e->anew = false;
	}
	e->job = j;
	crew_post(e->libvirt->crew, &j->job);
	return true;
}

/* What is wanted goes before the next look. */
static void go_on(struct endpoint *e)
{
	uint64_t keep = e->wanted;

	if (e->job || keep == MANAGER_UNKNOWN)
		return;
	e->wanted = MANAGER_UNKNOWN;
	if (!post(e, keep))
		answer_target(e, false);
}

/* --- time ------------------------------------------------------------------------------------- */

void libvirt_domain_ask(struct endpoint *e)
{
	if (e->view.phase >= ENDPOINT_ASKING)
		return;
	/* One whose job has not come back is hung still. */
	if (e->job || !e->libvirt->connected) {
		uv_timer_start(&e->timer, e->backend->on_timer, ENDPOINT_REST_MAX_MS, 0);
		return;
	}
	e->anew = true;
	if (post(e, MANAGER_UNKNOWN))
		e->view.phase = ENDPOINT_ASKING;
	uv_timer_start(&e->timer, e->backend->on_timer, ENDPOINT_ANSWER_MS, 0);
}

void libvirt_domain_lost(struct endpoint *e, const char *why)
{
	endpoint_rest(e, ENDPOINT_HUNG, why);
}

static void beat(struct endpoint *e)
{
	uint64_t waited = e->job ? (uv_hrtime() / 1000 - e->job->posted_us) / 1000 : 0;
	uint64_t next = e->interval_ms;

	if (waited >= ENDPOINT_ANSWER_MS) {
		endpoint_rest(e, ENDPOINT_HUNG, "libvirt does not answer for this machine");
		return;
	}
	if (e->view.phase == ENDPOINT_SERVING) {
		e->beats++;
		if (endpoint_overdue(e, clock_now().mono_ms))
			e->ops->unanswered(e->opaque, e);
		if (!e->job)
			(void)post(e, MANAGER_UNKNOWN); /* out of memory: the next beat */
	}
	if (e->job && next > ENDPOINT_ANSWER_MS - waited)
		next = ENDPOINT_ANSWER_MS - waited;
	uv_timer_start(&e->timer, e->backend->on_timer, next, 0);
}

static void on_timer(uv_timer_t *timer)
{
	struct endpoint *e = timer->data;

	if (e->view.phase < ENDPOINT_ASKING)
		libvirt_domain_ask(e);
	else
		beat(e);
}

/* --- events ----------------------------------------------------------------------------------- */

void libvirt_domain_event(struct endpoint *e, const struct libvirt_event *event)
{
	unsigned int changes = 0;

	if (e->view.phase != ENDPOINT_SERVING)
		return; /* the look that is under way finds out */
	if (event->kind == LIBVIRT_EVENT_RAN) {
		set_running(e, event->running, &changes);
	} else if (event->kind == LIBVIRT_EVENT_ACTUAL) {
		set_actual(e, event->actual, &changes);
	} else if (event->kind == LIBVIRT_EVENT_RESET) {
		endpoint_forget_driver(e);
		e->anew = true;
		changes |= 1U << ENDPOINT_CHANGE_DRIVER;
	}
	endpoint_tell_all(e, changes);
}

/* --- its owner -------------------------------------------------------------------------------- */

static int set_target(struct endpoint *e, uint64_t keep)
{
	e->target_asked = true;
	e->wanted = keep;
	if (e->job)
		return 0;
	e->wanted = MANAGER_UNKNOWN;
	if (post(e, keep))
		return 0;
	e->target_asked = false;
	return -ENOMEM;
}

static void observe(struct endpoint *e)
{
	e->anew = true;
}

static void drop(struct endpoint *e)
{
	struct libvirt_domain *domain;

	answer_target(e, false);
	if (!e->closing)
		return;
	if (e->job)
		e->job->e = NULL;
	domain = libvirt_find(e->libvirt, e->view.uuid);
	if (domain && domain->endpoint == e)
		domain->endpoint = NULL;
}

static const struct endpoint_backend backend = {on_timer, set_target, observe, drop};

struct endpoint *libvirt_endpoint_new(struct libvirt *lv, const char *path, uint32_t interval_ms,
				      bool observe_only, const struct endpoint_ops *ops,
				      void *opaque)
{
	const char *uuid = strrchr(path, '/');
	struct libvirt_domain *domain = uuid ? libvirt_find(lv, uuid + 1) : NULL;
	struct endpoint *e;

	if (!domain || domain->endpoint)
		return NULL;
	e = endpoint_create(lv->loop, path, interval_ms, observe_only, ops, opaque, &backend);
	if (!e)
		return NULL;
	e->libvirt = lv;
	e->wanted = MANAGER_UNKNOWN;
	e->view.kind = ENDPOINT_KIND_LIBVIRT;
	memcpy(e->view.uuid, domain->is.uuid, sizeof(e->view.uuid));
	memcpy(e->view.name, domain->is.name, sizeof(e->view.name));
	domain->endpoint = e;
	return e;
}
