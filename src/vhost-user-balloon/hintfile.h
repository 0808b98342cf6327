/* SPDX-License-Identifier: MIT */
/*
 * The file of free page hints, for a migration or snapshot tool to read while the guest runs:
 * docs/hint-file.md says how. A page of header, then the bitmap in which the balloon marks pages.
 */
#ifndef VUB_HINTFILE_H
#define VUB_HINTFILE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "balloon/balloon.h"

#define HINTFILE_MAGIC      "AEROHINT"
#define HINTFILE_VERSION    1U
#define HINTFILE_HEAD_BYTES 4096U /* the bitmap begins there */

/* All little-endian. */
struct hintfile_region {
	uint64_t first_pfn; /* guest physical address >> page_shift of its first page */
	uint64_t pages;
	uint64_t first_bit; /* in the bitmap: bit n is bit n % 8 of byte n / 8 */
};
static_assert(sizeof(struct hintfile_region) == 24, "hint file: region");

struct hintfile_head {
	char magic[8];         /* HINTFILE_MAGIC without a NUL */
	uint32_t version;      /* HINTFILE_VERSION */
	uint32_t header_bytes; /* where the regions begin */
	uint64_t generation;   /* odd while the header is being changed; else: read, read again */
	uint32_t state;        /* enum balloon_hint_state */
	uint32_t command;      /* id of the command that the hints belong to; 0: none yet */
	uint32_t page_shift;   /* 12 */
	uint32_t n_regions;
	uint64_t bitmap_offset; /* bytes from the file's beginning */
};
static_assert(sizeof(struct hintfile_head) == 48, "hint file: header");
static_assert(offsetof(struct hintfile_head, generation) == 16, "hint file: generation");
static_assert(sizeof(struct hintfile_head) +
			      GUEST_MEM_MAX_REGIONS * sizeof(struct hintfile_region) <=
		      HINTFILE_HEAD_BYTES,
	      "hint file: the regions fit before the bitmap");

struct hintfile {
	int fd; /* -1: none; the owner's */
	struct hintfile_head *head;
	uint64_t *bitmap; /* NULL: none */
	size_t bitmap_bytes;
};

/* Maps the header of fd, which stays the caller's; -1: no file. -errno. */
int hintfile_open(struct hintfile *f, int fd);

/*
 * A bitmap of so many words for the balloon: zeroed, or with `keep` as it stands in the file (for a
 * process that goes on for another). NULL: no file, or no room. The one before is unmapped.
 */
uint64_t *hintfile_bitmap(struct hintfile *f, uint64_t words, bool keep);

/* Has the header say what b->st.hint and b->hints are now; cheap if nothing has changed. */
void hintfile_update(struct hintfile *f, const struct balloon *b);

#endif
