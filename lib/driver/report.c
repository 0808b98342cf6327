// SPDX-License-Identifier: MIT
/*
 * Page reporting: one report at a time, of stretches of free pages that nobody touches until it is
 * back. When to report, and which pages, is the system's business: it calls
 * driver_balloon_report(), which takes as many stretches as there are, and large ones first if the
 * system has its wits about it.
 *
 * Source: virtio 1.4 "Free Page Reporting".
 */
#include <string.h>

#include "base/checked.h"
#include "driver/parts.h"

#define QUEUE VIRTIO_BALLOON_VQ_REPORTING

static int add(struct driver_balloon *d, const struct driver_buf *bufs, uint16_t n)
{
	const struct driver_room *table = &d->report.table;

	if (n > 1 && driver_balloon_has(d, VIRTIO_F_INDIRECT_DESC))
		return driver_ring_add_indirect(&d->ring[QUEUE], bufs, n, 0, table->host,
						table->gpa);
	return driver_ring_add(&d->ring[QUEUE], bufs, n, 0);
}

uint64_t driver_balloon_report(struct driver_balloon *d)
{
	struct driver_report *r = &d->report;
	struct driver_buf bufs[DRIVER_REPORT_BLOCKS];
	uint64_t max, pages = 0;

	if (!d->running || d->closing || r->out ||
	    !driver_balloon_has(d, VIRTIO_BALLOON_F_PAGE_REPORTING))
		return 0;
	max = min_u64(DRIVER_REPORT_BLOCKS, d->ring[QUEUE].size);
	for (r->n = 0; r->n < max; r->n++) {
		uint32_t pfn, n = d->setup.ops->take(d->setup.opaque, DRIVER_FOR_REPORT,
						     DRIVER_BLOCK_PAGES, &pfn);

		if (!n)
			break;
		r->block[r->n].pfn = pfn;
		r->block[r->n].n = n;
		bufs[r->n] = (struct driver_buf){(uint64_t)pfn << VIRTIO_BALLOON_PFN_SHIFT,
						 n << VIRTIO_BALLOON_PFN_SHIFT};
		pages += n;
	}
	if (!r->n)
		return 0;
	/* There is room: nothing else is in the ring. */
	r->out = add(d, bufs, r->n) >= 0;
	driver_kick(d, QUEUE);
	return pages;
}

static void give_back(struct driver_balloon *d)
{
	struct driver_report *r = &d->report;

	for (uint16_t i = 0; i < r->n; i++)
		d->setup.ops->give(d->setup.opaque, DRIVER_FOR_REPORT, r->block[i].pfn,
				   r->block[i].n);
	r->n = 0;
	r->out = false;
}

void driver_report_used(struct driver_balloon *d)
{
	give_back(d);
}

void driver_report_reset(struct driver_balloon *d)
{
	give_back(d);
}
