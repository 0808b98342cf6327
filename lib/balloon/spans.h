/* SPDX-License-Identifier: MIT */
/* The writable part of a chain, seen as stretches of guest memory that the driver names by it. */
#ifndef BALLOON_SPANS_H
#define BALLOON_SPANS_H

#include "virtio/chain.h"

struct span {
	uint32_t region;
	uint64_t offset; /* from the region's beginning, bytes */
	uint64_t len;
};

/* Zeroed, it is the beginning. */
struct span_cursor {
	uint32_t seg;    /* of the writable ones */
	uint64_t offset; /* within it */
	uint64_t done;   /* bytes, all together */
};

/*
 * The next stretch: false at the end. What is longer than max bytes is cut, between two host pages;
 * if there is none to cut at the stretch is longer.
 */
bool span_next(const struct vq_chain *chain, const struct guest_mem *mem, struct span_cursor *at,
	       uint64_t max, struct span *span);

/* Moves on by len bytes, or to the end. */
void span_skip(const struct vq_chain *chain, struct span_cursor *at, uint64_t len);

#endif
