/* SPDX-License-Identifier: MIT */
/*
 * A front end for tests: it speaks to a session by bytes and descriptors, and records what the
 * session asks of the device and of whoever serves its rings.
 */
#ifndef TEST_VU_HELPERS_H
#define TEST_VU_HELPERS_H

#include "helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhost_user/requests.h"
#include "vhost_user/session.h"

#define F_PROTOCOL BIT(VHOST_USER_F_PROTOCOL_FEATURES)
#define F_LOG      BIT(VHOST_F_LOG_ALL)
#define F_V1       BIT(VIRTIO_F_VERSION_1)
#define F_PACKED   BIT(VIRTIO_F_RING_PACKED)
#define F_EVENT    BIT(VIRTIO_F_EVENT_IDX)
#define F_OFFERED  (F_V1 | F_PACKED | F_EVENT)

struct test_front {
	struct vu_session s;
	/* what was asked of the device */
	uint64_t features;
	uint32_t resets;
	uint8_t config[8];
	/* ... and of the rings' server */
	uint32_t started[VU_MAX_QUEUES], stopped[VU_MAX_QUEUES];
	bool resumed[VU_MAX_QUEUES];
	uint32_t changing, changed;
	int start_result, changed_result;
	/* the device's state: what was asked, and what it answers */
	uint32_t transfers, checks;
	bool transfer_load;
	int transfer_fd; /* -1: none */
	int transfer_result, check_result;

	int memory; /* file of guest memory */
	uint8_t *map;
};

static inline uint64_t front_features(void *opaque)
{
	(void)opaque;
	return F_OFFERED;
}

static inline int front_set_features(void *opaque, uint64_t features)
{
	struct test_front *f = opaque;

	if (features & ~F_OFFERED)
		return -EINVAL;
	f->features = features;
	return 0;
}

static inline void front_config_read(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len)
{
	struct test_front *f = opaque;

	for (uint32_t i = 0; i < len; i++)
		buf[i] = offset + i < sizeof(f->config) ? f->config[offset + i] : 0;
}

static inline void front_config_write(void *opaque, uint32_t offset, const uint8_t *buf,
				      uint32_t len)
{
	struct test_front *f = opaque;

	for (uint32_t i = 0; i < len; i++) {
		if (offset + i < sizeof(f->config))
			f->config[offset + i] = buf[i];
	}
}

static inline void front_reset(void *opaque)
{
	((struct test_front *)opaque)->resets++;
}

static inline int front_transfer(void *opaque, bool load, int fd)
{
	struct test_front *f = opaque;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		assert_false(vq_started(&f->s.ring[i].vq));
	if (f->transfer_fd >= 0)
		close(f->transfer_fd);
	f->transfers++;
	f->transfer_load = load;
	f->transfer_fd = fd;
	return f->transfer_result;
}

static inline int front_transfer_check(void *opaque)
{
	struct test_front *f = opaque;

	f->checks++;
	return f->check_result;
}

static inline void front_changing(void *opaque)
{
	((struct test_front *)opaque)->changing++;
}

static inline int front_changed(void *opaque)
{
	struct test_front *f = opaque;

	assert_int_equal(f->changing, ++f->changed);
	return f->changed_result;
}

static inline int front_started(void *opaque, uint32_t index, bool resumed)
{
	struct test_front *f = opaque;

	assert_true(vq_started(&f->s.ring[index].vq));
	if (f->start_result)
		return f->start_result;
	assert_int_equal(f->started[index], f->stopped[index]);
	f->started[index]++;
	f->resumed[index] = resumed;
	return 0;
}

static inline void front_stopping(void *opaque, uint32_t index)
{
	struct test_front *f = opaque;

	assert_int_equal(f->started[index], ++f->stopped[index]);
}

static inline void front_init(struct test_front *f)
{
	static const struct vu_device_ops device = {
		front_features, front_set_features, front_config_read,   front_config_write,
		front_reset,    front_transfer,     front_transfer_check};
	static const struct vu_ring_ops rings = {front_changing, front_changed, front_started,
						 front_stopping};

	memset(f, 0, sizeof(*f));
	f->memory = f->transfer_fd = -1;
	vu_session_init(&f->s, &device, &rings, f);
}

static inline int front_count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Sends a message as a socket would bring it, and takes no reply. What feed said. */
static inline int front_send_raw(struct test_front *f, struct vu_header header, const void *payload,
				 const int *fds, uint32_t n_fds)
{
	int r;

	assert_int_equal(vu_session_wanted(&f->s), sizeof(header));
	r = vu_session_feed(&f->s, (const uint8_t *)&header, sizeof(header), fds, n_fds);
	if (r || !header.size)
		return r;
	assert_int_equal(vu_session_wanted(&f->s), header.size);
	return vu_session_feed(&f->s, payload, header.size, NULL, 0);
}

static inline int front_send(struct test_front *f, uint32_t request, const void *payload,
			     uint32_t size, int fd)
{
	struct vu_header header = {request, VU_FLAG_VERSION, size};

	return front_send_raw(f, header, payload, &fd, fd >= 0);
}

static inline int front_send_u64(struct test_front *f, uint32_t request, uint64_t value, int fd)
{
	return front_send(f, request, &value, sizeof(value), fd);
}

static inline int front_send_state(struct test_front *f, uint32_t request, uint32_t index,
				   uint32_t num)
{
	struct vu_vring_state state = {index, num};

	return front_send(f, request, &state, sizeof(state), -1);
}

/* Takes one reply; false if there is none. */
static inline bool front_reply(struct test_front *f, struct vu_header *header,
			       union vu_payload *payload)
{
	size_t len;
	const uint8_t *out = vu_session_output(&f->s, &len);

	if (!len)
		return false;
	assert_true(len >= sizeof(*header));
	memcpy(header, out, sizeof(*header));
	assert_int_equal(header->flags, VU_FLAG_VERSION | VU_FLAG_REPLY);
	assert_true(len >= sizeof(*header) + header->size);
	memset(payload, 0, sizeof(*payload));
	memcpy(payload, out + sizeof(*header), header->size);
	vu_session_sent(&f->s, sizeof(*header) + header->size);
	return true;
}

/* Connects, and negotiates all protocol features and these virtio ones. */
static inline void front_negotiate(struct test_front *f, uint64_t features)
{
	front_init(f);
	assert_int_equal(front_send_u64(f, VU_SET_PROTOCOL_FEATURES, VU_PROTOCOL_FEATURES, -1), 0);
	assert_int_equal(front_send_u64(f, VU_SET_FEATURES, features, -1), 0);
}

/* Guest memory of the tests: FRONT_PAGES pages from FRONT_GPA on. */
#define FRONT_GPA   0x100000ULL
#define FRONT_PAGES 64U
#define FRONT_RING  (4ULL * PAGE) /* from ring to ring */

static inline struct vu_mem_single front_region(void)
{
	return (struct vu_mem_single){
		.region = {FRONT_GPA, (uint64_t)FRONT_PAGES * PAGE, TEST_UADDR + FRONT_GPA, 0}};
}

static inline void front_memory(struct test_front *f)
{
	struct vu_mem_single single = front_region();

	f->memory = memfd_create("guest", MFD_CLOEXEC);
	assert_true(f->memory >= 0);
	assert_int_equal(ftruncate(f->memory, FRONT_PAGES * PAGE), 0);
	f->map = mmap(NULL, FRONT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory, 0);
	assert_true(f->map != MAP_FAILED);
	assert_int_equal(front_send(f, VU_ADD_MEM_REG, &single, sizeof(single), dup(f->memory)), 0);
}

static inline struct vu_vring_addr front_addr(uint32_t index)
{
	uint64_t at = TEST_UADDR + FRONT_GPA + index * FRONT_RING;

	return (struct vu_vring_addr){
		.index = index, .desc = at, .avail = at + PAGE, .used = at + 2 * PAGE};
}

static inline int front_ring_addr(struct test_front *f, uint32_t index)
{
	struct vu_vring_addr addr = front_addr(index);

	return front_send(f, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
}

static inline int front_kick(struct test_front *f, uint32_t index)
{
	return front_send_u64(f, VU_SET_VRING_KICK, index, eventfd(0, EFD_CLOEXEC));
}

/* All that a ring needs but SET_VRING_ENABLE. */
static inline void front_ring_prepare(struct test_front *f, uint32_t index, uint32_t base)
{
	assert_int_equal(front_send_state(f, VU_SET_VRING_NUM, index, 8), 0);
	assert_int_equal(front_send_state(f, VU_SET_VRING_BASE, index, base), 0);
	assert_int_equal(front_ring_addr(f, index), 0);
	assert_int_equal(front_kick(f, index), 0);
}

static inline void front_enable(struct test_front *f, uint32_t index, bool enable)
{
	assert_int_equal(front_send_state(f, VU_SET_VRING_ENABLE, index, enable), 0);
}

/* GET_VRING_BASE; returns what it said. */
static inline uint32_t front_get_base(struct test_front *f, uint32_t index)
{
	struct vu_header header = {0};
	union vu_payload payload = {0};

	assert_int_equal(front_send_state(f, VU_GET_VRING_BASE, index, 0), 0);
	assert_true(front_reply(f, &header, &payload));
	assert_int_equal(header.request, VU_GET_VRING_BASE);
	assert_int_equal(header.size, sizeof(payload.state));
	assert_int_equal(payload.state.index, index);
	return payload.state.num;
}

static inline bool front_runs(const struct test_front *f, uint32_t index)
{
	assert_int_equal(f->started[index] - f->stopped[index], vq_started(&f->s.ring[index].vq));
	return f->started[index] != f->stopped[index];
}

/* The driver sends a buffer over a running ring (8 entries), and it is popped. */
static inline struct vq_chain *front_hold(struct test_front *f, uint32_t index)
{
	static struct vq_chain chain;
	struct vq *vq = &f->s.ring[index].vq;
	uint8_t *desc = f->map + index * FRONT_RING, *avail = desc + PAGE;
	struct test_desc d = {FRONT_GPA, 1, 0, 0};

	if (vq->st.packed) {
		d.flags = test_avail_flags(vq->st.avail_wrap);
		test_put_desc(desc, true, vq->st.avail, d);
	} else {
		test_put_desc(desc, false, 0, d);
		le16_put(avail + VRING_AVAIL_IDX, (uint16_t)(vq->st.avail + 1));
	}
	assert_int_equal(vq_pop(vq, &chain), 1);
	return &chain;
}

/* ... n buffers, which are returned. */
static inline void front_serve(struct test_front *f, uint32_t index, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct vq_chain *chain = front_hold(f, index);

		vq_push(&f->s.ring[index].vq, chain->id, chain->slots, 0);
	}
}

static inline void front_end(struct test_front *f)
{
	vu_session_end(&f->s);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		assert_false(front_runs(f, i));
	if (f->transfer_fd >= 0)
		close(f->transfer_fd);
	if (f->memory >= 0) {
		munmap(f->map, FRONT_PAGES * PAGE);
		close(f->memory);
	}
}

#endif
