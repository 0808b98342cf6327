/* SPDX-License-Identifier: MIT */
/*
 * The layout of split and packed virtqueues (virtio 1.4, sections "Split Virtqueues" and "Packed
 * Virtqueues") and the transport's feature bits. All fields little-endian.
 */
#ifndef VIRTIO_RING_H
#define VIRTIO_RING_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_F_RING_PACKED   34

#define VRING_SIZE_MAX 32768U

#define VRING_DESC_F_NEXT     (1U << 0)
#define VRING_DESC_F_WRITE    (1U << 1)
#define VRING_DESC_F_INDIRECT (1U << 2)
/* packed only */
#define VRING_DESC_F_AVAIL (1U << 7)
#define VRING_DESC_F_USED  (1U << 15)

#define VRING_AVAIL_F_NO_INTERRUPT 1U
#define VRING_USED_F_NO_NOTIFY     1U

/* The event suppression structure of packed rings. */
#define VRING_EVENT_F_ENABLE  0U
#define VRING_EVENT_F_DISABLE 1U
#define VRING_EVENT_F_DESC    2U /* only with EVENT_IDX: at the descriptor that off_wrap names */

#define VRING_WRAP_BIT 15U

struct vring_desc {
	uint64_t addr; /* GPA */
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct vring_packed_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t id;
	uint16_t flags;
};

struct vring_packed_event {
	uint16_t off_wrap;
	uint16_t flags;
};

static_assert(sizeof(struct vring_desc) == 16, "virtio: split descriptor");
static_assert(sizeof(struct vring_packed_desc) == 16, "virtio: packed descriptor");
static_assert(offsetof(struct vring_packed_desc, flags) == 14, "virtio: packed descriptor flags");
static_assert(sizeof(struct vring_packed_event) == 4, "virtio: event suppression");

#define VRING_DESC_SIZE 16U

/* Byte offsets in the split ring's driver (avail) and device (used) areas. */
#define VRING_AVAIL_FLAGS      0U
#define VRING_AVAIL_IDX        2U
#define VRING_AVAIL_RING(i)    (4U + 2U * (i))
#define VRING_AVAIL_BYTES(num) (6U + 2U * (num)) /* with used_event behind the ring */
#define VRING_USED_FLAGS       0U
#define VRING_USED_IDX         2U
#define VRING_USED_RING(i)     (4U + 8U * (i))
#define VRING_USED_BYTES(num)  (6U + 8U * (num)) /* with avail_event behind the ring */

/*
 * Did an index that moved from old_idx to new_idx pass event? All modulo 2^16. Source: virtio,
 * "Used Buffer Notification Suppression", the condition given there for event indices.
 */
static inline int vring_need_event(uint16_t event, uint16_t new_idx, uint16_t old_idx)
{
	return (uint16_t)(new_idx - event - 1) < (uint16_t)(new_idx - old_idx);
}

/*
 * The other side of a ring runs at the same time. A load of what it publishes comes before anything
 * that this makes visible is read, a store that publishes comes after all that it makes visible.
 */
static inline uint16_t vring_load16(const uint8_t *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE));
}

static inline void vring_store16(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)p, htole16(v), __ATOMIC_RELEASE);
}

/* Between a store for the other side and looking at what it has stored meanwhile. */
static inline void vring_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
