/* SPDX-License-Identifier: MIT */
/*
 * libaerostat: a virtio memory balloon device to be linked into a virtual machine monitor (VMM).
 *
 * The VMM owns the transport (PCI, MMIO, ...), guest memory, the event loop and the clock; the
 * library owns what a balloon device does behind them. Life of a device:
 *
 *     aerostat_balloon_create -> aerostat_balloon_set_memory -> the guest's driver comes:
 *     aerostat_balloon_negotiate -> aerostat_balloon_start_ring, each ring, at DRIVER_OK ->
 *     { aerostat_balloon_kick -> aerostat_balloon_run }* -> aerostat_balloon_reset, and the next
 *     driver; or aerostat_balloon_destroy.
 *
 * Errors are returned as negative errno values, and then nothing has changed unless said otherwise.
 * -EINVAL is for arguments that make no sense, a NULL where none may be among them. -EBUSY also
 * means: called from within a callback of the same device, where only the functions that take it as
 * const may be called.
 *
 * Threads: one device is used by one thread at a time; different devices have nothing in common.
 * Callbacks come in the thread of the call that caused them. No function blocks, and those of the
 * data path allocate nothing.
 *
 * Growth: a structure with a member `size` gets sizeof() of it there from the caller, so that later
 * versions can append to it; the others never change. What is not named `..._age_ms` or the like is
 * in bytes. All times are in milliseconds on a clock of the VMM's choice that does not go back
 * (CLOCK_MONOTONIC).
 *
 * Feature bits, queue numbers, statistics tags and pressure levels: virtio_balloon.h. The VMM's
 * view is told at length in docs/embedding.md of the sources, with a complete program in examples/.
 */
#ifndef AEROSTAT_BALLOON_H
#define AEROSTAT_BALLOON_H

#include <stddef.h>
#include <stdint.h>

#include <aerostat/virtio_balloon.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AEROSTAT_RINGS              6U /* 0 to 5; as many as there are queues */
#define AEROSTAT_MEMORY_REGIONS_MAX 64U
#define AEROSTAT_STATS_MAX          32U
#define AEROSTAT_PRESSURE_LEVELS    4U
#define AEROSTAT_NEVER              UINT64_MAX

/* Of the library that is linked now: "major.minor.micro". */
const char *aerostat_version(void);

/* One balloon device. */
struct aerostat_balloon;

enum aerostat_event {
	AEROSTAT_EVENT_ACTUAL,   /* what the driver says is in the balloon has changed */
	AEROSTAT_EVENT_STATS,    /* fresh statistics: aerostat_balloon_get_stats() */
	AEROSTAT_EVENT_PRESSURE, /* a message about memory pressure: aerostat_balloon_get_info() */
	AEROSTAT_EVENT_HINT,     /* the driver has begun to hint free pages, or has finished */
};

/* A part of guest memory within one region. */
struct aerostat_range {
	uint64_t gpa; /* guest physical address */
	uint64_t len;
	void *host; /* the same place in this process */
};

/*
 * What the device asks of its VMM. Each is called with the `opaque` that the device was created
 * with.
 */
struct aerostat_balloon_ops {
	size_t size;
	/*
	 * The configuration has changed: raise the configuration interrupt (and the transport's
	 * generation count). When there is no driver at work, nothing need be raised.
	 */
	void (*config_changed)(void *opaque);
	/* Raise the interrupt for used buffers of this ring. */
	void (*notify)(void *opaque, uint32_t ring);
	/*
	 * The driver has broken this ring, which is served no more until it is started anew. `why`
	 * is a constant. A VMM may set DEVICE_NEEDS_RESET. May be NULL.
	 */
	void (*broken)(void *opaque, uint32_t ring, const char *why);
	/* May be NULL. */
	void (*event)(void *opaque, enum aerostat_event event);
	/*
	 * Gives the ranges back to the host and returns how many bytes became free. The guest uses
	 * none of them now and may use each from the moment this returns; its contents are then
	 * zeros or what they were. Ranges are whole pages of the region's page size. NULL: the
	 * library does it.
	 */
	uint64_t (*discard)(void *opaque, const struct aerostat_range *ranges, uint32_t n);
};

/* What a message about memory pressure does to the target. */
enum aerostat_pressure_policy {
	AEROSTAT_PRESSURE_REPORT,  /* nothing: it is the VMM's to answer */
	AEROSTAT_PRESSURE_HOLD,    /* no more than the balloon holds */
	AEROSTAT_PRESSURE_DEFLATE, /* less than that, by a step for the level */
};

struct aerostat_balloon_options {
	size_t size;
	/*
	 * What to offer, as a mask of 1ULL << VIRTIO_BALLOON_F_...: STATS_VQ, DEFLATE_ON_OOM,
	 * FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING, STATS_PUSH (only with STATS_VQ) and
	 * MESSAGE_VQ. MUST_TELL_HOST is offered always.
	 */
	uint64_t features;
	uint32_t on_pressure;         /* enum aerostat_pressure_policy */
	uint32_t messages_per_second; /* a guest that sends more is made to wait; 0: no limit */
	uint64_t pressure_step[AEROSTAT_PRESSURE_LEVELS]; /* for DEFLATE: bytes, by level */
};

/*
 * Makes a device without memory and without a driver. `options` and `ops` may go away afterwards.
 * -EINVAL: also for a feature that is none of the above; -E2BIG: a structure has members that are
 * set and this version of the library does not know; -ENOMEM.
 */
int aerostat_balloon_create(const struct aerostat_balloon_options *options,
			    const struct aerostat_balloon_ops *ops, void *opaque,
			    struct aerostat_balloon **device);

/* Stops all rings and frees the device, without a callback. NULL is no error. Not in a callback. */
void aerostat_balloon_destroy(struct aerostat_balloon *device);

/* --- Guest memory ---------------------------------------------------------------------------- */

struct aerostat_memory_region {
	uint64_t gpa;
	uint64_t size; /* bytes, not 0 */
	void *host;    /* where it is mapped in this process, readable and writable */
	/*
	 * The file that is mapped there, shared (memfd, hugetlbfs, ...): a duplicate is kept. -1:
	 * private anonymous memory.
	 */
	int fd;
	uint32_t flags;     /* 0 */
	uint64_t fd_offset; /* where in the file the region begins */
	/*
	 * Bytes of the smallest page that can be given back. 0: found out for a file, and the
	 * system's page size for anonymous memory. Anonymous huge pages (MAP_HUGETLB) must be
	 * declared here.
	 */
	uint64_t page_size;
};

/*
 * Replaces the table of guest memory: all of what the driver may name, rings and buffers included.
 * It may change while rings run (hotplug). What the balloon holds of memory that is still there
 * stays held; hints are forgotten. The mappings must stay as they are until the next table or the
 * device's end.
 *
 * -EINVAL: also no regular file, or host and fd_offset differ within a page; -EFAULT: not mapped;
 * -EFBIG: the file ends before the region does; -EEXIST: two regions overlap, be it in guest
 * addresses, in this process or in one file; -ENOSPC: more regions than
 * AEROSTAT_MEMORY_REGIONS_MAX; -EBUSY: a ring that runs lies in what would go; -ENOMEM; or what
 * duplicating a descriptor gave.
 */
int aerostat_balloon_set_memory(struct aerostat_balloon *device,
				const struct aerostat_memory_region *regions, uint32_t n);

/*
 * Where to note which pages of guest memory the device writes, for a VMM that moves the machine
 * meanwhile: a bit for each 4 KiB by guest physical address, the lowest bit of the first byte
 * first, set atomically. Only rings are ever written. What lies behind its end is not noted. NULL:
 * nowhere.
 */
int aerostat_balloon_set_dirty_log(struct aerostat_balloon *device, void *bitmap, uint64_t bytes);

/* --- What a transport needs ------------------------------------------------------------------ */

/* Device feature bits: the balloon's, and those of rings (VERSION_1, EVENT_IDX, packed, ...). */
uint64_t aerostat_balloon_features(const struct aerostat_balloon *device);

/*
 * The driver's choice, at FEATURES_OK. -EINVAL: a bit that was not offered; -EBUSY: a ring runs.
 */
int aerostat_balloon_negotiate(struct aerostat_balloon *device, uint64_t features);

/*
 * Configuration space: the driver reads and writes len bytes at offset. Beyond its end there are
 * zeros, and nothing can be written but what is the driver's.
 */
int aerostat_balloon_config_read(const struct aerostat_balloon *device, uint32_t offset, void *buf,
				 uint32_t len);
int aerostat_balloon_config_write(struct aerostat_balloon *device, uint32_t offset, const void *buf,
				  uint32_t len);

/* Where the driver has put a ring: guest physical addresses. */
struct aerostat_ring {
	uint64_t desc;
	uint64_t driver; /* split: available ring; packed: driver event suppression */
	uint64_t device; /* split: used ring; packed: device event suppression */
	uint32_t size;   /* entries */
};

/*
 * Starts a ring that the driver has just laid out. Which queue it is shows when all rings that the
 * driver uses are started; drivers number them in different ways. A ring that ran before is a new
 * driver's, as if aerostat_balloon_reset() had come: what the balloon held is forgotten.
 *
 * -EINVAL: no such ring, or the driver has chosen a size or alignment that the standard does not
 * allow; -EFAULT: not, or not wholly, within one region of guest memory; -EBUSY: it runs already.
 */
int aerostat_balloon_start_ring(struct aerostat_balloon *device, uint32_t ring,
				const struct aerostat_ring *where);

/*
 * Stops a ring; nothing touches its memory after that. *base (may be NULL) is where it stands, for
 * aerostat_balloon_resume_ring(). -ENOENT: it does not run.
 */
int aerostat_balloon_stop_ring(struct aerostat_balloon *device, uint32_t ring, uint32_t *base);

/*
 * Starts a ring again that was stopped without the driver's knowledge (the virtual machine was
 * paused). Errors as aerostat_balloon_start_ring(); -EINVAL: also for a base that is none.
 */
int aerostat_balloon_resume_ring(struct aerostat_balloon *device, uint32_t ring,
				 const struct aerostat_ring *where, uint32_t base);

/*
 * The driver has reset the device, or the machine was reset: stops all rings, forgets the features
 * and what the balloon holds. Target and intervals stay.
 */
int aerostat_balloon_reset(struct aerostat_balloon *device);

/* --- Work ------------------------------------------------------------------------------------ */

/* The driver has kicked a ring: the next aerostat_balloon_run() serves it. */
int aerostat_balloon_kick(struct aerostat_balloon *device, uint32_t ring);

/*
 * Does what there is to do: rings that were kicked or started, and what has become due. A bounded
 * amount of work, some milliseconds of it at most. 1: there is more to do, call again soon; 0: done
 * until the next kick, or until aerostat_balloon_next_run().
 */
int aerostat_balloon_run(struct aerostat_balloon *device, uint64_t now_ms);

/* When aerostat_balloon_run() is wanted next: a time, 0 for at once, or AEROSTAT_NEVER. */
uint64_t aerostat_balloon_next_run(const struct aerostat_balloon *device);

/* --- Operating it ---------------------------------------------------------------------------- */

/*
 * How much memory is wanted in the balloon. The driver is told of it in steps of 64 KiB, and no
 * more than the guest has.
 */
int aerostat_balloon_set_target(struct aerostat_balloon *device, uint64_t bytes);

/*
 * Asks the driver for statistics; AEROSTAT_EVENT_STATS tells when they are here. -ENOTSUP: not
 * negotiated; -ENODEV: no driver at work.
 */
int aerostat_balloon_request_stats(struct aerostat_balloon *device);

/* Asks now and then every interval_ms; 0 ends it. Kept for the next driver too. */
int aerostat_balloon_poll_stats(struct aerostat_balloon *device, uint64_t interval_ms,
				uint64_t now_ms);

/*
 * Has the driver send statistics by itself every interval_ms, at least 10; 0 ends it. Kept for the
 * next driver too. -ENOTSUP: not offered, or this driver cannot.
 */
int aerostat_balloon_push_stats(struct aerostat_balloon *device, uint32_t interval_ms);

/* The last statistics that arrived. Each arrival replaces all of the set before. */
struct aerostat_stats {
	size_t size;
	uint64_t age_ms;
	uint32_t valid; /* bit n: value[n] is set */
	uint32_t reserved;
	uint64_t value[AEROSTAT_STATS_MAX]; /* by enum virtio_balloon_stat_tag */
};

/* -ENODATA: none have arrived from this driver. */
int aerostat_balloon_get_stats(const struct aerostat_balloon *device, uint64_t now_ms,
			       struct aerostat_stats *stats);

/*
 * Who holds on to guest memory: while there is any, nothing is discarded. A mask; bits from
 * AEROSTAT_INHIBIT_USER on are the VMM's own.
 */
#define AEROSTAT_INHIBIT_PINNED   (1U << 0) /* a device was given pages by their host address */
#define AEROSTAT_INHIBIT_POSTCOPY (1U << 1) /* pages arrive from another host */
#define AEROSTAT_INHIBIT_SNAPSHOT (1U << 2) /* pages are being written away */
#define AEROSTAT_INHIBIT_USER     (1U << 8)

/*
 * From the return of aerostat_balloon_inhibit() on nothing is discarded; inflation is accepted and
 * counted. When the last reason is lifted, what the balloon holds by then is discarded by
 * aerostat_balloon_run(). -EINVAL: no reason, or one that is neither named above nor the VMM's own.
 */
int aerostat_balloon_inhibit(struct aerostat_balloon *device, uint32_t reasons);
int aerostat_balloon_uninhibit(struct aerostat_balloon *device, uint32_t reasons);

enum aerostat_hint_action {
	AEROSTAT_HINT_START, /* the guest shall name its free pages */
	AEROSTAT_HINT_STOP,  /* it shall name no more */
	AEROSTAT_HINT_DONE,  /* nobody goes by the hints any more: the guest may use all again */
};

enum aerostat_hint_state {
	AEROSTAT_HINT_IDLE,
	AEROSTAT_HINT_REQUESTED, /* the driver has not begun yet */
	AEROSTAT_HINT_HINTING,
	AEROSTAT_HINT_FINISHED, /* the driver has named all */
	AEROSTAT_HINT_ENDED,    /* after AEROSTAT_HINT_DONE */
};

/*
 * Free page hinting, for a migration or snapshot that is about to copy memory: hinted pages need
 * not be copied as long as the VMM's log of dirty pages, begun before START, says that they were
 * not written since. -ENOTSUP: not negotiated; -ENODEV: no driver at work; -EBUSY: a command is
 * under way (START).
 */
int aerostat_balloon_hint(struct aerostat_balloon *device, enum aerostat_hint_action action);

/* --- Taking it to another place -------------------------------------------------------------- */

/*
 * Takes the next len bytes of a stream, all of them. 0, or a negative number that ends it and is
 * returned to the VMM.
 */
typedef int (*aerostat_write)(void *to, const void *bytes, size_t len);

/* Gives the next bytes of a stream, at most len, not 0. How many; 0: its end; or as above. */
typedef int64_t (*aerostat_read)(void *from, void *bytes, size_t len);

/*
 * Writes the state of the device, while all its rings are stopped: what the driver was told and has
 * said, and what the balloon holds. Where the rings are and where they stand is the VMM's to keep.
 * -EBUSY: a ring runs.
 */
int aerostat_balloon_save(struct aerostat_balloon *device, uint64_t now_ms, aerostat_write write,
			  void *to);

/*
 * Puts such a state in the place of this device's own, before a ring was started; reads no byte
 * more than was written. Memory is to be declared before. Inhibitors are this device's own. Then
 * the rings are resumed where they stood; what the balloon holds is discarded here, too, as it may
 * have come along.
 *
 * -EBUSY: a ring runs; -EBADMSG: no such state, or damaged; -EPROTONOSUPPORT: of a later version;
 * -ENOTSUP: with features that this device does not offer; -EINVAL: with others than those that
 * were negotiated here; -ENOMEM.
 */
int aerostat_balloon_load(struct aerostat_balloon *device, uint64_t now_ms, aerostat_read read,
			  void *from);

/* --- Looking at it --------------------------------------------------------------------------- */

enum aerostat_page_set {
	AEROSTAT_PAGES_HELD,   /* in the balloon, by the device's own count */
	AEROSTAT_PAGES_HINTED, /* named as free since the last AEROSTAT_HINT_START */
};

/*
 * Copies a set of 4 KiB pages out: bit i % 64 of bitmap[i / 64] is guest page first_page + i, for
 * n_pages of them; bits beyond are 0, and so are those of pages that are not guest memory.
 */
int aerostat_balloon_read_pages(const struct aerostat_balloon *device, enum aerostat_page_set set,
				uint64_t first_page, uint64_t n_pages, uint64_t *bitmap);

/* State and counters; counters begin at 0 with the device and are not reset. */
struct aerostat_balloon_info {
	size_t size;
	uint64_t features_offered;
	uint64_t features_negotiated;
	uint64_t memory;   /* of the guest, all together */
	uint64_t target;   /* that the driver is told of */
	uint64_t actual;   /* what the driver says is in the balloon; not to be trusted */
	uint64_t held;     /* what is in it by the device's own count */
	uint64_t inflated; /* counter */
	uint64_t deflated; /* counter */
	uint64_t reported; /* counter: free pages that the driver reported */
	uint64_t hinted;   /* counter */
	uint64_t kept;     /* counter: not discarded because of an inhibitor or page poison */
	uint64_t freed;    /* counter: what the host really got back */
	uint64_t discard_failures; /* counter: calls that the host kernel refused */
	uint32_t driver_active;    /* 1: a driver's inflate and deflate queues run */
	uint32_t poison_value;     /* 0 without page poison */
	uint32_t inhibitors;       /* mask */
	uint32_t push_interval_ms; /* 0: statistics are not pushed */
	uint32_t hint_state;       /* enum aerostat_hint_state */
	uint32_t hint_id;          /* of the last hinting command, 0: none yet */
	uint32_t pressure_type;    /* last message: enum virtio_balloon_message_type, 0: none */
	uint32_t pressure_level;   /* enum virtio_balloon_pressure */
	uint64_t pressure_age_ms;
	uint64_t pressure_messages[AEROSTAT_PRESSURE_LEVELS]; /* counters, by level */
	uint64_t relieved_messages;                           /* counter */
	uint64_t unknown_messages;                            /* counter */
	uint64_t unknown_stats;                               /* counter: tags without a meaning */
};

int aerostat_balloon_get_info(const struct aerostat_balloon *device, uint64_t now_ms,
			      struct aerostat_balloon_info *info);

/*
 * Host memory behind the guest's memory now. For files one system call each; anonymous memory is
 * looked through page by page.
 */
int aerostat_balloon_get_resident(const struct aerostat_balloon *device, uint64_t *bytes);

struct aerostat_ring_info {
	size_t size;
	int32_t queue;      /* enum virtio_balloon_queue; -1: none, or not known yet */
	uint32_t started;   /* 0 or 1 */
	uint64_t buffers;   /* counter of the queue: buffers served */
	const char *broken; /* why, a constant; NULL: it is not */
};

/* -EINVAL: no such ring. */
int aerostat_balloon_get_ring(const struct aerostat_balloon *device, uint32_t ring,
			      struct aerostat_ring_info *info);

/*
 * What the driver did that it must not do, by reason: number `index`, from 0 on, with its name (a
 * constant) and how often it happened. -ENOENT: there are no more reasons.
 */
int aerostat_balloon_get_error(const struct aerostat_balloon *device, uint32_t index,
			       const char **name, uint64_t *count);

#ifdef __cplusplus
}
#endif

#endif
