/* SPDX-License-Identifier: MIT */
/*
 * The dirty log that a front end shares while it migrates its guest: received memory, checked and
 * mapped. A bit for each 4 KiB of guest physical addresses, from address 0 on. Source: the
 * vhost-user specification, "Migration".
 */
#ifndef VHOST_USER_LOG_H
#define VHOST_USER_LOG_H

#include <stdint.h>

#include "vhost_user/memory.h"
#include "virtio/dirty_log.h"

struct vu_log {
	struct vu_backing backing; /* without a descriptor there is no log */
	uint64_t offset;           /* where in the file it begins, and how long it is: bytes */
	uint64_t size;
	struct dirty_log dirty; /* what the rings get to see */
};

void vu_log_init(struct vu_log *log);

/* Unmaps it and closes its descriptor. */
void vu_log_clear(struct vu_log *log);

/*
 * Maps size bytes of the file from offset on in the place of what *log had. Takes fd over, also on
 * failure, when *log stays as it was. Errors as vu_backing_map().
 */
int vu_log_set(struct vu_log *log, uint64_t offset, uint64_t size, int fd);

#endif
