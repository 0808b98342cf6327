// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics.  There is one buffer, and at most that one is ever at the host.
 *
 *             on request (interval 0)            pushed (interval N)
 *   at first  the buffer is left with the host   the same: it is the first push
 *   returned  a request: new figures are owed    nothing: the buffer is here
 *   tick      -                                  new figures are owed; if the buffer is still at
 *                                                the host, the tick is skipped
 *   0 -> N    the period begins; the first push is owed, and sent when the buffer is here
 *   N -> M    the new period begins
 *   N -> 0    the timer stops; if the buffer is here, figures are owed: the host is to have one
 *
 * What is owed is sent as soon as the buffer is here.  So it makes no difference whether the notice
 * of a new interval or the buffer comes first.  The timer is moved on from where it was to expire,
 * not from when it ran: ticks do not drift.
 */
#include <linux/hugetlb.h>
#include <linux/math64.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/swap.h>

#include "balloon.h"

static u64 bytes(u64 pages)
{
	return pages << PAGE_SHIFT;
}

static void add(struct vb *vb, unsigned int *n, u16 tag, u64 value)
{
	struct virtio_balloon_stat *entry = &vb->stats.buffer[(*n)++];

	/* The guest's order on the legacy interface, which the wire header's types do not know. */
	entry->tag = (__force __le16)cpu_to_virtio16(vb->vdev, tag);
	entry->val = (__force __le64)cpu_to_virtio64(vb->vdev, value);
}

/* Fills the buffer; returns the number of entries, which is always the same. */
static unsigned int fill(struct vb *vb)
{
	unsigned long *events = vb->stats.events;
	struct vb_reclaim reclaim;
	struct sysinfo info;
	unsigned int n = 0;

	if (IS_ENABLED(CONFIG_VM_EVENT_COUNTERS)) {
		all_vm_events(events);
		vb_reclaim_read(events, &reclaim);
		add(vb, &n, VIRTIO_BALLOON_S_SWAP_IN, bytes(events[PSWPIN]));
		add(vb, &n, VIRTIO_BALLOON_S_SWAP_OUT, bytes(events[PSWPOUT]));
		add(vb, &n, VIRTIO_BALLOON_S_MAJFLT, events[PGMAJFAULT]);
		add(vb, &n, VIRTIO_BALLOON_S_MINFLT, events[PGFAULT]);
		add(vb, &n, VIRTIO_BALLOON_S_OOM_KILL, events[OOM_KILL]);
		add(vb, &n, VIRTIO_BALLOON_S_ALLOC_STALL, reclaim.stalls);
		add(vb, &n, VIRTIO_BALLOON_S_SCAN_ASYNC, bytes(reclaim.scan_async));
		add(vb, &n, VIRTIO_BALLOON_S_SCAN_DIRECT, bytes(reclaim.scan_direct));
		add(vb, &n, VIRTIO_BALLOON_S_RECLAIM_ASYNC, bytes(reclaim.steal_async));
		add(vb, &n, VIRTIO_BALLOON_S_RECLAIM_DIRECT, bytes(reclaim.steal_direct));
#ifdef CONFIG_HUGETLB_PAGE
		add(vb, &n, VIRTIO_BALLOON_S_HTLB_PGALLOC, events[HTLB_BUDDY_PGALLOC]);
		add(vb, &n, VIRTIO_BALLOON_S_HTLB_PGFAIL, events[HTLB_BUDDY_PGALLOC_FAIL]);
#endif
	}
	si_meminfo(&info);
	add(vb, &n, VIRTIO_BALLOON_S_MEMFREE, bytes(info.freeram));
	add(vb, &n, VIRTIO_BALLOON_S_MEMTOT, bytes(info.totalram));
	add(vb, &n, VIRTIO_BALLOON_S_AVAIL, bytes(si_mem_available()));
	add(vb, &n, VIRTIO_BALLOON_S_CACHES, bytes(global_node_page_state(NR_FILE_PAGES)));
	return n;
}

static void send(struct vb *vb)
{
	struct vb_stats *s = &vb->stats;
	unsigned int n = fill(vb);
	struct scatterlist sg;
	bool notify = false;

	sg_init_one(&sg, s->buffer, n * sizeof(*s->buffer));
	spin_lock_irq(&s->lock);
	if (!virtqueue_add_outbuf(s->vq, &sg, 1, s, GFP_NOWAIT | __GFP_NOWARN)) {
		if (s->interval_ms)
			s->pushed++;
		else
			s->requests++;
		notify = virtqueue_kick_prepare(s->vq);
	} else {
		s->out = false;
	}
	spin_unlock_irq(&s->lock);
	if (notify)
		virtqueue_notify(s->vq);
}

static void set_interval(struct vb *vb)
{
	struct vb_stats *s = &vb->stats;
	unsigned int old = s->interval_ms;
	unsigned int ms;

	ms = vb_config_read(vb, offsetof(struct virtio_balloon_config, stats_push_interval_ms),
			    old);
	if (ms && ms < VIRTIO_BALLOON_PUSH_INTERVAL_MIN)
		ms = VIRTIO_BALLOON_PUSH_INTERVAL_MIN;
	if (ms == old)
		return;
	hrtimer_cancel(&s->timer);
	spin_lock_irq(&s->lock);
	s->interval_ms = ms;
	if (!old)
		s->owed = true;
	else
		s->owed = !ms && !s->out;
	spin_unlock_irq(&s->lock);
	if (ms)
		hrtimer_start(&s->timer, ktime_add_ms(ktime_get(), ms), HRTIMER_MODE_ABS);
}

/* Takes the buffer back, if the host has returned it.  Under the lock. */
static bool collect(struct vb_stats *s)
{
	unsigned int len;

	/* Without a queue: an interrupt before it is known, or after it was given up. */
	if (!s->vq || !virtqueue_get_buf(s->vq, &len))
		return false;
	s->out = false;
	return true;
}

/* The same, and what follows from it; true if it was a request.  Under the lock. */
static bool returned(struct vb_stats *s)
{
	if (!collect(s) || s->interval_ms)
		return false;
	/* Or pushing was switched on, and the notice of that is still to come. */
	s->owed = true;
	s->stale = true;
	return true;
}

static void stats_work(struct work_struct *work)
{
	struct vb *vb = container_of(work, struct vb, stats.work);
	struct vb_stats *s = &vb->stats;
	bool stale, due;

	spin_lock_irq(&s->lock);
	/* Its interrupt may have been lost. */
	returned(s);
	stale = s->stale;
	s->stale = false;
	spin_unlock_irq(&s->lock);
	if (stale && vb_has(vb, VIRTIO_BALLOON_F_STATS_PUSH))
		set_interval(vb);

	spin_lock_irq(&s->lock);
	due = s->owed && !s->out;
	if (due) {
		s->owed = false;
		/* From now on: a tick must not find it here while it is being filled. */
		s->out = true;
	}
	spin_unlock_irq(&s->lock);
	if (due)
		send(vb);
	vb_relax(vb, VB_AWAKE_STATS);
}

static enum hrtimer_restart tick(struct hrtimer *timer)
{
	struct vb *vb = container_of(timer, struct vb, stats.timer);
	struct vb_stats *s = &vb->stats;
	unsigned long flags;
	bool due;
	u64 passed;

	spin_lock_irqsave(&s->lock, flags);
	passed = hrtimer_forward_now(timer, ms_to_ktime(s->interval_ms));
	/* Its interrupt may be waiting behind this one. */
	if (s->out)
		collect(s);
	due = !s->out;
	s->owed = due;
	s->skipped += passed - due;
	spin_unlock_irqrestore(&s->lock, flags);
	if (due)
		vb_queue(vb, &s->work);
	return HRTIMER_RESTART;
}

void vb_stats_used(struct virtqueue *vq)
{
	struct vb *vb = vq->vdev->priv;
	struct vb_stats *s = &vb->stats;
	unsigned long flags;
	bool request, due;

	spin_lock_irqsave(&s->lock, flags);
	request = returned(s);
	due = s->owed && !s->out;
	spin_unlock_irqrestore(&s->lock, flags);
	if (request)
		vb_stay_awake(vb, VB_AWAKE_STATS);
	if (due)
		vb_queue(vb, &s->work);
}

void vb_stats_changed(struct vb *vb)
{
	struct vb_stats *s = &vb->stats;
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	s->stale = true;
	spin_unlock_irqrestore(&s->lock, flags);
	vb_queue(vb, &s->work);
}

int vb_stats_init(struct vb *vb)
{
	struct vb_stats *s = &vb->stats;

	spin_lock_init(&s->lock);
	INIT_WORK(&s->work, stats_work);
	vb_timer_init(&s->timer, tick);
	s->buffer = kcalloc(VIRTIO_BALLOON_S_NR, sizeof(*s->buffer), GFP_KERNEL);
	s->events = kcalloc(NR_VM_EVENT_ITEMS, sizeof(*s->events), GFP_KERNEL);
	return s->buffer && s->events ? 0 : -ENOMEM;
}

void vb_stats_free(struct vb *vb)
{
	kfree(vb->stats.buffer);
	kfree(vb->stats.events);
}

void vb_stats_start(struct vb *vb, struct virtqueue *vq)
{
	struct vb_stats *s = &vb->stats;

	spin_lock_irq(&s->lock);
	s->interval_ms = 0;
	s->out = false;
	s->owed = true;
	s->stale = true;
	s->vq = vq;
	spin_unlock_irq(&s->lock);
}

void vb_stats_go(struct vb *vb)
{
	if (vb->stats.vq)
		vb_queue(vb, &vb->stats.work);
}

void vb_stats_stop(struct vb *vb)
{
	/* The work item starts the timer, and the timer cannot queue it any more. */
	cancel_work_sync(&vb->stats.work);
	hrtimer_cancel(&vb->stats.timer);
}

void vb_stats_cut(struct vb *vb)
{
	struct vb_stats *s = &vb->stats;

	spin_lock_irq(&s->lock);
	s->vq = NULL;
	spin_unlock_irq(&s->lock);
}
