/* SPDX-License-Identifier: MIT */
/* From what the balloon wants discarded to the files behind guest memory; and the bitmap's memory.
 */
#ifndef VUB_RECLAIM_H
#define VUB_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balloon/balloon.h"
#include "discard/discard.h"
#include "vhost_user/memory.h"

struct reclaim {
	uint32_t n;
	struct discard_area area[GUEST_MEM_MAX_REGIONS]; /* same index as in the memory table */
	bool counts[GUEST_MEM_MAX_REGIONS]; /* the first region of its file: stands for the file */
	uint64_t failed_before;             /* failures in areas that are gone */
	uint64_t *bitmap;                   /* the balloon's; NULL: none */
	size_t bitmap_bytes;
};

/*
 * Follows a change of the memory table. -ENOMEM: no room for the bitmap; then the balloon has the
 * empty one of an empty table.
 */
int reclaim_memory_changed(struct reclaim *r, struct balloon *b, const struct vu_memory *memory);

/* balloon_ops.discard. Counts by the blocks that the files lose meanwhile. */
uint64_t reclaim_discard(struct reclaim *r, const struct balloon_range *ranges, uint32_t n);

/* Bytes of host memory that back the guest's now: the blocks of all its files. */
uint64_t reclaim_resident(const struct reclaim *r);

/* Calls that the kernel has refused. */
uint64_t reclaim_failures(const struct reclaim *r);

#endif
