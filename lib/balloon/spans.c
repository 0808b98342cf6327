// SPDX-License-Identifier: MIT
#include "balloon/spans.h"

#include "base/checked.h"

/* A segment of a chain lies in one region: chain_walk() has cut it where regions end. */
static uint32_t region_of(const struct guest_mem *mem, const uint8_t *host)
{
	uint32_t i = 0;

	while (i + 1 < mem->n &&
	       !(host >= mem->host[i] && host < mem->host[i] + mem->region[i].size))
		i++;
	return i;
}

/* How far from offset, some max bytes on, a host page ends: bytes. */
static uint64_t cut(const struct guest_region *r, uint64_t offset, uint64_t max)
{
	uint64_t at = r->backing_offset % r->page_size + offset;
	uint64_t end = align_down(at + max, r->page_size);

	return (end > at ? end : align_up(at + 1, r->page_size)) - at;
}

bool span_next(const struct vq_chain *chain, const struct guest_mem *mem, struct span_cursor *at,
	       uint64_t max, struct span *span)
{
	const struct chain_seg *seg;

	if (at->seg >= chain->n_write)
		return false;
	seg = &chain->seg[chain->n_read + at->seg];
	span->region = region_of(mem, seg->host);
	span->offset = (uint64_t)(seg->host - mem->host[span->region]) + at->offset;
	span->len = seg->len - at->offset;
	if (span->len > max)
		span->len = min_u64(span->len, cut(&mem->region[span->region], span->offset, max));
	span_skip(chain, at, span->len);
	return true;
}

void span_skip(const struct vq_chain *chain, struct span_cursor *at, uint64_t len)
{
	while (len && at->seg < chain->n_write) {
		uint64_t left = chain->seg[chain->n_read + at->seg].len - at->offset;
		uint64_t part = min_u64(left, len);

		at->offset += part;
		at->done += part;
		len -= part;
		if (part == left) {
			at->seg++;
			at->offset = 0;
		}
	}
}
