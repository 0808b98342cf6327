// SPDX-License-Identifier: MIT
#include "driver/ring.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"

size_t driver_ring_driver_offset(uint16_t size)
{
	return (size_t)size * VRING_DESC_SIZE;
}

size_t driver_ring_device_offset(bool packed, uint16_t size)
{
	size_t driver =
		packed ? sizeof(struct vring_packed_event) : VRING_AVAIL_BYTES((size_t)size);

	return align_up(driver_ring_driver_offset(size) + driver, 4);
}

size_t driver_ring_bytes(bool packed, uint16_t size)
{
	return driver_ring_device_offset(packed, size) +
	       (packed ? sizeof(struct vring_packed_event) : VRING_USED_BYTES((size_t)size));
}

void driver_ring_init(struct driver_ring *r, bool packed, bool event_idx, uint16_t size,
		      uint8_t *mem)
{
	*r = (struct driver_ring){
		.packed = packed,
		.event_idx = event_idx,
		.size = size,
		.desc = mem,
		.driver = mem + driver_ring_driver_offset(size),
		.device = mem + driver_ring_device_offset(packed, size),
		.avail_wrap = true,
		.used_wrap = true,
		.n_free = size,
		.n_ids = size,
	};
	for (uint16_t i = 0; i < size; i++)
		r->ids[i] = (uint16_t)(size - 1 - i);
}

static void write_split(uint8_t *entry, const struct driver_buf *buf, uint16_t flags, uint16_t next)
{
	le64_put(entry, buf->gpa);
	le32_put(entry + offsetof(struct vring_desc, len), buf->len);
	le16_put(entry + offsetof(struct vring_desc, flags), flags);
	le16_put(entry + offsetof(struct vring_desc, next), next);
}

/* Writes all but the flags. */
static void write_packed(uint8_t *entry, const struct driver_buf *buf, uint16_t id)
{
	le64_put(entry, buf->gpa);
	le32_put(entry + offsetof(struct vring_packed_desc, len), buf->len);
	le16_put(entry + offsetof(struct vring_packed_desc, id), id);
}

static uint16_t buf_flags(uint16_t i, uint16_t n, uint16_t n_out)
{
	return (uint16_t)((i + 1 < n ? VRING_DESC_F_NEXT : 0) |
			  (i >= n_out ? VRING_DESC_F_WRITE : 0));
}

static uint16_t add_split(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n,
			  uint16_t n_out, uint16_t extra)
{
	uint16_t head = r->ids[r->n_ids - 1], id = head;

	for (uint16_t i = 0; i < n; i++) {
		uint16_t next = i + 1 < n ? r->ids[r->n_ids - 2 - i] : 0;

		write_split(r->desc + (size_t)id * VRING_DESC_SIZE, &bufs[i],
			    buf_flags(i, n, n_out) | extra, next);
		id = next;
	}
	r->n_ids = (uint16_t)(r->n_ids - n);
	le16_put(r->driver + VRING_AVAIL_RING((size_t)r->avail & (r->size - 1U)), head);
	r->avail++;
	vring_store16(r->driver + VRING_AVAIL_IDX, r->avail);
	r->added++;
	return head;
}

static uint16_t add_packed(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n,
			   uint16_t n_out, uint16_t extra)
{
	uint16_t id = r->ids[--r->n_ids], slot = r->avail, first_flags = 0;
	bool wrap = r->avail_wrap;

	for (uint16_t i = 0; i < n; i++) {
		uint8_t *entry = r->desc + (size_t)slot * VRING_DESC_SIZE;
		uint16_t flags = (uint16_t)(buf_flags(i, n, n_out) | extra |
					    (wrap ? VRING_DESC_F_AVAIL : VRING_DESC_F_USED));

		write_packed(entry, &bufs[i], id);
		if (i == 0)
			first_flags = flags;
		else
			vring_store16(entry + offsetof(struct vring_packed_desc, flags), flags);
		if (++slot == r->size) {
			slot = 0;
			wrap = !wrap;
		}
	}
	vring_store16(r->desc + (size_t)r->avail * VRING_DESC_SIZE +
			      offsetof(struct vring_packed_desc, flags),
		      first_flags);
	r->avail = slot;
	r->avail_wrap = wrap;
	r->added = (uint16_t)(r->added + n);
	return id;
}

static int add(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n, uint16_t n_out,
	       uint16_t extra)
{
	uint16_t id;

	if (!n || n > r->n_free)
		return -ENOSPC;
	id = r->packed ? add_packed(r, bufs, n, n_out, extra) : add_split(r, bufs, n, n_out, extra);
	r->slots[id] = n;
	r->n_free = (uint16_t)(r->n_free - n);
	return id;
}

int driver_ring_add(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n,
		    uint16_t n_out)
{
	return add(r, bufs, n, n_out, 0);
}

int driver_ring_add_indirect(struct driver_ring *r, const struct driver_buf *bufs, uint16_t n,
			     uint16_t n_out, uint8_t *table, uint64_t table_gpa)
{
	struct driver_buf outer = {table_gpa, (uint32_t)n * VRING_DESC_SIZE};

	for (uint16_t i = 0; i < n; i++) {
		uint8_t *entry = table + (size_t)i * VRING_DESC_SIZE;
		uint16_t flags = buf_flags(i, n, n_out);

		if (!r->packed) {
			write_split(entry, &bufs[i], flags, (uint16_t)(i + 1));
			continue;
		}
		write_packed(entry, &bufs[i], 0);
		le16_put(entry + offsetof(struct vring_packed_desc, flags),
			 flags & VRING_DESC_F_WRITE);
	}
	return add(r, &outer, 1, 1, VRING_DESC_F_INDIRECT);
}

bool driver_ring_should_kick(struct driver_ring *r)
{
	uint16_t added = r->added, event, flags;

	if (!added)
		return false;
	r->added = 0;
	vring_fence();
	if (!r->packed) {
		if (!r->event_idx)
			return !(vring_load16(r->device + VRING_USED_FLAGS) &
				 VRING_USED_F_NO_NOTIFY);
		event = vring_load16(r->device + VRING_USED_RING((size_t)r->size));
		return vring_need_event(event, r->avail, (uint16_t)(r->avail - added));
	}
	flags = vring_load16(r->device + offsetof(struct vring_packed_event, flags)) & 3;
	if (flags != VRING_EVENT_F_DESC || !r->event_idx)
		return flags != VRING_EVENT_F_DISABLE;
	event = vring_load16(r->device + offsetof(struct vring_packed_event, off_wrap));
	if ((event >> VRING_WRAP_BIT & 1) != r->avail_wrap)
		event = (uint16_t)((event & 0x7fff) - r->size);
	else
		event &= 0x7fff;
	return vring_need_event(event, r->avail, (uint16_t)(r->avail - added));
}

static void give_back(struct driver_ring *r, uint16_t id)
{
	uint16_t n = r->slots[id], at = id;

	r->slots[id] = 0;
	r->n_free = (uint16_t)(r->n_free + n);
	if (r->packed) {
		r->ids[r->n_ids++] = id;
		return;
	}
	for (uint16_t i = 0; i < n; i++) {
		r->ids[r->n_ids++] = at;
		at = le16_get(r->desc + (size_t)at * VRING_DESC_SIZE +
			      offsetof(struct vring_desc, next));
	}
}

static const uint8_t *next_used(const struct driver_ring *r)
{
	return r->packed ? r->desc + (size_t)r->used * VRING_DESC_SIZE
			 : r->device + VRING_USED_RING((size_t)r->used & (r->size - 1U));
}

bool driver_ring_has_used(const struct driver_ring *r)
{
	uint16_t both = VRING_DESC_F_AVAIL | VRING_DESC_F_USED, flags;

	if (r->broken)
		return false;
	if (!r->packed)
		return vring_load16(r->device + VRING_USED_IDX) != r->used;
	flags = vring_load16(next_used(r) + offsetof(struct vring_packed_desc, flags)) & both;
	return flags == (r->used_wrap ? both : 0);
}

static void forward(struct driver_ring *r, uint16_t slots)
{
	r->used = (uint16_t)(r->used + (r->packed ? slots : 1));
	if (r->packed && r->used >= r->size) {
		r->used = (uint16_t)(r->used - r->size);
		r->used_wrap = !r->used_wrap;
	}
}

bool driver_ring_used(struct driver_ring *r, uint16_t *id, uint32_t *written)
{
	const uint8_t *entry = next_used(r);
	uint32_t which;

	if (!driver_ring_has_used(r))
		return false;
	if (r->packed) {
		which = le16_get(entry + offsetof(struct vring_packed_desc, id));
		*written = le32_get(entry + offsetof(struct vring_packed_desc, len));
	} else {
		which = le32_get(entry);
		*written = le32_get(entry + 4);
	}
	if (which >= r->size || !r->slots[which]) {
		r->broken = true;
		return false;
	}
	*id = (uint16_t)which;
	forward(r, r->slots[which]);
	give_back(r, *id);
	return true;
}

void driver_ring_enable_notify(struct driver_ring *r)
{
	if (!r->packed && r->event_idx) {
		vring_store16(r->driver + VRING_AVAIL_RING((size_t)r->size), r->used);
	} else if (r->packed) {
		vring_store16(r->driver + offsetof(struct vring_packed_event, off_wrap),
			      (uint16_t)(r->used | r->used_wrap << VRING_WRAP_BIT));
		vring_store16(r->driver + offsetof(struct vring_packed_event, flags),
			      r->event_idx ? VRING_EVENT_F_DESC : VRING_EVENT_F_ENABLE);
	}
	vring_fence();
}
