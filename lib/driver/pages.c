// SPDX-License-Identifier: MIT
/*
 * Inflating and deflating, one buffer of each at a time. The duties, from virtio 1.4 "Device
 * Operation":
 *
 * - A page that was named in an inflate buffer is not used, nor deflated, before that buffer is
 *   back: it enters the driver's bitmap only then.
 * - With MUST_TELL_HOST a page that was named in a deflate buffer is not used before that is back.
 *   Without it the page may be, and here it is, at once. It might then be inflated anew while its
 *   deflation is under way on the other queue, and nobody knows which the device sees first: so no
 *   inflation is begun while a deflation is out.
 * - `actual` follows when a buffer is back.
 *
 * The array itself is the record of what is under way: the device only reads it.
 */
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/le.h"
#include "driver/parts.h"

#define PFN_BYTES sizeof(virtio_balloon_pfn_t)

static uint32_t array_get(const struct driver_array *a, uint32_t i)
{
	return le32_get(a->room.host + (size_t)i * PFN_BYTES);
}

static void array_add(struct driver_array *a, uint32_t pfn, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		le32_put(a->room.host + (size_t)(a->n + i) * PFN_BYTES, pfn + i);
	a->n += n;
}

/* Gives the pages of an array back, neighbours together. */
static void give_array(struct driver_balloon *d, const struct driver_array *a)
{
	uint32_t first = 0;

	for (uint32_t i = 1; i <= a->n; i++) {
		if (i < a->n && array_get(a, i) == array_get(a, i - 1) + 1)
			continue;
		d->setup.ops->give(d->setup.opaque, DRIVER_FOR_BALLOON, array_get(a, first),
				   i - first);
		first = i;
	}
}

static void send(struct driver_balloon *d, enum virtio_balloon_queue queue, struct driver_array *a)
{
	struct driver_buf buf = {a->room.gpa, a->n * (uint32_t)PFN_BYTES};

	/* There is room: a queue has one buffer out at most. */
	a->out = driver_ring_add(&d->ring[queue], &buf, 1, 1) >= 0;
	driver_kick(d, queue);
}

static void inflate(struct driver_balloon *d, uint64_t want, uint64_t now_ms)
{
	struct driver_pages *p = &d->pages;
	uint32_t left = (uint32_t)min_u64(want, d->setup.array_pfns);

	p->inflate.n = 0;
	while (left) {
		uint32_t pfn,
			n = d->setup.ops->take(d->setup.opaque, DRIVER_FOR_BALLOON, left, &pfn);

		if (!n)
			break;
		array_add(&p->inflate, pfn, n);
		left -= n;
	}
	p->retry_ms = 0;
	if (left) {
		p->refused++;
		p->retry_ms = now_ms + DRIVER_RETRY_MS;
	}
	if (p->inflate.n)
		send(d, VIRTIO_BALLOON_VQ_INFLATE, &p->inflate);
}

/* Fills the array from the bitmap, from where it was left off, and clears what it takes. */
static void choose(struct driver_balloon *d, uint64_t want)
{
	struct driver_pages *p = &d->pages;
	uint64_t *map = d->setup.in_balloon, pages = d->setup.pages;
	uint64_t left = min_u64(want, d->setup.array_pfns);
	bool wrapped = false;

	p->deflate.n = 0;
	while (left) {
		uint64_t at = bitmap_find(map, p->cursor, pages, true), n;

		if (at == pages) {
			p->cursor = 0;
			if (wrapped)
				break;
			wrapped = true;
			continue;
		}
		n = min_u64(bitmap_find(map, at, pages, false) - at, left);
		bitmap_clear_range(map, at, n);
		array_add(&p->deflate, d->setup.first_pfn + (uint32_t)at, (uint32_t)n);
		p->cursor = at + n;
		left -= n;
	}
}

static void deflate(struct driver_balloon *d, uint64_t want)
{
	struct driver_pages *p = &d->pages;

	choose(d, want);
	if (!p->deflate.n)
		return;
	send(d, VIRTIO_BALLOON_VQ_DEFLATE, &p->deflate);
	if (!driver_balloon_has(d, VIRTIO_BALLOON_F_MUST_TELL_HOST))
		give_array(d, &p->deflate);
}

static void write_actual(const struct driver_balloon *d)
{
	driver_config_put(d, offsetof(struct virtio_balloon_config, actual),
			  (uint32_t)d->pages.count);
}

void driver_pages_used(struct driver_balloon *d, enum virtio_balloon_queue queue)
{
	struct driver_pages *p = &d->pages;
	struct driver_array *a = queue == VIRTIO_BALLOON_VQ_INFLATE ? &p->inflate : &p->deflate;

	if (!a->out)
		return;
	a->out = false;
	if (queue == VIRTIO_BALLOON_VQ_INFLATE) {
		for (uint32_t i = 0; i < a->n; i++)
			bitmap_set_range(d->setup.in_balloon, array_get(a, i) - d->setup.first_pfn,
					 1);
		p->count += a->n;
	} else {
		p->count -= a->n;
		p->oom_pages += min_u64(p->oom_left, a->n);
		p->oom_left -= min_u64(p->oom_left, a->n);
		if (driver_balloon_has(d, VIRTIO_BALLOON_F_MUST_TELL_HOST))
			give_array(d, a);
	}
	/* For a change whose notice is still on its way. */
	p->stale = true;
	write_actual(d);
}

void driver_pages_config_changed(struct driver_balloon *d)
{
	d->pages.stale = true;
	d->pages.oom_pause = false;
}

static bool may_inflate(const struct driver_balloon *d)
{
	const struct driver_pages *p = &d->pages;

	return !d->closing && !d->message.waiting && !p->oom_pause && !p->retry_ms &&
	       !p->inflate.out && !p->deflate.out;
}

/* Pages to be taken out of the balloon: by the target, or because the system ran short. */
static uint64_t excess(const struct driver_balloon *d)
{
	const struct driver_pages *p = &d->pages;
	uint64_t target = d->closing ? 0 : p->target;
	uint64_t over = p->count > target ? p->count - target : 0;

	return over > p->oom_left ? over : p->oom_left;
}

void driver_pages_step(struct driver_balloon *d, uint64_t now_ms)
{
	struct driver_pages *p = &d->pages;

	if (now_ms >= p->retry_ms)
		p->retry_ms = 0;
	if (p->deflate.out && !may_inflate(d))
		return;
	if (p->stale)
		p->target = driver_config_get(d, offsetof(struct virtio_balloon_config, num_pages));
	p->stale = false;
	if (excess(d) && !p->deflate.out)
		deflate(d, excess(d));
	else if (p->target > p->count && may_inflate(d))
		inflate(d, p->target - p->count, now_ms);
}

uint64_t driver_pages_next(const struct driver_balloon *d)
{
	return d->pages.retry_ms ? d->pages.retry_ms : UINT64_MAX;
}

uint64_t driver_balloon_oom(struct driver_balloon *d, uint64_t pages, uint64_t now_ms)
{
	struct driver_pages *p = &d->pages;
	uint64_t busy = p->deflate.out ? p->deflate.n : 0;

	if (!d->running || !driver_balloon_has(d, VIRTIO_BALLOON_F_DEFLATE_ON_OOM))
		return 0;
	/* What is on its way already counts as well: it comes back all the same. */
	p->oom_left = min_u64(pages, p->count);
	if (p->oom_left < busy)
		p->oom_left = busy;
	if (pages)
		p->oom_pause = true;
	driver_balloon_step(d, now_ms);
	return p->oom_left;
}

void driver_pages_reset(struct driver_balloon *d)
{
	struct driver_pages *p = &d->pages;
	bool told = driver_balloon_has(d, VIRTIO_BALLOON_F_MUST_TELL_HOST);
	uint64_t *map = d->setup.in_balloon, pages = d->setup.pages;

	if (p->inflate.out)
		give_array(d, &p->inflate);
	if (p->deflate.out && told)
		give_array(d, &p->deflate);
	p->inflate.out = p->deflate.out = false;
	for (uint64_t at = 0, n; (at = bitmap_find(map, at, pages, true)) != pages; at += n) {
		n = bitmap_find(map, at, pages, false) - at;
		bitmap_clear_range(map, at, n);
		d->setup.ops->give(d->setup.opaque, DRIVER_FOR_BALLOON,
				   d->setup.first_pfn + (uint32_t)at, (uint32_t)n);
	}
	memset(p, 0, sizeof(*p));
}
