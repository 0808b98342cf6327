// SPDX-License-Identifier: MIT
#include "discard/discard.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"

static const char *const method_names[] = {
	[DISCARD_PUNCH_HOLE] = "punch-hole",
	[DISCARD_MADV_REMOVE] = "madv-remove",
	[DISCARD_MADV_DONTNEED] = "madv-dontneed",
	[DISCARD_NONE] = "none",
};
static_assert(sizeof(method_names) / sizeof(method_names[0]) == DISCARD_METHOD_COUNT,
	      "a name for every method");

const char *discard_method_name(enum discard_method method)
{
	return method_names[method];
}

void discard_area_init(struct discard_area *area, uint8_t *host, uint64_t size, int fd,
		       uint64_t fd_offset, uint64_t page_size)
{
	*area = (struct discard_area){
		.host = host,
		.size = size,
		.fd = fd,
		.fd_offset = fd_offset,
		.page_size = page_size,
		.method = fd >= 0 ? DISCARD_PUNCH_HOLE : DISCARD_MADV_DONTNEED,
	};
}

static int discard_once(const struct discard_area *area, uint64_t offset, uint64_t len)
{
	switch (area->method) {
	case DISCARD_PUNCH_HOLE:
		/* seccomp: fallocate(1 == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) */
		return fallocate(area->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)(area->fd_offset + offset), (off_t)len);
	case DISCARD_MADV_REMOVE:
		/* seccomp: madvise(2 == MADV_REMOVE) */
		return madvise(area->host + offset, len, MADV_REMOVE);
	case DISCARD_MADV_DONTNEED:
		/* seccomp: madvise(2 == MADV_DONTNEED) */
		return madvise(area->host + offset, len, MADV_DONTNEED);
	case DISCARD_NONE:
	case DISCARD_METHOD_COUNT:
	default:
		errno = EOPNOTSUPP;
		return -1;
	}
}

/* Errors that will come again with every call of the same kind. */
static bool is_final(int error)
{
	return error == EOPNOTSUPP || error == ENOSYS || error == EBADF || error == EPERM ||
	       error == ENODEV || error == EACCES;
}

int discard_span(struct discard_area *area, uint64_t offset, uint64_t len)
{
	uint64_t phase = area->fd_offset % area->page_size, start, end;

	if (!range_within(offset, len, area->size))
		return -EINVAL;
	/* Inwards to whole pages of the file; `phase` cannot carry these past 2^63. */
	start = align_up(offset + phase, area->page_size);
	end = align_down(offset + len + phase, area->page_size);
	if (start >= end)
		return 0;

	while (discard_once(area, start - phase, end - start) < 0) {
		int error = errno;

		if (error == EINTR)
			continue;
		area->failed++;
		area->last_error = error;
		if (area->method == DISCARD_NONE || !is_final(error))
			return -error;
		area->method =
			area->method == DISCARD_PUNCH_HOLE ? DISCARD_MADV_REMOVE : DISCARD_NONE;
	}
	return 0;
}

static uint64_t count_resident_pages(const struct discard_area *area)
{
	unsigned char in_core[4096];
	uint64_t small_page = (uint64_t)sysconf(_SC_PAGESIZE), resident = 0;
	uint64_t step = sizeof(in_core) * small_page;

	for (uint64_t at = 0; at < area->size; at += step) {
		uint64_t len = min_u64(step, area->size - at);

		/* seccomp: mincore */
		if (mincore(area->host + at, len, in_core) < 0)
			return resident;
		for (uint64_t i = 0; i * small_page < len; i++)
			resident += (in_core[i] & 1U) ? small_page : 0;
	}
	return resident;
}

uint64_t discard_resident(const struct discard_area *area)
{
	struct stat st;

	if (area->fd < 0)
		return count_resident_pages(area);
	/* seccomp: fstat fstat64 newfstatat(3 == AT_EMPTY_PATH) */
	if (fstat(area->fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}
