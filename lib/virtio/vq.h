/* SPDX-License-Identifier: MIT */
/*
 * The device side of a virtqueue, split or packed, behind one interface:
 *
 *     vq_start -> { vq_pop -> (serve) -> vq_push }* -> vq_should_notify -> ... -> vq_stop
 *
 * Chains are returned in the order in which they were popped: where a ring stands is one position,
 * and whoever goes on from there knows nothing of gaps before it.
 *
 * A process that may die while it serves, and leave struct vq_state to another, takes two steps to
 * push, with a copy of the state made in between:
 *
 *     vq_push_prepare -> (save vq->st) -> vq_push_publish
 *
 * The other one then goes on with vq_recover(): what was prepared is published exactly once.
 *
 * Sources: virtio 1.4 "Split Virtqueues", "Packed Virtqueues"; for vq_set_base, vq_base the
 * vhost-user specification, "Vring state".
 */
#ifndef VIRTIO_VQ_H
#define VIRTIO_VQ_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtio/chain.h"
#include "virtio/dirty_log.h"
#include "virtio/guest_mem.h"

/*
 * All that must outlive this process, without pointers or padding. A split ring counts positions
 * modulo 2^16, a packed one by slot and wrap counter.
 */
struct vq_state {
	uint64_t desc_uaddr;
	uint64_t driver_uaddr; /* split: avail ring; packed: driver event suppression */
	uint64_t device_uaddr; /* split: used ring; packed: device event suppression */
	uint64_t log_gpa;      /* split: where the used ring is to be logged */
	uint32_t size;         /* entries; 0: not set */
	enum vq_error error;   /* not VQ_OK: the queue is broken until it is started anew */
	uint32_t push_written; /* of the push that is prepared */
	uint16_t push_id;
	uint16_t pushing;     /* slots that it takes; 0: none is prepared */
	uint16_t avail;       /* next to pop */
	uint16_t used;        /* next to push */
	uint16_t in_use;      /* ring slots popped and not yet pushed */
	uint16_t unsignalled; /* slots pushed since the driver was last looked at */
	bool packed;
	bool event_idx;
	bool indirect;
	bool avail_wrap; /* packed */
	bool used_wrap;  /* packed */
	bool signalled_before;
	bool served;   /* something was returned since vq_set_base() */
	bool log_used; /* split: writes to the used ring are to be logged, at log_gpa */
};
static_assert(sizeof(struct vq_state) == 64, "no padding");

struct vq {
	struct vq_state st;
	const struct guest_mem *mem;
	uint8_t *desc; /* NULL unless started */
	uint8_t *driver;
	uint8_t *device;
	uint64_t desc_gpa; /* packed: where they are for the guest */
	uint64_t device_gpa;
	const struct dirty_log *log; /* NULL: nobody asks what is written; the owner's to set */
};

/* Takes what of the negotiated features (a bit mask) concerns rings; only while stopped. */
void vq_set_features(struct vq *vq, uint64_t features);

/* -EINVAL: no size the standard allows for this kind of ring. */
int vq_check_size(bool packed, uint32_t size);

/*
 * Where to go on, in the form of vhost-user's vring state: split, the index; packed, the avail
 * position with its wrap counter in bit 15, the used one in the upper half.
 */
void vq_set_base(struct vq *vq, uint32_t base);
uint32_t vq_base(const struct vq *vq);

/* Where a ring stands that was never used. */
uint32_t vq_fresh_base(bool packed);

static inline bool vq_started(const struct vq *vq)
{
	return vq->desc;
}

/*
 * Resolves the ring's addresses in mem (kept; must stay valid until vq_stop). Clears an old error.
 * -EINVAL: size or alignment; -EFAULT: not in guest memory.
 */
int vq_start(struct vq *vq, const struct guest_mem *mem);

/*
 * As vq_start(), to go on with the state that a process has left that died while it served this
 * ring, in the same guest memory. The state must have been saved after each vq_push_prepare(), and
 * may have been saved at any other time between two calls. Publishes the push that was prepared
 * if it had not come to that, hands back what was popped and not pushed, and asks the driver anew
 * whether it wants to be told: vq_should_notify() answers as if nobody had told it ever. An error
 * is kept. -EINVAL also: a state that no ring of its size can be in.
 */
int vq_recover(struct vq *vq, const struct guest_mem *mem);

/*
 * Stops. What was popped and not pushed is handed back: it will be popped again when the ring is
 * started at vq_base().
 */
void vq_stop(struct vq *vq);

/* Resolves the addresses anew after a change of the memory table. Errors as vq_start; then stopped.
 */
int vq_remap(struct vq *vq);

/*
 * The next chain. 1: there is one, in *chain; 0: none; -EPROTO: the queue is, or was, broken (see
 * vq->st.error).
 */
int vq_pop(struct vq *vq, struct vq_chain *chain);

/* Takes the last pop back. */
void vq_unpop(struct vq *vq, uint16_t slots);

/* Returns a chain (by the id and slots it was popped with) of which `written` bytes were written.
 */
void vq_push(struct vq *vq, uint16_t id, uint16_t slots, uint32_t written);

/*
 * The same in two steps. The first touches vq->st only, where it notes what is to be done; the
 * second does it in guest memory, or nothing if nothing is prepared. Nothing else may be done with
 * the ring in between.
 */
void vq_push_prepare(struct vq *vq, uint16_t id, uint16_t slots, uint32_t written);
void vq_push_publish(struct vq *vq);

/* Shall the driver be told of what was pushed since the last call? */
bool vq_should_notify(struct vq *vq);

/*
 * Asks the driver for a kick when it next makes a buffer available. True if there is one already,
 * for which no kick may come: then go on popping.
 */
bool vq_enable_kicks(struct vq *vq);

/*
 * A number that stands for all that is in the ring's memory now; only while started. The same
 * twice, with the ring stopped in between, tells that nobody has touched it meanwhile.
 */
uint64_t vq_fingerprint(const struct vq *vq);

/* Marks the queue broken. */
void vq_break(struct vq *vq, enum vq_error error);

#endif
