/* SPDX-License-Identifier: MIT */
/*
 * A guest that sends whatever lists of pages it likes, right or wrong, on the inflate and deflate
 * rings: many buffers at once, of any length, in pieces that are cut anywhere. And hints and
 * reports of many single pages.
 */
#ifndef MODEL_RAW_H
#define MODEL_RAW_H

#include "driver/ring.h"
#include "machine.h"

#define RAW_QUEUES  4U /* inflate, deflate, and, gaps in the numbering being closed: */
#define RAW_HINT    2U
#define RAW_REPORT  3U
#define RAW_BUFFERS 32U   /* per queue */
#define RAW_ENTRIES 4096U /* PFNs in one buffer, at most; too much for a turn */

struct raw_config {
	bool packed;
	bool event_idx;
	bool indirect;
	bool told; /* MUST_TELL_HOST is negotiated */
	uint64_t page_size;
	uint32_t death_in;
};

struct raw_buffer {
	bool under_way;
	uint32_t n;
	uint32_t pfn[RAW_ENTRIES];
};

struct raw_queue {
	struct driver_ring ring;
	struct raw_buffer buffer[RAW_BUFFERS];
	uint16_t owner[DRIVER_RING_MAX]; /* by ring id: which buffer */
	uint16_t order[RAW_BUFFERS];     /* of submission: the device returns them in it */
	uint32_t first, n_out;
	uint64_t returned;
	bool wants_notify;
};

struct raw {
	struct raw_config config;
	struct machine m;
	struct raw_queue queue[RAW_QUEUES];
	uint64_t entries; /* PFNs that the device was given, that it has or had */
	uint64_t fragments;
	uint64_t changes;            /* pages that changed between in and out */
	uint64_t reported;           /* pages */
	void (*more)(struct raw *w); /* what the guest does while the device is at work */
	bool settling;               /* but not now */
};

void raw_init(struct raw *w, const struct raw_config *config, uint64_t seed);
void raw_free(struct raw *w);

/*
 * Submits n PFNs, with `extra` bytes of fragment behind them, spread over random pieces. False: the
 * ring is full. Kicks if the device asked for it.
 */
bool raw_submit(struct raw *w, uint32_t queue, const uint32_t *pfn, uint32_t n, uint32_t extra);

/* Reports n pages that are the guest's, each by itself, and the same for the rest. */
bool raw_report(struct raw *w, const uint32_t *pfn, uint32_t n);

/*
 * Hints n pages of whatever state in one buffer, with a command's id or STOP in front; -1: without.
 */
bool raw_hint(struct raw *w, int64_t word, const uint32_t *pfn, uint32_t n);

/* Takes what is used and moves its pages on; while the device is at work, or not. */
void raw_collect(struct raw *w, uint32_t queue);

/* Runs and collects until nothing is under way; fails if the device leaves something undone. */
void raw_settle(struct raw *w);

/* The driver starts afresh. */
void raw_reset(struct raw *w);

/* With nothing under way: do the device's counts agree with the oracle? */
void raw_check(struct raw *w);

#endif
