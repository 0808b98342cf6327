// SPDX-License-Identifier: MIT
#include "vhost_user/memory.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"

void vu_memory_init(struct vu_memory *m)
{
	m->mem.n = 0;
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++)
		m->backing[i] = (struct vu_backing){.fd = -1};
}

void vu_backing_release(struct vu_backing *b)
{
	/* seccomp: munmap close */
	if (b->map)
		munmap(b->map, b->map_len);
	close(b->fd);
	*b = (struct vu_backing){.fd = -1};
}

void vu_memory_clear(struct vu_memory *m)
{
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
		if (m->backing[i].fd >= 0)
			vu_backing_release(&m->backing[i]);
	}
	m->mem.n = 0;
}

uint64_t vu_file_page_size(int fd)
{
	struct statfs fs;

	/* hugetlbfs reports its page size as the block size. */
	/* seccomp: fstatfs fstatfs64 */
	if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		return (uint64_t)fs.f_bsize;
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

static struct vu_backing *free_backing(struct vu_memory *m, uint32_t *index)
{
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
		if (m->backing[i].fd < 0) {
			*index = i;
			return &m->backing[i];
		}
	}
	return NULL;
}

int vu_backing_map(struct vu_backing *b, uint64_t offset, uint64_t size, uint64_t *lead)
{
	uint64_t page_size = vu_file_page_size(b->fd);
	uint64_t end, start;
	struct stat st;
	void *map;

	/* seccomp: fstat fstat64 newfstatat(3 == AT_EMPTY_PATH) */
	if (fstat(b->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !size || !checked_add(offset, size, &end))
		return -EINVAL;
	if (end > (uint64_t)st.st_size)
		return -EFBIG;
	start = align_down(offset, page_size);
	*lead = offset - start;
	b->map_len = align_up(end, page_size) - start;
	/* seccomp: mmap(2 & PROT_EXEC == 0) mmap2(2 & PROT_EXEC == 0) */
	map = mmap(NULL, b->map_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, b->fd,
		   (off_t)start);
	if (map == MAP_FAILED)
		return -errno;
	b->map = map;
	/* What the guest's front end shares has no place in a core dump of this process. */
	/* seccomp: madvise(2 == MADV_DONTDUMP) */
	(void)madvise(map, b->map_len, MADV_DONTDUMP);
	return 0;
}

int vu_memory_add(struct vu_memory *m, const struct vu_mem_region *r, int fd)
{
	struct guest_region region = {
		.gpa = r->gpa,
		.size = r->size,
		.uaddr = r->uaddr,
		.page_size = vu_file_page_size(fd),
		.backing_offset = r->mmap_offset,
	};
	struct vu_backing *b = free_backing(m, &region.backing);
	uint64_t lead = 0;
	int err;

	if (!b) {
		close(fd);
		return -ENOSPC;
	}
	b->fd = fd;
	err = vu_backing_map(b, r->mmap_offset, r->size, &lead);
	if (!err)
		err = guest_mem_add(&m->mem, &region, b->map + lead);
	if (err)
		vu_backing_release(b);
	return err;
}

int vu_memory_remove(struct vu_memory *m, const struct vu_mem_region *r)
{
	int index = guest_mem_find(&m->mem, r->gpa);
	const struct guest_region *have;
	uint32_t backing;

	if (index < 0)
		return -ENOENT;
	have = &m->mem.region[index];
	if (have->gpa != r->gpa || have->size != r->size || have->uaddr != r->uaddr)
		return -ENOENT;
	backing = have->backing;
	guest_mem_remove(&m->mem, (uint32_t)index);
	vu_backing_release(&m->backing[backing]);
	return 0;
}

bool vu_backing_patch(const struct vu_backing *b, const uint8_t *host)
{
	if (!b->map || host < b->map || host >= b->map + b->map_len)
		return false;
	return mmap(b->map, b->map_len, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

bool vu_memory_patch(struct vu_memory *m, const uint8_t *host)
{
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
		if (vu_backing_patch(&m->backing[i], host))
			return true;
	}
	return false;
}
