/* SPDX-License-Identifier: MIT */
/*
 * The table of guest memory regions: from guest physical addresses (GPA) and from the front end's
 * own addresses to where the region is mapped here. Sorted by GPA, looked up by binary search.
 */
#ifndef VIRTIO_GUEST_MEM_H
#define VIRTIO_GUEST_MEM_H

#include <stdint.h>

#define GUEST_MEM_MAX_REGIONS 64U

struct guest_region {
	uint64_t gpa;
	uint64_t size;  /* bytes, not zero */
	uint64_t uaddr; /* where the front end has it mapped; ring addresses come in this space */
	uint64_t page_size; /* bytes of the smallest page of the backing that can be given back */
	uint64_t backing_offset; /* where the region begins in its file: for the alignment of its
				    pages */
	uint32_t backing;        /* the owner's handle: which file */
};

struct guest_mem {
	uint32_t n;
	struct guest_region region[GUEST_MEM_MAX_REGIONS];
	uint8_t *host[GUEST_MEM_MAX_REGIONS]; /* this process's mapping of region[i] */
};

/*
 * Adds a region that is mapped at host. -EINVAL: empty, wraps around 2^64, or the page size is no
 * power of two; -EEXIST: overlaps another in GPA or in front-end addresses; -ENOSPC: table full.
 */
int guest_mem_add(struct guest_mem *mem, const struct guest_region *region, uint8_t *host);

/* Removes region[index]; those after it move down by one. */
void guest_mem_remove(struct guest_mem *mem, uint32_t index);

/* Index of the region that holds gpa, or -1. */
int guest_mem_find(const struct guest_mem *mem, uint64_t gpa);

/*
 * Host address of gpa, or NULL. *len is the number of bytes wanted and becomes at most that: what
 * lies in the same region.
 */
uint8_t *guest_mem_gpa(const struct guest_mem *mem, uint64_t gpa, uint64_t *len);

/* Host address of [uaddr, uaddr + len), which must lie in one region; else NULL. */
uint8_t *guest_mem_uaddr(const struct guest_mem *mem, uint64_t uaddr, uint64_t len);

/* GPA of uaddr; UINT64_MAX if it is in no region. */
uint64_t guest_mem_uaddr_gpa(const struct guest_mem *mem, uint64_t uaddr);

/* Bytes of all regions together. */
uint64_t guest_mem_total(const struct guest_mem *mem);

#endif
