// SPDX-License-Identifier: GPL-2.0-only
/*
 * Free page reports: the kernel hands out ranges of free pages that it has taken off its lists, the
 * host may discard what is in them, and then they go back onto the lists.
 *
 * They must not go back while the host has them: it would discard what somebody else has written by
 * then.  So there is no time after which waiting may be given up, and a host that never answers
 * keeps these pages.  But nothing hangs: the wait is an idle one, and a reset of the device, as on
 * removal, ends it.
 */
#include <linux/jiffies.h>

#include "balloon.h"

/* Has the host returned it, or nothing more to return? */
static bool ended(struct vb *vb)
{
	struct vb_report *r = &vb->report;
	unsigned int len;
	bool back;

	spin_lock_irq(&r->lock);
	/* Between the cut and the queue's end the host may still be at it: that is no end. */
	back = r->vq && virtqueue_get_buf(r->vq, &len);
	spin_unlock_irq(&r->lock);
	return back || READ_ONCE(vb->gone);
}

static int report(struct page_reporting_dev_info *info, struct scatterlist *sg, unsigned int nents)
{
	struct vb *vb = container_of(info, struct vb, report.info);
	struct vb_report *r = &vb->report;
	unsigned int pages = 0;
	int err;

	/* Once begun, a removal must not find another one. */
	spin_lock_irq(&vb->gate);
	err = vb->closing ? -ENODEV : 0;
	if (!err)
		WRITE_ONCE(r->out, true);
	spin_unlock_irq(&vb->gate);
	if (err)
		return err;

	for (unsigned int i = 0; i < nents; i++)
		pages += sg[i].length >> VIRTIO_BALLOON_PFN_SHIFT;
	spin_lock_irq(&r->lock);
	err = r->vq ? virtqueue_add_inbuf(r->vq, sg, nents, r, GFP_NOWAIT | __GFP_NOWARN) : -ENODEV;
	if (!err)
		virtqueue_kick(r->vq);
	spin_unlock_irq(&r->lock);
	if (!err) {
		/* Looks again from time to time, for a lost interrupt. */
		while (!wait_event_idle_timeout(r->wait, ended(vb), HZ))
			;
		if (READ_ONCE(vb->gone))
			err = -ENODEV;
		else
			r->reported += pages;
	}
	WRITE_ONCE(r->out, false);
	wake_up_all(&r->wait);
	return err;
}

void vb_report_used(struct virtqueue *vq)
{
	struct vb *vb = vq->vdev->priv;

	wake_up_all(&vb->report.wait);
}

int vb_report_start(struct vb *vb, struct virtqueue *vq)
{
	struct vb_report *r = &vb->report;
	unsigned int size, wanted = vb_reporting_ranges();
	int err;

	if (!vq)
		return 0;
	size = virtqueue_get_vring_size(vq);
	if (size < wanted)
		return -ENOSPC;
	r->vq = vq;
	memset(&r->info, 0, sizeof(r->info));
	r->info.report = report;
	vb_reporting_init(&r->info, size);
	err = page_reporting_register(&r->info);
	r->registered = !err;
	return err;
}

bool vb_report_close(struct vb *vb)
{
	struct vb_report *r = &vb->report;

	return !r->registered || wait_event_idle_timeout(r->wait, !READ_ONCE(r->out),
							 msecs_to_jiffies(VB_PATIENCE_MS));
}

void vb_report_cut(struct vb *vb)
{
	struct vb_report *r = &vb->report;

	spin_lock_irq(&r->lock);
	r->vq = NULL;
	spin_unlock_irq(&r->lock);
}

void vb_report_stop(struct vb *vb)
{
	struct vb_report *r = &vb->report;

	wake_up_all(&r->wait);
	if (r->registered)
		page_reporting_unregister(&r->info);
	r->registered = false;
}
