// SPDX-License-Identifier: MIT
#include "edit.h"

#include <errno.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HISTORY_LINES 1000

struct edit {
	EditLine *line;
	History *history;
	const char *prompt;
	char *words;
	char path[512]; /* of the history's file; empty: none */
	char text[4096];
};

static char *tell_prompt(EditLine *line)
{
	static char text[128];
	struct edit *e = NULL;

	el_get(line, EL_CLIENTDATA, &e);
	snprintf(text, sizeof(text), "%s", e ? e->prompt : "");
	return text;
}

/* Below $XDG_STATE_HOME, which is made if need be. */
static void find_file(struct edit *e)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char base[400];
	int n;

	if (state && *state == '/')
		n = snprintf(base, sizeof(base), "%s", state);
	else if (home && *home == '/')
		n = snprintf(base, sizeof(base), "%s/.local/state", home);
	else
		return;
	if (n < 0 || (size_t)n >= sizeof(base))
		return;
	snprintf(e->path, sizeof(e->path), "%s/aerostat", base);
	/* What was typed is for its writer's eyes only. */
	if (mkdir(e->path, 0700) < 0 && errno != EEXIST) {
		e->path[0] = '\0';
		return;
	}
	snprintf(e->path, sizeof(e->path), "%s/aerostat/monitor_history", base);
}

/* Puts what all words with that begin have in common behind the cursor. */
static unsigned char complete(EditLine *line, int key)
{
	const LineInfo *info = el_line(line);
	size_t typed = (size_t)(info->cursor - info->buffer), common = 0, found = 0;
	char rest[128] = "";
	struct edit *e = NULL;

	(void)key;
	el_get(line, EL_CLIENTDATA, &e);
	if (!e || memchr(info->buffer, ' ', typed))
		return CC_ERROR;
	for (const char *at = e->words; *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");

		if (n >= typed && n - typed < sizeof(rest) - 1 &&
		    memcmp(at, info->buffer, typed) == 0) {
			size_t same = 0;

			while (found && same < common && same < n - typed &&
			       rest[same] == at[typed + same])
				same++;
			common = found ? same : n - typed;
			memcpy(rest, at + typed, common);
			found++;
		}
		at += n;
	}
	rest[common] = '\0';
	if (found == 1)
		memcpy(rest + common, " ", 2);
	if (!rest[0] || el_insertstr(line, rest) < 0)
		return CC_REFRESH_BEEP;
	return found == 1 ? CC_REFRESH : CC_REFRESH_BEEP;
}

struct edit *edit_begin(const char *prompt, const char *words)
{
	struct edit *e = calloc(1, sizeof(*e));
	HistEvent event;

	if (!e)
		return NULL;
	e->prompt = prompt;
	e->words = strdup(words);
	e->history = history_init();
	e->line = el_init("aerostat", stdin, stdout, stderr);
	if (!e->words || !e->history || !e->line) {
		edit_end(e);
		return NULL;
	}
	el_set(e->line, EL_CLIENTDATA, e);
	el_set(e->line, EL_PROMPT, tell_prompt);
	el_set(e->line, EL_EDITOR, "emacs");
	el_set(e->line, EL_SIGNAL, 1);
	/* In wide characters it keeps the names that it is given; of others, copies for ever. */
	el_wset(e->line, EL_ADDFN, L"aerostat-complete", L"Complete the command", complete);
	el_set(e->line, EL_BIND, "^I", "aerostat-complete", NULL);
	el_set(e->line, EL_BIND, "^R", "em-inc-search-prev", NULL);
	history(e->history, &event, H_SETSIZE, HISTORY_LINES);
	history(e->history, &event, H_SETUNIQUE, 1);
	el_set(e->line, EL_HIST, history, e->history);
	find_file(e);
	if (e->path[0])
		history(e->history, &event, H_LOAD, e->path);
	return e;
}

static void remember(struct edit *e)
{
	HistEvent event;
	mode_t mask;

	if (!e->text[0])
		return;
	history(e->history, &event, H_ENTER, e->text);
	if (!e->path[0])
		return;
	/* Now and not at the end, which may come by a signal. */
	mask = umask(077);
	history(e->history, &event, H_SAVE, e->path);
	umask(mask);
}

const char *edit_line(struct edit *e)
{
	int n = 0;
	const char *line = el_gets(e->line, &n);

	if (!line || n <= 0)
		return NULL;
	snprintf(e->text, sizeof(e->text), "%s", line);
	e->text[strcspn(e->text, "\r\n")] = '\0';
	remember(e);
	return e->text;
}

void edit_end(struct edit *e)
{
	if (!e)
		return;
	if (e->line)
		el_end(e->line);
	if (e->history)
		history_end(e->history);
	free(e->words);
	free(e);
}
