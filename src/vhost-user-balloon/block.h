/* SPDX-License-Identifier: MIT */
/*
 * The block of shared memory that outlives a worker: all that its successor needs beside the
 * descriptors, which the parent keeps, and the bitmaps, which are in files of their own.
 *
 * A worker works on private memory and commits it from time to time. A commit writes a copy that
 * is not the current one and then makes it the current one, in a single store: whenever the worker
 * dies, the current copy is whole. What is large and seldom changes has copies of its own, so that
 * a commit on the data path is a few hundred bytes.
 *
 * Whoever maps it (a newer program, after SIGHUP) checks that the layout is its own. The version
 * must be raised whenever the meaning of a field changes; size tells most other changes.
 */
#ifndef VUB_BLOCK_H
#define VUB_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "balloon/balloon.h"
#include "channel.h"
#include "common/monitor_record.h"
#include "hintfile.h"
#include "policy/health.h"
#include "settings.h"
#include "vhost_user/image.h"

#define BLOCK_VERSION 2U

/* A part of the file of held bits (reclaim.h): enough for 64 TiB of guest memory. */
#define BLOCK_HELD_BYTES (1ULL << 31)
#define BLOCK_HELD_PARTS 3U

/* The file of free page hints (hintfile.h) has a bitmap like those. */
#define BLOCK_HINTS_BYTES (HINTFILE_HEAD_BYTES + BLOCK_HELD_BYTES)

/* What a commit on the data path saves. */
struct block_hot {
	uint32_t cold; /* which copy goes with it */
	bool valid;    /* something was committed */
	struct vq_state vq[VU_MAX_QUEUES];
	struct balloon_state balloon;
	struct virtio_balloon_config told; /* struct frontend */
	struct health health;
	uint64_t change_after_ms; /* no BALLOON_CHANGE before that */
	bool change_due;
	uint64_t failed_discards;
};

struct block_cold {
	uint64_t handled; /* seq of the last event */
	uint64_t session; /* seq of the BEGIN of the open session; 0: none */
	uint32_t reply_len;
	uint8_t reply[CHANNEL_REPLY_MAX]; /* to that event */
	struct vu_image image;            /* ring states: as of struct block_hot */
	uint32_t half;                    /* of the file of held bits */
	struct pageset_layout layout;     /* of both bitmaps */
	bool loaded; /* a device has moved here, and its memory is not all known */
	struct pageset_layout loaded_layout;
	struct settings settings;
	bool guest_size_pending;
};

/* What a worker is doing, so that it can be told what it died of. */
enum block_work {
	BLOCK_IDLE,
	BLOCK_RING,  /* index: the ring; serial: buffers that it has served */
	BLOCK_EVENT, /* serial: the event's */
};

struct block_busy {
	enum block_work work;
	uint32_t index;
	uint64_t serial;
};

struct block_head {
	uint32_t magic;
	uint32_t version;
	uint64_t size; /* of struct block */
};

struct block {
	struct block_head head;
	uint32_t current;  /* of hot[] */
	uint64_t progress; /* rises whenever something was got done */
	struct block_busy busy;
	struct block_busy blamed; /* what the last worker that died by a fault was doing */
	uint32_t deaths;          /* so many in turn died doing just that */
	struct monitor_record client[CHANNEL_CLIENT_COUNT];

	struct block_hot hot[2];
	struct block_cold cold[2];
};

/* A new one, sealed in size, that says "nothing yet". The descriptor or -errno. */
int block_create(void);

/* A sparse file of that size, sealed, for a bitmap. The descriptor or -errno. */
int block_create_file(const char *name, uint64_t size);

/* -EPROTONOSUPPORT: it is not what this program knows; else -errno from mmap(). */
int block_map(int fd, struct block **b);
void block_unmap(struct block *b);

/* The current copies. */
const struct block_hot *block_hot(const struct block *b);
const struct block_cold *block_cold(const struct block *b);

/*
 * A commit: fill in all of block_next_hot(); if something of the cold part has changed, all of
 * block_next_cold() too; then block_commit().
 */
struct block_hot *block_next_hot(struct block *b);
struct block_cold *block_next_cold(struct block *b);
void block_commit(struct block *b);

/* The worker begins with something, and is through with it. */
void block_busy(struct block *b, enum block_work work, uint32_t index, uint64_t serial);
void block_idle(struct block *b);

/* The parent found the worker dead by its own fault: what was it doing? */
void block_blame(struct block *b);

/* So many died in turn while they did this: by block_blame(). */
uint32_t block_deaths(const struct block *b, enum block_work work, uint32_t index, uint64_t serial);

#endif
