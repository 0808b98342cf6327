/* SPDX-License-Identifier: MIT */
/* What the files of the commands share: commands.c has the table, the others what is behind it. */
#ifndef VUB_COMMANDS_PARTS_H
#define VUB_COMMANDS_PARTS_H

#include "commands.h"
#include "qmp/json.h"
#include "server.h"

#define BALLOON_PATH "/machine/peripheral/balloon0"
#define MIB          (1024 * 1024)

/* As struct qmp_command has it. */
typedef enum qmp_outcome command_handler(struct qmp_request *req, struct json_object *args,
					 struct json_object **result, struct qmp_error *err);

/* commands_guest.c: those that QEMU has */
command_handler command_query_status, command_balloon, command_query_balloon, command_qom_get,
	command_qom_set, command_quit;
/* "running", "paused" or "prelaunch". */
const char *commands_status(const struct server *s);

/* commands_stats.c: statistics, and what they say about the guest */
command_handler command_refresh_balloon_stats, command_set_stats_push_interval,
	command_query_guest_health;

/* commands_device.c: the device */
command_handler command_query_balloon_device, command_free_page_hint, command_query_free_page_hint,
	command_balloon_inhibit, command_balloon_uninhibit;
const char *commands_hint_state(enum balloon_hint_state state);
/* What the last message was: "relieved", or how short memory is; "none" before the first one. */
const char *commands_pressure(const struct balloon_pressure *p);

/* commands_human.c */
command_handler command_human_monitor_command;

static inline struct server *commands_server(const struct qmp_request *req)
{
	return qmp_request_opaque(req);
}

static inline void commands_add_u64(struct json_object **obj, const char *key, uint64_t value)
{
	qmp_obj_add(obj, key, json_object_new_uint64(value));
}

static inline void commands_add_str(struct json_object **obj, const char *key, const char *value)
{
	qmp_obj_add(obj, key, json_object_new_string(value));
}

static inline enum qmp_outcome commands_no_device(struct qmp_error *err)
{
	qmp_error_set(err, QMP_DEVICE_NOT_ACTIVE, "No balloon device has been activated");
	return QMP_FAILED;
}

#endif
