/* SPDX-License-Identifier: MIT */
#ifndef QMP_SCAN_H
#define QMP_SCAN_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#include "qmp/schema.h"

/*
 * Cuts an unframed stream of bytes into JSON texts: finds where one ends, keeps the limits, and
 * refuses what json-c would let through. What it does not check (the grammar between tokens) is
 * json-c's part. Rules for errors and recovery at the head of scan.c.
 */

#define QMP_MESSAGE_MAX (64u * 1024) /* bytes of one JSON text */
#define QMP_DEPTH_MAX   64u          /* brackets and braces open at once */
#define QMP_TOKENS_MAX  4096u        /* brackets, braces, commas, colons of one text */

/* Limits of one text for who needs others. 0 is the one above. */
struct qmp_limits {
	size_t bytes;
	size_t tokens;
};

enum qmp_scan_event {
	QMP_SCAN_MORE,  /* all bytes consumed, no text complete */
	QMP_SCAN_TEXT,  /* text[0..len) is complete, NUL behind it; valid until the next call */
	QMP_SCAN_ERROR, /* the text is refused; *err says why */
	QMP_SCAN_NOMEM, /* out of memory; the stream cannot be continued */
};

enum qmp_scan_state {
	QMP_SCAN_BETWEEN, /* entered at the start and after every token */
	QMP_SCAN_WORD,   /* in a number or literal; left at the first byte that is not part of it */
	QMP_SCAN_STRING, /* after the opening quote; left at the closing one */
	QMP_SCAN_ESCAPE, /* after a backslash in a string; left after one byte */
};

/*
 * All zero is the start. @limits may be set there. @text may be read after QMP_SCAN_TEXT, the rest
 * is private.
 */
struct qmp_scan {
	struct qmp_limits limits;
	struct qmp_buf text;
	size_t colons; /* in the text, outside of strings: the number of its members */
	size_t tokens;
	size_t braces;
	size_t brackets;
	size_t token_start; /* offset in text */
	enum qmp_scan_state state;
	bool discard;  /* refused already; skip to its end */
	bool complete; /* the last event was TEXT */
};

/*
 * Consumes bytes up to the first event. *@used: how many; call again with the rest. *@err is set
 * with QMP_SCAN_ERROR only.
 */
enum qmp_scan_event qmp_scan(struct qmp_scan *scan, const char *data, size_t len, size_t *used,
			     struct qmp_error *err);

/*
 * Makes a value of the text got with QMP_SCAN_TEXT: 0 and one reference in *@value (NULL is JSON's
 * null), or -EINVAL and why not in *@err: the grammar, a key that is there twice.
 * -ENOMEM: only where json-c tells; it may also call that a fault of grammar.
 */
int qmp_scan_parse(const struct qmp_scan *scan, struct json_object **value, struct qmp_error *err);

/* The text got with QMP_SCAN_TEXT has served; without this, the next call of qmp_scan() sees so. */
void qmp_scan_done(struct qmp_scan *scan);

/* Whether no text has begun: another scanner could take the stream over here. */
bool qmp_scan_at_start(const struct qmp_scan *scan);

void qmp_scan_free(struct qmp_scan *scan);

#endif
