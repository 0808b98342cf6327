/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What is on the wire between a virtio balloon device and its driver: the one definition that the
 * device, the portable driver, the Linux module and the tests share.
 *
 * Sources: virtio 1.4, "Traditional Memory Balloon Device"; STATS_PUSH: the Linux patch
 * "virtio_balloon: guest pushes stats on a timer"; MESSAGE_VQ: the RFC "virtio_balloon: pressure
 * notification via a new virtqueue" of 2014, at another bit.
 */
#ifndef AEROSTAT_VIRTIO_BALLOON_H
#define AEROSTAT_VIRTIO_BALLOON_H

#include <linux/types.h>

#define VIRTIO_BALLOON_DEVICE_ID 5

/* Feature bits. */
#define VIRTIO_BALLOON_F_MUST_TELL_HOST 0 /* the driver deflates before it uses a page again */
#define VIRTIO_BALLOON_F_STATS_VQ       1 /* statistics queue */
#define VIRTIO_BALLOON_F_DEFLATE_ON_OOM                                              \
	2                                  /* deflates rather than run out of memory \
					    */
#define VIRTIO_BALLOON_F_FREE_PAGE_HINT 3  /* the driver hints which pages are free, on command */
#define VIRTIO_BALLOON_F_PAGE_POISON    4  /* the guest fills free pages with poison_val */
#define VIRTIO_BALLOON_F_PAGE_REPORTING 5  /* the driver reports free pages as they come */
#define VIRTIO_BALLOON_F_STATS_PUSH     6  /* statistics come by themselves, on a timer */
#define VIRTIO_BALLOON_F_MESSAGE_VQ     50 /* the driver tells of memory pressure */
#define VIRTIO_BALLOON_F_RANGES         51 /* reserved: inflate and deflate by ranges of pages */

/* A balloon page, whatever the page size of guest and host: all counts and PFNs are in this unit.
 */
#define VIRTIO_BALLOON_PFN_SHIFT 12

/* One entry of an inflate or deflate buffer: guest physical address >> VIRTIO_BALLOON_PFN_SHIFT. */
typedef __le32 virtio_balloon_pfn_t;

/* Device configuration; little-endian also on the legacy interface. */
struct virtio_balloon_config {
	__le32 num_pages; /* balloon pages the host wants; written by the device */
	__le32 actual;    /* balloon pages the driver says it holds; written by the driver */
	__le32 free_page_hint_cmd_id;  /* a command, or CMD_ID_*; by the device
					*/
	__le32 poison_val;             /* what the guest fills free pages with; by the driver */
	__le32 stats_push_interval_ms; /* 0: statistics on request; by the device */
};

/* No id of a hinting command. */
#define VIRTIO_BALLOON_CMD_ID_STOP 0 /* stop hinting; as the driver's: the command is finished */
#define VIRTIO_BALLOON_CMD_ID_DONE 1 /* the guest may use all hinted pages again */
#define VIRTIO_BALLOON_CMD_ID_MIN  2

/* Statistics are not pushed faster, whatever the interval says: milliseconds. */
#define VIRTIO_BALLOON_PUSH_INTERVAL_MIN 10

/* The standard's queue numbers. */
enum virtio_balloon_queue {
	VIRTIO_BALLOON_VQ_INFLATE,
	VIRTIO_BALLOON_VQ_DEFLATE,
	VIRTIO_BALLOON_VQ_STATS,
	VIRTIO_BALLOON_VQ_FREE_PAGE,
	VIRTIO_BALLOON_VQ_REPORTING,
	VIRTIO_BALLOON_VQ_MESSAGE,
	VIRTIO_BALLOON_VQ_COUNT,
};

/* Statistics: bytes where not said otherwise. A value of 2^64-1 means that the tag is unset. */
enum virtio_balloon_stat_tag {
	VIRTIO_BALLOON_S_SWAP_IN,        /* swapped in since boot */
	VIRTIO_BALLOON_S_SWAP_OUT,       /* swapped out since boot */
	VIRTIO_BALLOON_S_MAJFLT,         /* major page faults, count */
	VIRTIO_BALLOON_S_MINFLT,         /* minor page faults, count */
	VIRTIO_BALLOON_S_MEMFREE,        /* not used for anything */
	VIRTIO_BALLOON_S_MEMTOT,         /* available to the guest's kernel */
	VIRTIO_BALLOON_S_AVAIL,          /* could be had without swapping (/proc MemAvailable) */
	VIRTIO_BALLOON_S_CACHES,         /* file caches that can be reclaimed */
	VIRTIO_BALLOON_S_HTLB_PGALLOC,   /* successful hugetlb allocations, count */
	VIRTIO_BALLOON_S_HTLB_PGFAIL,    /* failed hugetlb allocations, count */
	VIRTIO_BALLOON_S_OOM_KILL,       /* OOM killer invocations, count */
	VIRTIO_BALLOON_S_ALLOC_STALL,    /* allocations that stalled in direct reclaim, count */
	VIRTIO_BALLOON_S_SCAN_ASYNC,     /* scanned in the background */
	VIRTIO_BALLOON_S_SCAN_DIRECT,    /* scanned in direct reclaim */
	VIRTIO_BALLOON_S_RECLAIM_ASYNC,  /* reclaimed in the background */
	VIRTIO_BALLOON_S_RECLAIM_DIRECT, /* reclaimed in direct reclaim */
	VIRTIO_BALLOON_S_NR,
};

#define VIRTIO_BALLOON_S_UNSET (~0ULL)

/* One entry of a statistics buffer (guest-endian on the legacy interface). */
struct virtio_balloon_stat {
	__le16 tag; /* enum virtio_balloon_stat_tag; others are to be ignored */
	__le64 val;
} __attribute__((packed));

/* What the driver says on the message queue. */
enum virtio_balloon_message_type {
	VIRTIO_BALLOON_MSG_PRESSURE = 1, /* arg: enum virtio_balloon_pressure */
	VIRTIO_BALLOON_MSG_RELIEVED = 2, /* arg: 0 */
};

enum virtio_balloon_pressure {
	VIRTIO_BALLOON_PRESSURE_UNSPECIFIED,
	VIRTIO_BALLOON_PRESSURE_LOW,      /* memory is being reclaimed in the background */
	VIRTIO_BALLOON_PRESSURE_MEDIUM,   /* allocations wait for memory */
	VIRTIO_BALLOON_PRESSURE_CRITICAL, /* about to kill */
	VIRTIO_BALLOON_PRESSURE_NR,
};

/* One message; type alone means arg 0, what follows is to be ignored. */
struct virtio_balloon_message {
	__le32 type; /* enum virtio_balloon_message_type; others are acknowledged without effect */
	__le32 arg;
};

#endif
