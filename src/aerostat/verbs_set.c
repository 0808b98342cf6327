// SPDX-License-Identifier: MIT
/* set, reserve, release, reload: what changes something. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json_read.h"
#include "common/size.h"
#include "format.h"
#include "progress.h"
#include "verbs.h"
#include "vm.h"

#define PROGRESS_MS   200
#define SIZE_MAX_WIRE INT64_MAX  /* the largest that the control socket takes */
#define WAIT_CLOSE    (1u << 20) /* bytes: what aerostatd takes for reached, too */

/* --- set ------------------------------------------------------------------------------------- */

static void add_number(struct json_object **args, const char *key, uint64_t value)
{
	qmp_obj_add(args, key,
		    json_object_new_uint64(value > SIZE_MAX_WIRE ? SIZE_MAX_WIRE : value));
}

static struct json_object *set_arguments(const struct options *o)
{
	struct json_object *args = json_object_new_object();
	uint64_t size = 0;

	qmp_obj_add(&args, "name", json_object_new_string(o->arguments[0]));
	if (o->n_arguments == 2) {
		(void)size_parse(o->arguments[1], &size); /* it was checked */
		add_number(&args, "floor", size);
		add_number(&args, "ceiling", size);
	}
	if (o->floor.is)
		add_number(&args, "floor", o->floor.value);
	if (o->ceiling.is)
		add_number(&args, "ceiling", o->ceiling.value);
	if (o->priority.is)
		add_number(&args, "priority", o->priority.value);
	return args;
}

/* Is its target what was set? One that cannot be moved now keeps the target that it has. */
static bool is_told(struct json_object *vm)
{
	uint64_t target, floor, ceiling;

	return json_read_u64(vm, "target", &target) && json_read_u64(vm, "floor", &floor) &&
	       json_read_u64(vm, "ceiling", &ceiling) && target >= floor && target <= ceiling;
}

/*
 * Has it followed its target? Progress alone could still be that of the target before, and a guest
 * that is left a little more than that has followed, too.
 */
static bool has_followed(struct json_object *vm)
{
	const char *progress = json_read_str(vm, "progress");
	uint64_t target, actual;

	if (!json_read_u64(vm, "target", &target) || !json_read_u64(vm, "actual", &actual))
		return false;
	return progress && strcmp(progress, "reached") == 0 && is_told(vm) &&
	       (actual > target ? actual - target : target - actual) <= WAIT_CLOSE;
}

/* Until the guest has what it was told to keep. *vm: replaced by what is known then. */
static enum status wait_for_guest(struct context *ctx, struct json_object **vm)
{
	uint64_t end = control_now() + ctx->timeout_ms;

	for (;;) {
		const char *progress = json_read_str(*vm, "progress");
		struct json_object *next = NULL;
		enum status status;

		if (has_followed(*vm))
			return STATUS_DONE;
		if (progress && strcmp(progress, "uncooperative") == 0)
			return failure_set(&ctx->failure, STATUS_FAILED,
					   "%s does not follow its target", ctx->o->arguments[0]);
		if (control_now() >= end)
			return failure_set(&ctx->failure, STATUS_TIMED_OUT,
					   is_told(*vm) ? "%s has not reached its target yet"
							: "%s was not told to yet: see its state",
					   ctx->o->arguments[0]);
		status = control_wait(ctx->control, PROGRESS_MS / 2, &ctx->failure);
		if (status == STATUS_DONE)
			status = ask_about(ctx, "query-vm", ctx->o->arguments[0], &next);
		if (status != STATUS_DONE)
			return status;
		json_object_put(*vm);
		*vm = next;
	}
}

static const struct column set_columns[] = {
	{"NAME", false},  {"FLOOR", true},  {"CEILING", true},   {"PRIORITY", true},
	{"TARGET", true}, {"ACTUAL", true}, {"PROGRESS", false},
};

static enum status print_set(struct context *ctx, struct json_object *vm)
{
	static const char *const keys[] = {"floor", "ceiling", "priority", "target", "actual"};
	struct table t;
	uint64_t value = 0;

	table_init(&t, &ctx->style, set_columns, sizeof(set_columns) / sizeof(set_columns[0]));
	table_text(&t, PAINT_NONE, vm_name(vm));
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		bool known = json_read_u64(vm, keys[i], &value);

		if (strcmp(keys[i], "priority") == 0)
			table_count(&t, known, value);
		else
			table_size(&t, known, value);
	}
	table_text(&t, PAINT_NONE, json_read_str(vm, "progress"));
	return print_table(ctx, &t);
}

enum status verb_set(struct context *ctx)
{
	struct json_object *vm = NULL, *args;
	enum status status, waited = STATUS_DONE;

	if (ctx->o->reset) {
		status = ask_about(ctx, "reset-vm", ctx->o->arguments[0], &vm);
	} else {
		args = set_arguments(ctx->o);
		status = args ? ask(ctx, "set-vm", args, &vm) : no_memory(ctx);
	}
	if (status == STATUS_DONE && ctx->o->wait)
		waited = wait_for_guest(ctx, &vm);
	if (status == STATUS_DONE) {
		struct failure kept = ctx->failure;

		ctx->answered = true;
		status = ctx->style.json ? print_json_member(ctx, "vm", json_object_get(vm))
					 : print_set(ctx, vm);
		if (waited != STATUS_DONE)
			ctx->failure = kept;
	}
	json_object_put(vm);
	return waited != STATUS_DONE ? waited : status;
}

/* --- reserve --------------------------------------------------------------------------------- */

/*
 * The answer comes when the memory is there, and answers come in order: how far it is has to be
 * asked on a connection of its own.
 */
struct watching {
	struct context *ctx;
	struct control *second;
	struct progress progress;
	uint64_t bytes, began_ms;
};

static void show_reserve(void *opaque)
{
	struct watching *w = opaque;
	struct json_object *host = NULL, *list;
	char got[FORMAT_ROOM], wanted[FORMAT_ROOM], text[128];
	struct failure ignored;
	uint64_t there = 0;

	if (!w->second || control_ask(w->second, "query-host", NULL, 1000, &host, &ignored))
		return;
	list = json_read_array(host, "reservations");
	/* Ours is the youngest of that size that is not granted yet. */
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);
		uint64_t bytes = 0;

		if (json_read_u64(one, "bytes", &bytes) && bytes == w->bytes)
			json_read_u64(one, "got", &there);
	}
	json_object_put(host);
	snprintf(text, sizeof(text), "%s of %s are free", format_size(there, got, sizeof(got)),
		 format_size(w->bytes, wanted, sizeof(wanted)));
	progress_show(&w->progress, (double)there / (double)w->bytes, text);
}

static enum status print_reservation(struct context *ctx, struct json_object *answer)
{
	static const struct column columns[] = {{"ID", true}, {"SIZE", true}, {"HELD FOR", true}};
	uint64_t id = 0, bytes = 0, hold = 0;
	bool known;
	struct table t;
	char text[FORMAT_ROOM];

	if (ctx->style.json)
		return print_json(ctx, json_object_get(answer));
	if (!json_read_u64(answer, "id", &id))
		return failure_set(&ctx->failure, STATUS_FAILED,
				   "aerostatd's answer makes no sense: no number of a reservation");
	table_init(&t, &ctx->style, columns, sizeof(columns) / sizeof(columns[0]));
	snprintf(text, sizeof(text), "%" PRIu64, id);
	table_text(&t, PAINT_BOLD, text);
	known = json_read_u64(answer, "bytes", &bytes);
	table_size(&t, known, bytes);
	known = json_read_u64(answer, "hold-ms", &hold);
	table_age(&t, known, hold);
	return print_table(ctx, &t);
}

enum status verb_reserve(struct context *ctx)
{
	struct watching w = {.ctx = ctx};
	struct control_hooks hooks = {.idle = show_reserve, .idle_ms = PROGRESS_MS, .opaque = &w};
	struct json_object *args = json_object_new_object(), *answer = NULL;
	uint64_t began;
	enum status status;

	(void)size_parse(ctx->o->arguments[0], &w.bytes);
	if (!w.bytes) {
		json_object_put(args);
		return failure_set(&ctx->failure, STATUS_USAGE, "reserve: nothing to reserve");
	}
	add_number(&args, "bytes", w.bytes);
	add_number(&args, "timeout-ms", ctx->timeout_ms);
	if (ctx->o->hold_ms.is)
		add_number(&args, "hold-ms", ctx->o->hold_ms.value);
	ctx->control =
		control_open(ctx->o->control, "aerostatd", ctx->timeout_ms, &hooks, &ctx->failure);
	if (!ctx->control || !args) {
		json_object_put(args);
		return ctx->control ? no_memory(ctx) : ctx->failure.status;
	}
	progress_begin(&w.progress, "reserving", &ctx->style);
	if (w.progress.on)
		w.second = control_open(ctx->o->control, "aerostatd", ctx->timeout_ms, NULL,
					&(struct failure){0});
	began = control_now();
	/* aerostatd ends it in time; who waits a little longer hears why. */
	status = control_ask(ctx->control, "reserve", args, ctx->timeout_ms + 2000, &answer,
			     &ctx->failure);
	progress_end(&w.progress);
	control_close(w.second);
	if (status == STATUS_FAILED && control_now() - began >= ctx->timeout_ms)
		status = ctx->failure.status = STATUS_TIMED_OUT;
	if (status == STATUS_DONE)
		status = print_reservation(ctx, answer);
	json_object_put(answer);
	return status;
}

enum status verb_release(struct context *ctx)
{
	struct json_object *args = json_object_new_object();
	uint64_t id = strtoull(ctx->o->arguments[0], NULL, 10);
	enum status status;

	qmp_obj_add(&args, "id", json_object_new_uint64(id));
	status = args ? ask(ctx, "release", args, NULL) : no_memory(ctx);
	if (status == STATUS_DONE && ctx->style.json)
		return print_json_member(ctx, "id", json_object_new_uint64(id));
	return status;
}

enum status verb_reload(struct context *ctx)
{
	enum status status = ask(ctx, "reload", NULL, NULL);

	if (status == STATUS_DONE && ctx->style.json)
		return print_json(ctx, json_object_new_object());
	return status;
}
