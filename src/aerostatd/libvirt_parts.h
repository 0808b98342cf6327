/* SPDX-License-Identifier: MIT */
/*
 * What the parts share that know libvirt: libvirt.c has the connection and the list of domains,
 * libvirt_domain.c an endpoint for each, both in the loop; libvirt_calls.c makes the calls, in
 * threads.
 */
#ifndef AEROSTATD_LIBVIRT_PARTS_H
#define AEROSTATD_LIBVIRT_PARTS_H

#include <stddef.h>

#include "crew.h"
#include "endpoint_parts.h"
#include "libvirt.h"

/* --- in threads: libvirt_calls.c -------------------------------------------------------------- */

/* Connections, or none; of the threads. */
struct libvirt_session;

enum libvirt_result {
	LIBVIRT_FINE,
	LIBVIRT_NO_DOMAIN, /* or one that does not run */
	LIBVIRT_LOST,      /* there is no connection, or none any more */
	LIBVIRT_FAILED,    /* else */
};

struct libvirt_found {
	char uuid[ENDPOINT_UUID_MAX];
	char name[ENDPOINT_NAME_MAX];
	int id; /* another after each start */
};

enum libvirt_event_kind {
	LIBVIRT_EVENT_CLOSED, /* the connection */
	LIBVIRT_EVENT_LIST,   /* a domain came or went */
	LIBVIRT_EVENT_RAN,    /* a domain runs on, or was stopped */
	LIBVIRT_EVENT_RESET,
	LIBVIRT_EVENT_ACTUAL,
};

/* Something that libvirt told by itself. */
struct libvirt_event {
	struct crew_job job;
	struct libvirt *libvirt;
	unsigned int connection; /* which of them */
	enum libvirt_event_kind kind;
	char uuid[ENDPOINT_UUID_MAX];
	bool running;
	uint64_t actual;
};

/* Which domains run; connects first if there is no connection. */
struct libvirt_listing {
	struct crew_job job;
	struct libvirt *libvirt;
	struct libvirt_session *session;
	bool connect;
	unsigned int connection; /* that is to be made */
	enum libvirt_result result;
	char why[ENDPOINT_WHY_MAX];
	struct libvirt_found *found; /* allocated */
	size_t n;
};

/* One domain: either it is told what to keep, or it is looked at. */
struct libvirt_job {
	struct crew_job job;
	struct endpoint *e; /* NULL: it is gone meanwhile */
	struct libvirt_session *session;
	char uuid[ENDPOINT_UUID_MAX];
	uint64_t posted_us;
	uint64_t keep;        /* bytes, or MANAGER_UNKNOWN: a look */
	bool all;             /* look at all there is, not only at statistics */
	unsigned int seconds; /* and have statistics so often; 0: as it is */

	enum libvirt_result result;
	char why[ENDPOINT_WHY_MAX];
	bool running;
	uint64_t size;   /* bytes; 0: not looked at */
	uint64_t actual; /* bytes; 0: it has no balloon */
	uint64_t update; /* QEMU's second of the statistics */
	struct guest_stats stats;
};

/* Once in a process, before all else. False: it cannot. */
bool libvirt_calls_init(void);

/* NULL: out of memory. crew: which is told of events. */
struct libvirt_session *libvirt_session_new(const char *uri, struct crew *crew);
void libvirt_session_free(struct libvirt_session *session);

/* work() of jobs. */
void libvirt_call_list(struct crew_job *job);
void libvirt_call_domain(struct crew_job *job);

/* Gives its connections up. It may block, as all do. */
void libvirt_session_close(struct libvirt_session *session);

/* done() of events, in the loop: libvirt.c. */
void libvirt_on_event(struct crew_job *job);

/* --- in the loop ------------------------------------------------------------------------------ */

struct libvirt_domain {
	struct libvirt_found is;
	struct endpoint *endpoint; /* NULL: nobody wants one */
};

struct libvirt {
	uv_loop_t *loop;
	uv_timer_t timer; /* to the next attempt, or the next list */
	char *uri;
	const struct libvirt_ops *ops;
	void *opaque;
	struct crew *crew;
	struct libvirt_session *session;
	struct libvirt_domain *domains;
	size_t n_domains;
	bool connected;
	bool listing, list_again; /* is under way; and has to be done once more */
	bool complained;
	unsigned int connection; /* their number so far */
	uint64_t rest_ms;
};

/* Its endpoint, made or freed. */
struct libvirt_domain *libvirt_find(struct libvirt *lv, const char *uuid);

/* The connection is lost, as a call has found. */
void libvirt_lost(struct libvirt *lv, const char *why);

/* A domain is not what it was: which are there? */
void libvirt_list(struct libvirt *lv);

/* There is a connection (anew): everything is looked at. */
void libvirt_domain_ask(struct endpoint *e);

/* There is none. */
void libvirt_domain_lost(struct endpoint *e, const char *why);

void libvirt_domain_event(struct endpoint *e, const struct libvirt_event *event);

#endif
