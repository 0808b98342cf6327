/* SPDX-License-Identifier: MIT */
/*
 * Behind the public face of libaerostat: one device of an embedding VMM. The core does the work;
 * here stands what a VMM has to be kept apart from: the core's types, host memory, and calls that
 * come at the wrong moment.
 */
#ifndef EMBED_EMBED_H
#define EMBED_EMBED_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "aerostat/balloon.h"
#include "balloon/balloon.h"
#include "discard/discard.h"
#include "virtio/vq.h"

static_assert(AEROSTAT_RINGS == VIRTIO_BALLOON_VQ_COUNT, "a ring for every queue");
static_assert(AEROSTAT_MEMORY_REGIONS_MAX == GUEST_MEM_MAX_REGIONS, "what the core takes");

/* Memory that takes up space only where it was written. */
struct bitmap_memory {
	uint64_t *words; /* NULL: none */
	size_t bytes;
};

/* Guest memory as the VMM has declared it, in the order of the core's table. */
struct memory {
	struct guest_mem mem; /* front-end addresses are guest physical ones */
	struct discard_area area[GUEST_MEM_MAX_REGIONS]; /* owns its descriptor */
	bool counts[GUEST_MEM_MAX_REGIONS]; /* anonymous, or the first region of its file */
	struct bitmap_memory held, hints;
};

struct aerostat_balloon {
	struct balloon b;
	struct vq vq[VIRTIO_BALLOON_VQ_COUNT];
	struct memory memory;
	struct dirty_log log;
	uint64_t failed_before; /* refused discards in tables that are gone */
	struct aerostat_balloon_ops ops;
	void *opaque;
	uint32_t inhibitors;
	uint32_t ready; /* bit n: ring n wants to be run */
	uint32_t used;  /* bit n: ring n has been started since the last reset */
	bool inside;    /* a callback is running */
};

/* Empty, with no descriptor to close. */
void memory_init(struct memory *m);

/* Closes and unmaps what the table owns; guest memory itself is the VMM's. */
void memory_release(struct memory *m);

/* The regions' table with its bitmaps. Errors as aerostat_balloon_set_memory(), but for -EBUSY. */
int memory_build(struct memory *m, const struct aerostat_memory_region *regions, uint32_t n);

/* New bitmaps for the table as it is: zeroed. The old ones stay m's owner's to free. -ENOMEM. */
int memory_new_bitmaps(const struct memory *m, struct bitmap_memory *held,
		       struct bitmap_memory *hints);

/* *bitmap: so many zeroed words, none if that is 0. -ENOMEM. */
int bitmap_map(struct bitmap_memory *bitmap, uint64_t words);
void bitmap_unmap(struct bitmap_memory *bitmap);

/* balloon_ops.discard where the VMM leaves it to the library. */
uint64_t memory_discard(struct memory *m, const struct balloon_range *ranges, uint32_t n);

/* Calls that the kernel refused. */
uint64_t memory_failures(const struct memory *m);

/*
 * A caller's structure of `size` bytes into one of `known` bytes, of which this version wants at
 * least `least`. -EINVAL: smaller than that; -E2BIG: more than is known, and not zero.
 */
int embed_take(void *to, size_t known, size_t least, const void *from, size_t size);

/*
 * The other way round: fills the caller's structure but for its member `size`, which comes first.
 */
int embed_give(void *to, size_t size, size_t least, const void *from, size_t known);

#endif
