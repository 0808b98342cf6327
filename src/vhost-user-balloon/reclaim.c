// SPDX-License-Identifier: MIT
#include "reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	/* seccomp: fstat fstat64 newfstatat(3 == AT_EMPTY_PATH) */
	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

static void lay_out_areas(struct reclaim *r, const struct vu_memory *memory)
{
	r->failed_before = reclaim_failures(r);
	r->n = memory->mem.n;
	for (uint32_t i = 0; i < r->n; i++) {
		const struct guest_region *region = &memory->mem.region[i];

		discard_area_init(&r->area[i], memory->mem.host[i], region->size,
				  memory->backing[region->backing].fd, region->backing_offset,
				  region->page_size);
		r->counts[i] = true;
		for (uint32_t j = 0; j < i; j++) {
			if (same_file(r->area[i].fd, r->area[j].fd))
				r->counts[i] = false;
		}
	}
}

#define LOADED 2U /* which part is for what a device brings that moves here */

/* A part of the file, its beginning, as it is or zeroed. NULL: no room. */
static uint64_t *map_part(const struct reclaim *r, uint32_t part, size_t bytes, bool keep)
{
	off_t start = (off_t)(part * r->half_bytes);
	void *map;

	if (bytes > r->half_bytes)
		return NULL;
	/* seccomp: fallocate(1 == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) */
	if (!keep && fallocate(r->held_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start,
			       (off_t)r->half_bytes) < 0)
		return NULL;
	/* seccomp: mmap(2 & PROT_EXEC == 0) mmap2(2 & PROT_EXEC == 0) */
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->held_fd,
		   start);
	return map == MAP_FAILED ? NULL : map;
}

/* The table changes twice before a commit: the bitmap gets out of the way of its successor. */
static int move_aside(struct reclaim *r, struct balloon *b)
{
	void *copy = mmap(NULL, r->bitmap_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (copy == MAP_FAILED)
		return -ENOMEM;
	memcpy(copy, r->bitmap, r->bitmap_bytes);
	if (b->held.map == r->bitmap)
		b->held.map = copy;
	/* seccomp: munmap */
	munmap(r->bitmap, r->bitmap_bytes);
	r->bitmap = copy;
	return 0;
}

int reclaim_init(struct reclaim *r, int held_fd, uint64_t half_bytes, int hints_fd)
{
	memset(r, 0, sizeof(*r));
	r->held_fd = held_fd;
	r->half_bytes = half_bytes;
	return hintfile_open(&r->hints, hints_fd);
}

int reclaim_memory_changed(struct reclaim *r, struct balloon *b, const struct vu_memory *memory,
			   uint32_t committed)
{
	static const struct guest_mem no_memory;
	const struct guest_mem *mem = &memory->mem;
	uint64_t words = pageset_words(mem);
	size_t bytes = words * sizeof(uint64_t);
	uint64_t *bitmap = NULL, *hints = NULL;
	int result = 0;

	if (bytes && r->bitmap && r->half != committed)
		result = move_aside(r, b);
	if (bytes && !result) {
		bitmap = map_part(r, !committed, bytes, false);
		result = bitmap ? 0 : -ENOMEM;
	}
	if (result) {
		mem = &no_memory;
		bytes = 0;
	}
	lay_out_areas(r, memory);
	hints = hintfile_bitmap(&r->hints, bytes ? words : 0, false);
	balloon_memory_changed(b, mem, bitmap, hints);
	if (r->bitmap)
		munmap(r->bitmap, r->bitmap_bytes);
	if (bitmap)
		r->half = !committed;
	r->bitmap = bitmap;
	r->bitmap_bytes = bytes;
	return result;
}

/* Words of a part of the bitmap. */
static uint64_t popcount(const uint64_t *map, size_t words)
{
	uint64_t count = 0;

	for (size_t i = 0; i < words; i++)
		count += (uint64_t)__builtin_popcountll(map[i]);
	return count;
}

/*
 * Bits that are set in a bitmap that begins at start in its file. What was never written to is not
 * looked at: it would become memory by that.
 */
static uint64_t count_bits(int fd, off_t start, const uint64_t *map, size_t bytes)
{
	off_t at = start, end = start + (off_t)bytes;
	uint64_t count = 0;

	while (at < end) {
		/* seccomp: lseek _llseek */
		off_t data = lseek(fd, at, SEEK_DATA), hole;

		if (data < 0 || data >= end)
			break; /* ENXIO: nothing more is there */
		hole = lseek(fd, data, SEEK_HOLE);
		at = hole < 0 || hole > end ? end : hole;
		count += popcount(map + (size_t)(data - start) / sizeof(*map),
				  (size_t)(at - data) / sizeof(*map));
	}
	return count;
}

static void attach(struct pageset *set, const struct pageset_layout *layout, int fd, off_t start,
		   uint64_t *map, size_t bytes)
{
	set->map = map;
	set->at = *layout;
	set->count = count_bits(fd, start, map, bytes);
}

/* Is that how pageset_init() lays this table out? What is marked would be taken for other pages. */
static bool layout_fits(const struct pageset_layout *layout, const struct guest_mem *mem)
{
	static struct pageset fresh;
	const struct pageset none = {0};
	uint64_t no_bits = 0;

	if (layout->n != mem->n)
		return false;
	pageset_init(&fresh, mem, &no_bits, &none);
	return memcmp(fresh.at.region, layout->region, mem->n * sizeof(layout->region[0])) == 0;
}

int reclaim_restore(struct reclaim *r, const struct vu_memory *memory, uint32_t half,
		    const struct pageset_layout *layout, struct pageset *held,
		    struct pageset *hints)
{
	uint64_t words = pageset_words(&memory->mem), *map;
	size_t bytes = words * sizeof(uint64_t);

	if (!layout_fits(layout, &memory->mem))
		return -EINVAL;
	lay_out_areas(r, memory);
	r->half = half & 1;
	memset(held, 0, sizeof(*held));
	memset(hints, 0, sizeof(*hints));
	if (!bytes)
		return 0;
	map = map_part(r, r->half, bytes, true);
	if (!map)
		return -ENOMEM;
	r->bitmap = map;
	r->bitmap_bytes = bytes;
	attach(held, layout, r->held_fd, (off_t)(r->half * r->half_bytes), map, bytes);
	map = hintfile_bitmap(&r->hints, words, true);
	if (map)
		attach(hints, layout, r->hints.fd, HINTFILE_HEAD_BYTES, map, bytes);
	return 0;
}

uint64_t *reclaim_map_loaded(const struct reclaim *r, size_t bytes)
{
	return map_part(r, LOADED, bytes, false);
}

void reclaim_restore_loaded(const struct reclaim *r, const struct pageset_layout *layout,
			    struct pageset *held)
{
	size_t bytes = pageset_layout_words(layout) * sizeof(uint64_t);
	uint64_t *map = bytes ? map_part(r, LOADED, bytes, true) : NULL;

	memset(held, 0, sizeof(*held));
	if (map)
		attach(held, layout, r->held_fd, (off_t)(LOADED * r->half_bytes), map, bytes);
}

static uint64_t discard_in_area(struct discard_area *area, const struct balloon_range *ranges,
				uint32_t n)
{
	uint64_t before = discard_resident(area), after, failed = area->failed;

	for (uint32_t i = 0; i < n; i++)
		(void)discard_span(area, ranges[i].offset, ranges[i].len); /* counted there */
	if (area->failed != failed)
		log_limited("cannot give memory back: %s; trying %s from now on",
			    strerror(area->last_error), discard_method_name(area->method));
	after = discard_resident(area);
	/* The guest may have taken other pages of the file meanwhile. */
	return before > after ? before - after : 0;
}

uint64_t reclaim_discard(struct reclaim *r, const struct balloon_range *ranges, uint32_t n)
{
	uint64_t freed = 0;

	for (uint32_t i = 0, run; i < n; i += run) {
		for (run = 1; i + run < n && ranges[i + run].region == ranges[i].region; run++)
			;
		freed += discard_in_area(&r->area[ranges[i].region], &ranges[i], run);
	}
	return freed;
}

uint64_t reclaim_resident(const struct reclaim *r)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < r->n; i++) {
		if (r->counts[i])
			bytes += discard_resident(&r->area[i]);
	}
	return bytes;
}

uint64_t reclaim_failures(const struct reclaim *r)
{
	uint64_t failed = r->failed_before;

	for (uint32_t i = 0; i < r->n; i++)
		failed += r->area[i].failed;
	return failed;
}
