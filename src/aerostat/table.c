// SPDX-License-Identifier: MIT
#include "table.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

static const char *const paints[] = {
	[PAINT_NONE] = "",        [PAINT_GOOD] = "\033[32m", [PAINT_WARN] = "\033[33m",
	[PAINT_BAD] = "\033[31m", [PAINT_DIM] = "\033[2m",   [PAINT_BOLD] = "\033[1m",
};
static_assert(sizeof(paints) / sizeof(paints[0]) == PAINT_COUNT, "a sequence for every paint");

const char *paint_begin(const struct style *style, enum paint paint)
{
	return style->colour ? paints[paint] : "";
}

const char *paint_end(const struct style *style, enum paint paint)
{
	return style->colour && paint != PAINT_NONE ? "\033[0m" : "";
}

void table_init(struct table *t, const struct style *style, const struct column *columns,
		size_t n_columns)
{
	*t = (struct table){.style = style, .columns = columns, .n_columns = n_columns};
}

void table_free(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i].text);
	free(t->cells);
	t->cells = NULL;
	t->n = t->room = 0;
}

static void add(struct table *t, enum paint paint, const char *text)
{
	char safe[TABLE_CELL];
	struct cell *cells;

	if (t->failed)
		return;
	if (t->n == t->room) {
		size_t room = t->room ? 2 * t->room : 64;

		cells = realloc(t->cells, room * sizeof(*cells));
		if (!cells) {
			t->failed = true;
			return;
		}
		t->cells = cells;
		t->room = room;
	}
	t->cells[t->n].paint = paint;
	t->cells[t->n].text = strdup(format_safe(text, t->style->unicode, safe, sizeof(safe)));
	if (t->cells[t->n].text)
		t->n++;
	else
		t->failed = true;
}

void table_text(struct table *t, enum paint paint, const char *text)
{
	add(t, paint, text && *text ? text : "-");
}

static void number(struct table *t, bool known, uint64_t value,
		   char *(*format)(uint64_t, char *, size_t))
{
	char text[FORMAT_ROOM];

	if (!known)
		add(t, PAINT_DIM, "-");
	else if (!t->style->table)
		snprintf(text, sizeof(text), "%" PRIu64, value);
	else
		format(value, text, sizeof(text));
	if (known)
		add(t, PAINT_NONE, text);
}

void table_size(struct table *t, bool known, uint64_t bytes)
{
	number(t, known, bytes, format_size);
}

void table_age(struct table *t, bool known, uint64_t ms)
{
	number(t, known, ms, format_age);
}

void table_count(struct table *t, bool known, uint64_t count)
{
	number(t, known, count, format_count);
}

static void blanks(struct qmp_buf *buf, unsigned int n)
{
	qmp_buf_printf(buf, "%*s", (int)n, "");
}

static void render_cell(const struct table *t, const char *text, enum paint paint, size_t column,
			unsigned int width, struct qmp_buf *buf)
{
	unsigned int own = format_width(text), pad = width > own ? width - own : 0;
	bool last = column + 1 == t->n_columns;

	if (t->columns[column].right)
		blanks(buf, pad);
	qmp_buf_printf(buf, "%s%s%s", paint_begin(t->style, paint), text,
		       paint_end(t->style, paint));
	if (!t->columns[column].right && !last)
		blanks(buf, pad);
	qmp_buf_append(buf, last ? "\n" : "  ", last ? 1 : 2);
}

static void render_aligned(const struct table *t, size_t rows, struct qmp_buf *buf)
{
	unsigned int width[TABLE_COLUMNS_MAX];

	for (size_t c = 0; c < t->n_columns; c++) {
		width[c] = t->bare && !t->steady ? 0 : format_width(t->columns[c].title);
		for (size_t r = 0; r < rows; r++) {
			unsigned int w = format_width(t->cells[r * t->n_columns + c].text);

			width[c] = w > width[c] ? w : width[c];
		}
	}
	for (size_t c = 0; c < t->n_columns && !t->bare; c++)
		render_cell(t, t->columns[c].title, PAINT_BOLD, c, width[c], buf);
	for (size_t i = 0; i < rows * t->n_columns; i++) {
		size_t c = i % t->n_columns;

		render_cell(t, t->cells[i].text, t->cells[i].paint, c, width[c], buf);
	}
}

/* Blanks around a title are there to make its column wider, which is for people. */
static void render_title(const char *title, bool tab, struct qmp_buf *buf)
{
	size_t len;

	title += strspn(title, " ");
	len = strlen(title);
	while (len && title[len - 1] == ' ')
		len--;
	qmp_buf_printf(buf, "%s%.*s", tab ? "\t" : "", (int)len, title);
}

static void render_plain(const struct table *t, size_t rows, struct qmp_buf *buf)
{
	for (size_t c = 0; c < t->n_columns && !t->bare; c++)
		render_title(t->columns[c].title, c != 0, buf);
	if (!t->bare)
		qmp_buf_append(buf, "\n", 1);
	for (size_t i = 0; i < rows * t->n_columns; i++) {
		bool last = (i + 1) % t->n_columns == 0;

		qmp_buf_printf(buf, "%s%s", t->cells[i].text, last ? "\n" : "\t");
	}
}

int table_render(const struct table *t, struct qmp_buf *buf)
{
	size_t rows = t->n / t->n_columns;

	assert(t->n_columns <= TABLE_COLUMNS_MAX);
	if (t->failed)
		return -ENOMEM;
	if (t->style->table)
		render_aligned(t, rows, buf);
	else
		render_plain(t, rows, buf);
	return buf->failed ? -ENOMEM : 0;
}

int table_finish(struct table *t, FILE *file)
{
	struct qmp_buf buf = {0};
	int ret = table_render(t, &buf);

	if (ret == 0 && buf.len && fwrite(buf.data, 1, buf.len, file) != buf.len)
		ret = -EIO;
	qmp_buf_free(&buf);
	table_free(t);
	return ret;
}
