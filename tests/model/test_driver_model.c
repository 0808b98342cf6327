// SPDX-License-Identifier: MIT
/*
 * The portable driver and the device with all their features against each other: random operations
 * of the guest, of the operator and of the front end, with the oracle of machine.h. The driver
 * starts afresh now and then, with other features and another numbering of its rings.
 * AEROSTAT_MODEL_SEED takes other seeds than the fixed ones; what fails says which.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "guest.h"

#define BIT(n) (1ULL << (n))

#define SEEDS  50
#define STARTS 3
#define STEPS  250

/* With deaths, the process lives for so many moments on average. */
#define DEATH_IN 10

#define ALL_FEATURES                                                                \
	(BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |    \
	 BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | BIT(VIRTIO_BALLOON_F_PAGE_POISON) | \
	 BIT(VIRTIO_BALLOON_F_PAGE_REPORTING) | BIT(VIRTIO_BALLOON_F_STATS_PUSH) |  \
	 BIT(VIRTIO_BALLOON_F_MESSAGE_VQ))

static struct guest guest;

/* Most of the bits in mask. */
static uint64_t most(struct machine *m, uint64_t mask)
{
	uint64_t bits = mask;

	for (uint32_t i = 0; i < 64; i++) {
		if (machine_random(m, 5) == 0)
			bits &= ~BIT(i);
	}
	return bits;
}

static struct guest_driver some_driver(struct machine *m, bool packed)
{
	static const uint32_t sizes[] = {0, 1, 7, 256, 4096};
	uint64_t features = ALL_FEATURES | BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) |
			    BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_EVENT_IDX) |
			    BIT(VIRTIO_F_INDIRECT_DESC);
	struct guest_driver driver = {
		.wanted = most(m, features),
		.numbering = (enum driver_numbering)machine_random(m, 3),
		.array_pfns = sizes[machine_random(m, 5)],
		.poison = machine_random(m, 4) == 0,
	};

	if (packed)
		driver.wanted |= BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_VERSION_1);
	if (driver.poison && machine_random(m, 2))
		driver.poison_val = 0xaaaaaaaa;
	return driver;
}

static void some_policy(struct machine *m)
{
	m->policy = (struct balloon_policy){
		.on_pressure = (enum balloon_pressure_policy)machine_random(m, 3),
		.step_pages = {100, 50, 200, 400},
		.messages_per_second = machine_random(m, 2) ? 0 : 20,
	};
	m->balloon->policy = m->policy;
}

/* A device that offers all, or now and then only some. */
static struct guest_config some_device(struct machine *m, uint64_t seed, uint64_t page_size)
{
	m->random = seed;
	return (struct guest_config){.offered = seed % 4 ? ALL_FEATURES : most(m, ALL_FEATURES),
				     .page_size = page_size};
}

/* A driver's life, from its start to its end. */
static void live(struct guest *g, bool packed)
{
	struct machine *m = &g->m;
	struct guest_driver driver = some_driver(m, packed);

	some_policy(m);
	guest_start(g, &driver);
	for (uint32_t i = 0; i < STEPS; i++)
		guest_live(g);
	if (m->inhibited)
		machine_inhibit(m, false);
	guest_settle(g);
	guest_check(g);
	guest_stop(g, machine_random(m, 2));
}

static void run(bool packed, uint64_t page_size, uint32_t death_in)
{
	const char *text = getenv("AEROSTAT_MODEL_SEED");
	uint64_t first = text ? strtoull(text, NULL, 0) : 1, deaths = 0;

	for (uint64_t seed = first; seed < first + SEEDS; seed++) {
		struct guest_config config = some_device(&guest.m, seed, page_size);

		print_message("packed %d page %u death in %u seed %llu\n", packed,
			      (unsigned int)page_size, death_in, (unsigned long long)seed);
		config.death_in = death_in;
		guest_init(&guest, &config, seed);
		for (uint32_t start = 0; start < STARTS; start++)
			live(&guest, packed);
		deaths += guest.m.deaths;
		guest_free(&guest);
	}
	print_message("%llu deaths\n", (unsigned long long)deaths);
}

static void test_split(void **state)
{
	(void)state;
	run(false, 4096, 0);
	run(false, 65536, 0);
}

static void test_packed(void **state)
{
	(void)state;
	run(true, 4096, 0);
	run(true, 65536, 0);
}

static void test_split_deaths(void **state)
{
	(void)state;
	run(false, 4096, DEATH_IN);
	run(false, 65536, DEATH_IN);
}

static void test_packed_deaths(void **state)
{
	(void)state;
	run(true, 4096, DEATH_IN);
	run(true, 65536, DEATH_IN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_packed),
		cmocka_unit_test(test_split_deaths),
		cmocka_unit_test(test_packed_deaths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
