// SPDX-License-Identifier: MIT
#include "hintfile.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "common/log.h"

int hintfile_open(struct hintfile *f, int fd)
{
	void *head;

	*f = (struct hintfile){.fd = fd};
	if (fd < 0)
		return 0;
	head = mmap(NULL, HINTFILE_HEAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (head == MAP_FAILED)
		return -errno;
	f->head = head;
	return 0;
}

uint64_t *hintfile_bitmap(struct hintfile *f, uint64_t words, bool keep)
{
	size_t bytes = words * sizeof(uint64_t);
	void *map;

	/* seccomp: munmap */
	if (f->bitmap)
		munmap(f->bitmap, f->bitmap_bytes);
	f->bitmap = NULL;
	f->bitmap_bytes = bytes;
	if (!f->head || !bytes)
		return NULL;
	/* Also what lies beyond: it is of a larger table, and would be found by the next one. */
	/* seccomp: fallocate(1 == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) */
	if (!keep && fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       HINTFILE_HEAD_BYTES, INT64_MAX - HINTFILE_HEAD_BYTES) < 0)
		return NULL;
	/* seccomp: mmap(2 & PROT_EXEC == 0) mmap2(2 & PROT_EXEC == 0) */
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, f->fd,
		   HINTFILE_HEAD_BYTES);
	if (map == MAP_FAILED) {
		log_limited("no room for free page hints: %s", strerror(errno));
		return NULL;
	}
	f->bitmap = map;
	return f->bitmap;
}

/* Is the header as it should be? */
static bool is_current(const struct hintfile_head *head, const struct balloon *b)
{
	return memcmp(head->magic, HINTFILE_MAGIC, sizeof(head->magic)) == 0 &&
	       le32toh(head->state) == (uint32_t)b->st.hint.state &&
	       le32toh(head->command) == b->st.hint.id &&
	       le32toh(head->n_regions) == b->hints.at.n && !(le64toh(head->generation) & 1);
}

/* Do the regions stand there as they are? */
static bool regions_are_current(const struct hintfile_region *region,
				const struct pageset_layout *at)
{
	for (uint32_t i = 0; i < at->n; i++) {
		if (le64toh(region[i].first_pfn) != at->region[i].first_pfn ||
		    le64toh(region[i].pages) != at->region[i].pages ||
		    le64toh(region[i].first_bit) != at->region[i].first_bit)
			return false;
	}
	return true;
}

void hintfile_update(struct hintfile *f, const struct balloon *b)
{
	struct hintfile_head *head = f->head;
	struct hintfile_region *region;
	uint64_t generation;

	if (!head)
		return;
	region = (struct hintfile_region *)(head + 1);
	if (is_current(head, b) && regions_are_current(region, &b->hints.at))
		return;
	/* Odd already if a process died here; readers must see it before anything changes. */
	generation = le64toh(head->generation) | 1;
	__atomic_store_n(&head->generation, htole64(generation), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(head->magic, HINTFILE_MAGIC, sizeof(head->magic));
	head->version = htole32(HINTFILE_VERSION);
	head->header_bytes = htole32(sizeof(*head));
	head->state = htole32((uint32_t)b->st.hint.state);
	head->command = htole32(b->st.hint.id);
	head->page_shift = htole32(VIRTIO_BALLOON_PFN_SHIFT);
	head->n_regions = htole32(b->hints.at.n);
	head->bitmap_offset = htole64(HINTFILE_HEAD_BYTES);
	for (uint32_t i = 0; i < b->hints.at.n; i++) {
		region[i].first_pfn = htole64(b->hints.at.region[i].first_pfn);
		region[i].pages = htole64(b->hints.at.region[i].pages);
		region[i].first_bit = htole64(b->hints.at.region[i].first_bit);
	}
	__atomic_store_n(&head->generation, htole64(generation + 1), __ATOMIC_RELEASE);
}
