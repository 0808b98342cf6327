// SPDX-License-Identifier: MIT
#include "common/stat_name.h"

#include <assert.h>

#include "aerostat/virtio_balloon.h"

static const char *const stat_names[] = {
	[VIRTIO_BALLOON_S_SWAP_IN] = "stat-swap-in",
	[VIRTIO_BALLOON_S_SWAP_OUT] = "stat-swap-out",
	[VIRTIO_BALLOON_S_MAJFLT] = "stat-major-faults",
	[VIRTIO_BALLOON_S_MINFLT] = "stat-minor-faults",
	[VIRTIO_BALLOON_S_MEMFREE] = "stat-free-memory",
	[VIRTIO_BALLOON_S_MEMTOT] = "stat-total-memory",
	[VIRTIO_BALLOON_S_AVAIL] = "stat-available-memory",
	[VIRTIO_BALLOON_S_CACHES] = "stat-disk-caches",
	[VIRTIO_BALLOON_S_HTLB_PGALLOC] = "stat-htlb-pgalloc",
	[VIRTIO_BALLOON_S_HTLB_PGFAIL] = "stat-htlb-pgfail",
	[VIRTIO_BALLOON_S_OOM_KILL] = "stat-oom-kills",
	[VIRTIO_BALLOON_S_ALLOC_STALL] = "stat-alloc-stalls",
	[VIRTIO_BALLOON_S_SCAN_ASYNC] = "stat-async-scans",
	[VIRTIO_BALLOON_S_SCAN_DIRECT] = "stat-direct-scans",
	[VIRTIO_BALLOON_S_RECLAIM_ASYNC] = "stat-async-reclaims",
	[VIRTIO_BALLOON_S_RECLAIM_DIRECT] = "stat-direct-reclaims",
};
static_assert(sizeof(stat_names) / sizeof(stat_names[0]) == VIRTIO_BALLOON_S_NR,
	      "a name for every statistic");

const char *stat_name(unsigned int tag)
{
	return stat_names[tag];
}
