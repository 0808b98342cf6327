// SPDX-License-Identifier: MIT
#include "qmp/human.h"

#include <stdlib.h>
#include <string.h>

const struct qmp_type qmp_human_args =
	QMP_OBJECT(QMP_MEMBER("command-line", &qmp_str, "the command, in words"),
		   QMP_OPTIONAL("cpu-index", &qmp_int, "ignored; for clients of QEMU"));

static const struct qmp_human_command *find(const struct qmp_human_command *table, size_t count,
					    const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (!strcmp(table[i].name, name))
			return &table[i];
	}
	return NULL;
}

/* One line, as QEMU's: "[group ]name [args] -- help". */
static void help_line(const char *group, const char *name, const char *args, const char *help,
		      struct qmp_buf *text)
{
	qmp_buf_printf(text, "%s%s%s%s%s -- %s\n", group, *group ? " " : "", name, *args ? " " : "",
		       args, help);
}

static void help_table(const char *group, const struct qmp_human_command *table, size_t count,
		       struct qmp_buf *text)
{
	for (size_t i = 0; i < count; i++)
		help_line(group, table[i].name, table[i].args, table[i].help, text);
}

static void unknown(const char *group, const char *name, struct qmp_buf *text)
{
	qmp_buf_printf(text, "unknown command: '%s%s%s'\n", group, *group ? " " : "", name);
}

/* help [command [subcommand]] */
static void help(const struct qmp_human_command *table, size_t count, size_t argc,
		 char *const *argv, struct qmp_buf *text)
{
	const struct qmp_human_command *cmd;

	if (argc == 0)
		help_table("", table, count, text);
	if (argc == 0 || !strcmp(argv[0], "help")) {
		help_line("", "help", "[command]", "show what there is", text);
		return;
	}
	cmd = find(table, count, argv[0]);
	if (!cmd) {
		unknown("", argv[0], text);
	} else if (!cmd->sub) {
		help_table("", cmd, 1, text);
	} else if (argc == 1) {
		help_table(cmd->name, cmd->sub, cmd->n_sub, text);
	} else {
		const struct qmp_human_command *sub = find(cmd->sub, cmd->n_sub, argv[1]);

		if (sub)
			help_table(cmd->name, sub, 1, text);
		else
			unknown(cmd->name, argv[1], text);
	}
}

static enum qmp_outcome run_words(const struct qmp_human_command *table, size_t count,
				  struct qmp_request *req, size_t argc, char *const *argv,
				  struct qmp_buf *text, struct qmp_error *err)
{
	const struct qmp_human_command *cmd;
	const char *group = "";
	enum qmp_outcome outcome;

	if (argc == 0)
		return QMP_DONE;
	if (!strcmp(argv[0], "help")) {
		help(table, count, argc - 1, argv + 1, text);
		return QMP_DONE;
	}
	cmd = find(table, count, argv[0]);
	if (cmd && cmd->sub) {
		if (argc == 1) {
			help(table, count, argc, argv, text);
			return QMP_DONE;
		}
		group = cmd->name;
		argc--;
		argv++;
		cmd = find(cmd->sub, cmd->n_sub, argv[0]);
	}
	if (!cmd) {
		unknown(group, argv[0], text);
		return QMP_DONE;
	}
	if (argc - 1 < cmd->min_args || argc - 1 > cmd->max_args) {
		qmp_buf_printf(
			text, "%s: %s\nTry \"help %s%s%s\" for more information\n", cmd->name,
			argc - 1 < cmd->min_args ? "argument missing"
						 : "extraneous characters at the end of line",
			group, *group ? " " : "", cmd->name);
		return QMP_DONE;
	}
	outcome = cmd->handler(req, argc - 1, argv + 1, text, err);
	if (outcome == QMP_FAILED) {
		qmp_buf_printf(text, "Error: %s\n", err->desc);
		return QMP_DONE;
	}
	return outcome;
}

struct json_object *qmp_human_text(const struct qmp_buf *text)
{
	struct qmp_buf wire = {0};
	struct json_object *answer = NULL;

	for (size_t pos = 0, end; pos < text->len; pos = end + 1) {
		const char *line = text->data + pos;
		const char *stop = memchr(line, '\n', text->len - pos);

		end = stop ? (size_t)(stop - text->data) : text->len;
		qmp_buf_append(&wire, line, end - pos);
		qmp_buf_append(&wire, "\r\n", stop ? 2 : 0);
	}
	if (!text->failed && !wire.failed)
		answer = json_object_new_string_len(wire.data ? wire.data : "", (int)wire.len);
	qmp_buf_free(&wire);
	return answer;
}

enum qmp_outcome qmp_human_run(const struct qmp_human_command *table, size_t count,
			       struct qmp_request *req, struct json_object *args,
			       struct json_object **result, struct qmp_error *err)
{
	static const char blanks[] = " \t\r\n";
	char *words[QMP_HUMAN_MAX_WORDS], *line, *rest, *word;
	struct json_object *val = NULL;
	struct qmp_buf text = {0};
	enum qmp_outcome outcome = QMP_DONE;
	size_t n = 0;

	json_object_object_get_ex(args, "command-line", &val);
	line = strdup(val ? json_object_get_string(val) : "");
	if (!line) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "Out of memory");
		return QMP_FAILED;
	}
	for (word = strtok_r(line, blanks, &rest); word; word = strtok_r(NULL, blanks, &rest)) {
		if (n < QMP_HUMAN_MAX_WORDS)
			words[n] = word;
		n++;
	}
	if (n > QMP_HUMAN_MAX_WORDS)
		qmp_buf_printf(&text, "%s: extraneous characters at the end of line\n", words[0]);
	else
		outcome = run_words(table, count, req, n, words, &text, err);
	/* A failed append leaves no string, and the engine answers a missing one with an error. */
	if (outcome == QMP_DONE)
		*result = qmp_human_text(&text);
	qmp_buf_free(&text);
	free(line);
	return outcome;
}
