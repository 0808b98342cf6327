/* SPDX-License-Identifier: MIT */
/*
 * Rows of cells. For people: aligned columns under a heading, sizes with units, colours where the
 * style has them. For programs: a heading and rows with tabs between the cells, sizes in bytes,
 * times in milliseconds, "-" for what is not known.
 */
#ifndef AEROSTAT_TABLE_H
#define AEROSTAT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "qmp/json.h"

#define TABLE_COLUMNS_MAX 16
#define TABLE_CELL        256 /* bytes of a cell, with NUL; a longer one is cut */

/* How output looks: found once, see style.h. */
struct style {
	bool table;   /* for people */
	bool colour;  /* escape sequences that colour */
	bool unicode; /* not only ASCII */
	bool json;    /* neither of these: JSON */
	unsigned int width;
};

enum paint {
	PAINT_NONE,
	PAINT_GOOD,
	PAINT_WARN,
	PAINT_BAD,
	PAINT_DIM,
	PAINT_BOLD,
	PAINT_COUNT,
};

struct column {
	const char *title;
	bool right; /* aligned: numbers */
};

struct cell {
	char *text;
	enum paint paint;
};

struct table {
	const struct style *style;
	const struct column *columns;
	size_t n_columns;
	struct cell *cells;
	size_t n, room;
	bool failed; /* out of memory */
	bool bare;   /* no heading */
	bool steady; /* columns as wide in a table without a heading as with one */
};

/* columns: at most TABLE_COLUMNS_MAX, to stay where they are. */
void table_init(struct table *t, const struct style *style, const struct column *columns,
		size_t n_columns);
void table_free(struct table *t);

/* The next cell, row after row. text: what somebody else wrote; made safe here. NULL: not known. */
void table_text(struct table *t, enum paint paint, const char *text);

/* known false: a dash. */
void table_size(struct table *t, bool known, uint64_t bytes);
void table_age(struct table *t, bool known, uint64_t ms);
void table_count(struct table *t, bool known, uint64_t count);

/* Appends the whole of it to a text; incomplete rows are left out. 0 or -ENOMEM. */
int table_render(const struct table *t, struct qmp_buf *buf);

/* The same to a file, and frees the table. 0, -ENOMEM, -EIO. */
int table_finish(struct table *t, FILE *file);

/* The escape sequence that begins a paint, "" without colours; and the one that ends it. */
const char *paint_begin(const struct style *style, enum paint paint);
const char *paint_end(const struct style *style, enum paint paint);

#endif
