/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as the front end shares it: received descriptors, checked and mapped.
 */
#ifndef VHOST_USER_MEMORY_H
#define VHOST_USER_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "vhost_user/protocol.h"
#include "virtio/guest_mem.h"

/* What stands behind a region; guest_region.backing is the index. fd is owned, -1 if unused. */
struct vu_backing {
	int fd;
	uint8_t *map; /* from a page boundary at or before the region's beginning */
	uint64_t map_len;
};

struct vu_memory {
	struct guest_mem mem;
	struct vu_backing backing[GUEST_MEM_MAX_REGIONS];
};

void vu_memory_init(struct vu_memory *m);

/* Unmaps all and closes all descriptors. */
void vu_memory_clear(struct vu_memory *m);

/*
 * Maps a region and adds it to the table. Takes fd over, also on failure. -EINVAL: numbers that
 * make no sense, or not a regular file; -EFBIG: the file ends before the region does (touching that
 * part would be a SIGBUS); -EEXIST: overlap; -ENOSPC: table full; others from mmap().
 */
int vu_memory_add(struct vu_memory *m, const struct vu_mem_region *r, int fd);

/* Removes the region with the same addresses and size. -ENOENT: there is none. */
int vu_memory_remove(struct vu_memory *m, const struct vu_mem_region *r);

/*
 * If host lies in a mapping, puts zeroed private memory in the place of that whole mapping. For
 * a SIGBUS handler: async-signal-safe. True if it did.
 */
bool vu_memory_patch(struct vu_memory *m, const uint8_t *host);

#endif
