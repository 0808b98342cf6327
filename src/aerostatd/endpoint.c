// SPDX-License-Identifier: MIT
/*
 * Questions are asked one at a time, in rounds: all of them when a monitor was reached, and those
 * whose answers change with each beat of the timer. A beat that comes while a round is under way
 * asks nothing. What does not answer in time is hung: the connection is given up, and tried again.
 */
#include "endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aerostat/virtio_balloon.h"
#include "common/clock.h"
#include "common/json_read.h"
#include "common/unix_socket.h"
#include "endpoint_parts.h"
#include "qmp/json.h"

/* A device of ours tells of changes; all about it is asked every so many beats, for the rest. */
#define DEVICE_BEATS 5

/*
 * QEMU's query-qmp-schema is not asked, but its other answers are long, too: the longest is the
 * list of its devices. A message that does not end stays in memory, and there can be some thousand
 * monitors that send one.
 */
static const struct qmp_limits limits = {.bytes = 256 * 1024, .tokens = 16 * 1024};

/* A monitor that was served for so many beats may be tried again at once when it is lost. */
#define TRUSTED_BEATS 5

static void on_timer(uv_timer_t *timer);
static void ask_next(struct endpoint *e);

/* --- losing it -------------------------------------------------------------------------------- */

static enum endpoint_absence absence_by(int error)
{
	switch (error) {
	case -ETIMEDOUT:
	case -EAGAIN: /* nobody takes connections out of its queue */
	case -EMFILE: /* it is we who cannot; nothing says that it is gone */
	case -ENFILE:
	case -ENOMEM:
		return ENDPOINT_HUNG;
	case -EPROTO:
	case -ENOBUFS:
		return ENDPOINT_MISBEHAVED;
	default:
		return ENDPOINT_GONE;
	}
}

/* --- the monitor's events --------------------------------------------------------------------- */

static void on_pressure(struct endpoint *e, struct json_object *data)
{
	static const char *const levels[] = {
		[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED] = "unspecified",
		[VIRTIO_BALLOON_PRESSURE_LOW] = "low",
		[VIRTIO_BALLOON_PRESSURE_MEDIUM] = "medium",
		[VIRTIO_BALLOON_PRESSURE_CRITICAL] = "critical",
	};
	const char *type = json_read_str(data, "type"), *level = json_read_str(data, "level");
	uint32_t i = 0;

	if (!type || e->closing)
		return;
	if (strcmp(type, "relieved") == 0) {
		e->ops->pressure(e->opaque, e, true, 0);
		return;
	}
	while (level && i < VIRTIO_BALLOON_PRESSURE_NR && strcmp(levels[i], level) != 0)
		i++;
	e->ops->pressure(e->opaque, e, false, i);
}

static void on_vm_runs(struct endpoint *e, bool running)
{
	if (e->view.running == running)
		return;
	endpoint_take_running(e, running, clock_now());
	endpoint_tell_all(e, 1U << ENDPOINT_CHANGE_HEALTH);
}

/* Asks those questions as soon as those that are under way are answered. */
static void ask(struct endpoint *e, unsigned int questions)
{
	e->next |= questions;
	ask_next(e);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	struct endpoint *e = opaque;
	unsigned int changes = 0;

	if (e->view.phase != ENDPOINT_SERVING)
		return; /* the round that is under way finds out */
	if (strcmp(event->name, "BALLOON") == 0) {
		if (endpoint_take_actual(e, event->data))
			changes |= 1U << ENDPOINT_CHANGE_ACTUAL;
		if (endpoint_take_stats(e, event->data, clock_now()))
			changes |= 1U << ENDPOINT_CHANGE_STATS;
		/* Figures of a driver that we do not know of yet. */
		if (e->view.driver != MANAGER_DRIVER_FULL)
			ask(e, ASK(DEVICE));
	} else if (strcmp(event->name, "GUEST_PRESSURE") == 0) {
		on_pressure(e, event->data);
	} else if (strcmp(event->name, "BALLOON_CHANGE") == 0) {
		if (endpoint_take_actual(e, event->data))
			changes |= 1U << ENDPOINT_CHANGE_ACTUAL;
	} else if (strcmp(event->name, "GUEST_HEALTH_CHANGE") == 0) {
		if (endpoint_take_health(e, event->data))
			changes |= 1U << ENDPOINT_CHANGE_HEALTH;
		ask(e, ASK(DEVICE)); /* a driver that came or went shows here first */
	} else if (strcmp(event->name, "STOP") == 0) {
		on_vm_runs(e, false);
	} else if (strcmp(event->name, "RESUME") == 0) {
		on_vm_runs(e, true);
	} else if (strcmp(event->name, "RESET") == 0) {
		endpoint_forget_driver(e);
		changes |= 1U << ENDPOINT_CHANGE_DRIVER;
	} else if (strcmp(event->name, "VMM_CONNECTED") == 0 ||
		   strcmp(event->name, "VMM_DISCONNECTED") == 0 ||
		   strcmp(event->name, "DEVICE_RESTARTED") == 0) {
		ask(e, ASK(PUSHING) | ASK(POLLING) | ASK(DEVICE) | ASK(HEALTH));
	}
	endpoint_tell_all(e, changes);
}

/* --- questions -------------------------------------------------------------------------------- */

/* The first round has shown what is there. */
static void begin_serving(struct endpoint *e)
{
	e->view.phase = ENDPOINT_SERVING;
	e->view.absence = ENDPOINT_PRESENT;
	e->view.why[0] = '\0';
	e->beats = 0;
	/* Those of many endpoints are spread over the interval by when they were reached. */
	uv_timer_start(&e->timer, on_timer, e->interval_ms, 0);
	endpoint_tell_all(e, 1U << ENDPOINT_CHANGE_UP | 1U << ENDPOINT_CHANGE_DEVICE |
				     1U << ENDPOINT_CHANGE_STATS);
	/* A device whose machine has gone while nobody could ask it. */
	if (!e->view.ready)
		endpoint_tell(e, ENDPOINT_CHANGE_DOWN);
}

static void on_answer(void *opaque, const struct qmp_answer *answer)
{
	struct endpoint *e = opaque;
	struct instant now = clock_now();
	unsigned int changes = 0;

	if (!e->round_busy)
		return; /* it was given up */
	e->round_busy = false;
	if (answer->kind == QMP_ANSWER_LOST)
		return; /* of which on_lost() is told */
	if (!e->closing)
		e->ops->took(e->opaque, uv_hrtime() / 1000 - e->asked_us);
	if (answer->kind == QMP_ANSWER_TIMEOUT) {
		endpoint_rest(e, ENDPOINT_HUNG, "the monitor does not answer");
		return;
	}
	switch (question_answer(e, e->asked,
				answer->kind == QMP_ANSWER_RETURN ? answer->value : NULL, now,
				&changes)) {
	case ANSWER_NO_BALLOON:
		endpoint_rest(e, ENDPOINT_NO_BALLOON, "the machine has no balloon");
		return;
	case ANSWER_NONSENSE:
		endpoint_rest(e, ENDPOINT_MISBEHAVED, "what the monitor says makes no sense");
		return;
	case ANSWER_FINE:
	default:
		break;
	}
	endpoint_tell_all(e, changes);
	ask_next(e);
}

/* Asks the next question of the round, or begins the next round. */
static void ask_next(struct endpoint *e)
{
	enum question q = 0;
	int r;

	if (!e->link || e->round_busy || e->view.phase < ENDPOINT_ASKING || e->closing)
		return;
	if (!e->round) {
		if (e->view.phase == ENDPOINT_ASKING)
			begin_serving(e);
		e->round = e->next;
		e->next = 0;
	}
	for (; q < QUESTION_COUNT; q++) {
		if (!(e->round >> q & 1))
			continue;
		e->round &= ~(1U << q);
		if (question_applies(e, q))
			break;
	}
	if (q == QUESTION_COUNT) {
		if (e->view.phase == ENDPOINT_ASKING)
			begin_serving(e);
		return;
	}
	e->asked = q;
	e->asked_us = uv_hrtime() / 1000;
	e->round_busy = true;
	r = qmp_link_execute(e->link, question_command(q), question_args(e, q), ENDPOINT_ANSWER_MS,
			     on_answer, e);
	if (r < 0) {
		e->round_busy = false;
		endpoint_rest(e, absence_by(r), strerror(-r));
	}
}

static void on_ready(void *opaque, struct json_object *greeting)
{
	struct endpoint *e = opaque;

	(void)greeting;
	e->view.phase = ENDPOINT_ASKING;
	/* It may be another machine than before: nothing is taken over but what it is called until
	 * it has told that, and its size, with which the old ones are compared. */
	e->view.ready = false;
	endpoint_take_running(e, true, clock_now());
	e->view.health = HEALTH_UNKNOWN;
	e->view.driver = MANAGER_DRIVER_NONE;
	e->view.target = MANAGER_UNKNOWN;
	e->view.stats.known = 0;
	e->last_update = 0;
	e->round = ASK_ALL;
	e->next = 0;
	ask_next(e);
}

static void on_lost(void *opaque, int error, const char *why)
{
	endpoint_rest(opaque, absence_by(error), why);
}

/* --- time ------------------------------------------------------------------------------------- */

static void connect_now(struct endpoint *e)
{
	static const struct qmp_client_ops ops = {on_ready, on_event, on_lost};

	e->view.phase = ENDPOINT_CONNECTING;
	/* It was none when it was found: who finds it out first must not have connected before. */
	if (unix_socket_is_foreign(AT_FDCWD, e->path)) {
		endpoint_rest(e, ENDPOINT_MISBEHAVED, "it is somebody else's link to a socket");
		return;
	}
	e->link = qmp_link_connect(e->loop, e->path, ENDPOINT_ANSWER_MS, &limits, &ops, e);
	if (!e->link)
		endpoint_rest(e, ENDPOINT_PRESENT, "out of memory");
}

static void beat(struct endpoint *e)
{
	unsigned int questions = ASK(BALLOON) | ASK(STATS);

	if (++e->beats == TRUSTED_BEATS)
		e->rest_ms = ENDPOINT_REST_MS;
	if (e->view.kind == ENDPOINT_KIND_AEROSTAT) {
		questions = 0;
		if (e->beats % DEVICE_BEATS == 0 || e->view.driver == MANAGER_DRIVER_NONE)
			questions = ASK(DEVICE) | ASK(HEALTH);
	} else if (e->beats % DEVICE_BEATS == 0) {
		questions |= ASK(SIZE) | ASK(STATUS); /* memory can be plugged in */
	}
	uv_timer_start(&e->timer, on_timer, e->interval_ms, 0);
	if (endpoint_overdue(e, clock_now().mono_ms))
		e->ops->unanswered(e->opaque, e);
	if (questions && !e->round_busy)
		ask(e, questions);
}

static void on_timer(uv_timer_t *timer)
{
	struct endpoint *e = timer->data;

	if (e->view.phase == ENDPOINT_RESTING)
		connect_now(e);
	else if (e->view.phase == ENDPOINT_SERVING)
		beat(e);
}

/* --- targets ---------------------------------------------------------------------------------- */

/* One command's answer; allocated, as a later command may go while it is awaited. */
struct target_command {
	struct endpoint *e;
	uint32_t serial;
	uint64_t sent_us;
};

static void on_target_answer(void *opaque, const struct qmp_answer *answer)
{
	struct target_command *command = opaque;
	struct endpoint *e = command->e;
	bool last = command->serial == e->target_serial;
	uint64_t us = uv_hrtime() / 1000 - command->sent_us;

	free(command);
	if (e->closing)
		return;
	if (answer->kind == QMP_ANSWER_RETURN || answer->kind == QMP_ANSWER_ERROR)
		e->ops->took(e->opaque, us);
	if (last)
		e->ops->target_answered(e->opaque, e, answer->kind == QMP_ANSWER_RETURN);
	if (answer->kind == QMP_ANSWER_TIMEOUT)
		endpoint_rest(e, ENDPOINT_HUNG, "the monitor does not answer");
}

static int set_target(struct endpoint *e, uint64_t keep)
{
	struct target_command *command;
	struct json_object *args;
	int r;

	command = malloc(sizeof(*command));
	if (!command)
		return -ENOMEM;
	*command = (struct target_command){e, e->target_serial + 1, uv_hrtime() / 1000};
	args = json_object_new_object();
	qmp_obj_add(&args, "value", json_object_new_uint64(keep));
	r = qmp_link_execute(e->link, "balloon", args, ENDPOINT_ANSWER_MS, on_target_answer,
			     command);
	if (r < 0) {
		free(command);
		return r;
	}
	e->target_serial++;
	return 0;
}

/* --- its owner -------------------------------------------------------------------------------- */

static void observe(struct endpoint *e)
{
	if (e->view.phase >= ENDPOINT_ASKING)
		ask(e, ASK(POLLING) | ASK(PUSHING));
}

static void drop(struct endpoint *e)
{
	qmp_link_close(e->link);
	e->link = NULL;
	e->round_busy = false;
	e->round = e->next = 0;
}

static const struct endpoint_backend backend = {on_timer, set_target, observe, drop};

struct endpoint *endpoint_new(uv_loop_t *loop, const char *path, uint32_t interval_ms,
			      bool observe_only, const struct endpoint_ops *ops, void *opaque)
{
	return endpoint_create(loop, path, interval_ms, observe_only, ops, opaque, &backend);
}
