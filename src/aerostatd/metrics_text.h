/* SPDX-License-Identifier: MIT */
/*
 * Writing families of metrics as text: OpenMetrics 1.0, or the format of Prometheus before it
 * (0.0.4), which differs in the lines about a family and has no end mark.
 */
#ifndef AEROSTATD_METRICS_TEXT_H
#define AEROSTATD_METRICS_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "latency.h"
#include "qmp/json.h"

enum metrics_type {
	METRICS_GAUGE,
	METRICS_COUNTER,
	METRICS_INFO,
	METRICS_HISTOGRAM,
	METRICS_TYPE_COUNT,
};

struct metrics_family {
	const char *name; /* without the "_total" of a counter and the "_info" of an info */
	enum metrics_type type;
	const char *unit; /* the end of its name, or NULL */
	const char *help; /* without backslashes, quotes and line ends */
};

struct metrics_text {
	struct qmp_buf buf;
	bool openmetrics;
	const struct metrics_family *family; /* that samples belong to now */
	bool begun;                          /* its lines stand there */
};

/* Samples that follow are of this family. A family without samples does not appear. */
void metrics_family(struct metrics_text *t, const struct metrics_family *family);

/*
 * Begins a sample: its name, and labels as in `{vm="web"`, if len is not 0. metrics_label() adds
 * one, and metrics_value() ends it.
 */
void metrics_sample(struct metrics_text *t, const char *labels, size_t len);

/* key="value" behind the labels; `first`: there are none yet. value: see metrics_escape(). */
void metrics_label(struct metrics_text *t, bool first, const char *key, const char *value);

/* value, or value / 10^decimals with that many decimals; at most 9. labelled: there are labels. */
void metrics_value(struct metrics_text *t, bool labelled, uint64_t value, unsigned int decimals);

/* All samples of a histogram in seconds. */
void metrics_histogram(struct metrics_text *t, const struct latency *latency);

/*
 * text as the value of a label: backslash, quote and line end escaped, what is not UTF-8 or
 * controls a terminal replaced. room takes METRICS_ESCAPED_MAX(bytes of text) at most, with the
 * NUL. Returns the length.
 */
#define METRICS_ESCAPED_MAX(bytes) (2 * (bytes) + 1)
size_t metrics_escape(const char *text, char *room);

/* The end of the text. It is to be freed; NULL: out of memory on the way. */
char *metrics_end(struct metrics_text *t);

#endif
