/* SPDX-License-Identifier: MIT */
/*
 * Is the guest well? Judged by its statistics, which a guest that hangs stops sending.
 *
 * Facts go in: who is to send statistics and on what terms (health_observe), requests and arrivals.
 * A verdict comes out: health_update() says when it changes, health_next() when to look again.
 *
 * Time is counted only while the VM runs, so a stopped or suspended one is never late. The gap is
 * the time for which what is due has not come: since the last arrival while statistics are pushed,
 * since the request while one is unanswered, and 0 when nothing is due. It is measured in units of
 * the push interval; when pulling, of HEALTH_ANSWER_MS.
 *
 * What was found stays found until statistics arrive, and nothing but a guest's silence makes it
 * late: whenever the terms change (a stop, another interval, pull instead of push, a look that came
 * late because this process did not run), the verdict stays and the wait begins anew.
 *
 * Why 1.5 and 3: a guest that pushes on an absolute schedule skips at most the one tick at which
 * its last buffer was still on its way, and three silent ticks in a row are no accident.
 */
#ifndef POLICY_HEALTH_H
#define POLICY_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/instant.h"

/* How soon a driver answers a request for statistics, when it is well: milliseconds. */
#define HEALTH_ANSWER_MS 1000

/*
 * How much later than health_next() a look may come. One that is later than that was not late
 * because of the guest: this process stood still, and the guest perhaps with it (a frozen cgroup).
 */
#define HEALTH_LOOK_SLACK_MS 100

enum health_state {
	HEALTH_UNKNOWN,      /* nobody to judge, or nothing to judge by */
	HEALTH_PAUSED,       /* the VM does not run */
	HEALTH_HEALTHY,      /* what was due has come */
	HEALTH_SLOW,         /* it is overdue */
	HEALTH_UNRESPONSIVE, /* it is so much overdue that somebody should look */
	HEALTH_STATE_COUNT,
};

enum health_reason {
	HEALTH_NO_DRIVER,     /* unknown: no driver is at work */
	HEALTH_NO_STATISTICS, /* unknown: the driver has no statistics */
	HEALTH_NOT_ASKED,     /* unknown: statistics come on request, and nobody has asked */
	HEALTH_AWAITED,       /* unknown: the first ones are due, and not late */
	HEALTH_STOPPED,       /* paused: the queues are stopped */
	HEALTH_ON_TIME,       /* healthy: they come as they should */
	HEALTH_PUSH_LATE,     /* slow, unresponsive: they do not come by themselves */
	HEALTH_ANSWER_LATE,   /* slow, unresponsive: a request is not answered */
	HEALTH_REASON_COUNT,
};

/* Who is to send statistics, and on what terms. */
enum health_source {
	HEALTH_SOURCE_NONE,    /* no driver is at work; what was known of one is forgotten */
	HEALTH_SOURCE_UNABLE,  /* a driver without statistics */
	HEALTH_SOURCE_STOPPED, /* a driver whose queues are stopped: the VM does not run */
	HEALTH_SOURCE_PULL,    /* statistics come when they are asked for */
	HEALTH_SOURCE_PUSH,    /* statistics come every interval */
	HEALTH_SOURCE_COUNT,
};

/* When late is late. */
struct health_limits {
	uint32_t slow_milli;          /* over so many thousandths of a unit: slow; at least 1000 */
	uint32_t unresponsive_milli;  /* over so many: unresponsive; at least slow_milli */
	uint32_t unresponsive_min_ms; /* and not before that gap */
};

#define HEALTH_MILLI_MAX 1000000u /* of a factor: 1000 times */

#define HEALTH_LIMITS_DEFAULT                                                               \
	{                                                                                   \
		.slow_milli = 1500, .unresponsive_milli = 3000, .unresponsive_min_ms = 1000 \
	}

/* Plain data, fit to sit in shared memory. To be read by all, changed by the functions below. */
struct health {
	enum health_state state;
	enum health_reason reason;
	struct instant since; /* in this state */
	uint64_t changes;     /* of state, so far */

	struct health_limits limits;
	enum health_source source;
	uint32_t unit_ms; /* push interval, or HEALTH_ANSWER_MS */

	uint64_t looked_ms; /* the last call, by instant.mono_ms: time is counted up to then */
	uint64_t ran_ms;    /* time counted so far: all moments below are in it */
	uint64_t wait_from; /* while waiting: the gap began */
	uint64_t heard_at;  /* while heard: the last arrival was told */
	uint64_t heard_ms;  /* while heard: when it was, by instant.mono_ms */
	bool waiting;       /* something is due */
	bool heard;         /* there was an arrival from this driver */

	/* Found in a wait that is over: SLOW or UNRESPONSIVE stands until an arrival; else UNKNOWN.
	 */
	enum health_state found;
	enum health_reason found_reason;
};

/*
 * Begins without a driver. limits: NULL for the defaults above; factors outside of what struct
 * health_limits allows are moved to the nearest that it does.
 */
void health_init(struct health *h, const struct health_limits *limits, struct instant now);

/*
 * Tells the terms as they are now; to be called after anything that may have changed them, and any
 * number of times. interval_ms counts with HEALTH_SOURCE_PUSH only, and is at least 1. asked counts
 * with HEALTH_SOURCE_PULL only: a request has been made and has not been answered.
 */
void health_observe(struct health *h, enum health_source source, uint32_t interval_ms, bool asked,
		    struct instant now);

/*
 * Statistics arrived at `when`. A request that was made before is answered. The same arrival may be
 * told any number of times; one that is yet to come (it was by another machine's clock) is none.
 */
void health_arrived(struct health *h, struct instant when, struct instant now);

/* Another driver is at work from now on: forgets what was known of the last one. */
void health_forget(struct health *h, struct instant now);

/*
 * Judges. True if state has changed since the last call. What waits on the statistics queue should
 * be served before, so that a guest is not blamed for what this process has not read yet.
 */
bool health_update(struct health *h, struct instant now);

/* When health_update() would find something new without any event; UINT64_MAX: never. */
uint64_t health_next(const struct health *h);

/* The gap in milliseconds, see above. While the VM is stopped, what it was then. */
uint64_t health_gap_ms(const struct health *h, struct instant now);

/* Milliseconds that the VM ran since the last arrival; UINT64_MAX: there was none. */
uint64_t health_silence_ms(const struct health *h, struct instant now);

/* As the monitor has them, such as "unresponsive" and "push-late". */
const char *health_state_name(enum health_state state);
const char *health_reason_name(enum health_reason reason);

/* What the reason means, in a few words for people. */
const char *health_reason_text(enum health_reason reason);

#endif
