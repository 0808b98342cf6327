// SPDX-License-Identifier: MIT
/*
 * The log of written pages: bits and bounds, and that a ring notes all that it writes, where the
 * front end wants it, and nothing else.
 */
#include "helpers.h"

#include <pthread.h>
#include <sched.h>

#include "virtio/dirty_log.h"

#define GPA     0x100000ULL
#define ROOM    0x10000U
#define SIZE    1024U /* of a ring; the used ring of a split one has three pages */
#define PACKED  BIT(VIRTIO_F_RING_PACKED)
#define EVENT   BIT(VIRTIO_F_EVENT_IDX)
#define SPLIT   0ULL
#define FRESH   0x80008000U /* of a packed ring */
#define LOG_GPA 0x20000ULL  /* where the used ring is said to be */
#define NONE    UINT32_MAX

static struct guest_mem mem;
static struct test_ring ring;
static struct vq_chain chain;
static uint8_t *host;

/* For 512 pages; what is behind it is the sanitizer's. */
static uint8_t *map;
static struct dirty_log dirty;

static int set_up(void **state)
{
	(void)state;
	host = test_add_region(&mem, GPA, ROOM, PAGE, NULL);
	map = calloc(1, 64);
	dirty = (struct dirty_log){map, 64};
	return map ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free(host);
	free(map);
	return 0;
}

/* These pages are marked, up to NONE, and no others; then none is. */
static void expect(const uint32_t *pages)
{
	uint8_t expected[64] = {0};

	for (; *pages != NONE; pages++)
		expected[*pages / 8] |= (uint8_t)(1U << *pages % 8);
	assert_memory_equal(map, expected, sizeof(expected));
	memset(map, 0, sizeof(expected));
}

/* EXPECT(NONE): none at all. */
#define EXPECT(...) expect((const uint32_t[]){__VA_ARGS__, NONE})

static void marks(void **state)
{
	struct dirty_log none = {NULL, 64}, empty = {map, 0};

	(void)state;
	dirty_log_mark(&dirty, 0, 1);
	EXPECT(0);
	dirty_log_mark(&dirty, PAGE - 1, 1);
	EXPECT(0);
	dirty_log_mark(&dirty, PAGE - 1, 2);
	EXPECT(0, 1);
	dirty_log_mark(&dirty, PAGE, 1);
	EXPECT(1);
	dirty_log_mark(&dirty, 7ULL * PAGE, 3ULL * PAGE);
	EXPECT(7, 8, 9);
	dirty_log_mark(&dirty, 7ULL * PAGE, 0);
	EXPECT(NONE);
	dirty_log_mark(NULL, 0, 1);
	dirty_log_mark(&none, 0, 1);
	dirty_log_mark(&empty, 0, 1);
	EXPECT(NONE);
	/* What is marked stays so. */
	dirty_log_mark(&dirty, 0, 1);
	dirty_log_mark(&dirty, PAGE, 1);
	dirty_log_mark(&dirty, 0, 1);
	EXPECT(0, 1);
}

static void bounds(void **state)
{
	static const uint64_t beyond[] = {512ULL * PAGE, 1ULL << 40, UINT64_MAX - PAGE, UINT64_MAX};

	(void)state;
	dirty_log_mark(&dirty, 511ULL * PAGE, 1);
	EXPECT(511);
	dirty_log_mark(&dirty, 511ULL * PAGE, 100ULL * PAGE);
	EXPECT(511);
	dirty_log_mark(&dirty, 510ULL * PAGE, UINT64_MAX);
	EXPECT(510, 511);
	for (size_t i = 0; i < ARRAY_SIZE(beyond); i++) {
		dirty_log_mark(&dirty, beyond[i], 1);
		dirty_log_mark(&dirty, beyond[i], 2ULL * PAGE);
		dirty_log_mark(&dirty, beyond[i], UINT64_MAX);
		EXPECT(NONE); /* also not from the beginning, by wrapping */
	}
}

/* Two that mark the same bytes at the same time, each its own bits, round by round. */
#define TOGETHER_ROUNDS 2000U

struct together {
	struct dirty_log log;
	uint32_t arrived;
};

static void mark_together(struct together *w, uint32_t round, uint64_t first)
{
	__atomic_fetch_add(&w->arrived, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&w->arrived, __ATOMIC_SEQ_CST) < 2 * (round + 1))
		sched_yield();
	for (uint64_t page = first; page < w->log.bytes * 8; page += 2)
		dirty_log_mark(&w->log, page * PAGE, 1);
}

static void *mark_odd(void *arg)
{
	for (uint32_t round = 0; round < 2 * TOGETHER_ROUNDS; round += 2) {
		mark_together(arg, round, 1);
		mark_together(arg, round + 1, UINT64_MAX); /* the other one looks and clears */
	}
	return NULL;
}

static void at_the_same_time(void **state)
{
	struct together w = {.log = {calloc(1, 2048), 2048}};
	pthread_t thread;

	(void)state;
	assert_non_null(w.log.map);
	assert_int_equal(pthread_create(&thread, NULL, mark_odd, &w), 0);
	for (uint32_t round = 0; round < 2 * TOGETHER_ROUNDS; round += 2) {
		uint64_t lost = 0;

		mark_together(&w, round, 0);
		mark_together(&w, round + 1, UINT64_MAX);
		for (uint64_t i = 0; i < w.log.bytes; i++)
			lost += w.log.map[i] != 0xff;
		assert_int_equal(lost, 0);
		memset(w.log.map, 0, w.log.bytes);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	free(w.log.map);
}

static void start(uint64_t features, bool log_used)
{
	bool packed = features & PACKED;

	memset(host, 0, ROOM);
	assert_int_equal(
		test_ring_start(&ring, &mem, GPA, host, SIZE, features, vq_fresh_base(packed)), 0);
	ring.vq.log = &dirty;
	ring.vq.st.log_used = log_used;
	ring.vq.st.log_gpa = LOG_GPA;
	memset(map, 0, 64);
}

static void serve(uint32_t n)
{
	uint32_t id = 0, len = 0;

	for (uint32_t i = 0; i < n; i++) {
		test_offer_one(&ring, GPA, 1);
		assert_int_equal(vq_pop(&ring.vq, &chain), 1);
		vq_push(&ring.vq, chain.id, chain.slots, 0);
		assert_true(test_take_used(&ring, &id, &len));
	}
}

/* The used ring of a split ring is noted where the front end says, not where it is. */
static void split_ring(void **state)
{
	const uint32_t first = LOG_GPA / PAGE;

	(void)state;
	for (uint32_t event = 0; event < 2; event++) {
		start(event ? EVENT : SPLIT, true);
		assert_false(vq_enable_kicks(&ring.vq));
		if (event)
			EXPECT(first + 2); /* avail_event stands behind the entries */
		else
			EXPECT(first);
		serve(1);
		EXPECT(first);
		serve(510);
		EXPECT(first);
		serve(1); /* its entry crosses into the next page */
		EXPECT(first, first + 1);
		serve(1);
		EXPECT(first, first + 1);
		serve(510);
		memset(map, 0, 64);
		serve(1); /* the last one: into the third page */
		EXPECT(first, first + 1, first + 2);
		serve(1);
		EXPECT(first);
		(void)vq_should_notify(&ring.vq);
		EXPECT(NONE);
	}
}

static void not_wanted(void **state)
{
	static const uint64_t kinds[] = {SPLIT, EVENT, PACKED, PACKED | EVENT};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		start(kinds[i], !(kinds[i] & PACKED));
		ring.vq.log = NULL;
		assert_false(vq_enable_kicks(&ring.vq));
		serve(3);
		EXPECT(NONE);
		start(kinds[i], false);
		assert_false(vq_enable_kicks(&ring.vq));
		serve(3);
		if (!(kinds[i] & PACKED))
			EXPECT(NONE);
	}
}

/* Of a packed ring it is noted where it is: descriptors in four pages, then the event areas. */
static void packed_ring(void **state)
{
	const uint32_t first = GPA / PAGE;

	(void)state;
	for (uint32_t event = 0; event < 2; event++) {
		start(event ? PACKED | EVENT : PACKED, event);
		assert_int_equal((ring.device - host) / PAGE, 4);
		assert_false(vq_enable_kicks(&ring.vq));
		EXPECT(first + 4);
		serve(1);
		EXPECT(first);
		serve(255);
		EXPECT(first);
		serve(1);
		EXPECT(first + 1);
		serve(SIZE - 257);
		EXPECT(first + 1, first + 2, first + 3);
		serve(1);
		EXPECT(first);
		(void)vq_should_notify(&ring.vq);
		EXPECT(NONE);
	}
}

/* Where the front end has memory says nothing about where the guest has it. */
static void moved_memory(void **state)
{
	struct guest_mem moved = mem;

	(void)state;
	moved.region[0].gpa = 0x40000;
	assert_int_equal(guest_mem_uaddr_gpa(&moved, TEST_UADDR + GPA), 0x40000);
	assert_int_equal(guest_mem_uaddr_gpa(&moved, TEST_UADDR + GPA + ROOM - 1), 0x4ffff);
	assert_int_equal(guest_mem_uaddr_gpa(&moved, TEST_UADDR + GPA + ROOM), UINT64_MAX);
	assert_int_equal(guest_mem_uaddr_gpa(&moved, TEST_UADDR + GPA - 1), UINT64_MAX);
	start(PACKED, false);
	ring.vq.mem = &moved;
	assert_int_equal(vq_remap(&ring.vq), 0);
	test_offer_one(&ring, 0x40000, 1);
	assert_int_equal(vq_pop(&ring.vq, &chain), 1);
	vq_push(&ring.vq, chain.id, chain.slots, 0);
	assert_false(vq_enable_kicks(&ring.vq));
	EXPECT(0x40, 0x44);
}

/* A log_gpa that is nonsense does no harm. */
static void forged_place(void **state)
{
	static const uint64_t places[] = {511ULL * PAGE, 512ULL * PAGE, UINT64_MAX - 4, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		start(EVENT, true);
		ring.vq.st.log_gpa = places[i];
		serve(SIZE);
		assert_false(vq_enable_kicks(&ring.vq));
		memset(map, 0, 64);
	}
}

/* One who dies between writing and noting leaves that to the next; also between that and the rest.
 */
static void after_death(void **state)
{
	static const uint64_t kinds[] = {SPLIT, PACKED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (uint32_t published = 0; published < 2; published++) {
			struct vq_state saved;

			start(kinds[i], true);
			serve(600);
			test_offer_one(&ring, GPA, 1);
			assert_int_equal(vq_pop(&ring.vq, &chain), 1);
			vq_push_prepare(&ring.vq, chain.id, chain.slots, 0);
			saved = ring.vq.st;
			ring.vq.log = NULL;
			if (published)
				vq_push_publish(&ring.vq);
			memset(map, 0, 64);
			ring.vq = (struct vq){.st = saved, .log = &dirty};
			assert_int_equal(vq_recover(&ring.vq, &mem), 0);
			if (kinds[i] & PACKED)
				EXPECT(GPA / PAGE + 2);
			else
				EXPECT(LOG_GPA / PAGE, LOG_GPA / PAGE + 1);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks),        cmocka_unit_test(bounds),
		cmocka_unit_test(split_ring),   cmocka_unit_test(at_the_same_time),
		cmocka_unit_test(not_wanted),   cmocka_unit_test(packed_ring),
		cmocka_unit_test(moved_memory), cmocka_unit_test(forged_place),
		cmocka_unit_test(after_death),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
