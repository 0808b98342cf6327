/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the balloon driver, and what each knows of the others.
 *
 *   main.c      probe, removal, freeze, restore, shutdown; hands the device's events out
 *   supply.c    where its pages come from
 *   pages.c     the balloon itself: inflation, deflation, out of memory
 *   migrate.c   pages of the balloon that compaction moves
 *   ring.c      arrays of page numbers on their way to the host and back
 *   stats.c     statistics, on request or pushed by a timer
 *   pressure.c  messages about memory pressure, and how it is noticed
 *   hint.c      free page hints
 *   report.c    free page reports
 *   counters.c  counters in sysfs
 *
 * Rules that hold in all of them:
 *
 * - Pages are balloon pages of 4 KiB where nothing else is said.  A page of the system has
 *   VB_PER_PAGE of them.
 * - What the host has been given (a buffer, the pages that it names) stays as it is until the host
 *   returns it or the device is reset.  Who waits for that waits for a limited time, or in a way
 *   that a reset ends; what has not come back by then is left where it is, and taken up again by
 *   whoever is there when it does come.
 * - Nothing is allocated while the system is short of memory: not for messages, not to deflate.
 *   Configuration is read and written from work items only, as a transport may allocate for it.
 */
#ifndef AEROSTAT_BALLOON_H
#define AEROSTAT_BALLOON_H

#include <aerostat/virtio_balloon.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"

/* Balloon pages in a page of the system. */
#define VB_PER_PAGE ((unsigned int)(PAGE_SIZE >> VIRTIO_BALLOON_PFN_SHIFT))

/*
 * Page numbers in an array, and arrays of one queue that are at the host at the same time.  More
 * than 256 numbers in one buffer are refused by some devices, so what makes inflation fast is that
 * the next arrays are filled while the host works on the last ones.
 */
#define VB_ARRAY  256
#define VB_ARRAYS 16

/* Pages of the system that one array names. */
#define VB_ARRAY_PAGES (VB_ARRAY / VB_PER_PAGE)

/* How long the host may be silent before it is taken for dead: ms. */
#define VB_PATIENCE_MS 5000

/* A lost interrupt costs no more than this: ms. */
#define VB_POLL_MS 20

enum vb_array_state {
	VB_ARRAY_FREE,
	VB_ARRAY_FILLING, /* somebody is putting pages into it, or taking them out of it */
	VB_ARRAY_OUT,     /* at the host */
	VB_ARRAY_BACK,    /* returned; nobody has looked after its pages yet */
};

/* Why pages were given back to the system. */
enum vb_cause {
	VB_FOR_TARGET, /* the host wished it */
	VB_FOR_OOM,    /* the system was out of memory */
	VB_FOR_CLOSE,  /* removal, freeze */
	VB_CAUSES,
};

struct vb_array {
	struct list_head pages; /* that it speaks of */
	enum vb_array_state state;
	enum vb_cause cause; /* deflation only */
	unsigned int n;      /* page numbers */
	__virtio32 pfn[VB_ARRAY];
};

/* The ring of inflation or deflation. */
struct vb_ring {
	struct virtio_device *vdev;
	struct virtqueue *vq;
	spinlock_t lock; /* vq, and the state of the arrays */
	wait_queue_head_t wait;
	unsigned int arrays; /* that may be out at a time */
	unsigned int out;    /* that are */
	bool late;           /* somebody gave up waiting: what comes back is for the work item */
	bool singles;        /* there is room for the array of a single page */
	struct vb_array *array;
	/* One more for a single page that is being migrated: its pages are not on the list. */
	struct vb_array *single;
	struct page *single_page;
};

struct vb_pages {
	struct mutex lock; /* the list, held, and who submits to the rings */
	struct vb_ring inflate;
	struct vb_ring deflate;
	struct balloon_dev_info list;
	bool adjust; /* pages in the balloon do not count as the system's */
	struct delayed_work work;
	struct task_struct *worker; /* who is inflating, to know its allocations from others' */
	wait_queue_head_t released_wait;

	unsigned long flags;    /* VB_TARGET_STALE ... */
	unsigned int target;    /* num_pages as it was last read, in whole pages of the system */
	unsigned int held;      /* in the balloon, and the host knows */
	unsigned int inflating; /* on their way into it */
	unsigned int actual;    /* as it was last written */
	bool oom_pause;         /* memory ran out: no inflation before the target changes */
	unsigned long oom_at;
	unsigned int oom_burst;  /* times in quick succession */
	unsigned int backoff_ms; /* no inflation for so long after the last failure; 0: any time */
	unsigned long retry_at;

	/* Pages that were taken from the system, and that are in no array yet. */
	struct page *spare[1 << 9];
	unsigned int spare_next;
	unsigned int spare_end;
	bool no_blocks; /* they have run out */

	/* counters, see counters.c */
	u64 inflated;
	u64 migrated;
	u64 released[VB_CAUSES];
	u64 inflate_failures;
	u64 timeouts;
};

/* The target may be another by now. */
#define VB_TARGET_STALE 0
/* `actual` has to be written. */
#define VB_ACTUAL_STALE 1

struct vb_stats {
	struct virtqueue *vq;
	spinlock_t lock; /* what follows, but for what only the work item uses */
	struct work_struct work;
	struct hrtimer timer;
	struct virtio_balloon_stat *buffer;
	unsigned long *events;
	unsigned int interval_ms; /* 0: on request */
	bool out;                 /* the buffer is at the host */
	bool owed;                /* it is to be sent as soon as it is here */
	bool stale;               /* the interval may be another by now */
	u64 requests;
	u64 pushed;
	u64 skipped; /* ticks that found the buffer at the host */
};

struct vb_pressure {
	struct virtqueue *vq;
	spinlock_t lock; /* what follows, where it is not said otherwise */
	struct delayed_work work;
	struct virtio_balloon_message *buffer;
	unsigned long *events;  /* the work item's */
	struct vb_reclaim last; /* the work item's */
	unsigned long flags;    /* VB_PRESSURE_*, atomic */
	int level;              /* now; VIRTIO_BALLOON_PRESSURE_UNSPECIFIED: none */
	unsigned long seen;     /* jiffies when it was last noticed; also without the lock */
	int pending;            /* to be sent; 0: nothing */
	bool relief;            /* "relieved" is to be sent */
	bool out;               /* the buffer is at the host */
	bool waiting;           /* inflation waits for its return */
	int told;  /* level of the last message; 0: relieved, or none; read without, too */
	bool ever; /* there was a last message */
	ktime_t sent_at;
	unsigned long sent;                       /* the same in jiffies */
	unsigned long since;                      /* jiffies when inflation began to wait */
	u64 messages[VIRTIO_BALLOON_PRESSURE_NR]; /* by level; 0: relieved */
	u64 timeouts;
	u64 wait_us;
};

/* Since the counters were last looked at: somebody, or inflation itself, has reclaimed. */
#define VB_PRESSURE_SEEN 0
#define VB_PRESSURE_OWN  1

struct vb_hint {
	struct virtqueue *vq;
	spinlock_t lock; /* blocks */
	wait_queue_head_t wait;
	struct work_struct work;
	struct list_head blocks; /* hinted, and kept from the system */
	unsigned long count;     /* of these */
	unsigned long flags;     /* VB_HINT_*, atomic */
	u32 command;             /* as it was last read */
	u32 active;              /* the last one that was begun */
	bool unfinished;         /* the word that it is finished is owed */
	/* Two buffers: the command's id, and the word that it is finished. */
	__virtio32 *words;
	bool word_out[2];
	u64 hinted; /* pages */
	u64 shrunk; /* pages */
};

/* The command may be another by now. */
#define VB_HINT_STALE 0
/* The work item waits for the host to return something. */
#define VB_HINT_STUCK 1

struct vb_report {
	spinlock_t lock; /* vq */
	struct virtqueue *vq;
	wait_queue_head_t wait;
	struct page_reporting_dev_info info;
	bool registered;
	bool out;
	u64 reported; /* pages */
};

struct vb {
	struct virtio_device *vdev;
	struct workqueue_struct *wq;
	spinlock_t gate;     /* closing, awake */
	bool closing;        /* nothing new is begun */
	bool started;        /* there are queues */
	bool gone;           /* they are gone: the host has nothing of ours any more */
	unsigned long awake; /* what keeps the system from suspending */

	struct vb_pages pages;
	struct vb_stats stats;
	struct vb_pressure pressure;
	struct vb_hint hint;
	struct vb_report report;

	struct vb_shrinker shrinker;
	bool shrinks;
	struct notifier_block oom;
	bool notified;
};

/* main.c */

/* Has work done, unless the driver is closing: now, or in so many jiffies if that is not earlier.
 */
void vb_queue(struct vb *vb, struct work_struct *work);
void vb_queue_now(struct vb *vb, struct delayed_work *work);
void vb_queue_later(struct vb *vb, struct delayed_work *work, unsigned long delay);

/* Reasons for vb_stay_awake(): the host wants something, and it is not done yet. */
#define VB_AWAKE_SIZE  0
#define VB_AWAKE_STATS 1
void vb_stay_awake(struct vb *vb, int reason);
void vb_relax(struct vb *vb, int reason);

/*
 * Reads 32 bits of configuration.  A device that is lost may leave the buffer as it was: `now` is
 * what it holds then.  Not while memory is short: see above.
 */
u32 vb_config_read(struct vb *vb, unsigned int offset, u32 now);
void vb_config_write(struct vb *vb, unsigned int offset, u32 value);

/* counters.c */
struct attribute_group;
extern const struct attribute_group *vb_counter_groups[];

/* ring.c */
int vb_ring_init(struct vb_ring *ring, struct virtio_device *vdev);
void vb_ring_free(struct vb_ring *ring);
/* The queue is there, and nothing in it. */
void vb_ring_start(struct vb_ring *ring, struct virtqueue *vq);
/* An array that is free, or NULL. */
struct vb_array *vb_ring_claim(struct vb_ring *ring);
void vb_ring_unclaim(struct vb_ring *ring, struct vb_array *array);
/* Can the wire name this page? */
bool vb_page_fits(struct page *page);
/* Adds a page of the system to an array that is being filled. */
void vb_array_add(struct vb_ring *ring, struct vb_array *array, struct page *page);
/* Sends an array.  A negative value: the device is broken; the array is as it was. */
int vb_ring_submit(struct vb_ring *ring, struct vb_array *array);
/* An array that cannot be sent, and whose pages must stay: as if it were out, until a reset. */
void vb_ring_lose(struct vb_ring *ring, struct vb_array *array);
/* An array that came back, or NULL.  Its pages are the caller's to look after, then unclaim. */
struct vb_array *vb_ring_returned(struct vb_ring *ring);
/* Takes what the host has returned out of the queue.  An interrupt does so by itself. */
void vb_ring_collect(struct vb_ring *ring);
/* The device will not return anything more. */
bool vb_ring_is_broken(struct vb_ring *ring);
/*
 * Waits until `want` arrays or fewer are out: until `end` (jiffies), or, if renew_ms is not 0, for
 * so long after each one that comes back.  False: they are not, and whatever comes later is for
 * the work item.  Not under a lock.
 */
bool vb_ring_wait(struct vb_ring *ring, unsigned int want, unsigned long end,
		  unsigned int renew_ms);
/* The queue is about to go. */
void vb_ring_cut(struct vb_ring *ring);
/* It is gone: all that was out is back. */
void vb_ring_stop(struct vb_ring *ring);

/* supply.c: of the work item alone */
void vb_supply_begin(struct vb_pages *p);
/* A page of the system, when so many more are wanted; NULL: memory is short. */
struct page *vb_supply_take(struct vb_pages *p, unsigned int want);
/* Those that were taken beforehand go back. */
void vb_supply_end(struct vb_pages *p);

/* pages.c */
int vb_pages_init(struct vb *vb);
void vb_pages_free(struct vb *vb);
void vb_pages_start(struct vb *vb, struct virtqueue *inflate, struct virtqueue *deflate);
void vb_pages_kick(struct vb *vb);
void vb_inflate_used(struct virtqueue *vq);
void vb_deflate_used(struct virtqueue *vq);
/* Nobody is in the middle of something any more, when no new thing is begun. */
void vb_pages_barrier(struct vb *vb);
/* Takes all pages out of the balloon and tells the host; false if it does not answer. */
bool vb_pages_close(struct vb *vb);
/* The queues are about to go. */
void vb_pages_cut(struct vb *vb);
/* The device is reset, and the queues gone: gives back whatever is left. */
void vb_pages_drop(struct vb *vb);
/*
 * The system is out of memory: if the host is giving way, waits a moment for what comes.  Returns
 * how many of the system's pages did.
 */
unsigned long vb_pages_coming(struct vb *vb);
/*
 * The system is out of memory, and had so many free pages when this was noticed: returns how many
 * it got back.
 */
unsigned long vb_pages_oom(struct vb *vb, unsigned long free);

/* migrate.c */
void vb_migrate_init(struct vb *vb);
/* Looks after a single page whose array came back late.  Under the lock. */
void vb_migrate_settle(struct vb *vb);
/* Has the host not said yet that it knows of a page that is in the balloon? */
bool vb_migrate_open(struct vb *vb);

/* stats.c */
int vb_stats_init(struct vb *vb);
void vb_stats_free(struct vb *vb);
void vb_stats_start(struct vb *vb, struct virtqueue *vq);
void vb_stats_go(struct vb *vb);
void vb_stats_changed(struct vb *vb);
void vb_stats_used(struct virtqueue *vq);
void vb_stats_stop(struct vb *vb);
void vb_stats_cut(struct vb *vb);

/* pressure.c */
int vb_pressure_init(struct vb *vb);
void vb_pressure_free(struct vb *vb);
void vb_pressure_start(struct vb *vb, struct virtqueue *vq);
void vb_pressure_used(struct virtqueue *vq);
void vb_pressure_stop(struct vb *vb);
void vb_pressure_cut(struct vb *vb);
/* Memory is short.  From any context. */
void vb_pressure_note(struct vb *vb, int level);
/* Who allocates looks for memory to reclaim: that is where pressure is first seen. */
void vb_pressure_reclaim(struct vb *vb);
/* Is inflation to wait for the host's answer? */
bool vb_pressure_waits(struct vb *vb);
/* Is a message at the host, for however long? */
bool vb_pressure_unanswered(struct vb *vb);

/* hint.c */
int vb_hint_init(struct vb *vb);
void vb_hint_free(struct vb *vb);
int vb_hint_start(struct vb *vb, struct virtqueue *vq);
void vb_hint_changed(struct vb *vb);
void vb_hint_used(struct virtqueue *vq);
void vb_hint_stop(struct vb *vb);
/* Pages of the system that are kept; gives up to n of them back, and returns how many. */
unsigned long vb_hint_kept(struct vb *vb);
unsigned long vb_hint_shrink(struct vb *vb, unsigned long n);

/* report.c */
int vb_report_start(struct vb *vb, struct virtqueue *vq);
void vb_report_used(struct virtqueue *vq);
/* Waits for the report that is out; false if it does not come back. */
bool vb_report_close(struct vb *vb);
/* The queue is about to go. */
void vb_report_cut(struct vb *vb);
/* It is gone. */
void vb_report_stop(struct vb *vb);

static inline bool vb_has(const struct vb *vb, unsigned int feature)
{
	return virtio_has_feature(vb->vdev, feature);
}

#endif
