// SPDX-License-Identifier: MIT
/*
 * The monitor's schema: commands, events and their types, which is what clients are told, what
 * arguments are checked against and what is dispatched by. The commands that QEMU has too keep its
 * names, arguments, replies and words for errors, so that what was written for QEMU's balloon works
 * here.
 */
#include "commands_parts.h"
#include "qmp/human.h"

static const struct qmp_type run_state = QMP_ENUM("running", "paused", "prelaunch");

static const struct qmp_type status_info = QMP_OBJECT(
	QMP_MEMBER("running", &qmp_bool, "a driver is at work"),
	QMP_MEMBER("status", &run_state, "prelaunch: no VMM; paused: no driver at work"));

static const struct qmp_type balloon_info =
	QMP_OBJECT(QMP_MEMBER("actual", &qmp_size, "bytes of memory that the guest has now"));

#define STAT(name, doc) QMP_OPTIONAL(name, &qmp_size, doc)

static const struct qmp_type stats_set = QMP_OBJECT(
	STAT("stat-swap-in", "bytes swapped in"), STAT("stat-swap-out", "bytes swapped out"),
	STAT("stat-major-faults", "major page faults"),
	STAT("stat-minor-faults", "minor page faults"),
	STAT("stat-free-memory", "bytes not used for anything"),
	STAT("stat-total-memory", "bytes that the guest's kernel has"),
	STAT("stat-available-memory", "bytes to be had without swapping"),
	STAT("stat-disk-caches", "bytes of file caches"),
	STAT("stat-htlb-pgalloc", "huge pages allocated"),
	STAT("stat-htlb-pgfail", "huge page allocations that failed"),
	STAT("stat-oom-kills", "invocations of the OOM killer"),
	STAT("stat-alloc-stalls", "allocations that had to reclaim"),
	STAT("stat-async-scans", "memory scanned in the background"),
	STAT("stat-direct-scans", "memory scanned by allocations"),
	STAT("stat-async-reclaims", "memory reclaimed in the background"),
	STAT("stat-direct-reclaims", "memory reclaimed by allocations"));

static const struct qmp_type stats_event = QMP_OBJECT(
	QMP_MEMBER("stats", &stats_set, "those that the guest has sent; counts since its boot"),
	QMP_MEMBER("last-update", &qmp_int, "seconds since the epoch"),
	QMP_OPTIONAL("age-ms", &qmp_size, "milliseconds since they came"),
	QMP_OPTIONAL("actual", &qmp_size, "bytes that the guest keeps, as in query-balloon"));

static const struct qmp_type names = QMP_ARRAY(&qmp_str);

static const struct qmp_type queue_info =
	QMP_OBJECT(QMP_MEMBER("index", &qmp_int, "number of the queue in the standard"),
		   QMP_MEMBER("ring", &qmp_int, "its number for this driver and VMM"),
		   QMP_MEMBER("name", &qmp_str, "what it is for"),
		   QMP_MEMBER("buffers", &qmp_size, "buffers served"),
		   QMP_MEMBER("broken", &qmp_bool, "the guest broke it; served no more"),
		   QMP_OPTIONAL("error", &qmp_str, "how"));
static const struct qmp_type queue_infos = QMP_ARRAY(&queue_info);

#define COUNT(name, doc) QMP_MEMBER(name, &qmp_size, doc)

static const struct qmp_type driver_errors =
	QMP_OBJECT(COUNT("pfn-out-of-range", "pages that are not in guest memory"),
		   COUNT("inflated-twice", "pages inflated that were held"),
		   COUNT("deflated-not-held", "pages deflated that were not held"),
		   COUNT("duplicate-pfn", "pages named twice at once"),
		   COUNT("partial-entry", "buffers that end in the middle of an entry"),
		   COUNT("second-stats-buffer", "statistics buffers while one was here"),
		   COUNT("stats-too-long", "statistics buffers of absurd length"),
		   COUNT("actual-too-large", "claims of more pages than the guest has"),
		   COUNT("unknown-queue", "kicks on queues that nobody offered"),
		   COUNT("message-too-short", "messages that are none"),
		   COUNT("message-flood", "messages that were made to wait"),
		   COUNT("hint-id", "hints under an id that is not the current one"),
		   COUNT("queue-broken", "queues broken"));

static const struct qmp_type message_type = QMP_ENUM("pressure", "relieved");
static const struct qmp_type pressure_level = QMP_ENUM("unspecified", "low", "medium", "critical");

static const struct qmp_type message_counts =
	QMP_OBJECT(COUNT("unspecified", "those that do not say how short memory is"),
		   COUNT("low", "memory is being reclaimed in the background"),
		   COUNT("medium", "allocations wait for memory"),
		   COUNT("critical", "the guest is about to kill"));

static const struct qmp_type pressure_info =
	QMP_OBJECT(QMP_OPTIONAL("type", &message_type, "of the last message; absent: none came"),
		   QMP_OPTIONAL("level", &pressure_level, "how short memory was"),
		   QMP_OPTIONAL("last-update", &qmp_int, "seconds since the epoch: when it came"),
		   QMP_OPTIONAL("age-ms", &qmp_size, "milliseconds since then"),
		   QMP_MEMBER("messages", &message_counts, "about pressure so far"),
		   COUNT("relieved", "messages that it is over"));

static const struct qmp_type pressure_event = QMP_OBJECT(
	QMP_MEMBER("type", &message_type, "whether it has come or is over"),
	QMP_OPTIONAL("level", &pressure_level, "how short memory is"),
	QMP_MEMBER("target", &qmp_size, "bytes wanted in the balloon now, after what was done"),
	QMP_MEMBER("actual", &qmp_size, "bytes the driver says are in it"),
	QMP_MEMBER("held", &qmp_size, "bytes in it by the device's own count"));

static const struct qmp_type hint_state =
	QMP_ENUM("idle", "requested", "hinting", "finished", "done");

#define HINT_MEMBERS                                                                       \
	QMP_MEMBER("status", &hint_state,                                                  \
		   "finished: all hints are there; done: the guest uses its pages again"), \
		QMP_OPTIONAL("id", &qmp_int, "of the last command"),                       \
		QMP_MEMBER("hinted-bytes", &qmp_size, "bytes that it has found to be free so far")

static const struct qmp_type hint_info = QMP_OBJECT(HINT_MEMBERS);
static const struct qmp_type hint_query = QMP_OBJECT(
	HINT_MEMBERS, QMP_OPTIONAL("path", &qmp_str, "the file with the bitmap of them"));

static const struct qmp_type health_state =
	QMP_ENUM("healthy", "slow", "unresponsive", "paused", "unknown");
static const struct qmp_type health_reason =
	QMP_ENUM("no-driver", "no-statistics", "not-asked", "awaited", "stopped", "on-time",
		 "push-late", "answer-late");

static const struct qmp_type health_info = QMP_OBJECT(
	QMP_MEMBER("status", &health_state, "the verdict"),
	QMP_MEMBER("reason", &health_reason, "why"), QMP_MEMBER("detail", &qmp_str, "for people"),
	QMP_MEMBER("since", &qmp_int, "seconds since the epoch: when it became so"),
	QMP_MEMBER("duration-ms", &qmp_size, "milliseconds since then"),
	QMP_MEMBER("gap-ms", &qmp_size,
		   "running time for which what is due has not come; 0: nothing is due"),
	QMP_MEMBER("expected-ms", &qmp_size, "what it is measured by"),
	QMP_OPTIONAL("silence-ms", &qmp_size, "running time since statistics came"),
	QMP_MEMBER("changes", &qmp_size, "times that the verdict has changed"));

static const struct qmp_type push_interval = QMP_OBJECT(
	QMP_MEMBER("interval-ms", &qmp_size, "what was taken: 10 for what is less; 0: none"));

static const struct qmp_type device_info = QMP_OBJECT(
	QMP_MEMBER("target", &qmp_size, "bytes the host wants in the balloon"),
	QMP_MEMBER("actual", &qmp_size, "bytes the driver says are in it"),
	QMP_MEMBER("held", &qmp_size, "bytes in it by the device's own count"),
	QMP_MEMBER("resident", &qmp_size, "bytes of host memory behind the guest's now"),
	QMP_OPTIONAL(
		"memory", &qmp_size,
		"bytes of the guest's memory, the balloon included; absent: no driver is at work"),
	QMP_MEMBER("features-offered", &names, "what the driver may choose from"),
	QMP_MEMBER("features-negotiated", &names, "what it has chosen"),
	QMP_MEMBER("queues", &queue_infos, "the queues that are served now"),
	QMP_MEMBER("stats-push-interval-ms", &qmp_size, "statistics come so often; 0: on request"),
	QMP_OPTIONAL("poison-value", &qmp_size, "what the guest fills free pages with"),
	QMP_MEMBER("inhibitors", &names, "why nothing is discarded"),
	QMP_MEMBER("discarding", &qmp_bool, "what was kept by inhibitors is being discarded"),
	QMP_MEMBER("hint", &hint_info, "free page hinting"),
	QMP_MEMBER("pressure", &pressure_info, "messages about memory pressure"),
	COUNT("inflated", "bytes put into the balloon so far"),
	COUNT("deflated", "bytes taken out of it"), COUNT("reported", "bytes reported as free"),
	COUNT("hinted", "bytes hinted to be free"),
	COUNT("freed", "bytes that the host really got back"),
	COUNT("kept", "bytes that it did not, because of poison or an inhibitor"),
	COUNT("discard-failures", "times the host's kernel refused to free memory"),
	COUNT("unknown-tags", "statistics with a tag that is not known"),
	COUNT("unknown-messages", "messages of a type that is not known"),
	COUNT("worker-restarts", "times this device's process was replaced"),
	QMP_MEMBER("driver-errors", &driver_errors, "what the driver did wrong, by reason"));

static const struct qmp_type hint_action = QMP_ENUM("start", "stop", "done");

static const struct qmp_command commands[] = {
	{.name = "query-status",
	 .returns = &status_info,
	 .handler = command_query_status,
	 .doc = "Is a guest at work?"},
	{.name = "balloon",
	 .args = QMP_ARGS(QMP_MEMBER("value", &qmp_int, "bytes of memory the guest shall keep")),
	 .handler = command_balloon,
	 .doc = "Take memory from the guest, or give it back. Kept until a driver is at work."},
	{.name = "query-balloon",
	 .returns = &balloon_info,
	 .handler = command_query_balloon,
	 .doc = "How much memory the guest has."},
	{.name = "qom-get",
	 .args = QMP_ARGS(QMP_MEMBER("path", &qmp_str, BALLOON_PATH),
			  QMP_MEMBER("property", &qmp_str,
				     "guest-stats or guest-stats-polling-interval (seconds)")),
	 .returns = &qmp_any,
	 .handler = command_qom_get,
	 .doc = "Read a property of the balloon."},
	{.name = "qom-set",
	 .args = QMP_ARGS(QMP_MEMBER("path", &qmp_str, BALLOON_PATH),
			  QMP_MEMBER("property", &qmp_str,
				     "guest-stats-polling-interval (seconds, 0: none)"),
			  QMP_MEMBER("value", &qmp_any, "what it shall be")),
	 .handler = command_qom_set,
	 .doc = "Set a property of the balloon."},
	{.name = "human-monitor-command",
	 .args = &qmp_human_args,
	 .returns = &qmp_str,
	 .handler = command_human_monitor_command,
	 .doc = "Run a command of the human monitor: info balloon, info health, balloon N, help."},
	{.name = "quit", .handler = command_quit, .doc = "End this program."},
	{.name = "query-balloon-device",
	 .returns = &device_info,
	 .handler = command_query_balloon_device,
	 .doc = "All about the device."},
	{.name = "refresh-balloon-stats",
	 .handler = command_refresh_balloon_stats,
	 .doc = "Ask the guest for statistics; the event BALLOON brings them."},
	{.name = "set-stats-push-interval",
	 .args = QMP_ARGS(QMP_MEMBER("interval-ms", &qmp_size,
				     "milliseconds, at least 10; 0: only on request")),
	 .returns = &push_interval,
	 .handler = command_set_stats_push_interval,
	 .doc = "Have the guest send statistics by itself. Kept for the next driver too."},
	{.name = "query-guest-health",
	 .returns = &health_info,
	 .handler = command_query_guest_health,
	 .doc = "How the guest does, judged by its statistics."},
	{.name = "free-page-hint",
	 .args = QMP_ARGS(QMP_MEMBER("action", &hint_action,
				     "start: mark what is free from now on; stop: no more; done: "
				     "the guest may use its pages again")),
	 .handler = command_free_page_hint,
	 .doc = "Have the guest hint which pages are free, for a migration or a snapshot."},
	{.name = "query-free-page-hint",
	 .returns = &hint_query,
	 .handler = command_query_free_page_hint,
	 .doc = "Where free page hinting stands, and where its result is."},
	{.name = "balloon-inhibit",
	 .args = QMP_ARGS(QMP_MEMBER("reason", &qmp_str, "a name for it; once, however often")),
	 .handler = command_balloon_inhibit,
	 .doc = "Give nothing back to the host while somebody else holds on to guest memory."},
	{.name = "balloon-uninhibit",
	 .args = QMP_ARGS(QMP_MEMBER("reason", &qmp_str, "as it was given")),
	 .handler = command_balloon_uninhibit,
	 .doc = "That is over. After the last one, what the balloon holds is given back."},
};

static const struct qmp_event events[] = {
	[EVENT_BALLOON_CHANGE] = {.name = "BALLOON_CHANGE",
				  .data = &balloon_info,
				  .doc = "The guest's memory has changed; at most once a second."},
	[EVENT_BALLOON] = {.name = "BALLOON",
			   .data = &stats_event,
			   .doc = "Fresh statistics have come."},
	[EVENT_VMM_CONNECTED] = {.name = "VMM_CONNECTED", .doc = "A VMM has connected."},
	[EVENT_VMM_DISCONNECTED] = {.name = "VMM_DISCONNECTED",
				    .data = QMP_ARGS(QMP_MEMBER("reason", &qmp_str, "for people")),
				    .doc = "The VMM is gone; all it shared is let go."},
	[EVENT_GUEST_PRESSURE] = {.name = "GUEST_PRESSURE",
				  .data = &pressure_event,
				  .doc = "The guest has said that memory is short, or is no more."},
	[EVENT_GUEST_HEALTH_CHANGE] = {.name = "GUEST_HEALTH_CHANGE",
				       .data = &health_info,
				       .doc = "The verdict on the guest has changed."},
	[EVENT_FREE_PAGE_HINT] = {.name = "FREE_PAGE_HINT",
				  .data = &hint_info,
				  .doc = "Free page hinting has begun, or all hints are there."},
	[EVENT_DEVICE_RESTARTED] = {.name = "DEVICE_RESTARTED",
				    .data = QMP_ARGS(QMP_MEMBER("reason", &qmp_str, "for people"),
						     QMP_MEMBER("restarts", &qmp_size, "so far")),
				    .doc = "Another process goes on with the device. Commands that "
					   "were not answered are lost."},
};
static_assert(sizeof(events) / sizeof(events[0]) == EVENT_COUNT, "a row for every event");

const struct qmp_schema monitor_schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
