// SPDX-License-Identifier: MIT
/*
 * A stream that is said to be a device's state. Whatever it is, the reader asks for room at most
 * once, for what its regions need, and reads no byte that it was not given; in pieces it comes to
 * the same result as in one. What it accepts is a state that the device can have, and write again.
 *
 * Input: a byte, then the stream. Of the byte, bit 0: the checksum is put right, so that what
 * stands behind it is reached; bits 1 to 7: how long pieces are.
 */
#include <errno.h>

#include "balloon/snapshot.h"
#include "base/bitmap.h"
#include "base/checked.h"
#include "base/crc32.h"
#include "base/le.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WORDS_MAX  (1ULL << 20) /* there is no room for more */
#define STREAM_MAX (1U << 20)
#define PAGE       4096U

struct reading {
	struct snapshot_reader r;
	uint64_t *map;
	uint64_t words;
};

static struct reading first, second;
static struct balloon b;
static struct vq vqs[VIRTIO_BALLOON_VQ_COUNT];
static uint32_t events;

static uint64_t *make_words(void *opaque, uint64_t n)
{
	struct reading *reading = opaque;

	require(n > 0 && !reading->map);
	require(n <= SNAPSHOT_PFN_END / BITMAP_WORD_BITS + GUEST_MEM_MAX_REGIONS);
	if (n > WORDS_MAX)
		return NULL;
	reading->words = n;
	reading->map = calloc(n, sizeof(*reading->map));
	require(reading->map != NULL);
	return reading->map;
}

static void done(struct reading *reading)
{
	free(reading->map);
	reading->map = NULL;
}

static int read_stream(struct reading *reading, const uint8_t *stream, size_t len, size_t piece)
{
	int r = 0;

	snapshot_reader_init(&reading->r, (struct instant){.mono_ms = 5000}, make_words, reading);
	for (size_t at = 0; !r && at < len; at += piece) {
		size_t n = min_u64(piece, len - at);
		uint8_t *copy = malloc(n); /* a block of its own, so that reading past it shows */

		require(copy != NULL);
		memcpy(copy, stream + at, n);
		r = snapshot_write(&reading->r, copy, n);
		free(copy);
	}
	r = snapshot_finish(&reading->r);
	require(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT || r == -ENOMEM);
	require((r != 0) == (reading->r.error != NULL));
	return r;
}

/* Are just those bits set that stand for a page, and as many as it says? */
static void check_bitmap(const struct reading *reading)
{
	const struct pageset *held = &reading->r.snap.held;
	uint64_t count = 0, end = 0, words = 0;

	for (uint32_t i = 0; i < held->at.n; i++) {
		const struct pageset_region *r = &held->at.region[i];
		uint64_t page = 0, n;

		require(r->first_pfn >= end && r->pages > 0);
		end = r->first_pfn + r->pages;
		require(end <= SNAPSHOT_PFN_END && r->first_bit == words * BITMAP_WORD_BITS);
		words += bitmap_words(r->pages);
		require(bitmap_find(held->map, r->first_bit + r->pages, words * BITMAP_WORD_BITS,
				    true) == words * BITMAP_WORD_BITS);
		for (; pageset_next_run(held, i, &page, &n); page += n)
			count += n;
	}
	require(count == held->count && words == (reading->map ? reading->words : 0));
}

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	(void)opaque;
	for (uint32_t i = 0; i < n; i++)
		require(range_within(ranges[i].offset, ranges[i].len,
				     b.mem->region[ranges[i].region].size));
	return 0;
}

static void on_config_changed(void *opaque)
{
	(void)opaque;
}

static void on_ring(void *opaque, uint32_t ring)
{
	(void)opaque;
	(void)ring;
}

static void on_event(void *opaque, enum balloon_event event)
{
	(void)opaque;
	(void)event;
	events++;
}

static const struct balloon_ops ops = {on_discard, on_config_changed, on_ring,
				       on_ring,    on_event,          on_config_changed};

/* Three regions of guest memory, wherever the stream has its own. */
static const struct guest_mem *memory(void)
{
	static struct guest_mem mem;
	static uint8_t host[1]; /* never touched */

	mem.n = 0;
	for (uint64_t i = 0; i < 3; i++) {
		struct guest_region r = {.gpa = i * 0x400000 + i * 0x800,
					 .size = 0x200000,
					 .page_size = PAGE << 2 * i};

		r.uaddr = r.gpa;
		require(guest_mem_add(&mem, &r, host) == 0);
	}
	return &mem;
}

/* What a device with the state that was read writes; 0: more than there is room for. */
static size_t write_again(const struct reading *reading, uint8_t *stream)
{
	static struct snapshot_writer w;
	size_t len;

	b.st = reading->r.snap.st;
	b.held = reading->r.snap.held;
	snapshot_writer_init(&w, &b, (struct instant){.mono_ms = 5000});
	len = snapshot_read(&w, stream, STREAM_MAX);
	return len < STREAM_MAX ? len : 0;
}

/* The device takes the state over, is given memory, and does what is due. */
static void use(void)
{
	static uint8_t once[STREAM_MAX], twice[STREAM_MAX];
	const struct guest_mem *mem = memory();
	uint64_t *map = calloc(2 * pageset_words(mem), sizeof(*map));
	size_t len;

	require(map != NULL);
	balloon_init(&b, ~0ULL, &ops, NULL);
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		b.vq[i] = &vqs[i];
	len = write_again(&first, once);
	if (len) {
		require(read_stream(&second, once, len, len) == 0);
		require(write_again(&second, twice) == len && memcmp(once, twice, len) == 0);
		done(&second);
	}
	b.st.offered = ~0ULL;
	b.st.negotiated = 0;
	require(snapshot_apply(&first.r.snap, &b) == 0);
	snapshot_hold(&first.r.snap, &b);
	balloon_memory_changed(&b, mem, map, map + pageset_words(mem));
	require(b.held.count <= first.r.snap.held.count);
	(void)balloon_tick(&b, (struct instant){.mono_ms = 6000});
	(void)balloon_next_tick(&b);
	free(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint8_t how = input_u8(&in);
	uint8_t *stream = malloc(in.left + 1);
	size_t len = in.left;
	int r;

	require(stream != NULL);
	input_bytes(&in, stream, len);
	if (how & 1 && len >= 4)
		le32_put(stream + len - 4, crc32_add(0, stream, len - 4));
	r = read_stream(&first, stream, len, (how >> 1) + 1U);
	require(read_stream(&second, stream, len, len ? len : 1) == r);
	done(&second);
	if (r == 0) {
		check_bitmap(&first);
		use();
	}
	done(&first);
	free(stream);
	return 0;
}
