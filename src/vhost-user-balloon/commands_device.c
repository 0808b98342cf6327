// SPDX-License-Identifier: MIT
/* The device: all about it, hinting, inhibitors, and what it tells of by events. */
#include <errno.h>
#include <string.h>

#include "commands_parts.h"
#include "common/clock.h"

static const char *const queue_names[] = {
	[VIRTIO_BALLOON_VQ_INFLATE] = "inflate",     [VIRTIO_BALLOON_VQ_DEFLATE] = "deflate",
	[VIRTIO_BALLOON_VQ_STATS] = "stats",         [VIRTIO_BALLOON_VQ_FREE_PAGE] = "free-page",
	[VIRTIO_BALLOON_VQ_REPORTING] = "reporting", [VIRTIO_BALLOON_VQ_MESSAGE] = "message",
};
static_assert(sizeof(queue_names) / sizeof(queue_names[0]) == VIRTIO_BALLOON_VQ_COUNT,
	      "a name for every queue");

static const char *const hint_states[] = {
	[BALLOON_HINT_IDLE] = "idle",       [BALLOON_HINT_REQUESTED] = "requested",
	[BALLOON_HINT_HINTING] = "hinting", [BALLOON_HINT_FINISHED] = "finished",
	[BALLOON_HINT_DONE] = "done",
};
static_assert(sizeof(hint_states) / sizeof(hint_states[0]) == BALLOON_HINT_COUNT,
	      "a name for every state");

static const char *const pressure_levels[] = {
	[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED] = "unspecified",
	[VIRTIO_BALLOON_PRESSURE_LOW] = "low",
	[VIRTIO_BALLOON_PRESSURE_MEDIUM] = "medium",
	[VIRTIO_BALLOON_PRESSURE_CRITICAL] = "critical",
};
static_assert(sizeof(pressure_levels) / sizeof(pressure_levels[0]) == VIRTIO_BALLOON_PRESSURE_NR,
	      "a name for every level");

const char *commands_hint_state(enum balloon_hint_state state)
{
	return hint_states[state];
}

const char *commands_pressure(const struct balloon_pressure *p)
{
	if (!p->ever)
		return "none";
	return p->type == VIRTIO_BALLOON_MSG_PRESSURE ? pressure_levels[p->level] : "relieved";
}

static struct json_object *feature_list(uint64_t features)
{
	struct json_object *list = json_object_new_array();

	for (const struct feature_name *f = feature_names; f->name; f++) {
		if (features >> f->bit & 1)
			qmp_arr_add(&list, json_object_new_string(f->name));
	}
	return list;
}

static struct json_object *queue_list(const struct balloon *b)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++) {
		const struct vq *vq = balloon_vq(b, (enum virtio_balloon_queue)i);
		struct json_object *queue;

		if (!vq || !vq_started(vq))
			continue;
		queue = json_object_new_object();
		commands_add_u64(&queue, "index", (uint64_t)i);
		commands_add_u64(&queue, "ring", (uint64_t)b->st.ring_of[i]);
		commands_add_str(&queue, "name", queue_names[i]);
		commands_add_u64(&queue, "buffers", b->st.buffers[i]);
		qmp_obj_add(&queue, "broken", json_object_new_boolean(vq->st.error != VQ_OK));
		if (vq->st.error)
			commands_add_str(&queue, "error", vq_error_name(vq->st.error));
		qmp_arr_add(&list, queue);
	}
	return list;
}

static struct json_object *error_counts(const struct balloon_state *st)
{
	struct json_object *errors = json_object_new_object();

	for (int i = 0; i < BALLOON_ERR_COUNT; i++)
		commands_add_u64(&errors, balloon_error_name((enum balloon_error)i), st->errors[i]);
	return errors;
}

static struct json_object *inhibitor_list(const struct settings *settings)
{
	struct json_object *list = json_object_new_array();

	for (uint32_t i = 0; i < settings->n_inhibitors; i++)
		qmp_arr_add(&list, json_object_new_string(settings->inhibitor[i]));
	return list;
}

static struct json_object *message_counts(const struct balloon_pressure *p)
{
	struct json_object *counts = json_object_new_object();

	for (int i = 0; i < VIRTIO_BALLOON_PRESSURE_NR; i++)
		commands_add_u64(&counts, pressure_levels[i], p->messages[i]);
	return counts;
}

/* What the last message said. */
static void add_message(struct json_object **out, const struct balloon_pressure *p)
{
	bool pressure = p->type == VIRTIO_BALLOON_MSG_PRESSURE;

	commands_add_str(out, "type", pressure ? "pressure" : "relieved");
	if (pressure)
		commands_add_str(out, "level", pressure_levels[p->level]);
}

static struct json_object *pressure(const struct balloon_pressure *p, struct instant now)
{
	struct json_object *out = json_object_new_object();

	if (p->ever) {
		add_message(&out, p);
		qmp_obj_add(&out, "last-update",
			    json_object_new_int64(p->arrived.wall_us / 1000000));
		commands_add_u64(&out, "age-ms", instant_age_ms(now, p->arrived));
	}
	qmp_obj_add(&out, "messages", message_counts(p));
	commands_add_u64(&out, "relieved", p->relieved);
	return out;
}

struct json_object *commands_pressure_event(const struct balloon *b)
{
	struct json_object *out = json_object_new_object();

	add_message(&out, &b->st.pressure);
	commands_add_u64(&out, "target", (uint64_t)b->st.num_pages << VIRTIO_BALLOON_PFN_SHIFT);
	commands_add_u64(&out, "actual", balloon_actual_bytes(b, UINT64_MAX));
	commands_add_u64(&out, "held", balloon_held_bytes(b));
	return out;
}

struct json_object *commands_hint(const struct balloon *b)
{
	const struct balloon_hint *hint = &b->st.hint;
	struct json_object *out = json_object_new_object();

	commands_add_str(&out, "status", commands_hint_state(hint->state));
	if (hint->id)
		commands_add_u64(&out, "id", hint->id);
	commands_add_u64(&out, "hinted-bytes", b->hints.count << VIRTIO_BALLOON_PFN_SHIFT);
	return out;
}

struct json_object *commands_restarted(const char *reason, uint64_t restarts)
{
	struct json_object *out = json_object_new_object();

	commands_add_str(&out, "reason", reason);
	commands_add_u64(&out, "restarts", restarts);
	return out;
}

/* What has been counted since the device began. */
static void add_counters(struct json_object **out, const struct server *s)
{
	const struct balloon_state *st = &s->balloon.st;

	commands_add_u64(out, "inflated", st->inflated_pages << VIRTIO_BALLOON_PFN_SHIFT);
	commands_add_u64(out, "deflated", st->deflated_pages << VIRTIO_BALLOON_PFN_SHIFT);
	commands_add_u64(out, "reported", st->reported_bytes);
	commands_add_u64(out, "hinted", st->hinted_bytes);
	commands_add_u64(out, "freed", st->freed_bytes);
	commands_add_u64(out, "kept", st->kept_bytes);
	commands_add_u64(out, "discard-failures", reclaim_failures(&s->frontend.reclaim));
	commands_add_u64(out, "unknown-tags", st->unknown_tags);
	commands_add_u64(out, "unknown-messages", st->pressure.unknown);
	commands_add_u64(out, "worker-restarts", s->control.restarts);
	qmp_obj_add(out, "driver-errors", error_counts(st));
}

enum qmp_outcome command_query_balloon_device(struct qmp_request *req, struct json_object *args,
					      struct json_object **result, struct qmp_error *err)
{
	const struct server *s = commands_server(req);
	const struct balloon *b = &s->balloon;
	const struct balloon_state *st = &b->st;

	(void)args;
	(void)err;
	*result = json_object_new_object();
	if (balloon_driver_active(b))
		commands_add_u64(result, "memory", guest_mem_total(b->mem));
	commands_add_u64(result, "target", (uint64_t)st->num_pages << VIRTIO_BALLOON_PFN_SHIFT);
	commands_add_u64(result, "actual", balloon_actual_bytes(b, UINT64_MAX));
	commands_add_u64(result, "held", balloon_held_bytes(b));
	commands_add_u64(result, "resident", reclaim_resident(&s->frontend.reclaim));
	qmp_obj_add(result, "features-offered", feature_list(st->offered));
	qmp_obj_add(result, "features-negotiated", feature_list(st->negotiated));
	qmp_obj_add(result, "queues", queue_list(b));
	commands_add_u64(result, "stats-push-interval-ms", st->push_interval_ms);
	if (st->negotiated >> VIRTIO_BALLOON_F_PAGE_POISON & 1)
		commands_add_u64(result, "poison-value", st->poison_val);
	qmp_obj_add(result, "inhibitors", inhibitor_list(s->control.settings));
	qmp_obj_add(result, "discarding", json_object_new_boolean(st->sweep.active));
	qmp_obj_add(result, "hint", commands_hint(b));
	qmp_obj_add(result, "pressure", pressure(&st->pressure, clock_now()));
	add_counters(result, s);
	return QMP_DONE;
}

enum qmp_outcome command_free_page_hint(struct qmp_request *req, struct json_object *args,
					struct json_object **result, struct qmp_error *err)
{
	static const char *const actions[] = {
		[BALLOON_HINT_START] = "start",
		[BALLOON_HINT_STOP] = "stop",
		[BALLOON_HINT_FINISH] = "done",
	};
	static_assert(sizeof(actions) / sizeof(actions[0]) == BALLOON_HINT_ACTIONS, "all actions");
	const char *name = json_object_get_string(json_object_object_get(args, "action"));
	int action = BALLOON_HINT_START;

	(void)result;
	/* The schema lets no others through. */
	while (action + 1 < BALLOON_HINT_ACTIONS && strcmp(actions[action], name) != 0)
		action++;
	switch (control_hint(&commands_server(req)->control, (enum balloon_hint_action)action)) {
	case 0:
		return QMP_DONE;
	case -EBUSY:
		qmp_error_set(err, QMP_GENERIC_ERROR, "free page hinting is under way");
		return QMP_FAILED;
	case -ENOTSUP:
		qmp_error_set(err, QMP_GENERIC_ERROR,
			      "the guest's driver has no free page hinting");
		return QMP_FAILED;
	default:
		return commands_no_device(err);
	}
}

enum qmp_outcome command_query_free_page_hint(struct qmp_request *req, struct json_object *args,
					      struct json_object **result, struct qmp_error *err)
{
	const struct server *s = commands_server(req);

	(void)args;
	(void)err;
	*result = commands_hint(&s->balloon);
	if (s->control.hints_path[0])
		commands_add_str(result, "path", s->control.hints_path);
	return QMP_DONE;
}

static enum qmp_outcome inhibit_outcome(int r, const char *reason, struct qmp_error *err)
{
	switch (r) {
	case 0:
		return QMP_DONE;
	case -EINVAL:
		qmp_error_set(err, QMP_GENERIC_ERROR, "Parameter 'reason' is empty");
		break;
	case -ENAMETOOLONG:
		qmp_error_set(err, QMP_GENERIC_ERROR, "Parameter 'reason' is longer than %u bytes",
			      SETTINGS_REASON_MAX - 1);
		break;
	case -ENOSPC:
		qmp_error_set(err, QMP_GENERIC_ERROR, "there are %u inhibitors already",
			      SETTINGS_INHIBITORS_MAX);
		break;
	case -ENOENT:
	default:
		qmp_error_set(err, QMP_GENERIC_ERROR, "there is no inhibitor '%s'", reason);
		break;
	}
	return QMP_FAILED;
}

enum qmp_outcome command_balloon_inhibit(struct qmp_request *req, struct json_object *args,
					 struct json_object **result, struct qmp_error *err)
{
	const char *reason = json_object_get_string(json_object_object_get(args, "reason"));

	(void)result;
	return inhibit_outcome(control_inhibit(&commands_server(req)->control, reason), reason,
			       err);
}

enum qmp_outcome command_balloon_uninhibit(struct qmp_request *req, struct json_object *args,
					   struct json_object **result, struct qmp_error *err)
{
	const char *reason = json_object_get_string(json_object_object_get(args, "reason"));

	(void)result;
	return inhibit_outcome(control_uninhibit(&commands_server(req)->control, reason), reason,
			       err);
}
