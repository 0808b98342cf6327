// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arrays of page numbers on their way to the host and back.  An array goes round:
 *
 *   FREE -> FILLING   claimed; its pages are put in
 *   FILLING -> OUT    submitted: it and its pages are untouchable
 *   OUT -> BACK       the host has returned it: seen in the interrupt, or by whoever waits
 *   BACK -> FILLING   somebody looks after its pages: into the balloon, or back to the system
 *   FILLING -> FREE
 *
 * Several are out at the same time.  They come back in whatever order the host likes; its answer's
 * length and the rest of what it says is of no interest, so there is nothing in it to be trusted.
 */
#include <linux/jiffies.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "balloon.h"

int vb_ring_init(struct vb_ring *ring, struct virtio_device *vdev)
{
	ring->vdev = vdev;
	spin_lock_init(&ring->lock);
	init_waitqueue_head(&ring->wait);
	/* The host reads them, so they are where memory is contiguous. */
	ring->array = kcalloc(VB_ARRAYS, sizeof(*ring->array), GFP_KERNEL);
	ring->single = kzalloc(sizeof(*ring->single), GFP_KERNEL);
	if (!ring->array || !ring->single) {
		vb_ring_free(ring);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < VB_ARRAYS; i++)
		INIT_LIST_HEAD(&ring->array[i].pages);
	INIT_LIST_HEAD(&ring->single->pages);
	return 0;
}

void vb_ring_free(struct vb_ring *ring)
{
	kfree(ring->array);
	kfree(ring->single);
	ring->array = NULL;
	ring->single = NULL;
}

void vb_ring_start(struct vb_ring *ring, struct virtqueue *vq)
{
	unsigned int size = virtqueue_get_vring_size(vq);
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	ring->late = false;
	/* One place is for a single page. */
	ring->singles = size > 1;
	ring->arrays = clamp(size - ring->singles, 1U, (unsigned int)VB_ARRAYS);
	ring->vq = vq;
	spin_unlock_irqrestore(&ring->lock, flags);
}

struct vb_array *vb_ring_claim(struct vb_ring *ring)
{
	struct vb_array *found = NULL;
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	for (unsigned int i = 0; i < ring->arrays && !found; i++)
		if (ring->array[i].state == VB_ARRAY_FREE)
			found = &ring->array[i];
	if (found) {
		found->state = VB_ARRAY_FILLING;
		found->n = 0;
	}
	spin_unlock_irqrestore(&ring->lock, flags);
	return found;
}

void vb_ring_unclaim(struct vb_ring *ring, struct vb_array *array)
{
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	array->state = VB_ARRAY_FREE;
	spin_unlock_irqrestore(&ring->lock, flags);
}

bool vb_page_fits(struct page *page)
{
	/* Page numbers have 32 bits on the wire: that is 16 TiB. */
	return page_to_pfn(page) < (1ULL << 32) / VB_PER_PAGE;
}

void vb_array_add(struct vb_ring *ring, struct vb_array *array, struct page *page)
{
	unsigned long pfn = page_to_pfn(page) * VB_PER_PAGE;

	BUILD_BUG_ON(PAGE_SHIFT < VIRTIO_BALLOON_PFN_SHIFT);
	BUILD_BUG_ON(VB_ARRAY_PAGES == 0);
	for (unsigned int i = 0; i < VB_PER_PAGE; i++)
		array->pfn[array->n++] = cpu_to_virtio32(ring->vdev, (u32)(pfn + i));
}

int vb_ring_submit(struct vb_ring *ring, struct vb_array *array)
{
	struct scatterlist sg;
	unsigned long flags;
	bool notify = false;
	int r;

	sg_init_one(&sg, array->pfn, sizeof(array->pfn[0]) * array->n);
	spin_lock_irqsave(&ring->lock, flags);
	r = virtqueue_add_outbuf(ring->vq, &sg, 1, array, GFP_NOWAIT | __GFP_NOWARN);
	if (!r) {
		array->state = VB_ARRAY_OUT;
		ring->out++;
		notify = virtqueue_kick_prepare(ring->vq);
	}
	spin_unlock_irqrestore(&ring->lock, flags);
	if (notify)
		virtqueue_notify(ring->vq);
	return r;
}

void vb_ring_lose(struct vb_ring *ring, struct vb_array *array)
{
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	array->state = VB_ARRAY_OUT;
	ring->out++;
	spin_unlock_irqrestore(&ring->lock, flags);
}

struct vb_array *vb_ring_returned(struct vb_ring *ring)
{
	struct vb_array *found = NULL;
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	for (unsigned int i = 0; i < VB_ARRAYS && !found; i++)
		if (ring->array[i].state == VB_ARRAY_BACK)
			found = &ring->array[i];
	if (found)
		found->state = VB_ARRAY_FILLING;
	if (!ring->out)
		ring->late = false;
	spin_unlock_irqrestore(&ring->lock, flags);
	return found;
}

void vb_ring_collect(struct vb_ring *ring)
{
	struct vb_array *array;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&ring->lock, flags);
	/* Without a queue: an interrupt before it is known, or after it was given up. */
	while (ring->vq && (array = virtqueue_get_buf(ring->vq, &len))) {
		if (array->state != VB_ARRAY_OUT)
			continue;
		array->state = VB_ARRAY_BACK;
		ring->out--;
	}
	spin_unlock_irqrestore(&ring->lock, flags);
}

bool vb_ring_is_broken(struct vb_ring *ring)
{
	return virtqueue_is_broken(ring->vq);
}

bool vb_ring_wait(struct vb_ring *ring, unsigned int want, unsigned long end, unsigned int renew_ms)
{
	unsigned int out;

	vb_ring_collect(ring);
	out = READ_ONCE(ring->out);
	while (out > want && !vb_ring_is_broken(ring) && time_before(jiffies, end)) {
		unsigned int now;

		/* Idle sleep: a host that is slow is no load of this system, and nothing hung. */
		wait_event_idle_timeout(ring->wait, READ_ONCE(ring->out) < out,
					msecs_to_jiffies(VB_POLL_MS));
		vb_ring_collect(ring);
		now = READ_ONCE(ring->out);
		if (now < out && renew_ms)
			end = jiffies + msecs_to_jiffies(renew_ms);
		out = now;
	}
	if (out > want) {
		WRITE_ONCE(ring->late, true);
		/* Between the last look and that mark some may have come: nobody would care. */
		vb_ring_collect(ring);
		out = READ_ONCE(ring->out);
	}
	return out <= want;
}

void vb_ring_cut(struct vb_ring *ring)
{
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	ring->vq = NULL;
	spin_unlock_irqrestore(&ring->lock, flags);
}

void vb_ring_stop(struct vb_ring *ring)
{
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	for (unsigned int i = 0; i < VB_ARRAYS; i++)
		if (ring->array[i].state == VB_ARRAY_OUT)
			ring->array[i].state = VB_ARRAY_BACK;
	if (ring->single->state == VB_ARRAY_OUT)
		ring->single->state = VB_ARRAY_BACK;
	ring->out = 0;
	spin_unlock_irqrestore(&ring->lock, flags);
}
