// SPDX-License-Identifier: MIT
/* libaerostat: the state of a device, taken to another one. */
#include "embed_helpers.h"

#include <errno.h>

#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define STATSQ  VIRTIO_BALLOON_VQ_STATS
#define RINGS   (BIT(INFLATE) | BIT(DEFLATE) | BIT(STATSQ))
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS   BIT(VIRTIO_BALLOON_F_STATS_VQ)

#define STREAM_MAX 65536U

static struct vmm from, to;

/* What was saved, and how it is read. */
static struct stream {
	struct aerostat_balloon *device; /* that is saved or loaded */
	uint8_t bytes[STREAM_MAX];
	size_t len, at;
	size_t piece; /* bytes to give at once */
	int64_t fail; /* what to return when `fail_at` is reached */
	size_t fail_at;
} stream;

static int write_stream(void *opaque, const void *bytes, size_t len)
{
	struct stream *s = opaque;

	assert_int_equal(aerostat_balloon_set_target(s->device, 0), -EBUSY);
	assert_in_range(len, 1, STREAM_MAX - s->len);
	memcpy(s->bytes + s->len, bytes, len);
	s->len += len;
	return s->len > s->fail_at ? (int)s->fail : 0;
}

static int64_t read_stream(void *opaque, void *bytes, size_t len)
{
	struct stream *s = opaque;

	assert_int_equal(aerostat_balloon_run(s->device, 0), -EBUSY);
	assert_true(len > 0);
	if (s->at >= s->fail_at)
		return s->fail;
	len = len < s->piece ? len : s->piece;
	len = len < s->len - s->at ? len : s->len - s->at;
	memcpy(bytes, s->bytes + s->at, len);
	s->at += len;
	return (int64_t)len;
}

static int save(struct vmm *v, uint64_t now_ms)
{
	stream.device = v->device;
	stream.len = 0;
	stream.fail_at = SIZE_MAX;
	return aerostat_balloon_save(v->device, now_ms, write_stream, &stream);
}

static int load(struct vmm *v, uint64_t now_ms, size_t piece)
{
	stream.device = v->device;
	stream.at = 0;
	stream.piece = piece;
	stream.fail_at = SIZE_MAX;
	return aerostat_balloon_load(v->device, now_ms, read_stream, &stream);
}

/* A guest with a filled balloon, paused; what comes with its memory is copied by the VMM. */
static void pause_full(uint32_t bases[3])
{
	uint8_t stat[10];

	vmm_create(&from, STATS);
	vmm_start(&from, V1 | MTH | STATS, RINGS);
	assert_int_equal(aerostat_balloon_set_target(from.device, 4 * MIB), 0);
	memset(from.low + FREE_GPA, 1, 4 * MIB);
	for (uint32_t i = 0; i < 3; i++)
		vmm_send_pfns(&from, INFLATE, FREE_PFN + i * 256, 256);
	vmm_send_pfns(&from, INFLATE, HIGH_PFN + 5, 7);
	vmm_send_pfns(&from, DEFLATE, FREE_PFN, 10);
	assert_int_equal(aerostat_balloon_config_write(from.device, 4, "\1\2\0", 4), 0);
	le16_put(stat, VIRTIO_BALLOON_S_MEMFREE);
	le64_put(stat + 2, 77);
	vmm_send_bytes(&from, STATSQ, stat, sizeof(stat), 1000);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(aerostat_balloon_stop_ring(from.device, i, &bases[i]), 0);
}

/* All that was said stays said. */
static void same_state(void)
{
	struct aerostat_balloon_info a = vmm_info(&from, 0), b = vmm_info(&to, 0);
	uint64_t held[2][LOW_BYTES / PAGE / 64];

	assert_true(a.target == b.target && a.actual == b.actual && a.held == b.held);
	assert_true(a.features_negotiated == b.features_negotiated);
	assert_true(a.inflated == b.inflated && a.deflated == b.deflated);
	for (uint32_t high = 0; high < 2; high++) {
		uint64_t first = high ? HIGH_PFN : 0;

		assert_int_equal(aerostat_balloon_read_pages(from.device, AEROSTAT_PAGES_HELD,
							     first, LOW_BYTES / PAGE, held[0]),
				 0);
		assert_int_equal(aerostat_balloon_read_pages(to.device, AEROSTAT_PAGES_HELD, first,
							     LOW_BYTES / PAGE, held[1]),
				 0);
		assert_memory_equal(held[0], held[1], sizeof(held[0]));
	}
}

/* The guest goes on at `to`, in a copy of its memory. */
static void copy_guest(void)
{
	memcpy(to.low, from.low, LOW_BYTES);
	memcpy(to.ring, from.ring, sizeof(to.ring));
	for (uint32_t i = 0; i < 3; i++) { /* the driver's own pointers into its memory */
		to.ring[i].desc = to.low + (from.ring[i].desc - from.low);
		to.ring[i].driver = to.low + (from.ring[i].driver - from.low);
		to.ring[i].device = to.low + (from.ring[i].device - from.low);
	}
}

static void resume_rings(const uint32_t *bases)
{
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(
			aerostat_balloon_resume_ring(to.device, i, &from.where[i], bases[i]), 0);
}

static void moves(void **state)
{
	struct aerostat_stats stats = {.size = sizeof(stats)};
	uint32_t bases[3];

	(void)state;
	pause_full(bases);
	assert_int_equal(save(&from, 1500), 0);
	vmm_create(&to, STATS);
	copy_guest();
	assert_int_equal(load(&to, 90000, 7), 0);
	assert_int_equal(stream.at, stream.len);
	same_state();
	resume_rings(bases);
	/* What came along of the balloon's pages goes again: copied zeros are memory, too. */
	while (aerostat_balloon_run(to.device, 90000) == 1)
		;
	assert_true(vmm_info(&to, 0).freed - vmm_info(&from, 0).freed >= 758 * PAGE);
	assert_int_equal(to.low[FREE_GPA + 4 * MIB - 1], 1);

	assert_int_equal(aerostat_balloon_get_stats(to.device, 90100, &stats), 0);
	assert_true(stats.age_ms == 600 && stats.value[VIRTIO_BALLOON_S_MEMFREE] == 77);
	assert_int_equal(vmm_count(&to, CALL_EVENT, AEROSTAT_EVENT_STATS), 0);
	assert_int_equal(aerostat_balloon_request_stats(to.device), 0);
	assert_true(vmm_returned(&to, STATSQ));
	vmm_send_pfns(&to, DEFLATE, FREE_PFN + 10, 758);
	vmm_send_pfns(&to, DEFLATE, HIGH_PFN + 5, 7);
	assert_true(vmm_info(&to, 0).held == 0 && vmm_error(&to, "deflated-not-held") == 0);
	vmm_end(&from);
	vmm_end(&to);
}

/* Cut anywhere, or with any byte another one: refused, and nothing has changed. */
static void damaged_states(void **state)
{
	struct aerostat_balloon_info before, after;
	uint32_t bases[3];
	size_t len;

	(void)state;
	pause_full(bases);
	assert_int_equal(save(&from, 1500), 0);
	vmm_create(&to, STATS);
	before = vmm_info(&to, 0);
	len = stream.len;
	for (size_t i = 0; i < len; i++) {
		int r;

		stream.len = i;
		assert_int_equal(load(&to, 0, 64), -EBADMSG);
		stream.len = len;
		stream.bytes[i] ^= 0x40;
		r = load(&to, 0, 64);
		assert_true(r == -EBADMSG || r == -EPROTONOSUPPORT);
		stream.bytes[i] ^= 0x40;
		after = vmm_info(&to, 0);
		assert_memory_equal(&before, &after, sizeof(before));
	}
	assert_int_equal(to.n_calls, 0);
	/* What follows is somebody else's. */
	memcpy(stream.bytes + len, "next", 4);
	stream.len += 4;
	assert_int_equal(load(&to, 0, STREAM_MAX), 0);
	assert_int_equal(stream.at, len);
	same_state();
	vmm_end(&from);
	vmm_end(&to);
}

static void wrong_moments(void **state)
{
	uint32_t bases[3];

	(void)state;
	pause_full(bases);
	vmm_create(&to, 0);
	vmm_start(&to, V1 | MTH, BIT(INFLATE));
	assert_int_equal(save(&to, 0), -EBUSY);
	assert_int_equal(load(&to, 0, 1), -EBUSY);
	assert_int_equal(aerostat_balloon_stop_ring(to.device, INFLATE, NULL), 0);
	assert_int_equal(save(&from, 0), 0);
	assert_int_equal(load(&to, 0, 64), -ENOTSUP); /* statistics are not offered here */
	assert_true(vmm_info(&to, 0).held == 0);
	vmm_end(&to);
	vmm_create(&to, STATS);
	assert_int_equal(aerostat_balloon_negotiate(to.device, V1 | MTH), 0);
	assert_int_equal(load(&to, 0, 64), -EINVAL);
	assert_int_equal(aerostat_balloon_save(NULL, 0, write_stream, &stream), -EINVAL);
	assert_int_equal(aerostat_balloon_save(to.device, 0, NULL, &stream), -EINVAL);
	assert_int_equal(aerostat_balloon_load(NULL, 0, read_stream, &stream), -EINVAL);
	assert_int_equal(aerostat_balloon_load(to.device, 0, NULL, &stream), -EINVAL);
	vmm_end(&from);
	vmm_end(&to);
}

static void failing_streams(void **state)
{
	static const int64_t answers[][2] = {
		{-ECONNRESET, -ECONNRESET},
		{INT64_MIN, -EIO},
		{0, -EBADMSG},
		{INT64_MAX, -EINVAL}, /* more than was asked for */
	};
	uint32_t bases[3];

	(void)state;
	pause_full(bases);
	stream.device = from.device;
	stream.len = 0;
	stream.fail = -ENOSPC;
	stream.fail_at = 0;
	assert_int_equal(aerostat_balloon_save(from.device, 0, write_stream, &stream), -ENOSPC);
	assert_int_equal(save(&from, 0), 0);
	vmm_create(&to, STATS);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		stream.device = to.device;
		stream.at = 0;
		stream.piece = 64;
		stream.fail_at = 100;
		stream.fail = answers[i][0];
		assert_int_equal(aerostat_balloon_load(to.device, 0, read_stream, &stream),
				 answers[i][1]);
	}
	assert_true(vmm_info(&to, 0).held == 0);
	vmm_end(&from);
	vmm_end(&to);
}

/* While somebody holds on to this host's memory, what comes along stays until that ends. */
static void inhibited_on_arrival(void **state)
{
	uint32_t bases[3];

	(void)state;
	pause_full(bases);
	assert_int_equal(save(&from, 0), 0);
	vmm_create(&to, STATS);
	copy_guest();
	memset(to.low + FREE_GPA, 9, MIB);
	assert_int_equal(aerostat_balloon_inhibit(to.device, AEROSTAT_INHIBIT_POSTCOPY), 0);
	assert_int_equal(load(&to, 0, 64), 0);
	assert_int_equal(aerostat_balloon_run(to.device, 0), 0);
	assert_int_equal(to.low[FREE_GPA + 10 * PAGE], 9);
	assert_int_equal(vmm_info(&to, 0).inhibitors, AEROSTAT_INHIBIT_POSTCOPY);
	assert_int_equal(aerostat_balloon_uninhibit(to.device, AEROSTAT_INHIBIT_POSTCOPY), 0);
	/* Nor while the guest stands still: somebody may be copying it. */
	assert_int_equal(aerostat_balloon_run(to.device, 0), 0);
	assert_int_equal(to.low[FREE_GPA + 10 * PAGE], 9);
	resume_rings(bases);
	while (aerostat_balloon_run(to.device, 0) == 1)
		;
	assert_int_equal(to.low[FREE_GPA + 10 * PAGE], 0);
	assert_int_equal(to.low[FREE_GPA + 10 * PAGE - 1], 9);
	vmm_end(&from);
	vmm_end(&to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(moves),
		cmocka_unit_test(damaged_states),
		cmocka_unit_test(wrong_moments),
		cmocka_unit_test(failing_streams),
		cmocka_unit_test(inhibited_on_arrival),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
