/* SPDX-License-Identifier: MIT */
/*
 * From what the balloon wants discarded to the files behind guest memory; and the bitmaps' memory.
 *
 * What the balloon holds is marked in a file with two halves (and a third). One is in use, and
 * changed in place: what a process that dies had marked too early is marked again by its successor.
 * A new memory table has its bitmap made in the other half, so that until the change is committed
 * the old one is as it was.
 */
#ifndef VUB_RECLAIM_H
#define VUB_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balloon/balloon.h"
#include "discard/discard.h"
#include "hintfile.h"
#include "vhost_user/memory.h"

struct reclaim {
	uint32_t n;
	struct discard_area area[GUEST_MEM_MAX_REGIONS]; /* same index as in the memory table */
	bool counts[GUEST_MEM_MAX_REGIONS]; /* the first region of its file: stands for the file */
	uint64_t failed_before;             /* failures in areas that are gone */

	int held_fd;         /* the file */
	uint64_t half_bytes; /* a half of it */
	uint32_t half;       /* which is in use: 0 or 1 */
	uint64_t *bitmap;    /* the balloon's; NULL: none */
	size_t bitmap_bytes;
	struct hintfile hints;
};

/*
 * held_fd: the file of what is held, half_bytes the size of each half; hints_fd: that of free page
 * hints. Both stay the caller's. -errno.
 */
int reclaim_init(struct reclaim *r, int held_fd, uint64_t half_bytes, int hints_fd);

/*
 * Follows a change of the memory table; `committed` is the half that must stay as it is. -ENOMEM:
 * no room for the bitmap; then the balloon has the empty one of an empty table.
 */
int reclaim_memory_changed(struct reclaim *r, struct balloon *b, const struct vu_memory *memory,
			   uint32_t committed);

/*
 * Goes on for a process that died: the bitmaps as that one left them, in that half and laid out
 * like that, for balloon_restore(). hints->map is NULL if there is no room for them. -ENOMEM;
 * -EINVAL: the layout is not of this table.
 */
int reclaim_restore(struct reclaim *r, const struct vu_memory *memory, uint32_t half,
		    const struct pageset_layout *layout, struct pageset *held,
		    struct pageset *hints);

/*
 * transfer_ops.map: behind the two halves there is a third part of the file, for what a device that
 * moves here holds of memory that is not known yet. And the same as a process that died has left
 * it, laid out like that; held->map is NULL if there is no room.
 */
uint64_t *reclaim_map_loaded(const struct reclaim *r, size_t bytes);
void reclaim_restore_loaded(const struct reclaim *r, const struct pageset_layout *layout,
			    struct pageset *held);

/* balloon_ops.discard. Counts by the blocks that the files lose meanwhile. */
uint64_t reclaim_discard(struct reclaim *r, const struct balloon_range *ranges, uint32_t n);

/* Bytes of host memory that back the guest's now: the blocks of all its files. */
uint64_t reclaim_resident(const struct reclaim *r);

/* Calls that the kernel has refused. */
uint64_t reclaim_failures(const struct reclaim *r);

#endif
