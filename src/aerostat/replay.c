// SPDX-License-Identifier: MIT
/*
 * replay: what policies would have made of a recording. The simulator of sim/ does it; each policy
 * has a world of its own, so they run at the same time, one thread each.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "progress.h"
#include "verbs.h"
#include "world.h"

#define POLICIES_MAX 16
#define HOURS_MAX    (24 * 366)
#define SHOW_US      100000

struct replay {
	struct world_options world;
	const struct policy *chosen[POLICIES_MAX];
	uint32_t n;
	struct result results[POLICIES_MAX];
	int failures[POLICIES_MAX];
	atomic_uint_fast64_t passed[POLICIES_MAX]; /* simulated seconds */
	atomic_uint next, done;
};

static bool is_in_list(const char *list, const char *name)
{
	size_t len = strlen(name);

	while (list) {
		if (strncmp(list, name, len) == 0 && (!list[len] || list[len] == ','))
			return true;
		list = strchr(list, ',');
		list += list != NULL;
	}
	return false;
}

static void choose(struct replay *r, const char *list)
{
	for (const struct policy *const *p = policies; *p && r->n < POLICIES_MAX; p++) {
		if (is_in_list(list, (*p)->name) || is_in_list(list, "all"))
			r->chosen[r->n++] = *p;
	}
}

/* Whole hours, which is what the simulator runs: the last values hold until the end. */
static uint32_t hours_of(const struct recording *recording)
{
	double last = 0;

	for (size_t i = 0; i < recording->n_points; i++)
		last = recording->points[i].at_s > last ? recording->points[i].at_s : last;
	if (last >= HOURS_MAX * 3600.0)
		return HOURS_MAX;
	return last < 3600 ? 1 : (uint32_t)((last + 3599) / 3600);
}

static void *work(void *opaque)
{
	struct replay *r = opaque;
	uint32_t i;

	while ((i = atomic_fetch_add(&r->next, 1)) < r->n) {
		r->failures[i] = world_run(&r->world, r->chosen[i], &r->passed[i], &r->results[i]);
		atomic_fetch_add(&r->done, 1);
	}
	return NULL;
}

static void show(struct context *ctx, struct replay *r)
{
	double whole = r->world.hours * 3600.0 * r->n;
	struct progress progress;

	progress_begin(&progress, "replaying", &ctx->style);
	while (progress.on && atomic_load(&r->done) < r->n) {
		char text[64];
		double passed = 0;

		for (uint32_t i = 0; i < r->n; i++)
			passed += (double)atomic_load(&r->passed[i]);
		snprintf(text, sizeof(text), "%u of %u policies", atomic_load(&r->done), r->n);
		progress_show(&progress, passed / whole, text);
		usleep(SHOW_US);
	}
	progress_end(&progress);
}

static int run_all(struct context *ctx, struct replay *r)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t thread[POLICIES_MAX];
	uint32_t threads = 0;

	while (threads < r->n && (long)threads < processors &&
	       pthread_create(&thread[threads], NULL, work, r) == 0)
		threads++;
	if (threads)
		show(ctx, r);
	else
		work(r);
	for (uint32_t i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->failures[i] < 0)
			return r->failures[i];
	}
	return 0;
}

static const struct column columns[] = {
	{"POLICY", false},     {"STALL s", true},    {"WORST s", true},     {"OOM KILLS", true},
	{"UNAVOIDABLE", true}, {"GIVEN GiBh", true}, {"MOVED PAGES", true}, {"HOST SHORT s", true},
};

static void number_cell(struct table *t, double value, int decimals)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*f", decimals, value);
	table_text(t, PAINT_NONE, text);
}

/* In one line, as all that we print as JSON. */
static enum status print_as_json(struct context *ctx, const struct replay *r)
{
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);

	if (!file)
		return no_memory(ctx);
	output_json(file, &r->world, r->results, r->n, false);
	if (fclose(file) != 0) {
		free(text);
		return no_memory(ctx);
	}
	for (char *at = text; *at; at++)
		*at = *at == '\n' ? ' ' : *at;
	printf("{\"schema\": %d, \"replay\": %s}\n", JSON_SCHEMA, text);
	free(text);
	return STATUS_DONE;
}

static enum status print(struct context *ctx, const struct replay *r)
{
	struct table t;

	if (ctx->style.json)
		return print_as_json(ctx, r);
	if (ctx->style.table)
		printf("%u guests of %.1f GiB together on a host of %.1f GiB, for %u h\n\n",
		       r->world.guests, r->results[0].sizes / GIB, r->results[0].host_total / GIB,
		       r->world.hours);
	table_init(&t, &ctx->style, columns, sizeof(columns) / sizeof(columns[0]));
	for (uint32_t i = 0; i < r->n; i++) {
		const struct result *result = &r->results[i];

		table_text(&t, PAINT_NONE, result->policy->name);
		number_cell(&t, result->stall_s, 1);
		number_cell(&t, result->stall_max_s, 1);
		number_cell(&t, (double)result->kills, 0);
		number_cell(&t, (double)result->kills_unavoidable, 0);
		number_cell(&t, result->freed / GIB / 3600, 2);
		number_cell(&t, result->moved, 0);
		number_cell(&t, result->host_short_s, 0);
	}
	return print_table(ctx, &t);
}

static uint64_t or_else(struct given given, uint64_t otherwise)
{
	return given.is ? given.value : otherwise;
}

enum status verb_replay(struct context *ctx)
{
	struct replay r = {0};
	struct recording recording = {0};
	enum status status;
	int ret;

	if (access(ctx->o->arguments[0], R_OK) < 0)
		return failure_set(&ctx->failure, STATUS_FAILED, "%s: %s", ctx->o->arguments[0],
				   strerror(errno));
	if (ctx->o->budget.is && !ctx->o->budget.value)
		return failure_set(&ctx->failure, STATUS_USAGE, "--budget: at least 1");
	choose(&r, ctx->o->policy);
	/* Says itself which line is wrong. */
	if (recording_read(&recording, ctx->o->arguments[0]) < 0)
		return failure_set(&ctx->failure, STATUS_FAILED, "%s: not a recording",
				   ctx->o->arguments[0]);
	r.world = (struct world_options){
		.guests = recording.guests,
		.hours = hours_of(&recording),
		.seed = or_else(ctx->o->seed, 1),
		.own = (double)or_else(ctx->o->own, 50) / 100,
		.budget = (double)or_else(ctx->o->budget, 60) / 100,
		.floor = 0.25,
		.recording = &recording,
	};
	ret = run_all(ctx, &r);
	status = ret < 0 ? failure_set(&ctx->failure, STATUS_FAILED, "%s", strerror(-ret))
			 : print(ctx, &r);
	for (uint32_t i = 0; i < r.n; i++)
		result_free(&r.results[i]);
	recording_free(&recording);
	return status;
}
