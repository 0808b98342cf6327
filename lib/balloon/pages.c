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
 * Host pages larger than 4 KiB (hugetlbfs) go as a whole or not at all: when the bitmap says that
 * all of one is held, however many buffers it took. That trusts the bitmap to know of every page
 * which the guest took back, and so is done only with MUST_TELL_HOST, when no page is used before
 * its deflation was acknowledged. Without it only a host page that lies in a single merged range
 * goes.
 *
 * Deflating: the mark is taken off; there is nothing to do for the host's memory, which comes back
 * when it is touched.
 *
 * A buffer may be long. It is worked off in batches, some each turn; until it is finished the chain
 * stays in hand. A change of the memory table or a stop of the queue hands it back to the ring, and
 * resume[] says how much of it to pass over when it is popped again.
 */
#include <errno.h>

#include "balloon/queues.h"
#include "base/checked.h"
#include "base/le.h"

#define PAGE_SHIFT VIRTIO_BALLOON_PFN_SHIFT
#define PAGE_BYTES (1ULL << PAGE_SHIFT)

/* Ranges that go down to be discarded together. */
#define DISCARD_BATCH 256U

struct outgoing {
	struct balloon *b;
	uint32_t hint; /* region that the last page was in */
	uint32_t n;
	struct balloon_range range[DISCARD_BATCH];
};

static void flush(struct outgoing *out)
{
	if (out->n)
		out->b->st.freed_bytes += out->b->ops->discard(out->b->opaque, out->range, out->n);
	out->n = 0;
}

static void discard_later(struct outgoing *out, uint32_t region, uint64_t offset, uint64_t len)
{
	if (out->n == DISCARD_BATCH)
		flush(out);
	out->range[out->n++] = (struct balloon_range){region, offset, len};
}

/* Has this host page just been named? Neighbouring PFNs may share a large one. */
static bool is_last(const struct outgoing *out, uint32_t region, uint64_t offset)
{
	const struct balloon_range *last;

	if (!out->n)
		return false;
	last = &out->range[out->n - 1];
	return last->region == region && last->offset == offset;
}

/* Where page `page` of a region begins, in bytes from the region's beginning. */
static uint64_t page_offset(const struct balloon *b, uint32_t region, uint64_t page)
{
	return ((b->held.region[region].first_pfn + page) << PAGE_SHIFT) -
	       b->mem->region[region].gpa;
}

/*
 * Discards those host pages that overlap pages [page, page + n) of a region, lie in it wholly, and
 * may go.
 */
static void discard_host_pages(struct outgoing *out, uint32_t region, uint64_t page, uint64_t n)
{
	struct balloon *b = out->b;
	const struct guest_region *r = &b->mem->region[region];
	const struct held_region *h = &b->held.region[region];
	bool told = balloon_has(b, VIRTIO_BALLOON_F_MUST_TELL_HOST);
	uint64_t phase =
		r->backing_offset % r->page_size; /* of the region in its first host page */
	uint64_t start = page_offset(b, region, page), end = start + (n << PAGE_SHIFT);
	uint64_t at = align_down(start + phase, r->page_size);

	for (; at < end + phase; at += r->page_size) {
		uint64_t offset = at - phase, first;

		if (at < phase || !range_within(offset, r->page_size, r->size) ||
		    is_last(out, region, offset))
			continue;
		if (!told && !(offset >= start && offset + r->page_size <= end))
			continue;
		/* Offsets are whole pages from the first one, or no host page is aligned to GPAs.
		 */
		first = offset - page_offset(b, region, 0);
		if (first % PAGE_BYTES ||
		    !range_within(first, r->page_size, h->pages << PAGE_SHIFT))
			continue;
		if (held_all(&b->held, region, first >> PAGE_SHIFT, r->page_size >> PAGE_SHIFT))
			discard_later(out, region, offset, r->page_size);
	}
}

static void inflate(struct outgoing *out, uint32_t region, uint64_t page, uint64_t n)
{
	struct balloon *b = out->b;

	balloon_count_error(b, BALLOON_ERR_DOUBLE, n - held_set(&b->held, region, page, n));
	if (b->mem->region[region].page_size > PAGE_BYTES)
		discard_host_pages(out, region, page, n);
	else
		discard_later(out, region, page_offset(b, region, page), n << PAGE_SHIFT);
}

static void deflate(struct outgoing *out, uint32_t region, uint64_t page, uint64_t n)
{
	struct balloon *b = out->b;

	balloon_count_error(b, BALLOON_ERR_NOT_HELD, n - held_unset(&b->held, region, page, n));
}

/* As held_locate(), which is asked only where the region is another than the last time. */
static int locate(struct outgoing *out, uint64_t pfn, uint64_t *n, uint64_t *page)
{
	const struct held *held = &out->b->held;
	const struct held_region *r = &held->region[out->hint];
	int region;

	if (out->hint < held->n && pfn - r->first_pfn < r->pages) {
		*page = pfn - r->first_pfn;
		*n = min_u64(*n, r->pages - *page);
		return (int)out->hint;
	}
	region = held_locate(held, pfn, n, page);
	if (region >= 0)
		out->hint = (uint32_t)region;
	return region;
}

/* Applies one merged range of PFNs, cut where regions begin and end. */
static void apply(struct outgoing *out, uint32_t queue, struct pfn_range range)
{
	struct balloon *b = out->b;
	uint64_t pfn = range.first, left = range.n;

	while (left) {
		uint64_t n = left, page;
		int region = locate(out, pfn, &n, &page);

		if (region < 0)
			balloon_count_error(b, BALLOON_ERR_PFN, n);
		else if (queue == VIRTIO_BALLOON_VQ_INFLATE)
			inflate(out, (uint32_t)region, page, n);
		else
			deflate(out, (uint32_t)region, page, n);
		pfn += n;
		left -= n;
	}
}

/* Takes the next PFNs of the chain in hand; returns how many bytes were read, 0 at its end. */
static size_t take_batch(struct balloon *b, uint32_t queue)
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

static void serve_batch(struct balloon *b, uint32_t queue)
{
	struct outgoing
		out; /* range[] is left as it is: clearing it would cost more than the rest */
	uint32_t duplicates, n = pfn_batch_merge(&b->batch, &duplicates);

	out.b = b;
	out.hint = 0;
	out.n = 0;
	balloon_count_error(b, BALLOON_ERR_DUPLICATE, duplicates);
	for (uint32_t i = 0; i < n; i++)
		apply(&out, queue, b->batch.range[i]);
	flush(&out);
}

/* Pops the next chain into hand. As vq_pop(). */
static int take_chain(struct balloon *b, uint32_t queue)
{
	struct vq_chain *chain = &b->chain[queue];
	int r = vq_pop(b->vq[queue], chain);

	if (r > 0 && (chain->n_write || !chain->n_read)) {
		vq_break(b->vq[queue], VQ_ERR_DIRECTION);
		r = -EPROTO;
	}
	if (r < 0)
		balloon_break_queue(b, queue, b->vq[queue]->st.error);
	if (r <= 0)
		return r;
	b->cursor[queue] = (struct chain_cursor){0};
	chain_skip(chain, &b->cursor[queue], b->st.resume[queue]);
	b->in_hand[queue] = true;
	return 1;
}

void balloon_pages_let_go(struct balloon *b, uint32_t queue)
{
	if (!b->in_hand[queue])
		return;
	vq_unpop(b->vq[queue], b->chain[queue].slots);
	b->in_hand[queue] = false;
	/* A part of it had its effect: a driver that begins at 0 again has started afresh. */
	if (b->st.resume[queue])
		b->vq[queue]->st.served = true;
}

bool balloon_pages_run(struct balloon *b, uint32_t queue)
{
	struct vq *vq = b->vq[queue];
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
			continue;
		b->st.resume[queue] = 0;
		b->in_hand[queue] = false;
		b->st.buffers[queue]++;
		balloon_return(b, queue, chain->id, chain->slots);
	}
	return true;
}
