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

/* Bytes of the smallest page that the file can give back. */
uint64_t vu_file_page_size(int fd);

/*
 * Maps [offset, offset + size) of b->fd, which begins *lead bytes into the mapping; b has none yet.
 * -EINVAL: numbers that make no sense, or not a regular file; -EFBIG: the file ends before that
 * (touching what lies behind it would be a SIGBUS); others from mmap().
 */
int vu_backing_map(struct vu_backing *b, uint64_t offset, uint64_t size, uint64_t *lead);

/* Unmaps it, closes its descriptor. */
void vu_backing_release(struct vu_backing *b);

/* Puts zeroed private memory in the place of the mapping, if host lies in it: true if it did. */
bool vu_backing_patch(const struct vu_backing *b, const uint8_t *host);

void vu_memory_init(struct vu_memory *m);

/* Unmaps all and closes all descriptors. */
void vu_memory_clear(struct vu_memory *m);

/*
 * Maps a region and adds it to the table. Takes fd over, also on failure. As vu_backing_map();
 * -EEXIST: overlap; -ENOSPC: table full.
 */
int vu_memory_add(struct vu_memory *m, const struct vu_mem_region *r, int fd);

/* Removes the region with the same addresses and size. -ENOENT: there is none. */
int vu_memory_remove(struct vu_memory *m, const struct vu_mem_region *r);

/* vu_backing_patch() for the mapping that host lies in. For a SIGBUS handler: async-signal-safe. */
bool vu_memory_patch(struct vu_memory *m, const uint8_t *host);

#endif
