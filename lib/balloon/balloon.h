/* SPDX-License-Identifier: MIT */
/*
 * The balloon device: what virtio 1.4 "Traditional Memory Balloon Device" asks of one, free of any
 * transport, system call or clock. Buffers come in through virtqueues that the transport has set
 * up, effects go out through struct balloon_ops.
 *
 * Life: balloon_init -> balloon_memory_changed -> balloon_queue_started (each queue) ->
 * balloon_queue_run on every kick, balloon_tick on time -> balloon_queue_stopped -> balloon_reset
 * when the driver starts afresh.
 */
#ifndef BALLOON_BALLOON_H
#define BALLOON_BALLOON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aerostat/virtio_balloon.h"
#include "balloon/held.h"
#include "balloon/pfn.h"
#include "base/instant.h"
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
	BALLOON_ERR_UNKNOWN_QUEUE, /* set up a queue that no feature calls for */
	BALLOON_ERR_BROKEN,        /* broke a queue; queue state says how */
	BALLOON_ERR_COUNT,
};

const char *balloon_error_name(enum balloon_error error);

enum balloon_event {
	BALLOON_EVENT_ACTUAL, /* the driver wrote `actual` */
	BALLOON_EVENT_STATS,  /* fresh statistics have arrived */
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
	/* Used buffers wait on a queue and the driver wants to hear of them. */
	void (*notify)(void *opaque, uint32_t queue);
	/* The queue broke (balloon->vq[queue]->st.error says why) and is served no more. */
	void (*queue_broken)(void *opaque, uint32_t queue);
	void (*event)(void *opaque, enum balloon_event event);
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

	uint64_t errors[BALLOON_ERR_COUNT];
	uint64_t unknown_tags;
	uint64_t buffers[VIRTIO_BALLOON_VQ_COUNT]; /* served */
	uint64_t freed_bytes;

	/* PFN queues: bytes of the chain in hand that are dealt with; 0 if none is half done. */
	uint64_t resume[2];

	struct balloon_stats stats;
	bool stats_held;    /* a statistics buffer is here, to be returned as a request */
	bool stats_awaited; /* somebody wants figures that have not come yet */
	bool stats_skip; /* what the next buffer holds is no news (legacy's first; resumed ring) */
	uint16_t stats_id;
	uint16_t stats_slots;
	uint64_t poll_interval_ms; /* 0: no polling */
	uint64_t poll_due_ms;
};

struct balloon {
	struct balloon_state st;
	struct held held;
	const struct guest_mem *mem;
	struct vq *vq[VIRTIO_BALLOON_VQ_COUNT];
	const struct balloon_ops *ops;
	void *opaque;

	/* Room to work in. A PFN queue keeps its chain from turn to turn. */
	struct pfn_batch batch;
	bool in_hand[2];
	struct chain_cursor cursor[2];
	struct vq_chain chain[VIRTIO_BALLOON_VQ_STATS + 1];
};

/*
 * features: bit mask of balloon feature bits to offer beside MUST_TELL_HOST and the transport's.
 * The transport then sets b->vq[], its queues by the standard's numbers.
 */
void balloon_init(struct balloon *b, uint64_t features, const struct balloon_ops *ops,
		  void *opaque);

/* Takes the driver's choice. -EINVAL, and nothing changed, if it has a bit that was not offered. */
int balloon_set_features(struct balloon *b, uint64_t features);

/*
 * len bytes of configuration space from offset; zeros beyond its end. A write may cover more than
 * the driver owns (QEMU's generic front end writes all of it): only `actual` is taken.
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
 * held_words() zeroed words of bitmap: takes over what is held of memory that is still there. The
 * old bitmap is free for its owner after that.
 */
void balloon_memory_changing(struct balloon *b);
void balloon_memory_changed(struct balloon *b, const struct guest_mem *mem, uint64_t *map);

/*
 * The transport has started a queue; `resumed` if it goes on where it stopped and the driver knows
 * nothing of it. The queue wants to be run once, without a kick.
 */
void balloon_queue_started(struct balloon *b, uint32_t queue, bool resumed);
/* ... and is about to stop it, before vq_stop(). */
void balloon_queue_stopped(struct balloon *b, uint32_t queue);

/* The driver has started afresh, or is gone: the balloon is empty. */
void balloon_reset(struct balloon *b);

/*
 * Serves what is on a queue, up to a bounded amount of work. True if there is more: call again
 * soon, no kick will come for it.
 */
bool balloon_queue_run(struct balloon *b, uint32_t queue, struct instant now);

/*
 * Asks the driver for statistics. 0: asked, or an answer is already due, and BALLOON_EVENT_STATS
 * will tell; -ENOTSUP: not negotiated; -ENODEV: no driver.
 */
int balloon_request_stats(struct balloon *b);

/* Asks at once and then every interval_ms, counted from now; 0 stops it. */
void balloon_set_poll_interval(struct balloon *b, uint64_t interval_ms, struct instant now);

/* Does what is due. */
void balloon_tick(struct balloon *b, struct instant now);

/* When balloon_tick() is wanted next, on the clock of instant.mono_ms; UINT64_MAX: never. */
uint64_t balloon_next_tick(const struct balloon *b);

/* Is a driver at work, so that a message about the configuration makes sense? */
bool balloon_driver_active(const struct balloon *b);

#endif
