// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "qmp/json.h"
#include "verbs.h"

enum status no_memory(struct context *ctx)
{
	return failure_set(&ctx->failure, STATUS_FAILED, "out of memory");
}

enum status ask(struct context *ctx, const char *command, struct json_object *args,
		struct json_object **value)
{
	return control_ask(ctx->control, command, args, ctx->timeout_ms, value, &ctx->failure);
}

enum status ask_about(struct context *ctx, const char *command, const char *name,
		      struct json_object **value)
{
	struct json_object *args = json_object_new_object();

	qmp_obj_add(&args, "name", json_object_new_string(name));
	if (!args)
		return no_memory(ctx);
	return ask(ctx, command, args, value);
}

enum status ask_vms(struct context *ctx, const char *name, struct json_object **vms)
{
	struct json_object *vm = NULL;
	enum status status;

	if (!name) {
		status = ask(ctx, "query-vms", NULL, vms);
	} else {
		status = ask_about(ctx, "query-vm", name, &vm);
		if (status != STATUS_DONE)
			return status;
		*vms = json_object_new_array();
		qmp_arr_add(vms, vm);
		if (!*vms)
			return no_memory(ctx);
	}
	if (status == STATUS_DONE && !json_object_is_type(*vms, json_type_array)) {
		json_object_put(*vms);
		*vms = NULL;
		return failure_set(&ctx->failure, STATUS_FAILED,
				   "aerostatd's answer makes no sense: no list of VMs");
	}
	return status;
}

enum status print_json(struct context *ctx, struct json_object *members)
{
	struct json_object *all = json_object_new_object();
	struct qmp_buf buf = {0};
	enum status status = STATUS_DONE;

	qmp_obj_add(&all, "schema", json_object_new_int(JSON_SCHEMA));
	if (members) {
		json_object_object_foreach(members, key, value)
		{
			qmp_obj_add(&all, key, json_object_get(value));
		}
	}
	if (!all || !members || qmp_json_write(&buf, all) < 0 || qmp_buf_append(&buf, "\n", 1) < 0)
		status = no_memory(ctx);
	else
		fwrite(buf.data, 1, buf.len, stdout); /* errors are seen when all is flushed */
	fflush(stdout);
	qmp_buf_free(&buf);
	json_object_put(all);
	json_object_put(members);
	return status;
}

enum status print_json_member(struct context *ctx, const char *key, struct json_object *value)
{
	struct json_object *members = json_object_new_object();

	qmp_obj_add(&members, key, value);
	return print_json(ctx, members);
}

enum status print_table(struct context *ctx, struct table *t)
{
	if (table_finish(t, stdout) == -ENOMEM)
		return no_memory(ctx);
	fflush(stdout);
	return STATUS_DONE;
}

void print_text(struct context *ctx, const char *text)
{
	unsigned int column = 0, width = ctx->style.table ? ctx->style.width : 0;
	size_t room = strlen(text) + 1;
	char *safe = malloc(room);

	if (!safe)
		return;
	for (const char *at = format_safe(text, ctx->style.unicode, safe, room); *at;) {
		size_t n = strcspn(at, " ");
		char word[TABLE_CELL];
		unsigned int cells;

		snprintf(word, sizeof(word), "%.*s", (int)n, at);
		cells = n < sizeof(word) ? format_width(word) : (unsigned int)n;
		if (column && width && column + 1 + cells > width) {
			putchar('\n');
			column = 0;
		} else if (column) {
			putchar(' ');
			column++;
		}
		fwrite(at, 1, n, stdout);
		column += cells;
		at += n;
		at += *at == ' ';
	}
	putchar('\n');
	free(safe);
}
