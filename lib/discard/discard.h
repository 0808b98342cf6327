/* SPDX-License-Identifier: MIT */
/*
 * How memory is really given back on Linux, and how much of it came back.
 */
#ifndef DISCARD_DISCARD_H
#define DISCARD_DISCARD_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How to free pages. Which one is right depends on what is mapped, not on taste: MADV_DONTNEED on a
 * shared mapping succeeds and frees nothing, punching a hole in the file under a private mapping
 * leaves the private copies.
 */
enum discard_method {
	DISCARD_PUNCH_HOLE,    /* shared file: fallocate() on its descriptor; the cheapest of all */
	DISCARD_MADV_REMOVE,   /* shared file whose descriptor does not allow that */
	DISCARD_MADV_DONTNEED, /* private anonymous memory */
	DISCARD_NONE,          /* nothing works: read-only or sealed */
	DISCARD_METHOD_COUNT,
};

const char *discard_method_name(enum discard_method method);

/* A stretch of memory, mapped at host and, unless private, at fd_offset of fd. */
struct discard_area {
	uint8_t *host;
	uint64_t size;
	int fd; /* borrowed; -1 if anonymous */
	uint64_t fd_offset;
	uint64_t page_size; /* bytes; host pages smaller than this cannot go */
	enum discard_method method;
	uint64_t failed; /* calls that the kernel refused */
	int last_error;  /* of those, the last one's errno */
};

/* Sets up *area for a shared mapping of a file, or for private anonymous memory with fd -1. */
void discard_area_init(struct discard_area *area, uint8_t *host, uint64_t size, int fd,
		       uint64_t fd_offset, uint64_t page_size);

/*
 * Gives back the whole pages in [offset, offset + len) of an area. 0, also if there is none in it;
 * -EINVAL: not within the area; else what the kernel said. A method that the kernel refuses for
 * good gives way to the next one.
 */
int discard_span(struct discard_area *area, uint64_t offset, uint64_t len);

/*
 * Bytes of memory that back the area now: for a file, all of the file's blocks, wherever they lie
 * in it (cheap: one fstat); for anonymous memory, the area's resident pages.
 */
uint64_t discard_resident(const struct discard_area *area);

#endif
