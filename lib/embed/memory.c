// SPDX-License-Identifier: MIT
/*
 * Guest memory of an embedding VMM. What it declares is checked as far as a process can check its
 * own mappings, because a wrong declaration shows as memory that the guest loses: the file must be
 * as long as the region, the addresses must be mapped, and no page may be there twice. Discarding
 * one of two guest pages with the same memory behind them would take the other one with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "embed/embed.h"

void memory_init(struct memory *m)
{
	m->mem.n = 0;
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++)
		m->area[i] = (struct discard_area){.fd = -1};
	m->held = m->hints = (struct bitmap_memory){NULL, 0};
}

void bitmap_unmap(struct bitmap_memory *bitmap)
{
	if (bitmap->words)
		munmap(bitmap->words, bitmap->bytes);
	*bitmap = (struct bitmap_memory){NULL, 0};
}

void memory_release(struct memory *m)
{
	for (uint32_t i = 0; i < m->mem.n; i++) {
		if (m->area[i].fd >= 0)
			close(m->area[i].fd);
	}
	bitmap_unmap(&m->held);
	bitmap_unmap(&m->hints);
	memory_init(m);
}

int bitmap_map(struct bitmap_memory *bitmap, uint64_t words)
{
	size_t bytes = words * sizeof(uint64_t);
	void *map;

	*bitmap = (struct bitmap_memory){NULL, 0};
	if (!bytes)
		return 0;
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	*bitmap = (struct bitmap_memory){map, bytes};
	return 0;
}

/* Finds the page size, and whether the file is one that reaches far enough. */
static int check_file(const struct aerostat_memory_region *r, uint64_t *page_size)
{
	struct statfs fs;
	struct stat st;
	uint64_t end;

	if (fstat(r->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !checked_add(r->fd_offset, r->size, &end))
		return -EINVAL;
	if (end > (uint64_t)st.st_size)
		return -EFBIG;
	/* hugetlbfs reports its page size as the block size. */
	if (fstatfs(r->fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		*page_size = (uint64_t)fs.f_bsize;
	return 0;
}

/* Is all of it mapped? msync() says so, and MS_ASYNC does nothing else. */
static int check_mapped(const struct aerostat_memory_region *r, uint64_t system_page)
{
	uintptr_t start = align_down((uintptr_t)r->host, system_page);
	uint64_t len = (uintptr_t)r->host + r->size - start;

	return msync((void *)start, len, MS_ASYNC) == 0 ? 0 : -EFAULT;
}

/* Checks a region by itself; *page_size: of what is behind it. */
static int check_region(const struct aerostat_memory_region *r, uint64_t *page_size)
{
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE), end;
	int err;

	if (r->flags || !r->host || !r->size || r->fd < -1 ||
	    !checked_add((uintptr_t)r->host, r->size, &end) ||
	    (r->page_size && !is_power_of_two(r->page_size)))
		return -EINVAL;
	*page_size = system_page;
	if (r->fd >= 0) {
		err = check_file(r, page_size);
		if (err)
			return err;
	}
	/* A page that is declared too small would fail to be given back. */
	if (r->page_size > *page_size)
		*page_size = r->page_size;
	if (r->fd >= 0 && ((uintptr_t)r->host - r->fd_offset) % system_page)
		return -EINVAL;
	return check_mapped(r, system_page);
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return a >= 0 && b >= 0 && fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	       sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* Have two regions the same memory behind them, or a part of it? */
static bool aliased(const struct aerostat_memory_region *a, const struct aerostat_memory_region *b)
{
	return ranges_overlap((uintptr_t)a->host, a->size, (uintptr_t)b->host, b->size) ||
	       (same_file(a->fd, b->fd) &&
		ranges_overlap(a->fd_offset, a->size, b->fd_offset, b->size));
}

static int add_region(struct memory *m, const struct aerostat_memory_region *regions, uint32_t n)
{
	const struct aerostat_memory_region *r = &regions[n];
	struct guest_region region = {.gpa = r->gpa, .size = r->size, .uaddr = r->gpa};
	int err = check_region(r, &region.page_size);

	if (err)
		return err;
	for (uint32_t i = 0; i < n; i++) {
		if (aliased(r, &regions[i]))
			return -EEXIST;
	}
	/* Host pages of anonymous memory lie by their address. */
	region.backing_offset = r->fd >= 0 ? r->fd_offset : (uintptr_t)r->host;
	region.backing = n;
	return guest_mem_add(&m->mem, &region, r->host);
}

/* What discards a region; takes a descriptor of its own. */
static int open_area(struct memory *m, uint32_t i, const struct aerostat_memory_region *r)
{
	const struct guest_region *region = &m->mem.region[i];
	int fd = -1;

	if (r->fd >= 0) {
		fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
	}
	discard_area_init(&m->area[i], m->mem.host[i], region->size, fd, region->backing_offset,
			  region->page_size);
	m->counts[i] = true;
	for (uint32_t j = 0; j < i; j++) {
		if (same_file(fd, m->area[j].fd))
			m->counts[i] = false;
	}
	return 0;
}

int memory_new_bitmaps(const struct memory *m, struct bitmap_memory *held,
		       struct bitmap_memory *hints)
{
	uint64_t words = pageset_words(&m->mem);
	int err = bitmap_map(held, words);

	if (err)
		return err;
	err = bitmap_map(hints, words);
	if (err)
		bitmap_unmap(held);
	return err;
}

int memory_build(struct memory *m, const struct aerostat_memory_region *regions, uint32_t n)
{
	int err = 0;

	memory_init(m);
	if (n > AEROSTAT_MEMORY_REGIONS_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; !err && i < n; i++)
		err = add_region(m, regions, i);
	/* The table has sorted them. */
	for (uint32_t i = 0; !err && i < n; i++)
		err = open_area(m, i, &regions[m->mem.region[i].backing]);
	if (!err)
		err = memory_new_bitmaps(m, &m->held, &m->hints);
	if (err)
		memory_release(m);
	return err;
}

/* Counts what a file loses in blocks over several ranges: two system calls. */
static uint64_t discard_of_file(struct discard_area *area, const struct balloon_range *ranges,
				uint32_t n)
{
	uint64_t before = discard_resident(area), after;

	for (uint32_t i = 0; i < n; i++)
		(void)discard_span(area, ranges[i].offset, ranges[i].len); /* counted there */
	after = discard_resident(area);
	/* The guest may have taken other pages of the file meanwhile. */
	return before > after ? before - after : 0;
}

/* Looking through all of an area would take too long, and what is in the range is what can go. */
static uint64_t discard_anonymous(struct discard_area *area, const struct balloon_range *range)
{
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE), before, after;
	uint64_t lead = ((uintptr_t)area->host + range->offset) % system_page;
	struct discard_area part = *area;

	part.host = area->host + range->offset - lead;
	part.size = range->len + lead;
	before = discard_resident(&part);
	if (discard_span(area, range->offset, range->len) < 0)
		return 0;
	after = discard_resident(&part);
	return before > after ? before - after : 0;
}

uint64_t memory_discard(struct memory *m, const struct balloon_range *ranges, uint32_t n)
{
	uint64_t freed = 0;

	for (uint32_t i = 0, run; i < n; i += run) {
		struct discard_area *area = &m->area[ranges[i].region];

		run = 1;
		if (area->fd < 0) {
			freed += discard_anonymous(area, &ranges[i]);
			continue;
		}
		while (i + run < n && ranges[i + run].region == ranges[i].region)
			run++;
		freed += discard_of_file(area, &ranges[i], run);
	}
	return freed;
}

uint64_t memory_failures(const struct memory *m)
{
	uint64_t failed = 0;

	for (uint32_t i = 0; i < m->mem.n; i++)
		failed += m->area[i].failed;
	return failed;
}
