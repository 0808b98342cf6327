// SPDX-License-Identifier: MIT
/* list, info, health: what there is, now. */
#include <stdio.h>
#include <string.h>

#include "common/json_read.h"
#include "format.h"
#include "verbs.h"
#include "vm.h"

#define COLUMNS(c) (c), sizeof(c) / sizeof((c)[0])

static bool is_true(struct json_object *obj, const char *key)
{
	bool value = false;

	return json_read_bool(obj, key, &value) && value;
}

/* --- list ------------------------------------------------------------------------------------ */

static const struct column list_columns[] = {
	{"NAME", false}, {"STATE", false},    {"HEALTH", false}, {"VERDICT", false},
	{"SIZE", true},  {"TARGET", true},    {"ACTUAL", true},  {"RESIDENT", true},
	{"FREE", true},  {"AVAILABLE", true}, {"AGE", true},
};

static void list_row(struct table *t, struct json_object *vm)
{
	const char *state, *health, *verdict;
	char instead[64], word[64];
	enum paint paint;
	bool managed = true;

	table_text(t, PAINT_NONE, vm_name(vm));
	state = vm_state(vm, &paint);
	json_read_bool(vm, "managed", &managed);
	if (!managed && strcmp(state, "serving") == 0)
		table_text(t, PAINT_DIM, "unmanaged");
	else
		table_text(t, paint, state);
	health = vm_health(vm, &paint);
	table_text(t, paint, health);
	verdict = vm_verdict(vm, &paint, word, sizeof(word));
	table_text(t, paint, verdict);
	vm_size_cell(t, vm, "size");
	vm_size_cell(t, vm, "target");
	vm_size_cell(t, vm, "actual");
	vm_size_cell(t, vm, "resident");
	if (vm_fresh(vm, 0, instead, sizeof(instead))) {
		vm_stat_cell(t, vm, "stat-free-memory");
		vm_stat_cell(t, vm, "stat-available-memory");
	} else {
		table_text(t, PAINT_DIM, instead);
		table_text(t, PAINT_DIM, NULL);
	}
	vm_age_cell(t, vm);
}

enum status verb_list(struct context *ctx)
{
	struct json_object *vms = NULL;
	struct table t;
	enum status status = ask_vms(ctx, ctx->o->arguments[0], &vms);

	if (status != STATUS_DONE)
		return status;
	if (ctx->style.json)
		return print_json_member(ctx, "vms", vms);
	table_init(&t, &ctx->style, COLUMNS(list_columns));
	for (size_t i = 0; i < json_object_array_length(vms); i++)
		list_row(&t, json_object_array_get_idx(vms, i));
	if (ctx->style.table && json_object_array_length(vms) == 0)
		puts("No virtual machines.");
	json_object_put(vms);
	if (!t.n && ctx->style.table) {
		table_free(&t);
		return STATUS_DONE;
	}
	return print_table(ctx, &t);
}

/* --- health ---------------------------------------------------------------------------------- */

static const struct column health_columns[] = {
	{"NAME", false},     {"HEALTH", false}, {"VERDICT", false},
	{"PROGRESS", false}, {"AGE", true},     {"REASON", false},
};

static bool health_row(struct table *t, struct json_object *vm)
{
	const char *reason = json_read_str(vm, "why"), *word;
	enum paint paint;
	char text[64];

	table_text(t, PAINT_NONE, vm_name(vm));
	word = vm_health(vm, &paint);
	table_text(t, paint, word);
	word = vm_verdict(vm, &paint, text, sizeof(text));
	table_text(t, paint, word);
	table_text(t, PAINT_NONE, json_read_str(vm, "progress"));
	vm_age_cell(t, vm);
	if (!reason && !vm_fresh(vm, 0, text, sizeof(text)))
		reason = text;
	table_text(t, PAINT_NONE, reason ? reason : json_read_str(vm, "verdict-reason"));
	word = json_read_str(vm, "health");
	return word && strcmp(word, "unresponsive") == 0;
}

/* What --json shows of each. */
static struct json_object *health_object(struct json_object *vm)
{
	static const char *const keys[] = {"name",     "state",   "absence",      "why",
					   "health",   "verdict", "verdict-weak", "verdict-reason",
					   "progress", "driver",  "stats-age-ms"};
	struct json_object *obj = json_object_new_object();

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (json_read(vm, keys[i]))
			qmp_obj_add(&obj, keys[i], json_object_get(json_read(vm, keys[i])));
	}
	return obj;
}

enum status verb_health(struct context *ctx)
{
	struct json_object *vms = NULL, *list = json_object_new_array();
	struct table t;
	enum status status = ask_vms(ctx, ctx->o->arguments[0], &vms);
	size_t hung = 0;

	if (status != STATUS_DONE) {
		json_object_put(list);
		return status;
	}
	table_init(&t, &ctx->style, COLUMNS(health_columns));
	for (size_t i = 0; i < json_object_array_length(vms); i++) {
		hung += health_row(&t, json_object_array_get_idx(vms, i));
		qmp_arr_add(&list, health_object(json_object_array_get_idx(vms, i)));
	}
	json_object_put(vms);
	if (ctx->style.json) {
		table_free(&t);
		status = print_json_member(ctx, "health", list);
	} else {
		json_object_put(list);
		status = print_table(ctx, &t);
	}
	ctx->answered = status == STATUS_DONE;
	if (status == STATUS_DONE && hung)
		return failure_set(&ctx->failure, STATUS_FAILED,
				   "%zu of the guests do%s not respond", hung,
				   hung == 1 ? "es" : "");
	return status;
}

/* --- info ------------------------------------------------------------------------------------ */

static const struct column info_columns[] = {{"WHAT", false}, {"VALUE", false}};

enum kind { KIND_TEXT, KIND_SIZE, KIND_COUNT, KIND_AGE, KIND_BOOL, KIND_PERCENT, KIND_RATE };

struct line {
	const char *key, *label;
	enum kind kind;
};

static const struct line vm_lines[] = {
	{"name", "name", KIND_TEXT},
	{"uuid", "uuid", KIND_TEXT},
	{"monitor", "monitor", KIND_TEXT},
	{"kind", "kind", KIND_TEXT},
	{"state", "state", KIND_TEXT},
	{"absence", "absence", KIND_TEXT},
	{"why", "why", KIND_TEXT},
	{"managed", "managed", KIND_BOOL},
	{"running", "running", KIND_BOOL},
	{"driver", "driver", KIND_TEXT},
	{"messages", "sends messages", KIND_BOOL},
	{"push", "pushes statistics", KIND_BOOL},
	{"health", "health", KIND_TEXT},
	{"verdict", "verdict", KIND_TEXT},
	{"verdict-reason", "verdict's reason", KIND_TEXT},
	{"verdict-weak", "verdict is weak", KIND_BOOL},
	{"progress", "progress", KIND_TEXT},
	{"emergency", "emergency", KIND_BOOL},
	{"size", "size", KIND_SIZE},
	{"floor", "floor", KIND_SIZE},
	{"ceiling", "ceiling", KIND_SIZE},
	{"learned-floor", "learned floor", KIND_SIZE},
	{"priority", "priority", KIND_COUNT},
	{"target", "target", KIND_SIZE},
	{"actual", "actual", KIND_SIZE},
	{"resident", "resident", KIND_SIZE},
	{"freed", "freed", KIND_SIZE},
	{"used", "used", KIND_SIZE},
	{"working", "working set", KIND_SIZE},
	{"growth", "growth", KIND_RATE},
	{"releases", "releases", KIND_COUNT},
	{"oom-kills", "OOM kills", KIND_COUNT},
};

static const struct line host_lines[] = {
	{"total", "memory", KIND_SIZE},
	{"available", "available", KIND_SIZE},
	{"resident", "of guests", KIND_SIZE},
	{"reserve", "kept free", KIND_SIZE},
	{"budget", "budget", KIND_SIZE},
	{"allowed", "guests may keep", KIND_SIZE},
	{"promised", "promised", KIND_SIZE},
	{"pool", "kept for bursts", KIND_SIZE},
	{"unmet", "needed and not there", KIND_SIZE},
	{"scarce", "scarce", KIND_BOOL},
	{"pressed", "under pressure", KIND_BOOL},
	{"some-avg10", "some wait for memory", KIND_PERCENT},
	{"full-avg10", "all wait for memory", KIND_PERCENT},
	{"vms", "virtual machines", KIND_COUNT},
	{"managed", "of them managed", KIND_COUNT},
	{"dry-run", "dry run", KIND_BOOL},
	{"passes", "passes", KIND_COUNT},
	{"moves", "targets moved", KIND_COUNT},
	{"uptime-ms", "up for", KIND_AGE},
};

static void info_number(struct table *t, const struct line *l, struct json_object *obj)
{
	char text[FORMAT_ROOM + 8], size[FORMAT_ROOM];
	double number = json_object_get_double(json_read(obj, l->key));
	uint64_t value = 0;
	bool known = json_read_u64(obj, l->key, &value);

	if (l->kind == KIND_PERCENT)
		snprintf(text, sizeof(text), t->style->table ? "%.2f %%" : "%.2f", number);
	else
		snprintf(text, sizeof(text), "%s/s", format_size(value, size, sizeof(size)));
	if (l->kind == KIND_SIZE || (l->kind == KIND_RATE && !t->style->table))
		table_size(t, known, value);
	else if (l->kind == KIND_COUNT)
		table_count(t, known, value);
	else if (l->kind == KIND_AGE)
		table_age(t, known, value);
	else
		table_text(t, PAINT_NONE, text);
}

/* Those lines of which something is known. */
static void info_rows(struct table *t, const struct line *lines, size_t n, struct json_object *obj)
{
	for (size_t i = 0; i < n; i++) {
		if (!json_read(obj, lines[i].key))
			continue;
		table_text(t, PAINT_DIM, lines[i].label);
		if (lines[i].kind == KIND_TEXT)
			table_text(t, PAINT_NONE, json_read_str(obj, lines[i].key));
		else if (lines[i].kind == KIND_BOOL)
			table_text(t, PAINT_NONE, is_true(obj, lines[i].key) ? "yes" : "no");
		else
			info_number(t, &lines[i], obj);
	}
}

static enum status info_vm(struct context *ctx)
{
	struct json_object *vm = NULL;
	char instead[64];
	struct table t;
	enum status status = ask_about(ctx, "query-vm", ctx->o->arguments[0], &vm);

	if (status != STATUS_DONE)
		return status;
	if (ctx->style.json)
		return print_json_member(ctx, "vm", vm);
	table_init(&t, &ctx->style, COLUMNS(info_columns));
	t.bare = true;
	info_rows(&t, vm_lines, sizeof(vm_lines) / sizeof(vm_lines[0]), vm);
	table_text(&t, PAINT_DIM, "statistics");
	if (vm_fresh(vm, 0, instead, sizeof(instead))) {
		vm_age_cell(&t, vm);
		table_text(&t, PAINT_DIM, "free");
		vm_stat_cell(&t, vm, "stat-free-memory");
		table_text(&t, PAINT_DIM, "available");
		vm_stat_cell(&t, vm, "stat-available-memory");
	} else {
		table_text(&t, PAINT_WARN, instead);
	}
	json_object_put(vm);
	return print_table(ctx, &t);
}

static void reservation_rows(struct table *t, struct json_object *host)
{
	struct json_object *list = json_read_array(host, "reservations");

	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);
		char text[4 * FORMAT_ROOM], size[FORMAT_ROOM], got[FORMAT_ROOM], left[FORMAT_ROOM];
		uint64_t id = 0, bytes = 0, there = 0, ms = 0;

		json_read_u64(one, "id", &id);
		json_read_u64(one, "bytes", &bytes);
		json_read_u64(one, "got", &there);
		json_read_u64(one, "left-ms", &ms);
		format_size(bytes, size, sizeof(size));
		format_size(there, got, sizeof(got));
		format_age(ms, left, sizeof(left));
		table_text(t, PAINT_DIM, "reservation");
		snprintf(text, sizeof(text), "%llu: %s%s%s%s, for %s", (unsigned long long)id, size,
			 is_true(one, "granted") ? "" : " wanted, ",
			 is_true(one, "granted") ? "" : got,
			 is_true(one, "granted") ? "" : " there", left);
		table_text(t, PAINT_NONE, text);
	}
}

enum status verb_info(struct context *ctx)
{
	struct json_object *host = NULL;
	struct table t;
	enum status status;

	if (ctx->o->n_arguments)
		return info_vm(ctx);
	status = ask(ctx, "query-host", NULL, &host);
	if (status != STATUS_DONE)
		return status;
	if (ctx->style.json)
		return print_json_member(ctx, "host", host);
	table_init(&t, &ctx->style, COLUMNS(info_columns));
	t.bare = true;
	info_rows(&t, host_lines, sizeof(host_lines) / sizeof(host_lines[0]), host);
	reservation_rows(&t, host);
	json_object_put(host);
	return print_table(ctx, &t);
}
