// SPDX-License-Identifier: MIT
/*
 * A guest that sends random lists of pages, right and wrong, against the device, with the oracle of
 * machine.h. AEROSTAT_MODEL_SEED takes other seeds than the fixed ones; what fails says which.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raw.h"

#define SEEDS 20
#define STEPS 400

/* With deaths, the process lives for so many moments on average. */
#define DEATH_IN 8

static struct raw world;

static void shuffle(struct raw *w, uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = machine_random(&w->m, i), swap = pfn[i - 1];

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
static uint32_t pick(struct raw *w, enum page_state state, uint32_t *pfn, uint32_t n)
{
	uint32_t at = machine_random(&w->m, MACHINE_PAGES), got = 0;

	for (uint32_t i = 0; i < MACHINE_PAGES && got < n; i++) {
		uint32_t page = (at + i) % MACHINE_PAGES;

		if (w->m.page[page] == state)
			pfn[got++] = machine_pfn(page);
	}
	return got;
}

/* What a driver must not do: pages in the wrong state, twice, or from nowhere. */
static uint32_t spoil(struct raw *w, enum page_state wrong, uint32_t *pfn, uint32_t n)
{
	uint32_t bad = machine_random(&w->m, 8);

	if (bad > RAW_ENTRIES - n)
		bad = RAW_ENTRIES - n;
	for (uint32_t i = 0; i < bad; i++) {
		uint32_t at = n + i, page = machine_random(&w->m, MACHINE_PAGES);

		switch (machine_random(&w->m, 4)) {
		case 0:
			pfn[at] = at ? pfn[machine_random(&w->m, at)] : 0;
			break;
		case 1:
			pfn[at] = w->m.page[page] == wrong ? machine_pfn(page) : 0xffffffff;
			break;
		case 2:
			pfn[at] = 0x3fff0000 + machine_random(&w->m, 1000);
			break;
		default:
			pfn[at] = machine_random(&w->m, 2) ? 0 : 0xffffffff;
			break;
		}
	}
	return n + bad;
}

static void submit_random(struct raw *w, uint32_t queue)
{
	static uint32_t pfn[RAW_ENTRIES];
	bool inflate = queue == VIRTIO_BALLOON_VQ_INFLATE;
	uint32_t want = 1 + machine_random(&w->m, machine_random(&w->m, 2) ? 300 : RAW_ENTRIES);
	uint32_t n = pick(w, inflate ? PAGE_OWNED : PAGE_HELD, pfn, want);

	if (machine_random(&w->m, 3) == 0)
		shuffle(w, pfn, n);
	else if (machine_random(&w->m, 2))
		reverse(pfn, n);
	if (!n)
		return;
	if (machine_random(&w->m, 4)) {
		raw_submit(w, queue, pfn, n,
			   machine_random(&w->m, 10) ? 0 : 1 + machine_random(&w->m, 3));
		return;
	}
	/* Alone, since what it means depends on what else is under way. */
	raw_settle(w);
	n = spoil(w, inflate ? PAGE_HELD : PAGE_OWNED, pfn, n);
	shuffle(w, pfn, n);
	raw_submit(w, queue, pfn, n, 0);
	raw_settle(w);
}

/* More pages than a turn looks at, if they go through a table of their own. */
static void report_random(struct raw *w)
{
	static uint32_t pfn[RAW_ENTRIES];
	uint32_t most = w->config.indirect ? 600 : 50;
	uint32_t n = pick(w, PAGE_OWNED, pfn, 1 + machine_random(&w->m, most));

	if (machine_random(&w->m, 3) == 0)
		shuffle(w, pfn, n);
	if (n)
		raw_report(w, pfn, n);
}

/* While the device is at work; on a ring of a few buffers, so that it comes to an end. */
static void submit_meanwhile(struct raw *w)
{
	static uint32_t pfn[RAW_ENTRIES];
	uint32_t queue = machine_random(&w->m, 2);
	bool inflate = queue == VIRTIO_BALLOON_VQ_INFLATE;
	uint32_t n;

	if (machine_random(&w->m, 4) || w->queue[queue].n_out > 3)
		return;
	if (machine_random(&w->m, 6) == 0 && w->queue[RAW_REPORT].n_out < 3)
		report_random(w);
	n = pick(w, inflate ? PAGE_OWNED : PAGE_HELD, pfn, 1 + machine_random(&w->m, 50));
	if (n)
		raw_submit(w, queue, pfn, n, 0);
}

/* Some of all pages, in a random order. */
static uint32_t pick_any(struct raw *w, uint32_t *pfn, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		pfn[i] = machine_pfn(machine_random(&w->m, MACHINE_PAGES));
	return n;
}

/* Is the page among the device's hints? */
static bool is_hinted(const struct raw *w, uint32_t page)
{
	const struct pageset *hints = &w->m.balloon->hints;
	uint64_t n = 1, at;
	int region = pageset_locate(hints, machine_pfn(page), &n, &at);

	return pageset_all(hints, (uint32_t)region, at, 1);
}

/*
 * A hinting command: what the device has in the end is what was hinted under its id, whatever else
 * the guest says and however often the process dies.
 */
static void hint_round(struct raw *w)
{
	static uint32_t pfn[RAW_ENTRIES];
	static bool expected[MACHINE_PAGES];
	struct machine *m = &w->m;
	uint32_t most = w->config.indirect ? 600 : 40, under = 0, id;
	uint64_t bytes = 0, before;

	memset(expected, 0, sizeof(expected));
	raw_settle(w);
	machine_hint(m, BALLOON_HINT_STOP); /* one that was not finished */
	machine_hint(m, BALLOON_HINT_START);
	assert_int_equal(m->balloon->st.hint.state, BALLOON_HINT_REQUESTED);
	id = m->balloon->st.hint.id;
	before = m->balloon->st.hinted_bytes;
	for (uint32_t i = 0; i < 6; i++) {
		static const int64_t words[] = {-1, -1, 0, 3};
		uint32_t n = pick_any(w, pfn, 1 + machine_random(m, most));
		/* The id comes once, and nothing counts before or behind STOP or another. */
		int64_t word = i == 1 ? id : words[machine_random(m, 4)];

		if (i == 5)
			word = VIRTIO_BALLOON_CMD_ID_STOP;
		if (word == 3)
			word = (int64_t)id + 5;
		if (!raw_hint(w, word, pfn, n))
			continue;
		if (word >= 0)
			under = (uint32_t)word;
		for (uint32_t j = 0; under == id && j < n; j++)
			expected[machine_page(pfn[j])] = true;
		bytes += under == id ? n * 4096ULL : 0;
		machine_run(m, RAW_HINT);
		if (machine_random(m, 4) == 0)
			machine_resume(m, RAW_HINT);
		raw_collect(w, RAW_HINT);
	}
	raw_settle(w);
	if (m->balloon->st.hint.state != BALLOON_HINT_FINISHED)
		return; /* the ring was full */
	for (uint32_t i = 0; i < MACHINE_PAGES; i++)
		assert_int_equal(is_hinted(w, i), expected[i]);
	assert_int_equal(m->balloon->st.hinted_bytes - before, bytes);
}

/* When a turn has ended in the middle of a buffer it is a good time for that. */
static void disturb(struct raw *w)
{
	uint32_t queue = machine_random(&w->m, RAW_QUEUES);

	if (!w->m.balloon->in_hand[balloon_queue_of(w->m.balloon, queue)] ||
	    machine_random(&w->m, 4))
		return;
	if (machine_random(&w->m, 2))
		machine_remap(&w->m);
	else
		machine_resume(&w->m, queue);
}

static void step(struct raw *w)
{
	uint32_t queue = machine_random(&w->m, RAW_QUEUES);

	disturb(w);

	switch (machine_random(&w->m, 20)) {
	case 0:
		machine_resume(&w->m, queue);
		break;
	case 1:
		machine_remap(&w->m);
		break;
	case 2:
		if (machine_random(&w->m, 10) == 0)
			raw_reset(w);
		else if (machine_random(&w->m, 3) == 0)
			hint_round(w);
		break;
	case 3:
		raw_settle(w);
		raw_check(w);
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		raw_collect(w, queue);
		break;
	case 8:
		if (machine_random(&w->m, 4) == 0)
			machine_inhibit(&w->m, !w->m.inhibited);
		break;
	case 9:
		machine_tick(&w->m);
		break;
	case 10:
	case 11:
	case 12:
		machine_run(&w->m, queue);
		break;
	default:
		if (queue == RAW_REPORT)
			report_random(w);
		else if (queue != RAW_HINT)
			submit_random(w, queue);
		break;
	}
}

static uint64_t run_config(const struct raw_config *config)
{
	const char *text = getenv("AEROSTAT_MODEL_SEED");
	uint64_t first = text ? strtoull(text, NULL, 0) : 1, deaths = 0;

	for (uint64_t seed = first; seed < first + SEEDS; seed++) {
		print_message("packed %d event-idx %d indirect %d told %d page %u death in %u "
			      "seed %llu\n",
			      config->packed, config->event_idx, config->indirect, config->told,
			      (unsigned int)config->page_size, config->death_in,
			      (unsigned long long)seed);
		raw_init(&world, config, seed);
		world.more = submit_meanwhile;
		for (int i = 0; i < STEPS; i++)
			step(&world);
		if (world.m.inhibited)
			machine_inhibit(&world.m, false);
		raw_settle(&world);
		raw_check(&world);
		deaths += world.m.deaths;
		raw_free(&world);
	}
	return deaths;
}

static void run_all(bool packed, uint64_t page_size, uint32_t death_in)
{
	uint64_t deaths = 0;

	for (unsigned int bits = 0; bits < 8; bits++) {
		struct raw_config config = {
			.packed = packed,
			.event_idx = bits & 1,
			.indirect = bits & 2,
			.told = bits & 4,
			.page_size = page_size,
			.death_in = death_in,
		};

		deaths += run_config(&config);
	}
	print_message("%llu deaths\n", (unsigned long long)deaths);
}

static void test_split_small_pages(void **state)
{
	(void)state;
	run_all(false, 4096, 0);
}

static void test_packed_small_pages(void **state)
{
	(void)state;
	run_all(true, 4096, 0);
}

static void test_split_large_pages(void **state)
{
	(void)state;
	run_all(false, 65536, 0);
}

static void test_packed_large_pages(void **state)
{
	(void)state;
	run_all(true, 65536, 0);
}

static void test_split_deaths(void **state)
{
	(void)state;
	run_all(false, 4096, DEATH_IN);
	run_all(false, 65536, DEATH_IN);
}

static void test_packed_deaths(void **state)
{
	(void)state;
	run_all(true, 4096, DEATH_IN);
	run_all(true, 65536, DEATH_IN);
}

/* threats.md 9: a buffer of gigabytes is worked off in turns, the other queue is served meanwhile.
 */
static void test_bounded_turns(void **state)
{
	static const struct raw_config config = {.told = true, .page_size = 4096};
	static uint32_t pfn[RAW_ENTRIES];
	struct raw *w = &world;
	struct raw_queue *q = &w->queue[VIRTIO_BALLOON_VQ_INFLATE];
	uint8_t *data;
	uint32_t turns = 0, i;
	struct driver_buf piece[32];

	(void)state;
	raw_init(w, &config, 1);
	/* One buffer that names the same memory again and again: far more than fits into memory. */
	data = w->m.low + 0x10000;
	for (i = 0; i < 2048; i++) {
		data[i * 4] = (uint8_t)machine_pfn(i);
		data[i * 4 + 1] = (uint8_t)(machine_pfn(i) >> 8);
		data[i * 4 + 2] = (uint8_t)(machine_pfn(i) >> 16);
		data[i * 4 + 3] = (uint8_t)(machine_pfn(i) >> 24);
		w->m.page[i] = PAGE_GIVING;
	}
	for (i = 0; i < 32; i++)
		piece[i] = (struct driver_buf){0x10000 + 0x10000, 8192};
	assert_true(driver_ring_add(&q->ring, piece, 32, 32) >= 0);

	assert_true(balloon_queue_run(w->m.balloon, 0, (struct instant){0}));
	/* Half done; the deflate queue is not kept waiting. */
	for (i = 0; i < 10; i++)
		pfn[i] = machine_pfn(4000 + i);
	assert_true(raw_submit(w, VIRTIO_BALLOON_VQ_DEFLATE, pfn, 10, 0));
	machine_run(&w->m, VIRTIO_BALLOON_VQ_DEFLATE);
	raw_collect(w, VIRTIO_BALLOON_VQ_DEFLATE);
	assert_int_equal(w->queue[VIRTIO_BALLOON_VQ_DEFLATE].n_out, 0);
	assert_int_equal(w->m.balloon->st.buffers[0], 0);
	while (balloon_queue_run(w->m.balloon, 0, (struct instant){0}))
		turns++;
	assert_in_range(turns, 8, 32); /* 65536 entries, some 4096 a turn */
	assert_int_equal(w->m.balloon->st.buffers[0], 1);
	assert_int_equal(balloon_held_bytes(w->m.balloon), 2048 * 4096);
	raw_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_small_pages), cmocka_unit_test(test_packed_small_pages),
		cmocka_unit_test(test_split_large_pages), cmocka_unit_test(test_packed_large_pages),
		cmocka_unit_test(test_bounded_turns),     cmocka_unit_test(test_split_deaths),
		cmocka_unit_test(test_packed_deaths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
