// SPDX-License-Identifier: MIT
/* The estimate of what a guest needs: at once when it grows, slowly when it falls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "draw_helpers.h"
#include "policy/demand.h"

#define MIB      (1ULL << 20)
#define SIZE     (4096 * MIB)
#define OVERHEAD (100 * MIB)

static struct demand d;

/* A guest that uses so much (overhead apart), of what it keeps; counts its balloon or not. */
static bool sample(uint64_t at_ms, uint64_t used, uint64_t keeps, bool counts, bool moving)
{
	struct guest_stats s = {.at_ms = at_ms};
	uint64_t available = keeps - OVERHEAD - used;

	stats_put(&s, VIRTIO_BALLOON_S_MEMTOT, (counts ? SIZE : keeps) - OVERHEAD);
	stats_put(&s, VIRTIO_BALLOON_S_AVAIL, available);
	stats_put(&s, VIRTIO_BALLOON_S_MEMFREE, available / 2);
	stats_put(&s, VIRTIO_BALLOON_S_CACHES, available / 2);
	return demand_sample(&d, &s, SIZE, keeps, moving);
}

/* Used counts what the guest must keep, its kernel's own included, in both ways of counting. */
static void used(void **state)
{
	(void)state;
	for (int counts = 0; counts < 2; counts++) {
		uint64_t t = 1000;

		demand_init(&d);
		assert_false(d.known);
		assert_true(sample(t, 500 * MIB, SIZE, counts, false));
		assert_true(d.known);
		assert_true(d.used == 600 * MIB);
		/* The balloon takes a half, then as much again; nothing changes but what is left.
		 */
		assert_true(sample(t += 1000, 500 * MIB, SIZE / 2, counts, false));
		assert_true(d.used == 600 * MIB);
		assert_true(sample(t += 1000, 500 * MIB, SIZE / 2, counts, false));
		assert_true(sample(t += 1000, 500 * MIB, SIZE / 4, counts, false));
		assert_true(d.used == 600 * MIB);
		assert_true(d.working == 600 * MIB);
		assert_int_equal(d.counts_balloon, counts);
		assert_int_equal(d.growth, 0);
		assert_int_equal(d.headroom, 0);
	}
}

/*
 * While the balloon moves, actual and the sample are of different moments. That must look neither
 * like a need nor like idle memory.
 */
static void moving(void **state)
{
	(void)state;
	for (int counts = 0; counts < 2; counts++) {
		struct guest_stats s = {.at_ms = 9000};

		demand_init(&d);
		for (uint64_t t = 1000; t < 5000; t += 1000)
			sample(t, 500 * MIB, SIZE / 2, counts, false);
		/* Deflating: actual says 4 GiB already, the sample is of when it was 2. */
		stats_put(&s, VIRTIO_BALLOON_S_MEMTOT,
			  counts ? SIZE - OVERHEAD : SIZE / 2 - OVERHEAD);
		stats_put(&s, VIRTIO_BALLOON_S_AVAIL, SIZE / 2 - OVERHEAD - 500 * MIB);
		assert_true(demand_sample(&d, &s, SIZE, SIZE, true));
		assert_true(d.used == 600 * MIB);
		assert_true(d.working == 600 * MIB);
		/* Inflating: actual says 1 GiB already. */
		s.at_ms = 10000;
		assert_true(demand_sample(&d, &s, SIZE, SIZE / 4, true));
		assert_true(d.used == 600 * MIB);
		/* A shortage is believed even then. */
		s.at_ms = 11000;
		stats_put(&s, VIRTIO_BALLOON_S_AVAIL, 10 * MIB);
		assert_true(demand_sample(&d, &s, SIZE, SIZE / 2, true));
		assert_true(d.used > 1900 * MIB);
		assert_true(d.headroom >= SIZE / 8);
	}
}

/* Where MEMTOT follows the balloon, growth is seen while it moves, and as much as it is. */
static void growth_in_motion(void **state)
{
	(void)state;
	demand_init(&d);
	for (uint64_t t = 1000; t < 5000; t += 1000)
		sample(t, 500 * MIB, SIZE / 2, false, false);
	sample(5000, 700 * MIB, SIZE / 4, false, true);
	assert_true(d.used == 800 * MIB);
	assert_int_equal(d.measured_ms, 5000);
	/* Where it does not, that has to wait. */
	demand_init(&d);
	for (uint64_t t = 1000; t < 5000; t += 1000)
		sample(t, 500 * MIB, SIZE / 2, true, false);
	sample(5000, 700 * MIB, SIZE / 2 + 100 * MIB, true, true);
	assert_true(d.used == 600 * MIB);
	assert_int_equal(d.measured_ms, 4000);
}

/* Growth is followed at once, with headroom for the time until the next answer. */
static void growth(void **state)
{
	(void)state;
	demand_init(&d);
	sample(1000, 500 * MIB, SIZE, false, false);
	sample(2000, 600 * MIB, SIZE, false, false);
	assert_true(d.working == 700 * MIB);
	assert_true(d.growth == 100 * MIB);
	/* Two samples and a second ahead: 3 s. */
	assert_in_range(d.headroom, 299 * MIB, 300 * MIB);
	/* It is forgotten when it has grown up. */
	for (uint64_t t = 3000; t < 30000; t += 1000)
		sample(t, 600 * MIB, SIZE, false, false);
	assert_in_range(d.headroom, 0, MIB);
	/* Jitter is no growth, a leak is a small one. */
	demand_init(&d);
	for (uint64_t t = 1000; t < 60000; t += 1000)
		sample(t, (500 + t / 1000 % 3 * 5) * MIB, SIZE, false, false);
	assert_int_equal(d.growth, 0);
}

/* Samples every 10 ms: the same growth, seen sooner; and a jump is not extrapolated without end. */
static void fast_samples(void **state)
{
	(void)state;
	demand_init(&d);
	for (uint64_t t = 0; t <= 1000; t += 10)
		sample(1000 + t, 500 * MIB + t * MIB / 5, SIZE, false, false);
	assert_in_range(d.growth, 190 * MIB, 210 * MIB);
	demand_init(&d);
	sample(1000, 500 * MIB, SIZE, false, false);
	sample(1010, 1500 * MIB, SIZE, false, false);
	assert_true(d.headroom <= 1600 * MIB);
}

/* The peak is forgotten slowly: half of it in about 20 s. */
static void decay(void **state)
{
	(void)state;
	demand_init(&d);
	sample(1000, 2000 * MIB, SIZE, false, false);
	sample(2000, 500 * MIB, SIZE, false, false);
	assert_true(d.used == 600 * MIB);
	assert_in_range(d.working, 2000 * MIB, 2100 * MIB);
	for (uint64_t t = 3000; t < 22000; t += 1000)
		sample(t, 500 * MIB, SIZE, false, false);
	assert_in_range(d.working, 1200 * MIB, 1500 * MIB);
	for (uint64_t t = 22000; t < 300000; t += 1000)
		sample(t, 500 * MIB, SIZE, false, false);
	assert_in_range(d.working, 600 * MIB, 601 * MIB);
	/* Seldom or often looked at: about the same. */
	demand_init(&d);
	sample(1000, 2000 * MIB, SIZE, false, false);
	sample(31000, 500 * MIB, SIZE, false, false);
	assert_in_range(d.working, 1200 * MIB, 1500 * MIB);
}

/* Shortage: a quarter of what it has, then a half, then as much again; and it ends at once. */
static void shortage(void **state)
{
	uint64_t keeps = 1024 * MIB, much = keeps - OVERHEAD - 5 * MIB;

	(void)state;
	demand_init(&d);
	sample(1000, much, keeps, false, false);
	assert_true(demand_is_short(&d, SIZE));
	assert_true(d.headroom == keeps / 4);
	sample(2000, much, keeps, false, false);
	assert_true(d.headroom == keeps / 2);
	sample(3000, much, keeps, false, false);
	assert_true(d.headroom == keeps);
	sample(4000, much, keeps, false, false);
	assert_true(d.headroom == keeps);
	sample(5000, much, SIZE, false, false);
	assert_false(demand_is_short(&d, SIZE));
	assert_int_equal(d.headroom, 0);
	demand_hint_short(&d, keeps);
	assert_true(d.headroom == keeps / 4);
}

/* Caches: the peak is remembered for minutes, and takes seconds to be believed. */
static void caches(void **state)
{
	struct guest_stats s = {.at_ms = 1000};

	(void)state;
	demand_init(&d);
	stats_put(&s, VIRTIO_BALLOON_S_AVAIL, 2000 * MIB);
	stats_put(&s, VIRTIO_BALLOON_S_CACHES, 100 * MIB);
	demand_sample(&d, &s, SIZE, SIZE, false);
	assert_true(d.cache == 100 * MIB);
	s.at_ms = 2000;
	stats_put(&s, VIRTIO_BALLOON_S_CACHES, 1100 * MIB);
	demand_sample(&d, &s, SIZE, SIZE, false);
	assert_in_range(d.cache, 150 * MIB, 250 * MIB);
	for (s.at_ms = 3000; s.at_ms < 60000; s.at_ms += 1000)
		demand_sample(&d, &s, SIZE, SIZE, false);
	assert_in_range(d.cache, 1090 * MIB, 1100 * MIB);
	stats_put(&s, VIRTIO_BALLOON_S_CACHES, 0);
	s.at_ms = 120000;
	demand_sample(&d, &s, SIZE, SIZE, false);
	assert_in_range(d.cache, 850 * MIB, 1000 * MIB);
}

/* What makes no sense is clamped, and what says nothing is refused. */
/* What is free is not all idle, and only what stays free is spare. */
static void left_free(void **state)
{
	uint64_t t;

	(void)state;
	demand_init(&d);
	for (t = 1000; t < 1000 + DEMAND_SPARE_MS; t += 1000) {
		sample(t, 500 * MIB, SIZE / 2, false, false);
		assert_int_equal(d.spare, 0);
		assert_true(d.idle == d.free && d.free == 724 * MIB);
	}
	sample(t, 500 * MIB, SIZE / 2, false, false);
	assert_true(d.spare == 724 * MIB);
	/* It grows by 50 MiB in that time, and so it may in the next. */
	for (uint64_t used = 520; used <= 600; used += 20)
		sample(t += 1000, used * MIB, SIZE / 2, false, false);
	assert_true(d.free == 674 * MIB && d.idle == 664 * MIB);
	assert_true(d.spare == 624 * MIB);
	/* What the balloon takes is not filled by the guest, and nothing is known of what is left.
	 */
	sample(t += 1000, 600 * MIB, SIZE / 4, false, false);
	assert_true(d.idle == d.free && d.free == 162 * MIB);
	assert_int_equal(d.spare, 0);
}

/* What a guest kept at the time of its sample, if that can be told. */
static void kept(void **state)
{
	(void)state;
	for (int counts = 0; counts < 2; counts++) {
		struct guest_stats s = {.at_ms = 5000};

		demand_init(&d);
		assert_true(demand_kept(&d, SIZE / 2) == SIZE / 2);
		for (uint64_t t = 1000; t < 5000; t += 1000)
			sample(t, 500 * MIB, SIZE / 2, counts, false);
		/* The balloon is further than was known of it when the guest spoke. */
		stats_put(&s, VIRTIO_BALLOON_S_MEMTOT, (counts ? SIZE : SIZE / 4) - OVERHEAD);
		stats_put(&s, VIRTIO_BALLOON_S_AVAIL, SIZE / 8);
		assert_true(demand_sample(&d, &s, SIZE, SIZE / 2, true));
		assert_true(demand_kept(&d, SIZE / 2) == (counts ? SIZE / 2 : SIZE / 4));
		assert_true(demand_kept(&d, SIZE / 8) == SIZE / 8);
		/* It was given some since: what it said last does not know of that. */
		assert_true(demand_kept(&d, SIZE / 2 + MIB) == SIZE / 2 + MIB);
	}
}

static void hostile(void **state)
{
	struct guest_stats s = {.at_ms = 1000};

	(void)state;
	demand_init(&d);
	assert_false(demand_sample(&d, &s, SIZE, SIZE, false));
	stats_put(&s, VIRTIO_BALLOON_S_MEMTOT, SIZE);
	assert_false(demand_sample(&d, &s, SIZE, SIZE, false));
	assert_false(d.known);
	/* Free memory and caches have to do where AVAIL is missing. */
	stats_put(&s, VIRTIO_BALLOON_S_MEMFREE, 1000 * MIB);
	stats_put(&s, VIRTIO_BALLOON_S_CACHES, 500 * MIB);
	assert_true(demand_sample(&d, &s, SIZE, SIZE, false));
	assert_true(d.used == SIZE - 1500 * MIB);
	/* Not newer. */
	assert_false(demand_sample(&d, &s, SIZE, SIZE, false));
	draw_begin(3);
	for (int i = 0; i < 20000; i++) {
		s = (struct guest_stats){.at_ms = 2000 + (uint64_t)i * draw(9)};
		for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++)
			if (draw(4))
				stats_put(&s, tag, ~0ULL >> draw(64));
		demand_sample(&d, &s, SIZE, ~0ULL >> draw(64), draw(2));
		assert_true(d.used <= SIZE && d.working <= SIZE);
		assert_true(d.available <= SIZE && d.free <= d.available);
		assert_true(d.cache <= SIZE && d.headroom <= SIZE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(used),
		cmocka_unit_test(moving),
		cmocka_unit_test(growth_in_motion),
		cmocka_unit_test(growth),
		cmocka_unit_test(fast_samples),
		cmocka_unit_test(decay),
		cmocka_unit_test(shortage),
		cmocka_unit_test(caches),
		cmocka_unit_test(left_free),
		cmocka_unit_test(kept),
		cmocka_unit_test(hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
