// SPDX-License-Identifier: GPL-2.0-only
/*
 * Messages to the host about memory pressure, and how it is noticed.
 *
 * It is first seen where memory is reclaimed: the kernel asks every shrinker what it has, in kswapd
 * as soon as free memory falls under the low watermark (low), and in the task that has to reclaim
 * for itself because kswapd is too slow (medium).  An OOM notifier knows of the worst (critical),
 * which is not said while the host is giving way.  While there is pressure, and only then, a work
 * item looks at the kernel's counters: allocations that stalled are medium; and the share of
 * scanned pages that could not be reclaimed is judged as the kernel's own vmpressure does (60 %
 * medium, 95 % critical, over at least 512 pages), which is not exported.  When nothing was seen
 * for VB_RELIEF_MS the host is told that it is over.
 *
 * From the moment pressure is noticed inflation rests until the host has returned the message:
 * then it has dealt with it, and num_pages says what it wants now.  One message is out at a time;
 * a worse one goes next.  The message is sent from the very context that noticed, which may be the
 * depth of reclaim: the buffer is there, the ring has room, and nothing is allocated.
 *
 * A level that lasts is said again, the more often the worse it is: the host may have to act in
 * steps.  Messages are never nearer to each other than 100 ms, unless the level rises.
 */
#include <linux/jiffies.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "balloon.h"

#define VB_LOOK_MS      100
#define VB_RELIEF_MS    1000
#define VB_GAP_MS       100
#define VB_WINDOW       512 /* pages scanned */
#define VB_MEDIUM_PCT   60
#define VB_CRITICAL_PCT 95

/* The same level is said again after this: ms. */
static const unsigned int again_ms[] = {
	[VIRTIO_BALLOON_PRESSURE_LOW] = 1000,
	[VIRTIO_BALLOON_PRESSURE_MEDIUM] = 250,
	[VIRTIO_BALLOON_PRESSURE_CRITICAL] = VB_GAP_MS,
};

static_assert(ARRAY_SIZE(again_ms) == VIRTIO_BALLOON_PRESSURE_NR);

static bool passed(unsigned long since, unsigned int ms)
{
	return time_after_eq(jiffies, since + msecs_to_jiffies(ms));
}

bool vb_pressure_waits(struct vb *vb)
{
	return READ_ONCE(vb->pressure.waiting);
}

bool vb_pressure_unanswered(struct vb *vb)
{
	return READ_ONCE(vb->pressure.out);
}

/*
 * Sends what is due, if the buffer is here.  Under the lock; true if the host is to be notified,
 * when it is released.
 */
static bool send(struct vb *vb)
{
	struct vb_pressure *p = &vb->pressure;
	struct virtio_balloon_message *m = p->buffer;
	struct scatterlist sg;
	int level = p->pending;

	if (p->out || vb->closing || !(level || p->relief))
		return false;
	if (p->ever && level <= p->told && !passed(p->sent, VB_GAP_MS))
		return false;
	m->type = cpu_to_le32(level ? VIRTIO_BALLOON_MSG_PRESSURE : VIRTIO_BALLOON_MSG_RELIEVED);
	m->arg = cpu_to_le32(level);
	sg_init_one(&sg, m, sizeof(*m));
	if (virtqueue_add_outbuf(p->vq, &sg, 1, p, GFP_NOWAIT | __GFP_NOWARN)) {
		/* The device is broken: nobody to tell, and nothing to wait for. */
		p->pending = 0;
		p->relief = false;
		WRITE_ONCE(p->waiting, false);
		return false;
	}
	if (level)
		p->pending = 0;
	else
		p->relief = false;
	p->out = true;
	p->ever = true;
	p->told = level;
	p->sent = jiffies;
	p->sent_at = ktime_get();
	p->messages[level]++;
	return virtqueue_kick_prepare(p->vq);
}

/* Takes the message back, if the host has returned it.  Under the lock. */
static bool collect(struct vb *vb)
{
	struct vb_pressure *p = &vb->pressure;
	unsigned int len;

	/* Without a queue: an interrupt before it is known, or after it was given up. */
	if (!p->vq || !virtqueue_get_buf(p->vq, &len))
		return false;
	p->out = false;
	p->wait_us = ktime_us_delta(ktime_get(), p->sent_at);
	/* The host has set num_pages before it returned the message: that is read first. */
	set_bit(VB_TARGET_STALE, &vb->pages.flags);
	if (!p->pending)
		WRITE_ONCE(p->waiting, false);
	return true;
}

void vb_pressure_note(struct vb *vb, int level)
{
	struct vb_pressure *p = &vb->pressure;
	bool notify = false, back = false;
	unsigned long flags;

	if (!READ_ONCE(p->vq))
		return;
	WRITE_ONCE(p->seen, jiffies);
	/* kswapd comes here thousands of times a second. */
	if (level <= READ_ONCE(p->told) && !passed(READ_ONCE(p->sent), again_ms[level]))
		return;
	spin_lock_irqsave(&p->lock, flags);
	if (vb->closing)
		goto out;
	/* Its interrupt may be waiting behind us, or be lost. */
	back = collect(vb);
	p->level = max(p->level, level);
	p->relief = false;
	/* One that is under way speaks for this too, unless it was given up on. */
	if (level > p->pending && !(p->out && p->waiting && level <= p->told)) {
		p->pending = level;
		if (!p->waiting)
			p->since = jiffies;
		WRITE_ONCE(p->waiting, true);
		notify = send(vb);
	}
out:
	spin_unlock_irqrestore(&p->lock, flags);
	if (notify)
		virtqueue_notify(p->vq);
	if (back)
		vb_pages_kick(vb);
	vb_queue_later(vb, &p->work, msecs_to_jiffies(VB_LOOK_MS));
}

void vb_pressure_reclaim(struct vb *vb)
{
	/* Others ask shrinkers too, without any need: drop_caches, for one. */
	if (!(current->flags & PF_MEMALLOC) || !vb->pressure.vq)
		return;
	set_bit(VB_PRESSURE_SEEN, &vb->pressure.flags);
	/* What inflation itself reclaims makes no program wait: that is no more than low. */
	if (current == READ_ONCE(vb->pages.worker)) {
		set_bit(VB_PRESSURE_OWN, &vb->pressure.flags);
		vb_pressure_note(vb, VIRTIO_BALLOON_PRESSURE_LOW);
	} else if (current_is_kswapd()) {
		vb_pressure_note(vb, VIRTIO_BALLOON_PRESSURE_LOW);
	} else {
		vb_pressure_note(vb, VIRTIO_BALLOON_PRESSURE_MEDIUM);
	}
}

void vb_pressure_used(struct virtqueue *vq)
{
	struct vb *vb = vq->vdev->priv;
	struct vb_pressure *p = &vb->pressure;
	bool notify = false, back, left;
	unsigned long flags;

	spin_lock_irqsave(&p->lock, flags);
	back = collect(vb);
	if (back)
		notify = send(vb);
	left = back && (p->pending || p->relief);
	spin_unlock_irqrestore(&p->lock, flags);
	if (notify)
		virtqueue_notify(p->vq);
	if (back)
		vb_pages_kick(vb);
	if (left)
		vb_queue_later(vb, &p->work, msecs_to_jiffies(VB_LOOK_MS));
}

/* What the counters say about the time since they were last read; 0: nothing was reclaimed. */
static int look(struct vb_pressure *p)
{
	struct vb_reclaim now;
	u64 scan, steal;
	bool stalled;

	all_vm_events(p->events);
	vb_reclaim_read(p->events, &now);
	scan = now.scan_async + now.scan_direct - p->last.scan_async - p->last.scan_direct;
	steal = now.steal_async + now.steal_direct - p->last.steal_async - p->last.steal_direct;
	stalled = !test_and_clear_bit(VB_PRESSURE_OWN, &p->flags) && now.stalls != p->last.stalls;
	/* Too few pages to judge by are left to be counted next time. */
	p->last.stalls = now.stalls;
	/*
	 * What the shrinkers were not asked for was not the system's shortage: since 7.1 the
	 * reclaim of a container at its limit is counted too.
	 */
	if (!test_and_clear_bit(VB_PRESSURE_SEEN, &p->flags) && !stalled) {
		p->last = now;
		return 0;
	}
	if (scan >= VB_WINDOW || !scan)
		p->last = now;
	if (scan >= VB_WINDOW && steal * 100 < scan * (100 - VB_CRITICAL_PCT))
		return VIRTIO_BALLOON_PRESSURE_CRITICAL;
	if (stalled || (scan >= VB_WINDOW && steal * 100 < scan * (100 - VB_MEDIUM_PCT)))
		return VIRTIO_BALLOON_PRESSURE_MEDIUM;
	return scan >= VB_WINDOW ? VIRTIO_BALLOON_PRESSURE_LOW : 0;
}

static void pressure_work(struct work_struct *work)
{
	struct vb *vb = container_of(to_delayed_work(work), struct vb, pressure.work);
	struct vb_pressure *p = &vb->pressure;
	int level = look(p);
	bool notify, go_on, again, back;

	if (level)
		vb_pressure_note(vb, level);
	spin_lock_irq(&p->lock);
	/* Its interrupt may have been lost. */
	back = collect(vb);
	if (p->level && passed(p->seen, VB_RELIEF_MS)) {
		p->level = 0;
		p->relief = true;
		p->pending = 0;
		if (!p->out)
			WRITE_ONCE(p->waiting, false);
	}
	go_on = p->waiting && passed(p->since, VB_PATIENCE_MS);
	if (go_on) {
		/* A dead host must not stop the balloon for ever, nor one that is deaf. */
		WRITE_ONCE(p->waiting, false);
		p->timeouts++;
	}
	notify = send(vb);
	/* What waits for the buffer is sent when that comes. */
	again = p->level || p->waiting || (!p->out && (p->pending || p->relief));
	spin_unlock_irq(&p->lock);
	if (notify)
		virtqueue_notify(p->vq);
	if (go_on || back)
		vb_pages_kick(vb);
	if (again)
		vb_queue_later(vb, &p->work, msecs_to_jiffies(VB_LOOK_MS));
}

int vb_pressure_init(struct vb *vb)
{
	struct vb_pressure *p = &vb->pressure;

	spin_lock_init(&p->lock);
	INIT_DELAYED_WORK(&p->work, pressure_work);
	p->buffer = kzalloc(sizeof(*p->buffer), GFP_KERNEL);
	p->events = kcalloc(NR_VM_EVENT_ITEMS, sizeof(*p->events), GFP_KERNEL);
	return p->buffer && p->events ? 0 : -ENOMEM;
}

void vb_pressure_free(struct vb *vb)
{
	kfree(vb->pressure.buffer);
	kfree(vb->pressure.events);
}

void vb_pressure_start(struct vb *vb, struct virtqueue *vq)
{
	struct vb_pressure *p = &vb->pressure;

	all_vm_events(p->events);
	vb_reclaim_read(p->events, &p->last);
	p->level = 0;
	p->pending = 0;
	p->relief = false;
	p->out = false;
	p->waiting = false;
	p->told = 0;
	p->ever = false;
	p->flags = 0;
	spin_lock_irq(&p->lock);
	p->vq = vq;
	spin_unlock_irq(&p->lock);
}

void vb_pressure_stop(struct vb *vb)
{
	cancel_delayed_work_sync(&vb->pressure.work);
}

void vb_pressure_cut(struct vb *vb)
{
	struct vb_pressure *p = &vb->pressure;

	spin_lock_irq(&p->lock);
	p->vq = NULL;
	spin_unlock_irq(&p->lock);
}
