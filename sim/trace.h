/* SPDX-License-Identifier: MIT */
/*
 * What a guest's programs want: bytes of anonymous memory over time, as points with straight lines
 * between them. Either generated, or recorded in a file. A trace never depends on what the guest
 * gets, so every policy meets the same one.
 */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "rng.h"

enum trace_kind {
	TRACE_DIURNAL,  /* people: low at night, high by day, noise on top */
	TRACE_BURSTY,   /* little, and every half hour or so much, within seconds */
	TRACE_BATCH,    /* nearly nothing, and jobs of up to an hour every few hours */
	TRACE_STEADY,   /* always about the same */
	TRACE_LEAKING,  /* grows until it is started anew, one in four beyond what there is */
	TRACE_HUNG,     /* diurnal, but stands still for minutes, answering nothing */
	TRACE_RECORDED, /* from a file */
	TRACE_KIND_COUNT,
};

struct trace_point {
	double at_s;
	double bytes;
};

#define TRACE_QUEUE 8

struct trace {
	enum trace_kind kind;
	struct rng rng, hang_rng; /* apart: nobody needs to ask for both */
	double low, high;         /* bytes between which the demand moves */
	double phase_s;           /* where in the day this guest begins */
	double hang_from_s, hang_to_s;

	/* Points that come next; the generator fills in more when they are used up. */
	struct trace_point queue[TRACE_QUEUE];
	uint32_t queued, taken;
	struct trace_point last;   /* made last */
	struct trace_point before; /* the line that now holds runs from here */
	struct trace_point after;  /* to here */

	const struct trace_point *recorded;
	size_t recorded_left;
};

/* usable: bytes that programs of this guest can have if nothing is taken from it. */
void trace_init(struct trace *t, enum trace_kind kind, double usable, struct rng rng);

/* points: at least one, in the order of time; to stay where they are. */
void trace_init_recorded(struct trace *t, const struct trace_point *points, size_t n);

/* The demand at a time, in bytes. Times must not go backwards. */
double trace_demand(struct trace *t, double at_s);

/* Does the guest stand still at that time? Times must not go backwards. */
bool trace_hangs(struct trace *t, double at_s);

const char *trace_kind_name(enum trace_kind kind);

/* Traces from a file, sorted by guest. */
struct recording {
	struct trace_point *points;
	size_t n_points;
	uint32_t guests;
	size_t *first;   /* by guest, and one behind the last: the first of its points */
	double *highest; /* by guest: its highest demand in bytes */
};

/*
 * Reads lines "vm,seconds,bytes" with the names of machines in any order and each one's times
 * rising. Lines that begin with '#', and one that begins with "vm,", are left out. On failure a
 * message is on stderr: -EINVAL: a line that is none of these; -ENOMEM; or what opening gave.
 */
int recording_read(struct recording *r, const char *path);
void recording_free(struct recording *r);

#endif
