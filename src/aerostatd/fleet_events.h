/* SPDX-License-Identifier: MIT */
/* What the fleet tells: one table of events, each with its data and a sentence. */
#ifndef AEROSTATD_FLEET_EVENTS_H
#define AEROSTATD_FLEET_EVENTS_H

#include "fleet.h"

/* In the order of the control monitor's table of events. */
enum news_kind {
	NEWS_VM_APPEARED,
	NEWS_VM_GONE,
	NEWS_TARGET_SET,
	NEWS_VERDICT_CHANGE,
	NEWS_HEALTH_CHANGE,
	NEWS_PROGRESS_CHANGE,
	NEWS_TARGET_REFUSED,
	NEWS_PRESSURE,
	NEWS_RESERVATION_CHANGE,
	NEWS_SCARCITY,
	NEWS_COUNT,
};

extern const char *const news_names[NEWS_COUNT];

/* Of one VM, so many in that time; what is beyond is counted, and left out. */
#define NEWS_INTERVAL_MS 10000
#define NEWS_BURST       100

/* Of all VMs. */
#define NEWS_OF_ALL UINT32_MAX

/*
 * Tells one: to the log, to who asks later, and to the control monitor's clients. data: what the
 * event has beside the VM's name, taken over; NULL: nothing.
 */
__attribute__((format(printf, 5, 6))) void fleet_tell(struct fleet *f, enum news_kind kind,
						      uint32_t slot, struct json_object *data,
						      const char *fmt, ...);

void fleet_tell_manager_event(struct fleet *f, const struct manager_event *event);

void fleet_tell_pressure(struct fleet *f, uint32_t slot, bool relieved, uint32_t level);

/* "low", and "unspecified" also for levels that nobody knows. */
const char *pressure_name(uint32_t level);

#endif
