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

enum vu_protocol_feature {
	VU_PF_MQ = 0,                   /* GET_QUEUE_NUM */
	VU_PF_REPLY_ACK = 3,            /* NEED_REPLY flag */
	VU_PF_BACKEND_REQ = 5,          /* a channel for requests to the front end */
	VU_PF_CONFIG = 9,               /* configuration space goes through the back end */
	VU_PF_CONFIGURE_MEM_SLOTS = 15, /* regions come and go one by one */
};

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
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
	uint32_t flags; /* bit 0: log writes to the used ring */
	uint64_t desc;  /* this and the next two: addresses in the front end's space */
	uint64_t used;
	uint64_t avail;
	uint64_t log; /* GPA for logging */
};
static_assert(sizeof(struct vu_vring_addr) == 40, "vhost-user: vring address");

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

union vu_payload {
	uint64_t u64;
	struct vu_vring_state state;
	struct vu_vring_addr addr;
	struct vu_mem_table table;
	struct vu_mem_single single;
	struct vu_config config;
};

#endif
