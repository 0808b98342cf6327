// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the balloon's pages come from.
 *
 * Much is taken in blocks of 2 MiB while there is plenty: that is fast, and contiguous pages are
 * what a host can give back fast, or, backed by huge pages, at all.  The last of it, and little,
 * come as the allocator has them, smallest pieces first: these have been in use before, so the host
 * really gets something, and the guest keeps its large blocks.
 */
#include "balloon.h"

/* Blocks are taken when there are so many to take. */
#define VB_BLOCK_ORDER (ilog2(SZ_2M) - PAGE_SHIFT)
#define VB_BLOCKS_MIN  16
static_assert(VB_BLOCK_ORDER <= VB_MAX_PAGE_ORDER);
static_assert(1 << VB_BLOCK_ORDER <= sizeof_field(struct vb_pages, spare) / sizeof(struct page *));

/* Is there so much free memory that a block less would not be felt? */
static bool plenty(void)
{
	return global_zone_page_state(NR_FREE_PAGES) >
	       totalram_pages() / 32 + (SZ_2M >> PAGE_SHIFT);
}

/*
 * Takes a block of pages, if one is lying about: nothing is reclaimed or moved for it, and after a
 * failure none is tried for the rest of the turn.
 */
static bool take_block(struct vb_pages *p, unsigned int want)
{
	struct page *page;

	if (p->no_blocks || want >> VB_BLOCK_ORDER < VB_BLOCKS_MIN)
		return false;
	page = plenty() ? alloc_pages(VB_GFP_PAGE & ~__GFP_RECLAIM, VB_BLOCK_ORDER) : NULL;
	if (!page) {
		p->no_blocks = true;
		return false;
	}
	split_page(page, VB_BLOCK_ORDER);
	for (unsigned int i = 0; i < 1U << VB_BLOCK_ORDER; i++)
		p->spare[i] = page + i;
	p->spare_next = 0;
	p->spare_end = 1U << VB_BLOCK_ORDER;
	return true;
}

struct page *vb_supply_take(struct vb_pages *p, unsigned int want)
{
	struct page *page;

	if (p->spare_next == p->spare_end && !take_block(p, want)) {
		unsigned int n = min_t(unsigned int, want, VB_ARRAY_PAGES);

		memset(p->spare, 0, n * sizeof(p->spare[0]));
		p->spare_next = 0;
		p->spare_end = vb_alloc_bulk(n, p->spare);
	}
	if (p->spare_next == p->spare_end)
		return NULL;
	page = p->spare[p->spare_next++];
	if (vb_page_fits(page))
		return page;
	put_page(page);
	return NULL;
}

void vb_supply_begin(struct vb_pages *p)
{
	p->no_blocks = false;
}

void vb_supply_end(struct vb_pages *p)
{
	while (p->spare_next < p->spare_end)
		put_page(p->spare[p->spare_next++]);
}
