/* SPDX-License-Identifier: MIT */
/* What the verbs do. Each returns how the program ends; a failure has its words in ctx->failure. */
#ifndef AEROSTAT_VERBS_H
#define AEROSTAT_VERBS_H

#include <json-c/json.h>

#include "control.h"
#include "options.h"
#include "status.h"
#include "table.h"

/* Of what --json prints. Members may be added without another number. */
#define JSON_SCHEMA 1

struct context {
	const struct options *o;
	struct style style;
	struct control *control; /* for verbs that need one */
	uint64_t timeout_ms;
	bool answered; /* what was printed as JSON tells of the failure, too */
	struct failure failure;
};

enum status verb_list(struct context *ctx);
enum status verb_info(struct context *ctx);
enum status verb_set(struct context *ctx);
enum status verb_stats(struct context *ctx);
enum status verb_events(struct context *ctx);
enum status verb_health(struct context *ctx);
enum status verb_reserve(struct context *ctx);
enum status verb_release(struct context *ctx);
enum status verb_explain(struct context *ctx);
enum status verb_record(struct context *ctx);
enum status verb_replay(struct context *ctx);
enum status verb_top(struct context *ctx);
enum status verb_monitor(struct context *ctx);
enum status verb_reload(struct context *ctx);

/* --- what they share (ask.c) ----------------------------------------------------------------- */

/* Asks aerostatd. args: taken over; NULL: none. *value: a reference. */
enum status ask(struct context *ctx, const char *command, struct json_object *args,
		struct json_object **value);

/* The same about one virtual machine: {name: ...}. */
enum status ask_about(struct context *ctx, const char *command, const char *name,
		      struct json_object **value);

/* An array of virtual machines: the one of that name, or all for NULL. */
enum status ask_vms(struct context *ctx, const char *name, struct json_object **vms);

/* Prints {"schema": 1, ...members} in a line. members: an object, taken over. */
enum status print_json(struct context *ctx, struct json_object *members);

/* The same of one member. value: taken over. */
enum status print_json_member(struct context *ctx, const char *key, struct json_object *value);

/* Prints a table and frees it. */
enum status print_table(struct context *ctx, struct table *t);

/* Paragraphs, broken at the width of the terminal if there is one. */
void print_text(struct context *ctx, const char *text);

/* "out of memory" as the failure. */
enum status no_memory(struct context *ctx);

#endif
