// SPDX-License-Identifier: MIT
/* The host's lines, and the panes: why a virtual machine has what it has; the keys. */
#include <curses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_read.h"
#include "format.h"
#include "top_view.h"
#include "vm.h"

#define LINE_ROOM 512

/* --- the host -------------------------------------------------------------------------------- */

static bool is_true(struct json_object *obj, const char *key)
{
	bool value = false;

	return json_read_bool(obj, key, &value) && value;
}

/* "12.3G", "-" for what is not known. */
static const char *host_size(const struct view *v, const char *key, char *buf, size_t len)
{
	uint64_t value;

	if (json_read_u64(v->model->host, key, &value))
		return format_size(value, buf, len);
	return "-";
}

/* What is wrong, at the right end of the first line. */
static void draw_alarm(const struct view *v, uint64_t now_ms)
{
	struct json_object *host = v->model->host;
	char text[LINE_ROOM], size[FORMAT_ROOM];
	bool scarce = is_true(host, "scarce");
	int width;

	if (*v->lost)
		snprintf(text, sizeof(text), "NO CONNECTION for %s",
			 v->model->told_ms
				 ? format_age(now_ms - v->model->told_ms, size, sizeof(size))
				 : "a while");
	else
		snprintf(text, sizeof(text), "%s%s%s%s%s", scarce ? "SCARCE BY " : "",
			 scarce ? host_size(v, "unmet", size, sizeof(size)) : "", scarce ? " " : "",
			 is_true(host, "pressed") ? "UNDER PRESSURE " : "",
			 is_true(host, "dry-run") ? "DRY RUN" : "");
	width = (int)format_width(text);
	if (width)
		view_put(v, 0, COLS - width, width, view_paint(PAINT_BAD) | (unsigned int)A_BOLD,
			 false, text);
}

static void draw_title(const struct view *v, uint64_t now_ms)
{
	struct json_object *host = v->model->host, *some = json_read(host, "some-avg10");
	char text[LINE_ROOM], up[FORMAT_ROOM] = "-", psi[FORMAT_ROOM] = "-";
	uint64_t vms = 0, managed = 0, uptime = 0;

	json_read_u64(host, "vms", &vms);
	json_read_u64(host, "managed", &managed);
	if (json_read_u64(host, "uptime-ms", &uptime))
		format_age(uptime, up, sizeof(up));
	if (some)
		snprintf(psi, sizeof(psi), "%.1f %%", json_object_get_double(some));
	snprintf(text, sizeof(text), "aerostat top  %llu VMs, %llu managed  up %s  psi %s",
		 (unsigned long long)vms, (unsigned long long)managed, up, psi);
	view_put(v, 0, 0, COLS, (unsigned int)A_BOLD, false, host ? text : "aerostat top");
	draw_alarm(v, now_ms);
}

/* So many cells of one kind, beginning at x. Where the next begins. */
static int draw_part(const struct view *v, int x, double cells, const char *unicode,
		     const char *ascii, unsigned int attributes)
{
	int n = (int)(cells + 0.5);

	(void)attrset((int)attributes);
	for (int i = 0; i < n && x < COLS - 1; i++, x++)
		mvaddstr(1, x, v->style->unicode ? unicode : ascii);
	return x;
}

/* [guests' memory | others' | available | the reserve at its end] */
static void draw_bar(const struct view *v)
{
	struct json_object *host = v->model->host;
	uint64_t total = 0, available = 0, resident = 0, reserve = 0, other;
	double room = COLS - 2;
	int x = 1;

	if (!json_read_u64(host, "total", &total) || !total ||
	    !json_read_u64(host, "available", &available) || available > total) {
		view_put(v, 1, 0, COLS, view_paint(PAINT_DIM), false,
			 "nothing is known of the host's memory");
		return;
	}
	json_read_u64(host, "resident", &resident);
	json_read_u64(host, "reserve", &reserve);
	if (resident > total - available)
		resident = total - available;
	other = total - available - resident;
	(void)attrset(0);
	mvaddstr(1, 0, "[");
	x = draw_part(v, x, room * (double)resident / (double)total, "\u2588", "#",
		      view_paint(available < reserve ? PAINT_BAD : PAINT_GOOD));
	x = draw_part(v, x, room * (double)other / (double)total, "\u2592", "=",
		      view_paint(PAINT_WARN));
	if (available > reserve)
		x = draw_part(v, x, room * (double)(available - reserve) / (double)total, " ", " ",
			      0);
	draw_part(v, x, room, "\u2591", "-", view_paint(PAINT_DIM));
	(void)attrset(0);
	mvaddstr(1, COLS - 1, "]");
}

static void draw_numbers(const struct view *v)
{
	static const struct {
		const char *label, *key;
	} numbers[] = {
		{"host", "total"},      {"free", "available"},  {"guests", "resident"},
		{"reserve", "reserve"}, {"allowed", "allowed"}, {"promised", "promised"},
		{"for bursts", "pool"},
	};
	struct json_object *reservations = json_read_array(v->model->host, "reservations");
	char text[LINE_ROOM] = "", size[FORMAT_ROOM];
	size_t out = 0;

	if (reservations && json_object_array_length(reservations))
		out = (size_t)snprintf(text, sizeof(text), "reservations %zu ",
				       json_object_array_length(reservations));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		out += (size_t)snprintf(text + out, sizeof(text) - out, "%s %s ", numbers[i].label,
					host_size(v, numbers[i].key, size, sizeof(size)));
	view_put(v, 2, 0, COLS, 0, false, v->model->host ? text : "");
}

void view_draw_host(const struct view *v, uint64_t now_ms)
{
	draw_title(v, now_ms);
	draw_bar(v);
	draw_numbers(v);
}

/* --- panes ----------------------------------------------------------------------------------- */

/* Lines of a pane, of which those from `first` on are seen. */
struct page {
	const struct view *v;
	int y, lines;
	size_t at;
};

static void page_line(struct page *p, unsigned int attributes, const char *text)
{
	size_t first = p->v->pane_first;

	if (p->at >= first && p->at < first + (size_t)p->lines)
		view_put(p->v, p->y + (int)(p->at - first), 1, COLS - 1, attributes, false, text);
	p->at++;
}

/* A paragraph, its words broken at the screen's edge. */
static void page_text(struct page *p, const char *text)
{
	size_t room = COLS > 3 ? (size_t)COLS - 2 : 1;
	char line[LINE_ROOM] = "";
	size_t used = 0;

	if (room >= sizeof(line))
		room = sizeof(line) - 1;
	while (*text) {
		size_t n = strcspn(text, " ");

		n = n > room ? room : n;
		if (used && used + 1 + n > room) {
			page_line(p, 0, line);
			used = 0;
		}
		if (used)
			line[used++] = ' ';
		memcpy(line + used, text, n);
		used += n;
		line[used] = '\0';
		text += n;
		text += *text == ' ';
	}
	if (used)
		page_line(p, 0, line);
}

static void decision_line(struct page *p, struct json_object *d)
{
	char text[LINE_ROOM], age[FORMAT_ROOM] = "-", from[FORMAT_ROOM] = "-";
	char to[FORMAT_ROOM] = "-";
	const char *action = json_read_str(d, "action"), *reason = json_read_str(d, "reason");
	uint64_t value;

	if (json_read_u64(d, "age-ms", &value))
		format_age(value, age, sizeof(age));
	if (json_read_u64(d, "from", &value))
		format_size(value, from, sizeof(from));
	if (json_read_u64(d, "to", &value))
		format_size(value, to, sizeof(to));
	snprintf(text, sizeof(text), "%8s ago  %-8s %6s > %-6s  %s", age, action ? action : "-",
		 from, to, reason ? reason : "-");
	page_line(p, 0, text);
}

static void draw_explanation(struct page *p)
{
	struct json_object *decisions = json_read_array(p->v->explanation, "decisions");
	const char *text = json_read_str(p->v->explanation, "text");

	if (!p->v->explanation) {
		page_line(p, view_paint(PAINT_DIM), "waiting for aerostatd");
		return;
	}
	page_text(p, text ? text : "Nothing is known.");
	if (!decisions || !json_object_array_length(decisions))
		return;
	page_line(p, 0, "");
	for (size_t i = 0; i < json_object_array_length(decisions); i++)
		decision_line(p, json_object_array_get_idx(decisions, i));
}

static void draw_help(struct page *p)
{
	static const char *const lines[] = {
		"Up Down PgUp PgDn  choose a virtual machine; also Home, End, k, j",
		"n t a r f v h d    sort by name, target, actual, resident, free, verdict,",
		"                   health, age of the data; again: the other way round",
		"< >                sort by the column to the left or right",
		"/                  show only names with these letters; none: all",
		"s                  set a target: pins the machine at a size, or gives it",
		"                   back to the manager (auto)",
		"e Enter            explain why it has what it has; again or Esc: close",
		"Tab                scroll the explanation",
		"g                  graph of what it uses, or of what it keeps",
		"q                  quit",
		"",
		"TARGET  what it was told to keep    ACTUAL  what it keeps, by its driver",
		"RESID   what the host has for it    FREE    what its kernel has free",
		"AVAIL   what programs could have    AGE     of the guest's statistics",
		"A verdict with ? is judged by weaker signs. Bold: an emergency is going on.",
		"Bar: guests' memory, the host's own, available, and at its end the reserve.",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		page_line(p, 0, lines[i]);
}

void view_draw_pane(struct view *v, int y, int lines)
{
	struct page p = {.v = v, .y = y + 1, .lines = lines - 1};
	char title[VIEW_TEXT + 32];

	if (lines < 2)
		return;
	snprintf(title, sizeof(title), " %s%s",
		 v->pane == PANE_HELP ? "Keys (any key goes back)" : "Why: ",
		 v->pane == PANE_HELP ? "" : v->name);
	view_put(v, y, 0, COLS, (unsigned int)A_REVERSE, false, title);
	if (v->pane == PANE_HELP)
		draw_help(&p);
	else
		draw_explanation(&p);
	/* Scrolled beyond the end: to the begin again. */
	if (v->pane_first && v->pane_first >= p.at)
		v->pane_first = 0;
}
