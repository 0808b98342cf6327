// SPDX-License-Identifier: MIT
/* stats: what guests say, once or again and again. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "aerostat/virtio_balloon.h"
#include "common/json_read.h"
#include "common/stat_name.h"
#include "format.h"
#include "verbs.h"
#include "vm.h"

#define HEADING_EVERY 20 /* rows of a watched guest */

/* Statistics in bytes; the others are counts. */
static bool is_size(unsigned int tag)
{
	switch (tag) {
	case VIRTIO_BALLOON_S_SWAP_IN:
	case VIRTIO_BALLOON_S_SWAP_OUT:
	case VIRTIO_BALLOON_S_MEMFREE:
	case VIRTIO_BALLOON_S_MEMTOT:
	case VIRTIO_BALLOON_S_AVAIL:
	case VIRTIO_BALLOON_S_CACHES:
	case VIRTIO_BALLOON_S_SCAN_ASYNC:
	case VIRTIO_BALLOON_S_SCAN_DIRECT:
	case VIRTIO_BALLOON_S_RECLAIM_ASYNC:
	case VIRTIO_BALLOON_S_RECLAIM_DIRECT:
		return true;
	default:
		return false;
	}
}

/* --- as JSON --------------------------------------------------------------------------------- */

static struct json_object *stats_object(struct json_object *vm)
{
	static const char *const keys[] = {"name",   "driver",   "size",  "target",
					   "actual", "resident", "stats", "stats-age-ms"};
	struct json_object *obj = json_object_new_object();
	char instead[64];

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (json_read(vm, keys[i]))
			qmp_obj_add(&obj, keys[i], json_object_get(json_read(vm, keys[i])));
	}
	if (vm_fresh(vm, 0, instead, sizeof(instead)))
		qmp_obj_add(&obj, "fresh", json_object_new_boolean(1));
	else
		qmp_obj_add(&obj, "why-not-fresh", json_object_new_string(instead));
	return obj;
}

static enum status print_stats_json(struct context *ctx, struct json_object *vms)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(vms); i++)
		qmp_arr_add(&list, stats_object(json_object_array_get_idx(vms, i)));
	return print_json_member(ctx, "vms", list);
}

/* --- as tables ------------------------------------------------------------------------------- */

static const struct column one_columns[] = {{"STATISTIC", false}, {"VALUE", true}};

static void one_number(struct table *t, const char *label, struct json_object *vm, const char *key)
{
	if (!json_read(vm, key))
		return;
	table_text(t, PAINT_NONE, label);
	vm_size_cell(t, vm, key);
}

static enum status print_one(struct context *ctx, struct json_object *vm)
{
	struct table t;
	char instead[64];

	table_init(&t, &ctx->style, one_columns, 2);
	one_number(&t, "target", vm, "target");
	one_number(&t, "actual", vm, "actual");
	one_number(&t, "resident", vm, "resident");
	if (!vm_fresh(vm, 0, instead, sizeof(instead))) {
		table_text(&t, PAINT_NONE, "statistics");
		table_text(&t, PAINT_WARN, instead);
		return print_table(ctx, &t);
	}
	for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++) {
		uint64_t value;

		if (!vm_stat(vm, stat_name(tag), &value))
			continue;
		table_text(&t, PAINT_NONE, stat_name(tag) + strlen("stat-"));
		if (is_size(tag))
			table_size(&t, true, value);
		else
			table_count(&t, true, value);
	}
	table_text(&t, PAINT_NONE, "age");
	vm_age_cell(&t, vm);
	return print_table(ctx, &t);
}

static const struct column all_columns[] = {
	{"NAME", false},     {"ACTUAL", true}, {"TOTAL", true},   {"FREE", true},
	{"AVAILABLE", true}, {"CACHES", true}, {"SWAP IN", true}, {"SWAP OUT", true},
	{"MAJFLT", true},    {"OOM", true},    {"AGE", true},
};

static void count_cell(struct table *t, struct json_object *vm, unsigned int tag)
{
	uint64_t value = 0;
	bool known = vm_stat(vm, stat_name(tag), &value);

	table_count(t, known, value);
}

static void all_row(struct table *t, struct json_object *vm)
{
	static const unsigned int sizes[] = {VIRTIO_BALLOON_S_MEMTOT,  VIRTIO_BALLOON_S_MEMFREE,
					     VIRTIO_BALLOON_S_AVAIL,   VIRTIO_BALLOON_S_CACHES,
					     VIRTIO_BALLOON_S_SWAP_IN, VIRTIO_BALLOON_S_SWAP_OUT};
	char instead[64];

	table_text(t, PAINT_NONE, vm_name(vm));
	vm_size_cell(t, vm, "actual");
	if (vm_fresh(vm, 0, instead, sizeof(instead))) {
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			vm_stat_cell(t, vm, stat_name(sizes[i]));
		count_cell(t, vm, VIRTIO_BALLOON_S_MAJFLT);
		count_cell(t, vm, VIRTIO_BALLOON_S_OOM_KILL);
	} else {
		table_text(t, PAINT_WARN, instead);
		for (int i = 0; i < 7; i++)
			table_text(t, PAINT_DIM, NULL);
	}
	vm_age_cell(t, vm);
}

static enum status print_all(struct context *ctx, struct json_object *vms)
{
	struct table t;

	table_init(&t, &ctx->style, all_columns, sizeof(all_columns) / sizeof(all_columns[0]));
	for (size_t i = 0; i < json_object_array_length(vms); i++)
		all_row(&t, json_object_array_get_idx(vms, i));
	return print_table(ctx, &t);
}

/* --- watching one guest ---------------------------------------------------------------------- */

/* What was counted at the last row; 0 as a time: nothing. */
struct counts {
	uint64_t at_ms;
	uint64_t swap_in, swap_out, faults;
};

static const struct column watch_columns[] = {
	{"TIME    ", false},  {"TARGET", true},    {"ACTUAL", true},
	{"    FREE", true},   {"AVAILABLE", true}, {"SWAP IN/s", true},
	{"SWAP OUT/s", true}, {"MAJFLT/s", true},  {"VERDICT", false},
};

static bool read_counts(struct json_object *vm, struct counts *c)
{
	uint64_t age;

	if (!vm_stats_age(vm, 0, &age) || !vm_stat(vm, "stat-swap-in", &c->swap_in) ||
	    !vm_stat(vm, "stat-swap-out", &c->swap_out) ||
	    !vm_stat(vm, "stat-major-faults", &c->faults))
		return false;
	c->at_ms = control_now() - age;
	return true;
}

static void rate_cell(struct table *t, bool size, uint64_t now, uint64_t before, uint64_t ms)
{
	/* A counter that fell belongs to a guest that was restarted. */
	bool known = ms && now >= before;
	uint64_t rate = known ? (uint64_t)((double)(now - before) * 1000.0 / (double)ms) : 0;

	if (size)
		table_size(t, known, rate);
	else
		table_count(t, known, rate);
}

static void watch_row(struct table *t, struct json_object *vm, struct counts *before)
{
	struct counts now = {0};
	char instead[64], word[64], clock[16];
	const char *verdict;
	enum paint paint;
	time_t seconds = time(NULL);
	struct tm local;
	uint64_t ms = 0;

	strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&seconds, &local));
	table_text(t, PAINT_DIM, clock);
	vm_size_cell(t, vm, "target");
	vm_size_cell(t, vm, "actual");
	if (!vm_fresh(vm, 0, instead, sizeof(instead))) {
		table_text(t, PAINT_WARN, instead);
		for (int i = 0; i < 4; i++)
			table_text(t, PAINT_DIM, NULL);
		before->at_ms = 0;
	} else {
		vm_stat_cell(t, vm, "stat-free-memory");
		vm_stat_cell(t, vm, "stat-available-memory");
		/* Rates are between two arrivals of statistics: none where none came between. */
		if (read_counts(vm, &now) && before->at_ms && now.at_ms > before->at_ms + 50)
			ms = now.at_ms - before->at_ms;
		rate_cell(t, true, now.swap_in, before->swap_in, ms);
		rate_cell(t, true, now.swap_out, before->swap_out, ms);
		rate_cell(t, false, now.faults, before->faults, ms);
		if (ms || !before->at_ms)
			*before = now;
	}
	verdict = vm_verdict(vm, &paint, word, sizeof(word));
	table_text(t, paint, verdict);
}

/* --- the verb -------------------------------------------------------------------------------- */

static enum status print_round(struct context *ctx, struct json_object *vms, uint64_t round,
			       struct counts *before)
{
	struct table t;

	if (ctx->style.json)
		return print_stats_json(ctx, vms);
	if (!ctx->o->n_arguments) {
		if (round && ctx->style.table)
			putchar('\n');
		return print_all(ctx, vms);
	}
	if (!ctx->o->watch && !ctx->o->count.is)
		return print_one(ctx, json_object_array_get_idx(vms, 0));
	table_init(&t, &ctx->style, watch_columns,
		   sizeof(watch_columns) / sizeof(watch_columns[0]));
	t.bare = ctx->style.table ? round % HEADING_EVERY != 0 : round != 0;
	t.steady = true;
	watch_row(&t, json_object_array_get_idx(vms, 0), before);
	return print_table(ctx, &t);
}

enum status verb_stats(struct context *ctx)
{
	uint64_t interval = ctx->o->interval_ms.is ? ctx->o->interval_ms.value : 1000;
	bool again = ctx->o->watch || ctx->o->count.is;
	uint64_t due = control_now();
	struct counts before = {0};
	enum status status = STATUS_DONE;

	for (uint64_t round = 0; status == STATUS_DONE; round++) {
		struct json_object *vms = NULL;

		status = ask_vms(ctx, ctx->o->arguments[0], &vms);
		if (status != STATUS_DONE)
			break;
		status = print_round(ctx, vms, round, &before);
		json_object_put(vms);
		due += interval;
		if (!again || ferror(stdout) ||
		    (ctx->o->count.is && round + 1 >= ctx->o->count.value))
			break;
		while (status == STATUS_DONE && control_now() < due)
			status = control_wait(ctx->control, due - control_now(), &ctx->failure);
	}
	return status;
}
