// SPDX-License-Identifier: MIT
/* aerostat: what operators type. See options.h for the words, verbs.h for what they do. */
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "format.h"
#include "options.h"
#include "verbs.h"

#define TIMEOUT_MS    10000
#define WIDTH_UNKNOWN 80

/* own: it makes its connection itself, or needs none. */
static const struct {
	enum status (*run)(struct context *ctx);
	bool own;
} runs[] = {
	[VERB_LIST] = {verb_list, false},       [VERB_INFO] = {verb_info, false},
	[VERB_SET] = {verb_set, false},         [VERB_STATS] = {verb_stats, false},
	[VERB_EVENTS] = {verb_events, true},    [VERB_HEALTH] = {verb_health, false},
	[VERB_RESERVE] = {verb_reserve, true},  [VERB_RELEASE] = {verb_release, false},
	[VERB_EXPLAIN] = {verb_explain, false}, [VERB_RECORD] = {verb_record, false},
	[VERB_REPLAY] = {verb_replay, true},    [VERB_TOP] = {verb_top, true},
	[VERB_MONITOR] = {verb_monitor, true},  [VERB_RELOAD] = {verb_reload, false},
};
_Static_assert(sizeof(runs) / sizeof(runs[0]) == VERB_COUNT, "every verb does something");

static unsigned int terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return WIDTH_UNKNOWN;
}

static struct style find_style(const struct options *o)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	bool terminal = isatty(STDOUT_FILENO);
	struct style style = {.table = terminal || o->table, .json = o->json};

	style.unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	style.width = terminal_width();
	if (strcmp(o->color, "auto") == 0)
		style.colour =
			terminal && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
	else
		style.colour = strcmp(o->color, "always") == 0;
	style.colour &= style.table && !style.json;
	return style;
}

/* Whoever reads our output as JSON reads there what went wrong, too. */
static void print_failure(struct context *ctx)
{
	struct json_object *error = json_object_new_object();

	qmp_obj_add(&error, "status", json_object_new_int((int)ctx->failure.status));
	qmp_obj_add(&error, "text", json_object_new_string(ctx->failure.text));
	(void)print_json_member(ctx, "error", error);
}

static enum status run(struct context *ctx)
{
	enum verb_id id = ctx->o->verb->id;

	if (!runs[id].own) {
		ctx->control = control_open(ctx->o->control, "aerostatd", ctx->timeout_ms, NULL,
					    &ctx->failure);
		if (!ctx->control)
			return ctx->failure.status;
	}
	return runs[id].run(ctx);
}

static int finish(struct context *ctx, enum status status)
{
	char text[sizeof(ctx->failure.text)];

	if (status != STATUS_DONE) {
		if (ctx->style.json && !ctx->answered)
			print_failure(ctx);
		/* The words may be a monitor's, and the terminal is ours. */
		fprintf(stderr, "aerostat: %s\n",
			format_safe(ctx->failure.text, ctx->style.unicode, text, sizeof(text)));
	}
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "aerostat: the output cannot be written\n");
		return status == STATUS_DONE ? STATUS_FAILED : (int)status;
	}
	return (int)status;
}

int main(int argc, char **argv)
{
	struct options options;
	struct context ctx = {.o = &options, .timeout_ms = TIMEOUT_MS};
	enum status status;

	setlocale(LC_ALL, "");
	/* Numbers are read and written by programs, too. */
	setlocale(LC_NUMERIC, "C");
	status = options_parse(argc, argv, &options, &ctx.failure);
	if (status != STATUS_DONE) {
		ctx.style.json = options.json;
		ctx.style.unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
		return finish(&ctx, status);
	}
	if (options.version) {
		puts("aerostat " AEROSTAT_VERSION);
		return finish(&ctx, STATUS_DONE);
	}
	if (options.completion || options.help) {
		if (options.completion)
			completion_print(stdout, options.completion);
		else
			help_print(stdout, options.verb);
		return finish(&ctx, STATUS_DONE);
	}
	ctx.style = find_style(&options);
	if (options.timeout_ms.is)
		ctx.timeout_ms = options.timeout_ms.value;
	status = run(&ctx);
	control_close(ctx.control);
	return finish(&ctx, status);
}
