// SPDX-License-Identifier: GPL-2.0-only
/*
 * The virtio memory balloon: a driver with what Linux' own has, and beside that statistics that are
 * pushed on a timer, and messages to the host about memory pressure (see wire.md of Aerostat, and
 * virtio 1.4, "Traditional Memory Balloon Device").
 *
 * It bears the stock driver's name and takes its place.
 */
#include <linux/module.h>
#include <linux/oom.h>
#include <linux/page_reporting.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "balloon.h"

#ifndef AEROSTAT_VERSION
#define AEROSTAT_VERSION "unknown"
#endif

#define VB_OOM_PRIORITY 80

static bool closing(struct vb *vb)
{
	lockdep_assert_held(&vb->gate);
	return vb->closing;
}

void vb_queue(struct vb *vb, struct work_struct *work)
{
	unsigned long flags;

	spin_lock_irqsave(&vb->gate, flags);
	if (!closing(vb))
		queue_work(vb->wq, work);
	spin_unlock_irqrestore(&vb->gate, flags);
}

void vb_queue_now(struct vb *vb, struct delayed_work *work)
{
	unsigned long flags;

	spin_lock_irqsave(&vb->gate, flags);
	if (!closing(vb))
		mod_delayed_work(vb->wq, work, 0);
	spin_unlock_irqrestore(&vb->gate, flags);
}

void vb_queue_later(struct vb *vb, struct delayed_work *work, unsigned long delay)
{
	unsigned long flags;

	spin_lock_irqsave(&vb->gate, flags);
	if (!closing(vb))
		queue_delayed_work(vb->wq, work, delay);
	spin_unlock_irqrestore(&vb->gate, flags);
}

/* While the host waits for something the system does not suspend, as it could not be served. */
void vb_stay_awake(struct vb *vb, int reason)
{
	unsigned long flags;

	spin_lock_irqsave(&vb->gate, flags);
	if (!closing(vb)) {
		if (!vb->awake)
			pm_stay_awake(&vb->vdev->dev);
		vb->awake |= BIT(reason);
	}
	spin_unlock_irqrestore(&vb->gate, flags);
}

void vb_relax(struct vb *vb, int reason)
{
	unsigned long flags;

	spin_lock_irqsave(&vb->gate, flags);
	if (vb->awake) {
		vb->awake &= ~BIT(reason);
		if (!vb->awake)
			pm_relax(&vb->vdev->dev);
	}
	spin_unlock_irqrestore(&vb->gate, flags);
}

/* The balloon's configuration is little-endian on the legacy interface too. */
u32 vb_config_read(struct vb *vb, unsigned int offset, u32 now)
{
	__le32 value = cpu_to_le32(now);

	might_sleep();
	vb->vdev->config->get(vb->vdev, offset, &value, sizeof(value));
	return le32_to_cpu(value);
}

void vb_config_write(struct vb *vb, unsigned int offset, u32 value)
{
	__le32 raw = cpu_to_le32(value);

	might_sleep();
	vb->vdev->config->set(vb->vdev, offset, &raw, sizeof(raw));
}

static void changed(struct virtio_device *vdev)
{
	struct vb *vb = vdev->priv;

	vb_stay_awake(vb, VB_AWAKE_SIZE);
	set_bit(VB_TARGET_STALE, &vb->pages.flags);
	vb_pages_kick(vb);
	if (vb_has(vb, VIRTIO_BALLOON_F_STATS_PUSH))
		vb_stats_changed(vb);
	if (vb_has(vb, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		vb_hint_changed(vb);
}

static unsigned long shrink_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct vb *vb = vb_shrinker_owner(shrinker);

	vb_pressure_reclaim(vb);
	return vb_hint_kept(vb);
}

static unsigned long shrink_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	return vb_hint_shrink(vb_shrinker_owner(shrinker), sc->nr_to_scan);
}

static int out_of_memory_notify(struct notifier_block *nb, unsigned long dummy, void *parm)
{
	struct vb *vb = container_of(nb, struct vb, oom);
	unsigned long free = global_zone_page_state(NR_FREE_PAGES);
	unsigned long *freed = parm, coming = vb_pages_coming(vb);

	/* A host that is giving way is not told of the worst: it would go a step further. */
	*freed += coming;
	if (coming)
		return NOTIFY_OK;
	vb_pressure_note(vb, VIRTIO_BALLOON_PRESSURE_CRITICAL);
	*freed += vb_hint_shrink(vb, SZ_4M >> PAGE_SHIFT);
	*freed += vb_pages_oom(vb, free);
	return NOTIFY_OK;
}

/* What the system tells us about its memory. */
static int listen(struct vb *vb)
{
	bool messages = vb_has(vb, VIRTIO_BALLOON_F_MESSAGE_VQ);
	int r;

	if (messages || vb_has(vb, VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
		r = vb_shrinker_register(&vb->shrinker, "virtio-balloon", shrink_count, shrink_scan,
					 vb);
		if (r)
			return r;
		vb->shrinks = true;
	}
	if (messages || vb_has(vb, VIRTIO_BALLOON_F_DEFLATE_ON_OOM)) {
		vb->oom.notifier_call = out_of_memory_notify;
		vb->oom.priority = VB_OOM_PRIORITY;
		r = register_oom_notifier(&vb->oom);
		if (r)
			return r;
		vb->notified = true;
	}
	return 0;
}

static void stop_listening(struct vb *vb)
{
	if (vb->notified)
		unregister_oom_notifier(&vb->oom);
	if (vb->shrinks)
		vb_shrinker_unregister(&vb->shrinker);
	vb->notified = false;
	vb->shrinks = false;
}

/* The queues in the standard's order, which transports number without gaps. */
static const struct queue {
	const char *name;
	vq_callback_t *used;
	unsigned int feature; /* without which it does not exist; all have the first */
	bool always;
} queues[] = {
	[VIRTIO_BALLOON_VQ_INFLATE] = {"inflate", vb_inflate_used, .always = true},
	[VIRTIO_BALLOON_VQ_DEFLATE] = {"deflate", vb_deflate_used, .always = true},
	[VIRTIO_BALLOON_VQ_STATS] = {"stats", vb_stats_used, VIRTIO_BALLOON_F_STATS_VQ},
	[VIRTIO_BALLOON_VQ_FREE_PAGE] = {"free_page", vb_hint_used,
					 VIRTIO_BALLOON_F_FREE_PAGE_HINT},
	[VIRTIO_BALLOON_VQ_REPORTING] = {"reporting", vb_report_used,
					 VIRTIO_BALLOON_F_PAGE_REPORTING},
	[VIRTIO_BALLOON_VQ_MESSAGE] = {"message", vb_pressure_used, VIRTIO_BALLOON_F_MESSAGE_VQ},
};

static_assert(ARRAY_SIZE(queues) == VIRTIO_BALLOON_VQ_COUNT);

static int find_queues(struct vb *vb, struct virtqueue *vqs[])
{
	vq_callback_t *used[VIRTIO_BALLOON_VQ_COUNT] = {};
	const char *names[VIRTIO_BALLOON_VQ_COUNT] = {};

	for (unsigned int i = 0; i < ARRAY_SIZE(queues); i++) {
		if (!queues[i].always && !vb_has(vb, queues[i].feature))
			continue;
		names[i] = queues[i].name;
		used[i] = queues[i].used;
	}
	return vb_find_vqs(vb->vdev, ARRAY_SIZE(queues), vqs, used, names);
}

/* What free pages are filled with; the same byte four times, so of no byte order. */
static void write_poison(struct vb *vb)
{
	u32 value = 0;

	if (!want_init_on_free())
		memset(&value, PAGE_POISON, sizeof(value));
	vb_config_write(vb, offsetof(struct virtio_balloon_config, poison_val), value);
}

/* Begins, after a probe or a restore.  On an error stop() undoes what was done. */
static int start(struct vb *vb)
{
	struct virtqueue *vqs[VIRTIO_BALLOON_VQ_COUNT] = {};
	int r;

	WRITE_ONCE(vb->gone, false);
	r = find_queues(vb, vqs);
	if (r)
		return r;
	vb->started = true;
	vb_pages_start(vb, vqs[VIRTIO_BALLOON_VQ_INFLATE], vqs[VIRTIO_BALLOON_VQ_DEFLATE]);
	vb_stats_start(vb, vqs[VIRTIO_BALLOON_VQ_STATS]);
	vb_pressure_start(vb, vqs[VIRTIO_BALLOON_VQ_MESSAGE]);
	r = vb_hint_start(vb, vqs[VIRTIO_BALLOON_VQ_FREE_PAGE]);
	if (r)
		return r;
	if (vb_has(vb, VIRTIO_BALLOON_F_PAGE_POISON))
		write_poison(vb);
	spin_lock_irq(&vb->gate);
	vb->closing = false;
	spin_unlock_irq(&vb->gate);
	virtio_device_ready(vb->vdev);

	vb_stats_go(vb);
	r = listen(vb);
	if (!r)
		r = vb_report_start(vb, vqs[VIRTIO_BALLOON_VQ_REPORTING]);
	if (r)
		return r;
	changed(vb->vdev);
	return 0;
}

/* Nothing new is begun, and nothing of what runs by itself runs any more. */
static void quiesce(struct vb *vb)
{
	stop_listening(vb);
	spin_lock_irq(&vb->gate);
	vb->closing = true;
	spin_unlock_irq(&vb->gate);
	vb_stats_stop(vb);
	vb_pressure_stop(vb);
	vb_hint_stop(vb);
	cancel_delayed_work_sync(&vb->pages.work);
	vb_relax(vb, VB_AWAKE_SIZE);
	vb_relax(vb, VB_AWAKE_STATS);
}

/*
 * Ends what start() began: the balloon is emptied with the host's knowledge if it answers.  After
 * the reset it knows of no page, and has no buffer of ours, whether it answered or not.  But for
 * some transports it is only the end of the queues that ends the host's work on them, so nothing
 * that it may have is let go before that.
 */
static void stop(struct vb *vb)
{
	bool closed, reported;

	quiesce(vb);
	if (!vb->started)
		return;
	closed = vb_pages_close(vb);
	reported = vb_report_close(vb);
	if (!closed || !reported)
		dev_warn(&vb->vdev->dev, "the host does not answer: reset\n");
	virtio_reset_device(vb->vdev);
	vb_pages_cut(vb);
	vb_stats_cut(vb);
	vb_pressure_cut(vb);
	vb_report_cut(vb);
	vb->vdev->config->del_vqs(vb->vdev);
	vb->started = false;
	WRITE_ONCE(vb->gone, true);
	vb_report_stop(vb);
	vb_pages_drop(vb);
}

static void free_all(struct vb *vb)
{
	vb_hint_free(vb);
	vb_pressure_free(vb);
	vb_stats_free(vb);
	vb_pages_free(vb);
	if (vb->wq)
		destroy_workqueue(vb->wq);
	kfree(vb);
}

static int init_all(struct vb *vb)
{
	int r;

	/*
	 * Of its own, so that a push is never behind something slow; with a rescuer, as what it has
	 * to do matters most when there is no memory for another thread.
	 */
	vb->wq = alloc_workqueue("virtio-balloon", WQ_UNBOUND | WQ_FREEZABLE | WQ_MEM_RECLAIM, 0);
	if (!vb->wq)
		return -ENOMEM;
	r = vb_pages_init(vb);
	if (!r)
		r = vb_stats_init(vb);
	if (!r)
		r = vb_pressure_init(vb);
	if (!r)
		r = vb_hint_init(vb);
	return r;
}

static int probe(struct virtio_device *vdev)
{
	struct vb *vb;
	int r;

	if (!vdev->config->get) {
		dev_err(&vdev->dev, "the device's configuration cannot be accessed\n");
		return -EINVAL;
	}
	vb = kzalloc(sizeof(*vb), GFP_KERNEL);
	if (!vb)
		return -ENOMEM;
	vdev->priv = vb;
	vb->vdev = vdev;
	vb->closing = true;
	spin_lock_init(&vb->gate);
	spin_lock_init(&vb->report.lock);
	init_waitqueue_head(&vb->report.wait);
	device_set_wakeup_capable(&vdev->dev, true);
	r = init_all(vb);
	if (!r) {
		r = start(vb);
		if (r)
			stop(vb);
	}
	if (r) {
		vdev->priv = NULL;
		free_all(vb);
	}
	return r;
}

static void remove(struct virtio_device *vdev)
{
	struct vb *vb = vdev->priv;

	stop(vb);
	/* Also where there was nothing to stop, after a restore that failed. */
	virtio_reset_device(vdev);
	device_set_wakeup_capable(&vdev->dev, false);
	vdev->priv = NULL;
	free_all(vb);
}

/*
 * Power-off, reboot and kexec: a new kernel must find its memory its own, so the host has to forget
 * the balloon, and nothing may be told to a device that is reset.  Pages are not given back: nobody
 * is left who would use them.
 */
static void shutdown(struct virtio_device *vdev)
{
	struct vb *vb = vdev->priv;

	quiesce(vb);
	virtio_break_device(vdev);
	/* A page that is just being migrated. */
	vb_pages_barrier(vb);
	virtio_reset_device(vdev);
}

static void __maybe_unused shutdown_device(struct device *dev)
{
	shutdown(dev_to_virtio(dev));
}

static int __maybe_unused freeze(struct virtio_device *vdev)
{
	stop(vdev->priv);
	return 0;
}

static int __maybe_unused restore(struct virtio_device *vdev)
{
	struct vb *vb = vdev->priv;
	int r = start(vb);

	if (r)
		stop(vb);
	return r;
}

/* Which of the offered features are not for us, as things are. */
static int validate(struct virtio_device *vdev)
{
	if (!want_init_on_free() && !page_poisoning_enabled_static())
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_PAGE_POISON);
	else if (!virtio_has_feature(vdev, VIRTIO_BALLOON_F_PAGE_POISON))
		/* What the kernel expects in free pages would be lost. */
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_PAGE_REPORTING);
	if (!virtio_has_feature(vdev, VIRTIO_BALLOON_F_STATS_VQ))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_STATS_PUSH);
	/* An indirect table would have to be allocated, when memory is short above all. */
	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	/* The host is told of pages by their physical addresses, whatever an IOMMU makes of them.
	 */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	return 0;
}

static const struct virtio_device_id ids[] = {
	{VIRTIO_ID_BALLOON, VIRTIO_DEV_ANY_ID},
	{0},
};

static const unsigned int features[] = {
	VIRTIO_BALLOON_F_MUST_TELL_HOST, VIRTIO_BALLOON_F_STATS_VQ,
	VIRTIO_BALLOON_F_DEFLATE_ON_OOM, VIRTIO_BALLOON_F_FREE_PAGE_HINT,
	VIRTIO_BALLOON_F_PAGE_POISON,    VIRTIO_BALLOON_F_PAGE_REPORTING,
	VIRTIO_BALLOON_F_STATS_PUSH,     VIRTIO_BALLOON_F_MESSAGE_VQ,
};

static struct virtio_driver balloon_driver = {
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.driver.dev_groups = vb_counter_groups,
	.id_table = ids,
	.validate = validate,
	.probe = probe,
	.remove = remove,
	.config_changed = changed,
	VB_SHUTDOWN(shutdown),
#ifdef CONFIG_PM_SLEEP
	.freeze = freeze,
	.restore = restore,
#endif
};

module_virtio_driver(balloon_driver);
MODULE_DEVICE_TABLE(virtio, ids);
MODULE_DESCRIPTION("Virtio balloon driver with pushed statistics and pressure messages");
MODULE_AUTHOR("The Aerostat developers");
MODULE_VERSION(AEROSTAT_VERSION);
MODULE_LICENSE("GPL");
