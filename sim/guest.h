/* SPDX-License-Identifier: MIT */
/*
 * One simulated guest: a Linux system with a balloon driver, moved in steps of a second.
 *
 * Its memory (size - balloon) is divided into what the kernel needs, anonymous memory of programs,
 * the page cache, and what is free. Programs want what the trace says. A part of the cache is hot:
 * without it programs read the same pages again and again. The rest of the cache fills whatever is
 * free, as Linux does, and goes at once when memory is wanted. A part of the anonymous memory is
 * idle: it can be swapped out without being missed.
 *
 * Memory that is wanted comes from, in this order: free memory; the cold cache, by kswapd, without
 * making anybody wait as long as kswapd is fast enough; by direct reclaim what is beyond that;
 * swap and the hot cache, in equal parts, at the speed of the swap device. What is still lacking
 * makes programs wait; when nothing is left to be reclaimed, for OOM_PATIENCE_S, the kernel kills
 * the largest program, which comes back by and by. The time for which programs wait for memory, or
 * for what was taken from them too early, is the stall time.
 *
 * Left out, to be fast or for lack of numbers: processor time; fragmentation and huge pages; cgroup
 * limits; NUMA; zram; writing back dirty pages; the time within a second (what happens at once in
 * the model takes its time below a second in nature, for every policy alike).
 */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "driver/balloon.h"
#include "trace.h"

#define KIB 1024.0
#define MIB (1024.0 * KIB)
#define GIB (1024.0 * MIB)

#define PAGE_BYTES 4096.0

/*
 * What the model is made of. Bytes a second where not said otherwise.
 *
 * INFLATE    a stock driver takes 1.2 to 1.8 GiB/s of free memory with a device that gives it back
 *            (measured with user-mode Linux); 4 KiB pages at 0.95 GiB/s in HyperAlloc, EuroSys'25.
 * DEFLATE    no memory moves: a tenth of the cost of an inflated page on the device's side.
 * KSWAPD     one thread that drops clean pages: about 1 GiB/s (4 us a page).
 * DIRECT     several tasks do the same in their own time, which is lost to them.
 * SWAP       one SSD that many guests share, for each of them.
 * MARKS      min_free_kbytes with transparent huge pages on is near 0.5 % of such sizes, low and
 *            high above it by watermark_scale_factor and a quarter: mm/page_alloc.c.
 */
#define INFLATE_RATE     (1.0 * GIB)
#define DEFLATE_RATE     (8.0 * GIB)
#define KSWAPD_RATE      (1.0 * GIB)
#define DIRECT_RATE      (2.0 * GIB)
#define SWAP_RATE        (100.0 * MIB)
#define MARK_MIN         0.005
#define MARK_LOW         0.0075
#define MARK_HIGH        0.01
#define RESIDUAL_CACHE   0.01  /* share of the size: cache that is always in use, and never goes */
#define TOUCH_S          10.0  /* a hot page is used once in so many seconds, at least */
#define FAULT_S          50e-6 /* waiting for a page from disk, two at a time from an SSD */
#define MESSAGE_S        0.002 /* a message, the answer, and the first pages back: bar of 2 ms */
#define OOM_PATIENCE_S   2
#define OOM_LEFT         0.4   /* share of the programs' memory that a kill leaves */
#define OOM_BACK_S       600.0 /* for the killed program to come back, and do again what was lost */
#define SCAN_THRASH      8     /* pages scanned for one reclaimed, when hardly any can go */
#define STALL_ALLOCATION (32 * PAGE_BYTES) /* a direct reclaim frees SWAP_CLUSTER_MAX pages */

struct guest;

/* What happens to all guests alike. */
struct guest_ops {
	/*
	 * The guest's driver has sent a message; the new target, if any, is in g->target already
	 * when this returns: the answer takes less than a step.
	 */
	void (*pressure)(void *opaque, struct guest *g, uint32_t level);
	/* It has not seen pressure for a second. */
	void (*relieved)(void *opaque, struct guest *g);
	void *opaque;
};

struct guest {
	/* What it is; bytes. */
	uint32_t index;
	enum trace_kind kind;
	double size;      /* memory without a balloon */
	double kernel;    /* never to be had */
	double hot;       /* page cache that programs need */
	double io;        /* bytes a second that come into the cold cache */
	double idle;      /* share of anonymous memory that nobody uses */
	double swap_size; /* 0: no swap */
	bool messages;    /* our driver: tells of pressure */
	bool scan_tags;   /* statistics have tags 10 to 15: Linux 6.12 and later */

	/* What it has; bytes. */
	double balloon;
	double target; /* of the balloon */
	double anon, swapped, cache;
	double touched; /* memory that the host has to have for it */
	bool hung;

	/* The programs. */
	double living;  /* part of the programs that runs: less than 1 after a kill */
	double stuck_s; /* nothing could be reclaimed for so long */

	/* What its statistics count, since it started. */
	double swap_in, swap_out, scan_async, scan_direct, reclaim_async, reclaim_direct;
	double major_faults, minor_faults, alloc_stalls;
	uint64_t oom_kills;

	bool pressed; /* has told of pressure, and not that it is over */
	bool told;    /* a message in this step */

	/* What the step found. */
	double stall; /* seconds that programs waited, 0 to 1 */

	/* Sums. */
	double stall_sum_s;
	double down_sum_s;          /* by the part of the programs that did not run after a kill */
	double moved;               /* bytes into the balloon and out of it */
	uint64_t kills_unavoidable; /* of oom_kills: it wanted more than its size */
	uint64_t puffs;             /* steps in which inflation did not get what it wanted */
	uint64_t messages_sent;
};

/* Bytes that programs can have if there is no balloon and the kernel keeps its minimum. */
double guest_usable(const struct guest *g);

/*
 * Moves the guest by a second. wanted: bytes that programs want. host_stall: part of the second
 * for which the host made it wait.
 */
void guest_step(struct guest *g, double wanted, double host_stall, const struct guest_ops *ops);

/* Starts with that much in the balloon, and programs that have what they want, if there is room. */
void guest_start(struct guest *g, double balloon, double wanted);

/* As driver_balloon_ops.statistics: what the driver would send now. */
void guest_statistics(const struct guest *g, struct driver_statistics *s);

#endif
