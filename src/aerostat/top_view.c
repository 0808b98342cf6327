// SPDX-License-Identifier: MIT
#include "top_view.h"

#include <curses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_read.h"
#include "format.h"
#include "vm.h"

#define NAME_MIN     10
#define NAME_MAX     24
#define GRAPH_MIN    8
#define GRAPH_MAX    60
#define GRAPH_TITLED 13 /* cells from which there is room to say what time it is of */
#define WIDE         96 /* columns from which there is room for one more number */

/* Columns between name and graph. */
static const struct {
	const char *title;
	int cells;
	enum sort_key sort;
	bool right, only_wide;
} columns[] = {
	{"TARGET", 6, SORT_TARGET, true, false},  {"ACTUAL", 6, SORT_ACTUAL, true, false},
	{"RESID", 6, SORT_RESIDENT, true, false}, {"FREE", 6, SORT_FREE, true, false},
	{"AVAIL", 6, SORT_AVAILABLE, true, true}, {"VERDICT", 11, SORT_VERDICT, false, false},
	{"HEALTH", 7, SORT_HEALTH, false, false}, {"AGE", 7, SORT_AGE, true, false},
};

#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]))

struct layout {
	int width, name, graph, graph_x;
	bool wide;
};

unsigned int view_paint(enum paint paint)
{
	switch (paint) {
	case PAINT_GOOD:
	case PAINT_WARN:
	case PAINT_BAD:
		return (unsigned int)COLOR_PAIR(paint);
	case PAINT_DIM:
		return (unsigned int)A_DIM;
	case PAINT_BOLD:
		return (unsigned int)A_BOLD;
	case PAINT_NONE:
	case PAINT_COUNT:
	default:
		return 0;
	}
}

void view_put(const struct view *v, int y, int x, int cells, unsigned int attributes, bool right,
	      const char *text)
{
	char safe[VIEW_TEXT * 2], fit[VIEW_TEXT * 2];
	int pad;

	if (cells > COLS - x)
		cells = COLS - x;
	if (cells <= 0 || y < 0 || y >= LINES)
		return;
	format_safe(text, v->style->unicode, safe, sizeof(safe));
	format_fit(safe, (unsigned int)cells, v->style->unicode, fit, sizeof(fit));
	pad = cells - (int)format_width(fit);
	(void)attrset((int)attributes);
	move(y, x);
	if (right)
		printw("%*s", pad, "");
	addstr(fit);
	if (!right)
		printw("%*s", pad, "");
}

/* --- selection ------------------------------------------------------------------------------- */

struct row *view_row(const struct view *v)
{
	return v->selected < v->model->n_shown ? v->model->shown[v->selected] : NULL;
}

size_t view_page(const struct view *v)
{
	int lines = LINES - VIEW_HEAD - 1;

	if (v->pane == PANE_EXPLAIN)
		lines /= 2;
	return lines > 1 ? (size_t)lines : 1;
}

void view_select(struct view *v, size_t index)
{
	const struct row *row;

	if (index >= v->model->n_shown)
		index = v->model->n_shown ? v->model->n_shown - 1 : 0;
	v->selected = index;
	row = view_row(v);
	snprintf(v->name, sizeof(v->name), "%s", row ? row->name : "");
}

void view_move(struct view *v, long by)
{
	long at = (long)v->selected + by;

	view_select(v, at > 0 ? (size_t)at : 0);
}

void view_keep_selection(struct view *v)
{
	size_t index = *v->name ? model_find(v->model, v->name) : v->model->n_shown;

	view_select(v, index < v->model->n_shown ? index : v->selected);
}

/* --- rows ------------------------------------------------------------------------------------ */

static struct layout find_layout(void)
{
	struct layout l = {.width = COLS, .wide = COLS >= WIDE};
	int fixed = 0;

	for (size_t i = 0; i < N_COLUMNS; i++)
		fixed += columns[i].only_wide && !l.wide ? 0 : columns[i].cells + 1;
	l.name = l.width - fixed - 1 - GRAPH_MIN;
	l.name = l.name < NAME_MIN ? NAME_MIN : l.name > NAME_MAX ? NAME_MAX : l.name;
	l.graph_x = l.name + fixed + 1;
	l.graph = l.width - l.graph_x;
	l.graph = l.graph < 0 ? 0 : l.graph > GRAPH_MAX ? GRAPH_MAX : l.graph;
	return l;
}

static void draw_heading(const struct view *v, const struct layout *l)
{
	const char *mark = v->style->unicode ? (v->model->reverse ? "\u25b2" : "\u25bc")
					     : (v->model->reverse ? "^" : "v");
	int x = l->name + 1, y = VIEW_HEAD - 1;
	unsigned int attributes = (unsigned int)A_REVERSE;
	char text[64], span[FORMAT_ROOM];

	view_put(v, y, 0, l->width, attributes, false, "");
	snprintf(text, sizeof(text), "NAME%s", v->model->sort == SORT_NAME ? mark : "");
	view_put(v, y, 0, l->name, attributes, false, text);
	for (size_t i = 0; i < N_COLUMNS; i++) {
		bool sorted = v->model->sort == columns[i].sort;

		if (columns[i].only_wide && !l->wide)
			continue;
		/* The mark stands in the gap where the title needs all the room. */
		snprintf(text, sizeof(text), "%s%s%s", columns[i].right && sorted ? mark : "",
			 columns[i].title, !columns[i].right && sorted ? mark : "");
		if (columns[i].right)
			view_put(v, y, x - 1, columns[i].cells + 1, attributes, true, text);
		else
			view_put(v, y, x, columns[i].cells, attributes, false, text);
		x += columns[i].cells + 1;
	}
	format_age(v->span_ms, span, sizeof(span));
	snprintf(text, sizeof(text), "%s%s%s", v->graph_actual ? "KEPT" : "USED",
		 l->graph < GRAPH_TITLED ? "" : ", ", l->graph < GRAPH_TITLED ? "" : span);
	view_put(v, y, l->graph_x, l->graph, attributes, false, text);
}

static void size_text(bool known, uint64_t bytes, char *buf, size_t len)
{
	if (known)
		format_size(bytes, buf, len);
	else
		snprintf(buf, len, "-");
}

/* The text of a cell that does not depend on whether statistics are fresh. */
static enum paint cell_text(struct json_object *vm, enum sort_key what, uint64_t later_ms,
			    char *buf, size_t len)
{
	static const char *const members[] = {
		[SORT_TARGET] = "target", [SORT_ACTUAL] = "actual", [SORT_RESIDENT] = "resident"};
	enum paint paint = PAINT_NONE;
	const char *health;
	uint64_t value = 0;
	bool known;

	switch (what) {
	case SORT_TARGET:
	case SORT_ACTUAL:
	case SORT_RESIDENT:
		known = json_read_u64(vm, members[what], &value);
		size_text(known, value, buf, len);
		break;
	case SORT_HEALTH:
		health = vm_health(vm, &paint);
		snprintf(buf, len, "%s", strcmp(health, "unresponsive") == 0 ? "unresp." : health);
		break;
	case SORT_AGE:
		if (vm_stats_age(vm, later_ms, &value))
			format_age(value, buf, len);
		else
			snprintf(buf, len, "-");
		break;
	case SORT_FREE:
	case SORT_AVAILABLE:
	case SORT_VERDICT:
	case SORT_NAME:
	case SORT_COUNT:
	default:
		buf[0] = '\0';
		break;
	}
	return paint;
}

/* What the guest says itself. */
static enum paint guest_text(struct json_object *vm, enum sort_key what, char *buf, size_t len)
{
	enum paint paint = PAINT_NONE;
	uint64_t value = 0;
	bool known;

	if (what == SORT_VERDICT) {
		vm_verdict(vm, &paint, buf, len);
		return paint;
	}
	known = vm_stat(vm, what == SORT_FREE ? "stat-free-memory" : "stat-available-memory",
			&value);
	size_text(known, value, buf, len);
	return paint;
}

static bool is_guests(enum sort_key what)
{
	return what == SORT_FREE || what == SORT_AVAILABLE || what == SORT_VERDICT;
}

static void draw_graph(const struct view *v, const struct row *row, const struct layout *l, int y,
		       unsigned int attributes)
{
	char line[3 * GRAPH_MAX + 1];
	uint64_t top = 0;

	if (!json_read_u64(row->vm, "size", &top))
		json_read_u64(row->vm, "ceiling", &top);
	sparkline(v->graph_actual ? &row->actual : &row->used, top, (unsigned int)l->graph,
		  v->style->unicode, line, sizeof(line));
	view_put(v, y, l->graph_x, l->graph, attributes, false, line);
}

static void draw_row(const struct view *v, const struct row *row, const struct layout *l, int y,
		     bool selected, uint64_t later_ms)
{
	unsigned int base = selected ? (unsigned int)A_REVERSE : 0;
	char text[VIEW_TEXT], instead[64];
	bool fresh = vm_fresh(row->vm, later_ms, instead, sizeof(instead)), emergency = false;
	int x = l->name + 1, span = 0, span_x = 0;

	json_read_bool(row->vm, "emergency", &emergency);
	base |= emergency ? (unsigned int)A_BOLD : 0;
	view_put(v, y, 0, l->width, base, false, "");
	view_put(v, y, 0, l->name, base, false, row->name);
	for (size_t i = 0; i < N_COLUMNS; i++) {
		enum sort_key what = columns[i].sort;
		enum paint paint;

		if (columns[i].only_wide && !l->wide)
			continue;
		if (is_guests(what) && !fresh) {
			span_x = span_x ? span_x : x;
			span = x + columns[i].cells - span_x;
		} else {
			paint = is_guests(what)
					? guest_text(row->vm, what, text, sizeof(text))
					: cell_text(row->vm, what, later_ms, text, sizeof(text));
			view_put(v, y, x, columns[i].cells, base | view_paint(paint),
				 columns[i].right, text);
		}
		x += columns[i].cells + 1;
	}
	/* One text in the place of all that the guest would have said. */
	if (!fresh)
		view_put(v, y, span_x, span, base | view_paint(PAINT_WARN), false, instead);
	draw_graph(v, row, l, y, base);
}

static void draw_rows(struct view *v, int lines, uint64_t now_ms)
{
	struct layout l = find_layout();
	uint64_t later = v->model->told_ms ? now_ms - v->model->told_ms : 0;
	size_t page = lines > 0 ? (size_t)lines : 0;

	if (v->selected < v->first)
		v->first = v->selected;
	if (page && v->selected >= v->first + page)
		v->first = v->selected - page + 1;
	if (v->first && v->model->n_shown < v->first + page)
		v->first = v->model->n_shown > page ? v->model->n_shown - page : 0;
	draw_heading(v, &l);
	for (size_t i = 0; i < page && v->first + i < v->model->n_shown; i++)
		draw_row(v, v->model->shown[v->first + i], &l, VIEW_HEAD + (int)i,
			 v->first + i == v->selected, later);
	if (v->model->n_shown == 0)
		view_put(v, VIEW_HEAD, 0, COLS, view_paint(PAINT_DIM), false,
			 !v->model->told_ms ? "waiting for aerostatd"
			 : v->model->n      ? "no name matches the filter (/)"
					    : "no virtual machines");
}

/* --- the last line --------------------------------------------------------------------------- */

static void draw_status(const struct view *v)
{
	char text[3 * VIEW_TEXT];
	unsigned int attributes = 0;

	switch (v->prompt) {
	case PROMPT_TARGET:
		snprintf(text, sizeof(text), "Keep %s at (size; auto: as configured; Esc: no): %s",
			 v->name, v->input);
		break;
	case PROMPT_CONFIRM:
		snprintf(text, sizeof(text), "%s %s%s%s? (y/n)",
			 strcmp(v->input, "auto") == 0 ? "Manage as configured:" : "Pin", v->name,
			 strcmp(v->input, "auto") == 0 ? "" : " at ",
			 strcmp(v->input, "auto") == 0 ? "" : v->input);
		break;
	case PROMPT_FILTER:
		snprintf(text, sizeof(text), "Only names with: %s", v->input);
		break;
	case PROMPT_NONE:
	default:
		if (*v->message) {
			snprintf(text, sizeof(text), "%s", v->message);
			attributes = (unsigned int)A_BOLD;
		} else {
			snprintf(text, sizeof(text),
				 "%zu of %zu%s%s   ? help  s set  e explain  / filter  < > sort  "
				 "g graph  q quit",
				 v->model->n_shown ? v->selected + 1 : 0, v->model->n_shown,
				 *v->model->filter ? "  only: " : "", v->model->filter);
		}
		break;
	}
	view_put(v, LINES - 1, 0, COLS, attributes, false, text);
	if (v->prompt == PROMPT_TARGET || v->prompt == PROMPT_FILTER) {
		int x = (int)format_width(text);

		move(LINES - 1, x < COLS ? x : COLS - 1);
		curs_set(1);
	} else {
		curs_set(0);
	}
}

void view_draw(struct view *v, uint64_t now_ms)
{
	int lines = LINES - VIEW_HEAD - 1, rows = (int)view_page(v);

	erase();
	view_draw_host(v, now_ms);
	if (v->pane == PANE_HELP) {
		view_draw_pane(v, VIEW_HEAD - 1, lines + 1);
	} else {
		draw_rows(v, rows < lines ? rows : lines, now_ms);
		if (v->pane == PANE_EXPLAIN)
			view_draw_pane(v, VIEW_HEAD + rows, lines - rows);
	}
	draw_status(v);
	refresh();
}
