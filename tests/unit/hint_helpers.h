/* SPDX-License-Identifier: MIT */
/*
 * What the tests of free page hinting share: a guest whose pages nobody may look at, and its
 * driver. Nothing may be discarded, whatever happens.
 */
#ifndef TEST_HINT_HELPERS_H
#define TEST_HINT_HELPERS_H

#include "helpers.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define PACKED  BIT(VIRTIO_F_RING_PACKED)
#define HINT    BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define QUEUE   VIRTIO_BALLOON_VQ_FREE_PAGE
#define RING    2U
#define START   BALLOON_HINT_START
#define STOP    BALLOON_HINT_STOP
#define FINISH  BALLOON_HINT_FINISH
#define CMD_AT  8U /* in configuration space */
#define MIB     (1ULL << 20)
#define GIB     (1ULL << 30)
#define FIRST   VIRTIO_BALLOON_CMD_ID_MIN
#define ID_STOP VIRTIO_BALLOON_CMD_ID_STOP
#define ID_DONE VIRTIO_BALLOON_CMD_ID_DONE

static struct test_balloon t;

static uint8_t *forbidden;
static uint64_t forbidden_size;

static inline void never_discards(struct test_balloon *at, enum test_op op)
{
	(void)at;
	assert_int_not_equal(op, TEST_OP_DISCARD);
}

/* Region 0 is the guest's memory. */
static inline void begin_at(uint64_t features, uint64_t gpa, uint64_t size)
{
	test_balloon_init(&t, HINT);
	forbidden_size = size;
	forbidden = test_add_forbidden(&t.mem, gpa, size, PAGE);
	test_balloon_start(&t, V1 | features);
	t.hook = never_discards;
}

static inline void begin(uint64_t features)
{
	begin_at(HINT | features, 0, 64 * MIB);
}

static inline void end(void)
{
	test_drop_forbidden(forbidden, forbidden_size);
	test_balloon_end(&t);
}

static inline uint32_t command(void)
{
	uint8_t raw[4];

	balloon_config_read(&t.b, CMD_AT, raw, sizeof(raw));
	return le32_get(raw);
}

static inline void run(void)
{
	uint32_t id, len;

	while (balloon_queue_run(&t.b, RING, test_at(0)))
		;
	assert_true(test_take_used(&t.ring[RING], &id, &len));
	assert_int_equal(len, 0);
	assert_false(test_take_used(&t.ring[RING], &id, &len));
}

static inline void put_id(uint32_t id)
{
	le32_put(t.queues + TEST_BUFFERS, id);
}

/* The driver sends an id. */
static inline void send_id(uint32_t id)
{
	put_id(id);
	test_offer_one(&t.ring[RING], TEST_BUFFER, 4);
	run();
}

/* The driver hints. */
static inline void send_pages(uint64_t gpa, uint32_t len)
{
	struct test_desc d = {gpa, len, VRING_DESC_F_WRITE, 0};

	test_offer(&t.ring[RING], &d, 1);
	run();
}

static inline uint64_t marked(void)
{
	uint64_t bits = 0;

	for (uint64_t i = 0; i < pageset_words(&t.mem); i++)
		bits += (uint64_t)__builtin_popcountll(t.hints[i]);
	assert_int_equal(bits, t.b.hints.count);
	return bits;
}

/* Has just these pages of region 0 marked. */
static inline void check_marked(uint64_t first, uint64_t n)
{
	assert_int_equal(marked(), n);
	if (n)
		assert_true(pageset_all(&t.b.hints, 0, first, n));
}

/* Brings a new device there. Returns the command's id, 0 if there was none. */
static inline uint32_t reach(enum balloon_hint_state state)
{
	begin(0);
	if (state == BALLOON_HINT_IDLE)
		return 0;
	assert_int_equal(balloon_hint(&t.b, START), 0);
	if (state != BALLOON_HINT_REQUESTED)
		send_id(FIRST);
	if (state == BALLOON_HINT_FINISHED)
		send_id(ID_STOP);
	if (state == BALLOON_HINT_DONE)
		assert_int_equal(balloon_hint(&t.b, FINISH), 0);
	assert_int_equal(t.b.st.hint.state, state);
	t.config_changes = 0;
	t.events[BALLOON_EVENT_HINT] = 0;
	return FIRST;
}

#endif
