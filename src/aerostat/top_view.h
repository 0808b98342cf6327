/* SPDX-License-Identifier: MIT */
/* What is on the screen of top, and drawing it. */
#ifndef AEROSTAT_TOP_VIEW_H
#define AEROSTAT_TOP_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "table.h"
#include "top_model.h"

#define VIEW_TEXT 256

enum pane { PANE_NONE, PANE_EXPLAIN, PANE_HELP };

enum prompt {
	PROMPT_NONE,
	PROMPT_TARGET,  /* the size of a target */
	PROMPT_CONFIRM, /* that target: one key */
	PROMPT_FILTER,
};

/* All zero, but for model and style, is the start. */
struct view {
	struct model *model;
	const struct style *style;
	size_t selected,
		first;        /* of the shown rows: the chosen one, and the topmost on the screen */
	char name[VIEW_TEXT]; /* of the selected one, to find it again */
	bool graph_actual;    /* the graph is of what it keeps, and not of what it uses */
	uint64_t span_ms;     /* of a whole graph */
	enum pane pane;
	struct json_object *explanation; /* NULL: none yet */
	size_t pane_first;               /* line at its top */
	enum prompt prompt;
	char input[VIEW_TEXT];   /* what is being typed */
	char message[VIEW_TEXT]; /* in the last line */
	char lost[VIEW_TEXT];    /* why nothing new comes; empty: it does */
};

/* After rows have come, gone or been sorted: the same one is selected, if it is there. */
void view_keep_selection(struct view *v);

/* Moves the selection. */
void view_move(struct view *v, long by);
void view_select(struct view *v, size_t index);

/* Rows that fit on the screen. */
size_t view_page(const struct view *v);

/* NULL: none. */
struct row *view_row(const struct view *v);

void view_draw(struct view *v, uint64_t now_ms);

/* --- parts of the drawing, between its files ------------------------------------------------- */

/* So many lines from the top are the host's and the heading; one at the bottom is the status. */
#define VIEW_HEAD 4

/* Text at a place, in exactly so many cells. */
void view_put(const struct view *v, int y, int x, int cells, unsigned int attributes, bool right,
	      const char *text);

/* Curses' attributes of a paint. */
unsigned int view_paint(enum paint paint);

void view_draw_host(const struct view *v, uint64_t now_ms);
void view_draw_pane(struct view *v, int y, int lines);

#endif
