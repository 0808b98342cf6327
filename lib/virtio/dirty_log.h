/* SPDX-License-Identifier: MIT */
/*
 * The bitmap in which the device notes which pages of guest memory it has written, for a front end
 * that moves the guest to another host meanwhile. One bit for each 4 KiB, by guest physical
 * address, lowest bit first.
 *
 * Source: vhost-user specification, "Migration".
 */
#ifndef VIRTIO_DIRTY_LOG_H
#define VIRTIO_DIRTY_LOG_H

#include <stdint.h>

#define DIRTY_LOG_PAGE_SHIFT 12U

/* Shared with the front end, which takes bits out at the same time. */
struct dirty_log {
	uint8_t *map; /* NULL: none */
	uint64_t bytes;
};

/*
 * Notes that [gpa, gpa + len) was written; to be called after the writing. What lies behind the
 * log's end, or past 2^64, is passed over. log may be NULL.
 */
void dirty_log_mark(const struct dirty_log *log, uint64_t gpa, uint64_t len);

#endif
