// SPDX-License-Identifier: MIT
#include "metrics_text.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define DIGITS_MAX 32 /* of 2^64-1, with a point */

static const struct {
	const char *word, *word_before; /* of OpenMetrics, and of the format before */
	const char *suffix;             /* of its samples */
} types[] = {
	[METRICS_GAUGE] = {"gauge", "gauge", ""},
	[METRICS_COUNTER] = {"counter", "counter", "_total"},
	[METRICS_INFO] = {"info", "gauge", "_info"},
	[METRICS_HISTOGRAM] = {"histogram", "histogram", ""},
};
static_assert(sizeof(types) / sizeof(types[0]) == METRICS_TYPE_COUNT, "a row for every type");

static void append(struct metrics_text *t, const char *text)
{
	qmp_buf_append(&t->buf, text, strlen(text));
}

void metrics_family(struct metrics_text *t, const struct metrics_family *family)
{
	t->family = family;
	t->begun = false;
}

/* The lines about the family. Before OpenMetrics the name there was that of the samples. */
static void begin(struct metrics_text *t)
{
	const struct metrics_family *f = t->family;
	const char *suffix = t->openmetrics ? "" : types[f->type].suffix;
	const char *word = t->openmetrics ? types[f->type].word : types[f->type].word_before;

	t->begun = true;
	qmp_buf_printf(&t->buf, "# HELP %s%s %s.\n# TYPE %s%s %s\n", f->name, suffix, f->help,
		       f->name, suffix, word);
	if (t->openmetrics && f->unit)
		qmp_buf_printf(&t->buf, "# UNIT %s %s\n", f->name, f->unit);
}

void metrics_sample(struct metrics_text *t, const char *labels, size_t len)
{
	if (!t->begun)
		begin(t);
	append(t, t->family->name);
	append(t, types[t->family->type].suffix);
	if (len)
		qmp_buf_append(&t->buf, labels, len);
}

void metrics_label(struct metrics_text *t, bool first, const char *key, const char *value)
{
	append(t, first ? "{" : ",");
	append(t, key);
	append(t, "=\"");
	append(t, value);
	append(t, "\"");
}

/* At the end of room, which has DIGITS_MAX bytes, as printf is slow for what is written most; where
 * it begins. */
static char *number(char *room, uint64_t value, unsigned int decimals)
{
	size_t at = DIGITS_MAX - 1;

	room[at] = '\0';
	for (unsigned int i = 0; value || i <= decimals; i++) {
		if (i && i == decimals)
			room[--at] = '.';
		room[--at] = (char)('0' + value % 10);
		value /= 10;
	}
	return room + at;
}

void metrics_value(struct metrics_text *t, bool labelled, uint64_t value, unsigned int decimals)
{
	char room[DIGITS_MAX];

	append(t, labelled ? "} " : " ");
	append(t, number(room, value, decimals));
	append(t, "\n");
}

/* A bound as users write it: 0.0025, 1.0, 60.0. */
static const char *seconds(char *room, uint64_t us)
{
	char *text = number(room, us, 6), *end = text + strlen(text);

	while (end[-1] == '0' && end[-2] != '.')
		*--end = '\0';
	return text;
}

void metrics_histogram(struct metrics_text *t, const struct latency *latency)
{
	const char *name = t->family->name;
	uint64_t below = 0;
	char room[DIGITS_MAX];

	if (!t->begun)
		begin(t);
	for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
		below += latency->bucket[i];
		qmp_buf_printf(&t->buf, "%s_bucket{le=\"%s\"} %llu\n", name,
			       seconds(room, latency_bounds_us[i]), (unsigned long long)below);
	}
	qmp_buf_printf(&t->buf, "%s_bucket{le=\"+Inf\"} %llu\n%s_count %llu\n", name,
		       (unsigned long long)latency->count, name,
		       (unsigned long long)latency->count);
	qmp_buf_printf(&t->buf, "%s_sum %s\n", name, number(room, latency->sum_us, 6));
}

size_t metrics_escape(const char *text, char *room)
{
	size_t left = strlen(text);
	char *out = room;

	while (left) {
		size_t n = qmp_utf8_len(text, left);

		if (n == 0 || (n > 1 && qmp_utf8_is_control(text))) {
			*out++ = '?';
			n = n ? n : 1;
		} else if (n > 1) {
			memcpy(out, text, n);
			out += n;
		} else if (*text == '\n') {
			*out++ = '\\';
			*out++ = 'n';
		} else if ((unsigned char)*text < ' ' || *text == 0x7f) {
			*out++ = '?';
		} else {
			if (*text == '\\' || *text == '"')
				*out++ = '\\';
			*out++ = *text;
		}
		text += n;
		left -= n;
	}
	*out = '\0';
	return (size_t)(out - room);
}

char *metrics_end(struct metrics_text *t)
{
	qmp_buf_printf(&t->buf, "%s", t->openmetrics ? "# EOF\n" : "");
	if (t->buf.failed)
		qmp_buf_free(&t->buf);
	return t->buf.data;
}
