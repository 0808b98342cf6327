/* SPDX-License-Identifier: MIT */
#ifndef QMP_HUMAN_H
#define QMP_HUMAN_H

#include <stddef.h>

#include "qmp/schema.h"

/*
 * human-monitor-command: commands in words, answered by text. The program makes a table of these
 * and one row in its QMP table:
 *
 *	{.name = "human-monitor-command", .args = &qmp_human_args, .returns = &qmp_str,
 *	 .handler = human_monitor_command, .doc = "Run a command of the human monitor."}
 *
 * whose handler is one call of qmp_human_run(). `help [command]` is always there.
 */

#define QMP_HUMAN_MAX_WORDS 16 /* of a command line, the command's own included */

struct qmp_human_command {
	const char *name; /* one word */
	const char *args; /* as shown by help, such as "target"; "" if there are none */
	const char *help;
	size_t min_args; /* words that must follow, and may follow */
	size_t max_args;
	/* A group of commands below this word (`info`), instead of a handler. */
	const struct qmp_human_command *sub;
	size_t n_sub;
	/*
	 * Appends the answer, lines ended by "\n", to @text and returns QMP_DONE. QMP_FAILED: the
	 * user sees "Error: " and @err. QMP_DEFERRED: @text is ignored, and the text comes with
	 * qmp_request_complete(), made by qmp_human_text(). @argv is the words after the command
	 * and lives until the handler returns. Appends need no checks, struct qmp_buf is sticky.
	 */
	enum qmp_outcome (*handler)(struct qmp_request *req, size_t argc, char *const *argv,
				    struct qmp_buf *text, struct qmp_error *err);
};

/* Arguments as QEMU has them: command-line, and cpu-index, which is accepted and ignored. */
extern const struct qmp_type qmp_human_args;

/*
 * Runs the command line in @args (checked against qmp_human_args) with the @count commands of
 * @table. Parameters and result are those of a QMP handler. What is wrong with the line itself
 * is told in the text, as QEMU does, not as a QMP error.
 */
enum qmp_outcome qmp_human_run(const struct qmp_human_command *table, size_t count,
			       struct qmp_request *req, struct json_object *args,
			       struct json_object **result, struct qmp_error *err);

/*
 * The answer for @text. On the wire lines end in "\r\n", as QEMU's do: qmp-shell takes them apart
 * there. NULL if @text has failed, or out of memory.
 */
struct json_object *qmp_human_text(const struct qmp_buf *text);

#endif
