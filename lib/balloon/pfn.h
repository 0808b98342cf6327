/* SPDX-License-Identifier: MIT */
/*
 * From the page frame numbers of a buffer, in whatever order the guest sends them, to few disjoint
 * ranges: what discarding costs is calls, not pages.
 */
#ifndef BALLOON_PFN_H
#define BALLOON_PFN_H

#include <stdint.h>

/* PFNs that are looked at together. The stock Linux driver sends 256 a buffer. */
#define PFN_BATCH_MAX 1024U

struct pfn_range {
	uint32_t first;
	uint32_t n; /* pages */
};

/* Room to work in; some 16 KiB, too much for a stack. */
struct pfn_batch {
	uint32_t n;
	uint32_t pfn[PFN_BATCH_MAX];
	uint32_t scratch[PFN_BATCH_MAX];
	struct pfn_range range[PFN_BATCH_MAX];
};

/*
 * Merges pfn[0..n) into disjoint ranges in range[], rising, no two of which touch; returns how
 * many. Equal PFNs count once: *duplicates is how many were dropped. What is in pfn[] afterwards is
 * meaningless.
 */
uint32_t pfn_batch_merge(struct pfn_batch *batch, uint32_t *duplicates);

#endif
