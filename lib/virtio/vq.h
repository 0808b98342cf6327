/* SPDX-License-Identifier: MIT */
/*
 * The device side of a virtqueue, split or packed, behind one interface:
 *
 *     vq_start -> { vq_pop -> (serve) -> vq_push }* -> vq_should_notify -> ... -> vq_stop
 *
 * Sources: virtio 1.4 "Split Virtqueues", "Packed Virtqueues"; for vq_set_base, vq_base the
 * vhost-user specification, "Vring state".
 */
#ifndef VIRTIO_VQ_H
#define VIRTIO_VQ_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/chain.h"
#include "virtio/guest_mem.h"

/*
 * All that must outlive this process, without pointers. A split ring counts positions modulo 2^16,
 * a packed one by slot and wrap counter.
 */
struct vq_state {
	uint32_t size; /* entries; 0: not set */
	uint64_t desc_uaddr;
	uint64_t driver_uaddr; /* split: avail ring; packed: driver event suppression */
	uint64_t device_uaddr; /* split: used ring; packed: device event suppression */
	bool packed;
	bool event_idx;
	bool indirect;
	bool avail_wrap;      /* packed */
	bool used_wrap;       /* packed */
	uint16_t avail;       /* next to pop */
	uint16_t used;        /* next to push */
	uint16_t in_use;      /* ring slots popped and not yet pushed */
	uint16_t unsignalled; /* slots pushed since the driver was last looked at */
	bool signalled_before;
	bool served;         /* something was returned since vq_set_base() */
	enum vq_error error; /* not VQ_OK: the queue is broken until it is started anew */
};

struct vq {
	struct vq_state st;
	const struct guest_mem *mem;
	uint8_t *desc; /* NULL unless started */
	uint8_t *driver;
	uint8_t *device;
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
