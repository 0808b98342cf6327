// SPDX-License-Identifier: MIT
/*
 * Which ring is which queue: for every set of features that a device can offer and a driver accept
 * of it, under each of the three numberings, on both kinds of ring and on the legacy interface. And
 * sets of rings that fit none: they are reported, and nothing on them is served.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guest.h"

#define BIT(n) (1ULL << (n))

/* Those that have queues, and those that change what is said on them. */
static const unsigned int bits[] = {
	VIRTIO_BALLOON_F_STATS_VQ,       VIRTIO_BALLOON_F_FREE_PAGE_HINT,
	VIRTIO_BALLOON_F_PAGE_REPORTING, VIRTIO_BALLOON_F_MESSAGE_VQ,
	VIRTIO_BALLOON_F_STATS_PUSH,     VIRTIO_BALLOON_F_PAGE_POISON,
};
#define BITS (sizeof(bits) / sizeof(bits[0]))
#define SETS (1U << BITS)

/* The feature that each queue from the third on exists with. */
static const unsigned int queue_bit[VIRTIO_BALLOON_VQ_COUNT] = {
	[VIRTIO_BALLOON_VQ_STATS] = VIRTIO_BALLOON_F_STATS_VQ,
	[VIRTIO_BALLOON_VQ_FREE_PAGE] = VIRTIO_BALLOON_F_FREE_PAGE_HINT,
	[VIRTIO_BALLOON_VQ_REPORTING] = VIRTIO_BALLOON_F_PAGE_REPORTING,
	[VIRTIO_BALLOON_VQ_MESSAGE] = VIRTIO_BALLOON_F_MESSAGE_VQ,
};

static struct guest guest;
static struct machine machine;

static uint64_t features_of(uint32_t set)
{
	uint64_t features = 0;

	for (uint32_t i = 0; i < BITS; i++)
		features |= set >> i & 1 ? BIT(bits[i]) : 0;
	return features;
}

/* A driver cannot accept it: STATS_PUSH means nothing without STATS_VQ. */
static bool makes_no_sense(uint32_t set)
{
	uint64_t features = features_of(set);

	return features & BIT(VIRTIO_BALLOON_F_STATS_PUSH) &&
	       !(features & BIT(VIRTIO_BALLOON_F_STATS_VQ));
}

/* Does the device see each ring as what the driver uses it for? */
static void check_roles(const struct guest *g)
{
	uint32_t rings = 0;

	for (uint32_t queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		int8_t ring = g->d.ring_of[queue];

		if (ring < 0)
			continue;
		assert_int_equal(balloon_queue_of(g->m.balloon, (uint32_t)ring), queue);
		rings |= 1U << ring;
	}
	for (uint32_t ring = 0; ring < MACHINE_RINGS; ring++) {
		if (!(rings >> ring & 1))
			assert_int_equal(balloon_queue_of(g->m.balloon, ring), -1);
	}
}

/* Says something on every queue there is. */
static void use_queues(struct guest *g)
{
	struct machine *m = &g->m;
	uint64_t before[VIRTIO_BALLOON_VQ_COUNT];

	memcpy(before, m->balloon->st.buffers, sizeof(before));
	machine_set_target(m, 32);
	machine_request_stats(m);
	machine_hint(m, BALLOON_HINT_START);
	g->in_driver = true;
	(void)driver_balloon_pressure(&g->d, VIRTIO_BALLOON_PRESSURE_LOW, m->now.mono_ms);
	while (driver_balloon_has(&g->d, VIRTIO_BALLOON_F_PAGE_REPORTING) && !g->d.report.out)
		(void)driver_balloon_report(&g->d);
	g->in_driver = false;
	guest_settle(g);
	machine_set_target(m, 16);
	guest_settle(g);
	guest_check(g);
	for (uint32_t queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		uint64_t n = m->balloon->st.buffers[queue] - before[queue];

		if (g->d.ring_of[queue] >= 0)
			assert_true(n > 0);
		else
			assert_int_equal(n, 0);
	}
}

static void run_accepted(struct guest *g, uint32_t accepted, bool packed, bool legacy)
{
	uint64_t wanted = features_of(accepted) | BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST);

	/* The legacy interface ends at bit 31. */
	if (legacy && wanted >> 32)
		return;
	if (!legacy)
		wanted |= BIT(VIRTIO_F_VERSION_1);

	for (int numbering = 0; numbering < 3; numbering++) {
		struct guest_driver driver = {
			.wanted = wanted | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0),
			.numbering = (enum driver_numbering)numbering,
			.poison = wanted & BIT(VIRTIO_BALLOON_F_PAGE_POISON),
		};

		guest_start(g, &driver);
		assert_int_equal(g->d.features, driver.wanted);
		check_roles(g);
		use_queues(g);
		guest_stop(g, false);
	}
}

static void run_right(bool packed, bool legacy)
{
	for (uint32_t offered = 0; offered < SETS; offered++) {
		const struct guest_config config = {.offered = features_of(offered),
						    .page_size = 4096};

		if (makes_no_sense(offered))
			continue;
		guest_init(&guest, &config, 1 + offered);
		for (uint32_t accepted = 0; accepted < SETS; accepted++) {
			if (!(accepted & ~offered) && !makes_no_sense(accepted))
				run_accepted(&guest, accepted, packed, legacy);
		}
		guest_free(&guest);
	}
}

static void test_split_right(void **state)
{
	(void)state;
	run_right(false, false);
}

static void test_packed_right(void **state)
{
	(void)state;
	run_right(true, false);
}

static void test_legacy_right(void **state)
{
	(void)state;
	run_right(false, true);
}

/* The rings from the third on that a driver uses which counts the queues of these features. */
static uint32_t rings_counted(uint64_t counted, uint64_t accepted)
{
	uint32_t rings = 0, next = VIRTIO_BALLOON_VQ_STATS;

	for (uint32_t queue = VIRTIO_BALLOON_VQ_STATS; queue < VIRTIO_BALLOON_VQ_COUNT; queue++) {
		if (!(counted >> queue_bit[queue] & 1))
			continue;
		if (accepted >> queue_bit[queue] & 1)
			rings |= 1U << next;
		next++;
	}
	return rings;
}

#define RING_SIZE 8U
#define RING_AREA 4096U

static struct driver_ring rings[MACHINE_RINGS];

/* One buffer in each ring, which says nothing that would be right on any. */
static void start_ring(struct machine *m, uint32_t ring)
{
	uint8_t *host = m->low + (size_t)ring * RING_AREA;
	uint64_t gpa = machine_gpa(m, host);
	const struct machine_ring at = {.size = RING_SIZE,
					.desc = gpa,
					.driver = gpa + driver_ring_driver_offset(RING_SIZE),
					.device =
						gpa + driver_ring_device_offset(false, RING_SIZE)};
	struct driver_buf buf = {gpa + RING_AREA / 2, 4};

	memset(host, 0, RING_AREA);
	driver_ring_init(&rings[ring], false, false, RING_SIZE, host);
	machine_start_ring(m, ring, &at);
	assert_true(driver_ring_add(&rings[ring], &buf, 1, 1) >= 0);
}

static void run_wrong(struct machine *m, uint32_t set)
{
	uint64_t reported = m->balloon->st.errors[BALLOON_ERR_UNKNOWN_QUEUE];
	uint64_t before[VIRTIO_BALLOON_VQ_COUNT];

	memcpy(before, m->balloon->st.buffers, sizeof(before));
	/* In any order. */
	for (uint32_t todo = set | 3; todo;) {
		uint32_t ring = machine_random(m, MACHINE_RINGS);

		if (todo >> ring & 1)
			start_ring(m, ring);
		todo &= ~(1U << ring);
	}
	for (uint32_t ring = 0; ring < MACHINE_RINGS; ring++) {
		if ((set | 3) >> ring & 1)
			machine_kick(m, ring);
		machine_run(m, ring);
	}
	/* It may still be setting up. */
	assert_int_equal(m->balloon->st.errors[BALLOON_ERR_UNKNOWN_QUEUE], reported);
	if (set) {
		m->now.mono_ms = balloon_next_tick(m->balloon);
		machine_tick(m);
	}
	for (uint32_t ring = 0; ring < MACHINE_RINGS; ring++) {
		if (!(set >> ring & 1))
			continue;
		assert_int_equal(balloon_queue_of(m->balloon, ring), -1);
		assert_false(driver_ring_has_used(&rings[ring]));
		assert_int_equal(m->vq[ring].st.in_use, 0);
		assert_int_equal(m->vq[ring].st.avail, 0);
		reported++;
	}
	assert_int_equal(m->balloon->st.errors[BALLOON_ERR_UNKNOWN_QUEUE], reported);
	for (uint32_t queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
		assert_int_equal(m->balloon->st.buffers[queue] - before[queue], queue < 2);
	machine_reset(m);
}

/* All sets of rings that fit no numbering. */
static void run_all_wrong(struct machine *m, uint64_t offered, uint64_t accepted)
{
	machine_set_features(m, accepted | BIT(VIRTIO_F_VERSION_1) |
					BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST));
	for (uint32_t set = 0; set < 1U << VIRTIO_BALLOON_VQ_COUNT; set += 4) {
		if (set != rings_counted(~0ULL, accepted) &&
		    set != rings_counted(accepted, accepted) &&
		    set != rings_counted(offered, accepted))
			run_wrong(m, set);
	}
}

static void test_wrong(void **state)
{
	(void)state;
	for (uint32_t offered = 0; offered < SETS; offered++) {
		const struct machine_config config = {.offered = features_of(offered),
						      .page_size = 4096,
						      .low_bytes = MACHINE_RINGS * RING_AREA};

		if (makes_no_sense(offered))
			continue;
		machine_init(&machine, &config, 1 + offered);
		for (uint32_t accepted = 0; accepted < SETS; accepted++) {
			if (!(accepted & ~offered) && !makes_no_sense(accepted))
				run_all_wrong(&machine, features_of(offered),
					      features_of(accepted));
		}
		machine_free(&machine);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_right),
		cmocka_unit_test(test_packed_right),
		cmocka_unit_test(test_legacy_right),
		cmocka_unit_test(test_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
