/* SPDX-License-Identifier: MIT */
/*
 * The guest's side of the balloon: a driver without an operating system around it. It knows the
 * wire (virtio 1.4 "Traditional Memory Balloon Device" and what Aerostat adds to it) and nothing
 * else: memory, configuration space and notifications are reached through struct
 * driver_balloon_ops, and the time comes in as an argument. It allocates nothing and never waits.
 *
 * Its life, beside what the transport does for it:
 *
 *     driver_balloon_init       features are chosen; the transport tells the device
 *     driver_balloon_prepare    rings and buffers are laid out; the transport tells the device
 *                               where, and sets DRIVER_OK
 *     driver_balloon_start      the driver is at work:
 *         driver_balloon_config_changed, driver_balloon_used   on the device's interrupts
 *         driver_balloon_tick                                  when driver_balloon_next_tick() says
 *         driver_balloon_pressure, _relieved, _oom, _report    as the system's memory goes
 *     driver_balloon_close      and wait until driver_balloon_closed(), but not for ever;
 *                               the transport resets the device
 *     driver_balloon_reset      all memory is back; may begin again with init
 *
 * Calls must not overlap: the caller serialises them. None of them may be made from within an op.
 *
 * What an event does is only noted where it comes in; driver_balloon_step() then does whatever is
 * due, queue by queue. So there is one place for each decision, however events are ordered.
 *
 * Integers on the wire are little-endian, so on the legacy interface, where they have the guest's
 * order, this driver is one for little-endian guests.
 */
#ifndef DRIVER_BALLOON_H
#define DRIVER_BALLOON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aerostat/virtio_balloon.h"
#include "driver/ring.h"

/* PFNs in one inflate or deflate buffer, unless the setup says otherwise: as the Linux driver. */
#define DRIVER_ARRAY_PFNS 256U
#define DRIVER_ARRAY_MAX  (1U << 20)

/* Pages in one hint or one piece of a report, at most: 1 GiB, as a descriptor has 32 bits. */
#define DRIVER_BLOCK_PAGES (1U << 18)

/* Pieces of one report, at most. */
#define DRIVER_REPORT_BLOCKS 32U

/* When memory for inflation was short it is tried again after that: milliseconds. */
#define DRIVER_RETRY_MS 200U

/* A new message comes not sooner than this after the last, unless it is a worse one. */
#define DRIVER_MESSAGE_GAP_MS 100U

/* Inflation waits no longer for the answer to a message: a dead host must not hang a guest. */
#define DRIVER_MESSAGE_WAIT_MS 5000U

/* How rings are numbered. The standard says FIXED; Linux and QEMU close the gaps. */
enum driver_numbering {
	DRIVER_NUMBERS_FIXED,      /* by the queue's number in the standard */
	DRIVER_NUMBERS_NEGOTIATED, /* counting the queues whose feature was accepted */
	DRIVER_NUMBERS_OFFERED,    /* counting the queues whose feature was offered */
};

/* What pages are taken from the system for, and come back from. */
enum driver_use {
	/*
	 * The balloon. With page poison they are to be filled with poison_val before they are used
	 * again (virtio 1.4 "Page Poison").
	 */
	DRIVER_FOR_BALLOON,
	/* A free page hint. What is in them is lost: they have to be written before they are read.
	 */
	DRIVER_FOR_HINT,
	/* A report. With page poison they must be full of poison_val when they are taken. */
	DRIVER_FOR_REPORT,
};

struct driver_statistics {
	uint64_t value[VIRTIO_BALLOON_S_NR];
	uint32_t set; /* bit n: value[n] is known; later ones than at first are left out */
};

struct driver_balloon_ops {
	/*
	 * Takes one stretch of 1 to max free pages away from the system, without waiting and
	 * without emergency reserves: the first one's number to *pfn, returns how many. 0: none can
	 * be spared. They lie within the setup's pages.
	 */
	uint32_t (*take)(void *opaque, enum driver_use use, uint32_t max, uint32_t *pfn);
	/* Pages [pfn, pfn + n) are the system's again; not always as they were taken. */
	void (*give)(void *opaque, enum driver_use use, uint32_t pfn, uint32_t n);
	/* Device configuration; a field is always accessed as a whole, in one go. */
	void (*config_read)(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len);
	void (*config_write)(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len);
	/* Notifies the device that a ring has available buffers. */
	void (*kick)(void *opaque, uint32_t ring);
	/* The system's memory now; *s comes zeroed. */
	void (*statistics)(void *opaque, struct driver_statistics *s);
};

struct driver_balloon_setup {
	uint64_t offered; /* the device's feature bits */
	uint64_t wanted;  /* those that the system can do with; bits that are unknown here are left
			     out */
	enum driver_numbering numbering;
	uint16_t ring_size[VIRTIO_BALLOON_VQ_COUNT]; /* by queue, at most DRIVER_RING_MAX; a queue
							that is not used needs none */
	uint32_t array_pfns; /* PFNs in one buffer, at most DRIVER_ARRAY_MAX; 0: DRIVER_ARRAY_PFNS
			      */

	/* The system fills free pages with a value, and relies on finding it there. */
	bool poison;
	uint32_t poison_val;

	/*
	 * A bit for each page [first_pfn, first_pfn + pages), zeroed: those in the balloon, and
	 * those that were hinted. Only for the driver. hinted may be NULL: then hinting is refused.
	 */
	uint32_t first_pfn;
	uint32_t pages;
	uint64_t *in_balloon;
	uint64_t *hinted;

	const struct driver_balloon_ops *ops;
	void *opaque;
};

/* A buffer in guest memory that both sides know. */
struct driver_room {
	uint8_t *host;
	uint64_t gpa;
};

/* An array of PFNs, and whether the device has it. */
struct driver_array {
	struct driver_room room;
	bool out;
	uint32_t n;
};

struct driver_pages {
	struct driver_array inflate;
	struct driver_array deflate;
	uint64_t count;    /* pages that the device knows to be in the balloon: `actual` */
	uint64_t cursor;   /* where deflation looks for pages next */
	uint64_t target;   /* num_pages as it was last read */
	bool stale;        /* it may be another by now */
	uint64_t oom_left; /* pages to deflate whatever the target says */
	bool oom_pause;    /* the system ran short: no inflation before the target changes */
	uint64_t retry_ms; /* no inflation before that; 0: none was refused */
	/* counters */
	uint64_t refused;   /* times that memory for inflation was short */
	uint64_t oom_pages; /* given back since the system ran short */
};

struct driver_stats {
	struct driver_room room;
	bool out;             /* the buffer is at the device */
	bool owed;            /* a buffer is to be sent as soon as it is here */
	uint32_t tags;        /* bit n: the buffers have an entry for tag n */
	uint32_t interval_ms; /* 0: on request */
	uint64_t start_ms;    /* tick k is at start + k * interval */
	uint64_t tick;        /* the next one */
	/* counters */
	uint64_t sent;
	uint64_t skipped; /* ticks that found the buffer still at the device */
	uint64_t missed;  /* ticks that passed without the driver being called */
};

struct driver_message {
	struct driver_room room;
	bool out;
	bool waiting;     /* inflation waits for the answer */
	int32_t pending;  /* level to be sent; -1: none */
	bool relief;      /* "relieved" is to be sent, after that */
	int32_t at_host;  /* level of the message that is out; -1: none, or no pressure */
	int32_t last;     /* level of the one that was sent last; -1: relieved, or none */
	uint64_t sent_ms; /* when the last one was sent */
	uint64_t deadline_ms;
	/* counters */
	uint64_t sent;
	uint64_t merged;   /* notices that a message which was under way spoke for */
	uint64_t timeouts; /* waits that were given up */
};

struct driver_hint {
	struct driver_room start; /* the command's id, and the word that it is finished */
	struct driver_room stop;
	bool start_out;
	bool stop_out;
	uint16_t start_id; /* of these buffers in the ring */
	uint16_t stop_id;
	uint32_t command; /* what the configuration says */
	uint32_t id;      /* of the command in hand; 0: none */
	uint32_t last;    /* the last one that was begun */
	uint32_t out;     /* hints at the device */
	uint64_t pages;   /* hinted, and still kept from the system */
	/* counters */
	uint64_t rounds;
};

struct driver_report {
	struct driver_room table; /* for indirect descriptors */
	bool out;
	uint16_t n;
	struct {
		uint32_t pfn;
		uint32_t n;
	} block[DRIVER_REPORT_BLOCKS];
};

/* All fields are for reading only, outside of lib/driver. */
struct driver_balloon {
	struct driver_balloon_setup setup;
	uint64_t features;                                /* accepted */
	int8_t ring_of[VIRTIO_BALLOON_VQ_COUNT];          /* by queue; -1: does not exist */
	struct driver_ring ring[VIRTIO_BALLOON_VQ_COUNT]; /* by queue */
	uint64_t ring_gpa[VIRTIO_BALLOON_VQ_COUNT];       /* where it begins, by queue */
	bool running;
	bool closing;

	struct driver_pages pages;
	struct driver_stats stats;
	struct driver_message message;
	struct driver_hint hint;
	struct driver_report report;
};

/*
 * Which of the offered features a driver accepts that wants these. It accepts what it knows only;
 * STATS_PUSH only with STATS_VQ; PAGE_POISON only if the system fills free pages; and, if it does,
 * PAGE_REPORTING only with PAGE_POISON, as pages would lose what is in them. On the legacy
 * interface (no VERSION_1) there are only 32 feature bits.
 */
uint64_t driver_balloon_negotiate(uint64_t offered, uint64_t wanted, bool poison);

/*
 * Chooses features (d->features) and numbers the rings. setup is copied; what it points to must
 * stay. -EINVAL: a ring's or array's size, or no pages at all.
 */
int driver_balloon_init(struct driver_balloon *d, const struct driver_balloon_setup *setup);

/* Guest memory that rings and buffers take, in bytes. */
size_t driver_balloon_bytes(const struct driver_balloon *d);

/*
 * Lays rings and buffers out in that many zeroed bytes at mem, which the device sees at gpa; both
 * multiples of 64. Writes poison_val, which has to be known before DRIVER_OK.
 */
void driver_balloon_prepare(struct driver_balloon *d, uint8_t *mem, uint64_t gpa);

/* DRIVER_OK is set: notifies of what is in the rings, and begins. */
void driver_balloon_start(struct driver_balloon *d, uint64_t now_ms);

/* The device says that its configuration has changed. */
void driver_balloon_config_changed(struct driver_balloon *d, uint64_t now_ms);

/* The device says that it has used buffers, of whatever ring. */
void driver_balloon_used(struct driver_balloon *d, uint64_t now_ms);

/* Does what is due by time. */
void driver_balloon_tick(struct driver_balloon *d, uint64_t now_ms);

/* When driver_balloon_tick() is wanted next; UINT64_MAX: never. Asked anew after every call. */
uint64_t driver_balloon_next_tick(const struct driver_balloon *d);

/*
 * The system is short of memory, as badly as `level` (enum virtio_balloon_pressure) says.
 * From here on the balloon does not grow until the host has dealt with it, or
 * DRIVER_MESSAGE_WAIT_MS have passed. -ENOTSUP: MESSAGE_VQ was not accepted; -ENODEV: not at work;
 * -EINVAL: no such level.
 */
int driver_balloon_pressure(struct driver_balloon *d, uint32_t level, uint64_t now_ms);

/* The shortage is over. Errors as above. */
int driver_balloon_relieved(struct driver_balloon *d, uint64_t now_ms);

/*
 * The system would kill for memory: takes up to `pages` out of the balloon whatever the host wants,
 * if DEFLATE_ON_OOM was accepted. Returns how many are on their way; with MUST_TELL_HOST they come
 * with driver_balloon_used(). Inflation then rests until the configuration changes.
 */
uint64_t driver_balloon_oom(struct driver_balloon *d, uint64_t pages, uint64_t now_ms);

/*
 * Offers free pages to the host, which may take what is behind them: takes some of them and gives
 * them back when the host has. Returns how many; 0 also while the last report is under way.
 */
uint64_t driver_balloon_report(struct driver_balloon *d);

/* Gives up to `pages` hinted pages back before the host says DONE. Returns how many. */
uint64_t driver_balloon_take_hinted(struct driver_balloon *d, uint64_t pages);

/*
 * Before a removal, freeze or shutdown: timers stop, nothing new is begun, and the balloon is
 * emptied whatever the host wants.
 */
void driver_balloon_close(struct driver_balloon *d, uint64_t now_ms);

/* Has that come to its end, and the device nothing in hand that it would still return? */
bool driver_balloon_closed(const struct driver_balloon *d);

/* The device is reset, or gone: it knows of no page any more, and all are given back. */
void driver_balloon_reset(struct driver_balloon *d);

/* Was this feature accepted? */
static inline bool driver_balloon_has(const struct driver_balloon *d, unsigned int feature)
{
	return d->features >> feature & 1;
}

#endif
