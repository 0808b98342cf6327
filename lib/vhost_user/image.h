/* SPDX-License-Identifier: MIT */
/*
 * A session as plain data, so that another process can go on with it: the one that served it may
 * die at any time, or be replaced. The other one must have the same descriptors open under the same
 * numbers; the image holds nothing but these, and no pointers.
 *
 * An image is of the session between two messages. A message of which a part has been fed is to be
 * fed again as a whole; what vu_session_output() has is the caller's to keep.
 */
#ifndef VHOST_USER_IMAGE_H
#define VHOST_USER_IMAGE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhost_user/session.h"

/* As struct vu_ring. Descriptors: -1, there is none. */
struct vu_ring_image {
	struct vq_state vq;
	uint64_t fingerprint;
	int32_t kick_fd;
	int32_t call_fd;
	int32_t err_fd;
	bool kick_set;
	bool addr_set;
	bool enabled;
	bool used;
	bool base_told;
	bool resumed;
	bool unclear;
	bool loaded;
	bool started; /* it ran */
	uint8_t zero[3];
};
static_assert(sizeof(struct vu_ring_image) == 96, "no padding");

struct vu_region_image {
	struct vu_mem_region region;
	int32_t fd;
	uint32_t zero;
};
static_assert(sizeof(struct vu_region_image) == 40, "no padding");

struct vu_image {
	uint64_t features;
	uint64_t protocol_features;
	uint64_t log_offset;
	uint64_t log_size;
	enum vu_state state;
	uint32_t n_regions;
	int32_t backend_fd;
	int32_t log_fd;      /* for signals */
	int32_t log_file_fd; /* the log itself */
	bool loading;
	bool loaded;
	uint8_t zero[2];
	struct vu_ring_image ring[VU_MAX_QUEUES];
	struct vu_region_image region[GUEST_MEM_MAX_REGIONS]; /* n_regions of them */
};
static_assert(sizeof(struct vu_image) == 56 + 96 * VU_MAX_QUEUES + 40 * GUEST_MEM_MAX_REGIONS,
	      "no padding");

#define VU_IMAGE_FDS_MAX (3U * VU_MAX_QUEUES + GUEST_MEM_MAX_REGIONS + 3U)

/*
 * Writes all of *image but the regions that there are not. Cheap enough to be done for each buffer;
 * whoever saves that often and wants it cheaper still saves only ring[].vq (struct vu_ring, vq.st):
 * the rest changes with messages, and when vu_session_stop_ring() or vu_session_backend_lost() is
 * called.
 */
void vu_session_save(const struct vu_session *s, struct vu_image *image);

/*
 * Goes on with a session in *s, which was just initialised. Maps memory and log with the checks
 * that they had when they came; when all is there, calls ring_ops.memory_changing and
 * memory_changed; starts the rings that ran with vq_recover(); when all of them run, calls
 * ring_ops.ring_started for each, resumed. Rings that were broken are broken. The device's ops are
 * not called: its own state is the caller's to bring back, beforehand; and whether the front end is
 * still to be told of a change (vu_session_config_changed()).
 *
 * The descriptors are the session's from here on, also on failure, except after -EBADF. Errors,
 * with s->error set; the session is then to be ended:
 * -EBADF: the image makes no sense, or names a descriptor that is not open; -EFBIG: a file has
 * become shorter; -EPROTO: a ring does not fit into the memory, or cannot be served; others as
 * vu_memory_add().
 */
int vu_session_restore(struct vu_session *s, const struct vu_image *image);

/* All descriptors of an image, to fds, which has room for VU_IMAGE_FDS_MAX; returns how many. */
uint32_t vu_image_fds(const struct vu_image *image, int *fds);

#endif
