/* SPDX-License-Identifier: MIT */
/*
 * How badly does a guest want memory? Judged by two samples of its statistics.
 *
 * The table is that of the Linux commit "virtio_balloon: introduce memory scan/reclaim info", which
 * brought the tags 10 to 15: whether OOM_KILL grew, how fast ALLOC_STALL and SCAN_DIRECT grow, and
 * how much of what was scanned was reclaimed. The commit says "high" and "low" and no numbers; ours
 * are below, each with its reason.
 *
 * Kernels without these tags (before 6.12) are judged by swap, major faults and available memory.
 * Such a verdict is `weak`: it cannot tell a file that is read for the first time from one that
 * was evicted too early, and does not see kills at all. Who acts on it should act carefully.
 */
#ifndef POLICY_VERDICT_H
#define POLICY_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/stats.h"

/*
 * Rates are counted over at least this long: in a shorter time the work of one reclaim (32 pages at
 * once) would look like a storm. Only a kill is seen at once.
 */
#define VERDICT_SPAN_MIN_MS 400

/* Samples further apart than this say nothing about the rate now. */
#define VERDICT_SPAN_MAX_MS 60000

/*
 * Stalls a second from which on allocations "stall at a high rate". One direct reclaim takes 1 to
 * 10 ms when pages have to be written: 5 of them are 0.5 to 5 % of somebody's second.
 */
#define VERDICT_STALLS_HIGH 5

/* Bytes a second of direct scanning that are "high": what 5 stalls scan, 32 pages each. */
#define VERDICT_DIRECT_HIGH (5ULL * 32 * 4096)

/* The same in the background: kswapd works in larger portions, and nobody waits for it. */
#define VERDICT_ASYNC_HIGH (4ULL << 20)

/*
 * Of what is scanned, less than this much reclaimed is a "low ratio", in percent. The kernel's own
 * vmpressure calls it medium pressure when 60 % of what was scanned could not be reclaimed.
 */
#define VERDICT_RATIO_LOW 40

/* The weak verdict: bytes swapped a second, and major faults a second, that count as many. */
#define VERDICT_SWAP_HIGH   (1ULL << 20)
#define VERDICT_FAULTS_HIGH 100

/* The weak verdict: available memory in percent of the guest's total that is short, and very. */
#define VERDICT_SHORT      10
#define VERDICT_VERY_SHORT 4

/* In rising order of how badly more memory is wanted. */
enum verdict {
	VERDICT_UNKNOWN,    /* nothing to judge by */
	VERDICT_FINE,       /* none of the below */
	VERDICT_CGROUP,     /* allocations stall in a limited cgroup; the guest has memory */
	VERDICT_STRUGGLING, /* background reclaim finds little: the next demand will stall */
	VERDICT_PRESSED,    /* allocations stall for want of memory; reclaim still works well */
	VERDICT_THRASHING,  /* they stall and reclaim finds little */
	VERDICT_CRITICAL,   /* processes are killed */
	VERDICT_COUNT,
};

enum verdict_reason {
	VERDICT_BY_NO_SAMPLES,  /* unknown: fewer than two samples */
	VERDICT_BY_SPAN,        /* unknown: too close together or too far apart */
	VERDICT_BY_BACKWARDS,   /* unknown: a counter went back; the guest was restarted */
	VERDICT_BY_NO_TAGS,     /* unknown: none of the tags that could tell */
	VERDICT_BY_QUIET,       /* fine: nothing of note */
	VERDICT_BY_OOM_KILL,    /* critical */
	VERDICT_BY_STALL_ALONE, /* cgroup: stalls without global scanning */
	VERDICT_BY_STALL_SCAN,  /* pressed: stalls, direct scanning, good ratio */
	VERDICT_BY_STALL_RATIO, /* thrashing: stalls, direct scanning, low ratio */
	VERDICT_BY_ASYNC_RATIO, /* struggling: background scanning, low ratio, no stalls */
	VERDICT_BY_SWAP_IN,     /* weak, thrashing: swaps in while short of memory */
	VERDICT_BY_FAULTS,      /* weak, pressed: major faults while short of memory */
	VERDICT_BY_SWAP_OUT,    /* weak, struggling: swaps out while short of memory */
	VERDICT_BY_AVAILABLE,   /* weak, struggling: hardly anything is available */
	VERDICT_REASON_COUNT,
};

/* What the verdict was derived from. Where a tag is not known, 0. */
struct verdict_numbers {
	uint64_t span_ms;                     /* between the samples */
	uint64_t kills;                       /* in that time */
	uint64_t stalls;                      /* in that time */
	uint64_t scan_direct, reclaim_direct; /* bytes in that time */
	uint64_t scan_async, reclaim_async;   /* bytes in that time */
	uint64_t swap_in, swap_out;           /* bytes in that time */
	uint64_t major_faults;                /* in that time */
	uint64_t available, total;            /* bytes, of the newer sample */
};

struct judgement {
	enum verdict verdict;
	enum verdict_reason reason;
	bool weak; /* by swap, faults and available memory alone */
	struct verdict_numbers numbers;
};

/*
 * Judges. Both samples must be of the same life of the same driver as far as the caller knows; a
 * counter that goes backwards shows that they were not. older may be NULL: unknown.
 * With less than VERDICT_SPAN_MIN_MS between them the verdict is CRITICAL if somebody was killed,
 * else UNKNOWN by VERDICT_BY_SPAN: the caller keeps the older sample and asks again later.
 */
void verdict_judge(const struct guest_stats *older, const struct guest_stats *newer,
		   struct judgement *out);

/* As users have them, such as "thrashing" and "stall-ratio". */
const char *verdict_name(enum verdict verdict);
const char *verdict_reason_name(enum verdict_reason reason);

/* What the reason means, as the second half of a sentence. */
const char *verdict_reason_text(enum verdict_reason reason);

#endif
