// SPDX-License-Identifier: MIT
/*
 * The reporting queue: free pages that the guest does not touch until the buffer comes back. They
 * are given back as far as they are whole host pages; nothing is written to the buffer. When it
 * has come back the guest may use them, so there is nothing to remember.
 *
 * Source: virtio 1.4 "Page Reporting".
 */
#include "balloon/giveback.h"
#include "balloon/queues.h"
#include "balloon/spans.h"
#include "base/checked.h"

#define QUEUE VIRTIO_BALLOON_VQ_REPORTING

/* Serves a part of the chain in hand; true when it is done. */
static bool serve(struct balloon *b, int64_t *work)
{
	const struct vq_chain *chain = &b->chain[QUEUE];
	struct span_cursor at = {0};
	uint64_t left = BALLOON_TURN_BYTES, before;
	struct giveback g;
	struct span span;

	/* Of another chain, if a front end has lied about where its ring stands: not past the end.
	 */
	span_skip(chain, &at, b->st.resume[QUEUE]);
	before = at.done;
	giveback_init(&g, b);
	while (left && *work > 0 && span_next(chain, b->mem, &at, left, &span)) {
		giveback_add_whole(&g, span.region, span.offset, span.len);
		left -= min_u64(left, span.len);
		*work -= 16;
	}
	giveback_flush(&g);
	b->st.reported_bytes += at.done - before;
	b->st.resume[QUEUE] = at.done;
	*work -= (int64_t)((BALLOON_TURN_BYTES - left) / (BALLOON_TURN_BYTES / BALLOON_TURN_WORK));
	return at.done >= chain->write_bytes;
}

bool balloon_report_run(struct balloon *b)
{
	struct vq *vq = balloon_vq(b, QUEUE);
	int64_t work = BALLOON_TURN_WORK;

	while (work > 0) {
		if (!b->in_hand[QUEUE]) {
			int r = balloon_take_chain(b, QUEUE, BALLOON_WRITES);

			if (r < 0 || (r == 0 && !vq_enable_kicks(vq)))
				return false;
			work -= 16;
			if (r == 0)
				continue;
			b->in_hand[QUEUE] = true;
		}
		if (serve(b, &work))
			balloon_chain_done(b, QUEUE);
		else
			b->ops->commit(b->opaque);
	}
	return true;
}
