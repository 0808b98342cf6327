// SPDX-License-Identifier: MIT
#include "reclaim.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "log.h"

static bool same_file(int a, int b)
{
	struct stat sa, sb;

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

/* Zeroed pages that take up memory only where the balloon has been. */
static uint64_t *map_bitmap(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

int reclaim_memory_changed(struct reclaim *r, struct balloon *b, const struct vu_memory *memory)
{
	static const struct guest_mem no_memory;
	const struct guest_mem *mem = &memory->mem;
	size_t bytes = held_words(mem) * sizeof(uint64_t);
	uint64_t *bitmap = bytes ? map_bitmap(bytes) : NULL;
	int result = 0;

	if (bytes && !bitmap) {
		mem = &no_memory;
		bytes = 0;
		result = -ENOMEM;
	}
	lay_out_areas(r, memory);
	balloon_memory_changed(b, mem, bitmap);
	if (r->bitmap)
		munmap(r->bitmap, r->bitmap_bytes);
	r->bitmap = bitmap;
	r->bitmap_bytes = bytes;
	return result;
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
