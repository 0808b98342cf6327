/* SPDX-License-Identifier: MIT */
/* From pages that the guest does not use to ranges that go down to be discarded. */
#ifndef BALLOON_GIVEBACK_H
#define BALLOON_GIVEBACK_H

#include "balloon/balloon.h"

/* Ranges that go down together. */
#define GIVEBACK_BATCH 256U

struct giveback {
	struct balloon *b;
	uint32_t n;
	struct balloon_range range[GIVEBACK_BATCH];
};

/* range[] is left as it is: clearing it would cost more than all the rest. */
void giveback_init(struct giveback *g, struct balloon *b);

/* Discards what was collected, or counts what may not be discarded now. */
void giveback_flush(struct giveback *g);

/* Part of a region, in bytes from its beginning, that consists of whole host pages. */
static inline void giveback_add(struct giveback *g, uint32_t region, uint64_t offset, uint64_t len)
{
	if (g->n == GIVEBACK_BATCH)
		giveback_flush(g);
	g->range[g->n++] = (struct balloon_range){region, offset, len};
}

/* The same for one of which only the whole host pages are to go. */
void giveback_add_whole(struct giveback *g, uint32_t region, uint64_t offset, uint64_t len);

/* Where page `page` of a region begins, in bytes from the region's beginning. */
static inline uint64_t giveback_page_offset(const struct balloon *b, uint32_t region, uint64_t page)
{
	return ((b->held.at.region[region].first_pfn + page) << VIRTIO_BALLOON_PFN_SHIFT) -
	       b->mem->region[region].gpa;
}

/* giveback_add_held() where host pages are larger than 4 KiB. */
void giveback_add_large(struct giveback *g, uint32_t region, uint64_t page, uint64_t n);

/*
 * Those host pages that overlap pages [page, page + n) of a region, all of which are held. In time
 * the pages before and after them, in other buffers, make a host page complete. In line, as
 * shuffled pages come one by one.
 */
static inline void giveback_add_held(struct giveback *g, uint32_t region, uint64_t page, uint64_t n)
{
	const struct balloon *b = g->b;

	if (b->mem->region[region].page_size >> VIRTIO_BALLOON_PFN_SHIFT > 1)
		giveback_add_large(g, region, page, n);
	else
		giveback_add(g, region, giveback_page_offset(b, region, page),
			     n << VIRTIO_BALLOON_PFN_SHIFT);
}

/* May memory be discarded: no inhibitor, and no poison that zeros would replace? */
bool giveback_allowed(const struct balloon *b);

/*
 * Discards what is held, from the beginning, in pieces: with each giveback_sweep(). It ends when
 * all is done or it must not go on.
 */
void giveback_sweep_start(struct balloon *b);
void giveback_sweep(struct balloon *b);

#endif
