// SPDX-License-Identifier: MIT
/*
 * All that is called of libvirt, and all of it in threads: the crew's, and one that runs libvirt's
 * own loop, in which events come. Nothing here touches what belongs to the loop of this process; it
 * is told by jobs.
 *
 * A connection is of one thread at a time: libvirt's client before 10.4 writes to a stack that is
 * gone when a second one sends something while the first waits (CVE-2024-4418). To keep a
 * connection alive is to send something, so that is left out there, too; a daemon on this host that
 * hangs is noticed by the clock, and one that ends by the end of its socket.
 */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libvirt_parts.h"

#define KEEPALIVE_S     2
#define KEEPALIVE_COUNT 3

#define KEEPALIVE_SINCE 10004000UL /* version of the library */

#define KIB 1024ULL

#define EVENTS 3 /* kinds of them that are listened to */

struct libvirt_session {
	/* Of whoever has the listing done, which is one at a time. */
	virConnectPtr connection; /* NULL: none */
	int callbacks[EVENTS];    /* of that connection; negative: not registered */

	pthread_mutex_t lock; /* for what follows */
	virConnectPtr idle[LIBVIRT_CALLS];
	size_t n_idle;

	char *uri;
	struct crew *crew;
};

/* Who is to hear of events, as long as libvirt keeps it. */
struct listener {
	struct crew *crew;
	struct libvirt *libvirt;
	unsigned int connection;
};

/* --- libvirt's own loop ----------------------------------------------------------------------- */

static void *run_events(void *opaque)
{
	(void)opaque;
	for (;;)
		virEventRunDefaultImpl();
	return NULL;
}

static void no_error(void *opaque, virErrorPtr error)
{
	(void)opaque;
	(void)error; /* which is told where it is of interest, and not on stderr */
}

bool libvirt_calls_init(void)
{
	static bool done;

	if (done)
		return true;
	virSetErrorFunc(NULL, no_error);
	if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
		return false;
	done = crew_thread(run_events, NULL) == 0;
	return done;
}

/* --- events ----------------------------------------------------------------------------------- */

static void drop_event(struct crew_job *job)
{
	free(job);
}

/* NULL: out of memory; then the next look finds out. */
static struct libvirt_event *new_event(const struct listener *to, enum libvirt_event_kind kind,
				       virDomainPtr domain)
{
	struct libvirt_event *event = calloc(1, sizeof(*event));

	if (!event)
		return NULL;
	event->job.done = libvirt_on_event;
	event->job.drop = drop_event;
	event->libvirt = to->libvirt;
	event->connection = to->connection;
	event->kind = kind;
	if (domain && virDomainGetUUIDString(domain, event->uuid) < 0)
		event->uuid[0] = '\0';
	return event;
}

static void send_event(const struct listener *to, struct libvirt_event *event)
{
	if (event)
		crew_tell(to->crew, &event->job);
}

static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int what, int detail,
			void *opaque)
{
	bool runs = what == VIR_DOMAIN_EVENT_RESUMED,
	     ran = what == VIR_DOMAIN_EVENT_SUSPENDED || what == VIR_DOMAIN_EVENT_PMSUSPENDED;
	struct libvirt_event *event =
		new_event(opaque, runs || ran ? LIBVIRT_EVENT_RAN : LIBVIRT_EVENT_LIST, domain);

	(void)connection;
	(void)detail;
	if (event)
		event->running = runs;
	send_event(opaque, event);
	return 0;
}

static void on_reboot(virConnectPtr connection, virDomainPtr domain, void *opaque)
{
	(void)connection;
	send_event(opaque, new_event(opaque, LIBVIRT_EVENT_RESET, domain));
}

static void on_balloon(virConnectPtr connection, virDomainPtr domain, unsigned long long kib,
		       void *opaque)
{
	struct libvirt_event *event = new_event(opaque, LIBVIRT_EVENT_ACTUAL, domain);

	(void)connection;
	if (event)
		event->actual = kib < ENDPOINT_SIZE_MAX / KIB ? kib * KIB : 0;
	send_event(opaque, event);
}

static void on_close(virConnectPtr connection, int reason, void *opaque)
{
	(void)connection;
	(void)reason;
	send_event(opaque, new_event(opaque, LIBVIRT_EVENT_CLOSED, NULL));
}

static void free_listener(void *opaque)
{
	struct listener *listener = opaque;

	crew_release(listener->crew);
	free(listener);
}

static struct listener *new_listener(const struct libvirt_listing *l)
{
	struct listener *listener = malloc(sizeof(*listener));

	if (!listener)
		return NULL;
	*listener = (struct listener){l->session->crew, l->libvirt, l->connection};
	crew_hold(listener->crew);
	return listener;
}

/* What cannot be had is found by looking, later. As long as these are there, libvirt keeps the
 * connection. */
static void listen_to(virConnectPtr connection, const struct libvirt_listing *l)
{
	static const struct {
		int id;
		virConnectDomainEventGenericCallback call;
	} events[EVENTS] = {
		{VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
		{VIR_DOMAIN_EVENT_ID_REBOOT, VIR_DOMAIN_EVENT_CALLBACK(on_reboot)},
		{VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_balloon)},
	};
	struct listener *listener = new_listener(l);

	if (listener &&
	    virConnectRegisterCloseCallback(connection, on_close, listener, free_listener) < 0)
		free_listener(listener);
	for (size_t i = 0; i < EVENTS; i++) {
		int id = -1;

		listener = new_listener(l);
		if (listener)
			id = virConnectDomainEventRegisterAny(connection, NULL, events[i].id,
							      events[i].call, listener,
							      free_listener);
		if (listener && id < 0)
			free_listener(listener);
		l->session->callbacks[i] = id;
	}
}

/* --- the connection --------------------------------------------------------------------------- */

struct libvirt_session *libvirt_session_new(const char *uri, struct crew *crew)
{
	struct libvirt_session *session = calloc(1, sizeof(*session));

	if (session)
		session->uri = strdup(uri);
	if (!session || !session->uri) {
		free(session);
		return NULL;
	}
	session->crew = crew;
	pthread_mutex_init(&session->lock, NULL);
	return session;
}

void libvirt_session_free(struct libvirt_session *session)
{
	pthread_mutex_destroy(&session->lock);
	free(session->uri);
	free(session);
}

static virConnectPtr open_one(const struct libvirt_session *session)
{
	virConnectPtr connection = virConnectOpen(session->uri);
	unsigned long version = 0;

	/* Drivers without a daemon know no such thing, and need none. */
	if (connection && virGetVersion(&version, NULL, NULL) == 0 && version >= KEEPALIVE_SINCE)
		virConnectSetKeepAlive(connection, KEEPALIVE_S, KEEPALIVE_COUNT);
	return connection;
}

static virConnectPtr take_idle(struct libvirt_session *session)
{
	virConnectPtr connection = NULL;

	pthread_mutex_lock(&session->lock);
	if (session->n_idle)
		connection = session->idle[--session->n_idle];
	pthread_mutex_unlock(&session->lock);
	return connection;
}

/* One for a call. NULL: as virConnectOpen(). */
static virConnectPtr borrow(struct libvirt_session *session)
{
	virConnectPtr connection;

	while ((connection = take_idle(session))) {
		if (virConnectIsAlive(connection) == 1)
			return connection;
		virConnectClose(connection);
	}
	return open_one(session);
}

static void give_back(struct libvirt_session *session, virConnectPtr connection)
{
	bool kept = false;

	if (virConnectIsAlive(connection) == 1) {
		pthread_mutex_lock(&session->lock);
		kept = session->n_idle < LIBVIRT_CALLS;
		if (kept)
			session->idle[session->n_idle++] = connection;
		pthread_mutex_unlock(&session->lock);
	}
	if (!kept)
		virConnectClose(connection);
}

static void close_main(struct libvirt_session *session)
{
	virConnectPtr connection = session->connection;

	session->connection = NULL;
	if (!connection)
		return;
	virConnectUnregisterCloseCallback(connection, on_close);
	for (size_t i = 0; i < EVENTS; i++) {
		if (session->callbacks[i] >= 0)
			virConnectDomainEventDeregisterAny(connection, session->callbacks[i]);
	}
	virConnectClose(connection);
}

void libvirt_session_close(struct libvirt_session *session)
{
	virConnectPtr connection;

	close_main(session);
	while ((connection = take_idle(session)))
		virConnectClose(connection);
}

/* What the last call of this thread has failed with. */
static enum libvirt_result failure(virConnectPtr connection, char *why, size_t room)
{
	const virError *error = virGetLastError();

	snprintf(why, room, "%s", error && error->message ? error->message : "it does not say why");
	if (!connection || virConnectIsAlive(connection) != 1)
		return LIBVIRT_LOST;
	if (error && (error->code == VIR_ERR_NO_DOMAIN || error->code == VIR_ERR_OPERATION_INVALID))
		return LIBVIRT_NO_DOMAIN;
	return LIBVIRT_FAILED;
}

/* --- which there are -------------------------------------------------------------------------- */

static enum libvirt_result list(virConnectPtr connection, struct libvirt_listing *l)
{
	virDomainPtr *domains = NULL;
	int n = virConnectListAllDomains(connection, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
	enum libvirt_result result = LIBVIRT_FINE;

	if (n < 0)
		return failure(connection, l->why, sizeof(l->why));
	l->found = calloc(n ? (size_t)n : 1, sizeof(*l->found));
	if (!l->found) {
		snprintf(l->why, sizeof(l->why), "out of memory");
		result = LIBVIRT_FAILED;
	}
	for (int i = 0; i < n; i++) {
		struct libvirt_found *found = l->found ? &l->found[l->n] : NULL;

		if (found && l->n < LIBVIRT_DOMAINS_MAX &&
		    virDomainGetUUIDString(domains[i], found->uuid) == 0) {
			endpoint_take_text(found->name, sizeof(found->name),
					   virDomainGetName(domains[i]));
			found->id = (int)virDomainGetID(domains[i]);
			l->n++;
		}
		virDomainFree(domains[i]);
	}
	free(domains);
	return result;
}

void libvirt_call_list(struct crew_job *job)
{
	struct libvirt_listing *l = (struct libvirt_listing *)job;
	struct libvirt_session *session = l->session;

	virResetLastError();
	if (l->connect) {
		libvirt_session_close(session); /* what is dead, or nearly */
		virResetLastError();
		session->connection = open_one(session);
		if (session->connection)
			listen_to(session->connection, l);
	}
	l->result = session->connection ? list(session->connection, l)
					: failure(NULL, l->why, sizeof(l->why));
}

/* --- one domain ------------------------------------------------------------------------------- */

/* libvirt's names for statistics, and what it divides them by. */
static const struct {
	int tag;
	unsigned int ours;
	uint64_t unit;
} names[] = {
	{VIR_DOMAIN_MEMORY_STAT_SWAP_IN, VIRTIO_BALLOON_S_SWAP_IN, KIB},
	{VIR_DOMAIN_MEMORY_STAT_SWAP_OUT, VIRTIO_BALLOON_S_SWAP_OUT, KIB},
	{VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT, VIRTIO_BALLOON_S_MAJFLT, 1},
	{VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT, VIRTIO_BALLOON_S_MINFLT, 1},
	{VIR_DOMAIN_MEMORY_STAT_UNUSED, VIRTIO_BALLOON_S_MEMFREE, KIB},
	{VIR_DOMAIN_MEMORY_STAT_AVAILABLE, VIRTIO_BALLOON_S_MEMTOT, KIB},
	{VIR_DOMAIN_MEMORY_STAT_USABLE, VIRTIO_BALLOON_S_AVAIL, KIB},
	{VIR_DOMAIN_MEMORY_STAT_DISK_CACHES, VIRTIO_BALLOON_S_CACHES, KIB},
	{VIR_DOMAIN_MEMORY_STAT_HUGETLB_PGALLOC, VIRTIO_BALLOON_S_HTLB_PGALLOC, 1},
	{VIR_DOMAIN_MEMORY_STAT_HUGETLB_PGFAIL, VIRTIO_BALLOON_S_HTLB_PGFAIL, 1},
};

static void take(struct libvirt_job *j, int tag, uint64_t value)
{
	if (tag == VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE)
		j->update = value;
	if (tag == VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON && value <= ENDPOINT_SIZE_MAX / KIB)
		j->actual = value * KIB;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i].tag == tag && value <= UINT64_MAX / names[i].unit)
			stats_put(&j->stats, names[i].ours, value * names[i].unit);
	}
}

static enum libvirt_result look(virConnectPtr connection, virDomainPtr domain,
				struct libvirt_job *j)
{
	virDomainMemoryStatStruct stats[VIR_DOMAIN_MEMORY_STAT_NR];
	virDomainInfo info;
	int n;

	if (j->all) {
		if (virDomainGetInfo(domain, &info) < 0)
			return failure(connection, j->why, sizeof(j->why));
		j->running = info.state == VIR_DOMAIN_RUNNING || info.state == VIR_DOMAIN_BLOCKED;
		if (info.maxMem <= ENDPOINT_SIZE_MAX / KIB)
			j->size = info.maxMem * KIB;
	}
	n = virDomainMemoryStats(domain, stats, VIR_DOMAIN_MEMORY_STAT_NR, 0);
	if (n < 0)
		return failure(connection, j->why, sizeof(j->why));
	for (int i = 0; i < n; i++)
		take(j, stats[i].tag, stats[i].val);
	/* That it cannot is seen by what comes, or does not. */
	if (j->actual && j->seconds)
		virDomainSetMemoryStatsPeriod(domain, (int)j->seconds, VIR_DOMAIN_AFFECT_LIVE);
	return LIBVIRT_FINE;
}

void libvirt_call_domain(struct crew_job *job)
{
	struct libvirt_job *j = (struct libvirt_job *)job;
	virConnectPtr connection;
	virDomainPtr domain = NULL;

	virResetLastError();
	connection = borrow(j->session);
	if (connection)
		domain = virDomainLookupByUUIDString(connection, j->uuid);
	if (domain && j->keep == MANAGER_UNKNOWN)
		j->result = look(connection, domain, j);
	else if (!domain ||
		 virDomainSetMemoryFlags(domain, (unsigned long)((j->keep + KIB - 1) / KIB),
					 VIR_DOMAIN_MEM_LIVE) < 0)
		j->result = failure(connection, j->why, sizeof(j->why));
	if (domain)
		virDomainFree(domain);
	if (connection)
		give_back(j->session, connection);
}
