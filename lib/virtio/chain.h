/* SPDX-License-Identifier: MIT */
/*
 * One popped descriptor chain, validated: what the device may read, as host addresses, then what it
 * may write. The only code that follows descriptors is chain_walk().
 */
#ifndef VIRTIO_CHAIN_H
#define VIRTIO_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/guest_mem.h"
#include "virtio/ring.h"

/*
 * Why a queue broke. The order is that of names in vq_error_name(); 0 is no error.
 */
enum vq_error {
	VQ_OK,
	VQ_ERR_INDEX,     /* more made available than the queue holds */
	VQ_ERR_HEAD,      /* head or next past the table */
	VQ_ERR_LOOP,      /* more descriptors than the table has */
	VQ_ERR_ADDRESS,   /* buffer not, or not wholly, in guest memory */
	VQ_ERR_LENGTH,    /* empty descriptor, or more than 2^32 bytes in one chain */
	VQ_ERR_DIRECTION, /* readable behind writable, or the wrong kind for this queue */
	VQ_ERR_INDIRECT,  /* not negotiated, nested, bad length, or with NEXT */
	VQ_ERR_SEGMENTS,  /* spread over more pieces than are kept */
	VQ_ERR_CRASH,     /* the device has died of it, again and again */
	VQ_ERR_COUNT,
};

const char *vq_error_name(enum vq_error error);

/* As many as the longest chain the standard allows has descriptors. */
#define CHAIN_MAX_SEGS VRING_SIZE_MAX

struct chain_seg {
	uint8_t *host;
	uint64_t len;
};

/*
 * Large (512 KiB) and meant to be static: pages that no chain needs are never touched.
 */
struct vq_chain {
	uint16_t id;    /* head index, or the buffer id of a packed ring */
	uint16_t slots; /* ring slots it takes: 1 on a split ring */
	uint32_t n_read;
	uint32_t n_write;
	uint64_t read_bytes;
	uint64_t write_bytes;
	struct chain_seg seg[CHAIN_MAX_SEGS]; /* n_read readable ones, then n_write writable ones */
};

/* A table of descriptors, and how one leads to the next. */
struct desc_table {
	const uint8_t *base;
	uint32_t size; /* entries */
	enum desc_layout {
		DESC_SPLIT,           /* field `next`, if NEXT is set */
		DESC_PACKED_RING,     /* the following slot, if NEXT is set */
		DESC_PACKED_INDIRECT, /* the following entry, to the table's end */
	} layout;
	uint16_t avail_flags; /* packed ring: AVAIL and USED bits of an available slot before the
				 wrap */
};

/*
 * Walks the chain at `head` and fills *chain but for id (split: sets it to head; packed ring: to
 * the last descriptor's id). Every descriptor is read once. What is in *chain after an error is
 * meaningless.
 */
enum vq_error chain_walk(struct vq_chain *chain, const struct guest_mem *mem,
			 const struct desc_table *table, uint32_t head, bool indirect_ok);

/* A place in the readable part of a chain. Zeroed, it is the beginning. */
struct chain_cursor {
	uint32_t seg;
	uint64_t offset; /* within seg */
};

/* Copies up to len bytes out and moves on; returns how many there were. */
size_t chain_read(const struct vq_chain *chain, struct chain_cursor *at, void *dst, size_t len);

/* Moves on by len bytes, or to the end. */
void chain_skip(const struct vq_chain *chain, struct chain_cursor *at, uint64_t len);

#endif
