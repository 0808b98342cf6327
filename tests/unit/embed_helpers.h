/* SPDX-License-Identifier: MIT */
/*
 * A VMM and its guest for tests of libaerostat: the device is worked through its public headers
 * alone, the guest's side of the rings is the portable driver's.
 *
 * Guest memory: LOW, a memfd at address 0 with rings and buffers in its first part; HIGH, anonymous
 * memory further up.
 */
#ifndef TEST_EMBED_HELPERS_H
#define TEST_EMBED_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <aerostat/balloon.h>

#include "base/le.h"
#include "driver/ring.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)        (1ULL << (n))
#define PAGE          4096ULL
#define MIB           (1ULL << 20)

#define V1     BIT(VIRTIO_F_VERSION_1)
#define PACKED BIT(VIRTIO_F_RING_PACKED)

#define LOW_BYTES  (16 * MIB)
#define HIGH_GPA   (1ULL << 30)
#define HIGH_BYTES (8 * MIB)

#define RING_SIZE   16U
#define RING_GPA(i) (0x4000ULL * (i))
#define BUFFER_GPA  (1 * MIB) /* one for each ring, a page each */
#define FREE_GPA    (2 * MIB) /* from here on the guest has nothing of its own */
#define FREE_PFN    (uint32_t)(FREE_GPA / PAGE)
#define HIGH_PFN    (uint32_t)(HIGH_GPA / PAGE)
#define CALLS_MAX   256U

/* What the device asked for, in order. */
enum call {
	CALL_CONFIG,
	CALL_NOTIFY,
	CALL_BROKEN,
	CALL_EVENT,
};

struct vmm {
	struct aerostat_balloon *device;
	int fd;
	uint8_t *low, *high;
	uint64_t features;
	struct driver_ring ring[AEROSTAT_RINGS];
	struct aerostat_ring where[AEROSTAT_RINGS];

	uint32_t n_calls;
	struct {
		enum call call;
		uint32_t arg;
	} calls[CALLS_MAX];
	const char *why;
	void (*inside)(struct vmm *v, enum call call); /* done in each callback */
};

static inline void vmm_note(struct vmm *v, enum call call, uint32_t arg)
{
	assert_true(v->n_calls < CALLS_MAX);
	v->calls[v->n_calls].call = call;
	v->calls[v->n_calls++].arg = arg;
	if (v->inside)
		v->inside(v, call);
}

static inline void vmm_config_changed(void *opaque)
{
	vmm_note(opaque, CALL_CONFIG, 0);
}

static inline void vmm_notify(void *opaque, uint32_t ring)
{
	vmm_note(opaque, CALL_NOTIFY, ring);
}

static inline void vmm_broken(void *opaque, uint32_t ring, const char *why)
{
	struct vmm *v = opaque;

	v->why = why;
	vmm_note(v, CALL_BROKEN, ring);
}

static inline void vmm_event(void *opaque, enum aerostat_event event)
{
	vmm_note(opaque, CALL_EVENT, event);
}

static const struct aerostat_balloon_ops vmm_ops = {
	.size = sizeof(vmm_ops),
	.config_changed = vmm_config_changed,
	.notify = vmm_notify,
	.broken = vmm_broken,
	.event = vmm_event,
};

/* How often one thing was asked for. */
static inline uint32_t vmm_count(const struct vmm *v, enum call call, uint32_t arg)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < v->n_calls; i++)
		n += v->calls[i].call == call && v->calls[i].arg == arg;
	return n;
}

static inline void vmm_regions(const struct vmm *v, struct aerostat_memory_region regions[2])
{
	regions[0] = (struct aerostat_memory_region){
		.gpa = 0, .size = LOW_BYTES, .host = v->low, .fd = v->fd};
	regions[1] = (struct aerostat_memory_region){
		.gpa = HIGH_GPA, .size = HIGH_BYTES, .host = v->high, .fd = -1};
}

/* Memory, but no device yet. */
static inline void vmm_memory(struct vmm *v)
{
	memset(v, 0, sizeof(*v));
	v->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_true(v->fd >= 0);
	assert_int_equal(ftruncate(v->fd, (off_t)LOW_BYTES), 0);
	v->low = mmap(NULL, LOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	v->high =
		mmap(NULL, HIGH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(v->low != MAP_FAILED && v->high != MAP_FAILED);
}

static inline void vmm_create_with(struct vmm *v, const struct aerostat_balloon_options *options,
				   const struct aerostat_balloon_ops *ops)
{
	struct aerostat_memory_region regions[2];

	vmm_memory(v);
	assert_int_equal(aerostat_balloon_create(options, ops, v, &v->device), 0);
	vmm_regions(v, regions);
	assert_int_equal(aerostat_balloon_set_memory(v->device, regions, 2), 0);
}

static inline void vmm_create(struct vmm *v, uint64_t features)
{
	const struct aerostat_balloon_options options = {.size = sizeof(options),
							 .features = features};

	vmm_create_with(v, &options, &vmm_ops);
}

static inline void vmm_end(struct vmm *v)
{
	aerostat_balloon_destroy(v->device);
	munmap(v->low, LOW_BYTES);
	munmap(v->high, HIGH_BYTES);
	close(v->fd);
}

/* The driver lays a ring out anew, and the device starts it. */
static inline void vmm_start_ring(struct vmm *v, uint32_t i)
{
	bool packed = v->features & PACKED;

	memset(v->low + RING_GPA(i), 0, driver_ring_bytes(packed, RING_SIZE));
	driver_ring_init(&v->ring[i], packed, v->features >> VIRTIO_F_EVENT_IDX & 1, RING_SIZE,
			 v->low + RING_GPA(i));
	v->where[i] = (struct aerostat_ring){
		.desc = RING_GPA(i),
		.driver = RING_GPA(i) + driver_ring_driver_offset(RING_SIZE),
		.device = RING_GPA(i) + driver_ring_device_offset(packed, RING_SIZE),
		.size = RING_SIZE,
	};
	assert_int_equal(aerostat_balloon_start_ring(v->device, i, &v->where[i]), 0);
}

/* A driver comes, with these features, and starts these rings (a mask). */
static inline void vmm_start(struct vmm *v, uint64_t features, uint32_t rings)
{
	v->features = features;
	assert_int_equal(aerostat_balloon_negotiate(v->device, features), 0);
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		if (rings >> i & 1)
			vmm_start_ring(v, i);
	}
	while (aerostat_balloon_run(v->device, 0) == 1)
		;
}

static inline uint64_t vmm_buffer_gpa(uint32_t ring)
{
	return BUFFER_GPA + ring * PAGE;
}

/* Offers a buffer; the device is kicked and runs until it is done. */
static inline void vmm_send(struct vmm *v, uint32_t ring, struct driver_buf buf, bool to_device,
			    uint64_t now_ms)
{
	assert_true(driver_ring_add(&v->ring[ring], &buf, 1, to_device ? 1 : 0) >= 0);
	assert_int_equal(aerostat_balloon_kick(v->device, ring), 0);
	while (aerostat_balloon_run(v->device, now_ms) == 1)
		;
}

/* Writes len bytes into the ring's buffer and sends it. */
static inline void vmm_send_bytes(struct vmm *v, uint32_t ring, const void *bytes, uint32_t len,
				  uint64_t now_ms)
{
	memcpy(v->low + vmm_buffer_gpa(ring), bytes, len);
	vmm_send(v, ring, (struct driver_buf){vmm_buffer_gpa(ring), len}, true, now_ms);
}

static inline bool vmm_returned(struct vmm *v, uint32_t ring)
{
	uint32_t written = 1;
	uint16_t id;
	bool used = driver_ring_used(&v->ring[ring], &id, &written);

	if (used)
		assert_int_equal(written, 0);
	return used;
}

/* Sends n consecutive PFNs, and sees that the buffer comes back. */
static inline void vmm_send_pfns(struct vmm *v, uint32_t ring, uint32_t first, uint32_t n)
{
	uint8_t raw[1024 * 4];

	assert_in_range(n, 1, 1024);
	for (uint32_t i = 0; i < n; i++)
		le32_put(raw + (size_t)i * 4, first + i);
	vmm_send_bytes(v, ring, raw, n * 4, 0);
	assert_true(vmm_returned(v, ring));
}

static inline struct aerostat_balloon_info vmm_info(const struct vmm *v, uint64_t now_ms)
{
	struct aerostat_balloon_info info = {.size = sizeof(info)};

	assert_int_equal(aerostat_balloon_get_info(v->device, now_ms, &info), 0);
	return info;
}

static inline uint64_t vmm_resident(const struct vmm *v)
{
	uint64_t bytes = 0;

	assert_int_equal(aerostat_balloon_get_resident(v->device, &bytes), 0);
	return bytes;
}

/* A field of the configuration space, as the driver reads it. */
static inline uint32_t vmm_config(const struct vmm *v, size_t offset)
{
	uint8_t raw[4];

	assert_int_equal(aerostat_balloon_config_read(v->device, (uint32_t)offset, raw, 4), 0);
	return le32_get(raw);
}

/* How often an error of the driver was counted, by its name. */
static inline uint64_t vmm_error(const struct vmm *v, const char *wanted)
{
	const char *name = NULL;
	uint64_t count = 0;

	for (uint32_t i = 0; aerostat_balloon_get_error(v->device, i, &name, &count) == 0; i++) {
		if (!strcmp(name, wanted))
			return count;
	}
	fail_msg("no error has the name %s", wanted);
	return 0;
}

#endif
