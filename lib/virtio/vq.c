// SPDX-License-Identifier: MIT
/*
 * Both kinds of ring. The split one is a pair of free-running indices into two arrays; the packed
 * one a single array of slots whose AVAIL and USED flags say, relative to a wrap counter, whose
 * turn it is. What differs stands in the functions split_* and packed_*, chosen by st.packed.
 *
 * The driver runs concurrently. An acquire load of the index (split) or flags (packed) comes before
 * anything that it publishes is read, a release store publishes what is written; a full fence
 * stands between asking for kicks and looking for buffers, and between publishing used buffers and
 * looking whether the driver wants to hear of them.
 */
#include "virtio/vq.h"

#include <errno.h>

#include "base/checked.h"
#include "base/le.h"

void vq_set_features(struct vq *vq, uint64_t features)
{
	vq->st.packed = features >> VIRTIO_F_RING_PACKED & 1;
	vq->st.event_idx = features >> VIRTIO_F_EVENT_IDX & 1;
	vq->st.indirect = features >> VIRTIO_F_INDIRECT_DESC & 1;
}

int vq_check_size(bool packed, uint32_t size)
{
	if (!size || size > VRING_SIZE_MAX || (!packed && !is_power_of_two(size)))
		return -EINVAL;
	return 0;
}

uint32_t vq_fresh_base(bool packed)
{
	/* Positions 0, wrap counters 1. */
	return packed ? 0x80008000U : 0;
}

void vq_set_base(struct vq *vq, uint32_t base)
{
	if (vq->st.packed) {
		vq->st.avail_wrap = base >> VRING_WRAP_BIT & 1;
		vq->st.used_wrap = base >> (16 + VRING_WRAP_BIT) & 1;
		vq->st.avail = base & 0x7fff;
		vq->st.used = base >> 16 & 0x7fff;
	} else {
		vq->st.avail = vq->st.used = (uint16_t)base;
	}
	vq->st.in_use = 0;
	vq->st.unsignalled = 0;
	vq->st.signalled_before = false;
	vq->st.served = false;
	vq->st.pushing = 0;
}

uint32_t vq_base(const struct vq *vq)
{
	const struct vq_state *st = &vq->st;

	if (!st->packed)
		return st->avail;
	return (uint32_t)st->avail | (uint32_t)st->avail_wrap << VRING_WRAP_BIT |
	       (uint32_t)st->used << 16 | (uint32_t)st->used_wrap << (16 + VRING_WRAP_BIT);
}

static int resolve(const struct guest_mem *mem, uint64_t uaddr, uint64_t len, uint64_t align,
		   uint8_t **host)
{
	if (uaddr % align)
		return -EINVAL;
	*host = guest_mem_uaddr(mem, uaddr, len);
	/* A front end may map its memory at any address; here alignment must hold as well. */
	if (!*host || (uintptr_t)*host % align)
		return -EFAULT;
	return 0;
}

static uint64_t driver_bytes(const struct vq_state *st)
{
	return st->packed ? sizeof(struct vring_packed_event)
			  : VRING_AVAIL_BYTES((uint64_t)st->size);
}

static uint64_t device_bytes(const struct vq_state *st)
{
	return st->packed ? sizeof(struct vring_packed_event)
			  : VRING_USED_BYTES((uint64_t)st->size);
}

/* Is it a state that a ring of that size can be in? */
static bool is_possible(const struct vq_state *st)
{
	if (vq_check_size(st->packed, st->size) < 0)
		return false;
	if (st->packed && (st->avail >= st->size || st->used >= st->size))
		return false;
	return st->in_use <= st->size && st->pushing <= st->size;
}

/* Resolves the ring's addresses; nothing is changed if that fails. */
static int attach(struct vq *vq, const struct guest_mem *mem)
{
	const struct vq_state *st = &vq->st;
	uint64_t size = st->size;
	uint8_t *desc, *driver, *device;
	int r = is_possible(st) ? 0 : -EINVAL;

	if (!r)
		r = resolve(mem, st->desc_uaddr, size * VRING_DESC_SIZE, 16, &desc);
	if (!r)
		r = resolve(mem, st->driver_uaddr, driver_bytes(st), st->packed ? 4 : 2, &driver);
	if (!r)
		r = resolve(mem, st->device_uaddr, device_bytes(st), 4, &device);
	if (r)
		return r;
	vq->mem = mem;
	vq->desc = desc;
	vq->driver = driver;
	vq->device = device;
	vq->desc_gpa = guest_mem_uaddr_gpa(mem, st->desc_uaddr);
	vq->device_gpa = guest_mem_uaddr_gpa(mem, st->device_uaddr);
	return 0;
}

int vq_start(struct vq *vq, const struct guest_mem *mem)
{
	int r = attach(vq, mem);

	if (!r)
		vq->st.error = VQ_OK;
	return r;
}

/* Moves a packed position by n slots, n at most the ring's size. */
static void packed_forward(const struct vq *vq, uint16_t *pos, bool *wrap, uint16_t n)
{
	uint32_t next = (uint32_t)*pos + n;

	if (next >= vq->st.size) {
		next -= vq->st.size;
		*wrap = !*wrap;
	}
	*pos = (uint16_t)next;
}

void vq_unpop(struct vq *vq, uint16_t slots)
{
	struct vq_state *st = &vq->st;

	st->in_use = (uint16_t)(st->in_use - slots);
	if (!st->packed) {
		st->avail = (uint16_t)(st->avail - slots);
		return;
	}
	if (slots > st->avail) {
		st->avail = (uint16_t)(st->avail + st->size - slots);
		st->avail_wrap = !st->avail_wrap;
	} else {
		st->avail = (uint16_t)(st->avail - slots);
	}
}

void vq_stop(struct vq *vq)
{
	vq->st.pushing = 0;
	if (vq->st.in_use)
		vq_unpop(vq, vq->st.in_use);
	vq->desc = vq->driver = vq->device = NULL;
	vq->mem = NULL;
}

int vq_remap(struct vq *vq)
{
	int r = attach(vq, vq->mem);

	if (r)
		vq_stop(vq);
	return r;
}

void vq_break(struct vq *vq, enum vq_error error)
{
	if (vq->st.error == VQ_OK)
		vq->st.error = error;
}

/* How many chains the driver has made available that were not popped yet. */
static uint16_t split_pending(const struct vq *vq)
{
	return (uint16_t)(vring_load16(vq->driver + VRING_AVAIL_IDX) - vq->st.avail);
}

static enum vq_error split_pop(struct vq *vq, struct vq_chain *chain)
{
	struct vq_state *st = &vq->st;
	struct desc_table table = {.base = vq->desc, .size = st->size, .layout = DESC_SPLIT};
	uint16_t head;

	if ((uint32_t)split_pending(vq) + st->in_use > st->size)
		return VQ_ERR_INDEX;
	head = vring_load16(vq->driver + VRING_AVAIL_RING(st->avail & (st->size - 1)));
	return chain_walk(chain, vq->mem, &table, head, st->indirect);
}

static uint16_t packed_avail_flags(bool wrap)
{
	return wrap ? VRING_DESC_F_AVAIL : VRING_DESC_F_USED;
}

static uint8_t *packed_flags(const struct vq *vq, uint16_t slot)
{
	return vq->desc + (size_t)slot * VRING_DESC_SIZE +
	       offsetof(struct vring_packed_desc, flags);
}

static bool packed_pending(const struct vq *vq)
{
	uint16_t flags = vring_load16(packed_flags(vq, vq->st.avail));

	/* A full ring must not be read again as if the driver had refilled it. */
	if (vq->st.in_use >= vq->st.size)
		return false;
	return (flags & (VRING_DESC_F_AVAIL | VRING_DESC_F_USED)) ==
	       packed_avail_flags(vq->st.avail_wrap);
}

static enum vq_error packed_pop(struct vq *vq, struct vq_chain *chain)
{
	struct vq_state *st = &vq->st;
	struct desc_table table = {.base = vq->desc,
				   .size = st->size,
				   .layout = DESC_PACKED_RING,
				   .avail_flags = packed_avail_flags(st->avail_wrap)};
	enum vq_error err = chain_walk(chain, vq->mem, &table, st->avail, st->indirect);

	if (!err && (uint32_t)chain->slots + st->in_use > st->size)
		return VQ_ERR_INDEX;
	return err;
}

static bool pending(const struct vq *vq)
{
	return vq->st.packed ? packed_pending(vq) : split_pending(vq) != 0;
}

int vq_pop(struct vq *vq, struct vq_chain *chain)
{
	struct vq_state *st = &vq->st;

	if (st->error)
		return -EPROTO;
	if (!pending(vq))
		return 0;
	st->error = st->packed ? packed_pop(vq, chain) : split_pop(vq, chain);
	if (st->error)
		return -EPROTO;
	st->in_use = (uint16_t)(st->in_use + chain->slots);
	if (st->packed)
		packed_forward(vq, &st->avail, &st->avail_wrap, chain->slots);
	else
		st->avail++;
	return 1;
}

/* Marks what was written to the used ring, if that is wanted. */
static void split_log(const struct vq *vq, uint64_t offset, uint64_t len)
{
	if (vq->st.log_used)
		dirty_log_mark(vq->log, vq->st.log_gpa + offset, len);
}

/* The entry of the push that was prepared; its number modulo the ring's size. */
static size_t split_push_entry(const struct vq_state *st)
{
	return VRING_USED_RING((size_t)(uint16_t)(st->used - 1) & (st->size - 1));
}

static void split_publish(struct vq *vq)
{
	const struct vq_state *st = &vq->st;
	uint8_t *entry = vq->device + split_push_entry(st);

	le32_put(entry, st->push_id);
	le32_put(entry + 4, st->push_written);
	vring_store16(vq->device + VRING_USED_IDX, st->used);
}

static bool split_published(const struct vq *vq)
{
	return vring_load16(vq->device + VRING_USED_IDX) == vq->st.used;
}

static void split_log_push(const struct vq *vq)
{
	split_log(vq, split_push_entry(&vq->st), 8);
	split_log(vq, VRING_USED_IDX, 2);
}

/* The slot of the push that was prepared, and the wrap counter of the slot's lap. */
static uint16_t packed_push_slot(const struct vq_state *st, bool *wrap)
{
	bool wrapped = st->used < st->pushing;

	*wrap = st->used_wrap != wrapped;
	return (uint16_t)(st->used + (wrapped ? st->size : 0) - st->pushing);
}

static void packed_publish(struct vq *vq)
{
	const struct vq_state *st = &vq->st;
	bool wrap;
	uint16_t slot = packed_push_slot(st, &wrap);
	uint16_t flags = wrap ? VRING_DESC_F_AVAIL | VRING_DESC_F_USED : 0;
	uint8_t *entry = vq->desc + (size_t)slot * VRING_DESC_SIZE;

	le32_put(entry + offsetof(struct vring_packed_desc, len), st->push_written);
	le16_put(entry + offsetof(struct vring_packed_desc, id), st->push_id);
	if (st->push_written)
		flags |= VRING_DESC_F_WRITE;
	vring_store16(entry + offsetof(struct vring_packed_desc, flags), flags);
}

/*
 * A slot that is available in a lap has there the opposite of the wrap counter as its USED flag;
 * from its return on it has the wrap counter itself, also when the driver has made it available
 * again in the next lap. What ends that is the next return at that slot, a lap later.
 */
static bool packed_published(const struct vq *vq)
{
	bool wrap;
	uint16_t slot = packed_push_slot(&vq->st, &wrap);

	return !(vring_load16(packed_flags(vq, slot)) & VRING_DESC_F_USED) == !wrap;
}

static void packed_log_push(const struct vq *vq)
{
	bool wrap;
	uint16_t slot = packed_push_slot(&vq->st, &wrap);

	dirty_log_mark(vq->log, vq->desc_gpa + (uint64_t)slot * VRING_DESC_SIZE, VRING_DESC_SIZE);
}

void vq_push_prepare(struct vq *vq, uint16_t id, uint16_t slots, uint32_t written)
{
	struct vq_state *st = &vq->st;

	st->push_id = id;
	st->push_written = written;
	st->pushing = slots;
	if (st->packed)
		packed_forward(vq, &st->used, &st->used_wrap, slots);
	else
		st->used++;
	st->in_use = (uint16_t)(st->in_use - slots);
	st->unsignalled = (uint16_t)(st->unsignalled + slots);
	st->served = true;
}

/* What is behind a prepared push, published or not: the front end has to hear of it. */
static void end_push(struct vq *vq)
{
	if (vq->st.packed)
		packed_log_push(vq);
	else
		split_log_push(vq);
	vq->st.pushing = 0;
}

void vq_push_publish(struct vq *vq)
{
	if (!vq->st.pushing)
		return;
	if (vq->st.packed)
		packed_publish(vq);
	else
		split_publish(vq);
	end_push(vq);
}

void vq_push(struct vq *vq, uint16_t id, uint16_t slots, uint32_t written)
{
	vq_push_prepare(vq, id, slots, written);
	vq_push_publish(vq);
}

int vq_recover(struct vq *vq, const struct guest_mem *mem)
{
	struct vq_state *st = &vq->st;
	int r = attach(vq, mem);

	if (r)
		return r;
	if (st->pushing && (st->packed ? packed_published(vq) : split_published(vq)))
		end_push(vq); /* what it wrote may not have been marked */
	else
		vq_push_publish(vq);
	if (st->in_use)
		vq_unpop(vq, st->in_use);
	/* Whether the driver was told of the last ones is not known. */
	st->signalled_before = false;
	if (!st->unsignalled)
		st->unsignalled = 1;
	return 0;
}

static bool split_should_notify(const struct vq *vq)
{
	const struct vq_state *st = &vq->st;

	if (!st->event_idx)
		return !(vring_load16(vq->driver + VRING_AVAIL_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
	if (!st->signalled_before)
		return true;
	return vring_need_event(vring_load16(vq->driver + VRING_AVAIL_RING(st->size)), st->used,
				(uint16_t)(st->used - st->unsignalled));
}

static bool packed_should_notify(const struct vq *vq)
{
	const struct vq_state *st = &vq->st;
	uint16_t flags = vring_load16(vq->driver + offsetof(struct vring_packed_event, flags)) & 3;
	uint16_t off_wrap =
		vring_load16(vq->driver + offsetof(struct vring_packed_event, off_wrap));
	uint16_t event = off_wrap & 0x7fff;

	if (flags == VRING_EVENT_F_DISABLE)
		return false;
	if (flags != VRING_EVENT_F_DESC || !st->event_idx || !st->signalled_before)
		return true;
	/* An event in the previous lap lies before every position of this one. */
	if ((off_wrap >> VRING_WRAP_BIT & 1) != st->used_wrap)
		event = (uint16_t)(event - st->size);
	return vring_need_event(event, st->used, (uint16_t)(st->used - st->unsignalled));
}

bool vq_should_notify(struct vq *vq)
{
	struct vq_state *st = &vq->st;
	bool notify;

	if (!st->unsignalled)
		return false;
	vring_fence();
	notify = st->packed ? packed_should_notify(vq) : split_should_notify(vq);
	st->unsignalled = 0;
	st->signalled_before = true;
	return notify;
}

static void split_enable_kicks(struct vq *vq)
{
	const struct vq_state *st = &vq->st;
	size_t event = VRING_USED_RING((size_t)st->size);

	if (st->event_idx) {
		vring_store16(vq->device + event, st->avail);
		split_log(vq, event, 2);
	} else {
		vring_store16(vq->device + VRING_USED_FLAGS, 0);
		split_log(vq, VRING_USED_FLAGS, 2);
	}
}

static void packed_enable_kicks(struct vq *vq)
{
	const struct vq_state *st = &vq->st;

	if (st->event_idx)
		vring_store16(vq->device + offsetof(struct vring_packed_event, off_wrap),
			      (uint16_t)(st->avail | st->avail_wrap << VRING_WRAP_BIT));
	vring_store16(vq->device + offsetof(struct vring_packed_event, flags),
		      st->event_idx ? VRING_EVENT_F_DESC : VRING_EVENT_F_ENABLE);
	dirty_log_mark(vq->log, vq->device_gpa, sizeof(struct vring_packed_event));
}

bool vq_enable_kicks(struct vq *vq)
{
	if (vq->st.error)
		return false;
	if (vq->st.packed)
		packed_enable_kicks(vq);
	else
		split_enable_kicks(vq);
	vring_fence();
	return pending(vq);
}

/* FNV-1a, eight bits at a time as its authors give it. */
static uint64_t hash(uint64_t h, const uint8_t *p, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h;
}

uint64_t vq_fingerprint(const struct vq *vq)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	h = hash(h, vq->desc, (uint64_t)vq->st.size * VRING_DESC_SIZE);
	h = hash(h, vq->driver, driver_bytes(&vq->st));
	return hash(h, vq->device, device_bytes(&vq->st));
}
