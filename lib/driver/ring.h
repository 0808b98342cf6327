/* SPDX-License-Identifier: MIT */
/*
 * The driver side of a virtqueue, split or packed: buffers are made available and come back used.
 * For tests, benchmarks and small guests. It trusts the device with memory, as a guest has to, but
 * an id that the device makes up leads nowhere.
 *
 * Source: virtio 1.4 "Split Virtqueues", "Packed Virtqueues".
 */
#ifndef DRIVER_RING_H
#define DRIVER_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/ring.h"

/* Buffers in flight at once, at most; also the largest ring that is laid out. */
#define DRIVER_RING_MAX 256U

/* A stretch of guest memory. */
struct driver_buf {
	uint64_t gpa;
	uint32_t len;
};

struct driver_ring {
	bool packed;
	bool event_idx;
	uint16_t size;
	uint8_t *desc; /* the three areas, in the driver's own mapping */
	uint8_t *driver;
	uint8_t *device;

	uint16_t avail; /* split: free-running index; packed: slot */
	uint16_t used;
	bool avail_wrap; /* packed */
	bool used_wrap;
	uint16_t added;  /* slots made available since */
	uint16_t n_free; /* descriptors */
	uint16_t n_ids;  /* ids on the stack; split: each descriptor is its own id */
	uint16_t ids[DRIVER_RING_MAX];
	uint16_t slots[DRIVER_RING_MAX]; /* by id: descriptors that the buffer takes; 0: none out */
	bool broken;                     /* the device has returned what it did not have */
};

/* Bytes that a ring of that kind and size takes, all three areas, from a 16-byte boundary on. */
size_t driver_ring_bytes(bool packed, uint16_t size);

/* Where the driver and device areas begin in it; the descriptors are at 0. */
size_t driver_ring_driver_offset(uint16_t size);
size_t driver_ring_device_offset(bool packed, uint16_t size);

/* Lays a fresh ring out in zeroed memory. size: at most DRIVER_RING_MAX, for split a power of two.
 */
void driver_ring_init(struct driver_ring *r, bool packed, bool event_idx, uint16_t size,
		      uint8_t *mem);

/*
 * Makes a buffer of n pieces available, the first n_out of them to be read by the device, the
 * others to be written. Returns its id, or -ENOSPC.
 */
int driver_ring_add(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n,
		    uint16_t n_out);

/*
 * The same through an indirect table of n descriptors that the caller provides: at `table` here and
 * at table_gpa for the device. It must stay untouched until the buffer is used.
 */
int driver_ring_add_indirect(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n,
			     uint16_t n_out, uint8_t *table, uint64_t table_gpa);

/* Does the device want to hear of what was added since the last call? */
bool driver_ring_should_kick(struct driver_ring *r);

/* Is there a used buffer? */
bool driver_ring_has_used(const struct driver_ring *r);

/*
 * The next used buffer, in the device's order: true with its id and the bytes written to it. One
 * that the device did not have breaks the ring: then nothing comes from it any more.
 */
bool driver_ring_used(struct driver_ring *r, uint16_t *id, uint32_t *written);

/* Asks for a notification at the next used buffer. */
void driver_ring_enable_notify(struct driver_ring *r);

#endif
