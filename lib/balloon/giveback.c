// SPDX-License-Identifier: MIT
/*
 * Host pages larger than 4 KiB (hugetlbfs) go as a whole or not at all: when the bitmap says that
 * all of one is held, however many buffers it took. That trusts the bitmap to know of every page
 * which the guest took back, and so is done only with MUST_TELL_HOST, when no page is used before
 * its deflation was acknowledged. Without it only a host page that lies in a single merged range
 * goes. The sweep, which discards long after the guest gave a page away, needs that promise for
 * pages of any size.
 */
#include "balloon/giveback.h"

#include "balloon/queues.h"
#include "base/checked.h"

/* What a run of held pages costs at least, in pages: calls cost more than pages. */
#define RUN_COST 4U

bool giveback_allowed(const struct balloon *b)
{
	return !b->st.inhibited && !balloon_poison(b);
}

void giveback_init(struct giveback *g, struct balloon *b)
{
	g->b = b;
	g->n = 0;
}

void giveback_flush(struct giveback *g)
{
	struct balloon *b = g->b;

	if (g->n && giveback_allowed(b)) {
		b->st.freed_bytes += b->ops->discard(b->opaque, g->range, g->n);
	} else {
		for (uint32_t i = 0; i < g->n; i++)
			b->st.kept_bytes += g->range[i].len;
	}
	g->n = 0;
}

/* Of the region, in its first host page: bytes. */
static uint64_t phase_of(const struct guest_region *r)
{
	return r->backing_offset % r->page_size;
}

void giveback_add_whole(struct giveback *g, uint32_t region, uint64_t offset, uint64_t len)
{
	const struct guest_region *r = &g->b->mem->region[region];
	uint64_t phase = phase_of(r);
	uint64_t start = align_up(offset + phase, r->page_size);
	uint64_t end = align_down(offset + len + phase, r->page_size);

	/* The first host page may begin before the region, and then is not its own. */
	if (start < end)
		giveback_add(g, region, start - phase, end - start);
}

/* Has this host page just been named? Neighbouring PFNs may share a large one. */
static bool is_last(const struct giveback *g, uint32_t region, uint64_t offset)
{
	const struct balloon_range *last;

	if (!g->n)
		return false;
	last = &g->range[g->n - 1];
	return last->region == region && last->offset == offset;
}

void giveback_add_large(struct giveback *g, uint32_t region, uint64_t page, uint64_t n)
{
	struct balloon *b = g->b;
	const struct guest_region *r = &b->mem->region[region];
	const struct pageset_region *h = &b->held.at.region[region];
	bool told = balloon_has(b, VIRTIO_BALLOON_F_MUST_TELL_HOST);
	uint64_t phase = phase_of(r);
	uint64_t start = giveback_page_offset(b, region, page), end = start + (n << PAGE_SHIFT);
	uint64_t at = align_down(start + phase, r->page_size);

	for (; at < end + phase; at += r->page_size) {
		uint64_t offset = at - phase, first;

		if (at < phase || !range_within(offset, r->page_size, r->size) ||
		    is_last(g, region, offset))
			continue;
		if (!told && !(offset >= start && offset + r->page_size <= end))
			continue;
		/* Offsets are whole pages from the first one, or no host page is aligned to GPAs.
		 */
		first = offset - giveback_page_offset(b, region, 0);
		if (first % PAGE_BYTES ||
		    !range_within(first, r->page_size, h->pages << PAGE_SHIFT))
			continue;
		if (pageset_all(&b->held, region, first >> PAGE_SHIFT, r->page_size >> PAGE_SHIFT))
			giveback_add(g, region, offset, r->page_size);
	}
}

void giveback_sweep_start(struct balloon *b)
{
	b->st.sweep = (struct balloon_sweep){.active = b->held.count > 0};
}

void giveback_sweep(struct balloon *b)
{
	struct balloon_sweep *sweep = &b->st.sweep;
	uint64_t left = BALLOON_TURN_BYTES >> PAGE_SHIFT, n;
	struct giveback g;

	if (!giveback_allowed(b) || !balloon_has(b, VIRTIO_BALLOON_F_MUST_TELL_HOST))
		sweep->active = false;
	giveback_init(&g, b);
	while (sweep->active && left && sweep->region < b->held.at.n) {
		if (!pageset_next_run(&b->held, sweep->region, &sweep->page, &n)) {
			sweep->region++;
			sweep->page = 0;
			continue;
		}
		n = min_u64(n, left);
		giveback_add_held(&g, sweep->region, sweep->page, n);
		sweep->page += n;
		left -= min_u64(left, n > RUN_COST ? n : RUN_COST);
	}
	giveback_flush(&g);
	if (sweep->region >= b->held.at.n)
		sweep->active = false;
	b->ops->commit(b->opaque);
}
