/* SPDX-License-Identifier: MIT */
/*
 * The balloon device: what virtio 1.4 "Traditional Memory Balloon Device" asks of one, free of any
 * transport, system call or clock. Buffers come in through virtqueues that the transport has set
 * up, effects go out through struct balloon_ops.
 *
 * Life: balloon_init -> balloon_memory_changed -> balloon_queue_started (each ring) ->
 * balloon_queue_run on every kick, balloon_tick on time -> balloon_queue_stopped -> balloon_reset
 * when the driver starts afresh.
 *
 * A `ring` is the transport's number of a virtqueue, a `queue` its number in the standard, which
 * says what it is for. Which is which depends on the driver: see roles.c.
 *
 * A process that serves a device may die, and another go on with struct balloon_state as it was at
 * the last balloon_ops.commit: see balloon_restore().
 */
#ifndef BALLOON_BALLOON_H
#define BALLOON_BALLOON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aerostat/virtio_balloon.h"
#include "balloon/pageset.h"
#include "balloon/pfn.h"
#include "base/instant.h"
#include "base/ratelimit.h"
#include "virtio/vq.h"

/* num_pages is kept a multiple of this, so that guests with 64 KiB pages can reach it exactly. */
#define BALLOON_TARGET_STEP 16U

/* A part of guest memory, in bytes from the beginning of a region. */
struct balloon_range {
	uint32_t region; /* index in the memory table */
	uint64_t offset;
	uint64_t len;
};

/* What the driver did that it must not do; each is counted and otherwise without effect. */
enum balloon_error {
	BALLOON_ERR_PFN,           /* page that is in no region */
	BALLOON_ERR_DOUBLE,        /* inflated a page that is held */
	BALLOON_ERR_NOT_HELD,      /* deflated a page that is not held */
	BALLOON_ERR_DUPLICATE,     /* the same page twice in one batch */
	BALLOON_ERR_FRAGMENT,      /* buffer length not a multiple of the entry's */
	BALLOON_ERR_STATS_TWICE,   /* second statistics buffer while one is held */
	BALLOON_ERR_STATS_LONG,    /* more statistics than anyone can mean */
	BALLOON_ERR_ACTUAL,        /* claims more pages than the guest has */
	BALLOON_ERR_UNKNOWN_QUEUE, /* kicked a ring that is none of the queues it set up */
	BALLOON_ERR_MESSAGE,       /* message too short to be one */
	BALLOON_ERR_MESSAGE_FLOOD, /* more messages than allowed: made to wait */
	BALLOON_ERR_HINT_ID,       /* hint under an id that is not the current command's */
	BALLOON_ERR_BROKEN,        /* broke a queue; queue state says how */
	BALLOON_ERR_COUNT,
};

const char *balloon_error_name(enum balloon_error error);

enum balloon_event {
	BALLOON_EVENT_ACTUAL,   /* the driver wrote `actual` */
	BALLOON_EVENT_STATS,    /* fresh statistics have arrived */
	BALLOON_EVENT_PRESSURE, /* a message about memory pressure was dealt with */
	BALLOON_EVENT_HINT,     /* free page hinting has begun, is finished, or cannot go on */
};

struct balloon_ops {
	/*
	 * Gives the ranges back to the host. None is in use by the guest now, but each may be from
	 * the moment this returns. Returns how many bytes became free; a failure to free is the
	 * implementation's to count, the guest is none the worse for it.
	 */
	uint64_t (*discard)(void *opaque, const struct balloon_range *ranges, uint32_t n);
	/* The driver shall read the configuration anew. */
	void (*config_changed)(void *opaque);
	/* Used buffers wait on a ring and the driver wants to hear of them. */
	void (*notify)(void *opaque, uint32_t ring);
	/* The ring broke (balloon->vq[ring]->st.error says why) and is served no more. */
	void (*queue_broken)(void *opaque, uint32_t ring);
	void (*event)(void *opaque, enum balloon_event event);
	/*
	 * balloon->st and the state of all rings, as they are now, are what another process would
	 * go on with. What comes next shows to the guest.
	 */
	void (*commit)(void *opaque);
};

/* What a message about pressure does to the target. */
enum balloon_pressure_policy {
	BALLOON_PRESSURE_REPORT,  /* nothing */
	BALLOON_PRESSURE_HOLD,    /* no more than the balloon holds */
	BALLOON_PRESSURE_DEFLATE, /* less than that, by a step for the level */
};

struct balloon_policy {
	enum balloon_pressure_policy on_pressure;
	uint64_t step_pages[VIRTIO_BALLOON_PRESSURE_NR]; /* DEFLATE, by level */
	uint32_t messages_per_second; /* a guest that sends more waits; 0: no limit */
};

/* The last message about pressure, and how many there were. */
struct balloon_pressure {
	bool ever;
	uint32_t type; /* enum virtio_balloon_message_type */
	uint32_t level;
	struct instant arrived;
	uint64_t messages[VIRTIO_BALLOON_PRESSURE_NR]; /* by level */
	uint64_t relieved;
	uint64_t unknown;
};

/*
 * Free page hinting (virtio 1.4 "Free Page Hinting"). Pages that the driver names while HINTING
 * are marked in balloon.hints, and nothing else.
 */
enum balloon_hint_state {
	BALLOON_HINT_IDLE,      /* at first, and after `stop`: configuration says STOP */
	BALLOON_HINT_REQUESTED, /* after `start`: configuration says `id` */
	BALLOON_HINT_HINTING,   /* the driver has sent `id`: hints come */
	BALLOON_HINT_FINISHED,  /* the driver has sent STOP */
	BALLOON_HINT_DONE, /* after `done`: configuration says DONE, the guest takes all back */
	BALLOON_HINT_COUNT,
};

enum balloon_hint_action {
	BALLOON_HINT_START,
	BALLOON_HINT_STOP,
	BALLOON_HINT_FINISH, /* `done` */
	BALLOON_HINT_ACTIONS,
};

struct balloon_hint {
	enum balloon_hint_state state;
	uint32_t id;        /* of the last command; 0: none yet */
	uint32_t driver_id; /* that the driver's hints are under: until its STOP; 0: none */
};

/* Held pages that are still to be discarded, from a place on. */
struct balloon_sweep {
	bool active;
	uint32_t region;
	uint64_t page;
};

/* The last set of statistics. All of it is replaced at each arrival. */
struct balloon_stats {
	uint64_t value[VIRTIO_BALLOON_S_NR];
	uint32_t set; /* bit n: value[n] is set */
	bool ever;    /* has any arrived? */
	struct instant arrived;
};

/* All that must outlive this process: fixed size, no pointers. */
struct balloon_state {
	uint64_t offered;      /* feature bits, balloon's and transport's */
	uint64_t negotiated;   /* of those, what the driver accepted */
	uint64_t wanted_pages; /* the host's wish; num_pages is what of it the memory allows */
	uint32_t num_pages;
	uint32_t actual;
	uint32_t actual_written; /* what `actual` becomes when a legacy driver has written all of it
				  */
	uint32_t poison_val;

	int8_t ring_of[VIRTIO_BALLOON_VQ_COUNT]; /* by queue; -1: not set up, or not known yet */
	uint32_t fresh_rings; /* bit n: ring n was started anew, and its queue does not know yet */
	uint32_t unknown_kicked; /* bit n: ring n was kicked before its queue was known */
	uint64_t unknown_due_ms; /* when such rings are an error; 0: there are none */

	uint64_t errors[BALLOON_ERR_COUNT];
	uint64_t unknown_tags;
	uint64_t buffers[VIRTIO_BALLOON_VQ_COUNT]; /* by queue: served */
	uint64_t inflated_pages;                   /* these count for ever, by what was taken in */
	uint64_t deflated_pages;
	uint64_t reported_bytes;
	uint64_t hinted_bytes;
	uint64_t kept_bytes; /* might have been discarded but for poison or an inhibitor */
	uint64_t freed_bytes;

	/* By queue: bytes of the chain in hand that are dealt with; 0 if none is half done. */
	uint64_t resume[VIRTIO_BALLOON_VQ_COUNT];

	struct balloon_stats stats;
	bool stats_held;    /* a statistics buffer is here, to be returned as a request */
	bool stats_awaited; /* somebody wants figures that have not come yet */
	bool stats_skip; /* what the next buffer holds is no news (legacy's first; resumed ring) */
	uint16_t stats_id;
	uint16_t stats_slots;
	uint64_t poll_interval_ms; /* 0: no polling */
	uint64_t poll_due_ms;
	uint32_t push_interval_ms; /* 0: statistics come on request */
	struct ratelimit push_rate;
	uint64_t push_news_ms; /* figures that nobody was told of are told then; 0: none */

	struct balloon_pressure pressure;
	struct ratelimit message_rate;
	uint64_t message_due_ms; /* a message waits until then; 0: none */

	struct balloon_hint hint;

	bool inhibited; /* nothing may be discarded */
	struct balloon_sweep sweep;
};

struct balloon {
	struct balloon_state st;
	struct pageset held;  /* what is in the balloon */
	struct pageset hints; /* what the last hinting command has named */
	const struct guest_mem *mem;
	struct vq *vq[VIRTIO_BALLOON_VQ_COUNT]; /* by ring */
	const struct balloon_ops *ops;
	void *opaque;
	struct balloon_policy policy;

	/* Room to work in. By queue: one may keep its chain from turn to turn. */
	struct pfn_batch batch;
	uint32_t redo; /* bit n: queue n may do some work twice, after balloon_restore() */
	bool in_hand[VIRTIO_BALLOON_VQ_COUNT];
	struct chain_cursor cursor[VIRTIO_BALLOON_VQ_COUNT];
	struct vq_chain chain[VIRTIO_BALLOON_VQ_COUNT];
};

/*
 * features: bit mask of balloon feature bits to offer beside MUST_TELL_HOST and the transport's;
 * STATS_PUSH is offered only with STATS_VQ. The transport then sets b->vq[], its rings by its own
 * numbers, all of them; and its owner b->policy (zeroed: messages are only reported).
 */
void balloon_init(struct balloon *b, uint64_t features, const struct balloon_ops *ops,
		  void *opaque);

/* Takes the driver's choice. -EINVAL, and nothing changed, if it has a bit that was not offered. */
int balloon_set_features(struct balloon *b, uint64_t features);

/*
 * len bytes of configuration space from offset; zeros beyond its end. A write may cover more than
 * the driver owns (QEMU's generic front end writes all of it): `actual` and poison_val are taken.
 */
void balloon_config_read(const struct balloon *b, uint32_t offset, uint8_t *buf, uint32_t len);
void balloon_config_write(struct balloon *b, uint32_t offset, const uint8_t *buf, uint32_t len);

/*
 * Sets what the host wants in the balloon, in 4 KiB pages. What the driver is told is that, rounded
 * down to BALLOON_TARGET_STEP and capped at the guest's memory.
 */
void balloon_set_target(struct balloon *b, uint64_t pages);

/* Works that out anew, after a change of memory. */
void balloon_update_target(struct balloon *b);

/* What the driver says is in the balloon, in bytes; at most `limit`. */
uint64_t balloon_actual_bytes(const struct balloon *b, uint64_t limit);

/* Bytes that are in the balloon by the device's own count. */
uint64_t balloon_held_bytes(const struct balloon *b);

/*
 * The memory table is about to change: lets go of all host addresses. Then, with the new table and
 * twice pageset_words() zeroed words of bitmap: takes over what is held of memory that is still
 * there, and forgets hints. The old bitmaps are free for their owner after that. hints may be NULL:
 * then no hinting can be asked for, and one under way ends.
 */
void balloon_memory_changing(struct balloon *b);
void balloon_memory_changed(struct balloon *b, const struct guest_mem *mem, uint64_t *map,
			    uint64_t *hints);

/*
 * After balloon_init() and b->vq[] in a process that goes on for one that died: *st and the bitmaps
 * are as that one left them at its last commit (bitmaps: later, which does no harm), laid out as
 * its b->held.at was. mem is the same table at this process's addresses. Nothing of what was under
 * way is lost or shows twice: the rings' state is the transport's (vq_recover()), which then calls
 * balloon_queue_started() with `resumed` for those that ran. Counters of errors may miss what was
 * wrong in the work that is done again.
 */
void balloon_restore(struct balloon *b, const struct balloon_state *st, const struct guest_mem *mem,
		     const struct pageset *held, const struct pageset *hints);

/*
 * The transport has started a ring; `resumed` if it goes on where it stopped and the driver knows
 * nothing of it. Returns the rings, as a bit mask, that want to be run once, without a kick: this
 * one, and those whose queue has become clear by it.
 */
uint32_t balloon_queue_started(struct balloon *b, uint32_t ring, bool resumed);
/* ... and is about to stop it, before vq_stop(). */
void balloon_queue_stopped(struct balloon *b, uint32_t ring);

/* What the driver fills free pages with; 0 also if it does not say. */
uint32_t balloon_poison(const struct balloon *b);

/* Which queue a ring is; -1: none, or not known yet. */
int balloon_queue_of(const struct balloon *b, uint32_t ring);
/* The ring of a queue, started or not; NULL: not set up, or not known yet. */
struct vq *balloon_vq(const struct balloon *b, enum virtio_balloon_queue queue);

/* The driver has started afresh, or is gone: the balloon is empty. */
void balloon_reset(struct balloon *b);

/*
 * Serves what is on a ring, up to a bounded amount of work. True if there is more: call again
 * soon, no kick will come for it.
 */
bool balloon_queue_run(struct balloon *b, uint32_t ring, struct instant now);

/* The driver has kicked a ring: to be called before balloon_queue_run(). */
void balloon_queue_kicked(struct balloon *b, uint32_t ring);

/* Gives a ring up that cannot be served, whatever is on it (such as what kills the process). */
void balloon_give_up_ring(struct balloon *b, uint32_t ring, enum vq_error error);

/*
 * Asks the driver for statistics. 0: asked, or some are due anyway, and BALLOON_EVENT_STATS will
 * tell; -ENOTSUP: not negotiated; -ENODEV: no driver.
 */
int balloon_request_stats(struct balloon *b);

/* Asks at once and then every interval_ms, counted from now; 0 stops it. */
void balloon_set_poll_interval(struct balloon *b, uint64_t interval_ms, struct instant now);

/*
 * Has the driver push statistics every interval_ms (at least VIRTIO_BALLOON_PUSH_INTERVAL_MIN); 0:
 * back to requests. Kept for the next driver too. -ENOTSUP, and nothing changed: this driver
 * cannot push.
 */
int balloon_set_push_interval(struct balloon *b, uint32_t interval_ms);

/* Do statistics come by themselves now? */
bool balloon_pushing(const struct balloon *b);

/*
 * -EBUSY: a command is under way (START); -ENOTSUP: not negotiated; -ENODEV: no driver, or START
 * without a queue that works or without a bitmap.
 */
int balloon_hint(struct balloon *b, enum balloon_hint_action action);

/*
 * While inhibited nothing is discarded, as somebody else holds on to guest memory. When that ends,
 * what the balloon holds then is discarded by balloon_tick(), in pieces: at once due.
 */
void balloon_set_inhibited(struct balloon *b, bool inhibited);

/* Does what is due. Returns the rings, as a bit mask, that want to be run. */
uint32_t balloon_tick(struct balloon *b, struct instant now);

/* When balloon_tick() is wanted next, on the clock of instant.mono_ms; UINT64_MAX: never. */
uint64_t balloon_next_tick(const struct balloon *b);

/* Is a driver at work, so that a message about the configuration makes sense? */
bool balloon_driver_active(const struct balloon *b);

#endif
