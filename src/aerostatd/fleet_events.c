// SPDX-License-Identifier: MIT
#include "fleet_events.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "policy/explain.h"
#include "qmp/json.h"
#include "report.h"

const char *const news_names[NEWS_COUNT] = {
	[NEWS_VM_APPEARED] = "VM_APPEARED",
	[NEWS_VM_GONE] = "VM_GONE",
	[NEWS_TARGET_SET] = "TARGET_SET",
	[NEWS_VERDICT_CHANGE] = "VERDICT_CHANGE",
	[NEWS_HEALTH_CHANGE] = "HEALTH_CHANGE",
	[NEWS_PROGRESS_CHANGE] = "PROGRESS_CHANGE",
	[NEWS_TARGET_REFUSED] = "TARGET_REFUSED",
	[NEWS_PRESSURE] = "PRESSURE",
	[NEWS_RESERVATION_CHANGE] = "RESERVATION_CHANGE",
	[NEWS_SCARCITY] = "SCARCITY",
};

const char *pressure_name(uint32_t level)
{
	static const char *const names[VIRTIO_BALLOON_PRESSURE_NR] = {
		[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED] = "unspecified",
		[VIRTIO_BALLOON_PRESSURE_LOW] = "low",
		[VIRTIO_BALLOON_PRESSURE_MEDIUM] = "medium",
		[VIRTIO_BALLOON_PRESSURE_CRITICAL] = "critical",
	};

	return level < VIRTIO_BALLOON_PRESSURE_NR ? names[level] : names[0];
}

/* No more than so many events of one VM: what it tells is not always true, and never urgent for
 * people. What is acted on has been acted on before. */
static bool may_tell(struct fleet *f, uint32_t slot, struct instant now)
{
	struct ratelimit *limit;
	uint64_t left_out;

	if (slot == NEWS_OF_ALL)
		return true;
	limit = &f->vms[slot].news;
	limit->interval_ms = NEWS_INTERVAL_MS;
	limit->burst = NEWS_BURST;
	if (!ratelimit_pass(limit, now.mono_ms, &left_out))
		return false;
	if (left_out)
		log_line("%s: %" PRIu64 " events of it were left out", f->vms[slot].name, left_out);
	return true;
}

void fleet_tell(struct fleet *f, enum news_kind kind, uint32_t slot, struct json_object *data,
		const char *fmt, ...)
{
	struct instant now = clock_now();
	char text[2 * EXPLAIN_ROOM];
	va_list ap;

	if (!may_tell(f, slot, now)) {
		json_object_put(data);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!data)
		data = json_object_new_object();
	if (slot != NEWS_OF_ALL)
		qmp_obj_add(&data, "name", json_object_new_string(f->vms[slot].name));
	log_line("%s", text);
	news_add(&f->news, news_names[kind], text, data, now);
	f->ops->news(f->opaque, news_item(&f->news, f->news.last));
}

static void tell_decision(struct fleet *f, uint32_t slot, const struct decision *d)
{
	const char *name = f->vms[slot].name;
	char text[EXPLAIN_ROOM];

	f->counts.decisions[d->action][d->reason]++;
	explain_decision(d, name, text, sizeof(text));
	fleet_tell(f, NEWS_TARGET_SET, slot, report_decision(d, name, clock_now()), "%s%s",
		   f->config.dry_run ? "would have: " : "", text);
}

static void tell_verdict(struct fleet *f, uint32_t slot, const struct judgement *j)
{
	const char *name = f->vms[slot].name;
	char text[EXPLAIN_ROOM];

	explain_judgement(j, name, text, sizeof(text));
	fleet_tell(f, NEWS_VERDICT_CHANGE, slot, report_judgement(j, name), "%s", text);
}

static struct json_object *one_word(const char *key, const char *word)
{
	struct json_object *data = json_object_new_object();

	qmp_obj_add(&data, key, json_object_new_string(word));
	return data;
}

static void tell_reservation(struct fleet *f, const struct manager_event *event)
{
	static const char *const words[] = {
		[RESERVE_NOTHING] = "unchanged",
		[RESERVE_IS_GRANTED] = "granted",
		[RESERVE_HAS_FAILED] = "failed",
		[RESERVE_HAS_EXPIRED] = "expired",
	};
	const struct reservation *r = event->reservation;
	struct json_object *data = one_word("change", words[event->change]);
	char size[32];

	qmp_obj_add(&data, "id", json_object_new_uint64(r->id));
	qmp_obj_add(&data, "bytes", json_object_new_uint64(r->bytes));
	explain_bytes(r->bytes, size, sizeof(size));
	fleet_tell(f, NEWS_RESERVATION_CHANGE, NEWS_OF_ALL, data,
		   "reservation %" PRIu64 " of %s: %s", r->id, size, words[event->change]);
	f->ops->reserved(f->opaque, r->id, event->change);
}

void fleet_tell_manager_event(struct fleet *f, const struct manager_event *event)
{
	uint32_t slot = event->slot;
	const char *name = slot < f->used ? f->vms[slot].name : "";
	struct json_object *data;

	switch (event->kind) {
	case MANAGER_EVENT_DECISION:
		tell_decision(f, slot, event->decision);
		break;
	case MANAGER_EVENT_VERDICT:
		tell_verdict(f, slot, event->judgement);
		break;
	case MANAGER_EVENT_HEALTH:
		fleet_tell(f, NEWS_HEALTH_CHANGE, slot,
			   one_word("health", health_state_name(event->health)), "%s: %s", name,
			   health_state_name(event->health));
		break;
	case MANAGER_EVENT_PROGRESS:
		fleet_tell(f, NEWS_PROGRESS_CHANGE, slot,
			   one_word("progress", progress_name(event->progress)), "%s: %s", name,
			   progress_name(event->progress));
		break;
	case MANAGER_EVENT_REFUSED:
		fleet_tell(f, NEWS_TARGET_REFUSED, slot, NULL, "%s: its monitor refused the target",
			   name);
		break;
	case MANAGER_EVENT_RESERVATION:
		tell_reservation(f, event);
		break;
	case MANAGER_EVENT_SCARCE:
	default:
		data = json_object_new_object();
		qmp_obj_add(&data, "on", json_object_new_boolean(event->on));
		fleet_tell(f, NEWS_SCARCITY, NEWS_OF_ALL, data,
			   event->on ? "what the VMs need does not fit"
				     : "what the VMs need fits again");
		break;
	}
}

void fleet_tell_pressure(struct fleet *f, uint32_t slot, bool relieved, uint32_t level)
{
	const char *word = relieved ? "relieved" : pressure_name(level);

	fleet_tell(f, NEWS_PRESSURE, slot, one_word("level", word),
		   relieved ? "%s: memory pressure is over%s" : "%s: memory pressure, %s",
		   f->vms[slot].name, relieved ? "" : word);
}
