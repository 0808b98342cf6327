/* SPDX-License-Identifier: MIT */
/* What the monitor understands, and what it tells. */
#ifndef VUB_COMMANDS_H
#define VUB_COMMANDS_H

#include "balloon/balloon.h"
#include "base/instant.h"
#include "policy/health.h"
#include "qmp/schema.h"

/* Index in the schema's event table. */
enum monitor_event {
	EVENT_BALLOON_CHANGE,
	EVENT_BALLOON,
	EVENT_VMM_CONNECTED,
	EVENT_VMM_DISCONNECTED,
	EVENT_GUEST_PRESSURE,
	EVENT_GUEST_HEALTH_CHANGE,
	EVENT_FREE_PAGE_HINT,
	EVENT_DEVICE_RESTARTED,
	EVENT_COUNT,
};

/* Handlers find their struct server as the request's opaque. */
extern const struct qmp_schema monitor_schema;

/* The data of guest-stats. */
struct json_object *commands_stats(const struct balloon_stats *stats, struct instant now);

/* The data of BALLOON: the same, and what the guest keeps; UINT64_MAX: nobody knows. */
struct json_object *commands_stats_event(const struct balloon_stats *stats, uint64_t guest_bytes,
					 struct instant now);

/* The data of GUEST_PRESSURE, GUEST_HEALTH_CHANGE, FREE_PAGE_HINT and DEVICE_RESTARTED. */
struct json_object *commands_pressure_event(const struct balloon *b);
struct json_object *commands_health(const struct health *h, struct instant now);
struct json_object *commands_hint(const struct balloon *b);
struct json_object *commands_restarted(const char *reason, uint64_t restarts);

/* The statistics as `info balloon` shows them, behind what stands in text already. */
void commands_stats_text(const struct balloon_stats *stats, struct instant now,
			 struct qmp_buf *text);

#endif
