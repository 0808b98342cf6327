/* SPDX-License-Identifier: MIT */
/*
 * The vhost-user messages as they are on the socket, in host byte order. Source: the vhost-user
 * specification (QEMU, docs/interop/vhost-user.rst).
 */
#ifndef VHOST_USER_PROTOCOL_H
#define VHOST_USER_PROTOCOL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Bit of the virtio feature mask that says that there are protocol features. */
#define VHOST_USER_F_PROTOCOL_FEATURES 30
/* ... and that writes to guest memory go to the dirty log. */
#define VHOST_F_LOG_ALL 26

enum vu_protocol_feature {
	VU_PF_MQ = 0,                   /* GET_QUEUE_NUM */
	VU_PF_LOG_SHMFD = 1,            /* the dirty log comes as a descriptor */
	VU_PF_REPLY_ACK = 3,            /* NEED_REPLY flag */
	VU_PF_BACKEND_REQ = 5,          /* a channel for requests to the front end */
	VU_PF_CONFIG = 9,               /* configuration space goes through the back end */
	VU_PF_CONFIGURE_MEM_SLOTS = 15, /* regions come and go one by one */
	VU_PF_DEVICE_STATE = 19,        /* the device's state can be moved */
};

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_DEVICE_STATE_FD = 42,
	VU_CHECK_DEVICE_STATE = 43,
	VU_REQUEST_COUNT,
};

/* What the back end asks of the front end. */
enum vu_backend_request {
	VU_BACKEND_CONFIG_CHANGE = 2,
};

#define VU_FLAG_VERSION      0x1U /* the only version there is */
#define VU_FLAG_VERSION_MASK 0x3U
#define VU_FLAG_REPLY        0x4U
#define VU_FLAG_NEED_REPLY   0x8U

#define VU_MEM_TABLE_MAX 8U   /* regions in one SET_MEM_TABLE */
#define VU_CONFIG_MAX    256U /* bytes of configuration space in one message */
#define VU_FDS_MAX       8U   /* descriptors with one message */

struct vu_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload, bytes */
};
static_assert(sizeof(struct vu_header) == 12, "vhost-user: header");

struct vu_vring_state {
	uint32_t index;
	uint32_t num; /* size, base, or enable flag */
};
static_assert(sizeof(struct vu_vring_state) == 8, "vhost-user: vring state");

struct vu_vring_addr {
	uint32_t index;
	uint32_t flags; /* VU_VRING_F_LOG, or 0 */
	uint64_t desc;  /* this and the next two: addresses in the front end's space */
	uint64_t used;
	uint64_t avail;
	uint64_t log; /* where in the dirty log the used ring begins: GPA */
};
static_assert(sizeof(struct vu_vring_addr) == 40, "vhost-user: vring address");

#define VU_VRING_F_LOG 1U /* writes to the used ring go to the dirty log */

/* Payload of the three messages that carry a vring's descriptor. */
#define VU_VRING_INDEX_MASK 0xffU
#define VU_VRING_NO_FD      0x100U

struct vu_mem_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uaddr; /* in the front end's space */
	uint64_t mmap_offset;
};
static_assert(sizeof(struct vu_mem_region) == 32, "vhost-user: memory region");

struct vu_mem_table {
	uint32_t n;
	uint32_t padding;
	struct vu_mem_region region[VU_MEM_TABLE_MAX];
};
static_assert(offsetof(struct vu_mem_table, region) == 8, "vhost-user: memory table");

struct vu_mem_single {
	uint64_t padding;
	struct vu_mem_region region;
};
static_assert(sizeof(struct vu_mem_single) == 40, "vhost-user: single memory region");

struct vu_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags; /* 0: by the guest; 1: by migration */
	uint8_t data[VU_CONFIG_MAX];
};
static_assert(offsetof(struct vu_config, data) == 12, "vhost-user: configuration space");

/* The dirty log: bit n of the file from mmap_offset on stands for guest memory from n * 4 KiB on.
 */
struct vu_log_area {
	uint64_t mmap_size; /* bytes */
	uint64_t mmap_offset;
};
static_assert(sizeof(struct vu_log_area) == 16, "vhost-user: log description");

/* Which way the device's state goes; phases: there is one. */
enum vu_transfer_direction {
	VU_TRANSFER_SAVE = 0,
	VU_TRANSFER_LOAD = 1,
};

#define VU_TRANSFER_PHASE_STOPPED 0U

struct vu_transfer {
	uint32_t direction;
	uint32_t phase;
};
static_assert(sizeof(struct vu_transfer) == 8, "vhost-user: device state transfer parameters");

/* The reply to SET_DEVICE_STATE_FD: bits 0 to 7 not zero, it failed. */
#define VU_TRANSFER_FAILED 0x1U
#define VU_TRANSFER_NO_FD  0x100U /* there is no descriptor in the reply: use the one sent */

union vu_payload {
	uint64_t u64;
	struct vu_vring_state state;
	struct vu_vring_addr addr;
	struct vu_mem_table table;
	struct vu_mem_single single;
	struct vu_config config;
	struct vu_log_area log;
	struct vu_transfer transfer;
};

#endif
