// SPDX-License-Identifier: MIT
/*
 * The free page queue. A command is a number in the configuration; the driver sends that number,
 * then the pages that are free, then STOP. The pages are marked for a migration or snapshot to pass
 * over. They are never discarded: the guest may use a hinted page again without a word.
 *
 * Source: virtio 1.4 "Free Page Hinting".
 */
#include <errno.h>

#include "balloon/queues.h"
#include "balloon/spans.h"
#include "base/checked.h"
#include "base/le.h"

#define QUEUE VIRTIO_BALLOON_VQ_FREE_PAGE

#define BUSY BALLOON_HINT_COUNT

/* What an action leads to in each state. */
static const enum balloon_hint_state next_state[BALLOON_HINT_COUNT][BALLOON_HINT_ACTIONS] = {
	/* START, STOP, FINISH */
	[BALLOON_HINT_IDLE] = {BALLOON_HINT_REQUESTED, BALLOON_HINT_IDLE, BALLOON_HINT_DONE},
	[BALLOON_HINT_REQUESTED] = {BUSY, BALLOON_HINT_IDLE, BALLOON_HINT_DONE},
	[BALLOON_HINT_HINTING] = {BUSY, BALLOON_HINT_IDLE, BALLOON_HINT_DONE},
	[BALLOON_HINT_FINISHED] = {BALLOON_HINT_REQUESTED, BALLOON_HINT_IDLE, BALLOON_HINT_DONE},
	[BALLOON_HINT_DONE] = {BALLOON_HINT_REQUESTED, BALLOON_HINT_IDLE, BALLOON_HINT_DONE},
};
static_assert(BALLOON_HINT_COUNT == 5 && BALLOON_HINT_ACTIONS == 3, "all of both are in the table");

uint32_t balloon_hint_command(const struct balloon *b)
{
	switch (b->st.hint.state) {
	case BALLOON_HINT_REQUESTED:
	case BALLOON_HINT_HINTING:
	case BALLOON_HINT_FINISHED:
		return b->st.hint.id;
	case BALLOON_HINT_DONE:
		return VIRTIO_BALLOON_CMD_ID_DONE;
	case BALLOON_HINT_IDLE:
	case BALLOON_HINT_COUNT:
	default:
		return VIRTIO_BALLOON_CMD_ID_STOP;
	}
}

/* Not one that the driver has begun and not finished: its late hints would count as new ones. */
static uint32_t next_id(const struct balloon_hint *hint)
{
	uint32_t id = hint->id;

	do
		id = id < VIRTIO_BALLOON_CMD_ID_MIN || id == UINT32_MAX ? VIRTIO_BALLOON_CMD_ID_MIN
									: id + 1;
	while (id == hint->driver_id);
	return id;
}

int balloon_hint(struct balloon *b, enum balloon_hint_action action)
{
	struct balloon_hint *hint = &b->st.hint;
	const struct vq *vq = balloon_vq(b, QUEUE);
	enum balloon_hint_state next = next_state[hint->state][action];

	if (!balloon_driver_active(b))
		return -ENODEV;
	if (!balloon_has(b, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		return -ENOTSUP;
	if (action == BALLOON_HINT_START &&
	    (!vq || !vq_started(vq) || vq->st.error || !b->hints.map))
		return -ENODEV;
	if (next == BUSY)
		return -EBUSY;
	if (action == BALLOON_HINT_START) {
		hint->id = next_id(hint);
		pageset_clear(&b->hints);
	}
	hint->state = next;
	/* A successor that did not know of this id might use it again. */
	b->ops->commit(b->opaque);
	b->ops->config_changed(b->opaque);
	return 0;
}

/* A request stands: the configuration tells the new driver of it. */
void balloon_hint_fresh(struct balloon *b)
{
	struct balloon_hint *hint = &b->st.hint;

	hint->driver_id = 0;
	if (hint->state != BALLOON_HINT_REQUESTED)
		hint->state = BALLOON_HINT_IDLE;
	/* These pages were free for a guest that is no more. */
	pageset_clear(&b->hints);
}

/* The standard asks for the word to the driver, which would go on in vain. */
void balloon_hint_useless(struct balloon *b)
{
	struct balloon_hint *hint = &b->st.hint;

	if (hint->state != BALLOON_HINT_REQUESTED && hint->state != BALLOON_HINT_HINTING)
		return;
	hint->state = BALLOON_HINT_IDLE;
	b->ops->config_changed(b->opaque);
	b->ops->event(b->opaque, BALLOON_EVENT_HINT);
}

/* The driver begins a command, or ends one. */
static void take_id(struct balloon *b, uint32_t id)
{
	struct balloon_hint *hint = &b->st.hint;

	if (id == VIRTIO_BALLOON_CMD_ID_STOP) {
		hint->driver_id = 0;
		if (hint->state != BALLOON_HINT_HINTING)
			return;
		hint->state = BALLOON_HINT_FINISHED;
	} else {
		hint->driver_id = id;
		if (id != hint->id) {
			balloon_count_error(b, BALLOON_ERR_HINT_ID, 1);
			return;
		}
		if (hint->state != BALLOON_HINT_REQUESTED)
			return;
		hint->state = BALLOON_HINT_HINTING;
	}
	b->ops->event(b->opaque, BALLOON_EVENT_HINT);
}

/* Marks the whole pages of a stretch. */
static void mark(struct balloon *b, const struct span *span)
{
	const struct guest_region *r = &b->mem->region[span->region];
	const struct pageset_region *h = &b->hints.at.region[span->region];
	/* From the first whole page of the region: a stretch may begin before it. */
	uint64_t lead = (h->first_pfn << PAGE_SHIFT) - r->gpa;
	uint64_t start = span->offset > lead ? span->offset - lead : 0;
	uint64_t end = span->offset + span->len > lead ? span->offset + span->len - lead : 0;
	uint64_t first = align_up(start, PAGE_BYTES) >> PAGE_SHIFT;
	uint64_t last = end >> PAGE_SHIFT;

	if (first < last && b->hints.map)
		pageset_set(&b->hints, span->region, first, last - first);
}

/* Serves a part of the chain in hand; true when it is done. */
static bool serve(struct balloon *b, int64_t *work)
{
	const struct vq_chain *chain = &b->chain[QUEUE];
	const struct balloon_hint *hint = &b->st.hint;
	struct span_cursor at = {0};
	uint64_t before;
	bool wanted = hint->state == BALLOON_HINT_HINTING && hint->driver_id == hint->id;
	struct span span;

	span_skip(chain, &at, b->st.resume[QUEUE]); /* at most to the end */
	before = at.done;
	while (*work > 0 && span_next(chain, b->mem, &at, 1ULL << 30, &span)) {
		if (wanted)
			mark(b, &span);
		*work -= 16 + (int64_t)(span.len >> 20);
	}
	if (wanted)
		b->st.hinted_bytes += at.done - before;
	b->st.resume[QUEUE] = at.done;
	return at.done >= chain->write_bytes;
}

/* Pops the next chain, and takes the id if it has one. As vq_pop(). */
static int take_chain(struct balloon *b)
{
	const struct vq_chain *chain = &b->chain[QUEUE];
	struct chain_cursor at = {0};
	uint8_t raw[sizeof(uint32_t)];
	int r = balloon_take_chain(b, QUEUE, BALLOON_EITHER);

	if (r <= 0)
		return r;
	b->in_hand[QUEUE] = true;
	/* With a part of its pages done, the id has had its effect. */
	if (!chain->n_read || b->st.resume[QUEUE])
		return r;
	if (chain_read(chain, &at, raw, sizeof(raw)) == sizeof(raw))
		take_id(b, le32_get(raw));
	else
		balloon_count_error(b, BALLOON_ERR_FRAGMENT, 1);
	return r;
}

bool balloon_hint_run(struct balloon *b)
{
	struct vq *vq = balloon_vq(b, QUEUE);
	int64_t work = BALLOON_TURN_WORK;

	while (work > 0) {
		if (!b->in_hand[QUEUE]) {
			int r = take_chain(b);

			if (r < 0 || (r == 0 && !vq_enable_kicks(vq)))
				return false;
			work -= 16;
			if (r == 0)
				continue;
		}
		if (serve(b, &work))
			balloon_chain_done(b, QUEUE);
		else
			b->ops->commit(b->opaque);
	}
	return true;
}
