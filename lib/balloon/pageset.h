/* SPDX-License-Identifier: MIT */
/*
 * A set of guest pages: a bit for each 4 KiB page of every region. One holds what is in the
 * balloon: the device's own count beside the driver's claim, which also tells when a host page
 * larger than 4 KiB is held as a whole. Another collects free page hints.
 */
#ifndef BALLOON_PAGESET_H
#define BALLOON_PAGESET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "virtio/guest_mem.h"

struct pageset_region {
	uint64_t first_pfn; /* of the first page that lies in the region wholly */
	uint64_t pages;
	uint64_t first_bit; /* a multiple of 64 */
};

/* Where each region's bits are: without pointers, fit to outlive the process. */
struct pageset_layout {
	uint32_t n;
	struct pageset_region region[GUEST_MEM_MAX_REGIONS]; /* same index as in the memory table */
};

struct pageset {
	uint64_t *map;  /* owned by the caller */
	uint64_t count; /* bits set */
	struct pageset_layout at;
};

/* Words of bitmap that mem, or a layout, needs: 32 KiB per GiB, and what rounding adds. */
uint64_t pageset_words(const struct guest_mem *mem);
uint64_t pageset_layout_words(const struct pageset_layout *at);

/*
 * Lays the bitmap out for mem, in pageset_words(mem) zeroed words at map, and takes over from *old
 * (may be empty, zeroed) what it has of pages that are still there. *set and *old must differ, and
 * so must their maps.
 */
void pageset_init(struct pageset *set, const struct guest_mem *mem, uint64_t *map,
		  const struct pageset *old);

/* Takes a bitmap as it is, whose bits were laid out like that. */
void pageset_attach(struct pageset *set, const struct pageset_layout *at, uint64_t *map);

/* Takes all pages out. */
void pageset_clear(struct pageset *set);

/*
 * The part of the pages [pfn, pfn + *n) that begins at pfn and is all in one region, or all in
 * none: *n is set to its length, *page to where it begins in that region. Returns the region's
 * index or -1.
 */
int pageset_locate(const struct pageset *set, uint64_t pfn, uint64_t *n, uint64_t *page);

/* Pages [page, page + n) of a region, n not 0: set or clear; returns how many changed. */
static inline uint64_t pageset_set(struct pageset *set, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t changed = bitmap_set_range(set->map, set->at.region[region].first_bit + page, n);

	set->count += changed;
	return changed;
}

static inline uint64_t pageset_unset(struct pageset *set, uint32_t region, uint64_t page,
				     uint64_t n)
{
	uint64_t changed = bitmap_clear_range(set->map, set->at.region[region].first_bit + page, n);

	set->count -= changed;
	return changed;
}

/* Are all of them in? */
bool pageset_all(const struct pageset *set, uint32_t region, uint64_t page, uint64_t n);

/*
 * The next run of pages of a region that are in, from *page on: true with its beginning in *page
 * and its length in *n. Only reads: in a bitmap that is mostly untouched, most of its memory stays
 * so.
 */
bool pageset_next_run(const struct pageset *set, uint32_t region, uint64_t *page, uint64_t *n);

#endif
