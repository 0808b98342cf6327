/* SPDX-License-Identifier: MIT */
/*
 * What the balloon holds: a bit for each 4 KiB page of every region. It is the device's own count
 * beside the driver's claim, and tells when a host page larger than 4 KiB is held as a whole.
 */
#ifndef BALLOON_HELD_H
#define BALLOON_HELD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "virtio/guest_mem.h"

struct held_region {
	uint64_t first_pfn; /* of the first page that lies in the region wholly */
	uint64_t pages;
	uint64_t first_bit; /* a multiple of 64 */
};

struct held {
	uint64_t *map;  /* owned by the caller */
	uint64_t count; /* bits set */
	uint32_t n;
	struct held_region region[GUEST_MEM_MAX_REGIONS]; /* same index as in the memory table */
};

/* Words of bitmap that mem needs: 32 KiB per GiB, and what rounding adds. */
uint64_t held_words(const struct guest_mem *mem);

/*
 * Lays the bitmap out for mem, in held_words(mem) zeroed words at map, and takes over from *old
 * (may be empty, zeroed) what it held of pages that are still there. *held and *old must differ,
 * and so must their maps.
 */
void held_init(struct held *held, const struct guest_mem *mem, uint64_t *map,
	       const struct held *old);

/* Forgets all. */
void held_clear(struct held *held);

/*
 * The part of the pages [pfn, pfn + *n) that begins at pfn and is all in one region, or all in
 * none: *n is set to its length, *page to where it begins in that region. Returns the region's
 * index or -1.
 */
int held_locate(const struct held *held, uint64_t pfn, uint64_t *n, uint64_t *page);

/* Pages [page, page + n) of a region, n not 0: set or clear; returns how many changed. */
static inline uint64_t held_set(struct held *held, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t changed = bitmap_set_range(held->map, held->region[region].first_bit + page, n);

	held->count += changed;
	return changed;
}

static inline uint64_t held_unset(struct held *held, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t changed = bitmap_clear_range(held->map, held->region[region].first_bit + page, n);

	held->count -= changed;
	return changed;
}

/* Are all of them held? */
bool held_all(const struct held *held, uint32_t region, uint64_t page, uint64_t n);

#endif
