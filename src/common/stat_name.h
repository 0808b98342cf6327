/* SPDX-License-Identifier: MIT */
/* What monitors call a guest's statistics: QEMU's names, which are ours too. */
#ifndef COMMON_STAT_NAME_H
#define COMMON_STAT_NAME_H

/* "stat-free-memory" for VIRTIO_BALLOON_S_MEMFREE. tag < VIRTIO_BALLOON_S_NR. */
const char *stat_name(unsigned int tag);

#endif
