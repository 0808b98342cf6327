// SPDX-License-Identifier: MIT
/* The commands that QEMU has too, with its names, arguments, replies and words for errors. */
#include <string.h>

#include "commands_parts.h"
#include "common/clock.h"

const char *commands_status(const struct server *s)
{
	if (balloon_driver_active(&s->balloon))
		return "running";
	return frontend_connected(&s->frontend) ? "paused" : "prelaunch";
}

enum qmp_outcome command_query_status(struct qmp_request *req, struct json_object *args,
				      struct json_object **result, struct qmp_error *err)
{
	const struct server *s = commands_server(req);

	(void)args;
	(void)err;
	*result = json_object_new_object();
	qmp_obj_add(result, "running", json_object_new_boolean(balloon_driver_active(&s->balloon)));
	commands_add_str(result, "status", commands_status(s));
	return QMP_DONE;
}

enum qmp_outcome command_balloon(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	int64_t value = json_object_get_int64(json_object_object_get(args, "value"));

	(void)result;
	if (value <= 0) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "Parameter 'target' expects a size");
		return QMP_FAILED;
	}
	server_set_guest_size(commands_server(req), (uint64_t)value);
	return QMP_DONE;
}

enum qmp_outcome command_query_balloon(struct qmp_request *req, struct json_object *args,
				       struct json_object **result, struct qmp_error *err)
{
	uint64_t bytes;

	(void)args;
	if (server_guest_size(commands_server(req), &bytes) < 0)
		return commands_no_device(err);
	*result = json_object_new_object();
	commands_add_u64(result, "actual", bytes);
	return QMP_DONE;
}

static enum qmp_outcome check_path(struct json_object *args, struct qmp_error *err)
{
	const char *path = json_object_get_string(json_object_object_get(args, "path"));

	if (strcmp(path, BALLOON_PATH) == 0)
		return QMP_DONE;
	qmp_error_set(err, QMP_DEVICE_NOT_FOUND, "Device '%s' not found", path);
	return QMP_FAILED;
}

static enum qmp_outcome no_property(const char *property, const char *what, struct qmp_error *err)
{
	qmp_error_set(err, QMP_GENERIC_ERROR, "Property 'vhost-user-balloon.%s' %s", property,
		      what);
	return QMP_FAILED;
}

static const char prop_stats[] = "guest-stats";
static const char prop_interval[] = "guest-stats-polling-interval";

enum qmp_outcome command_qom_get(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	const struct balloon_state *st = &commands_server(req)->balloon.st;
	const char *property = json_object_get_string(json_object_object_get(args, "property"));

	if (check_path(args, err) != QMP_DONE)
		return QMP_FAILED;
	if (strcmp(property, prop_stats) == 0)
		*result = commands_stats(&st->stats, clock_now());
	else if (strcmp(property, prop_interval) == 0)
		*result = json_object_new_uint64(st->poll_interval_ms / 1000);
	else
		return no_property(property, "not found", err);
	return QMP_DONE;
}

enum qmp_outcome command_qom_set(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	const char *property = json_object_get_string(json_object_object_get(args, "property"));
	struct json_object *value = json_object_object_get(args, "value");
	int64_t seconds;

	(void)result;
	if (check_path(args, err) != QMP_DONE)
		return QMP_FAILED;
	if (strcmp(property, prop_stats) == 0)
		return no_property(property, "is not writable", err);
	if (strcmp(property, prop_interval) != 0)
		return no_property(property, "not found", err);
	if (qmp_type_check(&qmp_int, value, prop_interval, err) < 0)
		return QMP_FAILED;
	seconds = json_object_get_int64(value);
	if (seconds < 0 || seconds > UINT32_MAX) {
		qmp_error_set(err, QMP_GENERIC_ERROR,
			      seconds < 0 ? "timer value must be greater than zero"
					  : "timer value is too big");
		return QMP_FAILED;
	}
	server_set_poll_interval(commands_server(req), (uint64_t)seconds * 1000);
	return QMP_DONE;
}

enum qmp_outcome command_quit(struct qmp_request *req, struct json_object *args,
			      struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	server_quit(commands_server(req));
	return QMP_DONE;
}
