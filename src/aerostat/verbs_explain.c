// SPDX-License-Identifier: MIT
/* explain: why a virtual machine has what it has. */
#include <stdio.h>

#include "common/json_read.h"
#include "verbs.h"
#include "vm.h"

static const struct column columns[] = {
	{"AGE", true},       {"ACTION", false},  {"REASON", false}, {"FROM", true},
	{"TO", true},        {"GOAL", true},     {"ACTUAL", true},  {"USED", true},
	{"AVAILABLE", true}, {"VERDICT", false},
};

static void decision_row(struct table *t, struct json_object *d)
{
	static const char *const sizes[] = {"from", "to", "goal", "actual", "used", "available"};
	uint64_t age = 0;
	bool known = json_read_u64(d, "age-ms", &age);

	table_age(t, known, age);
	table_text(t, PAINT_NONE, json_read_str(d, "action"));
	table_text(t, PAINT_NONE, json_read_str(d, "reason"));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		vm_size_cell(t, d, sizes[i]);
	table_text(t, PAINT_NONE, json_read_str(d, "verdict"));
}

enum status verb_explain(struct context *ctx)
{
	struct json_object *answer = NULL, *decisions;
	struct table t;
	const char *text, *judgement;
	enum status status = ask_about(ctx, "explain", ctx->o->arguments[0], &answer);

	if (status != STATUS_DONE)
		return status;
	if (ctx->style.json)
		return print_json(ctx, answer);
	text = json_read_str(answer, "text");
	judgement = json_read_str(json_read(answer, "judgement"), "text");
	decisions = json_read_array(answer, "decisions");
	print_text(ctx, text ? text : "Nothing is known.");
	if (judgement)
		print_text(ctx, judgement);
	if (decisions && json_object_array_length(decisions)) {
		putchar('\n');
		table_init(&t, &ctx->style, columns, sizeof(columns) / sizeof(columns[0]));
		for (size_t i = 0; i < json_object_array_length(decisions); i++)
			decision_row(&t, json_object_array_get_idx(decisions, i));
		status = print_table(ctx, &t);
	}
	json_object_put(answer);
	return status;
}
