// SPDX-License-Identifier: MIT
#include "libvirt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "libvirt_parts.h"

#define PATH_PREFIX "libvirt:/"

/* What a job of the end has to take with it. */
struct leaving {
	struct crew_job job;
	struct libvirt_session *session;
};

static void on_timer(uv_timer_t *timer);

struct libvirt_domain *libvirt_find(struct libvirt *lv, const char *uuid)
{
	for (size_t i = 0; i < lv->n_domains; i++) {
		if (strcmp(lv->domains[i].is.uuid, uuid) == 0)
			return &lv->domains[i];
	}
	return NULL;
}

/* --- the connection --------------------------------------------------------------------------- */

static void try_later(struct libvirt *lv, const char *why)
{
	if (!lv->complained)
		log_line("libvirt %s: cannot be reached: %s: trying again", lv->uri, why);
	lv->complained = true;
	uv_timer_start(&lv->timer, on_timer, lv->rest_ms, 0);
	lv->rest_ms =
		lv->rest_ms * 2 < ENDPOINT_REST_MAX_MS ? lv->rest_ms * 2 : ENDPOINT_REST_MAX_MS;
}

void libvirt_lost(struct libvirt *lv, const char *why)
{
	if (!lv->connected)
		return;
	lv->connected = false;
	for (size_t i = 0; i < lv->n_domains; i++) {
		if (lv->domains[i].endpoint)
			libvirt_domain_lost(lv->domains[i].endpoint, why);
	}
	try_later(lv, why);
}

/* --- which domains there are ------------------------------------------------------------------ */

struct path {
	char text[sizeof(PATH_PREFIX) + ENDPOINT_UUID_MAX];
};

static struct path path_of(const char *uuid)
{
	struct path path;

	snprintf(path.text, sizeof(path.text), PATH_PREFIX "%s", uuid);
	return path;
}

/* Whether that list has this domain, in the same life. */
static bool has(const struct libvirt_listing *l, const struct libvirt_found *is)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->found[i].id == is->id && strcmp(l->found[i].uuid, is->uuid) == 0)
			return true;
	}
	return false;
}

/* What went is told before what came. */
static void take_list(struct libvirt *lv, const struct libvirt_listing *l)
{
	for (size_t i = lv->n_domains; i-- > 0;) {
		struct libvirt_domain gone = lv->domains[i];

		if (has(l, &gone.is))
			continue;
		lv->ops->lost(lv->opaque, path_of(gone.is.uuid).text);
		lv->domains[i] = lv->domains[--lv->n_domains];
	}
	for (size_t i = 0; i < l->n; i++) {
		const struct libvirt_domain *known = libvirt_find(lv, l->found[i].uuid);

		if ((known && known->endpoint) || (!known && lv->n_domains == LIBVIRT_DOMAINS_MAX))
			continue;
		if (!known)
			lv->domains[lv->n_domains++] = (struct libvirt_domain){.is = l->found[i]};
		(void)lv->ops->found(lv->opaque, path_of(l->found[i].uuid).text);
	}
}

static void on_listed(struct crew_job *job)
{
	struct libvirt_listing *l = (struct libvirt_listing *)job;
	struct libvirt *lv = l->libvirt;
	bool again = lv->list_again;

	lv->listing = lv->list_again = false;
	if (l->result == LIBVIRT_LOST || (l->connect && l->result != LIBVIRT_FINE)) {
		if (lv->connected)
			libvirt_lost(lv, l->why);
		else
			try_later(lv, l->why);
		return;
	}
	if (l->result == LIBVIRT_FINE) {
		if (lv->complained)
			log_line("libvirt %s: answers", lv->uri);
		lv->complained = false;
		take_list(lv, l);
	}
	if (l->connect) {
		lv->connected = true;
		lv->rest_ms = ENDPOINT_REST_MS;
		for (size_t i = 0; i < lv->n_domains; i++) {
			if (lv->domains[i].endpoint)
				libvirt_domain_ask(lv->domains[i].endpoint);
		}
	}
	uv_timer_start(&lv->timer, on_timer, again ? 0 : LIBVIRT_LIST_MS, 0);
}

static void drop_listing(struct crew_job *job)
{
	struct libvirt_listing *l = (struct libvirt_listing *)job;

	free(l->found);
	free(l);
}

/* Unless that is under way. */
static void ask_list(struct libvirt *lv)
{
	struct libvirt_listing *l;

	if (lv->listing) {
		lv->list_again = true;
		return;
	}
	l = calloc(1, sizeof(*l));
	if (!l) {
		uv_timer_start(&lv->timer, on_timer, LIBVIRT_LIST_MS, 0);
		return;
	}
	l->job = (struct crew_job){libvirt_call_list, on_listed, drop_listing, NULL};
	l->libvirt = lv;
	l->session = lv->session;
	l->connect = !lv->connected;
	if (l->connect)
		lv->connection++;
	l->connection = lv->connection;
	lv->listing = true;
	/* If it has not come by then, that is worth a word; it comes nevertheless, or fails. */
	uv_timer_start(&lv->timer, on_timer, ENDPOINT_ANSWER_MS, 0);
	crew_post(lv->crew, &l->job);
}

void libvirt_list(struct libvirt *lv)
{
	if (lv->connected || lv->listing)
		ask_list(lv);
}

static void on_timer(uv_timer_t *timer)
{
	struct libvirt *lv = timer->data;

	if (!lv->listing) {
		ask_list(lv);
		return;
	}
	if (!lv->complained)
		log_line("libvirt %s: does not answer", lv->uri);
	lv->complained = true;
}

/* --- events ----------------------------------------------------------------------------------- */

void libvirt_on_event(struct crew_job *job)
{
	const struct libvirt_event *event = (const struct libvirt_event *)job;
	struct libvirt *lv = event->libvirt;
	struct libvirt_domain *domain = libvirt_find(lv, event->uuid);

	if (event->connection != lv->connection)
		return;
	if (event->kind == LIBVIRT_EVENT_CLOSED)
		libvirt_lost(lv, "the daemon hung up, or does not answer");
	else if (event->kind == LIBVIRT_EVENT_LIST)
		libvirt_list(lv);
	else if (domain && domain->endpoint)
		libvirt_domain_event(domain->endpoint, event);
}

/* --- beginning and end ------------------------------------------------------------------------ */

struct libvirt *libvirt_start(uv_loop_t *loop, const char *uri, const struct libvirt_ops *ops,
			      void *opaque)
{
	struct libvirt *lv = calloc(1, sizeof(*lv));

	if (!lv)
		return NULL;
	lv->uri = strdup(uri);
	lv->domains = calloc(LIBVIRT_DOMAINS_MAX, sizeof(*lv->domains));
	if (lv->uri && lv->domains && libvirt_calls_init())
		lv->crew = crew_start(loop, LIBVIRT_CALLS);
	if (lv->crew)
		lv->session = libvirt_session_new(uri, lv->crew);
	if (!lv->session) {
		if (lv->crew)
			crew_stop(lv->crew, NULL);
		free(lv->domains);
		free(lv->uri);
		free(lv);
		return NULL;
	}
	lv->loop = loop;
	lv->ops = ops;
	lv->opaque = opaque;
	lv->rest_ms = ENDPOINT_REST_MS;
	uv_timer_init(loop, &lv->timer); /* cannot fail */
	lv->timer.data = lv;
	uv_timer_start(&lv->timer, on_timer, 0, 0);
	return lv;
}

const char *libvirt_uri(const struct libvirt *lv)
{
	return lv->uri;
}

static void leave(struct crew_job *job)
{
	libvirt_session_close(((struct leaving *)job)->session);
}

static void drop_leaving(struct crew_job *job)
{
	libvirt_session_free(((struct leaving *)job)->session);
	free(job);
}

static void on_closed(uv_handle_t *handle)
{
	struct libvirt *lv = handle->data;

	free(lv->domains);
	free(lv->uri);
	free(lv);
}

void libvirt_stop(struct libvirt *lv)
{
	struct leaving *leaving;

	if (!lv)
		return;
	leaving = calloc(1, sizeof(*leaving));
	if (leaving) {
		leaving->job = (struct crew_job){leave, NULL, drop_leaving, NULL};
		leaving->session = lv->session;
	}
	/* Without it the connection stays open until this process ends. */
	crew_stop(lv->crew, leaving ? &leaving->job : NULL);
	uv_close((uv_handle_t *)&lv->timer, on_closed);
}

void libvirt_settle(void)
{
	(void)crew_wait(LIBVIRT_SETTLE_MS);
}
