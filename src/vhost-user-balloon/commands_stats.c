// SPDX-License-Identifier: MIT
/* Statistics, and what they say about how the guest does. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "commands_parts.h"
#include "common/clock.h"
#include "common/stat_name.h"

struct json_object *commands_stats(const struct balloon_stats *stats, struct instant now)
{
	struct json_object *set = json_object_new_object(), *out = json_object_new_object();

	for (uint32_t i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
		if (stats->set >> i & 1)
			commands_add_u64(&set, stat_name(i), stats->value[i]);
	}
	qmp_obj_add(&out, "stats", set);
	qmp_obj_add(&out, "last-update",
		    json_object_new_int64(stats->ever ? stats->arrived.wall_us / 1000000 : 0));
	if (stats->ever)
		commands_add_u64(&out, "age-ms", instant_age_ms(now, stats->arrived));
	return out;
}

struct json_object *commands_stats_event(const struct balloon_stats *stats, uint64_t guest_bytes,
					 struct instant now)
{
	struct json_object *out = commands_stats(stats, now);

	if (guest_bytes != UINT64_MAX)
		commands_add_u64(&out, "actual", guest_bytes);
	return out;
}

void commands_stats_text(const struct balloon_stats *stats, struct instant now,
			 struct qmp_buf *text)
{
	if (!stats->ever)
		return;
	for (uint32_t i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
		if (stats->set >> i & 1)
			qmp_buf_printf(text, " %s=%" PRIu64, stat_name(i) + strlen("stat-"),
				       stats->value[i]);
	}
	qmp_buf_printf(text, " age=%" PRIu64, instant_age_ms(now, stats->arrived));
}

enum qmp_outcome command_refresh_balloon_stats(struct qmp_request *req, struct json_object *args,
					       struct json_object **result, struct qmp_error *err)
{
	int r = server_request_stats(commands_server(req), NULL);

	(void)args;
	(void)result;
	if (r == 0)
		return QMP_DONE;
	if (r == -ENODEV)
		return commands_no_device(err);
	qmp_error_set(err, QMP_GENERIC_ERROR, "the guest's driver has no statistics");
	return QMP_FAILED;
}

enum qmp_outcome command_set_stats_push_interval(struct qmp_request *req, struct json_object *args,
						 struct json_object **result, struct qmp_error *err)
{
	struct server *s = commands_server(req);
	uint64_t interval = json_object_get_uint64(json_object_object_get(args, "interval-ms"));

	if (interval > UINT32_MAX) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "Parameter 'interval-ms' is too big");
		return QMP_FAILED;
	}
	if (interval && !(s->balloon.st.offered >> VIRTIO_BALLOON_F_STATS_PUSH & 1)) {
		qmp_error_set(err, QMP_GENERIC_ERROR,
			      "stats-push is not offered (--features=stats-push)");
		return QMP_FAILED;
	}
	/* A driver that cannot push does not, which is what 0 asks for. */
	if (control_set_push_interval(&s->control, (uint32_t)interval) < 0 && interval) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "the guest's driver cannot push statistics");
		return QMP_FAILED;
	}
	*result = json_object_new_object();
	commands_add_u64(result, "interval-ms", s->balloon.st.push_interval_ms);
	return QMP_DONE;
}

struct json_object *commands_health(const struct health *h, struct instant now)
{
	struct json_object *out = json_object_new_object();
	uint64_t silence = health_silence_ms(h, now);

	commands_add_str(&out, "status", health_state_name(h->state));
	commands_add_str(&out, "reason", health_reason_name(h->reason));
	commands_add_str(&out, "detail", health_reason_text(h->reason));
	qmp_obj_add(&out, "since", json_object_new_int64(h->since.wall_us / 1000000));
	commands_add_u64(&out, "duration-ms", instant_age_ms(now, h->since));
	commands_add_u64(&out, "gap-ms", health_gap_ms(h, now));
	commands_add_u64(&out, "expected-ms", h->unit_ms);
	if (silence != UINT64_MAX)
		commands_add_u64(&out, "silence-ms", silence);
	commands_add_u64(&out, "changes", h->changes);
	return out;
}

enum qmp_outcome command_query_guest_health(struct qmp_request *req, struct json_object *args,
					    struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = commands_health(&commands_server(req)->control.health, clock_now());
	return QMP_DONE;
}
