/* SPDX-License-Identifier: MIT */
/*
 * How much memory does a guest need? An estimate that follows its statistics: at once when the need
 * grows, slowly when it falls.
 *
 * Everything here counts what the guest must *keep*: memory of the VM without the balloon,
 * including what its kernel never shows (the difference between the VM's size and MEMTOT of an
 * empty balloon). So the figures can be compared to targets directly.
 *
 *     used      what it has minus what is available to it (MemAvailable), now
 *     working   the highest `used` of late; decays with DEMAND_DECAY_MS
 *     growth    bytes a second that `used` rises, the highest of late; decays
 *     headroom  what it may want before we could answer: growth times the time that we need, and
 *               more when it has run short, doubling while it stays short
 *     margin    what even a guest that does nothing should have left
 *     cache     of its file caches, what seems worth keeping
 *     idle      of what is free, what it will not have filled by its next sample, by how it went
 *     spare     what stayed free while the balloon was at rest, and will, by how it went
 *
 * Stock Linux takes pages in the balloon out of MEMTOT, unless DEFLATE_ON_OOM is negotiated. Which
 * of the two a guest does is found out by looking (counts_balloon). While the balloon moves,
 * samples and `actual` do not belong together: a guest whose MEMTOT follows the balloon is then
 * measured by that, and of any other only a shortage is believed.
 */
#ifndef POLICY_DEMAND_H
#define POLICY_DEMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/stats.h"

/*
 * Time constant with which the peak of `used` is forgotten. Long enough for a program that frees
 * and allocates its heap a few times a minute, short enough that another guest can have the memory
 * when work moves on.
 */
#define DEMAND_DECAY_MS 30000

/* The same for growth, and for caches when they shrink and when they grow. */
#define DEMAND_GROWTH_DECAY_MS 3000
#define DEMAND_CACHE_FALL_MS   300000
#define DEMAND_CACHE_RISE_MS   10000

/* Growth is measured over at least and over about that long: jitter of 1 MiB is then no storm. */
#define DEMAND_GROWTH_SPAN_MS   250
#define DEMAND_GROWTH_WINDOW_MS 1000

/* What is free for that long, the guest has no use for: caches would have grown into it. */
#define DEMAND_SPARE_MS 5000

/*
 * How far ahead growth is provided for: twice the time between samples (one that has just been
 * missed, and the next) and a second for the command and the guest, within these bounds.
 */
#define DEMAND_AHEAD_MIN_MS 2000
#define DEMAND_AHEAD_MAX_MS 15000

struct demand {
	bool known;           /* there was a sample that could be used */
	bool counts_balloon;  /* MEMTOT does not change with the balloon, or may not */
	uint8_t short_run;    /* samples in a row that were short */
	uint64_t at_ms;       /* of the last sample */
	uint64_t measured_ms; /* of the last from which `used` could be told */
	uint64_t used, working, growth, headroom, cache; /* see above; growth in bytes a second */
	uint64_t available, free;                        /* as the guest said last */
	uint64_t idle, spare;                            /* see above; 0 while not known */
	/* For the next sample. */
	uint64_t overhead; /* never shown by the guest's kernel */
	uint64_t last_actual, last_total;
	uint64_t mark_ms, mark_used;             /* where growth is measured from */
	uint64_t rest_ms, free_least, free_most; /* since when, and what was free since */
};

/* Nothing is known. Also after the guest was restarted. */
void demand_init(struct demand *d);

/*
 * Takes a sample. actual is what the guest keeps, as of the same time as nearly as possible; moving
 * says that a target is not reached yet. size is the VM's memory without a balloon. Values that
 * contradict each other are clamped. False if the sample cannot be used: no AVAIL (nor MEMFREE), or
 * not newer than the last; then nothing changes.
 */
bool demand_sample(struct demand *d, const struct guest_stats *s, uint64_t size, uint64_t actual,
		   bool moving);

/* The guest said that it begins to reclaim, between samples: provides for more. */
void demand_hint_short(struct demand *d, uint64_t actual);

/*
 * What the guest kept when it said so last, as far as that can be told: actual, or less if it was
 * being taken more from then. If it has more now than then, what it had then tells nothing: actual.
 */
uint64_t demand_kept(const struct demand *d, uint64_t actual);

/*
 * What should be left to a guest that uses so much: an eighth of that for what it does next, a 64th
 * of its size for its kernel's watermarks, and 8 MiB.
 */
uint64_t demand_margin(uint64_t used, uint64_t size);

/* Is so little available that it counts as short? Less than half of the margin. */
bool demand_is_short(const struct demand *d, uint64_t size);

#endif
