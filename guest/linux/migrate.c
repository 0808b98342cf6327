// SPDX-License-Identifier: GPL-2.0-only
/*
 * Compaction moves pages of the balloon out of its way: a new page takes an old one's place.  The
 * host is told in two steps (virtio 1.4 has no other way): the new one is inflated, and then the
 * old one deflated.
 *
 * The caller holds both pages' locks and cannot be kept waiting long, but a page that was named to
 * the host must not go back to the system before the host has answered.  So when it does not answer
 * in time, the migration still succeeds: the new page is in the balloon, and nothing is deflated
 * until the host has returned its array (vb_migrate_open()); the old one is kept by a reference of
 * ours until the host has returned that array.  No further page is migrated meanwhile.
 */
#include <linux/jiffies.h>

#include "balloon.h"

#define VB_MIGRATE_PATIENCE_MS 1000

static enum vb_array_state state(struct vb_ring *ring)
{
	return READ_ONCE(ring->single->state);
}

bool vb_migrate_open(struct vb *vb)
{
	return state(&vb->pages.inflate) == VB_ARRAY_OUT;
}

void vb_migrate_settle(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;

	lockdep_assert_held(&p->lock);
	if (state(&p->inflate) == VB_ARRAY_BACK)
		vb_ring_unclaim(&p->inflate, p->inflate.single);
	if (state(&p->deflate) == VB_ARRAY_BACK) {
		put_page(p->deflate.single_page);
		p->deflate.single_page = NULL;
		vb_ring_unclaim(&p->deflate, p->deflate.single);
	}
}

static bool ready(struct vb_ring *ring)
{
	return ring->singles && state(ring) == VB_ARRAY_FREE && !vb_ring_is_broken(ring);
}

static int send_page(struct vb_ring *ring, struct page *page)
{
	ring->single->n = 0;
	vb_array_add(ring, ring->single, page);
	return vb_ring_submit(ring, ring->single);
}

/* Waits until the array of a single page is back. */
static void await(struct vb *vb, struct vb_ring *ring)
{
	unsigned long end = jiffies + msecs_to_jiffies(VB_MIGRATE_PATIENCE_MS);

	while (state(ring) == VB_ARRAY_OUT) {
		wait_event_idle_timeout(ring->wait, state(ring) != VB_ARRAY_OUT,
					msecs_to_jiffies(VB_POLL_MS));
		vb_ring_collect(ring);
		if (state(ring) == VB_ARRAY_OUT &&
		    (time_after(jiffies, end) || vb_ring_is_broken(ring))) {
			WRITE_ONCE(ring->late, true);
			vb->pages.timeouts++;
			/* It may have come before that mark. */
			vb_ring_collect(ring);
			return;
		}
	}
}

static int migrate(struct balloon_dev_info *list, struct page *newpage, struct page *page,
		   enum migrate_mode mode)
{
	struct vb *vb = container_of(list, struct vb, pages.list);
	struct vb_pages *p = &vb->pages;
	int r = -EAGAIN;

	/* It may be held by another migration, which waits for the host. */
	if (!mutex_trylock(&p->lock))
		return -EAGAIN;
	vb_migrate_settle(vb);
	if (READ_ONCE(vb->closing) || !ready(&p->inflate) || !ready(&p->deflate) ||
	    !vb_page_fits(newpage) || send_page(&p->inflate, newpage))
		goto out;
	await(vb, &p->inflate);

	get_page(page);
	p->deflate.single_page = page;
	/* A broken device returns nothing: then it is as if it had the array until it is reset. */
	if (send_page(&p->deflate, page))
		vb_ring_lose(&p->deflate, p->deflate.single);
	else
		await(vb, &p->deflate);
	vb_list_migrated(list, newpage, page, p->adjust);
	vb_migrate_settle(vb);
	p->migrated += VB_PER_PAGE;
	r = 0;
out:
	mutex_unlock(&p->lock);
	return r;
}

void vb_migrate_init(struct vb *vb)
{
	if (VB_CAN_MIGRATE)
		vb->pages.list.migratepage = migrate;
}
