// SPDX-License-Identifier: MIT
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json_read.h"
#include "common/unix_socket.h"
#include "qmp/json.h"

#define MIB        MACHINE_MIB
#define SIZE       MACHINE_SIZE
#define OVERHEAD   (24 * MIB)  /* what a kernel never shows */
#define LEAST_USED (160 * MIB) /* by the machine that needs the least */
#define MORE_USED  (24 * MIB)  /* by the next, up to the tenth */
#define SORTS      10
#define ROUND      60 /* statistics in which the need goes up and down once */

enum { EVENT_BALLOON, EVENT_GUEST_PRESSURE, EVENT_RESET };

/* --- the figures of a guest ------------------------------------------------------------------- */

/* Needs go up and down by a third in a minute, those of each machine at its own time. */
static uint64_t used_by(const struct machine *m)
{
	uint64_t least = LEAST_USED + m->number % SORTS * MORE_USED;
	uint64_t at = (m->sent + m->number * 7) % ROUND;
	uint64_t part = at < ROUND / 2 ? at : ROUND - at;

	return least + least / 3 * part / (ROUND / 2);
}

static void add(struct json_object **out, const char *name, uint64_t value)
{
	qmp_obj_add(out, name, json_object_new_uint64(value));
}

static struct json_object *statistics_of(const struct machine *m)
{
	struct json_object *out = json_object_new_object();
	uint64_t total = m->keeps - OVERHEAD, used = used_by(m);
	uint64_t available = total > used + 8 * MIB ? total - used : 8 * MIB;

	add(&out, "stat-swap-in", 0);
	add(&out, "stat-swap-out", 0);
	add(&out, "stat-major-faults", 100 + m->sent);
	add(&out, "stat-minor-faults", 100000 + 1000 * m->sent);
	add(&out, "stat-free-memory", available / 2);
	add(&out, "stat-total-memory", total);
	add(&out, "stat-available-memory", available);
	add(&out, "stat-disk-caches", available / 2);
	add(&out, "stat-htlb-pgalloc", 0);
	add(&out, "stat-htlb-pgfail", 0);
	if (!m->ours)
		return out;
	add(&out, "stat-oom-kills", m->kills);
	add(&out, "stat-alloc-stalls", 0);
	add(&out, "stat-async-scans", 0);
	add(&out, "stat-direct-scans", 0);
	add(&out, "stat-async-reclaims", 0);
	add(&out, "stat-direct-reclaims", 0);
	return out;
}

static struct json_object *stats_message(const struct machine *m)
{
	struct json_object *out = json_object_new_object();

	qmp_obj_add(&out, "stats", statistics_of(m));
	qmp_obj_add(&out, "last-update", json_object_new_int64(m->sent_s));
	if (m->ours) {
		add(&out, "age-ms", 0);
		add(&out, "actual", m->keeps);
	}
	return out;
}

bool machine_send_statistics(struct machine *m)
{
	struct instant now = clock_now();

	m->sent++;
	m->sent_s = now.wall_us / 1000000;
	if (!m->ours || !m->served)
		return false;
	monitor_event(&m->monitor, EVENT_BALLOON, stats_message(m), now);
	return true;
}

void machine_send_pressure(struct machine *m)
{
	struct json_object *data = json_object_new_object();

	qmp_obj_add(&data, "type", json_object_new_string("pressure"));
	qmp_obj_add(&data, "level", json_object_new_string("medium"));
	add(&data, "target", SIZE - m->keeps);
	add(&data, "actual", SIZE - m->keeps);
	add(&data, "held", SIZE - m->keeps);
	monitor_event(&m->monitor, EVENT_GUEST_PRESSURE, data, clock_now());
}

void machine_send_reset(struct machine *m)
{
	m->keeps = SIZE;
	monitor_event(&m->monitor, EVENT_RESET, NULL, clock_now());
}

/* --- commands --------------------------------------------------------------------------------- */

static struct machine *machine_of(struct qmp_request *req)
{
	return qmp_request_opaque(req);
}

static void order(struct machine *m)
{
	m->served = true;
	m->ops->asked(m);
}

static enum qmp_outcome query_name(struct qmp_request *req, struct json_object *args,
				   struct json_object **result, struct qmp_error *err)
{
	char name[16];

	(void)args;
	(void)err;
	snprintf(name, sizeof(name), "vm%04u", machine_of(req)->number);
	*result = json_object_new_object();
	qmp_obj_add(result, "name", json_object_new_string(name));
	return QMP_DONE;
}

static enum qmp_outcome query_status(struct qmp_request *req, struct json_object *args,
				     struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)err;
	*result = json_object_new_object();
	qmp_obj_add(result, "running", json_object_new_boolean(true));
	qmp_obj_add(result, "status", json_object_new_string("running"));
	return QMP_DONE;
}

static enum qmp_outcome query_size(struct qmp_request *req, struct json_object *args,
				   struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)err;
	*result = json_object_new_object();
	add(result, "base-memory", SIZE);
	add(result, "plugged-memory", 0);
	return QMP_DONE;
}

static enum qmp_outcome query_balloon(struct qmp_request *req, struct json_object *args,
				      struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = json_object_new_object();
	add(result, "actual", machine_of(req)->keeps);
	return QMP_DONE;
}

static enum qmp_outcome query_device(struct qmp_request *req, struct json_object *args,
				     struct json_object **result, struct qmp_error *err)
{
	static const char *const features[] = {"stats", "stats-push", "message"};
	struct json_object *names = json_object_new_array();
	const struct machine *m = machine_of(req);

	(void)args;
	(void)err;
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		qmp_arr_add(&names, json_object_new_string(features[i]));
	*result = json_object_new_object();
	add(result, "target", SIZE - m->keeps);
	add(result, "actual", SIZE - m->keeps);
	add(result, "held", SIZE - m->keeps);
	add(result, "resident", m->keeps);
	add(result, "memory", SIZE);
	qmp_obj_add(result, "features-negotiated", names);
	add(result, "freed", SIZE - m->keeps);
	return QMP_DONE;
}

static enum qmp_outcome query_health(struct qmp_request *req, struct json_object *args,
				     struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)err;
	*result = json_object_new_object();
	qmp_obj_add(result, "status", json_object_new_string("healthy"));
	return QMP_DONE;
}

static enum qmp_outcome qom_list(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	struct json_object *child = json_object_new_object();

	(void)req;
	(void)args;
	(void)err;
	qmp_obj_add(&child, "name", json_object_new_string("balloon0"));
	qmp_obj_add(&child, "type", json_object_new_string("child<virtio-balloon-pci>"));
	*result = json_object_new_array();
	qmp_arr_add(result, child);
	return QMP_DONE;
}

static enum qmp_outcome qom_get(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	struct machine *m = machine_of(req);

	(void)args;
	(void)err;
	if (!m->ours)
		order(m);
	*result = stats_message(m);
	return QMP_DONE;
}

static enum qmp_outcome qom_set(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)result;
	(void)err;
	return QMP_DONE;
}

static enum qmp_outcome push(struct qmp_request *req, struct json_object *args,
			     struct json_object **result, struct qmp_error *err)
{
	(void)err;
	order(machine_of(req));
	*result = json_object_new_object();
	qmp_obj_add(result, "interval-ms", json_object_get(json_read(args, "interval-ms")));
	return QMP_DONE;
}

/* The guest has done it before its next statistics come. */
static enum qmp_outcome balloon(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	struct machine *m = machine_of(req);
	uint64_t value = 0;

	(void)result;
	if (!json_read_u64(args, "value", &value) || value <= OVERHEAD || value > SIZE) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "no such size");
		return QMP_FAILED;
	}
	m->ops->target(m, value);
	m->keeps = value;
	return QMP_DONE;
}

#define PATH_ARGS QMP_MEMBER("path", &qmp_str, ""), QMP_MEMBER("property", &qmp_str, "")

#define COMMON_COMMANDS                                                                            \
	{.name = "query-name", .returns = &qmp_any, .handler = query_name, .doc = ""},             \
		{.name = "query-balloon",                                                          \
		 .returns = &qmp_any,                                                              \
		 .handler = query_balloon,                                                         \
		 .doc = ""},                                                                       \
		{.name = "query-status", .returns = &qmp_any, .handler = query_status, .doc = ""}, \
		{.name = "balloon",                                                                \
		 .args = QMP_ARGS(QMP_MEMBER("value", &qmp_int, "")),                              \
		 .handler = balloon,                                                               \
		 .doc = ""},                                                                       \
		{.name = "qom-get",                                                                \
		 .args = QMP_ARGS(PATH_ARGS),                                                      \
		 .returns = &qmp_any,                                                              \
		 .handler = qom_get,                                                               \
		 .doc = ""},                                                                       \
	{                                                                                          \
		.name = "qom-set", .args = QMP_ARGS(PATH_ARGS, QMP_MEMBER("value", &qmp_any, "")), \
		.handler = qom_set, .doc = ""                                                      \
	}

static const struct qmp_command commands_of_qemu[] = {
	COMMON_COMMANDS,
	{.name = "query-memory-size-summary",
	 .returns = &qmp_any,
	 .handler = query_size,
	 .doc = ""},
	{.name = "qom-list",
	 .args = QMP_ARGS(QMP_MEMBER("path", &qmp_str, "")),
	 .returns = &qmp_any,
	 .handler = qom_list,
	 .doc = ""},
};

static const struct qmp_command commands_of_ours[] = {
	COMMON_COMMANDS,
	{.name = "query-balloon-device", .returns = &qmp_any, .handler = query_device, .doc = ""},
	{.name = "query-guest-health", .returns = &qmp_any, .handler = query_health, .doc = ""},
	{.name = "set-stats-push-interval",
	 .args = QMP_ARGS(QMP_MEMBER("interval-ms", &qmp_int, "")),
	 .returns = &qmp_any,
	 .handler = push,
	 .doc = ""},
};

static const struct qmp_event events[] = {
	[EVENT_BALLOON] = {.name = "BALLOON", .data = &qmp_any, .doc = ""},
	[EVENT_GUEST_PRESSURE] = {.name = "GUEST_PRESSURE", .data = &qmp_any, .doc = ""},
	[EVENT_RESET] = {.name = "RESET", .doc = ""},
};

static const struct qmp_schema schema_of_qemu = {QMP_COMMANDS(commands_of_qemu),
						 QMP_EVENTS(events)};
static const struct qmp_schema schema_of_ours = {QMP_COMMANDS(commands_of_ours),
						 QMP_EVENTS(events)};

/* --- connections ------------------------------------------------------------------------------ */

static void on_telling(void *opaque)
{
	(void)opaque;
}

static void on_gone(void *opaque, const struct monitor_name *client)
{
	struct machine *m = opaque;

	(void)client;
	m->record.serial = 0;
	m->served = false;
}

static const struct monitor_ops monitor_ops = {on_telling, on_gone};

static void on_connection(uv_poll_t *poll, int status, int polled)
{
	struct machine *m = poll->data;
	struct monitor_name client = {0};
	int fd = status < 0 ? status : unix_socket_accept(m->fd);

	(void)polled;
	if (fd < 0)
		return;
	if (m->record.serial) { /* there is one manager */
		close(fd);
		return;
	}
	client.serial = ++m->serial;
	monitor_add_client(&m->monitor, &client, fd);
}

void machine_start(struct machine *m, uv_loop_t *loop, const char *directory, uint32_t number,
		   bool ours, const struct machine_ops *ops)
{
	char path[108];

	*m = (struct machine){.number = number, .ours = ours, .ops = ops, .keeps = SIZE};
	snprintf(path, sizeof(path), "%s/vm%04u.qmp", directory, number);
	m->fd = unix_socket_listen(path, (gid_t)-1);
	if (m->fd < 0) {
		fprintf(stderr, "monitors: %s: %s\n", path, strerror(-m->fd));
		exit(1);
	}
	monitor_start(&m->monitor, loop, ours ? &schema_of_ours : &schema_of_qemu, &m->record,
		      &monitor_ops, m);
	uv_poll_init(loop, &m->poll, m->fd);
	m->poll.data = m;
	uv_poll_start(&m->poll, UV_READABLE, on_connection);
}
