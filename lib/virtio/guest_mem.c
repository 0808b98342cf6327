// SPDX-License-Identifier: MIT
#include "virtio/guest_mem.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

/* How many regions begin at or below gpa. */
static uint32_t upper_bound(const struct guest_mem *mem, uint64_t gpa)
{
	uint32_t low = 0, high = mem->n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (mem->region[mid].gpa <= gpa)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int guest_mem_add(struct guest_mem *mem, const struct guest_region *region, uint8_t *host)
{
	uint64_t end;
	uint32_t at;

	if (!region->size || !is_power_of_two(region->page_size) ||
	    !checked_add(region->gpa, region->size, &end) ||
	    !checked_add(region->uaddr, region->size, &end))
		return -EINVAL;
	for (uint32_t i = 0; i < mem->n; i++) {
		const struct guest_region *r = &mem->region[i];

		if (ranges_overlap(r->gpa, r->size, region->gpa, region->size) ||
		    ranges_overlap(r->uaddr, r->size, region->uaddr, region->size))
			return -EEXIST;
	}
	if (mem->n == GUEST_MEM_MAX_REGIONS)
		return -ENOSPC;

	at = upper_bound(mem, region->gpa);
	memmove(&mem->region[at + 1], &mem->region[at], (mem->n - at) * sizeof(mem->region[0]));
	memmove(&mem->host[at + 1], &mem->host[at], (mem->n - at) * sizeof(mem->host[0]));
	mem->region[at] = *region;
	mem->host[at] = host;
	mem->n++;
	return 0;
}

void guest_mem_remove(struct guest_mem *mem, uint32_t index)
{
	uint32_t after = mem->n - index - 1;

	memmove(&mem->region[index], &mem->region[index + 1], after * sizeof(mem->region[0]));
	memmove(&mem->host[index], &mem->host[index + 1], after * sizeof(mem->host[0]));
	mem->n--;
}

int guest_mem_find(const struct guest_mem *mem, uint64_t gpa)
{
	uint32_t above = upper_bound(mem, gpa);

	if (!above || gpa - mem->region[above - 1].gpa >= mem->region[above - 1].size)
		return -1;
	return (int)(above - 1);
}

uint8_t *guest_mem_gpa(const struct guest_mem *mem, uint64_t gpa, uint64_t *len)
{
	int index = guest_mem_find(mem, gpa);
	uint64_t offset;

	if (index < 0)
		return NULL;
	offset = gpa - mem->region[index].gpa;
	*len = min_u64(*len, mem->region[index].size - offset);
	return mem->host[index] + offset;
}

/* Index of the region that holds [uaddr, uaddr + len), or -1. */
static int find_uaddr(const struct guest_mem *mem, uint64_t uaddr, uint64_t len)
{
	for (uint32_t i = 0; i < mem->n; i++) {
		const struct guest_region *r = &mem->region[i];

		if (uaddr >= r->uaddr && range_within(uaddr - r->uaddr, len, r->size))
			return (int)i;
	}
	return -1;
}

uint8_t *guest_mem_uaddr(const struct guest_mem *mem, uint64_t uaddr, uint64_t len)
{
	int i = find_uaddr(mem, uaddr, len);

	return i < 0 ? NULL : mem->host[i] + (uaddr - mem->region[i].uaddr);
}

uint64_t guest_mem_uaddr_gpa(const struct guest_mem *mem, uint64_t uaddr)
{
	int i = find_uaddr(mem, uaddr, 1);

	return i < 0 ? UINT64_MAX : mem->region[i].gpa + (uaddr - mem->region[i].uaddr);
}

uint64_t guest_mem_total(const struct guest_mem *mem)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < mem->n; i++)
		total += mem->region[i].size;
	return total;
}
