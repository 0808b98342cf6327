// SPDX-License-Identifier: MIT
#include "commands.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json_read.h"
#include "fleet_events.h"
#include "policy/explain.h"
#include "qmp/json.h"
#include "qmp/server.h"
#include "report.h"

/* How long `reserve` waits unless it says so: what `virsh` users expect of a start. */
#define RESERVE_TIMEOUT_MS 10000

/* No wait and no grant is longer than a day: what is longer is a mistake. */
#define RESERVE_TIME_MAX_MS 86400000ULL

static struct control *control_of(struct qmp_request *req)
{
	return qmp_request_opaque(req);
}

static enum qmp_outcome no_memory(struct qmp_error *err)
{
	qmp_error_set(err, QMP_GENERIC_ERROR, "out of memory");
	return QMP_FAILED;
}

/* The slot of the VM that args name; -ENOENT, and *err says so. */
static int find_vm(struct qmp_request *req, struct json_object *args, struct qmp_error *err)
{
	const char *name = json_object_get_string(json_object_object_get(args, "name"));
	int slot = fleet_find(control_of(req)->fleet, name);

	if (slot < 0)
		qmp_error_set(err, QMP_DEVICE_NOT_FOUND, "There is no VM '%s'", name);
	return slot;
}

/* --- looking ---------------------------------------------------------------------------------- */

static enum qmp_outcome query_vms(struct qmp_request *req, struct json_object *args,
				  struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = report_vms(control_of(req)->fleet, clock_now());
	return QMP_DONE;
}

static enum qmp_outcome query_vm(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	int slot = find_vm(req, args, err);

	if (slot < 0)
		return QMP_FAILED;
	*result = report_vm(control_of(req)->fleet, (uint32_t)slot, clock_now());
	return QMP_DONE;
}

static enum qmp_outcome query_host(struct qmp_request *req, struct json_object *args,
				   struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = report_host(control_of(req)->fleet, clock_now());
	return QMP_DONE;
}

static enum qmp_outcome explain(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	int slot = find_vm(req, args, err);

	if (slot < 0)
		return QMP_FAILED;
	*result = report_explanation(control_of(req)->fleet, (uint32_t)slot, clock_now());
	return QMP_DONE;
}

static enum qmp_outcome query_events(struct qmp_request *req, struct json_object *args,
				     struct json_object **result, struct qmp_error *err)
{
	const struct news *news = &control_of(req)->fleet->news;
	struct json_object *list = json_object_new_array();
	uint64_t after = 0, seq;

	(void)err;
	(void)json_read_u64(args, "after", &after);
	seq = news->last > NEWS_KEPT ? news->last - NEWS_KEPT + 1 : 1;
	if (after >= seq)
		seq = after + 1 > after ? after + 1 : after;
	for (; seq <= news->last; seq++) {
		const struct news_item *item = news_item(news, seq);

		if (item)
			qmp_arr_add(&list, report_news(item, clock_now()));
	}
	*result = json_object_new_object();
	qmp_obj_add(result, "events", list);
	qmp_obj_add(result, "last", json_object_new_uint64(news->last));
	return QMP_DONE;
}

static enum qmp_outcome query_metrics(struct qmp_request *req, struct json_object *args,
				      struct json_object **result, struct qmp_error *err)
{
	struct control *c = control_of(req);
	char *text = c->ops->metrics(c->opaque);

	(void)args;
	if (!text)
		return no_memory(err);
	*result = json_object_new_object();
	qmp_obj_add(result, "text", json_object_new_string(text));
	free(text);
	return QMP_DONE;
}

/* --- setting ---------------------------------------------------------------------------------- */

static enum qmp_outcome wish(struct qmp_request *req, uint32_t slot,
			     const struct state_wishes *wishes, struct json_object **result,
			     struct qmp_error *err)
{
	struct fleet *fleet = control_of(req)->fleet;
	int r = fleet_wish(fleet, slot, wishes);

	if (r == -EINVAL)
		qmp_error_set(err, QMP_GENERIC_ERROR, "the floor is above the ceiling");
	else if (r == -ENOTCONN)
		qmp_error_set(err, QMP_GENERIC_ERROR, "it is not managed now: see its state");
	else if (r < 0)
		qmp_error_set(err, QMP_GENERIC_ERROR, "%s", strerror(-r));
	if (r < 0)
		return QMP_FAILED;
	*result = report_vm(fleet, slot, clock_now());
	return QMP_DONE;
}

static enum qmp_outcome set_vm(struct qmp_request *req, struct json_object *args,
			       struct json_object **result, struct qmp_error *err)
{
	struct state_wishes wishes;
	int slot = find_vm(req, args, err);
	uint64_t priority = 0;

	if (slot < 0)
		return QMP_FAILED;
	wishes = control_of(req)->fleet->vms[slot].wishes;
	(void)json_read_u64(args, "floor", &wishes.floor);
	(void)json_read_u64(args, "ceiling", &wishes.ceiling);
	if (json_read_u64(args, "priority", &priority)) {
		if (priority < 1 || priority > CONFIG_PRIORITY_MAX) {
			qmp_error_set(err, QMP_GENERIC_ERROR, "a priority is from 1 to %u",
				      CONFIG_PRIORITY_MAX);
			return QMP_FAILED;
		}
		wishes.priority = (uint32_t)priority;
	}
	return wish(req, (uint32_t)slot, &wishes, result, err);
}

static enum qmp_outcome reset_vm(struct qmp_request *req, struct json_object *args,
				 struct json_object **result, struct qmp_error *err)
{
	const struct state_wishes none = STATE_NO_WISHES;
	int slot = find_vm(req, args, err);

	return slot < 0 ? QMP_FAILED : wish(req, (uint32_t)slot, &none, result, err);
}

static enum qmp_outcome reload(struct qmp_request *req, struct json_object *args,
			       struct json_object **result, struct qmp_error *err)
{
	struct control *c = control_of(req);
	char error[512] = "";

	(void)args;
	(void)result;
	if (c->ops->reload(c->opaque, error, sizeof(error)) == 0)
		return QMP_DONE;
	qmp_error_set(err, QMP_GENERIC_ERROR, "%s", error);
	return QMP_FAILED;
}

static enum qmp_outcome quit(struct qmp_request *req, struct json_object *args,
			     struct json_object **result, struct qmp_error *err)
{
	struct control *c = control_of(req);

	(void)args;
	(void)result;
	(void)err;
	c->ops->quit(c->opaque);
	return QMP_DONE;
}

/* --- reservations ----------------------------------------------------------------------------- */

static struct json_object *granted(const struct control_waiter *w)
{
	struct json_object *out = json_object_new_object();

	qmp_obj_add(&out, "id", json_object_new_uint64(w->id));
	qmp_obj_add(&out, "bytes", json_object_new_uint64(w->bytes));
	qmp_obj_add(&out, "hold-ms", json_object_new_uint64(w->hold_ms));
	return out;
}

void commands_reserved(struct control *c, struct control_waiter *w, enum reserve_change change)
{
	struct qmp_request *request = w->request;
	struct qmp_error err = {0};

	w->request = NULL;
	if (change == RESERVE_IS_GRANTED) {
		/* Who has asked is gone: nobody would release it. */
		if (!qmp_request_conn(request))
			(void)manager_release(&c->fleet->manager, w->id, clock_now().mono_ms);
		monitor_complete(&c->monitor, request, granted(w), NULL);
		return;
	}
	qmp_error_set(&err, QMP_GENERIC_ERROR,
		      "the memory was not free in time; what was gathered was given back");
	monitor_complete(&c->monitor, request, NULL, &err);
}

static enum qmp_outcome not_reserved(int r, struct qmp_error *err)
{
	switch (r) {
	case -EINVAL:
		qmp_error_set(err, QMP_GENERIC_ERROR, "there is nothing to reserve");
		break;
	case -ENOSPC:
		qmp_error_set(err, QMP_GENERIC_ERROR,
			      "so much cannot be freed without taking from a VM what it uses");
		break;
	case -EAGAIN:
		qmp_error_set(err, QMP_GENERIC_ERROR, "there are %u reservations already",
			      RESERVE_MAX);
		break;
	default:
		qmp_error_set(err, QMP_GENERIC_ERROR, "%s", strerror(-r));
		break;
	}
	return QMP_FAILED;
}

static enum qmp_outcome reserve(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	struct control *c = control_of(req);
	struct control_waiter *w = c->waiter;
	uint64_t bytes = 0, timeout_ms = RESERVE_TIMEOUT_MS, hold_ms = RESERVE_HOLD_MS, id = 0;
	int r;

	(void)json_read_u64(args, "bytes", &bytes);
	(void)json_read_u64(args, "timeout-ms", &timeout_ms);
	(void)json_read_u64(args, "hold-ms", &hold_ms);
	if (!hold_ms)
		hold_ms = RESERVE_HOLD_MS;
	if (timeout_ms > RESERVE_TIME_MAX_MS || hold_ms > RESERVE_TIME_MAX_MS) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "times are up to a day");
		return QMP_FAILED;
	}
	while (w < c->waiter + CONTROL_RESERVATIONS_MAX && w->request)
		w++;
	if (w == c->waiter + CONTROL_RESERVATIONS_MAX)
		return not_reserved(-EAGAIN, err);
	/* It may be granted in that call. */
	*w = (struct control_waiter){.request = req,
				     .id = c->fleet->manager.reserve.last_id + 1,
				     .bytes = bytes,
				     .hold_ms = hold_ms};
	r = manager_reserve(&c->fleet->manager, bytes, timeout_ms, hold_ms, clock_now().mono_ms,
			    &id);
	if (r == 0 && w->change == RESERVE_NOTHING)
		return QMP_DEFERRED;
	w->request = NULL;
	if (r < 0)
		return not_reserved(r, err);
	if (w->change != RESERVE_IS_GRANTED)
		return not_reserved(-ETIMEDOUT, err);
	*result = granted(w);
	return QMP_DONE;
}

static enum qmp_outcome release(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	struct control *c = control_of(req);
	uint64_t id = 0;

	(void)result;
	(void)json_read_u64(args, "id", &id);
	if (manager_release(&c->fleet->manager, id, clock_now().mono_ms) < 0) {
		qmp_error_set(err, QMP_DEVICE_NOT_FOUND, "There is no reservation of that number");
		return QMP_FAILED;
	}
	/* Given up by somebody else than who waits for it. */
	control_reserved(c, id, RESERVE_HAS_FAILED);
	return QMP_DONE;
}

/* --- the tables ------------------------------------------------------------------------------- */

static const struct qmp_type reservation_info =
	QMP_OBJECT(QMP_MEMBER("id", &qmp_size, "its number, for release"),
		   QMP_MEMBER("bytes", &qmp_size, "free now, and kept so"),
		   QMP_MEMBER("hold-ms", &qmp_size, "for that long"));

static const struct qmp_type metrics_info =
	QMP_OBJECT(QMP_MEMBER("text", &qmp_str, "as OpenMetrics has it"));

#define NAME QMP_MEMBER("name", &qmp_str, "of the VM, or its UUID")

static const struct qmp_command commands[] = {
	{.name = "query-vms", .returns = &qmp_any, .handler = query_vms, .doc = "All VMs."},
	{.name = "query-vm",
	 .args = QMP_ARGS(NAME),
	 .returns = &qmp_any,
	 .handler = query_vm,
	 .doc = "One VM."},
	{.name = "query-host",
	 .returns = &qmp_any,
	 .handler = query_host,
	 .doc = "The host's memory, and how it is shared out."},
	{.name = "explain",
	 .args = QMP_ARGS(NAME),
	 .returns = &qmp_any,
	 .handler = explain,
	 .doc = "Why a VM has the memory that it has."},
	{.name = "query-events",
	 .args = QMP_ARGS(QMP_OPTIONAL("after", &qmp_size, "only those after this number")),
	 .returns = &qmp_any,
	 .handler = query_events,
	 .doc = "What has happened of late."},
	{.name = "query-metrics",
	 .returns = &metrics_info,
	 .handler = query_metrics,
	 .doc = "All figures, as the HTTP listener gives them."},
	{.name = "set-vm",
	 .args = QMP_ARGS(NAME, QMP_OPTIONAL("floor", &qmp_size, "bytes it keeps at least"),
			  QMP_OPTIONAL("ceiling", &qmp_size, "bytes it keeps at most"),
			  QMP_OPTIONAL("priority", &qmp_size, "1 to 10000")),
	 .returns = &qmp_any,
	 .handler = set_vm,
	 .doc = "Set bounds of a VM, until reset-vm; also beyond a restart."},
	{.name = "reset-vm",
	 .args = QMP_ARGS(NAME),
	 .returns = &qmp_any,
	 .handler = reset_vm,
	 .doc = "Back to what the configuration says."},
	{.name = "reserve",
	 .args = QMP_ARGS(QMP_MEMBER("bytes", &qmp_size, "to free on the host"),
			  QMP_OPTIONAL("timeout-ms", &qmp_size, "within that time, or not at all"),
			  QMP_OPTIONAL("hold-ms", &qmp_size, "kept free for so long at most")),
	 .returns = &reservation_info,
	 .handler = reserve,
	 .doc = "Free memory for a VM that is to start. Answered when it is free."},
	{.name = "release",
	 .args = QMP_ARGS(QMP_MEMBER("id", &qmp_size, "of the reservation")),
	 .handler = release,
	 .doc = "The memory is used now, or is wanted no more."},
	{.name = "reload", .handler = reload, .doc = "Read the configuration anew."},
	{.name = "quit", .handler = quit, .doc = "End this program; VMs stay as they are."},
};

#define TEXT  QMP_MEMBER("text", &qmp_str, "a sentence about it")
#define OF_VM QMP_MEMBER("name", &qmp_str, "of the VM"), TEXT

static const struct qmp_type vm_event = QMP_OBJECT(OF_VM);
static const struct qmp_type target_event =
	QMP_OBJECT(OF_VM, QMP_MEMBER("action", &qmp_str, "take, give or release"),
		   QMP_MEMBER("reason", &qmp_str, "why, in a word"),
		   QMP_MEMBER("from", &qmp_size, "bytes that it was to keep"),
		   QMP_MEMBER("to", &qmp_size, "bytes that it is to keep"),
		   QMP_OPTIONAL("actual", &qmp_size, "bytes that it keeps now"));
static const struct qmp_type verdict_event =
	QMP_OBJECT(OF_VM, QMP_MEMBER("verdict", &qmp_str, "how badly it wants memory"),
		   QMP_MEMBER("weak", &qmp_bool, "its kernel does not tell enough to be sure"),
		   QMP_MEMBER("reason", &qmp_str, "by what, in a word"));
static const struct qmp_type health_event =
	QMP_OBJECT(OF_VM, QMP_MEMBER("health", &qmp_str, "as query-vm has it"));
static const struct qmp_type progress_event =
	QMP_OBJECT(OF_VM, QMP_MEMBER("progress", &qmp_str, "as query-vm has it"));
static const struct qmp_type pressure_event = QMP_OBJECT(
	OF_VM, QMP_MEMBER("level", &qmp_str, "low, medium, critical, unspecified or relieved"));
static const struct qmp_type reservation_event = QMP_OBJECT(
	TEXT, QMP_MEMBER("id", &qmp_size, "its number"), QMP_MEMBER("bytes", &qmp_size, "its size"),
	QMP_MEMBER("change", &qmp_str, "granted, failed or expired"));
static const struct qmp_type scarcity_event =
	QMP_OBJECT(TEXT, QMP_MEMBER("on", &qmp_bool, "whether it has come or is over"));

static const struct qmp_event events[] = {
	[NEWS_VM_APPEARED] = {"VM_APPEARED", &vm_event, "A VM is there, and managed from now on."},
	[NEWS_VM_GONE] = {"VM_GONE", &vm_event, "It is not any more."},
	[NEWS_TARGET_SET] = {"TARGET_SET", &target_event,
			     "A VM was told to keep another amount of memory."},
	[NEWS_VERDICT_CHANGE] = {"VERDICT_CHANGE", &verdict_event,
				 "A guest wants memory more, or less badly."},
	[NEWS_HEALTH_CHANGE] = {"HEALTH_CHANGE", &health_event, "A guest hangs, or does no more."},
	[NEWS_PROGRESS_CHANGE] = {"PROGRESS_CHANGE", &progress_event,
				  "A guest does not follow its target, or does again."},
	[NEWS_TARGET_REFUSED] = {"TARGET_REFUSED", &vm_event, "A monitor did not take a target."},
	[NEWS_PRESSURE] = {"PRESSURE", &pressure_event,
			   "A guest has said that memory is short, or is no more."},
	[NEWS_RESERVATION_CHANGE] = {"RESERVATION_CHANGE", &reservation_event,
				     "A reservation was granted, has failed or expired."},
	[NEWS_SCARCITY] = {"SCARCITY", &scarcity_event,
			   "What the VMs need does not fit, or does again."},
};
static_assert(sizeof(events) / sizeof(events[0]) == NEWS_COUNT, "a row for every event");

const struct qmp_schema commands_schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
