// SPDX-License-Identifier: MIT
/*
 * monitor: people's commands to a virtual machine's own monitor, by human-monitor-command over its
 * QMP socket. On a terminal with line editing; else a line of stdin is a command.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json_read.h"
#include "edit.h"
#include "format.h"
#include "verbs.h"

#define COMMAND_MS 30000 /* some commands take their time: a snapshot, a dump */
#define WORDS_ROOM 16384
#define PATH_ROOM  512

struct session {
	struct context *ctx;
	bool interactive;
	char prompt[TABLE_CELL];
};

/* Several lines that somebody else wrote. */
static void print_lines(struct context *ctx, FILE *file, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n");
		char *line = strndup(text, n), *safe = malloc(n + 1);

		if (line && safe) {
			/* HMP ends lines with "\r\n", and has tabs in its tables. */
			if (n && line[n - 1] == '\r')
				line[n - 1] = '\0';
			for (char *part = line, *next; part; part = next) {
				next = strchr(part, '\t');
				if (next)
					*next++ = '\0';
				fputs(format_safe(part, ctx->style.unicode, safe, n + 1), file);
				if (next)
					fputc('\t', file);
			}
			fputc('\n', file);
		}
		free(line);
		free(safe);
		text += n;
		text += *text == '\n';
	}
	fflush(file);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	struct session *s = opaque;
	char name[64];

	if (s->interactive && !s->ctx->style.json)
		printf("(event %s)\n",
		       format_safe(event->name, s->ctx->style.unicode, name, sizeof(name)));
}

static enum status ask_human(struct context *ctx, const char *line, struct json_object **answer)
{
	struct json_object *args = json_object_new_object();
	uint64_t ms = ctx->o->timeout_ms.is ? ctx->timeout_ms : COMMAND_MS;

	qmp_obj_add(&args, "command-line", json_object_new_string(line));
	if (!args)
		return no_memory(ctx);
	return control_ask(ctx->control, "human-monitor-command", args, ms, answer, &ctx->failure);
}

static enum status run_line(struct session *s, const char *line)
{
	struct json_object *answer = NULL, *members;
	enum status status = ask_human(s->ctx, line, &answer);
	const char *text = json_object_is_type(answer, json_type_string)
				   ? json_object_get_string(answer)
				   : NULL;

	if (s->ctx->style.json) {
		members = json_object_new_object();
		qmp_obj_add(&members, "command", json_object_new_string(line));
		if (status == STATUS_DONE)
			qmp_obj_add(&members, "return", json_object_get(answer));
		else
			qmp_obj_add(&members, "error",
				    json_object_new_string(s->ctx->failure.text));
		(void)print_json(s->ctx, members);
	} else if (status == STATUS_DONE && text) {
		print_lines(s->ctx, stdout, text);
	} else if (status != STATUS_DONE) {
		fputs("aerostat: ", stderr);
		print_lines(s->ctx, stderr, s->ctx->failure.text);
	}
	json_object_put(answer);
	return status;
}

/* Is the connection still there? */
static bool alive(struct session *s)
{
	struct failure ignored;

	return control_wait(s->ctx->control, 0, &ignored) == STATUS_DONE;
}

/* First words of the lines of its help, for completion. */
static void find_words(struct session *s, char *words, size_t len)
{
	struct json_object *answer = NULL;
	const char *at = NULL;
	size_t out = 0;

	if (ask_human(s->ctx, "help", &answer) == STATUS_DONE &&
	    json_object_is_type(answer, json_type_string))
		at = json_object_get_string(answer);
	while (at && *at && out + 64 < len) {
		size_t n = strcspn(at, " |\r\n");

		if (n && n < 60)
			out += (size_t)snprintf(words + out, len - out, "%.*s ", (int)n, at);
		at += strcspn(at, "\n");
		at += *at == '\n';
	}
	words[out] = '\0';
	json_object_put(answer);
}

static bool is_quit(const char *line)
{
	line += strspn(line, " \t");
	return strcmp(line, "quit") == 0 || strcmp(line, "q") == 0;
}

static enum status run_interactive(struct session *s)
{
	char *words = calloc(1, WORDS_ROOM);
	enum status status = STATUS_DONE;
	struct edit *e;
	const char *line;

	if (!words)
		return no_memory(s->ctx);
	find_words(s, words, WORDS_ROOM);
	e = edit_begin(s->prompt, words);
	free(words);
	if (!e)
		return no_memory(s->ctx);
	if (!s->ctx->style.json)
		puts("The machine's own monitor; help lists its commands. Leave with exit or "
		     "Ctrl-D.");
	while ((line = edit_line(e))) {
		if (strcmp(line, "exit") == 0)
			break;
		if (is_quit(line)) {
			puts("quit would end the virtual machine. Leave with exit or Ctrl-D; "
			     "\"quit!\" to really end it.");
			continue;
		}
		if (strcmp(line, "quit!") == 0)
			line = "quit";
		if (*line)
			(void)run_line(s, line);
		if (!alive(s)) {
			status = failure_set(&s->ctx->failure, STATUS_FAILED,
					     "the monitor has closed the connection");
			break;
		}
	}
	if (!line)
		putchar('\n');
	edit_end(e);
	return status;
}

/* All lines are run, also behind one that failed; that is told at the end. */
static enum status run_lines(struct session *s)
{
	enum status status = STATUS_DONE, one;
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) >= 0) {
		line[strcspn(line, "\r\n")] = '\0';
		if (!*line)
			continue;
		one = run_line(s, line);
		if (one != STATUS_DONE)
			status = one;
		if (one != STATUS_DONE && !alive(s))
			break;
	}
	free(line);
	if (status != STATUS_DONE)
		failure_set(&s->ctx->failure, status, "not every command was answered");
	return status;
}

/* Where its monitor is: asked from aerostatd, unless it is a path itself. */
static enum status find_path(struct context *ctx, char *path, size_t len)
{
	const char *name = ctx->o->arguments[0], *monitor;
	struct json_object *vm = NULL;
	enum status status;

	if (strchr(name, '/')) {
		snprintf(path, len, "%s", name);
		return STATUS_DONE;
	}
	ctx->control =
		control_open(ctx->o->control, "aerostatd", ctx->timeout_ms, NULL, &ctx->failure);
	if (!ctx->control)
		return ctx->failure.status;
	status = ask_about(ctx, "query-vm", name, &vm);
	control_close(ctx->control);
	ctx->control = NULL;
	if (status != STATUS_DONE)
		return status;
	monitor = json_read_str(vm, "monitor");
	if (!monitor || *monitor != '/')
		status =
			failure_set(&ctx->failure, STATUS_FAILED, "%s has no monitor socket", name);
	else
		snprintf(path, len, "%s", monitor);
	json_object_put(vm);
	return status;
}

enum status verb_monitor(struct context *ctx)
{
	struct session s = {.ctx = ctx};
	struct control_hooks hooks = {.event = on_event, .opaque = &s, .machine = true};
	char path[PATH_ROOM], name[TABLE_CELL - 4];
	enum status status = find_path(ctx, path, sizeof(path));

	if (status != STATUS_DONE)
		return status;
	ctx->control = control_open(path, "the monitor", ctx->timeout_ms, &hooks, &ctx->failure);
	if (!ctx->control)
		return ctx->failure.status;
	ctx->answered = true; /* each command's failure stands beside it */
	s.interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	snprintf(s.prompt, sizeof(s.prompt), "(%s) ",
		 format_safe(ctx->o->arguments[0], ctx->style.unicode, name, sizeof(name)));
	return s.interactive ? run_interactive(&s) : run_lines(&s);
}
