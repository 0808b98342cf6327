// SPDX-License-Identifier: MIT
/* The human monitor: what operators type. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "commands_parts.h"
#include "common/clock.h"
#include "qmp/human.h"

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
	monitor_complete(&info->server->monitor, info->req, qmp_human_text(&text), NULL);
	qmp_buf_free(&text);
	free(info);
}

static enum qmp_outcome info_balloon(struct qmp_request *req, size_t argc, char *const *argv,
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
	info->server = commands_server(req);
	info->req = req;
	info->waiter.done = info_done;
	r = server_request_stats(info->server, &info->waiter);
	if (r == 0)
		return QMP_DEFERRED;
	info_text(info->server, r == -ENOTSUP ? " (statistics off)" : "", text);
	free(info);
	return QMP_DONE;
}

static enum qmp_outcome info_health(struct qmp_request *req, size_t argc, char *const *argv,
				    struct qmp_buf *text, struct qmp_error *err)
{
	const struct health *h = &commands_server(req)->control.health;
	struct instant now = clock_now();
	uint64_t gap = health_gap_ms(h, now);

	(void)argc;
	(void)argv;
	(void)err;
	qmp_buf_printf(text, "health: %s for=%" PRIu64 "ms", health_state_name(h->state),
		       instant_age_ms(now, h->since));
	if (gap)
		qmp_buf_printf(text, " gap=%" PRIu64 "ms expected=%" PRIu32 "ms", gap, h->unit_ms);
	qmp_buf_printf(text, " (%s)\n", health_reason_text(h->reason));
	return QMP_DONE;
}

static enum qmp_outcome info_hint(struct qmp_request *req, size_t argc, char *const *argv,
				  struct qmp_buf *text, struct qmp_error *err)
{
	const struct control *c = &commands_server(req)->control;
	const struct balloon_hint *hint = &c->balloon->st.hint;

	(void)argc;
	(void)argv;
	(void)err;
	qmp_buf_printf(text, "free page hint: %s", commands_hint_state(hint->state));
	if (hint->id)
		qmp_buf_printf(text, " id=%" PRIu32 " hinted=%" PRIu64 " path=%s", hint->id,
			       c->balloon->hints.count >> (20 - VIRTIO_BALLOON_PFN_SHIFT),
			       c->hints_path);
	qmp_buf_printf(text, "\n");
	return QMP_DONE;
}

static enum qmp_outcome info_inhibitors(struct qmp_request *req, size_t argc, char *const *argv,
					struct qmp_buf *text, struct qmp_error *err)
{
	const struct settings *settings = commands_server(req)->control.settings;

	(void)argc;
	(void)argv;
	(void)err;
	if (!settings->n_inhibitors)
		qmp_buf_printf(text, "no inhibitors\n");
	for (uint32_t i = 0; i < settings->n_inhibitors; i++)
		qmp_buf_printf(text, "inhibitor: %s\n", settings->inhibitor[i]);
	return QMP_DONE;
}

static enum qmp_outcome info_pressure(struct qmp_request *req, size_t argc, char *const *argv,
				      struct qmp_buf *text, struct qmp_error *err)
{
	const struct balloon *b = &commands_server(req)->balloon;
	const struct balloon_pressure *p = &b->st.pressure;

	(void)argc;
	(void)argv;
	(void)err;
	qmp_buf_printf(text, "pressure: %s", commands_pressure(p));
	if (p->ever)
		qmp_buf_printf(text, " age=%" PRIu64 "ms", instant_age_ms(clock_now(), p->arrived));
	else if (!(b->st.negotiated >> VIRTIO_BALLOON_F_MESSAGE_VQ & 1))
		qmp_buf_printf(text, " (the driver sends no messages)");
	qmp_buf_printf(text, "\n");
	return QMP_DONE;
}

static enum qmp_outcome info_status(struct qmp_request *req, size_t argc, char *const *argv,
				    struct qmp_buf *text, struct qmp_error *err)
{
	(void)argc;
	(void)argv;
	(void)err;
	qmp_buf_printf(text, "VM status: %s\n", commands_status(commands_server(req)));
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
	server_set_guest_size(commands_server(req), (uint64_t)mib * MIB);
	return QMP_DONE;
}

static const struct qmp_human_command human_info[] = {
	{.name = "balloon",
	 .args = "",
	 .help = "memory the guest has (MiB) and its statistics, asked for at once (at most 5 s)",
	 .handler = info_balloon},
	{.name = "health",
	 .args = "",
	 .help = "how the guest does, judged by its statistics",
	 .handler = info_health},
	{.name = "hint",
	 .args = "",
	 .help = "free page hinting, and what it has found (MiB)",
	 .handler = info_hint},
	{.name = "inhibitors",
	 .args = "",
	 .help = "why nothing is given back to the host",
	 .handler = info_inhibitors},
	{.name = "pressure",
	 .args = "",
	 .help = "what the guest said last about its memory",
	 .handler = info_pressure},
	{.name = "status", .args = "", .help = "is a guest at work?", .handler = info_status},
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

enum qmp_outcome command_human_monitor_command(struct qmp_request *req, struct json_object *args,
					       struct json_object **result, struct qmp_error *err)
{
	return qmp_human_run(human_commands, sizeof(human_commands) / sizeof(human_commands[0]),
			     req, args, result, err);
}
