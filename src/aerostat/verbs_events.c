// SPDX-License-Identifier: MIT
/*
 * events: what has happened. They are asked for by their numbers, also those that come while we
 * wait: an event that arrives by itself only says that it is time to ask, so none is shown twice
 * and none is lost unnoticed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json_read.h"
#include "format.h"
#include "verbs.h"
#include "vm.h"

#define ASK_MS 1000 /* at least so often, should an event not have come through */

/* Is it about the virtual machine that was named, if one was? By its name only. */
static bool is_wanted(const struct context *ctx, struct json_object *event)
{
	const char *name = json_read_str(json_read(event, "data"), "name");

	return !ctx->o->n_arguments || (name && strcmp(name, ctx->o->arguments[0]) == 0);
}

static enum status print_event_json(struct context *ctx, struct json_object *event)
{
	return print_json_member(ctx, "event", json_object_get(event));
}

static const struct column columns[] = {
	{"SEQ", true},   {"TIME               ", false},
	{"NAME", false}, {"EVENT             ", false},
	{"TEXT", false},
};

static void event_row(struct table *t, struct json_object *event)
{
	struct json_object *data = json_read(event, "data");
	const char *text = json_read_str(event, "text");
	uint64_t seq = 0, age = 0;
	char when[32] = "";
	struct tm local;
	time_t at;

	json_read_u64(event, "seq", &seq);
	snprintf(when, sizeof(when), "%" PRIu64, seq);
	table_text(t, PAINT_DIM, when);
	if (json_read_u64(event, "age-ms", &age)) {
		at = time(NULL) - (time_t)(age / 1000);
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&at, &local));
		table_text(t, PAINT_NONE, when);
	} else {
		table_text(t, PAINT_DIM, NULL);
	}
	table_text(t, PAINT_BOLD, json_read_str(data, "name"));
	table_text(t, PAINT_NONE, json_read_str(event, "event"));
	/* What has no sentence of its own has its data. */
	table_text(t, PAINT_NONE,
		   text ? text
			: json_object_to_json_string_ext(
				  data, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* Prints those of an answer that are wanted. follow: one JSON object each. */
static enum status print_events(struct context *ctx, struct json_object *events, bool heading)
{
	struct table t;

	table_init(&t, &ctx->style, columns, sizeof(columns) / sizeof(columns[0]));
	t.bare = !heading;
	t.steady = true;
	for (size_t i = 0; i < json_object_array_length(events); i++) {
		struct json_object *event = json_object_array_get_idx(events, i);

		if (!is_wanted(ctx, event))
			continue;
		if (!ctx->style.json)
			event_row(&t, event);
		else if (print_event_json(ctx, event) != STATUS_DONE)
			return STATUS_FAILED;
	}
	if (ctx->style.json || (t.n == 0 && !heading)) {
		table_free(&t);
		return STATUS_DONE;
	}
	return print_table(ctx, &t);
}

/* Says so if events between the last one we know and the first of these are gone. */
static void tell_missed(struct json_object *events, uint64_t last)
{
	uint64_t first;

	if (json_object_array_length(events) == 0 ||
	    !json_read_u64(json_object_array_get_idx(events, 0), "seq", &first))
		return;
	if (first > last + 1)
		fprintf(stderr, "aerostat: %" PRIu64 " events are missing here\n",
			first - last - 1);
}

/* Those after *last, which is moved on. *events: NULL if there are none. */
static enum status ask_events(struct context *ctx, bool after, uint64_t *last,
			      struct json_object **answer, struct json_object **events)
{
	struct json_object *args = json_object_new_object();
	enum status status;

	if (after)
		qmp_obj_add(&args, "after", json_object_new_uint64(*last));
	status = args ? ask(ctx, "query-events", args, answer) : no_memory(ctx);
	if (status != STATUS_DONE)
		return status;
	*events = json_read_array(*answer, "events");
	json_read_u64(*answer, "last", last);
	if (*events)
		return STATUS_DONE;
	json_object_put(*answer);
	return failure_set(&ctx->failure, STATUS_FAILED,
			   "aerostatd's answer makes no sense: no list of events");
}

static enum status print_once(struct context *ctx, struct json_object *answer,
			      struct json_object *events)
{
	struct json_object *members, *wanted;

	if (!ctx->style.json)
		return print_events(ctx, events, true);
	members = json_object_new_object();
	wanted = json_object_new_array();
	for (size_t i = 0; i < json_object_array_length(events); i++) {
		struct json_object *event = json_object_array_get_idx(events, i);

		if (is_wanted(ctx, event))
			qmp_arr_add(&wanted, json_object_get(event));
	}
	qmp_obj_add(&members, "events", wanted);
	qmp_obj_add(&members, "last", json_object_get(json_read(answer, "last")));
	return print_json(ctx, members);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	(void)event;
	*(bool *)opaque = true;
}

static enum status follow(struct context *ctx, uint64_t last, bool *news)
{
	while (!ferror(stdout)) {
		uint64_t until = control_now() + ASK_MS, known = last;
		struct json_object *answer = NULL, *events = NULL;
		enum status status = STATUS_DONE;

		while (status == STATUS_DONE && !*news && control_now() < until)
			status = control_wait(ctx->control, until - control_now(), &ctx->failure);
		*news = false;
		if (status == STATUS_DONE)
			status = ask_events(ctx, true, &last, &answer, &events);
		if (status != STATUS_DONE)
			return status;
		tell_missed(events, known);
		status = print_events(ctx, events, false);
		json_object_put(answer);
		if (status != STATUS_DONE)
			return status;
	}
	return STATUS_DONE;
}

enum status verb_events(struct context *ctx)
{
	bool news = false;
	struct control_hooks hooks = {.event = on_event, .opaque = &news};
	struct json_object *answer = NULL, *events = NULL;
	uint64_t last = ctx->o->after.value;
	enum status status;

	ctx->control =
		control_open(ctx->o->control, "aerostatd", ctx->timeout_ms, &hooks, &ctx->failure);
	if (!ctx->control)
		return ctx->failure.status;
	status = ask_events(ctx, ctx->o->after.is, &last, &answer, &events);
	if (status != STATUS_DONE)
		return status;
	if (ctx->o->follow && ctx->style.json)
		status = print_events(ctx, events, false);
	else
		status = print_once(ctx, answer, events);
	json_object_put(answer);
	if (status == STATUS_DONE && ctx->o->follow)
		status = follow(ctx, last, &news);
	return status;
}
