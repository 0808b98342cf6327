// SPDX-License-Identifier: MIT
/*
 * The generator. Each kind has a function that appends the next points to the queue, a pattern at a
 * time: a burst, a job, five minutes of a day. The shares of memory and the times are chosen to
 * give a host that is half used on average and has every sort of guest that a policy meets; they
 * are no measurements. Who has measurements gives them as a file.
 */
#include "trace.h"

#include <assert.h>
#include <math.h>

#define HOUR_S 3600.0
#define DAY_S  (24 * HOUR_S)
#define PI     3.14159265358979323846

static const char *const kind_names[] = {
	[TRACE_DIURNAL] = "diurnal",   [TRACE_BURSTY] = "bursty",   [TRACE_BATCH] = "batch",
	[TRACE_STEADY] = "steady",     [TRACE_LEAKING] = "leaking", [TRACE_HUNG] = "hung",
	[TRACE_RECORDED] = "recorded",
};
static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == TRACE_KIND_COUNT, "a name for each");

/* Shares of the usable memory between which each kind's demand lies. */
static const struct {
	double low_from, low_to, high_from, high_to;
} levels[] = {
	[TRACE_DIURNAL] = {0.15, 0.30, 0.45, 0.75},
	[TRACE_BURSTY] = {0.15, 0.30, 0.50, 0.80},
	[TRACE_BATCH] = {0.08, 0.15, 0.60, 0.85},
	[TRACE_STEADY] = {0.20, 0.25, 0.25, 0.60},
	[TRACE_LEAKING] = {0.15, 0.25, 0.80, 0.95},
	[TRACE_HUNG] = {0.15, 0.30, 0.45, 0.75},
	[TRACE_RECORDED] = {0},
};
static_assert(sizeof(levels) / sizeof(levels[0]) == TRACE_KIND_COUNT, "levels for each kind");

/* A point so many seconds after the last. */
static void append(struct trace *t, double after_s, double bytes)
{
	assert(t->queued < TRACE_QUEUE);
	t->last.at_s += after_s;
	t->last.bytes = bytes > 0 ? bytes : 0;
	t->queue[t->queued++] = t->last;
}

static void make_day(struct trace *t)
{
	double step = 300, at = t->last.at_s + step + t->phase_s;
	double wave = (1 - cos(2 * PI * at / DAY_S)) / 2;
	double noise = rng_between(&t->rng, -0.04, 0.04);

	append(t, step, t->low + (t->high - t->low) * (wave + noise));
}

/* From low to high and back: waiting, rising, staying, falling. */
static void make_peak(struct trace *t, double wait_s, double rise_s, double stay_s, double fall_s)
{
	double top = t->low + (t->high - t->low) * rng_between(&t->rng, 0.6, 1.0);
	double low = t->low * rng_between(&t->rng, 0.9, 1.1);

	append(t, wait_s, t->last.bytes);
	append(t, rise_s, top);
	append(t, stay_s, top * rng_between(&t->rng, 0.95, 1.0));
	append(t, fall_s, low);
}

static void make_burst(struct trace *t)
{
	/* Waiting times as of independent events, half an hour on average. */
	double wait = -log(rng_between(&t->rng, 0.02, 1)) * HOUR_S / 2;

	make_peak(t, wait + 60, rng_between(&t->rng, 5, 60), rng_between(&t->rng, 60, 600),
		  rng_between(&t->rng, 5, 30));
}

static void make_job(struct trace *t)
{
	make_peak(t, rng_between(&t->rng, 1, 5) * HOUR_S, rng_between(&t->rng, 60, 180),
		  rng_between(&t->rng, 0.3, 1) * HOUR_S, rng_between(&t->rng, 5, 60));
}

static void make_steady(struct trace *t)
{
	append(t, 600, t->high * rng_between(&t->rng, 0.97, 1.0));
}

static void make_leak(struct trace *t)
{
	double top = t->high, grow = rng_between(&t->rng, 4, 12) * HOUR_S;

	if (rng_between(&t->rng, 0, 1) < 0.25)
		top *= 1.25; /* more than there is: the kernel has to kill it */
	append(t, grow, top);
	append(t, 10, t->low);
}

static void make(struct trace *t)
{
	static void (*const makers[])(struct trace *) = {
		[TRACE_DIURNAL] = make_day,   [TRACE_BURSTY] = make_burst, [TRACE_BATCH] = make_job,
		[TRACE_STEADY] = make_steady, [TRACE_LEAKING] = make_leak, [TRACE_HUNG] = make_day,
	};
	static_assert(sizeof(makers) / sizeof(makers[0]) == TRACE_RECORDED, "all but recorded");

	t->queued = t->taken = 0;
	if (t->kind != TRACE_RECORDED) {
		makers[t->kind](t);
		return;
	}
	if (t->recorded_left) {
		t->last = *t->recorded++;
		t->recorded_left--;
		t->queue[t->queued++] = t->last;
	} else {
		append(t, DAY_S, t->last.bytes); /* the record has ended: it stays as it was */
	}
}

static struct trace_point next_point(struct trace *t)
{
	if (t->taken == t->queued)
		make(t);
	return t->queue[t->taken++];
}

static void next_hang(struct trace *t)
{
	t->hang_from_s = t->hang_to_s + rng_between(&t->hang_rng, 2, 8) * HOUR_S;
	t->hang_to_s = t->hang_from_s + rng_between(&t->hang_rng, 300, HOUR_S);
}

void trace_init(struct trace *t, enum trace_kind kind, double usable, struct rng rng)
{
	*t = (struct trace){.kind = kind, .rng = rng};
	t->hang_rng = rng_stream(rng_next(&t->rng), 0);
	t->low = usable * rng_between(&t->rng, levels[kind].low_from, levels[kind].low_to);
	t->high = usable * rng_between(&t->rng, levels[kind].high_from, levels[kind].high_to);
	t->phase_s = rng_between(&t->rng, -3, 3) * HOUR_S;
	if (kind == TRACE_HUNG)
		next_hang(t);
	t->last.bytes = kind == TRACE_STEADY ? t->high : t->low;
	if (kind == TRACE_DIURNAL || kind == TRACE_HUNG)
		t->last.bytes += (t->high - t->low) * (1 - cos(2 * PI * t->phase_s / DAY_S)) / 2;
	/* Those with a period of hours have begun at some time before. */
	if (kind == TRACE_LEAKING)
		t->last.bytes += (t->high - t->low) * rng_between(&t->rng, 0, 0.3);
	t->before = t->last;
	t->after = next_point(t);
}

void trace_init_recorded(struct trace *t, const struct trace_point *points, size_t n)
{
	*t = (struct trace){.kind = TRACE_RECORDED, .recorded = points, .recorded_left = n};
	t->before = (struct trace_point){0, points[0].bytes};
	t->after = next_point(t);
}

double trace_demand(struct trace *t, double at_s)
{
	double span, part;

	while (t->after.at_s <= at_s) {
		t->before = t->after;
		t->after = next_point(t);
	}
	span = t->after.at_s - t->before.at_s;
	part = span > 0 ? (at_s - t->before.at_s) / span : 0;
	return t->before.bytes + (t->after.bytes - t->before.bytes) * part;
}

bool trace_hangs(struct trace *t, double at_s)
{
	if (t->kind != TRACE_HUNG)
		return false;
	while (t->hang_to_s <= at_s)
		next_hang(t);
	return at_s >= t->hang_from_s;
}

const char *trace_kind_name(enum trace_kind kind)
{
	return kind_names[kind];
}
