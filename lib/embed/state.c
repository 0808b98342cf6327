// SPDX-License-Identifier: MIT
/*
 * A device's state as a stream, in the form of lib/balloon/snapshot.h. What is read comes from
 * another host: it is collected and checked as a whole before anything of this device changes.
 */
#include <errno.h>

#include "balloon/snapshot.h"
#include "base/checked.h"
#include "embed/embed.h"

#define PIECE 4096U

static bool rings_run(const struct aerostat_balloon *a)
{
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		if (vq_started(&a->vq[i]))
			return true;
	}
	return false;
}

int aerostat_balloon_save(struct aerostat_balloon *device, uint64_t now_ms, aerostat_write write,
			  void *to)
{
	struct snapshot_writer writer;
	uint8_t piece[PIECE];
	size_t n = PIECE;
	int err = 0;

	if (!device || !write)
		return -EINVAL;
	if (device->inside || rings_run(device))
		return -EBUSY;
	snapshot_writer_init(&writer, &device->b, (struct instant){.mono_ms = now_ms});
	device->inside = true;
	while (!err && n == PIECE) {
		n = snapshot_read(&writer, piece, PIECE);
		if (n)
			err = write(to, piece, n);
	}
	device->inside = false;
	return err < 0 ? err : 0;
}

static uint64_t *new_words(void *opaque, uint64_t n)
{
	struct bitmap_memory *bitmap = opaque;

	return bitmap_map(bitmap, n) == 0 ? bitmap->words : NULL;
}

/* Reads to the stream's end and no further: what comes next is somebody else's. */
static int read_all(struct snapshot_reader *reader, aerostat_read read, void *from)
{
	uint8_t piece[PIECE];

	while (reader->phase != SNAPSHOT_DONE) {
		uint64_t n = min_u64(PIECE, reader->want - reader->have);
		int64_t got = read(from, piece, n);
		int err;

		if (got < 0)
			return got < INT32_MIN ? -EIO : (int)got;
		if (!got)
			break;
		if ((uint64_t)got > n)
			return -EINVAL;
		err = snapshot_write(reader, piece, (size_t)got);
		if (err)
			return err;
	}
	return snapshot_finish(reader);
}

/* The device holds what the stream said; memory of this device's own takes it over. */
static int apply(struct aerostat_balloon *a, const struct snapshot *snap)
{
	struct memory *m = &a->memory;
	struct bitmap_memory held, hints;
	int err = memory_new_bitmaps(m, &held, &hints);

	if (err)
		return err;
	err = snapshot_apply(snap, &a->b);
	if (err) {
		bitmap_unmap(&held);
		bitmap_unmap(&hints);
		return err;
	}
	balloon_memory_changed(&a->b, &m->mem, held.words, hints.words);
	bitmap_unmap(&m->held);
	bitmap_unmap(&m->hints);
	m->held = held;
	m->hints = hints;
	a->used = ~0U;
	return 0;
}

int aerostat_balloon_load(struct aerostat_balloon *device, uint64_t now_ms, aerostat_read read,
			  void *from)
{
	struct bitmap_memory words = {NULL, 0};
	struct snapshot_reader reader;
	int err;

	if (!device || !read)
		return -EINVAL;
	if (device->inside || rings_run(device))
		return -EBUSY;
	snapshot_reader_init(&reader, (struct instant){.mono_ms = now_ms}, new_words, &words);
	device->inside = true;
	err = read_all(&reader, read, from);
	device->inside = false;
	if (!err)
		err = apply(device, &reader.snap);
	bitmap_unmap(&words);
	return err;
}
