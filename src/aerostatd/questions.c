// SPDX-License-Identifier: MIT
/* What is asked of a monitor, and what its answers mean. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "aerostat/virtio_balloon.h"
#include "common/json_read.h"
#include "common/stat_name.h"
#include "endpoint_parts.h"
#include "qmp/json.h"

#define OUR_BALLOON "/machine/peripheral/balloon0"

/* Commands that make a difference. */
enum offer {
	OFFER_BALLOON,
	OFFER_DEVICE,
	OFFER_QOM_LIST,
	OFFER_QOM_GET,
	OFFER_QOM_SET,
	OFFER_NAME,
	OFFER_UUID,
	OFFER_STATUS,
	OFFER_SIZE,
	OFFER_PUSH,
	OFFER_HEALTH,
	OFFER_COUNT,
	OFFER_NONE = OFFER_COUNT,
};

static const char *const offer_commands[] = {
	[OFFER_BALLOON] = "query-balloon",
	[OFFER_DEVICE] = "query-balloon-device",
	[OFFER_QOM_LIST] = "qom-list",
	[OFFER_QOM_GET] = "qom-get",
	[OFFER_QOM_SET] = "qom-set",
	[OFFER_NAME] = "query-name",
	[OFFER_UUID] = "query-uuid",
	[OFFER_STATUS] = "query-status",
	[OFFER_SIZE] = "query-memory-size-summary",
	[OFFER_PUSH] = "set-stats-push-interval",
	[OFFER_HEALTH] = "query-guest-health",
};
static_assert(sizeof(offer_commands) / sizeof(offer_commands[0]) == OFFER_COUNT,
	      "a command for every offer");

/* --- taking figures --------------------------------------------------------------------------- */

bool endpoint_take_actual(struct endpoint *e, struct json_object *data)
{
	uint64_t actual;

	return json_read_u64(data, "actual", &actual) && endpoint_set_actual(e, actual);
}

bool endpoint_take_stats(struct endpoint *e, struct json_object *data, struct instant now)
{
	struct guest_stats fresh = {0};
	struct json_object *stats = json_read(data, "stats");
	uint64_t update = 0, age = 0, value;

	if (!json_read_u64(data, "last-update", &update) || !update ||
	    update == e->forgotten_update)
		return false;
	if (!json_read_u64(data, "age-ms", &age)) {
		if (update == e->last_update || update > INT64_MAX / 2000)
			return false;
		age = endpoint_wall_age_ms(update, now);
	} else if (e->view.stats.at_ms && now.mono_ms > age &&
		   now.mono_ms - age <= e->view.stats.at_ms) {
		return false; /* they have been here before */
	}
	for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++) {
		if (json_read_u64(stats, stat_name(tag), &value))
			stats_put(&fresh, tag, value);
	}
	return endpoint_set_stats(e, &fresh, update, age, now);
}

bool endpoint_take_health(struct endpoint *e, struct json_object *data)
{
	const char *status = json_read_str(data, "status");
	enum health_state state = HEALTH_UNKNOWN;

	if (!status)
		return false;
	while (state < HEALTH_STATE_COUNT && strcmp(health_state_name(state), status) != 0)
		state++;
	if (state == HEALTH_STATE_COUNT || state == e->view.health)
		return false;
	e->view.health = state;
	return true;
}

/* --- answers ---------------------------------------------------------------------------------- */

typedef enum verdict_on_answer take_answer(struct endpoint *e, struct json_object *value,
					   struct instant now, unsigned int *changes);

static enum verdict_on_answer take_commands(struct endpoint *e, struct json_object *value,
					    struct instant now, unsigned int *changes)
{
	(void)now;
	(void)changes;
	if (!json_object_is_type(value, json_type_array))
		return ANSWER_NONSENSE;
	e->offers = 0;
	for (size_t i = 0; i < json_object_array_length(value); i++) {
		const char *name = json_read_str(json_object_array_get_idx(value, i), "name");

		for (unsigned int o = 0; name && o < OFFER_COUNT; o++) {
			if (strcmp(name, offer_commands[o]) == 0)
				e->offers |= 1U << o;
		}
	}
	/* A monitor that is not asked for them has none, whatever was here before. One that is has
	 * its old ones until it answers: they are what it is configured and found by. */
	if (!(e->offers >> OFFER_NAME & 1))
		e->view.name[0] = '\0';
	if (!(e->offers >> OFFER_UUID & 1))
		e->view.uuid[0] = '\0';
	e->view.kind = ENDPOINT_KIND_UNKNOWN;
	e->balloon[0] = '\0';
	if (!(e->offers >> OFFER_BALLOON & 1) || !(e->offers >> OFFER_QOM_GET & 1))
		return ANSWER_NO_BALLOON;
	if (e->offers >> OFFER_DEVICE & 1) {
		e->view.kind = ENDPOINT_KIND_AEROSTAT;
		memcpy(e->balloon, OUR_BALLOON, sizeof(OUR_BALLOON));
		return ANSWER_FINE;
	}
	e->view.kind = ENDPOINT_KIND_QEMU;
	return e->offers >> OFFER_QOM_LIST & 1 ? ANSWER_FINE : ANSWER_NO_BALLOON;
}

static enum verdict_on_answer take_name(struct endpoint *e, struct json_object *value,
					struct instant now, unsigned int *changes)
{
	(void)now;
	(void)changes;
	e->view.name[0] = '\0';
	endpoint_take_text(e->view.name, sizeof(e->view.name), json_read_str(value, "name"));
	return ANSWER_FINE;
}

static enum verdict_on_answer take_uuid(struct endpoint *e, struct json_object *value,
					struct instant now, unsigned int *changes)
{
	const char *uuid = json_read_str(value, "UUID");

	(void)now;
	(void)changes;
	e->view.uuid[0] = '\0';
	/* QEMU has that one where nobody gave another. Other text could be what another is called
	 * by name, and takes nothing of his so. */
	if (uuid && endpoint_is_uuid(uuid) &&
	    strcmp(uuid, "00000000-0000-0000-0000-000000000000") != 0)
		endpoint_take_text(e->view.uuid, sizeof(e->view.uuid), uuid);
	return ANSWER_FINE;
}

static enum verdict_on_answer take_status(struct endpoint *e, struct json_object *value,
					  struct instant now, unsigned int *changes)
{
	bool running = true;

	if (json_read_bool(value, "running", &running) && running != e->view.running) {
		endpoint_take_running(e, running, now);
		*changes |= 1U << ENDPOINT_CHANGE_HEALTH;
	}
	return ANSWER_FINE;
}

static enum verdict_on_answer take_size(struct endpoint *e, struct json_object *value,
					struct instant now, unsigned int *changes)
{
	uint64_t base = 0, plugged = 0;

	(void)now;
	if (!json_read_u64(value, "base-memory", &base) || base > ENDPOINT_SIZE_MAX)
		return ANSWER_NONSENSE;
	if (!json_read_u64(value, "plugged-memory", &plugged) || plugged > ENDPOINT_SIZE_MAX)
		plugged = 0;
	endpoint_set_size(e, base + plugged, changes);
	return ANSWER_FINE;
}

/* The first device that is a balloon. */
static enum verdict_on_answer take_list(struct endpoint *e, struct json_object *value,
					const char *folder)
{
	static const char kind[] = "child<virtio-balloon";

	if (!json_object_is_type(value, json_type_array))
		return ANSWER_FINE; /* there is no such folder */
	for (size_t i = 0; i < json_object_array_length(value); i++) {
		struct json_object *child = json_object_array_get_idx(value, i);
		const char *type = json_read_str(child, "type");
		const char *name = json_read_str(child, "name");
		int n;

		if (!type || !name || strncmp(type, kind, strlen(kind)) != 0)
			continue;
		n = snprintf(e->balloon, sizeof(e->balloon), "%s/%s", folder, name);
		if (n > 0 && (size_t)n < sizeof(e->balloon))
			break;
		e->balloon[0] = '\0';
	}
	return ANSWER_FINE;
}

static enum verdict_on_answer take_named(struct endpoint *e, struct json_object *value,
					 struct instant now, unsigned int *changes)
{
	(void)now;
	(void)changes;
	return take_list(e, value, "/machine/peripheral");
}

static enum verdict_on_answer take_nameless(struct endpoint *e, struct json_object *value,
					    struct instant now, unsigned int *changes)
{
	(void)now;
	(void)changes;
	take_list(e, value, "/machine/peripheral-anon");
	return e->balloon[0] ? ANSWER_FINE : ANSWER_NO_BALLOON;
}

/* That it cannot is seen by what comes, or does not. */
static enum verdict_on_answer take_nothing(struct endpoint *e, struct json_object *value,
					   struct instant now, unsigned int *changes)
{
	(void)e;
	(void)value;
	(void)now;
	(void)changes;
	return ANSWER_FINE;
}

static bool has_feature(struct json_object *features, const char *name)
{
	for (size_t i = 0; features && i < json_object_array_length(features); i++) {
		struct json_object *feature = json_object_array_get_idx(features, i);

		if (json_object_is_type(feature, json_type_string) &&
		    strcmp(json_object_get_string(feature), name) == 0)
			return true;
	}
	return false;
}

/* What a driver can do wrong: `any` queue where the device does not say which it was. */
static const struct {
	const char *name, *queue;
} errors[] = {
	[ENDPOINT_ERROR_PFN] = {"pfn-out-of-range", "any"},
	[ENDPOINT_ERROR_INFLATED_TWICE] = {"inflated-twice", "inflate"},
	[ENDPOINT_ERROR_NOT_HELD] = {"deflated-not-held", "deflate"},
	[ENDPOINT_ERROR_DUPLICATE] = {"duplicate-pfn", "any"},
	[ENDPOINT_ERROR_PARTIAL] = {"partial-entry", "any"},
	[ENDPOINT_ERROR_STATS_TWICE] = {"second-stats-buffer", "stats"},
	[ENDPOINT_ERROR_STATS_LONG] = {"stats-too-long", "stats"},
	[ENDPOINT_ERROR_ACTUAL] = {"actual-too-large", "none"},
	[ENDPOINT_ERROR_UNKNOWN_QUEUE] = {"unknown-queue", "unknown"},
	[ENDPOINT_ERROR_MESSAGE_SHORT] = {"message-too-short", "message"},
	[ENDPOINT_ERROR_MESSAGE_FLOOD] = {"message-flood", "message"},
	[ENDPOINT_ERROR_HINT_ID] = {"hint-id", "free-page"},
	[ENDPOINT_ERROR_BROKEN] = {"queue-broken", "any"},
};
static_assert(sizeof(errors) / sizeof(errors[0]) == ENDPOINT_ERROR_COUNT, "all errors");

const char *endpoint_error_name(enum endpoint_error error)
{
	return errors[error].name;
}

const char *endpoint_error_queue(enum endpoint_error error)
{
	return errors[error].queue;
}

/* A count; one that is unset (2^64-1) is none. */
static bool read_count(struct json_object *obj, const char *key, uint64_t *count)
{
	uint64_t value;

	if (!json_read_u64(obj, key, &value) || value == UINT64_MAX)
		return false;
	*count = value;
	return true;
}

static void take_errors(struct endpoint_device *device, struct json_object *counts)
{
	for (unsigned int i = 0; i < ENDPOINT_ERROR_COUNT; i++) {
		if (read_count(counts, errors[i].name, &device->errors[i]))
			device->errors_known |= 1U << i;
	}
}

static struct endpoint_device device_of(struct json_object *value, struct instant now)
{
	struct json_object *features = json_read_array(value, "features-negotiated");
	struct endpoint_device device = {.at_ms = now.mono_ms};

	/* The host's memory is counted with it. */
	device.known = read_count(value, "resident", &device.resident) &&
		       device.resident <= ENDPOINT_SIZE_MAX &&
		       read_count(value, "freed", &device.freed) &&
		       read_count(value, "inflated", &device.inflated) &&
		       read_count(value, "deflated", &device.deflated) &&
		       read_count(value, "reported", &device.reported);
	take_errors(&device, json_read(value, "driver-errors"));
	device.stats = has_feature(features, "stats");
	device.push = has_feature(features, "stats-push");
	device.messages = has_feature(features, "message");
	return device;
}

/* Who was not known well enough before is to be looked at from the start. */
static void set_ready(struct endpoint *e, bool ready, unsigned int *changes)
{
	if (ready && !e->view.ready)
		*changes |= 1U << ENDPOINT_CHANGE_UP;
	e->view.ready = ready;
}

static enum verdict_on_answer take_device(struct endpoint *e, struct json_object *value,
					  struct instant now, unsigned int *changes)
{
	uint64_t balloon = 0, wanted = 0, memory = 0, keeps;

	if (!json_read_u64(value, "actual", &balloon) || !json_read_u64(value, "target", &wanted))
		return ANSWER_NONSENSE;
	e->view.device = device_of(value, now);
	*changes |= 1U << ENDPOINT_CHANGE_DEVICE;
	if (!json_read_u64(value, "memory", &memory)) {
		endpoint_set_driver(e, MANAGER_DRIVER_NONE, changes);
		return ANSWER_FINE;
	}
	if (memory == 0 || memory > ENDPOINT_SIZE_MAX || balloon >= memory)
		return ANSWER_NONSENSE;
	endpoint_set_size(e, memory, changes);
	keeps = memory - balloon;
	if (keeps != e->view.actual)
		*changes |= 1U << ENDPOINT_CHANGE_ACTUAL;
	e->view.actual = keeps;
	e->view.target = wanted < memory ? memory - wanted : MANAGER_UNKNOWN;
	set_ready(e, true, changes);
	endpoint_set_driver(e, e->view.device.stats ? MANAGER_DRIVER_FULL : MANAGER_DRIVER_NO_STATS,
			    changes);
	return ANSWER_FINE;
}

static enum verdict_on_answer take_balloon(struct endpoint *e, struct json_object *value,
					   struct instant now, unsigned int *changes)
{
	(void)now;
	if (!value)
		return ANSWER_NO_BALLOON;
	if (endpoint_take_actual(e, value))
		*changes |= 1U << ENDPOINT_CHANGE_ACTUAL;
	set_ready(e, e->view.size && e->view.actual, changes);
	/* The device is there without a driver; a balloon that is not empty has one. */
	if (e->view.driver == MANAGER_DRIVER_NONE && e->view.actual < e->view.size)
		endpoint_set_driver(e, MANAGER_DRIVER_NO_STATS, changes);
	return ANSWER_FINE;
}

static enum verdict_on_answer take_stats(struct endpoint *e, struct json_object *value,
					 struct instant now, unsigned int *changes)
{
	if (!value || !endpoint_take_stats(e, value, now))
		return ANSWER_FINE;
	*changes |= 1U << ENDPOINT_CHANGE_STATS;
	if (e->view.kind == ENDPOINT_KIND_QEMU)
		endpoint_set_driver(e, MANAGER_DRIVER_FULL, changes);
	return ANSWER_FINE;
}

static enum verdict_on_answer take_health(struct endpoint *e, struct json_object *value,
					  struct instant now, unsigned int *changes)
{
	(void)now;
	if (value && endpoint_take_health(e, value))
		*changes |= 1U << ENDPOINT_CHANGE_HEALTH;
	return ANSWER_FINE;
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct {
	const char *command;
	enum offer offer;        /* asked only of a monitor that understands it */
	enum endpoint_kind kind; /* or UNKNOWN: of any */
	take_answer *take;
} questions[] = {
	[QUESTION_COMMANDS] = {"query-commands", OFFER_NONE, ENDPOINT_KIND_UNKNOWN, take_commands},
	[QUESTION_NAME] = {"query-name", OFFER_NAME, ENDPOINT_KIND_UNKNOWN, take_name},
	[QUESTION_UUID] = {"query-uuid", OFFER_UUID, ENDPOINT_KIND_UNKNOWN, take_uuid},
	[QUESTION_STATUS] = {"query-status", OFFER_STATUS, ENDPOINT_KIND_QEMU, take_status},
	[QUESTION_SIZE] = {"query-memory-size-summary", OFFER_SIZE, ENDPOINT_KIND_QEMU, take_size},
	[QUESTION_NAMED] = {"qom-list", OFFER_QOM_LIST, ENDPOINT_KIND_QEMU, take_named},
	[QUESTION_NAMELESS] = {"qom-list", OFFER_QOM_LIST, ENDPOINT_KIND_QEMU, take_nameless},
	[QUESTION_POLLING] = {"qom-set", OFFER_QOM_SET, ENDPOINT_KIND_UNKNOWN, take_nothing},
	[QUESTION_PUSHING] = {"set-stats-push-interval", OFFER_PUSH, ENDPOINT_KIND_AEROSTAT,
			      take_nothing},
	[QUESTION_DEVICE] = {"query-balloon-device", OFFER_DEVICE, ENDPOINT_KIND_AEROSTAT,
			     take_device},
	[QUESTION_BALLOON] = {"query-balloon", OFFER_BALLOON, ENDPOINT_KIND_QEMU, take_balloon},
	[QUESTION_STATS] = {"qom-get", OFFER_QOM_GET, ENDPOINT_KIND_UNKNOWN, take_stats},
	[QUESTION_HEALTH] = {"query-guest-health", OFFER_HEALTH, ENDPOINT_KIND_AEROSTAT,
			     take_health},
};
static_assert(sizeof(questions) / sizeof(questions[0]) == QUESTION_COUNT, "all questions");

bool question_applies(const struct endpoint *e, enum question q)
{
	if (questions[q].kind != ENDPOINT_KIND_UNKNOWN && questions[q].kind != e->view.kind)
		return false;
	if (questions[q].offer != OFFER_NONE && !(e->offers >> questions[q].offer & 1))
		return false;
	if (e->observe && (q == QUESTION_POLLING || q == QUESTION_PUSHING))
		return false;
	return q != QUESTION_NAMELESS || !e->balloon[0];
}

const char *question_command(enum question q)
{
	return questions[q].command;
}

struct json_object *question_args(const struct endpoint *e, enum question q)
{
	struct json_object *args = json_object_new_object();
	uint64_t seconds = (e->interval_ms + 999) / 1000;

	if (q == QUESTION_NAMED || q == QUESTION_NAMELESS)
		qmp_obj_add(&args, "path",
			    json_object_new_string(q == QUESTION_NAMED
							   ? "/machine/peripheral"
							   : "/machine/peripheral-anon"));
	if (q == QUESTION_POLLING || q == QUESTION_STATS) {
		qmp_obj_add(&args, "path", json_object_new_string(e->balloon));
		qmp_obj_add(&args, "property",
			    json_object_new_string(q == QUESTION_STATS
							   ? "guest-stats"
							   : "guest-stats-polling-interval"));
	}
	if (q == QUESTION_POLLING)
		qmp_obj_add(&args, "value", json_object_new_uint64(seconds));
	if (q == QUESTION_PUSHING)
		qmp_obj_add(&args, "interval-ms", json_object_new_uint64(e->interval_ms));
	return args;
}

enum verdict_on_answer question_answer(struct endpoint *e, enum question q,
				       struct json_object *value, struct instant now,
				       unsigned int *changes)
{
	return questions[q].take(e, value, now, changes);
}
