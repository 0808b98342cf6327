/* SPDX-License-Identifier: MIT */
/*
 * A guest and a device in one process, joined by real rings: the portable driver on one side,
 * lib/balloon on the other, and an oracle that knows of every page whether the guest may use it.
 *
 * The oracle's rule is the invariant of the whole project: a page that the guest may use is never
 * discarded. Balloonable memory is mapped without access, so that a device which touches it, rather
 * than only telling to discard it, dies.
 */
#ifndef MODEL_WORLD_H
#define MODEL_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "balloon/balloon.h"
#include "driver/ring.h"

#define WORLD_PAGES   4096U /* balloonable ones, in two regions with a gap */
#define WORLD_BUFFERS 32U   /* per queue */
#define WORLD_ENTRIES 2048U /* PFNs in one buffer, at most */

struct world_config {
	bool packed;
	bool event_idx;
	bool indirect;
	bool told; /* MUST_TELL_HOST negotiated */
	uint64_t page_size;
};

enum page_state {
	PAGE_OWNED,  /* the guest's */
	PAGE_GIVING, /* named in an inflate buffer that is under way */
	PAGE_HELD,   /* in the balloon */
	PAGE_TAKING, /* named in a deflate buffer that is under way */
};

struct world_buffer {
	bool under_way;
	uint32_t n;
	uint32_t pfn[WORLD_ENTRIES];
};

struct world_queue {
	struct vq vq;
	struct driver_ring ring;
	struct world_buffer buffer[WORLD_BUFFERS];
	uint16_t owner[DRIVER_RING_MAX]; /* by ring id: which buffer */
	uint16_t order[WORLD_BUFFERS];   /* of submission: the device returns them in it */
	uint32_t first, n_out;
	bool runnable; /* kicked, started, or told that there is more */
	bool notified;
	bool wants_notify;
};

struct world {
	struct world_config config;
	struct guest_mem mem;
	struct balloon balloon;
	struct world_queue queue[2];
	struct vq idle[VIRTIO_BALLOON_VQ_COUNT];
	uint8_t *low; /* rings and buffers */
	uint8_t *high[2];
	uint64_t *bitmap;
	enum page_state page[WORLD_PAGES];
	uint32_t discards[WORLD_PAGES]; /* how often */
	uint64_t entries;               /* PFNs that the device was given */
	uint64_t fragments;
	uint64_t changes; /* pages that changed between in and out */
	uint64_t config_changes;
	uint64_t random;
};

void world_init(struct world *w, const struct world_config *config, uint64_t seed);
void world_free(struct world *w);

/* 0 <= result < n */
uint32_t world_random(struct world *w, uint32_t n);

/* PFN of balloonable page i; its inverse is -1 for PFNs that are none. */
uint32_t world_pfn(uint32_t page);
int64_t world_page(uint32_t pfn);

/*
 * Submits n PFNs, with `extra` bytes of fragment behind them, spread over random pieces. False: the
 * ring is full. Kicks if the device asked for it.
 */
bool world_submit(struct world *w, uint32_t queue, const uint32_t *pfn, uint32_t n, uint32_t extra);

/* One turn of a queue, if it was kicked or has more to do. */
void world_run(struct world *w, uint32_t queue);

/* Takes what is used and moves its pages on. */
void world_collect(struct world *w, uint32_t queue);

/* Runs and collects until nothing is under way; fails if the device leaves something undone. */
void world_settle(struct world *w);

/* Pause and resume of a queue; change of the memory table to the same one; driver starts afresh. */
void world_resume(struct world *w, uint32_t queue);
void world_remap(struct world *w);
void world_reset(struct world *w);

/* With nothing under way: do the device's counts agree with the oracle? */
void world_check(struct world *w);

#endif
