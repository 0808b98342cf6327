/* SPDX-License-Identifier: MIT */
/* What the monitor understands, and what it tells. */
#ifndef VUB_COMMANDS_H
#define VUB_COMMANDS_H

#include "balloon/balloon.h"
#include "base/instant.h"
#include "qmp/schema.h"

/* Index in the schema's event table. */
enum monitor_event {
	EVENT_BALLOON_CHANGE,
	EVENT_BALLOON,
	EVENT_VMM_CONNECTED,
	EVENT_VMM_DISCONNECTED,
	EVENT_COUNT,
};

/* Handlers find their struct server as the request's opaque. */
extern const struct qmp_schema monitor_schema;

/* The data of guest-stats and of the event BALLOON. */
struct json_object *commands_stats(const struct balloon_stats *stats, struct instant now);

/* The statistics as `info balloon` shows them, behind what stands in text already. */
void commands_stats_text(const struct balloon_stats *stats, struct instant now,
			 struct qmp_buf *text);

#endif
