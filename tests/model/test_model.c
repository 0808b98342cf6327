// SPDX-License-Identifier: MIT
/*
 * Random operations of a driver against the device, with an oracle (world.h). AEROSTAT_MODEL_SEED
 * takes other seeds than the fixed ones; what fails says which.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

#define SEEDS 20
#define STEPS 400

/* Large: struct balloon's chains. */
static struct world world;

static void shuffle(struct world *w, uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = world_random(w, i), swap = pfn[i - 1];

		pfn[i - 1] = pfn[j];
		pfn[j] = swap;
	}
}

static void reverse(uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		uint32_t swap = pfn[i];

		pfn[i] = pfn[n - 1 - i];
		pfn[n - 1 - i] = swap;
	}
}

/* Up to n pages in the given state from a random place on. */
static uint32_t pick(struct world *w, enum page_state state, uint32_t *pfn, uint32_t n)
{
	uint32_t at = world_random(w, WORLD_PAGES), got = 0;

	for (uint32_t i = 0; i < WORLD_PAGES && got < n; i++) {
		uint32_t page = (at + i) % WORLD_PAGES;

		if (w->page[page] == state)
			pfn[got++] = world_pfn(page);
	}
	return got;
}

/* What a driver must not do: pages in the wrong state, twice, or from nowhere. */
static uint32_t spoil(struct world *w, enum page_state wrong, uint32_t *pfn, uint32_t n)
{
	uint32_t bad = world_random(w, 8);

	if (bad > WORLD_ENTRIES - n)
		bad = WORLD_ENTRIES - n;
	for (uint32_t i = 0; i < bad; i++) {
		uint32_t at = n + i, page = world_random(w, WORLD_PAGES);

		switch (world_random(w, 4)) {
		case 0:
			pfn[at] = at ? pfn[world_random(w, at)] : 0;
			break;
		case 1:
			pfn[at] = w->page[page] == wrong ? world_pfn(page) : 0xffffffff;
			break;
		case 2:
			pfn[at] = 0x3fff0000 + world_random(w, 1000);
			break;
		default:
			pfn[at] = world_random(w, 2) ? 0 : 0xffffffff;
			break;
		}
	}
	return n + bad;
}

static void submit_random(struct world *w, uint32_t queue)
{
	static uint32_t pfn[WORLD_ENTRIES];
	bool inflate = queue == VIRTIO_BALLOON_VQ_INFLATE;
	uint32_t want = 1 + world_random(w, world_random(w, 2) ? 300 : WORLD_ENTRIES);
	uint32_t n = pick(w, inflate ? PAGE_OWNED : PAGE_HELD, pfn, want);

	if (world_random(w, 3) == 0)
		shuffle(w, pfn, n);
	else if (world_random(w, 2))
		reverse(pfn, n);
	if (!n)
		return;
	if (world_random(w, 4)) {
		world_submit(w, queue, pfn, n, world_random(w, 10) ? 0 : 1 + world_random(w, 3));
		return;
	}
	/* Alone, since what it means depends on what else is under way. */
	world_settle(w);
	n = spoil(w, inflate ? PAGE_HELD : PAGE_OWNED, pfn, n);
	shuffle(w, pfn, n);
	world_submit(w, queue, pfn, n, 0);
	world_settle(w);
}

static void step(struct world *w)
{
	uint32_t queue = world_random(w, 2);

	switch (world_random(w, 20)) {
	case 0:
		world_resume(w, queue);
		break;
	case 1:
		world_remap(w);
		break;
	case 2:
		if (world_random(w, 10) == 0)
			world_reset(w);
		break;
	case 3:
		world_settle(w);
		world_check(w);
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		world_collect(w, queue);
		break;
	case 10:
	case 11:
	case 12:
		world_run(w, queue);
		break;
	default:
		submit_random(w, queue);
		break;
	}
}

static void run_config(const struct world_config *config)
{
	const char *text = getenv("AEROSTAT_MODEL_SEED");
	uint64_t first = text ? strtoull(text, NULL, 0) : 1;

	for (uint64_t seed = first; seed < first + SEEDS; seed++) {
		print_message("packed %d event-idx %d indirect %d told %d page %u seed %llu\n",
			      config->packed, config->event_idx, config->indirect, config->told,
			      (unsigned int)config->page_size, (unsigned long long)seed);
		world_init(&world, config, seed);
		for (int i = 0; i < STEPS; i++)
			step(&world);
		world_settle(&world);
		world_check(&world);
		world_free(&world);
	}
}

static void run_all(bool packed, uint64_t page_size)
{
	for (unsigned int bits = 0; bits < 8; bits++) {
		struct world_config config = {
			.packed = packed,
			.event_idx = bits & 1,
			.indirect = bits & 2,
			.told = bits & 4,
			.page_size = page_size,
		};

		run_config(&config);
	}
}

static void test_split_small_pages(void **state)
{
	(void)state;
	run_all(false, 4096);
}

static void test_packed_small_pages(void **state)
{
	(void)state;
	run_all(true, 4096);
}

static void test_split_large_pages(void **state)
{
	(void)state;
	run_all(false, 65536);
}

static void test_packed_large_pages(void **state)
{
	(void)state;
	run_all(true, 65536);
}

/* threats.md 9: a buffer of gigabytes is worked off in turns, the other queue is served meanwhile.
 */
static void test_bounded_turns(void **state)
{
	static const struct world_config config = {.told = true, .page_size = 4096};
	static uint32_t pfn[WORLD_ENTRIES];
	struct world *w = &world;
	struct world_queue *q = &w->queue[VIRTIO_BALLOON_VQ_INFLATE];
	uint8_t *data;
	uint32_t turns = 0, i;
	struct driver_buf piece[32];

	(void)state;
	world_init(w, &config, 1);
	/* One buffer that names the same memory again and again: far more than fits into memory. */
	data = w->low + 0x10000;
	for (i = 0; i < 2048; i++) {
		data[i * 4] = (uint8_t)world_pfn(i);
		data[i * 4 + 1] = (uint8_t)(world_pfn(i) >> 8);
		data[i * 4 + 2] = (uint8_t)(world_pfn(i) >> 16);
		data[i * 4 + 3] = (uint8_t)(world_pfn(i) >> 24);
		w->page[i] = PAGE_GIVING;
	}
	for (i = 0; i < 32; i++)
		piece[i] = (struct driver_buf){0x10000 + 0x10000, 8192};
	assert_true(driver_ring_add(&q->ring, piece, 32, 32) >= 0);

	assert_true(balloon_queue_run(&w->balloon, 0, (struct instant){0}));
	/* Half done; the deflate queue is not kept waiting. */
	for (i = 0; i < 10; i++)
		pfn[i] = world_pfn(4000 + i);
	assert_true(world_submit(w, VIRTIO_BALLOON_VQ_DEFLATE, pfn, 10, 0));
	world_run(w, VIRTIO_BALLOON_VQ_DEFLATE);
	world_collect(w, VIRTIO_BALLOON_VQ_DEFLATE);
	assert_int_equal(w->queue[VIRTIO_BALLOON_VQ_DEFLATE].n_out, 0);
	assert_int_equal(w->balloon.st.buffers[0], 0);
	while (balloon_queue_run(&w->balloon, 0, (struct instant){0}))
		turns++;
	assert_in_range(turns, 8, 32); /* 65536 entries, some 4096 a turn */
	assert_int_equal(w->balloon.st.buffers[0], 1);
	assert_int_equal(balloon_held_bytes(&w->balloon), 2048 * 4096);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_small_pages), cmocka_unit_test(test_packed_small_pages),
		cmocka_unit_test(test_split_large_pages), cmocka_unit_test(test_packed_large_pages),
		cmocka_unit_test(test_bounded_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
