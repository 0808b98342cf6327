// SPDX-License-Identifier: MIT
/*
 * Free page hinting. The host asks with a command's id in the configuration:
 *
 *   idle --(new id)--> the id is sent, then hints --(no more pages, or another id)--> STOP is sent
 *
 * Hinted pages are kept from the system, so that they stay free, until the configuration says DONE;
 * under another id or STOP they stay where they are. The system may have them back earlier:
 * driver_balloon_take_hinted(). Nothing waits for the return of a hint's buffer, which says
 * nothing.
 *
 * Source: virtio 1.4 "Free Page Hinting".
 */
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/le.h"
#include "driver/parts.h"

#define QUEUE VIRTIO_BALLOON_VQ_FREE_PAGE

/* Room in the ring that is kept for the word which ends a command. */
#define STOP_SLOTS 1U

void driver_hint_config_changed(struct driver_balloon *d)
{
	struct driver_hint *h = &d->hint;

	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		return;
	h->command =
		driver_config_get(d, offsetof(struct virtio_balloon_config, free_page_hint_cmd_id));
	/* After that an id may come again. */
	if (h->command < VIRTIO_BALLOON_CMD_ID_MIN)
		h->last = 0;
}

/* Sends a command's id, or STOP; its id in the ring to *id. */
static bool send_word(struct driver_balloon *d, const struct driver_room *room, uint32_t word,
		      uint16_t *id)
{
	struct driver_buf buf = {room->gpa, sizeof(word)};
	int r;

	le32_put(room->host, word);
	r = driver_ring_add(&d->ring[QUEUE], &buf, 1, 1);
	if (r < 0)
		return false;
	*id = (uint16_t)r;
	return true;
}

/* Hints one stretch of pages; false if there is none to be had. */
static bool hint(struct driver_balloon *d)
{
	struct driver_hint *h = &d->hint;
	uint32_t pfn,
		n = d->setup.ops->take(d->setup.opaque, DRIVER_FOR_HINT, DRIVER_BLOCK_PAGES, &pfn);
	struct driver_buf buf;

	if (!n)
		return false;
	buf.gpa = (uint64_t)pfn << VIRTIO_BALLOON_PFN_SHIFT;
	buf.len = n << VIRTIO_BALLOON_PFN_SHIFT;
	if (driver_ring_add(&d->ring[QUEUE], &buf, 1, 0) >= 0)
		h->out++;
	bitmap_set_range(d->setup.hinted, pfn - d->setup.first_pfn, n);
	h->pages += n;
	return true;
}

/* Goes on with the command in hand. */
static void go_on(struct driver_balloon *d)
{
	struct driver_hint *h = &d->hint;
	bool over = h->command != h->id || d->closing;

	while (!over && d->ring[QUEUE].n_free > STOP_SLOTS)
		over = !hint(d);
	if (over && !h->stop_out)
		h->stop_out = send_word(d, &h->stop, VIRTIO_BALLOON_CMD_ID_STOP, &h->stop_id);
	if (over && h->stop_out)
		h->id = 0;
}

/* Both buffers for words are needed: a command that was cut short may still have them. */
static void begin(struct driver_balloon *d)
{
	struct driver_hint *h = &d->hint;

	if (h->start_out || h->stop_out || d->ring[QUEUE].n_free <= STOP_SLOTS)
		return;
	h->start_out = send_word(d, &h->start, h->command, &h->start_id);
	if (!h->start_out)
		return;
	h->id = h->last = h->command;
	h->rounds++;
}

void driver_hint_step(struct driver_balloon *d)
{
	struct driver_hint *h = &d->hint;

	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		return;
	if (h->id)
		go_on(d);
	if (!h->id && !d->closing && h->command >= VIRTIO_BALLOON_CMD_ID_MIN &&
	    h->command != h->last) {
		begin(d);
		if (h->id)
			go_on(d);
	}
	driver_kick(d, QUEUE);
	if (h->command == VIRTIO_BALLOON_CMD_ID_DONE)
		(void)driver_balloon_take_hinted(d, h->pages);
}

void driver_hint_used(struct driver_balloon *d, uint16_t id)
{
	struct driver_hint *h = &d->hint;

	if (h->start_out && id == h->start_id)
		h->start_out = false;
	else if (h->stop_out && id == h->stop_id)
		h->stop_out = false;
	else if (h->out)
		h->out--;
}

uint64_t driver_balloon_take_hinted(struct driver_balloon *d, uint64_t pages)
{
	struct driver_hint *h = &d->hint;
	uint64_t *map = d->setup.hinted, end = d->setup.pages, given = 0;

	for (uint64_t at = 0; given < pages && h->pages;) {
		uint64_t n;

		at = bitmap_find(map, at, end, true);
		if (at == end)
			break;
		n = min_u64(bitmap_find(map, at, end, false) - at, pages - given);
		bitmap_clear_range(map, at, n);
		h->pages -= n;
		given += n;
		d->setup.ops->give(d->setup.opaque, DRIVER_FOR_HINT,
				   d->setup.first_pfn + (uint32_t)at, (uint32_t)n);
		at += n;
	}
	return given;
}

void driver_hint_reset(struct driver_balloon *d)
{
	(void)driver_balloon_take_hinted(d, d->hint.pages);
	memset(&d->hint, 0, sizeof(d->hint));
}
