// SPDX-License-Identifier: MIT
/* libaerostat as a VMM works it: creation, transport, operation, and what it is kept from. */
#include "embed_helpers.h"

#include <errno.h>
#include <stdio.h>

#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define STATSQ  VIRTIO_BALLOON_VQ_STATS
#define HINTQ   VIRTIO_BALLOON_VQ_FREE_PAGE
#define MSGQ    VIRTIO_BALLOON_VQ_MESSAGE
#define BOTH    (BIT(INFLATE) | BIT(DEFLATE))
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define PUSH    BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define HINTS   BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define POISON  BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define MSG     BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define EVENT   BIT(VIRTIO_F_EVENT_IDX)

#define FIELD(f) offsetof(struct virtio_balloon_config, f)

static struct vmm v;

static void version(void **state)
{
	int major, minor, micro, end = 0;

	(void)state;
	/* NOLINTNEXTLINE(cert-err34-c): the count of what was read is looked at */
	assert_int_equal(sscanf(aerostat_version(), "%d.%d.%d%n", &major, &minor, &micro, &end), 3);
	assert_int_equal(aerostat_version()[end], '\0');
}

static void wrong_creation(void **state)
{
	struct {
		struct aerostat_balloon_options o;
		uint64_t later;
	} options = {.o = {.size = sizeof(options.o)}};
	struct aerostat_balloon_ops ops = vmm_ops;
	struct aerostat_balloon *device = NULL;

	(void)state;
	assert_int_equal(aerostat_balloon_create(NULL, &ops, NULL, &device), -EINVAL);
	assert_int_equal(aerostat_balloon_create(&options.o, NULL, NULL, &device), -EINVAL);
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, NULL), -EINVAL);
	for (uint32_t feature = 0; feature < 64; feature++) {
		bool known = feature < VIRTIO_BALLOON_F_STATS_PUSH ||
			     feature == VIRTIO_BALLOON_F_MESSAGE_VQ;

		options.o.features = BIT(feature);
		assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device),
				 known ? 0 : -EINVAL);
		aerostat_balloon_destroy(known ? device : NULL);
	}
	options.o.features = 0;
	options.o.on_pressure = AEROSTAT_PRESSURE_DEFLATE + 1;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), -EINVAL);
	options.o.on_pressure = 0;

	/* Of another version of the header: shorter than the first, or longer than this one. */
	options.o.size = sizeof(options.o) - 1;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), -EINVAL);
	options.o.size = sizeof(options);
	options.later = 1;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), -E2BIG);
	options.later = 0;
	ops.size = 0;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), -EINVAL);
	ops = vmm_ops;
	ops.config_changed = NULL;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), -EINVAL);
	ops = vmm_ops;
	ops.notify = NULL;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), -EINVAL);
	ops = vmm_ops;
	ops.event = NULL;
	ops.broken = NULL;
	device = NULL;
	assert_int_equal(aerostat_balloon_create(&options.o, &ops, NULL, &device), 0);
	assert_non_null(device);
	aerostat_balloon_destroy(device);
	aerostat_balloon_destroy(NULL);
}

static void negotiation(void **state)
{
	const uint64_t rings = EVENT | PACKED | BIT(VIRTIO_F_INDIRECT_DESC);

	(void)state;
	vmm_create(&v, STATS | PUSH);
	assert_true(aerostat_balloon_features(v.device) == (V1 | MTH | STATS | PUSH | rings));
	assert_int_equal(aerostat_balloon_negotiate(v.device, V1 | MSG), -EINVAL);
	assert_true(vmm_info(&v, 0).features_negotiated == 0);
	vmm_start(&v, V1 | MTH | STATS, BOTH);
	assert_int_equal(aerostat_balloon_negotiate(v.device, V1 | MTH), -EBUSY);
	assert_true(vmm_info(&v, 0).features_negotiated == (V1 | MTH | STATS));
	assert_true(vmm_info(&v, 0).features_offered == aerostat_balloon_features(v.device));
	assert_int_equal(aerostat_balloon_reset(v.device), 0);
	assert_true(vmm_info(&v, 0).features_negotiated == 0);
	vmm_end(&v);
}

static void config_space(void **state)
{
	const uint8_t actual[4] = {0, 1, 0, 0};
	uint8_t raw[8];

	(void)state;
	vmm_create(&v, POISON);
	assert_int_equal(aerostat_balloon_set_target(v.device, MIB), 0);
	assert_int_equal(vmm_config(&v, FIELD(num_pages)), 256);
	assert_int_equal(aerostat_balloon_config_write(v.device, FIELD(actual), actual, 4), 0);
	assert_int_equal(vmm_config(&v, FIELD(actual)), 256);
	assert_true(vmm_info(&v, 0).actual == MIB);
	assert_int_equal(vmm_count(&v, CALL_EVENT, AEROSTAT_EVENT_ACTUAL), 1);
	/* What is the device's, or behind the end, nobody writes. */
	assert_int_equal(aerostat_balloon_config_write(v.device, FIELD(num_pages), "abcd", 4), 0);
	assert_int_equal(aerostat_balloon_config_write(v.device, UINT32_MAX, "abcd", 4), 0);
	assert_int_equal(vmm_config(&v, FIELD(num_pages)), 256);
	memset(raw, 1, sizeof(raw));
	assert_int_equal(aerostat_balloon_config_read(v.device, 20, raw, 8), 0);
	for (size_t i = 0; i < sizeof(raw); i++)
		assert_int_equal(raw[i], 0);
	assert_int_equal(aerostat_balloon_config_read(v.device, 0, NULL, 4), -EINVAL);
	assert_int_equal(aerostat_balloon_config_read(v.device, 0, NULL, 0), 0);
	assert_int_equal(aerostat_balloon_config_write(v.device, 0, NULL, 4), -EINVAL);
	vmm_end(&v);
}

static void wrong_rings(void **state)
{
	const struct aerostat_ring good = {
		.desc = 0, .driver = 0x1000, .device = 0x2000, .size = 16};
	uint32_t base;

	(void)state;
	vmm_create(&v, 0);
	assert_int_equal(aerostat_balloon_negotiate(v.device, V1 | MTH), 0);
	const struct {
		int error;
		struct aerostat_ring ring;
	} cases[] = {
		{-EINVAL, {0, 0x1000, 0x2000, 0}},
		{-EINVAL, {0, 0x1000, 0x2000, 15}},
		{-EINVAL, {0, 0x1000, 0x2000, 65536}},
		{-EINVAL, {8, 0x1000, 0x2000, 16}},
		{-EINVAL, {0, 0x1001, 0x2000, 16}},
		{-EINVAL, {0, 0x1000, 0x2002, 16}},
		{-EFAULT, {LOW_BYTES, 0x1000, 0x2000, 16}},
		{-EFAULT, {LOW_BYTES - 128, 0x1000, 0x2000, 16}},
		{-EFAULT, {0, UINT64_MAX - 1, 0x2000, 16}},
		{-EFAULT, {0, 0x1000, HIGH_GPA + HIGH_BYTES - 64, 16}},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aerostat_ring_info info = {.size = sizeof(info)};

		assert_int_equal(aerostat_balloon_start_ring(v.device, 0, &cases[i].ring),
				 cases[i].error);
		assert_int_equal(aerostat_balloon_get_ring(v.device, 0, &info), 0);
		assert_int_equal(info.started, 0);
	}
	assert_int_equal(aerostat_balloon_start_ring(v.device, AEROSTAT_RINGS, &good), -EINVAL);
	assert_int_equal(aerostat_balloon_start_ring(v.device, 0, NULL), -EINVAL);
	assert_int_equal(aerostat_balloon_kick(v.device, AEROSTAT_RINGS), -EINVAL);
	assert_int_equal(aerostat_balloon_stop_ring(v.device, 0, &base), -ENOENT);
	assert_int_equal(aerostat_balloon_stop_ring(v.device, AEROSTAT_RINGS, &base), -EINVAL);
	assert_int_equal(aerostat_balloon_resume_ring(v.device, 0, &good, 65536), -EINVAL);
	assert_int_equal(aerostat_balloon_start_ring(v.device, 0, &good), 0);
	assert_int_equal(aerostat_balloon_start_ring(v.device, 0, &good), -EBUSY);
	assert_int_equal(aerostat_balloon_reset(v.device), 0);
	assert_int_equal(aerostat_balloon_negotiate(v.device, V1 | MTH | PACKED), 0);
	assert_int_equal(aerostat_balloon_resume_ring(v.device, 0, &good, 16), -EINVAL);
	assert_int_equal(aerostat_balloon_resume_ring(v.device, 0, &good, 0x80008000U), 0);
	vmm_end(&v);
}

/* Pause and resume, at every place of a small ring, with one buffer that was not looked at yet. */
static void pause_and_resume(uint64_t features)
{
	vmm_create(&v, 0);
	vmm_start(&v, features, BOTH);
	for (uint32_t i = 0; i < 3 * RING_SIZE; i++) {
		struct driver_buf buf = {vmm_buffer_gpa(INFLATE), 4};
		uint32_t base = 0;

		le32_put(v.low + buf.gpa, FREE_PFN + i);
		assert_true(driver_ring_add(&v.ring[INFLATE], &buf, 1, 1) >= 0);
		assert_int_equal(aerostat_balloon_stop_ring(v.device, INFLATE, &base), 0);
		assert_int_equal(aerostat_balloon_run(v.device, 0), 0);
		assert_false(vmm_returned(&v, INFLATE));
		assert_int_equal(
			aerostat_balloon_resume_ring(v.device, INFLATE, &v.where[INFLATE], base),
			0);
		/* No kick is needed for what was there. */
		assert_true(aerostat_balloon_next_run(v.device) == 0);
		assert_int_equal(aerostat_balloon_run(v.device, 0), 0);
		assert_true(vmm_returned(&v, INFLATE));
		assert_true(vmm_info(&v, 0).held == (i + 1) * PAGE);
	}
	assert_int_equal(aerostat_balloon_reset(v.device), 0);
	assert_true(vmm_info(&v, 0).held == 0 && !vmm_info(&v, 0).driver_active);
	vmm_start(&v, features, BOTH);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 1);
	assert_true(vmm_info(&v, 0).held == PAGE && vmm_error(&v, "inflated-twice") == 0);
	vmm_end(&v);
}

static void resume(void **state)
{
	(void)state;
	pause_and_resume(V1 | MTH);
	pause_and_resume(V1 | MTH | PACKED | EVENT);
}

/* A driver that begins anew without a reset: nothing that was held is taken to be so still. */
static void start_without_reset(void **state)
{
	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	assert_int_equal(aerostat_balloon_inhibit(v.device, AEROSTAT_INHIBIT_USER), 0);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 256);
	assert_int_equal(aerostat_balloon_stop_ring(v.device, INFLATE, NULL), 0);
	vmm_start_ring(&v, INFLATE);
	memset(v.low + FREE_GPA, 7, MIB);
	assert_true(vmm_info(&v, 0).held == 0);
	assert_int_equal(aerostat_balloon_uninhibit(v.device, AEROSTAT_INHIBIT_USER), 0);
	while (aerostat_balloon_run(v.device, 0) == 1)
		;
	assert_int_equal(v.low[FREE_GPA], 7);
	assert_true(vmm_info(&v, 0).freed == 0);
	vmm_end(&v);
}

/* A guest's mistake breaks one queue and nothing else. */
static void hostile_ring(void **state)
{
	struct aerostat_ring_info info = {.size = sizeof(info)};

	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	vmm_send(&v, INFLATE, (struct driver_buf){1ULL << 50, 4}, true, 0);
	assert_int_equal(vmm_count(&v, CALL_BROKEN, INFLATE), 1);
	assert_non_null(v.why);
	assert_int_equal(aerostat_balloon_get_ring(v.device, INFLATE, &info), 0);
	assert_ptr_equal(info.broken, v.why);
	assert_int_equal(info.queue, INFLATE);
	assert_int_equal(info.started, 1);
	assert_true(vmm_error(&v, "queue-broken") == 1);
	vmm_send(&v, INFLATE, (struct driver_buf){vmm_buffer_gpa(0), 4}, true, 0);
	assert_false(vmm_returned(&v, INFLATE));
	assert_int_equal(vmm_count(&v, CALL_BROKEN, INFLATE), 1);

	vmm_send_pfns(&v, DEFLATE, FREE_PFN, 1);
	assert_int_equal(aerostat_balloon_get_ring(v.device, DEFLATE, &info), 0);
	assert_true(!info.broken && info.buffers == 1);
	assert_true(vmm_error(&v, "deflated-not-held") == 1);
	assert_int_equal(aerostat_balloon_stop_ring(v.device, INFLATE, NULL), 0);
	vmm_start_ring(&v, INFLATE);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 1);
	assert_true(vmm_info(&v, 0).held == PAGE);
	vmm_end(&v);
}

/* The driver hears of a used buffer as it asked. */
static void notifications(void **state)
{
	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	assert_int_equal(v.n_calls, 0);
	vmm_send_pfns(&v, DEFLATE, FREE_PFN, 1);
	assert_int_equal(vmm_count(&v, CALL_NOTIFY, DEFLATE), 1);
	le16_put(v.low + v.where[DEFLATE].driver, VRING_AVAIL_F_NO_INTERRUPT);
	vmm_send_pfns(&v, DEFLATE, FREE_PFN, 1);
	assert_int_equal(v.n_calls, 1);
	vmm_end(&v);
}

/* All that changes the device, out of a callback. */
static void try_everything(struct vmm *vmm, enum call call)
{
	struct aerostat_balloon *d = vmm->device;
	const char *name = NULL;
	uint64_t map, n;
	struct aerostat_ring_info ring = {.size = sizeof(ring)};

	(void)call;
	assert_int_equal(aerostat_balloon_set_memory(d, NULL, 0), -EBUSY);
	assert_int_equal(aerostat_balloon_set_dirty_log(d, NULL, 0), -EBUSY);
	assert_int_equal(aerostat_balloon_negotiate(d, V1), -EBUSY);
	assert_int_equal(aerostat_balloon_config_write(d, 4, "abcd", 4), -EBUSY);
	assert_int_equal(aerostat_balloon_start_ring(d, 5, &vmm->where[0]), -EBUSY);
	assert_int_equal(aerostat_balloon_resume_ring(d, 5, &vmm->where[0], 0), -EBUSY);
	assert_int_equal(aerostat_balloon_stop_ring(d, 0, NULL), -EBUSY);
	assert_int_equal(aerostat_balloon_reset(d), -EBUSY);
	assert_int_equal(aerostat_balloon_kick(d, 0), -EBUSY);
	assert_int_equal(aerostat_balloon_run(d, 0), -EBUSY);
	assert_int_equal(aerostat_balloon_set_target(d, 0), -EBUSY);
	assert_int_equal(aerostat_balloon_request_stats(d), -EBUSY);
	assert_int_equal(aerostat_balloon_poll_stats(d, 1, 0), -EBUSY);
	assert_int_equal(aerostat_balloon_push_stats(d, 1), -EBUSY);
	assert_int_equal(aerostat_balloon_inhibit(d, 1), -EBUSY);
	assert_int_equal(aerostat_balloon_uninhibit(d, 1), -EBUSY);
	assert_int_equal(aerostat_balloon_hint(d, AEROSTAT_HINT_STOP), -EBUSY);
	/* and to look at it is fine */
	assert_true(vmm_info(vmm, 0).features_offered == aerostat_balloon_features(d));
	assert_int_equal(vmm_config(vmm, FIELD(num_pages)), vmm_info(vmm, 0).target / PAGE);
	assert_int_equal(aerostat_balloon_read_pages(d, AEROSTAT_PAGES_HELD, 0, 64, &map), 0);
	assert_int_equal(aerostat_balloon_get_ring(d, 0, &ring), 0);
	assert_int_equal(aerostat_balloon_get_error(d, 0, &name, &n), 0);
	assert_true(vmm_resident(vmm) > 0);
	(void)aerostat_balloon_next_run(d);
}

static void callbacks_only_look(void **state)
{
	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	v.inside = try_everything;
	assert_int_equal(aerostat_balloon_set_target(v.device, MIB), 0);
	assert_int_equal(aerostat_balloon_config_write(v.device, 4, "ab\0", 4), 0);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 1);
	vmm_send(&v, INFLATE, (struct driver_buf){1ULL << 50, 4}, true, 0);
	assert_int_equal(v.n_calls, 4); /* one of each kind */
	assert_int_equal(aerostat_balloon_reset(v.device), 0);
	vmm_end(&v);
}

static uint32_t put_stat(uint8_t *at, uint16_t tag, uint64_t value)
{
	le16_put(at, tag);
	le64_put(at + 2, value);
	return sizeof(struct virtio_balloon_stat);
}

static int get_stats(uint64_t now_ms, struct aerostat_stats *stats)
{
	*stats = (struct aerostat_stats){.size = sizeof(*stats)};
	return aerostat_balloon_get_stats(v.device, now_ms, stats);
}

static void statistics(void **state)
{
	struct aerostat_stats stats;
	uint8_t raw[64];
	uint32_t len = 0;

	(void)state;
	vmm_create(&v, STATS);
	assert_int_equal(aerostat_balloon_request_stats(v.device), -ENODEV);
	vmm_start(&v, V1 | MTH | STATS, BOTH | BIT(STATSQ));
	assert_int_equal(get_stats(0, &stats), -ENODATA);
	len += put_stat(raw, VIRTIO_BALLOON_S_MEMFREE, 123456789);
	len += put_stat(raw + len, VIRTIO_BALLOON_S_MEMTOT, VIRTIO_BALLOON_S_UNSET);
	len += put_stat(raw + len, 999, 1);
	vmm_send_bytes(&v, STATSQ, raw, len, 1000);
	assert_int_equal(vmm_count(&v, CALL_EVENT, AEROSTAT_EVENT_STATS), 1);
	assert_int_equal(get_stats(1250, &stats), 0);
	assert_true(stats.age_ms == 250 && stats.valid == BIT(VIRTIO_BALLOON_S_MEMFREE));
	assert_true(stats.value[VIRTIO_BALLOON_S_MEMFREE] == 123456789);
	assert_true(stats.value[VIRTIO_BALLOON_S_MEMTOT] == 0);
	assert_true(vmm_info(&v, 0).unknown_stats == 1);
	/* The buffer stays here until somebody asks. */
	assert_false(vmm_returned(&v, STATSQ));
	assert_int_equal(aerostat_balloon_request_stats(v.device), 0);
	assert_true(vmm_returned(&v, STATSQ));

	assert_true(aerostat_balloon_next_run(v.device) == AEROSTAT_NEVER);
	vmm_send_bytes(&v, STATSQ, raw, len, 2000);
	assert_int_equal(aerostat_balloon_poll_stats(v.device, UINT64_MAX, 2000), -EINVAL);
	assert_int_equal(aerostat_balloon_poll_stats(v.device, 500, 2000), 0);
	assert_true(vmm_returned(&v, STATSQ));
	assert_true(aerostat_balloon_next_run(v.device) == 2500);
	vmm_send_bytes(&v, STATSQ, raw, len, 2100);
	assert_int_equal(aerostat_balloon_run(v.device, 2499), 0);
	assert_false(vmm_returned(&v, STATSQ));
	assert_int_equal(aerostat_balloon_run(v.device, 2500), 0);
	assert_true(vmm_returned(&v, STATSQ));
	assert_int_equal(aerostat_balloon_push_stats(v.device, 100), -ENOTSUP);
	assert_int_equal(aerostat_balloon_reset(v.device), 0);
	assert_int_equal(get_stats(3000, &stats), -ENODATA);
	vmm_end(&v);
}

static void pushed_statistics(void **state)
{
	uint8_t raw[64];
	uint32_t len = put_stat(raw, VIRTIO_BALLOON_S_AVAIL, 5);

	(void)state;
	vmm_create(&v, STATS | PUSH);
	/* Before there is a driver: for the one that comes. */
	assert_int_equal(aerostat_balloon_push_stats(v.device, 100), 0);
	assert_int_equal(vmm_config(&v, FIELD(stats_push_interval_ms)), 100);
	vmm_start(&v, V1 | MTH | STATS | PUSH, BOTH | BIT(STATSQ));
	for (int i = 0; i < 3; i++) {
		vmm_send_bytes(&v, STATSQ, raw, len, 100);
		assert_true(vmm_returned(&v, STATSQ));
	}
	assert_int_equal(vmm_count(&v, CALL_EVENT, AEROSTAT_EVENT_STATS), 3);
	assert_int_equal(vmm_info(&v, 0).push_interval_ms, 100);
	assert_int_equal(aerostat_balloon_push_stats(v.device, 0), 0);
	vmm_send_bytes(&v, STATSQ, raw, len, 200);
	assert_false(vmm_returned(&v, STATSQ));
	vmm_end(&v);
}

/* New target, configuration change, acknowledgement, event: in this order. */
static void pressure(void **state)
{
	static const uint32_t order[] = {CALL_CONFIG, CALL_NOTIFY, CALL_EVENT};
	const struct aerostat_balloon_options options = {
		.size = sizeof(options),
		.features = MSG,
		.on_pressure = AEROSTAT_PRESSURE_DEFLATE,
		.pressure_step = {0, MIB / 4, MIB / 2, MIB},
	};
	const uint8_t medium[8] = {VIRTIO_BALLOON_MSG_PRESSURE, 0, 0, 0,
				   VIRTIO_BALLOON_PRESSURE_MEDIUM};
	struct aerostat_balloon_info info;

	(void)state;
	vmm_create_with(&v, &options, &vmm_ops);
	assert_true(vmm_info(&v, 0).pressure_type == 0);
	vmm_start(&v, V1 | MTH | MSG, BOTH | BIT(MSGQ));
	assert_int_equal(aerostat_balloon_set_target(v.device, 8 * MIB), 0);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 512);
	v.n_calls = 0;
	vmm_send_bytes(&v, MSGQ, medium, sizeof(medium), 1000);
	assert_true(vmm_returned(&v, MSGQ));
	assert_int_equal(v.n_calls, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(v.calls[i].call, order[i]);
	assert_int_equal(v.calls[2].arg, AEROSTAT_EVENT_PRESSURE);
	info = vmm_info(&v, 1300);
	assert_true(info.target == 2 * MIB - MIB / 2);
	assert_int_equal(info.pressure_type, VIRTIO_BALLOON_MSG_PRESSURE);
	assert_int_equal(info.pressure_level, VIRTIO_BALLOON_PRESSURE_MEDIUM);
	assert_true(info.pressure_age_ms == 300);
	assert_true(info.pressure_messages[VIRTIO_BALLOON_PRESSURE_MEDIUM] == 1);
	vmm_end(&v);
}

/* A guest that floods is made to wait, and next_run() says until when. */
static void pressure_flood(void **state)
{
	const struct aerostat_balloon_options options = {
		.size = sizeof(options), .features = MSG, .messages_per_second = 10};
	const uint8_t message[4] = {VIRTIO_BALLOON_MSG_PRESSURE};

	(void)state;
	vmm_create_with(&v, &options, &vmm_ops);
	vmm_start(&v, V1 | MTH | MSG, BOTH | BIT(MSGQ));
	vmm_send_bytes(&v, MSGQ, message, 4, 1000);
	assert_true(vmm_returned(&v, MSGQ));
	vmm_send_bytes(&v, MSGQ, message, 4, 1010);
	assert_false(vmm_returned(&v, MSGQ));
	assert_in_range(aerostat_balloon_next_run(v.device), 1011, 1110);
	assert_int_equal(aerostat_balloon_run(v.device, 1110), 0);
	assert_true(vmm_returned(&v, MSGQ));
	assert_true(vmm_error(&v, "message-flood") == 1);
	vmm_end(&v);
}

static void hints(void **state)
{
	uint64_t map[2];
	uint8_t id[4];

	(void)state;
	vmm_create(&v, HINTS);
	assert_int_equal(aerostat_balloon_hint(v.device, AEROSTAT_HINT_START), -ENODEV);
	vmm_start(&v, V1 | MTH | HINTS, BOTH | BIT(HINTQ));
	assert_int_equal(aerostat_balloon_hint(v.device, (enum aerostat_hint_action)3), -EINVAL);
	assert_int_equal(aerostat_balloon_hint(v.device, AEROSTAT_HINT_START), 0);
	assert_int_equal(aerostat_balloon_hint(v.device, AEROSTAT_HINT_START), -EBUSY);
	assert_int_equal(vmm_info(&v, 0).hint_state, AEROSTAT_HINT_REQUESTED);
	le32_put(id, vmm_config(&v, FIELD(free_page_hint_cmd_id)));
	assert_int_equal(le32_get(id), vmm_info(&v, 0).hint_id);
	vmm_send_bytes(&v, HINTQ, id, 4, 0);
	assert_int_equal(vmm_info(&v, 0).hint_state, AEROSTAT_HINT_HINTING);
	v.low[FREE_GPA] = 1;
	vmm_send(&v, HINTQ, (struct driver_buf){FREE_GPA, 64 * PAGE}, false, 0);
	le32_put(id, VIRTIO_BALLOON_CMD_ID_STOP);
	vmm_send_bytes(&v, HINTQ, id, 4, 0);
	assert_int_equal(vmm_info(&v, 0).hint_state, AEROSTAT_HINT_FINISHED);
	assert_int_equal(vmm_count(&v, CALL_EVENT, AEROSTAT_EVENT_HINT), 2);
	assert_int_equal(aerostat_balloon_read_pages(v.device, AEROSTAT_PAGES_HINTED, FREE_PFN - 32,
						     128, map),
			 0);
	assert_true(map[0] == 0xffffffff00000000ULL && map[1] == 0x00000000ffffffffULL);
	assert_int_equal(v.low[FREE_GPA], 1);
	assert_true(vmm_info(&v, 0).hinted == 64 * PAGE && vmm_info(&v, 0).freed == 0);
	assert_int_equal(aerostat_balloon_hint(v.device, AEROSTAT_HINT_DONE), 0);
	assert_int_equal(vmm_info(&v, 0).hint_state, AEROSTAT_HINT_ENDED);
	assert_int_equal(
		aerostat_balloon_read_pages(v.device, (enum aerostat_page_set)2, 0, 1, map),
		-EINVAL);
	assert_int_equal(aerostat_balloon_read_pages(v.device, AEROSTAT_PAGES_HELD, 0, 0, map),
			 -EINVAL);
	assert_int_equal(
		aerostat_balloon_read_pages(v.device, AEROSTAT_PAGES_HELD, UINT64_MAX, 2, map),
		-EINVAL);
	vmm_end(&v);
}

/* Structures of other versions of the header. */
static void structure_sizes(void **state)
{
	struct {
		struct aerostat_balloon_info info;
		uint64_t later;
	} longer = {.info = {.size = sizeof(longer)}, .later = 5};
	struct aerostat_balloon_info shorter = {.size = sizeof(shorter) - 1, .memory = 5};

	(void)state;
	vmm_create(&v, 0);
	assert_int_equal(aerostat_balloon_get_info(v.device, 0, &longer.info), 0);
	assert_true(longer.info.memory == LOW_BYTES + HIGH_BYTES && longer.later == 0);
	assert_int_equal(longer.info.size, sizeof(longer));
	assert_int_equal(aerostat_balloon_get_info(v.device, 0, &shorter), -EINVAL);
	assert_true(shorter.memory == 5);
	assert_int_equal(aerostat_balloon_get_info(v.device, 0, NULL), -EINVAL);
	vmm_end(&v);
}

/* Every function answers to a device that is not there. */
static void no_device(void **state)
{
	struct aerostat_balloon_info info = {.size = sizeof(info)};
	struct aerostat_ring_info ring = {.size = sizeof(ring)};
	struct aerostat_stats stats = {.size = sizeof(stats)};
	const struct aerostat_ring where = {0};
	uint64_t n;

	(void)state;
	assert_int_equal(aerostat_balloon_set_memory(NULL, NULL, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_set_dirty_log(NULL, NULL, 0), -EINVAL);
	assert_true(aerostat_balloon_features(NULL) == 0);
	assert_int_equal(aerostat_balloon_negotiate(NULL, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_config_read(NULL, 0, &n, 4), -EINVAL);
	assert_int_equal(aerostat_balloon_config_write(NULL, 0, &n, 4), -EINVAL);
	assert_int_equal(aerostat_balloon_start_ring(NULL, 0, &where), -EINVAL);
	assert_int_equal(aerostat_balloon_resume_ring(NULL, 0, &where, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_stop_ring(NULL, 0, NULL), -EINVAL);
	assert_int_equal(aerostat_balloon_reset(NULL), -EINVAL);
	assert_int_equal(aerostat_balloon_kick(NULL, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_run(NULL, 0), -EINVAL);
	assert_true(aerostat_balloon_next_run(NULL) == AEROSTAT_NEVER);
	assert_int_equal(aerostat_balloon_set_target(NULL, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_request_stats(NULL), -EINVAL);
	assert_int_equal(aerostat_balloon_poll_stats(NULL, 0, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_push_stats(NULL, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_get_stats(NULL, 0, &stats), -EINVAL);
	assert_int_equal(aerostat_balloon_inhibit(NULL, 1), -EINVAL);
	assert_int_equal(aerostat_balloon_uninhibit(NULL, 1), -EINVAL);
	assert_int_equal(aerostat_balloon_hint(NULL, AEROSTAT_HINT_STOP), -EINVAL);
	assert_int_equal(aerostat_balloon_read_pages(NULL, AEROSTAT_PAGES_HELD, 0, 1, &n), -EINVAL);
	assert_int_equal(aerostat_balloon_get_info(NULL, 0, &info), -EINVAL);
	assert_int_equal(aerostat_balloon_get_resident(NULL, &n), -EINVAL);
	assert_int_equal(aerostat_balloon_get_ring(NULL, 0, &ring), -EINVAL);
	assert_int_equal(aerostat_balloon_get_error(NULL, 0, NULL, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version),
		cmocka_unit_test(wrong_creation),
		cmocka_unit_test(negotiation),
		cmocka_unit_test(config_space),
		cmocka_unit_test(wrong_rings),
		cmocka_unit_test(resume),
		cmocka_unit_test(start_without_reset),
		cmocka_unit_test(hostile_ring),
		cmocka_unit_test(notifications),
		cmocka_unit_test(callbacks_only_look),
		cmocka_unit_test(statistics),
		cmocka_unit_test(pushed_statistics),
		cmocka_unit_test(pressure),
		cmocka_unit_test(pressure_flood),
		cmocka_unit_test(hints),
		cmocka_unit_test(structure_sizes),
		cmocka_unit_test(no_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
