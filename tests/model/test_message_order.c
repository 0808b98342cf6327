// SPDX-License-Identifier: MIT
/*
 * The promise to a guest under pressure: the acknowledgement means that the host has dealt with it.
 * So the order is: the new target, the configuration change, the buffer's return; also when the
 * device's process dies at any moment in between.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "guest.h"

#define BIT(n) (1ULL << (n))

#define HELD   512U
#define WANTED 1024U

/* Moments that the process may die at while it answers a message; more than there are. */
#define MOMENTS 12U

static const uint64_t steps[VIRTIO_BALLOON_PRESSURE_NR] = {64, 32, 128, 256};

static struct guest guest;

/* What was seen, in order. */
static struct {
	enum machine_moment what;
	uint32_t num_pages; /* as the process has it */
	bool used;          /* the message's buffer is back */
} seen[100];
static uint32_t n_seen;

static void watch(void *opaque, enum machine_moment what)
{
	struct guest *g = opaque;

	assert_true(n_seen < sizeof(seen) / sizeof(seen[0]));
	seen[n_seen].what = what;
	seen[n_seen].num_pages = g->m.balloon->st.num_pages;
	seen[n_seen++].used = driver_ring_has_used(&g->d.ring[VIRTIO_BALLOON_VQ_MESSAGE]);
}

/* A guest that has HELD pages in its balloon and is asked for more. */
static void begin(bool packed, enum balloon_pressure_policy policy)
{
	static const struct guest_config config = {.offered = BIT(VIRTIO_BALLOON_F_MESSAGE_VQ),
						   .page_size = 4096};
	struct guest_driver driver = {
		.wanted = ~BIT(VIRTIO_F_RING_PACKED) | (uint64_t)packed << VIRTIO_F_RING_PACKED,
		.numbering = DRIVER_NUMBERS_FIXED,
	};
	struct machine *m = &guest.m;

	guest_init(&guest, &config, 1);
	m->policy.on_pressure = policy;
	memcpy(m->policy.step_pages, steps, sizeof(steps));
	m->balloon->policy = m->policy;
	guest_start(&guest, &driver);
	machine_set_target(m, HELD);
	guest_settle(&guest);
	assert_int_equal(balloon_held_bytes(m->balloon), HELD * 4096);
	machine_set_target(m, WANTED);
	n_seen = 0;
	m->watch = watch;
	/* Nobody looks at the buffer but watch(). */
	m->guest = NULL;
}

static uint32_t expected_target(enum balloon_pressure_policy policy, uint32_t level)
{
	switch (policy) {
	case BALLOON_PRESSURE_HOLD:
		return HELD;
	case BALLOON_PRESSURE_DEFLATE:
		return HELD - (uint32_t)steps[level];
	case BALLOON_PRESSURE_REPORT:
	default:
		return WANTED;
	}
}

static void press(uint32_t level)
{
	struct machine *m = &guest.m;
	int8_t ring = guest.d.ring_of[VIRTIO_BALLOON_VQ_MESSAGE];

	assert_int_equal(driver_balloon_pressure(&guest.d, level, m->now.mono_ms), 0);
	assert_true(guest.d.message.waiting);
	assert_int_equal(ring, VIRTIO_BALLOON_VQ_MESSAGE);
	while (m->runnable[ring])
		machine_run(m, (uint32_t)ring);
}

/* Then the guest looks, and does what it is asked to. */
static void end(uint32_t target)
{
	struct machine *m = &guest.m;

	m->watch = NULL;
	assert_int_equal(m->balloon->st.num_pages, target);
	guest_settle(&guest);
	assert_false(guest.d.message.waiting);
	assert_int_equal(balloon_held_bytes(m->balloon), target * 4096);
	guest_check(&guest);
	guest_free(&guest);
}

static void check_order(enum balloon_pressure_policy policy, uint32_t target)
{
	static const enum machine_moment order[] = {MOMENT_CONFIG, MOMENT_COMMIT, MOMENT_NOTIFY,
						    MOMENT_EVENT, MOMENT_COMMIT};
	/* Where nothing changes the driver is not told that it has. */
	uint32_t at = policy == BALLOON_PRESSURE_REPORT;

	for (uint32_t i = 0; i < n_seen; i++, at++) {
		assert_int_equal(seen[i].what, order[at]);
		assert_int_equal(seen[i].num_pages, target);
		assert_int_equal(seen[i].used, at >= 2);
	}
	assert_int_equal(at, sizeof(order) / sizeof(order[0]));
}

static void run_order(bool packed)
{
	for (int policy = BALLOON_PRESSURE_REPORT; policy <= BALLOON_PRESSURE_DEFLATE; policy++) {
		for (uint32_t level = 0; level < VIRTIO_BALLOON_PRESSURE_NR; level++) {
			uint32_t target =
				expected_target((enum balloon_pressure_policy)policy, level);

			begin(packed, (enum balloon_pressure_policy)policy);
			press(level);
			check_order((enum balloon_pressure_policy)policy, target);
			end(target);
		}
	}
}

static void test_split_order(void **state)
{
	(void)state;
	run_order(false);
}

static void test_packed_order(void **state)
{
	(void)state;
	run_order(true);
}

/* Dies at the nth moment, and once more at the one after that many again. */
static void run_death(bool packed, uint32_t first, uint32_t second)
{
	const uint32_t level = VIRTIO_BALLOON_PRESSURE_MEDIUM;
	const uint32_t target = expected_target(BALLOON_PRESSURE_DEFLATE, level);
	struct machine *m = &guest.m;
	int8_t ring;
	bool told = false;

	begin(packed, BALLOON_PRESSURE_DEFLATE);
	ring = guest.d.ring_of[VIRTIO_BALLOON_VQ_MESSAGE];
	m->die_at = first;
	assert_int_equal(driver_balloon_pressure(&guest.d, level, m->now.mono_ms), 0);
	machine_run(m, (uint32_t)ring);
	if (m->deaths)
		m->die_at = second;
	while (m->runnable[ring])
		machine_run(m, (uint32_t)ring);
	m->die_at = 0;
	for (uint32_t i = 0; i < n_seen; i++) {
		told = told || (seen[i].what == MOMENT_CONFIG && seen[i].num_pages == target);
		if (seen[i].used) {
			assert_true(told);
			assert_int_equal(seen[i].num_pages, target);
		}
	}
	assert_true(told);
	assert_int_equal(m->balloon->st.pressure.messages[level], 1);
	end(target);
}

static void test_deaths(void **state)
{
	(void)state;
	for (uint32_t packed = 0; packed < 2; packed++) {
		for (uint32_t first = 1; first <= MOMENTS; first++) {
			for (uint32_t second = 0; second <= MOMENTS; second++)
				run_death(packed, first, second);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_order),
		cmocka_unit_test(test_packed_order),
		cmocka_unit_test(test_deaths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
