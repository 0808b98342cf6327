// SPDX-License-Identifier: MIT
/*
 * A guest that does what it likes with a ring, split or packed, of any size up to 64.
 *
 * Input: 4 bytes of configuration, then operations of one byte and what they need. Whatever is
 * there, every piece of a chain lies in guest memory, amounts add up, and a broken queue stays so.
 */
#include <stdbool.h>

#include "base/checked.h"
#include "base/le.h"
#include "input.h"
#include "virtio/vq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Regions: the ring; A with B right behind it; C apart; one at the top of the address space. */
#define RING_SIZE  4096U
#define BLOCK      256U
#define RING_GPA   0x10000ULL
#define A_GPA      0x20000ULL
#define C_GPA      0x30000ULL
#define TOP_GPA    (UINT64_MAX - BLOCK)
#define DRIVER     2048U /* offsets in the ring's region; descriptors are at 0, up to 64 of them */
#define DEVICE     3072U
#define UADDR(gpa) ((gpa) ^ (1ULL << 62))

static const uint64_t bases[] = {
	RING_GPA,
	RING_GPA + RING_SIZE,
	A_GPA,
	A_GPA + BLOCK,
	A_GPA + 2ULL * BLOCK,
	C_GPA,
	C_GPA + BLOCK,
	TOP_GPA,
	UINT64_MAX,
	0,
	A_GPA,
	A_GPA,
	A_GPA,
	A_GPA,
	C_GPA,
	C_GPA,
};

struct fuzz {
	struct input in;
	struct guest_mem mem;
	struct vq vq;
	struct {
		uint16_t id, slots;
	} out[64]; /* popped, not pushed, in that order */
	uint32_t n_out;
	bool broken;
};

static struct vq_chain chain;

static void add_region(struct fuzz *f, uint64_t gpa, uint64_t size)
{
	struct guest_region r = {.gpa = gpa, .size = size, .uaddr = UADDR(gpa), .page_size = 4096};
	uint8_t *host = aligned_alloc(16, size);

	require(host != NULL);
	memset(host, 0, size);
	require(guest_mem_add(&f->mem, &r, host) == 0);
}

static uint8_t *ring(const struct fuzz *f)
{
	return f->mem.host[guest_mem_find(&f->mem, RING_GPA)];
}

/* A descriptor from 8 bytes, likely to be a good one; to slot `index` of a table. */
static void write_desc(struct fuzz *f, uint8_t *table, uint32_t index)
{
	uint8_t *p = table + (size_t)index * VRING_DESC_SIZE, where = input_u8(&f->in);
	uint64_t addr = bases[where & 15] + (uint64_t)(int64_t)(int8_t)input_u8(&f->in);
	uint32_t len = input_u16(&f->in);
	uint16_t flags = input_u8(&f->in), next = input_u16(&f->in);

	if (where & 0x10)
		len *= 0x10001;
	if (where & 0x20)
		len = len % 9 * VRING_DESC_SIZE;
	if (where & 0x40)
		len %= BLOCK;
	if (flags & 0x40)
		flags |= VRING_DESC_F_USED;
	if (!(where & 0x80))
		next %= 64;
	le64_put(p, addr);
	le32_put(p + 8, len);
	le16_put(p + (f->vq.st.packed ? 14 : 12), flags);
	le16_put(p + (f->vq.st.packed ? 12 : 14), next);
}

static void check_chain(const struct fuzz *f)
{
	uint64_t bytes[2] = {0, 0};

	require(chain.n_read + chain.n_write > 0 && chain.slots > 0);
	require(chain.n_read + chain.n_write <= CHAIN_MAX_SEGS);
	for (uint32_t i = 0; i < chain.n_read + chain.n_write; i++) {
		const struct chain_seg *seg = &chain.seg[i];
		bool inside = false;

		for (uint32_t r = 0; r < f->mem.n && !inside; r++)
			inside = seg->host >= f->mem.host[r] &&
				 range_within((uint64_t)(seg->host - f->mem.host[r]), seg->len,
					      f->mem.region[r].size);
		require(inside && seg->len);
		bytes[i >= chain.n_read] += seg->len;
	}
	require(bytes[0] == chain.read_bytes && bytes[1] == chain.write_bytes);
	require(bytes[0] + bytes[1] <= 1ULL << 32);
}

/* Reads all of it, in pieces; the end comes where it should. */
static void read_chain(struct fuzz *f)
{
	uint8_t buf[100];
	struct chain_cursor at = {0};
	uint64_t skip = input_u8(&f->in), total = min_u64(skip, chain.read_bytes);
	size_t n;

	chain_skip(&chain, &at, skip);
	while ((n = chain_read(&chain, &at, buf, 1 + skip % sizeof(buf))))
		total += n;
	require(total == chain.read_bytes);
}

static void pop(struct fuzz *f, bool keep)
{
	uint32_t before = vq_base(&f->vq);
	int r = vq_pop(&f->vq, &chain);

	require(r == 0 || r == 1 || r == -71 /* EPROTO */);
	require(!f->broken || r < 0);
	require((r < 0) == (f->vq.st.error != VQ_OK));
	f->broken = r < 0;
	if (r <= 0) {
		require(vq_base(&f->vq) == before);
		return;
	}
	check_chain(f);
	read_chain(f);
	if (keep && f->n_out < 64) {
		f->out[f->n_out].id = chain.id;
		f->out[f->n_out++].slots = chain.slots;
	} else {
		vq_unpop(&f->vq, chain.slots);
		require(vq_base(&f->vq) == before);
	}
}

static void push(struct fuzz *f, uint32_t which)
{
	if (!f->n_out)
		return;
	which %= f->n_out;
	vq_push(&f->vq, f->out[which].id, f->out[which].slots, input_u8(&f->in));
	f->n_out--;
	memmove(&f->out[which], &f->out[which + 1], (f->n_out - which) * sizeof(f->out[0]));
}

static void check_amounts(const struct fuzz *f)
{
	uint32_t slots = 0;

	for (uint32_t i = 0; i < f->n_out; i++)
		slots += f->out[i].slots;
	require(slots == f->vq.st.in_use && slots <= f->vq.st.size);
}

static void operate(struct fuzz *f)
{
	uint8_t op = input_u8(&f->in), *mem = ring(f);
	uint32_t arg = op >> 4;

	switch (op & 15) {
	case 0:
	case 1:
		pop(f, true);
		break;
	case 2:
		pop(f, false);
		break;
	case 3:
	case 4:
		push(f, arg);
		break;
	case 5:
	case 6:
		write_desc(f, mem, input_u8(&f->in) % f->vq.st.size);
		break;
	case 7: /* an indirect table */
		write_desc(f, f->mem.host[guest_mem_find(&f->mem, A_GPA)], arg);
		break;
	case 8: /* the next slot of the avail ring, and its index */
		le16_put(mem + DRIVER + VRING_AVAIL_RING((f->vq.st.avail + arg) % f->vq.st.size),
			 input_u8(&f->in));
		le16_put(mem + DRIVER + VRING_AVAIL_IDX, (uint16_t)(f->vq.st.avail + arg + 1));
		break;
	case 9:
		le16_put(mem + DRIVER + (input_u8(&f->in) & 0xfeU), input_u16(&f->in));
		break;
	case 10:
	case 11: /* so that the seeds keep their meaning */
		(void)vq_enable_kicks(&f->vq);
		break;
	case 12:
		(void)vq_should_notify(&f->vq);
		require(!vq_should_notify(&f->vq));
		break;
	case 13:
		require(vq_remap(&f->vq) == 0);
		break;
	case 14: /* anywhere in the ring's memory */
		input_bytes(&f->in, mem + input_u16(&f->in) % (RING_SIZE - 16), arg);
		break;
	default:
		vq_stop(&f->vq);
		vq_set_base(&f->vq, vq_base(&f->vq));
		require(vq_start(&f->vq, &f->mem) == 0);
		f->n_out = 0;
		f->broken = false;
	}
	check_amounts(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = {.in = {data, size}};
	uint8_t config = input_u8(&f.in), entries = input_u8(&f.in);
	uint32_t base = input_u16(&f.in);
	bool packed = config & 1;

	add_region(&f, RING_GPA, RING_SIZE);
	add_region(&f, A_GPA, BLOCK);
	add_region(&f, A_GPA + BLOCK, BLOCK);
	add_region(&f, C_GPA, BLOCK);
	add_region(&f, TOP_GPA, BLOCK);
	vq_set_features(&f.vq, (packed ? 1ULL << VIRTIO_F_RING_PACKED : 0) |
				       (config & 2 ? 1ULL << VIRTIO_F_EVENT_IDX : 0) |
				       (config & 4 ? 1ULL << VIRTIO_F_INDIRECT_DESC : 0));
	f.vq.st.size = packed ? 1U + entries % 64 : 1U << entries % 7;
	if (packed)
		base = config & 8 ? 0x80008000U : base % f.vq.st.size * 0x10001U;
	vq_set_base(&f.vq, base);
	f.vq.st.desc_uaddr = UADDR(RING_GPA);
	f.vq.st.driver_uaddr = UADDR(RING_GPA) + DRIVER;
	f.vq.st.device_uaddr = UADDR(RING_GPA) + DEVICE;
	require(vq_start(&f.vq, &f.mem) == 0);
	while (f.in.left)
		operate(&f);
	for (uint32_t i = 0; i < f.mem.n; i++)
		free(f.mem.host[i]);
	return 0;
}
