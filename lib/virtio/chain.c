// SPDX-License-Identifier: MIT
/*
 * Following descriptors that the guest wrote, and may be rewriting at this moment.
 *
 * Each descriptor is copied into a local once, and only the copy is looked at. The walk ends by
 * itself: a table of n entries cannot give more than n descriptors without one being used twice.
 */
#include "virtio/chain.h"

#include <string.h>

#include "base/checked.h"
#include "base/le.h"

#define CHAIN_MAX_BYTES (1ULL << 32)

static const char *const vq_error_names[] = {
	[VQ_OK] = "none",
	[VQ_ERR_INDEX] = "avail-index",
	[VQ_ERR_HEAD] = "descriptor-index",
	[VQ_ERR_LOOP] = "descriptor-loop",
	[VQ_ERR_ADDRESS] = "buffer-address",
	[VQ_ERR_LENGTH] = "buffer-length",
	[VQ_ERR_DIRECTION] = "buffer-direction",
	[VQ_ERR_INDIRECT] = "indirect-table",
	[VQ_ERR_SEGMENTS] = "too-many-segments",
	[VQ_ERR_CRASH] = "crashed-the-device",
};
static_assert(sizeof(vq_error_names) / sizeof(vq_error_names[0]) == VQ_ERR_COUNT,
	      "a name for every error");

const char *vq_error_name(enum vq_error error)
{
	return vq_error_names[error];
}

/* A descriptor of either layout, in host byte order. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next; /* split */
	uint16_t id;   /* packed */
};

static struct desc read_desc(const struct desc_table *table, uint32_t index)
{
	uint8_t raw[VRING_DESC_SIZE];
	bool split = table->layout == DESC_SPLIT;

	memcpy(raw, table->base + (size_t)index * VRING_DESC_SIZE, sizeof(raw));
	return (struct desc){
		.addr = le64_get(raw),
		.len = le32_get(raw + offsetof(struct vring_desc, len)),
		.flags = le16_get(raw + (split ? offsetof(struct vring_desc, flags)
					       : offsetof(struct vring_packed_desc, flags))),
		.next = le16_get(raw + offsetof(struct vring_desc, next)),
		.id = le16_get(raw + offsetof(struct vring_packed_desc, id)),
	};
}

/* Adds one buffer, in as many pieces as it touches adjacent regions. */
static enum vq_error add_buffer(struct vq_chain *chain, const struct guest_mem *mem,
				const struct desc *d)
{
	uint64_t addr = d->addr, left = d->len;
	bool writable = d->flags & VRING_DESC_F_WRITE;

	if (!left || chain->read_bytes + chain->write_bytes + left > CHAIN_MAX_BYTES)
		return VQ_ERR_LENGTH;
	if (!writable && chain->n_write)
		return VQ_ERR_DIRECTION;
	*(writable ? &chain->write_bytes : &chain->read_bytes) += left;

	while (left) {
		uint32_t n = chain->n_read + chain->n_write;
		uint64_t len = left;
		uint8_t *host = guest_mem_gpa(mem, addr, &len);

		if (!host)
			return VQ_ERR_ADDRESS;
		if (n == CHAIN_MAX_SEGS)
			return VQ_ERR_SEGMENTS;
		chain->seg[n] = (struct chain_seg){host, len};
		*(writable ? &chain->n_write : &chain->n_read) += 1;
		left -= len;
		if (left && !checked_add(addr, len, &addr))
			return VQ_ERR_ADDRESS;
	}
	return VQ_OK;
}

/* The table that an INDIRECT descriptor names. It must lie in one region: it is one buffer. */
static enum vq_error indirect_table(const struct guest_mem *mem, const struct desc *d,
				    enum desc_layout outer, struct desc_table *table)
{
	uint64_t len = d->len;
	uint8_t *host;

	if (!len || len % VRING_DESC_SIZE || len / VRING_DESC_SIZE > VRING_SIZE_MAX ||
	    d->flags & VRING_DESC_F_NEXT)
		return VQ_ERR_INDIRECT;
	host = guest_mem_gpa(mem, d->addr, &len);
	if (!host || len != d->len)
		return VQ_ERR_ADDRESS;
	*table = (struct desc_table){
		.base = host,
		.size = d->len / VRING_DESC_SIZE,
		.layout = outer == DESC_SPLIT ? DESC_SPLIT : DESC_PACKED_INDIRECT,
	};
	return VQ_OK;
}

/* Has the slot behind the first one, `index`, of a packed chain been made available too? */
static bool slot_available(const struct desc_table *table, uint32_t head, uint32_t index,
			   const struct desc *d)
{
	uint16_t both = VRING_DESC_F_AVAIL | VRING_DESC_F_USED;
	uint16_t expected = index < head ? table->avail_flags ^ both : table->avail_flags;

	return (d->flags & both) == expected;
}

enum vq_error chain_walk(struct vq_chain *chain, const struct guest_mem *mem,
			 const struct desc_table *ring, uint32_t head, bool indirect_ok)
{
	const struct desc_table *table = ring;
	struct desc_table inner;
	uint32_t index = head, steps = 0;

	chain->n_read = chain->n_write = 0;
	chain->read_bytes = chain->write_bytes = 0;
	chain->id = (uint16_t)head;
	chain->slots = 1;

	for (;;) {
		enum vq_error err;
		struct desc d;
		bool more;

		if (index >= table->size)
			return VQ_ERR_HEAD;
		if (steps++ == table->size)
			return VQ_ERR_LOOP;
		d = read_desc(table, index);

		if (table->layout == DESC_PACKED_RING) {
			if (!slot_available(table, head, index, &d))
				return VQ_ERR_HEAD;
			chain->id = d.id;
			chain->slots = (uint16_t)steps;
		}
		/* The standard leaves the flag without meaning in a packed indirect table. */
		if (d.flags & VRING_DESC_F_INDIRECT && table->layout != DESC_PACKED_INDIRECT) {
			if (table != ring || !indirect_ok)
				return VQ_ERR_INDIRECT;
			err = indirect_table(mem, &d, ring->layout, &inner);
			if (err)
				return err;
			table = &inner;
			index = steps = 0;
			continue;
		}
		err = add_buffer(chain, mem, &d);
		if (err)
			return err;

		switch (table->layout) {
		case DESC_SPLIT:
			more = d.flags & VRING_DESC_F_NEXT;
			index = d.next;
			break;
		case DESC_PACKED_RING:
			more = d.flags & VRING_DESC_F_NEXT;
			index = index + 1 == table->size ? 0 : index + 1;
			break;
		case DESC_PACKED_INDIRECT:
		default:
			index++;
			more = index < table->size;
			break;
		}
		if (!more)
			return VQ_OK;
	}
}

size_t chain_read(const struct vq_chain *chain, struct chain_cursor *at, void *dst, size_t len)
{
	size_t done = 0;

	while (done < len && at->seg < chain->n_read) {
		const struct chain_seg *seg = &chain->seg[at->seg];
		size_t part = (size_t)min_u64(len - done, seg->len - at->offset);

		memcpy((uint8_t *)dst + done, seg->host + at->offset, part);
		done += part;
		at->offset += part;
		if (at->offset == seg->len) {
			at->seg++;
			at->offset = 0;
		}
	}
	return done;
}

void chain_skip(const struct vq_chain *chain, struct chain_cursor *at, uint64_t len)
{
	while (len && at->seg < chain->n_read) {
		uint64_t part = min_u64(len, chain->seg[at->seg].len - at->offset);

		len -= part;
		at->offset += part;
		if (at->offset == chain->seg[at->seg].len) {
			at->seg++;
			at->offset = 0;
		}
	}
}
