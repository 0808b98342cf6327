// SPDX-License-Identifier: MIT
/*
 * The monitor's commands. Those that QEMU has too keep its names, arguments, replies and words for
 * errors, so that what was written for QEMU's balloon works here.
 */
#include "commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "qmp/human.h"
#include "qmp/json.h"
#include "server.h"

#define BALLOON_PATH "/machine/peripheral/balloon0"
#define MIB          (1024 * 1024)

static const char *const stat_names[] = {
	[VIRTIO_BALLOON_S_SWAP_IN] = "stat-swap-in",
	[VIRTIO_BALLOON_S_SWAP_OUT] = "stat-swap-out",
	[VIRTIO_BALLOON_S_MAJFLT] = "stat-major-faults",
	[VIRTIO_BALLOON_S_MINFLT] = "stat-minor-faults",
	[VIRTIO_BALLOON_S_MEMFREE] = "stat-free-memory",
	[VIRTIO_BALLOON_S_MEMTOT] = "stat-total-memory",
	[VIRTIO_BALLOON_S_AVAIL] = "stat-available-memory",
	[VIRTIO_BALLOON_S_CACHES] = "stat-disk-caches",
	[VIRTIO_BALLOON_S_HTLB_PGALLOC] = "stat-htlb-pgalloc",
	[VIRTIO_BALLOON_S_HTLB_PGFAIL] = "stat-htlb-pgfail",
	[VIRTIO_BALLOON_S_OOM_KILL] = "stat-oom-kills",
	[VIRTIO_BALLOON_S_ALLOC_STALL] = "stat-alloc-stalls",
	[VIRTIO_BALLOON_S_SCAN_ASYNC] = "stat-async-scans",
	[VIRTIO_BALLOON_S_SCAN_DIRECT] = "stat-direct-scans",
	[VIRTIO_BALLOON_S_RECLAIM_ASYNC] = "stat-async-reclaims",
	[VIRTIO_BALLOON_S_RECLAIM_DIRECT] = "stat-direct-reclaims",
};
static_assert(sizeof(stat_names) / sizeof(stat_names[0]) == VIRTIO_BALLOON_S_NR,
	      "a name for every statistic");

static const char *const queue_names[] = {
	[VIRTIO_BALLOON_VQ_INFLATE] = "inflate",     [VIRTIO_BALLOON_VQ_DEFLATE] = "deflate",
	[VIRTIO_BALLOON_VQ_STATS] = "stats",         [VIRTIO_BALLOON_VQ_FREE_PAGE] = "free-page",
	[VIRTIO_BALLOON_VQ_REPORTING] = "reporting", [VIRTIO_BALLOON_VQ_MESSAGE] = "message",
};
static_assert(sizeof(queue_names) / sizeof(queue_names[0]) == VIRTIO_BALLOON_VQ_COUNT,
	      "a name for every queue");

static struct server *server_of(const struct qmp_request *req)
{
	return qmp_request_opaque(req);
}

static enum qmp_outcome no_device(struct qmp_error *err)
{
	qmp_error_set(err, QMP_DEVICE_NOT_ACTIVE, "No balloon device has been activated");
	return QMP_FAILED;
}

static void add_u64(struct json_object **obj, const char *key, uint64_t value)
{
	qmp_obj_add(obj, key, json_object_new_uint64(value));
}

/* --- statistics ---------------------------------------------------------------------------- */

struct json_object *commands_stats(const struct balloon_stats *stats, struct instant now)
{
	struct json_object *set = json_object_new_object(), *out = json_object_new_object();

	for (uint32_t i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
		if (stats->set >> i & 1)
			add_u64(&set, stat_names[i], stats->value[i]);
	}
	qmp_obj_add(&out, "stats", set);
	qmp_obj_add(&out, "last-update",
		    json_object_new_int64(stats->ever ? stats->arrived.wall_us / 1000000 : 0));
	if (stats->ever)
		add_u64(&out, "age-ms", instant_age_ms(now, stats->arrived));
	return out;
}

void commands_stats_text(const struct balloon_stats *stats, struct instant now,
			 struct qmp_buf *text)
{
	if (!stats->ever)
		return;
	for (uint32_t i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
		if (stats->set >> i & 1)
			qmp_buf_printf(text, " %s=%" PRIu64, stat_names[i] + strlen("stat-"),
				       stats->value[i]);
	}
	qmp_buf_printf(text, " age=%" PRIu64, instant_age_ms(now, stats->arrived));
}

/* --- QEMU's commands ------------------------------------------------------------------------ */

static enum qmp_outcome query_status(struct qmp_request *req, struct json_object *args,
				     struct json_object **result, struct qmp_error *err)
{
	const struct server *s = server_of(req);
	bool running = balloon_driver_active(&s->balloon);
	const char *status = running                            ? "running"
			     : frontend_connected(&s->frontend) ? "paused"
								: "prelaunch";

	(void)args;
	(void)err;
	*result = json_object_new_object();
	qmp_obj_add(result, "running", json_object_new_boolean(running));
	qmp_obj_add(result, "status", json_object_new_string(status));
	return QMP_DONE;
}

static enum qmp_outcome balloon(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	int64_t value = json_object_get_int64(json_object_object_get(args, "value"));

	(void)result;
	if (value <= 0) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "Parameter 'target' expects a size");
		return QMP_FAILED;
	}
	server_set_guest_size(server_of(req), (uint64_t)value);
	return QMP_DONE;
}

static enum qmp_outcome query_balloon(struct qmp_request *req, struct json_object *args,
				      struct json_object **result, struct qmp_error *err)
{
	uint64_t bytes;

	(void)args;
	if (server_guest_size(server_of(req), &bytes) < 0)
		return no_device(err);
	*result = json_object_new_object();
	add_u64(result, "actual", bytes);
	return QMP_DONE;
}

static enum qmp_outcome check_path(struct json_object *args, struct qmp_error *err)
{
	const char *path = json_object_get_string(json_object_object_get(args, "path"));

	if (strcmp(path, BALLOON_PATH) == 0)
		return QMP_DONE;
	qmp_error_set(err, QMP_DEVICE_NOT_FOUND, "Device '%s' not found", path);
	return QMP_FAILED;
}

static enum qmp_outcome no_property(const char *property, const char *what, struct qmp_error *err)
{
	qmp_error_set(err, QMP_GENERIC_ERROR, "Property 'vhost-user-balloon.%s' %s", property,
		      what);
	return QMP_FAILED;
}

static const char prop_stats[] = "guest-stats";
static const char prop_interval[] = "guest-stats-polling-interval";

static enum qmp_outcome qom_get(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	const struct balloon_state *st = &server_of(req)->balloon.st;
	const char *property = json_object_get_string(json_object_object_get(args, "property"));

	if (check_path(args, err) != QMP_DONE)
		return QMP_FAILED;
	if (strcmp(property, prop_stats) == 0)
		*result = commands_stats(&st->stats, clock_now());
	else if (strcmp(property, prop_interval) == 0)
		*result = json_object_new_uint64(st->poll_interval_ms / 1000);
	else
		return no_property(property, "not found", err);
	return QMP_DONE;
}

static enum qmp_outcome qom_set(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	const char *property = json_object_get_string(json_object_object_get(args, "property"));
	struct json_object *value = json_object_object_get(args, "value");
	int64_t seconds;

	(void)result;
	if (check_path(args, err) != QMP_DONE)
		return QMP_FAILED;
	if (strcmp(property, prop_stats) == 0)
		return no_property(property, "is not writable", err);
	if (strcmp(property, prop_interval) != 0)
		return no_property(property, "not found", err);
	if (qmp_type_check(&qmp_int, value, prop_interval, err) < 0)
		return QMP_FAILED;
	seconds = json_object_get_int64(value);
	if (seconds < 0 || seconds > UINT32_MAX) {
		qmp_error_set(err, QMP_GENERIC_ERROR,
			      seconds < 0 ? "timer value must be greater than zero"
					  : "timer value is too big");
		return QMP_FAILED;
	}
	server_set_poll_interval(server_of(req), (uint64_t)seconds * 1000);
	return QMP_DONE;
}

static enum qmp_outcome quit(struct qmp_request *req, struct json_object *args,
			     struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)result;
	(void)err;
	server_quit(server_of(req));
	return QMP_DONE;
}

/* --- our own commands ------------------------------------------------------------------------ */

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

	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++) {
		const struct vq *vq = b->vq[i];
		struct json_object *queue;

		if (!vq_started(vq))
			continue;
		queue = json_object_new_object();
		add_u64(&queue, "index", i);
		qmp_obj_add(&queue, "name", json_object_new_string(queue_names[i]));
		add_u64(&queue, "buffers", b->st.buffers[i]);
		qmp_obj_add(&queue, "broken", json_object_new_boolean(vq->st.error != VQ_OK));
		if (vq->st.error)
			qmp_obj_add(&queue, "error",
				    json_object_new_string(vq_error_name(vq->st.error)));
		qmp_arr_add(&list, queue);
	}
	return list;
}

static enum qmp_outcome query_balloon_device(struct qmp_request *req, struct json_object *args,
					     struct json_object **result, struct qmp_error *err)
{
	const struct server *s = server_of(req);
	const struct balloon *b = &s->balloon;
	const struct balloon_state *st = &b->st;
	struct json_object *errors = json_object_new_object();

	(void)args;
	(void)err;
	for (int i = 0; i < BALLOON_ERR_COUNT; i++)
		add_u64(&errors, balloon_error_name((enum balloon_error)i), st->errors[i]);

	*result = json_object_new_object();
	add_u64(result, "target", (uint64_t)st->num_pages << VIRTIO_BALLOON_PFN_SHIFT);
	add_u64(result, "actual", balloon_actual_bytes(b, UINT64_MAX));
	add_u64(result, "held", balloon_held_bytes(b));
	add_u64(result, "resident", reclaim_resident(&s->frontend.reclaim));
	add_u64(result, "freed", st->freed_bytes);
	qmp_obj_add(result, "features-offered", feature_list(st->offered));
	qmp_obj_add(result, "features-negotiated", feature_list(st->negotiated));
	qmp_obj_add(result, "queues", queue_list(b));
	qmp_obj_add(result, "driver-errors", errors);
	add_u64(result, "unknown-tags", st->unknown_tags);
	add_u64(result, "discard-failures", reclaim_failures(&s->frontend.reclaim));
	return QMP_DONE;
}

static enum qmp_outcome stats_refused(int r, struct qmp_error *err)
{
	if (r == -ENODEV)
		return no_device(err);
	qmp_error_set(err, QMP_GENERIC_ERROR, "the guest's driver has no statistics");
	return QMP_FAILED;
}

static enum qmp_outcome refresh_balloon_stats(struct qmp_request *req, struct json_object *args,
					      struct json_object **result, struct qmp_error *err)
{
	int r = server_request_stats(server_of(req), NULL);

	(void)args;
	(void)result;
	return r < 0 ? stats_refused(r, err) : QMP_DONE;
}

/* --- the human monitor -------------------------------------------------------------------------
 */

/* `info balloon`, while it waits. */
struct info_waiter {
	struct stats_waiter waiter; /* first member */
	struct server *server;
	struct qmp_request *req;
};

static void info_text(const struct server *s, const char *remark, struct qmp_buf *text)
{
	uint64_t bytes;

	if (server_guest_size(s, &bytes) < 0) {
		qmp_buf_printf(text, "balloon: no driver\n");
		return;
	}
	qmp_buf_printf(text, "balloon: actual=%" PRIu64, bytes / MIB);
	commands_stats_text(&s->balloon.st.stats, clock_now(), text);
	qmp_buf_printf(text, "%s\n", remark);
}

static void info_done(struct stats_waiter *w, bool fresh)
{
	struct info_waiter *info = (struct info_waiter *)w;
	const struct server *s = info->server;
	struct qmp_buf text = {0};

	info_text(s,
		  fresh                      ? ""
		  : s->balloon.st.stats.ever ? " (stale: the guest does not answer)"
					     : " (the guest does not answer)",
		  &text);
	monitor_complete(&info->server->monitor, info->req,
			 text.failed ? NULL : json_object_new_string_len(text.data, (int)text.len),
			 NULL);
	qmp_buf_free(&text);
	free(info);
}

static enum qmp_outcome human_info_balloon(struct qmp_request *req, size_t argc, char *const *argv,
					   struct qmp_buf *text, struct qmp_error *err)
{
	struct info_waiter *info = calloc(1, sizeof(*info));
	int r;

	(void)argc;
	(void)argv;
	if (!info) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "out of memory");
		return QMP_FAILED;
	}
	info->server = server_of(req);
	info->req = req;
	info->waiter.done = info_done;
	r = server_request_stats(info->server, &info->waiter);
	if (r == 0)
		return QMP_DEFERRED;
	info_text(info->server, r == -ENOTSUP ? " (statistics off)" : "", text);
	free(info);
	return QMP_DONE;
}

static enum qmp_outcome human_balloon(struct qmp_request *req, size_t argc, char *const *argv,
				      struct qmp_buf *text, struct qmp_error *err)
{
	char *end;
	long long mib;

	(void)argc;
	(void)text;
	errno = 0;
	mib = strtoll(argv[0], &end, 10);
	if (errno || *end || end == argv[0] || mib <= 0 || mib > INT64_MAX / MIB) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "'%s' is no number of MiB", argv[0]);
		return QMP_FAILED;
	}
	server_set_guest_size(server_of(req), (uint64_t)mib * MIB);
	return QMP_DONE;
}

static const struct qmp_human_command human_info[] = {
	{.name = "balloon",
	 .args = "",
	 .help = "memory the guest has (MiB) and its statistics, asked for at once (at most 5 s)",
	 .handler = human_info_balloon},
};

static const struct qmp_human_command human_commands[] = {
	{.name = "balloon",
	 .args = "target",
	 .help = "leave the guest so much memory (MiB)",
	 .min_args = 1,
	 .max_args = 1,
	 .handler = human_balloon},
	{.name = "info",
	 .args = "subcommand",
	 .help = "show state",
	 .sub = human_info,
	 .n_sub = sizeof(human_info) / sizeof(human_info[0])},
};

static enum qmp_outcome human_monitor_command(struct qmp_request *req, struct json_object *args,
					      struct json_object **result, struct qmp_error *err)
{
	return qmp_human_run(human_commands, sizeof(human_commands) / sizeof(human_commands[0]),
			     req, args, result, err);
}

/* --- the schema ----------------------------------------------------------------------------------
 */

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

static const struct qmp_type guest_stats = QMP_OBJECT(
	QMP_MEMBER("stats", &stats_set, "those that the guest has sent; counts since its boot"),
	QMP_MEMBER("last-update", &qmp_int, "seconds since the epoch; 0: never"),
	QMP_OPTIONAL("age-ms", &qmp_size, "milliseconds since they came"));

static const struct qmp_type names = QMP_ARRAY(&qmp_str);

static const struct qmp_type queue_info =
	QMP_OBJECT(QMP_MEMBER("index", &qmp_int, "number of the queue"),
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
		   COUNT("queue-broken", "queues broken"));

static const struct qmp_type device_info = QMP_OBJECT(
	QMP_MEMBER("target", &qmp_size, "bytes the host wants in the balloon"),
	QMP_MEMBER("actual", &qmp_size, "bytes the driver says are in it"),
	QMP_MEMBER("held", &qmp_size, "bytes in it by the device's own count"),
	QMP_MEMBER("resident", &qmp_size, "bytes of host memory behind the guest's now"),
	QMP_MEMBER("freed", &qmp_size, "bytes that the host really got back so far"),
	QMP_MEMBER("features-offered", &names, "what the driver may choose from"),
	QMP_MEMBER("features-negotiated", &names, "what it has chosen"),
	QMP_MEMBER("queues", &queue_infos, "the queues that are served now"),
	QMP_MEMBER("driver-errors", &driver_errors, "what the driver did wrong, by reason"),
	QMP_MEMBER("unknown-tags", &qmp_size, "statistics with a tag that is not known"),
	QMP_MEMBER("discard-failures", &qmp_size,
		   "times the host's kernel refused to free memory"));

static const struct qmp_command commands[] = {
	{.name = "query-status",
	 .returns = &status_info,
	 .handler = query_status,
	 .doc = "Is a guest at work?"},
	{.name = "balloon",
	 .args = QMP_ARGS(QMP_MEMBER("value", &qmp_int, "bytes of memory the guest shall keep")),
	 .handler = balloon,
	 .doc = "Take memory from the guest, or give it back. Kept until a driver is at work."},
	{.name = "query-balloon",
	 .returns = &balloon_info,
	 .handler = query_balloon,
	 .doc = "How much memory the guest has."},
	{.name = "qom-get",
	 .args = QMP_ARGS(QMP_MEMBER("path", &qmp_str, BALLOON_PATH),
			  QMP_MEMBER("property", &qmp_str,
				     "guest-stats or guest-stats-polling-interval (seconds)")),
	 .returns = &qmp_any,
	 .handler = qom_get,
	 .doc = "Read a property of the balloon."},
	{.name = "qom-set",
	 .args = QMP_ARGS(QMP_MEMBER("path", &qmp_str, BALLOON_PATH),
			  QMP_MEMBER("property", &qmp_str,
				     "guest-stats-polling-interval (seconds, 0: none)"),
			  QMP_MEMBER("value", &qmp_any, "what it shall be")),
	 .handler = qom_set,
	 .doc = "Set a property of the balloon."},
	{.name = "human-monitor-command",
	 .args = &qmp_human_args,
	 .returns = &qmp_str,
	 .handler = human_monitor_command,
	 .doc = "Run a command of the human monitor: info balloon, balloon N, help."},
	{.name = "quit", .handler = quit, .doc = "End this program."},
	{.name = "query-balloon-device",
	 .returns = &device_info,
	 .handler = query_balloon_device,
	 .doc = "All about the device."},
	{.name = "refresh-balloon-stats",
	 .handler = refresh_balloon_stats,
	 .doc = "Ask the guest for statistics; the event BALLOON brings them."},
};

static const struct qmp_event events[] = {
	[EVENT_BALLOON_CHANGE] = {.name = "BALLOON_CHANGE",
				  .data = &balloon_info,
				  .doc = "The guest's memory has changed; at most once a second."},
	[EVENT_BALLOON] = {.name = "BALLOON",
			   .data = &guest_stats,
			   .doc = "Fresh statistics have come."},
	[EVENT_VMM_CONNECTED] = {.name = "VMM_CONNECTED", .doc = "A VMM has connected."},
	[EVENT_VMM_DISCONNECTED] = {.name = "VMM_DISCONNECTED",
				    .data = QMP_ARGS(QMP_MEMBER("reason", &qmp_str, "for people")),
				    .doc = "The VMM is gone; all it shared is let go."},
};
static_assert(sizeof(events) / sizeof(events[0]) == EVENT_COUNT, "a row for every event");

const struct qmp_schema monitor_schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
