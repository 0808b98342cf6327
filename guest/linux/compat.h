/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that this module is built for: 6.1, 6.12, 7.2 and what lies
 * between.  All of it is here, so that the rest reads as if there were one kernel.  Where a version
 * does not tell, as distributions and stable branches take changes over, Kbuild looks into the
 * kernel's headers and defines VB_HAS_...
 */
#ifndef AEROSTAT_COMPAT_H
#define AEROSTAT_COMPAT_H

#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page_reporting.h>
#include <linux/shrinker.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/vm_event_item.h>
#include <linux/vmstat.h>

/* The header was renamed, with its option, when the kernel began to keep more of the books. */
#ifdef VB_HAS_BALLOON_H
#include <linux/balloon.h>
#define VB_KERNEL_KEEPS_BOOKS 1
#define VB_CAN_MIGRATE        IS_ENABLED(CONFIG_BALLOON_MIGRATION)
#else
#include <linux/balloon_compaction.h>
#define VB_KERNEL_KEEPS_BOOKS 0
#define VB_CAN_MIGRATE        IS_ENABLED(CONFIG_BALLOON_COMPACTION)
#endif

/* The largest order of pages: "MAX_ORDER" was one more than that before 6.4. */
#if defined(MAX_PAGE_ORDER)
#define VB_MAX_PAGE_ORDER MAX_PAGE_ORDER
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define VB_MAX_PAGE_ORDER MAX_ORDER
#else
#define VB_MAX_PAGE_ORDER (MAX_ORDER - 1)
#endif

/* As balloon_page_alloc() asks for pages, which takes them one by one only. */
#define VB_GFP_PAGE                                                                  \
	((VB_CAN_MIGRATE ? GFP_HIGHUSER_MOVABLE : GFP_HIGHUSER) | __GFP_NOMEMALLOC | \
	 __GFP_NORETRY | __GFP_NOWARN)

/* Takes up to n pages one by one; array's first n members are NULL.  Returns how many. */
static inline unsigned long vb_alloc_bulk(unsigned long n, struct page **array)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
	return alloc_pages_bulk(VB_GFP_PAGE, n, array);
#else
	return alloc_pages_bulk_array(VB_GFP_PAGE, n, array);
#endif
}

/*
 * The list of pages in the balloon.  In older kernels it is the driver that takes them out of the
 * zones' managed pages; newer ones do it if told so in the beginning.
 */
static inline void vb_list_init(struct balloon_dev_info *list, bool adjust)
{
	balloon_devinfo_init(list);
#if VB_KERNEL_KEEPS_BOOKS
	list->adjust_managed_page_count = adjust;
#endif
}

static inline void vb_list_put(struct balloon_dev_info *list, struct list_head *pages, bool adjust)
{
#if !VB_KERNEL_KEEPS_BOOKS
	struct page *page;

	if (adjust)
		list_for_each_entry(page, pages, lru)
			adjust_managed_page_count(page, -1);
#endif
	balloon_page_list_enqueue(list, pages);
}

static inline size_t vb_list_take(struct balloon_dev_info *list, struct list_head *pages, size_t n)
{
	return balloon_page_list_dequeue(list, pages, n);
}

/* Pages that vb_list_take() took, and that go back to the system now. */
static inline void vb_list_freed(struct list_head *pages, bool adjust)
{
#if !VB_KERNEL_KEEPS_BOOKS
	struct page *page;

	if (adjust)
		list_for_each_entry(page, pages, lru)
			adjust_managed_page_count(page, 1);
#endif
}

/*
 * The host knows that newpage has taken page's place.  Both are locked, and page is isolated: the
 * balloon's reference to page is dropped here, or, in newer kernels, by the caller.
 */
static inline void vb_list_migrated(struct balloon_dev_info *list, struct page *newpage,
				    struct page *page, bool adjust)
{
#if !VB_KERNEL_KEEPS_BOOKS && VB_CAN_MIGRATE
	unsigned long flags;

	get_page(newpage);
	if (adjust && page_zone(page) != page_zone(newpage)) {
		adjust_managed_page_count(page, 1);
		adjust_managed_page_count(newpage, -1);
	}
	spin_lock_irqsave(&list->pages_lock, flags);
	balloon_page_insert(list, newpage);
	list->isolated_pages--;
	__count_vm_event(BALLOON_MIGRATE);
	spin_unlock_irqrestore(&list->pages_lock, flags);
#ifdef VB_HAS_FINALIZE
	balloon_page_finalize(page);
#else
	/* For an isolated page, which is on no list, it is the same under its old name. */
	balloon_page_delete(page);
#endif
	put_page(page);
#endif
}

/* The shrinker became an object that the kernel allocates in 6.7. */
struct vb_shrinker {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	struct shrinker *object;
#else
	struct shrinker object;
#endif
	void *owner;
};

typedef unsigned long (*vb_shrink_fn)(struct shrinker *shrinker, struct shrink_control *sc);

static inline int vb_shrinker_register(struct vb_shrinker *s, const char *name, vb_shrink_fn count,
				       vb_shrink_fn scan, void *owner)
{
	s->owner = owner;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	s->object = shrinker_alloc(0, "%s", name);
	if (!s->object)
		return -ENOMEM;
	s->object->count_objects = count;
	s->object->scan_objects = scan;
	s->object->private_data = owner;
	shrinker_register(s->object);
	return 0;
#else
	s->object.count_objects = count;
	s->object.scan_objects = scan;
	s->object.seeks = DEFAULT_SEEKS;
	return register_shrinker(&s->object, "%s", name);
#endif
}

static inline void vb_shrinker_unregister(struct vb_shrinker *s)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	shrinker_free(s->object);
#else
	unregister_shrinker(&s->object);
#endif
}

static inline void *vb_shrinker_owner(struct shrinker *shrinker)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return shrinker->private_data;
#else
	return container_of(shrinker, struct vb_shrinker, object)->owner;
#endif
}

/* hrtimer_init() went, and hrtimer_setup() came, in 6.13. */
static inline void vb_timer_init(struct hrtimer *timer,
				 enum hrtimer_restart (*fn)(struct hrtimer *timer))
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(timer, fn, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
#else
	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	timer->function = fn;
#endif
}

/* Finds n virtqueues; those without a name do not exist.  The call's arguments changed in 6.11. */
static inline int vb_find_vqs(struct virtio_device *vdev, unsigned int n, struct virtqueue *vqs[],
			      vq_callback_t *const callbacks[], const char *const names[])
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct virtqueue_info info[8] = {};

	if (WARN_ON(n > ARRAY_SIZE(info)))
		return -EINVAL;
	for (unsigned int i = 0; i < n; i++) {
		info[i].name = names[i];
		info[i].callback = callbacks[i];
	}
	return virtio_find_vqs(vdev, n, vqs, info, NULL);
#else
	vq_callback_t *calls[8] = {};
	const char *named[8] = {};

	if (WARN_ON(n > ARRAY_SIZE(calls)))
		return -EINVAL;
	for (unsigned int i = 0; i < n; i++) {
		calls[i] = callbacks[i];
		named[i] = names[i];
	}
	return virtio_find_vqs(vdev, n, vqs, calls, named, NULL);
#endif
}

/* Page reporting: the ranges of a report, for which the ring must have room; 0: as many as it has.
 */
static inline unsigned int vb_reporting_ranges(void)
{
#ifdef VB_HAS_REPORTING_CAPACITY
	return 0;
#else
	return PAGE_REPORTING_CAPACITY;
#endif
}

static inline void vb_reporting_init(struct page_reporting_dev_info *info, unsigned int ranges)
{
#ifdef VB_HAS_REPORTING_CAPACITY
	info->capacity = ranges;
#endif
	/* Order 0 used to mean the default, and came to mean single pages. */
#ifdef PAGE_REPORTING_ORDER_UNSPECIFIED
	info->order = PAGE_REPORTING_ORDER_UNSPECIFIED;
#endif
	/* The default order is 512 MiB where pages have 64 KiB; 2 MiB is what hosts can use. */
	if (PAGE_SIZE >= SZ_64K)
		info->order = ilog2(SZ_2M) - PAGE_SHIFT;
}

/* What the kernel counts about reclaim: pages, except where said otherwise. */
struct vb_reclaim {
	u64 stalls; /* allocations that waited for reclaim */
	u64 scan_async;
	u64 scan_direct;
	u64 steal_async;
	u64 steal_direct;
};

/* events as all_vm_events() has filled them.  The last four became node statistics in 7.1. */
static inline void vb_reclaim_read(const unsigned long *events, struct vb_reclaim *r)
{
	r->stalls = 0;
	for (unsigned int zone = 0; zone < MAX_NR_ZONES; zone++)
		r->stalls += events[ALLOCSTALL_NORMAL - ZONE_NORMAL + zone];
#ifdef VB_HAS_NODE_SCAN
	r->scan_async = global_node_page_state(PGSCAN_KSWAPD);
	r->scan_direct = global_node_page_state(PGSCAN_DIRECT);
	r->steal_async = global_node_page_state(PGSTEAL_KSWAPD);
	r->steal_direct = global_node_page_state(PGSTEAL_DIRECT);
#else
	r->scan_async = events[PGSCAN_KSWAPD];
	r->scan_direct = events[PGSCAN_DIRECT];
	r->steal_async = events[PGSTEAL_KSWAPD];
	r->steal_direct = events[PGSTEAL_DIRECT];
#endif
}

/*
 * Shutdown: the bus calls the virtio driver's since about 6.15, and the driver core calls the
 * device driver's where the bus has none.
 */
#ifdef VB_HAS_SHUTDOWN
#define VB_SHUTDOWN(fn) .shutdown = fn
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define VB_SHUTDOWN(fn) .driver.shutdown = fn##_device
#else
/* The bus resets the device, and does not ask anybody. */
#define VB_SHUTDOWN(fn)
#endif

#endif
