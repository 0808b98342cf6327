// SPDX-License-Identifier: MIT
/*
 * The inflate and deflate queues: arrays of page frame numbers.
 *
 * Inflating: the guest gives a page away and will not use it before it has deflated it. The page is
 * marked as held and discarded; only then the buffer is returned. A page outside of guest memory is
 * counted and passed over. A page that is held already is discarded again: the guest has just said
 * that it does not use it, and if the guest's idea of the balloon differs from ours, the memory is
 * freed.
 *
 * Deflating: the mark is taken off; there is nothing to do for the host's memory, which comes back
 * when it is touched.
 *
 * A buffer may be long. It is worked off in batches, some each turn; until it is finished the chain
 * stays in hand. A change of the memory table or a stop of the queue hands it back to the ring, and
 * resume[] says how much of it to pass over when it is popped again.
 */
#include "balloon/giveback.h"
#include "balloon/queues.h"
#include "base/checked.h"
#include "base/le.h"

/* A batch under way. */
struct work {
	struct balloon *b;
	enum virtio_balloon_queue queue;
	uint32_t hint; /* region that the last page was in */
	struct giveback out;
};

/* Work that is done again has its marks already, which is not the guest's error. */
static void count_unless_redone(struct work *w, enum balloon_error error, uint64_t n)
{
	if (!(w->b->redo >> w->queue & 1))
		balloon_count_error(w->b, error, n);
}

static void inflate(struct work *w, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t changed = pageset_set(&w->b->held, region, page, n);

	w->b->st.inflated_pages += n;
	count_unless_redone(w, BALLOON_ERR_DOUBLE, n - changed);
	giveback_add_held(&w->out, region, page, n);
}

static void deflate(struct work *w, uint32_t region, uint64_t page, uint64_t n)
{
	uint64_t changed = pageset_unset(&w->b->held, region, page, n);

	w->b->st.deflated_pages += n;
	count_unless_redone(w, BALLOON_ERR_NOT_HELD, n - changed);
}

/* As pageset_locate(), which is asked only where the region is another than the last time. */
static int locate(struct work *w, uint64_t pfn, uint64_t *n, uint64_t *page)
{
	const struct pageset *held = &w->b->held;
	const struct pageset_region *r = &held->at.region[w->hint];
	int region;

	if (w->hint < held->at.n && pfn - r->first_pfn < r->pages) {
		*page = pfn - r->first_pfn;
		*n = min_u64(*n, r->pages - *page);
		return (int)w->hint;
	}
	region = pageset_locate(held, pfn, n, page);
	if (region >= 0)
		w->hint = (uint32_t)region;
	return region;
}

/* Applies one merged range of PFNs, cut where regions begin and end. */
static void apply(struct work *w, struct pfn_range range)
{
	uint64_t pfn = range.first, left = range.n;

	while (left) {
		uint64_t n = left, page;
		int region = locate(w, pfn, &n, &page);

		if (region < 0)
			balloon_count_error(w->b, BALLOON_ERR_PFN, n);
		else if (w->queue == VIRTIO_BALLOON_VQ_INFLATE)
			inflate(w, (uint32_t)region, page, n);
		else
			deflate(w, (uint32_t)region, page, n);
		pfn += n;
		left -= n;
	}
}

/* Takes the next PFNs of the chain in hand; returns how many bytes were read, 0 at its end. */
static size_t take_batch(struct balloon *b, enum virtio_balloon_queue queue)
{
	struct pfn_batch *batch = &b->batch;
	size_t len =
		chain_read(&b->chain[queue], &b->cursor[queue], batch->pfn, sizeof(batch->pfn));

	batch->n = (uint32_t)(len / sizeof(batch->pfn[0]));
	if (len % sizeof(batch->pfn[0]))
		balloon_count_error(b, BALLOON_ERR_FRAGMENT, 1);
	for (uint32_t i = 0; i < batch->n; i++)
		batch->pfn[i] = le32toh(batch->pfn[i]);
	return len;
}

static void serve_batch(struct balloon *b, enum virtio_balloon_queue queue)
{
	uint32_t duplicates, n = pfn_batch_merge(&b->batch, &duplicates);
	struct work w; /* not initialised as a whole: see giveback_init() */

	w.b = b;
	w.queue = queue;
	w.hint = 0;
	giveback_init(&w.out, b);
	balloon_count_error(b, BALLOON_ERR_DUPLICATE, duplicates);
	for (uint32_t i = 0; i < n; i++)
		apply(&w, b->batch.range[i]);
	giveback_flush(&w.out);
	b->redo &= ~(1U << queue);
}

/* Pops the next chain into hand. As vq_pop(). */
static int take_chain(struct balloon *b, enum virtio_balloon_queue queue)
{
	int r = balloon_take_chain(b, queue, BALLOON_READS);

	if (r <= 0)
		return r;
	b->cursor[queue] = (struct chain_cursor){0};
	chain_skip(&b->chain[queue], &b->cursor[queue], b->st.resume[queue]);
	b->in_hand[queue] = true;
	return 1;
}

bool balloon_pages_run(struct balloon *b, enum virtio_balloon_queue queue)
{
	struct vq *vq = balloon_vq(b, queue);
	struct vq_chain *chain = &b->chain[queue];
	int64_t work = BALLOON_TURN_WORK;

	while (work > 0) {
		size_t len;

		if (!b->in_hand[queue]) {
			int r = take_chain(b, queue);

			if (r < 0 || (r == 0 && !vq_enable_kicks(vq)))
				return false;
			work -= 16;
			if (r == 0)
				continue;
			work -= chain->n_read;
		}
		len = take_batch(b, queue);
		if (b->batch.n)
			serve_batch(b, queue);
		b->st.resume[queue] += len;
		work -= b->batch.n;
		if (len && b->st.resume[queue] < chain->read_bytes)
			b->ops->commit(b->opaque);
		else
			balloon_chain_done(b, queue);
	}
	return true;
}
