// SPDX-License-Identifier: MIT
/*
 * What a simulated guest hands to a policy is what the portable driver would have sent for it: the
 * model is a system to lib/driver (driver_balloon_ops.statistics), and what arrives at the device
 * is compared. A run leaves the rings out because of their cost, which this prints.
 */
#include "driver_helpers.h"

#include <stdio.h>
#include <time.h>

#include "guest.h"

#define QUEUE  VIRTIO_BALLOON_VQ_STATS
#define ROUNDS 20000

static struct test_driver t;
static struct guest guest;

static void on_pressure(void *opaque, struct guest *g, uint32_t level)
{
	(void)opaque;
	(void)g;
	(void)level;
}

static void on_relieved(void *opaque, struct guest *g)
{
	(void)opaque;
	(void)g;
}

static const struct guest_ops guest_ops = {on_pressure, on_relieved, NULL};

static void on_statistics(void *opaque, struct driver_statistics *s)
{
	(void)opaque;
	guest_statistics(&guest, s);
}

/* The buffer that was taken last. */
static struct driver_statistics arrived(void)
{
	struct driver_statistics s = {.set = 0};
	struct chain_cursor at = {0};
	uint8_t entry[10];

	while (chain_read(&td_chain, &at, entry, sizeof(entry)) == sizeof(entry)) {
		uint16_t tag = le16_get(entry);

		assert_in_range(tag, 0, VIRTIO_BALLOON_S_NR - 1);
		s.value[tag] = le64_get(entry + 2);
		s.set |= 1U << tag;
	}
	return s;
}

static double now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void same_on_the_wire(bool scan_tags)
{
	struct driver_balloon_ops ops = td_ops;
	struct rng r = rng_stream(3, scan_tags);
	double wanted = GIB, begin, model = 0, wire = 0;

	guest = (struct guest){.size = 4 * GIB, .kernel = 160 * MIB, .hot = 200 * MIB};
	guest.io = MIB;
	guest.scan_tags = scan_tags;
	guest_start(&guest, GIB, wanted);
	ops.statistics = on_statistics;
	td_init(&t, TD_ALL);
	t.setup.ops = &ops;
	td_begin(&t, 0);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct driver_statistics expected = {.set = 0}, found;

		assert_true(td_pop(&t, QUEUE));
		if (i % 100 == 0)
			wanted = rng_between(&r, 0.2 * GIB, 3.5 * GIB);
		begin = now_ns();
		guest_step(&guest, wanted, 0, &guest_ops);
		guest_statistics(&guest, &expected);
		model += now_ns() - begin;
		begin = now_ns();
		td_return(&t, QUEUE, i * 1000ULL);
		assert_true(td_pop(&t, QUEUE));
		found = arrived();
		wire += now_ns() - begin;
		assert_int_equal(found.set, expected.set);
		assert_memory_equal(found.value, expected.value, sizeof(found.value));
		td_return(&t, QUEUE, i * 1000ULL);
	}
	td_end(&t);
	printf("# a step of a guest %.0f ns, its statistics through lib/driver's ring %.0f ns\n",
	       model / ROUNDS, wire / ROUNDS);
}

static void all_tags(void **state)
{
	(void)state;
	same_on_the_wire(true);
}

static void old_kernel(void **state)
{
	(void)state;
	same_on_the_wire(false);
}

/* Into the balloon and out of it again: what that costs for each page. */
static void pages(void **state)
{
	double begin, took = 0;
	uint32_t rounds = 20;

	(void)state;
	for (uint32_t i = 0; i < rounds; i++) {
		td_init(&t, TD_ALL);
		td_begin(&t, 0);
		begin = now_ns();
		td_set_target(&t, TD_PAGES, 0);
		td_serve_pages(&t, 0);
		assert_int_equal(t.n_taken[DRIVER_FOR_BALLOON], TD_PAGES);
		td_set_target(&t, 0, 0);
		td_serve_pages(&t, 0);
		assert_int_equal(t.n_given[DRIVER_FOR_BALLOON], TD_PAGES);
		took += now_ns() - begin;
		td_end(&t);
	}
	printf("# a page into the balloon and out again through lib/driver: %.1f ns\n",
	       took / rounds / TD_PAGES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_tags),
		cmocka_unit_test(old_kernel),
		cmocka_unit_test(pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
